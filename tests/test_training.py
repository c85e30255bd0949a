"""The loop, what is measured along a run, and many tasks at once: each test says what would break.

SMALL is Setting 1 with 20 prompts a batch; SGD, ADAM contestants in it. `Here` is the plainest
Executor: it does the work at once, in this process.
"""

import functools
import io
import itertools
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import timeit
import types
from concurrent.futures import (BrokenExecutor, Executor, Future, ProcessPoolExecutor,
                                ThreadPoolExecutor)
from pathlib import Path

import numpy as np
import pytest

import data
import linattn
import optimizers
import training
from data import SETTING_1
from training import Run, Tried

PROJECT = Path(training.__file__).parent
SMALL = SETTING_1._replace(batch=20)
SGD, ADAM = (optimizers.SGD, dict(lr=0.02)), (optimizers.Adam, dict(lr=0.02))


class Here(Executor):
    def submit(self, function, *arguments):
        future = Future()
        try:
            future.set_result(function(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future


def same(result, other):
    """Whether two results, dicts of arrays, are equal to the last bit."""
    return result.keys() == other.keys() and all(
        np.array_equal(result[name], other[name], equal_nan=True) for name in result)


def files(folder):
    return sorted(Path(folder).glob("runs/*"))


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
    found = training.train(SETTING_1, [SGD], seed=7, steps=3, every=2)
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
    found = training.train(setting, [decayed], seed=3, steps=2, every=1)
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
    found = training.train(setting, [SGD, ADAM], seed=3, steps=4, every=1)["snapshots"]
    for t, factor in enumerate(factors):
        prompts = data.sample_prompts(batches, 20, 20, 5)
        for i, (rule, params) in enumerate(rules):
            grad = linattn.textbook_loss_and_grad(params, prompts)[1]
            move = rule.step(params, optimizers.clip_global_norm(grad, 1.0)) - params
            rules[i] = rule, params + factor * move
            np.testing.assert_allclose(found[i, t], [params, rules[i][1]], rtol=1e-6, atol=1e-9)
    with pytest.raises(ValueError, match="^schedule: got 'fast', wants"):
        training.train(SMALL._replace(schedule="fast"), [SGD], 0, 1)


def test_softmax_and_mlp():
    """The setting's activation decides the model; only linear attention may use Gram matrices."""
    deep = SMALL._replace(layers=2, std=0.3)
    softmax, mlp = deep._replace(activation="softmax"), deep._replace(activation="mlp")
    for setting, init, gradient in (
            (softmax, linattn.init_params,
             functools.partial(linattn.loss_and_grad, activation="softmax")),
            (mlp, linattn.init_mlp_params,
             functools.partial(linattn.mlp_loss_and_grad, layers=2))):
        weights, batches = training.streams(0)
        params = init(weights, 2, 5, std=0.3)
        loss, grad = gradient(params, data.sample_prompts(batches, 20, 20, 5))
        found = training.train(setting, [SGD], 0, 1)
        assert found["loss"] == loss and found["grad_norm"] == np.linalg.norm(grad)
        assert isinstance(training.evaluation_batch(setting, 0), data.Prompts)
    assert isinstance(training.draw(np.random.default_rng(0), SMALL), linattn.Gram)
    assert isinstance(training.evaluation_batch(SMALL, 0), linattn.Gram)


def test_runs_share_batches_and_do_not_depend_on_their_company(monkeypatch):
    """Otherwise a comparison of optimizers would compare their luck, too."""
    drawn, sample = [], data.sample_prompts

    def recorded(*arguments, **options):
        drawn.append(sample(*arguments, **options))
        return drawn[-1]

    monkeypatch.setattr(data, "sample_prompts", recorded)
    both = training.train(SMALL, [SGD, ADAM], 0, 4)
    assert len(drawn) == 4  # one batch a step for all
    for i, contestant in enumerate((SGD, ADAM)):
        alone = training.train(SMALL, [contestant], 0, 4)
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
    def train(script, contestants=(SGD,), **options):
        numbers = itertools.count()
        monkeypatch.setattr(training, "draw", lambda rng, setting: script[next(numbers)])
        monkeypatch.setattr(training, "gradient_of", lambda setting: lambda params, row: (
            row[0], np.full(params.shape, row[1])))
        return training.train(SMALL, contestants, 0, len(script), **options)

    return train


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
    (30 * [2001.0], None),
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
    wild, usual = training.train(SMALL, [(optimizers.SGD, dict(lr=1e9)), ADAM], 0, 60)["loss"]
    (alone,) = training.train(SMALL, [ADAM], 0, 60)["loss"]
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
    found = training.train(SMALL, [(NanAt, dict(lr=1, at=at)), SGD], 0, 5)
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
        found = training.train(setting, contestants, 0, 5, every=1)
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


@pytest.mark.parametrize("what, words", (
    (dict(method=None), "ValueError: step returned None, wants the new params"),
    (dict(method="sum"), "ValueError: step returned shape (), wants (3, 2, 5, 5)"),
    (dict(method="ravel"), "ValueError: step returned shape (150,), wants (3, 2, 5, 5)"),
    (dict(method="wrong"), "AttributeError: "),
))
def test_an_optimizer_that_fails_fails_alone(what, words, tmp_path):
    """One mistake must not cost the runs beside it, which are kept; and it is named."""
    odd = Odd, dict(what, lr=1)
    tasks = [(SMALL, contestant, 7, 3, 50) for contestant in (SGD, odd, ADAM)]
    with pytest.raises(training.RunFailed) as failure:
        training.train_all(tasks, Here(), tmp_path)
    assert str(failure.value).startswith(f"Odd (lr 1), Setting 1, seed 7: {words}")
    assert len(str(failure.value).splitlines()) == 1
    assert len(files(tmp_path)) == 2
    training.train_all([tasks[0], tasks[2]], None, tmp_path)  # read back


# ---- What is measured ----------------------------------------------------------------------------


def test_evaluate(recwarn):
    """Every measure, against the Hessian, on every batch at every snapshot; NaN where a run had
    diverged, even if only after the step."""
    setting = SETTING_1._replace(data=dict(n=4, d=2))
    theta = linattn.init_params(np.random.default_rng(0), 2, 2, std=0.5)
    v = np.random.default_rng(1).standard_normal(theta.shape)
    v[-1, 0] = 0  # as of every step: the last P has no gradient
    lost = theta.copy()
    lost[0, 0, 0, 0] = np.inf
    path = np.array([(theta, theta + 1e-3 * v), (theta, lost), (theta, theta),
                     np.nan * np.array([theta, theta])])

    def values(measure):
        found = training.evaluate(measure, setting, path, 2)["values"]
        assert found.shape[:2] == (4, 2) and np.isnan(found[[1, 3]]).all()
        assert measure is training.smoothness or np.array_equal(found[2], found[0])
        return found[0]

    for k in range(2):
        prompts = data.sample_prompts(np.random.Generator(np.random.SFC64([2310, k])), 1000, 4, 2)
        loss, grad = linattn.textbook_loss_and_grad(theta, prompts)
        H = linattn.hessian(theta, prompts)
        blocks = [H[4 * b : 4 * b + 4, 4 * b : 4 * b + 4] for b in range(4)]
        for measure, wanted in (
                (training.loss_at, loss), (training.gradient_norm, np.sqrt((grad**2).sum())),
                (training.smoothness, v.ravel() @ H @ v.ravel() / np.sum(v**2)),
                (training.spectral_norm, np.linalg.norm(H, 2)), (training.diagonal, np.diag(H)),
                (training.sharpness, np.linalg.eigvals(H).max()),
                (training.squared_errors, (linattn.predict(theta, prompts.Z) - prompts.target)**2),
                (training.condition, abs(np.diag(H)).max() / np.median(abs(np.diag(H)))),
                (training.block_spectra, [np.sort(abs(np.linalg.eigvals(B))) for B in blocks])):
            np.testing.assert_allclose(values(measure)[k], wanted, rtol=1e-9, atol=1e-9)
    assert np.isnan(training.smoothness(theta, theta, None))  # no step, no direction
    training.evaluate(training.loss_at, setting, 1e100 * path[:1], 1)  # overflows
    assert not recwarn.list


def test_spectral_norm_counts_negative_eigenvalues(monkeypatch):
    """The most negative one may be the largest; sharpness is the largest positive one."""
    monkeypatch.setattr(linattn, "hessian", lambda params, prompts: np.diag([-3.0, 1.0, 2.0, 0.0]))
    assert training.spectral_norm(None, None, None) == 3
    assert training.sharpness(None, None, None) == 2
    spectra = training.block_spectra(np.zeros((1, 2, 1, 2)), None, None)
    np.testing.assert_allclose(spectra, [[1, 3], [0, 2]])


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
    theta = linattn.init_mlp_params(rng, 3, 1, hidden=2, std=0.5)
    v, prompts = rng.standard_normal(theta.size), training.evaluation_batch(setting, 0)

    def second(direction, h=1e-4):
        f = [linattn.mlp_loss_and_grad(theta + k * h * direction, prompts)[0] for k in (-1, 0, 1)]
        return (f[0] - 2 * f[1] + f[2]) / h**2

    path = np.array([(theta, theta + v)])
    condition, smooth = (training.evaluate(measure, setting, path, 1)["values"]
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
    found = training.noise(SMALL, 3, 5)
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
    found = training.noise(SMALL, 0, 2000)
    np.testing.assert_allclose(found["norms"], np.linalg.norm(noises, axis=1))
    m, S = noises.mean(axis=0), np.cov(noises.T)
    squares = np.array(found["null"]) ** 2
    assert squares.shape == (20, 2000) and len(np.unique(squares)) == 40_000
    assert squares.mean() == pytest.approx(m @ m + np.trace(S), rel=0.02)
    variance = 2 * np.trace(S @ S) + 4 * m @ S @ m
    assert squares.var() == pytest.approx(variance, rel=0.05)
    assert np.var(found["norms"] ** 2) > 1.5 * variance
    grads = itertools.chain(np.zeros((100, 4)), noises)
    assert not np.isin(training.noise(SMALL, 1, 2000)["null"], found["null"]).any()  # another seed


def test_the_null_of_few_draws_has_their_mean(monkeypatch):
    """Two draws span one direction of five; the mean lies in the others, too."""
    noises = 10 + np.array([[1.0, -1, 0, 0, 0], [-1, 1, 0, 0, 0]])
    grads = itertools.chain(np.zeros((100, 5)), noises)
    monkeypatch.setattr(training, "gradient_of", lambda setting: lambda params, prompts: (
        0.0, next(grads)))
    null = training.noise(SMALL, 0, 2)["null"]
    assert np.median(null) == pytest.approx(500**0.5, rel=0.02)


def test_layer_gradients():
    """First and last of three layers, on the evaluation batch of the seed's number."""
    setting = SMALL._replace(std=0.3)
    theta = linattn.init_params(training.streams(1)[0], std=0.3)
    prompts = data.sample_prompts(training.generator([2310, 1]), 1000, 20, 5)
    grad = linattn.textbook_loss_and_grad(theta, prompts)[1]
    norms = training.layer_gradients(setting, 1)["first_last"]
    np.testing.assert_allclose(norms, [np.sqrt((grad[l] ** 2).sum()) for l in (0, 2)])


def test_descent_of_one_layer():
    """The closed form for Gaussian x: c = n / (n + d + 1), loss d (d + 1) / (n + d + 1)."""
    found = training.descent(SETTING_1._replace(layers=1, data=dict(n=10, d=2)), "P = g I")
    assert -found["multiples"][0, 1] == pytest.approx(10 / 13, rel=0.03)
    assert found["multiples"][0, 0] == 0  # the last P has no gradient
    assert found["loss"] == pytest.approx(6 / 13, rel=0.05) and found["slope"] < 1e-6


def test_descent_of_two_layers():
    """A minimum, of the loss on the batch that was fitted, in the directions of each kind; more
    freedom never ends higher."""
    setting = SETTING_1._replace(layers=2, data=dict(n=10, d=2))
    batch, losses = training.evaluation_batch(setting, 100), []
    free = {"one size": [(0, 1, 0, 1)], "L sizes": [(0, 1, 0, 0), (0, 0, 0, 1)],
            "P = g I": [(1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 0, 1)]}  # (g_1, c_1, g_2, c_2)
    for kind, directions in free.items():
        found = training.descent(setting, kind)

        def loss(multiples, prompts=batch):
            return linattn.loss_and_grad(multiples[:, :, None, None] * np.eye(2), prompts)[0]

        assert found["slope"] < 1e-6 and found["least"] == loss(found["multiples"])
        for direction in directions:
            away = 1e-3 * np.reshape(direction, (2, 2))
            slope = (loss(found["multiples"] + away) - loss(found["multiples"] - away)) / 2e-3
            assert abs(slope) < 1e-4
            assert loss(found["multiples"] + away) > found["least"]
        fixed = np.sum(directions, axis=0) == 0
        assert not found["multiples"].ravel()[fixed].any()
        others = [training.evaluation_batch(setting, k) for k in range(20)]
        assert found["loss"] == np.median([loss(found["multiples"], each) for each in others])
        losses.append(found["least"])
    assert losses[0] > losses[1] > losses[2] > 0


def test_descent_takes_the_best_of_its_starts(monkeypatch):
    """Here none moves: eight starts, whose sizes grow from 0.1 to 10 and whose g fall from 1 to 0.3
    from layer to layer; the slope is that of the loss along the numbers that may change."""
    starts = []
    monkeypatch.setattr(training, "newton", lambda loss_and_slope, hessian, point: (
        starts.append((loss_and_slope(point)[0], point)), point)[1])
    setting = SETTING_1._replace(layers=3, data=dict(n=10, d=2))
    found, prompts = training.descent(setting, "P = g I"), training.evaluation_batch(setting, 100)
    assert len({loss for loss, _ in starts}) == 8 and found["least"] == min(starts)[0]
    for _, (g_1, g_2, *c) in starts:
        assert 1 >= g_1 >= g_2 >= 0.3 and -0.1 >= c[0] >= c[1] >= c[2] >= -10
    sizes = -np.array([point[2:] for _, point in starts])
    assert sizes.min() < 0.2 and sizes.max() > 4
    matrices = found["multiples"][:, :, None, None] * np.eye(2)
    grad = linattn.loss_and_grad(matrices, prompts)[1]
    slope = np.array([[np.trace(matrix) for matrix in layer] for layer in grad])
    slope[-1, 0] = 0  # of the last P
    assert found["slope"] == pytest.approx(np.linalg.norm(slope))
    starts.clear()
    training.descent(setting, "one size")  # from the mean of the sizes
    assert all(-0.1 >= c >= -10 for _, (c,) in starts)


@pytest.mark.slow
def test_descent_finds_the_least_loss():
    """A local minimum, of which there are several, would be reported as the limit of what these
    layers can do. The number: BFGS from many starts. (Three layers, 7.69e-4, take a minute.)"""
    found = training.descent(SETTING_1._replace(layers=2), "P = g I")
    assert found["loss"] == pytest.approx(0.0540, rel=0.01) and found["slope"] < 1e-6


def test_newton_leaves_a_saddle():
    """x^4 / 4 - x^2 / 2 + y^2 / 2 has a saddle at 0, which plain Newton steps would find from
    here, and minima -1/4 at x = 1 and -1. It ends there to the last digits, and soon."""
    calls = []

    def loss_and_slope(point):
        calls.append(point)
        x, y = point
        return x**4 / 4 - x**2 / 2 + y**2 / 2, np.array([x**3 - x, y])

    end = training.newton(loss_and_slope, lambda point: np.diag([3 * point[0] ** 2 - 1, 1]),
                          np.array([1e-3, 2.0]))
    np.testing.assert_allclose(end, [1, 0], atol=1e-7)
    assert len(calls) < 150
    stopped = training.newton(loss_and_slope, lambda point: np.eye(2), np.array([3.0, 0]), steps=1)
    assert stopped[0] != 3 and abs(stopped[0] - 1) > 1e-3


def test_cost_seconds(monkeypatch):
    """The median of the calls after the first, which pays for what is loaded; of every form at
    every n, and of the others at the sizes that their names say."""
    timed = []

    def repeat(call, number, repeat):
        timed.append(call())
        return [1e9, *(k**2 for k in range(1, repeat))]

    monkeypatch.setattr(timeit, "repeat", repeat)
    monkeypatch.setattr(data, "sample_prompts", lambda rng, batch, n, d: (
        f"n = {n}, d = {d}" if batch == 1000 else ""))
    for name, words in dict(
            init_params=lambda rng, layers, d: f"L = {layers}",
            compress=lambda prompts: f"Gram of {prompts}",
            loss_and_grad=lambda params, prompts, kind="linear": f"{kind}, {prompts}, {params}",
            textbook_loss_and_grad=lambda params, prompts: f"textbook, {prompts}, {params}",
            hessian=lambda params, prompts: f"Hessian, {prompts}, {params}").items():
        monkeypatch.setattr(linattn, name, words)
    found = training.cost_seconds(0)
    assert found == dict(forms=[5 * [4], 5 * [4], 5 * [51**2], 5 * [51**2]],
                         others=4 * [11**2] + [4])
    assert training.COST_FORMS == ("softmax", "linear, textbook", "linear, Gram form",
                                   "compression")
    assert timed[:20] == [f"{form}n = {n}, d = 5{layers}" for form, layers in (
        ("softmax, ", ", L = 3"), ("textbook, ", ", L = 3"), ("linear, Gram of ", ", L = 3"),
        ("Gram of ", "")) for n in training.COST_N]
    for what, name in zip(timed[20:], training.COST_OTHERS, strict=True):
        kind, size = what.split("Gram of ")
        assert name.endswith(size) and name.startswith(
            {"linear, ": "gradient", "": "compression", "Hessian, ": "Hessian 150 x 150"}[kind])


# ---- What an experiment asks for -----------------------------------------------------------------


def test_final_loss():
    """The median over the last tenth of the steps, at least one: in Setting 3 a mean is decided by
    one rare prompt. NaN if the run diverged."""
    loss = np.full((2, 30), 100.0)
    loss[:, -3:] = (1, 2, 9), (1, 2, np.nan)
    np.testing.assert_array_equal(training.final_loss(loss), [2, np.nan])
    assert training.final_loss(np.array([5.0, 4, 3])) == 3


def test_level(recwarn):
    """The mean over seeds of the logarithm: a loss of 0 ranks first, a diverged run last."""
    loss = np.array([[1, 2, 32], [3, 3, 3], [0, 1, 1], [0, 1, np.nan], [0, 1, np.inf]])[:, :, None]
    wanted = [np.log(4), np.log(3), -np.inf, np.inf, np.inf]
    np.testing.assert_allclose(training.level(loss), wanted)
    assert not recwarn.list


def test_the_best_of_several_rates():
    """The lowest level at which no seed diverged."""
    loss = np.array([[3, 3], [1, 4], [0.1, np.nan]])[:, :, None]  # (rates, seeds, steps)
    tried = Tried(np.array([1.0, 2.0, 5.0]), [dict(loss=each) for each in loss])
    assert tried.loss.shape == (3, 2, 1) and tried.best == 1
    assert tried.at_best["loss"].tolist() == [[1], [4]]


@pytest.fixture
def run(tmp_path):
    return Run(seeds=2, steps=3, out=str(tmp_path), pool=Here())


OTHER = SMALL._replace(name="other", data=dict(n=4, d=2), layers=2, lr=dict(SGD=0.5, Adam=0.1))


def test_run_trains_every_optimizer_on_every_seed_in_every_setting(run):
    """By name, so that nobody mixes up axes; each at its setting's rate or, if given, the run's."""
    found = run.spend(lr=dict(Adam=0.3)).train({"a": SMALL, "b": OTHER}, every=2, weight_decay=0.1)
    assert list(found) == ["a", "b"] and list(found["a"]) == ["SGD", "Adam"]
    for name, setting in (("a", SMALL), ("b", OTHER)):
        for optimizer, lr in ((optimizers.SGD, setting.lr["SGD"]), (optimizers.Adam, 0.3)):
            arrays = found[name][optimizer.__name__]
            for seed in range(2):
                contestant = optimizer, dict(lr=lr, weight_decay=0.1)
                wanted = training.train(setting, [contestant], seed, 3, 2)
                assert same({key: values[seed] for key, values in arrays.items()},
                            {key: values[0] for key, values in wanted.items()})
            assert arrays["snapshots"].shape[:3] == (2, 2, 2)
    assert len(files(run.out)) == 2 * 2 * 2
    other = run.spend(first_seed=5, lr=dict(Adam=0.3)).train({"b": OTHER})["b"]["SGD"]["loss"]
    assert list(run.spend(first_seed=5).numbers) == [5, 6]
    for seed in (5, 6):
        wanted = training.train(OTHER, [(optimizers.SGD, dict(lr=0.5))], seed, 3)["loss"]
        assert np.array_equal(other[seed - 5], wanted[0])


def test_run_tunes_every_optimizer_in_every_setting(run):
    grids = {("a", "SGD"): [0.1, 0.2], ("a", "Adam"): [0.3], ("other", "SGD"): [0.4],
             ("other", "Adam"): [0.5, 0.1]}
    named = {"a": SMALL._replace(name="a"), "other": OTHER}
    found = run.tune(named, lambda setting, name: grids[setting.name, name], every=1,
                     weight_decay=0.1)
    for (name, optimizer), rates in grids.items():
        tried = found[name][optimizer]
        assert tried.rates.tolist() == rates and tried.loss.shape == (len(rates), 2, 3)
        for rate, runs in zip(rates, tried.runs):
            contestant = getattr(optimizers, optimizer), dict(lr=rate, weight_decay=0.1)
            wanted = training.train(named[name], [contestant], 1, 3, 1)
            assert same({key: values[1] for key, values in runs.items()},
                        {key: values[0] for key, values in wanted.items()})
    assert len(files(run.out)) == 2 * 6


def test_run_measures_along_paths(run):
    """{optimizer: (seeds, points, batches)}, at the snapshots that were asked for."""
    trained = run.train({"other": OTHER}, every=1)["other"]
    found = run.along(training.loss_at, OTHER, trained, [0, 2], batches=2)
    for name in ("SGD", "Adam"):
        assert found[name].shape == (2, 2, 2)
        params, prompts = trained[name]["snapshots"][1, 2, 0], training.evaluation_batch(OTHER, 1)
        assert found[name][1, 1, 1] == linattn.loss_and_grad(params, prompts)[0]
    assert run.along(training.diagonal, OTHER, trained, [0])["SGD"].shape == (2, 1, 1, 16)
    before = files(run.out)
    assert run.all(double, [(1,)], keep=False) == [dict(value=2)] and files(run.out) == before


def test_a_missing_rate_is_named(run):
    with pytest.raises(training.Mistake, match="^lr: got none for SignDescent in other, wants"):
        run.spend(optimizers=(optimizers.SGD, optimizers.SignDescent)).train({"other": OTHER})


class Cannot:
    def __init__(self, rate):
        pass

    def step(self, params, grad):
        pass


@pytest.mark.parametrize("argument, value", [
    ("seeds", 0), ("seeds", "2"), ("seeds", 2.0), ("seeds", True), ("seeds", 10**6),
    ("steps", None), ("steps", -1), ("optimizers", "SGD"), ("optimizers", None),
    ("optimizers", ("SGD",)), ("optimizers", ()), ("optimizers", (optimizers.SGD, dict)),
    ("optimizers", (optimizers.SGD, optimizers.SGD)), ("optimizers", (Cannot,)),
    ("lr", 0.1), ("lr", {"SGD": "x"}), ("lr", {"sgd": 1.0}), ("lr", {"SGD": -1.0}),
    ("lr", {"SGD": 0}), ("lr", {"SGD": np.nan}), ("lr", {"SGD": np.inf}),
    ("pool", 2), ("out", None), ("out", 3), ("out", ""),
    ("first_seed", -1), ("first_seed", 1.0), ("first_seed", True), ("first_seed", 10**6),
])
def test_mistakes_in_a_library_call_are_named(argument, value):
    """At once, not after an hour of training."""
    with pytest.raises(ValueError, match=f"^{argument}: got .*, wants"):
        Run(**{argument: value})


def test_what_a_run_may_be():
    """Numbers of numpy, one optimizer, a list of them, a path."""
    run = Run(seeds=np.int64(1), steps=999_999, optimizers=[optimizers.Adam],
              lr=dict(Adam=np.int64(1)), out=Path("x"))
    assert run.names == ["Adam"] and run.rate(SMALL, "Adam") == 1


# ---- Many tasks: what is kept --------------------------------------------------------------------


DOUBLED = []


def double(number):
    DOUBLED.append(number)
    return dict(value=np.array(2.0 * number))


class Counted(optimizers.SGD):
    """Counts how many were made, and with them the trainings."""
    made = 0

    def __init__(self, **arguments):
        Counted.made += 1
        super().__init__(**arguments)


def test_finished_tasks_are_read_back(tmp_path):
    """In the order of the tasks, equal ones computed once; computing anew would need a pool."""
    numbers = [3, 1, 3, 2]
    DOUBLED.clear()
    first = training.run_all(double, [(number,) for number in numbers], Here(), tmp_path)
    assert [each["value"] for each in first] == [6, 2, 6, 4]
    assert DOUBLED == [3, 1, 2] and len(files(tmp_path)) == 3
    again = training.run_all(double, [(number,) for number in numbers[::-1]], "no pool", tmp_path)
    assert all(map(same, again, first[::-1]))
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    training.run_all(double, [(9,), (9,)], Here(), tmp_path, keep=False)
    assert len(files(tmp_path)) == 3


def test_contestants_are_trained_side_by_side_and_kept_alone(tmp_path):
    """A third optimizer does not retrain the first two; company changes no file."""
    tasks = [(SMALL, (Counted, dict(lr=lr)), seed, 3, 50) for lr in (0.1, 0.2) for seed in (0, 1)]
    Counted.made = 0
    together = training.train_all([*tasks, tasks[0]], Here(), tmp_path / "together")
    assert Counted.made == 4 and same(together[4], together[0])
    for task, result in zip(tasks, together):
        training.train_all([task], Here(), tmp_path / "alone")
        assert same(result, {name: values[0] for name, values in training.train(
            SMALL, [task[1]], *task[2:]).items()})
    one, other = (files(tmp_path / name) for name in ("together", "alone"))
    assert [path.name for path in one] == [path.name for path in other] and len(one) == 4
    assert all(first.read_bytes() == second.read_bytes() for first, second in zip(one, other))
    Counted.made = 0
    more = [(SMALL, ADAM, 0, 3, 50), (SMALL, ADAM, 0, 2, 50), (SMALL, ADAM, 0, 3, 1)]
    *_, third, shorter, often = training.train_all([*tasks, *more], Here(), tmp_path / "together")
    assert Counted.made == 0 and len(files(tmp_path / "together")) == 7
    assert third["loss"].shape == (3,) and shorter["loss"].shape == (2,)
    assert often["snapshots"].shape == (3, *third["snapshots"].shape[1:])


@pytest.mark.parametrize("damage", (
    lambda path, other: path.write_bytes(path.read_bytes()[:-100]),
    lambda path, other: path.write_bytes(b""),
    lambda path, other: path.write_text("not an archive"),
    lambda path, other: shutil.copy(other, path),
    lambda path, other: np.savez(path, value=np.zeros(5)),
    lambda path, other: np.savez(path, key=np.load(path)["key"], value=np.array([{}])),  # a pickle
))
def test_damaged_and_foreign_files_are_named_and_computed_anew(damage, tmp_path, capsys):
    """A truncated file (a full disk, a power cut) or another configuration's must not be used."""
    first = training.run_all(double, [(1,), (2,)], Here(), tmp_path)
    path, other = files(tmp_path)
    damage(path, other)
    assert all(map(same, training.run_all(double, [(1,), (2,)], Here(), tmp_path), first))
    message = capsys.readouterr().err
    assert message.startswith("experiments.py: ") and message.count("\n") == 1
    assert str(path) in message and "computed anew" in message and str(other) not in message
    training.run_all(double, [(1,), (2,)], "no pool", tmp_path)
    assert capsys.readouterr().err == ""


def key(*task):
    return training.key_of(double, task)


def test_equal_arguments_have_one_key():
    """However they are written: otherwise the same run would be done twice."""
    assert len({key(0.02), key(np.float64(0.02))}) == 1
    assert len({key(1), key(1.0), key(np.int8(1)), key(np.float32(1))}) == 1
    assert key(dict(a=1, b=2)) == key(dict(b=2, a=1))
    assert key([1, (2, 3)]) == key((1, [2, 3]))
    assert key(SMALL) == key(SMALL._replace(name="other", lr=dict(SGD=7.0)))
    path = np.arange(12.0).reshape(3, 4)
    assert key(path) == key(np.asfortranarray(path))


def test_different_arguments_have_different_keys():
    """Otherwise one would be given the other's result. (A printed array leaves out its middle.)"""
    long = np.zeros(100_000)
    changed = long.copy()
    changed[50_000] = 1e-300
    different = [
        long, changed, long.reshape(2, -1), long.astype(int), 0, 1, 2, 0.1 + 0.2, 0.3, 1e300,
        np.inf, np.nan, None, True, False, "", "1", "None", "a", (), (1,), (1, 2), ((1,), 2),
        dict(a=1), dict(a=2), dict(b=1), Counted, optimizers.SGD, double, same,
        functools.partial(double, 1), functools.partial(double, 2),
        functools.partial(double, number=1), functools.partial(double, number=2),
        *(SMALL._replace(**{name: value}) for name, value in dict(
            data=dict(n=20, d=4), clip=2.0, layers=2, activation="relu", full=True, std=0.1,
            batch=21, fixed=True, clipping="none").items()), SMALL]
    names = {training.file_of("", double, key(each)) for each in different}
    assert len(names) == len(different)
    assert training.key_of(same, (1,)) != training.key_of(double, (1,))


@pytest.mark.parametrize("unknown", (
    {1, 2}, b"x", 1j, object(), np.array([object()]), [None, [{"a": {1}}]], Here().submit))
def test_unknown_arguments_are_refused(unknown):
    """What cannot be told from its like has no key: a set, an object, a method of one."""
    with pytest.raises(TypeError, match="task: got .*, wants"):
        key(unknown)


def test_the_key_depends_on_all_code(monkeypatch):
    """Ours, the reader's wherever it is named, and numpy: otherwise results outlive the code."""
    before = key()
    for name in ("linattn", "data", "optimizers", "training", "test_training"):
        with monkeypatch.context() as changed:
            changed.setitem(training.CODE, name, "other")
            assert key() != before, name
    monkeypatch.setitem(training.CODE, "test_training", "other")
    for part in ((Counted, dict(lr=1)), [dict(base=Counted)], functools.partial(int, Counted)):
        assert training.codes_of((int, part))["test_training"] == "other"
    monkeypatch.undo()
    monkeypatch.setattr(np, "__version__", "0")
    assert key() != before


def test_code_without_comments_and_docstrings(tmp_path, monkeypatch):
    """A comment may be mended while long runs go on; a number may not."""
    text = '"""Module."""\nclass A:\n    "A."\n    def f(self):\n        "f"\n        return 1\n'
    source = tmp_path / "some_module.py"
    source.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    import some_module

    assert some_module.A().f() == 1
    before = training.code_of("some_module")
    source.write_text(text.replace("A.", "B.").replace("Module", "Other").replace('"f"', '"g"')
                      .replace("return 1", "return  1  # one"))
    assert training.code_of("some_module") == before
    source.write_text(text.replace("return 1", "return 2"))
    assert training.code_of("some_module") != before
    assert training.CODE["linattn"] == training.code_of("linattn")
    assert training.code_of("sys") == ""  # built in
    monkeypatch.setitem(sys.modules, "compiled", types.SimpleNamespace(__file__="compiled.so"))
    assert training.code_of("compiled") == "compiled.so"


def test_write_is_all_or_nothing(tmp_path):
    """Under a name of its own (two calls may write one file at once), for everybody to read."""
    path = tmp_path / "runs" / "file"

    def first(file):
        training.write(path, lambda other: other.write(b"second"))  # meanwhile
        assert path.read_bytes() == b"second"
        file.write(b"first")

    def fails(file):
        file.write(b"half")
        raise OSError("disk full")

    mask = os.umask(0o022)
    try:
        training.write(path, first)
    finally:
        os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o644 or os.name == "nt"
    with pytest.raises(OSError, match="disk full"):
        training.write(path, fails)
    assert files(tmp_path) == [path] and path.read_bytes() == b"first"


def test_progress_is_for_terminals(tmp_path, monkeypatch, capsys):
    """Tasks done and the time left; the last call clears the line. Without stderr: silence."""
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    clock = itertools.count(0, 10)
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    training.run_all(double, [(1,), (2,), (3,)], Here(), tmp_path)
    shown = terminal.getvalue().split("\r")
    assert [each.strip() for each in shown] == [
        "", "1 of 3 done, about 20 s left", "2 of 3 done, about 10 s left", "", ""]
    assert len({len(each) for each in shown[1:-1]}) == 1
    monkeypatch.setattr(sys, "stderr", None)
    files(tmp_path)[0].write_text("damaged")
    training.run_all(double, [(1,), (2,), (3,)], Here(), tmp_path)
    assert capsys.readouterr().out == ""


# ---- Many tasks: code that changes ---------------------------------------------------------------


class OldWorkers(Here):
    """Has read another linattn.py than we."""

    def submit(self, work, codes, *rest):
        return super().submit(work, {**codes, "linattn": "other"}, *rest)


def test_a_worker_with_other_code_keeps_nothing(tmp_path):
    """Otherwise its numbers would be kept under the key of ours."""
    with pytest.raises(training.RunFailed, match="^the source has changed .* start it again$"):
        training.run_all(double, [(1,), (2,)], OldWorkers(), tmp_path)
    assert files(tmp_path) == []


@pytest.fixture
def copy(tmp_path):
    """A copy of the project to be edited."""
    for name in ("linattn", "optimizers", "data", "training"):
        shutil.copy(PROJECT / f"{name}.py", tmp_path)
    return tmp_path


PATH = os.environ | {"PYTHONPATH": str(PROJECT)}


def python(*arguments, folder):
    """Standard output of a Python process in a folder, which must end well."""
    done = subprocess.run([sys.executable, *arguments], cwd=folder, env=PATH, text=True,
                          capture_output=True, timeout=60)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return done.stdout


TASKS = """
import training
from data import SETTING_1
from optimizers import SGD
SMALL = SETTING_1._replace(batch=20)

def tasks(optimizer=SGD):
    return [(SMALL, (optimizer, dict(lr=0.02)), seed, 3, 50) for seed in range(2)]
"""
MINE = """
import optimizers
FACTOR = 1
class Mine(optimizers.SGD):
    def step(self, params, grad):
        return super().step(params, FACTOR * grad)
class Second(Mine):
    pass
"""
EDITS = TASKS + """
from pathlib import Path
import mine

def kept():
    return len(list(Path("results/runs").iterdir()))

print(training.train_all(tasks(mine.Mine))[0]["loss"][-1])
before = kept()
if before == 2:  # the first session
    for name, optimizer in (("optimizers.py", SGD), ("mine.py", mine.Second)):
        source = Path(name).read_text()
        Path(name).write_text(source.replace("FACTOR = 1", "FACTOR = 2").replace("0.9", "0.8"))
        try:
            training.train_all(tasks(optimizer))
        except training.RunFailed as error:
            assert "start it again" in str(error)
        else:
            assert False, name
        if name == "optimizers.py":
            Path(name).write_text(source)
assert kept() == before
"""


def test_edited_code(copy):
    """A session whose source is edited says so and keeps nothing, of the reader's module, too,
    whichever class of it is asked for; the next session does not read the old results."""
    (copy / "mine.py").write_text(MINE)
    (copy / "session.py").write_text(EDITS)
    first, second, third = (python("session.py", folder=copy) for _ in range(3))
    assert first != second == third and len(files(copy / "results")) == 4


# ---- Many tasks: processes -----------------------------------------------------------------------


def nap(number):
    """For a minute, but for the number 0."""
    time.sleep(60 if number else 0)
    return dict(value=np.array(number))


def surroundings():
    return dict(os.environ), signal.getsignal(signal.SIGINT)


class Dies(optimizers.SGD):
    def step(self, params, grad):
        os._exit(1)


class Fails(optimizers.SGD):
    def step(self, params, grad):
        return 1 / 0


@pytest.fixture
def workers():
    """Two fresh processes of our own, and the processes that were there before."""
    pool = training.Workers(2)
    yield pool, set(multiprocessing.active_children())
    pool.stop()


def test_a_worker_that_dies_is_named_and_all_else_is_kept(tmp_path, workers):
    """Even what was trained beside it in the same call."""
    tasks = [(SMALL, (optimizer, dict(lr=0.02)), 0, 3, 50)
             for optimizer in (optimizers.SGD, Dies, Fails, optimizers.Adam)]
    with pytest.raises(training.RunFailed) as failure:
        training.train_all(tasks, workers[0], tmp_path)
    dies, fails = sorted(str(failure.value).splitlines())
    assert dies == "Dies (lr 0.02), Setting 1, seed 0: its worker process died"
    assert fails.startswith("Fails (lr 0.02), Setting 1, seed 0: ZeroDivisionError: division by "
                            "zero (test_training.py, line ")
    found = training.train_all([tasks[0], tasks[3]], "no pool", tmp_path)
    wanted = training.train(SMALL, [SGD, ADAM], 0, 3)
    assert all(same(each, {name: values[i] for name, values in wanted.items()})
               for i, each in enumerate(found))


def test_workers_have_one_blas_thread_and_the_parent_its_own(monkeypatch, workers):
    """Two processes with two threads each on two cores would be slower, and round differently. And
    of Ctrl-C, which a terminal sends to all, workers die without a traceback."""
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "7")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before, main = dict(os.environ), sys.modules["__main__"]
    ((found, handler),) = training.run_all(surroundings, [()], workers[0], keep=False)
    for name in ("OPENBLAS", "OMP", "MKL"):
        assert found[f"{name}_NUM_THREADS"] == "1"
    assert found["VECLIB_MAXIMUM_THREADS"] == "1" and handler == signal.SIG_DFL
    assert dict(os.environ) == before and sys.modules["__main__"] is main


def test_not_more_processes_than_windows_allows():
    """More than 61 end in a ValueError there."""
    assert training.Workers(64).jobs == 61 and training.Workers(3).jobs == 3
    assert training.Workers().jobs == min(os.cpu_count(), 61)
    assert training.own_workers(1) is training.own_workers(1) is not training.own_workers(2)


def test_a_full_disk_ends_our_workers_and_no_other_process(tmp_path, monkeypatch, workers):
    """At once, though one of them would sleep on."""
    pool, before = workers
    own = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
    own.start()

    def full(*_, **__):
        raise OSError("no space left")

    monkeypatch.setattr(np, "savez", full)
    try:
        with pytest.raises(OSError, match="no space left"):
            training.run_all(nap, [(0,), (1,)], pool, tmp_path)
        assert set(multiprocessing.active_children()) == before | {own} and own.is_alive()
        assert files(tmp_path) == [] and pool.pool is None
    finally:
        own.kill()
        own.join()


@pytest.fixture
def interruptible():
    """Ctrl-C as at a prompt, even where the tests run in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(os.name == "nt", reason="has no SIGINT to one process")
@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_interrupt_keeps_what_is_done(tmp_path, workers, interruptible):
    """Ctrl-C, here to the parent alone, leaves no process behind, and no traceback of a thread."""
    def interrupt():
        while not [path for path in files(tmp_path) if path.suffix == ".npz"]:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        training.run_all(nap, [(number,) for number in range(12)], workers[0], tmp_path)
    assert set(multiprocessing.active_children()) == workers[1]
    assert [path.suffix for path in files(tmp_path)] == [".npz"]
    (found,) = training.run_all(nap, [(0,)], "no pool", tmp_path)
    assert found["value"] == 0


def test_an_interrupt_keeps_what_is_done_but_not_yet_received():
    """Here three calls are done when it comes, in the middle of the first."""
    received = []

    def receive(call, results):
        received.append(float(results[0]["value"]))
        if len(received) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.compute(training.alone, double, [{i: (i,)} for i in range(3)], receive, Here())
    assert sorted(set(received)) == [0, 2, 4]


@pytest.mark.skipif(os.name == "nt", reason="has no kill -9")
def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    """They hold its standard output: when that is closed, all are gone."""
    (tmp_path / "mine.py").write_text(
        "import os, time\ndef nap(number):\n    os.write(1, b'begun\\n')\n    time.sleep(60)\n")
    text = "import mine, training; training.run_all(mine.nap, [(0,), (1,)], training.Workers(2))"
    process = subprocess.Popen([sys.executable, "-c", text], cwd=tmp_path, env=PATH,
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout.readline() == process.stdout.readline() == b"begun\n"
    process.kill()
    process.communicate(timeout=20)


class OneByOne(Here):
    """Does the first call only; the others wait."""

    def __init__(self):
        self.futures = []

    def submit(self, function, *arguments):
        self.futures.append(Future() if self.futures else super().submit(function, *arguments))
        return self.futures[-1]


def test_an_interrupt_cancels_what_waits():
    """In a reader's executor, too, which stays open and would do it all."""
    def receive(call, results):
        raise KeyboardInterrupt

    pool = OneByOne()
    with pytest.raises(KeyboardInterrupt):
        training.compute(training.alone, double, [{i: (i,)} for i in range(3)], receive, pool)
    assert [future.cancelled() for future in pool.futures] == [False, True, True]


class Broken(Executor):
    def submit(self, *_):
        raise BrokenExecutor("broken")


def test_a_readers_executor(tmp_path):
    """Threads or processes (Dask, MPI) in the place of our own: the same numbers; it stays open.
    One that breaks is reported."""
    tasks = [(SMALL, contestant, seed, 3, 50) for contestant in (SGD, ADAM) for seed in (0, 1)]
    wanted = training.train_all(tasks, Here(), tmp_path / "here")
    spawn = multiprocessing.get_context("spawn")
    with ThreadPoolExecutor(2) as threads, ProcessPoolExecutor(1, spawn) as processes:
        for name, pool in (("threads", threads), ("processes", processes)):
            assert all(map(same, training.train_all(tasks, pool, tmp_path / name), wanted))
            assert pool.submit(abs, -1).result() == 1
        with pytest.raises(training.RunFailed, match="^Dies .*, seed 0: its worker process died"):
            training.train_all([(SMALL, (Dies, dict(lr=0.02)), 0, 3, 50)], processes, tmp_path)
    with pytest.raises(training.RunFailed, match="double: its worker process died"):
        training.run_all(double, [(1,)], Broken(), tmp_path)
    with pytest.raises(training.RunFailed, match="pickle"):  # what cannot be sent is named, too
        training.run_all(refuses_to_be_sent, [(1,)], training.Workers(1), tmp_path)


class Unsendable:
    def __reduce__(self):
        raise TypeError("cannot pickle it")


def refuses_to_be_sent(number):
    return dict(value=Unsendable())


PROCESSES = TASKS + """
import multiprocessing

def experiment(name):
    print(training.train_all(tasks(), out=name)[1]["loss"][-1], flush=True)

if __name__ == "__main__":
    experiment("parent")
    for method, daemon in (("spawn", False), ("fork", False), ("fork", True)):
        child = multiprocessing.get_context(method).Process(
            target=experiment, args=(f"{method} {daemon}",), daemon=daemon)
        child.start()
        child.join(30)
        assert child.exitcode == 0, (method, daemon)
"""


@pytest.mark.skipif(os.name == "nt", reason="has no fork")
def test_an_experiment_inside_a_process(tmp_path):
    """A guarded script may start it in multiprocessing.Process, even after one of its own; a daemon
    may have no children: there it runs in that process."""
    (tmp_path / "script.py").write_text(PROCESSES)
    lines = python("script.py", folder=tmp_path).split()
    assert len(lines) == 4 and len(set(lines)) == 1
    assert {path.parts[-3] for path in tmp_path.glob("*/runs/*.npz")} == {
        "parent", "spawn False", "fork False"}


UNGUARDED = TASKS + """
found = training.train_all(tasks())
print(found[1]["loss"][-1])
"""


def test_scripts_without_a_guard(tmp_path):
    """From a file, and from stdin where there is no stderr: workers need nothing of the script."""
    (tmp_path / "script.py").write_text(UNGUARDED)
    one = python("script.py", folder=tmp_path)
    (path, other) = files(tmp_path / "results")
    path.unlink()
    run_it = f"exec '{sys.executable}' - 2>&-"
    done = subprocess.run(run_it, shell=True, input=UNGUARDED, cwd=tmp_path, env=PATH, text=True,
                          stdout=subprocess.PIPE, timeout=60)
    assert done.returncode == 0 and done.stdout == one
    assert files(tmp_path / "results") == [path, other]


NOTEBOOK = TASKS + """
import inspect
from pathlib import Path
import numpy as np
from training import *
from training import draw, stepped, diverged, streams, initial, gradient_of, clip, moment

class Typed(SGD):
    pass

plain, run = training.train_all(tasks()), training.Run(seeds=1, steps=3)
kept = lambda: len(list(Path("results/runs").iterdir()))
assert kept() == 2

typed = training.train_all(tasks(Typed))
assert np.array_equal(typed[1]["loss"], plain[1]["loss"])

old_noise, old_train = training.noise, training.train
exec(inspect.getsource(old_noise).replace("norms=", "norms=7 + "))
training.noise = noise
(changed,) = run.all(training.noise, [(SMALL, 0, 3)])
assert np.array_equal(changed["norms"], 7 + old_noise(SMALL, 0, 3)["norms"])

exec(inspect.getsource(old_train).replace("loss=loss", "loss=loss + 7"))
training.train = train
changed = training.train_all(tasks())
assert np.array_equal(changed[1]["loss"], plain[1]["loss"] + 7)

training.train, training.noise = old_train, old_noise
training.diverged = lambda loss: True
changed = training.train_all(tasks())
assert np.isnan(changed[1]["loss"]).all()
assert kept() == 2
print("done")
"""


def test_code_typed_into_a_notebook(tmp_path):
    """A class, or a function of ours that was pasted, changed and put back, runs in this process,
    for no worker can import it; and it is not kept, for it has no file to be known by."""
    assert python("-c", NOTEBOOK, folder=tmp_path) == "done\n"


def test_code_inside_a_function_runs_here(tmp_path):
    """As a class that a test or a helper function makes; a lambda, too."""
    class Local(optimizers.SGD):
        pass

    training.train_all([(SMALL, (Local, dict(lr=0.02)), 0, 3, 50)], "no pool", tmp_path)
    training.run_all(square, [(2,)], "no pool", tmp_path)
    assert files(tmp_path) == []
    with pytest.raises(training.RunFailed, match="ZeroDivisionError"):
        training.run_all(square, [(0,)], None, tmp_path)


square = lambda number: dict(value=np.array(1 / number))
