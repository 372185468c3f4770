"""The range of every activation over all batches."""

from collections.abc import Mapping
from math import isfinite, nan
from pathlib import Path

import numpy as np

from compressor.calibration.statistics import Observer, Seen
from compressor.data import Dataset
from compressor.errors import DataError, PassError
from compressor.graph.model import Model
from compressor.graph.observe import ENTRIES, RANGE_HIGH, RANGE_LOW, STRIDE, with_ranges
from compressor.numerics.observers import Range
from compressor.progress import Progress
from compressor.runtime.ort import Array, Session

MOST_ENTRIES = 1 << 22
"""Entries given out, about: of one tensor over all batches, and of all tensors in one batch."""


def collect_ranges(
    model: Model,
    observers: Mapping[str, Observer],
    data: Dataset,
    scratch: Path,
    progress: Progress,
    threads: int,
) -> dict[str, Range]:
    """Execute the model once over `data` and range every tensor.

    The extremes are taken inside the graph: what leaves the runtime is two numbers per tensor and, for
    observers that need a histogram, an evenly strided part of its entries, smaller the more tensors and
    batches there are. So memory depends neither on the number of samples nor on the size of activations.

    Args:
        model: any; it is not changed.
        observers: name of a float tensor, of the main graph or a branch of If -> what decides its range.
        data: samples to run.
        scratch: folder for the observed model.
        progress: told about every batch.
        threads: threads inside one operator.

    Returns:
        Name -> range; (0, 0) for a tensor that was empty, or in a branch that did not run, on every sample.

    Raises:
        DataError: the data does not fit, or there is none.
        PassError: a tensor is not finite although all inputs are.
    """
    statistics = {name: observer.statistic() for name, observer in observers.items()}
    batches = -(-len(data) // data.batch)
    part = max(MOST_ENTRIES // max(batches, len(observers), 1), 1)
    file = scratch / "observed.onnx"
    with_ranges(model, {name: part if s.wants_entries else 0 for name, s in statistics.items()}).save(file)
    session = Session(file, threads)
    done = 0
    for batch in progress.track(data.batches(), "calibrating", batches):
        outputs = session.run(batch.feeds)
        for name, statistic in statistics.items():
            seen = _seen(name, outputs, batch.samples)
            if seen.low > seen.high:  # empty, or in a branch that did not run
                continue
            if not (isfinite(seen.low) and isfinite(seen.high)):
                raise PassError(f"{name}: is NaN or infinite on sample {done}; the model overflows there")
            statistic.update(seen)
        done += batch.samples
    if not done:
        raise DataError(f"{data.name}: has no samples to calibrate with")
    session.close()
    file.unlink()
    return {name: statistic.range() for name, statistic in statistics.items()}


def _seen(name: str, outputs: Mapping[str, Array], samples: int) -> Seen:
    """What the observed model gave out of one tensor."""
    low, high = float(outputs[RANGE_LOW + name]), float(outputs[RANGE_HIGH + name])
    entries = outputs.get(ENTRIES + name, np.empty(0, np.float32))
    low = low if np.isfinite(entries).all() else nan  # the extremes of ONNX Runtime may pass over it
    return Seen(low, high, samples, entries, int(outputs.get(STRIDE + name, np.ones(1)).item()))
