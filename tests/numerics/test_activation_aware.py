"""Scaling for the inputs that matter: never worse, better where it should be, and bounded."""

import numpy as np
import pytest

from compressor.numerics.activation_aware import Doubles, Floats, Scaling, search
from compressor.numerics.schemes import Scheme, encode

SCHEMES = {
    "float blocks": Scheme(4, "per_block", 32, "float"),
    "asymmetric": Scheme(4, "per_block", 32, "float", symmetric=False),
    "two levels": Scheme(3, "per_block", 32),
    "whole rows": Scheme(4),
    "ternary": Scheme("ternary", "per_block", 16),
}
INPUTS = 64


def _matrix(rng: np.random.Generator, outputs: int = 48) -> Floats:
    return rng.standard_normal((outputs, INPUTS)).astype(np.float32)


def _seen(rng: np.random.Generator, power: Doubles) -> Doubles:
    """H of correlated inputs of such power."""
    mixing = np.eye(INPUTS) + 0.3 * rng.standard_normal((INPUTS, INPUTS)) / 8
    x = rng.standard_normal((400, INPUTS)) @ mixing * np.sqrt(power)
    return np.asarray(x.T @ x / len(x))


def _noise(matrices: list[Floats], schemes: list[Scheme], scale: Floats, x: Doubles) -> float:
    """From the outputs themselves: noise power over signal power, summed over the layers."""
    total = 0.0
    for matrix, scheme in zip(matrices, schemes, strict=True):
        coded = encode(matrix * scale, scheme).dequantize()[:, : matrix.shape[1]].astype(np.float64)
        expected = x @ matrix.T.astype(np.float64)
        total += float(np.square(x / scale @ coded.T - expected).sum() / np.square(expected).sum())
    return total


def _one_loud(rng: np.random.Generator, times: float = 100.0) -> Doubles:
    power = np.ones(INPUTS)
    power[rng.integers(INPUTS)] = times
    return power


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("spread", [0.0, 1.0, 3.0])
def test_it_is_never_worse_and_the_scale_has_mean_1(name: str, spread: float, rng: np.random.Generator) -> None:
    power = np.exp(spread * rng.standard_normal(INPUTS))
    found = search([_matrix(rng)], [SCHEMES[name]], _seen(rng, power))
    assert found.after <= found.before
    assert found.scale.dtype == np.float32
    assert found.scale.shape == (INPUTS,)
    assert np.log(found.scale.astype(np.float64)).mean() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", SCHEMES)
def test_what_it_says_is_the_noise_of_the_outputs(name: str, rng: np.random.Generator) -> None:
    x = rng.standard_normal((200, INPUTS)) * np.sqrt(_one_loud(rng))
    matrices, schemes = [_matrix(rng), _matrix(rng, 8)], [SCHEMES[name], Scheme(8)]
    found = search(matrices, schemes, np.asarray(x.T @ x / len(x)))
    assert found.before == pytest.approx(_noise(matrices, schemes, np.ones(INPUTS, np.float32), x), rel=1e-4)
    assert found.after == pytest.approx(_noise(matrices, schemes, found.scale, x), rel=1e-4)


def test_a_loud_input_gets_finer_steps(rng: np.random.Generator) -> None:
    power = _one_loud(rng)
    found = search([_matrix(rng)], [SCHEMES["float blocks"]], np.diag(power))
    assert found.strength > 0
    assert found.after < 0.9 * found.before
    assert found.scale.argmax() == power.argmax()


def test_the_scale_is_a_power_of_the_root_mean_square(rng: np.random.Generator) -> None:
    moments = _seen(rng, np.exp(2 * rng.standard_normal(INPUTS)))
    found = search([_matrix(rng)], [SCHEMES["float blocks"]], moments)
    roots = np.diag(moments) ** (found.strength / 2)
    np.testing.assert_allclose(found.scale, roots / np.exp(np.log(roots).mean()), rtol=1e-5)


@pytest.mark.parametrize("name", SCHEMES)
def test_inputs_of_equal_power_are_not_scaled(name: str, rng: np.random.Generator) -> None:
    found = search([_matrix(rng)], [SCHEMES[name]], 7.0 * np.eye(INPUTS))
    np.testing.assert_allclose(found.scale, 1, rtol=1e-6)
    assert found.after == pytest.approx(found.before, rel=1e-4)


def test_layers_that_read_one_tensor_are_judged_together(rng: np.random.Generator) -> None:
    """The more a layer loses in its codes, the more it has to say: one of 8 bits next to it changes nothing."""
    moments, coarse = np.diag(_one_loud(rng)), _matrix(rng)
    alone = search([coarse], [SCHEMES["float blocks"]], moments)
    twice = search([coarse, coarse], [SCHEMES["float blocks"]] * 2, moments)
    assert twice.strength == alone.strength
    assert (twice.before, twice.after) == pytest.approx((2 * alone.before, 2 * alone.after))
    beside = search([coarse, _matrix(rng)], [SCHEMES["float blocks"], Scheme(8)], moments)
    assert beside.strength == pytest.approx(alone.strength, abs=0.11)


@pytest.mark.parametrize("silent", [1, 32, INPUTS - 1])
def test_inputs_that_are_always_0_do_not_blow_up(silent: int, rng: np.random.Generator) -> None:
    power = np.exp(rng.standard_normal(INPUTS))
    power[rng.permutation(INPUTS)[:silent]] = 0
    found = search([_matrix(rng)], [SCHEMES["float blocks"]], np.diag(power))
    _is_bounded(found, 1e3)


def test_a_layer_that_is_never_fed_is_left_alone(rng: np.random.Generator) -> None:
    found = search([_matrix(rng)], [SCHEMES["float blocks"]], np.zeros((INPUTS, INPUTS)))
    _is_bounded(found, 1)
    assert found.strength == 0


def test_a_weight_of_zeros_is_left_alone() -> None:
    found = search([np.zeros((4, INPUTS), np.float32)], [SCHEMES["float blocks"]], np.eye(INPUTS))
    _is_bounded(found, 1)
    assert found.strength == 0


def _is_bounded(found: Scaling, most: float) -> None:
    assert np.isfinite([found.before, found.after]).all()
    assert found.after <= found.before
    assert np.isfinite(found.scale).all()
    assert found.scale.min() > 0
    assert found.scale.max() / found.scale.min() <= most * np.sqrt(INPUTS) * 1.01
