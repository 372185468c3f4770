"""TorchScript files: told by their content, looked through, and converted to ONNX by a confined process."""

from compressor.graph.torchscript.archive import is_torchscript
from compressor.graph.torchscript.conversion import Conversion, convert, examples
from compressor.graph.torchscript.inputs import parse

__all__ = ["Conversion", "convert", "examples", "is_torchscript", "parse"]
