"""ONNX graphs in torch: executed, differentiated, trained; imported only where that is wanted."""

from compressor.runtime.autograd.network import Network
from compressor.runtime.autograd.write_back import learned_arrays, store_arrays, write_back

__all__ = ["Network", "learned_arrays", "store_arrays", "write_back"]
