"""Keep what was computed (`cached`), and compute in parallel (`parallel`). Nothing else.

    task     the arguments of one call: computed in one process, kept in one file
    result   what the call returns: a dict of arrays
    key      a hash of the function's name, all of its arguments, numpy's version, and the code

Only workers, other processes with the code as it is in the files, keep results and read them back.
Where this session's modules hold anything else, it computes the task itself, keeps nothing, and
names the values.

These modules are linattn, mlp, optimizers, data, training, and those of the function and the
classes among its arguments. In a key are the bytes of their files (an edited comment computes anew)
and what they hold; not what they import in their turn: after an edit there, delete the folder.
"""

import contextlib
import contextvars
import functools
import hashlib
import importlib
import inspect
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
import uuid
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed
from pathlib import Path
from types import (BuiltinFunctionType, CellType, CodeType, FunctionType, MappingProxyType,
                   ModuleType)

import numpy as np

folder = Path("results", "runs")  # of kept results
executor = None  # a concurrent.futures.Executor of your own, instead of processes of ours
pool_here = contextvars.ContextVar("pool_here", default=None)  # that of `one_pool`, in this thread
keeps = False  # whether this process is a worker
BASE = "linattn", "mlp", "optimizers", "data", "training"
SESSION = uuid.uuid4().hex  # this process, its threads and its forks
PROCESS = os.getpid()
SOURCES = {}  # what `as_imported` found
STARTING = threading.RLock()
ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS",
                            "VECLIB_MAXIMUM_THREADS"), "1")  # matrices this small gain from no more


class RunFailed(Exception):
    """Some tasks could not be done. What is finished is kept: the same call does the rest."""


class OtherCode(Exception):
    """A worker's modules hold other values than the session's; the arguments are their names."""


def cached(function):
    """The same function, which in a worker keeps its results, {name: array}, and reads back what is
    kept. Raises what the function raises, and TypeError for a result that no file can hold."""
    signature = inspect.signature(function)

    @functools.wraps(function)  # with its docstring
    def wrapper(*arguments, **options):
        bound = signature.bind(*arguments, **options)
        bound.apply_defaults()
        call = function, bound.args, bound.kwargs
        if not keeps or typed(call):
            return arrays_of(*call)
        path = Path(folder) / f"{function.__name__}-{key_of(*call)[:16]}.npz"
        result = read_back(path)
        if result is None:
            result = arrays_of(*call)
            write(path, lambda file: np.savez(file, array_names=[*result], **result))
        return result
    return wrapper


def arrays_of(function, arguments, options):
    """The result of a call, as arrays."""
    result = function(*arguments, **options)
    if not isinstance(result, dict):
        raise TypeError(f"{function.__name__} returned {result!r:.60}, wants a dict of arrays")
    arrays = {name: np.asarray(values) for name, values in result.items()}
    for name, values in result.items():
        if (arrays[name].dtype.hasobject or np.ma.isMaskedArray(values)
                or name in ("file", "allow_pickle", "array_names")):  # those that np.savez takes
            raise TypeError(f"{function.__name__} returned {name} = {values!r:.60}, wants plain "
                            "arrays, none of them called file, allow_pickle or array_names")
    return arrays


def parallel(function, tasks):
    """[function(*task) for task in tasks], computed in processes, one for each core.

    Code that no other process can import (typed into a notebook or a script, or inside a function),
    or that it would import otherwise, runs in this process, and is not kept; so does all in a
    daemon, which may start no processes. Raises RunFailed with a line for each task that failed.
    """
    if function.__module__ in BASE:  # `train` is what stands under its name now, a reader's perhaps
        function = getattr(sys.modules[function.__module__], function.__name__, function)
    tasks, began = list(tasks), time.monotonic()
    calls = {i: call for i, task in enumerate(tasks) if (call := packed(function, task))}
    what, outcomes = title(function, tasks), [OtherCode()] * len(tasks)
    progress(what, 0, len(tasks), began)
    if calls and not multiprocessing.current_process().daemon:
        modules = sorted(modules_of((function, [tasks[i] for i in calls])))
        held = {name: contents_of(name) for name in modules if name in sys.modules}
        there = executor or pool_here.get()
        with contextlib.nullcontext(there) if there else processes() as pool:
            try:
                with start_of_workers():
                    futures = {pool.submit(remote, SESSION, folder, held, call): i
                               for i, call in calls.items()}
            except BrokenExecutor:
                raise RunFailed("a worker process died") from None
            for done, future in enumerate(as_completed(futures), 1):
                outcomes[futures[future]] = future.exception() or future.result()
                progress(what, done, len(futures), began)
    here = [i for i, each in enumerate(outcomes) if isinstance(each, OtherCode)]
    others = sorted({name for i in here for name in outcomes[i].args})
    if others:
        say(f"{listed(others, 9)}: other than in their files (or they change by themselves, as a "
            "time or a counter does): computed in this process, not kept")
    elif here and not multiprocessing.current_process().daemon:
        say("code that no other process can import: computed in this process, not kept")
    for done, i in enumerate(here, 1):
        try:
            outcomes[i] = work(function, tasks[i])
        except RunFailed as error:
            outcomes[i] = error
        progress(what, done, len(here), began)
    lines = {"a worker process died" if isinstance(each, BrokenExecutor) else str(each): None
             for each in outcomes if isinstance(each, BaseException)}  # a dict: each once, in order
    if lines:
        raise RunFailed("\n".join(lines))
    return outcomes


