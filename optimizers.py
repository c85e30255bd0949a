"""Optimizers and gradient clipping, from scratch.

An optimizer is a class whose constructor takes the learning rate (called by keyword, `lr=...`) and
whose `step(params, grad)` returns the new parameters. Your own goes into a file of your own, say
mine.py in the working directory:

    import numpy as np

    class Lion:
        def __init__(self, lr):
            self.lr, self.m = lr, 0.0
        def step(self, params, grad):
            direction = np.sign(0.9 * self.m + 0.1 * grad)
            self.m = 0.99 * self.m + 0.01 * grad
            return params - self.lr * direction

`python experiments.py adam_vs_sgd --optimizers SGD mine.Lion --lr Lion=0.01` runs it. From Python
the class itself is passed: `adam_vs_sgd(optimizers=(SGD, Lion), lr=dict(Lion=0.01))`.

Of all steps of the same size, steepest descent takes the one along which the loss falls most. The
size of a step can be measured by different norms, and each gives another optimizer (Bernstein &
Newhouse, arXiv 2409.20325):

    Euclidean norm of all entries           the gradient over its norm          NormalizedSGD
    the largest Euclidean norm of a block   every block over its own norm       the same, "block"
    the largest absolute entry              the sign of every entry             SignDescent
    the largest spectral norm of a matrix   the polar factor of every matrix    Muon

These three classes do this to v, SGD's running sum of gradients, and scale the step to entries
of root mean square lr (where no group is 0), so that rates compare. Adam's entries are about lr,
too, but smaller where the gradient's sign changes. SGD scales nothing.

Weight decay is decoupled (Loshchilov & Hutter, arXiv 1711.05101): it shrinks the parameters by
lr * weight_decay a step, outside the moments. theta, g: parameters, gradient; v: SGD's running sum
of gradients, Adam's running mean of their squares; m: Adam's running mean of gradients.
"""

import numpy as np


class SGD:
    """v <- momentum v + g, theta <- theta - lr v (heavy ball, as in the paper's experiments)."""

    def __init__(self, lr, momentum=0.9, weight_decay=0.0):
        _check(lr, weight_decay, momentum=momentum)
        self.lr, self.momentum, self.weight_decay = lr, momentum, weight_decay
        self.v, self.shape = 0.0, None  # the shape of the first step

    def direction(self, v):
        """Where to go, given the running sum of gradients: v itself."""
        return v

    def step(self, params, grad):
        """New params; finite arrays of one shape, that of the first step, else ValueError."""
        params, grad = _alike(params, grad, self.shape)
        self.shape = params.shape
        self.v = self.momentum * self.v + grad
        return params - self.lr * (self.direction(self.v) + self.weight_decay * params)


class SignDescent(SGD):
    """The sign of SGD's running gradient, coordinate by coordinate (Kunstner et al. 2023,
    arXiv 2304.13960): v <- momentum v + g, theta <- theta - lr sign(v)."""

    def direction(self, v):
        return np.sign(v)


class NormalizedSGD(SGD):
    """SGD's running gradient over its root mean square, group by group of entries: all of them,
    each layer, each block (a matrix P_l or Q_l), each of its rows, or each coordinate (which is
    sign descent): v <- momentum v + g, theta <- theta - lr v / rms(v). A group of zeros stays, but
    counts in the rms of a larger one: with "layer", Q beside an untrained P moves sqrt(2) times as
    far."""

    AXES = dict(all=(0, 1, 2, 3), layer=(1, 2, 3), block=(2, 3), row=(3,), coordinate=())

    def __init__(self, lr, momentum=0.9, granularity="all", weight_decay=0.0):
        super().__init__(lr, momentum, weight_decay)
        if not isinstance(granularity, str) or granularity not in self.AXES:
            raise ValueError(f"granularity: got {granularity!r}, wants one of "
                             f"{', '.join(self.AXES)}")
        self.granularity = granularity

    def direction(self, v):
        """v / rms(v), for v (layers, 2, k, k); ValueError for another shape."""
        if v.ndim != 4 or not v.size:
            raise ValueError(f"params: got shape {v.shape}, wants (layers, 2, k, k)")
        axes = self.AXES[self.granularity]
        largest = np.abs(v).max(axis=axes, keepdims=True)  # first, so that no square overflows
        unit = v / np.where(largest > 0, largest, 1)
        rms = np.sqrt((unit**2).mean(axis=axes, keepdims=True))
        return unit / np.where(rms > 0, rms, 1)


