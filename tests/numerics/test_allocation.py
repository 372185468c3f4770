"""Bits given out, against every way of giving them out."""

from collections.abc import Iterator
from itertools import pairwise, product

import numpy as np
import pytest

from compressor.numerics.allocation import UNITS, Candidates, Doubles, least_loss, least_size

CASES = [(weights, candidates, seed) for weights in (1, 2, 4, 6) for candidates in (1, 2, 4) for seed in range(2)]
pytestmark = pytest.mark.parametrize(("weights", "candidates", "seed"), CASES)
SHARES = (0.0, 0.03, 0.2, 0.5, 0.8, 1.0)
"""From the least that can be asked for to the most."""


def _weights(count: int, candidates: int, seed: int) -> list[Candidates]:
    """More bytes lose less, now and then with one that is worse in both."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        sizes = np.sort(rng.uniform(1, 1000, candidates) * 10 ** rng.uniform(0, 3))[::-1]
        losses = np.sort(rng.uniform(0, 1, candidates) * 10 ** rng.uniform(-3, 3))
        found.append(Candidates(rng.permutation(losses) if rng.random() < 0.3 else losses, sizes))
    return found


def _every(weights: list[Candidates]) -> tuple[Doubles, Doubles]:
    """Loss and size of every choice."""
    losses = np.array([sum(choice) for choice in product(*(w.losses for w in weights))])
    return losses, np.array([sum(choice) for choice in product(*(w.sizes for w in weights))])


def _totals(weights: list[Candidates], choice: list[int]) -> tuple[float, float]:
    assert len(choice) == len(weights)
    picked = list(zip(weights, choice, strict=True))
    return sum(float(w.losses[i]) for w, i in picked), sum(float(w.sizes[i]) for w, i in picked)


def _between(values: Doubles) -> Iterator[float]:
    for share in SHARES:
        yield float(values.min() + share * (values.max() - values.min()))


def test_no_choice_that_fits_loses_less(weights: int, candidates: int, seed: int) -> None:
    given = _weights(weights, candidates, seed)
    losses, sizes = _every(given)
    for size in _between(sizes):
        choice = least_loss(given, size)
        surely = losses[sizes <= size * (1 - weights / UNITS)]
        if choice is None:
            assert not surely.size
            continue
        loss, taken = _totals(given, choice)
        assert taken <= size * (1 + 1e-9)
        assert loss >= losses[sizes <= size * (1 + 1e-9)].min() * (1 - 1e-9)
        assert not surely.size or loss <= surely.min() * (1 + 1e-9)


def test_nothing_is_chosen_when_nothing_fits(weights: int, candidates: int, seed: int) -> None:
    given = _weights(weights, candidates, seed)
    _, sizes = _every(given)
    assert least_loss(given, sizes.min() * 0.999) is None
    assert least_loss(given, sizes.min() / 1e6) is None
    assert least_loss(given, sizes.min() * (1 + 2 * weights / UNITS)) is not None


def test_no_choice_that_loses_no_more_is_smaller(weights: int, candidates: int, seed: int) -> None:
    given = _weights(weights, candidates, seed)
    losses, sizes = _every(given)
    unit = sum(float(w.sizes.max()) for w in given) * (1 + weights / UNITS) / UNITS
    for limit in _between(losses):
        loss, size = _totals(given, least_size(given, limit))
        within = losses <= limit * (1 + 1e-9)
        assert loss <= limit * (1 + 1e-9)
        assert sizes[within].min() - 1e-6 <= size <= sizes[within].min() + weights * unit


def test_what_loses_least_is_chosen_when_all_lose_more(weights: int, candidates: int, seed: int) -> None:
    given = _weights(weights, candidates, seed)
    losses, _ = _every(given)
    loss, _ = _totals(given, least_size(given, losses.min() / 2))
    assert loss == pytest.approx(losses.min())


def test_more_bytes_never_lose_more(weights: int, candidates: int, seed: int) -> None:
    given = _weights(weights, candidates, seed)
    _, sizes = _every(given)
    found = []
    for size in np.geomspace(sizes.min(), sizes.max(), 12) * (1 + 2 * weights / UNITS):
        choice = least_loss(given, float(size))
        assert choice is not None
        found.append(_totals(given, choice)[0])
    exact = 1e-4 * max(found)  # a choice that only just fits may be missed by a unit of another size
    assert all(later <= earlier + exact for earlier, later in pairwise(found))


def test_more_loss_never_takes_more_bytes(weights: int, candidates: int, seed: int) -> None:
    given = _weights(weights, candidates, seed)
    losses, sizes = _every(given)
    found = [
        _totals(given, least_size(given, float(limit)))[1] for limit in np.sort(losses)[:: max(len(losses) // 9, 1)]
    ]
    assert all(later <= earlier + weights * sizes.max() / UNITS * 2 for earlier, later in pairwise(found))
