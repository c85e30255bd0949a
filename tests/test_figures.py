"""Figures: every kept one is drawn from its arrays, alike on every machine; what a panel shows."""

import functools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import matplotlib
import matplotlib.style
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

import commands
import plotting
import questions
import verdicts
from verdicts import Measured, short

ROOT = Path(__file__).parent.parent
FIGURES = ROOT / "figures"
ALL = [(level, name) for level in commands.LEVELS for name in commands.NAMES[level]
       if commands.claim_of(name)[0] != "Draft"]  # of which nothing need be kept
AXES = ("iteration", "point", "share", "quantiles", "n", "rates", "scales", "shapes", "depths",
        "sigmas", "iterations", "sizes", "target", "prompt", "used", "lengths")


def lines_of(ax):
    return [(line.get_xdata(), line.get_ydata()) for line in ax.get_lines()]


# ---- Whole figures -------------------------------------------------------------------------------


@pytest.mark.parametrize("level, name", ALL)
def test_kept_figures(level, name):
    """Headline and caption are those that are kept."""
    arrays, found = commands.load(name, FIGURES, level)
    headline, caption = commands.drawing(name, level)(Figure(), arrays, found["parts"])
    kept = (commands.place(level, FIGURES) / f"{name}.txt").read_text(encoding="utf-8")
    assert kept.startswith(f"{headline} ({commands.said(found)})\n") and caption in kept
    assert "nan" not in headline.replace("Gaussian", "").split()
    assert (commands.place(level, FIGURES) / f"{name}.npz").stat().st_size < 400_000


@pytest.mark.parametrize("level, name", (("published", "softmax_vs_linear"),
                                         ("published", "adam_vs_sgd"), ("robust", "adam_vs_sgd")))
def test_no_label_covers_another(level, name):
    """At the ends of lines that end near each other."""
    figure = commands.draw(name, *commands.load(name, FIGURES, level))
    for ax in figure.axes:
        ends = [text.get_window_extent() for text in ax.texts if text.get_gid() == "end"]
        for i, one in enumerate(ends):
            assert not any(one.y0 < other.y1 - 2 and other.y0 < one.y1 - 2 for other in ends[:i])


@pytest.mark.parametrize("level, name", ALL)
def test_runs_that_all_diverged_leave_empty_panels(level, name, everything):
    """A figure of nothing but NaN: no traceback."""
    arrays, found = commands.load(name, everything, level)
    arrays = {key: values if values.dtype.kind != "f" or key.endswith(AXES)
              else np.full(values.shape, np.nan) for key, values in arrays.items()}
    found["parts"] = {key: each if isinstance(each.values, str) else each._replace(
        values=np.full(each.values.shape, np.nan), median=np.nan)
        for key, each in found["parts"].items()}
    with np.errstate(all="ignore"):
        commands.drawing(name, level)(Figure(), arrays, found["parts"])
        if name in ("adam_vs_sgd", "screen"):
            commands.draw(name, arrays, found)


def test_a_readers_style_has_no_part_in_it(tmp_path):
    """Dark colours, other sizes, TeX that is not there, a backend that is not there: same bytes."""
    text = ("import sys, commands\ncommands.save_figures('depth', 'robust', sys.argv[1])\n")
    (tmp_path / "rc").mkdir()
    (tmp_path / "rc" / "matplotlibrc").write_text(
        "axes.facecolor: black\ntext.color: white\nsavefig.bbox: tight\ntext.usetex: True\n"
        "savefig.dpi: 30\nfont.size: 4\n")
    for i, environment in enumerate(({}, dict(MATPLOTLIBRC=str(tmp_path / "rc"), MPLBACKEND="no"))):
        folder = tmp_path / str(i) / "robust"
        folder.mkdir(parents=True)
        for form in ("npz", "json"):
            (folder / f"depth.{form}").write_bytes(
                (FIGURES / "robust" / f"depth.{form}").read_bytes())
        subprocess.run([sys.executable, "-c", text, tmp_path / str(i)], cwd=ROOT, check=True,
                       env={**os.environ, **environment})
    for form in ("png", "pdf"):
        one, other = ((tmp_path / str(i) / "robust" / f"depth.{form}").read_bytes() for i in (0, 1))
        assert one == other


def test_parts_that_are_not_measured_are_named():
    arrays, parts = commands.load("depth", FIGURES)[0], [("gap", "a label", [1.0])]
    with pytest.raises(ValueError, match=r"^found: got parts, wants verdicts.measured\(parts\)$"):
        plotting.picture(commands.experiments.draw_depth, arrays, parts)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("panel", (
    lambda ax: plotting.on_path(ax, -np.ones((2, 2)), np.ones((2, 2)), np.arange(2), 1),
    lambda ax: plotting.dots(ax, ["a"], [np.full(2, np.inf)], yscale="log"),
    lambda ax: plotting.curves(ax, [0, 1], np.full((2, 1, 2), np.nan), ["SGD"], yscale="log"),
    lambda ax: plotting.curves(ax, [0, 1], -np.ones((2, 1, 2)), ["SGD"], yscale="log"),
    lambda ax: plotting.dots(ax, ["a"], [-np.ones(2)], yscale="log")))
def test_nothing_positive_on_a_log_axis_is_no_warning(panel):
    """An empty panel."""
    plotting.picture(lambda figure, *_: [panel(figure.subplots()), ("", "")][1], {}, {})


def test_slides_fill_the_page_with_one_panel():
    arrays, found = commands.load("depth", FIGURES)
    slides = list(plotting.slides(commands.experiments.draw_depth, arrays, found["parts"],
                                  "published: not reproduced"))
    assert len(slides) == 3
    for figure in slides:
        (ax,) = figure.axes
        box = ax.get_position()
        assert box.width > 0.6 and box.height > 0.5
        assert ax.get_title() and ax.get_xlabel() and ax.get_ylabel()
        assert ax.title.get_fontsize() > ax.xaxis.label.get_fontsize()
        assert figure.get_suptitle().startswith("C9: depth raises Adam's lead")


