"""What a user does at the command line, and what may go wrong there."""

import json
import os
import re
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
import experiments
import optimizers
from data import SETTING_1
from experiments import Budget, Run

PROJECT = Path(experiments.__file__).parent
TINY = ["adam_vs_sgd", "--seeds", "2", "--steps", "5"]


def run_of(optimizer="SGD", lr=0.02, seed=0, steps=5, setting=SETTING_1):
    return Run(setting, optimizer, lr, seed, steps)


def command(*arguments, folder=PROJECT, **options):
    return subprocess.run([sys.executable, "experiments.py", *map(str, arguments)], cwd=folder,
                          capture_output=True, text=True, timeout=120, **options)


# ---- Training -----------------------------------------------------------------------------------


def test_runs_share_batches_and_do_not_depend_on_their_company(monkeypatch):
    """Each optimizer alone, and both together, see the same batches and give the same numbers."""
    drawn, sample = [], data.sample_prompts

    def recorded(*arguments, **options):
        drawn.append(sample(*arguments, **options))
        return drawn[-1]

    monkeypatch.setattr(data, "sample_prompts", recorded)
    sgd, adam = run_of("SGD"), run_of("Adam")
    together = experiments.train([sgd, adam])
    alone = experiments.train([sgd]) + experiments.train([adam])
    assert len(drawn) == 15
    for first, second, third in zip(drawn[:5], drawn[5:10], drawn[10:]):
        assert np.array_equal(first.Z, second.Z) and np.array_equal(first.Z, third.Z)
        assert not np.array_equal(first.Z, drawn[0].Z) or first is drawn[0]  # fresh at every step
    for a, b in zip(together, alone):
        assert all(np.array_equal(a[key], b[key]) for key in a)
    assert together[0]["loss"][0] == together[1]["loss"][0]  # the same initial weights
    assert together[0]["loss"][1] != together[1]["loss"][1]


def test_training_is_the_protocol():
    """Three steps by hand: fresh batch, gradient, clip, heavy ball; loss and norm before the step."""
    init, stream = map(experiments.generator, np.random.SeedSequence(7).spawn(2))
    start = params = experiments.linattn.init_params(init)
    v, losses, norms = 0, [], []
    for _ in range(3):
        prompts = data.sample_prompts(stream, 1000, 20, 5)
        loss, grad = experiments.linattn.textbook_loss_and_grad(params, prompts)
        losses.append(loss)
        norms.append(np.sqrt((grad**2).sum()))
        v = 0.9 * v + grad * min(1, 1 / norms[-1])
        params = params - 0.02 * v
    (result,) = experiments.train([run_of(seed=7, steps=3)._replace(every=2)])
    np.testing.assert_allclose(result["loss"], losses, rtol=1e-10)
    np.testing.assert_allclose(result["grad_norm"], norms, rtol=1e-10)
    assert np.array_equal(result["snapshots"][0, 0], start)  # before steps 0 and 2, and after them
    np.testing.assert_allclose(result["snapshots"][-1, 1], params, rtol=1e-9)


def test_training_variants():
    """Clipping, weight decay, batch size and a fixed batch, two steps by hand."""
    setting = SETTING_1._replace(clipping="coordinates", weight_decay=0.1, batch=50, fixed=True, std=0.2, full=True)
    init, stream = experiments.streams(3)
    start = params = experiments.linattn.init_params(init, std=0.2, full=True)
    prompts, v, norms = data.sample_prompts(stream, 50, 20, 5), 0, []
    for _ in range(2):
        grad = experiments.linattn.textbook_loss_and_grad(params, prompts)[1]
        norms.append(np.sqrt((grad**2).sum()))
        limit = 1 / np.sqrt(3 * 2 * 36)
        v = 0.9 * v + np.minimum(np.maximum(grad, -limit), limit)
        params = params - 0.02 * (v + 0.1 * params)
    run = run_of(setting=setting, seed=3, steps=2)._replace(every=1)
    (result,) = experiments.train([run])
    np.testing.assert_allclose(result["grad_norm"], norms, rtol=1e-9)
    np.testing.assert_allclose(result["snapshots"][1, 1], params, rtol=1e-9)
    assert np.array_equal(result["snapshots"][0, 0], start) and result["clipped"].all()
    (free,) = experiments.train([run._replace(setting=setting._replace(clipping="none"))])
    assert not free["clipped"].any() and free["loss"][0] == result["loss"][0]
    assert free["loss"][1] != result["loss"][1]


def test_runs_that_differ_in_clipping_share_their_batches():
    run = run_of()
    for change in (dict(clip=0.1), dict(clipping="none"), dict(weight_decay=0.1)):
        assert experiments.shared(run._replace(setting=SETTING_1._replace(**change))) == experiments.shared(run)
    for change in (dict(batch=10), dict(std=0.1), dict(fixed=True), dict(layers=2), dict(data={})):
        assert experiments.shared(run._replace(setting=SETTING_1._replace(**change))) != experiments.shared(run)


def test_tuned(tmp_path, monkeypatch):
    """Of each optimizer the best rate, and the runs at it."""
    monkeypatch.setattr(experiments, "in_parallel", here)
    budget = Budget(seeds=2, steps=30, out=str(tmp_path))
    settings = [SETTING_1._replace(layers=layers) for layers in (2, 3)]
    grids = {"SGD": [0.02, 1e-6, 50.0], "Adam": [1e-6, 0.02, 50.0]}
    rates, runs, chosen = experiments.tuned(settings, budget, lambda setting, name: grids[name])
    assert rates.shape == (2, 2, 3) and runs["loss"].shape == (2, 3, 2, 2, 30)
    assert np.array_equal(chosen["lr"], np.full((2, 2), 0.02))
    for i, rate in enumerate((0, 1)):
        assert np.array_equal(chosen["loss"][:, i], runs["loss"][:, rate, i])
    own = experiments.train([run_of("Adam", 0.02, 1, 30)])[0]
    assert np.array_equal(own["loss"], chosen["loss"][1, 1, 1])
    assert [each.shape for each in chosen["snapshots"]] == [(2, 2, 1, 2, L, 2, 5, 5) for L in (2, 3)]


