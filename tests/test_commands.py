"""What a user does at the command line and from Python, and what may go wrong there.

Most tests call `main` in this process, on an experiment made up for them, `toy`. A process of its
own costs a second or two: the few that have one are about consoles, signals and scripts.
"""

import ast
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from pathlib import Path

import matplotlib
import numpy as np
import pytest

import experiments
import optimizers
import plotting
import training
from data import SETTING_1
from experiments import EXPERIMENTS, Experiment, Part
from training import Run

PROJECT = Path(experiments.__file__).parent
FIGURES = PROJECT / "figures"
CHEAP = ("softmax_vs_linear", "--seeds", "2", "--steps", "10")


def command(*arguments, folder):
    """`python experiments.py ...`, called from a folder."""
    return subprocess.run([sys.executable, PROJECT / "experiments.py", *map(str, arguments)],
                          cwd=folder, capture_output=True, text=True, timeout=120)


def status_of(*arguments):
    """The exit status of the command line, in this process."""
    try:
        return experiments.main([str(each) for each in arguments])
    except SystemExit as stop:
        return stop.code


def toy(run=Run(seeds=2, steps=3)):
    """Toy: The first optimizer ends above the second."""
    (runs,) = run.train({"Setting 1": SETTING_1}).values()
    first, second = (runs[each]["loss"] for each in run.names[:2])  # (seeds, steps) each
    parts = [Part("ratio", first[:, -1] / second[:, -1], above=1)]
    return {"first": first, "second": second}, parts


def draw_toy(figure, arrays):
    for ax, name in zip(figure.subplots(1, 2), ("first", "second")):
        ax.plot(arrays[name].T)
    return "Losses of a toy."


class Here(training.Workers):
    """Workers that work in this process."""

    def submit(self, function, *arguments):
        future = Future()
        future.set_result(function(*arguments))
        return future


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory; two experiments, both the toy, and no processes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    monkeypatch.setattr(training, "Workers", Here)
    row = Experiment("Toy", "The first ends above the second", "in print", toy, draw_toy,
                     "the ratio is {ratio}", ("published",))
    monkeypatch.setattr(experiments, "EXPERIMENTS", {"toy": row, "other": row._replace(claim="T2")})
    return tmp_path


