"""The loop, what is measured along a run, and what is read off losses: each test says what would
break.

SMALL is Setting 1 with 20 prompts a batch; SGD, ADAM contestants in it.
"""

import functools
import itertools

import numpy as np
import pytest

import data
import linattn
import mlp
import optimizers
import runs
import training
from data import SETTING_1

SMALL = SETTING_1._replace(batch=20)
SGD, ADAM = (optimizers.SGD, dict(lr=0.02)), (optimizers.Adam, dict(lr=0.02))
train, noise = training.train.__wrapped__, training.noise.__wrapped__  # computed at every call


@pytest.fixture(autouse=True)
def kept_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "folder", tmp_path)


def same(result, other):
    """Whether two results, dicts of arrays, are equal to the last bit."""
    return result.keys() == other.keys() and all(
        np.array_equal(result[name], other[name], equal_nan=True) for name in result)


# ---- The loop ------------------------------------------------------------------------------------


def test_the_protocol_by_hand():
    """Three steps: fresh batch, textbook gradient, clip, heavy ball. Loss and norm are taken before
    the step, the norm before clipping; snapshots before and after steps 0 and 2."""
    weights, batches = map(np.random.SFC64, np.random.SeedSequence(7).spawn(2))
    batches = np.random.Generator(batches)
    start = params = linattn.init_params(np.random.Generator(weights), std=0.05)
    v, losses, norms, path = 0, [], [], []
    for _ in range(3):
        prompts = data.sample_prompts(batches, 1000, 20, 5)
        loss, grad = linattn.textbook_loss_and_grad(params, prompts)
        losses.append(loss)
        norms.append(np.sqrt((grad**2).sum()))
        v = 0.9 * v + grad * min(1, 1 / norms[-1])
        path.append((params, params - 0.02 * v))
        params = params - 0.02 * v
    assert min(norms) > 1  # so that all are clipped
    found = train(SETTING_1, [SGD], seed=7, steps=3, every=2)
    np.testing.assert_allclose(found["loss"], [losses], rtol=1e-10)
    np.testing.assert_allclose(found["grad_norm"], [norms], rtol=1e-10)
    assert found["snapshots"].shape == (1, 2, 2, 3, 2, 5, 5)
    assert np.array_equal(found["snapshots"][0, 0, 0], start)
    np.testing.assert_allclose(found["snapshots"][0], [path[0], path[2]], rtol=1e-9)


def test_variants_by_hand():
    """Coordinates clipped at the limit of the norm / sqrt(size), weight decay as an optimizer's
    argument, one batch for all steps, full matrices, other weights."""
    setting = SMALL._replace(clipping="coordinates", clip=0.5, fixed=True, full=True, std=0.2)
    weights, batches = training.streams(3)
    params = linattn.init_params(weights, std=0.2, full=True)
    prompts, v, norms = data.sample_prompts(batches, 20, 20, 5), 0, []
    for _ in range(2):
        grad = linattn.textbook_loss_and_grad(params, prompts)[1]
        norms.append(np.sqrt((grad**2).sum()))
        limit = 0.5 / np.sqrt(3 * 2 * 6 * 6)
        v = 0.9 * v + np.minimum(np.maximum(grad, -limit), limit)
        params = params - 0.02 * (v + 0.1 * params)
    decayed = optimizers.SGD, dict(lr=0.02, weight_decay=0.1)
    found = train(setting, [decayed], seed=3, steps=2, every=1)
    np.testing.assert_allclose(found["grad_norm"], [norms], rtol=1e-9)
    np.testing.assert_allclose(found["snapshots"][0, 1, 1], params, rtol=1e-9)


def test_kinds_of_clipping():
    """"none" leaves the gradient alone; a misspelt kind must not mean the same."""
    grad = np.array([30.0, -40.0])
    limit = 5 / 2**0.5
    for kind, wanted in (("none", grad), ("global", [3, -4]), ("coordinates", [limit, -limit])):
        setting = SMALL._replace(clipping=kind, clip=5.0)
        np.testing.assert_allclose(training.clip(grad, setting), wanted)
    with pytest.raises(ValueError, match="^clipping: got 'globl', wants"):
        training.clip(grad, SMALL._replace(clipping="globl"))


