"""Reduced codes fold to integers of which two products with uint8 add up within 16 bits."""

import numpy as np
import pytest

from compressor.numerics.levels import LEVELS, REDUCED, Bits
from compressor.numerics.schemes import Granularity, Scheme, encode
from tests.models import floats

RNG = np.random.default_rng(0)
SCHEMES: list[tuple[Bits, Granularity]] = [
    (8, "per_tensor"),
    (8, "per_channel"),
    (4, "per_channel"),
    (4, "per_block"),
    (3, "per_block"),
    (2, "per_block"),
    ("ternary", "per_block"),
]


@pytest.mark.parametrize(("bits", "granularity"), SCHEMES)
def test_no_pair_of_products_leaves_16_bits(bits: Bits, granularity: Granularity) -> None:
    spread = floats(RNG, 6, 64) * np.exp(2 * floats(RNG, 1, 64))
    coded = encode(spread, Scheme(bits, granularity, 16, reduced=True))
    integers = coded.integers().astype(int)
    worst = max(np.maximum(integers, 0)[:, [i, j]].sum(axis=1).max() for i in range(64) for j in range(i))
    assert 255 * worst < 2**15
    assert -255 * 2 * integers.min() <= 2**15


def test_without_it_eight_bits_overflow_and_the_next_larger_limit_would_too() -> None:
    coded = encode(np.ones((1, 2), np.float32), Scheme(8))
    assert 255 * coded.integers().sum(dtype=int) >= 2**15
    assert 255 * 2 * REDUCED.high < 2**15 <= 255 * 2 * (REDUCED.high + 1)


@pytest.mark.parametrize("rounding", ["nearest", "second_order"])
def test_the_error_is_that_of_steps_twice_as_wide(rounding: str) -> None:
    matrix = floats(RNG, 8, 256)
    moments = np.eye(256)[None]
    errors = [
        np.linalg.norm(encode(matrix, Scheme(8, reduced=reduced), moments).dequantize() - matrix)
        for reduced in (False, True)
    ]
    assert errors[1] / errors[0] == pytest.approx(127 / 64, rel=0.05)


@pytest.mark.parametrize("bits", LEVELS)
def test_the_magnitude_of_levels_is_that_of_their_farther_end(bits: Bits) -> None:
    levels = LEVELS[bits]
    ends = levels.of(np.array([levels.low, levels.high], np.int8))
    assert levels.magnitude == np.abs(ends.astype(int)).max()
