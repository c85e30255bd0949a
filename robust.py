"""The paper's claims asked harder: `python experiments.py NAME --robust`.

The names are those of experiments.py. The first line of each docstring says the claim again, the
second which objection is tested: that rates were not tuned, that one batch decides, that noise was
compared with nothing. Seeds start at 1000 (FRESH), so none was looked at before the bounds were
set; rates are chosen on the seeds 0, 1, 2. `NAME.full` has the arguments of `--full`; the defaults
are a first look. Words and axes as in experiments.py. Nothing here is in the paper.
"""

import numpy as np

import linattn
import plotting
from data import (DEEP, LARGE, LIGHT_TAILS, NONLINEAR, NONLINEAR_TASK, PAPER_SETTINGS, SETTING_1,
                  SETTING_3, SPHERICAL)
from optimizers import SGD, Adam
from plotting import TITLES, curves, dots, losses, note, reference, smoothness_axis, tails
from runs import cached, parallel
from training import (CLIPPED, FRESH, FRESHER, about_rates, along, best_rate, block_centres,
                      by_name, clipped_smoothness, condition, contestants, diagonal,
                      evaluation_batch, final_loss, gradient_norm, grid, log_slope, loss_at, moment,
                      noise_norms, points_of, r_med, ratio, running_median, smoothness,
                      spectral_norm, spread, steps_to, sweep, tail, tail_shares, train, tuned,
                      without_start)
from verdicts import Part, short

BOTH = (SGD, Adam)


def adam_vs_sgd(seeds=6, steps=200, optimizers=BOTH, batches=5):
    """C1: Adam beats SGD in Settings 1, 2 and 3.

    Objection: the gap is one of rates. Each optimizer at its best constant rate of a grid of seven.
    Claimed, in each setting: SGD's final loss over Adam's, each at the rate of the lowest final
    loss, above 1 (primary); and SGD's steps over Adam's until the median of the last 50 losses is
    below a target, each at the rate with the fewest steps. The target is the lowest of LADDER,
    fractions of d, that both reach on all pilot seeds; a run that does not get there counts as
    infinitely many steps. Such a target is near the level at which a run ends; so the same is
    measured for the next two higher ones. A limit: quantiles of the loss of single prompts.
    """
    rates, target = chosen_rates(optimizers, steps)
    confirmed = sweep(PAPER_SETTINGS, by_name(optimizers), at_chosen(rates),
                      range(FRESH, FRESH + seeds), steps)
    names = [optimizer.__name__ for optimizer in optimizers]
    pair = " / ".join(names[:2])
    arrays, parts = {"optimizers": names, "iteration": block_centres(steps)}, []
    for name, setting in PAPER_SETTINGS.items():
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
        arrays |= {f"{name} loss at best rates": running_median(loss),
                   f"{name} target": target[name], f"{name} steps": needed}
    more_arrays, more_parts = single_prompts(optimizers, seeds, steps, batches)
    return arrays | more_arrays, parts + more_parts


LADDER = (0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 0.0005, 0.0002, 0.0001)


def chosen_rates(optimizers, steps):
    """From three pilot seeds at this length, two dicts: {(setting, optimizer): {"final loss": rate,
    "steps": rate, "published": rate}}, and {setting: target}, the lowest loss of the ladder that
    all optimizers reach."""
    candidates = by_name(optimizers)
    tried = sweep(PAPER_SETTINGS, candidates, grid(PAPER_SETTINGS, candidates, sgd=(0.005, 0.5)),
                  range(3), steps)
    rates, target = {}, {}
    for name, setting in PAPER_SETTINGS.items():
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
            if each in ("SGD", "Adam"):
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


def single_prompts(optimizers, seeds, steps, batches):
    """C1, limit: quantiles of the squared error over single prompts at the end of the published
    runs, SGD's over Adam's, on so many batches of 1,000 prompts. Where the ratio falls below 1 Adam
    has stopped being lower."""
    arrays, parts = {"quantiles": QUANTILES}, []
    last, pair = (steps - 1) // 50, " / ".join(each.__name__ for each in optimizers[:2])
    for name, setting in PAPER_SETTINGS.items():
        both = contestants(setting, optimizers)
        runs = parallel(along, [(squared_errors, setting, both, seed, steps, (last,), batches)
                                for seed in range(seeds)])
        errors = np.array([run["values"][:, 0].reshape(len(both), -1) for run in runs])
        quantiles = np.quantile(errors, QUANTILES, axis=-1)  # (quantiles, seeds, optimizers)
        over = ratio(quantiles[..., 0], quantiles[..., 1])  # (quantiles, seeds)
        parts += [Part(f"{name} {q:g}", f"{name}, limit: quantile {q:g} of the prompts' loss, "
                       f"{pair}", values) for q, values in zip(QUANTILES, over)]
        arrays[f"{name} quantiles"] = quantiles.transpose(1, 2, 0)
    return arrays, parts


def squared_errors(_, before, __, prompts):
    """Of every prompt, (1000,), for linear attention."""
    return (linattn.predict(before, prompts) - prompts.target) ** 2


