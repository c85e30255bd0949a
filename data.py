"""Random prompts of in-context linear regression, light- or heavy-tailed, and the paper's settings.

    x_i     covariates, (d,); x_{n+1} is the query
    w       the regression vector of a prompt, (d,), drawn anew for each prompt
    y_i     <w, x_i>, with `hidden` <w, f(x_i)>, plus label noise if asked for
    Z       (d+1, n+1): column i holds (x_i, y_i), the last column (x_{n+1}, 0)
    s       the squared radius of x, where x = sqrt(s) u with u uniform on the unit sphere

Source: Ahn et al., ICLR 2024, arXiv 2310.01082; the covariance form: arXiv 2306.00297.
"""

from typing import NamedTuple

import numpy as np

FAMILIES = ("gaussian", "sphere", "gamma", "student")
NOISES = ("gaussian", "student", "outliers")
PREPARED = ("nothing", "scaled", "whitened")


class Prompts(NamedTuple):
    """A batch of prompts; the arrays are read-only, because runs may share them."""

    Z: np.ndarray  # (batch, d+1, n+1)
    target: np.ndarray  # (batch,): y_{n+1}, without label noise


def sample_prompts(rng, batch=1000, n=20, d=5, covariates="gaussian", *, shape=0.1, scale=10.0,
                   df=5.0, second_moment=None, noise=0.0, noise_family="gaussian", covariance=None,
                   hidden=None, prepared="nothing"):
    """Draw a batch of prompts.

    rng : numpy.random.Generator
    covariates : "gaussian", x ~ N(0, I); "sphere", |x| = 1; "gamma", s ~ Gamma(shape, scale), so
        that E|x|^2 = shape * scale; "student", the multivariate t with df degrees of freedom, of
        which only moments below df exist. Gamma(d/2, 2) is N(0, I). The paper's heavy tails are
        Gamma(0.1, 10): against Gamma(2.5, 2), E|x|^2 falls from 5 to 1 as the tail grows.
    second_moment : if given, x is rescaled so that E|x|^2 is this number whatever the tail.
    noise : standard deviation of the noise on the context's labels; the target stays clean.
    noise_family : its distribution, of that standard deviation: "gaussian"; "student", with 2.5
        degrees of freedom; "outliers", Gaussian on a tenth of the labels, 0 on the others.
    prepared : what is done to a prompt before anybody sees it: "nothing"; "scaled", every pair
        (x, y) over |x|, the target over the query's |x|; "whitened", x -> S^(-1/2) x with S the
        mean of x x^T over the context, which leaves labels as they are (a thousandth of its mean
        eigenvalue is added to S).
    covariance : (d, d) matrix Sigma = root root^T: x becomes root x and w ~ N(0, Sigma^-1) instead
        of N(0, I). E|x|^2 and the families above describe x before that.
    hidden : if given, labels are <w, f(x)>, f(x) = W2 relu(W1 x + b1) + b2 a ReLU network of this
        width, weights and biases uniform on +-1 / sqrt(columns of their W), the same in every call
        (the authors' nonlinear task). Z still holds x.

    Raises ValueError, naming the argument, for anything else, and if an entry of Z overflows.
    """
    _check(rng, batch, n, d, shape, scale, df, second_moment, noise, hidden)
    _check_choices(covariates=(covariates, FAMILIES), noise_family=(noise_family, NOISES),
                   prepared=(prepared, PREPARED))
    batch, n, d = int(batch), int(n), int(d)  # an np.int8 or np.float32 overflows
    hidden = None if hidden is None else int(hidden)
    shape, scale, df = float(shape), float(scale), float(df)
    x = _covariates(rng, batch, n, d, covariates, shape, scale, df, second_moment)
    w = rng.standard_normal((batch, 1, d))
    if covariance is not None:
        root = _cholesky(covariance, d)
        x, w = root @ x, w @ np.linalg.inv(root)
    features = x if hidden is None else _network(x, hidden)
    Z = np.concatenate([x, w @ features], axis=1)
    target = Z[:, d, n].copy()
    Z[:, d, n] = 0.0
    if noise > 0:
        Z[:, d, :n] += noise * _unit_noise(rng, noise_family, (batch, n))
    Z, target = _prepare(Z, target, prepared)
    if not np.isfinite(Z).all() or not np.isfinite(target).all():
        raise ValueError("Z: got infinite or undefined entries, wants arguments nearer to 1")
    Z.flags.writeable = target.flags.writeable = False
    return Prompts(Z, target)