def test_a_slide_has_its_own_labels():
    """Those that a panel left to its neighbours, and none of theirs; the title of its column."""
    def draw(figure, arrays, found):
        panels = figure.subplots(2, 2)
        for ax in panels.flat:
            ax.set(xlabel="x", ylabel="y")
        panels[0, 1].set_title("right")
        panels[1, 1].set_xlabel("")
        return "headline", "caption"

    slides = list(plotting.slides(draw, {}, {}))
    assert [(each.axes[0].get_xlabel(), each.axes[0].get_ylabel(), each.axes[0].get_title())
            for each in slides] == [("x", "y", ""), ("x", "y", "right"), ("x", "y", ""),
                                    ("", "y", "right")]
    for figure in slides:
        (ax,) = figure.axes
        assert all(text.get_visible() for text in (ax.xaxis.label, ax.yaxis.label, ax.title))


def test_a_slide_has_the_legend_of_what_it_shows_and_what_lies_behind_it():
    def draw(figure, arrays, found):
        first, second, third = figure.subplots(1, 3)
        for ax, label in ((first, "SGD"), (second, "SGD"), (third, "noise")):
            ax.plot([0, 1], label=label)
        first.legend()
        second.twinx().set_label("<behind>")
        return "headline", "caption"

    slides = list(plotting.slides(draw, {}, {}))
    assert [len(each.axes) for each in slides] == [1, 2, 1]
    first, second, third = (each.axes[0].get_legend() for each in slides)
    assert first and second.get_texts()[0].get_text() == "SGD" and third is None
    panel, behind = slides[1].axes
    assert panel.get_position().bounds == behind.get_position().bounds


@pytest.mark.parametrize("name", ("lead", "depth"))
def test_nothing_of_a_slide_is_cut_off(name):
    """Headline, verdict and legend lie on the page, and the names of rows not on each other."""
    arrays, found = commands.load(name, FIGURES)
    for figure in commands.draw(name, arrays, found, plotting.slides):
        figure.draw_without_rendering()
        page = figure.bbox
        for each in (figure._suptitle, *figure.legends):
            box = each.get_window_extent()
            assert page.x0 <= box.x0 and box.x1 <= page.x1 and box.y1 <= page.y1
        boxes = [text.get_window_extent() for text in figure.axes[0].get_yticklabels()]
        if name == "lead":
            assert len(boxes) > 9 and all(after.y1 <= before.y0 + 1
                                          for before, after in zip(boxes, boxes[1:]))


def test_the_scoreboard_shows_every_primary_part():
    found = commands.findings(FIGURES)
    claims = [name for name in commands.EVERY if commands.is_claim(name)]
    board = {name: {level: found.get((name, level)) for level in commands.LEVELS}
             for name in claims}
    figure = Figure()
    commands.draw_scoreboard(board, figure, {}, {})
    marks = [line for line in figure.axes[0].get_lines() if line.get_marker() in "oX"]
    primary = [each for finding in found.values() for each in finding["parts"].values()
               if each.primary]
    assert len(marks) == len(primary) + 3  # those of the legend
    crosses = sum(line.get_marker() == "X" for line in marks)
    assert crosses == 1 + sum(each.decision == "against" for each in primary)


def test_a_figure_needs_no_file():
    """Arrays as a function returns them, lists among them, as well as those of a file."""
    arrays, found = commands.load("depth", FIGURES, "robust")
    lists = {name: values.tolist() for name, values in arrays.items()}
    figure = plotting.picture(commands.drawing("depth", "robust"), lists, found["parts"])
    kept = (FIGURES / "robust" / "depth.txt").read_text(encoding="utf-8")
    assert kept.startswith(f"{figure.headline} (")


# ---- What a panel shows --------------------------------------------------------------------------


@functools.cache
def strange(level, name):
    """A kept figure, drawn from random numbers, no two of them alike; with arrays and parts."""
    rng, figure = np.random.default_rng(0), Figure()
    arrays, found = commands.load(name, FIGURES, level)
    arrays = {key: rng.lognormal(size=values.shape) if values.dtype.kind == "f"
              and not key.endswith(AXES) else values for key, values in arrays.items()}
    parts = {key: each if isinstance(each.values, str) else each._replace(
        values=(values := rng.lognormal(size=each.values.shape)), median=np.median(values))
        for key, each in found["parts"].items()}
    commands.drawing(name, level)(figure, arrays, parts)
    return figure, arrays, parts


def marked(ax, marker):
    """Numbers of what is marked so, line by line, without that of a legend."""
    return [line.get_ydata() for line in ax.get_lines() if line.get_marker() == marker
            and line.get_ls() == "None" and len(line.get_ydata())]


def groups_of(ax):
    """Of `dots` the groups and the heights of their bars, as they were drawn."""
    seeds = [line.get_ydata() for line in ax.get_lines() if line.get_ls() == "None"
             and line.get_alpha() is not None]
    bars = [line.get_ydata() for line in ax.get_lines() if line.get_marker() == "None"
            and line.get_ls() == "-" and line.get_lw() > 3]
    return seeds, bars


def late(path, start):
    """The median over a path (..., points) from this point on."""
    return np.median(path[..., start:], axis=-1)


COLUMNS = "Spherical x", "Gaussian x", "Setting 3"
SETTINGS = [f"Setting {k}" for k in (1, 2, 3)]


@pytest.mark.parametrize("level, name, panel, names, key", (
    ("published", "adam_vs_sgd", 0, "optimizers", "Setting 1 loss"),
    ("published", "adam_vs_sgd", 1, "optimizers", "Setting 2 loss"),
    ("published", "softmax_vs_linear", 0, "kinds", "loss"),
    ("published", "full_batch", 1, "optimizers", "Setting 3 loss"),
    ("published", "larger_model", 0, "optimizers", "loss"),
    ("published", "nonlinear_regression", 0, "optimizers", "loss"),
    ("robust", "softmax_vs_linear", 0, "best kinds", "best loss"),
    ("robust", "nonlinear_regression", 0, "optimizers", "smoothness"),
    ("robust", "nonlinear_regression", 1, "optimizers", "R_med")))
def test_a_panel_of_curves(level, name, panel, names, key):
    """Of each optimizer or kind the median over seeds, against the iteration, in its colour."""
    figure, arrays, _ = strange(level, name)
    x = next(arrays[axis] for axis in ("iteration", "point")
             if axis in arrays and len(arrays[axis]) == arrays[key].shape[-1])
    lines = {line.get_label().split(": ")[0]: line for line in figure.axes[panel].get_lines()}
    for i, each in enumerate(arrays[names]):
        np.testing.assert_allclose(lines[each].get_xydata().T,
                                   [x, np.median(arrays[key][:, i], axis=0)])
        assert lines[each].get_color() == plotting.look(each, i)["color"]


