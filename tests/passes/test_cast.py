"""cast: half the bytes at the same speed, or a model of another float type brought to float32."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.cli import tiny
from tests.cli.calling import Values, refused, write_recipe
from tests.passes.findings import entries, passed, reasons

WIDEN: Values = {"type": "cast", "dtype": "float32"}


def _product(path: Path, matrix: tiny.Array, kind: int = TensorProto.FLOAT) -> Path:
    """x (n, 16) times a matrix, as MatMul `layer`."""
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "layer")
    inputs, results = [tiny.value("x", ["n", 16], kind)], [tiny.value("y", ["n", matrix.shape[1]], kind)]
    return tiny.write(path, [node], inputs, results, {"w": matrix})


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_weights_take_half_the_bytes_and_their_error_is_reported(tmp_path: Path, dtype: str) -> None:
    matrix = tiny.normal(16, 256)
    _product(tmp_path / "model.onnx", matrix)
    change = entries(passed(tmp_path, {"type": "cast", "dtype": dtype}), "changes")["layer"]
    (stored,) = onnx.load(tmp_path / "out.onnx").graph.initializer
    rounded = onnx.numpy_helper.to_array(stored).astype(np.float32)
    error = np.linalg.norm(rounded - matrix) / np.linalg.norm(matrix)
    assert stored.data_type == getattr(TensorProto, dtype.upper())
    assert change["relative_error"] == pytest.approx(error, rel=1e-6)
    assert error < (2**-11 if dtype == "float16" else 2**-8)
    assert change["bytes_after"] == matrix.nbytes // 2 == change["bytes_before"] // 2
    assert str(change["detail"]).endswith(dtype)


@pytest.mark.parametrize(("factor", "why"), [(1e5, "6.55e+04"), (1e-6, "6.1e-05")])
def test_a_weight_beyond_the_range_of_float16_is_left_alone(tmp_path: Path, factor: float, why: str) -> None:
    nodes = [helper.make_node("MatMul", ["x", n], [f"h{n}"], n) for n in "ab"] + [
        helper.make_node("Add", ["ha", "hb"], ["y"], "sum")
    ]
    arrays = {"a": tiny.normal(16, 4), "b": (tiny.normal(16, 4, seed=1) * factor).astype(np.float32)}
    tiny.write(tmp_path / "model.onnx", nodes, [tiny.value("x", ["n", 16])], [tiny.value("y", ["n", 4])], arrays)
    report = passed(tmp_path, {"type": "cast"})
    assert entries(report, "changes").keys() == {"a"}
    assert why in reasons(report)["b"]
    assert "bfloat16" in reasons(report)["b"]
    assert not reasons(passed(tmp_path / "", {"type": "cast", "dtype": "bfloat16"}, output={"model": "wide.onnx"}))


@pytest.mark.parametrize("kind", ["float16", "float64"])
def test_what_is_not_float32_is_skipped(tmp_path: Path, kind: str) -> None:
    number = {"float16": TensorProto.FLOAT16, "float64": TensorProto.DOUBLE}[kind]
    _product(tmp_path / "model.onnx", tiny.normal(16, 4).astype(kind), number)
    refused(tmp_path, 4, "run", write_recipe(tmp_path, passes=[{"type": "cast"}]), says=("passes.0", kind))


@pytest.mark.parametrize("kind", ["float16", "float64"])
def test_a_model_of_another_type_is_widened_and_can_then_be_quantized(tmp_path: Path, kind: str) -> None:
    number = {"float16": TensorProto.FLOAT16, "float64": TensorProto.DOUBLE}[kind]
    _product(tmp_path / "model.onnx", tiny.normal(16, 64).astype(kind), number)
    quantize: Values = {"type": "quantize_dynamic"}
    recipe = write_recipe(tmp_path, passes=[quantize])
    refused(tmp_path, 4, "run", recipe, says=(kind, "cast with dtype: float32"))
    report = passed(tmp_path, WIDEN, quantize)
    widened = entries(report, "changes", 0)["layer"]
    assert widened["relative_error"] is None
    assert widened["bytes_after"] == 16 * 64 * 4
    assert entries(report, "changes", 1).keys() == {"layer"}
    assert tiny.signature(tmp_path / "model.onnx") == tiny.signature(tmp_path / "out.onnx")


def test_a_float32_model_has_nothing_to_widen(tmp_path: Path) -> None:
    tiny.mlp(tmp_path / "model.onnx")
    refused(tmp_path, 4, "run", write_recipe(tmp_path, passes=[WIDEN]), says=("passes.0", "float32 already"))


@pytest.mark.parametrize("field", ["targets", "ignore"])
def test_float32_is_for_the_whole_model(tmp_path: Path, field: str) -> None:
    tiny.mlp(tmp_path / "model.onnx")
    recipe = write_recipe(tmp_path, passes=[WIDEN | {field: ["first"]}])
    refused(tmp_path, 2, "run", recipe, says=("whole model", "targets and ignore"))


@pytest.mark.parametrize("step", ["quantize_dynamic", "quantize_static"])
def test_what_is_stored_in_16_bits_is_not_quantized_and_says_so(tmp_path: Path, step: str) -> None:
    tiny.mlp(tmp_path / "model.onnx")
    data = {"calibration": {"source": "random"}}
    steps: list[Values] = [{"type": "cast", "targets": ["first"]}, {"type": step}]
    report = passed(tmp_path, *steps, data=data)
    assert "stored as float16 already" in reasons(report)["first"]
    assert entries(report, "changes").keys() == {"second"}
