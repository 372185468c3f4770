"""A file that cannot be used is refused in one line that names it."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import SparseTensorProto, TensorProto, helper

from compressor.errors import ModelError
from compressor.graph.model import Model
from tests.models import floats, graph, mlp, write

RNG = np.random.default_rng(0)


def _text(path: Path) -> None:
    path.write_text("not a model\n" * 20)


def _truncated(path: Path) -> None:
    data = mlp(RNG).SerializeToString()
    path.write_bytes(data[: len(data) // 2])


def _zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.txt", "x")


def _torchscript(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/code/__torch__.py", "x")


def _opset(version: int) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        write(graph("float[2] x => float[2] y", "y = Relu(x)", opset=version), path)

    return make


def _no_opset(path: Path) -> None:
    proto = graph("float[2] x => float[2] y", "y = Relu(x)")
    del proto.opset_import[:]
    write(proto, path)


def _sparse_tensor() -> SparseTensorProto:
    values = helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0])
    return helper.make_sparse_tensor(values, helper.make_tensor("i", TensorProto.INT64, [1], [2]), [1, 4])


def _sparse(path: Path) -> None:
    proto = graph("float[1,4] x => float[1,4] y", "y = Add(x, w)")
    proto.graph.sparse_initializer.append(_sparse_tensor())
    write(proto, path)


def _sparse_in_a_branch(path: Path) -> None:
    body = """y = If(c) <then_branch = t () => (float[1,4] a) { a = Add(x, w) },
        else_branch = e () => (float[1,4] b) { b = Neg(x) }>"""
    proto = graph("float[1,4] x, bool c => float[1,4] y", body)
    branches = {attribute.name: attribute.g for attribute in proto.graph.node[0].attribute}
    branches["then_branch"].sparse_initializer.append(_sparse_tensor())
    write(proto, path)


def _no_nodes(path: Path) -> None:
    write(graph("float[2] x => float[2] x", ""), path)


def _unknown_type(path: Path) -> None:
    proto = graph("float[2] x => float[2] y", "y = Add(x, w)", w=floats(RNG, 2))
    proto.graph.initializer[0].data_type = 999
    write(proto, path)


def _shape_and_bytes_differ(path: Path) -> None:
    proto = graph("float[2] x => float[2] y", "y = Add(x, w)", w=floats(RNG, 2))
    proto.graph.initializer[0].dims[0] = 7
    write(proto, path)


def _random_bytes(path: Path) -> None:
    path.write_bytes(RNG.bytes(500))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "no such file"),
        (Path.mkdir, "is a folder"),
        (Path.touch, "the file is empty"),
        (_text, "not an ONNX model"),
        (_random_bytes, "not an ONNX model"),
        (_truncated, "cut short"),
        (_zip, "zip archive"),
        (_torchscript, "TorchScript"),
        (_opset(99), "opset 99"),
        (_opset(6), "opset 6"),
        (_no_opset, "opset"),
        (_sparse, "w is a sparse initializer"),
        (_sparse_in_a_branch, "w is a sparse initializer"),
        (_no_nodes, "no nodes"),
        (_unknown_type, ""),
        (_shape_and_bytes_differ, ""),
    ],
)
def test_what_is_no_usable_model_is_refused_in_one_line(
    make: Callable[[Path], None], reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    make(path)
    with pytest.raises(ModelError) as refused:
        Model.load(path).nbytes()
    message = str(refused.value)
    assert message.startswith(f"{path}: ")
    assert reason in message
    assert "\n" not in message


def _with_external(folder: Path, location: str, length: int = 64) -> Path:
    proto = graph("float[2,4] x => float[2,4] y", "y = MatMul(x, w)", w=floats(RNG, 4, 4))
    stored = proto.graph.initializer[0]
    stored.ClearField("raw_data")
    stored.data_location = TensorProto.EXTERNAL
    stored.external_data.add(key="location", value=location)
    stored.external_data.add(key="length", value=str(length))
    return write(proto, folder / "model.onnx")


@pytest.mark.parametrize("location", ["../secret.bin", "{outside}/secret.bin", "link.bin"])
def test_external_data_outside_the_folder_is_refused(location: str, tmp_path: Path) -> None:
    (tmp_path / "secret.bin").write_bytes(bytes(64))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    path = _with_external(folder, location.format(outside=tmp_path))
    with pytest.raises(ModelError, match=r"model.onnx: w: external data .* lies outside the model's folder$"):
        Model.load(path)


def test_external_data_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"model.onnx: w: external data gone.bin is missing"):
        Model.load(_with_external(tmp_path, "gone.bin"))


@pytest.mark.parametrize("stored", [0, 1, 63])
def test_external_data_that_is_cut_short_is_refused(stored: int, tmp_path: Path) -> None:
    (tmp_path / "short.bin").write_bytes(bytes(stored))
    with pytest.raises(ModelError, match=rf"w: external data short.bin is cut short: {stored} bytes, 64 needed$"):
        Model.load(_with_external(tmp_path, "short.bin"))


def test_external_data_of_a_weight_inside_a_branch_is_checked_too(tmp_path: Path) -> None:
    proto = graph(
        "float[4] x, bool c => float[4] y",
        """y = If(c) <then_branch = t () => (float[4] a) { a = Relu(x) },
                     else_branch = e () => (float[4] b) { b = Add(x, w) }>""",
    )
    stored = TensorProto(name="w", dims=[4], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    stored.external_data.add(key="location", value="gone.bin")
    proto.graph.node[0].attribute[1].g.initializer.append(stored)
    with pytest.raises(ModelError, match=r"w: external data gone.bin is missing"):
        Model.load(write(proto, tmp_path / "model.onnx"))


def test_external_data_of_a_constant_node_is_checked_too(tmp_path: Path) -> None:
    proto = graph("float[4] x => float[4] y", "w = Constant<value = float[4] {1,2,3,4}>()  y = Add(x, w)")
    stored = proto.graph.node[0].attribute[0].t
    stored.ClearField("float_data")
    stored.data_location = TensorProto.EXTERNAL
    stored.external_data.add(key="location", value="/etc/hostname")
    with pytest.raises(ModelError):
        Model.load(write(proto, tmp_path / "model.onnx"))


def test_an_old_opset_that_cannot_be_raised_says_so(tmp_path: Path) -> None:
    proto = graph("float[2,3] x => float[2,3] y", "y = Relu(x)", opset=9)
    proto.graph.node.append(onnx.helper.make_node("NoSuchOperator", ["x"], ["z"]))
    with pytest.raises(ModelError, match=r"model.onnx: .*") as refused:
        Model.load(write(proto, tmp_path / "model.onnx"))
    assert "\n" not in str(refused.value)
