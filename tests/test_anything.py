"""Random arguments: every public function and the command line give a result, or a ValueError that
names the argument (one line and status 2 at the command line). Nothing infinite without a warning."""

import inspect
import re
import warnings

import numpy as np
import pytest

import data
import experiments
import linattn
import optimizers

PARAMS, MLP = 0.1 * np.ones((2, 2, 2, 2)), 0.1 * np.ones(10 + 2 + 36)  # d = 2, hidden 2, two layers
PROMPTS = data.sample_prompts(np.random.default_rng(0), 3, 4, 2)
GRAM = linattn.compress(PROMPTS)
ODD = (None, True, 0, 1, 2, -1, 0.5, -0.0, np.nan, np.inf, 1e300, 10**12, 10**400, np.int8(100), "x", "", "linear", b"x", [], [1.0],
       [[1], [2, 3]], {}, object(), int, np.float32(2), np.zeros(3), np.ones((2, 3, 4)), np.ones((0, 2, 2, 2)),
       1j * PARAMS, np.array("x"), np.array([None]), np.full_like(PARAMS, 1e200), np.nan * PARAMS,
       PARAMS.astype(int), PARAMS.tolist(), PROMPTS, GRAM, PROMPTS._replace(target=np.zeros(2)),
       PROMPTS._replace(Z=np.nan * PROMPTS.Z), GRAM._replace(q=np.zeros(3)), np.eye(2), -np.eye(2))
USUAL = dict(
    rng=np.random.default_rng(1), layers=2, d=2, std=0.1, full=True, params=PARAMS, prompts=PROMPTS, Z=PROMPTS.Z,
    activation="softmax", hidden=2, v=PARAMS, batch=2, n=3, covariates="gamma",
    shape=0.5, scale=2.0, df=3.0, second_moment=1.0, noise=0.1, covariance=np.eye(2), lr=0.1, momentum=0.9,
    weight_decay=0.1, beta1=0.9, beta2=0.9, eps=1e-8, grad=PARAMS, limit=1.0, granularity="block")
FUNCTIONS = [
    *(each for name, each in vars(linattn).items()
      if inspect.isfunction(each) and each.__module__ == "linattn" and not name.startswith("_")),
    data.sample_prompts, optimizers.SGD, optimizers.SignDescent, optimizers.NormalizedSGD, optimizers.Muon,
    optimizers.Adam, optimizers.clip_global_norm, optimizers.clip_coordinates]
NAMES = {*USUAL, "target", "Gram", "G", "q"}


def sgd_step(params, grad):
    return optimizers.SGD(0.1).step(params, grad)


def adam_step(params, grad):
    return optimizers.Adam(0.1).step(params, grad)


def muon_step(params, grad):
    return optimizers.Muon(0.1).step(params, grad)


def is_finite(result):
    parts = result if isinstance(result, tuple) else (result,)
    return all(np.isfinite(part).all() for part in parts if isinstance(part, (float, complex, np.ndarray)))


@pytest.mark.parametrize("function", (*FUNCTIONS, sgd_step, adam_step, muon_step), ids=lambda function: function.__qualname__)
def test_any_arguments(function):
    rng = np.random.default_rng(0)
    names = [name for name in inspect.signature(function).parameters if name != "gradient"]
    usual = USUAL | (dict(params=MLP) if "mlp" in function.__name__ else {})
    function(**{name: usual[name] for name in names})  # or else nothing odd would be seen
    for _ in range(300):
        odd = rng.random(len(names)) < 1.5 / len(names)
        values = {name: ODD[rng.integers(len(ODD))] if is_odd else usual[name]
                  for name, is_odd in zip(names, odd)}
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            try:
                result = function(**values)
            except ValueError as error:
                name = re.match(r"(\w+): got .*, wants ", str(error), re.DOTALL)
                assert name and name[1] in NAMES, (values, error)
            else:
                assert is_finite(result) or warned, values


def test_any_command(monkeypatch, tmp_path, capsys):
    """No more than two mistakes a line, for otherwise the first hides the others."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    words = ("", "x", "0", "-1", "2", "1e3", "nan", "inf", "SGD", "Adam", "SGD=1", "SGD=", "=1", "Lion=x", "--", "-",
             "--seeds", "--steps", "--lr", "--optimizers", "--jobs", "--out", "--full", "--quick", "--slides", "--redraw",
             "-h", "all", "report", "depth", "a/b", "\0", "漢字", "9" * 5000)
    for _ in range(2000):
        arguments = [words[i] for i in rng.integers(len(words), size=rng.integers(1, 6))]
        try:
            _, runs = experiments.parse(["depth", *arguments] if rng.random() < 0.5 else arguments)
        except SystemExit as stop:
            output, errors = capsys.readouterr()
            assert stop.code == (0 if output else 2), arguments
            assert output or errors.startswith("experiments.py: "), arguments
            assert errors.count("\n") <= 1 or "experiment: got " in errors, arguments
        else:
            assert all(run.seeds >= 1 and len(run.optimizers) > 1 for run in runs.values())
