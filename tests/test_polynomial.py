"""The polynomial beside the model itself, closed forms, and minima that Newton's method finds."""

from math import gamma

import numpy as np
import pytest

import data
import linattn
import questions
from polynomial import (Spectra, best, directions, embedded, hessian, loss_and_grad, newton,
                        projected, quadrature, rho, spectra)


def some_numbers(rng, layers, largest=1.0):
    """Not small, and such that the polynomial is not large below this eigenvalue."""
    return np.stack([rng.uniform(0.3, 1, layers), -rng.uniform(0.5, 1.5, layers) / largest], axis=1)


# ---- Beside the model ----------------------------------------------------------------------------

@pytest.mark.parametrize("layers", (1, 2, 3, 4))
@pytest.mark.parametrize("family", data.FAMILIES)
def test_a_prompts_error(family, layers):
    """-w^T rho(S) x_q, prompt by prompt, here with n below and above d."""
    rng = np.random.default_rng(layers)
    for n in (2, 6):
        x = data.sample_prompts(rng, 50, n, 3, family).Z[:, :3]
        context, query, w = x[:, :, :n], x[:, :, n], rng.standard_normal((50, 1, 3))
        s, vectors = np.linalg.eigh(context @ context.mT / n)
        numbers = some_numbers(rng, layers, s.max())
        Z = np.concatenate([x, w @ x], axis=1)
        Z[:, 3, n] = 0
        target = (w @ query[:, :, None]).ravel()
        left = vectors @ (rho(numbers, s)[:, :, None] * (vectors.mT @ query[:, :, None]))
        error = linattn.predict(embedded(numbers, 3), Z) - target
        size = np.linalg.norm(w[:, 0], axis=1) * np.linalg.norm(query, axis=1)
        assert np.abs(error + (w @ left).ravel()).max() < 1e-12 * size.max()
        assert np.abs(error).max() > 1e-3 * size.max()


def test_the_degree():
    """(3^L - 1) / 2: so often does rho double when s does, if s is large."""
    for layers, degree in enumerate((0, 1, 4, 13, 40)):
        large, twice = rho(np.ones((layers, 2)), np.array([1e4, 2e4]))
        assert np.log2(twice / large) == pytest.approx(degree, abs=1e-2)


def every_prompt(x, m, sigma):
    """For contexts x (count, d, n), prompts with w, queries and noise of which E w w^T = I,
    E x_q x_q^T = (m / d) I and E e e^T = sigma^2 I are true to the last digit; and the spectra."""
    count, d, n = x.shape
    noises = np.sqrt(n) * sigma * np.concatenate([np.eye(n), -np.eye(n)])
    Z, target = [], []
    for each in x:
        for w in np.sqrt(d) * np.eye(d):
            for query in np.sqrt(m) * np.eye(d):
                for noise in noises:
                    Z.append(np.block([[each, query[:, None]], [w @ each + noise, 0]]))
                    target.append(w @ query)
    s = np.linalg.eigvalsh(x @ x.mT / n)
    return (data.Prompts(np.array(Z), np.array(target)),
            Spectra(s, np.full((count, 1), m / d / count), sigma**2 / n))


@pytest.mark.parametrize("layers", (1, 2, 3))
@pytest.mark.parametrize("sigma", (0, 0.7))
def test_loss_gradient_and_hessian_are_those_of_the_model(layers, sigma):
    """Along the multiples of the identity; x is no isotropic sample, which these do not need."""
    rng = np.random.default_rng(layers)
    prompts, spectrum = every_prompt(rng.standard_normal((4, 2, 3)), 3.0, sigma)
    for numbers in (some_numbers(rng, layers), np.zeros((layers, 2))):
        loss, grad = loss_and_grad(numbers, spectrum)
        params = embedded(numbers, 2)
        its_loss, its_grad = linattn.loss_and_grad(params, prompts)
        assert loss == pytest.approx(its_loss, rel=1e-12)
        assert np.abs(grad - 2 * projected(its_grad)).max() < 1e-12 * np.abs(grad).max()
        assert grad[-1, 0] == 0
        rows = np.array([embedded(f.reshape(layers, 2), 2).ravel() for f in directions(layers).T])
        H = hessian(numbers, spectrum)
        assert H.shape == (2 * layers - 1, 2 * layers - 1)
        its_hessian = rows @ linattn.hessian(params, prompts) @ rows.T
        assert np.abs(H - its_hessian).max() < 1e-12 * np.abs(H).max()
        along = directions(layers, "one size")
        assert hessian(numbers, spectrum, "one size")[0, 0] == pytest.approx(
            linattn.curvature(numbers, along.reshape(layers, 2), spectrum, loss_and_grad) * layers)


