"""What is measured for the questions beyond the paper, on made-up runs whose answer is known; and
how much each experiment asks for."""

from collections import Counter

import numpy as np
import pytest

import data
import experiments
import training
from experiments import EXPERIMENTS, FRESH, PAPER_SETTINGS
from made_up import (ALL_THREE, NAMES, SPREAD, check, curve, noises, same, settings_asked,
                     world)  # noqa: F401
from optimizers import NormalizedSGD
from training import Run


# ---- Questions beyond the paper ------------------------------------------------------------------


def test_initialization(world):
    """A run trains if all its seeds end below 2.5, half the loss of predicting 0. Here SGD ends at
    2.4 or less up to std 0.05, at 2.6 in one seed of 0.2, and diverges in one seed of 0.8."""
    def loss(case):
        std, second = case.setting.std, case.seed == 1
        if case.optimizer == "Adam":
            return curve(case.steps, 3.0)
        return curve(case.steps, 2.4 if std < 0.1 else 2.4 + 0.2 * second if std < 0.5
                     else np.inf if second else 0.1)

    world.loss = loss
    world.layer_gradients = lambda setting, seed: dict(first_last=[
        setting.std * setting.layers * (1 + seed) * (2 if setting.full else 1), np.nan])
    arrays, parts = experiments.initialization(Run(seeds=2, steps=500))
    expected, scales = {}, (0.01, 0.05, 0.2, 0.8)
    for L in (2, 4, 8):
        for where, factor in (("blocks", 1), ("full matrices", 2)):
            label = f"L = {L}, {where}"
            expected |= {f"{label}: SGD": "trains at std 0.01, 0.05; diverges at std 0.8",
                         f"{label}: Adam": "trains nowhere"}
            norms = [np.array([1, 2]) * std * L * factor for std in scales]
            expected |= {f"{label}, std {std:g}: gradient norm, first layer": each
                         for std, each in zip(scales, norms)}
            same(arrays[f"{label} norm"], norms)
            same(arrays[f"{label} SGD"], [[2.4, 2.4], [2.4, 2.4], [2.4, 2.6], [0.1, np.inf]])
            same(arrays[f"{label} Adam"], np.full((4, 2), 3))
    check(parts, expected)
    for each, rates in (("SGD", {2: 0.02, 4: 0.1, 8: 0.05}), ("Adam", {2: 0.02, 4: 0.02,
                                                                       8: 0.005})):
        assert {(case.setting.layers, case.setting.full, case.setting.std, case.lr)
                for case in world.asked if case.optimizer == each} == {
            (L, full, std, lr) for L, lr in rates.items() for full in (False, True)
            for std in scales}
    assert arrays["spent"] == (2, 400)
    assert {(case.steps, case.seed) for case in world.asked} == {(400, 0), (400, 1)}


def test_tails_times_depth(world):
    """SGD's loss over Adam's is exp(0.1 i + 0.2 j + c i j), i steps to heavier tails and j to more
    layers, so that each step of one multiplies the effect of the other by e^c; c = 0.3, 0.4, 0.8 by
    the seed. The 99 % quantile of the noise norm is exp(2 + 0.2 i + 0.3 j - 0.1 i j), times 1, 2,
    3, by the seed, its median 1. The pilot seeds like the rates 0.5 and 0.2, the others 1 and
    0.1."""
    steps = {2.5: 0, 0.5: 1, 0.1: 2}  # of shape k; L / 2 - 1 is the number of the depth
    interaction = np.array([0.3, 0.4, 0.8])

    def place(setting):
        return steps[setting.data["shape"]], setting.layers // 2 - 1

    def gap(i, j):
        return np.exp(0.1 * i + 0.2 * j + interaction * i * j)

    def high(i, j):
        return np.exp(2 + 0.2 * i + 0.3 * j - 0.1 * i * j) * np.array([1, 2, 3])

    def loss(case):
        liked = dict(SGD=0.5, Adam=0.2) if case.seed < FRESH else dict(SGD=1.0, Adam=0.1)
        ratio = gap(*place(case.setting))[case.number] if case.optimizer == "SGD" else 1
        return curve(case.steps, 3 * ratio * (1 if case.lr == liked[case.optimizer] else 9))

    def noise(setting, seed, draws):
        value = high(*place(setting))[seed - FRESH]
        norms = np.where(np.arange(draws) < draws / 10, value, 1.0)
        return dict(norms=norms, null=np.ones((20, draws)))

    world.loss, world.noise = loss, noise
    arrays, parts = experiments.tails_times_depth(Run(seeds=3, steps=600, lr=dict(SGD=9.0)))
    ratio, tail = "final loss SGD / Adam", "99 % quantile over median of the noise"
    expected = {f"interaction, {ratio}": np.exp(interaction),
                f"interaction, {tail}": np.full(3, np.exp(-0.1))}
    for k, i in steps.items():
        for L, j in ((2, 0), (4, 1), (6, 2)):
            expected |= {f"k = {k}, L = {L}: {ratio}": gap(i, j),
                         f"k = {k}, L = {L}: {tail}": high(i, j),
                         f"k = {k}, L = {L}: best rates": "SGD 0.5, Adam 0.2 (an end of the grid)"}
            # geometric means over the three seeds
            same(arrays[ratio][i, j], np.exp(0.1 * i + 0.2 * j + 0.5 * i * j))
            same(arrays[tail][i, j], np.exp(2 + 0.2 * i + 0.3 * j - 0.1 * i * j) * 6 ** (1 / 3))
    check(parts, expected)
    assert [part.name for part in parts][:2] == [f"interaction, {ratio}", f"interaction, {tail}"]
    assert list(arrays["maps"]) == [ratio, tail] and arrays["spent"] == (3, 500)
    assert (list(arrays["shapes"]), list(arrays["depths"])) == ([2.5, 0.5, 0.1], [2, 4, 6])
    assert {name: (setting.data, setting.layers, setting.clip, setting.clipping)
            for name, setting in settings_asked(world).items()} == {
        f"k = {k}, L = {L}": (dict(n=20, d=5, covariates="gamma", shape=k, second_moment=1.0), L,
                              1.0, "global") for k in steps for L in (2, 4, 6)}
    for each, rates, best in (("SGD", {0.05, 0.1, 0.2, 0.5, 1.0, 2.0}, 0.5),
                              ("Adam", {0.005, 0.01, 0.02, 0.05, 0.1, 0.2}, 0.2)):
        mine = [case for case in world.asked if case.optimizer == each]
        assert {(case.lr, case.seed) for case in mine} == {
            *((rate, seed) for rate in rates for seed in (0, 1, 2)),
            *((best, seed) for seed in (1000, 1001, 1002))}
    assert {case.steps for case in world.asked} == {500}
    assert [task[2:4] for task in world.tasks if task[0] == "noise"] == [
        (1000, 1000), (1001, 1000), (1002, 1000)] * 9  # seed, draws


