"""What is kept, by which key, and what happens to it when something goes wrong.

The tasks are in a module of their own, tasks.py in a folder of the test's, because workers import
what they compute. Each leaves a line in the file `log` when it is computed.
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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import data
import runs
from optimizers import SGD, Adam

ROOT = Path(__file__).parent.parent
TASKS = """
import os, time
import numpy as np
from runs import cached

BETA = 5

def log(text):
    with open("log", "a") as file:
        file.write(f"{text} {os.getpid()}\\n")

@cached
def square(x, power=2):
    log(x)
    return dict(y=np.arange(3.0) * x**power, threads=os.environ.get("OPENBLAS_NUM_THREADS", ""))

@cached
def rate(setting):
    return dict(rate=setting.lr["SGD"])

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
def dies(x, at):
    log(x)
    if x == at and not os.path.exists("again"):
        time.sleep(0.5)
        os._exit(3)
    return dict(y=x)

@cached
def slow(x):
    log(x)
    if x >= 2 and not os.path.exists("again"):
        time.sleep(60)
    return dict(y=x)

@cached
def with_optimizer(contestants):
    (optimizer, arguments), = contestants
    return dict(beta=optimizer(**arguments).beta)

class Mine:
    def __init__(self, lr):
        self.beta = BETA * lr
