"""`compressor compress MODEL`: without a recipe, and writing the one that was used."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compressor.cli.options import (
    DataOption,
    InputOption,
    JsonOption,
    ModelArgument,
    OverwriteOption,
    QuietOption,
    SetOption,
    TrustOption,
    VerboseOption,
)

if TYPE_CHECKING:
    from compressor.graph.opening import ModelSource
    from compressor.passes.base import Pass
    from compressor.recipe import Recipe


def compress(
    model: ModelArgument,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="The compressed model.  [default: MODEL.PRESET.onnx]", show_default=False),
    ] = None,
    preset: Annotated[
        str,
        typer.Option(
            "--preset",
            help="int8 (needs data), int8-dynamic, int4 (smallest; better with data), or auto: the faster of the first "
            "two here.",
        ),
    ] = "auto",
    data: DataOption = None,
    samples: Annotated[int | None, typer.Option(min=1, help="How many samples to calibrate on.")] = None,
    set_: SetOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything and print the recipe.")] = False,
    trust: TrustOption = False,
    input_: InputOption = None,
    json: JsonOption = None,
    overwrite: OverwriteOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Compress a model with a preset; the recipe used is written beside the result."""
    from compressor import pipeline
    from compressor.cli.finish import finish, show_recipe
    from compressor.cli.messages import claim_json, note
    from compressor.cli.sources import source_of
    from compressor.cli.terminal import progress
    from compressor.pipeline.publish import refuse_overwriting, write_text
    from compressor.recipe import AUTO, PRESETS, check_against_model, dump

    given = source_of(model, trust, input_)
    recipe = _recipe(given, output or Path(f"{model.stem}.{preset}.onnx"), preset, data, samples, tuple(set_ or ()))
    written = recipe.output.model
    beside = written.with_suffix(".yaml")
    claim_json(json, (model, written, beside, *recipe.output.report, *recipe.data.paths()), overwrite)
    refuse_overwriting((written, beside), (model,), overwrite)
    if dry_run:
        from compressor.graph.opening import opened

        with opened(given) as reference:
            check_against_model(recipe, reference.read())
        show_recipe(recipe)
        return
    candidates = {name: PRESETS[name] for name in AUTO} if preset == "auto" else {preset: recipe.passes}
    with progress(quiet) as bars:
        outcome = pipeline.run_fastest(recipe, candidates, bars, overwrite)
    write_text(f"# compressor run {beside.name}\n{dump(outcome.recipe, written.parent)}", beside)
    note(f"wrote {written} and its recipe {beside}", quiet)
    finish(outcome.report, json, quiet, verbose)


def _recipe(
    model: "ModelSource", output: Path, preset: str, data: str | None, samples: int | None, overrides: tuple[str, ...]
) -> "Recipe":
    """The recipe that the options stand for.

    Raises:
        UsageError: an unknown preset, or options that do not go together.
    """
    from compressor.cli.sources import source
    from compressor.errors import UsageError
    from compressor.recipe.load import validate
    from compressor.recipe.tree import Plain, Tree
    from compressor.recipe.variables import override

    steps = _steps(preset, overrides)
    passes: list[Plain] = [{"type": step.type} for step in steps]
    values: dict[str, Plain] = {"version": 1, "model": str(model.path)}
    if model.trust:
        values["trust"] = True
    if model.inputs:
        values["inputs"] = [*model.inputs]
    values |= {"passes": passes, "output": {"model": str(output)}}
    if samples and data is None:
        raise UsageError("--samples: says how many to take of --data, which is missing")
    if data is not None or any(step.needs_calibration for step in steps):
        entry = source(data or "random", model)
        values["data"] = {"calibration": entry | ({"samples": samples} if samples else {})}
    return validate(override(Tree(values, {}), overrides))


def _steps(preset: str, overrides: tuple[str, ...]) -> "tuple[Pass, ...]":
    from compressor.errors import UsageError
    from compressor.recipe import PRESETS

    if preset != "auto" and preset not in PRESETS:
        raise UsageError(f"--preset {preset}: is unknown; there are {', '.join([*PRESETS, 'auto'])}")
    if preset == "auto" and any(o.startswith("passes") for o in overrides):
        raise UsageError("--set passes…: auto chooses the passes; name a preset as well")
    return PRESETS["int8" if preset == "auto" else preset]
