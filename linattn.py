"""Linear attention on in-context regression: the model and its derivatives, by hand.

Ahn et al., "Linear attention is (maybe) all you need (to understand Transformer optimization)",
ICLR 2024, arXiv 2310.01082. Letters; Z, M, P and Q are the paper's:

    Z       one prompt, (D, n+1), D = d + 1: column i holds (x_i, y_i), the last the query (x, 0)
    C, q    the n context columns of Z, and the query column
    M       diag(1, ..., 1, 0): nobody attends to the query
    P, Q    value matrix and joint key-query matrix of a layer, (D, D)
    G       the Gram matrix C C^T / n, (D, D), symmetric
    A       I + P G Q, what one linear layer does to every column
    X       the m columns of Z that a layer updates: all, in the last layer the query alone
    S, R    scores and act(S), (n, m): a row for each key, a column for each column of X
    V       what each of these columns reads, (D, m); U, N and r are steps on the way to it
    J, H    dG + dG^T (`_gram_backprop` says what for), and the Hessian of the loss
    Z', dZ  Z after the layer, and dLoss/dZ; likewise for the other letters
    Z.mT    numpy's word for the transposed matrix of every prompt

One layer is Z' = Z + (1/n) P Z M act(Z^T Q Z). The prediction is MINUS the bottom-right entry of
the last Z. Why minus: with P = diag(0, ..., 0, 1), Q = diag(-c I, 0) and c > 0 a layer subtracts
from every label the estimate of one step of gradient descent, of size c, from w = 0 on the mean of
(<w, x_i> - y_i)^2 / 2. What is left of the labels is the task of the next layer: the layers are
steps of one descent. The query's entry, which was 0, becomes minus the sum of the estimates.

Parameters are one array (layers, 2, k, k): [l, 0] = P_l and [l, 1] = Q_l. With k = D every entry is
trained. With k = d only the top-left blocks are; P's bottom-right entry is 1, the rest is 0 (as
behind the published figures). The last P block then has no gradient: P's last row is fixed, so the
block moves x, never a label, and after the last layer only the query's label is read. ValueErrors
say "name: got ..., wants ...".
"""

from collections import namedtuple
from functools import partial

import numpy as np

ACTIVATIONS = ("linear", "relu", "softmax", "softmax/n")
REAL, COMPLEX = "iuf", "iufc"  # kinds of numbers that an argument may have, numpy's letters
STEP = 1e-20  # of the complex step: nothing is subtracted, so it may be this small
CHUNK = 80_000  # numbers in the largest matrices of a chunk of prompts: they fit into the cache


def keep_freed_memory():
    """Free one large array. glibc then keeps what is freed later, instead of asking the system for
    zeroed memory again: about half the time for a gradient on 1,000 prompts. It adapts to arrays
    of up to 32 MiB."""
    np.empty(31 * 2**20, np.uint8)


keep_freed_memory()

Gram = namedtuple("Gram", "G q target")  # (batch, D, D), (batch, D) and (batch,), by `compress`


def init_params(rng, layers=3, d=5, std=0.05, full=False):
    """Entries from N(0, std^2), (layers, 2, k, k) with k = d + 1 if full, else d."""
    _check_init(rng, std, layers=layers, d=d)
    _require(isinstance(full, (bool, np.bool_)), "full", repr(full), "True or False")
    k = int(d) + 1 if full else int(d)
    return std * rng.standard_normal((layers, 2, k, k))


def predict(params, Z, activation="linear"):
    """Predictions of the query's label, (batch,), from prompts Z (batch, d+1, n+1), or, for linear
    attention, from their `Gram`."""
    _check_activation(activation)
    params = _finite("params", params, COMPLEX)
    if activation == "linear":
        G, q = _checked_gram(Z)[:2] if isinstance(Z, Gram) else _gram(_checked_Z(Z))
        return _gram_forward(_embed(params, q.shape[1]), G, q)[0]
    Z = _checked_Z(Z)
    return _textbook_forward(_embed(params, Z.shape[1]), Z, activation)[0]


