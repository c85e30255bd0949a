"""Every phenomenon as one function: `python experiments.py NAME` measures, draws and judges it.

    budget      how much to spend: seeds, steps, optimizers, learning rates, processes
    run         one training: a setting, an optimizer, a learning rate, a seed
    finding     what was claimed, what was measured, and the verdict that the numbers give

From the top: training, runs on disk, statistics, drawing, the experiments, the command line.
Source: Ahn et al., ICLR 2024, arXiv 2310.01082; C1, C2, ... number its claims.
"""

import argparse
import ast
import hashlib
import inspect
import json
import multiprocessing
import os
import platform
import sys
import tempfile
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
    layers: int = 3
    std: float = 0.05
    full: bool = False
    activation: str = "linear"

    def __str__(self):
        where = ", ".join(f"{key}={value}" for key, value in self.data.items())
        return f"{self.optimizer} (lr {self.lr:g}), {where}, L={self.layers}, seed {self.seed}"


DIVERGED = 1e3  # times the first loss,
PATIENCE = 20  # this many steps in a row (rare prompts make single steps jump far higher)


def train(runs):
    """Train runs that share everything but optimizer and lr, each batch drawn once for all of them.

    Returns one dict a run: loss and grad_norm (steps,), both taken before the step and NaN from the
    step at which the run diverged; that step, or -1; and the final params. As no batch is seen
    twice, the training loss is an unbiased test loss.
    """
    run = runs[0]
    init, stream = map(np.random.default_rng, np.random.SeedSequence(run.seed).spawn(2))
    params = linattn.init_params(init, run.layers, run.data["d"], run.std, run.full)
    params = [params] * len(runs)
    steppers = [optimizers.by_name(each.optimizer)(each.lr) for each in runs]
    loss, grad_norm = np.full((2, len(runs), run.steps), np.nan)
    diverged, bad = np.full(len(runs), -1), np.zeros(len(runs), int)
    with np.errstate(all="ignore"):
        for t in range(run.steps):
            prompts = data.sample_prompts(stream, **run.data)
            if run.activation == "linear":
                prompts = linattn.compress(prompts)
            for i in np.flatnonzero(diverged < 0):
                loss[i, t], grad = linattn.loss_and_grad(params[i], prompts, run.activation)
                grad_norm[i, t] = np.linalg.norm(grad)
                bad[i] = bad[i] + 1 if loss[i, t] > DIVERGED * loss[i, 0] else 0
                if bad[i] == PATIENCE or not np.isfinite(loss[i, t] + grad_norm[i, t]):
                    diverged[i], loss[i, t], grad_norm[i, t] = t, np.nan, np.nan
                    continue
                grad = optimizers.clip_global_norm(grad, run.clip)
                params[i] = steppers[i].step(params[i], grad)
    fields = ("loss", "grad_norm", "diverged", "params")
    return [dict(zip(fields, each)) for each in zip(loss, grad_norm, diverged, params)]


def learning_rate(setting, optimizer, budget):
    """The budget's rate for an optimizer, else the setting's."""
    rate = budget.lr.get(optimizer, setting.lr.get(optimizer))
    if rate is None:
        raise ValueError(f"lr: got none for {optimizer} in {setting.name}, wants --lr {optimizer}=RATE")
    return rate


# ---- Runs on disk, and in parallel ---------------------------------------------------------------


def fingerprint(run):
    """What a stored run must agree with: its configuration and the code that computes it."""
    code = [inspect.getsource(part) for part in (linattn, data, train)]
    code.append(inspect.getsource(optimizers.by_name(run.optimizer)))
    code.append(inspect.getsource(optimizers.clip_global_norm))
    trees = [ast.dump(_NoDocstrings().visit(ast.parse(source))) for source in code]
    digest = hashlib.sha256("".join(trees).encode()).hexdigest()
    return json.dumps(dict(run._asdict(), code=digest), sort_keys=True)


class _NoDocstrings(ast.NodeTransformer):
    def visit_Expr(self, node):
        return ast.Pass() if isinstance(node.value, ast.Constant) else node


def run_file(run, budget):
    name = hashlib.sha256(fingerprint(run).encode()).hexdigest()[:16]
    return Path(budget.out, "runs", f"{run.optimizer}-{name}.npz")