def test_label_noise(world, monkeypatch):
    """The Bayes risk on batch k is sigma + k, that of SGD 0.5 above, that of Adam 0.25, times
    SPREAD, but on four batches nine times as far; the pilot seeds choose the rates."""
    asked = []

    def ridge_losses(setting, penalty):
        asked.append((setting.data["noise"], penalty))
        return setting.data["noise"] + np.arange(20.0)

    def loss_at(case, point, batch):
        assert point >= 38 and case.lr == liked[case.optimizer]  # of 40 snapshots
        more = SPREAD[case.seed - FRESH] * (0.5 if case.optimizer == "SGD" else 0.25)
        return case.setting.data["noise"] + batch + (9 * more if batch in odd else more)

    liked, odd = dict(SGD=0.1, Adam=0.05), (3, 7, 11, 12)
    monkeypatch.setattr(experiments, "ridge_losses", ridge_losses)
    world.loss = lambda case: curve(
        case.steps, 1.0 if (case.lr == liked[case.optimizer]) == (case.seed < FRESH) else 2.0)
    world.loss_at = loss_at
    arrays, parts = experiments.label_noise(Run(seeds=3, steps=2500, lr=dict(SGD=9.0)))
    sigmas, spread = (0.0, 0.1, 0.3, 1.0, 3.0), SPREAD[:3]
    same(asked, [(sigma, sigma**2) for sigma in sigmas])  # the penalty is the variance
    expected = {}
    for sigma in sigmas:
        name = f"sigma = {sigma:g}"
        expected |= {f"{name}: excess SGD / Adam": np.full(3, 2.0),
                     f"{name}: excess SGD": 0.5 * spread, f"{name}: excess Adam": 0.25 * spread,
                     f"{name}: Bayes risk": f"{sigma + 9.5:.3g}",
                     f"{name}: best rates": "SGD 0.1, Adam 0.05 (an end of the grid)"}
    check(parts, expected)
    assert [part.name for part in parts][:5] == [
        f"sigma = {sigma:g}: excess SGD / Adam" for sigma in sigmas]
    assert {case.name: case.setting.data for case in world.asked} == {
        sigma: dict(n=20, d=5, covariates="gaussian", noise=sigma) for sigma in sigmas}
    for each, rates in (("SGD", {0.02, 0.05, 0.1, 0.2, 0.5}),
                        ("Adam", {0.002, 0.005, 0.01, 0.02, 0.05})):
        mine = [case for case in world.asked if case.optimizer == each]
        assert {(case.lr, case.seed) for case in mine} == {
            *((rate, seed) for rate in rates for seed in (0, 1, 2)),
            *((liked[each], seed) for seed in (1000, 1001, 1002))}
    assert {case.steps for case in world.asked} == {2000}
    same(arrays["excess"], [[[gap * s] * 5 for s in spread] for gap in (0.5, 0.25)])
    final = [[[sigma + np.median([k + gap * s * (9 if k in odd else 1) for k in range(20)])
               for sigma in sigmas] for s in spread] for gap in (0.5, 0.25)]
    same(arrays["final"], final)
    same(arrays["bayes"], [sigma + 9.5 for sigma in sigmas])
    assert arrays["spent"] == (3, 2000)
    assert set(world.tasks) == {("loss_at", 2, 20)}


REMEDIES = {"none": 1.0, "normalised x": 0.5, "clipping": 0.8, "weight decay": 0.9,
            "large batch": 1.1, "all four": 0.4}


