"""A model that cannot be used: exit 3, the file named, nothing written."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.cli import tiny
from tests.cli.calling import done, refused, write_recipe


def _truncated(path: Path) -> None:
    whole = tiny.cnn(path).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def _text(path: Path) -> None:
    path.write_text("this is no model\n" * 20)


def _empty(path: Path) -> None:
    path.touch()


def _unknown_opset(path: Path) -> None:
    tiny.mlp(path)
    model = onnx.load(path)
    model.opset_import[0].version = 99
    onnx.save(model, path)


def _ancient_opset(path: Path) -> None:
    tiny.mlp(path)
    model = onnx.load(path)
    model.opset_import[0].version = 3
    onnx.save(model, path)


def _unknown_op(path: Path) -> None:
    nodes = [helper.make_node("Wobble", ["x"], ["y"], "n")]
    tiny.write(path, nodes, [tiny.value("x", [1])], [tiny.value("y", [1])], {})


def _unknown_domain(path: Path) -> None:
    nodes = [helper.make_node("Wobble", ["x"], ["y"], "n", domain="made.up")]
    tiny.write(path, nodes, [tiny.value("x", [1])], [tiny.value("y", [1])], {}, domains=["made.up"])


UNREADABLE: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated": (_truncated, "model.onnx"),
    "text": (_text, "is not an ONNX model"),
    "zero bytes": (_empty, "0 bytes"),
    "unknown opset": (_unknown_opset, "opset 99"),
    "ancient opset": (_ancient_opset, "opset 3"),
}
COMMANDS: dict[str, tuple[str, ...]] = {
    "run": ("run", "recipe.yaml"),
    "check": ("check", "recipe.yaml"),
    "dry run": ("run", "recipe.yaml", "--dry-run"),
    "compress": ("compress", "model.onnx", "-o", "out.onnx", "--preset", "int8-dynamic"),
    "inspect": ("inspect", "model.onnx"),
    "compare": ("compare", "model.onnx", "model.onnx"),
    "bench": ("bench", "model.onnx"),
    "init": ("init", "model.onnx"),
    "explain": ("explain", "model.onnx"),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", UNREADABLE)
def test_every_command_refuses_an_unreadable_model_in_one_line(tmp_path: Path, kind: str, command: str) -> None:
    make, reason = UNREADABLE[kind]
    make(tmp_path / "model.onnx")
    write_recipe(tmp_path)
    lines = refused(tmp_path, 3, *COMMANDS[command], says=("model.onnx", reason))
    assert len(lines) == 1


@pytest.mark.parametrize("make", [_unknown_op, _unknown_domain])
@pytest.mark.parametrize("command", ["run", "compress", "inspect", "compare", "bench"])
def test_an_unknown_operator_is_named(tmp_path: Path, make: Callable[[Path], None], command: str) -> None:
    make(tmp_path / "model.onnx")
    write_recipe(tmp_path)
    assert len(refused(tmp_path, 3, *COMMANDS[command], says=("model.onnx", "Wobble"))) == 1


@pytest.mark.parametrize("command", ["compress", "inspect", "compare", "bench", "init", "explain"])
def test_a_missing_model_on_the_command_line_is_exit_3(tmp_path: Path, command: str) -> None:
    assert len(refused(tmp_path, 3, *COMMANDS[command], says=("model.onnx", "no such file"))) == 1


@pytest.mark.parametrize("command", ["run", "check", "dry run"])
def test_a_missing_model_in_a_recipe_is_a_recipe_error_with_its_line(tmp_path: Path, command: str) -> None:
    recipe = write_recipe(tmp_path, model="none.onnx")
    refused(tmp_path, 2, *COMMANDS[command], says=(f"{recipe.name}:2:1: model: ", "none.onnx does not exist"))


def test_a_folder_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").mkdir()
    refused(tmp_path, 3, "inspect", "model.onnx", says=("model.onnx", "is a folder"))


@pytest.mark.parametrize(
    ("location", "reason"), [("../weights.bin", "outside the model's folder"), ("weights.bin", "missing")]
)
def test_external_data_must_be_beside_the_model(tmp_path: Path, location: str, reason: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    tiny.mlp(folder / "model.onnx")
    model = onnx.load(folder / "model.onnx")
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    (tmp_path / "weights.bin").write_bytes(bytes(4096))
    refused(folder, 3, "inspect", "model.onnx", says=("w1", location, reason))


def test_an_input_that_is_no_tensor_is_refused(tmp_path: Path) -> None:
    sequence = helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None)
    position = numpy_helper.from_array(np.array(0, np.int64), "i")
    nodes = [helper.make_node("SequenceAt", ["s", "i"], ["y"])]
    graph = helper.make_graph(nodes, "g", [sequence], [tiny.value("y", ["n"])], [position])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "model.onnx")
    refused(tmp_path, 3, "inspect", "model.onnx", says=("s", "only tensors"))


def test_explain_of_a_model_without_receipt_is_exit_3(tmp_path: Path) -> None:
    tiny.mlp(tmp_path / "model.onnx")
    refused(tmp_path, 3, "explain", "model.onnx", says=("model.onnx", "no receipt"))


@pytest.mark.parametrize("command", ["explain", "compare"])
def test_a_receipt_that_is_no_json_is_exit_3(tmp_path: Path, command: str) -> None:
    tiny.mlp(tmp_path / "model.onnx")
    model = onnx.load(tmp_path / "model.onnx")
    model.metadata_props.add(key="compressor.receipt", value="{half")
    onnx.save(model, tmp_path / "model.onnx")
    refused(tmp_path, 3, *COMMANDS[command], says=("model.onnx", "receipt"))


def test_models_with_other_inputs_cannot_be_compared(tmp_path: Path) -> None:
    tiny.mlp(tmp_path / "a.onnx")
    tiny.lookup(tmp_path / "b.onnx")
    refused(tmp_path, 4, "compare", "a.onnx", "b.onnx", says=("inputs changed", "x: float32[batch, 8]", "ids: int64"))


def test_init_works_for_a_model_without_inputs(tmp_path: Path) -> None:
    nodes = [helper.make_node("Identity", ["c"], ["y"], "n")]
    tiny.write(tmp_path / "model.onnx", nodes, [], [tiny.value("y", [4])], {"c": tiny.normal(4)})
    assert "version: 1" in done(tmp_path, "init", "model.onnx", "-o", "-").out
