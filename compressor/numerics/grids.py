"""How steps are chosen: the width of a level for a group of weights that share it.

Every grid answers two questions for columns of a matrix that share a step: which step (and zero
point) loses least, and which code is nearest to a weight. Loss is the squared error, each column
weighted by its importance (the mean square of its input, when that is known).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from compressor.numerics.affine import SMALLEST_SCALE, Floats
from compressor.numerics.levels import LARGEST_INT8, LARGEST_MULTIPLIER, Codes, Levels

_NEGLIGIBLE = 1e-20
"""A step that is as good as 0, but whose product with the scale of an activation is a normal number."""

_SHRINKAGES = np.linspace(1.0, 0.1, 46, dtype=np.float32)
"""Shares of the full range that are tried as ranges."""


@dataclass(frozen=True, slots=True)
class Steps:
    """The steps of rows that share one each.

    Attributes:
        step: real width of one level, 0 where nothing but 0 is to be had; (…, rows).
        zero: the code of real 0, as a float; (…, rows).
    """

    step: Floats
    zero: Floats

    def nearest(self, column: Floats, levels: Levels) -> Codes:
        """Codes of one column, (…, rows); where the step is 0 one is as good as another."""
        steps = np.divide(column, self.step, out=np.zeros_like(column), where=self.step > 0)
        return levels.nearest(steps + self.zero)

    def dequantize(self, codes: Codes, levels: Levels) -> Floats:
        """What codes of one column stand for, (…, rows)."""
        return (levels.of(codes).astype(np.float32) - self.zero) * self.step

    def error(self, columns: Floats, levels: Levels, importance: Floats) -> Floats:
        """Σ importance · (rounded - real)² over columns, (…, rows, width) -> (…, rows)."""
        wide = self.wide()
        difference = wide.dequantize(wide.nearest(columns, levels), levels) - columns
        weighted: Floats = np.einsum("...ri,...i->...r", np.square(difference), importance)
        return weighted

    def wide(self) -> "Steps":
        """The same for several columns at once, (…, rows, 1)."""
        return Steps(self.step[..., None], self.zero[..., None])


class Grid(Protocol):
    """The steps a group of columns may have."""

    @property
    def levels(self) -> Levels:
        """What a code stands for."""
        ...

    @property
    def block(self) -> int | None:
        """Columns that share a step; None: all of them."""
        ...

    def fit(self, columns: Floats, importance: Floats) -> Steps:
        """The steps that lose least.

        Args:
            columns: (…, rows, width).
            importance: of each column, (…, width).
        """
        ...


@dataclass(frozen=True, slots=True)
class Covering:
    """The step that just covers the largest magnitude: nothing is clamped. What eight bits want.

    Attributes:
        least: a floor under the steps, () or (…, rows).
        shared: whether all rows have one step.
    """

    levels: Levels
    block: int | None = None
    least: Floats | float = 0.0
    shared: bool = False

    def fit(self, columns: Floats, importance: Floats) -> Steps:
        """Largest magnitude / largest level; `importance` makes no difference."""
        largest = np.maximum(columns.max(axis=-1), -columns.min(axis=-1)) / np.float32(self.levels.largest)
        step = np.maximum(largest, self.least)
        if self.shared:
            step = np.broadcast_to(step.max(), step.shape)
        return Steps(_positive(step, self.levels), np.zeros(step.shape, np.float32))


@dataclass(frozen=True, slots=True)
class Symmetric:
    """Any step, real 0 at code 0; the step is searched and then fitted by least squares.

    For ternary levels that is the threshold and scale of Li et al. 2016, "Ternary weight networks"; for
    binary ones sign and mean magnitude, as in Rastegari et al. 2016, "XNOR-Net".

    Attributes:
        least: a floor under the steps, () or (…, rows).
    """

    levels: Levels
    block: int | None = None
    least: Floats | float = 0.0

    def fit(self, columns: Floats, importance: Floats) -> Steps:
        """The best of a few dozen shares of the range, then the least-squares step for its codes."""
        largest = np.abs(columns).max(axis=-1) / self.levels.largest
        zero = np.zeros_like(largest)
        tried = (Steps(_positive(np.maximum(share * largest, self.least), self.levels), zero) for share in _SHRINKAGES)
        steps = _best(tried, columns, self.levels, importance)
        return _best((steps, self._fitted(steps, columns, importance)), columns, self.levels, importance)

    def _fitted(self, steps: Steps, columns: Floats, importance: Floats) -> Steps:
        """argmin over step of Σ importance · (step · level - real)², levels as they are."""
        levels = self.levels.of(steps.wide().nearest(columns, self.levels)).astype(np.float32)
        cross = np.einsum("...ri,...ri,...i->...r", columns, levels, importance)
        own = np.einsum("...ri,...ri,...i->...r", levels, levels, importance)
        ratio = np.divide(cross, own, out=np.array(steps.step), where=own > 0)
        return Steps(_positive(np.maximum(ratio, self.least), self.levels), steps.zero)


@dataclass(frozen=True, slots=True)
class Asymmetric:
    """Any step, and a zero point that is a code."""

    levels: Levels
    block: int | None = None

    def fit(self, columns: Floats, importance: Floats) -> Steps:
        """The best of a few dozen shares of the range from the smallest to the largest weight, 0 included."""
        low, high = np.minimum(columns.min(axis=-1), 0), np.maximum(columns.max(axis=-1), 0)
        first, last = self.levels.low, self.levels.high

        def over(share: float) -> Steps:
            step = _positive(share * (high - low) / np.float32(last - first), self.levels)
            return Steps(step, np.clip(np.rint(first - share * low / step), first, last).astype(np.float32))

        return _best(map(over, _SHRINKAGES), columns, self.levels, importance)


@dataclass(frozen=True, slots=True)
class TwoLevel:
    """Steps that are whole multiples of the scale of the row.

    Attributes:
        scale: of each row, (…, rows).
        largest: multiplier, at most 15; the smallest is 0, for blocks without weights.
    """

    levels: Levels
    block: int
    scale: Floats
    largest: int

    @classmethod
    def covering(
        cls, matrix: Floats, levels: Levels, block: int, importance: Floats, ceiling: int = LARGEST_INT8
    ) -> "TwoLevel":
        """The grid whose largest multiplier gives every row the step of its widest block.

        Args:
            matrix: (…, rows, inputs).
            levels: of the codes.
            block: inputs that share a step; divides them.
            importance: of each input, (…, inputs).
            ceiling: of the magnitude of level · multiplier.
        """
        largest = min(LARGEST_MULTIPLIER, ceiling // levels.magnitude)
        *lead, rows, inputs = matrix.shape
        blocks = matrix.reshape(*lead, rows, inputs // block, block).swapaxes(-2, -3)
        steps = Symmetric(levels).fit(blocks, importance.reshape(*lead, inputs // block, block)).step
        widest = np.where(blocks.any(axis=-1), steps, 0).max(axis=-2)
        return cls(levels, block, _positive(widest / np.float32(largest), levels), largest)

    def fit(self, columns: Floats, importance: Floats) -> Steps:
        """The best of all multipliers."""
        multipliers = np.arange(self.largest + 1, dtype=np.float32)
        tried = (Steps(m * self.scale, np.zeros_like(self.scale)) for m in multipliers)
        return _best(tried, columns, self.levels, importance)


def _best(tried: Iterable[Steps], columns: Floats, levels: Levels, importance: Floats) -> Steps:
    """Row by row the steps of least error, the earlier ones on a tie."""
    candidates = iter(tried)
    best = next(candidates)
    least = best.error(columns, levels, importance)
    for steps in candidates:
        error = steps.error(columns, levels, importance)
        better = error < least
        best = Steps(np.where(better, steps.step, best.step), np.where(better, steps.zero, best.zero))
        least = np.where(better, error, least)
    return best


def _positive(step: Floats, levels: Levels) -> Floats:
    """Steps of rows that are all zero become 1; as good as 0 where no level is 0."""
    idle = np.float32(_NEGLIGIBLE if levels.odd else 1)
    return np.where(step < SMALLEST_SCALE, idle, step).astype(np.float32)