class Setting(NamedTuple):
    """A row of the paper's experiments."""

    name: str
    data: dict  # arguments of sample_prompts
    lr: dict  # learning rate of each optimizer
    clip: float = 1.0  # limit of the gradient's global norm; np.inf: no clipping
    layers: int = 3
    activation: str = "linear"  # or another of linattn's, or of training.py's `gradient_of`
    full: bool = False  # train all of P and Q, not only their top-left blocks
    std: float = 0.05  # of the initial entries
    batch: int = 1000
    fixed: bool = False  # one batch for all steps
    schedule: str = "constant"  # or "linear": the rate falls to 0 within the run; or "warm-up": it
    # rises from 0 to the full rate over the first tenth


def about_x(setting):
    """What is to be said of the data in a title."""
    families = dict(gaussian=f"n = {setting.data['n']}", sphere="x on the sphere",
                    gamma="heavy-tailed x", student="x of Student's t")
    return families[setting.data.get("covariates", "gaussian")]


# Data: the paper's section 3. Rates and clip limits: the authors' code, their best of a grid of ten
# for L = 3; those of SignDescent: ours, as below.
SETTING_1 = Setting("Setting 1", dict(n=20, d=5, covariates="gaussian"),
                    dict(SGD=0.02, Adam=0.02, SignDescent=0.01))
SETTING_2 = Setting("Setting 2", dict(n=5, d=5, covariates="gaussian"),
                    dict(SGD=0.01, Adam=0.005, SignDescent=0.005))
SETTING_3 = Setting("Setting 3", dict(n=20, d=5, covariates="gamma"),
                    dict(SGD=0.02, Adam=0.02, SignDescent=0.01))
PAPER_SETTINGS = {setting.name: setting for setting in (SETTING_1, SETTING_2, SETTING_3)}
SPHERICAL = Setting("Spherical x", dict(n=20, d=5, covariates="sphere"),
                    dict(SGD=5.0, Adam=0.1), 0.1)
# Rates from our own grid (`learning_rates`), on short runs, whose best lies near the edge beyond
# which long runs diverge: mostly the next lower one is taken.
LIGHT_TAILS = Setting("Gaussian x", dict(n=20, d=5, covariates="gaussian", second_moment=1.0),
                      dict(SGD=2.0, Adam=0.1), 0.1)
DEEP = tuple(Setting(f"L = {layers}", SETTING_1.data, dict(SGD=sgd, Adam=adam), layers=layers)
             for layers, sgd, adam in ((2, 0.02, 0.02), (4, 0.1, 0.02), (6, 0.05, 0.01),
                                       (8, 0.05, 0.005)))
LARGE = Setting("L = 8, d = 20, n = 60", dict(n=60, d=20), dict(SGD=0.05, Adam=0.005), layers=8)
NONLINEAR = tuple(Setting(name, SETTING_1.data, dict(Adam=adam), activation=name)
                  for name, adam in (("relu", 0.05), ("softmax", 0.01), ("softmax/n", 0.05)))
NONLINEAR_TASK = Setting("MLP", dict(n=20, d=5, hidden=10), dict(SGD=0.05, Adam=0.01),
                         activation="mlp", std=0.1, batch=2000)  # all of it the authors'


