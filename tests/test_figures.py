"""Every figure shows its arrays; and the table of experiments says what the docstrings say."""

import warnings

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

import data
import experiments
import plotting
import training
from experiments import EXPERIMENTS
from optimizers import SGD, Adam
from training import Run
from made_up import NAMES, curve, noises, same, world


# ---- The table -----------------------------------------------------------------------------------


def test_the_table_says_what_the_docstrings_say():
    """One line each, and the budget of the first look."""
    for name, row in EXPERIMENTS.items():
        first_line = row.measure.__doc__.split("\n")[0]
        assert first_line == f"{row.claim}: {row.claimed}" + "." * (row.claim != "Question")
        assert row.measure.__name__ == name
        assert row.draw.__name__ == f"draw_{name}"
    assert [row.claim for row in EXPERIMENTS.values() if row.claim != "Question"] == [
        *(f"C{i}" for i in range(1, 10)), "Protocol", "C10", "C11", "C12", "Cost"]
    questions = [row.claim == "Question" for row in EXPERIMENTS.values()]
    assert questions == sorted(questions)  # after the claims
    budgets = {name: experiments.default_run(name) for name in EXPERIMENTS}
    assert {name: (run.seeds, run.steps) for name, run in budgets.items()} == dict(
        adam_vs_sgd=(5, 800), gradient_noise=(5, 1000), condition_number=(5, 800),
        directional_smoothness=(5, 800), generalized_smoothness=(5, 600),
        softmax_vs_linear=(5, 150), larger_model=(5, 45), heavy_tails=(5, 300), depth=(5, 150),
        learning_rates=(5, 150), full_batch=(5, 100), clipping=(5, 300), initialization=(3, 100),
        tails_times_depth=(5, 40), label_noise=(5, 150), remedies=(2, 120),
        what_it_learns=(2, 270), one_layer=(2, 400), the_model=(5, 1000),
        condition_causes=(2, 300), granularity=(5, 150), schedules=(5, 70),
        edge_of_stability=(5, 400), nonlinear_regression=(5, 60), screen=(3, 75),
        attention_cost=(5, 1000))
    assert {name for name, run in budgets.items() if run.optimizers != (SGD, Adam)} == {
        "full_batch", "screen"}
    assert all(run.first_seed == 0 and run.lr is None for run in budgets.values())


BOTH = {"published", "robust"}
CLAIMED = {  # at which levels something is claimed: in a first look, and in a thorough run
    name: ({"published"}, BOTH) for name in (
        "adam_vs_sgd", "gradient_noise", "condition_number", "directional_smoothness",
        "generalized_smoothness", "softmax_vs_linear", "larger_model", "heavy_tails", "depth",
        "clipping", "nonlinear_regression")} | {
    name: ({"published"}, {"published"}) for name in ("full_batch", "attention_cost")} | {
    "learning_rates": ({"robust"}, {"robust"})}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_levels_of_the_table_are_those_at_which_something_is_claimed(name, small_world):
    """No part of a question has a bound; the docstring speaks of each level; no two parts of one
    experiment have the same name; and those that headline and notes name are measured."""
    for budget, claimed in zip((dict(seeds=5, steps=120), dict(seeds=5, steps=2000)),
                               CLAIMED.get(name, (set(), set()))):
        arrays, parts = EXPERIMENTS[name].measure(experiments.default_run(name).spend(**budget))
        assert {part.level for part in parts if part.bounded} == claimed
        names = [part.name for part in parts]
        assert len(set(names)) == len(names)
    row = EXPERIMENTS[name]
    numbers = {part.name: "1" for part in parts}  # of the thorough run
    assert plotting.filled([row.found], numbers) or not row.found
    figure = plotting.picture(row.draw, arrays, "", numbers)
    assert all(text.get_text() for ax in figure.axes for text in ax.texts if hasattr(
        text, "choices"))
    assert list(row.levels) == [level for level in ("published", "robust") if level in claimed]
    if name != "attention_cost":  # which the paper does not measure
        for level in row.levels:
            assert level in row.measure.__doc__.lower()


# ---- What there is to draw -----------------------------------------------------------------------


def matrices(case, points):
    """Snapshots of the right shape, with a Q that has a trace."""
    return -np.ones((points, 2, case.setting.layers, 2, 5, 5))


@pytest.fixture
def small_world(world, monkeypatch):
    """The made-up world with snapshots of the right shape, noise whose norms and Gaussian samples
    both vary, and evaluation batches of few prompts."""
    few = data.sample_prompts(np.random.default_rng(0), 20)
    monkeypatch.setattr(training, "evaluation_prompts", lambda setting, k: few)
    world.snapshots = matrices
    world.noise = lambda setting, seed, draws: noises(draws, 1 + seed % experiments.FRESH, null=2)
    return world


LENGTHS_OF_RUNS = {"usual": dict(seeds=3, steps=120), "thorough": dict(seeds=5, steps=2000),
                   "one seed and step": dict(seeds=1, steps=1)}
MEASURES = ("condition", "smoothness", "gradient_norm", "spectral_norm", "diagonal", "loss_at",
            "squared_errors", "clipped_smoothness", "sharpness")
# What is kept for the reader alone, besides `spent`: names of arrays end so.
UNDRAWN = {
    "adam_vs_sgd": (" rates for final loss", " steps", "quantiles"),
    "directional_smoothness": ("late point", " late"),
    "depth": ("iteration", "point", "share", " loss", " R_med", " tail", " null", " protocol"),
    "clipping": ("published point",),
    "one_layer": (*(f"gaussian x, n = {n} c" for n in (5, 10, 40, 80)),
                  *(f"{family} x, n = 20 least" for family in ("gamma", "sphere", "student")))}
THOROUGH_UNDRAWN = {"adam_vs_sgd": (" norm",), "clipping": (
    "published", "point", ", none", ", global", ", coordinates")}


def lose(world, lost, step):
    """Everything of the runs for which lost(case) is NaN from step(case) on."""
    def lost_curve(whole):
        return lambda case: np.where(
            lost(case) & (np.arange(case.steps) >= step(case)), np.nan, whole(case))

    def lost_measure(whole):
        return lambda case, point, batch: whole(case, point, batch) * (
            np.nan if lost(case) and point * case.every >= step(case) else 1)

    def lost_snapshots(case, points):
        snapshots = matrices(case, points)
        if lost(case):
            snapshots[np.arange(points) * case.every >= step(case)] = np.nan
        return snapshots

    for name in ("loss", "grad_norm"):
        setattr(world, name, lost_curve(getattr(world, name)))
    for name in MEASURES:
        setattr(world, name, lost_measure(getattr(world, name)))
    world.snapshots = lost_snapshots


