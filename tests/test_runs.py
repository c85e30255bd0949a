"""What is kept, under which key, and what becomes of it when something goes wrong.

TASKS become a module of its own, in a folder of the test's, because workers import what they
compute. Each task leaves a line in the file `log` when it is computed: its first argument and the
process.
"""

import contextlib
import io
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import BrokenExecutor, Executor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import data
import runs
import training
from conftest import Here
from optimizers import SGD, Adam

ROOT = Path(__file__).parent.parent
TASKS = """
import os, pathlib, signal, time
import numpy as np
from runs import cached

BETA = 5

def log(x):
    with open("log", "a") as file:
        file.write(f"{x} {os.getpid()}\\n")

def until(condition):
    for _ in range(600):
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
def rate(setting):
    return dict(y=setting.lr["SGD"])

@cached
def bad(setting, contestants, seed):
    log(seed)
    if seed == 1:
        raise RuntimeError("oh")
    return dict(y=seed)

@cached
def odd(kind):
    return None if kind == "none" else dict(file=1)

@cached
def interrupted(x):
    os.kill(os.getpid(), signal.SIGINT)
    return dict(y=x)

@cached
def slow(x, dies=False):
    log(x)
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


def results(function, *calls):
    return [float(run["y"]) for run in runs.parallel(function, calls)]


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
    with open("script.py") as script, open("out", "w") as out:
        return subprocess.Popen([sys.executable, file], stdin=script, stdout=out,
                                stderr=subprocess.STDOUT, text=True, **options)


def printed(process):
    """What it has printed, once it has ended well."""
    assert process.wait(30) == 0, Path("out").read_text()
    return Path("out").read_text().split()


# ---- Kept and read back --------------------------------------------------------------------------


def test_a_result_is_kept_and_read_back(tasks):
    first = runs.parallel(tasks.power, [(1,), (2,)])
    again = runs.parallel(tasks.power, [(1,), (2,), (2, 3)])
    assert sorted(logged()) == ["1", "2", "2"]  # (2, 3) is another call
    assert [run["y"].tolist() for run in again] == [[0, 1, 2], [0, 4, 8], [0, 8, 16]]
    assert np.array_equal(first[1]["y"], again[1]["y"])
    assert tasks.power(x=2, to=3)["y"].tolist() == [0, 8, 16]  # by keyword, in this process
    assert tasks.power(2, 2)["y"].tolist() == [0, 4, 8] and len(logged()) == 3  # a default


def test_the_same_bytes_for_any_number_of_processes(tmp_path, monkeypatch):
    calls = [(data.SETTING_1._replace(batch=20), training.contestants(data.SETTING_1), seed, 3)
             for seed in range(3)]
    for jobs in (1, 2):
        with runs.processes(jobs) as pool:
            monkeypatch.setattr(runs, "executor", pool)
            monkeypatch.setattr(runs, "folder", tmp_path / str(jobs))
            runs.parallel(training.train, calls)
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / jobs).iterdir()}
                for jobs in "12")
    assert one == two and len(one) == 3


@pytest.mark.parametrize("damage", (lambda file: file[:-30], lambda file: b"",
                                    lambda file: b"no numbers"))
def test_a_damaged_file_is_named_and_computed_anew(damage, tasks, capsys):
    tasks.power(7)
    (path,) = kept()
    path.write_bytes(damage(path.read_bytes()))
    for _ in range(2):
        assert tasks.power(7)["y"].tolist() == [0, 49, 98]
    assert logged() == ["7", "7"]  # once more, not twice
    assert capsys.readouterr().err.count(f"{path}: not usable") == 1


def test_two_calls_at_once_on_one_folder(tasks):
    """Both compute each task at the same time; one writes while the other does."""
    other = python("import tasks\nrun, = runs.parallel(tasks.twice, [(3,)])\nprint(run['y'])")
    assert results(tasks.twice, (3,)) == [3] and printed(other) == ["3"]
    assert logged() == ["3", "3"] and len(kept()) == 1

    path = Path("kept", "file")
    runs.write(path, lambda file: (file.write(b"last"), runs.write(
        path, lambda other: other.write(b"first"))))
    assert path.read_bytes() == b"last"


def test_one_blas_thread_in_a_worker_and_the_parents_environment_as_it_was(tasks, monkeypatch):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "3")
    assert runs.parallel(tasks.power, [(1,)])[0]["threads"] == "1"
    assert os.environ["OPENBLAS_NUM_THREADS"] == "3"


# ---- Keys ----------------------------------------------------------------------------------------


def test_every_argument_is_in_the_key(tasks):
    """Also what a setting is called, and all of its rates; and nesting is no sequence."""
    setting, sgd = data.SETTING_1, ((SGD, dict(lr=0.1)),)
    calls = [(setting, sgd, 0), (setting, sgd, 1), (setting, ((SGD, dict(lr=0.2)),), 0),
             (setting, ((Adam, dict(lr=0.1)),), 0), (setting._replace(name="another"), sgd, 0),
             (setting._replace(lr=dict(SGD=1)), sgd, 0), (setting._replace(std=0.1), sgd, 0),
             ((1, 2), 3), (1, (2,), 3), (1, 2, 3), ("1", 2, 3), (1.0, 2, 3), (None,), (range(3),)]
    assert len({runs.key_of(function, call) for call in calls
                for function in (tasks.bad, tasks.odd)}) == 2 * len(calls)
    both = [(setting._replace(lr=dict(SGD=rate)),) for rate in (1, 2)]
    assert results(tasks.rate, *both) == [1, 2]


def test_equal_arguments_have_one_key(tasks):
    assert runs.key_of(tasks.power, (0.1, dict(a=1, b=[2, None]))) == runs.key_of(
        tasks.power, (np.float64(0.1), dict(b=(2, None), a=np.int64(1))))


@pytest.mark.parametrize("unknown", (np.arange(3), object(), {1, 2}, [np.zeros(1)]))
def test_arguments_that_no_text_describes_are_refused(unknown, tasks):
    with pytest.raises(TypeError, match="^task: got .*, wants numbers"):
        runs.parallel(tasks.power, [(unknown,)])


def test_an_edited_module_computes_anew(tasks, tmp_path):
    """The reader's own, in which the optimizer is, and, in a copy of the house, each of ours."""
    (tmp_path / "house").mkdir()
    for name in ("runs", *runs.BASE):
        shutil.copy(ROOT / f"{name}.py", tmp_path / "house")
    text = "sys.path[0] = 'house'; del sys.modules['runs']\nimport runs, tasks\n" \
        "runs.folder = pathlib.Path('kept')\n" \
        "print(float(tasks.beta(((tasks.Mine, dict(lr=1)),))['y']), len([*runs.folder.iterdir()]))"

    def run():
        return printed(python(text))

    assert run() == run() == ["5.0", "1"]
    Path("tasks.py").write_text(TASKS.replace("BETA = 5", "BETA = 7"))
    assert run() == ["7.0", "2"]
    for number, name in enumerate(runs.BASE, 3):
        with open(f"house/{name}.py", "a") as file:
            file.write("# a comment\n")
        assert run() == ["7.0", str(number)], name
    Path("tasks.py").write_text(TASKS)
    assert run() == ["5.0", "8"]