def test_the_path_of_the_last_layer():
    figure, arrays, _ = strange("published", "polynomial")
    lines = {line.get_label(): line for line in figure.axes[2].get_lines()}
    for i, each in enumerate(("SGD", "Adam", "SGD, theory")):
        np.testing.assert_allclose(lines[each].get_xydata().T, [
            arrays["iteration"], np.median(arrays["last"][:, i], axis=0)])
    assert any((line.get_ydata() == arrays["best last"]).all() for line in figure.axes[2].lines
               if len(line.get_ydata()) == 2)


@pytest.mark.parametrize("level, name, panel, of", (
    ("published", "gradient_noise", 1, "Setting 2"), ("robust", "gradient_noise", 2, "Setting 3"),
    ("published", "larger_model", 1, "L = 8, d = 20, n = 60"),
    ("robust", "larger_model", 0, "L = 8, d = 20, n = 60"),
    ("robust", "nonlinear_regression", 2, "MLP")))
def test_a_panel_of_tails(level, name, panel, of):
    """The share of the draws against the ratio reached, the median over seeds and, dashed, that of
    Gaussian vectors; what one draw in a hundred exceeds is written beside both."""
    figure, arrays, _ = strange(level, name)
    ax, middle = figure.axes[panel], np.median(arrays[f"{of} tail"], axis=0)
    for line, x in zip(ax.get_lines(), (middle, arrays[f"{of} null"])):
        np.testing.assert_allclose(line.get_xydata().T, [x, arrays["share"]])
    assert ax.get_lines()[1].get_linestyle() == "--"
    at = np.abs(arrays["share"] - 0.01).argmin()
    for x in (middle[at], arrays[f"{of} null"][at]):
        assert any(text.get_text() == short(x, 2) and text.xy == (x, 0.01)
                   for text in ax.texts if hasattr(text, "xy"))


@pytest.mark.parametrize("level, name, panel, groups", (
    ("published", "heavy_tails", 0, lambda a, f: [f[f"{each} noise"].values for each in COLUMNS]),
    ("published", "heavy_tails", 1, lambda a, f: [
        f[f"{each} steps {name}"].values for name in ("SGD", "Adam") for each in COLUMNS]),
    ("published", "heavy_tails", 2, lambda a, f: [f[f"{each} R_med"].values for each in COLUMNS]),
    ("published", "heavy_tails", 3, lambda a, f: [
        f[f"{each} SGD / Adam"].values for each in COLUMNS]),
    ("published", "depth", 2, lambda a, f: a["first ratio"].T),
    ("published", "stable_rate", 2, lambda a, f: a["1,000 without the rarest"].T),
    ("robust", "adam_vs_sgd", 0, lambda a, f: [f[f"{each} loss"].values for each in SETTINGS]),
    ("robust", "adam_vs_sgd", 1, lambda a, f: [
        over for each in SETTINGS for over in (a[f"{each} best rates quantiles"][:, 0]
                                               / a[f"{each} best rates quantiles"][:, 1]).T]),
    ("robust", "generalized_smoothness", 0, lambda a, f: [
        f[f"{each} slope"].values for each in SETTINGS]),
    ("robust", "generalized_smoothness", 1, lambda a, f: [
        f[f"{each} spectral slope"].values for each in SETTINGS]),
    ("robust", "heavy_tails", 0, lambda a, f: [
        f[f"{each} steps SGD"].values / f[f"{each} steps Adam"].values for each in COLUMNS]),
    ("robust", "heavy_tails", 1, lambda a, f: [f[f"{each} R_med"].values for each in COLUMNS]),
    ("robust", "depth", 0, lambda a, f: a["ratio at 0.5"].T),
    ("robust", "depth", 2, lambda a, f: a["ratio at 0.005"].T),
    ("robust", "learning_rates", 0, lambda a, f: [
        f[f"{each} {name}"].values for name in ("SGD", "Adam") for each in SETTINGS])))
def test_a_panel_of_dots(level, name, panel, groups):
    """A mark for each seed, and a bar at their median, from left to right."""
    figure, arrays, parts = strange(level, name)
    dots, bars = groups_of(figure.axes[panel])
    for dot, bar, wanted in zip(dots, bars, groups(arrays, parts), strict=True):
        np.testing.assert_allclose(dot, wanted)
        np.testing.assert_allclose(bar, 2 * [np.median(wanted)])


@pytest.mark.parametrize("level, panel, rows", (
    ("published", 1, lambda a: {
        f"{kind},\niteration {t:,}": values for t in (1250, 750) for kind, values in (
            ("ours", a[f"Setting 2, iteration {t} first batch"]), ("the paper", None))}),
    ("robust", 2, lambda a: {f"iteration\n{t:,}": a[f"Setting 3, iteration {t} typical batch"]
                             for t in (1250, 750)})))
def test_rows_of_C3(level, panel, rows):
    """From top to bottom a dot for each seed and their median, at the row of its name."""
    figure, arrays, _ = strange(level, "condition_number")
    rows, ax = rows(arrays), figure.axes[panel]
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == list(rows)
    there = {-i: values for i, values in enumerate(rows.values()) if values is not None}
    for pale, wanted in ((True, there), (False, {y: [np.median(x)] for y, x in there.items()})):
        lines = [line for line in ax.get_lines() if line.get_marker() == "o"
                 and (line.get_alpha() is not None) == pale]
        assert len(lines) == len(wanted)
        for line in lines:
            (y,) = set(line.get_ydata())
            np.testing.assert_allclose(line.get_xdata(), wanted[y])


def ratio_of(values):
    return values[:, 0] / values[:, 1]


@pytest.mark.parametrize("level, name, panel, values", (
    ("published", "directional_smoothness", 2, lambda a, f: late(a["Setting 3 first batch"], 5)),
    ("robust", "directional_smoothness", 1, lambda a, f: late(a["Setting 2 typical batch"], 2)),
    ("robust", "directional_smoothness", 3, lambda a, f: late(a["Setting 1 together"], 2)),
    ("published", "nonlinear_regression", 1, lambda a, f: np.transpose(
        [f["MLP SGD"].values, f["MLP Adam"].values]))))
