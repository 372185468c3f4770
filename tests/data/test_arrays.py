"""Samples in array files become feeds: every one once, in the order and type the model wants."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from safetensors.numpy import save_file

from compressor.data import ArraysSource, Batch, Dataset
from compressor.errors import DataError
from compressor.graph.model import Model
from tests.models import Array, array, floats, graph, load

RNG = np.random.default_rng(2)
FLAT = graph("float[N,4] x => float[N,4] y", "y = Relu(x)")
PICTURES = graph("float[N,3,2,2] x => float[N,3,2,2] y", "y = Relu(x)")
FIXED = graph("float[4,2] x => float[4,2] y", "y = Relu(x)")
TWO = graph("float[N,4] x, int64[N] i => float[N,4] y", "c = Cast<to=1>(i)  y = Relu(x)")


def _file(folder: Path, **arrays: Array) -> Path:
    np.savez(folder / "data.npz", allow_pickle=True, **arrays)
    return folder / "data.npz"


def _open(proto: onnx.ModelProto, folder: Path, path: Path, seed: int = 0, **settings: object) -> Dataset:
    model: Model = load(proto, folder)
    return ArraysSource.model_validate({"path": path, **settings}).open(model, "data.here", seed)


def _joined(data: Dataset, name: str = "x") -> Array:
    """All samples, without what fills up the last batch."""
    return np.concatenate([batch.feeds[name][: batch.samples] for batch in data.batches()])


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".safetensors"])
@pytest.mark.parametrize("batch", [1, 3, 10, 32])
def test_every_format_gives_all_samples_once_in_order(suffix: str, batch: int, tmp_path: Path) -> None:
    x, path = floats(RNG, 10, 4), tmp_path / f"data{suffix}"
    match suffix:
        case ".npz":
            np.savez(path, x=x)
        case ".npy":
            np.save(path, x)
        case _:
            save_file({"x": x}, path)
    data = _open(FLAT, tmp_path, path, batch=batch)
    assert len(data) == 10
    assert [b.samples for b in data.batches()] == [min(batch, 10 - i) for i in range(0, 10, batch)]
    np.testing.assert_array_equal(_joined(data), x)


def test_arrays_are_found_by_the_names_given_and_labels_come_along(tmp_path: Path) -> None:
    x, i, t = floats(RNG, 5, 4), np.arange(5), np.arange(5) * 10
    path = _file(tmp_path, pixels=x, i=i, target=t)
    batches = list(_open(TWO, tmp_path, path, inputs={"x": "pixels"}, labels="target", batch=2).batches())
    np.testing.assert_array_equal(np.concatenate([b.labels[""] for b in batches]), t)
    np.testing.assert_array_equal(np.concatenate([b.feeds["i"] for b in batches]), i)
    named = next(_open(TWO, tmp_path, path, inputs={"x": "pixels"}, labels={"y": "target"}).batches())
    assert named.labels.keys() == {"y"}


def test_a_lone_array_feeds_a_lone_input_whatever_its_name(tmp_path: Path) -> None:
    x = floats(RNG, 3, 4)
    np.testing.assert_array_equal(_joined(_open(FLAT, tmp_path, _file(tmp_path, anything=x))), x)


def test_values_are_scaled_centred_and_divided_per_channel(tmp_path: Path) -> None:
    stored = RNG.integers(0, 256, (6, 3, 2, 2)).astype(np.uint8)
    mean, std = [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]
    data = _open(PICTURES, tmp_path, _file(tmp_path, x=stored), scale=1 / 255, mean=mean, std=std)
    expected = (stored / 255.0 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    np.testing.assert_allclose(_joined(data), expected, rtol=1e-5, atol=1e-6)


def test_channels_move_to_where_the_model_wants_them(tmp_path: Path) -> None:
    stored = floats(RNG, 5, 2, 2, 3)
    data = _open(PICTURES, tmp_path, _file(tmp_path, x=stored), layout="nhwc_to_nchw", mean=[1, 2, 3])
    expected = stored.transpose(0, 3, 1, 2) - array([1, 2, 3]).reshape(3, 1, 1)
    np.testing.assert_allclose(_joined(data), expected, rtol=1e-6)
    last = graph("float[N,2,2,3] x => float[N,2,2,3] y", "y = Relu(x)")
    first = floats(RNG, 5, 3, 2, 2)
    data = _open(last, tmp_path, _file(tmp_path, x=first), layout="nchw_to_nhwc", mean=[1, 2, 3])
    np.testing.assert_allclose(_joined(data), first.transpose(0, 2, 3, 1) - array([1, 2, 3]), rtol=1e-6)


def test_one_number_serves_all_channels_and_flat_features_are_channels(tmp_path: Path) -> None:
    x = floats(RNG, 5, 4)
    np.testing.assert_allclose(_joined(_open(FLAT, tmp_path, _file(tmp_path, x=x), mean=2, std=4)), (x - 2) / 4)
    per = _open(FLAT, tmp_path, _file(tmp_path, x=x), mean=[1, 2, 3, 4])
    np.testing.assert_allclose(_joined(per), x - array([1, 2, 3, 4]))


def test_an_array_with_one_axis_more_holds_whole_feeds(tmp_path: Path) -> None:
    x = floats(RNG, 3, 4, 2)
    batches = list(_open(FIXED, tmp_path, _file(tmp_path, x=x)).batches())
    assert len(batches) == 3
    for batch, expected in zip(batches, x, strict=True):
        np.testing.assert_array_equal(batch.feeds["x"], expected)


def test_the_last_batch_of_a_fixed_size_is_filled_up_and_says_how_many_count(tmp_path: Path) -> None:
    x = floats(RNG, 6, 2)
    batches = list(_open(FIXED, tmp_path, _file(tmp_path, x=x, t=np.arange(6)), labels="t").batches())
    assert [(b.samples, len(b.feeds["x"])) for b in batches] == [(4, 4), (2, 4)]
    np.testing.assert_array_equal(np.concatenate([b.feeds["x"][: b.samples] for b in batches]), x)


def test_labels_of_a_filled_up_batch_match_its_samples(tmp_path: Path) -> None:
    path = _file(tmp_path, x=floats(RNG, 6, 2), t=np.arange(6))
    batches = list(_open(FIXED, tmp_path, path, labels="t").batches())
    assert [b.labels[""][: b.samples].tolist() for b in batches] == [[0, 1, 2, 3], [4, 5]]
    assert all(len(b.labels[""]) == b.samples for b in batches)


@pytest.mark.parametrize("given", [np.int8, np.int32, np.uint8, np.int64])
def test_integers_become_the_integers_of_the_model(given: type[np.integer], tmp_path: Path) -> None:
    data = _open(TWO, tmp_path, _file(tmp_path, x=floats(RNG, 3, 4), i=np.array([1, 2, 3], given)))
    found = _joined(data, "i")
    assert found.dtype == np.int64
    assert found.tolist() == [1, 2, 3]


def test_integers_for_a_float_input_are_pixels_or_counts_and_become_floats(tmp_path: Path) -> None:
    data = _open(FLAT, tmp_path, _file(tmp_path, x=np.arange(8, dtype=np.uint8).reshape(2, 4)))
    np.testing.assert_array_equal(_joined(data), np.arange(8, dtype=np.float32).reshape(2, 4))


def test_float64_becomes_float32(tmp_path: Path) -> None:
    assert _joined(_open(FLAT, tmp_path, _file(tmp_path, x=RNG.standard_normal((3, 4))))).dtype == np.float32


X = floats(RNG, 5, 4)


@pytest.mark.parametrize(
    ("proto", "arrays", "settings", "reason"),
    [
        (FLAT, {"x": np.full((5, 4), "abc")}, {}, "but input"),
        (FLAT, {"x": X[:, :3]}, {}, r"has shape \[5, 3\], but the model's input is x: float32\[N, 4\]"),
        (FLAT, {"x": X[:, 0]}, {}, "has shape"),
        (FLAT, {"x": X[:0]}, {}, "has no samples"),
        (TWO, {"x": X, "i": X[:, 0]}, {}, "i, sample 0: is float32, but input i"),
        (TWO, {"x": X}, {}, "has no array i; it has x"),
        (TWO, {"x": X, "i": np.arange(4)}, {}, "arrays differ in samples: .*5.*4"),
        (FLAT, {"x": X, "t": np.arange(4)}, {"labels": "t"}, "arrays differ in samples"),
        (FLAT, {"x": X}, {"labels": "t"}, "has no array t"),
        (FLAT, {"x": X, "t": np.array(1)}, {"labels": "t"}, "."),
        (FLAT, {"x": X, "z": X}, {"inputs": {"xx": "z"}}, "inputs names xx, which is no input of the model; it has x"),
        (FIXED, {"x": X[:, :2]}, {"batch": 3}, "batch is 3, but the model takes exactly 4"),
        (FLAT, {"x": X}, {"mean": [1, 2]}, "."),
        (PICTURES, {"x": floats(RNG, 2, 3, 2, 2)}, {"std": [1, 2]}, "."),
        (TWO, {"x": X, "i": np.array([1, 2, 3, 4, 2**63], np.uint64)}, {}, "."),
    ],
)
def test_what_does_not_fit_the_model_is_refused_with_its_place(
    proto: onnx.ModelProto, arrays: dict[str, Array], settings: dict[str, object], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=reason) as refused:
        list(_open(proto, tmp_path, _file(tmp_path, **arrays), **settings).batches())
    assert str(refused.value).startswith("data.here: ")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_sample_that_is_not_finite_is_named(bad: float, tmp_path: Path) -> None:
    x = floats(RNG, 10, 4)
    x[7, 2] = bad
    batches = _open(FLAT, tmp_path, _file(tmp_path, x=x), batch=5).batches()
    next(batches)
    with pytest.raises(
        DataError, match=r"^data.here: x, sample 5: holds NaN or infinity \(first in sample 2 of the batch"
    ):
        next(batches)


def _garbage(kind: str, path: Path) -> None:
    if kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("1,2,3\n" * 50)
    elif kind == "npy inside":
        np.save(path.with_suffix(".npy"), X)
        path.write_bytes(path.with_suffix(".npy").read_bytes())
    elif kind == "truncated":
        np.savez(path.with_suffix(".npz"), x=X)
        path.write_bytes(path.with_suffix(".npz").read_bytes()[:150])


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".safetensors", ".csv"])
@pytest.mark.parametrize("kind", ["empty", "text", "npy inside", "truncated", "missing"])
def test_a_file_that_is_no_array_file_is_refused_in_one_line(kind: str, suffix: str, tmp_path: Path) -> None:
    if (kind, suffix) == ("npy inside", ".npy"):
        return
    path = tmp_path / f"data{suffix}"
    _garbage(kind, path)
    with pytest.raises(DataError, match=rf"^data.here: .*data\{suffix}") as refused:
        _open(FLAT, tmp_path, path)
    assert "\n" not in str(refused.value)


def test_arrays_of_objects_are_refused_without_running_them(tmp_path: Path) -> None:
    np.save(tmp_path / "data.npy", np.array([{"a": 1}, None], object), allow_pickle=True)
    with pytest.raises(DataError, match="cannot be read"):
        _open(FLAT, tmp_path, tmp_path / "data.npy")


def _rows(data: Dataset) -> list[float]:
    return [] if len(data) == 0 else _joined(data)[:, 0].tolist()


def test_a_draw_is_without_repetition_and_the_same_for_the_same_seed(tmp_path: Path) -> None:
    path = _file(tmp_path, x=np.arange(40, dtype=np.float32).reshape(10, 4))
    draws = [_rows(_open(FLAT, tmp_path, path, seed=seed, samples=6)) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    assert len(set(draws[0])) == 6
    assert sorted(_rows(_open(FLAT, tmp_path, path, samples=99))) == list(range(0, 40, 4))


@pytest.mark.parametrize("first", [0, 1, 5, 9, 10])
def test_a_split_holds_every_sample_exactly_once(first: int, tmp_path: Path) -> None:
    path = _file(tmp_path, x=np.arange(40, dtype=np.float32).reshape(10, 4))
    left, right = _open(FLAT, tmp_path, path, batch=3).split(first)
    assert (len(left), len(right)) == (first, 10 - first)
    assert sorted(_rows(left) + _rows(right)) == list(range(0, 40, 4))


@pytest.mark.parametrize(("first", "sizes"), [(None, (8, 2)), (3, (3, 7)), (10, (8, 2)), (99, (8, 2))])
def test_holding_out_leaves_some_to_judge_by_and_repeats_with_the_seed(
    first: int | None, sizes: tuple[int, int], tmp_path: Path
) -> None:
    path = _file(tmp_path, x=np.arange(40, dtype=np.float32).reshape(10, 4))
    model, source = load(FLAT, tmp_path), ArraysSource.model_validate({"path": path})
    splits = [source.open_split(model, "data", seed, first) for seed in (0, 0)]
    assert tuple(map(len, splits[0])) == sizes
    assert [_rows(part) for part in splits[0]] == [_rows(part) for part in splits[1]]
    assert sorted(_rows(splits[0][0]) + _rows(splits[0][1])) == list(range(0, 40, 4))


def test_batches_may_be_streamed_again_and_first_is_the_first(tmp_path: Path) -> None:
    data = _open(FLAT, tmp_path, _file(tmp_path, x=X), batch=2)
    once, again = list(data.batches()), list(data.batches())
    assert all(isinstance(batch, Batch) for batch in once)
    assert all(np.array_equal(a.feeds["x"], b.feeds["x"]) for a, b in zip(once, again, strict=True))
    np.testing.assert_array_equal(data.first().feeds["x"], X[:2])
