"""Medians, their spread, and how fast a cost grows."""

import math
from collections.abc import Sequence
from statistics import median, quantiles

Spread = dict[str, float]


def spread(values: Sequence[float]) -> Spread:
    """The median, and the quartiles around it."""
    low, _, high = quantiles(values, n=4) if len(values) > 1 else [values[0]] * 3
    return {"median": median(values), "low": low, "high": high}


def ratio(values: Sequence[float], standard: Sequence[float]) -> Spread:
    """How many times the *standard* of the same round each of *values* is."""
    return spread([one / other for one, other in zip(values, standard, strict=True)])


def over(values: Sequence[float], standard: Sequence[float]) -> Spread:
    """How much more than the *standard* of the same round each of *values* is."""
    return spread([one - other for one, other in zip(values, standard, strict=True)])


def exponent(sizes: Sequence[int], costs: Sequence[float]) -> float:
    """The power with which the cost grows where the sizes are largest: 1 is linear.

    The cost at the first size counts as the fixed part. 0 if the growth cannot be told
    from noise.
    """
    most, large = sizes[-1] - sizes[0], costs[-1] - costs[0]
    for size, cost in zip(sizes[-2:0:-1], costs[-2:0:-1], strict=True):
        steps, middle = most / (size - sizes[0]), cost - costs[0]
        if steps >= 2:  # with less, noise would count for too much
            break
    if middle < 0.05 * costs[0] or large < middle:
        return 0.0
    return math.log(large / middle) / math.log(steps)
