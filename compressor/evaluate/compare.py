"""Two models over the same data, one batch at a time."""

from collections.abc import Iterator, Mapping
from itertools import islice

import numpy as np

from compressor.data import Batch, Dataset, MetricName
from compressor.errors import DataError, VerificationError
from compressor.evaluate.fidelity import OutputComparison
from compressor.evaluate.metrics import labels_for, new_metric
from compressor.progress import Progress
from compressor.report import Accuracy, Fidelity
from compressor.runtime.ort import Array, Session

RANDOM_OUTPUT = "differs from run to run in the reference itself (random operators)"
OTHER_SHAPE = "has another shape in the result"
"""Where shapes depend on what is computed, as with boxes that were found."""


def evaluate(
    reference: Session, result: Session, data: Dataset, seen: str, metric: MetricName | None, progress: Progress
) -> tuple[Fidelity, Accuracy | None]:
    """Fidelity, and accuracy when a metric is given.

    Args:
        reference: the model as loaded, opened.
        result: the compressed model, opened.
        data: samples, with labels if `metric` is given.
        seen: what is to be known about the data, for the report.
        metric: of accuracy.
        progress: told about every batch.

    Raises:
        DataError: labels are missing or do not fit the outputs.
    """
    scores = [new_metric(metric), new_metric(metric)] if metric else []

    def scored() -> Iterator[tuple[Batch, Mapping[str, Array], Mapping[str, Array]]]:
        for batch in progress.track(data.batches(), "evaluating", -(-len(data) // data.batch)):
            pair = _both(reference, result, batch)
            labels = labels_for(metric, batch, data.name) if metric else {}
            for score, outputs in zip(scores, pair, strict=False):
                score.update(outputs, labels, batch.samples)
            yield batch, *pair

    fidelity = _fold(scored(), reference, data, seen)
    if not scores or metric is None:
        return fidelity, None
    before, after = (score.result() for score in scores)
    return fidelity, Accuracy(str(metric), before, after, scores[0].higher_is_better, fidelity.samples)


def compare_outputs(reference: Session, result: Session, data: Dataset, batches: int, seen: str) -> Fidelity:
    """Fidelity on the first few batches."""
    few = islice(data.batches(), batches)
    stream = ((batch, *_both(reference, result, batch)) for batch in few)
    return _fold(stream, reference, data, seen)


def _both(reference: Session, result: Session, batch: Batch) -> tuple[Mapping[str, Array], Mapping[str, Array]]:
    """Outputs of both; what the reference can run, the result must run too.

    Raises:
        DataError: the reference cannot run on this batch.
        VerificationError: only the result cannot.
    """
    expected = reference.run(batch.feeds)
    try:
        return expected, result.run(batch.feeds)
    except DataError as error:
        raise VerificationError(f"the result does not run where the reference does: {error}") from error


def _fold(
    stream: Iterator[tuple[Batch, Mapping[str, Array], Mapping[str, Array]]],
    reference: Session,
    data: Dataset,
    seen: str,
) -> Fidelity:
    ignored = random_outputs(reference, data)
    comparisons: dict[str, OutputComparison] = {}
    samples = 0
    for batch, expected, found in stream:
        samples += batch.samples
        for name in expected:
            if expected[name].shape != found[name].shape:
                _refuse_contradiction(name, reference.declared[name], expected[name].shape, found[name].shape)
                ignored.setdefault(name, OTHER_SHAPE)
            if name not in ignored:
                comparison = comparisons.setdefault(name, OutputComparison(name))
                comparison.update(expected[name], found[name], batch.samples)
    compared = tuple(c.result() for name, c in comparisons.items() if name not in ignored)
    return Fidelity(samples, f"{data.name}{seen}", compared, ignored)


def _refuse_contradiction(
    name: str, declared: tuple[object, ...], expected: tuple[int, ...], found: tuple[int, ...]
) -> None:
    """A shape may depend on what is computed only where the model leaves it open.

    Raises:
        VerificationError: it has another number of axes, or another size where the model states one.
    """
    fixed = len(expected) == len(found) and all(
        same == other or same != stated for same, other, stated in zip(expected, found, declared, strict=False)
    )
    if not fixed:
        raise VerificationError(f"{name}: the result makes {list(found)} where the reference makes {list(expected)}")


def random_outputs(reference: Session, data: Dataset) -> dict[str, str]:
    """Outputs that two executions of the reference on one batch do not agree on."""
    feeds = data.first().feeds
    once, again = reference.run(feeds), reference.run(feeds)
    return {
        name: RANDOM_OUTPUT
        for name in once
        if once[name].dtype != object and not np.array_equal(once[name], again[name], equal_nan=_floating(once[name]))
    }


def _floating(array: Array) -> bool:
    return bool(np.issubdtype(array.dtype, np.floating))