@contextlib.contextmanager
def start_of_workers():
    """While tasks are handed out: one BLAS thread for the workers that start, and an empty
    __main__, because they want nothing of the user's script, which may then have no
    `if __name__ == "__main__"`, or come from a notebook."""
    with STARTING:
        main = sys.modules["__main__"]
        own = {name: os.environ[name] for name in ONE_THREAD if name in os.environ}
        sys.modules["__main__"] = ModuleType("_")
        os.environ.update(ONE_THREAD)
        try:
            yield
        finally:
            sys.modules["__main__"] = main
            for name in ONE_THREAD:
                del os.environ[name]
            os.environ.update(own)


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


@contextlib.contextmanager
def one_pool(jobs=None):
    """The same processes for every call of `parallel` in the block, if there are none yet."""
    if executor or pool_here.get() or multiprocessing.current_process().daemon:
        yield
        return
    with processes(jobs) as pool:
        token = pool_here.set(pool)
        try:
            yield
        finally:
            pool_here.reset(token)


def follow(end):
    """In a worker: leave Ctrl-C to the parent, and end when the parent lets go of the pipe."""
    def wait():
        with contextlib.suppress(EOFError, OSError):
            end.recv()
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=wait, daemon=True).start()


def remote(session, where, held, call):
    """A task of a session whose modules hold this; in another process only if its own hold the
    same. A fork is of the same session, and holds what that held at the time."""
    global folder, keeps
    keeps = session != SESSION
    folder = where if keeps else folder
    if os.getpid() != PROCESS or keeps:
        others = {name for module, theirs in held.items()  # whose value differs, or one lacks it
                  for name, _ in theirs.items() ^ as_imported(module)[1].items()}
        if others:
            raise OtherCode(*others)
    return work(*pickle.loads(call))


def work(function, task):
    """The result of a task; an error names the task, and the line where it happened."""
    try:
        return function(*task)
    except (Exception, SystemExit) as error:
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


def key_of(function, arguments, options=()):
    """The key of a call. Raises TypeError for arguments of which no text says all."""
    call = function, arguments, options
    texts = [f"{part.__module__}.{part.__qualname__}" if callable(part) else repr(part)
             for part in flat(call)]
    code = [(name, as_imported(name)) for name in sorted(modules_of(call))]
    return hashed((texts, np.__version__, code))


def hashed(value):
    return hashlib.sha256(repr(value).encode()).hexdigest()


def flat(value):
    """What nested arguments consist of; before the parts of a container its class and size."""
    if isinstance(value, (np.float64, np.int64)):  # which compute as Python's do
        value = value.item()
    if isinstance(value, (dict, tuple, list)):
        yield type(value)
        yield (len(value),)
        for each in value.items() if isinstance(value, dict) else value:
            yield from flat(each)
    elif value is None or isinstance(value, (str, int, float, range, type, FunctionType)):
        yield value
    elif isinstance(value, (np.ndarray, np.generic)) and not value.dtype.hasobject:
        yield value.dtype.str, value.shape, value.tobytes()
    else:
        raise TypeError(f"task: got {value!r}, wants numbers, texts, arrays, functions, classes")


def modules_of(call):
    """The names of the modules that are the code of a call."""
    return {*BASE, *(part.__module__ for part in flat(call) if callable(part))} - {"builtins"}


def typed(call):
    """Whether there is code that no other process can import."""
    return any(part.__module__ in (None, "__main__", "__mp_main__") or "<" in part.__qualname__
               for part in flat(call) if callable(part))


def packed(*call):
    """A call in bytes for another process; None if that cannot import its code."""
    with contextlib.suppress(pickle.PicklingError, AttributeError):
        return None if typed(call) else pickle.dumps(call)