"""


@pytest.fixture
def tasks(tmp_path, monkeypatch):
    """The module, in an empty working folder."""
    (tmp_path / "tasks.py").write_text(TASKS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(runs, "folder", tmp_path / "kept")
    import tasks
    yield tasks
    del sys.modules["tasks"]
    runs.SOURCES.pop("tasks", None)


def logged():
    """What was computed, in order."""
    return [line.split()[0] for line in Path("log").read_text().splitlines()]


def kept():
    return sorted(Path("kept").glob("*.npz"))


def script(text, cwd, **options):
    """Start a Python process with the house on its path, its output in `out`."""
    (cwd / "script.py").write_text(f"import sys\nsys.path[:0] = [{str(ROOT)!r}, '.']\n"
                                   "import runs, pathlib\nruns.folder = pathlib.Path('kept')\n"
                                   + text)
    with open(cwd / "out", "wb") as out:
        return subprocess.Popen([sys.executable, "script.py"], cwd=cwd, stdout=out, stderr=out,
                                **options)


# ---- Results are read back -----------------------------------------------------------------------


def test_a_result_is_kept_and_read_back(tasks):
    first = runs.parallel(tasks.square, [(1,), (2,), (3,)])
    again = runs.parallel(tasks.square, [(1,), (2,), (3,), (2, 3)])
    assert sorted(logged()) == ["1", "2", "2", "3"]  # (2, 3) is another power
    assert [run["y"].tolist() for run in again] == [[0, 1, 2], [0, 4, 8], [0, 9, 18], [0, 8, 16]]
    np.testing.assert_array_equal([run["y"] for run in first], [run["y"] for run in again[:3]])
    assert tasks.square(3)["y"].tolist() == [0, 9, 18] and len(logged()) == 4  # here, from disk


def test_the_same_bytes_for_any_number_of_processes(tasks, monkeypatch):
    found = []
    for jobs in (1, 2):
        monkeypatch.setattr(runs, "folder", Path(f"kept{jobs}"))
        with runs.processes(jobs) as pool:
            monkeypatch.setattr(runs, "executor", pool)
            runs.parallel(tasks.square, [(x,) for x in range(4)])
        found.append({path.name: path.read_bytes() for path in Path(f"kept{jobs}").iterdir()})
    assert found[0] == found[1] and len(found[0]) == 4


@pytest.mark.parametrize("damage", (b"", b"no numbers", None))
def test_a_damaged_file_is_named_and_computed_anew(damage, tasks, capsys):
    tasks.square(7)
    (path,) = kept()
    path.write_bytes(path.read_bytes()[:-30] if damage is None else damage)
    assert tasks.square(7)["y"].tolist() == [0, 49 / 1, 98] and logged() == ["7", "7"]
    assert f"{path}: not usable" in capsys.readouterr().err
    assert tasks.square(7)["y"].size and logged() == ["7", "7"]


def test_one_blas_thread_in_a_worker_and_the_parents_environment_as_it_was(tasks, monkeypatch):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "3")
    assert str(runs.parallel(tasks.square, [(1,)])[0]["threads"]) == "1"
    assert os.environ["OPENBLAS_NUM_THREADS"] == "3"


# ---- Keys ----------------------------------------------------------------------------------------


def test_equal_arguments_have_one_key(tasks):
    key = runs.key_of(tasks.square, (0.1, dict(a=1, b=[2, None])))
    assert key == runs.key_of(tasks.square, (np.float64(0.1), dict(b=(2, None), a=np.int64(1))))
    tasks.square(2)
    tasks.square(x=2)
    tasks.square(2, power=2)
    assert logged() == ["2"]


def test_every_argument_is_in_the_key(tasks):
    """Also what a setting is called, and all of its rates; and nesting is no sequence."""
    setting = data.SETTING_1
    calls = [(setting, ((SGD, dict(lr=0.1)),), 0), (setting, ((Adam, dict(lr=0.1)),), 0),
             (setting, ((SGD, dict(lr=0.2)),), 0), (setting, ((SGD, dict(lr=0.1)),), 1),
             (setting._replace(name="another"), ((SGD, dict(lr=0.1)),), 0),
             (setting._replace(lr=dict(SGD=1)), ((SGD, dict(lr=0.1)),), 0),
             (setting._replace(std=0.1), ((SGD, dict(lr=0.1)),), 0),
             ((1, 2), 3), (1, (2, 3)), ("1", 2, 3), (True,), (1.5,), (None,), (range(3),)]
    assert len({runs.key_of(tasks.bad, call) for call in calls}) == len(calls)
    assert runs.key_of(tasks.bad, (1,)) != runs.key_of(tasks.odd, (1,))
    both = [(setting._replace(lr=dict(SGD=rate)),) for rate in (1, 2)]
    assert [float(run["rate"]) for run in runs.parallel(tasks.rate, both)] == [1, 2]


@pytest.mark.parametrize("unknown", (np.arange(3), object(), {1, 2}, contextlib.suppress()))
def test_arguments_that_no_text_describes_are_refused(unknown, tasks):
    with pytest.raises(TypeError, match="^task: got .*, wants"):
        tasks.square(unknown)


def test_an_edited_module_computes_anew(tasks, tmp_path):
    """The reader's own, and, in a copy of the house, each of ours; a comment is enough."""
    shutil.copytree(ROOT, tmp_path / "house", ignore=shutil.ignore_patterns(".*", "figures", "docs"))
    text = "import sys\nsys.path[:0] = ['house', '.']\nimport runs, training, data, tasks\n" \
        "from pathlib import Path\nruns.folder = Path('kept')\n" \
        "both = training.contestants(data.SETTING_1, (tasks.Mine,), dict(Mine=1))\n" \
        "print(float(tasks.with_optimizer(both)['beta']), len(list(Path('kept').glob('*'))))"

    def run():
        return subprocess.run([sys.executable, "-c", text], cwd=tmp_path, capture_output=True,
                              text=True, check=True).stdout.split()

    assert run() == run() == ["5.0", "1"]
    (tmp_path / "tasks.py").write_text(TASKS.replace("BETA = 5", "BETA = 7"))
    assert run() == ["7.0", "2"]
    for i, name in enumerate(runs.BASE):
        with open(tmp_path / "house" / f"{name}.py", "a") as file:
            file.write("# a comment\n")
        assert run() == ["7.0", str(3 + i)], name


