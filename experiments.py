"""Every phenomenon as one function: `python experiments.py NAME` measures, draws and judges it.

    budget      how much to spend: seeds, steps, optimizers, learning rates, processes
    setting     data, learning rates, clip limit, depth: the paper's rows, and ours
    run         one training: a setting, an optimizer, a learning rate, a seed
    finding     what was claimed, what was measured, and the verdict that the numbers give

From the top: training, results on disk, statistics, drawing, the experiments (the paper's claims C1
to C12 and open questions), the command line. The default budgets are a first look; most
claims need --full for a verdict. Source: Ahn et al., ICLR 2024, arXiv 2310.01082.
"""

import argparse
import ast
import contextlib
import functools
import hashlib
import inspect
import itertools
import json
import multiprocessing
import os
import pickle
import platform
import re
import signal
import statistics
import sys
import tempfile
import textwrap
import threading
import time
import timeit
import warnings
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.text import Text

import data
import linattn
import optimizers
from data import (DEEP, LARGE, LIGHT_TAILS, NONLINEAR, NONLINEAR_TASK, SETTING_1, SETTING_2,
                  SETTING_3, SPHERICAL, Setting)


class Budget(NamedTuple):
    """What an experiment may spend. lr maps an optimizer's name to the rate that replaces its
    own."""

    seeds: int = 4
    steps: int = 1000
    optimizers: tuple = ("SGD", "Adam")
    lr: dict = {}
    jobs: int = os.cpu_count() or 1
    out: str = "results"
    executor: object = None  # a concurrent.futures.Executor to use instead of processes of our own


PAPER_SETTINGS = (SETTING_1, SETTING_2, SETTING_3)
QUICK = dict(seeds=2, steps=100)
FULL = dict(seeds=6, steps=10_000)  # the paper's protocol


# ---- Training ------------------------------------------------------------------------------------


class Run(NamedTuple):
    """One training. Runs that differ in optimizer, rate, clipping and weight decay alone see the
    same weights and batches."""

    setting: Setting
    optimizer: str
    lr: float
    seed: int
    steps: int
    every: int = 50  # steps between two snapshots

    def __str__(self):
        return f"{self.optimizer} (lr {self.lr:g}), {self.setting.name}, seed {self.seed}"


FIELDS = ("loss", "grad_norm", "clipped", "diverged", "snapshots")  # what is kept of a run


