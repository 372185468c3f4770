"""What a recipe asks of codes is what comes out: shapes, widths, bounds and the nearest block there is."""

from dataclasses import replace
from math import log

import numpy as np
import pytest

from compressor.numerics.affine import PerChannel, PerTensor, symmetric_grid
from compressor.numerics.divergence import relative_error
from compressor.numerics.levels import LEVELS, SIGNED, Bits
from compressor.numerics.rounding import output_error
from compressor.numerics.schemes import Granularity, Rounding, Scheme, block_of, encode
from tests.models import floats

EVERY: tuple[Bits, ...] = (8, 4, 3, 2, "ternary", "binary")


@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
def test_eight_bits_are_the_symmetric_affine_grid(granularity: Granularity, rng: np.random.Generator) -> None:
    matrix = floats(rng, 6, 20)
    coded = encode(matrix, Scheme(8, granularity))
    grid = symmetric_grid(matrix, PerTensor() if granularity == "per_tensor" else PerChannel(0))
    assert np.array_equal(coded.integers(), grid.quantize(matrix))
    np.testing.assert_allclose(coded.scale, grid.scale, rtol=1e-6)
    assert coded.scale.shape == grid.scale.shape


@pytest.mark.parametrize("bits", EVERY)
def test_codes_are_of_the_width_that_was_asked_for(bits: Bits, rng: np.random.Generator) -> None:
    coded = encode(floats(rng, 6, 20), Scheme(bits))
    assert coded.levels == LEVELS[bits]
    assert (coded.scale.shape, coded.multipliers, coded.zero_points) == ((6,), None, None)
    assert coded.codes.min() >= LEVELS[bits].low
    assert coded.codes.max() <= LEVELS[bits].high


@pytest.mark.parametrize("bits", EVERY[1:])
def test_blocks_in_int8_have_multipliers_of_one_scale_per_row(bits: Bits, rng: np.random.Generator) -> None:
    coded = encode(floats(rng, 6, 24), Scheme(bits, "per_block", 8))
    assert coded.multipliers is not None
    assert (coded.scale.shape, coded.multipliers.shape) == ((6,), (6, 3))
    assert coded.multipliers.min() >= 1
    assert np.abs(coded.integers().astype(int)).max() <= 127


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [8, 4, 2])
def test_blocks_in_float_have_steps_and_inputs_are_filled_up(
    bits: Bits, symmetric: bool, rng: np.random.Generator
) -> None:
    matrix = floats(rng, 6, 20) + np.float32(0.5)
    coded = encode(matrix, Scheme(bits, "per_block", 16, "float", symmetric))
    assert coded.levels == SIGNED[bits]
    assert (coded.codes.shape, coded.scale.shape) == ((6, 32), (6, 2))
    assert (coded.zero_points is None) == symmetric
    assert not coded.dequantize()[:, 20:].any()
    alone = encode(matrix[:, :16], Scheme(bits, "per_block", 16, "float", symmetric))
    assert np.array_equal(coded.codes[:, :16], alone.codes)


@pytest.mark.parametrize("bits", [4, 3, 2, "ternary", "binary"])
@pytest.mark.parametrize("granularity", ["per_channel", "per_block"])
def test_fewer_bits_err_more_and_blocks_err_less(
    bits: Bits, granularity: Granularity, rng: np.random.Generator
) -> None:
    matrix = floats(rng, 40, 64) * np.repeat(rng.gamma(2, size=(40, 8)), 8, axis=1).astype(np.float32)

    def error(scheme: Scheme) -> float:
        return float(np.square(encode(matrix, scheme).dequantize() - matrix).sum())

    wider: Bits = EVERY[EVERY.index(bits) - 1]
    assert error(Scheme(bits, granularity, 8)) > error(Scheme(wider, granularity, 8))
    assert error(Scheme(bits, "per_block", 8)) < error(Scheme(bits, "per_channel"))


@pytest.mark.parametrize("bits", EVERY)
@pytest.mark.parametrize("granularity", ["per_channel", "per_block"])
def test_reduced_integers_end_at_64(bits: Bits, granularity: Granularity, rng: np.random.Generator) -> None:
    scheme = Scheme(bits, granularity, 8, reduced=True)
    integers = encode(floats(rng, 20, 32), scheme).integers().astype(int)
    assert np.abs(integers).max() <= 64
    assert bits != 8 or np.abs(integers).max() == 64


@pytest.mark.parametrize("rounding", ["nearest", "second_order"])
@pytest.mark.parametrize("granularity", ["per_channel", "per_block"])
@pytest.mark.parametrize("bits", EVERY)
def test_no_scale_of_a_row_is_below_the_floor(
    bits: Bits, granularity: Granularity, rounding: Rounding, rng: np.random.Generator
) -> None:
    matrix = floats(rng, 6, 16)
    matrix[::2] *= np.float32(1e-4)
    floor = np.linspace(0.01, 0.02, 6, dtype=np.float32)
    coded = encode(matrix, Scheme(bits, granularity, 8, rounding=rounding), np.eye(16)[None], least=floor)
    assert (coded.scale >= floor).all()


