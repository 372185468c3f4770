"""`compressor compare REFERENCE MODEL`."""

from pathlib import Path
from typing import Annotated

import typer

from compressor.cli.options import (
    DataOption,
    InputOption,
    JsonOption,
    OverwriteOption,
    QuietOption,
    SetOption,
    ThreadsOption,
    TrustOption,
)


def compare(
    reference: Annotated[Path, typer.Argument(metavar="REFERENCE", help="The model to compare with.")],
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="The other model.")],
    data: DataOption = None,
    set_: SetOption = None,
    threads: ThreadsOption = 1,
    trust: TrustOption = False,
    input_: InputOption = None,
    json: JsonOption = None,
    overwrite: OverwriteOption = False,
    quiet: QuietOption = False,
) -> None:
    """Compare two models: size, latency, memory, agreement, and accuracy where there are labels.

    --set takes fields of the data, such as --set labels=labels --set metric=top1, and gates, such as
    --set gates.cosine.min=0.99.
    """
    from compressor import pipeline
    from compressor.cli.finish import finish
    from compressor.cli.messages import claim_json
    from compressor.cli.sources import source, source_of
    from compressor.cli.terminal import progress
    from compressor.graph.torchscript import is_torchscript
    from compressor.recipe.load import judged
    from compressor.recipe.schema import RuntimeSection

    claim_json(json, (reference, model), overwrite)
    one, other = (source_of(path, trust, input_ if is_torchscript(path) else None) for path in (reference, model))
    entry = source(data or "random", one)
    evaluation, gates = judged(entry, tuple(set_ or ()))
    with progress(quiet) as bars:
        report = pipeline.compare(one, other, evaluation, RuntimeSection(threads=threads), gates, bars)
    finish(report, json, quiet, False)
