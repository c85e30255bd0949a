"""The decision rule: one exact sign test over seeds, and the interval that belongs to it."""

from math import comb

import numpy as np
import pytest

from verdicts import Part, decide, interval, line, measured, short, verdict

NAN, INF = np.nan, np.inf
OTHER = {"holds": "against", "against": "holds", "open": "open"}


def one(values, **bound):
    return measured([Part("key", "label", values, **bound)])["key"]


def chance(heads, n):
    """Of so many heads or more in n tosses."""
    return sum(comb(n, k) for k in range(heads, n + 1)) / 2**n


@pytest.mark.parametrize("n, least", (
    (1, 2), (5, 6), (6, 6), (8, 8), (9, 8), (10, 9), (12, 10), (18, 14), (100, 61),
    (63, 40), (64, 41), (66, 42)))
def test_how_many_seeds_must_lie_on_one_side(n, least):
    """So many, whatever their values; of five or fewer not even all."""
    assert chance(least, n) < 0.025 <= chance(least - 1, n)
    for good in range(n + 1):
        values = [1.0 + 10.0**-k for k in range(good)] + [0.9] * (n - good)
        wanted = "holds" if good >= least else "against" if n - good >= least else "open"
        assert one(values, above=0.95).decision == wanted, good
        assert one(values, below=0.95).decision == OTHER[wanted], good


@pytest.mark.parametrize("values, wanted", (
    ([2] * 6, "holds"), ([2.0] * 5 + [0.5], "open"),
    ([1] * 6, "open"), ([1] + [2] * 5, "open"),  # a tie counts for neither side,
    ([1, 1] + [2] * 10, "holds"), ([1, 1, 1] + [2] * 9, "open"),  # but as a seed
    ([INF] * 6, "holds"), ([2, INF, 3, 4, 5, 6], "holds"),  # never got there
    ([-INF] * 6, "against"), ([0.0] + [2] * 5, "open"),
    ([NAN] + [2] * 5, "open"), ([NAN] + [0.5] * 5, "open"), ([NAN] * 6, "open"),  # unknown
    ([NAN, NAN] + [2] * 10, "holds"), ([NAN, NAN, NAN] + [2] * 9, "open")))
def test_ties_infinite_and_unknown_values(values, wanted):
    assert one(values, above=1).decision == wanted
    assert one([-x for x in values], below=-1).decision == wanted
    assert one(values, below=1).decision == OTHER[wanted]


@pytest.mark.parametrize("values, wanted", (
    ([1.0] * 6, "holds"), ([2] * 6, "against"), ([0.1] * 6, "against"),
    ([1.5] * 6, "open"), ([0.5] * 6, "open"), ([1] * 5 + [2], "open"), ([1] * 5 + [0.1], "open"),
    ([1] * 3 + [2] * 3, "open"), ([0.1] * 3 + [2] * 3, "open")))
def test_between_two_bounds(values, wanted):
    """Inside both holds; beyond either is against."""
    assert one(values, above=0.5, below=1.5).decision == wanted


@pytest.mark.parametrize("n, low, high", ((5, 0, 6), (6, 1, 6), (10, 2, 9), (12, 3, 10),
                                          (18, 5, 14)))