@pytest.mark.parametrize("rounding", ["nearest", "second_order"])
@pytest.mark.parametrize("granularity", ["per_channel", "per_block"])
def test_groups_are_coded_as_if_each_were_alone(
    granularity: Granularity, rounding: Rounding, rng: np.random.Generator
) -> None:
    matrix, x = floats(rng, 12, 16), floats(rng, 3, 50, 16)
    moments = x.swapaxes(1, 2).astype(float) @ x / 50
    scheme = Scheme(3, granularity, 8, rounding=rounding)
    together = encode(matrix, scheme, moments, 3)
    for group in range(3):
        rows = slice(4 * group, 4 * group + 4)
        alone = encode(matrix[rows], scheme, moments[group : group + 1])
        assert np.array_equal(together.codes[rows], alone.codes)
        np.testing.assert_allclose(together.dequantize()[rows], alone.dequantize(), rtol=1e-5)


@pytest.mark.parametrize("compute", ["int8", "float"])
def test_second_order_needs_moments_and_uses_them(compute: str, rng: np.random.Generator) -> None:
    matrix, x = floats(rng, 8, 24), floats(rng, 60, 4) @ floats(rng, 4, 24)
    moments = (x.T.astype(float) @ x / 60)[None]
    nearest, second = (
        Scheme(4, "per_block", 16, "float" if compute == "float" else "int8", rounding=rounding)
        for rounding in ("nearest", "second_order")
    )
    assert np.array_equal(encode(matrix, second).codes, encode(matrix, nearest).codes)
    errors = [
        output_error(matrix[None], encode(matrix, scheme, moments).dequantize()[None, :, :24], moments)
        for scheme in (nearest, second)
    ]
    assert errors[1] < 0.5 * errors[0]


@pytest.mark.parametrize("inputs", [1, 2, 3, 4, 9, 12, 17, 27, 30, 64, 96, 100, 576, 1024])
@pytest.mark.parametrize("wanted", [4, 8, 32, 100])
def test_a_block_is_the_nearest_divisor_within_a_factor_of_four(inputs: int, wanted: int) -> None:
    found = block_of(inputs, wanted)
    distances = {d: abs(log(d / wanted)) for d in range(1, inputs) if inputs % d == 0}
    near = [d for d in distances if wanted / 4 <= d <= wanted * 4]
    if found is None:
        assert not near
    else:
        assert found in near
        assert distances[found] == min(distances.values())


def test_a_row_that_has_no_fitting_block_is_one(rng: np.random.Generator) -> None:
    coded = encode(floats(rng, 4, 17), Scheme(4, "per_block", 32))
    assert (coded.multipliers, coded.block) == (None, 17)


@pytest.mark.parametrize(
    ("scheme", "words"),
    [
        (Scheme(8), "8 bits, per_channel, nearest"),
        (Scheme(3, "per_block", 16, rounding="second_order"), "3 bits, blocks of 16, second_order"),
        (Scheme("ternary"), "ternary, per_channel, nearest"),
    ],
)
def test_a_scheme_says_what_it_is(scheme: Scheme, words: str) -> None:
    assert str(scheme) == words


@pytest.mark.parametrize("bits", LEVELS)
@pytest.mark.parametrize("granularity", ["per_channel", "per_block"])
@pytest.mark.parametrize("seen", [False, True])
def test_rows_and_blocks_without_weights_stay_so(bits: Bits, granularity: Granularity, seen: bool) -> None:
    matrix = np.random.default_rng(4).normal(size=(4, 64)).astype(np.float32)
    matrix[1], matrix[2, :32] = 0, 0
    moments = np.eye(64)[None] if seen else None
    rounding: Rounding = "second_order" if seen else "nearest"
    decoded = encode(matrix, Scheme(bits, granularity, 32, rounding=rounding), moments).dequantize()
    assert np.abs(decoded[1]).max() < 1e-15
    if granularity == "per_block" and bits != 8:
        assert np.abs(decoded[2, :32]).max() < 1e-15
        assert relative_error(matrix[2, 32:], decoded[2, 32:]) < 0.7


@pytest.mark.parametrize("rounding", ["nearest", "second_order"])
@pytest.mark.parametrize(
    "scheme", [Scheme(8), Scheme(4), Scheme(4, "per_block", 8), Scheme(2, "per_block", 8, "float")], ids=str
)
@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_weights_of_any_size_are_coded_alike(
    scheme: Scheme, rounding: Rounding, size: float, rng: np.random.Generator
) -> None:
    weights, x = floats(rng, 6, 32), rng.standard_normal((64, 32))
    asked, moments = replace(scheme, rounding=rounding), (x.T @ x / 64)[None]
    factor = np.float32(2.0) ** np.rint(np.log2(np.float32(size)))
    expected, found = encode(weights, asked, moments), encode(weights * factor, asked, moments)
    assert (expected.codes == found.codes).mean() > 0.99
    np.testing.assert_allclose(found.dequantize() / factor, expected.dequantize(), atol=0.05)
