"""How a figure looks: one style, and functions that draw a panel, (ax, arrays, ...), from arrays.

    ax       a matplotlib Axes, yours as well as ours; further arguments by name (title, ylabel,
             yscale, ...) go to ax.set
    series   (seeds, names, points): a line for each name, their median over seeds, and a band from
             the smallest to the largest
    draw     draw_NAME(figure, arrays, found) of an experiment, which returns (headline, caption)

Orange and blue are SGD and Adam, and nothing else. What else there is has another colour, apart
from those for eyes that see no green as well, and another dash and marker, because the greys of
some colours are alike.
"""

import contextlib
import os
import textwrap
import warnings

backend = os.environ.pop("MPLBACKEND", None)  # an unknown one would end the import

import matplotlib
import matplotlib.colors
import matplotlib.style
import matplotlib.ticker
import numpy as np
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec

if backend is not None:
    os.environ["MPLBACKEND"] = backend
    with contextlib.suppress(ValueError):  # an unknown one: our figures are saved without it
        matplotlib.rcParams["backend"] = backend

from verdicts import interval, short

STYLE = {
    "font.size": 15,
    "axes.titlesize": 17,
    "axes.labelsize": 15,
    "xtick.labelsize": 14,
    "ytick.labelsize": 14,
    "legend.fontsize": 14,
    "figure.titlesize": 18,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "lines.linewidth": 2.5,
    "legend.frameon": False,
    "axes.formatter.min_exponent": 4,  # 0.001 rather than 10^-3
    "mathtext.default": "regular",
    "pdf.fonttype": 42,
    "svg.hashsalt": "linattn",
}
SLIDE = STYLE | {name: 1.5 * STYLE[name] for name in STYLE if name.endswith("size")}
LOOKS = {"SGD": dict(color="#E69F00", ls="--", marker="o"),
         "Adam": dict(color="#0072B2", ls="-", marker="s")}
OTHER_LOOKS = (dict(color="#009E73", ls="-.", marker="^"),
               dict(color="#882255", ls=":", marker="D"),
               dict(color="#999933", ls=(0, (5, 1)), marker="v"),
               dict(color="#AA4499", ls=(0, (1, 1)), marker="P"),
               dict(color="#000000", ls=(0, (3, 1, 1, 1)), marker="X"),
               dict(color="#332288", ls=(0, (3, 1, 1, 1, 1, 1)), marker="<"))
PLAIN = dict(color="#444444", marker="o")  # of a single series
MARKS = {"holds": dict(marker="o", color="#009E73"),  # of a claim's parts
         "open": dict(marker="o", color="#444444", mfc="none"),
         "against": dict(marker="X", color="#882255")}


def look(name, position=0):
    """Colour, dashes and marker of an optimizer, or of what stands at this position."""
    return LOOKS.get(str(name), OTHER_LOOKS[position % len(OTHER_LOOKS)])


def shades(count):
    """So many colours from pale to dark."""
    pale, dark = (np.array(matplotlib.colors.to_rgb(end)) for end in ("#C9B9D3", "#3B1F4A"))
    return [matplotlib.colors.to_hex(pale + share * (dark - pale))
            for share in np.linspace(0, 1, count)]


# ---- Whole figures -------------------------------------------------------------------------------


