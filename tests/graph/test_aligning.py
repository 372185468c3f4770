"""Another model under the names of a reference: it computes what it did."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from compressor.errors import ModelError
from compressor.graph.aligning import align
from tests.models import floats, load, mlp, outputs

RNG = np.random.default_rng(0)
X = floats(RNG, 4, 8)


def _renamed(names: dict[str, str]) -> onnx.ModelProto:
    proto = mlp(np.random.default_rng(2))
    for node in proto.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        value.name = names.get(value.name, value.name)
    return proto


def test_names_at_the_same_place_are_changed_and_nothing_else(tmp_path: Path) -> None:
    reference = load(mlp(np.random.default_rng(1)), tmp_path)
    fed, made = reference.inputs()[0].name, reference.outputs()[0].name
    other = load(_renamed({fed: "images", made: "scores"}), tmp_path, "other.onnx")
    before = outputs(other, {"images": X}, tmp_path)["scores"]
    align(other, reference, {}, strict=True)
    assert (other.inputs(), other.outputs()) == (reference.inputs(), reference.outputs())
    np.testing.assert_array_equal(outputs(other, {fed: X}, tmp_path)[made], before)


def test_a_name_that_something_inside_has_already_is_freed(tmp_path: Path) -> None:
    reference = load(mlp(np.random.default_rng(1)), tmp_path)
    fed, made = reference.inputs()[0].name, reference.outputs()[0].name
    inside = _renamed({}).graph.node[0].output[0]
    other = load(_renamed({made: "scores", inside: made}), tmp_path, "other.onnx")
    before = outputs(other, {fed: X}, tmp_path)["scores"]
    align(other, reference, {}, strict=True)
    np.testing.assert_array_equal(outputs(other, {fed: X}, tmp_path)[made], before)


def test_one_output_of_several_is_found_by_what_is_said(tmp_path: Path) -> None:
    reference = load(mlp(np.random.default_rng(1)), tmp_path)
    fed, made = reference.inputs()[0].name, reference.outputs()[0].name
    proto = _renamed({made: "scores"})
    proto.graph.node.append(onnx.helper.make_node("Neg", ["scores"], ["minus"]))
    proto.graph.output.append(onnx.helper.make_tensor_value_info("minus", 1, None))
    for mapping, sign in (({made: "scores"}, 1), ({made: "minus"}, -1)):
        other = load(proto, tmp_path, "other.onnx")
        before = outputs(other, {fed: X}, tmp_path)["scores"]
        align(other, reference, mapping, strict=False)
        np.testing.assert_array_equal(outputs(other, {fed: X}, tmp_path)[made], sign * before)
    other = load(proto, tmp_path, "other.onnx")
    with pytest.raises(ModelError, match="say in outputs"):
        align(other, reference, {}, strict=False)


def test_other_sizes_are_refused(tmp_path: Path) -> None:
    reference = load(mlp(np.random.default_rng(1)), tmp_path)
    for proto in (mlp(np.random.default_rng(1), inputs=9), mlp(np.random.default_rng(1), classes=5)):
        with pytest.raises(ModelError, match="cannot stand for"):
            align(load(proto, tmp_path, "other.onnx"), reference, {}, strict=True)