def test_a_panel_of_pairs(level, name, panel, values):
    """A line for each seed, from SGD to Adam, and a bar at each median."""
    figure, arrays, parts = strange(level, name)
    ax, values = figure.axes[panel], values(arrays, parts)
    joined = [line.get_ydata() for line in ax.get_lines() if list(line.get_xdata()) == [0, 1]
              and line.get_color() == "#BBBBBB"]
    np.testing.assert_allclose(joined, values)
    bars = [line.get_ydata()[0] for line in ax.get_lines() if line.get_lw() > 3]
    np.testing.assert_allclose(bars, np.median(values, axis=0))
    assert [text.get_text() for text in ax.get_xticklabels()] == ["SGD", "Adam"]


NOTES = """
published adam_vs_sgd 1: {Setting 2 SGD / Adam} times
published gradient_noise 1: skewness {Setting 2 skewness}
published condition_number 1: {Setting 2 750}
published condition_number 1: {Setting 2 1250}
published generalized_smoothness 0: slope {Setting 1 slope}
published generalized_smoothness 4: slope {Setting 2 spectral slope}
published softmax_vs_linear 0: the loss of predicting 0 after {linear steps} steps
published softmax_vs_linear 0: softmax (0.01): {softmax loss}
published larger_model 0: {L = 8, d = 20, n = 60 SGD / Adam} times
published larger_model 1: skewness {skewness}
published depth 0: {L = 8 SGD / Adam} times
published depth 1: deep over shallow (2, 4): {noise}
published depth 2: deep over L = 2: {R_med}
published full_batch 1: SGD / Adam {Setting 3 SGD / Adam}, SGD / SignDescent
published full_batch 0: SGD / SignDescent {Setting 1 SGD / SignDescent}
published full_batch 1: {Setting 3 SGD / Adam} times
published nonlinear_regression 1: median of SGD / Adam: {MLP SGD / Adam}
robust adam_vs_sgd 0: {Setting 1 loss}, {Setting 2 loss}, {Setting 3 loss}
robust gradient_noise 2: 99 % / 50 % quantile {Setting 3 spread medians}
robust condition_number 0: {Setting 1 750}
robust condition_number 0: {Setting 1 1250}
robust generalized_smoothness 0: medians: {Setting 1 slope}, {Setting 2 slope}, {Setting 3 slope}
robust generalized_smoothness 1: medians: {Setting 1 spectral slope}, {Setting 2 spectral slope}
robust softmax_vs_linear 0: softmax (0.002): {softmax loss}
robust larger_model 0: skewness {skewness medians}
robust heavy_tails 0: heavy-tailed / on the sphere: {gain}
robust heavy_tails 1: heavy-tailed / on the sphere: {R_med}
robust depth 0: deep over L = 2: {R_med 0.5}
robust depth 2: {R_med 0.005}, line: mean of L = 4, 6, 8
robust nonlinear_regression 0: {medians}
robust nonlinear_regression 1: over the path {R_med}
"""


@pytest.mark.parametrize("row", NOTES.strip().splitlines())
def test_the_number_above_a_panel(row):
    """Is that of its part."""
    level, name, panel, words = row.split(" ", 3)
    figure, _, parts = strange(level, name)
    wanted = re.sub("{(.*?)}", lambda key: str(parts[key[1]]), words).replace(" | ", "\n")
    texts = [text.get_text() for text in figure.axes[int(panel[:-1])].texts]
    assert any(plotting.in_symbols(wanted) in text for text in texts), texts


def test_the_paper_in_C3():
    """Its mean is a star in its row."""
    figure, arrays, _ = strange("published", "condition_number")
    stars = [line.get_xydata() for line in figure.axes[0].get_lines() if line.get_marker() == "*"]
    np.testing.assert_allclose(np.concatenate(stars), [
        (arrays[f"Setting 1, iteration {t} paper"][0], y) for t, y in ((1250, -1), (750, -3))])


def test_paths_in_C5():
    """Against the norm of the gradient, its colour the iteration: v^T H v, and the spectral norm at
    every second point."""
    figure, arrays, parts = strange("published", "generalized_smoothness")
    for panel, key, every in ((1, "Setting 2 curvature", 1), (4, "Setting 2 spectral", 2)):
        (dots,) = figure.axes[panel].collections
        x, t = arrays["Setting 2 norm"][:, ::every], arrays["iteration"][::every]
        np.testing.assert_array_equal(dots.get_offsets().T, [x.ravel(), arrays[key].ravel()])
        np.testing.assert_array_equal(dots.get_array(), np.tile(t, len(x)))
        assert dots.get_clim() == (0, arrays["iteration"][-1])
    for panel, part in ((1, "Setting 2 slope"), (4, "Setting 2 spectral slope")):
        for line, slope in zip(figure.axes[panel].get_lines(), (parts[part].median, 1)):
            x, y = np.log(line.get_xydata()).T
            assert (y[1] - y[0]) / (x[1] - x[0]) == pytest.approx(slope)


@pytest.mark.parametrize("level", commands.LEVELS)
def test_directions_in_C11(level):
    """Medians over seeds of v^T H v over that of the direction as it is; a colour for the gradient
    and one for the step, a marker for each setting."""
    figure, arrays, _ = strange(level, "clipping")
    lines = [line for line in figure.axes[1].get_lines() if len(line.get_xdata()) == 4]
    wanted = [(each, name) for each in ("gradient", "step") for name in SETTINGS]
    for line, (each, name) in zip(lines, wanted, strict=True):
        heights = late(arrays[f"{name}, Adam's path, {each}"], 1)  # (seeds, kinds)
        np.testing.assert_allclose(line.get_ydata(), np.median(
            heights / heights[:, :1], axis=0))
        assert line.get_color() == plotting.look(each, each == "step")["color"]
        assert line.get_marker() == "osv"[SETTINGS.index(name)]
    assert figure.axes[1].get_title() == "along Adam's path"


def test_depths_in_C9():
    """Final losses and the noise's tail against the number of layers."""
    figure, arrays, _ = strange("published", "depth")
    losses, noise, ratios = figure.axes
    sgd, adam = losses.get_lines()
    for line, key in ((sgd, "final SGD"), (adam, "final Adam"), (noise.get_lines()[0], "spread")):
        np.testing.assert_allclose(line.get_xdata(), (2, 4, 6, 8))
        np.testing.assert_allclose(line.get_ydata(), np.median(arrays[key], axis=0))
    assert [text.get_text() for text in ratios.get_xticklabels()] == ["2", "4", "6", "8"]


