"""equalize: equal ranges on both sides of every channel, and the same function."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from compressor.data import RandomSource
from compressor.graph.model import Model
from compressor.passes import Context, Equalize, QuantizeStatic
from compressor.progress import Silent
from compressor.report import Change, Finding, Skip
from tests.cli import tiny
from tests.cli.calling import refused, write_recipe
from tests.models import Array, Floats, array, cnn, decibels, floats, graph, load, mlp, outputs, run


def _uneven(rng: np.random.Generator, count: int) -> Floats:
    """From 1 / 8 to 8, in no order."""
    return np.exp2(rng.permutation(np.linspace(-3, 3, count))).astype(np.float32)


def _chain(activation: str = "Relu(a)") -> onnx.ModelProto:
    """Conv, activation, depthwise Conv, Relu, Conv, with uneven ranges; layers first, middle, last."""
    body = f"""[first] a = Conv<pads=[1,1,1,1]>(x, w1, b1) h = {activation}
        [middle] c = Conv<group=8>(h, w2, b2) d = Relu(c) [last] y = Conv(d, w3, b3)"""
    rng = np.random.default_rng(8)
    arrays = {
        "w1": floats(rng, 8, 3, 3, 3) * _uneven(rng, 8).reshape(8, 1, 1, 1),
        "b1": floats(rng, 8),
        "w2": floats(rng, 8, 1, 3, 3) * _uneven(rng, 8).reshape(8, 1, 1, 1),
        "b2": floats(rng, 8),
        "w3": floats(rng, 4, 8, 1, 1),
        "b3": floats(rng, 4),
        "six": array(6),
        "zero": array(0),
    }
    return graph("float[N,3,9,9] x => float[N,4,7,7] y", body, **arrays)


def _feeds(proto: onnx.ModelProto) -> dict[str, Array]:
    shape = [d.dim_value or 16 for d in proto.graph.input[0].type.tensor_type.shape.dim]
    return {"x": floats(np.random.default_rng(1), *shape)}


def _apply(model: Model, folder: Path, **settings: object) -> dict[str, Finding]:
    context = Context(model.copy(), None, 0, folder, Silent(), 1)
    return {f.weight: f for f in Equalize.model_validate({"type": "equalize", **settings}).apply(model, context)}


def _ranges(model: Model, layer: str, axis: int) -> Floats:
    """Largest magnitude of a layer's weights along all axes but one."""
    (weight,) = (w for w in model.weights() if w.name == layer)
    stored = np.abs(weight.value.const_value.numpy())  # type: ignore[union-attr]
    return stored.max(axis=tuple(a for a in range(stored.ndim) if a != axis))  # type: ignore[no-any-return]


@pytest.mark.parametrize("build", [lambda rng: _chain(), mlp, cnn], ids=["depthwise", "mlp", "cnn"])
def test_the_function_stays_the_same(
    tmp_path: Path, rng: np.random.Generator, build: Callable[[np.random.Generator], onnx.ModelProto]
) -> None:
    proto = build(rng)
    model = load(proto, tmp_path)
    findings = _apply(model, tmp_path)
    assert any(isinstance(finding, Change) for finding in findings.values())
    found = outputs(model, _feeds(proto), tmp_path)["y"]
    assert found == pytest.approx(run(proto, _feeds(proto))["y"], rel=1e-4, abs=1e-4)


def test_both_sides_of_every_channel_have_one_range_all_along_a_chain(tmp_path: Path) -> None:
    model = load(_chain(), tmp_path)
    _apply(model, tmp_path)
    made, middle, read = (_ranges(model, name, axis) for name, axis in (("first", 0), ("middle", 0), ("last", 1)))
    assert made == pytest.approx(middle, rel=1e-2)
    assert middle == pytest.approx(read, rel=1e-2)


def test_channels_of_uneven_weights_lose_less_in_int8_with_one_scale(tmp_path: Path) -> None:
    proto = _chain()
    step = QuantizeStatic.model_validate({"type": "quantize_static", "weights": {"granularity": "per_tensor"}})
    found = []
    for equalized in (False, True):
        model = load(proto, tmp_path)
        data = RandomSource(samples=16).open(model, "data", 0)
        context = Context(model.copy(), data, 0, tmp_path, Silent(), 1)
        if equalized:
            _apply(model, tmp_path)
        list(step.apply(model, context))
        found.append(decibels(run(proto, _feeds(proto))["y"], outputs(model, _feeds(proto), tmp_path)["y"]))
    assert found[1] > found[0] + 6