@pytest.fixture
def no_training(monkeypatch):
    """Nothing may be computed."""
    def refuse(*_):
        raise AssertionError("computed")

    monkeypatch.setattr(training, "compute", refuse)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A user's call, from a folder that is not the project's: (what it printed, its folder)."""
    folder = tmp_path_factory.mktemp("user")
    return command("adam_vs_sgd", "--seeds", 2, "--steps", 5, "--out", "a folder",
                   folder=folder), folder / "a folder"


@pytest.fixture
def kept(done, tmp_path):
    """A copy of that folder."""
    return Path(shutil.copytree(done[1], tmp_path / "kept"))


def bytes_of(folder, *suffixes):
    """Of all files but times.txt, whose numbers differ from call to call."""
    return {path.name: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()
            and path.name != "times.txt" and (not suffixes or path.suffix in suffixes)}


# ---- To run --------------------------------------------------------------------------------------


def test_no_name_lists_the_experiments(capsys):
    assert status_of() == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(EXPERIMENTS)
    assert lines[1].endswith(" C2: " + EXPERIMENTS["gradient_noise"].claimed)


def test_a_users_call(done):
    """What is printed, and which files are there."""
    printed, folder = done
    assert printed.returncode == 0 and printed.stderr == "" and printed.stdout.isascii()
    found = json.loads((folder / "adam_vs_sgd.json").read_text())
    assert printed.stdout == "\n  ".join([
        "C1: Adam beats SGD in Settings 1, 2 and 3", *found["lines"],
        "verdict: published: too short for a verdict: 2 seeds, wants 5; robust: needs --full",
        f"a folder{os.sep}adam_vs_sgd.png", "next: python experiments.py adam_vs_sgd --full"]) + "\n"
    assert sorted(bytes_of(folder)) == [f"adam_vs_sgd.{each}" for each in (
        "json", "npz", "pdf", "png", "txt")] + sorted(each.name for each in folder.glob("runs/*"))
    assert len(list(folder.glob("runs/train-*.npz"))) == 12
    assert (folder / "adam_vs_sgd.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "adam_vs_sgd.pdf").read_bytes().startswith(b"%PDF")
    ratios = [experiments.printed(found)[f"Setting {i}: final loss SGD / Adam"] for i in (1, 2, 3)]
    assert (folder / "adam_vs_sgd.txt").read_text(encoding="utf-8").startswith(
        f"C1: SGD's final loss is {', '.join(ratios)} times Adam's (published: too short for a "
        "verdict: 2 seeds, wants 5; robust: needs --full)\nClaimed: Adam beats SGD in Settings 1, 2 "
        "and 3.\nAbove: training loss at the published rates. Below: the norm of the gradient ")
    assert re.fullmatch(r"adam_vs_sgd: 2 seeds, 5 steps: \d+ s\n",
                        (folder / "times.txt").read_text())
    assert (folder / "adam_vs_sgd.txt").read_text().endswith(" 2 seeds, 5 steps.\n")


def test_a_finding(done):
    """It says what was measured, what was decided, and how to get it again."""
    _, folder = done
    arrays, found = experiments.load(folder / "adam_vs_sgd.npz")
    assert arrays["Setting 3 loss"].shape == (2, 2, 5)  # (optimizers, seeds, blocks)
    assert found == json.loads((folder / "adam_vs_sgd.json").read_text())
    assert found["claim"] == "C1" and found["claimed"] == EXPERIMENTS["adam_vs_sgd"].claimed
    assert found["configuration"] == dict(seeds=2, steps=5, optimizers=["SGD", "Adam"], lr={})
    assert found["versions"]["numpy"] == np.__version__
    assert found["versions"]["matplotlib"] == matplotlib.__version__
    ratio = found["measured"]["Setting 1: final loss SGD / Adam"]
    assert len(ratio["per_seed"]) == 2 and ratio["above"] == 1
    assert found["lines"][0] == (
        "Setting 1: final loss SGD / Adam: {:.3g}, {:.3g} by seed: open".format(*ratio["per_seed"]))
    assert ratio["interval_95"] == [None, None] and ratio["level"] == "published"
    assert [name for name, value in found["measured"].items() if "decision" in value] == [
        f"Setting {i}: final loss SGD / Adam" for i in (1, 2, 3)]
    assert found["verdicts"] == dict(published="too short for a verdict: 2 seeds, wants 5",
                                     robust="needs --full")


def test_all(here, capsys):
    """One experiment after the other; what they share is trained once."""
    assert status_of("all") == 0
    output, errors = capsys.readouterr()
    assert re.findall(r"^(\w+): The first ends", output, re.MULTILINE) == ["Toy", "T2"]
    assert "\n  next: python experiments.py toy --full\n" in output
    assert "results/other.png" in output and errors == ""
    assert {path.name for path in here.glob("results/*.png")} == {"toy.png", "other.png"}
    assert len(list(here.glob("results/runs/*"))) == 4


def test_options(here):
    """The budget of an experiment is its own default, changed by what the user says."""
    def run(*arguments):
        return experiments.parse(["toy", *arguments])[1]["toy"]

    assert (run().seeds, run().steps, run().out, run().lr) == (2, 3, "results", {})
    assert run().names == ["SGD", "Adam"] and run().pool.jobs == os.cpu_count()
    assert (run("--quick").seeds, run("--quick").steps) == (2, 100)
    assert (run("--full").seeds, run("--full").steps) == (6, 10_000)
    assert (run("--full", "--seeds", "3").seeds, run("--full", "--seeds", "3").steps) == (3, 10_000)
    assert run("--steps", "7", "--out", "a/b").spend(pool=None) == Run(2, 7, lr={}, out="a/b")
    assert run("--optimizers", "Adam", "SignDescent").names == ["Adam", "SignDescent"]
    assert run("--lr", "0.5").lr == {"SGD": 0.5, "Adam": 0.5}
    assert run("--lr", "0.5", "Adam=1e-3").lr == {"SGD": 0.5, "Adam": 0.001}
    assert run("--jobs", "3").pool.jobs == 3 and run("--jobs", "64").pool.jobs == 61
    given, runs = experiments.parse(["--seeds", "5", "all", "--slides"])
    assert list(runs) == ["toy", "other"] and runs["other"].seeds == 5 and given.slides
    assert runs["toy"].pool is runs["other"].pool
    for names, meant in ((["toy", "other"], ["toy", "other"]), (["T2"], ["other"]),
                         (["other", "toy", "TOY"], ["other", "toy"]), (["list"], []),
                         (["report"], [])):
        assert list(experiments.parse(names)[1]) == meant


def test_a_name_as_people_type_it():
    for text, name in (("adam-vs-sgd", "adam_vs_sgd"), ("C1", "adam_vs_sgd"), ("c12",
                       "nonlinear_regression"), ("protocol", "learning_rates"),
                       ("COST", "attention_cost"), ("What_it-learns", "what_it_learns")):
        assert experiments.meant(text) == [name]
    assert experiments.meant("ALL") == list(EXPERIMENTS) and experiments.meant("question") == []


@pytest.mark.parametrize("text, question", (
    ("adam_vs_sdg", "did you mean adam_vs_sgd?"), ("larger", "did you mean larger_model?"),
    ("Adam", "did you mean adam_vs_sgd?"), ("C13", "wants one of these, or C1 to C12:"),
    ("question", "wants one of these, or C1 to C12:")))
def test_an_unknown_name_costs_a_line_and_the_list(text, question, capsys):
    assert status_of(text) == 2
    output, errors = capsys.readouterr()
    first, *columns = errors.splitlines()
    assert output == "" and first == f"experiments.py: experiment: got '{text}', {question}"
    assert " ".join(columns).split() == [*EXPERIMENTS, "all", "report", "list"]
    assert max(map(len, columns)) <= 100


def test_help_has_examples_that_can_be_run(capsys):
    assert status_of("--help") == 0
    text = capsys.readouterr().out
    lines = re.findall(r"^  python experiments.py ?(.*?)(?:  .*)?$", text, re.MULTILINE)
    assert len(lines) == 8
    for line in lines:
        given, runs = experiments.parse([each for each in line.split() if each != "mine.Lion"])
        assert runs or line == "" or "report" in line


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_default_can_be_called(name):
    """From Python too: EXPERIMENT(Run()), or without an argument."""
    assert EXPERIMENTS[name].measure.__name__ == name
    assert experiments.default_run(name).out == "results"


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_takes_rates(name, no_training, tmp_path, monkeypatch):
    """As `all --lr 0.01` gives them: one for each optimizer, also where only one is trained."""
    monkeypatch.chdir(tmp_path)
    run = Run(lr=dict(SGD=0.01, Adam=0.01))
    if name == "the_model":  # nothing is trained
        assert EXPERIMENTS[name].measure(run)
        return
    with pytest.raises(AssertionError, match="computed"):
        EXPERIMENTS[name].measure(run)


def test_what_is_said_of_a_run_with_options_of_its_own(here, capsys):
    """Its rates stand in the caption; what to try next keeps them."""
    assert status_of("toy", "--lr", "SGD=0.5", "--optimizers", "SGD", "SignDescent") == 0
    assert (here / "results" / "toy.txt").read_text().endswith(" 2 seeds, 3 steps, SGD at 0.5.\n")
    assert capsys.readouterr().out.endswith(
        "next: python experiments.py toy --full --optimizers SGD SignDescent --lr SGD=0.5\n")


def test_slides(here, monkeypatch):
    """A file for each panel, beside the whole figure, with the headline above."""
    saved, save = [], plotting.save

    def recorded(figure, file, form):
        saved.append((form, len(figure.axes), figure.get_suptitle().replace("\n", " ")))
        save(figure, file, form)

    monkeypatch.setattr(plotting, "save", recorded)
    assert status_of("toy", "--slides") == 0
    assert {path.name for path in here.glob("results/toy*.p*")} == {
        f"toy{panel}.{form}" for panel in ("", "-1", "-2") for form in ("png", "pdf")}
    found = json.loads((here / "results" / "toy.json").read_text())
    ratio = experiments.printed(found)["ratio"]
    headline = f"Toy: the ratio is {ratio} ({experiments.verdict_line(found)})"
    assert headline.endswith(" (published: too short for a verdict: 2 seeds, wants 5)")
    assert saved == [(form, axes, headline) for axes in (2, 1, 1) for form in ("png", "pdf")]


@pytest.mark.parametrize("name, others, judged", (
    ("adam_vs_sgd", ["SGD", "Adam", "SignDescent"], "not judged: the claim is about SGD and Adam"),
    ("full_batch", ["SGD", "Adam"], "not judged: the claim is about SGD and Adam and SignDescent"),
    ("adam_vs_sgd", ["SGD", "Adam"], "reproduced"),
    ("gradient_noise", ["Adam", "SGD"], "reproduced"),  # trains nothing
))
def test_a_claim_is_judged_for_its_optimizers(name, others, judged):
    run = Run(5, optimizers=tuple(getattr(optimizers, each) for each in others))
    ratio = np.array([2.0, 2.1, 2.2, 2.0, 2.1])
    found = experiments.finding(name, run, {}, [Part("ratio", ratio, above=1)])["verdicts"]
    assert found["published"] == judged
    assert found.get("robust", "needs --full") == "needs --full"
    assert experiments.finding("screen", run, {}, [Part("ratio", ratio)])["verdicts"] == {}
    found = experiments.finding(name, run.spend(lr={others[0]: 0.1}), {}, [
        Part("ratio", ratio, above=1)])["verdicts"]
    assert found["published"] == (judged if judged != "reproduced" or name == "gradient_noise"
                                  else "not judged: the rates are not those of the claim")


def test_a_short_run_has_no_verdict():
    """Of fewer than five seeds, or of fewer steps than the claim needs; and says so."""
    parts = [Part("a", np.arange(2.0, 7), above=1), Part("b", np.arange(2.0, 7), above=1,
                                                         level="robust")]
    for seeds, steps, words in (
            (4, 10_000, "too short for a verdict: 4 seeds, wants 5"),
            (5, 799, "too short for a verdict: 799 steps, wants 800"), (5, 800, "reproduced")):
        found = experiments.finding("adam_vs_sgd", Run(seeds, steps), {}, parts)
        assert found["verdicts"] == dict(published=words, robust=words)
        run = Run(seeds, 10_000)
        spent = experiments.finding("adam_vs_sgd", run, dict(spent=(9, steps)), parts)
        assert spent["verdicts"] == found["verdicts"]
    assert experiments.verdict_line(found) == "published and robust: reproduced"


def test_a_finding_can_always_be_written():
    """Numbers of numpy's, a run that diverged; what was spent, if that is less than was allowed."""
    run = Run(seeds=np.int64(2), steps=np.int32(9), lr=dict(SGD=np.int64(1)))
    parts = [Part("ratio", np.array([np.nan, 1]), above=1), Part("alone", np.array([3.0])),
             Part("nought", np.zeros(5), log=False), Part("late", np.array([1.0, np.inf]))]
    found = experiments.finding("adam_vs_sgd", run, {"spent": (1, np.int64(4))}, parts)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["configuration"] == dict(seeds=1, steps=4, optimizers=["SGD", "Adam"],
                                          lr=dict(SGD=1))
    assert found["lines"] == ["ratio: unknown, 1 by seed: open", "alone: 3", "nought: 0 [0, 0]",
                              "late: 1, censored by seed"]
    assert found["measured"]["ratio"]["decision"] == "open"


