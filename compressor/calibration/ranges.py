"""The range of every activation over all batches: the observers `min_max` and `mean_min_max`."""

from dataclasses import dataclass
from math import inf, isfinite
from pathlib import Path
from typing import Literal

from compressor.data import Dataset
from compressor.errors import DataError, PassError
from compressor.graph.model import Model
from compressor.graph.observe import RANGE_HIGH, RANGE_LOW, with_ranges
from compressor.progress import Progress
from compressor.runtime.ort import Session

Observer = Literal["min_max", "mean_min_max"]


GROUP = 16
"""Samples, at least, whose extremes are taken together by `mean_min_max`: whole batches until there are as many."""


@dataclass(slots=True)
class Range:
    """Extremes of a tensor, folded over batches.

    Attributes:
        low: smallest value seen.
        high: largest value seen.
    """

    low: float = inf
    high: float = -inf
    _group: tuple[float, float, int] = (inf, -inf, 0)
    _sums: tuple[float, float, int] = (0.0, 0.0, 0)

    def update(self, low: float, high: float, samples: int = 1) -> None:
        """Fold in the extremes of one batch."""
        self.low, self.high = min(self.low, low), max(self.high, high)
        group_low, group_high, members = self._group
        self._group = min(group_low, low), max(group_high, high), members + samples
        if self._group[2] >= GROUP:
            self._sums = self._closed()
            self._group = (inf, -inf, 0)

    def ends(self, observer: Observer) -> tuple[float, float]:
        """The real values to be covered.

        `min_max` covers everything seen. `mean_min_max` takes the mean of the extremes of groups of 16
        samples (whole batches), in the spirit of the moving average of Krishnamoorthi 2018, "Quantizing deep
        convolutional networks for efficient inference": rare outliers are clamped, and all other
        values get finer steps. With fewer than 16 samples both are the same.
        """
        if observer == "min_max":
            return self.low, self.high
        unfinished = self._group[2] > GROUP // 2 or not self._sums[2]
        low, high, groups = self._closed() if unfinished else self._sums
        return low / groups, high / groups

    def _closed(self) -> tuple[float, float, int]:
        """The sums with the current group in them."""
        return self._sums[0] + self._group[0], self._sums[1] + self._group[1], self._sums[2] + 1


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
            if low > high:  # an empty tensor
                continue
            if not (isfinite(low) and isfinite(high)):
                raise PassError(
                    f"{name}: is NaN or infinite on sample {seen - batch.samples}; the model overflows there"
                )
            found.update(low, high, batch.samples)
    if not seen:
        raise DataError(f"{data.name}: has no samples to calibrate with")
    file.unlink()
    return ranges
