"""If every trained block is a multiple of the identity, the model is one polynomial of a spectrum.

    g, c      P = g I and Q = c I of a layer. `numbers` (L, 2) has a row (g, c) for each layer; the
              last g does nothing, as the last P does nothing, so 2 L - 1 of them count
    S, s      (1/n) sum x_i x_i^T over a prompt's context, (d, d), and its eigenvalues
    b         (1/n) sum y_i x_i, (d,)
    U, V, T   polynomials in S; u, v, t are their values at s
    m, sigma  E|x|^2, and the standard deviation of the noise on the labels

Claim. The prediction is b^T T x_q, and the error -w^T rho(S) x_q if y_i = w^T x_i. S T = I - U, rho
is u after the last layer, and from u = v = 1 on each layer makes

    u' = u (1 + a),  v' = v (1 + g a),  a = c s v^2.

Proof. Before a layer column (x, y) is (V x, y - b^T T x), with y = 0 for the query: first V = I and
T = 0. Polynomials in S commute. Q reads x alone: the score of pair i is c x_i^T V^2 x. To V x is
added g times the mean of score times V x_i, g c S V^2 V x: V' = V (I + g c S V^2). To the label is
added the mean of score times label, (1/n) sum (y_i - b^T T x_i) c x_i^T V^2 x = c b^T U V^2 x with
U = I - T S: T' = T - c U V^2, so U' = U (I + c S V^2). The prediction is minus the query's label,
b^T T x_q. If y_i = w^T x_i, then b = S w, and b^T T x_q - w^T x_q = -w^T U x_q. The degrees: that
of u' is that of u plus 1 plus twice v's, of v' three times v's plus 1: (3^L - 1) / 2 for both.

This holds prompt by prompt. For the loss let w, x_q and the context be independent, E w w^T = I and
E x_q x_q^T = (m / d) I. Noise on the labels adds a vector of covariance (sigma^2 / n) S to b, so

    loss = (m / d) E sum over the eigenvalues of [rho^2 + (sigma^2 / n) s t^2],  s t = 1 - rho.

Training that starts here stays if it follows the expected gradient and no rotation changes the laws
of x and w; on batches it leaves, and `projected` leads back. The model: Ahn et al., ICLR 2024,
arXiv 2310.01082; P = g I, by which a layer changes x: GD++, von Oswald et al., arXiv 2212.07677.
"""

from collections import namedtuple
from itertools import product
from math import gamma

import numpy as np

import data
import linattn

# The loss is the sum of weights * (rho(s)^2 + noise * s * t^2): s (count, d), weights (count, 1),
# about (m / d) / count, or both of one shape; noise = sigma^2 / n.
Spectra = namedtuple("Spectra", "s weights noise", defaults=(0.0,))
REACH = 20  # of `_one_long`: with 10, prompts that no sample has still decide for L = 4


def rho(numbers, s):
    """What is left of a label: rho at the eigenvalues s, of any shape; numbers (L, 2)."""
    return _forward(numbers, s)[0]


def _forward(numbers, s):
    """u after the last layer and, for the backward pass, every layer's (u, v, a)."""
    u, v, cache = np.ones_like(s), np.ones_like(s), []
    for g, c in numbers:
        a = c * s * v**2
        cache.append((u, v, a))
        u, v = u * (1 + a), v * (1 + g * a)
    return u, cache


def loss_and_grad(numbers, spectra):
    """The loss and its gradient, (L, 2), with 0 for the last g; complex if numbers are. The
    derivative by one number is the trace of that by its block. As linattn's `loss_and_grad`, this
    goes into `linattn.curvature`."""
    s, weights, noise = spectra
    u, cache = _forward(numbers, s)
    t = (1 - u) / np.where(s > 0, s, 1)  # where s = 0, s t^2 and its derivatives are 0
    loss = (weights * (u**2 + noise * s * t**2)).sum()
    du = weights * (2 * u - 2 * noise * t)  # s t = 1 - u
    dv, grad = 0 * u, np.empty((len(numbers), 2), u.dtype)
    for l in reversed(range(len(numbers))):
        (g, c), (u, v, a) = numbers[l], cache[l]
        da = du * u + dv * g * v  # u' = u (1 + a), v' = v (1 + g a)
        grad[l] = (dv * v * a).sum(), (da * s * v**2).sum()  # a = c s v^2
        du, dv = du * (1 + a), dv * (1 + g * a) + da * 2 * c * s * v
    return loss, grad