def test_grids_of_rates():
    """Median loss at each rate over the lowest of the setting, a star at the best, a circle at the
    rate in use; below the best rate for each length."""
    figure, arrays, _ = strange("published", "learning_rates")
    finals = {each: np.median(arrays[f"Setting 2 {each} final"], axis=1) for each in plotting.LOOKS}
    least = min(np.min(final) for final in finals.values())
    lines = {line.get_label(): line for line in figure.axes[1].get_lines()}
    for (each, final), below in zip(finals.items(), figure.axes[4].get_lines()[::2]):
        key = f"Setting 2 {each}"
        for line, x, y in ((lines[each], arrays[f"{key} rates"], final / least),
                           (below, arrays[f"{key} lengths"], arrays[f"{key} best"])):
            np.testing.assert_allclose(line.get_xydata().T, [x, y])
    star, circle = ([line for line in figure.axes[1].get_lines() if line.get_marker() == marker][0]
                    for marker in "*o")
    best = np.log(arrays["Setting 2 SGD final"]).mean(axis=1).argmin()
    assert star.get_xydata().tolist() == [[arrays["Setting 2 SGD rates"][best],
                                           finals["SGD"][best] / least]]
    assert circle.get_xdata() == arrays["Setting 2 SGD used"] == 0.01


@pytest.mark.parametrize("name, panel, groups", (
    ("granularity", 0, lambda a, f: a["Setting 1 ends"] / a["Setting 1 ends"][
        list(a["scalings"]).index("Adam")]),
    ("screen", 0, lambda a, f: a["bench behind"].T[
        [list(a["candidates"]).index(each) for each in a["ranked"]]]),
    ("screen", 1, lambda a, f: a["Setting 1 behind"].T[
        [list(a["candidates"]).index(each) for each in a["ranked"]]]),
    ("polynomial", 1, lambda a, f: a["ends"] / a["ends"][list(a["names"]).index("Adam")]),
    ("reduced_model", 0, lambda a, f: [
        f[f"{each} SGD"].values for each in questions.REDUCED if f"{each} over" in a])))
def test_a_forest(name, panel, groups):
    """From top to bottom: a dot for each seed, and a marker at their median."""
    figure, arrays, parts = strange("published", name)
    lines, groups = figure.axes[panel].get_lines(), groups(arrays, parts)
    lines = [line for line in lines if len(line.get_xdata())]
    dots = [line for line in lines if line.get_alpha() == 0.3][: len(groups)]
    dots.sort(key=lambda dot: -dot.get_ydata()[0])
    for dot, wanted in zip(dots, groups, strict=True):
        np.testing.assert_allclose(dot.get_xdata(), wanted)
        middle, = [line for line in lines if line.get_alpha() is None and len(line.get_xdata()) == 1
                   and line.get_ydata()[0] == dot.get_ydata()[0]]
        assert middle.get_xdata()[0] == pytest.approx(np.median(wanted))
    assert np.all(np.diff([dot.get_ydata()[0] for dot in dots]) < 0)


def test_rows_of_lead():
    """Left the constant rate, right the falling one: a marker a length at its median, from pale to
    dark, hollow where the interval holds 1; a line over the interval of the longest."""
    figure, arrays, parts = strange("published", "lead")
    names = [text.get_text().removesuffix(", best rates").removesuffix(", all of P and Q")
             for text in figure.axes[0].get_yticklabels()]
    for ax, kind in zip(figure.axes, ("constant", "falling"), strict=True):
        for name, y in zip(names, ax.get_yticks(), strict=True):
            lines = [line for line in ax.get_lines() if len(line.get_ydata())
                     and (line.get_ydata() == y).all()]
            run = [parts[f"{name} {kind} {length}"] for length in arrays[f"{name} {kind}"]]
            dots = [line for line in lines if line.get_marker() == "o"]
            for line, part in zip(dots, run, strict=True):
                low, high = part.interval
                assert line.get_xdata().tolist() == [part.median]
                assert (line.get_mfc() == "white") == (low <= 1 <= high)
            assert [line.get_xdata().tolist() for line in lines if line.get_marker() != "o"] == [
                list(part.interval) for part in run[-1:]]


def test_norms_of_layers():
    """Against the layer: of each optimizer at the end, of one at the start."""
    figure, arrays, parts = strange("published", "gradient_norms")
    for ax, L in zip(figure.axes, (3, 8), strict=True):
        norms = arrays[f"L = {L} best rate"]
        lines = {line.get_label(): line.get_ydata() for line in ax.get_lines()}
        for label, norm in (("first step", norms[0, 0]), ("SGD, end", norms[1, 0]),
                            ("Adam, end", norms[1, 1])):
            np.testing.assert_allclose(lines[label], norm)
        assert f"Adam {parts[f'L = {L} best rate Adam end']}" in ax.texts[0].get_text()


def test_the_best_remedy_is_framed():
    figure, arrays, _ = strange("published", "messy_data")
    ax = figure.axes[0]
    kinds = [text.get_text() for text in ax.get_yticklabels()]
    frames = [line for line in ax.get_lines() if len(line.get_xdata()) == 5]
    for i, (kind, frame) in enumerate(zip(kinds, frames, strict=True)):
        best = np.median(arrays[f"{kind} risk"][:, 1], axis=-1).argmin()
        assert np.mean(frame.get_xdata()[:4]) == pytest.approx(best)
        assert np.mean(frame.get_ydata()[:4]) == pytest.approx(i)


def test_the_maps_of_initialization():
    """A row a depth, a column a scale: the median over seeds, of whom the title tells."""
    figure, arrays, _ = strange("published", "initialization")
    titles = {"the paper's blocks": "blocks", "all of P and Q": "full matrices"}
    for ax in figure.axes:
        each, where = ax.get_title().removeprefix("final loss, ").removesuffix(" trained").split(", ")
        for i, L in enumerate(ax.get_yticklabels()):
            wanted = np.median(arrays[f"{L.get_text()}, {titles[where]} {each}"], axis=-1)
            cells = {text.get_position()[0]: text.get_text() for text in ax.texts
                     if text.get_position()[1] == i}
            assert [cells[j] for j in range(4)] == [short(number, 2) for number in wanted]


