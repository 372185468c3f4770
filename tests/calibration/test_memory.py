"""What calibration needs does not grow with the samples."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.models import floats, graph, write

SCRIPT = """
import sys
from pathlib import Path
from compressor.calibration import collect_ranges
from compressor.data import RandomSource
from compressor.graph.model import Model
from compressor.progress import Silent
from compressor.runtime.memory import own_peak

model = Model.load(Path(sys.argv[1]))
data = RandomSource(samples=int(sys.argv[2])).open(model, "data", 0)
collect_ranges(model, ("a", "b"), data, Path(sys.argv[1]).parent, Silent(), 1)
print(own_peak())
"""

ACTIVATION_BYTES = 64 * 128 * 128 * 4


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory of a process is read from /proc")
def test_forty_batches_need_no_more_memory_than_four(tmp_path: Path) -> None:
    body = "a = Conv(x, w)  b = Relu(a)  y = GlobalAveragePool(b)"
    weights = floats(np.random.default_rng(0), 64, 3, 1, 1)
    path = write(graph("float[1,3,128,128] x => float[1,64,1,1] y", body, w=weights), tmp_path / "model.onnx")
    four, forty = (_peak(path, batches) for batches in (4, 40))
    assert forty - four < 36 * ACTIVATION_BYTES / 4


def _peak(path: Path, batches: int) -> int:
    command = [sys.executable, "-c", SCRIPT, str(path), str(batches)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