@pytest.mark.parametrize("schedule, factors", (
    ("linear", (1, 0.75, 0.5, 0.25)), ("cosine", (1, (2 + 2**0.5) / 4, 0.5, (2 - 2**0.5) / 4))))
def test_a_rate_that_falls(schedule, factors):
    """Of any optimizer, with its moments: each move is that at the full rate times the factor."""
    setting = SMALL._replace(schedule=schedule)
    weights, batches = training.streams(3)
    start = linattn.init_params(weights)
    rules = [(make(**arguments), start) for make, arguments in (SGD, ADAM)]
    found = train(setting, [SGD, ADAM], seed=3, steps=4, every=1)["snapshots"]
    for t, factor in enumerate(factors):
        prompts = data.sample_prompts(batches, 20, 20, 5)
        for i, (rule, params) in enumerate(rules):
            grad = linattn.textbook_loss_and_grad(params, prompts)[1]
            move = rule.step(params, optimizers.clip_global_norm(grad, 1.0)) - params
            rules[i] = rule, params + factor * move
            np.testing.assert_allclose(found[i, t], [params, rules[i][1]], rtol=1e-6, atol=1e-9)
    with pytest.raises(ValueError, match="^schedule: got 'fast', wants"):
        train(SMALL._replace(schedule="fast"), [SGD], 0, 1)


def test_softmax_and_mlp():
    """The setting's activation decides the model; only linear attention may use Gram matrices."""
    deep = SMALL._replace(layers=2, std=0.3)
    softmax, deep_mlp = (deep._replace(activation=each) for each in ("softmax", "mlp"))
    for setting, init, gradient in (
            (softmax, linattn.init_params,
             functools.partial(linattn.loss_and_grad, activation="softmax")),
            (deep_mlp, mlp.init_mlp_params,
             functools.partial(mlp.mlp_loss_and_grad, layers=2))):
        weights, batches = training.streams(0)
        params = init(weights, 2, 5, std=0.3)
        loss, grad = gradient(params, data.sample_prompts(batches, 20, 20, 5))
        found = train(setting, [SGD], 0, 1)
        assert found["loss"] == loss and found["grad_norm"] == np.linalg.norm(grad)
        assert isinstance(training.evaluation_batch(setting, 0), data.Prompts)
    assert isinstance(training.fresh_batch(np.random.default_rng(0), SMALL), linattn.Gram)
    assert isinstance(training.evaluation_batch(SMALL, 0), linattn.Gram)


def test_runs_share_batches_and_do_not_depend_on_their_company(monkeypatch):
    """Otherwise a comparison of optimizers would compare their luck, too."""
    drawn, sample = [], data.sample_prompts

    def recorded(*arguments, **options):
        drawn.append(sample(*arguments, **options))
        return drawn[-1]

    monkeypatch.setattr(data, "sample_prompts", recorded)
    both = train(SMALL, [SGD, ADAM], 0, 4)
    assert len(drawn) == 4  # one batch a step for all
    for i, contestant in enumerate((SGD, ADAM)):
        alone = train(SMALL, [contestant], 0, 4)
        assert same(alone, {name: values[i : i + 1] for name, values in both.items()})
    for first, second, third in zip(drawn[:4], drawn[4:8], drawn[8:]):
        assert np.array_equal(first.Z, second.Z) and np.array_equal(first.Z, third.Z)
    assert not np.array_equal(drawn[0].Z, drawn[1].Z)  # fresh at every step
    assert both["loss"][0, 0] == both["loss"][1, 0]  # the same initial weights
    assert both["loss"][0, 1] != both["loss"][1, 1]


@pytest.fixture
def scripted(monkeypatch):
    """A function that trains by made-up losses and gradients: the next (loss, entry of the
    gradient) at every step, whatever the params are."""
    def by(script, contestants=(SGD,), **options):
        numbers = itertools.count()
        monkeypatch.setattr(training, "fresh_batch", lambda rng, setting: script[next(numbers)])
        monkeypatch.setattr(training, "gradient_of", lambda setting: lambda params, row: (
            row[0], np.full(params.shape, row[1])))
        return train(SMALL, contestants, 0, len(script), **options)

    return by