def train(runs):
    """Train runs that share weights and batches, each batch drawn once for all of them.

    Deep models overflow on a rare prompt (a polynomial of degree 3^L): such a step, whose loss or
    gradient is not finite, moves nothing, and counts as a loss of infinity. A run has diverged when
    this happened, or the loss was above 1,000 times the first one, 20 steps in a row; or at once
    where the optimizer returns parameters that are not finite.

    Returns one dict a run: loss and grad_norm (steps,), both taken before the step, the norm before
    clipping, and NaN from the step at which the run diverged; clipped (steps,), whether clipping
    changed the gradient; diverged, that step, or -1; and snapshots (count, 2, *params.shape), the
    params before and after steps 0, every, 2 every, ... If the optimizer raised an exception, the
    dict has its text as "error" and no more. As no batch is seen twice (unless setting.fixed), the
    training loss of a batch is an unbiased test loss.
    """
    setting, _, _, seed, steps, every = runs[0]
    init, stream = streams(seed)
    start, gradient = initial(setting, init), gradient_of(setting)
    results = going = [dict(
        run=run, params=start, loss=np.full(steps, np.nan), grad_norm=np.full(steps, np.nan),
        lost=0, diverged=-1, clipped=np.zeros(steps, bool),
        snapshots=np.full((-(-steps // every), 2, *start.shape), np.nan)) for run in runs]
    with np.errstate(all="ignore"):  # a diverging run is reported, not warned about
        for t in range(steps):
            if t == 0 or not setting.fixed:
                prompts = draw_prompts(stream, setting)
            for result in going:
                try:
                    advance(result, t, *gradient(result["params"], prompts))
                except Exception as error:  # in an optimizer of the reader's
                    result["error"] = f"{type(error).__name__}: {error}"
            going = [each for each in going if each["diverged"] < 0 and "error" not in each]
    return [{key: result[key] for key in ("error", *FIELDS) if key in result} for result in results]


def advance(result, t, loss, grad):
    """Step t of one run: record what was measured, then let the optimizer move the parameters."""
    run, params, norm = result["run"], result["params"], np.linalg.norm(grad)
    if t == 0:
        decay = dict(weight_decay=run.setting.weight_decay) if run.setting.weight_decay else {}
        result["step"] = optimizers.by_name(run.optimizer)(run.lr, **decay).step
    finite = np.isfinite(loss + norm)
    result["loss"][t], result["grad_norm"][t] = (loss, norm) if finite else (np.inf, np.inf)
    lost = not finite or loss > 1000 * result["loss"][0]
    result["lost"] = result["lost"] + 1 if lost else 0
    if result["lost"] == 20:
        result["diverged"], result["loss"][t], result["grad_norm"][t] = t, np.nan, np.nan
        return
    after = params
    if finite:
        clipped = clip(grad, run.setting)
        result["clipped"][t] = not np.array_equal(clipped, grad)
        after = np.asarray(result["step"](params.copy(), clipped), float)
        if after.shape != params.shape:
            raise ValueError(f"step returned shape {after.shape}, wants {params.shape}")
    if t % run.every == 0:
        result["snapshots"][t // run.every] = params, after
    if np.isfinite(after).all():
        result["params"] = after
    elif t + 1 < len(result["loss"]):
        result["diverged"] = t + 1


def clip(grad, setting):
    """By the global norm, or coordinate by coordinate at a limit that bounds the norm alike."""
    if setting.clipping == "global":
        return optimizers.clip_global_norm(grad, setting.clip)
    if setting.clipping == "coordinates":
        return optimizers.clip_coordinates(grad, setting.clip / np.sqrt(grad.size))
    return grad.copy()


def streams(seed):
    """Two generators: for the initial weights, and for the batches. SFC64 draws normals in 5/6
    of the time of numpy's default."""
    return [generator(each) for each in np.random.SeedSequence(seed).spawn(2)]


def generator(seed):
    return np.random.Generator(np.random.SFC64(seed))


def initial(setting, rng):
    """Initial parameters: the attention layers', for the MLP in front of them a flat array of
    all."""
    if setting.activation == "mlp":
        return linattn.init_mlp_params(rng, setting.layers, setting.data["d"], std=setting.std)
    return linattn.init_params(rng, setting.layers, setting.data["d"], setting.std, setting.full)


def gradient_of(setting):
    """The function (params, prompts) -> (loss, gradient)."""
    if setting.activation == "mlp":
        return functools.partial(linattn.mlp_loss_and_grad, layers=setting.layers)
    return functools.partial(linattn.loss_and_grad, activation=setting.activation)


def draw_prompts(stream, setting):
    """A fresh batch, for linear attention in Gram form."""
    prompts = data.sample_prompts(stream, setting.batch, **setting.data)
    return linattn.compress(prompts) if setting.activation == "linear" else prompts


def learning_rate(setting, optimizer, budget):
    """The budget's rate for an optimizer, else the setting's."""
    rate = budget.lr.get(optimizer, setting.lr.get(optimizer))
    if rate is None:
        raise Mistake(f"lr: got none for {optimizer} in {setting.name}, wants one, as --lr "
                      f"{optimizer}=RATE")
    return rate


def train_all(settings, budget, every=50):
    """What `train` returns for every optimizer and seed in every setting: its arrays (settings,
    optimizers, seeds, ...)."""
    runs = [Run(setting, name, learning_rate(setting, name, budget), seed, budget.steps, every)
            for setting in settings for name in budget.optimizers for seed in range(budget.seeds)]
    return measure(train, runs, budget, len(settings), len(budget.optimizers), budget.seeds)


def tuned(settings, budget, grid, every=None):
    """Every setting trained at each rate of grid(setting, optimizer), as many for one optimizer as
    for another. Returns the rates (settings, optimizers, rates); loss and diverged of `train_all`,
    (settings, rates, optimizers, seeds, ...); and what it returns at each optimizer's best rate, of
    the lowest geometric mean over seeds of the final loss, among the rates at which no run
    diverged, with that rate as lr (settings, optimizers)."""
    def trained_at(pairs):
        tried = [setting._replace(lr=dict(zip(budget.optimizers, map(float, each))))
                 for setting, each in pairs]
        return train_all(tried, budget._replace(lr={}), every or budget.steps)

    rates = np.array([[grid(setting, name) for name in budget.optimizers] for setting in settings])
    trained = trained_at((setting, each) for setting, of in zip(settings, rates) for each in of.T)
    runs = {key: np.array(np.split(trained[key], len(settings))) for key in ("loss", "diverged")}
    best = level(runs["loss"]).argmin(axis=1)  # (settings, optimizers)
    lr = np.take_along_axis(rates, best[..., None], axis=-1)[..., 0]
    return rates, runs, trained_at(zip(settings, lr)) | dict(lr=lr)  # these are on disk


def level(loss):
    """Mean over seeds of the log final loss of losses (..., seeds, steps); infinite where one
    diverged."""
    final = np.log(final_loss(loss))
    return np.where(np.isfinite(final).all(axis=-1), final.mean(axis=-1), np.inf)


def final_loss(loss):
    """The median over the last tenth of the last axis, the steps."""
    return np.median(last_tenth(loss), axis=-1)


def last_tenth(series):
    return series[..., -max(1, series.shape[-1] // 10) :]


# ---- Results on disk, and in parallel ------------------------------------------------------------


def measure(function, tasks, budget, count, *shape):
    """What function(*task), a dict of arrays, returns for every task: {name: array (count, *shape,
    ...)}, or a list of `count` arrays where their shapes differ, as those of models of different
    depth. `train` takes a list of runs that share their batches instead.

    What was done before is taken from disk, the rest is computed in parallel processes, and each
    result saved as soon as it is there. Raises RunFailed, naming them, if some could not be done.
    """
    keys = [fingerprint(function, task) for task in tasks]
    results = {i: found for i, key in enumerate(keys) if (found := load(key, budget)) is not None}
    groups, failed = {}, []
    for i, task in enumerate(tasks):
        if i not in results:
            groups.setdefault(shared(task) if function is train else i, []).append(i)

    def keep(members, outcome):
        """Store the results of the tasks number `members`."""
        for i, result in zip(members, outcome):
            if "error" in result:
                failed.append(f"{tasks[i]}: {result['error']}")
                continue
            stored = dict(result, fingerprint=keys[i])
            write(file_of(keys[i], budget), lambda file: np.savez(file, **stored))
            results[i] = result

    jobs = [(call, (function, [tasks[i] for i in members]), members) for members in groups.values()]
    for members, error in in_parallel(jobs, keep, budget):
        names = map(str, (tasks[i] for i in members)) if function is train else [function.__name__]
        failed += [f"{name}: {error}" for name in names]
    if failed:
        raise RunFailed("\n".join(failed))
    arrays, size = {}, len(tasks) // count
    for name in results[0]:
        parts = [np.array([results[j][name] for j in range(i, i + size)])
                 for i in range(0, len(tasks), size)]
        parts = [part.reshape((*shape, *part.shape[1:])) for part in parts]
        arrays[name] = np.array(parts) if len({part.shape for part in parts}) == 1 else parts
    return arrays


def call(function, tasks):
    """[the result of each task], in a worker."""
    with np.errstate(all="ignore"):  # a diverging run is reported, not warned about
        return train(tasks) if function is train else [function(*task) for task in tasks]


def bare(setting):
    """What of a setting decides a result, whatever it is called."""
    return setting._replace(name="", lr={})


def shared(run):
    """A key for what runs must have in common to see the same weights and batches."""
    alike = bare(run.setting)._replace(clip=0, clipping="", weight_decay=0)
    return json.dumps(run._replace(setting=alike, optimizer="", lr=0))


def fingerprint(function, task):
    """What a stored result must agree with: its task, the code that computes it, numpy's
    version."""
    code = code_digest((function, *filter(callable, task)), getattr(task, "optimizer", None))
    task = [bare(part) if isinstance(part, Setting) else part for part in task]
    about = dict(function=function.__name__, code=code, task=task, numpy=np.__version__)
    return json.dumps(about, sort_keys=True, default=lambda part: part.__name__ if callable(part)
                      else [part.shape, hashlib.sha256(np.ascontiguousarray(part)).hexdigest()])


@functools.cache
def code_digest(functions, optimizer):
    """Hash of the code behind a result, without comments and docstrings: linattn, and the functions
    and classes that these use, directly or not."""
    trees = [tree_of(linattn)]
    used = [*functions, data.sample_prompts]
    if optimizer is not None:
        used += [*optimizers.by_name(optimizer).__mro__[:-1], optimizers.clip_global_norm,
                 optimizers.clip_coordinates]
    for each in used:
        trees.append(tree_of(each))
        names = {node.id for node in ast.walk(trees[-1]) if isinstance(node, ast.Name)}
        found = [vars(sys.modules[each.__module__]).get(name) for name in sorted(names)]
        used += [part for part in found if part not in used and inspect.isroutine(part)
                 and part.__module__ == each.__module__]
    return hashlib.sha256("".join(map(ast.dump, trees)).encode()).hexdigest()


def tree_of(part):
    """Syntax tree of a module, function or class, without docstrings."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(part)))
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.FunctionDef, ast.ClassDef)):
            node.body = [each for each in node.body if not (
                isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant))]
    return tree


def file_of(key, budget):
    name = hashlib.sha256(key.encode()).hexdigest()[:16]
    return Path(budget.out, "runs", f"{json.loads(key)['function']}-{name}.npz")


def write(path, save):
    """Write a file as a whole or not at all: save(file) to a temporary one, which is then
    renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with open(temporary, "wb") as file:
            save(file)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load(key, budget):
    """A finished result from disk, or None; a file that is not what its name says is named."""
    path = file_of(key, budget)
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as stored:
            result = dict(stored)
        if str(result.pop("fingerprint")) != key:
            raise ValueError("it belongs to another configuration")
        return result
    except Exception as error:  # whatever a damaged file makes of numpy and zipfile
        say(f"{path}: not usable ({error}); computed anew")
        return None


class RunFailed(Exception):
    """Some runs could not be done; what is finished is on disk."""


class Mistake(ValueError):
    """Of the user's: the command line tells it in one line."""


def in_parallel(jobs, keep, budget):
    """keep(label, function(*arguments)) for every (function, arguments, label) of jobs, as they are
    done; returns [(label, error message)].

    A worker that dies takes its pool with it. What the pool left undone is tried once more, each
    in a pool of its own: then the one that dies is known.
    """
    errors, clock = [], time.monotonic()

    def attempt(some):
        """Returns the jobs that the pool left undone."""
        undone = dict(enumerate(some))
        with contextlib.suppress(BrokenExecutor), executor(budget, len(some)) as pool:
            futures = {pool.submit(job[0], *job[1]): i for i, job in enumerate(some)}
            for done, future in enumerate(as_completed(futures), 1):
                error = future.exception()
                if not isinstance(error, BrokenExecutor):
                    label = undone.pop(futures[future])[2]
                    if error is None:
                        keep(label, future.result())
                    else:
                        errors.append((label, f"{type(error).__name__}: {error}"))
                    progress(done, len(some), clock)
        return list(undone.values())

    try:
        for job in attempt(jobs) if jobs else []:
            errors += [(label, "its worker process died") for _, _, label in attempt([job])]
    finally:
        progress(None, len(jobs), clock)
    return errors


@contextlib.contextmanager
def executor(budget, jobs):
    """The budget's executor, or else processes of our own, with one BLAS thread each: matrices this
    small gain from no more."""
    if budget.executor is not None:
        yield budget.executor
        return
    if multiprocessing.current_process().name != "MainProcess":  # imports an unguarded script again
        sys.exit(GUARD)
    spawn = multiprocessing.get_context("spawn")
    try:
        with (mock.patch.dict(os.environ, dict.fromkeys(BLAS_THREADS, "1")),
              ProcessPoolExecutor(min(budget.jobs, jobs), spawn, follow_parent) as pool):
            yield pool
    except BaseException:  # Ctrl-C, a full disk: do not wait for the workers
        for child in multiprocessing.active_children():
            child.terminate()
        raise


BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS",
                "VECLIB_MAXIMUM_THREADS")
GUARD = ("experiments.py: a script that calls an experiment needs `if __name__ == '__main__':` "
         "before the call, for the worker processes import the script")


def follow_parent():
    """In a worker: leave when the parent is gone, even by kill -9, and die of Ctrl-C in silence."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def progress(done, total, start):
    """Tasks done and the time left, on a terminal only; None clears the line."""
    if not sys.stderr.isatty():
        return
    left = (time.monotonic() - start) / (done or 1) * (total - (done or 0))
    text = "" if done is None else f"{done} of {total} done, about {left:.0f} s left"
    print(f"\r{text:<50}", end="\r" if done is None else "", file=sys.stderr, flush=True)


def say(text):
    print(f"experiments.py: {text}", file=sys.stderr)


# ---- Statistics and verdict ----------------------------------------------------------------------


def quantity(values, back=np.asarray, **bounds):
    """What was measured, a value per seed, with its mean and, where there is one, 95 % t interval
    over seeds; and the bound that the claim says it lies above, or below."""
    values, dof = np.asarray(values, float), len(values) - 1
    mean = values.mean() if np.isfinite(values).all() else np.nan
    half = t_quantile(dof) * values.std(ddof=1) / np.sqrt(dof + 1) if dof else np.nan
    mean, *low_high = numbers(back([mean, mean - half, mean + half]))
    return dict(per_seed=numbers(back(values)), mean=mean, interval_95=low_high) | {
        key: value for key, value in bounds.items() if value is not None}


def geometric(values, **bounds):
    """The same with the geometric mean: for ratios, and for what spans decades."""
    return dict(quantity(np.log(values), np.exp, **bounds), per_seed=numbers(values))


def t_quantile(dof):
    """97.5 % point of Student's t: for t = sqrt(dof) tan(phi) its density is cos(phi)^(dof - 1)."""
    phi, width = np.linspace(-np.pi / 2, np.pi / 2, 100_001, retstep=True)
    middle = phi[:-1] + width / 2
    cdf = np.cumsum(np.cos(middle) ** (dof - 1))
    return np.sqrt(dof) * np.tan(np.interp(0.975, cdf / cdf[-1], phi[1:]))


def numbers(values):
    """Floats that JSON can hold: None for NaN and infinity."""
    return [float(value) if np.isfinite(value) else None for value in values]


def judge(measured):
    """The verdict on a claim: what every quantity with a bound says of it."""
    cases = [sign * (np.array(each["interval_95"], float) - each[bound])[::sign]
             for each in measured.values() if not isinstance(each, str)
             for bound, sign in (("above", 1), ("below", -1)) if bound in each]
    if not cases:
        return "measured, nothing claimed"
    low, high = np.transpose(cases)  # of what the claim says is positive; NaN: no such bound
    if (high < 0).any():
        return "not reproduced"
    return "reproduced" if (low > 0).all() else "inconclusive"


def in_words(value):
    """A quantity with its interval; a text as it is."""
    if isinstance(value, str):
        return value
    low, high = value["interval_95"]
    text = "unknown" if value["mean"] is None else f"{value['mean']:.3g}"
    return f"{text}, no interval" if None in (low, high) else f"{text} [{low:.3g}, {high:.3g}]"


def finding(experiment, budget, measured, arrays, paper="", settings=PAPER_SETTINGS, table=(),
            **configuration):
    """What an experiment returns beside its figure. The claim is its docstring's first line;
    paper is what is printed there; measured maps names to quantities and texts; the
    configuration is the budget's and the settings', where the last arguments do not say
    otherwise."""
    claim, claimed = inspect.getdoc(experiment).split("\n")[0].rstrip(".").split(": ", 1)
    verdict, usual = judge(measured), experiment.__defaults__[0].optimizers
    if budget.optimizers != usual and verdict != judge({}):
        verdict = f"not judged: the claim is about {' and '.join(usual)}"
    configuration = dict(
        seeds=budget.seeds, steps=budget.steps, optimizers=budget.optimizers,
        settings=[dict(setting._asdict(), lr=setting.lr | budget.lr) for setting in settings]
    ) | configuration
    versions = dict(python=platform.python_version(), numpy=np.__version__,
                    matplotlib=matplotlib.__version__, machine=platform.machine())
    return dict(claim=claim, claimed=claimed, paper=paper, verdict=verdict,
                lines=[f"{name}: {in_words(value)}" for name, value in measured.items()],
                measured=measured, configuration=configuration, versions=versions,
                table=list(table), arrays=arrays)


# ---- Drawing -------------------------------------------------------------------------------------

COLOURS = ("#E69F00", "#0072B2", "#009E73", "#CC79A7", "#000000")  # told apart in grey as well,
DASHES = ("--", "-", ":", "-.", (0, (1, 1)))  # by the line style at the latest
STYLE = {
    "font.size": 15,
    "axes.titlesize": 14,
    "xtick.labelsize": 13,
    "ytick.labelsize": 13,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "lines.linewidth": 2.5,
    "legend.frameon": False,
    "axes.formatter.min_exponent": 4,  # 0.001 rather than 10^-3
    "pdf.fonttype": 42,
    "svg.hashsalt": "linattn",
}


def panels(columns, rows, caption, below=None):
    """Figure and axes (rows, columns) in the shape of a slide: titles above, and above the second
    row if it has others; y labels at the left."""
    figure = Figure(figsize=(13.33, 7.5), layout="constrained")
    axes = figure.subplots(len(rows), len(columns), squeeze=False)
    for (i, j), ax in np.ndenumerate(axes):
        ax.set(title=below[j] if i and below else columns[j], ylabel=rows[i])
        ax.title.set_visible(i == 0 or bool(below))
        ax.yaxis.label.set_visible(j == 0)
    whole = re.sub(r"\$.*?\$", lambda formula: formula[0].replace(" ", ""), caption)
    figure.supxlabel(textwrap.fill(whole, 150), fontsize=12, color="#333333", x=0.01, ha="left")
    return figure, axes


def grid(columns, rows, caption, fontsize=None):
    """A figure of rows [(y label, draw(ax, number of the column))], with a legend in every panel
    that names what was not named before."""
    figure, axes = panels(columns, [label for label, _ in rows], caption)
    known = set()
    for (i, j), ax in np.ndenumerate(axes):
        rows[i][1](ax, j)
        if ax.get_yscale() == "log" and ax.get_ylim()[0] <= 0:  # every run diverged: an empty panel
            ax.set_ylim(1, 10)
        names = set(ax.get_legend_handles_labels()[1])
        if names - known:
            ax.legend(fontsize=fontsize)
        known |= names
    return figure


def bands(budget, what="line", batch=1000):
    """For captions: what is drawn of the seeds, and how long they ran."""
    return (f"{what[0].upper()}{what[1:]}: median of {budget.seeds} seeds; band: smallest to "
            f"largest. {budget.steps:,} steps, each on {batch:,} fresh prompts. X: diverged.")


def style(position):
    """Colour and dashes of the optimizer at this position."""
    return dict(color=COLOURS[position % 5], ls=DASHES[position % 5])


def draw_bands(ax, x, series, names, first=0, **axes):
    """Series (optimizers, seeds, points): median and range over seeds; X: where one diverged."""
    for position, (name, values) in enumerate(zip(names, series), first):
        alive = np.isfinite(values)
        shown = alive.any(axis=0)
        finite = np.where(alive, values, np.nan)[:, shown]
        low, middle, high = np.nanquantile(finite, (0, 0.5, 1), axis=0) if shown.any() else [[]] * 3
        ax.fill_between(x[shown], low, high, color=style(position)["color"], alpha=0.25, lw=0)
        ax.plot(x[shown], middle, label=name, **style(position))
        for each in values[alive[:, 0] & ~alive[:, -1]]:
            last = np.flatnonzero(np.isfinite(each))[-1]
            ax.plot(x[last], each[last], "X", color=style(position)["color"], ms=10)
    ax.set(**axes)


def draw_losses(ax, series, names, mean=False):
    """Series (optimizers, seeds, steps) on a log scale as running medians; on request the running
    mean over all seeds, a thin line that may leave the frame."""
    x, median = in_blocks(series, np.median)
    draw_bands(ax, x, median, names)
    ax.set_yscale("log")
    limits = ax.get_ylim()
    if mean:
        for position, values in enumerate(in_blocks(series, np.mean)[1].mean(axis=1)):
            ax.plot(x, values, lw=0.8, alpha=0.7, color=style(position)["color"])
    ax.set(ylim=limits, xlabel="iteration")


def in_blocks(series, function):
    """Centres of 50 equal parts of the last axis (steps), and function of each part."""
    edges = np.linspace(0, series.shape[-1], min(50, series.shape[-1]) + 1).astype(int)
    parts = [function(series[..., a:b], axis=-1) for a, b in zip(edges[:-1], edges[1:])]
    return (edges[:-1] + edges[1:] - 1) / 2, np.stack(parts, axis=-1)


def draw_density(ax, values, quantile=0.999):
    """Histogram up to a quantile; dashed, the Gaussian of the same mean and variance."""
    mean, std, right = values.mean(), values.std(), np.quantile(values, quantile)
    ax.hist(values, np.linspace(values.min(), right, 60), density=True, color=COLOURS[1], alpha=0.6)
    left = mean - 4 * std
    x = np.linspace(max(0, left) if values.min() >= 0 else left, right, 300)
    density = np.exp(-(((x - mean) / std) ** 2) / 2) / (std * np.sqrt(2 * np.pi))
    ax.plot(x, density, "--", color="#000000")
    ax.set(xlabel="noise norm")


def draw_quantiles(ax, values):
    """Sorted values against the quantiles of the normal distribution; dashed as above."""
    normal, count = statistics.NormalDist(), len(values)
    ranks = np.geomspace(1, count, 400).astype(int)
    ranks = np.unique([ranks - 1, count - ranks])
    theory = np.array([normal.inv_cdf((rank + 0.5) / count) for rank in ranks])
    ax.plot(theory, values[ranks], "o", ms=4, color=COLOURS[1])
    ax.plot(theory, values.mean() + values.std() * theory, "--", color="#000000")
    ax.set(xlabel="normal quantile")


def draw_smoothness(ax, x, series, names):
    """Bands on a logarithmic scale for both signs, linear around 0, so that negative values
    show."""
    draw_bands(ax, x, series, names, xlabel="iteration")
    size = np.abs(series[np.isfinite(series) & (series != 0)])
    if size.size:
        linear = 10 ** np.floor(np.log10(np.median(size)))
        ax.set_yscale("symlog", linthresh=linear)
        decades = np.arange(np.log10(linear), np.log10(size.max()) + 1)
        ticks = 10.0 ** decades[:: 1 + len(decades) // 4]
        ax.set(yticks=[*-ticks[::-1], 0, *ticks], ylim=ax.get_ylim())
    draw_level(ax, 0, "-")


def draw_level(ax, y, dashes=":"):
    ax.axhline(y, color="#000000", ls=dashes, lw=1)


def draw_dots(ax, x, values, color=COLOURS[3]):
    """Values (groups, dots) at x = 0, 1, ... or as given: every dot, and a bar at their median."""
    for at, dots in zip(x, values):
        ax.plot(at + np.linspace(-0.15, 0.15, len(dots)), dots, "o", ms=4, alpha=0.5, color=color)
        ax.plot(at, np.median(dots), "_", ms=26, mew=3, color=color)


def draw_map(ax, values, rows, columns, xlabel):
    """A matrix as a picture on a log scale, each number written into its cell."""
    ax.imshow(np.log(values), cmap="cividis", aspect="auto")
    middle = np.log(values).min() / 2 + np.log(values).max() / 2
    for (i, j), value in np.ndenumerate(values):
        ax.text(j, i, f"{value:.3g}", ha="center", va="center", fontsize=16,
                color="white" if np.log(value) < middle else "black")
    ax.set_xticks(range(len(columns)), columns)
    ax.set_yticks(range(len(rows)), rows)
    ax.set(xlabel=xlabel)
    ax.grid(False)


EXPERIMENTS = {}  # filled below, in the order of the source


def experiment(function):
    """Enter a function into EXPERIMENTS; check its budget before, draw in our style. What cannot be
    computed is told by the finding, not by NumPy's warnings."""

    @functools.wraps(function)
    def checked(budget=function.__defaults__[0]):
        budget = check(budget)
        with (matplotlib.rc_context(STYLE),
              warnings.catch_warnings(action="ignore", category=RuntimeWarning)):
            return function(budget)

    EXPERIMENTS[function.__name__] = checked
    return checked


# ---- The paper's claims --------------------------------------------------------------------------


@experiment
def adam_vs_sgd(budget=Budget()):
    """C1: Adam beats SGD in Settings 1, 2 and 3.

    Figure 1 of the paper. Three layers, SGD and Adam with momentum 0.9 from the same weights on the
    same batches, gradient norm clipped at 1. Measured: the median training loss over the last tenth
    of the steps, and SGD's over Adam's, per seed. Claimed: a ratio above 1.
    """
    trained, measured = train_all(PAPER_SETTINGS, budget), {}
    for setting, *runs in zip(PAPER_SETTINGS, trained["loss"], trained["diverged"]):
        measured |= final_losses(short(setting), *runs, budget.optimizers, above=1)
    figure = grid(
        [f"{setting.name} (n = {setting.data['n']})" for setting in PAPER_SETTINGS],
        [("training loss",
          lambda ax, j: draw_losses(ax, trained["loss"][j], budget.optimizers, mean=True)),
         ("gradient norm",
          lambda ax, j: draw_losses(ax, trained["grad_norm"][j], budget.optimizers))],
        bands(budget, f"running median ({max(1, budget.steps // 50)}-step blocks)") + " Thin: "
        "running mean of the loss, which leaves the frame where rare prompts carry it. 3 layers; "
        "every batch is fresh, so that the training loss is a test loss; norm before clipping.")
    return figure, finding(
        adam_vs_sgd, budget, measured,
        {key: trained[key] for key in ("loss", "grad_norm", "diverged")},
        paper="loss curves; the authors' notebook ends Setting 1 near 8e-3 (SGD) and 1.7e-3 (Adam)")


def short(setting):
    return setting.name.split(":")[0]


def versus(budget):
    return " / ".join(budget.optimizers[:2])


def ratio(values):
    """Of values (settings, optimizers, ...), the first optimizer's over the second's."""
    return values[:, 0] / values[:, 1]


def final_losses(label, loss, diverged, names, **bound):
    """Of one setting, loss (optimizers, seeds, steps): the final loss of the first optimizer over
    that of each other one; how far the mean over the same steps lies above the median, which rare
    prompts decide; where runs diverged."""
    final = final_loss(loss)
    measured = {f"{label}: final loss {names[0]} / {name}": geometric(final[0] / each, **bound)
                for name, each in zip(names[1:], final[1:])}
    for name, each, end in zip(names, final, last_tenth(loss)):
        measured[f"{label}: final loss {name}"] = geometric(each)
        measured[f"{label}: mean over median, {name}"] = f"{end.mean() / np.median(end):.3g}"
    steps = [f"{names[i]}, seed {seed}, at step {diverged[i, seed]}"
             for i, seed in np.argwhere(diverged >= 0)]
    return measured | ({f"{label}: diverged": "; ".join(steps)} if steps else {})


@experiment
def gradient_noise(budget=Budget()):
    """C2: Stochastic gradient noise is heavy-tailed in Settings 1, 2 and 3.

    Figure 2. At initialisation, the norm of g_batch - g_big: gradients on 1,000 and on 100,000
    fresh prompts; as many draws as the budget has steps, for each seed's initial weights. Measured:
    the kurtosis of the noise's coordinates and of its norm, over a Gaussian's 3, and the skewness
    of the norm (that of a Gaussian vector is slightly skewed, too: no bound). A few draws carry the
    kurtosis, and no more than their number can come out, so it is averaged over seeds on a
    logarithmic scale. Claimed: both kurtoses above 3.
    """
    budget = budget._replace(optimizers=Budget().optimizers)  # none is used
    norms, tails = noise_tails(PAPER_SETTINGS, budget, budget.steps, kurtosis=1)
    pooled = np.sort(norms.reshape(len(norms), -1))
    figure = grid(
        [setting.name for setting in PAPER_SETTINGS],
        [("density", lambda ax, j: draw_density(ax, pooled[j])),
         ("noise norm", lambda ax, j: draw_quantiles(ax, pooled[j]))],
        "Norm of g(1,000 prompts) - g(100,000 prompts) at initialisation, 3 layers; "
        f"{budget.steps:,} draws for each of {budget.seeds} seeds' initial weights, pooled. "
        "Histograms up to the 99.9 % point. Dashed: the Gaussian of the same mean and variance. A "
        "heavy right tail lies above the dashed line, at the right.")
    return figure, finding(
        gradient_noise, budget, {name: each for tail in tails for name, each in tail.items()},
        dict(norms=norms), paper="histograms; Setting 1: about 2.1, right tail to 3.6",
        batch=1000, big=100_000)


def noise_tails(settings, budget, draws, kurtosis=None):
    """The noise norms (settings, seeds, draws), and for each setting their tail figures; the last
    argument is the bound that a claim sets."""
    found = measure(noise, [(setting, seed, draws) for setting in settings
                            for seed in range(budget.seeds)], budget, len(settings), budget.seeds)
    return found["norms"], [{
        f"{short(setting)}: skewness of the noise norm": quantity(moment(each, 3)),
        f"{short(setting)}: kurtosis of the noise norm / 3":
            geometric(moment(each, 4) / 3, above=kurtosis),
        f"{short(setting)}: kurtosis of the noise coordinates / 3":
            geometric(other / 3, above=kurtosis)}
        for setting, each, other in zip(settings, found["norms"], found["kurtosis"])]


def noise(setting, seed, draws):
    """Norms (draws,) of the gradient noise, and the mean over coordinates of their kurtosis."""
    init, stream = streams(seed)
    params, gradient = initial(setting, init), gradient_of(setting)

    def one():
        return gradient(params, draw_prompts(stream, setting))[1]

    big = sum(one() for _ in range(100)) / 100  # 100 batches, of 1,000 in the paper
    noises = np.array([(one() - big).ravel() for _ in range(draws)])
    moving = noises[:, noises.any(axis=0)]  # the last P block has no gradient
    return dict(norms=np.linalg.norm(noises, axis=1), kurtosis=moment(moving.T, 4).mean())


def moment(values, order):
    """Standardised central moment over the last axis: 3 is skewness, 4 is kurtosis."""
    centred = values - values.mean(axis=-1, keepdims=True)
    return (centred**order).mean(axis=-1) / values.std(axis=-1) ** order


def along(function, settings, trained, budget, at, batches=1):
    """The function's values for the snapshots number `at` of every run, on the first evaluation
    batches: (settings, optimizers, seeds, points, batches, ...); NaN where a run had diverged."""
    tasks = [(function, setting.data, path, batches)
             for setting, snapshots in zip(settings, trained["snapshots"])
             for path in np.concatenate(snapshots)[:, at]]
    return measure(evaluate, tasks, budget, *trained["loss"].shape[:3])["values"]


def evaluate(function, arguments, path, batches):
    """The values of `along` (points, batches, ...) for pairs (before, after) of one path; of linear
    attention, with the MLP if the data are those of a network."""
    values = []
    for k in range(batches):
        prompts = evaluation_batch(arguments, k)
        prompts = prompts if "hidden" in arguments else linattn.compress(prompts)
        for pair in path:
            good = np.isfinite(pair).all()
            value = function(*np.where(good, pair, 0), prompts)  # at 0 for its shape
            values.append(np.where(good, value, np.nan))
    values = np.reshape(values, (batches, len(path), *np.shape(values[0])))
    return dict(values=values.swapaxes(0, 1))


def evaluation_batch(arguments, k):
    """Evaluation batch k; the same for every run."""
    return data.sample_prompts(generator([2310, k]), 1000, **arguments)


def along_path(function, settings, trained, budget, points, least, most):
    """So many iterations, or as many as there are, from the first snapshot to the last, and what
    `along` returns there, on one evaluation batch for every 500 steps, but `least` to `most`."""
    at = np.unique(np.linspace(0, trained["snapshots"][0].shape[2] - 1, points).astype(int))
    batches = int(np.clip(budget.steps // 500, least, most))
    return 50 * at, along(function, settings, trained, budget, at, batches)


def loss_of(params):
    """The function (params, prompts) -> (loss, gradient); the MLP's params are flat."""
    return linattn.mlp_loss_and_grad if params.ndim == 1 else linattn.loss_and_grad


# What is measured at a point of a path: function(params, params after the step, prompts).


def loss_at(before, _, prompts):
    """The loss before the step."""
    return linattn.loss_and_grad(before, prompts)[0]


def gradient_norm(before, _, prompts):
    """Euclidean norm of the whole gradient."""
    return np.linalg.norm(linattn.loss_and_grad(before, prompts)[1])


def smoothness(before, after, prompts):
    """v^T H v, v the direction of the step; NaN if there was none."""
    if (after == before).all():
        return np.nan
    return linattn.curvature(before, after - before, prompts, loss_of(before))


def spectral_norm(before, _, prompts):
    """Largest |eigenvalue| of the Hessian."""
    return np.abs(np.linalg.eigvalsh(linattn.hessian(before, prompts))).max()


def diagonal(before, _, prompts):
    """Of the Hessian, (p,)."""
    if before.ndim > 1:
        return linattn.hessian_diagonal(before, prompts).ravel()
    return np.array([linattn.hessian_vector_product(before, unit, prompts, loss_of(before))[i]
                     for i, unit in enumerate(np.eye(before.size))])


def condition(before, after, prompts):
    """R_med."""
    return r_med(diagonal(before, after, prompts))


def r_med(diagonal):
    """The robust condition number max |H_ii| / median |H_ii| over the last axis; the zeros of the
    last P, which is not trained, count in the median, as in the paper."""
    return np.abs(diagonal).max(axis=-1) / np.median(np.abs(diagonal), axis=-1)


@experiment
def condition_number(budget=Budget(seeds=3, steps=800)):
    """C3: R_med is larger along SGD's path than along Adam's.

    Figure 3 and table 1. R_med = max |H_ii| / median |H_ii| over the diagonal of the Hessian; the
    table holds R_med of SGD over that of Adam at iterations 750 and 1250, on one evaluation batch
    of 1,000 prompts. Here: on many (one for 100 steps, 2 to 100), and on the Hessian pooled over
    all of them, and, from 2,000 steps on, for other rates, matrices and seeds. Claimed: above 1, on
    the typical batch (median) and pooled.
    """
    settings, batches = PAPER_SETTINGS, int(np.clip(budget.steps // 100, 2, 100))
    trained = train_all(settings, budget)
    last = (budget.steps - 1) // 50 * 50
    iterations = [t for t in (750, 1250) if t <= last] or [last]
    diagonals = along(diagonal, settings, trained, budget, [t // 50 for t in iterations], batches)
    path, values = along_path(condition, settings, trained, budget, 10, 1, 4)
    typical = np.nanmedian(values, axis=-1)  # (settings, optimizers, seeds, points)
    sizes = sorted({size for size in (1, 10, 100) if size <= batches} | {batches})
    ratios = {size: ratio(r_med(grouped(diagonals, size))) for size in sizes}
    measured = {}
    for (i, setting), (j, t) in itertools.product(enumerate(settings), enumerate(iterations)):
        label, paper = f"{short(setting)}, iteration {t}", PAPER_C3[i].get(t, "none")
        single, pooled = ratios[1][i, :, j], ratios[batches][i, :, j, 0]  # (seeds, batches)
        low, high = np.quantile(single, (0.05, 0.95))
        mean, std = single[:, 0].mean(), single[:, 0].std(ddof=min(1, len(single) - 1))
        measured |= {
            f"{label}, typical batch": geometric(np.median(single, axis=1), above=1),
            f"{label}, pooled {batches},000": geometric(pooled, above=1),
            f"{label}, first batch": f"{mean:.3g} ({std:.2g}), paper {paper}",
            f"{label}, 90 % of single batches": f"{low:.3g} to {high:.3g}"}
    t = iterations[0]
    causes = r_med_causes(settings, budget, t) if budget.steps >= 2000 else {}
    measured |= {f"{short(setting)}, iteration {t}, {name}": geometric(each)
                 for name, values in causes.items() for setting, each in zip(settings, values)}
    return draw_condition_number(settings, budget, path, typical, ratios, causes, t), finding(
        condition_number, budget, measured, dict(table=r_med(diagonals), along=typical),
        paper="; ".join(f"{short(setting)}: {' and '.join(paper.values())}"
                        for setting, paper in zip(settings, PAPER_C3)))


PAPER_C3 = (  # mean (standard deviation) of the ratio over seeds, table 1 of the paper
    {750: "1.76 (0.40)", 1250: "1.58 (0.41)"},
    {750: "3.14 (0.97)", 1250: "5.98 (2.86)"},
    {750: "9.57 (13.3)", 1250: "6.53 (3.55)"},
)


def grouped(diagonals, size):
    """Diagonals of the Hessian on evaluation batches `size` times as large: means over groups."""
    *lead, batches, p = diagonals.shape
    count = batches // size
    return diagonals[..., : count * size, :].reshape(*lead, count, size, p).mean(axis=-2)


def r_med_causes(settings, budget, t):
    """{what was changed: typical ratio of R_med at iteration t (settings, seeds)}"""
    def typical(factor=1, seeds=budget.seeds, full=False):
        """The ratio, median over five batches, with all rates times factor, or full matrices."""
        changed = [setting._replace(full=full, lr={
            name: factor * learning_rate(setting, name, budget) for name in budget.optimizers})
            for setting in settings]
        spend = budget._replace(seeds=seeds, steps=min(budget.steps, t + 50), lr={})
        trained = train_all(changed, spend)
        values = along(condition, changed, trained, spend, [t // 50], batches=5)
        return np.median(ratio(values)[:, :, 0], axis=-1)

    more = 3 * budget.seeds
    return {"half the rates": typical(0.5), "twice the rates": typical(2),
            "full matrices": typical(full=True), f"{more} seeds": typical(seeds=more)}


def draw_condition_number(settings, budget, path, typical, ratios, causes, t):
    """R_med along the paths; the ratio against the size of the evaluation batch, and its causes."""
    size = 1000 * np.array(list(ratios))

    def against_size(ax, j):
        """Of setting j: a dot for each seed and batch of a size, a line through their medians."""
        for x, values in zip(size, ratios.values()):
            dots = values[j][:, 0].ravel()
            ax.plot(x * np.geomspace(0.8, 1.25, len(dots)), dots, "o", ms=3, alpha=0.35,
                    color=COLOURS[2])
        ax.plot(size, [np.median(values[j][:, 0]) for values in ratios.values()], "k-", marker="s")
        ax.set(xscale="log", yscale="log", xlabel="prompts in the evaluation batch")
        ax.set_xticks(size, [f"{each:,}" for each in size], minor=False)
        ax.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
        draw_level(ax, 1, "--")

    def by_cause(ax, j):
        """Of setting j: a dot for each seed, with one thing changed at a time."""
        draw_dots(ax, range(len(causes)), [values[j] for values in causes.values()])
        ax.set(yscale="log")
        ax.tick_params(axis="y", which="minor", labelleft=False)
        ax.set_xticks(range(len(causes)), [name.replace(" ", "\n", 1) for name in causes])
        draw_level(ax, 1, "--")

    return grid(
        [setting.name for setting in settings],
        [("$R_{med}$", lambda ax, j: draw_bands(
            ax, path, typical[j], budget.optimizers, yscale="log", xlabel="iteration")),
         ("ratio of $R_{med}$", against_size)] + [("ratio of $R_{med}$", by_cause)] * bool(causes),
        "Above: typical of up to 4 evaluation batches of 1,000 prompts; line: median, band: "
        f"smallest to largest of {budget.seeds} seeds. Next: {budget.optimizers[0]} over "
        f"{budget.optimizers[1]} at iteration {t}, a dot for each seed and evaluation batch; "
        "line: median. "
        + ("Below: the same on the typical of 5 batches, with something changed; a dot for each "
           "seed, bar: median. ") * bool(causes) + "Dashed: 1, no difference.")


@experiment
def directional_smoothness(budget=Budget(seeds=3)):
    """C4: Directional smoothness is smaller along Adam's path.

    Figure 4. v^T H v for the direction v of each step, H at the point before it, on evaluation
    batches of 1,000 prompts. Measured, per seed: SGD's median over the path without its first tenth
    minus Adam's, for the typical batch (the median over batches at each point) and for all pooled
    (the mean). Claimed: above 0, for both.
    """
    settings, names = PAPER_SETTINGS, budget.optimizers
    trained = train_all(settings, budget)
    at, curvatures = along_path(smoothness, settings, trained, budget, 50, 2, 10)
    typical, pooled, measured = np.median(curvatures, axis=-1), curvatures.mean(axis=-1), {}
    for setting, values, *both in zip(settings, curvatures, typical, pooled):
        for name, height in zip(("typical batch", "pooled"), map(without_start, both)):
            pair = ", ".join(f"{each} {np.median(v):.3g}" for each, v in zip(names, height))
            measured[f"{short(setting)}, {name}: {pair}; difference"] = quantity(
                height[0] - height[1], above=0)
        measured[f"{short(setting)}, negative"] = ", ".join(
            f"{name} {100 * (each < 0).mean():.0f} %" for name, each in zip(names, values))
    figure = grid(
        [setting.name for setting in settings],
        [("typical batch", lambda ax, j: draw_smoothness(ax, at, typical[j], names)),
         ("pooled", lambda ax, j: draw_smoothness(ax, at, pooled[j], names))],
        f"$v^T H v$, v the direction of the step; {curvatures.shape[-1]} evaluation batches of "
        f"1,000 prompts: their median above, their mean below. Line: median over {budget.seeds} "
        "seeds, band: smallest to largest. Logarithmic scale, linear between the two ticks "
        "nearest to 0.")
    return figure, finding(directional_smoothness, budget, measured, dict(curvatures=curvatures),
                           paper="curves")


def without_start(points):
    """The median over the path (the last axis) without its first tenth; NaN if a run diverged."""
    return np.median(points[..., points.shape[-1] // 10 :], axis=-1)


@experiment
def generalized_smoothness(budget=Budget(seeds=1)):
    """C5: Smoothness grows with the gradient norm.

    Figure 5, (L0, L1)-smoothness. Along the first 2,000 steps of Adam, on evaluation batches of
    1,000 prompts: v^T H v and, on the first batch and at every fourth point, the spectral norm of
    H, against the norm of the gradient at the same point and on the same batch. Measured, for three
    times the budget's seeds: the slope of log against log (directional: median over batches, where
    v^T H v > 0), and L0, L1 of the line v^T H v = L0 + L1 |g| through the typical points. Claimed:
    both slopes above 0.
    """
    settings, batches = PAPER_SETTINGS, int(np.clip(budget.steps // 500, 2, 4))
    spend = budget._replace(seeds=3 * budget.seeds, steps=min(budget.steps, 2000),
                            optimizers=budget.optimizers[-1:])
    trained, measured = train_all(settings, spend), {}
    norms, curvatures = (along(function, settings, trained, spend, slice(None), batches)[:, 0]
                         for function in (gradient_norm, smoothness))
    spectral = along(spectral_norm, settings, trained, spend, slice(None, None, 4))[:, 0, ..., 0]
    for setting, g, c, s in zip(settings, norms, curvatures, spectral):  # (seeds, points, batches)
        slopes = [np.median([fit(*pair)[0] for pair in zip(x.T, y.T)])
                  for x, y in zip(np.log(g), np.log(c))]
        x, y = np.median(g, axis=-1).ravel(), np.median(c, axis=-1).ravel()
        L1, L0 = fit(x, y)
        measured |= {
            f"{short(setting)}: slope of the directional smoothness": quantity(slopes, above=0),
            f"{short(setting)}: slope of the spectral norm": quantity(
                [fit(*pair)[0] for pair in zip(np.log(g[:, ::4, 0]), np.log(s))], above=0),
            f"{short(setting)}: line": f"L0 = {L0:.3g}, L1 = {L1:.3g}; "
                                       f"{100 * (c <= 0).mean():.0f} % of v^T H v negative"}
    return draw_generalized_smoothness(settings, spend, norms, curvatures, spectral), finding(
        generalized_smoothness, budget, measured,
        dict(norms=norms, curvatures=curvatures, spectral=spectral), paper="positive slope",
        seeds=spend.seeds, steps=spend.steps)


def fit(x, y):
    """Slope and offset of the line through the points at which both are finite."""
    good = np.isfinite(x) & np.isfinite(y)
    return np.polyfit(x[good], y[good], 1) if good.sum() > 1 else (np.nan, np.nan)


def draw_generalized_smoothness(settings, budget, norms, curvatures, spectral):
    """Directional smoothness above, spectral norm below, against the gradient norm."""
    def draw(ax, x, y, every):
        """y against x, both (seeds, points, ...), a point for `every` so many steps."""
        t = np.broadcast_to(every * np.arange(x.shape[1]).reshape(-1, *[1] * (x.ndim - 2)), x.shape)
        good = (x > 0) & (y > 0)
        ax.scatter(x[good], y[good], c=t[good], s=14, alpha=0.7, cmap="cividis", vmin=0,
                   vmax=budget.steps)
        slope, offset = fit(np.log(x[good]), np.log(y[good]))
        ends = np.quantile(x[good], (0, 1)) if good.any() else np.ones(2)
        ax.plot(ends, np.exp(offset) * ends**slope, "k-", label=f"slope {slope:.2f}")
        ax.set(xscale="log", yscale="log", xlabel="gradient norm")
        ax.tick_params(axis="x", which="minor", labelbottom=False)

    figure = grid(
        [setting.name for setting in settings],
        [("$v^T H v$", lambda ax, j: draw(ax, norms[j], curvatures[j], 50)),
         ("spectral norm of H", lambda ax, j: draw(ax, norms[j][:, ::4, 0], spectral[j], 200))],
        f"{budget.optimizers[-1]}, {budget.steps:,} steps, {budget.seeds} seeds; above: every 50 "
        f"steps, {norms.shape[-1]} evaluation batches of 1,000 prompts (where $v^T H "
        "v > 0$), below: the first of them, every 200 steps. Colour: iteration, from dark (start) "
        "to light. Line: least squares in the logarithms, all points together.")
    for ax in figure.axes:
        ax.legend()
    figure.colorbar(figure.axes[-1].collections[0], ax=figure.axes, label="iteration")
    return figure


@experiment
def softmax_vs_linear(budget=Budget(seeds=2, steps=400)):
    """C6: Linear attention learns this task much faster than softmax attention.

    Three layers of linear, ReLU and softmax attention from the same weights on the same batches of
    Setting 1, with the budget's last optimizer; rates but linear's from `learning_rates`. Measured:
    the final loss (median over the last tenth of the steps) over that of linear attention, and the
    first step from which ten losses in a row are below half of the first one (the last step if none
    is). Claimed: both ratios above 1 for both kinds of softmax. At most two seeds.
    """
    budget = budget._replace(seeds=min(budget.seeds, 2))
    settings, spend = (SETTING_1, *NONLINEAR), budget._replace(optimizers=budget.optimizers[-1:])
    losses = train_all(settings, spend)["loss"][:, 0]  # (kinds, seeds, steps)
    ends, half, measured = final_loss(losses), steps_to(losses, losses[..., :1] / 2), {}
    for i, (setting, bound) in enumerate(zip(NONLINEAR, (None, 1, 1)), 1):
        measured |= {f"{setting.name} / linear: {what}": geometric(each[i] / each[0], above=bound)
                     for what, each in (("final loss", ends), ("steps to half the loss", half))}
    names = ["linear", *(setting.name for setting in NONLINEAR)]
    for name, end, steps in zip(names, ends, half):
        measured[f"{name}: final loss"] = geometric(end)
        measured[f"{name}: steps to half the loss"] = f"{np.median(steps):.0f}"
    rates = [learning_rate(setting, spend.optimizers[0], budget) for setting in settings]
    labels = [f"{name} (lr {rate:g})" for name, rate in zip(names, rates)]
    figure = grid(
        [f"3 layers, {SETTING_1.name}, {budget.optimizers[-1]}"],
        [("training loss", lambda ax, _: draw_losses(ax, losses, labels))],
        bands(spend, "running median") + " The batches are the same for every kind. softmax: "
        "weights over the n context keys sum to 1; softmax/n: the authors' code, over all n + 1 "
        "keys, without the query's own, divided by n.")
    return figure, finding(softmax_vs_linear, budget, measured, dict(loss=losses), paper="curve",
                           settings=settings)


def steps_to(losses, target):
    """First step (..., ) from which ten losses in a row are below target; the last if none is."""
    below = np.pad(losses < target, [(0, 0)] * (losses.ndim - 1) + [(0, 9)])
    ten = np.lib.stride_tricks.sliding_window_view(below, 10, axis=-1).all(axis=-1)
    return np.where(ten.any(axis=-1), ten.argmax(axis=-1) + 1, losses.shape[-1])


@experiment
def larger_model(budget=Budget(seeds=2, steps=200)):
    """C7: The picture is the same for L = 8, d = 20, n = 60.

    Loss and gradient norm as in C1, gradient noise as in C2 (a tenth as many draws as steps); 6,400
    parameters. Claimed: Adam's final loss lower, kurtosis of noise norm and coordinates above 3.
    At most three seeds are trained.
    """
    few, draws = budget._replace(seeds=min(budget.seeds, 3)), max(5, budget.steps // 10)
    trained = train_all((LARGE,), few, every=500)
    loss, grad_norm, diverged = (trained[key][0] for key in ("loss", "grad_norm", "diverged"))
    (norms,), (tails,) = noise_tails((LARGE,), budget, draws, kurtosis=1)
    measured = final_losses(LARGE.name, loss, diverged, budget.optimizers, above=1) | tails
    figure = grid(
        ["training loss", "gradient norm", "gradient noise"],
        [(LARGE.name, lambda ax, j: draw_density(ax, norms.ravel()) if j == 2
          else draw_losses(ax, (loss, grad_norm)[j], budget.optimizers))],
        bands(few, "running median") + " Norm before clipping. Noise: norm of g(1,000 prompts) - "
        f"g(100,000 prompts) at initialisation, {draws:,} draws for each of {budget.seeds} "
        "seeds, up to the 99.9 % point; dashed: the Gaussian of the same mean and variance.")
    return figure, finding(
        larger_model, budget, measured, dict(loss=loss, grad_norm=grad_norm, norms=norms),
        paper="loss curve, noise histogram", settings=(LARGE,), trained_seeds=few.seeds)


def study(settings, budget, columns, ahead=()):
    """What C8 and C9 ask of each setting: training, noise, R_med along the path. Returns their
    figure; the final losses, tails, and the typical ratio of R_med (median over the path); these
    ratios (settings, seeds); and the arrays. Adam is claimed to end lower in the settings
    `ahead`."""
    trained, names = train_all(settings, budget), budget.optimizers
    draws = max(5, budget.steps // 5)
    norms, tails = noise_tails(settings, budget, draws)
    path, values = along_path(condition, settings, trained, budget, 10, 1, 4)
    typical = np.nanmedian(values, axis=-1)  # (settings, optimizers, seeds, points)
    ratios, measured = np.nanmedian(ratio(typical), axis=-1), {}
    for i, setting in enumerate(settings):
        measured |= final_losses(short(setting), trained["loss"][i], trained["diverged"][i], names,
                                 **(dict(above=1) if setting in ahead else {})) | tails[i]
        measured[f"{short(setting)}: ratio of R_med"] = geometric(ratios[i])
    figure = grid(
        columns,
        [("training loss", lambda ax, j: draw_losses(ax, trained["loss"][j], names)),
         ("noise density", lambda ax, j: draw_density(ax, norms[j].ravel(), 0.99)),
         ("$R_{med}$", lambda ax, j: draw_bands(
             ax, path, typical[j], names, yscale="log", xlabel="iteration"))],
        bands(budget, "running median (loss), value ($R_{med}$)") + " Noise: its norm at "
        f"initialisation, {draws:,} draws for each seed, up to the 99 % point; dashed: the "
        "Gaussian of the same mean and variance. $R_{med}$: typical of up to 4 evaluation batches "
        "of 1,000 prompts.")
    return figure, measured, ratios, dict(loss=trained["loss"], norms=norms, r_med=typical)


@experiment
def heavy_tails(budget=Budget(seeds=3, steps=600)):
    """C8: Heavier tails of x make heavier noise, slower training and a larger R_med ratio.

    Three tails at one scale, E|x|^2 = 1: x on the unit sphere, Gaussian, and the paper's Gamma(0.1,
    10), whose E|x|^2 is 1 as well; the middle column is ours. Rates and clip limits (0.1, 0.1, 1)
    are those of each setting. Claimed, Gamma against the sphere:
    kurtosis of the noise norm larger; ratio of R_med larger; more steps to half the loss, for both
    optimizers; and Adam's final loss lower than SGD's in both.
    """
    settings = (SPHERICAL, LIGHT_TAILS, SETTING_3)
    figure, measured, ratios, arrays = study(
        settings, budget, [f"{setting.name} (E|x|$^2$ = 1)" for setting in settings],
        ahead=(SPHERICAL, SETTING_3))
    loss, tail = arrays["loss"], moment(arrays["norms"], 4)
    half = steps_to(loss, loss[..., :1] / 2)
    claims = {"kurtosis of the noise norm": tail[2] / tail[0],
              "ratio of R_med": ratios[2] / ratios[0]}
    claims |= {f"{name}, steps to half the loss": half[2][i] / half[0][i]
               for i, name in enumerate(budget.optimizers)}
    measured |= {f"Heavy / spherical: {name}": geometric(values, above=1)
                 for name, values in claims.items()}
    return figure, finding(heavy_tails, budget, measured, arrays, paper="3 rows of plots",
                           settings=settings)


@experiment
def depth(budget=Budget(seeds=2, steps=300)):
    """C9: With depth the Adam-SGD gap, noise tails and R_med ratio grow, and the loss falls.

    L = 2, 4, 6, 8 layers in Setting 1. Claimed: the final loss of SGD over Adam's is larger at L =
    8 than at 2; the final loss of each is lower; the kurtosis of the noise norm is larger for L = 6
    and 8 than for 2 and 4; the ratio of R_med is larger for L = 4, 6 and 8 than for 2 (geometric
    means).
    """
    figure, measured, ratios, arrays = study(DEEP, budget, [each.name for each in DEEP])
    ends, tail = final_loss(arrays["loss"]), moment(arrays["norms"], 4)
    gap = ratio(ends)
    claims = {"gap SGD / Adam, L = 8 over 2": gap[3] / gap[0],
              "kurtosis of the noise norm, L = 6, 8 over 2, 4":
                  np.sqrt(tail[2] * tail[3] / (tail[0] * tail[1])),
              "ratio of R_med, L = 4, 6, 8 over 2":
                  np.cbrt(ratios[1] * ratios[2] * ratios[3]) / ratios[0]}
    claims |= {f"final loss {name}, L = 2 over 8": ends[0, i] / ends[3, i]
               for i, name in enumerate(budget.optimizers)}
    measured |= {name: geometric(values, above=1) for name, values in claims.items()}
    return figure, finding(depth, budget, measured, arrays, paper="3 rows of plots", settings=DEEP)


RATES = np.array([0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0])


def rate_grid(setting, name):
    """Ten rates; SGD wants a hundred times larger ones where the limit on the gradient is small."""
    return RATES * (100 if name == "SGD" and setting.clip < 1 else 1)


@experiment
def learning_rates(budget=Budget(seeds=2, steps=1200)):
    """Protocol: The learning rate of each optimizer is the best of a grid of ten.

    Final loss (median over the last tenth of the steps) against the rate, in Settings 1, 2 and 3,
    on a quarter of the steps, at most two seeds. The best rate has the lowest mean over seeds of
    the log loss, among the rates at which no run diverged. Measured: the final loss at the rate in
    use over that at the best one; the width of the good range, within a factor 2 of the best loss;
    and the ratio of the two final losses, each at its best rate.
    With 2,000 steps and more the other settings are tried, too, on a twentieth of the steps (a
    fortieth where they are costly). Claimed: less than twice the best loss.
    """
    spend = budget._replace(seeds=min(budget.seeds, 2), steps=max(1, budget.steps // 4))
    rates, runs, chosen = tuned(PAPER_SETTINGS, spend, rate_grid)
    measured, ends = {}, final_loss(chosen["loss"])
    for setting, grids, loss, gap in zip(PAPER_SETTINGS, rates, runs["loss"], ratio(ends)):
        measured |= best_rates(setting, spend, grids, loss, below=2)
        label = f"{short(setting)}: final loss {versus(budget)}, each at its best rate"
        measured[label] = geometric(gap)
    if budget.steps >= 2000:
        for settings, part, names in (((SPHERICAL, LIGHT_TAILS, *DEEP), 20, spend.optimizers),
                                      ((LARGE,), 40, spend.optimizers), (NONLINEAR, 40, ("Adam",))):
            less = spend._replace(steps=budget.steps // part, optimizers=names)
            grids, trials, _ = tuned(settings, less, rate_grid)
            for setting, *found in zip(settings, grids, trials["loss"]):
                measured |= best_rates(setting, less, *found)
    return draw_rates(spend, runs["loss"]), finding(
        learning_rates, budget, measured, dict(final=final_loss(runs["loss"])),
        paper="0.02 and 0.02 (Setting 1), 0.01 and 0.005 (2), 0.02 and 0.02 (3) for SGD and Adam",
        seeds=spend.seeds, steps=spend.steps)


def best_rates(setting, budget, rates, losses, **bound):
    """What the losses (rates, optimizers, seeds, steps) say of the rates in use, and with a bound
    of their loss."""
    measured = {}
    for i, name in enumerate(budget.optimizers):
        score, ends = level(losses[:, i]), final_loss(losses[:, i])
        used, label = learning_rate(setting, name, budget), f"{short(setting)}, {name}"
        good = rates[i][good_range(score)]
        lost = f"{(~np.isfinite(ends)).sum()} of {ends.size} runs diverged"
        measured[f"{label}: best rate"] = (
            f"{rates[i][score.argmin()]:g}, in use {used:g}; within a factor 2 of the best: "
            f"{good.min():g} to {good.max():g}; {lost}") if len(good) else f"none, {lost}"
        if bound and used in rates[i] and len(good):
            measured[f"{label}: final loss at the rate in use / at the best"] = geometric(
                ends[list(rates[i]).index(used)] / ends[score.argmin()], **bound)
    return measured


def good_range(score):
    """Where a rate's score, the mean log final loss, is within a factor 2 of the best one's."""
    return score < score.min() + np.log(2)


def draw_rates(budget, losses):
    """Final loss of losses (settings, rates, optimizers, seeds, steps) against the rate; diverged
    runs as crosses at the top."""
    def draw(ax, j):
        """Of setting j: a line for each optimizer over the rates at which no run diverged."""
        for i, name in enumerate(budget.optimizers):
            rates, ends = rate_grid(PAPER_SETTINGS[j], name), final_loss(losses[j][:, i])
            lost, color = ~np.isfinite(ends).all(axis=1), COLOURS[i % 5]
            draw_bands(ax, rates[~lost], ends[~lost].T[None], [name], i)
            ax.plot(rates[lost], np.full(lost.sum(), 0.98 - 0.04 * i), "X", color=color, ms=10,
                    transform=ax.get_xaxis_transform())
            used = np.isclose(rates, (PAPER_SETTINGS[j].lr | budget.lr).get(name, np.nan))
            ax.plot(rates[used], np.median(ends[used], axis=-1), "o", ms=13, mfc="none", mew=2,
                    color=color)
        every = final_loss(losses[j])
        ax.set(xscale="log", yscale="log", xlabel="learning rate",
               ylim=(np.nanmin(every) / 2, 4 * np.nanmax(every[0])))

    return grid(
        [setting.name for setting in PAPER_SETTINGS], [("final loss", draw)],
        f"Median training loss over the last tenth of {budget.steps:,} steps; line: median of "
        f"{budget.seeds} seeds, band: smallest to largest. X, at the top: rates at which a run "
        "diverged. Circle: the rate that the other experiments use.")


@experiment
def full_batch(budget=Budget(seeds=3, steps=250, optimizers=("SGD", "Adam", "SignDescent"))):
    """C10: Without gradient noise Adam still beats SGD, and so does sign descent.

    Quoted by the paper from Kunstner et al. 2023 (arXiv 2304.13960). Settings 1 and 3, on one and
    the same batch of 1,000 prompts at every step, and on fresh batches of 100, 400 and 1,600. Every
    optimizer at the best of half, once and twice its rate; at most 600 steps. Claimed, on the fixed
    batch: the final loss of SGD over that of Adam, and of sign descent with momentum, above 1.
    """
    budget = budget._replace(steps=min(budget.steps, 600))
    tasks, sizes = (SETTING_1, SETTING_3), (100, 400, 1600, 1000)
    first, *others = budget.optimizers
    settings = [setting._replace(batch=size, fixed=size == 1000)
                for setting in tasks for size in sizes]
    chosen = tuned(settings, budget, times(budget, 0.5, 1, 2))[2]
    ends = np.array(np.split(final_loss(chosen["loss"]), len(tasks)))
    gaps = ends[:, :, :1] / ends[:, :, 1:]  # (tasks, sizes, other optimizers, seeds)
    measured = {}
    for setting, task in zip(tasks, gaps):
        for size, gap in zip(sizes, task):
            where = f"batches of {size:,}" if size != 1000 else "fixed batch"
            measured |= {f"{short(setting)}, {where}: final loss {first} / {name}":
                         geometric(values, above=1 if size == 1000 else None)
                         for name, values in zip(others, gap)}

    def draw_gaps(ax, j):
        """Of setting j: a line for each other optimizer, against the batch size."""
        names = [f"{first} / {name}" for name in others]
        draw_bands(ax, np.arange(4), gaps[j].transpose(1, 2, 0), names, 1)
        ax.set_xticks(range(4), [f"{size:,}" for size in sizes[:-1]] + ["fixed"])
        ax.set(yscale="log", xlabel="prompts in a batch")
        draw_level(ax, 1)

    figure = grid(
        [setting.name for setting in tasks],
        [("loss, fixed batch",
          lambda ax, j: draw_losses(ax, chosen["loss"][3::4][j], budget.optimizers)),
         ("ratio of final losses", draw_gaps)],
        f"Line: median of {budget.seeds} seeds; band: smallest to largest. {budget.steps:,} "
        f"steps, every optimizer at the best of three rates. Below: {first} over the others, on "
        "fresh batches of 100 to 1,600 prompts and, at the right, on one batch of 1,000 for all "
        "steps. Dotted: 1, no difference.")
    return figure, finding(full_batch, budget, measured, dict(gaps=gaps), paper="quoted",
                           settings=settings, rates=chosen["lr"].tolist())


def times(budget, *factors):
    """A grid for `tuned`: multiples of the rate in use."""
    return lambda setting, name: learning_rate(setting, name, budget) * np.array(factors)


@experiment
def clipping(budget=Budget(seeds=3, steps=500)):
    """C11: Clipping lowers directional smoothness, coordinate by coordinate most of all.

    Quoted by the paper from Pan & Li 2023. SGD and Adam in Settings 1 and 3 without clipping, with
    the global norm limited to 1, and with every coordinate limited to 1/sqrt(150), so that the norm
    has the same bound; all else the same; at most 2,000 steps. SGD at a quarter of its rate, for at
    the full one it diverges without clipping. Claimed, for v^T H v on the typical batch (median
    over the path without its first tenth): no clipping minus global norm, and global norm minus
    coordinates, above 0.
    """
    budget = budget._replace(steps=min(budget.steps, 2000))
    kinds, tasks = ("none", "global", "coordinates"), [
        setting._replace(lr=setting.lr | dict(SGD=0.005)) for setting in (SETTING_1, SETTING_3)]
    settings = [setting._replace(clipping=kind) for setting in tasks for kind in kinds]
    trained = train_all(settings, budget)
    at, curvatures = along_path(smoothness, settings, trained, budget, 50, 2, 10)
    # A case is a setting and an optimizer: arrays (cases, kinds, seeds, ...).
    cases = [f"{short(setting)}, {name}" for setting in tasks for name in budget.optimizers]
    loss, clipped, typical = (
        np.concatenate(np.array(np.split(values, len(tasks))).swapaxes(1, 2))
        for values in (trained["loss"], trained["clipped"], np.median(curvatures, axis=-1)))
    share = 100 * clipped.mean(axis=(-2, -1))
    measured = {}
    for case, height, losses, shares in zip(cases, without_start(typical), loss, share):
        for i, j in ((0, 1), (1, 2)):
            measured[f"{case}: v^T H v, {kinds[i]} minus {kinds[j]}"] = quantity(
                height[i] - height[j], above=0)
        for kind, h, each, percent in zip(kinds, height, losses, shares):
            measured[f"{case}, {kind}: final loss"] = geometric(final_loss(each))
            measured[f"{case}, {kind}: clipped steps, v^T H v"] = (
                f"{percent:.0f} %, {np.median(h):.3g}")
    names = [[f"{kind} ({each:.0f} %)" for kind, each in zip(kinds, row)] for row in share]
    figure = grid(
        cases,
        [("training loss", lambda ax, j: draw_losses(ax, loss[j], names[j])),
         ("$v^T H v$", lambda ax, j: draw_smoothness(ax, at, typical[j], names[j]))],
        bands(budget, "running median (loss), value (below)") + " $v^T H v$: typical of the "
        "evaluation batches of 1,000 prompts. In brackets: share of the steps that were clipped.",
        fontsize=11)
    return figure, finding(clipping, budget, measured, dict(curvatures=curvatures), paper="quoted",
                           settings=settings)


@experiment
def initialization(budget=Budget(seeds=2, steps=100)):
    """Question: At which initial scale and depth do gradients vanish or explode, or models train?

    L = 2, 4 and 8 in Setting 1, entries of standard deviation 0.01 to 0.8, in the paper's blocks
    and in full matrices. Measured: the gradient's norm in the first and in the last layer at
    initialisation, on an evaluation batch a seed; and the final loss of both optimizers after 400
    steps at most. A run "trains" if it ends below half of the loss of predicting 0, which is d.
    """
    budget, scales = budget._replace(steps=min(budget.steps, 400)), (0.01, 0.05, 0.2, 0.8)
    tasks = [(deep, full) for deep in (DEEP[0], DEEP[1], DEEP[3]) for full in (False, True)]
    settings = [deep._replace(full=full, std=std) for deep, full in tasks for std in scales]
    norms = measure(layer_gradients, [(setting, seed) for setting in settings
                                      for seed in range(budget.seeds)],
                    budget, len(tasks), len(scales), budget.seeds)["first_last"]
    ends = np.array(np.split(final_loss(train_all(settings, budget)["loss"]), len(tasks)))
    measured = {}  # norms (tasks, scales, seeds, first and last), ends (..., optimizers, seeds)
    for (deep, full), norm, end in zip(tasks, norms, ends):
        label = f"{deep.name}, {'full matrices' if full else 'blocks'}"
        for name, each in zip(budget.optimizers, end.swapaxes(0, 1)):
            good = (np.nan_to_num(each, nan=np.inf) < deep.data["d"] / 2).all(axis=-1)
            lost = ~np.isfinite(each).all(axis=-1)
            where = [f"{word} at std {', '.join(f'{std:g}' for std in np.array(scales)[so])}"
                     for word, so in (("trains", good), ("diverges", lost)) if so.any()]
            measured[f"{label}: {name}"] = "; ".join(where) or "trains nowhere"
        measured |= {f"{label}, std {std:g}: gradient norm, first layer": geometric(each[:, 0])
                     for std, each in zip(scales, norm)}
    names = [deep.name for deep, full in tasks if full]
    return draw_initialization(budget, names, scales, norms, ends), finding(
        initialization, budget, measured, dict(norms=norms, final=ends), settings=settings)


def layer_gradients(setting, seed):
    """Norms of the gradient at initialisation in the first and in the last layer."""
    params = initial(setting, streams(seed)[0])
    grad = linattn.loss_and_grad(params, evaluation_batch(setting.data, seed))[1]
    return dict(first_last=np.linalg.norm(grad.reshape(len(grad), -1), axis=1)[[0, -1]])


def draw_initialization(budget, columns, scales, norms, ends):
    """Gradient norms above, final losses below, against the initial scale."""
    def draw(ax, j, values, names, **axes):
        """Of depth j: a line for each name, of values (tasks, names, seeds, scales)."""
        for full, where in enumerate(("blocks", "full")):
            draw_bands(ax, np.array(scales), values[2 * j + full],
                       [f"{where}, {name}" for name in names], 2 * full)
        ax.set(xscale="log", yscale="log", xlim=(0.008, 1), **axes)

    def draw_ends(ax, j):
        """The final losses."""
        draw(ax, j, np.moveaxis(ends, 1, -1), budget.optimizers, ylim=(1e-5, 1e5),
             xlabel="initial standard deviation")
        draw_level(ax, SETTING_1.data["d"])

    return grid(
        [f"{name}, {SETTING_1.name}" for name in columns],
        [("gradient norm", lambda ax, j: draw(ax, j, norms.transpose(0, 3, 2, 1), (
            "first layer", "last layer"), ylim=(0.03, 1e5))), ("final loss", draw_ends)],
        "Above: at initialisation, on 1,000 prompts. Below: median over the last tenth of "
        f"{budget.steps:,} steps. Line: median of {budget.seeds} seeds; band: smallest to "
        "largest; X, or no point: a run diverged. Dotted: the loss of predicting 0.", fontsize=11)


@experiment
def tails_times_depth(budget=Budget(seeds=2, steps=120)):
    """Question: How do heavy tails and depth interact?

    A factorial grid at E|x|^2 = 1: s ~ Gamma(k, .) with k = 2.5 (Gaussian x), 0.5 and 0.1, times L
    = 2, 4 and 6; clip limit 1, every optimizer at the best of four rates of one grid, at most 500
    steps. Measured: SGD's final loss over Adam's, the kurtosis of the noise norm at initialisation,
    the ratio of R_med at the end. Interaction: by what factor one step towards heavy tails changes
    the effect of one step in depth (fit in the logarithms, per seed).
    """
    budget = budget._replace(steps=min(budget.steps, 500), lr={})  # the rates are the grid's
    shapes, depths = (2.5, 0.5, 0.1), (2, 4, 6)
    settings = [Setting(f"k = {k}, L = {L}",
                        dict(n=20, d=5, covariates="gamma", shape=k, second_moment=1.0),
                        {}, layers=L) for k in shapes for L in depths]
    chosen = tuned(settings, budget, wide_rates, every=50)[2]
    norms, _ = noise_tails(settings, budget, max(5, budget.steps // 2))
    conditions = along(condition, settings, chosen, budget, [-1], 4)[:, :, :, 0]
    maps = {f"final loss {versus(budget)}": ratio(final_loss(chosen["loss"])),
            "kurtosis of the noise norm / 3": moment(norms, 4) / 3,
            "ratio of R_med": ratio(np.median(conditions, axis=-1))}  # (cells, seeds)
    contrast = np.outer((-1, 0, 1), (-1, 0, 1)).ravel()
    measured = {f"interaction, {name}": geometric(
        np.exp(contrast @ np.log(values) / (contrast**2).sum())) for name, values in maps.items()}
    measured |= {f"{setting.name}: {name}": geometric(each) for name, values in maps.items()
                 for setting, each in zip(settings, values)}
    pictures = [np.exp(np.log(values).mean(axis=-1)).reshape(3, 3) for values in maps.values()]
    figure = grid(
        [name.replace("R_med", "$R_{med}$") for name in maps],
        [("shape k of the tail",
          lambda ax, j: draw_map(ax, pictures[j], shapes, depths, xlabel="layers L"))],
        f"Geometric mean of {budget.seeds} seeds, {budget.steps:,} steps on fresh batches of "
        "1,000 prompts. k = 2.5: Gaussian x; smaller k: heavier tails at the same E|x|$^2$ = 1.")
    return figure, finding(
        tails_times_depth, budget, measured, {name.split()[0]: each for name, each in maps.items()},
        settings=settings, rates=chosen["lr"].tolist())


def wide_rates(_, name):
    """Four rates, from low to high; Adam's moves are scaled already, so it wants lower ones."""
    return (0.005, 0.02, 0.05, 0.1) if name == "Adam" else (0.02, 0.1, 0.5, 2.0)


@experiment
def label_noise(budget=Budget(seeds=3, steps=400)):
    """Question: How far above the Bayes risk does each optimizer end when labels are noisy?

    Setting 1 with noise of standard deviation sigma on the context's labels; the target stays
    clean. As w ~ N(0, I), the Bayes predictor is ridge regression with penalty sigma^2. Measured
    after at most 2,000 steps: the loss minus that of the ridge regression on the same evaluation
    batches of 1,000 prompts (median over twenty batches and the last two snapshots).
    """
    budget, sigmas = budget._replace(steps=min(budget.steps, 2000)), (0.0, 0.1, 0.3, 1.0, 3.0)
    settings = [SETTING_1._replace(name=f"sigma = {sigma:g}",
                                   data=dict(SETTING_1.data, noise=sigma)) for sigma in sigmas]
    losses = along(loss_at, settings, train_all(settings, budget), budget, slice(-2, None), 20)
    bayes = np.array([ridge_losses(setting.data, sigma**2)
                      for setting, sigma in zip(settings, sigmas)])
    excess = np.median(losses - bayes[:, None, None, None], axis=(-2, -1))
    ends, measured = np.median(losses, axis=(-2, -1)), {}  # (sigmas, optimizers, seeds)
    for setting, above, risk in zip(settings, excess, bayes):
        measured[f"{setting.name}: excess {versus(budget)}"] = geometric(above[0] / above[1])
        measured |= {f"{setting.name}: excess {name}": geometric(each)
                     for name, each in zip(budget.optimizers, above)}
        measured[f"{setting.name}: Bayes risk"] = f"{risk.mean():.3g}"
    x = np.arange(len(sigmas))

    def draw(ax, j):
        """The final losses with the Bayes risk (j = 0), or the excess, against sigma."""
        draw_bands(ax, x, (ends, excess)[j].transpose(1, 2, 0), budget.optimizers)
        ax.set_xticks(x, [f"{sigma:g}" for sigma in sigmas])
        ax.set(yscale="log", xlabel="standard deviation $\\sigma$ of the label noise")
        if j == 0:
            ax.plot(x[1:], np.median(bayes, axis=-1)[1:], "k:", marker="s", label="Bayes risk")

    figure = grid(
        ["final loss and Bayes risk", "final loss minus Bayes risk"],
        [("loss on clean targets", draw)],
        bands(budget) + " Setting 1, 3 layers; noise on the context's labels only. Bayes: ridge "
        "regression with penalty $\\sigma^2$ (0 without noise), on the same evaluation batches.")
    return figure, finding(label_noise, budget, measured,
                           dict(final=ends, excess=excess, bayes=bayes), settings=settings)


def ridge_losses(arguments, penalty, batches=20):
    """Losses (batches,) of ridge regression on the context, on the same evaluation batches."""
    losses = []
    for k in range(batches):
        prompts = evaluation_batch(arguments, k)
        X, y, query = prompts.Z[:, :-1, :-1], prompts.Z[:, -1:, :-1], prompts.Z[:, :-1, -1]
        gram = X @ X.transpose(0, 2, 1) + penalty * np.eye(X.shape[1])
        w = np.linalg.solve(gram, X @ y.transpose(0, 2, 1))[..., 0]
        losses.append(np.mean(((w * query).sum(axis=1) - prompts.target) ** 2))
    return np.array(losses)


@experiment
def remedies(budget=Budget(seeds=2, steps=120)):
    """Question: What helps against heavy-tailed prompts?

    Setting 3 without clipping, then with one remedy, then with all. Normalised x: (x_i, y_i)
    divided by |x_i|, which is the spherical task; undone on the prediction, its error is |x|^2
    times the spherical one, and as E|x|^2 = 1 and |x| is independent of the direction, both risks
    are the same number (rates 1.0 and 0.1). Clipping: global norm 1. Weight decay: 0.01, decoupled.
    Large batch: 4,000 prompts. Every optimizer at the best of a fifth, once and five times its
    rate; at most 500 steps. Measured: the loss at the end relative to no remedy, and the ratio SGD
    / Adam. The losses are those on batches of 1,000 (median over twenty and over the last two
    snapshots), for with heavy tails the typical loss of a larger batch is a larger one.
    """
    budget = budget._replace(steps=min(budget.steps, 500))
    plain = SETTING_3._replace(name="none", clipping="none")
    changes = {"normalised x": dict(data=SPHERICAL.data, lr=dict(SGD=1.0, Adam=0.1)),
               "clipping": dict(clipping="global"),
               "weight decay": dict(weight_decay=0.01), "large batch": dict(batch=4000)}
    everything = {key: value for change in changes.values() for key, value in change.items()}
    settings = [plain, *(plain._replace(name=name, **change) for name, change in changes.items()),
                plain._replace(name="all four", **everything)]
    chosen = tuned(settings, budget, times(budget, 0.2, 1, 5), max(1, budget.steps // 20))[2]
    ends = np.median(along(loss_at, settings, chosen, budget, slice(-2, None), 20), axis=(-2, -1))
    measured = {f"{setting.name}: {name}, with / without": geometric(end / before)
                for setting, row in zip(settings[1:], ends[1:])
                for name, end, before in zip(budget.optimizers, row, ends[0])}
    for setting, row in zip(settings, ends):
        measured[f"{setting.name}: {versus(budget)}"] = geometric(row[0] / row[1])
        measured |= {f"{setting.name}: final loss {name}": geometric(end)
                     for name, end in zip(budget.optimizers, row)}
    return draw_remedies(budget, [setting.name for setting in settings], ends), finding(
        remedies, budget, measured, dict(final=ends), settings=settings,
        rates=chosen["lr"].tolist())


def draw_remedies(budget, names, ends):
    """Final losses (remedies, optimizers, seeds), and the ratio of the first two optimizers."""
    x = np.arange(len(names))

    def draw(ax, j):
        """A dot for each remedy and seed: the final losses (j = 0), or their ratio."""
        if j == 1:
            draw_dots(ax, x, ratio(ends))
            draw_level(ax, 1)
        else:
            for i, name in enumerate(budget.optimizers):
                draw_dots(ax, x + 0.3 * i, ends[:, i], COLOURS[i % 5])
                ax.plot([], [], "o", color=COLOURS[i % 5], label=name)
        ax.set_xticks(x, [name.replace(" ", "\n") for name in names], fontsize=11)
        ax.set(yscale="log")

    return grid(
        ["final loss", versus(budget)], [(SETTING_3.name, draw)],
        f"A dot for each of {budget.seeds} seeds, bar: median. Typical loss on 1,000 prompts "
        f"after {budget.steps:,} steps, every optimizer at the best of three rates. Normalised x: "
        "the spherical task, whose risk is that of the original one after undoing.")


@experiment
def what_it_learns(budget=Budget(seeds=2, steps=400)):
    """Question: What is in the weights: is a trained layer a step of gradient descent?

    Adam in Setting 1, L = 1 to 4, at most 2,000 steps. Measured: the final loss beside that of L
    steps of gradient descent, with one step size and with one for each layer (the best ones; for
    isotropic x a preconditioner adds nothing else), and with P_l = g_l I, which changes the x
    between the steps, too (least squares has loss 0); the share of Q_l (in the figure P_l's, too)
    off the multiples of the identity. For one layer, E|x|^2 = m and E|x|^4 = m4 give T = E tr S^2 =
    m4 / n + (1 - 1/n) m^2 / d and so the best Q = -c I, c = m / T, of loss m (1 - m^2 / (d T)) (for
    Gaussian x: c = n / (n + d + 1)); measured: learnt over best c, and final over least loss.
    """
    budget = budget._replace(steps=min(budget.steps, 2000), optimizers=budget.optimizers[-1:])
    deep = [SETTING_1._replace(name=f"L = {L}", layers=L) for L in (1, 2, 3, 4)]
    cases = [("gaussian", n) for n in (5, 10, 20, 40, 80)] + [
        (name, 20) for name in MOMENTS if name != "gaussian"]
    single = [SETTING_1._replace(name=f"{family} x, n = {n}", layers=1,
                                 data=dict(n=n, d=5, covariates=family)) for family, n in cases]
    trained = train_all(deep + single, budget, every=10)
    losses, snapshots = trained["loss"][:, 0], [each[0] for each in trained["snapshots"]]
    ends = final_loss(losses[:4])  # (L, seeds)
    steps = measure(descent, [(SETTING_1.data, setting.layers, kind)
                              for setting in deep for kind in range(3)], budget, 4, 3)["loss"]
    measured, off = {}, [off_identity(each[:, :, 0]) for each in snapshots[:4]]
    for setting, end, least, share in zip(deep, ends, steps, off):
        measured[f"{setting.name}: final loss"] = geometric(end)
        for kind, loss in zip(DESCENTS, least):
            measured[f"{setting.name}: final loss / that of {kind}"] = geometric(end / loss)
        measured[f"{setting.name}: share of Q off the identity"] = quantity(
            share[:, -1, :, 1].mean(axis=-1))
    learnt = []
    for (family, n), setting, loss, each in zip(cases, single, losses[4:], snapshots[4:]):
        c, least = one_layer(*MOMENTS[family], n, 5)
        Q = each[:, :, 0, 0, 1]  # (seeds, snapshots, d, d)
        found = -last_tenth(np.trace(Q, axis1=-2, axis2=-1) / 5).mean(axis=-1)
        end = last_tenth(loss).mean(axis=-1)
        learnt.append((found / c, end / least, np.full(len(end), least)))
        measured[f"{setting.name}: learnt / best c"] = geometric(found / c)
        measured[f"{setting.name}: mean final loss / least loss {least:.3g}"] = geometric(
            end / least)
    weights = snapshots[2][0, -1, 1]
    figure = draw_what_it_learns(budget, weights, off[2], ends, steps, cases, np.array(learnt))
    return figure, finding(what_it_learns, budget, measured,
                           dict(weights=weights, final=ends, descent=steps), settings=deep + single)


DESCENTS = ("L steps, one size", "L steps, L sizes", "L sizes, P = g I")
MOMENTS = {  # E|x|^2 and E|x|^4 of each family of data.py at its default parameters, d = 5
    "gaussian": (5, 35), "sphere": (1, 1), "gamma": (1, 11), "student": (25 / 3, 875 / 3)}


def one_layer(m, m4, n, d):
    """The best step size c of one layer, and its loss."""
    T = m4 / n + (1 - 1 / n) * m**2 / d
    return m / T, m * (1 - m**2 / (d * T))


def descent(arguments, layers, kind):
    """The least loss when all matrices are multiples of the identity: kind 0, L steps of gradient
    descent with one step size (Q_l = -c I, P_l = 0); 1, with one for each layer; 2, P_l free, too.
    Fitted by Adam to one evaluation batch, the loss on twenty others (median)."""
    multiples = np.zeros((layers, 2))
    multiples[:, 1] = -0.5

    def matrices():
        return multiples[..., None, None] * np.eye(arguments["d"])

    fitted = linattn.compress(evaluation_batch(arguments, 100))
    for lr in (0.05, 0.005):
        adam = optimizers.Adam(lr)
        for _ in range(600):
            slope = np.trace(linattn.loss_and_grad(matrices(), fitted)[1], axis1=2, axis2=3)
            if kind < 2:
                slope[:, 0] = 0
            if kind == 0:
                slope[:, 1] = slope[:, 1].mean()
            multiples = adam.step(multiples, slope)
    return dict(multiples=multiples, loss=np.median([
        linattn.loss_and_grad(matrices(), evaluation_batch(arguments, k))[0] for k in range(20)]))


def off_identity(weights):
    """Share of each matrix (..., d, d) in norm that is not a multiple of the identity."""
    mean = np.trace(weights, axis1=-2, axis2=-1) / weights.shape[-1]
    rest = weights - mean[..., None, None] * np.eye(weights.shape[-1])
    return np.linalg.norm(rest, axis=(-2, -1)) / np.linalg.norm(weights, axis=(-2, -1))


def draw_what_it_learns(budget, weights, off, ends, steps, cases, learnt):
    """Learnt matrices; their share off the identity; losses against L and, for one layer,
    against n."""
    figure, ((pictures, shares, depths), (rates, losses, context)) = panels(
        ["weights, L = 3", "share off the identity", "final loss"], ["", ""],
        bands(budget) + f" {SETTING_1.name}, {budget.optimizers[0]}. Weights: one seed, rows P and "
        "Q, columns the layers (the last P is not trained). One layer: c is the step size in "
        "Q = -c I; the best c and its loss are exact, the loss is a mean.",
        below=("one layer: learnt c / best c", "one layer: loss / least loss",
               "one layer, Gaussian x: loss"))
    tiles = np.full((2 * 6 - 1, 3 * 6 - 1), np.nan)
    for (layer, which), matrix in zip(np.ndindex(3, 2), weights.reshape(-1, 5, 5)):
        tiles[6 * which : 6 * which + 5, 6 * layer : 6 * layer + 5] = matrix
    largest = np.nanmax(np.abs(tiles))
    drawn = pictures.imshow(tiles, cmap="PuOr", vmin=-largest, vmax=largest)
    pictures.set_xticks((2, 8, 14), ("layer 1", "layer 2", "layer 3"))
    pictures.set_yticks((2, 8), ("P", "Q"))
    pictures.grid(False)
    figure.colorbar(drawn, ax=pictures, shrink=0.8)
    draw_bands(shares, 10 * np.arange(off.shape[1]),
               np.stack([off[..., -1, 1], off[..., 0, 1], off[..., 0, 0]]),
               ("Q, last layer", "Q, first layer", "P, first layer"))
    shares.set(xlabel="iteration")
    shares.legend()
    L = np.array([1, 2, 3, 4])
    draw_bands(depths, L, ends.T[None], ("trained",), 1)
    for kind, loss, color, mark in zip(DESCENTS, steps.T, (0, 2, 3), ("o--", "s:", "D-.")):
        depths.plot(L, loss, mark, color=COLOURS[color], label=kind)
    depths.set(yscale="log", xlabel="layers L", xticks=L)
    for ax, which in ((rates, 0), (losses, 1)):
        draw_dots(ax, range(4), learnt[[2, 5, 6, 7], which])
        ax.set_xticks(range(4), ["{}\nn = {}".format(*cases[i]) for i in (2, 5, 6, 7)], fontsize=11)
        draw_level(ax, 1)
    n = np.array([n for _, n in cases[:5]])
    context.plot(n, learnt[:5, 2, 0], "k:", label="least loss d (d + 1) / (n + d + 1)")
    draw_bands(context, n, (learnt[:5, 1] * learnt[:5, 2]).T[None], ("trained",), 1)
    context.set(xscale="log", yscale="log", xlabel="context length n")
    context.set_xticks(n, n)
    context.minorticks_off()
    for ax in (depths, context):
        ax.legend(fontsize=11)
    return figure


@experiment
def block_heterogeneity(budget=Budget(seeds=2, steps=150)):
    """Question: Do Hessian spectra differ between parameter blocks where Adam is ahead?

    Zhang et al. 2024 (arXiv 2402.16788) explain Adam's lead so. Exact spectra of the Hessian's
    diagonal blocks, one for each P_l and Q_l (but the last P, which is not trained), on one
    evaluation batch: at initialisation and at the last snapshot. Distance of two blocks: the mean
    difference of log10 |eigenvalue|, the eigenvalues sorted; of a model: the mean over pairs.
    Measured against depth and tails, beside the ratio of final losses, and their rank correlation
    over the six settings.
    """
    settings = (*DEEP[:3], SPHERICAL, LIGHT_TAILS, SETTING_3)
    trained = train_all(settings, budget)
    # of each setting (optimizers, seeds, start and end, blocks, eigenvalues)
    found = along(block_spectra, settings, trained, budget, [0, -1])
    spectra = [each[:, :, :, 0] for each in found]
    distances = np.array([spectrum_distance(each) for each in spectra])
    gap, measured = ratio(final_loss(trained["loss"])), {}
    for when, at in (("at initialisation", 0), (f"at the end of {budget.optimizers[0]}", 1)):
        measured[f"rank correlation over these six settings, distance {when}"] = quantity(
            [rank_correlation(*pair) for pair in zip(distances[:, 0, :, at].T, gap.T)])
    for setting, distance, each in zip(settings, distances, gap):
        measured[f"{short(setting)}: distance at initialisation"] = quantity(distance[0, :, 0])
        measured |= {f"{short(setting)}: distance at the end, {name}": quantity(ends)
                     for name, ends in zip(budget.optimizers, distance[..., -1])}
        measured[f"{short(setting)}: final loss {versus(budget)}"] = geometric(each)
    return draw_block_heterogeneity(budget, settings, spectra, distances, gap), finding(
        block_heterogeneity, budget, measured, dict(distances=distances, gap=gap),
        settings=settings)


def block_spectra(before, _, prompts):
    """Absolute eigenvalues (blocks, d^2), sorted, of the Hessian's blocks P_1, Q_1, P_2, ..."""
    blocks, size = 2 * len(before), before[0, 0].size
    H = linattn.hessian(before, prompts).reshape(blocks, size, blocks, size)
    return np.sort(np.abs([np.linalg.eigvalsh(H[b, :, b]) for b in range(blocks)]))


def spectrum_distance(spectra):
    """Mean over pairs of blocks (..., blocks, eigenvalues) of the mean difference in log10."""
    logs = np.log10(np.delete(spectra, -2, axis=-2) + 1e-12)
    first, second = np.triu_indices(logs.shape[-2], 1)
    return np.abs(logs[..., first, :] - logs[..., second, :]).mean(axis=(-2, -1))


def rank_correlation(x, y):
    """Spearman's: the correlation of the ranks, over as many pairs as there are settings."""
    return np.corrcoef(*(np.argsort(np.argsort(each)) for each in (x, y)))[0, 1]


def draw_block_heterogeneity(budget, settings, spectra, distances, gap):
    """Spectra at initialisation; distances at both ends, and against the gap."""
    figure, (above, (*ends, against)) = panels(
        [settings[which].name for which in (0, 2, 5)], ["|eigenvalue|", "distance of the spectra"],
        "Above: spectra of the blocks at initialisation, one seed; solid: Q, dashed: P, from dark "
        f"(first layer) to light. Below, {budget.seeds} seeds: distance in decades, at the "
        f"beginning and after {budget.steps:,} steps, medians (dashed: {budget.optimizers[0]}, "
        f"solid: {budget.optimizers[1]}); and at the beginning.",
        below=("depth, Setting 1", "tails, E|x|$^2$ = 1", "ratio of final losses"))
    for ax, which in zip(above, (0, 2, 5)):
        blocks = spectra[which][0, 0, 0]
        for b in [b for b in range(len(blocks)) if b != len(blocks) - 2]:
            shade = matplotlib.colormaps["cividis"](0.9 * (b // 2) / (len(blocks) // 2))
            ax.plot(1 + np.arange(blocks.shape[1]), blocks[b, ::-1], "-" if b % 2 else "--",
                    color=shade)
        ax.set(yscale="log", xlabel="rank of the eigenvalue")
    for which, (setting, distance) in enumerate(zip(settings, distances)):
        group, shade = divmod(which, 3)
        for i in range(2):
            ends[group].plot(range(2), np.median(distance[i], axis=0), DASHES[i],
                             color=COLOURS[shade + 1], label=short(setting) if i else None)
        against.plot(distance[0, :, 0], gap[which], "o", color=COLOURS[shade + 1],
                     mfc="none" if group else None, label=short(setting))
    against.set(yscale="log", xlabel="distance at the beginning")
    against.legend(fontsize=9)
    for ax in ends:
        ax.set_xticks(range(2), ["start", "end"])
        ax.legend(fontsize=11)
    return figure


@experiment
def nonlinear_regression(budget=Budget(seeds=2, steps=100)):
    """C12: The picture is the same for nonlinear regression with an MLP before the attention.

    y = <w, f(x)> with a fixed random ReLU network f of width 10; a trainable ReLU MLP of width 30
    before three layers of linear attention with full matrices; batches of 2,000 (noise: against
    200,000), at most 2,000 steps. SGD at 0.01, the best of four on one seed; at the authors' 0.05
    it is only asked where it diverges. R_med and v^T H v from exact Hessian-vector products on one
    evaluation batch, at the start, in the middle and at the end. Claimed: Adam's final loss lower;
    the kurtosis of noise norm and coordinates above 3; R_med and v^T H v larger along SGD's path
    (mean of the last two points).
    """
    budget = budget._replace(steps=min(budget.steps, 2000))
    task, draws = (NONLINEAR_TASK,), max(5, budget.steps // 10)
    trained = train_all(task, budget)
    authors = train_all(task, budget._replace(optimizers=("SGD",), lr=dict(SGD=0.05)))
    (norms,), (tails,) = noise_tails(task, budget, draws, kurtosis=1)
    (at, conditions), (_, curvatures) = (along_path(function, task, trained, budget, 3, 1, 1)
                                         for function in (condition, smoothness))
    loss, conditions, curvatures = trained["loss"][0], conditions[0, ..., 0], curvatures[0, ..., 0]
    higher = np.log(conditions[0] / conditions[1])[:, -2:].mean(axis=-1)
    rougher = (curvatures[0] - curvatures[1])[:, -2:].mean(axis=-1)
    measured = final_losses("MLP", loss, trained["diverged"][0], budget.optimizers, above=1) | tails
    measured["MLP: SGD at 0.05 diverged at step"] = ", ".join(
        str(step) if step >= 0 else "none" for step in authors["diverged"][0, 0])
    measured["MLP: ratio of R_med"] = geometric(np.exp(higher), above=1)
    measured["MLP: v^T H v, SGD minus Adam"] = quantity(rougher, above=0)
    return draw_nonlinear_regression(budget, loss, norms, at, conditions, curvatures), finding(
        nonlinear_regression, budget, measured,
        dict(loss=loss, norms=norms, r_med=conditions, curvatures=curvatures),
        paper="loss, noise, R_med, smoothness", settings=task)


def draw_nonlinear_regression(budget, losses, norms, at, conditions, curvatures):
    """Loss, noise, R_med and smoothness."""
    figure, ((ax, density), (medians, smooth)) = panels(
        ["", ""], ["training loss", "$R_{med}$"],
        bands(budget, "running median (loss), value", NONLINEAR_TASK.batch) + " Noise: its norm at "
        f"initialisation, {norms.shape[1]:,} draws a seed, up to the 99.9 % point; dashed: the "
        "Gaussian of the same mean and variance (of the logarithm). $R_{med}$ and $v^T H v$: on "
        "one evaluation batch of 1,000 prompts.")
    draw_losses(ax, losses, budget.optimizers)
    ax.legend()
    draw_density(density, np.log10(norms.ravel()))
    density.set(xlabel="log10 of the noise norm", ylabel="density")
    draw_bands(medians, at, conditions, budget.optimizers, yscale="log", xlabel="iteration")
    draw_smoothness(smooth, at, curvatures, budget.optimizers)
    smooth.set(ylabel="$v^T H v$")
    for each in (density, smooth):
        each.yaxis.label.set_visible(True)
    return figure


@experiment
def screen(budget=Budget(seeds=2, steps=200, optimizers=("SGD", "Adam", "SignDescent"))):
    """Question: Which optimizer should I take, and how carefully must its rate be chosen?

    Every optimizer in Settings 1, 2 and 3 at ten rates, at most 500 steps. Ranked by the final loss
    at its best rate (geometric mean over the settings of its ratio to the best one). Besides: the
    good range, rates within a factor 2 of its best loss, as largest over smallest; steps until ten
    losses in a row lie below twice the best final loss (all of them if they never do); share of
    diverged runs over the grid; share of steps whose gradient norm is above ten times the median,
    at the best rate. Also written as screen.csv.
    """
    budget = budget._replace(steps=min(budget.steps, 500), lr={})  # the rates are the grid's
    rates, runs, chosen = tuned(PAPER_SETTINGS, budget, rate_grid)
    scores, norms = level(runs["loss"]), chosen["grad_norm"]  # (settings, rates, optimizers)
    spikes = norms > 10 * np.nanmedian(norms, axis=-1, keepdims=True)
    best, table = scores.min(axis=(1, 2)), []
    for j, setting in enumerate(PAPER_SETTINGS):
        for i, name in enumerate(budget.optimizers):
            score = scores[j, :, i]
            good = rates[j, i][good_range(score)]
            table.append(dict(
                setting=short(setting), optimizer=name, best_rate=chosen["lr"][j, i],
                final_loss=np.exp(score.min()), ratio_to_best=np.exp(score.min() - best[j]),
                good_range=good.max() / good.min() if len(good) else np.nan,
                steps_to_target=np.median(steps_to(chosen["loss"][j, i], 2 * np.exp(best[j]))),
                diverged=np.mean(runs["diverged"][j, :, i] >= 0), spikes=spikes[j, i].mean()))
    merit = {name: np.exp(np.mean([np.log(row["ratio_to_best"]) for row in table
                                   if row["optimizer"] == name]))
             for name in budget.optimizers}
    ranked = sorted(merit, key=merit.get)
    table.sort(key=lambda row: (ranked.index(row["optimizer"]), row["setting"]))
    measured = {"rank, by geometric mean of the ratio to the best": "; ".join(
        f"{place} {name} ({merit[name]:.3g})" for place, name in enumerate(ranked, 1))}
    line = ("rate {best_rate:<5g} loss {final_loss:<8.3g} good range {good_range:<5.3g} "
            "steps to target {steps_to_target:<5.0f} diverged {diverged:.0%} spikes {spikes:.1%}")
    measured |= {"{optimizer:<12} {setting}".format(**row): line.format(**row).replace("%", " %")
                 for row in table}
    return draw_rates(budget, runs["loss"]), finding(
        screen, budget, measured, dict(final=final_loss(runs["loss"])), table=table)


COST_N = (10, 20, 40, 80, 160)
COST_FORMS = ("softmax", "linear, textbook", "linear, Gram form")
COST_OTHERS = ("gradient, n = 20, d = 5, L = 3", "gradient, n = 20, d = 5, L = 8",
               "gradient, n = 60, d = 20, L = 8", "compression, n = 20, d = 5",
               "compression, n = 60, d = 20", "Hessian 150 x 150, n = 20, d = 5, L = 3")


@experiment
def attention_cost(budget=Budget()):
    """Cost: A gradient costs O(n^2) in the textbook form, the same for every n in the Gram form.

    The reason for the name 'linear attention': without softmax the sum over the context associates,
    so a prompt enters through its Gram matrix. Measured: the median of several calls on 1,000
    prompts, d = 5, L = 3, one BLAS thread, one process; the slope of log time against log n over
    the last three n, over as many repeats as the budget has seeds. Claimed: within 0.1 of 0 for the
    Gram form, above 1.5 for the others. Times differ from call to call, so nothing is taken from
    disk; steps and optimizers have no part in it.
    """
    budget, outcome = budget._replace(optimizers=Budget().optimizers), []  # none is used
    failed = in_parallel([(cost_seconds, (seed,), seed) for seed in range(budget.seeds)],
                         lambda _, seconds: outcome.append(seconds),
                         budget._replace(jobs=1, executor=None))
    if failed:
        raise RunFailed("\n".join(f"repeat {seed}: {error}" for seed, error in failed))
    seconds, others = map(np.array, zip(*outcome))
    slopes = [np.polyfit(np.log(COST_N[-3:]), np.log(each[:, -3:]).T, 1)[0]
              for each in seconds.swapaxes(0, 1)]
    bounds = (dict(above=1.5), dict(above=1.5), dict(above=-0.1, below=0.1))
    measured = {f"{form}: slope": quantity(slope, **bound)
                for form, slope, bound in zip(COST_FORMS, slopes, bounds)}
    for form, each in zip(COST_FORMS, 1e3 * np.median(seconds, axis=0)):
        measured[f"{form}: ms"] = ", ".join(f"{ms:.3g} at n = {n}" for n, ms in zip(COST_N, each))
    for name, ms in zip(COST_OTHERS, 1e3 * np.median(others, axis=0)):
        measured[f"{name}: ms"] = f"{ms:.3g}"

    def draw(ax, _):
        """A line for each form."""
        for i, (form, slope) in enumerate(zip(COST_FORMS, slopes)):
            draw_bands(ax, np.array(COST_N), 1e3 * seconds[None, :, i],
                       [f"{form}: slope {slope.mean():z.2f}"], i)
        ax.set(xscale="log", yscale="log", xlabel="context length n", xticks=COST_N,
               xticklabels=COST_N)
        ax.minorticks_off()

    figure = grid(
        ["1,000 prompts, d = 5, 3 layers, one core"], [("ms per gradient", draw)],
        f"Median and range of {len(seconds)} repeats; slopes over n = {COST_N[-3]} to "
        f"{COST_N[-1]}. The Gram matrices of the batch are made once, before.")
    return figure, finding(attention_cost, budget, measured, dict(seconds=seconds), settings=())


def cost_seconds(seed):
    """Seconds per gradient (forms, n), and the seconds of COST_OTHERS, each the median of several
    calls, after one that is not counted."""
    rng, gradient = np.random.default_rng(seed), linattn.loss_and_grad

    def seconds(calls, n, d, layers, call):
        prompts = data.sample_prompts(rng, 1000, n, d)
        arguments = linattn.init_params(rng, layers, d), prompts, linattn.compress(prompts)
        return np.median(timeit.repeat(lambda: call(*arguments), number=1, repeat=1 + calls)[1:])

    forms = ((3, lambda params, prompts, _: gradient(params, prompts, "softmax")),
             (3, lambda params, prompts, _: linattn.textbook_loss_and_grad(params, prompts)),
             (101, lambda params, _, gram: gradient(params, gram)))
    return np.array([[seconds(calls, n, 5, 3, call) for n in COST_N] for calls, call in forms]), [
        *(seconds(21, *sizes, forms[2][1]) for sizes in ((20, 5, 3), (20, 5, 8), (60, 20, 8))),
        *(seconds(21, n, d, 3, lambda _, prompts, __: linattn.compress(prompts))
          for n, d in ((20, 5), (60, 20))),
        seconds(3, 20, 5, 3, lambda params, _, gram: linattn.hessian(params, gram))]


# ---- The command line ----------------------------------------------------------------------------


def save(name, figure, found, out, slides=False):
    """Write NAME.png, .pdf, .txt (the caption), .npz and .json into the folder out, a table as
    NAME.csv; for slides NAME-1.png, .pdf, ... with one panel each, too."""
    out, kept = Path(out), {key: found[key] for key in found if key not in ("arrays", "table")}
    caption = f"{found['claim']}: {found['claimed']}\n{figure.get_supxlabel()}\n"
    texts = {"json": json.dumps(kept, indent=1, allow_nan=False) + "\n", "txt": caption}
    pictures = {name: figure}
    if slides:
        pictures |= {f"{name}-{i}": each for i, each in enumerate(single_panels(figure), 1)}
    with matplotlib.rc_context(STYLE):
        for stem, picture in pictures.items():
            for form, options in (("png", dict(dpi=120)),
                                  ("pdf", dict(metadata={"CreationDate": None}))):
                write(out / f"{stem}.{form}",
                      lambda file: picture.savefig(file, format=form, **options))
    write(out / f"{name}.npz", lambda file: np.savez_compressed(file, **found["arrays"]))
    if found["table"]:
        rows = [found["table"][0], *(row.values() for row in found["table"])]
        texts["csv"] = "".join(",".join(map(str, row)) + "\n" for row in rows)
    for suffix, text in texts.items():
        write(out / f"{name}.{suffix}", lambda file: file.write(text.encode()))


def single_panels(figure):
    """A copy of the figure for each of its panels, which fills it, in larger type."""
    for position, original in enumerate(figure.axes):
        if original.get_label() == "<colorbar>":
            continue
        copy = pickle.loads(pickle.dumps(figure))
        ax = copy.axes[position]
        for other in copy.axes:
            if other is not ax:
                other.remove()
        ax.set_subplotspec(GridSpec(1, 1, figure=copy)[0])
        ax.title.set_visible(True)
        ax.yaxis.label.set_visible(True)
        if ax.get_legend_handles_labels()[1]:
            ax.legend()
        for text in ax.findobj(Text):
            text.set_fontsize(1.5 * text.get_fontsize())
        yield copy


def report(out):
    """The table claim | paper | measured | budget | verdict of the findings in a folder, in
    Markdown."""
    if not Path(out).is_dir():
        raise Mistake(f"out: got {str(out)!r}, wants a folder with findings")
    rows = ["| claim | paper | measured, with 95 % interval over seeds | seeds, steps | verdict |",
            "| --- | --- | --- | --- | --- |"]
    for name in EXPERIMENTS:
        path = Path(out, f"{name}.json")
        if not path.exists():
            rows.append(f"| {name} | | no finding in this folder | | |")
            continue
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            bounded = [key for key, value in found["measured"].items()
                       if not isinstance(value, str) and {"above", "below"} & set(value)]
            shown = [f"{key}: {in_words(found['measured'][key])}"
                     for key in bounded or list(found["measured"])[:3]]
            rows.append(f"| {found['claim']} `{name}`: {found['claimed']} | {found['paper']} | "
                        f"{'<br>'.join(shown)} | {found['configuration']['seeds']}, "
                        f"{found['configuration']['steps']:,} | {found['verdict']} |")
        except (ValueError, LookupError, TypeError, AttributeError):
            raise Mistake(f"out: got {path}, wants a finding of this program") from None
    return "\n".join(rows)


def parse(arguments):
    """(options, [(experiment's name, Budget)]); exits with status 2 and one line on a mistake."""
    parser = argparse.ArgumentParser("experiments.py",
                                     description="Run an experiment; without a name, list them.")
    parser.error = lambda message: parser.exit(2, f"experiments.py: {message}\n")
    parser.add_argument("name", nargs="?", help="the experiment, or all, or report")
    spend = parser.add_mutually_exclusive_group()
    spend.add_argument("--full", action="store_true",
                       help="the paper's protocol: 6 seeds, 10,000 steps")
    spend.add_argument("--quick", action="store_true", help="a first look, in seconds")
    parser.add_argument("--seeds", type=int, help="seeds 0, 1, ...: how many")
    parser.add_argument("--steps", type=int, help="iterations of each run")
    parser.add_argument("--optimizers", nargs="+", metavar="NAME",
                        help="classes of optimizers.py, the one to compare with first")
    parser.add_argument("--lr", nargs="+", metavar="[NAME=]RATE", default=[],
                        help="learning rates: 0.01 for every optimizer, or Adam=0.01 for one")
    parser.add_argument("--jobs", type=int, help="processes (default: one for each core)")
    parser.add_argument("--out", help="folder for the results (default: results)")
    parser.add_argument("--slides", action="store_true", help="also one file for each panel")
    given = parser.parse_args(arguments)
    names = {None: [], "report": [], "all": EXPERIMENTS}.get(given.name, [given.name])
    if not set(names) <= set(EXPERIMENTS):
        parser.error(f"experiment: got {given.name!r}, wants one of {', '.join(EXPERIMENTS)}, "
                     "all, report")
    changes = FULL if given.full else QUICK if given.quick else {}
    changes = changes | {key: value for key, value in vars(given).items()
                         if key in Budget._fields and value is not None}
    budgets = [EXPERIMENTS[name].__defaults__[0]._replace(**changes) for name in names]
    try:
        return given, [(name, check(budget._replace(lr=parse_rates(budget.lr, budget.optimizers))))
                       for name, budget in zip(names, budgets)]
    except ValueError as error:
        parser.error(str(error))


def parse_rates(texts, names):
    """{optimizer: rate} from RATE (for all) and NAME=RATE (for one)."""
    rates = {}
    for text in texts:
        name, equals, rate = text.rpartition("=")
        try:
            rates |= dict.fromkeys([name] if equals else names, float(rate))
        except ValueError:
            raise ValueError(f"--lr: got {text!r}, wants RATE or NAME=RATE") from None
    return rates


def check(budget):
    """The budget, if it can be spent; else a ValueError that names what is wrong with it."""
    names = budget.optimizers

    def require(good, key, wants):
        if not good:
            raise ValueError(f"{key}: got {getattr(budget, key)!r}, wants {wants}")

    for key in ("seeds", "steps", "jobs"):
        value = getattr(budget, key)
        whole = isinstance(value, (int, np.integer)) and value is not True and 1 <= value < 10**6
        require(whole, key, "a whole number >= 1 (and below a million)")
    require(budget.executor is None or hasattr(budget.executor, "submit"), "executor",
            "a concurrent.futures.Executor")
    texts = isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names)
    require(texts and len(set(names)) == len(names) > 1, "optimizers",
            "the names of two or more, each once")
    require(isinstance(budget.lr, dict) and set(budget.lr) <= set(names) and all(
        isinstance(rate, (int, float)) and 0 < rate < 1e300 for rate in budget.lr.values()),
        "lr", f"a dict from some of {', '.join(names)} to numbers > 0")
    for name in names:
        cls = optimizers.by_name(name)
        try:
            cls(budget.lr.get(name, 0.01))
        except Exception as error:
            raise ValueError(f"optimizer: got {name}, wants a class of one argument, lr ({error})")
    require(isinstance(budget.out, (str, Path)) and str(budget.out), "out", "the name of a folder")
    try:
        for folder in (Path(budget.out), Path(budget.out, "runs")):
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        require(False, "out", f"a folder to write in ({error.strerror})")
    return budget._replace(optimizers=tuple(names), seeds=int(budget.seeds),
                           steps=int(budget.steps))


def main(arguments=None):
    """Run the command line; returns the exit status."""
    given, work = parse(arguments)
    status = 1
    try:
        if given.name is None:
            for name, function in EXPERIMENTS.items():
                print(f"{name:<24}{inspect.getdoc(function).splitlines()[0]}")
        if given.name == "report":
            print(report(given.out or Budget().out))
        for name, budget in work:
            figure, found = EXPERIMENTS[name](budget)
            save(name, figure, found, budget.out, given.slides)
            print("\n  ".join([
                f"{found['claim']}: {found['claimed']}", *found["lines"],
                f"verdict: {found['verdict']}", str(Path(budget.out, f"{name}.png"))]), flush=True)
        return 0
    except BrokenPipeError:  # the reader of our output left; the files are saved
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except RunFailed as error:
        print(error, file=sys.stderr)
    except Mistake as error:
        say(str(error))
        return 2
    except OSError as error:
        say(str(error))
    except KeyboardInterrupt:
        say("interrupted")
        status = 130
    if work and any(Path(work[0][1].out, "runs").glob("*.npz")):
        say("finished runs are kept; the same command does the rest")
    return status


if __name__ == "__main__":
    sys.exit(main())
