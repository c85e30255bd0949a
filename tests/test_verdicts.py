"""The decision rule: one exact sign test over seeds, and the interval that belongs to it."""

from math import comb

import numpy as np
import pytest

from verdicts import Part, decide, interval, line, measured, short, verdict


def one(values, **bound):
    return measured([Part("key", "label", values, **bound)])["key"]


@pytest.mark.parametrize("n, least", ((6, 6), (8, 8), (9, 8), (10, 9), (12, 10), (18, 14)))
def test_how_many_seeds_must_lie_on_one_side(n, least):
    """So that by coin so many, or more, have a chance below 0.025, and one fewer has not."""
    chance = [sum(comb(n, i) for i in range(k, n + 1)) / 2**n for k in range(n + 1)]
    assert chance[least] < 0.025 <= chance[least - 1]
    for good in range(n + 1):
        values = [2.0] * good + [0.5] * (n - good)
        wanted = "holds" if good >= least else "against" if n - good >= least else "open"
        assert one(values, above=1).decision == wanted
        assert one(values, below=1).decision == {"holds": "against", "against": "holds",
                                                 "open": "open"}[wanted]


def test_five_seeds_decide_nothing():
    each = one([2.0] * 5, above=1)
    assert each.decision == "open" and each.interval == (-np.inf, np.inf)
    assert line(each) == "label: 2, 2, 2, 2, 2 by seed: open"


def test_a_tie_counts_for_neither_side():
    assert one([1.0] * 6, above=1).decision == one([1.0] * 6, below=1).decision == "open"
    assert one([1.0] + [2.0] * 5, above=1).decision == "open"
    assert one([1.0] + [2.0] * 11, above=1).decision == "holds"
    assert one([1.0, 1.0] + [2.0] * 10, above=1).decision == "holds"
    assert one([1.0, 1.0, 1.0] + [2.0] * 9, above=1).decision == "open"


def test_infinite_and_unknown_values():
    """A run that never gets there is infinity; a value of which nothing is known helps neither."""
    each = one([2.0, 3.0, np.inf, 5.0, 4.0, 6.0], above=1)
    assert each.decision == "holds" and each.interval == (2, np.inf) and each.median == 4.5
    assert one([np.inf] * 6, above=1).decision == "holds"
    assert one([0.0] + [2.0] * 5, above=1).decision == "open"  # the second one diverged once
    for others in (2.0, 0.5):
        assert one([np.nan] + [others] * 5, above=1).decision == "open"
    assert one([np.nan] + [2.0] * 11, above=1).decision == "holds"


def test_two_bounds():
    """Inside both holds; beyond either is against."""
    for value, wanted in ((1.0, "holds"), (2.0, "against"), (0.1, "against"), (1.5, "open"),
                          (2 / 3, "open")):
        assert one([value] * 6, above=2 / 3, below=3 / 2).decision == wanted
    assert one([1.0] * 3 + [2.0] * 3, above=2 / 3, below=3 / 2).decision == "open"


def test_the_interval_is_between_two_seeds():
    """Of 6 the smallest and the largest, of 12 the third and the tenth, of 18 the fifth and the
    fourteenth; in no order."""
    rng = np.random.default_rng(0)
    for n, k in ((6, 1), (10, 2), (12, 3), (18, 5)):
        values = rng.permutation(np.arange(1.0, n + 1))
        assert interval(values) == ((n + 1) / 2, k, n + 1 - k)


def test_picture_and_verdict_cannot_disagree():
    """The interval leaves out the bound exactly if the sign test decides."""
    rng = np.random.default_rng(1)
    for _ in range(500):
        n = rng.integers(2, 20)
        values = rng.integers(-3, 4, n) + rng.choice([0.0, 0.5])  # with ties
        _, low, high = interval(values)
        above = sum(comb(n, k) for k in range((values > 0).sum(), n + 1)) / 2**n < 0.025
        below = sum(comb(n, k) for k in range((values < 0).sum(), n + 1)) / 2**n < 0.025
        assert (low > 0, high < 0) == (above, below)
        assert decide(low, high, 0, None) == ("holds" if above else "against" if below else "open")


def test_false_alarms_of_a_wild_distribution():
    """Without an effect at most 2.5 % a side, whatever the seeds look like."""
    rng = np.random.default_rng(2)
    values = np.exp(3 * rng.standard_normal((4000, 18)))  # median 1, mean 90
    words = [decide(*interval(each)[1:], 1, None) for each in values]
    assert words.count("holds") / 4000 < 0.025 and words.count("against") / 4000 < 0.025


def test_a_verdict_rests_on_the_primary_parts():
    def word(*decisions, others=()):
        values = {"holds": [2.0] * 6, "against": [0.5] * 6, "open": [2.0, 0.5] * 3}
        parts = [Part(f"{i}", "", values[each], above=1) for i, each in enumerate(decisions)]
        parts += [Part(f"other {i}", "", values[each], above=1, primary=False)
                  for i, each in enumerate(others)]
        return verdict(measured([*parts, Part("free", "", [0.5] * 6), Part("text", "", "words")]))

    assert word() == word(others=["holds"]) == ""
    assert word("holds", "holds", others=["against", "open"]) == "reproduced"
    assert word("holds", "open") == "open"
    assert word("holds", "open", "against") == "not reproduced"


def test_two_parts_of_one_key_are_refused():
    with pytest.raises(KeyError, match="gap"):
        measured([Part("gap", "a", "x"), Part("gap", "b", "y")])


def test_in_words():
    values = [2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    assert line(one(values)) == "label: 4.5 [2, 7]"
    assert line(one(values, above=1)) == "label: 4.5 [2, 7]: holds"
    assert line(one(values, above=3, primary=False)) == "label: 4.5 [2, 7]: open (not primary)"
    assert line(one("words")) == "label: words" and str(one("words")) == "words"
    assert str(one(values, above=1)) == "4.5" and str(one(values, above=3)) == "4.5 (open)"
    assert str(one(values, below=1)) == "4.5 (against)" and str(one(values)) == "4.5"
    assert [short(x) for x in (3126.0, 0.012345, 2.5e7, np.inf, np.nan)] == [
        "3130", "0.0123", "2.5e+07", "inf", "nan"]
