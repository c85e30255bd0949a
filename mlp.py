"""Relatives of the model, by hand: an MLP in front of linear attention (the authors' nonlinear
regression, C12); an MLP after each layer of softmax attention, and no attention at all (rows of
`lead`).

In front: the columns of a prompt become (f(x), y) with f(x) = W2 relu(W1 x + b1) + b2 before the
attention of linattn.py, with full matrices (k = D), sees them. Parameters are one flat array: W1,
b1, W2, b2, then the attention's. Letters are those of linattn.py. Source: Ahn et al., ICLR 2024,
arXiv 2310.01082, and the authors' code; the last two are ours.
"""

from collections import namedtuple

import numpy as np

from linattn import (COMPLEX, _attention, _attention_backprop, _checked_prompts, _check_init,
                     _check_whole, _diagonal, _each, _embed, _finite, _gram, _gram_backprop,
                     _over_chunks, _require, _second, _side_by_side, init_params)


# ---- In front ------------------------------------------------------------------------------------

def init_mlp_params(rng, layers=3, d=5, hidden=30, std=0.1):
    """Flat: W1 (hidden, d), b1 (hidden,), W2 (d, hidden), b2 (d,), uniform on +-1 / sqrt(columns of
    their W), as in the authors' code; the attention's (layers, 2, d+1, d+1) from N(0, std^2)."""
    _check_init(rng, std, layers=layers, d=d, hidden=hidden)
    layers, d, hidden = int(layers), int(d), int(hidden)  # an np.int8 overflows
    first, second = 1 / np.sqrt(d), 1 / np.sqrt(hidden)
    return np.concatenate([rng.uniform(-first, first, (d + 1) * hidden),
                           rng.uniform(-second, second, (hidden + 1) * d),
                           std * rng.standard_normal(2 * layers * (d + 1) ** 2)])


def mlp_loss_and_grad(params, prompts, layers=3):
    """`loss_and_grad` with the MLP before linear attention, k = D; prompts with .Z and .target;
    params as from `init_mlp_params`, whose size gives `hidden`."""
    _check_whole(layers=layers)
    params = _finite("params", params, COMPLEX)
    return _over_chunks(_mlp_backprop, params, _checked_prompts(prompts), layers)


def _mlp_parts(params, D, layers):
    """W1, b1, W2, b2 and the attention's params; the biases as columns."""
    d, fixed = D - 1, D - 1 + 2 * layers * D * D  # b2 and the attention
    hidden, rest = divmod(params.size - fixed, 2 * d + 1)
    _require(params.ndim == 1 and hidden >= 1 and rest == 0, "params", f"shape {params.shape}",
             f"({2 * d + 1} hidden + {fixed},) for d = {d} and {layers} layers")
    parts = np.split(params, np.cumsum([hidden * d, hidden, d * hidden, d]))
    shapes = (hidden, d), (hidden, 1), (d, hidden), (d, 1), (layers, 2, D, D)
    return map(np.reshape, parts, shapes)


def _mlp_forward(W1, b1, W2, b2, Z):
    """x [d, batch * (n+1)], a and h [hidden, batch * (n+1)], a column for each point of each
    prompt; and the attention's prompts, of columns (f, y), [batch, D, n+1]."""
    d = Z.shape[1] - 1
    x = _side_by_side(Z[:, :d])
    a = W1 @ x + b1
    h = a * (a.real > 0)
    return x, a, h, np.concatenate([_each(W2 @ h + b2, len(Z)), Z[:, d:]], axis=1)


