"""The operators of torch's quantized kernels, in floats: weights dequantized, activations not rounded.

Source: the schemas of `quantized::` in torch; packed weights are unpacked by torch's own operators.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressor.graph.torchscript.errors import UnusableError


@dataclass(frozen=True, slots=True)
class Packed:
    """What a packed layer computes with.

    Attributes:
        weight: gives the weight in floats.
        bias: gives the bias, or None.
        settings: of a convolution: stride, padding, dilation, groups.
    """

    weight: Callable[[], Tensor]
    bias: Callable[[], Tensor | None]
    settings: tuple[Any, ...]


def unpacked(packed: Any) -> tuple[nn.Parameter, Tensor | None, tuple[Any, ...]]:
    """Weight and bias in floats, and the settings of a convolution.

    Raises:
        UnusableError: an object of another kind.
    """
    kind = str(packed._type()).rpartition(".")[2]
    if kind == "LinearPackedParamsBase":
        weight, bias = torch.ops.quantized.linear_unpack(packed)
        settings: tuple[Any, ...] = ()
    elif kind.startswith("Conv") and kind.endswith("dPackedParamsBase"):
        weight, bias = packed.unpack()
        settings = (packed.stride(), packed.padding(), packed.dilation(), packed.groups())
    else:
        raise UnusableError(f"it holds an object of {kind}, which only torch knows")
    return nn.Parameter(weight.dequantize()), bias if bias is None else nn.Parameter(bias.detach()), settings


def _convolved(x: Tensor, packed: Packed, *_: Any) -> Tensor:
    weight = packed.weight()
    function: Callable[..., Tensor] = (F.conv1d, F.conv2d, F.conv3d)[weight.dim() - 3]
    return function(x, weight, packed.bias(), *packed.settings)


def _product(x: Tensor, packed: Packed, *_: Any) -> Tensor:
    return F.linear(x, packed.weight(), packed.bias())


def _relu(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda *arguments: torch.relu(function(*arguments))


def _sum(one: Tensor, other: Tensor, *_: Any) -> Tensor:
    return one + other


def _joined(parts: list[Tensor], axis: int, *_: Any) -> Tensor:
    return torch.cat(parts, axis)


PACKED: Mapping[str, Callable[..., Any]] = {
    "aten::dequantize": lambda x, *_: x,
    "aten::quantize_per_tensor": lambda x, *_: x,
    "aten::quantize_per_tensor_dynamic": lambda x, *_: x,
    "quantized::add": _sum,
    "quantized::add_relu": _relu(_sum),
    "quantized::cat": _joined,
    "quantized::conv1d": _convolved,
    "quantized::conv1d_relu": _relu(_convolved),
    "quantized::conv2d": _convolved,
    "quantized::conv2d_relu": _relu(_convolved),
    "quantized::conv3d": _convolved,
    "quantized::conv3d_relu": _relu(_convolved),
    "quantized::hardswish": lambda x, *_: F.hardswish(x),
    "quantized::leaky_relu": lambda x, slope, *_: F.leaky_relu(x, slope),
    "quantized::linear": _product,
    "quantized::linear_relu": _relu(_product),
    "quantized::linear_dynamic": _product,
    "quantized::linear_relu_dynamic": _relu(_product),
    "quantized::mul": lambda one, other, *_: one * other,
    "quantized::sigmoid": lambda x, *_: torch.sigmoid(x),
}
"""Operator -> the same in floats; what is given after the tensors, scales and zero points, is not needed."""