def loss_and_grad(params, prompts, activation="linear"):
    """Mean squared error of the predictions and its gradient: (loss, array shaped like params).

    prompts : anything with .Z (batch, d+1, n+1) and .target (batch,), or, for linear attention
        only, a `Gram` from `compress` when several calls share a batch.
    activation : "linear", "relu", "softmax" (over the n context keys, weights that sum to 1 and no
        further 1/n), or "softmax/n", the authors' code: over all n + 1 keys, then times M / n.

    The loss is a float, or complex if params is; large params may overflow. Raises ValueError for
    wrong shapes, entries that are not finite, or an unknown activation.
    """
    if activation == "linear":
        return _over_chunks(_gram_backprop, _finite("params", params, COMPLEX), compress(prompts))
    return textbook_loss_and_grad(params, prompts, activation)


def textbook_loss_and_grad(params, prompts, activation="linear"):
    """`loss_and_grad` by the definition, at O(n^2) a layer (so no `Gram`); the only form for relu
    and softmax."""
    _check_activation(activation)
    params = _finite("params", params, COMPLEX)
    return _over_chunks(_textbook_backprop, params, _checked_prompts(prompts), activation)


# ---- The definition: S = C^T Q X, R = act(S), V = C R / r, Z' = X + P V --------------------------

# M takes the query out of the keys, so (1/n) Z M act(Z^T Q Z) = (1/n) C act(C^T Q Z). r is n, for
# softmax the sum over the keys of R = exp(S). It divides N = C R, of D numbers a column, instead of
# R, of n. In the code the columns of all prompts stand side by side, Z is [D, batch * (n+1)], and
# X, U, V are [D, batch * m]: so Q @ X is one large product, and dX @ V.T sums over the prompts,
# too. `_each` shows the columns prompt by prompt, [batch, D, m].

def _textbook_forward(pairs, Z, activation):
    """Predictions (batch,) and, for the backward pass, what every layer leaves for it."""
    (batch, _, columns), cache = Z.shape, []
    Z = _side_by_side(Z)
    for l, (P, Q) in enumerate(pairs):
        X = Z if l < len(pairs) - 1 else Z[:, columns - 1 :: columns]
        Z, parts = _attention(P, Q, Z, X, batch, activation)
        cache.append(parts)
    return -Z[-1], cache


def _attention(P, Q, Z, X, batch, activation):
    """One layer: Z' [D, batch * m] for the columns X of Z, and what its backward pass needs."""
    K = C = _each(Z, batch)[:, :, :-1]  # the keys, and what is read from them
    if activation == "softmax/n":
        K, C = _each(Z, batch), _each(Z * _mask(Z, batch), batch)
    U = Q @ X
    S = K.mT @ _each(U, batch)  # [n keys, D] [D, m] -> [n keys, m queries]
    R, r = _act(S, activation)
    N = _product(C, R)  # [D, n] [n, m] -> [D, m]
    V = N / r
    return X + P @ V, (batch, Z, X, K, C, U, R, r, V)


def _textbook_backprop(params, Z, target, activation):
    """Sum of squared errors and its gradient."""
    pairs, k = _embed(params, Z.shape[1]), params.shape[-1]
    prediction, cache = _textbook_forward(pairs, Z, activation)
    error, grad = prediction - target, np.empty_like(pairs)
    dZ = np.zeros((Z.shape[1], len(Z)), pairs.dtype)
    dZ[-1] = -2 * error  # loss = error^2, prediction = -Z[d, n]
    for l in reversed(range(len(pairs))):
        dZ, dP, dQ = _attention_backprop(*pairs[l], cache[l], dZ, activation)
        grad[l] = dP, dQ
    return (error * error).sum(), grad[:, :, :k, :k]


def _attention_backprop(P, Q, parts, dX, activation):
    """dZ, and dP and dQ summed over prompts, from dX = dZ', as Z' = X + P V (until X is read a
    second time, in U = Q X). Each line is the forward line in its comment, in reverse: F = B E
    gives dB = dF E^T, dE = B^T dF; what is used twice receives twice."""
    batch, Z, X, K, C, U, R, r, V = parts
    dP = dX @ V.T  # Z' = X + P V
    dV = P.T @ dX
    dN = dV / r  # V = N / r
    dC = _product(_each(dN, batch), R.mT)  # N = C R
    dR = C.mT @ _each(dN, batch)
    if activation == "linear":
        dS = dR
    elif activation == "relu":  # R = S where it is positive
        dS = np.multiply(dR, R.real > 0, out=dR)
    else:
        dr = -(V * dN).sum(0, keepdims=True)  # V = N / r
        dR += _each(dr, batch)  # r = sum of R over the keys
        dS = np.multiply(dR, R, out=dR)  # R = exp(S)
    if activation == "softmax/n":
        dC *= _mask(Z, batch)
    dC += _product(_each(U, batch), dS.mT)  # S = K^T U: dK, of the same columns of Z as dC
    dU = _product(K, dS)
    dQ = dU @ X.T  # U = Q X
    dZ = dX = dX + Q.T @ dU
    if X is not Z:  # but its last column in every prompt
        dZ = np.zeros(Z.shape, dX.dtype)
        _each(dZ, batch)[:, :, -1:] = _each(dX, batch)
    _each(dZ, batch)[:, :, : K.shape[2]] += _each(dC, batch)
    return dZ, dP, dQ


