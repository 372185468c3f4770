"""Affine maps per channel, and what they become inside the linear layer beside them.

BatchNormalization in inference is y = γ (x - μ) / √(σ² + ε) + β, that is y = scale · x + shift.
After a layer y = W x + b it gives W' = scale · W (rows), b' = scale · b + shift; before a layer it
gives W' = W · scale (columns), b' = b + W shift.
"""

from dataclasses import dataclass

import numpy as np

from compressor.numerics.affine import Floats


@dataclass(frozen=True, slots=True)
class ChannelAffine:
    """y = scale · x + shift for every channel; both (channels,)."""

    scale: Floats
    shift: Floats


def batch_normalization(gamma: Floats, beta: Floats, mean: Floats, variance: Floats, epsilon: float) -> ChannelAffine:
    """BatchNormalization in inference, Ioffe & Szegedy 2015; all (channels,), variance ≥ 0."""
    scale = gamma.astype(np.float64) / np.sqrt(variance.astype(np.float64) + epsilon)
    shift = beta - mean * scale
    return ChannelAffine(scale.astype(np.float32), shift.astype(np.float32))


def fold_after(matrix: Floats, bias: Floats, affine: ChannelAffine) -> tuple[Floats, Floats]:
    """The layer that equals `matrix`, `bias` followed by `affine` on its outputs.

    Args:
        matrix: (outputs, inputs).
        bias: (outputs,).
        affine: over the outputs.
    """
    return matrix * affine.scale[:, None], bias * affine.scale + affine.shift


def fold_before(matrix: Floats, bias: Floats, affine: ChannelAffine) -> tuple[Floats, Floats]:
    """The layer that equals `affine` on the inputs followed by `matrix`, `bias`.

    Args:
        matrix: (outputs, inputs); for a convolution, inputs · kernel positions, inputs outermost.
        bias: (outputs,).
        affine: over the inputs.
    """
    repeat = matrix.shape[1] // len(affine.scale)
    scale, shift = np.repeat(affine.scale, repeat), np.repeat(affine.shift, repeat)
    return matrix * scale, (bias + matrix.astype(np.float64) @ shift).astype(np.float32)
