"""Why a layer cannot be quantized, in words for its Skip."""

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from compressor.graph.composed import Composed, composed
from compressor.graph.edit import constant
from compressor.graph.einsum import multiplies_by_constant
from compressor.graph.model import Model
from compressor.graph.recurrent import lstm_refusal
from compressor.graph.weights import FLOATS, Use, Weight, attribute, layout_of, takes_weight, uses_of

SLOW_CONVOLUTION = "ranged at run time a convolution is 6 to 10 times slower than in float; use quantize_static"

_RECURRENT = dict.fromkeys(("GRU", "RNN"), "ONNX Runtime has an int8 kernel for LSTM, but for no other recurrent layer")
_NOT_STATIC = {
    "ConvTranspose": "ONNX Runtime has no int8 kernel for ConvTranspose on CPU",
    "Gather": "an embedding multiplies nothing; quantize_dynamic stores it in int8",
    "LSTM": "a recurrent layer ranges its hidden state at every step; quantize_dynamic runs LSTM in int8",
    **_RECURRENT,
}
_NOT_DYNAMIC = {"ConvTranspose": _NOT_STATIC["ConvTranspose"], **_RECURRENT}
_NOT_FINITE = "its weights are not finite"
LEAST_STORED = 256
"""Entries from which storing a weight in few bits saves bytes."""

_INTEGER_LAYERS = (
    "QLinearConv",
    "QLinearMatMul",
    "MatMulInteger",
    "ConvInteger",
    "QGemm",
    "MatMulNBits",
    "DynamicQuantizeMatMul",
    "MatMulIntegerToFloat",
    "DynamicQuantizeLSTM",
    "GatherBlockQuantized",
    "LookUp3",
)


def static_refusal(weight: Weight) -> str | None:
    """Why a layer cannot run in int8 with ranges fixed beforehand; None when it can."""
    if weight.in_subgraph:
        return "inside a branch of If or the body of Loop, where ranges cannot be observed yet"
    return _first(_refused_weight(weight), _NOT_STATIC.get(weight.layer), *map(_refused_use, weight.uses))


def dynamic_refusal(weight: Weight) -> str | None:
    """Why a layer cannot be ranged at run time; None when it can."""
    reason = _first(_refused_weight(weight), _NOT_DYNAMIC.get(weight.layer))
    if weight.layer == "LSTM":
        return reason or lstm_refusal(weight)
    if reason or weight.layer == "Gather":
        axes = {attribute(use.node, "axis", 0) for use in weight.uses}
        return reason or ("a lookup along another axis than the first" if axes != {0} else None)
    return _first(*map(_refused_use, weight.uses), *map(_refused_sum, weight.uses))


def storage_refusal(weight: Weight) -> str | None:
    """Why a weight cannot be stored in few bits and read in float; None when it can."""
    if weight.dtype != "float32":
        return f"its weights are {weight.dtype}; only float32 is quantized"
    if weight.size < LEAST_STORED:
        return f"only {weight.size} weights: what is needed to unpack them takes as many bytes"
    if len({layout_of(use, weight.shape) for use in weight.uses}) > 1:
        return "its weights are shared by layers that read them transposed to each other"
    return None if np.isfinite(weight.matrix()).all() else _NOT_FINITE


def table_refusal(weight: Weight) -> str | None:
    """Why a lookup table cannot be packed in blocks; None when it can."""
    if len(weight.shape) != 2:
        return f"a table of {len(weight.shape)} axes; only rows of numbers are packed"
    return f"rows of {weight.shape[1]} entries; only multiples of 4 are whole bytes" if weight.shape[1] % 4 else None


def already_quantized(model: Model) -> Iterator[tuple[str, str]]:
    """Name and operator type of the layers that compute with, or read, quantized weights already."""
    behind = composed(model.ir)
    for graph in model.ir.graphs():
        for node in graph:
            if node.op_type in _INTEGER_LAYERS or _reads_codes(node, behind):
                yield node.name or "", node.op_type


