"""Copies that give out what is inside, in a few numbers."""

from pathlib import Path

import numpy as np

from compressor.graph.observe import ENTRIES, RANGE_HIGH, RANGE_LOW, SHAPE, STRIDE, with_ranges, with_shapes
from tests.models import cnn, floats, load, outputs


def test_ranges_are_the_only_outputs_and_each_is_one_number(tmp_path: Path, rng: np.random.Generator) -> None:
    model = load(cnn(rng), tmp_path)
    observed = with_ranges(model, dict.fromkeys("xry", 0))
    expected = {prefix + name for name in "xry" for prefix in (RANGE_LOW, RANGE_HIGH)}
    assert {value.name for value in observed.ir.graph.outputs} == expected
    x = floats(rng, 5, 3, 8, 8)
    found = outputs(observed, {"x": x}, tmp_path)
    assert found.keys() == expected
    assert {array.shape for array in found.values()} == {()}
    assert (found[RANGE_LOW + "x"], found[RANGE_HIGH + "x"]) == (x.min(), x.max())


def test_entries_of_those_tensors_come_out_that_are_asked_for(tmp_path: Path, rng: np.random.Generator) -> None:
    observed = with_ranges(load(cnn(rng), tmp_path), {"x": 1000, "r": 0, "y": 20})
    x = floats(rng, 5, 3, 8, 8)
    found = outputs(observed, {"x": x}, tmp_path)
    assert {name for name in found if name.startswith((ENTRIES, STRIDE))} == {
        ENTRIES + "x",
        STRIDE + "x",
        ENTRIES + "y",
        STRIDE + "y",
    }
    assert np.array_equal(found[ENTRIES + "x"], x.ravel())
    assert found[STRIDE + "x"] == 1


def test_shapes_are_those_that_occur(tmp_path: Path, rng: np.random.Generator) -> None:
    observed = with_shapes(load(cnn(rng), tmp_path), ("x", "p", "w2"))
    found = outputs(observed, {"x": floats(rng, 5, 3, 8, 8)}, tmp_path)
    assert {name: shape.tolist() for name, shape in found.items()} == {
        SHAPE + "x": [5, 3, 8, 8],
        SHAPE + "p": [5, 8, 1, 1],
        SHAPE + "w2": [8, 8, 3, 3],
    }


def test_the_model_observed_is_not_changed(tmp_path: Path, rng: np.random.Generator) -> None:
    model = load(cnn(rng), tmp_path)
    before = model.node_counts(), model.outputs()
    with_ranges(model, {"r": 10})
    with_shapes(model, ("r",))
    assert (model.node_counts(), model.outputs()) == before


def test_nothing_asked_gives_a_model_that_still_runs(tmp_path: Path, rng: np.random.Generator) -> None:
    observed = with_shapes(load(cnn(rng), tmp_path), ())
    assert len(outputs(observed, {"x": floats(rng, 1, 3, 8, 8)}, tmp_path)) == 1
