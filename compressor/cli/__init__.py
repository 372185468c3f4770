"""The command line: parses, calls, draws. The only place that prints, exits and catches CompressorError.

Nothing heavy is imported here; each command imports what it needs when it runs.
"""

import gc
import signal
import sys
import traceback
from types import FrameType

import typer

from compressor.cli.bench import bench
from compressor.cli.check import check
from compressor.cli.compare import compare
from compressor.cli.compress import compress
from compressor.cli.explain import explain
from compressor.cli.init import init
from compressor.cli.inspect import inspect
from compressor.cli.passes import passes
from compressor.cli.run import run
from compressor.cli.schema import schema
from compressor.errors import CompressorError

BUG = 70
INTERRUPTED = 130

_GARBAGE_THRESHOLDS = (100_000, 20, 20)  # importing frees nothing: looking for garbage meanwhile is a quarter of it

app = typer.Typer(
    name="compressor",
    help="Make a trained ONNX model smaller and faster, prove that it still does its job, and say what was done.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done · 1 a gate failed · 2 usage or recipe · 3 model or data · 4 a pass or its proof · "
    "70 a bug of ours · 130 interrupted",
)
for _command in (run, compress, inspect, compare, bench, check, init, passes, schema, explain):
    app.command()(_command)


def version(shown: bool) -> None:
    """Print the version and leave."""
    if shown:
        from compressor import __version__

        typer.echo(f"compressor {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", help="Print the version and leave.", is_eager=True, callback=version
    ),
) -> None:
    pass


def main() -> None:
    """Run the command line and leave with its exit code."""
    signal.signal(signal.SIGTERM, _interrupt)
    gc.set_threshold(*_GARBAGE_THRESHOLDS)
    try:
        app()
    except CompressorError as error:
        for line in str(error).splitlines():
            typer.echo(f"error: {line}", err=True)
        sys.exit(error.exit_code)
    except Exception:
        traceback.print_exc()
        typer.echo("error: this is a bug in compressor; please report it with the lines above", err=True)
        sys.exit(BUG)
    except SystemExit as leaving:
        if leaving.code == INTERRUPTED:
            typer.echo("interrupted: nothing was written", err=True)
        raise


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
