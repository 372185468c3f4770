"""What goes in comes out: loading and saving do not change what a model computes."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compressor.errors import OutputError
from compressor.graph import model as module
from compressor.graph.model import Model, TensorSpec
from tests.models import cnn, floats, graph, load, mlp, outputs, run, write

RNG = np.random.default_rng(1)
W = floats(RNG, 4, 4)
X = {"x": floats(RNG, 2, 4)}


def _constant_nodes() -> onnx.ModelProto:
    values = ", ".join(map(str, range(16)))
    return graph(
        "float[N,4] x => float[N,4] y",
        f"""w = Constant<value = float[4,4] {{{values}}}>()  s = Constant<value_float = 0.5>()
        h = MatMul(x, w)  y = Mul(h, s)""",
    )


def _initializer_is_input() -> onnx.ModelProto:
    return graph("float[2,4] x, float[4,4] w => float[2,4] y", "y = MatMul(x, w)", opset=8, ir_version=3, w=W)


def _branches() -> onnx.ModelProto:
    proto = graph(
        "float[2,4] x => float[2,4] y",
        """s = ReduceSum<keepdims=0>(x)  z = Constant<value_float = 0.0>()  c = Greater(s, z)
        y = If(c) <then_branch = t () => (float[2,4] a) { a = MatMul(x, w) },
                   else_branch = e () => (float[2,4] b) { d = MatMul(x, v)  b = Relu(d) }>""",
    )
    for attribute, name, weight in zip(proto.graph.node[-1].attribute, "wv", (W, -2 * W), strict=True):
        attribute.g.initializer.append(numpy_helper.from_array(weight, name))
    return proto


def _loop() -> onnx.ModelProto:
    return graph(
        "float[2,4] x => float[2,4] y",
        """y = Loop(n, go, x) <body = b (int64 i, bool more, float[2,4] state) => (bool again, float[2,4] next)
        { again = Identity(more)  h = MatMul(state, w)  next = Tanh(h) }>""",
        n=np.array(3),
        go=np.array(True),
        w=W,
    )


def _shared() -> onnx.ModelProto:
    return graph("float[2,4] x => float[2,4] y", "h = MatMul(x, w)  r = Relu(h)  y = MatMul(r, w)", w=W)


def _functions() -> onnx.ModelProto:
    proto = graph(
        "float[2,4] x => float[2,4] y", "h = mine.scaled<by=3.0>(x)  y = MatMul(h, w)", domains=("mine",), w=W
    )
    body = [
        helper.make_node("Constant", [], ["k"]),
        helper.make_node("Mul", ["a", "k"], ["b"]),
    ]
    by = onnx.AttributeProto(name="value_float", ref_attr_name="by", type=onnx.AttributeProto.FLOAT)
    body[0].attribute.append(by)
    opset = [helper.make_opsetid("", 21)]
    proto.functions.append(helper.make_function("mine", "scaled", ["a"], ["b"], body, opset, ["by"]))
    return proto


def _microsoft() -> onnx.ModelProto:
    body = "h = MatMul(x, w)  y = com.microsoft.Gelu(h)"
    return graph("float[2,4] x => float[2,4] y", body, domains=("com.microsoft",), w=W)


def _classical() -> onnx.ModelProto:
    body = "h = MatMul(x, w)  y = ai.onnx.ml.Scaler<offset=[1.0,2.0,3.0,4.0], scale=[2.0,2.0,0.5,1.0]>(h)"
    return graph("float[2,4] x => float[2,4] y", body, domains=("ai.onnx.ml",), opset=15, w=W)


def _half() -> onnx.ModelProto:
    body = "h = Cast<to=10>(x)  m = MatMul(h, w)  y = Cast<to=1>(m)"
    return graph("float[2,4] x => float[2,4] y", body, w=W.astype(np.float16))


def _no_inputs_used_twice() -> onnx.ModelProto:
    return graph("float[2,4] x => float[2,4] y, float[2,4] x2, float[4,4] w", "y = MatMul(x, w)  x2 = Identity(x)", w=W)


MAKERS = [
    _constant_nodes,
    _initializer_is_input,
    _branches,
    _loop,
    _shared,
    _functions,
    _microsoft,
    _classical,
    _half,
    _no_inputs_used_twice,
]


@pytest.mark.parametrize("make", MAKERS)
def test_a_loaded_and_saved_model_computes_the_same(make: Callable[[], onnx.ModelProto], tmp_path: Path) -> None:
    proto = make()
    model = load(proto, tmp_path)
    for sign in (1, -1):
        feeds = {"x": sign * X["x"]}
        expected, found = run(proto, feeds), outputs(model, feeds, tmp_path)
        assert list(found) == list(expected)
        for name, values in expected.items():
            np.testing.assert_array_equal(found[name], values)
    onnx.checker.check_model(str(tmp_path / "written.onnx"), full_check=True)


@pytest.mark.parametrize("make", MAKERS)
def test_constants_are_initializers_functions_are_gone_and_every_node_has_a_name_of_its_own(
    make: Callable[[], onnx.ModelProto], tmp_path: Path
) -> None:
    model = load(make(), tmp_path)
    names = [node.name for g in model.ir.graphs() for node in g]
    assert all(names)
    assert len(names) == len(set(names))
    assert not model.ir.functions
    assert "Constant" not in model.node_counts()
    assert [spec.name for spec in model.inputs()] == ["x"] == [v.name for v in model.ir.graph.inputs]


def test_names_and_dimensions_of_inputs_and_outputs_stay(tmp_path: Path) -> None:
    proto = graph(
        "float[batch,4,w] x, int64[?] i => float[batch,?,?] y", "g = Gather<axis=1>(x, i)  y = Relu(g)", opset=11
    )
    model = load(proto, tmp_path)
    model.save(tmp_path / "again.onnx")
    for each in (model, Model.load(tmp_path / "again.onnx")):
        assert each.inputs() == (
            TensorSpec("x", "float32", ("batch", 4, "w")),
            TensorSpec("i", "int64", (None,)),
        )
        assert [s.name for s in each.outputs()] == ["y"]
        shape = each.outputs()[0].shape
        assert shape is not None
        assert (shape[0], len(shape)) == ("batch", 3)


def test_nodes_without_a_name_get_the_same_ones_at_every_reading_and_keep_clear_of_those_there(tmp_path: Path) -> None:
    body = "a = Relu(x)  [Relu_0] b = Relu(a)  [twice] c = Relu(b)  [twice] d = Relu(c)  y = Abs(d)"
    path = write(graph("float[2] x => float[2] y", body), tmp_path / "model.onnx")
    first, second = ([n.name for n in Model.load(path).ir.graph] for _ in range(2))
    assert first == second
    assert len(set(first)) == 5
    assert first[1:3] == ["Relu_0", "twice"]


def test_nodes_in_another_order_than_they_are_run_in_do_no_harm(tmp_path: Path) -> None:
    """ONNX Runtime sorts them; so must whoever wants to copy the graph."""
    proto = graph("float[2,4] x => float[2,4] y", "h = MatMul(x, w)  r = Relu(h)  y = MatMul(r, w)", w=W)
    proto.graph.node.reverse()
    model = load(proto, tmp_path)
    np.testing.assert_array_equal(outputs(model.copy(), X, tmp_path)["y"], run(proto, X)["y"])


def test_parameters_zeros_and_bytes_are_those_counted_by_hand(tmp_path: Path) -> None:
    weight = np.array([[1, 0, 2], [0, 0, 3]], np.float32)
    body = "h = MatMul(x, w)  y = Reshape(h, s)"
    model = load(graph("float[4,2] x => float[12] y", body, w=weight, s=np.array([12])), tmp_path)
    assert (model.parameters(), model.zeros(), model.nbytes()) == (6, 3, 6 * 4 + 8)


def _external(folder: Path, location: str = "weights.bin") -> tuple[onnx.ModelProto, Path]:
    proto = graph("float[2,4] x => float[2,4] y", "y = MatMul(x, w)", w=W)
    stored = proto.graph.initializer[0]
    (folder / "weights.bin").write_bytes(b"\0" * 64 + stored.raw_data)
    stored.ClearField("raw_data")
    stored.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "64"), ("length", "64")):
        stored.external_data.add(key=key, value=value)
    return proto, write(proto, folder / "model.onnx")


def test_external_data_is_found_beside_the_model_and_goes_along_when_saved_elsewhere(tmp_path: Path) -> None:
    _, path = _external(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    model = Model.load(path)
    model.save(other / "model.onnx")
    (tmp_path / "weights.bin").unlink()
    np.testing.assert_allclose(run(other / "model.onnx", X)["y"], X["x"] @ W, rtol=1e-5, atol=1e-6)


def test_size_on_disk_includes_external_data(tmp_path: Path) -> None:
    _, path = _external(tmp_path)
    assert Model.read(path).source_bytes == path.stat().st_size + 128


def test_many_arrays_go_into_a_file_beside_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EXTERNAL_DATA_BYTES", 0)
    proto = graph("float[2,64] x => float[2,64] y", "y = MatMul(x, w)", w=floats(RNG, 64, 64))
    feeds = {"x": floats(RNG, 2, 64)}
    np.testing.assert_array_equal(outputs(load(proto, tmp_path), feeds, tmp_path)["y"], run(proto, feeds)["y"])
    assert (tmp_path / "written.onnx.data").stat().st_size >= 64 * 64 * 4
    assert (tmp_path / "written.onnx").stat().st_size < 64 * 64 * 4


def test_a_model_may_be_saved_over_the_file_it_was_loaded_from(tmp_path: Path) -> None:
    _, path = _external(tmp_path)
    Model.load(path).save(path)
    np.testing.assert_allclose(run(path, X)["y"], X["x"] @ W, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("call", ["replace", "fsync"])
@pytest.mark.parametrize("limit", [0, 10**9], ids=["external", "inline"])
def test_when_writing_fails_the_old_model_still_works_and_nothing_is_left_behind(
    call: str, limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EXTERNAL_DATA_BYTES", limit)
    old, new = (load(mlp(np.random.default_rng(i), 64, 64), tmp_path) for i in (0, 1))
    target = tmp_path / "out" / "target.onnx"
    target.parent.mkdir()
    old.save(target)
    feeds = {"x": floats(RNG, 2, 64)}
    before, files = run(target, feeds)["y"], sorted(target.parent.iterdir())
    _fail_on_model(monkeypatch, call)
    with pytest.raises(OutputError, match=r"target.onnx: cannot be written: No space left"):
        new.save(target)
    assert sorted(target.parent.iterdir()) == files
    np.testing.assert_array_equal(run(target, feeds)["y"], before)


def _fail_on_model(monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """Let os.<call> fail, as on a full disk, when it comes to the model file itself."""
    original = getattr(os, call)

    def failing(subject: Path | int, *others: Path) -> object:
        file = Path(f"/proc/self/fd/{subject}").readlink() if isinstance(subject, int) else Path(subject)
        if file.name == "target.onnx":
            raise OSError(28, "No space left on device")
        return original(subject, *others)

    monkeypatch.setattr(os, call, failing)


def test_a_folder_that_is_not_there_is_one_line_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"nowhere/model.onnx: cannot be written: No such file or directory$"):
        load(mlp(RNG), tmp_path).save(tmp_path / "nowhere" / "model.onnx")


def test_a_copy_shares_arrays_and_editing_it_leaves_the_first_alone(tmp_path: Path) -> None:
    model = load(cnn(RNG), tmp_path)
    copy = model.copy()
    before = [w.matrix().copy() for w in model.weights()]
    for weight in copy.weights():
        weight.store(weight.matrix() * np.float32(2))
    copy.ir.graph.remove(copy.ir.graph[-1])
    assert all(np.array_equal(w.matrix(), b) for w, b in zip(model.weights(), before, strict=True))
    assert len(model.ir.graph) == len(copy.ir.graph) + 1


def test_metadata_is_kept_in_the_file(tmp_path: Path) -> None:
    proto = mlp(RNG)
    proto.producer_name, proto.producer_version = "tests", "7"
    model = load(proto, tmp_path)
    model.set_metadata("receipt", "yes")
    model.save(tmp_path / "again.onnx")
    again = Model.load(tmp_path / "again.onnx")
    assert dict(again.metadata) == {"receipt": "yes"}
    assert again.producer == "tests 7"
