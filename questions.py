"""Questions beyond the paper: `python experiments.py granularity`, and so on.

Nothing is claimed here: each function measures what its question asks for, and one beside it draws.
Rates are chosen on the seeds 0, 1, 2 and runs compared on others, from 1000 on (FRESH), unless the
docstring says otherwise. Words, axes and `NAME.full` as in experiments.py. What only one question
measures stands beside it.
"""

from typing import NamedTuple

import numpy as np

import linattn
import plotting
from data import (DEEP, NONLINEAR_TASK, PAPER_SETTINGS, SETTING_1, SETTING_2, SETTING_3, SPHERICAL,
                  Setting, about_x, sample_prompts)
from optimizers import SGD, Adam, Muon, NormalizedSGD, SignDescent
from plotting import curves, dots, heat, note, reference
from runs import cached, parallel
from training import (FRESH, along, at_rates, best_rate, best_rates, block_centres, by_name,
                      contestants, evaluation_batch, evaluation_prompts, every_of, experiment,
                      final, final_loss, generator, grid, initial, late_loss, log_loss, loss_of_0,
                      noise_norms, points_of, rate_in_words, ratio, running_median, smoothness,
                      spread, stacked, steps_to, streams, sweep, tail, tail_shares, train, tuned,
                      without_start)
from verdicts import Part, interval

BOTH = (SGD, Adam)


class Condition(NamedTuple):
    """A line of CONDITIONS: what differs from Setting 1."""

    group: str
    setting: Setting
    sgd: dict = {}  # arguments of the optimizers
    adam: dict = {}
    constant: tuple = (1 / 4, 1)  # lengths, times `steps`, at a constant rate
    falling: tuple = (1,)  # and at one that falls to 0
    tuned: bool = True  # else at the rates of the setting
    end: object = final  # what is compared: late_loss if batches differ, for one


def other(data={}, **changes):
    """Setting 1 with other data, and other entries."""
    return SETTING_1._replace(data=SETTING_1.data | data, **changes)


def variances(setting, largest, rotated=False):
    """The setting with variances of x in geometric steps, the largest so many times the smallest,
    of mean 1; along the axes, or along those of a random rotation, always the same."""
    along_axes = np.geomspace(1, largest, setting.data["d"])
    R = np.linalg.qr(generator(2310).standard_normal(2 * along_axes.shape))[0] if rotated else 1
    covariance = R * (along_axes / along_axes.mean()) @ np.transpose(R) if rotated else np.diag(
        along_axes / along_axes.mean())
    return setting._replace(data=setting.data | dict(
        covariance=tuple(map(tuple, covariance.tolist()))))


def steps_to_a_millionth(setting, loss, snapshots, length, every):
    """After which share of the first `length` steps the loss (steps,) is a millionth of its
    first."""
    return steps_to(1e-6 * loss[0], loss[:length]) / length


SCALE = dict(second_moment=5.0)  # E|x|^2 of Setting 1, so that only the tails differ
LONG = (1 / 4, 1, 4)
CONDITIONS = {
    "Setting 1, published rates": Condition("setting 1", SETTING_1, constant=LONG, falling=(),
                                            tuned=False),
    "Setting 1": Condition("setting 1", SETTING_1, constant=LONG),
    "n = 5 (Setting 2)": Condition("data", SETTING_2),
    "n = 80": Condition("data", other(dict(n=80))),
    "x on the sphere": Condition("data", other(dict(covariates="sphere") | SCALE)),
    "heavy-tailed x": Condition("data", other(dict(covariates="gamma") | SCALE)),
    "Setting 3": Condition("data", SETTING_3),
    "variances 16-fold": Condition("data", variances(SETTING_1, 16)),
    "variances 16-fold, rotated": Condition("data", variances(SETTING_1, 16, rotated=True)),
    "label noise": Condition("data", other(dict(noise=1.0))),
    "L = 2": Condition("depth", other(layers=2)),
    "L = 6": Condition("depth", other(layers=6)),
    "L = 8": Condition("depth", other(layers=8)),
    "heavy-tailed x, L = 6": Condition(
        "depth", other(dict(covariates="gamma") | SCALE, layers=6)),
    "batch 16": Condition("noise", other(batch=16), end=late_loss),
    "batch 250": Condition("noise", other(batch=250), constant=LONG, end=late_loss),
    "batch 4,000": Condition("noise", other(batch=4000), end=late_loss),
    "one fixed batch": Condition("noise", other(fixed=True), end=late_loss),
    "no clipping": Condition("optimizer", other(clipping="none")),
    "SGD without momentum": Condition("optimizer", SETTING_1, dict(momentum=0.0)),
    "SGD with momentum 0.97": Condition("optimizer", SETTING_1, dict(momentum=0.97)),
    "Adam with beta2 = 0.999": Condition("optimizer", SETTING_1, {}, dict(beta2=0.999)),
    "start four times as large": Condition("optimizer", other(std=0.2)),
    "warm-up": Condition("optimizer", other(schedule="warm-up"), falling=()),
    "all of P and Q trained": Condition("model", other(full=True)),
    "ReLU attention": Condition("model", other(full=True, activation="relu"), falling=()),
    "softmax attention": Condition("model", other(full=True, activation="softmax"), falling=()),
    "softmax, heavy-tailed x": Condition("model", other(
        dict(covariates="gamma") | SCALE, full=True, activation="softmax"), falling=()),
    "softmax + MLP": Condition("model", other(full=True, activation="transformer"), falling=()),
    "MLP before attention": Condition("model", NONLINEAR_TASK._replace(batch=1000), falling=()),
    "no attention": Condition("model", other(full=True, activation="no attention"),
                              end=steps_to_a_millionth),
}


@experiment(FRESH)
def lead(seeds=6, steps=40, conditions=("Setting 1", "heavy-tailed x", "L = 2")):
    """Draft: How large is Adam's lead over SGD, and what changes it?

    Each line of CONDITIONS changes one thing of Setting 1. SGD and Adam, each at its best rate for
    each length (`best_rates`: pilot seeds 0 to 3, a grid that grows), are compared on fresh seeds
    after a quarter of the steps and all of them at a constant rate (Setting 1: after four times as
    many, too), and, if the model is linear, after all of them at a rate that falls to 0. Measured:
    SGD's final loss over Adam's; it is said which is lower if its interval lies beside 1, and
    "alike" if it lies within 0.8 and 1.25. Where batches have another size the final losses are
    those on fresh prompts. After the longest constant run: the share of its steps after which the
    better optimizer first reaches the other's final loss; whether both are at a floor (neither has
    fallen by a fifth since the length before) or one is still falling (its median over the last
    eighth is below 0.9 of that over the eighth before). At the rates for so many steps: SGD's steps
    over Adam's to half the loss of predicting 0, and v^T H v (typical of three batches, the path
    without its first tenth). At the start: the noise norm's 99 % over its 50 %
    quantile, over that of Gaussian vectors. Without attention the loss reaches 0, so that rounding
    is what is left of it: compared are the steps to a millionth of the first loss.
    """
    arrays, parts = {}, []
    for name in conditions:
        more_arrays, more_parts = one_condition(name, CONDITIONS[name], seeds, steps)
        arrays, parts = arrays | more_arrays, parts + more_parts
    return arrays, parts


def one_condition(name, condition, seeds, steps):
    """Arrays and parts of a line."""
    both = {"SGD": (SGD, condition.sgd), "Adam": (Adam, condition.adam)}
    arrays, parts = {f"{name} group": condition.group}, []
    for kind, shares in (("constant", condition.constant), ("falling", condition.falling)):
        setting = condition.setting if kind == "constant" else condition.setting._replace(
            schedule="linear")
        lengths = sorted({max(1, int(share * steps)) for share in shares})
        if condition.tuned:
            chosen, words = best_rates(setting, both, lengths, condition.end)
        else:
            chosen = dict.fromkeys(lengths, contestants(setting))
            words = dict.fromkeys(lengths, {each: setting.lr[each] for each in both})
        runs, over = at_rates(setting, chosen, seeds, condition.end), []
        for length in lengths:
            sgd, adam = runs[length]["ends"].T  # (seeds,) each
            key, label = f"{name} {kind} {length}", f"{name}, {kind} rate, {length:,} steps"
            over.append(ratio(sgd, adam))
            lost = [f", {n} lost" if n else "" for n in np.isinf(runs[length]["ends"]).sum(axis=0)]
            parts += [Part(key, f"{label}: SGD / Adam", over[-1]),
                      Part(f"{key} lower", label, lower(over[-1])),
                      Part(f"{key} SGD", f"{label}: SGD", sgd),
                      Part(f"{key} Adam", f"{label}: Adam", adam),
                      Part(f"{key} rates", f"{label}: rates", ", ".join(
                          f"{each} {rate}{lost[i]}" for i, (each, rate) in
                          enumerate(words[length].items())))]
        arrays |= {f"{name} {kind}": lengths, f"{name} {kind} ratio": np.reshape(
            [interval(values) for values in over], (-1, 3))}  # (lengths, 3)
        if kind == "constant":
            *_, before, last = lengths
            if condition.end is not steps_to_a_millionth:
                parts += after_the_longest(name, last, runs[last], runs[before]["ends"])
            parts += at_these_rates(name, setting, chosen[lengths[1]], seeds, lengths[1],
                                    runs[lengths[1]]["loss"])
    return arrays, parts


