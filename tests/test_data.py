"""The generator: shapes, labels, moments and tails of every family of covariates."""

import itertools

import numpy as np
import pytest

from data import sample_prompts

BATCH, N, D = 20_000, 20, 5
FAMILIES = [  # arguments, E|x|^2, E|x|^4
    (dict(covariates="gaussian"), D, D * (D + 2)),
    (dict(covariates="sphere"), 1, 1),
    (dict(covariates="gamma"), 0.1 * 10, 0.1 * 1.1 * 10**2),  # the paper's Gamma(0.1, 10)
    (dict(covariates="gamma", shape=2.5, scale=2.0), D, D * (D + 2)),  # is N(0, I)
    (dict(covariates="student", df=12.0), D * 12 / 10, D * (D + 2) * 12**2 / (10 * 8)),
]


def rng(seed=0):
    return np.random.default_rng(seed)


def covariates(**arguments):
    """x of all prompts, context and query, as (count, d)."""
    Z = sample_prompts(rng(), BATCH, N, D, **arguments).Z
    return Z[:, :D].transpose(0, 2, 1).reshape(-1, D)


def regression_vectors(Z):
    """w of every prompt, exactly: at least d equations, and no noise."""
    return np.array([np.linalg.lstsq(prompt[:-1, :-1].T, prompt[-1, :-1])[0] for prompt in Z])


# ---- Covariates: moments and tails ---------------------------------------------------------------

@pytest.mark.parametrize("held", (None, 3.0))
@pytest.mark.parametrize("arguments, second, fourth", FAMILIES)
def test_moments(arguments, second, fourth, held):
    """With second_moment E|x|^2 is that number; the tail, E|x|^4 / (E|x|^2)^2, stays."""
    x = covariates(second_moment=held, **arguments)
    square = (x * x).sum(axis=1)
    wanted = held or second
    assert square.mean() == pytest.approx(wanted, rel=0.03)
    assert (square**2).mean() == pytest.approx(wanted**2 * fourth / second**2, rel=0.08)
    np.testing.assert_allclose(x.mean(axis=0), 0, atol=0.02 * np.sqrt(wanted))
    np.testing.assert_allclose(x.T @ x / len(x), wanted / D * np.eye(D), atol=0.02 * wanted)


def test_tails():
    """Gamma(1, scale) is exponential: P(|x|^2 > t scale) = e^-t. Student's P(|x| > r) falls like
    r^-df: ten times rarer is 10^(1/df) times farther out. Its usual df is 5: E|x|^2 = d 5/3."""
    square = (covariates(covariates="gamma", shape=1.0, scale=3.0) ** 2).sum(axis=1)
    for t in (1, 3, 6):
        assert (square > 3 * t).mean() == pytest.approx(np.exp(-t), rel=0.1)
    radius = np.sqrt((covariates(covariates="student", df=2.0) ** 2).sum(axis=1))
    inner, outer = np.quantile(radius, (1 - 1e-2, 1 - 1e-3))
    assert outer / inner == pytest.approx(10 ** (1 / 2), rel=0.1)
    usual = covariates(covariates="student")
    assert (usual * usual).sum(axis=1).mean() == pytest.approx(D * 5 / 3, rel=0.03)


# ---- Labels --------------------------------------------------------------------------------------

def test_labels_and_target():
    Z, target = sample_prompts(rng(), 5000, 8, 3)
    assert Z.shape == (5000, 4, 9) and not Z[:, 3, 8].any()
    w = regression_vectors(Z)
    np.testing.assert_allclose(np.einsum("bi,bij->bj", w, Z[:, :3, :8]), Z[:, 3, :8], atol=1e-9)
    np.testing.assert_allclose((w * Z[:, :3, 8]).sum(axis=1), target, atol=1e-9)
    np.testing.assert_allclose(w.T @ w / 5000, np.eye(3), atol=0.06)  # w ~ N(0, I)
    usual = sample_prompts(rng())
    assert usual.Z.shape == (1000, 6, 21)
    assert np.array_equal(usual.Z, sample_prompts(rng(), 1000, 20, 5, "gaussian").Z)