def test_a_step_that_overflows_is_left_out(scripted):
    """A rare prompt must not end a run: its loss counts as infinite, no optimizer sees it."""
    rare = scripted([(3.0, 1.0), (np.inf, 1.0), (2.0, 1e200), (2.0, np.nan), (np.nan, 1.0),
                     (1.0, -1.0)], every=1)
    plain = scripted([(3.0, 1.0), (1.0, -1.0)], every=1)
    assert rare["loss"].tolist() == [[3.0, np.inf, np.inf, np.inf, np.inf, 1.0]]
    assert np.array_equal(np.isinf(rare["grad_norm"]), np.isinf(rare["loss"]))
    for t in range(1, 5):
        assert np.array_equal(*rare["snapshots"][0, t])
    assert np.array_equal(rare["snapshots"][0, -1], plain["snapshots"][0, -1])


@pytest.mark.parametrize("losses, end", (
    ([2.0] + 40 * [2001.0], 21),  # 20 losses above 1,000 times the first one
    ([2.0] + 40 * [np.inf], 21),
    ([2.0] + 40 * [2000.0], None),  # not above
    ([2.0] + 19 * [2001.0] + [1999.0] + 19 * [2001.0], None),
    ([2.0] + 19 * [2001.0] + [1999.0] + 30 * [2001.0], 41),
    (30 * [2001.0], None), (30 * [np.inf], 20),
))
def test_divergence_is_read_off_the_loss(scripted, losses, end):
    """Too eager a rule would end runs that recover from a rare prompt; too slow a one keeps
    numbers of a run that is lost: all is NaN from there on."""
    found = scripted([(loss, 1.0) for loss in losses], every=1)
    for values in found.values():
        assert not np.isnan(values[0, :end]).any()
        assert end is None or np.isnan(values[0, end:]).all()


def test_a_run_that_diverges_disturbs_no_other(recwarn):
    """It ends alone, in silence."""
    wild, usual = train(SMALL, [(optimizers.SGD, dict(lr=1e9)), ADAM], 0, 60)["loss"]
    (alone,) = train(SMALL, [ADAM], 0, 60)["loss"]
    assert np.isnan(wild[-1]) and np.array_equal(usual, alone) and np.isfinite(usual).all()
    assert not recwarn.list


class NanAt:
    """Returns NaN, in one entry, at its step number `at`."""

    def __init__(self, lr, at):
        self.steps, self.at = itertools.count(), at

    def step(self, params, grad):
        if next(self.steps) == self.at:
            params[-1, -1, -1, -1] = np.nan
        return params


@pytest.mark.parametrize("at", (0, 2, 4))
def test_an_optimizer_that_returns_nan_is_noticed(at):
    """At its last step, too: otherwise a run whose weights are lost would be ranked."""
    found = train(SMALL, [(NanAt, dict(lr=1, at=at)), SGD], 0, 5)
    for name in ("loss", "grad_norm"):
        assert np.isfinite(found[name][0, :at]).all() and np.isnan(found[name][0, at:]).all()
        assert np.isfinite(found[name][1]).all()


class OwnBuffer:
    """Plain gradient descent that goes on using the array it returns."""

    def __init__(self, lr):
        self.lr, self.params = lr, None

    def step(self, params, grad):
        self.params = params if self.params is None else self.params
        self.params -= self.lr * grad
        return self.params


class Spoils(OwnBuffer):
    """Works in place, and leaves nothing of the arrays that it was given before."""

    def step(self, params, grad):
        if self.params is not None:
            self.params *= np.nan
        self.params = params
        params -= self.lr * grad
        grad *= np.nan
        return params


def test_an_optimizer_may_keep_and_alter_the_arrays():
    """Losses, snapshots and the others' runs must be those of an optimizer that alters nothing."""
    for setting in (SMALL, SMALL._replace(clipping="none", std=0.01)):
        plain = (optimizers.SGD, dict(lr=0.02, momentum=0.0))
        contestants = [plain, (OwnBuffer, dict(lr=0.02)), (Spoils, dict(lr=0.02)), plain]
        found = train(setting, contestants, 0, 5, every=1)
        for name, values in found.items():
            assert np.isfinite(values).all()
            for other in values[1:]:
                np.testing.assert_allclose(other, values[0], rtol=1e-12, err_msg=name)


