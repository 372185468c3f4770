"""The distribution of a tensor, folded over batches without knowing its range beforehand."""

from math import floor, frexp

import numpy as np
from numpy.typing import NDArray

from compressor.numerics.affine import Doubles
from compressor.numerics.observers import Histogram

_DOUBLINGS = 12
HALF = 1 << _DOUBLINGS
"""Bins on either side of 0. The larger end is in the outer half of them: from 0 to it there are 2048 at least."""

_FINEST = -120
"""Of the exponents of widths: 1 / width is a float32."""

_AT_ONCE = 1 << 16
"""Entries, so that what is computed on the way stays in the cache."""


class FoldedHistogram:
    """Counts in bins of one width, exact zeros left out.

    The width is a power of two and 0 is an edge. When a batch reaches beyond the bins, the width is
    doubled as often as it takes and neighbours are added up, which is exact: the order of the batches
    makes no difference.
    """

    def __init__(self) -> None:
        self._counts = np.zeros(2 * HALF)
        self._exponent = _FINEST
        self._waiting: list[NDArray[np.generic]] = []
        self._weight = 0.0

    def update(self, entries: NDArray[np.generic], weight: float) -> None:
        """Fold in entries that stand for `weight` each; any shape, finite."""
        if weight != self._weight:
            self._settle()
            self._weight = weight
        self._waiting.append(entries.ravel())
        if sum(part.size for part in self._waiting) >= _AT_ONCE:
            self._settle()

    def between(self, low: float, high: float) -> Histogram:
        """All that was seen, in bins that reach from `low` to `high` and include 0.

        Args:
            low: not above any entry.
            high: not below any entry.
        """
        self._settle()
        self._reach(max(-low, high))
        width = 2.0**self._exponent
        first = floor(low / width) if low < 0 else 0
        last = floor(high / width) + 1 if high > 0 else 0
        last = max(last, first + 1)
        edges: Doubles = width * np.arange(first, last + 1.0)
        return Histogram(self._counts[HALF + first : HALF + last], edges)

    def _settle(self) -> None:
        """Count what waits: small batches are counted together, because every count goes over all bins."""
        waiting, self._waiting = self._waiting, []
        if waiting:
            flat = np.concatenate(waiting)
            for start in range(0, flat.size, _AT_ONCE):
                self._count(flat[start : start + _AT_ONCE], self._weight)

    def _count(self, entries: NDArray[np.generic], weight: float) -> None:
        """Add some entries, (entries,), at least one."""
        values = entries.astype(np.result_type(entries, np.float32), copy=False)
        self._reach(float(np.abs(values).max()))
        bins = np.floor(np.multiply(values, 2.0**-self._exponent)).astype(np.intp)
        found = np.bincount(bins + HALF, minlength=2 * HALF)
        found[HALF] -= values.size - np.count_nonzero(values)
        self._counts += weight * found

    def _reach(self, magnitude: float) -> None:
        """Widen the bins until ± `magnitude` lies inside."""
        exponent = frexp(magnitude)[1] - _DOUBLINGS
        if magnitude and exponent > self._exponent:
            merged = np.arange(-HALF, HALF) >> (exponent - self._exponent)
            self._counts = np.bincount(merged + HALF, self._counts, 2 * HALF).astype(np.float64)
            self._exponent = exponent
