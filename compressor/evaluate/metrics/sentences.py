"""Metrics of sentence embeddings: pairs of samples against one score per pair."""

from array import array
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from compressor.errors import DataError
from compressor.evaluate.metrics.base import paired
from compressor.numerics.affine import Doubles
from compressor.numerics.divergence import cosine
from compressor.numerics.rank_correlation import spearman
from compressor.runtime.ort import Array


class SpearmanCosine:
    """Rank correlation of the cosine of two embeddings with the score that people gave the pair.

    The two members of a pair are consecutive samples. The score stands at the second; the label of the
    first is NaN, so that a batch may end, or a split cut, between them. A second member without its
    first does not count.

    Reimers & Gurevych 2019, "Sentence-BERT", section 4.1. Memory: two numbers per pair.
    """

    higher_is_better: ClassVar[bool] = True

    def __init__(self) -> None:
        self._cosines, self._scores = array("d"), array("d")
        self._previous: Doubles | None = None

    def update(self, outputs: Mapping[str, Array], labels: Mapping[str, Array], samples: int) -> None:
        """Fold in one batch; embeddings (samples, values), labels (samples,)."""
        for name, found, wanted in paired(outputs, labels, samples):
            if found.ndim != 2 or wanted.ndim != 1 or not np.issubdtype(wanted.dtype, np.floating):
                raise DataError(
                    f"output {name} is {found.dtype}{list(found.shape)} and its labels {wanted.dtype}"
                    f"{list(wanted.shape)}; spearman_cosine wants one embedding per sample, (samples, values), and "
                    "labels (samples,) with the score of a pair at its second sample and NaN at its first"
                )
            self._fold(found.astype(np.float64), wanted.astype(np.float64))

    def _fold(self, embeddings: Doubles, scores: Doubles) -> None:
        for embedding, score in zip(embeddings, scores, strict=True):
            first, self._previous = self._previous, embedding
            if np.isnan(score):
                continue
            self._previous = None
            if first is not None:
                self._cosines.append(float(cosine(first[None], embedding[None])[0]))
                self._scores.append(float(score))

    def result(self) -> float:
        """Over everything folded in, -1 … 1; NaN where nothing can be ranked."""
        return spearman(np.array(self._cosines), np.array(self._scores))