class Odd:
    """Returns nothing, or what a method of numpy makes of the params."""

    def __init__(self, lr, method):
        self.method = method

    def step(self, params, grad):
        return self.method and getattr(params, self.method)()


@pytest.mark.parametrize("method, words", (
    (None, "^step returned None, wants the new params"),
    ("sum", r"^step returned shape \(\), wants \(3, 2, 5, 5\)"),
    ("ravel", r"^step returned shape \(150,\), wants \(3, 2, 5, 5\)")))
def test_an_optimizer_that_returns_no_params(method, words):
    with pytest.raises(ValueError, match=words):
        train(SMALL, [SGD, (Odd, dict(lr=1, method=method))], 7, 3)


def test_contestants():
    """At the setting's rates or one's own, with further arguments for all; a missing one is named."""
    found = training.contestants(SETTING_1, lr=dict(Adam=0.5), weight_decay=0.1)
    assert found == ((optimizers.SGD, dict(lr=0.02, weight_decay=0.1)),
                     (optimizers.Adam, dict(lr=0.5, weight_decay=0.1)))
    with pytest.raises(ValueError, match="^lr: got none for Muon in Setting 1, wants one"):
        training.contestants(SETTING_1, (optimizers.Muon,))
    assert training.rates_of(found) == "SGD 0.02, Adam 0.5"


# ---- Measured along a run ------------------------------------------------------------------------


def test_along(monkeypatch, recwarn):
    """Every measure, against the Hessian, of every contestant at these points on every batch; NaN
    where a run had diverged, even if only after the step."""
    setting = SETTING_1._replace(data=dict(n=4, d=2))
    theta = linattn.init_params(np.random.default_rng(0), 2, 2, std=0.5)
    v = np.random.default_rng(1).standard_normal(theta.shape)
    v[-1, 0] = 0  # as of every step: the last P has no gradient
    lost = theta.copy()
    lost[0, 0, 0, 0] = np.inf
    first = np.array([(0 * theta, theta), (theta, theta + 1e-3 * v), (theta, lost),
                      np.nan * np.array([theta, theta])])
    second = np.array([(theta, lost), (2 * theta, theta), (theta, theta + v), (0 * theta, theta)])
    monkeypatch.setattr(training, "train", lambda *task: dict(snapshots=np.array([first, second])))

    def values(measure):
        found = training.along(measure, setting, (SGD, ADAM), 0, 200, (1, 2, 3), 2)["values"]
        assert found.shape[:3] == (2, 3, 2) and np.isnan(found[0, 1:]).all()
        assert np.isfinite(found[1]).all() and (found[1, 0] != found[0, 0]).any()
        return found[0, 0]

    for k in range(2):
        prompts = data.sample_prompts(np.random.Generator(np.random.SFC64([2310, k])), 1000, 4, 2)
        loss, grad = linattn.textbook_loss_and_grad(theta, prompts)
        H = linattn.hessian(theta, prompts)
        for measure, wanted in (
                (training.loss_at, loss), (training.gradient_norm, np.sqrt((grad**2).sum())),
                (training.smoothness, v.ravel() @ H @ v.ravel() / np.sum(v**2)),
                (training.spectral_norm, np.linalg.norm(H, 2)), (training.diagonal, np.diag(H)),
                (training.condition, abs(np.diag(H)).max() / np.median(abs(np.diag(H))))):
            np.testing.assert_allclose(values(measure)[k], wanted, rtol=1e-9, atol=1e-9)
    assert np.isnan(training.smoothness(theta, theta, None))  # no step, no direction
    assert not recwarn.list


def test_along_is_of_the_runs_of_train():
    """Of the same contestants, seed, steps and distance between snapshots."""
    both = (SGD, ADAM)
    found = training.along(training.loss_at, SMALL, both, 5, 9, (0, 2), 1, 4)["values"]
    path, prompts = train(SMALL, both, 5, 9, 4)["snapshots"], training.evaluation_batch(SMALL, 0)
    for i, k in np.ndindex(2, 2):
        assert found[i, k, 0] == linattn.loss_and_grad(path[i, 2 * k, 0], prompts)[0]