def set_aside(model: Model, products: bool = True) -> Iterator[tuple[str, str, str]]:
    """Name, operator type and reason of the layers that are no longer, or not yet, a weight's.

    Args:
        model: any.
        products: whether Einsum by a constant is among them, which is no layer to those who work on layers.
    """
    quantized = dict(already_quantized(model))
    for name, layer in quantized.items():
        yield name, layer, "quantized already"
    behind = composed(model.ir)
    for node in (node for graph in model.ir.graphs() for node in graph if node.name not in quantized):
        made = next(_composed_weights(node, behind), None)
        if made is not None:
            yield node.name or "", node.op_type, _stored_otherwise(made.tensor)
        elif products and node.op_type == "Einsum" and any(constant(value) is not None for value in node.inputs):
            yield node.name or "", node.op_type, _no_product(node)


def _composed_weights(node: ir.Node, behind: dict[ir.Value, Composed]) -> Iterator[Composed]:
    """What a layer multiplies by, where that is computed from constants."""
    weights = (v for i, v in enumerate(node.inputs) if v is not None and takes_weight(Use(node, i)))
    yield from (behind[value] for value in weights if value in behind)


def _no_product(einsum: ir.Node) -> str:
    if multiplies_by_constant(einsum):
        return "is worked on as MatMul, which simplify makes of it; put simplify before this pass"
    return f"{einsum.attributes['equation'].as_string()} is not one product by a matrix"


def _stored_otherwise(tensor: ir.TensorProtocol) -> str:
    stored = np.dtype(tensor.dtype.numpy()).name
    if stored == "float32":
        return "its weights are computed from constants; put simplify before this pass"
    undo = "; cast with dtype: float32 undoes it" if tensor.dtype in FLOATS else ""
    return f"its weights are stored as {stored} already{undo}"


def _first(*reasons: str | None) -> str | None:
    return next(filter(None, reasons), None)


def _reads_codes(node: ir.Node, behind: dict[ir.Value, Composed]) -> bool:
    if node.op_type == "Gather" and node.inputs[0] is not None and node.inputs[0].const_value is not None:
        return node.inputs[0].const_value.dtype == ir.DataType.INT8
    return any(made.of_codes for made in _composed_weights(node, behind))


def _refused_weight(weight: Weight) -> str | None:
    if weight.dtype != "float32":
        return f"its weights are {weight.dtype}; put cast with dtype: float32 before this pass"
    types = sorted({use.node.op_type for use in weight.uses})
    if len(types) > 1:
        return f"its weights are shared by {' and '.join(types)}"
    if len({layout_of(use, weight.shape) for use in weight.uses}) > 1:
        return "its weights are shared by layers that read them transposed to each other"
    return None if np.isfinite(weight.matrix()).all() else _NOT_FINITE


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


def _refused_sum(use: Use) -> str | None:
    """Why a product may not become one of integers: ONNX Runtime merges it with an Add, even where that broadcasts."""
    result = use.node.outputs[0]
    readers = uses_of(result)
    if use.node.op_type not in ("MatMul", "Gemm") or len(use.node.inputs) > 2 or len(readers) != 1:
        return None
    reader, idx = readers[0]
    added = constant(reader.inputs[1 - idx]) if reader.op_type == "Add" else None
    source = use.node.inputs[0]
    shape = result.shape or (None if source is None else source.shape)
    axes = 2 if shape is None else len(shape)
    outputs = len(Weight(_read(use), (use,), False).matrix())
    widened = added is not None and (added.ndim > axes or (added.ndim and added.shape[-1] not in (1, outputs)))
    return "ONNX Runtime would merge it with an Add that gives it another shape" if widened else None


def _read(use: Use) -> ir.Value:
    value = use.node.inputs[use.idx]
    if value is None:
        raise ValueError(f"{use.node.name} reads nothing")
    return value


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
