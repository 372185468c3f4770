"""ONNX Runtime's own quantizers, as their documentation says to use them.

    python -m benchmarks.rivals TASK OUTPUT --samples N --assets FOLDER

`quant_pre_process`, then `quantize_static` (QDQ, uint8 activations with a zero point, int8 weights per
channel, MinMax) or `quantize_dynamic` (int8 weights per channel).
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from benchmarks import feed
from benchmarks.tasks import TASKS, Task
from compressor.runtime.ort import Feeds


class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no stubs
    """Batches, handed out one by one."""

    def __init__(self, batches: Iterator[Feeds]) -> None:
        self._batches = batches

    def get_next(self) -> dict[str, object] | None:
        """The next batch; None after the last."""
        batch = next(self._batches, None)
        return None if batch is None else dict(batch)


def quantize(task: Task, assets: Path, output: Path, samples: int) -> None:
    """Write the quantized model of a task to `output`."""
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(task.model(assets)), str(prepared))
        if task.method == "dynamic":
            quantize_dynamic(prepared, output, per_channel=True, weight_type=QuantType.QInt8)
            return
        quantize_static(
            prepared,
            output,
            Reader(feed.batches(task, assets, samples)),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )


def main() -> None:
    """Quantize one model."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rivals", description="ONNX Runtime's own quantizers.")
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("output", type=Path)
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--assets", type=Path, required=True)
    given = parser.parse_args()
    quantize(TASKS[given.task], given.assets, given.output, given.samples)


if __name__ == "__main__":
    main()