@pytest.mark.slow
@pytest.mark.parametrize("name", ("directional_smoothness",))
def test_runs_that_all_diverge_leave_empty_panels(name, tmp_path, monkeypatch, capsys, recwarn):
    """And no verdict, and no warning."""
    monkeypatch.setattr(training, "Workers", Here)
    assert status_of(name, "--seeds", 1, "--steps", 60, "--lr", "1e9", "--out", tmp_path) == 0
    output, errors = capsys.readouterr()
    assert ": unknown: open" in output and "reproduced" not in output
    assert errors == "" and not [each for each in recwarn
                                 if issubclass(each.category, RuntimeWarning)]
    assert "adam" not in name or "Setting 1: diverged: SGD, seed 0, at step " in output


# ---- To draw again -------------------------------------------------------------------------------


def test_redraw_gives_the_same_bytes(kept, no_training, capsys):
    """Without a training, from the .npz alone."""
    wanted = bytes_of(kept, ".png", ".pdf", ".txt")
    for path in kept.iterdir():
        if path.name in wanted:
            path.unlink()
    shutil.rmtree(kept / "runs")
    assert status_of("adam_vs_sgd", "--redraw", "--out", kept) == 0
    assert bytes_of(kept, ".png", ".pdf", ".txt") == wanted and len(wanted) == 3
    output, errors = capsys.readouterr()
    assert output == f"{kept / 'adam_vs_sgd.png'}\n" and errors == ""
    assert not (kept / "runs").exists()


