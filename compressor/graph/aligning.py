"""Another model's inputs and outputs under the names that they have in a reference."""

from collections.abc import Iterator, Mapping, Sequence

import onnx_ir as ir

from compressor.errors import ModelError
from compressor.graph.model import Model, TensorSpec
from compressor.graph.reading import initializers


def align(model: Model, reference: Model, outputs: Mapping[str, str], strict: bool) -> None:
    """Let a model be fed and read like the reference; it is edited in place.

    Inputs and outputs of the same name belong together, and so do those at the same place where names differ.

    Args:
        model: any; what it makes besides is left.
        reference: whose names are given.
        outputs: output of the reference -> output of the model, where neither name nor place tells.
        strict: whether the dimensions, too, must be those of the reference; they are then called as they are there.

    Raises:
        ModelError: something has no counterpart, or another type or size.
    """
    graph = model.ir.graph
    fed = [value for value in graph.inputs if not value.is_initializer()]
    if strict and len(graph.outputs) != len(reference.outputs()):
        raise ModelError(f"{model.source}: has {len(graph.outputs)} outputs, the reference {len(reference.outputs())}")
    made = _paired(model.outputs(), reference.outputs(), outputs, f"{model.source}: output")
    pairs = [
        (fed[own], spec) for own, spec in _paired(model.inputs(), reference.inputs(), {}, f"{model.source}: input")
    ]
    pairs += [(graph.outputs[own], spec) for own, spec in made]
    taken = {value.name: value for value in _values(model.ir)}
    for value, spec in pairs:
        other = taken.get(spec.name)
        if other is not None and other is not value:
            other.name = f"{spec.name}_of_its_own"
        value.name = spec.name
        if strict and spec.shape is not None:
            value.shape = ir.Shape(spec.shape)
    if strict:
        order = {spec.name: place for place, spec in enumerate(reference.outputs())}
        ordered = sorted(graph.outputs, key=lambda value: order[value.name or ""])
        graph.outputs.clear()
        graph.outputs.extend(ordered)


def _paired(
    own: Sequence[TensorSpec], wanted: Sequence[TensorSpec], named: Mapping[str, str], place: str
) -> Iterator[tuple[int, TensorSpec]]:
    """Number of the counterpart of each that is wanted."""
    known = {spec.name: number for number, spec in enumerate(own)}
    for number, spec in enumerate(wanted):
        name = named.get(spec.name, spec.name)
        found = known.get(name)
        if found is None and spec.name not in named and len(own) == len(wanted):
            found = number
        if found is None:
            raise ModelError(
                f"{place} {name} is not there, but {', '.join(known)}; say in outputs which belong together"
            )
        if not _fits(own[found], spec):
            raise ModelError(f"{place} {own[found]} cannot stand for {spec} of the reference")
        yield found, spec


def _fits(own: TensorSpec, wanted: TensorSpec) -> bool:
    """Whether it has the same type, and takes every size that is wanted."""
    if own.dtype != wanted.dtype:
        return False
    if own.shape is None or wanted.shape is None:
        return True
    sizes = zip(own.shape, wanted.shape, strict=False)
    return len(own.shape) == len(wanted.shape) and all(not isinstance(a, int) or a == b for a, b in sizes)


def _values(model: ir.Model) -> list[ir.Value]:
    produced = [output for graph in model.graphs() for node in graph for output in node.outputs]
    return [*model.graph.inputs, *initializers(model), *produced]
