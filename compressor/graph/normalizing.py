"""Batch normalization put back behind convolutions that it was folded into, for as long as they are trained.

Folded, a network does the same and learns badly: the scales of its channels differ by orders of magnitude, and
what one layer learns shifts the inputs of all others. With normalization it takes rates ten times larger.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from compressor.graph.edit import constant, insert, new_initializer, redirect, set_array
from compressor.graph.model import Model
from compressor.graph.observe import values_by_name
from compressor.graph.select import Selectors
from compressor.graph.weights import uses_of

EPSILON = 1e-5
_MOMENTUM = 0.9
_ALL = Selectors()


@dataclass(frozen=True, slots=True)
class Normalized:
    """A convolution with a normalization behind it.

    Attributes:
        output: name of what the convolution makes.
        weight: name of its weight.
        bias: name of its bias.
        scale: names of the arrays of the normalization.
        shift: likewise.
        mean: likewise.
        variance: likewise.
    """

    output: str
    weight: str
    bias: str
    scale: str
    shift: str
    mean: str
    variance: str

    @property
    def arrays(self) -> tuple[str, str, str, str]:
        """What the normalization has."""
        return self.scale, self.shift, self.mean, self.variance


def normalize(model: Model, selectors: Selectors = _ALL) -> list[Normalized]:
    """Put a normalization that does nothing yet behind every convolution with a bias; the model is edited.

    Left alone are convolutions that are normalized already, or whose weight is shared or computed.

    Args:
        model: to edit.
        selectors: of the convolutions.
    """
    return list(_normalized(model.ir, selectors))


def _normalized(model: ir.Model, selectors: Selectors) -> Iterator[Normalized]:
    for node in list(model.graph):
        arrays = _biased(node)
        if arrays is None or not all(selectors.match((node.name or "", v.name or ""), "Conv") for v in arrays):
            continue
        (weight, bias), readers = arrays, uses_of(node.outputs[0])
        channels, name, graph = len(np.asarray(constant(weight))), bias.name or "", model.graph
        made = [
            new_initializer(graph, f"{name}_{part}", np.full(channels, value, np.float32))
            for part, value in (("scale", 1 - EPSILON), ("shift", 0), ("mean", 0), ("variance", 1))
        ]
        attributes = {"epsilon": EPSILON, "momentum": _MOMENTUM}
        normalization = ir.node("BatchNormalization", [node.outputs[0], *made], attributes, name=f"{name}_normalized")
        result = normalization.outputs[0]
        result.name, result.type, result.shape = f"{name}_normalized", node.outputs[0].type, node.outputs[0].shape
        redirect(readers, result)
        insert(graph, node.outputs[0], [normalization])
        names = (value.name or "" for value in made)
        yield Normalized(node.outputs[0].name or "", weight.name or "", name, *names)


def _biased(node: ir.Node) -> tuple[ir.Value, ir.Value] | None:
    """Weight and bias of a convolution that a normalization can go behind; None for all other nodes."""
    if node.op_type != "Conv" or len(node.inputs) < 3 or node.outputs[0].is_graph_output():
        return None
    weight, bias = node.inputs[1], node.inputs[2]
    if weight is None or bias is None or not _own(weight) or not _own(bias):
        return None
    normalized = any(use.node.op_type == "BatchNormalization" for use in uses_of(node.outputs[0]))
    return None if normalized else (weight, bias)


def fold(normalized: Normalized, arrays: dict[str, NDArray[np.float32]]) -> None:
    """Let weight and bias do what they do together with their normalization, whose arrays go.

    Args:
        normalized: a convolution.
        arrays: name -> array, edited.
    """
    scale, shift, mean, variance = (arrays.pop(name).astype(np.float64) for name in normalized.arrays)
    weight, bias = (arrays[name].astype(np.float64) for name in (normalized.weight, normalized.bias))
    factor = scale / np.sqrt(variance + EPSILON)
    arrays[normalized.weight] = (weight * factor.reshape(-1, *[1] * (weight.ndim - 1))).astype(np.float32)
    arrays[normalized.bias] = (shift + (bias - mean) * factor).astype(np.float32)


def settle(model: Model, normalized: Normalized, mean: NDArray[np.float64], variance: NDArray[np.float64]) -> None:
    """Let a normalization know what goes through it, and still do nothing.

    Args:
        model: with the normalization.
        normalized: which one.
        mean: of what the convolution makes, (channels,).
        variance: likewise.
    """
    values = values_by_name(model.ir)
    found = np.sqrt(variance + EPSILON), mean, mean, variance
    for name, array in zip(normalized.arrays, found, strict=True):
        set_array(values[name], array.astype(np.float32))


def _own(value: ir.Value) -> bool:
    return value.is_initializer() and len(uses_of(value)) == 1 and value.dtype == ir.DataType.FLOAT