def test_redraw_all_draws_what_is_there(here, no_training, capsys):
    (here / "kept").mkdir()
    assert status_of("all", "--redraw", "--out", "kept") == 2
    assert capsys.readouterr().err.startswith("experiments.py: out: got 'kept', wants a folder wit")
    text = json.dumps(experiments.finding("other", Run(), {}, []))
    np.savez("kept/other.npz", finding=text, first=np.ones((2, 3)), second=np.ones((2, 3)))
    assert status_of("all", "--redraw", "--slides", "--out", "kept") == 0
    assert capsys.readouterr().out == f"kept{os.sep}other.png\n"
    assert sorted(bytes_of("kept", ".png")) == ["other-1.png", "other-2.png", "other.png"]


@pytest.mark.parametrize("damage, word", (
    (lambda path: path.unlink(), "No such file"),
    (lambda path: path.write_bytes(b""), "got no results"),
    (lambda path: path.write_bytes(path.read_bytes()[:-100]), "got no results"),
    (lambda path: path.write_text("not an archive"), "got no results"),
    (lambda path: np.savez(path, loss=np.zeros(5)), "got no results"),
    (lambda path: np.savez(path, finding="{"), "got no results"),
    (lambda path: np.savez(path, finding="3"), "got no results"),
    (lambda path: np.savez(path, finding="[]"), "got "),
    (lambda path: np.savez(path, finding="{}", x=np.ones(3)), "got other arrays than the fig"),
    (lambda path: np.savez(path, loss=np.array([{}], dtype=object)), "allow_pickle=False"),
    (lambda path: np.save(path.open("wb"), np.zeros(5)), "got no results"),
))
def test_redraw_names_what_it_cannot_draw(damage, word, kept, no_training, capsys):
    path = kept / "adam_vs_sgd.npz"
    damage(path)
    assert status_of("adam_vs_sgd", "--redraw", "--out", kept) == 2
    output, errors = capsys.readouterr()
    assert output == "" and errors.startswith(f"experiments.py: {path}: got ")
    assert errors.count("\n") == 1 and word in errors


@pytest.mark.parametrize("path", sorted(FIGURES.glob("*.npz")), ids=lambda path: path.stem)
def test_kept_figures_can_be_drawn_again(path):
    """From at most 400 KB, to the byte if matplotlib is the one that drew them."""
    assert path.stat().st_size <= 400_000
    arrays, found = experiments.load(path)
    drawn = io.BytesIO()
    plotting.save(experiments.draw(path.stem, arrays, found), drawn, "png")
    if found["versions"]["matplotlib"] == matplotlib.__version__:
        assert drawn.getvalue() == path.with_suffix(".png").read_bytes()


# ---- The report ----------------------------------------------------------------------------------


def test_report(here, capsys):
    """A row an experiment: the parts of each level that hold, are open, are against, and the number
    that decides: at the last level that is judged the first one against, or open, or that holds; of
    a question its headline, or the first line. What is not there is counted."""
    two, many = np.array([2.0, 2.1, 2.0, 2.1, 2.05]), np.array([0.1, 9.0, 0.2, 8.0, 1.0])
    judged = [Part("a", two), Part("b", two, above=1), Part("c", two, above=3),
              Part("d", many, above=1), Part("e", two, above=1, level="robust"),
              Part("f", many, above=1, level="robust")]
    free = [Part("g", "a text"), Part("h", two)]
    row = experiments.EXPERIMENTS["toy"]._replace(levels=("published", "robust"))
    experiments.EXPERIMENTS |= dict(toy=row, other=row._replace(claim="T2", levels=()), third=row,
                                    fourth=row._replace(steps=2000))
    for name, parts in (("toy", judged), ("other", free), ("third", judged[:4]),
                        ("fourth", judged[1:2])):
        found = experiments.finding(name, Run(seeds=5, steps=1000), {}, parts)
        Path(f"{name}.json").write_text(json.dumps(found))
    experiments.EXPERIMENTS["fifth"] = row
    assert status_of("report", "--out", here) == 0
    claimed = "The first ends above the second"
    assert capsys.readouterr().out.splitlines()[2:] == [
        f"| Toy `toy`: {claimed} | not reproduced (1 hold, 1 open, 1 against) | "
        "open (1 hold, 1 open) | f: 1.08 [0.0831, 13.9]: open |",
        f"| Toy `third`: {claimed} | not reproduced (1 hold, 1 open, 1 against) | needs --full | "
        "c: 2.05 [1.99, 2.11]: against |",
        f"| Toy `fourth`: {claimed} | too short for a verdict: 1,000 steps, wants 2,000 (1 hold) | "
        "needs --full | b: 2.05 [1.99, 2.11]: holds |",
        "", "| question | what was found |", "| --- | --- |", f"| `other`: {claimed} | g: a text |",
        "", "1 of 5 experiments have no finding in this folder: fifth"]


def test_the_gallery(here):
    """Every figure with its headline, caption and lines, and the times; and the scoreboard."""
    assert status_of("all") == 0 and status_of("report") == 0
    folder = here / "results"
    text = (folder / "README.md").read_text()
    found = json.loads((folder / "toy.json").read_text())
    for part in (f"![{experiments.headline('toy', found)}](toy.png)", "\n".join(found["lines"]),
                 (folder / "toy.txt").read_text().strip(), "2 seeds, 3 steps; python ",
                 "## `other`", (folder / "times.txt").read_text().strip(), "(scoreboard.png)"):
        assert part in text
    assert {path.name for path in folder.glob("scoreboard.*")} == {
        "scoreboard.png", "scoreboard.pdf"}
    before = bytes_of(folder)
    assert status_of("report") == 0 and bytes_of(folder) == before


