"""Every phenomenon as one function that measures and one that draws: `python experiments.py NAME`.

    run       what an experiment may spend (training.Run): seeds, steps, optimizers
    runs      what was trained in one setting, by the optimizer's name: arrays, first axis the seeds
    arrays    what is drawn, by name; kept in NAME.npz, from which the figure can be drawn again
    part      what was measured, a value for each seed, and what the claim says of it

A measuring function has its default run, the first look of the command line, as its argument's
default; a drawing function, draw_NAME, returns the caption, which says what is drawn.
First the phenomena (the paper's claims C1 to C12, then open questions), their table, then
statistics and verdict, files, the command line. The loop is in training.py. The default runs are a
first look; most claims need --full. Source: Ahn et al., ICLR 2024, arXiv 2310.01082.
"""

import argparse
import functools
import importlib
import json
import os
import platform
import sys
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np

import plotting
import training
from data import (DEEP, LARGE, LIGHT_TAILS, NONLINEAR, NONLINEAR_TASK, SETTING_1, SETTING_2,
                  SETTING_3, SPHERICAL, Setting)
from optimizers import SGD, Adam, SignDescent
from plotting import curves, dots, level, losses, picture, smoothness_axis, tails
from training import (COST_FORMS, COST_N, COST_OTHERS, Mistake, Run, RunFailed, final_loss,
                      last_tenth, moment, r_med)

PAPER_SETTINGS = {"Setting 1": SETTING_1, "Setting 2": SETTING_2, "Setting 3": SETTING_3}
TITLES = {"Setting 1": "Setting 1", "Setting 2": "Setting 2: n = 5",
          "Setting 3": "Setting 3: heavy-tailed x"}


# ---- The paper's claims --------------------------------------------------------------------------


def adam_vs_sgd(run=Run(seeds=4, steps=1000)):
    """C1: Adam beats SGD in Settings 1, 2 and 3.

    Figure 1 of the paper. Three layers, SGD and Adam with momentum 0.9 from the same weights on the
    same batches, gradient norm clipped at 1, at the published rates. Measured: the median training
    loss over the last tenth of the steps, and SGD's over Adam's, per seed. Claimed: a ratio above
    1.
    """
    arrays, parts = {"iteration": block_centres(run.steps), "optimizers": run.names}, []
    for name, runs in run.train(PAPER_SETTINGS).items():
        loss = {each: runs[each]["loss"] for each in run.names}  # (seeds, steps) each
        norm = {each: runs[each]["grad_norm"] for each in run.names}
        parts += final_losses(name, loss, above=1)  # judged: above 1 in the mean over seeds
        arrays[f"{name} loss"] = running_median(loss.values())  # (optimizers, seeds, blocks)
        arrays[f"{name} norm"] = running_median(norm.values())
    return arrays, parts


def draw_adam_vs_sgd(figure, arrays):
    rows = figure.subplots(2, 3)
    for name, above, below in zip(PAPER_SETTINGS, *rows):
        losses(above, arrays, f"{name} loss", title=TITLES[name], ylabel="training loss")
        losses(below, arrays, f"{name} norm", title=TITLES[name], ylabel="gradient norm")
    return ("Running medians over blocks of a fiftieth of the steps; line: median over seeds, "
            "band: smallest to largest. Three layers; every batch is fresh, so that the training "
            "loss is a test loss; the norm is that before clipping.")


def final_losses(name, loss, **bound):
    """Parts of one setting, from the losses (seeds, steps) of each optimizer: the final loss of the
    first one over that of each other one, which is claimed to keep the bound; how far the mean over
    the same steps lies above the median, for rare prompts decide it; where runs diverged."""
    final = {each: final_loss(values) for each, values in loss.items()}  # (seeds,) each
    first, *others = loss.keys()
    parts = [Part(f"{name}: final loss {first} / {each}", final[first] / final[each], **bound)
             for each in others]
    for each, values in loss.items():
        end = last_tenth(values)
        parts += [Part(f"{name}: final loss {each}", final[each]),
                  Part(f"{name}: mean over median, {each}", f"{end.mean() / np.median(end):.3g}")]
    lost = [f"{each}, seed {seed}, at step {lost_at(values[seed])}"
            for each, values in loss.items() for seed in np.flatnonzero(~np.isfinite(final[each]))]
    if lost:
        parts.append(Part(f"{name}: diverged", "; ".join(lost)))
    return parts


def lost_at(loss):
    """The step from which no loss of (steps,) is finite."""
    finite = np.flatnonzero(np.isfinite(loss))
    return finite[-1] + 1 if finite.size else 0


def gradient_noise(run=Run(seeds=4, steps=1000)):
    """C2: Stochastic gradient noise is heavy-tailed in Settings 1, 2 and 3.

    Figure 2. At initialisation, the norm of g_batch - g_big: gradients on 1,000 and on 100,000
    fresh prompts; as many draws as the run has steps, for each seed's initial weights. Measured:
    the kurtosis of the noise's coordinates and of its norm, over a Gaussian's 3, and the skewness
    of the norm (that of a Gaussian vector is slightly skewed, too: no bound). A few draws carry the
    kurtosis, and no more than their number can come out, so it is averaged over seeds on a
    logarithmic scale. Claimed: both kurtoses above 3. No optimizer is used.
    """
    arrays, parts = {"share": tail_shares(run.steps)}, []
    for name, setting in PAPER_SETTINGS.items():
        norms, measured = noise_tails(run, name, setting, run.steps, above=1)  # (seeds, draws)
        arrays[f"{name} tail"] = tail(norms)
        parts += measured
    return arrays, parts


def draw_gradient_noise(figure, arrays):
    for name, ax in zip(PAPER_SETTINGS, figure.subplots(1, 3, sharex=True, sharey=True)):
        tails(ax, arrays, f"{name} tail", title=TITLES[name])
    return ("Share of the draws whose norm exceeds r times the median of their seed: |g(1,000 "
            "prompts) - g(100,000 prompts)| at initialisation, three layers. A line for each seed; "
            "dashed: the normal distribution of the same median and upper quartile.")


def noise_tails(run, name, setting, draws, **bound):
    """The noise norms of a setting (seeds, draws), and what is measured of their tails."""
    results = run.all(training.noise, [(setting, seed, draws) for seed in range(run.seeds)])
    norms = np.array([each["norms"] for each in results])
    coordinates = np.array([each["kurtosis"] for each in results])
    with np.errstate(all="ignore"):  # a single draw has no variance
        skewness, kurtosis = moment(norms, 3), moment(norms, 4)
    return norms, [
        Part(f"{name}: skewness of the noise norm", skewness, log=False),
        Part(f"{name}: kurtosis of the noise norm / 3", kurtosis / 3, **bound),
        Part(f"{name}: kurtosis of the noise coordinates / 3", coordinates / 3, **bound)]


