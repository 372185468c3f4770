"""Valid models that are built in ways one does not think of first."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.cli.calling import call, done, refused, write_recipe
from tests.models import array, floats, graph, run, write

RNG = np.random.default_rng(11)
RANDOM = {"calibration": {"source": "random"}}
SIMPLIFY, STATIC, DYNAMIC = ({"type": name} for name in ("simplify", "quantize_static", "quantize_dynamic"))


def _stored_beside(path: Path, data: str) -> None:
    proto = graph("float[n,64] x => float[n,64] y", "y = MatMul(x, w)", w=floats(RNG, 64, 64))
    onnx.save(proto, path, save_as_external_data=True, location=data, size_threshold=0)


@pytest.mark.parametrize("overwrite", [(), ("--overwrite",)])
def test_arrays_of_another_model_are_never_replaced_or_removed(tmp_path: Path, overwrite: tuple[str, ...]) -> None:
    """What renaming a model leaves: its arrays bear the name that the output's would have."""
    _stored_beside(tmp_path / "original.onnx", "small.onnx.data")
    before = (tmp_path / "small.onnx.data").read_bytes()
    call(tmp_path, "compress", "original.onnx", "--preset", "int8-dynamic", "-o", "small.onnx", "-q", *overwrite)
    assert (tmp_path / "small.onnx.data").read_bytes() == before


@pytest.mark.parametrize("target", ["model.onnx", "out.onnx", "recipe.yaml"])
def test_json_is_no_other_file_of_the_run(tmp_path: Path, target: str) -> None:
    write(graph("float[n,4] x => float[n,4] y", "y = MatMul(x, w)", w=floats(RNG, 4, 4)), tmp_path / "model.onnx")
    refused(
        tmp_path, 2, "run", write_recipe(tmp_path, passes=[DYNAMIC]), "--overwrite", "--json", target, says=(target,)
    )


def test_row_scales_of_an_embedding_are_no_weights_of_the_next_pass(tmp_path: Path) -> None:
    body = "e = Gather(t, x)  y = MatMul(e, w)"
    proto = graph("int64[n] x => float[n,4] y", body, t=floats(RNG, 30, 8), w=floats(RNG, 8, 4))
    write(proto, tmp_path / "model.onnx")
    prune = {"type": "prune_magnitude"}
    refused(tmp_path, 4, "run", write_recipe(tmp_path, passes=[DYNAMIC, prune]), says=("passes.1", "quantized already"))


def test_a_layer_that_is_read_in_a_branch_alone_is_quantized_there_too(tmp_path: Path) -> None:
    body = """h = MatMul(x, w)  y = If(c) <then_branch = t () => (float[n,4] a) { a = Relu(h) },
        else_branch = e () => (float[n,4] b) { b = Neg(h) }>"""
    proto = graph("float[n,4] x, bool c => float[n,4] y", body, w=floats(RNG, 4, 4))
    write(proto, tmp_path / "model.onnx")
    done(tmp_path, "run", write_recipe(tmp_path, passes=[STATIC], data=RANDOM), "-q")
    feeds = {"x": floats(RNG, 3, 4) / 4, "c": np.array(True)}  # well inside the calibrated range
    np.testing.assert_allclose(run(tmp_path / "out.onnx", feeds)["y"], run(proto, feeds)["y"], atol=0.05)


@pytest.mark.parametrize("step", [STATIC, DYNAMIC, {"type": "prune_magnitude"}], ids=lambda step: step["type"])
def test_a_weight_without_entries_is_left_alone(tmp_path: Path, step: dict[str, str]) -> None:
    body = "e = MatMul(x, w)  z = MatMul(x, empty)  y = Concat<axis=1>(e, z)"
    arrays = {"w": floats(RNG, 4, 4), "empty": np.zeros((4, 0), np.float32)}
    write(graph("float[n,4] x => float[n,4] y", body, **arrays), tmp_path / "model.onnx")
    done(tmp_path, "run", write_recipe(tmp_path, passes=[step], data=RANDOM), "-q")


def test_an_output_that_is_an_input_stays_so(tmp_path: Path) -> None:
    proto = graph("float[2,4] x => float[2,4] y", "y = MatMul(x, w)", w=floats(RNG, 4, 4))
    proto.graph.output.append(proto.graph.input[0])
    write(proto, tmp_path / "model.onnx")
    done(tmp_path, "run", write_recipe(tmp_path, passes=[SIMPLIFY]), "-q")
    x = floats(RNG, 2, 4)
    np.testing.assert_array_equal(run(tmp_path / "out.onnx", {"x": x})["x"], x)


@pytest.mark.parametrize("rate", [np.full(6, 2, np.float32), np.array(2, np.float32)], ids=["per sample", "for all"])
def test_a_scalar_input_takes_a_number_per_sample_or_one_for_all(tmp_path: Path, rate: np.ndarray) -> None:
    proto = graph("float[1,4] x, float r => float[1,4] y", "h = MatMul(x, w)  y = Mul(h, r)", w=floats(RNG, 4, 4))
    write(proto, tmp_path / "model.onnx")
    np.savez(tmp_path / "data.npz", x=floats(RNG, 6, 1, 4), r=rate)
    data = {"evaluation": {"source": "arrays", "path": "data.npz"}}
    done(tmp_path, "run", write_recipe(tmp_path, passes=[DYNAMIC], data=data), "-q")


def test_a_bias_per_row_is_refused_with_the_reason(tmp_path: Path) -> None:
    arrays = {"w": floats(RNG, 4, 4), "c": array([[1], [2]])}
    write(graph("float[2,4] x => float[2,4] y", "y = Gemm(x, w, c)", **arrays), tmp_path / "model.onnx")
    recipe = write_recipe(tmp_path, passes=[STATIC], data=RANDOM)
    refused(tmp_path, 4, "run", recipe, says=("bias differs from row to row",))


def test_the_total_of_inspect_is_that_of_its_layers_and_of_products_of_activations(tmp_path: Path) -> None:
    body = "h = MatMul(x, w)  t = Transpose(h)  y = MatMul(h, t)"
    write(graph("float[2,4] x => float[2,2] y", body, w=floats(RNG, 4, 8)), tmp_path / "model.onnx")
    found = json.loads(done(tmp_path, "inspect", "model.onnx", "--json", "-").out)
    assert found["macs"] == 2 * 4 * 8 + 2 * 8 * 2
    assert [layer["macs"] for layer in found["layers"]] == [2 * 4 * 8]
