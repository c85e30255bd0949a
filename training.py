"""The protocol: one training loop, what is measured along a run, and many tasks at once.

    setting     a row of the paper's experiments: data, depth, rates, clip limit (data.py)
    contestant  (optimizer's class, dict of its arguments, the learning rate lr among them)
    snapshot    the params before and after one step
    task        the arguments of one call: computed in one process, kept in one file
    result      what a task returns: a dict of arrays

Source: Ahn et al., ICLR 2024, arXiv 2310.01082, section 3.
"""

import ast
import contextlib
import functools
import hashlib
import inspect
import itertools
import multiprocessing
import numbers
import os
import signal
import sys
import threading
import time
import timeit
import traceback
import types
import uuid
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from math import ceil
from multiprocessing.util import Finalize
from pathlib import Path
from typing import NamedTuple

import numpy as np

import data
import linattn
import optimizers
from data import Setting


@np.errstate(all="ignore")  # a run that diverges says so by its loss
def train(setting, contestants, seed, steps, every=50):
    """Train the contestants side by side: the same initial weights, the same fresh batches.

    Returns loss and grad_norm (contestants, steps), both taken before the step, the norm before
    clipping; and snapshots (contestants, ceil(steps / every), 2, *params.shape), the params before
    and after steps 0, every, 2 every, ... As no batch is seen twice (unless setting.fixed), the
    training loss is an unbiased test loss.

    The prediction is a polynomial of degree 3^L in a prompt, so deep models overflow on a rare one:
    such a step moves nothing, and counts as an infinite loss. A run that has `diverged` is left
    alone: its arrays are NaN from there on.
    """
    weight_rng, batch_rng = streams(seed)
    start = initial(setting, weight_rng)
    gradient = gradient_of(setting)
    rules = [optimizer(**arguments) for optimizer, arguments in contestants]  # with their moments
    params = [start for _ in contestants]
    loss = np.full((len(contestants), steps), np.nan)
    grad_norm = np.full((len(contestants), steps), np.nan)
    snapshots = np.full((len(contestants), ceil(steps / every), 2, *start.shape), np.nan)
    for t in range(steps):
        if t == 0 or not setting.fixed:
            prompts = draw(batch_rng, setting)
        for i, rule in enumerate(rules):
            if diverged(loss[i, :t]):
                continue
            before = params[i]
            loss[i, t], grad = gradient(before, prompts)
            grad_norm[i, t] = np.linalg.norm(grad)
            if np.isfinite([loss[i, t], grad_norm[i, t]]).all():
                factor = rate_left(setting, t / steps)
                params[i] = stepped(rule, before, clip(grad, setting), factor)
            else:
                loss[i, t] = grad_norm[i, t] = np.inf
            if not np.isfinite(params[i]).all():
                loss[i, t] = grad_norm[i, t] = np.nan
            if t % every == 0:
                snapshots[i, t // every] = before, params[i]
    return dict(loss=loss, grad_norm=grad_norm, snapshots=snapshots)


def diverged(loss):
    """Whether a run is lost, from its losses so far: a step led to params that are not finite, or
    the last twenty losses were all infinite or above 1,000 times the first one. Twenty, because
    single steps jump higher in Settings 2 and 3; the loss decides, because clipping keeps params
    finite."""
    recent = loss[-20:]
    far = len(loss) >= 20 and not (np.isfinite(recent) & (recent <= 1000 * loss[0])).any()
    return far or np.isnan(recent[-1:]).any()


def stepped(rule, params, grad, factor=1.0):
    """The optimizer's new params, its move times a factor. Copied both ways: it may change params
    in place, or go on using the array that it returns."""
    returned = rule.step(params.copy(), grad)
    if returned is None:
        raise ValueError("step returned None, wants the new params: is its `return` missing?")
    after = np.array(returned, float)
    if after.shape != params.shape:
        raise ValueError(f"step returned shape {after.shape}, wants {params.shape}")
    return after if factor == 1 else params + factor * (after - params)


def rate_left(setting, share):
    """What is left of the rate after this share of the steps. The moves are multiplied by it, which
    for any optimizer whose moments do not know the rate is the same as a rate that falls."""
    if setting.schedule == "constant":
        return 1.0
    if setting.schedule == "linear":
        return 1 - share
    if setting.schedule == "cosine":
        return (1 + np.cos(np.pi * share)) / 2
    raise ValueError(f"schedule: got {setting.schedule!r}, wants constant, linear or cosine")


def clip(grad, setting):
    """By the global norm, or coordinate by coordinate at limit / sqrt(size), so that the norm is at
    most the limit, too."""
    if setting.clipping == "global":
        return optimizers.clip_global_norm(grad, setting.clip)
    if setting.clipping == "coordinates":
        return optimizers.clip_coordinates(grad, setting.clip / np.sqrt(grad.size))
    if setting.clipping == "none":
        return grad
    raise ValueError(f"clipping: got {setting.clipping!r}, wants global, coordinates or none")


def streams(seed):
    """Two generators: for the initial weights, and for the batches."""
    return [generator(child) for child in np.random.SeedSequence(seed).spawn(2)]


def generator(seed):
    """SFC64 draws normals in 5/6 of the time of numpy's default."""
    return np.random.Generator(np.random.SFC64(seed))


def initial(setting, rng):
    """Initial params: the attention's, or, with an MLP in front, a flat array of all."""
    if setting.activation == "mlp":
        return linattn.init_mlp_params(rng, setting.layers, setting.data["d"], std=setting.std)
    return linattn.init_params(rng, setting.layers, setting.data["d"], setting.std, setting.full)


def gradient_of(setting):
    """The function (params, prompts) -> (loss, gradient)."""
    if setting.activation == "mlp":
        return functools.partial(linattn.mlp_loss_and_grad, layers=setting.layers)
    return functools.partial(linattn.loss_and_grad, activation=setting.activation)


def draw(rng, setting):
    """A fresh batch, for linear attention in Gram form."""
    prompts = data.sample_prompts(rng, setting.batch, **setting.data)
    return linattn.compress(prompts) if setting.activation == "linear" else prompts


# ---- What is measured: each function below is a task ---------------------------------------------


@np.errstate(all="ignore")
def evaluate(measure, setting, path, batches):
    """values (points, batches, ...): measure(before, after, prompts) at every snapshot of a path
    (points, 2, *params.shape) on the first evaluation batches; NaN where the run had diverged."""
    evaluation = [evaluation_batch(setting, k) for k in range(batches)]
    alive = np.isfinite(path).reshape(len(path), -1).all(axis=1)
    finite = np.where(np.isfinite(path), path, 0)  # so that nothing raises; NaN again below
    values = np.array([[measure(before, after, prompts) for prompts in evaluation]
                       for before, after in finite], float)
    values[~alive] = np.nan
    return dict(values=values)


def evaluation_prompts(setting, k):
    """Evaluation batch k, of 1,000 prompts: the same for every run and seed."""
    return data.sample_prompts(generator([2310, k]), 1000, **setting.data)


def evaluation_batch(setting, k):
    """The same, for linear attention in Gram form."""
    prompts = evaluation_prompts(setting, k)
    return linattn.compress(prompts) if setting.activation == "linear" else prompts


def loss_at(before, _, prompts):
    """The loss of linear attention before the step."""
    return linattn.loss_and_grad(before, prompts)[0]


def squared_errors(before, _, prompts):
    """Of every prompt, (1000,), for linear attention."""
    return (linattn.predict(before, prompts) - prompts.target) ** 2


def gradient_norm(before, _, prompts):
    """Euclidean norm of the whole gradient."""
    return np.linalg.norm(linattn.loss_and_grad(before, prompts)[1])


def smoothness(before, after, prompts):
    """Directional smoothness v^T H v, v the direction of the step; NaN if there was none."""
    if (after == before).all():
        return np.nan
    return linattn.curvature(before, after - before, prompts, loss_of(before))


CLIPPED = "as it is", "clipped at 0.9", "clipped at 0.5", "sign"


def clipped_smoothness(before, after, prompts):
    """v^T H v (2, 4) for two directions at one point, the gradient on these prompts and the step,
    each as it is, with its coordinates limited to the quantiles 0.9 and 0.5 of their absolute
    values (of those that are not 0), and with all limited to the same, which is its sign; NaN if
    there was no step."""
    grad = linattn.loss_and_grad(before, prompts)[1]
    found = np.full((2, len(CLIPPED)), np.nan)
    for i, direction in enumerate((grad, after - before)):
        if direction.any():
            limits = np.quantile(np.abs(direction[direction != 0]), (0.9, 0.5))
            kinds = direction, *(np.clip(direction, -c, c) for c in limits), np.sign(direction)
            found[i] = [linattn.curvature(before, v, prompts) for v in kinds]
    return found


def spectral_norm(before, _, prompts):
    """Largest |eigenvalue| of the Hessian."""
    return np.abs(np.linalg.eigvalsh(linattn.hessian(before, prompts))).max()


def sharpness(before, _, prompts):
    """Largest eigenvalue of the Hessian."""
    return np.linalg.eigvalsh(linattn.hessian(before, prompts))[-1]


def diagonal(before, _, prompts):
    """The Hessian's diagonal, (params.size,)."""
    if before.ndim == 1:
        return linattn.mlp_hessian_diagonal(before, prompts)
    return linattn.hessian_diagonal(before, prompts).ravel()


def condition(before, after, prompts):
    """R_med of the loss at the point before the step."""
    return r_med(diagonal(before, after, prompts))


def r_med(diagonals):
    """The robust condition number max |H_ii| / median |H_ii| over the last axis; the zeros of the
    last P, which is not trained, count in the median, as in the paper."""
    return np.abs(diagonals).max(axis=-1) / np.median(np.abs(diagonals), axis=-1)


def block_spectra(before, _, prompts):
    """Absolute eigenvalues (blocks, d^2), ascending, of the Hessian's blocks P_1, Q_1, P_2, ..."""
    blocks, size = 2 * len(before), before[0, 0].size
    H = linattn.hessian(before, prompts).reshape(blocks, size, blocks, size)
    return np.sort(np.abs([np.linalg.eigvalsh(H[b, :, b]) for b in range(blocks)]))


def loss_of(params):
    """The function (params, prompts) -> (loss, gradient); the params of the MLP are flat."""
    return linattn.mlp_loss_and_grad if params.ndim == 1 else linattn.loss_and_grad


def noise(setting, seed, draws):
    """Gradient noise at initialisation, g_batch - g_big, where g_big is the mean gradient of 100
    batches. Returns norms (draws,), and what they are to be compared with: null (20, draws), the
    norms of twenty samples of as many Gaussian vectors with the noise's own mean and covariance.

    In the eigenvectors of the covariance such a vector has independent entries, of the eigenvalues
    as variances; and its norm is the same. The singular values of the centred draws give both.
    """
    weights, batches = streams(seed)
    params, gradient = initial(setting, weights), gradient_of(setting)

    def one():
        return gradient(params, draw(batches, setting))[1].ravel()

    big = sum(one() for _ in range(100)) / 100
    noises = np.array([one() - big for _ in range(draws)])  # (draws, params.size)
    mean = noises.mean(axis=0)
    _, singular, directions = np.linalg.svd(noises - mean, full_matrices=False)
    std = singular / np.sqrt(max(1, draws - 1))
    along, rng = directions @ mean, generator([2310, seed])
    off = max(0, np.sum(mean**2) - np.sum(along**2))  # of the mean, where nothing varies
    null = [np.sqrt(off + sum(
        (m + s * rng.standard_normal(draws)) ** 2 for m, s in zip(along, std))) for _ in range(20)]
    return dict(norms=np.linalg.norm(noises, axis=1), null=null)


def moment(values, order):
    """Standardised central moment over the last axis: 3 is skewness, 4 is kurtosis."""
    centred = values - values.mean(axis=-1, keepdims=True)
    scaled = centred / values.std(axis=-1, keepdims=True)  # before the power, which overflows
    return (scaled**order).mean(axis=-1)


@np.errstate(all="ignore")  # it may overflow
def layer_gradients(setting, seed):
    """Norms of the gradient at initialisation in the first and in the last layer: first_last
    (2,)."""
    params = initial(setting, streams(seed)[0])
    grad = linattn.loss_and_grad(params, evaluation_batch(setting, seed))[1]
    return dict(first_last=np.linalg.norm(grad.reshape(len(grad), -1), axis=1)[[0, -1]])


def descent(setting, kind):
    """The least loss of layers that are multiples of the identity, P_l = g_l I and Q_l = c_l I.

    kind "one size": L steps of gradient descent, all of one size (one c for all layers, g = 0);
    "L sizes": a c for each layer; "P = g I": a g for each, too (except for the last P, which has
    no gradient). Newton's method from eight starts on one evaluation batch. Returns the multiples
    (layers, 2) of the best one, its slope, the norm of its gradient, least, its loss there, and
    loss, the median of its losses on twenty other batches.
    """
    L, fitted = setting.layers, evaluation_batch(setting, 100)
    unit = np.eye(2 * L)  # of the numbers (g_1, c_1, g_2, c_2, ...)
    g, c = unit[:, 0::2], unit[:, 1::2]
    free = {"one size": c.sum(axis=1, keepdims=True), "L sizes": c,
            "P = g I": np.hstack([g[:, :-1], c])}[kind]  # columns: the directions that may change

    def matrices(point):
        return (free @ point).reshape(L, 2, 1, 1) * np.eye(setting.data["d"])

    def along(array):  # of derivatives with respect to all entries, those along the free directions
        return free.T @ np.trace(array, axis1=2, axis2=3).ravel()

    def loss_and_slope(point):
        loss, grad = linattn.loss_and_grad(matrices(point), fitted)
        return loss, along(grad)

    def hessian(point):
        return np.array([along(linattn.hessian_vector_product(matrices(point), matrices(e), fitted))
                         for e in np.eye(len(point))])

    def start(rng):
        """Sizes c that grow from layer to layer, from 0.1 to 10, and g that fall, from 1 to 0.3."""
        falling, growing = -np.sort(-rng.uniform(0.3, 1, L)), np.sort(10 ** rng.uniform(-1, 1, L))
        point = np.stack([falling, -growing], axis=1).ravel()  # Q_l = c_l I with c_l = -size
        return free.T @ point / (free**2).sum(axis=0)

    ends = [newton(loss_and_slope, hessian, start(generator(k))) for k in range(8)]
    best = min(ends, key=lambda point: loss_and_slope(point)[0])
    least, slope = loss_and_slope(best)
    loss = np.median([linattn.loss_and_grad(matrices(best), evaluation_batch(setting, k))[0]
                      for k in range(20)])
    return dict(multiples=(free @ best).reshape(L, 2), slope=np.linalg.norm(slope), least=least,
                loss=loss)


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


COST_N = (10, 20, 40, 80, 160)
COST_FORMS = ("softmax", "linear, textbook", "linear, Gram form", "compression")
COST_OTHERS = ("gradient, n = 20, d = 5, L = 3", "gradient, n = 20, d = 5, L = 8",
               "gradient, n = 60, d = 20, L = 8", "compression, n = 60, d = 20",
               "Hessian 150 x 150, n = 20, d = 5, L = 3")


def cost_seconds(seed):
    """Seconds (forms, n) of a gradient, and of COST_OTHERS, each the median of several calls after
    one that is not counted."""
    rng, gradient = np.random.default_rng(seed), linattn.loss_and_grad

    def seconds(calls, n, d, layers, call):
        prompts = data.sample_prompts(rng, 1000, n, d)
        arguments = linattn.init_params(rng, layers, d), prompts, linattn.compress(prompts)
        return np.median(timeit.repeat(lambda: call(*arguments), number=1, repeat=1 + calls)[1:])

    def softmax(params, prompts, _):
        return gradient(params, prompts, "softmax")

    def textbook(params, prompts, _):
        return linattn.textbook_loss_and_grad(params, prompts)

    def gram_form(params, _, gram):
        return gradient(params, gram)

    def compression(_, prompts, __):
        return linattn.compress(prompts)

    def hessian(params, _, gram):
        return linattn.hessian(params, gram)

    forms = (3, softmax), (3, textbook), (101, gram_form), (101, compression)
    return dict(
        forms=[[seconds(calls, n, 5, 3, form) for n in COST_N] for calls, form in forms],
        others=[*(seconds(21, *size, gram_form) for size in ((20, 5, 3), (20, 5, 8), (60, 20, 8))),
                seconds(21, 60, 20, 3, compression), seconds(3, 20, 5, 3, hessian)])


# ---- What an experiment asks for -----------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """What an experiment may spend, and where its results are kept.

    seeds : how many; they are first_seed, first_seed + 1, ... steps : iterations of each training.
    optimizers : classes with a constructor that takes lr and a method step(params, grad) -> params;
        the first is the one to compare with.
    lr : {optimizer's name: rate}, in place of the setting's.
    out : folder; finished tasks are kept in its folder runs.
    pool : a concurrent.futures.Executor to use instead of processes of our own.

    Raises ValueError, naming the argument, for anything else.
    """

    seeds: int = 4
    steps: int = 1000
    optimizers: tuple = (optimizers.SGD, optimizers.Adam)
    lr: dict = None
    out: str = "results"
    pool: object = None
    first_seed: int = 0

    def __post_init__(self):
        check(self)

    @property
    def names(self):
        return [each.__name__ for each in self.optimizers]

    @property
    def numbers(self):
        """The seeds themselves."""
        return range(self.first_seed, self.first_seed + self.seeds)

    def spend(self, **changes):
        """The same with other seeds, steps, ...; rates of optimizers that are left out go, too."""
        if self.lr and "optimizers" in changes:
            names = [each.__name__ for each in changes["optimizers"]]
            kept = {name: rate for name, rate in self.lr.items() if name in names}
            changes = dict(lr=kept) | changes
        return replace(self, **changes)

    def rate(self, setting, name):
        """Learning rate of the optimizer of this name: the run's, or else the setting's."""
        rate = (self.lr or {}).get(name, setting.lr.get(name))
        if rate is None:
            raise Mistake(f"lr: got none for {name} in {setting.name}, wants one, as --lr "
                          f"{name}=RATE")
        return rate

    def train(self, settings, every=50, **arguments):
        """Train every optimizer, on every seed, in every setting of a dict {name: setting}.

        Returns {name: {optimizer's name: what `train` gives, the first axis the seeds}}; further
        arguments, such as weight_decay, go to every optimizer.
        """
        tasks = [(setting, (optimizer, dict(arguments, lr=self.rate(setting, optimizer.__name__))),
                  seed, self.steps, every)
                 for setting in settings.values() for optimizer in self.optimizers
                 for seed in self.numbers]
        results = iter(train_all(tasks, self.pool, self.out))  # in the order of the tasks
        return {name: {each: stack(results, self.seeds) for each in self.names}
                for name in settings}

    def tune(self, settings, grid, every=50, **arguments):
        """The same at each rate of grid(setting, optimizer's name): {name: {optimizer: Tried}}."""
        rates = {name: {each: [float(rate) for rate in grid(setting, each)] for each in self.names}
                 for name, setting in settings.items()}
        tasks = [(setting, (optimizer, dict(arguments, lr=rate)), seed, self.steps, every)
                 for name, setting in settings.items() for optimizer in self.optimizers
                 for rate in rates[name][optimizer.__name__] for seed in self.numbers]
        results = iter(train_all(tasks, self.pool, self.out))  # in the order of the tasks
        return {name: {each: Tried(np.array(grid), [stack(results, self.seeds) for _ in grid])
                       for each, grid in grids.items()}
                for name, grids in rates.items()}

    def along(self, measure, setting, trained, at, batches=1):
        """{optimizer's name: (seeds, points, batches, ...)}: measure(before, after, prompts) for
        the snapshots number `at` of what `train` gave in a setting, on evaluation batches."""
        tasks = [(measure, setting, path[at], batches)
                 for each in self.names for path in trained[each]["snapshots"]]
        values = iter([result["values"] for result in self.all(evaluate, tasks)])
        return {each: np.array([next(values) for _ in range(self.seeds)]) for each in self.names}

    def all(self, function, tasks, keep=True):
        """[function(*task), a dict of arrays, for every task]"""
        return run_all(function, tasks, self.pool, self.out, keep)


class Tried(NamedTuple):
    """One optimizer in one setting at several rates."""

    rates: np.ndarray  # (rates,)
    runs: list  # at each rate what `train` gives, the first axis the seeds

    @property
    def loss(self):
        """(rates, seeds, steps)"""
        return np.array([each["loss"] for each in self.runs])

    @property
    def best(self):
        """Number of the rate with the lowest mean log final loss at which no run diverged; 0 if one
        did at every rate."""
        return level(self.loss).argmin()

    @property
    def at_best(self):
        """The runs at that rate."""
        return self.runs[self.best]


def final_loss(loss):
    """The median over the last tenth of the last axis, the steps; NaN if the run diverged."""
    return np.median(last_tenth(loss), axis=-1)


def last_tenth(series):
    return series[..., -max(1, series.shape[-1] // 10) :]


def level(loss):
    """Mean over seeds of the log final loss of losses (..., seeds, steps): -inf if one is 0,
    infinite if one diverged."""
    final = final_loss(loss)
    with np.errstate(all="ignore"):
        return np.where(np.isfinite(final).all(axis=-1), np.log(final).mean(axis=-1), np.inf)


def stack(results, count):
    """A dict of arrays from the next `count` results: a new first axis."""
    some = list(itertools.islice(results, count))
    return {name: np.array([each[name] for each in some]) for name in some[0]}


# ---- Many tasks, kept on disk --------------------------------------------------------------------


class RunFailed(Exception):
    """Some tasks could not be done; what is finished is on disk."""


class SourceChanged(RunFailed):
    """A worker has read other code than this process."""


class Mistake(ValueError):
    """Of the user's: the command line tells it in one line."""


def run_all(function, tasks, pool=None, out="results", keep=True):
    """[function(*task), a dict of arrays, for every task]: read back if it was done before, else
    computed and kept at once in out/runs. Raises RunFailed, naming them, if some failed."""
    return complete(alone, function, tasks, range(len(tasks)), pool, out, keep)


def train_all(tasks, pool=None, out="results"):
    """[train(...) for every task (setting, contestant, seed, steps, every)], arrays without their
    first axis. Those that differ in the contestant alone are trained side by side."""
    groups = [repr(canonical((setting, *rest))) for setting, _, *rest in tasks]
    return complete(side_by_side, train, tasks, groups, pool, out)


def alone(function, tasks):
    return [function(*task) for task in tasks]


def side_by_side(function, tasks):
    setting, _, *rest = tasks[0]
    together = function(setting, [contestant for _, contestant, *_ in tasks], *rest)
    return [{name: values[i] for name, values in together.items()} for i in range(len(tasks))]


def complete(how, function, tasks, groups, pool, out, keep=True):
    """The results of all tasks. What is missing on disk is computed, equal tasks once, and those
    of one group in one call how(function, tasks)."""
    here = runs_here(function, tasks)
    keep = keep and not here
    keys = [key_of(function, task) if keep else str(i) for i, task in enumerate(tasks)]
    results = {key: load(file_of(out, function, key), key) if keep else None for key in keys}
    missing = {key: (group, task) for key, group, task in zip(keys, groups, tasks)
               if results[key] is None}
    calls = {}  # {group: {key: task}}
    for key, (group, task) in missing.items():
        calls.setdefault(group, {})[key] = task
    if keep and CODE != {name: code_of(name) for name in CODE}:
        raise SourceChanged(CHANGED)
    done, began = set(), time.monotonic()

    def receive(call, found):
        """Keep the results of a call's tasks; a text instead of one says what failed."""
        for (key, task), result in zip(call.items(), found):
            results[key] = result
            if keep and not isinstance(result, str):
                write(file_of(out, function, key), lambda file: np.savez(file, key=key, **result))
        done.update(call)
        progress(len(done), len(missing), began)

    compute(how, function, list(calls.values()), receive,
            None if here else pool or own_workers(os.getpid()))
    failed = {f"{describe(function, task)}: {results[key]}": None
              for key, task in zip(keys, tasks) if isinstance(results[key], str)}
    if failed:
        raise RunFailed("\n".join(failed))
    return [results[key] for key in keys]


def compute(how, function, calls, receive, pool):
    """receive(call, results) for every call {key: task}, as they are done. Without a pool all is
    done in this process.

    A worker that dies takes its pool with it: what that left undone is done again, one task after
    another, so that the one that kills its worker is known, and fails alone.
    """
    if pool is None:
        for call in calls:
            receive(call, attempt(how, function, list(call.values())))
        return
    left = {key: task for call in calls for key, task in call.items()}
    futures = {}  # {future: its call} of what is under way

    def submit_and_collect(calls):
        """Have these calls computed by the pool, and receive what it gives before it breaks."""
        with contextlib.suppress(BrokenExecutor):
            for call in calls:
                tasks = list(call.values())
                codes = codes_of((how, function, tasks))
                futures[pool.submit(work, codes, how, function, tasks)] = call
        collect(list(futures))

    def collect(some):
        """Receive the results of some futures, as they are done."""
        for future in as_completed(some):
            call, error = futures[future], future.exception()
            if isinstance(error, SourceChanged):
                raise error
            if not isinstance(error, BrokenExecutor):  # what a broken pool leaves stays in `left`
                # an error here is one of sending to or fro: `attempt` catches the task's own
                receive(call, [str(error)] * len(call) if error else future.result())
                for key in call:
                    del left[key]
            del futures[future]

    try:
        submit_and_collect(calls)
        for key, task in list(left.items()):
            submit_and_collect([{key: task}])
        for key, task in left.items():
            receive({key: task}, ["its worker process died"])
    except BaseException as error:  # Ctrl-C, a full disk: do not wait for what is under way
        finished = [future for future in futures if future.done()]
        if isinstance(pool, Workers):
            pool.stop()
        else:
            for future in futures:
                future.cancel()
        if isinstance(error, KeyboardInterrupt):
            collect(finished)
        raise


def work(codes, how, function, tasks):
    """In a worker: the results, if it has read the code that the caller has."""
    if codes_of((how, function, tasks)) != codes:
        raise SourceChanged(CHANGED)
    return attempt(how, function, tasks)


def attempt(how, function, tasks):
    """The results, or a text instead of each that failed; if one of several tasks fails, each
    is done alone, so that it fails alone."""
    try:
        return how(function, tasks)
    except Exception as error:
        if len(tasks) > 1:
            return [attempt(how, function, [task])[0] for task in tasks]
        *_, place = traceback.extract_tb(error.__traceback__)
        where = f"{Path(place.filename).name}, line {place.lineno}"
        return [f"{type(error).__name__}: {error} ({where})"]


def describe(function, task):
    """A task in words, for messages."""
    words = [part.name for part in task if isinstance(part, Setting)]
    if function.__name__ == "train":
        _, (optimizer, arguments), seed, *_ = task
        words = [f"{optimizer.__name__} (lr {arguments['lr']:g})", *words, f"seed {seed}"]
    return ", ".join(words) or function.__name__


# The key of a kept result is a hash of the function, its arguments, numpy's version and the code
# behind them: of linattn, data, optimizers and this module, and of the modules of the reader's own
# functions and optimizers; not of what these import in their turn.


def key_of(function, task):
    call = function, *task
    about = canonical(call), np.__version__, sorted(codes_of(call).items())
    return hashlib.sha256(repr(about).encode()).hexdigest()


def canonical(part):
    """A description that is equal for equal arguments: nested tuples of texts and numbers."""
    if isinstance(part, Setting):  # its name and rates decide nothing: a contestant has its own
        part = tuple(part._replace(name="", lr={}))
    if part is None or isinstance(part, (str, bool, np.bool_)):
        return repr(part)
    if isinstance(part, numbers.Real):
        return repr(int(part) if part == np.floor(part) and abs(part) < np.inf else float(part))
    if isinstance(part, np.ndarray) and not part.dtype.hasobject:
        return part.dtype.str, part.shape, hashlib.sha256(part.tobytes()).hexdigest()
    if isinstance(part, (list, tuple)):
        return tuple(canonical(each) for each in part)
    if isinstance(part, dict):
        return tuple(sorted((name, canonical(each)) for name, each in part.items()))
    if isinstance(part, functools.partial):
        return canonical((part.func, part.args, part.keywords))
    if is_code(part):
        return f"{part.__module__}.{part.__qualname__}"
    raise TypeError(f"task: got {part!r}, wants numbers, texts, arrays, functions, classes")


def code_in(part):
    """The functions and classes in nested arguments."""
    if isinstance(part, (list, tuple)):
        return [found for each in part for found in code_in(each)]
    if isinstance(part, dict):
        return code_in(list(part.values()))
    if isinstance(part, functools.partial):
        return code_in((part.func, part.args, part.keywords))
    return [part] if is_code(part) else []


def is_code(part):
    """A function or a class; no method, for what its object holds would be in no key."""
    return inspect.isclass(part) or inspect.isroutine(part) and not inspect.ismethod(part)


def codes_of(task):
    """{module: hash} of the code behind a task, as it was when first used."""
    names = {*OURS, *(each.__module__ for each in code_in(task))}
    for name in names - set(CODE):
        CODE[name] = code_of(name)
    return {name: CODE[name] for name in names}


def code_of(name):
    """Hash of a module's syntax tree, without comments and docstrings."""
    source = getattr(sys.modules[name], "__file__", None) or ""
    if not source.endswith(".py"):  # compiled
        return source
    tree = ast.parse(Path(source).read_bytes())
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.FunctionDef, ast.ClassDef)):
            node.body = node.body[ast.get_docstring(node) is not None :]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


CHANGED = "the source has changed since this session began: start it again"
OURS = "linattn", "data", "optimizers", __name__
CODE = {name: code_of(name) for name in OURS}  # and, later, of the reader's modules


def runs_here(function, tasks):
    """Whether tasks must be done in this process, and are not kept: code typed into a notebook or a
    script, or inside a function, cannot be imported by a worker; a daemon cannot have one."""
    ours = [each for name in OURS for each in vars(sys.modules[name]).values()]
    used = [*code_in((function, tasks)), *filter(is_code, ours)]  # ours: one may be replaced
    typed = any(each.__module__ == "__main__" or "<" in each.__qualname__ for each in used)
    return typed or multiprocessing.current_process().daemon


def file_of(out, function, key):
    return Path(out, "runs", f"{function.__name__}-{key[:16]}.npz")


def write(path, save):
    """Write a file as a whole or not at all: save(file) to a temporary one, which is then
    renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    try:
        with open(temporary, "xb") as file:
            save(file)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load(path, key):
    """A kept result, or None; a file that is not what its name says is named."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            result = dict(stored)
        if str(result.pop("key")) != key:
            raise ValueError("it belongs to another configuration")
        return result
    except FileNotFoundError:
        return None
    except Exception as error:  # whatever a damaged file makes of numpy and zipfile
        say(f"{path}: not usable ({error}); computed anew")
        return None


class Workers:
    """Processes of our own, started when they are first needed; an Executor as far as we need one.
    They end with this process, even if that is killed."""

    def __init__(self, jobs=None):
        self.jobs = min(jobs or os.cpu_count() or 1, 61)  # more Windows does not allow
        self.pool = None

    def submit(self, function, *arguments):
        """A Future of function(*arguments), as an Executor's; a broken pool is replaced."""
        if self.pool is None:
            reader, self.leash = SPAWN.Pipe(duplex=False)
            self.pool = ProcessPoolExecutor(self.jobs, SPAWN, follow, (reader,))
            # A multiprocessing.Process waits for its children at its end: they must end before.
            Finalize(None, self.stop, exitpriority=0)
        try:
            with worker_environment():
                return self.pool.submit(function, *arguments)
        except BrokenExecutor:
            self.stop()
            return self.submit(function, *arguments)

    def stop(self):
        """End these processes, and no others, in the middle of what they do."""
        if self.pool is not None:
            self.leash.close()
            self.pool.shutdown(cancel_futures=True)
            self.pool = None


SPAWN = multiprocessing.get_context("spawn")
BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS",
                "VECLIB_MAXIMUM_THREADS")


@functools.cache
def own_workers(_process):
    """One for each core; the same for all calls of a process (a fork cannot use its parent's)."""
    return Workers()


@contextlib.contextmanager
def worker_environment():
    """For the processes that start meanwhile: one BLAS thread, because matrices this small gain
    from no more; and an empty __main__, because a worker needs nothing of the user's script, which
    may then have no `if __name__ == "__main__"` and may come from a notebook or from stdin."""
    main, before = sys.modules["__main__"], {name: os.environ.get(name) for name in BLAS_THREADS}
    try:
        sys.modules["__main__"] = types.ModuleType("__main__")
        os.environ.update(dict.fromkeys(BLAS_THREADS, "1"))
        yield
    finally:
        sys.modules["__main__"] = main
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def follow(leash):
    """In a worker: end when the other end of the pipe is closed, be it by the parent's death; and
    die of Ctrl-C in silence."""
    def wait():
        with contextlib.suppress(EOFError, OSError):
            leash.recv()
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=wait, daemon=True).start()


def progress(done, total, began):
    """Tasks done and the time left, on a terminal only; the last call clears the line."""
    if sys.stderr is None or not sys.stderr.isatty():
        return
    left = (time.monotonic() - began) / done * (total - done)
    text = f"{done} of {total} done, about {left:.0f} s left" if done < total else ""
    print(f"\r{text:<50}", end="" if text else "\r", file=sys.stderr, flush=True)


def say(text):
    if sys.stderr is not None:
        print(f"experiments.py: {text}", file=sys.stderr)


# ---- Checks of arguments -------------------------------------------------------------------------


def check(run):
    """Raises a ValueError that names what is wrong with a run."""
    def require(good, name, wants):
        if not good:
            raise ValueError(f"{name}: got {getattr(run, name)!r}, wants {wants}")

    for name, least in (("seeds", 1), ("steps", 1), ("first_seed", 0)):
        value = getattr(run, name)
        whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        require(whole and least <= value < 10**6, name,
                f"a whole number >= {least} (and below a million)")
    classes = isinstance(run.optimizers, (list, tuple)) and len(run.optimizers) and all(
        inspect.isclass(each) and hasattr(each, "step") for each in run.optimizers)
    require(classes, "optimizers", "a tuple of classes with a method step(params, grad)")
    require(len(set(run.names)) == len(run.names), "optimizers", "each name once")
    rates = run.lr is None or isinstance(run.lr, dict) and set(run.lr) <= set(run.names)
    require(rates and all(isinstance(rate, numbers.Real) and 0 < rate < 1e300
                          for rate in (run.lr or {}).values()),
            "lr", f"a dict from some of {', '.join(run.names)} to numbers > 0")
    require(isinstance(run.out, (str, Path)) and str(run.out), "out", "the name of a folder")
    require(run.pool is None or hasattr(run.pool, "submit"), "pool",
            "a concurrent.futures.Executor")
    for each in run.optimizers:
        try:
            each(lr=(run.lr or {}).get(each.__name__, 0.01))
        except Exception as error:
            raise ValueError(f"optimizers: got {each.__name__}, wants a class whose constructor "
                             f"takes lr ({error})") from None