def test_remedies(world):
    """The loss at the end is that of REMEDIES for Adam and thrice its root for SGD, on most of the
    twenty batches; the training loss only chooses the rate: SGD's own, and five times Adam's."""
    def end(name, each):
        return 3 * np.sqrt(REMEDIES[name]) if each == "SGD" else REMEDIES[name]

    factor = dict(SGD=1, Adam=5)

    def loss_at(case, point, batch):
        assert point >= 18 and case.lr == factor[case.optimizer] * case.setting.lr[case.optimizer]
        return end(case.name, case.optimizer) * SPREAD[case.seed] * (30 if batch > 15 else 1)

    world.loss = lambda case: curve(case.steps, 1.0 if np.isclose(
        case.lr, factor[case.optimizer] * case.setting.lr[case.optimizer]) else 2.0)
    world.loss_at = loss_at
    arrays, parts = experiments.remedies(Run(seeds=3, steps=600))
    expected, spread = {}, SPREAD[:3]
    for name in REMEDIES:
        far = name in ("normalised x", "all four")
        expected[f"{name}: best rates"] = (f"SGD {1 if far else 0.02:g}, Adam {0.5 if far else 0.1}"
                                           " (an end of the grid)")
        expected[f"{name}: SGD / Adam"] = np.full(3, end(name, "SGD") / end(name, "Adam"))
        for each in ("SGD", "Adam"):
            expected[f"{name}: final loss {each}"] = end(name, each) * spread
            if name != "none":
                expected[f"{name}: {each}, with / without"] = np.full(
                    3, end(name, each) / end("none", each))
    check(parts, expected)
    plain, sphere = dict(n=20, d=5, covariates="gamma"), dict(n=20, d=5, covariates="sphere")
    asked = {case.name: (case.setting, case.arguments) for case in world.asked}
    assert {name: (setting.data, setting.clipping, setting.batch, arguments)
            for name, (setting, arguments) in asked.items()} == {
        "none": (plain, "none", 1000, {}), "normalised x": (sphere, "none", 1000, {}),
        "clipping": (plain, "global", 1000, {}),
        "weight decay": (plain, "none", 1000, dict(weight_decay=0.01)),
        "large batch": (plain, "none", 4000, {}),
        "all four": (sphere, "global", 4000, dict(weight_decay=0.01))}
    assert {case.setting.clip for case in world.asked} == {1.0}
    assert {(case.every, case.steps) for case in world.asked} == {(25, 500)}
    assert [case.seed for case in world.asked] == [0, 1, 2] * 36 and arrays["spent"] == (3, 500)
    np.testing.assert_allclose([case.lr for case in world.asked[::3]],  # SGD's, Adam's
                               [*[0.004, 0.02, 0.1] * 2, *[0.2, 1, 5], *[0.02, 0.1, 0.5],
                                *[0.004, 0.02, 0.1] * 6, *[0.2, 1, 5], *[0.02, 0.1, 0.5]])
    assert list(arrays["remedies"]) == list(REMEDIES)
    for each in ("SGD", "Adam"):
        same(arrays[each], [end(name, each) * spread for name in REMEDIES])


