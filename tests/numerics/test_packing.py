"""Bytes against the arithmetic they stand for, digit by digit."""

import numpy as np
import pytest

from compressor.numerics.packing import Bytes, pack_bits, pack_ternary


def _digits(packed: Bytes, base: int, places: int) -> list[int]:
    """Every byte as a number of `base`, the lowest digit first."""
    return [int(byte) // base**place % base for byte in packed for place in range(places)]


@pytest.mark.parametrize("count", [0, 1, 2, 7, 8, 9, 63])
@pytest.mark.parametrize("bits", [1, 2, 4])
def test_the_first_value_is_in_the_lowest_bits(bits: int, count: int, rng: np.random.Generator) -> None:
    values = rng.integers(0, 2**bits, count).astype(np.uint8)
    packed = pack_bits(values, bits)
    assert packed.dtype == np.uint8
    assert packed.shape == (-(-count * bits // 8),)
    found = _digits(packed, 2**bits, 8 // bits)
    assert found[:count] == values.tolist()
    assert not any(found[count:])


@pytest.mark.parametrize("count", [0, 1, 4, 5, 6, 63])
def test_five_ternary_values_are_the_digits_of_a_byte(count: int, rng: np.random.Generator) -> None:
    values = rng.integers(0, 3, count).astype(np.uint8)
    packed = pack_ternary(values)
    assert packed.dtype == np.uint8
    assert packed.shape == (-(-count // 5),)
    found = _digits(packed, 3, 5)
    assert found[:count] == values.tolist()
    assert not any(found[count:])


def test_the_largest_ternary_byte_is_242() -> None:
    assert pack_ternary(np.full(5, 2, np.uint8)).tolist() == [242]


def test_arrays_are_packed_in_their_own_order(rng: np.random.Generator) -> None:
    values = rng.integers(0, 4, (3, 5, 7)).astype(np.uint8)
    assert np.array_equal(pack_bits(values, 2), pack_bits(values.reshape(-1), 2))
    assert np.array_equal(pack_bits(values.T, 2), pack_bits(np.ascontiguousarray(values.T), 2))
    assert np.array_equal(pack_ternary(values // 2), pack_ternary(values.reshape(-1) // 2))
