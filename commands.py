"""The command line: arguments, saving, and the report over what is kept.

A call leaves in its folder, for each experiment, NAME.npz (the arrays), NAME.json (the finding:
parts, decisions, configuration, commit), NAME.png, NAME.pdf and NAME.txt (the caption, its headline
first); what `--robust` finds lies in the folder robust there, finished trainings in runs.
"""

import argparse
import ast
import difflib
import importlib
import inspect
import json
import os
import platform
import re
import shlex
import subprocess
import sys
import textwrap
import time
import traceback
from functools import partial
from pathlib import Path

import numpy as np

import experiments
import plotting
import questions
import robust
import runs
from training import checked
from verdicts import Measured, line, measured, verdict

LEVELS = {"published": (experiments, questions), "robust": (robust,)}
NAMES = {level: {name: function for book in books for name, function in vars(book).items()
                 if hasattr(book, f"draw_{name}")} for level, books in LEVELS.items()}
EVERY = list(NAMES["published"])
LEAST_SEEDS = 6  # below which no sign test decides
FIELDS = "claim", "claimed", "level", "verdict", "parts", "configuration", "commit", "versions"
GALLERY = ("README.md", "README.ja.md", "scoreboard.png", "scoreboard.pdf", "lead_and_loss.png",
           "lead_and_loss.pdf")
EXAMPLES = """
examples:
  python experiments.py adam_vs_sgd                  a first look, also as C1 or adam-vs-sgd
  python experiments.py C1 --robust                  the same claim asked harder
  python experiments.py C1 C2 --quick                two of them, on two seeds
  python experiments.py depth --full                 the paper's protocol; goes on if interrupted
  python experiments.py C1 --lr SGD=0.05             another learning rate
  python experiments.py screen --optimizers SGD Adam mine.Lion     your own, class Lion in mine.py
  python experiments.py C1 --redraw --slides --out figures    what is kept, a panel a file
  python experiments.py report --out results         what a folder holds; writes its gallery
"""


def claim_of(name, level="published"):
    """(C1, the claim in words), from the first line of a docstring."""
    function = NAMES[level][name]
    text = inspect.getdoc(function) or ast.get_docstring(  # python -OO has none
        ast.parse(inspect.getsource(function)).body[0])
    identity, _, claimed = text.splitlines()[0].partition(": ")
    return identity, claimed.removesuffix(".")


def is_claim(name):
    """Whether an experiment claims something: a `Question:` asks, a `Draft:` is being tried."""
    return claim_of(name)[0] not in ("Question", "Draft")


def defaults(function):
    """{argument: default}, all of which are keywords."""
    return {key: each.default for key, each in inspect.signature(function).parameters.items()}


# ---- Arguments -----------------------------------------------------------------------------------


def command_line():
    """The options; a mistake costs one line and status 2."""
    parser = argparse.ArgumentParser(
        "experiments.py", description="Run experiments; without a name, list them.",
        epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.error = lambda message: parser.exit(
        2, f"experiments.py: {' '.join(message.split())}\n")
    parser.add_argument("names", nargs="*", metavar="name", type=meant, default=["list"],
                        help="an experiment, or its claim as C1; all; report; list")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--full", action="store_true",
                        help="the paper's protocol: 6 seeds, 10,000 steps, or what the test needs")
    budget.add_argument("--quick", action="store_true", help="2 seeds, at most 100 steps")
    parser.add_argument("--robust", action="store_true", help="the claim asked harder (robust.py)")
    parser.add_argument("--seeds", type=whole, help="how many")
    parser.add_argument("--steps", type=whole, help="iterations of each run (draws of noise)")
    parser.add_argument("--optimizers", nargs="+", action="extend", type=optimizer, metavar="NAME",
                        help="of optimizers.py, or MODULE.CLASS of your own; the first is compared")
    parser.add_argument("--lr", nargs="+", action="extend", metavar="[NAME=]RATE",
                        help="learning rates: 0.01 for every optimizer, or Adam=0.01 for one")
    parser.add_argument("--rows", nargs="+", action="extend", metavar="ROW",
                        help="of an experiment that is measured row by row, as lead, these alone")
    parser.add_argument("--jobs", type=whole, help="processes (default: one for each core)")
    parser.add_argument("--out", default="results", help="folder (default: results)")
    parser.add_argument("--slides", action="store_true", help="also one file for each panel")
    parser.add_argument("--redraw", action="store_true",
                        help="train nothing: draw again what is kept in the folder")
    return parser


def meant(text):
    """The name of the experiment that a claim (C1) or a name (adam-vs-sgd) means."""
    word, names = text.lower().replace("-", "_"), [*EVERY, "all", "list", "report"]
    word = {claim_of(name)[0].lower(): name for name in EVERY
            if is_claim(name)}.get(word, word)
    if word in names:
        return word
    raise argparse.ArgumentTypeError(f"got {text!r}, wants an experiment, all, list or report"
                                     f"{nearest(word, names)}")