def _covariates(rng, batch, n, d, covariates, shape, scale, df, second_moment):
    """x (batch, d, n+1)."""
    x = rng.standard_normal((batch, d, n + 1))
    if covariates == "gaussian":
        factor, moment = 1.0, d  # x^2 is multiplied by factor; moment is E|x|^2 after that
    elif covariates == "sphere":
        factor, moment = 1 / np.einsum("bij,bij->bj", x, x), 1.0
    elif covariates == "gamma":
        s = rng.gamma(shape, scale, (batch, n + 1))
        factor, moment = s / np.einsum("bij,bij->bj", x, x), shape * scale
    else:
        factor = df / rng.chisquare(df, (batch, n + 1))
        moment = d * df / (df - 2) if df > 2 else np.inf
    if second_moment is not None:
        if moment == np.inf:
            raise ValueError(f"second_moment: got {second_moment!r}, wants None when df <= 2")
        factor = factor * (float(second_moment) / moment)
    if covariates != "gaussian" or second_moment is not None:
        x *= np.sqrt(np.broadcast_to(factor, (batch, n + 1)))[:, None, :]
    return x


def _network(x, hidden):
    """f(x), the ReLU network of this width, the same in every call."""
    d = x.shape[1]
    network = np.random.default_rng([2310, 1082, hidden, d])
    first, second = 1 / np.sqrt(d), 1 / np.sqrt(hidden)
    W1, b1 = (network.uniform(-first, first, (hidden, k)) for k in (d, 1))
    W2, b2 = (network.uniform(-second, second, (d, k)) for k in (hidden, 1))
    return W2 @ np.maximum(W1 @ x + b1, 0) + b2


def _prepare(Z, target, prepared):
    """What is done to a batch of prompts before anybody sees it."""
    d, n = Z.shape[1] - 1, Z.shape[2] - 1
    if prepared == "scaled":
        length = np.linalg.norm(Z[:, :d], axis=1)  # (batch, n+1)
        Z /= length[:, None]
        target /= length[:, n]
    elif prepared == "whitened":
        S = Z[:, :d, :n] @ Z[:, :d, :n].mT / n
        values, vectors = np.linalg.eigh(S)
        values += 1e-3 * values.mean(axis=1, keepdims=True)
        Z[:, :d] = (vectors / np.sqrt(values)[:, None]) @ (vectors.mT @ Z[:, :d])
    return Z, target


def _unit_noise(rng, family, shape):
    """Noise of variance 1."""
    noise = rng.standard_normal(shape)
    if family == "student":  # a normal over the root of chi^2 / df has variance df / (df - 2)
        noise *= np.sqrt(0.5 / rng.chisquare(2.5, shape))
    elif family == "outliers":
        noise *= np.sqrt(10) * (rng.random(shape) < 0.1)
    return noise


def _check_choices(**choices):
    for name, (value, known) in choices.items():
        if not isinstance(value, str) or value not in known:
            raise ValueError(f"{name}: got {value!r}, wants one of {', '.join(known)}")


def _check(rng, batch, n, d, shape, scale, df, second_moment, noise, hidden):
    if not isinstance(rng, np.random.Generator):
        raise ValueError(f"rng: got {rng!r}, wants a numpy.random.Generator")
    for name, value in dict(batch=batch, n=n, d=d, hidden=1 if hidden is None else hidden).items():
        if not isinstance(value, (int, np.integer)) or value is True or not 1 <= value < 1e6:
            raise ValueError(f"{name}: got {value!r}, wants a whole number from 1 to 999,999")
    # from 1e-100 to 1e100, so that shape * scale, and second_moment over it, stay floats
    numbers = dict(shape=shape, scale=scale, df=df, noise=noise,
                   second_moment=1.0 if second_moment is None else second_moment)
    for name, value in numbers.items():
        least = 0 if name == "noise" else 1e-100
        number = value.item() if isinstance(value, np.number) else value  # numpy's as Python's
        if not isinstance(number, (int, float)) or not least <= number <= 1e100:
            raise ValueError(f"{name}: got {value!r}, wants a number from {least} to 1e+100")


def _cholesky(covariance, d):
    try:
        if np.isrealobj(covariance) and np.shape(covariance) == (d, d):
            asymmetry = np.abs(covariance - np.transpose(covariance)).max()
            if asymmetry <= 1e-12 * np.abs(covariance).max():
                return np.linalg.cholesky(covariance)
    except (np.linalg.LinAlgError, TypeError, ValueError):  # or no matrix at all
        pass
    raise ValueError(f"covariance: got another, wants a symmetric positive definite ({d}, {d}) "
                     "matrix")
