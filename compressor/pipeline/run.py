"""The ways to run: one recipe, the fastest of several lists of passes, or two finished files."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import gettempdir

from compressor import gates
from compressor.data import AnySource
from compressor.errors import PassError, ResultError, UsageError, VerificationError
from compressor.graph.model import data_path, external_files
from compressor.graph.opening import ModelSource, opened
from compressor.graph.verify import check_signature
from compressor.passes import Pass
from compressor.pipeline.loop import Compressed, apply_passes, prove
from compressor.pipeline.measuring import ModelFile, measure
from compressor.pipeline.publish import publish, refuse_overwriting
from compressor.pipeline.receipt import RECEIPT, receipt, stored_receipt
from compressor.pipeline.workspace import Workspace, open_workspace
from compressor.progress import Progress
from compressor.recipe import Gates, Recipe, check_against_model
from compressor.recipe.schema import DataSection, RuntimeSection
from compressor.recipe.tree import Tree
from compressor.report import Json, LatencyComparison, Report
from compressor.runtime import latency
from compressor.runtime.environment import environment

_FAST_LOOK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finished run.

    Attributes:
        recipe: what was run; with the chosen passes, where there was a choice.
        report: everything found out.
    """

    recipe: Recipe
    report: Report


def run(recipe: Recipe, progress: Progress, overwrite: bool, tree: Tree | None = None) -> Outcome:
    """Run a recipe: the model and its reports are written when this returns.

    Args:
        recipe: valid by itself.
        progress: told about long loops.
        overwrite: whether outputs may replace files.
        tree: where the recipe's values stand, for messages.

    Raises:
        CompressorError: see the leaves; nothing is written then.
    """
    return run_fastest(recipe, {"recipe": recipe.passes}, progress, overwrite, tree)


def follow(recipe: Recipe, progress: Progress, tree: Tree | None = None) -> None:
    """Do what a recipe says, for the sake of its training that several processes share; another writes the result.

    Args:
        recipe: as the other processes have it.
        progress: told about long loops.
        tree: where the recipe's values stand, for messages.

    Raises:
        CompressorError: see the leaves.
    """
    with open_workspace(recipe.source, recipe.data, recipe.output.model.parent, recipe.seed, progress) as workspace:
        check_against_model(recipe, workspace.reference, tree)
        _fastest(recipe, {"recipe": recipe.passes}, workspace)


def run_fastest(
    recipe: Recipe,
    candidates: Mapping[str, Sequence[Pass]],
    progress: Progress,
    overwrite: bool,
    tree: Tree | None = None,
) -> Outcome:
    """Run every list of passes and keep the result with the least latency.

    Args:
        recipe: everything but the passes.
        candidates: name -> passes.
        progress: told about long loops.
        overwrite: whether outputs may replace files.
        tree: where the recipe's values stand, for messages.

    Raises:
        CompressorError: none of the candidates works, or anything else; nothing is written then.
    """
    output = recipe.output
    refuse_overwriting((output.model, *output.report), (recipe.model,), overwrite)
    data = recipe.data
    with open_workspace(recipe.source, data, output.model.parent, recipe.seed, progress) as workspace:
        refuse_overwriting((data_path(output.model),), external_files(workspace.reference), overwrite=True)
        check_against_model(recipe, workspace.reference, tree)
        compressed, notes = _fastest(recipe, candidates, workspace)
        chosen = recipe.model_copy(update={"passes": compressed.passes})
        file, report = _finish(chosen, compressed, workspace, notes)
        publish(file, output.model, output.report, report)
        shutil.rmtree(checkpoints(output.model), ignore_errors=True)
    return Outcome(chosen, report)


def compare(
    reference: ModelSource,
    result: ModelSource,
    evaluation: AnySource | None,
    runtime: RuntimeSection,
    gate: Gates,
    progress: Progress,
) -> Report:
    """Measure two finished files against each other.

    Args:
        reference: a model.
        result: another with the same inputs and outputs.
        evaluation: samples; random ones when None.
        runtime: what to measure, and how.
        gate: thresholds.
        progress: told about long loops.

    Raises:
        InputError: one of the models, or the data, cannot be used.
        VerificationError: they do not have the same inputs and outputs.
    """
    folder, data = Path(gettempdir()), DataSection(evaluation=evaluation)
    with opened(result) as given, open_workspace(reference, data, folder, 0, progress) as workspace:
        other = given.read()
        check_signature(workspace.reference, other, dimensions=False)
        file = ModelFile(given.file, result.path, other.source_bytes)
        figures = measure(workspace, given.load(), file, runtime)
        report = Report(
            reference=figures.reference,
            result=figures.result,
            passes=(),
            fidelity=figures.fidelity,
            accuracy=figures.accuracy,
            latency=figures.latency,
            gates=(),
            warnings=workspace.samples.warnings(calibrated=False),
            notes=(*workspace.notes, *given.notes),
            environment=environment(),
            receipt=stored_receipt(other) or {},
        )
    return replace(report, gates=gates.check(gate, report))


