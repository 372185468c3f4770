"""Which weights to keep, by magnitude.

Han et al. 2015, "Learning both Weights and Connections for Efficient Neural Networks".
"""

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from compressor.numerics.affine import Floats

Mask = NDArray[np.bool_]

_HALF = 16
_BINS = 1 << _HALF


def keep_largest(scores: Floats, sparsity: float) -> Mask:
    """True at the entries with the largest scores; exactly round(sparsity · size) entries are False.

    Ties are broken by position: of equal scores the later ones are kept.

    Args:
        scores: any shape; larger = keep.
        sparsity: share to drop, 0 … 1.
    """
    dropped = round(sparsity * scores.size)
    mask = np.ones(scores.size, np.bool_)
    mask[np.argsort(scores, axis=None, kind="stable")[:dropped]] = False
    return mask.reshape(scores.shape)


def magnitude_threshold(arrays: Callable[[], Iterable[Floats]], sparsity: float) -> float:
    """The magnitude below which a share `sparsity` of all entries of all arrays lies.

    Exact, in memory of one array: non-negative float32 sort like their bit patterns, so a histogram
    of the upper 16 bits finds the bin that holds the wanted rank, and a second one of the lower 16
    bits finds the entry.

    Args:
        arrays: gives the arrays anew at each call; it is called twice.
        sparsity: share of entries wanted below the threshold, 0 … 1.

    Returns:
        The smallest magnitude to be kept; infinity when nothing is to be kept, 0 when all is.
    """
    upper = _histogram(_bits(a) >> np.uint32(_HALF) for a in arrays())
    rank = round(sparsity * int(upper.sum()))
    if rank == 0:
        return 0.0
    if rank >= upper.sum():
        return float("inf")
    bin_index, before = _find(upper, rank)
    lower = _histogram(bits[bits >> _HALF == bin_index] & np.uint32(_BINS - 1) for bits in map(_bits, arrays()))
    low_index, _ = _find(lower, rank - before)
    return float(np.uint32((bin_index << _HALF) | low_index).view(np.float32))


def _bits(array: Floats) -> NDArray[np.uint32]:
    return np.abs(array, dtype=np.float32).ravel().view(np.uint32)


def _histogram(values: Iterable[NDArray[np.uint32]]) -> NDArray[np.int64]:
    total = np.zeros(_BINS, np.int64)
    for value in values:
        total += np.bincount(value, minlength=_BINS)
    return total


def _find(histogram: NDArray[np.int64], rank: int) -> tuple[int, int]:
    """The bin that holds the entry number `rank` (from 0), and the count of entries before that bin."""
    cumulative = np.cumsum(histogram)
    index = int(np.searchsorted(cumulative, rank, side="right"))
    return index, int(cumulative[index] - histogram[index])
