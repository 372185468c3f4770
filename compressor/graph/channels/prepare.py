"""A graph made ready for looking at its channels, and tidied up afterwards; what it computes stays the same."""

from collections.abc import Iterator, Sequence

import onnx_ir as ir

from compressor.graph.channels.coupling import Shapes
from compressor.graph.channels.rules import fix_sizes
from compressor.graph.edit import graph_of, new_initializer
from compressor.graph.model import Model
from compressor.graph.reading import keeping_outputs
from compressor.graph.weights import Use, is_weight, uses_of

_MOST_NUMBERS = 1024


def prepare(model: Model, shapes: Shapes) -> None:
    """Compute what is known of sizes, and give every layer vectors of its own.

    A size that a graph asks a tensor for, but that stems from the weights, becomes a number. Exporters store
    equal biases and scales once: as one array they would tie the widths of layers that have nothing to do
    with each other. Weights that layers share on purpose stay shared.

    Args:
        model: edited in place.
        shapes: of all tensors of its main graph in one execution.
    """
    from onnx_ir.passes import common  # slow to import

    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model.ir)
    _fold(model)
    if fix_sizes(model, shapes):
        _fold(model)
    for value in list(model.ir.graph.initializers.values()):
        uses = uses_of(value)
        tensor = value.const_value
        shared = tensor is not None and tensor.size > 1 and len(uses) > 1 and not any(map(is_weight, uses))
        if shared and tensor is not None and tensor.dtype.is_floating_point() and not value.is_graph_output():
            _untie(value, uses)


def tidy(model: Model) -> None:
    """Store what is equal once again, and drop what nothing reads any more."""
    from onnx_ir.passes import common

    common.RemoveUnusedNodesPass()(model.ir)
    common.DeduplicateHashedInitializersPass()(model.ir)


def _fold(model: Model) -> None:
    from onnxscript import optimizer  # slow to import

    with keeping_outputs(model.ir):
        optimizer.fold_constants(model.ir, should_fold=_is_of_sizes, output_size_limit=_MOST_NUMBERS)


def _is_of_sizes(node: ir.Node) -> bool:
    """Whether a node computes a few integers from a few integers."""
    tensors = [value.const_value for value in node.inputs if value is not None and value.const_value is not None]
    return not node.domain and all(_few(tensors)) and node.op_type not in ("QuantizeLinear", "DequantizeLinear")


def _few(tensors: Sequence[ir.TensorProtocol]) -> Iterator[bool]:
    yield bool(tensors)
    for tensor in tensors:
        yield tensor.dtype.is_integer() and tensor.size <= _MOST_NUMBERS


def _untie(value: ir.Value, uses: Sequence[Use]) -> None:
    """A copy of an array for every reader but the first; the numbers themselves are shared."""
    if value.const_value is None:
        return
    for node, idx in uses[1:]:
        if node.graph is value.graph:
            copy = new_initializer(graph_of(node), f"{value.name}_of_{node.name}", value.const_value.numpy())
            node.replace_input_with(idx, copy)
