"""Every phenomenon as one function: `python experiments.py NAME` measures, draws and judges it.

    budget      how much to spend: seeds, steps, optimizers, learning rates, processes
    setting     a row of the paper's experiments: data, learning rates, clip limit, depth
    run         one training: a setting, an optimizer, a learning rate, a seed
    finding     what was claimed, what was measured, and the verdict that the numbers give

From the top: training, results on disk, statistics, drawing, the experiments, the command line.
Source: Ahn et al., ICLR 2024, arXiv 2310.01082; C1, C2, ... number its claims.
"""

import argparse
import ast
import contextlib
import functools
import hashlib
import inspect
import json
import multiprocessing
import os
import pickle
import platform
import signal
import statistics
import sys
import tempfile
import textwrap
import threading
import time
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.text import Text

import data
import linattn
import optimizers
from data import (DEEP, LARGE, LIGHT_TAILS, NONLINEAR, SETTING_1, SETTING_2, SETTING_3, SPHERICAL)


class Budget(NamedTuple):
    """What an experiment may spend. lr maps an optimizer's name to the rate that replaces its own."""

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


# ---- Training -----------------------------------------------------------------------------------


class Run(NamedTuple):
    """One training. Runs that differ in optimizer and lr alone see the same weights and batches."""

    optimizer: str
    lr: float
    data: dict  # arguments of sample_prompts
    clip: float
    seed: int
    steps: int
    batch: int = 1000
    layers: int = 3
    std: float = 0.05
    full: bool = False
    activation: str = "linear"
    every: int = 50  # steps between two snapshots

    def __str__(self):
        where = ", ".join(f"{key}={value}" for key, value in self.data.items())
        return f"{self.optimizer} (lr {self.lr:g}), {where}, L={self.layers}, seed {self.seed}"


