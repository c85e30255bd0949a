"""Linear attention on in-context linear regression: the model and its derivatives, by hand.

Source: Ahn et al., "Linear attention is (maybe) all you need (to understand Transformer
optimization)", ICLR 2024, arXiv 2310.01082. The letters are the paper's:

    Z       one prompt, (d+1, n+1): column i holds (x_i, y_i), the last column the query (x, 0)
    C       the n context columns of Z, that is Z M without the last column
    M       diag(1, ..., 1, 0): nobody attends to the query
    P, Q    value matrix and joint key-query matrix of a layer, (d+1, d+1)
    G       the Gram matrix C C^T / n, (d+1, d+1), symmetric
    q       the query column, (d+1,)
    A       I + P G Q, what one linear layer does to every column
    dX      dLoss/dX, for any X
    D       d + 1

One layer is Z <- Z + (1/n) P Z M act(Z^T Q Z), here Z + P Z W with the attention weights W = act(S)
of the scores S = Z^T Q Z; act carries M and the 1/n. The prediction is MINUS the bottom-right entry
of the last Z. Why minus: with P = diag(0, ..., 0, 1), Q = diag(-c I, 0) and c > 0 a layer subtracts
from every label what one step of gradient descent, of size c, fits to the context. Context labels so
become residuals, from which the next layer takes the next step; the query's label, which starts at
0, becomes minus the sum of the estimates.

Parameters are one array (layers, 2, k, k): [l, 0] = P_l and [l, 1] = Q_l. With k = d + 1 every entry
is trained. With k = d only the top-left d x d blocks are; P's bottom-right entry is 1 and the rest
is 0 (the parametrisation behind the published figures). The last P block then has no gradient: it
only moves the query's x, and after the last layer nobody reads that (dq is 0 there but for its last
entry). Gram form, Hessian and curvature are for linear attention alone.
"""

from typing import NamedTuple

import numpy as np

STEP = 1e-20  # of the complex step: its square vanishes beside 1, so nothing is rounded away
CHUNK = 40_000  # numbers in the largest array of a chunk of prompts: small enough for the cache
np.empty(31 * 2**20, np.uint8)  # freeing a large array once makes glibc keep what is freed later,
# instead of returning it to the system and asking for zeroed memory again: a quarter less time


class Gram(NamedTuple):
    """Prompts in the form that linear attention needs; made by `compress`."""

    G: np.ndarray  # (batch, D, D)
    q: np.ndarray  # (batch, D)
    target: np.ndarray  # (batch,)


def init_params(rng, layers=3, d=5, std=0.05, full=False):
    """Draw every entry from N(0, std^2); returns (layers, 2, k, k), k = d + 1 if full, else d.

    Raises ValueError if rng is no numpy Generator, layers or d is below 1, or std is negative.
    """
    if not isinstance(rng, np.random.Generator):
        raise ValueError(f"rng: got {rng!r}, wants a numpy.random.Generator")
    for name, value in (("layers", layers), ("d", d)):
        if not isinstance(value, (int, np.integer)) or value is True or value < 1:
            raise ValueError(f"{name}: got {value!r}, wants a whole number >= 1")
    if not isinstance(std, (int, float, np.integer, np.floating)) or not 0 <= std < np.inf:
        raise ValueError(f"std: got {std!r}, wants a number >= 0")
    k = d + 1 if full else d
    return std * rng.standard_normal((layers, 2, k, k))


def predict(params, Z, activation="linear"):
    """Predictions of the query's label, (batch,), from prompts Z (batch, d+1, n+1).

    Raises ValueError for wrong shapes, numbers that are not finite, or an unknown activation.
    """
    Z = _checked_prompts(Z)
    layers = _embed(params, Z.shape[1])
    if activation == "linear":
        return _gram_forward(layers, *_gram(Z))[0]
    return _textbook_forward(layers, Z, _activation(activation)[0])[0]


def loss_and_grad(params, prompts, activation="linear"):
    """Mean squared error of the predictions and its gradient.

    prompts : anything with .Z (batch, d+1, n+1) and .target (batch,), or, for linear attention
        only, a `Gram` from `compress` when several calls share a batch.
    activation : "linear", "relu", "softmax" (over the n context keys, weights that sum to 1 and no
        further 1/n), or "softmax/n", the authors' code: over all n + 1 keys, the query's own
        included, whose weight is then dropped, and divided by n.

    Returns (loss, array shaped like params); loss is a float, or complex if params is. Large params
    may overflow: then the loss is infinite or NaN, with numpy's warning.
    Raises ValueError for wrong shapes, numbers that are not finite, or an unknown activation.
    """
    if activation == "linear":
        return _over_chunks(_gram_backprop, params, compress(prompts))
    return textbook_loss_and_grad(params, prompts, activation)