def test_spectral_norm_counts_negative_eigenvalues(monkeypatch):
    monkeypatch.setattr(linattn, "hessian", lambda params, prompts: np.diag([-3.0, 1.0, 2.0, 0.0]))
    assert training.spectral_norm(None, None, None) == 3


def test_clipped_smoothness():
    """Four directions from the gradient and four from the step, by hand from the Hessian: limits at
    quantiles of the coordinates that are not 0, here four of eight."""
    theta = linattn.init_params(np.random.default_rng(0), 1, 2, std=0.5)
    prompts = training.evaluation_batch(SETTING_1._replace(data=dict(n=4, d=2)), 0)
    H, step = linattn.hessian(theta, prompts), np.zeros((1, 2, 2, 2))
    step[0, 1] = [[-4.0, 1.0], [3.0, 2.0]]  # quantiles: 3.7, 2.5
    grad = linattn.loss_and_grad(theta, prompts)[1][0, 1].ravel()
    size = np.sort(abs(grad))
    limits = size[2] + 0.7 * (size[3] - size[2]), (size[1] + size[2]) / 2
    directions = [[grad, *(np.clip(grad, -c, c) for c in limits), np.sign(grad)],
                  [[-4, 1, 3, 2], [-3.7, 1, 3, 2], [-2.5, 1, 2.5, 2], [-1, 1, 1, 1]]]
    wanted = [[np.array(v) @ H[4:, 4:] @ v / np.dot(v, v) for v in each] for each in directions]
    found = training.clipped_smoothness(theta, theta + step, prompts)
    np.testing.assert_allclose(found, wanted, rtol=1e-9)
    still = training.clipped_smoothness(theta, theta, prompts)
    np.testing.assert_allclose(still, [wanted[0], 4 * [np.nan]], rtol=1e-9)
    assert len(training.CLIPPED) == 4


def test_measures_with_an_mlp():
    """R_med and v^T H v from second differences of the loss: with an MLP the params are flat."""
    rng, setting = np.random.default_rng(0), SETTING_1._replace(
        data=dict(n=3, d=1, hidden=2), activation="mlp")
    theta = mlp.init_mlp_params(rng, 3, 1, hidden=2, std=0.5)
    v, prompts = rng.standard_normal(theta.size), training.evaluation_batch(setting, 0)

    def second(direction, h=1e-4):
        f = [mlp.mlp_loss_and_grad(theta + k * h * direction, prompts)[0] for k in (-1, 0, 1)]
        return (f[0] - 2 * f[1] + f[2]) / h**2

    condition, smooth = (measure(theta, theta + v, prompts)
                         for measure in (training.condition, training.smoothness))
    diagonal = np.array([second(unit) for unit in np.eye(theta.size)])
    assert condition == pytest.approx(training.r_med(diagonal), rel=0.02)
    assert smooth == pytest.approx(second(v) / (v @ v), rel=0.02)


def test_r_med():
    """Largest over median absolute entry, along the last axis; zeros count."""
    np.testing.assert_array_equal(training.r_med(np.array([[-8, 1, 2.0], [0, -3, 6]])), [4, 2])


def test_moment():
    """Standardised: a fair coin has skewness 0 and kurtosis 1; one in four has 2 / sqrt(3) and 7/3.
    Powers of large numbers must not overflow."""
    coin, quarter = [-1.0, 1.0, 1.0, -1.0], [0.0, 0.0, 0.0, 5.0]
    np.testing.assert_allclose(training.moment(np.array([coin, quarter]), 3), [0, 2 / 3**0.5])
    np.testing.assert_allclose(training.moment(np.array([coin, quarter]), 4), [1, 7 / 3])
    for scale in (1.0, 1e77, 1e-90):
        values = scale * np.array([1.0, 2.0, 3.0, 7.0])
        assert training.moment(values, 4) == pytest.approx(2.098, abs=1e-3)


