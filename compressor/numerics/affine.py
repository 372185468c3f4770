"""Affine quantization: real = scale · (quantized - zero_point).

Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference"; the granularities are those of the ONNX operators QuantizeLinear and DequantizeLinear.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int8] | NDArray[np.uint8]

SMALLEST_SCALE = np.float32(np.finfo(np.float32).tiny)
INT32_LIMIT = 2**31 - 1


@dataclass(frozen=True, slots=True)
class PerTensor:
    """One scale for the whole array."""


@dataclass(frozen=True, slots=True)
class PerChannel:
    """One scale per index along `axis`."""

    axis: int


Granularity = PerTensor | PerChannel


@dataclass(frozen=True, slots=True)
class Grid:
    """The real values an integer array can stand for.

    Attributes:
        scale: width of one step, in real units, > 0; shape () or (channels,).
        zero_point: the integer that stands for real 0, same shape, dtype of the quantized array.
        low: smallest integer used.
        high: largest integer used.
        granularity: what shares one scale.
    """

    scale: Floats
    zero_point: Ints
    low: int
    high: int
    granularity: Granularity

    def quantize(self, real: Floats) -> Ints:
        """The nearest integers on the grid (ties to even), clamped to its ends; shape of `real`."""
        scale, zero_point = self._aligned(real.ndim)
        steps = np.rint(real / scale) + zero_point.astype(np.float32)
        quantized: Ints = np.clip(steps, self.low, self.high).astype(self.zero_point.dtype)
        return quantized

    def dequantize(self, quantized: Ints) -> Floats:
        """The real values `quantized` stands for; same shape."""
        scale, zero_point = self._aligned(quantized.ndim)
        return (quantized.astype(np.float32) - zero_point.astype(np.float32)) * scale

    def _aligned(self, ndim: int) -> tuple[Floats, Ints]:
        match self.granularity:
            case PerTensor():
                return self.scale, self.zero_point
            case PerChannel(axis):
                shape = [1] * ndim
                shape[axis] = -1
                return self.scale.reshape(shape), self.zero_point.reshape(shape)


def symmetric_grid(real: Floats, granularity: Granularity, least_scale: Floats | float = 0.0) -> Grid:
    """The int8 grid with zero_point 0 that just covers `real`: -127 … 127, so that it mirrors.

    Args:
        real: the array to cover.
        granularity: what shares one scale.
        least_scale: a floor under the scales, () or (channels,); see `least_weight_scale`.
    """
    magnitude = np.abs(real)
    match granularity:
        case PerTensor():
            largest = magnitude.max(initial=0.0)
        case PerChannel(axis):
            others = tuple(i for i in range(real.ndim) if i != axis)
            largest = magnitude.max(axis=others, initial=0.0)
    scale = np.asarray(np.maximum(largest / np.float32(127), least_scale), np.float32)
    scale = np.where(scale < SMALLEST_SCALE, np.float32(1), scale).astype(np.float32)
    return Grid(scale, np.zeros(scale.shape, np.int8), -127, 127, granularity)


def asymmetric_grid(low: float, high: float, bits: int = 8) -> Grid:
    """The uint8 grid over [low, high], widened to hold 0 exactly, one scale for the tensor.

    Real 0 must be on the grid: padding and Relu produce it. A range of one point gets scale 1.

    Args:
        low: end of the range.
        high: end of the range, >= low.
        bits: the grid has 2^bits values, from 0 on.
    """
    low, high, most = min(low, 0.0), max(high, 0.0), 2**bits - 1
    scale = np.float32((high - low) / most)
    if scale < SMALLEST_SCALE:
        scale = np.float32(1)
    zero_point = np.uint8(np.clip(np.rint(-low / scale), 0, most))
    return Grid(np.asarray(scale), np.asarray(zero_point), 0, most, PerTensor())


def quantize_bias(bias: Floats, scale: Floats) -> NDArray[np.int32]:
    """Bias on the int32 grid of the accumulator, whose scale is x_scale · w_scale; shape (outputs,)."""
    steps = np.rint(bias.astype(np.float64) / scale.astype(np.float64))
    return np.clip(steps, -INT32_LIMIT, INT32_LIMIT).astype(np.int32)


def least_weight_scale(bias: Floats, x_scale: float) -> Floats:
    """The smallest weight scales at which `bias` still fits into int32 at scale x_scale · w_scale.

    A channel whose weights are nearly zero has a scale so fine that its bias would overflow; half of
    the int32 range is left free for the products.
    """
    return (np.abs(bias) / (np.float32(x_scale) * np.float32(INT32_LIMIT / 2))).astype(np.float32)