def textbook_loss_and_grad(params, prompts, activation="linear"):
    """`loss_and_grad` by the definition, at a cost of O(n^2) a layer; the only form for relu and
    softmax."""
    functions = _activation(activation)

    def backprop(layers, Z, target):
        return _textbook_backprop(layers, Z, target, *functions)

    return _over_chunks(backprop, params, _unpacked(prompts))


# ---- The definition: Z + P Z act(Z^T Q Z), M and 1/n within act ----------------------------------


def _textbook_forward(layers, Z, act):
    """Predictions (batch,) and, for the backward pass, every layer's (Z, X, S, W, V)."""
    cache = []
    for l, (P, Q) in enumerate(layers):
        X = Z if l < len(layers) - 1 else Z[:, :, -1:]  # of the last layer only the query is read
        S = Z.transpose(0, 2, 1) @ Q @ X  # scores: [D, n+1], [D, m] -> [n+1 keys, m queries]
        W = act(S)
        V = Z @ W  # [D, m]
        cache.append((Z, X, S, W, V))
        Z = X + P @ V
    return -Z[:, -1, -1], cache


def _textbook_backprop(layers, Z, target, act, act_backward):
    """Sum of squared errors and its gradient. Each line is the forward line above it in reverse:
    Y = X1 X2 gives dX1 = dY X2^T and dX2 = X1^T dY, and what is used twice receives twice."""
    prediction, cache = _textbook_forward(layers, Z, act)
    error = prediction - target
    grad = np.empty_like(layers)
    dZ = np.zeros((*Z.shape[:2], 1), layers.dtype)
    dZ[:, -1, -1] = -2 * error
    for l in reversed(range(len(layers))):
        (P, Q), (Z, X, S, W, V) = layers[l], cache[l]
        dX = dZ
        grad[l, 0] = (dX @ V.transpose(0, 2, 1)).sum(0)  # Z' = X + P V
        dV = P.T @ dX
        dZ = dV @ W.transpose(0, 2, 1)  # V = Z W
        dS = act_backward(Z.transpose(0, 2, 1) @ dV, S, W)
        ZdS = Z @ dS
        grad[l, 1] = (ZdS @ X.transpose(0, 2, 1)).sum(0)  # S = Z^T Q X
        dZ += Q @ X @ dS.transpose(0, 2, 1)
        dZ[:, :, -X.shape[2] :] += dX + Q.T @ ZdS  # X is Z, or its last column
    return (error * error).sum(), grad


def _mask(S):
    """M / n as a column: the n context keys count, the query's own does not."""
    n = S.shape[1] - 1
    return np.append(np.ones(n), 0)[:, None] / n


def _softmax(S):
    """Over the keys, axis 1; subtracting the maximum cancels and keeps exp from overflowing."""
    E = np.exp(S - S.max(axis=1, keepdims=True))
    return E / E.sum(axis=1, keepdims=True)


def _context_softmax(S):
    W = np.zeros_like(S)
    W[:, :-1] = _softmax(S[:, :-1])
    return W


def _softmax_backward(dW, W):
    return W * (dW - (W * dW).sum(axis=1, keepdims=True))


ACTIVATIONS = {  # name: (W = act(S), dS from (dW, S, W)); axis 1 of S holds the n + 1 keys
    "linear": (lambda S: S * _mask(S), lambda dW, S, W: dW * _mask(S)),
    "relu": (lambda S: S * (S.real > 0) * _mask(S), lambda dW, S, W: dW * (S.real > 0) * _mask(S)),
    "softmax": (_context_softmax, lambda dW, S, W: _softmax_backward(dW, W)),
    "softmax/n": (lambda S: _softmax(S) * _mask(S),
                  lambda dW, S, W: _softmax_backward(dW * _mask(S), _softmax(S))),
}


# ---- The linear case through the Gram matrix ----------------------------------------------------