def test_the_edge():
    """Medians of the two lower rates, all seeds of the highest: over the limit."""
    figure, arrays, _ = strange("published", "edge_of_stability")
    for line, name in zip(figure.axes[0].get_lines(), arrays["names"]):
        np.testing.assert_allclose(line.get_ydata(), np.median(arrays[name], axis=0))


def test_every_model_of_the_screen_is_drawn():
    """Right, a row a candidate, from top to bottom the models, in the look of the legend."""
    figure, arrays, _ = strange("published", "screen")
    names = list(arrays["candidates"])
    lines = [line for line in figure.axes[1].get_lines() if len(line.get_xdata())]
    dots = sorted((line for line in lines if line.get_alpha() == 0.3),
                  key=lambda line: -line.get_ydata()[0])
    colours = {line.get_label(): line.get_color() for line in figure.axes[1].get_lines()
               if not len(line.get_xdata())}
    models = [model for model in questions.CONDITIONS if f"{model} behind" in arrays]
    wanted = [(model, names.index(each)) for each in arrays["ranked"] for model in models]
    for dot, (model, k) in zip(dots, wanted, strict=True):
        np.testing.assert_allclose(dot.get_xdata(), arrays[f"{model} behind"][:, k])
        assert dot.get_color() == colours[str(model)]


def test_the_panels_of_stable_rate():
    figure, arrays, parts = strange("published", "stable_rate")
    for ax, name in zip(figure.axes, arrays["batches"], strict=True):
        assert ax.get_title() == name
        assert [text.get_text() for text in ax.get_xticklabels()] == [
            f"{rate:g}" for rate in arrays["rates"]]
        assert ax.texts[0].get_text() == f"safe up to {parts[f'{name} stable']}"
        seeds, _ = groups_of(ax)
        np.testing.assert_allclose(seeds[: len(arrays["rates"])], arrays[str(name)].T)


def test_both_series_of_reduced_model():
    figure, arrays, parts = strange("published", "reduced_model")
    ax, = figure.axes
    lines = [line for line in ax.get_lines() if len(line.get_xdata())]
    dots = sorted((line for line in lines if line.get_alpha() == 0.3),
                  key=lambda line: -line.get_ydata()[0])
    wanted = [(case, each) for case in questions.REDUCED if f"{case} over" in arrays
              for each in ("SGD", "Adam")]
    for dot, (case, each) in zip(dots, wanted, strict=True):
        np.testing.assert_allclose(dot.get_xdata(), parts[f"{case} {each}"].values)
        assert dot.get_color() == plotting.LOOKS[each]["color"]
    looks = {line.get_label(): line.get_color() for line in ax.get_lines()
             if not len(line.get_xdata())}
    assert all(looks[each] == plotting.LOOKS[each]["color"] for each in ("SGD", "Adam"))
    outside = [str(parts[f"{case} {each}"]) for case, each in wanted
               if not 0.5 <= parts[f"{case} {each}"].median <= 2]
    assert sorted(text.get_text() for text in ax.texts) == sorted(outside)


def test_what_it_learns_is_drawn():
    """Three layers' P above their Q; against the depth the final loss and the three least losses;
    of the longer runs the seeds; and a bracket from the loss of four layers to the best numbers."""
    figure, arrays, parts = strange("published", "what_it_learns")
    panels = {ax.get_title().split(",")[0]: ax for ax in figure.axes if ax.get_title()}
    for which, letter in enumerate("PQ"):
        tiles = panels[letter].images[0].get_array()
        for layer in range(3):
            np.testing.assert_allclose(tiles[:, 6 * layer : 6 * layer + 5],
                                       arrays["weights"][(0, 2, 4, 1, 3, 5)[3 * which + layer]])
    lines = {line.get_label(): line for line in panels["final loss"].get_lines()}
    for label, y in (("Adam", np.median(arrays["final"][:, 0], axis=0)),
                     ("L gradient steps, one step size", arrays["least one size"]),
                     ("L gradient steps, L step sizes", arrays["least L sizes"]),
                     ("best multiples of the identity", arrays["least P = g I"])):
        np.testing.assert_allclose(lines[label].get_xydata().T, [(1, 2, 3, 4), y])
    for label in ("five times the steps", "five times the steps, falling rate"):
        np.testing.assert_allclose(lines[label].get_ydata(), arrays[f"L = 4, {label}"])
    ends = parts["L = 4 loss"].median, arrays["least P = g I"][3]
    bracket, = [text for text in panels["final loss"].texts if not text.get_text()]
    assert sorted([bracket.xy[1], bracket.get_position()[1]]) == pytest.approx(sorted(ends))


def test_what_stands_above_and_beside_the_rows_of_lead():
    """Left the constant rate; in grey the group of the rows below; one row is at published rates;
    where all of P and Q are trained it says so."""
    figure, arrays, _ = strange("published", "lead")
    left, right = figure.axes
    assert (left.get_title(), right.get_title()) == (
        "at a constant rate", "at a rate that falls to 0")
    rows = dict(zip((text.get_text() for text in left.get_yticklabels()), left.get_yticks()))
    assert list(rows)[:2] == ["Setting 1, published rates", "Setting 1, best rates"]
    assert "softmax attention, all of P and Q" in rows and "L = 8" in rows
    heads = {text.get_text(): text.get_position()[1] for text in left.texts}
    for word, first in (("DATA", "n = 5 (Setting 2)"), ("DEPTH", "L = 2")):
        assert heads[word] == rows[first] + 1
    assert "below 1 SGD ends lower, above 1 Adam" in right.get_xlabel()
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    colours = [handle.get_color() for handle in figure.legends[0].legend_handles]
    lengths = sorted({int(n) for key, values in arrays.items()
                      if key.endswith((" constant", " falling")) for n in values})
    assert labels == [f"{n:,} steps" for n in lengths if f"{n:,} steps" in labels] + [
        "open who ends lower", "interval, longest run"]
    pale = [sum(to_rgb(colour)) for colour in colours[:-2]]
    assert sorted(pale, reverse=True) == pale and len(set(pale)) == len(pale)


