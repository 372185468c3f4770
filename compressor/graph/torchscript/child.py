"""The process that loads a TorchScript file and writes ONNX: confined before it opens the file.

    python -m compressor.graph.torchscript.child JOB RESULT

Both are JSON files beside which the arrays and the model lie.
"""

import json
import logging
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import torch
from numpy.typing import NDArray

from compressor.graph.torchscript.binding import Arrays, Bound, bind
from compressor.graph.torchscript.confine import confine
from compressor.graph.torchscript.errors import UnusableError
from compressor.graph.torchscript.inputs import GivenNumber
from compressor.graph.torchscript.interpret import Interpreter
from compressor.graph.torchscript.routes import ROUTES, Route, recorded

_ERROR = 1e-4
_RESEMBLANCE = 0.9
_ENGINES = ("x86", "qnnpack")
_SEED = 0
_IMAGE_DIMENSIONS = 4

Places = dict[str, list[tuple[str, int]]]
"""Name of an open dimension -> the inputs and axes that have it."""


def main(job_file: str, result_file: str) -> None:
    """Do the job; what goes wrong with the model is part of the result, not an exception."""
    job = json.loads(Path(job_file).read_text(encoding="utf-8"))
    scratch = Path(result_file).parent
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    unconfined = confine(scratch, job["memory_bytes"], job["cpu_seconds"], job["file_bytes"])
    try:
        result = _convert(job, scratch)
    except UnusableError as error:
        result = {"error": str(error)}
    except Exception as error:
        result = {"error": _line(error)}
    Path(result_file).write_text(json.dumps({**result, "unconfined": unconfined}), encoding="utf-8")


def _convert(job: Mapping[str, Any], scratch: Path) -> dict[str, Any]:
    module = torch.jit.load(job["path"], map_location="cpu").eval()
    _refuse_state(module)
    with np.load(scratch / "inputs.npz", allow_pickle=False) as stored:
        arrays = [stored[name] for name in stored.files]
    names = job["names"]
    feeds = dict(zip(names, arrays, strict=True)) if names else arrays
    try:
        bound, feeds = bind(module, feeds, [GivenNumber(**number) for number in job["numbers"]])
    except (RuntimeError, torch.jit.Error) as error:
        shapes = ", ".join(f"{a.dtype}{list(a.shape)}" for a in arrays)
        raise UnusableError(f"the model does not run on inputs {shapes}: {_line(error)}") from error
    resemblance = None
    routes: tuple[Route, ...] = ROUTES
    if job["packed"]:
        resemblance = max(_resemblances(job["path"], bound, feeds))
        if resemblance < _RESEMBLANCE:
            raise UnusableError(f"with its weights in floats it computes something else: cosine {resemblance:.2f}")
        bound, routes = replace(bound, module=Interpreter(module)), (recorded,)
    given: Places = {}
    for name, symbols in zip(bound.inputs, job["symbols"] or [()] * len(bound.inputs), strict=True):
        for axis, symbol in enumerate(symbols):
            if symbol:
                given.setdefault(symbol, []).append((name, axis))
    choices = [given] if given else _choices(bound, feeds)
    return {**_first(routes, choices, bound, feeds, scratch / "model.onnx"), "resemblance": resemblance}


def _first(
    routes: Sequence[Route], choices: Iterable[Places], bound: Bound, feeds: Arrays, path: Path
) -> dict[str, Any]:
    """The first route that works, with as many open dimensions as possible.

    Raises:
        UnusableError: why each does not.
    """
    reasons: list[str] = []
    hopeless: set[Route] = set()
    for places in choices:
        for route in (r for r in routes if r not in hopeless):
            batches = _batches(feeds, places)
            try:
                route(bound, batches[-1], _by_input(places), path)
            except Exception as failure:
                reasons.append(f"{route.__name__}: {_line(failure)}")
                if route is not recorded:  # what the others cannot write does not depend on sizes
                    hopeless.add(route)
                continue
            try:
                error = _proven(bound, batches, _by_input(places), path)
            except Exception as failure:
                reasons.append(f"{route.__name__}: {_line(failure)}")
            else:
                return {"route": route.__name__, "difference": error, "open": sorted(places)}
    raise UnusableError("; ".join(dict.fromkeys(reasons)))


def _resemblances(path: str, bound: Bound, feeds: Arrays) -> Iterator[float]:
    """Cosine of the outputs of the packed module with those in floats, with each of torch's quantized kernels.

    They differ: some saturate where others do not, and a file does not say which it was made for.
    """
    floats = replace(bound, module=Interpreter(bound.script)).run(feeds)
    for engine in torch.backends.quantized.supported_engines:
        if engine not in _ENGINES:
            continue
        torch.backends.quantized.engine = engine
        try:
            found = replace(bound, module=torch.jit.load(path, map_location="cpu").eval()).run(feeds)
        except RuntimeError:
            continue
        pairs = [(found[name].ravel(), floats[name].ravel()) for name in floats if floats[name].dtype.kind == "f"]
        yield min((float(a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-12)) for a, b in pairs), default=1.0)