class Muon(SGD):
    """SGD's running gradient with every matrix (the last two axes) orthogonalised (Jordan et al.
    2024, kellerjordan.github.io/posts/muon; without Nesterov's momentum): v = U S V^T -> U V^T, its
    polar factor, times the root of its larger side, so that entries have rms 1. What has no
    singular value (a block of zeros) stays. Large models replace the SVD by five Newton-Schulz
    steps X <- a X + b (X X^T) X + c (X X^T)^2 X from v / |v|, which need only products of matrices
    and bring all but the smallest singular values near 1."""

    def direction(self, v):
        """U V^T times the root of its larger side, for v (..., rows, columns); else ValueError."""
        if v.ndim < 2:
            raise ValueError(f"params: got shape {v.shape}, wants matrices in the last two axes")
        U, S, Vt = np.linalg.svd(v, full_matrices=False)
        good = S > 1e-14 * S[..., :1]
        return np.sqrt(max(v.shape[-2:])) * (U * good[..., None, :]) @ Vt


class Adam:
    """Kingma & Ba, arXiv 1412.6980, algorithm 1; beta2 = 0.9 is the paper's (not the usual 0.999).

    m <- beta1 m + (1 - beta1) g,  v <- beta2 v + (1 - beta2) g^2,
    theta <- theta - lr m^ / (sqrt(v^) + eps),  m^ = m / (1 - beta1^t),  v^ = v / (1 - beta2^t)
    """

    def __init__(self, lr, beta1=0.9, beta2=0.9, eps=1e-8, weight_decay=0.0):
        _check(lr, weight_decay, beta1=beta1, beta2=beta2)
        _require("eps", eps)
        self.lr, self.beta1, self.beta2, self.eps = lr, beta1, beta2, eps
        self.weight_decay, self.m, self.v, self.t = weight_decay, 0.0, 0.0, 0
        self.shape = None  # of the first step

    def step(self, params, grad):
        """New params; finite arrays of one shape, that of the first step, else ValueError."""
        params, grad = _alike(params, grad, self.shape)
        _norm(grad)  # a square that overflows would stay in v for ever
        self.shape = params.shape
        self.t += 1
        self.m = self.beta1 * self.m + (1 - self.beta1) * grad
        self.v = self.beta2 * self.v + (1 - self.beta2) * grad**2
        m_hat = self.m / (1 - self.beta1**self.t)  # the running means start at 0: undo that bias
        v_hat = self.v / (1 - self.beta2**self.t)
        update = m_hat / (np.sqrt(v_hat) + self.eps)
        return params - self.lr * (update + self.weight_decay * params)


def clip_global_norm(grad, limit):
    """grad scaled down, if need be, to the norm `limit`, which may be np.inf; ValueError if its own
    norm overflows."""
    _require("limit", limit, lambda x: x > 0)
    grad = _array("grad", grad)
    norm = _norm(grad)
    return grad * (limit / norm) if norm > limit else grad.copy()


def _check(lr, weight_decay, **fractions):
    _require("lr", lr)
    _require("weight_decay", weight_decay, lambda x: 0 <= x < 1e300, ">= 0")
    for name, value in fractions.items():
        _require(name, value, lambda x: 0 <= x < 1, "in [0, 1)")


def _require(name, value, fits=lambda x: 0 < x < 1e300, wants="> 0"):
    number = value.item() if isinstance(value, np.generic) else value  # float32 overflows at 1e300
    if not isinstance(number, (int, float)) or not fits(number):
        raise ValueError(f"{name}: got {value!r}, wants a number {wants}")


def _array(name, value):
    try:
        array = np.asarray(value)
        if array.dtype.kind in "iuf" and np.isfinite(array).all():
            return array.astype(float, copy=False)
    except ValueError:  # a ragged sequence
        pass
    raise ValueError(f"{name}: got entries that are not finite numbers, wants finite numbers")


def _norm(grad):
    with np.errstate(over="ignore"):
        norm = np.linalg.norm(grad)
    if norm == np.inf:
        raise ValueError("grad: got one of infinite norm, wants a finite one")
    return norm


def _alike(params, grad, first):
    """Both as arrays; `first` is the shape of the optimizer's first step, None before it."""
    params, grad = _array("params", params), _array("grad", grad)
    if grad.shape != params.shape:
        raise ValueError(f"grad: got shape {grad.shape}, wants that of params, {params.shape}")
    if first not in (None, params.shape):
        raise ValueError(f"params: got shape {params.shape}, wants that of the first step, {first}")
    return params, grad