def condition_number(run=Run(seeds=3, steps=800)):
    """C3: R_med is larger along SGD's path than along Adam's.

    Figure 3 and table 1. R_med = max |H_ii| / median |H_ii| over the diagonal of the Hessian; the
    table holds R_med of SGD over that of Adam at iterations 750 and 1250, on one evaluation batch
    of 1,000 prompts. Here: on many (one per 100 steps, 2 to 100), and on the Hessian pooled over
    all of them, and, from 2,000 steps on, for other rates, matrices and seeds. Claimed: above 1, on
    the typical batch (median) and pooled.
    """
    batches = within(2, run.steps // 100, 100)
    last = (run.steps - 1) // 50 * 50
    iterations = [t for t in (750, 1250) if t <= last] or [last]
    sizes = sorted({size for size in (1, 10, 100) if size <= batches} | {batches})
    points = path_points(last // 50, 10)
    arrays = {"iteration": 50 * points, "optimizers": run.names, "size": 1000 * np.array(sizes)}
    parts = []
    for name, runs in run.train(PAPER_SETTINGS).items():
        setting = PAPER_SETTINGS[name]
        path = run.along(training.condition, setting, runs, points, within(1, run.steps // 500, 4))
        arrays[f"{name} path"] = np.array([np.median(each, axis=-1) for each in path.values()])
        for t in iterations:
            found = run.along(training.diagonal, setting, runs, [t // 50], batches)
            first, second, *_ = (each[:, 0] for each in found.values())  # (seeds, batches, entries)
            single = r_med(first) / r_med(second)  # (seeds, batches)
            # the Hessian on all batches together is the mean of theirs
            pooled = r_med(first.mean(axis=1)) / r_med(second.mean(axis=1))  # (seeds,)
            label = f"{name}, iteration {t}"
            low_high = np.quantile(single, (0.05, 0.95))
            spread = single[:, 0].std(ddof=1) if run.seeds > 1 else 0
            paper = PAPER_C3[name].get(t, "none")
            parts += [
                Part(f"{label}, typical batch", np.median(single, axis=1), above=1),
                Part(f"{label}, pooled {batches},000", pooled, above=1),
                Part(f"{label}, first batch",
                     f"{single[:, 0].mean():.3g} ({spread:.2g}), paper {paper}"),
                Part(f"{label}, 90 % of single batches", "{:.3g} to {:.3g}".format(*low_high))]
            if t == iterations[0]:
                for size in sizes:
                    ratio = r_med(grouped(first, size)) / r_med(grouped(second, size))
                    arrays[f"{name} ratio on {size},000"] = ratio.ravel()
    causes = r_med_causes(run, iterations[0]) if run.steps >= 2000 else {}
    for cause, by_setting in causes.items():
        for name, ratio in by_setting.items():
            parts.append(Part(f"{name}, iteration {iterations[0]}, {cause}", ratio))
            arrays[f"{name} with {cause}"] = ratio
    return arrays | {"causes": list(causes)}, parts


PAPER_C3 = {  # mean (standard deviation) of the ratio over seeds, table 1 of the paper
    "Setting 1": {750: "1.76 (0.40)", 1250: "1.58 (0.41)"},
    "Setting 2": {750: "3.14 (0.97)", 1250: "5.98 (2.86)"},
    "Setting 3": {750: "9.57 (13.3)", 1250: "6.53 (3.55)"},
}


def grouped(diagonals, size):
    """Diagonals of the Hessian (seeds, groups, entries) on evaluation batches `size` times as
    large: means over groups of the (seeds, batches, entries)."""
    groups = diagonals.shape[1] // size
    return np.stack([diagonals[:, size * i : size * (i + 1)].mean(axis=1) for i in range(groups)],
                    axis=1)


def r_med_causes(run, t):
    """{what was changed: {setting's name: ratio of R_med at iteration t, median over five batches,
    (seeds,)}}"""
    def typical(factor=1, seeds=run.seeds, full=False):
        """With all rates times a factor, more seeds, or all of P and Q trained."""
        settings = {name: setting._replace(full=full, lr={
            each: factor * run.rate(setting, each) for each in run.names})
            for name, setting in PAPER_SETTINGS.items()}
        changed = run.spend(seeds=seeds, steps=t + 50, lr=None)
        ratios = {}
        for name, runs in changed.train(settings).items():
            found = changed.along(training.condition, settings[name], runs, [t // 50], batches=5)
            first, second, *_ = (each[:, 0] for each in found.values())  # (seeds, batches) each
            ratios[name] = np.median(first / second, axis=1)
        return ratios

    more = 3 * run.seeds
    return {"half the rates": typical(0.5), "twice the rates": typical(2),
            "full matrices": typical(full=True), f"{more} seeds": typical(seeds=more)}


def draw_condition_number(figure, arrays):
    causes = arrays["causes"]
    rows = figure.subplots(2 + bool(len(causes)), 3, squeeze=False)
    for j, name in enumerate(PAPER_SETTINGS):
        losses(rows[0][j], arrays, f"{name} path", title=TITLES[name], ylabel="$R_{med}$")
        spread = [arrays[f"{name} ratio on {size // 1000},000"] for size in arrays["size"]]
        dots(rows[1][j], [f"{size:,}" for size in arrays["size"]], spread, yscale="log",
             xlabel="prompts in the evaluation batch", ylabel="ratio of $R_{med}$")
        if len(causes):
            dots(rows[2][j], [each.replace(" ", "\n", 1) for each in causes],
                 [arrays[f"{name} with {each}"] for each in causes], yscale="log",
                 ylabel="ratio of $R_{med}$")
        for row in rows[1:]:
            level(row[j], 1)
    return ("Above: typical of up to 4 evaluation batches of 1,000 prompts; line: median over "
            "seeds, band: smallest to largest. Next: the ratio SGD / Adam at the first of the "
            "iterations, a dot for each seed and evaluation batch. Below, if there: the same on "
            "the typical of 5 batches, with something changed. Bar: median. Dotted: 1, no "
            "difference.")


def directional_smoothness(run=Run(seeds=3, steps=1000)):
    """C4: Directional smoothness is smaller along Adam's path.

    Figure 4. v^T H v for the direction v of each step, H at the point before it, on evaluation
    batches of 1,000 prompts. Measured, per seed: SGD's median over the path without its first tenth
    minus Adam's, for the typical batch (the median over batches at each point) and for all pooled
    (the mean). Claimed: above 0, for both.
    """
    points = path_points((run.steps - 1) // 50, 50)
    arrays, parts = {"iteration": 50 * points, "optimizers": run.names}, []
    for name, runs in run.train(PAPER_SETTINGS).items():
        found = run.along(training.smoothness, PAPER_SETTINGS[name], runs, points,
                          within(2, run.steps // 500, 10))  # (seeds, points, batches) each
        for kind, over_batches in (("typical batch", np.median), ("pooled", np.mean)):
            path = {each: over_batches(values, axis=-1) for each, values in found.items()}
            height = {each: without_start(values) for each, values in path.items()}  # (seeds,)
            first, second, *_ = height.values()
            levels = ", ".join(f"{each} {np.median(v):.3g}" for each, v in height.items())
            parts.append(Part(f"{name}, {kind}: {levels}; difference", first - second, above=0,
                              log=False))
            arrays[f"{name} {kind}"] = np.array(list(path.values()))
        parts.append(Part(f"{name}, negative", ", ".join(
            f"{each} {100 * (values < 0).mean():.0f} %" for each, values in found.items())))
    return arrays, parts


def draw_directional_smoothness(figure, arrays):
    rows = figure.subplots(2, 3)
    for kind, row in zip(("typical batch", "pooled"), rows):
        for name, ax in zip(PAPER_SETTINGS, row):
            curves(ax, arrays["iteration"], arrays[f"{name} {kind}"], arrays["optimizers"],
                   title=TITLES[name], xlabel="iteration", ylabel=f"$v^T H v$, {kind}")
            smoothness_axis(ax)
    return ("$v^T H v$, v the direction of the step, on evaluation batches of 1,000 prompts: their "
            "median above, their mean below. Line: median over seeds, band: smallest to largest. "
            "Logarithmic scale, linear around 0.")


def generalized_smoothness(run=Run(seeds=1, steps=1000)):
    """C5: Smoothness grows with the gradient norm.

    Figure 5, (L0, L1)-smoothness. Along the first 2,000 steps of Adam, on evaluation batches of
    1,000 prompts: v^T H v and, on the first batch and at every fourth point, the spectral norm of
    H, against the norm of the gradient at the same point and on the same batch. Measured, for three
    times the run's seeds: the slope of log against log (directional: median over batches, where
    v^T H v > 0), and L0, L1 of the line v^T H v = L0 + L1 |g| through the typical points. Claimed:
    both slopes above 0.
    """
    batches = within(2, run.steps // 500, 4)
    run = run.spend(seeds=3 * run.seeds, steps=min(run.steps, 2000), optimizers=run.optimizers[-1:])
    (adam,) = run.names
    points = np.arange((run.steps - 1) // 50 + 1)
    arrays, parts = {"spent": (run.seeds, run.steps), "iteration": 50 * points}, []
    for name, runs in run.train(PAPER_SETTINGS).items():
        setting = PAPER_SETTINGS[name]
        norm = run.along(training.gradient_norm, setting, runs, points, batches)[adam]
        curvature = run.along(training.smoothness, setting, runs, points, batches)[adam]
        spectral = run.along(training.spectral_norm, setting, runs, points[::EVERY_FOURTH])[adam]
        spectral = spectral[..., 0]
        # norm, curvature: (seeds, points, batches); spectral: (seeds, every fourth point)
        slopes = [np.median([log_slope(norm[seed, :, k], curvature[seed, :, k])
                             for k in range(batches)]) for seed in range(run.seeds)]
        spectral_slopes = [log_slope(norm[seed, ::EVERY_FOURTH, 0], spectral[seed])
                           for seed in range(run.seeds)]
        L1, L0 = line(np.median(norm, axis=-1).ravel(), np.median(curvature, axis=-1).ravel())
        parts += [
            Part(f"{name}: slope of the directional smoothness", slopes, above=0, log=False),
            Part(f"{name}: slope of the spectral norm", spectral_slopes, above=0, log=False),
            Part(f"{name}: line", f"L0 = {L0:.3g}, L1 = {L1:.3g}; "
                                  f"{100 * (curvature <= 0).mean():.0f} % of v^T H v negative")]
        arrays |= {f"{name} norm": norm[..., 0], f"{name} curvature": curvature[..., 0],
                   f"{name} spectral": spectral,
                   f"{name} slopes": np.mean([slopes, spectral_slopes], axis=1)}  # (2,)
    return arrays, parts


EVERY_FOURTH = 4  # point of the path has a whole Hessian


def draw_generalized_smoothness(figure, arrays):
    iteration = arrays["iteration"]
    for name, above, below in zip(PAPER_SETTINGS, *figure.subplots(2, 3)):
        norm, slopes = arrays[f"{name} norm"], arrays[f"{name} slopes"]
        plotting.on_path(above, norm, arrays[f"{name} curvature"], iteration)
        dots_on_path = plotting.on_path(below, norm[:, ::EVERY_FOURTH],
                                        arrays[f"{name} spectral"], iteration[::EVERY_FOURTH])
        for ax, slope, label in zip((above, below), slopes, ("$v^T H v$", "spectral norm")):
            ax.set(title=TITLES[name], xlabel="gradient norm", ylabel=label)
            plotting.note(ax, f"slope {slope:.2f}")
    figure.colorbar(dots_on_path, ax=figure.axes, label="iteration")
    return ("Adam, first evaluation batch of 1,000 prompts, a point for each seed and every 50 "
            "steps (below: every 200) where $v^T H v$ is positive. Slope: of log against log, as "
            "in the finding, median over batches (below: the first), mean over seeds.")


def softmax_vs_linear(run=Run(seeds=2, steps=400)):
    """C6: Linear attention learns this task much faster than softmax attention.

    Three layers of linear, ReLU and softmax attention from the same weights on the same batches of
    Setting 1, with the run's last optimizer; rates but linear's from `learning_rates`. Measured:
    the final loss (median over the last tenth of the steps) over that of linear attention, and the
    first step from which ten losses in a row are below half of the first one (the last step if none
    is). Claimed: both ratios above 1 for both kinds of softmax. At most two seeds.
    """
    run = run.spend(seeds=min(run.seeds, 2), optimizers=run.optimizers[-1:])
    kinds = {"linear": SETTING_1} | {setting.name: setting for setting in NONLINEAR}
    trained = run.train(kinds)
    (adam,) = run.names
    loss = {kind: runs[adam]["loss"] for kind, runs in trained.items()}  # (seeds, steps) each
    end = {kind: final_loss(values) for kind, values in loss.items()}
    half = {kind: steps_to(values, values[:, :1] / 2) for kind, values in loss.items()}
    parts = []
    for kind in ("relu", "softmax", "softmax/n"):
        bound = {} if kind == "relu" else dict(above=1)
        parts += [Part(f"{kind} / linear: final loss", end[kind] / end["linear"], **bound),
                  Part(f"{kind} / linear: steps to half the loss", half[kind] / half["linear"],
                       **bound)]
    for kind in kinds:
        parts += [Part(f"{kind}: final loss", end[kind]),
                  Part(f"{kind}: steps to half the loss", f"{np.median(half[kind]):.0f}")]
    return {"spent": (run.seeds, run.steps), "iteration": block_centres(run.steps),
            "loss": running_median(loss.values()),
            "optimizers": [f"{kind} ({run.rate(setting, adam):g})"
                           for kind, setting in kinds.items()]}, parts


def draw_softmax_vs_linear(figure, arrays):
    losses(figure.subplots(), arrays, "loss", title="three layers, Setting 1",
           ylabel="training loss")
    return ("Running medians over blocks of a fiftieth of the steps; line: median over seeds, "
            "band: smallest to largest; in brackets the learning rate. The batches are the same "
            "for every kind. softmax: weights over the n context keys sum to 1; softmax/n: the "
            "authors' code, over all n + 1 keys, without the query's own, divided by n.")


def larger_model(run=Run(seeds=2, steps=200)):
    """C7: The picture is the same for L = 8, d = 20, n = 60.

    Loss and gradient norm as in C1, gradient noise as in C2 (a tenth as many draws as steps); 6,400
    parameters. Claimed: Adam's final loss lower, kurtosis of noise norm and coordinates above 3.
    At most three seeds are trained.
    """
    draws = max(5, run.steps // 10)
    (runs,) = run.spend(seeds=min(run.seeds, 3)).train({LARGE.name: LARGE}, every=500).values()
    norms, measured = noise_tails(run, LARGE.name, LARGE, draws, above=1)
    loss = {each: runs[each]["loss"] for each in run.names}
    return {"iteration": block_centres(run.steps), "optimizers": run.names,
            "loss": running_median(loss.values()),
            "norm": running_median(runs[each]["grad_norm"] for each in run.names),
            "share": tail_shares(draws), "tail": tail(norms),
            }, final_losses(LARGE.name, loss, above=1) + measured


def draw_larger_model(figure, arrays):
    first, second, third = figure.subplots(1, 3)
    losses(first, arrays, "loss", title=LARGE.name, ylabel="training loss")
    losses(second, arrays, "norm", title=LARGE.name, ylabel="gradient norm")
    tails(third, arrays, "tail", title="gradient noise")
    return ("Running medians over blocks of a fiftieth of the steps; line: median over seeds, "
            "band: smallest to largest; norm before clipping. Noise: share of the draws whose norm "
            "exceeds r times the median of their seed, at initialisation; a line for each seed; "
            "dashed: the normal distribution of the same median and upper quartile.")


def study(run, settings, ahead=()):
    """What C8 and C9 ask of each setting of a dict: training, noise, and the typical ratio of R_med
    (median over batches, then over the path). Adam is claimed to end lower in those named `ahead`.
    Returns arrays, parts, and by setting: loss {optimizer: (seeds, steps)}, norms (seeds, draws),
    ratio (seeds,)."""
    draws, points = max(5, run.steps // 5), path_points((run.steps - 1) // 50, 10)
    arrays = {"iteration": block_centres(run.steps), "optimizers": run.names,
              "point": 50 * points, "share": tail_shares(draws)}
    parts, found = [], {}
    for name, runs in run.train(settings).items():
        loss = {each: runs[each]["loss"] for each in run.names}
        norms, measured = noise_tails(run, name, settings[name], draws)
        path = run.along(training.condition, settings[name], runs, points,
                         within(1, run.steps // 500, 4))
        typical = {each: np.median(values, axis=-1) for each, values in path.items()}
        first, second, *_ = typical.values()  # (seeds, points) each
        ratio = np.median(first / second, axis=-1)
        parts += final_losses(name, loss, **(dict(above=1) if name in ahead else {})) + measured
        parts.append(Part(f"{name}: ratio of R_med", ratio))
        arrays |= {f"{name} loss": running_median(loss.values()), f"{name} tail": tail(norms),
                   f"{name} R_med": np.array(list(typical.values()))}
        found[name] = loss, norms, ratio
    return arrays, parts, found


def draw_study(figure, arrays, names):
    rows = figure.subplots(3, len(names), sharey="row")
    for j, name in enumerate(names):
        losses(rows[0][j], arrays, f"{name} loss", title=name, ylabel="training loss")
        tails(rows[1][j], arrays, f"{name} tail", title=name)
        curves(rows[2][j], arrays["point"], arrays[f"{name} R_med"], arrays["optimizers"],
               yscale="log", title=name, xlabel="iteration", ylabel="$R_{med}$")
    return ("Loss: running medians; line: median over seeds, band: smallest to largest. Noise: "
            "share of the draws whose norm exceeds r times the median of their seed, at "
            "initialisation; dashed: the normal distribution of the same median and upper "
            "quartile. $R_{med}$: typical of up to 4 evaluation batches of 1,000 prompts.")


def heavy_tails(run=Run(seeds=3, steps=600)):
    """C8: Heavier tails of x make heavier noise, slower training and a larger R_med ratio.

    Three tails at one scale, E|x|^2 = 1: x on the unit sphere, Gaussian, and the paper's Gamma(0.1,
    10), whose E|x|^2 is 1 as well; the middle column is ours. Rates and clip limits (0.1, 0.1, 1)
    are those of each setting. Claimed, Gamma against the sphere:
    kurtosis of the noise norm larger; ratio of R_med larger; more steps to half the loss, for both
    optimizers; and Adam's final loss lower than SGD's in both.
    """
    settings = {setting.name: setting for setting in (SPHERICAL, LIGHT_TAILS, SETTING_3)}
    arrays, parts, found = study(run, settings, ahead=(SPHERICAL.name, SETTING_3.name))
    (light_loss, light_norms, light_ratio), _, (heavy_loss, heavy_norms, heavy_ratio) = \
        found.values()
    parts += [Part("Heavy / spherical: kurtosis of the noise norm",
                   moment(heavy_norms, 4) / moment(light_norms, 4), above=1),
              Part("Heavy / spherical: ratio of R_med", heavy_ratio / light_ratio, above=1)]
    for each in run.names:
        heavy, light = (steps_to(loss[each], loss[each][:, :1] / 2)
                        for loss in (heavy_loss, light_loss))
        parts.append(Part(f"Heavy / spherical: {each}, steps to half the loss", heavy / light,
                          above=1))
    return arrays, parts


def draw_heavy_tails(figure, arrays):
    return draw_study(figure, arrays, (SPHERICAL.name, LIGHT_TAILS.name, SETTING_3.name)) + (
        " All at E|x|$^2$ = 1.")


def depth(run=Run(seeds=2, steps=300)):
    """C9: With depth the Adam-SGD gap, noise tails and R_med ratio grow, and the loss falls.

    L = 2, 4, 6, 8 layers in Setting 1. Claimed: the final loss of SGD over Adam's is larger at L =
    8 than at 2; the final loss of each is lower; the kurtosis of the noise norm is larger for L = 6
    and 8 than for 2 and 4; the ratio of R_med is larger for L = 4, 6 and 8 than for 2 (geometric
    means).
    """
    arrays, parts, found = study(run, {setting.name: setting for setting in DEEP})
    loss2, loss4, loss6, loss8 = (loss for loss, _, _ in found.values())
    tail2, tail4, tail6, tail8 = (moment(norms, 4) for _, norms, _ in found.values())
    ratio2, ratio4, ratio6, ratio8 = (ratio for _, _, ratio in found.values())

    def gap(loss):
        first, second, *_ = (final_loss(values) for values in loss.values())
        return first / second

    parts += [Part("gap SGD / Adam, L = 8 over 2", gap(loss8) / gap(loss2), above=1),
              Part("kurtosis of the noise norm, L = 6, 8 over 2, 4",
                   np.sqrt(tail6 * tail8 / (tail2 * tail4)), above=1),
              Part("ratio of R_med, L = 4, 6, 8 over 2",
                   np.cbrt(ratio4 * ratio6 * ratio8) / ratio2, above=1)]
    parts += [Part(f"final loss {each}, L = 2 over 8",
                   final_loss(loss2[each]) / final_loss(loss8[each]), above=1)
              for each in run.names]
    return arrays, parts


def draw_depth(figure, arrays):
    return draw_study(figure, arrays, [setting.name for setting in DEEP])


RATES = np.array([0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0])


def rate_grid(setting, name):
    """Ten rates; SGD wants a hundred times larger ones where the limit on the gradient is small."""
    return RATES * (100 if name == "SGD" and setting.clip < 1 else 1)


def learning_rates(run=Run(seeds=2, steps=1200)):
    """Protocol: The learning rate of each optimizer is the best of a grid of ten.

    Final loss (median over the last tenth of the steps) against the rate, in Settings 1, 2 and 3,
    on a quarter of the steps, at most two seeds. The best rate has the lowest mean over seeds of
    the log loss, among the rates at which no run diverged. Measured: the final loss at the rate in
    use over that at the best one; the width of the good range, within a factor 2 of the best loss;
    and the ratio of the two final losses, each at its best rate.
    With 2,000 steps and more the other settings are tried, too, on a twentieth of the steps (a
    fortieth where they are costly). Claimed: less than twice the best loss.
    """
    whole, run = run, run.spend(seeds=min(run.seeds, 2), steps=max(1, run.steps // 4))
    tried = run.tune(PAPER_SETTINGS, rate_grid)
    arrays, parts = rate_curves(run, tried), []
    for name, by_optimizer in tried.items():
        parts += best_rates(run, name, PAPER_SETTINGS[name], by_optimizer, below=2)
        first, second, *_ = (final_loss(each.at_best["loss"]) for each in by_optimizer.values())
        parts.append(Part(f"{name}: final loss {' / '.join(run.names[:2])}, each at its best rate",
                          first / second))
    if whole.steps >= 2000:
        for settings, share, optimizers in (((SPHERICAL, LIGHT_TAILS, *DEEP), 20, run.optimizers),
                                            ((LARGE,), 40, run.optimizers),
                                            (NONLINEAR, 40, (Adam,))):
            less = run.spend(steps=whole.steps // share, optimizers=optimizers, lr=None)
            for setting in settings:
                (by_optimizer,) = less.tune({setting.name: setting}, rate_grid).values()
                parts += best_rates(less, setting.name, setting, by_optimizer)
    return arrays | {"spent": (run.seeds, run.steps)}, parts


def best_rates(run, name, setting, tried, **bound):
    """What the losses of each optimizer at several rates say of the rate in use, and with a bound
    of its final loss."""
    parts = []
    for each, (rates, _) in tried.items():
        loss, best = tried[each].loss, tried[each].best
        final, score, used = final_loss(loss), training.level(loss), rate_in_use(run, setting, each)
        good = good_range(rates, score)
        lost = f"{np.isnan(final).sum()} of {final.size} runs diverged"
        parts.append(Part(f"{name}, {each}: best rate", (
            f"{rates[best]:g}, in use {used:g}; within a factor 2 of the best: {good.min():g} to "
            f"{good.max():g}; {lost}") if len(good) else f"none, {lost}"))
        if bound and used in rates and len(good):
            with np.errstate(all="ignore"):  # a best loss of 0
                ratio = final[list(rates).index(used)] / final[best]
            parts.append(Part(f"{name}, {each}: final loss at the rate in use / at the best", ratio,
                              **bound))
    return parts


def rate_in_use(run, setting, name):
    """NaN for an optimizer whose rate is only looked for."""
    return (setting.lr | (run.lr or {})).get(name, np.nan)


def good_range(rates, score):
    """The rates whose score, the mean log final loss, is within a factor 2 of the best one's; none
    if a run diverged at each."""
    return rates[(score < np.inf) & (score <= score.min() + np.log(2))]


def rate_curves(run, tried):
    """Arrays for `draw_learning_rates`: the final losses (rates, seeds) of each optimizer."""
    arrays = {"optimizers": run.names}
    for name, by_optimizer in tried.items():
        for each, (rates, _) in by_optimizer.items():
            arrays |= {f"{name} {each} rates": rates,
                       f"{name} {each} used": rate_in_use(run, PAPER_SETTINGS[name], each),
                       f"{name} {each} final": final_loss(by_optimizer[each].loss)}
    return arrays


def draw_learning_rates(figure, arrays):
    for name, ax in zip(PAPER_SETTINGS, figure.subplots(1, 3)):
        ends = []
        for i, each in enumerate(arrays["optimizers"]):
            rates, final = arrays[f"{name} {each} rates"], arrays[f"{name} {each} final"]
            lost, color = np.isnan(final).any(axis=1), plotting.look(each, i)["color"]
            curves(ax, rates, final.T[None], [each], path=False, first=i)
            ax.plot(rates[lost], np.full(lost.sum(), 0.98 - 0.03 * i), "X", color=color, ms=10,
                    transform=ax.get_xaxis_transform())
            used = np.isclose(rates, arrays[f"{name} {each} used"])
            ax.plot(rates[used], np.median(final[used], axis=-1), "o", ms=13, mfc="none", mew=2,
                    color=color)
            ends.append(final)
        finite = np.concatenate([each[np.isfinite(each)] for each in ends] + [[1.0]])
        ax.set(xscale="log", yscale="log", title=TITLES[name], xlabel="learning rate",
               ylabel="final loss", ylim=(finite.min() / 2, min(finite.max(), 100) * 2))
        if ax.get_legend_handles_labels()[0]:  # else every run diverged
            ax.legend()
    return ("Median training loss over the last tenth of the steps; line: median over seeds, band: "
            "smallest to largest. X, at the top: rates at which a run diverged. Circle: the rate "
            "that the other experiments use.")


def full_batch(run=Run(seeds=3, steps=250, optimizers=(SGD, Adam, SignDescent))):
    """C10: Without gradient noise Adam still beats SGD, and so does sign descent.

    Quoted by the paper from Kunstner et al. 2023 (arXiv 2304.13960). Settings 1 and 3, on one and
    the same batch of 1,000 prompts at every step, and on fresh batches of 100, 400 and 1,600. Every
    optimizer at the best of half, once and twice its rate; at most 600 steps. Claimed, on the fixed
    batch: the final loss of SGD over that of Adam, and of sign descent with momentum, above 1.
    """
    run = run.spend(steps=min(run.steps, 600))
    settings = {}
    for name in ("Setting 1", "Setting 3"):
        for size in (100, 400, 1600):
            settings[f"{name}, batches of {size:,}"] = PAPER_SETTINGS[name]._replace(batch=size)
        settings[f"{name}, fixed batch"] = PAPER_SETTINGS[name]._replace(fixed=True)
    arrays = {"spent": (run.seeds, run.steps), "iteration": block_centres(run.steps),
              "optimizers": run.names}
    parts = []
    for name, tried in run.tune(settings, times(run, 0.5, 1, 2)).items():
        final = {each: final_loss(tried[each].at_best["loss"]) for each in run.names}  # (seeds,)
        first, *others = run.names
        bound = dict(above=1) if name.endswith("fixed batch") else {}
        parts += [Part(f"{name}: final loss {first} / {each}", final[first] / final[each], **bound)
                  for each in others]
        parts.append(Part(f"{name}: best rates", rates_used(tried)))
        arrays[f"{name} ratios"] = np.array([final[first] / final[each] for each in others])
        arrays[f"{name} loss"] = running_median(
            tried[each].at_best["loss"] for each in run.names)
    return arrays, parts


def draw_full_batch(figure, arrays):
    first, *others = arrays["optimizers"]
    for name, above, below in zip(("Setting 1", "Setting 3"), *figure.subplots(2, 2)):
        losses(above, arrays, f"{name}, fixed batch loss", title=TITLES[name],
               ylabel="loss, fixed batch")
        sizes = ("batches of 100", "batches of 400", "batches of 1,600", "fixed batch")
        ratios = np.array([arrays[f"{name}, {size} ratios"] for size in sizes])
        for i, each in enumerate(others):  # ratios (sizes, other optimizers, seeds)
            dots(below, [size.replace("batches of ", "") for size in sizes], ratios[:, i],
                 shift=0.2 * i, colour=plotting.look(each, i + 1)["color"])
        below.set(yscale="log", title=TITLES[name], xlabel="prompts in a batch",
                  ylabel=f"final loss of {first} / the other")
        level(below, 1)
    return ("Every optimizer at the best of three rates. Above: running median; line: median over "
            "seeds, band: smallest to largest. Below: a dot for each seed, bar: median; fresh "
            "batches of 100 to 1,600 prompts and, at the right, one batch of 1,000 for all steps. "
            "Dotted: 1, no difference.")


def times(run, *factors):
    """A grid of rates: multiples of the rate in use."""
    return lambda setting, name: run.rate(setting, name) * np.array(factors)


def rates_used(tried):
    return ", ".join(f"{name} {each.rates[each.best]:g}" for name, each in tried.items())


def clipping(run=Run(seeds=3, steps=500)):
    """C11: Clipping lowers directional smoothness, coordinate by coordinate most of all.

    Quoted by the paper from Pan & Li 2023. SGD and Adam in Settings 1 and 3 without clipping, with
    the global norm limited to 1, and with every coordinate limited to 1/sqrt(150), so that the norm
    has the same bound; all else the same; at most 2,000 steps. SGD at a quarter of its rate, for at
    the full one it diverges without clipping. Claimed, for v^T H v on the typical batch (median
    over the path without its first tenth): no clipping minus global norm, and global norm minus
    coordinates, above 0.
    """
    run, kinds = run.spend(steps=min(run.steps, 2000)), ("none", "global", "coordinates")
    points = path_points((run.steps - 1) // 50, 50)
    arrays, parts = {"spent": (run.seeds, run.steps), "iteration": block_centres(run.steps),
                     "point": 50 * points, "optimizers": kinds, "names": run.names}, []
    for name in ("Setting 1", "Setting 3"):
        slower = PAPER_SETTINGS[name]._replace(lr=PAPER_SETTINGS[name].lr | dict(SGD=0.005))
        trained = run.train({kind: slower._replace(clipping=kind) for kind in kinds})
        found = {kind: run.along(training.smoothness, slower, trained[kind], points,
                                 within(2, run.steps // 500, 10)) for kind in kinds}
        for each in run.names:
            case = f"{name}, {each}"
            typical = {kind: np.median(found[kind][each], axis=-1) for kind in kinds}
            height = {kind: without_start(path) for kind, path in typical.items()}  # (seeds,)
            loss = {kind: trained[kind][each]["loss"] for kind in kinds}
            for rougher, smoother in (("none", "global"), ("global", "coordinates")):
                parts.append(Part(f"{case}: v^T H v, {rougher} minus {smoother}",
                                  height[rougher] - height[smoother], above=0, log=False))
            for kind in kinds:
                parts += [Part(f"{case}, {kind}: final loss", final_loss(loss[kind])),
                          Part(f"{case}, {kind}: v^T H v", f"{np.median(height[kind]):.3g}")]
            norms = trained["global"][each]["grad_norm"]
            parts.append(Part(f"{case}, global: clipped steps",
                              f"{100 * (norms > slower.clip).mean():.0f} %"))
            arrays |= {f"{case} loss": running_median(loss.values()),
                       f"{case} smoothness": np.array(list(typical.values()))}
    return arrays, parts


def draw_clipping(figure, arrays):
    cases = [f"{name}, {each}" for name in ("Setting 1", "Setting 3") for each in arrays["names"]]
    rows = figure.subplots(2, len(cases))
    for case, above, below in zip(cases, *rows):
        losses(above, arrays, f"{case} loss", title=case, ylabel="training loss")
        curves(below, arrays["point"], arrays[f"{case} smoothness"], arrays["optimizers"],
               title=case, xlabel="iteration", ylabel="$v^T H v$")
        smoothness_axis(below)
    return ("Running median (loss), value (below); line: median over seeds, band: smallest to "
            "largest. $v^T H v$: typical of the evaluation batches of 1,000 prompts.")


def nonlinear_regression(run=Run(seeds=2, steps=100)):
    """C12: The picture is the same for nonlinear regression with an MLP before the attention.

    y = <w, f(x)> with a fixed random ReLU network f of width 10; a trainable ReLU MLP of width 30
    before three layers of linear attention with full matrices; batches of 2,000 (noise: against
    200,000), at most 2,000 steps. SGD at 0.01, the best of four on one seed. Network and start are
    not the authors': theirs have biases and another initial scale. R_med and v^T H v from exact
    Hessian-vector products on one evaluation batch, at the start, in the middle and at the end.
    Claimed: Adam's final loss lower; the kurtosis of noise norm and coordinates above 3; R_med and
    v^T H v larger along SGD's path (mean of the last two points).
    """
    run = run.spend(steps=min(run.steps, 2000))
    points, draws = path_points((run.steps - 1) // 50, 3), max(5, run.steps // 10)
    (runs,) = run.train({"MLP": NONLINEAR_TASK}).values()
    norms, measured = noise_tails(run, "MLP", NONLINEAR_TASK, draws, above=1)
    loss = {each: runs[each]["loss"] for each in run.names}
    conditions, curvatures = (
        {each: values[..., 0] for each, values in
         run.along(measure, NONLINEAR_TASK, runs, points).items()}  # (seeds, points) each
        for measure in (training.condition, training.smoothness))
    first, second, *_ = conditions.values()
    higher = np.log(first / second)[:, -2:].mean(axis=-1)
    parts = final_losses("MLP", loss, above=1) + measured
    parts.append(Part("MLP: ratio of R_med", np.exp(higher), above=1))
    first, second, *_ = curvatures.values()
    parts.append(Part("MLP: v^T H v, SGD minus Adam", (first - second)[:, -2:].mean(axis=-1),
                      above=0, log=False))
    return {"spent": (run.seeds, run.steps), "iteration": block_centres(run.steps),
            "optimizers": run.names, "loss": running_median(loss.values()),
            "share": tail_shares(draws), "tail": tail(norms), "point": 50 * points,
            "R_med": np.array(list(conditions.values())),
            "smoothness": np.array(list(curvatures.values()))}, parts


def draw_nonlinear_regression(figure, arrays):
    (first, second), (third, fourth) = figure.subplots(2, 2)
    losses(first, arrays, "loss", title="training loss", ylabel="training loss")
    tails(second, arrays, "tail", title="gradient noise")
    curves(third, arrays["point"], arrays["R_med"], arrays["optimizers"], yscale="log",
           title="robust condition number", xlabel="iteration", ylabel="$R_{med}$")
    curves(fourth, arrays["point"], arrays["smoothness"], arrays["optimizers"],
           title="directional smoothness", xlabel="iteration", ylabel="$v^T H v$")
    smoothness_axis(fourth)
    return ("Loss: running median; line: median over seeds, band: smallest to largest. Noise: "
            "share of the draws whose norm exceeds r times the median of their seed, at "
            "initialisation; dashed: the normal distribution of the same median and upper "
            "quartile. $R_{med}$ and $v^T H v$: on one evaluation batch of 1,000 prompts.")


# ---- Questions beyond the paper ------------------------------------------------------------------


def initialization(run=Run(seeds=2, steps=100)):
    """Question: At which initial scale and depth do gradients vanish or explode, or models train?

    L = 2, 4 and 8 in Setting 1, entries of standard deviation 0.01 to 0.8, in the paper's blocks
    and in full matrices. Measured: the gradient's norm in the first and in the last layer at
    initialisation, on an evaluation batch a seed; and the final loss of both optimizers after 400
    steps at most. A run "trains" if it ends below half of the loss of predicting 0, which is d.
    """
    run, scales = run.spend(steps=min(run.steps, 400)), (0.01, 0.05, 0.2, 0.8)
    arrays = {"spent": (run.seeds, run.steps), "scales": scales, "optimizers": run.names}
    parts = []
    for deep in (DEEP[0], DEEP[1], DEEP[3]):
        for where in ("blocks", "full matrices"):
            label = f"{deep.name}, {where}"
            settings = {std: deep._replace(full=where != "blocks", std=std) for std in scales}
            norms = {std: np.array([each["first_last"] for each in run.all(
                training.layer_gradients, [(setting, seed) for seed in range(run.seeds)])])
                for std, setting in settings.items()}  # (seeds, first and last) each
            trained = run.train(settings)
            for each in run.names:
                final = np.array([final_loss(trained[std][each]["loss"]) for std in scales])
                good = (final < deep.data["d"] / 2).all(axis=1)  # (scales,)
                lost = ~np.isfinite(final).all(axis=1)
                where_to = [f"{word} at std {', '.join(f'{std:g}' for std in np.array(scales)[so])}"
                            for word, so in (("trains", good), ("diverges", lost)) if so.any()]
                parts.append(Part(f"{label}: {each}", "; ".join(where_to) or "trains nowhere"))
                arrays[f"{label} {each}"] = final
            parts += [Part(f"{label}, std {std:g}: gradient norm, first layer", values[:, 0])
                      for std, values in norms.items()]
            arrays[f"{label} norm"] = np.array([values[:, 0] for values in norms.values()])
    return arrays, parts


def draw_initialization(figure, arrays):
    names, labels = arrays["optimizers"], ("blocks", "full matrices")
    depths = [f"L = {L}" for L in (2, 4, 8)]
    panels = [(f"final loss, {each}, {where}", [arrays[f"{L}, {where} {each}"] for L in depths])
              for where in labels for each in names]
    panels += [(f"gradient norm, {where}", [arrays[f"{L}, {where} norm"] for L in depths])
               for where in labels]
    for ax, (title, values) in zip(figure.subplots(2, len(panels) // 2).T.flat, panels):
        plotting.heat(ax, np.median(values, axis=-1), depths, arrays["scales"], title=title,
                      xlabel="initial standard deviation")
    return ("Final loss: median over the last tenth of the steps, median over seeds; a cross where "
            "a run diverged; the loss of predicting 0 is 5. Gradient norm: of the first layer, at "
            "initialisation.")


def tails_times_depth(run=Run(seeds=2, steps=120)):
    """Question: How do heavy tails and depth interact?

    A factorial grid at E|x|^2 = 1: s ~ Gamma(k, .) with k = 2.5 (Gaussian x), 0.5 and 0.1, times L
    = 2, 4 and 6; clip limit 1, every optimizer at the best of four rates of one grid, at most 500
    steps. Measured: SGD's final loss over Adam's, the kurtosis of the noise norm at initialisation
    (half as many draws as steps), the ratio of R_med at the end. Interaction: by what factor one
    step towards heavy tails changes the effect of one step in depth (fit in the logarithms, per
    seed).
    """
    run = run.spend(steps=min(run.steps, 500), lr=None)  # the rates are the grid's
    shapes, depths = (2.5, 0.5, 0.1), (2, 4, 6)
    last, draws = (run.steps - 1) // 50, max(5, run.steps // 2)
    cells = {f"k = {k}, L = {L}": (k, L) for k in shapes for L in depths}
    settings = {name: Setting(name, dict(n=20, d=5, covariates="gamma", shape=k, second_moment=1.0),
                              {}, layers=L) for name, (k, L) in cells.items()}
    gap, kurtosis, r_med_ratio, rates = {}, {}, {}, []  # of each cell (seeds,)
    for name, tried in run.tune(settings, wide_rates).items():
        best = {each: tried[each].at_best for each in run.names}
        first, second, *_ = (final_loss(runs["loss"]) for runs in best.values())
        gap[name] = first / second
        norms, _ = noise_tails(run, name, settings[name], draws)
        kurtosis[name] = moment(norms, 4) / 3
        found = run.along(training.condition, settings[name], best, [last], batches=4)
        typical = {each: np.median(values[:, 0], axis=-1) for each, values in found.items()}
        first, second, *_ = typical.values()
        r_med_ratio[name] = first / second
        rates.append(Part(f"{name}: best rates", rates_used(tried)))
    maps = {f"final loss {' / '.join(run.names[:2])}": gap,
            "kurtosis of the noise norm / 3": kurtosis, "ratio of R_med": r_med_ratio}
    # The least-squares coefficient of a * b, where a, b = -1, 0, 1 are the steps in tail and depth:
    # the sum of a b log(value) over the sum of (a b)^2, which is 4.
    product = {name: (shapes.index(k) - 1) * (depths.index(L) - 1)
               for name, (k, L) in cells.items()}
    parts, arrays = [], {"spent": (run.seeds, run.steps), "shapes": shapes, "depths": depths,
                         "maps": list(maps)}
    for what, values in maps.items():
        total = sum(product[name] * np.log(values[name]) for name in cells)  # (seeds,)
        parts.append(Part(f"interaction, {what}", np.exp(total / 4)))
    for what, values in maps.items():
        parts += [Part(f"{name}: {what}", values[name]) for name in cells]
        means = [np.exp(np.log(values[name]).mean()) for name in cells]
        arrays[what] = np.reshape(means, (len(shapes), len(depths)))
    return arrays, parts + rates


def wide_rates(_, name):
    """Four rates, from low to high; SGD's moves are not scaled, so it wants higher ones."""
    return (0.02, 0.1, 0.5, 2.0) if name == "SGD" else (0.005, 0.02, 0.05, 0.1)


def draw_tails_times_depth(figure, arrays):
    names = [f"k = {k:g}" for k in arrays["shapes"]]
    for ax, what in zip(figure.subplots(1, 3), arrays["maps"]):
        plotting.heat(ax, arrays[what], names, arrays["depths"], title=what.replace(
            "R_med", "$R_{med}$"), xlabel="layers L", ylabel="light ... heavy tail of x")
    return ("Geometric mean over seeds. k = 2.5: Gaussian x; smaller k: heavier tails at the same "
            "E|x|$^2$ = 1. Every optimizer at the best of four rates.")


def label_noise(run=Run(seeds=3, steps=400)):
    """Question: How far above the Bayes risk does each optimizer end when labels are noisy?

    Setting 1 with noise of standard deviation sigma on the context's labels; the target stays
    clean. As w ~ N(0, I), the Bayes predictor is ridge regression with penalty sigma^2. Measured
    after at most 2,000 steps: the loss minus that of the ridge regression on the same evaluation
    batches of 1,000 prompts (median over twenty batches and the last two snapshots).
    """
    run, sigmas = run.spend(steps=min(run.steps, 2000)), (0.0, 0.1, 0.3, 1.0, 3.0)
    arrays = {"spent": (run.seeds, run.steps), "sigmas": sigmas, "optimizers": run.names}
    settings = {sigma: SETTING_1._replace(name=f"sigma = {sigma:g}", data=dict(
        SETTING_1.data, noise=sigma)) for sigma in sigmas}
    parts, ends, excesses, risks = [], [], [], []
    for sigma, runs in run.train(settings).items():
        name = f"sigma = {sigma:g}"
        bayes = ridge_losses(settings[sigma], sigma**2)  # (batches,)
        loss = run.along(training.loss_at, settings[sigma], runs, slice(-2, None), batches=20)
        excess = {each: np.median(values - bayes, axis=(1, 2))  # values: (seeds, 2, batches)
                  for each, values in loss.items()}
        first, second, *_ = excess.values()  # (seeds,) each
        parts.append(Part(f"{name}: excess {' / '.join(run.names[:2])}", first / second))
        parts += [Part(f"{name}: excess {each}", values) for each, values in excess.items()]
        parts.append(Part(f"{name}: Bayes risk", f"{bayes.mean():.3g}"))
        ends.append([np.median(values, axis=(1, 2)) for values in loss.values()])
        excesses.append(list(excess.values()))
        risks.append(np.median(bayes))
    return arrays | {"final": np.stack(ends, axis=-1), "excess": np.stack(excesses, axis=-1),
                     "bayes": risks}, parts  # final, excess: (optimizers, seeds, sigmas)


def ridge_losses(setting, penalty, batches=20):
    """Losses (batches,) of ridge regression on the context, on the same evaluation batches."""
    found = []
    for k in range(batches):
        prompts = training.evaluation_prompts(setting, k)
        X, y, query = prompts.Z[:, :-1, :-1], prompts.Z[:, -1:, :-1], prompts.Z[:, :-1, -1]
        gram = X @ X.mT + penalty * np.eye(X.shape[1])
        w = np.linalg.solve(gram, X @ y.mT)[..., 0]
        found.append(np.mean(((w * query).sum(axis=1) - prompts.target) ** 2))
    return np.array(found)


def draw_label_noise(figure, arrays):
    x = np.arange(len(arrays["sigmas"]))
    for ax, what, label in zip(figure.subplots(1, 2), ("final", "excess"),
                               ("final loss", "final loss minus Bayes risk")):
        curves(ax, x, arrays[what], arrays["optimizers"], yscale="log", title=label, ylabel=label,
               xlabel="standard deviation $\\sigma$ of the label noise")
        ax.set_xticks(x, [f"{sigma:g}" for sigma in arrays["sigmas"]])
        if what == "final":
            ax.plot(x[1:], arrays["bayes"][1:], "k:", marker="s")
            plotting.at_end(ax, x[-1], arrays["bayes"][-1], "Bayes risk", "#000000")
    return ("Loss on clean targets, Setting 1, three layers; noise on the context's labels only. "
            "Line: median over seeds, band: smallest to largest. Bayes: ridge regression with "
            "penalty $\\sigma^2$ (its risk is 0 without noise), on the same evaluation batches.")


def remedies(run=Run(seeds=2, steps=120)):
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
    run = run.spend(steps=min(run.steps, 500))
    plain = SETTING_3._replace(name="none", clipping="none")
    normalised = dict(data=SPHERICAL.data, lr=dict(SGD=1.0, Adam=0.1))
    decay = dict(weight_decay=0.01)
    cases = {"none": (plain, {}), "normalised x": (plain._replace(**normalised), {}),
             "clipping": (plain._replace(clipping="global"), {}), "weight decay": (plain, decay),
             "large batch": (plain._replace(batch=4000), {}),
             "all four": (plain._replace(clipping="global", batch=4000, **normalised), decay)}
    final, rates = {}, []
    for name, (setting, arguments) in cases.items():
        (tried,) = run.tune({name: setting}, times(run, 0.2, 1, 5), max(1, run.steps // 20),
                            **arguments).values()
        best = {each: tried[each].at_best for each in run.names}
        loss = run.along(training.loss_at, setting, best, slice(-2, None), batches=20)
        final[name] = {each: np.median(values, axis=(1, 2)) for each, values in loss.items()}
        rates.append(Part(f"{name}: best rates", rates_used(tried)))
    parts = [Part(f"{name}: {each}, with / without", end[each] / final["none"][each])
             for name, end in final.items() if name != "none" for each in run.names]
    for name, end in final.items():
        first, second, *_ = end.values()
        parts.append(Part(f"{name}: {' / '.join(run.names[:2])}", first / second))
        parts += [Part(f"{name}: final loss {each}", values) for each, values in end.items()]
    return {"spent": (run.seeds, run.steps), "remedies": list(cases), "optimizers": run.names} | {
        each: np.array([end[each] for end in final.values()]) for each in run.names}, parts + rates


def draw_remedies(figure, arrays):
    names, labels = arrays["optimizers"], [each.replace(" ", "\n") for each in arrays["remedies"]]
    ends, ratio = figure.subplots(1, 2)
    for i, each in enumerate(names):
        dots(ends, labels, arrays[each], shift=0.3 * i, colour=plotting.look(each, i)["color"],
             label=each)
    dots(ratio, labels, arrays[names[0]] / arrays[names[1]])
    ends.set(yscale="log", title="final loss", ylabel="final loss")
    ratio.set(yscale="log", title=" / ".join(names[:2]), ylabel="ratio of final losses")
    level(ratio, 1)
    ends.legend()
    return ("A dot for each seed, bar: median. Setting 3; typical loss on 1,000 prompts at the "
            "end, every optimizer at the best of three rates. Normalised x: the spherical task, "
            "whose risk is that of the original one after undoing.")


def what_it_learns(run=Run(seeds=2, steps=400)):
    """Question: What is in the weights: is a trained layer a step of gradient descent?

    Adam in Setting 1, L = 1 to 4, at most 2,000 steps. Measured: the final loss beside that of L
    steps of gradient descent, with one step size and with one for each layer (the best ones; for
    isotropic x a preconditioner adds nothing else), and with P_l = g_l I, which changes the x
    between the steps, too (least squares has loss 0); the share of Q_l (in the figure P_l's, too)
    off the multiples of the identity. For one layer, E|x|^2 = m and E|x|^4 = m4 give T = E tr S^2 =
    m4 / n + (1 - 1/n) m^2 / d and so the best Q = -c I, c = m / T, of loss m (1 - m^2 / (d T)) (for
    Gaussian x: c = n / (n + d + 1)); measured: learnt over best c, and final over least loss.
    """
    run = run.spend(steps=min(run.steps, 2000), optimizers=run.optimizers[-1:])
    (adam,), depths = run.names, (1, 2, 3, 4)
    deep = {f"L = {L}": SETTING_1._replace(name=f"L = {L}", layers=L) for L in depths}
    results = iter(run.all(training.descent, [(setting, kind) for setting in deep.values()
                                              for kind in DESCENTS]))
    least = {name: {kind: float(next(results)["loss"]) for kind in DESCENTS} for name in deep}
    arrays, parts = {"spent": (run.seeds, run.steps), "depths": depths, "optimizers": run.names}, []
    ends = []
    for name, runs in run.train(deep, every=10).items():
        final = final_loss(runs[adam]["loss"])  # (seeds,)
        before = runs[adam]["snapshots"][:, :, 0]  # (seeds, points, layers, 2, d, d)
        off_Q = np.array([off_identity(each[-1, :, 1]).mean() for each in before])
        parts.append(Part(f"{name}: final loss", final))
        parts += [Part(f"{name}: final loss / that of {DESCENTS[kind]}", final / loss)
                  for kind, loss in least[name].items()]
        parts.append(Part(f"{name}: share of Q off the identity", off_Q, log=False))
        ends.append(final)
        if name == "L = 3":
            paths = {"Q, last layer": (-1, 1), "Q, first layer": (0, 1), "P, first layer": (0, 0)}
            arrays |= {"weights": before[0, -1].reshape(6, 5, 5), "iteration": 10 * np.arange(
                before.shape[1]), "paths": list(paths), "off": np.array(
                [off_identity(before[:, :, l, which]) for l, which in paths.values()])}
    cases = {f"gaussian x, n = {n}": ("gaussian", n) for n in (5, 10, 20, 40, 80)} | {
        f"{family} x, n = 20": (family, 20) for family in MOMENTS if family != "gaussian"}
    single = {name: SETTING_1._replace(name=name, layers=1, data=dict(n=n, d=5, covariates=family))
              for name, (family, n) in cases.items()}
    for name, runs in run.train(single, every=10).items():
        family, n = cases[name]
        best_c, least_loss = one_layer(*MOMENTS[family], n, 5)
        Q = runs[adam]["snapshots"][:, :, 0, 0, 1]  # (seeds, points, d, d)
        learnt = -last_tenth(np.trace(Q, axis1=2, axis2=3) / 5).mean(axis=-1)  # (seeds,)
        end = last_tenth(runs[adam]["loss"]).mean(axis=-1)
        parts += [Part(f"{name}: learnt / best c", learnt / best_c),
                  Part(f"{name}: mean final loss / least loss {least_loss:.3g}", end / least_loss)]
        arrays |= {f"{name} c": learnt / best_c, f"{name} loss": end / least_loss,
                   f"{name} least": least_loss}
    return arrays | {"final": np.array(ends).T[None], "cases": list(cases)} | {
        f"least {kind}": [least[name][kind] for name in deep] for kind in DESCENTS}, parts


DESCENTS = {"one size": "L steps, one size", "L sizes": "L steps, L sizes",
            "P = g I": "L sizes, P = g I"}
MOMENTS = {  # E|x|^2 and E|x|^4 of each family of data.py at its default parameters, d = 5
    "gaussian": (5, 35), "sphere": (1, 1), "gamma": (1, 11), "student": (25 / 3, 875 / 3)}


def one_layer(m, m4, n, d):
    """The best step size c of one layer, and its loss."""
    T = m4 / n + (1 - 1 / n) * m**2 / d
    return m / T, m * (1 - m**2 / (d * T))


def off_identity(weights):
    """Share of each matrix (..., d, d) in norm that is not a multiple of the identity."""
    mean = np.trace(weights, axis1=-2, axis2=-1) / weights.shape[-1]
    rest = weights - mean[..., None, None] * np.eye(weights.shape[-1])
    return np.linalg.norm(rest, axis=(-2, -1)) / np.linalg.norm(weights, axis=(-2, -1))


def draw_what_it_learns(figure, arrays):
    (pictures, shares, depths), (sizes, ratios, context) = figure.subplots(2, 3)
    tiles = np.full((2 * 6 - 1, 3 * 6 - 1), np.nan)
    for number, matrix in enumerate(arrays["weights"]):
        layer, which = divmod(number, 2)
        tiles[6 * which : 6 * which + 5, 6 * layer : 6 * layer + 5] = matrix
    largest = np.abs(tiles).max(where=np.isfinite(tiles), initial=0) or 1  # 0: it diverged
    drawn = pictures.imshow(tiles, cmap="PuOr", vmin=-largest, vmax=largest)
    pictures.set_xticks((2, 8, 14), ("layer 1", "layer 2", "layer 3"))
    pictures.set_yticks((2, 8), ("P", "Q"))
    pictures.set(title="weights, L = 3")
    pictures.grid(False)
    figure.colorbar(drawn, ax=pictures, shrink=0.8)
    curves(shares, arrays["iteration"], arrays["off"], arrays["paths"], xlabel="iteration",
           title="share off the identity", ylabel="share")
    curves(depths, arrays["depths"], arrays["final"], arrays["optimizers"], yscale="log",
           title="final loss", xlabel="layers L", ylabel="loss", xticks=arrays["depths"])
    for i, (kind, words) in enumerate(DESCENTS.items()):
        depths.plot(arrays["depths"], arrays[f"least {kind}"], label=words,
                    **plotting.look(words, i))
    depths.legend(fontsize=11)
    shown = [name for name in arrays["cases"] if name.endswith("n = 20")]
    labels = [name.replace(" x, ", "\n") for name in shown]
    dots(sizes, labels, [arrays[f"{name} c"] for name in shown],
         title="one layer: learnt c / best c", ylabel="ratio")
    dots(ratios, labels, [arrays[f"{name} loss"] for name in shown],
         title="one layer: loss / least loss", ylabel="ratio")
    level(sizes, 1)
    level(ratios, 1)
    names = [name for name in arrays["cases"] if name.startswith("gaussian")]
    n = np.array([int(name.split("= ")[1]) for name in names])
    least = np.array([arrays[f"{name} least"] for name in names])
    trained = np.array([arrays[f"{name} loss"] for name in names]) * least[:, None]
    context.plot(n, least, "k:", label="d (d + 1) / (n + d + 1)")
    curves(context, n, trained.T[None], arrays["optimizers"], xscale="log", yscale="log",
           title="one layer, Gaussian x: loss", xlabel="context length n", ylabel="loss")
    context.set_xticks(n, n)
    context.minorticks_off()
    context.legend(fontsize=11)
    return ("Line: median over seeds, band: smallest to largest. Weights: one seed; the last P is "
            "not trained. One layer: c is the step size in Q = -c I; the best c and its loss are "
            "exact, the loss is a mean.")


def block_heterogeneity(run=Run(seeds=2, steps=150)):
    """Question: Do Hessian spectra differ between parameter blocks where Adam is ahead?

    Zhang et al. 2024 (arXiv 2402.16788) explain Adam's lead so. Exact spectra of the Hessian's
    diagonal blocks, one for each P_l and Q_l (but the last P, which is not trained), on one
    evaluation batch: at initialisation and at the last snapshot. Distance of two blocks: the mean
    difference of log10 |eigenvalue|, the eigenvalues sorted; of a model: the mean over pairs.
    Measured against depth and tails, beside the ratio of final losses, and their rank correlation
    over the six settings.
    """
    settings = {setting.name: setting for setting in (*DEEP[:3], SPHERICAL, LIGHT_TAILS, SETTING_3)}
    arrays, parts = {"settings": list(settings), "optimizers": run.names}, []
    start, end, gap = [], [], []
    first, second, *_ = run.names
    for name, runs in run.train(settings).items():
        spectra = run.along(training.block_spectra, settings[name], runs, [0, -1])
        spectra = {each: values[:, :, 0] for each, values in spectra.items()}
        distance = {each: spectrum_distance(values) for each, values in spectra.items()}
        ratio = final_loss(runs[first]["loss"]) / final_loss(runs[second]["loss"])
        parts.append(Part(f"{name}: distance at initialisation", distance[first][:, 0], log=False))
        parts += [Part(f"{name}: distance at the end, {each}", values[:, 1], log=False)
                  for each, values in distance.items()]  # (seeds, start and end) each
        parts.append(Part(f"{name}: final loss {first} / {second}", ratio))
        arrays |= {f"{name} spectra": spectra[first][0, 0], f"{name} gap": ratio,
                   f"{name} distance": np.array(list(distance.values()))}
        start.append(distance[first][:, 0])
        end.append(distance[first][:, 1])
        gap.append(ratio)
    correlations = [Part(
        f"rank correlation over these six settings, distance {when}",
        [rank_correlation(*pair) for pair in zip(np.transpose(distance), np.transpose(gap))],
        log=False) for when, distance in (("at initialisation", start),
                                          (f"at the end of {first}", end))]
    return arrays, correlations + parts


def spectrum_distance(spectra):
    """Mean over pairs of blocks (..., blocks, eigenvalues) of the mean difference in log10; the
    block before the last, the last P, does not count."""
    logs = np.log10(np.delete(spectra, -2, axis=-2) + 1e-12)
    first, second = np.triu_indices(logs.shape[-2], 1)
    return np.abs(logs[..., first, :] - logs[..., second, :]).mean(axis=(-2, -1))


def rank_correlation(x, y):
    """Spearman's: the correlation of the ranks; NaN if a value is missing."""
    if not np.isfinite([x, y]).all():
        return np.nan
    return np.corrcoef(*(np.argsort(np.argsort(each)) for each in (x, y)))[0, 1]


def draw_block_heterogeneity(figure, arrays):
    above, (ends, against, other) = figure.subplots(2, 3)
    names = list(arrays["settings"])
    for ax, name in zip(above, (names[0], names[2], names[5])):
        spectra = arrays[f"{name} spectra"]  # (blocks, eigenvalues)
        for b in [b for b in range(len(spectra)) if b != len(spectra) - 2]:
            shade = matplotlib.colormaps["cividis"](0.9 * (b // 2) / (len(spectra) // 2))
            ax.plot(1 + np.arange(spectra.shape[1]), spectra[b, ::-1], "-" if b % 2 else "--",
                    color=shade)
        ax.set(yscale="log", title=name, xlabel="rank of the eigenvalue", ylabel="|eigenvalue|")
    for i, name in enumerate(names):
        distance = arrays[f"{name} distance"]  # (optimizers, seeds, start and end)
        look = plotting.look(name, i)
        against.plot(distance[0, :, 0], arrays[f"{name} gap"], look["marker"], color=look["color"])
        for ax, kept in ((ends, names[:3]), (other, names[3:])):
            if name in kept:
                ax.plot([0, 1], np.median(distance[0], axis=0), **look, label=name)
    against.set(yscale="log", xlabel="distance at initialisation",
                ylabel=" / ".join(arrays["optimizers"][:2]), title="ratio of final losses")
    for ax, title in ((ends, "depth, Setting 1"), (other, "tails, E|x|$^2$ = 1")):
        ax.set_xticks([0, 1], ["start", f"end of {arrays['optimizers'][0]}"])
        ax.set(title=title, ylabel="distance (decades)")
        ax.legend(fontsize=11)
    return ("Above: spectra of the blocks at initialisation, one seed; solid: Q, dashed: P, from "
            "dark (first layer) to light. Below: distance in decades, medians over seeds; in the "
            "middle a dot for each seed.")


def screen(run=Run(seeds=2, steps=200, optimizers=(SGD, Adam, SignDescent))):
    """Question: Which optimizer should I take, and how carefully must its rate be chosen?

    Every optimizer in Settings 1, 2 and 3 at ten rates, at most 500 steps. Ranked by the final loss
    at its best rate (geometric mean over the settings of its ratio to the best one). Besides: the
    good range, rates within a factor 2 of its best loss, as largest over smallest; steps until ten
    losses in a row lie below twice the best final loss (all of them if they never do); share of
    diverged runs over the grid; share of steps whose gradient norm is above ten times the median,
    at the best rate.
    """
    run = run.spend(steps=min(run.steps, 500), lr=None)  # the rates are the grid's
    tried, merit, rows = run.tune(PAPER_SETTINGS, rate_grid), {each: [] for each in run.names}, {}
    for name, by_optimizer in tried.items():
        score = {each: training.level(by_optimizer[each].loss) for each in run.names}  # (rates,)
        best = min(values.min() for values in score.values())
        for each, (rates, _) in by_optimizer.items():
            runs, good = by_optimizer[each].at_best, good_range(rates, score[each])
            norm = runs["grad_norm"]
            spikes = (norm > 10 * np.median(norm, axis=-1, keepdims=True)).mean()
            steps = np.median(steps_to(runs["loss"], 2 * np.exp(best)))
            lost = np.isnan(by_optimizer[each].loss[..., -1]).mean()
            width = good.max() / good.min() if len(good) else np.nan
            rows[each, name] = Part(f"{each:<12} {name}", (
                f"rate {rates[by_optimizer[each].best]:<5g} loss {np.exp(score[each].min()):<8.3g} "
                f"good range {width:<5.3g} steps to target {steps:<5.0f} "
                f"diverged {100 * lost:.0f} % spikes {100 * spikes:.1f} %"))
            merit[each].append(behind(score[each].min(), best))
    ratio = {each: np.exp(np.mean(values)) for each, values in merit.items()}
    ranked = sorted(ratio, key=ratio.get)
    parts = [Part("rank, by geometric mean of the ratio to the best", "; ".join(
        f"{place} {each} ({ratio[each]:.3g})" for place, each in enumerate(ranked, 1)))]
    parts += [rows[each, name] for each in ranked for name in PAPER_SETTINGS]
    return rate_curves(run, tried) | {"spent": (run.seeds, run.steps)}, parts


def behind(score, best):
    """How far a log loss lies above the best one: 0 for the best, even if its loss is 0; infinite
    if it diverged."""
    if score == best < np.inf:
        return 0.0
    return score - best if np.isfinite(best) else np.inf


draw_screen = draw_learning_rates


def attention_cost(run=Run(seeds=4)):
    """Cost: A gradient costs O(n^2) in the textbook form, the same for every n in the Gram form.

    The reason for the name 'linear attention': without softmax the sum over the context associates,
    so a prompt enters through its Gram matrix. Measured: the median of several calls on 1,000
    prompts, d = 5, L = 3, one BLAS thread, one process; the slope of log time against log n over
    the last three n, over as many repeats as the run has seeds. Claimed: within 0.1 of 0 for the
    Gram form, above 1.5 for the others. Times differ from call to call, so nothing is taken from
    disk; steps and optimizers have no part in it.
    """
    found = [run.all(training.cost_seconds, [(seed,)], keep=False)[0] for seed in range(run.seeds)]
    ms = {form: 1e3 * np.array([each["forms"][i] for each in found])  # (repeats, n)
          for i, form in enumerate(COST_FORMS)}
    bounds = dict(zip(COST_FORMS, (dict(above=1.5), dict(above=1.5), dict(above=-0.1, below=0.1))))
    slopes = {form: np.polyfit(np.log(COST_N[-3:]), np.log(values[:, -3:]).T, 1)[0]
              for form, values in ms.items()}
    parts = [Part(f"{form}: slope", slopes[form], log=False, **bounds[form]) for form in COST_FORMS]
    parts += [Part(f"{form}: ms", ", ".join(
        f"{each:.3g} at n = {n}" for n, each in zip(COST_N, np.median(values, axis=0))))
        for form, values in ms.items()]
    others = 1e3 * np.median([each["others"] for each in found], axis=0)
    parts += [Part(f"{name}: ms", f"{each:.3g}") for name, each in zip(COST_OTHERS, others)]
    return {"n": COST_N, "forms": COST_FORMS, "ms": np.array(list(ms.values())),
            "slopes": [slopes[form].mean() for form in COST_FORMS]}, parts


def draw_attention_cost(figure, arrays):
    ax = figure.subplots()
    names = [f"{form}: slope {slope:z.2f}"
             for form, slope in zip(arrays["forms"], arrays["slopes"])]
    curves(ax, arrays["n"], arrays["ms"], names, xscale="log", yscale="log",
           title="1,000 prompts, d = 5, three layers, one core", xlabel="context length n",
           ylabel="ms per gradient")
    ax.set_xticks(arrays["n"], arrays["n"])
    ax.minorticks_off()
    return ("Median and range of the repeats; slopes over the last three n. The Gram matrices of "
            "the batch are made once, before.")


# ---- Their table: a new experiment is two functions above and a row here -------------------------


class Experiment(NamedTuple):
    claim: str  # C1, ..., or Question
    claimed: str
    paper: str  # what is printed there
    measure: object  # (run) -> (arrays, parts)
    draw: object  # (figure, arrays) -> caption


EXPERIMENTS = {row.measure.__name__: row for row in (
    Experiment("C1", "Adam beats SGD in Settings 1, 2 and 3",
               "loss curves; the authors' notebook ends Setting 1 near 8e-3 (SGD) and 1.7e-3 "
               "(Adam)",
               adam_vs_sgd, draw_adam_vs_sgd),
    Experiment("C2", "Stochastic gradient noise is heavy-tailed in Settings 1, 2 and 3",
               "histograms; Setting 1: about 2.1, right tail to 3.6",
               gradient_noise, draw_gradient_noise),
    Experiment("C3", "R_med is larger along SGD's path than along Adam's",
               "; ".join(f"{name}: {' and '.join(printed.values())}"
                         for name, printed in PAPER_C3.items()),
               condition_number, draw_condition_number),
    Experiment("C4", "Directional smoothness is smaller along Adam's path", "curves",
               directional_smoothness, draw_directional_smoothness),
    Experiment("C5", "Smoothness grows with the gradient norm", "positive slope",
               generalized_smoothness, draw_generalized_smoothness),
    Experiment("C6", "Linear attention learns this task much faster than softmax attention",
               "curve", softmax_vs_linear, draw_softmax_vs_linear),
    Experiment("C7", "The picture is the same for L = 8, d = 20, n = 60",
               "loss curve, noise histogram", larger_model, draw_larger_model),
    Experiment("C8", "Heavier tails of x make heavier noise, slower training and a larger R_med "
               "ratio", "3 rows of plots", heavy_tails, draw_heavy_tails),
    Experiment("C9", "With depth the Adam-SGD gap, noise tails and R_med ratio grow, and the loss "
               "falls", "3 rows of plots", depth, draw_depth),
    Experiment("Protocol", "The learning rate of each optimizer is the best of a grid of ten",
               "0.02 and 0.02 (Setting 1), 0.01 and 0.005 (2), 0.02 and 0.02 (3) for SGD and Adam",
               learning_rates, draw_learning_rates),
    Experiment("C10", "Without gradient noise Adam still beats SGD, and so does sign descent",
               "quoted", full_batch, draw_full_batch),
    Experiment("C11", "Clipping lowers directional smoothness, coordinate by coordinate most of "
               "all", "quoted", clipping, draw_clipping),
    Experiment("Question", "At which initial scale and depth do gradients vanish or explode, or "
               "models train?", "", initialization, draw_initialization),
    Experiment("Question", "How do heavy tails and depth interact?", "",
               tails_times_depth, draw_tails_times_depth),
    Experiment("Question", "How far above the Bayes risk does each optimizer end when labels are "
               "noisy?", "", label_noise, draw_label_noise),
    Experiment("Question", "What helps against heavy-tailed prompts?", "", remedies, draw_remedies),
    Experiment("Question", "What is in the weights: is a trained layer a step of gradient descent?",
               "", what_it_learns, draw_what_it_learns),
    Experiment("Question", "Do Hessian spectra differ between parameter blocks where Adam is "
               "ahead?", "", block_heterogeneity, draw_block_heterogeneity),
    Experiment("C12", "The picture is the same for nonlinear regression with an MLP before the "
               "attention", "loss, noise, R_med, smoothness",
               nonlinear_regression, draw_nonlinear_regression),
    Experiment("Question", "Which optimizer should I take, and how carefully must its rate be "
               "chosen?", "", screen, draw_screen),
    Experiment("Cost", "A gradient costs O(n^2) in the textbook form, the same for every n in the "
               "Gram form", "", attention_cost, draw_attention_cost),
)}


# ---- Statistics and verdict ----------------------------------------------------------------------


class Part(NamedTuple):
    """What was measured: a value for each seed, or a text. A bound makes it a part of the claim:
    that the mean over seeds lies above it, or below."""

    name: str
    values: object  # (seeds,), or a text
    above: float = None
    below: float = None
    log: bool = True  # averaged on the logarithmic scale: ratios, and what spans decades

    def summary(self):
        """Mean over seeds and its 95 % t interval; NaN for what cannot be computed."""
        with np.errstate(all="ignore"):  # a run that diverged, a ratio to 0
            values = np.log(self.values) if self.log else np.asarray(self.values, float)
            mean = values.mean() if np.isfinite(values).all() else np.nan
            count = len(values)
            half = np.nan
            if count > 1:
                half = t_quantile(count - 1) * values.std(ddof=1) / np.sqrt(count)
            found = np.array([mean, mean - half, mean + half])
            return np.exp(found) if self.log else found

    def as_dict(self):
        """For JSON, where NaN and infinity are None; a text as it is."""
        if isinstance(self.values, str):
            return self.values
        mean, low, high = numbers(self.summary())
        bounds = dict(above=self.above, below=self.below)
        return dict(per_seed=numbers(self.values), mean=mean, interval_95=[low, high]) | {
            name: bound for name, bound in bounds.items() if bound is not None}


@functools.cache
def t_quantile(dof):
    """97.5 % point of Student's t: for t = sqrt(dof) tan(phi) its density is cos(phi)^(dof - 1)."""
    phi, width = np.linspace(-np.pi / 2, np.pi / 2, 100_001, retstep=True)
    middle = phi[:-1] + width / 2
    cdf = np.cumsum(np.cos(middle) ** (dof - 1))
    return np.sqrt(dof) * np.tan(np.interp(0.975, cdf / cdf[-1], phi[1:]))


def numbers(values):
    """Floats that JSON can hold: None for NaN and infinity."""
    return [float(value) if np.isfinite(value) else None for value in values]


def decision(part):
    """"holds" if the interval lies on the side of the bound that the claim says, "against" if it
    lies on the other, else "open"; None without a bound."""
    _, low, high = part.summary() if not isinstance(part.values, str) else (None, None, None)
    decided = []
    if part.above is not None:
        decided.append("holds" if low > part.above else "against" if high < part.above else "open")
    if part.below is not None:
        decided.append("holds" if high < part.below else "against" if low > part.below else "open")
    for word in ("against", "open", "holds"):
        if word in decided:
            return word
    return None


def verdict_of(parts):
    """What the parts with a bound say of the claim."""
    decided = [decision(part) for part in parts if decision(part)]
    if not decided:
        return "measured, nothing claimed"
    if "against" in decided:
        return "not reproduced"
    return "inconclusive" if "open" in decided else "reproduced"


def block_edges(steps):
    """Edges of 50 equal blocks of the steps, or of as many as there are."""
    return np.linspace(0, steps, min(50, steps) + 1).astype(int)


def block_centres(steps):
    edges = block_edges(steps)
    return (edges[:-1] + edges[1:] - 1) / 2


def running_median(series):
    """(optimizers, seeds, blocks): medians of several (seeds, steps) over 50 blocks of the
    steps."""
    series = np.array(list(series))
    edges = block_edges(series.shape[-1])
    return np.stack([np.median(series[..., a:b], axis=-1) for a, b in zip(edges, edges[1:])],
                    axis=-1)


def tail_shares(draws):
    """200 shares of the draws, or as many as there are ranks: those of `tail`, with both ends."""
    ranks = np.unique(np.geomspace(1, draws, 200).astype(int))
    return ranks / draws


def tail(norms):
    """Of norms (seeds, draws): the values that these shares of a seed's draws reach or exceed,
    over the seed's median, (seeds, shares)."""
    draws = norms.shape[1]
    descending = -np.sort(-norms, axis=1) / np.median(norms, axis=1, keepdims=True)
    return descending[:, np.round(tail_shares(draws) * draws).astype(int) - 1]


def within(least, value, most):
    return min(max(value, least), most)


def path_points(last, count):
    """Numbers of so many snapshots, or as many as there are, from the first to the last."""
    return np.unique(np.linspace(0, last, count).astype(int))


def without_start(path):
    """The median over a path (..., points) without its first tenth; NaN if a run diverged."""
    return np.median(path[..., path.shape[-1] // 10 :], axis=-1)


def line(x, y):
    """Slope and offset of the line through the points at which both are finite; NaN if there are
    no two of different x."""
    good = np.isfinite(x) & np.isfinite(y)
    return np.polyfit(x[good], y[good], 1) if len(set(x[good])) > 1 else (np.nan, np.nan)


def log_slope(x, y):
    """Slope of log y against log x, where both are positive."""
    with np.errstate(all="ignore"):
        return line(np.log(x), np.log(y))[0]


def steps_to(losses, target):
    """First step (seeds,) from which ten losses (seeds, steps) in a row are below the target,
    counted from 1; the last step if none is."""
    below = losses < target
    found = []
    for row in below:
        starts = [t for t in np.flatnonzero(row) if row[t : t + 10].sum() == 10]
        found.append(starts[0] + 1 if starts else len(row))
    return np.array(found)


# ---- Files ---------------------------------------------------------------------------------------

WITHOUT_OPTIMIZERS = ("gradient_noise", "attention_cost")  # nothing is trained there


def finding(name, run, arrays, parts):
    """What a run says of an experiment's claim, ready for JSON."""
    row = EXPERIMENTS[name]
    verdict, usual = verdict_of(parts), default_run(name).names
    judged = any(decision(part) for part in parts)
    if judged and run.names != usual and name not in WITHOUT_OPTIMIZERS:
        verdict = f"not judged: the claim is about {' and '.join(usual)}"
    seeds, steps = arrays.get("spent", (run.seeds, run.steps))
    rates = {each: float(rate) for each, rate in (run.lr or {}).items()}
    measured = {part.name: part.as_dict() for part in parts}
    return dict(
        claim=row.claim, claimed=row.claimed, paper=row.paper, verdict=verdict,
        lines=[f"{each}: {in_words(value)}" for each, value in measured.items()],
        measured=measured,
        decisions={part.name: decision(part) for part in parts if decision(part)},
        configuration=dict(seeds=int(seeds), steps=int(steps), optimizers=run.names, lr=rates),
        versions=dict(python=platform.python_version(), numpy=np.__version__,
                      matplotlib=matplotlib.__version__, machine=platform.machine()))


def in_words(value):
    """What was measured, with its interval; a text as it is."""
    if isinstance(value, str):
        return value
    low, high = value["interval_95"]
    text = "unknown" if value["mean"] is None else f"{value['mean']:.3g}"
    return f"{text}, no interval" if None in (low, high) else f"{text} [{low:.3g}, {high:.3g}]"


def headline(found):
    return f"{found['claim']}: {found['claimed']}: {found['verdict']}"


def default_run(name):
    """The first look that an experiment takes if nothing else is asked for."""
    return (EXPERIMENTS[name].measure.__defaults__ or [Run()])[0]


def measure(name, run):
    """Run an experiment and keep NAME.npz, the arrays with the finding, and NAME.json in the run's
    folder. Returns the finding."""
    arrays, parts = EXPERIMENTS[name].measure(run)
    found = finding(name, run, arrays, parts)
    text = json.dumps(found, indent=1, allow_nan=False)
    training.write(Path(run.out, f"{name}.npz"),
                   lambda file: np.savez_compressed(file, finding=text, **arrays))
    training.write(Path(run.out, f"{name}.json"), lambda file: file.write(f"{text}\n".encode()))
    return found


def load(path):
    """(arrays, finding) of a kept NAME.npz. Raises Mistake if it is none."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = dict(stored)
        return arrays, dict(json.loads(str(arrays.pop("finding"))))
    except Exception as error:  # whatever a damaged file makes of numpy and zipfile
        raise Mistake(f"{path}: got no results of an experiment ({error})") from None


def draw(name, arrays, found=None):
    """The figure of an experiment from its arrays; with a finding, its headline above."""
    return picture(EXPERIMENTS[name].draw, arrays, headline(found) if found else "")


def save_figures(name, out, slides=False):
    """NAME.png, NAME.pdf and NAME.txt (the caption) from the NAME.npz in a folder; for slides
    NAME-1.png, NAME-1.pdf, ... with one panel each, too."""
    arrays, found = load(Path(out, f"{name}.npz"))
    figure = draw(name, arrays, found)
    pictures = {name: figure}
    if slides:
        pictures |= {f"{name}-{i}": each for i, each in enumerate(plotting.single_panels(
            EXPERIMENTS[name].draw, arrays, headline(found)), 1)}
    for stem, each in pictures.items():
        for form in ("png", "pdf"):
            training.write(Path(out, f"{stem}.{form}"),
                           lambda file: plotting.save(each, file, form))
    seeds, steps = found["configuration"]["seeds"], found["configuration"]["steps"]
    caption = f"{headline(found)}\n{figure.caption} {seeds} seeds, {steps:,} steps.\n"
    training.write(Path(out, f"{name}.txt"), lambda file: file.write(caption.encode()))


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


# ---- The command line ----------------------------------------------------------------------------

QUICK = dict(seeds=2, steps=100)
FULL = dict(seeds=6, steps=10_000)  # the paper's protocol


def parse(arguments):
    """(options, {experiment's name: Run}); exits with status 2 and one line on a mistake."""
    parser = argparse.ArgumentParser("experiments.py",
                                     description="Run an experiment; without a name, list them.")
    parser.error = lambda message: parser.exit(
        2, f"experiments.py: {' '.join(message.split())}\n")
    parser.add_argument("name", nargs="?", help="the experiment, or all, or report")
    spend = parser.add_mutually_exclusive_group()
    spend.add_argument("--full", action="store_true",
                       help="the paper's protocol: 6 seeds, 10,000 steps")
    spend.add_argument("--quick", action="store_true", help="a first look, in seconds")
    parser.add_argument("--seeds", type=int, help="seeds 0, 1, ...: how many")
    parser.add_argument("--steps", type=int, help="iterations of each run")
    parser.add_argument("--optimizers", nargs="+", metavar="NAME",
                        help="classes of optimizers.py, or MODULE.CLASS of your own; the one to "
                             "compare with first")
    parser.add_argument("--lr", nargs="+", metavar="[NAME=]RATE", default=[],
                        help="learning rates: 0.01 for every optimizer, or Adam=0.01 for one")
    parser.add_argument("--jobs", type=int, help="processes (default: one for each core)")
    parser.add_argument("--out", default=Run.out, help="folder for the results (default: results)")
    parser.add_argument("--slides", action="store_true", help="also one file for each panel")
    parser.add_argument("--redraw", action="store_true",
                        help="train nothing: draw NAME.npz of the folder again")
    given = parser.parse_args(arguments)
    names = {None: [], "report": [], "all": EXPERIMENTS}.get(given.name, [given.name])
    if not set(names) <= set(EXPERIMENTS):
        parser.error(f"experiment: got {given.name!r}, wants one of {', '.join(EXPERIMENTS)}, "
                     "all, report")
    if given.redraw and (given.full or given.quick or given.seeds or given.steps or given.lr
                         or given.optimizers):
        parser.error("--redraw: got options of a training, wants none: it trains nothing")
    if given.name is None and arguments:
        parser.error("experiment: got none, wants its name first, as in: adam_vs_sgd --lr 0.01")
    try:
        if given.jobs is not None and not 1 <= given.jobs < 10**6:
            raise ValueError(f"jobs: got {given.jobs}, wants a whole number >= 1")
        if not given.out:
            raise ValueError("out: got '', wants the name of a folder")
        changes = FULL if given.full else QUICK if given.quick else {}
        changes = changes | {key: getattr(given, key) for key in ("seeds", "steps", "out")
                             if getattr(given, key) is not None}
        if given.optimizers:
            changes["optimizers"] = tuple(map(optimizer_named, given.optimizers))
            if len(given.optimizers) < 2:
                raise ValueError(f"optimizers: got {given.optimizers[0]!r}, wants two or more")
        pool = training.Workers(given.jobs)  # one for all: it starts when it is needed
        runs = {name: default_run(name).spend(pool=pool, **changes) for name in names}
        runs = {name: run.spend(lr=parse_rates(given.lr, run.names)) for name, run in runs.items()}
        if runs and not given.redraw:
            Path(given.out, "runs").mkdir(parents=True, exist_ok=True)
            training.write(Path(given.out, ".writable"), lambda file: None)
            Path(given.out, ".writable").unlink(missing_ok=True)
        return given, runs
    except OSError as error:
        parser.error(f"out: got {given.out!r}, wants a folder to write in ({error.strerror})")
    except ValueError as error:
        parser.error(str(error))


def optimizer_named(text):
    """The class of a name such as SGD, of optimizers.py, or mine.Lion, of a module mine.py in the
    working directory."""
    module, _, name = text.rpartition(".")
    try:
        return getattr(importlib.import_module(module or "optimizers"), name)
    except Exception as error:  # whatever happens in the reader's module
        raise ValueError(f"optimizers: got {text!r}, wants a class of optimizers.py, or "
                         f"MODULE.CLASS of your own ({type(error).__name__}: {error})") from None


def parse_rates(texts, names):
    """{optimizer: rate} from RATE (for all) and NAME=RATE (for one)."""
    rates = {}
    for text in texts:
        name, equals, rate = text.rpartition("=")
        try:
            rates |= dict.fromkeys([name] if equals else names, float(rate))
        except ValueError:
            raise ValueError(f"lr: got {text!r}, wants RATE or NAME=RATE") from None
    return rates


def main(arguments=None):
    """Run the command line; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    sys.path.append(os.getcwd())  # for the reader's own optimizers
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # names that the console cannot show
    given, runs = parse(arguments)
    status = 1
    try:
        if given.name is None:
            print("\n".join(f"{name:<24}{row.claim}: {row.claimed}"
                            for name, row in EXPERIMENTS.items()), flush=True)
        elif given.name == "report":
            print(report(given.out), flush=True)
        elif given.redraw:
            redraw(runs, given)
        else:
            failed = []
            for name, run in runs.items():  # one that fails does not keep `all` from the others
                try:
                    found = measure(name, run)
                except RunFailed as error:
                    failed.append(f"{name}: {error}")
                    continue
                save_figures(name, run.out, given.slides)
                print("\n  ".join([
                    f"{found['claim']}: {found['claimed']}", *found["lines"],
                    f"verdict: {found['verdict']}", str(Path(run.out, f"{name}.png"))]), flush=True)
            if failed:
                raise RunFailed("\n".join(failed))
        return 0
    except BrokenPipeError:  # the reader of our output left; the files are saved
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Mistake as error:
        training.say(str(error))
        return 2
    except (RunFailed, OSError) as error:
        training.say(str(error))
    except KeyboardInterrupt:
        training.say("interrupted")
        status = 130
    if any(Path(given.out, "runs").glob("*.npz")):
        training.say("finished runs are kept; the command, when repeated, does the rest")
    return status


def redraw(names, given):
    """Draw what is kept in a folder; of `all` what is there."""
    if given.name == "all":
        names = [name for name in names if Path(given.out, f"{name}.npz").exists()]
    if not names:
        raise Mistake(f"out: got {given.out!r}, wants a folder with results of experiments")
    for name in names:
        try:
            save_figures(name, given.out, given.slides)
        except Mistake:
            raise
        except (LookupError, TypeError, ValueError) as error:  # of another experiment or version
            raise Mistake(f"{Path(given.out, name)}.npz: got other arrays than the figure of "
                          f"{name} wants ({type(error).__name__}: {error})") from None
        print(Path(given.out, f"{name}.png"), flush=True)


if __name__ == "__main__":
    sys.exit(main())
