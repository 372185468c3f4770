"""Tensors inside of two models that stand for each other because they have the same name."""

from collections.abc import Iterator

import onnx_ir as ir

from compressor.graph.model import Model
from compressor.graph.observe import values_by_name
from compressor.graph.weights import takes_weight, uses_of

_MOST = 8


def shared_features(student: Model, teacher: Model) -> list[str]:
    """Names of tensors worth following, in order: sums of residual blocks, or else what layers read.

    Args:
        student: whose tensors these are.
        teacher: has tensors of the same names.
    """
    known = {name for name, value in values_by_name(teacher.ir).items() if value.producer() is not None}
    sums = [name for name in _sums(student.ir) if name in known]
    found = sums or [name for name in _read_by_layers(student.ir) if name in known]
    step = -(-len(found) // _MOST) or 1
    return found[::-1][::step][::-1]


def has_tensor(model: Model, name: str) -> bool:
    """Whether the main graph computes a tensor of that name."""
    value = values_by_name(model.ir).get(name)
    return value is not None and value.producer() is not None


def _sums(model: ir.Model) -> Iterator[str]:
    for node in model.graph:
        computed = [value for value in node.inputs if value is not None and value.producer() is not None]
        output = node.outputs[0]
        if node.op_type == "Add" and len(computed) == 2 and not output.is_graph_output() and output.name:
            yield output.name


def _read_by_layers(model: ir.Model) -> Iterator[str]:
    found: dict[str, None] = {}
    for node in model.graph:
        for output in node.outputs:
            read = any(takes_weight(use._replace(idx=1 - use.idx)) for use in uses_of(output) if use.idx < 2)
            if read and output.name and not output.is_graph_output():
                found[output.name] = None
    yield from found
