"""Ranges are the extremes of what really flows, however it is cut into batches."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

from compressor.calibration import Observer, ObserverName, Range, collect_ranges, ranges
from compressor.data import ArraysSource, Batch, Dataset
from compressor.errors import DataError, PassError
from compressor.graph.model import Model
from compressor.progress import Silent
from tests.models import Floats, array, cnn, floats, graph, load, run


def _data(x: Floats, model: Model, folder: Path, batch: int) -> Dataset:
    np.savez(folder / "data.npz", x=x)
    return ArraysSource.model_validate({"path": folder / "data.npz", "batch": batch}).open(model, "data", 0)


MIN_MAX = Observer("min_max")


def _collect(
    model: Model, tensors: tuple[str, ...], data: Dataset, folder: Path, observer: Observer = MIN_MAX
) -> dict[str, Range]:
    return collect_ranges(model, dict.fromkeys(tensors, observer), data, folder, Silent(), 1)


def _intermediate(proto: onnx.ModelProto, x: Floats, *names: str) -> dict[str, Floats]:
    """Every entry of some tensors."""
    for name in names:
        proto.graph.output.append(onnx.helper.make_tensor_value_info(name, 1, None))
    return {"x": x, **run(proto, {"x": x})}


@pytest.mark.parametrize("batch", [1, 3, 7])
def test_ranges_are_the_extremes_over_all_batches(batch: int, tmp_path: Path, rng: np.random.Generator) -> None:
    proto, x = cnn(rng), floats(rng, 7, 3, 8, 8)
    model = load(proto, tmp_path)
    found = _collect(model, ("x", "a", "r", "y"), _data(x, model, tmp_path, batch), tmp_path)
    for name, values in _intermediate(proto, x, "a", "r").items():
        np.testing.assert_allclose((found[name].low, found[name].high), (values.min(), values.max()), rtol=1e-5)


def test_the_model_is_not_changed_and_nothing_is_left_in_the_folder(tmp_path: Path, rng: np.random.Generator) -> None:
    model = load(cnn(rng), tmp_path)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    before = model.node_counts(), model.outputs()
    _collect(model, ("r",), _data(floats(rng, 2, 3, 8, 8), model, tmp_path, 1), scratch)
    assert (model.node_counts(), model.outputs()) == before
    assert not list(scratch.iterdir())


def test_a_tensor_that_overflows_is_named_with_its_sample(tmp_path: Path) -> None:
    model = load(graph("float[N,2] x => float[N,2] y", "e = Exp(x)  y = Neg(e)"), tmp_path)
    data = _data(array([[0, 1], [2, 3], [4, 500]]), model, tmp_path, 1)
    with pytest.raises(PassError, match=r"^e: is NaN or infinite on sample 2;"):
        _collect(model, ("x", "e"), data, tmp_path)


def test_no_samples_is_an_error(tmp_path: Path, rng: np.random.Generator) -> None:
    model = load(cnn(rng), tmp_path)
    nothing, _ = _data(floats(rng, 2, 3, 8, 8), model, tmp_path, 1).split(0)
    with pytest.raises(DataError, match="no samples to calibrate with"):
        _collect(model, ("r",), nothing, tmp_path)


HISTOGRAMS: tuple[ObserverName, ...] = ("percentile", "entropy", "mse")


@pytest.mark.parametrize("batch", [1, 5, 32])
def test_percentiles_are_those_of_all_entries_but_zeros(batch: int, tmp_path: Path, rng: np.random.Generator) -> None:
    proto, x = cnn(rng), floats(rng, 32, 3, 8, 8)
    model = load(proto, tmp_path)
    data = _data(x, model, tmp_path, batch)
    found = _collect(model, ("a", "r"), data, tmp_path, Observer("percentile", percentile=98))
    values = _intermediate(proto, x, "a", "r")
    expected = np.percentile(values["a"], [1, 99])
    np.testing.assert_allclose(found["a"], expected, atol=np.ptp(values["a"]) / 1000)
    positive = values["r"][values["r"] > 0]
    np.testing.assert_allclose(found["r"], (0, np.percentile(positive, 98)), atol=positive.max() / 1000)


@pytest.mark.parametrize("name", HISTOGRAMS)
def test_ranges_do_not_depend_on_the_batches(name: ObserverName, tmp_path: Path, rng: np.random.Generator) -> None:
    model, x = load(cnn(rng), tmp_path), floats(rng, 30, 3, 8, 8)
    found = [
        _collect(model, ("x", "a", "r"), _data(x, model, tmp_path, batch), tmp_path, Observer(name))
        for batch in (1, 7, 30)
    ]
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("name", ["percentile", "mse"])
def test_a_part_of_the_entries_says_nearly_the_same_as_all(
    name: ObserverName, tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = load(cnn(rng), tmp_path), floats(rng, 64, 3, 8, 8)
    data = _data(x, model, tmp_path, 16)
    every = _collect(model, ("x", "a"), data, tmp_path, Observer(name, percentile=99, bits=4))
    monkeypatch.setattr(ranges, "MOST_ENTRIES", 4 * 1000)
    part, again = (_collect(model, ("x", "a"), data, tmp_path, Observer(name, percentile=99, bits=4)) for _ in "12")
    assert part == again
    assert part != every
    for tensor, (low, high) in every.items():
        np.testing.assert_allclose(part[tensor], (low, high), atol=0.1 * (high - low))


@pytest.mark.parametrize("name", ["min_max", "mean_min_max", *HISTOGRAMS])
def test_what_is_constant_empty_or_zero_has_a_range_too(name: ObserverName, tmp_path: Path) -> None:
    body = """c = Mul(x, zero)  five = Add(c, fives)  minus = Neg(five)
    none = Slice(x, nothing, nothing)  e = Mul(none, none)  one = ReduceMax<keepdims=0>(five)  y = Identity(x)"""
    constants = {"zero": array(0), "fives": array(5), "nothing": np.array([0])}
    model = load(graph("float[N,2] x => float[N,2] y", body, **constants), tmp_path)
    data = _data(array([[0, 1], [2, 3]]), model, tmp_path, 1)
    found = _collect(model, ("c", "five", "minus", "e", "one"), data, tmp_path, Observer(name))
    assert found["c"] == found["e"] == (0, 0)
    assert (found["five"].high, found["one"].high, found["minus"].low) == pytest.approx((5, 5, -5), rel=1e-3)


@pytest.mark.parametrize("name", HISTOGRAMS)
def test_several_inputs_and_lengths_that_change_are_observed(
    name: ObserverName, tmp_path: Path, rng: np.random.Generator
) -> None:
    proto = graph("float[N,L] x, float16[N,K] z => float[N,L] y, float16[N,K] v", "y = Relu(x)  v = Relu(z)")
    model = load(proto, tmp_path)

    class Growing(Dataset):
        def __len__(self) -> int:
            return 4

        def batches(self) -> Iterator[Batch]:
            for length in (1, 50, 7, 2000):
                halves = floats(rng, 1, 3).astype(np.float16)
                yield Batch({"x": floats(rng, 1, length), "z": halves}, {}, 1)

        def split(self, first: int) -> tuple[Dataset, Dataset]:
            raise NotImplementedError

    data = Growing("data", model.inputs(), 1)
    for tensor, (low, high) in _collect(model, ("x", "y", "z", "v"), data, tmp_path, Observer(name)).items():
        assert (low == 0) == (tensor in "yv")
        assert 0 <= high < 5


def test_each_tensor_has_an_observer_of_its_own(tmp_path: Path, rng: np.random.Generator) -> None:
    model, x = load(cnn(rng), tmp_path), floats(rng, 40, 3, 8, 8)
    data = _data(x, model, tmp_path, 8)
    observers = {"x": MIN_MAX, "a": Observer("percentile", percentile=90), "r": Observer("mse", bits=2)}
    found = collect_ranges(model, observers, data, tmp_path, Silent(), 1)
    for tensor, observer in observers.items():
        assert found[tensor] == _collect(model, (tensor,), data, tmp_path, observer)[tensor]


def test_a_number_that_is_none_is_found_wherever_it_is(tmp_path: Path) -> None:
    weights = array([1, np.nan, 1, 1])
    model = load(graph("float[N,4] x => float[N,4] y", "e = Mul(x, w)  y = Neg(e)", w=weights), tmp_path)
    data = _data(floats(np.random.default_rng(0), 3, 4), model, tmp_path, 1)
    with pytest.raises(PassError, match=r"^e: is NaN or infinite on sample 0;"):
        collect_ranges(model, {"e": Observer("mse")}, data, tmp_path, Silent(), 1)
