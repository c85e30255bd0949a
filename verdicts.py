"""What a measurement decides: one exact sign test over seeds.

An experiment returns parts. A part has a value for each seed, and, if something is claimed of it, a
bound: that the values lie above a number, below one, or both. Seeds are independent, so if the
sides of the bound were equally likely, the number of seeds above it would be that of heads in as
many tosses of a coin. A part

    holds       if so many seeds on the claimed side, or more, have a chance below 0.025 by coin
    is against  if the same is true of the other side
    is open     else

Of 6 seeds all must lie on one side (chance 1/64), of 10 nine, of 12 ten, of 18 fourteen; 5 can
decide nothing. A run that never gets there counts as infinity, one that diverged counts against its
optimizer, and a value at the bound counts for neither side. Nothing else is assumed: a few wild
seeds change nothing, and a logarithm changes no sign.

Beside it stand the median over seeds and an interval between two seeds: of 6 the smallest and the
largest, of 12 the third and the tenth. It holds the true median in at least 95 % of such
experiments, and it leaves out the bound exactly if the test decides.

A level of a claim is reproduced if all its primary parts hold, not reproduced if one is against,
and open else; the docstring of the experiment names the primary parts. Of m parts without any
effect at most m / 40 are called against by chance, on average.
"""

from math import comb
from typing import NamedTuple

import numpy as np

CHANCE = 0.025  # on each side


class Part(NamedTuple):
    """What was measured, and what is claimed of it."""

    key: str  # by which figures find it
    label: str  # what is printed
    values: object  # (seeds,), or a text
    above: float = None
    below: float = None
    primary: bool = True  # whether the verdict rests on it, if it has a bound


class Measured(NamedTuple):
    """A part with its median over seeds, interval and decision; in an f-string its number."""

    label: str
    values: object  # (seeds,), or a text
    median: float = np.nan
    interval: tuple = (-np.inf, np.inf)
    above: float = None
    below: float = None
    decision: str = ""  # holds, open, against; "" if nothing is claimed
    primary: bool = False

    def __str__(self):
        if isinstance(self.values, str):
            return self.values
        mark = f" ({self.decision})" if self.decision in ("open", "against") else ""
        return short(self.median, 2) + mark


def measured(parts):
    """{key: Measured} of a list of parts."""
    found = {}
    for part in parts:
        if part.key in found:
            raise KeyError(f"two parts have the key {part.key!r}")
        if isinstance(part.values, str):
            found[part.key] = Measured(part.label, part.values)
            continue
        values = np.asarray(part.values, float)
        median, low, high = interval(values)
        bounded = (part.above, part.below) != (None, None)
        found[part.key] = Measured(
            part.label, values, median, (low, high), part.above, part.below,
            decide(low, high, part.above, part.below) if bounded else "",
            bounded and part.primary)
    return found


def interval(values):
    """Median of (seeds,) and the interval that the sign test decides by. A value that is unknown
    (NaN: both runs diverged, say) may lie anywhere."""
    n = len(values)
    tails = np.cumsum([comb(n, k) / 2**n for k in range(n + 1)])  # P(at most k heads)
    outside = (tails < CHANCE).sum()  # so many values at each end may lie beyond the bound
    with np.errstate(invalid="ignore"):  # the median of infinities
        middle = np.median(values)
    if outside == 0:
        return middle, -np.inf, np.inf
    unknown = np.isnan(values)
    return (middle, np.sort(np.where(unknown, -np.inf, values))[outside - 1],
            np.sort(np.where(unknown, np.inf, values))[-outside])


def decide(low, high, above, below):
    """holds, against or open, from the ends of the interval and the bounds."""
    inside = (above is None or low > above) and (below is None or high < below)
    beyond = (above is not None and high < above) or (below is not None and low > below)
    return "holds" if inside else "against" if beyond else "open"


def verdict(found):
    """reproduced, not reproduced or open; "" if nothing is claimed."""
    words = {each.decision for each in found.values() if each.primary}
    return ("" if not words else "not reproduced" if "against" in words else
            "open" if "open" in words else "reproduced")


def line(each):
    """A measured part in words."""
    if isinstance(each.values, str):
        return f"{each.label}: {each.values}"
    text = f"{each.label}: {in_words(each.values)}"
    if not each.decision:
        return text
    return f"{text}: {each.decision}{'' if each.primary else ' (not primary)'}"


def in_words(values):
    """Median and interval of (seeds,); the values themselves if there is no interval."""
    middle, low, high = interval(values)
    if low == -np.inf and high == np.inf:  # few seeds, or all unknown
        return ", ".join(map(short, values)) + (" by seed" if len(values) > 1 else "")
    return f"{short(middle)} [{short(low)}, {short(high)}]"


def short(number, digits=3):
    """So many significant digits: 3130, 0.90, 1.0; with a power of ten from a million on and below
    0.0001 alone. inf is what never happens or diverged."""
    text = f"{number:#.{digits}g}".rstrip(".")
    return f"{float(text):.0f}" if "e+" in text and abs(number) < 1e6 else text
