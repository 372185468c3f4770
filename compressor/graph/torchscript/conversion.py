"""From a TorchScript file to an ONNX file: asked for, looked through, and done by a confined process."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from os import environ, sysconf
from pathlib import Path
from signal import Signals
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compressor.errors import ModelError
from compressor.graph.torchscript.archive import Findings, scan, traced_inputs
from compressor.graph.torchscript.inputs import GivenInput, GivenNumber, draw, parse

SECONDS = 600
"""How long a conversion may take."""

_MEMORY_SHARE = 0.75
_FILE_BYTES = 8_000_000_000
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Conversion:
    """An ONNX file that computes what a TorchScript file does.

    Attributes:
        file: where it is.
        route: how it was made: a name of `routes.ROUTES`.
        difference: the largest one of an output, beside the largest value.
        open: names of the dimensions that may change.
        notes: what the user should know.
    """

    file: Path
    route: str
    difference: float
    open: tuple[str, ...]
    notes: tuple[str, ...]


def convert(path: Path, folder: Path, trust: bool, inputs: Sequence[str] = (), seconds: float = SECONDS) -> Conversion:
    """Write a TorchScript model as ONNX.

    The file is not loaded unless it is trusted, and then in a process of its own that can neither reach the
    network nor start programs nor write outside of `folder`, as far as the system can enforce it.

    Args:
        path: a TorchScript archive.
        folder: an existing empty folder; the model and scratch files go there.
        trust: whether its code may be run.
        inputs: words of `inputs.parse`; what tracing stored when empty.
        seconds: how long it may take.

    Raises:
        ModelError: not trusted, code that reaches for files, the network or processes, operators that torch does
            not have, no inputs known, or a module that cannot become a graph.
    """
    findings = scan(path)
    _refuse(path, findings, trust)
    if find_spec("torch") is None:
        raise ModelError(f"{path}: TorchScript needs a library that is not there: pip install 'compressor[torch]'")
    given = [parse(text) for text in inputs]
    tensors = [entry for entry in given if isinstance(entry, GivenInput)]
    numbers = [entry for entry in given if isinstance(entry, GivenNumber)]
    arrays = examples(path, inputs)
    job = {
        "path": str(path.resolve()),
        "packed": findings.packed,
        "names": [entry.name for entry in tensors],
        "symbols": [entry.symbols for entry in tensors],
        "numbers": [{"name": entry.name, "value": entry.value} for entry in numbers],
        "memory_bytes": int(_MEMORY_SHARE * sysconf("SC_PAGE_SIZE") * sysconf("SC_PHYS_PAGES")),
        "cpu_seconds": int(2 * seconds),
        "file_bytes": _FILE_BYTES,
    }
    np.savez(folder / "inputs.npz", *arrays)
    result = _in_child(path, job, folder, seconds)
    if "error" in result:
        raise ModelError(f"{path}: cannot be converted: {result['error']}")
    notes = [f"{path.name} ran code when it was loaded: {', '.join(findings.state)}"] if findings.state else []
    if result["resemblance"] is not None:
        notes.append(
            f"{path.name} holds int8 weights, which were made floats; its outputs and those in floats have a cosine of "
            f"{result['resemblance']:.3f} on the example inputs"
        )
    if result["unconfined"]:
        missing = ", ".join(result["unconfined"])
        notes.append(f"{path.name} was loaded in a process that this system cannot confine fully: {missing}")
    return Conversion(folder / "model.onnx", result["route"], result["difference"], tuple(result["open"]), tuple(notes))


def examples(path: Path, inputs: Sequence[str] = ()) -> list[NDArray[Any]]:
    """Inputs to convert with: of the sizes that are given, or what tracing stored.

    Raises:
        ModelError: neither is there.
    """
    given = [entry for entry in map(parse, inputs) if isinstance(entry, GivenInput)]
    if given:
        return [draw(entry.dtype, entry.shape) for entry in given]
    stored = traced_inputs(path)
    if stored is None:
        raise ModelError(
            f"{path}: does not say what its inputs are; say it with --input name:float32[1,3,224,224] for each "
            "(in a recipe, inputs:)"
        )
    return stored


def _refuse(path: Path, findings: Findings, trust: bool) -> None:
    if findings.forbidden:
        raise ModelError(
            f"{path}: is not loaded: its code reaches for files, the network or processes: {_few(findings.forbidden)}"
        )
    if findings.foreign:
        raise ModelError(
            f"{path}: needs operators of another library, which ONNX does not have: {_few(findings.foreign)}; export "
            "it to ONNX where that library is"
        )
    if not trust:
        found = f"; found in it: {_few(findings.state)}" if findings.state else ""
        raise ModelError(
            f"{path}: is TorchScript, which is code that runs when it is loaded{found}; if you trust where it comes "
            "from, add --trust (in a recipe, trust: true)"
        )


def _in_child(path: Path, job: dict[str, Any], folder: Path, seconds: float) -> dict[str, Any]:
    asked, answered = folder / "job.json", folder / "result.json"
    asked.write_text(json.dumps(job), encoding="utf-8")
    command = [sys.executable, "-P", "-m", "compressor.graph.torchscript.child", str(asked), str(answered)]
    surroundings = {**environ, "TMPDIR": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(folder)}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=seconds, env=surroundings, cwd=folder
        )
    except subprocess.TimeoutExpired as error:
        raise ModelError(f"{path}: cannot be converted: it took more than {seconds:g} s") from error
    if done.returncode or not answered.is_file():
        raise ModelError(f"{path}: cannot be converted: {_end(done)}")
    found: dict[str, Any] = json.loads(answered.read_text(encoding="utf-8"))
    return found


def _end(done: "subprocess.CompletedProcess[str]") -> str:
    """How a process ended that has not answered."""
    if done.returncode < 0:
        return f"the process that loads it was ended by {Signals(-done.returncode).name}"
    lines = done.stderr.strip().splitlines()
    return f"the process that loads it failed: {lines[-1][:160] if lines else f'exit status {done.returncode}'}"


def _few(found: Sequence[str]) -> str:
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return f"{', '.join(found[:_SHOWN])}{more}"
