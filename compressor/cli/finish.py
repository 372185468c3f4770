"""What commands that report have in common at their end."""

from pathlib import Path

import typer

from compressor.cli.messages import note, write_json
from compressor.cli.terminal import stdout
from compressor.recipe import Recipe, dump
from compressor.report import Report

GATE_FAILED = 1


def finish(report: Report, json: str | None, quiet: bool, verbose: bool) -> None:
    """Show the report, and leave with exit code 1 when a gate failed."""
    from compressor.render.terminal import draw

    if json is not None:
        write_json(report.to_dict(), json)
    if not quiet and json != "-":
        draw(report, stdout(), verbose)
    for gate in report.gates:
        if not gate.passed:
            value = "not measured" if gate.value is None else f"{gate.value:.6g}"
            note(f"gate failed: {gate.gate} is {value}, wanted {gate.bound}")
    if not report.passed:
        raise typer.Exit(GATE_FAILED)


def show_recipe(recipe: Recipe) -> None:
    """The resolved recipe, as it would be run from the current folder."""
    typer.echo(dump(recipe, Path.cwd()), nl=False)
