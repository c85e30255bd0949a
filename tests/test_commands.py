"""The command line: what a user types, what is printed and kept, and what a mistake costs."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import commands
import experiments
import runs
from optimizers import SGD, Adam
from verdicts import Part, measured

ROOT = Path(__file__).parent.parent
SMALL = ["--seeds", "1", "--steps", "3"]
LION = """
import numpy as np

class Lion:
    def __init__(self, lr):
        self.lr, self.m = lr, 0.0
    def step(self, params, grad):
        direction = np.sign(0.9 * self.m + 0.1 * grad)
        self.m = 0.99 * self.m + 0.01 * grad
        return params - self.lr * direction
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder, from which a reader's module can be imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(runs, "folder", tmp_path / "runs")
    yield tmp_path
    sys.modules.pop("mine", None)
    runs.SOURCES.pop("mine", None)


def shell(*arguments, cwd, before=(), **environment):
    """A real process: (status, stdout, stderr)."""
    done = subprocess.run([sys.executable, *before, ROOT / "experiments.py", *arguments], cwd=cwd,
                          capture_output=True, env={**os.environ, **environment})
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def exit_status(arguments):
    """main's, also where argparse ends the process."""
    try:
        return commands.main(arguments)
    except SystemExit as end:
        return end.code


# ---- What a user types ---------------------------------------------------------------------------


def test_a_users_call(here):
    """From start to end in a process of its own: lines, verdict, files; then again from disk."""
    status, out, err = shell("C1", *SMALL, cwd=here)
    lines = out.splitlines()
    assert (status, err) == (0, "")
    assert lines[0] == "C1: Adam beats SGD in Settings 1, 2 and 3"
    assert lines[1].startswith("  Setting 1: final loss SGD / Adam: ")
    assert lines[-3].startswith("  verdict: published: too few seeds for a verdict: 1, wants 6")
    assert lines[-1] == "  next: python experiments.py adam_vs_sgd --full"
    assert {path.name for path in (here / "results").glob("adam*")} == {
        f"adam_vs_sgd.{form}" for form in ("npz", "json", "png", "pdf", "txt")}
    found = json.loads((here / "results" / "adam_vs_sgd.json").read_text())
    assert found["configuration"] == dict(seeds=1, steps=3, optimizers=["SGD", "Adam"], lr=None)
    loss = float(lines[2].split()[-1])
    assert loss == pytest.approx(found["parts"]["Setting 1 SGD"]["values"][0], rel=0.01)
    before = {path: path.stat().st_mtime_ns for path in (here / "results" / "runs").glob("*.npz")}
    assert shell("adam-vs-sgd", *SMALL, cwd=here)[0] == 0
    assert before == {path: path.stat().st_mtime_ns for path in
                      (here / "results" / "runs").glob("*.npz")}


