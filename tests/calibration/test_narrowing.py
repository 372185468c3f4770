"""Laws of choosing widths: within the limit, near it, and with the least loss, against all choices by brute force."""

from collections.abc import Callable, Collection
from itertools import product

import numpy as np
import pytest

from compressor.calibration.narrowing import dropped_units, widths_at, widths_of_equal_share, widths_of_least_loss
from compressor.calibration.prospects import Prospect
from compressor.errors import PassError
from compressor.graph.channels import ChannelGroup
from compressor.numerics.elimination import Elimination


def _prospects(*widths: tuple[int, ...]) -> list[Prospect]:
    """Groups of units numbered on, that go from the last one on."""
    found, first = [], 0
    for choice in widths:
        units = tuple(range(first, first + choice[0]))
        order = tuple(range(choice[0] - 1, choice[-1] - 1, -1))
        errors = np.arange(len(order) + 1, dtype=np.float64)
        group = ChannelGroup(f"group{first}", "channels", units, (), 1)
        found.append(Prospect(group, choice, Elimination(order, errors), choice[len(choice) // 2], {}))
        first += choice[0]
    return found


GROUPS = _prospects((8, 6, 4, 2), (4, 3, 2, 1), (10, 5))
LOSSES = [np.array([0, 1, 4, 9.0]), np.array([0, 0.1, 0.3, 5.0]), np.array([0, 2.0])]


def _work(dropped: Collection[int]) -> float:
    """A chain of layers: each multiplies two neighbouring widths."""
    a, b, c = (len(set(p.group.units) - set(dropped)) for p in GROUPS)
    return float(3 * a + a * b + b * c + 2 * c)


@pytest.mark.parametrize("share", [0.9, 0.75, 0.6, 0.5, 0.4])
def test_the_least_loss_within_the_limit_is_found_or_nearly(share: float) -> None:
    limit = share * _work(())
    widths = widths_of_least_loss(GROUPS, LOSSES, _work, limit)
    found = sum(loss[p.widths.index(w)] for p, loss, w in zip(GROUPS, LOSSES, widths, strict=True))
    choices = list(product(*(p.widths for p in GROUPS)))
    within = [c for c in choices if _work(dropped_units(GROUPS, c)) <= limit]
    best = min(sum(loss[p.widths.index(w)] for p, loss, w in zip(GROUPS, LOSSES, c, strict=True)) for c in within)
    assert _work(dropped_units(GROUPS, widths)) <= 1.006 * limit
    assert found <= 2 * best + 1e-9


MEETING = _prospects((32, 16, 8), (32, 24, 16, 8), (32, 16, 8))


def _meeting(dropped: Collection[int]) -> float:
    """Nearly all the work is where two groups meet, so that what they save alone adds up to too much."""
    a, b, c = (len(set(p.group.units) - set(dropped)) for p in MEETING)
    return float(a + a * b + b * c + c)


@pytest.mark.parametrize("seed", range(40))
def test_no_wider_choice_keeps_within_the_limit_where_widths_are_coarse(seed: int) -> None:
    rng = np.random.default_rng(seed)
    losses = [np.r_[0, np.cumsum(rng.uniform(0.1, 3, len(p.widths) - 1))] for p in MEETING]
    limit = rng.uniform(0.15, 0.9) * _meeting(())
    widths = widths_of_least_loss(MEETING, losses, _meeting, limit)
    costs = {c: _meeting(dropped_units(MEETING, c)) for c in product(*(p.widths for p in MEETING))}
    wider = [c for c in costs if all(x >= y for x, y in zip(c, widths, strict=True)) and c != tuple(widths)]
    assert costs[tuple(widths)] <= 1.006 * limit
    assert not [c for c in wider if costs[c] <= limit]


def test_nothing_goes_where_nothing_has_to() -> None:
    assert widths_of_least_loss(GROUPS, LOSSES, _work, _work(())) == [8, 4, 10]


@pytest.mark.parametrize("choose", ["least", "equal"])
def test_a_limit_that_is_not_reached_says_what_is(choose: str) -> None:
    ways: dict[str, Callable[[float], list[int]]] = {
        "least": lambda limit: widths_of_least_loss(GROUPS, LOSSES, _work, limit),
        "equal": lambda limit: widths_of_equal_share(GROUPS, _work, limit),
    }
    with pytest.raises(PassError, match=r"5% of the cost is asked for, but \d+% are left.*min_width"):
        ways[choose](0.05 * _work(()))


def test_equal_shares_are_the_widths_nearest_to_one_share() -> None:
    widths = widths_of_equal_share(GROUPS, _work, 0.5 * _work(()))
    assert _work(dropped_units(GROUPS, widths)) <= 0.503 * _work(())
    assert any(widths == widths_at(GROUPS, share) for share in np.linspace(0, 1, 201))


def test_what_goes_are_the_first_of_the_order() -> None:
    assert dropped_units(GROUPS, [6, 4, 10]) == [7, 6]
