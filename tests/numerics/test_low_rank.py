"""Factors: the reference decomposition without data, the least error of the output with it."""

import numpy as np
import pytest

from compressor.numerics.low_rank import canonical, correction, joined_kernels, spectrum, split_kernel, tucker

RNG = np.random.default_rng(4)


def _floats(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def _inputs(count: int, width: int) -> np.ndarray:
    """Some directions a hundred times as strong as others."""
    return (_floats(count, width) * np.logspace(0, -2, width)) @ np.linalg.qr(_floats(width, width))[0]


@pytest.mark.parametrize("groups", [1, 3])
def test_full_rank_is_the_weight(groups: int) -> None:
    weights, x = _floats(groups, 6, 9), _inputs(200, 9)
    moments = np.broadcast_to(x.T @ x / len(x), (groups, 9, 9))
    for found in (spectrum(weights), spectrum(weights, moments)):
        first, second = found.factors(found.full)
        assert np.allclose(second @ first, weights, atol=1e-4)
        assert found.errors()[-1] == 0
        assert found.errors()[0] == pytest.approx(1)


def test_without_data_it_is_the_truncated_decomposition() -> None:
    weights = _floats(1, 8, 12)
    left, values, right = np.linalg.svd(weights[0])
    for rank in range(1, 9):
        first, second = spectrum(weights).factors(rank)
        expected = (left[:, :rank] * values[:rank]) @ right[:rank]
        assert np.allclose(second[0] @ first[0], expected, atol=1e-4)
        assert spectrum(weights).errors()[rank] == pytest.approx(
            np.square(values[rank:]).sum() / np.square(values).sum()
        )


def test_with_data_the_output_errs_by_what_the_spectrum_says_and_less_than_without() -> None:
    weights, x = _floats(1, 8, 12), _inputs(4000, 12)
    aware, plain = spectrum(weights, (x.T @ x / len(x))[None].astype(np.float64)), spectrum(weights)
    power = np.square(x @ weights[0].T).sum()

    def lost(found: object, rank: int) -> float:
        first, second = found.factors(rank)  # type: ignore[attr-defined]
        return float(np.square(x @ (second[0] @ first[0] - weights[0]).T).sum() / power)

    for rank in range(1, 8):
        assert lost(aware, rank) == pytest.approx(aware.errors()[rank], abs=1e-3)
        assert lost(aware, rank) < lost(plain, rank)


def test_no_factors_of_the_rank_err_less() -> None:
    weights, x = _floats(1, 5, 7), _inputs(3000, 7)
    moments = (x.T @ x / len(x))[None].astype(np.float64)
    first, second = spectrum(weights, moments).factors(2)

    def lost(one: np.ndarray, other: np.ndarray) -> float:
        return float(np.square(x @ (other @ one - weights[0]).T).mean())

    least = lost(first[0], second[0])
    for _ in range(50):
        assert lost(first[0] + 0.05 * _floats(2, 7), second[0] + 0.05 * _floats(5, 2)) >= least * 0.999


def test_both_factors_have_the_same_power() -> None:
    first, second = spectrum(_floats(1, 10, 10)).factors(4)
    assert np.allclose(np.square(first[0]).sum(axis=1), np.square(second[0]).sum(axis=0), rtol=1e-4)


def test_a_kernel_split_along_its_sides_is_itself_at_full_rank() -> None:
    weights = _floats(5, 4, 3, 2)
    found = spectrum(split_kernel(weights)[None])
    first, second = (factor[0] for factor in found.factors(found.full))
    tall, wide = joined_kernels(first, second, 3, 2)
    assert tall.shape[2:] == (3, 1)
    assert wide.shape[2:] == (1, 2)
    assert np.allclose(np.einsum("rch,orw->ochw", tall[..., 0], wide[:, :, 0]), weights, atol=1e-5)


def test_a_separable_kernel_has_rank_one() -> None:
    weights = np.einsum("o,c,h,w->ochw", _floats(5), _floats(4), _floats(3), _floats(3))
    assert spectrum(split_kernel(weights.astype(np.float32))[None]).errors()[1] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("aware", [False, True])
def test_tucker_is_exact_at_full_and_at_its_own_rank(aware: bool) -> None:
    x = _inputs(500, 6)
    moments = (x.T @ x / len(x)).astype(np.float64) if aware else None
    weights = _floats(7, 6, 3, 3)
    assert np.allclose(tucker(weights, (6, 7), moments).kernel(), weights, atol=1e-3)
    thin = np.einsum("or,rshw,sc->ochw", _floats(7, 3), _floats(3, 2, 3, 3), _floats(2, 6)).astype(np.float32)
    found = tucker(thin, (2, 3), moments)
    assert found.error == pytest.approx(0, abs=1e-6)
    assert np.allclose(found.kernel(), thin, atol=1e-3)


def test_tucker_loses_what_it_says_and_less_with_more_ranks() -> None:
    weights = _floats(7, 6, 3, 3)
    errors = []
    for ranks in ((2, 2), (3, 3), (4, 5), (6, 7)):
        found = tucker(weights, ranks)
        errors.append(found.error)
        assert found.error == pytest.approx(
            np.square(found.kernel() - weights).sum() / np.square(weights).sum(), abs=1e-5
        )
    assert errors == sorted(errors, reverse=True)


def test_a_correction_takes_most_of_an_error_of_low_rank() -> None:
    weights = _floats(12, 20)
    missing = (_floats(12, 3) @ _floats(3, 20) + 0.01 * _floats(12, 20)).astype(np.float32)
    first, second = correction(missing, 3)
    assert np.square(missing - second @ first).sum() < 1e-3 * np.square(missing).sum()
    assert correction(weights, 50)[0].shape == (12, 20)


@pytest.mark.parametrize("aware", [False, True])
def test_a_sum_of_few_products_is_found_again(aware: bool) -> None:
    x = _inputs(500, 6)
    weights = np.einsum("or,cr,pr->ocp", _floats(8, 3), _floats(6, 3), _floats(9, 3)).astype(np.float32)
    found = canonical(weights, 3, (x.T @ x / len(x)).astype(np.float64) if aware else None)
    assert np.square(found.kernel() - weights).sum() < 1e-3 * np.square(weights).sum()


def test_more_products_come_nearer() -> None:
    weights = _floats(8, 6, 9)
    errors = [np.square(canonical(weights, rank).kernel() - weights).sum() for rank in (1, 4, 12, 40)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.05 * np.square(weights).sum()