def test_the_scatter_of_lead():
    """A point a row of other data or depth, its name beside it."""
    arrays, found = commands.load("lead", FIGURES)
    parts = found["parts"]
    figure = plotting.picture(functools.partial(questions.scatter_of_lead, 1000), arrays, parts)
    ax, = figure.axes
    assert (ax.get_xlabel().split(",")[0], ax.get_ylabel()) == (
        "SGD's final loss", "SGD's final loss / Adam's")
    points = {text.get_text(): text.xy for text in ax.texts}
    assert {"Setting 1", "L = 8", "label noise"} <= set(points)
    assert not {"no clipping", "batch 16", "Setting 1, published rates"} & set(points)
    for name, point in points.items():
        assert point == (parts[f"{name} falling 1000 SGD"].median,
                         parts[f"{name} falling 1000"].median)
    drawn = {line.get_xydata()[0].tolist()[0] for line in ax.get_lines() if line.get_marker() == "o"}
    assert drawn == {x for x, _ in points.values()}


# ---- Panels --------------------------------------------------------------------------------------


@pytest.fixture
def ax():
    with matplotlib.style.context(["default", plotting.STYLE]):
        yield Figure().subplots()


def test_curves(ax):
    """Median and range over seeds, a name at the end; a cross where a seed diverged."""
    series = np.array([[[1, 2, 3.0]], [[4, 5, 6]], [[2, np.nan, np.nan]]])  # (seeds, names, points)
    plotting.curves(ax, [0, 10, 20], series, ["Adam"])
    (x, middle), (where, last) = lines_of(ax)
    assert middle.tolist() == [2, 3.5, 4.5] and (where, last) == ([0], [2])
    band = ax.collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == 1 and band[:, 1].max() == 6
    assert [text.get_text() for text in ax.texts] == ["Adam"]
    assert ax.get_lines()[0].get_color() == plotting.LOOKS["Adam"]["color"]


def test_dots(ax):
    """Every seed a mark, the median a bar, not the mean; series stand beside each other, with
    their own marker, and their seeds in the same order each time, which is not their own."""
    looks = dict(color="#009E73", marker="^"), dict(color="#882255", marker="D")
    for i, values in enumerate(([[1.0, 2.0, 90.0, 3.0, 4.0]], [[5.0, 6.0, 70.0, 7.0, 8.0]])):
        plotting.dots(ax, ["a"], values, looks[i], (i, 2))
    seeds, bar, others, other_bar = ax.get_lines()
    assert list(seeds.get_ydata()) == [1, 2, 90, 3, 4] and list(bar.get_ydata()) == [3, 3]
    assert [seeds.get_marker(), others.get_marker()] == ["^", "D"]
    for line, end in ((seeds, bar), (others, other_bar)):
        assert min(end.get_xdata()) < min(line.get_xdata()) < max(line.get_xdata()) < max(
            end.get_xdata())
        x = list(line.get_xdata())
        assert sorted(x) not in (x, x[::-1])
    assert max(bar.get_xdata()) < min(other_bar.get_xdata())
    assert list(plotting.scattered(5)) == list(plotting.scattered(5))


def test_a_median_that_is_infinite_is_a_cross(ax):
    plotting.dots(ax, ["a"], [[1.0, np.inf, np.inf]])
    assert ax.get_lines()[1].get_marker() == "X" and lines_of(ax)[1][1] == [0.96]


def test_a_forest_of_few_seeds_has_no_interval(ax):
    """A row of its own look; a number above it, and one below, at the median."""
    mine = dict(color="#009E73", marker="^")
    plotting.forest(ax, ["a", "b"], [np.arange(1.0, 7), np.arange(1.0, 6)], looks={"b": mine})
    few = [line for line in ax.get_lines() if set(line.get_ydata()) == {-1}]
    assert [line.get_marker() for line in few] == ["o", "^"]  # the seeds, the median
    assert {line.get_color() for line in few} == {"#009E73"}
    six = [line for line in ax.get_lines() if set(line.get_ydata()) == {0}]
    assert [1, 6] in [list(line.get_xdata()) for line in six]
    parts = verdicts.measured([verdicts.Part("a", "", [2.0, 3, 4])])
    plotting.beside(ax, [None, parts["a"]])
    plotting.beside(ax, [parts["a"]], 0.5, below=True)
    above, below = ax.texts
    assert [above.xy, below.xy] == [(3, -1), (3, 0.5)]
    assert above.get_position()[1] > 0 > below.get_position()[1]


def test_equal_factors_look_equal():
    """On logarithmic axes, without moving their middle."""
    axes = Figure().subplots(1, 2)
    for ax, limits in zip(axes, ((0.001, 10), (1, 4))):
        ax.set(yscale="log", ylim=limits)
    plotting.same_decades(*axes)
    (low, high), (least, most) = (ax.get_ylim() for ax in axes)
    assert high / low == pytest.approx(1e4) == most / least
    assert low * high == pytest.approx(0.01) and least * most == pytest.approx(4)


def test_a_label_stays_where_the_axis_below_is_another():
    """But not where it is the same."""
    def draw(figure, arrays, found):
        for column, right in zip(figure.subplots(2, 2).T, (1, 2)):
            column[0].set(xlabel="x", xlim=(0, 1))
            column[1].set(xlabel="x", xlim=(0, right))
        return "headline", "caption"

    same, other, *_ = plotting.picture(draw, {}, {}).axes
    assert not same.xaxis.label.get_visible() and other.xaxis.label.get_visible()


def test_one_point_and_none(ax):
    """A path of one point is a dot; one without any, a cross at the top."""
    plotting.curves(ax, [0, 10], np.array([[[1.0, np.nan], [np.nan, np.nan]]]), ["SGD", "Adam"])
    path, diverged, at_once = ax.get_lines()
    assert [path.get_marker(), diverged.get_marker(), at_once.get_marker()] == ["o", "X", "X"]
    assert at_once.get_color() == plotting.LOOKS["Adam"]["color"]


def test_a_note_stands_between_panel_and_title():
    def draw(figure, arrays, found):
        ax = figure.subplots()
        ax.plot([0, 1], [0, 1])
        ax.set_title("title")
        plotting.note(ax, "two\nlines")
        return "headline", "caption"

    figure = plotting.picture(draw, {}, {})
    (ax,) = figure.axes
    panel, words, title = (each.get_window_extent() for each in (ax, ax.texts[0], ax.title))
    assert panel.y1 < words.y0 < words.y1 < title.y0


