"""How far a model has drifted from the reference: one number per trial, without labels.

The drift of an output is

- the mean KL divergence KL(softmax(y) ‖ softmax(ŷ)) in nats where it is class scores, (samples, classes),
  or logits over a vocabulary, (samples, positions, vocabulary);
- the relative power of the noise, Σ|y - ŷ|² / Σ|y|², where it is any other float array;
- the share of differing entries where it is integers.

The drift of a model is the sum over its outputs. It moves smoothly where the accuracy on a few hundred
samples jumps by whole samples, so that many trials can be told apart.
"""

import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from compressor.data import Batch, Dataset
from compressor.errors import InputError, PassError, VerificationError
from compressor.evaluate.compare import random_outputs
from compressor.evaluate.fidelity import OutputComparison
from compressor.graph.model import Model, data_path
from compressor.report import OutputFidelity
from compressor.runtime.ort import Array, Session

_KEPT_BYTES = 1 << 30
"""Reference outputs on disk, at most by one batch more; a language model reaches this with few samples."""

_COMPARED_ENTRIES = 1 << 22
"""Logits compared at a time: a whole batch of them in double precision may not fit in memory."""


class Judge:
    """Compares models with the reference on the first samples of the calibration data.

    The outputs of the reference are computed once and kept on disk: memory holds one batch at a time.
    Outputs that are random or text are left out.

    Args:
        reference: the yardstick; it is not changed.
        data: what to compare on.
        scratch: folder for what is kept, and for the models.
        threads: threads inside one operator.
        samples: enough of them, in whole batches; it may be fewer when their outputs are large.
        start: what to compare with in place of the reference, where changes of this model are judged: behind a pass
            that lost something, a change that does harm may bring the outputs nearer to the reference by chance.

    Raises:
        PassError: the reference has no output that can be compared.
    """

    def __init__(
        self,
        reference: Model,
        data: Dataset,
        scratch: Path,
        threads: int,
        samples: int = 256,
        start: Model | None = None,
    ) -> None:
        self._data, self._threads = data, threads
        self._folder = Path(tempfile.mkdtemp(prefix="judge-", dir=scratch))
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._vocabularies = {weight.shape[0] for weight in reference.weights() if weight.layer == "Gather"}
        with self._opened(start or reference) as session:
            self._outputs = _comparable(session, data)
            self._kept = tuple(self._keep(session, samples))

    def drift(self, model: Model) -> float:
        """How far the outputs of `model` are from those of the reference; 0 when they are the same.

        Infinite when something is NaN or infinite that is finite in the reference. An output of another
        shape than the reference's counts as zeros.

        Raises:
            VerificationError: the model does not run.
        """
        comparisons = {name: OutputComparison(name) for name in self._outputs}
        try:
            with self._opened(model) as session:
                for file, batch in zip(self._kept, self._data.batches(), strict=False):
                    self._compare(comparisons, file, batch, session.run(batch.feeds))
        except InputError as error:
            raise VerificationError(f"the model does not run where the reference does: {error}") from error
        return float(sum(_drift(comparison.result()) for comparison in comparisons.values()))

    @contextmanager
    def _opened(self, model: Model) -> Iterator[Session]:
        file = self._folder / "model.onnx"
        model.save(file)
        session = Session(file, self._threads)
        try:
            yield session
        finally:
            session.close()
            file.unlink()
            data_path(file).unlink(missing_ok=True)

    def _keep(self, reference: Session, samples: int) -> Iterator[Path]:
        """One file per batch with the compared outputs in order."""
        seen = kept = 0
        for batch in self._data.batches():
            outputs = reference.run(batch.feeds)
            arrays = [outputs[name] for name in self._outputs]
            file = self._folder / f"{seen}.npz"
            np.savez(file, *arrays)
            yield file
            seen += batch.samples
            kept += sum(array.nbytes for array in arrays)
            if seen >= samples or kept >= _KEPT_BYTES:
                return

    def _compare(
        self, comparisons: Mapping[str, OutputComparison], file: Path, batch: Batch, outputs: Mapping[str, Array]
    ) -> None:
        with np.load(file) as kept:
            for key, comparison in zip(kept.files, comparisons.values(), strict=True):
                expected, found = kept[key], outputs[comparison.output]
                if found.shape != expected.shape:
                    found = np.zeros_like(expected)
                for piece in self._pieces(expected, found, batch.samples):
                    comparison.update(*piece)

    def _pieces(self, expected: Array, found: Array, samples: int) -> Iterator[tuple[Array, Array, int]]:
        """Both arrays as they are; logits over a vocabulary as rows of class scores, a few at a time."""
        if expected.ndim != 3 or expected.shape[2] not in self._vocabularies:
            yield expected, found, samples
            return
        wanted, rows = (array[:samples].reshape(-1, expected.shape[2]) for array in (expected, found))
        step = max(1, _COMPARED_ENTRIES // expected.shape[2])
        for start in range(0, len(rows), step):
            piece = wanted[start : start + step]
            yield piece, rows[start : start + step], len(piece)


def _comparable(reference: Session, data: Dataset) -> tuple[str, ...]:
    """Outputs that are numbers, and the same in every run."""
    random = random_outputs(reference, data)
    outputs = reference.run(data.first().feeds)
    names = tuple(name for name, array in outputs.items() if array.dtype.kind in "fiub" and name not in random)
    if not names:
        raise PassError("the model has no output to judge by: each one is random or text")
    return names


def _drift(fidelity: OutputFidelity) -> float:
    if not fidelity.finite:
        return float("inf")
    if fidelity.kl is not None:
        return fidelity.kl
    if fidelity.sqnr_db is not None:
        return float(10 ** (-fidelity.sqnr_db / 10))
    return 1 - (fidelity.agreement or 0.0)