def weights(case, points):
    """Snapshots (points, 2, layers, 2, 5, 5): Q = -c I + c / 2 times another matrix of norm sqrt 5,
    P nothing but that. c = 0.1 but in the last tenth of the path, where it is 1 + the seed."""
    off = np.diag([1.0, -1, 1, -1, 0])
    off[0, 4] = 1.0
    c = np.where(np.arange(points) >= points - points // 10, 1.0 + case.seed, 0.1)
    path = np.empty((points, 2, case.setting.layers, 2, 5, 5))
    path[:, :, :, 0] = off
    path[:, :, :, 1] = c[:, None, None, None, None] * (off / 2 - np.eye(5))
    return path


def test_what_it_learns(world):
    """Adam alone. Q is off the identity by 1/2 against 1: a share of sqrt(1/5); P by all. Five
    times the steps take four layers to 0.6 of their loss, a falling rate to 0.1 of it."""
    better = {"constant": 1.0, "linear": 0.1}

    def end(setting, steps):
        long = steps == 10_000 and setting.schedule == "constant"
        return 0.5 * setting.layers * (0.6 if long else better[setting.schedule])

    world.snapshots = weights
    world.loss = lambda case: curve(case.steps, SPREAD[case.seed] * end(case.setting, case.steps))
    kinds = {"one size": "L steps, one size", "L sizes": "L steps, L sizes",
             "P = g I": "L sizes, P = g I"}
    least = {"one size": 0.4, "L sizes": 0.2, "P = g I": 0.1}
    world.descent = lambda setting, kind: dict(loss=least[kind] / setting.layers)
    arrays, parts = experiments.what_it_learns(Run(seeds=3, steps=2500, optimizers=ALL_THREE[:2]))
    expected, spread = {}, SPREAD[:3]
    for L in (1, 2, 3, 4):
        name, final = f"L = {L}", 0.5 * L * spread
        expected[f"{name}: final loss"] = final
        expected |= {f"{name}: final loss / that of {words}": final * L / least[kind]
                     for kind, words in kinds.items()}
        expected[f"{name}: share of Q off the identity"] = np.full(3, np.sqrt(1 / 5))
        for kind in kinds:
            same(arrays[f"least {kind}"][L - 1], least[kind] / L)
    longer = {"five times the steps": 0.6, "five times the steps, falling rate": 0.1}
    for words, share in longer.items():  # of 2, the loss of four layers; 0.1 / 4 is the least one
        expected[f"L = 4, {words}: final loss / that of L sizes, P = g I"] = 80 * share * spread
        same(arrays[f"L = 4, {words}"], 2 * share * spread)
    check(parts, expected)

    assert {(case.optimizer, case.lr, case.steps, case.every, case.setting.schedule, case.seed)
            for case in world.asked} == {
        ("Adam", 0.02, steps, every, schedule, seed) for seed in (0, 1, 2)
        for steps, every, schedule in ((2000, 10, "constant"), (10_000, 50, "constant"),
                                       (10_000, 50, "linear"))}
    asked = {name: (setting.layers, setting.data["covariates"], setting.data["n"])
             for name, setting in settings_asked(world).items()}
    assert asked == {f"L = {L}": (L, "gaussian", 20) for L in (1, 2, 3, 4)} | {
        name: (4, "gaussian", 20) for name in longer}
    assert [(task[1].layers, task[2]) for task in world.tasks] == [
        (L, kind) for L in (1, 2, 3, 4) for kind in kinds]
    assert arrays["spent"] == (3, 2000)
    same(arrays["weights"], np.concatenate([weights(world.asked[0], 200)[-1, 0, 0]] * 3))  # seed 0
    same(arrays["iteration"], 10 * np.arange(200))
    assert list(arrays["paths"]) == ["Q, last layer", "Q, first layer", "P, first layer"]
    same(arrays["off"], np.broadcast_to(np.sqrt([[[1 / 5]], [[1 / 5]], [[1]]]), (3, 3, 200)))
    same(arrays["final"], [[[0.5 * L * s for L in (1, 2, 3, 4)] for s in spread]])


def test_one_layer(world):
    """Adam alone; best c = m / T and its loss m (1 - m^2 / (d T)), T = m4 / n + (1 - 1 / n) m^2 /
    d."""
    world.snapshots, spread = weights, SPREAD[:3]
    world.loss = lambda case: curve(case.steps, 0.5 * SPREAD[case.seed])
    arrays, parts = experiments.one_layer(Run(seeds=3, steps=2500, optimizers=ALL_THREE[:2]))
    expected = {}
    best = {f"gaussian x, n = {n}": (n / (n + 6), 30 / (n + 6)) for n in (5, 10, 20, 40, 80)}
    for family, m, m4 in (("sphere", 1, 1), ("gamma", 1, 11), ("student", 25 / 3, 875 / 3)):
        T = m4 / 20 + 0.95 * m**2 / 5
        best[f"{family} x, n = 20"] = m / T, m * (1 - m**2 / (5 * T))
    mean = 0.5 * (99 * 4.5 + 2) / 200 * spread  # of the last tenth, 200 steps: not its median
    for name, (c, loss) in best.items():
        expected[f"{name}: learnt / best c"] = np.array([1, 2, 3]) / c
        expected[f"{name}: mean final loss / least loss {loss:.3g}"] = mean / loss
        same(arrays[f"{name} c"], np.array([1, 2, 3]) / c)
        same(arrays[f"{name} loss"], mean / loss)
        same(arrays[f"{name} least"], loss)
    check(parts, expected)
    assert {(case.name, case.optimizer, case.lr, case.steps, case.every, case.seed)
            for case in world.asked} == {
        (name, "Adam", 0.02, 2000, 10, seed) for name in best for seed in (0, 1, 2)}
    assert {name: (setting.layers, setting.data) for name, setting in settings_asked(
        world).items()} == {name: (1, dict(
            covariates=name.split(" ")[0], n=int(name.split("= ")[1]), d=5)) for name in best}
    assert list(arrays["cases"]) == list(best) and arrays["spent"] == (3, 2000)


def test_the_layers_that_are_drawn(world):
    """Layer l (0, 1, 2) of L = 3: the Q is off the identity by a share that is 1 at l = 0, less at
    the others; the P of l = 0 not at all."""
    def snapshots(case, points):
        path = np.broadcast_to(np.eye(5), (points, 2, case.setting.layers, 2, 5, 5)).copy()
        path[:, :, 0, 1] -= np.diag([1.0, 1, 1, 1, 6])  # (0, 0, 0, 0, -5): a fifth is the identity
        path[:, 1] = np.nan  # after the step
        return path

    world.snapshots = snapshots
    arrays, parts = experiments.what_it_learns(Run(seeds=2, steps=100))
    same(arrays["off"], np.broadcast_to([[[0]], [[np.sqrt(0.8)]], [[0]]], (3, 2, 10)))
    found = {part.name: part.values for part in parts}
    same(found["L = 3: share of Q off the identity"], np.full(2, np.sqrt(0.8) / 3))


def test_the_model():
    """Tails of |x|^2 over its mean, and a prompt. The quantiles are known: |x|^2 is 1, chi^2 with
    five degrees of freedom over 5, and Gamma(0.1, 10) at its own mean 1."""
    arrays, parts = experiments.the_model(Run(seeds=2, steps=1200))
    found = {part.name: part.values for part in parts}
    for name, quantile in (("sphere", 1.0), ("Gaussian", 20.515 / 5), ("Setting 3", 33.4)):
        np.testing.assert_allclose(found[f"{name}: 99.9 % quantile of |x|^2 over its mean"],
                                   [quantile] * 2, rtol=0.05)
        share = arrays["share"]
        at = arrays[f"{name} tail"][np.abs(share - 0.001).argmin()]
        assert at == pytest.approx(quantile, rel=0.05)
    assert len(parts) == 3 and not any(part.bounded for part in parts)
    assert arrays["spent"] == (2, 1000) and share[0] == 1e-5
    assert arrays["prompt"].shape == (6, 21) and arrays["prompt"][5, 20] == 0


def test_condition_causes(world):
    """R_med of SGD: 200 times its rate, twice that for full matrices, 1, 2, ... times that for the
    seeds. The five batches' ratios are 16, 1, 4, 1/2 and 1/2 times that: the median is 1; but SGD's
    median is 4, and Adam's 2. The diagonals are (-20 r, 1, -0.25), r = 1 + b on batch b for Adam,
    and for SGD 3 on all but one of ten batches, where it is -3."""
    def condition(case, point, batch):
        assert case.steps == 800 and point == 15
        if case.optimizer == "Adam":
            return (1.0, 1, 2, 8, 4)[batch]
        r = 200 * case.lr * (2 if case.setting.full else 1) * (1 + case.number)
        return r * (16, 1, 8, 4, 2)[batch]

    def diagonal(case, point, batch):
        assert case.steps == 2500 and point == 15
        r = 1.0 + batch if case.optimizer == "Adam" else -3.0 if batch % 10 == 7 else 3.0
        return np.array([-20 * r, 1, -0.25])

    world.condition, world.diagonal = condition, diagonal
    arrays, parts = experiments.condition_causes(Run(seeds=5, steps=2000, lr=dict(SGD=0.05)))
    seeds, adam = np.arange(1.0, 6), np.arange(1.0, 101)
    single = 3 / adam
    tens = 2.4 / adam.reshape(10, 10).mean(axis=1)
    causes = {"as published": 10 * seeds, "half the rates": 5 * seeds,
              "twice the rates": 20 * seeds, "full matrices": 20 * seeds}
    expected = {f"{name}, {cause}": ratio for name in NAMES for cause, ratio in causes.items()}
    for name in NAMES:
        for size, ratios in (("1,000", single), ("10,000", tens), ("100,000", [2.4 / 50.5])):
            low, high = np.quantile(np.tile(ratios, 5), (0.05, 0.95))
            expected[f"{name}, {size} prompts: median and 90 % of the batches"] = (
                f"{np.median(ratios):.3g}, {low:.3g} to {high:.3g}")
            same(arrays[f"{name} on {size}"], np.tile(ratios, 5))
        same(arrays[f"{name} with half the rates"], 5 * seeds)
    check(parts, expected)
    assert list(arrays["causes"]) == list(causes) and arrays["spent"] == (5, 800)
    fresh = [case for case in world.asked if case.steps == 800]
    assert {case.seed for case in world.asked} == set(range(1000, 1005))
    assert {(case.name, case.lr) for case in fresh if case.optimizer == "Adam"} == {
        (name, factor * PAPER_SETTINGS[name].lr["Adam"]) for name in NAMES
        for factor in (0.5, 1, 2)}
    assert {case.lr for case in fresh if case.optimizer == "SGD"} == {0.05, 0.025, 0.1}
    assert sum(case.setting.full for case in fresh) == 3 * 2 * 5
    assert world.tasks == [("diagonal", 1, 100)] * 3 + [("condition", 1, 5)] * 12


SEVEN = {"SGD": [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0]}
SEVEN_OTHERS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1]


