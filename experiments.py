"""The paper, claim by claim: `python experiments.py NAME`, or C1 to C12.

For each claim one function that measures, at the paper's protocol and nothing else, and one that
draws. The same names in robust.py ask the same claims harder (`--robust`); questions.py goes beyond
the paper. The command line does, for each,

    arrays, parts = NAME(seeds, steps, ...)
    found = measured(parts)                                    # verdicts.py
    headline, caption = draw_NAME(figure, arrays, found)       # by plotting.picture

    seeds, steps     seeds, or how many: `@experiment(first)` (training.py) checks the arguments and
                     turns a number into so many seeds from `first` on; iterations
    optimizers, lr   classes, the first two compared; {class's name: rate} instead of the setting's
    settings         {name: Setting}, the paper's three unless said otherwise
    run              what `stacked(train, ...)` gives, (seeds, optimizers, ...): loss, grad_norm,
                     snapshots; `values_along` measures at snapshots of such runs
    typical          the median over several evaluation batches
    point            the number of a snapshot, one every 50 steps
    arrays           what is drawn, by name; kept in NAME.npz, from which the figure is drawn again
    parts            what was measured and what is claimed of it (verdicts.py); `found` has them by
                     key: median over seeds, interval, decision; in an f-string "1.5 (open)"
    NAME.full        the arguments of `--full`; the defaults are a first look

The loop is `train` in training.py. Source: Ahn et al., ICLR 2024, arXiv 2310.01082.
"""

import numpy as np

import plotting
from data import (DEEP, LARGE, LIGHT_TAILS, NONLINEAR, NONLINEAR_TASK, PAPER_SETTINGS, SETTING_1,
                  SETTING_3, SPHERICAL)
from optimizers import SGD, Adam, SignDescent
from plotting import curves, dots, listed, losses, note, reference, tails
from training import (CLIPPED, FRESH, FRESHER, about_rates, at_best_rates, best_in_words, best_rate,
                      block_centres, by_name, clipped_smoothness, condition, contestants,
                      experiment, final_loss, gradient_norm, grid, labels_of, log_slope,
                      noise_norms, noise_tails, points_of, rates_of, ratio, running_median,
                      skewness, smoothness, spectral_norm, spread, stacked, steps_to, sweep,
                      tail_shares, train, values_along, without_start)
from verdicts import Part, short

BOTH = (SGD, Adam)


@experiment()
def adam_vs_sgd(seeds=6, steps=667, optimizers=BOTH, lr=None, settings=PAPER_SETTINGS):
    """C1: Adam beats SGD in Settings 1, 2 and 3.

    Figure 1 of the paper. Three layers, SGD and Adam with momentum 0.9 from the same weights on the
    same batches, gradient norm clipped at 1, at the published rates. Claimed, in each setting:
    SGD's final loss (median training loss over the last tenth of the steps) over Adam's, per seed,
    lies above 1.
    """
    names = [optimizer.__name__ for optimizer in optimizers]
    arrays, parts = labels_of(settings, optimizers=names, iteration=block_centres(steps)), []
    for name, setting in settings.items():
        both = contestants(setting, optimizers, lr)  # (class, arguments) each
        run = stacked(train, [(setting, both, seed, steps) for seed in seeds])
        loss = run["loss"]  # (seeds, optimizers, steps)
        parts += gaps(name, names, final_loss(loss), above=1)
        arrays |= {f"{name} rates": rates_of(both),
                   f"{name} loss": running_median(loss)}  # (seeds, optimizers, blocks)
    return arrays, parts


def gaps(name, names, final, **bound):
    """Parts from final losses (seeds, optimizers): "NAME SGD / Adam", the first optimizer's over
    another one's, with the bound, above= or below=; and "NAME SGD", "NAME Adam" without one."""
    parts = [Part(f"{name} {names[0]} / {each}", f"{name}: final loss {names[0]} / {each}",
                  ratio(final[:, 0], final[:, i]), **bound)
             for i, each in enumerate(names) if i > 0]
    return parts + [Part(f"{name} {each}", f"{name}: final loss {each}", final[:, i])
                    for i, each in enumerate(names)]


def draw_adam_vs_sgd(figure, arrays, found):
    """"SETTING loss" (seeds, optimizers, blocks), with as many decades in each panel; at the end
    the final losses, and between them their ratio."""
    names, (first, second) = arrays["settings"], arrays["optimizers"][:2]
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    for name, title, ax in zip(names, arrays["titles"], panels):
        losses(ax, arrays, f"{name} loss", title=title, ylabel="training loss")
        plotting.bracket(ax, arrays["iteration"][-1], [
            found[f"{name} {each}"].median for each in (first, second)],
            plotting.times(found[f"{name} {first} / {second}"]))
    plotting.same_decades(*panels)
    gap = plotting.span(found, names, f"{{}} {first} / {second}")
    return (f"C1: {first}'s final loss is {gap} times {second}'s",
            "Running medians of the training loss over blocks of a fiftieth of the steps; line: "
            "median over seeds, band: smallest to largest. Every batch is fresh, so that the "
            "training loss is a test loss. Final loss: median over the last tenth of the steps; "
            "the ratio is the median over seeds. The panels have as many decades, so that equal "
            f"factors look equal. {plotting.rates(figure, arrays)}")


adam_vs_sgd.full = dict(steps=10_000)


@experiment(FRESH)
def gradient_noise(seeds=6, draws=1000, settings=PAPER_SETTINGS):
    """C2: Stochastic gradient noise is heavy-tailed in Settings 1, 2 and 3.

    Figure 2. At initialisation, the norm of g_batch - g_big, gradients on 1,000 and on 100,000
    fresh prompts; so many draws for each seed's initial weights, seeds from 1000 on. Claimed, in
    each setting: the histogram has a right tail, skewness above 0. No optimizer is used.
    """
    arrays, parts = labels_of(settings, share=tail_shares(draws)), []
    for name, setting in settings.items():
        norms, null = noise_norms(setting, seeds, draws)  # null: of Gaussian vectors
        parts.append(Part(f"{name} skewness", f"{name}: skewness of the noise norm",
                          skewness(norms), above=0))
        arrays |= noise_tails(name, norms, null)
    return arrays, parts