def test_labels_that_overlap_give_way_to_both_sides():
    def draw(figure, arrays, found):
        series = np.array([[[0, 1.0], [0, 1.01], [0, 0.0], [0, 2.0]]])
        plotting.curves(figure.subplots(), [0, 1], series, ["a", "b", "at the axis", "at the top"])
        return "headline", "caption"

    (ax,) = plotting.picture(draw, {}, {}).axes
    a, b, low, high = (text.xyann[1] for text in ax.texts)
    assert a < -1 and b > 1 and a + b == pytest.approx(0, abs=0.1)
    assert low == high == pytest.approx(0, abs=0.1)


def test_ticks_are_of_one_kind(ax):
    """1, 2, 5 on less than two decades; else decimals, or powers where these get long."""
    def labels(low, high):
        ax.set(yscale="log", ylim=(low, high))
        plotting.one_kind_of_ticks(ax)
        return [plotting.in_symbols(text.get_text()) for text in ax.get_yticklabels()
                if text.get_text() and low <= text.get_position()[1] <= high]

    assert labels(0.09, 6) == ["0.1", "0.2", "0.5", "1", "2", "5"]
    ax.cla()
    assert labels(0.9e-5, 2) == [f"$10^{{{n}}}$" for n in (-5, -4, -3, -2, -1, 0)]


def test_tails(ax):
    """Median and band; all on one axis, unless one reaches further."""
    arrays = {"share": np.array([0.1, 1]), "A tail": np.array([[2.0, 1], [3, 1], [4, 1]]),
              "A null": np.array([1.5, 1])}
    plotting.tails(ax, arrays, "A")
    assert [x.tolist() for x, _ in lines_of(ax)] == [[3, 1], [1.5, 1]]
    band = ax.collections[0].get_paths()[0].vertices
    assert band[:, 0].min() == 1 and band[:, 0].max() == 4
    assert ax.get_lines()[1].get_linestyle() == "--" and ax.get_xlim() == (0.9, 20)
    assert plotting.rarity(arrays) == 10 and plotting.exceeded(arrays, "A") == (3, 1.5)
    assert plotting.rarity({"share": np.array([0.0001, 0.01, 1])}) == 100
    plotting.tails(ax, arrays | {"A tail": np.array([[70.0, 1]])}, "A")
    assert ax.get_xlim()[1] > 70


def test_limits(ax):
    """What lies beyond is an arrow at the edge."""
    plotting.dots(ax, ["a"], [[1.0, 2.0, 3.0, 99.0]])
    plotting.limits(ax, 0, 4)
    x = ax.get_lines()[0].get_xdata()[3]
    assert ax.get_ylim() == (0, 4)
    (arrow,) = (line for line in ax.get_lines() if line.get_marker() == "^")
    assert arrow.get_xdata() == [x]


def test_heat(ax):
    """Two digits a cell, a cross for what is not finite, rows from the top; four decades from the
    least number, or from the least of all that it is compared with."""
    values = np.array([[0.1234, np.inf], [98765.0, 0.0002]])
    plotting.heat(ax, values, ["a", "b"], [1, 2])
    assert [(*text.get_position(), text.get_text()) for text in ax.texts] == [
        (0, 0, "0.12"), (1, 0, "X"), (0, 1, "99000"), (1, 1, "0.00020")]
    assert ax.images[0].get_array()[1, 0] == pytest.approx(np.log10(98765))
    assert [text.get_text() for text in ax.get_yticklabels()] == ["a", "b"]
    assert list(ax.get_ylim()) == [1.5, -0.5] == ax.images[0].get_extent()[2:]
    low = np.log10(0.0002)
    assert ax.images[0].get_clim() == pytest.approx((low, low + 4))
    plotting.heat(ax, values, ["a", "b"], [1, 2], together=np.array([1e-5, 1e-3, np.inf, 0]))
    assert ax.images[1].get_clim() == pytest.approx((-5, -3))


def test_smoothness_axis(ax):
    """Both signs and 0 show."""
    ax.plot([0, 1, 2], [-5.0, 0.0, 300.0])
    plotting.smoothness_axis(ax)
    assert ax.get_yscale() == "symlog"  # of positive values alone it is a plain one
    assert min(ax.get_yticks()) < 0 < max(ax.get_yticks()) and 0 in ax.get_yticks()


def test_colours_are_told_apart_in_grey():
    """Orange and blue by lightness; all others at least by dash or marker."""
    def lightness(color):
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in
                  to_rgb(color)]
        return np.dot(linear, (0.2126, 0.7152, 0.0722)) ** (1 / 3)

    sgd, adam = (plotting.LOOKS[name] for name in ("SGD", "Adam"))
    assert abs(lightness(sgd["color"]) - lightness(adam["color"])) > 0.2
    looks = [sgd, adam, *plotting.OTHER_LOOKS]
    for cue in ("color", "marker", "ls"):
        assert len({json.dumps(look[cue]) for look in looks}) == len(looks)


def test_colours_are_told_apart_by_a_deuteranope():
    """Distances in CIELAB, as such eyes see them (Machado et al. 2009), of all pairs."""
    seen = np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]])
    to_xyz = np.array([[0.412, 0.358, 0.180], [0.213, 0.715, 0.072], [0.019, 0.119, 0.951]])

    def lab(color):
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in
                  to_rgb(color)]
        xyz = to_xyz @ np.clip(seen @ linear, 0, 1) / (0.950, 1, 1.089)
        x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
        return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])

    colours = [lab(look["color"]) for look in (*plotting.LOOKS.values(), *plotting.OTHER_LOOKS)]
    apart = [np.linalg.norm(one - other) for i, one in enumerate(colours) for other in colours[:i]]
    assert min(apart) > 15


def test_words():
    assert plotting.in_symbols("R_med, v^T H v, |x|^2") == "$R_{med}$, $v^THv$, $|x|^2$"
    found = {name: Measured("", [], median, decision=word) for name, median, word in (
        ("1 x", 1.5, "holds"), ("2 x", 7.0, "open"), ("Mine x", 0.123, "holds"))}
    assert plotting.span(found, ["1", "2", "Mine"], "{} x") == "0.12 to 7.0"
    assert plotting.span(found, ["1"], "{} x") == "1.5"
    assert plotting.those(found, ["1", "2", "Mine"], "{} x") == "in 1, Mine; undecided in 2"
    for names, words in ((SETTINGS, "Settings 1, 2, 3"), (["Setting 2"], "Setting 2"),
                         (["Setting 1", "Mine"], "Setting 1, Mine")):
        assert plotting.in_settings(names) == words