def seven(optimizer):
    return SEVEN.get(optimizer, SEVEN_OTHERS)


SCALED = {  # {scaling: (optimizer, its arguments, made-up final loss in Setting 1)}
    "SGD": ("SGD", {}, 8.0), "one scale": ("NormalizedSGD", dict(granularity="all"), 4.0),
    "a layer": ("NormalizedSGD", dict(granularity="layer"), 2.0),
    "a block": ("NormalizedSGD", dict(granularity="block"), 1.0),
    "a row": ("NormalizedSGD", dict(granularity="row"), 16.0),
    "sign": ("NormalizedSGD", dict(granularity="coordinate"), 0.5),
    "Muon": ("Muon", {}, 8.0), "Adam": ("Adam", {}, 1.0)}
SHARES = {"one scale": 1 / 3, "a layer": 2 / 3, "a block": 1, "a row": -1 / 3, "sign": 4 / 3,
          "Muon": 0}  # of the logarithm of 8


def test_granularity(world):
    """Losses as above, times SPREAD, at the third rate on the pilot seeds, at the fourth on the
    others: the third is taken. In Setting 2 SGD's loss is 1.01 times Adam's in the mean, which
    leaves the gap open; in Setting 3 it varies around 8 times, and the share is one of the mean
    gap. Q's eigenvalues are 100 times P's, those of the last layer are others."""
    falling = [f"{name}, falling rate" for name in NAMES]
    of_sgd = {"Setting 2": np.array([1.1, 1 / 1.1, 1.2, 1 / 1.2, 1.05]),
              "Setting 3": 8 * np.array([1.5, 1 / 1.5, 1.9, 1 / 1.9, 1])}

    def loss(case):
        end = next(end for optimizer, arguments, end in SCALED.values()
                   if (optimizer, arguments) == (case.optimizer, case.arguments))
        if case.name in of_sgd and case.optimizer == "SGD":
            end = of_sgd[case.name][case.number]
        liked = seven(case.optimizer)[2 if case.seed < FRESH else 3]
        return curve(case.steps, end * SPREAD[case.number] * (1 if case.lr == liked else 50))

    def evaluate(measure, setting, path, batches):
        assert measure.__name__ == "block_spectra" and setting.layers == 3 and batches == 1
        assert path.shape == (1, 2, 3, 2, 5, 5) and (path[0, 0] == path[0, 1]).all()
        starts.append(path[0, 0])
        blocks = np.array([1.0, 100, 1, 100, 1e9, 1e-9])[:, None] * np.arange(1, 26)
        return dict(values=np.where(np.arange(6)[:, None] % 2, len(starts), 1) * blocks[None, None])

    starts, world.loss, world.evaluate = [], loss, evaluate
    arrays, parts = experiments.granularity(Run(seeds=5, steps=3000, lr=dict(SGD=9.0)))
    expected = {"Hessian's blocks: median |eigenvalue| of Q over that of P": 100.0 * np.arange(1, 6)}
    names = [*NAMES, *falling, "Setting 1, L = 6"]
    for name in names:
        for scaling, (_, _, end) in SCALED.items():
            values, lr = end * np.ones(5), 0.05 if scaling == "SGD" else 0.005
            if name in of_sgd and scaling == "SGD":
                values = of_sgd[name]
            expected[f"{name}: final loss {scaling}"] = 50 * values * SPREAD[:5]
            expected[f"{name}: best rate {scaling}"] = f"{lr:g}"
            if scaling == "SGD":
                expected[f"{name}: final loss SGD / Adam"] = values
            elif scaling == "Adam":
                same(arrays[f"{name} final"][-1], 50 * SPREAD[:5])
            else:
                expected[f"{name}: final loss {scaling} / Adam"] = values
            if scaling in SHARES and name != "Setting 2":
                apart = np.log(of_sgd[name] / 8) / np.log(8) if name in of_sgd else np.zeros(5)
                expected[f"{name}: share of the log gap that {scaling} closes"] = (
                    SHARES[scaling] + apart)
    check(parts, expected)
    assert list(arrays["settings"]) == names and list(arrays["scalings"]) == list(SCALED)
    same(arrays["Setting 1 final"][1], 200 * SPREAD[:5])
    assert arrays["spent"] == (5, 2000) and arrays["spectra"].shape == (6, 25)
    wanted = training.initial(data.SETTING_1, training.streams(FRESH)[0])
    assert (starts[0] == wanted).all() and not (starts[1] == wanted).all()
    assert {name: (setting.data, setting.layers, setting.schedule)
            for name, setting in settings_asked(world).items()} == {
        name: (PAPER_SETTINGS[name[:9]].data, 6 if "L = 6" in name else 3,
               "linear" if "falling" in name else "constant") for name in names}
    assert {(case.lr, case.seed) for case in world.asked if case.optimizer == "SGD"} == {
        *((rate, seed) for rate in SEVEN["SGD"] for seed in (0, 1, 2)),
        *((0.05, seed) for seed in range(FRESH, FRESH + 5))}
    assert {case.lr for case in world.asked if case.optimizer == "Muon"} == set(SEVEN_OTHERS)