def draw_adam_vs_sgd(figure, arrays, found):
    """Above "SETTING loss at best rates" (seeds, optimizers, blocks), below the ratios of "SETTING
    quantiles" (seeds, optimizers, quantiles)."""
    pair = " / ".join(arrays["optimizers"][:2])
    for name, loss, single in zip(PAPER_SETTINGS, *figure.subplots(2, 3, sharey="row")):
        losses(loss, arrays, f"{name} loss at best rates", title=TITLES[name],
               ylabel="loss, best rates")
        note(loss, f"{pair} {found[f'{name} loss']}\nother runs, steps to "
             f"{arrays[f'{name} target']:g}: {found[f'{name} steps']}")
        quantiles = arrays[f"{name} quantiles"]
        over = quantiles[:, 0] / quantiles[:, 1]  # (seeds, quantiles)
        dots(single, [f"{100 * q:g}" for q in arrays["quantiles"]], over.T,
             yscale="log", xlabel="quantile over single prompts, %",
             ylabel=f"loss, {pair},\npublished rates")
        reference(single, 1)
    gap = ", ".join(str(found[f"{name} loss"]) for name in PAPER_SETTINGS)
    return (f"C1: final loss {pair}, each at its best rate, in Settings 1, 2, 3: {gap}",
            "Above: training loss, each optimizer at its best rate for the final loss (the number "
            "of steps is that of other runs, at the rates with the fewest); running medians; line: "
            "median over seeds, band: smallest to largest. Below: quantiles of the loss of single "
            "prompts at the end of runs at the published rates; a dot for each seed, bar: median; "
            "dotted: 1, no difference.")


adam_vs_sgd.full = dict(steps=10_000, batches=100)


def gradient_noise(seeds=12, draws=600):
    """C2: Stochastic gradient noise is heavy-tailed in Settings 1, 2 and 3.

    Objection: the norm of a Gaussian vector is skewed, too. So the 99 % quantile of the noise norm
    over its median, minus the same of Gaussian vectors with the noise's own mean and covariance
    (the median of twenty samples of as many draws). Claimed, in each setting: above 0.
    """
    arrays, parts = {"share": tail_shares(draws)}, []
    for name, setting in PAPER_SETTINGS.items():
        norms, null = noise_norms(setting, seeds, draws)
        parts += against_gaussian(f"{name} spread", f"{name}: 99 % quantile over median of the "
                                  "noise norm", spread(norms), spread(null))
        arrays |= {f"{name} tail": tail(norms),  # (seeds, shares)
                   f"{name} null": np.median(tail(null), axis=(0, 1))}
    return arrays, parts


def against_gaussian(key, label, observed, expected, primary=True):
    """Parts from a statistic of the noise (seeds,) and of Gaussian samples (seeds, samples)."""
    return [Part(key, f"{label}, minus that of Gaussian vectors",
                 observed - np.median(expected, axis=1), above=0, primary=primary),
            Part(f"{key} medians", f"{label}, medians over seeds",
                 f"{short(np.median(observed), 2)}, Gaussian {short(np.median(expected), 2)}")]


def draw_gradient_noise(figure, arrays, found):
    """A panel a setting: "SETTING tail" (seeds, shares) and "SETTING null" (shares,)."""
    row = figure.subplots(1, 3, sharex=True, sharey=True)
    for name, ax in zip(PAPER_SETTINGS, row):
        tails(ax, arrays, name, title=TITLES[name])
        note(ax, f"99 % / 50 % quantile {found[f'{name} spread medians']}")
    row[0].legend(loc="center right")
    medians = "; ".join(str(found[f"{name} spread medians"]) for name in PAPER_SETTINGS)
    return (f"C2: 99 % / 50 % quantile of the noise norm in Settings 1, 2, 3: {medians}",
            "Share of the draws whose norm exceeds r times the median of their seed: |g(1,000 "
            "prompts) - g(100,000 prompts)| at initialisation, three layers. A line for each seed; "
            "dashed: Gaussian vectors of the same mean and covariance.")


gradient_noise.full = dict(draws=10_000)


