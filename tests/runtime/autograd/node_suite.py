"""The node tests that ship inside the `onnx` package, run by the interpreter.

    python -m tests.runtime.autograd.node_suite [PART OF A NAME]

prints how many of those up to opset 23 in the standard domain pass, and why the others do not.
"""

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import torch
from onnx.backend.test.loader import load_model_tests

from compressor.graph.model import Model
from compressor.runtime.autograd import Network
from compressor.runtime.autograd.values import from_numpy, to_numpy

LEFT_OUT = Path(__file__).with_name("node_suite_left_out.txt")
NEWEST_OPSET = 23
_COARSE = {"bfloat16": 2e-2, "float16": 2e-3}
"""Two steps of these types: what their results may differ by when sums run in another order."""


def standard_tests() -> Iterator[Any]:
    """All that use the standard domain alone, up to the opset."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        every = load_model_tests(kind="node")
    for test in every:
        versions = {opset.domain or "ai.onnx": opset.version for opset in test.model.opset_import}
        if set(versions) == {"ai.onnx"} and versions["ai.onnx"] <= NEWEST_OPSET:
            yield test


def failure(test: Any) -> str | None:
    """Why a test does not pass, or None when it does."""
    graph = test.model.graph
    try:
        network = Network(Model(ir.from_proto(test.model), Path(test.name), 0))
        for given, wanted in test.data_sets:
            feeds = [_fed(value, spec.type) for value, spec in zip(given, graph.input, strict=False)]
            with torch.no_grad():
                outputs = network(*feeds)
            for got, want, spec in zip(outputs, wanted, graph.output, strict=True):
                _compare(got, want, spec.type, test)
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return None


def left_out() -> dict[str, str]:
    """Test -> why it is not expected to pass."""
    lines = LEFT_OUT.read_text(encoding="utf-8").splitlines()
    return dict(line.split(": ", 1) for line in lines if line and not line.startswith("#"))


def _fed(value: Any, kind: onnx.TypeProto) -> Any:
    if kind.HasField("sequence_type"):
        return [_fed(item, kind.sequence_type.elem_type) for item in value]
    if kind.HasField("optional_type"):
        return None if value is None else _fed(value, kind.optional_type.elem_type)
    array = _array(value)
    return array if array.dtype.kind in "OUS" else from_numpy(array)


def _array(value: Any) -> Any:
    return ir.from_proto(value).numpy() if isinstance(value, onnx.TensorProto) else np.asarray(value)


def _compare(got: Any, want: Any, kind: onnx.TypeProto, test: Any) -> None:
    if kind.HasField("sequence_type"):
        assert len(got) == len(want), "another number of elements"
        for one, other in zip(got, want, strict=True):
            _compare(one, other, kind.sequence_type.elem_type, test)
        return
    if kind.HasField("optional_type"):
        assert (got is None) == (want is None), "an element where none is wanted, or none where one is"
        if want is not None:
            _compare(got, want, kind.optional_type.elem_type, test)
        return
    wanted, found = _array(want), to_numpy(got, ir.DataType(kind.tensor_type.elem_type))
    assert found.dtype == wanted.dtype, f"{found.dtype} instead of {wanted.dtype}"
    assert found.shape == wanted.shape, f"{found.shape} instead of {wanted.shape}"
    coarse = _COARSE.get(found.dtype.name, 0.0)
    if found.dtype.kind not in "fiubc":
        found, wanted = found.astype(np.float32), wanted.astype(np.float32)
    np.testing.assert_allclose(
        found, wanted, rtol=max(test.rtol, coarse), atol=max(test.atol, 1e-6, coarse / 10), equal_nan=True
    )


def _main(part: str = "") -> None:
    chosen = [test for test in standard_tests() if part in test.name]
    failures = {test.name: why for test in chosen if (why := failure(test)) is not None}
    reasons = left_out()
    sys.stdout.write(f"{len(chosen) - len(failures)} of {len(chosen)} node tests pass\n")
    for name, why in failures.items():
        sys.stdout.write(f"{name}: {reasons.get(name, 'NOT EXPECTED')} ({why})\n")


if __name__ == "__main__":
    _main(*sys.argv[1:])