def test_no_gallery_of_nothing(here, capsys):
    (here / "empty").mkdir()
    assert status_of("report", "--out", "empty") == 0 and not list((here / "empty").iterdir())
    assert capsys.readouterr().out == (
        "2 of 2 experiments have no finding in this folder: toy, other\n")
    row = experiments.EXPERIMENTS["toy"]
    experiments.EXPERIMENTS["toy"] = row._replace(levels=())
    assert status_of("toy") == 0 and status_of("report") == 0
    assert "scoreboard" not in (here / "results" / "README.md").read_text()
    assert not list(here.glob("results/scoreboard*"))


def test_the_gallery_overwrites_nobodys_readme(here, capsys):
    assert status_of("toy") == 0
    (here / "results" / "README.md").write_text("# Mine\n")
    assert status_of("report") == 2
    assert capsys.readouterr().err == (
        f"experiments.py: out: got {Path('results', 'README.md')}, which this program did not "
        "write\n")
    assert (here / "results" / "README.md").read_text() == "# Mine\n"


def test_the_scoreboard_shows_every_part():
    """Marks of each part's colour and shape, nine in a row, published and robust apart."""
    words = ["holds"] * 10 + ["open", "against"]
    found = dict(claim="C1", claimed="it is so", verdicts=dict(published="open", robust="open"),
                 measured={str(i): dict(level="published", decision=word) for i, word in enumerate(
                     words)} | dict(last=dict(level="robust", decision="against"), text="a text"))
    for value in found["measured"].values():
        if isinstance(value, dict):
            value |= dict(mean=1.0)
    claims = dict(adam_vs_sgd=found)
    figure = matplotlib.figure.Figure()
    experiments.draw_scoreboard(figure, claims)
    marks = [line for line in figure.axes[0].get_lines() if line.get_marker() != "None"]
    looks = [next(word for word, look in plotting.MARKS.items() if (
        look["color"], look["marker"], look.get("mfc", look["color"])) == (
        mark.get_color(), mark.get_marker(), mark.get_markerfacecolor())) for mark in marks]
    assert looks == [*words, "against", *plotting.MARKS]  # the last three are the legend
    x, y = (np.array([mark.get_xydata()[0][k] for mark in marks[:13]]) for k in (0, 1))
    assert len(set(y[:9])) == len(set(y[9:12])) == 1 and y[8] < y[9] and x[12] > x[:12].max()
    assert experiments.score(claims) == (
        "Reproduced of the claims C1 to C12: 0 of 1 published, 0 of 1 robust")
    others = dict(a=found | dict(claim="Cost"), b=found | dict(claim="Protocol"), c=found | dict(
        claim="C12", verdicts=dict(published="reproduced")))
    assert experiments.score(others) == (
        "Reproduced of the claims C1 to C12: 1 of 1 published, 0 of 0 robust")


@pytest.mark.parametrize("text", ("", "{", "[]", '{"measured": 3}', '{"measured": {"x": 1}}',
                                  '{"measured": {}}', "\xff"))
def test_report_names_what_is_no_finding(text, tmp_path, capsys):
    (tmp_path / "depth.json").write_bytes(text.encode("latin-1"))
    assert status_of("report", "--out", tmp_path) == 2
    output, errors = capsys.readouterr()
    assert output == "" and errors == (f"experiments.py: out: got {tmp_path / 'depth.json'}, wants "
                                       "a finding of this program\n")


# ---- The same results however they are computed --------------------------------------------------


def test_same_bytes_for_any_number_of_jobs_and_when_repeated(here, monkeypatch, capsys):
    """Of all that is kept and drawn."""
    monkeypatch.undo()
    monkeypatch.setattr(experiments, "EXPERIMENTS", {
        "toy": Experiment("Toy", "The first ends above the second", "", toy, draw_toy)})
    found = []
    for jobs, folder in ((1, "one"), (2, "two"), (1, "one")):
        assert status_of("toy", "--jobs", jobs, "--out", here / folder) == 0
        found.append(bytes_of(here / folder))
    assert found[0] == found[1] == found[2] and len(found[0]) == 9


@pytest.mark.slow
def test_same_bytes_of_a_real_experiment(done, tmp_path):
    again = command("adam_vs_sgd", "--seeds", 2, "--steps", 5, "--jobs", 1, "--out", "b",
                    folder=tmp_path)
    assert again.returncode == 0 and bytes_of(tmp_path / "b") == bytes_of(done[1])