def _act(S, activation):
    """R = act(S), in the memory of S, and r: n, or the sum of R over axis 1, the keys."""
    if activation == "linear":
        return S, S.shape[1]
    if activation == "relu":
        return np.multiply(S, S.real > 0, out=S), S.shape[1]
    if S.real.max() > 300 or S.real.min() < -300:  # before exp overflows or a column vanishes:
        S -= S.max(axis=1, keepdims=True)  # this changes N and r by one factor, and not V
    R = np.exp(S, out=S)
    return R, (np.ones(R.shape[1]) @ R).ravel()  # R.sum(axis=1), as a product


def _mask(Z, batch):
    """The diagonal of M / n for all prompts: in "softmax/n" the query is a key, but not read."""
    n = Z.shape[1] // batch - 1
    return np.tile(np.append(np.ones(n), 0) / n, batch)


def _side_by_side(Z):
    """The columns of all prompts in one matrix: [batch, D, m] -> [D, batch * m]."""
    return Z.transpose(1, 0, 2).reshape(Z.shape[1], -1)


def _each(columns, batch):
    """The reverse, a view: [D, batch * m] -> [batch, D, m]."""
    return columns.reshape(len(columns), batch, -1).transpose(1, 0, 2)


def _product(B, E):
    """B E of each prompt, side by side: [batch, D, k] [batch, k, m] -> [D, batch * m]."""
    F = np.empty((B.shape[1], len(B) * E.shape[2]), np.result_type(B, E))
    np.matmul(B, E, out=_each(F, len(B)))
    return F


# ---- Linear attention through the Gram matrix ---------------------------------------------------

def compress(prompts):
    """The Gram form of prompts (with .Z and .target); a Gram as it is (its G taken as symmetric).

    Linear attention adds P C (C^T Q z) / n = P G Q z to each column z, so a layer maps every column
    by the same A = I + P G Q: the query by q' = A q and the context by C' = A C, that is
    G' = C' C'^T / n = A G A^T. A prompt therefore enters only through G and q, and a layer costs
    O(d^3) whatever n is; only the making of G, O(n d^2), reads the n columns. relu and softmax are
    not linear in the scores C^T Q z, so nothing regroups: every layer must read all columns.
    """
    if isinstance(prompts, Gram):
        return _checked_gram(prompts)
    Z, target = _checked_prompts(prompts)
    return Gram(*_gram(Z), target)


def _gram(Z):
    """G (batch, D, D) and q (batch, D) of prompts Z (batch, D, n+1)."""
    C = Z[:, :, :-1]
    return C @ C.mT / C.shape[2], np.ascontiguousarray(Z[:, :, -1])


def _gram_forward(pairs, G, q):
    """Predictions (batch,) and, for the backward pass, every layer's (G, A, q, u, t)."""
    cache = []
    for l, (P, Q) in enumerate(pairs):
        u = q @ Q.T  # a batch of columns is stored as rows, so Q q is q @ Q.T
        t = _apply(G, u)
        last = l == len(pairs) - 1  # nobody reads the context after it
        A = None if last else np.eye(len(P)) + _times(P @ G, Q)  # A = I + P G Q
        cache.append((G, A, q, u, t))
        q = q + t @ P.T  # q' = q + P G Q q
        if not last:
            G = A @ (G @ np.ascontiguousarray(A.mT))  # G' = A G A^T (a copy multiplies faster)
    return -q[:, -1], cache