def compress(prompts):
    """The Gram form of prompts (with .Z and .target); a Gram is checked and returned as it is.

    Linear attention adds P C (C^T Q z) / n = P G Q z to each column z, so a layer maps every column
    by the same A = I + P G Q: the query by q' = A q and the context by C' = A C, that is
    G' = C' C'^T / n = A G A^T. A prompt therefore enters only through G and q, and a layer costs
    O(d^3) whatever n is. Only this call, O(n d^2), reads the n columns.
    """
    if isinstance(prompts, Gram):
        G, q, target = map(np.asarray, prompts)
        if q.ndim != 2 or len(q) < 1 or G.shape != (*q.shape, q.shape[1]) or target.shape != q.shape[:1]:
            got = f"shapes {G.shape}, {q.shape} and {target.shape}"
            raise ValueError(f"Gram: got {got}, wants (batch, D, D), (batch, D) and (batch,)")
        return Gram(_finite("G", G), _finite("q", q), _finite("target", target))
    Z, target = _unpacked(prompts)
    return Gram(*_gram(Z), target)


def _gram(Z):
    C = Z[:, :, :-1]
    return C @ C.transpose(0, 2, 1) / C.shape[2], np.ascontiguousarray(Z[:, :, -1])


def _gram_forward(layers, G, q):
    """Predictions (batch,) and, for the backward pass, every layer's (G, A, q, u, t)."""
    cache = []
    for l, (P, Q) in enumerate(layers):
        u = q @ Q.T  # a batch of columns is stored as rows, so Q q is q @ Q.T
        t = _apply(G, u)
        A = None  # nobody reads the context after the last layer
        if l < len(layers) - 1:
            A = _times(P @ G, Q)
            A += np.eye(len(P))  # A = I + P G Q
        cache.append((G, A, q, u, t))
        q = q + t @ P.T  # q' = q + P G Q q
        if A is not None:
            G = A @ (G @ _transposed(A))  # G' = A G A^T
    return -q[:, -1], cache


def _gram_backprop(layers, G, q, target):
    """Sum of squared errors and its gradient. Y = X1 X2 gives dX1 = dY X2^T, dX2 = X1^T dY, so

        query    u = Q q         ->  dQ = du q^T     dq = dq' + Q^T du
                 t = G u         ->  dG = dt u^T     du = G dt            (G^T = G)
                 q' = q + P t    ->  dP = dq' t^T    dt = P^T dq'
        context  A = I + P G Q   ->  dP += dA Q^T G  dQ += G P^T dA       dG += P^T dA Q^T
                 G' = A G A^T    ->  dA = (dG' + dG'^T) A G               dG += A^T dG' A

    each summed over prompts for dP and dQ. A occurs twice in A G A^T, hence the sum in dA; and
    nothing but H = dG + dG^T is ever needed, so H is what the code carries from layer to layer:
    H = A^T H' A + X + X^T with X = dt u^T + P^T dA Q^T.
    """
    prediction, cache = _gram_forward(layers, G, q)
    error = prediction - target
    return (error * error).sum(), _gram_backward(layers, cache, error)[0]


def _gram_backward(layers, cache, error):
    """The gradient, and (dq', H') of every layer."""
    grad, received = np.empty_like(layers), [None] * len(layers)
    dq = np.zeros(cache[0][2].shape, layers.dtype)
    dq[:, -1] = -2 * error  # prediction = -q[d]
    H = None  # the last layer makes no G'
    for l in reversed(range(len(layers))):
        (P, Q), (G, A, q, u, t) = layers[l], cache[l]
        received[l] = dq, H
        dt = dq @ P
        du = _apply(G, dt)
        grad[l, 0] = dq.T @ t
        grad[l, 1] = du.T @ q
        dq = dq + du @ Q
        X = np.einsum("bi,bj->bij", dt, u)
        if H is not None:
            HA = H @ A
            dA = HA @ G
            PtdA = P.T @ dA
            grad[l, 0] += np.tensordot(_times(dA, Q.T), G, ((0, 2), (0, 1)))  # over prompts, too
            grad[l, 1] += _rows(G).T @ _rows(PtdA)  # sum over prompts of G^T PtdA
            X += _times(PtdA, Q.T)
        if l > 0:
            AtHA = 0 if H is None else A.transpose(0, 2, 1) @ HA
            H = AtHA + X
            H += X.transpose(0, 2, 1)
    return grad, received


