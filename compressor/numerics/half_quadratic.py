"""Half-quadratic quantization: steps that fit most weights closely and let a few be far off. Needs no data.

Badri & Shaji 2023, "Half-Quadratic Quantization of Large Machine Learning Models": the error is measured
in the norm Σ|e|^p with p < 1, which outliers hardly move. It is split in two easy problems by a second
variable e for the error,

    min over steps, e of  Σ|e|^p + β/2 · ‖w - rounded - e‖²,

solved in turns: e by shrinkage, |e| ← max(|r| - |r|^(p-1) / β, 0) with r = w - rounded, both in steps,
then the step by least squares on w - e; β grows from turn to turn. Zero points stay what they were at
the start: they are codes, and so small a change never takes one to the next.
"""

from dataclasses import dataclass

import numpy as np

from compressor.numerics.affine import SMALLEST_SCALE, Floats
from compressor.numerics.grids import Grid, Steps
from compressor.numerics.levels import Levels

_P = 0.7
_BETA = 10.0
_GROWTH = 1.01
_TURNS = 20


@dataclass(frozen=True, slots=True)
class HalfQuadratic:
    """A grid of real steps, fitted in the norm of p < 1.

    Attributes:
        start: the grid whose steps are improved on.
    """

    start: Grid

    @property
    def levels(self) -> Levels:
        """What a code stands for."""
        return self.start.levels

    @property
    def block(self) -> int | None:
        """Columns that share a step; None: all of them."""
        return self.start.block

    def fit(self, columns: Floats, importance: Floats) -> Steps:
        """The steps of least Σ|e|^p among those met on the way."""
        steps = best = self.start.fit(columns, importance)
        least = _error(best, columns, self.levels)
        beta = _BETA
        for _ in range(_TURNS):
            steps = self._improved(steps, columns, beta)
            error = _error(steps, columns, self.levels)
            better = error < least
            best = Steps(np.where(better, steps.step, best.step), best.zero)
            least = np.where(better, error, least)
            beta *= _GROWTH
        return best

    def _improved(self, steps: Steps, columns: Floats, beta: float) -> Steps:
        """One turn: the errors, then the step that fits what they leave."""
        wide = steps.wide()
        codes = wide.nearest(columns, self.levels)
        rest = (columns - wide.dequantize(codes, self.levels)) / wide.step
        target = columns - _shrunk(rest, beta) * wide.step
        levels = self.levels.of(codes).astype(np.float32) - wide.zero
        own = np.square(levels).sum(axis=-1)
        step = np.divide((levels * target).sum(axis=-1), own, out=np.array(steps.step), where=own > 0)
        return Steps(np.where(step > SMALLEST_SCALE, step, steps.step).astype(np.float32), steps.zero)


def _shrunk(rest: Floats, beta: float) -> Floats:
    magnitude = np.maximum(np.abs(rest), np.float32(1e-8))
    return (np.sign(rest) * np.maximum(magnitude - magnitude ** (_P - 1) / beta, 0)).astype(np.float32)


def _error(steps: Steps, columns: Floats, levels: Levels) -> Floats:
    wide = steps.wide()
    rest = wide.dequantize(wide.nearest(columns, levels), levels) - columns
    error: Floats = (np.abs(rest) ** _P).sum(axis=-1)
    return error
