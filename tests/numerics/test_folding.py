"""Laws of folding: one layer equals two."""

import numpy as np
import torch

from compressor.numerics.folding import ChannelAffine, batch_normalization, fold_after, fold_before
from tests.models import floats


def test_batch_normalization_is_an_affine_map_per_channel(rng: np.random.Generator) -> None:
    x, gamma, beta, mean = floats(rng, 9, 5), floats(rng, 5), floats(rng, 5), floats(rng, 5)
    variance = np.abs(floats(rng, 5))
    tensors = [torch.from_numpy(a) for a in (x, mean, variance, gamma, beta)]
    expected = torch.nn.functional.batch_norm(*tensors, training=False, eps=1e-3).numpy()
    affine = batch_normalization(gamma, beta, mean, variance, 1e-3)
    np.testing.assert_allclose(x * affine.scale + affine.shift, expected, rtol=1e-5, atol=1e-5)


def test_a_variance_of_zero_leaves_finite_numbers() -> None:
    one, zero = np.ones(1, np.float32), np.zeros(1, np.float32)
    affine = batch_normalization(one, zero, zero, zero, 1e-5)
    np.testing.assert_allclose(affine.scale, 1 / np.sqrt(1e-5), rtol=1e-6)


def test_an_affine_map_behind_a_layer_scales_its_rows(rng: np.random.Generator) -> None:
    matrix, bias, x = floats(rng, 4, 6), floats(rng, 4), floats(rng, 6)
    affine = ChannelAffine(floats(rng, 4), floats(rng, 4))
    folded, shifted = fold_after(matrix, bias, affine)
    expected = affine.scale * (matrix.astype(np.float64) @ x + bias) + affine.shift
    np.testing.assert_allclose(folded @ x + shifted, expected, rtol=1e-5, atol=1e-5)


def test_an_affine_map_before_a_convolution_scales_every_position_of_a_channel(rng: np.random.Generator) -> None:
    kernel, bias, x = floats(rng, 4, 3, 2, 2), floats(rng, 4), floats(rng, 3, 2, 2)
    affine = ChannelAffine(floats(rng, 3), floats(rng, 3))
    folded, shifted = fold_before(kernel.reshape(4, 12), bias, affine)
    mapped = x.astype(np.float64) * affine.scale[:, None, None] + affine.shift[:, None, None]
    expected = np.einsum("ochw,chw->o", kernel, mapped) + bias
    np.testing.assert_allclose(folded @ x.ravel() + shifted, expected, rtol=1e-5, atol=1e-5)
    assert folded.dtype == shifted.dtype == np.float32
