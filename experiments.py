"""Every phenomenon as one function that measures and one that draws: `python experiments.py NAME`.

    run       what an experiment may spend (training.Run): seeds, steps, optimizers
    runs      what was trained in one setting, by the optimizer's name: arrays, first axis the seeds
    arrays    what is drawn, by name; kept in NAME.npz, from which the figure can be drawn again
    part      what was measured, a value for each seed, and what the claim says of it, at a level:
              published (the paper's statistic, batch and rates) or robust (one or more of: the
              typical batch, each optimizer at its best rate, the right null, seeds not looked at
              before; the docstring says which)

A measuring function has its default run, the first look of the command line, as its argument's
default; a drawing function, draw_NAME, returns the caption, which says what is drawn.
First the phenomena (the paper's claims C1 to C12, then open questions), their table, then
statistics and verdict, files, the command line. The loop is in training.py. The default runs are a
first look; the robust level needs --full. Source: Ahn et al., ICLR 2024, arXiv 2310.01082.
"""

import argparse
import difflib
import functools
import importlib
import itertools
import json
import os
import platform
import sys
import textwrap
import time
from math import comb
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np

import plotting
import training
from data import (DEEP, LARGE, LIGHT_TAILS, NONLINEAR, NONLINEAR_TASK, SETTING_1, SETTING_2,
                  SETTING_3, SPHERICAL, Setting, sample_prompts)
from optimizers import SGD, Adam, Muon, NormalizedSGD, SignDescent
from plotting import curves, dots, losses, picture, reference, smoothness_axis, tails
from training import (CLIPPED, COST_FORMS, COST_N, COST_OTHERS, Mistake, Run, RunFailed, final_loss,
                      last_tenth, moment, r_med)

PAPER_SETTINGS = {"Setting 1": SETTING_1, "Setting 2": SETTING_2, "Setting 3": SETTING_3}
LEVELS = "published", "robust"  # of a claim, see above
FRESH = 1000  # the first of the seeds that were not looked at before the bounds were set
TITLES = {"Setting 1": "Setting 1: n = 20", "Setting 2": "Setting 2: n = 5",
          "Setting 3": "Setting 3: heavy-tailed x"}


# ---- The paper's claims --------------------------------------------------------------------------


def adam_vs_sgd(run=Run(seeds=5, steps=800)):
    """C1: Adam beats SGD in Settings 1, 2 and 3.

    Figure 1 of the paper. Three layers, SGD and Adam with momentum 0.9 from the same weights on the
    same batches, gradient norm clipped at 1. Claimed, of the final loss (median training loss over
    the last tenth of the steps): SGD's over Adam's, per seed, above 1. Published: at the published
    rates. Robust: each at its best rate, and the same of the steps to a loss that both reach (see
    `at_best_rates`). Limit: up to which quantile of the loss of single prompts Adam is lower; the
    mean over prompts says nothing, because a few rare ones carry it.
    """
    arrays, parts = {"iteration": block_centres(run.steps), "optimizers": run.names}, []
    trained = run.train(PAPER_SETTINGS)
    for name, runs in trained.items():
        loss = {each: runs[each]["loss"] for each in run.names}  # (seeds, steps) each
        norm = {each: runs[each]["grad_norm"] for each in run.names}
        parts += final_losses(name, loss, above=1)
        arrays[f"{name} loss"] = running_median(loss.values())  # (optimizers, seeds, blocks)
        arrays[f"{name} norm"] = running_median(norm.values())
    if thorough(run):
        for more_arrays, more_parts in (at_best_rates(run), single_prompts(run, trained)):
            arrays |= more_arrays
            parts += more_parts
    return arrays, parts


def draw_adam_vs_sgd(figure, arrays):
    """Above "SETTING loss" (optimizers, seeds, blocks); below, of a thorough run, the same at the
    best rates, else "SETTING norm"."""
    pair, tuned = " / ".join(arrays["optimizers"][:2]), "Setting 1 target" in arrays
    above, below = figure.subplots(2, 3, sharey="row")
    for name, published, other in zip(PAPER_SETTINGS, above, below):
        free = (0.97, 0.96) if name == "Setting 1" else (0.97, 0.04)  # of lines
        losses(published, arrays, f"{name} loss", title=TITLES[name],
               ylabel="loss, published rates")
        plotting.note(published, f"{pair} {{{name}: final loss {pair}}}", at=free)
        if tuned:
            losses(other, arrays, f"{name} loss at best rates", ylabel="loss, best rates")
            target = f"{arrays[f'{name} target']:g}"
            plotting.note(other, f"{pair} {{{name}, best rates: final loss {pair}}}\nsteps to "
                          f"{target}, {pair}:\n{{{name}, best rates: steps to loss {target}, "
                          f"{pair}}}", at=free)
        else:
            losses(other, arrays, f"{name} norm", ylabel="gradient norm")
    second_row = ("each optimizer at its best rate for the final loss (the number of steps is that "
                  "of other runs, at the rates with the fewest)" if tuned else
                  "the norm of the gradient before clipping")
    return (f"Above: training loss at the published rates. Below: {second_row}. Running medians "
            "over blocks of a fiftieth of the steps; line: median over seeds, band: smallest to "
            "largest. Three layers; every batch is fresh, so that the training loss is a test "
            "loss.")


def final_losses(name, loss, **bound):
    """Parts of one setting, from the losses (seeds, steps) of each optimizer: the final loss of the
    first one over that of each other one, which is claimed to keep the bound; and a line that names
    the runs that diverged."""
    final = {each: final_loss(values) for each, values in loss.items()}  # (seeds,) each
    first, *others = loss.keys()
    parts = [Part(f"{name}: final loss {first} / {each}", over(final[first], final[each]), **bound)
             for each in others]
    parts += [Part(f"{name}: final loss {each}", values) for each, values in final.items()]
    lost = [f"{each}, seed at index {seed}, at step {lost_at(values[seed])}"
            for each, values in loss.items() for seed in np.flatnonzero(~np.isfinite(final[each]))]
    if lost:
        parts.append(Part(f"{name}: diverged", "; ".join(lost)))
    return parts


def lost_at(loss):
    """The step from which no loss of (steps,) is finite."""
    finite = np.flatnonzero(np.isfinite(loss))
    return finite[-1] + 1 if finite.size else 0


def at_best_rates(run):
    """C1, robust: each optimizer at its best constant rate for what is compared.

    The rates are chosen on three pilot seeds, 0 to 2, from a grid (`chosen_rates`), and compared on
    others. Two comparisons: the final loss, each at the rate of the lowest final loss; and the
    steps until the median of the last 50 losses is below a target, each at the rate with the fewest
    steps (geometric mean over the pilots). The target is the lowest of LADDER, fractions of d, that
    both optimizers reach on all pilot seeds. A run that does not get there counts as infinitely
    many steps. Such a low target is near the level at which a run ends, so there is a limit: the
    ratio of the steps to the next two higher losses of the ladder, at the same rates.
    """
    arrays, parts = {}, []
    chosen = chosen_rates(run)
    confirmed = fresh(run).tune(PAPER_SETTINGS, lambda setting, each: sorted(
        set(chosen[setting.name].rates[each].values())))
    for name, (target, rates, _) in chosen.items():
        loss, soonest = ({each: runs_at(confirmed[name][each], rates[each][what])["loss"]
                          for each in run.names} for what in ("final loss", "steps"))
        medians = {each: last_fifty(values) for each, values in soonest.items()}
        steps = {each: steps_to(values, target) for each, values in medians.items()}
        final = {each: final_loss(values) for each, values in loss.items()}
        pair = " / ".join(run.names[:2])
        parts += [Part(f"{name}, best rates: final loss {pair}", first_over_second(final), above=1,
                       level="robust"),
                  Part(f"{name}, best rates: steps to loss {target:g}, {pair}",
                       first_over_second(steps), above=1, level="robust")]
        ladder = PAPER_SETTINGS[name].data["d"] * np.array(LADDER)
        parts += [Part(f"{name}, limit: steps to loss {higher:g} at the same rates, {pair}",
                       first_over_second({each: steps_to(values, higher)
                                          for each, values in medians.items()}))
                  for higher in ladder[ladder > 1.001 * target][-2:]]
        for each in run.names:
            parts += [
                Part(f"{name}, best rate: final loss {each}", final[each]),
                Part(f"{name}: steps of {each} to loss {target:g}", counted(steps[each], run)),
                Part(f"{name}: rates of {each}", ", ".join(
                    f"{rate:g} for {what}" for what, rate in rates[each].items()))]
        arrays |= {f"{name} loss at best rates": running_median(loss.values()),
                   f"{name} rates for final loss": [
                       rates[each]["final loss"] for each in run.names],
                   f"{name} target": target,
                   f"{name} steps": np.array(list(steps.values()))}  # (optimizers, seeds)
    return arrays, parts


LADDER = (0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 0.0005, 0.0002, 0.0001)
RATES = {"SGD": (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)}
OTHER_RATES = 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1


def rate_grid(setting, name):
    """Seven rates, the published ones among them. Moves of SGD have the size of the gradient, of
    other optimizers the size of the rate. Where the gradient is clipped at less than 1, x is small
    and the layers must grow further: SGD wants a hundred times larger rates there, others ten."""
    factor = 1 if setting.clip >= 1 else 100 if name == "SGD" else 10
    return tuple(factor * rate for rate in RATES.get(name, OTHER_RATES))


class Chosen(NamedTuple):
    """What the pilot seeds say of a setting."""

    target: float  # the lowest loss of the ladder that all optimizers reach
    rates: dict  # {optimizer: {"final loss": rate, "steps": rate, "published": rate}}
    tried: dict  # {optimizer: training.Tried}


def chosen_rates(run):
    """{setting's name: Chosen} from the pilot seeds, at the run's length. Learning rates of the
    command line have no part in it."""
    chosen = {}
    for name, tried in pilots(run).tune(PAPER_SETTINGS, rate_grid).items():
        d, published = PAPER_SETTINGS[name].data["d"], PAPER_SETTINGS[name].lr
        best = {each: by_rate.rates[by_rate.best] for each, by_rate in tried.items()}
        medians = {each: last_fifty(by_rate.loss) for each, by_rate in tried.items()}
        target, soonest = d * LADDER[0], best  # of a short run, in which nobody gets anywhere
        for fraction in LADDER:  # from high to low
            found = {each: fastest(tried[each].rates, medians[each], d * fraction)
                     for each in run.names}
            if None not in found.values():
                target, soonest = d * fraction, found
        rates = {each: {"final loss": best[each], "steps": soonest[each]} for each in run.names}
        for each in [each for each in ("SGD", "Adam") if each in run.names]:
            rates[each]["published"] = published[each]
        chosen[name] = Chosen(target, rates, tried)
    return chosen


def fastest(rates, medians, target):
    """The rate with the fewest steps to the target (geometric mean), from medians (rates, seeds,
    steps); None if at no rate every seed gets there."""
    steps = np.log(steps_to(medians, target)).mean(axis=-1)  # (rates,)
    return rates[steps.argmin()] if np.isfinite(steps).any() else None


QUANTILES = 0.5, 0.9, 0.99, 0.999, 0.9999


def single_prompts(run, trained):
    """C1, limit: quantiles of the squared error over 100,000 prompts at the end, SGD's over
    Adam's. No verdict: where the ratio falls below 1 Adam has stopped being lower."""
    arrays, parts = {"quantiles": QUANTILES}, []
    for name, runs in trained.items():
        found = run.along(training.squared_errors, PAPER_SETTINGS[name], runs, [-1], batches=100)
        quantiles = {each: np.quantile(values.reshape(run.seeds, -1), QUANTILES, axis=-1)
                     for each, values in found.items()}  # (quantiles, seeds) each
        parts += [Part(f"{name}, limit: quantile {q:g} of the prompts' loss, "
                       f"{' / '.join(run.names[:2])}", ratio)
                  for q, ratio in zip(QUANTILES, first_over_second(quantiles))]
        arrays[f"{name} quantiles"] = np.array(list(quantiles.values()))
    return arrays, parts


def gradient_noise(run=Run(seeds=5, steps=1000)):
    """C2: Stochastic gradient noise is heavy-tailed in Settings 1, 2 and 3.

    Figure 2. At initialisation, the norm of g_batch - g_big: gradients on 1,000 and on 100,000
    fresh prompts; as many draws as the run has steps, for each seed's initial weights. Published:
    the histogram has a right tail: skewness above 0. Robust: the norm of a Gaussian vector is
    skewed, too; so the 99 % quantile over the median, against the same of Gaussian vectors with the
    noise's own mean and covariance (the median of twenty samples of as many draws), by a sign test
    over twelve seeds. No optimizer is used.
    """
    arrays, parts = {"share": tail_shares(run.steps)}, []
    for name, setting in PAPER_SETTINGS.items():
        more_arrays, more_parts = noise_tails(run, name, setting, run.steps)
        arrays |= more_arrays
        parts += more_parts
    return arrays, parts


def draw_gradient_noise(figure, arrays):
    """A panel a setting: "SETTING tail" (seeds, shares) and "SETTING null" (shares,)."""
    row = figure.subplots(1, 3, sharex=True, sharey=True)
    for name, ax in zip(PAPER_SETTINGS, row):
        tails(ax, arrays, name, title=TITLES[name])
        tail_note(ax, name)
    row[0].legend(loc="center right")
    return ("Share of the draws whose norm exceeds r times the median of their seed: |g(1,000 "
            "prompts) - g(100,000 prompts)| at initialisation, three layers. A line for each seed; "
            "dashed: Gaussian vectors of the same mean and covariance.")


def tail_note(ax, name):
    plotting.note(ax, f"99 % / 50 % quantile:\n{{{name}: 99 % quantile over median of the noise "
                  "norm, medians over seeds}", f"skewness {{{name}: skewness of the noise norm}}")


def noise_tails(run, name, setting, draws, seeds=12, statistics=("spread",)):
    """C2 in one setting: the arrays of its tail curves, and the parts. Seeds from 1000 on, so many
    if the run is thorough; the published level takes those that the run has."""
    seeds = max(seeds, run.seeds) if thorough(run) else run.seeds
    norms, null = noise_norms(run, setting, draws, seeds)
    with np.errstate(all="ignore"):  # a single draw has no variance
        skewed = moment(norms[: run.seeds], 3)
    parts = [Part(f"{name}: skewness of the noise norm", skewed, above=0, log=False)]
    for each in statistics if thorough(run) else ():
        words, statistic = STATISTICS[each]
        observed, expected = statistic(norms), statistic(null)  # (seeds,), (seeds, samples)
        difference = observed - np.median(expected, axis=1)
        beyond = (observed > expected.max(axis=1)).sum()
        parts += [Part(f"{name}: {words}, minus that of Gaussian vectors", difference, above=0,
                       log=False, level="robust", sign=True),
                  Part(f"{name}: {words}, medians over seeds", f"{np.median(observed):.3g}, "
                       f"Gaussian {np.median(expected):.3g}"),
                  Part(f"{name}: {words}, seeds above all 20 Gaussian samples",
                       f"{beyond} of {seeds}")]
    return tail_curves(name, norms, null), parts


def tail_curves(name, norms, null):
    """Arrays for `tails`: a curve for each seed, and the median one of the Gaussian samples."""
    expected = [tail(samples) for samples in null]  # (seeds, samples, shares)
    return {f"{name} tail": tail(norms), f"{name} null": np.median(expected, axis=(0, 1))}


def noise_norms(run, setting, draws, seeds):
    """Norms of the noise (seeds, draws), and of Gaussian vectors of the same mean and covariance
    (seeds, samples, draws)."""
    tasks = [(setting, seed, draws) for seed in range(FRESH, FRESH + seeds)]
    results = run.all(training.noise, tasks)
    return (np.array([each["norms"] for each in results]),
            np.array([each["null"] for each in results]))


def spread(norms):
    """The 99 % quantile over the median, over the last axis."""
    high, middle = np.quantile(norms, (0.99, 0.5), axis=-1)
    return high / middle


STATISTICS = {"spread": ("99 % quantile over median of the noise norm", spread),
              "skewness": ("skewness of the noise norm", functools.partial(moment, order=3))}


