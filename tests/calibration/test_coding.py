"""Orders for codes are fulfilled once each, from the moments of what the layers are really fed."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from compressor.calibration.coding import Fulfilled, Order, fulfil
from compressor.data import ArraysSource, Dataset
from compressor.errors import PassError
from compressor.graph.edit import settle
from compressor.graph.model import Model
from compressor.graph.storage import insert_storage
from compressor.numerics.levels import Bits
from compressor.numerics.schemes import Scheme, encode
from compressor.progress import Progress, Silent
from tests.models import Floats, floats, graph, load, outputs

RNG = np.random.default_rng(9)
SECOND = Scheme(3, rounding="second_order")
NEAREST = Scheme(3)


@dataclass(frozen=True)
class Bench:
    """What it takes to execute a model on samples."""

    calibration: Dataset | None
    scratch: Path
    progress: Progress = Silent()  # noqa: RUF009
    threads: int = 1


def _bench(model: Model, x: Floats, folder: Path, batch: int = 4) -> Bench:
    np.savez(folder / "data.npz", x=x)
    source = ArraysSource.model_validate({"path": folder / "data.npz", "batch": batch})
    return Bench(source.open(model, "data", 0), folder)


def _convolutions(folder: Path) -> tuple[Model, Floats]:
    """A convolution, a depthwise one, a transposed one and a product; and what they are fed."""
    rng = np.random.default_rng(9)
    body = """[plain] a = Conv<pads=[1,1,1,1]>(x, u)  r = Relu(a)  [deep] b = Conv<group=6>(r, v)
    [up] c = ConvTranspose(b, t)  p = GlobalAveragePool(c)  f = Flatten(p)  [head] y = Gemm<transB=1>(f, w)"""
    arrays = {"u": floats(rng, 6, 3, 3, 3), "v": floats(rng, 6, 1, 3, 3), "t": floats(rng, 6, 5, 2, 2)}
    proto = graph("float[N,3,6,6] x => float[N,4] y", body, **arrays, w=floats(rng, 4, 5))
    return load(proto, folder), floats(rng, 12, 3, 6, 6)


def _orders(model: Model, scheme: Scheme) -> list[Order]:
    return [Order(weight, scheme) for weight in model.weights()]


def _fulfilled(model: Model, orders: list[Order], bench: Bench) -> dict[str, Fulfilled]:
    found = list(fulfil(model, orders, bench))
    assert len(found) == len(orders)
    return {done.order.weight.name: done for done in found}


def test_every_order_is_fulfilled_once_and_says_how(tmp_path: Path) -> None:
    model, x = _convolutions(tmp_path)
    done = _fulfilled(model, _orders(model, SECOND), _bench(model, x, tmp_path))
    rounding = {name: one.order.scheme.rounding for name, one in done.items()}
    assert rounding == {"plain": "second_order", "deep": "second_order", "up": "nearest", "head": "second_order"}
    assert {name: one.moments is not None for name, one in done.items()} == {
        name: how == "second_order" for name, how in rounding.items()
    }


def test_codes_are_those_of_the_moments_of_what_the_layer_is_fed(tmp_path: Path) -> None:
    body = "r = Relu(x)  [l] y = MatMul(r, w)"
    model = load(graph("float[N,3,8] x => float[N,3,6] y", body, w=floats(RNG, 8, 6)), tmp_path)
    x = floats(RNG, 30, 3, 8) @ floats(RNG, 8, 8)
    done = _fulfilled(model, _orders(model, SECOND), _bench(model, x, tmp_path))["l"]
    rows = np.maximum(x, 0).reshape(-1, 8).astype(np.float64)
    expected = encode(done.order.weight.matrix(), SECOND, (rows.T @ rows / len(rows))[None])
    assert np.array_equal(done.coded.codes, expected.codes)
    np.testing.assert_allclose(done.coded.scale, expected.scale, rtol=1e-4)


def test_rounding_to_nearest_needs_no_data(tmp_path: Path) -> None:
    model, _ = _convolutions(tmp_path)
    for name, done in _fulfilled(model, _orders(model, NEAREST), Bench(None, tmp_path)).items():
        groups = 6 if name == "deep" else 1
        assert np.array_equal(done.coded.codes, encode(done.order.weight.matrix(), NEAREST, None, groups).codes)


def test_second_order_without_data_is_an_error(tmp_path: Path) -> None:
    model, _ = _convolutions(tmp_path)
    with pytest.raises(PassError, match=r"second_order needs data\.calibration"):
        list(fulfil(model, _orders(model, SECOND), Bench(None, tmp_path)))


def test_what_needs_no_samples_comes_first(tmp_path: Path) -> None:
    model, x = _convolutions(tmp_path)
    orders = _orders(model, SECOND)
    orders[-1] = replace(orders[-1], scheme=NEAREST)
    names = [done.order.weight.name for done in fulfil(model, orders, _bench(model, x, tmp_path))]
    assert names == ["up", "head", "plain", "deep"]


def test_a_weight_can_be_ordered_in_several_widths(tmp_path: Path) -> None:
    model, x = _convolutions(tmp_path)
    widths: tuple[Bits, ...] = (4, 3, 2)
    orders = [replace(o, scheme=replace(SECOND, bits=b)) for o in _orders(model, SECOND) for b in widths]
    bench = _bench(model, x, tmp_path)
    noises: dict[str, dict[Bits, float]] = {}
    for done in fulfil(model, orders, bench):
        noises.setdefault(done.order.weight.name, {})[done.order.scheme.bits] = done.noise()
    for name, of_widths in noises.items():
        alone = _fulfilled(model, [o for o in orders if o.weight.name == name and o.scheme.bits == 2], bench)[name]
        assert of_widths.keys() == set(widths)
        assert of_widths[4] < of_widths[3] < of_widths[2] == pytest.approx(alone.noise(), rel=1e-6)


@pytest.mark.parametrize("layer", ["plain", "deep", "head"])
def test_noise_is_that_of_the_layer_in_its_place(layer: str, tmp_path: Path) -> None:
    model, x = _convolutions(tmp_path)
    made = {"plain": "a", "deep": "b", "head": "y"}[layer]
    model.ir.graph.outputs[:] = [v for node in model.ir.graph for v in node.outputs if v.name == made]
    done = _fulfilled(model, _orders(model, SECOND), _bench(model, x, tmp_path))[layer]
    noise, expected = done.noise(), outputs(model, {"x": x}, tmp_path)[made].astype(np.float64)
    done.order.weight.store(done.rounded())
    found = outputs(model, {"x": x}, tmp_path)[made]
    assert noise == pytest.approx(np.square(found - expected).sum() / np.square(expected).sum(), rel=1e-3)


def test_noise_of_what_is_not_seen_is_that_of_the_weights(tmp_path: Path) -> None:
    model, x = _convolutions(tmp_path)
    done = _fulfilled(model, _orders(model, SECOND), _bench(model, x, tmp_path))["up"]
    matrix = done.order.weight.matrix().astype(np.float64)
    expected = np.square(done.rounded() - matrix).sum() / np.square(matrix).sum()
    assert done.noise() == pytest.approx(expected, rel=1e-4)


def test_inputs_that_were_added_are_not_among_the_real_values(tmp_path: Path) -> None:
    model = load(graph("float[N,20] x => float[N,6] y", "[l] y = MatMul(x, w)", w=floats(RNG, 20, 6)), tmp_path)
    scheme = Scheme(4, "per_block", 16, "float", rounding="second_order")
    done = _fulfilled(model, _orders(model, scheme), _bench(model, floats(RNG, 9, 20), tmp_path))["l"]
    assert done.coded.codes.shape == (6, 32)
    assert done.rounded().shape == (6, 20)


@pytest.mark.parametrize("rounding", ["nearest", "second_order"])
def test_the_floor_under_the_scales_holds(rounding: str, tmp_path: Path) -> None:
    model, x = _convolutions(tmp_path)
    scheme = SECOND if rounding == "second_order" else NEAREST
    orders = [Order(weight, scheme, np.float32(0.7)) for weight in model.weights()]
    for done in fulfil(model, orders, _bench(model, x, tmp_path)):
        assert done.coded.scale.min() >= 0.7


def test_layers_in_a_branch_are_rounded_to_nearest(tmp_path: Path) -> None:
    body = """y = If(c) <then_branch = t () => (float[2,8] a) { q = Neg(x)  a = MatMul(q, w) },
                         else_branch = e () => (float[2,8] b) { b = Relu(x) }>"""
    model = load(graph("float[2,8] x, bool c => float[2,8] y", body, w=floats(RNG, 8, 8)), tmp_path)
    (done,) = fulfil(model, _orders(model, SECOND), Bench(None, tmp_path))
    assert done.order.scheme.rounding == "nearest"


@pytest.mark.parametrize("bits", [4, 2])
def test_the_model_may_be_edited_from_one_to_the_next(bits: Bits, tmp_path: Path) -> None:
    model, x = _convolutions(tmp_path)
    bench, expected = _bench(model, x, tmp_path), outputs(model, {"x": x}, tmp_path)["y"]
    for done in fulfil(model, _orders(model, replace(SECOND, bits=bits)), bench):
        insert_storage(model.ir, done.order.weight, done.coded)
    settle(model.ir)
    found = outputs(model, {"x": x}, tmp_path)["y"]
    assert 0 < np.square(found - expected).sum() < 0.9 * np.square(expected).sum()
    assert not list(model.weights())


def test_nothing_is_left_in_the_folder(tmp_path: Path) -> None:
    model, x = _convolutions(tmp_path)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    bench = replace(_bench(model, x, tmp_path), scratch=scratch)
    list(fulfil(model, _orders(model, SECOND), bench))
    assert not list(scratch.iterdir())
