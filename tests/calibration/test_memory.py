"""What calibration needs does not grow with the samples."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from compressor.calibration import ObserverName
from tests.models import floats, graph, write

SCRIPT = """
import sys
from pathlib import Path
from compressor.calibration import Observer, collect_ranges
from compressor.data import RandomSource
from compressor.graph.model import Model
from compressor.progress import Silent
from compressor.runtime.memory import own_peak

model = Model.load(Path(sys.argv[1]))
data = RandomSource(samples=int(sys.argv[2])).open(model, "data", 0)
collect_ranges(model, dict.fromkeys("ab", Observer(sys.argv[3])), data, Path(sys.argv[1]).parent, Silent(), 1)
print(own_peak())
"""

ACTIVATION_BYTES = 64 * 128 * 128 * 4


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="peak memory of a process is read from /proc"),
]


@pytest.mark.parametrize("observer", ["mean_min_max", "percentile", "entropy", "mse"])
def test_forty_batches_need_no_more_memory_than_four(tmp_path: Path, observer: ObserverName) -> None:
    path = _model(tmp_path)
    four, forty = (_peak(path, batches, observer) for batches in (4, 40))
    assert forty - four < 36 * ACTIVATION_BYTES / 4


def test_a_histogram_needs_little_more_memory_than_the_extremes(tmp_path: Path) -> None:
    path = _model(tmp_path)
    extremes, histogram = (_peak(path, 40, observer) for observer in ("min_max", "mse"))
    assert histogram <= 1.3 * extremes


def _model(folder: Path) -> Path:
    body = "a = Conv(x, w)  b = Relu(a)  y = GlobalAveragePool(b)"
    weights = floats(np.random.default_rng(0), 64, 3, 1, 1)
    return write(graph("float[1,3,128,128] x => float[1,64,1,1] y", body, w=weights), folder / "model.onnx")


def _peak(path: Path, batches: int, observer: str) -> int:
    command = [sys.executable, "-c", SCRIPT, str(path), str(batches), observer]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