def write(path, save):
    """Write a file as a whole or not at all: save(file) to a temporary one, which is then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
    try:
        with os.fdopen(handle, "wb") as file:
            save(file)
        os.chmod(temporary, 0o666 & ~_UMASK)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _umask():
    value = os.umask(0)
    os.umask(value)
    return value


_UMASK = _umask()


def load(run, budget):
    """A finished run from disk, or None; a file that is not what its name says is named."""
    path = run_file(run, budget)
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as stored:
            result = {key: stored[key] for key in ("loss", "grad_norm", "diverged", "params")}
            if str(stored["fingerprint"]) != fingerprint(run):
                raise ValueError("it belongs to another configuration")
            if result["loss"].shape != (run.steps,) or result["grad_norm"].shape != (run.steps,):
                raise ValueError("its arrays have other shapes")
            return result
    except Exception as error:  # whatever a damaged file makes of numpy and zipfile
        say(f"{path}: not usable ({error}); computed anew")
        return None


def train_all(runs, budget):
    """Results of runs in their order: from disk where finished, else trained in parallel processes.

    Each run is saved as soon as it is done. Raises RunFailed, naming them, if some could not be
    done; the others are kept.
    """
    results = {i: result for i, run in enumerate(runs) if (result := load(run, budget))}
    groups = {}  # runs that share their batches
    for i, run in enumerate(runs):
        if i not in results:
            key = json.dumps(run._replace(optimizer="", lr=0), sort_keys=True)
            groups.setdefault(key, []).append(i)

    def keep(members, trained):
        for i, result in zip(members, trained):
            stored = dict(result, fingerprint=fingerprint(runs[i]))
            write(run_file(runs[i], budget), lambda file: np.savez(file, **stored))
            results[i] = result

    tasks = [([runs[i] for i in members], members) for members in groups.values()]
    errors = in_processes(train, tasks, keep, budget.jobs)
    if errors:
        lines = [f"{runs[i]}: {error}" for members, error in errors for i in members]
        raise RunFailed("\n".join(lines))
    return [results[i] for i in range(len(runs))]


class RunFailed(Exception):
    """Some runs could not be done; what is finished is on disk."""


def in_processes(function, tasks, keep, jobs):
    """Call keep(label, function(argument)) for every (argument, label) of tasks, in `jobs` worker
    processes with one BLAS thread each; returns [(label, error message)].

    A worker that dies takes its whole pool with it, so what the pool left undone is tried once more,
    each task in a pool of its own: then the one that dies again is known.
    """
    errors, undone, start, done = [], [], time.monotonic(), 0

    def attempt(some, workers):
        nonlocal done
        with _one_thread(), ProcessPoolExecutor(
            workers, multiprocessing.get_context("spawn"), _follow_parent
        ) as pool:
            try:
                futures = {pool.submit(function, argument): (argument, label) for argument, label in some}
                for future in as_completed(futures):
                    argument, label = futures[future]
                    try:
                        result = future.result()
                    except BrokenExecutor:
                        undone.append((argument, label))
                        continue
                    except Exception as error:
                        errors.append((label, f"{type(error).__name__}: {error}"))
                        continue
                    keep(label, result)
                    done += 1
                    progress(done, len(tasks), start)
            except BaseException:  # Ctrl-C, a full disk: do not wait for the workers
                for child in multiprocessing.active_children():
                    child.terminate()
                raise

    if tasks:
        progress(0, len(tasks), start)
        attempt(tasks, min(jobs, len(tasks)))
        again, undone = undone, []
        for task in again:
            attempt([task], 1)
        errors += [(label, "its worker process died") for _, label in undone]
        progress(None, len(tasks), start)
    return errors


class _one_thread:
    """Child processes started inside have one BLAS thread: matrices this small gain from no more."""

    NAMES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")

    def __enter__(self):
        self.before = {name: os.environ.get(name) for name in self.NAMES}
        os.environ.update(dict.fromkeys(self.NAMES, "1"))

    def __exit__(self, *_):
        for name, value in self.before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _follow_parent():
    """In a worker: leave when the parent is gone, even by kill -9, and die of Ctrl-C in silence."""
    import signal
    import threading

    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def progress(done, total, start):
    """Runs done and the time left, on a terminal only."""
    if not sys.stderr.isatty():
        return
    text = ""
    if done is not None:
        left = f", about {(time.monotonic() - start) / done * (total - done):.0f} s left" if done else ""
        text = f"{done} of {total} done{left}"
    print(f"\r{text:<50}", end="" if text else "\r", file=sys.stderr, flush=True)


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


def in_blocks(series, count=100):
    """Cut the last axis of (..., steps) into blocks; (centre (count,), [block (..., width)])."""
    edges = np.linspace(0, series.shape[-1], min(count, series.shape[-1]) + 1).astype(int)
    blocks = [series[..., a:b] for a, b in zip(edges[:-1], edges[1:])]
    return (edges[:-1] + edges[1:] - 1) / 2, blocks


def final(series):
    """Median over the last tenth of the steps."""
    return np.median(series[..., -max(1, series.shape[-1] // 10) :], axis=-1)


def finding(claim, claimed, measured, verdict, lines, budget, arrays):
    """What an experiment returns beside its figure; `lines` say it in words."""
    configuration = {key: getattr(budget, key) for key in ("seeds", "steps", "optimizers", "lr")}
    versions = dict(python=platform.python_version(), numpy=np.__version__)
    versions.update(matplotlib=matplotlib.__version__, machine=platform.machine())
    return dict(claim=claim, claimed=claimed, measured=measured, verdict=verdict, lines=lines,
                configuration=configuration, versions=versions, arrays=arrays)


# ---- Drawing -------------------------------------------------------------------------------------

COLOURS = ("#E69F00", "#0072B2", "#009E73", "#CC79A7", "#000000")  # told apart in grey as well,
DASHES = ("--", "-", ":", "-.", (0, (1, 1)))  # by the line style at the latest
STYLE = {
    "font.size": 15,
    "axes.titlesize": 16,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "lines.linewidth": 2.5,
    "legend.frameon": False,
    "pdf.fonttype": 42,
    "svg.hashsalt": "linattn",
}


def new_figure(rows, columns, caption):
    """Figure and axes (rows, columns) in the shape of a slide, with a caption below."""
    figure = Figure(figsize=(13.33, 7.5), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    figure.supxlabel(caption, fontsize=12, color="#333333", x=0.01, ha="left")
    return figure, axes


def draw_curves(ax, series, position):
    """One optimizer's (seeds, steps) into ax: running median, median and range over seeds, and the
    running mean as a thin line. Returns nothing."""
    centre, blocks = in_blocks(series)
    with np.errstate(invalid="ignore"):
        medians = np.array([np.median(block, axis=-1) for block in blocks])  # (count, seeds)
        means = np.array([block.mean() for block in blocks])
    colour, dash = COLOURS[position % 5], DASHES[position % 5]
    ax.fill_between(centre, medians.min(axis=1), medians.max(axis=1), color=colour, alpha=0.25, lw=0)
    ax.plot(centre, np.median(medians, axis=1), color=colour, ls=dash)
    ax.plot(centre, means, color=colour, lw=0.8, alpha=0.8)
    for seed, curve in enumerate(medians.T):
        last = np.flatnonzero(np.isfinite(curve))
        if len(last) and last[-1] + 1 < len(centre):
            ax.plot(centre[: last[-1] + 1], curve[: last[-1] + 1], color=colour, ls=dash, lw=1)
            ax.plot(centre[last[-1]], curve[last[-1]], "X", color=colour, ms=10)
    ax.set_yscale("log")


# ---- The experiments -----------------------------------------------------------------------------


def adam_vs_sgd(budget=Budget()):
    """C1: Adam beats SGD in Settings 1, 2 and 3 (figure 1 of the paper).

    Three layers, SGD and Adam with momentum 0.9 from the same weights on the same batches, gradient
    norm clipped at 1. Measured: the median training loss over the last tenth of the steps, and how
    many times lower it is for Adam, per seed. Reproduced if in every setting the 95 % interval of
    that ratio lies above 1.
    """
    settings = (SETTING_1, SETTING_2, SETTING_3)
    runs = [Run(name, learning_rate(setting, name, budget), setting.data, setting.clip, seed, budget.steps)
            for setting in settings for name in budget.optimizers for seed in range(budget.seeds)]
    shape = (len(settings), len(budget.optimizers), budget.seeds)
    results = train_all(runs, budget)
    loss, grad_norm, diverged = (
        np.array([result[key] for result in results]).reshape(*shape, -1)
        for key in ("loss", "grad_norm", "diverged")
    )
    figure = draw_adam_vs_sgd(settings, budget, loss, grad_norm)
    measured, lines, verdict = compare(settings, budget, final(loss), diverged[..., 0])
    for setting, losses in zip(settings, loss):
        tail = losses[..., -max(1, budget.steps // 10) :].reshape(len(losses), -1)
        measured[setting.name]["mean over median of the final loss"] = dict(
            zip(budget.optimizers, map(number, tail.mean(axis=-1) / np.median(tail, axis=-1))))
    return figure, finding(
        "C1", "Adam beats SGD in Settings 1, 2 and 3", measured, verdict, lines, budget,
        dict(loss=loss, grad_norm=grad_norm, diverged=diverged[..., 0]))


def compare(settings, budget, losses, diverged):
    """Final losses (settings, optimizers, seeds) of the first optimizer over each other one.

    Returns (measured, lines, verdict on 'Adam beats SGD').
    """
    reference, *others = budget.optimizers
    measured, lines, lows, highs = {}, [], [], []
    for setting, loss, step in zip(settings, losses, diverged):
        entry = measured[setting.name] = {}
        for name, values, steps in zip(budget.optimizers, loss, step):
            entry[name] = dict(lr=learning_rate(setting, name, budget),
                               final_loss=[number(value) for value in values])
            for seed in np.flatnonzero(steps >= 0):
                entry[name].setdefault("diverged", {})[f"seed {seed}"] = f"at step {steps[seed]}"
                lines.append(f"{setting.name}: {name}, seed {seed}, diverged at step {steps[seed]}")
        for name, values in zip(others, loss[1:]):
            logs = np.log(loss[0] / values)
            mean, low, high = (None if bound is None else number(np.exp(bound)) for bound in interval(logs))
            entry[f"{reference} / {name}"] = dict(
                per_seed=[number(value) for value in np.exp(logs)], geometric_mean=mean, interval_95=[low, high])
            lows.append(low)
            highs.append(high)
            medians = f"{reference} {np.median(loss[0]):.3g}, {name} {np.median(values):.3g}"
            within = f", 95 % interval [{low:.3g}, {high:.3g}]" if low else ", no interval"
            ratio = f"{mean:.3g}" if mean else "unknown"
            lines.append(f"{setting.name}: final loss {medians}; ratio {ratio}{within}")
    if tuple(budget.optimizers) != ("SGD", "Adam"):
        verdict = "not judged: the claim is about SGD and Adam"
    elif all(low is not None and low > 1 for low in lows):
        verdict = "reproduced"
    elif any(high is not None and high < 1 for high in highs):
        verdict = "not reproduced"
    else:
        verdict = "inconclusive"
    return measured, lines, verdict


def number(value):
    """A float that JSON can hold; None for NaN and infinity."""
    return float(value) if np.isfinite(value) else None


def draw_adam_vs_sgd(settings, budget, loss, grad_norm):
    """Two rows, loss and gradient norm; a column for each setting."""
    width = max(1, budget.steps // 100)
    figure, axes = new_figure(2, len(settings), (
        f"Thick: median over {budget.seeds} seeds of the median over {width} steps; band: least to "
        f"greatest seed; thin: mean over seeds and steps.\n3 layers, {budget.steps:,} steps, each on "
        "1,000 fresh prompts (so the training loss is a test loss); X: diverged."))
    for row, (series, label) in enumerate([(loss, "training loss"), (grad_norm, "gradient norm")]):
        for column, setting in enumerate(settings):
            ax = axes[row, column]
            for position, name in enumerate(budget.optimizers):
                draw_curves(ax, series[column, position], position)
            if row == 0:
                ax.set_title(setting.name)
            else:
                ax.set_xlabel("iteration")
            if column == 0:
                ax.set_ylabel(label)
    for position, name in enumerate(budget.optimizers):
        axes[0, 0].plot([], [], color=COLOURS[position % 5], ls=DASHES[position % 5], label=name)
    axes[0, 0].legend()
    return figure


COST_N = (10, 20, 40, 80, 160)  # context lengths; slopes are fitted to the last three


def attention_cost(budget=Budget()):
    """Time per gradient against the context length n: the reason for the name 'linear attention'.

    Without softmax the sum over the context associates, so a prompt enters through its Gram matrix
    and a gradient costs the same for every n; the textbook form, and softmax, cost O(n^2). Measured:
    the median of three calls on 1,000 prompts, d = 5, L = 3, one BLAS thread, one process; the
    slope of log time against log n over the last three n, with its interval over repeats (--seeds).
    Reproduced if the Gram form's interval lies within 0.1 of 0 and the other two above 1.
    """
    seconds = []
    tasks = [(repeat, repeat) for repeat in range(budget.seeds)]
    errors = in_processes(gradient_seconds, tasks, lambda _, result: seconds.append(result), jobs=1)
    if errors:
        raise RunFailed("\n".join(f"repeat {label}: {error}" for label, error in errors))
    seconds = np.array(seconds)  # (repeats, forms, n)
    logs = np.log(seconds[:, :, -3:])
    slopes = np.array([np.polyfit(np.log(COST_N[-3:]), each.T, 1)[0] for each in logs])
    intervals = {form: interval(slopes[:, i]) for i, form in enumerate(COST_FORMS)}
    (_, *softmax), (_, *textbook), (_, *gram) = intervals.values()
    known = None not in softmax + textbook + gram
    if known and softmax[0] > 1 and textbook[0] > 1 and gram[0] > -0.1 and gram[1] < 0.1:
        verdict = "reproduced"
    elif known and (softmax[1] < 1 or textbook[1] < 1 or gram[0] > 0.1 or gram[1] < -0.1):
        verdict = "not reproduced"
    else:
        verdict = "inconclusive"
    measured, lines = {}, []
    for i, (form, (mean, low, high)) in enumerate(intervals.items()):
        milliseconds = 1e3 * np.median(seconds[:, i], axis=0)
        measured[form] = dict(slope=mean, interval_95=[low, high],
                              milliseconds=dict(zip(map(str, COST_N), milliseconds.tolist())))
        within = f", 95 % interval [{low:.2f}, {high:.2f}]" if low is not None else ", no interval"
        lines.append(f"{form}: {milliseconds[0]:.2f} ms at n = {COST_N[0]}, {milliseconds[-1]:.2f} ms at "
                     f"n = {COST_N[-1]}, slope {mean:.2f}{within}")
    figure = draw_attention_cost(seconds, intervals)
    return figure, finding("cost", "A gradient costs O(n^2) in the textbook form, the same for every n "
                           "in the Gram form", measured, verdict, lines, budget, dict(seconds=seconds))


COST_FORMS = ("softmax", "linear, textbook", "linear, Gram form")


def gradient_seconds(seed):
    """Seconds per gradient, (forms, n): each the median of three calls after a first one."""
    rng = np.random.default_rng(seed)
    params = linattn.init_params(rng)
    seconds = np.empty((len(COST_FORMS), len(COST_N)))
    for column, n in enumerate(COST_N):
        prompts = data.sample_prompts(rng, n=n)
        gram = linattn.compress(prompts)
        calls = (lambda: linattn.loss_and_grad(params, prompts, "softmax"),
                 lambda: linattn.textbook_loss_and_grad(params, prompts),
                 lambda: linattn.loss_and_grad(params, gram))
        for row, call in enumerate(calls):
            call()
            times = [time.perf_counter()]
            for _ in range(21 if call is calls[2] else 3):
                call()
                times.append(time.perf_counter())
            seconds[row, column] = np.median(np.diff(times))
    return seconds


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
    "attention_cost": (attention_cost, "time per gradient against n: softmax, textbook, Gram form"),
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
    budget = Budget()._replace(**changes)._replace(**{k: v for k, v in own.items() if v is not None})
    try:
        budget = budget._replace(optimizers=tuple(budget.optimizers))
        return given.name, check(budget._replace(lr=parse_rates(given.lr, budget.optimizers)))
    except ValueError as error:
        parser.error(str(error))


def parse_rates(texts, names):
    """{optimizer: rate} from RATE (for all) and NAME=RATE (for one)."""
    rates = {}
    for text in texts:
        name, _, rate = text.rpartition("=")
        try:
            value = float(rate)
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
        if not (isinstance(value, int) and value >= 1):
            raise ValueError(f"{key}: got {value!r}, wants a whole number >= 1")
    if len(budget.optimizers) < 2 or len(set(budget.optimizers)) < len(budget.optimizers):
        raise ValueError(f"optimizers: got {' '.join(budget.optimizers)}, wants two or more, each once")
    for name in budget.optimizers:
        optimizers.by_name(name)
        for setting in (SETTING_1, SETTING_2, SETTING_3):
            rate = learning_rate(setting, name, budget)
            if not 0 < rate < np.inf:
                raise ValueError(f"lr: got {rate!r}, wants a number > 0")
    try:
        Path(budget.out).mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=budget.out).close()
    except OSError as error:
        raise ValueError(f"out: got {budget.out!r}, cannot write there ({error.strerror})") from None
    return budget


def main(arguments=None):
    """Run the command line; returns the exit status."""
    name, budget = parse(arguments)
    if name is None:
        for name, (_, line) in EXPERIMENTS.items():
            print(f"{name:<16}{line}")
        return 0
    function, _ = EXPERIMENTS[name]
    try:
        with matplotlib.rc_context(STYLE):
            figure, found = function(budget)
        paths = save(name, figure, found, budget.out)
    except RunFailed as error:
        print(f"{error}\nexperiments.py: finished runs are kept; the same command does the rest",
              file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        say("interrupted; finished runs are kept, the same command goes on from there")
        return 130
    except OSError as error:
        say(f"{error}; finished runs are kept, the same command goes on from there")
        return 1
    print(f"{found['claim']}: {found['claimed']}")
    for line in found["lines"]:
        print(f"  {line}")
    print(f"  verdict: {found['verdict']}")
    print("  " + " ".join(map(str, paths)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
