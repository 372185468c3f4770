"""How wide each group of channels stays, so that what is left of a cost keeps within a limit."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compressor.calibration.prospects import Prospect
from compressor.errors import PassError
from compressor.numerics.allocation import Candidates, least_loss

Cost = Callable[[Collection[int]], float]
"""What the model costs without some units."""

_TRIALS = 12
"""Budgets tried on the way to the limit."""

_CLOSE = 0.005
"""Share of the limit that is near enough to it."""

_BEYOND = 1e-6
"""Share by which more is asked for than was saved, so that the same choice does not come again."""

_BISECTIONS = 20


def widths_of_least_loss(
    prospects: Sequence[Prospect], losses: Sequence[NDArray[np.float64]], cost: Cost, limit: float
) -> list[int]:
    """A width for every group, so that the cost keeps within the limit with the least sum of losses.

    What groups save alone is added up, which is too much where two of them meet in one layer: the sum that is
    asked for is moved until the true cost is within the limit, and near it.

    Args:
        prospects: groups with the widths they may have.
        losses: of every width.
        cost: of the whole model.
        limit: of the cost.

    Raises:
        PassError: the limit is not reached with the narrowest widths.
    """
    whole = cost(())
    saved = [np.array([whole - cost(p.dropped(width)) for width in p.widths]) for p in prospects]
    reach = [float(s.max()) for s in saved]
    candidates = [Candidates(loss, most - s) for loss, most, s in zip(losses, reach, saved, strict=True)]
    best = narrowest = [p.widths[-1] for p in prospects]
    least = cost(dropped_units(prospects, narrowest))
    if least > limit * (1 + _CLOSE):
        raise PassError(_unreachable(limit / whole, least / whole))
    asked = _Asked(whole - limit, sum(reach))
    for _ in range(_TRIALS):
        room = sum(reach) - asked.amount
        choice = least_loss(candidates, room) if room > _BEYOND * sum(reach) else None
        widths = [p.widths[i] for p, i in zip(prospects, choice, strict=True)] if choice else narrowest
        reached = cost(dropped_units(prospects, widths))
        if reached > limit * (1 + _CLOSE):
            given = sum(float(s[i]) for s, i in zip(saved, choice or (), strict=True))
            asked.more(reached - limit, given)
            continue
        best, least = (widths, reached) if reached >= least else (best, least)
        if reached >= limit * (1 - _CLOSE):
            break
        asked.less(limit - reached)
    return _widened(prospects, losses, cost, limit, best)


@dataclass(slots=True)
class _Asked:
    """What is to be saved as it adds up over the groups, so that enough is saved where they meet.

    Attributes:
        amount: to ask for next.
        enough: the least that was found to be so.
    """

    amount: float
    enough: float

    def more(self, missing: float, given: float) -> None:
        """After a choice that added up to `given`, and saved too little by `missing`."""
        step = max(self.amount + missing, given * (1 + _BEYOND))
        self.amount = step if step < self.enough else (given + self.enough) / 2

    def less(self, spare: float) -> None:
        """After a choice that saved more than enough."""
        self.enough = min(self.enough, self.amount)
        self.amount -= spare


def _widened(
    prospects: Sequence[Prospect],
    losses: Sequence[NDArray[np.float64]],
    cost: Cost,
    limit: float,
    widths: Sequence[int],
) -> list[int]:
    """The widths, with those widened that the limit still has room for, the one of the largest loss first."""
    places = [p.widths.index(width) for p, width in zip(prospects, widths, strict=True)]
    full = {i for i, place in enumerate(places) if place == 0}
    while len(full) < len(places):
        gains = {i: losses[i][place] - losses[i][place - 1] for i, place in enumerate(places) if i not in full}
        most = max(gains, key=lambda i: gains[i])
        wider = [place - (i == most) for i, place in enumerate(places)]
        tried = [p.widths[place] for p, place in zip(prospects, wider, strict=True)]
        fits = gains[most] >= 0 and cost(dropped_units(prospects, tried)) <= limit
        places = wider if fits else places
        if not fits or places[most] == 0:
            full.add(most)
    return [p.widths[place] for p, place in zip(prospects, places, strict=True)]


def widths_of_equal_share(prospects: Sequence[Prospect], cost: Cost, limit: float) -> list[int]:
    """The same share of every group, as far as their widths allow, so that the cost keeps within the limit.

    Raises:
        PassError: the limit is not reached with the narrowest widths.
    """
    low, high = 0.0, 1.0
    least = cost(dropped_units(prospects, widths_at(prospects, 0.0)))
    if least > limit * (1 + _CLOSE):
        raise PassError(_unreachable(limit / cost(()), least / cost(())))
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        within = cost(dropped_units(prospects, widths_at(prospects, middle))) <= limit * (1 + _CLOSE)
        low, high = (middle, high) if within else (low, middle)
    return widths_at(prospects, low)


def widths_at(prospects: Sequence[Prospect], share: float) -> list[int]:
    """For every group the width nearest to a share of what it has."""
    return [min(p.widths, key=lambda width: (abs(width - share * p.group.width), width)) for p in prospects]


def dropped_units(prospects: Sequence[Prospect], widths: Sequence[int]) -> list[int]:
    """All units that go when the groups get these widths."""
    return [unit for p, width in zip(prospects, widths, strict=True) for unit in p.dropped(width)]


def _unreachable(wanted: float, least: float) -> str:
    return (
        f"{wanted:.0%} of the cost is asked for, but {least:.0%} are left with every group at its narrowest; "
        "ask for less, allow narrower groups by min_width, or name fewer layers to ignore"
    )
