"""Medians, their spread, and ratios within a round."""

import math
from collections.abc import Sequence
from statistics import median, quantiles
from typing import Any

Spread = dict[str, float]


def spread(values: Sequence[float]) -> Spread:
    """The median, and the quartiles around it."""
    low, _, high = quantiles(values, n=4) if len(values) > 1 else [values[0]] * 3
    return {"median": median(values), "low": low, "high": high}


def against(values: Sequence[float], limit: Sequence[float]) -> Spread:
    """How many times the *limit* of the same round each of *values* is."""
    return spread([one / other for one, other in zip(values, limit, strict=True)])


def over(values: Sequence[float], bare: Sequence[float]) -> Spread:
    """How much more than *bare* in the same round each of *values* is."""
    return spread([one - other for one, other in zip(values, bare, strict=True)])


def column(results: Sequence[dict[str, Any]], key: str) -> list[float]:
    return [float(result[key]) for result in results]


def exponent(sizes: Sequence[int], costs: Sequence[float]) -> float:
    """The power with which the cost grows where the sizes are largest: 1 is linear.

    What the first size costs is taken for what all of them cost anyhow. 0 if there is
    no growth that could be told from noise.
    """
    most, large = sizes[-1] - sizes[0], costs[-1] - costs[0]
    for size, cost in zip(sizes[-2:0:-1], costs[-2:0:-1], strict=True):
        steps, middle = most / (size - sizes[0]), cost - costs[0]
        if steps >= 2:  # with less, noise would count for too much
            break
    if middle < 0.05 * costs[0] or large < middle:
        return 0.0
    return math.log(large / middle) / math.log(steps)
