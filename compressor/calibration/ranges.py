"""The range of every activation over all samples: the observer `min_max`."""

from dataclasses import dataclass
from math import inf, isfinite
from pathlib import Path

from compressor.data import Dataset
from compressor.errors import DataError, PassError
from compressor.graph.model import Model
from compressor.graph.observe import RANGE_HIGH, RANGE_LOW, with_ranges
from compressor.progress import Progress
from compressor.runtime.ort import Session


@dataclass(slots=True)
class Range:
    """Smallest and largest real value seen."""

    low: float = inf
    high: float = -inf

    def update(self, low: float, high: float) -> None:
        """Fold in one batch."""
        self.low, self.high = min(self.low, low), max(self.high, high)


def collect_ranges(
    model: Model, tensors: tuple[str, ...], data: Dataset, scratch: Path, progress: Progress, threads: int
) -> dict[str, Range]:
    """Execute the model once over `data` and observe every tensor.

    The extremes are taken inside the graph: what leaves the runtime is two numbers per tensor, so
    memory depends neither on the number of samples nor on the size of activations.

    Args:
        model: any; it is not changed.
        tensors: names of float tensors of its main graph.
        data: samples to run.
        scratch: folder for the observed model.
        progress: told about every batch.
        threads: threads inside one operator.

    Raises:
        DataError: the data does not fit, or there is none.
        PassError: a tensor is not finite although all inputs are.
    """
    file = scratch / "observed.onnx"
    with_ranges(model, tensors).save(file)
    session = Session(file, threads)
    ranges = {name: Range() for name in tensors}
    seen = 0
    for batch in progress.track(data.batches(), "calibrating", -(-len(data) // data.batch)):
        outputs = session.run(batch.feeds)
        seen += batch.samples
        for name, found in ranges.items():
            low, high = float(outputs[RANGE_LOW + name]), float(outputs[RANGE_HIGH + name])
            if not (isfinite(low) and isfinite(high)):
                raise PassError(
                    f"{name}: is NaN or infinite on sample {seen - batch.samples}; the model overflows there"
                )
            found.update(low, high)
    if not seen:
        raise DataError(f"{data.name}: has no samples to calibrate with")
    file.unlink()
    return ranges
