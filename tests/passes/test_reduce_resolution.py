"""reduce_resolution: a smaller image inside, the same inputs and outputs outside, and a reason where that cannot be."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.cli.calling import Values, refused, write_recipe
from tests.models import Floats, floats, graph, run, write
from tests.passes.findings import entries, passed, record

LOOSE = {"cosine": -1}
DATA = {"calibration": {"source": "arrays", "path": "x.npz", "inputs": {"x": "x"}, "samples": 16}}
POOLED = "p = GlobalAveragePool(b)  f = Flatten(p)  [head] y = MatMul(f, v)"
LAYERS = """[first] c = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (x, w)  a = Relu(c)
[second] d = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (a, u)  b = Relu(d)"""


def _model(folder: Path, body: str, signature: str = "float[N,3,32,32] x => float[N,3] y", **more: Floats) -> None:
    rng = np.random.default_rng(0)
    arrays = {"w": floats(rng, 32, 3, 3, 3), "u": floats(rng, 32, 32, 3, 3), "v": floats(rng, 32, 3)}
    read = {name: array for name, array in (arrays | more).items() if f", {name})" in body}
    write(graph(signature, body, **read), folder / "model.onnx")
    smooth = np.cumsum(np.cumsum(floats(rng, 24, 3, 32, 32), axis=2), axis=3) / 16
    np.savez(folder / "x.npz", x=smooth)


def _reduced(folder: Path, body: str = f"{LAYERS} {POOLED}", **fields: object) -> Values:
    _model(folder, body)
    (folder / "out.onnx").unlink(missing_ok=True)
    return passed(folder, {"type": "reduce_resolution", **fields}, data=DATA, verify=LOOSE)


def _line(folder: Path, **fields: object) -> str:
    recipe = write_recipe(folder, passes=[{"type": "reduce_resolution", **fields}], data=DATA, verify=LOOSE)
    (line,) = refused(folder, 4, "run", recipe, says=("passes.0 (reduce_resolution): ",))
    return line


def test_the_result_is_the_model_on_a_smaller_image(tmp_path: Path) -> None:
    """Inputs and outputs as they were; inside, all that a model of any size makes of the image resized by others."""
    _reduced(tmp_path, sides=0.75)
    x = np.load(tmp_path / "x.npz")["x"]
    rng = np.random.default_rng(0)
    arrays = {"w": floats(rng, 32, 3, 3, 3), "u": floats(rng, 32, 32, 3, 3), "v": floats(rng, 32, 3)}
    resized = 'small = Resize <mode = "cubic", axes = [2, 3]> (x, , , sizes)'
    body = f"{resized} {LAYERS.replace('(x, w)', '(small, w)')} {POOLED}"
    other = graph("float[N,3,32,32] x => float[N,3] y", body, sizes=np.int64([24, 24]), **arrays)
    np.testing.assert_allclose(run(tmp_path / "out.onnx", {"x": x})["y"], run(other, {"x": x})["y"], atol=1e-3)


def _left(report: Values) -> float:
    return report["result"]["macs"] / report["reference"]["macs"]  # type: ignore[index, no-any-return, call-overload]


@pytest.mark.parametrize("macs", [0.9, 0.75, 0.6])
def test_the_budget_is_kept(tmp_path: Path, macs: float) -> None:
    """And with the next larger size that 4, the stride of the model, divides, it would not be."""
    report = _reduced(tmp_path, macs=macs)
    assert _left(report) <= macs
    detail = str(entries(report, "changes")["x"]["detail"])
    assert f"{_left(report):.1%} of the MACs" in detail
    side = int(detail.removeprefix("32 × 32 → ").split(" ", maxsplit=1)[0])
    larger = side // 4 * 4 + 4
    assert larger == 32 or _left(_reduced(tmp_path, sides=larger / 32)) > macs


def test_two_times_is_twice(tmp_path: Path) -> None:
    _model(tmp_path, f"{LAYERS} {POOLED}")
    step = {"type": "reduce_resolution", "sides": 0.75}
    report = passed(tmp_path, step, step, data=DATA, verify=LOOSE)
    assert "32 × 32 → 24 × 24" in str(entries(report, "changes", 0)["x"]["detail"])
    assert "24 × 24 → 18 × 18" in str(entries(report, "changes", 1)["x_small"]["detail"])


def test_other_passes_leave_alone_what_resizes(tmp_path: Path) -> None:
    _model(tmp_path, f"{LAYERS} {POOLED}")
    steps = [{"type": "reduce_resolution", "sides": 0.75}, {"type": "quantize_static"}]
    report = passed(tmp_path, *steps, data=DATA, verify=LOOSE)
    assert {*entries(report, "changes"), *entries(report, "skips")} == {"first", "second", "head"}
    stored = {tensor.name: tensor for tensor in onnx.load(tmp_path / "out.onnx").graph.initializer}
    assert sum("filters" in name and tensor.data_type == onnx.TensorProto.FLOAT for name, tensor in stored.items()) == 2


def test_maps_come_out_as_large_as_they_were(tmp_path: Path) -> None:
    """As from a network for segmentation, with a shortcut to be met at a stored size; the weights here are noise."""
    body = f"""{LAYERS}  up = Resize <mode = "nearest"> (b, , , sizes)  s = Add(up, a)  y = Relu(s)"""
    _model(tmp_path, body, "float[N,3,32,32] x => float[N,32,16,16] y")
    proto = onnx.load(tmp_path / "model.onnx")
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.int64([1, 32, 16, 16]), "sizes"))
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    proto.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 1
    write(proto, tmp_path / "model.onnx")
    report = passed(tmp_path, {"type": "reduce_resolution", "sides": 0.75}, data=DATA, verify=LOOSE)
    assert record(report)["changes"]
    x = np.load(tmp_path / "x.npz")["x"][:1]
    found, expected = (run(tmp_path / name, {"x": x})["y"] for name in ("out.onnx", "model.onnx"))
    assert found.shape == expected.shape
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.7


def test_what_hangs_on_the_size_is_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    _model(tmp_path, f"{LAYERS} f = Flatten(b)  [dense] y = MatMul(f, m)", m=floats(rng, 2048, 3))
    line = _line(tmp_path, sides=0.75)
    assert "takes no 24 × 24 in place of 32 × 32" in line
    assert "dense" in line
    assert ".onnx" not in line


def test_an_output_that_is_no_map_is_named(tmp_path: Path) -> None:
    body = f"{LAYERS} r = Reshape(b, shape)  y = Transpose <perm = [0, 2, 1]> (r)"
    _model(tmp_path, body, "float[N,3,32,32] x => float[N,64,32] y", shape=np.int64([0, 32, -1]))
    line = _line(tmp_path, sides=0.75)
    assert "output y becomes [1, 36, 32] in place of [1, 64, 32]" in line


def test_labels_are_not_averaged(tmp_path: Path) -> None:
    _model(tmp_path, f"{LAYERS} y = ArgMax <axis = 1> (b)", "float[N,3,32,32] x => int64[N,1,8,8] y")
    assert "only maps of floats" in _line(tmp_path, sides=0.75)


def test_what_resizing_costs_is_counted(tmp_path: Path) -> None:
    """29 of 32 pixels are 29 filters of 34."""
    _model(tmp_path, f"{LAYERS} {POOLED}")
    line = _line(tmp_path, sides=0.9)
    assert "29 × 29 in place of 32 × 32" in line
    assert "times as many" in line


def test_images_of_any_size_are_left_to_the_user(tmp_path: Path) -> None:
    _model(tmp_path, f"{LAYERS} {POOLED}", "float[N,3,H,W] x => float[N,3] y")
    steps = [{"type": "reduce_resolution", "sides": 0.75}]
    recipe = write_recipe(tmp_path, passes=steps, data=DATA, verify=LOOSE)
    refused(tmp_path, 4, "run", recipe, says=("feed smaller images",))


def test_out_of_reach(tmp_path: Path) -> None:
    _model(tmp_path, f"{LAYERS} {POOLED}")
    assert "macs: 0.1 is out of reach: at half the size 0.35" in _line(tmp_path, macs=0.1)


def test_as_large_as_it_was(tmp_path: Path) -> None:
    _model(tmp_path, f"{LAYERS} {POOLED}")
    assert "sides: 0.99 of 32 × 32 is as large as it was" in _line(tmp_path, sides=0.99)


def test_one_budget(tmp_path: Path) -> None:
    _model(tmp_path, f"{LAYERS} {POOLED}")
    both = write_recipe(tmp_path, passes=[{"type": "reduce_resolution", "sides": 0.75, "macs": 0.5}], data=DATA)
    refused(tmp_path, 2, "run", both, says=("give one of macs and sides",))


def test_a_model_without_images_is_named(tmp_path: Path) -> None:
    _model(tmp_path, "[head] y = MatMul(x, v)", "float[N,32] x => float[N,3] y")
    np.savez(tmp_path / "x.npz", x=floats(np.random.default_rng(0), 24, 32))
    assert "has no layer that it works on" in _line(tmp_path, sides=0.75)
