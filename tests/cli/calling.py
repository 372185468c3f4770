"""The command line, called in this process, and what must hold of every refusal."""

import io
import json
import os
import signal
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn
from unittest import mock

import yaml

from compressor import cli

Values = dict[str, object]

CHEAP: Values = {"latency": False, "memory": False}
"""`runtime:` of a recipe whose test is not about cost."""

PLAIN_TERMINAL = {"COLUMNS": "80", "FORCE_COLOR": "", "TTY_COMPATIBLE": "0"}


@dataclass(frozen=True, slots=True)
class Done:
    """A finished command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> object:
        """Standard output, which must be one document of strict JSON."""
        return json.loads(self.out, parse_constant=_no_constant)

    def record(self) -> Values:
        """Standard output as a JSON object."""
        found = self.json
        assert isinstance(found, dict)
        return found


def _no_constant(name: str) -> NoReturn:
    raise AssertionError(f"{name} is not JSON")


def call(folder: Path, *arguments: object) -> Done:
    """`compressor ARGUMENTS` in `folder`; an exception that would be a traceback is raised here."""
    out, err = io.StringIO(), io.StringIO()
    terminate = signal.getsignal(signal.SIGTERM)
    code: object = 0
    command = ["compressor", *map(str, arguments)]
    with (
        mock.patch.object(sys, "argv", command),
        mock.patch.dict(os.environ, PLAIN_TERMINAL),
        chdir(folder),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            cli.main()
        except SystemExit as leaving:
            code = leaving.code
        finally:
            signal.signal(signal.SIGTERM, terminate)
    return Done(int(str(code or 0)), out.getvalue(), err.getvalue())


def listing(folder: Path) -> dict[str, bytes | None]:
    """Every path under `folder` and its bytes; byte code that Python itself caches is left out."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
        if "__pycache__" not in path.parts
    }


def done(folder: Path, *arguments: object) -> Done:
    """A command that must succeed."""
    finished = call(folder, *arguments)
    assert finished.code == 0, finished.err
    return finished


def refused(folder: Path, code: int, *arguments: object, says: tuple[object, ...]) -> list[str]:
    """A command that must be refused: nothing on stdout, no file changed, the lines of stderr returned.

    Args:
        folder: where it runs.
        code: of the exit.
        arguments: of the command.
        says: what must be on stderr.
    """
    before = listing(folder)
    finished = call(folder, *arguments)
    assert finished.code == code, finished.err or finished.out
    assert finished.out == ""
    lines = finished.err.splitlines()
    assert lines
    assert all(line.startswith("error: ") for line in lines), finished.err
    for text in says:
        assert str(text) in finished.err
    assert listing(folder) == before
    return lines


def write_recipe(folder: Path, /, **sections: object) -> Path:
    """A recipe that simplifies model.onnx, with `sections` replaced; None leaves one out."""
    whole: Values = {
        "version": 1,
        "model": "model.onnx",
        "passes": [{"type": "simplify"}],
        "runtime": CHEAP,
        "output": {"model": "out.onnx"},
    }
    whole |= sections
    path = folder / "recipe.yaml"
    given = json.loads(json.dumps({k: v for k, v in whole.items() if v is not None}))  # nothing shared, so no anchors
    path.write_text(yaml.safe_dump(given, sort_keys=False))
    return path


def ran(folder: Path, **sections: object) -> Values:
    """The report of such a recipe, which must succeed."""
    return done(folder, "run", write_recipe(folder, **sections), "--json", "-").record()
