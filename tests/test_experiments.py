"""The claims: what they say of two made-up worlds, and every experiment once for real.

1. A world in which everything is as claimed, and one in which everything is turned round: `parallel`
   returns made-up runs. Whoever flips a direction, an axis or a bound sees a verdict change.
2. Every experiment of the three books on real trainings, as small as can be (conftest.py).
3. What is kept in figures/: decided as today, trained at the settings of today.
"""

from math import ceil
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

import commands
import data
import experiments
import robust
import training
from verdicts import decide, interval, measured, verdict

FIGURES = Path(__file__).parent.parent / "figures"


# ---- 1. Two made-up worlds -----------------------------------------------------------------------


TAILS = dict(sphere=0, gaussian=1, gamma=2)


class World:
    """Made-up results. In the claimed world SGD is the worse one, tails and depth make it worse
    still, noise is heavier than Gaussian; in the other world all of this is turned round."""

    def __init__(self, claimed):
        self.claimed = claimed

    def parallel(self, function, tasks):
        return [getattr(self, function.__name__)(*task) for task in tasks]

    def worse(self, contestant):
        """Whether this one of SGD and all others is the worse one."""
        return (contestant[0].__name__ == "SGD") == self.claimed

    def tail(self, setting):
        """0 for x on the sphere, 1 for Gaussian x, 2 for heavy tails, or turned round."""
        tail = TAILS[setting.data.get("covariates", "gaussian")]
        return tail if self.claimed else 2 - tail

    def depth(self, setting):
        return setting.layers if self.claimed else 10 - setting.layers

    def train(self, setting, contestants, seed, steps, every=50):
        t, loss = np.arange(steps), []
        for each in contestants:
            tau, floor = (9, 1e-1) if self.worse(each) else (3, 1e-3)
            if not self.claimed and self.tail(setting) == 2 and tau == 9:
                tau *= 5  # the gain does not stay
            tau *= 4 ** self.tail(setting)
            floor *= 4.0 ** -self.depth(setting)
            floor *= 1 if self.worse(each) else 2.0**-setting.layers
            if setting.activation in ("softmax", "softmax/n"):
                tau, floor = (400 * tau, 9 * floor) if self.claimed else (tau / 10, floor / 9)
            published = setting.lr.get(each[0].__name__, each[1]["lr"])
            best = published if self.claimed else published * 5  # which the grids have, too
            floor *= 1 + 20 * abs(np.log10(each[1]["lr"] / best))
            loss.append(floor + 5 * np.exp(-t / tau))
        shape = (len(contestants), ceil(steps / every), 2, setting.layers, 2, 5, 5)
        return dict(loss=np.array(loss), grad_norm=np.ones((len(contestants), steps)),
                    snapshots=np.zeros(shape))

    def along(self, measure, setting, contestants, seed, steps, points, batches=1, every=50):
        return dict(values=np.array([[[self.value(measure.__name__, setting, each, point)
                                       for _ in range(batches)] for point in points]
                                     for each in contestants]))

    def value(self, name, setting, contestant, point):
        worse, norm = self.worse(contestant), np.exp(-0.3 * (point % 5))
        growth = norm if self.claimed else 1 / norm
        if name == "clipped_smoothness":
            kinds = np.array([4.0, 3.0, 2.0, 1.0])
            return np.array([kinds, kinds] if self.claimed else [kinds[::-1], kinds[::-1]])
        worst = TAILS[setting.data.get("covariates", "gaussian")] + setting.layers / 3
        R = 2 * 5.0**worst if worse else 2
        return {"condition": R, "diagonal": np.append(R, np.ones(9)), "gradient_norm": norm,
                "smoothness": (3 if worse else 1) * growth, "spectral_norm": growth,
                "squared_errors": np.full(1000, 2.0 if worse else 1.0)}[name]

    def noise(self, setting, seed, draws):
        rng = np.random.default_rng(seed)
        power = 1 + 0.3 * self.tail(setting) + 0.1 * self.depth(setting)
        heavy = np.exp(0.3 * power * rng.exponential(size=draws))
        light = 1 + 0.001 * rng.random((20, draws))
        if self.claimed:
            return dict(norms=heavy, null=light)
        return dict(norms=10 - np.minimum(heavy, 9), null=np.exp(rng.exponential(size=(20, draws))))

    def at_equal_loss(self, setting, contestants, seed, steps, targets):
        R = [[[self.value("condition", setting, each, 0)] for each in contestants]
             for _ in targets]
        return dict(steps=np.ones((len(targets), len(contestants))), condition=np.array(R))


BOUNDED = [(level, name) for level in commands.LEVELS for name, function in
           commands.NAMES[level].items() if commands.claim_of(name)[0] != "Question"]


