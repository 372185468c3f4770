"""`compressor bench MODEL`."""

from pathlib import Path
from tempfile import gettempdir
from typing import Annotated

import typer

from compressor.cli.options import (
    DataOption,
    InputOption,
    JsonOption,
    ModelArgument,
    OverwriteOption,
    QuietOption,
    ThreadsOption,
    TrustOption,
)


def bench(
    model: ModelArgument,
    data: DataOption = None,
    threads: ThreadsOption = 1,
    seconds: Annotated[float, typer.Option(min=0.1, max=600, help="How long to measure, about.")] = 3.0,
    trust: TrustOption = False,
    input_: InputOption = None,
    json: JsonOption = None,
    overwrite: OverwriteOption = False,
    quiet: QuietOption = False,
) -> None:
    """Measure one model on this machine: latency, peak memory, kernels."""
    from dataclasses import asdict, replace

    from compressor.cli.messages import claim_json, write_json
    from compressor.cli.sources import source, source_of
    from compressor.cli.terminal import progress, stdout
    from compressor.pipeline.measuring import ModelFile, deflated_bytes, measure_model
    from compressor.pipeline.workspace import open_workspace
    from compressor.recipe.load import judged
    from compressor.recipe.schema import DataSection, RuntimeSection
    from compressor.render.overview import draw_measurement
    from compressor.runtime import latency
    from compressor.runtime.environment import environment

    claim_json(json, (model,), overwrite)
    given = source_of(model, trust, input_)
    evaluation, _ = judged(source(data or "random", given), ())
    with (
        progress(quiet) as bars,
        open_workspace(given, DataSection(evaluation=evaluation), Path(gettempdir()), 0, bars) as workspace,
    ):
        feeds = workspace.samples.evaluation.split(1)[0].first().feeds
        file = ModelFile(workspace.reference_file, model, workspace.reference.source_bytes)
        timed = latency.measure(workspace.reference_file, feeds, threads, seconds)
        found = measure_model(workspace.reference, file, feeds, workspace.scratch, timed, RuntimeSection())
        found = replace(found, deflated_bytes=deflated_bytes(file))
    if json is not None:
        write_json({"schema_version": 1, **asdict(found), "threads": threads, "environment": environment()}, json)
    if not quiet and json != "-":
        draw_measurement(found, threads, stdout())
