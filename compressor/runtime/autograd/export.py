"""A model as a file that torch loads without this package: TorchScript, or an exported program (.pt2)."""

import json
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from compressor.errors import PassError, VerificationError
from compressor.graph.model import Model
from compressor.graph.recorded import decided_by_data, rounds
from compressor.runtime.autograd.network import Network
from compressor.runtime.autograd.values import Value, from_numpy
from compressor.runtime.ort import Array, Feeds, Session

Format = Literal["torchscript", "pt2"]

_FLOAT_ERROR = 1e-4
_INTEGER_ERROR = 0.02
SIGNATURE = "signature.json"
"""Name of the record inside the file that says what its inputs and outputs are called, in order."""

_LOADER = """
import json, sys
import numpy, torch
kind, model, feeds, results = sys.argv[1:]
module = torch.jit.load(model) if kind == "torchscript" else torch.export.load(model).module()
with numpy.load(feeds) as stored:
    rounds = json.loads(str(stored["rounds"]))
    batches = [[torch.from_numpy(stored[name]) for name in names] for names in rounds]
made = {}
with torch.no_grad():
    for number, batch in enumerate(batches):
        outputs = module(*batch)
        outputs = outputs if isinstance(outputs, (tuple, list)) else (outputs,)
        made.update({f"{number} {place}": output.numpy() for place, output in enumerate(outputs)})
numpy.savez(results, **made)
"""
"""What a user of the file does: in a process of its own, with torch and NumPy alone."""


class _Single(nn.Module):
    """A network that returns its only output itself, not a tuple of it."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> Value:
        """The outputs as torch modules return them."""
        outputs = self.network(*inputs)
        return outputs[0] if len(outputs) == 1 else outputs


def write(model: Model, onnx_file: Path, path: Path, kind: Format, batches: Sequence[Feeds], notes: Mapping[str, str]) -> int:
    """Write a model for torch, and prove that a process without this package computes the same with it.

    Args:
        model: as it is in `onnx_file`.
        onnx_file: what ONNX Runtime runs: the yardstick.
        path: where the file goes.
        kind: "torchscript" (traced) or "pt2" (torch.export).
        batches: inputs; of more than one size where the model allows it, so that a size that was baked in shows.
        notes: further records to store in the file.

    Returns:
        Bytes written.

    Raises:
        ModelError: an operator that torch cannot execute.
        PassError: the graph cannot be expressed: it branches on its data.
        VerificationError: torch refuses, or the outputs differ.
    """
    baked = decided_by_data(model.ir)
    if baked:
        raise PassError(f"cannot be written as {kind}: {baked} takes a course that depends on the data, which a recorded run cannot hold; write it as onnx")
    network = _Single(Network(model))
    example = [from_numpy(batches[0][name]) for name in network.network.input_names]
    extra = {SIGNATURE: json.dumps(_signature(network.network)), **notes}
    with _failing(kind), torch.no_grad():
        if kind == "torchscript":
            traced = torch.jit.trace(network, example, check_trace=False)
            torch.jit.save(traced, str(path), _extra_files=extra)
        else:
            program = torch.export.export(network, tuple(example), dynamic_shapes=(_dynamic(model),), strict=False)
            torch.export.save(program, str(path), extra_files=extra)
    _prove(model, onnx_file, path, kind, batches, network.network)
    return path.stat().st_size


def _signature(network: Network) -> dict[str, list[str]]:
    return {"inputs": list(network.input_names), "outputs": list(network.output_names)}


def _dynamic(model: Model) -> tuple[dict[int, Any] | None, ...]:
    """For every input the dimensions that the model leaves open."""
    found = []
    for spec in model.inputs():
        found.append({axis: torch.export.Dim.AUTO for axis, size in enumerate(spec.shape or ()) if not isinstance(size, int)})
    return tuple(found)


@contextmanager
def _failing(kind: str) -> Iterator[None]:
    """Whatever torch raises while it records a graph becomes one line; its warnings are for its own authors."""
    from torch._dynamo.exc import TorchDynamoException

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (RuntimeError, ValueError, TypeError, NotImplementedError, TorchDynamoException) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise VerificationError(f"torch cannot write this model as {kind}: {first[:200]}") from error


def _prove(model: Model, onnx_file: Path, path: Path, kind: Format, batches: Sequence[Feeds], network: Network) -> None:
    session = Session(onnx_file)
    limit = _INTEGER_ERROR if rounds(model.ir) else _FLOAT_ERROR
    made = _in_fresh_process(path, kind, [[feeds[name] for name in network.input_names] for feeds in batches])
    for number, feeds in enumerate(batches):
        wanted = session.run(feeds)
        for place, name in enumerate(network.output_names):
            error = _difference(made[f"{number} {place}"], wanted[name], rounds(model.ir))
            if error > limit:
                shapes = ", ".join(f"{n} {list(a.shape)}" for n, a in feeds.items())
                raise VerificationError(f"the {kind} file differs from ONNX Runtime by {error:.1e} in {name} on {shapes}")


def _in_fresh_process(path: Path, kind: str, batches: Sequence[Sequence[Array]]) -> dict[str, Array]:
    names = [[f"{number} {place}" for place in range(len(batch))] for number, batch in enumerate(batches)]
    arrays = {name: array for row, batch in zip(names, batches, strict=True) for name, array in zip(row, batch, strict=True)}
    with tempfile.TemporaryDirectory() as folder:
        feeds, results = Path(folder) / "feeds.npz", Path(folder) / "results.npz"
        np.savez(feeds, rounds=np.array(json.dumps(names)), **arrays)  # type: ignore[arg-type]
        command = [sys.executable, "-I", "-W", "ignore", "-c", _LOADER, kind, str(path), str(feeds), str(results)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
            raise VerificationError(f"the {kind} file does not run in a fresh process: {reason[:200]}")
        with np.load(results) as stored:
            return dict(stored)


def _difference(got: Array, wanted: Array, rounded: bool) -> float:
    """Largest difference beside the largest value; the root mean square of both where codes may round either way."""
    if got.shape != wanted.shape:
        return float("inf")
    one, other = got.astype(np.float64), wanted.astype(np.float64)
    if not other.size:
        return 0.0
    if rounded:
        return float(np.sqrt(np.mean((one - other) ** 2)) / max(np.sqrt(np.mean(other**2)), 1e-12))
    return float(np.abs(one - other).max() / max(np.abs(other).max(), 1e-12))
