"""Channels rescaled between two layers so that each weight uses its range well.

Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction": when f is
positively homogeneous, f(a x) = a f(x) for a > 0 as Relu is, then for every positive vector s

    W₂ f(W₁ x + b₁) = W₂ S f(S⁻¹ W₁ x + S⁻¹ b₁),    S = diag(s).

With r₁ᵢ = max|row i of W₁| and r₂ᵢ = max|column i of W₂| the choice sᵢ = √(r₁ᵢ r₂ᵢ) / r₂ᵢ makes both ranges
√(r₁ᵢ r₂ᵢ). The same identity holds for a layer with several readers, W₂ being their matrices in one.

Matrices are (outputs, inputs); the inputs of a convolution are its channels per group, each with all its
kernel positions.
"""

import numpy as np

from compressor.numerics.affine import Floats

FAINT = 1e-2
"""Channels whose range is below this share of the largest are left alone: scaled up to the others, their
biases would dwarf all activations."""


def equalizing_scale(made: Floats, read: Floats) -> Floats:
    """sᵢ = √(r₁ᵢ r₂ᵢ) / r₂ᵢ; 1 for channels that are dead or faint on either side.

    Args:
        made: r₁, largest magnitude of the weights that make each channel, (channels,).
        read: r₂, largest magnitude of the weights that read it.
    """
    r1, r2 = made.astype(np.float64), read.astype(np.float64)
    alive = (r1 > FAINT * r1.max(initial=0)) & (r2 > FAINT * r2.max(initial=0))
    ratio = np.divide(r1, r2, out=np.ones_like(r1), where=alive)
    return np.sqrt(ratio).astype(np.float32)


def input_magnitudes(matrix: Floats, groups: int, channels: int) -> Floats:
    """Largest magnitude among the weights that read each input channel, (channels,).

    Args:
        matrix: (outputs, inputs).
        groups: of a convolution; 1 for a product.
        channels: of its input, all groups together.
    """
    magnitudes: Floats = np.abs(_by_channel(matrix, groups, channels)).max(axis=(1, 3)).ravel()
    return magnitudes


def multiply_inputs(matrix: Floats, groups: int, scale: Floats) -> Floats:
    """W S: what reads channel i is multiplied by scaleᵢ; arguments as of `input_magnitudes`."""
    by_channel = _by_channel(matrix, groups, len(scale))
    return (by_channel * scale.reshape(groups, 1, -1, 1)).reshape(matrix.shape).astype(np.float32)


def _by_channel(matrix: Floats, groups: int, channels: int) -> Floats:
    """(groups, outputs per group, channels per group, kernel positions)."""
    return matrix.reshape(groups, len(matrix) // groups, channels // groups, -1)
