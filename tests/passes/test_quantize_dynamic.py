"""quantize_dynamic: int8 weights to nearest, activations ranged at run time, Conv only when asked."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from compressor.runtime import environment
from tests.cli import tiny
from tests.cli.calling import Values, done, write_recipe
from tests.passes.findings import entries, passed, reasons


def _integers(path: Path) -> list[tiny.Array]:
    return [array for array in tiny.arrays_of(path).values() if array.dtype == np.int8 and array.ndim > 1]


def _types(path: Path) -> set[str]:
    return {node.op_type for node in onnx.load(path).graph.node}


def _grid(matrix: tiny.Array, per_channel: bool) -> tuple[tiny.Array, tiny.Array]:
    """Rows to nearest on a symmetric grid of 127 steps each way, by the formula."""
    largest = np.abs(matrix).max(axis=1, keepdims=True) if per_channel else np.abs(matrix).max()
    scale = (largest / 127).astype(np.float32)
    return np.clip(np.rint(matrix / scale), -127, 127).astype(np.int8), scale


@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
def test_weights_are_rounded_to_nearest_on_the_symmetric_grid(tmp_path: Path, granularity: str) -> None:
    tiny.mlp(tmp_path / "model.onnx")
    passed(tmp_path, {"type": "quantize_dynamic", "granularity": granularity})
    before = tiny.arrays_of(tmp_path / "model.onnx")
    expected = [_grid(matrix, granularity == "per_channel")[0].T for matrix in (before["w1"], before["w2"].T)]
    found = sorted(_integers(tmp_path / "out.onnx"), key=lambda array: array.shape)
    assert [array.shape for array in found] == [(8, 16), (16, 4)]
    for one, other in zip(expected, found, strict=True):
        assert np.abs(one.astype(int) - other.astype(int)).max() <= 1
        assert np.mean(one != other) < 0.02


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("biased", [True, False])
def test_gemm_computes_nearly_the_same(tmp_path: Path, transposed: int, biased: bool) -> None:
    inputs = ["x", "w", "b"] if biased else ["x", "w"]
    nodes = [helper.make_node("Gemm", inputs, ["y"], "layer", transB=transposed)]
    arrays = {"w": tiny.normal(*((32, 64) if transposed else (64, 32)))} | (
        {"b": tiny.normal(32, seed=2)} if biased else {}
    )
    tiny.write(tmp_path / "model.onnx", nodes, [tiny.value("x", ["n", 64])], [tiny.value("y", ["n", 32])], arrays)
    passed(tmp_path, {"type": "quantize_dynamic"})
    x = tiny.normal(9, 64, seed=3)
    expected, found = (tiny.execute(tmp_path / name, {"x": x})[0] for name in ("model.onnx", "out.onnx"))
    assert "MatMulInteger" in _types(tmp_path / "out.onnx")
    assert np.linalg.norm(found - expected) < 0.03 * np.linalg.norm(expected)


def test_the_layer_keeps_its_name(tmp_path: Path) -> None:
    tiny.mlp(tmp_path / "model.onnx")
    changes = entries(passed(tmp_path, {"type": "quantize_dynamic"}), "changes")
    assert {entry["layer"]: name for name, entry in changes.items()} == {"Gemm": "first", "MatMul": "second"}


def test_an_embedding_is_stored_in_int8_with_one_scale_per_row(tmp_path: Path) -> None:
    tiny.lookup(tmp_path / "model.onnx")
    passed(tmp_path, {"type": "quantize_dynamic"})
    table = tiny.arrays_of(tmp_path / "model.onnx")["table"]
    ids = np.array([[0, 9, 5]], np.int64)
    scale = np.abs(table).max(axis=1, keepdims=True) / 127
    error = np.abs(tiny.execute(tmp_path / "out.onnx", {"ids": ids})[0] - table[ids])
    assert [array.shape for array in _integers(tmp_path / "out.onnx")] == [(10, 4)]
    assert (error <= scale[ids] / 2 * (1 + 1e-5)).all()


def test_embeddings_stay_when_the_recipe_says_so(tmp_path: Path) -> None:
    tiny.mixed(tmp_path / "model.onnx")
    report = passed(tmp_path, {"type": "quantize_dynamic", "embeddings": False}, verify={"cosine": -1})
    assert "embeddings" in reasons(report)["embedding"]


def test_a_convolution_is_left_alone_with_the_reason(tmp_path: Path) -> None:
    tiny.cnn(tmp_path / "model.onnx")
    report = passed(tmp_path, {"type": "quantize_dynamic"})
    assert set(reasons(report)) == {"stem", "body"}
    assert all("slower" in reason and "quantize_static" in reason for reason in reasons(report).values())
    assert not any("convolution" in str(warning) for warning in _warnings(report))


def _warnings(report: Values) -> list[object]:
    found = report["warnings"]
    assert isinstance(found, list)
    return found


def test_convolutions_that_are_asked_for_are_warned_of_everywhere(tmp_path: Path) -> None:
    tiny.cnn(tmp_path / "model.onnx")
    step: Values = {"type": "quantize_dynamic", "convolutions": True}
    output = {"model": "out.onnx", "report": ["r.md"]}
    report = passed(tmp_path, step, output=output)
    assert not reasons(report)
    assert "ConvInteger" in _types(tmp_path / "out.onnx")
    assert any("slower" in str(warning) for warning in _warnings(report))
    assert "slower" in (tmp_path / "r.md").read_text()
    shown = done(tmp_path, "run", write_recipe(tmp_path, passes=[step], output=output), "--overwrite").out
    assert "warning: quantize_dynamic with convolutions" in shown


def test_a_dynamic_convolution_computes_nearly_the_same(tmp_path: Path) -> None:
    tiny.cnn(tmp_path / "model.onnx")
    passed(tmp_path, {"type": "quantize_dynamic", "convolutions": True})
    x = tiny.normal(3, 3, 8, 8, seed=3)
    expected, found = (tiny.execute(tmp_path / name, {"x": x})[0] for name in ("model.onnx", "out.onnx"))
    assert np.linalg.norm(found - expected) < 0.05 * np.linalg.norm(expected)


def test_what_has_no_integer_kernel_is_skipped_with_the_reason(tmp_path: Path) -> None:
    tiny.mixed(tmp_path / "model.onnx")
    report = passed(tmp_path, {"type": "quantize_dynamic"}, verify={"cosine": -1})
    assert "no int8 kernel" in reasons(report)["up"]


LSTM = {"lstm.W", "lstm.R"}


@pytest.mark.parametrize(("recurrent", "changed"), [("faster", set()), ("all", LSTM), ("none", set())])
def test_small_lstms_are_quantized_when_the_recipe_says_so(tmp_path: Path, recurrent: str, changed: set[str]) -> None:
    tiny.mixed(tmp_path / "model.onnx")
    report = passed(tmp_path, {"type": "quantize_dynamic", "recurrent": recurrent}, verify={"cosine": -1})
    assert entries(report, "changes").keys() & LSTM == changed
    assert all(f"recurrent: {recurrent}" in why or "slower" in why for n, why in reasons(report).items() if n in LSTM)


def test_an_lstm_that_gains_speed_runs_in_its_integer_kernel(tmp_path: Path) -> None:
    hidden, steps = 64, 9
    nodes = [helper.make_node("LSTM", ["x", "w", "r"], ["y"], "lstm", hidden_size=hidden)]
    arrays = {"w": tiny.normal(1, 4 * hidden, 32) / 8, "r": tiny.normal(1, 4 * hidden, hidden, seed=1) / 8}
    inputs, results = [tiny.value("x", [steps, "n", 32])], [tiny.value("y", [steps, 1, "n", hidden])]
    tiny.write(tmp_path / "model.onnx", nodes, inputs, results, arrays)
    report = passed(tmp_path, {"type": "quantize_dynamic"})
    assert entries(report, "changes").keys() == LSTM
    assert isinstance(result := report["result"], dict)
    assert result["kernels"] == {"recurrent": [1, 1]}
    assert result["file_bytes"] < 0.3 * (tmp_path / "model.onnx").stat().st_size
    x = tiny.normal(steps, 2, 32, seed=3)
    expected, found = (tiny.execute(tmp_path / name, {"x": x})[0] for name in ("model.onnx", "out.onnx"))
    assert np.linalg.norm(found - expected) < 0.03 * np.linalg.norm(expected)


@pytest.mark.parametrize("weight", sorted(LSTM))
def test_one_weight_of_an_lstm_alone_cannot_be_selected(tmp_path: Path, weight: str) -> None:
    tiny.mixed(tmp_path / "model.onnx")
    step: Values = {"type": "quantize_dynamic", "recurrent": "all", "targets": [weight, "gemm"]}
    report = passed(tmp_path, step, verify={"cosine": -1})
    assert "select both" in reasons(report)[weight]
    assert entries(report, "changes").keys() == {"gemm"}


def _branches(path: Path, outside: list[onnx.NodeProto]) -> None:
    """flag chooses between x · v and x · w, by nodes inside the branches; y adds what `outside` makes."""
    shape, graphs = [4, 4], {}
    for name, weight in (("then", "v"), ("else", "w")):
        node = helper.make_node("MatMul", ["x", weight], [f"in_{name}"], f"{name}_layer")
        graphs[f"{name}_branch"] = helper.make_graph([node], name, [], [tiny.value(f"in_{name}", shape)])
    nodes = [helper.make_node("If", ["flag"], ["i"], "choice", **graphs), *outside]
    inputs = [tiny.value("flag", [], onnx.TensorProto.BOOL), tiny.value("x", shape)]
    tiny.write(path, nodes, inputs, [tiny.value("y", shape)], {"v": tiny.normal(4, 4), "w": tiny.normal(4, 4, seed=1)})


@pytest.mark.parametrize("weight", ["v", "other"])
def test_branches_and_the_graph_around_them_can_read_the_same_tensors(tmp_path: Path, weight: str) -> None:
    outside = [helper.make_node("MatMul", ["x", "v"], ["o"], "outside"), helper.make_node("Add", ["i", "o"], ["y"])]
    if weight == "other":
        outside = [helper.make_node("Identity", ["i"], ["y"])]
    _branches(tmp_path / "model.onnx", outside)
    passed(tmp_path, {"type": "quantize_dynamic"}, verify={"cosine": -1})
    x = tiny.normal(4, 4, seed=3)
    for flag in (True, False):
        feeds = {"x": x, "flag": np.array(flag)}
        expected, found = (tiny.execute(tmp_path / name, feeds)[0] for name in ("model.onnx", "out.onnx"))
        assert np.linalg.norm(found - expected) < 0.05 * np.linalg.norm(expected)


def _loop(path: Path) -> None:
    """y is x through the same MatMul and the same LSTM three times; the weights lie outside of the body."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["goes"]),
            helper.make_node("MatMul", ["state", "w"], ["h"], "inside"),
            helper.make_node("LSTM", ["h", "wl", "rl"], ["", "last"], "lstm", hidden_size=4),
            helper.make_node("Reshape", ["last", "shape"], ["next"]),
        ],
        "body",
        [
            tiny.value("i", [], tiny.INT64),
            tiny.value("go", [], onnx.TensorProto.BOOL),
            tiny.value("state", [1, 1, 4]),
        ],
        [tiny.value("goes", [], onnx.TensorProto.BOOL), tiny.value("next", [1, 1, 4])],
    )
    arrays = {"times": np.array(3), "w": tiny.normal(4, 4), "wl": tiny.normal(1, 16, 4), "rl": tiny.normal(1, 16, 4)}
    node = helper.make_node("Loop", ["times", "", "x"], ["y"], "loop", body=body)
    shape = [tiny.value("x", [1, 1, 4])], [tiny.value("y", [1, 1, 4])]
    tiny.write(path, [node], *shape, arrays | {"shape": np.array([1, 1, 4])})