def test_schedules(world):
    """SGD ends at 2, 4, 6 in Settings 1, 2, 3, normalised SGD at half of that, Adam at 1; a linear
    rate divides this by 2, 3, 4, by the optimizer, a cosine by 10 times that."""
    factors = dict(SGD=2.0, NormalizedSGD=3.0, Adam=4.0)

    def end(name, kind, each):
        first = 2.0 * (1 + NAMES.index(name))
        return (dict(SGD=first, NormalizedSGD=first / 2, Adam=1.0)[each] / dict(
            constant=1, linear=factors[each], cosine=10 * factors[each])[kind])

    def loss(case):
        (name,) = [name for name in NAMES if PAPER_SETTINGS[name].data == case.setting.data]
        best = case.lr == seven(case.optimizer)[4]
        return curve(case.steps, end(name, case.setting.schedule, case.optimizer) * SPREAD[
            case.number] ** (case.optimizer != "Adam") * (1 if best else 50))

    world.loss = loss
    arrays, parts = experiments.schedules(Run(seeds=3, steps=5000, lr=dict(SGD=9.0)))
    expected, spread, one = {}, SPREAD[:3], np.ones(3)
    for name in NAMES:
        for kind in ("constant", "linear", "cosine"):
            expected |= {f"{name}, {kind}: final loss {each} / Adam": end(
                name, kind, each) / end(name, kind, "Adam") * spread
                for each in ("SGD", "NormalizedSGD")}
            expected[f"{name}, {kind}: best rates"] = "SGD 0.2, NormalizedSGD 0.02, Adam 0.02"
        for each, factor in factors.items():
            expected |= {f"{name}, {each}: final loss linear / constant": one / factor,
                         f"{name}, {each}: final loss cosine / constant": one / (10 * factor)}
    check(parts, expected)
    same(arrays["Setting 3 final"], [[end("Setting 3", kind, each) * (
        one if each == "Adam" else spread) for kind in ("constant", "linear", "cosine")]
        for each in factors])
    assert list(arrays["schedules"]) == ["constant", "linear", "cosine"]
    assert arrays["spent"] == (3, 4000) and list(arrays["optimizers"]) == list(factors)
    assert {case.steps for case in world.asked} == {4000}


def test_edge_of_stability(world):
    """At rate lr the largest eigenvalue is 37.03 x + point, x = 1, 2, 4 by the rate, on the first
    batch; on the others more, but on the median one 1.9 times that. The limit is 3.8 / lr. Steps
    1,000 to 1,600 are clipped, and in one seed all."""
    times = {0.05: 1, 0.1: 2, 0.2: 4}

    def sharpness(case, point, batch):
        return (37.03 * times[case.lr] + point) * (1, 1.9, 1.9, 5, 5)[batch]

    def grad_norm(case):
        t = np.arange(case.steps)
        return np.where((1000 <= t) & (t <= 1600) | (case.number == 4), 1.01, 1.0)

    world.sharpness, world.grad_norm = sharpness, grad_norm
    world.loss = lambda case: curve(case.steps, case.lr * SPREAD[case.number])
    arrays, parts = experiments.edge_of_stability(Run(seeds=5, steps=3000, lr=dict(SGD=9.0)))
    points = np.linspace(0, 49, 20).astype(int)
    calm = (50 * points < 1000) | (50 * points > 1650)
    expected = {}
    for lr, factor in times.items():
        height = 1.9 * (37.03 * factor + points) * lr / 3.8
        expected |= {
            f"rate {lr}: at the start": np.full(5, height[0]),
            f"rate {lr}: largest eigenvalue / limit": np.full(5, np.median(height[2:])),
            f"rate {lr}: the same after 50 steps without clipping": ", ".join(
                [f"{np.median(height[calm]):.3g}"] * 4 + ["none"]) + " by seed",
            f"rate {lr}: clipped steps": "39 %",  # (4 * 601 + 2500) / (5 * 2500)
            f"rate {lr}: largest over smallest batch": "5",
            f"rate {lr}: final loss": lr * SPREAD[:5]}
        same(arrays[f"rate {lr}"], np.tile(height, (5, 1)))
    check(parts, expected)
    same(arrays["iteration"], 50 * points)
    assert arrays["spent"] == (5, 2500) and list(arrays["names"]) == [f"rate {lr}" for lr in times]
    assert {(case.lr, case.seed, case.optimizer) for case in world.asked} == {
        (lr, seed, "SGD") for lr in times for seed in range(FRESH, FRESH + 5)}
    assert set(world.tasks) == {("sharpness", 20, 5)}


SCREENED = {  # {contestant: (optimizer, its arguments, best losses in Settings 1, 2, 3)}
    "SGD": ("SGD", {}, (1.25, 0.8, 8)), "Adam, beta2 = 0.9": ("Adam", {}, (0.5, 0.5, 0.5)),
    "Adam, beta2 = 0.99": ("Adam", dict(beta2=0.99), (1, 1, 1)),
    "Adam, beta2 = 0.999": ("Adam", dict(beta2=0.999), (2.5, 2.5, 2.5)),
    "SignDescent": ("SignDescent", {}, (3, 3, 3)),
    "NormalizedSGD, one scale": ("NormalizedSGD", {}, (3.5, 3.5, 3.5)),
    "NormalizedSGD, a block": ("NormalizedSGD", dict(granularity="block"), (4, 4, 4))}


