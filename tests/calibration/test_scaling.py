"""Activation-aware scaling moves scale about, changes no function, and lowers the noise of coded layers."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest

from compressor.calibration.coding import Order, fulfil
from compressor.calibration.scaling import scale_inputs
from compressor.data import ArraysSource, Dataset
from compressor.errors import PassError
from compressor.graph.model import Model
from compressor.graph.weights import Weight
from compressor.numerics.schemes import Scheme
from compressor.progress import Progress, Silent
from tests.models import Floats, decibels, floats, graph, load, outputs, run

RNG = np.random.default_rng(6)
COARSE = Scheme(4, "per_block", 32, "float")
OUTLIERS = np.ones(64, np.float32)
OUTLIERS[[3, 40]] = 20
X = floats(RNG, 24, 5, 64)
SIGNATURE = "float[N,5,64] x => float[N,5,24] y"
READERS = "[a] p = MatMul(h, u)  [b] q = MatMul(h, v)  y = Mul(p, q)"
BODIES = {
    "normalization": f"[norm] h = LayerNormalization<axis=-1>(x, gain, shift)  {READERS}",
    "layer": f"[front] f = MatMul(x, w)  g = Add(f, shift)  h = Relu(g)  {READERS}",
    "activation": f"o = Mul(x, gain)  h = Gelu(o)  {READERS}",
    "input": READERS.replace("h,", "x,"),
}


@dataclass(frozen=True)
class Bench:
    """What it takes to execute a model on samples."""

    calibration: Dataset | None
    scratch: Path
    progress: Progress = Silent()  # noqa: RUF009
    threads: int = 1


def _proto(kind: str) -> onnx.ModelProto:
    rng = np.random.default_rng(3)
    arrays = {"u": floats(rng, 64, 24), "v": floats(rng, 64, 24), "w": floats(rng, 64, 64) * OUTLIERS / 8}
    arrays |= {"gain": OUTLIERS, "shift": floats(rng, 64) * OUTLIERS}
    return graph(SIGNATURE, BODIES[kind], **arrays)


def _setting(kind: str, folder: Path) -> tuple[Model, Bench, Floats]:
    x = X * OUTLIERS if kind == "input" else X
    model = load(_proto(kind), folder)
    np.savez(folder / "data.npz", allow_pickle=False, x=x)
    source = ArraysSource.model_validate({"path": folder / "data.npz", "batch": 8})
    return model, Bench(source.open(model, "data", 0), folder), x


def _readers(model: Model) -> list[Weight]:
    return [weight for weight in model.weights() if weight.name in "ab"]


def _scale(model: Model, bench: Bench) -> None:
    scale_inputs(model, _readers(model), lambda weight: COARSE, bench)


def _coded(model: Model, bench: Bench, x: Floats) -> Floats:
    """What the model computes with the codes of the readers."""
    copy = model.copy()
    for done in list(fulfil(copy, [Order(weight, COARSE) for weight in _readers(copy)], bench)):
        done.order.weight.store(done.rounded())
    return outputs(copy, {"x": x}, bench.scratch)["y"]


@pytest.mark.parametrize("kind", BODIES)
def test_codes_lose_less_and_float_nothing(kind: str, tmp_path: Path) -> None:
    model, bench, x = _setting(kind, tmp_path)
    expected, before = run(_proto(kind), {"x": x})["y"], _coded(model, bench, x)
    _scale(model, bench)
    assert decibels(expected, outputs(model, {"x": x}, tmp_path)["y"]) > 90
    assert decibels(expected, _coded(model, bench, x)) > decibels(expected, before) + 0.5


@pytest.mark.parametrize("kind", BODIES)
def test_the_scale_goes_where_the_inputs_are_made_or_into_a_multiplication(kind: str, tmp_path: Path) -> None:
    model, bench, _ = _setting(kind, tmp_path)
    before = model.node_counts()
    _scale(model, bench)
    added = {} if kind in ("normalization", "layer") else {"Mul": 1}
    assert dict(model.node_counts() - before) == added


def test_readers_of_one_tensor_share_one_scale(tmp_path: Path) -> None:
    model, bench, _ = _setting("normalization", tmp_path)
    before = {weight.name: weight.matrix().copy() for weight in _readers(model)}
    _scale(model, bench)
    scales = [weight.matrix() / before[weight.name] for weight in _readers(model)]
    np.testing.assert_allclose(scales[0], scales[1][[0]].repeat(24, 0), rtol=1e-4)
    assert set(scales[0][0].argsort()[-2:]) == {3, 40}


@pytest.mark.parametrize("kind", BODIES)
def test_other_layers_keep_every_bit(kind: str, tmp_path: Path) -> None:
    model, bench, _ = _setting(kind, tmp_path)
    before = {weight.name: weight.matrix().copy() for weight in model.weights()}
    scale_inputs(model, [], lambda weight: COARSE, bench)
    assert all(np.array_equal(weight.matrix(), before[weight.name]) for weight in model.weights())


def test_without_data_it_is_an_error(tmp_path: Path) -> None:
    model, _, _ = _setting("normalization", tmp_path)
    with pytest.raises(
        PassError, match=r"^rounding activation_aware needs data\.calibration; or take another rounding$"
    ):
        _scale(model, Bench(None, tmp_path))


@pytest.mark.parametrize("branch", [False, True])
def test_what_cannot_be_rescaled_needs_no_data(branch: bool, tmp_path: Path) -> None:
    inside = """y = If(c) <then_branch = t () => (float[2,64] p) { p = MatMul(x, u) },
                              else_branch = e () => (float[2,64] q) { q = Relu(x) }>"""
    left, arrays = "y = MatMul(u, x)", {"u": floats(RNG, 64, 64)}
    signature = "float[2,64] x, bool c => float[2,64] y" if branch else "float[64,2] x => float[64,2] y"
    model = load(graph(signature, inside if branch else left, **arrays), tmp_path)
    scale_inputs(model, model.weights(), lambda weight: COARSE, Bench(None, tmp_path))
    (weight,) = model.weights()
    assert np.array_equal(weight.value.const_value.numpy() if weight.value.const_value else None, arrays["u"])


def test_nothing_is_left_in_the_folder(tmp_path: Path) -> None:
    model, bench, _ = _setting("layer", tmp_path)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    _scale(model, Bench(bench.calibration, scratch))
    assert not list(scratch.iterdir())