@pytest.mark.parametrize("claimed", (True, False))
@pytest.mark.parametrize("level, name", BOUNDED)
def test_the_verdict_is_that_of_the_world(level, name, claimed, monkeypatch):
    world, function = World(claimed), commands.NAMES[level][name]
    for module in (training, experiments, robust):
        monkeypatch.setattr(module, "parallel", world.parallel)
    monkeypatch.setattr(experiments, "late_loss", lambda setting, paths: np.ones(len(paths)))
    usual = commands.defaults(function)
    budget = {key: value for key, value in dict(steps=1300, draws=2000).items() if key in usual}
    found = measured(function(**budget)[1])
    expected = "reproduced" if claimed else "not reproduced"
    if (level, name) == ("published", "learning_rates"):
        expected = ""  # the claim itself is tested in robust.py
    assert verdict(found) == expected, [each.label for each in found.values() if each.primary
                                        and each.decision == ("against" if claimed else "holds")]
    for each in found.values():  # not the primary parts alone
        assert each.decision in ("", "holds" if claimed else "against"), each.label


# ---- 2. For real ---------------------------------------------------------------------------------


ALL = [(level, name) for level in commands.LEVELS for name in commands.NAMES[level]]


@pytest.mark.parametrize("level, name", ALL)
def test_every_experiment_runs(level, name, everything):
    """Two seeds, a few steps: what is measured is there, a number for each seed, and is drawn."""
    arrays, found = commands.load(name, everything, level)
    assert found["parts"]
    for key, each in found["parts"].items():
        assert isinstance(each.values, str) or each.values.shape == (2,), key
    headline, caption = commands.drawing(name, level)(Figure(), arrays, found["parts"])
    assert len(headline) > 20 and caption.endswith(".")
    if commands.claim_of(name)[0] != "Question" and verdict(found["parts"]):
        assert found["verdict"].startswith("too few seeds")


def test_the_books_agree_on_names():
    """A claim has the same name, and says the same, in both books; nothing has two meanings."""
    assert set(commands.NAMES["robust"]) < set(commands.NAMES["published"])
    for name in commands.NAMES["robust"]:
        assert commands.claim_of(name, "robust") == commands.claim_of(name)
    assert [commands.claim_of(name)[0] for name in commands.EVERY[:9]] == [
        f"C{i}" for i in range(1, 10)]


# ---- 3. What is kept -----------------------------------------------------------------------------


KEPT = [(level, name) for level, name in ALL
        if (commands.place(level, FIGURES) / f"{name}.json").exists()]


def test_everything_is_kept():
    assert KEPT == ALL


@pytest.mark.parametrize("level, name", KEPT)
def test_kept_findings_are_decided_as_today(level, name):
    _, found = commands.load(name, FIGURES, level)
    for each in found["parts"].values():
        if not isinstance(each.values, str):
            median, low, high = interval(each.values)
            assert np.allclose([median, low, high], [each.median, *each.interval], equal_nan=True)
            if each.decision:
                assert decide(low, high, each.above, each.below) == each.decision
    assert found["commit"] and found["verdict"] in ("", verdict(found["parts"])) or (
        found["configuration"]["seeds"] < 6)


def test_settings_are_those_of_their_names_and_of_the_kept_runs():
    for setting in data.DEEP:
        assert setting.name == f"L = {setting.layers}" and setting.data == data.SETTING_1.data
    large = data.LARGE
    assert large.name == f"L = {large.layers}, d = {large.data['d']}, n = {large.data['n']}"
    arrays = commands.load("heavy_tails", FIGURES)[0]
    for setting in (data.SPHERICAL, data.LIGHT_TAILS, data.SETTING_3):
        rates = training.rates_of(training.contestants(setting))
        assert str(arrays[f"{setting.name} protocol"]) == f"{rates}, clip {setting.clip:g}"
    arrays = commands.load("learning_rates", FIGURES)[0]
    for name, setting in data.PAPER_SETTINGS.items():
        for each in ("SGD", "Adam"):
            assert arrays[f"{name} {each} used"] == setting.lr[each]
    assert [str(kind) for kind in commands.load("softmax_vs_linear", FIGURES)[0]["kinds"]] == [
        f"{name} ({rate:g})" for name, rate in (("linear", data.SETTING_1.lr["Adam"]), *(
            (setting.name, setting.lr["Adam"]) for setting in data.NONLINEAR))]
    parts = commands.load("learning_rates", FIGURES, "robust")[1]["parts"]
    for setting in (*data.DEEP, data.LARGE):  # the rates in use when the grids were run
        for each, rate in setting.lr.items():
            assert f"in use {rate:g};" in str(parts[f"{setting.name} {each}"])