def test_screen(world):
    """Of seven rates the third is best, with the losses above in Settings 1, 2, 3 times 1, 2, 4:
    SGD is 2.5, 1.6 and 16 times behind Adam, SignDescent 6 times; twice is the target. At the
    fourth rate the loss is 1.5 times the best, at the fifth thrice; at the sixth the second seed
    diverges, at the last all do; elsewhere it is 50 times that. The best one is reached after 30,
    40 and 100 steps, by the seed, so that more than half of the last 50 losses are there 26 steps
    later. In the second half a twentieth of the norms is above ten times the median, a tenth not
    quite; in the first half and at other rates more."""
    grid = {"SGD": [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5]}
    at_rate = 50, 50, 1, 1.5, 3, 50, np.nan

    def number(case):
        return grid.get(case.optimizer, SEVEN_OTHERS).index(case.lr)

    def loss(case):
        (i,) = [i for i, name in enumerate(NAMES)
                if PAPER_SETTINGS[name].data == case.setting.data]
        best = next(best for optimizer, arguments, best in SCREENED.values()
                    if (optimizer, arguments) == (case.optimizer, case.arguments))
        end, lost = best[i] * 2.0**i, number(case) == 5 and case.seed == 1
        values = np.full(case.steps, end * (np.nan if lost else at_rate[number(case)]))
        values[: (30, 40, 100)[case.seed]] = 100 * end
        return values

    def grad_norm(case):
        t = np.arange(case.steps)
        if number(case) != 2:
            return np.where(t % 4 == 0, 99.0, 1.0)
        t = np.where(t < 250, 0, t)
        return np.where(t % 20 == 0, 10.1, np.where(t % 20 < 3, 9.9, 1.0))

    world.loss, world.grad_norm = loss, grad_norm
    run = Run(seeds=3, steps=600, optimizers=(*ALL_THREE, NormalizedSGD), lr=dict(SGD=9.0))
    arrays, parts = experiments.screen(run)
    expected = {"rank, by geometric mean of the ratio to the best": (
        "1 Adam, beta2 = 0.9 (1); 2 Adam, beta2 = 0.99 (2); 3 SGD (4); 4 Adam, beta2 = 0.999 (5); "
        "5 SignDescent (6); 6 NormalizedSGD, one scale (7); 7 NormalizedSGD, a block (8)")}
    ranked = ("Adam, beta2 = 0.9", "Adam, beta2 = 0.99", "SGD", "Adam, beta2 = 0.999",
              "SignDescent", "NormalizedSGD, one scale", "NormalizedSGD, a block")
    top, rank = "first three, and loss over the best one's", next(iter(expected))
    expected[top] = "Adam, beta2 = 0.9: 1; Adam, beta2 = 0.99: 2; SGD: 4"
    for each in ranked:
        rate, width = ("0.02", "2.5") if each == "SGD" else ("0.005", "2")
        for i, name in enumerate(NAMES):
            best = SCREENED[each][2][i]
            expected[f"{each:<25} {name}"] = (
                f"rate {rate:<5} loss {best * 2**i:<8.3g} good range {width:<5} steps "
                f"to target {'66' if best < 1 else '> 500':<5} diverged 19 % spikes 4.8 %")
    check(parts, expected)
    assert [part.name for part in parts] == [
        rank, top,
        *(f"{each:<25} {name}" for each in ranked for name in NAMES)]
    assert arrays["spent"] == (3, 500) and tuple(arrays["contestants"]) == ranked
    same(arrays["ratio"], [1, 2, 4, 5, 6, 7, 8])
    assert {(case.optimizer, *case.arguments.items(), case.lr, case.seed)
            for case in world.asked} == {
        (optimizer, *arguments.items(), rate, seed)
        for optimizer, arguments, _ in SCREENED.values()
        for rate in grid.get(optimizer, SEVEN_OTHERS) for seed in (0, 1, 2)}
    assert {case.steps for case in world.asked} == {500}
    for place, each in enumerate(ranked):
        best = SCREENED[each][2]
        same(arrays["Setting 2 rates"][place], grid.get(each, SEVEN_OTHERS))
        same(arrays["Setting 3 scores"][place].min(), np.log(4 * best[2]))
        same(np.exp(arrays["Setting 3 scores"][place][:5]), np.multiply(at_rate[:5], 4 * best[2]))
        assert (arrays["Setting 3 scores"][place][5:] == np.inf).all()


# ---- Effort --------------------------------------------------------------------------------------

