"""What is kept, under which key, and what becomes of it when something goes wrong.

TASKS become a module of its own, in a folder of the test's, because workers import what they
compute. Each task leaves a line in the file `log` when it is computed: its first argument and the
process.
"""

import contextlib
import functools
import importlib
import io
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from unittest.mock import DEFAULT, Mock

import numpy as np
import pytest

import data
import runs
import training
from conftest import Here
from optimizers import SGD, Adam

ROOT = Path(__file__).parent.parent
TASKS = """
import collections, functools, os, pathlib, signal, sys, threading, time, types
import numpy as np
from runs import cached

BETA = 5
FROZEN, GET, __hidden = types.MappingProxyType(dict(a=1)), dict(a=1).get, 1
RATES, COUNT, GRID, LISTS = (0.9, 0.99), np.int64(3), np.arange(3), dict(a=[1, 2])
NAMES, LOCK, ITSELF, HALVES = set("abcdef"), threading.Lock(), [1], functools.partial(pow, 2)
ITSELF.append(ITSELF)
Pair = collections.namedtuple("Pair", "name lr")

def log(x):
    with open("log", "a") as file:
        file.write(f"{x} {os.getpid()}\\n")

def until(condition):
    for _ in range(1500):
        if condition():
            return
        time.sleep(0.02)
    raise TimeoutError

def lines(text):
    return pathlib.Path("log").read_text().split().count(text)

@cached
def power(x, to=2):
    log(x)
    return dict(y=np.arange(3.0) * x**to, threads=os.environ.get("OPENBLAS_NUM_THREADS", ""))

@cached
def twice(x):
    log(x)
    until(lambda: lines(str(x)) == 2)
    return dict(y=x)

@cached
def options(x, *, z=1, **others):
    return dict(y=[z, *others.values()])

@cached
def bad(setting, contestants, seed):
    log(seed)
    if seed == 1:
        raise RuntimeError("oh")
    if seed == 2:
        sys.exit(3)
    return dict(y=seed)

@cached
def odd(what):
    return eval(what)

@cached
def interrupted(x):
    os.kill(os.getpid(), signal.SIGINT)
    return dict(y=x)

@cached
def slow(x, dies=False):
    log(x)
    LISTS["slow"] = x  # after the first task a worker's modules may hold what they like
    if x > 1 and not os.path.exists("again"):
        until(lambda: len(list(pathlib.Path("kept").glob("*.npz"))) == 2)
        os._exit(3) if dies else time.sleep(60)
    return dict(y=x)

def outer():
    @cached
    def inner(x):
        log(x)
        return dict(y=x)
    return inner

class Mine:
    factor, half = 1, property(lambda self: self.beta / 2)

    def __init__(self, lr):
        self.beta = BETA * lr

@cached
def beta(contestants):
    (optimizer, arguments), = contestants
    return dict(y=optimizer(**arguments).beta)
"""


