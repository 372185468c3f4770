"""Layers in factors: at full rank nothing changes, whatever the layer, and however it strides, pads and dilates."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest

from compressor.calibration.factoring import Factors, Ranks, Sizes, insert, sizes_of, ways_of
from compressor.graph.edit import settle
from compressor.graph.factors import factor_refusal
from compressor.graph.model import Model
from compressor.runtime.macs import count_macs
from compressor.runtime.shapes import observe_shapes
from tests.models import Array, floats, graph, load, outputs

RNG = np.random.default_rng(6)
IMAGE = floats(RNG, 2, 6, 11, 12)
IDS = RNG.integers(0, 40, (3, 5))


@dataclass(frozen=True)
class Case:
    """A layer and what it is fed."""

    proto: onnx.ModelProto
    feeds: Mapping[str, Array]


def _conv(attributes: str, *shape: int) -> Case:
    body = f"[layer] y = Conv<{attributes}>(x, w, b)"
    arrays = {"w": floats(RNG, *shape), "b": floats(RNG, shape[0])}
    return Case(graph("float[N,6,11,12] x => float[N,C,H,W] y", body, **arrays), {"x": IMAGE})


def _product(signature: str, body: str, x: Array, **arrays: Array) -> Case:
    return Case(graph(signature, body, **arrays), {"x": x})


PRODUCTS = {
    "MatMul": _product(
        "float[N,T,6] x => float[N,T,9] y", "[layer] y = MatMul(x, w)", floats(RNG, 2, 3, 6), w=floats(RNG, 6, 9)
    ),
    "Gemm": _product(
        "float[N,6] x => float[N,9] y",
        "[layer] y = Gemm<transB=1>(x, w, b)",
        floats(RNG, 4, 6),
        w=floats(RNG, 9, 6),
        b=floats(RNG, 9),
    ),
    "Gemm, both transposed": _product(
        "float[6,N] x => float[N,9] y",
        "[layer] y = Gemm<transA=1, alpha=0.5>(x, w, b)",
        floats(RNG, 6, 4),
        w=floats(RNG, 6, 9),
        b=floats(RNG, 9),
    ),
    "Gather": Case(
        graph("int64[N,T] x => float[N,T,8] y", "[layer] y = Gather(w, x)", w=floats(RNG, 40, 8)), {"x": IDS}
    ),
    "LSTM": _product(
        "float[T,N,6] x => float[T,D,N,4] y",
        '[layer] y = LSTM<hidden_size=4, direction="bidirectional">(x, w, r)',
        floats(RNG, 5, 2, 6),
        w=floats(RNG, 2, 16, 6),
        r=floats(RNG, 2, 16, 4),
    ),
    "GRU": _product(
        "float[T,N,6] x => float[T,D,N,4] y",
        "[layer] y = GRU<hidden_size=4>(x, w, r)",
        floats(RNG, 5, 2, 6),
        w=floats(RNG, 1, 12, 6),
        r=floats(RNG, 1, 12, 4),
    ),
}

CONVOLUTIONS = {
    "plain": _conv("group=1", 8, 6, 3, 3),
    "padded": _conv("pads=[1,2,0,1]", 8, 6, 3, 3),
    "strided": _conv("pads=[1,1,1,1], strides=[2,3]", 8, 6, 3, 3),
    "dilated": _conv("dilations=[2,1], pads=[2,0,1,1]", 8, 6, 3, 2),
    "same": _conv('auto_pad="SAME_UPPER", strides=[2,2]', 8, 6, 3, 3),
    "same below": _conv('auto_pad="SAME_LOWER", strides=[1,2]', 8, 6, 2, 4),
    "oblong": _conv("pads=[0,2,0,2]", 8, 6, 1, 5),
    "one by one": _conv("strides=[2,1]", 8, 6, 1, 1),
    "grouped": _conv("group=2, pads=[1,1,1,1], strides=[2,1]", 8, 3, 3, 3),
}
FORMS = ("svd", "channel", "spatial", "tucker2", "cp")


def _every_way(case: Case, folder: Path) -> tuple[Model, list[Factors]]:
    """With ranks in ones, up to the full one."""
    model = load(case.proto, folder)
    weight = next(model.weights())
    many = Sizes(10**12, 10**12, 10**12)
    return model, list(ways_of(weight, FORMS, many, {}, Ranks(1)))


def _with(model: Model, way: Factors) -> Model:
    copy = model.copy()
    insert(next(copy.weights()), way)
    settle(copy.ir)
    return copy


@pytest.mark.parametrize("name", [*PRODUCTS, *CONVOLUTIONS])
def test_what_the_factors_make_is_what_their_product_makes(name: str, tmp_path: Path) -> None:
    case = (PRODUCTS | CONVOLUTIONS)[name]
    model, ways = _every_way(case, tmp_path)
    assert ways
    for form in {way.form for way in ways}:
        for way in [way for way in ways if way.form == form][::3]:
            whole = model.copy()
            next(whole.weights()).store(way.make().matrix)
            expected = outputs(whole, case.feeds, tmp_path)["y"]
            found = outputs(_with(model, way), case.feeds, tmp_path)["y"]
            np.testing.assert_allclose(found, expected, rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_the_layers_are_valid_and_the_last_keeps_the_name(name: str, tmp_path: Path) -> None:
    model, ways = _every_way(CONVOLUTIONS[name], tmp_path)
    for way in {way.form: way for way in ways}.values():
        file = tmp_path / "written.onnx"
        _with(model, way).save(file)
        onnx.checker.check_model(str(file), full_check=True)
        names = [node.name for node in onnx.load(file).graph.node]
        assert names[-1] == "layer"
        assert names[0] == "layer_first"
        assert len(names) == len(way.make().parts)


@pytest.mark.parametrize("name", [*CONVOLUTIONS, "MatMul", "Gemm", "LSTM"])
def test_the_costs_counted_are_those_that_are_run(name: str, tmp_path: Path) -> None:
    case = (PRODUCTS | CONVOLUTIONS)[name]
    model = load(case.proto, tmp_path)
    weight = next(model.weights())
    shapes = observe_shapes(model, case.feeds, tmp_path)
    hidden = count_macs(model, case.feeds, tmp_path)["layer"] if name == "LSTM" else 0
    sizes = sizes_of(weight, shapes)
    if name == "LSTM":
        hidden -= weight.size * sizes.made
    for way in {way.form: way for way in ways_of(weight, FORMS, sizes, {}, Ranks(1))}.values():
        counted = sum(count_macs(_with(model, way), case.feeds, tmp_path).values())
        assert way.macs == counted - hidden
        assert way.parameters == sum(part.size for part in way.make().parts)


@pytest.mark.parametrize(
    ("signature", "body", "arrays", "said"),
    [
        ("float[N,6,8,8] x => float[N,6,H,W] y", "y = Conv<group=6>(x, w)", {"w": (6, 1, 3, 3)}, "depthwise"),
        ("float[6,N] x => float[9,N] y", "y = MatMul(w, x)", {"w": (9, 6)}, "not one matrix on the right"),
        ("float[2,N,6] x => float[2,N,9] y", "y = MatMul(x, w)", {"w": (2, 6, 9)}, "not one matrix on the right"),
        ("int64[N] x => float[9,N] y", "y = Gather<axis=1>(w, x)", {"w": (9, 6)}, "another axis"),
        (
            "float[N,6] x => float[N,9] y, float[9,6] z",
            "y = MatMul(x, w) z = Transpose(w)",
            {"w": (6, 9)},
            "read by something that is no layer",
        ),
    ],
    ids=["depthwise", "left", "batched", "axis", "tied"],
)
def test_what_cannot_become_several_says_why(
    signature: str, body: str, arrays: dict[str, tuple[int, ...]], said: str, tmp_path: Path
) -> None:
    made = {name: floats(RNG, *shape) for name, shape in arrays.items()}
    (weight,) = load(graph(signature, body, **made), tmp_path).weights()
    assert said in (factor_refusal(weight) or "")