def _mlp_backprop(params, Z, target, layers):
    """Sum of squared errors and its gradient; x holds the points of all prompts as its columns.

        a = W1 x + b1               ->  dW1 = da x^T   db1 = sum of da
        h = relu(a)                 ->  da = dh where a > 0, else 0
        f = W2 h + b2               ->  dW2 = df h^T   db2 = sum of df   dh = W2^T df
        G = C C^T / n               ->  dC = (dG + dG^T) C / n = J C / n
        C, q = columns (f, y)       ->  df = dC, dq without their label
    """
    n, d = Z.shape[2] - 1, Z.shape[1] - 1
    W1, b1, W2, b2, attention = _mlp_parts(params, d + 1, layers)
    x, a, h, fy = _mlp_forward(W1, b1, W2, b2, Z)
    loss, grad, _, (dq, J) = _gram_backprop(attention, *_gram(fy), target, to_input=True)
    dfy = np.concatenate([J @ fy[:, :, :-1] / n, dq[:, :, None]], axis=2)
    df = _side_by_side(dfy[:, :d])
    da = W2.T @ df * (a.real > 0)
    grads = da @ x.T, da.sum(1), df @ h.T, df.sum(1), grad
    return loss, np.concatenate([part.ravel() for part in grads])


def mlp_hessian_diagonal(params, prompts, layers=3):
    """The diagonal of the Hessian of `mlp_loss_and_grad`, shaped like params.

    Along one entry of the MLP its output f is linear (where no argument of relu is 0), so C11 = 0:
    with C1 the derivative of C, and q1 of the query,

        G = C C^T / n   ->  G1 = (C1 C^T + C C1^T) / n   G11 = 2 C1 C1^T / n

    G11 adds <dG, G11> = <J, C1 C1^T> / n, and the layers add what `hessian_diagonal` says.
    """
    _check_whole(layers=layers)
    params = _finite("params", params)
    return _over_chunks(_mlp_diagonal, params, _checked_prompts(prompts), layers)[1]


def _mlp_diagonal(params, Z, target, layers):
    batch, D, n = len(Z), Z.shape[1], Z.shape[2] - 1
    W1, b1, W2, b2, attention = _mlp_parts(params, D, layers)
    x, a, h, fy = _mlp_forward(W1, b1, W2, b2, Z)
    G, q = _gram(fy)
    loss, _, cache, (_, J) = _gram_backprop(attention, G, q, target, to_input=True)
    pairs, C = _embed(attention, D), fy[:, :, :-1]
    ones, on, diagonal = np.ones((1, a.shape[1])), a > 0, []

    def along(f1):  # [d, batch * (n+1)], the derivative of f
        C1 = np.concatenate([_each(f1, batch), 0 * Z[:, -1:]], axis=1)
        C1, q1 = C1[:, :, :-1], C1[:, :, -1]
        G1 = C1 @ C.mT / n
        return np.vdot(J @ C1, C1) / n + _second(pairs, cache, q1, G1 + G1.mT)

    for inputs in (x, ones):  # W1 and b1: f1 = W2_:i (x_j where a_i > 0), or without x_j
        diagonal += [along(W2[:, i, None] * (inputs[j] * on[i]))
                     for i in range(len(W1)) for j in range(len(inputs))]
    for inputs in (h, ones):  # W2 and b2: f1 = e_i h_j, or e_i
        diagonal += [along(np.outer(unit, inputs[j]))
                     for unit in np.eye(len(W2)) for j in range(len(inputs))]
    return loss, np.append(diagonal, _diagonal(attention, G, q, target)[1])


# ---- After each layer: a Transformer with softmax attention, without normalisation ---------------

# To a column z a layer does z' = z + attention, z'' = z' + W2 relu(W1 z'). Params, of shape
# (layers, 10, k, k), hold [l, 0] = P, [l, 1] = Q, [l, 2:6] = W1, (4 k, k), as four blocks one below
# the other, and [l, 6:10] = W2, (k, 4 k), as four side by side.

def init_transformer_params(rng, layers=3, d=5, std=0.05, full=False):
    """Attention as from `init_params`, then the MLPs' entries, all from N(0, std^2)."""
    attention = init_params(rng, layers, d, std, full)
    shape = (len(attention), 8, *attention.shape[2:])
    return np.concatenate([attention, std * rng.standard_normal(shape)], axis=1)


