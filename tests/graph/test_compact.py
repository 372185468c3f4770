"""Short names change nothing but names, and not those that anybody knows the model by."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from compressor.data import RandomSource
from compressor.graph.compact import compute_bias_scales, shorten
from compressor.graph.kernels import count_kernels
from compressor.graph.model import Model
from compressor.graph.refusals import set_aside
from compressor.passes.base import Context, Pass
from compressor.passes.quantize_dynamic import QuantizeDynamic
from compressor.passes.quantize_static import QuantizeStatic, WeightSettings
from compressor.passes.quantize_weights import QuantizeWeights
from compressor.progress import Silent
from compressor.runtime.ort import Session
from tests.cli import tiny
from tests.models import Array, cnn, floats, graph, load, outputs

RNG = np.random.default_rng(0)
FED: dict[str, Array] = {"x": floats(RNG, 4, 3, 8, 8)}

STEPS: dict[str, Pass | None] = {
    "float": None,
    "static": QuantizeStatic(),
    "static 2 bits": QuantizeStatic(weights=WeightSettings(bits=2, granularity="per_block")),
    "dynamic": QuantizeDynamic(convolutions=True),
    "weights": QuantizeWeights(bits=3),
    "blocks": QuantizeWeights(bits=4, compute="float"),
}


def _quantized(step: str, folder: Path) -> Model:
    model, chosen = load(cnn(RNG), folder), STEPS[step]
    data = RandomSource(samples=4).open(model, "data", 0)
    if chosen is not None:
        list(chosen.apply(model, Context(model.copy(), data, 0, folder, Silent(), 1)))
    return model


def _layers(model: Model) -> set[str]:
    return {name for w in model.weights() for name in (w.name,)} | {name for name, _, _ in set_aside(model)}


@pytest.mark.parametrize("step", STEPS)
def test_outputs_are_the_same_to_the_last_bit(step: str, tmp_path: Path) -> None:
    model = _quantized(step, tmp_path)
    before, layers = outputs(model, FED, tmp_path)["y"], _layers(model)
    size = (tmp_path / "written.onnx").stat().st_size
    compute_bias_scales(model)
    assert shorten(model) > 0
    assert np.array_equal(outputs(model, FED, tmp_path)["y"], before)
    assert (tmp_path / "written.onnx").stat().st_size < size
    onnx.checker.check_model(str(tmp_path / "written.onnx"), full_check=True)
    assert _layers(Model.load(tmp_path / "written.onnx")) == layers


@pytest.mark.parametrize("step", ["static", "static 2 bits"])
def test_the_scales_of_biases_are_computed_and_kernels_stay(step: str, tmp_path: Path) -> None:
    model = _quantized(step, tmp_path)
    stored = model.nbytes()
    saved = compute_bias_scales(model)
    assert saved == stored - model.nbytes() == 4 * (8 + 8 + 3)
    model.save(tmp_path / "compact.onnx")
    Session(tmp_path / "compact.onnx", optimized=tmp_path / "optimized.onnx")
    found = {k.family: (k.integer, k.total) for k in count_kernels(tmp_path / "optimized.onnx")}
    assert found == {"Conv": (2, 2), "MatMul": (1, 1)}
    assert compute_bias_scales(model) == 0


def test_a_bias_on_a_grid_of_its_own_keeps_its_scale(tmp_path: Path) -> None:
    body = """xq = QuantizeLinear(x, xs, xz)  xd = DequantizeLinear(xq, xs, xz)  wd = DequantizeLinear(wq, ws)
    bd = DequantizeLinear(bq, bs)  [l] y = Gemm(xd, wd, bd)"""
    scales = {"xs": np.float32(0.1), "ws": np.float32(0.5), "bs": np.float32(0.06)}
    arrays: dict[str, Array] = {name: np.asarray(scale) for name, scale in scales.items()}
    arrays |= {"xz": np.asarray(np.uint8(3)), "wq": np.ones((4, 2), np.int8), "bq": np.ones(2, np.int32)}
    model = load(graph("float[1,4] x => float[1,2] y", body, **arrays), tmp_path)
    assert compute_bias_scales(model) == 0


def test_nothing_is_saved_where_nothing_is_quantized(tmp_path: Path) -> None:
    assert compute_bias_scales(load(cnn(RNG), tmp_path)) == 0


def test_names_are_short_and_every_one_comes_once(tmp_path: Path) -> None:
    model = _quantized("static 2 bits", tmp_path)
    shorten(model)
    values = [v.name or "" for node in model.ir.graph for v in node.outputs] + list(model.ir.graph.initializers)
    assert len(set(values)) == len(values)
    assert all(len(name) <= 2 for name in values)
    assert {node.name for node in model.ir.graph} == {"", "conv1", "conv2", "head"}


@pytest.mark.parametrize("names", [("0", "1", "2"), ("a", "b", "c"), ("2", "0", "1"), ("z", "10", "9")], ids="".join)
def test_inputs_and_outputs_keep_names_that_are_short_already(names: tuple[str, str, str], tmp_path: Path) -> None:
    first, second, last = names
    nodes = [
        helper.make_node("MatMul", [first, second], ["hidden"], "layer"),
        helper.make_node("Relu", ["hidden"], ["r"]),
        helper.make_node("MatMul", ["r", "weight"], [last], "last"),
    ]
    inputs = [tiny.value(first, [3, 4]), tiny.value(second, [4, 4])]
    tiny.write(tmp_path / "m.onnx", nodes, inputs, [tiny.value(last, [3, 4])], {"weight": tiny.normal(4, 4)})
    model = Model.load(tmp_path / "m.onnx")
    feeds = {first: tiny.normal(3, 4, seed=1), second: tiny.normal(4, 4, seed=2)}
    before, signature = outputs(model, feeds, tmp_path), tiny.signature(tmp_path / "m.onnx")
    shorten(model)
    after = outputs(model, feeds, tmp_path)
    assert np.array_equal(after[last], before[last])
    assert tiny.signature(tmp_path / "written.onnx") == signature
    assert [node.name for node in model.ir.graph] == ["", "", "last"]


def test_branches_still_read_what_is_around_them(tmp_path: Path) -> None:
    tiny.mixed(tmp_path / "m.onnx")
    model = Model.load(tmp_path / "m.onnx")
    feeds: dict[str, Array] = {
        "image": tiny.normal(1, 2, 5, 5),
        "ids": np.array([3, 1]),
        "series": tiny.normal(3, 1, 4),
        "x": tiny.normal(2, 4),
        "z": tiny.normal(2, 4, seed=1),
    }
    before = [outputs(model, feeds | {"flag": np.array(flag)}, tmp_path) for flag in (True, False)]
    shorten(model)
    for flag, expected in zip((True, False), before, strict=True):
        found = outputs(model, feeds | {"flag": np.array(flag)}, tmp_path)
        assert all(np.array_equal(found[name], expected[name]) for name in expected)
    assert _layers(Model.load(tmp_path / "written.onnx")) == set(tiny.MIXED)


def test_notes_and_defaults_are_dropped(tmp_path: Path) -> None:
    proto = graph(
        "float[1,2,4,4] x => float[n,c,h,w0] y",
        "[l] y = Conv<group=1, strides=[1,1], dilations=[1,1], pads=[0,0,0,0]>(x, w)",
        w=floats(RNG, 3, 2, 2, 2),
    )
    proto.graph.node[0].doc_string = "where it came from"
    proto.graph.doc_string = "of long ago"
    model = load(proto, tmp_path)
    before = outputs(model, {"x": floats(RNG, 1, 2, 4, 4)}, tmp_path)["y"].shape
    shorten(model)
    (node,) = model.ir.graph
    assert (dict(node.attributes), node.doc_string, model.ir.graph.doc_string) == ({}, None, None)
    assert outputs(model, {"x": floats(RNG, 1, 2, 4, 4)}, tmp_path)["y"].shape == before


def test_attributes_that_are_no_defaults_stay(tmp_path: Path) -> None:
    body = (
        "[l] a = Conv<group=2, strides=[1,2], pads=[0,0,0,0]>(x, w)  y = MaxPool<kernel_shape=[1,1], strides=[1,1]>(a)"
    )
    model = load(graph("float[1,2,4,4] x => float[n,c,h,w0] y", body, w=floats(RNG, 4, 1, 2, 2)), tmp_path)
    shorten(model)
    layer, pool = model.ir.graph
    assert set(layer.attributes) == {"group", "strides"}
    assert set(pool.attributes) == {"kernel_shape", "strides"}
