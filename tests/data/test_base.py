"""Rules common to all sources."""

from pathlib import Path

import numpy as np
import pytest

from compressor.data import ArraysSource
from compressor.data.base import Placed, batch_size, fit, share, shuffled
from compressor.errors import DataError
from compressor.graph.model import TensorSpec


@pytest.mark.parametrize("count", [1, 7, 100])
def test_all_samples_come_in_order_and_a_draw_never_repeats_one(count: int) -> None:
    assert shuffled(count, None, 0).tolist() == list(range(count))
    for wanted in (1, count, count + 5):
        drawn = shuffled(count, wanted, 3).tolist()
        assert len(drawn) == len(set(drawn)) == min(wanted, count)
        assert set(drawn) <= set(range(count))
        assert drawn == shuffled(count, wanted, 3).tolist()


def test_another_seed_is_another_order() -> None:
    assert shuffled(100, 100, 0).tolist() != shuffled(100, 100, 1).tolist()


@pytest.mark.parametrize("count", [1, 2, 5, 9, 1000])
@pytest.mark.parametrize("first", [None, 1, 5, 2000])
def test_some_samples_are_left_to_judge_by(count: int, first: int | None) -> None:
    assert count - share(count, first) >= min(1, count - 1)


@pytest.mark.parametrize(
    ("wanted", "shapes", "size"),
    [
        (None, [(8, 3)], 8),
        (8, [(8, 3)], 8),
        (5, [("N", 3)], 5),
        (None, [("N", 3)], 32),
        (None, [("N", 3, 224, 224)], 1),
        (None, [("N", 64, 64)], 16),
        (None, [(8, 3), ("N", 3)], 8),
        (None, [(8, 3), (1, 3)], 1),
        (None, [None], 32),
    ],
)
def test_batches_are_what_the_model_is_fixed_to_or_what_fits_in_memory(
    wanted: int | None, shapes: list[tuple[int | str | None, ...] | None], size: int
) -> None:
    specs = tuple(TensorSpec(f"x{i}", "float32", shape) for i, shape in enumerate(shapes))
    assert batch_size(wanted, specs, "data") == size


@pytest.mark.parametrize(
    ("given", "wanted", "fits"),
    [
        ("float64", "float32", True),
        ("float32", "float16", True),
        ("int8", "int64", True),
        ("uint8", "int32", True),
        ("bool", "bool", True),
        ("int64", "float32", False),
        ("float32", "int64", False),
        ("bool", "float32", False),
        ("int64", "bool", False),
    ],
)
def test_numbers_change_type_only_within_their_kind(given: str, wanted: str, fits: bool) -> None:
    values = np.array([0, 1, 1, 0]).astype(given)
    spec = TensorSpec("x", wanted, (4,))
    if fits:
        found = fit(values, spec, "here")
        assert (found.dtype, found.tolist()) == (np.dtype(wanted), [0, 1, 1, 0])
    else:
        with pytest.raises(DataError, match=f"^here: is {given}, but input x: {wanted}"):
            fit(values, spec, "here")


@pytest.mark.parametrize(
    ("given", "wanted", "value"), [("int64", "int8", 300), ("int32", "uint8", -1), ("float64", "float32", 1e300)]
)
def test_a_number_that_the_models_type_cannot_hold_is_refused(given: str, wanted: str, value: float) -> None:
    with pytest.raises(DataError, match=r"^here: "):
        fit(np.array([0, value, 0, 0]).astype(given), TensorSpec("x", wanted, (4,)), "here")


def test_a_path_is_relative_to_the_recipe_it_is_written_in(tmp_path: Path) -> None:
    source = ArraysSource.model_validate({"path": Placed("sub/data.npz", tmp_path)})
    assert source.paths() == (tmp_path / "sub" / "data.npz",)
    elsewhere = ArraysSource.model_validate({"path": Placed("/abs/data.npz", tmp_path)})
    assert elsewhere.paths() == (Path("/abs/data.npz"),)


def test_two_sources_draw_from_the_same_place_whatever_their_number_and_labels() -> None:
    one = ArraysSource.model_validate({"path": "a.npz", "samples": 3, "batch": 2})
    same = ArraysSource.model_validate({"path": "a.npz", "labels": "t", "metric": "top1"})
    other = ArraysSource.model_validate({"path": "b.npz"})
    spec = (TensorSpec("x", "float32", ("n", 3)),)
    assert one.same_samples(same, spec)
    assert not one.same_samples(other, spec)
