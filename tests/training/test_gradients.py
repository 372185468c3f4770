"""Gradients of outputs say what weights are worth: exactly so for linear models, one output of one sample at a time."""

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from compressor.calibration.coding import Order, fulfil
from compressor.calibration.prospects import by_gradients
from compressor.data import ArraysSource
from compressor.errors import UsageError
from compressor.graph.channels import Channels
from compressor.graph.model import Model
from compressor.numerics.schemes import Scheme
from compressor.passes import Context, PruneChannels, QuantizeStatic, QuantizeWeights
from compressor.passes.base import Budget
from compressor.passes.quantize_static import WeightSettings
from compressor.progress import Silent
from compressor.report import Change
from compressor.runtime.shapes import observe_shapes
from compressor.training.sensitivity import GradientProbe, output_gradients
from tests.models import Array, Floats, floats, graph, load, outputs

torch = pytest.importorskip("torch")

RNG = np.random.default_rng(11)


def _context(model: Model, folder: Path, x: Array, batch: int = 16) -> Context:
    np.savez(folder / "data.npz", allow_pickle=False, x=x)
    data = ArraysSource.model_validate({"path": folder / "data.npz", "batch": batch}).open(model, "data", 0)
    return Context(model.copy(), data, 0, folder, Silent(), 1)


def _linear(folder: Path, outputs: int) -> tuple[Model, Floats]:
    weight = floats(RNG, outputs, 6)
    return load(graph("float[N,6] x => float[N,?] y", "y = Gemm<transB=1>(x, w)", w=weight), folder), weight


def _draws(model: Model, context: Context) -> list[Floats]:
    assert context.calibration is not None
    return [drawn["w"] for drawn in output_gradients(model, {"w"}, context.calibration, 3, context)]


def test_one_output_of_one_sample_answers_as_the_model_does(tmp_path: Path) -> None:
    (model, weight), x, change = _linear(tmp_path, 1), floats(RNG, 24, 6), floats(RNG, 1, 6)
    found = [float(np.vdot(change, g)) ** 2 for g in _draws(model, _context(model, tmp_path, x, batch=1))]
    assert found == pytest.approx(((x @ change.T) / (x @ weight.T))[:, 0] ** 2, rel=1e-4)


def test_many_draws_add_up_to_the_change_of_the_outputs(tmp_path: Path) -> None:
    (model, weight), x, change = _linear(tmp_path, 5), floats(RNG, 8 * 800, 6), floats(RNG, 5, 6)
    draws = _draws(model, _context(model, tmp_path, x, batch=64))
    found = np.mean([float(np.vdot(change, g)) ** 2 for g in draws])
    assert len(draws) == 800
    assert found == pytest.approx(np.square(x @ change.T).sum() / np.square(x @ weight.T).sum(), rel=0.2)


def test_the_signs_follow_from_the_seed(tmp_path: Path) -> None:
    (model, _), x = _linear(tmp_path, 5), floats(RNG, 32, 6)
    context = _context(model, tmp_path, x)
    assert all(np.array_equal(a, b) for a, b in zip(_draws(model, context), _draws(model, context), strict=True))


def _hidden() -> onnx.ModelProto:
    """Eight hidden units; the weights that make and read the first four are large, and what reaches them is 0."""
    first, second = floats(RNG, 8, 6), floats(RNG, 1, 8)
    first[:4] *= 30
    second[:, :4] *= 30
    first[:4, :] *= np.array([1, 1, 0, 0, 0, 0], np.float32)
    first[4:, :] *= np.array([0, 0, 1, 1, 1, 1], np.float32)
    body = "[one] a = Gemm<transB=1>(x, v, b) h = Relu(a) [two] y = Gemm<transB=1>(h, w)"
    return graph("float[N,6] x => float[N,1] y", body, v=first, w=second, b=np.full(8, 0.01, np.float32))


def _samples(count: int) -> Floats:
    """The first two entries hardly vary."""
    return (floats(RNG, count, 6) * np.array([1e-4, 1e-4, 1, 1, 1, 1])).astype(np.float32)