def condition_number(run=Run(seeds=5, steps=800)):
    """C3: R_med is larger along SGD's path than along Adam's.

    Figure 3 and table 1. R_med = max |H_ii| / median |H_ii| over the diagonal of the Hessian.
    Claimed: SGD's over Adam's above 1 at iterations 750 and 1250, at the published rates.
    Published: the mean over seeds on one evaluation batch of 1,000 prompts. Robust: per seed the
    median of the ratio over 20 batches, the same ones for all, then the geometric mean over 18
    seeds. Limit: the ratio for the Hessian on 100 batches together (six seeds). Besides: how often
    the published mean exceeds 1 if the optimizers' labels are exchanged, seed by seed and in all
    cases together, in all possible ways. Nothing is said of other iterations.
    """
    last = (run.steps - 1) // 50 * 50
    iterations = [t for t in (750, 1250) if t <= last] or [last]
    points = np.array(sorted({t for t in PATH if t <= last} | set(iterations))) // 50
    arrays = {"iteration": 50 * points, "optimizers": run.names}
    parts, single = [], {}
    for name, runs in run.train(PAPER_SETTINGS).items():
        path = run.along(training.condition, PAPER_SETTINGS[name], runs, points,
                         3 if thorough(run) else 1)  # (seeds, points, batches) each
        arrays[f"{name} path"] = np.array([typical_batch(each) for each in path.values()])
        for t in iterations:
            at_t = list(points).index(t // 50)
            single[f"{name}, iteration {t}"] = first_over_second(path)[:, at_t, 0]  # (seeds,)
    for label, ratio in single.items():
        name, _, t = label.partition(", iteration ")
        std = ratio.std(ddof=1) if run.seeds > 1 else 0
        in_print = PAPER_C3[name].get(int(t))  # of another iteration nothing
        in_print = "{:.3g} ({:.3g})".format(*in_print) if in_print else "none"
        parts += [Part(f"{label}, first batch", ratio, above=1, log=False),
                  Part(f"{label}: mean (std)",
                       f"{ratio.mean():.3g} ({std:.2g}), paper {in_print}")]
        arrays |= {f"{label} first batch": ratio}
    parts.append(Part("labels exchanged", exchanged(list(single.values()))))
    if thorough(run):
        more_arrays, more_parts = typical_condition(run, iterations)
        arrays, parts = arrays | more_arrays, parts + more_parts
    return arrays | {"iterations": iterations}, parts


PATH = (0, 50, 100, 150, 250, 400, 750, 1250, 2000, 3000, 4500, 7000, 9950)  # iterations
PAPER_C3 = {  # mean (standard deviation) of the ratio over seeds, table 1 of the paper
    "Setting 1": {750: (1.76, 0.40), 1250: (1.58, 0.41)},
    "Setting 2": {750: (3.14, 0.97), 1250: (5.98, 2.86)},
    "Setting 3": {750: (9.57, 13.3), 1250: (6.53, 3.55)},
}


def exchanged(ratios):
    """How often a mean over seeds (twelve at most) of ratios (seeds,) exceeds 1, over all ways to
    exchange the two optimizers of a seed, which turns its ratio into 1 / ratio."""
    ratios = [ratio[:12] for ratio in ratios]
    ways = np.array(list(itertools.product((1, -1), repeat=len(ratios[0]))))  # (ways, seeds)
    above = np.array([(ratio**ways).mean(axis=1) > 1 for ratio in ratios])  # (ratios, ways)
    return (f"of {len(ways)} ways {' '.join(str(count) for count in above.sum(axis=1))} give a "
            f"mean above 1, and {above.all(axis=0).sum()} in all {len(ratios)} cases at once")


def typical_condition(run, iterations):
    """C3, robust and limit: 18 fresh seeds, 20 batches; six of them, 100 batches together."""
    arrays, parts, late = {}, [], fresh(run, seeds=18, steps=2500)
    few = late.spend(seeds=6)
    for name, runs in late.train(PAPER_SETTINGS).items():
        for t in iterations:
            label, setting = f"{name}, iteration {t}", PAPER_SETTINGS[name]
            found = late.along(training.diagonal, setting, runs, [t // 50], batches=20)
            ratio = first_over_second({each: r_med(values[:, 0])  # (seeds, batches)
                                       for each, values in found.items()})
            low_high = np.quantile(ratio, (0.05, 0.95))
            many = few.along(training.diagonal, setting, only(runs, 6), [t // 50], batches=100)
            # the Hessian on all batches together is the mean of theirs
            pooled = first_over_second({each: r_med(values[:, 0].mean(axis=1))  # (seeds,)
                                        for each, values in many.items()})
            parts += [
                Part(f"{label}, typical batch", typical_batch(ratio), above=1, level="robust"),
                Part(f"{label}, limit: 100,000 prompts together", pooled),
                Part(f"{label}: 90 % of single batches", "{:.3g} to {:.3g}".format(*low_high))]
            arrays |= {f"{label} typical batch": typical_batch(ratio), f"{label} together": pooled}
    return arrays, parts


def draw_condition_number(figure, arrays):
    """Above "SETTING path" (optimizers, seeds, points). Below, at each of the iterations, what the
    paper prints, the ratios "CASE first batch" (seeds,) and, of a thorough run, "CASE typical
    batch" and "CASE together"."""
    above, below = figure.subplots(2, 3, sharey="row")
    words = {"paper": "paper", "first batch": "1 batch", "typical batch": "typical",
             "together": "100\ntogether"}
    kinds = [kind for kind in words if kind == "paper" or any(
        name.endswith(f" {kind}") for name in arrays)]
    columns = [(i, t, kind) for i, t in enumerate(arrays["iterations"]) for kind in kinds]
    places = [number + i for number, (i, _, _) in enumerate(columns)]  # one free between iterations
    for name, paths, ratios in zip(PAPER_SETTINGS, above, below):
        losses(paths, arrays, f"{name} path", title=TITLES[name], ylabel="$R_{med}$")
        paths.set_xscale("symlog", linthresh=50)  # logarithmic, except near 0
        paths.set_xlim(0, max(50, 1.1 * arrays["iteration"][-1]))
        paths.set_xticks([t for t in (0, 100, 1000, 10_000) if t <= paths.get_xlim()[1]])
        paths.set_xticks([], minor=True)
        for place, (_, t, kind) in zip(places, columns):
            if kind == "paper":
                mean, std = PAPER_C3[name].get(int(t), (np.nan, np.nan))
                ratios.errorbar(place, mean, [[min(std, 0.9 * mean)], [std]], fmt="k*", ms=12,
                                capsize=4)
                ratios.text(place, 0.98, f"iteration {t}", transform=ratios.get_xaxis_transform(),
                            va="top", fontsize="small")
            else:
                dots(ratios, [], [arrays[f"{name}, iteration {t} {kind}"]], places=[place])
        ratios.set_xticks(places, [words[kind] for _, _, kind in columns], fontsize="x-small",
                          rotation=60)
        ratios.set(yscale="log", ylabel="$R_{med}$, SGD / Adam")
        reference(ratios, 1)
    return ("Above: typical of up to 3 evaluation batches of 1,000 prompts; line: median over "
            "seeds, band: smallest to largest. Below: the ratio SGD / Adam, a dot for each seed, "
            "bar: geometric mean; star: the mean that the paper prints, with its standard "
            "deviation (cut at a tenth of the mean). 1 batch: on one evaluation batch of 1,000 "
            "prompts; typical: the median over 20 of them; 100 together: for the Hessian on 100 of "
            "them. Dotted: 1, no difference.")


def directional_smoothness(run=Run(seeds=5, steps=800)):
    """C4: Directional smoothness is smaller along Adam's path.

    Figure 4. v^T H v for the direction v of each step, H at the point before it, at the published
    rates. Claimed, of the median over the path without its first tenth: SGD's minus Adam's above 0.
    Published: on one evaluation batch of 1,000 prompts. Robust: on the typical one (the median over
    20 batches at each point), 18 seeds, 2,500 steps. Limits: on all 20 together (the mean); and,
    post hoc, because the difference was seen to turn round on the published batch, the typical
    batch in windows of the first 2,500 steps and from there to 10,000 (six seeds whose late path
    nobody had looked at).
    """
    points = path_points((run.steps - 1) // 50, 50)
    arrays, parts = {"iteration": 50 * points, "optimizers": run.names}, []
    for name, runs in run.train(PAPER_SETTINGS).items():
        found = run.along(training.smoothness, PAPER_SETTINGS[name], runs, points)
        path = {each: first_batch(values) for each, values in found.items()}  # (seeds, points)
        parts += smoother(f"{name}, first batch", path, above=0)
        arrays[f"{name} first batch"] = np.array(list(path.values()))
    if thorough(run):
        late = fresh(run, seeds=18, steps=2500)
        points = path_points((late.steps - 1) // 50, 25)
        arrays["point"] = 50 * points
        for name, runs in late.train(PAPER_SETTINGS).items():
            found = late.along(training.smoothness, PAPER_SETTINGS[name], runs, points, 20)
            typical = {each: typical_batch(values) for each, values in found.items()}
            together = {each: values.mean(axis=-1) for each, values in found.items()}
            parts += smoother(f"{name}, typical batch, 2,500 steps", typical, above=0,
                              level="robust")
            parts += smoother(f"{name}, limit: 20,000 prompts together", together)
            for first, last in ((250, 1000), (1000, 1750), (1750, 2500)):
                window = (first <= 50 * points) & (50 * points < last)
                parts += smoother(f"{name}, limit: typical batch, steps {first:,} to {last:,}", {
                    each: values[:, window] for each, values in typical.items()}, start=0)
            parts.append(Part(f"{name}, negative", ", ".join(
                f"{each} {100 * (values < 0).mean():.0f} %" for each, values in found.items())))
            arrays |= {f"{name} typical batch": np.array(list(typical.values())),
                       f"{name} together": np.array(list(together.values()))}
        more_arrays, more_parts = late_smoothness(fresh(run))
        arrays |= more_arrays
        parts += more_parts
    return arrays, parts


def late_smoothness(run):
    """C4, limit: the typical batch from step 2,500 to the end."""
    points = np.arange(50, (run.steps - 1) // 50 + 1, 6)
    arrays, parts = {"late point": 50 * points}, []
    for name, runs in (run.train(PAPER_SETTINGS) if len(points) else {}).items():
        found = run.along(training.smoothness, PAPER_SETTINGS[name], runs, points, 20)
        typical = {each: typical_batch(values) for each, values in found.items()}
        parts += smoother(f"{name}, limit: typical batch, steps 2,500 to {run.steps:,}", typical,
                          start=0)
        arrays[f"{name} late"] = np.array(list(typical.values()))
    return arrays, parts


def smoother(label, path, start=0.1, **bound):
    """Parts from v^T H v (seeds, points) of each optimizer: SGD's median minus Adam's, without this
    share of the points at the start."""
    height = {each: without_start(values, start) for each, values in path.items()}  # (seeds,)
    first, second, *_ = height.values()
    words = ", ".join(f"{each} {np.median(values):.3g}" for each, values in height.items())
    return [Part(f"{label}: difference of v^T H v", first - second, log=False, **bound),
            Part(f"{label}: medians of v^T H v", words)]


def draw_directional_smoothness(figure, arrays):
    """A row a kind of evaluation batch: "SETTING KIND" (optimizers, seeds, points)."""
    kinds = {"first batch": ("iteration", "first batch", "one batch")}
    if "point" in arrays:
        kinds = {"typical batch": ("point", "typical batch, 2,500 steps", "typical batch"),
                 "together": ("point", "limit: 20,000 prompts together", "mean over batches"),
                 **kinds}
    rows = figure.subplots(len(kinds), 3, squeeze=False, sharey="row")
    for (kind, (x, of_part, words)), row in zip(kinds.items(), rows):
        for name, ax in zip(PAPER_SETTINGS, row):
            curves(ax, arrays[x], arrays[f"{name} {kind}"], arrays["optimizers"],
                   title=TITLES[name], xlabel="iteration", ylabel=f"$v^T H v$\n{words}")
            plotting.note(ax, f"{{{name}, {of_part}: medians of v^T H v}}")
        smoothness_axis(*row)
    return ("$v^T H v$, v the direction of the step, on evaluation batches of 1,000 prompts: of a "
            "long run the median and the mean over 20 of them, in its beginning; and on the first "
            "one. Line: median over seeds, band: smallest to largest; in the corner the medians "
            "over seeds and path. Logarithmic scale, linear around 0.")


def generalized_smoothness(run=Run(seeds=5, steps=600)):
    """C5: Smoothness grows with the gradient norm.

    Figure 5, (L0, L1)-smoothness. Along the first 2,000 steps of Adam, at the published rates,
    against the norm of the gradient at the same point and on the same batch: v^T H v, and, at every
    second point, the spectral norm of H. Claimed: the slope of log against log above 0. Published:
    over the whole path, on one evaluation batch of 1,000 prompts. Robust: 18 fresh seeds, and,
    because norm and smoothness both change with time, the mean of the slopes within four windows of
    500 steps (directional: median over four batches; where v^T H v > 0). Besides: L0 and L1 of the
    line v^T H v = L0 + L1 |g| through the points.
    """
    run = run.spend(optimizers=run.optimizers[-1:])
    (adam,) = run.names
    points = np.arange((min(run.steps, 2000) - 1) // 50 + 1)
    levels = [("published", run, 1, 1)]
    if thorough(run):
        levels.append(("robust", fresh(run, seeds=18, steps=2500), 4, 4))
    arrays, parts = {"spent": (run.seeds, run.steps), "iteration": 50 * points}, []
    for name, setting in PAPER_SETTINGS.items():
        for level, which, batches, windows in levels:
            (runs,) = which.train({name: setting}).values()
            norm = which.along(training.gradient_norm, setting, runs, points, batches)[adam]
            curvature = which.along(training.smoothness, setting, runs, points, batches)[adam]
            spectral = which.along(training.spectral_norm, setting, runs, points[::2])[adam]
            spectral = spectral[..., 0]
            # norm, curvature: (seeds, points, batches); spectral: (seeds, every second point)
            slopes = [np.median([mean_slope(norm[seed, :, k], curvature[seed, :, k], windows)
                                 for k in range(batches)]) for seed in range(which.seeds)]
            spectral_slopes = [mean_slope(norm[seed, ::2, 0], spectral[seed], windows)
                               for seed in range(which.seeds)]
            where = f"{name}, whole path" if windows == 1 else f"{name}, within windows"
            parts += [Part(f"{where}: slope of the directional smoothness", slopes, above=0,
                           log=False, level=level),
                      Part(f"{where}: slope of the spectral norm", spectral_slopes, above=0,
                           log=False, level=level)]
            if level == "published":
                L1, L0 = line(norm.ravel(), curvature.ravel())
                parts.append(Part(f"{name}: line", f"L0 = {L0:.3g}, L1 = {L1:.3g}; "
                                  f"{100 * (curvature <= 0).mean():.0f} % of v^T H v negative"))
                arrays |= {f"{name} norm": norm[..., 0], f"{name} curvature": curvature[..., 0],
                           f"{name} spectral": spectral}
    return arrays, parts


def mean_slope(x, y, windows):
    """Mean over windows of the path of the slope of log y against log x (points,)."""
    pairs = zip(np.array_split(x, windows), np.array_split(y, windows))
    return np.mean([log_slope(*pair) for pair in pairs])


def mean_trend(x, y):
    """Corners (2,), (2,) of the line with the mean over seeds of the slope of log y against log x
    (seeds, points), through the middle of what is positive."""
    slope = np.mean([log_slope(*seed) for seed in zip(x, y)])
    both = (x > 0) & (y > 0)
    if not both.any():
        return np.full((2, 2), np.nan)
    ends = np.array([x[both].min(), x[both].max()])
    middle = [np.exp(np.log(each[both]).mean()) for each in (x, y)]
    return ends, middle[1] * (ends / middle[0]) ** slope


def draw_generalized_smoothness(figure, arrays):
    """"SETTING curvature" (seeds, points), below "SETTING spectral" (seeds, every second point),
    against "SETTING norm" (seeds, points)."""
    iteration = arrays["iteration"]
    rows = figure.subplots(2, 3, sharex="col", sharey="row")
    for name, above, below in zip(PAPER_SETTINGS, *rows):
        norm = arrays[f"{name} norm"]
        points = {"directional smoothness": (norm, arrays[f"{name} curvature"]),
                  "spectral norm": (norm[:, ::2], arrays[f"{name} spectral"])}
        plotting.on_path(above, *points["directional smoothness"], iteration)
        dots_on_path = plotting.on_path(below, *points["spectral norm"], iteration[::2])
        for ax, what, label in ((above, "directional smoothness", "$v^T H v$"),
                                (below, "spectral norm", "spectral norm of H")):
            ax.plot(*mean_trend(*points[what]), color="#000000", lw=1.5)
            ax.set(title=TITLES[name], xlabel="gradient norm", ylabel=label)
            plotting.note(ax, f"slope {{{name}, whole path: slope of the {what}}}", at=(0.03, 0.96))
    figure.colorbar(dots_on_path, ax=figure.axes, label="iteration")
    return ("Adam, first evaluation batch of 1,000 prompts, a point for each seed and every 50 "
            "steps (below: every 100) where $v^T H v$ is positive. Slope: of log against log over "
            "the whole path, mean over seeds; the line has this slope.")


def softmax_vs_linear(run=Run(seeds=5, steps=150)):
    """C6: Linear attention learns this task much faster than softmax attention.

    Three layers of linear, ReLU and softmax attention from the same weights on the same batches of
    Setting 1, with the run's last optimizer; at most 2,000 steps. Claimed, of both kinds of
    softmax: the final loss (median over the last tenth of the steps) and the steps until the median
    of the last 50 losses is below d/2, half of the loss of predicting 0, over those of linear
    attention, above 1.
    Published: at one rate for each kind (the paper prints none; these are ours). Robust: each kind
    at the best of six rates, chosen on three pilot seeds. A run that does not get there counts as
    infinitely many steps.
    """
    run = run.spend(steps=min(run.steps, 2000), optimizers=run.optimizers[-1:])
    kinds = {"linear": SETTING_1} | {setting.name: setting for setting in NONLINEAR}
    (adam,) = run.names
    arrays = {"spent": (run.seeds, run.steps), "iteration": block_centres(run.steps)}
    trained = {kind: runs[adam] for kind, runs in run.train(kinds).items()}
    parts = kinds_compared("", trained, run)
    arrays |= {"loss": running_median(runs["loss"] for runs in trained.values()), "kinds": [
        f"{kind} ({run.rate(setting, adam):g})" for kind, setting in kinds.items()]}
    if thorough(run):
        tried, tuned_runs = tuned(run, kinds, lambda setting, name: KIND_RATES)
        trained = {kind: runs[adam] for kind, runs in tuned_runs.items()}
        parts += kinds_compared(", best rates", trained, run, level="robust")
        parts += [Part(f"{kind}: best rate", rates_used(each)) for kind, each in tried.items()]
        arrays |= {"best loss": running_median(runs["loss"] for runs in trained.values()),
                   "best kinds": [f"{kind} ({each[adam].rates[each[adam].best]:g})"
                                  for kind, each in tried.items()]}
    return arrays, parts


KIND_RATES = 0.002, 0.005, 0.01, 0.02, 0.05, 0.1


def kinds_compared(where, trained, run, **at_level):
    """Parts from what was trained with each kind of attention."""
    loss = {kind: runs["loss"] for kind, runs in trained.items()}  # (seeds, steps) each
    end = {kind: final_loss(values) for kind, values in loss.items()}
    half = {kind: steps_to(last_fifty(values), SETTING_1.data["d"] / 2)
            for kind, values in loss.items()}
    parts = []
    for kind in ("relu", "softmax", "softmax/n"):
        bound = {} if kind == "relu" else dict(at_level, above=1)
        parts += [Part(f"{kind} / linear{where}: final loss", over(end[kind], end["linear"]),
                       **bound),
                  Part(f"{kind} / linear{where}: steps to half the loss",
                       over(half[kind], half["linear"]), **bound)]
    for kind in loss:
        parts += [Part(f"{kind}{where}: final loss", end[kind]),
                  Part(f"{kind}{where}: steps to half the loss", counted(half[kind], run))]
    return parts


def draw_softmax_vs_linear(figure, arrays):
    """"loss" and, of a thorough run, "best loss" (kinds, seeds, blocks)."""
    panels = {"loss": ("kinds", "one rate for each, ours", "")}
    if "best loss" in arrays:
        panels["best loss"] = "best kinds", "each at its best of six rates", ", best rates"
    row = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for (name, (kinds, title, where)), ax in zip(panels.items(), row):
        curves(ax, arrays["iteration"], arrays[name], arrays[kinds], yscale="log", title=title,
               xlabel="iteration", ylabel="training loss")
        d = SETTING_1.data["d"]
        reference(ax, d)
        plotting.at_end(ax, arrays["iteration"][-1], d, "predicting 0", "#000000")
        plotting.note(ax, f"final loss, softmax / linear: {{softmax / linear{where}: final loss}}\n"
                      "steps of linear to half the loss of\npredicting 0: "
                      f"{{linear{where}: steps to half the loss}}", at=(0.97, 0.6))
    return ("Three layers, Setting 1. Running medians over blocks of a fiftieth of the steps; "
            "line: median over seeds, band: smallest to largest; in brackets the learning rate. "
            "The batches are the same for every kind. softmax: weights over the n context keys sum "
            "to 1; softmax/n: the authors' code, over all n + 1 keys, without the query's own, "
            "divided by n.")


def larger_model(run=Run(seeds=5, steps=45)):
    """C7: The picture is the same for L = 8, d = 20, n = 60.

    Loss and gradient norm as in C1, gradient noise as in C2, on 6,400 parameters; at most 2,500
    steps, rates ours, seeds from 1000. Published: Adam's final loss lower than SGD's; the noise
    norm has a right tail (skewness above 0; two fifths as many draws as steps). Robust: skewness,
    and 99 % quantile over median, above those of Gaussian vectors, by a sign test over ten seeds.
    With fewer draws than parameters the covariance of the draws concentrates on fewer directions
    than the noise has: the Gaussian norm varies more, and the comparison is conservative.
    """
    run = run.spend(steps=min(run.steps, 2500))
    draws, late = max(5, 2 * run.steps // 5), fresh(run)
    (runs,) = late.train({LARGE.name: LARGE}, every=500).values()
    noise_arrays, noise_parts = noise_tails(run, LARGE.name, LARGE, draws, seeds=10,
                                            statistics=("skewness", "spread"))
    loss = {each: runs[each]["loss"] for each in run.names}
    return {"spent": (run.seeds, run.steps), "iteration": block_centres(run.steps),
            "optimizers": run.names, "loss": running_median(loss.values()),
            "norm": running_median(runs[each]["grad_norm"] for each in run.names),
            "share": tail_shares(draws)} | noise_arrays, final_losses(
                LARGE.name, loss, above=1) + noise_parts


def draw_larger_model(figure, arrays):
    """"loss" and "norm" (optimizers, seeds, blocks), and the tail of the noise."""
    first, second, third = figure.subplots(1, 3, width_ratios=(1, 1, 1.3))
    pair = " / ".join(arrays["optimizers"][:2])
    losses(first, arrays, "loss", title=LARGE.name, ylabel="training loss")
    losses(second, arrays, "norm", title="gradient norm", ylabel="gradient norm")
    tails(third, arrays, LARGE.name, title="gradient noise")
    plotting.note(first, f"{pair} {{{LARGE.name}: final loss {pair}}}")
    plotting.note(third, "99 % / 50 % quantile:\n"
                  f"{{{LARGE.name}: 99 % quantile over median of the noise norm, medians over "
                  "seeds}\n"
                  f"skewness:\n{{{LARGE.name}: skewness of the noise norm, medians over seeds}}",
                  f"skewness {{{LARGE.name}: skewness of the noise norm}}")
    return (f"{LARGE.name}. Running medians over blocks of a fiftieth of the steps; line: median "
            "over seeds, band: smallest to largest; norm before clipping. Noise: share of the "
            "draws whose norm exceeds r times the median of their seed, at initialisation; a line "
            "for each seed; dashed: Gaussian vectors of the same mean and covariance.")


def study(run, settings, ahead=()):
    """What C8 and C9 ask of each setting of a dict: training, noise, and the ratio of R_med at the
    same iteration (median over the path without its first tenth), on one evaluation batch and on
    the typical of five. Adam is claimed to end lower in those named `ahead`. Returns arrays, parts,
    and by setting what C8 and C9 go on with."""
    draws, points = max(5, run.steps // 5), path_points((run.steps - 1) // 50, 10)
    batches = 5 if thorough(run) else 1
    arrays = {"iteration": block_centres(run.steps), "optimizers": run.names,
              "point": 50 * points, "share": tail_shares(draws)}
    parts, found = [], {}
    for name, runs in run.train(settings).items():
        loss = {each: runs[each]["loss"] for each in run.names}
        norms, null = noise_norms(run, settings[name], draws, 12 if thorough(run) else run.seeds)
        path = run.along(training.condition, settings[name], runs, points, batches)
        ratio = first_over_second(path)  # (seeds, points, batches)
        found[name] = Studied(runs, spread(norms), without_start(first_batch(ratio)),
                              without_start(typical_batch(ratio)))
        parts += final_losses(name, loss, **(dict(above=1) if name in ahead else {}))
        parts += [Part(f"{name}: 99 % quantile over median of the noise norm", spread(norms)),
                  Part(f"{name}: ratio of R_med, typical batch", found[name].typical_ratio)]
        arrays |= {f"{name} loss": running_median(loss.values()), f"{name} R_med": np.array(
            [typical_batch(values) for values in path.values()])}
        arrays |= tail_curves(name, norms, null)
        rates = ", ".join(f"{each} {run.rate(settings[name], each):g}" for each in run.names)
        arrays[f"{name} protocol"] = f"{rates}, clip {settings[name].clip:g}"
    return arrays, parts, found


class Studied(NamedTuple):
    runs: dict  # by optimizer
    spread: np.ndarray  # of the noise norm, (seeds,)
    first_ratio: np.ndarray  # of R_med on the first batch, (seeds,)
    typical_ratio: np.ndarray  # on the typical batch, (seeds,)


def heavy_tails(run=Run(seeds=5, steps=300)):
    """C8: Heavier tails of x: heavier noise, slower training, larger R_med ratio, the same gain.

    Three tails at one scale, E|x|^2 = 1: x on the unit sphere, Gaussian, and the paper's Gamma(0.1,
    10), whose E|x|^2 is 1 as well; the middle column is ours. Seeds from 1000. Rates (published for
    the outer two) and clip limits (0.1, 0.1, 1) are those of each setting. Claimed, Gamma against
    the sphere: the noise norm's 99 % quantile over its median larger; ratio of R_med larger
    (published: on one evaluation batch; robust: on the typical of five); more steps, for both
    optimizers, until the median of the last 50 losses is below 1/2, half of the loss of predicting
    0; Adam's final loss lower than SGD's in both; and (robust) Adam's relative gain stays: SGD's
    steps to half the loss over Adam's change by a factor within 2/3 and 3/2.
    """
    run = fresh(run)
    settings = {setting.name: setting for setting in (SPHERICAL, LIGHT_TAILS, SETTING_3)}
    arrays, parts, found = study(run, settings, ahead=(SPHERICAL.name, SETTING_3.name))
    light, _, heavy = found.values()
    steps = {}  # {optimizer: heavy over spherical (seeds,)}
    for each in run.names:
        loss = {name: found[name].runs[each]["loss"] for name in settings}
        half = {name: steps_to(last_fifty(values), 0.5) for name, values in loss.items()}
        steps[each] = over(half[SETTING_3.name], half[SPHERICAL.name])
        parts += [Part(f"{name}: steps of {each} to half the loss", counted(values, run))
                  for name, values in half.items()]
    parts += [Part("Heavy / spherical: 99 % quantile over median of the noise norm",
                   heavy.spread / light.spread, above=1),
              Part("Heavy / spherical: ratio of R_med, first batch",
                   heavy.first_ratio / light.first_ratio, above=1)]
    parts += [Part(f"Heavy / spherical: {each}, steps to half the loss", values, above=1)
              for each, values in steps.items()]
    if thorough(run):
        parts += [Part("Heavy / spherical: ratio of R_med, typical batch",
                       heavy.typical_ratio / light.typical_ratio, above=1, level="robust"),
                  Part(f"Heavy / spherical: steps of {' / '.join(run.names[:2])}",
                       first_over_second(steps), above=2 / 3, below=3 / 2, level="robust")]
    return arrays, parts


def draw_heavy_tails(figure, arrays):
    """A column a setting: "SETTING loss" (optimizers, seeds, blocks), the tail of the noise, and
    "SETTING R_med" (optimizers, seeds, points)."""
    pair = " / ".join(arrays["optimizers"][:2])
    rows = figure.subplots(3, 3, sharey="row")
    for name, loss, noise, path in zip(
            (SPHERICAL.name, LIGHT_TAILS.name, SETTING_3.name), *rows):
        losses(loss, arrays, f"{name} loss",
               title=f"{TITLES.get(name, name)}\nrates: {arrays[f'{name} protocol']}",
               ylabel="training loss")
        texts, at = [f"{pair} {{{name}: final loss {pair}}}"], (0.97, 0.96)
        if name == SETTING_3.name:  # its lines are at the top
            steps = f"steps, heavy / spherical:\n{{Heavy / spherical: steps of {pair}}}"
            texts, at = [f"{texts[0]}\n{steps}", *texts], (0.97, 0.04)
        plotting.note(loss, *texts, at=at)
        noise.sharex(rows[1][0])
        tails(noise, arrays, name)
        plotting.note(noise, "99 % / 50 % quantile\n"
                      f"{{{name}: 99 % quantile over median of the noise norm}}")
        curves(path, arrays["point"], arrays[f"{name} R_med"], arrays["optimizers"], yscale="log",
               xlabel="iteration", ylabel="$R_{med}$")
        plotting.note(path, f"ratio {{{name}: ratio of R_med, typical batch}}", at=(0.97, 0.04))
        loss.title.set_fontsize(14)
    return ("All at E|x|$^2$ = 1. Above the panels: learning rates, and the limit of the "
            "gradient's norm. Loss: running medians; line: median over seeds, band: smallest to "
            "largest. Noise: share of the draws whose norm exceeds r times the median of their "
            "seed, at initialisation; dashed: Gaussian vectors of the same mean and covariance. "
            "$R_{med}$: typical of up to 5 evaluation batches of 1,000 prompts.")


def depth(run=Run(seeds=5, steps=150)):
    """C9: With depth the Adam-SGD gap, noise tails and R_med ratio grow, and the loss falls.

    L = 2, 4, 6, 8 layers in Setting 1; rates ours, seeds from 1000. Claimed: the final loss of SGD
    over Adam's is larger at L = 8 than at 2; the final loss of each is lower; the noise norm's 99 %
    quantile over its median is larger for L = 6 and 8 than for 2 and 4; the ratio of R_med is
    larger for L = 4, 6 and 8 than for 2 (geometric means). Published: R_med at the same iteration,
    on one evaluation batch. Robust: at equal loss (`at_equal_loss`), on the typical of five
    batches: where the loss of each optimizer first lies below d/10, which all depths reach; and, as
    L = 2 gets no further, the ratio itself above 1 at d/100 and d/1000 for the others. L = 2 has
    two plateaus: how many seeds end on the lower one is counted; a mean over both says nothing.
    """
    run = fresh(run)
    settings = {setting.name: setting for setting in DEEP}
    arrays, parts, found = study(run, settings)
    two, four, six, eight = found.values()
    final = {name: {each: final_loss(runs["loss"]) for each, runs in studied.runs.items()}
             for name, studied in found.items()}  # (seeds,) each
    gap = {name: first_over_second(ends) for name, ends in final.items()}
    parts += [
        Part(f"gap {' / '.join(run.names[:2])}, L = 8 over 2", gap["L = 8"] / gap["L = 2"],
             above=1),
        Part("99 % quantile over median of the noise norm, L = 6, 8 over 2, 4", np.sqrt(
            six.spread * eight.spread / (two.spread * four.spread)), above=1),
        Part("ratio of R_med at the same iteration, first batch, L = 4, 6, 8 over 2", np.cbrt(
            four.first_ratio * six.first_ratio * eight.first_ratio) / two.first_ratio, above=1)]
    parts += [Part(f"final loss {each}, L = 2 over 8", final["L = 2"][each] / final["L = 8"][each],
                   above=1) for each in run.names]
    parts = [part for part in parts if not part.name.startswith("L = 2: final loss")]
    parts.append(Part("L = 2: seeds that end on the lower of the two plateaus, 0.054", ", ".join(
        f"{each} {(final['L = 2'][each] < BETWEEN_PLATEAUS).sum()} of {run.seeds}"
        for each in run.names)))
    by_depth = {"spread": [each.spread for each in found.values()],
                "first ratio": [each.first_ratio for each in found.values()],
                "typical ratio": [each.typical_ratio for each in found.values()]}
    by_depth |= {f"final {each}": [ends[each] for ends in final.values()] for each in run.names}
    arrays |= {what: np.transpose(values) for what, values in by_depth.items()}  # (seeds, depths)
    if thorough(run):
        more_arrays, more_parts = at_equal_loss(run, settings)
        arrays, parts = arrays | more_arrays, parts + more_parts
    return arrays, parts


BETWEEN_PLATEAUS = 0.07  # L = 2 ends near 0.095 or near 0.054, the least loss in what_it_learns


def at_equal_loss(run, settings):
    """C9, robust: the ratio of R_med where the two optimizers have the same loss.

    At the first of the snapshots, 5 steps apart, at which the typical loss on the five evaluation
    batches is below the target; at most 1,000 steps, after which a run counts as not there. Post
    hoc: snapshots 50 steps apart, as of the long runs, had been too far apart (deep models reach
    d/10 in less), so seeds that were not used before are trained again, from 1100 on.
    """
    run = run.spend(first_seed=FRESH + 100, steps=min(run.steps, 1000))
    ratio, arrays, parts = {}, {}, []
    for name, runs in run.train(settings, every=5).items():
        loss = run.along(training.loss_at, settings[name], runs, slice(None), batches=5)
        for target in EQUAL:
            condition = {}
            for each in run.names[:2]:
                below = typical_batch(loss[each]) < target  # (seeds, points)
                there, first = below.any(axis=1), below.argmax(axis=1)  # (seeds,)
                values = run.all(training.evaluate, [
                    (training.condition, settings[name], path[point : point + 1], 5)
                    for path, point in zip(runs[each]["snapshots"], first)])
                condition[each] = np.where(there[:, None], [  # (seeds, batches)
                    result["values"][0] for result in values], np.nan)
                steps = np.where(there, 5.0 * first, np.inf)
                parts.append(Part(f"{name}, loss {target:g}: steps of {each}", counted(steps, run)))
            ratio[name, target] = typical_batch(first_over_second(condition))
            if np.isfinite(ratio[name, target]).any():
                parts.append(Part(f"{name}, loss {target:g}: ratio of R_med", ratio[name, target]))
    for target in EQUAL:
        arrays[f"ratio at {target:g}"] = np.transpose([ratio[name, target] for name in settings])
        deep = np.cbrt(ratio["L = 4", target] * ratio["L = 6", target] * ratio["L = 8", target])
        over_two = target == EQUAL[0]
        parts.append(Part(
            f"ratio of R_med at loss {target:g}, L = 4, 6, 8{' over 2' if over_two else ''}",
            deep / ratio["L = 2", target] if over_two else deep, above=1, level="robust"))
    return arrays, parts


EQUAL = 0.5, 0.05, 0.005  # losses: d/10, d/100, d/1000


def draw_depth(figure, arrays):
    """Against the depth, (seeds, depths): "final OPTIMIZER"; "spread" of the noise; "first ratio"
    and "typical ratio" of R_med at the same iteration; and, of a thorough run, "ratio at LOSS"."""
    pair, layers = " / ".join(arrays["optimizers"][:2]), [setting.layers for setting in DEEP]
    panels = {  # {title: (lines, label, the number)}
        "final loss": (
            {each: arrays[f"final {each}"] for each in arrays["optimizers"]}, "final loss",
            f"{pair} at L = 4, 6, 8:\n" + of_settings(
                f": final loss {pair}", [setting.name for setting in DEEP[1:]]) +
            f"\nL = 8 over 2: {{gap {pair}, L = 8 over 2}}"),
        "gradient noise at initialisation": (
            {"": arrays["spread"]}, "99 % / 50 % quantile",
            "L = 6, 8 over 2, 4: {99 % quantile over median of the noise norm, L = 6, 8 over 2, "
            "4}"),
        "at the same iteration": (
            {"first batch": arrays["first ratio"], "typical": arrays["typical ratio"]},
            f"ratio of $R_{{med}}$, {pair}",
            "first batch, L = 4, 6, 8 over 2: {ratio of R_med at the same iteration, first batch, "
            "L = 4, 6, 8 over 2}"),
        "at the same loss": (
            {f"loss {name.removeprefix('ratio at ')}": arrays[name]
             for name in arrays if name.startswith("ratio at ")}, f"ratio of $R_{{med}}$, {pair}",
            "L = 4, 6, 8 over 2, loss 0.5: {ratio of R_med at loss 0.5, L = 4, 6, 8 over 2}\n"
            "L = 4, 6, 8, loss 0.05 and 0.005: {ratio of R_med at loss 0.05, L = 4, 6, 8}, {ratio "
            "of R_med at loss 0.005, L = 4, 6, 8}")}
    for (title, (lines, label, number)), ax in zip(panels.items(), figure.subplots(2, 2).flat):
        if not lines:  # of a short run
            ax.remove()
            continue
        curves(ax, layers, list(lines.values()), list(lines), yscale="log", title=title,
               xlabel="layers L", ylabel=label, xticks=layers)
        ax.margins(y=0.35)
        plotting.note(ax, number, at=(0.97, 0.96) if title == "final loss" else (0.03, 0.96))
        if "ratio" in label:
            reference(ax, 1)
    return ("Setting 1. Noise: 99 % over 50 % quantile of its norm. Ratio of $R_{med}$: median "
            "over the path; and where the loss of each first lies below a number (L = 2 reaches "
            "0.5 alone). Line: median over seeds, band: smallest to largest.")


def learning_rates(run=Run(seeds=5, steps=150)):
    """Protocol: The learning rate of each optimizer is the best of a grid of ten.

    The published rates against our grid of seven at the full length, in Settings 1, 2 and 3. The
    best rate has the lowest mean over three pilot seeds of the log final loss (median over the last
    tenth of the steps), among the rates at which no run diverged. Robust (there is no published
    number): on other seeds, the final loss at the published rate over that at the best one;
    claimed: below 2. Besides: the width of the good range, within a factor 2 of the best loss; at
    what length of a run each rate would be the best, so that one sees where the published ones come
    from (at a constant rate the beginning of a long run is a short run); and, with --full, the
    grids behind the rates of the other settings, on a twentieth of the steps (a fortieth where they
    are costly), two seeds.
    """
    arrays, parts = {"optimizers": run.names}, []
    chosen = chosen_rates(run)
    confirmed = fresh(run).tune(PAPER_SETTINGS, lambda setting, each: sorted(
        set(chosen[setting.name].rates[each].values())))
    for name, (_, rates, tried) in chosen.items():
        parts += best_rates(run, name, PAPER_SETTINGS[name], tried)
        arrays |= rate_curves(run, name, tried)
        for each in run.names:
            lengths = [steps for steps in LENGTHS if steps <= run.steps]
            best = [best_at(tried[each], steps) for steps in lengths]
            parts.append(Part(f"{name}, {each}: best rate of a run of so many steps", ", ".join(
                f"{steps:,}: {rate:g}" for steps, rate in zip(lengths, best))))
            fits = [f"{steps:,}" for steps, rate in zip(lengths, best)
                    if rate == rates[each].get("published")]
            parts.append(Part(f"{name}, {each}: lengths at which the published rate is the best",
                              ", ".join(fits) or "none of these"))
            arrays |= {f"{name} {each} lengths": lengths, f"{name} {each} best": best}
            if "published" in rates[each]:
                used, least = (
                    final_loss(runs_at(confirmed[name][each], rates[each][which])["loss"])
                    for which in ("published", "final loss"))
                parts.append(Part(f"{name}, {each}: final loss at the published rate / at the best",
                                  over(used, least), below=2, level="robust"))
    if thorough(run):
        for settings, share in (((SPHERICAL, LIGHT_TAILS, *DEEP), 20), ((LARGE,), 40)):
            less = run.spend(seeds=2, steps=run.steps // share, lr=None)
            for setting in settings:
                (by_optimizer,) = less.tune({setting.name: setting}, rate_grid).values()
                parts += best_rates(less, setting.name, setting, by_optimizer)
    return arrays, parts


LENGTHS = 100, 200, 400, 1000, 2000, 5000, 10_000


def best_at(tried, steps):
    """The best rate of the runs' first steps."""
    scores = training.level(tried.loss[..., :steps])
    return tried.rates[scores.argmin()] if np.isfinite(scores).any() else np.nan


def best_rates(run, name, setting, tried):
    """What the losses of each optimizer at several rates say of the rate in use."""
    parts = []
    for each, (rates, _) in tried.items():
        loss, used = tried[each].loss, rate_in_use(run, setting, each)
        good = good_range(rates, training.level(loss))
        lost = f"{np.isnan(final_loss(loss)).sum()} of {loss[..., 0].size} runs diverged"
        parts.append(Part(f"{name}, {each}: best rate", (
            f"{best_rate(tried[each])}, in use {used:g}; within a factor 2 of the best: "
            f"{good.min():g} to {good.max():g}; {lost}") if len(good) else f"none, {lost}"))
    return parts


def best_rate(tried):
    """In words, with a warning where the best one is the first or the last of the grid."""
    if not np.isfinite(training.level(tried.loss)).any():
        return "none (diverged at every rate)"
    end = tried.best in (0, len(tried.rates) - 1)
    return f"{tried.rates[tried.best]:g}{' (an end of the grid)' if end else ''}"


def rates_used(tried):
    return ", ".join(f"{name} {best_rate(each)}" for name, each in tried.items())


def rate_in_use(run, setting, name):
    """NaN for an optimizer whose rate is only looked for."""
    return (setting.lr | (run.lr or {})).get(name, np.nan)


def good_range(rates, score):
    """The rates whose score, the mean log final loss, is within a factor 2 of the best one's; none
    if a run diverged at each."""
    return rates[(score < np.inf) & (score <= score.min() + np.log(2))]


def rate_curves(run, name, tried):
    """Arrays for the drawing: the final losses (rates, seeds) of each optimizer in a setting."""
    arrays = {}
    for each, (rates, _) in tried.items():
        arrays |= {f"{name} {each} rates": rates,
                   f"{name} {each} used": rate_in_use(run, PAPER_SETTINGS[name], each),
                   f"{name} {each} final": final_loss(tried[each].loss)}
    return arrays


def draw_learning_rates(figure, arrays):
    """Above "SETTING OPTIMIZER final" (rates, seeds) against the rates, over the lowest median of
    the setting; below "SETTING OPTIMIZER best", the best rate of a run of so many steps."""
    above, below = figure.subplots(2, 3, sharey="row")
    names = [str(each) for each in arrays["optimizers"]]
    for name, ax, lengths in zip(PAPER_SETTINGS, above, below):
        finals = {each: arrays[f"{name} {each} final"] for each in names}
        middle = np.concatenate([np.median(final, axis=1) for final in finals.values()])
        least = np.nanmin(middle) if np.isfinite(middle).any() else 1
        for i, (each, final) in enumerate(finals.items()):
            rates, used = arrays[f"{name} {each} rates"], arrays[f"{name} {each} used"]
            lost, color = np.isnan(final).any(axis=1), plotting.look(each, i)["color"]
            curves(ax, rates, [final.T / least], [each], path=False, first=i)  # (1, seeds, rates)
            ax.plot(rates[lost], np.full(lost.sum(), 0.96 - 0.05 * i), "X", color=color, ms=10,
                    transform=ax.get_xaxis_transform())
            best = training.level(final[..., None]).argmin()
            for which, marker, size in ((np.isclose(rates, used), "o", 13),
                                        (np.arange(len(rates)) == best, "*", 16)):
                which = which & ~lost
                ax.plot(rates[which], np.median(final[which], axis=-1) / least, marker, ms=size,
                        mfc="none" if marker == "o" else color, mew=2, color=color)
            steps, rate = (np.array(arrays[f"{name} {each} {what}"], float)
                           for what in ("lengths", "best"))
            if np.isfinite(rate).any():  # else every run diverged
                lengths.plot(steps, rate, **plotting.look(each, i), label=each)
            lengths.axhline(used, color=color, lw=1.5, ls=plotting.look(each, i)["ls"],
                            zorder=2 - i)
        ax.set(xscale="log", yscale="log", title=TITLES[name], xlabel="learning rate",
               ylabel="final loss / the lowest", ylim=(0.8, 300))
        lengths.set(xscale="log", yscale="log", xlabel="steps of the run", ylabel="best rate")
        plotting.note(ax, "published / best rate,\nnew seeds: " + ",\n".join(
            f"{each} {{{name}, {each}: final loss at the published rate / at the best}}"
            for each in names), at=(0.88, 0.97))
    for marker, size, words in (("o", 13, "published"), ("*", 16, "best"), ("X", 10, "diverged")):
        above[1].plot([], [], marker, ms=size, mew=2, color="#444444", label=words,
                      mfc="none" if marker == "o" else None)
    above[1].legend(loc="center left")
    return ("Above: median training loss over the last tenth of the steps, over the lowest median "
            "of the setting; line: median over seeds, band: smallest to largest. Star: the best "
            "rate; circle: the rate that the other experiments use, which is the published one; X, "
            "at the top: a run diverged. Below: the best rate of a run of so many steps; thin: the "
            "published rate.")


def full_batch(run=Run(seeds=5, steps=100, optimizers=(SGD, Adam, SignDescent))):
    """C10: Without gradient noise Adam still beats SGD, and so does sign descent.

    Quoted by the paper from Kunstner et al. 2023 (arXiv 2304.13960). Settings 1 and 3, on one and
    the same batch of 1,000 prompts at every step, a batch for each seed; at most 600 steps. Every
    optimizer at the best of seven rates, chosen on three pilot seeds, compared on others (where the
    best one is an end of the grid, the finding says so). Claimed, of the final loss on that batch:
    SGD's over Adam's, and over that of sign descent with momentum, above 1. Published: the paper
    prints no number; protocol and rates are ours. Besides: is it the noise? The same ratios on
    fresh batches of 16 to 4,000 prompts (rates by the training loss; compared are the losses after
    90 and 95 % of the steps on batches of 1,000, the median over twenty and both; short runs:
    batches of 256); Sreckovic et al. 2025 (arXiv 2506.12543) report that SGD comes near Adam when
    batches are small.
    """
    sizes = (16, 64, 256, 1000, 4000) if thorough(run) else (256,)
    run = run.spend(steps=min(run.steps, 600))
    every = max(1, run.steps // 20)
    arrays = {"spent": (run.seeds, run.steps), "iteration": block_centres(run.steps),
              "optimizers": run.names, "sizes": sizes}
    claimed, besides = [], []
    for name in ("Setting 1", "Setting 3"):
        settings = {f"{name}, fixed batch": PAPER_SETTINGS[name]._replace(fixed=True)} | {
            f"{name}, batches of {size:,}": PAPER_SETTINGS[name]._replace(batch=size)
            for size in sizes}
        tried, trained = tuned(run, settings, seven_rates, every=every)
        for case, runs in trained.items():
            fixed = settings[case].fixed
            if fixed:
                final = {each: final_loss(runs[each]["loss"]) for each in run.names}  # (seeds,)
                arrays[f"{case} loss"] = running_median(runs[each]["loss"] for each in run.names)
            else:
                final = evaluated_at_the_end(run, settings[case], runs)
            first, *others = run.names
            ratios = {each: over(final[first], final[each]) for each in others}
            (claimed if fixed else besides).extend(
                Part(f"{case}: final loss {first} / {each}", ratio,
                     **(dict(above=1) if fixed else {})) for each, ratio in ratios.items())
            besides.append(Part(f"{case}: best rates", rates_used(tried[case])))
            arrays[f"{case} ratios"] = np.array(list(ratios.values()))  # (others, seeds)
    return arrays, claimed + besides


def seven_rates(_, name):
    """Seven rates; SGD's moves are not scaled, so it wants higher ones."""
    return (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0) if name == "SGD" else OTHER_RATES


def draw_full_batch(figure, arrays):
    """Above "SETTING, fixed batch loss" (optimizers, seeds, blocks), below "SETTING, CASE ratios"
    (other optimizers, seeds), the fixed batch apart from the sizes."""
    first, *others = (str(each) for each in arrays["optimizers"])
    cases = [f"batches of {size:,}" for size in arrays["sizes"]] + ["fixed batch"]
    labels = [case.removeprefix("batches of ").removesuffix(" batch") for case in cases]
    places = [*range(len(cases) - 1), len(cases) - 0.3]
    rows, medians = figure.subplots(2, 2, sharey="row"), []
    for name, above, below in zip(("Setting 1", "Setting 3"), *rows):
        losses(above, arrays, f"{name}, fixed batch loss", title=TITLES[name],
               ylabel="loss, fixed batch")
        medians += [value for line in above.get_lines() for value in line.get_ydata()]
        plotting.note(above, "\n".join(
            f"{first} / {each} {{{name}, fixed batch: final loss {first} / {each}}}"
            for each in others), at=(0.97, 0.96 if name == "Setting 1" else 0.04))
        for i, each in enumerate(others):
            ratios = [arrays[f"{name}, {case} ratios"][i] for case in cases]
            dots(below, labels, ratios, shift=0.2 * i, colour=plotting.look(each, i + 1)["color"],
                 label=f"{first} / {each}", places=places)
        below.axvline(places[-1] - 0.75, color="#000000", lw=1)
        below.set(yscale="log", xlabel="prompts in a fresh batch; at the right, one batch",
                  ylabel="ratio of final losses", ylim=(0.03, 200))
        reference(below, 1)
    if medians:  # else every run diverged
        rows[0][0].set_ylim(min(medians) / 3, 3 * max(medians))  # which a spike of one seed leaves
    rows[1][0].legend(loc="upper left")
    return ("Every optimizer at the best of seven rates. Above: running median on one batch of "
            "1,000 prompts; line: median over seeds, band: smallest to largest. Below: a dot for "
            "each seed (some leave the panel), bar: geometric mean; fresh batches of so many "
            "prompts and, at the right, the fixed batch. Dotted: 1, no difference.")


def times(run, *factors):
    """A grid of rates: multiples of the rate in use."""
    return lambda setting, name: run.rate(setting, name) * np.array(factors)


def clipping(run=Run(seeds=5, steps=300)):
    """C11: Clipping lowers directional smoothness, coordinate by coordinate most of all.

    Quoted by the paper from Pan & Li 2023, who compare directions at the same point: v^T H v for a
    direction as it is, with its coordinates limited to the quantiles 0.9 and 0.5 of their absolute
    values, and for its sign. (Clipping of the norm does not change a direction.) Along SGD's and
    Adam's paths in Settings 1 to 3 at the published rates, the directions are the gradient on the
    evaluation batch and, on SGD's path, the step (its momentum). Claimed: v^T H v as it is minus
    each of the three, medians over the path without its first tenth, above 0. Published (rates
    ours): on one evaluation batch. Robust: on the typical of ten, twelve fresh seeds, 2,500 steps.
    Apart, without a bound: Adam's own step, and, as a limit, runs that are trained without
    clipping, with the norm or the coordinates clipped (`clipped_runs`).
    """
    levels = [("published", run, 1)]
    if thorough(run):
        levels.append(("robust", fresh(run, seeds=12, steps=2500), 10))
    arrays, parts, other = {"names": run.names[:2], "kinds": CLIPPED}, [], []
    for level, which, batches in levels:
        points = path_points((which.steps - 1) // 50, 10)
        arrays[f"{level} point"] = 50 * points
        for name, runs in which.train(PAPER_SETTINGS).items():
            found = which.along(training.clipped_smoothness, PAPER_SETTINGS[name], runs, points,
                                batches)  # (seeds, points, batches, directions, kinds) each
            for each in run.names[:2]:
                typical = np.median(found[each], axis=2)
                for i, direction in enumerate(("gradient", "step")):
                    path = {kind: typical[:, :, i, k] for k, kind in enumerate(CLIPPED)}
                    height = {kind: without_start(values) for kind, values in path.items()}
                    label = f"{name}, {each}'s path, {direction}, {level}"
                    own = direction == "step" and each != run.names[0]  # Adam's: no bound
                    (other if own else parts).extend(
                        Part(f"{label}: v^T H v as it is minus {kind}", height[CLIPPED[0]] - values,
                             log=False, **({} if own else dict(above=0, level=level)))
                        for kind, values in height.items() if kind != CLIPPED[0])
                    other.append(Part(f"{label}: v^T H v", ", ".join(
                        f"{np.median(values):.3g}" for values in height.values())))
                    arrays[label] = np.array(list(path.values()))  # (kinds, seeds, points)
    if thorough(run):
        more_arrays, more_parts = clipped_runs(run.spend(steps=min(run.steps, 2000)))
        arrays, other = arrays | more_arrays, other + more_parts
    return arrays, parts + other


def clipped_runs(run):
    """C11, limit: SGD and Adam in Settings 1 and 3 trained without clipping, with the global norm
    limited to 1, and with every coordinate limited to 1 / sqrt(150), so that the norm has the same
    bound; typical v^T H v of their steps. The runs get to different places, so this says little of
    clipping itself. SGD at 0.005; at its full rate it diverges without clipping."""
    kinds, arrays, parts = ("none", "global", "coordinates"), {}, []
    points = path_points((run.steps - 1) // 50, 20)
    for name in ("Setting 1", "Setting 3"):
        slower = PAPER_SETTINGS[name]._replace(lr=PAPER_SETTINGS[name].lr | dict(SGD=0.005))
        trained = run.train({kind: slower._replace(clipping=kind) for kind in kinds})
        for kind, runs in trained.items():
            found = run.along(training.smoothness, slower, runs, points, batches=4)
            for each in run.names[:2]:
                height = without_start(np.median(found[each], axis=-1))  # (seeds,)
                label = f"{name}, limit: {each} trained with clipping {kind}"
                parts += [Part(f"{label}: v^T H v", height, log=False),
                          Part(f"{label}: final loss", final_loss(runs[each]["loss"]))]
                arrays[f"{name}, {each}, {kind}"] = height
    return arrays, parts


def draw_clipping(figure, arrays):
    """Of "SETTING, OPTIMIZER's path, DIRECTION, LEVEL" (kinds, seeds, points) the medians over the
    path, at the last level that was measured; a row a path."""
    level = "robust" if "robust point" in arrays else "published"
    kinds = [str(each).removeprefix("clipped at ") for each in arrays["kinds"]]
    for each, row in zip(arrays["names"], figure.subplots(2, 3, sharey=True)):
        for name, ax in zip(PAPER_SETTINGS, row):
            heights = [without_start(arrays[f"{name}, {each}'s path, {direction}, {level}"]).T
                       for direction in ("gradient", "step")]  # (seeds, kinds) each
            curves(ax, range(len(kinds)), heights, ("gradient", "step"), yscale="log",
                   title=TITLES[name], ylabel=f"$v^T H v$, {each}'s path",
                   xlabel="coordinates clipped at the quantile")
            ax.set_xticks(range(len(kinds)), kinds)
    return ("$v^T H v$ at the same point, for the gradient and for the optimizer's step, as it is, "
            "with its coordinates limited to the quantiles 0.9 and 0.5 of their absolute values, "
            "and for its sign. Medians over the path without its first tenth; line: median over "
            "seeds, band: smallest to largest; typical of the evaluation batches of 1,000 prompts.")


def nonlinear_regression(run=Run(seeds=5, steps=60)):
    """C12: The picture is the same for nonlinear regression with an MLP before the attention.

    As in the authors' code: y = <w, f(x)> with a fixed random ReLU network f of width 10; a
    trainable ReLU MLP of width 30 before three layers of linear attention with full matrices;
    batches of 2,000 (noise: against 200,000), SGD at 0.05 and Adam at 0.01, five seeds from 1000.

    Claimed: Adam's final loss lower; the noise norm has a right tail; R_med and v^T H v larger
    along SGD's path (medians over the path without its first tenth). Published: R_med and v^T H v
    on one evaluation batch of 1,000 prompts; skewness of the noise norm above 0. Robust: on the
    typical of three; 99 % quantile over median of the noise norm above that of such Gaussian
    vectors, by a sign test over ten seeds.
    """
    run = fresh(run, seeds=min(run.seeds, 5))
    full = thorough(run)
    points = path_points((run.steps - 1) // 50, 10)
    (runs,) = run.train({"MLP": NONLINEAR_TASK}).values()
    loss = {each: runs[each]["loss"] for each in run.names}
    arrays = {"spent": (run.seeds, run.steps), "iteration": block_centres(run.steps),
              "optimizers": run.names, "loss": running_median(loss.values()),
              "point": 50 * points, "share": tail_shares(max(5, run.steps))}
    noise_arrays, parts = noise_tails(run, "MLP", NONLINEAR_TASK, max(5, run.steps), seeds=10)
    parts = final_losses("MLP", loss, above=1) + parts
    condition, curvature = (run.along(measure, NONLINEAR_TASK, runs, points, 3 if full else 1)
                            for measure in (training.condition, training.smoothness))
    levels = [("published", "first batch", first_batch)]
    if full:
        levels.append(("robust", "typical batch", typical_batch))
    for level, words, of in levels:
        ratio = without_start(of(first_over_second(condition)))  # of (seeds, points, batches)
        parts.append(Part(f"MLP: ratio of R_med, {words}", ratio, above=1, level=level))
        parts += smoother(f"MLP, {words}", {each: of(values) for each, values in curvature.items()},
                          above=0, level=level)
    return arrays | noise_arrays | {
        "R_med": np.array([typical_batch(values) for values in condition.values()]),
        "smoothness": np.array([typical_batch(values) for values in curvature.values()])}, parts


def draw_nonlinear_regression(figure, arrays):
    """"loss" (optimizers, seeds, blocks), the tail of the noise, and "R_med" and "smoothness"
    (optimizers, seeds, points)."""
    (first, second), (third, fourth) = figure.subplots(2, 2)
    pair = " / ".join(arrays["optimizers"][:2])
    losses(first, arrays, "loss", title="training loss", ylabel="training loss")
    plotting.note(first, f"{pair} {{MLP: final loss {pair}}}")
    tails(second, arrays, "MLP", title="gradient noise")
    tail_note(second, "MLP")
    curves(third, arrays["point"], arrays["R_med"], arrays["optimizers"], yscale="log",
           title="robust condition number", xlabel="iteration", ylabel="$R_{med}$")
    curves(fourth, arrays["point"], arrays["smoothness"], arrays["optimizers"],
           title="directional smoothness", xlabel="iteration", ylabel="$v^T H v$")
    smoothness_axis(fourth)
    plotting.note(third, "ratio {MLP: ratio of R_med, typical batch}",
                  "ratio {MLP: ratio of R_med, first batch}", at=(0.97, 0.04))
    plotting.note(fourth, "{MLP, typical batch: medians of v^T H v}",
                  "{MLP, first batch: medians of v^T H v}")
    return ("Loss: running median; line: median over seeds, band: smallest to largest. Noise: "
            "share of the draws whose norm exceeds r times the median of their seed, at "
            "initialisation; dashed: Gaussian vectors of the same mean and covariance. $R_{med}$ "
            "and $v^T H v$: typical of up to three evaluation batches of 1,000 prompts.")


# ---- Questions beyond the paper ------------------------------------------------------------------


def the_model(run=Run(seeds=5, steps=1000)):
    """Question: What does the model see, and how heavy are the tails of x?

    Nothing is trained. A prompt of Setting 1 as the matrix Z, and what a layer does with it; and
    the tails of |x|^2 at the same mean for x on the sphere, Gaussian x and Setting 3's, over a
    hundred times as many draws as the run has steps (at most 1,000), for each seed. Measured: the
    99.9 % quantile of |x|^2 over its mean.
    """
    run = run.spend(steps=min(run.steps, 1000))
    tails_of = {"sphere": SPHERICAL, "Gaussian": SETTING_1, "Setting 3": SETTING_3}
    arrays = {"spent": (run.seeds, run.steps), "share": tail_shares(100 * run.steps),
              "families": list(tails_of)}
    parts = []
    for name, setting in tails_of.items():
        data = setting.data | dict(n=100, second_moment=1.0)
        x = [sample_prompts(training.generator([2310, seed]), run.steps, **data).Z[:, :-1, :-1]
             for seed in run.numbers]  # (steps, d, n) each
        squares = np.square(x).sum(axis=2).reshape(run.seeds, -1)  # (seeds, draws)
        parts.append(Part(f"{name}: 99.9 % quantile of |x|^2 over its mean",
                          np.quantile(squares, 0.999, axis=1)))
        arrays[f"{name} tail"] = np.median(tail(squares, squares.mean(axis=1)), axis=0)
    prompt = sample_prompts(training.generator(2310), 1, **SETTING_1.data).Z[0]  # (d+1, n+1)
    return arrays | {"prompt": prompt}, parts


def draw_the_model(figure, arrays):
    """"prompt" (d+1, n+1), the layer in boxes, and "FAMILY tail" (shares,)."""
    matrix, layer, heavy = figure.subplots(1, 3, width_ratios=(1.2, 1, 1))
    prompt = arrays["prompt"]
    largest = np.abs(prompt).max()
    matrix.imshow(prompt, cmap="PuOr", vmin=-largest, vmax=largest, aspect="auto")
    matrix.text(prompt.shape[1] - 1, prompt.shape[0] - 1, "?", ha="center", va="center")
    matrix.set_yticks(range(len(prompt)), [*(f"$x_{i}$" for i in range(1, len(prompt))), "y"])
    matrix.set_xticks((0, prompt.shape[1] - 1), ("pair 1", "query"))
    matrix.set(title="a prompt Z")
    matrix.grid(False)
    layer.axis("off")
    layer.set(title="a layer", xlim=(0, 1), ylim=(0, 1))
    boxes = {"Z": (0.5, 0.95), "scores\n$Z^T Q Z$": (0.25, 0.68),
             "values $P Z M$\nM: no query": (0.75, 0.68),
             "values times scores, over n": (0.55, 0.4),
             "Z + $\\frac{1}{n}$ P Z M ($Z^T$ Q Z)": (0.5, 0.12)}
    for text, place in boxes.items():
        layer.text(*place, text, ha="center", va="center",
                   bbox=dict(boxstyle="round", facecolor="#EEEEEE", edgecolor="#444444"))
    for start, end in (((0.45, 0.91), (0.25, 0.76)), ((0.55, 0.91), (0.75, 0.76)),
                       ((0.25, 0.6), (0.4, 0.45)), ((0.75, 0.6), (0.6, 0.45)),
                       ((0.5, 0.35), (0.5, 0.19))):
        layer.annotate("", end, start, arrowprops=dict(arrowstyle="->", lw=1.5))
    for i, name in enumerate(arrays["families"]):
        heavy.plot(arrays[f"{name} tail"], arrays["share"], label=str(name),
                   **dict(plotting.look(name, i), marker=""))
    heavy.set(xscale="log", yscale="log", title="tails of x", xlim=(0.05, 200),
              xlabel="$|x|^2$ / its mean, r", ylabel="share above r")
    reference(heavy, 0.001)
    heavy.legend()
    return ("Left: a prompt of Setting 1, a pair (x, y) a column; the query's y is 0 in Z, and the "
            "model is asked for it. Middle: one layer of linear attention; M leaves the query's "
            "column out; minus the lower right entry of the last Z is the prediction. Right: how "
            "much |x|$^2$ varies, at the same mean.")


def condition_causes(run=Run(seeds=2, steps=300)):
    """Question: What moves the ratio of R_med: the evaluation batch, the rates, the matrices?

    C3's ratio of SGD's R_med over Adam's at iteration 750, on fresh seeds. The evaluation batch:
    the ratio on every single one of 100 batches of 1,000 prompts, for the Hessian on ten of them
    together, and on all (six seeds of C3's robust level; short runs: on ten batches). Rates and
    matrices: the typical of five batches with half and twice the rates, and with all of P and Q
    trained.
    """
    few, arrays, parts = fresh(run, steps=min(run.steps, 800)), {}, []
    sizes = (1, 10, 100) if thorough(run) else (1, 10)
    at = [(few.steps - 1) // 50]

    def settings(factor=1, full=False):
        """With all rates times a factor, or all of P and Q trained."""
        return {name: setting._replace(full=full, lr={
            each: factor * run.rate(setting, each) for each in run.names})
            for name, setting in PAPER_SETTINGS.items()}

    many = few.spend(steps=2500) if thorough(run) else few  # the runs of C3
    for name, runs in many.train(PAPER_SETTINGS).items():
        found = many.along(training.diagonal, PAPER_SETTINGS[name], runs, at, batches=sizes[-1])
        for size in sizes:
            ratio = first_over_second({each: r_med(grouped(values[:, 0], size))
                                       for each, values in found.items()})  # (seeds, groups)
            low, high = np.quantile(ratio, (0.05, 0.95))
            parts.append(Part(f"{name}, {size},000 prompts: median and 90 % of the batches",
                              f"{np.median(ratio):.3g}, {low:.3g} to {high:.3g}"))
            arrays[f"{name} on {size},000"] = ratio.ravel()
    causes = {"as published": settings(), "half the rates": settings(0.5),
              "twice the rates": settings(2), "full matrices": settings(full=True)}
    for cause, changed in causes.items():
        for name, runs in few.spend(lr=None).train(changed).items():
            found = few.along(training.condition, changed[name], runs, at, batches=5)
            ratio = typical_batch(first_over_second(found)[:, 0])  # (seeds,)
            parts.append(Part(f"{name}, {cause}", ratio))
            arrays[f"{name} with {cause}"] = ratio
    return arrays | {"spent": (few.seeds, few.steps), "sizes": [f"{size},000" for size in sizes],
                     "causes": list(causes)}, parts


def grouped(diagonals, size):
    """Diagonals of the Hessian (seeds, groups, entries) on evaluation batches `size` times as
    large: means over groups of the (seeds, batches, entries)."""
    groups = diagonals.shape[1] // size
    return np.stack([diagonals[:, size * i : size * (i + 1)].mean(axis=1) for i in range(groups)],
                    axis=1)


def draw_condition_causes(figure, arrays):
    """Above "SETTING on SIZE" (seeds times groups,), below "SETTING with CAUSE" (seeds,)."""
    above, below = figure.subplots(2, 3, sharey="row")
    for name, single, changed in zip(PAPER_SETTINGS, above, below):
        dots(single, arrays["sizes"], [arrays[f"{name} on {size}"] for size in arrays["sizes"]],
             yscale="log", title=TITLES[name], xlabel="prompts in the evaluation batch",
             ylabel="$R_{med}$, SGD / Adam\non every batch")
        dots(changed, [each.replace(" ", "\n", 1) for each in arrays["causes"]],
             [arrays[f"{name} with {each}"] for each in arrays["causes"]], yscale="log",
             ylabel="$R_{med}$, SGD / Adam\ntypical of 5 batches")
        for ax in (single, changed):
            reference(ax, 1)
    return ("The ratio SGD / Adam at iteration 750 (of a shorter run: at its last snapshot). "
            "Above: a dot for each seed and evaluation batch. Below: a dot for each seed, on the "
            "typical of 5 batches. Bar: geometric mean. Dotted: 1, no difference.")


def initialization(run=Run(seeds=3, steps=100)):
    """Question: At which initial scale and depth do gradients vanish or explode, or models train?

    L = 2, 4 and 8 in Setting 1, entries of standard deviation 0.01 to 0.8, in the paper's blocks
    and in full matrices. Measured: the gradient's norm in the first and in the last layer at
    initialisation, on an evaluation batch a seed; and the final loss of both optimizers after 400
    steps at most, at the rates that serve at 0.05. A run "trains" if it ends below half of the loss
    of predicting 0, which is d.
    """
    run, scales = run.spend(steps=min(run.steps, 400)), (0.01, 0.05, 0.2, 0.8)
    arrays = {"spent": (run.seeds, run.steps), "scales": scales, "optimizers": run.names}
    parts = []
    for deep in (DEEP[0], DEEP[1], DEEP[3]):
        for where in ("blocks", "full matrices"):
            label = f"{deep.name}, {where}"
            settings = {std: deep._replace(full=where != "blocks", std=std) for std in scales}
            norms = {std: np.array([each["first_last"] for each in run.all(
                training.layer_gradients, [(setting, seed) for seed in run.numbers])])
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
    """Maps of depth and scale: "DEPTH, WHERE OPTIMIZER" and "DEPTH, WHERE norm" (scales, seeds)."""
    names, labels = arrays["optimizers"], ("blocks", "full matrices")
    depths = [f"L = {L}" for L in (2, 4, 8)]
    panels = [(f"final loss, {each}, {where}", [arrays[f"{L}, {where} {each}"] for L in depths])
              for where in labels for each in names]
    panels += [(f"gradient norm, {where}", [arrays[f"{L}, {where} norm"] for L in depths])
               for where in labels]
    for ax, (title, values) in zip(figure.subplots(2, len(panels) // 2).T.flat, panels):
        plotting.heat(ax, np.median(values, axis=-1), depths, arrays["scales"], title=title,
                      xlabel="initial standard deviation (X: diverged)")
    return ("Final loss: median over the last tenth of the steps, median over seeds; a cross where "
            "a run diverged; the loss of predicting 0 is 5. Gradient norm: of the first layer, at "
            "initialisation.")


def tails_times_depth(run=Run(seeds=5, steps=40)):
    """Question: How do heavy tails and depth interact?

    A factorial grid at E|x|^2 = 1: s ~ Gamma(k, .) with k = 2.5 (Gaussian x), 0.5 and 0.1, times L
    = 2, 4 and 6; clip limit 1, at most 500 steps, every optimizer at the best of six rates, chosen
    on three pilot seeds. Measured: SGD's final loss over Adam's, and the 99 % quantile over the
    median of the noise norm at initialisation (twice as many draws as steps). Interaction: by what
    factor one step towards heavy tails changes the effect of one step in depth (fit in the
    logarithms, per seed). Rates of the command line have no part in it.
    """
    run = run.spend(steps=min(run.steps, 500), lr=None)
    shapes, depths = (2.5, 0.5, 0.1), (2, 4, 6)
    cells = {f"k = {k}, L = {L}": (k, L) for k in shapes for L in depths}
    settings = {name: Setting(name, dict(n=20, d=5, covariates="gamma", shape=k, second_moment=1.0),
                              {}, layers=L) for name, (k, L) in cells.items()}
    gap, noise_spread, rates = {}, {}, []  # of each cell (seeds,)
    tried, trained = tuned(run, settings, wide_rates)
    for name, runs in trained.items():
        gap[name] = first_over_second({each: final_loss(runs[each]["loss"]) for each in run.names})
        norms, _ = noise_norms(run, settings[name], max(5, 2 * run.steps), run.seeds)
        noise_spread[name] = spread(norms)
        rates.append(Part(f"{name}: best rates", rates_used(tried[name])))
    maps = {f"final loss {' / '.join(run.names[:2])}": gap,
            "99 % quantile over median of the noise": noise_spread}
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
    """Six rates, from low to high; SGD's moves are not scaled, so it wants higher ones."""
    return (0.05, 0.1, 0.2, 0.5, 1.0, 2.0) if name == "SGD" else (
        0.005, 0.01, 0.02, 0.05, 0.1, 0.2)


def draw_tails_times_depth(figure, arrays):
    """A map (shapes, depths) for each of "maps"."""
    names = ["Gaussian" if k == 2.5 else f"k = {k:g}" for k in arrays["shapes"]]
    for ax, what in zip(figure.subplots(1, 2), arrays["maps"]):
        plotting.heat(ax, arrays[what], names, arrays["depths"], title=what, xlabel="layers L",
                      ylabel="light ... heavy tail of x")
    return ("Geometric mean over seeds. k = 2.5: Gaussian x; smaller k: heavier tails at the same "
            "E|x|$^2$ = 1. Every optimizer at the best of six rates.")


def label_noise(run=Run(seeds=5, steps=150)):
    """Question: How far above the Bayes risk does each optimizer end when labels are noisy?

    Setting 1 with noise of standard deviation sigma on the context's labels; the target stays
    clean. As w ~ N(0, I), the Bayes predictor is ridge regression with penalty sigma^2. Every
    optimizer at the best of five rates, chosen on three pilot seeds. Measured after at most 2,000
    steps: the loss minus that of the ridge regression on the same evaluation batches of 1,000
    prompts (median over twenty batches and the last two snapshots).
    """
    run, sigmas = run.spend(steps=min(run.steps, 2000)), (0.0, 0.1, 0.3, 1.0, 3.0)
    arrays = {"spent": (run.seeds, run.steps), "sigmas": sigmas, "optimizers": run.names}
    settings = {sigma: SETTING_1._replace(name=f"sigma = {sigma:g}", data=dict(
        SETTING_1.data, noise=sigma)) for sigma in sigmas}
    ratios, parts, ends, excesses, risks = [], [], [], [], []
    tried, trained = tuned(run, settings, noisy_rates)
    for sigma, runs in trained.items():
        name = f"sigma = {sigma:g}"
        bayes = ridge_losses(settings[sigma], sigma**2)  # (batches,)
        loss = run.along(training.loss_at, settings[sigma], runs, slice(-2, None), batches=20)
        excess = {each: np.median(values - bayes, axis=(1, 2))  # values: (seeds, 2, batches)
                  for each, values in loss.items()}
        ratios.append(Part(f"{name}: excess {' / '.join(run.names[:2])}",
                           first_over_second(excess)))  # (seeds,)
        parts += [Part(f"{name}: excess {each}", values) for each, values in excess.items()]
        parts.append(Part(f"{name}: best rates", rates_used(tried[sigma])))
        parts.append(Part(f"{name}: Bayes risk", f"{np.median(bayes):.3g}"))
        ends.append([np.median(values, axis=(1, 2)) for values in loss.values()])
        excesses.append(list(excess.values()))
        risks.append(np.median(bayes))
    return arrays | {"final": np.stack(ends, axis=-1), "excess": np.stack(excesses, axis=-1),
                     "bayes": risks}, ratios + parts  # final, excess: (optimizers, seeds, sigmas)


def noisy_rates(_, name):
    """Five rates."""
    return (0.02, 0.05, 0.1, 0.2, 0.5) if name == "SGD" else (0.002, 0.005, 0.01, 0.02, 0.05)


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
    """"final" and "excess" (optimizers, seeds, sigmas), with "bayes" (sigmas,)."""
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
    rate, on the seeds on which the rates are chosen; at most 500 steps. Measured: the loss at the
    end relative to no remedy, and the ratio SGD / Adam. The losses are those on batches of 1,000
    (median over twenty and over the last two snapshots): with heavy tails the typical loss of a
    larger batch is a larger one.
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
        final[name] = evaluated_at_the_end(run, setting, best)
        rates.append(Part(f"{name}: best rates", rates_used(tried)))
    parts = [Part(f"{name}: {each}, with / without", end[each] / final["none"][each])
             for name, end in final.items() if name != "none" for each in run.names]
    for name, end in final.items():
        parts.append(Part(f"{name}: {' / '.join(run.names[:2])}", first_over_second(end)))
        parts += [Part(f"{name}: final loss {each}", values) for each, values in end.items()]
    return {"spent": (run.seeds, run.steps), "remedies": list(cases), "optimizers": run.names} | {
        each: np.array([end[each] for end in final.values()]) for each in run.names}, parts + rates


def draw_remedies(figure, arrays):
    """Final losses of each optimizer (remedies, seeds), and their ratio."""
    names, labels = arrays["optimizers"], [each.replace(" ", "\n") for each in arrays["remedies"]]
    ends, ratio = figure.subplots(1, 2)
    for i, each in enumerate(names):
        dots(ends, labels, arrays[each], shift=0.3 * i, colour=plotting.look(each, i)["color"],
             label=each)
    dots(ratio, labels, arrays[names[0]] / arrays[names[1]])
    ends.set(yscale="log", title="final loss", ylabel="final loss")
    ratio.set(yscale="log", title=" / ".join(names[:2]), ylabel="ratio of final losses")
    reference(ratio, 1)
    ends.legend()
    return ("A dot for each seed, bar: geometric mean. Setting 3; typical loss on 1,000 prompts at "
            "the end, every optimizer at the best of three rates. Normalised x: the spherical "
            "task, whose risk is that of the original one after undoing.")


def what_it_learns(run=Run(seeds=2, steps=270)):
    """Question: What is in the weights: is a trained layer a step of gradient descent?

    Adam in Setting 1, L = 1 to 4, at most 2,000 steps. Measured: the final loss beside that of L
    steps of gradient descent, with one step size and with one for each layer (the best ones; for
    isotropic x a preconditioner adds nothing else), and with P_l = g_l I, which changes the x
    between the steps, too (least squares has loss 0); the share of Q_l (in the figure P_l's, too)
    off the multiples of the identity. At L = 4 the trained layers end far above the best multiples
    of the identity: whether the steps are too few or the constant rate too large is tried with five
    times the steps, and with a rate that falls to 0 over them.
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
    longer = {"five times the steps": deep["L = 4"],
              "five times the steps, falling rate": deep["L = 4"]._replace(schedule="linear")}
    for words, runs in run.spend(steps=5 * run.steps).train(longer).items():
        final = final_loss(runs[adam]["loss"])
        parts.append(Part(f"L = 4, {words}: final loss / that of {DESCENTS['P = g I']}",
                          final / least["L = 4"]["P = g I"]))
        arrays[f"L = 4, {words}"] = final
    return arrays | {"final": np.array(ends).T[None]} | {
        f"least {kind}": [least[name][kind] for name in deep] for kind in DESCENTS}, parts


DESCENTS = {"one size": "L steps, one size", "L sizes": "L steps, L sizes",
            "P = g I": "L sizes, P = g I"}


def off_identity(weights):
    """Share of each matrix (..., d, d) in norm that is not a multiple of the identity."""
    mean = np.trace(weights, axis1=-2, axis2=-1) / weights.shape[-1]
    rest = weights - mean[..., None, None] * np.eye(weights.shape[-1])
    return np.linalg.norm(rest, axis=(-2, -1)) / np.linalg.norm(weights, axis=(-2, -1))


def draw_what_it_learns(figure, arrays):
    """"weights" (matrices, d, d); "off" (matrices, seeds, points); "final" (1, seeds, depths),
    "least KIND" (depths,), and "L = 4, ..." of longer runs (seeds,)."""
    (*pictures,), (shares, depths) = figure.subplots(2, 2)
    for which, (letter, ax) in enumerate(zip("PQ", pictures)):
        tiles = np.full((5, 17), np.nan)
        for layer in range(3):
            tiles[:, 6 * layer : 6 * layer + 5] = arrays["weights"][2 * layer + which]
        largest = np.abs(tiles).max(where=np.isfinite(tiles), initial=0) or 1  # 0: it diverged
        drawn = ax.imshow(tiles, cmap="PuOr", vmin=-largest, vmax=largest)
        ax.set_xticks((2, 8, 14), ("layer 1", "layer 2", "layer 3"))
        ax.set_yticks([])
        ax.set(title=f"{letter}, L = 3")
        ax.grid(False)
        figure.colorbar(drawn, ax=ax, shrink=0.7)
    curves(shares, arrays["iteration"], arrays["off"], arrays["paths"], xlabel="iteration",
           title="share off the identity", ylabel="share")
    curves(depths, arrays["depths"], arrays["final"], arrays["optimizers"], yscale="log",
           title="final loss", xlabel="layers L", ylabel="loss", xticks=arrays["depths"])
    for i, (kind, words) in enumerate(DESCENTS.items()):
        depths.plot(arrays["depths"], arrays[f"least {kind}"], label=words,
                    **plotting.look(words, i))
    for words, marker in (("five times the steps", "o"),
                          ("five times the steps, falling rate", "*")):
        ends = arrays[f"L = 4, {words}"]  # (seeds,)
        depths.plot(np.full(len(ends), 4), ends, marker, color="#0072B2", ms=10, label=words)
    depths.legend(fontsize="x-small")
    return ("Weights: one seed; the last P is not trained. Line: median over seeds, band: smallest "
            "to largest. Final loss: of Adam, and of the best steps of gradient descent, exact: of "
            "one size, of L sizes, and with P = g I in each layer.")


def one_layer(run=Run(seeds=2, steps=400)):
    """Question: Does one trained layer reach its closed form, whatever x is?

    Adam, L = 1, n = 20 (and others for Gaussian x), d = 5, at most 2,000 steps. For isotropic x
    with E|x|^2 = m and E|x|^4 = m4, T = E tr S^2 = m4 / n + (1 - 1/n) m^2 / d gives the best Q = -c
    I, c = m / T, of loss m (1 - m^2 / (d T)) (for Gaussian x: c = n / (n + d + 1)). Measured:
    learnt over best c, and final over least loss (means over the last tenth of the steps, for the
    closed form is a mean).
    """
    run = run.spend(steps=min(run.steps, 2000), optimizers=run.optimizers[-1:])
    (adam,) = run.names
    cases = {f"gaussian x, n = {n}": ("gaussian", n) for n in (5, 10, 20, 40, 80)} | {
        f"{family} x, n = 20": (family, 20) for family in MOMENTS if family != "gaussian"}
    single = {name: SETTING_1._replace(name=name, layers=1, data=dict(n=n, d=5, covariates=family))
              for name, (family, n) in cases.items()}
    arrays, parts = {"spent": (run.seeds, run.steps), "optimizers": run.names,
                     "cases": list(cases)}, []
    for name, runs in run.train(single, every=10).items():
        family, n = cases[name]
        best_c, least_loss = closed_form(*MOMENTS[family], n, 5)
        Q = runs[adam]["snapshots"][:, :, 0, 0, 1]  # (seeds, points, d, d)
        learnt = -last_tenth(np.trace(Q, axis1=2, axis2=3) / 5).mean(axis=-1)  # (seeds,)
        end = last_tenth(runs[adam]["loss"]).mean(axis=-1)
        parts += [Part(f"{name}: learnt / best c", learnt / best_c),
                  Part(f"{name}: mean final loss / least loss {least_loss:.3g}", end / least_loss)]
        arrays |= {f"{name} c": learnt / best_c, f"{name} loss": end / least_loss,
                   f"{name} least": least_loss}
    return arrays, parts


MOMENTS = {  # E|x|^2 and E|x|^4 of each family of data.py at its default parameters, d = 5
    "gaussian": (5, 35), "sphere": (1, 1), "gamma": (1, 11), "student": (25 / 3, 875 / 3)}


def closed_form(m, m4, n, d):
    """The best step size c of one layer, and its loss."""
    T = m4 / n + (1 - 1 / n) * m**2 / d
    return m / T, m * (1 - m**2 / (d * T))


def draw_one_layer(figure, arrays):
    """"CASE c" and "CASE loss" (seeds,), over the best ones, and "CASE least"."""
    sizes, ratios, context = figure.subplots(1, 3)
    shown = [name for name in arrays["cases"] if name.endswith("n = 20")]
    labels = [name.removesuffix(" x, n = 20") for name in shown]
    for ax, what, title in ((sizes, "c", "learnt / best step size c"),
                            (ratios, "loss", "final / least loss")):
        dots(ax, labels, [arrays[f"{name} {what}"] for name in shown], title=title,
             xlabel="x, n = 20", ylabel="ratio")
        reference(ax, 1)
    names = [name for name in arrays["cases"] if name.startswith("gaussian")]
    n = np.array([int(name.split("= ")[1]) for name in names])
    least = np.array([arrays[f"{name} least"] for name in names])
    trained = np.array([arrays[f"{name} loss"] for name in names]) * least[:, None]
    context.plot(n, least, "k:", label="d (d + 1) / (n + d + 1)")
    curves(context, n, trained.T[None], arrays["optimizers"], xscale="log", yscale="log",
           title="Gaussian x: loss", xlabel="context length n", ylabel="loss")
    context.set_xticks(n, n)
    context.set_yticks((0.5, 1, 2), (0.5, 1, 2))
    context.minorticks_off()
    context.legend()
    return ("A dot for each seed, bar: geometric mean; line: median over seeds, band: smallest to "
            "largest. c is the step size in Q = -c I; the best c and its loss are exact, the loss "
            "is a mean over the last tenth of the steps.")


def granularity(run=Run(seeds=5, steps=150)):
    """Question: How finely must a step be scaled to do what Adam does?

    SGD scales nothing, Adam every coordinate. Between the two: the momentum over its root mean
    square, taken over all parameters, a layer, a block (a matrix P_l or Q_l), a row, a coordinate
    (sign descent); and its polar factor, block by block (Muon). Settings 1 to 3 at a constant rate
    and at one that falls linearly to 0, and L = 6 in Setting 1; at most 2,000 steps; each at the
    best of seven rates, chosen on three pilot seeds; short runs: Setting 1 alone. Measured: the
    final loss of each over Adam's; and the share of the log gap from SGD to Adam that it closes,
    log(SGD / it) over the mean of log(SGD / Adam), where the interval of SGD / Adam lies above 1
    (the share's interval leaves out that the mean is uncertain). Adam differs in more than how
    finely it scales: its steps get shorter where gradients change sign. A falling rate shortens the
    steps of all. Why blocks may matter: the Hessian's spectra at initialisation, block by block
    (Zhang et al. 2024, arXiv 2402.16788), on one evaluation batch, without the last layer, whose P
    has no gradient.
    """
    run = run.spend(steps=min(run.steps, 2000), lr=None)
    settings = {"Setting 1": SETTING_1}
    if thorough(run):
        settings = PAPER_SETTINGS | {f"{name}, falling rate": setting._replace(schedule="linear")
                                     for name, setting in PAPER_SETTINGS.items()}
        settings["Setting 1, L = 6"] = SETTING_1._replace(layers=6)
    final, parts, rates = {}, [], []  # final[name, scaling]: (seeds,)
    for scaling, (optimizer, arguments) in SCALINGS.items():
        tried, trained = tuned(run.spend(optimizers=(optimizer,)), settings, seven_rates,
                              **arguments)
        for name, runs in trained.items():
            (by_rate,), (of_the_best,) = tried[name].values(), runs.values()
            final[name, scaling] = final_loss(of_the_best["loss"])  # (seeds,)
            rates += [Part(f"{name}: final loss {scaling}", final[name, scaling]),
                      Part(f"{name}: best rate {scaling}", best_rate(by_rate))]
    arrays = {"spent": (run.seeds, run.steps), "settings": list(settings),
              "scalings": list(SCALINGS)}
    for name in settings:
        ratio = {scaling: over(final[name, scaling], final[name, "Adam"]) for scaling in SCALINGS}
        ahead = {scaling: Part(f"{name}: final loss {scaling} / Adam", values)
                 for scaling, values in ratio.items() if scaling != "Adam"}
        parts += ahead.values()
        if ahead["SGD"].summary()[1] > 1:  # the lower end of the interval
            gap = np.log(ratio["SGD"])  # (seeds,)
            parts += [Part(f"{name}: share of the log gap that {scaling} closes",
                           (gap - np.log(ratio[scaling])) / gap.mean(), log=False)
                      for scaling in ahead if scaling != "SGD"]
        arrays[f"{name} final"] = np.array([final[name, each] for each in SCALINGS])
    spectra = block_spectra_at_start(run)
    arrays["spectra"] = spectra[0]  # (blocks, eigenvalues)
    P, Q = (np.median(spectra[:, which:-2:2], axis=(1, 2)) for which in (0, 1))  # (seeds,)
    parts.append(Part("Hessian's blocks: median |eigenvalue| of Q over that of P", Q / P))
    return arrays, parts + rates


SCALINGS = {  # from none to one for each parameter
    "SGD": (SGD, {}),
    "one scale": (NormalizedSGD, dict(granularity="all")),
    "a layer": (NormalizedSGD, dict(granularity="layer")),
    "a block": (NormalizedSGD, dict(granularity="block")),
    "a row": (NormalizedSGD, dict(granularity="row")),
    "sign": (NormalizedSGD, dict(granularity="coordinate")),
    "Muon": (Muon, {}),
    "Adam": (Adam, {}),
}


def block_spectra_at_start(run):
    """Absolute eigenvalues (seeds, blocks, d^2) of Setting 1's blocks P_1, Q_1, P_2, ..."""
    starts = [training.initial(SETTING_1, training.streams(seed)[0])
              for seed in fresh(run).numbers]
    tasks = [(training.block_spectra, SETTING_1, np.array([[start, start]]), 1) for start in starts]
    return np.array([found["values"][0, 0] for found in run.all(training.evaluate, tasks)])


def draw_granularity(figure, arrays):
    """"SETTING final" (scalings, seeds) over Adam's, constant rates, falling ones and L = 6 apart;
    and "spectra" (blocks, eigenvalues)."""
    names, scalings = list(arrays["settings"]), list(arrays["scalings"])
    groups = {"constant rate": [name for name in names if name in PAPER_SETTINGS],
              "falling rate": [name for name in names if name.endswith("falling rate")],
              "L = 6, constant rate": [name for name in names if name.endswith("L = 6")]}
    groups = {title: shown for title, shown in groups.items() if shown}
    *panels, last = figure.subplots(1 + len(groups) // 2, 2).flat
    for ax, (title, shown) in zip(panels, groups.items()):
        if title == "falling rate":
            ax.sharey(panels[0])
        ratios = [arrays[f"{name} final"] / arrays[f"{name} final"][-1] for name in shown]
        curves(ax, range(len(scalings)), [ratio.T for ratio in ratios],
               [name.removesuffix(", falling rate") for name in shown], path=False, yscale="log",
               title=title, ylabel="final loss / Adam's")
        ax.set_xticks(range(len(scalings)), [each.replace(" ", "\n") for each in scalings],
                      fontsize="small")
        reference(ax, 1)
        plotting.note(ax, "a layer / Adam:\n" + ", ".join(
            f"{{{name}: final loss a layer / Adam}}" for name in shown), at=(0.63, 0.96))
        if len(shown) > 1:
            plotting.legend(ax)
    for b, spectrum in enumerate(arrays["spectra"][:-2]):  # the last P has no gradient
        last.plot(1 + np.arange(len(spectrum)), spectrum[::-1],
                  **dict(plotting.look("PQ"[b % 2], b % 2), marker=""),
                  label="PQ"[b % 2] if b < 2 else None)
    last.set(yscale="log", title="Hessian's blocks", xlabel="rank of the eigenvalue",
             ylabel="|eigenvalue|")
    last.legend()
    return ("Every optimizer at the best of seven rates; line: median over seeds, band: smallest "
            "to largest; numbers: geometric means; dotted: 1, as Adam. One scale: the momentum "
            "over its root mean square; a layer, a block, a row: the same for each of these. Last "
            "panel: eigenvalues of the Hessian's diagonal blocks P and Q of all layers but the "
            "last, at initialisation, one seed.")


def schedules(run=Run(seeds=5, steps=70)):
    """Question: What is left of the gap when the rate may fall?

    Constant rate, linear to 0, and cosine, in Settings 1, 2 and 3, at most 4,000 steps: SGD, SGD
    over its root mean square, and Adam, each at the best of seven rates for each schedule, chosen
    on three pilot seeds. A schedule is set by the length of the run, so that the beginning of a
    long run is not a short one; the final loss is a median over its last tenth, in which the rate
    still falls. Measured: the final losses of SGD and of normalised SGD over Adam's
    under the same schedule, and each under a falling rate over the same at a constant one.
    """
    run = run.spend(steps=min(run.steps, 4000), lr=None,
                    optimizers=(SGD, NormalizedSGD, Adam))
    kinds = ("constant", "linear", "cosine")
    arrays = {"spent": (run.seeds, run.steps), "schedules": kinds, "optimizers": run.names}
    parts, besides = [], []
    for name, setting in PAPER_SETTINGS.items():
        settings = {kind: setting._replace(schedule=kind) for kind in kinds}
        tried, trained = tuned(run, settings, seven_rates)
        final = {(kind, each): final_loss(runs[each]["loss"])  # (seeds,)
                 for kind, runs in trained.items() for each in run.names}
        for kind in kinds:
            parts += [Part(f"{name}, {kind}: final loss {each} / Adam",
                           final[kind, each] / final[kind, "Adam"])
                      for each in ("SGD", "NormalizedSGD")]
            besides.append(Part(f"{name}, {kind}: best rates", rates_used(tried[kind])))
        besides += [Part(f"{name}, {each}: final loss {kind} / constant",
                         final[kind, each] / final["constant", each])
                    for each in run.names for kind in ("linear", "cosine")]
        arrays[f"{name} final"] = np.array([[final[kind, each] for kind in kinds]
                                            for each in run.names])  # (optimizers, kinds, seeds)
    return arrays, parts + besides


def draw_schedules(figure, arrays):
    """"SETTING final" (optimizers, schedules, seeds), over Adam's median at a constant rate."""
    row = figure.subplots(1, 3, sharey=True)
    for name, ax in zip(PAPER_SETTINGS, row):
        ends = arrays[f"{name} final"]
        adam = ends[list(arrays["optimizers"]).index("Adam"), 0]  # (seeds,)
        unit = np.median(adam[np.isfinite(adam)]) if np.isfinite(adam).any() else 1
        for i, (each, final) in enumerate(zip(arrays["optimizers"], ends)):
            dots(ax, arrays["schedules"], final / unit, shift=0.2 * (i - 1), label=str(each),
                 colour=plotting.look(each, i)["color"])
        ax.set(yscale="log", title=TITLES[name], ylabel="final loss / Adam's, constant rate")
        reference(ax, 1)
        plotting.note(ax, f"linear:\nSGD / Adam {{{name}, linear: final loss SGD / Adam}}",
                      at=(0.03, 0.04))
    row[1].legend()
    return ("Every optimizer at its best of seven rates under each schedule; a dot for each seed, "
            "bar: geometric mean; dotted: 1, Adam's median at a constant rate. Linear and cosine "
            "fall to 0 at the end of the run.")


def edge_of_stability(run=Run(seeds=5, steps=400)):
    """Question: Is SGD's rate at its limit?

    On a quadratic of curvature H gradient descent with momentum 0.9 diverges where the largest
    eigenvalue of H exceeds 2 (1 + momentum) / lr. That eigenvalue along SGD's path in Setting 1 at
    the rates 0.05, 0.1 and 0.2, at most 2,500 steps; on the typical of five evaluation batches of
    1,000 prompts, whose spread is largest over smallest. A clipped step is shorter than its rate
    says, so the points are also given without those where this step or one of the 50 before it was
    clipped. With fresh batches a lower rate may already be unstable. Measured: the eigenvalue over
    the limit, at the start and in the median over the path without its first tenth.
    """
    run = run.spend(steps=min(run.steps, 2500), lr=None, optimizers=(SGD,))
    rates, batches = (0.05, 0.1, 0.2), 5 if thorough(run) else 1
    points = path_points((run.steps - 1) // 50, 20)
    arrays = {"spent": (run.seeds, run.steps), "iteration": 50 * points,
              "names": [f"rate {rate:g}" for rate in rates]}
    parts = []
    for rate in rates:
        (runs,) = fresh(run).train({"Setting 1": SETTING_1._replace(lr=dict(SGD=rate))}).values()
        (found,) = fresh(run).along(training.sharpness, SETTING_1, runs, points, batches).values()
        limit, typical = 2 * (1 + 0.9) / rate, typical_batch(found)  # (seeds, points)
        clipped = runs["SGD"]["grad_norm"] > SETTING_1.clip  # (seeds, steps)
        recent = np.array([[seed[max(0, t - 50) : t + 1].any() for t in 50 * points]
                           for seed in clipped])  # (seeds, points)
        parts += [
            Part(f"rate {rate:g}: at the start", typical[:, 0] / limit),
            Part(f"rate {rate:g}: largest eigenvalue / limit", without_start(typical) / limit),
            Part(f"rate {rate:g}: the same after 50 steps without clipping", ", ".join(
                f"{np.median(values[~mask]) / limit:.3g}" if (~mask).any() else "none"
                for values, mask in zip(typical, recent)) + " by seed"),
            Part(f"rate {rate:g}: clipped steps", f"{100 * clipped.mean():.0f} %"),
            Part(f"rate {rate:g}: largest over smallest batch",
                 f"{np.median(found.max(axis=-1) / found.min(axis=-1)):.3g}"),
            Part(f"rate {rate:g}: final loss", final_loss(runs["SGD"]["loss"]))]
        arrays[f"rate {rate:g}"] = typical / limit
    return arrays, parts


def draw_edge_of_stability(figure, arrays):
    """One panel: of each of "names" the eigenvalue over its limit (seeds, points)."""
    ax = figure.subplots()
    names = list(arrays["names"])
    curves(ax, arrays["iteration"], [arrays[name] for name in names], names, yscale="log",
           title="SGD, Setting 1", xlabel="iteration",
           ylabel="largest eigenvalue of the Hessian\nover 2 (1 + momentum) / learning rate")
    reference(ax, 1)
    return ("The limit is 2 (1 + momentum) / lr, beyond which gradient descent with momentum "
            "diverges on a quadratic. Line: median over seeds, band: smallest to largest; typical "
            "of up to five evaluation batches of 1,000 prompts.")


def screen(run=Run(seeds=3, steps=75, optimizers=(SGD, Adam, SignDescent, NormalizedSGD, Muon))):
    """Question: Which optimizer should I take, and how carefully must its rate be chosen?

    Every optimizer, and the VARIANTS of some, in Settings 1, 2 and 3 at seven rates, at most 500
    steps; all on the seeds on which the rates are chosen. Ranked by the final loss at its best rate
    (geometric mean over the settings of its ratio to the best one). Besides: the good range, rates
    within a factor 2 of its best loss, as largest over smallest; median steps until the median of
    the last 50 losses lies below twice the setting's lowest final loss; share of diverged runs over
    the grid; share of steps of the second half whose gradient norm is above ten times its median,
    at the best rate. Rates of the command line have no part in it.
    """
    run = run.spend(steps=min(run.steps, 500), lr=None)
    tried = {name: screened(run, setting) for name, setting in PAPER_SETTINGS.items()}
    lag, rows = {}, {}
    for name, by_contestant in tried.items():
        score = {each: training.level(found.loss) for each, found in by_contestant.items()}
        best = min(values.min() for values in score.values())  # score: (rates,) each
        for each, found in by_contestant.items():
            good = good_range(found.rates, score[each])
            norm = found.at_best["grad_norm"][..., run.steps // 2 :]
            spikes = (norm > 10 * np.median(norm, axis=-1, keepdims=True)).mean()
            steps = np.median(steps_to(last_fifty(found.at_best["loss"]), 2 * np.exp(best)))
            steps = f"{steps:.0f}" if np.isfinite(steps) else f"> {run.steps:,}"
            lost = np.isnan(found.loss[..., -1]).mean()
            width = good.max() / good.min() if len(good) else np.nan
            rate = best_rate(found) if len(good) else "none"
            rows[each, name] = Part(f"{each:<25} {name}", (
                f"rate {rate:<5} loss {np.exp(score[each].min()):<8.3g} "
                f"good range {width:<5.3g} steps to target {steps:<5} "
                f"diverged {100 * lost:.0f} % spikes {100 * spikes:.1f} %"))
            lag.setdefault(each, []).append(behind(score[each].min(), best))
    ratio = {each: np.exp(np.mean(values)) for each, values in lag.items()}
    ranked = sorted(ratio, key=ratio.get)
    parts = [Part("rank, by geometric mean of the ratio to the best", "; ".join(
        f"{place} {each} ({ratio[each]:.3g})" for place, each in enumerate(ranked, 1)))]
    parts.append(Part("first three, and loss over the best one's", "; ".join(
        f"{each}: {ratio[each]:.3g}" for each in ranked[:3])))
    parts += [rows[each, name] for each in ranked for name in PAPER_SETTINGS]
    arrays = {"spent": (run.seeds, run.steps), "contestants": ranked,
              "ratio": [ratio[each] for each in ranked]}
    for name in PAPER_SETTINGS:
        arrays[f"{name} rates"] = np.array([tried[name][each].rates for each in ranked])
        arrays[f"{name} scores"] = np.array([training.level(tried[name][each].loss)
                                             for each in ranked])  # (contestants, rates)
    return arrays, parts


VARIANTS = {"Adam": {", beta2 = 0.9": {}, ", beta2 = 0.99": dict(beta2=0.99),
                     ", beta2 = 0.999": dict(beta2=0.999)},
            "NormalizedSGD": {", one scale": {}, ", a block": dict(granularity="block")}}


def screened(run, setting):
    """{contestant: training.Tried}: every optimizer, with its variants, at seven rates."""
    found = {}
    for optimizer in run.optimizers:
        alone, name = run.spend(optimizers=(optimizer,)), optimizer.__name__
        for words, arguments in VARIANTS.get(name, {"": {}}).items():
            found[name + words] = alone.tune({"": setting}, rate_grid, **arguments)[""][name]
    return found


def behind(score, best):
    """How far a log loss lies above the best one: 0 for the best, even if its loss is 0; infinite
    if it diverged."""
    if score == best < np.inf:
        return 0.0
    return score - best if np.isfinite(best) else np.inf


def draw_screen(figure, arrays):
    """A row a contestant, in their order: the lowest of "SETTING scores" (contestants, rates), and
    where they are good, of "SETTING rates"."""
    names = [str(each) for each in arrays["contestants"]]
    ends, ranges = figure.subplots(1, 2, sharey=True)
    place = np.arange(len(names))
    for i, (name, look) in enumerate(zip(PAPER_SETTINGS, plotting.OTHER_LOOKS)):
        scores = arrays[f"{name} scores"]
        typical = np.exp(scores.min(axis=1))  # (contestants,); infinite if no rate trains
        ends.plot(over(typical, typical.min()), place, look["marker"], color=look["color"], ms=10,
                  label=name)
        for each in place:
            good = good_range(arrays[f"{name} rates"][each], scores[each])
            ranges.plot(good, np.full(len(good), each + 0.2 * (i - 1)), "-" + look["marker"],
                        color=look["color"])
    ends.set(xscale="log", xlabel="final loss / the best one's", title="at the best of seven rates")
    ends.set_yticks(place, [f"{i}  {name} ({ratio:.3g})" for i, (name, ratio) in enumerate(
        zip(names, arrays["ratio"]), 1)])
    ends.invert_yaxis()
    ends.legend()
    ranges.set(xscale="log", xlabel="learning rate", title="rates within a factor 2 of the best")
    return ("Ranked by the geometric mean over the settings of the ratio to the best one, in "
            "brackets. Right: the rates at which the final loss is within a factor 2 of the "
            "optimizer's own best one.")


def attention_cost(run=Run(seeds=5)):
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
    bounds = dict(zip(COST_FORMS, (dict(above=1.5), dict(above=1.5), dict(above=-0.1, below=0.1),
                                   {})))  # the compression, made once a batch, has none
    slopes = {form: np.polyfit(np.log(COST_N[-3:]), np.log(values[:, -3:]).T, 1)[0]
              for form, values in ms.items()}
    parts = [Part(f"{form}: slope", slopes[form], log=False, **bounds[form]) for form in COST_FORMS]
    parts += [Part(f"{form}: ms", ", ".join(
        f"{each:.3g} at n = {n}" for n, each in zip(COST_N, np.median(values, axis=0))))
        for form, values in ms.items()]
    parts.append(Part(f"textbook / Gram form at n = {COST_N[-1]}",
                      ms["linear, textbook"][:, -1] / ms["linear, Gram form"][:, -1]))
    others = 1e3 * np.median([each["others"] for each in found], axis=0)
    parts += [Part(f"{name}: ms", f"{each:.3g}") for name, each in zip(COST_OTHERS, others)]
    return {"n": COST_N, "forms": COST_FORMS, "ms": np.array(list(ms.values()))}, parts


def draw_attention_cost(figure, arrays):
    """One panel: "ms" (forms, repeats, n) against "n"."""
    ax, n = figure.subplots(), np.array(arrays["n"])
    curves(ax, n, arrays["ms"], arrays["forms"], xscale="log", yscale="log",
           title="1,000 prompts, d = 5, three layers, one core", xlabel="context length n",
           ylabel="ms per gradient")
    top = np.median(arrays["ms"][1, :, -1])  # of the textbook form
    ax.plot(n[-3:], 0.6 * top * (n[-3:] / n[-1]) ** 2, "k:")
    plotting.at_end(ax, n[-1], 0.6 * top, "slope 2", "#000000")
    ax.set_xticks(n, n)
    ax.minorticks_off()
    number = f"textbook / Gram form at n = {n[-1]}"
    plotting.note(ax, f"{number}: {{{number}}}", at=(0.03, 0.96))
    return ("Median and range of the repeats; slopes over the last three n. Compression: the Gram "
            "matrices of the batch, made once, before.")


# ---- Their table: a new experiment is two functions above and a row here -------------------------


class Experiment(NamedTuple):
    claim: str  # C1, ..., or Question
    claimed: str
    paper: str  # what is printed there
    measure: object  # (run) -> (arrays, parts)
    draw: object  # (figure, arrays) -> caption
    found: str = ""  # a headline of what was found, with {parts} for their numbers
    levels: tuple = ()  # at which something is claimed; none for a question
    steps: int = 0  # below which there is no verdict


def of_settings(part, names=tuple(PAPER_SETTINGS), between=", "):
    """The number of a part in each of the settings."""
    return between.join(f"{{{name}{part}}}" for name in names)


EXPERIMENTS = {row.measure.__name__: row for row in (
    Experiment("C1", "Adam beats SGD in Settings 1, 2 and 3",
               "loss curves; the authors' notebook ends Setting 1 near 8e-3 (SGD) and 1.7e-3 "
               "(Adam)", adam_vs_sgd, draw_adam_vs_sgd,
               f"SGD's final loss is {of_settings(': final loss SGD / Adam')} times Adam's",
               LEVELS, 800),
    Experiment("C2", "Stochastic gradient noise is heavy-tailed in Settings 1, 2 and 3",
               "histograms; Setting 1: about 2.1, right tail to 3.6",
               gradient_noise, draw_gradient_noise,
               "99 % / 50 % quantile of the noise: " + of_settings(
                   ": 99 % quantile over median of the noise norm, medians over seeds",
                   between="; "),
               LEVELS, 1_000),
    Experiment("C3", "R_med is larger along SGD's path than along Adam's",
               "; ".join(f"{name}: " + " and ".join(
                   f"{mean:.3g} ({std:.3g})" for mean, std in printed.values())
                         for name, printed in PAPER_C3.items()),
               condition_number, draw_condition_number,
               "R_med of SGD is " + of_settings(", iteration 1250, typical batch") +
               " times Adam's at iteration 1250", LEVELS, 1_251),
    Experiment("C4", "Directional smoothness is smaller along Adam's path", "curves",
               directional_smoothness, draw_directional_smoothness,
               "v^T H v, typical batch: " + of_settings(
                   ", typical batch, 2,500 steps: medians of v^T H v", between="; "), LEVELS, 800),
    Experiment("C5", "Smoothness grows with the gradient norm", "positive slope",
               generalized_smoothness, draw_generalized_smoothness,
               "along Adam's path v^T H v grows like the gradient norm to the power " + of_settings(
                   ", whole path: slope of the directional smoothness"), LEVELS, 600),
    Experiment("C6", "Linear attention learns this task much faster than softmax attention",
               "curve", softmax_vs_linear, draw_softmax_vs_linear,
               "softmax's final loss is {softmax / linear, best rates: final loss} times that of "
               "linear attention", LEVELS, 1_000),
    Experiment("C7", "The picture is the same for L = 8, d = 20, n = 60",
               "loss curve, noise histogram", larger_model, draw_larger_model,
               f"SGD's final loss is {{{LARGE.name}: final loss SGD / Adam}} times Adam's, the "
               f"skewness of the noise {{{LARGE.name}: skewness of the noise norm}}",
               LEVELS, 1_000),
    Experiment("C8", "Heavier tails of x: heavier noise, slower training, larger R_med ratio, the "
               "same gain", "3 rows of plots", heavy_tails, draw_heavy_tails,
               "SGD's steps over Adam's are {Heavy / spherical: steps of SGD / Adam} times as many "
               "with heavy tails as on the sphere", LEVELS, 2_000),
    Experiment("C9", "With depth the Adam-SGD gap, noise tails and R_med ratio grow, and the loss "
               "falls", "3 rows of plots", depth, draw_depth,
               "SGD / Adam, L = 8 over 2: {gap SGD / Adam, L = 8 over 2} in the final loss; L = 4, "
               "6, 8 over 2: {ratio of R_med at the same iteration, first batch, L = 4, 6, 8 over "
               "2} in R_med", LEVELS, 2_000),
    Experiment("Protocol", "The learning rate of each optimizer is the best of a grid of ten",
               "0.02 and 0.02 (Setting 1), 0.01 and 0.005 (2), 0.02 and 0.02 (3) for SGD and Adam",
               learning_rates, draw_learning_rates,
               "SGD's published rate ends at " + of_settings(
                   ", SGD: final loss at the published rate / at the best") + " times the "
               "best loss", ("robust",), 10_000),
    Experiment("C10", "Without gradient noise Adam still beats SGD, and so does sign descent",
               "quoted", full_batch, draw_full_batch,
               "fixed batch, SGD / Adam " + of_settings(
                   ", fixed batch: final loss SGD / Adam", ("Setting 1", "Setting 3")) +
               "; SGD / sign descent " + of_settings(
                   ", fixed batch: final loss SGD / SignDescent", ("Setting 1", "Setting 3")),
               ("published",), 600),
    Experiment("C11", "Clipping lowers directional smoothness, coordinate by coordinate most of "
               "all", "quoted", clipping, draw_clipping,
               "v^T H v, clipped steps, Setting 1: SGD {Setting 1, SGD's path, "
               "step, robust: v^T H v}; Adam {Setting 1, Adam's path, step, robust: v^T H v}",
               LEVELS, 1_000),
    Experiment("C12", "The picture is the same for nonlinear regression with an MLP before the "
               "attention", "loss, noise, R_med, smoothness",
               nonlinear_regression, draw_nonlinear_regression,
               "SGD's final loss is {MLP: final loss SGD / Adam} times Adam's, its R_med {MLP: "
               "ratio of R_med, typical batch} times", LEVELS, 2_000),
    Experiment("Cost", "A gradient costs O(n^2) in the textbook form, the same for every n in the "
               "Gram form", "", attention_cost, draw_attention_cost,
               "slope of log time against log n: textbook {linear, textbook: slope}, Gram form "
               "{linear, Gram form: slope}", ("published",), 0),
    Experiment("Question", "What does the model see, and how heavy are the tails of x?", "",
               the_model, draw_the_model,
               "The 99.9 % quantile of |x|^2 over its mean: Gaussian {Gaussian: 99.9 % quantile of "
               "|x|^2 over its mean}, Setting 3 {Setting 3: 99.9 % quantile of |x|^2 over its "
               "mean}"),
    Experiment("Question", "How finely must a step be scaled to do what Adam does?", "",
               granularity, draw_granularity,
               "Final loss over Adam's: " + "; ".join(
                   words + of_settings(f": final loss {scaling} / Adam")
                   for words, scaling in (("SGD ", "SGD"), ("one scale ", "one scale"),
                                          ("a layer ", "a layer")))),
    Experiment("Question", "What is left of the gap when the rate may fall?", "",
               schedules, draw_schedules,
               "SGD's final loss over Adam's: " + "; ".join(of_settings(
                   f", {kind}: final loss SGD / Adam") + words for kind, words in (
                       ("constant", " at a constant rate"), ("linear", " at a falling one")))),
    Experiment("Question", "Is SGD's rate at its limit?", "",
               edge_of_stability, draw_edge_of_stability,
               "SGD's largest eigenvalue over the limit of stability, rate 0.2: {rate 0.2: at the "
               "start} at the start, then {rate 0.2: largest eigenvalue / limit}"),
    Experiment("Question", "Which optimizer should I take, and how carefully must its rate be "
               "chosen?", "", screen, draw_screen,
               "Loss over the best one's: {first three, and loss over the best one's}"),
    Experiment("Question", "What moves the ratio of R_med: the evaluation batch, the rates, the "
               "matrices?", "", condition_causes, draw_condition_causes,
               "R_med of SGD / Adam in Setting 1: {Setting 1, as published}, {Setting 1, half the "
               "rates} at half the rates, {Setting 1, full matrices} in full matrices"),
    Experiment("Question", "At which initial scale and depth do gradients vanish or explode, or "
               "models train?", "", initialization, draw_initialization,
               "L = 8, SGD, blocks: {L = 8, blocks: SGD}; full matrices: {L = 8, full matrices: "
               "SGD}"),
    Experiment("Question", "How do heavy tails and depth interact?", "",
               tails_times_depth, draw_tails_times_depth,
               "SGD / Adam from L = 2 to 6: {k = 2.5, L = 2: final loss SGD / Adam} to {k = 2.5, L "
               "= 6: final loss SGD / Adam} for Gaussian x, {k = 0.1, L = 2: final loss SGD / "
               "Adam} to {k = 0.1, L = 6: final loss SGD / Adam} for the heaviest tails"),
    Experiment("Question", "How far above the Bayes risk does each optimizer end when labels are "
               "noisy?", "", label_noise, draw_label_noise,
               "SGD's excess risk is {sigma = 0: excess SGD / Adam}, {sigma = 1: excess SGD / "
               "Adam}, {sigma = 3: excess SGD / Adam} times Adam's at sigma = 0, 1, 3"),
    Experiment("Question", "What helps against heavy-tailed prompts?", "", remedies, draw_remedies,
               "In Setting 3 normalised x multiplies SGD's final loss by {normalised x: SGD, with "
               "/ without}, Adam's by {normalised x: Adam, with / without}"),
    Experiment("Question", "What is in the weights: is a trained layer a step of gradient descent?",
               "", what_it_learns, draw_what_it_learns,
               "Adam's loss is {L = 2: final loss / that of L sizes, P = g I} (L = 2) and {L = 4: "
               "final loss / that of L sizes, P = g I} (L = 4) times that of the best multiples of "
               "the identity"),
    Experiment("Question", "Does one trained layer reach its closed form, whatever x is?", "",
               one_layer, draw_one_layer,
               "Learnt over best step size: {gaussian x, n = 20: learnt / best c} for Gaussian x, "
               "{student x, n = 20: learnt / best c} for Student's t"),
)}


# ---- Statistics and verdict ----------------------------------------------------------------------

LEAST_SEEDS, SIDE = 5, 0.025  # no interval from fewer seeds; one-sided level each way


class Part(NamedTuple):
    """What was measured: a value for each seed, or a text. A bound makes it a part of the claim, at
    its level: that the mean over seeds lies above it, or below; or, by a sign test, the median."""

    name: str
    values: object  # (seeds,), or a text
    above: float = None
    below: float = None
    log: bool = True  # averaged on the logarithmic scale: ratios, and what spans decades
    level: str = "published"
    sign: bool = False

    @property
    def bounded(self):
        return (self.above, self.below) != (None, None)

    def scaled(self, values):
        with np.errstate(all="ignore"):  # a run that diverged, a ratio to 0
            return np.log(values) if self.log else np.asarray(values, float)

    def summary(self):
        """Mean over seeds and its 95 % t interval; NaN for what cannot be computed."""
        with np.errstate(all="ignore"):
            middle, half = t_interval(self.scaled(self.values))
            half = half if len(self.values) >= LEAST_SEEDS else np.nan
            found = np.array([middle, middle - half, middle + half])
            return np.exp(found) if self.log else found

    def by_sign(self):
        """Whether the sign test decides: it was chosen, a value is infinite (censored), or one seed
        dominates, so that the interval is twice as wide as without it."""
        values = self.scaled(self.values)
        if self.sign or np.isinf(values).any():
            return True
        if len(values) < LEAST_SEEDS:
            return False
        without = [t_interval(np.delete(values, i))[1] for i in range(len(values))]
        return t_interval(values)[1] > 2 * min(without) + 1e-12  # no rounding of equal values

    def p_values(self):
        """One-sided p of what is claimed and of its opposite; NaN from too few seeds."""
        values, test = self.scaled(self.values), sign_test if self.by_sign() else t_test
        if len(values) < LEAST_SEEDS or np.isnan(values).any():
            return np.nan, np.nan
        sides = []
        if self.above is not None:
            sides.append(test(values - self.scaled(self.above)))
        if self.below is not None:
            sides.append(test(self.scaled(self.below) - values))
        return max(claimed for claimed, _ in sides), min(opposite for _, opposite in sides)


def t_interval(values):
    """Mean and half width of the 95 % t interval; the latter is NaN for fewer than four values, and
    both if one value is not finite."""
    n = len(values)
    if not np.isfinite(values).all():
        return np.nan, np.nan
    if n < LEAST_SEEDS - 1:  # one less: `by_sign` leaves one out
        return values.mean(), np.nan
    phi, cdf = t_table(n - 1)
    quantile = np.sqrt(n - 1) * np.tan(np.interp(1 - SIDE, cdf, phi))
    return values.mean(), quantile * values.std(ddof=1) / np.sqrt(n)


@functools.cache
def t_table(dof):
    """Student's distribution function: for t = sqrt(dof) tan(phi) its density is proportional to
    cos(phi)^(dof - 1)."""
    phi, width = np.linspace(-np.pi / 2, np.pi / 2, 100_001, retstep=True)
    cdf = np.cumsum(np.append(0, np.cos(phi[:-1] + width / 2) ** (dof - 1)))
    return phi, cdf / cdf[-1]


def t_test(differences):
    """One-sided p that the mean lies above 0, and that it lies below."""
    n = len(differences)
    with np.errstate(all="ignore"):
        t = differences.mean() / (differences.std(ddof=1) / np.sqrt(n))
    phi, cdf = t_table(n - 1)
    share = np.interp(np.arctan(t / np.sqrt(n - 1)), phi, cdf)
    return 1 - share, share


def sign_test(differences):
    """The same of the median, exactly: signs are tosses of a coin; 0 counts for neither."""
    above, below = int((differences > 0).sum()), int((differences < 0).sum())
    n = above + below
    return tuple(sum(comb(n, k) for k in range(least, n + 1)) / 2**n for least in (above, below))


def holm(p_values):
    """Names of a dict of p values that Holm's correction calls significant."""
    found, ordered = set(), sorted(p_values, key=lambda name: np.nan_to_num(p_values[name], nan=1))
    for i, name in enumerate(ordered):
        if not p_values[name] < SIDE / (len(p_values) - i):
            break
        found.add(name)
    return found


def decisions(parts):
    """{name: holds, open or against} of the parts with a bound. One is against only after Holm's
    correction over the parts of its level: of twelve bounds one fails by chance quite often."""
    found = {}
    for level in LEVELS:
        p = {part.name: part.p_values() for part in parts if part.bounded and part.level == level}
        against = holm({name: opposite for name, (_, opposite) in p.items()})
        found |= {name: "holds" if claimed < SIDE else "against" if name in against else "open"
                  for name, (claimed, _) in p.items()}
    return found


def verdicts(parts):
    """{level: reproduced, not reproduced or open} for the levels at which something is claimed."""
    decided, found = decisions(parts), {}
    for level in LEVELS:
        words = {decided[part.name] for part in parts if part.bounded and part.level == level}
        if words:
            found[level] = ("not reproduced" if "against" in words else
                             "open" if "open" in words else "reproduced")
    return found


def as_dict(part, decided):
    """For JSON, where NaN is None and infinity "censored"; a text as it is."""
    if isinstance(part.values, str):
        return part.values
    mean, low, high = numbers(part.summary())
    found = dict(per_seed=numbers(part.values), mean=mean, interval_95=[low, high])
    if not part.bounded:
        return found
    bounds = {name: bound for name, bound in dict(above=part.above, below=part.below).items()
              if bound is not None}
    claimed, opposite = numbers(part.p_values())
    test = dict(test="t", p_claimed=claimed, p_opposite=opposite)
    if part.by_sign():
        test |= dict(test="sign", least_p=0.5 ** len(part.values),
                     median=numbers([np.median(part.values)])[0])
    return found | bounds | test | dict(level=part.level, decision=decided[part.name])


def numbers(values):
    """What JSON can hold: None for NaN, and "censored" for what lies beyond the end of a run."""
    return ["censored" if np.isinf(value) else float(value) if np.isfinite(value) else None
            for value in values]


# ---- What is asked of a run, and taken from its arrays -------------------------------------------


def thorough(run):
    """Whether the run is long enough for the robust level."""
    return run.seeds >= LEAST_SEEDS and run.steps >= 2000


def fresh(run, **changes):
    """The same on seeds not looked at before."""
    return run.spend(first_seed=FRESH, **changes)


def pilots(run):
    """The same on three seeds, on which rates are chosen."""
    return run.spend(seeds=3, first_seed=0, lr=None)


def tuned(run, settings, grid, **arguments):
    """Every optimizer at the best rate of grid(setting, name), chosen on the pilot seeds and
    trained on fresh ones: what `tune` gives of the former, and what `train` gives of the latter."""
    tried = pilots(run).tune(settings, grid, **arguments)
    best = {name: setting._replace(lr={each: by.rates[by.best] for each, by in tried[name].items()})
            for name, setting in settings.items()}
    return tried, fresh(run, lr=None).train(best, **arguments)


def evaluated_at_the_end(run, setting, runs):
    """{optimizer: (seeds,)}: the loss on evaluation batches of 1,000 prompts, median over twenty of
    them and over the last two snapshots; comparable whatever the batch of the training was."""
    found = run.along(training.loss_at, setting, runs, slice(-2, None), batches=20)
    return {each: np.median(values, axis=(1, 2)) for each, values in found.items()}


def runs_at(tried, rate):
    """The runs of a training.Tried at one of its rates."""
    return tried.runs[list(tried.rates).index(rate)]


def only(runs, seeds):
    """The first seeds of what was trained in a setting."""
    return {each: {name: values[:seeds] for name, values in arrays.items()}
            for each, arrays in runs.items()}


def first_batch(values):
    """Of values (..., batches)."""
    return values[..., 0]


def typical_batch(values):
    """Their median over batches."""
    return np.median(values, axis=-1)


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


def tail(norms, unit=None):
    """Of norms (seeds, draws): the values that these shares of a seed's draws reach or exceed,
    over the seed's median, or another unit (seeds,); (seeds, shares)."""
    draws = norms.shape[1]
    unit = np.median(norms, axis=1) if unit is None else unit
    descending = -np.sort(-norms, axis=1) / unit[:, None]
    return descending[:, np.round(tail_shares(draws) * draws).astype(int) - 1]


def path_points(last, count):
    """Numbers of `count` snapshots, or of all if there are fewer, from the first to the last."""
    return np.unique(np.linspace(0, last, count).astype(int))


def without_start(path, start=0.1):
    """The median over a path (..., points) without its first tenth, or another share of it; NaN if
    a run diverged."""
    return np.median(path[..., int(start * path.shape[-1]) :], axis=-1)


def line(x, y):
    """Slope and offset of the line through the points at which both are finite; NaN if there are
    no two of different x."""
    good = np.isfinite(x) & np.isfinite(y)
    return np.polyfit(x[good], y[good], 1) if len(set(x[good])) > 1 else (np.nan, np.nan)


def log_slope(x, y):
    """Slope of log y against log x, where both are positive."""
    with np.errstate(all="ignore"):
        return line(np.log(x), np.log(y))[0]


def last_fifty(losses):
    """Medians of the last 50 losses (..., steps) after every step; in the beginning, of all."""
    window = min(50, losses.shape[-1])
    early = [np.median(losses[..., :t], axis=-1)[..., None] for t in range(1, window)]
    later = np.lib.stride_tricks.sliding_window_view(losses, window, axis=-1)
    return np.concatenate([*early, np.median(later, axis=-1)], axis=-1)


def steps_to(medians, target):
    """After how many steps (...,) the medians (..., steps) of the last 50 losses are first below
    the target; infinitely many if they never are."""
    below = medians < target
    return np.where(below.any(axis=-1), 1 + below.argmax(axis=-1), np.inf)


def over(first, second):
    """The ratio; NaN of two infinite numbers."""
    with np.errstate(all="ignore"):
        return first / second


def first_over_second(values):
    """Of a dict by optimizer: the first one's values over the second one's, SGD over Adam."""
    first, second, *_ = values.values()
    return over(first, second)


def counted(steps, run):
    """Steps by seed, in words; those that are censored as such."""
    return ", ".join(f"{each:.0f}" if np.isfinite(each) else f"> {run.steps:,}" for each in steps)


# ---- Files ---------------------------------------------------------------------------------------

WITHOUT_OPTIMIZERS = ("gradient_noise", "attention_cost", "the_model")  # nothing is trained there


def finding(name, run, arrays, parts):
    """What a run says of an experiment's claim, ready for JSON."""
    row, decided = EXPERIMENTS[name], decisions(parts)
    seeds, steps = (int(number) for number in arrays.get("spent", (run.seeds, run.steps)))
    rates = {each: float(rate) for each, rate in (run.lr or {}).items()}
    measured = {part.name: as_dict(part, decided) for part in parts}
    return dict(
        claim=row.claim, claimed=row.claimed, paper=row.paper,
        verdicts=words_for(name, run, steps, parts),
        lines=[f"{each}: {in_words(value)}" for each, value in measured.items()],
        measured=measured,
        configuration=dict(seeds=seeds, steps=steps, optimizers=run.names, lr=rates),
        versions=dict(python=platform.python_version(), numpy=np.__version__,
                      matplotlib=matplotlib.__version__, machine=platform.machine()))


def words_for(name, run, steps, parts):
    """{level: verdict, or why there is none}; {} for a question."""
    row, usual, found = EXPERIMENTS[name], default_run(name).names, verdicts(parts)
    why = None
    if row.levels and run.seeds < LEAST_SEEDS:
        why = (f"too short for a verdict: {run.seeds} seed{'s' if run.seeds > 1 else ''}, wants "
               f"{LEAST_SEEDS}")
    elif steps < row.steps:
        why = f"too short for a verdict: {steps:,} steps, wants {row.steps:,}"
    elif run.names != usual and name not in WITHOUT_OPTIMIZERS:
        why = f"not judged: the claim is about {' and '.join(usual)}"
    elif run.lr and name not in WITHOUT_OPTIMIZERS:
        why = "not judged: the rates are not those of the claim"
    return {each: why if why and each in found else found.get(each, "needs --full")
            for each in row.levels}


def in_words(value):
    """What was measured, with its interval or by seed, and what it decides; a text as it is."""
    if isinstance(value, str):
        return value
    (low, high), seeds, mean = value["interval_95"], value["per_seed"], value["mean"]
    if value.get("test") == "sign":
        low, high = value.get("above", -np.inf), value.get("below", np.inf)
        inside = sum(low < (np.inf if each == "censored" else each) <= high
                     for each in seeds if each is not None)
        words = [f"{name} {value[name]:.3g}" for name in ("above", "below") if name in value]
        few = "" if value["least_p"] < SIDE else ", too few for a sign test"
        text = (f"median {short(value['median'])}, {inside} of {len(seeds)} seeds "
                f"{' and '.join(words)}{few}")
    elif all(isinstance(each, float) for each in (low, high, mean)):
        text = f"{mean:.3g} [{low:.3g}, {high:.3g}]"
    else:
        text = ", ".join(map(short, seeds)) + (" by seed" if len(seeds) > 1 else "")
    return f"{text}: {value['decision']}" if "decision" in value else text


def short(number):
    return f"{number:.3g}" if isinstance(number, float) else "unknown" if number is None else number


def headline(name, found, between=" "):
    """What was found, if it was measured, else the claim; and the verdict (in a figure, on a line
    of its own)."""
    text = plotting.filled([EXPERIMENTS[name].found], printed(found)) or found["claimed"]
    words = verdict_line(found) if found["verdicts"] else ""
    return f"{found['claim']}: {text}{between}({words})" if words else text


def printed(found):
    """{part: what a figure prints of it}: the mean over seeds (the median, if that is judged), and
    whether it is open or against."""
    texts = {}
    for name, value in found["measured"].items():
        texts[name] = value
        if not isinstance(value, str):
            number = value.get("median", value["mean"])
            texts[name] = short(number)
            if isinstance(number, float):
                texts[name] = f"{float(short(number)):g}"  # 3130 rather than 3.13e+03
            marks = ["median"] if value.get("test") == "sign" else []
            marks += {"open", "against"} & {value.get("decision")}
            if marks:
                texts[name] += f" ({', '.join(marks)})"
    return texts


def verdict_line(found):
    """The verdicts of all levels in one line; those that agree together."""
    levels = {}  # {verdict: its levels}
    for level, word in found["verdicts"].items():
        levels.setdefault(word, []).append(level)
    words = [f"{' and '.join(names)}: {word}" for word, names in levels.items()]
    return "; ".join(words) or "measured, nothing claimed"


def default_run(name):
    """The first look that an experiment takes if nothing else is asked for."""
    return (EXPERIMENTS[name].measure.__defaults__ or [Run()])[0]


def measure(name, run):
    """Run an experiment and keep NAME.npz, the arrays with the finding, NAME.json, and a line in
    times.txt, in the run's folder. Returns the finding."""
    began = time.monotonic()
    arrays, parts = EXPERIMENTS[name].measure(run)
    found = finding(name, run, arrays, parts)
    text = json.dumps(found, indent=1, allow_nan=False)
    training.write(Path(run.out, f"{name}.npz"),
                   lambda file: np.savez_compressed(file, finding=text, **arrays))
    training.write(Path(run.out, f"{name}.json"), lambda file: file.write(f"{text}\n".encode()))
    spent = f"{run.seeds} seeds, {run.steps:,} steps: {time.monotonic() - began:.0f} s"
    with open(Path(run.out, "times.txt"), "a", encoding="utf-8") as file:
        file.write(f"{name}: {spent}\n")
    return found


def load(path):
    """(arrays, finding) of a kept NAME.npz. Raises Mistake if it is none."""
    try:
        with np.load(path) as stored:
            arrays = dict(stored)
        return arrays, dict(json.loads(str(arrays.pop("finding"))))
    except Exception as error:  # whatever a damaged file makes of numpy and zipfile
        raise Mistake(f"{path}: got no results of an experiment ({error})") from None


def draw(name, arrays, found=None):
    """The figure of an experiment from its arrays; with a finding, its headline above."""
    above = (headline(name, found, "\n"), printed(found)) if found else ()
    return picture(EXPERIMENTS[name].draw, arrays, *above)


def save_figures(name, out, slides=False):
    """NAME.png, NAME.pdf and NAME.txt (the caption) from the NAME.npz in a folder; for slides
    NAME-1.png, NAME-1.pdf, ... with one panel each, too."""
    arrays, found = load(Path(out, f"{name}.npz"))
    figure = draw(name, arrays, found)
    pictures = {name: figure}
    if slides:
        pictures |= {f"{name}-{i}": each for i, each in enumerate(plotting.single_panels(
            EXPERIMENTS[name].draw, arrays, headline(name, found, "\n"), printed(found)), 1)}
    for stem, each in pictures.items():
        for form in ("png", "pdf"):
            training.write(Path(out, f"{stem}.{form}"),
                           lambda file: plotting.save(each, file, form))
    spent = found["configuration"]
    rates = "".join(f", {each} at {rate:g}" for each, rate in spent["lr"].items())
    claimed = f"Claimed: {found['claimed']}.\n" if found["verdicts"] else ""
    caption = (f"{headline(name, found)}\n{claimed}{figure.caption} {spent['seeds']} seeds, "
               f"{spent['steps']:,} steps{rates}.\n")
    training.write(Path(out, f"{name}.txt"), lambda file: file.write(caption.encode()))


def findings(out):
    """{name: finding} of what is in a folder. Raises Mistake if it is none, or a file is no
    finding."""
    if not Path(out).is_dir():
        raise Mistake(f"out: got {str(out)!r}, wants a folder with findings")
    found = {}
    for name in EXPERIMENTS:
        path = Path(out, f"{name}.json")
        if path.exists():
            try:
                found[name] = json.loads(path.read_text(encoding="utf-8"))
                headline(name, found[name]), decisive(name, found[name])
            except (ValueError, LookupError, TypeError, AttributeError):
                raise Mistake(f"out: got {path}, wants a finding of this program") from None
    return found


def report(out):
    """In Markdown, of the findings in a folder: the table claim | published | robust | number that
    decides, that of the questions, and how many experiments have no finding there."""
    found = findings(out)
    claims = ["| claim | published | robust | the number that decides |",
              "| --- | --- | --- | --- |"]
    questions = ["| question | what was found |", "| --- | --- |"]
    for name, each in found.items():
        number = decisive(name, each).replace("|", "\\|")  # |x|, in a table
        if EXPERIMENTS[name].levels:
            claims.append(f"| {each['claim']} `{name}`: {each['claimed']} | "
                          f"{counts(each, 'published')} | {counts(each, 'robust')} | {number} |")
        else:
            questions.append(f"| `{name}`: {each['claimed']} | {number} |")
    missing = [name for name in EXPERIMENTS if name not in found]
    count = f"{len(missing)} of {len(EXPERIMENTS)} experiments have no finding in this folder"
    tables = ["\n".join(rows) for rows in (claims, questions) if len(rows) > 2]
    return "\n\n".join(tables + ([f"{count}: {', '.join(missing)}"] if missing else []))


def gallery(out):
    """Write what is to be looked at in a folder: README.md, every figure with its caption and all
    lines of its finding; and, if there is a claim, scoreboard.png and .pdf."""
    found, target = findings(out), Path(out, "README.md")
    claims = {name: each for name, each in found.items() if each["verdicts"]}
    if not found:
        return
    if target.exists() and not target.read_text(encoding="utf-8").startswith("# What was found\n"):
        raise Mistake(f"out: got {target}, which this program did not write")
    texts = ["# What was found"] + ["![Every claim with its parts](scoreboard.png)"] * bool(claims)
    for name, each in found.items():
        spent, versions = each["configuration"], each["versions"]
        caption = Path(out, f"{name}.txt")
        texts += [f"## `{name}`", f"![{headline(name, each)}]({name}.png)",
                  caption.read_text(encoding="utf-8").strip() if caption.exists() else "",
                  "\n".join(["```text", *each["lines"], f"verdict: {verdict_line(each)}", "```"]),
                  f"{spent['seeds']} seeds, {spent['steps']:,} steps; " + ", ".join(
                      f"{what} {version}" for what, version in versions.items())]
    times = Path(out, "times.txt")
    if times.exists():
        texts += ["## Times", "\n".join(["```text", times.read_text(encoding="utf-8").strip(),
                                         "```"])]
    text = "\n\n".join(filter(None, texts)) + "\n"
    training.write(target, lambda file: file.write(text.encode()))
    if claims:
        claims = dict(sorted(claims.items(), key=lambda row: not row[1]["claim"][1:].isdigit()))
        figure = picture(draw_scoreboard, claims, score(claims))
        for form in ("png", "pdf"):
            training.write(Path(out, f"scoreboard.{form}"),
                           lambda file: plotting.save(figure, file, form))


def score(claims):
    """How many of the paper's claims are reproduced at each level, in words."""
    words = []
    for level in LEVELS:
        judged = [each["verdicts"][level] for each in claims.values()
                  if level in each["verdicts"] and each["claim"][1:].isdigit()]
        words.append(f"{judged.count('reproduced')} of {len(judged)} {level}")
    return f"Reproduced of the claims C1 to C12: {', '.join(words)}"


def draw_scoreboard(figure, claims):
    """A row a claim, from {name: finding}: a mark a part, published and robust apart, and the
    headline."""
    ax = figure.subplots()
    ax.set(xlim=(0, 1), ylim=(len(claims) + 0.6, -0.8))
    ax.axis("off")
    columns = {"claim": 0, "published": 0.34, "robust": 0.48, "what was found": 0.62}
    for title, x in columns.items():
        ax.text(x, -0.6, title, weight="bold", va="center")
    for y, (name, found) in enumerate(claims.items()):
        ax.axhline(y - 0.5 + 0.08, color="#DDDDDD", lw=1)
        found_text = plotting.filled([EXPERIMENTS[name].found], printed(found))
        for x, text, width in ((0, f"{found['claim']}: {found['claimed']}", 46),
                               (columns["what was found"], found_text, 50)):
            ax.text(x, y, plotting.in_symbols(textwrap.fill(text, width)), va="center",
                    fontsize=12.5, linespacing=1.0)
        for level in found["verdicts"]:
            plotting.marks(ax, columns[level], y, [
                value["decision"] for value in found["measured"].values()
                if not isinstance(value, str) and value.get("level") == level])
    legend = len(claims) + 0.2  # its height
    ax.text(0, legend, "a mark for each part", va="center", fontsize=12.5)
    ax.text(columns["what was found"], legend, textwrap.fill(
        "published: the paper's statistic and rates; robust: best rates, many batches, the right "
        "null, or new seeds", 50), va="center", fontsize=12.5, linespacing=1.0)
    for i, word in enumerate(plotting.MARKS):
        plotting.marks(ax, columns["published"] + 0.1 * i, legend, [word])
        ax.text(columns["published"] + 0.015 + 0.1 * i, legend, word, va="center", fontsize=12)
    return "A mark for each part of a claim: it holds, is open, or is against the claim."


def counts(found, level):
    """The verdict of a level with the number of parts that hold, are open, are against."""
    if level not in found["verdicts"]:
        return ""
    words = [value["decision"] for value in found["measured"].values()
             if not isinstance(value, str) and value.get("level") == level]
    each = ", ".join(f"{words.count(word)} {word}" for word in ("holds", "open", "against")
                     if word in words).replace("holds", "hold")
    return f"{found['verdicts'][level]}{f' ({each})' if each else ''}"


def decisive(name, found):
    """Of the last level that is judged the part that is against, else open, else that holds, and of
    these the one with the least evidence for the claim; of a question its headline, or the first
    line."""
    judged = [(key, value) for key, value in found["measured"].items()
              if not isinstance(value, str) and "decision" in value]
    last = [(key, value) for key, value in judged if value["level"] == judged[-1][1]["level"]]
    if not last:
        return plotting.filled([EXPERIMENTS[name].found], printed(found)) or (
            found["lines"][0])
    order = "against", "open", "holds"
    key, value = min(last, key=lambda pair: (
        order.index(pair[1]["decision"]), -(pair[1]["p_claimed"] or 0)))
    return f"{key}: {in_words(value)}"


# ---- The command line ----------------------------------------------------------------------------

QUICK = dict(seeds=2, steps=100)
FULL = dict(seeds=6, steps=10_000)  # the paper's protocol
EXAMPLES = """
examples:
  python experiments.py                                  the list of experiments
  python experiments.py adam_vs_sgd                      a first look, also as C1 or adam-vs-sgd
  python experiments.py C1 C2 --quick                    two of them, in seconds
  python experiments.py depth --full --out results       the paper's protocol; goes on where it was
                                                         interrupted
  python experiments.py adam_vs_sgd --lr SGD=0.05        another learning rate
  python experiments.py screen --optimizers SGD Adam mine.Lion
                                                         your own optimizer, class Lion in mine.py
  python experiments.py adam_vs_sgd --redraw --slides --out figures
                                                         draw again what is kept, a panel a file
  python experiments.py report --out results             the table of what a folder holds, with a
                                                         gallery and a scoreboard
"""


def command_line():
    """The options; a mistake costs one line and status 2."""
    parser = argparse.ArgumentParser(
        "experiments.py", description="Run experiments; without a name, list them.",
        epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = lambda message: parser.exit(
        2, f"experiments.py: {' '.join(message.split())}\n")
    parser.add_argument("names", nargs="*", metavar="name",
                        help="an experiment, or its claim as C1; all; report; list")
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
    return parser


def names_asked_for(parser, given):
    """Of the experiments; none for a list or a report."""
    names = []
    if given.names not in (["report"], ["list"]):
        for text in given.names:
            if text in ("report", "list"):
                parser.error(f"{text}: got other names beside it, wants none (--out is the folder)")
            if not meant(text):
                parser.exit(2, f"experiments.py: {unknown(text)}\n")
            names += [name for name in meant(text) if name not in names]
    spends = given.full or given.quick or given.seeds or given.steps or given.lr
    if given.redraw and (spends or given.optimizers):
        parser.error("--redraw: got options of a training, wants none: it trains nothing")
    if not names and given.names and (spends or given.optimizers or given.redraw):
        parser.error(f"{given.names[0]}: got options of a training, wants none: it trains nothing")
    return names


def parse(arguments):
    """(options, {experiment's name: Run}); exits with status 2 and one line on a mistake."""
    parser = command_line()
    given = parser.parse_intermixed_args(arguments)
    names = names_asked_for(parser, given)
    if not given.names and arguments:
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


def meant(text):
    """The names of the experiments that a word means: one of them, with - or _, a claim, all."""
    word = text.lower().replace("-", "_")
    return [name for name, row in EXPERIMENTS.items()
            if word in (name, row.claim.lower(), "all") and word != "question"]


def unknown(text):
    """What is said of a word that means none."""
    word = text.lower().replace("-", "_")
    near = [name for name in EXPERIMENTS if word and name.startswith(word)] or (
        difflib.get_close_matches(word, EXPERIMENTS, 1))
    names = [*EXPERIMENTS, "all", "report", "list"]
    columns = ["".join(f"  {name:<22}" for name in names[i : i + 4]).rstrip()
               for i in range(0, len(names), 4)]
    question = f", did you mean {near[0]}?" if near else ", wants one of these, or C1 to C12:"
    return "\n".join([f"experiment: got {text!r}{question}", *columns])


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
        if equals and name not in names:
            raise ValueError(f"lr: got {text!r}, wants RATE or NAME=RATE of {', '.join(names)}")
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
        if given.names in ([], ["list"]):
            print("\n".join(f"{name:<24}{row.claim}: {row.claimed}"
                            for name, row in EXPERIMENTS.items()), flush=True)
        elif given.names == ["report"]:
            print(report(given.out), flush=True)
            gallery(given.out)
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
                    f"verdict: {verdict_line(found)}", str(Path(run.out, f"{name}.png")),
                    f"next: {next_step(name, given)}"]), flush=True)
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


def next_step(name, given):
    """What to try after a run."""
    if given.full:
        return f"python experiments.py report --out {given.out}"
    own = [f"--{option} {' '.join(getattr(given, option))}" for option in ("optimizers", "lr")
           if getattr(given, option)]
    return " ".join([f"python experiments.py {name} --full", *own])


def redraw(names, given):
    """Draw what is kept in a folder; of `all` what is there."""
    if given.names == ["all"]:
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
