"""Medians, their spread, and how fast a cost grows."""

import math
import operator
from collections.abc import Callable, Sequence
from statistics import median, quantiles


def spread(
    values: Sequence[float],
    standard: Sequence[float] | None = None,
    to: Callable[[float, float], float] = operator.truediv,
) -> dict[str, float]:
    """The median, and the quartiles around it; of ratios to a *standard*, if given.

    Each value is compared with the *standard* of the same round.
    """
    if standard is not None:
        values = [to(*pair) for pair in zip(values, standard, strict=True)]
    low, _, high = quantiles(values, n=4) if len(values) > 1 else [values[0]] * 3
    return {"median": median(values), "low": low, "high": high}


def exponent(sizes: Sequence[int], costs: Sequence[float]) -> float:
    """The power with which the cost grows where the sizes are largest: 1 is linear.

    The cost at the first size counts as the fixed part. 0 if the growth can't be seen
    for noise.
    """
    most, large = sizes[-1] - sizes[0], costs[-1] - costs[0]
    for size, cost in zip(sizes[-2:0:-1], costs[-2:0:-1], strict=True):
        steps, middle = most / (size - sizes[0]), cost - costs[0]
        if steps >= 2:  # with less, noise would count for too much
            break
    if middle < 0.05 * costs[0] or large < middle:
        return 0.0
    return math.log(large / middle) / math.log(steps)