@pytest.mark.skipif(os.name == "nt", reason="has no signals to one process")
@pytest.mark.parametrize("blow", ("SIGINT", pytest.param("SIGKILL", marks=pytest.mark.slow)))
def test_an_interrupted_run_goes_on_where_it_stopped(blow, tmp_path, monkeypatch, capsys):
    """What is done is whole, is not done again, and the rest is."""
    process = subprocess.Popen(
        [sys.executable, PROJECT / "experiments.py", *CHEAP, "--jobs", "1", "--out", tmp_path],
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("runs/*.npz")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    process.send_signal(getattr(signal, blow))
    output, errors = process.communicate(timeout=30)
    assert output == "" and "Traceback" not in errors
    if blow == "SIGINT":
        assert process.returncode == 130
        assert errors == ("experiments.py: interrupted\nexperiments.py: finished runs are kept; "
                          "the command, when repeated, does the rest\n")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*.npz")}
    assert 0 < len(before) < 8 and not list(tmp_path.glob("softmax*"))
    monkeypatch.setattr(training, "Workers", Here)
    assert status_of(*CHEAP, "--out", tmp_path) == 0
    assert capsys.readouterr().err == ""  # no file was half written
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(list(tmp_path.glob("runs/*.npz"))) == 8


def test_two_calls_at_once_on_one_folder(here, monkeypatch):
    """The other one may have removed the file with which both try whether they can write there."""
    monkeypatch.setattr(training, "write", lambda path, save: None)
    assert list(experiments.parse(["toy"])[1]) == ["toy"]


def test_a_full_disk_costs_one_line(here, monkeypatch, capsys):
    def full(path, save):
        raise OSError(28, "No space left on device")

    def parse(arguments, parse=experiments.parse):
        given = parse(arguments)
        monkeypatch.setattr(training, "write", full)
        return given

    monkeypatch.setattr(experiments, "parse", parse)
    assert status_of("toy") == 1
    assert capsys.readouterr().err == "experiments.py: [Errno 28] No space left on device\n"


# ---- A reader's own optimizer --------------------------------------------------------------------

EXAMPLE = optimizers.__doc__.partition("    import numpy")[2].partition("\n\n`python")[0]
LION = ("    import numpy" + EXAMPLE).replace("\n    ", "\n").strip() + "\n"
BROKEN = """

class Broken:
    def __init__(self, lr): pass
    def step(self, params, grad): return 1 / 0
"""


def test_the_example_of_optimizers_runs_from_a_file_of_ones_own(tmp_path):
    """Pasted as it is; another that fails is named, and costs nothing but itself."""
    (tmp_path / "mine.py").write_text(LION + BROKEN)
    (tmp_path / "data.py").write_text("1 / 0  # of the reader's, not ours")
    tiny = ("adam_vs_sgd", "--seeds", 1, "--steps", 5, "--optimizers", "SGD", "mine.Lion")
    failed = command(*tiny, "mine.Broken", "--lr", "Lion=0.001", "Broken=1", folder=tmp_path)
    assert failed.returncode == 1 and failed.stdout == ""
    lines = failed.stderr.replace("experiments.py: ", "").replace("adam_vs_sgd: ", "").splitlines()
    assert lines == [f"Broken (lr 1), Setting {i}, seed 0: ZeroDivisionError: division by zero "
                     "(mine.py, line 14)" for i in (1, 2, 3)] + [
                         "finished runs are kept; the command, when repeated, does the rest"]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("results/runs/*")}
    assert len(before) == 6  # of SGD and Lion in three settings
    passed = command(*tiny, "--lr", "Lion=0.001", folder=tmp_path)
    assert passed.returncode == 0 and passed.stderr == ""
    assert "Setting 3: final loss SGD / Lion: " in passed.stdout
    assert "verdict: published: too short for a verdict: 1 seed, wants 5; " in passed.stdout
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("results/runs/*")} == before


@pytest.mark.parametrize("source, word", (
    ("def step(:", "SyntaxError"),
    ("1 / 0", "ZeroDivisionError"),
    ("raise RuntimeError('two\\nlines')", "RuntimeError: two lines"),
    ("import nowhere_to_be_found", "nowhere_to_be_found"),
    ("class Tiger: pass", "no attribute 'Lion'"),
    ("Lion = 3", "wants a tuple of classes"),
    ("def Lion(lr): pass", "wants a tuple of classes"),
    ("class Lion: pass", "with a method step"),
    ("class Lion:\n    def step(self, params, grad): return params", "whose constructor takes lr"),
    (LION, "lr: got none for Lion in Setting 1"),
))
def test_mistakes_in_a_file_of_ones_own(source, word, here, no_training, capsys):
    Path("mine.py").write_text(source)
    assert status_of("toy", "--optimizers", "SGD", "mine.Lion") == 2
    output, errors = capsys.readouterr()
    assert output == "" and errors.count("\n") == 1 and word in errors


SCRIPT = """
import sys
sys.path.insert(0, {project!r})
import matplotlib, numpy as np, experiments
from experiments import Run, SGD
before = matplotlib.rcParams.copy()

arrays, parts = experiments.adam_vs_sgd(Run(seeds=1, steps=2))
assert len(arrays["Setting 3 loss"]) == 2 and parts[0].above == 1

arrays, found = experiments.load({kept!r})
figure = experiments.draw("adam_vs_sgd", arrays, found)
assert figure.get_suptitle().startswith("C1: SGD's final loss is") and "median" in figure.caption
figure.axes[0].set(title="mine")
figure.savefig("mine.png", dpi=30)
assert matplotlib.rcParams.copy() == before and "matplotlib.pyplot" not in sys.modules

class Lion:
    def __init__(self, lr):
        self.lr = lr
    def step(self, params, grad):
        return params - self.lr * np.sign(grad)

arrays, parts = experiments.adam_vs_sgd(Run(1, 2, optimizers=(SGD, Lion), lr=dict(Lion=0.001)))
assert parts[0].name == "Setting 1: final loss SGD / Lion"
"""


def test_from_a_script_without_guard(done, tmp_path):
    """Run; draw and restyle what is kept; a class of one's own, whose runs are not kept."""
    (tmp_path / "script.py").write_text(SCRIPT.format(
        project=str(PROJECT), kept=str(done[1] / "adam_vs_sgd.npz")))
    ran = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True,
                         text=True)
    assert ran.returncode == 0 and ran.stderr == "" and ran.stdout == ""
    assert (tmp_path / "mine.png").exists() and len(list(tmp_path.glob("results/runs/*"))) == 6


