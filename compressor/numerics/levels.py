"""The integers a low-bit code may stand for, and what a matrix of codes stands for.

A code is stored in a few bits and stands for a *level*: an integer small enough that level ·
multiplier still fits into int8. A matrix of codes comes with steps, the real width of one level:

    real = step · (level(code) - zero_point)

with one step per row (per-channel) or per row and block of inputs (per-block). On a *two-level* grid
the step of a block is itself an integer multiple of the row's scale, step = scale · multiplier
(Lin et al. 2024, "QServe", progressive group quantization), so that the whole matrix folds to one
int8 matrix with one scale per row, and block-wise accuracy costs nothing at run time.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from compressor.numerics.affine import Floats

Bits = Literal[8, 4, 3, 2, "ternary", "binary"]

Codes = NDArray[np.int8]

LARGEST_INT8 = 127
LARGEST_MULTIPLIER = 15
"""Multipliers are stored in four bits."""


@dataclass(frozen=True, slots=True)
class Levels:
    """The levels of one code width.

    Attributes:
        name: as a recipe writes it.
        bits: stored per code; ternary codes go five to a byte.
        low: smallest code.
        high: largest code.
        odd: whether a code c stands for 2c + 1 instead of c. Levels without a zero, ±1, ±3 …, are
            closer to bell-shaped weights when there are few of them.
    """

    name: Bits
    bits: float
    low: int
    high: int
    odd: bool = False

    @property
    def largest(self) -> int:
        """The largest magnitude of a level on the positive side."""
        return 2 * self.high + 1 if self.odd else self.high

    @property
    def magnitude(self) -> int:
        """The largest magnitude of a level on either side."""
        return max(self.largest, -(2 * self.low + 1 if self.odd else self.low))

    def nearest(self, real: Floats) -> Codes:
        """The codes whose levels are closest to `real`, given in steps; same shape."""
        codes = np.floor(real / 2) if self.odd else np.rint(real)
        return np.clip(codes, self.low, self.high).astype(np.int8)

    def of(self, codes: Codes) -> Codes:
        """The levels that `codes` stand for; same shape."""
        return (2 * codes + 1).astype(np.int8) if self.odd else codes


LEVELS: dict[Bits, Levels] = {
    8: Levels(8, 8, -127, 127),
    4: Levels(4, 4, -8, 7),
    3: Levels(3, 3, -4, 3, odd=True),
    2: Levels(2, 2, -2, 1, odd=True),
    "ternary": Levels("ternary", 1.6, -1, 1),
    "binary": Levels("binary", 1, -1, 0, odd=True),
}
"""Levels of codes that are folded to int8 at load."""

REDUCED = Levels(8, 8, -64, 64)
"""Eight-bit levels of which two, each times a uint8, add up within 16 bits: 2 · 255 · 64 < 2¹⁵. Processors
without VNNI add pairs of products so, and anything larger saturates."""

SIGNED: dict[Bits, Levels] = {bits: Levels(bits, bits, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 4, 2)}
"""Levels of codes that ONNX Runtime's block-wise operators read: every integer of that many bits."""


@dataclass(frozen=True, slots=True)
class Coded:
    """A matrix in codes.

    Attributes:
        codes: (outputs, inputs).
        levels: what a code stands for.
        scale: real width of one level times one multiplier: () for the whole matrix, (outputs,), or
            (outputs, blocks) when every block has a real step of its own.
        multipliers: (outputs, blocks), 0 … 15, on a two-level grid; None elsewhere.
        zero_points: the code of real 0 on asymmetric grids, shape of `scale`; None when it is 0.
    """

    codes: Codes
    levels: Levels
    scale: Floats
    multipliers: NDArray[np.uint8] | None = None
    zero_points: Codes | None = None

    @property
    def block(self) -> int:
        """Inputs that share a step."""
        return self._width(self.scale if self.multipliers is None else self.multipliers)

    def integers(self) -> Codes:
        """level · multiplier, (outputs, inputs): the int8 matrix that run time sees."""
        levels = self.levels.of(self.codes)
        if self.multipliers is None:
            return levels
        return (levels * np.repeat(self.multipliers.astype(np.int8), self.block, axis=1)).astype(np.int8)

    def per_weight(self) -> tuple[Floats, Floats]:
        """Step and zero point of every weight, both (outputs, inputs)."""
        shape = self.codes.shape
        shared = np.broadcast_to(self.scale, shape[:1]) if self.scale.ndim == 0 else self.scale
        scale = np.repeat(shared.reshape(shape[0], -1), self._width(shared), axis=1)
        if self.multipliers is not None:
            scale = scale * np.repeat(self.multipliers, self.block, axis=1)
        zeros = np.zeros(1, np.int8) if self.zero_points is None else self.zero_points.reshape(shape[0], -1)
        if self.zero_points is not None:
            zeros = np.repeat(zeros, self.block, axis=1)
        return scale.astype(np.float32), np.broadcast_to(zeros, shape).astype(np.float32)

    def dequantize(self) -> Floats:
        """The real values the codes stand for, (outputs, inputs)."""
        steps, zeros = self.per_weight()
        return (self.levels.of(self.codes).astype(np.float32) - zeros) * steps

    @property
    def nbytes(self) -> int:
        """Stored: packed codes, scales, multipliers, zero points."""
        multipliers = 0 if self.multipliers is None else -(-self.multipliers.size // 2)
        zeros = 0 if self.zero_points is None else -(-self.zero_points.size * int(self.levels.bits) // 8)
        return -(-int(self.codes.size * self.levels.bits * 10) // 80) + self.scale.nbytes + multipliers + zeros

    def _width(self, shared: NDArray[np.generic]) -> int:
        return self.codes.size // max(shared.size, len(self.codes))
