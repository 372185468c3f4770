"""Why a layer cannot be quantized, in words for its Skip."""

from collections.abc import Iterator

import onnx_ir as ir

from compressor.graph.model import Model
from compressor.graph.weights import Use, Weight, attribute, layout_of

SLOW_CONVOLUTION = "ranged at run time a convolution is 6 to 10 times slower than in float; use quantize_static"

_RECURRENT = dict.fromkeys(("LSTM", "GRU", "RNN"), "recurrent layers are not quantized by this version")
_NOT_STATIC = {
    "ConvTranspose": "ONNX Runtime has no int8 kernel for ConvTranspose on CPU",
    "Gather": "an embedding multiplies nothing; quantize_dynamic stores it in int8",
    **_RECURRENT,
}
_NOT_DYNAMIC = {"ConvTranspose": _NOT_STATIC["ConvTranspose"], **_RECURRENT}
_INTEGER_LAYERS = (
    "QLinearConv",
    "QLinearMatMul",
    "MatMulInteger",
    "ConvInteger",
    "QGemm",
    "MatMulNBits",
    "DynamicQuantizeMatMul",
    "MatMulIntegerToFloat",
)


def static_refusal(weight: Weight) -> str | None:
    """Why a layer cannot run in int8 with ranges fixed beforehand; None when it can."""
    if weight.in_subgraph:
        return "inside a branch of If or the body of Loop, where ranges cannot be observed yet"
    return _first(_refused_weight(weight), _NOT_STATIC.get(weight.layer), *map(_refused_use, weight.uses))


def dynamic_refusal(weight: Weight) -> str | None:
    """Why a layer cannot be ranged at run time; None when it can."""
    reason = _first(_refused_weight(weight), _NOT_DYNAMIC.get(weight.layer))
    if reason or weight.layer == "Gather":
        axes = {attribute(use.node, "axis", 0) for use in weight.uses}
        return reason or ("a lookup along another axis than the first" if axes != {0} else None)
    return _first(*map(_refused_use, weight.uses))


def already_quantized(model: Model) -> Iterator[tuple[str, str]]:
    """Name and operator type of the layers that compute with, or read, quantized weights already."""
    for graph in model.ir.graphs():
        for node in graph:
            if node.op_type in _INTEGER_LAYERS or _reads_quantized(node):
                yield node.name or "", node.op_type


def _first(*reasons: str | None) -> str | None:
    return next(filter(None, reasons), None)


def _reads_quantized(node: ir.Node) -> bool:
    if node.op_type == "Gather" and node.inputs[0] is not None and node.inputs[0].const_value is not None:
        return node.inputs[0].const_value.dtype == ir.DataType.INT8
    if node.op_type not in ("Conv", "Gemm", "MatMul") or len(node.inputs) < 2:
        return False
    weight = node.inputs[1]
    producer = None if weight is None else weight.producer()
    if producer is None or producer.op_type != "DequantizeLinear":
        return False
    source = producer.inputs[0]
    return source is not None and source.is_initializer()


def _refused_weight(weight: Weight) -> str | None:
    if weight.dtype != "float32":
        return f"its weights are {weight.dtype}; only float32 is quantized"
    types = sorted({use.node.op_type for use in weight.uses})
    if len(types) > 1:
        return f"its weights are shared by {' and '.join(types)}"
    if len({layout_of(use, weight.shape) for use in weight.uses}) > 1:
        return "its weights are shared by layers that read them transposed to each other"
    return None


def _refused_use(use: Use) -> str | None:
    node, weight, source = use.node, use.node.inputs[use.idx], use.node.inputs[0]
    if use.idx != 1:
        return "the constant is the left factor of the product"
    if source is None or source.is_initializer():
        return "its input is a constant"
    if node.op_type == "MatMul" and weight is not None and weight.shape is not None and len(weight.shape) != 2:
        return f"a batch of matrices ({len(weight.shape)} axes)"
    if node.op_type == "Gemm" and (attribute(node, "transA", 0) or not _plain_gemm(node)):
        return "Gemm with transA, alpha or beta"
    return _refused_bias(node.inputs[2] if len(node.inputs) > 2 else None)


def _refused_bias(bias: ir.Value | None) -> str | None:
    if bias is None:
        return None
    if not bias.is_initializer():
        return "its bias is computed at run time"
    per_output = bias.shape is None or all(d == 1 for d in bias.shape[:-1])
    return None if per_output else "its bias differs from row to row"


def _plain_gemm(node: ir.Node) -> bool:
    found = [node.attributes.get(name) for name in ("alpha", "beta")]
    return all(a is None or a.as_float() == 1 for a in found)