# ---- Mistakes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments, word", [
    ("adam_vs_sgd report", "report: got other names beside it, wants none (--out is the folder)"),
    ("report --quick", "report: got options of a training, wants none: it trains nothing"),
    ("adam_vs_sgd --lr sgd=0.1", "lr: got 'sgd=0.1', wants RATE or NAME=RATE of SGD, Adam"),
    ("adam_vs_sgd --seeds 0", "seeds: got 0, wants "),
    ("adam_vs_sgd --seeds two", "seeds"),
    ("adam_vs_sgd --steps -5", "steps"),
    ("adam_vs_sgd --jobs 0", "jobs: got 0, wants "),
    ("adam_vs_sgd --jobs two", "jobs"),
    ("adam_vs_sgd --lr 0", "lr"),
    ("adam_vs_sgd --lr nan", "lr"),
    ("adam_vs_sgd --lr fast", "lr: got 'fast', wants RATE or NAME=RATE"),
    ("adam_vs_sgd --lr =0.1", "lr"),
    ("adam_vs_sgd --lr Lion=0.1", "lr"),
    ("adam_vs_sgd --optimizers SGD Sofia", "optimizers: got 'Sofia', wants "),
    ("adam_vs_sgd --optimizers SGD SGD", "optimizers: got "),
    ("adam_vs_sgd --optimizers SGD", "optimizers: got 'SGD', wants two or more"),
    ("adam_vs_sgd --optimizers SGD nowhere.Lion", "optimizers: got 'nowhere.Lion', wants "),
    ("adam_vs_sgd --optimizers SGD ..Lion", "optimizers: got '..Lion', wants "),
    ("adam_vs_sgd --optimizers SGD clip_global_norm", "optimizers: got "),
    ("adam_vs_sgd --optimizers SGD numpy.ndarray", "optimizers: got "),
    ("adam_vs_sgd --full --quick", "quick"),
    ("adam_vs_sgd --fast", "fast"),
    ("adam_vs_sgd --out README.md", "out: got 'README.md', wants a folder to write in (Not"),
    ("adam_vs_sgd --out README.md/x", "out"),
    ("adam_vs_sgd --out=", "out: got '', wants "),
    ("report --out=", "out: got '', wants "),
    ("report --out nowhere", "out: got 'nowhere', wants a folder with findings"),
    ("adam_vs_sgd --redraw --out nowhere", "No such file"),
    ("--lr 0.01 adam_vs_sgd", "wants its name first"),  # it is swallowed, as another rate
    ("--optimizers SGD Adam adam_vs_sgd", "wants its name first"),
    ("--seeds 2", "wants its name first"),
    ("--redraw", "wants its name first"),
])
def test_mistakes_cost_one_line_and_status_2(arguments, word, no_training, capsys, monkeypatch):
    monkeypatch.chdir(PROJECT)
    assert status_of(*arguments.split()) == 2
    output, errors = capsys.readouterr()
    assert output == "" and errors.startswith("experiments.py: ")
    assert errors.count("\n") == 1 and word in errors
    assert not Path("nowhere").exists()


def test_a_folder_that_cannot_be_written_in(here, no_training, capsys):
    if os.name == "nt" or os.geteuid() == 0:
        pytest.skip("root writes everywhere; Windows has other rights")
    here.chmod(0o500)
    assert status_of("toy") == 2
    assert capsys.readouterr().err == ("experiments.py: out: got 'results', wants a folder to "
                                       "write in (Permission denied)\n")


# ---- Consoles ------------------------------------------------------------------------------------


POOR = """
import sys, experiments
for line in "", "softmax_vs_linear --seeds 1 --steps 2 --jobs 1 --out r数", "report --out r数":
    if experiments.main(line.split()):
        sys.exit(1)
"""


def test_a_poor_console(tmp_path):
    """One without stderr and with few letters, and a Python without docstrings and asserts."""
    (tmp_path / "poor.py").write_text(POOR, encoding="utf-8")
    ran = subprocess.run(f"'{sys.executable}' -OO poor.py 2>&-", shell=True, cwd=tmp_path,
                         capture_output=True, text=True, env=os.environ | dict(
                             PYTHONPATH=str(PROJECT), PYTHONIOENCODING="cp1252"))
    assert ran.returncode == 0 and ran.stdout.startswith("adam_vs_sgd ")
    assert "\n  r\\u6570/softmax_vs_linear.png\n  next: python experiments.py soft" in ran.stdout
    assert "--full\n| claim | published " in ran.stdout
    assert "| C6 `softmax_vs_linear`: " in ran.stdout
    assert len(bytes_of(tmp_path / "r数")) == 5 + 4 + 3


def test_a_reader_who_leaves_early(here, monkeypatch, capsys):
    """No complaint, and all files are there."""
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        assert status_of("toy") == 1
    assert capsys.readouterr().err == "" and len(bytes_of(here / "results")) == 5 + 4
    buffered = os.environ | dict(PYTHONUNBUFFERED="")
    ran = subprocess.run(f"'{sys.executable}' '{PROJECT / 'experiments.py'}' | true", shell=True,
                         capture_output=True, text=True, env=buffered)
    assert ran.stderr == "" and ran.returncode == 0


# ---- Who may know whom ---------------------------------------------------------------------------

MAY_IMPORT = {
    "linattn": {"numpy"},
    "optimizers": {"numpy"},
    "data": {"numpy"},
    "training": {"numpy", "linattn", "optimizers", "data"},
    "plotting": {"numpy", "matplotlib"},
    "experiments": {"numpy", "matplotlib", "linattn", "optimizers", "data", "training", "plotting"},
}