def _refuse_state(module: torch.jit.ScriptModule) -> None:
    """A graph gives the same answer every time; a module that remembers does not."""
    try:
        frozen = torch.jit.freeze(module, optimize_numerics=False)
    except RuntimeError:
        frozen = module
    graph = frozen.inlined_graph  # its nodes die with it
    for node in graph.findAllNodes("prim::SetAttr"):
        raise UnusableError(
            f"it keeps state between calls: forward assigns self.{node.s('name')}; give it the state as an input and "
            "return the new one"
        )


def _choices(bound: Bound, feeds: Arrays) -> Iterator[Places]:
    """Which dimensions stay open: all that the module itself takes at another size, then fewer, at last none."""
    found: Places = {}
    for name, array in feeds.items():
        for axis, size in enumerate(array.shape):
            if axis == 0 or array.ndim < _IMAGE_DIMENSIONS:
                found.setdefault("batch" if axis == 0 else f"length {axis} {size}", []).append((name, axis))
    working = {key: where for key, where in found.items() if _runs(bound, _repeated(feeds, where, 2))}
    lengths = [where for key, where in working.items() if key != "batch"]
    batch: Places = {"batch": working["batch"]} if "batch" in working else {}
    for count in range(len(lengths), -1, -1):
        for kept in combinations(lengths, count):
            yield {**batch, **{f"length{number or ''}": where for number, where in enumerate(kept)}}
    if batch:
        yield {}


def _by_input(places: Places) -> dict[str, dict[int, str]]:
    opened: dict[str, dict[int, str]] = {}
    for symbol, where in places.items():
        for name, axis in where:
            opened.setdefault(name, {})[axis] = symbol
    return opened


def _batches(feeds: Arrays, places: Places) -> list[Arrays]:
    """The example, other values, each open dimension larger, all of them larger."""
    everything = dict(feeds)
    batches = [feeds, _drawn(feeds)]
    for number, where in enumerate(places.values()):
        batches.append(_repeated(feeds, where, 2 + number))
        everything = _repeated(everything, where, 2 + number)
    return [*batches, everything]


def _proven(bound: Bound, batches: Sequence[Arrays], opened: Mapping[str, Mapping[int, str]], path: Path) -> float:
    """Check the written model, and compare it with the module.

    Returns:
        The largest difference, beside the largest value.

    Raises:
        UnusableError: they differ.
    """
    _sign(path, bound, batches[0], opened)
    onnx.checker.check_model(str(path), full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    worst = 0.0
    for batch in batches:
        results = dict(zip(bound.outputs, session.run(None, batch), strict=True))
        for name, wanted in bound.run(batch).items():
            error = _difference(results[name], wanted)
            if not error <= _ERROR:
                shapes = ", ".join(str(list(array.shape)) for array in batch.values())
                raise UnusableError(f"{name} differs by {error:.1e} on {shapes}")
            worst = max(worst, error)
    return worst


def _sign(path: Path, bound: Bound, feeds: Arrays, opened: Mapping[str, Mapping[int, str]]) -> None:
    """State the dimensions of the inputs as they are meant, and drop the prefix of the adapter from names."""
    model = ir.load(path)
    if [v.name for v in model.graph.inputs] != list(bound.inputs):
        raise UnusableError("an input is not used, or became a constant")
    for value in model.graph.inputs:
        axes = opened.get(value.name or "", {})
        value.shape = ir.Shape([axes.get(axis, size) for axis, size in enumerate(feeds[value.name or ""].shape)])
    for value in list(model.graph.initializers.values()):
        name = (value.name or "").removeprefix("module.")
        if name not in model.graph.initializers:
            value.name = name
    model.doc_string = ""
    ir.save(model, path)


def _repeated(feeds: Arrays, where: Sequence[tuple[str, int]], times: int) -> Arrays:
    made = dict(feeds)
    for name, axis in where:
        made[name] = np.concatenate([made[name]] * times, axis)
    return made


def _drawn(feeds: Arrays) -> Arrays:
    """Other values of the same sizes: floats drawn anew, integers in another order."""
    rng = np.random.default_rng(_SEED)
    return {
        name: rng.standard_normal(a.shape).astype(a.dtype)
        if a.dtype.kind == "f"
        else rng.permuted(a.ravel()).reshape(a.shape)
        for name, a in feeds.items()
    }


def _runs(bound: Bound, feeds: Arrays) -> bool:
    try:
        bound.run(feeds)
    except (RuntimeError, UnusableError, torch.jit.Error):
        return False
    return True


def _difference(got: NDArray[Any], wanted: NDArray[Any]) -> float:
    if got.shape != wanted.shape or got.dtype != wanted.dtype:
        return float("inf")
    if not wanted.size:
        return 0.0
    one, other = got.astype(np.float64), wanted.astype(np.float64)
    finite = np.isfinite(other)
    if not np.array_equal(one[~finite], other[~finite], equal_nan=True):
        return float("inf")
    return float(
        np.abs(one - other, where=finite, out=np.zeros_like(other)).max()
        / max(np.abs(other, where=finite, out=np.zeros_like(other)).max(), 1e-6)
    )


def _line(error: BaseException) -> str:
    """What an error says, in one line; of TorchScript's the reason, which comes last."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    found = lines[-1] if lines[0].startswith("The following operation failed") else lines[0]
    return f"{found[:160]}"


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main(*sys.argv[1:])
