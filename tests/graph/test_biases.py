"""Biases in all their forms: moved by a little, the output moves by that, and stays in its kernel."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from compressor.data import RandomSource
from compressor.graph.biases import bias_refusal, move_bias
from compressor.graph.edit import settle
from compressor.graph.kernels import count_kernels
from compressor.graph.model import Model
from compressor.graph.twins import Twins
from compressor.passes import Context, Pass, QuantizeDynamic, QuantizeStatic
from compressor.progress import Silent
from compressor.runtime.ort import Session
from tests.models import Array, array, floats, graph, load, outputs

RNG = np.random.default_rng(6)
IMAGE, VECTOR, SEQUENCE = (
    "float[N,3,8,8] x => float[N,4,8,8] y",
    "float[N,6] x => float[N,4] y",
    "float[N,5,6] x => float[N,5,4] y",
)
W, B, KERNEL = floats(RNG, 6, 4), floats(RNG, 4), floats(RNG, 4, 3, 3, 3) / 3
SHIFT = array([0.5, -0.25, 0, 1])

MODELS = {
    "Conv": graph(IMAGE, "[layer] y = Conv<pads=[1,1,1,1]>(x, w, b)", w=KERNEL, b=B),
    "Conv, no bias": graph(IMAGE, "[layer] y = Conv<pads=[1,1,1,1]>(x, w)", w=KERNEL),
    "ConvTranspose": graph(IMAGE, "[layer] y = ConvTranspose<pads=[1,1,1,1]>(x, w)", w=KERNEL.swapaxes(0, 1).copy()),
    "Gemm": graph(VECTOR, "[layer] y = Gemm(x, w, b)", w=W, b=B),
    "Gemm, no bias": graph(VECTOR, "[layer] y = Gemm(x, w)", w=W),
    "Gemm, bias in a row": graph(VECTOR, "[layer] y = Gemm(x, w, b)", w=W, b=B[None]),
    "MatMul": graph(SEQUENCE, "[layer] a = MatMul(x, w) y = Add(b, a)", w=W, b=B),
    "MatMul, no bias": graph(SEQUENCE, "[layer] y = MatMul(x, w)", w=W),
}
AXES = {"Conv": -3, "ConvTranspose": -3}
STEPS: dict[str, Pass | None] = {
    "float": None,
    "static": QuantizeStatic.model_validate({"type": "quantize_static", "activations": {"observer": "min_max"}}),
    "dynamic": QuantizeDynamic(convolutions=True),
}


def _twins(case: str) -> Twins:
    kind = case.partition(",")[0]
    return Twins("layer", kind, "y", "y", AXES.get(kind, -1), 4)


def _made(case: str, step: str, folder: Path) -> Model:
    model = load(MODELS[case], folder)
    context = Context(model.copy(), RandomSource(samples=64).open(model, "data", 0), 0, folder, Silent(), 1)
    chosen = STEPS[step]
    if chosen is not None:
        list(chosen.apply(model, context))
    return model


def _feeds(case: str) -> dict[str, Array]:
    shape = [d.dim_value or 64 for d in MODELS[case].graph.input[0].type.tensor_type.shape.dim]
    return {"x": floats(np.random.default_rng(0), *shape)}


def _kernels(model: Model, folder: Path) -> list[str]:
    model.save(folder / "counted.onnx")
    Session(folder / "counted.onnx", optimized=folder / "optimized.onnx")
    return [str(kernels) for kernels in count_kernels(folder / "optimized.onnx")]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("case", MODELS)
def test_the_output_moves_by_as_much_and_no_layer_leaves_its_kernel(tmp_path: Path, case: str, step: str) -> None:
    model, layer = _made(case, step, tmp_path), _twins(case)
    before, kernels = outputs(model, _feeds(case), tmp_path)["y"], _kernels(model, tmp_path)
    assert bias_refusal(model, layer) is None
    move_bias(model, layer, SHIFT)
    settle(model.ir)
    after = outputs(model, _feeds(case), tmp_path)["y"]
    moved = np.moveaxis(after - before, layer.axis, -1).reshape(-1, 4)
    step_of_output = float(before.max() - before.min()) / 255 if step == "static" and "Conv" in case else 1e-5
    assert np.median(moved, axis=0) == pytest.approx(SHIFT, abs=step_of_output + 1e-3)
    assert _kernels(model, tmp_path) == kernels


@pytest.mark.parametrize("step", STEPS)
def test_a_bias_may_be_moved_twice(tmp_path: Path, step: str) -> None:
    model, layer = _made("Gemm, no bias", step, tmp_path), _twins("Gemm, no bias")
    before = outputs(model, _feeds("Gemm"), tmp_path)["y"]
    for _ in range(2):
        move_bias(model, layer, SHIFT)
        settle(model.ir)
    after = outputs(model, _feeds("Gemm"), tmp_path)["y"]
    assert after - before == pytest.approx(np.broadcast_to(2 * SHIFT, after.shape), abs=1e-3)


def test_a_bias_that_others_read_is_not_moved_for_them(tmp_path: Path) -> None:
    body = "[layer] y = Gemm(x, w, b) [other] z = Gemm(x, w, b)"
    proto = graph("float[N,6] x => float[N,4] y, float[N,4] z", body, w=W, b=B)
    model = load(proto, tmp_path)
    before = outputs(model, _feeds("Gemm"), tmp_path)
    move_bias(model, _twins("Gemm"), SHIFT)
    after = outputs(model, _feeds("Gemm"), tmp_path)
    assert np.array_equal(after["z"], before["z"])
    assert after["y"] - before["y"] == pytest.approx(np.broadcast_to(SHIFT, before["y"].shape), abs=1e-5)


REFUSED: dict[str, tuple[onnx.ModelProto, str]] = {
    "computed": (graph(VECTOR, "c = Neg(b) [layer] y = Gemm(x, w, c)", w=W, b=B), "computed"),
    "one number for all": (graph(VECTOR, "[layer] y = Gemm(x, w, b)", w=W, b=array([1])), "one number per channel"),
    "leaves int8": (
        graph(
            SEQUENCE, "[layer] a = MatMul(x, w) q = QuantizeLinear(a, s) y = DequantizeLinear(q, s)", w=W, s=array(1)
        ),
        "leave int8",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_bias_that_cannot_be_moved_is_refused_with_the_reason(tmp_path: Path, case: str) -> None:
    proto, says = REFUSED[case]
    assert says in (bias_refusal(load(proto, tmp_path), _twins("Gemm")) or "")
