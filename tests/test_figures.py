"""Figures: every kept one is drawn from its arrays, alike on every machine; and what a panel shows."""

import json
import os
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

ROOT = Path(__file__).parent.parent
FIGURES = ROOT / "figures"
ALL = [(level, name) for level in commands.LEVELS for name in commands.NAMES[level]]


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
                                         ("published", "full_batch"), ("robust", "depth")))
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
    keep = ("iteration", "point", "share", "quantiles", "n", "rates", "scales", "shapes", "depths",
            "sigmas", "iterations", "sizes", "target", "prompt", "used", "lengths")
    arrays = {key: values if values.dtype.kind != "f" or key.endswith(keep)
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
        assert figure.get_suptitle().startswith("C9: final loss SGD / Adam from L = 2 to 8")


def test_a_slide_has_its_own_labels():
    """Those that a panel left to its neighbours, and none of theirs."""
    for name, labels in (("heavy_tails", ("iteration", "training loss")),
                         ("granularity", ("", "final loss / Adam's"))):
        arrays, found = commands.load(name, FIGURES)
        slides = plotting.slides(commands.drawing(name, "published"), arrays, found["parts"])
        figure = [next(slides), next(slides)][1]
        assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == labels
        assert figure.axes[0].xaxis.label.get_visible() and figure.axes[0].get_title()


def test_the_scoreboard_shows_every_primary_part():
    found = commands.findings(FIGURES)
    claims = [name for name in commands.EVERY if commands.claim_of(name)[0] != "Question"]
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
    arrays, found = commands.load("learning_rates", FIGURES)
    lists = {name: values.tolist() for name, values in arrays.items()}
    figure = plotting.picture(commands.drawing("learning_rates", "published"), lists,
                              found["parts"])
    assert figure.headline.endswith("in Settings 1, 2, 3: SGD 0.2, 0.02, 0.05; Adam 0.01, 0.01, 0.01")


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
    """Every seed a dot, the median a bar: not the mean."""
    plotting.dots(ax, ["a"], [[1.0, 2.0, 90.0]])
    (_, seeds), (_, bar) = lines_of(ax)
    assert list(seeds) == [1, 2, 90] and bar == [2]
    assert ax.get_lines()[1].get_marker() == "_"


def test_a_median_that_is_infinite_is_a_cross(ax):
    plotting.dots(ax, ["a"], [[1.0, np.inf, np.inf]])
    assert ax.get_lines()[1].get_marker() == "X" and lines_of(ax)[1][1] == [0.96]


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
    arrays = {"share": np.array([0.1, 1]), "A tail": np.array([[2.0, 1], [3, 1]]),
              "A null": np.array([1.5, 1])}
    plotting.tails(ax, arrays, "A")
    assert [x.tolist() for x, _ in lines_of(ax)] == [[2, 1], [3, 1], [1.5, 1]]
    assert ax.get_lines()[2].get_linestyle() == "--" and ax.get_xlim()[1] > 3


def test_heat(ax):
    """Two digits a cell, a cross for what is not finite, rows from the top."""
    plotting.heat(ax, np.array([[0.1234, np.inf], [98765.0, 0.0002]]), ["a", "b"], [1, 2])
    assert [text.get_text() for text in ax.texts] == ["0.12", "X", "99000", "0.00020"]
    assert ax.images[0].get_array()[1, 0] == pytest.approx(np.log10(98765))


def test_smoothness_axis(ax):
    """Both signs and 0 show."""
    ax.plot([0, 1, 2], [-5.0, 0.0, 300.0])
    plotting.smoothness_axis(ax)
    assert ax.get_yscale() == "symlog"
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


def test_symbols():
    assert plotting.in_symbols("R_med, v^T H v, |x|^2") == "$R_{med}$, $v^THv$, $|x|^2$"