def test_the_interval_lies_between_two_seeds(n, low, high):
    """Of 6 the smallest and the largest, of 12 the third and the tenth; beside it the median."""
    ordered = np.array([-INF, *2.0 ** np.arange(n), INF])
    low, middle, high = ordered[low], ordered[[(n + 1) // 2, n // 2 + 1]].mean(), ordered[high]
    values = np.random.default_rng(0).permutation(ordered[1:-1])
    assert interval(values) == (middle, low, high)
    each = one(list(values))
    assert (each.median, each.interval, each.decision) == (middle, (low, high), "")


def test_picture_and_verdict_cannot_disagree():
    """The interval leaves out the bound exactly if the sign test decides; an unknown value widens
    it at both ends."""
    rng = np.random.default_rng(1)
    for _ in range(500):
        n = rng.integers(2, 30)
        values = rng.integers(-3, 5, n) + rng.choice([0.0, 0.5])  # with ties
        values[rng.random(n) < 0.1] = rng.choice([NAN, INF, -INF])
        _, low, high = interval(values)
        above, below = (chance((sign * values > 0).sum(), n) < 0.025 for sign in (1, -1))
        assert (low > 0, high < 0) == (above, below)
        assert decide(low, high, 0, None) == ("holds" if above else "against" if below else "open")


@pytest.mark.parametrize("n", (6, 10, 12, 18))
def test_the_size_of_the_test(n):
    """Without an effect at most 2.5 % a side, whatever the seeds look like: here exp(3 z), whose
    median is 1 and whose mean is 90. And it is a test: it does decide."""
    samples = np.exp(3 * np.random.default_rng(2).standard_normal((3000, n)))
    words = [decide(*interval(values)[1:], 1, None) for values in samples]
    for side in ("holds", "against"):
        assert 0.005 < words.count(side) / 3000 < 0.025


@pytest.mark.parametrize("primary, others, wanted", (
    ("", "", ""), ("", "holds", ""), ("", "against", ""),
    ("holds holds", "against open", "reproduced"), ("holds open", "holds", "open"),
    ("open open", "against", "open"), ("holds open against", "", "not reproduced"),
    ("against", "holds", "not reproduced")))
def test_a_verdict_rests_on_the_primary_parts_alone(primary, others, wanted):
    values = {"holds": [2] * 6, "against": [0.5] * 6, "open": [2, 0.5] * 3}
    parts = [Part(f"{kind} {i}", "", values[each], above=1, primary=kind == "primary")
             for kind, words in (("primary", primary), ("other", others))
             for i, each in enumerate(words.split())]
    assert verdict(measured([*parts, Part("free", "", [0.5] * 6), Part("text", "", "a word")])) \
        == wanted


def test_two_parts_of_one_key_are_refused():
    with pytest.raises(KeyError, match="two parts have the key 'gap'"):
        measured([Part("gap", "a", "x"), Part("gap", "b", [1.0] * 6)])


@pytest.mark.parametrize("values, options, number, words", (
    ([2, 3, 4, 5, 6, 7], {}, "4.5", "4.50 [2.00, 7.00]"),
    ([2, 3, 4, 5, 6, 7], dict(above=1), "4.5", "4.50 [2.00, 7.00]: holds"),
    ([2, 3, 4, 5, 6, 7], dict(above=3), "4.5 (open)", "4.50 [2.00, 7.00]: open"),
    ([2, 3, 4, 5, 6, 7], dict(below=1), "4.5 (against)", "4.50 [2.00, 7.00]: against"),
    ([2, 3, 4, 5, 6, 7], dict(above=1, primary=False), "4.5",
     "4.50 [2.00, 7.00]: holds (not primary)"),
    ([1] * 6, dict(below=1), "1.0 (open)", "1.00 [1.00, 1.00]: open"),
    ([2, 3], dict(above=1), "2.5 (open)", "2.00, 3.00 by seed: open"), ([2], {}, "2.0", "2.00"),
    ([NAN] * 6, dict(above=1), "nan (open)", "nan, nan, nan, nan, nan, nan by seed: open"),
    ("two words", {}, "two words", "two words")))
def test_in_words(values, options, number, words):
    assert str(one(values, **options)) == f"{one(values, **options)}" == number
    assert line(one(values, **options)) == f"label: {words}"


def test_digits():
    numbers = (3126.0, 0.9, -123456.0, 2.5e7, 1e-7, 9.96, 11.97, 3.0, INF, NAN)
    assert [short(x) for x in numbers] == [
        "3130", "0.900", "-123000", "2.50e+07", "1.00e-07", "9.96", "12.0", "3.00", "inf", "nan"]
    assert [short(x, 2) for x in numbers] == [
        "3100", "0.90", "-120000", "2.5e+07", "1.0e-07", "10", "12", "3.0", "inf", "nan"]