def _rows(X):
    """(batch, D, D) -> (batch * D, D), without a copy."""
    return X.reshape(-1, X.shape[2])


def _times(X, W):
    """X W for every prompt and one matrix W: a single large product."""
    return (_rows(X) @ W).reshape(X.shape)


def _apply(A, q):
    """A q for every prompt."""
    return np.einsum("bij,bj->bi", A, q)


def _transposed(A):
    """A^T as a new array: a product with a transposed view on its right takes twice the time."""
    return np.ascontiguousarray(A.transpose(0, 2, 1))


# ---- Second derivatives: the complex step -------------------------------------------------------
#
# The gradient is a polynomial with real coefficients, so grad(theta + i h v) = grad(theta)
# + i h H v - O(h^2): the imaginary part over h is H v, without a subtraction that would round.


def hessian_vector_product(params, v, prompts):
    """H v for linear attention, shaped like params. Raises ValueError unless params and v are real,
    finite and of one shape."""
    params, v = np.asarray(params), np.asarray(v)
    if v.shape != params.shape:
        raise ValueError(f"v: got shape {v.shape}, wants that of params, {params.shape}")
    size = np.abs(_finite("v", v)).max(initial=0) or 1.0  # a step of length 1e-20 whatever v is
    step = 1j * STEP * (v / size)
    return loss_and_grad(_finite("params", params) + step, prompts)[1].imag / STEP * size


def curvature(params, v, prompts):
    """v^T H v / v^T v: the curvature of the loss along v (the paper's directional smoothness when v
    is an optimizer's step). Raises ValueError for v = 0."""
    v = _finite("v", np.asarray(v))
    if not v.any():
        raise ValueError("v: got all zeros, wants a direction")
    unit = v / np.abs(v).max()  # first, so that the norm neither overflows nor vanishes
    unit = unit / np.linalg.norm(unit)
    return float(np.vdot(unit, hessian_vector_product(params, unit, prompts)))


def hessian(params, prompts):
    """Hessian of the linear-attention loss, symmetric (p, p) with p = params.size.

    For a parameter of layer l, the layers below are constants. So its row is the complex step of the
    gradient of the upper part alone, which starts at layer l from that layer's G and q, and the rest
    of the row is known by symmetry.
    """
    gram, params = compress(prompts), _finite("params", np.asarray(params))
    D = gram.q.shape[1]
    full, k, depth = _embed(params, D), params.shape[-1], len(params)
    H = np.zeros((depth, 2, k, k) * 2)
    for G, q, target in _chunks(gram, D * D):
        for l, (G_l, _, q_l, _, _) in enumerate(_gram_forward(full, G, q)[1]):
            for entry in np.ndindex(2, k, k):
                upper = full[l:].astype(complex)
                upper[(0, *entry)] += 1j * STEP
                row = _gram_backprop(upper, G_l, q_l, target)[1][:, :, :k, :k].imag / STEP
                H[(l, *entry, slice(l, None))] += row
    H = H.reshape(params.size, params.size) / len(gram.target)
    return np.triu(H) + np.triu(H, 1).T


def hessian_diagonal(params, prompts):
    """The diagonal of `hessian`, shaped like params, at a tenth of its cost.

    Let X1 be the derivative of X along one parameter. With loss = error^2 the second derivative is
    2 prediction1^2 plus, for each layer, what that layer adds to the second derivative of its q' and
    G' in its own right, weighted by dq' and dG' of one backward pass: nothing is propagated twice.

        q' = A q      ->  q'1 = A q1 + A1 q        adds 2 A1 q1
        G' = A G A^T  ->  G'1 = A1 G A^T + A G1 A^T + A G A1^T
                          adds 2 (A1 G1 A^T + A G1 A1^T + A1 G A1^T)

    whose weighted sums are 2 <dq', A1 q1> and <H' A1, 2 A G1 + A1 G>.
    """
    gram, params = compress(prompts), _finite("params", np.asarray(params))
    D = gram.q.shape[1]
    full, diagonal = _embed(params, D), np.zeros(params.shape)
    for G, q, target in _chunks(gram, D * D):
        prediction, cache = _gram_forward(full, G, q)
        received = _gram_backward(full, cache, prediction - target)[1]
        for index in np.ndindex(params.shape):
            diagonal[index] += _second_derivative(full, cache, received, *index)
    return diagonal / len(gram.target)


