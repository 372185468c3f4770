"""Scales between two layers: equal ranges on both sides, and the products as they were."""

import numpy as np
import pytest

from compressor.numerics.equalization import FAINT, equalizing_scale, input_magnitudes, multiply_inputs
from tests.models import Floats, array, floats

GROUPS = [(6, 4, 1, 1), (6, 4, 1, 9), (6, 4, 2, 9), (4, 4, 4, 9)]
"""Outputs, channels, groups and kernel positions."""


def _of_channel(matrix: Floats, groups: int, channels: int, channel: int) -> Floats:
    """The weights that read one channel, picked entry by entry."""
    each = channels // groups
    group, place = divmod(channel, each)
    rows = range(group * len(matrix) // groups, (group + 1) * len(matrix) // groups)
    kernel = matrix.shape[1] // each
    return array([[matrix[row, place * kernel + k] for k in range(kernel)] for row in rows])


@pytest.mark.parametrize(("outputs", "channels", "groups", "kernel"), GROUPS)
def test_magnitudes_are_those_of_the_weights_that_read_the_channel(
    rng: np.random.Generator, outputs: int, channels: int, groups: int, kernel: int
) -> None:
    matrix = floats(rng, outputs, channels // groups * kernel)
    expected = [np.abs(_of_channel(matrix, groups, channels, c)).max() for c in range(channels)]
    assert np.array_equal(input_magnitudes(matrix, groups, channels), array(expected))


@pytest.mark.parametrize(("outputs", "channels", "groups", "kernel"), GROUPS)
def test_each_channel_is_multiplied_by_its_own_scale(
    rng: np.random.Generator, outputs: int, channels: int, groups: int, kernel: int
) -> None:
    matrix, scale = floats(rng, outputs, channels // groups * kernel), 1 + np.arange(channels, dtype=np.float32)
    found = multiply_inputs(matrix, groups, scale)
    for channel in range(channels):
        before, after = (_of_channel(m, groups, channels, channel) for m in (matrix, found))
        assert np.array_equal(after, before * scale[channel])


def test_both_ranges_become_their_geometric_mean(rng: np.random.Generator) -> None:
    made, read = np.exp(floats(rng, 20)), np.exp(floats(rng, 20))
    scale = equalizing_scale(made, read)
    assert made / scale == pytest.approx(np.sqrt(made * read), rel=1e-6)
    assert read * scale == pytest.approx(np.sqrt(made * read), rel=1e-6)


@pytest.mark.parametrize("faint", [0.0, FAINT / 2])
@pytest.mark.parametrize("side", [0, 1])
def test_dead_and_faint_channels_are_left_alone(faint: float, side: int) -> None:
    ranges = [array([4.0, 1.0, 1.0]), array([1.0, 1.0, 1.0])]
    ranges[side][1] = faint
    assert equalizing_scale(*ranges).tolist() == [2, 1, 1]


def test_a_layer_that_is_all_zeros_is_left_alone() -> None:
    assert equalizing_scale(np.zeros(3, np.float32), np.ones(3, np.float32)).tolist() == [1, 1, 1]