def kept_arrays(name, kind, world, path):
    """What an experiment measures in a made-up world, after a round trip through a file; the arrays
    cannot be written to."""
    if kind.endswith("all diverged"):
        lose(world, lambda case: True, lambda case: 1)
        world.layer_gradients = lambda setting, seed: dict(first_last=np.array([np.inf, np.nan]))
    if kind.endswith("one optimizer diverged"):
        lose(world, lambda case: case.optimizer == "SGD", lambda case: 1)
    if kind.endswith("one seed diverged"):
        lose(world, lambda case: case.number == 1, lambda case: case.steps / 2)
    run = experiments.default_run(name).spend(**LENGTHS_OF_RUNS[kind.partition(",")[0]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        arrays, _ = EXPERIMENTS[name].measure(run)
    np.savez(path, **arrays)
    with np.load(path, allow_pickle=False) as stored:
        kept = dict(stored)
    assert kept.keys() == arrays.keys()
    for each in kept.values():
        each.flags.writeable = False
    return kept


class Recorded(dict):
    """A dict that knows which of its entries were looked at."""

    def __init__(self, entries):
        super().__init__(entries)
        self.read = set()

    def __getitem__(self, name):
        self.read.add(name)
        return super().__getitem__(name)


def drawn(name, kind, kept, monkeypatch):
    """The panels of an experiment's figure, drawn from the arrays alone, without a warning: nothing
    can be trained or measured meanwhile. All that is kept is looked at."""
    kept, figure = Recorded(kept), Figure()
    with warnings.catch_warnings(), monkeypatch.context() as patch:
        warnings.simplefilter("error")
        for method in ("train", "tune", "along", "all"):
            patch.delattr(Run, method)
        patch.delattr(training, "evaluation_prompts")
        caption = EXPERIMENTS[name].draw(figure, kept)
    ends = UNDRAWN.get(name, ())
    if kind.startswith("thorough"):
        ends += THOROUGH_UNDRAWN.get(name, ())
    assert kept.keys() - kept.read - {"spent"} == {each for each in kept if each.endswith(ends)}
    assert caption.endswith(".")
    assert all(ax.get_legend() is None or ax.get_legend().get_texts() for ax in figure.axes)
    return plotting.panels_of(figure)


TRAINED = [name for name in EXPERIMENTS if name not in experiments.WITHOUT_OPTIMIZERS]
OF_THEIR_OWN = (  # figures that are drawn by more than `curves` and `tails`
    "condition_number", "condition_causes", "generalized_smoothness", "clipping", "one_layer",
    "learning_rates", "full_batch",
    "initialization", "tails_times_depth", "label_noise", "remedies", "what_it_learns",
    "granularity", "schedules", "screen")


@pytest.mark.parametrize("name, kind", [
    *((name, "one seed and step") for name in EXPERIMENTS),
    *((name, "thorough, all diverged") for name in TRAINED),
    *((name, "thorough, one seed diverged") for name in OF_THEIR_OWN),
    *((name, "thorough, one optimizer diverged") for name in ("full_batch", "screen", "schedules"))])
def test_draws_what_there_is(name, kind, small_world, monkeypatch, tmp_path):
    """The usual and the thorough case are below: what each panel shows."""
    kept = kept_arrays(name, kind, small_world, tmp_path / "x.npz")
    assert drawn(name, kind, kept, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("name, kind", [
    ("condition_number", "thorough"), ("depth", "usual"), ("label_noise", "usual"),
    ("what_it_learns", "usual")])
def test_figures_are_laid_out_without_a_warning(name, kind, small_world, tmp_path):
    """And no text is cut off at the edge of the figure."""
    with warnings.catch_warnings(), matplotlib.rc_context(plotting.STYLE):
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", DeprecationWarning)  # matplotlib's, of its own parts
        kept = kept_arrays(name, kind, small_world, tmp_path / "x.npz")
        figure = plotting.picture(EXPERIMENTS[name].draw, kept, "A headline")
        for ax in figure.axes:
            box = ax.get_tightbbox()
            assert box.x0 > -3 and box.x1 < figure.bbox.width + 3
            assert box.y0 > -3 and box.y1 < figure.bbox.height + 3


# ---- How a panel is drawn ------------------------------------------------------------------------


def panel():
    return Figure().subplots()


def test_curves():
    """Line: median over seeds; band: smallest to largest; a cross where a seed diverged."""
    ax, x = panel(), np.array([10.0, 20, 30])
    sgd = [[1.0, 2, 3], [2, 3, 90], [4, 5, 6]]
    other = [[7.0, np.nan, np.nan], [8, 9, 10], [9, 11, np.inf]]
    plotting.curves(ax, x, np.array([sgd, other]), ["SGD", "Lion"], title="a title")
    (first, second, *crosses) = ax.get_lines()
    assert first.get_color() == "#E69F00" and second.get_color() == plotting.look("", 1)["color"]
    same(first.get_xydata(), [[10, 2], [20, 3], [30, 6]])
    same(second.get_xydata(), [[10, 8], [20, 10], [30, 10]])
    band = ax.collections[0].get_paths()[0].vertices
    assert {(float(a), float(b)) for a, b in band} == {
        (10, 1), (20, 2), (30, 3), (10, 4), (20, 5), (30, 90)}
    assert [tuple(each.get_xydata()[0]) for each in crosses] == [(10, 7), (20, 11)]
    assert [(text.get_text(), text.xy) for text in ax.texts] == [
        ("SGD", (30, 6)), ("Lion", (30, 10))]
    assert ax.get_title() == "a title"


def test_curves_of_no_path_have_a_legend_of_their_own_and_no_crosses():
    ax = panel()
    series = np.array([[[1.0, np.nan], [1, 1]]])
    plotting.curves(ax, np.arange(2), series, ["Lion"], path=False, first=3)
    assert not ax.texts and len(ax.get_lines()) == 1 and ax.get_legend() is None
    assert ax.get_lines()[0].get_color() == plotting.look("", 3)["color"]
    ax = panel()
    plotting.curves(ax, np.arange(2), np.ones((5, 1, 2)), ["a", "b", "c", "d", "e"])
    assert not ax.texts and len(ax.get_legend().get_texts()) == 5


def test_curves_of_runs_that_all_diverged():
    ax = panel()
    plotting.curves(ax, np.arange(3), np.full((2, 2, 3), np.nan), ["SGD", "Adam"], yscale="log")
    assert not ax.get_lines() and not ax.texts and ax.get_ylim()[0] > 0


def test_looks_differ_in_colour_and_in_dash_and_marker():
    looks = [*plotting.LOOKS.values(), *plotting.OTHER_LOOKS]
    for key in ("color", "ls", "marker"):
        assert len({str(each[key]) for each in looks}) == len(looks)
    assert plotting.look("SGD", 3)["color"] == "#E69F00"
    assert plotting.look("Adam")["color"] == "#0072B2"
    assert len(plotting.OTHER_LOOKS) >= 6


def test_losses():
    """The named series of the optimizers against the iteration, on a log scale."""
    ax = panel()
    arrays = {"iteration": np.array([10.0, 20]), "optimizers": np.array(["Adam", "Lion"]),
              "a loss": np.array([[[1.0, 2]], [[3, 4]]]), "other": None}
    plotting.losses(ax, arrays, "a loss", ylabel="loss")
    adam, lion = ax.get_lines()
    assert adam.get_color() == "#0072B2" and lion.get_label() == "Lion"
    same(adam.get_xydata(), [[10, 1], [20, 2]])
    same(lion.get_xydata(), [[10, 3], [20, 4]])
    assert (ax.get_yscale(), ax.get_xlabel(), ax.get_ylabel()) == ("log", "iteration", "loss")
    plotting.losses(ax, arrays, "a loss", yscale="linear", xlabel="time")
    assert (ax.get_yscale(), ax.get_xlabel()) == ("linear", "time")


def test_drawn_tails():
    """A line for each seed, nothing cut off, whichever panel is the widest; dashed the Gaussian
    vectors."""
    share = experiments.tail_shares(1000)
    draws = np.array([np.linspace(0.5, 1.5, 1000), np.linspace(0.6, 1.4, 1000)])
    heavy = draws ** np.array([[4.0], [5.0]])
    arrays = {"share": share, "light tail": experiments.tail(draws),
              "light null": 1.1 - 0.1 * share,
              "heavy tail": experiments.tail(heavy), "heavy null": 1.3 - 0.2 * share}
    for order in (("light", "heavy"), ("heavy", "light")):
        axes = Figure().subplots(1, 2, sharex=True, sharey=True)
        for ax, name in zip(axes, order):
            plotting.tails(ax, arrays, name, title=name)
            first, second, dashed = ax.get_lines()
            same(first.get_xydata(), np.transpose([arrays[f"{name} tail"][0], share]))
            same(second.get_xydata(), np.transpose([arrays[f"{name} tail"][1], share]))
            same(dashed.get_xydata(), np.transpose([arrays[f"{name} null"], share]))
            assert dashed.get_linestyle() == "--" and first.get_linestyle() == "-"
            assert dashed.get_color() != first.get_color() == second.get_color()
            assert (ax.get_xscale(), ax.get_yscale(), ax.get_title()) == ("log", "log", name)
        for ax in axes:
            assert 5 < arrays["heavy tail"].max() < ax.get_xlim()[1] < 6
            assert ax.get_xlim()[0] < 1 and ax.get_ylim() == (share[0] / 1.5, 1)
            labels = [label.get_text() for label in ax.get_xticklabels()]
            assert labels == ["1", "2", "5"]


def test_drawn_tails_of_norms_that_are_not_finite():
    ax = panel()
    plotting.tails(ax, {"share": np.array([0.5, 1]), "x tail": np.array([[np.inf, 1], [1.2, 1]]),
                        "x null": np.array([1.1, 1])}, "x")
    assert 1.2 < ax.get_xlim()[1] < 1.3
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1", "1.1", "1.2"]


def test_drawn_dots():
    ax = panel()
    plotting.dots(ax, ["a", "b"], [[1.0, 2, 9], [4.0]], shift=0.5, yscale="log")
    dots_a, bar_a, dots_b, bar_b = ax.get_lines()
    same(dots_a.get_ydata(), [1, 2, 9])
    same(bar_a.get_xydata(), [[0.5, 18 ** (1 / 3)]])
    same(dots_b.get_xydata(), [[1.5, 4]])
    same(bar_b.get_xydata(), [[1.5, 4]])
    assert [label.get_text() for label in ax.get_xticklabels()] == ["a", "b"]


def test_drawn_matrix():
    """Each number in its cell; the colours span four decades at most."""
    ax = panel()
    values = np.array([[0.2, 3210.0, np.nan], [20.0, 1e30, np.inf]])
    plotting.heat(ax, values, ["one", "two"], [1, 2.5, 8])
    assert {text.get_position(): text.get_text() for text in ax.texts} == {
        (0, 0): "0.2", (1, 0): "3200", (2, 0): "X", (0, 1): "20", (1, 1): "1e30", (2, 1): "X"}
    same(ax.images[0].get_clim(), [np.log10(0.2), np.log10(0.2) + 4])
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1", "2.5", "8"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["one", "two"]
    assert [plotting.short(each) for each in (0.0313, 187, 9940, 2.3e5, 5.4e139, 1.2e-5)] == [
        "0.031", "190", "9900", "2e5", "5e139", "1e-5"]


def test_smoothness_is_drawn_with_both_signs():
    ax = panel()
    ax.plot([0, 1, 2, 3], [-2.0, 30, 0, np.nan])
    plotting.smoothness_axis(ax)
    assert ax.get_yscale() == "symlog" and ax.get_ylim()[0] < -2 and 0 in ax.get_yticks()


def test_smoothness_of_runs_that_all_diverged():
    """A line at 0, and no scale that would not know its size."""
    ax = panel()
    ax.plot([0, 1], [np.nan, np.nan])
    plotting.smoothness_axis(ax)
    assert ax.get_yscale() == "linear"
    same(ax.get_lines()[-1].get_ydata(), [0, 0])


def test_dots_on_a_path():
    """Both must be positive; the colour is the iteration, up to that of the last point."""
    ax, iteration = panel(), np.array([0, 50, 100])
    x = np.array([[1.0, 2, 3], [4, -5, 6]])
    y = np.array([[7.0, 0, 8], [9, 10, np.nan]])
    scatter = plotting.on_path(ax, x, y, iteration)
    same(scatter.get_offsets(), [[1, 7], [3, 8], [4, 9]])
    same(scatter.get_array(), [0, 100, 0])
    same(scatter.get_clim(), [0, 100])
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    same(plotting.on_path(panel(), x[:, :1], y[:, :1], iteration[:1]).get_clim(), [0, 1])


def nine_panels(figure, _):
    figure.subplots(3, 3)


@pytest.mark.parametrize("band", ((-300.0, 1e6), (-1e5, 1e8), (0.1, 40.0)))
def test_ticks_of_both_signs_do_not_cover_each_other(band):
    """The band may reach far beyond the lines."""
    ax = plotting.picture(nine_panels, {}).axes[0]
    ax.fill_between([0, 1], *band)
    ax.plot([0, 1, 2], [2.0, 5.0, 20.0])
    plotting.smoothness_axis(ax)
    ax.figure.draw_without_rendering()
    boxes = sorted((label.get_window_extent() for label in ax.get_yticklabels()
                    if ax.get_ylim()[0] <= label.get_position()[1] <= ax.get_ylim()[1]),
                   key=lambda box: box.y0)
    assert 2 <= len(boxes) <= 7
    assert all(below.y1 <= above.y0 for below, above in zip(boxes, boxes[1:]))


def test_labels_at_the_ends_of_lines_do_not_cover_each_other():
    ax = panel()
    for y, text in ((1.0, "upper"), (0.99, "lower"), (0.0, "far")):
        plotting.at_end(ax, 1, y, text, "#000000")
    ax.plot([0, 1], [0, 1])
    plotting.spread_labels(ax.figure)
    boxes = sorted((text.get_window_extent() for text in ax.texts), key=lambda box: box.y0)
    assert all(below.y1 <= above.y0 + 1 for below, above in zip(boxes, boxes[1:]))
    upper, lower, far = ax.texts
    assert upper.xyann[1] > lower.xyann[1] == 0 == far.xyann[1]


def four_panels(figure, arrays):
    """All of one title and with the same labels."""
    for ax in figure.subplots(2, 2).flat:
        ax.plot(arrays["x"], arrays["x"])
        ax.set(title="both", xlabel="x", ylabel="y")
    return "A caption."


def test_repeated_labels_are_hidden():
    figure = plotting.picture(four_panels, {"x": np.arange(3.0)}, "headline")
    panels = plotting.panels_of(figure)  # above left, above right, below left, below right
    assert [ax.get_title() for ax in panels] == ["both", "both", "", ""]
    assert [ax.get_xlabel() for ax in panels] == ["", "", "x", "x"]
    assert [ax.get_ylabel() for ax in panels] == ["y", "", "y", ""]
    assert figure.caption == "A caption." and figure.get_suptitle() == "headline"


def two_panels(figure, arrays):
    """One above the other, and a colour bar."""
    above, below = figure.subplots(2, 1)
    above.plot(arrays["x"], arrays["x"])
    below.plot(arrays["x"], 2 * arrays["x"])
    for ax in (above, below):
        ax.set(title="both", xlabel="x", ylabel="y")
    figure.colorbar(above.scatter(arrays["x"], arrays["x"], c=arrays["x"]), ax=[above, below])
    return "A caption."


def test_single_panels():
    """One figure a panel, which fills it, in larger type, with all its labels."""
    arrays = {"x": np.arange(3.0)}
    together = plotting.panels_of(plotting.picture(two_panels, arrays))
    figures = list(plotting.single_panels(two_panels, arrays, "headline"))
    assert len(figures) == 2 and all(figure.get_suptitle() == "headline" for figure in figures)
    for figure, small in zip(figures, together):
        (ax,) = figure.axes
        assert ax.get_title() == "both" and ax.title.get_visible() and ax.xaxis.label.get_visible()
        assert ax.xaxis.label.get_fontsize() > small.xaxis.label.get_fontsize()
        assert ax.get_position().width > 0.8
        same(ax.get_lines()[0].get_xydata(), small.get_lines()[0].get_xydata())


def test_a_panel_of_a_row_can_stand_alone():
    """On a slide it has the ticks of the axis that it shares, and the title of its column."""
    def draw(figure, arrays):
        for row in figure.subplots(2, 2, sharex="col", sharey="row"):
            for name, ax in zip(("left", "right"), row):
                ax.plot([1, 2], [1, 2])
                ax.set_title(name if ax.get_subplotspec().rowspan.start == 0 else "")
        return "A caption."

    *_, last = plotting.single_panels(draw, {}, "headline")
    (ax,) = last.axes
    assert ax.get_title() == "right"
    assert all(label.get_visible() and label.get_text() for axis in (ax.xaxis, ax.yaxis)
               for label in axis.get_ticklabels())


@pytest.mark.parametrize("letters, lines", [(40, (2, 2)), (80, (2, 3)), (120, (3, 3))])
def test_a_long_headline_takes_several_lines(letters, lines):
    """In the figure and, in larger type, on a slide; no symbol is torn apart."""
    text = ("word v^T H v " * 20)[:letters] + "\n(verdict)"
    (slide, *_), whole = plotting.single_panels(two_panels, {"x": np.arange(3.0)}, text), (
        plotting.picture(two_panels, {"x": np.arange(3.0)}, text))
    for figure, count in zip((whole, slide), lines):
        rows = figure.get_suptitle().split("\n")
        assert len(rows) == count and rows[-1] == "(verdict)"
        assert figure.get_suptitle().count("$v^THv$") == text.count("v^T H v")
        figure.draw_without_rendering()
        width = figure._suptitle.get_window_extent().width
        assert width < figure.bbox.width


# ---- What is drawn in each panel -----------------------------------------------------------------


def medians(x, series, names):
    """Lines of `curves`: of series (names, seeds, points) the median over seeds for each name."""
    return [(x, np.median(values, axis=0), str(name)) for name, values in zip(names, series)]


def of_optimizers(kept, x, what):
    """Lines of `curves` for each optimizer."""
    return medians(kept[x], kept[what], kept["optimizers"])


def dots_and_bars(groups, shift=0.0, places=range(99), label=None):
    """Lines of `dots`: the dots side by side about the group's place, and the bar of the geometric
    mean; and one for the legend."""
    lines = []
    for place, values in zip(places, groups):
        lines += [(place + shift + np.linspace(-0.12, 0.12, len(values)), values),
                  ([place + shift], [np.exp(np.log(values).mean())])]
    return lines + ([([], [], label)] if label else [])


def tail_lines(kept, name):
    """Lines of `tails`: the seeds and the Gaussian vectors."""
    return [(row, kept["share"]) for row in (*kept[f"{name} tail"], kept[f"{name} null"])]


TITLES = ("Setting 1: n = 20", "Setting 2: n = 5", "Setting 3: heavy-tailed x")
SIZES = "16", "64", "256", "1,000", "4,000"
TAILS = "Spherical x", "Gaussian x", "Setting 3"
FAMILIES = "gaussian", "sphere", "gamma", "student"
CONTEXTS = 5, 10, 20, 40, 80
CAUSES = "as published", "half the rates", "twice the rates", "full matrices"


def in_settings(ylabel, lines, titles=TITLES):
    """A row of panels: lines(name) of each of the paper's settings."""
    return [(title, ylabel, lines(name)) for title, name in zip(titles, NAMES)]


UNTITLED = "", "", ""  # as the row above


def adam_vs_sgd_panels(kept, ylabel, what):
    return [*in_settings("loss, published rates", lambda name: of_optimizers(
        kept, "iteration", f"{name} loss")), *in_settings(ylabel, lambda name: of_optimizers(
            kept, "iteration", f"{name} {what}"), UNTITLED)]


def heavy_tails_panels(kept):
    """Three rows: losses, tails, R_med."""
    titles = dict(zip(TAILS, ("Spherical x", "Gaussian x", TITLES[2])))
    return [(f"{titles[name]}\nrates: {kept[f'{name} protocol']}", "training loss", of_optimizers(
        kept, "iteration", f"{name} loss")) for name in TAILS] + [
        ("", "share above r", tail_lines(kept, name)) for name in TAILS] + [
        ("", "$R_{med}$", of_optimizers(kept, "point", f"{name} R_med")) for name in TAILS]


def depth_panels(kept, losses=()):
    layers, ratio = (2, 4, 6, 8), "ratio of $R_{med}$, SGD / Adam"
    return [
        ("final loss", "final loss", medians(
            layers, [kept["final SGD"], kept["final Adam"]], ("SGD", "Adam"))),
        ("gradient noise at initialisation", "99 % / 50 % quantile", [
            (layers, np.median(kept["spread"], axis=0))]),
        ("at the same iteration", ratio, medians(
            layers, [kept["first ratio"], kept["typical ratio"]], ("first batch", "typical"))),
        ("at the same loss", ratio, medians(
            layers, [kept[f"ratio at {loss}"] for loss in losses],
            [f"loss {loss}" for loss in losses]))]


def rate_panels(kept):
    """For each optimizer the final loss, over the lowest one, against the rate; the rate in use and
    the best one; below the best rate of a run of so many steps. The panel in the middle has the
    legend, with a name for each mark."""
    def above(name):
        found, finals = [], {each: kept[f"{name} {each} final"] for each in ("SGD", "Adam")}
        least = min(np.median(final, axis=1).min() for final in finals.values())
        for each, final in finals.items():
            rates, middle = kept[f"{name} {each} rates"], np.median(final, axis=1) / least
            used = rates == kept[f"{name} {each} used"]
            best = np.arange(7) == np.log(final).mean(axis=1).argmin()
            found += [(rates, middle, each), (rates[used], middle[used]),
                      (rates[best], middle[best])]
        return found + [([], [], word) for word in ("published", "best", "diverged")
                        if name == "Setting 2"]

    def below(name):
        return [(kept[f"{name} {each} lengths"], kept[f"{name} {each} best"], each)
                for each in ("SGD", "Adam")]
    return [*in_settings("final loss / the lowest", above),
            *in_settings("best rate", below, UNTITLED)]


def clipping_panels(kept, level):
    """A row a path; of the gradient and of the step four kinds."""
    def heights(name, each):
        return [np.median(kept[f"{name}, {each}'s path, {direction}, {level}"][
            ..., kept[f"{level} point"].size // 10 :], axis=-1).T
            for direction in ("gradient", "step")]
    return [panel for each in ("SGD", "Adam") for panel in in_settings(
        f"$v^T H v$, {each}'s path", lambda name: medians(
            range(4), heights(name, each), ("gradient", "step")))]


def condition_panels(kept, kinds):
    """R_med; and below, at two iterations (or at the end), the paper's number and
    each kind of ratio."""
    iterations = kept["iterations"]

    def below(name):
        groups = [kept[f"{name}, iteration {t} {kind}"] for t in iterations for kind in kinds]
        places = [(len(kinds) + 2) * i + k for i in range(len(iterations))
                  for k in range(1, len(kinds) + 1)]
        return dots_and_bars(groups, places=places)
    return [*in_settings("$R_{med}$", lambda name: of_optimizers(
        kept, "iteration", f"{name} path")),
        *in_settings("$R_{med}$, SGD / Adam", below, UNTITLED)]


def causes_panels(kept, sizes):
    return [*in_settings("$R_{med}$, SGD / Adam\non every batch", lambda name: dots_and_bars(
        kept[f"{name} on {size}"] for size in sizes)),
        *in_settings("$R_{med}$, SGD / Adam\ntypical of 5 batches", lambda name: dots_and_bars(
            kept[f"{name} with {cause}"] for cause in CAUSES), UNTITLED)]


def smoothness_panels(kept, kind, x, words):
    return in_settings(f"$v^T H v$\n{words}", lambda name: of_optimizers(
        kept, x, f"{name} {kind}"))


def softmax_panels(kept, **titles):
    return [(title, "training loss", medians(kept["iteration"], kept[f"{best}loss"],
                                             kept[f"{best}kinds"]))
            for best, title in titles.items()]


def full_batch_panels(kept, sizes):
    found = [(title, "loss, fixed batch", of_optimizers(
        kept, "iteration", f"{name}, fixed batch loss"))
        for title, name in ((TITLES[0], "Setting 1"), (TITLES[2], "Setting 3"))]
    cases = [f"batches of {size}" for size in sizes] + ["fixed batch"]
    places = [*range(len(sizes)), len(sizes) + 0.7]
    return found + [("", "ratio of final losses", [
        line for i, each in enumerate(("Adam", "SignDescent")) for line in dots_and_bars(
            [kept[f"{name}, {case} ratios"][i] for case in cases], 0.2 * i, places,
            f"SGD / {each}")])
        for name in ("Setting 1", "Setting 3")]


def what_it_learns_panels(kept):
    paths = "Q, last layer", "Q, first layer", "P, first layer"
    return [
        ("P, L = 3", "", []), ("Q, L = 3", "", []),
        ("share off the identity", "share", medians(kept["iteration"], kept["off"], paths)),
        ("final loss", "loss", medians(kept["depths"], kept["final"], ["Adam"]) + [
            (kept["depths"], kept["least one size"], "L steps, one size"),
            (kept["depths"], kept["least L sizes"], "L steps, L sizes"),
            (kept["depths"], kept["least P = g I"], "L sizes, P = g I")] + [
            (np.full(3, 4), kept[f"L = 4, {words}"], words) for words in (
                "five times the steps", "five times the steps, falling rate")])]


def one_layer_panels(kept):
    single = {what: dots_and_bars(kept[f"{family} x, n = 20 {what}"] for family in FAMILIES)
              for what in ("c", "loss")}
    least = np.array([kept[f"gaussian x, n = {n} least"] for n in CONTEXTS])
    ratio = np.array([np.median(kept[f"gaussian x, n = {n} loss"]) for n in CONTEXTS])
    return [("learnt / best step size c", "ratio", single["c"]),
            ("final / least loss", "ratio", single["loss"]),
            ("Gaussian x: loss", "loss", [
                (CONTEXTS, least, "d (d + 1) / (n + d + 1)"), (CONTEXTS, least * ratio, "Adam")])]


def cost_panels(kept):
    n, top = np.array([40.0, 80, 160]), np.median(kept["ms"][1, :, -1])
    return [("1,000 prompts, d = 5, three layers, one core", "ms per gradient", [
        *medians(kept["n"], kept["ms"], training.COST_FORMS),
        (n, 0.6 * top * (n / 160) ** 2)])]


def granularity_panels(kept, kinds):
    """Of the blocks' spectra neither that of the last P nor that of the last Q."""
    settings = {"constant rate": ["Setting 1"]}
    if len(kinds) == 3:
        settings = {"constant rate": NAMES, "L = 6, constant rate": ["Setting 1, L = 6"],
                    "falling rate": [f"{name}, falling rate" for name in NAMES]}
    found = [(kind, "final loss / Adam's", [
        (range(8), np.median(kept[f"{name} final"] / kept[f"{name} final"][-1], axis=1),
         name.removesuffix(", falling rate")) for name in settings[kind]]) for kind in kinds]
    return [*found, ("Hessian's blocks", "|eigenvalue|", [
        (np.arange(1, 26), kept["spectra"][b][::-1]) for b in range(4)])]


def screen_panels(kept):
    means = [np.exp(kept[f"{name} scores"].min(axis=1)) for name in NAMES]
    count = len(kept["contestants"])
    good = [(kept[f"{name} rates"][k][kept[f"{name} scores"][k] <= (
        kept[f"{name} scores"][k].min() + np.log(2))], k, 0.2 * (i - 1))
        for i, name in enumerate(NAMES) for k in range(count)]
    return [("at the best of seven rates", "", [
        (mean / mean.min(), range(count), name) for name, mean in zip(NAMES, means)]),
        ("rates within a factor 2 of the best", "", [
            (rates, np.full(len(rates), k + shift)) for rates, k, shift in good])]


# {experiment: function of the kept arrays}: of each panel the title, the label of the y axis, and
# the lines (x, y) or (x, y, label).
PANELS = {
    "adam_vs_sgd": lambda kept: adam_vs_sgd_panels(kept, "gradient norm", "norm"),
    "gradient_noise": lambda kept: in_settings("share above r", lambda name: tail_lines(
        kept, name)),
    "condition_number": lambda kept: condition_panels(kept, ["first batch"]),
    "condition_causes": lambda kept: causes_panels(kept, ["1,000", "10,000"]),
    "directional_smoothness": lambda kept: smoothness_panels(
        kept, "first batch", "iteration", "one batch"),
    "softmax_vs_linear": lambda kept: softmax_panels(kept, **{"": "one rate for each, ours"}),
    "larger_model": lambda kept: [
        ("L = 8, d = 20, n = 60", "training loss", of_optimizers(kept, "iteration", "loss")),
        ("gradient norm", "gradient norm", of_optimizers(kept, "iteration", "norm")),
        ("gradient noise", "share above r", tail_lines(kept, "L = 8, d = 20, n = 60"))],
    "heavy_tails": heavy_tails_panels,
    "depth": lambda kept: depth_panels(kept)[:3],
    "learning_rates": rate_panels,
    "the_model": lambda kept: [("a prompt Z", "", []), ("a layer", "", []), (
        "tails of x", "share above r", [(kept[f"{name} tail"], kept["share"], name)
                                        for name in ("sphere", "Gaussian", "Setting 3")])],
    "granularity": lambda kept: granularity_panels(kept, ["constant rate"]),
    "schedules": lambda kept: in_settings("final loss / Adam's, constant rate", lambda name: [
        line for i, each in enumerate(("SGD", "NormalizedSGD", "Adam")) for line in dots_and_bars(
            kept[f"{name} final"][i] / np.median(kept[f"{name} final"][2, 0]), 0.2 * (i - 1),
            label=each)]),
    "edge_of_stability": lambda kept: [
        ("SGD, Setting 1", "largest eigenvalue of the Hessian\nover 2 (1 + momentum) / learning "
         "rate", medians(
            kept["iteration"], [kept[f"rate {rate}"] for rate in (0.05, 0.1, 0.2)],
            [f"rate {rate}" for rate in (0.05, 0.1, 0.2)]))],
    "screen": screen_panels,
    "full_batch": lambda kept: full_batch_panels(kept, ("256",)),
    "clipping": lambda kept: clipping_panels(kept, "published"),
    "nonlinear_regression": lambda kept: [
        ("training loss", "training loss", of_optimizers(kept, "iteration", "loss")),
        ("gradient noise", "share above r", tail_lines(kept, "MLP")),
        ("robust condition number", "$R_{med}$", of_optimizers(kept, "point", "R_med")),
        ("directional smoothness", "$v^T H v$", of_optimizers(kept, "point", "smoothness"))],
    "label_noise": lambda kept: [
        ("final loss", "final loss", medians(
            range(5), kept["final"], ("SGD", "Adam")) + [(range(1, 5), kept["bayes"][1:])]),
        ("final loss minus Bayes risk", "final loss minus Bayes risk", medians(
            range(5), kept["excess"], ("SGD", "Adam")))],
    "remedies": lambda kept: [
        ("final loss", "final loss", dots_and_bars(kept["SGD"], label="SGD") + dots_and_bars(
            kept["Adam"], shift=0.3, label="Adam")),
        ("SGD / Adam", "ratio of final losses", dots_and_bars(kept["SGD"] / kept["Adam"]))],
    "what_it_learns": what_it_learns_panels,
    "one_layer": one_layer_panels,
    "attention_cost": cost_panels,
}
THOROUGH_PANELS = {  # where the figure is another one
    "adam_vs_sgd": lambda kept: adam_vs_sgd_panels(kept, "loss, best rates", "loss at best rates"),
    "condition_number": lambda kept: condition_panels(
        kept, ["first batch", "typical batch", "together"]),
    "condition_causes": lambda kept: causes_panels(kept, ["1,000", "10,000", "100,000"]),
    "directional_smoothness": lambda kept: [
        *smoothness_panels(kept, "typical batch", "point", "typical batch"),
        *smoothness_panels(kept, "together", "point", "mean over batches"),
        *smoothness_panels(kept, "first batch", "iteration", "one batch")],
    "softmax_vs_linear": lambda kept: softmax_panels(
        kept, **{"": "one rate for each, ours", "best ": "each at its best of six rates"}),
    "depth": lambda kept: depth_panels(kept, ("0.5", "0.05", "0.005")),
    "full_batch": lambda kept: full_batch_panels(kept, SIZES),
    "clipping": lambda kept: clipping_panels(kept, "robust"),
    "granularity": lambda kept: granularity_panels(
        kept, ["constant rate", "falling rate", "L = 6, constant rate"]),
}


AXES = ("share", "scales", "sigmas", "shapes", "SGD rates", "Adam rates", "SignDescent rates",
        " used")


def with_other_numbers(kept):
    """The same arrays, but for axes and rates, of numbers of which no two are alike."""
    rng = np.random.default_rng(0)
    return {name: rng.uniform(1, 9, np.shape(values)) if values.dtype == float and
            not name.endswith(AXES) else values for name, values in kept.items()}


@pytest.fixture
def show(small_world, monkeypatch, tmp_path):
    """(arrays, panels) of an experiment with other numbers in the place of its results."""
    def show(name, kind="usual"):
        kept = kept_arrays(name, kind, small_world, tmp_path / "x.npz")
        kept = with_other_numbers(kept)
        return kept, drawn(name, kind, kept, monkeypatch)
    return show


def lines_in(ax):
    """What is drawn in the numbers of both axes: no levels, no crosses at the top, no error
    bars."""
    bars = {line for each in ax.containers for line in (each[0], *each[1])}
    return [line for line in ax.get_lines()
            if line.get_transform() == ax.transData and line not in bars]


def levels_in(ax):
    """Heights of the lines across the panel."""
    across = ax.get_yaxis_transform(which="grid")
    return [line.get_ydata()[0] for line in ax.get_lines() if line.get_transform() == across]


# {number of the panel: heights} of such lines: no difference, neither sign, or what is published.
LEVELS = {
    "full_batch": dict.fromkeys((2, 3), [1]), "remedies": {1: [1]},
    "one_layer": dict.fromkeys((0, 1), [1]), "edge_of_stability": {0: [1]}, "schedules": dict.fromkeys(range(3), [1]),
    "directional_smoothness": dict.fromkeys(range(9), [0]), "nonlinear_regression": {3: [0]},
    "condition_number": dict.fromkeys(range(3, 6), [1]), "depth": {2: [1], 3: [1]},
    "condition_causes": dict.fromkeys(range(6), [1]),
    "softmax_vs_linear": {0: [5], 1: [5]}, "the_model": {2: [0.001]},
    "learning_rates": {3: [0.02, 0.02], 4: [0.01, 0.005], 5: [0.02, 0.02]},
    ("granularity", "usual"): {0: [1]}, ("granularity", "thorough"): {0: [1], 1: [1], 2: [1]}}
OF_THE_PAPER = ["paper", "1 batch", "typical", "100\ntogether"]
UNDER_DOTS = {  # what stands below the dots, in the order of their groups
    ("full_batch", "usual"): dict.fromkeys((2, 3), ["256", "fixed"]),
    ("full_batch", "thorough"): dict.fromkeys((2, 3), [*SIZES, "fixed"]),
    ("remedies", "usual"): dict.fromkeys((0, 1), [
        "none", "normalised\nx", "clipping", "weight\ndecay", "large\nbatch", "all\nfour"]),
    ("one_layer", "usual"): dict.fromkeys((0, 1), list(FAMILIES)),
    ("clipping", "usual"): dict.fromkeys(range(6), ["as it is", "0.9", "0.5", "sign"]),
    ("condition_number", "usual"): dict.fromkeys((3, 4, 5), ["paper", "1 batch"]),
    ("condition_number", "thorough"): dict.fromkeys((3, 4, 5), 2 * OF_THE_PAPER),
    ("condition_causes", "thorough"): dict.fromkeys((0, 1, 2), [
        "1,000", "10,000", "100,000"]) | dict.fromkeys((3, 4, 5), [
            "as\npublished", "half\nthe rates", "twice\nthe rates", "full\nmatrices"])}


@pytest.mark.parametrize("name, kind", [
    *((name, "usual") for name in PANELS),
    *((name, "thorough") for name in THOROUGH_PANELS)])
def test_each_panel_shows_its_arrays(name, kind, show):
    kept, panels = show(name, kind)
    wanted = (THOROUGH_PANELS if kind == "thorough" else PANELS)[name](kept)
    assert [ax.get_title() for ax in panels] == [title for title, _, _ in wanted]
    assert [ax.get_ylabel() for ax in panels] == [ylabel for _, ylabel, _ in wanted]
    for number, (ax, (_, _, lines)) in enumerate(zip(panels, wanted)):
        found, levels = lines_in(ax), LEVELS.get((name, kind), LEVELS.get(name, {}))
        assert levels_in(ax) == levels.get(number, [])
        below = UNDER_DOTS.get((name, kind), {}).get(number)
        assert below in (None, [label.get_text() for label in ax.get_xticklabels()])
        assert len(found) == len(lines)
        for line, (x, y, *label) in zip(found, lines):
            same(line.get_xdata(), x)
            same(line.get_ydata(), y)
            assert label in ([], [line.get_label()])


def cells(ax):
    """The texts in a matrix, row by row."""
    row_by_row = sorted(ax.texts, key=lambda text: text.get_position()[::-1])
    return [text.get_text() for text in row_by_row]


def test_matrices_show_their_arrays(show):
    kept, panels = show("initialization")
    order = [(f"final loss, {each}, {where}", f"{where} {each}")
             for where in ("blocks", "full matrices") for each in ("SGD", "Adam")]
    order += [(f"gradient norm, {where}", f"{where} norm") for where in ("blocks", "full matrices")]
    by_title = {ax.get_title(): ax for ax in panels}
    for title, key in order:
        rows = [np.median(kept[f"L = {L}, {key}"], axis=1) for L in (2, 4, 8)]
        assert cells(by_title[title]) == [plotting.short(each) for row in rows for each in row]
    kept, panels = show("tails_times_depth")
    for ax, what in zip(panels, kept["maps"]):
        assert ax.get_title().startswith(what[:8])
        assert cells(ax) == [plotting.short(each) for row in kept[what] for each in row]


def test_the_weights_show_their_arrays(show):
    """P and Q, layers from left to right, each with a scale of its own."""
    kept, panels = show("what_it_learns")
    for which, ax in enumerate(panels[:2]):
        (picture,) = ax.images
        tiles = picture.get_array().filled(np.nan)
        assert tiles.shape == (5, 17)
        mine = kept["weights"][which::2]
        for layer in range(3):
            same(tiles[:, 6 * layer : 6 * layer + 5], mine[layer])
        assert picture.get_clim() == (-np.abs(mine).max(), np.abs(mine).max())


def test_the_paper_is_drawn_beside_our_numbers(show):
    """A star at its mean, with its standard deviation, at both iterations."""
    _, panels = show("condition_number", "thorough")
    for ax, name in zip(panels[3:], NAMES):
        assert len(ax.containers) == 2
        for bars, t, place in zip(ax.containers, (750, 1250), (0, 5)):
            mean, std = experiments.PAPER_C3[name][t]
            same(bars[0].get_xydata(), [[place, mean]])
            low, high = bars[1]
            same([low.get_ydata()[0], high.get_ydata()[0]], [max(mean - std, 0.1 * mean),
                                                             mean + std])


def test_the_prompt_shows_its_array(show):
    kept, (matrix, layer, _) = show("the_model")
    same(matrix.images[0].get_array(), kept["prompt"])
    assert [text.get_text() for text in matrix.texts] == ["?"]
    assert matrix.texts[0].get_position() == (20, 5)
    assert len([text for text in layer.texts if text.get_text()]) == 5


def test_the_scatter_shows_its_arrays(small_world, monkeypatch, tmp_path):
    """What is positive, of both signs else; and the slopes of the finding. The spectral norm was
    measured at every second point."""
    kept = with_other_numbers(kept_arrays("generalized_smoothness", "usual", small_world,
                                          tmp_path / "x.npz"))
    kept["Setting 2 curvature"][0, 1], kept["Setting 2 spectral"][1, 0] = -1, 0
    panels = drawn("generalized_smoothness", "usual", kept, monkeypatch)
    assert len(panels) == 6
    for j, name in enumerate(NAMES):
        above, below = panels[j], panels[3 + j]
        norm = kept[f"{name} norm"]
        assert (above.get_ylabel(), below.get_ylabel()) == ("$v^T H v$", "spectral norm of H")
        for ax, step, y, what in (
                (above, 1, kept[f"{name} curvature"], "directional smoothness"),
                (below, 2, kept[f"{name} spectral"], "spectral norm")):
            trend = experiments.mean_trend(norm[:, ::step], y)
            same(ax.get_lines()[0].get_xydata().T, trend)
            shown = [(norm[seed, step * point], y[seed, point], 50 * step * point)
                     for seed, point in np.ndindex(y.shape) if y[seed, point] > 0]
            assert ax.get_title() == TITLES[j] and ax.get_xlabel() == "gradient norm"
            same(ax.collections[0].get_offsets(), [each[:2] for each in shown])
            same(ax.collections[0].get_array(), [each[2] for each in shown])
            assert ax.texts[0].choices == (f"slope {{{name}, whole path: slope of the {what}}}",)


def test_rates_at_which_runs_diverge_are_marked(small_world, monkeypatch, tmp_path):
    """At the top, one row of crosses for each optimizer, if any of its seeds diverged."""
    small_world.loss = lambda case: curve(case.steps, np.nan if (
        case.lr > 0.4 if case.optimizer == "SGD" else
        case.lr > 0.09 or case.lr > 0.04 and case.seed == 1) else 1.0)
    kept = kept_arrays("learning_rates", "usual", small_world, tmp_path / "x.npz")
    first, *_ = drawn("learning_rates", "usual", kept, monkeypatch)
    crosses = [line for line in first.get_lines() if line.get_marker() == "X"]
    same(crosses[0].get_xydata(), [[0.5, 0.96]])
    same(crosses[1].get_xydata(), [[0.05, 0.91], [0.1, 0.91]])
    assert [line.get_color() for line in crosses] == ["#E69F00", "#0072B2"]


def test_a_lost_seed_of_adam_leaves_the_others(small_world, monkeypatch, tmp_path):
    """One of them diverged under every schedule; the bars of SGD are those of all its seeds."""
    lose(small_world, lambda case: case.optimizer == "Adam" and case.number == 3, lambda case: 1)
    kept = kept_arrays("schedules", "thorough", small_world, tmp_path / "x.npz")
    for name, ax in zip(NAMES, drawn("schedules", "thorough", kept, monkeypatch)):
        of_sgd, _, of_adam = kept[f"{name} final"]  # (schedules, seeds)
        bars = lines_in(ax)[1:7:2]  # after the dots of each schedule
        unit = np.nanmedian(of_adam[0])
        same([bar.get_ydata()[0] for bar in bars], np.exp(np.log(of_sgd / unit).mean(axis=1)))


def colours_of_dots(ax):
    """The colour of each group of dots, and of the bar in it."""
    lines = [line for line in lines_in(ax) if len(line.get_xdata())]  # not those of the legend
    dots, bars = lines[::2], lines[1::2]
    return [(dot.get_color(), bar.get_color()) for dot, bar in zip(dots, bars)]


def test_dots_have_the_colours_of_their_optimizers(show):
    """Those of sign descent, and of what is no optimizer, are grey, with a black bar."""
    orange, blue, grey, black = "#E69F00", "#0072B2", "#444444", "#000000"
    _, (ends, ratio) = show("remedies")
    assert colours_of_dots(ends) == [(orange, orange)] * 6 + [(blue, blue)] * 6
    assert [text.get_text() for text in ends.get_legend().get_texts()] == ["SGD", "Adam"]
    assert colours_of_dots(ratio)[:6] == [(grey, black)] * 6
    _, panels = show("full_batch")
    for ax in panels[2:]:
        assert colours_of_dots(ax)[:4] == [(blue, blue)] * 2 + [(grey, black)] * 2


def test_the_line_through_a_scatter():
    """It has the mean of the seeds' slopes, 1 and 2, and goes through the geometric means of what is
    positive."""
    x = np.array([[1.0, 10, 100], [1, 10, 100]])
    y = np.array([[1.0, 10, 100], [1, 100, 10_000]])
    ends, heights = experiments.mean_trend(x, y)
    same(ends, [1, 100])
    same(np.log(heights[1] / heights[0]) / np.log(100), 1.5)
    same(np.sqrt(heights.prod()), 10**1.5)
    assert np.isnan(experiments.mean_trend(x, -y)).all()
