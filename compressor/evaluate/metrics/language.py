"""Metrics of language models: logits (samples, tokens, vocabulary) against the tokens that really follow.

The perplexity of N tokens is exp(-1/N · Σ log p(token | tokens before it)), Jelinek et al. 1977: 1 for a
model that is always sure and right, the size of the vocabulary for one that knows nothing.
"""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from compressor.data.base import NOT_SCORED
from compressor.errors import DataError
from compressor.evaluate.metrics.base import check_numbers, paired
from compressor.numerics.divergence import log_softmax
from compressor.runtime.ort import Array, Feeds

_MASK = "attention_mask"


class Perplexity:
    """exp of the mean negative log-likelihood of the labels, over all positions that have one.

    Labels (samples, tokens) hold the token that follows each position, NOT_SCORED where there is none.
    Outputs are logits, or logarithms of probabilities. Every token has the same weight, however they
    are divided into samples.
    """

    higher_is_better: ClassVar[bool] = False

    def __init__(self) -> None:
        self._sum, self._tokens = 0.0, 0

    def update(self, outputs: Mapping[str, Array], labels: Mapping[str, Array], samples: int) -> None:
        """Fold in one batch."""
        for name, logits, wanted in paired(outputs, labels, samples):
            if logits.ndim != 3 or wanted.shape != logits.shape[:2]:
                raise DataError(
                    f"output {name} has shape {list(logits.shape)} and its labels {list(wanted.shape)}; perplexity "
                    "wants logits (samples, tokens, vocabulary) and labels (samples, tokens)"
                )
            scored = wanted != NOT_SCORED
            check_numbers(name, wanted[scored], logits.shape[2], "perplexity wants token ids")
            for sample, tokens, mask in zip(logits, wanted, scored, strict=True):
                self._fold(sample[mask], tokens[mask])

    def _fold(self, logits: Array, tokens: Array) -> None:
        """One sample at a time: a whole batch in double precision may not fit in memory."""
        if len(tokens):
            picked = np.take_along_axis(log_softmax(logits.astype(np.float64)), tokens.astype(np.int64)[:, None], 1)
            self._sum -= float(picked.sum())
            self._tokens += len(tokens)

    def result(self) -> float:
        """Over everything folded in; NaN without a single token."""
        if not self._tokens:
            return float("nan")
        with np.errstate(over="ignore"):
            return float(np.exp(self._sum / self._tokens))


def next_tokens(feeds: Feeds) -> NDArray[np.int64]:
    """Labels out of the token ids that are fed in themselves: at every position the next one.

    The last position, and padding as the attention mask tells it, is NOT_SCORED.

    Args:
        feeds: with one integer array (samples, tokens) besides a mask and positions.

    Raises:
        DataError: it is not clear which array holds the ids.
    """
    ids = feeds.get("input_ids", next(iter(feeds.values())) if len(feeds) == 1 else None)
    if ids is None or ids.ndim != 2 or not np.issubdtype(ids.dtype, np.integer):
        raise DataError(
            f"metric perplexity finds no token ids (samples, tokens) in {', '.join(feeds)} to take labels from; "
            "give labels, the token that follows each position"
        )
    mask = feeds.get(_MASK, np.ones(ids.shape, np.int64)).astype(np.bool_)
    labels = np.full(ids.shape, NOT_SCORED, np.int64)
    labels[:, :-1] = np.where(mask[:, :-1] & mask[:, 1:], ids[:, 1:], NOT_SCORED)
    return labels
