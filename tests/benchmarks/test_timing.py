"""Ratios come one per result, within their intervals; none of it is timed against a clock."""

from pathlib import Path

import numpy as np

from benchmarks import timing
from tests.models import floats, mlp, write


def test_every_result_gets_a_ratio_within_its_interval(tmp_path: Path, rng: np.random.Generator) -> None:
    model = write(mlp(rng), tmp_path / "model.onnx")
    found = timing.ratios(model, [model, model, model], {"x": floats(rng, 1, 8)}, seconds=0)
    assert len(found) == 3
    assert all(0 < ratio.low <= ratio.median <= ratio.high for ratio in found)


def test_without_results_there_are_no_ratios(tmp_path: Path, rng: np.random.Generator) -> None:
    model = write(mlp(rng), tmp_path / "model.onnx")
    assert timing.ratios(model, [], {"x": floats(rng, 1, 8)}, seconds=0) == []