def train(runs, blow_up=1e3, patience=20):
    """Train runs that share everything but optimizer and lr, each batch drawn once for all of them.

    Deep models overflow on a rare prompt (a polynomial of degree 3^L): such a step, whose loss or
    gradient is not finite, moves nothing, and counts as a loss of infinity. A run has diverged when
    this happened, or the loss was above blow_up times the first one, `patience` steps in a row.

    Returns one dict a run: loss and grad_norm (steps,), both taken before the step, the norm before
    clipping, and NaN from the step at which the run diverged; diverged, that step, or -1; and
    snapshots (count, 2, *params.shape), the params before and after steps 0, every, 2 every, ...
    If the optimizer raised an exception, the dict has its text as "error" and no more. As no batch
    is seen twice, the training loss of a batch is an unbiased test loss.
    """
    run = runs[0]
    init, stream = map(generator, np.random.SeedSequence(run.seed).spawn(2))
    start = linattn.init_params(init, run.layers, run.data["d"], run.std, run.full)
    snapshots = np.full((-(-run.steps // run.every), 2, *start.shape), np.nan)
    results = [dict(loss=np.full(run.steps, np.nan), grad_norm=np.full(run.steps, np.nan), diverged=-1,
                    snapshots=snapshots.copy(), params=start, lost=0,
                    step=optimizers.by_name(each.optimizer)(each.lr).step) for each in runs]
    going = list(results)
    with np.errstate(all="ignore"):  # a diverging run is reported, not warned about
        for t in range(run.steps):
            prompts = data.sample_prompts(stream, run.batch, **run.data)
            if run.activation == "linear":
                prompts = linattn.compress(prompts)
            for result in going:
                advance(result, t, prompts, run, blow_up, patience)
            going = [result for result in going if result["diverged"] < 0 and "error" not in result]
    return [{key: result[key] for key in ("error", *FIELDS) if key in result} for result in results]


FIELDS = ("loss", "grad_norm", "diverged", "snapshots")  # what is kept of a run


def advance(result, t, prompts, run, blow_up, patience):
    """Step t of one run: measure, then let the optimizer move its parameters."""
    params = result["params"]
    loss, grad = linattn.loss_and_grad(params, prompts, run.activation)
    norm = np.linalg.norm(grad)
    finite = np.isfinite(loss + norm)
    result["loss"][t], result["grad_norm"][t] = (loss, norm) if finite else (np.inf, np.inf)
    lost = not finite or loss > blow_up * result["loss"][0]
    result["lost"] = result["lost"] + 1 if lost else 0
    if result["lost"] == patience:
        result["diverged"], result["loss"][t], result["grad_norm"][t] = t, np.nan, np.nan
        return
    after = params
    if finite:
        try:
            clipped = optimizers.clip_global_norm(grad, run.clip)
            after = np.asarray(result["step"](params.copy(), clipped), float)
            if after.shape != params.shape:
                raise ValueError(f"step returned shape {after.shape}, wants {params.shape}, as params")
        except Exception as error:
            result["error"] = f"{type(error).__name__}: {error}"
            return
    if t % run.every == 0:
        result["snapshots"][t // run.every] = params, after
    if np.isfinite(after).all():
        result["params"] = after
    elif t + 1 < run.steps:
        result["diverged"] = t + 1


def generator(seed):
    """SFC64 draws normals in 5/6 of the time of numpy's default generator."""
    return np.random.Generator(np.random.SFC64(seed))


def learning_rate(setting, optimizer, budget):
    """The budget's rate for an optimizer, else the setting's."""
    rate = budget.lr.get(optimizer, setting.lr.get(optimizer))
    if rate is None:
        raise ValueError(f"lr: got none for {optimizer} in {setting.name}, wants --lr {optimizer}=RATE")
    return rate


def train_all(settings, budget, every=50):
    """What `train` returns for every optimizer and seed in every setting: one dict a setting, its
    arrays (optimizers, seeds, ...)."""
    runs = [Run(name, learning_rate(setting, name, budget), setting.data, setting.clip, seed,
                budget.steps, layers=setting.layers, full=setting.full,
                activation=setting.activation, every=every)
            for setting in settings for name in budget.optimizers for seed in range(budget.seeds)]
    results = measure(train, runs, budget)
    count = len(budget.optimizers) * budget.seeds
    return [stacked(results[i : i + count], len(budget.optimizers))
            for i in range(0, len(results), count)]


def stacked(results, rows):
    """[{name: array}] -> {name: arrays (rows, columns, ...)}"""
    return {name: np.array([each[name] for each in results]).reshape(
        rows, -1, *np.shape(results[0][name])) for name in results[0]}


# ---- Results on disk, and in parallel ------------------------------------------------------------


def measure(function, tasks, budget):
    """One dict of arrays a task: from disk where it was done before, else computed in parallel
    processes by function(*task). `train` takes a list instead: runs that share their batches.

    Each result is saved as soon as it is there. Raises RunFailed, naming them, if some could not be
    done; the others are kept.
    """
    keys = [fingerprint(function, task) for task in tasks]
    results = {i: found for i, key in enumerate(keys) if (found := load(key, budget)) is not None}
    groups, failed = {}, []
    for i, task in enumerate(tasks):
        if i not in results:
            together = json.dumps(task._replace(optimizer="", lr=0)) if function is train else i
            groups.setdefault(together, []).append(i)

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
    return [results[i] for i in range(len(tasks))]


def call(function, tasks):
    """[the result of each task], in a worker."""
    with np.errstate(all="ignore"):  # a diverging run is reported, not warned about
        return train(tasks) if function is train else [function(*task) for task in tasks]


def fingerprint(function, task):
    """What a stored result must agree with: its task, the code that computes it, numpy's version."""
    optimizer = task.optimizer if isinstance(task, Run) else None
    about = dict(function=function.__name__, code=code_digest(function, optimizer),
                 task=task._asdict() if isinstance(task, Run) else task, numpy=np.__version__)
    return json.dumps(about, sort_keys=True, default=lambda array: [
        array.shape, hashlib.sha256(np.ascontiguousarray(array)).hexdigest()])


@functools.cache
def code_digest(function, optimizer):
    """Hash of the code behind a result, without comments and docstrings: linattn, and the functions
    and classes that this one uses, directly or not."""
    trees = [tree_of(linattn)]
    used = [function, data.sample_prompts]
    if optimizer is not None:
        used += [optimizers.clip_global_norm, *optimizers.by_name(optimizer).__mro__[:-1]]
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
    """Write a file as a whole or not at all: save(file) to a temporary one, which is then renamed."""
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


def in_parallel(jobs, keep, budget):
    """keep(label, function(*arguments)) for every (function, arguments, label) of jobs, as they are
    done; returns [(label, error message)].

    A worker that dies takes its pool with it. What the pool left undone is tried once more, each
    in a pool of its own: then the one that dies is known.
    """
    errors, clock = [], time.monotonic()

    def attempt(some):
        """Returns the jobs that the pool left undone."""
        futures, undone = {}, []
        with executor(budget, len(some)) as pool:
            for job in some:
                try:
                    futures[pool.submit(job[0], *job[1])] = job
                except BrokenExecutor:
                    undone.append(job)
            for done, future in enumerate(as_completed(futures), 1):
                label = futures[future][2]
                try:
                    result = future.result()
                except BrokenExecutor:
                    undone.append(futures[future])
                except Exception as error:
                    errors.append((label, f"{type(error).__name__}: {error}"))
                else:
                    keep(label, result)
                    progress(done, len(some), clock)
        return undone

    try:
        for job in attempt(jobs) if jobs else []:
            errors += [(label, "its worker process died") for _, _, label in attempt([job])]
    finally:
        progress(None, len(jobs), clock)
    return errors


@contextlib.contextmanager
def executor(budget, jobs):
    """The budget's executor, or else processes of our own, with one BLAS thread each."""
    if budget.executor is not None:
        yield budget.executor
        return
    if multiprocessing.current_process().name != "MainProcess":  # imports an unguarded script again
        sys.exit(GUARD)
    with one_thread(), ProcessPoolExecutor(
            min(budget.jobs, jobs), multiprocessing.get_context("spawn"), follow_parent) as pool:
        try:
            yield pool
        except BaseException:  # Ctrl-C, a full disk: do not wait for the workers
            for child in multiprocessing.active_children():
                child.terminate()
            raise


@contextlib.contextmanager
def one_thread():
    """Child processes started inside have one BLAS thread: matrices this small gain from no more."""
    names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
    before = {name: os.environ[name] for name in names if name in os.environ}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name in names:
            del os.environ[name]
        os.environ.update(before)


def follow_parent():
    """In a worker: leave when the parent is gone, even by kill -9, and die of Ctrl-C in silence."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


GUARD = ("experiments.py: a script that calls an experiment needs `if __name__ == '__main__':` before "
         "the call, for the worker processes import the script")


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


def quantity(values, above=None, below=None, geometric=False):
    """What was measured, a value per seed: (geometric) mean and 95 % t interval over seeds; and the
    bound that the claim says it lies above, or below."""
    values = np.asarray(values, float)
    scale, back = (np.log, np.exp) if geometric else (np.asarray, np.asarray)
    with np.errstate(all="ignore"):  # log 0, log -1: there is no interval
        mean, low, high = (x if x is None else float(back(x)) for x in interval(scale(values)))
    found = dict(per_seed=numbers(values), mean=mean, interval_95=[low, high])
    found.update({key: bound for key, bound in (("above", above), ("below", below)) if bound is not None})
    return found


def interval(values):
    """(mean, low, high): mean over seeds with its 95 % t interval; None where it does not exist."""
    values = np.asarray(values, float)
    if len(values) == 0 or not np.isfinite(values).all():
        return None, None, None
    mean, dof = values.mean(), len(values) - 1
    if dof == 0:
        return float(mean), None, None
    half = t_quantile(dof) * values.std(ddof=1) / np.sqrt(dof + 1)
    return float(mean), float(mean - half), float(mean + half)


def t_quantile(dof, probability=0.975):
    """Quantile of Student's t: with t = sqrt(dof) tan(phi) its density is cos(phi)^(dof - 1)."""
    phi, width = np.linspace(-np.pi / 2, np.pi / 2, 100_001, retstep=True)
    middle = phi[:-1] + width / 2
    cdf = np.cumsum(np.cos(middle) ** (dof - 1))
    return np.sqrt(dof) * np.tan(np.interp(probability, cdf / cdf[-1], phi[1:]))


def numbers(values):
    """Floats that JSON can hold: None for NaN and infinity."""
    return [float(value) if np.isfinite(value) else None for value in values]


def judge(measured):
    """The verdict on a claim: what every quantity with a bound says of it."""
    cases = []  # (low, high) of what the claim says is positive
    for each in measured.values():
        if isinstance(each, str):
            continue
        low, high = each["interval_95"]
        low, high = (-np.inf, np.inf) if low is None else (low, high)
        if "above" in each:
            cases.append((low - each["above"], high - each["above"]))
        if "below" in each:
            cases.append((each["below"] - high, each["below"] - low))
    if any(high < 0 for _, high in cases):
        return "not reproduced"
    return "reproduced" if cases and all(low > 0 for low, _ in cases) else "inconclusive"


def in_words(value):
    """A quantity with its interval; a text as it is."""
    if isinstance(value, str):
        return value
    low, high = value["interval_95"]
    text = "unknown" if value["mean"] is None else f"{value['mean']:.3g}"
    return f"{text}, no interval" if low is None else f"{text} [{low:.3g}, {high:.3g}]"


def finding(experiment, budget, measured, arrays, paper="", settings=PAPER_SETTINGS, **configuration):
    """What an experiment returns beside its figure. The claim is its docstring's first line; paper is
    what is printed there; measured maps names to quantities and texts; the configuration is the
    budget's and the settings', where the last arguments do not say otherwise."""
    claim, claimed = inspect.getdoc(experiment).split("\n")[0].rstrip(".").split(": ", 1)
    verdict = judge(measured)
    if budget.optimizers != ("SGD", "Adam"):
        verdict = "not judged: the claim is about SGD and Adam"
    configuration = dict(
        seeds=budget.seeds, steps=budget.steps, optimizers=budget.optimizers,
        settings=[dict(setting._asdict(), lr=setting.lr | budget.lr) for setting in settings]
    ) | configuration
    versions = dict(python=platform.python_version(), numpy=np.__version__,
                    matplotlib=matplotlib.__version__, machine=platform.machine())
    return dict(claim=claim, claimed=claimed, paper=paper, verdict=verdict,
                lines=[f"{name}: {in_words(value)}" for name, value in measured.items()],
                measured=measured, configuration=configuration, versions=versions, arrays=arrays)


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


def panels(columns, rows, caption):
    """Figure and axes (rows, columns) in the shape of a slide: titles above, y labels at the left."""
    figure = Figure(figsize=(13.33, 7.5), layout="constrained")
    axes = figure.subplots(len(rows), len(columns), squeeze=False)
    for (i, j), ax in np.ndenumerate(axes):
        ax.set(title=columns[j], ylabel=rows[i])
        ax.title.set_visible(i == 0)
        ax.yaxis.label.set_visible(j == 0)
    figure.supxlabel(textwrap.fill(caption, 150), fontsize=12, color="#333333", x=0.01, ha="left")
    return figure, axes


def style(position):
    """Colour and dashes of the optimizer at this position."""
    return dict(color=COLOURS[position % 5], ls=DASHES[position % 5])


def draw_bands(ax, x, series, names, first=0):
    """Series (optimizers, seeds, points): median and range over seeds; X: where one diverged."""
    for position, (name, values) in enumerate(zip(names, series), first):
        alive = np.isfinite(values)
        shown = alive.any(axis=0)
        low, middle, high = np.nanquantile(values[:, shown], (0, 0.5, 1), axis=0)
        ax.fill_between(x[shown], low, high, color=style(position)["color"], alpha=0.25, lw=0)
        ax.plot(x[shown], middle, label=name, **style(position))
        for each in values[alive[:, 0] & ~alive[:, -1]]:
            last = np.flatnonzero(np.isfinite(each))[-1]
            ax.plot(x[last], each[last], "X", color=style(position)["color"], ms=10)


def draw_losses(ax, series, names, mean=True):
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


def in_blocks(series, function, count=50):
    """Centres of 50 equal parts of the last axis (steps), and function of each part."""
    edges = np.linspace(0, series.shape[-1], min(count, series.shape[-1]) + 1).astype(int)
    parts = [function(series[..., a:b], axis=-1) for a, b in zip(edges[:-1], edges[1:])]
    return (edges[:-1] + edges[1:] - 1) / 2, np.stack(parts, axis=-1)


def draw_density(ax, values, quantile=0.999):
    """Histogram up to a quantile; dashed, the Gaussian of the same mean and variance."""
    mean, std, right = values.mean(), values.std(), np.quantile(values, quantile)
    ax.hist(values, np.linspace(values.min(), right, 60), density=True, color=COLOURS[1], alpha=0.6)
    x = np.linspace(max(0, mean - 4 * std), right, 300)
    density = np.exp(-(((x - mean) / std) ** 2) / 2) / (std * np.sqrt(2 * np.pi))
    ax.plot(x, density, "--", color="#000000")
    ax.set(xlabel="noise norm")


EXPERIMENTS = {}  # filled below, in the order of the source


def experiment(function):
    """Enter a function into EXPERIMENTS; check its budget before, draw in our style."""

    @functools.wraps(function)
    def checked(budget=inspect.signature(function).parameters["budget"].default):
        budget = check(budget)
        with matplotlib.rc_context(STYLE):
            return function(budget)

    EXPERIMENTS[function.__name__] = checked
    return checked


# ---- The experiments -----------------------------------------------------------------------------


@experiment
def adam_vs_sgd(budget=Budget()):
    """C1: Adam beats SGD in Settings 1, 2 and 3.

    Figure 1 of the paper. Three layers, SGD and Adam with momentum 0.9 from the same weights on the
    same batches, gradient norm clipped at 1. Measured: the median training loss over the last tenth
    of the steps, and how many times lower it is for Adam, per seed. Claimed: more than once.
    """
    trained = train_all(PAPER_SETTINGS, budget)
    measured = {}
    for setting, runs in zip(PAPER_SETTINGS, trained):
        measured |= final_losses(setting.name, runs, budget.optimizers, above=1)
    return draw_adam_vs_sgd(PAPER_SETTINGS, budget, trained), finding(
        adam_vs_sgd, budget, measured, {key: np.array([runs[key] for runs in trained])
                                        for key in ("loss", "grad_norm", "diverged")},
        paper="loss curves; the authors' notebook ends Setting 1 near 8e-3 (SGD) and 1.7e-3 (Adam)")


def final_losses(label, runs, names, **bound):
    """Of one setting: the final loss of the first optimizer over that of each other one; how far the
    mean over the same steps lies above the median, which rare prompts decide; where runs diverged."""
    final = final_loss(runs["loss"])
    measured = {f"{label}: final loss {names[0]} / {name}":
                quantity(final[0] / each, geometric=True, **bound)
                for name, each in zip(names[1:], final[1:])}
    for name, each, loss in zip(names, final, last_tenth(runs["loss"])):
        measured[f"{label}: final loss {name}"] = quantity(each, geometric=True)
        measured[f"{label}: mean over median, {name}"] = f"{loss.mean() / np.median(loss):.3g}"
    diverged = [f"{names[i]}, seed {seed}, at step {runs['diverged'][i, seed]}"
                for i, seed in np.argwhere(runs["diverged"] >= 0)]
    return measured | ({f"{label}: diverged": "; ".join(diverged)} if diverged else {})


def last_tenth(series):
    """The last tenth of the last axis, the steps."""
    return series[..., -max(1, series.shape[-1] // 10) :]


def final_loss(loss):
    """The median over the last tenth of the steps."""
    return np.median(last_tenth(loss), axis=-1)


def draw_adam_vs_sgd(settings, budget, trained):
    """Two rows, loss and gradient norm; a column for each setting."""
    figure, axes = panels(
        [f"{setting.name} (n = {setting.data['n']})" for setting in settings],
        ["training loss", "gradient norm"],
        f"Thick: running median ({max(1, budget.steps // 50)}-step blocks), median over {budget.seeds} "
        "seeds; band: smallest to largest over seeds; thin: running mean of the loss, which leaves the "
        f"frame where rare prompts carry it. 3 layers; {budget.steps:,} steps, each on 1,000 fresh prompts, "
        "so that the training loss is a test loss; norm before clipping. X: diverged.")
    for column, runs in enumerate(trained):
        draw_losses(axes[0, column], runs["loss"], budget.optimizers)
        draw_losses(axes[1, column], runs["grad_norm"], budget.optimizers, mean=False)
    axes[0, 0].legend()
    return figure


@experiment
def gradient_noise(budget=Budget()):
    """C2: Stochastic gradient noise is heavy-tailed in Settings 1, 2 and 3.

    Figure 2. At initialisation, the norm of g_batch - g_big: gradients on 1,000 and on 100,000 fresh
    prompts; as many draws as the budget has steps, for each seed's initial weights. Measured: the
    skewness of the norm and its kurtosis (a Gaussian has 0 and 3), and the kurtosis of the
    coordinates. A few draws carry the kurtosis, so it is averaged over seeds on a logarithmic scale.
    """
    norms, tails = noise_tails(PAPER_SETTINGS, budget, budget.steps, skewness=0, kurtosis=1)
    measured = {name: value for each in tails for name, value in each.items()}
    return draw_gradient_noise(PAPER_SETTINGS, norms), finding(
        gradient_noise, budget, measured, dict(norms=norms),
        paper="histograms; Setting 1: about 2.1, right tail to 3.6", batch=1000, big=100_000)


def noise_tails(settings, budget, draws, skewness=None, kurtosis=None):
    """For each setting the noise norms (seeds, draws), and for each their tail figures; the last two
    arguments are the bounds that a claim sets."""
    tasks = [(setting.data, setting.layers, seed, draws) for setting in settings
             for seed in range(budget.seeds)]
    results = measure(noise, tasks, budget)
    both = stacked(results, len(settings))
    return both["norms"], [{
        f"{setting.name}: skewness of the noise norm": quantity(moment(norms, 3), above=skewness),
        f"{setting.name}: kurtosis of the noise norm / 3":
            quantity(moment(norms, 4) / 3, above=kurtosis, geometric=True),
        f"{setting.name}: kurtosis of the noise coordinates / 3":
            quantity(coordinates / 3, geometric=True)}
        for setting, norms, coordinates in zip(settings, both["norms"], both["kurtosis"])]


def noise(arguments, layers, seed, draws):
    """Norms (draws,) of the gradient noise, and the mean over coordinates of their kurtosis."""
    init, stream = map(generator, np.random.SeedSequence(seed).spawn(2))
    params = linattn.init_params(init, layers, arguments["d"])

    def gradient():
        return linattn.loss_and_grad(params, data.sample_prompts(stream, **arguments))[1]

    big = sum(gradient() for _ in range(100)) / 100  # 100 batches of 1,000
    noises = np.array([(gradient() - big).ravel() for _ in range(draws)])
    moving = noises[:, noises.any(axis=0)]  # the last P block has no gradient
    return dict(norms=np.linalg.norm(noises, axis=1), kurtosis=moment(moving.T, 4).mean())


def moment(values, order):
    """Standardised central moment over the last axis: 3 is skewness, 4 is kurtosis."""
    centred = values - values.mean(axis=-1, keepdims=True)
    return (centred**order).mean(axis=-1) / values.std(axis=-1) ** order


def draw_gradient_noise(settings, norms):
    """Histograms with the Gaussian of the same mean and variance; normal quantile plots below."""
    figure, axes = panels(
        [setting.name for setting in settings], ["density", "noise norm"],
        "Norm of g(1,000 prompts) - g(100,000 prompts) at initialisation, 3 layers; "
        f"{norms[0].shape[1]:,} draws for each of {norms[0].shape[0]} seeds' initial weights, pooled. "
        "Histograms up to the 99.9 % point. "
        "Dashed: the Gaussian of the same mean and variance. A heavy right tail lies above the dashed "
        "line, at the right.")
    normal = statistics.NormalDist()
    for (top, bottom), each in zip(axes.T, norms):
        values = np.sort(each.ravel())
        draw_density(top, values)
        ranks = np.unique(np.geomspace(1, len(values), 400).astype(int))
        ranks = np.unique(np.concatenate([ranks - 1, len(values) - ranks]))
        theory = np.array([normal.inv_cdf((rank + 0.5) / len(values)) for rank in ranks])
        bottom.plot(theory, values[ranks], "o", ms=4, color=COLOURS[1])
        bottom.plot(theory, values.mean() + values.std() * theory, "--", color="#000000")
        bottom.set(xlabel="normal quantile")
    return figure


def evaluation_batch(arguments, k):
    """Evaluation batch k of 1,000 prompts, in Gram form; the same for every run."""
    return linattn.compress(data.sample_prompts(generator([2310, k]), **arguments))


def along(function, settings, trained, budget, at, *options):
    """function(data, snapshots, *options) for the snapshots number `at` of every run; one dict a
    setting, its arrays (optimizers, seeds, ...)."""
    tasks = [(setting.data, path, *options) for setting, runs in zip(settings, trained)
             for path in np.concatenate(runs["snapshots"])[:, at]]
    results, rows = measure(function, tasks, budget), len(trained[0]["loss"])
    count = len(results) // len(settings)
    return [stacked(results[i : i + count], rows) for i in range(0, len(results), count)]


@experiment
def condition_number(budget=Budget(seeds=3)):
    """C3: R_med is larger along SGD's path than along Adam's.

    Figure 3 and table 1. R_med = max |H_ii| / median |H_ii| over the diagonal of the Hessian; the
    table holds R_med of SGD over that of Adam at iterations 750 and 1250, on one evaluation batch of
    1,000 prompts. Here: on many, and on the Hessian pooled over all of them, and, from 2,000 steps on,
    for other rates, matrices and seeds. Claimed: above 1, on the typical batch (median) as well as pooled.
    """
    settings, batches = PAPER_SETTINGS, int(np.clip(budget.steps // 100, 2, 100))
    trained = train_all(settings, budget)
    every, last = 50, budget.steps - 1
    iterations = [t for t in (750, 1250) if t <= last] or [last // every * every]
    tables = [found["diagonals"] for found in along(
        hessian_diagonals, settings, trained, budget, [t // every for t in iterations], batches)]
    path, typical = r_med_along(settings, trained, budget)
    sizes = sorted({size for size in (1, 10, 100) if size <= batches} | {batches})
    ratios = [{size: np.divide(*r_med(grouped(table, size))[:2]) for size in sizes} for table in tables]
    measured = {}
    for setting, ratio, paper in zip(settings, ratios, PAPER_C3):
        for j, t in enumerate(iterations):
            one, label = ratio[1][:, j], f"{setting.name}, iteration {t}"  # (seeds, batches)
            low, high = np.quantile(one, (0.05, 0.95))
            mean, std = one[:, 0].mean(), one[:, 0].std(ddof=min(1, len(one) - 1))
            measured |= {
                f"{label}, typical batch": quantity(np.median(one, axis=1), above=1, geometric=True),
                f"{label}, pooled {batches},000": quantity(ratio[batches][:, j, 0], above=1, geometric=True),
                f"{label}, first batch": f"{mean:.3g} ({std:.2g}), paper {paper.get(t, 'none')}",
                f"{label}, 90 % of single batches": f"{low:.3g} to {high:.3g}"}
    causes = r_med_causes(settings, budget, iterations[0]) if budget.steps >= 2000 else {}
    for name, values in causes.items():
        for setting, each in zip(settings, values):
            measured[f"{setting.name}, iteration {iterations[0]}, {name}"] = quantity(each, geometric=True)
    return draw_condition_number(settings, budget, path, typical, ratios, causes, iterations[0]), finding(
        condition_number, budget, measured, dict(table=r_med(np.array(tables)), along=np.array(typical)),
        paper="; ".join(f"{setting.name[:9]}: {' and '.join(paper.values())}"
                        for setting, paper in zip(settings, PAPER_C3)))


PAPER_C3 = (  # mean (standard deviation) of the ratio over seeds, table 1 of the paper
    {750: "1.76 (0.40)", 1250: "1.58 (0.41)"},
    {750: "3.14 (0.97)", 1250: "5.98 (2.86)"},
    {750: "9.57 (13.3)", 1250: "6.53 (3.55)"},
)


def r_med_causes(settings, budget, t):
    """{what was changed: [typical ratio of R_med at iteration t (seeds,) for each setting]}"""
    short = budget._replace(steps=min(budget.steps, t + 50), lr={})
    scaled = {factor: [setting._replace(lr={name: factor * learning_rate(setting, name, budget)
                                            for name in budget.optimizers}) for setting in settings]
              for factor in (0.5, 1, 2)}
    full = [setting._replace(full=True) for setting in scaled[1]]
    found = {}
    for name, changed, seeds in (("half the rates", scaled[0.5], 1), ("twice the rates", scaled[2], 1),
                                 ("full matrices", full, 1), (f"{3 * budget.seeds} seeds", scaled[1], 3)):
        spend = short._replace(seeds=seeds * budget.seeds)
        diagonals = along(hessian_diagonals, changed, train_all(changed, spend), spend, [t // 50], 5)
        found[name] = [np.median(np.divide(*r_med(each["diagonals"])[:2, :, 0]), axis=-1)
                       for each in diagonals]
    return found


def r_med_along(settings, trained, budget, every=50):
    """Ten iterations, and R_med there on the typical of up to four evaluation batches, (optimizers,
    seeds, 10) for each setting."""
    batches = int(np.clip(budget.steps // 500, 1, 4))
    at = np.unique(np.linspace(0, trained[0]["snapshots"].shape[2] - 1, 10).astype(int))
    found = along(hessian_diagonals, settings, trained, budget, at, batches)
    return every * at, [np.nanmedian(r_med(each["diagonals"]), axis=-1) for each in found]


def hessian_diagonals(arguments, path, batches):
    """Hessian diagonals (points, batches, p) on the first evaluation batches; NaN after divergence."""
    diagonals = np.full((len(path), batches, path[0, 0].size), np.nan)
    for k in range(batches):
        prompts = evaluation_batch(arguments, k)
        for i, theta in enumerate(path[:, 0]):
            if np.isfinite(theta).all():
                diagonals[i, k] = linattn.hessian_diagonal(theta, prompts).ravel()
    return dict(diagonals=diagonals)


def grouped(diagonals, size):
    """Diagonals of the Hessian on evaluation batches `size` times as large: means over groups."""
    *lead, batches, p = diagonals.shape
    count = batches // size
    return diagonals[..., : count * size, :].reshape(*lead, count, size, p).mean(axis=-2)


def r_med(diagonal):
    """The robust condition number max |H_ii| / median |H_ii| over the last axis."""
    return np.abs(diagonal).max(axis=-1) / np.median(np.abs(diagonal), axis=-1)


def draw_condition_number(settings, budget, path, typical, ratios, causes, t):
    """R_med along the paths; the ratio against the size of the evaluation batch, and its causes."""
    figure, axes = panels(
        [setting.name for setting in settings],
        ["$R_{med}$", *["ratio of $R_{med}$"] * (2 if causes else 1)],
        f"Above: typical of up to 4 evaluation batches of 1,000 prompts; line: median, band: smallest to "
        f"largest of {budget.seeds} seeds. Next: {budget.optimizers[0]} over {budget.optimizers[1]} at "
        f"iteration {t}, a dot for each seed and evaluation batch; line: median. "
        + ("Below: the same on the typical of 5 batches, with something changed; a dot for each seed, bar: "
        "median. ") * bool(causes) + "Dashed: 1, no difference.")
    for column, ratio in enumerate(ratios):
        top, middle, *bottom = axes[:, column]
        draw_bands(top, path, typical[column], budget.optimizers)
        top.set(yscale="log", xlabel="iteration")
        size = 1000 * np.array(list(ratio))
        for x, values in zip(size, ratio.values()):
            dots = values[:, 0].ravel()
            middle.plot(x * np.geomspace(0.8, 1.25, len(dots)), dots, "o", ms=3, alpha=0.35, color=COLOURS[2])
        middle.plot(size, [np.median(values[:, 0]) for values in ratio.values()], "k-", marker="s")
        middle.set(xscale="log", yscale="log", xlabel="prompts in the evaluation batch")
        middle.set_xticks(size, [f"{each:,}" for each in size], minor=False)
        middle.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
        middle.axhline(1, color="#000000", ls="--", lw=1)
        for ax in bottom:
            for x, values in enumerate(causes.values()):
                dots = values[column]
                ax.plot(x + np.linspace(-0.2, 0.2, len(dots)), dots, "o", ms=4, alpha=0.5, color=COLOURS[3])
                ax.plot(x, np.median(dots), "k_", ms=30, mew=3)
            ax.set(yscale="log")
            ax.set_xticks(range(len(causes)), [name.replace(" ", "\n", 1) for name in causes])
            ax.axhline(1, color="#000000", ls="--", lw=1)
    axes[0, 0].legend()
    return figure


@experiment
def directional_smoothness(budget=Budget(seeds=3)):
    """C4: Directional smoothness is smaller along Adam's path.

    Figure 4. v^T H v for the direction v of each step, H at the point before it, on evaluation
    batches of 1,000 prompts. Measured, per seed: the median over the path without its first tenth, of
    SGD's minus Adam's, for the typical batch (the median over batches at each point) and for all
    pooled (the mean). Claimed: above 0, for both.
    """
    settings, batches = PAPER_SETTINGS, int(np.clip(budget.steps // 500, 2, 10))
    trained = train_all(settings, budget)
    at = np.unique(np.linspace(0, trained[0]["snapshots"].shape[2] - 1, 50).astype(int))
    curvatures = [found["curvatures"] for found in along(
        step_curvatures, settings, trained, budget, at, batches)]
    measured = {}
    for setting, values in zip(settings, curvatures):
        for name, points in (("typical batch", np.median(values, -1)), ("pooled", values.mean(-1))):
            level = np.median(points[..., len(at) // 10 :], axis=-1)  # (optimizers, seeds)
            pair = ", ".join(f"{each} {np.median(v):.3g}" for each, v in zip(budget.optimizers, level))
            measured[f"{setting.name}, {name}: {pair}; difference"] = quantity(level[0] - level[1], above=0)
        measured[f"{setting.name}, negative"] = ", ".join(
            f"{name} {100 * (each < 0).mean():.0f} %" for name, each in zip(budget.optimizers, values))
    return draw_directional_smoothness(settings, budget, 50 * at, curvatures), finding(
        directional_smoothness, budget, measured, dict(curvatures=np.array(curvatures)), paper="curves")


def step_curvatures(arguments, path, batches):
    """v^T H v (points, batches) for pairs (before, after) of a path; NaN where a run had diverged."""
    curvatures = np.full((len(path), batches), np.nan)
    for k in range(batches):
        prompts = evaluation_batch(arguments, k)
        for i, (before, after) in enumerate(path):
            if np.isfinite(after).all() and (after != before).any():
                curvatures[i, k] = linattn.curvature(before, after - before, prompts)
    return dict(curvatures=curvatures)


def draw_directional_smoothness(settings, budget, iterations, curvatures):
    """Typical batch above, pooled below; linear around 0, so that negative values show."""
    figure, axes = panels(
        [setting.name for setting in settings], ["typical batch", "pooled"],
        f"$v^T H v$, v the direction of the step; {curvatures[0].shape[-1]} evaluation batches of 1,000 "
        f"prompts: their median above, their mean below. Line: median over {budget.seeds} seeds, band: "
        "smallest to largest. Logarithmic scale, linear between the two ticks nearest to 0.")
    for column, values in enumerate(curvatures):
        for ax, series in zip(axes[:, column], (np.median(values, -1), values.mean(-1))):
            draw_bands(ax, iterations, series, budget.optimizers)
            linear = 10 ** np.floor(np.log10(np.nanmedian(np.abs(series))))
            ax.set_yscale("symlog", linthresh=linear)
            decades = np.arange(np.log10(linear), np.log10(np.nanmax(np.abs(series))) + 1)
            ticks = 10.0 ** decades[:: 1 + len(decades) // 4]
            ax.set(yticks=[*-ticks[::-1], 0, *ticks], ylim=ax.get_ylim(), xlabel="iteration")
            ax.axhline(0, color="#000000", lw=1)
    axes[0, 0].legend()
    return figure


@experiment
def generalized_smoothness(budget=Budget(seeds=1)):
    """C5: Smoothness grows with the gradient norm.

    Figure 5, (L0, L1)-smoothness. Along the first 2,000 steps of Adam, on evaluation batches of 1,000
    prompts: v^T H v and, on the first batch, the spectral norm of H, against the norm of the gradient
    at the same point and on the same batch. Measured, for three times the budget's seeds: the slope of
    log against log (directional: median over batches, where v^T H v > 0), and L0, L1 of the line
    v^T H v = L0 + L1 |g| through the typical points. Claimed: both slopes above 0.
    """
    settings, batches = PAPER_SETTINGS, int(np.clip(budget.steps // 500, 2, 4))
    spend = budget._replace(seeds=3 * budget.seeds, steps=min(budget.steps, 2000),
                            optimizers=budget.optimizers[-1:])
    trained = train_all(settings, spend)
    at = range(trained[0]["snapshots"].shape[2])
    found = along(smoothness_points, settings, trained, spend, at, batches)
    measured = {}
    for setting, points in zip(settings, found):
        g, c, s = (points[key][0] for key in ("norms", "curvatures", "spectral"))
        measured |= {
            f"{setting.name}: slope of the directional smoothness": quantity(
                [np.median([log_slope(*batch) for batch in zip(*each)]) for each in
                 zip(g.swapaxes(1, 2), c.swapaxes(1, 2))], above=0),
            f"{setting.name}: slope of the spectral norm": quantity(
                [log_slope(*each) for each in zip(g[..., 0], s)], above=0)}
        x, y = np.median(g, axis=-1).ravel(), np.median(c, axis=-1).ravel()
        L1, L0 = np.polyfit(x[np.isfinite(y)], y[np.isfinite(y)], 1)
        measured[f"{setting.name}: line"] = (f"L0 = {L0:.3g}, L1 = {L1:.3g}; "
                                             f"{100 * (c <= 0).mean():.0f} % of v^T H v negative")
    return draw_generalized_smoothness(settings, spend, found), finding(
        generalized_smoothness, budget, measured,
        {key: np.array([points[key] for points in found]) for key in found[0]}, paper="positive slope",
        seeds=spend.seeds, steps=spend.steps)


def smoothness_points(arguments, path, batches):
    """Gradient norm and v^T H v (points, batches); the spectral norm of H (points,) on the first
    batch, at every fourth point, for it needs a whole Hessian."""
    norms, spectral = np.full((len(path), batches), np.nan), np.full(len(path), np.nan)
    for i, (theta, after) in enumerate(path):
        for k in range(batches if np.isfinite(after).all() else 0):
            prompts = evaluation_batch(arguments, k)
            norms[i, k] = np.linalg.norm(linattn.loss_and_grad(theta, prompts)[1])
            if k == 0 and i % 4 == 0:
                spectral[i] = np.abs(np.linalg.eigvalsh(linattn.hessian(theta, prompts))).max()
    return dict(norms=norms, spectral=spectral, **step_curvatures(arguments, path, batches))


def log_slope(x, y):
    """Slope of log y against log x, over the points where both are positive."""
    good = (x > 0) & (y > 0)
    return np.polyfit(np.log(x[good]), np.log(y[good]), 1)[0] if good.sum() > 1 else np.nan


def draw_generalized_smoothness(settings, budget, found):
    """Directional smoothness above, spectral norm below, against the gradient norm."""
    figure, axes = panels(
        [setting.name for setting in settings], ["$v^T H v$", "spectral norm of H"],
        f"{budget.optimizers[-1]}, {budget.steps:,} steps, {budget.seeds} seeds; above: every 50 steps, "
        f"{found[0]['norms'].shape[-1]} evaluation batches of 1,000 prompts (where $v^T H v > 0$), "
        "below: the "
        "first of them, every 200 steps. Colour: iteration, from dark (start) to light. Line: least squares "
        "in the logarithms, all points together.")
    for column, points in enumerate(found):
        g = points["norms"][0]
        when = np.broadcast_to(50 * np.arange(g.shape[1])[:, None], g.shape)
        for ax, x, y, t in ((axes[0, column], g, points["curvatures"][0], when),
                            (axes[1, column], g[..., 0], points["spectral"][0], when[..., 0])):
            good = (x > 0) & (y > 0)
            drawn = ax.scatter(x[good], y[good], c=t[good], s=14, alpha=0.7, cmap="cividis",
                               vmin=0, vmax=budget.steps)
            slope, offset = np.polyfit(np.log(x[good]), np.log(y[good]), 1)
            ends = np.array([x[good].min(), x[good].max()])
            ax.plot(ends, np.exp(offset) * ends**slope, "k-", label=f"slope {slope:.2f}")
            ax.set(xscale="log", yscale="log", xlabel="gradient norm")
            ax.tick_params(axis="x", which="minor", labelbottom=False)
            ax.legend()
    figure.colorbar(drawn, ax=axes, label="iteration")
    return figure


@experiment
def softmax_vs_linear(budget=Budget(seeds=2, steps=400)):
    """C6: Linear attention learns this task much faster than softmax attention.

    Three layers of linear, ReLU and softmax attention from the same weights on the same batches of
    Setting 1, with the budget's last optimizer; learning rates from `learning_rates`. Measured: the
    final loss (median over the last tenth of the steps) over that of linear attention, and the first
    step from which ten losses in a row are below half of the first one (the last step if none is).
    Claimed: both ratios above 1 for both kinds of softmax. At most two seeds.
    """
    budget = budget._replace(seeds=min(budget.seeds, 2))
    settings, spend = (SETTING_1, *NONLINEAR), budget._replace(optimizers=budget.optimizers[-1:])
    losses = np.array([runs["loss"][0] for runs in train_all(settings, spend)])  # (kinds, seeds, steps)
    final = final_loss(losses)
    half = steps_to(losses, losses[..., :1] / 2)
    measured = {}
    for i, (setting, bound) in enumerate(zip(NONLINEAR, (None, 1, 1)), 1):
        measured |= {f"{setting.name} / linear: final loss":
                     quantity(final[i] / final[0], above=bound, geometric=True),
                     f"{setting.name} / linear: steps to half the loss":
                     quantity(half[i] / half[0], above=bound, geometric=True)}
    for setting, f, h in zip(settings, final, half):
        name = "linear" if setting is SETTING_1 else setting.name
        measured[f"{name}: final loss"] = quantity(f, geometric=True)
        measured[f"{name}: steps to half the loss"] = f"{np.median(h):.0f}"
    return draw_softmax_vs_linear(settings, spend, losses), finding(
        softmax_vs_linear, budget, measured, dict(loss=losses), paper="curve", settings=settings)


def steps_to(losses, target):
    """First step (..., ) from which ten losses in a row are below target; the last if none is."""
    below = np.pad(losses < target, [(0, 0)] * (losses.ndim - 1) + [(0, 9)])
    ten = np.lib.stride_tricks.sliding_window_view(below, 10, axis=-1).all(axis=-1)
    return np.where(ten.any(axis=-1), ten.argmax(axis=-1) + 1, losses.shape[-1])


def draw_softmax_vs_linear(settings, budget, losses):
    """Losses (kinds, seeds, steps) in one panel."""
    figure, ((ax,),) = panels(
        [f"3 layers, {SETTING_1.name}, {budget.optimizers[-1]}"], ["training loss"],
        f"Running median, median over {budget.seeds} seeds; band: smallest to largest. "
        f"{budget.steps:,} steps, each on 1,000 fresh prompts, the same for every kind. "
        "softmax: weights over the n context keys sum to 1; "
        "softmax/n: the authors' code, over all n + 1 keys, without the query's own, divided by n.")
    rates = [learning_rate(setting, budget.optimizers[-1], budget) for setting in settings]
    names = ["linear", *(setting.name for setting in settings[1:])]
    draw_losses(ax, losses, [f"{name} (lr {rate:g})" for name, rate in zip(names, rates)], mean=False)
    ax.legend()
    return figure


@experiment
def larger_model(budget=Budget(seeds=2, steps=200)):
    """C7: The picture is the same for L = 8, d = 20, n = 60.

    Loss and gradient norm as in C1, gradient noise as in C2 (a tenth as many draws as steps); 6,400
    parameters. Claimed: Adam's final loss lower, noise skewed to the right with a kurtosis above 3.
    At most three seeds are trained.
    """
    (runs,) = train_all((LARGE,), budget._replace(seeds=min(budget.seeds, 3)), every=500)
    (norms,), (tails,) = noise_tails((LARGE,), budget, max(5, budget.steps // 10), skewness=0, kurtosis=1)
    measured = final_losses(LARGE.name, runs, budget.optimizers, above=1) | tails
    return draw_larger_model(budget, runs, norms), finding(
        larger_model, budget, measured, dict(loss=runs["loss"], grad_norm=runs["grad_norm"], norms=norms),
        paper="loss curve, noise histogram", settings=(LARGE,), trained_seeds=min(budget.seeds, 3))


def draw_larger_model(budget, runs, norms):
    """Loss and gradient norm of runs (optimizers, seeds, steps); noise norms (seeds, draws)."""
    figure, axes = panels(
        ["training loss", "gradient norm", "gradient noise"], [LARGE.name],
        f"Running median, median over {len(runs['loss'][0])} seeds; band: smallest to largest. "
        f"{budget.steps:,} steps, each on 1,000 fresh prompts; norm before clipping. "
        "X: diverged. Noise: norm of g(1,000 prompts) - g(100,000 prompts) at initialisation, "
        f"{norms.shape[1]:,} draws for each of "
        f"{len(norms)} seeds, up to the 99.9 % point; dashed: the Gaussian of the same mean and variance.")
    for ax, key in zip(axes[0], ("loss", "grad_norm")):
        draw_losses(ax, runs[key], budget.optimizers, mean=False)
    draw_density(axes[0, 2], norms.ravel())
    axes[0, 0].legend()
    return figure


def study(settings, budget, ahead=()):
    """What C8 and C9 ask of each setting: training, noise, R_med along the path; and its figures:
    final losses, tails, and the typical ratio of R_med (median over the path) per seed. `ahead` are
    the settings in which Adam is claimed to end lower."""
    trained = train_all(settings, budget)
    norms, tails = noise_tails(settings, budget, max(5, budget.steps // 5))
    path, typical = r_med_along(settings, trained, budget)
    measured, ratios = {}, [np.nanmedian(each[0] / each[1], axis=-1) for each in typical]
    for setting, runs, tail, ratio in zip(settings, trained, tails, ratios):
        bound = dict(above=1) if setting in ahead else {}
        measured |= final_losses(setting.name, runs, budget.optimizers, **bound) | tail
        measured[f"{setting.name}: ratio of R_med"] = quantity(ratio, geometric=True)
    return trained, norms, path, typical, ratios, measured


def draw_study(settings, budget, trained, norms, path, typical, columns):
    """Loss, noise and R_med, a column for each setting."""
    figure, axes = panels(
        columns, ["training loss", "noise density", "$R_{med}$"],
        "Above: running median of the loss. Middle: norm of the gradient noise at initialisation, "
        f"{norms[0].shape[1]:,} draws for each seed, up to the 99 % point; dashed: the Gaussian of the "
        "same mean and variance. Below: typical of up to 4 evaluation "
        f"batches of 1,000 prompts. Line: median of {budget.seeds} seeds; band: smallest to largest. "
        f"{budget.steps:,} steps, each on 1,000 fresh prompts. X: diverged.")
    for (top, middle, bottom), runs, each, values in zip(axes.T, trained, norms, typical):
        draw_losses(top, runs["loss"], budget.optimizers, mean=False)
        draw_density(middle, each.ravel(), 0.99)
        draw_bands(bottom, path, values, budget.optimizers)
        bottom.set(yscale="log", xlabel="iteration")
    axes[0, 0].legend()
    return figure


@experiment
def heavy_tails(budget=Budget(seeds=3, steps=600)):
    """C8: Heavy-tailed x makes heavier noise, slower training and a larger R_med ratio than spherical x.

    Three tails at one scale, E|x|^2 = 1: x on the unit sphere, Gaussian, and the paper's
    Gamma(0.1, 10), whose E|x|^2 is 1 as well; the middle column is ours. Claimed, Gamma against the
    sphere: kurtosis of the noise norm larger; ratio of R_med larger; more steps to half the loss, for
    both optimizers; and Adam's final loss lower than SGD's in both.
    """
    settings = (SPHERICAL, LIGHT_TAILS, SETTING_3)
    trained, norms, path, typical, ratios, measured = study(
        settings, budget, ahead=(SPHERICAL, SETTING_3))
    loss = [runs["loss"] for runs in trained]
    half = [steps_to(each, each[..., :1] / 2) for each in loss]
    tail = moment(norms, 4)
    claims = {"kurtosis of the noise norm": tail[2] / tail[0], "ratio of R_med": ratios[2] / ratios[0]}
    claims |= {f"{name}, steps to half the loss": half[2][i] / half[0][i]
               for i, name in enumerate(budget.optimizers)}
    measured |= {f"Heavy / spherical: {name}": quantity(values, above=1, geometric=True)
                 for name, values in claims.items()}
    return draw_study(settings, budget, trained, norms, path, typical, [
        f"{setting.name} (E|x|$^2$ = 1)" for setting in settings]), finding(
        heavy_tails, budget, measured, dict(loss=np.array(loss), norms=norms,
                                            r_med=np.array(typical)), paper="3 rows of plots",
        settings=settings)


@experiment
def depth(budget=Budget(seeds=2, steps=300)):
    """C9: With depth the Adam-SGD gap, the noise tails and the R_med ratio grow, and the loss falls.

    L = 2, 4, 6, 8 layers in Setting 1. Claimed: the final loss of SGD over Adam's is larger at L = 8
    than at 2; the final loss of each is lower; the kurtosis of the noise norm is larger for L = 6 and 8
    than for 2 and 4; the ratio of R_med is larger for L = 4, 6 and 8 than for 2.
    """
    trained, norms, path, typical, ratios, measured = study(DEEP, budget)
    final = np.array([final_loss(runs["loss"]) for runs in trained])
    gap, tail = final[:, 0] / final[:, 1], moment(norms, 4)
    claims = {"gap SGD / Adam, L = 8 over 2": gap[3] / gap[0],
              "kurtosis of the noise norm, L = 6, 8 over 2, 4":
                  np.sqrt(tail[2] * tail[3] / (tail[0] * tail[1])),
              "ratio of R_med, L = 4, 6, 8 over 2":
                  np.cbrt(ratios[1] * ratios[2] * ratios[3]) / ratios[0]}
    claims |= {f"final loss {name}, L = 2 over 8": final[0, i] / final[3, i]
               for i, name in enumerate(budget.optimizers)}
    measured |= {name: quantity(values, above=1, geometric=True) for name, values in claims.items()}
    return draw_study(DEEP, budget, trained, norms, path, typical, [each.name for each in DEEP]), finding(
        depth, budget, measured, dict(loss=np.array([runs["loss"] for runs in trained]),
                                      norms=norms, r_med=np.array(typical)),
        paper="3 rows of plots", settings=DEEP)


RATES = np.array([0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0])


@experiment
def learning_rates(budget=Budget(seeds=2, steps=1200)):
    """Protocol: The learning rate of each optimizer is the best of a grid of ten.

    Final loss (median over the last tenth of the steps) against the rate, in Settings 1, 2 and 3, on
    a quarter of the steps, at most two seeds. The best rate has the lowest mean over seeds of the log
    loss, among the rates at which no run diverged. Measured: the final loss at the rate in use over
    that at the best one; the width of the good range, within a factor 2 of the best loss. With 2,000
    steps and more the other settings are tried, too, on a twentieth of the steps (a fortieth where
    they are costly). Claimed: less than twice the best loss.
    """
    measuring = budget._replace(seeds=min(budget.seeds, 2), steps=max(1, budget.steps // 4))
    others = [(setting, measuring._replace(steps=budget.steps // part, seeds=min(budget.seeds, 2)))
              for part, group in ((20, (SPHERICAL, LIGHT_TAILS, *DEEP)), (40, (LARGE, *NONLINEAR)))
              for setting in group if budget.steps >= 2000]
    final, measured = [], {}
    for setting, spend in [(setting, measuring) for setting in PAPER_SETTINGS] + others:
        names = [name for name in budget.optimizers if name in setting.lr | budget.lr]
        grid = {name: rate_grid(setting, name) for name in names}
        tried = train_all([setting._replace(lr={name: float(grid[name][i]) for name in names})
                           for i in range(len(RATES))],
                          spend._replace(optimizers=names, lr={}), every=spend.steps)
        loss = np.array([final_loss(runs["loss"]) for runs in tried])  # (rates, optimizers, seeds)
        final.append(loss)
        for i, name in enumerate(names):
            measured |= best_rate(setting, name, grid[name], loss[:, i],
                                  learning_rate(setting, name, budget), judged=setting in PAPER_SETTINGS)
    return draw_learning_rates(measuring, PAPER_SETTINGS, final[:3]), finding(
        learning_rates, budget, measured, dict(final=np.array(final[:3])), paper="0.02 and 0.02 (Setting 1), "
        "0.01 and 0.005 (2), 0.02 and 0.02 (3) for SGD and Adam",
        seeds=measuring.seeds, steps=measuring.steps)


def rate_grid(setting, name):
    """Ten rates; SGD wants a hundred times larger ones where the limit on the gradient is small."""
    return RATES * (100 if name == "SGD" and setting.clip < 1 else 1)


def best_rate(setting, name, grid, loss, used, judged):
    """What final losses (rates, seeds) say of the rate in use."""
    level = np.where(np.isfinite(loss).all(axis=1), np.log(loss).mean(axis=1), np.inf)
    best, good = np.argmin(level), grid[level < level.min() + np.log(2)]
    label = f"{setting.name}, {name}"
    measured = {f"{label}: best rate": f"{grid[best]:g}, in use {used:g}; within a factor 2 of the best: "
                                       f"{good.min():g} to {good.max():g}; "
                                       f"{(~np.isfinite(loss)).sum()} of {loss.size} runs diverged"}
    if judged and used in grid:
        measured[f"{label}: final loss at the rate in use / at the best"] = quantity(
            loss[list(grid).index(used)] / loss[best], below=2, geometric=True)
    return measured


def draw_learning_rates(budget, settings, final):
    """Final loss against the rate; diverged runs as crosses at the top."""
    figure, axes = panels(
        [setting.name for setting in settings], ["final loss"],
        f"Median training loss over the last tenth of {budget.steps:,} steps; line: median of {budget.seeds} "
        "seeds, band: smallest to largest. X, at the top: rates at which a run diverged. "
        "Circle: the rate that the other experiments use.")
    for ax, setting, loss in zip(axes[0], settings, final):
        for i, name in enumerate(budget.optimizers):
            grid, each = rate_grid(setting, name), loss[:, i]
            draw_bands(ax, grid, np.where(np.isfinite(each).all(1), each.T, np.nan)[None], [name], i)
            lost = ~np.isfinite(each).all(axis=1)
            ax.plot(grid[lost], np.full(lost.sum(), 0.98 - 0.04 * i), "X", color=COLOURS[i % 5], ms=10,
                    transform=ax.get_xaxis_transform())
            used = np.isclose(grid, learning_rate(setting, name, budget))
            ax.plot(grid[used], np.median(each[used], axis=-1), "o", ms=13, mfc="none", mew=2,
                    color=COLOURS[i % 5])
        ax.set(xscale="log", yscale="log", xlabel="learning rate",
               ylim=(np.nanmin(loss) / 2, 4 * loss[0].max()))
    axes[0, 0].legend()
    return figure


COST_N = (10, 20, 40, 80, 160)
COST_FORMS = ("softmax", "linear, textbook", "linear, Gram form")
COST_OTHERS = ("gradient, n = 20, d = 5, L = 3", "gradient, n = 20, d = 5, L = 8",
               "gradient, n = 60, d = 20, L = 8", "compression, n = 20, d = 5",
               "compression, n = 60, d = 20", "Hessian 150 x 150, n = 20, d = 5, L = 3")


@experiment
def attention_cost(budget=Budget()):
    """Cost: A gradient costs O(n^2) in the textbook form, the same for every n in the Gram form.

    The reason for the name 'linear attention': without softmax the sum over the context associates, so
    a prompt enters through its Gram matrix. Measured: the median of several calls on 1,000 prompts,
    d = 5, L = 3, one BLAS thread, one process; the slope of log time against log n over the last three
    n, over as many repeats as the budget has seeds. Claimed: within 0.1 of 0 for the Gram form, above
    1.5 for the others. Times differ from call to call, so nothing is taken from disk.
    """
    outcome = []
    in_parallel([(cost_seconds, (seed,), seed) for seed in range(budget.seeds)],
                lambda _, seconds: outcome.append(seconds), budget._replace(jobs=1, executor=None))
    seconds, others = map(np.array, zip(*outcome))
    slopes = [np.polyfit(np.log(COST_N[-3:]), np.log(each[:, -3:]).T, 1)[0]
              for each in seconds.swapaxes(0, 1)]
    measured = {}
    for form, slope, bound in zip(COST_FORMS, slopes, (dict(above=1.5), dict(above=1.5),
                                                       dict(above=-0.1, below=0.1))):
        measured[f"{form}: slope"] = quantity(slope, **bound)
    for form, times in zip(COST_FORMS, 1e3 * np.median(seconds, axis=0)):
        measured[f"{form}: ms"] = ", ".join(f"{ms:.3g} at n = {n}" for n, ms in zip(COST_N, times))
    for name, ms in zip(COST_OTHERS, 1e3 * np.median(others, axis=0)):
        measured[f"{name}: ms"] = f"{ms:.3g}"
    return draw_attention_cost(seconds, slopes), finding(
        attention_cost, budget, measured, dict(seconds=seconds), settings=())


def cost_seconds(seed):
    """Seconds per gradient (forms, n), and the seconds of COST_OTHERS, each a median."""
    rng = np.random.default_rng(seed)

    def prepared(n, d, layers):
        prompts = data.sample_prompts(rng, 1000, n, d)
        return linattn.init_params(rng, layers, d), prompts, linattn.compress(prompts)

    seconds = np.empty((len(COST_FORMS), len(COST_N)))
    for column, n in enumerate(COST_N):
        params, prompts, gram = prepared(n, 5, 3)
        seconds[:, column] = (
            median_seconds(3, linattn.loss_and_grad, params, prompts, "softmax"),
            median_seconds(3, linattn.textbook_loss_and_grad, params, prompts),
            median_seconds(101, linattn.loss_and_grad, params, gram))
    small, deep, large = (prepared(*sizes) for sizes in ((20, 5, 3), (20, 5, 8), (60, 20, 8)))
    return seconds, (
        *(median_seconds(21, linattn.loss_and_grad, params, gram)
          for params, _, gram in (small, deep, large)),
        *(median_seconds(21, linattn.compress, prompts) for _, prompts, _ in (small, large)),
        median_seconds(3, linattn.hessian, small[0], small[2]))


def median_seconds(calls, function, *arguments):
    """Median time of a call, after one that is not counted."""
    function(*arguments)
    clock = [time.perf_counter()]
    for _ in range(calls):
        function(*arguments)
        clock.append(time.perf_counter())
    return np.median(np.diff(clock))


def draw_attention_cost(seconds, slopes):
    """Milliseconds per gradient against n, both on log scales."""
    figure, ((ax,),) = panels(
        ["1,000 prompts, d = 5, 3 layers, one core"], ["ms per gradient"],
        f"Median and range of {len(seconds)} repeats; slopes over n = {COST_N[-3]} to {COST_N[-1]}. "
        "The Gram matrices of the batch are made once, before.")
    for i, (form, slope) in enumerate(zip(COST_FORMS, slopes)):
        draw_bands(ax, np.array(COST_N), 1e3 * seconds[None, :, i],
                   [f"{form}: slope {slope.mean():.2f}"], i)
    ax.set(xscale="log", yscale="log", xlabel="context length n", xticks=COST_N, xticklabels=COST_N)
    ax.minorticks_off()
    ax.legend()
    return figure


# ---- The command line ----------------------------------------------------------------------------


def save(name, figure, found, out, slides=False):
    """Write NAME.png, .pdf, .npz and .json into the folder out, for slides NAME-1.png, .pdf, ... with
    one panel each, too."""
    out, arrays = Path(out), found["arrays"]
    text = json.dumps({key: found[key] for key in found if key != "arrays"}, indent=1, allow_nan=False)
    pictures = {name: figure}
    if slides:
        pictures |= {f"{name}-{i}": each for i, each in enumerate(single_panels(figure), 1)}
    with matplotlib.rc_context(STYLE):
        for stem, picture in pictures.items():
            for form, options in (("png", dict(dpi=120)), ("pdf", dict(metadata={"CreationDate": None}))):
                write(out / f"{stem}.{form}", lambda file: picture.savefig(file, format=form, **options))
    write(out / f"{name}.npz", lambda file: np.savez_compressed(file, **arrays))
    write(out / f"{name}.json", lambda file: file.write((text + "\n").encode()))


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
    """The table claim | paper | measured | verdict of the findings in a folder, in Markdown."""
    rows = ["| claim | paper | measured, with 95 % interval over seeds | verdict |",
            "| --- | --- | --- | --- |"]
    for name in EXPERIMENTS:
        path = Path(out, f"{name}.json")
        if not path.exists():
            rows.append(f"| {name} | | no finding in this folder | |")
            continue
        found = json.loads(path.read_text(encoding="utf-8"))
        judged = [f"{key}: {in_words(value)}" for key, value in found["measured"].items()
                  if isinstance(value, dict) and ("above" in value or "below" in value)]
        rows.append(f"| {found['claim']} `{name}`: {found['claimed']} | {found['paper']} | "
                    f"{'; '.join(judged)} | {found['verdict']} |")
    return "\n".join(rows)


class Parser(argparse.ArgumentParser):
    """Errors in one line, exit status 2."""

    def error(self, message):
        self.exit(2, f"experiments.py: {message}\n")


def parse(arguments):
    """(options, [(experiment's name, Budget)]); exits with status 2 and one line on a mistake."""
    parser = Parser(prog="experiments.py", description="Run an experiment; without a name, list them.")
    parser.add_argument("name", nargs="?", help="the experiment, or all, or report")
    spend = parser.add_mutually_exclusive_group()
    spend.add_argument("--full", action="store_true", help="the paper's protocol: 6 seeds, 10,000 steps")
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
    names = [given.name] if given.name in EXPERIMENTS else list(EXPERIMENTS) if given.name == "all" else []
    if not names and given.name not in (None, "report"):
        parser.error(f"experiment: got {given.name!r}, wants one of {', '.join(EXPERIMENTS)}, all, report")
    changes = FULL if given.full else QUICK if given.quick else {}
    own = {key: getattr(given, key) for key in ("seeds", "steps", "jobs", "out", "optimizers")}
    budgets = []
    try:
        for name in names:
            default = inspect.signature(EXPERIMENTS[name]).parameters["budget"].default
            budget = default._replace(**changes)._replace(**{k: v for k, v in own.items() if v is not None})
            budgets.append(check(budget._replace(lr=parse_rates(given.lr, budget.optimizers))))
    except ValueError as error:
        parser.error(str(error))
    return given, list(zip(names, budgets))


def parse_rates(texts, names):
    """{optimizer: rate} from RATE (for all) and NAME=RATE (for one)."""
    rates = {}
    for text in texts:
        name, equals, rate = text.rpartition("=")
        try:
            value = float(rate if name or not equals else "")
        except ValueError:
            raise ValueError(f"--lr: got {text!r}, wants RATE or NAME=RATE") from None
        if name and name not in names:
            raise ValueError(f"--lr: got {text!r}, wants one of the optimizers {', '.join(names)}")
        rates.update(dict.fromkeys([name] if name else names, value))
    return rates


def check(budget):
    """The budget, if it can be spent; else a ValueError that names what is wrong with it."""
    for key in ("seeds", "steps", "jobs"):
        value = getattr(budget, key)
        if not isinstance(value, (int, np.integer)) or value is True or value < 1:
            raise ValueError(f"{key}: got {value!r}, wants a whole number >= 1")
    if budget.executor is not None and not hasattr(budget.executor, "submit"):
        raise ValueError(f"executor: got {budget.executor!r}, wants a concurrent.futures.Executor")
    names = budget.optimizers
    if not isinstance(names, (list, tuple)) or len(names) < 2 or len(set(map(str, names))) < len(names):
        raise ValueError(f"optimizers: got {names!r}, wants the names of two or more, each once")
    if not isinstance(budget.lr, dict) or not set(budget.lr) <= set(names):
        raise ValueError(f"lr: got {budget.lr!r}, wants a dict from some of {', '.join(names)} to rates")
    for name in names:
        cls = optimizers.by_name(name)
        for setting in PAPER_SETTINGS:
            rate = learning_rate(setting, name, budget)
            if not isinstance(rate, (int, float)) or not 0 < rate < np.inf:
                raise ValueError(f"lr: got {rate!r}, wants a number > 0")
            try:
                cls(rate)
            except Exception as error:
                raise ValueError(f"optimizer: got {name}, wants a class of one argument, lr ({error})")
    if not isinstance(budget.out, (str, Path)) or not str(budget.out):
        raise ValueError(f"out: got {budget.out!r}, wants the name of a folder")
    try:
        for folder in (Path(budget.out), Path(budget.out, "runs")):
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise ValueError(f"out: got {str(budget.out)!r}, wants a folder to write in "
                         f"({error.strerror})") from None
    return budget._replace(optimizers=tuple(names), seeds=int(budget.seeds), steps=int(budget.steps))



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
    except (OSError, ValueError) as error:
        say(str(error))
    except KeyboardInterrupt:
        say("interrupted")
        status = 130
    if work and any(Path(work[0][1].out, "runs").glob("*.npz")):
        say("finished runs are kept; the same command does the rest")
    return status


if __name__ == "__main__":
    sys.exit(main())
