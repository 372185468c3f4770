"""Sequences are Python lists, optional values may be None."""

import torch
from torch import Tensor

from compressor.runtime.autograd.node import Node, Run
from compressor.runtime.autograd.registry import operator
from compressor.runtime.autograd.values import Host, Value, as_tensor, number, numbers


@operator("SequenceConstruct", numbers=None)
def _construct(node: Node) -> Run:
    return lambda *parts: list(map(as_tensor, parts))


@operator("SequenceEmpty")
def _empty(node: Node) -> Run:
    return list


@operator("SequenceAt", numbers=None)
def _at(node: Node) -> Run:
    return lambda sequence, place: sequence[int(number(place))]


@operator("SequenceLength")
def _length(node: Node) -> Run:
    return lambda sequence: Host([len(sequence)], (), torch.int64)


@operator("SequenceInsert", numbers=None)
def _insert(node: Node) -> Run:
    def insert(sequence: list[Value], item: Value, place: Value = None) -> list[Value]:
        made = list(sequence)
        made.insert(len(made) if place is None else int(number(place)), as_tensor(item))
        return made

    return insert


@operator("SequenceErase", numbers=None)
def _erase(node: Node) -> Run:
    def erase(sequence: list[Value], place: Value = None) -> list[Value]:
        made = list(sequence)
        del made[-1 if place is None else int(number(place))]
        return made

    return erase


@operator("SplitToSequence", numbers=(1,))
def _split(node: Node) -> Run:
    axis, keep = node.integer("axis"), node.integer("keepdims", 1)

    def split(x: Tensor, sizes: Value = None) -> list[Tensor]:
        if sizes is None:
            parts = torch.split(x, 1, axis)
            return [part if keep else part.squeeze(axis) for part in parts]
        wanted = numbers(sizes)
        return list(torch.split(x, wanted if sizes.shape else int(wanted[0]), axis))

    return split


@operator("ConcatFromSequence")
def _join(node: Node) -> Run:
    axis, new = node.integer("axis"), node.integer("new_axis")
    return lambda sequence: torch.stack(sequence, axis) if new else torch.cat(sequence, axis)


@operator("Optional", numbers=None)
def _optional(node: Node) -> Run:
    return lambda value=None: value


@operator("OptionalHasElement", numbers=None)
def _has_element(node: Node) -> Run:
    return lambda value=None: Host([value is not None], (), torch.bool)


@operator("OptionalGetElement", numbers=None)
def _get_element(node: Node) -> Run:
    return lambda value: value