# {experiment: {steps: how many trainings on seeds 0, 1, ..., and on fresh ones}, and {what is
# measured: at how many points of a path, on how many batches; noise: draws, and how often}}, of
# --full (6 seeds, 10,000 steps; no loss is lower than another), and the same of --quick (2 and 100)
EFFORT = {
    "adam_vs_sgd": (
        {10_000: (36 + 126, 72)}, {"squared_errors": {(1, 100)}}, {100: (12, 0)}, {}),
    "gradient_noise": ({}, {"noise": {(10_000, 36)}}, {}, {"noise": {(100, 6)}}),
    "condition_number": (
        {10_000: (36, 0), 2500: (0, 108)},
        {"condition": {(13, 3)}, "diagonal": {(1, 20), (1, 100)}},
        {100: (12, 0)}, {"condition": {(2, 1)}}),
    "directional_smoothness": (
        {10_000: (36, 36), 2500: (0, 108)}, {"smoothness": {(50, 1), (25, 20)}},
        {100: (12, 0)}, {"smoothness": {(2, 1)}}),
    "generalized_smoothness": (
        {10_000: (18, 0), 2500: (0, 54)},
        {"gradient_norm": {(40, 1), (40, 4)}, "smoothness": {(40, 1), (40, 4)},
         "spectral_norm": {(20, 1)}},
        {100: (6, 0)},
        {"gradient_norm": {(2, 1)}, "smoothness": {(2, 1)}, "spectral_norm": {(1, 1)}}),
    "softmax_vs_linear": ({2000: (24 + 72, 24)}, {}, {100: (8, 0)}, {}),
    "larger_model": (
        {2500: (0, 12)}, {"noise": {(1000, 10)}}, {100: (0, 4)}, {"noise": {(40, 2)}}),
    "heavy_tails": (
        {10_000: (0, 36)}, {"condition": {(10, 5)}, "noise": {(2000, 36)}},
        {100: (0, 12)}, {"condition": {(2, 1)}, "noise": {(20, 6)}}),
    "depth": (
        {10_000: (0, 48), 1000: (0, 48)},
        {"condition": {(10, 5), (1, 5)}, "loss_at": {(200, 5)}, "noise": {(2000, 48)}},
        {100: (0, 16)}, {"condition": {(2, 1)}, "noise": {(20, 8)}}),
    "learning_rates": (
        {10_000: (126, 72), 500: (168, 0), 250: (28, 0)}, {}, {100: (126, 24)}, {}),
    "full_batch": (
        {600: (756, 216)}, {"loss_at": {(2, 20)}}, {100: (252, 24)}, {"loss_at": {(2, 20)}}),
    "clipping": (
        {10_000: (36, 0), 2500: (0, 72), 2000: (72, 0)},
        {"clipped_smoothness": {(10, 1), (10, 10)}, "smoothness": {(20, 4)}},
        {100: (12, 0)}, {"clipped_smoothness": {(2, 1)}}),
    "initialization": ({400: (288, 0)}, {}, {100: (96, 0)}, {}),
    "tails_times_depth": (
        {500: (324, 108)}, {"noise": {(1000, 54)}}, {100: (324, 36)}, {"noise": {(200, 18)}}),
    "label_noise": (
        {2000: (150, 60)}, {"loss_at": {(2, 20)}}, {100: (150, 20)}, {"loss_at": {(2, 20)}}),
    "remedies": ({500: (216, 0)}, {"loss_at": {(2, 20)}}, {100: (72, 0)}, {"loss_at": {(2, 20)}}),
    "the_model": ({}, {}, {}, {}),
    "condition_causes": (
        {800: (0, 144), 2500: (0, 36)}, {"condition": {(1, 5)}, "diagonal": {(1, 100)}},
        {100: (0, 60)}, {"condition": {(1, 5)}, "diagonal": {(1, 10)}}),
    "what_it_learns": ({2000: (24, 0), 10_000: (12, 0)}, {}, {100: (8, 0), 500: (4, 0)}, {}),
    "one_layer": ({2000: (48, 0)}, {}, {100: (16, 0)}, {}),
    "granularity": (
        {2000: (8 * 7 * 21, 8 * 7 * 6)}, {"block_spectra": {(1, 1)}},
        {100: (8 * 21, 8 * 2)}, {"block_spectra": {(1, 1)}}),
    "schedules": ({4000: (9 * 63, 9 * 18)}, {}, {100: (9 * 63, 9 * 6)}, {}),
    "edge_of_stability": (
        {2500: (0, 18)}, {"sharpness": {(20, 5)}}, {100: (0, 6)}, {"sharpness": {(2, 1)}}),
    "nonlinear_regression": (
        {10_000: (0, 10)},
        {"condition": {(10, 3)}, "smoothness": {(10, 3)}, "noise": {(10_000, 10)}},
        {100: (0, 4)}, {"condition": {(2, 1)}, "smoothness": {(2, 1)}, "noise": {(100, 2)}}),
    "screen": ({500: (8 * 3 * 7 * 6, 0)}, {}, {100: (8 * 3 * 7 * 2, 0)}, {}),
    "attention_cost": ({}, {}, {}, {}),
}


def asked_for(world):
    """The two dicts of a row of EFFORT."""
    trainings, measures = {}, {}
    for steps in {case.steps for case in world.asked}:
        new = [case.seed >= FRESH for case in world.asked if case.steps == steps]
        trainings[steps] = new.count(False), new.count(True)
    for function, *arguments in world.tasks:
        if function == "evaluate":  # of paths that were chosen by hand
            measure, _, path, batches, _ = arguments
            measures.setdefault(measure.__name__, set()).add((len(path), batches))
        elif function not in ("noise", "descent", "layer_gradients", "cost_seconds"):
            measures.setdefault(function, set()).add(tuple(arguments))
    noise = Counter(task[3] for task in world.tasks if task[0] == "noise")
    return trainings, measures | (dict(noise=set(noise.items())) if noise else {})


def stand_ins(name, world, monkeypatch):
    """What the made-up world needs besides, for every experiment; and what is slow in long runs."""
    if name in ("what_it_learns", "one_layer"):
        world.snapshots = weights
    world.noise = lambda setting, seed, draws: noises(draws, 1 + seed % FRESH, null=1.1)
    monkeypatch.setattr(experiments, "ridge_losses", lambda setting, penalty: np.ones(20))
    monkeypatch.setattr(experiments, "last_fifty", lambda losses: losses)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_effort(name, world, monkeypatch):
    """What is trained and measured, on which seeds, is what EFFORT says, in long and in short."""
    stand_ins(name, world, monkeypatch)
    for budget, wanted in ((experiments.FULL, EFFORT[name][:2]),
                           (experiments.QUICK, EFFORT[name][2:])):
        world.asked.clear(), world.tasks.clear()
        EXPERIMENTS[name].measure(experiments.default_run(name).spend(**budget))
        assert asked_for(world) == wanted


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_least_effort(name, world, monkeypatch):
    """One seed and one step stay what they are, but for three pilot seeds, and five times the
    steps; noise is drawn five times at least, if not as often as the run has steps."""
    stand_ins(name, world, monkeypatch)
    with np.errstate(invalid="ignore"):  # of one draw there is no skewness
        _, parts = EXPERIMENTS[name].measure(experiments.default_run(name).spend(seeds=1, steps=1))
    assert {case.steps for case in world.asked} <= ({1, 5} if name == "what_it_learns" else {1})
    assert {case.seed for case in world.asked} <= {0, 1, 2, 1000}
    draws = {task[2:4] for task in world.tasks if task[0] == "noise"}
    assert draws <= {(1000, 1 if name == "gradient_noise" else 5)}
    assert not any(part.level == "robust" and part.bounded for part in parts
                   if name != "learning_rates")
