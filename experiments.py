"""Every phenomenon as one function: `python experiments.py NAME` measures, draws and judges it.

    budget      how much to spend: seeds, steps, optimizers, learning rates, processes
    run         one training: a setting, an optimizer, a learning rate, a seed
    finding     what was claimed, what was measured, and the verdict that the numbers give

From the top: training, runs on disk, statistics, drawing, the experiments, the command line.
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
import platform
import signal
import statistics
import sys
import tempfile
import threading
import time
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure

import data
import linattn
import optimizers
from data import SETTING_1, SETTING_2, SETTING_3


class Budget(NamedTuple):
    """What an experiment may spend. lr maps an optimizer's name to the rate that replaces its own."""

    seeds: int = 4
    steps: int = 1000
    optimizers: tuple = ("SGD", "Adam")
    lr: dict = {}
    jobs: int = os.cpu_count() or 1
    out: str = "results"


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

    A run has diverged when a number is not finite, or when the loss was above blow_up times the
    first one for `patience` steps in a row (single steps jump far higher on rare prompts).

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
                    snapshots=snapshots.copy(), params=start.copy(), above=0,
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
    params, loss, snapshot = result["params"], result["loss"], None
    loss[t], grad = linattn.loss_and_grad(params, prompts, run.activation)
    result["grad_norm"][t] = norm = np.linalg.norm(grad)
    result["above"] = result["above"] + 1 if loss[t] > blow_up * loss[0] else 0
    if result["above"] == patience or not np.isfinite(loss[t] + norm):
        result["diverged"], loss[t], result["grad_norm"][t] = t, np.nan, np.nan
        return
    if t % run.every == 0:
        snapshot = result["snapshots"][t // run.every]
        snapshot[0] = params
    try:
        params = np.asarray(result["step"](params, optimizers.clip_global_norm(grad, run.clip)), float)
        if params.shape != grad.shape:
            raise ValueError(f"step returned shape {params.shape}, wants that of params, {grad.shape}")
    except Exception as error:
        result["error"] = f"{type(error).__name__}: {error}"
        return
    if snapshot is not None:
        snapshot[1] = params
    if np.isfinite(params).all():
        result["params"] = params
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


def setting_runs(settings, budget):
    """Every optimizer in every setting, in the order (setting, optimizer, seed)."""
    return [Run(name, learning_rate(setting, name, budget), setting.data, setting.clip, seed, budget.steps)
            for setting in settings for name in budget.optimizers for seed in range(budget.seeds)]


# ---- Runs on disk, and in parallel ---------------------------------------------------------------


def fingerprint(run):
    """What a stored run must agree with: its configuration and the code that computes it."""
    about = dict(run._asdict(), code=code_digest(run.optimizer), numpy=np.__version__)
    return json.dumps(about, sort_keys=True)


@functools.cache
def code_digest(optimizer):
    """Hash of the code behind a run, without comments and docstrings, and without the classes of
    optimizers.py from which this optimizer does not inherit."""
    mine = {cls.__name__ for cls in optimizers.by_name(optimizer).__mro__}
    parts = (linattn, data, optimizers, generator, train, advance)
    trees = [_NoDocstrings().visit(ast.parse(inspect.getsource(part))) for part in parts]
    trees[2].body = [node for node in trees[2].body
                     if not isinstance(node, ast.ClassDef) or node.name in mine]
    return hashlib.sha256("".join(map(ast.dump, trees)).encode()).hexdigest()


class _NoDocstrings(ast.NodeTransformer):
    def visit_Expr(self, node):
        return ast.Pass() if isinstance(node.value, ast.Constant) else node


def run_file(run, budget):
    name = hashlib.sha256(fingerprint(run).encode()).hexdigest()[:16]
    return Path(budget.out, "runs", f"{run.optimizer}-{name}.npz")


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


def load(run, budget):
    """A finished run from disk, or None; a file that is not what its name says is named."""
    path = run_file(run, budget)
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as stored:
            result = {key: stored[key] for key in FIELDS}
            if str(stored["fingerprint"]) != fingerprint(run):
                raise ValueError("it belongs to another configuration")
            if result["loss"].shape != (run.steps,) or result["grad_norm"].shape != (run.steps,):
                raise ValueError("its arrays have other shapes")
            return result
    except Exception as error:  # whatever a damaged file makes of numpy and zipfile
        say(f"{path}: not usable ({error}); computed anew")
        return None


def train_all(runs, budget, shape):
    """FIELDS as arrays (*shape, seeds, ...) of runs listed in that order: from disk where finished,
    else trained in parallel processes.

    Each run is saved as soon as it is done. Raises RunFailed, naming them, if some could not be
    done; the others are kept.
    """
    results = {i: result for i, run in enumerate(runs) if (result := load(run, budget))}
    groups = {}  # of runs that share their batches
    for i, run in enumerate(runs):
        if i not in results:
            groups.setdefault(json.dumps(run._replace(optimizer="", lr=0)), []).append(i)
    failed = []

    def keep(members, trained):
        for i, result in zip(members, trained):
            if "error" in result:
                failed.append(f"{runs[i]}: {result['error']}")
                continue
            stored = dict(result, fingerprint=fingerprint(runs[i]))
            write(run_file(runs[i], budget), lambda file: np.savez(file, **stored))
            results[i] = result

    tasks = [([runs[i] for i in members], members) for members in groups.values()]
    errors = in_processes(train, tasks, keep, budget.jobs)
    failed += [f"{runs[i]}: {error}" for members, error in errors for i in members]
    if failed:
        raise RunFailed("\n".join(failed))
    stacked = (np.array([results[i][field] for i in range(len(runs))]) for field in FIELDS)
    return [each.reshape(*shape, budget.seeds, *each.shape[1:]) for each in stacked]


class RunFailed(Exception):
    """Some runs could not be done; what is finished is on disk."""


def in_processes(function, tasks, keep, jobs):
    """Call keep(label, function(argument)) for every (argument, label) of tasks, in `jobs` worker
    processes with one BLAS thread each; returns [(label, error message)].

    A worker that dies takes its pool with it. What the pool left undone is tried once more in a new
    one, and what that leaves, each task in a pool of its own: then the one that dies is known.
    """
    if multiprocessing.current_process().name != "MainProcess":  # imports an unguarded script again
        sys.exit(GUARD)
    errors, done, clock = [], 0, time.monotonic()

    def attempt(some, workers):
        """Returns the tasks that the pool left undone."""
        nonlocal done
        undone, futures = [], {}
        with _one_thread(), ProcessPoolExecutor(
            workers, multiprocessing.get_context("spawn"), _follow_parent
        ) as pool:
            try:
                for task in some:
                    try:
                        futures[pool.submit(function, task[0])] = task
                    except BrokenExecutor:
                        undone.append(task)
                for future in as_completed(futures):
                    argument, label = futures[future]
                    try:
                        result = future.result()
                    except BrokenExecutor:
                        undone.append((argument, label))
                    except Exception as error:
                        errors.append((label, f"{type(error).__name__}: {error}"))
                    else:
                        keep(label, result)
                        done += 1
                        progress(done, len(tasks), clock)
            except BaseException:  # Ctrl-C, a full disk: do not wait for the workers
                progress(None, len(tasks), clock)
                for child in multiprocessing.active_children():
                    child.terminate()
                raise
        return undone

    if tasks:
        progress(0, len(tasks), clock)
        undone = attempt(tasks, min(jobs, len(tasks)))
        undone = attempt(undone, min(jobs, len(undone))) if undone else []
        dead = [label for task in undone for _, label in attempt([task], 1)]
        errors += [(label, "its worker process died") for label in dead]
        progress(None, len(tasks), clock)
    return errors


GUARD = ("experiments.py: a script that calls an experiment needs `if __name__ == '__main__':` before the "
         "call, for the worker processes import the script")


def in_order(function, arguments, jobs):
    """[function(argument) for argument in arguments] from `jobs` processes; RunFailed if one fails."""
    results = {}
    errors = in_processes(function, [(each, i) for i, each in enumerate(arguments)],
                          results.__setitem__, jobs)
    if errors:
        raise RunFailed("\n".join(f"{function.__name__}, part {i}: {error}" for i, error in errors))
    return [results[i] for i in range(len(arguments))]


@contextlib.contextmanager
def _one_thread():
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


def _follow_parent():
    """In a worker: leave when the parent is gone, even by kill -9, and die of Ctrl-C in silence."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def progress(done, total, start):
    """Tasks done and the time left, on a terminal only; None clears the line."""
    if not sys.stderr.isatty():
        return
    text = "" if done is None else f"{done} of {total} done"
    if done:
        text += f", about {(time.monotonic() - start) / done * (total - done):.0f} s left"
    print(f"\r{text:<50}", end="\r" if done is None else "", file=sys.stderr, flush=True)


def say(text):
    print(f"experiments.py: {text}", file=sys.stderr)


# ---- Statistics ----------------------------------------------------------------------------------


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


def in_blocks(series, count=50):
    """Cut the last axis of (..., steps) into blocks; (centre (count,), [block (..., width)])."""
    edges = np.linspace(0, series.shape[-1], min(count, series.shape[-1]) + 1).astype(int)
    blocks = [series[..., a:b] for a, b in zip(edges[:-1], edges[1:])]
    return (edges[:-1] + edges[1:] - 1) / 2, blocks


def number(value):
    """A float that JSON can hold; None for NaN and infinity."""
    return float(value) if np.isfinite(value) else None


def numbers(values):
    return [number(value) for value in values]


def in_words(middle, low, high):
    """A value and its interval; both may be unknown."""
    text = "unknown" if middle is None else f"{middle:.3g}"
    return f"{text}, no interval" if low is None else f"{text}, 95 % interval [{low:.3g}, {high:.3g}]"


def judge(*cases):
    """The verdict on a claim that every case's quantity lies above its bound: cases are (low, high,
    bound), a 95 % interval (None where there is none) and what it must exceed."""
    if any(high is not None and high < bound for _, high, bound in cases):
        return "not reproduced"
    if all(low is not None and low > bound for low, _, bound in cases):
        return "reproduced"
    return "inconclusive"


def below(low, high, bound):
    """The case of `judge` that says: the quantity lies below this bound."""
    return (None, None, 0) if low is None else (bound - high, bound - low, 0)


def finding(claim, claimed, measured, verdict, lines, configuration, arrays):
    """What an experiment returns beside its figure; `lines` say it in words. The configuration is a
    dict, or the runs."""
    if isinstance(configuration, list):
        configuration = [run._asdict() for run in configuration]
    versions = dict(python=platform.python_version(), numpy=np.__version__)
    versions.update(matplotlib=matplotlib.__version__, machine=platform.machine())
    return dict(claim=claim, claimed=claimed, verdict=verdict, lines=lines, measured=measured,
                configuration=configuration, versions=versions, arrays=arrays)


# ---- Drawing -------------------------------------------------------------------------------------

COLOURS = ("#E69F00", "#0072B2", "#009E73", "#CC79A7", "#000000")  # told apart in grey as well,
DASHES = ("--", "-", ":", "-.", (0, (1, 1)))  # by the line style at the latest
STYLE = {
    "font.size": 15,
    "axes.titlesize": 14,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "lines.linewidth": 2.5,
    "legend.frameon": False,
    "axes.formatter.min_exponent": 4,  # 0.001 rather than 10^-3
    "pdf.fonttype": 42,
    "svg.hashsalt": "linattn",
}


def new_figure(rows, columns, caption):
    """Figure and axes (rows, columns) in the shape of a slide, with a caption below."""
    figure = Figure(figsize=(13.33, 7.5), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    figure.supxlabel(caption, fontsize=12, color="#333333", x=0.01, ha="left")
    return figure, axes


def draw_curves(ax, series, names, mean=True):
    """Series (optimizers, seeds, steps) into ax, log scale: running median, median and range over
    seeds; on request the running mean, a thin line that may leave the frame."""
    low, high = np.inf, 0
    for position, (name, each) in enumerate(zip(names, series)):
        centre, blocks = in_blocks(each)
        medians = np.array([np.median(block, axis=-1) for block in blocks])  # (blocks, seeds)
        style = dict(color=COLOURS[position % 5], ls=DASHES[position % 5])
        ax.fill_between(centre, medians.min(1), medians.max(1), color=style["color"], alpha=0.25, lw=0)
        ax.plot(centre, np.median(medians, axis=1), label=name, **style)
        if mean:
            ax.plot(centre, [block.mean() for block in blocks], color=style["color"], lw=0.8, alpha=0.7)
        ended = np.isnan(medians[-1])
        for curve in medians.T[ended]:  # diverged: drawn one by one, up to there
            end = np.argmax(np.isnan(curve))
            ax.plot(centre[:end], curve[:end], lw=1.2, **style)
            ax.plot(centre[:end][-1:], curve[:end][-1:], "X", color=style["color"], ms=10)
        steady = np.append(medians[:, ~ended], medians[0])  # what the frame has to hold
        low, high = min(low, np.nanmin(steady, initial=low)), max(high, np.nanmax(steady, initial=high))
    ax.set_yscale("log")
    if 0 < low < high < np.inf:
        ax.set_ylim(low / 1.5, high * 1.5)


# ---- The experiments -----------------------------------------------------------------------------


def adam_vs_sgd(budget=Budget()):
    """C1: Adam beats SGD in Settings 1, 2 and 3 (figure 1 of the paper).

    Three layers, SGD and Adam with momentum 0.9 from the same weights on the same batches, gradient
    norm clipped at 1. Measured: the median training loss over the last tenth of the steps, and how
    many times lower it is for Adam, per seed. Reproduced if in every setting the 95 % interval of
    that ratio lies above 1, not if in one it lies below.
    """
    budget, settings = check(budget), PAPER_SETTINGS
    runs = setting_runs(settings, budget)
    loss, grad_norm, diverged, _ = train_all(runs, budget, (len(settings), len(budget.optimizers)))
    figure = draw_adam_vs_sgd(settings, budget, loss, grad_norm)
    measured = {setting.name: compare(budget.optimizers, *each)
                for setting, *each in zip(settings, loss, diverged)}
    cases = [(*ratio["interval_95"], 1) for each in measured.values() for ratio in each["ratio"].values()]
    verdict = judge(*cases)
    if budget.optimizers != ("SGD", "Adam"):
        verdict = "not judged: the claim is about SGD and Adam"
    lines = [line for name, each in measured.items() for line in comparison_lines(name, each)]
    return figure, finding("C1", "Adam beats SGD in Settings 1, 2 and 3", measured, verdict, lines,
                           runs, dict(loss=loss, grad_norm=grad_norm, diverged=diverged))


def compare(names, loss, diverged):
    """What loss (optimizers, seeds, steps) says of the optimizers: the final loss, the median over
    the last tenth of the steps; how far the mean over them lies above; where runs diverged; and the
    final loss of the first optimizer over that of each other one, per seed."""
    tail = loss[..., -max(1, loss.shape[-1] // 10) :]
    final = np.median(tail, axis=-1)
    ratio = {}
    for name, values in zip(names[1:], final[1:]):
        middle, low, high = (x if x is None else np.exp(x) for x in interval(np.log(final[0] / values)))
        ratio[f"{names[0]} / {name}"] = dict(
            per_seed=numbers(final[0] / values), geometric_mean=middle, interval_95=[low, high])
    return dict(
        final_loss={name: numbers(values) for name, values in zip(names, final)},
        mean_over_median={name: number(each.mean() / np.median(each)) for name, each in zip(names, tail)},
        diverged={f"{names[i]}, seed {seed}": f"at step {diverged[i, seed]}"
                  for i, seed in np.argwhere(diverged >= 0)},
        ratio=ratio)


def comparison_lines(setting, measured):
    """A setting's `compare` in words."""
    for run, where in measured["diverged"].items():
        yield f"{setting}: {run}, diverged {where}"
    for pair, ratio in measured["ratio"].items():
        yield f"{setting}: final loss {pair}: {in_words(ratio['geometric_mean'], *ratio['interval_95'])}"
    each = (f"{name} {np.median(values):.3g} (mean {measured['mean_over_median'][name]:.3g} times that)"
            if None not in values else f"{name} diverged"
            for name, values in measured["final_loss"].items())
    yield f"{setting}: median final loss {', '.join(each)}"