def condition_number(seeds=6, steps=300, optimizers=BOTH, lr=None, batches=3, pooled=(2, 10)):
    """C3: R_med is larger along SGD's path than along Adam's.

    Objection: one evaluation batch decides. Per seed the median of SGD's R_med over Adam's over so
    many batches of 1,000 prompts, the same ones for all, at the published rates. Claimed, in each
    setting: above 1 at iterations 750 and 1250 (of a shorter run: at its last snapshot). Primary:
    1250. Limits, without a bound (pooled: so many seeds, so many batches): the ratio for the
    Hessian on many batches together; and at the first of the iterations, on the typical of five
    batches, with half and twice the rates, and with all of P and Q trained. Nothing is said of
    other iterations.
    """
    last = (steps - 1) // 50 * 50
    iterations = [t for t in (750, 1250) if t <= last] or [last]
    arrays, parts, limits = {"iterations": iterations, "causes": list(CAUSES)}, [], []

    def ratios(setting, both, seeds, batches, t, together=False):
        """SGD's R_med over Adam's, (seeds, batches), or (seeds,) for all batches together."""
        runs = parallel(along, [(diagonal, setting, both, seed, steps, (t // 50,), batches)
                                for seed in range(FRESH, FRESH + seeds)])
        H = np.array([run["values"][:, 0] for run in runs])  # (seeds, optimizers, batches, ...)
        R = r_med(H.mean(axis=2) if together else H)  # the mean of Hessians is that on all
        return ratio(R[:, 0], R[:, 1])

    for name, setting in PAPER_SETTINGS.items():
        both = contestants(setting, optimizers, lr)
        for t in iterations:
            single = ratios(setting, both, seeds, batches, t)
            many = ratios(setting, both, *pooled, t, together=True)
            low, high = np.quantile(single, (0.05, 0.95))
            typical = np.median(single, axis=1)  # (seeds,)
            parts += [
                Part(f"{name} {t}", f"{name}, iteration {t}, typical batch", typical, above=1,
                     primary=t == iterations[-1]),
                Part(f"{name} {t} together", f"{name}, iteration {t}, limit: 100,000 prompts "
                     "together", many),
                Part(f"{name} {t} batches", f"{name}, iteration {t}: 90 % of single batches",
                     f"{low:.3g} to {high:.3g}")]
            arrays |= {f"{name}, iteration {t} typical batch": typical,
                       f"{name}, iteration {t} together": many}
        for cause, (factor, full) in CAUSES.items():
            changed = setting._replace(full=full)
            other = tuple((each, dict(lr=factor * given["lr"])) for each, given in both)
            typical = np.median(ratios(changed, other, pooled[0], 5, iterations[0]), axis=1)
            limits.append(Part(f"{name} {cause}", f"{name}, iteration {iterations[0]}, limit: "
                               f"{cause}", typical))
            arrays[f"{name} with {cause}"] = typical
    return arrays, parts + limits


CAUSES = {"as published": (1, False), "half the rates": (0.5, False),  # factor of the rates, full
          "twice the rates": (2, False), "full matrices": (1, True)}


def draw_condition_number(figure, arrays, found):
    """A column a setting. Above, at each of the iterations: "CASE typical batch" and "CASE
    together"; below "SETTING with CAUSE" (seeds,)."""
    iterations, kinds = [int(t) for t in arrays["iterations"]], ("typical batch", "together")
    above, below = figure.subplots(2, 3, sharey="row")
    for name, ax in zip(PAPER_SETTINGS, below):
        dots(ax, [str(each).replace(" ", "\n", 1) for each in arrays["causes"]],
             [arrays[f"{name} with {each}"] for each in arrays["causes"]], yscale="log",
             ylabel=f"$R_{{med}}$, SGD / Adam,\niteration {iterations[0]}, typical")
        reference(ax, 1)
    for name, ax in zip(PAPER_SETTINGS, above):
        cases = [(t, kind) for t in iterations for kind in kinds]
        dots(ax, [f"{kind.split()[0]}\n{t}" for t, kind in cases],
             [arrays[f"{name}, iteration {t} {kind}"] for t, kind in cases], yscale="log",
             title=TITLES[name], xlabel="iteration", ylabel="$R_{med}$, SGD / Adam")
        reference(ax, 1)
        note(ax, "typical batch: " + ", ".join(f"{found[f'{name} {t}']} at {t}"
                                               for t in iterations))
    last = ", ".join(str(found[f"{name} {iterations[-1]}"]) for name in PAPER_SETTINGS)
    return (f"C3: R_med of SGD over Adam's at iteration {iterations[-1]}, on the typical batch, in "
            f"Settings 1, 2, 3: {last}",
            "The ratio SGD / Adam, a dot for each seed, bar: median. Typical: the median over many "
            "evaluation batches of 1,000 prompts; together: for the Hessian on a hundred of them "
            "(of a short run ten), whose maximum rare prompts carry. Below: on the typical of five "
            "batches at the first of the iterations, with other rates and matrices. Together and "
            "below: six seeds at most. Dotted: 1, no difference.")


condition_number.full = dict(seeds=18, steps=2500, batches=20, pooled=(6, 100))


def directional_smoothness(seeds=6, steps=300, optimizers=BOTH, lr=None, batches=5, late=0):
    """C4: Directional smoothness is smaller along Adam's path.

    Objection: one evaluation batch decides. v^T H v on the typical batch, the median over so many
    at each point, at the published rates. Claimed, in each setting, of the median over the path
    without its first tenth: SGD's minus Adam's above 0. Limits: the mean over all batches; the
    typical batch in windows of 750 steps; and, six seeds, from step 2,500 to `late`, because the
    difference was seen to turn round.
    """
    points = points_of(steps, 25)
    arrays, parts = {"optimizers": [optimizer.__name__ for optimizer in optimizers],
                     "point": 50 * np.array(points)}, []
    for name, setting in PAPER_SETTINGS.items():
        both = contestants(setting, optimizers, lr)
        found = smoothness_of(setting, both, seeds, steps, points, batches)
        typical, together = np.median(found, axis=-1), found.mean(axis=-1)
        parts += smoother(f"{name} typical", f"{name}, typical batch, 2,500 steps", both, typical,
                          above=0)
        parts += smoother(f"{name} together", f"{name}, limit: 20,000 prompts together", both,
                          together)
        t = 50 * np.array(points)
        for first, last in ((250, 1000), (1000, 1750), (1750, 2500)):
            window = (first <= t) & (t < last)
            if window.any():
                label = f"{name}, limit: typical batch, steps {first:,} to {last:,}"
                parts += smoother(f"{name} {first}", label, both, typical[..., window], start=0)
        parts.append(Part(f"{name} negative", f"{name}, negative", ", ".join(
            f"{each.__name__} {100 * (found[:, i] < 0).mean():.0f} %"
            for i, (each, _) in enumerate(both))))
        arrays |= {f"{name} typical batch": typical, f"{name} together": together}
        if late > 2500:
            points_late = tuple(range(50, (late - 1) // 50 + 1, 6))
            path = np.median(smoothness_of(setting, both, 6, late, points_late, batches), axis=-1)
            parts += smoother(f"{name} late", f"{name}, limit: typical batch, steps 2,500 to "
                              f"{late:,}", both, path, start=0)
    return arrays, parts


def smoothness_of(setting, both, seeds, steps, points, batches):
    """v^T H v (seeds, optimizers, points, batches)."""
    runs = parallel(along, [(smoothness, setting, both, seed, steps, points, batches)
                            for seed in range(FRESH, FRESH + seeds)])
    return np.array([run["values"] for run in runs])


def smoother(key, label, both, path, start=0.1, **bound):
    """Parts from v^T H v (seeds, optimizers, points): SGD's median minus Adam's, without this share
    of the points at the start."""
    height = without_start(path, start)  # (seeds, optimizers)
    words = ", ".join(f"{each.__name__} {short(np.median(height[:, i]), 2)}"
                      for i, (each, _) in enumerate(both))
    return [Part(f"{key} difference", f"{label}: difference of v^T H v",
                 height[:, 0] - height[:, 1], **bound),
            Part(f"{key} medians", f"{label}: medians of v^T H v", words)]


def draw_directional_smoothness(figure, arrays, found):
    """A row a statistic over batches: "SETTING typical batch" and "SETTING together" (seeds,
    optimizers, points)."""
    rows = zip(("typical batch", "together"), figure.subplots(2, 3, sharey="row"))
    for kind, row in rows:
        words = "typical batch" if kind == "typical batch" else "mean over batches"
        for name, ax in zip(PAPER_SETTINGS, row):
            curves(ax, arrays["point"], arrays[f"{name} {kind}"], arrays["optimizers"],
                   title=TITLES[name], xlabel="iteration", ylabel=f"$v^T H v$\n{words}")
            note(ax, str(found[f"{name} {kind.split()[0]} medians"]))
        smoothness_axis(*row)
    medians = "; ".join(f"{name} {found[f'{name} typical medians']}" for name in PAPER_SETTINGS)
    return (f"C4: v^T H v on the typical batch: {medians}",
            "$v^T H v$, v the direction of the step, on many evaluation batches of 1,000 prompts: "
            "the median and the mean over them. Line: median over seeds, band: smallest to "
            "largest; above the panel the medians over seeds and path. Logarithmic scale, linear "
            "around 0.")


directional_smoothness.full = dict(seeds=18, steps=2500, batches=20, late=10_000)


def generalized_smoothness(seeds=6, steps=500, optimizers=(Adam,), lr=None, batches=2):
    """C5: Smoothness grows with the gradient norm.

    Objection: norm and smoothness both change with time. So the mean of the slopes of log against
    log within four windows of the path of Adam, at most 2,000 steps, at the published rates.
    Claimed, in each setting: above 0. Primary: of v^T H v (the median over so many batches of the
    slope on each, where v^T H v > 0). The other: of the spectral norm of H, on the first batch.
    """
    points = tuple(range((min(steps, 2000) - 1) // 50 + 1))
    parts = []
    for name, setting in PAPER_SETTINGS.items():
        adam = contestants(setting, optimizers[-1:], lr)
        norm, curvature, spectral = (np.array([run["values"][0] for run in parallel(along, [
            (measure, setting, adam, seed, steps, at, many)
            for seed in range(FRESH, FRESH + seeds)])])  # (seeds, points, batches) each
            for measure, at, many in ((gradient_norm, points, batches),
                                      (smoothness, points, batches),
                                      (spectral_norm, points[::2], 1)))
        slopes = [np.median([window_slope(norm[seed, :, k], curvature[seed, :, k])
                             for k in range(batches)]) for seed in range(seeds)]
        spectral_slopes = [window_slope(norm[seed, ::2, 0], spectral[seed, :, 0])
                           for seed in range(seeds)]
        parts += [Part(f"{name} slope", f"{name}, within windows: slope of the directional "
                       "smoothness", slopes, above=0),
                  Part(f"{name} spectral slope", f"{name}, within windows: slope of the spectral "
                       "norm", spectral_slopes, above=0, primary=False)]
    return {}, parts


def window_slope(x, y, windows=4):
    """Mean over windows of the path of the slope of log y against log x (points,)."""
    pairs = zip(np.array_split(x, windows), np.array_split(y, windows))
    return np.mean([log_slope(*pair) for pair in pairs])


def draw_generalized_smoothness(figure, arrays, found):
    """The slopes of the finding, a panel each."""
    for what, title, ax in zip(("slope", "spectral slope"), ("$v^T H v$", "spectral norm of H"),
                               figure.subplots(1, 2, sharey=True)):
        slopes = [found[f"{name} {what}"] for name in PAPER_SETTINGS]
        dots(ax, list(PAPER_SETTINGS), [each.values for each in slopes], title=title,
             ylabel="slope against the gradient norm, log-log")
        note(ax, "medians: " + ", ".join(map(str, slopes)))
        reference(ax, 0)
    slopes = ", ".join(str(found[f"{name} slope"]) for name in PAPER_SETTINGS)
    return (f"C5: v^T H v grows like the gradient norm to the power {slopes} in Settings 1, 2, 3, "
            "within parts of the path",
            "Adam at the published rates. Mean slope of log against log within four parts of the "
            "path's first 2,000 steps; a dot for each seed, bar: median; dotted: 0, no growth.")


generalized_smoothness.full = dict(seeds=18, steps=2500, batches=4)


def softmax_vs_linear(seeds=6, steps=45, optimizers=(Adam,)):
    """C6: Linear attention learns this task much faster than softmax attention.

    Objection: the rates were not tuned. Each kind of attention at the best of six rates. Claimed,
    of both kinds of softmax over linear attention: the steps until the median of the last 50 losses
    is below d/2, half of the loss of predicting 0 (primary), and the final loss, above 1. A run
    that does not get there counts as infinitely many steps. A limit: this is about block matrices;
    in full ones softmax attention learns, too (`ladder`).
    """
    kinds = {"linear": SETTING_1} | {setting.name: setting for setting in NONLINEAR}
    candidates = by_name(optimizers[-1:])
    (adam,) = candidates
    rates = grid(kinds, candidates, sgd=(0.002, 0.1), other=(0.002, 0.1))
    runs, best = tuned(kinds, candidates, rates, seeds, steps)
    end = {kind: final_loss(runs[kind, adam]["loss"]) for kind in kinds}  # (seeds,) each
    half = {kind: steps_to(SETTING_1.data["d"] / 2, runs[kind, adam]["loss"]) for kind in kinds}
    parts = []
    for kind in ("relu", "softmax", "softmax/n"):
        claim = {} if kind == "relu" else dict(above=1)
        parts += [Part(f"{kind} steps ratio", f"{kind} / linear, best rates: steps to half the "
                       "loss", ratio(half[kind], half["linear"]), **claim),
                  Part(f"{kind} loss ratio", f"{kind} / linear, best rates: final loss",
                       ratio(end[kind], end["linear"]), **claim, primary=False)]
    for kind in kinds:
        parts += [Part(f"{kind} loss", f"{kind}, best rates: final loss", end[kind]),
                  Part(f"{kind} steps", f"{kind}, best rates: steps to half the loss", half[kind]),
                  Part(f"{kind} rate", f"{kind}: best rate", best[kind])]
    return {"iteration": block_centres(steps), "best kinds": [
        f"{kind} ({best[kind].split()[1]})" for kind in kinds], "best loss": np.stack(
            [running_median(runs[kind, adam]["loss"]) for kind in kinds], axis=1)}, parts


def draw_softmax_vs_linear(figure, arrays, found):
    """One panel: "best loss" (seeds, kinds, blocks)."""
    ax, d = figure.subplots(), SETTING_1.data["d"]
    curves(ax, arrays["iteration"], arrays["best loss"], arrays["best kinds"], yscale="log",
           xlabel="iteration", ylabel="training loss")
    ax.plot(arrays["iteration"][[0, -1]], [d, d], ":", color="#000000", lw=1)
    ax.text(arrays["iteration"].mean(), d, "loss of predicting 0", va="bottom", ha="center")
    note(ax, f"final loss, softmax / linear {found['softmax loss ratio']}; linear attention is\nat "
         f"half the loss of predicting 0 after {found['linear steps']} steps")
    return (f"C6: in blocks, at the best rates, softmax attention ends at "
            f"{found['softmax loss ratio']} times the loss of linear attention",
            "Three layers, Setting 1, each kind at the best of six rates, in brackets. Running "
            "medians; line: median over seeds, band: smallest to largest. The batches are the same "
            "for every kind.")


softmax_vs_linear.full = dict(steps=2000)


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
                             moment(norms, 3), moment(null, 3))
    parts += against_gaussian("spread", f"{LARGE.name}: 99 % quantile over median of the noise "
                              "norm", spread(norms), spread(null), primary=False)
    return {"share": tail_shares(draws), f"{LARGE.name} tail": tail(norms),
            f"{LARGE.name} null": np.median(tail(null), axis=(0, 1))}, parts


def draw_larger_model(figure, arrays, found):
    """One panel, the tail of the noise."""
    ax = figure.subplots()
    tails(ax, arrays, LARGE.name, title=LARGE.name)
    note(ax, f"99 % / 50 % quantile {found['spread medians']}; skewness "
         f"{found['skewness medians']}")
    ax.legend(loc="upper right")
    return (f"C7: in a larger model the skewness of the noise norm is {found['skewness medians']}",
            "Share of the draws whose norm exceeds r times the median of their seed, at "
            "initialisation; a line for each seed; dashed: Gaussian vectors of the same mean and "
            "covariance.")


larger_model.full = dict(draws=1000)


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
    pair, numbers = " / ".join(names[:2]), range(FRESH, FRESH + seeds)
    arrays, parts = {"optimizers": names, "point": 50 * np.array(points)}, []
    over, gain = {}, {}  # by setting: (seeds,) each
    for name, setting in settings.items():
        both = contestants(setting, optimizers, lr)
        loss = np.array([run["loss"] for run in parallel(train, [
            (setting, both, seed, steps) for seed in numbers])])  # (seeds, optimizers, steps)
        half = steps_to(0.5, loss)  # (seeds, optimizers)
        values = np.array([run["values"] for run in parallel(along, [
            (condition, setting, both, seed, steps, points, batches) for seed in numbers])])
        typical = np.median(ratio(values[:, 0], values[:, 1]), axis=-1)  # (seeds, points)
        over[name], gain[name] = without_start(typical), ratio(half[:, 0], half[:, 1])
        parts += [Part(f"{name} R_med", f"{name}: ratio of R_med, typical batch", over[name]),
                  *(Part(f"{name} steps {each}", f"{name}: steps of {each} to half the loss",
                         half[:, i]) for i, each in enumerate(names))]
        arrays[f"{name} R_med"] = np.median(values, axis=-1)
    light, heavy = SPHERICAL.name, SETTING_3.name
    parts += [Part("R_med", "Heavy / spherical: ratio of R_med, typical batch",
                   ratio(over[heavy], over[light]), above=1),
              Part("gain", f"Heavy / spherical: steps of {pair}", ratio(gain[heavy], gain[light]),
                   above=2 / 3, below=3 / 2)]
    return arrays, parts


def draw_heavy_tails(figure, arrays, found):
    """Above the steps of the finding, below "SETTING R_med" (seeds, optimizers, points)."""
    names, settings = [str(each) for each in arrays["optimizers"]], (
        SPHERICAL.name, LIGHT_TAILS.name, SETTING_3.name)
    pair, panels = " / ".join(names[:2]), figure.subplot_mosaic([["steps"] * 3, settings])
    for i, each in enumerate(names):
        dots(panels["steps"], [TITLES.get(name, name) for name in settings],
             [found[f"{name} steps {each}"].values for name in settings], shift=0.2 * i, label=each,
             colour=plotting.look(each, i)["color"], yscale="log", ylabel="steps to half the loss")
    panels["steps"].legend()
    note(panels["steps"], f"{pair}, heavy tails over the sphere: times {found['gain']}; claimed: "
         f"times {short(found['gain'].above, 2)} to {short(found['gain'].below, 2)}")
    for name in settings[1:]:
        panels[name].sharey(panels[settings[0]])
    for name in settings:
        curves(panels[name], arrays["point"], arrays[f"{name} R_med"], names, yscale="log",
               title=name, xlabel="iteration", ylabel="$R_{med}$, typical batch")
        note(panels[name], f"{pair} over the path {found[f'{name} R_med']}")
    return (f"C8: {pair} with heavy tails over that on the sphere: steps to half the loss "
            f"{found['gain']}, claimed as 1; R_med {found['R_med']}",
            "All at E|x|$^2$ = 1. Above: steps until the loss is half of that of predicting 0; a "
            "dot for each seed, bar: median. $R_{med}$: on the typical of several evaluation "
            "batches of 1,000 prompts; line: median over seeds, band: smallest to largest.")


heavy_tails.full = dict(seeds=8, steps=10_000, batches=5)


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
    names, ends = [optimizer.__name__ for optimizer in optimizers], {}
    parts, over = [], {}  # over[layers, target]: (seeds,)
    for setting in DEEP:
        both = contestants(setting, optimizers, lr)
        runs = parallel(at_equal_loss, [(setting, both, seed, steps, EQUAL)
                                        for seed in range(FRESH + 100, FRESH + 100 + seeds)])
        R = np.array([run["condition"] for run in runs])  # (seeds, targets, optimizers, batches)
        there = np.array([run["steps"] for run in runs])  # (seeds, targets, optimizers)
        for k, target in enumerate(EQUAL):
            over[setting.layers, target] = np.median(ratio(R[:, k, 0], R[:, k, 1]), axis=-1)
            parts += [Part(f"{setting.name} {target:g} steps {each}", f"{setting.name}, loss "
                           f"{target:g}: steps of {each}", there[:, k, i])
                      for i, each in enumerate(names[:2])]
            parts.append(Part(f"{setting.name} {target:g}", f"{setting.name}, loss {target:g}: "
                              "ratio of R_med", over[setting.layers, target]))
    for target in EQUAL:
        deep = np.cbrt(over[4, target] * over[6, target] * over[8, target])  # (seeds,)
        two = over[2, target] if target == EQUAL[0] else 1
        parts.append(Part(f"R_med {target:g}", f"ratio of R_med at loss {target:g}, L = 4, 6, 8"
                          f"{' over 2' if target == EQUAL[0] else ''}", deep / two, above=1))
        ends[f"ratio at {target:g}"] = np.stack([over[L, target] for L in (2, 4, 6, 8)], axis=1)
    return ends | {"optimizers": names}, parts


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
    """Against the depth: "ratio at LOSS" (seeds, depths) for each loss."""
    ax, layers = figure.subplots(), [setting.layers for setting in DEEP]
    kinds = [name for name in arrays if name.startswith("ratio at ")]
    for i, kind in enumerate(kinds):
        dots(ax, [f"L = {L}" for L in layers], arrays[kind].T, shift=0.3 * (i - 1),
             colour=plotting.look(kind, i)["color"], label=kind.replace("ratio at", "at the loss"),
             yscale="log", ylabel="$R_{med}$, SGD / Adam")
    reference(ax, 1)
    ax.legend()
    note(ax, f"loss 0.5, from L = 2 to L = 4, 6, 8: times {found['R_med 0.5']}; L = 4, 6, 8 at "
         f"0.05: {found['R_med 0.05']}, at 0.005: {found['R_med 0.005']}")
    return (f"C9: R_med SGD / Adam at the same loss {found['R_med 0.05']} (0.05), "
            f"{found['R_med 0.005']} (0.005); with depth, at loss 0.5, times {found['R_med 0.5']}",
            "Setting 1. The ratio of $R_{med}$ where the loss of each optimizer first lies below a "
            "number (L = 2 reaches 0.5 alone), on the typical of five evaluation batches. A dot "
            "for each seed, bar: median.")


depth.full = dict(steps=1000)


def learning_rates(seeds=6, steps=200, optimizers=BOTH, others=0):
    """Protocol: The learning rate of each optimizer is the best of a grid of ten.

    Objection: none is printed. On seeds that had no part in choosing it, the final loss at the
    published rate over that at the best one of our grid of seven, at this length. Claimed, of each
    optimizer in each setting: below 2. Besides, with `others` steps (half as many where they are
    costly), two seeds: the grids behind the rates of the other settings.
    """
    rates, _ = chosen_rates(optimizers, steps)
    confirmed = sweep(PAPER_SETTINGS, by_name(optimizers), at_chosen(rates),
                      range(FRESH, FRESH + seeds), steps)
    names = [each for each in by_name(optimizers) if each in ("SGD", "Adam")]
    arrays, parts = {"optimizers": names}, []
    for name in PAPER_SETTINGS:
        for each in names:
            used, best = (final_loss(confirmed[name, each][rates[name, each][which]]["loss"])
                          for which in ("published", "final loss"))
            parts.append(Part(f"{name} {each}", f"{name}, {each}: final loss at the published rate "
                              "/ at the best", ratio(used, best), below=2))
    for setting in (SPHERICAL, LIGHT_TAILS, *DEEP, LARGE) if others else ():
        one, candidates = {setting.name: setting}, by_name(optimizers)
        tried = sweep(one, candidates, grid(one, candidates, sgd=(0.005, 0.5)), range(2),
                      others // 2 if setting is LARGE else others)
        parts += [Part(f"{name} {each}", f"{name}, {each}: best rate",
                       about_rates(by_rate, setting.lr.get(each, np.nan)))
                  for (name, each), by_rate in tried.items()]
    return arrays, parts


def draw_learning_rates(figure, arrays, found):
    """The ratios of the finding, a panel an optimizer."""
    names = [str(each) for each in arrays["optimizers"]]
    for each, ax in zip(names, figure.subplots(1, len(names), sharey=True, squeeze=False)[0]):
        ratios = [found[f"{name} {each}"] for name in PAPER_SETTINGS]
        dots(ax, list(PAPER_SETTINGS), [one.values for one in ratios], yscale="log", title=each,
             ylabel="final loss, published rate / best rate")
        note(ax, "medians: " + ", ".join(map(str, ratios)) + "; dotted: the claim's bound")
        reference(ax, 2)
        reference(ax, 1, "-")
    ratios = "; ".join(f"{each} " + ", ".join(str(found[f"{name} {each}"])
                                              for name in PAPER_SETTINGS) for each in names)
    return (f"Protocol: final loss, published rate / best rate, in Settings 1, 2, 3: {ratios}",
            "On seeds that had no part in choosing the best rate; a dot for each seed, bar: "
            "median. Dotted: the bound of the claim, 2.")


learning_rates.full = dict(seeds=8, steps=10_000, others=500)


def clipping(seeds=6, steps=250, optimizers=BOTH, lr=None, batches=3):
    """C11: Clipping lowers directional smoothness, coordinate by coordinate most of all.

    Objection: one batch decides. As in experiments.py, on the typical of so many batches. Claimed,
    of the gradient on both paths and of SGD's step: v^T H v as it is minus that clipped at the
    quantiles 0.9 and 0.5 and that of the sign, above 0. Primary: the gradient clipped at 0.5, SGD's
    and Adam's path in three settings. Apart, without a bound: Adam's own step.
    """
    names, points = [optimizer.__name__ for optimizer in optimizers[:2]], points_of(steps, 10)
    arrays, parts = {"names": names, "kinds": CLIPPED, "point": 50 * np.array(points)}, []
    for name, setting in PAPER_SETTINGS.items():
        both = contestants(setting, optimizers[:2], lr)
        runs = parallel(along, [(clipped_smoothness, setting, both, seed, steps, points, batches)
                                for seed in range(FRESH, FRESH + seeds)])
        typical = np.array([np.median(run["values"], axis=2) for run in runs])
        for i, each in enumerate(names):  # typical: (seeds, optimizers, points, directions, kinds)
            for k, direction in enumerate(("gradient", "step")):
                path = np.stack([typical[:, i, :, k, kind] for kind in range(len(CLIPPED))], axis=1)
                label, height = f"{name}, {each}'s path, {direction}", without_start(path)
                bound = dict(above=0) if direction == "gradient" or i == 0 else {}
                parts += [Part(f"{label} {kind}", f"{label}, robust: v^T H v as it is minus {kind}",
                               height[:, 0] - height[:, j], **bound,
                               primary=direction == "gradient" and kind == "clipped at 0.5")
                          for j, kind in enumerate(CLIPPED) if j > 0]
                parts.append(Part(f"{label} medians", f"{label}, robust: v^T H v", ", ".join(
                    short(each, 2) for each in np.median(height, axis=0))))
                arrays[label] = path  # (seeds, kinds, points)
    return arrays, parts


def draw_clipping(figure, arrays, found):
    """Of "SETTING, OPTIMIZER's path, DIRECTION" (seeds, kinds, points) the medians over the path; a
    row a path."""
    names = list(arrays["names"])
    for each, row in zip(names, figure.subplots(2, 3, sharey=True)):
        for name, ax in zip(PAPER_SETTINGS, row):
            plotting.clipped(ax, [without_start(arrays[f"{name}, {each}'s path, {direction}"])
                                  for direction in ("gradient", "step")], arrays["kinds"],
                             title=TITLES[name], ylabel=f"$v^T H v$, {each}'s path")
            lower = found[f"{name}, {each}'s path, gradient clipped at 0.5"]
            note(ax, f"gradient: as it is minus 0.5: {lower}")
    words = ", ".join(", ".join(
        str(found[f"{name}, {each}'s path, gradient clipped at 0.5"]) for name in PAPER_SETTINGS)
                      + f" ({each}'s path)" for each in names)
    return (f"C11: v^T H v of the gradient, as it is minus clipped at 0.5, in Settings 1, 2, 3: "
            f"{words}",
            "$v^T H v$ at the same point, for the gradient and for the optimizer's step, as it is, "
            "with its coordinates limited to the quantiles 0.9 and 0.5 of their absolute values, "
            "and for its sign, on the typical of several evaluation batches of 1,000 prompts. "
            "Medians over the path without its first tenth; line: median over seeds, band: "
            "smallest to largest.")


clipping.full = dict(seeds=12, steps=2500, batches=10)


def nonlinear_regression(seeds=6, steps=50, optimizers=BOTH, lr=None, batches=2):
    """C12: The picture is the same for nonlinear regression with an MLP before the attention.

    Objections: one batch decides, and the norm of a Gaussian vector is skewed, too. Task, model and
    runs as in experiments.py. Claimed: R_med and v^T H v larger along SGD's path on the typical of
    so many batches (medians over the path without its first tenth); the noise norm's 99 % quantile
    over its median above that of Gaussian vectors with the noise's mean and covariance.
    """
    setting, points, draws = NONLINEAR_TASK, points_of(steps, 10), max(5, steps // 4)
    both, numbers = contestants(setting, optimizers, lr), range(FRESHER, FRESHER + seeds)
    norms, null = noise_norms(setting, seeds, draws, FRESHER)
    R, curvature = (np.array([run["values"] for run in parallel(along, [
        (measure, setting, both, seed, steps, points, batches) for seed in numbers])])
        for measure in (condition, smoothness))  # (seeds, optimizers, points, batches) each
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
            "point": 50 * np.array(points), "share": tail_shares(draws), "MLP tail": tail(norms),
            "MLP null": np.median(tail(null), axis=(0, 1)), "R_med": np.median(R, axis=-1),
            "smoothness": np.median(curvature, axis=-1)}, parts


def draw_nonlinear_regression(figure, arrays, found):
    """The tail of the noise, and "R_med" and "smoothness" (seeds, optimizers, points)."""
    first, second, third = figure.subplots(1, 3)
    tails(first, arrays, "MLP", title="gradient noise")
    first.legend(loc="upper right", fontsize="small")
    note(first, f"99 % / 50 % quantile {found['spread medians']}")
    curves(second, arrays["point"], arrays["R_med"], arrays["optimizers"], yscale="log",
           title="robust condition number", xlabel="iteration", ylabel="$R_{med}$")
    note(second, f"over the path {found['R_med']}")
    curves(third, arrays["point"], arrays["smoothness"], arrays["optimizers"],
           title="directional smoothness", xlabel="iteration", ylabel="$v^T H v$")
    smoothness_axis(third)
    note(third, str(found["medians"]))
    return (f"C12: a nonlinear task with an MLP, typical batch: R_med SGD / Adam {found['R_med']}; "
            f"v^T H v {found['medians']}",
            "Noise: share of the draws whose norm exceeds r times the median of their seed, at "
            "initialisation; dashed: Gaussian vectors of the same mean and covariance. $R_{med}$ "
            "and $v^T H v$: on the typical of several evaluation batches of 1,000 prompts; line: "
            "median over seeds, band: smallest to largest.")


nonlinear_regression.full = dict(seeds=8, steps=10_000, batches=3)
