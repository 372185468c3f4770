"""Writing what a run made: checked before the work, atomic after it."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from compressor.errors import OutputError
from compressor.graph.model import move
from compressor.render.markdown import markdown
from compressor.report import Report


def refuse_overwriting(outputs: tuple[Path, ...], inputs: tuple[Path, ...], overwrite: bool) -> None:
    """Find out before the work whether the results can be written after it.

    Raises:
        OutputError: an output is an input, exists already, or cannot be put there.
    """
    for output in outputs:
        if any(_same(output, path) for path in inputs):
            raise OutputError(f"{output}: is the input; write the result somewhere else with -o or output.model")
        if output.is_dir():
            raise OutputError(f"{output}: is a folder; name a file")
        if output.exists() and not overwrite:
            raise OutputError(f"{output}: exists already; use --overwrite, or write somewhere else")
        parent = output.absolute().parent
        while not parent.exists():
            parent = parent.parent
        if not parent.is_dir():
            raise OutputError(f"{output}: cannot be written: {parent} is not a folder")
        if not os.access(parent, os.W_OK):
            raise OutputError(f"{output}: no permission to write in {parent}")


def _same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve() or (one.exists() and other.exists() and one.samefile(other))


def publish(file: Path, output: Path, reports: tuple[Path, ...], report: Report) -> None:
    """Give the verified file its name, and the reports theirs; all are complete on disk before the first is moved.

    Raises:
        OutputError: no permission or no space.
    """
    with _unfinished({path: _text(report, path) for path in reports}) as written:
        try:
            output.parent.mkdir(parents=True, exist_ok=True)
            move(file, output)
        except OSError as error:
            raise OutputError(f"{output}: cannot be written: {error.strerror}") from error
        for path, text in written.items():
            text.replace(path)


def write_text(text: str, path: Path) -> None:
    """Write a text file, whole or not at all.

    Raises:
        OutputError: no permission or no space.
    """
    with _unfinished({path: text}) as written:
        written[path].replace(path)


def _text(report: Report, path: Path) -> str:
    """A report as the suffix of its file says."""
    if path.suffix == ".md":
        return markdown(report)
    return json.dumps(report.to_dict(), indent=2, ensure_ascii=False) + "\n"


@contextmanager
def _unfinished(texts: Mapping[Path, str]) -> Iterator[dict[Path, Path]]:
    """Every text complete on disk beside the place it belongs; what is not moved there is removed."""
    written: dict[Path, Path] = {}
    try:
        for path, text in texts.items():
            written[path] = path.with_name(f".{path.name}.{os.getpid()}")
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                written[path].write_text(text, encoding="utf-8")
            except OSError as error:
                raise OutputError(f"{path}: cannot be written: {error.strerror}") from error
        yield written
    finally:
        for file in written.values():
            with suppress(OSError):
                file.unlink()