def picture(draw, arrays, found, verdict="", style=STYLE):
    """The figure of an experiment in the shape of a slide: headline, below it how many parts hold
    and how long the runs were (`verdict`), and the caption as its attribute `caption`. It starts
    from matplotlib's defaults, whatever the user's file says."""
    if not isinstance(found, dict):
        raise ValueError("found: got parts, wants verdicts.measured(parts)")
    with matplotlib.style.context(["default", style]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Data has no positive values")  # on a log scale: below
        figure = Figure(figsize=(13.33, 7.5), layout="constrained")
        figure.get_layout_engine().set(w_pad=0.12, h_pad=0.06)  # inches
        arrays = {name: np.asarray(values) for name, values in arrays.items()}  # as from a file
        headline, figure.caption = draw(figure, arrays, found)
        letters = int(1840 / matplotlib.rcParams["figure.titlesize"])  # on a line
        text = in_symbols(headline)
        lines = 1 + len(text) // letters  # of about the same length
        text = textwrap.fill(text, min(letters, len(text) // lines + 12))
        below = textwrap.fill(verdict, letters) if len(verdict) > letters else verdict
        figure.suptitle(f"{text}\n{below}".strip())
        figure.headline = headline
        for ax in figure.axes:  # where every run diverged: a log scale wants limits all the same
            if ax.get_xscale() == "log" and ax.get_xlim()[0] <= 0:
                ax.set_xlim(1, 10)
            if ax.get_yscale() == "log" and ax.get_ylim()[0] <= 0:
                ax.set_ylim(1, 10)
        for ax in figure.axes:
            one_kind_of_ticks(ax)
            drop_repeated_labels(ax, figure)
        spread_labels(figure)
        return figure


def slides(draw, arrays, found, verdict=""):
    """A figure for each panel, which fills it, in larger type, if that is not one of many rows."""
    for number, panel in enumerate(panels_of(picture(draw, arrays, found))):
        rows = panel.get_yticks() if isinstance(
            panel.yaxis.get_major_locator(), matplotlib.ticker.FixedLocator) else ()
        style = SLIDE if len(rows) < 10 else STYLE
        with warnings.catch_warnings(action="ignore"):  # of nine panels without room
            figure = picture(draw, arrays, found, verdict, style)
        panels = panels_of(figure)
        keep, place = panels[number], panels[number].get_subplotspec()
        for text in (keep.title, keep.xaxis.label, keep.yaxis.label):
            text.set_visible(True)
        for other in panels:  # a title stands for its column
            if other.get_subplotspec().colspan == keep.get_subplotspec().colspan:
                keep.title.set(text=keep.get_title() or other.get_title(),
                               fontsize=style["axes.titlesize"])
        keep.tick_params(labelleft=keep.get_yticks().size > 0, labelbottom=True)
        own = set(keep.get_legend_handles_labels()[1])
        explained = any(other.get_legend() and own & set(other.get_legend_handles_labels()[1])
                        for other in panels if other is not keep)  # in another panel
        whole = GridSpec(1, 1, figure=figure)[0]
        for ax in figure.axes:
            if ax.get_subplotspec() == place:  # the panel, and what lies behind it
                ax.set_subplotspec(whole)
            else:
                ax.remove()
        with matplotlib.style.context(["default", style]):
            if explained and not keep.get_legend():
                keep.legend()
            spread_labels(figure)
        yield figure


def one_kind_of_ticks(ax):
    """0.01, 0.1, 1, ... or 10^-4, 10^-3, ..., not both on an axis; 0.1, 0.2, 0.5, ... on less than
    two decades, where there is room."""
    for axis, limits, widest in ((ax.xaxis, ax.get_xlim(), 50), (ax.yaxis, ax.get_ylim(), 200)):
        sizes = [abs(tick) for tick in axis.get_majorticklocs()
                 if tick and limits[0] <= tick <= limits[1]]
        if not isinstance(axis.get_major_formatter(), matplotlib.ticker.LogFormatterSciNotation):
            continue
        if axis.get_scale() == "log" and 3 < limits[1] / limits[0] < widest:
            wide = limits[1] > 10 * limits[0]
            axis.set_major_locator(matplotlib.ticker.LogLocator(
                subs=(1, 2, 5) if wide else (1, 1.5, 2, 3, 5, 7)))
            axis.set_major_formatter(lambda number, _: f"{number:g}")
            axis.set_minor_formatter(matplotlib.ticker.NullFormatter())
        elif sizes and not 0.001 <= min(sizes) <= max(sizes) <= 1000:
            axis.set_major_formatter(power_of_ten)


def power_of_ten(number, _=None):
    sign = "-" if number < 0 else ""
    return f"${sign}10^{{{np.log10(abs(number)):.0f}}}$" if number else "0"


def in_symbols(text):
    for plain in ("v^T H v", "|x|^2", "n^2"):
        text = text.replace(plain, f"${plain.replace(' ', '')}$")  # a space would be dropped anyway
    return text.replace("R_med", "$R_{med}$")


def in_settings(names):
    """Names of settings in a headline: Settings 1, 2, 3."""
    last = [str(name).removeprefix("Setting ") for name in names]
    if len(last) == 1 or any(word == str(name) for word, name in zip(last, names)):
        return listed(names)
    return f"Settings {listed(last)}"


def listed(values):
    return ", ".join(map(str, values))


def span(found, names, key):
    """From the least to the largest median of a part of these settings, "1.2 to 7.5"; the key as
    "{} slope"."""
    medians = [found[key.format(name)].median for name in names]
    return " to ".join(dict.fromkeys(short(end, 2) for end in (min(medians), max(medians))))


def times(part):
    """A ratio in words, "7.5 times", "1.1 times (open)"."""
    number, _, mark = str(part).partition(" ")
    return f"{number} times {mark}".strip()


def those(found, names, key):
    """Of which settings a part holds, and of which it does not: "in Setting 1; undecided in
    Settings 2, 3", or "in none; ..."; the key as "{} slope"."""
    decisions = {name: found[key.format(name)].decision for name in names}
    words = {"holds": "in", "open": "undecided in", "against": "the other way in"}
    return "; ".join(["in none"] * ("holds" not in decisions.values()) + [
        f"{words[each]} " + in_settings([name for name in names if decisions[name] == each])
        for each in words if each in decisions.values()])


def rates(figure, arrays):
    """A sentence for a caption, "SETTING rates" of each setting, that also stands at the foot of
    the figure."""
    return foot(figure, "Learning rates: " + "; ".join(
        f"{name} {arrays[f'{name} rates']}" for name in arrays["settings"]) + ".")


def foot(figure, text):
    """A line at the foot of a figure, or two; returns it, for the caption."""
    lines = 1 + len(text) // 115  # of about the same length
    words = textwrap.fill(in_symbols(text.removesuffix(".")), len(text) // lines + 12)
    figure.supxlabel(words, color="#444444", fontsize=STYLE["legend.fontsize"])
    return text


def panels_of(figure):
    """Its axes without colour bars and what lies behind a panel, whose labels begin with "<"."""
    return [ax for ax in figure.axes if not ax.get_label().startswith("<")]


def drop_repeated_labels(ax, figure):
    """Of panels in a row the y label at the left alone, of panels in a column the title at the top
    alone, where they are the same, and the x label at the bottom alone, where the axis is, too."""
    place = ax.get_subplotspec()
    if ax not in panels_of(figure):
        return
    for other in panels_of(figure):
        there = other.get_subplotspec()
        same_row, same_column = there.rowspan == place.rowspan, there.colspan == place.colspan
        if same_row and there.colspan.start < place.colspan.start:
            if other.get_ylabel() == ax.get_ylabel():
                ax.yaxis.label.set_visible(False)
        if same_column and there.rowspan.start < place.rowspan.start:
            if other.get_title() == ax.get_title():
                ax.title.set_visible(False)
        if same_column and there.rowspan.start > place.rowspan.start:
            if (other.get_xlabel(), other.get_xlim(), other.get_xscale()) == (
                    ax.get_xlabel(), ax.get_xlim(), ax.get_xscale()):
                ax.xaxis.label.set_visible(False)


def save(figure, file, form):
    """As png or pdf, the same bytes for the same figure; laid out already, by `picture`."""
    figure.set_layout_engine("none")
    options = dict(png=dict(dpi=120), pdf=dict(metadata={"CreationDate": None}))[form]
    with matplotlib.style.context(["default", STYLE]):
        figure.savefig(file, format=form, **options)


# ---- Panels --------------------------------------------------------------------------------------


def curves(ax, x, series, names, path=True, first=0, **labels):
    """Series (seeds, names, points) against x (points,), the first of them at this position. Along
    a path there are the names at the ends of up to four lines, else a legend, and a cross where a
    seed diverged (NaN)."""
    x, ends = np.asarray(x), []
    if labels.get("xlabel") == "iteration":
        ax.xaxis.set_major_formatter(thousands)
    for i, name in enumerate(names):
        values = np.asarray(series)[:, i]  # (seeds, points)
        values = np.where(np.isfinite(values), values, np.nan)
        shown = np.isfinite(values).any(axis=0)
        style = look(name, first + i) | dict(marker="" if shown.sum() > 1 else "o")
        if shown.any():
            low, middle, high = np.nanquantile(values[:, shown], (0, 0.5, 1), axis=0)
            ax.fill_between(x[shown], low, high, color=style["color"], alpha=0.25, lw=0)
            ax.plot(x[shown], middle, label=str(name), **style)
            ends.append((x[shown][-1], middle[-1], name, style["color"]))
        elif path:  # it diverged before the first point
            ax.plot(x[0], 0.96, "X", color=style["color"], ms=10, label=str(name),
                    transform=ax.get_xaxis_transform())
        lost = np.isfinite(values[:, 0]) & ~np.isfinite(values[:, -1])
        for each in values[lost] if path else ():
            last = np.flatnonzero(np.isfinite(each))[-1]
            ax.plot(x[last], each[last], "X", color=style["color"], ms=10)
    ax.set(**labels)
    if path and len(ends) > 4:
        ax.legend()
    elif path:
        for end in ends:
            at_end(ax, *end)


def losses(ax, arrays, name, **labels):
    """The running medians of this name against the iteration, on a log scale; in grey the last
    tenth of the run, whose median is its final loss."""
    steps = arrays["iteration"][0] + arrays["iteration"][-1] + 1  # from the centres of the blocks
    ax.axvspan(0.9 * steps, steps, color="#E8E8E8", lw=0, zorder=0)
    ax.text(0.95 * steps, 0.98, "final loss", transform=ax.get_xaxis_transform(), rotation=90,
            ha="center", va="top", color="#444444")
    curves(ax, arrays["iteration"], arrays[name], arrays["optimizers"],
           **dict(yscale="log", xlabel="iteration") | labels)


def thousands(number, _=None):
    """2500 as 2.5k."""
    return f"{number / 1000:g}k" if number >= 1000 else f"{number:g}"


def at_end(ax, x, y, text, color):
    """A label at the end of a line."""
    ax.annotate(str(text), (x, y), (6, 0), textcoords="offset points", color=color, va="center",
                gid="end", fontsize=matplotlib.rcParams["legend.fontsize"])


def spread_labels(figure):
    """Move the labels at the ends of lines apart where they would cover each other."""
    figure.draw_without_rendering()  # only now is it known where the panels stand
    for ax in figure.axes:
        labels = [text for text in ax.texts if text.get_gid() == "end"]
        heights = {text: ax.transData.transform(text.xy)[1] * 72 / figure.dpi for text in labels}
        labels.sort(key=heights.get)
        places = [heights[text] for text in labels]
        bottom, top = ax.bbox.y0 * 72 / figure.dpi + 7, ax.bbox.y1 * 72 / figure.dpi - 7
        for _ in range(50):  # two that overlap give way by half of it each, beside the panel
            places = [min(max(place, bottom), top) for place in places]
            for i, text in enumerate(labels[1:]):
                overlap = max(0, places[i] + 1.2 * text.get_fontsize() - places[i + 1]) / 2
                places[i], places[i + 1] = places[i] - overlap, places[i + 1] + overlap
        for text, place in zip(labels, places):
            text.xyann = (6, place - heights[text])


TAILS = 20  # the right end of the axis of every tail that does not reach further
NOISE = ("Noise: share of the draws of |g(a batch) - g(a hundred batches)|, at initialisation, "
         "above r times the median of their seed; line: median over seeds, band: smallest to "
         "largest; the number: what one draw in a hundred exceeds; dashed: Gaussian vectors of the "
         "same mean and covariance.")  # of `tails`, in a caption


def tails(ax, arrays, name, **labels):
    """Tail curves: the share of the draws that reach r. "NAME tail" (seeds, shares), their median
    and, as a band, the smallest and the largest; dashed, "NAME null" (shares,), that of Gaussian
    vectors. What one draw in a hundred exceeds is written beside both."""
    share, drawn, null = arrays["share"], arrays[f"{name} tail"], arrays[f"{name} null"]
    low, middle, high = np.quantile(drawn, (0, 0.5, 1), axis=0)
    ax.fill_betweenx(share, low, high, color="#882255", alpha=0.25, lw=0)
    ax.plot(middle, share, color="#882255", label="gradient noise")
    ax.plot(null, share, "--", color="#000000", label="Gaussian vectors")
    right = max(TAILS, 1.05 * high.max(initial=1, where=np.isfinite(high)))
    ax.set(xscale="log", yscale="log", xlim=(0.9, right), ylim=(min(0.001, share[0]) / 1.5, 1),
           xlabel="noise norm / its median, r", ylabel="share of the draws above r")
    ax.set_xticks([1, 2, 5, *10.0 ** np.arange(1, np.log10(right))], minor=False)
    ax.xaxis.set_major_formatter(lambda number, _: f"{number:g}")
    ax.set_xticks([], minor=True)
    ax.yaxis.set_major_locator(matplotlib.ticker.LogLocator(numticks=9))  # in low panels, too
    ax.set(**labels)
    if share[0] <= 0.01:
        ax.axhline(0.01, color="#000000", ls=":", lw=1.5)
        ax.text(0.99, 0.01, "1 in 100", transform=ax.get_yaxis_transform(), ha="right", va="bottom")
        for x, color, side in zip(exceeded(arrays, name), ("#882255", "#000000"), (1, -1)):
            if np.isfinite(x):
                ax.annotate(short(x, 2), (x, 0.01), (8 * side, 9 * side), va="center", color=color,
                            textcoords="offset points", ha="left" if side > 0 else "right")
                ax.plot(x, 0.01, "o", color=color, ms=8)


def reach(arrays, name):
    """Limits of the x axis for one tail that is compared with no other."""
    drawn = arrays[f"{name} tail"]
    return 0.9, 1.2 * drawn.max(initial=1, where=np.isfinite(drawn))


def exceeded(arrays, name):
    """What one draw in a hundred (of fewer, in all) exceeds, of the noise (median over seeds) and
    of Gaussian vectors."""
    hundredth = np.abs(arrays["share"] - 0.01).argmin()
    return np.median(arrays[f"{name} tail"][:, hundredth]), arrays[f"{name} null"][hundredth]


def rarity(arrays):
    """In how many draws `exceeded` is exceeded once: a hundred, or all if they are fewer."""
    return round(1 / max(0.01, arrays["share"][0]))


def noises(figure, arrays):
    """A panel of tails for each setting. Returns the panels, and what is `exceeded`: of the noise,
    the least and the largest of the settings, and of Gaussian vectors, their median."""
    names = arrays["settings"]
    row = figure.subplots(1, len(names), sharex=True, sharey=True, squeeze=False)[0]
    for name, title, ax in zip(names, arrays["titles"], row):
        tails(ax, arrays, name, title=title)
    row[-1].legend(loc="upper right")
    reached, null = zip(*(exceeded(arrays, name) for name in names))
    return row, f"{short(min(reached), 2)} to {short(max(reached), 2)}", short(np.median(null), 2)


def smoothness_axis(*axes):
    """A logarithmic scale; if there are negative values one for both signs, linear around 0; the
    same for panels that share their y axis."""
    if min(ax.dataLim.y0 for ax in axes) > 0:
        for ax in axes:
            ax.set_yscale("log")
        return
    lines = [np.asarray(line.get_ydata(), float) for ax in axes for line in ax.get_lines()]
    values = np.concatenate([*lines, [0.0]])  # no lines if every run diverged
    size = np.abs(values[np.isfinite(values) & (values != 0)])
    if size.size:
        linear = 10 ** np.floor(np.log10(np.median(size)))
        for ax in axes:
            ax.set_yscale("symlog", linthresh=linear)
        low, high = axes[0].get_ylim()
        up, down = (1 + np.log10(max(end / linear, 1)) for end in (high, -low))  # in decades
        rows = axes[0].get_subplotspec().get_gridspec().nrows
        apart = 1 + int(rows * (up + down) / 16)  # decades from a tick to the next
        ticks = linear * 10.0 ** np.arange(apart - 1, max(up, down), apart)
        for ax in axes:
            ax.set(yticks=[*-ticks[::-1], 0, *ticks], ylim=(low, high))
    for ax in axes:
        reference(ax, 0, "-")


def clipped(ax, heights, kinds):
    """How v^T H v changes when a direction is clipped: of each direction and setting, {(direction,
    setting): (seeds, kinds)}, the ratio to that as it is, median over seeds. A colour for each
    direction, a marker for each setting. Returns {direction: (settings, kinds)}."""
    directions, settings = (list(dict.fromkeys(each)) for each in zip(*heights))
    over = {each: np.array([np.median(heights[each, name] / heights[each, name][:, :1], axis=0)
                            for name in settings]) for each in directions}
    for i, (each, rows) in enumerate(over.items()):
        for ratios, marker in zip(rows, "osv^DP"):
            ax.plot(range(len(kinds)), ratios, **look(each, i) | dict(marker=marker), ms=10)
    ax.set_xticks(range(len(kinds)), [str(each).removeprefix("clipped at ") for each in kinds])
    ax.set(yscale="log", xlabel="coordinates clipped at the quantile",
           xlim=(-0.3, len(kinds) - 0.7))
    reference(ax, 1)
    return over


def clippings(figure, arrays, heights):
    """A panel a path with `clipped`, from {"SETTING, OPTIMIZER's path, DIRECTION": (seeds, kinds)}.
    Returns of its ratios at the quantile 0.5 the largest of the gradient, and the least of the last
    optimizer's own step."""
    names, over = [str(each) for each in arrays["names"]], {}
    panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for name, ax in zip(names, panels):
        over[name] = clipped(ax, {(each, setting): heights[f"{setting}, {name}'s path, {each}"]
                                  for each in ("gradient", "step")
                                  for setting in arrays["settings"]}, arrays["kinds"])
        ax.set(title=f"along {name}'s path", ylabel="$v^T H v$, clipped / unclipped")
        for i, words in enumerate(("the gradient", "the optimizer's own step")):
            ax.plot([], [], **look(words, i) | dict(marker=""), label=words)
        for setting, marker in zip(arrays["settings"], "osv^DP"):
            ax.plot([], [], marker, color="#444444", ms=10, label=setting)
    panels[0].legend(loc="lower left")
    half = list(arrays["kinds"]).index("clipped at 0.5")
    return (short(max(each["gradient"][:, half].max() for each in over.values()), 2),
            short(over[names[-1]]["step"][:, half].min(), 2))


def attention(figure, arrays, loss, kinds, found, nothing):
    """One panel: of each kind of attention "LOSS" (seeds, kinds, blocks), its final loss at the end
    of its line; dotted, the loss of predicting nothing."""
    ax, names = figure.subplots(), [str(each) for each in arrays[kinds]]  # as "softmax (0.01)"
    curves(ax, arrays["iteration"], arrays[loss], [
        f"{name}: {found[f'{name.split()[0]} loss']}" for name in names], yscale="log",
        xlabel="iteration", ylabel="training loss")
    ax.plot(arrays["iteration"][[0, -1]], [nothing, nothing], ":", color="#000000", lw=1)
    ax.text(arrays["iteration"].mean(), nothing, "loss of predicting 0", va="bottom", ha="center")
    ax.margins(y=0.1)
    note(ax, "linear attention has halved the loss of predicting 0 after "
         f"{found['linear steps']} steps")
    foot(figure, "In brackets the learning rate, behind it the final loss; the paper's block "
         "matrices, in which P's last row is fixed")


def same_decades(*axes):
    """As many decades on each of these logarithmic y axes, so that equal factors look equal."""
    limits = np.array([ax.get_ylim() for ax in axes])
    if (limits > 0).all():  # else every run diverged
        middle, half = np.log10(limits).mean(axis=1), np.ptp(np.log10(limits), axis=1).max() / 2
        for ax, centre in zip(axes, middle):
            ax.set_ylim(10 ** (centre - half), 10 ** (centre + half))


def bracket(ax, x, ends, text):
    """A bracket from one height to another, its meaning at the right; none if one diverged."""
    if np.isfinite(ends).all():
        ax.annotate("", (x, max(ends)), (x, min(ends)), arrowprops=dict(
            arrowstyle="|-|,widthA=0.3,widthB=0.3", color="#000000", shrinkA=0, shrinkB=0, lw=1.5))
        at_end(ax, x, np.sqrt(np.prod(ends)), text, "#000000")  # halfway on a log scale


def limits(ax, low, high):
    """The y axis from low to high; a value beyond is an arrow at the edge."""
    for line in ax.get_lines():
        x, y = (np.asarray(each, float) for each in (line.get_xdata(), line.get_ydata()))
        for beyond, edge, marker in ((y < low, 0.015, "v"), (y > high, 0.985, "^")):
            seeds = line.get_transform() == ax.transData and len(x) == len(y) > 2
            if seeds and beyond.any():
                ax.plot(x[beyond], np.full(beyond.sum(), edge), marker, ms=8, clip_on=False,
                        color=line.get_color(), transform=ax.get_xaxis_transform())
    ax.set_ylim(low, high)


def pairs(ax, names, values, **axes):
    """Values (seeds, names), those of a seed joined; a dark bar at each median."""
    for row in values:
        ax.plot(range(len(row)), row, "-", color="#BBBBBB", lw=1, zorder=1)
    for i, each in enumerate(np.transpose(values)):
        style = look(names[i], i)
        ax.plot(np.full(len(each), i), each, style["marker"], color=style["color"], alpha=0.5)
        ax.plot([i - 0.2, i + 0.2], 2 * [np.median(each)], "-", lw=3.5, color=style["color"],
                solid_capstyle="butt", zorder=3)
    ax.set_xticks(range(len(names)), names)
    ax.set(xlim=(-0.5, len(names) - 0.5), **axes)


def reference(ax, y, dashes=":"):
    """A thin horizontal line."""
    ax.axhline(y, color="#000000", ls=dashes, lw=1.5)


def dots(ax, labels, groups, look=PLAIN, series=(0, 1), label=None, **axes):
    """For each label a group of values: every one a pale mark, and a dark bar at their median,
    which is the number of a finding, or a cross at the top if that is infinite. Of several series,
    (which, of how many), each has its look and stands beside the others."""
    which, count = series
    wide = 0.8 / count if count > 1 else 0.5  # between groups, which are 1 apart
    for place, values in enumerate(groups):
        x = place + (which - (count - 1) / 2) * wide
        ax.plot(x + 0.3 * wide * scattered(len(values)), values, look["marker"], ms=5, mew=0,
                alpha=0.45 if len(values) < 50 else 0.1, color=look["color"])
        middle = np.median(values)
        if np.isinf(middle):  # it never got there, or diverged
            ax.plot(x, 0.96, "X", ms=10, color=look["color"], transform=ax.get_xaxis_transform())
        else:
            ax.plot([x - 0.4 * wide, x + 0.4 * wide], [middle, middle], "-", lw=3.5,
                    color=look["color"], solid_capstyle="butt", zorder=3)
    if label:
        ax.plot([], [], look["marker"], ls="-", lw=3.5, color=look["color"], label=label)
    ax.set_xticks(range(len(labels)), labels, fontsize=0.9 * matplotlib.rcParams["font.size"])
    ax.set(xlim=(-0.5, len(labels) - 0.5), **axes)


def scattered(count):
    """So many numbers from -1 to 1, evenly spread, in an order that is random but always the same:
    seeds in their own order look like a trend."""
    return np.random.default_rng(0).permutation(np.linspace(-1, 1, count) if count > 1 else [0.0])


def forest(ax, labels, groups, look=PLAIN, shift=0.0, label=None, looks={}, **axes):
    """For each label, from top to bottom, a group of values (seeds,) on a horizontal line: every
    one a pale dot, the median a marker, a line for its interval. A group may be None. Rows that
    `looks` has, {label: look}, have their own."""
    for i, (row, values) in enumerate(zip(labels, groups)):
        if values is None:  # a line for something else
            continue
        style = looks.get(row, look)
        y, good = shift - i, np.isfinite(values)
        ax.plot(np.asarray(values)[good], np.full(good.sum(), y), "o", ms=4, alpha=0.3,
                color=style["color"])
        middle, low, high = interval(values)
        if np.isfinite(middle):
            if np.isfinite(low):  # with less than six seeds there is no interval
                ax.plot([low, min(high, np.max(np.asarray(values)[good]))], [y, y], lw=2,
                        color=style["color"])
            ax.plot(middle, y, style["marker"], ms=9, color=style["color"], zorder=3)
        else:  # the median run diverged
            ax.plot(0.97, y, "X", ms=10, color=style["color"], transform=ax.get_yaxis_transform())
    if label:
        ax.plot([], [], look["marker"] + "-", color=look["color"], label=label)
    ax.set(ylim=(0.6 - len(labels), 0.6), **axes)
    row_labels(ax, -np.arange(len(labels)), labels)


def row_labels(ax, heights, labels):
    """At these heights, in type that fits between rows 1 apart; after the limits are set."""
    lines = 1 + max(label.count("\n") for label in labels)
    ax.set_yticks(heights, labels, fontsize=min(0.93 * matplotlib.rcParams["font.size"],
                                                310 / np.ptp(ax.get_ylim()) / lines))


def beside(ax, parts, shift=0.0, below=False):
    """Above the rows of a `forest`, or below, their numbers: the parts, or None."""
    for i, part in enumerate(parts):
        if part is not None and np.isfinite(part.median):
            ax.annotate(in_symbols(str(part)), (part.median, shift - i), (0, -9 if below else 9),
                        textcoords="offset points", ha="center", va="top" if below else "bottom",
                        fontsize=matplotlib.rcParams["legend.fontsize"],
                        bbox=dict(facecolor="white", edgecolor="none", pad=1))


def heat(ax, values, rows, columns, together=None, **labels):
    """A matrix as a picture on a log scale of at most four decades from its least number (or the
    least of all that is compared with it, `together`), each number written into its cell; a cross
    for what is not finite."""
    good = np.isfinite(values) & (values > 0)
    logs = np.where(good, np.log10(np.where(good, values, 1)), np.nan)
    every = np.asarray(values if together is None else together)
    every = np.log10(every[np.isfinite(every) & (every > 0)])
    low, high = (every.min(), min(every.max(), every.min() + 4)) if every.size else (0, 1)
    ax.imshow(logs, cmap="cividis", aspect="auto", vmin=low, vmax=high)
    for (i, j), value in np.ndenumerate(values):
        ax.text(j, i, short(value, 2) if good[i, j] else "X", ha="center", va="center",
                fontsize="small" if len(columns) > 4 else None,
                color="white" if good[i, j] and logs[i, j] < (low + high) / 2 else "black")
    ax.set_xticks(range(len(columns)), [each if isinstance(each, str) else f"{each:g}"
                                        for each in columns])
    ax.set_yticks(range(len(rows)), rows)
    ax.set(**labels)
    ax.grid(False)


def on_path(ax, x, y, iteration, last):
    """y against x (seeds, points), where both are positive; the colour is the iteration (points,)
    on a scale from 0 to the last. Returns the dots, for a colour bar."""
    colour = np.broadcast_to(iteration, x.shape)
    shown = (x > 0) & (y > 0)
    ax.set(xscale="log", yscale="log")
    return ax.scatter(x[shown], y[shown], c=colour[shown], s=14, cmap="cividis", vmin=0,
                      vmax=last or 1)  # 1: a run of one point


def power(ax, x, y, slope):
    """Through the middle of points, log against log, the line of this slope, and one of slope 1."""
    shown = (x > 0) & (y > 0)
    if shown.any() and np.isfinite(slope):
        across, up = np.log(x[shown]), np.log(y[shown]).mean()
        ends = np.array([across.min(), across.max()])
        for each, style in ((slope, dict(color="#882255", ls="-", label="slope of the points")),
                            (1, dict(color="#444444", ls="--", label="slope 1"))):
            ax.plot(np.exp(ends), np.exp(up + each * (ends - across.mean())), lw=2.5, **style)


def note(ax, text):
    """The number that a panel shows, between the panel and its title, where it hides nothing; to
    be called after the title is set."""
    words = ax.annotate(in_symbols(text), (0.5, 1), (0, 5), xycoords="axes fraction", ha="center",
                        va="bottom", textcoords="offset points",
                        fontsize=matplotlib.rcParams["legend.fontsize"])
    ax.set_title(ax.get_title(), fontsize=ax.title.get_fontsize(),
                 pad=8 + 1.3 * words.get_fontsize() * (1 + text.count("\n")))


def marks(ax, x, y, decisions):
    """A mark for each part, from x on, at the height y."""
    for j, word in enumerate(decisions):
        ax.plot(x + 0.005 + 0.0125 * j, y, ms=8, mew=1.5, **MARKS[word])