def test_a_value_that_a_session_changed_stops_it(tasks, monkeypatch):
    """Workers read the file: they would not see it. In this process it is another key."""
    both = ((tasks.Mine, dict(lr=1)),)
    assert float(runs.parallel(tasks.with_optimizer, [(both,)])[0]["beta"]) == 5
    monkeypatch.setattr(tasks, "BETA", -5)
    with pytest.raises(runs.RunFailed, match="changed since this session began"):
        runs.parallel(tasks.with_optimizer, [(both,)])
    assert float(tasks.with_optimizer(both)["beta"]) == -5


# ---- What fails, fails alone ---------------------------------------------------------------------


def test_a_task_that_raises_is_named_and_the_others_are_kept(tasks):
    calls = [(data.SETTING_1, ((SGD, dict(lr=0.1)),), seed) for seed in range(4)]
    with pytest.raises(runs.RunFailed) as error:
        runs.parallel(tasks.bad, calls)
    assert str(error.value) == ("bad(Setting 1, SGD, lr 0.1, 1): RuntimeError: oh "
                                "(tasks.py, line 25)")
    assert len(kept()) == 3 and not list(Path("kept").glob("*.part"))
    assert [float(run["y"]) for run in runs.parallel(tasks.bad, [*calls[:1], *calls[2:]])] == [
        0, 2, 3]
    assert sorted(logged()) == ["0", "1", "2", "3"]


@pytest.mark.parametrize("kind", ("none", "file"))
def test_what_is_no_dict_of_arrays_is_named(kind, tasks):
    with pytest.raises(runs.RunFailed, match=rf"^odd\({kind}\): "):
        runs.parallel(tasks.odd, [(kind,)])
    assert not kept() and not list(Path("kept").glob("*.part"))


def test_a_worker_that_dies_is_said_and_the_same_call_does_the_rest(tasks):
    calls = [(x, 2) for x in range(5)]
    with pytest.raises(runs.RunFailed, match="^a worker process died$"):
        runs.parallel(tasks.dies, calls)
    done = len(kept())
    Path("again").touch()
    assert [float(run["y"]) for run in runs.parallel(tasks.dies, calls)] == [0, 1, 2, 3, 4]
    assert 2 <= done < 5 and len(kept()) == 5


def test_a_full_disk_leaves_no_part(tmp_path):
    def save(file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError):
        runs.write(tmp_path / "a" / "file", save)
    assert not list((tmp_path / "a").iterdir())


POSIX = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc, forks")


@POSIX
@pytest.mark.parametrize("blow", ("SIGKILL", "SIGINT"))
def test_a_blow_loses_nothing_that_is_done_and_leaves_no_process(blow, tasks, tmp_path):
    """kill -9 of the parent; Ctrl-C, which the whole group gets."""
    text = "import signal, tasks\n" \
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n" \
        "runs.parallel(tasks.slow, [(x,) for x in range(6)])\n"
    process = script(text, tmp_path, start_new_session=True)
    for _ in range(300):
        if Path("log").exists() and len(logged()) >= 4 and len(kept()) >= 2:
            break
        time.sleep(0.05)
    if blow == "SIGKILL":
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGINT)
    process.wait(10)
    workers = {int(line.split()[1]) for line in Path("log").read_text().splitlines()}
    for _ in range(100):
        left = [pid for pid in workers if alive(pid)]
        if not left:
            break
        time.sleep(0.05)
    assert not left and len(workers) == 2
    Path("again").touch()
    assert script(text, tmp_path).wait(30) == 0
    assert len(kept()) == 6 and logged().count("0") == logged().count("1") == 1


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_two_calls_on_one_folder(tasks, tmp_path):
    text = "import tasks\nruns.parallel(tasks.square, [(x,) for x in range(20)])\n"
    first, second = script(text, tmp_path), script(text, tmp_path)
    assert first.wait(30) == second.wait(30) == 0
    assert len(kept()) == 20 and not list(Path("kept").glob("*.part"))


def test_our_end_is_not_that_of_others(tasks):
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"])
    with pytest.raises(runs.RunFailed):
        runs.parallel(tasks.odd, [("none",)])
    assert other.poll() is None
    other.kill()
    other.wait()


