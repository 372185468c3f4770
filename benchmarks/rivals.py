"""ONNX Runtime's own quantizers, as their documentation says to use them.

    python -m benchmarks.rivals ORDER.json

An order names a method:

- static: `quant_pre_process`, then `quantize_static`: QDQ, uint8 activations with a zero point, int8 weights per
  channel;
- dynamic: `quant_pre_process`, then `quantize_dynamic`: int8 weights per channel;
- blocks: `MatMulNBitsQuantizer`, round to nearest in blocks, products and lookup tables. It writes opset 21 on the
  model as it is, so that is raised beforehand.
"""

import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx
from onnx.version_converter import convert_version
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
from onnxruntime.quantization.shape_inference import quant_pre_process

from benchmarks import feed
from compressor.runtime.ort import Feeds

_OPSET = 21

Order = Mapping[str, Any]
"""`model`, `output`, `calibration`, `method` and its `settings`; see `benchmarks.tools.order`."""


class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no stubs
    """Batches, handed out one by one."""

    def __init__(self, batches: Iterator[Feeds]) -> None:
        self._batches = batches

    def get_next(self) -> dict[str, object] | None:
        """The next batch; None after the last."""
        batch = next(self._batches, None)
        return None if batch is None else dict(batch)


def static(order: Order, batches: Iterator[Feeds], folder: Path) -> None:
    """Settings: `calibrate_method`, MinMax when left out."""
    quantize_static(
        _prepared(order, folder),
        order["output"],
        Reader(batches),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod[order["settings"].get("calibrate_method", "MinMax")],
    )


def dynamic(order: Order, batches: Iterator[Feeds], folder: Path) -> None:
    """No settings."""
    quantize_dynamic(_prepared(order, folder), order["output"], per_channel=True, weight_type=QuantType.QInt8)


def blocks(order: Order, batches: Iterator[Feeds], folder: Path) -> None:
    """Settings: those of `MatMulNBitsQuantizer`. It quantizes lookup tables in 4 bits alone."""
    settings = order["settings"]
    layers = ("MatMul", "Gather") if settings["bits"] == 4 else ("MatMul",)
    model = convert_version(onnx.load(order["model"]), _OPSET)
    quantizer = MatMulNBitsQuantizer(model, accuracy_level=4, op_types_to_quantize=layers, **settings)
    quantizer.process()
    onnx.save(quantizer.model.model, order["output"])


METHODS: dict[str, Callable[[Order, Iterator[Feeds], Path], None]] = {
    "static": static,
    "dynamic": dynamic,
    "blocks": blocks,
}


def _prepared(order: Order, folder: Path) -> Path:
    prepared = folder / "prepared.onnx"
    quant_pre_process(order["model"], str(prepared))
    return prepared


def main(file: str) -> None:
    """Quantize one model."""
    order: Order = json.loads(Path(file).read_text())
    with tempfile.TemporaryDirectory() as folder:
        METHODS[order["method"]](order, feed.batches(Path(file)), Path(folder))


if __name__ == "__main__":
    main(*sys.argv[1:])
