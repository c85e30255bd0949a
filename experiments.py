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
    run              a dict of arrays, the first axis the optimizers: loss, grad_norm, snapshots of
                     `train`; values of `along`, which measures at snapshots of the same runs
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
from plotting import (curves, dots, in_settings, listed, losses, note, numbers, reference,
                      smoothness_axis, tails)
from runs import parallel
from training import (CLIPPED, FRESH, FRESHER, about_rates, along, best_rate, block_centres,
                      by_name, clipped_smoothness, condition, contestants, experiment, final_loss,
                      gradient_norm, grid, labels_of, late_loss, log_slope, moment, noise_norms,
                      points_of, rates_of, ratio, running_median, smoothness, spectral_norm, spread,
                      steps_to, sweep, tail, tail_shares, train, tuned, without_start)
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
        runs = parallel(train, [(setting, both, seed, steps) for seed in seeds])
        loss = np.array([run["loss"] for run in runs])  # (seeds, optimizers, steps)
        norm = np.array([run["grad_norm"] for run in runs])
        final = final_loss(loss)  # (seeds, optimizers)
        parts += gaps(name, names, final, above=1)
        arrays |= {f"{name} rates": rates_of(both),
                   f"{name} loss": running_median(loss),  # (seeds, optimizers, blocks)
                   f"{name} norm": running_median(norm)}
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
    """Above "SETTING loss" (seeds, optimizers, blocks), below "SETTING norm"."""
    names, (first, second) = arrays["settings"], arrays["optimizers"][:2]
    panels = figure.subplots(2, len(names), squeeze=False)
    for name, title, loss, norm in zip(names, arrays["titles"], *panels):
        losses(loss, arrays, f"{name} loss", title=title, ylabel="training loss")
        losses(norm, arrays, f"{name} norm", ylabel="gradient norm")
        note(loss, f"{first} / {second} {found[f'{name} {first} / {second}']}")
    gap = numbers(found, names, f"{first} / {second}")
    return (f"C1: {first} ends at {gap} times {second}'s loss in {in_settings(names)}",
            "Training loss, and below the norm of the gradient before clipping. Running medians "
            "over blocks of a fiftieth of the steps; line: median over seeds, band: smallest to "
            "largest. Every batch is fresh, so that the training loss is a test loss. "
            + plotting.rates(figure, arrays))


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
                          moment(norms, 3), above=0))
        arrays[f"{name} tail"] = tail(norms)  # (seeds, shares)
        arrays[f"{name} null"] = np.median(tail(null), axis=(0, 1))
    return arrays, parts


def draw_gradient_noise(figure, arrays, found):
    """A panel a setting: "SETTING tail" (seeds, shares) and "SETTING null" (shares,)."""
    names = arrays["settings"]
    row = figure.subplots(1, len(names), sharex=True, sharey=True, squeeze=False)[0]
    for name, title, ax in zip(names, arrays["titles"], row):
        tails(ax, arrays, name, title=title)
        note(ax, f"skewness {found[f'{name} skewness']}")
    row[0].legend(loc="center right")
    return (f"C2: skewness of the noise norm in {in_settings(names)}: "
            f"{numbers(found, names, 'skewness')}",
            "Share of the draws whose norm exceeds r times the median of their seed: |g(a batch) - "
            "g(a hundred batches)| at initialisation. A line for each seed; dashed: Gaussian "
            "vectors of the same mean and covariance, which are skewed, too.")


gradient_noise.full = dict(draws=10_000)


