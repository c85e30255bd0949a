"""Keep what was computed (`cached`), and compute in parallel (`parallel`). Nothing else.

    task     the arguments of one call: computed in one process, kept in one file
    result   what the call returns: a dict of arrays
    key      a hash of the function's name, all of its arguments, numpy's version, and the code

The code in a key is the bytes of linattn.py, mlp.py, optimizers.py, data.py and training.py, and of
the other modules that the function and the classes among its arguments come from; of these also the
plain values (numbers, texts) that they hold. A comment edited there computes anew. What these
modules import in their turn is in no key: after an edit there, delete the folder of kept results.
"""

import contextlib
import functools
import hashlib
import inspect
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
import uuid
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

import numpy as np

folder = Path("results", "runs")  # of kept results
executor = None  # a concurrent.futures.Executor of your own, instead of processes of ours
BASE = "linattn", "mlp", "optimizers", "data", "training"
SOURCES = {name: Path(__file__).with_name(f"{name}.py").read_bytes() for name in BASE}
KNOWN = {*BASE, "runs", "numpy", *sys.stdlib_module_names}  # where code in BASE comes from
ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS",
                            "VECLIB_MAXIMUM_THREADS"), "1")  # matrices this small gain from no more


class RunFailed(Exception):
    """Some tasks could not be done. What is finished is kept: the same call does the rest."""


def cached(function):
    """The same function, which keeps its results, {name: array}, in `folder`, and reads back what
    is kept; code that no other process can import is called, and nothing kept. Raises what the
    function raises, and TypeError for arguments that have no key (`key_of`)."""
    signature = inspect.signature(function)

    @functools.wraps(function)  # with its docstring
    def wrapper(*arguments, **options):
        bound = signature.bind(*arguments, **options)
        bound.apply_defaults()
        if not_importable(function, bound.args):
            return function(*bound.args)
        path = folder / f"{function.__name__}-{key_of(function, bound.args)[:16]}.npz"
        result = read_back(path)
        if result is None:
            result = {name: np.asarray(values) for name, values in function(*bound.args).items()}
            write(path, lambda file: np.savez(file, **result))
        return result
    return wrapper


def parallel(function, tasks):
    """[function(*task) for task in tasks], computed in processes, one for each core.

    Code that no other process can import (typed into a notebook or a script, or inside a function)
    runs in this process, and is not kept; so does all in a daemon, which may start no processes.
    Raises RunFailed with a line for each task that failed.
    """
    tasks, began = list(tasks), time.monotonic()
    daemon = multiprocessing.current_process().daemon
    if daemon or any(not_importable(function, task) for task in tasks):
        return [work(None, folder, function, task) for task in tasks]
    with contextlib.nullcontext(executor) if executor else processes() as pool:
        # Workers start here. An empty __main__: they want nothing of the user's script, which may
        # then have no `if __name__ == "__main__"`, or come from a notebook.
        try:
            with patch.dict(os.environ, ONE_THREAD), \
                    patch.dict(sys.modules, __main__=ModuleType("_")):
                futures = [pool.submit(work, key_of(function, task), folder, function, task)
                           for task in tasks]
        except BrokenExecutor:
            raise RunFailed("a worker process died") from None
        for done, _ in enumerate(as_completed(futures), 1):
            progress(done, len(futures), began)
    errors = [future.exception() for future in futures]
    lines = {"a worker process died" if isinstance(error, BrokenExecutor) else str(error): None
             for error in errors if error}  # a dict: each once, in order
    if lines:
        raise RunFailed("\n".join(lines))
    return [future.result() for future in futures]


@contextlib.contextmanager
def processes(jobs=None):
    """An Executor of so many processes, one for each core unless said otherwise. They end with the
    block: in the middle of their work if an error or Ctrl-C ends it, or if this process is killed,
    because they hang on a pipe whose other end is then closed."""
    try:
        spawn = multiprocessing.get_context("spawn")
        end, leash = spawn.Pipe(duplex=False)
        pool = ProcessPoolExecutor(min(jobs or os.cpu_count() or 1, 61), spawn, follow, (end,))
    except (OSError, ImportError) as error:  # 61: more Windows does not allow
        raise RunFailed(f"this system can start no processes ({error})") from None
    try:
        yield pool
    except BaseException:
        leash.close()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def follow(end):
    """In a worker: leave Ctrl-C to the parent, and end when the parent lets go of the pipe."""
    def wait():
        with contextlib.suppress(EOFError, OSError):
            end.recv()
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=wait, daemon=True).start()


