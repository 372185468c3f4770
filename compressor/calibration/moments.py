"""Second moments of what layers are fed: H = E[xxᵀ], for second-order rounding and its kin."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from compressor.data import Dataset
from compressor.errors import DataError, PassError
from compressor.graph.inputs import LayerInput, layer_input
from compressor.graph.model import Model
from compressor.graph.observe import VALUE, with_tensors
from compressor.graph.weights import Weight
from compressor.numerics.affine import Doubles
from compressor.progress import Progress
from compressor.runtime.ort import Session

ROWS = 65536
"""Rows per layer, about: those of a batch are thinned out evenly when there are more."""

_LARGE = 1e15
"""Of entries whose products float32 may not hold."""

BYTES_AT_ONCE = 1 << 29
"""Of moments held at the same time; beyond it the model is executed once more for the next layers."""


def collect_moments(
    model: Model,
    inputs: Sequence[tuple[LayerInput, int]],
    data: Dataset,
    scratch: Path,
    progress: Progress,
    threads: int,
) -> Iterator[tuple[LayerInput, Doubles]]:
    """H of every layer input, (groups, inputs, inputs), as many at a time as memory allows.

    Args:
        model: any; it is not changed.
        inputs: what to look at, each with the inputs per row.
        data: samples to run.
        scratch: folder for the observed model.
        progress: told about every batch.
        threads: threads inside one operator.

    Raises:
        DataError: the data does not fit, or there is none.
        PassError: a tensor is not finite although all inputs are.
    """
    waiting = dict(inputs)
    while waiting:
        chosen: list[LayerInput] = []
        size = 0
        for key, width in waiting.items():
            size += key.groups * width * width * np.dtype(np.float64).itemsize
            if chosen and size > BYTES_AT_ONCE:
                break
            chosen.append(key)
        yield from _collect(model, chosen, data, scratch, progress, threads).items()
        for key in chosen:
            del waiting[key]


def _collect(
    model: Model, keys: list[LayerInput], data: Dataset, scratch: Path, progress: Progress, threads: int
) -> dict[LayerInput, Doubles]:
    file = scratch / "observed.onnx"
    with_tensors(model, tuple(dict.fromkeys(key.tensor for key in keys))).save(file)
    session = Session(file, threads)
    batches = -(-len(data) // data.batch)
    sums: dict[LayerInput, Doubles] = {}
    counts = dict.fromkeys(keys, 0)
    for batch in progress.track(data.batches(), "second moments", batches):
        outputs = session.run(batch.feeds)
        for key in keys:
            rows = key.rows(outputs[VALUE + key.tensor].astype(np.float32, copy=False), -(-ROWS // batches))
            if np.abs(rows).max(initial=0) > _LARGE:
                rows = rows.astype(np.float64)
            moment = rows.swapaxes(1, 2) @ rows
            sums[key] = sums[key] + moment if key in sums else moment.astype(np.float64)
            counts[key] += rows.shape[1]
    session.close()
    file.unlink()
    if not sums:
        raise DataError(f"{data.name}: has no samples to calibrate with")
    for key, total in sums.items():
        if not np.isfinite(total).all():
            raise PassError(f"{key.tensor}: is NaN or infinite on some sample; the model overflows there")
        total /= max(counts[key], 1)
    return sums


def by_moments(
    model: Model, weights: Sequence[Weight], data: Dataset, scratch: Path, progress: Progress, threads: int
) -> Iterator[tuple[Weight, LayerInput, Doubles]]:
    """Every weight with what its layer reads, and H of that; the model may be edited between two of them.

    Args:
        model: whose weights these are.
        weights: each with a `seen`.
        data: samples to run.
        scratch: folder for the observed model.
        progress: told about every batch.
        threads: threads inside one operator.

    Raises:
        DataError: the data does not fit, or there is none.
        PassError: a tensor is not finite although all inputs are.
    """
    waiting: dict[LayerInput, list[Weight]] = {}
    for weight in weights:
        source = seen(weight)
        if source is not None:
            waiting.setdefault(source, []).append(weight)
    inputs = [(source, readers[0].matrix().shape[1]) for source, readers in waiting.items()]
    for source, moments in collect_moments(model.copy(), inputs, data, scratch, progress, threads):
        for weight in waiting[source]:
            yield weight, source, moments


def seen(weight: Weight) -> LayerInput | None:
    """The rows a layer multiplies by, where they can be observed: not inside a branch or the body of a loop."""
    return None if weight.in_subgraph else layer_input(weight.uses[0])