def test_divergence_stops_a_run_and_only_that(recwarn):
    bad, good = experiments.train([run_of(lr=50.0, steps=60), run_of("Adam", steps=60)])
    t = bad["diverged"]
    assert 0 < t < 60 and good["diverged"] == -1
    assert np.isfinite(bad["loss"][:t]).all() and np.isnan(bad["loss"][t:]).all()
    assert np.isfinite(bad["snapshots"][0]).all() and np.isfinite(good["loss"]).all()
    assert not recwarn.list


def test_divergence_is_reported(tmp_path):
    done = command(*TINY[:1], "--seeds", 2, "--steps", 60, "--lr", "SGD=50", "--out", tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    assert "Setting 1: diverged: SGD, seed 0, at step" in done.stdout
    found = json.loads((tmp_path / "adam_vs_sgd.json").read_text())
    assert found["verdict"] == "inconclusive"
    assert found["measured"]["Setting 1: final loss SGD"]["mean"] is None


# ---- Files --------------------------------------------------------------------------------------


def bytes_of(folder):
    return {path.name: path.read_bytes() for path in Path(folder).glob("adam_vs_sgd.*")}


@pytest.mark.slow
def test_same_bytes_twice_and_for_any_number_of_jobs(tmp_path):
    for jobs in ("1", "2"):
        assert experiments.main([*TINY, "--jobs", jobs, "--out", str(tmp_path / jobs)]) == 0
    one, two = bytes_of(tmp_path / "1"), bytes_of(tmp_path / "2")
    assert sorted(one) == [f"adam_vs_sgd.{suffix}" for suffix in ("json", "npz", "pdf", "png", "txt")]
    assert one == two


@pytest.fixture
def finished(tmp_path):
    """Two runs on disk, their results, and a function that calls for them again."""
    runs, budget = [run_of(seed=0), run_of(seed=1)], Budget(seeds=2, jobs=1, out=str(tmp_path))

    def again():
        found = experiments.measure(experiments.train, runs, budget, 2)
        return [{key: values[i] for key, values in found.items()} for i in range(2)]

    return [experiments.file_of(experiments.fingerprint(experiments.train, run), budget)
            for run in runs], again(), again


def same(results, others):
    for first, second in zip(results, others, strict=True):
        assert first.keys() == second.keys()
        assert all(np.array_equal(first[key], second[key]) for key in first)


def refuse(*_):
    raise AssertionError("computed anew")


def test_finished_runs_are_read_back(finished, monkeypatch):
    _, results, again = finished
    monkeypatch.setattr(experiments, "in_parallel", lambda jobs, *_: refuse() if jobs else [])
    same(results, again())


@pytest.mark.parametrize("damage", (
    lambda path, other: path.write_bytes(path.read_bytes()[:-100]),
    lambda path, other: path.write_bytes(b""),
    lambda path, other: path.write_text("not an archive"),
    lambda path, other: shutil.copy(other, path),
    lambda path, other: np.savez(path, loss=np.zeros(5)),
    lambda path, other: np.savez(path, loss=np.array([{}], dtype=object)),
))
def test_damaged_and_foreign_files_are_named_and_computed_anew(finished, damage, capsys):
    (path, other), results, again = finished
    damage(path, other)
    same(results, again())
    message = capsys.readouterr().err
    assert str(path) in message and "computed anew" in message and str(other) not in message
    again()
    assert capsys.readouterr().err == ""


def test_changed_code_is_not_served_old_runs(monkeypatch):
    """The name of a run's file depends on the code, but not on its comments and docstrings."""
    source = experiments.inspect.getsource

    def digest(change):
        experiments.code_digest.cache_clear()
        monkeypatch.setattr(experiments.inspect, "getsource", lambda part: change(source(part)))
        return experiments.code_digest((experiments.train,), "SGD")

    before = digest(lambda text: text)
    assert digest(lambda text: text + "\n# a comment\n") == before
    assert digest(lambda text: text.replace("heavy ball", "momentum")) == before
    assert digest(lambda text: text.replace("beta1", "b1")) == before  # Adam's business
    for old in ("self.momentum * self.v", "limit / norm", "axis=1", "2 * error", '["loss"][0]', "np.random.SFC64"):
        assert digest(lambda text: text.replace(old, "3")) != before, old


def test_an_optimizer_depends_on_its_base_class(monkeypatch):
    class Sub(optimizers.SGD):
        pass

    monkeypatch.setattr(optimizers, "Sub", Sub, raising=False)
    source = experiments.inspect.getsource
    before = experiments.code_digest((experiments.train,), "Sub")
    experiments.code_digest.cache_clear()
    monkeypatch.setattr(experiments.inspect, "getsource",
                        lambda part: source(part).replace("self.momentum * self.v", "3"))
    assert experiments.code_digest((experiments.train,), "Sub") != before
    monkeypatch.undo()
    experiments.code_digest.cache_clear()


def test_write_is_all_or_nothing(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fails(file):
        file.write(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        experiments.write(path, fails)
    assert [p.name for p in tmp_path.iterdir()] == ["file"] and path.read_bytes() == b"old"


# ---- Processes ----------------------------------------------------------------------------------


def start(folder):
    """A long run in the background, returned when its first result is on disk."""
    process = subprocess.Popen(
        [sys.executable, "experiments.py", "adam_vs_sgd", "--seeds", "2", "--steps", "40",
         "--jobs", "1", "--out", str(folder)], cwd=PROJECT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored behind a shell's &
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(Path(folder).glob("runs/*.npz")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    return process


@pytest.mark.slow
@pytest.mark.parametrize("blow", (signal.SIGKILL, signal.SIGINT))
def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path, blow):
    process = start(tmp_path)
    process.send_signal(blow)
    output, errors = process.communicate(timeout=30)
    assert output == "" and "Traceback" not in errors
    if blow == signal.SIGINT:
        assert process.returncode == 130 and "the same command does the rest" in errors
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*.npz")}
    assert 0 < len(kept) < 12 and not (tmp_path / "adam_vs_sgd.json").exists()
    done = command("adam_vs_sgd", "--seeds", 2, "--steps", 40, "--out", tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert len(list(tmp_path.glob("runs/*.npz"))) == 12


def die_at_three(argument):
    if argument == 3:
        os._exit(1)
    if argument == 4:
        raise RuntimeError("no")
    return 2 * argument


def test_a_worker_that_dies_is_named_and_the_rest_is_kept():
    kept = {}
    jobs = [(die_at_three, (argument,), f"task {argument}") for argument in range(6)]
    errors = experiments.in_parallel(jobs, kept.__setitem__, Budget(jobs=2))
    assert kept == {f"task {i}": 2 * i for i in (0, 1, 2, 5)}
    assert dict(errors) == {"task 3": "its worker process died", "task 4": "RuntimeError: no"}


def test_another_executor_gives_the_same_numbers(finished, tmp_path):
    """Threads of this process instead of processes."""
    _, results, _ = finished
    with ThreadPoolExecutor(2) as pool:
        budget = Budget(executor=pool, out=str(tmp_path / "threads"))
        found = experiments.measure(experiments.train, [run_of(seed=0), run_of(seed=1)], budget, 2)
        same(results, [{key: values[i] for key, values in found.items()} for i in range(2)])
        assert pool.submit(int).result() == 0  # left open


def test_workers_have_one_blas_thread_and_the_parent_its_own(monkeypatch):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "7")
    kept = {}
    experiments.in_parallel([(os.getenv, ("OPENBLAS_NUM_THREADS",), "worker")], kept.__setitem__, Budget(jobs=1))
    assert kept == {"worker": "1"} and os.environ["OPENBLAS_NUM_THREADS"] == "7"


# ---- A reader's own optimizer --------------------------------------------------------------------


@pytest.fixture
def copy(tmp_path):
    for name in ("linattn", "optimizers", "data", "experiments"):
        shutil.copy(PROJECT / f"{name}.py", tmp_path)
    return tmp_path


def add_to(copy, text):
    with open(copy / "optimizers.py", "a") as file:
        file.write(text)


def test_the_example_in_optimizers_runs_by_its_name(copy):
    example = optimizers.__doc__.split("    class Lion")[1].split("\n\nWeight decay")[0]
    add_to(copy, "\n\nclass Lion" + example.replace("\n    ", "\n") + "\n")
    done = command(*TINY, "--optimizers", "SGD", "Lion", "--lr", "Lion=0.001", folder=copy)
    assert done.returncode == 0, done.stderr
    assert "SGD / Lion" in done.stdout and "not judged" in done.stdout


def test_an_optimizer_that_fails_is_named(copy):
    add_to(copy, "\n\nclass Broken:\n    def __init__(self, lr): pass\n"
                 "    def step(self, params, grad): return 1 / 0\n")
    done = command(*TINY, "--optimizers", "SGD", "Broken", "--lr", "Broken=1", folder=copy)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "Broken (lr 1)" in done.stderr and "ZeroDivisionError" in done.stderr
    assert "SGD" not in done.stderr and "finished runs are kept" in done.stderr
    assert len(list(copy.glob("results/runs/train-*.npz"))) == 6  # the others are not lost


@pytest.mark.parametrize("body, words", (
    ("return None", "step returned shape ()"),
    ("return params[0]", "step returned shape (2, 5, 5)"),
))
def test_an_optimizer_that_returns_something_else_is_named(monkeypatch, body, words):
    namespace = {}
    exec(f"class Odd:\n    def __init__(self, lr): pass\n    def step(self, params, grad): {body}", namespace)
    monkeypatch.setattr(optimizers, "Odd", namespace["Odd"], raising=False)
    odd, sgd = experiments.train([run_of("Odd"), run_of("SGD")])
    assert words in odd["error"] and np.isfinite(sgd["loss"]).all()


def test_an_optimizer_that_works_in_place_harms_no_other(monkeypatch):
    class InPlace(optimizers.SGD):
        def step(self, params, grad):
            params -= self.lr * grad
            grad *= np.nan
            return params

    monkeypatch.setattr(optimizers, "InPlace", InPlace, raising=False)
    _, beside = experiments.train([run_of("InPlace"), run_of("SGD")])
    (alone,) = experiments.train([run_of("SGD")])
    assert np.array_equal(beside["loss"], alone["loss"])


def test_an_optimizer_that_makes_nan_has_diverged(monkeypatch):
    class Nan(optimizers.SGD):
        def step(self, params, grad):
            return params * np.nan

    monkeypatch.setattr(optimizers, "Nan", Nan, raising=False)
    (result,) = experiments.train([run_of("Nan")])
    assert result["diverged"] == 1 and np.isnan(result["loss"][1:]).all()


# ---- Statistics and verdict ----------------------------------------------------------------------


def test_t_quantile():
    """Against the printed table of the 97.5 % point."""
    for dof, wanted in ((1, 12.706), (2, 4.303), (3, 3.182), (5, 2.571), (29, 2.045), (1000, 1.962)):
        assert experiments.t_quantile(dof) == pytest.approx(wanted, abs=6e-4)


def verdict(*cases):
    """Of quantities given by interval and bounds."""
    return experiments.judge({i: dict(interval_95=interval, **bounds)
                              for i, (interval, bounds) in enumerate(cases)} | {"a text": "above"})


def test_verdict():
    above, unknown = dict(above=1), (None, None)
    assert verdict(((1.1, 2), above), ((1.2, 9), above)) == "reproduced"
    assert verdict(((1.1, 2), above), ((0.9, 9), above)) == "inconclusive"
    assert verdict(((1.1, 2), above), (unknown, above)) == "inconclusive"
    assert verdict(((1.1, 2), above), ((0.3, 0.9), above)) == "not reproduced"
    assert verdict(((1.1, 2), above), ((0.3, 0.9), dict(above=0.2))) == "reproduced"
    assert verdict(((1.1, 2), above), ((0.3, 0.9), {})) == "reproduced"


def test_bounds_from_above():
    both = dict(above=-0.1, below=0.1)
    assert verdict(((-0.05, 0.05), both)) == "reproduced"
    assert verdict(((-0.05, 0.2), both)) == verdict(((-0.2, 0.05), both)) == "inconclusive"
    assert verdict(((0.2, 0.3), both)) == verdict(((-0.3, -0.2), both)) == "not reproduced"


def test_quantity():
    found = experiments.geometric([1.0, 4.0, 16.0], above=2)
    half = 4.303 * np.log(4) / 3**0.5
    assert found["mean"] == pytest.approx(4) and found["above"] == 2 and "below" not in found
    assert found["interval_95"] == pytest.approx([4 * np.exp(-half), 4 * np.exp(half)], rel=1e-3)
    plain = experiments.quantity([1.0, 2.0, 3.0], below=9)
    assert plain["mean"] == 2 and plain["below"] == 9 and plain["per_seed"] == [1, 2, 3]
    assert plain["interval_95"] == pytest.approx([2 - 4.303 / 3**0.5, 2 + 4.303 / 3**0.5], abs=1e-3)
    alone = experiments.quantity([5.0])
    assert alone["mean"] == 5 and alone["interval_95"] == [None, None]
    with np.errstate(all="ignore"):
        assert experiments.quantity([1.0, np.nan])["per_seed"] == [1.0, None]
        for values in ([0.0, 1.0], [1.0, np.inf]):
            found = experiments.geometric(values)
            assert found["mean"] is None and found["interval_95"] == [None, None]


def test_final_losses():
    """Two optimizers, three seeds, 20 steps, of which the last two count."""
    loss = np.full((2, 3, 20), 100.0)
    loss[0, :, 18:] = np.array([6.0, 6.1, 6.2])[:, None]
    loss[1, :, 18:] = 2.0
    loss[1, 2, 18:] = 0.0, 4.0
    diverged = np.array([[-1, 7, -1], [-1, -1, -1]])
    found = experiments.final_losses("X", loss, diverged, ("SGD", "Adam"), above=1)
    assert found["X: final loss SGD"]["per_seed"] == [6.0, 6.1, 6.2]
    assert found["X: mean over median, Adam"] == "1" and found["X: diverged"] == "SGD, seed 1, at step 7"
    ratio = found["X: final loss SGD / Adam"]
    assert ratio["per_seed"] == pytest.approx([3.0, 3.05, 3.1]) and ratio["above"] == 1
    assert experiments.judge(found) == "reproduced"
    other = experiments.final_losses("X", loss[::-1], diverged, ("SGD", "Adam"), above=1)
    assert experiments.judge(other) == "not reproduced"


@pytest.mark.parametrize("name, others, verdict", (
    ("adam_vs_sgd", ["SGD", "Adam", "SignDescent"], "not judged: the claim is about SGD and Adam"),
    ("full_batch", ["SGD", "Adam"], "not judged: the claim is about SGD and Adam and SignDescent"),
    ("gradient_noise", ["Adam", "SGD"], "inconclusive"),  # uses no optimizer
))
def test_a_claim_is_judged_for_its_optimizers(name, others, verdict, tmp_path, monkeypatch):
    monkeypatch.setattr(experiments, "in_parallel", here)
    budget = Budget(seeds=1, steps=2, optimizers=others, out=str(tmp_path))
    assert experiments.EXPERIMENTS[name](budget)[1]["verdict"] == verdict


@pytest.mark.parametrize("name", ("adam_vs_sgd", "label_noise", "directional_smoothness"))
def test_runs_that_all_diverge_leave_empty_panels(name, tmp_path, capsys, monkeypatch, recwarn):
    monkeypatch.setattr(experiments, "in_parallel", here)
    assert experiments.main([name, "--seeds", "1", "--steps", "60", "--lr", "1e9", "--out", str(tmp_path)]) == 0
    output, errors = capsys.readouterr()
    assert "verdict: reproduced" not in output and "unknown" in output and errors == ""
    assert not [each for each in recwarn if issubclass(each.category, RuntimeWarning)]


def test_steps_to():
    """The first of ten losses in a row below the target, counted from 1; the last step if none."""
    losses = np.ones((2, 30))
    losses[0, 5] = losses[0, 12:] = 0
    losses[1, 21:] = 0
    assert list(experiments.steps_to(losses, 0.5)) == [13, 30]


def test_best_rates():
    """The lowest mean log loss among the rates at which nothing diverged."""
    loss = np.array([[3, 3], [1, 4], [3, 3.1], [0.1, np.nan]])[:, None, :, None]
    rates, budget = np.array([[1.0, 2.0, 5.0, 10.0]]), Budget(optimizers=("SGD",), lr=dict(SGD=1.0))
    found = experiments.best_rates(SETTING_1, budget, rates, loss, below=2)
    assert found.pop("Setting 1, SGD: best rate") == (
        "2, in use 1; within a factor 2 of the best: 1 to 5; 1 of 8 runs diverged")
    (kept,) = found.values()
    assert kept["per_seed"] == [3, 0.75] and kept["below"] == 2
    (only,) = experiments.best_rates(SETTING_1, budget, rates, np.nan * loss, below=2).values()
    assert only == "none, 8 of 8 runs diverged"


# ---- The measures --------------------------------------------------------------------------------


def test_moments():
    """Standardised: a fair coin has skewness 0 and kurtosis 1; one in four has 2/sqrt(3) and 7/3."""
    coin, quarter = np.array([-1.0, 1.0, 1.0, -1.0]), np.array([0.0, 0.0, 0.0, 5.0])
    np.testing.assert_allclose(experiments.moment(np.array([coin, quarter]), 3), [0, 2 / 3**0.5])
    np.testing.assert_allclose(experiments.moment(np.array([coin, quarter]), 4), [1, 7 / 3])


def test_noise_is_the_gradient_minus_that_of_a_hundred_batches():
    found = experiments.noise(SETTING_1._replace(data=dict(n=4, d=2)), 3, 5)
    init, stream = map(experiments.generator, np.random.SeedSequence(3).spawn(2))
    params = experiments.linattn.init_params(init, d=2)
    grads = [experiments.linattn.textbook_loss_and_grad(params, data.sample_prompts(stream, 1000, 4, 2))[1]
             for _ in range(105)]
    wanted = [np.linalg.norm(grad - np.mean(grads[:100], axis=0)) for grad in grads[100:]]
    np.testing.assert_allclose(found["norms"], wanted, rtol=1e-9)
    assert np.isfinite(found["kurtosis"])  # the last P block, which has no gradient, is left out


def test_robust_condition_number():
    """Largest over median absolute entry; batches are pooled by averaging their diagonals."""
    assert experiments.r_med(np.array([-8.0, 1.0, 2.0])) == 4
    diagonals = np.array([[1.0, 0.0], [3.0, 0.0], [5.0, 2.0], [7.0, 4.0], [100.0, 0.0]])
    np.testing.assert_array_equal(experiments.grouped(diagonals, 2), [[2, 0], [6, 3]])
    np.testing.assert_array_equal(experiments.grouped(diagonals, 1), diagonals)


def test_evaluate():
    """The same batches for every run, all measures there, NaN where a run had diverged."""
    theta = experiments.linattn.init_params(np.random.default_rng(0), 2, 2, std=0.5)
    v = np.random.default_rng(1).standard_normal(theta.shape)
    arguments = dict(n=4, d=2)
    path = np.array([(theta, theta + 1e-3 * v), (theta, np.nan * theta), (theta, theta)])

    def found(function):
        values = experiments.evaluate(function, arguments, path, 2)["values"]
        assert values.shape[:2] == (3, 2) and np.isnan(values[1]).all()
        assert not np.array_equal(values[0, 0], values[0, 1])
        assert np.array_equal(values[2], values[0], equal_nan=True) or function is experiments.smoothness
        return values[0]

    for k in range(2):
        prompts = experiments.evaluation_batch(arguments, k)
        loss, grad = experiments.linattn.textbook_loss_and_grad(theta, prompts)
        H = experiments.linattn.hessian(theta, prompts)
        blocks = [H[4 * b : 4 * b + 4, 4 * b : 4 * b + 4] for b in range(4)]
        close = dict(rtol=1e-9, atol=1e-9)
        for function, wanted in (
                (experiments.loss_at, loss), (experiments.gradient_norm, np.sqrt((grad**2).sum())),
                (experiments.smoothness, v.ravel() @ H @ v.ravel() / np.sum(v**2)),
                (experiments.spectral_norm, np.linalg.norm(H, 2)), (experiments.diagonal, np.diag(H)),
                (experiments.condition, experiments.r_med(np.diag(H))),
                (experiments.block_spectra, [np.sort(abs(np.linalg.eigvals(B))) for B in blocks])):
            np.testing.assert_allclose(found(function)[k], wanted, **close)
    assert np.isnan(experiments.smoothness(theta, theta, None))


def test_along(tmp_path, monkeypatch):
    """Arrays in the order (settings, optimizers, seeds, points, batches); a list for two depths."""
    monkeypatch.setattr(experiments, "in_parallel", here)
    budget = Budget(seeds=3, steps=4, out=str(tmp_path))
    settings = [SETTING_1._replace(data=dict(n=4, d=d)) for d in (1, 2)]
    trained = experiments.train_all(settings, budget, every=1)
    found = experiments.along(experiments.loss_at, settings, trained, budget, [0, 3], 2)
    assert found.shape == (2, 2, 3, 2, 2)
    theta = trained["snapshots"][1][0, 2, 3, 0]
    assert found[1, 0, 2, 1, 1] == experiments.loss_at(
        theta, None, experiments.evaluation_batch(settings[1].data, 1))
    wide = experiments.along(experiments.diagonal, settings, trained, budget, [0])
    assert [each.shape for each in wide] == [(2, 3, 1, 1, 6), (2, 3, 1, 1, 24)]
    iterations, path = experiments.along_path(experiments.loss_at, settings, trained, budget, 2, 3, 9)
    assert list(iterations) == [0, 150] and path.shape == (2, 2, 3, 2, 3)
    assert np.array_equal(path[..., :2], found)


def test_one_layer():
    """The best step size and its loss: the paper's closed form for Gaussian x, and by sampling."""
    n, d = 7, 3
    c, loss = experiments.one_layer(d, d * (d + 2), n, d)
    assert c == pytest.approx(n / (n + d + 1)) and loss == pytest.approx(d * (d + 1) / (n + d + 1))
    prompts = data.sample_prompts(np.random.default_rng(0), 200_000, n, d, "sphere")
    c, loss = experiments.one_layer(1, 1, n, d)
    losses = {scale: experiments.linattn.loss_and_grad(np.stack([np.zeros((d, d)), -scale * c * np.eye(d)])[None],
                                                       prompts)[0] for scale in (0.9, 1, 1.1)}
    assert losses[1] == pytest.approx(loss, rel=0.01) and losses[1] < min(losses[0.9], losses[1.1])


def test_moments_of_the_covariate_families():
    """E|x|^2 and E|x|^4, by sampling (the fourth moment of the t with df = 5 has no variance)."""
    for family, (m, m4) in experiments.MOMENTS.items():
        x = data.sample_prompts(np.random.default_rng(0), 50_000, 20, 5, family).Z[:, :-1]
        r = (x**2).sum(axis=1)
        assert r.mean() == pytest.approx(m, rel=0.02)
        assert (r**2).mean() == pytest.approx(m4, rel=0.3 if family == "student" else 0.03)


def test_descent():
    """One layer: the closed form's c; more freedom never ends higher."""
    arguments = dict(n=10, d=2)
    found = experiments.descent(arguments, 1, 1)
    assert -found["multiples"][0, 1] == pytest.approx(10 / 13, rel=0.03) and found["multiples"][0, 0] == 0
    one, many, both = (experiments.descent(arguments, 2, kind) for kind in range(3))
    assert one["multiples"][0, 1] == one["multiples"][1, 1] and one["multiples"][0, 0] == 0
    assert many["multiples"][0, 1] != many["multiples"][1, 1]
    assert one["loss"] > many["loss"] > both["loss"] > 0


def test_off_identity():
    matrices = np.array([2 * np.eye(2), [[1.0, 0.0], [0.0, -1.0]], [[1.0, 1.0], [-1.0, 1.0]]])
    np.testing.assert_allclose(experiments.off_identity(matrices), [0, 1, 0.5**0.5])


def test_spectrum_distance():
    """A decade between two blocks is 1; the block before the last, the last P, does not count."""
    spectra = np.array([[1.0, 10.0], [10.0, 100.0], [1e-300, 1e-300], [1.0, 10.0]])
    assert experiments.spectrum_distance(spectra) == pytest.approx((1 + 0 + 1) / 3)


def test_rank_correlation():
    assert experiments.rank_correlation([1, 2, 5], [1, 10, 11]) == pytest.approx(1)
    assert experiments.rank_correlation([1, 2, 5], [3, 0, -1]) == pytest.approx(-1)


def test_ridge_losses():
    """Against least squares on the stacked system; without noise nothing is left."""
    arguments = dict(n=6, d=2, noise=0.5)
    prompts = experiments.evaluation_batch(arguments, 1)
    errors = []
    for Z, target in zip(prompts.Z, prompts.target):
        X, y = np.vstack([Z[:2, :-1].T, 0.7 * np.eye(2)]), np.append(Z[2, :-1], [0, 0])
        errors.append((np.linalg.lstsq(X, y, rcond=None)[0] @ Z[:2, -1] - target) ** 2)
    assert experiments.ridge_losses(arguments, 0.49, 2)[1] == pytest.approx(np.mean(errors))
    assert experiments.ridge_losses(dict(n=6, d=2), 0.0, 2).max() < 1e-15


def test_layer_gradients():
    setting = SETTING_1._replace(layers=2, std=0.3)
    theta = experiments.initial(setting, experiments.streams(1)[0])
    grad = experiments.linattn.textbook_loss_and_grad(theta, experiments.evaluation_batch(setting.data, 1))[1]
    norms = experiments.layer_gradients(setting, 1)["first_last"]
    np.testing.assert_allclose(norms, [np.sqrt((grad[l] ** 2).sum()) for l in (0, 1)])


def test_curvature_with_an_mlp():
    """R_med and v^T H v from second differences of the loss."""
    rng, arguments = np.random.default_rng(0), dict(n=3, d=1, hidden=2)
    theta = experiments.linattn.init_mlp_params(rng, 3, 1, hidden=2, std=0.5)
    v = rng.standard_normal(theta.size)
    prompts = experiments.evaluation_batch(arguments, 0)

    def second(direction, h=1e-4):
        f = [experiments.linattn.mlp_loss_and_grad(theta + k * h * direction, prompts)[0] for k in (-1, 0, 1)]
        return (f[0] - 2 * f[1] + f[2]) / h**2

    path = np.array([(theta, theta + v)])
    condition, smooth = (experiments.evaluate(function, arguments, path, 1)["values"]
                         for function in (experiments.condition, experiments.smoothness))
    diagonal = np.array([second(unit) for unit in np.eye(theta.size)])
    assert condition == pytest.approx(experiments.r_med(diagonal), rel=0.02)
    assert smooth == pytest.approx(second(v) / (v @ v), rel=0.02)


@pytest.mark.slow
def test_all_experiments_run(tmp_path, monkeypatch, capsys):
    """In one folder, so that they share their trainings; a second call computes nothing."""
    arguments = ["--seeds", "1", "--steps", "4", "--out", str(tmp_path)]
    monkeypatch.setattr(experiments, "in_parallel", here)
    monkeypatch.setattr(experiments, "cost_seconds", one_cost)
    monkeypatch.setattr(experiments, "descent", descended)
    small = lambda arguments, k: data.sample_prompts(experiments.generator(k), 50, **arguments)
    draw = experiments.draw_prompts
    monkeypatch.setattr(experiments, "evaluation_batch", small)
    monkeypatch.setattr(experiments, "draw_prompts", lambda stream, setting: draw(
        stream, setting._replace(batch=50)))
    monkeypatch.setattr(experiments, "DEEP", tuple(each._replace(layers=2) for each in data.DEEP))
    monkeypatch.setattr(experiments, "NONLINEAR_TASK", data.NONLINEAR_TASK._replace(
        data=dict(n=3, d=1, hidden=2), batch=50))
    monkeypatch.setattr(experiments, "LARGE", SETTING_1._replace(lr=dict(SGD=0.05, Adam=0.005)))
    assert experiments.main(["all", *arguments]) == 0
    for name in experiments.EXPERIMENTS:
        found = json.loads((tmp_path / f"{name}.json").read_text())
        assert found["verdict"] in ("reproduced", "not reproduced", "inconclusive", "measured, nothing claimed")
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000 and found["lines"]
    before = (tmp_path / "depth.png").read_bytes()
    rows = (tmp_path / "screen.csv").read_text().splitlines()
    assert len(rows) == 1 + 9 and rows[0].startswith("setting,optimizer,best_rate,final_loss")
    monkeypatch.setattr(experiments, "in_parallel", lambda jobs, *_: refuse() if jobs else [])
    assert experiments.main(["depth", *arguments]) == 0
    assert (tmp_path / "depth.png").read_bytes() == before
    capsys.readouterr()
    assert experiments.main(["report", "--out", str(tmp_path)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2 + len(experiments.EXPERIMENTS)
    monkeypatch.setattr(experiments, "in_parallel", here)
    monkeypatch.setattr(experiments, "RATES", experiments.RATES[3:5])
    for name, words in (("learning_rates", "L = 8, Adam: best rate"), ("condition_number", "full matrices")):
        assert experiments.main([name, *arguments[:2], "--steps", "2000", *arguments[4:]]) == 0
        assert words in capsys.readouterr().out  # what only long runs ask for


def here(jobs, keep, budget):
    """in_parallel, in this process."""
    for function, arguments, label in jobs:
        keep(label, function(*arguments))
    return []


def descended(arguments, layers, kind):
    return dict(multiples=np.zeros((layers, 2)), loss=0.5)


def one_cost(seed):
    return np.outer([3.0, 2.0, 1.0], experiments.COST_N), np.ones(len(experiments.COST_OTHERS))


@pytest.mark.parametrize("text", ("", "{", "[]", '{"measured": 3}', '{"measured": {"x": 1}}'))
def test_report_names_what_is_no_finding(text, tmp_path, capsys):
    (tmp_path / "depth.json").write_text(text)
    assert experiments.main(["report", "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"experiments.py: out: got {tmp_path / 'depth.json'}, wants")
    assert experiments.main(["report", "--out", str(tmp_path / "none")]) == 2


def test_slides(tmp_path, monkeypatch):
    """A file for each panel, in larger type, and the same figure beside them."""
    figure, axes = experiments.panels(["one", "two"], ["upper", "lower"], "caption")
    for ax in axes.flat:
        ax.plot([1, 2], label="line")
    panels = list(experiments.single_panels(figure))
    assert len(panels) == 4
    for panel, (row, column) in zip(panels, np.ndindex(2, 2)):
        (ax,) = panel.axes
        assert ax.get_title() == ("one", "two")[column] and ax.title.get_visible()
        assert ax.get_ylabel() == ("upper", "lower")[row] and ax.yaxis.label.get_visible()
        assert ax.yaxis.label.get_fontsize() > axes[row, column].yaxis.label.get_fontsize()
        panel.draw_without_rendering()
        assert ax.get_position().width > 0.8


# ---- The command line ----------------------------------------------------------------------------


def test_no_name_lists_the_experiments(capsys):
    assert experiments.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(experiments.EXPERIMENTS)
    assert all(": " in line for line in lines)


def test_a_users_call(tmp_path):
    done = command(*TINY, "--out", tmp_path / "a folder")
    assert done.returncode == 0 and done.stderr == "" and done.stdout.isascii()
    assert done.stdout.startswith("C1: Adam beats SGD") and "  verdict: " in done.stdout
    found = json.loads((tmp_path / "a folder" / "adam_vs_sgd.json").read_text())
    assert f"verdict: {found['verdict']}" in done.stdout
    assert all(line in done.stdout for line in found["lines"])
    assert found["configuration"]["seeds"] == 2 and found["configuration"]["steps"] == 5
    assert found["configuration"]["settings"][1]["lr"] == dict(SGD=0.01, Adam=0.005, SignDescent=0.005)
    assert found["versions"]["numpy"] == np.__version__
    with np.load(tmp_path / "a folder" / "adam_vs_sgd.npz", allow_pickle=False) as arrays:
        assert arrays["loss"].shape == arrays["grad_norm"].shape == (3, 2, 2, 5)


@pytest.mark.parametrize("arguments, word", [
    (["adam_vs_sdg"], "experiment"),
    (["adam_vs_sgd", "--seeds", "0"], "seeds"),
    (["adam_vs_sgd", "--seeds", "two"], "seeds"),
    (["adam_vs_sgd", "--steps", "-5"], "steps"),
    (["adam_vs_sgd", "--jobs", "0"], "jobs"),
    (["adam_vs_sgd", "--lr", "0"], "lr"),
    (["adam_vs_sgd", "--lr", "nan"], "lr"),
    (["adam_vs_sgd", "--lr", "fast"], "lr"),
    (["adam_vs_sgd", "--lr", "Lion=0.1"], "lr"),
    (["adam_vs_sgd", "--optimizers", "SGD", "Sofia"], "Sofia"),
    (["adam_vs_sgd", "--optimizers", "SGD", "SGD"], "optimizers"),
    (["adam_vs_sgd", "--full", "--quick"], "quick"),
    (["adam_vs_sgd", "--fast"], "fast"),
    (["adam_vs_sgd", "--out", "README.md/x"], "out"),
    (["adam_vs_sgd", "--out", "README.md"], "out"),
    (["adam_vs_sgd", "--out", ""], "out"),
    (["adam_vs_sgd", "--lr", "=0.1"], "lr"),
])
def test_mistakes_cost_one_line_and_status_2(arguments, word, capsys, monkeypatch):
    monkeypatch.chdir(PROJECT)
    monkeypatch.setattr(experiments, "in_parallel", refuse)
    with pytest.raises(SystemExit) as stop:
        experiments.main(arguments)
    output, errors = capsys.readouterr()
    assert stop.value.code == 2 and output == ""
    assert errors.count("\n") == 1 and word in errors


@pytest.mark.parametrize("argument, value", [
    ("seeds", 0), ("seeds", "2"), ("seeds", 2.0), ("seeds", True), ("steps", None), ("jobs", -1),
    ("optimizers", "SGD"), ("optimizers", None), ("optimizers", ("SGD",)), ("optimizers", ("SGD", "SGD")),
    ("lr", 0.1), ("lr", None), ("lr", {"SGD": "x"}), ("lr", {"sgd": 1.0}), ("lr", {"SGD": -1.0}),
    ("executor", 2), ("out", None), ("out", 3), ("out", ""), ("out", "README.md"),
])
def test_mistakes_in_a_library_call_are_named(argument, value, monkeypatch):
    monkeypatch.chdir(PROJECT)
    monkeypatch.setattr(experiments, "in_parallel", refuse)
    for experiment in (experiments.adam_vs_sgd, experiments.attention_cost):
        with pytest.raises(ValueError, match=f"^{argument}: got .*, wants"):
            experiment(Budget()._replace(**{argument: value}))


def test_an_unknown_optimizer_is_named(tmp_path):
    with pytest.raises(ValueError, match="^optimizer: got 'Sofia', wants one of SGD"):
        experiments.adam_vs_sgd(Budget(optimizers=["SGD", "Sofia"], out=str(tmp_path)))


CALL = "import experiments\n{}figure, found = experiments.adam_vs_sgd(experiments.Budget(seeds=1, steps=2))\n"


def test_from_a_script(copy):
    """With the guard that worker processes need it works; without, one sentence says so."""
    for name, guard in (("good", "if __name__ == '__main__':\n    "), ("bad", "")):
        (copy / f"{name}.py").write_text(CALL.format(guard))
        done = subprocess.run([sys.executable, f"{name}.py"], cwd=copy, capture_output=True, text=True)
        if guard:
            assert done.returncode == 0 and done.stderr == ""
        shutil.rmtree(copy / "results")
    assert done.returncode == 1 and experiments.GUARD in done.stderr


def test_a_reader_who_leaves_early(tmp_path):
    """`python experiments.py ... | head -0`"""
    done = subprocess.run(f'"{sys.executable}" experiments.py {" ".join(TINY)} --out "{tmp_path}" | true',
                          shell=True, cwd=PROJECT, capture_output=True, text=True, timeout=120)
    assert done.stderr == "" and (tmp_path / "adam_vs_sgd.json").exists()


def test_attention_cost_judges_slopes(monkeypatch, tmp_path):
    """Times made up: n^2, n^2 and constant, then the Gram form growing, too."""
    n = np.array(experiments.COST_N, float)
    for gram, verdict in ((n**0, "reproduced"), (n, "not reproduced"), (1 / n, "not reproduced")):
        times = np.array([n**2, n**2, gram]) * np.array([1.0, 1.01, 0.99])[:, None, None]

        def pretend(jobs, keep, budget):
            for _, (seed,), label in jobs:
                keep(label, (times[seed], np.ones(len(experiments.COST_OTHERS))))
            return []

        monkeypatch.setattr(experiments, "in_parallel", pretend)
        figure, found = experiments.attention_cost(Budget(seeds=3, out=str(tmp_path)))
        assert found["verdict"] == verdict
        assert found["measured"]["softmax: slope"]["mean"] == pytest.approx(2)


# ---- The READMEs ---------------------------------------------------------------------------------

READMES = {name: (PROJECT / name).read_text(encoding="utf-8") for name in ("README.md", "README.ja.md")}


@pytest.mark.parametrize("readme", READMES.values(), ids=READMES)
@pytest.mark.parametrize("name", sorted(path.stem for path in (PROJECT / "figures").glob("*.json")))
def test_readme_shows_what_the_kept_finding_says(name, readme):
    found = json.loads((PROJECT / "figures" / f"{name}.json").read_text())
    assert f"figures/{name}.png" in readme
    if name in ("adam_vs_sgd", "attention_cost"):
        lines = [f"{found['claim']}: {found['claimed']}", *found["lines"], f"verdict: {found['verdict']}"]
        assert "\n  ".join(lines) in readme
    else:
        assert f"### `python experiments.py {name}`" in readme
        assert f"({found['claim']}: {found['verdict']})" in readme


def test_readmes_have_the_report(capsys):
    assert experiments.main(["report", "--out", str(PROJECT / "figures")]) == 0
    report = capsys.readouterr().out
    assert all(report in readme for readme in READMES.values())
    assert "no finding" not in report


def test_readmes_agree():
    """The same code, commands and figures, in the same order."""
    for pattern in (r"```.*?```", r"`python experiments[^`]*`", r"\]\((figures/[^)]*)\)"):
        first, second = (re.findall(pattern, readme, re.DOTALL) for readme in READMES.values())
        assert first == second or pattern.startswith("`python") and set(second) <= set(first)


def test_readmes_python_runs(copy):
    blocks = re.findall(r"```python\n(.*?)```", READMES["README.md"], re.DOTALL)
    assert blocks
    for block in blocks:
        (copy / "block.py").write_text(block.replace("steps=100", "steps=2"))
        done = subprocess.run([sys.executable, "block.py"], cwd=copy, capture_output=True, text=True)
        assert done.returncode == 0 and done.stderr == "", done.stderr


def test_three_lines_at_a_prompt(copy):
    """As in a notebook: a figure and a finding, and matplotlib's settings as before."""
    lines = """import experiments, matplotlib, sys; before = matplotlib.rcParams.copy()
fig, finding = experiments.adam_vs_sgd(experiments.Budget(seeds=1, steps=2))
assert fig.axes and finding["verdict"] and matplotlib.rcParams.copy() == before
assert "matplotlib.pyplot" not in sys.modules"""
    done = subprocess.run([sys.executable, "-c", lines], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "", done.stderr