def work(key, where, function, task):
    """In a worker: the result of a task, if both processes have the same code; an error names the
    task, and the line where it happened."""
    global folder
    folder = where
    if key and key_of(function, task) != key:
        raise RunFailed("a module, or a value in it, has changed since this session began: "
                        "start it again")
    try:
        return function(*task)
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise RunFailed(f"{function.__name__}({in_words(task)}): {type(error).__name__}: {error} "
                        f"({Path(place.filename).name}, line {place.lineno})") from None


def in_words(value):
    """Arguments in short, for messages: a setting or an optimizer by its name."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {in_words(each)}" for name, each in value.items())
    if isinstance(value, (tuple, list)) and not hasattr(value, "name"):
        return ", ".join(map(in_words, value))
    return str(getattr(value, "name", getattr(value, "__name__", value)))


# ---- Keys ----------------------------------------------------------------------------------------


def key_of(function, arguments):
    """The key of a call. Raises TypeError for arguments of which no text says all."""
    parts = list(flat((function, arguments)))
    texts = [f"{part.__module__}.{part.__qualname__}" if is_code(part) else repr(part)
             for part in parts]
    modules = {*BASE, *(part.__module__ for part in parts if is_code(part))}
    code = [(name, *code_of(name)) for name in sorted(modules)]
    return hashlib.sha256(repr((texts, np.__version__, code)).encode()).hexdigest()


def flat(value):
    """What nested arguments consist of, with brackets; dicts in the order of their names."""
    if isinstance(value, dict):
        value = [(name, value[name]) for name in sorted(value)]
    if isinstance(value, (tuple, list)):
        yield "("
        for each in value:
            yield from flat(each)
        yield ")"
    elif isinstance(value, np.generic):
        yield value.item()
    elif value is None or isinstance(value, (str, int, float, range)) or is_code(value):
        yield value
    else:
        raise TypeError(f"task: got {value!r}, wants numbers, texts, functions, classes")


def is_code(value):
    return inspect.isfunction(value) or inspect.isclass(value)


def code_of(name):
    """The bytes of a module's file, as they were when it was first used; of a module that is not
    one of ours also its plain values, which a session may change without the file."""
    if name in BASE:
        return SOURCES[name], ()
    module = sys.modules[name]
    if name not in SOURCES:
        path = getattr(module, "__file__", None)
        SOURCES[name] = Path(path).read_bytes() if path else b""
    plain = {key: repr(value) for key, value in vars(module).items() if not key.startswith("__")
             and isinstance(value, (str, int, float))}
    return SOURCES[name], sorted(plain.items())


def not_importable(function, arguments):
    """Whether there is code that another process cannot import, or in the place of ours code from
    elsewhere."""
    ours = [value for name in BASE if name in sys.modules
            for value in vars(sys.modules[name]).values() if is_code(value)]
    given = [part for part in flat((function, arguments)) if is_code(part)]
    return any(part.__module__ == "__main__" or "<" in part.__qualname__
               for part in (*given, *ours)) or any(
        part.__module__.partition(".")[0] not in KNOWN for part in ours)


# ---- Files and messages --------------------------------------------------------------------------


def read_back(path):
    """A kept result, or None; a damaged file is named."""
    try:
        with np.load(path) as arrays:
            return dict(arrays)
    except FileNotFoundError:
        return None
    except Exception as error:  # whatever a damaged file makes of numpy and zipfile
        say(f"{path}: not usable ({error}); computed anew")
        return None


def write(path, save):
    """A file as a whole or not at all: save(file) to a temporary one, which is then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    try:
        with open(temporary, "xb") as file:
            save(file)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def progress(done, total, began):
    """Tasks done and the time left, on a terminal only; the last call clears the line."""
    if sys.stderr is not None and sys.stderr.isatty():
        left = (time.monotonic() - began) / done * (total - done)
        text = f"{done} of {total} done, about {left:.0f} s left" if done < total else ""
        print(f"\r{text:<50}", end="" if text else "\r", file=sys.stderr, flush=True)


def say(text):
    if sys.stderr is not None:
        print(f"experiments.py: {text}", file=sys.stderr)
