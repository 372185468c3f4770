"""Extremes, and their means over groups of samples."""

import numpy as np
import pytest

from compressor.calibration import Observer, ObserverName, Range
from compressor.calibration.statistics import Seen
from tests.models import Floats, floats


def _range(name: ObserverName, lows: Floats, highs: Floats, batch: int) -> Range:
    statistic = Observer(name).statistic()
    for start in range(0, len(lows), batch):
        part = slice(start, start + batch)
        low, high, samples = float(lows[part].min()), float(highs[part].max()), len(lows[part])
        statistic.update(Seen(low, high, samples, np.array([low, high]), 1))
    return statistic.range()


@pytest.mark.parametrize("count", [1, 15, 16, 100])
def test_min_max_covers_everything(count: int, rng: np.random.Generator) -> None:
    lows, highs = -np.abs(floats(rng, count)), np.abs(floats(rng, count))
    assert _range("min_max", lows, highs, 1) == (lows.min(), highs.max())


@pytest.mark.parametrize("batch", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("groups", [1, 2, 5])
def test_the_mean_of_extremes_is_over_groups_of_sixteen_whatever_the_batch(
    batch: int, groups: int, rng: np.random.Generator
) -> None:
    lows, highs = -np.abs(floats(rng, 16 * groups)), np.abs(floats(rng, 16 * groups))
    expected = lows.reshape(groups, 16).min(axis=1).mean(), highs.reshape(groups, 16).max(axis=1).mean()
    np.testing.assert_allclose(_range("mean_min_max", lows, highs, batch), expected, rtol=1e-6)


@pytest.mark.parametrize("count", [1, 7, 8, 15])
def test_fewer_than_sixteen_samples_are_one_group(count: int, rng: np.random.Generator) -> None:
    lows, highs = -np.abs(floats(rng, count)), np.abs(floats(rng, count))
    assert _range("mean_min_max", lows, highs, 1) == (lows.min(), highs.max())


def test_one_outlier_moves_the_mean_by_its_share_only() -> None:
    highs = np.ones(64, np.float32)
    highs[20] = 101
    assert _range("mean_min_max", -highs, highs, 1) == (-26, 26)


@pytest.mark.parametrize("name", ["min_max", "mean_min_max", "percentile", "entropy", "mse"])
def test_nothing_seen_is_the_range_of_zero(name: ObserverName) -> None:
    assert Observer(name).statistic().range() == (0, 0)


@pytest.mark.parametrize("name", ["mean_min_max", "percentile", "entropy", "mse"])
def test_no_observer_reaches_beyond_the_extremes(name: ObserverName, rng: np.random.Generator) -> None:
    lows, highs = 1 + np.abs(floats(rng, 40)), 3 + np.abs(floats(rng, 40))
    low, high = _range(name, lows, highs, 3)
    assert lows.min() <= low <= high <= highs.max()