def test_the_list_is_printed_without_a_name(capsys):
    assert exit_status([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "adam_vs_sgd             C1: Adam beats SGD in Settings 1, 2 and 3"
    assert len(lines) == len(commands.EVERY)


@pytest.mark.parametrize("typed", ("C3", "c3", "condition_number", "condition-number"))
def test_names_as_people_type_them(typed):
    assert commands.meant(typed) == "condition_number"


def given(*arguments):
    found = commands.command_line().parse_intermixed_args(arguments)
    return commands.arguments_of(found.names[0], found)


def test_budgets_and_options():
    """Defaults, --full, --quick and numbers of one's own; repeated options add up."""
    usual = dict(seeds=6, steps=667, optimizers=(SGD, Adam), lr=None)
    assert given("C1") == usual
    assert given("C1", "--full") == usual | dict(steps=10_000)
    assert given("C1", "--quick") == usual | dict(seeds=2, steps=100)
    assert given("C7", "--quick")["steps"] == 38  # never more than the default
    assert given("C2", "--steps", "7") == dict(seeds=6, draws=7)
    assert given("C3", "--full", "--robust")["seeds"] == 18
    assert given("C1", "--lr", "0.1", "--lr", "Adam=0.2")["lr"] == dict(SGD=0.1, Adam=0.2)
    assert given("C1", "--optimizers", "Adam", "--optimizers", "Muon", "--lr", "1")["lr"] == dict(
        Adam=1.0, Muon=1.0)


def test_the_hint_after_a_run_can_be_pasted():
    found = commands.command_line().parse_intermixed_args(["C1", "--full", "--out", "my results"])
    assert commands.next_step("depth", found) == (
        "python experiments.py report --out 'my results'")


def test_an_optimizer_of_ones_own(here, capsys):
    """The class that optimizers.py shows, in a file of one's own: kept by its source, in parallel."""
    (here / "mine.py").write_text(LION)
    assert "self.m = 0.99 * self.m + 0.01 * grad" in (ROOT / "optimizers.py").read_text()
    call = ["C1", *SMALL, "--optimizers", "SGD", "mine.Lion", "--lr", "Lion=0.01"]
    assert exit_status(call) == 0
    out = capsys.readouterr().out
    assert "final loss SGD / Lion" in out
    assert "--full --optimizers SGD mine.Lion --lr Lion=0.01" in out
    assert len(list((here / "results" / "runs").glob("train-*.npz"))) == 3
    assert exit_status(["C1", *SMALL, "--optimizers", "SGD", "mine.Lion"]) == 2
    assert "lr: got none for Lion" in capsys.readouterr().err


def test_slides_and_redraw(here, everything, monkeypatch, capsys):
    """From what is kept, without training: the same bytes, and a file a panel."""
    shutil.copytree(everything, here / "kept", ignore=shutil.ignore_patterns("runs"))
    monkeypatch.setattr(experiments, "parallel", None)  # nothing is trained
    picture = here / "kept" / "softmax_vs_linear.png"
    before = picture.read_bytes()
    picture.unlink()
    assert exit_status(["C6", "--redraw", "--slides", "--out", "kept"]) == 0
    assert picture.read_bytes() == before
    assert (here / "kept" / "softmax_vs_linear-1.png").exists()
    kept = json.loads((here / "kept" / "depth.json").read_text())
    kept["parts"]["another"] = kept["parts"].pop("gap")
    (here / "kept" / "depth.json").write_text(json.dumps(kept))
    assert exit_status(["C9", "--redraw", "--out", "kept"]) == 2  # never a blank in a figure
    assert "'gap'" in capsys.readouterr().err


def test_report(here, everything, capsys):
    """Both tables, the gallery in two languages and the scoreboard; nobody's README is replaced."""
    shutil.copytree(everything, here / "kept", ignore=shutil.ignore_patterns("runs"))
    assert exit_status(["report", "--out", "kept"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("| claim | published | robust |") and "| question |" in out
    assert "| C1 [`adam_vs_sgd`](experiments.py): Adam beats SGD" in out
    assert "(figures/robust/depth.png)" in out and "how heavy are the tails" in out
    text = (here / "kept" / "README.md").read_text(encoding="utf-8")
    assert out.strip().replace("(figures/", "(").replace("(exp", "(../exp") in text
    for name in commands.EVERY:
        assert f"[{name}]({name}.png)" in text
    for name in ("adam_vs_sgd", "softmax_vs_linear", "depth"):  # those that have a caption here
        assert commands.headline(name, "kept") in text and commands.headline(name, "kept")
    assert "主張" in (here / "kept" / "README.ja.md").read_text(encoding="utf-8")
    assert (here / "kept" / "scoreboard.png").exists()
    (here / "kept" / "README.md").write_text("mine")
    assert exit_status(["report", "--out", "kept"]) == 2
    (here / "empty").mkdir()
    assert exit_status(["report", "--out", "empty"]) == 0
    assert not list((here / "empty").iterdir())


# ---- Verdicts in words ---------------------------------------------------------------------------


@pytest.mark.parametrize("changes, words", (
    ({}, "reproduced in a first look"), (dict(steps=9_999), "reproduced in a first look"),
    (dict(steps=10_000), "reproduced"), (dict(seeds=5), "too few seeds"),
    (dict(steps=666), "too short"), (dict(lr=dict(SGD=0.02)), "not judged"),
    (dict(optimizers=(Adam, SGD)), "not judged")))
def test_when_a_claim_is_judged(changes, words):
    arguments = commands.defaults(experiments.adam_vs_sgd) | changes
    parts = measured([Part("gap", "gap", [2.0] * 6, above=1)])
    found = commands.judged("adam_vs_sgd", "published", arguments, parts)
    assert found.startswith(words) and found.endswith("a first look") == words.endswith("look")
    nothing = measured([Part("gap", "gap", [2.0] * 6)])
    assert commands.judged("adam_vs_sgd", "published", arguments, nothing) == ""


def test_a_finding_comes_back_as_it_was(tmp_path):
    parts = measured([Part("a", "a", [1.0, np.inf, np.nan], above=1), Part("b", "b", "words")])
    found = commands.finding("adam_vs_sgd", "robust", dict(seeds=3, steps=5), parts)
    commands.keep("adam_vs_sgd", "robust", tmp_path, dict(x=np.arange(3)), found)
    arrays, back = commands.load("adam_vs_sgd", tmp_path, "robust")
    np.testing.assert_array_equal(back["parts"]["a"].values, [1, np.inf, np.nan])
    assert back["parts"]["a"][3:] == parts["a"][3:]
    assert (str(back["parts"]["b"]), str(back["parts"]["a"])) == ("words", "nan (open)")
    assert arrays["x"].tolist() == [0, 1, 2] and back["verdict"] == found["verdict"]


def test_the_number_that_decides():
    """Against before open before holds; of these the one with the fewest seeds on its side."""
    parts = [Part(str(i), f"part {i}", [2.0] * good + [0.5] * (6 - good), above=1)
             for i, good in enumerate((6, 5, 4))]
    found = dict(parts=measured(parts))
    assert commands.weakest(found).label.startswith("part 2")
    found = dict(parts=measured([*parts, Part("no", "the last", [0.5] * 6, above=1)]))
    assert commands.weakest(found).label.startswith("the last")


# ---- Mistakes cost a line ------------------------------------------------------------------------


@pytest.mark.parametrize("arguments, words", (
    (["adam_vs_sdg"], "invalid choice: 'adam_vs_sdg'"), (["C1", "--seed", "42"], "--seed 42"),
    (["C1", "--steps", "0"], "--steps: got '0'"), (["C1", "--jobs", "x"], "--jobs: got 'x'"),
    (["C1", "--lr", "SGD=x"], "lr: got 'SGD=x'"), (["C1", "--lr", "Muon=1"], "lr: got 'Muon=1'"),
    (["C1", "--lr", "-1"], "lr: got '-1'"), (["C2", "--lr", "1"], "--lr: gradient_noise takes none"),
    (["C1", "--optimizers", "SGD"], "wants two or more"),
    (["C1", "--optimizers", "SGD", "Adam", "Adam"], "wants each once"),
    (["C1", "--optimizers", "SGD", "Nadam"], "--optimizers: got 'Nadam'"),
    (["C1", "--optimizers", "SGD", "mine.Foo"], "No module named 'mine'"),
    (["--lr", "0.01"], "got no experiment"), (["--full"], "got no experiment"),
    (["report", "--full"], "nothing is trained"), (["C1", "--redraw", "--quick"], "nothing is"),
    (["C1", "--full", "--quick"], "not allowed"), (["C10", "--robust"], "full_batch: got a name"),
    (["report", "--out", "nowhere"], "out: got 'nowhere'"),
    (["C1", "--redraw", "--out", "nowhere"], "got no results"),
    (["C1", "--quick", "--out", "/proc/nowhere"], "wants a folder to write in")))
def test_mistakes_cost_one_line_and_status_2(arguments, words, here, capsys):
    assert exit_status(arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and words in err and err.count("\n") == 1, err


@pytest.mark.parametrize("source, words", (
    ("class Foo:\n    def __init__(self, lr): pass\n", "no step"), ("import nothing", "nothing"),
    ("class Foo(", "SyntaxError")))
def test_mistakes_in_a_module_of_ones_own(source, words, here, capsys):
    (here / "mine.py").write_text(source)
    assert exit_status(["C1", "--optimizers", "SGD", "mine.Foo"]) == 2
    assert words in capsys.readouterr().err


def test_a_run_that_fails_ends_with_status_1_and_the_others_run(here, capsys):
    (here / "mine.py").write_text(
        "class Bad:\n    def __init__(self, lr): pass\n"
        "    def step(self, params, grad): raise RuntimeError('oh')\n")
    call = ["C1", "C4", *SMALL, "--optimizers", "SGD", "mine.Bad", "--lr", "Bad=1"]
    assert exit_status(call) == 1
    err = capsys.readouterr().err
    assert "adam_vs_sgd: train(Setting 1, SGD, lr 0.02, Bad, lr 1.0, 0, 3): RuntimeError: oh" \
        in err and "mine.py, line 3" in err and "directional_smoothness: " in err


# ---- Poor surroundings ---------------------------------------------------------------------------


@pytest.mark.parametrize("before, environment", (
    (("-OO",), {}), ((), dict(PYTHONIOENCODING="cp1252", HOME="/nowhere",
                              MPLBACKEND="module://some_inline.backend"))))
def test_poor_surroundings(before, environment, here):
    status, out, err = shell("gradient_noise", *SMALL, "--out", "r数", cwd=here, before=before,
                             **environment)
    assert status == 0 and "Traceback" not in err
    assert (here / "r数" / "gradient_noise.png").exists()


def test_a_reader_who_leaves_early_and_no_stderr(here, everything):
    shutil.copytree(everything, here / "kept", ignore=shutil.ignore_patterns("runs"))
    command = f"{sys.executable} {ROOT / 'experiments.py'}"
    done = subprocess.run(f"{command} report --out kept | true", shell=True, capture_output=True)
    assert b"Traceback" not in done.stderr and (here / "kept" / "README.md").exists()
    done = subprocess.run(f"{command} C6 --redraw --out kept 2>&-", shell=True,
                          capture_output=True)
    assert done.returncode == 0 and b"softmax" in done.stdout


def test_a_working_folder_that_is_gone(tmp_path):
    done = subprocess.run(f"mkdir gone; cd gone; rmdir ../gone; {sys.executable} "
                          f"{ROOT / 'experiments.py'} list", shell=True, cwd=tmp_path,
                          capture_output=True)
    assert done.returncode == 1 and done.stderr.count(b"\n") == 1
