"""README and docs: the code that they show runs, the numbers are those of the kept findings, the
links lead somewhere; and the house: no module knows what stands above it."""

import ast
import contextlib
import io
import re
from pathlib import Path

import pytest

import commands

ROOT = Path(__file__).parent.parent
README, JAPANESE = ((ROOT / name).read_text(encoding="utf-8")
                    for name in ("README.md", "README.ja.md"))
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "figures" / "README.md"]


def test_the_loop_in_use(tmp_path, monkeypatch):
    """README's Python and then that of docs/results.md, block after block in one notebook, in both
    languages the same."""
    results, other = ((ROOT / "docs" / name).read_text(encoding="utf-8")
                           for name in ("results.md", "results.ja.md"))
    blocks = re.findall(r"```python\n(.*?)```", README + results, re.DOTALL)
    assert blocks == re.findall(r"```python\n(.*?)```", JAPANESE + other, re.DOTALL)
    assert len(blocks) == 4
    model, = re.findall(r"```py\n(.*?)```", README, re.DOTALL)  # not run: minimal.py has it
    assert model in (ROOT / "minimal.py").read_text(encoding="utf-8") and model in JAPANESE
    monkeypatch.chdir(tmp_path)
    names, printed = {"__name__": "notebook"}, io.StringIO()
    with contextlib.redirect_stdout(printed):
        for block in blocks:
            exec(block.replace("steps=800", "steps=60").replace("steps=100", "steps=6"), names)
    shape, *R = printed.getvalue().splitlines()
    assert shape.startswith("(2, 60)") and len(R) == 2 and all(float(each) > 1 for each in R)
    assert (tmp_path / "mine.png").exists()


def test_the_tables_are_those_of_the_report():
    found = commands.findings(ROOT / "figures")
    claims = commands.report(found, ROOT / "figures").split("\n\n")[0]
    assert claims in README
    translated = commands.report(found, ROOT / "figures", commands.translated).split("\n\n")[0]
    assert translated in JAPANESE
    gallery = (ROOT / "figures" / "README.md").read_text(encoding="utf-8")
    assert commands.report(found, ROOT / "figures", figures="", source="../") in gallery


def test_every_finding_has_its_section():
    for name in ("findings.md", "findings.ja.md"):
        text = (ROOT / "docs" / name).read_text(encoding="utf-8")
        for level, functions in commands.NAMES.items():
            for each in functions:
                assert f"{'robust/' if level == 'robust' else ''}{each}.png" in text \
                    or commands.claim_of(each)[0] == "Draft"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text(encoding="utf-8")):
        assert "://" in target or (path.parent / target).exists(), target


@pytest.mark.parametrize("page", ("derivation.md", "derivation.ja.md"))
def test_the_derivation_names_what_there_is(page):
    """Functions, tests, and lines of code."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    sources = {each.stem: each.read_text(encoding="utf-8")
               for each in (*ROOT.glob("*.py"), *ROOT.glob("tests/*.py"))}
    spans = re.findall(r"`([^`\n]+)`", text)
    for module, name in re.findall(r"`(linattn|mlp|training)\.(?!py`)(\w+)`", text):
        assert re.search(rf"^(def {name}\b|{name} = )", sources[module], re.MULTILINE), name
    tests = [each for each in spans if each.startswith("test_")]
    lines = [each for each in spans if " = " in each]
    assert len(tests) > 10 and len(lines) > 10
    for name in tests:
        assert any(f"def {name}(" in source for source in sources.values()), name
    for line in lines:
        assert line in sources["linattn"], line


ROOMS = ("minimal linattn mlp polynomial optimizers data runs training verdicts plotting "
         "experiments robust questions")
KNOWS = {  # what a room may import of the house
    **dict.fromkeys("minimal linattn optimizers data runs verdicts".split(), ""),
    "plotting": "verdicts",
    "mlp": "linattn", "polynomial": "linattn data",
    "training": "linattn mlp optimizers data runs",
    **dict.fromkeys(("experiments", "questions"),
                    "linattn polynomial optimizers data runs training verdicts plotting"),
    "robust": "experiments linattn optimizers data runs training verdicts plotting"}


@pytest.mark.parametrize("room", KNOWS)
def test_no_room_knows_what_stands_above_it(room):
    tree = ast.parse((ROOT / f"{room}.py").read_text(encoding="utf-8"))
    body = [node for node in tree.body if not isinstance(node, ast.If)]  # the command line's door
    imported = {name for node in body for each in ast.walk(node)
                for name in ([alias.name for alias in each.names] if isinstance(each, ast.Import)
                             else [each.module] if isinstance(each, ast.ImportFrom) else [])}
    assert imported & set(ROOMS.split()) <= set(KNOWS[room].split())
    assert "commands" not in imported
    if room not in ("plotting", "experiments", "robust", "questions"):
        assert not any(name.startswith("matplotlib") for name in imported)