def test_every_weight_is_told_what_it_was_equalized_with(tmp_path: Path) -> None:
    findings = _apply(load(_chain(), tmp_path), tmp_path)
    details = {name: finding.detail for name, finding in findings.items() if isinstance(finding, Change)}
    assert details.keys() == {"first", "middle", "last"}
    assert details["middle"] in ("equalized with first, last", "equalized with last, first")


def test_a_channel_that_nothing_goes_into_or_nothing_reads_stays_finite(tmp_path: Path) -> None:
    proto = _chain()
    model = load(proto, tmp_path)
    for name, axis in (("first", 0), ("last", 1)):
        (weight,) = (w for w in model.weights() if w.name == name)
        matrix = weight.matrix().copy()
        matrix.swapaxes(0, axis)[2] = 0
        weight.store(matrix)
    before = outputs(model, _feeds(proto), tmp_path)["y"]
    _apply(model, tmp_path)
    assert outputs(model, _feeds(proto), tmp_path)["y"] == pytest.approx(before, rel=1e-4, abs=1e-4)


def test_what_is_equal_already_is_left_alone_with_every_bit(tmp_path: Path) -> None:
    model = load(_chain(), tmp_path)
    _apply(model, tmp_path)
    before = {w.name: w.matrix().copy() for w in model.weights()}
    reasons = {f.reason for f in _apply(model, tmp_path).values() if isinstance(f, Skip)}
    assert reasons == {"its ranges are equal already", "its input is an input of the model"}
    assert all(np.array_equal(before[w.name], w.matrix()) for w in model.weights())


def test_what_clips_at_a_fixed_value_is_not_equalized_across(tmp_path: Path) -> None:
    findings = _apply(load(_chain("Clip(a, zero, six)"), tmp_path), tmp_path)
    middle, first = findings["middle"], findings["first"]
    assert isinstance(first, Skip)
    assert isinstance(middle, Change)
    assert middle.detail == "equalized with last"


@pytest.mark.parametrize("ignore", ["first", "middle"])
def test_both_sides_must_be_selected(tmp_path: Path, ignore: str) -> None:
    proto = _chain()
    model = load(proto, tmp_path)
    before = {w.name: w.matrix().copy() for w in model.weights()}
    findings = _apply(model, tmp_path, ignore=[ignore])
    assert ignore not in findings
    (left_alone,) = (w for w in model.weights() if w.name == ignore)
    assert np.array_equal(left_alone.matrix(), before[ignore])
    assert outputs(model, _feeds(proto), tmp_path)["y"] == pytest.approx(
        run(proto, _feeds(proto))["y"], rel=1e-4, abs=1e-4
    )


def test_a_normalization_has_no_weights_to_equalize_with(tmp_path: Path, rng: np.random.Generator) -> None:
    proto = graph(
        "float[N,4] x => float[N,2] y",
        "[norm] h = LayerNormalization<axis=-1>(x, g) [last] y = MatMul(h, v)",
        g=_uneven(rng, 4),
        v=floats(rng, 4, 2),
    )
    finding = _apply(load(proto, tmp_path), tmp_path)["last"]
    assert isinstance(finding, Skip)
    assert "norm, which has no weights" in finding.reason


def test_every_weight_is_accounted_for_once_and_an_idle_run_is_an_error_with_reasons(tmp_path: Path) -> None:
    tiny.mixed(tmp_path / "model.onnx")
    model = Model.load(tmp_path / "model.onnx")
    step, context = Equalize(), Context(model.copy(), None, 0, tmp_path, Silent(), 1)
    findings = list(step.apply(model, context))
    assert {f.weight: f.layer for f in findings} == tiny.MIXED
    assert len(findings) == len(tiny.MIXED)
    recipe = write_recipe(tmp_path, passes=[{"type": "equalize"}])
    refused(tmp_path, 4, "run", recipe, says=("passes.0", "equalize", "changed nothing", "Conv", "input of the model"))
