"""`compressor inspect MODEL`."""

from typing import Annotated

import typer

from compressor.cli.options import InputOption, JsonOption, ModelArgument, OverwriteOption, TrustOption


def inspect(
    model: ModelArgument,
    layers: Annotated[bool, typer.Option("--layers", help="List every layer with weights.")] = False,
    groups: Annotated[
        bool, typer.Option("--groups", help="List which channels go together, and which must stay.")
    ] = False,
    spectrum: Annotated[
        bool, typer.Option("--spectrum", help="List how much of each weight a low rank would keep.")
    ] = False,
    trust: TrustOption = False,
    input_: InputOption = None,
    json: JsonOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Show what is in a model: inputs, outputs, layers, size, multiply-accumulates."""
    from dataclasses import asdict

    from compressor.cli.messages import claim_json, write_json
    from compressor.cli.sources import source_of
    from compressor.cli.terminal import stdout
    from compressor.pipeline.inspecting import inspect_model
    from compressor.render.overview import draw_inspection

    claim_json(json, (model,), overwrite)
    found = inspect_model(source_of(model, trust, input_), groups, spectrum)
    if json is not None:
        write_json({"schema_version": 1, **asdict(found)}, json)
    if json != "-":
        draw_inspection(found, layers, stdout())