@pytest.fixture
def tasks(tmp_path, monkeypatch):
    """The module, in an empty working folder."""
    (tmp_path / "tasks.py").write_text(TASKS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(runs, "folder", Path("kept"))
    import tasks
    yield tasks
    del sys.modules["tasks"]
    runs.SOURCES.pop("tasks", None)


@pytest.fixture
def worker(tasks, monkeypatch):
    """The same, where this process keeps results, as workers do."""
    monkeypatch.setattr(runs, "keeps", True)
    return tasks


def results(function, *calls):
    return [float(run["y"]) for run in runs.parallel(function, calls)]


def mine():
    """The arguments of a call of `beta`, with the class as its module holds it now."""
    return ((sys.modules["tasks"].Mine, dict(lr=1)),),


def logged():
    """What was computed, in order."""
    return [line.split()[0] for line in Path("log").read_text().splitlines()]


def processes():
    return {int(line.split()[1]) for line in Path("log").read_text().splitlines()}


def kept():
    """The finished files; and none is half written."""
    assert not list(Path("kept").glob("*.part"))
    return sorted(Path("kept").glob("*.npz"))


START = f"import sys; sys.path[:0] = [{str(ROOT)!r}, '.']\nimport pathlib, runs\n" \
    "runs.folder = pathlib.Path('kept')\n"


def python(text, file="script.py", **options):
    """Start Python with a script, or, if file is "-", with the same from stdin."""
    Path("script.py").write_text(START + text)
    with open("script.py") as script, open("out", "w") as out, open("err", "w") as err:
        return subprocess.Popen([sys.executable, file], stdin=script, stdout=out, stderr=err,
                                text=True, **options)


def printed(process):
    """What it has printed, once it has ended well."""
    assert process.wait(30) == 0, Path("err").read_text()
    return Path("out").read_text().split()


# ---- Kept and read back --------------------------------------------------------------------------


def test_a_result_is_kept_and_read_back(tasks, monkeypatch):
    """By workers; a direct call is a plain one. The folder may be a text."""
    monkeypatch.setattr(runs, "folder", "kept")
    first = runs.parallel(tasks.power, [(1,), (2,)])
    again = runs.parallel(tasks.power, [(1,), (2, 2), (2, 3)])  # a default; another call
    assert sorted(logged()) == ["1", "2", "2"] and len(kept()) == 3
    assert [run["y"].tolist() for run in again] == [[0, 1, 2], [0, 4, 8], [0, 8, 16]]
    assert np.array_equal(first[1]["y"], again[1]["y"])
    assert tasks.power(x=2, to=3)["y"].tolist() == [0, 8, 16]
    assert len(logged()) == 4 and len(kept()) == 3


def test_the_same_bytes_for_any_number_of_processes(tmp_path, monkeypatch):
    """Of tasks, and of `train`, which they call."""
    setting, both = data.SETTING_1._replace(batch=20), training.contestants(data.SETTING_1)
    calls = [(training.loss_at, setting, both, seed, 3, (0,)) for seed in range(3)]
    for jobs in (1, 2):
        with runs.processes(jobs) as pool:
            monkeypatch.setattr(runs, "executor", pool)
            monkeypatch.setattr(runs, "folder", tmp_path / str(jobs))
            runs.parallel(training.along, calls)
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / jobs).iterdir()}
                for jobs in "12")
    assert one == two and len(one) == 6


@pytest.mark.parametrize("damage", (
    lambda content: content[:-30], lambda content: b"", lambda content: b"no numbers",
    lambda content: content.replace(b"y.npy", b"z.npy")))  # an array is missing
def test_a_damaged_file_is_named_and_computed_anew(damage, worker, capsys):
    worker.power(7)
    (path,) = kept()
    path.write_bytes(damage(path.read_bytes()))
    for _ in range(2):
        assert worker.power(7)["y"].tolist() == [0, 49, 98]
    assert logged() == ["7", "7"]  # once more, not twice
    assert capsys.readouterr().err.count(f"{path}: not usable") == 1


@pytest.mark.parametrize("what, words", (
    ("None", "None, wants a dict"), ("dict(y=[1, None])", r"y = \[1, None\], wants"),
    ("dict(y=2**70)", "y = 11805.*, wants plain arrays"), ("dict(file=1)", "file = 1, .* none of"),
    ("dict(y=np.ma.array([1, 2]))", "y = masked_array")))
def test_what_a_file_cannot_hold_is_refused(what, words, worker):
    with pytest.raises(runs.RunFailed, match=rf"^odd\(.*\): TypeError: odd returned {words}"):
        runs.remote("another", "kept", {}, pickle.dumps((worker.odd, (what,))))
    assert not Path("kept").exists()