def checkpoints(output: Path) -> Path:
    """Where unfinished training of the model that will be `output` is kept, so that a later run goes on with it."""
    return output.absolute().with_name(f".{output.name}.training")


def _fastest(
    recipe: Recipe, candidates: Mapping[str, Sequence[Pass]], workspace: Workspace
) -> tuple[Compressed, tuple[str, ...]]:
    """The candidate with the least latency, and what is to be said about the others."""
    done: dict[str, Compressed] = {}
    refused: dict[str, ResultError] = {}
    for name, passes in candidates.items():
        try:
            file = workspace.scratch / name / recipe.output.model.with_suffix(".onnx").name
            unfinished = checkpoints(recipe.output.model)
            done[name] = apply_passes(passes, workspace, recipe.verify, recipe.seed, file, unfinished)
        except (PassError, VerificationError) as error:
            if len(candidates) == 1:
                raise
            refused[name] = error
    if not done:
        raise PassError("; ".join(f"{name}: {error}" for name, error in refused.items()))
    notes = [f"{name} was tried and refused: {error}" for name, error in refused.items()]
    if len(done) == 1:
        return next(iter(done.values())), tuple(notes)
    ratios = {name: _quick_ratio(compressed, workspace, recipe.runtime) for name, compressed in done.items()}
    best = min(ratios, key=lambda name: ratios[name])
    notes += [f"{name} was tried: latency ratio {ratio:.2f}" for name, ratio in ratios.items() if name != best]
    return done[best], tuple(notes)


def _quick_ratio(compressed: Compressed, workspace: Workspace, runtime: RuntimeSection) -> float:
    feeds = workspace.samples.evaluation.split(1)[0].first().feeds
    timing = latency.compare(workspace.reference_file, compressed.file, feeds, runtime.threads, _FAST_LOOK_SECONDS)
    return timing.ratio.median


def _finish(
    recipe: Recipe, compressed: Compressed, workspace: Workspace, notes: tuple[str, ...]
) -> tuple[Path, Report]:
    """Store the receipt, prove the final file once more, measure it and check the gates; the file to publish."""
    record = receipt(recipe)
    compressed.model.set_metadata(RECEIPT, json.dumps(record, ensure_ascii=False))
    size = compressed.model.save(compressed.file)
    prove(compressed.model, compressed.file, workspace, recipe.verify)
    written, told = _for_torch(recipe, compressed, workspace, record)
    size = size if written == compressed.file else written.stat().st_size
    file = ModelFile(compressed.file, recipe.output.model, size)
    figures = measure(workspace, compressed.model, file, recipe.runtime)
    report = Report(
        reference=figures.reference,
        result=figures.result,
        passes=compressed.records,
        fidelity=figures.fidelity,
        accuracy=figures.accuracy,
        latency=figures.latency,
        gates=(),
        warnings=(*compressed.warnings, *_warnings(recipe, workspace, figures.latency)),
        notes=(*workspace.notes, *notes, *compressed.notes, *told),
        environment=environment(),
        receipt=record,
    )
    return written, replace(report, gates=gates.check(recipe.gates, report))


def _for_torch(
    recipe: Recipe, compressed: Compressed, workspace: Workspace, record: Mapping[str, Json]
) -> tuple[Path, tuple[str, ...]]:
    """The file in the format that the recipe asks for, and what is to be said about it.

    Raises:
        UsageError: torch is not there.
    """
    kind = recipe.output.written_as
    if kind == "onnx":
        return compressed.file, ()
    try:
        from compressor.runtime.autograd import export  # imports torch
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{recipe.output.model}: {kind} needs a library that is not there: pip install 'compressor[torch]'"
        ) from error
    written = workspace.scratch / f"torch{recipe.output.model.suffix}"
    feeds = workspace.samples.evaluation.first().feeds
    receipt_text = json.dumps(record, ensure_ascii=False)
    difference = export.write(compressed.model, compressed.file, written, kind, feeds, {RECEIPT: receipt_text})
    name = recipe.output.model.name
    said = f"{name} was run by torch in a process of its own: equal to ONNX Runtime within {difference:.0e}"
    return written, (said, "latency, memory and fidelity are those of the result in ONNX Runtime")


def _warnings(recipe: Recipe, workspace: Workspace, timed: LatencyComparison | None) -> list[str]:
    found = [*workspace.samples.warnings(any(step.needs_calibration for step in recipe.passes))]
    found += [warning for step in recipe.passes for warning in step.warnings()]
    if timed is not None and timed.low > 1:
        found.append("the result is slower than the reference on this machine")
    return found