def draw_gradient_noise(figure, arrays, found):
    """A panel a setting: "SETTING tail" (seeds, shares) and "SETTING null" (shares,)."""
    names = arrays["settings"]
    row, _, _ = plotting.noises(figure, arrays)
    for name, ax in zip(names, row):
        note(ax, f"skewness {found[f'{name} skewness']}")
    return (f"C2: the norm of the gradient noise is skewed to the right "
            f"{plotting.those(found, names, '{} skewness')}",
            f"{plotting.NOISE} These are skewed, too.")


gradient_noise.full = dict(draws=10_000)


@experiment()
def condition_number(seeds=6, steps=751, optimizers=BOTH, lr=None, settings=PAPER_SETTINGS):
    """C3: R_med is larger along SGD's path than along Adam's.

    Figure 3 and table 1. R_med = max |H_ii| / median |H_ii| over the diagonal of the Hessian H of
    the loss, at the published rates. Claimed, of SGD's over Adam's, per seed, on one evaluation
    batch of 1,000 prompts: above 1 at iterations 750 and 1250 (of a run that has neither: at its
    last snapshot). Primary: the last of them.
    """
    names = [optimizer.__name__ for optimizer in optimizers]
    last = (steps - 1) // 50 * 50
    iterations = [t for t in PRINTED if t <= last] or [last]
    arrays, parts = labels_of(settings, optimizers=names, iterations=iterations), []
    for name, setting in settings.items():
        both = contestants(setting, optimizers, lr)
        values = values_along(condition, setting, both, seeds, steps, tuple(
            t // 50 for t in iterations))[..., 0]  # (seeds, optimizers, iterations)
        arrays[f"{name} rates"] = rates_of(both)
        paper = PAPER_C3[name] if setting is PAPER_SETTINGS.get(name) else {}
        for k, t in enumerate(iterations):
            over = ratio(values[:, 0, k], values[:, 1, k])  # (seeds,)
            mean, std = paper.get(t, (np.nan, np.nan))
            parts += [
                Part(f"{name} {t}", f"{name}, iteration {t}, first batch", over, above=1,
                     primary=t == iterations[-1]),
                Part(f"{name} {t} mean", f"{name}, iteration {t}: mean (std)",
                     mean_std(over.mean(), over.std(ddof=min(1, len(over) - 1)))  # of one seed 0
                     + (f", paper {mean_std(mean, std)}" if t in paper else ""))]
            arrays |= {f"{name}, iteration {t} first batch": over,
                       f"{name}, iteration {t} paper": (mean, std)}
        parts += [Part(f"{name} {t}", f"{name}, iteration {t}, first batch", "not run")
                  for t in PRINTED if t > last]
    return arrays, parts


PRINTED = (750, 1250)  # those of table 1 of the paper
PAPER_C3 = {  # there: mean (standard deviation) of the ratio over seeds
    "Setting 1": {750: (1.76, 0.40), 1250: (1.58, 0.41)},
    "Setting 2": {750: (3.14, 0.97), 1250: (5.98, 2.86)},
    "Setting 3": {750: (9.57, 13.3), 1250: (6.53, 3.55)},
}


def mean_std(mean, std):
    return f"{mean:.3g} ({std:.3g})"


def draw_condition_number(figure, arrays, found):
    """The ratio of R_med, a panel a setting, at each of the iterations: what the paper prints,
    "SETTING, iteration T paper" (mean and standard deviation), and on the first batch "SETTING,
    iteration T first batch" (seeds,)."""
    names, pair = arrays["settings"], " / ".join(arrays["optimizers"][:2])
    iterations = [int(t) for t in arrays["iterations"]][::-1]  # the one that decides above
    cases = [(t, kind) for t in iterations for kind in ("ours", "the paper")]
    row = figure.subplots(1, len(names), sharex=True, sharey=True, squeeze=False)[0]
    for name, title, ax in zip(names, arrays["titles"], row):
        plotting.forest(ax, [f"{kind},\niteration {t:,}" for t, kind in cases], [
            arrays[f"{name}, iteration {t} first batch"] if kind == "ours" else None
            for t, kind in cases], xscale="log", title=title, xlabel=f"$R_{{med}}$, {pair}")
        plotting.beside(ax, [found[f"{name} {t}"] if kind == "ours" else None for t, kind in cases])
        for t in iterations:
            mean, std = arrays[f"{name}, iteration {t} paper"]
            ax.errorbar(mean, -cases.index((t, "the paper")), xerr=[[min(std, 0.9 * mean)], [std]],
                        fmt="*", ms=15, color="#882255", capsize=4)
        ax.axvline(1, color="#000000", ls=":", lw=1.5)
    holds = plotting.those(found, names, f"{{}} {iterations[0]}")
    return (f"C3: at iteration {iterations[0]}, on one batch, {arrays['optimizers'][0]}'s "
            f"condition number R_med is larger {holds}",
            "R_med is the largest absolute entry of the Hessian's diagonal over their median, on "
            "one evaluation batch of 1,000 prompts. A pale dot for each seed, the median, a line "
            "for the interval of the sign test. Star: the mean that the paper prints, with its "
            "standard deviation (cut at a tenth of the mean). Dotted: 1, no difference. "
            f"{plotting.rates(figure, arrays)}")


condition_number.full = dict(steps=10_000)


@experiment()
def directional_smoothness(seeds=6, steps=667, optimizers=BOTH, lr=None, settings=PAPER_SETTINGS):
    """C4: Directional smoothness is smaller along Adam's path.

    Figure 4. v^T H v for the direction v of each step, H at the point before it, at the published
    rates, on one evaluation batch of 1,000 prompts. Claimed, in each setting, of the median over
    the path without its first tenth: SGD's minus Adam's above 0.
    """
    names, points = [optimizer.__name__ for optimizer in optimizers], points_of(steps, 50)
    arrays, parts = labels_of(settings, optimizers=names), []
    for name, setting in settings.items():
        both = contestants(setting, optimizers, lr)
        path = values_along(smoothness, setting, both, seeds, steps, points)[..., 0]
        # path (seeds, optimizers, points)
        parts += smoother(name, f"{name}, first batch", both, path, above=0)
        arrays |= {f"{name} rates": rates_of(both), f"{name} first batch": path}
    return arrays, parts


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
    """Of "SETTING first batch" (seeds, optimizers, points) the medians over the path, which
    decide."""
    names, optimizers = arrays["settings"], [str(each) for each in arrays["optimizers"]]
    row = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for name, title, ax in zip(names, arrays["titles"], row):
        height = without_start(arrays[f"{name} first batch"])  # (seeds, optimizers)
        plotting.pairs(ax, optimizers, height, title=title,
                       ylabel="$v^T H v$, median over the path")
        note(ax, f"median of {' / '.join(optimizers[:2])}: "
             f"{short(np.median(height[:, 0] / height[:, 1]), 2)}")
    plotting.smoothness_axis(*row)
    return (f"C4: on one batch v^T H v is smaller along {optimizers[1]}'s path than along "
            f"{optimizers[0]}'s {plotting.those(found, names, '{} difference')}",
            "$v^T H v$, v the direction of the step, on one evaluation batch of 1,000 prompts: "
            "median over the path without its first tenth. A line joins what is of one seed; bar: "
            "median over seeds. Above the panel the median over seeds of the ratio; the difference "
            "decides. Logarithmic scale, linear around 0. "
            + plotting.rates(figure, arrays))


directional_smoothness.full = dict(steps=10_000)


@experiment()
def generalized_smoothness(seeds=6, steps=500, optimizers=(Adam,), lr=None,
                           settings=PAPER_SETTINGS):
    """C5: Smoothness grows with the gradient norm.

    Figure 5, (L0, L1)-smoothness. Along the path of one optimizer, Adam, at the published
    rates and on one evaluation batch of 1,000 prompts, against the norm of the gradient at the same
    point: v^T H v, and, at every second point, the spectral norm of H. Claimed, in each setting:
    the slope of log against log over the whole path above 0. Primary: of v^T H v. Besides: L0 and
    L1 of the line v^T H v = L0 + L1 |g| through the points.
    """
    points = tuple(range((steps - 1) // 50 + 1))
    arrays, parts = labels_of(settings, iteration=50 * np.array(points)), []
    for name, setting in settings.items():
        adam = contestants(setting, optimizers, lr)
        norm, curvature, spectral = (
            values_along(measure, setting, adam, seeds, steps, at)[:, 0, :, 0]  # (seeds, points)
            for measure, at in ((gradient_norm, points), (smoothness, points),
                                (spectral_norm, points[::2])))
        slopes = [log_slope(x, y) for x, y in zip(norm, curvature)]
        spectral_slopes = [log_slope(x[::2], y) for x, y in zip(norm, spectral)]
        good = np.isfinite(norm) & np.isfinite(curvature)
        L1, L0 = (np.polyfit(norm[good], curvature[good], 1) if len(set(norm[good])) > 1
                  else (np.nan, np.nan))
        parts += [Part(f"{name} slope", f"{name}, whole path: slope of the directional smoothness",
                       slopes, above=0),
                  Part(f"{name} spectral slope", f"{name}, whole path: slope of the spectral norm",
                       spectral_slopes, above=0, primary=False),
                  Part(f"{name} line", f"{name}: line", f"L0 = {L0:.3g}, L1 = {L1:.3g}; "
                       f"{100 * (curvature <= 0).mean():.0f} % of v^T H v negative")]
        arrays |= {f"{name} rates": rates_of(adam), f"{name} norm": norm,
                   f"{name} curvature": curvature, f"{name} spectral": spectral}
    return arrays, parts


def draw_generalized_smoothness(figure, arrays, found):
    """"SETTING curvature" (seeds, points), below "SETTING spectral" (seeds, every second point),
    against "SETTING norm" (seeds, points)."""
    t, names = arrays["iteration"], arrays["settings"]
    panels = figure.subplots(2, len(names), sharex=True, sharey="row", squeeze=False)
    for name, title, above, below in zip(names, arrays["titles"], *panels):
        norm = arrays[f"{name} norm"]
        for ax, x, key, what, times in (
                (above, norm, "curvature", "slope", t),
                (below, norm[:, ::2], "spectral", "spectral slope", t[::2])):
            drawn = plotting.on_path(ax, x, arrays[f"{name} {key}"], times, t[-1])
            plotting.power(ax, x, arrays[f"{name} {key}"], found[f"{name} {what}"].median)
            ax.set(xlabel="gradient norm")
        above.set(title=title, ylabel="$v^T H v$")
        below.set(ylabel="spectral norm of H")
        note(above, f"slope {found[f'{name} slope']}")
        note(below, f"slope {found[f'{name} spectral slope']}")
    if panels[0][0].get_legend_handles_labels()[0]:  # else every run diverged
        panels[0][0].legend(loc="upper left")
    figure.colorbar(drawn, ax=figure.axes, label="iteration")
    return (f"C5: v^T H v grows like the gradient norm to the power "
            f"{plotting.span(found, names, '{} slope')}",
            "Along the path of one optimizer, on one evaluation batch of 1,000 prompts, a point "
            "for each seed and every 50 steps (below: every 100) where $v^T H v$ is positive. "
            "Slope: of log against log over the whole path, median over seeds, that of the line; "
            f"dashed: slope 1. {plotting.rates(figure, arrays)}")


generalized_smoothness.full = dict(steps=2000)


@experiment()
def softmax_vs_linear(seeds=6, steps=125, optimizers=(Adam,), lr=None):
    """C6: Linear attention learns this task much faster than softmax attention.

    Three layers of linear, ReLU and softmax attention from the same weights on the same batches of
    Setting 1, with one optimizer, Adam, at one rate for each kind (the paper prints none;
    these are ours). Claimed, of both kinds of softmax over linear attention: the steps until the
    median of the last 50 losses is below d/2, half of the loss of predicting 0 (primary), and the
    final loss, above 1. A run that does not get there counts as infinitely many steps.
    """
    kinds = {"linear": SETTING_1} | {setting.name: setting for setting in NONLINEAR}
    adams = {kind: contestants(setting, optimizers, lr) for kind, setting in kinds.items()}
    loss = {}  # {kind: (seeds, steps)}
    for kind, setting in kinds.items():
        loss[kind] = stacked(train, [(setting, adams[kind], seed, steps)
                                     for seed in seeds])["loss"][:, 0]
    return {"iteration": block_centres(steps), "kinds": [
        f"{kind} ({arguments['lr']:g})" for kind, ((_, arguments),) in adams.items()],
        "loss": np.stack([running_median(values) for values in loss.values()], axis=1)
        }, attention_parts(loss)


def attention_parts(loss, words=""):
    """Parts of C6 from {kind: losses (seeds, steps)}; the words go into their labels."""
    end = {kind: final_loss(values) for kind, values in loss.items()}  # (seeds,) each
    half = {kind: steps_to(SETTING_1.data["d"] / 2, values) for kind, values in loss.items()}
    parts = []
    for kind in ("relu", "softmax", "softmax/n"):
        claim = {} if kind == "relu" else dict(above=1)
        parts += [Part(f"{kind} steps ratio", f"{kind} / linear{words}: steps to half the loss",
                       ratio(half[kind], half["linear"]), **claim),
                  Part(f"{kind} loss ratio", f"{kind} / linear{words}: final loss",
                       ratio(end[kind], end["linear"]), **claim, primary=False)]
    for kind in loss:
        parts += [Part(f"{kind} loss", f"{kind}{words}: final loss", end[kind]),
                  Part(f"{kind} steps", f"{kind}{words}: steps to half the loss", half[kind])]
    return parts


def draw_softmax_vs_linear(figure, arrays, found):
    """One panel: "loss" (seeds, kinds, blocks)."""
    plotting.attention(figure, arrays, "loss", "kinds", found, SETTING_1.data["d"])
    return (f"C6: softmax attention ends at {found['softmax loss ratio']} times the loss of linear "
            "attention",
            f"{SETTING_1.name}, {SETTING_1.layers} layers, the paper's block matrices. Running "
            "medians over blocks of a fiftieth of the steps; line: median over seeds, band: "
            "smallest to largest; in brackets the learning rate, behind it the final loss. The "
            "batches are the same for every kind. softmax: weights over the n context keys sum to "
            "1; softmax/n: the authors' code, over all n + 1 keys, without the query's own, "
            "divided by n.")


softmax_vs_linear.full = dict(steps=2000)


@experiment(FRESH)
def larger_model(seeds=6, steps=38, optimizers=BOTH, lr=None):
    """C7: The picture is the same for L = 8, d = 20, n = 60.

    Loss and gradient norm as in C1, gradient noise as in C2, on 6,400 parameters; rates ours, seeds
    from 1000 on. Claimed: SGD's final loss over Adam's above 1; the noise norm has a right tail,
    skewness above 0 (two fifths as many draws as steps).
    """
    names, draws = [optimizer.__name__ for optimizer in optimizers], max(5, 2 * steps // 5)
    both = contestants(LARGE, optimizers, lr)
    loss = stacked(train, [(LARGE, both, seed, steps, 500) for seed in seeds])["loss"]
    norms, null = noise_norms(LARGE, seeds, draws)
    parts = gaps(LARGE.name, names, final_loss(loss), above=1) + [
        Part("skewness", f"{LARGE.name}: skewness of the noise norm", skewness(norms), above=0)]
    return {"optimizers": names, "iteration": block_centres(steps), "share": tail_shares(draws),
            "rates": rates_of(both), "loss": running_median(loss)} | noise_tails(
                LARGE.name, norms, null), parts


def draw_larger_model(figure, arrays, found):
    """"loss" (seeds, optimizers, blocks), and the tail of the noise."""
    (first, second), (loss, noise) = arrays["optimizers"][:2], figure.subplots(1, 2)
    gap = found[f"{LARGE.name} {first} / {second}"]
    losses(loss, arrays, "loss", title="training", ylabel="training loss")
    plotting.bracket(loss, arrays["iteration"][-1], [
        found[f"{LARGE.name} {each}"].median for each in (first, second)], plotting.times(gap))
    tails(noise, arrays, LARGE.name, title="gradient noise at the start", xscale="linear",
          xlim=plotting.reach(arrays, LARGE.name))
    noise.legend(loc="upper right")
    note(noise, f"skewness {found['skewness']}")
    return (f"C7: in the larger model {first}'s final loss is {plotting.times(gap)} {second}'s",
            "Running medians over blocks of a fiftieth of the steps; line: median "
            "over seeds, band: smallest to largest. Final loss: median over the last tenth of the "
            f"steps; the ratio is the median over seeds. {plotting.NOISE} "
            + plotting.foot(figure, f"{LARGE.name}. Learning rates: {arrays['rates']}."))


larger_model.full = dict(steps=2500)


@experiment(FRESH)
def heavy_tails(seeds=6, steps=250, optimizers=BOTH, lr=None, batches=1):
    """C8: Heavier tails of x: heavier noise, slower training, larger R_med ratio, the same gain.

    Three tails at one scale, E|x|^2 = 1: x on the unit sphere, Gaussian, and the paper's Gamma(0.1,
    10), whose E|x|^2 is 1 as well; the middle column is ours. Seeds from 1000 on. Rates (published
    for the outer two) and clip limits (0.1, 0.1, 1) are those of each setting. Claimed, heavy tails
    against the sphere: the noise norm's 99 % quantile over its median larger; SGD's R_med over
    Adam's larger (at the same iteration, median over the path without its first tenth, on one
    evaluation batch); more steps, for both optimizers, until the median of the last 50 losses is
    below 1/2, half of the loss of predicting 0; and SGD's final loss above Adam's in both. That
    Adam's gain stays is tested in robust.py.
    """
    settings = {setting.name: setting for setting in (SPHERICAL, LIGHT_TAILS, SETTING_3)}
    names, draws = [optimizer.__name__ for optimizer in optimizers], max(5, steps // 5)
    points, arrays, parts = points_of(steps, 10), {"optimizers": names}, []
    half, wide, first = {}, {}, {}  # by setting: (seeds, optimizers), (seeds,), (seeds,)
    for name, setting in settings.items():
        both = contestants(setting, optimizers, lr)
        loss = stacked(train, [(setting, both, seed, steps) for seed in seeds])["loss"]
        values = values_along(condition, setting, both, seeds, steps, points, batches)
        # loss (seeds, optimizers, steps), values: R_med (seeds, optimizers, points, batches)
        over = ratio(values[:, 0], values[:, 1])  # (seeds, points, batches)
        half[name] = steps_to(0.5, loss)
        wide[name] = spread(noise_norms(setting, seeds, draws)[0])
        first[name] = without_start(over[..., 0])
        parts += gaps(name, names, final_loss(loss),
                      **{} if setting is LIGHT_TAILS else dict(above=1))
        parts += [
            Part(f"{name} noise", f"{name}: 99 % quantile over median of the noise norm",
                 wide[name]),
            Part(f"{name} R_med", f"{name}: ratio of R_med, typical batch",
                 without_start(np.median(over, axis=-1)))]
        parts += [Part(f"{name} steps {each}", f"{name}: steps of {each} to half the loss",
                       half[name][:, i]) for i, each in enumerate(names)]
        arrays[f"{name} protocol"] = f"{rates_of(both)}, clip {setting.clip:g}"
    light, heavy = SPHERICAL.name, SETTING_3.name
    parts += [Part("noise", "Heavy / spherical: 99 % quantile over median of the noise norm",
                   wide[heavy] / wide[light], above=1),
              Part("R_med", "Heavy / spherical: ratio of R_med, first batch",
                   ratio(first[heavy], first[light]), above=1)]
    parts += [Part(f"steps {each}", f"Heavy / spherical: {each}, steps to half the loss",
                   ratio(half[heavy], half[light])[:, i], above=1)
              for i, each in enumerate(names)]
    return arrays, parts


TAILS = {SPHERICAL.name: "on the sphere", LIGHT_TAILS.name: "Gaussian",
         SETTING_3.name: "heavy-tailed"}


def draw_heavy_tails(figure, arrays, found):
    """The parts of each setting: its noise, the steps, the ratios of R_med and of final losses."""
    names = [str(each) for each in arrays["optimizers"]]
    settings, pair = (SPHERICAL.name, LIGHT_TAILS.name, SETTING_3.name), " / ".join(names[:2])
    labels = [TAILS[name] for name in settings]
    (noise, steps), (R, loss) = figure.subplots(2, 2)
    for ax, key, title in ((noise, "noise", "heavier noise?"),
                           (R, "R_med", "larger ratio of $R_{med}$?"),
                           (loss, pair, f"does {names[1]} end lower?")):
        dots(ax, labels, [found[f"{name} {key}"].values for name in settings], title=title,
             yscale="log")
        reference(ax, 1)
    for i, each in enumerate(names):
        dots(steps, labels, [found[f"{name} steps {each}"].values for name in settings],
             plotting.look(each, i), (i, len(names)), each, title="slower training?", yscale="log")
    steps.legend(loc="upper left")
    noise.set_ylabel("99 % / 50 % quantile\nof the noise")
    steps.set_ylabel("steps to half the loss")
    R.set_ylabel(f"ratio of $R_{{med}}$,\n{pair}")
    loss.set_ylabel(f"final loss,\n{pair}")
    plotting.same_decades(noise, steps, R, loss)
    protocols = "; ".join(f"{name} {arrays[f'{name} protocol']}" for name in settings)
    return (f"C8: from x on the sphere to heavy-tailed x {names[0]}'s steps to "
            f"half the loss grow {found[f'steps {names[0]}']} times, {names[1]}'s "
            f"{found[f'steps {names[1]}']} times",
            "All at the same E|x|$^2$. A mark for each seed, bar: median. Noise: 99 % over 50 % "
            "quantile of its norm at initialisation. Steps: to half of the loss of predicting 0. "
            "$R_{med}$: median over the path, on the typical of the evaluation batches of 1,000 "
            f"prompts; on the first one {pair} is {found['R_med']} times that on the sphere. "
            f"Dotted: 1. {plotting.foot(figure, f'Rates, clip: {protocols}.')}")


heavy_tails.full = dict(steps=10_000, batches=5)


@experiment(FRESH)
def depth(seeds=6, steps=125, optimizers=BOTH, lr=None, batches=1):
    """C9: With depth the Adam-SGD gap, noise tails and R_med ratio grow, and the loss falls.

    L = 2, 4, 6, 8 layers in Setting 1; rates ours, seeds from 1000 on. Claimed: SGD's final loss
    over Adam's is larger at L = 8 than at 2; the final loss of each is lower; the noise norm's 99 %
    quantile over its median is larger for L = 6 and 8 than for 2 and 4; SGD's R_med over Adam's (at
    the same iteration, median over the path without its first tenth, on one evaluation batch) is
    larger for L = 4, 6 and 8 than for 2 (geometric means). L = 2 has two plateaus: how many seeds
    end on the lower one is counted; a mean over both says nothing.
    """
    names, draws = [optimizer.__name__ for optimizer in optimizers], max(5, steps // 5)
    points, parts = points_of(steps, 10), []
    final, noises, first = [], [], []  # by depth: (seeds, optimizers), (seeds,), (seeds,)
    for setting in DEEP:
        both = contestants(setting, optimizers, lr)
        final.append(final_loss(stacked(train, [(setting, both, seed, steps)
                                                for seed in seeds])["loss"]))
        noises.append(spread(noise_norms(setting, seeds, draws)[0]))
        values = values_along(condition, setting, both, seeds, steps, points, batches)
        # values: R_med (seeds, optimizers, points, batches)
        along_path = ratio(values[:, 0], values[:, 1])  # (seeds, points, batches)
        first.append(without_start(along_path[..., 0]))
        if setting is not DEEP[0]:
            parts += gaps(setting.name, names, final[-1])
        parts += [Part(f"{setting.name} noise", f"{setting.name}: 99 % quantile over median of the "
                       "noise norm", noises[-1]),
                  Part(f"{setting.name} R_med", f"{setting.name}: ratio of R_med, typical batch",
                       without_start(np.median(along_path, axis=-1)))]
    final = np.array(final)  # (depths, seeds, optimizers)
    gap = ratio(final[..., 0], final[..., 1])  # (depths, seeds)
    layers, half = [setting.layers for setting in DEEP], len(DEEP) // 2
    parts += [
        Part("gap", f"gap {' / '.join(names[:2])}, L = {listed(layers[-1:])} over {layers[0]}",
             ratio(gap[-1], gap[0]), above=1),
        Part("noise", "99 % quantile over median of the noise norm, "
             f"L = {listed(layers[half:])} over {listed(layers[:half])}",
             mean_ratio(noises[half:], noises[:half]), above=1),
        Part("R_med", "ratio of R_med at the same iteration, first batch, "
             f"L = {listed(layers[1:])} over {layers[0]}", mean_ratio(first[1:], first[:1]),
             above=1)]
    parts += [Part(f"loss {each}", f"final loss {each}, L = {listed(layers[:1])} over {layers[-1]}",
                   ratio(final[0, :, i], final[-1, :, i]), above=1)
              for i, each in enumerate(names)]
    lower = (final[0] < BETWEEN_PLATEAUS).sum(axis=0)  # (optimizers,)
    parts.append(Part("plateaus", "L = 2: seeds that end on the lower of the two plateaus",
                      ", ".join(f"{each} {lower[i]} of {len(seeds)}"
                                for i, each in enumerate(names))))
    arrays = {"optimizers": names, "layers": layers, "spread": np.transpose(noises),
              "first ratio": np.transpose(first)}
    arrays |= {f"final {each}": final[..., i].T for i, each in enumerate(names)}  # (seeds, depths)
    return arrays, parts


def mean_ratio(some, others):
    """Ratio of the geometric means of values (depths, seeds): (seeds,)."""
    return ratio(*(np.exp(np.log(values).mean(axis=0)) for values in (some, others)))


BETWEEN_PLATEAUS = 0.07  # L = 2 ends near 0.095 or near 0.056, the least loss in what_it_learns


CHANGES = {"holds": "raises", "open": "may raise or lower", "against": "lowers"}  # in a headline


def draw_depth(figure, arrays, found):
    """Against the depth, (seeds, depths): "final OPTIMIZER"; "spread" of the noise; "first ratio"
    of R_med at the same iteration."""
    names, layers = [str(each) for each in arrays["optimizers"]], [int(L) for L in arrays["layers"]]
    pair, (loss, noises, condition) = " / ".join(names[:2]), figure.subplots(1, 3)
    half, shared = len(layers) // 2, dict(yscale="log", xlabel="layers L", xticks=layers)
    curves(loss, layers, np.stack([arrays[f"final {each}"] for each in names], axis=1), names,
           title="loss", ylabel="final loss", **shared)
    plotting.bracket(loss, layers[-1], [found[f"L = {layers[-1]} {each}"].median
                                        for each in names[:2]],
                     plotting.times(found[f"L = {layers[-1]} {pair}"]))
    curves(noises, layers, arrays["spread"][:, None], [""], title="noise",
           ylabel="99 % / 50 % quantile of the noise", **shared)
    note(noises, f"deep over shallow ({listed(layers[:half])}): {found['noise']}")
    dots(condition, layers, arrays["first ratio"].T, title="condition number", yscale="log",
         xlabel="layers L", ylabel=f"ratio of $R_{{med}}$, {pair}")
    note(condition, f"deep over L = {layers[0]}: {found['R_med']}")
    reference(condition, 1)
    return (f"C9: depth {CHANGES[found['gap'].decision]} {names[1]}'s lead in final loss, "
            f"{CHANGES[found['noise'].decision]} the tail of the noise and "
            f"{CHANGES[found['R_med'].decision]} the ratio of condition numbers R_med",
            "Data of Setting 1. Line and bar: median over seeds, band: smallest to largest; a mark "
            "for each seed. Noise: 99 % over 50 % quantile of its norm at initialisation. Ratio of "
            "$R_{med}$: median over the path, on one batch, at the same iteration. Above the "
            "panels: the geometric mean of the deep models over that of the shallow ones, median "
            "over seeds.")


depth.full = dict(seeds=8, steps=10_000, batches=5)


@experiment()
def learning_rates(seeds=3, steps=150, optimizers=BOTH, lr=None, settings=PAPER_SETTINGS):
    """Protocol: The learning rate of each optimizer is the best of a grid of ten.

    The published rates beside our grid of seven, in Settings 1, 2 and 3, on the pilot seeds 0, 1,
    2. The best rate has the lowest mean over seeds of the log final loss, among the rates at which
    no run diverged. Measured: the best rate, the good range (within a factor 2 of the best loss),
    and at what length of a run each rate would be the best, so that one sees where the published
    ones come from (at a constant rate the beginning of a long run is a short run). The claim itself
    is tested in robust.py, on other seeds.
    """
    candidates, lengths = by_name(optimizers), [each for each in LENGTHS if each <= steps]
    rates = grid(settings, candidates)
    tried = sweep(settings, candidates, rates, seeds, steps)
    arrays, parts = labels_of(settings, optimizers=list(candidates)), []
    for (name, each), by_rate in tried.items():
        used = (settings[name].lr | (lr or {})).get(each, np.nan)
        best = [best_rate({rate: dict(loss=run["loss"][:, :length])
                           for rate, run in by_rate.items()}) for length in lengths]
        fits = [f"{length:,}" for length, rate in zip(lengths, best) if rate == used]
        parts += [
            Part(f"{name} {each} best", f"{name}, {each}: best rate", about_rates(by_rate, used)),
            Part(f"{name} {each} lengths", f"{name}, {each}: best rate of a run of so many steps",
                 ", ".join(f"{length:,}: {rate:g}" for length, rate in zip(lengths, best))),
            Part(f"{name} {each} published", f"{name}, {each}: lengths at which the rate in use "
                 "is the best", ", ".join(fits) or "none of these")]
        final = [final_loss(run["loss"]) for run in by_rate.values()]  # (rates, seeds)
        arrays |= {f"{name} {each} rates": list(by_rate), f"{name} {each} used": used,
                   f"{name} {each} final": final, f"{name} {each} lengths": lengths,
                   f"{name} {each} best": best}
    return arrays, parts


LENGTHS = 100, 200, 400, 1000, 2000, 5000, 10_000


def draw_learning_rates(figure, arrays, found):
    """Above "SETTING OPTIMIZER final" (rates, seeds) against the rates, over the lowest median of
    the setting; below "SETTING OPTIMIZER best", the best rate of a run of so many steps."""
    settings, names = arrays["settings"], [str(each) for each in arrays["optimizers"]]
    above, below = figure.subplots(2, len(settings), sharex="row", sharey="row", squeeze=False,
                                   height_ratios=(1.4, 1))
    for name, title, ax, lengths in zip(settings, arrays["titles"], above, below):
        middle = np.concatenate([np.median(arrays[f"{name} {each} final"], axis=1)
                                 for each in names])
        least = middle[np.isfinite(middle)].min(initial=1)
        for i, each in enumerate(names):
            over_grid(ax, arrays, f"{name} {each}", each, i, least)
            used, style = arrays[f"{name} {each} used"], plotting.look(each, i)
            if len(arrays[f"{name} {each} lengths"]):
                lengths.plot(arrays[f"{name} {each} lengths"], arrays[f"{name} {each} best"],
                             label=each, **dict(style, marker="."))
            lengths.axhline(used, color=style["color"], lw=1.5, ls=style["ls"],
                            zorder=2 - i)  # so that both show where they are one
        ax.set(xscale="log", yscale="log", title=title, xlabel="learning rate",
               ylabel="final loss / the lowest", ylim=(0.7, 30))
        lengths.set(xscale="log", yscale="log", xlabel="steps of the run", ylabel="best rate")
        for marker, size, words in (("o", 13, "in use"), ("*", 16, "best"), ("X", 10, "diverged")):
            ax.plot([], [], marker, ms=size, mew=2, color="#444444", label=words,
                    mfc="none" if marker == "o" else None)
    above[-1].legend(loc="upper left", ncols=2)
    note(below[0], "thin: the rate in use")
    away = {f"{name} {each}": best_of(arrays, f"{name} {each}")[1] / arrays[f"{name} {each} used"]
            for name in settings for each in names}
    worst = max(away, key=lambda key: abs(np.log(away[key])) if away[key] > 0 else 0)
    setting, each = worst.rsplit(" ", 1)
    return (f"Protocol: in {setting} the best rate of {each} is {short(away[worst], 2)} times the "
            "one in use",
            "Above: median training loss over the last tenth of the steps, over the lowest median "
            "of the setting; line: median over seeds, band: smallest to largest. Star: the best "
            "rate; circle: the one in use, published unless --lr says otherwise; X, at the top: a "
            "run diverged. Below: the best rate of a run of so many steps; thin: the rate in use.")


def best_of(arrays, key):
    """Number and value of the best rate: the lowest mean log final loss, if no run diverged."""
    with np.errstate(all="ignore"):
        score = np.log(arrays[f"{key} final"]).mean(axis=1)
    best = np.where(np.isfinite(score), score, np.inf).argmin()
    return best, arrays[f"{key} rates"][best]


def over_grid(ax, arrays, key, name, i, least):
    """Of one optimizer the final losses "KEY final" over the least, against "KEY rates"."""
    rates, final = arrays[f"{key} rates"], arrays[f"{key} final"]  # (rates,), (rates, seeds)
    diverged, color = ~np.isfinite(final).all(axis=1), plotting.look(name, i)["color"]
    curves(ax, rates, final.T[:, None] / least, [name], path=False, first=i)
    if diverged.any():
        ax.plot(rates[diverged], np.full(diverged.sum(), 1.0), "X", color=color, ms=10,
                clip_on=False, transform=ax.get_xaxis_transform())
    for which, marker, size in ((rates == arrays[f"{key} used"], "o", 13),
                                (np.arange(len(rates)) == best_of(arrays, key)[0], "*", 16)):
        which = which & ~diverged
        ax.plot(rates[which], np.median(final[which], axis=-1) / least, marker, ms=size,
                mfc="none" if marker == "o" else color, mew=2, color=color)


learning_rates.full = dict(steps=10_000)


@experiment(FRESH)
def full_batch(seeds=6, steps=80, optimizers=(SGD, Adam, SignDescent)):
    """C10: Without gradient noise Adam still beats SGD, and so does sign descent.

    Quoted by the paper from Kunstner et al. 2023 (arXiv 2304.13960). Settings 1 and 3, on one and
    the same batch of 1,000 prompts at every step, a batch for each seed. Every optimizer at its
    best rate (`best_rates`), chosen on other seeds. Claimed, of the final loss on that batch: SGD's
    over Adam's, and over that of sign descent with momentum, above 1. The paper prints no number;
    protocol and rates are ours. (Fresh batches of other sizes are rows of `lead`.)
    """
    names = [optimizer.__name__ for optimizer in optimizers]
    chosen = {setting.name: setting for setting in (SETTING_1, SETTING_3)}
    arrays, parts = labels_of(chosen, optimizers=names, iteration=block_centres(steps)), []
    for name, setting in chosen.items():
        run, _, scores = at_best_rates(setting._replace(fixed=True), by_name(optimizers), steps,
                                       seeds)
        parts += gaps(name, names, run["ends"], above=1)
        parts.append(Part(f"{name} rates", f"{name}: best rates", best_in_words(scores)))
        arrays |= {f"{name} loss": running_median(run["loss"]),  # (seeds, optimizers, blocks)
                   f"{name} rates": best_in_words(scores)}
    return arrays, parts


def draw_full_batch(figure, arrays, found):
    """"SETTING loss" (seeds, optimizers, blocks), with as many decades in each panel; at the end
    the ratio of the final losses of the first two."""
    names, (first, *others) = arrays["settings"], [str(each) for each in arrays["optimizers"]]
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    for name, title, ax in zip(names, arrays["titles"], panels):
        losses(ax, arrays, f"{name} loss", title=title, ylabel="loss on the one batch")
        plotting.bracket(ax, arrays["iteration"][-1], [
            found[f"{name} {each}"].median for each in (first, others[0])],
            plotting.times(found[f"{name} {first} / {others[0]}"]))
        note(ax, ", ".join(f"{first} / {each} {found[f'{name} {first} / {each}']}"
                           for each in others))
    plotting.same_decades(*panels)
    return (f"C10: without noise {first}'s final loss is "
            f"{plotting.span(found, names, f'{{}} {first} / {others[0]}')} times {others[0]}'s"
            + "".join(f", and above {each}'s "
                      + plotting.those(found, names, f"{{}} {first} / {each}")
                      for each in others[1:]),
            "One and the same batch of 1,000 prompts at every step: no gradient noise. Every "
            "optimizer at its best rate. Running medians of the loss; line: median over seeds, "
            "band: smallest to largest; above the panel the medians of the ratios. "
            + plotting.rates(figure, arrays))


full_batch.full = dict(steps=600)


@experiment()
def clipping(seeds=6, steps=250, optimizers=BOTH, lr=None, batches=1, settings=PAPER_SETTINGS):
    """C11: Clipping lowers directional smoothness, coordinate by coordinate most of all.

    Quoted by the paper from Pan & Li 2023, who compare directions at the same point: v^T H v for a
    direction as it is, with its coordinates limited to the quantiles 0.9 and 0.5 of their absolute
    values, and for its sign. (Clipping of the norm does not change a direction.) Along SGD's and
    Adam's paths in Settings 1 to 3 at the published rates, the directions are the gradient on the
    evaluation batch and, on SGD's path, the step (its momentum). Claimed, on one evaluation batch
    (the typical of several, if asked): v^T H v as it is minus each of the three, medians over the
    path without its first tenth, above 0. Primary: the gradient, clipped at 0.5, on each of the two
    paths. Apart, without a bound: Adam's own step.
    """
    names, points = [optimizer.__name__ for optimizer in optimizers[:2]], points_of(steps, 10)
    arrays, parts = labels_of(settings, names=names, kinds=CLIPPED,
                              point=50 * np.array(points)), []
    words = "first batch" if batches == 1 else "typical batch"
    for name, setting in settings.items():
        both = contestants(setting, optimizers, lr)[:2]
        arrays[f"{name} rates"] = rates_of(both)
        values = np.median(values_along(clipped_smoothness, setting, both, seeds, steps, points,
                                        batches), axis=3)
        for i, each in enumerate(names):  # values: (seeds, optimizers, points, directions, kinds)
            for k, direction in enumerate(("gradient", "step")):
                path = np.stack([values[:, i, :, k, kind] for kind in range(len(CLIPPED))], axis=1)
                label = f"{name}, {each}'s path, {direction}"
                parts += lowered(label, path, direction == "gradient" or i == 0, words)
                arrays[label] = path  # (seeds, kinds, points)
    return arrays, parts


def lowered(label, path, claimed, words):
    """Parts from v^T H v (seeds, kinds, points) of one direction: as it is minus each other
    kind."""
    height = without_start(path)  # (seeds, kinds)
    bound = dict(above=0) if claimed else {}
    return [Part(f"{label} {kind}", f"{label}, {words}: v^T H v as it is minus {kind}",
                 height[:, 0] - height[:, k], **bound,
                 primary=kind == "clipped at 0.5" and label.endswith("gradient"))
            for k, kind in enumerate(CLIPPED) if k > 0] + [
        Part(f"{label} medians", f"{label}, {words}: v^T H v", ", ".join(
            short(each, 2) for each in np.median(height, axis=0)))]


def draw_clipping(figure, arrays, found):
    """Of "SETTING, OPTIMIZER's path, DIRECTION" (seeds, kinds, points) the medians over the path,
    over that of the direction as it is."""
    gradient, step = plotting.clippings(figure, arrays, {
        key: without_start(arrays[key]) for key in arrays if key.endswith(("gradient", "step"))})
    own = "not" if float(step) >= 1 else f"hardly ({step} at best)"
    return (f"C11: clipping coordinates lowers v^T H v along the gradient (at the median to "
            f"{gradient} or less), {own} along {arrays['names'][-1]}'s own step",
            "$v^T H v$ at the same point, for the gradient and for the optimizer's step, with its "
            "coordinates limited to the quantiles 0.9 and 0.5 of their absolute values, and for "
            "its sign, over that of the direction as it is, on one evaluation batch of 1,000 "
            "prompts (as the paper asks) or the typical of several (asked harder). Medians over "
            f"the path without its first tenth, then over seeds. {plotting.rates(figure, arrays)}")


clipping.full = dict(steps=10_000)


@experiment(FRESHER)
def nonlinear_regression(seeds=6, steps=50, optimizers=BOTH, lr=None):
    """C12: The picture is the same for nonlinear regression with an MLP before the attention.

    As in the authors' code: y = <w, f(x)> with a fixed random ReLU network f of width 10; a
    trainable ReLU MLP of width 30 before three layers of linear attention with full matrices;
    batches of 2,000 (noise: against 200,000, a quarter as many draws as steps), SGD at 0.05 and
    Adam at 0.01, seeds from 2000 on.
    Claimed: SGD's final loss over Adam's above 1; the noise norm has a right tail, skewness above
    0; R_med and v^T H v larger along SGD's path (medians over the path without its first tenth, on
    one evaluation batch of 1,000 prompts).
    """
    names, points = [optimizer.__name__ for optimizer in optimizers], points_of(steps, 10)
    setting, draws = NONLINEAR_TASK, max(5, steps // 4)
    both = contestants(setting, optimizers, lr)
    loss = stacked(train, [(setting, both, seed, steps) for seed in seeds])["loss"]
    norms, _ = noise_norms(setting, seeds, draws)
    R, curvature = (values_along(measure, setting, both, seeds, steps, points)[..., 0]
                    for measure in (condition, smoothness))  # (seeds, optimizers, points) each
    height = without_start(curvature)  # (seeds, optimizers)
    parts = gaps(setting.name, names, final_loss(loss), above=1) + [
        Part("skewness", "MLP: skewness of the noise norm", skewness(norms), above=0),
        Part("R_med", "MLP: ratio of R_med, first batch",
             without_start(ratio(R[:, 0], R[:, 1])), above=1),
        Part("smoothness", "MLP, first batch: difference of v^T H v", height[:, 0] - height[:, 1],
             above=0),
        Part("medians", "MLP, first batch: medians of v^T H v", ", ".join(
            f"{each} {short(np.median(height[:, i]), 2)}" for i, each in enumerate(names)))]
    return {"optimizers": names, "iteration": block_centres(steps),
            "loss": running_median(loss)}, parts


def draw_nonlinear_regression(figure, arrays, found):
    """"loss" (seeds, optimizers, blocks), and the final losses seed by seed."""
    names, pair = [str(each) for each in arrays["optimizers"]], " / ".join(arrays["optimizers"][:2])
    loss, ends = figure.subplots(1, 2, width_ratios=(1.5, 1), sharey=True)
    losses(loss, arrays, "loss", title="training", ylabel="loss")
    plotting.pairs(ends, names, np.transpose([found[f"MLP {each}"].values for each in names]),
                   title="final loss, seed by seed", ylabel="loss")
    note(ends, f"median of {pair}: {found[f'MLP {pair}']}")
    over = found[f"MLP {pair}"].values
    return (f"C12: with an MLP before the attention {names[1]} ends lower in {(over > 1).sum()} of "
            f"{len(over)} seeds",
            "A nonlinear task. Running medians of the training loss; line: median over seeds, "
            "band: smallest to largest. A line joins what is of one seed; bar: median over seeds. "
            f"Not shown, on the first batch: R_med {pair} {found['R_med']}; v^T H v "
            f"{found['medians']}; skewness of the noise {found['skewness']}.")


nonlinear_regression.full = dict(seeds=8, steps=10_000)


if __name__ == "__main__":
    import sys
    from commands import main  # which imports this book by its name, so that workers can, too
    sys.exit(main())