def test_covariance():
    """x ~ N(0, Sigma), w ~ N(0, Sigma^-1), so that the labels keep their variance d."""
    root = rng(1).standard_normal((D, D))
    sigma = root @ root.T + np.eye(D)
    Z, _ = sample_prompts(rng(), 5000, N, D, covariance=sigma)
    x, w = Z[:, :D].transpose(0, 2, 1).reshape(-1, D), regression_vectors(Z)
    inverse = np.linalg.inv(sigma)
    np.testing.assert_allclose(x.T @ x / len(x), sigma, atol=0.03 * sigma.max())
    np.testing.assert_allclose(w.T @ w / len(w), inverse, atol=0.05 * inverse.max())
    assert Z[:, D, :N].var() == pytest.approx(D, rel=0.03)


def test_noise_is_added_to_the_context_alone():
    """However small it is."""
    clean, little, much = (sample_prompts(rng(), 5000, N, D, noise=noise)
                           for noise in (0.0, 1e-6, 0.5))
    difference = much.Z - clean.Z
    assert np.array_equal(much.target, clean.target)
    assert not difference[:, :D].any() and not difference[:, D, N].any()
    assert difference[:, D, :N].std() == pytest.approx(0.5, rel=0.01)
    assert difference[:, D, :N].mean() == pytest.approx(0, abs=0.01)
    np.testing.assert_allclose(little.Z - clean.Z, 2e-6 * difference, atol=1e-12)


def test_nonlinear_labels():
    """y = <w, f(x)> with w of the linear task and one network f for all calls: weights and biases
    uniform on +-1 / sqrt(columns of their W), point by point."""
    network = np.random.default_rng([2310, 1082, 10, D])
    W1, b1 = (network.uniform(-D**-0.5, D**-0.5, (10, k)) for k in (D, 1))
    W2, b2 = (network.uniform(-10**-0.5, 10**-0.5, (D, k)) for k in (10, 1))
    for seed in (0, 1):
        linear, bent = (sample_prompts(rng(seed), 4, N, D, hidden=hidden) for hidden in (None, 10))
        assert np.array_equal(bent.Z[:, :D], linear.Z[:, :D]) and not bent.Z[:, D, N].any()
        for w, Z, target in zip(regression_vectors(linear.Z), *bent):
            for x, y in zip(Z[:D].T, (*Z[D, :N], target)):
                h = [max(0, row @ x + bias) for row, bias in zip(W1, b1[:, 0])]
                assert y == pytest.approx(w @ (W2 @ h + b2[:, 0]), abs=1e-9)


def test_same_seed_same_numbers_and_read_only():
    first, second, other = (sample_prompts(rng(seed), 4, 3, 2, "gamma") for seed in (0, 0, 1))
    assert np.array_equal(first.Z, second.Z) and not np.array_equal(first.Z, other.Z)
    for array in first:
        with pytest.raises(ValueError):
            array[0] = 1


# ---- Arguments -----------------------------------------------------------------------------------

@pytest.mark.parametrize("argument, values", [
    ("rng", (0, np.random)), ("batch", (0, True)), ("n", (0, -3, 2.0)), ("d", (0, "five")),
    ("hidden", (0, 2.5)), ("noise", (-0.1, np.inf, "loud")), ("covariates", ("cauchy", None)),
    ("noise_family", ("uniform",)), ("prepared", ("uniform",)),
    *((name, (0, np.nan, 1e-200, 10**400)) for name in ("shape", "scale", "df", "second_moment")),
    ("covariance", (np.eye(3), -np.eye(5), np.eye(5) + 0j, np.triu(np.ones((5, 5))),
                    np.full((5, 5), np.nan), "none")),
])
def test_bad_input_is_named(argument, values):
    for value in values:
        with pytest.raises(ValueError, match=rf"^{argument}: got .*, wants"):
            sample_prompts(**dict(rng=rng(), covariates="gamma") | {argument: value})


@pytest.mark.parametrize("size", (1e-12, 1.0, 1e12))
def test_a_covariance_is_symmetric_up_to_rounding_of_its_own_size(size):
    sigma = size * np.array([[2.0, 0.5], [0.5, 1.0]])
    rounded, skew = sigma.copy(), sigma.copy()
    rounded[0, 1] *= 1 - 1e-15
    skew[0, 1] *= 1 - 1e-3
    wanted = sample_prompts(rng(), 4, 3, 2, covariance=sigma).Z
    np.testing.assert_allclose(sample_prompts(rng(), 4, 3, 2, covariance=rounded).Z, wanted)
    for wrong in (skew, [[1e-9, 5e-10], [0, 1e-9]]):
        with pytest.raises(ValueError, match="^covariance: got"):
            sample_prompts(rng(), 4, 3, 2, covariance=wrong)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", (np.int8, np.uint16, np.int32, np.int64, np.float32, np.float64))