def test_noise():
    """The gradient less the mean gradient of a hundred batches."""
    found = noise(SMALL, 3, 5)
    weights, batches = training.streams(3)
    params = linattn.init_params(weights)
    grads = [linattn.textbook_loss_and_grad(params, data.sample_prompts(batches, 20, 20, 5))[1]
             for _ in range(105)]
    noises = np.array(grads[100:]) - np.mean(grads[:100], axis=0)  # (draws, layers, 2, d, d)
    norms = [np.sqrt((each**2).sum()) for each in noises]
    np.testing.assert_allclose(found["norms"], norms, rtol=1e-9)
    assert np.shape(found["null"]) == (20, 5)


def test_the_null_of_the_noise(monkeypatch):
    """Made-up noise with a mean in a direction that does not vary, too: coordinates that depend on
    each other, heavy-tailed in one. The null's norms have the moments of the Gaussian norm of this
    mean m and covariance S, E|z|^2 = |m|^2 + tr S and var |z|^2 = 2 tr S^2 + 4 m^T S m, and not
    those of the draws; its samples differ, and another seed's."""
    rng = np.random.default_rng(0)
    noises = rng.standard_normal((2000, 3)) @ [[2.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.5]]
    noises[:, 0] *= rng.choice([0.1, 3.0], 2000, p=[0.9, 0.1])
    noises = np.hstack([noises + [1.0, -2.0, 0.0], np.full((2000, 1), 1.5)])
    grads = itertools.chain(np.zeros((100, 4)), noises)
    monkeypatch.setattr(training, "gradient_of", lambda setting: lambda params, prompts: (
        0.0, next(grads)))
    found = noise(SMALL, 0, 2000)
    np.testing.assert_allclose(found["norms"], np.linalg.norm(noises, axis=1))
    m, S = noises.mean(axis=0), np.cov(noises.T)
    squares = np.array(found["null"]) ** 2
    assert squares.shape == (20, 2000) and len(np.unique(squares)) == 40_000
    assert squares.mean() == pytest.approx(m @ m + np.trace(S), rel=0.02)
    variance = 2 * np.trace(S @ S) + 4 * m @ S @ m
    assert squares.var() == pytest.approx(variance, rel=0.05)
    assert np.var(found["norms"] ** 2) > 1.5 * variance
    grads = itertools.chain(np.zeros((100, 4)), noises)
    assert not np.isin(noise(SMALL, 1, 2000)["null"], found["null"]).any()  # another seed


def test_the_null_of_few_draws_has_their_mean(monkeypatch):
    """Two draws span one direction of five; the mean lies in the others, too."""
    noises = 10 + np.array([[1.0, -1, 0, 0, 0], [-1, 1, 0, 0, 0]])
    grads = itertools.chain(np.zeros((100, 5)), noises)
    monkeypatch.setattr(training, "gradient_of", lambda setting: lambda params, prompts: (
        0.0, next(grads)))
    null = noise(SMALL, 0, 2)["null"]
    assert np.median(null) == pytest.approx(500**0.5, rel=0.02)
    grads = itertools.chain(np.zeros((100, 5)), np.tile(noises - 10, (2, 1)))
    squares = np.array(noise(SMALL, 1, 2)["null"]) ** 2
    assert squares.mean() == pytest.approx(4, rel=0.4)  # the variance has n - 1 below it, not n


def test_noise_norms(monkeypatch):
    """Seeds from 1000 on, in order."""
    monkeypatch.setattr(training, "parallel", lambda function, tasks: [
        dict(norms=np.full(draws, seed), null=np.full((20, draws), -seed))
        for _, seed, draws in tasks])
    norms, null = training.noise_norms(SMALL, 3, 4)
    assert norms.tolist() == [[seed] * 4 for seed in (1000, 1001, 1002)] and null.shape == (3, 20, 4)


# ---- Read off losses, paths and noise ------------------------------------------------------------


def test_final_loss():
    """The median over the last tenth of the steps, at least one: in Setting 3 a mean is decided by
    one rare prompt. Infinite if the run diverged."""
    loss = np.full((2, 30), 100.0)
    loss[:, -3:] = (1, 2, 9), (1, 2, np.nan)
    np.testing.assert_array_equal(training.final_loss(loss), [2, np.inf])
    assert training.final_loss(np.array([5.0, 4, 3])) == 3


