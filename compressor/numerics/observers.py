"""Ranges from histograms: how far into the tails of a distribution a grid should reach.

A grid of 2^bits values over [low, high] rounds what lies inside by half a step at most and clamps
what lies outside. A wide range rounds coarsely, a narrow one clamps much: each observer weighs the
two in its own way. Exact zeros never enter. They are on every grid and lose nothing, but after Relu
they would be most of a distribution.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from compressor.numerics.affine import Doubles


class Range(NamedTuple):
    """Real values to be covered, low <= high."""

    low: float
    high: float


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """How often the values of a tensor fall between neighbouring edges; exact zeros are not counted.

    Within a bin the values are taken to be spread evenly.

    Attributes:
        counts: (bins,), >= 0; not necessarily whole, as some entries may stand for several.
        edges: (bins + 1,), one width apart; from the first, <= 0, to the last, >= 0, so that 0 is among them.
    """

    counts: Doubles
    edges: Doubles

    @property
    def width(self) -> float:
        """Of every bin."""
        return float(self.edges[-1] - self.edges[0]) / len(self.counts)

    def cumulative(self) -> Doubles:
        """How many values lie below each edge, (bins + 1,)."""
        return np.concatenate([[0.0], np.cumsum(self.counts)])


def percentile_range(histogram: Histogram, percentile: float = 99.99) -> Range:
    """The range that `percentile` per cent of the values lie in.

    Half of the others lie below it and half above; where all values have one sign, 0 is one end and
    the others lie beyond the other end.
    """
    first, last = histogram.edges[[0, -1]]
    below = histogram.cumulative()
    if below[-1] == 0:
        return Range(float(first), float(last))
    outside = (1 - percentile / 100) * below[-1]
    tail = outside / 2 if first < 0 < last else outside
    low, high = np.interp([tail, below[-1] - tail], below, histogram.edges)
    return Range(min(float(low), 0.0) if first < 0 else 0.0, max(float(high), 0.0) if last > 0 else 0.0)


def mse_range(histogram: Histogram, bits: int = 8) -> Range:
    """The range whose grid has the smallest expected squared error, rounding and clamping together.

    Choukroun et al. 2019, "Low-bit Quantization of Neural Networks for Efficient Inference"; both ends
    are free here.
    """
    return _search(histogram, lambda lows, highs: squared_error(histogram, lows, highs, bits))


def squared_error(histogram: Histogram, lows: Doubles, highs: Doubles, bits: int = 8) -> Doubles:
    """The mean of (x - nearest value of the grid)² for each of several ranges, (ranges,).

    The values of a grid, g_0 < … < g_n, lie a step s apart, with midpoints b_1 < … < b_n. Whatever x is,

        (x - nearest g)² = (x - g_n)² - 2 s Σ_k max(b_k - x, 0),

    because beginning at g_n each midpoint above x moves the nearest value down by one step. The
    expectation of max(b - x, 0) is the second antiderivative of the density.

    Args:
        histogram: of x.
        lows: lower ends, (ranges,), <= 0.
        highs: upper ends, (ranges,), >= 0, and above the lower ones.
        bits: n = 2^bits - 1; zero points are rounded, so that the grid is that of `affine.asymmetric_grid`.
    """
    last = 2**bits - 1
    step = (highs - lows) / last
    top = (last - np.rint(-lows / step)) * step
    midpoints = top[:, None] - step[:, None] * (np.arange(last) + 0.5)
    total = max(histogram.counts.sum(), np.finfo(float).tiny)
    shortfall = _shortfall(histogram, midpoints).sum(axis=1) / total
    errors: Doubles = np.maximum(_distance(histogram, top) / total - 2 * step * shortfall, 0.0)
    return errors


def entropy_range(histogram: Histogram, bits: int = 8) -> Range:
    """The range whose grid keeps most of the information: the least KL divergence of what is left from what was.

    Migacz 2017, "8-bit Inference with TensorRT", with both ends free instead of one common magnitude.
    """
    below = histogram.cumulative()

    def loss(lows: Doubles, highs: Doubles) -> Doubles:
        firsts = np.floor((lows - histogram.edges[0]) / histogram.width).astype(int)
        lasts = np.ceil((highs - histogram.edges[0]) / histogram.width).astype(int)
        ranges = zip(firsts.tolist(), np.minimum(lasts, len(histogram.counts)).tolist(), strict=True)
        return np.array([_divergence(histogram.counts, below, bins, 2**bits) for bins in ranges])

    return _search(histogram, loss)


def _search(histogram: Histogram, loss: Callable[[Doubles, Doubles], Doubles]) -> Range:
    """The range of least loss: each end a share of the outermost edge, from coarse to fine steps around the best.

    Of equal losses the widest range wins.

    Args:
        histogram: gives the outermost ends.
        loss: of several ranges, (ranges,), from their lower and upper ends.
    """
    first, last = float(histogram.edges[0]), float(histogram.edges[-1])
    best, step = (0.5, 0.5), 1 / (2 * _NEIGHBOURS)
    for _ in range(_ROUNDS):
        lows, highs = np.meshgrid(_around(best[0], step, first), _around(best[1], step, last), indexing="ij")
        index = int(np.argmin(loss(lows.ravel() * first, highs.ravel() * last)))
        best, step = (float(lows.flat[index]), float(highs.flat[index])), step / _NEIGHBOURS
    return Range(best[0] * first, best[1] * last)


_NEIGHBOURS, _ROUNDS = 8, 3
"""Shares tried on either side of the best one, an eighth as far apart in each round: 1/16, 1/128, 1/1024."""


def _around(share: float, step: float, end: float) -> Doubles:
    """Shares to try of one end, falling; an end at 0 stays there."""
    if end == 0:
        return np.ones(1)
    shares: Doubles = share + step * np.arange(_NEIGHBOURS, -_NEIGHBOURS - 1.0, -1)
    return shares[(shares > 0) & (shares <= 1)]


def _distance(histogram: Histogram, points: Doubles) -> Doubles:
    """The sum of (x - point)² over all values; shape of `points`."""
    counts, centres = histogram.counts, histogram.edges[:-1] + histogram.width / 2
    squares = counts @ (centres**2 + histogram.width**2 / 12)
    distance: Doubles = squares - 2 * points * (counts @ centres) + points**2 * counts.sum()
    return distance


def _shortfall(histogram: Histogram, points: Doubles) -> Doubles:
    """The sum of max(point - x, 0) over all values; shape of `points`. Its slope is the count of values below."""
    below, edges, width = histogram.cumulative(), histogram.edges, histogram.width
    at_edges = np.concatenate([[0.0], np.cumsum((below[:-1] + below[1:]) * width / 2)])
    inside = np.clip(points, edges[0], edges[-1])
    bins = np.minimum(((inside - edges[0]) / width).astype(int), len(histogram.counts) - 1)
    part = inside - edges[bins]
    within = at_edges[bins] + part * (below[bins] + histogram.counts[bins] * part / (2 * width))
    shortfall: Doubles = within + below[-1] * np.maximum(points - edges[-1], 0.0)
    return shortfall


_RARE = 1e-9
"""The least probability given to a bin that the grid says never occurs, so that its surprise is finite."""


def _divergence(counts: Doubles, below: Doubles, bins: tuple[int, int], levels: int) -> float:
    """KL(P ‖ Q) in nats for a grid over some of the bins.

    P holds the bins covered, with what lies outside clamped into the two end bins. Q is what the grid
    knows of the bins covered: their values counted in `levels` even parts, and spread evenly over the
    bins of each part that occur in P. Ranges of fewer bins than levels would seem to lose nothing, and
    are refused.

    Args:
        counts: (all bins,).
        below: how many values lie below each edge, (all bins + 1,).
        bins: the first one covered, and the one after the last.
        levels: values of the grid.
    """
    first, last = bins
    covered, total = counts[first:last], below[-1]
    if len(covered) < min(levels, len(counts)) or not covered.any():
        return float("inf")
    clamped = covered.copy()
    clamped[0] += below[first]
    clamped[-1] += total - below[last]
    occurs = clamped > 0
    starts = np.arange(levels) * len(covered) // levels
    spread = np.add.reduceat(covered, starts) / np.maximum(np.add.reduceat(occurs, starts, dtype=float), 1)
    known = np.repeat(spread, np.diff(starts, append=len(covered)))
    p, q = clamped[occurs] / total, np.maximum(known[occurs] / covered.sum(), _RARE)
    return float((p * np.log(p / q)).sum())
