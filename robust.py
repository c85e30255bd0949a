"""The paper's claims asked harder: `python experiments.py NAME --robust`.

The names are those of experiments.py. The first line of each docstring says the claim again, the
second which objection is tested: that rates were not tuned, that one batch decides, that noise was
compared with nothing. Seeds start at 1000 (FRESH; C9's at 1100, C12's at 2000), so none was looked
at before the bounds were set; rates are chosen on seeds from 0 on. `NAME.full` has the arguments of
`--full`; the defaults are a first look. Words and axes as in experiments.py. Nothing here is in the
paper.
"""

import numpy as np

import experiments as paper
import linattn
import plotting
from data import (DEEP, LARGE, LIGHT_TAILS, NONLINEAR, NONLINEAR_TASK, PAPER_SETTINGS, SETTING_1,
                  SETTING_3, SPHERICAL)
from experiments import PRINTED, attention_parts, smoother
from optimizers import SGD, Adam
from plotting import (curves, dots, in_settings, listed, note, reference, smoothness_axis,
                      tails)
from runs import cached
from training import (FRESH, FRESHER, about_rates, at_best_rates, best_in_words, best_rate,
                      block_centres, by_name, condition, contestants, diagonal, evaluation_batch,
                      experiment, final_loss, gradient_norm, grid, labels_of, linear_alone,
                      log_slope, loss_at, noise_norms, noise_tails, points_of, r_med, rates_of,
                      ratio, require, running_median, skewness, smoothness, spectral_norm, spread,
                      stacked, steps_to, sweep, tail_shares, train, values_along, without_start)
from verdicts import Part, short

BOTH = (SGD, Adam)


