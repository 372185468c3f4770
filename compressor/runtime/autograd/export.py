"""A model as a file that torch loads without this package: TorchScript, or an exported program (.pt2)."""

import json
import logging
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

from compressor.errors import DataError, PassError, VerificationError
from compressor.graph.model import Model
from compressor.graph.recorded import decided_by_data, rounds
from compressor.runtime.autograd.network import Network
from compressor.runtime.autograd.values import Value, from_numpy
from compressor.runtime.ort import Array, Feeds, Session

Format = Literal["torchscript", "pt2"]

SIGNATURE = "signature.json"
"""Name of the record inside the file that says what its inputs and outputs are called, in order."""

_ERROR, _HALF_ERROR, _ROUNDED_ERROR = 1e-4, 1e-2, 0.02

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


def write(model: Model, onnx_file: Path, path: Path, kind: Format, feeds: Feeds, notes: Mapping[str, str]) -> float:
    """Write a model for torch, and prove that a process without this package computes the same with it.

    It is proven on the given inputs and on larger ones, along every dimension that the model leaves open, so
    that a size that was baked in shows.

    Args:
        model: as it is in `onnx_file`.
        onnx_file: what ONNX Runtime runs: the yardstick.
        path: where the file goes.
        kind: "torchscript" (traced) or "pt2" (torch.export).
        feeds: one batch of inputs.
        notes: further records to store in the file.

    Returns:
        The largest difference from ONNX Runtime, beside the largest value.

    Raises:
        ModelError: an operator that torch cannot execute.
        PassError: the graph cannot be expressed: it branches on its data.
        VerificationError: torch refuses, or the outputs differ.
    """
    decided = decided_by_data(model.ir)
    if decided:
        raise PassError(
            f"cannot be written as {kind}: {decided} is decided by the data, which a recorded "
            "run cannot hold; write it as onnx"
        )
    network = _Single(Network(model))
    session = Session(onnx_file)
    batches = grown(model, session, feeds)
    example = tuple(from_numpy(batches[-1][name]) for name in network.network.input_names)
    extra = {SIGNATURE: json.dumps(_signature(network.network)), **notes}
    with _failing(kind), torch.no_grad():
        if kind == "torchscript":
            torch.jit.save(torch.jit.trace(network, example, check_trace=False), str(path), _extra_files=extra)
        else:
            program = torch.export.export(network, example, dynamic_shapes=(_dynamic(model),), strict=False)
            program.example_inputs = None  # they would be stored in the file
            torch.export.save(program, str(path), extra_files=extra)
    return _prove(model, session, path, kind, batches, network.network)


def grown(model: Model, session: Session, feeds: Feeds) -> list[Feeds]:
    """The inputs, then larger ones: each open dimension alone, then all together.

    Dimensions of one name grow together, and each name by a factor of its own. What the model itself refuses
    is left out.
    """
    places: dict[str, list[tuple[str, int]]] = {}
    for spec in model.inputs():
        for axis, size in enumerate(spec.shape if spec.shape is not None else ()):
            if not isinstance(size, int):
                places.setdefault(size or f"{spec.name}.{axis}", []).append((spec.name, axis))
    found, everything = [feeds], dict(feeds)
    for number, where in enumerate(places.values()):
        alone, together = _repeated(feeds, where, 2 + number), _repeated(everything, where, 2 + number)
        if _runs(session, alone) and _runs(session, together):
            found.append(alone)
            everything = together
    return found if len(places) < 2 else [*found, everything]


def _repeated(feeds: Feeds, where: Sequence[tuple[str, int]], times: int) -> dict[str, Array]:
    made = dict(feeds)
    for name, axis in where:
        made[name] = np.concatenate([made[name]] * times, axis)
    return made


def _runs(session: Session, feeds: Feeds) -> bool:
    try:
        session.run(feeds)
    except DataError:
        return False
    return True


def _signature(network: Network) -> dict[str, list[str]]:
    return {"inputs": list(network.input_names), "outputs": list(network.output_names)}


def _dynamic(model: Model) -> tuple[dict[int, Any], ...]:
    """For every input the dimensions that the model leaves open."""
    shapes = [spec.shape if spec.shape is not None else () for spec in model.inputs()]
    return tuple(
        {axis: torch.export.Dim.AUTO for axis, size in enumerate(shape) if not isinstance(size, int)}
        for shape in shapes
    )


@contextmanager
def _failing(kind: str) -> Iterator[None]:
    """Whatever torch raises while it records a graph becomes one line; its warnings are for its own authors."""
    from torch._dynamo.exc import TorchDynamoException

    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (RuntimeError, ValueError, TypeError, NotImplementedError, TorchDynamoException) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise VerificationError(f"torch cannot write this model as {kind}: {first[:200]}") from error
    finally:
        logger.setLevel(level)


def _prove(
    model: Model, session: Session, path: Path, kind: Format, batches: Sequence[Feeds], network: Network
) -> float:
    rounded, worst = rounds(model.ir), 0.0
    made = _in_fresh_process(path, kind, [[feeds[name] for name in network.input_names] for feeds in batches])
    for number, feeds in enumerate(batches):
        wanted, again = session.run(feeds), session.run(feeds)
        for place, name in enumerate(network.output_names):
            if not np.array_equal(wanted[name], again[name], equal_nan=wanted[name].dtype.kind == "f"):
                continue  # drawn at random
            error = _difference(made[f"{number} {place}"], wanted[name], rounded)
            limit = _ROUNDED_ERROR if rounded else _HALF_ERROR if wanted[name].dtype == np.float16 else _ERROR
            if not error <= limit:
                shapes = ", ".join(f"{n} {list(a.shape)}" for n, a in feeds.items())
                raise VerificationError(
                    f"the {kind} file differs from ONNX Runtime by {error:.1e} in {name} on {shapes}; write it as onnx"
                )
            worst = max(worst, error)
    return worst


def _in_fresh_process(path: Path, kind: str, batches: Sequence[Sequence[Array]]) -> dict[str, Array]:
    names = [[f"{number} {place}" for place in range(len(batch))] for number, batch in enumerate(batches)]
    rows = zip(names, batches, strict=True)
    arrays = {name: array for row, batch in rows for name, array in zip(row, batch, strict=True)}
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
    if got.shape != wanted.shape or got.dtype != wanted.dtype:
        return float("inf")
    one, other = got.astype(np.float64), wanted.astype(np.float64)
    one, other = np.where(np.isfinite(other), one, 0), np.where(np.isfinite(other), other, 0)
    if not other.size:
        return 0.0
    if rounded:
        return float(np.sqrt(np.mean((one - other) ** 2)) / max(np.sqrt(np.mean(other**2)), 1e-12))
    return float(np.abs(one - other).max() / max(np.abs(other).max(), 1e-12))