@experiment()
def condition_number(seeds=6, steps=751, optimizers=BOTH, lr=None, batches=1,
                     settings=PAPER_SETTINGS):
    """C3: R_med is larger along SGD's path than along Adam's.

    Figure 3 and table 1. R_med = max |H_ii| / median |H_ii| over the diagonal of the Hessian H of
    the loss, at the published rates. Claimed, of SGD's over Adam's, per seed, on one evaluation
    batch of 1,000 prompts: above 1 at iterations 750 and 1250 (of a run that has neither: at its
    last snapshot). Primary: the last of them. Drawn along the path is the median over `batches`.
    """
    names = [optimizer.__name__ for optimizer in optimizers]
    last = (steps - 1) // 50 * 50
    iterations = [t for t in PRINTED if t <= last] or [last]
    path = sorted({t for t in PATH if t <= last} | set(iterations))
    arrays, parts = labels_of(settings, optimizers=names, iteration=path,
                              iterations=iterations), []
    for name, setting in settings.items():
        both = contestants(setting, optimizers, lr)
        runs = parallel(along, [(condition, setting, both, seed, steps,
                                 tuple(t // 50 for t in path), batches) for seed in seeds])
        values = np.array([run["values"] for run in runs])  # (seeds, optimizers, points, batches)
        arrays |= {f"{name} rates": rates_of(both), f"{name} path": np.median(values, axis=-1)}
        paper = PAPER_C3[name] if setting is PAPER_SETTINGS.get(name) else {}
        for t in iterations:
            one = values[:, :, path.index(t), 0]  # (seeds, optimizers)
            over, (mean, std) = ratio(one[:, 0], one[:, 1]), paper.get(t, (np.nan, np.nan))
            parts += [
                Part(f"{name} {t}", f"{name}, iteration {t}, first batch", over, above=1,
                     primary=t == iterations[-1]),
                Part(f"{name} {t} mean", f"{name}, iteration {t}: mean (std)",
                     mean_std(over.mean(), over.std(ddof=min(1, len(over) - 1)))
                     + (f", paper {mean_std(mean, std)}" if t in paper else ""))]
            arrays |= {f"{name}, iteration {t} first batch": over,
                       f"{name}, iteration {t} paper": (mean, std)}
        parts += [Part(f"{name} {t}", f"{name}, iteration {t}, first batch", "not run")
                  for t in PRINTED if t > last]
    return arrays, parts


PATH = (0, 50, 100, 150, 250, 400, 750, 1250, 2000, 3000, 4500, 7000, 9950)  # iterations
PRINTED = (750, 1250)  # those of table 1 of the paper
PAPER_C3 = {  # there: mean (standard deviation) of the ratio over seeds
    "Setting 1": {750: (1.76, 0.40), 1250: (1.58, 0.41)},
    "Setting 2": {750: (3.14, 0.97), 1250: (5.98, 2.86)},
    "Setting 3": {750: (9.57, 13.3), 1250: (6.53, 3.55)},
}


def mean_std(mean, std):
    return f"{mean:.3g} ({std:.3g})"


def draw_condition_number(figure, arrays, found):
    """Above "SETTING path" (seeds, optimizers, points). Below, at each of the iterations, what the
    paper prints, "SETTING, iteration T paper" (mean and standard deviation), beside "SETTING,
    iteration T first batch" (seeds,)."""
    names, pair = arrays["settings"], " / ".join(arrays["optimizers"][:2])
    iterations = [int(t) for t in arrays["iterations"]]
    panels = figure.subplots(2, len(names), sharey="row", squeeze=False)
    for name, title, paths, ratios in zip(names, arrays["titles"], *panels):
        losses(paths, arrays, f"{name} path", title=title, ylabel="$R_{med}$,\ntypical batch")
        paths.set_xscale("symlog", linthresh=50)  # logarithmic, except near 0
        paths.set_xlim(0, max(50, 1.1 * arrays["iteration"][-1]))
        paths.set_xticks([t for t in (0, 100, 1000, 10_000) if t <= paths.get_xlim()[1]])
        paths.set_xticks([], minor=True)
        for i, t in enumerate(iterations):
            mean, std = arrays[f"{name}, iteration {t} paper"]
            ratios.errorbar(3 * i, mean, [[min(std, 0.9 * mean)], [std]], fmt="k*", ms=12,
                            capsize=4)
            dots(ratios, [], [arrays[f"{name}, iteration {t} first batch"]], places=[3 * i + 1])
        note(ratios, "\n".join(f"here: {found[f'{name} {t}']} at {t}" for t in iterations))
        ratios.set_xticks([3 * i + k for i in range(len(iterations)) for k in (0, 1)],
                          [f"{words}\n{t}" for t in iterations for words in ("paper", "here")])
        ratios.set(yscale="log", xlabel="iteration", ylabel=f"$R_{{med}}$, {pair},\nfirst batch",
                   xlim=(-1, 3 * len(iterations) - 1))
        reference(ratios, 1)
    return (f"C3: R_med {pair} at iteration {iterations[-1]}, first evaluation batch, "
            f"{in_settings(names)}: {numbers(found, names, iterations[-1])}",
            "Above: R_med on evaluation batches of 1,000 prompts, the typical one; line: median "
            "over seeds, band: smallest to largest. Below: the ratio on one batch, a dot for each "
            "seed, bar: median; star: the mean that the paper prints, with its standard deviation "
            f"(cut at a tenth of the mean). Dotted: 1, no difference. {plotting.rates(figure, arrays)}")


condition_number.full = dict(steps=10_000, batches=3)


@experiment()
def directional_smoothness(seeds=6, steps=667, optimizers=BOTH, lr=None, settings=PAPER_SETTINGS):
    """C4: Directional smoothness is smaller along Adam's path.

    Figure 4. v^T H v for the direction v of each step, H at the point before it, at the published
    rates, on one evaluation batch of 1,000 prompts. Claimed, in each setting, of the median over
    the path without its first tenth: SGD's minus Adam's above 0.
    """
    names, points = [optimizer.__name__ for optimizer in optimizers], points_of(steps, 50)
    arrays, parts = labels_of(settings, optimizers=names, iteration=50 * np.array(points)), []
    for name, setting in settings.items():
        both = contestants(setting, optimizers, lr)
        runs = parallel(along, [(smoothness, setting, both, seed, steps, points)
                                for seed in seeds])
        path = np.array([run["values"][..., 0] for run in runs])  # (seeds, optimizers, points)
        height = without_start(path)  # (seeds, optimizers)
        words = ", ".join(f"{each} {short(np.median(height[:, i]), 2)}"
                          for i, each in enumerate(names))
        parts += [Part(f"{name} difference", f"{name}, first batch: difference of v^T H v",
                       height[:, 0] - height[:, 1], above=0),
                  Part(f"{name} medians", f"{name}, first batch: medians of v^T H v", words)]
        arrays |= {f"{name} rates": rates_of(both), f"{name} first batch": path}
    return arrays, parts


def draw_directional_smoothness(figure, arrays, found):
    """Above "SETTING first batch" (seeds, optimizers, points), below its medians over the path,
    which decide."""
    names, optimizers = arrays["settings"], [str(each) for each in arrays["optimizers"]]
    rows = figure.subplots(2, len(names), sharey="row", squeeze=False)
    for name, title, ax, below in zip(names, arrays["titles"], *rows):
        path = arrays[f"{name} first batch"]
        curves(ax, arrays["iteration"], np.median(path, axis=0)[None], optimizers,  # bands hid all
               title=title, xlabel="iteration", ylabel="$v^T H v$, one batch")
        for i, heights in enumerate(without_start(path).T):  # (seeds,)
            dots(below, [optimizers[i]], [heights], plotting.look(optimizers[i], i), places=[i],
                 yscale="log", ylabel="median over the path")
        below.set(xlim=(-0.5, len(optimizers) - 0.5), xticks=range(len(optimizers)),
                  xticklabels=optimizers)
        note(below, f"{found[f'{name} medians']}\ndifference {found[f'{name} difference']}")
    smoothness_axis(*rows[0])
    medians = "; ".join(f"{name} {found[f'{name} medians']}" for name in names)
    return (f"C4: median of v^T H v over the path: {medians}",
            "$v^T H v$, v the direction of the step, on one evaluation batch of 1,000 prompts. "
            "Above: median over seeds, on a logarithmic scale that is linear around 0. Below: "
            "median over the path without its first tenth, a dot for each seed, bar: median. "
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
        norm, curvature, spectral = (np.array([run["values"][0, :, 0] for run in parallel(along, [
            (measure, setting, adam, seed, steps, at) for seed in seeds])])
            for measure, at in ((gradient_norm, points), (smoothness, points),
                                (spectral_norm, points[::2])))  # (seeds, points) each
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
    panels = figure.subplots(2, len(names), sharex="col", sharey="row", squeeze=False)
    for name, title, above, below in zip(names, arrays["titles"], *panels):
        norm = arrays[f"{name} norm"]
        plotting.on_path(above, norm, arrays[f"{name} curvature"], t, t[-1])
        drawn = plotting.on_path(below, norm[:, ::2], arrays[f"{name} spectral"], t[::2], t[-1])
        above.set(title=title, xlabel="gradient norm", ylabel="$v^T H v$")
        below.set(xlabel="gradient norm", ylabel="spectral norm of H")
        note(above, f"slope {found[f'{name} slope']}")
        note(below, f"slope {found[f'{name} spectral slope']}")
    figure.colorbar(drawn, ax=figure.axes, label="iteration")
    return (f"C5: v^T H v grows like the gradient norm to the power "
            f"{numbers(found, names, 'slope')} in {in_settings(names)}",
            "Along the path of one optimizer, on one evaluation batch of 1,000 prompts, a point "
            "for each seed and every 50 steps (below: every 100) where $v^T H v$ is positive. "
            "Slope: of log against log over the whole path, median over seeds. "
            + plotting.rates(figure, arrays))


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
        runs = parallel(train, [(setting, adams[kind], seed, steps) for seed in seeds])
        loss[kind] = np.array([run["loss"][0] for run in runs])
    end = {kind: final_loss(values) for kind, values in loss.items()}  # (seeds,) each
    half = {kind: steps_to(SETTING_1.data["d"] / 2, values) for kind, values in loss.items()}
    parts = []
    for kind in ("relu", "softmax", "softmax/n"):
        claim = {} if kind == "relu" else dict(above=1)
        parts += [Part(f"{kind} steps ratio", f"{kind} / linear: steps to half the loss",
                       ratio(half[kind], half["linear"]), **claim),
                  Part(f"{kind} loss ratio", f"{kind} / linear: final loss",
                       ratio(end[kind], end["linear"]), **claim, primary=False)]
    for kind in kinds:
        parts += [Part(f"{kind} loss", f"{kind}: final loss", end[kind]),
                  Part(f"{kind} steps", f"{kind}: steps to half the loss", half[kind])]
    return {"iteration": block_centres(steps), "kinds": [
        f"{kind} ({arguments['lr']:g})" for kind, ((_, arguments),) in adams.items()],
        "loss": np.stack([running_median(values) for values in loss.values()], axis=1)}, parts


def draw_softmax_vs_linear(figure, arrays, found):
    """One panel: "loss" (seeds, kinds, blocks)."""
    ax, d = figure.subplots(), SETTING_1.data["d"]
    curves(ax, arrays["iteration"], arrays["loss"], arrays["kinds"], yscale="log",
           xlabel="iteration", ylabel="training loss")
    ax.plot(arrays["iteration"][[0, -1]], [d, d], ":", color="#000000", lw=1)
    ax.text(arrays["iteration"].mean(), d, "loss of predicting 0", va="bottom", ha="center")
    note(ax, f"final loss, softmax / linear {found['softmax loss ratio']}; linear attention is\nat "
         f"half the loss of predicting 0 after {found['linear steps']} steps")
    return (f"C6: in blocks softmax attention ends at {found['softmax loss ratio']} times the loss "
            "of linear attention",
            f"{SETTING_1.name}, {SETTING_1.layers} layers. Running medians over blocks of a "
            "fiftieth of the steps; line: median over seeds, band: smallest to largest; in "
            "brackets the learning rate. The batches are the same for every kind. softmax: weights "
            "over the n context keys sum to 1; softmax/n: the authors' code, over all n + 1 keys, "
            "without the query's own, divided by n.")


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
    runs = parallel(train, [(LARGE, both, seed, steps, 500) for seed in seeds])
    loss = np.array([run["loss"] for run in runs])  # (seeds, optimizers, steps)
    norm = np.array([run["grad_norm"] for run in runs])
    norms, null = noise_norms(LARGE, seeds, draws)
    parts = gaps(LARGE.name, names, final_loss(loss), above=1) + [
        Part("skewness", f"{LARGE.name}: skewness of the noise norm", moment(norms, 3), above=0)]
    return {"optimizers": names, "iteration": block_centres(steps), "share": tail_shares(draws),
            "rates": rates_of(both), "loss": running_median(loss), "norm": running_median(norm),
            f"{LARGE.name} tail": tail(norms),
            f"{LARGE.name} null": np.median(tail(null), axis=(0, 1))}, parts


def draw_larger_model(figure, arrays, found):
    """"loss" and "norm" (seeds, optimizers, blocks), and the tail of the noise."""
    first, second, third = figure.subplots(1, 3, width_ratios=(1, 1, 1.3))
    pair = " / ".join(arrays["optimizers"][:2])
    gap, skewness = found[f"{LARGE.name} {pair}"], found["skewness"]
    losses(first, arrays, "loss", title="training loss", ylabel="training loss")
    losses(second, arrays, "norm", title="gradient norm", ylabel="gradient norm")
    tails(third, arrays, LARGE.name, title="gradient noise")
    third.legend(loc="upper right")
    note(first, f"final loss {pair} {gap}")
    note(third, f"skewness {skewness}")
    return (f"C7: {LARGE.name}: final loss {pair} {gap}, skewness of the noise norm {skewness}",
            "Running medians over blocks of a fiftieth of the steps; line: median over seeds, "
            "band: smallest to largest; norm before clipping. Noise: share of the draws whose norm "
            "exceeds r times the median of their seed, at initialisation; a line for each seed; "
            f"dashed: Gaussian vectors of the same mean and covariance. Learning rates: "
            f"{arrays['rates']}.")


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
    points = points_of(steps, 10)
    arrays, parts = {"optimizers": names, "iteration": block_centres(steps),
                     "point": 50 * np.array(points), "share": tail_shares(draws)}, []
    half, wide, first = {}, {}, {}  # by setting: (seeds, optimizers), (seeds,), (seeds,)
    for name, setting in settings.items():
        both = contestants(setting, optimizers, lr)
        runs = parallel(train, [(setting, both, seed, steps) for seed in seeds])
        loss = np.array([run["loss"] for run in runs])  # (seeds, optimizers, steps)
        norms, null = noise_norms(setting, seeds, draws)
        values = np.array([run["values"] for run in parallel(along, [
            (condition, setting, both, seed, steps, points, batches) for seed in seeds])])
        # values: R_med (seeds, optimizers, points, batches)
        over = ratio(values[:, 0], values[:, 1])  # (seeds, points, batches)
        half[name], wide[name] = steps_to(0.5, loss), spread(norms)
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
        arrays |= {f"{name} loss": running_median(loss),
                   f"{name} R_med": np.median(values, axis=-1),
                   f"{name} tail": tail(norms), f"{name} null": np.median(tail(null), axis=(0, 1)),
                   f"{name} protocol": f"{rates_of(both)}, clip {setting.clip:g}"}
    light, heavy = SPHERICAL.name, SETTING_3.name
    parts += [Part("noise", "Heavy / spherical: 99 % quantile over median of the noise norm",
                   wide[heavy] / wide[light], above=1),
              Part("R_med", "Heavy / spherical: ratio of R_med, first batch",
                   ratio(first[heavy], first[light]), above=1)]
    parts += [Part(f"steps {each}", f"Heavy / spherical: {each}, steps to half the loss",
                   ratio(half[heavy], half[light])[:, i], above=1)
              for i, each in enumerate(names)]
    return arrays, parts


def draw_heavy_tails(figure, arrays, found):
    """A column a setting: "SETTING loss" (seeds, optimizers, blocks), the tail of the noise, and
    "SETTING R_med" (seeds, optimizers, points)."""
    names = list(arrays["optimizers"])
    pair, rows = " / ".join(names[:2]), figure.subplots(3, 3, sharey="row")
    for name, loss, noises, path in zip((SPHERICAL.name, LIGHT_TAILS.name, SETTING_3.name), *rows):
        losses(loss, arrays, f"{name} loss", title=f"{name}: {arrays[f'{name} protocol']}",
               ylabel="training loss")
        steps = ", ".join(f"{each} {found[f'{name} steps {each}']}" for each in names)
        note(loss, f"loss {pair} {found[f'{name} {pair}']}\nsteps to half: {steps}")
        noises.sharex(rows[1][0])
        tails(noises, arrays, name)
        if name == SPHERICAL.name:
            noises.legend(loc="right", fontsize="small")
        note(noises, f"99 % / 50 % quantile {found[f'{name} noise']}")
        curves(path, arrays["point"], arrays[f"{name} R_med"], names, yscale="log",
               xlabel="iteration", ylabel="$R_{med}$")
        note(path, f"{pair} over the path {found[f'{name} R_med']}")
        loss.title.set_fontsize(14)
    slower = ", ".join(f"{each}'s steps {found[f'steps {each}']} times" for each in names[:2])
    return (f"C8: heavy tails over the sphere: noise tails {found['noise']} times, {slower}",
            "All at the same E|x|$^2$. Steps: to half of the loss of predicting 0. Above the "
            "panels: learning rates, and the limit of the gradient's norm. Loss: running medians; "
            "line: median over seeds, band: smallest to largest. Noise: share of the draws whose "
            "norm exceeds r times the median of their seed, at initialisation; dashed: Gaussian "
            "vectors of the same mean and covariance. $R_{med}$: on the typical of the evaluation "
            f"batches of 1,000 prompts; on the first one {pair} is {found['R_med']} times that on "
            "the sphere.")


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
    final, noises, first, typical = [], [], [], []  # by depth: (seeds, optimizers), (seeds,) thrice
    for setting in DEEP:
        both = contestants(setting, optimizers, lr)
        runs = parallel(train, [(setting, both, seed, steps) for seed in seeds])
        final.append(final_loss(np.array([run["loss"] for run in runs])))
        noises.append(spread(noise_norms(setting, seeds, draws)[0]))
        values = np.array([run["values"] for run in parallel(along, [
            (condition, setting, both, seed, steps, points, batches) for seed in seeds])])
        # values: R_med (seeds, optimizers, points, batches)
        along_path = ratio(values[:, 0], values[:, 1])  # (seeds, points, batches)
        first.append(without_start(along_path[..., 0]))
        typical.append(without_start(np.median(along_path, axis=-1)))
        if setting is not DEEP[0]:
            parts += gaps(setting.name, names, final[-1])
        parts += [Part(f"{setting.name} noise", f"{setting.name}: 99 % quantile over median of the "
                       "noise norm", noises[-1]),
                  Part(f"{setting.name} R_med", f"{setting.name}: ratio of R_med, typical batch",
                       typical[-1])]
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
    if layers[0] == 2:
        lower = (final[0] < BETWEEN_PLATEAUS).sum(axis=0)  # (optimizers,)
        parts.append(Part("plateaus", "L = 2: seeds that end on the lower of the two plateaus, "
                          "0.054", ", ".join(f"{each} {lower[i]} of {len(seeds)}"
                                             for i, each in enumerate(names))))
    arrays = {"optimizers": names, "layers": layers, "spread": np.transpose(noises),
              "first ratio": np.transpose(first), "typical ratio": np.transpose(typical)}
    arrays |= {f"final {each}": final[..., i].T for i, each in enumerate(names)}  # (seeds, depths)
    return arrays, parts


def mean_ratio(some, others):
    """Ratio of the geometric means of values (depths, seeds): (seeds,)."""
    return ratio(*(np.exp(np.log(values).mean(axis=0)) for values in (some, others)))


BETWEEN_PLATEAUS = 0.07  # L = 2 ends near 0.095 or near 0.054, the least loss in what_it_learns


def draw_depth(figure, arrays, found):
    """Against the depth, (seeds, depths): "final OPTIMIZER"; "spread" of the noise; "first ratio"
    and "typical ratio" of R_med at the same iteration."""
    names, layers = [str(each) for each in arrays["optimizers"]], [int(L) for L in arrays["layers"]]
    pair, (loss, noises, condition) = " / ".join(names[:2]), figure.subplots(1, 3)
    half, shared = len(layers) // 2, dict(yscale="log", xlabel="layers L", xticks=layers)
    curves(loss, layers, np.stack([arrays[f"final {each}"] for each in names], axis=1), names,
           title="final loss", ylabel="final loss", **shared)
    gap = numbers(found, [f"L = {L}" for L in layers[1:]], pair)
    note(loss, f"{pair} at L = {listed(layers[1:])}: {gap}")
    curves(noises, layers, arrays["spread"][:, None], [""], title="gradient noise",
           ylabel="99 % / 50 % quantile", **shared)
    note(noises, f"from L = {listed(layers[:half])} to {listed(layers[half:])}: times "
         f"{found['noise']}")
    for i, (kind, label) in enumerate((("first", "first batch"), ("typical", "typical batch"))):
        dots(condition, layers, arrays[f"{kind} ratio"].T, plotting.look(kind, i), (i, 2), label,
             title="$R_{med}$ at the same iteration", yscale="log", xlabel="layers L",
             ylabel=f"$R_{{med}}$, {pair}")
    condition.margins(y=0.25)  # below, for the legend
    condition.legend(loc="lower left")
    others = f"L = {listed(layers[:1])} to {listed(layers[1:])}"
    note(condition, f"first batch, from {others}:\ntimes {found['R_med']}")
    reference(condition, 1)
    return (f"C9: final loss {pair} from L = {listed(layers[:1])} to {layers[-1]}: times "
            f"{found['gap']}; R_med {pair} from {others}: times {found['R_med']}",
            "Data of Setting 1. Noise: 99 % over 50 % quantile of its norm. Ratio of $R_{med}$: "
            "median over the path. Line and bar: median over seeds, band: smallest to largest; a "
            "dot for each seed.")


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
    rates = grid(settings, candidates, sgd=(0.005, 0.5))
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
    above, below = figure.subplots(2, len(settings), sharey="row", squeeze=False)
    for name, title, ax, lengths in zip(settings, arrays["titles"], above, below):
        finals = {each: arrays[f"{name} {each} final"] for each in names}
        middle = np.concatenate([np.median(final, axis=1) for final in finals.values()])
        least = middle[np.isfinite(middle)].min(initial=1)
        for i, (each, final) in enumerate(finals.items()):
            rates, used = arrays[f"{name} {each} rates"], arrays[f"{name} {each} used"]
            diverged, color = ~np.isfinite(final).all(axis=1), plotting.look(each, i)["color"]
            curves(ax, rates, final.T[:, None] / least, [each], path=False, first=i)
            ax.plot(rates[diverged], np.full(diverged.sum(), 0.96 - 0.05 * i), "X", color=color,
                    ms=10, transform=ax.get_xaxis_transform())
            with np.errstate(all="ignore"):
                best = np.log(final).mean(axis=1).argmin()
            for which, marker, size in ((rates == used, "o", 13),
                                        (np.arange(len(rates)) == best, "*", 16)):
                which = which & ~diverged
                ax.plot(rates[which], np.median(final[which], axis=-1) / least, marker, ms=size,
                        mfc="none" if marker == "o" else color, mew=2, color=color)
            if len(arrays[f"{name} {each} lengths"]):
                lengths.plot(arrays[f"{name} {each} lengths"], arrays[f"{name} {each} best"],
                             **plotting.look(each, i), mfc="none", ms=11 - 4 * i, mew=2)
            lengths.axhline(used, color=color, lw=1.5, ls=plotting.look(each, i)["ls"],
                            zorder=2 - i)  # so that both show where they are one
        ax.set(xscale="log", yscale="log", title=title, xlabel="learning rate",
               ylabel="final loss / the lowest", ylim=(0.5, 300))
        lengths.set(xscale="log", yscale="log", xlabel="steps of the run", ylabel="best rate")
    middle = above[len(above) // 2]
    for marker, size, words in (("o", 13, "in use"), ("*", 16, "best"), ("X", 10, "diverged")):
        middle.plot([], [], marker, ms=size, mew=2, color="#444444", label=words,
                    mfc="none" if marker == "o" else None)
    middle.legend(loc="center left")
    note(below[0], "thin: the rate in use")
    best = "; ".join(f"{each} " + ", ".join(
        str(found[f"{name} {each} best"]).split(",")[0] for name in settings) for each in names)
    return (f"Protocol: the best rates of the grid in {in_settings(settings)}: {best}",
            "Above: median training loss over the last tenth of the steps, over the lowest median "
            "of the setting; line: median over seeds, band: smallest to largest. Star: the best "
            "rate; circle: the one in use, published unless --lr says otherwise; X, at the top: a "
            "run diverged. Below: the best rate of a run of so many steps; thin: the rate in use.")


learning_rates.full = dict(steps=10_000)


@experiment(FRESH)
def full_batch(seeds=6, steps=80, optimizers=(SGD, Adam, SignDescent), sizes=(256,)):
    """C10: Without gradient noise Adam still beats SGD, and so does sign descent.

    Quoted by the paper from Kunstner et al. 2023 (arXiv 2304.13960). Settings 1 and 3, on one and
    the same batch of 1,000 prompts at every step, a batch for each seed. Every optimizer at the
    best of seven rates, chosen on three pilot seeds, compared on others. Claimed, of the final loss
    on that batch: SGD's over Adam's, and over that of sign descent with momentum, above 1. The
    paper prints no number; protocol and rates are ours. Besides: is it the noise? The same ratios
    on fresh batches of so many prompts (rates by the training loss; compared are the losses after
    90 and 95 % of the steps on batches of 1,000, the median over twenty and both).
    """
    candidates, every = by_name(optimizers), max(1, steps // 20)
    chosen = {setting.name: setting for setting in (SETTING_1, SETTING_3)}
    first, *others = candidates
    arrays = labels_of(chosen, iteration=block_centres(steps), optimizers=list(candidates),
                       sizes=sizes)
    claimed, besides = [], []
    for name, base in chosen.items():
        settings = {f"{name}, fixed batch": base._replace(fixed=True)} | {
            f"{name}, batches of {size:,}": base._replace(batch=size) for size in sizes}
        rates = grid(settings, candidates)
        runs, best = tuned(settings, candidates, rates, seeds, steps, every)
        for case, setting in settings.items():
            if setting.fixed:
                final = {each: final_loss(runs[case, each]["loss"]) for each in candidates}
                arrays[f"{case} loss"] = np.stack([running_median(runs[case, each]["loss"])
                                                   for each in candidates], axis=1)
            else:
                final = {each: np.array([late_loss(setting, None, path, steps, every)
                                         for path in runs[case, each]["snapshots"]])
                         for each in candidates}
            over = {each: ratio(final[first], final[each]) for each in others}  # (seeds,) each
            (claimed if setting.fixed else besides).extend(
                Part(f"{case} {each}", f"{case}: final loss {first} / {each}", values,
                     **dict(above=1) if setting.fixed else {}) for each, values in over.items())
            besides.append(Part(f"{case} rates", f"{case}: best rates", best[case]))
            arrays[f"{case} ratios"] = np.array(list(over.values()))  # (others, seeds)
    return arrays, claimed + besides


def draw_full_batch(figure, arrays, found):
    """Above "SETTING, fixed batch loss" (seeds, optimizers, blocks), below "SETTING, CASE ratios"
    (other optimizers, seeds), the fixed batch apart from the sizes."""
    first, *others = (str(each) for each in arrays["optimizers"])
    cases = [f"batches of {size:,}" for size in arrays["sizes"]] + ["fixed batch"]
    labels = [case.removeprefix("batches of ").removesuffix(" batch") for case in cases]
    places = [*range(len(cases) - 1), len(cases) - 0.3]
    names, medians = arrays["settings"], []
    rows = figure.subplots(2, len(names), sharey="row", squeeze=False)
    for name, title, above, below in zip(names, arrays["titles"], *rows):
        losses(above, arrays, f"{name}, fixed batch loss", title=title,
               ylabel="loss on one batch")
        note(above, "\n".join(f"{first} / {each} {found[f'{name}, fixed batch {each}']}"
                              for each in others))
        medians += [each for line in above.get_lines() for each in line.get_ydata()
                    if np.isfinite(each)]
        for i, each in enumerate(others):
            ratios = [arrays[f"{name}, {case} ratios"][i] for case in cases]
            dots(below, labels, ratios, plotting.look(each, i + 1), (i, len(others)),
                 f"{first} / {each}", places)
        below.axvline(places[-1] - 0.75, color="#000000", lw=1)
        below.set(yscale="log", xlabel="prompts in a fresh batch; at the right, one batch",
                  ylabel="ratio of final losses")
        reference(below, 1)
    if medians:  # else every run diverged
        rows[0][0].set_ylim(min(medians) / 3, 3 * max(medians))  # which a spike of one seed leaves
    rows[1][0].legend(loc="lower left")
    ratios = "; ".join(
        f"{numbers(found, [f'{name}, fixed batch' for name in names], each)} times {each}'s"
        for each in others)
    return (f"C10: on one fixed batch of {in_settings(names)} {first}'s loss is {ratios}",
            "Every optimizer at the best of its grid's rates. Above: running median on one batch, "
            "the same at every step; line: median over seeds, band: smallest to largest. Below: a "
            "dot for each seed, bar: median; fresh batches of so many prompts and, at the right, "
            "the fixed batch. Dotted: 1, no difference.")


full_batch.full = dict(steps=600, sizes=(16, 64, 256, 1000, 4000))


@experiment()
def clipping(seeds=6, steps=250, optimizers=BOTH, lr=None, settings=PAPER_SETTINGS):
    """C11: Clipping lowers directional smoothness, coordinate by coordinate most of all.

    Quoted by the paper from Pan & Li 2023, who compare directions at the same point: v^T H v for a
    direction as it is, with its coordinates limited to the quantiles 0.9 and 0.5 of their absolute
    values, and for its sign. (Clipping of the norm does not change a direction.) Along SGD's and
    Adam's paths in Settings 1 to 3 at the published rates, the directions are the gradient on the
    evaluation batch and, on SGD's path, the step (its momentum). Claimed, on one evaluation batch:
    v^T H v as it is minus each of the three, medians over the path without its first tenth, above
    0. Primary: the gradient, clipped at 0.5, on each of the two paths. Apart, without a bound:
    Adam's own step.
    """
    names, points = [optimizer.__name__ for optimizer in optimizers[:2]], points_of(steps, 10)
    arrays, parts = labels_of(settings, names=names, kinds=CLIPPED,
                              point=50 * np.array(points)), []
    for name, setting in settings.items():
        both = contestants(setting, optimizers, lr)[:2]
        runs = parallel(along, [(clipped_smoothness, setting, both, seed, steps, points)
                                for seed in seeds])
        arrays[f"{name} rates"] = rates_of(both)
        values = np.array([run["values"][:, :, 0] for run in runs])
        for i, each in enumerate(names):  # values: (seeds, optimizers, points, directions, kinds)
            for k, direction in enumerate(("gradient", "step")):
                path = np.stack([values[:, i, :, k, kind] for kind in range(len(CLIPPED))], axis=1)
                label = f"{name}, {each}'s path, {direction}"
                parts += lowered(label, path, claimed=direction == "gradient" or i == 0,
                                 words=", first batch")
                arrays[label] = path  # (seeds, kinds, points)
    return arrays, parts


def lowered(label, path, claimed, words):
    """Parts from v^T H v (seeds, kinds, points) of one direction: as it is minus each other
    kind."""
    height = without_start(path)  # (seeds, kinds)
    bound = dict(above=0) if claimed else {}
    return [Part(f"{label} {kind}", f"{label}{words}: v^T H v as it is minus {kind}",
                 height[:, 0] - height[:, k], **bound,
                 primary=kind == "clipped at 0.5" and label.endswith("gradient"))
            for k, kind in enumerate(CLIPPED) if k > 0] + [
        Part(f"{label} medians", f"{label}{words}: v^T H v", ", ".join(
            short(each, 2) for each in np.median(height, axis=0)))]


def draw_clipping(figure, arrays, found):
    """Of "SETTING, OPTIMIZER's path, DIRECTION" (seeds, kinds, points) the medians over the path; a
    row a path."""
    names, settings = list(arrays["names"]), arrays["settings"]
    rows = figure.subplots(len(names), len(settings), sharey=True, squeeze=False)
    for each, row in zip(names, rows):
        for name, title, ax in zip(settings, arrays["titles"], row):
            plotting.clipped(ax, [without_start(arrays[f"{name}, {each}'s path, {direction}"])
                                  for direction in ("gradient", "step")], arrays["kinds"],
                             title=title, ylabel=f"$v^T H v$, {each}'s path")
            lower = found[f"{name}, {each}'s path, gradient clipped at 0.5"]
            note(ax, f"gradient: as it is minus 0.5: {lower}")
    fell = [found[f"{name}, {each}'s path, gradient clipped at 0.5"].decision
            for each in names for name in settings].count("holds")
    return (f"C11: that clipping the gradient at its median coordinate lowers v^T H v holds in "
            f"{fell} of {len(settings) * len(names)} cases",
            "$v^T H v$ at the same point, for the gradient and for the optimizer's step, as it is, "
            "with its coordinates limited to the quantiles 0.9 and 0.5 of their absolute values, "
            "and for its sign. Medians over the path without its first tenth; line: median over "
            "seeds, band: smallest to largest; one evaluation batch of 1,000 prompts. "
            + plotting.rates(figure, arrays))


clipping.full = dict(steps=10_000)


@experiment(FRESHER)
def nonlinear_regression(seeds=6, steps=50, optimizers=BOTH, lr=None, batches=1):
    """C12: The picture is the same for nonlinear regression with an MLP before the attention.

    As in the authors' code: y = <w, f(x)> with a fixed random ReLU network f of width 10; a
    trainable ReLU MLP of width 30 before three layers of linear attention with full matrices;
    batches of 2,000 (noise: against 200,000, a quarter as many draws as steps), SGD at 0.05 and
    Adam at 0.01, seeds from 2000 on.
    Claimed: SGD's final loss over Adam's above 1; the noise norm has a right tail, skewness above
    0; R_med and v^T H v larger along SGD's path (medians over the path without its first tenth, on
    one evaluation batch of 1,000 prompts). Drawn is the typical of so many batches.
    """
    names, points = [optimizer.__name__ for optimizer in optimizers], points_of(steps, 10)
    setting, draws = NONLINEAR_TASK, max(5, steps // 4)
    both = contestants(setting, optimizers, lr)
    loss = np.array([run["loss"] for run in parallel(train, [
        (setting, both, seed, steps) for seed in seeds])])  # (seeds, optimizers, steps)
    norms, null = noise_norms(setting, seeds, draws)
    R, curvature = (np.array([run["values"] for run in parallel(along, [
        (measure, setting, both, seed, steps, points, batches) for seed in seeds])])
        for measure in (condition, smoothness))  # (seeds, optimizers, points, batches) each
    height = without_start(curvature[..., 0])  # (seeds, optimizers)
    parts = gaps(setting.name, names, final_loss(loss), above=1) + [
        Part("skewness", "MLP: skewness of the noise norm", moment(norms, 3), above=0),
        Part("R_med", "MLP: ratio of R_med, first batch",
             without_start(ratio(R[:, 0], R[:, 1])[..., 0]), above=1),
        Part("smoothness", "MLP, first batch: difference of v^T H v", height[:, 0] - height[:, 1],
             above=0),
        Part("medians", "MLP, first batch: medians of v^T H v", ", ".join(
            f"{each} {short(np.median(height[:, i]), 2)}" for i, each in enumerate(names)))]
    return {"optimizers": names, "iteration": block_centres(steps), "loss": running_median(loss),
            "point": 50 * np.array(points), "share": tail_shares(draws), "MLP tail": tail(norms),
            "MLP null": np.median(tail(null), axis=(0, 1)),
            "R_med": np.median(R, axis=-1), "smoothness": np.median(curvature, axis=-1)}, parts


def draw_nonlinear_regression(figure, arrays, found):
    """"loss" (seeds, optimizers, blocks), the tail of the noise, and "R_med" and "smoothness"
    (seeds, optimizers, points)."""
    (first, second), (third, fourth) = figure.subplots(2, 2)
    names, pair = arrays["optimizers"], " / ".join(arrays["optimizers"][:2])
    losses(first, arrays, "loss", title="training loss", ylabel="training loss")
    note(first, f"final loss {pair} {found[f'MLP {pair}']}")
    tails(second, arrays, "MLP", title="gradient noise")
    second.legend(loc="upper right")
    note(second, f"skewness {found['skewness']}")
    curves(third, arrays["point"], arrays["R_med"], names, yscale="log",
           title="robust condition number", xlabel="iteration", ylabel="$R_{med}$, typical batch")
    note(third, f"{pair} over the path, first batch {found['R_med']}")
    curves(fourth, arrays["point"], arrays["smoothness"], names, title="directional smoothness",
           xlabel="iteration", ylabel="$v^T H v$, typical batch")
    smoothness_axis(fourth)
    note(fourth, f"difference over the path, first batch {found['smoothness']}")
    return (f"C12: a nonlinear task with an MLP: final loss {pair} {found[f'MLP {pair}']}, R_med "
            f"{found['R_med']}",
            "Loss: running median; line: median over seeds, band: smallest to largest. Noise: "
            "share of the draws whose norm exceeds r times the median of their seed, at "
            "initialisation; dashed: Gaussian vectors of the same mean and covariance. $R_{med}$ "
            "and $v^T H v$: on the typical of the evaluation batches of 1,000 prompts.")


nonlinear_regression.full = dict(seeds=8, steps=10_000, batches=3)


if __name__ == "__main__":
    import sys
    from commands import main  # which imports this book by its name, so that workers can, too
    sys.exit(main())