def test_two_calls_at_once_on_one_folder(tasks):
    """Both compute each task at the same time; one writes while the other does."""
    other = python("import tasks\nrun, = runs.parallel(tasks.twice, [(3,)])\nprint(run['y'])")
    assert results(tasks.twice, (3,)) == [3] and printed(other) == ["3"]
    assert logged() == ["3", "3"] and len(kept()) == 1

    path = Path("kept", "file")
    runs.write(path, lambda file: (file.write(b"last"), runs.write(
        path, lambda other: other.write(b"first"))))
    assert path.read_bytes() == b"last"


def test_a_new_name_that_is_refused_for_a_moment(tmp_path, monkeypatch):
    """As on Windows, while another program has the file open: tried again, then said."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    refused = Mock(wraps=os.replace, side_effect=[PermissionError, PermissionError, DEFAULT])
    monkeypatch.setattr(os, "replace", refused)
    runs.write(tmp_path / "file", lambda file: file.write(b"text"))
    refused.side_effect = PermissionError
    with pytest.raises(PermissionError):
        runs.write(tmp_path / "file", lambda file: file.write(b"other"))
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"text"]


def test_one_blas_thread_in_a_worker_and_the_surroundings_as_they_were(tasks, monkeypatch):
    """After several calls at once, too; and what is imported meanwhile stays."""
    def importing(*work):
        sys.modules["imported"] = os
        return Here().submit(*work)

    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "3")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = sys.modules["__main__"], {**os.environ}
    with ThreadPoolExecutor(3) as pool:
        found = [*pool.map(lambda x: runs.parallel(tasks.power, [(x,)])[0]["threads"], range(3))]
    monkeypatch.setattr(runs, "executor", Mock(submit=importing))
    runs.parallel(tasks.power, [(1,)])
    assert found == ["1"] * 3 and sys.modules.pop("imported") is os
    assert (sys.modules["__main__"], {**os.environ}) == before


# ---- Keys ----------------------------------------------------------------------------------------


def test_every_argument_is_in_the_key(tasks):
    """Also what a setting is called, all of its rates and their order; and the kind of container
    and what is inside which."""
    setting, sgd = data.SETTING_1, ((SGD, dict(lr=0.1)),)
    calls = [(setting, sgd, 0), (setting, sgd, 1), (setting, ((SGD, dict(lr=0.2)),), 0),
             (setting, ((Adam, dict(lr=0.1)),), 0), (setting._replace(name="another"), sgd, 0),
             (setting._replace(lr=dict(SGD=1)), sgd, 0), (setting._replace(std=0.1), sgd, 0),
             ((1, 2), 3), (1, (2,), 3), (1, 2, 3), ("1", 2, 3), (1.0, 2, 3), (None,), (range(3),),
             ({},), ((),), ([],), (dict(a=1, b=2),), (dict(b=2, a=1),), (tasks.Pair("a", 1),),
             (("a", 1),), ((1, ")"), 2), ((1,), ")", 2), ((), tuple, 0), (tuple, 0, ()),
             (np.arange(3),), (np.arange(3.0),), (np.zeros((1, 2)),), (np.zeros((2, 1)),)]
    assert len({runs.key_of(function, call) for call in calls
                for function in (tasks.bad, tasks.odd)}) == 2 * len(calls)
    assert runs.key_of(tasks.bad, (0.1, dict(a=1))) == runs.key_of(
        tasks.bad, (np.float64(0.1), dict(a=np.int64(1))))  # equal numbers, that compute alike
    assert runs.key_of(tasks.bad, (0.5,)) != runs.key_of(tasks.bad, (np.float16(0.5),))


def test_options_are_in_the_call_and_in_the_key(worker):
    for _ in range(2):
        assert [worker.options(1, **options)["y"].tolist() for options in (
            {}, dict(z=5), dict(other=6))] == [[1], [5], [1, 6]]
    assert len(kept()) == 3


@pytest.mark.parametrize("unknown", (object(), {1, 2}, [np.array([None])]))
def test_arguments_that_no_text_describes_are_refused(unknown, tasks):
    with pytest.raises(TypeError, match="^task: got .*, wants numbers"):
        runs.parallel(tasks.power, [(unknown,)])


def test_code_and_numpys_version_are_in_the_key(tasks, monkeypatch):
    """A byte of a file, ours or the reader's, and a value, as one from the environment."""
    keys = {runs.key_of(tasks.power, (1,))}
    for name in (*runs.BASE, "tasks"):
        code, values = runs.SOURCES[name]
        assert code == Path(sys.modules[name].__file__).read_bytes()
        for changed in ((code + b"#", values), (code, values | dict(other=""))):
            monkeypatch.setitem(runs.SOURCES, name, changed)
            keys.add(runs.key_of(tasks.power, (1,)))
    monkeypatch.setattr(np, "__version__", "0")
    keys.add(runs.key_of(tasks.power, (1,)))
    assert len(keys) == 14


