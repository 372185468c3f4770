"""Bits for every weight by what they do to the model's outputs.

One weight at a time is coded in few bits while all others stay as they are, and the drift of the
model's outputs is measured. Close to the reference the drift grows with the noise power of the layer's
own output, so that one measurement per weight gives the drift at every width:

    drift(weight, bits) ≈ drift(weight, probe) · noise(weight, bits) / noise(weight, probe).

The drifts of all weights are added up, as those of small independent noises; a limit on the drift is
checked by measuring it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from compressor.calibration.coding import Fulfilled, Order, Surroundings, fulfil
from compressor.errors import PassError
from compressor.graph.model import Model
from compressor.numerics.allocation import Candidates, least_loss, least_size
from compressor.numerics.levels import Bits

Drift = Callable[[Model], float]


class Probe(Protocol):
    """Says what codes do to the outputs of a model, one weight at a time."""

    def add(self, coding: Fulfilled) -> None:
        """Ask for the codes of one more weight."""
        ...

    def drifts(self) -> dict[str, float]:
        """Name of a weight -> the drift that its codes cause."""
        ...


_TRIALS = 5
"""Measurements on the way to the drift that is allowed."""

_LESS = 1e-6
"""Share by which less is to be lost than a choice that was too much."""

_CLOSE = 0.8
"""Share of the drift allowed that is near enough to it."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What the bits are to add up to: one of the two.

    Attributes:
        nbytes: of all coded weights, at most.
        drift: of the model's outputs, at most.
    """

    nbytes: float | None = None
    drift: float | None = None


def assign(
    model: Model,
    candidates: Sequence[Sequence[Order]],
    goal: Goal,
    drift: Drift,
    context: Surroundings,
    probe: Probe,
) -> list[Order]:
    """One order for every weight: those that meet the goal with the least drift, or with the fewest bytes.

    Args:
        model: whose weights these are; it is not changed.
        candidates: for every weight what it may become, the most bits first.
        goal: a size or a drift.
        drift: of a model from the reference.
        context: samples, for second moments.
        probe: says what one weight's codes cause.

    Raises:
        PassError: the goal cannot be met with these candidates.
    """
    measured = _measured(model, candidates, probe, context)
    if goal.nbytes is None:
        return _within_drift(model, candidates, measured, goal.drift or 0.0, drift, context)
    choice = least_loss(measured, goal.nbytes)
    if choice is None:
        least = sum(float(c.sizes.min()) for c in measured)
        raise PassError(
            f"the budget is {goal.nbytes:,.0f} bytes for weights that take {least:,.0f} with the fewest bits"
        )
    return _picked(candidates, choice)


def _measured(
    model: Model, candidates: Sequence[Sequence[Order]], probe: Probe, context: Surroundings
) -> list[Candidates]:
    """Code every candidate, and ask what the middle one of each weight causes."""
    found: dict[tuple[str, Bits], tuple[float, int]] = {}
    probes = {orders[0].weight.name: orders[len(orders) // 2].scheme.bits for orders in candidates}
    for coding in fulfil(model, [order for orders in candidates for order in orders], context):
        weight, bits = coding.order.weight, coding.order.scheme.bits
        found[weight.name, bits] = coding.noise(), coding.coded.nbytes
        if bits == probes[weight.name]:
            probe.add(coding)
    drifts = probe.drifts()
    return [_candidates(orders, found, probes[orders[0].weight.name], drifts) for orders in candidates]


class ExecutedProbe:
    """A probe that executes the model with the codes of one weight.

    Args:
        model: whose weights are coded.
        drift: of a model from this one.
    """

    def __init__(self, model: Model, drift: Drift) -> None:
        self._model, self._drift = model, drift
        self._found: dict[str, float] = {}

    def add(self, coding: Fulfilled) -> None:
        """See `Probe.add`."""
        self._found[coding.order.weight.name] = _drift_with(self._model, [coding], self._drift)

    def drifts(self) -> dict[str, float]:
        """See `Probe.drifts`."""
        return self._found


def _candidates(
    orders: Sequence[Order],
    found: Mapping[tuple[str, Bits], tuple[float, int]],
    probe: Bits,
    drifts: Mapping[str, float],
) -> Candidates:
    name = orders[0].weight.name
    noises, sizes = np.array([found[name, order.scheme.bits] for order in orders]).T
    probed = found[name, probe][0]
    return Candidates(noises * (drifts.get(name, 0.0) / probed if probed > 0 else 0.0), sizes)


def _within_drift(
    model: Model,
    candidates: Sequence[Sequence[Order]],
    measured: Sequence[Candidates],
    limit: float,
    drift: Drift,
    context: Surroundings,
) -> list[Order]:
    """The fewest bytes whose measured drift is within the limit; what is added up is scaled to what is measured."""
    predicted, best = limit, None
    for _ in range(_TRIALS):
        choice = least_size(measured, predicted)
        orders = _picked(candidates, choice)
        reached = _drift_with(model, fulfil(model, orders, context), drift)
        if reached <= limit:
            best = orders
            if reached >= _CLOSE * limit:
                break
        predicted *= limit / reached if reached > 0 else 2.0
        if reached > limit:  # something else than this, which may be coarse
            lost = sum(float(one.losses[i]) for one, i in zip(measured, choice, strict=True))
            predicted = min(predicted, lost * (1 - _LESS))
    if best is None:
        most = [orders[0] for orders in candidates]
        best = most if _drift_with(model, fulfil(model, most, context), drift) <= limit else None
    if best is None:
        raise PassError(
            f"a drift of {limit:g} is not reached even with the most bits; allow more, or name what to ignore"
        )
    return best


def _drift_with(model: Model, codings: Iterable[Fulfilled], drift: Drift) -> float:
    """Of a copy of the model whose weights are what their codes stand for."""
    values = {coding.order.weight.value.name: coding.rounded() for coding in codings}
    copy = model.copy()
    for weight in copy.weights():
        if weight.value.name in values:
            weight.store(values[weight.value.name])
    return drift(copy)


def _picked(candidates: Sequence[Sequence[Order]], choice: Sequence[int]) -> list[Order]:
    return [orders[index] for orders, index in zip(candidates, choice, strict=True)]
