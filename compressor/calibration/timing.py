"""Time as a cost, with one thread: of models that do not exist yet by their layers, of others by running them."""

from collections.abc import Collection
from pathlib import Path
from tempfile import TemporaryDirectory

from compressor.calibration.narrowing import Cost
from compressor.graph.channels import Channels
from compressor.graph.model import Model
from compressor.runtime import latency
from compressor.runtime.layer_times import LayerTimes
from compressor.runtime.ort import Feeds

_SECONDS = 1.5


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
    with TemporaryDirectory(dir=scratch) as folder:
        before, after = Path(folder) / "before.onnx", Path(folder) / "after.onnx"
        model.save(before)
        trial = model.copy()
        Channels.of(trial, channels.shapes).drop(dropped)
        trial.save(after)
        return latency.compare(before, after, feeds, seconds=_SECONDS).ratio.median