# ---- A session whose code is other than its files ------------------------------------------------


@pytest.mark.parametrize("name, change", (
    ("training.stepped", lambda old: functools.wraps(old)(lambda *arguments: old(*arguments))),
    ("training.stepped", functools.partial), ("training.stepped", lambda old: Mock(side_effect=old)),
    ("optimizers.clip_global_norm", lambda old: lambda grad, limit: grad),
    ("optimizers.SGD.step", lambda old: Adam.step), ("optimizers.np", lambda old: os),
    ("data.PAPER_SETTINGS", lambda old: dict(reversed(old.items()))),
    ("data.PAPER_SETTINGS", lambda old: old | {"Setting 1": data.SETTING_2}),
    ("tasks.BETA", float), ("tasks.RATES", list), ("tasks.FROZEN", lambda old: type(old)(dict(a=2))),
    ("tasks.GET", lambda old: dict(a=2).get), ("tasks.__hidden", lambda old: 2), ("tasks.COUNT", lambda old: old + 1),
    ("tasks.GRID", lambda old: old + 1), ("tasks.NAMES", lambda old: old - {"a"}),
    ("tasks.HALVES", lambda old: functools.partial(pow, 3)), ("tasks.LOCK", lambda old: None),
    ("tasks.Mine.factor", lambda old: 2), ("tasks.Mine.half", lambda old: property(float))))
def test_a_changed_value_is_noticed(name, change, tasks, monkeypatch):
    module, first, *rest = name.split(".")
    place = getattr(sys.modules[module], first) if rest else sys.modules[module]
    before, last = runs.contents_of(module), (rest or [first])[0]
    with monkeypatch.context() as patch:
        patch.setattr(place, last, change(getattr(place, last)))
        changed = {each for each, _ in before.items() ^ runs.contents_of(module).items()}
    assert changed == {f"{module}.{first}"} and runs.contents_of(module) == before


def test_functions_are_told_apart_but_not_by_their_lines():
    text = "def make(k):\n def f(x, y=1): return abs(x) + 2 * y + k\n return f\nf = make(3)"
    found = []
    for old, new in (("", ""), ("=1", "=4"), ("2", "5"), ("+ 2", "- 2"), ("abs", "len"), ("3", "4"),
                     ("x, y", "x, *, y"), ("x, y=1", "x, *, y=4"), ("x, y", "*x, y"),
                     ("x, y=1): return abs(x) + 2 * y", "y, x=1): return abs(y) + 2 * x"),
                     ("make(3)", "make(3)\nf.rate = 1"), ("def make", "# a line\ndef make")):
        exec(text.replace(old, new), names := dict(__name__="mine"))
        found.append(runs.contents([names["f"]], "mine", {}))
    assert len({*found}) == 11 and found[0] == found[-1]