def _second_derivative(layers, cache, received, l, which, i, j):
    """Sum over prompts of the second derivative of error^2 along entry (i, j) of P_l or Q_l."""
    (P, Q), (G, A, q, _, _) = layers[l], cache[l]
    A1, G1, total = np.zeros(G.shape), np.zeros(G.shape), 0.0
    if which == 0:
        A1[:, i, :] = G[:, j] @ Q  # A = I + P G Q along P_ij: e_i e_j^T G Q
    else:
        A1[:, :, j] = G[:, i] @ P.T  # along Q_ij: P G e_i e_j^T
    q1 = np.zeros(q.shape)  # the layer's own q and G do not move, only its A does
    for (P, Q), (G, A, q, u, _), (dq, H) in zip(layers[l:], cache[l:], received[l:]):
        if A1 is None:
            A1 = _times(P @ G1, Q)
        total += 2 * np.vdot(dq, _apply(A1, q1))
        if A is None:
            q1 = q1 + _apply(A1, q) + _apply(G, q1 @ Q.T) @ P.T
            break
        AG1, A1G = A @ G1, A1 @ G
        total += np.vdot(H @ A1, 2 * AG1 + A1G)
        q1 = _apply(A, q1) + _apply(A1, q)
        At = _transposed(A)
        G1 = A1G @ At
        G1 = G1 + G1.transpose(0, 2, 1) + AG1 @ At
        A1 = None
    return 2 * np.vdot(q1[:, -1], q1[:, -1]) + total


# ---- Shapes, chunks and checks ------------------------------------------------------------------


def _embed(params, D):
    """params as full matrices, (layers, 2, D, D)."""
    params = np.asarray(params)
    shape = params.shape
    if len(shape) != 4 or shape[0] < 1 or shape[1] != 2 or shape[2:] not in ((D, D), (D - 1, D - 1)):
        wants = f"(layers, 2, {D - 1}, {D - 1}) or (layers, 2, {D}, {D}) for prompts with d = {D - 1}"
        raise ValueError(f"params: got shape {shape}, wants {wants}")
    if params.dtype.kind not in "iufc" or not np.isfinite(params).all():
        raise ValueError("params: got entries that are not finite numbers, wants finite numbers")
    if shape[2] == D:
        return params.astype(np.result_type(params, float))
    full = np.zeros((shape[0], 2, D, D), np.result_type(params, float))
    full[:, :, :-1, :-1] = params
    full[:, 0, -1, -1] = 1
    return full


def _chunks(arrays, numbers_per_prompt):
    size = max(1, CHUNK // numbers_per_prompt)
    for start in range(0, len(arrays[-1]), size):
        yield [array[start : start + size] for array in arrays]


def _over_chunks(backprop, params, arrays):
    """Mean loss and gradient over all prompts, a cache-sized chunk at a time."""
    layers = _embed(params, arrays[0].shape[1])
    loss, grad = 0.0, np.zeros_like(layers)
    for chunk in _chunks(arrays, max(arrays[0].shape[1:]) ** 2):
        chunk_loss, chunk_grad = backprop(layers, *chunk)
        loss += chunk_loss
        grad += chunk_grad
    k, batch = np.shape(params)[-1], len(arrays[-1])
    return loss.item() / batch, grad[:, :, :k, :k] / batch


def _unpacked(prompts):
    """(Z, target), checked."""
    if not (hasattr(prompts, "Z") and hasattr(prompts, "target")):
        raise ValueError(f"prompts: got {type(prompts).__name__}, wants something with .Z and .target")
    Z, target = _checked_prompts(prompts.Z), np.asarray(prompts.target)
    if target.shape != (len(Z),):
        raise ValueError(f"target: got shape {target.shape}, wants ({len(Z)},), one for each prompt")
    return Z, _finite("target", target)


def _checked_prompts(Z):
    Z = np.asarray(Z)
    if Z.ndim != 3 or len(Z) < 1 or min(Z.shape[1:]) < 2:
        raise ValueError(f"Z: got shape {Z.shape}, wants (batch, d+1, n+1), each of batch, d, n >= 1")
    return _finite("Z", Z)


def _finite(name, array):
    if array.dtype.kind not in "iuf" or not np.isfinite(array).all():
        raise ValueError(f"{name}: got entries that are not finite real numbers, wants finite ones")
    return array


def _activation(name):
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise ValueError(f"activation: got {name!r}, wants one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]
