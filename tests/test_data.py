"""The generator: shapes, labels, moments and tails of every family of covariates."""

import itertools

import numpy as np
import pytest

import data
from data import sample_prompts

BATCH, N, D = 20_000, 20, 5
FAMILIES = [  # arguments, E|x|^2, E|x|^4
    (dict(covariates="gaussian"), D, D * (D + 2)),
    (dict(covariates="sphere"), 1, 1),
    (dict(covariates="gamma"), 0.1 * 10, 0.1 * 1.1 * 10**2),
    (dict(covariates="gamma", shape=2.5, scale=2.0), D, D * (D + 2)),  # is N(0, I)
    (dict(covariates="student", df=12.0), D * 12 / 10, D * (D + 2) * 12**2 / (10 * 8)),
]


def rng(seed=0):
    return np.random.default_rng(seed)


def covariates(**arguments):
    """x of all prompts, context and query, as (count, d)."""
    Z = sample_prompts(rng(), BATCH, N, D, **arguments).Z
    return Z[:, :D].transpose(0, 2, 1).reshape(-1, D)


@pytest.mark.parametrize("arguments, second, fourth", FAMILIES)
def test_moments(arguments, second, fourth):
    x = covariates(**arguments)
    square = (x * x).sum(axis=1)
    assert square.mean() == pytest.approx(second, rel=0.03)
    assert (square**2).mean() == pytest.approx(fourth, rel=0.08)
    np.testing.assert_allclose(x.mean(axis=0), 0, atol=0.02 * np.sqrt(second))
    np.testing.assert_allclose(x.T @ x / len(x), second / D * np.eye(D), atol=0.02 * second)


@pytest.mark.parametrize("arguments, second, fourth", FAMILIES)
def test_second_moment_can_be_held_while_the_tail_stays(arguments, second, fourth):
    x = covariates(second_moment=3.0, **arguments)
    square = (x * x).sum(axis=1)
    assert square.mean() == pytest.approx(3.0, rel=0.03)
    assert (square**2).mean() / 9 == pytest.approx(fourth / second**2, rel=0.08)


def test_gamma_tail():
    """Gamma(1, scale) is exponential: P(|x|^2 > t scale) = e^-t."""
    square = (covariates(covariates="gamma", shape=1.0, scale=3.0) ** 2).sum(axis=1)
    for t in (1, 3, 6):
        assert (square > 3 * t).mean() == pytest.approx(np.exp(-t), rel=0.1)


def test_student_tail():
    """P(|x| > r) falls like r^-df: ten times rarer is 10^(1/df) times farther out."""
    radius = np.sqrt((covariates(covariates="student", df=2.0) ** 2).sum(axis=1))
    inner, outer = np.quantile(radius, (1 - 1e-2, 1 - 1e-3))
    assert outer / inner == pytest.approx(10 ** (1 / 2), rel=0.1)


def test_labels_and_target():
    prompts = sample_prompts(rng(), 50, 8, 3)
    assert prompts.Z.shape == (50, 4, 9) and prompts.target.shape == (50,)
    assert not prompts.Z[:, 3, 8].any()
    for Z, target in zip(*prompts):
        w = np.linalg.lstsq(Z[:3, :8].T, Z[3, :8])[0]  # exact: no noise, 8 equations, 3 unknowns
        np.testing.assert_allclose(w @ Z[:3, :8], Z[3, :8], atol=1e-10)
        assert w @ Z[:3, 8] == pytest.approx(target, abs=1e-9)


def test_regression_vector_is_standard_normal():
    Z, _ = sample_prompts(rng(), BATCH, D, D)
    x, y = Z[:, :D, :D], Z[:, D, :D]
    w = np.linalg.solve(x.transpose(0, 2, 1), y[:, :, None])[:, :, 0]
    np.testing.assert_allclose(w.T @ w / BATCH, np.eye(D), atol=0.05)


def test_noise_is_added_to_the_context_alone():
    clean, noisy = (sample_prompts(rng(), BATCH, N, D, noise=noise) for noise in (0.0, 0.5))
    difference = noisy.Z - clean.Z
    little = sample_prompts(rng(), BATCH, N, D, noise=1e-6).Z - clean.Z
    np.testing.assert_allclose(little, 2e-6 * difference, atol=1e-12)
    assert np.array_equal(noisy.target, clean.target)
    assert not difference[:, :D].any() and not difference[:, D, N].any()
    assert difference[:, D, :N].std() == pytest.approx(0.5, rel=0.01)
    assert difference[:, D, :N].mean() == pytest.approx(0, abs=0.01)