def test_what_a_session_changed_is_computed_in_it_and_not_kept(tasks, monkeypatch, capsys):
    """So is what changes by itself. The line names it; unchanged it is left to workers again."""
    Path("clock.py").write_text("import time\nNOW = time.time_ns()\nclass Late:\n    beta = 1\n"
                                "    def __init__(self, lr): pass\n")
    late = ((importlib.import_module("clock").Late, dict(lr=1)),),
    with monkeypatch.context() as patch:
        patch.setattr(tasks, "BETA", -5)
        patch.setattr(training, "stepped", functools.partial(training.stepped))
        tasks.LISTS["a"].append(3)
        assert results(tasks.beta, mine(), late) == [-5, 1] and not kept()
    assert "\nexperiments.py: clock.NOW, tasks.BETA, tasks.LISTS, training.stepped: other than in " \
        "their files (or they change by themselves, " in capsys.readouterr().err
    tasks.LISTS["a"].pop()
    assert results(tasks.beta, mine()) == [5] and len(kept()) == 1
    assert capsys.readouterr().err == "beta: 1 task\n"


def test_a_file_that_is_edited_while_a_session_lives(tasks, capsys):
    """Before its first use, or so that nobody can import it; reloaded; a comment; reverted."""
    def run(text, reload=False):
        Path("tasks.py").write_text(text)
        importlib.reload(tasks) if reload else None
        return (*results(tasks.beta, mine()), len(kept()), "other" in capsys.readouterr().err)

    edited, old = TASKS.replace("BETA = 5", "BETA = 70"), mine()
    assert run(edited) == (5, 0, True)
    assert run("class Mine(") == (5, 0, True)
    assert run(edited, reload=True) == (70, 1, False)
    assert run(f"{edited}# a comment") == (70, 2, False)
    assert run(TASKS) == (70, 2, True)
    assert run(TASKS, reload=True) == (5, 3, False)
    assert results(tasks.beta, old) == [5] and len(kept()) == 3  # of before it was reloaded


# ---- What fails, fails alone ---------------------------------------------------------------------


def test_a_task_that_raises_is_named_and_the_others_are_kept(tasks):
    """Also one that ends its process."""
    calls = [(data.SETTING_1, ((SGD, dict(lr=0.1)),), seed) for seed in range(4)]
    with pytest.raises(runs.RunFailed) as error:
        runs.parallel(tasks.bad, calls)
    lines = [TASKS.splitlines().index(f"        {text}") + 1 for text in (
        'raise RuntimeError("oh")', "sys.exit(3)")]
    assert str(error.value).splitlines() == [
        f"bad(Setting 1, SGD, lr 0.1, 1): RuntimeError: oh (tasks.py, line {lines[0]})",
        f"bad(Setting 1, SGD, lr 0.1, 2): SystemExit: 3 (tasks.py, line {lines[1]})"]
    assert len(kept()) == 2 and results(tasks.bad, calls[0], calls[3]) == [0, 3]
    assert sorted(logged()) == ["0", "1", "2", "3"]


def test_a_worker_that_dies_is_said_and_the_same_call_does_the_rest(tasks):
    with pytest.raises(runs.RunFailed, match="^a worker process died$"):
        runs.parallel(tasks.slow, [(x, True) for x in range(4)])
    assert len(kept()) == 2
    Path("again").touch()
    assert results(tasks.slow, *[(x, True) for x in range(4)]) == [0, 1, 2, 3]
    assert logged().count("0") == logged().count("1") == 1


def test_a_worker_that_dies_while_tasks_are_handed_out(tasks, monkeypatch):
    monkeypatch.setattr(runs, "executor", Mock(submit=Mock(side_effect=BrokenExecutor)))
    with pytest.raises(runs.RunFailed, match="^a worker process died$"):
        runs.parallel(tasks.power, [(1,)])


