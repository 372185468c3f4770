"""A model run in stages gives what it gives at once, though layers change on the way."""

from pathlib import Path

import numpy as np
import pytest

from compressor.calibration.staged import Staged
from compressor.data import ArraysSource
from compressor.graph.model import Model
from compressor.graph.observe import frontier
from tests.models import Floats, floats, graph, load, run


def _deep(rng: np.random.Generator, folder: Path, layers: int = 12) -> Model:
    """A chain with shortcuts from one layer to the next but one."""
    body = "".join(
        f"[l{i}] m{i} = MatMul(h{i}, w{i})  a{i} = Add(m{i}, h{max(i - 1, 0)})  h{i + 1} = Relu(a{i})  "
        for i in range(layers)
    )
    arrays = {f"w{i}": floats(rng, 4, 4) / 2 for i in range(layers)}
    text = f"h0 = Identity(x)  {body} y = Identity(h{layers})"
    return load(graph("float[N,4] x => float[N,4] y", text, **arrays), folder)


def _staged(folder: Path, model: Model, x: Floats) -> Staged:
    np.savez(folder / "x.npz", x=x)
    data = ArraysSource(path=folder / "x.npz", inputs={"x": "x"}, batch=3).open(model, "data", 0)
    (folder / "kept").mkdir()
    return Staged(data, folder / "kept", 1)


def test_every_stage_sees_the_layers_as_they_are_by_then(tmp_path: Path, rng: np.random.Generator) -> None:
    model, x = _deep(rng, tmp_path), floats(rng, 8, 4)
    staged, weights = _staged(tmp_path, model, x), list(model.weights())
    for number, weight in enumerate(weights):
        found = np.concatenate([batch[f"h{number}"] for batch in staged.run(model, [f"h{number}"], [f"h{number}"])])
        with_output = model.copy()
        with_output.save(tmp_path / "whole.onnx")
        expected = _tensor(tmp_path / "whole.onnx", f"h{number}", x)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
        weight.store(weight.matrix() * np.float32(1.1))


@pytest.mark.parametrize(("known", "needed"), [("h1", {"h0", "h1"}), ("h0", {"h0"}), ("h12", {"h12"})])
def test_what_is_needed_from_here_on_is_what_lies_across_the_cut(
    tmp_path: Path, known: str, needed: set[str], rng: np.random.Generator
) -> None:
    assert set(frontier(_deep(rng, tmp_path), [known])) == needed


def test_what_branches_take_from_around_them_is_needed(tmp_path: Path, rng: np.random.Generator) -> None:
    body = """a = Relu(x)  b = MatMul(a, w)  c = Sigmoid(b)
    y = If(flag) <then_branch = t () => (p) { p = Add(c, a) }, else_branch = e () => (p) { p = Neg(c) }>"""
    proto = graph("float[2,4] x, bool flag => float[2,4] y", body, w=floats(rng, 4, 4))
    assert set(frontier(load(proto, tmp_path), ["b"])) == {"a", "b", "flag"}


def _tensor(file: Path, name: str, x: Floats) -> Floats:
    import onnx

    proto = onnx.load(file)
    proto.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    found: Floats = run(proto, {"x": x})[name]
    return found