def test_covariance():
    """x ~ N(0, Sigma), w ~ N(0, Sigma^-1), so that the labels keep their variance d."""
    root = rng(1).standard_normal((D, D))
    sigma = root @ root.T + np.eye(D)
    Z, _ = sample_prompts(rng(), BATCH, D, D, covariance=sigma)
    x, y = Z[:, :D, :D], Z[:, D, :D]
    every = x.transpose(0, 2, 1).reshape(-1, D)
    np.testing.assert_allclose(every.T @ every / len(every), sigma, atol=0.03 * sigma.max())
    w = np.linalg.solve(x.transpose(0, 2, 1), y[:, :, None])[:, :, 0]
    inverse = np.linalg.inv(sigma)
    np.testing.assert_allclose(w.T @ w / BATCH, inverse, atol=0.05 * inverse.max())
    assert y.var() == pytest.approx(D, rel=0.03)


def test_nonlinear_labels():
    """At d = 1 and width 2 the network f = y / w, w = the linear task's y / x, is the same in every
    call, has at most three slopes, so that second differences vanish but for two bends, and does
    not vanish at 0: there are biases."""
    for seed in (0, 1):
        linear, bent = (sample_prompts(rng(seed), 50, 12, 1, hidden=hidden).Z[:, :, :12]
                        for hidden in (None, 2))
        assert np.array_equal(bent[:, 0], linear[:, 0])
        x, f = bent[:, 0].ravel(), (bent[:, 1] / linear[:, 1] * linear[:, 0]).ravel()
        order = np.argsort(x)
        slopes = np.diff(f[order]) / np.diff(x[order])
        bends = np.abs(np.diff(slopes)) > 1e-6 * np.abs(slopes).max()
        assert 1 <= bends.sum() <= 4  # each bend is seen by at most two pairs of neighbours
        at_zero = np.interp(0, x[order], f[order])
        assert abs(at_zero) > 0.01
        first = at_zero if seed == 0 else first
        assert at_zero == pytest.approx(first, abs=0.02)


def test_the_authors_network():
    """f of width 10 from its definition: weights and biases uniform on +-1 / sqrt(fan-in)."""
    network = np.random.default_rng([2310, 1082, 10, D])
    W1, b1 = (network.uniform(-D**-0.5, D**-0.5, (10, k)) for k in (D, 1))
    W2, b2 = (network.uniform(-10**-0.5, 10**-0.5, (D, k)) for k in (10, 1))
    linear, (Z, target) = (sample_prompts(rng(), 4, N, D, hidden=hidden) for hidden in (None, 10))
    for prompt in range(4):
        x = Z[prompt, :D, :N]
        w = np.linalg.lstsq(x.T, linear.Z[prompt, D, :N], rcond=None)[0]
        f = W2 @ np.maximum(W1 @ x + b1, 0) + b2
        np.testing.assert_allclose(Z[prompt, D, :N], w @ f, rtol=1e-9, atol=1e-9)
        query = Z[prompt, :D, N:]
        f = W2 @ np.maximum(W1 @ query + b1, 0) + b2
        np.testing.assert_allclose(target[prompt], w @ f, rtol=1e-9, atol=1e-9)
    assert not Z[:, D, N].any()


def test_same_seed_same_numbers_and_read_only():
    first, second, other = (sample_prompts(rng(seed), 4, 3, 2, "gamma") for seed in (0, 0, 1))
    assert np.array_equal(first.Z, second.Z) and not np.array_equal(first.Z, other.Z)
    for array in first:
        with pytest.raises(ValueError):
            array[0] = 1


def test_the_usual_arguments():
    """The paper's Gamma(0.1, 10) among them; and none of another family's has a part in a draw."""
    wanted = sample_prompts(rng(), 1000, 20, 5, "gaussian", second_moment=None, noise=0.0)
    assert np.array_equal(sample_prompts(rng()).Z, wanted.Z)
    for family, arguments in (("gamma", dict(shape=0.1, scale=10.0)), ("student", dict(df=5.0))):
        wanted = sample_prompts(rng(), covariates=family, **arguments)
        assert np.array_equal(sample_prompts(rng(), covariates=family).Z, wanted.Z)


@pytest.mark.parametrize("integer", (np.int8, np.int32, np.int64, np.uint16))
def test_any_integer(integer):
    sizes = dict(batch=integer(4), n=integer(3), d=integer(2))
    wanted = sample_prompts(rng(), 4, 3, 2)
    assert np.array_equal(sample_prompts(rng(), **sizes).Z, wanted.Z)