def hessian(numbers, spectra, kind="P = g I"):
    """The Hessian in the numbers that count, g_1, c_1, g_2, ..., c_L, (2 L - 1, 2 L - 1), or along
    other `directions` F, F^T H F; by the complex step."""
    F = directions(len(numbers), kind)
    return np.array([F.T @ linattn.hessian_vector_product(
        numbers, f.reshape(-1, 2), spectra, loss_and_grad).ravel() for f in F.T])


def directions(layers, kind="P = g I"):
    """Directions in which the numbers g_1, c_1, g_2, ... may change, columns (2 L, directions).
    "one size": gradient descent of one step size, one c for all layers and g = 0; "L sizes": a c
    for each; "P = g I": a g for each, too, but the last. KeyError for another kind."""
    unit = np.eye(2 * layers)
    return {"one size": unit[:, 1::2].sum(axis=1, keepdims=True), "L sizes": unit[:, 1::2],
            "P = g I": np.delete(unit, -2, axis=1)}[kind]


def embedded(numbers, d):
    """linattn's params (L, 2, d, d): the numbers times the identity."""
    return np.asarray(numbers)[..., None, None] * np.eye(d)


def projected(params):
    """The numbers of the nearest multiples of the identity, the means of the diagonals: blocks
    (..., L, 2, d, d) -> (..., L, 2). A gradient's is 1 / d times the gradient in the numbers, so a
    step of SGD on projected blocks is one on the numbers at 1 / d of the rate."""
    return np.trace(params, axis1=-2, axis2=-1) / params.shape[-1]


# ---- Spectra -------------------------------------------------------------------------------------

def spectra(rng, arguments, count=40_000, rare=False):
    """The `Spectra` of so many prompts; m is that of these prompts.

    arguments : of data.sample_prompts, as setting.data. Student's x have no moments from df on: the
        loss is infinite, whatever a sample gives, unless 2 (3^L - 1) < df.
    rare : for covariates="gamma". rho^2 is of degree 3^L - 1 in |x|^2, and with heavy tails most of
        its mean can be due to prompts with an x so long that the sample has none. With `rare` half
        of the prompts have one, and weights correct for it. (Gaussian x have rare prompts, too: at
        L = 4 one and the same numbers have twofold different losses on samples of 100,000.)

    Raises ValueError for data that the loss does not describe (a covariance, hidden, prepared), for
    `rare` with other covariates, and for what data.sample_prompts refuses.
    """
    for name in ("covariance", "hidden", "prepared"):
        value = arguments.get(name)
        if np.ndim(value) or value not in (None, "nothing"):
            raise ValueError(f"{name}: got one, wants none, which the loss does not describe")
    if rare and arguments.get("covariates") != "gamma":
        raise ValueError("rare: got True, wants False unless covariates are gamma")
    x = data.sample_prompts(rng, count, **arguments).Z[:, :-1, :-1]
    x, ratio = _one_long(rng, x.copy(), **arguments) if rare else (x, np.ones(len(x)))
    count, d, n = x.shape
    s, each = np.linalg.eigvalsh(x @ x.mT / n), ratio[:, None] / count
    m = (each * s).sum()  # E |x|^2 = E tr S
    return Spectra(s, m / d * each, arguments.get("noise", 0.0) ** 2 / n)


def _one_long(rng, x, shape=0.1, scale=10.0, second_moment=None, **_):
    """Importance sampling: x (count, d, n), where in half of the prompts one column is drawn anew,
    its |x|^2 from an exponential law of mean REACH * scale, and p / q of each prompt, (count,). p
    and q are the densities of its |x|^2 before and after: E_p f = E_q f p / q."""
    scale = scale if second_moment is None else second_moment / shape
    count, d, n = x.shape
    rows = np.flatnonzero(rng.random(count) < 0.5)
    columns, u = rng.integers(n, size=len(rows)), rng.standard_normal((len(rows), d))
    long = REACH * scale * rng.standard_exponential((len(rows), 1))
    x[rows, :, columns] = u / np.linalg.norm(u, axis=1, keepdims=True) * np.sqrt(long)
    z = np.einsum("bin,bin->bn", x, x) / scale
    # of a column: exp(-z / REACH) / REACH over Gamma's density z^(shape - 1) exp(-z) / gamma(shape)
    over = np.exp(z * (1 - 1 / REACH)) / REACH * z ** (1 - shape) * gamma(shape)
    return x, 1 / (0.5 + 0.5 * over.mean(axis=1))


