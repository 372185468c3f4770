"""The metric of several models, all on the same batches of the whole evaluation data."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from benchmarks.tasks import Entry, open_data, read_source
from compressor.evaluate.metrics import Metric, labels_for, new_metric
from compressor.evaluate.metrics.base import paired
from compressor.numerics.divergence import cosine
from compressor.runtime.ort import Array, Session


class CosineWithReference:
    """Mean cosine of a sample's outputs with those of the reference, which stand in the place of labels."""

    higher_is_better: ClassVar[bool] = True

    def __init__(self) -> None:
        self._sum, self._rows = 0.0, 0

    def update(self, outputs: Mapping[str, Array], labels: Mapping[str, Array], samples: int) -> None:
        """Fold in one batch."""
        for _, found, wanted in paired(outputs, labels, samples):
            a, b = (array.astype("float64").reshape(samples, -1) for array in (wanted[:samples], found))
            self._sum += float(cosine(a, b).sum())
            self._rows += samples

    def result(self) -> float:
        """Over everything folded in, -1 … 1; NaN without a sample."""
        return self._sum / self._rows if self._rows else float("nan")


def scores(entry: Entry, files: Sequence[Path], threads: int) -> list[float]:
    """One number per model; the first one is the reference.

    Args:
        entry: a source of a recipe; with a metric, or else the cosine with the reference is taken.
        files: ONNX files with the same inputs and outputs.
        threads: threads inside one operator.
    """
    sessions = [Session(file, threads) for file in files]
    name = read_source(entry).metric
    metrics: list[Metric] = [CosineWithReference() if name is None else new_metric(name) for _ in files]
    for batch in open_data(entry, files[0]).batches():
        outputs = [session.run(batch.feeds) for session in sessions]
        labels = outputs[0] if name is None else labels_for(name, batch, "benchmarks")
        for metric, found in zip(metrics, outputs, strict=True):
            metric.update(found, labels, batch.samples)
    return [metric.result() for metric in metrics]
