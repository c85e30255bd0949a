"""A made-up world, whose answers are known: what a Run trains and measures, without a training."""

import re
import warnings
from types import SimpleNamespace
from typing import NamedTuple

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

import data
import experiments
import linattn
import plotting
import training
from experiments import EXPERIMENTS, PAPER_SETTINGS, Part, decisions, running_median, verdicts
from optimizers import SGD, Adam, SignDescent
from training import Run

SPREAD = np.array([1.0, 1.02, 1.05, 1.01, 1.03, 1.04])  # over seeds: so small that five decide
ALL_THREE = SGD, Adam, SignDescent
NAMES = "Setting 1", "Setting 2", "Setting 3"


# ---- A made-up world -----------------------------------------------------------------------------


class Case(NamedTuple):
    """One training that an experiment asked for."""

    name: str  # of its setting, as the experiment calls it
    setting: data.Setting
    optimizer: str
    lr: float
    seed: int
    steps: int
    every: int  # steps from snapshot to snapshot
    arguments: dict  # of the optimizer

    @property
    def number(self):
        """The seed's place among the run's: 0, 1, ..."""
        return self.seed % 100  # the seeds begin at 0, 1000, or 1100


@pytest.fixture
def world(monkeypatch):
    """What there is, unless the test says otherwise: a function for each thing that is trained or
    measured. `asked` collects the trainings, `tasks` the other calls."""
    world = SimpleNamespace(
        asked=[], tasks=[],
        loss=lambda case: curve(case.steps, 1.0 + case.number),  # (steps,)
        grad_norm=lambda case: np.linspace(3, 1, case.steps),
        snapshots=lambda case, points: np.ones((points, 1)),  # (points, whatever)
        condition=lambda case, point, batch: 10.0 + point + batch,
        smoothness=lambda case, point, batch: 5.0 - point + batch,
        gradient_norm=lambda case, point, batch: 1.0 + point,
        spectral_norm=lambda case, point, batch: 2.0 + point,
        diagonal=lambda case, point, batch: np.array([-3.0 - point, 1.0, 0.5]),
        loss_at=lambda case, point, batch: 1.0 + case.number + batch,
        squared_errors=lambda case, point, batch: np.linspace(0, 1, 1000) * (1.0 + case.number),
        clipped_smoothness=lambda case, point, batch: np.full((2, 4), 2.0),
        block_spectra=lambda case, point, batch: np.ones((2 * case.setting.layers, 25)),
        sharpness=lambda case, point, batch: 3.0 + point + batch,
        evaluate=lambda measure, setting, path, batches: dict(values=np.ones(
            (len(path), batches, *([2 * setting.layers, 25] if measure is training.block_spectra
                                   else [])))),
        noise=lambda setting, seed, draws: noises(draws, 1 + seed % experiments.FRESH),
        layer_gradients=lambda setting, seed: dict(first_last=np.array([1.0, 2.0])),
        descent=lambda setting, kind: dict(loss=0.5),
        cost_seconds=lambda seed: dict(forms=np.outer((3, 2, 1, 1), training.COST_N),
                                       others=np.ones(5)))

    def trained(run, name, setting, optimizer, lr, every, arguments):
        cases = [Case(name, setting, optimizer, lr, seed, run.steps, every, arguments)
                 for seed in run.numbers]
        world.asked.extend(cases)
        points = -(-run.steps // every)
        return dict(cases=np.fromiter(cases, object),
                    loss=np.array([world.loss(case) for case in cases]),
                    grad_norm=np.array([world.grad_norm(case) for case in cases]),
                    snapshots=np.array([world.snapshots(case, points) for case in cases]))

    def train(run, settings, every=50, **arguments):
        return {name: {each: trained(run, name, setting, each, run.rate(setting, each), every,
                                     arguments) for each in run.names}
                for name, setting in settings.items()}

    def tune(run, settings, grid, every=50, **arguments):
        return {name: {each: training.Tried(np.array(grid(setting, each), float), [
            trained(run, name, setting, each, float(lr), every, arguments)
            for lr in grid(setting, each)]) for each in run.names}
            for name, setting in settings.items()}

    def along(run, measure, setting, runs, at, batches=1):
        points = np.arange(runs[run.names[0]]["snapshots"].shape[1])[at]
        world.tasks.append((measure.__name__, len(points), batches))
        number, found = getattr(world, measure.__name__), {}
        for each in run.names:
            cases = runs[each]["cases"]
            assert len(cases) == run.seeds
            assert all((case.setting.data, case.setting.layers) == (setting.data, setting.layers)
                       and case.optimizer == each for case in cases)
            found[each] = np.array([[[number(case, point, batch) for batch in range(batches)]
                                     for point in points] for case in cases])
        return found

    def everything(run, function, tasks, keep=True):
        world.tasks.extend((function.__name__, *task, keep) for task in tasks)
        return [getattr(world, function.__name__)(*task) for task in tasks]

    for name, stand_in in dict(train=train, tune=tune, along=along, all=everything).items():
        monkeypatch.setattr(Run, name, stand_in)
    return world


def curve(steps, end, half=None):
    """A loss (steps,) that falls from 100 below its half at step number `half` (and in one step
    before, which must not count), and ends at `end`: the median of the last tenth of the steps, of
    which the mean is another."""
    last = max(1, steps // 10)
    loss = np.full(steps, 100.0)
    loss[4:5] = 45.0
    loss[(half or steps - last + 1) - 1 :] = 45.0
    beside = (last - 1) // 2
    loss[-last:] = end * np.repeat([0.5, 1.0, 4.0], [beside, last - 2 * beside, beside])
    return loss


def noises(draws, outliers, scale=1.0, null=1.0):
    """What training.noise returns: norms (draws,), so many of them ten times the others; and
    twenty Gaussian samples without outliers, all norms alike but for a tenth that is `null` times
    as large."""
    expected = np.where(np.arange(draws) < draws / 10, null, 1.0)
    return dict(norms=scale * np.where(np.arange(draws) < outliers, 10.0, 1.0),
                null=scale * np.tile(expected, (20, 1)))


def two_valued(order, p):
    """Skewness (3) or kurtosis (4) of a number that is larger with probability p."""
    q = 1 - p
    return (q - p) / np.sqrt(p * q) if order == 3 else (1 - 3 * p * q) / (p * q)


def turned(numbers, wrong, turn=lambda value: 1 / value):
    """A dict of ratios, in which those that are `wrong` lie on the other side of 1."""
    return {name: turn(value) if name in wrong else value for name, value in numbers.items()}


def one_by_one(names):
    """The worlds of a claim: it holds; and each part turned round alone."""
    return pytest.mark.parametrize("wrong", [(), *((name,) for name in names)], ids=str)


# Averaged as they are; all other parts are ratios, or span decades: averaged as logarithms.
ARITHMETIC = re.compile(r"skewness|difference|minus|slope|share of|: v\^T H v$|\d, first batch$")


def check(parts, expected, claimed=(), wrong=(), bounds=None, level="published", only=False):
    """What is `claimed` at a level holds, but for what is `wrong`, which is against; the verdict of
    the level says so. All parts are `expected`, no more and no less, to 1e-9 (with only=True:
    those that are expected are there). If no bounds are named, ratios are claimed to be above 1
    and differences above 0."""
    found = {part.name: part.values for part in parts}
    assert len(found) == len(parts), "two parts have one name"
    assert set(expected) <= set(found) if only else set(expected) == set(found)
    for part in parts:
        wanted = expected.get(part.name)
        if wanted is None:
            continue
        if isinstance(wanted, str):
            assert part.values == wanted, part.name
        else:
            assert part.log is not bool(ARITHMETIC.search(part.name)), part.name
            assert np.shape(part.values) == np.shape(wanted), part.name
            np.testing.assert_allclose(part.values, wanted, rtol=1e-9, err_msg=part.name)
    of_all = decisions(parts)
    decided = {part.name: of_all[part.name] for part in parts
               if part.bounded and part.level == level}
    assert decided == {name: "against" if name in wrong else "holds" for name in claimed}
    for part in parts:
        if part.name in claimed:
            usual = (1 if part.log else 0), None
            assert (part.above, part.below) == (bounds or {}).get(part.name, usual), part.name
    assert verdicts(parts).get(level) == (
        None if not claimed else "not reproduced" if wrong else "reproduced")


def same(array, wanted):
    """The arrays have one shape, and are equal to 1e-9."""
    assert np.shape(array) == np.shape(wanted)
    np.testing.assert_allclose(array, wanted, rtol=1e-9)


def settings_asked(world):
    """{name: setting} of all trainings, in their order."""
    return {case.name: case.setting for case in world.asked}