def test_a_value_that_a_session_changed_stops_it(tasks, monkeypatch):
    """Workers read the file: they would not see it. In this process it is another key."""
    mine = ((tasks.Mine, dict(lr=1)),)
    assert results(tasks.beta, (mine,)) == [5]
    monkeypatch.setattr(tasks, "BETA", -5)
    with pytest.raises(runs.RunFailed, match="has changed since this session began"):
        runs.parallel(tasks.beta, [(mine,)])
    assert tasks.beta(mine)["y"] == -5 and len(kept()) == 2


# ---- What fails, fails alone ---------------------------------------------------------------------


def test_a_task_that_raises_is_named_and_the_others_are_kept(tasks):
    line = TASKS.splitlines().index('        raise RuntimeError("oh")') + 1
    calls = [(data.SETTING_1, ((SGD, dict(lr=0.1)),), seed) for seed in range(4)]
    with pytest.raises(runs.RunFailed) as error:
        runs.parallel(tasks.bad, calls)
    assert str(error.value) == \
        f"bad(Setting 1, SGD, lr 0.1, 1): RuntimeError: oh (tasks.py, line {line})"
    assert len(kept()) == 3
    assert results(tasks.bad, calls[0], *calls[2:]) == [0, 2, 3]
    assert sorted(logged()) == ["0", "1", "2", "3"]


@pytest.mark.parametrize("kind", ("none", "file"))
def test_a_task_that_returns_no_arrays_is_named(kind, tasks):
    with pytest.raises(runs.RunFailed, match=rf"^odd\({kind}\): (Attribute|Type)Error"):
        runs.parallel(tasks.odd, [(kind,)])
    assert not kept()


def test_a_worker_that_dies_is_said_and_the_same_call_does_the_rest(tasks):
    with pytest.raises(runs.RunFailed, match="^a worker process died$"):
        runs.parallel(tasks.slow, [(x, True) for x in range(4)])
    assert len(kept()) == 2
    Path("again").touch()
    assert results(tasks.slow, *[(x, True) for x in range(4)]) == [0, 1, 2, 3]
    assert logged().count("0") == logged().count("1") == 1