@matplotlib.rc_context(STYLE)
def draw_adam_vs_sgd(settings, budget, loss, grad_norm):
    """Two rows, loss and gradient norm; a column for each setting."""
    width = max(1, budget.steps // 50)
    figure, axes = new_figure(2, len(settings), (
        f"Thick: running median ({width}-step blocks), median over {budget.seeds} seeds; band: smallest to "
        "largest over seeds; thin: running mean of the loss, which leaves the\nframe where rare prompts "
        f"carry it. 3 layers; {budget.steps:,} steps, each on 1,000 fresh prompts, so that the training loss "
        "is a test loss; norm before clipping." + (" X: diverged." if np.isnan(loss).any() else "")))
    for column, setting in enumerate(settings):
        draw_curves(axes[0, column], loss[column], budget.optimizers)
        draw_curves(axes[1, column], grad_norm[column], budget.optimizers, mean=False)
        axes[0, column].set_title(f"{setting.name} (n = {setting.data['n']})")
        axes[1, column].set_xlabel("iteration")
    axes[0, 0].set_ylabel("training loss")
    axes[1, 0].set_ylabel("gradient norm")
    figure.align_ylabels()
    axes[0, 0].legend()
    return figure


def gradient_noise(budget=Budget()):
    """C2: the noise of the stochastic gradient is heavy-tailed in Settings 1, 2 and 3 (figure 2).

    At initialisation, the norm of g_batch - g_big: gradients on 1,000 and on 100,000 fresh prompts;
    as many draws as the budget has steps, for each seed's initial weights. Measured: skewness and
    excess kurtosis (a Gaussian has 0 and 0) of the norm, and the excess kurtosis of the coordinates.
    Reproduced if in every setting the 95 % intervals of all three lie above 0.
    """
    budget, settings = check(budget), PAPER_SETTINGS
    tasks = [(setting.data, seed, budget.steps) for setting in settings for seed in range(budget.seeds)]
    norms, kurtosis = map(np.array, zip(*in_order(noise, tasks, budget.jobs)))
    norms = norms.reshape(len(settings), budget.seeds, -1)
    tails = {"skewness of the norm": moment(norms, 3), "excess kurtosis of the norm": moment(norms, 4) - 3,
             "excess kurtosis of the coordinates": kurtosis.reshape(len(settings), -1)}
    measured, lines, cases = {}, [], []
    for i, setting in enumerate(settings):
        measured[setting.name] = dict(median_norm=number(np.median(norms[i])))
        for name, values in tails.items():
            middle, low, high = interval(values[i])
            measured[setting.name][name] = dict(
                per_seed=numbers(values[i]), mean=middle, interval_95=[low, high])
            lines.append(f"{setting.name}: {name} {in_words(middle, low, high)}")
            cases.append((low, high, 0))
    return draw_gradient_noise(settings, norms), finding(
        "C2", "Stochastic gradient noise is heavy-tailed in Settings 1, 2 and 3", measured, judge(*cases),
        lines, dict(batch=1000, big=100_000, draws=budget.steps, seeds=budget.seeds, layers=3, std=0.05,
                    settings=[setting._asdict() for setting in settings]), dict(norms=norms))


def noise(task):
    """(norms (draws,), mean over coordinates of their excess kurtosis) of the gradient noise."""
    arguments, seed, draws = task
    init, stream = map(generator, np.random.SeedSequence(seed).spawn(2))
    params = linattn.init_params(init, d=arguments["d"])

    def gradient():
        return linattn.loss_and_grad(params, data.sample_prompts(stream, **arguments))[1]

    big = sum(gradient() for _ in range(100)) / 100  # 100 batches of 1,000
    noises = np.array([(gradient() - big).ravel() for _ in range(draws)])
    moving = noises[:, noises.any(axis=0)]  # the last P block has no gradient
    return np.linalg.norm(noises, axis=1), (moment(moving.T, 4) - 3).mean()


def moment(values, order):
    """Standardised central moment over the last axis: 3 is skewness, 4 is kurtosis."""
    centred = values - values.mean(axis=-1, keepdims=True)
    return (centred**order).mean(axis=-1) / values.std(axis=-1) ** order


@matplotlib.rc_context(STYLE)
def draw_gradient_noise(settings, norms):
    """Histograms with the Gaussian of the same mean and variance; normal quantile plots below."""
    figure, axes = new_figure(2, len(settings), (
        f"Norm of g(1,000 prompts) - g(100,000 prompts) at initialisation, 3 layers; "
        f"{norms.shape[2]:,} draws for each of {norms.shape[1]} seeds' initial weights, pooled.\nDashed: the Gaussian of the same mean "
        "and variance. A heavy right tail lies above the dashed line, at the right."))
    normal = statistics.NormalDist()
    for column, setting in enumerate(settings):
        values = np.sort(norms[column].ravel())
        mean, std = values.mean(), values.std()
        top, bottom = axes[:, column]
        right = np.quantile(values, 0.999)
        edges = np.linspace(values[0], right, 60)
        top.hist(values, edges, density=True, color=COLOURS[1], alpha=0.6)
        x = np.linspace(max(0, mean - 4 * std), right, 300)
        top.plot(x, np.exp(-(((x - mean) / std) ** 2) / 2) / (std * np.sqrt(2 * np.pi)), "--", color="#000000")
        top.set(title=setting.name, xlabel="noise norm (up to its 99.9 % point)")
        ranks = np.unique(np.geomspace(1, len(values), 400).astype(int))
        ranks = np.unique(np.concatenate([ranks - 1, len(values) - ranks]))
        theory = [normal.inv_cdf((rank + 0.5) / len(values)) for rank in ranks]
        bottom.plot(theory, values[ranks], "o", ms=4, color=COLOURS[1])
        bottom.plot(theory, mean + std * np.array(theory), "--", color="#000000")
        bottom.set(xlabel="normal quantile")
    axes[0, 0].set_ylabel("density")
    axes[1, 0].set_ylabel("noise norm")
    return figure


def evaluation_batch(arguments, k):
    """Evaluation batch k of 1,000 prompts, in Gram form; the same for every run."""
    return linattn.compress(data.sample_prompts(generator([2310, k]), **arguments))


def condition_number(budget=Budget(seeds=3)):
    """C3: the robust condition number is larger along SGD's path than along Adam's (figure 3, table 1).

    R_med = max |H_ii| / median |H_ii| over the diagonal of the Hessian; the table holds R_med of SGD
    over that of Adam at iterations 750 and 1250. The paper takes one evaluation batch of 1,000
    prompts. Here the ratio is measured on many, and on the Hessian pooled over all of them.
    Reproduced if in every setting, at every iteration, the 95 % interval over seeds lies above 1 for
    the typical batch (the median over batches) and for the pooled Hessian.
    """
    budget, settings = check(budget), PAPER_SETTINGS
    runs = setting_runs(settings, budget)
    snapshots = train_all(runs, budget, (len(settings), len(budget.optimizers)))[3][..., 0, :, :, :, :]
    every = runs[0].every
    iterations = [t for t in (750, 1250) if t < budget.steps] or [(budget.steps - 1) // every * every]
    at = [t // every for t in iterations]
    path = np.unique(np.linspace(0, snapshots.shape[3] - 1, 10).astype(int))
    batches = int(np.clip(budget.steps // 100, 2, 100))
    few = 2 if batches < 100 else 4
    each = snapshots.reshape(len(runs), *snapshots.shape[3:])
    tasks = [(run.data, thetas[at], batches) for run, thetas in zip(runs, each)]
    tasks += [(run.data, thetas[path], few) for run, thetas in zip(runs, each)]
    diagonals = in_order(hessian_diagonals, tasks, budget.jobs)
    table, along = (np.array(half).reshape(*snapshots.shape[:3], *half[0].shape)
                    for half in (diagonals[: len(runs)], diagonals[len(runs) :]))
    sizes = {size: grouped(table, size) for size in (1, 10, 100) if size <= batches}
    if batches not in sizes:
        sizes[batches] = grouped(table, batches)
    ratios = {size: r_med(pooled)[:, 0] / r_med(pooled)[:, 1] for size, pooled in sizes.items()}
    measured, lines, cases = {}, [], []
    for i, setting in enumerate(settings):
        for j, t in enumerate(iterations):
            single = ratios[1][i, :, j]  # (seeds, batches)
            found = {"one batch": (single[:, 0].mean(), single[:, 0].std(ddof=1) if len(single) > 1 else 0.0)}
            entry = dict(first_batch_mean_and_std=numbers(found["one batch"]), paper=PAPER_C3[i].get(t))
            for name, values in (("typical batch of 1,000", np.median(single, axis=1)),
                                 (f"pooled {batches},000", ratios[batches][i, :, j, 0])):
                middle, low, high = (x if x is None else np.exp(x) for x in interval(np.log(values)))
                entry[name] = dict(per_seed=numbers(values), geometric_mean=middle, interval_95=[low, high])
                cases.append((low, high, 1))
                lines.append(f"{setting.name}, iteration {t}: {name}: {in_words(middle, low, high)}")
            entry["batches_5_to_95_percent"] = numbers(np.quantile(single, (0.05, 0.95)))
            measured[f"{setting.name}, iteration {t}"] = entry
            low, high = entry["batches_5_to_95_percent"]
            paper = entry["paper"] and f", paper {entry['paper']}" or ""
            lines.append(f"{setting.name}, iteration {t}: first batch {found['one batch'][0]:.3g} "
                         f"({found['one batch'][1]:.2g}){paper}; 90 % of single batches {low:.3g} to {high:.3g}")
    figure = draw_condition_number(settings, budget, path * every, np.median(r_med(along), axis=-1),
                                   {size: ratio[:, :, 0] for size, ratio in ratios.items()}, iterations[0])
    return figure, finding("C3", "R_med is larger along SGD's path", measured, judge(*cases), lines, runs,
                           dict(table=r_med(table), along=r_med(along)))


PAPER_C3 = (  # mean (standard deviation) of the ratio over seeds, table 1 of the paper
    {750: "1.76 (0.40)", 1250: "1.58 (0.41)"},
    {750: "3.14 (0.97)", 1250: "5.98 (2.86)"},
    {750: "9.57 (13.3)", 1250: "6.53 (3.55)"},
)


def hessian_diagonals(task):
    """Hessian diagonals (thetas, batches, p) on the first evaluation batches; NaN where theta is."""
    arguments, thetas, batches = task
    diagonals = np.full((len(thetas), batches, thetas[0].size), np.nan)
    for k in range(batches):
        prompts = evaluation_batch(arguments, k)
        for i, theta in enumerate(thetas):
            if np.isfinite(theta).all():
                diagonals[i, k] = linattn.hessian_diagonal(theta, prompts).ravel()
    return diagonals


def grouped(diagonals, size):
    """Diagonals of the Hessian on evaluation batches `size` times as large: means over groups."""
    *lead, batches, p = diagonals.shape
    count = batches // size
    return diagonals[..., : count * size, :].reshape(*lead, count, size, p).mean(axis=-2)


def r_med(diagonal):
    """The robust condition number max |H_ii| / median |H_ii| over the last axis."""
    return np.abs(diagonal).max(axis=-1) / np.median(np.abs(diagonal), axis=-1)


@matplotlib.rc_context(STYLE)
def draw_condition_number(settings, budget, iterations, along, ratios, when):
    """R_med along the paths, and the ratio against the size of the evaluation batch."""
    figure, axes = new_figure(2, len(settings), (
        f"Above: median over evaluation batches of 1,000 prompts; line: median, band: smallest to largest of "
        f"{budget.seeds} seeds.\nBelow: R_med of {budget.optimizers[0]} over {budget.optimizers[1]} at iteration "
        f"{when}, one dot for each seed and evaluation batch; line: median. Dashed: 1, no difference."))
    for column, setting in enumerate(settings):
        top, bottom = axes[:, column]
        for position, name in enumerate(budget.optimizers):
            style = dict(color=COLOURS[position % 5], ls=DASHES[position % 5])
            values = along[column, position]
            top.fill_between(iterations, values.min(0), values.max(0), color=style["color"], alpha=0.25, lw=0)
            top.plot(iterations, np.median(values, axis=0), label=name, **style)
        top.set(yscale="log", title=setting.name, xlabel="iteration")
        size = 1000 * np.array(list(ratios))
        for x, values in zip(size, ratios.values()):
            dots = values[column].ravel()
            bottom.plot(x * np.geomspace(0.8, 1.25, len(dots)), dots, "o", ms=3, alpha=0.35, color=COLOURS[2])
        bottom.plot(size, [np.median(values[column]) for values in ratios.values()], "k-", marker="s")
        bottom.axhline(1, color="#000000", ls="--", lw=1)
        bottom.set(xscale="log", yscale="log", xlabel="prompts in the evaluation batch")
        bottom.set_xticks(size, [f"{each:,}" for each in size])
        bottom.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
    axes[0, 0].set_ylabel("$R_{med}$")
    axes[1, 0].set_ylabel("ratio of $R_{med}$")
    axes[0, 0].legend()
    figure.align_ylabels()
    return figure


def directional_smoothness(budget=Budget(seeds=3)):
    """C4: the directional smoothness is smaller along Adam's path (figure 4 of the paper).

    v^T H v for the direction v of each step, H at the point before it, on evaluation batches of
    1,000 prompts. Measured, per seed: the median over the path without its first tenth, for the
    typical batch (the median over batches at each point) and for all batches pooled (the mean).
    Reproduced if in every setting the 95 % intervals of SGD's minus Adam's lie above 0 for both.
    """
    budget, settings = check(budget), PAPER_SETTINGS
    runs = setting_runs(settings, budget)
    snapshots = train_all(runs, budget, (len(runs) // budget.seeds,))[3]
    path = np.unique(np.linspace(0, snapshots.shape[2] - 1, 50).astype(int))
    batches = int(np.clip(budget.steps // 500, 2, 10))
    each = snapshots.reshape(len(runs), *snapshots.shape[2:])
    tasks = [(run.data, pairs[path], batches) for run, pairs in zip(runs, each)]
    curvatures = np.array(in_order(step_curvatures, tasks, budget.jobs)).reshape(
        len(settings), len(budget.optimizers), budget.seeds, len(path), batches)
    measured, lines, cases = {}, [], []
    for setting, values in zip(settings, curvatures):
        entry = measured[setting.name] = {}
        for name, points in (("typical batch", np.median(values, axis=-1)),
                             ("pooled", values.mean(axis=-1))):
            level = np.median(points[..., len(path) // 10 :], axis=-1)  # (optimizers, seeds)
            middle, low, high = interval(level[0] - level[1])
            entry[name] = dict(zip(budget.optimizers, map(numbers, level)), interval_95=[low, high])
            cases.append((low, high, 0))
            pair = ", ".join(f"{each} {np.median(v):.3g}" for each, v in zip(budget.optimizers, level))
            lines.append(f"{setting.name}: {name}: {pair}; difference {in_words(middle, low, high)}")
        entry["negative"] = dict(zip(budget.optimizers, numbers((values < 0).mean(axis=(1, 2, 3)))))
        share = ", ".join(f"{name} {100 * part:.0f} %" for name, part in entry["negative"].items())
        lines.append(f"{setting.name}: negative: {share}")
    figure = draw_directional_smoothness(settings, budget, path * runs[0].every, curvatures)
    return figure, finding("C4", "Directional smoothness is smaller along Adam's path", measured,
                           judge(*cases), lines, runs, dict(curvatures=curvatures))


def step_curvatures(task):
    """v^T H v (points, batches) for pairs (before, after) of a path; NaN where a run had diverged."""
    arguments, pairs, batches = task
    curvatures = np.full((len(pairs), batches), np.nan)
    for k in range(batches):
        prompts = evaluation_batch(arguments, k)
        for i, (before, after) in enumerate(pairs):
            if np.isfinite(after).all() and (after != before).any():
                curvatures[i, k] = linattn.curvature(before, after - before, prompts)
    return curvatures


@matplotlib.rc_context(STYLE)
def draw_directional_smoothness(settings, budget, iterations, curvatures):
    """Typical batch above, pooled below; linear around 0, so that negative values show."""
    figure, axes = new_figure(2, len(settings), (
        f"$v^T H v$, v the direction of the step; {curvatures.shape[-1]} evaluation batches of 1,000 prompts: their "
        f"median above, their mean below.\nLine: median over {budget.seeds} seeds, band: smallest to largest. "
        "Logarithmic scale, linear between the two ticks nearest to 0."))
    for column, setting in enumerate(settings):
        for ax, values in zip(axes[:, column], (np.median(curvatures[column], axis=-1),
                                                curvatures[column].mean(axis=-1))):
            for position, (name, seeds) in enumerate(zip(budget.optimizers, values)):
                style = dict(color=COLOURS[position % 5], ls=DASHES[position % 5])
                ax.fill_between(iterations, seeds.min(0), seeds.max(0), color=style["color"], alpha=0.25, lw=0)
                ax.plot(iterations, np.median(seeds, axis=0), label=name, **style)
            middle = np.nanmedian(np.abs(values))
            ax.set_yscale("symlog", linthresh=10 ** np.floor(np.log10(middle)))
            ax.axhline(0, color="#000000", lw=1)
        axes[0, column].set_title(setting.name)
        axes[1, column].set_xlabel("iteration")
    axes[0, 0].set_ylabel("typical batch")
    axes[1, 0].set_ylabel("pooled")
    axes[0, 0].legend()
    figure.align_ylabels()
    return figure


def generalized_smoothness(budget=Budget(seeds=3)):
    """C5: the smoothness grows with the gradient norm, as (L0, L1)-smoothness has it (figure 5).

    Along the first 2,000 steps of Adam, on evaluation batches of 1,000 prompts: the directional
    smoothness v^T H v and, on the first batch, the spectral norm of H, against the norm of the
    gradient at the same point and on the same batch. Measured: the slope of log against log, per
    seed (directional: the median over batches, where v^T H v > 0), and L0, L1 of the least-squares
    line v^T H v = L0 + L1 |g| through the typical points. Reproduced if in every setting the 95 %
    intervals of both slopes lie above 0.
    """
    budget, settings = check(budget), PAPER_SETTINGS
    runs = [run for run in setting_runs(settings, budget) if run.optimizer == budget.optimizers[-1]]
    snapshots = train_all(runs, budget, (len(settings),))[3][:, :, : 2000 // runs[0].every]
    batches = int(np.clip(budget.steps // 500, 2, 10))
    paths = snapshots.reshape(len(runs), *snapshots.shape[2:])
    tasks = [(run.data, pairs, batches) for run, pairs in zip(runs, paths)]
    norms, curvatures, spectral = map(np.array, zip(*in_order(smoothness_points, tasks, budget.jobs)))
    shape = (len(settings), budget.seeds)
    measured, lines, cases = {}, [], []
    by_setting = (x.reshape(*shape, *x.shape[1:]) for x in (norms, curvatures, spectral))
    for setting, g, c, s in zip(settings, *by_setting):
        typical = [np.median([log_slope(*batch) for batch in zip(gs.T, cs.T)]) for gs, cs in zip(g, c)]
        slopes = {"directional": typical, "spectral": [log_slope(gs[:, 0], ss) for gs, ss in zip(g, s)]}
        x, y = np.median(g, axis=-1).ravel(), np.median(c, axis=-1).ravel()
        L1, L0 = np.polyfit(x[np.isfinite(y)], y[np.isfinite(y)], 1)
        entry = measured[setting.name] = dict(L0=number(L0), L1=number(L1))
        for name, values in slopes.items():
            middle, low, high = interval(values)
            entry[f"{name} slope"] = dict(per_seed=numbers(values), mean=middle, interval_95=[low, high])
            cases.append((low, high, 0))
            lines.append(f"{setting.name}: slope of the {name} smoothness {in_words(middle, low, high)}")
        lines.append(f"{setting.name}: L0 = {L0:.3g}, L1 = {L1:.3g}; "
                     f"{100 * (c <= 0).mean():.0f} % of v^T H v negative")
    figure = draw_generalized_smoothness(settings, budget, norms, curvatures, spectral)
    return figure, finding("C5", "Smoothness grows with the gradient norm", measured, judge(*cases), lines,
                           runs, dict(norms=norms, curvatures=curvatures, spectral=spectral))


def smoothness_points(task):
    """Gradient norm and v^T H v (points, batches); the spectral norm of H (points,) on the first
    batch, at every fourth point, for it needs a whole Hessian."""
    arguments, pairs, batches = task
    norms, spectral = np.full((len(pairs), batches), np.nan), np.full(len(pairs), np.nan)
    for i, (theta, after) in enumerate(pairs):
        if not np.isfinite(after).all():
            continue
        for k in range(batches):
            prompts = evaluation_batch(arguments, k)
            norms[i, k] = np.linalg.norm(linattn.loss_and_grad(theta, prompts)[1])
            if k == 0 and i % 4 == 0:
                spectral[i] = np.abs(np.linalg.eigvalsh(linattn.hessian(theta, prompts))).max()
    return norms, step_curvatures(task), spectral


def log_slope(x, y):
    """Slope of log y against log x, over the points where both are positive."""
    good = (x > 0) & (y > 0)
    return np.polyfit(np.log(x[good]), np.log(y[good]), 1)[0] if good.sum() > 1 else np.nan


@matplotlib.rc_context(STYLE)
def draw_generalized_smoothness(settings, budget, norms, curvatures, spectral):
    """Directional smoothness above, spectral norm below, against the gradient norm."""
    figure, axes = new_figure(2, len(settings), (
        f"{budget.optimizers[-1]}, every 50 of {min(budget.steps, 2000):,} steps, {budget.seeds} seeds; above: "
        f"{norms.shape[-1]} evaluation batches of 1,000 prompts (where $v^T H v > 0$), below: the first of them, every 200 steps.\n"
        "Colour: iteration, from dark (start) to light. Line: least squares in the logarithms."))
    points = norms.shape[1]
    iteration = np.arange(points) * 50.0
    for column, setting in enumerate(settings):
        part = slice(column * budget.seeds, (column + 1) * budget.seeds)
        for ax, x, y in ((axes[0, column], norms[part], curvatures[part]),
                         (axes[1, column], norms[part, :, 0], spectral[part])):
            when = np.broadcast_to(iteration.reshape(1, -1, *(1,) * (x.ndim - 2)), x.shape)
            good = (x > 0) & (y > 0)
            drawn = ax.scatter(x[good], y[good], c=when[good], s=14, alpha=0.7, cmap="cividis",
                               vmin=0, vmax=50.0 * points)
            slope, offset = np.polyfit(np.log(x[good]), np.log(y[good]), 1)
            ends = np.array([x[good].min(), x[good].max()])
            ax.plot(ends, np.exp(offset) * ends**slope, "k-", label=f"slope {slope:.2f}")
            ax.set(xscale="log", yscale="log")
            ax.tick_params(axis="x", which="minor", labelbottom=False)
            ax.legend()
        axes[0, column].set_title(setting.name)
        axes[1, column].set_xlabel("gradient norm")
    axes[0, 0].set_ylabel("$v^T H v$")
    axes[1, 0].set_ylabel("spectral norm of H")
    figure.colorbar(drawn, ax=axes, label="iteration")
    figure.align_ylabels()
    return figure


COST_N = (10, 20, 40, 80, 160)
COST_FORMS = ("softmax", "linear, textbook", "linear, Gram form")
COST_OTHERS = ("gradient, n = 20, d = 5, L = 3", "gradient, n = 20, d = 5, L = 8",
               "gradient, n = 60, d = 20, L = 8", "compression, n = 20, d = 5",
               "compression, n = 60, d = 20", "Hessian 150 x 150, n = 20, d = 5, L = 3")


def attention_cost(budget=Budget()):
    """Time per gradient against the context length n: the reason for the name 'linear attention'.

    Without softmax the sum over the context associates, so a prompt enters through its Gram matrix
    and a gradient costs the same for every n; the textbook form, and softmax, cost O(n^2). Measured:
    the median of several calls on 1,000 prompts, d = 5, L = 3, one BLAS thread, one process; the
    slope of log time against log n over the last three n, with its interval over repeats. Reproduced
    if the Gram form's interval lies within 0.1 of 0 and the other two above 1.5. Of the budget only
    `seeds`, the number of repeats, counts.
    """
    budget = check(budget)
    repeats = in_order(cost_seconds, range(budget.seeds), jobs=1)
    seconds, others = map(np.array, zip(*repeats))
    slopes = fitted_slopes(seconds)
    softmax, textbook, gram = (slope[1:] for slope in slopes.values())
    verdict = judge((*softmax, 1.5), (*textbook, 1.5), (*gram, -0.1), below(*gram, 0.1))
    measured, lines = {}, []
    for form, slope, times in zip(COST_FORMS, slopes.values(), 1e3 * np.median(seconds, axis=0)):
        measured[form] = dict(slope=slope[0], interval_95=slope[1:], ms=dict(zip(map(str, COST_N), times)))
        lines.append(f"{form}: {times[0]:.3g} ms at n = {COST_N[0]}, {times[-1]:.3g} ms at "
                     f"n = {COST_N[-1]}, slope {in_words(*slope)}")
    for name, ms in zip(COST_OTHERS, 1e3 * np.median(others, axis=0)):
        measured[name] = dict(ms=ms)
        lines.append(f"{name}: {ms:.3g} ms")
    return draw_attention_cost(seconds, slopes), finding(
        "cost", "A gradient costs O(n^2) in the textbook form, the same for every n in the Gram form",
        measured, verdict, lines, dict(batch=1000, d=5, layers=3, n=COST_N, repeats=budget.seeds),
        dict(seconds=seconds))


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


def fitted_slopes(seconds):
    """{form: (slope of log time against log n over the last three n, low, high)}."""
    x, y = np.log(COST_N[-3:]), np.log(seconds[:, :, -3:])
    return {form: interval([np.polyfit(x, each, 1)[0] for each in y[:, i]])
            for i, form in enumerate(COST_FORMS)}


@matplotlib.rc_context(STYLE)
def draw_attention_cost(seconds, intervals):
    """Milliseconds per gradient against n, both on log scales."""
    figure, ((ax,),) = new_figure(1, 1, (
        f"1,000 prompts, d = 5, 3 layers, one core; median and range of {len(seconds)} repeats; slopes "
        f"over n = {COST_N[-3]} to {COST_N[-1]}.\nThe Gram matrices of the batch are made once, before."))
    for i, (form, (slope, _, _)) in enumerate(intervals.items()):
        low, middle, high = np.quantile(1e3 * seconds[:, i], (0, 0.5, 1), axis=0)
        ax.fill_between(COST_N, low, high, color=COLOURS[i], alpha=0.25, lw=0)
        ax.plot(COST_N, middle, color=COLOURS[i], ls=DASHES[i], marker="os^"[i], ms=9,
                label=f"{form}: slope {slope:.2f}")
    ax.set(xscale="log", yscale="log", xlabel="context length n", ylabel="ms per gradient",
           xticks=COST_N, xticklabels=COST_N)
    ax.minorticks_off()
    ax.legend()
    return figure


EXPERIMENTS = {  # name: (function, one line)
    "adam_vs_sgd": (adam_vs_sgd, "C1: Adam beats SGD in Settings 1, 2 and 3"),
    "gradient_noise": (gradient_noise, "C2: gradient noise is heavy-tailed in Settings 1, 2 and 3"),
    "condition_number": (condition_number, "C3: R_med is larger along SGD's path than along Adam's"),
    "directional_smoothness": (directional_smoothness, "C4: v^T H v is smaller along Adam's path"),
    "generalized_smoothness": (generalized_smoothness, "C5: smoothness grows with the gradient norm"),
    "attention_cost": (attention_cost, "time per gradient against n (--seeds: repeats)"),
}


# ---- The command line ----------------------------------------------------------------------------


def save(name, figure, found, out):
    """Write NAME.png, .pdf, .npz and .json into the folder out; returns their paths."""
    out = Path(out)
    arrays = found["arrays"]
    text = json.dumps({key: found[key] for key in found if key != "arrays"}, indent=1, allow_nan=False)
    with matplotlib.rc_context(STYLE):
        write(out / f"{name}.png", lambda file: figure.savefig(file, format="png", dpi=120))
        write(out / f"{name}.pdf", lambda file: figure.savefig(
            file, format="pdf", metadata={"CreationDate": None}))
    write(out / f"{name}.npz", lambda file: np.savez_compressed(file, **arrays))
    write(out / f"{name}.json", lambda file: file.write((text + "\n").encode()))
    return [out / f"{name}.{suffix}" for suffix in ("png", "pdf", "npz", "json")]


class Parser(argparse.ArgumentParser):
    """Errors in one line, exit status 2."""

    def error(self, message):
        self.exit(2, f"experiments.py: {message}\n")


def parse(arguments):
    """(experiment's name or None, Budget); exits with status 2 and one line on a mistake."""
    parser = Parser(prog="experiments.py", description="Run an experiment; without a name, list them.")
    parser.add_argument("name", nargs="?", help="the experiment")
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
    given = parser.parse_args(arguments)
    if given.name is not None and given.name not in EXPERIMENTS:
        parser.error(f"experiment: got {given.name!r}, wants one of {', '.join(EXPERIMENTS)}")
    changes = FULL if given.full else QUICK if given.quick else {}
    own = {key: getattr(given, key) for key in ("seeds", "steps", "jobs", "out", "optimizers")}
    function = EXPERIMENTS[given.name][0] if given.name else adam_vs_sgd
    default = inspect.signature(function).parameters["budget"].default
    budget = default._replace(**changes)._replace(**{k: v for k, v in own.items() if v is not None})
    try:
        budget = budget._replace(lr=parse_rates(given.lr, budget.optimizers))
        return given.name, check(budget) if given.name else budget
    except ValueError as error:
        parser.error(str(error))


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
    name, budget = parse(arguments)
    if name is None:
        for name, (_, line) in EXPERIMENTS.items():
            print(f"{name:<24}{line}")
        return 0
    status = 1
    try:
        figure, found = EXPERIMENTS[name][0](budget)
        paths = save(name, figure, found, budget.out)
        words = [f"{found['claim']}: {found['claimed']}", *found["lines"], f"verdict: {found['verdict']}"]
        print("\n  ".join([*words, " ".join(map(str, paths))]), flush=True)
        return 0
    except BrokenPipeError:  # the reader of our output left; the files are saved
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except RunFailed as error:
        print(error, file=sys.stderr)
    except OSError as error:
        say(str(error))
    except KeyboardInterrupt:
        say("interrupted")
        status = 130
    if any(Path(budget.out, "runs").glob("*.npz")):
        say("finished runs are kept; the same command does the rest")
    return status


if __name__ == "__main__":
    sys.exit(main())