def test_numbers_of_numpy(kind):
    """Any integer; and 100 * 100 is 16 as an int8, without an error."""
    values = dict.fromkeys(("shape", "scale", "second_moment", "noise"), 100)
    sizes = dict(batch=4, n=127, d=2, hidden=5)
    wanted = sample_prompts(rng(), covariates="gamma", **values, **sizes)
    values = {name: kind(value) for name, value in values.items()}
    if issubclass(kind, np.integer):
        sizes = {name: kind(value) for name, value in sizes.items()}
    assert np.array_equal(sample_prompts(rng(), covariates="gamma", **values, **sizes).Z, wanted.Z)


def test_numbers_at_the_ends_of_the_range():
    """Of shape, scale and second_moment every product stays a float. Just above df = 2 E|x|^2 is
    finite and huge, at 2 it is not; at 1e100 t is Gaussian; at 1e-100 x overflows."""
    def moment(family, **arguments):
        x = sample_prompts(rng(), 500, 4, 3, family, **arguments).Z[:, :3]
        return (x * x).sum(axis=1).mean()

    ends = 1e-100, 1, 1e100
    for shape, scale, second in itertools.product(ends, repeat=3):
        found = moment("gamma", shape=shape, scale=scale, second_moment=second)
        if shape >= 1:  # or else x is hardly ever anything but 0
            assert found == pytest.approx(second, rel=0.1)
    assert 0 < moment("student", df=np.nextafter(2, 3), second_moment=1.0) < 1
    assert moment("student", df=1e100, second_moment=1.0) == pytest.approx(1, rel=0.1)
    with pytest.raises(ValueError, match="^second_moment: got .*, wants"):
        moment("student", df=2.0, second_moment=1.0)
    with np.errstate(all="ignore"), pytest.raises(ValueError, match="^Z: got .*, wants"):
        moment("student", df=1e-100)


# ---- Messy labels, and prompts that were prepared ------------------------------------------------

def test_noises_have_one_variance():
    """The noise is y - <w, x>; the same generator draws the same prompts without it."""
    clean = sample_prompts(rng(), BATCH, N, D)
    found = {}
    for family in ("gaussian", "student", "outliers"):
        noisy = sample_prompts(rng(), BATCH, N, D, noise=2.0, noise_family=family)
        found[family] = (noisy.Z - clean.Z)[:, D, :N].ravel()
        assert np.array_equal(noisy.target, clean.target)
        assert np.array_equal(noisy.Z[:, :D], clean.Z[:, :D])
    for family in ("gaussian", "outliers"):
        assert found[family].var() == pytest.approx(4, rel=0.03)
    share = (found["outliers"] != 0).mean()
    assert share == pytest.approx(0.1, rel=0.03)
    # P(|t| > 10) of Student's t with 2.5 degrees of freedom: the integral of its density
    t = np.abs(found["student"]) / 2 / np.sqrt(0.5 / 2.5)
    assert (t > 10).mean() == pytest.approx(0.00444, rel=0.05)


def test_scaled_prompts_are_the_task_on_the_sphere():
    prompts = sample_prompts(rng(), 500, N, D, "gamma", prepared="scaled")
    raw = sample_prompts(rng(), 500, N, D, "gamma")
    length = np.linalg.norm(raw.Z[:, :D], axis=1)
    np.testing.assert_allclose(np.linalg.norm(prompts.Z[:, :D], axis=1), 1)
    np.testing.assert_allclose(prompts.Z * length[:, None], raw.Z, atol=1e-12)
    np.testing.assert_allclose(prompts.target * length[:, N], raw.target, atol=1e-12)


def test_whitened_prompts():
    sigma = np.diag([1.0, 2.0, 4.0, 8.0, 16.0])
    prompts = sample_prompts(rng(), 500, N, D, covariance=sigma, prepared="whitened")
    raw = sample_prompts(rng(), 500, N, D, covariance=sigma)
    x = prompts.Z[:, :D, :N]
    np.testing.assert_allclose(x @ x.mT / N, np.broadcast_to(np.eye(D), (500, D, D)), atol=0.1)
    assert np.array_equal(prompts.Z[:, D], raw.Z[:, D])
    assert np.array_equal(prompts.target, raw.target)
    w = regression_vectors(prompts.Z)  # labels are still linear in x, the query's, too
    np.testing.assert_allclose((w * prompts.Z[:, :D, N]).sum(axis=1), raw.target, atol=1e-6)
