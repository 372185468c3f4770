"""What the rows of a layer's weight matrix are multiplied with."""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from compressor.graph.weights import Use, attribute
from compressor.numerics.affine import Floats
from compressor.numerics.unfold import patches, same_padding


@dataclass(frozen=True, slots=True)
class LayerInput:
    """How the rows a layer multiplies by are taken from its input tensor.

    Two layers with equal `LayerInput` see the same rows.

    Attributes:
        tensor: name of the input.
        groups: parts the channels are divided into.
        kernel: of a convolution; empty for a product, whose rows are the last axis.
        strides: of a convolution, like the rest.
        dilations: between positions of the kernel.
        pads: zeros before and after each axis; None with `auto_pad`.
        auto_pad: SAME_UPPER or SAME_LOWER; empty when `pads` holds.
    """

    tensor: str
    groups: int = 1
    kernel: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    pads: tuple[tuple[int, int], ...] = ()
    auto_pad: str = ""

    def rows(self, x: Floats, limit: int) -> Floats:
        """(groups, rows, inputs): all of them, or about `limit` evenly strided ones."""
        if not self.kernel:
            rows = x.reshape(1, -1, x.shape[-1])
            return rows[:, :: stride(rows.shape[1], limit)]
        view = patches(x, self.kernel, self.strides, self.dilations, self._padding(x.shape[2:]))
        count = len(self.kernel)
        places = int(np.prod(view.shape[: 1 + count]))
        picked = np.unravel_index(np.arange(0, places, stride(places, limit)), view.shape[: 1 + count])
        rows = view[picked].reshape(len(picked[0]), self.groups, -1)
        return rows.swapaxes(0, 1)

    def _padding(self, axes: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
        if not self.auto_pad:
            return self.pads
        upper = self.auto_pad == "SAME_UPPER"
        sizes = zip(axes, self.kernel, self.strides, self.dilations, strict=True)
        return tuple(same_padding(*size, upper) for size in sizes)


def layer_input(use: Use) -> LayerInput | None:
    """Of Conv, and of Gemm and MatMul by a constant on the right; None for other layers."""
    node, source = use.node, use.node.inputs[0]
    if source is None or use.idx != 1 or node.domain:
        return None
    tensor = source.name or ""
    match node.op_type:
        case "MatMul":
            return LayerInput(tensor)
        case "Gemm" if not attribute(node, "transA", 0):
            return LayerInput(tensor)
        case "Conv":
            return _convolution(node, tensor)
    return None


def _convolution(node: ir.Node, tensor: str) -> LayerInput | None:
    weight = node.inputs[1]
    if weight is None or weight.shape is None:
        return None
    kernel = tuple(weight.shape.numpy()[2:])
    ones = (1,) * len(kernel)
    ends = _integers(node, "pads", (0,) * (2 * len(kernel)))
    auto_pad = node.attributes["auto_pad"].as_string() if "auto_pad" in node.attributes else "NOTSET"
    return LayerInput(
        tensor,
        attribute(node, "group", 1),
        kernel,
        _integers(node, "strides", ones),
        _integers(node, "dilations", ones),
        tuple(zip(ends[: len(kernel)], ends[len(kernel) :], strict=True))
        if auto_pad == "NOTSET"
        else ((0, 0),) * len(kernel),
        auto_pad if auto_pad.startswith("SAME") else "",
    )


def _integers(node: ir.Node, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    found = node.attributes.get(name)
    return default if found is None else tuple(found.as_ints())


def stride(count: int, limit: int) -> int:
    """How many places to go on to keep about `limit` of `count`; odd, so as not to fall in with rows of an image."""
    return max(count // max(limit, 1), 1) | 1 if count > limit else 1
