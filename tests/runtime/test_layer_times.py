"""Layers are timed alone, at sizes they do not have yet, once for each."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from compressor.graph.cost import alone, costed_layers
from compressor.graph.model import Model
from compressor.runtime.layer_times import LayerTimes
from compressor.runtime.shapes import observe_shapes
from tests.models import Array, cnn, floats, graph, load, mlp


def _sized(model: Model, feeds: dict[str, Array], folder: Path) -> dict[str, tuple[int, ...]]:
    constants = {
        v.name or "": tuple(v.const_value.shape.numpy())
        for v in model.ir.graph.initializers.values()
        if v.const_value is not None
    }
    return observe_shapes(model, feeds, folder) | constants


@pytest.mark.parametrize("kind", ["cnn", "mlp"])
def test_a_layer_alone_is_a_valid_model_of_its_work(tmp_path: Path, kind: str, rng: np.random.Generator) -> None:
    proto, shape = (cnn(rng), (1, 3, 8, 8)) if kind == "cnn" else (mlp(rng), (1, 8))
    model = load(proto, tmp_path)
    shapes = _sized(model, {"x": floats(rng, *shape)}, tmp_path)
    for layer in costed_layers(model):
        single = alone(layer, shapes)
        assert single is not None
        single.save(tmp_path / "single.onnx")
        onnx.checker.check_model(str(tmp_path / "single.onnx"), full_check=True)
        assert [found.layer for found in costed_layers(single)] == [layer.layer]


def test_groups_follow_the_sizes(tmp_path: Path, rng: np.random.Generator) -> None:
    body = "[deep] y = Conv<group=8, pads=[1,1,1,1]>(x, w)"
    model = load(graph("float[1,8,6,6] x => float[1,8,6,6] y", body, w=floats(rng, 8, 1, 3, 3)), tmp_path)
    (layer,) = costed_layers(model)
    shapes = {"x": (1, 4, 6, 6), "w": (4, 1, 3, 3), "y": (1, 4, 6, 6)}
    assert (LayerTimes(tmp_path, 1).milliseconds(layer, shapes) or 0) > 0


def test_the_same_layer_at_the_same_size_is_timed_once(tmp_path: Path, rng: np.random.Generator) -> None:
    model = load(mlp(rng), tmp_path)
    shapes = _sized(model, {"x": floats(rng, 1, 8)}, tmp_path)
    times = LayerTimes(tmp_path, 1)
    for layer in costed_layers(model):
        assert times.milliseconds(layer, shapes) == times.milliseconds(layer, shapes)


def test_recurrent_layers_cannot_be_taken_out(tmp_path: Path, rng: np.random.Generator) -> None:
    body = "[rnn] h, y = LSTM<hidden_size=3>(x, w, r)"
    proto = graph("float[4,1,5] x => float[1,1,3] y", body, w=floats(rng, 1, 12, 5), r=floats(rng, 1, 12, 3))
    model = load(proto, tmp_path)
    (layer,) = costed_layers(model)
    shapes = _sized(model, {"x": floats(rng, 4, 1, 5)}, tmp_path)
    assert LayerTimes(tmp_path, 1).milliseconds(layer, shapes) is None
