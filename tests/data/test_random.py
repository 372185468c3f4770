"""Made-up samples: the same each time, of shapes on which the model runs."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from compressor.data import Dataset, RandomSource
from compressor.errors import DataError
from tests.models import floats, graph, load, run

RNG = np.random.default_rng(0)
PLAIN = graph("float[N,4] x => float[N,4] y", "y = Relu(x)")
LOOKUP = graph("int64[N,S] i => float y", "y = Gather(w, i)", w=floats(RNG, 7, 3))


def _open(proto: onnx.ModelProto, folder: Path, seed: int = 0, **settings: object) -> Dataset:
    return RandomSource.model_validate(settings).open(load(proto, folder), "data.here", seed)


def _stream(data: Dataset, name: str = "x") -> list[bytes]:
    return [batch.feeds[name].tobytes() for batch in data.batches()]


def test_the_stream_repeats_for_a_seed_and_differs_between_seeds(tmp_path: Path) -> None:
    data = _open(PLAIN, tmp_path, samples=5)
    assert _stream(data) == _stream(data) == _stream(_open(PLAIN, tmp_path, samples=5))
    assert not set(_stream(data)) & set(_stream(_open(PLAIN, tmp_path, seed=1, samples=5)))
    assert len(set(_stream(data))) == len(data) == 5


def test_a_split_holds_every_sample_exactly_once(tmp_path: Path) -> None:
    data = _open(PLAIN, tmp_path, samples=9)
    left, right = data.split(4)
    assert _stream(left) + _stream(right) == _stream(data)
    assert not set(_stream(left)) & set(_stream(right))


@pytest.mark.parametrize("first", [None, 1, 20])
def test_what_is_held_out_is_never_what_was_learned_from(first: int | None, tmp_path: Path) -> None:
    left, right = RandomSource().open_split(load(PLAIN, tmp_path), "data", 0, first)
    assert len(right) > 0
    assert len(left) == (first or len(left))
    assert not set(_stream(left)) & set(_stream(right))


@pytest.mark.parametrize(
    "proto",
    [
        PLAIN,
        graph("float[N,C] x => float y", "y = MatMul(x, w)", w=floats(RNG, 4, 2)),
        graph("float[N,C,H,W] x => float y", "c = Conv(x, w)  f = Flatten(c)  y = MatMul(f, v)",
              w=floats(RNG, 2, 3, 3, 3), v=floats(RNG, 2 * 30 * 30, 2)),
        graph("float[N,?] x => float y", "y = MatMul(x, w)", w=floats(RNG, 640, 2)),
    ],
)  # fmt: skip
def test_open_dimensions_get_sizes_on_which_the_model_runs_where_one_size_does(
    proto: onnx.ModelProto, tmp_path: Path
) -> None:
    shape = proto.graph.input[0].type.tensor_type.shape
    if len(shape.dim) == 4:
        shape.dim[1].dim_value = 3
    feeds = _open(proto, tmp_path, samples=1).first().feeds
    assert feeds["x"].shape[0] == 1
    assert run(proto, feeds)["y"].size


def test_shapes_that_are_given_are_used(tmp_path: Path) -> None:
    assert _open(PLAIN, tmp_path, shapes={"x": [5, 4]}).first().feeds["x"].shape == (5, 4)


def test_shapes_that_cannot_be_found_are_asked_for(tmp_path: Path) -> None:
    proto = graph("float[N,C] x => float y", "y = MatMul(x, w)", w=floats(RNG, 17, 2))
    with pytest.raises(DataError, match=r"^data.here: no input sizes found .*give them as shapes: \{x: ") as refused:
        _open(proto, tmp_path)
    assert "\n" not in str(refused.value)


def test_indices_stay_inside_the_table_and_reach_all_of_it(tmp_path: Path) -> None:
    data = _open(LOOKUP, tmp_path, samples=20, shapes={"i": [1, 16]})
    seen = np.concatenate([batch.feeds["i"].ravel() for batch in data.batches()])
    assert set(seen.tolist()) == set(range(7))


def test_values_that_are_given_bound_what_is_drawn(tmp_path: Path) -> None:
    proto = graph("float[1,50] x, int32[1,50] i => float[1,50] y", "y = Relu(x)")
    feeds = _open(proto, tmp_path, values={"x": [2, 3], "i": [-1, 1]}).first().feeds
    assert 2 <= feeds["x"].min() < feeds["x"].max() <= 3
    assert set(feeds["i"].ravel().tolist()) == {-1, 0, 1}
    assert feeds["i"].dtype == np.int32


def test_floats_are_standard_normal(tmp_path: Path) -> None:
    proto = graph("float[1,10000] x => float[1,10000] y", "y = Relu(x)")
    x = _open(proto, tmp_path).first().feeds["x"]
    assert abs(x.mean()) < 4 / 100
    assert abs(x.std() - 1) < 4 / 141


@pytest.mark.parametrize("settings", [{"shapes": {"z": [1, 4]}}, {"values": {"z": [0, 1]}}])
def test_an_input_that_is_not_there_is_named(settings: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="inputs names z, which is no input of the model; it has x"):
        _open(PLAIN, tmp_path, **settings)


def test_text_cannot_be_made_up(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"input s: str\[2\] takes text"):
        _open(graph("string[2] s => string[2] y", "y = Identity(s)"), tmp_path)