def transformer_loss_and_grad(params, prompts):
    """`loss_and_grad` of softmax attention with a residual ReLU MLP after each layer; prompts with
    .Z and .target."""
    params = _finite("params", params, COMPLEX)
    return _over_chunks(_transformer_backprop, params, _checked_prompts(prompts))


def _transformer_backprop(params, Z, target):
    """Sum of squared errors and its gradient; only the query goes through the last layer. The
    columns of all prompts stand side by side, as in linattn.py's definition.

        a = W1 z'          ->  dW1 = da z'^T   dz' += W1^T da
        h = relu(a)        ->  da = dh where a > 0, else 0
        z'' = z' + W2 h    ->  dW2 = dz'' h^T  dh = W2^T dz''  dz' = dz''
    """
    (batch, D, columns), k = Z.shape, params.shape[-1]
    matrices, cache, Z = _embed(params, D, 10), [], _side_by_side(Z)
    for l, (P, Q, *rest) in enumerate(matrices):
        X = Z if l < len(matrices) - 1 else Z[:, columns - 1 :: columns]
        W1, W2 = np.vstack(rest[:4]), np.hstack(rest[4:])
        attended, parts = _attention(P, Q, Z, X, batch, "softmax")
        a = W1 @ attended  # [4 D, D] [D, batch * m] -> [4 D, batch * m]
        h = a * (a.real > 0)
        Z = attended + W2 @ h
        cache.append((W1, W2, attended, a, h, parts))
    error, grad = -Z[-1] - target, np.empty_like(matrices)
    dZ = np.zeros((D, batch), matrices.dtype)
    dZ[-1] = -2 * error
    for l in reversed(range(len(matrices))):
        W1, W2, attended, a, h, parts = cache[l]
        dW2 = dZ @ h.T
        da = W2.T @ dZ * (a.real > 0)
        dW1 = da @ attended.T
        dZ = dZ + W1.T @ da
        grad[l, 2:] = *np.split(dW1, 4), *np.split(dW2, 4, axis=1)
        dZ, dP, dQ = _attention_backprop(*matrices[l, :2], parts, dZ, "softmax")
        grad[l, :2] = dP, dQ
    return (error * error).sum(), grad[:, :, :k, :k]


# ---- No attention: the layers z' = z + P Q z of a deep linear network ----------------------------

Columns = namedtuple("Columns", "z target")  # (batch, D) and (batch,), by `columns`


def columns(prompts):
    """What the network sees: z = (x, 0) with the query's x, and the target <w, x> with the same
    w = (1, ..., 1) for all prompts. (It could not know a w that changes.)"""
    z = prompts.Z[:, :, -1]  # its label is 0
    return Columns(z, z.sum(axis=1))


def network_loss_and_grad(params, columns):
    """Mean squared error of the network and its gradient, for params (layers, 2, D, D), [l, 0] =
    P_l and [l, 1] = Q_l, and `Columns`. It is linear attention with the prompt's G taken out; the
    prediction is minus the last entry of the last z, too.

        u = Q z         ->  dQ = du z^T    dz += Q^T du
        z' = z + P u    ->  dP = dz' u^T   du = P^T dz'   dz = dz'
    """
    params, (z, target) = _finite("params", params, COMPLEX), columns
    _require(params.shape[1:] == (2, z.shape[1], z.shape[1]), "params", f"shape {params.shape}",
             f"(layers, 2, {z.shape[1]}, {z.shape[1]}), all entries: full=True")
    cache, grad = [], np.empty_like(params)
    for P, Q in params:
        u = z @ Q.T  # a batch of columns is stored as rows
        cache.append((z, u))
        z = z + u @ P.T
    error = -z[:, -1] - target
    dz = np.zeros(z.shape, params.dtype)
    dz[:, -1] = -2 * error / len(error)
    for l in reversed(range(len(params))):
        (P, Q), (z, u) = params[l], cache[l]
        du = dz @ P
        grad[l] = dz.T @ u, du.T @ z
        dz = dz + du @ Q
    return (error * error).mean().item(), grad