def test_numbers_and_weights():
    """`projected` takes the means of the diagonals, the nearest multiples of the identity."""
    rng = np.random.default_rng(0)
    numbers, params = rng.standard_normal((3, 2)), rng.standard_normal((7, 3, 2, 4, 4))
    np.testing.assert_allclose(projected(embedded(numbers, 4)), numbers, rtol=1e-14)
    rest = params - embedded(projected(params), 4)
    np.testing.assert_allclose(np.trace(rest, axis1=-2, axis2=-1), 0, atol=1e-12)
    assert (embedded(numbers, 4)[1, 0] == numbers[1, 0] * np.eye(4)).all()


# ---- Spectra -------------------------------------------------------------------------------------

def test_spectra_of_prompts():
    """The eigenvalues of the prompts that this generator gives, E|x|^2 / d for the weights' sum,
    and the variance of the noise over n."""
    arguments = dict(n=8, d=3, covariates="gaussian", second_moment=6.0, noise=0.5)
    found = spectra(np.random.default_rng(1), arguments, 4000)
    G = linattn.compress(data.sample_prompts(np.random.default_rng(1), 4000, **arguments)).G
    np.testing.assert_allclose(found.s, np.linalg.eigvalsh(G[:, :3, :3]), atol=1e-12)
    assert found.weights.shape == (4000, 1) and np.ptp(found.weights) == 0
    assert found.weights.sum() == pytest.approx(2, rel=0.02)
    assert found.noise == pytest.approx(0.25 / 8)


def test_the_gradient_at_0():
    """2 m^2 / d for the c of every layer, and 0 for every g; the loss is m = E|x|^2."""
    for rare in (False, True):
        arguments = dict(n=20, d=4, covariates="gamma", shape=0.5, scale=6.0, noise=1.0)
        loss, grad = loss_and_grad(np.zeros((3, 2)), spectra(
            np.random.default_rng(0), arguments, 4000, rare))
        assert loss == pytest.approx(3, rel=0.03)
        np.testing.assert_allclose(grad, [[0, 2 * 9 / 4]] * 3, rtol=0.06)


@pytest.mark.parametrize("more", ({}, dict(second_moment=5.0), dict(shape=0.5, scale=3.0)))
def test_rare_prompts(more):
    """With one pair the eigenvalue is |x|^2, and Gamma's moments are known: E s^k / E s to k = 20,
    of which a sample of this size sees nothing."""
    shape, scale = more.get("shape", 0.1), more.get("scale", 10.0)
    scale = more["second_moment"] / shape if "second_moment" in more else scale
    arguments = dict(n=1, d=2, covariates="gamma") | more
    for k in (2, 8, 20):
        exact = scale ** (k - 1) * gamma(shape + k) / gamma(shape + 1)
        s, weights, _ = spectra(np.random.default_rng(0), arguments, 20_000, rare=True)
        assert (weights * s**k).sum() / (weights * s).sum() == pytest.approx(exact, rel=0.1)
    s, weights, _ = spectra(np.random.default_rng(0), arguments, 20_000)
    assert (weights * s**k).sum() / (weights * s).sum() < exact / 10


def test_spectra_that_the_loss_does_not_describe():
    for name, value in dict(covariance=np.eye(5), hidden=10, prepared="whitened").items():
        with pytest.raises(ValueError, match=f"{name}: got .* wants none"):
            spectra(np.random.default_rng(0), data.SETTING_1.data | {name: value}, 10)
    with pytest.raises(ValueError, match="rare: got True, wants False"):
        spectra(np.random.default_rng(0), data.SETTING_1.data, 10, rare=True)
    plain = spectra(np.random.default_rng(0), data.SETTING_1.data, 10)
    same = spectra(np.random.default_rng(0), data.SETTING_1.data | dict(
        covariance=None, hidden=None, prepared="nothing"), 10)
    assert (plain.s == same.s).all()


@pytest.mark.parametrize("rare", (False, True))
def test_quadrature(rare):
    """Fewer eigenvalues, the same loss and derivatives; of heavy tails, whose largest stand alone
    or weigh next to nothing."""
    rng = np.random.default_rng(0)
    full = spectra(rng, data.SETTING_3.data | dict(noise=2.0), 4000, rare)
    for layers, k in ((1, 2), (2, 5), (3, 14), (4, 41)):
        few = quadrature(full, layers)
        assert few.s.shape == few.weights.shape == (11 * k,) and (few.weights > 0).all()
        for largest in (1.0, full.s.max()):
            numbers = some_numbers(rng, layers, largest)
            for one, other in zip(*([*loss_and_grad(numbers, each), hessian(numbers, each)]
                                    for each in (few, full))):
                np.testing.assert_allclose(one, other, rtol=0, atol=1e-10 * np.abs(other).max())


def test_quadrature_of_few_eigenvalues():
    """The spectra themselves, or, where only two differ, two nodes beside the largest."""
    rng, numbers = np.random.default_rng(0), some_numbers(np.random.default_rng(0), 3)
    few = spectra(rng, data.SETTING_3.data | dict(noise=2.0), 30, rare=True)
    two = spectra(rng, dict(n=1, d=2, covariates="sphere"), 1000)
    for full, size in (few, 150), (two, 2 + 140):
        short = quadrature(full, 3)
        assert short.s.shape == (size,)
        assert loss_and_grad(numbers, short)[0] == pytest.approx(
            loss_and_grad(numbers, full)[0], rel=1e-10)