def after_the_longest(name, length, run, before):
    """Parts of the longest run: losses (seeds, 2, steps) and ends, and the ends `before`, of the
    length before it."""
    loss, ends = run["loss"], run["ends"]
    share = [steps_to(max(both), path[np.argmin(both)]) / length for both, path in zip(ends, loss)]
    eighth = max(1, length // 8)
    late, earlier = (np.median(loss[..., part], axis=(0, 2)) for part in (
        slice(-eighth, None), slice(-2 * eighth, -eighth)))  # (2,) each
    with np.errstate(all="ignore"):
        words = {"both at a floor": (np.median(ends / before, axis=0) > 0.8).all(),
                 "still falling": (late < 0.9 * earlier).any()}
    return [Part(f"{name} share", f"{name}, {length:,} steps: share after which the better one is "
                 "where the other ends", share),
            Part(f"{name} state", f"{name}, {length:,} steps", ", ".join(
                word for word, so in words.items() if so) or "settled")]


def at_these_rates(name, setting, both, seeds, length, loss):
    """Parts at the rates of one length, of which the losses are (seeds, 2, length)."""
    half, every = steps_to(loss_of_0(setting) / 2, loss), every_of([length])
    points = points_of(length, 10, every)
    height = without_start(np.median(stacked(along, [
        (smoothness, setting, both, seed, length, points, 3, every) for seed in seeds])["values"],
        axis=-1))  # (seeds, 2)
    norms, null = noise_norms(setting, seeds, max(5, length // 4))
    return [Part(f"{name} half", f"{name}: steps to half the loss of predicting 0, SGD / Adam",
                 ratio(half[:, 0], half[:, 1])),
            Part(f"{name} smoothness", f"{name}: v^T H v SGD / Adam",
                 ratio(height[:, 0], height[:, 1])),
            Part(f"{name} noise", f"{name}: 99 % / 50 % quantile of the noise, over Gaussian",
                 spread(norms) / np.median(spread(null), axis=1))]


def lower(values):
    """Which one ends lower, from ratios SGD / Adam (seeds,); and "alike" only where the whole
    interval says so."""
    _, low, high = interval(values)
    words = {"Adam lower": low > 1, "SGD lower": high < 1, "alike": 0.8 <= low and high <= 1.25}
    return ", ".join(word for word, so in words.items() if so) or "open"


SHOWN = ("Setting 1, published rates", "Setting 1", "n = 5 (Setting 2)", "heavy-tailed x",
         "x on the sphere", "variances 16-fold", "L = 2", "L = 6", "L = 8", "batch 16",
         "one fixed batch", "Adam with beta2 = 0.999", "SGD without momentum",
         "all of P and Q trained", "softmax attention", "softmax + MLP")  # sixteen can be read


def draw_lead(figure, arrays, found):
    """A row a condition: "CONDITION constant" (lengths,) and "... ratio" (lengths, 3), median and
    interval of SGD / Adam; the same of "falling"."""
    groups = {key.removesuffix(" group"): str(word) for key, word in arrays.items()
              if key.endswith(" group")}
    rows = [name for name in CONDITIONS if name in groups and name in SHOWN] or list(groups)
    ax, y, ticks, longest = figure.subplots(), 0.0, [], 0
    every = sorted({int(length) for name in rows for length in arrays[f"{name} constant"]})
    shades = dict(zip(every, plotting.shades(len(every))))
    for i, name in enumerate(rows):
        if i and groups[name] != groups[rows[i - 1]]:
            y -= 0.6
        for kind, marker, size in (("constant", "o", 10), ("falling", "*", 15)):
            for length, (middle, low, high) in zip(arrays[f"{name} {kind}"],
                                                   arrays[f"{name} {kind} ratio"]):
                colour = shades.get(int(length), "#444444")
                decided = low > 1 or high < 1
                if kind == "constant" and length == arrays[f"{name} constant"][-1]:
                    ax.plot([low, high], [y, y], color=colour, lw=1.5)
                ax.plot(middle, y, marker, ms=size, color=colour, mew=2,
                        mfc=colour if decided else "white")
        ticks.append(y)
        y -= 1
    ax.set(xscale="log", ylim=(y + 0.4, 0.8), xlabel="SGD's final loss / Adam's, each at its best "
           "rate\nSGD ends lower   <   1   >   Adam ends lower")
    ax.set_yticks(ticks, rows)
    ax.axvline(1, color="#000000", lw=1.5, ls=":")
    for length, colour in shades.items():
        ax.plot([], [], "o", color=colour, label=f"{length:,} steps")
    ax.plot([], [], "*", ms=13, color="#444444", label="rate falls to 0")
    ax.plot([], [], "o", mfc="white", mew=2, color="#444444", label="open")
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return ("Adam's lead over SGD is not one number: each row changes one thing",
            "Median over seeds of SGD's final loss over Adam's, each at its best rate for each "
            "length; line: the interval at the longest; hollow: it holds 1.")


lead.full = dict(seeds=10, steps=1000, conditions=tuple(CONDITIONS))
lead.rows = "conditions"  # measured and kept one by one


@experiment()
def the_model(seeds=6, draws=1000):
    """Question: What does the model see, and how heavy are the tails of x?

    Nothing is trained. A prompt of Setting 1 as the matrix Z, and what a layer does with it; and
    the tails of |x|^2 at the same mean for x on the sphere, Gaussian x and Setting 3's, over a
    hundred times as many draws, for each seed. Measured: the 99.9 % quantile of |x|^2 over its
    mean.
    """
    families = {"sphere": SPHERICAL, "Gaussian": SETTING_1, "Setting 3": SETTING_3}
    arrays, parts = {"share": tail_shares(100 * draws), "families": list(families)}, []
    for name, setting in families.items():
        data = setting.data | dict(n=100, second_moment=1.0)
        x = [sample_prompts(generator([2310, seed]), draws, **data).Z[:, :-1, :-1]
             for seed in seeds]  # (draws, d, n) each
        squares = np.square(x).sum(axis=2).reshape(len(seeds), -1)  # (seeds, 100 * draws)
        parts.append(Part(name, f"{name}: 99.9 % quantile of |x|^2 over its mean",
                          np.quantile(squares, 0.999, axis=1)))
        arrays[f"{name} tail"] = np.median(tail(squares, squares.mean(axis=1)), axis=0)
    prompt = sample_prompts(generator(2310), 1, **SETTING_1.data).Z[0]  # (d+1, n+1)
    return arrays | {"prompt": prompt}, parts


def draw_the_model(figure, arrays, found):
    """"prompt" (d+1, n+1), the layer in boxes, and "FAMILY tail" (shares,)."""
    matrix, layer, heavy = figure.subplots(1, 3, width_ratios=(1.1, 1.3, 1))
    prompt = arrays["prompt"]
    largest = np.abs(prompt).max()
    matrix.imshow(prompt, cmap="PuOr", vmin=-largest, vmax=largest, aspect="auto")
    matrix.text(prompt.shape[1] - 1, prompt.shape[0] - 1, "?", ha="center", va="center")
    matrix.set_yticks(range(len(prompt)), [*(f"$x_{i}$" for i in range(1, len(prompt))), "y"])
    matrix.set_xticks((0, prompt.shape[1] - 1), ("pair 1", "query"))
    matrix.set(title="a prompt Z")
    matrix.grid(False)
    layer.axis("off")
    layer.set(title="the model", xlim=(0, 1), ylim=(0, 1))
    layer.fill_between((0, 1), 0.22, 0.86, color="#F0F0F0")
    layer.text(0.97, 0.8, "L times", ha="right", va="center", style="italic")
    boxes = {"Z": (0.5, 0.95), "scores\n$Z^T Q Z$": (0.4, 0.67), "values\n$P Z M$": (0.77, 0.67),
             "values · scores / n": (0.6, 0.46), "+": (0.5, 0.3),
             "prediction of y:\n$-1$ · last entry": (0.5, 0.08)}
    for text, place in boxes.items():
        layer.text(*place, text, ha="center", va="center",
                   bbox=dict(boxstyle="round", facecolor="white", edgecolor="#444444"))
    for start, end, bend in (
            ((0.48, 0.91), (0.4, 0.76), 0), ((0.52, 0.91), (0.75, 0.76), 0),
            ((0.42, 0.6), (0.55, 0.51), 0), ((0.76, 0.6), (0.65, 0.51), 0),
            ((0.58, 0.42), (0.52, 0.34), 0), ((0.45, 0.93), (0.46, 0.3), 0.75),  # past the layer
            ((0.5, 0.26), (0.5, 0.16), 0)):
        layer.annotate("", end, start, arrowprops=dict(
            arrowstyle="->", lw=1.5, connectionstyle=f"arc3,rad={bend}"))
    for i, name in enumerate(arrays["families"]):
        heavy.plot(arrays[f"{name} tail"], arrays["share"], label=str(name),
                   **dict(plotting.look(name, i), marker=""))
    heavy.set(xscale="log", yscale="log", title="tails of x", xlim=(0.05, 200),
              xlabel="$|x|^2$ / its mean, r", ylabel="share above r")
    heavy.legend()
    return ("A layer adds to prompt Z what it reads from the context; Z's last entry predicts -y",
            "Left: a prompt of Setting 1, a pair (x, y) a column; the query's y is 0 in Z, and the "
            "model is asked for it. Middle: M leaves the query's column out. Right: how much "
            "|x|$^2$ varies, at the same mean, over a hundred x a draw; its 99.9 % quantile over "
            "the mean is "
            f"{found['Gaussian']} for Gaussian x and {found['Setting 3']} for Setting 3's.")


the_model.full = {}


@experiment(FRESH)
def granularity(seeds=6, steps=125, settings=("Setting 1",)):
    """Question: How finely must a step be scaled to do what Adam does?

    SGD scales nothing, Adam every coordinate. Between the two: the momentum over its root mean
    square, taken over all parameters, a layer, a block (a matrix P_l or Q_l), a row, a coordinate
    (sign descent); and its polar factor, block by block (Muon). Fixed layer rates are a control
    that normalises nothing: SGD with a factor for each layer that stays the same for the whole run,
    one over the median gradient norm of that layer in the runs of "a layer" at its best rate on the
    seeds 0, 1, 2. Each at the best of seven rates (five for the two SGDs).

    Settings: of the paper, at a constant rate or at one that falls linearly to 0 ("Setting 1,
    falling rate"), or Setting 1 with variances of x in geometric steps whose largest is 4 or 16
    times the smallest, with mean 1 ("Setting 1, ratio 4"; w as in data.py's `covariance`). Of
    isotropic x no coordinate differs from another: a scale for each has nothing to mend. Measured:
    the final loss of each over Adam's; and the share of the log gap from SGD to Adam that it
    closes, log(SGD / it) over the mean of log(SGD / Adam), where the interval of SGD / Adam lies
    above 1 (the share's interval leaves out that the mean is uncertain). Adam differs in more than
    how finely it scales: its steps get shorter where gradients change sign. Why blocks may matter:
    the Hessian's spectra at initialisation, block by block (Zhang et al. 2024, arXiv 2402.16788),
    on one evaluation batch, without the last layer, whose P has no gradient.
    """
    known = PAPER_SETTINGS | {f"{name}, falling rate": setting._replace(schedule="linear")
                              for name, setting in PAPER_SETTINGS.items()}
    for largest in (4, 16):
        known[f"Setting 1, ratio {largest}"] = unequal_variances(SETTING_1, largest)
    settings = {name: known[name] for name in settings}
    rates = grid(settings, SCALINGS, sgd=(0.02, 0.5))
    tried = sweep(settings, SCALINGS, rates, range(3), steps)
    best = {pair: [best_rate(by_rate)] for pair, by_rate in tried.items()}
    runs = sweep(settings, SCALINGS, best, seeds, steps)
    runs = {pair: run for pair, by_rate in runs.items() for run in by_rate.values()}
    arrays, parts, besides = {"settings": list(settings), "scalings": [*SCALINGS, FIXED]}, [], []
    for name, setting in settings.items():
        factors = layer_factors(tried[name, "a layer"][best[name, "a layer"][0]])
        fixed, words = tuned({name: setting}, {FIXED: (FixedLayerRates, dict(factors=factors))},
                             {(name, FIXED): rates[name, "SGD"]}, seeds, steps)
        final = {each: final_loss((runs | fixed)[name, each]["loss"])
                 for each in arrays["scalings"]}  # (seeds,) each
        over = {each: ratio(values, final["Adam"]) for each, values in final.items()}
        parts += [Part(f"{name} {each}", f"{name}: final loss {each} / Adam", over[each])
                  for each in final if each != "Adam"]
        if interval(over["SGD"])[1] > 1:  # its lower end
            gap = np.log(over["SGD"])  # (seeds,)
            parts += [Part(f"{name} share {each}",
                           f"{name}: share of the log gap that {each} closes",
                           (gap - np.log(over[each])) / gap.mean())
                      for each in final if each not in ("SGD", "Adam")]
        besides += [Part(f"{name} loss {each}", f"{name}: final loss {each}", values)
                    for each, values in final.items()]
        besides.append(Part(f"{name} rates", f"{name}: best rates", ", ".join(
            [*(f"{each} {rate_in_words(tried[name, each])}" for each in SCALINGS), words[name]])))
        besides.append(Part(f"{name} factors", f"{name}: fixed factors of the layers",
                            " : ".join(f"{factor:.2g}" for factor in factors)))
        arrays[f"{name} final"] = np.array(list(final.values()))  # (scalings, seeds)
    spectra = np.array([run["values"] for run in parallel(  # (seeds, blocks, d^2)
        block_spectra, [(SETTING_1, seed) for seed in seeds])])
    P, Q = (np.median(spectra[:, which:-2:2], axis=(1, 2)) for which in (0, 1))  # (seeds,)
    parts.append(Part("spectra", "Hessian's blocks: median |eigenvalue| of Q over that of P",
                      Q / P))
    return arrays | {"spectra": spectra[0]}, parts + besides


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
FIXED = "fixed layer rates"


class FixedLayerRates(SGD):
    """SGD whose rate is multiplied, for layer l, by factors[l]."""

    def __init__(self, lr, factors):
        super().__init__(lr)
        self.factors = factors

    def direction(self, v):
        return np.reshape(self.factors, (-1, 1, 1, 1)) * v


def layer_factors(run):
    """One over the median gradient norm of each layer over seeds and steps, (layers,); scaled so
    that their geometric mean is 1."""
    factors = 1 / np.median(run["layer_grad_norm"], axis=(0, 1))
    return tuple(factors / np.exp(np.log(factors).mean()))


def unequal_variances(setting, largest):
    """The setting with variances of x in geometric steps from 1 to `largest`, then scaled to mean
    1."""
    variances = np.geomspace(1, largest, setting.data["d"])
    covariance = tuple(map(tuple, np.diag(variances / variances.mean()).tolist()))
    return setting._replace(name=f"{setting.name}, ratio {largest}",
                            data=dict(setting.data, covariance=covariance))


@cached
def block_spectra(setting, seed):
    """Absolute eigenvalues (blocks, d^2), ascending, of the Hessian's blocks P_1, Q_1, P_2, ... at
    initialisation."""
    start = initial(setting, streams(seed)[0])
    blocks, size = 2 * len(start), start[0, 0].size
    H = linattn.hessian(start, evaluation_batch(setting, 0)).reshape(blocks, size, blocks, size)
    return dict(values=np.sort(np.abs([np.linalg.eigvalsh(H[b, :, b]) for b in range(blocks)])))


def draw_granularity(figure, arrays, found):
    """"SETTING final" (scalings, seeds) over Adam's, a panel each for constant rates, falling ones
    and unequal variances; and "spectra" (blocks, eigenvalues)."""
    names, scalings = list(arrays["settings"]), list(arrays["scalings"])
    groups = {"isotropic x": [name for name in names if name in PAPER_SETTINGS],
              "falling rate, Setting 1": [name for name in names if "falling" in name],
              "unequal variances, Setting 1": [name for name in names if "ratio" in name]}
    groups = {title: shown for title, shown in groups.items() if shown}
    *panels, last = figure.subplots(1 + len(groups) // 2, 2).flat
    shown_scalings = [each for each in scalings if each != "Adam"]
    for ax, (title, shown) in zip(panels, groups.items()):
        for i, name in enumerate(shown):
            final = arrays[f"{name} final"]
            over = [final[scalings.index(each)] / final[scalings.index("Adam")]
                    for each in shown_scalings]
            look = plotting.OTHER_LOOKS[i]
            dots(ax, [each.replace(" ", "\n") for each in shown_scalings], over,
                 shift=0.22 * (i - (len(shown) - 1) / 2), colour=look["color"],
                 label=name.removesuffix(", falling rate").removeprefix("Setting 1, "))
        ax.set(yscale="log", title=title, ylabel="final loss / Adam's")
        ax.tick_params(axis="x", labelsize="small")
        reference(ax, 1)
        if len(shown) > 1:
            ax.legend()
    for b, spectrum in enumerate(arrays["spectra"][:-2]):  # the last P has no gradient
        last.plot(1 + np.arange(len(spectrum)), spectrum[::-1],
                  **dict(plotting.look("PQ"[b % 2], b % 2), marker=""),
                  label="PQ"[b % 2] if b < 2 else None)
    last.set(yscale="log", title="Hessian's blocks at the start", xlabel="rank of the eigenvalue",
             ylabel="|eigenvalue|")
    last.legend()
    shown = groups[next(iter(groups))]
    words = "; ".join(f"{each} " + ", ".join(str(found[f"{name} {each}"]) for name in shown)
                      for each in ("SGD", "a layer", FIXED))
    places = ", ".join(name.removeprefix("Setting ") for name in shown)
    return (f"Final loss over Adam's, Setting{'s' * (len(shown) > 1)} {places}: {words}",
            "Every optimizer at its best of seven rates (SGD of five); a dot for each seed, bar: "
            "median; dotted: 1, as Adam. One scale: the momentum over its root mean square; a "
            "layer, a block, a row: the same for each of these. Fixed layer rates: SGD with a "
            "constant factor for each layer, read off other seeds. Last panel: eigenvalues of the "
            "Hessian's diagonal blocks P and Q of all layers but the last, at initialisation, one "
            "seed.")


granularity.full = dict(seeds=8, steps=2000, settings=(
    *PAPER_SETTINGS, "Setting 1, falling rate", "Setting 1, ratio 4", "Setting 1, ratio 16"))


@experiment(FRESH)
def schedules(seeds=6, steps=60):
    """Question: What is left of the gap when the rate may fall?

    Constant rate, linear to 0, and cosine, in Settings 1, 2 and 3: SGD, SGD over its root mean
    square, and Adam, each at the best of seven rates for each schedule. A schedule is set by the
    length of the run, so that the beginning of a long run is not a short one; the final loss is a
    median over its last tenth, in which the rate still falls. Measured: the final losses of SGD and
    of normalised SGD over Adam's under the same schedule, and each under a falling rate over the
    same at a constant one.
    """
    kinds, candidates = ("constant", "linear", "cosine"), by_name((SGD, NormalizedSGD, Adam))
    arrays, parts, besides = {"schedules": kinds, "optimizers": list(candidates)}, [], []
    for name, setting in PAPER_SETTINGS.items():
        settings = {kind: setting._replace(schedule=kind) for kind in kinds}
        runs, best = tuned(settings, candidates, grid(settings, candidates), seeds, steps)
        final = {pair: final_loss(run["loss"]) for pair, run in runs.items()}  # (seeds,) each
        for kind in kinds:
            parts += [Part(f"{name} {kind} {each}", f"{name}, {kind}: final loss {each} / Adam",
                           ratio(final[kind, each], final[kind, "Adam"]))
                      for each in ("SGD", "NormalizedSGD")]
            besides.append(Part(f"{name} {kind} rates", f"{name}, {kind}: best rates", best[kind]))
        besides += [Part(f"{name} {each} {kind} / constant",
                         f"{name}, {each}: final loss {kind} / constant",
                         ratio(final[kind, each], final["constant", each]))
                    for each in candidates for kind in ("linear", "cosine")]
        arrays[f"{name} final"] = np.array([[final[kind, each] for kind in kinds]
                                            for each in candidates])  # (optimizers, kinds, seeds)
    return arrays, parts + besides


def draw_schedules(figure, arrays, found):
    """"SETTING final" (optimizers, schedules, seeds), over Adam's median at a constant rate."""
    row = figure.subplots(1, 3, sharey=True)
    for name, ax in zip(PAPER_SETTINGS, row):
        ends = arrays[f"{name} final"]
        adam = ends[list(arrays["optimizers"]).index("Adam"), 0]  # (seeds,)
        unit = np.median(adam[np.isfinite(adam)]) if np.isfinite(adam).any() else 1
        for i, (each, final) in enumerate(zip(arrays["optimizers"], ends)):
            dots(ax, arrays["schedules"], final / unit, shift=0.2 * (i - 1), label=str(each),
                 colour=plotting.look(each, i)["color"])
        ax.set(yscale="log", title=f"{name}: {about_x(PAPER_SETTINGS[name])}",
               ylabel="final loss / Adam's, constant rate")
        reference(ax, 1)
        note(ax, f"SGD / Adam: constant {found[f'{name} constant SGD']}, linear "
             f"{found[f'{name} linear SGD']}")
    row[1].legend()
    constant, linear = (", ".join(str(found[f"{name} {kind} SGD"]) for name in PAPER_SETTINGS)
                        for kind in ("constant", "linear"))
    return (f"SGD's final loss over Adam's, Settings 1, 2, 3: {constant} at a constant rate, "
            f"{linear} if both fall linearly",
            "Every optimizer at its best of seven rates under each schedule; a dot for each seed, "
            "bar: median; dotted: 1, Adam's median at a constant rate. Linear and cosine fall to 0 "
            "at the end of the run.")


schedules.full = dict(steps=4000)


@experiment(FRESH)
def edge_of_stability(seeds=6, steps=200, batches=1):
    """Question: Is SGD's rate at its limit?

    On a quadratic of curvature H gradient descent with momentum 0.9 diverges where the largest
    eigenvalue of H exceeds 2 (1 + momentum) / lr. That eigenvalue along SGD's path in Setting 1 at
    the rates 0.05, 0.1 and 0.2; on the typical of so many evaluation batches of 1,000 prompts,
    whose spread is largest over smallest. A clipped step is shorter than its rate says, so the
    points are also given without those where this step or one of the 50 before it was clipped. With
    fresh batches a lower rate may already be unstable. Measured: the eigenvalue over the limit, at
    the start and in the median over the path without its first tenth.

    If the limit binds at the start alone, a rate that rises from 0 over the first tenth of the
    steps (warm-up) should let SGD take a higher one. SGD and Adam each at the best of their rates,
    with and without warm-up. Measured: the final loss with warm-up over that without it, and SGD's
    over Adam's.
    """
    rates, points = (0.05, 0.1, 0.2), points_of(steps, 20)
    t = 50 * np.array(points)
    arrays, parts = {"iteration": t, "names": [f"rate {rate:g}" for rate in rates]}, []
    for rate in rates:
        sgd = ((SGD, dict(lr=rate)),)
        runs = parallel(train, [(SETTING_1, sgd, seed, steps) for seed in seeds])
        found = np.array([run["values"][0] for run in parallel(along, [  # (seeds, points, batches)
            (sharpness, SETTING_1, sgd, seed, steps, points, batches) for seed in seeds])])
        limit, typical = 2 * (1 + 0.9) / rate, np.median(found, axis=-1)  # (seeds, points)
        clipped = np.array([run["grad_norm"][0] > SETTING_1.clip for run in runs])
        recent = np.array([[seed[max(0, at - 50) : at + 1].any() for at in t]
                           for seed in clipped])  # (seeds, points)
        parts += [
            Part(f"{rate:g} start", f"rate {rate:g}: at the start", typical[:, 0] / limit),
            Part(f"{rate:g}", f"rate {rate:g}: largest eigenvalue / limit",
                 without_start(typical) / limit),
            Part(f"{rate:g} calm", f"rate {rate:g}: the same after 50 steps without clipping",
                 ", ".join(f"{np.median(values[~mask]) / limit:.3g}" if (~mask).any() else "none"
                           for values, mask in zip(typical, recent)) + " by seed"),
            Part(f"{rate:g} clipped", f"rate {rate:g}: clipped steps",
                 f"{100 * clipped.mean():.0f} %"),
            Part(f"{rate:g} batches", f"rate {rate:g}: largest over smallest batch",
                 f"{np.median(found.max(axis=-1) / found.min(axis=-1)):.3g}"),
            Part(f"{rate:g} loss", f"rate {rate:g}: final loss",
                 final_loss(np.array([run["loss"][0] for run in runs])))]
        arrays[f"rate {rate:g}"] = typical / limit
    settings = {"constant": SETTING_1, "warm-up": SETTING_1._replace(schedule="warm-up")}
    both = by_name(BOTH)
    runs, best = tuned(settings, both, grid(settings, both, sgd=(0.05, 2.0), other=(0.005, 0.1)),
                       seeds, steps)
    final = {pair: final_loss(run["loss"]) for pair, run in runs.items()}  # (seeds,) each
    for each in both:
        parts.append(Part(f"warm-up {each}", f"{each}: final loss warm-up / constant",
                          ratio(final["warm-up", each], final["constant", each])))
        for kind in settings:
            arrays[f"{kind} {each}"] = final[kind, each]
    for kind in settings:
        parts += [Part(f"{kind} SGD / Adam", f"{kind}: final loss SGD / Adam",
                       ratio(final[kind, "SGD"], final[kind, "Adam"])),
                  Part(f"{kind} rates", f"{kind}: best rates", best[kind])]
    return arrays, parts


def sharpness(_, before, __, prompts):
    """Largest eigenvalue of the Hessian."""
    return np.linalg.eigvalsh(linattn.hessian(before, prompts))[-1]


def draw_edge_of_stability(figure, arrays, found):
    """Of each of "names" the eigenvalue over its limit (seeds, points); and "SCHEDULE OPTIMIZER",
    final losses (seeds,)."""
    (ax, ends), names = figure.subplots(1, 2, width_ratios=(3, 2)), list(arrays["names"])
    for i, name in enumerate(names):  # a band for the last alone: three would hide each other
        shown = arrays[name] if name == names[-1] else np.median(arrays[name], axis=0)[None]
        curves(ax, arrays["iteration"], shown[:, None], [name], first=i, yscale="log",
               title="SGD, Setting 1", xlabel="iteration",
               ylabel="largest eigenvalue of the Hessian / its limit")
    reference(ax, 1)
    for i, each in enumerate(("SGD", "Adam")):
        dots(ends, ["constant", "warm-up"], [arrays[f"constant {each}"], arrays[f"warm-up {each}"]],
             shift=0.2 * i, label=each, colour=plotting.look(each, i)["color"], yscale="log",
             title="at the best rate", ylabel="final loss")
    ends.legend()
    note(ends, f"SGD, warm-up / constant {found['warm-up SGD']}")
    return (f"Setting 1, SGD at 0.2: the largest eigenvalue is {found['0.2 start']} times the "
            f"stability limit at the start, then {found['0.2']} times",
            "The limit is 2 (1 + momentum) / lr, beyond which gradient descent with momentum "
            "diverges on a quadratic. Line: median over seeds, band: smallest to largest; typical "
            "of the evaluation batches of 1,000 prompts; a band at the highest rate alone. "
            "Warm-up: the rate rises from 0 over the first tenth of the steps; a dot for each "
            "seed, bar: median.")


edge_of_stability.full = dict(seeds=8, steps=2500, batches=5)


@experiment()
def screen(seeds=3, steps=75, optimizers=(SGD, Adam, SignDescent, NormalizedSGD, Muon)):
    """Question: Which optimizer should I take, and how carefully must its rate be chosen?

    Every optimizer, and the VARIANTS of some, in Settings 1, 2 and 3 at seven rates; all on the
    seeds on which the rates are chosen, from 0 on. Ranked by the final loss at its best rate
    (geometric mean over the settings of its ratio to the best one). Besides: the good range, rates
    within a factor 2 of its best loss, as largest over smallest; median steps until the median of
    the last 50 losses lies below twice the setting's lowest final loss; share of diverged runs over
    the grid; share of steps of the second half whose gradient norm is above ten times its median,
    at the best rate.
    """
    candidates = candidates_of(optimizers)
    tried = sweep(PAPER_SETTINGS, candidates,
                  grid(PAPER_SETTINGS, candidates, sgd=(0.005, 0.5)), seeds, steps)
    scores = {pair: log_loss(by_rate) for pair, by_rate in tried.items()}
    lowest = {pair: min(each.values()) for pair, each in scores.items()}
    best = {name: min(lowest[name, each] for each in candidates) for name in PAPER_SETTINGS}
    behind = {each: np.exp(np.mean([behind_best(lowest[name, each], best[name])
                                    for name in PAPER_SETTINGS])) for each in candidates}
    ranked = sorted(behind, key=behind.get)
    parts = [Part("rank", "rank, by geometric mean of the ratio to the best", "; ".join(
        f"{place} {each} ({behind[each]:.3g})" for place, each in enumerate(ranked, 1))),
        Part("first", "first three, and loss over the best one's", "; ".join(
            f"{each}: {behind[each]:.2g}" for each in ranked[:3]))]
    parts += [Part(f"{each} {name}", f"{each:<25} {name}",
                   screened(tried[name, each], scores[name, each], best[name], steps))
              for each in ranked for name in PAPER_SETTINGS]
    arrays = {"contestants": ranked, "ratio": [behind[each] for each in ranked]}
    for name in PAPER_SETTINGS:
        arrays[f"{name} rates"] = np.array([list(tried[name, each]) for each in ranked])
        arrays[f"{name} scores"] = np.array(  # (contestants, rates)
            [list(scores[name, each].values()) for each in ranked])
    return arrays, parts


VARIANTS = {"Adam": {", beta2 = 0.9": {}, ", beta2 = 0.99": dict(beta2=0.99),
                     ", beta2 = 0.999": dict(beta2=0.999)},
            "NormalizedSGD": {", one scale": {}, ", a block": dict(granularity="block")}}


def candidates_of(optimizers):
    """{name: (class, arguments)} of these and their VARIANTS."""
    return {f"{each.__name__}{words}": (each, arguments) for each in optimizers
            for words, arguments in VARIANTS.get(each.__name__, {"": {}}).items()}


def behind_best(score, best):
    """How far a log loss lies above the best one: 0 for the best, even if its loss is 0; infinite
    if it diverged."""
    if score == best < np.inf:
        return 0.0
    return score - best if np.isfinite(best) else np.inf


def good_rates(scores):
    """The rates whose log loss is within a factor 2 of the best one's; none if all diverged."""
    return [rate for rate, score in scores.items()
            if score < np.inf and score <= min(scores.values()) + np.log(2)]


def screened(by_rate, scores, best, steps):
    """What there is to say of an optimizer in a setting, beside its rank."""
    good, run = good_rates(scores), by_rate[best_rate(by_rate)]
    norm = run["grad_norm"][:, steps // 2 :]
    spikes = (norm > 10 * np.median(norm, axis=-1, keepdims=True)).mean()
    needed = np.median(steps_to(2 * np.exp(best), run["loss"]))
    needed = f"{needed:.0f}" if np.isfinite(needed) else f"> {steps:,}"
    diverged = np.mean([np.isnan(each["loss"][:, -1]) for each in by_rate.values()])
    return (f"rate {rate_in_words(by_rate) if good else 'none':<5} "
            f"loss {np.exp(min(scores.values())):<8.3g} "
            f"good range {max(good) / min(good) if good else np.nan:<5.3g} "
            f"steps to target {needed:<5} diverged {100 * diverged:.0f} % "
            f"spikes {100 * spikes:.1f} %")


def draw_screen(figure, arrays, found):
    """A row a contestant, in their order: the lowest of "SETTING scores" (contestants, rates), and
    where they are good, of "SETTING rates"."""
    names = [str(each) for each in arrays["contestants"]]
    ends, ranges = figure.subplots(1, 2, sharey=True)
    place = np.arange(len(names))
    for i, (name, look) in enumerate(zip(PAPER_SETTINGS, plotting.OTHER_LOOKS)):
        scores = arrays[f"{name} scores"]
        typical = np.exp(scores.min(axis=1))  # (contestants,); infinite if no rate trains
        ends.plot(ratio(typical, typical.min()), place, look["marker"], color=look["color"], ms=10,
                  label=name)
        for each in place:
            good = good_rates(dict(zip(arrays[f"{name} rates"][each], scores[each])))
            ranges.plot(good, np.full(len(good), each + 0.2 * (i - 1)), "-" + look["marker"],
                        color=look["color"])
    ends.set(xscale="log", xlabel="final loss / the best one's", title="at the best of seven rates")
    ends.set_yticks(place, [f"{i}  {name} ({behind:.2g})" for i, (name, behind) in enumerate(
        zip(names, arrays["ratio"]), 1)])
    ends.invert_yaxis()
    ends.legend()
    ranges.set(xscale="log", xlabel="learning rate", title="rates within a factor 2 of the best")
    return (f"Final loss over the best one's, geometric mean of Settings 1, 2, 3: {found['first']}",
            "Ranked by the geometric mean over the settings of the ratio to the best one, in "
            "brackets. Right: the rates at which the final loss is within a factor 2 of the "
            "optimizer's own best one.")


screen.full = dict(seeds=6, steps=500)


RUNGS = {"linear": "linear", "ReLU": "relu", "softmax": "softmax", "softmax + MLP": "transformer"}
PLACES = {"Setting 1, blocks": (SETTING_1, False, tuple(RUNGS)),
          "Setting 1, full": (SETTING_1, True, tuple(RUNGS)),
          "Setting 3, full": (SETTING_3, True, ("linear", "softmax"))}
RUNG_RATES = {  # SGD's first and last of five, Adam's first and last: centred by a first look
    "linear": (0.02, 0.5, 0.005, 0.1), "ReLU": (0.01, 0.2, 0.01, 0.2),
    "softmax": (0.01, 0.2, 0.005, 0.1), "softmax + MLP": (0.01, 0.2, 0.005, 0.1)}
FOUR = {"gap": "final loss SGD / Adam", "steps": "steps to half the loss SGD / Adam",
        "noise": "99 % / 50 % quantile of the noise, over Gaussian",
        "smoothness": "v^T H v SGD / Adam"}


@experiment(FRESH)
def ladder(seeds=6, steps=30, places=("Setting 1, full",)):
    """Question: What of the picture survives nonlinearity?

    One change a rung: linear, ReLU and softmax attention, then softmax attention with a residual
    ReLU MLP of width 4 d after each layer (mlp.py); the same prompts and the same initial P and Q.
    In Setting 1 in the paper's blocks and in full matrices, in Setting 3 linear and softmax in full
    matrices. SGD and Adam each at the best of five rates, chosen on runs half as long. Measured on
    every rung: SGD / Adam of the final loss; SGD / Adam of the steps to half the loss at the start
    (mean over seeds); the 99 % over the 50 % quantile of the noise norm at initialisation, over
    that of Gaussian vectors with the noise's mean and covariance (half as many draws as steps); SGD
    / Adam of the median v^T H v over the path without its first tenth, on the typical of three
    batches. Each of the four is said to be there on a rung if its interval lies above 1.
    """
    arrays, parts, rates = {"places": list(places), "rungs": list(RUNGS)}, [], []
    found = {what: np.full((len(places), len(RUNGS), len(seeds)), np.nan) for what in FOUR}
    for p, place in enumerate(places):
        base, full, rungs = PLACES[place]
        for rung in rungs:
            setting = base._replace(name=f"{place}, {rung}", activation=RUNGS[rung], full=full)
            sgd_low, sgd_high, low, high = RUNG_RATES[rung]
            both = by_name(BOTH)
            grids = grid({place: setting}, both, sgd=(sgd_low, sgd_high), other=(low, high))
            four, besides = the_four(f"{place} {rung}", setting,
                                     {each: grids[place, each] for each in both}, seeds, steps)
            parts, rates = parts + four, rates + besides
            for what, part in zip(FOUR, four):
                found[what][p, list(RUNGS).index(rung)] = part.values
    there = Part("everywhere", "there on every rung that was run", ", ".join(
        FOUR[what] for what in FOUR if all(interval(values)[1] > 1 for values in
                                           found[what].reshape(-1, len(seeds))
                                           if np.isfinite(values).any())) or "none")
    return arrays | found, parts + [there] + rates


def the_four(key, setting, rates, seeds, steps):
    """What `ladder` measures in a setting: a part for each of FOUR, and others for losses, steps
    and best rates; their keys begin with this one. rates {optimizer's name: rates}."""
    both, name = by_name(BOTH), setting.name
    tried = sweep({name: setting}, both, {(name, each): rates[each] for each in both}, range(3),
                  max(1, steps // 2))
    chosen = tuple((both[each][0], dict(lr=best_rate(tried[name, each]))) for each in both)
    loss = np.array([run["loss"] for run in parallel(
        train, [(setting, chosen, seed, steps) for seed in seeds])])  # (seeds, 2, steps)
    final, half = final_loss(loss), steps_to(loss[:, :, :1].mean() / 2, loss)
    height = np.array([run["values"] for run in parallel(along, [
        (smoothness, setting, chosen, seed, steps, points_of(steps, 10), 3) for seed in seeds])])
    height = without_start(np.median(height, axis=-1))  # (seeds, 2)
    norms, null = noise_norms(setting, seeds, max(5, steps // 2))
    four = dict(gap=ratio(final[:, 0], final[:, 1]), steps=ratio(half[:, 0], half[:, 1]),
                noise=spread(norms) / spread(null).mean(axis=1),
                smoothness=ratio(height[:, 0], height[:, 1]))
    besides = [Part(f"{key} loss {each}", f"{name}: final loss {each}", final[:, i])
               for i, each in enumerate(both)]
    besides += [Part(f"{key} half {each}", f"{name}: steps to half the loss {each}", half[:, i])
                for i, each in enumerate(both)]
    besides.append(Part(f"{key} rates", f"{name}: best rates", ", ".join(
        f"{each} {rate_in_words(tried[name, each])}" for each in both)))
    return [Part(f"{key} {what}", f"{name}: {FOUR[what]}", four[what]) for what in FOUR], besides


def draw_ladder(figure, arrays, found):
    """A panel for each of FOUR, (places, rungs, seeds), against the rung."""
    four_panels(figure, arrays, list(arrays["places"]), list(arrays["rungs"]))
    place = list(arrays["places"])[-1 if len(arrays["places"]) < 2 else 1]
    words = ", ".join(f"{found[f'{place} {rung} gap']}" for rung in arrays["rungs"])
    return (f"Final loss SGD / Adam with linear, ReLU, softmax attention, softmax + MLP ({place} "
            f"matrices): {words}",
            "One change a rung, Setting 3 on two of them; a dot for each seed, bar: median; "
            "dotted: 1. SGD and Adam each at the best of five rates. Noise: 99 % over 50 % "
            "quantile of the noise norm, over that of Gaussian vectors of the same mean and "
            "covariance. $v^T H v$: median over the path, typical batch.")


def four_panels(figure, arrays, groups, labels):
    """For each of FOUR the values (groups, labels, seeds): a colour a group."""
    for (what, words), ax in zip(FOUR.items(), figure.subplots(2, 2).flat):
        for i, (group, values) in enumerate(zip(groups, arrays[what])):
            dots(ax, [each.replace(" + ", "\n+ ") for each in labels], values,
                 shift=0.24 * (i - (len(groups) - 1) / 2), label=group,
                 colour=plotting.OTHER_LOOKS[i]["color"])
        ax.set(yscale="log", title=plotting.in_symbols(words))
        reference(ax, 1)
        values = np.asarray(arrays[what])
        if (values <= 0).any():
            note(ax, f"negative, so not drawn: {np.sum(values <= 0)}")
        elif (np.isnan(values) & np.isfinite(arrays["gap"])).any():
            note(ax, "no dots: neither optimizer got there")
        if what == "gap":
            ax.legend(fontsize="small")


ladder.full = dict(seeds=10, steps=800, places=tuple(PLACES))


@experiment(FRESH)
def transfer(seeds=6, steps=12, rungs=("linear", "softmax")):
    """Question: Does the ranking of optimizers on the bench predict that of a less simple model?

    The bench is Setting 1 with linear attention, in blocks; the other models are the rungs of
    `ladder`, in full matrices. The eight optimizers of `screen`, each at the best of five rates on
    each of them, chosen on the seeds 0, 1, 2 and ranked on others by the median final loss. Fixed
    before the run: the bench predicts a model if its first three contain the model's winner, and
    Kendall's tau between the two rankings is above 0.5. Measured: tau, with an interval from
    resampled seeds; and the regret, the final loss of the bench's first optimizer over the winner's
    on the same seeds.
    """
    candidates = candidates_of((SGD, Adam, SignDescent, NormalizedSGD, Muon))
    settings = {"bench": SETTING_1} | {
        rung: SETTING_1._replace(name=rung, activation=RUNGS[rung], full=True) for rung in rungs}
    rates = {}
    for name, setting in settings.items():
        sgd_low, sgd_high, low, high = RUNG_RATES["linear" if name == "bench" else name]
        rates |= grid({name: setting}, candidates, sgd=(sgd_low, sgd_high), other=(low, high))
    runs, best = tuned(settings, candidates, rates, seeds, steps)
    final = np.array([[final_loss(runs[name, each]["loss"]) for each in candidates]
                      for name in settings])  # (models, candidates, seeds)
    typical = np.median(final, axis=-1)  # (models, candidates)
    ranked = [sorted(candidates, key=dict(zip(candidates, row)).get) for row in typical]
    drawn = generator(2310).integers(0, len(seeds), (1000, len(seeds)))
    parts, names = [], list(candidates)
    arrays = {"models": list(settings), "candidates": names, "typical": typical}
    for i, name in enumerate(settings):
        parts.append(Part(f"{name} ranking", f"{name}: ranking", ", ".join(
            f"{each} ({typical[i, names.index(each)]:.3g})" for each in ranked[i])))
        if name == "bench":
            continue
        tau = kendall_tau(typical[0], typical[i])
        again = [kendall_tau(*np.median(final[[0, i]][:, :, some], axis=-1)) for some in drawn]
        low, high = np.quantile(again, (0.025, 0.975))
        arrays[f"{name} tau"] = np.array([tau, low, high])
        predicts = ranked[i][0] in ranked[0][:3] and tau > 0.5
        first, winner = (names.index(each) for each in (ranked[0][0], ranked[i][0]))
        parts += [Part(f"{name} tau", f"{name}: Kendall's tau with the bench",
                       f"{tau:.2f} [{low:.2f}, {high:.2f}]"),
                  Part(f"{name} predicts", f"{name}: the bench predicts it",
                       "yes" if predicts else "no"),
                  Part(f"{name} regret", f"{name}: final loss of {ranked[0][0]}, first on the "
                       f"bench, over {ranked[i][0]}'s", ratio(final[i, first], final[i, winner]))]
    return arrays, parts + [Part(f"{name} rates", f"{name}: best rates", best[name])
                            for name in settings]


def kendall_tau(a, b):
    """Kendall's rank correlation of (k,) and (k,): pairs in the same order minus pairs in the
    opposite one, over all pairs (which counts a tie as neither)."""
    i, j = np.triu_indices(len(a), 1)
    with np.errstate(invalid="ignore"):  # two that diverged
        return np.mean(np.sign(a[i] - a[j]) * np.sign(b[i] - b[j]) == 1) - np.mean(
            np.sign(a[i] - a[j]) * np.sign(b[i] - b[j]) == -1)


def draw_transfer(figure, arrays, found):
    """"typical" (models, candidates), of the bench and of the last model over their best; and
    "MODEL tau" (3,): tau and its interval."""
    models, names = list(arrays["models"]), list(arrays["candidates"])
    scatter, ranks = figure.subplots(1, 2, width_ratios=(3, 2))
    behind = arrays["typical"] / arrays["typical"].min(axis=1, keepdims=True)
    for i, name in enumerate(names):
        scatter.plot(behind[0, i], behind[-1, i], "o", ms=9, color=plotting.look(
            name.split(",")[0], i)["color"])
        side, away = ("right", -8) if behind[0, i] ** 2 > behind[0].max() else ("left", 8)
        scatter.annotate(name, (behind[0, i], behind[-1, i]), xytext=(away, 6), ha=side,
                         fontsize="small", textcoords="offset points")
    scatter.set(xscale="log", yscale="log", xlabel="final loss over the best one's, on the bench",
                ylabel=f"final loss over the best one's, {models[-1]}", title="a dot an optimizer")
    for i, model in enumerate(models[1:]):
        tau, low, high = arrays[f"{model} tau"]
        ranks.plot([low, high], [i, i], color="#444444")
        ranks.plot(tau, i, "o", ms=10, color="#009E73")
    ranks.set_yticks(range(len(models) - 1), models[1:])
    ranks.set(xlim=(-1, 1), xlabel="Kendall's tau with the bench;\ndotted: the bound",
              title="agreement of rankings", ylim=(-0.6, len(models) - 1.4))
    ranks.axvline(0.5, ls=":", color="k", lw=1.5)
    last = models[-1]
    return (f"Rankings of {len(names)} optimizers by the bench and by {last}: Kendall's tau "
            f"{found[f'{last} tau']}",
            "Each optimizer at the best of five rates on each model. Bench: linear attention, "
            "blocks, Setting 1; the others in full matrices. Line: 95 % of resampled seeds; "
            "dotted: 0.5, the bound fixed before the run.")


transfer.full = dict(steps=200, rungs=("linear", "softmax", "softmax + MLP"))


@experiment(FRESH)
def without_attention(seeds=6, lengths=(60,)):
    """Question: Is it the attention?

    Layers z' = z + P Q z, linear attention with the prompt's matrix G taken out: a deep linear
    network with as many parameters, the same start and the same clipping, trained to <w, x> for one
    w (mlp.py), with 3 and 6 layers; and linear attention in full matrices beside it. Gaussian x
    (Setting 1) and heavy-tailed x (Setting 3), in runs of these lengths. Optimizers and measures as
    in `ladder`, each at the best of seven rates. The network's task is easier: its loss can reach
    0, so that in long runs rounding is what is left of it.
    """
    models = {"attention": (3, "linear"), "none, L = 3": (3, "no attention"),
              "none, L = 6": (6, "no attention")}
    kinds = {f"{x}, {steps:,} steps": (setting, steps) for x, setting in (
        ("Gaussian x", SETTING_1), ("heavy tails", SETTING_3)) for steps in lengths}
    grids = dict(SGD=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0),
                 Adam=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2))
    arrays, parts, rates = {"kinds": list(kinds), "models": list(models)}, [], []
    found = {what: np.full((len(kinds), len(models), len(seeds)), np.nan) for what in FOUR}
    for k, (kind, (base, steps)) in enumerate(kinds.items()):
        for m, (model, (layers, activation)) in enumerate(models.items()):
            setting = base._replace(name=f"{model}, {kind}", activation=activation, full=True,
                                    layers=layers)
            four, besides = the_four(f"{model} {kind}", setting, grids, seeds, steps)
            parts, rates = parts + four, rates + besides
            for what, part in zip(FOUR, four):
                found[what][k, m] = part.values
    return arrays | found, parts + rates


def draw_without_attention(figure, arrays, found):
    """A panel for each of FOUR, (kinds, models, seeds), of the shortest runs for each x."""
    kinds = [str(kind) for kind in arrays["kinds"]]
    shortest = slice(None, None, len(kinds) // 2)  # of the runs with each x
    first, seen = kinds[shortest], {what: arrays[what][shortest] for what in FOUR}
    four_panels(figure, seen, first, list(arrays["models"]))
    attention, none = (", ".join(str(found[f"{model} {kind} gap"]) for kind in first)
                       for model in ("attention", "none, L = 3"))
    return (f"Final loss SGD / Adam with Gaussian and heavy-tailed x: attention {attention}; none, "
            f"L = 3: {none}",
            "Attention: linear, full matrices, L = 3. None: the layers z + P Q z of a deep linear "
            "network, on the same x, for one w. A dot for each seed, bar: median; dotted: 1. SGD "
            "and Adam each at the best of seven rates. Measures as in ladder.")


without_attention.full = dict(seeds=10, lengths=(100, 1000))


@experiment(FRESH)
def gradient_norms(seeds=3, steps=60, optimizers=BOTH):
    """Question: Do gradients explode or vanish in training?

    Setting 1, L = 3 and 8, the norm of the gradient layer by layer, before clipping. Three kinds of
    run: every optimizer at the best of seven rates; at twice that rate; and, at the best rate, from
    a start four times as large (standard deviation 0.2). Measured: the first layer's norm over the
    last one's at the first step, and as the median over the last tenth of the steps; the largest
    norm of the whole gradient over its median; the share of steps that are clipped.
    """
    depths = {3: SETTING_1, 8: DEEP[-1]}
    candidates = by_name(optimizers)
    arrays, parts = {"depths": list(depths), "optimizers": list(candidates),
                     "block": block_centres(steps)}, []
    for L, setting in depths.items():
        name = f"L = {L}"
        tried = sweep({name: setting}, candidates, grid({name: setting}, candidates), range(3),
                      steps)
        best = {each: best_rate(tried[name, each]) for each in candidates}
        kinds = {"best rate": (setting, 1), "twice the rate": (setting, 2),
                 "large start": (setting._replace(std=4 * setting.std), 1)}
        for kind, (changed, factor) in kinds.items():
            chosen = tuple((candidates[each][0], dict(lr=factor * best[each]))
                           for each in candidates)
            runs = parallel(train, [(changed, chosen, seed, steps) for seed in seeds])
            norm = np.array([run["layer_grad_norm"] for run in runs])  # (seeds, opt., steps, L)
            whole = np.array([run["grad_norm"] for run in runs])  # (seeds, optimizers, steps)
            typical = [np.median(running_median(norm[..., layer]), axis=0)  # over seeds
                       for layer in range(L)]
            arrays[f"{name} {kind}"] = np.stack(typical, axis=1)  # (optimizers, L, blocks)
            end = np.median(norm[:, :, -max(1, steps // 10) :], axis=2)  # (seeds, optimizers, L)
            for i, each in enumerate(candidates):
                label, key = f"{name}, {kind}, {each}", f"{name} {kind} {each}"
                clipped = (whole[:, i] > setting.clip).mean(axis=1)
                parts += [
                    Part(f"{key} start", f"{label}: first / last layer's norm, first step",
                         ratio(norm[:, i, 0, 0], norm[:, i, 0, -1])),
                    Part(f"{key} end", f"{label}: the same at the end",
                         ratio(end[:, i, 0], end[:, i, -1])),
                    Part(f"{key} largest", f"{label}: largest norm / median",
                         ratio(whole[:, i].max(axis=1), np.median(whole[:, i], axis=1))),
                    Part(f"{key} clipped", f"{label}: share of steps clipped", clipped),
                    Part(f"{key} loss", f"{label}: final loss",
                         final_loss(np.array([run["loss"][i] for run in runs])))]
        parts.append(Part(f"{name} rates", f"{name}: best rates", ", ".join(
            f"{each} {rate_in_words(tried[name, each])}" for each in candidates)))
    return arrays, parts


def draw_gradient_norms(figure, arrays, found):
    """A row a depth, a column a kind of run: "DEPTH KIND" (optimizers, layers, blocks)."""
    kinds = ("best rate", "twice the rate", "large start")
    for L, row in zip(arrays["depths"], figure.subplots(2, 3, sharex=True, sharey="row")):
        for kind, ax in zip(kinds, row):
            for i, (each, norms) in enumerate(zip(arrays["optimizers"],
                                                  arrays[f"L = {L} {kind}"])):
                colour = plotting.look(each, i)["color"]
                for layer, dashes, word in ((0, "-", "first"), (-1, ":", "last")):
                    ax.plot(arrays["block"], norms[layer], dashes, color=colour,
                            label=f"{each}, {word} layer")
                finite = np.flatnonzero(np.isfinite(norms[0]))
                if 0 < len(finite) < len(norms[0]):  # it diverged
                    ax.plot(arrays["block"][finite[-1]], min(norms[0, finite[-1]], 500), "X",
                            color=colour, ms=10)
            ax.set(yscale="log", title=f"L = {L}, {kind}", ylim=(1e-5, 1e3), xlabel="iteration",
                   ylabel="gradient norm of a layer\n(dotted: clip limit)")
            reference(ax, 1)
    figure.legend(*row[-1].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    first = list(arrays["optimizers"])[0]
    return (f"First over last layer's gradient norm, {first} at its best rate, at the end: "
            f"{found[f'L = 3 best rate {first} end']} (L = 3), "
            f"{found[f'L = 8 best rate {first} end']} (L = 8)",
            "Setting 1, before clipping; medians over blocks of steps and over seeds; dotted "
            "horizontal: 1, the clip limit of the whole gradient. At L = 8 norms go beyond the "
            "panel; a cross where the first of the seeds diverged. Large start: entries of "
            "standard deviation 0.2 instead of 0.05.")


gradient_norms.full = dict(seeds=6, steps=500)


@experiment()
def initialization(seeds=3, steps=100, optimizers=BOTH, lr=None):
    """Question: At which initial scale and depth do models train?

    L = 2, 4 and 8 in Setting 1, entries of standard deviation 0.01 to 0.8, in the paper's blocks
    and in full matrices, seeds from 0 on. Measured: the final loss of both optimizers, at the rates
    that serve at 0.05. A run "trains" if it ends below half of the loss of predicting 0, which is
    d. (`gradient_norms` has the gradients.)
    """
    scales, names = (0.01, 0.05, 0.2, 0.8), [optimizer.__name__ for optimizer in optimizers]
    arrays, parts = {"scales": scales, "optimizers": names}, []
    for deep in (DEEP[0], DEEP[1], DEEP[3]):
        for where in ("blocks", "full matrices"):
            label, final = f"{deep.name}, {where}", []
            for std in scales:
                setting = deep._replace(full=where != "blocks", std=std)
                both = contestants(setting, optimizers, lr)
                runs = parallel(train, [(setting, both, seed, steps) for seed in seeds])
                final.append(final_loss(np.array([run["loss"] for run in runs])))
            final = np.array(final)  # (scales, seeds, optimizers)
            for i, each in enumerate(names):
                good = (final[..., i] < deep.data["d"] / 2).all(axis=1)  # (scales,)
                diverged = np.isinf(final[..., i]).any(axis=1)
                words = [f"{word} at std {', '.join(f'{std:g}' for std in np.array(scales)[so])}"
                         for word, so in (("trains", good), ("diverges", diverged)) if so.any()]
                parts.append(Part(f"{label} {each}", f"{label}: {each}",
                                  "; ".join(words) or "trains nowhere"))
                arrays[f"{label} {each}"] = final[..., i]
    return arrays, parts


def draw_initialization(figure, arrays, found):
    """Maps of depth and scale: "DEPTH, WHERE OPTIMIZER" (scales, seeds)."""
    names, labels = arrays["optimizers"], ("blocks", "full matrices")
    depths = [f"L = {L}" for L in (2, 4, 8)]
    panels = [(f"final loss, {each}, {where}", [arrays[f"{L}, {where} {each}"] for L in depths])
              for where in labels for each in names]
    maps = {title: np.median(values, axis=-1) for title, values in panels}  # (depths, scales) each
    maps = {title: np.where(values > 1000, np.inf, values) for title, values in maps.items()}
    for ax, (title, values) in zip(figure.subplots(len(names), 2).T.flat, maps.items()):
        heat(ax, values, depths, arrays["scales"], list(maps.values()), title=title,
             xlabel="initial std (X: blew up)")
    return (f"Setting 1, L = 8, {names[0]} in blocks {found[f'L = 8, blocks {names[0]}']}; in full "
            f"matrices {found[f'L = 8, full matrices {names[0]}']}",
            "Final loss: median over the last tenth of the steps, median over seeds; a cross where "
            "runs diverged or ended above 1,000; the loss of predicting 0 is 5.")


initialization.full = dict(seeds=6, steps=400)


@experiment(FRESH)
def tails_times_depth(seeds=6, steps=33, optimizers=BOTH):
    """Question: How do heavy tails and depth interact?

    A factorial grid at E|x|^2 = 1: s ~ Gamma(k, .) with k = 2.5 (Gaussian x), 0.5 and 0.1, times L
    = 2, 4 and 6; clip limit 1, every optimizer at the best of six rates. Measured: SGD's final loss
    over Adam's, and the 99 % quantile over the median of the noise norm at initialisation (twice as
    many draws as steps). Interaction: by what factor one step towards heavy tails changes the
    effect of one step in depth (fit in the logarithms, per seed).
    """
    shapes, depths, candidates = (2.5, 0.5, 0.1), (2, 4, 6), by_name(optimizers)
    cells = {f"k = {k}, L = {L}": (k, L) for k in shapes for L in depths}
    settings = {name: Setting(name, dict(n=20, d=5, covariates="gamma", shape=k, second_moment=1.0),
                              {}, layers=L) for name, (k, L) in cells.items()}
    rates = grid(settings, candidates, sgd=(0.05, 2.0), other=(0.005, 0.2))
    runs, best = tuned(settings, candidates, rates, seeds, steps)
    first, second, *_ = candidates
    final = {pair: final_loss(run["loss"]) for pair, run in runs.items()}  # (seeds,) each
    gap = {name: ratio(final[name, first], final[name, second]) for name in cells}
    wide = {name: spread(noise_norms(setting, seeds, max(5, 2 * steps))[0])
            for name, setting in settings.items()}
    maps = {f"final loss {first} / {second}": gap, "99 % quantile over median of the noise": wide}
    arrays, parts = {"shapes": shapes, "depths": depths, "maps": list(maps)}, []
    for what, values in maps.items():
        # The least-squares coefficient of a * b, where a, b = -1, 0, 1 are the steps in tail and
        # depth: the sum of a b log(value) over the sum of (a b)^2, which is 4.
        total = sum((shapes.index(k) - 1) * (depths.index(L) - 1) * np.log(values[name])
                    for name, (k, L) in cells.items())  # (seeds,)
        parts.append(Part(f"interaction {what}", f"interaction, {what}", np.exp(total / 4)))
    for what, values in maps.items():
        parts += [Part(f"{name} {what}", f"{name}: {what}", values[name]) for name in cells]
        arrays[what] = np.reshape([np.median(values[name]) for name in cells], (3, 3))
    return arrays, parts + [Part(f"{name} rates", f"{name}: best rates", best[name])
                            for name in cells]


def draw_tails_times_depth(figure, arrays, found):
    """A map (shapes, depths) for each of "maps"."""
    names = ["Gaussian" if k == 2.5 else f"k = {k:g}" for k in arrays["shapes"]]
    names = [f"{name}\n({words})" if words else name
             for name, words in zip(names, ("light tails", "", "heavy tails"))]
    for ax, what in zip(figure.subplots(1, 2), arrays["maps"]):
        heat(ax, arrays[what], names, arrays["depths"], title=what, xlabel="layers L",
             ylabel="distribution of x")
    gap = str(arrays["maps"][0])
    light, heavy = ([str(found[f"k = {k}, L = {L} {gap}"]) for L in (2, 6)] for k in (2.5, 0.1))
    return (f"{gap[0].upper()}{gap[1:]} from L = 2 to 6: {' to '.join(light)} for Gaussian x, "
            f"{' to '.join(heavy)} for heavy tails",
            "Medians over seeds. k = 2.5: Gaussian x; smaller k: heavier tails at the same "
            "E|x|$^2$ = 1. Every optimizer at the best of six rates.")


tails_times_depth.full = dict(steps=500)


@experiment(FRESH)
def messy_data(seeds=6, steps=15, kinds=("clean", "Gaussian noise"), remedies=("none", "clipping")):
    """Question: What helps against data as it comes, and what does it cost?

    Data, each with E target^2 = 5 except for the heavy tails (1): clean (Setting 1); noise of
    standard deviation 1 on the context's labels, Gaussian, of Student's t with 2.5 degrees of
    freedom, or on a tenth of them (outliers); correlated x, largest over smallest variance 10 or
    100; heavy-tailed x (Setting 3); and all of it: variances 10, heavy tails, outliers. Remedies:
    none (not even clipping); x and y over |x|, undone on the prediction; x whitened by the
    context's covariance; clipping to norm 1; weight decay 0.01; whitening with decay. SGD and Adam
    each at the best of four rates. Measured: the risk, the squared error on clean targets over
    their mean square, in typical (median) batches of 1,000 prompts (twenty, at the last two
    snapshots); Adam's with a remedy over that without one, and SGD's over Adam's.
    """
    candidates, parts, rates = by_name(BOTH), [], []
    remedies = tuple(dict.fromkeys(("none", *remedies)))  # with which others are compared
    risk = np.full((2, len(kinds), len(remedies), len(seeds)), np.nan)
    for k, kind in enumerate(kinds):
        for r, remedy in enumerate(remedies):
            setting, arguments = remedied(MESSY[kind], remedy)
            some = {each: (candidates[each][0], arguments) for each in candidates}
            unit = dict(SGD=1.0, Adam=0.1) if "scaled" in setting.data.values() else dict(
                SGD=0.02, Adam=0.02)
            grids = {(remedy, each): [factor * unit[each] for factor in FACTORS] for each in some}
            runs, best = tuned({remedy: setting}, some, grids, seeds, steps,
                               every=max(1, steps // 20))
            for i, each in enumerate(candidates):
                risk[i, k, r] = late_risks(setting, runs[remedy, each]["snapshots"])
            rates.append(Part(f"{kind} {remedy} rates", f"{kind}, {remedy}: best rates",
                              best[remedy]))
    for k, kind in enumerate(kinds):
        for r, remedy in enumerate(remedies):
            label, key = f"{kind}, {remedy}", f"{kind} {remedy}"
            parts += [Part(f"{key} Adam", f"{label}: risk of Adam", risk[1, k, r]),
                      Part(f"{key} SGD / Adam", f"{label}: risk SGD / Adam",
                           ratio(risk[0, k, r], risk[1, k, r]))]
            if r:
                parts += [Part(f"{key} {each} with / without", f"{label}: {each}, with / without",
                               ratio(risk[i, k, r], risk[i, k, 0]))
                          for i, each in enumerate(candidates)]
        parts.append(Part(f"{kind} ridge", f"{kind}: risk of the ridge regression that knows the "
                          "noise", f"{ridge_risk(MESSY[kind]):.3g}"))
    return {"kinds": list(kinds), "remedies": list(remedies), "risk": risk}, parts + rates


FACTORS = (0.3, 1, 3, 10)  # of the rates
MESSY = {"clean": SETTING_1, **{
    f"{words}": SETTING_1._replace(name=words, data=dict(SETTING_1.data, noise=1.0,
                                                         noise_family=family))
    for words, family in (("Gaussian noise", "gaussian"), ("Student noise", "student"),
                          ("outliers", "outliers"))},
    "variances 10": unequal_variances(SETTING_1, 10),
    "variances 100": unequal_variances(SETTING_1, 100), "heavy tails": SETTING_3}
MESSY["all of it"] = unequal_variances(SETTING_3._replace(data=dict(
    SETTING_3.data, noise=1.0, noise_family="outliers")), 10)
REMEDIES = "none", "over |x|", "whitened", "clipping", "decay", "whitened, decay"


def remedied(setting, remedy):
    """(setting, optimizers' arguments) with a remedy; without clipping unless it is that."""
    prepared = {"over |x|": "scaled", "whitened": "whitened", "whitened, decay": "whitened"}
    setting = setting._replace(
        clipping="global" if remedy == "clipping" else "none",
        data=dict(setting.data, prepared=prepared.get(remedy, "nothing")))
    return setting, dict(weight_decay=0.01) if "decay" in remedy else {}


@np.errstate(all="ignore")
def late_risks(setting, snapshots):
    """(seeds,): the risk at the last two snapshots of (seeds, points, 2, ...), on twenty evaluation
    batches of 1,000 prompts, the median; infinite if the run diverged."""
    plain = setting._replace(data=dict(setting.data, prepared="nothing"))
    batches = []
    for k in range(20):
        seen, raw = evaluation_prompts(setting, k), evaluation_prompts(plain, k)
        undo = raw.target / seen.target  # |x| of the query if prompts were scaled, else 1
        batches.append((linattn.compress(seen), undo, raw.target))
    return np.array([np.median([
        np.mean((undo * linattn.predict(before, seen) - target) ** 2) / np.mean(target**2)
        if np.isfinite(before).all() else np.inf
        for before in path[-2:, 0] for seen, undo, target in batches]) for path in snapshots])


def ridge_risk(setting):
    """The same of the ridge regression with penalty sigma^2 Sigma, where Sigma is the covariance of
    x and sigma^2 the variance of the noise: for Gaussian x and noise the best predictor."""
    covariance, found = np.array(setting.data.get("covariance", np.eye(5))), []
    penalty = setting.data.get("noise", 0) ** 2 * covariance
    for k in range(20):
        prompts = evaluation_prompts(setting, k)
        X, y, query = prompts.Z[:, :-1, :-1], prompts.Z[:, -1:, :-1], prompts.Z[:, :-1, -1]
        w = np.linalg.solve(X @ X.mT + penalty, X @ y.mT)[..., 0]
        error = (w * query).sum(axis=1) - prompts.target
        found.append(np.mean(error**2) / np.mean(prompts.target**2))
    return np.median(found)


def draw_messy_data(figure, arrays, found):
    """Two maps of "risk" (optimizers, kinds, remedies, seeds): Adam's, and SGD's over Adam's."""
    risk = np.maximum(np.median(arrays["risk"], axis=-1), 1e-4)
    over = np.median(ratio(arrays["risk"][0], arrays["risk"][1]), axis=-1)
    for ax, values, title in zip(figure.subplots(1, 2), (risk[1], over),
                                 ("risk of Adam, as a share of E target$^2$", "risk SGD / Adam")):
        heat(ax, np.where(values > 1000, np.inf, values), list(arrays["kinds"]),
             [str(each).replace(", ", ",\n") for each in arrays["remedies"]], title=title)
        ax.tick_params(axis="x", labelsize="small")
    words = []
    for kind in arrays["kinds"][-2:]:
        adam = {str(each): found[f"{kind} {each} Adam"] for each in arrays["remedies"]}
        best = min(adam, key=lambda each: adam[each].median)
        words.append(f"{kind} {adam['none']}, {adam[best]} ({best})")
    return (f"Adam's risk without a remedy and with the best one: {'; '.join(words)}",
            "Squared error on clean targets over their mean square, median over seeds, typical "
            "batch; 1 is that of predicting 0; below 10$^{-4}$ drawn as 10$^{-4}$; X: the "
            "median diverged or is above 1,000. SGD and Adam each at the best of four rates.")


messy_data.full = dict(steps=200, kinds=tuple(MESSY), remedies=REMEDIES)


@experiment()
def what_it_learns(seeds=3, steps=150, optimizers=(Adam,), lr=None, starts=8):
    """Question: What is in the weights: is a trained layer a step of gradient descent?

    Adam in Setting 1, L = 1 to 4, seeds from 0 on. Measured: the final loss beside that of L steps
    of gradient descent, with one step size and with one for each layer (the best ones; for
    isotropic x a preconditioner adds nothing else), and with P_l = g_l I, which changes the x
    between the steps, too (least squares has loss 0); the share of Q_l (in the figure P_l's, too)
    off the multiples of the identity. At L = 4 the trained layers end far above the best multiples
    of the identity: whether the steps are too few or the constant rate too large is tried with five
    times the steps, and with a rate that falls to 0 over them.

    One layer has a closed form whatever x is, if it is isotropic. With E|x|^2 = m and E|x|^4 = m4,
    T = E tr S^2 = m4 / n + (1 - 1/n) m^2 / d gives the best Q = -c I, c = m / T, of loss
    m (1 - m^2 / (d T)) (for Gaussian x: c = n / (n + d + 1)). Measured, L = 1, n = 20 (and others
    for Gaussian x): learnt over best c, and final over least loss (means over the last tenth of the
    steps, for the closed form is a mean).
    """
    deep = {f"L = {L}": SETTING_1._replace(name=f"L = {L}", layers=L) for L in (1, 2, 3, 4)}
    least = iter(parallel(descent, [(setting, kind, starts) for setting in deep.values()
                                    for kind in DESCENTS]))
    least = {name: {kind: float(next(least)["loss"]) for kind in DESCENTS} for name in deep}
    arrays, parts, ends = {"depths": (1, 2, 3, 4), "optimizers": [optimizers[0].__name__]}, [], []
    for name, setting in deep.items():
        adam = contestants(setting, optimizers, lr)
        runs = parallel(train, [(setting, adam, seed, steps, 10) for seed in seeds])
        final = final_loss(np.array([run["loss"][0] for run in runs]))  # (seeds,)
        before = np.array([run["snapshots"][0, :, 0] for run in runs])
        off_Q = np.array([off_identity(each[-1, :, 1]).mean() for each in before])
        parts += [Part(f"{name} loss", f"{name}: final loss", final)]
        parts += [Part(f"{name} {kind}", f"{name}: final loss / that of {DESCENTS[kind]}",
                       final / loss) for kind, loss in least[name].items()]
        parts.append(Part(f"{name} off", f"{name}: share of Q off the identity", off_Q))
        ends.append(final)
        if name == "L = 3":  # before: (seeds, points, layers, 2, d, d)
            paths = {"Q, last layer": (-1, 1), "Q, first layer": (0, 1), "P, first layer": (0, 0)}
            arrays |= {"weights": before[0, -1].reshape(6, 5, 5), "paths": list(paths),
                       "iteration": 10 * np.arange(before.shape[1]), "off": np.stack(
                           [off_identity(before[:, :, l, i]) for l, i in paths.values()], axis=1)}
    longer = {"five times the steps": deep["L = 4"],
              "five times the steps, falling rate": deep["L = 4"]._replace(schedule="linear")}
    for words, setting in longer.items():
        adam = contestants(setting, optimizers, lr)
        runs = parallel(train, [(setting, adam, seed, 5 * steps) for seed in seeds])
        final = final_loss(np.array([run["loss"][0] for run in runs]))
        parts.append(Part(words, f"L = 4, {words}: final loss / that of {DESCENTS['P = g I']}",
                          final / least["L = 4"]["P = g I"]))
        arrays[f"L = 4, {words}"] = final
    one, layer = one_layer(seeds, steps, optimizers, lr)
    return arrays | one | {"final": np.array(ends).T[:, None]} | {  # (seeds, 1, depths)
        f"least {kind}": [least[name][kind] for name in deep] for kind in DESCENTS}, parts + layer


DESCENTS = {"one size": "L steps, one size", "L sizes": "L steps, L sizes",
            "P = g I": "L sizes, P = g I"}


def off_identity(weights):
    """Share of each matrix (..., d, d) in norm that is not a multiple of the identity."""
    mean = np.trace(weights, axis1=-2, axis2=-1) / weights.shape[-1]
    rest = weights - mean[..., None, None] * np.eye(weights.shape[-1])
    with np.errstate(all="ignore"):  # a run that diverged
        return np.linalg.norm(rest, axis=(-2, -1)) / np.linalg.norm(weights, axis=(-2, -1))


@cached
def descent(setting, kind, starts=8):
    """The least loss of layers that are multiples of the identity, P_l = g_l I and Q_l = c_l I.

    kind "one size": L steps of gradient descent, all of one size (one c for all layers, g = 0);
    "L sizes": a c for each layer; "P = g I": a g for each, too (except for the last P, which has
    no gradient). Newton's method from so many starts on one evaluation batch. Returns the multiples
    (layers, 2) of the best one, its slope, the norm of its gradient, least, its loss there, and
    loss, the median of its losses on twenty other batches.
    """
    L, fitted = setting.layers, evaluation_batch(setting, 100)
    unit = np.eye(2 * L)  # of the numbers (g_1, c_1, g_2, c_2, ...)
    g, c = unit[:, 0::2], unit[:, 1::2]
    free = {"one size": c.sum(axis=1, keepdims=True), "L sizes": c,
            "P = g I": np.hstack([g[:, :-1], c])}[kind]  # columns: the directions that may change

    def matrices(point):
        return (free @ point).reshape(L, 2, 1, 1) * np.eye(setting.data["d"])

    def along_free(array):  # of derivatives with respect to all entries
        return free.T @ np.trace(array, axis1=2, axis2=3).ravel()

    def loss_and_slope(point):
        loss, grad = linattn.loss_and_grad(matrices(point), fitted)
        return loss, along_free(grad)

    def hessian(point):
        return np.array([along_free(linattn.hessian_vector_product(
            matrices(point), matrices(e), fitted)) for e in np.eye(len(point))])

    def start(rng):
        """Sizes c that grow from layer to layer, from 0.1 to 10, and g that fall, from 1 to 0.3."""
        falling, growing = -np.sort(-rng.uniform(0.3, 1, L)), np.sort(10 ** rng.uniform(-1, 1, L))
        point = np.stack([falling, -growing], axis=1).ravel()  # Q_l = c_l I with c_l = -size
        return free.T @ point / (free**2).sum(axis=0)

    ends = [newton(loss_and_slope, hessian, start(generator(k))) for k in range(starts)]
    best = min(ends, key=lambda point: loss_and_slope(point)[0])
    least, slope = loss_and_slope(best)
    loss = np.median([linattn.loss_and_grad(matrices(best), evaluation_batch(setting, k))[0]
                      for k in range(20)])
    return dict(multiples=(free @ best).reshape(L, 2), slope=np.linalg.norm(slope), least=least,
                loss=loss)


def newton(loss_and_slope, hessian, point, steps=100):
    """A minimum near the point: Newton's method in the eigenvectors of the Hessian, with absolute
    eigenvalues (so that it leaves saddles) plus a damping that grows until the loss falls."""
    damping = 1.0
    for _ in range(steps):
        loss, slope = loss_and_slope(point)
        if np.linalg.norm(slope) < 1e-9 * loss:
            return point
        values, vectors = np.linalg.eigh(hessian(point))
        while damping < 1e12:
            step = vectors @ (vectors.T @ slope / (np.abs(values) + damping))
            if loss_and_slope(point - step)[0] < loss:
                break
            damping *= 4
        else:  # no step is short enough: the rounding error is reached
            return point
        point, damping = point - step, damping / 8
    return point


def one_layer(seeds, steps, optimizers, lr):
    """Arrays and parts of `what_it_learns`: one layer beside its closed form."""
    cases = {f"gaussian x, n = {n}": ("gaussian", n) for n in (5, 10, 20, 40, 80)} | {
        f"{family} x, n = 20": (family, 20) for family in MOMENTS if family != "gaussian"}
    arrays, parts = {"cases": list(cases)}, []
    for name, (family, n) in cases.items():
        setting = SETTING_1._replace(name=name, layers=1, data=dict(n=n, d=5, covariates=family))
        adam = contestants(setting, optimizers, lr)
        runs = parallel(train, [(setting, adam, seed, steps, 10) for seed in seeds])
        best_c, least_loss = closed_form(*MOMENTS[family], n, 5)
        Q = np.array([run["snapshots"][0, :, 0, 0, 1] for run in runs])  # (seeds, points, d, d)
        c = -last_tenth(np.trace(Q, axis1=2, axis2=3) / 5).mean(axis=-1)  # (seeds,)
        end = last_tenth(np.array([run["loss"][0] for run in runs])).mean(axis=-1)
        parts += [Part(f"{name} c", f"{name}: learnt / best c", c / best_c),
                  Part(f"{name} loss", f"{name}: mean final loss / least loss {least_loss:.3g}",
                       end / least_loss)]
        arrays[f"{name} c"] = c / best_c
    return arrays, parts


def last_tenth(series):
    return series[..., -max(1, series.shape[-1] // 10) :]


MOMENTS = {  # E|x|^2 and E|x|^4 of each family of data.py at its default parameters, d = 5
    "gaussian": (5, 35), "sphere": (1, 1), "gamma": (1, 11), "student": (25 / 3, 875 / 3)}


def closed_form(m, m4, n, d):
    """The best step size c of one layer, and its loss."""
    T = m4 / n + (1 - 1 / n) * m**2 / d
    return m / T, m * (1 - m**2 / (d * T))


def draw_what_it_learns(figure, arrays, found):
    """"weights" (matrices, d, d); "off" (seeds, matrices, points); "final" (seeds, 1, depths),
    "least KIND" (depths,), and "L = 4, ..." of longer runs (seeds,); of one layer "CASE c"
    (seeds,), over the best one."""
    panels = figure.subplot_mosaic([["P", "shares", "depths"], ["Q", "sizes", "depths"]],
                                   width_ratios=(1.1, 1, 1.4))
    shares, sizes, depths = (panels[name] for name in ("shares", "sizes", "depths"))
    dots(sizes, [str(name).removeprefix("gaussian x, ").removesuffix(" x, n = 20")
                 for name in arrays["cases"]], [arrays[f"{name} c"] for name in arrays["cases"]],
         title="L = 1: learnt / best step size", ylabel="ratio")
    sizes.tick_params(axis="x", labelsize="small", rotation=60)
    reference(sizes, 1)
    for which, (letter, ax) in enumerate((("P", panels["P"]), ("Q", panels["Q"]))):
        tiles = np.full((5, 17), np.nan)
        for layer in range(3):
            tiles[:, 6 * layer : 6 * layer + 5] = arrays["weights"][2 * layer + which]
        largest = np.abs(tiles).max(where=np.isfinite(tiles), initial=0) or 1  # 0: it diverged
        drawn = ax.imshow(tiles, cmap="PuOr", vmin=-largest, vmax=largest, aspect="auto")
        ax.set_xticks((2, 8, 14), ("layer 1", "layer 2", "layer 3"))
        ax.set_yticks([])
        ax.set(title=f"{letter}, L = 3")
        ax.grid(False)
        figure.colorbar(drawn, ax=ax)
    panels["P"].set_xticks((2, 8, 14), ("layer 1", "layer 2", "untrained"))
    curves(shares, arrays["iteration"], arrays["off"], arrays["paths"], xlabel="iteration",
           title="share off the identity", ylabel="share of |W|")
    curves(depths, arrays["depths"], arrays["final"], arrays["optimizers"], path=False,
           yscale="log", title="final loss", xlabel="layers L", ylabel="loss",
           xticks=arrays["depths"])
    for i, (kind, words) in enumerate(DESCENTS.items()):
        depths.plot(arrays["depths"], arrays[f"least {kind}"], label=words,
                    **plotting.look(words, i))
    for words, marker in (("five times the steps", "o"),
                          ("five times the steps, falling rate", "*")):
        ends = arrays[f"L = 4, {words}"]  # (seeds,)
        depths.plot(np.full(len(ends), 4), ends, marker, color="#0072B2", ms=10, label=words)
    depths.legend(fontsize="small")
    return (f"Setting 1: Adam's loss over that of the best multiples of the identity: "
            f"{found['L = 2 P = g I']} (L = 2), {found['L = 4 P = g I']} (L = 4)",
            "Weights: one seed; the last P is not trained. Line: median over seeds, band: smallest "
            "to largest. Final loss: of Adam, and of the best steps of gradient descent, by "
            "Newton's method: of one size, of L sizes, and with P = g I in each layer. L = 1: a "
            "dot for each seed, bar: median; Gaussian x with n pairs, or n = 20 of another family.")


what_it_learns.full = dict(seeds=6, steps=2000)