# ---- Where it runs -------------------------------------------------------------------------------


def test_a_readers_executor(tasks, monkeypatch):
    with ThreadPoolExecutor(2) as pool:
        monkeypatch.setattr(runs, "executor", pool)
        assert [run["y"][1] for run in runs.parallel(tasks.square, [(1,), (2,)])] == [1, 4]
    assert {line.split()[1] for line in Path("log").read_text().splitlines()} == {str(os.getpid())}


TYPED = """
import numpy as np, os, training, data
{definition}
run, = runs.parallel({function}, [(data.SETTING_1, training.contestants(data.SETTING_1, {rule}), 0, 3)])
print(run["loss"].shape, len(list(runs.folder.glob("*.npz"))))
"""
OWN = """class Own:
    def __init__(self, lr): self.lr = lr
    def step(self, params, grad): return params - self.lr * grad
"""


@pytest.mark.parametrize("definition, function, rule", (
    (OWN, "training.train", "(Own,), dict(Own=1)"),
    ("train = training.train.__wrapped__\ndef mine(*task): return train(*task)\n"
     "training.train = mine", "training.train", ""),
    ("def outer():\n    def inner(*task): return training.train(*task)\n    return inner\n"
     "training.other = outer()", "training.other", "")))
@pytest.mark.parametrize("stdin", (False, True))
def test_typed_code_runs_here_and_is_not_kept(definition, function, rule, stdin, tmp_path):
    """In a script without a guard, or one that comes from stdin, as in a notebook."""
    text = TYPED.format(definition=definition, function=function, rule=rule)
    if stdin:
        start = f"import sys\nsys.path[:0] = [{str(ROOT)!r}]\nimport runs\n"
        out = subprocess.run([sys.executable, "-"], input=start + text, cwd=tmp_path, text=True,
                             capture_output=True).stdout
    else:
        script(text, tmp_path).wait(30)
        out = (tmp_path / "out").read_text()
    assert out.strip().endswith(", 3) 0"), out


def test_a_script_without_guard(tasks, tmp_path):
    text = "import tasks\nprint(runs.parallel(tasks.square, [(2,)])[0]['y'])\n"
    assert script(text, tmp_path).wait(30) == 0
    assert (tmp_path / "out").read_text() == "[0. 4. 8.]\n" and logged() == ["2"]


def of_a_process(daemon, queue):
    import tasks
    queue.put(float(runs.parallel(tasks.square, [(3,)])[0]["y"][1]))


@POSIX
@pytest.mark.parametrize("daemon", (False, True))
def test_inside_a_process(daemon, tasks):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=of_a_process, args=(daemon, queue), daemon=daemon)
    process.start()
    assert queue.get(timeout=30) == 9
    process.join(30)
    assert process.exitcode == 0


def test_a_system_without_processes(tasks, monkeypatch):
    def refuse(*arguments):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(runs, "ProcessPoolExecutor", refuse)
    with pytest.raises(runs.RunFailed, match="can start no processes .*Function not implemented"):
        runs.parallel(tasks.square, [(1,)])


def test_not_more_processes_than_windows_allows(monkeypatch):
    asked = []

    class Pool:
        def __init__(self, count, *others):
            asked.append(count)

        def shutdown(self, cancel_futures):
            pass

    monkeypatch.setattr(runs, "ProcessPoolExecutor", Pool)
    for jobs in (None, 3, 100):
        with runs.processes(jobs):
            pass
    assert asked == [min(61, os.cpu_count()), 3, 61]


def test_progress_is_for_terminals(tasks, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for stream in (Terminal(), io.StringIO(), None):
        monkeypatch.setattr(sys, "stderr", stream)
        runs.parallel(tasks.square, [(1,), (2,)])
        runs.say("a word")
        if stream is not None:
            assert ("1 of 2 done, about " in stream.getvalue()) == stream.isatty()
