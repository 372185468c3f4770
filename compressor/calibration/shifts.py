"""How far the outputs of layers have moved from what they were in the original."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from compressor.data import Dataset
from compressor.errors import DataError
from compressor.graph.model import Model
from compressor.graph.observe import VALUE, with_tensors
from compressor.graph.twins import Twins
from compressor.numerics.affine import Floats
from compressor.numerics.bias_correction import ChannelMoments
from compressor.progress import Progress
from compressor.runtime.ort import Array, Session


def collect_shifts(
    models: tuple[Model, Model], layers: Sequence[Twins], data: Dataset, scratch: Path, progress: Progress, threads: int
) -> list[ChannelMoments]:
    """Execute both models once over `data` and compare what the layers make, channel by channel.

    Args:
        models: the original, and the one made from it; neither is changed.
        layers: what to compare; the outputs of all of them are in memory for one batch.
        data: samples to run.
        scratch: folder for the observed models.
        progress: told about every batch.
        threads: threads inside one operator.

    Raises:
        DataError: the data does not fit, or there is none.
    """
    original, changed = models
    before = _observed(original, [layer.expected for layer in layers], scratch, threads)
    after = _observed(changed, [layer.found for layer in layers], scratch, threads)
    moments = [ChannelMoments(layer.channels) for layer in layers]
    for batch in progress.track(data.batches(), "means", -(-len(data) // data.batch)):
        wanted, got = before.run(batch.feeds), after.run(batch.feeds)
        for layer, moment in zip(layers, moments, strict=True):
            expected, found = wanted[VALUE + layer.expected], got[VALUE + layer.found]
            if expected.shape == found.shape:
                moment.update(_rows(expected, layer.axis), _rows(found, layer.axis))
    before.close()
    after.close()
    if not len(data):
        raise DataError(f"{data.name}: has no samples to compare on")
    return moments


def _observed(model: Model, tensors: list[str], scratch: Path, threads: int) -> Session:
    file = scratch / "observed.onnx"
    with_tensors(model, tuple(dict.fromkeys(tensors))).save(file)
    session = Session(file, threads)
    file.unlink()
    return session


def _rows(x: Array, axis: int) -> Floats:
    """(rows, channels)."""
    return np.moveaxis(x, axis, -1).reshape(-1, x.shape[axis]).astype(np.float32, copy=False)
