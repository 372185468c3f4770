"""Means of two versions of one output, folded over batches."""

import numpy as np
import pytest

from compressor.numerics.bias_correction import LEAST_CORRELATION, ChannelMoments
from tests.models import Floats, array, floats


def _moments(expected: Floats, found: Floats, sizes: tuple[int, ...]) -> ChannelMoments:
    moments, start = ChannelMoments(expected.shape[1]), 0
    for size in sizes:
        moments.update(expected[start : start + size], found[start : start + size])
        start += size
    return moments


@pytest.mark.parametrize("sizes", [(60,), (20, 39, 1)])
def test_the_shift_is_the_difference_of_means_however_rows_fall_into_batches(
    rng: np.random.Generator, sizes: tuple[int, ...]
) -> None:
    expected = floats(rng, 60, 5) + 3
    found = expected - array([0.5, 0, -0.25, 1, 0]) + floats(rng, 60, 5) / 50
    difference = (expected.astype(np.float64) - found).mean(axis=0)
    assert _moments(expected, found, sizes).shift() == pytest.approx(difference, abs=1e-5)


def test_channels_that_were_rescaled_are_compared_in_their_own_units(rng: np.random.Generator) -> None:
    expected, scale, moved = floats(rng, 4000, 4) + 2, array([0.1, 1, 4, 20]), array([0.5, 0, -1, 0.25])
    found = expected / scale - moved
    assert _moments(expected, found, (4000,)).shift() == pytest.approx(moved, abs=1e-3)


def test_a_little_noise_is_not_taken_for_other_units(rng: np.random.Generator) -> None:
    expected = floats(rng, 4000, 3) + 100
    found = expected + floats(rng, 4000, 3) * np.float32(0.3)
    assert np.abs(_moments(expected, found, (4000,)).shift()).max() < 0.1


def test_a_channel_that_never_moves_is_shifted_by_its_difference() -> None:
    expected, found = np.full((9, 2), 3.0, np.float32), np.full((9, 2), 2.5, np.float32)
    assert _moments(expected, found, (9,)).shift() == pytest.approx([0.5, 0.5])


def test_what_is_not_the_same_thing_does_not_correlate(rng: np.random.Generator) -> None:
    one, other = floats(rng, 500, 8), floats(rng, 500, 8)
    assert _moments(one, one * 3 - 1, (500,)).correlation() == pytest.approx(1)
    assert abs(_moments(one, other, (500,)).correlation()) < LEAST_CORRELATION
    assert _moments(one, -one, (500,)).correlation() < 0


def test_nothing_seen_correlates_with_nothing() -> None:
    assert ChannelMoments(3).correlation() == 0