def test_a_covariance_is_symmetric_whatever_its_size():
    """Up to rounding, of its own size: not up to 1e-8."""
    root = rng(1).standard_normal((2, 2))
    for size in (1e-12, 1.0, 1e12):
        sigma = size * (root @ np.diag([1.0, 2.0]) @ root.T)
        rounded = sigma * (1 + 1e-16 * rng().standard_normal((2, 2)))
        sample_prompts(rng(), 4, 3, 2, covariance=rounded)
        with pytest.raises(ValueError, match="^covariance: got"):
            sample_prompts(rng(), 4, 3, 2, covariance=sigma + [[0, 1e-3 * size], [0, 0]])
    with pytest.raises(ValueError, match="^covariance: got"):
        sample_prompts(rng(), 4, 3, 2, covariance=[[1e-9, 5e-10], [0, 1e-9]])


@pytest.mark.parametrize("argument, value", [
    ("batch", 0), ("n", 0), ("n", -3), ("n", 2.0), ("d", 0), ("d", "five"),
    ("covariates", "cauchy"), ("covariates", None), ("shape", 0), ("scale", -1.0), ("df", 0),
    ("df", np.nan), ("second_moment", 0), ("noise", -0.1), ("noise", np.inf), ("noise", "loud"),
    ("covariance", np.eye(3)), ("covariance", -np.eye(5)), ("covariance", np.eye(5) + 0j),
    ("covariance", np.triu(np.ones((5, 5)))), ("covariance", np.full((5, 5), np.nan)),
    ("rng", 0), ("rng", np.random), ("hidden", 0), ("hidden", 2.5),
])
def test_bad_input_is_named(argument, value):
    arguments = dict(dict(rng=rng()), **{argument: value})
    with pytest.raises(ValueError, match=rf"^{argument}: got .*, wants"):
        sample_prompts(**arguments)


def test_second_moment_needs_a_variance():
    with pytest.raises(ValueError, match="second_moment: got .*, wants"):
        sample_prompts(rng(), covariates="student", df=2.0, second_moment=1.0)


def test_numbers_near_the_ends_of_the_range():
    """Products and quotients that would leave the range of a float are refused by name."""
    ends = (1e-300, 1e-200, 1e-100, 1, 1e100, 1e200, 10**400)
    for shape, scale, second_moment in itertools.product(ends, repeat=3):
        values = dict(shape=shape, scale=scale, second_moment=second_moment)
        wrong = [name for name in values if not 1e-100 <= values[name] <= 1e100]
        if wrong:
            with pytest.raises(ValueError, match=rf"^({'|'.join(wrong)}): got .*, wants"):
                sample_prompts(rng(), 50, 4, 3, "gamma", **values)
        else:
            x = sample_prompts(rng(), 50, 4, 3, "gamma", **values).Z[:, :3]
            if shape >= 1:  # or else x is hardly ever anything but 0
                assert (x * x).sum(axis=1).mean() == pytest.approx(second_moment, rel=0.3)


def test_degrees_of_freedom_near_the_ends_of_the_range():
    """Just above 2 E|x|^2 is finite and huge; at 1e100 t is Gaussian; at 1e-100 x overflows."""
    for df, least, most in ((np.nextafter(2, 3), 0, 1), (1e100, 0.8, 1.2)):
        x = sample_prompts(rng(), 500, 4, 3, "student", df=df, second_moment=1.0).Z[:, :3]
        assert least < (x * x).sum(axis=1).mean() < most
    with np.errstate(all="ignore"), pytest.raises(ValueError, match="^Z: got .*, wants"):
        sample_prompts(rng(), covariates="student", df=1e-100)
    for df in (1e-200, 1e200):
        with pytest.raises(ValueError, match="^df: got .*, wants"):
            sample_prompts(rng(), covariates="student", df=df, second_moment=1.0)


@pytest.mark.parametrize("number", (np.int8(100), np.float32(100), np.float64(100)))
@pytest.mark.filterwarnings("error")
def test_numbers_of_numpy_do_not_overflow(number):
    """100 * 100 is 16 as an int8, without an error."""
    values = dict(shape=number, scale=number, second_moment=number, noise=number)
    wanted = sample_prompts(rng(), 5, 4, 3, "gamma", **{name: 100.0 for name in values})
    assert np.array_equal(sample_prompts(rng(), 5, 4, 3, "gamma", **values).Z, wanted.Z)


@pytest.mark.parametrize("column", (0, 2))
def test_an_infinite_label_is_noticed(column):
    """Of the context, or of the query alone, whose label Z does not hold."""

    class Large(np.random.Generator):
        def standard_normal(self, size):
            draw = np.ones(size)
            if size == (1, 5, 3):  # x, (batch, d, n + 1)
                draw[:, :, column] = 1e308
            return draw

    with np.errstate(over="ignore"), pytest.raises(ValueError, match="^Z: got .*, wants"):
        sample_prompts(Large(np.random.PCG64(0)), 1, 2, 5)