def nearest(word, words):
    """The words "(did you mean adam_vs_sgd?)", or nothing."""
    known = {each.lower(): each for each in words}
    return "".join(f" (did you mean {known[each]}?)" for each in
                   difflib.get_close_matches(word.lower(), known, 1))


def whole(text):
    """A whole number below a million."""
    if not text.isdecimal() or not 1 <= int(text) < 10**6:
        raise argparse.ArgumentTypeError(f"got {text!r}, wants a whole number from 1 to 999,999")
    return int(text)


def optimizer(text):
    """The class of a name such as SGD, of optimizers.py, or mine.Lion, of a module mine.py in the
    working directory."""
    module, _, name = text.rpartition(".")
    close = ""
    try:
        book = importlib.import_module(module or "optimizers")
        close = nearest(name, [key for key, value in vars(book).items() if inspect.isclass(value)])
        found = getattr(book, name)
        if inspect.isclass(found):
            return found
        reason = "it is no class"
    except (Exception, SystemExit) as error:  # whatever happens in the reader's module
        reason = f"{type(error).__name__}: {error}{hidden_file(error)}"
    raise argparse.ArgumentTypeError(f"got {text!r}, wants a class of optimizers.py, or "
                                     f"MODULE.CLASS of your own{close} ({reason})")


def hidden_file(error):
    """What is to be said if an error is of a module of ours that hides a file of the reader's."""
    ours = Path(__file__).parent
    return "".join(f"; a module of ours has the name of {path}: give yours another"
                   for path in Path().glob("*.py") if f"'{path.stem}'" in str(error)
                   and (ours / path).exists() and not ours.samefile("."))


def rates(texts, names):
    """{optimizer: rate} from RATE (for all) and NAME=RATE (for one)."""
    found = {}
    for text in texts:
        name, equals, rate = text.rpartition("=")
        if equals and name not in names:
            raise ValueError(f"lr: got {text!r}, wants rates of {', '.join(names)}"
                             f"{nearest(name, names)}")
        try:
            found |= dict.fromkeys([name] if equals else names, float(rate))
        except ValueError:
            raise ValueError(f"lr: got {text!r}, wants RATE or NAME=RATE") from None
    return found


def arguments_of(name, given):
    """What an experiment is called with. Raises ValueError for an option that it does not take."""
    function = NAMES["robust" if given.robust else "published"][name]
    usual = defaults(function)
    count = "draws" if "draws" in usual else "steps"
    found = dict(usual)
    if given.full:
        found |= function.full
    if given.quick:
        found |= {key: min(most, usual[key]) for key, most in (("seeds", 2), (count, 100))
                  if key in usual}
    for option, key in (("seeds", "seeds"), ("steps", count), ("optimizers", "optimizers"),
                        ("lr", "lr"), ("rows", getattr(function, "rows", "rows"))):
        value = getattr(given, option)
        if value and key in usual:
            found[key] = value
            if "all" in given.names and key == "optimizers" and len(usual[key]) == 1:
                found[key] = value[-1:]  # of an experiment that compares none
        elif value and "all" not in given.names:
            raise ValueError(f"--{option}: got one, wants none: {name} takes none")
    if given.lr and "lr" in usual:
        found["lr"] = rates(given.lr, [each.__name__ for each in found["optimizers"]])
    return checked(function, found)


# ---- One experiment ------------------------------------------------------------------------------


def run(name, level, out, arguments):
    """Measure, and keep arrays and finding in the folder. Returns the finding. An experiment that
    has `rows`, the name of an argument, is measured and kept row by row; the folder's others, of
    the same other arguments, stay. A row that took `--full` is not measured again."""
    rows = getattr(NAMES[level][name], "rows", None)
    if not rows:
        return run_once(name, level, out, arguments)
    for row in arguments[rows]:
        kept = rows_kept(name, level, out, arguments, rows)
        there = kept and row in kept[1]["configuration"][rows]
        if there and not is_first_look(name, level, arguments):
            runs.say(f"{name}, {row}: is there already, whatever has changed since; delete "
                     f"{place(level, out) / name}.json to measure all again")
        else:
            run_once(name, level, out, arguments | {rows: (row,)}, kept, rows)
    return load(name, out, level)[1]


def rows_kept(name, level, out, arguments, rows):
    """(arrays, finding) of the rows that a folder has, if all other arguments were the same."""
    if (place(level, out) / f"{name}.json").exists():
        arrays, found = load(name, out, level)
        if found["configuration"] | {rows: 0} == json.loads(in_json(arguments | {rows: 0})):
            return arrays, found
    return None


