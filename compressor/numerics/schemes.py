"""What is asked of the codes of a weight, and the codes that answer it."""

from dataclasses import dataclass, replace
from math import log, log2
from typing import Literal

import numpy as np

from compressor.numerics.affine import Doubles, Floats
from compressor.numerics.grids import Asymmetric, Covering, Grid, Symmetric, TwoLevel
from compressor.numerics.half_quadratic import HalfQuadratic
from compressor.numerics.levels import LARGEST_INT8, LEVELS, REDUCED, SIGNED, Bits, Coded
from compressor.numerics.rounding import nearest, second_order

Granularity = Literal["per_tensor", "per_channel", "per_block"]
Rounding = Literal["nearest", "half_quadratic", "second_order", "learned"]
Compute = Literal["int8", "float"]

_USUAL = (1e-12, 1e12)
"""Largest magnitudes of a weight between which squares of errors are numbers that float32 tells apart."""

_FARTHEST = log(4)
"""How far a block may be from the one asked for, as a ratio, before a row goes without blocks."""


@dataclass(frozen=True, slots=True)
class Scheme:
    """How a weight is to be coded.

    Attributes:
        bits: of a code.
        granularity: what shares one step.
        block: inputs that share a step, with per_block; for compute int8 the nearest divisor of their
            number is taken.
        compute: int8, when the codes are folded to int8 with one scale per row, so that the steps of
            blocks must be whole multiples of it; float, when every block has a real step, and inputs
            that are always 0 are added until the blocks are whole.
        symmetric: whether real 0 is code 0, with compute float.
        rounding: from real weights to codes; learned starts as second_order does.
        reduced: whether what codes are folded to ends at ±64, so that two products with uint8 add up
            within 16 bits.
    """

    bits: Bits
    granularity: Granularity = "per_channel"
    block: int = 32
    compute: Compute = "int8"
    symmetric: bool = True
    rounding: Rounding = "nearest"
    reduced: bool = False

    @property
    def needs_moments(self) -> bool:
        """Whether rounding goes by the second moments of the layer's inputs."""
        return self.rounding in ("second_order", "learned")

    def __str__(self) -> str:
        width = f"{self.bits} bits" if isinstance(self.bits, int) else self.bits
        shared = f"blocks of {self.block}" if self.granularity == "per_block" else self.granularity
        return f"{width}, {shared}, {self.rounding}"


def encode(
    matrix: Floats,
    scheme: Scheme,
    moments: Doubles | None = None,
    groups: int = 1,
    least: Floats | float = 0.0,
) -> Coded:
    """The codes of a weight.

    Args:
        matrix: (outputs, inputs); the outputs are divided evenly among the groups.
        scheme: what is asked.
        moments: H = E[xxᵀ] of the layer's inputs, (groups, inputs, inputs); second-order rounding needs
            it, and nearest rounding then weighs inputs by its diagonal.
        groups: of the convolution.
        least: a floor under the scales of whole rows, () or (outputs,).
    """
    largest = float(np.abs(matrix).max(initial=0))
    if largest > 0 and not _USUAL[0] < largest < _USUAL[1]:
        factor = np.float32(2.0 ** -round(log2(largest)))
        coded = encode(matrix * factor, scheme, moments, groups, np.asarray(least * factor, np.float32))
        return replace(coded, scale=(coded.scale / factor).astype(np.float32))
    weights, moments = _filled(matrix.reshape(groups, -1, matrix.shape[1]), moments, scheme)
    importance = None if moments is None else np.einsum("gii->gi", moments).astype(np.float32)
    floor = np.broadcast_to(np.float32(least), len(matrix)).reshape(groups, -1)
    grid = _grid(weights, scheme, importance, floor)
    if scheme.needs_moments and moments is not None:
        coded = second_order(weights, moments, grid)
    else:
        coded = nearest(weights, grid, importance)
    return replace(coded, scale=coded.scale[0]) if scheme.granularity == "per_tensor" else coded


def _filled(weights: Floats, moments: Doubles | None, scheme: Scheme) -> tuple[Floats, Doubles | None]:
    """With compute float, inputs that are always zero are added until the blocks are whole."""
    missing = -weights.shape[2] % scheme.block if scheme.compute == "float" else 0
    if not missing:
        return weights, moments
    wider = None if moments is None else np.pad(moments, ((0, 0), (0, missing), (0, missing)))
    return np.pad(weights, ((0, 0), (0, 0), (0, missing))), wider


def block_of(inputs: int, wanted: int) -> int | None:
    """The divisor of `inputs` nearest to `wanted`, by ratio; None when all but the whole are far from it."""
    divisors = [d for d in range(1, inputs) if inputs % d == 0]
    best = min(divisors, key=lambda d: abs(log(d / wanted)), default=None)
    return None if best is None or abs(log(best / wanted)) > _FARTHEST else best


def _grid(weights: Floats, scheme: Scheme, importance: Floats | None, least: Floats) -> Grid:
    if scheme.compute == "float":
        levels = SIGNED[scheme.bits]
        grid = Symmetric(levels, scheme.block) if scheme.symmetric else Asymmetric(levels, scheme.block)
        return HalfQuadratic(grid) if scheme.rounding == "half_quadratic" else grid
    levels = REDUCED if scheme.reduced and scheme.bits == 8 else LEVELS[scheme.bits]
    block = block_of(weights.shape[2], scheme.block) if scheme.granularity == "per_block" else None
    if scheme.bits == 8:
        return Covering(levels, None, least, scheme.granularity == "per_tensor")
    if block is None:
        return Symmetric(levels, None, least)
    seen = np.ones((len(weights), weights.shape[2]), np.float32) if importance is None else importance
    ceiling = REDUCED.high if scheme.reduced else LARGEST_INT8
    two_level = TwoLevel.covering(weights, levels, block, seen, ceiling)
    return replace(two_level, scale=np.maximum(two_level.scale, least))