def test_ratio(recwarn):
    """A run that diverged counts against its optimizer; of two nothing is known."""
    found = training.ratio(np.array([np.inf, 2, np.inf, 1]), np.array([2, np.inf, np.inf, 0]))
    np.testing.assert_array_equal(found, [np.inf, 0, np.nan, np.inf])
    assert not recwarn.list


def test_steps_to():
    """The median of the last 50 losses, of all in the beginning, first below the target: one low
    loss is not enough. Infinitely many if never, also of a run that diverged."""
    loss = np.full((4, 120), 9.0)
    loss[0, 10] = 0
    loss[1, 60:] = 0  # the 25th of the last 50 at index 84 makes their median 4.5, the 26th 0
    loss[2] = 0
    loss[3, 30:] = np.nan
    np.testing.assert_array_equal(training.steps_to(4, loss), [np.inf, 86, 1, np.inf])
    np.testing.assert_array_equal(training.steps_to(5, loss), [np.inf, 85, 1, np.inf])
    early = np.array([9.0, 3.0, 1.0, 1.0])  # medians 9, 6, 3, 2
    assert [training.steps_to(target, early) for target in (7, 4, 2.5, 2)] == [2, 3, 4, np.inf]


def test_running_median():
    """Fifty blocks, or as many as there are steps; their centres."""
    loss = np.arange(200.0).reshape(2, 100)
    assert training.running_median(loss)[:, :2].tolist() == [[0.5, 2.5], [100.5, 102.5]]
    assert training.block_centres(100)[:3].tolist() == [0.5, 2.5, 4.5]
    spike = np.array([1.0] * 149 + [1e9])
    assert training.running_median(spike).max() == 1  # a median, not a mean
    assert training.running_median(loss[:, :3]).tolist() == loss[:, :3].tolist()
    assert len(training.block_centres(1234)) == 50


def test_points_of_a_path():
    assert training.points_of(10_000, 3) == (0, 99, 199)
    assert training.points_of(51, 50) == (0, 1) and training.points_of(50, 50) == (0,)
    assert training.points_of(100, 3, every=10) == (0, 4, 9)
    path = np.array([[100.0] + 9 * [1.0], [100.0] + 8 * [2.0] + [np.nan]])
    np.testing.assert_array_equal(training.without_start(path), [1, np.nan])
    assert training.without_start(np.arange(4.0), start=0.5) == 2.5


def test_log_slope():
    x = np.array([1.0, 2.0, 4.0, 8.0, 3.0])
    y = np.append(5 * x[:4] ** 1.5, -1.0)  # where both are positive
    assert training.log_slope(x, y) == pytest.approx(1.5)
    assert np.isnan(training.log_slope(np.ones(3), np.ones(3)))


def test_tails():
    """The values that a share of the draws reach, over the median; q99 / q50."""
    draws = np.arange(1.0, 1002.0)[None]  # median 501
    shares, tail = training.tail_shares(1001), training.tail(draws)[0]
    assert shares[0] == 1 / 1001 and shares[-1] == 1 and len(shares) <= 200
    assert tail[0] == 1001 / 501 and tail[-1] == 1 / 501
    for share, reached in zip(shares[::20], tail[::20]):
        assert (draws / 501 >= reached).mean() == pytest.approx(share)
    assert training.tail(draws, unit=np.array([2.0]))[0, -1] == 0.5
    assert training.spread(draws)[0] == pytest.approx(991 / 501)


# ---- Each optimizer at its best rate -------------------------------------------------------------


def test_the_grid():
    """1, 2, 5 times powers of ten, between limits of SGD and of all others; wider where the limit
    of the norm is small."""
    settings = {"usual": SETTING_1, "small": data.SPHERICAL}
    found = training.grid(settings, ("SGD", "Lion"), sgd=(0.05, 1.0), other=(0.002, 0.02))
    assert found["usual", "SGD"] == [0.05, 0.1, 0.2, 0.5, 1.0]
    assert found["usual", "Lion"] == [0.002, 0.005, 0.01, 0.02]
    np.testing.assert_allclose(found["small", "SGD"], [5, 10, 20, 50, 100])
    np.testing.assert_allclose(found["small", "Lion"], [0.02, 0.05, 0.1, 0.2])


