"""Channels of activations: what each one reaches, and rows to try things on."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from compressor.data import Dataset
from compressor.errors import DataError, PassError
from compressor.graph.model import Model
from compressor.graph.observe import VALUE, with_tensors
from compressor.numerics.affine import Floats
from compressor.numerics.smoothing import Extent
from compressor.progress import Progress
from compressor.runtime.ort import Session

ROWS = 256
"""Rows kept of every tensor."""

_GOLDEN = (5**0.5 - 1) / 2


class ChannelStatistic:
    """Folded over batches: the extremes of every channel in either half of the samples, and a few rows.

    Channels are the last axis. Samples, counted along the first, go to the halves in turn.
    """

    def __init__(self) -> None:
        self._extents: dict[int, Extent] = {}
        self._kept: list[Floats] = []
        self._samples = self._rows = 0

    def update(self, x: Floats, rows: int) -> None:
        """Fold in a batch, (samples, …, channels), and keep `rows` of its rows.

        They lie at multiples of the golden ratio, which fall in with no period of the data: not all of
        them begin a sentence.
        """
        x = np.atleast_2d(x)
        for half in (0, 1):
            part = x[(self._samples + half) % 2 :: 2].reshape(-1, x.shape[-1])
            if len(part):
                extent = Extent(part.min(axis=0), part.max(axis=0))
                self._extents[half] = extent.union(self._extents.get(half, extent))
        flat = x.reshape(-1, x.shape[-1])
        if len(flat):
            places = (1 + self._rows + np.arange(rows)) * _GOLDEN % 1
            self._kept.append(flat[np.floor(len(flat) * places).astype(np.intp)])
        self._samples, self._rows = self._samples + len(x), self._rows + rows

    @property
    def rows(self) -> Floats:
        """(rows, channels); none when nothing was seen."""
        return np.concatenate(self._kept) if self._kept else np.empty((0, 0), np.float32)

    @property
    def halves(self) -> tuple[Extent, Extent]:
        """What channels reach in either half; the same twice when there was a single sample."""
        first = self._extents[min(self._extents)]
        return first, self._extents.get(1, first)


def collect_channels(
    model: Model, tensors: Sequence[str], data: Dataset, scratch: Path, progress: Progress, threads: int
) -> dict[str, ChannelStatistic]:
    """Execute the model once over `data` and look at the channels of every tensor; about 256 rows of each are kept.

    Args:
        model: any; it is not changed.
        tensors: names of float tensors of its main graph whose last axis are channels.
        data: samples to run.
        scratch: folder for the observed model.
        progress: told about every batch.
        threads: threads inside one operator.

    Raises:
        DataError: the data does not fit, or there is none.
        PassError: a tensor is not finite although all inputs are.
    """
    file = scratch / "observed.onnx"
    with_tensors(model, tuple(tensors)).save(file)
    session = Session(file, threads)
    batches = -(-len(data) // data.batch)
    found = {name: ChannelStatistic() for name in tensors}
    for number, batch in enumerate(progress.track(data.batches(), "channels", batches)):
        outputs = session.run(batch.feeds)
        rows = (number + 1) * ROWS // batches - number * ROWS // batches
        for name, statistic in found.items():
            x = outputs[VALUE + name].astype(np.float32, copy=False)
            if not np.isfinite(x).all():
                raise PassError(f"{name}: is NaN or infinite in batch {number}; the model overflows there")
            statistic.update(x, rows)
    session.close()
    file.unlink()
    if not len(data):
        raise DataError(f"{data.name}: has no samples to calibrate with")
    return found
