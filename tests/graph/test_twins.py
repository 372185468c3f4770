"""The same layer in two models, found again after passes have renamed, folded and quantized."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from compressor.data import RandomSource
from compressor.graph.model import Model
from compressor.graph.simplify import simplify
from compressor.graph.twins import Twins, find_twins
from compressor.graph.weights import Weight
from compressor.passes import Context, Pass, QuantizeDynamic, QuantizeStatic
from compressor.progress import Silent
from tests.cli import tiny
from tests.models import floats, graph, load, mlp

RNG = np.random.default_rng(3)


def _weight(model: Model, name: str) -> Weight:
    (found,) = (weight for weight in model.weights() if weight.name == name)
    return found


def _passed(proto: onnx.ModelProto, folder: Path, *steps: Pass) -> tuple[Model, Model]:
    """The original, and what passes made of it."""
    original = load(proto, folder)
    model = original.copy()
    context = Context(original, RandomSource(samples=4).open(model, "data", 0), 0, folder, Silent(), 1)
    for step in steps:
        list(step.apply(model, context))
    return original, model


NORMALIZED = graph(
    "float[N,3,8,8] x => float[N,4,6,6] y",
    "[layer] c = Conv(x, w) n = BatchNormalization(c, g, b, m, s) y = Relu(n)",
    w=floats(RNG, 4, 3, 3, 3),
    **{name: np.abs(floats(RNG, 4)) + 0.5 for name in "gbms"},
)
BIASED = graph(
    "float[N,4] x => float[N,3] y",
    "[layer] p = MatMul(x, w) a = Add(b, p) y = Relu(a)",
    w=floats(RNG, 4, 3),
    b=floats(RNG, 3),
)


@pytest.mark.parametrize(
    ("proto", "expected", "axis"), [(NORMALIZED, "n", -3), (BIASED, "a", -1)], ids=["batch normalization", "bias"]
)
def test_what_was_folded_into_a_layer_counts_as_the_layer(
    tmp_path: Path, proto: onnx.ModelProto, expected: str, axis: int
) -> None:
    original, model = _passed(proto, tmp_path)
    list(simplify(model))
    list(QuantizeStatic().apply(model, _context(original, tmp_path)))
    twins = find_twins(_weight(original, "layer"), model)
    assert isinstance(twins, Twins)
    assert (twins.expected, twins.axis, twins.channels) == (expected, axis, 4 if proto is NORMALIZED else 3)
    assert twins.found in {output.name for node in model.ir.graph for output in node.outputs}


def _context(original: Model, folder: Path) -> Context:
    return Context(original, RandomSource(samples=4).open(original, "data", 0), 0, folder, Silent(), 1)


@pytest.mark.parametrize("step", [QuantizeDynamic(), QuantizeStatic()], ids=["dynamic", "static"])
def test_layers_are_found_by_name_also_where_they_are_outputs(tmp_path: Path, step: Pass) -> None:
    original, model = _passed(mlp(RNG), tmp_path, step)
    for name, expected in (("first", "h"), ("second", "y")):
        twins = find_twins(_weight(original, name), model)
        assert isinstance(twins, Twins)
        assert (twins.layer, twins.layer_type, twins.expected, twins.axis) == (name, "Gemm", expected, -1)
        (node,) = (node for node in model.ir.graph if node.name == name)
        assert twins.found == node.outputs[0].name


def test_what_stands_behind_a_layer_still_is_not_taken_for_the_layer(tmp_path: Path) -> None:
    original, model = _passed(BIASED, tmp_path, QuantizeDynamic())
    twins = find_twins(_weight(original, "layer"), model)
    assert isinstance(twins, Twins)
    assert twins.expected == "p"


def test_a_layer_with_the_same_weights_has_nothing_to_be_compared_for(tmp_path: Path) -> None:
    original, model = _passed(mlp(RNG), tmp_path)
    assert find_twins(_weight(original, "first"), model) == "its weights are as they were"


def test_a_layer_with_other_float_weights_has(tmp_path: Path) -> None:
    original, model = _passed(mlp(RNG), tmp_path)
    weight = _weight(model, "first")
    weight.store(np.round(weight.matrix()))
    assert isinstance(find_twins(_weight(original, "first"), model), Twins)


def test_a_layer_that_is_gone_is_said_to_be(tmp_path: Path) -> None:
    original, model = _passed(mlp(RNG), tmp_path)
    model.ir.graph[0].name = "other"
    found = find_twins(_weight(original, "first"), model)
    assert isinstance(found, str)
    assert "no layer of this name" in found


@pytest.mark.parametrize(
    ("layer", "says"),
    [("embedding", "Gather"), ("lstm.W", "LSTM"), ("twice_a", "shared"), ("inside", "branch of If")],
)
def test_layers_without_a_bias_of_their_own_are_refused(tmp_path: Path, layer: str, says: str) -> None:
    model = Model.load(tiny.mixed(tmp_path / "model.onnx"))
    found = find_twins(_weight(model, layer), model)
    assert isinstance(found, str)
    assert says in found


def test_a_batch_of_matrices_has_no_bias_per_output_channel(tmp_path: Path) -> None:
    proto = graph("float[2,5,4] x => float[2,5,3] y", "[layer] y = MatMul(x, w)", w=floats(RNG, 2, 4, 3))
    model = load(proto, tmp_path)
    assert "no bias per output channel" in str(find_twins(_weight(model, "layer"), model))