# ---- The best numbers ----------------------------------------------------------------------------

@pytest.mark.parametrize("family, n, sigma", (("gaussian", 20, 0), ("gaussian", 5, 2.0),
                                              ("sphere", 20, 0), ("gamma", 20, 0)))
def test_one_layer_is_the_closed_form(family, n, sigma):
    """c = m / T, where noise adds sigma^2 m / n to T = E tr S^2."""
    m, m4 = questions.MOMENTS[family]
    c, _ = questions.closed_form(m, m4, n, 5)
    T = m / c + sigma**2 * m / n
    for rare in {False, family == "gamma"}:
        sample = spectra(np.random.default_rng(0), dict(n=n, d=5, covariates=family, noise=sigma),
                         10_000, rare)
        numbers, losses = best(sample, 1)
        assert numbers.shape == (1, 1, 2) and numbers[0, 0, 0] == 0
        assert -numbers[0, 0, 1] == pytest.approx(m / T, rel=0.03)
        assert losses[0] == pytest.approx(m * (1 - m**2 / (5 * T)), rel=0.03)


def test_the_minima_of_two_layers():
    """Each once, the least first: the slope is 0 there, the Hessian positive, and from twelve other
    starts Newton's method finds no lower one."""
    sample = spectra(np.random.default_rng(0), data.SETTING_1.data, 2000)
    numbers, losses = best(sample, 2)
    assert len(losses) == 3 and (np.diff(losses) > 0.01 * losses[0]).all()
    for each, loss in zip(numbers, losses):
        found, grad = loss_and_grad(each, sample)
        assert found == pytest.approx(loss, rel=1e-10) and np.abs(grad).max() < 1e-6 * loss
        assert np.linalg.eigvalsh(hessian(each, sample)).min() > 0 and each[-1, 0] == 0
    nodes, F, rng = quadrature(sample, 2), directions(2), np.random.default_rng(1)

    def loss_and_slope(point):
        loss, grad = loss_and_grad((F @ point).reshape(2, 2), nodes)
        return loss, F.T @ grad.ravel()

    def curvatures(point):
        return hessian((F @ point).reshape(2, 2), nodes)

    starts = [[rng.uniform(0, 2), *-(10 ** rng.uniform(-1, 1, 2))] for _ in range(12)]
    others = [loss_and_slope(newton(loss_and_slope, curvatures, np.array(start)))[0]
              for start in starts]
    assert min(others) == pytest.approx(losses[0], rel=1e-9)
    assert max(others) > 1.2 * losses[0]


def test_more_freedom_is_never_worse():
    sample, least = spectra(np.random.default_rng(0), data.SETTING_1.data, 500), []
    for kind in ("one size", "L sizes", "P = g I"):
        numbers, losses = best(sample, 2, kind)
        least.append(losses[0])
        assert kind == "P = g I" or (numbers[:, :, 0] == 0).all()
        assert kind != "one size" or (numbers[:, 0] == numbers[:, 1]).all()
    assert least[0] > 1.1 * least[1] > 1.1 * 1.1 * least[2]
    with pytest.raises(KeyError):
        directions(2, "no kind")


def test_the_same_for_spectra_that_differ_in_the_last_digit():
    """As those of two processors do."""
    sample = spectra(np.random.default_rng(0), data.SETTING_1.data, 1000)
    moved = 1e-15 * np.random.default_rng(1).standard_normal(sample.s.shape)
    (numbers, losses), (same, alike) = (best(each, 3, starts=(0.3,)) for each in (
        sample, sample._replace(s=sample.s * (1 + moved))))
    np.testing.assert_allclose(losses[:2], alike[:2], rtol=1e-8)
    np.testing.assert_allclose(numbers[:2], same[:2], rtol=1e-5)
    assert len(losses) > 3  # so the second minimum of two layers was a start, too


def test_newton_leaves_a_saddle():
    """x^4 / 4 - x^2 / 2 + y^2 / 2 has a saddle at 0, which plain Newton steps would find from
    here, and minima -1/4 at x = 1 and -1. It ends there to the last digits, and soon."""
    calls = []

    def loss_and_slope(point):
        calls.append(point)
        x, y = point
        return x**4 / 4 - x**2 / 2 + y**2 / 2, np.array([x**3 - x, y])

    end = newton(loss_and_slope, lambda point: np.diag([3 * point[0] ** 2 - 1, 1]),
                 np.array([1e-3, 2.0]))
    np.testing.assert_allclose(end, [1, 0], atol=1e-7)
    assert len(calls) < 150
    stopped = newton(loss_and_slope, lambda point: np.eye(2), np.array([3.0, 0]), steps=1)
    assert stopped[0] != 3 and abs(stopped[0] - 1) > 1e-3