def _gram_backprop(params, G, q, target, to_input=False):
    """Sum of squared errors, its gradient, the cache with every layer's (dq', J'), and (dq, J) of
    the prompts. `to_input` serves the MLP alone, which reads these last two: with it the first
    layer makes its J, too, which the gradient of P and Q does not need.

    First step. F = B E gives dB = dF E^T and dE = B^T dF, so

        query    u = Q q         ->  dQ = du q^T     dq = dq' + Q^T du
                 t = G u         ->  dG = dt u^T     du = G dt            (G^T = G)
                 q' = q + P t    ->  dP = dq' t^T    dt = P^T dq'
        context  A = I + P G Q   ->  dP += dA Q^T G  dQ += G P^T dA       dG += P^T dA Q^T
                 G' = A G A^T    ->  dA = (dG' + dG'^T) A G               dG += A^T dG' A

    dP and dQ summed over prompts; in the code a batch of columns is stored as rows, so that
    P^T dq' is dq @ P. A occurs twice in A G A^T, hence the sum in dA. The last layer
    makes no G': there dA = 0, and dG = dt u^T is all.

    Second step. The three lines of dG together are

        dG = Y + A^T dG' A,  Y = dt u^T + P^T dA Q^T.

    Apart from this line, dG' is only ever used in the sum J' = dG' + dG'^T: dA = J' A G, the MLP's
    dC = J C / n, and `hessian_diagonal`. The line plus its transpose makes J of J' alone,

        J = Y + Y^T + A^T J' A,

    so the code carries J, and dG itself is never made.
    """
    pairs, D, k = _embed(params, q.shape[1]), q.shape[1], params.shape[-1]
    prediction, cache = _gram_forward(pairs, G, q)
    error, grad = prediction - target, np.empty_like(pairs)
    dq, J = np.zeros(q.shape, pairs.dtype), None  # the last layer makes no G'
    dq[:, -1] = -2 * error  # loss = error^2, prediction = -q[d]
    for l in reversed(range(len(pairs))):
        (P, Q), (G, A, q, u, t) = pairs[l], cache[l]
        cache[l] += (dq, J)  # for hessian_diagonal; at this line they still are dq' and J'
        dt = dq @ P
        du = _apply(G, dt)
        grad[l, 0] = dq.T @ t  # dP = dq' t^T, summed over prompts: [D, batch] [batch, D] -> [D, D]
        grad[l, 1] = du.T @ q  # dQ = du q^T, likewise
        dq = dq + du @ Q
        if J is not None:
            JA = J @ A
            dA = JA @ G
            PtdA = P.T @ dA
            # dP += dA Q^T G, summed over prompts and the inner index, axes 0 and 2 of dA Q^T and
            # 0 and 1 of G: [batch, D, D] [batch, D, D] -> [D, D]
            grad[l, 0] += np.tensordot(_times(dA, Q.T), G, ((0, 2), (0, 1)))
            # dQ += G P^T dA, likewise, as G = G^T: [D, batch * D] [batch * D, D] -> [D, D]
            grad[l, 1] += G.reshape(-1, D).T @ PtdA.reshape(-1, D)
        if l > 0 or to_input:
            Y = np.einsum("bi,bj->bij", dt, u)  # [batch, D] [batch, D] -> [batch, D, D]
            if J is not None:
                Y += _times(PtdA, Q.T)
            J = Y + Y.mT if J is None else A.mT @ JA + Y + Y.mT  # None: the last layer has no J'
    return (error * error).sum(), grad[:, :, :k, :k], cache, (dq, J)


def _times(B, E):
    """B E for every prompt's B and one E, as a single large product: [batch * D, D] [D, D]."""
    return (B.reshape(-1, B.shape[2]) @ E).reshape(B.shape)  # -> [batch, D, D]


def _apply(B, columns):
    """B times its column, for every prompt: [batch, D, D] [batch, D] -> [batch, D]."""
    return np.einsum("bij,bj->bi", B, columns)


# ---- Second derivatives: the complex step -------------------------------------------------------

def hessian_vector_product(params, v, prompts, gradient=loss_and_grad):
    """H v, shaped like params, for a gradient(params, prompts) -> (loss, grad) that is written for
    complex params (of which no part is dropped), such as mlp.py's `mlp_loss_and_grad`. It is
    analytic (with relu: where no argument is 0), so grad(params + i STEP v) = grad(params) + i STEP
    H v - O(STEP^2): the imaginary part over STEP is H v, and no subtraction rounds it. Raises
    ValueError unless params and v are finite and alike.
    """
    params, v = _finite("params", params), _finite("v", v)
    _require(v.shape == params.shape, "v", f"shape {v.shape}", f"that of params, {params.shape}")
    size = np.abs(v).max(initial=0) or 1.0  # 1e-20 in the largest entry, whatever v is
    step = 1j * STEP * (v / size)
    return gradient(params + step, prompts)[1].imag / STEP * size


