"""Time as a cost, with one thread: of models that do not exist yet by their layers, of others by running them."""

from collections.abc import Callable, Collection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from compressor.calibration.narrowing import Cost
from compressor.errors import PassError
from compressor.graph.channels import Channels
from compressor.graph.model import Model
from compressor.runtime import latency
from compressor.runtime.layer_times import LayerTimes
from compressor.runtime.ort import Feeds

T = TypeVar("T")

_SECONDS = 1.5
_TRIALS = 5
_CLOSE = 0.97
"""Share of the time wanted that is near enough to it."""


def time_of_layers(channels: Channels, scratch: Path) -> Cost:
    """Milliseconds of all layers that multiply, one by one, without some units.

    Layers that cannot be taken out of their model are given the time that the others take for as much work.
    """
    times = LayerTimes(scratch, threads=1)

    def cost(dropped: Collection[int]) -> float:
        total, counted, others = 0.0, 0, 0
        for layer, sizes in channels.costs.layers(dropped):
            taken, macs = times.milliseconds(layer, sizes), layer.macs(sizes)
            total, counted = (total + taken, counted + macs) if taken is not None else (total, counted)
            others += macs if taken is None else 0
        return total * (1 + others / counted) if counted else float(others)

    return cost


def time_without(model: Model, channels: Channels, dropped: Collection[int], feeds: Feeds, scratch: Path) -> float:
    """Time of an execution without these units, as a share of that of the model as it is, measured in turn."""
    trial = model.copy()
    Channels.of(trial, channels.shapes).drop(dropped)
    return time_ratio(model, trial, feeds, scratch)


def time_ratio(model: Model, other: Model, feeds: Feeds, scratch: Path) -> float:
    """Time of an execution of the other model, as a share of that of the first, measured in turn."""
    with TemporaryDirectory(dir=scratch) as folder:
        before, after = Path(folder) / "before.onnx", Path(folder) / "after.onnx"
        model.save(before)
        other.save(after)
        return latency.compare(before, after, feeds, seconds=_SECONDS).ratio.median


def within_time(wanted: float, within: Callable[[float], T], timed: Callable[[T], float]) -> T:
    """A choice whose time, measured, is near the one that is wanted: what its layers take alone is not all.

    Args:
        wanted: share of the time.
        within: the best choice whose modelled cost is a share of the whole.
        timed: the time of a choice, as a share.

    Raises:
        PassError: it is not reached.
    """
    share, reached = wanted, 0.0
    best: T | None = None
    tried: list[tuple[float, float]] = []
    for _ in range(_TRIALS):
        try:
            choice = within(share)
        except PassError:
            if not tried:
                raise
            break  # nothing narrower is to be had
        tried.append((share, timed(choice)))
        if reached < tried[-1][1] <= wanted:
            best, reached = choice, tried[-1][1]
        if reached >= _CLOSE * wanted:
            break
        share = _next_share(tried, wanted)
    if best is None:
        raise PassError(
            f"latency {wanted:g} is not reached; the nearest was {min(t for _, t in tried):.2f}; ask for less"
        )
    return best


def _next_share(tried: list[tuple[float, float]], wanted: float) -> float:
    """Where a line through the last two trials, or one through nothing, is a little below what is wanted."""
    share, taken = tried[-1]
    goal = wanted * (1 + _CLOSE) / 2
    before = tried[-2] if len(tried) > 1 else (0.0, 0.0)
    slope = (taken - before[1]) / (share - before[0]) if share != before[0] else 0.0
    step = (goal - taken) / slope if slope > 0 else share * (goal / taken - 1)
    return min(max(share + step, share / 4), 0.99)