@experiment(FRESH)
def adam_vs_sgd(seeds=6, steps=200, optimizers=BOTH, batches=5, settings=PAPER_SETTINGS):
    """C1: Adam beats SGD in Settings 1, 2 and 3.

    Objection: the gap is one of rates. Each optimizer at its best constant rate of a grid of seven.
    Claimed, in each setting: SGD's final loss over Adam's, each at the rate of the lowest final
    loss, above 1 (primary); and SGD's steps over Adam's until the median of the last 50 losses is
    below a target, each at the rate with the fewest steps. The target is the lowest of LADDER,
    fractions of d, that both reach on all pilot seeds; a run that does not get there counts as
    infinitely many steps. Such a target is near the level at which a run ends; so the same is
    measured for the next two higher ones. A limit: quantiles of the loss of single prompts, at the
    published rates, and at the best ones for the final loss, where it is their mean, too: where
    SGD's over Adam's falls below 1, Adam has stopped being lower.
    """
    rates, target = chosen_rates(settings, optimizers, steps)
    confirmed = sweep(settings, by_name(optimizers), at_chosen(rates), seeds, steps)
    names = [optimizer.__name__ for optimizer in optimizers]
    pair, parts = " / ".join(names[:2]), []
    arrays = labels_of(settings, optimizers=names, quantiles=QUANTILES,
                       last=50 * ((steps - 1) // 50))
    for name, setting in settings.items():
        loss, soonest = (np.stack([confirmed[name, each][rates[name, each][what]]["loss"]
                                   for each in names], axis=1) for what in ("final loss", "steps"))
        final, needed = final_loss(loss), steps_to(target[name], soonest)  # (seeds, optimizers)
        parts += [Part(f"{name} loss", f"{name}, best rates: final loss {pair}",
                       ratio(final[:, 0], final[:, 1]), above=1),
                  Part(f"{name} steps", f"{name}, best rates: steps to loss {target[name]:g}, "
                       f"{pair}", ratio(needed[:, 0], needed[:, 1]), above=1, primary=False)]
        higher = [d for d in setting.data["d"] * np.array(LADDER) if d > 1.001 * target[name]][-2:]
        for each in higher:
            there = steps_to(each, soonest)
            parts.append(Part(f"{name} steps {each:g}", f"{name}, limit: steps to loss {each:g} at "
                              f"the same rates, {pair}", ratio(there[:, 0], there[:, 1])))
        for i, each in enumerate(names):
            parts += [Part(f"{name} {each}", f"{name}, best rate: final loss {each}", final[:, i]),
                      Part(f"{name} {each} steps", f"{name}: steps of {each} to loss "
                           f"{target[name]:g}", needed[:, i]),
                      Part(f"{name} {each} rates", f"{name}: rates of {each}", ", ".join(
                          f"{rate:g} for {what}" for what, rate in rates[name, each].items()))]
        arrays[f"{name} rates"] = ", ".join(f"{each} {rates[name, each]['final loss']:g}"
                                            for each in names)
        for words, which in (("best rates", "final loss"), ("published rates", "published")):
            both = contestants(setting, optimizers, {  # the best one where none is published
                each: rates[name, each].get(which, rates[name, each]["final loss"])
                for each in names})
            quantiles, more = single_prompts(name, words, setting, both, seeds, steps, batches)
            parts += more
            if which == "final loss":
                arrays[f"{name} {words} quantiles"] = quantiles
    return arrays, parts


LADDER = (0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 0.0005, 0.0002, 0.0001)


def chosen_rates(settings, optimizers, steps):
    """From three pilot seeds at this length, two dicts: {(setting, optimizer): {"final loss": rate,
    "steps": rate, "published": rate}}, the last one where there is one, and {setting: target}, the
    lowest loss of the ladder that all optimizers reach."""
    candidates = by_name(optimizers)
    tried = sweep(settings, candidates, grid(settings, candidates), range(3), steps)
    rates, target = {}, {}
    for name, setting in settings.items():
        target[name] = setting.data["d"] * LADDER[0]  # of a short run, in which nobody gets there
        soonest = {each: best_rate(tried[name, each]) for each in candidates}
        for fraction in LADDER:  # from high to low
            found = {each: fastest(tried[name, each], setting.data["d"] * fraction)
                     for each in candidates}
            if None not in found.values():
                target[name], soonest = setting.data["d"] * fraction, found
        for each in candidates:
            rates[name, each] = {"final loss": best_rate(tried[name, each]),
                                 "steps": soonest[each]}
            if each in setting.lr:
                rates[name, each]["published"] = setting.lr[each]
    return rates, target


def at_chosen(rates):
    """The grid of these rates, for `sweep`."""
    return {pair: sorted(set(chosen.values())) for pair, chosen in rates.items()}


def fastest(by_rate, target):
    """The rate with the fewest steps to the target (geometric mean); None if at no rate every seed
    gets there."""
    steps = {rate: np.log(steps_to(target, run["loss"])).mean() for rate, run in by_rate.items()}
    best = min(steps, key=steps.get)
    return best if np.isfinite(steps[best]) else None


QUANTILES = 0.5, 0.9, 0.99, 0.999, 0.9999


def single_prompts(name, words, setting, both, seeds, steps, batches):
    """C1, limit: quantiles of the squared error over single prompts (seeds, optimizers, quantiles)
    at the last snapshot, on so many batches of 1,000; and parts, SGD's over Adam's, at the best
    rates that of the mean, too."""
    last, pair = (steps - 1) // 50, " / ".join(each.__name__ for each, _ in both[:2])
    errors = values_along(squared_errors, setting, both, seeds, steps, (last,), batches)
    errors = errors.reshape(len(seeds), len(both), -1)  # the prompts of all batches
    quantiles = np.quantile(errors, QUANTILES, axis=-1)  # (quantiles, seeds, optimizers)
    parts = [Part(f"{name} {words} {q:g}", f"{name}, {words}, limit: quantile {q:g} of the "
                  f"prompts' loss at iteration {50 * last:,}, {pair}", values)
             for q, values in zip(QUANTILES, ratio(quantiles[..., 0], quantiles[..., 1]))]
    if words == "best rates":
        mean = errors.mean(axis=-1)  # (seeds, optimizers)
        parts.append(Part(f"{name} {words} mean", f"{name}, {words}, limit: mean of the prompts' "
                          f"loss, {pair}", ratio(mean[:, 0], mean[:, 1])))
    return quantiles.transpose(1, 2, 0), parts


def squared_errors(setting, before, _, prompts):
    """Of every prompt, (1000,), for linear attention."""
    linear_alone(setting)
    return (linattn.predict(before, prompts) - prompts.target) ** 2


def draw_adam_vs_sgd(figure, arrays, found):
    """Left the ratios of the finding, a group a setting; right those of "SETTING best rates
    quantiles" (seeds, optimizers, quantiles), a series a setting."""
    names, (one, other) = list(arrays["settings"]), [str(each) for each in arrays["optimizers"][:2]]
    final, single = figure.subplots(1, 2, width_ratios=(1, 1.6))
    dots(final, names, [found[f"{name} loss"].values for name in names], yscale="log",
         title="final loss", ylabel=f"{one} / {other}")
    note(final, ", ".join(str(found[f"{name} loss"]) for name in names))
    for i, name in enumerate(names):
        quantiles = arrays[f"{name} best rates quantiles"]
        over = quantiles[:, 0] / quantiles[:, 1]  # (seeds, quantiles)
        dots(single, [f"{100 * q:g} %" for q in arrays["quantiles"]], over.T,
             plotting.OTHER_LOOKS[i], (i, len(names)), name, yscale="log",
             title="loss of single prompts", xlabel="quantile over prompts",
             ylabel=f"{one} / {other}")
    single.legend(loc="lower left")
    for ax in (final, single):
        reference(ax, 1)
    rarest = f"best rates {arrays['quantiles'][-1]:g}"
    lower = [name for name in names if found[f"{name} {rarest}"].interval[1] < 1]
    rare = f"; on the rarest prompts {one}'s is lower in {in_settings(lower)}" if lower else ""
    return (f"C1: at the best rates {one}'s final loss is "
            f"{plotting.span(found, names, '{} loss')} times {other}'s{rare}",
            "Each optimizer at its best rate for the final loss. Left: training loss at the end. "
            "Right: quantiles of the loss of single prompts at iteration "
            f"{int(arrays['last']):,}. A mark for each seed, bar: median; dotted: 1, no "
            "difference. " + plotting.rates(figure, arrays))


adam_vs_sgd.full = dict(steps=10_000, batches=100)


@experiment(FRESH)
def gradient_noise(seeds=12, draws=600, settings=PAPER_SETTINGS):
    """C2: Stochastic gradient noise is heavy-tailed in Settings 1, 2 and 3.

    Objection: the norm of a Gaussian vector is skewed, too. So the 99 % quantile of the noise norm
    over its median, minus the same of Gaussian vectors with the noise's own mean and covariance
    (the median of twenty samples of as many draws). Claimed, in each setting: above 0.
    """
    arrays, parts = labels_of(settings, share=tail_shares(draws)), []
    for name, setting in settings.items():
        norms, null = noise_norms(setting, seeds, draws)
        parts += against_gaussian(f"{name} spread", f"{name}: 99 % quantile over median of the "
                                  "noise norm", spread(norms), spread(null))
        arrays |= noise_tails(name, norms, null)
    return arrays, parts


def against_gaussian(key, label, observed, expected, primary=True):
    """Parts from a statistic of the noise (seeds,) and of Gaussian samples (seeds, samples)."""
    return [Part(key, f"{label}, minus that of Gaussian vectors",
                 observed - np.median(expected, axis=1), above=0, primary=primary),
            Part(f"{key} medians", f"{label}, medians over seeds",
                 f"{short(np.median(observed), 2)}, Gaussian {short(np.median(expected), 2)}")]


def draw_gradient_noise(figure, arrays, found):
    """A panel a setting: "SETTING tail" (seeds, shares) and "SETTING null" (shares,)."""
    row, reached, null = plotting.noises(figure, arrays)
    for name, ax in zip(arrays["settings"], row):
        note(ax, f"99 % / 50 % quantile {found[f'{name} spread medians']}")
    return (f"C2: one draw of the gradient noise in {plotting.rarity(arrays)} exceeds {reached} "
            f"medians, Gaussian ones {null}",
            plotting.NOISE)


gradient_noise.full = dict(draws=10_000)


@experiment(FRESH)
def condition_number(seeds=6, steps=300, optimizers=BOTH, lr=None, batches=3, pooled=(2, 10),
                     settings=PAPER_SETTINGS):
    """C3: R_med is larger along SGD's path than along Adam's.

    Objection: one evaluation batch decides. Per seed the median of SGD's R_med over Adam's over so
    many batches of 1,000 prompts, the same ones for all, at the published rates. Claimed, in each
    setting: above 1 at iterations 750 and 1250 (of a shorter run: at its last snapshot). Primary:
    the last of them. Limits, without a bound (pooled: the first so many seeds, so many batches):
    the ratio for the Hessian on many batches together; and at the first of the iterations, on the
    typical of five batches, with half and twice the rates, and with all of P and Q trained. Nothing
    is said of other iterations.
    """
    last = (steps - 1) // 50 * 50
    iterations = [t for t in PRINTED if t <= last] or [last]
    require(len(pooled) == 2, "pooled", pooled, "how many seeds, and how many batches")
    few, many = seeds[: pooled[0]], pooled[1]
    arrays, parts, limits = labels_of(
        settings, optimizers=[each.__name__ for each in optimizers], iterations=iterations,
        together=1000 * many), [], []

    def ratios(setting, both, seeds, batches, t, together=False):
        """SGD's R_med over Adam's, (seeds, batches), or (seeds,) for all batches together."""
        H = values_along(diagonal, setting, both, seeds, steps, (t // 50,), batches)[:, :, 0]
        # H (seeds, optimizers, batches, params)
        R = r_med(H.mean(axis=2) if together else H)  # the mean of Hessians is that on all
        return ratio(R[:, 0], R[:, 1])

    for name, setting in settings.items():
        both = contestants(setting, optimizers, lr)
        arrays[f"{name} rates"] = rates_of(both)
        for t in iterations:
            single = ratios(setting, both, seeds, batches, t)
            low, high = np.quantile(single, (0.05, 0.95))
            typical = np.median(single, axis=1)  # (seeds,)
            together = ratios(setting, both, few, many, t, together=True)
            parts += [
                Part(f"{name} {t}", f"{name}, iteration {t}, typical batch", typical, above=1,
                     primary=t == iterations[-1]),
                Part(f"{name} {t} together", f"{name}, iteration {t}, limit: {1000 * many:,} "
                     "prompts together", together),
                Part(f"{name} {t} batches", f"{name}, iteration {t}: 90 % of single batches",
                     f"{low:.3g} to {high:.3g}")]
            arrays[f"{name}, iteration {t} typical batch"] = typical
        for cause, (factor, full) in CAUSES.items():
            changed = setting._replace(full=full)
            other = tuple((each, dict(lr=factor * given["lr"])) for each, given in both)
            typical = np.median(ratios(changed, other, few, 5, iterations[0]), axis=1)
            limits.append(Part(f"{name} {cause}", f"{name}, iteration {iterations[0]}, limit: "
                               f"{cause}", typical))
    return arrays, parts + limits


CAUSES = {"as it is": (1, False), "half the rates": (0.5, False),  # factor of the rates, full
          "twice the rates": (2, False), "full matrices": (1, True)}


def draw_condition_number(figure, arrays, found):
    """The ratio of R_med, a panel a setting: at each of the iterations "SETTING, iteration T
    typical batch", (seeds,)."""
    names, pair = arrays["settings"], " / ".join(arrays["optimizers"][:2])
    iterations = [int(t) for t in arrays["iterations"]][::-1]  # the one that decides above
    row = figure.subplots(1, len(names), sharex=True, sharey=True, squeeze=False)[0]
    for name, title, ax in zip(names, arrays["titles"], row):
        groups = [arrays[f"{name}, iteration {t} typical batch"] for t in iterations]
        plotting.forest(ax, [f"iteration\n{t:,}" for t in iterations], groups, xscale="log",
                        title=title, xlabel=f"$R_{{med}}$, {pair}")
        plotting.beside(ax, [found[f"{name} {t}"] for t in iterations])
        ax.axvline(1, color="#000000", ls=":", lw=1.5)
    return (f"C3: at iteration {iterations[0]}, on the median of batches, "
            f"{arrays['optimizers'][0]}'s condition number R_med is larger "
            f"{plotting.those(found, names, f'{{}} {iterations[0]}')}",
            f"R_med, {pair}, the median over the evaluation batches of 1,000 prompts: a pale dot "
            "for each seed, the median, a line for the interval of the sign test. Dotted: 1, no "
            f"difference. On {int(arrays['together']):,} prompts together, whose maximum rare ones "
            "carry: " + ", ".join(f"{name} {found[f'{name} {iterations[0]} together']}"
                                  for name in names)
            + f". Other rates and matrices: in the parts. {plotting.rates(figure, arrays)}")


condition_number.full = dict(seeds=18, steps=2500, batches=20, pooled=(6, 100))


@experiment(FRESH)
def directional_smoothness(seeds=6, steps=300, optimizers=BOTH, lr=None, batches=5, late=0,
                           settings=PAPER_SETTINGS):
    """C4: Directional smoothness is smaller along Adam's path.

    Objection: one evaluation batch decides. v^T H v on the typical batch, the median over so many
    at each point, at the published rates. Claimed, in each setting, of the median over the path
    without its first tenth: SGD's minus Adam's above 0. Limits: the mean over all batches; the
    typical batch in windows of 750 steps; and, on the first six seeds, from the last step to
    `late`, because the difference was seen to turn round. Besides, the share of v^T H v < 0.
    """
    points = points_of(steps, 25)
    t = 50 * np.array(points)
    arrays, parts = labels_of(settings, optimizers=[each.__name__ for each in optimizers]), []
    for name, setting in settings.items():
        both = contestants(setting, optimizers, lr)
        found = values_along(smoothness, setting, both, seeds, steps, points, batches)
        typical, together = np.median(found, axis=-1), found.mean(axis=-1)
        parts += smoother(f"{name} typical", f"{name}, typical batch, {steps:,} steps", both,
                          typical, above=0)
        parts += smoother(f"{name} together", f"{name}, limit: {1000 * batches:,} prompts together",
                          both, together)
        for first in (250, 1000, 1750):
            window = (first <= t) & (t < first + 750)
            if window.any():
                label = (f"{name}, limit: typical batch, steps {first:,} to "
                         f"{min(first + 750, steps):,}")
                parts += smoother(f"{name} {first}", label, both, typical[..., window], start=0)
        parts.append(Part(f"{name} negative", f"{name}, negative", ", ".join(
            f"{each.__name__} {100 * (found[:, i] < 0).mean():.0f} %"
            for i, (each, _) in enumerate(both))))
        arrays |= {f"{name} rates": rates_of(both), f"{name} typical batch": typical,
                   f"{name} together": together}
        if late > steps:
            points_late = tuple(range(steps // 50, (late - 1) // 50 + 1, 6))
            path = np.median(values_along(smoothness, setting, both, seeds[:6], late, points_late,
                                          batches), axis=-1)
            parts += smoother(f"{name} late", f"{name}, limit: typical batch, steps "
                              f"{50 * points_late[0]:,} to {50 * points_late[-1]:,}", both, path,
                              start=0)
    return arrays, parts


def draw_directional_smoothness(figure, arrays, found):
    """A row a statistic over batches: the medians over the path of "SETTING typical batch" and
    "SETTING together" (seeds, optimizers, points)."""
    names, optimizers = arrays["settings"], [str(each) for each in arrays["optimizers"]]
    panels = figure.subplots(2, len(names), sharey=True, squeeze=False)
    for row, kind, words in zip(panels, ("typical batch", "together"),
                                ("typical batch", "mean over batches")):
        for name, title, ax in zip(names, arrays["titles"], row):
            height = without_start(arrays[f"{name} {kind}"])  # (seeds, optimizers)
            over = np.median(height[:, 0] / height[:, 1])
            plotting.pairs(ax, optimizers, height, title=title, ylabel=f"$v^T H v$,\n{words}")
            note(ax, f"{' / '.join(optimizers[:2])} {short(over, 2)}")
    plotting.smoothness_axis(*panels.flat)
    larger = [name for name in names if found[f"{name} together difference"].interval[1] < 0]
    mean = f"; its mean over batches is larger in {in_settings(larger)}" if larger else ""
    return (f"C4: on the typical batch v^T H v is smaller along {optimizers[1]}'s path "
            f"{plotting.those(found, names, '{} typical difference')}{mean}",
            "$v^T H v$, v the direction of the step, on evaluation batches of 1,000 prompts: "
            "the median and the mean over them, of each the median over the path without its first "
            "tenth. A line joins what is of one seed; bar: median over seeds; above the panel the "
            "median over seeds of the ratio. Logarithmic scale, linear around 0. "
            + plotting.rates(figure, arrays))


directional_smoothness.full = dict(seeds=18, steps=2500, batches=20, late=10_000)


@experiment(FRESH)
def generalized_smoothness(seeds=6, steps=800, optimizers=(Adam,), lr=None, batches=2,
                           settings=PAPER_SETTINGS):
    """C5: Smoothness grows with the gradient norm.

    Objection: norm and smoothness both change with time. So the mean of the slopes of log against
    log within four windows of the path of Adam, at most 2,000 steps, at the published rates.
    Claimed, in each setting: above 0. Primary: of v^T H v (the median over so many batches of the
    slope on each, where v^T H v > 0). The other: of the spectral norm of H, on the first batch.
    """
    points = tuple(range((min(steps, 2000) - 1) // 50 + 1))
    arrays, parts = labels_of(settings, last=50 * points[-1]), []
    for name, setting in settings.items():
        adam = contestants(setting, optimizers, lr)
        arrays[f"{name} rates"] = rates_of(adam)
        norm, curvature, spectral = (
            values_along(measure, setting, adam, seeds, steps, at, many)[:, 0]
            for measure, at, many in ((gradient_norm, points, batches),  # (seeds, points, batches)
                                      (smoothness, points, batches),
                                      (spectral_norm, points[::2], 1)))
        slopes = [np.median([window_slope(x[:, k], y[:, k]) for k in range(batches)])
                  for x, y in zip(norm, curvature)]
        spectral_slopes = [window_slope(x[::2, 0], y[:, 0]) for x, y in zip(norm, spectral)]
        parts += [Part(f"{name} slope", f"{name}, within windows: slope of the directional "
                       "smoothness", slopes, above=0),
                  Part(f"{name} spectral slope", f"{name}, within windows: slope of the spectral "
                       "norm", spectral_slopes, above=0, primary=False)]
    return arrays, parts


def window_slope(x, y):
    """Mean over four windows of the path of the slope of log y against log x (points,)."""
    pairs = zip(np.array_split(x, 4), np.array_split(y, 4))
    return np.mean([log_slope(*pair) for pair in pairs])


def draw_generalized_smoothness(figure, arrays, found):
    """The slopes of the finding, a panel each."""
    names, kinds = list(arrays["settings"]), ("slope", "spectral slope")
    slopes = np.concatenate([found[f"{name} {what}"].values for name in names for what in kinds])
    slopes = np.append(slopes[np.isfinite(slopes)], (0.0, 1.0))
    low, high = np.quantile(slopes, (0.25, 0.75))
    inside = slopes[(slopes > low - 3 * (high - low)) & (slopes < high + 3 * (high - low))]
    for what, title, ax in zip(kinds, ("$v^T H v$", "spectral norm of H"),
                               figure.subplots(1, 2, sharey=True)):
        dots(ax, names, [found[f"{name} {what}"].values for name in names], title=title,
             ylabel="slope against the gradient norm, log-log")
        note(ax, f"medians: {listed(found[f'{name} {what}'] for name in names)}")
        for slope, words in ((0, "0: no growth"), (1, "1: proportional")):
            reference(ax, slope)
            ax.text(0.01, slope, words, transform=ax.get_yaxis_transform(), va="bottom")
        plotting.limits(ax, inside.min() - 0.1, inside.max() + 0.1)
    return ("C5: curvature grows with the gradient norm within parts of the path (slope of v^T H v "
            f"{plotting.span(found, names, '{} slope')})",
            "Mean slope of log against log within parts of the path of one optimizer up to "
            f"iteration {int(arrays['last']):,}; a mark for each seed, bar: median; an arrow: "
            f"beyond the axis. {plotting.rates(figure, arrays)}")


generalized_smoothness.full = dict(seeds=18, steps=2500, batches=4)


@experiment(FRESH)
def softmax_vs_linear(seeds=6, steps=45, optimizers=(Adam,)):
    """C6: Linear attention learns this task much faster than softmax attention.

    Objection: the rates were not tuned. Each kind of attention at its best rate (`best_rates`).
    Claimed, of both kinds of softmax over linear attention: the steps until the median of the last
    50 losses is below d/2, half of the loss of predicting 0 (primary), and the final loss, above 1.
    A run that does not get there counts as infinitely many steps. A limit: this is about block
    matrices; with all of P and Q trained softmax attention learns, too (a row of `lead`).
    """
    kinds = {"linear": SETTING_1} | {setting.name: setting for setting in NONLINEAR}
    best, loss = {}, {}
    for kind, setting in kinds.items():
        run, _, scores = at_best_rates(setting, by_name(optimizers), steps, seeds)
        best[kind], loss[kind] = best_in_words(scores), run["loss"][:, 0]  # (seeds, steps)
    parts = attention_parts(loss, ", best rates")
    parts += [Part(f"{kind} rate", f"{kind}: best rate", best[kind]) for kind in kinds]
    return {"iteration": block_centres(steps), "best kinds": [
        f"{kind} ({best[kind].split()[1]})" for kind in kinds], "best loss": np.stack(
            [running_median(loss[kind]) for kind in kinds], axis=1)}, parts


def draw_softmax_vs_linear(figure, arrays, found):
    """One panel: "best loss" (seeds, kinds, blocks)."""
    plotting.attention(figure, arrays, "best loss", "best kinds", found, SETTING_1.data["d"])
    return (f"C6: at the best rates softmax attention ends at {found['softmax loss ratio']} times "
            "the loss of linear attention",
            f"{SETTING_1.name}, {SETTING_1.layers} layers, the paper's block matrices, each kind "
            "at its best rate, in brackets, behind it the final loss. Running medians; "
            "line: median over seeds, band: smallest to largest. The batches are the same for "
            "every kind.")


softmax_vs_linear.full = dict(steps=2000)


@experiment(FRESH)
def larger_model(seeds=10, draws=15):
    """C7: The picture is the same for L = 8, d = 20, n = 60.

    Objection: the norm of a Gaussian vector is skewed, too. Of the noise at initialisation alone:
    its norm's skewness (primary), and its 99 % quantile over its median, minus those of Gaussian
    vectors with the noise's mean and covariance. Claimed: above 0. With fewer draws than parameters
    the covariance of the draws concentrates on fewer directions than the noise has: the Gaussian
    norm varies more, and the comparison is conservative.
    """
    norms, null = noise_norms(LARGE, seeds, draws)
    parts = against_gaussian("skewness", f"{LARGE.name}: skewness of the noise norm",
                             skewness(norms), skewness(null))
    parts += against_gaussian("spread", f"{LARGE.name}: 99 % quantile over median of the noise "
                              "norm", spread(norms), spread(null), primary=False)
    return {"share": tail_shares(draws)} | noise_tails(LARGE.name, norms, null), parts


def draw_larger_model(figure, arrays, found):
    """One panel, the tail of the noise."""
    ax = figure.subplots()
    tails(ax, arrays, LARGE.name, title=LARGE.name, xscale="linear",
          xlim=plotting.reach(arrays, LARGE.name))
    note(ax, f"skewness {found['skewness medians']}")
    ax.legend(loc="upper right")
    reached, null = (short(each, 2) for each in plotting.exceeded(arrays, LARGE.name))
    return (f"C7: in the larger model one draw of the noise in {plotting.rarity(arrays)} exceeds "
            f"{reached} medians, Gaussian ones {null}",
            plotting.NOISE)


larger_model.full = dict(draws=1000)


@experiment(FRESH)
def heavy_tails(seeds=6, steps=250, optimizers=BOTH, lr=None, batches=2):
    """C8: Heavier tails of x: heavier noise, slower training, larger R_med ratio, the same gain.

    Objections: one batch decides, and the gain was not compared. Spherical, Gaussian and Gamma(0.1,
    10) x at E|x|^2 = 1, at the rates of experiments.py. Claimed, heavy tails against the sphere:
    SGD's R_med over Adam's larger (typical of so many batches); and Adam's relative gain stays:
    SGD's steps over Adam's, until the median of the last 50 losses is below 1/2, half of the loss
    of predicting 0, change by a factor within 2/3 and 3/2.
    """
    settings = {setting.name: setting for setting in (SPHERICAL, LIGHT_TAILS, SETTING_3)}
    names, points = [optimizer.__name__ for optimizer in optimizers], points_of(steps, 10)
    pair = " / ".join(names[:2])
    arrays, parts = labels_of(settings, optimizers=names), []
    over, gain = {}, {}  # by setting: (seeds,) each
    for name, setting in settings.items():
        both = contestants(setting, optimizers, lr)
        loss = stacked(train, [(setting, both, seed, steps) for seed in seeds])["loss"]
        half = steps_to(0.5, loss)  # (seeds, optimizers)
        values = values_along(condition, setting, both, seeds, steps, points, batches)
        typical = np.median(ratio(values[:, 0], values[:, 1]), axis=-1)  # (seeds, points)
        over[name], gain[name] = without_start(typical), ratio(half[:, 0], half[:, 1])
        parts += [Part(f"{name} R_med", f"{name}: ratio of R_med, typical batch", over[name]),
                  *(Part(f"{name} steps {each}", f"{name}: steps of {each} to half the loss",
                         half[:, i]) for i, each in enumerate(names))]
        arrays[f"{name} rates"] = rates_of(both)
    light, heavy = SPHERICAL.name, SETTING_3.name
    parts += [Part("R_med", "Heavy / spherical: ratio of R_med, typical batch",
                   ratio(over[heavy], over[light]), above=1),
              Part("gain", f"Heavy / spherical: steps of {pair}", ratio(gain[heavy], gain[light]),
                   above=2 / 3, below=3 / 2)]
    return arrays, parts


def draw_heavy_tails(figure, arrays, found):
    """Of the parts of each setting the ratio of steps, with the band in which it was claimed to
    stay, and the ratio of R_med."""
    names, settings = ([str(each) for each in arrays[key]] for key in ("optimizers", "settings"))
    labels = [paper.TAILS[name] for name in settings]
    pair, (steps, R), gain = " / ".join(names[:2]), figure.subplots(1, 2), found["gain"]
    over = [ratio(*(found[f"{name} steps {each}"].values for each in names[:2]))
            for name in settings]
    middle = np.median(over[0])
    steps.axhspan(gain.above * middle, gain.below * middle, color="#DDDDDD", lw=0,
                  label=f"claimed: as {labels[0]}")
    dots(steps, labels, over, title="steps to half the loss", yscale="log",
         ylabel=f"ratio, {pair}")
    steps.legend(loc="upper left")
    dots(R, labels, [found[f"{name} R_med"].values for name in settings], yscale="log",
         title="condition number $R_{med}$", ylabel=f"ratio, {pair}")
    plotting.same_decades(steps, R)
    for ax, key in ((steps, "gain"), (R, "R_med")):
        reference(ax, 1)
        note(ax, f"{labels[-1]} / {labels[0]}: {found[key]}")
    change = {"holds": "stays", "open": "may or may not stay",
              "against": "grows" if gain.median > 1 else "shrinks"}[gain.decision]
    return (f"C8: with heavier tails of x the ratio of {names[0]}'s steps to {names[1]}'s {change} "
            "(claimed: it stays)",
            "All at the same E|x|$^2$. Steps until the loss is half of that of predicting 0; "
            "$R_{med}$: median over the path, on the typical of the evaluation batches of 1,000 "
            "prompts. A mark for each seed, bar: median; above the panel the ratio of the outer "
            f"two, median over seeds. Dotted: 1, no difference. {plotting.rates(figure, arrays)}")


heavy_tails.full = dict(seeds=8, steps=10_000, batches=5)


@experiment(FRESH + 100)
def depth(seeds=6, steps=60, optimizers=BOTH, lr=None):
    """C9: With depth the Adam-SGD gap, noise tails and R_med ratio grow, and the loss falls.

    Objection: at the same iteration the optimizers are at different losses. So SGD's R_med over
    Adam's, each where its typical loss on five batches first lies below the same number, at
    snapshots 5 steps apart; per seed the median over the five batches. Claimed: larger for L = 4, 6
    and 8 than for 2 at the loss d/10, which all depths reach; and, as L = 2 gets no further, the
    ratio itself above 1 at d/100 and d/1000 for the others (geometric means). Post hoc: snapshots
    50 steps apart had been too far apart (deep models reach d/10 in less), so seeds that were not
    used before are trained, from 1100 on.
    """
    names, parts = [optimizer.__name__ for optimizer in optimizers], []
    over = {target: [] for target in EQUAL}  # by depth: (seeds,)
    for setting in DEEP:
        both = contestants(setting, optimizers, lr)
        run = stacked(at_equal_loss, [(setting, both, seed, steps, EQUAL) for seed in seeds])
        R = run["condition"]  # (seeds, targets, optimizers, batches)
        there = run["steps"]  # (seeds, targets, optimizers)
        for k, target in enumerate(EQUAL):
            over[target].append(np.median(ratio(R[:, k, 0], R[:, k, 1]), axis=-1))
            parts += [Part(f"{setting.name} {target:g} steps {each}", f"{setting.name}, loss "
                           f"{target:g}: steps of {each}", there[:, k, i])
                      for i, each in enumerate(names[:2])]
            parts.append(Part(f"{setting.name} {target:g}", f"{setting.name}, loss {target:g}: "
                              "ratio of R_med", over[target][-1]))
    first, *others = [setting.layers for setting in DEEP]
    for target in EQUAL:
        deep = np.exp(np.log(over[target][1:]).mean(axis=0))  # (seeds,)
        than = f" over {first}" if target == EQUAL[0] else ""
        parts.append(Part(f"R_med {target:g}", f"ratio of R_med at loss {target:g}, "
                          f"L = {listed(others)}{than}", deep / over[target][0] if than else deep,
                          above=1))
    return {"optimizers": names, "layers": [first, *others]} | {
        f"ratio at {target:g}": np.transpose(over[target]) for target in EQUAL}, parts


EQUAL = 0.5, 0.05, 0.005  # losses: d/10, d/100, d/1000


@cached
@np.errstate(all="ignore")
def at_equal_loss(setting, contestants, seed, steps, targets):
    """Where the typical loss of each contestant is first below each target: steps (targets,
    contestants), infinite if it never is, and condition (targets, contestants, batches), R_med
    there on five evaluation batches, else NaN."""
    snapshots = train(setting, contestants, seed, steps, 5)["snapshots"]
    batches = [evaluation_batch(setting, k) for k in range(5)]
    there = np.full((len(targets), len(contestants)), np.inf)
    R = np.full((len(targets), len(contestants), len(batches)), np.nan)
    for i, path in enumerate(snapshots[:, :, 0]):  # (points, *params.shape), before the step
        loss = np.array([np.median([loss_at(setting, params, None, prompts) for prompts in batches])
                         if np.isfinite(params).all() else np.inf for params in path])  # (points,)
        for k, target in enumerate(targets):
            if (loss < target).any():
                first = (loss < target).argmax()
                there[k, i] = 5 * first
                R[k, i] = [condition(setting, path[first], None, prompts) for prompts in batches]
    return dict(steps=there, condition=R)


def draw_depth(figure, arrays, found):
    """Against the depth, a panel for each loss: "ratio at LOSS" (seeds, depths)."""
    layers, pair = [int(L) for L in arrays["layers"]], " / ".join(arrays["optimizers"][:2])
    high, *lower = targets = [name.split()[-1] for name in arrays if name.startswith("ratio at ")]
    for target, ax in zip(targets, figure.subplots(1, len(targets), sharey=True)):
        over = arrays[f"ratio at {target}"]
        dots(ax, layers, over.T, title=f"at the loss {target}", yscale="log", xlabel="layers L",
             ylabel=f"ratio of $R_{{med}}$, {pair}")
        for i in np.flatnonzero(~np.isfinite(over).any(axis=0)):
            ax.text(i, 0.8, "not reached", rotation=90, ha="center", va="center",
                    transform=ax.get_xaxis_transform(), color="#444444")
        reference(ax, 1)
        if target == high:
            note(ax, f"deep over L = {layers[0]}: {found[f'R_med {target}']}")
        else:
            note(ax, f"{found[f'R_med {target}']}, line: mean of L = {listed(layers[1:])}")
            ax.plot([0.5, len(layers) - 0.5], 2 * [found[f"R_med {target}"].median],
                    color="#882255", lw=1.5)
    grows = {"holds": "it grows with depth", "open": "whether it grows with depth is open",
             "against": "it falls with depth"}[found[f"R_med {high}"].decision]
    return (f"C9: at the losses {listed(lower)} {arrays['optimizers'][0]}'s condition number R_med "
            f"is {plotting.span(found, lower, 'R_med {}')} times {arrays['optimizers'][1]}'s; "
            f"{grows}",
            "Data of Setting 1. The ratio of $R_{med}$ where the loss of each optimizer first lies "
            "below a number, on the typical of five evaluation batches. A mark for each seed, bar: "
            "median. Above the panels the geometric mean of the deep models, at the first loss "
            "over that of the shallow one. Dotted: 1, no difference.")


depth.full = dict(steps=1000)


@experiment(FRESH)
def learning_rates(seeds=6, steps=200, others=0, settings=PAPER_SETTINGS):
    """Protocol: The learning rate of each optimizer is the best of a grid of ten.

    Objection: none is printed. On seeds that had no part in choosing it, the final loss at the
    published rate over that at the best one of our grid of seven, at this length. Claimed, of SGD
    and Adam in each setting: below 2. Besides, with `others` steps (half as many where they are
    costly), two seeds: the grids behind the rates of the other settings.
    """
    rates, _ = chosen_rates(settings, BOTH, steps)
    confirmed = sweep(settings, by_name(BOTH), at_chosen(rates), seeds, steps)
    names = list(by_name(BOTH))
    arrays, parts = labels_of(settings, optimizers=names), []
    for name in settings:
        for each in names:
            used, best = (final_loss(confirmed[name, each][rates[name, each][which]]["loss"])
                          for which in ("published", "final loss"))
            parts.append(Part(f"{name} {each}", f"{name}, {each}: final loss at the published rate "
                              "/ at the best", ratio(used, best), below=2))
    for setting in (SPHERICAL, LIGHT_TAILS, *DEEP, LARGE) if others else ():
        one, candidates = {setting.name: setting}, by_name(BOTH)
        tried = sweep(one, candidates, grid(one, candidates), range(2),
                      max(1, others // 2) if setting is LARGE else others)
        parts += [Part(f"{name} {each}", f"{name}, {each}: best rate",
                       about_rates(by_rate, setting.lr.get(each, np.nan)))
                  for (name, each), by_rate in tried.items()]
    return arrays, parts


def draw_learning_rates(figure, arrays, found):
    """The ratios of the finding, the optimizers side by side."""
    names, settings = ([str(each) for each in arrays[key]] for key in ("optimizers", "settings"))
    ax, medians = figure.subplots(), {}
    for i, each in enumerate(names):
        ratios = [found[f"{name} {each}"] for name in settings]
        dots(ax, settings, [one.values for one in ratios], plotting.look(each, i), (i, len(names)),
             each, yscale="log", ylabel="final loss, published rate / best rate")
        medians |= {(name, each): one for name, one in zip(settings, ratios)}
    reference(ax, ratios[0].below)
    ax.text(0.99, ratios[0].below, "bound of the claim", transform=ax.get_yaxis_transform(),
            ha="right", va="bottom")
    reference(ax, 1, "-")
    ax.legend(loc="upper right")
    worst = max(medians, key=lambda pair: medians[pair].median)
    others = [one.median for pair, one in medians.items() if pair != worst]
    return (f"Protocol: in {worst[0]} {worst[1]}'s published rate ends at "
            f"{short(medians[worst].median, 2)} times the best rate's loss, the others at most at "
            f"{short(max(others, default=1), 2)}",
            "On seeds that had no part in choosing the best rate; a mark for each seed, bar: "
            "median.")


learning_rates.full = dict(seeds=8, steps=10_000, others=500)


@experiment(FRESH)
def clipping(seeds=6, steps=250, optimizers=BOTH, lr=None, batches=3, settings=PAPER_SETTINGS):
    """C11: Clipping lowers directional smoothness, coordinate by coordinate most of all.

    Objection: one batch decides. As in experiments.py, on the typical of so many batches.
    """
    return paper.clipping(seeds, steps, optimizers, lr, batches, settings)


draw_clipping = paper.draw_clipping
clipping.full = dict(seeds=12, steps=2500, batches=10)


@experiment(FRESHER)
def nonlinear_regression(seeds=6, steps=50, optimizers=BOTH, lr=None, batches=2):
    """C12: The picture is the same for nonlinear regression with an MLP before the attention.

    Objections: one batch decides, and the norm of a Gaussian vector is skewed, too. Task, model and
    runs as in experiments.py. Claimed: R_med and v^T H v larger along SGD's path on the typical of
    so many batches (medians over the path without its first tenth); the noise norm's 99 % quantile
    over its median above that of Gaussian vectors with the noise's mean and covariance.
    """
    setting, points, draws = NONLINEAR_TASK, points_of(steps, 10), max(5, steps // 4)
    both = contestants(setting, optimizers, lr)
    norms, null = noise_norms(setting, seeds, draws)
    R, curvature = (values_along(measure, setting, both, seeds, steps, points, batches)
                    for measure in (condition, smoothness))  # (seeds, optimizers, points, batches)
    typical = np.median(ratio(R[:, 0], R[:, 1]), axis=-1)  # (seeds, points)
    height = without_start(np.median(curvature, axis=-1))  # (seeds, optimizers)
    parts = against_gaussian("spread", "MLP: 99 % quantile over median of the noise norm",
                             spread(norms), spread(null)) + [
        Part("R_med", "MLP: ratio of R_med, typical batch", without_start(typical), above=1),
        Part("smoothness", "MLP, typical batch: difference of v^T H v",
             height[:, 0] - height[:, 1], above=0),
        Part("medians", "MLP, typical batch: medians of v^T H v", ", ".join(
            f"{each.__name__} {short(np.median(height[:, i]), 2)}"
            for i, (each, _) in enumerate(both)))]
    return {"optimizers": [optimizer.__name__ for optimizer in optimizers],
            "point": 50 * np.array(points), "share": tail_shares(draws),
            "R_med": np.median(R, axis=-1), "smoothness": np.median(curvature, axis=-1)
            } | noise_tails("MLP", norms, null), parts


def draw_nonlinear_regression(figure, arrays, found):
    """"R_med" and "smoothness" (seeds, optimizers, points), and the tail of the noise."""
    first, second, third = figure.subplots(1, 3)
    one, other = (str(each) for each in arrays["optimizers"][:2])
    curves(first, arrays["point"], arrays["smoothness"], arrays["optimizers"],
           title="directional smoothness", xlabel="iteration", ylabel="$v^T H v$")
    smoothness_axis(first)
    note(first, str(found["medians"]))
    curves(second, arrays["point"], arrays["R_med"], arrays["optimizers"], yscale="log",
           title="robust condition number", xlabel="iteration", ylabel="$R_{med}$")
    note(second, f"{one} / {other} over the path {found['R_med']}")
    tails(third, arrays, "MLP", title="gradient noise")
    third.legend(loc="upper right", fontsize="small")
    words = {"holds": "larger", "open": "not for certain larger", "against": "smaller"}
    return (f"C12: with an MLP before the attention {one}'s v^T H v is "
            f"{words[found['smoothness'].decision]}, its R_med {words[found['R_med'].decision]} "
            f"than {other}'s",
            "A nonlinear task. $v^T H v$ and $R_{med}$: on the typical of the evaluation batches "
            "of 1,000 prompts; line: median over seeds, band: smallest to largest. "
            f"{plotting.NOISE}")


nonlinear_regression.full = dict(seeds=8, steps=10_000, batches=3)