def curvature(params, v, prompts, gradient=loss_and_grad):
    """v^T H v / v^T v: the curvature of the loss along v (the paper's directional smoothness when v
    is an optimizer's step). Raises ValueError for v = 0."""
    v = _finite("v", v)
    _require(v.any(), "v", "all zeros", "a direction")
    unit = v / np.abs(v).max()  # first, so that the norm neither overflows nor vanishes
    unit = unit / np.linalg.norm(unit)
    return float(np.vdot(unit, hessian_vector_product(params, unit, prompts, gradient)))


def hessian(params, prompts):
    """Hessian of the linear-attention loss, (params.size, params.size). A row is H v for a unit
    vector v of layer l. The layers below are constants for it, so the product starts from the G and
    q that they give, and symmetry supplies the entries left out."""
    gram, params = compress(prompts), _finite("params", params)
    cache = _gram_forward(_embed(params, gram.q.shape[1]), gram.G, gram.q)[1]
    H = np.zeros((params.size, params.size))
    gradient = partial(_over_chunks, _gram_backprop)  # without checks: a deep G may have overflowed
    for row, unit in enumerate(np.eye(params.size).reshape(-1, *params.shape)):
        l = row // params[0].size
        G, _, q, *_ = cache[l]
        upper = Gram(G, q, gram.target)
        product = hessian_vector_product(params[l:], unit[l:], upper, gradient)
        H[row, -product.size :] = product.ravel()
    return np.triu(H) + np.triu(H, 1).T


def hessian_diagonal(params, prompts):
    """The diagonal of `hessian`, shaped like params, at a fraction of its cost.

    Let F1 and F11 be the first and second derivative of any F along one parameter. With loss =
    error^2 the second derivative is 2 prediction1^2 plus <dq, q11> of the last layer's output,
    where

        q' = A q      ->  q'1 = A1 q + A q1          q'11 = 2 A1 q1 + (A q11 + A11 q)
        G' = A G A^T  ->  G'1 = A1 G A^T + A G1 A^T + A G A1^T
                          G'11 = W + (A G11 A^T + A11 G A^T + A G A11^T)
                          W = 2 (A1 G1 A^T + A1 G A1^T + A G1 A1^T)

    In the parameter's own layer q1, G1, q11, G11 and, as A is linear in it, A11 are 0. Above it
    A1 = P G1 Q and A11 = P G11 Q, so that the brackets are linear in q11 and G11 of the layer
    below: the backward pass has carried them into dq and dG. So each layer from there on adds
    <dq', 2 A1 q1> and, except for the last, <dG', W> = <J', W> / 2 = <J' A1, 2 A G1 + A1 G>,
    because W and J' = dG' + dG'^T are symmetric; <,> sums over prompts, too.
    """
    return _over_chunks(_diagonal, _finite("params", params), compress(prompts))[1]


def _diagonal(params, G, q, target):
    """Sum of squared errors, and its second derivatives, shaped like params."""
    loss, _, cache, _ = _gram_backprop(params, G, q, target)
    pairs, diagonal = _embed(params, q.shape[1]), np.empty(params.shape)
    for l, which, i, j in np.ndindex(params.shape):
        (P, Q), G = pairs[l], cache[l][0]
        A1 = np.zeros_like(G)
        if which == 0:  # the parameter's own layer: A = I + P G Q moves, q and G do not
            A1[:, i, :] = G[:, j] @ Q  # along P_ij: e_i e_j^T G Q
        else:
            A1[:, :, j] = G[:, i] @ P.T  # along Q_ij: P G e_i e_j^T
        diagonal[l, which, i, j] = _second(pairs[l:], cache[l:], 0 * q, 0 * G, A1)
    return loss, diagonal


