"""Clean-up of a graph without any change of what it computes."""

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from compressor.graph.cast import LEAST_ENTRIES
from compressor.graph.edit import bypass
from compressor.graph.einsum import Expanded, expand_einsums
from compressor.graph.fold import Folded, fold_affine, merge_biases
from compressor.graph.merging import merge_layers
from compressor.graph.model import Model
from compressor.graph.reading import initializers, keeping_outputs
from compressor.graph.weights import find_weights, uses_of

_REARRANGING = ("Slice", "Concat", "Unsqueeze", "Squeeze", "Transpose", "Reshape")
_SMALL = 1024
_NO_LIMIT = 2**62


def simplify(model: Model) -> Iterator[Folded | Expanded]:
    """Fold constants and affine maps, drop what does nothing, merge what is there twice, write Einsum as MatMul.

    Layers keep their names, so that selectors written for the original still match.
    """
    from onnx_ir.passes import common
    from onnxscript import optimizer  # slow to import

    _drop_inert(model.ir)
    yield from fold_affine(model.ir)
    names = _layer_names(model.ir)
    with keeping_outputs(model.ir):
        optimizer.fold_constants(model.ir, should_fold=_rearranges, output_size_limit=_NO_LIMIT)
    names = _layer_names(model.ir) | names
    with keeping_outputs(model.ir):
        optimizer.optimize_ir(model.ir, inline=False, should_fold=_unless_it_widens)
    _drop_inert(model.ir)
    _restore_names(model.ir, names)
    yield from expand_einsums(model.ir)
    yield from merge_biases(model.ir)
    yield from fold_affine(model.ir)
    yield from merge_layers(model.ir)
    _make_contiguous(model.ir)
    common.DeduplicateHashedInitializersPass()(model.ir)
    common.RemoveUnusedNodesPass()(model.ir)


def _rearranges(node: ir.Node) -> bool:
    """Whether a node puts constants together, as exporters do with the gates of recurrent layers, and can be
    folded however large these are: nothing else reads them, so that they are not there twice afterwards.
    """
    large = [v for v in node.inputs if v is not None and v.const_value is not None and v.const_value.size > _SMALL]
    return all(_of_constants(reader) for reader in (node, *(use.node for value in large for use in uses_of(value))))


def _of_constants(node: ir.Node) -> bool:
    constant = all(value is None or value.const_value is not None for value in node.inputs)
    return constant and node.op_type in _REARRANGING and not node.domain


def _unless_it_widens(node: ir.Node) -> bool | None:
    """Leave a Cast that brings an array from the type it is stored in to a larger one; decide nothing else."""
    source = node.inputs[0].const_value if node.op_type == "Cast" and node.inputs[0] is not None else None
    if source is None or source.size < LEAST_ENTRIES:
        return None
    return None if ir.DataType(node.attributes["to"].as_int()).itemsize <= source.dtype.itemsize else False


def _make_contiguous(model: ir.Model) -> None:
    """A folded Transpose leaves a view, which cannot be hashed."""
    for value in initializers(model):
        tensor = value.const_value
        if isinstance(tensor, ir.Tensor) and not tensor.numpy().flags.c_contiguous:
            value.const_value = ir.tensor(np.ascontiguousarray(tensor.numpy()), dtype=tensor.dtype, name=value.name)


def _drop_inert(model: ir.Model) -> None:
    """Remove Identity and, in inference, Dropout, where the graph keeps an output for its outputs."""
    for graph in model.graphs():
        for node in list(graph):
            source = node.inputs[0] if node.inputs else None
            if node.domain or node.op_type not in ("Identity", "Dropout") or source is None:
                continue
            if any(o.uses() or o.is_graph_output() for o in node.outputs[1:]) or not _inference(node):
                continue
            if not node.outputs[0].is_graph_output() or _can_be_output(source, graph):
                bypass(node, source)


def _can_be_output(value: ir.Value, graph: ir.Graph) -> bool:
    return value.producer() is not None and value.graph is graph and not value.is_graph_output()


def _inference(node: ir.Node) -> bool:
    """Dropout only drops when its third input, if there is one, is true."""
    return node.op_type == "Identity" or len(node.inputs) < 3 or node.inputs[2] is None


def _layer_names(model: ir.Model) -> dict[str | None, list[str | None]]:
    return {w.value.name: [use.node.name for use in w.uses] for w in find_weights(model)}


def _restore_names(model: ir.Model, names: dict[str | None, list[str | None]]) -> None:
    for weight in find_weights(model):
        before = names.get(weight.value.name, [])
        if len(before) == len(weight.uses):
            for use, name in zip(weight.uses, before, strict=True):
                use.node.name = name
