"""What is said of claims C1 to C5 and of the protocol, on made-up runs whose answer is known."""

import numpy as np
import pytest

import data
import experiments
from experiments import EXPERIMENTS, PAPER_SETTINGS, decisions, thorough, verdicts
from made_up import (ALL_THREE, NAMES, SPREAD, check, curve, noises, one_by_one, same,
                     settings_asked, turned, two_valued, world)  # noqa: F401
from optimizers import SGD, Adam, SignDescent
from training import Run

FIVE = SPREAD[:5]
EIGHTEEN = np.tile(SPREAD, 3)
SHORT = Run(seeds=5, steps=1951)  # too short for the robust level; 40 snapshots, as with 2,000
LONG = Run(seeds=5, steps=2000)


def spread_of(case):
    """The factor of the case's seed: the six of SPREAD, again and again."""
    return SPREAD[case.number % 6]


def found_in(parts):
    return {part.name: part.values for part in parts}


def claimed_at(parts, level):
    return {part.name for part in parts if part.bounded and part.level == level}


def seeds_asked(world):
    """{(name of the setting, optimizer, steps): seeds}"""
    found = {}
    for case in world.asked:
        found.setdefault((case.name, case.optimizer, case.steps), []).append(case.seed)
    return found


# ---- C1 ------------------------------------------------------------------------------------------


C1 = {"Setting 1: final loss SGD / Adam": 4.0, "Setting 2: final loss SGD / Adam": 3.0,
      "Setting 3: final loss SGD / Adam": 2.0}


@one_by_one(C1)
def test_C1_adam_vs_sgd(world, wrong):
    """Adam ends at 0.6, SGD at so many times that. A mean over the last steps would be larger."""
    ratio = turned(C1, wrong)
    world.loss = lambda case: curve(case.steps, 0.6 if case.optimizer == "Adam" else 0.6
                                    * ratio[f"{case.name}: final loss SGD / Adam"]
                                    * spread_of(case))
    world.grad_norm = lambda case: np.arange(case.steps) + 100.0 * case.seed + case.lr
    arrays, parts = experiments.adam_vs_sgd(Run(seeds=5, steps=50))
    expected = {}
    for name in NAMES:
        times = ratio[f"{name}: final loss SGD / Adam"]
        expected |= {f"{name}: final loss SGD / Adam": times * FIVE,
                     f"{name}: final loss SGD": 0.6 * times * FIVE,
                     f"{name}: final loss Adam": np.full(5, 0.6)}
    check(parts, expected, C1, wrong)
    assert verdicts(parts).keys() == {"published"}

    assert settings_asked(world) == {
        "Setting 1": data.SETTING_1, "Setting 2": data.SETTING_2, "Setting 3": data.SETTING_3}
    assert [(case.optimizer, case.lr) for case in world.asked if case.seed == 0] == [
        ("SGD", 0.02), ("Adam", 0.02), ("SGD", 0.01), ("Adam", 0.005), ("SGD", 0.02),
        ("Adam", 0.02)]
    assert set(map(tuple, seeds_asked(world).values())) == {(0, 1, 2, 3, 4)}
    assert list(arrays["optimizers"]) == ["SGD", "Adam"] and len(arrays["iteration"]) == 50
    same(arrays["Setting 2 loss"][:, :, -3], [expected["Setting 2: final loss SGD"], [0.6] * 5])
    assert arrays["Setting 2 norm"].shape == (2, 5, 50)
    same(arrays["Setting 2 norm"][:, :2, -1], [[49.01, 149.01], [49.005, 149.005]])


def test_C1_says_what_diverged(world):
    """SGD on seed 3, from step 30 on: the claim is open, not lost."""
    def loss(case):
        values = curve(case.steps, 1.0 if case.optimizer == "Adam" else 2.0 * spread_of(case))
        if (case.name, case.optimizer, case.seed) == ("Setting 2", "SGD", 3):
            values[30:] = np.nan
        return values

    world.loss = loss
    _, parts = experiments.adam_vs_sgd(Run(seeds=5, steps=50))
    found = found_in(parts)
    assert found["Setting 2: diverged"] == "SGD, seed at index 3, at step 30"
    assert "Setting 1: diverged" not in found
    assert decisions(parts)["Setting 2: final loss SGD / Adam"] == "open"
    assert verdicts(parts) == {"published": "open"}


FIRST = {"SGD": {"final loss": 0.1, "steps": 0.2}, "Adam": {"final loss": 0.05, "steps": 0.1}}
PRINTED = {"Setting 1": (0.02, 0.02), "Setting 2": (0.01, 0.005), "Setting 3": (0.02, 0.02)}
TARGETS = {"Setting 1": 0.5, "Setting 2": 0.25, "Setting 3": 0.0005}
DEPTHS = {("Setting 1", "SGD"): 0.3, ("Setting 1", "Adam"): 0.07,  # so low does the loss get
          ("Setting 2", "SGD"): 0.07, ("Setting 2", "Adam"): 0.2,
          ("Setting 3", "SGD"): 1e-5, ("Setting 3", "Adam"): 1e-5}
C1_ROBUST = [f"{name}, best rates: {what}" for name in NAMES for what in (
    "final loss SGD / Adam", f"steps to loss {TARGETS[name]:g}, SGD / Adam")]


