"""What codes stand for, against every code there is and loops over every weight."""

import numpy as np
import pytest

from compressor.numerics.levels import (
    LARGEST_INT8,
    LARGEST_MULTIPLIER,
    LEVELS,
    REDUCED,
    SIGNED,
    Bits,
    Coded,
    Codes,
    Levels,
)
from tests.models import array

EVERY = [*LEVELS.values(), REDUCED, *SIGNED.values()]
FOLDED = [*LEVELS.values(), REDUCED]


def _name(levels: Levels) -> str:
    return f"{levels.name} from {levels.low}"


def _codes(levels: Levels) -> Codes:
    return np.arange(levels.low, levels.high + 1).astype(np.int8)


def _drawn(rng: np.random.Generator, levels: Levels, rows: int, inputs: int) -> Codes:
    return rng.integers(levels.low, levels.high, (rows, inputs), endpoint=True).astype(np.int8)


@pytest.mark.parametrize("levels", EVERY, ids=_name)
def test_the_nearest_code_is_the_best_of_all_codes(levels: Levels) -> None:
    real = np.linspace(1.5 * levels.low - 3, 1.5 * levels.magnitude + 3, 3001, dtype=np.float32)
    codes = levels.nearest(real)
    assert (codes.min(), codes.max()) == (levels.low, levels.high)
    distances = np.abs(levels.of(_codes(levels)).astype(np.float32)[:, None] - real)
    assert np.array_equal(np.abs(levels.of(codes) - real), distances.min(axis=0))


@pytest.mark.parametrize("levels", EVERY, ids=_name)
def test_every_level_is_its_own_nearest(levels: Levels) -> None:
    codes = _codes(levels)
    assert np.array_equal(levels.nearest(levels.of(codes).astype(np.float32)), codes)


@pytest.mark.parametrize("levels", EVERY, ids=_name)
def test_levels_are_as_wide_and_as_large_as_they_say(levels: Levels) -> None:
    values = levels.of(_codes(levels)).astype(int)
    assert set(np.diff(values)) == {2 if levels.odd else 1}
    assert (values.max(), np.abs(values).max()) == (levels.largest, levels.magnitude)


@pytest.mark.parametrize("levels", EVERY, ids=_name)
def test_the_codes_fit_into_the_bits_they_are_stored_in(levels: Levels) -> None:
    per_byte = 5 if levels.name == "ternary" else int(8 // levels.bits)
    assert len(_codes(levels)) ** per_byte <= 256


@pytest.mark.parametrize("levels", FOLDED, ids=_name)
def test_levels_that_are_folded_mirror_but_for_four_bits(levels: Levels) -> None:
    values = levels.of(_codes(levels)).astype(int)
    assert np.array_equal(values, -values[::-1]) or (levels.name, values[0], values[-1]) == (4, -8, 7)


@pytest.mark.parametrize("bits", [3, 2, "binary"])
def test_few_levels_are_odd_so_that_none_is_wasted_on_zero(bits: Bits) -> None:
    assert (LEVELS[bits].of(_codes(LEVELS[bits])) % 2 == 1).all()


@pytest.mark.parametrize("bits", [4, 3, 2, "ternary", "binary"])
def test_a_level_times_the_largest_multiplier_is_still_int8(bits: Bits) -> None:
    assert LEVELS[bits].magnitude * LARGEST_MULTIPLIER <= LARGEST_INT8


def test_two_reduced_weights_times_any_activations_add_up_within_16_bits() -> None:
    assert 2 * 255 * REDUCED.magnitude < 2**15 <= 2 * 255 * LEVELS[8].magnitude


@pytest.mark.parametrize("shape", [(), (3,), (3, 4)], ids=["matrix", "rows", "blocks"])
@pytest.mark.parametrize("bits", [8, 4, 2])
def test_codes_stand_for_step_times_level_above_zero(
    bits: Bits, shape: tuple[int, ...], rng: np.random.Generator
) -> None:
    levels = SIGNED[bits]
    zeros = _drawn(rng, levels, 3, 4) if len(shape) == 2 else None
    coded = Coded(_drawn(rng, levels, 3, 8), levels, array(rng.uniform(0.1, 1, shape)), None, zeros)
    expected = np.empty((3, 8))
    for row, column in np.ndindex(3, 8):
        place = (row, column // 2)
        step = coded.scale[place[: len(shape)]]
        expected[row, column] = step * (int(coded.codes[row, column]) - (0 if zeros is None else int(zeros[place])))
    np.testing.assert_allclose(coded.dequantize(), expected, rtol=1e-6)
    assert coded.dequantize().dtype == np.float32


@pytest.mark.parametrize("bits", [4, 3, 2, "ternary", "binary"])
def test_a_two_level_grid_folds_to_int8_with_one_scale_per_row(bits: Bits, rng: np.random.Generator) -> None:
    levels = LEVELS[bits]
    multipliers = rng.integers(1, LARGEST_MULTIPLIER, (3, 2), endpoint=True).astype(np.uint8)
    coded = Coded(_drawn(rng, levels, 3, 8), levels, array(rng.uniform(0.1, 1, 3)), multipliers)
    integers = coded.integers()
    assert integers.dtype == np.int8
    for row, column in np.ndindex(3, 8):
        code = int(coded.codes[row, column])
        level = 2 * code + 1 if levels.odd else code
        assert integers[row, column] == level * int(multipliers[row, column // 4])
    np.testing.assert_allclose(coded.dequantize(), integers * coded.scale[:, None], rtol=1e-6)


def test_without_multipliers_the_integers_are_the_levels(rng: np.random.Generator) -> None:
    codes = _drawn(rng, LEVELS[2], 3, 8)
    assert np.array_equal(Coded(codes, LEVELS[2], np.ones(3, np.float32)).integers(), 2 * codes + 1)


def test_a_block_is_as_many_inputs_as_share_a_step() -> None:
    codes, one = np.zeros((4, 12), np.int8), LEVELS[4]
    assert Coded(codes, one, array(1.0)).block == 12
    assert Coded(codes, one, np.ones(4, np.float32)).block == 12
    assert Coded(codes, one, np.ones((4, 3), np.float32)).block == 4
    assert Coded(codes, one, np.ones(4, np.float32), np.ones((4, 6), np.uint8)).block == 2


@pytest.mark.parametrize(("bits", "codes"), [(8, 21), (4, 11), (3, 8), (2, 6), ("ternary", 5), ("binary", 3)], ids=str)
def test_stored_bytes_are_whole_bytes_of_codes_and_what_belongs_to_them(bits: Bits, codes: int) -> None:
    plain = Coded(np.zeros((3, 7), np.int8), LEVELS[bits], np.ones(3, np.float32))
    assert plain.nbytes == codes + 3 * 4
    two_level = Coded(plain.codes, plain.levels, plain.scale, np.ones((3, 1), np.uint8))
    assert two_level.nbytes == plain.nbytes + 2  # three multipliers of four bits


def test_zero_points_are_stored_in_as_many_bits_as_codes() -> None:
    blocks = Coded(np.zeros((4, 8), np.int8), SIGNED[4], np.ones((4, 2), np.float32), None, np.ones((4, 2), np.int8))
    assert blocks.nbytes == 4 * 8 / 2 + 4 * 2 * 4 + 4 * 2 / 2
