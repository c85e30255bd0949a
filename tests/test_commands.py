"""The command line: what a user types, what is printed and kept, and what a mistake costs."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import wraps
from pathlib import Path
from unittest.mock import Mock, patch

import numpy as np
import pytest
from matplotlib.figure import Figure

import commands
import experiments
import questions
import runs
from optimizers import SGD, Adam
from verdicts import Part, measured

ROOT = Path(__file__).parent.parent
SMALL = ["--seeds", "1", "--steps", "3"]
LION = "import numpy as np\n\n" + re.search(r"^class Lion.*?(?=```)", (
    ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)[0]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder, from which a reader's module can be imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(runs, "folder", tmp_path / "runs")
    yield tmp_path
    sys.modules.pop("mine", None)
    runs.SOURCES.pop("mine", None)


@pytest.fixture
def kept(here):
    """A copy of what is kept in figures."""
    return shutil.copytree(ROOT / "figures", here / "kept")


def exit_status(arguments):
    """main's, also where argparse ends the process."""
    try:
        return commands.main(arguments)
    except SystemExit as end:
        return end.code


# ---- What a user types ---------------------------------------------------------------------------


def test_a_users_call(here, capsys):
    """From start to end, in poor surroundings: lines, verdict, files; then again from disk."""
    done = subprocess.run([sys.executable, "-OO", ROOT / "experiments.py", "C1", *SMALL, "--out",
                           "r数"], capture_output=True, env={
        **os.environ, "HOME": "/nowhere", "PYTHONIOENCODING": "cp1252", "MPLBACKEND": "no"})
    lines = done.stdout.decode().splitlines()
    assert done.returncode == 0 and b"Traceback" not in done.stderr
    assert lines[0] == "C1: Adam beats SGD in Settings 1, 2 and 3"
    assert lines[1].startswith("  Setting 1: final loss SGD / Adam: ")
    assert lines[-3].startswith("  verdict: published: too few seeds for a verdict: 1, wants 6")
    assert {path.name for path in (here / "r数").glob("adam*")} == {
        f"adam_vs_sgd.{form}" for form in ("npz", "json", "png", "pdf", "txt")}
    found = json.loads((here / "r数" / "adam_vs_sgd.json").read_text())
    assert found["configuration"] == dict(seeds=1, steps=3, optimizers=["SGD", "Adam"], lr=None,
                                          settings=["Setting 1", "Setting 2", "Setting 3"])
    loss = float(lines[2].split()[-1])
    assert loss == pytest.approx(found["parts"]["Setting 1 SGD"]["values"][0], rel=0.01)
    before = {path: path.stat().st_mtime_ns for path in (here / "r数" / "runs").glob("*.npz")}
    assert exit_status(["adam-vs-sgd", *SMALL, "--out", "r数", "--jobs", "1"]) == 0
    assert before == {path: path.stat().st_mtime_ns for path in before}
    out, err = capsys.readouterr()
    assert out.splitlines()[:-2] == lines[:-2]
    assert err.splitlines() == [f"train, Setting {number}: 1 task" for number in (1, 2, 3)]


def test_the_list_is_printed_without_a_name(capsys):
    assert exit_status([]) == 0
    first, *others = capsys.readouterr().out.splitlines()
    assert first == "adam_vs_sgd             C1: Adam beats SGD in Settings 1, 2 and 3"
    assert len(others) == len(commands.EVERY) - 1


def given(*arguments):
    found = commands.command_line().parse_intermixed_args(arguments)
    return commands.arguments_of(found.names[0], found)


