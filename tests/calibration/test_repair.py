"""Fitting layers anew brings back what pruning took, as far as a linear layer can."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from compressor.calibration.repair import fits, repair
from compressor.data import ArraysSource
from compressor.graph.channels import Channels, prepare
from compressor.graph.model import Model
from compressor.graph.observe import VALUE, with_more_outputs
from compressor.runtime.shapes import observe_shapes
from tests.calibration.surroundings import Around
from tests.models import Array, Floats, decibels, floats, graph, load, outputs


def _around(folder: Path, model: Model, x: Floats) -> Around:
    np.savez(folder / "x.npz", x=x)
    data = ArraysSource(path=folder / "x.npz", inputs={"x": "x"}, batch=16).open(model, "data", 0)
    return Around(data, folder)


def _shapes(model: Model, folder: Path) -> dict[str, tuple[int, ...]]:
    """Of all tensors for two samples of noise."""
    sizes = [n if isinstance(n, int) else 2 for n in model.inputs()[0].shape or ()]
    return observe_shapes(model, {"x": floats(np.random.default_rng(1), *sizes)}, folder)


def _residual(rng: np.random.Generator) -> onnx.ModelProto:
    return graph(
        "float[N,3,6,6] x => float[N,2,6,6] y",
        """[one] a = Conv<pads=[1,1,1,1]>(x, w1, b1)  r = Relu(a)  [two] c = Conv<pads=[1,1,1,1]>(r, w2, b2)
        s = Add(a, c)  q = Relu(s)  [three] y = Conv(q, w3, b3)""",
        w1=floats(rng, 8, 3, 3, 3) / 4,
        b1=floats(rng, 8) / 4,
        w2=floats(rng, 8, 8, 3, 3) / 8,
        b2=floats(rng, 8) / 4,
        w3=floats(rng, 2, 8, 1, 1) / 3,
        b3=floats(rng, 2),
    )


def _pruned(
    model: Model, feeds: dict[str, Array], folder: Path, unit: int
) -> tuple[Model, dict[str, dict[int, Array]]]:
    prepare(model, observe_shapes(model, feeds, folder))
    cut = model.copy()
    channels = Channels.of(cut, observe_shapes(model, feeds, folder))
    dropped = [group.units[unit] for group in channels.groups]
    kept = channels.kept(dropped)
    channels.drop(dropped)
    return cut, kept


def test_a_pruned_network_comes_nearer_to_the_reference_layer_by_layer(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    model = load(_residual(rng), tmp_path)
    x = floats(rng, 64, 3, 6, 6)
    around = _around(tmp_path, model, x)
    cut, kept = _pruned(model, {"x": x[:4]}, tmp_path, unit=2)
    fresh = {"x": floats(rng, 32, 3, 6, 6)}
    wanted, before = outputs(model, fresh, tmp_path)["y"], outputs(cut, fresh, tmp_path)["y"]
    found = list(repair(cut, model, fits(cut, kept, _shapes(model, tmp_path)), around))
    after = outputs(cut, fresh, tmp_path)["y"]
    assert [fit.name for fit in found] == ["one", "two", "three"]
    assert all(fit.after <= fit.before for fit in found)
    assert decibels(wanted, after) > decibels(wanted, before) + 1.5


def test_an_input_that_was_a_mixture_of_others_is_made_up_for_exactly(tmp_path: Path, rng: np.random.Generator) -> None:
    first = floats(rng, 4, 5)
    first[3] = first[0] - 2 * first[1]
    arrays = {"w1": first, "b1": floats(rng, 4), "w2": floats(rng, 3, 4), "b2": floats(rng, 3)}
    body = "[one] a = Gemm<transB=1>(x, w1, b1)  [two] y = Gemm<transB=1>(a, w2, b2)"
    model = load(graph("float[N,5] x => float[N,3] y", body, **arrays), tmp_path)
    x = floats(rng, 256, 5)
    cut, kept = _pruned(model, {"x": x[:2]}, tmp_path, unit=3)
    list(repair(cut, model, fits(cut, kept, _shapes(model, tmp_path)), _around(tmp_path, model, x)))
    expected, found = outputs(model, {"x": x}, tmp_path)["y"], outputs(cut, {"x": x}, tmp_path)["y"]
    assert decibels(expected, found) > 35


def test_single_weights_that_were_pruned_stay_zero(tmp_path: Path, rng: np.random.Generator) -> None:
    model = load(_residual(rng), tmp_path)
    around = _around(tmp_path, model, floats(rng, 64, 3, 6, 6))
    sparse = model.copy()
    for weight in sparse.weights():
        weight.store(np.where(np.abs(weight.matrix()) < np.median(np.abs(weight.matrix())), 0, weight.matrix()))
    zeros = {weight.name: weight.matrix() == 0 for weight in sparse.weights()}
    fresh = {"x": floats(rng, 32, 3, 6, 6)}
    wanted, before = outputs(model, fresh, tmp_path)["y"], outputs(sparse, fresh, tmp_path)["y"]
    list(repair(sparse, model, fits(sparse, {}, _shapes(model, tmp_path)), around))
    assert all((weight.matrix()[zeros[weight.name]] == 0).all() for weight in sparse.weights())
    assert decibels(wanted, outputs(sparse, fresh, tmp_path)["y"]) > decibels(wanted, before) + 1.5


def test_what_is_as_it_was_stays_so(tmp_path: Path, rng: np.random.Generator) -> None:
    model = load(_residual(rng), tmp_path)
    x = floats(rng, 64, 3, 6, 6)
    same = model.copy()
    list(repair(same, model, fits(same, {}, _shapes(model, tmp_path)), _around(tmp_path, model, x)))
    for before, after in zip(model.weights(), same.weights(), strict=True):
        np.testing.assert_allclose(after.matrix(), before.matrix(), atol=1e-5)


def test_shared_weights_and_lookups_are_not_fitted(tmp_path: Path, rng: np.random.Generator) -> None:
    body = """[words] e = Gather(table, x)  [one] a = MatMul(e, w)  r = Relu(a)  [two] b = MatMul(r, w)
    [out] y = MatMul(b, v)"""
    proto = graph(
        "int64[N,4] x => float[N,4,3] y", body, table=floats(rng, 9, 6), w=floats(rng, 6, 6), v=floats(rng, 6, 3)
    )
    model = load(proto, tmp_path)
    shapes = observe_shapes(model, {"x": np.zeros((1, 4), np.int64)}, tmp_path)
    assert [fit.weight.name for stage in fits(model, {}, shapes) for fit in stage] == ["out"]


@pytest.mark.parametrize("batch", [1, 5])
def test_few_samples_do_no_harm(tmp_path: Path, batch: int, rng: np.random.Generator) -> None:
    model = load(_residual(rng), tmp_path)
    x = floats(rng, batch, 3, 6, 6)
    cut, kept = _pruned(model, {"x": x[:1]}, tmp_path, unit=1)
    list(repair(cut, model, fits(cut, kept, _shapes(model, tmp_path)), _around(tmp_path, model, x)))
    assert np.isfinite(outputs(cut, {"x": x}, tmp_path)["y"]).all()


def test_a_sum_with_something_of_another_shape_is_not_the_result_of_a_layer(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    body = """[wide] a = Conv<pads=[1,1,1,1]>(x, w1)  p = GlobalAveragePool(x)  [pooled] c = Conv(p, w2)  s = Add(a, c)
    y = Relu(s)"""
    proto = graph("float[N,3,6,6] x => float[N,4,6,6] y", body, w1=floats(rng, 4, 3, 3, 3), w2=floats(rng, 4, 3, 1, 1))
    model, x = load(proto, tmp_path), floats(rng, 32, 3, 6, 6)
    stages = fits(model, {}, _shapes(model, tmp_path))
    assert {fit.weight.name: fit.outlet.tensor for stage in stages for fit in stage} == {"wide": "a", "pooled": "c"}
    assert len(list(repair(model.copy(), model, stages, _around(tmp_path, model, x)))) == 2


def test_two_layers_of_one_sum_do_not_both_make_up_for_the_same(tmp_path: Path, rng: np.random.Generator) -> None:
    body = "[one] a = Gemm<transB=1>(x, w1)  [two] b = Gemm<transB=1>(x, w2)  s = Add(a, b)  y = Relu(s)"
    arrays = {"w1": floats(rng, 4, 5), "w2": floats(rng, 4, 5)}
    model, x = load(graph("float[N,5] x => float[N,4] y", body, **arrays), tmp_path), floats(rng, 256, 5)
    off = model.copy()
    for weight in off.weights():
        weight.store((weight.matrix() + 0.3 * floats(rng, *weight.matrix().shape)).astype(np.float32))
    stages = fits(off, {}, _shapes(model, tmp_path))
    assert [[fit.weight.name for fit in stage] for stage in stages] == [["one"], ["two"]]
    list(repair(off, model, stages, _around(tmp_path, model, x)))
    assert decibels(outputs(model, {"x": x}, tmp_path)["y"], outputs(off, {"x": x}, tmp_path)["y"]) > 40


def test_products_without_a_bias_get_none_and_feed_the_next_as_they_are(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    body = "[one] a = MatMul(x, w1)  [two] b = MatMul(a, w2)  y = Relu(b)"
    arrays = {"w1": floats(rng, 5, 6), "w2": floats(rng, 6, 3)}
    model = load(graph("float[N,5] x => float[N,3] y", body, **arrays), tmp_path)
    x = floats(rng, 256, 5) + 2
    off = model.copy()
    next(off.weights()).store((next(model.weights()).matrix() * np.float32(0.7)).astype(np.float32))
    nodes = off.node_counts()
    list(repair(off, model, fits(off, {}, _shapes(model, tmp_path)), _around(tmp_path, model, x)))
    assert off.node_counts() == nodes
    assert decibels(outputs(model, {"x": x}, tmp_path)["y"], outputs(off, {"x": x}, tmp_path)["y"]) > 40


def test_inner_channels_vary_as_they_did_and_outputs_err_least(tmp_path: Path, rng: np.random.Generator) -> None:
    """A part of what `two` reads is gone: fitted to err least it would vary less, and so would all behind it."""
    arrays = {f"w{i}": floats(rng, 8, 8) for i in (1, 2, 3)} | {f"b{i}": floats(rng, 8) for i in (1, 2, 3)}
    body = """[one] a = Gemm<transB=1>(x, w1, b1)  [two] b = Gemm<transB=1>(a, w2, b2)  r = Relu(b)
    [three] y = Gemm<transB=1>(r, w3, b3)"""
    model = load(graph("float[N,8] x => float[N,8] y", body, **arrays), tmp_path)
    x = floats(rng, 2048, 8)
    cut = model.copy()
    gone = next(weight for weight in cut.weights() if weight.name == "one")
    gone.store(np.where(np.arange(8)[:, None] < 6, gone.matrix(), 0))
    stages = [stage for stage in fits(cut, {}, _shapes(model, tmp_path)) if stage[0].weight.name != "one"]
    list(repair(cut, model, stages, _around(tmp_path, model, x)))
    inner = [outputs(with_more_outputs(each, ["b"]), {"x": x}, tmp_path)[VALUE + "b"] for each in (model, cut)]
    np.testing.assert_allclose(inner[1].var(axis=0), inner[0].var(axis=0), rtol=0.02)
    np.testing.assert_allclose(inner[1].mean(axis=0), inner[0].mean(axis=0), atol=0.02)
    wanted, found = (outputs(each, {"x": x}, tmp_path)["y"] for each in (model, cut))
    rows = np.concatenate([np.maximum(inner[1], 0), np.ones((len(x), 1), np.float32)], axis=1)
    least, *_ = np.linalg.lstsq(rows, wanted, rcond=None)
    assert np.square(found - wanted).sum() <= 1.01 * np.square(rows @ least - wanted).sum()
