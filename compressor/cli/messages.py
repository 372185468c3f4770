"""Plain words: data to stdout, everything else to stderr. Does not import Rich, so that it starts quickly."""

import json
import sys
from pathlib import Path


def note(text: str, quiet: bool = False) -> None:
    """A line for the person at the terminal."""
    if not quiet:
        sys.stderr.write(f"{text}\n")


def claim_json(target: str | None, inputs: tuple[Path, ...], overwrite: bool) -> None:
    """Find out before the work whether the JSON can be written after it.

    Raises:
        OutputError: it is an input, exists already, or cannot be put there.
    """
    if target not in (None, "-"):
        from compressor.pipeline.publish import refuse_overwriting

        refuse_overwriting((Path(str(target)),), inputs, overwrite)


def write_json(data: object, target: str) -> None:
    """JSON to a file, or to stdout for "-"."""
    text = json.dumps(data, indent=2, ensure_ascii=False)
    if target == "-":
        sys.stdout.write(f"{text}\n")
        return
    from compressor.pipeline.publish import write_text

    write_text(f"{text}\n", Path(target))
