"""An MLP in front of linear attention, by hand: the authors' nonlinear regression (C12) alone needs
it.

The columns of a prompt become (f(x), y) with f(x) = W2 relu(W1 x + b1) + b2 before the attention
of linattn.py, with full matrices (k = D), sees them. Letters are those of linattn.py. Parameters
are one flat array: W1, b1, W2, b2, then the attention's. Source: Ahn et al., ICLR 2024, arXiv
2310.01082, and the authors' code.
"""

import numpy as np

from linattn import (COMPLEX, _checked_prompts, _check_init, _check_whole, _diagonal, _embed,
                     _finite, _gram, _gram_backprop, _over_chunks, _require, _second)


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
    """x, a and h, a column for each point of each prompt, and C, q: columns (f, y) of the
    attention's prompt."""
    batch, D, columns = Z.shape
    d = D - 1
    x = Z[:, :d].transpose(1, 0, 2).reshape(d, -1)  # [batch, d, n+1] -> [d, batch * (n+1)]
    a = W1 @ x + b1
    h = a * (a.real > 0)
    f = (W2 @ h + b2).reshape(d, batch, columns).transpose(1, 0, 2)
    return x, a, h, np.concatenate([f, Z[:, d:]], axis=1)


def _mlp_backprop(params, Z, target, layers):
    """Sum of squared errors and its gradient; x holds the points of all prompts as its columns.

        a = W1 x + b1               ->  dW1 = da x^T   db1 = sum of da
        h = relu(a)                 ->  da = dh where a > 0, else 0
        f = W2 h + b2               ->  dW2 = df h^T   db2 = sum of df   dh = W2^T df
        G = C C^T / n               ->  dC = (dG + dG^T) C / n = K C / n
        C, q = columns (f, y)       ->  df = dC, dq without their label
    """
    n, d = Z.shape[2] - 1, Z.shape[1] - 1
    W1, b1, W2, b2, attention = _mlp_parts(params, d + 1, layers)
    x, a, h, fy = _mlp_forward(W1, b1, W2, b2, Z)
    loss, grad, _, (dq, K) = _gram_backprop(attention, *_gram(fy), target, to_input=True)
    dfy = np.concatenate([K @ fy[:, :, :-1] / n, dq[:, :, None]], axis=2)
    df = dfy[:, :d].transpose(1, 0, 2).reshape(d, -1)
    da = W2.T @ df * (a.real > 0)
    grads = da @ x.T, da.sum(1), df @ h.T, df.sum(1), grad
    return loss, np.concatenate([part.ravel() for part in grads])


def mlp_hessian_diagonal(params, prompts, layers=3):
    """The diagonal of the Hessian of `mlp_loss_and_grad`, shaped like params.

    Along one entry of the MLP its output f is linear (where no argument of relu is 0), so C11 = 0:
    with C1 the derivative of C, and q1 of the query,

        G = C C^T / n   ->  G1 = (C1 C^T + C C1^T) / n   G11 = 2 C1 C1^T / n

    G11 adds <dG, G11> = <K, C1 C1^T> / n, and the layers add what `hessian_diagonal` says.
    """
    _check_whole(layers=layers)
    params = _finite("params", params)
    return _over_chunks(_mlp_diagonal, params, _checked_prompts(prompts), layers)[1]


def _mlp_diagonal(params, Z, target, layers):
    batch, D, columns = Z.shape
    W1, b1, W2, b2, attention = _mlp_parts(params, D, layers)
    x, a, h, fy = _mlp_forward(W1, b1, W2, b2, Z)
    G, q = _gram(fy)
    loss, _, cache, (_, K) = _gram_backprop(attention, G, q, target, to_input=True)
    pairs, C, n = _embed(attention, D), fy[:, :, :-1], columns - 1
    ones, on, diagonal = np.ones((1, a.shape[1])), a > 0, []

    def along(f1):  # [d, batch * (n+1)], the derivative of f
        C1 = np.concatenate([f1.reshape(-1, batch, columns).transpose(1, 0, 2), 0 * Z[:, -1:]], 1)
        C1, q1 = C1[:, :, :-1], C1[:, :, -1]
        G1 = C1 @ C.mT / n
        return np.vdot(K @ C1, C1) / n + _second(pairs, cache, q1, G1 + G1.mT)

    for inputs in (x, ones):  # W1 and b1: f1 = W2_:i (x_j where a_i > 0), or without x_j
        diagonal += [along(W2[:, i, None] * (inputs[j] * on[i]))
                     for i in range(len(W1)) for j in range(len(inputs))]
    for inputs in (h, ones):  # W2 and b2: f1 = e_i h_j, or e_i
        diagonal += [along(np.outer(unit, inputs[j]))
                     for unit in np.eye(len(W2)) for j in range(len(inputs))]
    return loss, np.append(diagonal, _diagonal(attention, G, q, target)[1])