def run_once(name, level, out, arguments, kept=None, rows=None):
    """Measure and keep, together with the rows that are kept."""
    began = time.monotonic()
    arrays, parts = NAMES[level][name](**arguments)
    found = finding(name, level, arguments, measured(parts))
    if kept:
        arrays, old = kept[0] | arrays, kept[1]
        if hasattr(NAMES[level][name], "together"):  # what is found over all rows
            arrays, parts = NAMES[level][name].together(arrays)
            found["parts"] |= measured(parts)
        found["parts"] = old["parts"] | found["parts"]
        found["configuration"][rows] = tuple(dict.fromkeys(
            (*old["configuration"][rows], *arguments[rows])))
        found["commit"] = ", ".join(dict.fromkeys((*old["commit"].split(", "), found["commit"])))
    keep(name, level, out, arrays, found, adds=bool(kept))
    spent = ", ".join(f"{value:,} {key}" for key, value in arguments.items()
                      if key in ("seeds", "steps", "draws"))
    with open(Path(out, "times.txt"), "a", encoding="utf-8") as file:
        file.write(f"{name}, {level}, {spent}: {time.monotonic() - began:.0f} s\n")
    return found


def finding(name, level, arguments, parts):
    """What a run says of a claim."""
    claim, claimed = claim_of(name, level)
    return dict(
        claim=claim, claimed=claimed, level=level, verdict=judged(name, level, arguments, parts),
        parts=parts, configuration={key: list(value) if key == "settings" else value
                                    for key, value in arguments.items()},
        commit=commit(), versions=dict(
            python=platform.python_version(), numpy=np.__version__,
            matplotlib=plotting.matplotlib.__version__, machine=platform.machine()))


def judged(name, level, arguments, parts):
    """The verdict, of a first look as such, or why there is none; "" for a question."""
    word, usual = verdict(parts), defaults(NAMES[level][name])
    if not word:
        return ""
    if arguments["seeds"] < LEAST_SEEDS:
        return f"too few seeds for a verdict: {arguments['seeds']}, wants {LEAST_SEEDS}"
    for key in ("steps", "draws"):
        if arguments.get(key, np.inf) < usual.get(key, 0):
            return f"too short for a verdict: {arguments[key]:,} {key}, wants {usual[key]:,}"
    if any(arguments.get(key) != usual.get(key) for key in ("optimizers", "lr", "settings")):
        return "not judged: other optimizers, rates or settings than those of the claim"
    return f"{word} in a first look" if is_first_look(name, level, arguments) else word


def is_first_look(name, level, arguments):
    """Whether these are fewer seeds, steps or draws than those of `--full`."""
    full = defaults(NAMES[level][name]) | NAMES[level][name].full
    return any(arguments.get(key, 0) < full.get(key, 0) for key in ("seeds", "steps", "draws"))


def refuse_to_replace_a_full_run(name, level, out, arguments):
    """Raises ValueError if a run of other arguments would replace what `--full` found."""
    rows = getattr(NAMES[level][name], "rows", "rows")
    try:
        kept = load(name, out, level)[1]["configuration"]
    except ValueError:  # there is none, or one of another version, which may go
        return
    if not is_first_look(name, level, kept) and not rows_kept(name, level, out, arguments, rows):
        raise ValueError(f"{place(level, out) / name}.json: got the finding of a longer run "
                         "(--full) of other arguments, which this one would replace, wants another "
                         "--out, or that file deleted")


def commit():
    """Of the source, with "-dirty" if a module has changed since; "" outside of its own
    repository."""
    git = ["git", "-C", Path(__file__).parent, "--git-dir", ".git"]
    try:
        name, changed = (
            subprocess.run([*git, *words], capture_output=True, text=True).stdout.strip()
            for words in (("describe", "--always"), ("status", "--porcelain", "-uno", "*.py")))
    except OSError:
        return ""
    return name + "-dirty" * bool(changed)


def place(level, out):
    if level not in LEVELS:
        raise ValueError(f"level: got {level!r}, wants {' or '.join(LEVELS)}")
    return Path(out, "robust") if level == "robust" else Path(out)


def keep(name, level, out, arrays, found, adds=False):
    """Write NAME.npz and NAME.json. What an earlier call has left goes first, so that no old
    picture or number stands beside new ones, wherever this call ends; not a finding to which this
    one adds rows."""
    parts = {key: {field: numbers(value) for field, value in each._asdict().items()}
             for key, each in found["parts"].items()}
    text = in_json(dict(found, parts=parts))
    folder = place(level, out)
    for path in folder.glob(f"{name}*"):
        if re.fullmatch(rf"{name}(-\d+)?\.(png|pdf|txt{'' if adds else '|json'})", path.name):
            path.unlink()
    runs.write(folder / f"{name}.npz", lambda file: np.savez_compressed(file, **arrays))
    runs.write(folder / f"{name}.json", lambda file: file.write(f"{text}\n".encode()))


def in_json(value):
    """Optimizers by their names, those of a reader with their module."""
    return json.dumps(value, indent=1, allow_nan=False, default=lambda each: each.__name__
                      if each.__module__ == "optimizers" else f"{each.__module__}.{each.__name__}")


