"""Which weights to keep, by a score of each: the largest, the largest of every few neighbours, or whole blocks.

Han et al. 2015, "Learning both Weights and Connections for Efficient Neural Networks"; Zhou et al. 2021, "Learning
N:M Fine-grained Structured Sparse Neural Networks From Scratch".
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compressor.numerics.affine import Doubles, Floats

Mask = NDArray[np.bool_]

_PRUNED = 0.01
"""Share of zeros from which on weights were pruned rather than trained to have some."""

_MORE = 3.0
"""Times as many zeros as weights on the next level of a grid are more than rounding leaves."""

_SAME = 1e-4
"""Relative difference of weights on the same level."""

_HALF = 16
_BINS = 1 << _HALF


@dataclass(frozen=True, slots=True)
class Unstructured:
    """A share of all weights goes, wherever they are."""

    sparsity: float

    def keep(self, scores: Floats) -> Mask:
        """True where the scores of (outputs, inputs) are largest."""
        return keep_largest(scores, self.sparsity)

    def refusal(self, inputs: int) -> str | None:
        """Why a layer of so many inputs cannot have it."""
        return None


@dataclass(frozen=True, slots=True)
class NOfM:
    """Of every m neighbouring inputs of a row, n are kept."""

    n: int
    m: int

    def keep(self, scores: Floats) -> Mask:
        """True where the scores of (outputs, inputs) are largest."""
        return keep_n_of_m(scores, self.n, self.m)

    def refusal(self, inputs: int) -> str | None:
        """Why a layer of so many inputs cannot have it."""
        return f"{inputs} inputs are not a multiple of {self.m}" if inputs % self.m else None


@dataclass(frozen=True, slots=True)
class Blocks:
    """A share of all blocks of rows and columns goes."""

    sparsity: float
    rows: int
    columns: int

    def keep(self, scores: Floats) -> Mask:
        """True where the scores of (outputs, inputs) are largest."""
        return keep_blocks(scores, self.sparsity, self.rows, self.columns)

    def refusal(self, inputs: int) -> str | None:
        """Why a layer of so many inputs cannot have it."""
        return None


Pattern = Unstructured | NOfM | Blocks


def read_n_of_m(text: str) -> NOfM:
    """Read "N:M".

    Raises:
        ValueError: not two numbers, or nothing would be dropped.
    """
    match text.split(":"):
        case [n, m] if n.isdecimal() and m.isdecimal() and 0 < int(n) < int(m):
            return NOfM(int(n), int(m))
    raise ValueError(f'"{text}" is no pattern; write it as kept:group, for example "2:4"')


def kept_of(weights: Floats | Doubles) -> Mask | None:
    """True at what is not zero, of weights that were pruned and are to stay so; None when they were not.

    Of weights that lie on a grid as many are zero as lie on the levels beside it: these were rounded, not pruned.

    Args:
        weights: of a layer, any shape; a row may have a grid of its own.
    """
    kept: Mask = weights != 0
    zeros = kept.size - np.count_nonzero(kept)
    if not kept.any() or zeros < max(_PRUNED * kept.size, 1):
        return None
    sizes = np.where(kept, np.abs(weights), np.inf).reshape(-1, weights.shape[-1])
    beside = max(_beside(sizes), _beside(sizes.reshape(1, -1)))
    return kept if zeros > _MORE * beside / 2 else None


def _beside(sizes: Floats | Doubles) -> int:
    """Entries on the first level beside zero, of rows that have several of them: with one there is no grid.

    Args:
        sizes: (rows, inputs), infinite where they are zero.
    """
    least = sizes.min(axis=1, keepdims=True)
    on_it = (np.isfinite(sizes) & (sizes <= least * (1 + _SAME))).sum(axis=1)
    return int(on_it[on_it > 1].sum())


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


def keep_n_of_m(scores: Floats, n: int, m: int) -> Mask:
    """True at the `n` largest of every `m` neighbours along the last axis, which is a multiple of `m`.

    Of equal scores the later ones are kept.
    """
    grouped = scores.reshape(-1, m)
    mask = np.ones(grouped.shape, np.bool_)
    np.put_along_axis(mask, np.argsort(grouped, axis=1, kind="stable")[:, : m - n], False, axis=1)
    return mask.reshape(scores.shape)


def keep_blocks(scores: Floats, sparsity: float, rows: int, columns: int) -> Mask:
    """True in the blocks of a matrix with the largest sums of scores; round(sparsity · blocks) blocks are False.

    Blocks at the end that are cut short count by the mean of their scores.

    Args:
        scores: (outputs, inputs), none negative.
        sparsity: share of blocks to drop, 0 … 1.
        rows: of a block.
        columns: of a block.
    """
    height, width = scores.shape
    padded = np.full((-(-height // rows) * rows, -(-width // columns) * columns), np.nan)
    padded[:height, :width] = scores
    blocks = padded.reshape(len(padded) // rows, rows, -1, columns).swapaxes(1, 2)
    kept = keep_largest(np.nanmean(blocks, axis=(2, 3)).astype(np.float32), sparsity)
    return kept.repeat(rows, axis=0).repeat(columns, axis=1)[:height, :width]


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