def test_units_go_in_the_order_of_what_the_output_owes_them(tmp_path: Path) -> None:
    model = load(_hidden(), tmp_path)
    context = _context(model, tmp_path, _samples(64), batch=1)
    channels = Channels.of(model, observe_shapes(model, context.feeds(), tmp_path))
    (group,) = channels.groups
    assert context.calibration is not None
    drawn = output_gradients(model, {"v", "w"}, context.calibration, 0, context)
    (prospect,) = by_gradients([(group, [8, 4, 1])], drawn)
    arrays = {
        name: value.const_value.numpy() for name, value in model.ir.graph.initializers.items() if value.const_value
    }
    x = np.concatenate([batch.feeds["x"] for batch in context.calibration.batches()])
    made = np.maximum(x @ arrays["v"].T + arrays["b"], 0) * arrays["w"]
    worth = np.square(made / made.sum(axis=1, keepdims=True)).mean(axis=0)
    assert list(prospect.elimination.order) == list(np.argsort(worth)[:7])


@pytest.mark.parametrize(("importance", "near"), [("taylor", True), ("magnitude", False)])
def test_channels_that_look_large_and_do_nothing_go(tmp_path: Path, importance: str, near: bool) -> None:
    model, x = load(_hidden(), tmp_path), _samples(128)
    exact = outputs(model, {"x": x}, tmp_path)["y"]
    step = PruneChannels.model_validate({"sparsity": 0.5, "importance": importance, "repair": False, "round_to": 1})
    list(step.apply(model, _context(model, tmp_path, x)))
    found = outputs(model, {"x": x}, tmp_path)["y"]
    assert (np.square(found - exact).mean() < 0.2 * np.square(exact - exact.mean()).mean()) == near


def _parallel() -> onnx.ModelProto:
    body = "[loud] a = MatMul(x, u)  [quiet] b = MatMul(x, v)  y = Add(a, b)"
    return graph("float[N,64] x => float[N,64] y", body, u=10 * floats(RNG, 64, 64), v=floats(RNG, 64, 64))


def test_the_probe_says_what_executing_says(tmp_path: Path) -> None:
    model, x = load(_parallel(), tmp_path), floats(RNG, 1600, 64)
    context = _context(model, tmp_path, x)
    probe = GradientProbe(model, 0, context)
    exact, executed = outputs(model, {"x": x}, tmp_path)["y"], {}
    for coding in fulfil(model, [Order(weight, Scheme(3)) for weight in model.weights()], context):
        probe.add(coding)
        copy = model.copy()
        next(w for w in copy.weights() if w.name == coding.order.weight.name).store(coding.rounded())
        error = outputs(copy, {"x": x}, tmp_path)["y"] - exact
        executed[coding.order.weight.name] = float(np.square(error).sum() / np.square(exact).sum())
    found = probe.drifts()
    assert found == {name: pytest.approx(value, rel=0.3) for name, value in executed.items()}
    assert found["loud"] > 20 * found["quiet"]


def test_a_budget_by_gradients_gives_bits_to_what_matters(tmp_path: Path) -> None:
    model = load(_parallel(), tmp_path)
    step = QuantizeWeights(budget=Budget(bits_per_weight=5.6, sensitivity="gradient"))
    found = list(step.apply(model, _context(model, tmp_path, floats(RNG, 256, 64))))
    bits = {change.weight: change.bits for change in found if isinstance(change, Change)}
    widths = [8, 4, 3, 2, "ternary"]
    assert widths.index(bits["loud"]) < widths.index(bits["quiet"])


@pytest.mark.parametrize(
    "step",
    [
        PruneChannels(sparsity=0.5, importance="taylor", round_to=1),
        QuantizeWeights(budget=Budget(bits_per_weight=5.1, sensitivity="gradient")),
        QuantizeStatic(weights=WeightSettings(bits=2, rounding="learned")),
    ],
    ids=["taylor", "budget", "rounding"],
)
def test_without_torch_it_is_said_what_to_install(
    step: PruneChannels | QuantizeWeights | QuantizeStatic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(_hidden(), tmp_path)
    context = _context(model, tmp_path, _samples(32))
    for name in [n for n in sys.modules if n.startswith("compressor.training.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UsageError, match=r"need.* torch: pip install 'compressor\[torch\]'$"):
        list(step.apply(model, context))
