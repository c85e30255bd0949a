"""Questions beyond the paper: `python experiments.py granularity`, and so on.

Nothing is claimed here: each function measures what its question asks for, and one beside it draws.
Rates are chosen by `best_rates` on the seeds 0 to 3, and runs compared on others, from 1000 on
(FRESH), unless the docstring says otherwise. Words, axes and `NAME.full` as in experiments.py; an
experiment that has `rows` is measured and kept row by row. What only one question measures stands
beside it.
"""

from typing import NamedTuple

import numpy as np

import linattn
import plotting
import polynomial as poly
from data import (DEEP, NONLINEAR_TASK, SETTING_1, SETTING_2, SETTING_3, SPHERICAL, Prompts,
                  Setting, sample_prompts)
from optimizers import SGD, Adam, Muon, NormalizedSGD, SignDescent, clip_global_norm
from plotting import curves, dots, heat, note, reference
from runs import cached
from training import (FRESH, PILOTS, at_best_rates, at_rates, best_in_words, best_rates, by_name,
                      contestants, evaluation_batch, evaluation_prompts, every_of, experiment,
                      final, final_loss, generator, good_rates, initial, late_loss, loss_at,
                      loss_of_0, noise_norms, points_of, ratio, require, smoothness, spread,
                      stacked, steps_to, streams, taken, taken_in_words, train, values_along,
                      without_start)
from verdicts import Part, in_words, interval, short

BOTH = (SGD, Adam)
BOTH_NAMES = "SGD", "Adam"


class FixedLayerRates(SGD):
    """SGD whose rate is multiplied, for layer l, by factors[l]."""

    def __init__(self, lr, factors):
        super().__init__(lr)
        self.factors = factors

    def direction(self, v):
        return np.reshape(self.factors, (-1, 1, 1, 1)) * v


class Condition(NamedTuple):
    """A line of CONDITIONS: what differs from Setting 1."""

    group: str
    setting: Setting
    sgd: tuple = (SGD, {})  # (class, arguments), as of `best_rates`: what is compared
    adam: tuple = (Adam, {})
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
    d = setting.data["d"]
    along_axes = np.geomspace(1, largest, d) / np.geomspace(1, largest, d).mean()
    R = np.linalg.qr(generator(2310).standard_normal((d, d)))[0] if rotated else np.eye(d)
    covariance = R * along_axes @ R.T
    return setting._replace(data=setting.data | dict(
        covariance=tuple(map(tuple, covariance.tolist()))))


def steps_to_a_millionth(setting, loss, snapshots, length, every):
    """After which share of the first `length` steps the loss (steps,) is a millionth of its
    first."""
    return steps_to(1e-6 * loss[0], loss[:length]) / length


