"""What execution costs: the shape of the figures, not the figures."""

from pathlib import Path

import numpy as np
import pytest

from compressor.errors import ModelError
from compressor.numerics.order_statistics import median_interval
from compressor.runtime.environment import environment, versions
from compressor.runtime.latency import LEAST_RUNS, compare, measure
from compressor.runtime.memory import peak_bytes
from tests.models import floats, mlp, write


@pytest.mark.parametrize("threads", [1, 2])
def test_two_models_are_timed_in_pairs_with_an_interval_around_the_median(
    threads: int, tmp_path: Path, rng: np.random.Generator
) -> None:
    path = write(mlp(rng), tmp_path / "model.onnx")
    timing = compare(path, path, {"x": floats(rng, 2, 8)}, threads=threads, seconds=0)
    assert timing.reference.runs == timing.result.runs == LEAST_RUNS
    assert timing.ratio.low <= timing.ratio.median <= timing.ratio.high
    assert timing.threads == threads
    for latency in (timing.reference, timing.result):
        assert 0 < latency.median_ms <= latency.p95_ms


def test_eleven_pairs_are_enough_for_an_interval_narrower_than_their_range() -> None:
    low, high = median_interval(np.arange(float(LEAST_RUNS)))
    assert (low, high) != (0, LEAST_RUNS - 1)


def test_one_model_is_timed_alone(tmp_path: Path, rng: np.random.Generator) -> None:
    latency = measure(write(mlp(rng), tmp_path / "model.onnx"), {"x": floats(rng, 1, 8)}, seconds=0)
    assert latency.runs >= LEAST_RUNS


def test_the_peak_of_a_process_holds_runtime_and_weights(tmp_path: Path, rng: np.random.Generator) -> None:
    small = write(mlp(rng), tmp_path / "small.onnx")
    large = write(mlp(rng, 2048, 8192, 1024), tmp_path / "large.onnx")
    peaks = [peak_bytes(path, {"x": floats(rng, 1, width)}) for path, width in ((small, 8), (large, 2048))]
    assert peaks[0] > 10_000_000
    assert peaks[1] - peaks[0] > 3 * 8192 * 1024 * 4 / 2


def test_names_of_inputs_may_be_anything(tmp_path: Path, rng: np.random.Generator) -> None:
    proto = mlp(rng)
    proto.graph.input[0].name = proto.graph.node[0].input[0] = "images/batch:0 file"
    assert peak_bytes(write(proto, tmp_path / "model.onnx"), {"images/batch:0 file": floats(rng, 1, 8)}) > 10_000_000


def test_a_process_that_fails_is_one_line_with_the_path(tmp_path: Path, rng: np.random.Generator) -> None:
    with pytest.raises(ModelError) as refused:
        peak_bytes(tmp_path / "missing.onnx", {"x": floats(rng, 1, 8)})
    assert str(refused.value).startswith(f"{tmp_path / 'missing.onnx'}: cannot be run in a process of its own: ")
    assert "\n" not in str(refused.value)


def test_the_environment_names_the_machine_and_the_libraries() -> None:
    described = environment()
    assert described.items() >= versions().items()
    assert all(isinstance(value, str) and value for value in described.values())