def test_budgets_and_options():
    """Names as people type them; defaults, --full, --quick and numbers of one's own; repeated
    options add up."""
    usual = commands.defaults(experiments.adam_vs_sgd)
    for typed in ("C1", "c1", "adam_vs_sgd", "Adam-vs-SGD"):
        assert given(typed) == usual and usual["optimizers"] == (SGD, Adam)
    assert given("C1", "--full") == usual | dict(steps=10_000)
    assert given("C1", "--quick") == usual | dict(seeds=2, steps=100)
    assert given("C7", "--quick")["steps"] == 38  # never more than the default
    assert given("C2", "--steps", "7")["draws"] == 7
    assert given("C3", "--full", "--robust")["seeds"] == 18
    assert given("lead", "--full", "--rows", "L = 2")["conditions"] == ("L = 2",)
    assert given("C1", "--lr", "0.1", "--lr", "Adam=0.2")["lr"] == dict(SGD=0.1, Adam=0.2)
    assert given("C1", "--optimizers", "Adam", "--optimizers", "Muon", "--lr", "1")["lr"] == dict(
        Adam=1.0, Muon=1.0)
    assert given("learning_rates", "--optimizers", "SGD", "Muon")["lr"] is None  # it finds them


@pytest.mark.parametrize("typed, words", (
    ("C9 --full --out 'my results'", "report --out 'my results'"),
    ("C1 --seeds 1 --steps 3", "adam_vs_sgd --full   (20,000 times as many steps in all)"),
    ("C9 --robust --lr SGD=1", "depth --robust --full --lr SGD=1   (17 times as many steps in all)"),
    ("lead --rows 'L = 2'", "lead --full --rows 'L = 2'   (83 times as many steps in all)"),
    ("C1 --full --steps 30", "adam_vs_sgd --full   (330 times as many steps in all)"),
    ("C1 --seeds 12 --steps 10000", "report --out results"),
    ("the_model", "report --out results")))
def test_the_hint_after_a_run(typed, words):
    """A command to be pasted, and how much more it computes."""
    found = commands.command_line().parse_intermixed_args(shlex.split(typed))
    arguments = commands.arguments_of(found.names[0], found)
    assert commands.next_step(found.names[0], found, arguments) == f"python experiments.py {words}"


def test_an_optimizer_of_ones_own(here, capsys):
    """README's class in a file of one's own: kept by its source, in parallel."""
    (here / "mine.py").write_text(LION)
    call = ["C1", *SMALL, "--optimizers", "SGD", "mine.Lion", "--lr", "Lion=0.01"]
    assert exit_status(call) == 0
    out = capsys.readouterr().out
    assert "final loss SGD / Lion" in out
    assert "--full --optimizers SGD mine.Lion --lr Lion=0.01" in out
    assert len(list((here / "results" / "runs").glob("train-*.npz"))) == 3
    assert exit_status(["C1", *SMALL, "--optimizers", "SGD", "mine.Lion"]) == 2
    assert "lr: got none for Lion" in capsys.readouterr().err


def test_slides_and_redraw(kept, monkeypatch, capsys):
    """From what is kept, without training; a file a panel; never a blank in a figure."""
    monkeypatch.setattr(commands, "run", None)
    (kept / "robust" / "depth.png").unlink()
    assert exit_status(["C9", "--robust", "--redraw", "--slides", "--out", "kept"]) == 0
    paths = capsys.readouterr().out.splitlines()
    assert paths[2:4] == ["kept/robust/depth-1.png", "kept/robust/depth-1.pdf"]
    assert paths[0] == "kept/robust/depth.png" and all(Path(path).exists() for path in paths)
    np.savez(kept / "depth.npz", other=0)
    assert exit_status(["C9", "--redraw", "--out", "kept"]) == 2
    said = capsys.readouterr().err
    assert "kept/depth.npz: got other arrays" in said and "KeyError at experiments.py:" in said


@pytest.mark.parametrize("level, name, words", (
    ("published", "adam_vs_sgd", "as the paper asks: 3 of 3 tests hold   |   6 seeds, 10,000 steps"),
    ("robust", "adam_vs_sgd", "asked harder: 2 of 3 tests hold, 1 open   |   6 seeds, 10,000 steps"),
    ("robust", "heavy_tails", "asked harder: 1 of 2 tests hold, 1 against   |   8 seeds, 10,000 steps"),
    ("published", "learning_rates", "3 seeds, 10,000 steps")))