def session(leader):
    """The processes of a session that still run, whoever started them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, _, number = path.read_text().rpartition(")")[2].split()[:4]
            found += [path.parent.name] if int(number) == leader and state != "Z" else []
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
@pytest.mark.parametrize("send, blow", (
    (os.kill, signal.SIGKILL), (os.killpg, signal.SIGINT), (os.kill, signal.SIGINT)))
def test_a_blow_loses_nothing_that_is_done_and_leaves_no_process(send, blow, tasks):
    """kill -9 of the parent; Ctrl-C, which the whole group gets; SIGINT to the parent alone: with
    one worker at work and others idle."""
    parent = python("import signal, tasks\n"
                    "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
                    "runs.parallel(tasks.slow, [(0,), (1,), (2,)])", start_new_session=True)
    tasks.until(lambda: len([*Path().glob("kept/*.npz")]) == 2 and len(logged()) == 3)
    send(parent.pid, blow)
    try:
        assert parent.wait(30) == -blow
        tasks.until(lambda: not session(parent.pid))
    finally:
        for left in session(parent.pid):
            os.kill(int(left), signal.SIGKILL)
    Path("again").touch()
    assert results(tasks.slow, (0,), (1,), (2,)) == [0, 1, 2] and len(kept()) == 3
    assert sorted(logged()) == ["0", "1", "2", "2"]


def test_a_worker_leaves_ctrl_c_to_its_parent(tasks):
    assert results(tasks.interrupted, (1,)) == [1]


def test_an_interrupt_ends_our_workers_and_no_other_process(tasks, monkeypatch):
    """A child of the user's own survives."""
    def interrupt(what, done, *_):
        if done:
            raise KeyboardInterrupt

    monkeypatch.setattr(runs, "progress", interrupt)
    child = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
    child.start()
    with pytest.raises(KeyboardInterrupt):
        runs.parallel(tasks.slow, [(0,), (1,), (2,)])
    assert multiprocessing.active_children() == [child]
    child.kill()
    child.join()


# ---- Where it runs -------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_fork_that_is_older_than_a_change_is_not_used(tasks, monkeypatch):
    """It holds the old value, and is of the same session."""
    mine = ((tasks.Mine, dict(lr=1)),)
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        monkeypatch.setattr(runs, "executor", pool)
        assert results(tasks.beta, (mine,)) == [5]
        monkeypatch.setattr(tasks, "BETA", -5)
        assert results(tasks.beta, (mine,)) == [-5] and not kept()


def test_another_train_under_its_name_is_the_one_that_runs(monkeypatch):
    """Also for a book that took `train` from training.py before."""
    imported = training.train
    monkeypatch.setattr(training, "train", lambda *task: dict(loss=np.array(task[2])))
    assert runs.parallel(imported, [(data.SETTING_1, (), 7, 3)])[0]["loss"] == 7


def test_one_pool_of_processes(tasks, monkeypatch):
    """For all calls in the block, also if another one stands in it; then there is none."""
    made, processes = [], runs.processes
    monkeypatch.setattr(runs, "processes", lambda jobs=None: made.append(jobs) or processes(1))
    with runs.one_pool(), runs.one_pool():
        for x in (1, 2):
            assert runs.parallel(tasks.power, [(x,)])[0]["y"].tolist() == [0, x**2, 2 * x**2]
    assert len(made) == 1 and runs.pool_here.get() is None



@pytest.mark.parametrize("start, count", (
    (None, 0), ("fork" if hasattr(os, "fork") else None, 0), ("spawn", 2)))
def test_a_readers_executor_is_used_as_it_is(start, count, tasks, monkeypatch):
    """Threads and forks, which see what the session has changed, keep nothing; workers do."""
    with (ProcessPoolExecutor(1, multiprocessing.get_context(start)) if start
          else ThreadPoolExecutor(1)) as pool:
        monkeypatch.setattr(runs, "executor", pool)
        assert results(tasks.slow, (0,), (1,)) == [0, 1] and len(kept()) == count
        assert processes() == {pool.submit(os.getpid).result()}  # still open