def quadrature(spectra, layers):
    """Gauss's rule: `Spectra` of fewer eigenvalues that have the same loss, to 1e-12 of it, for all
    numbers of so many layers. As the loss is the mean of a polynomial of degree 3^L - 1, this takes
    k = (3^L + 1) / 2 nodes. The 10 k largest eigenvalues stay as they are, for nodes would have to
    meet isolated ones to more digits than there are; and all do if they are few, or L > 4.

    The nodes are the zeros of p_k, where b_(j+1) p_(j+1) = (s - a_j) p_j - b_j p_(j-1) makes p_0,
    p_1, ... orthonormal over the spectrum: they are the eigenvalues of the matrix with a on the
    diagonal and b beside it (Golub & Welsch, 1969). Their weights are 1 over the sum of all p_j^2.
    """
    s, w = spectra.s.ravel(), np.broadcast_to(spectra.weights, spectra.s.shape).ravel()
    k, order = (3**layers + 1) // 2, np.argsort(s, kind="stable")
    if layers > 4 or s.size < 10 * k**2:
        return Spectra(s, w, spectra.noise)
    order, largest = order[: -10 * k], order[-10 * k :]
    largest_s, largest_w, s, w = s[largest], w[largest], s[order], w[order]
    a, b, before, p = [], [0.0], 0.0, np.full(s.size, w.sum() ** -0.5)
    while len(a) < k:
        a.append((w * s * p**2).sum())
        before, p = p, (s - a[-1]) * p - b[-1] * before
        b.append(np.sqrt((w * p**2).sum()))
        if b[-1] <= 1e-10 * largest_s[-1]:  # fewer than k eigenvalues differ
            break
        p /= b[-1]
    beside = np.diag(b[1 : len(a)], 1)
    nodes = np.linalg.eigvalsh(np.diag(a) + beside + beside.T)
    before, p = 0.0, np.full(nodes.size, w.sum() ** -0.5)
    squares = p**2
    for j in range(1, len(a)):
        before, p = p, ((nodes - a[j - 1]) * p - b[j - 1] * before) / b[j]
        squares += p**2
    return Spectra(np.append(nodes, largest_s), np.append(1 / squares, largest_w), spectra.noise)


# ---- The best numbers ----------------------------------------------------------------------------

def best(spectra, layers, kind="P = g I", starts=(0.3, 3.0)):
    """Minima of the loss, each once, the least first: numbers (minima, L, 2), losses (minima,).

    By Newton's method along `directions(layers, kind)`. A layer with c = 0 does nothing, so the two
    best minima of L - 1 layers with one put in, at any place and with each g of `starts`, are the
    starts for L. An end where the slope is not 0 yet, in a valley without a bottom, say, counts
    only if there is no other. The least of these minima need not be the least of all.
    """
    F, nodes, ends = directions(layers, kind), quadrature(spectra, layers), []
    below = best(spectra, layers - 1, kind, starts)[0][:2] if layers > 1 else np.empty((1, 0, 2))

    def loss_and_slope(point):
        loss, grad = loss_and_grad((F @ point).reshape(layers, 2), nodes)
        return loss, F.T @ grad.ravel()

    def curvatures(point):
        return hessian((F @ point).reshape(layers, 2), nodes, kind)

    for numbers, g, place in product(below, starts, range(layers)):
        numbers = numbers.copy()
        numbers[-1:, 0] = g  # where it was the last one, it did nothing
        start = F.T @ np.insert(numbers, place, (g, 0.0), axis=0).ravel() / (F**2).sum(axis=0)
        ends.append(newton(loss_and_slope, curvatures, start))
    losses, slopes = map(np.array, zip(*map(loss_and_slope, ends)))
    ended = np.linalg.norm(slopes, axis=1) <= 1e-6 * losses
    minima = []
    for k in np.argsort(losses):
        new = not minima or losses[k] > (1 + 1e-6) * losses[minima[-1]]
        if new and (ended[k] or not ended.any()):
            minima.append(k)
    return (np.array(ends)[minima] @ F.T).reshape(-1, layers, 2), losses[minima]


@np.errstate(over="ignore", invalid="ignore")  # where a step is too long
def newton(loss_and_slope, hessian, point, steps=100):
    """A minimum near the point: Newton's method in the eigenvectors of the Hessian, with absolute
    eigenvalues (so that it leaves saddles) plus a damping that grows until the loss falls."""
    damping = 1.0
    for _ in range(steps):
        loss, slope = loss_and_slope(point)
        if np.linalg.norm(slope) < 1e-9 * loss:
            return point
        values, vectors = np.linalg.eigh(hessian(point))
        while damping < 1e12:
            step = vectors @ (vectors.T @ slope / (np.abs(values) + damping))
            if loss_and_slope(point - step)[0] < loss:
                break
            damping *= 4
        else:  # no step is short enough: the rounding error is reached
            return point
        point, damping = point - step, damping / 8
    return point
