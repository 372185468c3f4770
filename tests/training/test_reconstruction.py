"""Learned rounding: never worse on samples it has not seen, and as good as trying everything where that can be done."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from compressor.calibration.coding import Fulfilled, Order, fulfil
from compressor.data import ArraysSource
from compressor.graph.model import Model
from compressor.graph.simplify import simplify
from compressor.graph.weights import Weight
from compressor.numerics.levels import LEVELS, Coded
from compressor.numerics.relaxation import between
from compressor.numerics.schemes import Scheme, encode
from compressor.passes import Context, QuantizeStatic, QuantizeWeights
from compressor.progress import Silent
from compressor.report import Change, Note
from compressor.training.settings import RoundingSettings
from tests.models import Array, Floats, cnn, floats, graph, load, outputs

torch = pytest.importorskip("torch")

from compressor.training.constraints import Relaxed  # noqa: E402
from compressor.training.reconstruction import reconstruct  # noqa: E402

RNG = np.random.default_rng(7)
QUICK = RoundingSettings(steps=200, batch=16)
LONG = RoundingSettings(steps=2000)


def _context(model: Model, folder: Path, x: Array) -> Context:
    np.savez(folder / "data.npz", allow_pickle=False, x=x)
    data = ArraysSource.model_validate({"path": folder / "data.npz", "batch": 16}).open(model, "data", 0)
    return Context(model.copy(), data, 0, folder, Silent(), 1)


def _correlated(samples: int, width: int) -> Floats:
    return (floats(RNG, samples, 2) @ floats(RNG, 2, width) + 0.1 * floats(RNG, samples, width)).astype(np.float32)


def _error(x: Floats, weight: Floats, rounded: Floats) -> float:
    return float(np.square(x @ (rounded - weight).T).mean())


def test_codes_to_nearest_make_up_for_each_other_where_inputs_go_together(tmp_path: Path) -> None:
    weight, x = floats(RNG, 16, 24), _correlated(1024, 24)
    model = load(graph("float[N,24] x => float[N,16] y", "y = Gemm<transB=1>(x, w)", w=weight), tmp_path)
    context = _context(model, tmp_path, x)
    (start,) = fulfil(model, [Order(_weight_of(model), Scheme(4))], context)
    asked = replace(start, order=replace(start.order, scheme=Scheme(4, rounding="learned")))
    result = reconstruct(model, model.copy(), [asked], QUICK, 0, context)
    assert _error(x, weight, result["w"].rounded()) < 0.5 * _error(x, weight, start.rounded())


def _weight_of(model: Model) -> Weight:
    (weight,) = model.weights()
    return weight


def _found(model: Model, context: Context, rounding: str = "learned") -> list[Fulfilled]:
    orders = [Order(weight, Scheme(2, rounding=rounding)) for weight in model.weights()]  # type: ignore[arg-type]
    return list(fulfil(model, orders, context))


def test_the_network_is_nearer_to_what_it_was_on_other_samples(tmp_path: Path) -> None:
    model = load(cnn(np.random.default_rng(3)), tmp_path)
    list(simplify(model))
    x, unseen = floats(RNG, 512, 3, 8, 8), floats(RNG, 128, 3, 8, 8)
    context = _context(model, tmp_path, x)
    found = _found(model, context)
    better = reconstruct(model, model.copy(), found, LONG, 0, context)

    def with_codes(codes: list[Fulfilled]) -> Array:
        copy = model.copy()
        weights = {weight.value.name: weight for weight in copy.weights()}
        for one in codes:
            weights[one.order.weight.value.name].store(one.rounded())
        return outputs(copy, {"x": unseen}, tmp_path)["y"]

    exact = outputs(model, {"x": unseen}, tmp_path)["y"]
    learned = [better.get(one.order.weight.value.name or "", one) for one in found]
    before, after = (np.square(with_codes(codes) - exact).mean() for codes in (found, learned))
    assert better
    assert after < 0.8 * before


def test_scales_stay_and_codes_move_by_one_level_at_most(tmp_path: Path) -> None:
    model = load(cnn(np.random.default_rng(3)), tmp_path)
    list(simplify(model))
    context = _context(model, tmp_path, floats(RNG, 128, 3, 8, 8))
    found = {one.order.weight.value.name or "": one.coded for one in _found(model, context)}
    better = reconstruct(model, model.copy(), _found(model, context), QUICK, 0, context)
    for name, one in better.items():
        assert np.array_equal(one.coded.scale, found[name].scale)
        assert np.abs(one.coded.codes.astype(int) - found[name].codes).max() == 1
        assert one.coded.codes.max() <= LEVELS[2].high


def test_only_what_asks_for_it_is_learned(tmp_path: Path) -> None:
    model = load(cnn(np.random.default_rng(3)), tmp_path)
    list(simplify(model))
    context = _context(model, tmp_path, floats(RNG, 128, 3, 8, 8))
    first, *others = _found(model, context, "second_order")
    asked = replace(first, order=replace(first.order, scheme=replace(first.order.scheme, rounding="learned")))
    better = reconstruct(model, model.copy(), [asked, *others], QUICK, 0, context)
    assert better.keys() <= {first.order.weight.value.name}


def test_the_same_seed_gives_the_same_codes(tmp_path: Path) -> None:
    model = load(cnn(np.random.default_rng(3)), tmp_path)
    list(simplify(model))
    context = _context(model, tmp_path, floats(RNG, 64, 3, 8, 8))
    runs = [reconstruct(model, model.copy(), _found(model, context), QUICK, 4, context) for _ in range(2)]
    assert runs[0].keys() == runs[1].keys()
    assert all(np.array_equal(runs[0][name].coded.codes, runs[1][name].coded.codes) for name in runs[0])


@pytest.mark.parametrize(
    "step",
    [
        QuantizeStatic.model_validate(
            {"scheme": "w2a8", "weights": {"rounding": "learned"}, "learning": {"steps": 100}}
        ),
        QuantizeWeights.model_validate({"bits": 2, "block": 8, "rounding": "learned", "learning": {"steps": 100}}),
    ],
    ids=["static", "weights"],
)
def test_a_pass_says_what_was_learned_layer_by_layer(tmp_path: Path, step: QuantizeStatic | QuantizeWeights) -> None:
    model = load(cnn(np.random.default_rng(3)), tmp_path)
    list(simplify(model))
    found = list(step.apply(model, _context(model, tmp_path, floats(RNG, 128, 3, 8, 8))))
    (note,) = (entry.text for entry in found if isinstance(entry, Note))
    changes = [entry for entry in found if isinstance(entry, Change)]
    learned = sum("learned" in change.detail for change in changes)
    assert f"learned in {learned} of {len(changes)} layers" in note
    assert learned + sum("second_order" in change.detail for change in changes) == len(changes)


def test_a_relaxed_weight_is_itself_at_first_and_one_of_its_levels_at_last() -> None:
    weight = torch.from_numpy(floats(RNG, 3, 5))
    coded: Coded = encode(weight.numpy(), Scheme(4))
    choice = between(coded, weight.numpy())
    relaxed = Relaxed(*(torch.from_numpy(part) for part in (choice.low, choice.gap, choice.share)))
    inside = torch.from_numpy((choice.share > 0.02) & (choice.share < 0.98))
    assert torch.allclose(relaxed(relaxed.right_inverse(weight))[inside], weight[inside], atol=1e-5)
    up = weight > 0
    ends = relaxed(torch.where(up, torch.inf, -torch.inf))
    assert torch.allclose(ends, torch.from_numpy(choice.low + up.numpy() * choice.gap), atol=1e-6)


@pytest.mark.parametrize(
    ("results", "body"),
    [
        ("int64[N,K] y, float[N,4] z", "a = MatMul(x, w) y = ArgMax<axis=1>(a) z = Relu(a)"),
        ("int64[N,K] y", "a = MatMul(x, w) y = ArgMax<axis=1>(a)"),
    ],
    ids=["beside others", "alone"],
)
def test_outputs_of_integers_teach_nothing_and_are_no_trouble(results: str, body: str, tmp_path: Path) -> None:
    model = load(graph(f"float[N,8] x => {results}", body, w=floats(RNG, 8, 4)), tmp_path)
    context = _context(model, tmp_path, _correlated(64, 8))
    better = reconstruct(model, model.copy(), _found(model, context), QUICK, 0, context)
    assert "z" in results or not better