TYPED = """
import data, os, tasks, training
print(runs.parallel(tasks.power, [(2,)])[0]["y"][1], os.getpid())  # by a worker
setting, train = data.SETTING_1._replace(batch=20), training.train.__wrapped__
seen = []

class Own:
    def __init__(self, lr): pass
    def step(self, params, grad): seen.append("class"); return params

class Large:
    def __reduce_ex__(self, protocol): seen.append("looked at")

def replaced(*task): seen.append("train"); return train(*task)

sgd, large = training.contestants(setting), Large()
runs.parallel(training.train, [(setting, ((Own, dict(lr=1)),), 0, 1)])
runs.parallel(replaced, [(setting, sgd, 0, 1)])
training.train = replaced
runs.parallel(training.along, [(training.loss_at, setting, sgd, 0, 1, (0,))])
print(*seen)
"""


@pytest.mark.parametrize("file", ("script.py", "-"))
def test_typed_code_runs_in_this_process_and_is_not_kept(file, tasks):
    """A class, and a function in the place of ours: in a script without a guard; from stdin, as in
    a notebook. What workers can import, they do."""
    four, parent, *seen = printed(python(TYPED, file))
    assert four == "4.0" and processes() != {int(parent)}
    assert seen == ["class", "train", "train"] and len(kept()) == 1
    said = [line for line in Path("err").read_text().splitlines() if "other" in line]
    assert [line.split(":")[1] for line in said] == [
        " code that no other process can import"] * 2 + [" training.train"]


def test_a_function_inside_a_function_runs_where_it_is_and_is_not_kept(worker):
    """In a session, and in a worker."""
    assert results(worker.outer(), (1,)) == [1] and processes() == {os.getpid()}
    runs.keeps = True
    assert worker.outer()(2)["y"] == 2 and not kept()


def test_inside_a_process(tasks):
    """Of multiprocessing; a daemon may have no children, does all itself and keeps nothing."""
    process = python("""
import multiprocessing, tasks
def job(x):
    print(runs.parallel(tasks.power, [(x,)])[0]["y"][1])
if __name__ == "__main__":
    for x, daemon in ((2, False), (3, True)):
        child = multiprocessing.get_context("spawn").Process(target=job, args=(x,), daemon=daemon)
        child.start()
        child.join(30)""")
    assert printed(process) == ["4.0", "9.0"] and logged() == ["2", "3"] and len(kept()) == 1


def test_a_system_without_processes(tasks, monkeypatch):
    refuse = Mock(side_effect=FileNotFoundError(2, "No such file or directory", "/dev/shm"))
    monkeypatch.setattr(runs, "ProcessPoolExecutor", refuse)
    with pytest.raises(runs.RunFailed, match="can start no processes .*No such file .*/dev/shm"):
        runs.parallel(tasks.power, [(1,)])


def test_not_more_processes_than_windows_allows(monkeypatch):
    pool = Mock()
    monkeypatch.setattr(runs, "ProcessPoolExecutor", pool)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    for jobs in (None, 3, 100):
        with runs.processes(jobs):
            pass
        pool().shutdown.assert_called_with(cancel_futures=True)
    assert [call.args[0] for call in pool.call_args_list if call.args] == [61, 3, 61]


TERMINAL = type("Terminal", (io.StringIO,), dict(isatty=lambda self: True))


@pytest.mark.parametrize("stream", (TERMINAL(), io.StringIO(), None))
def test_progress(stream, tasks, monkeypatch, capsys):
    """On a terminal a line that at last is cleared; else a line at the start; without stderr
    silence. The title: the function, a measure, three settings."""
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(runs, "executor", Here())
    runs.parallel(tasks.power, [])
    runs.parallel(tasks.bad, [(setting, tasks.log, 0) for setting in data.DEEP for _ in "ab"])
    what = "bad, log, L = 2, L = 4, L = 6, ..."
    if stream is None:
        runs.say("a word")
    elif stream.isatty():
        assert f"\r{what}: 1 of 8 done, about " in stream.getvalue()
        assert stream.getvalue().endswith(f"\r{'':79}\r")
    else:
        assert stream.getvalue() == f"{what}: 8 tasks\n"
    assert not capsys.readouterr().out
