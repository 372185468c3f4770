"""Which kernels ONNX Runtime really runs, read from the graph as it has optimized it.

Q/DQ nodes in a file are a wish; a fusion that does not happen raises no error anywhere. So the
optimized graph is counted: how many layers of each family ended in an integer kernel.
"""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

_FAMILIES: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    "Conv": (
        frozenset({"QLinearConv", "NhwcQLinearConv", "ConvInteger"}),
        frozenset({"Conv", "FusedConv", "NhwcFusedConv"}),
    ),
    "ConvTranspose": (frozenset(), frozenset({"ConvTranspose"})),
    "MatMul": (
        frozenset(
            {
                "QLinearMatMul",
                "QGemm",
                "MatMulInteger",
                "MatMulInteger16",
                "MatMulIntegerToFloat",
                "DynamicQuantizeMatMul",
                "MatMulNBits",
            }
        ),
        frozenset({"MatMul", "Gemm", "FusedMatMul", "FusedGemm"}),
    ),
    "recurrent": (frozenset({"DynamicQuantizeLSTM"}), frozenset({"LSTM", "GRU", "RNN"})),
}


_COPY = re.compile(r"_token_\d+$")
"""What ONNX Runtime adds to the name of a node that it moves to another layout."""


@dataclass(frozen=True, slots=True)
class Kernels:
    """Layers of one family, by the arithmetic they run in.

    Attributes:
        family: Conv, ConvTranspose, MatMul (with Gemm) or recurrent.
        integer: run by an integer kernel.
        total: all of them.
    """

    family: str
    integer: int
    total: int

    def __str__(self) -> str:
        return f"{self.integer} of {self.total} {self.family} in int8"


def count_kernels(optimized: Path) -> tuple[Kernels, ...]:
    """Count the layers in a graph that ONNX Runtime has written after its own fusions."""
    counts: Counter[str] = Counter()
    model = ir.load(optimized)
    for graph in model.graphs():
        counts.update(node.op_type for node in graph)
    found = (
        Kernels(family, sum(counts[t] for t in integer), sum(counts[t] for t in integer | floating))
        for family, (integer, floating) in _FAMILIES.items()
    )
    return tuple(k for k in found if k.total)


def weights_made_float(optimized: Path) -> frozenset[str]:
    """Names of the DequantizeLinear nodes that ONNX Runtime left in front of a layer: it multiplies in float.

    Args:
        optimized: a graph that ONNX Runtime has written after its own fusions.
    """
    nodes = [node for graph in ir.load(optimized).graphs() for node in graph if node.op_type == "DequantizeLinear"]
    constant = (node for node in nodes if node.inputs[0] is not None and node.inputs[0].is_initializer())
    return frozenset(_COPY.sub("", node.name or "") for node in constant)