def _second(pairs, cache, q1, G1, A1=None):
    """A second derivative, summed over prompts: 2 prediction1^2 and what each layer adds. q1
    (batch, D) and G1 (batch, D, D) are those of the input of the first layer here, A1 (batch, D, D)
    is its own if that is not P G1 Q."""
    total = 0.0
    for (P, Q), (G, A, q, _, _, dq, J) in zip(pairs, cache):
        if A1 is None:
            A1 = _times(P @ G1, Q)
        total += 2 * np.vdot(dq, _apply(A1, q1))
        if A is None:  # the last layer: A q1 by its parts, and no G'
            q1 = q1 + _apply(A1, q) + _apply(G, q1 @ Q.T) @ P.T
            break
        AG1, A1G, At = A @ G1, A1 @ G, np.ascontiguousarray(A.mT)
        total += np.vdot(J @ A1, 2 * AG1 + A1G)
        q1 = _apply(A, q1) + _apply(A1, q)
        G1 = A1G @ At
        G1, A1 = G1 + G1.mT + AG1 @ At, None  # G1.mT = A G A1^T
    return 2 * np.vdot(q1[:, -1], q1[:, -1]) + total


# ---- Shapes and chunks --------------------------------------------------------------------------

def _embed(params, D, count=2):
    """The matrices of all layers, P and Q first, as full ones, (layers, count, D, D)."""
    fits = params.size and params.shape in [(*params.shape[:1], count, k, k) for k in (D - 1, D)]
    wants = f"(layers, {count}, k, k) with k = {D - 1} or {D} for prompts with d = {D - 1}"
    _require(fits, "params", f"shape {params.shape}", wants)
    pairs, k = np.zeros((len(params), count, D, D), params.dtype), params.shape[-1]
    pairs[:, 0, -1, -1] = 1
    pairs[:, :, :k, :k] = params
    return pairs


def _over_chunks(backprop, params, arrays, *options):
    """Mean loss and gradient (or what else `backprop` sums) over all prompts, a cache-sized chunk
    at a time."""
    loss, grad, batch = 0.0, 0.0, len(arrays[-1])
    size = max(1, CHUNK // max(arrays[0].shape[1:]) ** 2)
    for start in range(0, batch, size):
        chunk = [array[start : start + size] for array in arrays]
        chunk_loss, chunk_grad, *_ = backprop(params, *chunk, *options)
        loss += chunk_loss
        grad += chunk_grad
    return loss.item() / batch, grad / batch


# ---- Checks of the arguments, each where a public function takes it in ---------------------------

def _require(good, name, got, wants):
    if not good:
        raise ValueError(f"{name}: got {got}, wants {wants}")


def _finite(name, array, kinds=REAL):
    """The argument as an array of floats (or of complex numbers, if kinds allows)."""
    try:
        array = np.asarray(array)
        good = array.dtype.kind in kinds and np.isfinite(array).all()
    except ValueError:  # a ragged sequence
        good = False
    _require(good, name, "entries that are not finite numbers", "finite numbers")
    return array.astype(np.result_type(array, float), copy=False)


def _checked_Z(Z):
    Z = _finite("Z", Z)
    fits = Z.ndim == 3 and len(Z) and min(Z.shape[1:]) > 1
    _require(fits, "Z", f"shape {Z.shape}", "(batch, d+1, n+1), batch, d, n >= 1")
    return Z


def _checked_prompts(prompts):
    both = hasattr(prompts, "Z") and hasattr(prompts, "target")
    _require(both, "prompts", type(prompts).__name__, "something with .Z and .target")
    Z, target = _checked_Z(prompts.Z), _finite("target", prompts.target)
    _require(target.shape == Z.shape[:1], "target", f"shape {target.shape}", f"({len(Z)},)")
    return Z, target


def _checked_gram(gram):
    G, q, target = map(_finite, Gram._fields, gram)
    fits = q.ndim == 2 and q.size and G.shape == (*q.shape, q.shape[1])
    _require(fits and target.shape == q.shape[:1], "Gram",
             f"shapes {G.shape}, {q.shape} and {target.shape}",
             "(batch, D, D), (batch, D) and (batch,)")
    return Gram(G, q, target)


def _check_activation(activation):
    known = isinstance(activation, str) and activation in ACTIVATIONS
    _require(known, "activation", repr(activation), f"one of {', '.join(ACTIVATIONS)}")


def _check_init(rng, std, **sizes):
    _require(isinstance(rng, np.random.Generator), "rng", repr(rng), "a numpy.random.Generator")
    number = std.item() if isinstance(std, np.generic) else std
    good = isinstance(number, (int, float)) and 0 <= number < 1e300
    _require(good, "std", repr(std), "a number >= 0")
    _check_whole(**sizes)


def _check_whole(**sizes):
    for name, value in sizes.items():
        whole = isinstance(value, (int, np.integer)) and value is not True and 1 <= value < 10**6
        _require(whole, name, repr(value), "a whole number >= 1 (and below a million)")
