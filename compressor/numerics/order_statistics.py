"""Medians and their confidence, without assuming a distribution."""

from math import comb

import numpy as np
from numpy.typing import NDArray


def median_interval(values: NDArray[np.float64], confidence: float = 0.95) -> tuple[float, float]:
    """A confidence interval of the median between two order statistics.

    The number of samples below the true median is Binomial(n, ½), whatever the distribution: the
    interval from the k-th smallest to the k-th largest misses it with probability 2 · P(B < k).

    Args:
        values: (samples,), independent.
        confidence: wanted coverage; with few samples the whole range is returned.
    """
    ordered = np.sort(values)
    n = len(ordered)
    allowed = (1 - confidence) / 2 * 2.0**n
    k, below = 0, 0
    while k < n // 2 and below + comb(n, k) <= allowed:
        below += comb(n, k)
        k += 1
    index = max(k - 1, 0)
    return float(ordered[index]), float(ordered[n - 1 - index])