class Loss:
    """In the place of `train`: the loss of an optimizer at a rate is told by the rate."""

    def __init__(self, lr):
        self.lr = lr


def told(function, tasks):
    """(1 + |log10(rate / 0.1)|) / 2^layers, seeds from 1000 on ten times that; 0.5 diverges."""
    found = []
    for setting, contestants, seed, steps, _ in tasks:
        rates = np.array([arguments["lr"] for _, arguments in contestants])
        loss = (1 + abs(np.log10(rates / 0.1))) / 2**setting.layers * (10 if seed >= 1000 else 1)
        loss = np.where(rates == 0.5, np.nan, loss)
        found.append(dict(loss=np.repeat(loss[:, None], steps, 1), seed=np.full(len(rates), seed)))
    return found


SETTINGS = {"a": SETTING_1, "b": SETTING_1._replace(layers=2)}


def test_sweep(monkeypatch):
    """Every candidate's run at every rate, seeds first, none mixed up."""
    monkeypatch.setattr(training, "parallel", told)
    candidates = {"one": (Loss, {}), "two": (Loss, {})}
    rates = {(name, each): [0.1, 0.01] if each == "one" else [0.001] for name in SETTINGS
             for each in candidates}
    found = training.sweep(SETTINGS, candidates, rates, range(2, 5), 4)
    assert list(found["a", "one"]) == [0.1, 0.01] and list(found["b", "two"]) == [0.001]
    for (name, _), by_rate in found.items():
        for rate, run in by_rate.items():
            assert run["seed"].tolist() == [2, 3, 4] and run["loss"].shape == (3, 4)
            wanted = (1 + abs(np.log10(rate / 0.1))) / 2 ** SETTINGS[name].layers
            np.testing.assert_allclose(run["loss"], wanted)


def test_tuned(monkeypatch):
    """Chosen on the seeds 0, 1, 2, measured on others; an end of the grid is said."""
    tasks = []
    monkeypatch.setattr(training, "parallel", lambda function, some: (
        tasks.extend(some), told(function, some))[1])
    candidates = {"one": (Loss, {})}
    rates = {("a", "one"): [0.01, 0.1, 0.5], ("b", "one"): [0.1, 0.2]}
    found, words = training.tuned(SETTINGS, candidates, rates, 2, 5)
    assert words == {"a": "one 0.1", "b": "one 0.1 (an end of the grid)"}
    assert found["a", "one"]["seed"].tolist() == [1000, 1001]
    np.testing.assert_allclose(found["a", "one"]["loss"], 10 / 8)
    assert [seed for _, _, seed, _, _ in tasks] == 2 * [0, 1, 2] + 2 * [1000, 1001]


def runs_with(**final):
    """{rate: run} of one step, from the losses of the seeds."""
    return {float(rate[1:]): dict(loss=np.array(loss, float)[:, None])
            for rate, loss in final.items()}


def test_the_best_rate(recwarn):
    """The lowest mean of the logarithm at which no seed diverged: not of the losses; a loss of 0
    ranks first."""
    assert training.best_rate(runs_with(r1=[3, 3], r2=[1, 8], r5=[0.1, np.nan])) == 2
    assert training.best_rate(runs_with(r1=[3, 3], r2=[1, 10], r5=[0.1, np.inf])) == 1
    assert training.best_rate(runs_with(r1=[3, 3], r2=[0, 4])) == 2
    lost = runs_with(r1=[np.nan, 1], r2=[np.nan, 1])
    assert training.best_rate(lost) == 1
    assert training.rate_in_words(lost) == "none (diverged at every rate)"
    tried = runs_with(r1=[3, 3], r2=[2, 2], r5=[1.5, 1.6], r9=[np.nan, 1])
    assert training.rate_in_words(tried) == "5"
    assert training.about_rates(tried, 2) == ("5, in use 2; within a factor 2 of the best: 1 to 5; "
                                              "1 of 8 runs diverged")
    assert not recwarn.list