@pytest.mark.parametrize("path", sorted(PROJECT.glob("*.py")), ids=lambda path: path.stem)
def test_no_module_imports_what_stands_above_it(path):
    """Besides Python's own library."""
    imported = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {each.name.partition(".")[0] for each in node.names}
        if isinstance(node, ast.ImportFrom):
            imported.add(node.module.partition(".")[0])
    assert imported - set(sys.stdlib_module_names) <= MAY_IMPORT[path.stem]


# ---- The READMEs and docs/ -----------------------------------------------------------------------

READMES = {name: (PROJECT / name).read_text(encoding="utf-8")
           for name in ("README.md", "README.ja.md")}
PAIRS = [("README.md", "README.ja.md"), ("docs/findings.md", "docs/findings.ja.md"),
         ("docs/exercises.md", "docs/exercises.ja.md"),
         ("docs/real_model.md", "docs/real_model.ja.md")]
KEPT = {path.stem: json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(FIGURES.glob("*.json"))}


@pytest.mark.parametrize("readme", READMES.values(), ids=READMES)
def test_readme_shows_what_a_run_prints(readme):
    """With "..." for what is left out."""
    found = KEPT["adam_vs_sgd"]
    first = f"{found['claim']}: {found['claimed']}\n"
    shown = re.search(re.escape(first) + r"(.*?)\n```", readme, re.DOTALL)[1].split("\n  ")
    shown[0] = shown[0].strip()
    verdict = f"verdict: {experiments.verdict_line(found)}"
    printed = iter([*found["lines"], verdict])
    for line in shown:
        assert line == "..." or line in printed, line  # in this order
    assert shown[-1] == verdict


@pytest.mark.parametrize("name", KEPT)
@pytest.mark.parametrize("text", ("findings.md", "findings.ja.md"))
def test_docs_have_every_finding_with_its_verdict(name, text):
    text, found = (PROJECT / "docs" / text).read_text(encoding="utf-8"), KEPT[name]
    section = text.partition(f"## `python experiments.py {name}`\n")[2].partition("\n## ")[0]
    assert f"({found['claim']}: {experiments.verdict_line(found)})" in section
    assert f"![{experiments.headline(name, found)}](../figures/{name}.png)" in section


def test_every_claim_has_a_finding():
    """At the paper's budget, judged at each of its levels."""
    for name, row in EXPERIMENTS.items():
        if row.levels:
            verdicts = KEPT[name]["verdicts"]
            assert set(verdicts) == set(row.levels)
            assert set(verdicts.values()) <= {"reproduced", "not reproduced", "open"}


def test_the_readme_has_the_report():
    assert experiments.report(FIGURES).split("\n\n")[0] in READMES["README.md"]
    assert len(READMES["README.md"].splitlines()) <= 150


def test_the_japanese_table_has_the_numbers_of_the_report():
    """Of every claim how many parts hold, are open and against, and the numbers of its headline."""
    words = dict(hold="成立", open="未決", against="反証")
    rows = READMES["README.ja.md"].splitlines()
    for name, found in KEPT.items():
        if not EXPERIMENTS[name].levels:
            continue
        (row,) = [row for row in rows if row.startswith(f"| {found['claim']} `{name}`:")]
        cells = row.split(" | ")
        for cell, level in zip(cells[1:3], experiments.LEVELS):
            counted = re.findall(r"(\d+) (hold|open|against)", experiments.counts(found, level))
            assert re.findall(r"(成立|未決|反証) (\d+)", cell) == [
                (words[word], count) for count, word in counted]
            verdict = found["verdicts"].get(level, "")
            assert cell.startswith({"reproduced": "再現", "not reproduced": "再現せず", "open": "未決",
                                    "": ""}[verdict])
        known = " ".join(experiments.printed(found).values())
        number = r"(?<![\w.])-?\d+\.\d+"
        assert set(re.findall(number, cells[3])) <= set(re.findall(number, known))


def test_the_gallery_is_that_of_the_findings(tmp_path):
    for path in FIGURES.glob("*"):
        if path.suffix in (".json", ".txt"):
            shutil.copy(path, tmp_path)
    experiments.gallery(tmp_path)
    assert (tmp_path / "README.md").read_text() == (FIGURES / "README.md").read_text()


@pytest.mark.parametrize("names", PAIRS, ids=str)
def test_both_languages_agree(names):
    """The same code, commands and figures, in the same order."""
    for pattern in (r"```.*?```", r"`python experiments[^`]*`", r"\]\(([^)]*(?:png|\d))\)"):
        first, second = (re.findall(pattern, (PROJECT / name).read_text(encoding="utf-8"),
                                    re.DOTALL) for name in names)
        assert first == second


@pytest.mark.parametrize("path", [path.relative_to(PROJECT) for path in (
    *PROJECT.glob("*.md"), *PROJECT.glob("docs/*.md"), *PROJECT.glob("figures/*.md"))], ids=str)
def test_links_lead_somewhere(path):
    text = (PROJECT / path).read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!http)([^)#]*)\)", text):
        assert ((PROJECT / path).parent / target).exists(), target


@pytest.mark.slow
def test_readmes_python_runs(tmp_path):
    """Every block, as it would be typed: through stdin, so that no worker can import it."""
    blocks = re.findall(r"```python\n(.*?)```", READMES["README.md"], re.DOTALL)
    assert blocks
    for block in blocks:
        ran = subprocess.run([sys.executable, "-"], input=block.replace("steps=100", "steps=2"),
                             cwd=tmp_path, capture_output=True, text=True,
                             env=os.environ | dict(PYTHONPATH=str(PROJECT)))
        assert ran.returncode == 0 and ran.stderr == "", ran.stderr