def numbers(value):
    """For JSON, which has no infinity: "inf" and "nan"."""
    if isinstance(value, (np.ndarray, list, tuple)):
        return [numbers(each) for each in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if np.isfinite(value) else str(float(value))
    return value


def load(name, out, level="published"):
    """(arrays, finding) of an experiment that is kept in a folder. Raises ValueError if there is
    none, or one of another version."""
    path = place(level, out) / f"{name}.json"
    if not path.exists():
        raise ValueError(f"{path}: got no such file, wants a finding (those of this repository are "
                         "in figures: --out figures)")
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        found = {field: kept[field] for field in FIELDS}
        with np.load(path.with_suffix(".npz")) as stored:
            arrays = dict(stored)
        for key, each in found["parts"].items():
            each = Measured(*(each[field] for field in Measured._fields))
            if each.decision not in ("", *plotting.MARKS):
                raise ValueError(f"decision {each.decision!r}")
            if not isinstance(each.values, str):
                each = each._replace(values=np.array(each.values, float))
            found["parts"][key] = each._replace(
                median=float(each.median), interval=tuple(map(float, each.interval)))
        return arrays, found
    except Exception as error:  # whatever a damaged file makes of json, numpy and zipfile
        raise ValueError(f"{path}: got {type(error).__name__}: {error}, wants results of this "
                         "version") from None


def draw(name, arrays, found, make=plotting.picture):
    """The figure of an experiment from its arrays and its finding, or its plotting.slides."""
    return make(drawing(name, found["level"]), arrays, found["parts"], under(found))


def drawing(name, level):
    return getattr(sys.modules[NAMES[level][name].__module__], f"draw_{name}")


def said(found):
    """The verdict with its level."""
    return f"{found['level']}: {found['verdict']}" if found["verdict"] else "measured"


ASKED = {"published": "as the paper asks", "robust": "asked harder"}


def under(found):
    """Below the headline of a figure: how many primary parts hold, and how long the runs were."""
    word, first_look, _ = found["verdict"].partition(" in a first look")
    decisions = [each.decision for each in found["parts"].values() if each.primary]
    words = [f"{decisions.count('holds')} of {len(decisions)} tests hold"] + [
        f"{decisions.count(each)} {each}" for each in ("open", "against") if each in decisions]
    judged = word in ("reproduced", "not reproduced", "open")
    words = f"{ASKED[found['level']]}: {', '.join(words)}{first_look}" if judged else \
        found["verdict"]
    return "   |   ".join(filter(None, (words, length_of(found))))


def length_of(found):
    """In words; of `lead` without the steps, for its runs have several lengths."""
    words = ("seeds",) if "conditions" in found["configuration"] else ("seeds", "steps", "draws")
    return ", ".join(f"{value:,} {key if value > 1 else key[:-1]}"
                     for key, value in found["configuration"].items() if key in words)


def save_figures(name, level, out, slides=False):
    """NAME.png, NAME.pdf and NAME.txt (headline and caption) from what is kept in a folder; for
    slides NAME-1.png, NAME-1.pdf, ... with one panel each, too. Returns the pictures' paths."""
    arrays, found = load(name, out, level)
    try:
        figure = draw(name, arrays, found)
        pictures = {name: figure}
        if slides:
            pictures |= {f"{name}-{i}": each for i, each in enumerate(
                draw(name, arrays, found, plotting.slides), 1)}
    except (LookupError, TypeError, ValueError) as error:
        where = next((f" at {Path(each.filename).name}:{each.lineno}" for each in
                      traceback.extract_tb(error.__traceback__) if each.name == f"draw_{name}"), "")
        raise ValueError(
            f"{place(level, out) / name}.npz: got other arrays or parts than draw_{name} wants "
            f"({type(error).__name__}{where}: {error})") from None
    paths = {place(level, out) / f"{stem}.{form}": partial(plotting.save, each, form=form)
             for stem, each in pictures.items() for form in ("png", "pdf")}
    for path, save in paths.items():
        runs.write(path, save)
    claimed = f"Claimed: {found['claimed']}.\n" if found["verdict"] else ""
    caption = f"{figure.headline} ({said(found)})\n{claimed}{figure.caption} {length_of(found)}.\n"
    runs.write(place(level, out) / f"{name}.txt", lambda file: file.write(caption.encode()))
    return list(paths) if slides else list(paths)[:1]


# ---- The report ----------------------------------------------------------------------------------


def findings(out):
    """{(name, level): finding} of what is in a folder. Raises ValueError if it is none."""
    if not Path(out).is_dir():
        raise ValueError(f"out: got {str(out)!r}, wants a folder with findings")
    return {(name, level): load(name, out, level)[1] for name in EVERY for level in LEVELS
            if (place(level, out) / f"{name}.json").exists()}


def report(found, out, words=lambda text: text, figures="figures/", source=""):
    """In Markdown: the table of the claims, that of the questions, and what is missing. `words`
    translates; links lead to `figures` and `source`, README's unless said otherwise."""
    heads = "claim", "as the paper asks", "asked harder"
    claims = [f"| {' | '.join(map(words, heads))} |", "| --- | --- | --- |"]
    asked = [f"| {words('question')} | {words('what was found')} |", "| --- | --- |"]
    for name in EVERY:
        both = [found.get((name, level)) for level in LEVELS]
        if not any(both):
            continue
        identity, claimed = claim_of(name)
        link = f"[`{name}`]({figures}{name}.png)"
        if not is_claim(name):
            asked.append(f"| {link}: {words(claimed)} | {headline(name, out)} |")
        else:
            places = (f"{figures}{name}.png", f"{figures}robust/{name}.png")
            link = f"[`{name}`]({source}{words('docs/findings.md')}#{name})"
            cells = " | ".join(f"[{words(each['verdict'] or 'measured')}]({place})" if each else ""
                               for each, place in zip(both, places))
            claims.append(f"| {identity} {link}: {words(claimed)} | {cells} |")
    missing = [name for name in EVERY if claim_of(name)[0] != "Draft"
               and not any((name, level) in found for level in LEVELS)]
    tables = ["\n".join(rows).replace("|x|", "\\|x\\|") for rows in (claims, asked)
              if len(rows) > 2]
    count = f"{len(missing)} of {len(EVERY)} experiments have no finding in this folder: "
    return "\n\n".join(tables + [words(count) + ", ".join(missing)] * bool(missing))


def headline(name, out, level="published"):
    """The first line of the caption, without the claim and the verdict; "" if nothing is drawn."""
    path = place(level, out) / f"{name}.txt"
    try:
        text = path.read_text(encoding="utf-8").splitlines()[0]
    except FileNotFoundError:
        return ""
    except (UnicodeDecodeError, IndexError) as error:
        raise ValueError(f"{path}: got no caption, wants one, as of --redraw ({error})") from None
    return text.removeprefix(f"{claim_of(name)[0]}: ").rpartition(" (")[0]


def gallery(found, out):
    """Write README.md of the folder, its figures with a sentence each, the tables in Japanese, the
    scoreboard, and, if `lead` is there, when the lead is large. Returns their paths: none if one of
    them is there, but no README.md of ours."""
    there = [path for path in (Path(out, name) for name in GALLERY) if path.exists()]
    if there and there[0].read_bytes().splitlines()[:1] != [b"# What was found"]:
        runs.say(f"{', '.join(map(str, there))}: left alone, as this program did not write "
                 f"{Path(out, 'README.md')}; no gallery is written")
        return []
    text = "\n\n".join(["# What was found", "![Every claim with its parts](scoreboard.png)",
                        thumbnails(found, out), "Every number is in NAME.json, the arrays of a "
                        "figure in NAME.npz, its caption in NAME.txt. [日本語](README.ja.md)",
                        report(found, out, figures="", source="../")])
    claims = report(found, out, translated, "", "../").split("\n\n")[0]
    japanese = "\n\n".join([
        "# 図の一覧", "図の下は、調べた主張または問いと、その判定である。数値は "
        "NAME.json、図の配列は NAME.npz、図の説明は NAME.txt にある。結果は[各結果の内容と限界]"
        "(../docs/findings.ja.md)に、`lead` の行ごとの表は[英語版](README.md)にある。",
        "![すべての主張と項目](scoreboard.png)", thumbnails(found, out, translated), claims])
    claims = [name for name in EVERY if is_claim(name)
              and any((name, level) in found for level in LEVELS)]
    claims.sort(key=lambda name: not claim_of(name)[0][1:].isdigit())  # C1 to C12 first
    board = {name: {level: found.get((name, level)) for level in LEVELS} for name in claims}
    scoreboard = plotting.picture(partial(draw_scoreboard, board), {}, {}, score(board))
    more, figures = of_lead(out) if ("lead", "published") in found else ("", {})
    text, figures = text + more, {"scoreboard": scoreboard} | figures
    files = {"README.md": lambda file: file.write(f"{text}\n".encode()),
             "README.ja.md": lambda file: file.write(f"{japanese}\n".encode())} | {
        f"{name}.{form}": partial(plotting.save, figure, form=form)
        for name, figure in figures.items() for form in ("png", "pdf")}
    for name, save in files.items():
        runs.write(Path(out, name), save)
    return [Path(out, name) for name in files]


def of_lead(out):
    """Its rows in a table, and where the lead is large, as text and, of three rows or more, as
    {name: figure}."""
    arrays, lead = load("lead", out)
    parts, steps = lead["parts"], lead["configuration"]["steps"]
    where = questions.where_the_lead_is_large(parts, steps)
    figures = {"lead_and_loss": plotting.picture(partial(questions.scatter_of_lead, steps), arrays,
                                                 parts, under(lead))} if where else {}
    paragraphs = (
        "## lead, row by row", "SGD's final loss over Adam's, median [interval]: Adam ends lower "
        "unless a word says otherwise; alike: within 0.8 and 1.25. Times Setting 1's: seed by "
        "seed; a condition changes the lead where 1 lies outside of the interval. After the "
        "longest constant run: final losses; share, after which part of its steps the better "
        "optimizer is where the other ends; state. Hardly fell: neither loss by a fifth since the "
        "length before; still falling: one is below 0.9 of its value an eighth of the run earlier; "
        "settled: neither. At the rates for the length of the Setting 1 columns, SGD's over "
        "Adam's: steps to half the loss of predicting 0; v^T H v along the path. Noise: at the "
        "start, the 99 % over the 50 % quantile of its norm, over that of Gaussian vectors.",
        questions.table_of_lead(arrays, parts, steps), questions.tails_and_depth(parts, steps),
        where, *(f"![{figure.headline}]({name}.png)" for name, figure in figures.items()))
    return "".join(f"\n\n{each}" for each in paragraphs if each), figures


def thumbnails(found, out, words=None):
    """A table in Markdown: every figure, small, and below it its headline (translated by `words`
    the claim or question) and the verdict."""
    cells, columns = [], 3
    for (name, level), each in found.items():
        path = f"{'robust/' if level == 'robust' else ''}{name}.png"
        text = claim_of(name)[1] if words else headline(name, out, level)
        verdict = f" ({ASKED[level]}: {each['verdict'] or 'measured'})" if is_claim(name) else ""
        text = f"{each['claim']}: {text}{verdict}".replace("|x|", "\\|x\\|")
        cells.append(f'<a href="{path}"><img src="{path}" alt="{name}" width="280"></a><br>'
                     + (words(text) if words else text))
    cells += [""] * (-len(cells) % columns)
    rows = [cells[i : i + columns] for i in range(0, len(cells), columns)]
    return "\n".join(f"| {' | '.join(row)} |" for row in ([""] * columns, ["---"] * columns, *rows))


def in_short(found):
    """The report for a terminal, a line for each experiment."""
    return "\n".join(f"{claim_of(name)[0]:<10}{name:<24}" + (
        "; ".join(said(found[name, level]) for level in LEVELS if (name, level) in found)
        or "no finding in this folder") for name in EVERY)


def score(board):
    """How many of the paper's claims are reproduced at each level, in words."""
    words = []
    for level in LEVELS:
        verdicts = [each[level]["verdict"] for name, each in board.items()
                    if each[level] and verdict(each[level]["parts"])]
        words.append(f"{verdicts.count('reproduced')} of {len(verdicts)}")
    return f"Reproduced: {words[0]} claims as the paper asks, {words[1]} when asked harder"


def draw_scoreboard(claims, figure, arrays, found):
    """A row a claim: for each level a mark for each primary part, and the verdict."""
    ax = figure.subplots()
    ax.set(xlim=(0, 1), ylim=(len(claims) + 0.6, -1))
    ax.axis("off")
    columns = {"claim": 0, "published": 0.62, "robust": 0.82}
    colours = {"reproduced": plotting.MARKS["holds"]["color"],
               "not reproduced": plotting.MARKS["against"]["color"]}
    for title, x in columns.items():
        ax.text(x, -0.75, ASKED.get(title, title), weight="bold", va="center")
    for y, (name, levels) in enumerate(claims.items()):
        ax.axhline(y - 0.5, color="#DDDDDD", lw=1)
        ax.text(0, y, textwrap.fill(plotting.in_symbols(": ".join(claim_of(name))), 78),
                va="center", fontsize=13, linespacing=1.0)
        for level, found in levels.items():
            if found and verdict(found["parts"]):
                plotting.marks(ax, columns[level], y + 0.22, [
                    each.decision for each in found["parts"].values() if each.primary])
                word = found["verdict"].partition(" for ")[0].partition(" in a ")[0]
                ax.text(columns[level], y - 0.15, word, va="center", fontsize=14, weight="bold",
                        color=colours.get(word, "#444444"))
            else:
                ax.text(columns[level], y, "nothing claimed" if found else "not asked",
                        va="center", fontsize=14, color="#999999")
    legend = len(claims) + 0.2  # its height
    ax.text(0, legend, "a mark for each part that decides", va="center")
    for i, word in enumerate(plotting.MARKS):
        plotting.marks(ax, columns["published"] + 0.1 * i, legend, [word])
        ax.text(columns["published"] + 0.015 + 0.1 * i, legend, word, va="center")
    return "", "A mark for each primary part of a claim: it holds, is open, or is against it."


# ---- The main function ---------------------------------------------------------------------------


def main(arguments=None):
    """Run the command line; returns the exit status."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # names that the console cannot show
    try:
        sys.path.append(os.getcwd())  # for the reader's own optimizers
        given = command_line().parse_intermixed_args(arguments)
        return status_of(given)
    except BrokenPipeError:  # the reader of our output left; the files are saved
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except ValueError as error:
        if not is_mistake(error):  # whoever mends it needs the place
            raise
        runs.say(str(error))
        return 2
    except (runs.RunFailed, OSError) as error:
        runs.say(str(error))
        status = 1
    except KeyboardInterrupt:
        runs.say("interrupted")
        status = 130
    if any(Path(runs.folder).glob("*.npz")):
        runs.say("finished runs are kept; the command, when repeated, does the rest")
    return status


def is_mistake(error):
    """Whether a ValueError is due to the user, and not to the program: it says what it wants."""
    return "wants" in str(error)


def status_of(given):
    """Do what is asked for; returns the exit status."""
    level = "robust" if given.robust else "published"
    names = [name for name in NAMES[level] if name in given.names or "all" in given.names]
    spends = (given.full or given.quick or given.seeds or given.steps or given.lr
              or given.optimizers or given.rows)
    if spends and given.names == ["list"]:
        raise ValueError("name: got no experiment, wants one first, as in: adam_vs_sgd --lr 0.01")
    if spends and (given.redraw or given.names == ["report"]):
        raise ValueError("got options of a training, wants none: nothing is trained")
    if given.names == ["list"]:
        print("\n".join(f"{name:<24}{': '.join(claim_of(name))}" for name in EVERY), flush=True)
    elif given.names == ["report"]:
        show_report(given.out)
    elif not names or not set(given.names) <= {*names, "all"}:
        raise ValueError(f"{' '.join(given.names)}: got a name that does not stand here, wants "
                         f"{level} experiments: {', '.join(NAMES[level])}")
    elif given.redraw:
        kept = [name for name in names if (place(level, given.out) / f"{name}.json").exists()
                or "all" not in given.names]
        if not kept:
            raise ValueError(f"out: got {given.out!r}, wants a folder with findings")
        for name in kept:
            print(*save_figures(name, level, given.out, given.slides), sep="\n", flush=True)
    else:
        return run_all(names, level, given)
    return 0


def show_report(out):
    """Write the gallery, if that can be; print the tables, on a terminal what fits there."""
    found, written = findings(out), []
    try:
        written = gallery(found, out) if found else []
    except OSError as error:
        runs.say(f"no gallery is written: {error}")
    terminal = sys.stdout is not None and sys.stdout.isatty()
    print(in_short(found) if terminal else report(found, out), flush=True)
    if written:
        (print if terminal else runs.say)(f"written: {', '.join(map(str, written))}")


def run_all(names, level, given):
    """Run experiments one after the other; one that fails does not keep the others from it."""
    asked = {name: arguments_of(name, given) for name in names}
    runs.folder = Path(given.out, "runs")
    try:
        runs.write(runs.folder / ".writable", lambda file: None)  # before anything is computed
    except OSError as error:
        raise ValueError(f"out: got {given.out!r}, wants a folder to write in ({error.strerror})")
    for name, arguments in asked.items():
        refuse_to_replace_a_full_run(name, level, given.out, arguments)
    failed = []
    for name, arguments in asked.items():
        try:
            with runs.one_pool(given.jobs):  # new ones, should a worker have died
                found = run(name, level, given.out, arguments)
            try:
                print("\n  ".join([f"{found['claim']}: {found['claimed']}",
                                   *map(line, found["parts"].values()),
                                   f"verdict: {said(found)}"]), flush=True)
            finally:  # also if the reader of our output has left
                paths = save_figures(name, level, given.out, given.slides)
            print(*(f"  {path}" for path in paths), f"  next: {next_step(name, given, arguments)}",
                  sep="\n", flush=True)
        except BrokenPipeError:  # main's
            raise
        except (runs.RunFailed, OSError, ValueError) as error:
            if isinstance(error, ValueError) and (len(asked) == 1 or not is_mistake(error)):
                raise
            failed.append(f"{name}: {error}")
            if len(asked) > 1:  # here, too: the end may be hours away
                runs.say(failed[-1])
    if failed:
        raise runs.RunFailed("\n".join(failed))
    return 0


def next_step(name, given, arguments):
    """What to try after a run, and how much more that is."""
    if not is_first_look(name, "robust" if given.robust else "published", arguments):
        return shlex.join(["python", "experiments.py", "report", "--out", given.out])
    own = [f"{each.__module__}.{each.__name__}".removeprefix("optimizers.")
           for each in given.optimizers or ()]
    words = ["python", "experiments.py", name, *["--robust"] * given.robust, "--full",
             *(["--optimizers", *own] if own else []), *(["--lr", *given.lr] if given.lr else []),
             *(["--rows", *given.rows] if given.rows else []),
             *(["--out", given.out] if given.out != "results" else [])]
    function = NAMES["robust" if given.robust else "published"][name]
    full = defaults(function) | function.full
    spent = [key for key in ("seeds", "steps", "draws") if key in full]
    more = np.prod([full[key] / arguments[key] for key in spent])
    much = f"   ({float(f'{more:.2g}'):,g} times as many {spent[-1]} in all)" if more > 1 else ""
    return shlex.join(words) + much


# ---- Japanese ------------------------------------------------------------------------------------

JAPANESE = {
    "claim": "主張", "published": "論文の条件", "robust": "より厳しい条件",
    "as the paper asks": "論文の条件", "asked harder": "より厳しい条件",
    "docs/findings.md": "docs/findings.ja.md",
    "not reproduced": "再現せず", "reproduced": "再現", "open": "未決", "holds": "成立",
    "against": "反対", "measured": "測定のみ",
    "Adam beats SGD in Settings 1, 2 and 3": "設定 1、2、3 で Adam は SGD に勝る",
    "Stochastic gradient noise is heavy-tailed in Settings 1, 2 and 3":
        "設定 1、2、3 で勾配ノイズの裾は重い",
    "R_med is larger along SGD's path than along Adam's": "R_med は SGD の軌道の方が大きい",
    "Directional smoothness is smaller along Adam's path":
        "方向平滑性 v^T H v は Adam の軌道の方が小さい",
    "Smoothness grows with the gradient norm": "平滑性(曲率)は勾配ノルムとともに大きくなる",
    "Linear attention learns this task much faster than softmax attention":
        "この課題では、線形アテンションの学習は softmax アテンションよりはるかに速い",
    "The picture is the same for L = 8, d = 20, n = 60":
        "L = 8、d = 20、n = 60 のモデルでも結果は同じである",
    "Heavier tails of x: heavier noise, slower training, larger R_med ratio, the same gain":
        "x の裾が重いほど、ノイズの裾は重く、学習は遅く、R_med の比は大きいが、"
        "Adam の優位の大きさは変わらない",
    "With depth the Adam-SGD gap, noise tails and R_med ratio grow, and the loss falls":
        "深いほど、手法の差と R_med の比は大きく、ノイズの裾は重く、損失は低い",
    "The learning rate of each optimizer is the best of a grid of ten":
        "各手法の学習率は、10 個の候補からなるグリッドの中で最良である",
    "Without gradient noise Adam still beats SGD, and so does sign descent":
        "勾配ノイズがなくても、Adam も符号勾配降下法も SGD に勝る",
    "Clipping lowers directional smoothness, coordinate by coordinate most of all":
        "クリッピングすると方向平滑性は下がり、要素ごとのクリッピングで最も下がる",
    "The picture is the same for nonlinear regression with an MLP before the attention":
        "アテンションの前に MLP を置く非線形回帰でも結果は同じである",
    "Question": "問い",
    "How large is Adam's lead over SGD, and what changes it?":
        "Adam は SGD にどれだけ勝るか、何がその差を変えるか",
    "What does the model see, and how heavy are the tails of x?":
        "モデルは何を見るか、x の裾はどれほど重いか",
    "How finely must a step be scaled to do what Adam does?":
        "Adam と同じことをするには、更新量をどれほど細かく正規化すればよいか",
    "Is SGD's rate at its limit?": "SGD の学習率は安定限界に達しているか",
    "Which optimizer should I take, and does the bench say so for another model?":
        "どの手法を選べばよいか、試験台の答えはほかのモデルにも当てはまるか",
    "Do gradients explode or vanish in training?": "学習中に勾配は爆発したり消失したりするか",
    "At which initial scale and depth do models train?": "どの初期値の大きさと深さで学習できるか",
    "What helps against data as it comes, and what does it cost?":
        "現実のデータの乱れには何が効くか、その代償は何か",
    "Why is SGD slow here, and which rate does each layer want?":
        "SGD はなぜここで遅いのか、各層に適した学習率はどれか",
    "What keeps SGD's rate low once training is under way?":
        "学習が進んだ後、SGD の学習率を何が抑えるか",
    "Do the 2 L - 1 numbers of `polynomial` behave as the whole model does?":
        "`polynomial` の 2 L - 1 個のパラメータは、モデル全体と同じように振る舞うか",
    "What is in the weights: is a trained layer a step of gradient descent?":
        "重みには何があるか: 学習済みの層は勾配降下法の 1 ステップか",
    " of ": "/",
}


def translated(text):
    """English words of the report in Japanese, the longest first."""
    for english in sorted(JAPANESE, key=len, reverse=True):
        text = text.replace(english, JAPANESE[english])
    return re.sub(r"(?<=[^ -~]), |, (?=[^ -~])", "、", text)  # beside a Japanese letter