def test_layers_in_the_body_of_a_loop_are_quantized(tmp_path: Path) -> None:
    _loop(tmp_path / "model.onnx")
    report = passed(tmp_path, {"type": "quantize_dynamic", "recurrent": "all"})
    assert entries(report, "changes").keys() == {"inside", *LSTM}
    x = tiny.normal(1, 1, 4, seed=3)
    expected, found = (tiny.execute(tmp_path / name, {"x": x})[0] for name in ("model.onnx", "out.onnx"))
    assert np.linalg.norm(found - expected) < 0.03 * np.linalg.norm(expected)


def test_a_shared_weight_is_stored_once(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"], "a"), helper.make_node("MatMul", ["h", "w"], ["y"], "b")]
    shape = [1, 16]
    arrays = {"w": tiny.normal(16, 16)}
    tiny.write(tmp_path / "model.onnx", nodes, [tiny.value("x", shape)], [tiny.value("y", shape)], arrays)
    passed(tmp_path, {"type": "quantize_dynamic"})
    assert len(_integers(tmp_path / "out.onnx")) == 1


@pytest.mark.parametrize("reduce_range", [False, True])
def test_weights_end_at_64_where_pairs_of_products_must_fit_into_16_bits(tmp_path: Path, reduce_range: bool) -> None:
    tiny.mlp(tmp_path / "model.onnx")
    data = {"calibration": {"source": "random"}}
    report = passed(tmp_path, {"type": "quantize_dynamic", "reduce_range": reduce_range}, data=data)
    stored = [a for a in tiny.arrays_of(tmp_path / "out.onnx").values() if a.dtype == np.int8 and a.ndim == 2]
    assert [int(np.abs(array).max()) for array in stored] == [64 if reduce_range else 127] * 2
    assert entries(report, "changes").keys() == {"first", "second"}


@pytest.mark.parametrize(
    ("flags", "reduce_range", "warned"), [("avx2", False, 1), ("avx2", True, 0), ("avx_vnni", False, 0)]
)
def test_a_processor_whose_sums_saturate_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, reduce_range: bool, warned: int
) -> None:
    (tmp_path / "cpuinfo").write_text(f"flags : {flags}\n")
    monkeypatch.setattr(environment, "_CPUINFO", tmp_path / "cpuinfo")
    tiny.mlp(tmp_path / "model.onnx")
    step: Values = {"type": "quantize_dynamic", "reduce_range": reduce_range}
    report = passed(tmp_path, step, data={"calibration": {"source": "random"}})
    assert isinstance(found := report["warnings"], list)
    assert sum("VNNI" in str(text) and "reduce_range" in str(text) for text in found) == warned
