"""Metrics against labels, folded over batches."""

from collections.abc import Mapping

from compressor.data.base import Batch, FunctionName, KnownMetric, MetricName
from compressor.errors import DataError
from compressor.evaluate.metrics.base import Metric
from compressor.evaluate.metrics.classes import F1, Top1, Top5
from compressor.evaluate.metrics.distances import MeanAbsoluteError, MeanSquaredError
from compressor.evaluate.metrics.language import Perplexity, next_tokens
from compressor.evaluate.metrics.own import OwnMetric
from compressor.evaluate.metrics.sentences import SpearmanCosine
from compressor.runtime.ort import Array

METRICS: Mapping[KnownMetric, type[Metric]] = {
    "top1": Top1,
    "top5": Top5,
    "f1": F1,
    "mse": MeanSquaredError,
    "mae": MeanAbsoluteError,
    "spearman_cosine": SpearmanCosine,
    "perplexity": Perplexity,
}


def new_metric(name: MetricName) -> Metric:
    """A metric with nothing folded in.

    Raises:
        DataError: one of the user's own cannot be used.
    """
    return OwnMetric(name) if isinstance(name, FunctionName) else METRICS[name]()


def labels_for(name: MetricName, batch: Batch, place: str) -> Mapping[str, Array]:
    """The labels of a batch; for perplexity, where there are none, the next tokens of what is fed in.

    A metric of the user's own may do without.

    Raises:
        DataError: the metric needs labels.
    """
    if batch.labels or isinstance(name, FunctionName):
        return batch.labels
    if name == "perplexity":
        return {"": next_tokens(batch.feeds)[: batch.samples]}
    raise DataError(f"{place}: metric {name} needs labels, and there are none; give labels:")


__all__ = ["METRICS", "Metric", "labels_for", "new_metric"]
