"""`compressor init MODEL`."""

from pathlib import Path
from typing import Annotated

import typer

from compressor.cli.options import InputOption, ModelArgument, OverwriteOption, TrustOption


def init(
    model: ModelArgument,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="The recipe.  [default: MODEL.yaml; - for stdout]", show_default=False),
    ] = None,
    trust: TrustOption = False,
    input_: InputOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Write a commented recipe for a model, to be edited."""
    from compressor.cli.messages import note
    from compressor.cli.sources import source_of
    from compressor.graph.opening import opened
    from compressor.pipeline.publish import refuse_overwriting, write_text
    from compressor.render.starter import starter

    path = output or Path(f"{model.stem}.yaml")
    shown = str(path) == "-"
    with opened(source_of(model, trust, input_)) as given:
        text = starter(given.read(), given.source, Path.cwd() if shown else path.resolve().parent)
    if shown:
        typer.echo(text, nl=False)
        return
    refuse_overwriting((path,), (model,), overwrite)
    write_text(text, path)
    note(f"wrote {path}; edit it, then: compressor run {path}")