def test_a_worker_that_dies_while_tasks_are_handed_out(tasks, monkeypatch):
    class Broken(Executor):
        def submit(self, *task):
            raise BrokenExecutor("a child process terminated abruptly")

    monkeypatch.setattr(runs, "executor", Broken())
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
    tasks.until(lambda: Path("log").exists() and len(logged()) == 3 and len(kept()) == 2)
    send(parent.pid, blow)
    try:
        assert parent.wait(10) == -blow
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
    def interrupt(*_):
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


class Recording(Here):
    seen = []

    def submit(self, *work):
        self.seen.append(work[-1])
        return super().submit(*work)


def test_a_readers_executor_is_used_as_it_is(tasks, monkeypatch):
    with ThreadPoolExecutor(2) as threads:
        for pool in (threads, Recording()):
            monkeypatch.setattr(runs, "executor", pool)
            monkeypatch.setattr(runs, "folder", Path(type(pool).__name__))
            assert [run["y"][1] for run in runs.parallel(tasks.power, [(1,), (2,)])] == [1, 4]
        assert pool.seen == [(1,), (2,)] and threads.submit(int).result() == 0  # still open
    assert logged()[2:] == ["1", "2"] and processes() == {os.getpid()}


TYPED = """
import data, os, tasks, training
print(runs.parallel(tasks.power, [(2,)])[0]["y"][1], os.getpid())  # by a worker
setting, train = data.SETTING_1._replace(batch=20), training.train.__wrapped__
seen = []

class Own:
    def __init__(self, lr): pass
    def step(self, params, grad): seen.append("class"); return params

def replaced(*task): seen.append("train"); return train(*task)

sgd = training.contestants(setting)
runs.parallel(training.train, [(setting, ((Own, dict(lr=1)),), 0, 1)])
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
    assert seen == ["class", "train"] and len(kept()) == 1


def test_a_function_inside_a_function_runs_in_this_process_and_is_not_kept(tasks):
    assert results(tasks.outer(), (1,), (2,)) == [1, 2]
    assert processes() == {os.getpid()} and not kept()


def test_a_readers_function_in_the_place_of_ours_is_used_and_nothing_is_kept(tasks, monkeypatch):
    """From a file, too: workers would use ours, and the key would be that of ours."""
    assert results(tasks.rate, (data.SETTING_1,)) == [0.02] and len(kept()) == 1
    monkeypatch.setattr(training, "clip", tasks.log)
    assert results(tasks.rate, (data.SETTING_1._replace(lr=dict(SGD=3)),)) == [3]
    assert tasks.rate(data.SETTING_1)["y"] == 0.02 and len(kept()) == 1


def test_inside_a_process(tasks):
    """Of multiprocessing; a daemon may have no children and does all itself."""
    process = python("""
import multiprocessing, tasks
def job(x):
    print(runs.parallel(tasks.power, [(x,)])[0]["y"][1])
if __name__ == "__main__":
    for x, daemon in ((2, False), (3, True)):
        child = multiprocessing.get_context("spawn").Process(target=job, args=(x,), daemon=daemon)
        child.start()
        child.join(30)""")
    assert printed(process) == ["4.0", "9.0"] and logged() == ["2", "3"] and len(kept()) == 2


def test_a_system_without_processes(tasks, monkeypatch):
    def refuse(*_):
        raise FileNotFoundError(2, "No such file or directory", "/dev/shm")

    monkeypatch.setattr(runs, "ProcessPoolExecutor", refuse)
    with pytest.raises(runs.RunFailed, match="can start no processes .*No such file .*/dev/shm"):
        runs.parallel(tasks.power, [(1,)])


def test_not_more_processes_than_windows_allows(monkeypatch):
    class Pool:
        def __init__(self, count, *_):
            asked.append(count)

        def shutdown(self, cancel_futures):
            asked.append(cancel_futures)

    asked = []
    monkeypatch.setattr(runs, "ProcessPoolExecutor", Pool)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    for jobs in (None, 3, 100):
        with runs.processes(jobs):
            pass
    assert asked == [61, True, 3, True, 61, True]


TERMINAL = type("Terminal", (io.StringIO,), dict(isatty=lambda self: True))


@pytest.mark.parametrize("stream", (TERMINAL(), io.StringIO(), None))
def test_progress_is_for_terminals(stream, tasks, monkeypatch, capsys):
    """Its last word clears the line. Without stderr all goes on, in silence."""
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(runs, "executor", Here())
    runs.parallel(tasks.power, [(1,), (2,)])
    if stream is None:
        runs.say("a word")
    else:
        assert ("\r1 of 2 done, about " in stream.getvalue()) == stream.isatty()
        assert stream.getvalue()[-52:] == stream.isatty() * f"\r{'':50}\r"
    assert not capsys.readouterr().out
