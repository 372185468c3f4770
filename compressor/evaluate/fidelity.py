"""Agreement of two models on the same inputs, folded over batches."""

from dataclasses import dataclass

import numpy as np

from compressor.numerics.affine import Doubles
from compressor.numerics.divergence import cosine, kl_divergence, sqnr
from compressor.report import OutputFidelity
from compressor.runtime.ort import Array


@dataclass(slots=True)
class OutputComparison:
    """One output of two models; `result` may be asked at any time.

    Attributes:
        output: its name.
    """

    output: str
    _finite: bool = True
    _samples: int = 0
    _entries: int = 0
    _equal: int = 0
    _cosine: float = 0.0
    _kl: float = 0.0
    _signal: float = 0.0
    _noise: float = 0.0
    _classes: bool = True
    _floating: bool = True

    def update(self, reference: Array, result: Array, samples: int) -> None:
        """Fold in one batch; both of the same shape, the first axis counts samples if it can."""
        if not np.issubdtype(reference.dtype, np.floating):
            self._floating = self._classes = False
            self._entries += reference.size
            self._equal += int((reference == result).sum())
            return
        batched = reference.ndim > 0 and len(reference) >= samples
        expected, found = _rows(reference, samples, batched), _rows(result, samples, batched)
        known = np.isfinite(expected)
        if not np.isfinite(found[known]).all():
            self._finite = False
            return
        expected, found = np.where(known, expected, 0.0), np.where(known, found, 0.0)
        self._samples += len(expected)
        self._signal += float(np.square(expected).sum())
        self._noise += float(np.square(expected - found).sum())
        self._cosine += float(cosine(expected, found).sum())
        self._classes &= batched and reference.ndim == 2 and reference.shape[1] > 1 and not _unit_vectors(expected)
        if self._classes:
            self._equal += int((expected.argmax(axis=1) == found.argmax(axis=1)).sum())
            self._kl += float(kl_divergence(expected, found).sum())

    def result(self) -> OutputFidelity:
        """Over everything folded in."""
        if not self._floating:
            return OutputFidelity(self.output, True, self._equal / max(self._entries, 1), None, None, None)
        count = max(self._samples, 1)
        return OutputFidelity(
            self.output,
            self._finite,
            self._equal / count if self._classes else None,
            self._cosine / count,
            sqnr(self._signal, self._noise),
            self._kl / count if self._classes else None,
        )


def _unit_vectors(rows: Doubles) -> bool:
    """Whether these are normalized embeddings, whose largest entry means nothing, rather than scores."""
    lengths = np.linalg.norm(rows, axis=1)
    return bool(np.allclose(lengths, 1, atol=1e-3) and (rows < 0).any())


def _rows(array: Array, samples: int, batched: bool) -> Doubles:
    """(samples, values)."""
    picked = array[:samples] if batched else array
    return picked.astype(np.float64).reshape(samples if batched else 1, -1)
