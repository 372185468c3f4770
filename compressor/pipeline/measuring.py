"""What the reference and the result cost, and how well they agree: the figures of a report."""

import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from compressor.errors import CompressorError
from compressor.evaluate import evaluate
from compressor.graph.kernels import count_kernels
from compressor.graph.model import EXTERNAL_DATA_BYTES, Model
from compressor.pipeline.workspace import Workspace
from compressor.recipe.schema import RuntimeSection
from compressor.report import Accuracy, Fidelity, LatencyComparison, Measurement
from compressor.runtime import latency, memory
from compressor.runtime.macs import count_macs
from compressor.runtime.ort import Feeds, Session

_CHUNK = 1 << 20
_LARGEST_DEFLATED = 64_000_000


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model on disk.

    Attributes:
        path: where it is now.
        shown: where it will be, for the report.
        nbytes: its size, external data included.
    """

    path: Path
    shown: Path
    nbytes: int


@dataclass(frozen=True, slots=True)
class Figures:
    """Everything measured on a pair of models."""

    reference: Measurement
    result: Measurement
    fidelity: Fidelity
    accuracy: Accuracy | None
    latency: LatencyComparison | None


def measure(workspace: Workspace, model: Model, file: ModelFile, settings: RuntimeSection) -> Figures:
    """Measure the reference and the result. The last thing done in a workspace: its session is closed.

    Args:
        workspace: the reference and the data.
        model: the result.
        file: where it is now, and will be.
        settings: what to measure, and how.
    """
    samples = workspace.samples
    result_session = Session(file.path, workspace.threads)
    fidelity, accuracy = evaluate(
        workspace.session, result_session, samples.evaluation, samples.seen, samples.metric, workspace.progress
    )
    workspace.session.close()
    result_session.close()
    single = samples.evaluation.split(1)[0].first()
    timing = None
    if settings.latency:
        timing = latency.compare(workspace.reference_file, file.path, single.feeds, settings.threads, settings.seconds)
    source = ModelFile(workspace.reference_file, workspace.reference.source, workspace.reference.source_bytes)
    before, after = (None, None) if timing is None else (timing.reference, timing.result)
    with ThreadPoolExecutor(2) as pool:  # zlib is slow, and keeps one core busy only
        deflated = pool.map(deflated_bytes, (source, file))
        reference = measure_model(workspace.reference, source, single.feeds, workspace.scratch, before, settings)
        result = measure_model(model, file, single.feeds, workspace.scratch, after, settings)
        reference, result = (replace(m, deflated_bytes=n) for m, n in zip((reference, result), deflated, strict=True))
    comparison = None if timing is None else _comparison(timing, single.samples)
    return Figures(reference, result, fidelity, accuracy, comparison)


def measure_model(
    model: Model, file: ModelFile, feeds: Feeds, scratch: Path, timed: latency.Latency | None, settings: RuntimeSection
) -> Measurement:
    """Measure one model file, all but its bytes through zlib.

    Args:
        model: what is in the file.
        file: where it is.
        feeds: one sample.
        scratch: folder for temporary files.
        timed: its latency, if measured.
        settings: what to measure.
    """
    return Measurement(
        path=str(file.shown),
        file_bytes=file.nbytes,
        deflated_bytes=None,
        parameters=model.parameters(),
        zeros=model.zeros(),
        macs=_macs(model, feeds, scratch),
        latency_ms=None if timed is None else timed.median_ms,
        latency_p95_ms=None if timed is None else timed.p95_ms,
        peak_memory_bytes=memory.peak_bytes(file.path, feeds) if settings.memory else None,
        kernels=kernels(file.path, file.nbytes, scratch),
    )


def kernels(file: Path, nbytes: int, scratch: Path) -> dict[str, tuple[int, int]]:
    """Family -> (layers in integer kernels, layers), as ONNX Runtime fuses them here."""
    if nbytes > EXTERNAL_DATA_BYTES:
        return {}
    optimized = scratch / "optimized.onnx"
    Session(file, optimized=optimized)
    found = {k.family: (k.integer, k.total) for k in count_kernels(optimized)}
    optimized.unlink()
    return found


def _macs(model: Model, feeds: Feeds, scratch: Path) -> int | None:
    if model.nbytes() > EXTERNAL_DATA_BYTES:  # counting writes an observed copy of the whole model
        return None
    try:
        return sum(count_macs(model, feeds, scratch).values())
    except CompressorError:
        return None


def deflated_bytes(file: ModelFile) -> int | None:
    """Bytes of the model file through zlib, level 6; None above 64 MB and where there is external data."""
    if file.nbytes > _LARGEST_DEFLATED or file.nbytes != file.path.stat().st_size:
        return None
    compressor, total = zlib.compressobj(6), 0
    with file.path.open("rb") as opened:
        while chunk := opened.read(_CHUNK):
            total += len(compressor.compress(chunk))
    return total + len(compressor.flush())


def _comparison(timing: latency.Timing, batch: int) -> LatencyComparison:
    ratio = timing.ratio
    return LatencyComparison(
        ratio.median, ratio.low, ratio.high, batch, timing.threads, timing.result.runs, timing.clock
    )
