"""Between two levels: one of them is what a weight was rounded to."""

import numpy as np
import pytest

from compressor.numerics.levels import LEVELS, SIGNED, Bits, Coded
from compressor.numerics.relaxation import between
from compressor.numerics.schemes import Scheme, encode

RNG = np.random.default_rng(2)
WEIGHTS = RNG.standard_normal((6, 32)).astype(np.float32)
SCHEMES = {
    "8": Scheme(8),
    "4": Scheme(4),
    "3": Scheme(3),
    "2": Scheme(2),
    "ternary": Scheme("ternary"),
    "binary": Scheme("binary"),
    "two levels": Scheme(2, "per_block", 8),
    "four, two levels": Scheme(4, "per_block", 8),
    "asymmetric": Scheme(4, "per_block", 16, "float", symmetric=False),
}


def _rounded(scheme: Scheme) -> Coded:
    """To nearest, and some codes further off, as rounding of second order leaves them."""
    coded = encode(WEIGHTS, scheme)
    off = RNG.integers(-1, 2, coded.codes.shape)
    codes = np.clip(coded.codes + off, coded.levels.low, coded.levels.high).astype(np.int8)
    return Coded(codes, coded.levels, coded.scale, coded.multipliers, coded.zero_points)


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_the_levels_are_neighbours_and_one_is_that_of_the_code(scheme: Scheme) -> None:
    coded = _rounded(scheme)
    found = between(coded, WEIGHTS)
    assert ((coded.codes == found.codes) | (coded.codes == found.codes + 1)).all()
    for up in (False, True):
        codes = found.settled(np.full(WEIGHTS.shape, up))
        real = Coded(codes, coded.levels, coded.scale, coded.multipliers, coded.zero_points).dequantize()
        assert np.allclose(found.low + up * found.gap, real, atol=1e-6)


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_the_other_level_lies_towards_the_weight_unless_there_is_none(scheme: Scheme) -> None:
    coded = _rounded(scheme)
    found, real = between(coded, WEIGHTS), coded.dequantize()
    other = np.where(coded.codes == found.codes, found.low + found.gap, found.low)
    at_the_end = (coded.codes == coded.levels.low) | (coded.codes == coded.levels.high)
    towards = np.sign(other - real) == np.sign(WEIGHTS - real)
    assert (towards | at_the_end | (found.gap == 0) | (real == WEIGHTS)).all()


def test_the_share_is_where_the_weight_lies() -> None:
    coded = encode(WEIGHTS, Scheme(4))
    found = between(coded, WEIGHTS)
    inside = (found.share > 0) & (found.share < 1)
    assert inside.mean() > 0.9
    assert np.allclose((found.low + found.share * found.gap)[inside], WEIGHTS[inside], atol=1e-6)


@pytest.mark.parametrize("name", [8, 4, 2])
def test_the_lowest_code_has_no_lower_level(name: Bits) -> None:
    levels = SIGNED[name]
    coded = Coded(np.full((1, 2), levels.low, np.int8), levels, np.ones((1, 1), np.float32))
    assert (between(coded, np.full((1, 2), -1e3, np.float32)).codes == levels.low).all()
    assert LEVELS[name].low >= -128


def test_inputs_that_fill_up_a_block_are_left_out() -> None:
    scheme = Scheme(4, "per_block", 32, "float")
    narrow = WEIGHTS[:, :20]
    assert between(encode(narrow, scheme), narrow).codes.shape == narrow.shape


@pytest.mark.parametrize("name", ["8", "4", "ternary", "four, two levels", "asymmetric"])
def test_zeros_that_were_pruned_are_zero_at_both_levels(name: str) -> None:
    weights = np.where(RNG.random(WEIGHTS.shape) < 0.5, 0, WEIGHTS)
    coded = encode(weights, SCHEMES[name])
    found = between(coded, weights)
    for up in (False, True):
        codes = found.settled(np.full(weights.shape, up))
        real = Coded(codes, coded.levels, coded.scale, coded.multipliers, coded.zero_points).dequantize()
        assert (real[weights == 0] == 0).all()
        assert np.allclose(found.low + up * found.gap, real, atol=1e-6)