def test_what_stands_below_a_headline(level, name, words):
    """How many primary parts hold, of a first look as such, or why nothing is said of them."""
    found = commands.load(name, ROOT / "figures", level)[1]
    assert commands.under(found) == words
    if found["verdict"]:
        first = commands.under(found | dict(verdict=f"{found['verdict']} in a first look"))
        assert first == words.replace("   |", " in a first look   |")
        assert commands.under(found | dict(verdict="too few seeds")).startswith("too few seeds   |")


def test_report(kept, monkeypatch, capsys):
    """Both tables, the gallery in two languages and the scoreboard; on a terminal a line each."""
    assert exit_status(["report", "--out", "kept"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("| claim | as the paper asks | asked harder |") and "| question |" in out
    assert "| C1 [`adam_vs_sgd`](docs/findings.md#adam_vs_sgd): Adam beats SGD" in out
    assert "(figures/robust/depth.png)" in out and "how heavy are the tails" in out
    text, other = ((kept / name).read_text(encoding="utf-8") for name in commands.GALLERY[:2])
    assert out.strip().replace("(figures/", "(").replace("(docs/", "(../docs/") in text
    for name in commands.EVERY:
        assert f'<a href="{name}.png"><img src="{name}.png"' in text or commands.claim_of(name)[0] == "Draft"
        assert commands.headline(name, "kept") in text.replace("\\|", "|")
    assert other.startswith("# 図の一覧\n") and "| 主張 |" in other
    for name in commands.EVERY:  # every claim and question has its words
        claim = commands.claim_of(name)[1].replace("|x|", "\\|x\\|")
        assert f'<a href="{name}.png">' in other and claim not in other
    assert err.startswith("experiments.py: written: kept/README.md, kept/README.ja.md, kept/scoreb")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(commands, "gallery", lambda found, out: [Path(out, "a"), Path(out, "b")])
    assert exit_status(["report", "--out", "kept"]) == 0
    first, *_, last = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"C1 +adam_vs_sgd +published: \w+; robust: \w+", first)
    assert last == "written: kept/a, kept/b"
    (kept / "none").mkdir()
    assert exit_status(["report", "--out", "kept/none"]) == 0 and not [*(kept / "none").iterdir()]


def test_a_report_takes_nothing_from_the_user(kept, monkeypatch, capsys):
    """The table is printed all the same; also of a folder that cannot be written."""
    for name in commands.GALLERY:
        (kept / name).unlink()
    for name in commands.GALLERY:
        (kept / name).write_bytes(b"\xff mine")
        assert exit_status(["report", "--out", "kept"]) == 0
        out, err = capsys.readouterr()
        assert out.startswith("| claim |") and err.startswith(f"experiments.py: kept/{name}: left ")
        assert (kept / name).read_bytes() == b"\xff mine"
        (kept / name).unlink()
    monkeypatch.setattr(runs, "write", Mock(side_effect=PermissionError("read-only")))
    assert exit_status(["report", "--out", "kept"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("| claim |") and err.endswith("read-only\n") and err.count("\n") == 1


def test_an_experiment_is_kept_row_by_row(tmp_path, monkeypatch, capsys):
    """Those that the folder has stay, if all other arguments are the same, and a line says so; each
    names its commit. What is found over all rows is found again with each."""
    def rowed(seeds, steps, conditions):
        done.append((steps, *conditions))
        return ({f"{name} x": np.arange(steps) for name in conditions},
                [Part(name, name, [float(steps)] * seeds) for name in conditions])

    def together(arrays):
        names = "".join(name[0] for name in arrays if name != "all")
        return arrays | {"all": np.arange(len(names))}, [Part("all", "all", names)]

    done, commits, rowed.rows, rowed.together = [], [], "conditions", together
    monkeypatch.setitem(commands.NAMES["published"], "lead", rowed)
    monkeypatch.setattr(commands, "claim_of", lambda name, level="published": ("Draft", name))
    monkeypatch.setattr(commands, "defaults", lambda function: {})
    monkeypatch.setattr(commands, "commit", iter("aabbcde").__next__)
    rowed.full = {}
    for steps, conditions in ((3, ("a", "b")), (3, ("b", "c")), (4, ("a",))):
        found = commands.run("lead", "published", tmp_path, dict(
            seeds=6, steps=steps, conditions=conditions))
        kept = [key for key in found["parts"] if key != "all"]
        commits.append(found["commit"])
        arrays, _ = commands.load("lead", tmp_path)
        assert found["configuration"]["conditions"] == kept == [
            key.split()[0] for key in arrays if key != "all"]
        assert len(kept) == 1 or (found["parts"]["all"].values == "".join(kept)
                                  and len(arrays["all"]) == len(kept))
    assert done == [(3, "a"), (3, "b"), (3, "c"), (4, "a")] and kept == ["a"]
    assert commits == ["a", "a, b", "b"]
    assert [line[:36] for line in capsys.readouterr().err.splitlines()] == [
        "experiments.py: lead, b: is there al"]
    rowed.full = dict(steps=10)  # now these are first looks, which follow a change of the code
    found = commands.run("lead", "published", tmp_path, dict(seeds=6, steps=4, conditions=("a", "b")))
    assert done[4:] == [(4, "a"), (4, "b")] and found["configuration"]["conditions"] == ["a", "b"]


def test_a_row_that_cannot_be_kept_takes_no_other_with_it(tmp_path):
    """And a reader's optimizer with the name of ours is another one."""
    mine = type("SGD", (SGD,), {})
    for each, word in ((SGD, "SGD"), (mine, "test_commands.SGD")):
        assert json.loads(commands.in_json([each])) == [word]
    found = dict(parts=measured([Part("a", "a", [1.0] * 6)]), configuration=dict(rows=["a"]))
    commands.keep("lead", "published", tmp_path, {"a": np.ones(2)}, found)
    with patch.object(commands.runs, "write", side_effect=OSError("disk full")):
        for adds in (True, False):
            with pytest.raises(OSError):
                commands.keep("lead", "published", tmp_path, {"b": np.ones(2)}, found, adds)
            assert (tmp_path / "lead.json").exists() == adds


# ---- Verdicts in words ---------------------------------------------------------------------------


@pytest.mark.parametrize("changes, words", (
    ({}, "reproduced in a first look"), (dict(steps=9_999), "reproduced in a first look"),
    (dict(steps=10_000), "reproduced"), (dict(seeds=5), "too few seeds"),
    (dict(steps=666), "too short"), (dict(lr=dict(SGD=0.02)), "not judged"),
    (dict(optimizers=(Adam, SGD)), "not judged"), (dict(settings={}), "not judged")))
def test_when_a_claim_is_judged(changes, words):
    arguments = commands.defaults(experiments.adam_vs_sgd) | changes
    parts = measured([Part("gap", "gap", [2.0] * 6, above=1)])
    found = commands.judged("adam_vs_sgd", "published", arguments, parts)
    assert found.startswith(words) and found.endswith("a first look") == words.endswith("look")
    nothing = measured([Part("gap", "gap", [2.0] * 6)])
    assert commands.judged("adam_vs_sgd", "published", arguments, nothing) == ""


def test_a_finding_comes_back_as_it_was_and_nothing_old_stands_beside_it(tmp_path):
    """Wherever the new call ends. The user's own pictures stay."""
    parts = measured([Part("a", "a", [1.0, np.inf, np.nan], above=1), Part("b", "b", "words")])
    found = commands.finding("adam_vs_sgd", "robust", dict(seeds=3, steps=5), parts)
    for rest in (".json", ".png", ".txt", "-1.png", "-12.pdf", "-talk.png"):
        runs.write(tmp_path / "robust" / f"adam_vs_sgd{rest}", lambda file: None)
    with patch.object(runs, "write", side_effect=OSError), pytest.raises(OSError):
        commands.keep("adam_vs_sgd", "robust", tmp_path, {}, found)
    assert [path.name for path in (tmp_path / "robust").iterdir()] == ["adam_vs_sgd-talk.png"]
    commands.keep("adam_vs_sgd", "robust", tmp_path, dict(x=np.arange(3)), found)
    arrays, back = commands.load("adam_vs_sgd", tmp_path, "robust")
    np.testing.assert_array_equal(back["parts"]["a"].values, [1, np.inf, np.nan])
    assert back["parts"]["a"][3:] == parts["a"][3:]
    assert (str(back["parts"]["b"]), str(back["parts"]["a"])) == ("words", "nan (open)")
    assert arrays["x"].tolist() == [0, 1, 2] and back["verdict"] == found["verdict"]


def test_the_commit_is_ours_or_none(tmp_path, monkeypatch):
    subprocess.run("git init -q; git -c user.name=a -c user.email=b commit -q --allow-empty -m a; "
                   "mkdir copy", shell=True, cwd=tmp_path, check=True)
    ours = commands.commit()
    with patch.dict(os.environ, GIT_DIR=str(tmp_path / ".git")):
        assert commands.commit() == ours
    monkeypatch.setattr(commands, "__file__", str(tmp_path / "copy" / "commands.py"))
    assert commands.commit() == ""


def test_a_commit_is_dirty_if_a_module_has_changed(tmp_path, monkeypatch):
    """A figure that an earlier row has drawn anew is none."""
    for name in ("a.py", "a.json"):
        (tmp_path / name).write_text("1")
    subprocess.run("git init -q; git add .; git -c user.name=a -c user.email=b commit -q -m a",
                   shell=True, cwd=tmp_path, check=True)
    monkeypatch.setattr(commands, "__file__", str(tmp_path / "a.py"))
    clean = commands.commit()
    (tmp_path / "a.json").write_text("2")
    assert clean and commands.commit() == clean
    (tmp_path / "a.py").write_text("2")
    assert commands.commit() == f"{clean}-dirty"


def test_the_scoreboard():
    """The verdict of each level, grey where there is none; above how many are reproduced."""
    parts = measured([Part("one", "a part", [2.0, 3, 4, 5, 6, 7], above=1)])
    yes, no = (dict(parts=parts, verdict=word) for word in ("reproduced", "not reproduced"))
    board, figure = dict(depth=dict(published=yes, robust=no),
                         clipping=dict(published=yes, robust=None)), Figure()
    commands.draw_scoreboard(board, figure, {}, {})
    words = [(text.get_text(), text.get_position()[0]) for text in figure.axes[0].texts]
    assert [word for word, x in words if x == 0.62] == ["as the paper asks", *["reproduced"] * 2]
    assert [word for word, x in words if x == 0.82] == ["asked harder", "not reproduced",
                                                       "not asked"]
    assert commands.score(board) == \
        "Reproduced: 2 of 2 claims as the paper asks, 0 of 1 when asked harder"


# ---- Mistakes cost a line ------------------------------------------------------------------------


@pytest.mark.parametrize("arguments, words", (
    (["adam_vs_sdg"], "did you mean adam_vs_sgd?"), (["C1", "--seed", "42"], "--seed 42"),
    (["C1", "--steps", "0"], "--steps: got '0'"), (["C1", "--jobs", "x"], "--jobs: got 'x'"),
    (["C1", "--lr", "SGD=x"], "lr: got 'SGD=x'"), (["C1", "--lr", "-1"], "lr: got -1"),
    (["C1", "--lr", "Adm=1"], "lr: got 'Adm=1', wants rates of SGD, Adam (did you mean Adam?)"),
    (["C2", "--lr", "1"], "--lr: got one, wants none: gradient_noise takes none"),
    (["C1", "--rows", "L = 2"], "--rows: got one, wants none: adam_vs_sgd takes none"),
    (["lead", "--steps", "1"], "steps: got 1, wants 2 or more"),
    (["lead", "--rows", "L = 2", "L = 5"], "conditions: got ['L = 2', 'L = 5'], wants some of"),
    (["C6", "C7", *SMALL, "--optimizers", "Adam"], "optimizers: got ['Adam'], wants 2 or more"),
    (["screen", "--optimizers", "SGD", "mine.SGD"], "optimizers: got ['SGD', 'SGD']"),
    (["C1", "--optimizers", "SGD", "adm"], "did you mean Adam?"),
    (["C1", "--optimizers", "SGD", "theirs.Foo"], "No module named 'theirs'"),
    (["--lr", "0.01"], "got no experiment"), (["--full"], "got no experiment"),
    (["report", "--full"], "nothing is trained"), (["C1", "--redraw", "--quick"], "nothing is"),
    (["C1", "--full", "--quick"], "not allowed"), (["C10", "--robust"], "full_batch: got a name"),
    (["report", "--out", "nowhere"], "out: got 'nowhere'"),
    (["C1", "--redraw", "--out", "nowhere"], "got no such file"),
    (["all", "--redraw", "--out", "nowhere"], "got 'nowhere', wants a folder with findings"),
    (["lead", "--rows", "L = 5", "--rows", "L = 7"], "conditions: got ['L = 5', 'L = 7']"),
    (["C1", "--quick", "--out", "/proc/nowhere"], "wants a folder to write in")))
def test_mistakes_cost_one_line_and_status_2(arguments, words, here, capsys):
    (here / "mine.py").write_text(LION.replace("Lion", "SGD"))
    assert exit_status(arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and words in err and err.count("\n") == 1, err


def test_a_first_look_does_not_replace_what_a_longer_run_found(kept, capsys):
    """Rows that took hours, say; with another folder it runs."""
    before = (kept / "lead.json").read_bytes()
    assert exit_status(["lead", "--rows", "L = 2", "--steps", "8", "--out", str(kept)]) == 2
    assert "lead.json: got the finding of a longer run" in capsys.readouterr().err
    assert exit_status(["C1", "C2", *SMALL[:2], "--out", str(kept)]) == 2
    assert (kept / "lead.json").read_bytes() == before
    assert exit_status(["the_model", "--seeds", "1", "--out", "new"]) == 0
    assert exit_status(["the_model", "--seeds", "2", "--out", "new"]) == 0  # both are first looks
    for others in (["--seeds", "12", "--rows", "L = 2"], ["--seeds", "12"]):  # longer, but the
        assert exit_status(["lead", "--full", *others, "--out", str(kept)]) == 2  # rows would go
    assert exit_status(["C9", "--full", "--lr", "SGD=0.01", "--out", str(kept)]) == 2
    assert (kept / "lead.json").read_bytes() == before


def test_a_mistake_in_an_experiment_shows_its_place(here, monkeypatch):
    """Its author must mend it; a line of 'got and wants' is for the user's alone."""
    def slip(**arguments):
        int("slip")

    monkeypatch.setitem(commands.NAMES["published"], "the_model", wraps(
        questions.the_model)(slip))
    with pytest.raises(ValueError, match="invalid literal"):
        commands.main(["the_model", "--out", "new"])


@pytest.mark.parametrize("source, words", (
    ("class Foo:\n    def __init__(self, lr): pass\n", "method step"), ("Foo = 1", "no class"),
    ("import nothing", "No module named 'nothing')"), ("class Foo(", "SyntaxError"),
    ("import sys\nsys.exit()", "SystemExit"),
    ("from data import BETA", "; a module of ours has the name of data.py: give yours another)")))
def test_mistakes_in_a_module_of_ones_own(source, words, here, capsys):
    for name, text in (("mine", source), ("data", "BETA = 1"), ("nothing2", "BETA = 1")):
        (here / f"{name}.py").write_text(text)
    assert exit_status(["C1", "--optimizers", "SGD", "mine.Foo"]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("name, old, new", (
    ("depth.json", '"level"', '"niveau"'), ("depth.json", '"label"', '"name"'),
    ("depth.json", '"holds"', '"agreed"'), ("depth.txt", "(?s).+", "")))
def test_a_file_of_another_version_is_named(name, old, new, kept, capsys):
    path = kept / "robust" / name
    path.write_bytes(re.sub(old, new, path.read_text(encoding="utf-8")).encode())
    assert exit_status(["report", "--out", "kept"]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"experiments.py: kept/robust/{name}: ") and err.count("\n") == 1


def test_a_run_that_fails_ends_with_status_1_and_the_others_run(here, capsys):
    (here / "mine.py").write_text(
        "class Bad:\n    def __init__(self, lr): pass\n"
        "    def step(self, params, grad): raise RuntimeError('oh')\n")
    call = ["C1", "C4", *SMALL, "--optimizers", "SGD", "mine.Bad", "--lr", "Bad=1"]
    assert exit_status(call) == 1
    err = capsys.readouterr().err
    assert "adam_vs_sgd: train(Setting 1, SGD, lr 0.02, Bad, lr 1.0, 0, 3): RuntimeError: oh" \
        in err and "mine.py, line 3" in err and "directional_smoothness: " in err


def test_a_mistake_that_one_experiment_finds_stops_no_other(here, monkeypatch, capsys):
    """As a rate that is wanted in its settings alone."""
    def run(name, *others):
        if name == "gradient_noise":
            raise ValueError("lr: got none, wants one")
        return dict(claim=name, claimed="words", level="published", verdict="", parts={})

    monkeypatch.setattr(commands, "run", run)
    monkeypatch.setattr(commands, "save_figures", lambda *others: [])
    assert exit_status(["C2", "C4", "--quick"]) == 1
    out, err = capsys.readouterr()
    said = "experiments.py: gradient_noise: lr: got none, wants one\n"
    assert err == 2 * said  # where it happens, and at the end
    assert out.startswith("directional_smoothness: words")
    assert exit_status(["C2", "--quick"]) == 2


def test_all_beside_a_name_and_an_executor_of_ones_own(here, monkeypatch):
    """All are run; and the executor is still there afterwards."""
    asked, mine = [], ThreadPoolExecutor(1)
    monkeypatch.setattr(commands, "run_all", lambda names, *others: asked.extend(names))
    commands.main(["C1", "all", "--quick"])
    assert asked == list(commands.NAMES["published"])
    monkeypatch.undo()
    monkeypatch.setattr(commands.runs, "executor", mine)
    monkeypatch.setattr(commands, "run", Mock(side_effect=OSError("full")))
    assert exit_status(["C1", "--quick"]) == 1 and commands.runs.executor is mine


def test_numbers_are_printed_before_they_are_drawn(here, monkeypatch, capsys):
    """A full disk then, or a reader who has left, costs neither them nor the other figures."""
    found = dict(claim="C0", claimed="words", level="published", verdict="open", parts={})
    monkeypatch.setattr(commands, "run", lambda name, *others: found | dict(claim=name))
    monkeypatch.setattr(commands, "save_figures", Mock(side_effect=[OSError("full"), ["a.png"], []]))
    assert exit_status(["C1", "C4", "--quick"]) == 1
    out, err = capsys.readouterr()
    assert out.startswith("adam_vs_sgd: words\n  verdict: published: open\ndirectional_smoothness:")
    assert err == 2 * "experiments.py: adam_vs_sgd: full\n" and "  a.png\n  next: python " in out
    monkeypatch.setattr(commands, "print", Mock(side_effect=BrokenPipeError), raising=False)
    with pytest.raises(BrokenPipeError):
        commands.status_of(commands.command_line().parse_intermixed_args(["C1", "C4", "--quick"]))
    assert commands.save_figures.call_count == 3


# ---- Poor surroundings ---------------------------------------------------------------------------


def test_a_reader_who_leaves_early_and_no_stderr(kept):
    command = f"{sys.executable} {ROOT / 'experiments.py'}"
    (kept / "scoreboard.png").unlink()
    done = subprocess.run(f"{command} report --out kept | true", shell=True, capture_output=True)
    assert b"Traceback" not in done.stderr and (kept / "scoreboard.png").exists()
    done = subprocess.run(f"{command} C9 --robust --redraw --out kept 2>&-", shell=True,
                          capture_output=True)
    assert done.returncode == 0 and b"depth.png" in done.stdout


def test_a_working_folder_that_is_gone(tmp_path):
    done = subprocess.run(f"mkdir gone; cd gone; rmdir ../gone; {sys.executable} "
                          f"{ROOT / 'experiments.py'} list", shell=True, cwd=tmp_path,
                          capture_output=True)
    assert done.returncode == 1 and done.stderr.count(b"\n") == 1
