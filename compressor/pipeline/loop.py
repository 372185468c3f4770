"""The loop over the passes; after each one the model is proven to still be one."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from compressor.data import KeptDataset
from compressor.errors import ModelError, PassError, VerificationError
from compressor.evaluate import compare_outputs
from compressor.graph.model import Model
from compressor.graph.verify import check_file, check_signature
from compressor.passes import Context, Pass
from compressor.pipeline.workspace import Workspace
from compressor.recipe.schema import VerifySection
from compressor.report import Fidelity, Note, PassRecord, common_reason
from compressor.runtime.ort import Session


@dataclass(frozen=True, slots=True)
class Compressed:
    """The model after all passes, and what each did.

    Attributes:
        model: as edited.
        file: where it is written, verified; not yet published.
        records: one per pass.
        passes: as run, with everything written down that they chose by themselves.
        notes: what they have to say of their work as a whole.
        warnings: what of that is to be put right.
    """

    model: Model
    file: Path
    records: tuple[PassRecord, ...]
    passes: tuple[Pass, ...]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def apply_passes(
    passes: Sequence[Pass],
    workspace: Workspace,
    verify: VerifySection,
    seed: int,
    file: Path,
    checkpoints: Path | None = None,
) -> Compressed:
    """Run the passes one after the other on a copy of the reference.

    Args:
        passes: in order.
        workspace: model and data.
        verify: when a result is refused.
        seed: for the passes.
        file: where in the scratch folder the result goes; it keeps this name when it is published,
            because external data is found by name.
        checkpoints: folder for unfinished training; the scratch folder when None.

    Raises:
        PassError: a pass cannot do what was asked, or did nothing at all.
        VerificationError: the result of a pass is no valid stand-in for the reference.
    """
    model = workspace.reference.copy()
    samples = workspace.samples
    context = Context(
        workspace.reference,
        None if samples.calibration is None else KeptDataset(samples.calibration, workspace.scratch),
        seed,
        workspace.scratch,
        workspace.progress,
        workspace.threads,
        samples.training if samples.training is not None else samples.calibration,
        checkpoints or workspace.scratch,
    )
    file.parent.mkdir()
    records: list[PassRecord] = []
    settled: list[Pass] = []
    notes: list[Note] = []
    size = workspace.reference.source_bytes
    for index, step in enumerate(workspace.progress.track(passes, "passes", len(passes))):
        started = time.perf_counter()
        with _naming(step, index):
            said = tuple(step.apply(model, context))
        findings = tuple(entry for entry in said if not isinstance(entry, Note))
        notes += [entry for entry in said if isinstance(entry, Note)]
        seconds = time.perf_counter() - started
        settled.append(step.settled(findings))
        record = PassRecord(step.type, settled[-1].model_dump(mode="json"), seconds, size, size, findings, None)
        _refuse_idle(step, record, index)
        size = model.save(file)
        with _naming(step, index):
            fidelity = prove(model, file, workspace, verify)
        records.append(replace(record, bytes_after=size, fidelity=fidelity))
    warnings = tuple(note.text for note in notes if note.warning)
    told = tuple(note.text for note in notes if not note.warning)
    return Compressed(model, file, tuple(records), tuple(settled), told, warnings)


def prove(model: Model, file: Path, workspace: Workspace, verify: VerifySection) -> Fidelity:
    """Check a written model: valid, same inputs and outputs, runs, and still computes nearly the same.

    Raises:
        VerificationError: what does not hold.
    """
    check_file(file)
    check_signature(workspace.reference, model)
    try:
        session = Session(file, workspace.threads)
    except ModelError as error:
        raise VerificationError(f"the result does not run: {error}") from error
    samples = workspace.samples
    fidelity = compare_outputs(workspace.session, session, samples.evaluation, verify.batches, samples.seen)
    for output in fidelity.outputs:
        if not output.finite:
            raise VerificationError(f"output {output.output} is NaN or infinite where the reference is not")
        if output.cosine is not None and output.cosine < verify.cosine:
            raise VerificationError(
                f"output {output.output} no longer resembles the reference: cosine {output.cosine:.3f}, below "
                f"{verify.cosine:g}; make the pass milder, or lower verify.cosine if a later pass repairs it"
            )
    return fidelity


def _refuse_idle(step: Pass, record: PassRecord, index: int) -> None:
    """A pass that could do nothing of what the recipe asks is an error, with the reason."""
    if record.changes or step.may_do_nothing:
        return
    groups = record.skip_groups()
    if not groups:
        why = "targets and ignore leave no layer" if step.targets or step.ignore else "the model has no layer"
        raise PassError(f"passes.{index} ({step.type}): {why} that it works on")
    reasons = "; ".join(f"{len(skips)} × {skips[0].layer}: {common_reason(skips)}" for skips in groups[:3])
    raise PassError(f"passes.{index} ({step.type}): changed nothing: {reasons}")


@contextmanager
def _naming(step: Pass, index: int) -> Iterator[None]:
    try:
        yield
    except (PassError, VerificationError) as error:
        raise type(error)(f"passes.{index} ({step.type}): {error}") from error