def stairs(case, reached, depth, end):
    """A loss that is 100, from step number `reached` on so low, and at last that of `curve`."""
    loss = curve(case.steps, end)
    loss[: case.steps * 9 // 10] = 100.0
    loss[reached - 1 : case.steps * 9 // 10] = depth
    return loss


def of_a_pilot(case):
    """On the pilot seeds, 0 to 2, the rates FIRST have the lowest geometric mean of the final loss
    and of the steps. Others would be chosen by an arithmetic mean (0.02), by two seeds of three
    (0.5 or 0.001, where one is lost; 0.05 or 0.005, where one is very low), or for a target that
    is not the lowest (0.01)."""
    first, depth = FIRST[case.optimizer], DEPTHS[case.name, case.optimizer]
    end, reached = 10.0, 40
    if case.lr == first["final loss"]:
        end = (1.0, 1.0, 8.0)[case.seed]
    if case.lr == first["steps"]:
        reached = (10, 10, 100)[case.seed]  # the median of 50 is there after 19 or 125 steps
    if case.lr == 0.02:
        end, reached = 2.5, 27  # 52 steps
    if case.lr == 0.01:
        reached, depth = 1, 0.9
    if case.lr == (0.05 if case.optimizer == "SGD" else 0.005) and case.seed == 0:
        depth = 1e-9
    if case.lr == (0.5 if case.optimizer == "SGD" else 0.001):
        end, reached, depth = (0.5, 1, depth) if case.seed < 2 else (np.nan, 1, 100.0)
    return stairs(case, reached, depth, end)


# The next higher losses of the ladder, at most two, which the stairs pass in the same step.
HIGHER = {"Setting 1": [1.0], "Setting 2": [1.0, 0.5], "Setting 3": [0.0025, 0.001]}


@one_by_one(C1_ROBUST)
def test_C1_at_best_rates(world, wrong):
    """On fresh seeds Adam ends at 0.6 and needs 60 + k steps, SGD four times as much and 120 + k,
    each at its rate for it; at the other rates it is the other way round."""
    def loss(case):
        if case.seed < 1000:
            return of_a_pilot(case)
        k, sgd, depth = case.number, case.optimizer == "SGD", TARGETS[case.name] / 2
        end, reached = (0.01, 2) if sgd else (50.0, 110)
        if case.lr == FIRST[case.optimizer]["final loss"]:
            times = 1 / 4 if C1_ROBUST[2 * NAMES.index(case.name)] in wrong else 4
            end = 0.6 * times * SPREAD[k] if sgd else 0.6
        if case.lr == FIRST[case.optimizer]["steps"]:
            slow = sgd != (C1_ROBUST[2 * NAMES.index(case.name) + 1] in wrong)
            reached = (120 if slow else 60) + k - 25  # when half of the last 50 are below
        return stairs(case, reached, depth, end)

    world.loss = loss
    run = Run(seeds=6, steps=200, lr=dict(SGD=0.07))  # a rate that has no part in it
    arrays, parts = experiments.at_best_rates(run)
    expected, k = {}, np.arange(6)
    for name, (sgd_rate, adam_rate) in PRINTED.items():
        ratio, steps = C1_ROBUST[2 * NAMES.index(name) :][:2]
        times = (1 / 4 if ratio in wrong else 4) * SPREAD
        fast, slow = 60 + k, 120 + k
        sgd, adam = (fast, slow) if steps in wrong else (slow, fast)
        target = f"{TARGETS[name]:g}"
        expected |= {
            ratio: times, steps: sgd / adam,
            f"{name}, best rate: final loss SGD": 0.6 * times,
            f"{name}, best rate: final loss Adam": np.full(6, 0.6),
            f"{name}: steps of SGD to loss {target}": ", ".join(map(str, sgd)),
            f"{name}: steps of Adam to loss {target}": ", ".join(map(str, adam)),
            f"{name}: rates of SGD":
                f"0.1 for final loss, 0.2 for steps, {sgd_rate:g} for published",
            f"{name}: rates of Adam":
                f"0.05 for final loss, 0.1 for steps, {adam_rate:g} for published"} | {
            f"{name}, limit: steps to loss {higher:g} at the same rates, SGD / Adam": sgd / adam
            for higher in HIGHER[name]}
    check(parts, expected, C1_ROBUST, wrong, level="robust")

    asked = [(case.optimizer, case.lr, case.seed) for case in world.asked
             if case.name == "Setting 2"]
    assert asked == [(each, lr, seed) for each, rates in (
        ("SGD", (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)),
        ("Adam", (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)))
        for lr in rates for seed in (0, 1, 2)] + [(each, lr, seed) for each, rates in (
            ("SGD", (0.01, 0.1, 0.2)), ("Adam", (0.005, 0.05, 0.1)))
            for lr in rates for seed in range(1000, 1006)]
    assert settings_asked(world) == PAPER_SETTINGS
    assert arrays["Setting 3 target"] == 0.0005
    if not wrong:
        same(arrays["Setting 1 steps"], [120 + k, 60 + k])
        assert arrays["Setting 1 loss at best rates"].shape == (2, 6, 50)
        same(arrays["Setting 1 loss at best rates"][:, :, -3], [2.4 * SPREAD, [0.6] * 6])


def test_C1_counts_who_does_not_get_there_as_last(world):
    """On fresh seeds SGD does not get there in Setting 1, in Setting 2 both do, in 3 Adam does not.
    A sign test of twelve seeds decides."""
    never = {"Setting 1": "SGD", "Setting 2": "", "Setting 3": "Adam"}

    def loss(case):
        if case.seed < 1000:
            return of_a_pilot(case)
        reached, end = (60, 2.0) if case.optimizer == "SGD" else (40, 1.0)
        lost = case.optimizer == never[case.name]
        depth = 100.0 if lost else TARGETS[case.name] / 2
        return stairs(case, reached, depth, end * spread_of(case))

    world.loss = loss
    _, parts = experiments.at_best_rates(Run(seeds=12, steps=200))
    names = [f"{name}, best rates: steps to loss {TARGETS[name]:g}, SGD / Adam" for name in NAMES]
    found, decided = found_in(parts), decisions(parts)
    np.testing.assert_array_equal([found[name] for name in names],
                                  np.repeat([[np.inf], [85 / 65], [0]], 12, axis=1))
    assert [decided[name] for name in names] == ["holds", "holds", "against"]
    assert found["Setting 1: steps of SGD to loss 0.5"] == ", ".join(["> 200"] * 12)
    assert found["Setting 1: steps of Adam to loss 0.5"] == ", ".join(["65"] * 12)


def test_C1_is_open_where_nobody_gets_there(world):
    world.loss = lambda case: (of_a_pilot(case) if case.seed < 1000 else
                               stairs(case, 40, 100.0, 2.0 if case.optimizer == "SGD" else 1.0))
    _, parts = experiments.at_best_rates(Run(seeds=6, steps=200))
    for name in NAMES:
        part = f"{name}, best rates: steps to loss {TARGETS[name]:g}, SGD / Adam"
        assert np.isnan(found_in(parts)[part]).all() and decisions(parts)[part] == "open"


def test_fastest_rate():
    """Geometric means of the steps: 10 at the rate 0.2 (1 and 100), 20 at 0.3, and 30 at 0.4;
    arithmetic ones would choose 0.3; at 0.1 one seed never gets there."""
    medians = np.full((4, 2, 100), 5.0)
    for rate, (first, second) in enumerate(((1, 101), (1, 100), (20, 20), (30, 30))):
        medians[rate, 0, first - 1 :] = medians[rate, 1, second - 1 :] = 1.0
    rates = np.array([0.1, 0.2, 0.3, 0.4])
    assert experiments.fastest(rates, medians, 2.0) == 0.2
    assert experiments.fastest(rates[::-1], medians[::-1], 2.0) == 0.2
    assert experiments.fastest(rates, medians, 1.0) is None  # below it, not at it
    assert experiments.fastest(rates[:1], medians[:1], 2.0) is None


def test_chosen_rates(world):
    world.loss = of_a_pilot
    chosen = experiments.chosen_rates(Run(seeds=9, steps=200, first_seed=1000))
    assert list(chosen) == list(NAMES)
    for name, (sgd, adam) in PRINTED.items():
        assert chosen[name].target == TARGETS[name]
        assert chosen[name].rates == {"SGD": FIRST["SGD"] | dict(published=sgd),
                                      "Adam": FIRST["Adam"] | dict(published=adam)}
        assert chosen[name].tried["SGD"].loss.shape == (7, 3, 200)


def test_chosen_rates_of_a_run_that_gets_nowhere(world):
    """No loss is below d: then the target stays the highest of the ladder, and the rates are those
    of the final loss. An optimizer without a published rate has none."""
    class Lion(SGD):
        pass

    world.loss = lambda case: curve(case.steps, 7.0 if case.lr == 0.05 else 9.0)
    chosen = experiments.chosen_rates(Run(steps=20, optimizers=(SGD, Lion)))
    for name in NAMES:
        assert chosen[name].target == 1
        assert chosen[name].rates == {
            "SGD": {"final loss": 0.05, "steps": 0.05, "published": PRINTED[name][0]},
            "Lion": {"final loss": 0.05, "steps": 0.05}}


LOW = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
MIDDLE = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
HIGH = (0.5, 1, 2, 5, 10, 20, 50)
TENFOLD = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1)


def test_grid_of_rates():
    for setting, sgd in ((data.SETTING_1, MIDDLE), (data.SETTING_3, MIDDLE),
                         (data.LARGE, MIDDLE), (data.SPHERICAL, HIGH), (data.LIGHT_TAILS, HIGH)):
        low = TENFOLD if sgd is HIGH else LOW
        for name, rates in dict(SGD=sgd, Adam=low, SignDescent=low, Lion=low).items():
            np.testing.assert_allclose(experiments.rate_grid(setting, name), rates)
    for setting in PAPER_SETTINGS.values():
        for each in ALL_THREE:
            name = each.__name__
            assert setting.lr[name] in experiments.rate_grid(setting, name)


def test_C1_limit_of_single_prompts(world):
    """SGD's errors are 0 to 99,999 times the seed's factor, so that the quantile q is 99,999 q of
    it; Adam's are steps: 1, then 4, 16, 64 and 256 where the next quantile lies."""
    def squared_errors(case, point, batch):
        assert point == 4 - 1
        rank = 1000 * batch + np.arange(1000)
        if case.optimizer == "SGD":
            return rank[::-1] * spread_of(case)
        return 4.0 ** np.searchsorted((70_000, 95_000, 99_500, 99_950), rank, side="right")

    world.squared_errors = squared_errors
    run = Run(seeds=6, steps=200)
    arrays, parts = experiments.single_prompts(run, run.train(PAPER_SETTINGS))
    expected = {}
    for name in NAMES:
        for q, adam in ((0.5, 1), (0.9, 4), (0.99, 16), (0.999, 64), (0.9999, 256)):
            expected[f"{name}, limit: quantile {q:g} of the prompts' loss, SGD / Adam"] = (
                99_999 * q * SPREAD / adam)
    check(parts, expected)  # nothing is claimed
    assert world.tasks == [("squared_errors", 1, 100)] * 3
    same(arrays["quantiles"], [0.5, 0.9, 0.99, 0.999, 0.9999])
    same(arrays["Setting 2 quantiles"][:, 1], [0.9 * 99_999 * SPREAD, [4] * 6])
    assert all(part.log for part in parts)


def test_C1_of_a_long_run(world):
    """All three looks: 3 parts are published, 6 robust; single prompts at the published rates."""
    arrays, parts = experiments.adam_vs_sgd(LONG)
    assert thorough(LONG) and claimed_at(parts, "published") == set(C1)
    robust = claimed_at(parts, "robust")  # every loss is below 100 only at the end: no target
    assert {name.split(":")[0] for name in robust} == {f"{name}, best rates" for name in NAMES}
    assert len(robust) == 6
    assert [task[0] for task in world.tasks] == ["squared_errors"] * 3
    assert {(case.seed, case.lr) for case in world.asked[:30]} == {
        (seed, lr) for seed in range(5) for lr in (0.02, 0.01, 0.005)}
    for ending in ("loss", "norm", "loss at best rates", "target", "steps", "quantiles"):
        assert f"Setting 3 {ending}" in arrays
    assert len({part.name for part in parts}) == len(parts)


# ---- C2 ------------------------------------------------------------------------------------------


C2 = [f"{name}: skewness of the noise norm" for name in NAMES]
SPREADS = [f"{name}: 99 % quantile over median of the noise norm" for name in NAMES]
C2_ROBUST = [f"{name}, minus that of Gaussian vectors" for name in SPREADS]


@one_by_one(C2)
def test_C2_gradient_noise(world, wrong):
    """Of 200 norms 5, 6, ... are ten times as large as the others: a right tail; or 195, 194, ...:
    a left one."""
    outliers = {name: 195 - np.arange(5) if part in wrong else 5 + np.arange(5)
                for name, part in zip(NAMES, C2)}
    world.noise = lambda setting, seed, draws: noises(
        draws, outliers[setting.name][seed - 1000], scale=10.0 ** (seed - 1000), null=3.0)
    arrays, parts = experiments.gradient_noise(Run(seeds=5, steps=200))
    check(parts, {part: two_valued(3, outliers[name] / 200) for name, part in zip(NAMES, C2)},
          C2, wrong)
    assert not any(part.log for part in parts)

    assert world.tasks == [("noise", setting, seed, 200, True)
                           for setting in PAPER_SETTINGS.values() for seed in range(1000, 1005)]
    assert world.asked == []
    share = arrays["share"]
    assert arrays["Setting 2 tail"].shape == (5, len(share)) == (5, len(arrays["Setting 2 null"]))
    if not wrong:  # over each seed's own median
        reached = (arrays["Setting 2 tail"] > 5).sum(axis=1)
        same(200 * share[reached - 1], [5, 6, 7, 8, 9])
        same(arrays["Setting 2 null"], np.where(share < 0.1001, 3.0, 1.0))


def noise_against_null(high, outliers=lambda k: 200):
    """Norms of seed number k, so many of them high(name, k) and the others 1; and twenty samples
    whose quantile is 4 in most of them, 2 in eight, and in one 8, from the eighth seed on 50."""
    def noise(setting, seed, draws):
        k = seed - 1000
        top = np.array([4.0] * 11 + [2.0] * 8 + [8.0 if k < 7 else 50.0])
        null = np.where(np.arange(draws) < draws // 10, top[:, None], 1.0)
        norms = np.where(np.arange(draws) < outliers(k), high(setting.name, k), 1.0)
        return dict(norms=norms * 10.0**k, null=null * 10.0**-k)
    return noise


@one_by_one(C2_ROBUST)
def test_C2_against_gaussian_vectors(world, wrong):
    """The quantile over the median is 10, 11, ... or 3, 3.02, ...; that of Gaussian vectors 4. The
    published part takes five seeds, the other twelve."""
    k = np.arange(12)
    high = {name: 3 + k / 50 if part in wrong else 10.0 + k
            for name, part in zip(NAMES, C2_ROBUST)}
    world.noise = noise_against_null(lambda name, k: high[name][k], lambda k: 100 + 10 * k)
    arrays, parts = experiments.gradient_noise(LONG)
    expected = {part: two_valued(3, (100 + 10 * np.arange(5)) / 2000) for part in C2}
    for name, part, of_noise in zip(NAMES, C2_ROBUST, SPREADS):
        middle, beyond = ("3.11", 0) if part in wrong else ("15.5", 7)
        expected |= {part: high[name] - 4,
                     f"{of_noise}, medians over seeds": f"{middle}, Gaussian 4",
                     f"{of_noise}, seeds above all 20 Gaussian samples": f"{beyond} of 12"}
    check(parts, expected, C2_ROBUST, wrong, level="robust")
    check(parts, {}, C2, only=True)
    assert all(part.sign and not part.log for part in parts if part.level == "robust")
    assert arrays["Setting 1 tail"].shape == (12, len(arrays["share"]))
    same(arrays["Setting 1 null"][[0, -1]], [4, 1])  # the median of all samples
    assert world.tasks == [("noise", setting, seed, 2000, True)
                           for setting in PAPER_SETTINGS.values() for seed in range(1000, 1012)]


def test_C2_is_decided_by_signs(world):
    """Nine, ten, all of twelve seeds lie far above the Gaussian vectors, the others just below: by
    a t test all would do."""
    far = dict(zip(NAMES, (9, 10, 12)))
    world.noise = noise_against_null(lambda name, k: 10.0 if k < far[name] else 3.9)
    _, parts = experiments.gradient_noise(LONG)
    decided = decisions(parts)
    assert [decided[part] for part in C2_ROBUST] == ["open", "holds", "holds"]
    assert verdicts(parts) == dict(published="reproduced", robust="open")


# ---- C3 ------------------------------------------------------------------------------------------


C3 = {"Setting 1, iteration 750, first batch": 2.5, "Setting 1, iteration 1250, first batch": 2.7,
      "Setting 2, iteration 750, first batch": 2.9, "Setting 2, iteration 1250, first batch": 3.1,
      "Setting 3, iteration 750, first batch": 3.3, "Setting 3, iteration 1250, first batch": 3.5}
PUBLISHED = {("Setting 1", 750): (1.76, 0.40), ("Setting 1", 1250): (1.58, 0.41),
             ("Setting 2", 750): (3.14, 0.97), ("Setting 2", 1250): (5.98, 2.86),
             ("Setting 3", 750): (9.57, 13.3), ("Setting 3", 1250): (6.53, 3.55)}


@one_by_one(C3)
def test_C3_condition_number(world, wrong):
    """Such a ratio has a mean above 1 if at most three of five seeds are exchanged, which is so in
    1 + 5 + 10 + 10 of 32 ways; when turned round, if at least two are; both in 10 + 10 ways."""
    ratio = turned(C3, wrong)

    def condition(case, point, batch):
        adam = 1.0 + point + case.seed
        if case.optimizer == "Adam":
            return adam
        return adam * spread_of(case) * ratio.get(
            f"{case.name}, iteration {50 * point}, first batch", 7.0)

    world.condition = condition
    arrays, parts = experiments.condition_number(SHORT)
    expected = {name: value * FIVE for name, value in ratio.items()}
    expected["labels exchanged"] = (
        f"of 32 ways 26 26 26 26 26 26 give a mean above 1, and {20 if wrong else 26} in all 6 "
        "cases at once")
    for (name, t), (paper, of_paper) in PUBLISHED.items():
        value = ratio[f"{name}, iteration {t}, first batch"]
        mean, std = 1.022 * value, np.sqrt(0.00037) * value  # of SPREAD's first five
        expected[f"{name}, iteration {t}: mean (std)"] = (
            f"{mean:.3g} ({std:.2g}), paper {paper:g} ({of_paper:g})")
    check(parts, expected, C3, wrong, dict.fromkeys(C3, (1, None)))
    assert not any(part.log for part in parts if part.bounded)  # the paper's mean is arithmetic

    assert settings_asked(world) == PAPER_SETTINGS
    assert set(map(tuple, seeds_asked(world).values())) == {(0, 1, 2, 3, 4)}
    assert world.tasks == [("condition", 8, 1)] * 3
    same(arrays["iteration"], [0, 50, 100, 150, 250, 400, 750, 1250])
    path = 1 + np.array([0, 1, 2, 3, 5, 8, 15, 25]) + np.arange(5)[:, None]
    assert arrays["Setting 2 path"].shape == (2, 5, 8)
    same(arrays["Setting 2 path"][1], path)
    same(arrays["Setting 2 path"][0, :, :6], (7 * FIVE[:, None] * path)[:, :6])
    same(arrays["Setting 2, iteration 750 first batch"],
         expected["Setting 2, iteration 750, first batch"])


def test_C3_of_a_short_run_is_measured_at_its_end(world):
    world.condition = lambda case, point, batch: (
        3.0 * (1 + case.seed) if case.optimizer == "SGD" else 3.0)
    for seeds, words in ((1, "1 (0), paper none"), (2, "1.5 (0.71), paper none")):
        _, parts = experiments.condition_number(Run(seeds=seeds, steps=120))
        assert [part.name for part in parts] == [
            f"{name}, iteration 100{what}" for name in NAMES
            for what in (", first batch", ": mean (std)")] + ["labels exchanged"]
        assert parts[1].values == words
        assert verdicts(parts) == dict(published="open")  # so few seeds have no interval
    _, parts = experiments.condition_number(Run(seeds=1, steps=751))
    assert parts[0].name == "Setting 1, iteration 750, first batch"


C3_ROBUST = {f"{name}, iteration {t}, typical batch": ratio * (1.1 if t == 1250 else 1)
             for name, ratio in zip(NAMES, (3.0, 4.0, 5.0)) for t in (750, 1250)}


@one_by_one(C3_ROBUST)
def test_C3_typical_batch(world, wrong):
    """The diagonal is (-20 r, 1, -0.25): R_med = 20 |r|. On batch b of the first twenty r is 1 + b
    for Adam, and the typical ratio times that for SGD; but on the first batch it is 1,000 for SGD,
    on the second one 0.2 for Adam. On the other eighty it is 1 for Adam and such a number for SGD,
    below 0, that the mean over all is -P times that of Adam, P = 2 or 1/2. So the median over
    batches of the ratio is neither that of single medians nor the ratio of all together."""
    ratio = turned(C3_ROBUST, wrong)
    together = {name: 0.5 if "Setting 2" in name else 2.0 for name in ratio}
    adam = np.append(1.0 + np.arange(20), np.ones(80))
    adam[1] = 0.2
    sgd = {}
    for name, typical in ratio.items():
        first = np.append(1000.0, typical * np.arange(2, 21))
        rest = (-together[name] * adam.sum() - first.sum()) / 80
        sgd[name] = np.append(first, np.full(80, rest))

    def diagonal(case, point, batch):
        r = adam[batch]
        if case.optimizer == "SGD":
            r = sgd[f"{case.name}, iteration {50 * point}, typical batch"][batch] * spread_of(case)
        return np.array([-20 * r, 1, -0.25])

    world.diagonal = diagonal
    arrays, parts = experiments.typical_condition(LONG, [750, 1250])
    expected = {name: value * EIGHTEEN for name, value in ratio.items()}
    for name in ratio:
        label = name.removesuffix(", typical batch")
        single = np.outer(EIGHTEEN, np.abs(sgd[name] / adam)[:20])
        low, high = np.percentile(single, (5, 95))
        expected |= {f"{label}, limit: 100,000 prompts together": together[name] * SPREAD,
                     f"{label}: 90 % of single batches": f"{low:.3g} to {high:.3g}"}
    check(parts, expected, C3_ROBUST, wrong, level="robust")
    assert all(part.log for part in parts if part.bounded)

    assert set(map(tuple, seeds_asked(world).values())) == {tuple(range(1000, 1018))}
    assert {case.steps for case in world.asked} == {2500}
    assert world.tasks == [("diagonal", 1, 20), ("diagonal", 1, 100)] * 6
    name = "Setting 2, iteration 750"
    same(arrays[f"{name} typical batch"], expected[f"{name}, typical batch"])
    same(arrays[f"{name} together"], 0.5 * SPREAD)


def test_C3_of_a_long_run(world):
    """Two levels; the path is that of the median of three batches, which are 1, 70 and 4 times the
    typical one; the published ratio is that on the first of them, 1/2."""
    world.condition = lambda case, point, batch: (1 + point + case.number) * (
        (1.0, 70, 4)[batch % 3] if case.optimizer == "SGD" else (2.0, 1, 9)[batch % 3])
    arrays, parts = experiments.condition_number(LONG)
    assert world.tasks[:3] == [("condition", 8, 3)] * 3
    path = 1 + np.array([0, 1, 2, 3, 5, 8, 15, 25]) + np.arange(5)[:, None]
    same(arrays["Setting 1 path"], [4 * path, 2 * path])
    assert claimed_at(parts, "published") == set(C3)
    assert claimed_at(parts, "robust") == set(C3_ROBUST)
    same(found_in(parts)["Setting 3, iteration 1250, first batch"], [0.5] * 5)
    assert list(arrays["iterations"]) == [750, 1250]
    assert arrays["Setting 3, iteration 1250 together"].shape == (6,)


@pytest.mark.parametrize("steps", (1, 210, 750))
def test_C3_measures_at_the_last_snapshot_of_a_short_run(world, steps):
    """Which is no point of the long runs' path."""
    last = (steps - 1) // 50 * 50
    arrays, parts = experiments.condition_number(Run(seeds=1, steps=steps))
    assert parts[0].name == f"Setting 1, iteration {last}, first batch"
    assert last in arrays["iteration"]


def test_C3_published_numbers():
    """Table 1 of the paper: mean (standard deviation) over seeds at iterations 750 and 1250."""
    assert {(name, t): numbers for name, row in experiments.PAPER_C3.items()
            for t, numbers in row.items()} == PUBLISHED
    assert EXPERIMENTS["condition_number"].paper == (
        "Setting 1: 1.76 (0.4) and 1.58 (0.41); Setting 2: 3.14 (0.97) and 5.98 (2.86); "
        "Setting 3: 9.57 (13.3) and 6.53 (3.55)")


# ---- C4 ------------------------------------------------------------------------------------------


C4 = {f"{name}, first batch: difference of v^T H v": value
      for name, value in zip(NAMES, (2.0, 3.0, 4.0))}
C4_ROBUST = {f"{name}, typical batch, 2,500 steps: difference of v^T H v": value
             for name, value in zip(NAMES, (3.2, 4.0, 5.2))}
TOGETHER = {f"{name}, limit: 20,000 prompts together": value
            for name, value in zip(NAMES, (1.2, -2.0, 9.2))}  # SGD minus Adam


def smoothness_of(level, first, typical, together):
    """v^T H v of SGD is `level` plus such a difference, times the seed's factor, and of Adam
    `level`: on the first batch, on the eleven next, and such a number on the eight others that the
    mean over all is that of all together. It is 1,000 in the first tenth of the path, and again in
    the last part of it: so much of it that it would be the median, too, with the first tenth."""
    def smoothness(case, point, batch):
        if point < 4 or point >= (28 if case.steps == 2500 else 23):
            return 1000.0
        if case.optimizer == "Adam":
            return level
        name = case.name
        rest = (20 * together[name] - first[name] - 11 * typical[name]) / 8
        difference = first[name] if batch == 0 else typical[name] if batch < 12 else rest
        return level + difference * spread_of(case)
    return smoothness


def by_setting(values):
    return dict(zip(NAMES, values.values()))


@one_by_one(C4)
def test_C4_directional_smoothness(world, wrong):
    """Adam's is -0.5: what is claimed is a difference, no ratio."""
    difference = turned(C4, wrong, lambda value: -value)
    first = by_setting(difference)
    world.smoothness = smoothness_of(-0.5, first, dict.fromkeys(NAMES, 70.0), by_setting(TOGETHER))
    arrays, parts = experiments.directional_smoothness(SHORT)
    expected = {name: value * FIVE for name, value in difference.items()}
    expected |= {f"{name}, first batch: medians of v^T H v":
                 f"SGD {-0.5 + 1.02 * value:.3g}, Adam -0.5" for name, value in first.items()}
    check(parts, expected, C4, wrong)
    assert not any(part.log for part in parts if part.bounded)

    assert settings_asked(world) == PAPER_SETTINGS
    assert set(map(tuple, seeds_asked(world).values())) == {(0, 1, 2, 3, 4)}
    assert world.tasks == [("smoothness", 40, 1)] * 3
    same(arrays["iteration"], 50 * np.arange(40))
    assert arrays["Setting 1 first batch"].shape == (2, 5, 40)
    same(arrays["Setting 1 first batch"][0, :, 10], -0.5 + first["Setting 1"] * FIVE)
    same(arrays["Setting 1 first batch"][1, :, [3, 10, 39]], [[1000] * 5, [-0.5] * 5, [1000] * 5])


@one_by_one(C4_ROBUST)
def test_C4_typical_batch(world, wrong):
    difference = turned(C4_ROBUST, wrong, lambda value: -value)
    typical, first, together = map(by_setting, (difference, C4, TOGETHER))
    world.smoothness = smoothness_of(0.5, first, typical, together)
    arrays, parts = experiments.directional_smoothness(LONG)
    expected = {name: value * FIVE for name, value in C4.items()}
    expected |= {name: value * EIGHTEEN for name, value in difference.items()}
    for name in NAMES:
        rest = (20 * together[name] - first[name] - 11 * typical[name]) / 8
        shown = {"first batch": first, "typical batch, 2,500 steps": typical,
                 "limit: 20,000 prompts together": together}
        for kind, value in shown.items():  # the median of SPREAD is 1.025, that of five 1.02
            middle = 1.02 if kind == "first batch" else 1.025
            expected[f"{name}, {kind}: medians of v^T H v"] = (
                f"SGD {0.5 + middle * value[name]:.3g}, Adam 0.5")
        expected[f"{name}, limit: 20,000 prompts together: difference of v^T H v"] = (
            together[name] * EIGHTEEN)
        below = 11 * (typical[name] < 0) + 8 * (rest < 0)  # of 20 batches, at 12 of 25 points
        expected[f"{name}, negative"] = f"SGD {100 * below / 20 * 12 / 25:.0f} %, Adam 0 %"
    windows = [part for part in parts if "typical batch, steps" in part.name]
    assert len(windows) == 3 * 2 * 3 and not any(part.bounded for part in windows)
    check([part for part in parts if part not in windows], expected, C4_ROBUST, wrong,
          level="robust")
    check(parts, {}, C4, only=True)

    assert world.tasks == [("smoothness", 40, 1)] * 3 + [("smoothness", 25, 20)] * 3
    asked = seeds_asked(world)
    assert asked["Setting 2", "SGD", 2000] == [0, 1, 2, 3, 4]
    assert asked["Setting 2", "Adam", 2500] == list(range(1000, 1018))
    assert len(arrays["point"]) == 25
    same(arrays["point"][[0, 1, 2, -1]], [0, 100, 200, 2450])
    if not wrong:
        for kind, value in (("typical batch", typical), ("together", together)):
            path = arrays[f"Setting 3 {kind}"]
            assert path.shape == (2, 18, 25)
            same(path[:, :, 5], [0.5 + value["Setting 3"] * EIGHTEEN, [0.5] * 18])


def test_C4_in_windows_of_time(world):
    """SGD's v^T H v is the iteration, but for one batch; Adam's is 0. At the 25 points of 2,500
    steps, and every 300 steps from there to the end, on six seeds."""
    world.smoothness = lambda case, point, batch: (
        0.0 if case.optimizer == "Adam" else 1e6 if batch == 7 else 50.0 * point)
    arrays, parts = experiments.directional_smoothness(Run(seeds=6, steps=4000))
    found = {part.name: part for part in parts}
    for name in NAMES:
        for steps, middle, seeds in (("250 to 1,000", 600, 18), ("1,000 to 1,750", 1350, 18),
                                     ("1,750 to 2,500", 2100, 18), ("2,500 to 4,000", 3100, 6)):
            label = f"{name}, limit: typical batch, steps {steps}: difference of v^T H v"
            same(found[label].values, [middle] * seeds)
            assert not found[label].bounded
    same(arrays["late point"], [2500, 2800, 3100, 3400, 3700])
    same(arrays["Setting 3 late"][:, 5, 1], [2800, 0])
    assert world.tasks[-3:] == [("smoothness", 5, 20)] * 3
    late = [case for case in world.asked if case.steps == 4000 and case.seed >= 1000]
    assert {case.seed for case in late} == set(range(1000, 1006))


# ---- C5 ------------------------------------------------------------------------------------------


KINDS = "directional smoothness", "spectral norm"
C5 = [f"{name}, whole path: slope of the {what}" for name in NAMES for what in KINDS]
C5_ROBUST = [f"{name}, within windows: slope of the {what}" for name in NAMES for what in KINDS]


def far(point):
    return point // 10 % 2


@one_by_one(C5)
def test_C5_generalized_smoothness(world, wrong):
    """In each quarter of the path the gradient stays, 1 or 4, so that there is a slope over the
    whole path alone. v^T H v is 3 and 8, 9, 10, 9, 9 by the seed (in the first seed -1 at the first
    two points, which have no logarithm), the spectral norm |g|^(1.8, 2, 2.2, 2, 2.1)."""
    def smoothness(case, point, batch):
        if case.seed == 0 and point < 2:
            return -1.0
        down = f"{case.name}, whole path: slope of the directional smoothness" in wrong
        return (8.0, 9, 10, 9, 9)[case.seed] if far(point) != down else 3.0

    world.gradient_norm = lambda case, point, batch: 4.0 ** far(point)
    world.smoothness = smoothness
    world.spectral_norm = lambda case, point, batch: 4.0 ** (
        far(point) * (1.8, 2, 2.2, 2, 2.1)[case.seed]
        * (-1 if f"{case.name}, whole path: slope of the spectral norm" in wrong else 1))
    arrays, parts = experiments.generalized_smoothness(SHORT)
    expected = {}
    for name in NAMES:
        directional, spectral = (f"{name}, whole path: slope of the {what}" for what in KINDS)
        # the line through the means: 2.92 at 1 and 9 at 4, or 8.82 at 1 and 3 at 4
        line = "L0 = 10.8, L1 = -1.94" if directional in wrong else "L0 = 0.893, L1 = 2.03"
        expected |= {
            directional: np.log(np.array([8, 9, 10, 9, 9]) / 3) / np.log(4) * (
                -1 if directional in wrong else 1),
            spectral: np.array([1.8, 2, 2.2, 2, 2.1]) * (-1 if spectral in wrong else 1),
            f"{name}: line": f"{line}; 1 % of v^T H v negative"}
    check(parts, expected, C5, wrong)
    assert not any(part.log for part in parts if part.bounded)

    assert settings_asked(world) == PAPER_SETTINGS
    assert {(case.optimizer, case.steps) for case in world.asked} == {("Adam", 1951)}
    assert set(map(tuple, seeds_asked(world).values())) == {(0, 1, 2, 3, 4)}
    assert world.tasks == [("gradient_norm", 40, 1), ("smoothness", 40, 1),
                           ("spectral_norm", 20, 1)] * 3
    assert arrays["spent"] == (5, 1951)
    same(arrays["iteration"], 50 * np.arange(40))
    same(arrays["Setting 1 norm"], [([1] * 10 + [4] * 10) * 2] * 5)
    if not wrong:
        same(arrays["Setting 1 curvature"][0],
             [-1, -1, *[3] * 8, *[8] * 10, *[3] * 10, *[8] * 10])
        same(arrays["Setting 1 spectral"], [([1] * 5 + [4**power] * 5) * 2
                                            for power in (1.8, 2, 2.2, 2, 2.1)])


@one_by_one(C5_ROBUST)
def test_C5_within_windows(world, wrong):
    """From window to window the gradient falls by 100 and what is measured grows by 10^6. Within
    them v^T H v is |g|^s, s = 1, 2, 3, 6 by the window, mean 3, and 0, 1, 10, -20 more by the
    batch: the median over batches is 3.5. The spectral norm is |g|^(1, 2, 3, 10), mean 4."""
    signs = {name: -1 if name in wrong else 1 for name in C5_ROBUST}

    def within(case, point, batch, slopes, more, what):
        sign = signs[f"{case.name}, within windows: slope of the {what}"]
        slope = sign * (slopes[point // 10] + more) * spread_of(case)
        return 1e6 ** (point // 10) * (2.0 + batch) ** (point // 2 % 2 * slope)

    def norm(case, point, batch):
        if case.steps == 2000:
            return 4.0 ** far(point)
        return 0.01 ** (point // 10) * (2.0 + batch) ** (point // 2 % 2)

    def smoothness(case, point, batch):
        if case.steps == 2000:
            return norm(case, point, batch)
        return within(case, point, batch, (1, 2, 3, 6), (0, 1, 10, -20)[batch], KINDS[0])

    def spectral_norm(case, point, batch):
        if case.steps == 2000:
            return norm(case, point, batch)
        return within(case, point, batch, (1, 2, 3, 10), 0, KINDS[1])

    world.gradient_norm, world.smoothness, world.spectral_norm = norm, smoothness, spectral_norm
    arrays, parts = experiments.generalized_smoothness(LONG)
    expected = dict.fromkeys(C5, np.ones(5))
    expected |= {f"{name}: line": "L0 = 0, L1 = 1; 0 % of v^T H v negative" for name in NAMES}
    for name in C5_ROBUST:
        slope = 3.5 if name.endswith(KINDS[0]) else 4
        expected[name] = slope * EIGHTEEN * (-1 if name in wrong else 1)
    found = found_in(parts)
    for name in NAMES:  # in which a rounding error may stand for the 0
        words = found[f"{name}: line"]
        assert abs(float(words.split(",")[0].removeprefix("L0 = "))) < 1e-9
        expected[f"{name}: line"] = words
        assert words.endswith(", L1 = 1; 0 % of v^T H v negative")
    check(parts, expected, C5_ROBUST, wrong, level="robust")
    check(parts, {}, C5, only=True)

    asked = seeds_asked(world)
    assert {steps for _, _, steps in asked} == {2000, 2500}
    assert asked["Setting 2", "Adam", 2000] == [0, 1, 2, 3, 4]
    assert asked["Setting 2", "Adam", 2500] == list(range(1000, 1018))
    assert world.tasks == [("gradient_norm", 40, 1), ("smoothness", 40, 1),
                           ("spectral_norm", 20, 1), ("gradient_norm", 40, 4),
                           ("smoothness", 40, 4), ("spectral_norm", 20, 1)] * 3
    assert arrays["Setting 1 norm"].shape == (5, 40)  # what is drawn is the published level


def test_C5_looks_at_2000_steps_at_most(world):
    arrays, _ = experiments.generalized_smoothness(Run(seeds=1, steps=2500))
    assert arrays["spent"] == (1, 2500) and arrays["iteration"][-1] == 1950
    assert {case.steps for case in world.asked} == {2500}
    arrays, parts = experiments.generalized_smoothness(Run(seeds=1, steps=30))  # of one point
    same(arrays["iteration"], [0])
    assert np.isnan(found_in(parts)[C5[0]]).all() and verdicts(parts) == dict(published="open")


# ---- The protocol --------------------------------------------------------------------------------


PROTOCOL = {f"{name}, {each}: final loss at the published rate / at the best": 1.25
            for name in NAMES for each in ("SGD", "Adam")}
BEST = {"SGD": 0.1, "Adam": 0.05}


@one_by_one(PROTOCOL)
def test_protocol_learning_rates(world, wrong):
    """On the pilot seeds the best rate has a loss of 3 (SGD) or 2 (Adam), another one 1.4 times
    that, the others 10; at one a run diverges, and would be the best otherwise. In the first half
    of the run another rate is better, here and there the published one. On fresh seeds the loss at
    the published rate is 1.25 times that at the best one, or 5 times."""
    number = turned(PROTOCOL, wrong, lambda value: 5.0)

    def loss(case):
        name, best = case.optimizer, 3.0 if case.optimizer == "SGD" else 2.0
        near, lost, early = (0.2, 0.5, 0.02) if name == "SGD" else (0.01, 0.1, 0.005)
        end = {BEST[name]: best, near: 1.4 * best, lost: 0.1}.get(case.lr, 10.0)
        if case.seed >= 1000:
            factor = number[f"{case.name}, {name}: final loss at the published rate / at the best"]
            end = best if case.lr == BEST[name] else factor * best * spread_of(case)
        elif case.lr == lost and case.seed == 1:
            end = np.nan
        values = curve(case.steps, end)
        values[: case.steps // 2] = 4.0 if case.lr == early else 50.0
        return values

    world.loss = loss
    arrays, parts = experiments.learning_rates(Run(seeds=5, steps=200))
    expected = {name: value * FIVE for name, value in number.items()}
    for name, used in PRINTED.items():
        expected |= {
            f"{name}, SGD: best rate": f"0.1, in use {used[0]:g}; within a factor 2 of the best: "
                                       "0.1 to 0.2; 1 of 21 runs diverged",
            f"{name}, Adam: best rate": f"0.05, in use {used[1]:g}; within a factor 2 of the best: "
                                        "0.01 to 0.05; 1 of 21 runs diverged",
            f"{name}, SGD: best rate of a run of so many steps": "100: 0.02, 200: 0.1",
            f"{name}, Adam: best rate of a run of so many steps": "100: 0.005, 200: 0.05"}
        for each, rate in zip(("SGD", "Adam"), used):
            early = rate == (0.02 if each == "SGD" else 0.005)
            expected[f"{name}, {each}: lengths at which the published rate is the best"] = (
                "100" if early else "none of these")
    check(parts, expected, PROTOCOL, wrong, dict.fromkeys(PROTOCOL, (None, 2)), level="robust")
    assert verdicts(parts).keys() == {"robust"}  # there is no published number
    assert all(part.log for part in parts if part.bounded)

    asked = [(case.optimizer, case.lr, case.seed) for case in world.asked
             if case.name == "Setting 2"]
    assert asked == [(each, lr, seed) for each, rates in (("SGD", MIDDLE), ("Adam", LOW))
                     for lr in rates for seed in range(3)] + [
        (each, lr, seed) for each, rates in (("SGD", (0.01, 0.1)), ("Adam", (0.005, 0.05)))
        for lr in rates for seed in range(1000, 1005)]
    assert {case.steps for case in world.asked} == {200} and settings_asked(world) == PAPER_SETTINGS
    same(arrays["Setting 2 Adam rates"], LOW)
    same(arrays["Setting 2 Adam used"], 0.005)
    same(arrays["Setting 2 Adam final"][[0, 3, 5, 6]],  # (rates, pilot seeds)
         [[10, 10, 10], [2.8, 2.8, 2.8], [2, 2, 2], [0.1, np.nan, 0.1]])
    same(arrays["Setting 2 SGD lengths"], [100, 200])
    same(arrays["Setting 2 SGD best"], [0.02, 0.1])


def test_protocol_asks_for_no_other_settings_in_short_runs(world):
    experiments.learning_rates(Run(seeds=4, steps=2000))
    assert set(settings_asked(world)) == set(NAMES)


def test_protocol_where_all_runs_diverge(world):
    world.loss = lambda case: np.full(case.steps, np.nan)
    _, parts = experiments.learning_rates(Run(seeds=5, steps=100))
    found = found_in(parts)
    assert found["Setting 1, SGD: best rate"] == "none, 21 of 21 runs diverged"
    assert found["Setting 1, SGD: best rate of a run of so many steps"] == "100: nan"
    assert verdicts(parts) == dict(robust="open")


def test_protocol_tries_the_other_settings_in_long_runs(world):
    """Two seeds each, on a twentieth or a fortieth of the steps; the last rate is the best."""
    world.loss = lambda case: np.full(case.steps, 2.0 - case.lr / 100)
    _, parts = experiments.learning_rates(Run(seeds=5, steps=2000, lr=dict(SGD=0.03)))
    asked = {}
    for case in world.asked:
        if case.name not in NAMES:
            asked.setdefault((case.name, case.optimizer, case.steps), []).append(
                (case.lr, case.seed))
    wanted = {}
    for name in ("Spherical x", "Gaussian x", "L = 2", "L = 4", "L = 6", "L = 8"):
        wanted[name, "SGD", 100] = HIGH if name.endswith(" x") else MIDDLE
        wanted[name, "Adam", 100] = TENFOLD if name.endswith(" x") else LOW
    wanted |= {(data.LARGE.name, "SGD", 50): MIDDLE, (data.LARGE.name, "Adam", 50): LOW}
    assert asked.keys() == wanted.keys()
    for key, rates in wanted.items():
        np.testing.assert_allclose(asked[key], [(lr, seed) for lr in rates for seed in (0, 1)])
    found = found_in(parts)
    assert found["L = 4, SGD: best rate"] == (
        "0.5 (an end of the grid), in use 0.1; within a factor 2 of the best: 0.005 to 0.5; 0 of "
        "14 runs diverged")
    assert "in use 0.03;" in found["Setting 1, SGD: best rate"]  # the run's own rate; but it was
    assert "in use 5;" in found["Spherical x, SGD: best rate"]  # not meant for other settings
    assert claimed_at(parts, "robust") == set(PROTOCOL)
    assert found["Setting 1, SGD: best rate of a run of so many steps"] == ", ".join(
        f"{steps}: 0.5" for steps in ("100", "200", "400", "1,000", "2,000"))
    asked_fresh = {case.lr for case in world.asked if case.seed >= 1000}
    assert asked_fresh == {0.5, 0.1, 0.02, 0.01, 0.005}  # best and published ones, not the run's


def test_protocol_finds_rates_for_an_optimizer_that_has_none(world):
    """SignDescent has no rate in the settings that long runs try, and Lion has none at all."""
    class Lion(SGD):
        pass

    run = Run(seeds=5, steps=2000, optimizers=(SGD, SignDescent))
    found = found_in(experiments.learning_rates(run)[1])
    assert "in use 0.01;" in found["Setting 1, SignDescent: best rate"]
    assert "in use nan;" in found["Spherical x, SignDescent: best rate"]
    run = Run(seeds=1, steps=8, optimizers=(SGD, Adam, Lion))
    arrays, parts = experiments.learning_rates(run)
    assert "in use nan;" in found_in(parts)["Setting 1, Lion: best rate"]
    assert np.isnan(arrays["Setting 1 Lion used"])
    assert claimed_at(parts, "robust") == set(PROTOCOL)  # nothing of Lion, which has no rate