SCALE = dict(second_moment=5.0)  # E|x|^2 of Setting 1, so that only the tails differ
LONG = (1 / 4, 1, 4)
THEORY = (0.34, 0.40, 7.5)  # the layers' factors in Setting 1, as `polynomial` finds them
CONDITIONS = {
    "Setting 1, published rates": Condition("setting 1", SETTING_1, constant=LONG, falling=(),
                                            tuned=False),
    "Setting 1": Condition("setting 1", SETTING_1, constant=LONG, falling=(1, 4)),
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
    "no clipping": Condition("optimizer", other(clip=np.inf)),
    "SGD without momentum": Condition("optimizer", SETTING_1, (SGD, dict(momentum=0.0))),
    "SGD with momentum 0.97": Condition("optimizer", SETTING_1, (SGD, dict(momentum=0.97))),
    "SGD, a rate for each layer": Condition(
        "optimizer", SETTING_1, (FixedLayerRates, dict(factors=THEORY))),
    "Adam with beta2 = 0.999": Condition("optimizer", SETTING_1, adam=(Adam, dict(beta2=0.999))),
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
def lead(seeds=6, steps=20, conditions=("Setting 1", "heavy-tailed x", "L = 2")):
    """Question: How large is Adam's lead over SGD, and what changes it?

    A line of CONDITIONS says what differs from Setting 1. SGD (in one line with a rate for each
    layer) and Adam are compared on fresh seeds, at the lengths and schedules of the line, each at
    its best rate for that length (`best_rates`; one line keeps the published rates). Measured:

    ratio    SGD's final loss over Adam's. One is lower if the interval lies beside 1; "alike" if it
             lies within 0.8 and 1.25. On other batches the final losses are those on fresh prompts.
             Without attention the loss reaches 0, and rounding is what is left: compared are the
             shares of the steps to a millionth of the first loss
    share    of the longest constant run: after which part of its steps the better optimizer first
             reaches the other's final loss (unless that is one on fresh prompts)
    state    then: hardly fell (neither has fallen by a fifth since the length before), or still
             falling (the median over the last eighth is below 0.9 of that over the eighth before),
             else settled
    half     at the rates for `steps`: SGD's steps over Adam's to half the loss of predicting 0
    v^T H v  at these rates, SGD's over Adam's: typical of three batches, the median over the path
             without its first tenth
    noise    at the start, on fresh batches: the 99 % over the 50 % quantile of the noise norm, over
             that of Gaussian vectors
    """
    require(steps > 1, "steps", steps, "2 or more, for a quarter of them is measured, too")
    arrays, parts = {}, []
    for name in conditions:
        more_arrays, more_parts = one_condition(name, CONDITIONS[name], seeds, steps)
        arrays, parts = arrays | more_arrays, parts + more_parts
    return arrays, parts


def one_condition(name, condition, seeds, steps):
    """Arrays and parts of a line."""
    both = {"SGD": condition.sgd, "Adam": condition.adam}
    arrays, parts = {}, []
    for kind, shares in (("constant", condition.constant), ("falling", condition.falling)):
        setting = condition.setting if kind == "constant" else condition.setting._replace(
            schedule="linear")
        lengths = sorted({max(1, int(share * steps)) for share in shares})
        if condition.tuned:
            chosen, scores = best_rates(setting, both, lengths, condition.end)
        else:
            chosen = dict.fromkeys(lengths, contestants(setting))
        runs = at_rates(setting, chosen, seeds, condition.end)
        for length in lengths:
            sgd, adam = runs[length]["ends"].T  # (seeds,) each
            key, label = f"{name} {kind} {length}", f"{name}, {kind} rate, {length:,} steps"
            over = ratio(sgd, adam)
            words = [taken_in_words(each) for each in scores[length].values()] if condition.tuned \
                else [f"{setting.lr[each]:g}" for each in both]
            lost = np.isinf(runs[length]["ends"]).sum(axis=0)
            parts += [Part(key, f"{label}: SGD / Adam", over),
                      Part(f"{key} lower", label, lower(over)),
                      Part(f"{key} SGD", f"{label}: SGD", sgd),
                      Part(f"{key} Adam", f"{label}: Adam", adam),
                      Part(f"{key} rates", f"{label}: rates", ", ".join(
                          f"{each} {rate}{f' ({n} lost)' if n else ''}"
                          for each, rate, n in zip(both, words, lost)))]
        arrays[f"{name} {kind}"] = lengths
        if kind == "constant":
            *_, before, last = lengths
            if condition.end is not steps_to_a_millionth:
                parts += after_the_longest(name, last, runs[last], runs[before]["ends"],
                                           condition.end is final)
            parts += at_these_rates(name, setting, chosen[steps], seeds, steps,
                                    runs[steps]["loss"])
    return arrays, parts


def after_the_longest(name, length, run, before, of_training):
    """Parts of the longest run, and of the ends `before`, of the length before it; `of_training`:
    the ends are losses of training, which the path can be compared with."""
    loss, ends = run["loss"], run["ends"]
    share = [steps_to(max(both), path[np.argmin(both)]) / length for both, path in zip(ends, loss)]
    eighth = max(1, length // 8)
    late, earlier = (np.median(loss[..., part], axis=(0, 2)) for part in (
        slice(-eighth, None), slice(-2 * eighth, -eighth)))  # (2,) each
    with np.errstate(all="ignore"):
        words = {"hardly fell": (np.median(ends / before, axis=0) > 0.8).all(),
                 "still falling": (late < 0.9 * earlier).any()}
    parts = [Part(f"{name} share", f"{name}, {length:,} steps: share after which the better one is "
                  "where the other ends", share)] if of_training else []
    return parts + [Part(f"{name} state", f"{name}, {length:,} steps", ", ".join(
        word for word, so in words.items() if so) or "settled")]


def at_these_rates(name, setting, both, seeds, length, loss):
    """Parts at the rates of one length, of which the losses are (seeds, 2, length)."""
    half, every = steps_to(loss_of_0(setting) / 2, loss), every_of([length])
    points = points_of(length, 10, every)
    height = without_start(np.median(values_along(
        smoothness, setting, both, seeds, length, points, 3, every), axis=-1))  # (seeds, 2)
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


SHOWN = ("Setting 1, published rates", "Setting 1", "n = 5 (Setting 2)", "n = 80",
         "heavy-tailed x", "variances 16-fold", "L = 2", "L = 8", "batch 16", "one fixed batch",
         "no clipping", "SGD, a rate for each layer", "Adam with beta2 = 0.999",
         "all of P and Q trained", "softmax attention", "softmax + MLP")  # sixteen can be read


def draw_lead(figure, arrays, found):
    """A row a condition: of the parts SGD / Adam, left at the lengths "CONDITION constant", right
    at those of "CONDITION falling"."""
    measured = [name for name in CONDITIONS if f"{name} constant" in arrays]
    rows = [name for name in measured if name in SHOWN or len(measured) <= 16]
    runs = {(name, kind): {int(length): found[f"{name} {kind} {length}"]
                           for length in arrays[f"{name} {kind}"]}
            for name in rows for kind in ("constant", "falling")}
    lengths = sorted(set().union(*runs.values()))
    shades = dict(zip(lengths, plotting.shades(len(lengths))))
    both = figure.subplots(1, 2, sharex=True, sharey=True)
    heights, y, group = {}, 1.0, CONDITIONS[rows[0]].group
    for name in rows:
        y -= 1
        if CONDITIONS[name].group != group:
            group = CONDITIONS[name].group
            both[0].text(0.01, y, group.upper(), color="#777777", va="center",
                         transform=both[0].get_yaxis_transform(), fontsize="small", weight="bold",
                         bbox=dict(facecolor="white", edgecolor="none", pad=1))
            y -= 1
        heights[name] = y
        for ax, kind in zip(both, ("constant", "falling")):
            row_of_lead(ax, y, runs[name, kind], shades)
    for ax, title in zip(both, ("at a constant rate", "at a rate that falls to 0")):
        ax.set(xscale="log", ylim=(y - 0.6, 0.6), title=title, xlabel="SGD's final loss / Adam's\n"
               "below 1 SGD ends lower, above 1 Adam")
        ax.grid(False, axis="y")
        ax.axvline(1, color="#000000", lw=1.5, ls=":")
    words = {"Setting 1": "Setting 1, best rates", "no attention": "no attention, by steps"} | {
        name: f"{name}, all of P and Q" for name in heights
        if CONDITIONS[name].setting.full and name not in ("all of P and Q trained", "no attention")}
    for ax in both:
        plotting.row_labels(ax, list(heights.values()), [words.get(each, each) for each in heights])
    legend_of_lead(figure, shades)
    more = len(measured) - len(rows)
    middles = [run[max(run)].median for run in runs.values() if run]
    return (f"In the longest runs SGD ends at {short(min(middles), 2)} to "
            f"{float(short(max(middles), 2)):,g} times Adam's loss, depending on the condition",
            "SGD's final loss over Adam's, median over seeds, each at its best rate for each "
            "length unless the row says published; a row says what differs from Setting 1 "
            "(nonlinear attention: all of P and Q trained, too). Thin line: the interval at the "
            "longest length; hollow: it holds 1, so it is open who ends lower."
            + " Without attention steps are compared, not losses." * ("no attention" in rows)
            + f" {more} further rows are in the table." * (more > 0))


def legend_of_lead(figure, shades):
    """Below the panels: a dot for each length, {steps: colour}, and what is hollow or thin."""
    ax, grey = figure.axes[-1], "#444444"
    for length, colour in shades.items():
        ax.plot([], [], "o", ms=11, color=colour, label=f"{length:,} steps")
    ax.plot([], [], "o", ms=11, mfc="white", mew=2, color=grey, label="open who ends lower")
    ax.plot([], [], color=grey, lw=1.5, label="interval, longest run")
    figure.legend(loc="outside lower center", ncols=len(shades) + 2, columnspacing=1)


def row_of_lead(ax, y, run, shades):
    """The medians of a condition {length: part} at the height y, and the interval of the longest
    run."""
    for length, part in run.items():
        middle, (low, high) = part.median, part.interval
        if np.isinf(middle):
            ax.plot(0.97, y, "X", ms=10, color=shades[length], transform=ax.get_yaxis_transform())
            continue
        if length == max(run):  # of runs that are lost the line ends at the median
            ax.plot([low, high if np.isfinite(high) else middle], [y, y], color=shades[length],
                    lw=1.5)
        ax.plot(middle, y, "o", color=shades[length], mew=2, ms=11,
                mfc="white" if low <= 1 <= high else shades[length])


def table_of_lead(arrays, parts, steps):
    """What was measured, a line a condition, in Markdown: SGD / Adam with its interval at each
    length; after so many steps, what it is times that of Setting 1; the final losses at the longest
    length, the share, the state, and what was measured besides."""
    rows = [name for name in CONDITIONS if f"{name} constant" in arrays]
    ends = {kind: sorted({int(each) for name in rows for each in arrays[f"{name} {kind}"]})
            for kind in ("constant", "falling")}
    heads = [f"{length:,} steps{', rate to 0' if kind == 'falling' else ''}"
             for kind, lengths in ends.items() for length in lengths]
    lines = [["condition", *heads, f"times Setting 1's, {steps:,} steps", "the same, rate to 0",
              "final losses", "share", "state", "steps to half", "v^T H v", "noise"]]
    for name in rows:
        cells = []
        for kind, lengths in ends.items():
            for key in (f"{name} {kind} {length}" for length in lengths):
                words = str(parts.get(f"{key} lower", "")).replace("Adam lower", "").strip(", ")
                over = in_words(parts[key].values) if key in parts else ""
                cells.append(f"{over} {words}".strip())
        for kind in ("constant", "falling"):
            times = changed(parts, name, "Setting 1", f"{kind} {steps}")
            cells.append("" if times is None else in_words(times))
        last = f"{name} constant {arrays[f'{name} constant'][-1]}"
        besides = [str(parts.get(f"{name} {what}", "")) for what in (
            "share", "state", "half", "smoothness", "noise")]
        both = f"{parts[f'{last} SGD']}, {parts[f'{last} Adam']}"
        if CONDITIONS[name].end is steps_to_a_millionth:
            both = f"shares of the steps to a millionth: {both}"
        lines.append([name, *cells, both, *besides])
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def changed(parts, name, than, run):
    """SGD / Adam of one row over that of another, seed by seed (seeds,); `run` as "constant 1000".
    None of a row and itself, if one of them has no such run, or compares no losses."""
    both = [parts[f"{row} {run}"].values for row in (name, than) if f"{row} {run}" in parts
            and CONDITIONS[row].end is not steps_to_a_millionth]
    return ratio(*both) if len(both) == 2 and name != than else None


def tails_and_depth(parts, steps):
    """What depth does to SGD / Adam, and what heavy tails change of it, from four rows with one
    E|x|^2, seed by seed: a sentence for each schedule; "" if a row is missing."""
    sentences = []
    for kind in ("constant", "falling"):
        run = f"{kind} {steps}"
        gaussian = changed(parts, "L = 6", "Setting 1", run)
        heavy = changed(parts, "heavy-tailed x, L = 6", "heavy-tailed x", run)
        if gaussian is None or heavy is None:
            return ""
        sentences.append("From three to six layers SGD / Adam changes {} times with Gaussian x, {} "
                         "times with heavy-tailed x, and the second over the first is {} "
                         "({} rate, {:,} steps).".format(*map(in_words, (
                             gaussian, heavy, ratio(heavy, gaussian))), kind, steps))
    return " ".join(sentences)


def of_data_and_depth(parts, run):
    """The rows that change data or depth, and have such a run, as "constant 1000"."""
    return [name for name, row in CONDITIONS.items() if f"{name} {run}" in parts
            and row.tuned and row.group in ("setting 1", "data", "depth")]


def where_the_lead_is_large(parts, steps):
    """Whether the lead is larger where less loss is left, over the rows of other data or depth, in
    a sentence: Kendall's tau of medians. "" of fewer than three rows. The loss is SGD's: if the
    two losses had nothing to do with each other, SGD / Adam would rise with SGD's and fall with
    Adam's, so that only a negative tau with SGD's says something."""
    rows = len(of_data_and_depth(parts, f"falling {steps}"))
    if rows < 3:
        return ""
    constant, falling = (tau_of_lead(parts, f"{kind} {steps}") for kind in ("constant", "falling"))
    return (f"Over the {rows} rows of Setting 1 and of other data or depth Kendall's tau of SGD / "
            f"Adam and SGD's final loss is {constant:.2f} at a constant rate and {falling:.2f} at "
            f"a falling one ({steps:,} steps).")


def tau_of_lead(parts, run):
    """Kendall's tau of the medians of SGD / Adam and of SGD's final loss over these rows."""
    return kendall_tau(*(np.array([parts[f"{name} {run}{words}"].median for name in
                                   of_data_and_depth(parts, run)]) for words in ("", " SGD")))


def scatter_of_lead(steps, figure, arrays, found):
    """A point for each row of other data or depth: SGD / Adam, with its interval, against SGD's
    final loss, at a rate that falls to 0 over so many steps."""
    ax, run = figure.subplots(), f"falling {steps}"
    for name in of_data_and_depth(found, run):
        over, sgd = found[f"{name} {run}"], found[f"{name} {run} SGD"].median
        color = "#882255" if CONDITIONS[name].group == "depth" else "#444444"
        if np.isfinite(over.interval).all():  # with less than six seeds there is none
            ax.plot([sgd, sgd], over.interval, color=color, lw=1.5, zorder=4)  # above the names
        ax.plot(sgd, over.median, "o", ms=11, color=color, zorder=4)
        ax.annotate(name, (sgd, over.median), (6, 0), textcoords="offset points", va="center",
                    gid="end", color=color, fontsize="small",
                    bbox=dict(facecolor="white", edgecolor="none", pad=0),
                    arrowprops=dict(arrowstyle="-", lw=0.8, color=color, relpos=(0, 0.5)))
    reference(ax, 1)
    ax.set(xscale="log", yscale="log", xlabel=f"SGD's final loss, rate to 0 over {steps:,} steps",
           ylabel="SGD's final loss / Adam's")
    ax.set(xlim=(ax.get_xlim()[0], 10 * ax.get_xlim()[1]), ylim=(0.15, None))  # for the names
    return ("Where is Adam's lead large? Kendall's tau of SGD / Adam and SGD's final loss: "
            f"{tau_of_lead(found, run):.2f}",
            "Each row of `lead` that changes data (grey) or depth (purple); line: interval.")


lead.full = dict(seeds=10, steps=1000, conditions=tuple(CONDITIONS))
lead.rows = "conditions"  # measured and kept one by one


@experiment()
def the_model(seeds=6, draws=1000):
    """Question: What does the model see, and how heavy are the tails of x?

    Nothing is trained. Drawn is a prompt of Setting 1 as the matrix Z, and what a layer does with
    it. Measured, for x on the sphere, Gaussian x and Setting 3's, over a hundred times as many
    draws, for each seed: the 99.9 % quantile of |x|^2 over its mean. And of the gradient g of one
    prompt at P = Q = 0, which is 2 <w, x_q> S w x_q^T in every layer's Q and 0 in P: E|g|^4 over
    the square of E|g|^2. Of g less its mean, averaged over B prompts, it is this over B plus what
    Gaussian vectors have, about 1: with B far above it the batch's noise is Gaussian.
    """
    families = {"sphere": SPHERICAL, "Gaussian": SETTING_1, "Setting 3": SETTING_3}
    parts = []
    for name, setting in families.items():
        data = setting.data | dict(n=100, second_moment=1.0)
        x = [sample_prompts(generator([2310, seed]), draws, **data).Z[:, :-1, :-1]
             for seed in seeds]  # (draws, d, n) each
        squares = np.square(x).sum(axis=2).reshape(len(seeds), -1)  # (seeds, 100 * draws)
        parts.append(Part(name, f"{name}: 99.9 % quantile of |x|^2 over its mean",
                          np.quantile(squares, 0.999, axis=1)))
        g = [gradient_at_0(generator([2310, seed]), 100 * draws, setting) for seed in seeds]
        parts.append(Part(f"{name} one prompt", f"{name}: gradient of one prompt at P = Q = 0, "
                          "E|g|^4 / (E|g|^2)^2",
                          [np.mean(each**4) / np.mean(each**2) ** 2 for each in g]))
    prompt = sample_prompts(generator(2310), 1, **SETTING_1.data).Z[0]  # (d+1, n+1)
    return {"prompt": prompt}, parts


def gradient_at_0(rng, count, setting):
    """Norms |2 <w, x_q> S w x_q^T| of so many prompts, at P = Q = 0."""
    Z, target = sample_prompts(rng, count, **setting.data)
    x, y, query = Z[:, :-1, :-1], Z[:, -1, :-1], Z[:, :-1, -1]
    b = np.einsum("bin,bn->bi", x, y) / x.shape[2]  # S w
    return 2 * np.abs(target) * np.linalg.norm(b, axis=1) * np.linalg.norm(query, axis=1)


def draw_the_model(figure, arrays, found):
    """"prompt" (d+1, n+1), and the layer in boxes."""
    matrix, layer = figure.subplots(1, 2, width_ratios=(1.2, 1))
    prompt, n = arrays["prompt"], arrays["prompt"].shape[1] - 1
    largest = np.abs(prompt).max()
    drawn = matrix.imshow(prompt, cmap="PRGn", vmin=-largest, vmax=largest, aspect="auto")
    matrix.text(n, len(prompt) - 1, "?", ha="center", va="center", weight="bold")
    matrix.set_yticks(range(len(prompt)), [*(f"$x_{i}$" for i in range(1, len(prompt))), "y"])
    matrix.set_xticks((0, n - 1, n), ("pair 1", f"{n}   ", "   query"))
    matrix.set(title="a prompt Z: a pair (x, y) a column")
    matrix.grid(False)
    figure.colorbar(drawn, ax=matrix, orientation="horizontal", shrink=0.6)
    layer.axis("off")
    layer.set(title="the model: L layers, P and Q trained", xlim=(0, 1), ylim=(0, 1))
    layer.fill_between((0, 1), 0.22, 0.86, color="#F0F0F0")
    layer.text(0.97, 0.82, "L times", ha="right", va="center", style="italic")
    boxes = {"Z": (0.5, 0.95), "scores\n$Z^T Q Z$": (0.4, 0.67),
             "values $P Z M$\n(M: no query)": (0.77, 0.67),
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
    return (f"The task: from {n} pairs (x, y = <w, x>), w new in every prompt, guess one more y",
            "Left: a prompt of Setting 1; the query's y is 0 in Z. Right: a layer adds to Z the "
            "values, weighted by the scores; after L of them "
            "the query's last entry is minus the prediction. |x|$^2$ varies, at the same mean: its "
            f"99.9 % quantile over the mean is {found['Gaussian']} for Gaussian x and "
            f"{found['Setting 3']} for Setting 3's.")


@experiment(FRESH)
def granularity(seeds=6, steps=30, settings=("Setting 1",)):
    """Question: How finely must a step be scaled to do what Adam does?

    SGD scales nothing, Adam every coordinate. Between the two: the momentum over its root mean
    square, taken over all parameters, a layer, a block (a matrix P_l or Q_l), a row, a coordinate
    (sign descent); and its polar factor, block by block (Muon). Layer rates are a control that
    normalises nothing: SGD with a factor for each layer that stays the same for the whole run, one
    over the layer's gradient norm, in the median over the pilot seeds. The norm is read at one of
    the steps READ of SGD's own run at its best rate, which says how early the factors can be known;
    or it is the median over the runs of "a layer". Every optimizer at its best rate (`best_rates`).

    Of isotropic x no coordinate differs from another: a scale for each has nothing to mend; with
    unequal variances along the axes it has, after a rotation it has not. Measured: the final loss
    of each over Adam's; and where SGD / Adam is decided, the share of the log gap from SGD to Adam
    that it closes, seed by seed: log(SGD / it) over log(SGD / Adam). Adam differs in more than how
    finely it scales: its steps get shorter where gradients change sign. Why blocks may matter: the
    Hessian's spectra at initialisation, block by block (Zhang et al. 2024, arXiv 2402.16788), on
    one evaluation batch, without the last layer, whose P has no gradient; of linear attention.
    """
    arrays, parts = {}, []
    for name in settings:
        setting = SETTINGS[name]
        run, chosen, scores = at_best_rates(setting, SCALINGS, steps, seeds)
        fixed = layer_rates(setting, dict(zip(SCALINGS, chosen)), steps)
        run_fixed, _, scores_fixed = at_best_rates(setting, fixed, steps, seeds)
        ends = dict(zip([*SCALINGS, *fixed], np.hstack([run["ends"], run_fixed["ends"]]).T))
        parts += beside_adam(ends, f"{name} ", f"{name}: ")
        if setting.activation == "linear":
            spectra = stacked(block_spectra, [(setting, seed) for seed in seeds])["values"]
            P, Q = (np.median(spectra[:, which:-2:2], axis=(1, 2)) for which in (0, 1))  # (seeds,)
            parts.append(Part(f"{name} spectra", f"{name}, Hessian's blocks at the start: median "
                              "|eigenvalue| of Q over that of P", Q / P))
        parts.append(Part(f"{name} rates", f"{name}: best rates",
                          best_in_words(scores | scores_fixed)))
        parts += [Part(f"{name} factors {each}", f"{name}: factors, {each}", " : ".join(
            f"{factor:.2g}" for factor in arguments["factors"]))
            for each, (_, arguments) in fixed.items()]
        arrays |= {f"{name} ends": np.array(list(ends.values())), "scalings": list(ends)}
    return arrays, parts


def beside_adam(ends, key="", label=""):
    """Parts of final losses {name: (seeds,)}: each one; over Adam's; and, where SGD / Adam is
    decided, the share of the log gap from SGD to Adam that it closes, seed by seed."""
    gap, parts = ratio(ends["SGD"], ends["Adam"]), []
    _, low, high = interval(gap)
    for each, values in ends.items():
        parts.append(Part(f"{key}loss {each}", f"{label}final loss {each}", values))
        if each != "Adam":
            parts.append(Part(f"{key}{each}", f"{label}final loss {each} / Adam",
                              ratio(values, ends["Adam"])))
        if each not in BOTH_NAMES and (low > 1 or high < 1):
            parts.append(Part(f"{key}share {each}", f"{label}share of the log gap that {each} "
                              "closes", np.log(ratio(ends["SGD"], values)) / np.log(gap)))
    return parts


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
SETTINGS = {name: row.setting for name, row in CONDITIONS.items()} | {
    "Setting 1, falling rate": SETTING_1._replace(schedule="linear"), "L = 4": other(layers=4)}
GRANULAR = ("Setting 1", "Setting 1, falling rate", "variances 16-fold", "L = 6",  # drawn: these
            "variances 16-fold, rotated", "Setting 3", "n = 5 (Setting 2)", "softmax attention")
READ = 0, 10, 50, 200, 500


def layer_rates(setting, chosen, steps):
    """{name: (FixedLayerRates, its factors)} from runs of chosen["SGD"] and chosen["a layer"] on
    the pilot seeds."""
    norms = stacked(train, [(setting, (chosen["SGD"], chosen["a layer"]), seed, steps)
                            for seed in PILOTS])["layer_grad_norm"]  # (seeds, 2, steps, layers)
    typical = {f"layer rates, step {t}": np.median(norms[:, 0, t], axis=0) for t in READ
               if t < steps} | {"layer rates, run": np.median(norms[:, 1], axis=(0, 1))}
    return {name: (FixedLayerRates, dict(factors=layer_factors(1 / norm)))
            for name, norm in typical.items()}


def layer_factors(rates):
    """Rates of the layers (layers,), scaled so that their geometric mean is 1."""
    return tuple((rates / np.exp(np.log(rates).mean())).tolist())


@cached
def block_spectra(setting, seed):
    """Absolute eigenvalues (blocks, size of a block), ascending, of the Hessian's blocks P_1, Q_1,
    P_2, ... at initialisation."""
    start = initial(setting, streams(seed)[0])
    blocks, size = 2 * len(start), start[0, 0].size
    H = linattn.hessian(start, evaluation_batch(setting, 0)).reshape(blocks, size, blocks, size)
    return dict(values=np.sort(np.abs([np.linalg.eigvalsh(H[b, :, b]) for b in range(blocks)])))


SCALED_BY = {"SGD": "nothing: SGD", "one scale": "the whole step", "a layer": "each layer",
             "a block": "each block, P or Q", "a row": "each row", "sign": "each entry: its sign",
             "Muon": "each block: Muon",
             "layer rates, run": "SGD, layer rates of a whole run"} | {
    f"layer rates, step {t}": f"SGD, layer rates of step {t}" for t in READ}


def draw_granularity(figure, arrays, found):
    """"SETTING ends" (scalings, seeds) over Adam's, a column a setting."""
    scalings = [str(each) for each in arrays["scalings"]]
    measured = [name for name in GRANULAR if f"{name} ends" in arrays]
    shown, lost = measured[:4], []  # more would be too narrow
    for ax, name in zip(figure.subplots(1, len(shown), sharex=True, sharey=True, squeeze=False)[0],
                        shown):
        over = arrays[f"{name} ends"] / arrays[f"{name} ends"][scalings.index("Adam")]
        plotting.forest(ax, [SCALED_BY.get(each, each) for each in scalings], over, looks={
            SCALED_BY.get(each, each): look for each, look in plotting.LOOKS.items()},
            xscale="log", xlabel="final loss / Adam's",
            title=name.replace(", ", ",\n") if len(shown) > 1 else "what is normalised")
        ax.set_ylim(top=1)  # for the first row's number
        ax.xaxis.set_major_locator(plotting.matplotlib.ticker.LogLocator(numticks=9))
        plotting.beside(ax, [found[f"{name} {each}"] if each in ("SGD", "a layer") else None
                             for each in scalings])
        lost += [f"{np.isinf(row).sum()} with {name}, {each}" for each, row in zip(scalings, over)
                 if np.isinf(row).any()]
        ax.axhline(0.5 - len(SCALINGS), color="#BBBBBB", lw=1)  # above the fixed layer rates
        ax.axvline(1, ls=":", color="#000000", lw=1.5)
    ordered = sorted(measured, key=lambda name: found[f"{name} a layer"].median)
    least, most = ordered[0], ordered[-1]
    return (f"{least}: SGD ends at {found[f'{least} SGD']} times Adam's loss, and at "
            f"{found[f'{least} a layer']} times once each layer's step is normalised"
            if least == most else
            f"Normalised layer by layer, SGD ends at {found[f'{least} a layer']} times Adam's loss "
            f"with {least}, at {found[f'{most} a layer']} times with {most}",
            "What is normalised, from coarse to fine: the momentum over its root mean square, "
            "taken over all parameters, a layer, a block, a row, or entry by entry; layer rates: "
            "SGD with a constant factor for each layer, read off SGD's gradient norms at one step "
            "of other seeds, or off a whole run of \"a layer\". Every optimizer at its best rate; "
            "a dot for each seed, line: median and interval."
            + f" Runs that diverged: {'; '.join(lost)}." * bool(lost)
            + f" Not drawn: {'; '.join(measured[4:])}." * (len(measured) > 4))


granularity.full = dict(seeds=10, steps=600, settings=GRANULAR)
granularity.rows = "settings"


@experiment(FRESH)
def edge_of_stability(seeds=6, steps=200, batches=1):
    """Question: Is SGD's rate at its limit?

    On a quadratic of curvature H gradient descent with momentum 0.9 diverges where the largest
    eigenvalue of H exceeds 2 (1 + momentum) / lr. That eigenvalue along SGD's path in Setting 1 at
    the rates 0.05, 0.1 and 0.2; on the typical of so many evaluation batches of 1,000 prompts,
    whose spread is largest over smallest. A clipped step is shorter than its rate says, so the
    points are also given without those where this step or one of the 50 before it was clipped. With
    fresh batches a lower rate may already be unstable. Measured: the eigenvalue over the limit, at
    the start and in the median over the path without its first tenth. (If the limit binds at the
    start alone, warm-up should help: that is a row of `lead`.) Besides, at these rates and at
    Adam's published one: the final loss from a start that a factor 1 + 1e-15 changes, about as
    rounding does, over that from the start as it is, the larger over the smaller.
    """
    rates, points = (0.05, 0.1, 0.2), points_of(steps, 20)
    every = (*((SGD, dict(lr=rate)) for rate in rates), (Adam, dict(lr=SETTING_1.lr["Adam"])))
    moved = SETTING_1._replace(std=SETTING_1.std * (1 + 1e-15))
    run, other = (stacked(train, [(setting, every, seed, steps) for seed in seeds])
                  for setting in (SETTING_1, moved))
    t = 50 * np.array(points)
    arrays, parts = {"iteration": t, "names": [f"rate {rate:g}" for rate in rates]}, []
    for i, rate in enumerate(rates):
        found = values_along(sharpness, SETTING_1, every[i : i + 1], seeds, steps, points, batches)
        found, limit = found[:, 0], 2 * (1 + 0.9) / rate  # found (seeds, points, batches)
        typical = np.median(found, axis=-1)  # (seeds, points)
        clipped = run["grad_norm"][:, i] > SETTING_1.clip
        recent = np.array([[steps_of[max(0, at - 50) : at + 1].any() for at in t]
                           for steps_of in clipped])  # (seeds, points)
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
            Part(f"{rate:g} loss", f"rate {rate:g}: final loss", final_loss(run["loss"][:, i]))]
        arrays[f"rate {rate:g}"] = typical / limit
    ends = final_loss(run["loss"]), final_loss(other["loss"])  # (seeds, optimizers)
    apart = ratio(np.maximum(*ends), np.minimum(*ends))
    names = [f"{each.__name__} {arguments['lr']:g}" for each, arguments in every]
    parts += [Part(f"{name} rounding", f"{name}: final losses from a start changed by 1e-15 and "
                   "from the start itself, larger over smaller", values)
              for name, values in zip(names, apart.T)]
    return arrays, parts


def sharpness(_, before, __, prompts):
    """Largest eigenvalue of the Hessian."""
    return np.linalg.eigvalsh(linattn.hessian(before, prompts))[-1]


def draw_edge_of_stability(figure, arrays, found):
    """Of each of "names" the eigenvalue over its limit (seeds, points)."""
    ax, names = figure.subplots(), list(arrays["names"])
    for i, name in enumerate(names):  # a band for the last alone: three would hide each other
        shown = arrays[name] if name == names[-1] else np.median(arrays[name], axis=0)[None]
        curves(ax, arrays["iteration"], shown[:, None], [name], first=i, yscale="log",
               xlabel="iteration", ylabel="largest eigenvalue of the Hessian / its limit")
    reference(ax, 1)
    ax.annotate("above: diverges on a quadratic", (0.98, 1), (0, 6), ha="right",
                xycoords=ax.get_yaxis_transform(), textcoords="offset points")
    note(ax, f"band: all seeds at the {names[-1]}")
    return (f"At the learning rate 0.2 SGD starts at {found['0.2 start']} of its stability limit; "
            f"then the median seed stays far below, at {found['0.2']}",
            "Setting 1. The limit is 2 (1 + momentum) / lr, beyond which gradient descent with "
            "momentum diverges on a quadratic. Line: median over seeds, band: smallest to largest; "
            "typical of the evaluation batches of 1,000 prompts; a band at the highest rate alone.")


edge_of_stability.full = dict(seeds=8, steps=2500, batches=5)


BENCH = "Setting 1", "n = 5 (Setting 2)", "Setting 3"


@experiment(FRESH)
def screen(seeds=6, steps=20, models=BENCH,
           optimizers=(SGD, Adam, SignDescent, NormalizedSGD, Muon)):
    """Question: Which optimizer should I take, and does the bench say so for another model?

    Every optimizer, and the VARIANTS of some, each at its best rate (`best_rates`) on each model, a
    line of CONDITIONS: the bench, Settings 1 to 3, and what is less simple. Measured, seed by seed:
    an optimizer's final loss over the best one's, on the bench the geometric mean over its
    settings; Kendall's tau between the bench and another model; and the regret there, the final
    loss of the bench's first over that of the model's own first. Beside tau its ceiling: the bench
    against itself on other seeds, and against itself after half the steps. Fixed before the run:
    the bench predicts a model if the interval of tau lies above 0.5, does not if it lies below,
    else it is open. Besides, of each optimizer: its rate and the rates within a factor 2 of its
    best loss, largest over smallest; steps until the median of the last 50 losses lies below twice
    the model's lowest final loss; share of steps of the second half whose gradient norm is above
    ten times its median.
    """
    half = max(1, steps // 2)
    candidates = {f"{each.__name__}{words}": (each, arguments) for each in optimizers
                  for words, arguments in VARIANTS.get(each, {"": {}}).items()}
    arrays, besides = {"candidates": list(candidates)}, []
    for model in models:
        setting = CONDITIONS[model].setting
        chosen, scores = best_rates(setting, candidates, sorted({half, steps}))
        runs = at_rates(setting, chosen, seeds)
        for length, word in ((half, "halfway"), (steps, "behind")):
            arrays[f"{model} {word}"] = behind_best(runs[length]["ends"])
        besides += [Part(f"{model} {each}", f"{model}: {each}", screened(
            runs[steps], i, scores[steps][each])) for i, each in enumerate(candidates)]
    arrays, parts = of_bench_and_models(arrays)
    return arrays, parts + besides


def of_bench_and_models(arrays):
    """What `screen` finds over the models that are there: the arrays with "bench behind" and
    "ranked" added, and parts; from "candidates" and of each model "MODEL behind" and "MODEL
    halfway" (seeds, candidates), final losses over the best one's, after all steps and half."""
    candidates = [str(each) for each in arrays["candidates"]]
    models = [model for model in CONDITIONS if f"{model} behind" in arrays]
    bench = [model for model in models if model in BENCH] or models[:1]
    behind, halfway = (  # of a model log ratios
        {model: np.log(arrays[f"{model} {word}"]) for model in models}
        for word in ("behind", "halfway"))
    here, earlier = (np.mean([each[model] for model in bench], axis=0)
                     for each in (behind, halfway))
    typical = dict(zip(candidates, np.exp(np.median(here, axis=0))))
    ranked = sorted(candidates, key=typical.get)
    parts = [Part("rank", "bench, loss over the best one's", "; ".join(
        f"{place} {each} ({typical[each]:.3g})" for place, each in enumerate(ranked, 1)))]
    parts += [Part(f"bench {each}", f"bench: final loss {each} / the best one's", values)
              for each, values in zip(candidates, np.exp(here).T)]
    ceilings = {"half the steps": earlier} | (
        {"other seeds": np.roll(here, 1, axis=0)} if len(here) > 1 else {})
    parts += [Part(f"{words} tau", f"the bench and itself, {words}: Kendall's tau",
                   list(map(kendall_tau, here, there))) for words, there in ceilings.items()]
    for model in [model for model in models if model not in bench]:
        there, tau = behind[model], np.array(list(map(kendall_tau, here, behind[model])))
        first, own = (candidates.index(each) for each in (
            ranked[0], candidates[np.argmin(np.median(there, axis=0))]))
        _, low, high = interval(tau)
        parts += [Part(f"{model} tau", f"the bench and {model}: Kendall's tau", tau),
                  Part(f"{model} predicts", f"the bench predicts {model}",
                       "yes" if low > 0.5 else "no" if high < 0.5 else "open"),
                  Part(f"{model} regret", f"{model}: final loss of {ranked[0]}, first on the bench,"
                       f" over {candidates[own]}'s", np.exp(there[:, first] - there[:, own]))]
    return arrays | {"bench behind": np.exp(here), "ranked": ranked}, parts


VARIANTS = {Adam: {", beta2 = 0.9": dict(beta2=0.9), ", beta2 = 0.99": dict(beta2=0.99),
                   ", beta2 = 0.999": dict(beta2=0.999)},
            NormalizedSGD: {", one scale": {}, ", a block": dict(granularity="block")}}


def behind_best(ends):
    """Final losses (seeds, candidates) over the lowest of their seed: 1 for the best, even if its
    loss is 0; infinite if it diverged."""
    best = ends.min(axis=1, keepdims=True)
    with np.errstate(all="ignore"):
        return np.where(np.isinf(ends), np.inf, np.where(ends == best, 1, ends / best))


def screened(run, i, scores):
    """What there is to say of candidate i on a model, from its run and {rate: score}."""
    low, high = good_rates(scores)
    lowest, steps = np.median(run["ends"], axis=0).min(), run["loss"].shape[-1]
    norm = run["grad_norm"][:, i, steps // 2 :]
    needed = np.median(steps_to(2 * lowest, run["loss"][:, i]))
    spikes = (norm > 10 * np.median(norm, axis=-1, keepdims=True)).mean()
    return (f"rate {taken_in_words(scores)}, loss {np.median(run['ends'][:, i]):.3g}, good range "
            f"{high / low:.3g}, steps to target "
            f"{f'{needed:.0f}' if np.isfinite(needed) else f'> {steps:,}'}, spikes "
            f"{100 * spikes:.1f} %")


def kendall_tau(a, b):
    """Kendall's rank correlation of (k,) and (k,): pairs in the same order minus pairs in the
    opposite one, over all pairs (which counts a tie as neither)."""
    i, j = np.triu_indices(len(a), 1)
    with np.errstate(invalid="ignore"):  # two that diverged
        order = np.sign(a[i] - a[j]) * np.sign(b[i] - b[j])
    return np.mean(order == 1) - np.mean(order == -1)


def draw_screen(figure, arrays, found):
    """A row a candidate, in the order "ranked": "bench behind" and "MODEL behind" (seeds,
    candidates)."""
    names, ranked = ([str(each) for each in arrays[key]] for key in ("candidates", "ranked"))
    models = [model for model in CONDITIONS if f"{model} behind" in arrays]
    of_bench = plotting.listed([model for model in models if model in BENCH] or models[:1])
    order = [names.index(each) for each in ranked]
    bench, ends = figure.subplots(1, 2, sharex=True, sharey=True)
    plotting.forest(bench, ranked, arrays["bench behind"].T[order],
                    title="the bench as a whole")
    looks = list(zip(models, plotting.OTHER_LOOKS))
    for i, (model, look) in enumerate(looks):
        shift = 0.5 * (0.5 - i / max(1, len(looks) - 1))  # from top to bottom
        plotting.forest(ends, ranked, arrays[f"{model} behind"].T[order], look, shift, model)
    ends.set(title="model by model")
    for ax in (bench, ends):
        ax.set(xscale="log", xlabel="final loss / the best one's")
    figure.legend(loc="outside lower center", ncols=len(looks))
    sgd = f"; SGD's loss is {found['bench SGD']} times the best" if "bench SGD" in found else ""
    return (f"Of {len(ranked)} optimizers {ranked[0]} ends lowest{sgd}",
            f"Ranked on the bench ({of_bench}) by the geometric mean of the ratio to the best one, "
            "each at its best rate. A dot for each seed, line: median and interval. Kendall's tau "
            f"of the bench and itself after half the steps: {found['half the steps tau']}.")


screen.full = dict(seeds=6, steps=1000, models=(*BENCH, "softmax attention", "softmax + MLP"))
screen.rows = "models"  # measured and kept one by one
screen.together = of_bench_and_models


@experiment(FRESH)
def gradient_norms(seeds=6, steps=30, optimizers=BOTH):
    """Question: Do gradients explode or vanish in training?

    Setting 1, L = 3 and 8, the norm of the gradient layer by layer, before clipping. Three kinds of
    run: every optimizer at its best rate (`best_rates`); at twice that rate; and, at the best rate,
    from a start four times as large (standard deviation 0.2). Measured: the first layer's norm over
    the last one's at the first step, and as the median over the last tenth of the steps; the
    largest norm of the whole gradient over its median; the share of steps that are clipped.
    """
    depths, candidates = {3: SETTING_1, 8: DEEP[-1]}, by_name(optimizers)
    moments = slice(0, 1), slice(-max(1, steps // 10), None)  # the first step, and the end
    arrays, parts = {"depths": list(depths), "optimizers": list(candidates)}, []
    for L, setting in depths.items():
        name = f"L = {L}"
        run, chosen, scores = at_best_rates(setting, candidates, steps, seeds)
        twice = tuple((each, dict(lr=2 * arguments["lr"])) for each, arguments in chosen)
        large = setting._replace(std=4 * setting.std)
        kinds = {"best rate": run,
                 "twice the rate": at_rates(setting, {steps: twice}, seeds)[steps],
                 "large start": at_rates(large, {steps: chosen}, seeds)[steps]}
        for kind, run in kinds.items():
            norm, whole = run["layer_grad_norm"], run["grad_norm"]  # (seeds, optimizers, steps, L)
            at = np.array([np.median(norm[:, :, part], axis=2) for part in moments])
            if kind == "best rate":  # (moments, optimizers, L), over the last layer's
                arrays[f"{name} {kind}"] = np.median(ratio(at, at[..., -1:]), axis=1)
            for i, each in enumerate(candidates):
                label, key = f"{name}, {kind}, {each}", f"{name} {kind} {each}"
                parts += [
                    Part(f"{key} start", f"{label}: first / last layer's norm, first step",
                         ratio(at[0, :, i, 0], at[0, :, i, -1])),
                    Part(f"{key} end", f"{label}: the same at the end",
                         ratio(at[-1, :, i, 0], at[-1, :, i, -1])),
                    Part(f"{key} largest", f"{label}: largest norm / median",
                         ratio(whole[:, i].max(axis=1), np.median(whole[:, i], axis=1))),
                    Part(f"{key} clipped", f"{label}: share of steps clipped",
                         (whole[:, i] > setting.clip).mean(axis=1)),
                    Part(f"{key} loss", f"{label}: final loss", run["ends"][:, i])]
        parts.append(Part(f"{name} rates", f"{name}: best rates", best_in_words(scores)))
    return arrays, parts


def draw_gradient_norms(figure, arrays, found):
    """A panel a depth: "L = DEPTH best rate" (moments, optimizers, layers), the norms over the last
    layer's, at the end a line for each optimizer, at the first step one for all."""
    names, depths = [str(each) for each in arrays["optimizers"]], [int(L) for L in arrays["depths"]]
    for L, ax in zip(depths, figure.subplots(1, len(depths), sharey=True, squeeze=False)[0]):
        over = arrays[f"L = {L} best rate"]
        ax.plot(1 + np.arange(L), over[0, 0], ":", marker="o", color="#444444", label="first step")
        for i, each in enumerate(names):
            ax.plot(1 + np.arange(L), over[-1, i], **plotting.look(each, i), label=f"{each}, end")
        ax.set(yscale="log", title=f"{L} layers", xlabel="layer", xticks=1 + np.arange(L),
               ylabel="gradient norm of a layer / of the last one")
        note(ax, "first layer over last one, at the end: " + ", ".join(
            f"{each} {found[f'L = {L} best rate {each} end']}" for each in names))
        ax.legend(loc="upper right")
    largest = max((found[f"L = {L} best rate {each} end"] for L in depths for each in names),
                  key=lambda part: np.nan_to_num(part.median))
    return ("Gradients start alike in all layers; in the end the first layer's norm is up to "
            f"{largest} times the last one's",
            "Setting 1, at the best rates, before clipping; medians over seeds, at the first step "
            "and over the last tenth of the steps.")


gradient_norms.full = dict(seeds=6, steps=300)


@experiment(FRESH)
def initialization(seeds=6, steps=5, optimizers=BOTH, depths=(2, 8)):
    """Question: At which initial scale and depth do models train?

    Setting 1 at these depths, entries of standard deviation 0.01 to 0.8, in the paper's blocks and
    in full matrices, every optimizer at its best rate (`best_rates`) in every case. Measured: the
    final loss. An optimizer "trains" if every seed ends below half of the loss of predicting 0,
    which is d, "diverges" if one is lost, and the figure calls lost what every seed is.
    """
    scales, candidates = (0.01, 0.05, 0.2, 0.8), by_name(optimizers)
    arrays, parts, rates = {"scales": scales, "optimizers": list(candidates)}, [], []
    for label, setting in {f"L = {L}, {where}": SETTING_1._replace(layers=L, full=full)
                           for L in depths for where, full in PLACES.items()}.items():
        ends = []  # of a scale (optimizers, seeds)
        for std in scales:
            run, _, scores = at_best_rates(setting._replace(std=std), candidates, steps, seeds)
            ends.append(run["ends"].T)
            rates.append(Part(f"{label} {std} rates", f"{label}, std {std}: best rates",
                              best_in_words(scores)))
        for each, values in zip(candidates, np.stack(ends, axis=1)):  # (scales, seeds)
            good = (values < setting.data["d"] / 2).all(axis=1)
            diverged = np.isinf(values).any(axis=1)
            words = [f"{word} at std {', '.join(f'{std:g}' for std in np.array(scales)[so])}"
                     for word, so in (("trains", good), ("diverges", diverged)) if so.any()]
            parts.append(Part(f"{label} {each}", f"{label}: {each}",
                              "; ".join(words) or "trains nowhere"))
            arrays[f"{label} {each}"] = values
    return arrays, parts + rates


PLACES = {"blocks": False, "full matrices": True}


def draw_initialization(figure, arrays, found):
    """Maps of depth and scale: "DEPTH, WHERE OPTIMIZER" (scales, seeds)."""
    names = arrays["optimizers"]
    depths = list(dict.fromkeys(key.split(",")[0] for key in arrays if ", blocks " in key))
    words = {"blocks": "the paper's blocks trained", "full matrices": "all of P and Q trained"}
    maps = {f"final loss, {each}, {words[where]}": np.median(
        [arrays[f"{L}, {where} {each}"] for L in depths], axis=-1)  # (depths, scales)
        for where in PLACES for each in names}
    maps = {title: np.where(values > 1000, np.inf, values) for title, values in maps.items()}
    for ax, (title, values) in zip(figure.subplots(len(names), 2).T.flat, maps.items()):
        heat(ax, values, depths, arrays["scales"], list(maps.values()), title=title,
             xlabel="initial std (X: blew up)")
    lost = {where: [f"{std:g}" for i, std in enumerate(arrays["scales"]) if all(
        np.isinf(arrays[f"{depths[-1]}, {where} {each}"][i]).all() for each in names)]
        for where in PLACES}
    blocks, full = (f"{lost[where][0]} or more" if lost[where] else "none" for where in PLACES)
    return (f"{depths[-1]}: the initial std at which every seed blows up is {full} with all of P "
            f"and Q trained, {blocks} with the paper's blocks",
            "Setting 1. Final loss: median over the last tenth of the steps, median over seeds, "
            "each case at its best rate; a cross where runs diverged or ended above 1,000; the "
            "loss of predicting 0 is 5.")


initialization.full = dict(seeds=6, steps=100, depths=(2, 4, 8))


@experiment(FRESH)
def messy_data(seeds=6, steps=10, kinds=("clean", "Gaussian noise"), remedies=("none", "clipping")):
    """Question: What helps against data as it comes, and what does it cost?

    Data, each with E target^2 = 5 except for the heavy tails (1): clean (Setting 1); noise of
    standard deviation 1 on the context's labels, Gaussian, of Student's t with 2.5 degrees of
    freedom, or on a tenth of them (outliers); x of unequal variances, largest over smallest 10 or
    100; heavy-tailed x (Setting 3); and all of it: variances 10, heavy tails, outliers. Remedies:
    none (not even clipping); x and y over |x|, undone on the prediction; x whitened by the
    context's covariance; clipping to norm 1; weight decay 0.01; whitening with decay. SGD and Adam
    each at its best rate (`best_rates`). Measured: the risk, the squared error on clean targets
    over their mean square, in typical (median) batches of 1,000 prompts; each optimizer's with a
    remedy over that without one, and SGD's over Adam's; beside it `ridge_risk`.
    """
    remedies = tuple(dict.fromkeys(("none", *remedies)))  # with which others are compared
    arrays, parts, rates = {"remedies": list(remedies)}, [], []
    for kind in kinds:
        risk = {}  # of a remedy (optimizers, seeds)
        for remedy in remedies:
            setting, arguments = remedied(MESSY[kind], remedy)
            run, _, scores = at_best_rates(setting, {each.__name__: (each, arguments)
                                                     for each in BOTH}, steps, seeds,
                                           end=late_risk, worst=1)
            risk[remedy] = run["ends"].T
            label, key = f"{kind}, {remedy}", f"{kind} {remedy}"
            rates.append(Part(f"{key} rates", f"{label}: best rates", best_in_words(scores)))
            parts += [Part(f"{key} Adam", f"{label}: risk of Adam", risk[remedy][1]),
                      Part(f"{key} SGD / Adam", f"{label}: risk SGD / Adam",
                           ratio(*risk[remedy]))]
            if remedy != "none":
                parts += [Part(f"{key} {each.__name__} with / without",
                               f"{label}: {each.__name__}, with / without", values)
                          for each, values in zip(BOTH, ratio(risk[remedy], risk["none"]))]
        parts.append(Part(f"{kind} ridge", f"{kind}: risk of the ridge regression that knows the "
                          "noise", f"{ridge_risk(MESSY[kind]):.3g}"))
        arrays[f"{kind} risk"] = np.array(list(risk.values()))  # (remedies, optimizers, seeds)
    return arrays, parts + rates


MESSY = {"clean": SETTING_1, **{
    words: other(dict(noise=1.0, noise_family=family)) for words, family in (
        ("Gaussian noise", "gaussian"), ("Student noise", "student"), ("outliers", "outliers"))},
    "variances 10": variances(SETTING_1, 10), "variances 100": variances(SETTING_1, 100),
    "heavy tails": SETTING_3, "all of it": variances(SETTING_3._replace(data=dict(
        SETTING_3.data, noise=1.0, noise_family="outliers")), 10)}
REMEDIES = "none", "over |x|", "whitened", "clipping", "decay", "whitened, decay"


def remedied(setting, remedy):
    """(setting, optimizers' arguments) with a remedy; without clipping unless it is that."""
    prepared = {"over |x|": "scaled", "whitened": "whitened", "whitened, decay": "whitened"}
    setting = setting._replace(
        clip=setting.clip if remedy == "clipping" else np.inf,
        data=dict(setting.data, prepared=prepared.get(remedy, "nothing")))
    return setting, dict(weight_decay=0.01) if "decay" in remedy else {}


@np.errstate(all="ignore")
def late_risk(setting, loss, snapshots, length, every):
    """The risk after 95 % of the steps of a run, the median of ten evaluation batches of 1,000
    prompts: 1 is that of predicting 0, infinite if the run diverged."""
    params = snapshots[int(0.95 * length) // every, 0]
    if not np.isfinite(params).all():
        return np.inf
    plain, risks = setting._replace(data=dict(setting.data, prepared="nothing")), []
    for k in range(10):
        seen, raw = evaluation_prompts(setting, k), evaluation_prompts(plain, k)
        undo = raw.target / seen.target  # |x| of the query if prompts were scaled, else 1
        error = undo * linattn.predict(params, linattn.compress(seen)) - raw.target
        risks.append(np.mean(error**2) / np.mean(raw.target**2))
    return np.median(risks)


def ridge_risk(setting):
    """The risk of the ridge regression with penalty sigma^2 Sigma, where Sigma^-1 is the covariance
    of w and sigma^2 the variance of the noise: for Gaussian noise the best predictor."""
    covariance, found = np.array(setting.data.get("covariance", np.eye(5))), []
    penalty = setting.data.get("noise", 0) ** 2 * covariance
    for k in range(10):
        prompts = evaluation_prompts(setting, k)
        X, y, query = prompts.Z[:, :-1, :-1], prompts.Z[:, -1:, :-1], prompts.Z[:, :-1, -1]
        w = np.linalg.solve(X @ X.mT + penalty, X @ y.mT)[..., 0]
        error = (w * query).sum(axis=1) - prompts.target
        found.append(np.mean(error**2) / np.mean(prompts.target**2))
    return np.median(found)


def draw_messy_data(figure, arrays, found):
    """A map of Adam's risk: "KIND risk" (remedies, optimizers, seeds); the best of a row framed."""
    kinds = [kind for kind in MESSY if f"{kind} risk" in arrays]
    ax = figure.subplots()
    risk = np.array([np.median(arrays[f"{kind} risk"][:, 1], axis=-1) for kind in kinds])
    words = [str(each).replace("over |x|", "x / |x|") for each in arrays["remedies"]]
    heat(ax, np.where(risk > 1000, np.inf, np.maximum(risk, 1e-4)), kinds, words,
         title="risk of Adam: squared error / E target$^2$ (framed: the lowest of a row)",
         xlabel="remedy", ylabel="data")
    printed = np.array([[short(max(each, 1e-4), 2) for each in row] for row in risk])
    lowest = np.take_along_axis(printed, risk.argmin(axis=1)[:, None], axis=1)
    for i, j in np.argwhere(printed == lowest):
        ax.plot(j + np.array([-0.48, 0.48, 0.48, -0.48, -0.48]),
                i + np.array([-0.46, -0.46, 0.46, 0.46, -0.46]), color="#AA4499", lw=4)
    best = [str(arrays["remedies"][i]) for i in risk.argmin(axis=1)]  # for each kind
    usual = [each.partition(",")[0] for each in best]  # with or without decay
    most, kind = max(usual, key=usual.count), kinds[-1]
    return (f"Adam's best remedy is \"{most}\" for {usual.count(most)} of {len(kinds)} kinds of "
            f"data; for \"{kind}\" it is \"{best[-1]}\", with a risk of "
            f"{found[f'{kind} {best[-1]} Adam']} instead of {found[f'{kind} none Adam']}",
            "Squared error on clean targets over their mean square, median over seeds, typical "
            "batch; 1 is that of predicting 0; below 10$^{-4}$ drawn as 10$^{-4}$; X: the "
            "median diverged or is above 1,000. Adam at its best rate in every cell.")


messy_data.full = dict(seeds=6, steps=60, kinds=tuple(MESSY), remedies=REMEDIES)
messy_data.rows = "kinds"


@experiment(FRESH)
def polynomial(seeds=6, steps=30, ratios=(10,)):
    """Question: Why is SGD slow here, and which rate does each layer want?

    If every trained block is a multiple of the identity, Setting 1's model is one polynomial rho of
    the eigenvalues of S, made of 2 L - 1 numbers (polynomial.py). Measured of these numbers at
    their best, L = 1 to 4, over many prompts: the `condition_numbers` of the Hessian, as one rate
    sees it, and with other rates. Theory of the layers' rates: near a minimum the gradient is noise
    of a covariance like H, so that one over its root mean square is like H^(-1/2); of a layer one
    over the root of the largest eigenvalue of its block of H at the best numbers. SGD with these
    factors and, as a control, with the factors 1 : 1 : ratio; beside plain SGD and Adam, each at
    its best rate (`best_rates`). Measured: final losses over Adam's; where SGD / Adam is decided,
    the share of the log gap that each closes, seed by seed. At the end of SGD's and Adam's runs:
    the share of the weights off the multiples of the identity; and, of the nearest multiples, the
    share of the loss that is due to eigenvalues below their 10 % quantile. Along theirs and those
    with theory's factors: the last layer's c, and near the end its share of the best one.
    """
    spectra = poly.spectra(generator(2310), SETTING_1.data)
    best = {L: poly.best(spectra, L)[0][0] for L in (1, 2, 3, 4)}
    parts = []
    for L, numbers in best.items():
        parts += [Part(f"L = {L} {rates}", f"L = {L}, best numbers, {rates}: condition number",
                       f"{number:.3g}")
                  for rates, number in condition_numbers(numbers, spectra).items()]
    factors = {"theory": layer_factors(1 / block_roots(best[3], spectra))} | {
        f"1 : 1 : {k}": layer_factors([1, 1, k]) for k in ratios}
    candidates = by_name(BOTH) | {
        name: (FixedLayerRates, dict(factors=each)) for name, each in factors.items()}
    run, _, scores = at_best_rates(SETTING_1, candidates, steps, seeds)
    ends = dict(zip(candidates, run["ends"].T))  # (seeds,) each
    parts += beside_adam(ends)
    s = np.quantile(spectra.s, np.linspace(0.001, 0.999, 200))
    left = [poly.rho(best[3], s) ** 2]
    for i, each in enumerate(BOTH):
        weights = run["snapshots"][:, i, -1, 0]  # (seeds, layers, 2, d, d)
        off, small, rest = what_is_left(weights, spectra, s)
        left += rest
        parts += [Part(f"off {each.__name__}", f"{each.__name__}: share of the weights off the "
                       "identity", off),
                  Part(f"small {each.__name__}", f"{each.__name__}: share of the loss due to "
                       "eigenvalues below their 10 % quantile", small)]
    last = last_c(run["snapshots"][:, :3, :, 0])  # of SGD, Adam and theory: (seeds, 3, points)
    parts += [Part(f"last {each}", f"{each}: the last layer's c over the best one",
                   last[:, i, -1] / best[3][-1, 1]) for i, each in enumerate(list(ends)[:3])]
    parts += [Part("rates", "best rates", best_in_words(scores)), *(
        Part(f"factors {each}", f"factors, {each}", " : ".join(f"{it:.2g}" for it in values))
        for each, values in factors.items())]
    return {"s": s, "names": list(ends), "ends": np.array(list(ends.values())), "rest": left,
            "iteration": every_of([steps]) * np.arange(last.shape[2]), "last": last,
            "best last": best[3][-1, 1],
            "spectrum": np.histogram(np.log10(spectra.s), 60, (-2, 1))[0]}, parts


def condition_numbers(numbers, spectra):
    """{rates: the condition number of the Hessian with them}: that of rate^(1/2) H rate^(1/2)."""
    H = poly.hessian(numbers, spectra)
    diagonal = np.diag(H)
    layers = np.delete(np.repeat(1 / block_roots(numbers, spectra), 2), -2)  # the last has no g
    rates = {"one rate": np.ones(len(H)), "theory's rate for each layer": layers,
             "1 / root of the diagonal": diagonal**-0.5, "1 / diagonal": 1 / diagonal}
    return {words: np.linalg.cond(H * np.sqrt(np.outer(rate, rate)))
            for words, rate in rates.items()}


def what_is_left(weights, spectra, s):
    """Of weights (seeds, layers, 2, d, d): their share off the multiples of the identity, and of
    the nearest multiples the share of the loss below the 10 % quantile of the eigenvalues, (seeds,)
    each; and rho^2 at s, a list."""
    near = poly.projected(weights)  # (seeds, layers, 2)
    off = np.array([np.linalg.norm(W - each) / np.linalg.norm(W)
                    for W, each in zip(weights, poly.embedded(near, weights.shape[-1]))])
    left = [poly.rho(each, spectra.s) ** 2 for each in near]
    small = spectra.s < np.quantile(spectra.s, 0.1)
    return (off, np.array([each[small].sum() / each.sum() for each in left]),
            [poly.rho(each, s) ** 2 for each in near])


def last_c(weights):
    """The last layer's c of weights (..., layers, 2, d, d)."""
    return poly.projected(weights)[..., -1, 1]


def block_roots(numbers, spectra):
    """Root of the largest eigenvalue of each layer's block of the Hessian, (layers,)."""
    H = poly.hessian(numbers, spectra)  # in g_1, c_1, g_2, c_2, ..., c_L
    return np.sqrt([np.linalg.eigvalsh(H[2 * l : 2 * l + 2, 2 * l : 2 * l + 2])[-1]
                    for l in range(len(numbers))])


def draw_polynomial(figure, arrays, found):
    """Left "rest" (1 + seeds + seeds, points), rho^2 of the best numbers, SGD's and Adam's, against
    "s", over the histogram "spectrum"; below it "last" (seeds, 3, points) against
    "iteration", and "best last"; right "ends" (candidates, seeds) over Adam's."""
    panels = figure.subplot_mosaic([["spectrum", "ends"], ["last", "ends"]], width_ratios=(5, 4),
                                   height_ratios=(3, 2))
    spectrum, last, ends = (panels[each] for each in ("spectrum", "last", "ends"))
    names, count = [str(each) for each in arrays["names"]], arrays["ends"].shape[1]
    best, *rest = arrays["rest"]
    edges = np.logspace(-2, 1, len(arrays["spectrum"]) + 1)
    behind = spectrum.twinx()
    behind.set_label("<behind>")
    behind.stairs(arrays["spectrum"], edges, fill=True, color="#EEEEEE")
    behind.set_yticks([])
    spectrum.set_zorder(behind.get_zorder() + 1)
    spectrum.patch.set_visible(False)
    for each, some in (("SGD", rest[:count]), ("Adam", rest[count:])):
        spectrum.plot(arrays["s"], np.median(some, axis=0), **dict(plotting.look(each), marker=""),
                      label=each)
    spectrum.plot(arrays["s"], best, color="#444444", ls=":", lw=1.5, label="best numbers")
    spectrum.set(xscale="log", yscale="log", ylim=(1e-9, 20), title="what is left to learn",
                 xlabel="eigenvalue s of a prompt's covariance (grey: how many)",
                 ylabel="$\\rho(s)^2$, squared error at s")
    if np.isfinite(arrays["s"]).all():
        spectrum.set_xlim(arrays["s"][[0, -1]])
    spectrum.legend(loc="lower left")
    labels = [name if name in BOTH_NAMES else f"SGD, {name}" for name in names]
    curves(last, arrays["iteration"], arrays["last"], labels[:3], xlabel="iteration",
           title="the last layer, Q = c I", ylabel="c",
           xlim=(0, max(1, arrays["iteration"][-1])))
    reference(last, arrays["best last"])
    plotting.at_end(last, arrays["iteration"][-1], arrays["best last"], "best numbers", "#000000")
    over = arrays["ends"] / arrays["ends"][names.index("Adam")]
    plotting.forest(ends, labels, over, looks=plotting.LOOKS, xscale="log",
                    xlabel="final loss / Adam's", title="SGD with a rate for each layer")
    plotting.beside(ends, [found[name] if name in ("SGD", "theory") else None for name in names])
    ends.axvline(1, ls=":", color="#000000", lw=1.5)
    return (f"SGD ends at {found['SGD']} times Adam's loss; with theory's rate for each layer at "
            f"{found['theory']} times",
            "Setting 1. Left: rho(s)$^2$ of the multiples of the identity nearest to the weights "
            "near the end, median over seeds, and of the best ones; below, what Q of the "
            "last layer multiplies x by, median and smallest to largest. Right: SGD with a "
            "constant factor for each layer, from the Hessian at the least loss (theory) or 1 : 1 "
            ": k; each at its best rate; a dot for each seed, line: median and interval.")


polynomial.full = dict(seeds=10, steps=600, ratios=(3, 10, 30, 100, 300))


@experiment(FRESH)
def stable_rate(seeds=6, steps=50, batch=2000):
    """Question: What keeps SGD's rate low once training is under way?

    SGD trains Setting 1, for BEFORE; from there, with no momentum yet, it goes on for so many steps
    at each of RATES_BEYOND: on batches of 1,000 prompts; of `batch` prompts; and of 1,000 without
    the 1 % whose S, (1/n) sum x_i x_i^T, has the largest eigenvalues. If the noise of small batches
    limits the rate, larger ones allow more; if rare prompts do, it helps to leave them out.
    Measured: the loss at the end over that at the beginning, both the median of twenty evaluation
    batches of 1,000 prompts, the rare ones included; and the highest rate up to which it lies below
    1 for every seed.
    """
    batches = {"1,000 prompts": (1000, 1), f"{batch:,} prompts": (batch, 1),
               "1,000 without the rarest": (1000, 0.99)}
    arrays, parts = {"rates": RATES_BEYOND, "batches": list(batches)}, []
    for name, (size, share) in batches.items():
        fall = stacked(goes_on, [(SETTING_1, seed, steps, rate, size, share) for seed in seeds
                                 for rate in RATES_BEYOND])["fall"].reshape(len(seeds), -1)
        stable = np.append((fall < 1).all(axis=0), False).argmin()  # how many of the rates
        parts += [Part(f"{name} stable", f"{name}: highest stable rate",
                       f"{RATES_BEYOND[stable - 1]:g}" if stable else "none")]
        parts += [Part(f"{name} {rate:g}", f"{name}, rate {rate:g}: loss at the end / at first",
                       values) for rate, values in zip(RATES_BEYOND, fall.T)]
        arrays[name] = fall
    return arrays, parts


BEFORE = dict(steps=200, lr=0.1)
RATES_BEYOND = 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7


@cached
@np.errstate(all="ignore")
def goes_on(setting, seed, steps, rate, batch, share):
    """The loss after so many more steps over that before them, infinite if it is lost: on batches
    from which this share of the prompts is kept, those of the lowest largest eigenvalue of S."""
    start = params = train(setting, ((SGD, dict(lr=BEFORE["lr"])),), seed, BEFORE["steps"] + 1,
                           BEFORE["steps"])["snapshots"][0, -1, 0]
    rng, sgd = generator([2310, seed]), SGD(lr=rate)
    for _ in range(steps):
        Z, target = sample_prompts(rng, batch, **setting.data)
        x = Z[:, :-1, :-1]
        largest = np.linalg.eigvalsh(x @ x.mT / x.shape[2])[:, -1]
        kept = largest <= np.quantile(largest, share)
        _, grad = linattn.loss_and_grad(params, linattn.compress(Prompts(Z[kept], target[kept])))
        if not np.isfinite(np.linalg.norm(grad)):
            return dict(fall=np.inf)
        params = sgd.step(params, clip_global_norm(grad, setting.clip))
    first, last = (np.median([loss_at(setting, each, None, evaluation_batch(setting, k))
                              for k in range(20)]) for each in (start, params))
    return dict(fall=last / first if np.isfinite(last) else np.inf)


def draw_stable_rate(figure, arrays, found):
    """A panel for each of "batches": the loss over that at the beginning (seeds, rates), against
    "rates"."""
    names = [str(each) for each in arrays["batches"]]
    row = figure.subplots(1, len(names), sharey=True)
    for name, ax in zip(names, row):
        dots(ax, [f"{rate:g}" for rate in arrays["rates"]], arrays[name].T, yscale="log",
             title=name, xlabel="SGD's learning rate",
             ylabel="final loss / loss at the beginning")
        note(ax, f"safe up to {found[f'{name} stable']}")
        ax.tick_params(axis="x", rotation=45)
        reference(ax, 1)
    low = row[0].get_ylim()[0]  # of all, before the first is cut
    for ax in row:
        plotting.limits(ax, low, 100)
    return (f"With batches of {names[0]} SGD is safe up to a learning rate of "
            f"{found[f'{names[0]} stable']}, without the rarest prompts up to "
            f"{found[f'{names[2]} stable']}",
            "Setting 1, from SGD's weights after {steps} steps at a rate of {lr}. The loss on "
            "evaluation batches with all prompts; above 1 it has risen; safe: it does not for any "
            "seed; an arrow: above 100. A mark for each seed, bar: median.".format(**BEFORE))


stable_rate.full = dict(seeds=10, steps=200, batch=8000)


@experiment(FRESH)
def reduced_model(seeds=6, steps=30, cases=("Setting 1",)):
    """Question: Do the 2 L - 1 numbers of `polynomial` behave as the whole model does?

    Each of REDUCED changes one thing of Setting 1. SGD and Adam train the whole model; and the
    numbers alone: before each step weights and clipped gradient become the nearest multiples of the
    identity (only the very first gradient is one at other weights). Measured: SGD / Adam in both,
    each at its best rate (`best_rates`); an optimizer's final loss in the whole model over that of
    the numbers at the same rate, the whole model's best; fixed before the run: the numbers stand
    for the model where such a median lies within a factor 2. Also the share of the whole model's
    weights off the multiples of the identity, early and near the end. Then SGD with theory's
    factors for the layers, over Adam: those of Setting 1, of three layers, and those of the data at
    hand (for heavy tails over prompts drawn by importance sampling).
    """
    arrays, parts, usual = {}, [], theory(SETTING_1)
    for name in cases:
        setting = SETTINGS[name]
        own = theory(setting)
        fixed = {"theory": own} | (
            {"theory of Setting 1": usual} if len(usual) == len(own) and usual != own else {})
        candidates = by_name((SGD, Adam, SGDOfNumbers, AdamOfNumbers)) | {
            each: (FixedLayerRates, dict(factors=factors)) for each, factors in fixed.items()}
        run, _, scores = at_best_rates(setting, candidates, steps, seeds)
        sgd, adam, sgd_numbers, adam_numbers, *others = run["ends"].T  # (seeds,) each
        same = at_rates(setting, {steps: tuple(
            (rule, dict(lr=taken(scores[each]))) for rule, each in (
                (SGDOfNumbers, "SGD"), (AdamOfNumbers, "Adam")))}, seeds)[steps]
        over = ratio(sgd, adam), ratio(sgd_numbers, adam_numbers)
        parts += [Part(f"{name} {series}", f"{name}, {series}: SGD / Adam", values)
                  for series, values in zip(("whole model", "numbers alone"), over)]
        for i, each in enumerate(BOTH_NAMES):
            whole = ratio(run["ends"][:, i], same["ends"][:, i])
            off = off_identity(run["snapshots"][:, i, :, 0])[..., :-1, :].mean(axis=(2, 3))
            parts += [Part(f"{name} {each}", f"{name}, {each}: final loss of the whole model / of "
                           "the numbers, at the same rate", whole),
                      Part(f"{name} off early {each}", f"{name}, {each}: share off the identity, "
                           f"all but the last layer, after {every_of([steps])} of {steps} steps",
                           off[:, min(1, off.shape[1] - 1)]),  # the second snapshot, if any
                      Part(f"{name} off {each}", f"{name}, {each}: the same near the end",
                           off[:, -1])]
        parts += [Part(f"{name} {each}", f"{name}: final loss {each} / Adam", ratio(values, adam))
                  for each, values in zip(fixed, others)]
        parts += [Part(f"{name} rates", f"{name}: best rates", best_in_words(scores)),
                  Part(f"{name} factors", f"{name}: theory's factors", " : ".join(
                      f"{factor:.2g}" for factor in own))]
        arrays[f"{name} over"] = np.array(over)
    return arrays, parts


REDUCED = ("Setting 1", "Setting 1, falling rate", "L = 2", "L = 4", "n = 5 (Setting 2)", "n = 80",
           "x on the sphere", "heavy-tailed x", "Setting 3")


class OfNumbers:
    """Before another optimizer: it sees the nearest multiples of the identity alone."""

    def step(self, params, grad):
        return super().step(*(poly.embedded(poly.projected(each), params.shape[-1])
                              for each in (params, grad)))


class SGDOfNumbers(OfNumbers, SGD):
    """SGD of the numbers."""


class AdamOfNumbers(OfNumbers, Adam):
    """Adam of the numbers."""


def theory(setting):
    """The factor of each layer: one over the root of the largest eigenvalue of its block of the
    Hessian at the best numbers for many prompts."""
    spectra = poly.spectra(generator(2310), setting.data,
                           rare=setting.data.get("covariates") == "gamma")
    return layer_factors(1 / block_roots(poly.best(spectra, setting.layers)[0][0], spectra))


def draw_reduced_model(figure, arrays, found):
    """A row a case, those with "CASE over": of the parts the whole model's final loss over that of
    the numbers, for each optimizer."""
    cases = [name for name in REDUCED if f"{name} over" in arrays]
    ax = figure.subplots()
    ax.axvspan(0.5, 2, color="#EEEEEE", lw=0)
    for i, each in enumerate(BOTH_NAMES):
        plotting.forest(ax, cases, [found[f"{case} {each}"].values for case in cases],
                        plotting.look(each), 0.2 * (0.5 - i), each, xscale="log",
                        xlabel="final loss, whole model / numbers, at the same rate "
                        "(grey: within a factor 2)")
        plotting.beside(ax, [None if 0.5 <= found[f"{case} {each}"].median <= 2 else
                             found[f"{case} {each}"] for case in cases], 0.2 * (0.5 - i), i)
    ax.axvline(1, ls=":", color="#000000", lw=1.5)
    ax.legend(loc="lower right")
    whole = [found[f"{case} {each}"].median for case in cases for each in BOTH_NAMES]
    return ("A model of 2 L - 1 numbers ends within a factor 2 of the whole model's loss in "
            f"{sum(0.5 <= each <= 2 for each in whole)} of {len(whole)} comparisons",
            "The numbers: in place of each matrix the nearest multiple of the identity, before "
            "every step. Each optimizer at the best rate of the whole model. A dot for each seed, "
            "line: median and interval.")


reduced_model.full = dict(seeds=10, steps=600, cases=REDUCED)
reduced_model.rows = "cases"


@experiment()
def what_it_learns(seeds=3, steps=150, optimizers=(Adam,), lr=None):
    """Question: What is in the weights: is a trained layer a step of gradient descent?

    Adam in Setting 1, L = 1 to 4, seeds from 0 on. Measured: the final loss beside that of L steps
    of gradient descent, with one step size and with one for each layer (the best ones; for
    isotropic x a preconditioner adds nothing else), and with P_l = g_l I, which changes the x
    between the steps, too (least squares has loss 0); the share of Q_l off the multiples of the
    identity. At L = 4 the trained layers end far above the best multiples of the identity: whether
    the steps are too few or the constant rate too large is tried with five times the steps, and
    with a rate that falls to 0 over them.

    One layer has a closed form whatever x is, if it is isotropic. With E|x|^2 = m and E|x|^4 = m4,
    T = E tr S^2 = m4 / n + (1 - 1/n) m^2 / d gives the best Q = -c I, c = m / T, of loss
    m (1 - m^2 / (d T)) (for Gaussian x: c = n / (n + d + 1)). Measured, L = 1, n = 20 (and others
    for Gaussian x): learnt over best c, and final over least loss (means over the last tenth of the
    steps, for the closed form is a mean).
    """
    deep = {f"L = {L}": SETTING_1._replace(name=f"L = {L}", layers=L) for L in (1, 2, 3, 4)}
    spectra = poly.spectra(generator(2310), SETTING_1.data)
    least = {name: {kind: typical_loss(poly.best(spectra, setting.layers, kind)[0][0])
                    for kind in DESCENTS} for name, setting in deep.items()}
    arrays, parts, ends = {"depths": (1, 2, 3, 4), "optimizers": [optimizers[0].__name__]}, [], []
    for name, setting in deep.items():
        adam = contestants(setting, optimizers, lr)
        run = stacked(train, [(setting, adam, seed, steps, 10) for seed in seeds])
        end, before = final_loss(run["loss"][:, 0]), run["snapshots"][:, 0, :, 0]
        off = off_identity(before[:, -1, :, 1])  # (seeds, layers), of Q near the end
        parts += [Part(f"{name} loss", f"{name}: final loss", end)]
        parts += [Part(f"{name} {kind}", f"{name}: final loss / that of {DESCENTS[kind]}",
                       end / loss) for kind, loss in least[name].items()]
        parts.append(Part(f"{name} off", f"{name}: share of Q off the identity",
                          off.mean(axis=1)))
        ends.append(end)
        if name == "L = 3":
            arrays["weights"] = before[0, -1].reshape(6, 5, 5)
    longer = {"five times the steps": deep["L = 4"],
              "five times the steps, falling rate": deep["L = 4"]._replace(schedule="linear")}
    for words, setting in longer.items():
        adam = contestants(setting, optimizers, lr)
        end = final_loss(stacked(train, [(setting, adam, seed, 5 * steps)
                                         for seed in seeds])["loss"][:, 0])
        parts.append(Part(words, f"L = 4, {words}: final loss / that of {DESCENTS['P = g I']}",
                          end / least["L = 4"]["P = g I"]))
        arrays[f"L = 4, {words}"] = end
    parts += one_layer(seeds, steps, optimizers, lr)
    return arrays | {"final": np.array(ends).T[:, None]} | {  # (seeds, 1, depths)
        f"least {kind}": [least[name][kind] for name in deep] for kind in DESCENTS}, parts


DESCENTS = {"one size": "L gradient steps, one step size",
            "L sizes": "L gradient steps, L step sizes",
            "P = g I": "best multiples of the identity"}


def typical_loss(numbers):
    """Of a model of multiples of the identity in Setting 1: the median over twenty batches of
    1,000 prompts, as a run's final loss is one."""
    return np.median([poly.loss_and_grad(numbers, poly.spectra(
        generator([2310, k]), SETTING_1.data, 1000))[0] for k in range(20)])


def off_identity(weights):
    """Share of each matrix (..., d, d) in norm that is not a multiple of the identity."""
    rest = weights - poly.embedded(poly.projected(weights), weights.shape[-1])
    with np.errstate(all="ignore"):  # a run that diverged
        return np.linalg.norm(rest, axis=(-2, -1)) / np.linalg.norm(weights, axis=(-2, -1))


def one_layer(seeds, steps, optimizers, lr):
    """Parts of `what_it_learns`: one layer beside its closed form."""
    parts, others = [], [("gaussian", n) for n in (5, 10, 40, 80)]
    for family, n in [(family, 20) for family in MOMENTS] + others:
        name = f"{family} x, n = {n}"
        setting = SETTING_1._replace(name=name, layers=1, data=dict(n=n, d=5, covariates=family))
        adam = contestants(setting, optimizers, lr)
        run = stacked(train, [(setting, adam, seed, steps, 10) for seed in seeds])
        best_c, least_loss = closed_form(*MOMENTS[family], n, 5)
        c = -poly.projected(run["snapshots"][:, 0, :, 0, 0, 1])  # (seeds, points), of Q
        c, end = (each[:, -max(1, each.shape[1] // 10) :].mean(axis=1)  # over the last tenth
                  for each in (c, run["loss"][:, 0]))  # (seeds,)
        parts += [Part(f"{name} c", f"{name}: learnt / best c", c / best_c),
                  Part(f"{name} loss", f"{name}: mean final loss / least loss {least_loss:.3g}",
                       end / least_loss)]
    return parts


MOMENTS = {  # E|x|^2 and E|x|^4 of each family of data.py at its default parameters, d = 5
    "gaussian": (5, 35), "sphere": (1, 1), "gamma": (1, 11), "student": (25 / 3, 875 / 3)}


def closed_form(m, m4, n, d):
    """The best step size c of one layer, and its loss."""
    T = m4 / n + (1 - 1 / n) * m**2 / d
    return m / T, m * (1 - m**2 / (d * T))


def draw_what_it_learns(figure, arrays, found):
    """Left "weights" (matrices, d, d) of three layers; right "final" (seeds, 1, depths), "least
    KIND" (depths,), and "L = 4, ..." of longer runs (seeds,)."""
    panels = figure.subplot_mosaic([["P", "depths"], ["Q", "depths"]], width_ratios=(1, 1.6))
    for which, letter in enumerate("PQ"):
        ax, tiles = panels[letter], np.full((5, 17), np.nan)
        for layer in range(3):
            tiles[:, 6 * layer : 6 * layer + 5] = arrays["weights"][2 * layer + which]
        largest = np.abs(tiles).max(where=np.isfinite(tiles), initial=0) or 1  # 0: it diverged
        drawn = ax.imshow(tiles, cmap="PRGn", vmin=-largest, vmax=largest, aspect="auto")
        ax.set_xticks((2, 8, 14), ("layer 1", "layer 2", "layer 3"))
        ax.set_yticks([])
        ax.set(title=f"{letter}, layer by layer")
        ax.grid(False)
        figure.colorbar(drawn, ax=ax)
    panels["P"].set_xticks((2, 8, 14), ("layer 1", "layer 2", "3: not trained"))
    ax, name = panels["depths"], str(arrays["optimizers"][0])
    curves(ax, arrays["depths"], arrays["final"], [name], path=False, yscale="log",
           title="final loss", xlabel="layers L", ylabel="loss", xticks=arrays["depths"])
    for i, (kind, words) in enumerate(DESCENTS.items()):
        ax.plot(arrays["depths"], arrays[f"least {kind}"], label=words, **plotting.look(words, i))
    for words, marker in (("five times the steps", "o"),
                          ("five times the steps, falling rate", "*")):
        ends = arrays[f"L = 4, {words}"]  # (seeds,)
        ax.plot(np.full(len(ends), 4), ends, marker, color=plotting.look(name)["color"], ms=10,
                label=words)
    ax.legend(loc="lower left", fontsize="small")
    plotting.bracket(ax, arrays["depths"][-1], [
        found["L = 4 loss"].median, arrays["least P = g I"][-1]],
        plotting.times(found["L = 4 P = g I"]))
    return (f"In {name}'s three layers {100 * found['L = 3 off'].median:.0f} % of Q lies off the "
            f"multiples of the identity; four layers end at {found['L = 4 P = g I']} times the "
            "loss of the best multiples",
            "Setting 1. Weights: one seed, near the end. Line: median over seeds, band: smallest "
            "to largest. Final loss: of training, and of the best steps of gradient descent that "
            "Newton's method found: of one size, of L sizes, and with P = g I in each layer, so "
            "that x changes between the steps.")


what_it_learns.full = dict(seeds=6, steps=2000)