def as_imported(name):
    """The bytes of a module's file and its contents, as they were when this process first used it;
    of a module that cannot be imported the error."""
    if name not in SOURCES:
        try:
            path = getattr(importlib.import_module(name), "__file__", None)
            SOURCES[name] = Path(path).read_bytes() if path else b"", contents_of(name)
        except Exception as error:
            SOURCES[name] = b"", {f"{name} ({error})": ""}
    return SOURCES[name]


def contents_of(name):
    """{name: a short hash} of what a module holds."""
    return {f"{name}.{key}": contents([value], name, {})[:16]
            for key, value in list(vars(sys.modules[name]).items())
            if not (key.startswith("__") and key.endswith("__"))}


PLAIN = type(None), bool, int, float, complex, str, bytes
PARTS = {FunctionType: ("__module__", "__qualname__", "__code__", "__defaults__", "__kwdefaults__",
                        "__closure__", "__dict__"),
         CodeType: ("co_code", "co_consts", "co_names", "co_varnames", "co_argcount",
                    "co_kwonlyargcount", "co_flags", "co_exceptiontable"),
         CellType: ("cell_contents",), property: ("fget", "fset"), staticmethod: ("__func__",),
         classmethod: ("__func__",), BuiltinFunctionType: ("__qualname__", "__self__"),
         ModuleType: ("__name__",), np.ufunc: ("__name__",)}


def contents(value, home, seen):
    """A hash of what a value consists of, the same in every process: no addresses, no lines of
    files, no order of sets. A class that is not of the module `home` is its name, an object what
    pickle takes of it, or else the name of its class."""
    kind, parts = type(value), []
    if id(value) in seen:
        return seen[id(value)][0]
    seen[id(value)] = kind.__qualname__, value  # should it contain itself
    with contextlib.suppress(Exception):
        if kind in PARTS:
            found = [getattr(value, name) for name in PARTS[kind]]
        elif issubclass(kind, type):
            found = [value.__module__, value.__qualname__]
            if value.__module__ == home:
                found += [repr(value.__bases__), *sorted(
                    (name, each) for name, each in vars(value).items()
                    if not name.startswith("__") or type(each) is FunctionType)]
        elif issubclass(kind, (dict, MappingProxyType)):
            found = value.items()
        elif issubclass(kind, (list, tuple, set, frozenset)):
            found = value
        else:
            found = value.__reduce_ex__(2), getattr(value, "__wrapped__", None)
        parts += [each if type(each) in PLAIN else contents(each, home, seen) for each in found]
    if issubclass(kind, (set, frozenset)):
        parts.sort(key=repr)
    seen[id(value)] = hashed((kind.__qualname__, parts)), value
    return seen[id(value)][0]


# ---- Files and messages --------------------------------------------------------------------------


def read_back(path):
    """A kept result, or None; a damaged file is named."""
    try:
        with np.load(path) as arrays:
            return {name: arrays[name] for name in arrays["array_names"].tolist()}
    except FileNotFoundError:
        return None
    except Exception as error:  # whatever a damaged file makes of numpy and zipfile
        say(f"{path}: not usable ({error}); computed anew")
        return None


def write(path, save):
    """A file as a whole or not at all: save(file) to a temporary one, which is then renamed; where
    that is refused, as on Windows while another program has the file open, a few times."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    try:
        with open(temporary, "xb") as file:
            save(file)
        for pause in (0.05, 0.2, 0.5):
            with contextlib.suppress(PermissionError):
                return os.replace(temporary, path)
            time.sleep(pause)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def title(function, tasks):
    """A call in short: the function, a measure, three settings."""
    code = [part for part in flat((function, tasks[:1])) if inspect.isfunction(part)]
    settings = {each.name: None for task in tasks for each in task
                if isinstance(each, tuple) and hasattr(each, "name")}
    return listed([in_words(code), *settings], 4)


def listed(names, most):
    return ", ".join([*names[:most], *["..."] * (len(names) > most)])


def progress(what, done, total, began):
    """Tasks done and the time left: a terminal's line, cleared at the end; else one at the start.
    """
    if sys.stderr is not None and sys.stderr.isatty():
        text = f"{what:.44}: {done} of {total} done" if done < total else ""
        if 0 < done < total:
            text += f", about {(time.monotonic() - began) / done * (total - done):.0f} s left"
        print(f"\r{text:<79}", end="" if text else "\r", file=sys.stderr, flush=True)
    elif sys.stderr is not None and total and not done:
        print(f"{what}: {total} task{'s' * (total > 1)}", file=sys.stderr)


def say(text):
    if sys.stderr is not None:
        print(f"experiments.py: {text}", file=sys.stderr)
