"""ONNX graphs in torch: executed, differentiated, trained; imported only where that is wanted."""

from compressor.runtime.autograd.network import Network

__all__ = ["Network"]
