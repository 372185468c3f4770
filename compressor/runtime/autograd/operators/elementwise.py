"""Operators that work element by element."""

from collections.abc import Callable
from functools import reduce
from math import pi
from typing import Any

import onnx_ir as ir
import torch
import torch.nn.functional as F
from torch import Tensor

from compressor.runtime.autograd.node import Node, Run
from compressor.runtime.autograd.operators.pairs import quantizer_of, undone
from compressor.runtime.autograd.registry import function, operator
from compressor.runtime.autograd.values import Host, Value, as_tensor, number, widened

_UNARY: dict[str, Callable[..., Any]] = {
    "Abs": torch.abs,
    "Acos": torch.acos,
    "Acosh": torch.acosh,
    "And": torch.logical_and,
    "Asin": torch.asin,
    "Asinh": torch.asinh,
    "Atan": torch.atan,
    "Atanh": torch.atanh,
    "BitwiseAnd": torch.bitwise_and,
    "BitwiseNot": torch.bitwise_not,
    "BitwiseOr": torch.bitwise_or,
    "BitwiseXor": torch.bitwise_xor,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Cosh": torch.cosh,
    "Det": torch.det,
    "Equal": torch.eq,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "HardSwish": F.hardswish,
    "IsNaN": torch.isnan,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "Log": torch.log,
    "Mish": F.mish,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Or": torch.logical_or,
    "Reciprocal": torch.reciprocal,
    "Round": torch.round,
    "Sigmoid": torch.sigmoid,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Sinh": torch.sinh,
    "Softsign": F.softsign,
    "Sqrt": torch.sqrt,
    "Sub": torch.sub,
    "Tan": torch.tan,
    "Tanh": torch.tanh,
    "Xor": torch.logical_xor,
}

for _name, _function in _UNARY.items():
    function(_name, widened(_function))


def _operand(value: Value) -> Value:
    """A single number as itself, which spares torch a tensor; everything else as a tensor."""
    if isinstance(value, Host) and value.shape == () and value.known:
        return value.items[0]
    return as_tensor(value)


def _scalable(compute: Callable[[Any, Any], Any]) -> Run:
    """A commutative operator that may read a number of its own type beside a tensor."""
    wide = widened(compute)

    def run(left: Value, right: Value) -> Value:
        if isinstance(left, Host) and isinstance(right, Host):
            return wide(as_tensor(left), as_tensor(right))
        return wide(_operand(left), _operand(right))

    return run


@operator("Add", numbers=None)
def _add(node: Node) -> Run:
    return _scalable(torch.add)


@operator("Mul", numbers=None)
def _mul(node: Node) -> Run:
    return _scalable(torch.mul)


@operator("Div")
def _div(node: Node) -> Run:
    """Integers are truncated towards zero."""

    def divide(left: Tensor, right: Tensor) -> Tensor:
        if left.dtype.is_floating_point:
            return left / right
        return torch.div(left, right, rounding_mode="trunc")

    return widened(divide)


@operator("Mod")
def _mod(node: Node) -> Run:
    return widened(torch.fmod if node.integer("fmod") else torch.remainder)


@operator("Pow", numbers=(1,))
def _pow(node: Node) -> Run:
    """The type is that of the base."""

    def power(base: Tensor, exponent: Value) -> Tensor:
        return torch.pow(base, _operand(exponent)).to(base.dtype)

    return widened(power)


@operator("BitShift")
def _bit_shift(node: Node) -> Run:
    shift = torch.bitwise_left_shift if node.string("direction") == "LEFT" else torch.bitwise_right_shift
    return widened(shift)


def _folded(compute: Callable[[Tensor, Tensor], Tensor]) -> Run:
    wide = widened(compute)
    return lambda *values: reduce(wide, values)


function("Max", _folded(torch.maximum))
function("Min", _folded(torch.minimum))
function("Sum", _folded(torch.add))
function("Mean", lambda *values: reduce(torch.add, values) / len(values))


@operator("Where")
def _where(node: Node) -> Run:
    return lambda condition, left, right: torch.where(condition, left, right)


@operator("Identity", numbers=None)
def _identity(node: Node) -> Run:
    return lambda value: value


@operator("Relu")
def _relu(node: Node) -> Run:
    return torch.relu


@operator("Clip", numbers=(1, 2))
def _clip(node: Node) -> Run:
    low, high = node.ir.attributes.get("min"), node.ir.attributes.get("max")
    ends = [None if a is None else a.as_float() for a in (low, high)]
    between = undone(quantizer_of(node.ir)) is not None

    def clip(x: Tensor, low: Value = None, high: Value = None) -> Tensor:
        least, most = (
            _operand(given) if given is not None else end for given, end in zip((low, high), ends, strict=True)
        )
        if (least is None and most is None) or (between and x.is_floating_point()):  # clipped where it was rounded
            return x
        if isinstance(least, Tensor) != isinstance(most, Tensor):
            least, most = (None if v is None else torch.as_tensor(v, dtype=x.dtype) for v in (least, most))
        return torch.clamp(x, least, most)

    def whole(x: Tensor, low: Value = None, high: Value = None) -> Tensor:
        if x.dtype in (torch.uint16, torch.uint32, torch.uint64):
            wide = clip(x.to(torch.int64), *(None if v is None else as_tensor(v).to(torch.int64) for v in (low, high)))
            return wide.to(x.dtype)
        return clip(x, low, high)

    return whole


@operator("IsInf")
def _is_inf(node: Node) -> Run:
    positive, negative = bool(node.integer("detect_positive", 1)), bool(node.integer("detect_negative", 1))

    def is_infinite(x: Tensor) -> Tensor:
        return (torch.isposinf(x) & positive) | (torch.isneginf(x) & negative)

    return is_infinite


@operator("PRelu")
def _prelu(node: Node) -> Run:
    def prelu(x: Tensor, slope: Tensor) -> Tensor:
        return torch.where(x < 0, x * slope, x)

    return widened(prelu)


@operator("LeakyRelu")
def _leaky_relu(node: Node) -> Run:
    slope = node.real("alpha", 0.01)
    return lambda x: F.leaky_relu(x, slope)


@operator("Elu")
def _elu(node: Node) -> Run:
    alpha = node.real("alpha", 1.0)
    return lambda x: F.elu(x, alpha)


@operator("Celu")
def _celu(node: Node) -> Run:
    alpha = node.real("alpha", 1.0)
    return lambda x: F.celu(x, alpha)


@operator("Selu")
def _selu(node: Node) -> Run:
    alpha, gamma = node.real("alpha", 1.67326319217681884765625), node.real("gamma", 1.05070102214813232421875)
    return lambda x: gamma * F.elu(x, alpha)


@operator("ThresholdedRelu")
def _thresholded_relu(node: Node) -> Run:
    alpha = node.real("alpha", 1.0)
    return lambda x: F.threshold(x, alpha, 0.0)


@operator("HardSigmoid")
def _hard_sigmoid(node: Node) -> Run:
    alpha, beta = node.real("alpha", 0.2), node.real("beta", 0.5)
    return lambda x: torch.clamp(x * alpha + beta, 0, 1)


@operator("Softplus")
def _softplus(node: Node) -> Run:
    return lambda x: F.softplus(x)


@operator("Shrink")
def _shrink(node: Node) -> Run:
    bias, ends = node.real("bias", 0.0), node.real("lambd", 0.5)

    def shrink(x: Tensor) -> Tensor:
        shrunk = torch.where(x < -ends, x + bias, torch.where(x > ends, x - bias, torch.zeros_like(x)))
        return shrunk.to(x.dtype)

    return shrink


@operator("Gelu")
def _gelu(node: Node) -> Run:
    approximate = node.string("approximate", "none")
    return lambda x: F.gelu(x, approximate=approximate)


@operator("Gelu", domain="com.microsoft")
def _microsoft_gelu(node: Node) -> Run:
    return F.gelu


@operator("FastGelu", domain="com.microsoft")
def _fast_gelu(node: Node) -> Run:
    def fast_gelu(x: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.gelu(x if bias is None else x + bias, approximate="tanh")

    return fast_gelu


@operator("QuickGelu", domain="com.microsoft")
def _quick_gelu(node: Node) -> Run:
    alpha = node.real("alpha", 1.702)
    return lambda x: x * torch.sigmoid(alpha * x)


@operator("Swish")
def _swish(node: Node) -> Run:
    alpha = node.real("alpha", 1.0)
    return F.silu if alpha == 1 else lambda x: x * torch.sigmoid(alpha * x)


@operator("Dropout", numbers=(1, 2))
def _dropout(node: Node) -> Run:
    """In training when the network is, or when the graph itself says so."""
    fixed, mode = node.real("ratio", 0.5), node.network

    def dropout(x: Tensor, ratio: Value = None, training: Value = None) -> tuple[Tensor, Tensor]:
        share = fixed if ratio is None else number(ratio)
        asked = mode.training if training is None else bool(number(training)) or mode.training
        if not asked or share == 0:
            return x, torch.ones_like(x, dtype=torch.bool)
        mask = torch.rand_like(x) >= share
        return torch.where(mask, x / (1 - share), torch.zeros_like(x)), mask

    return dropout


@operator("CumSum", numbers=(1,))
def _cum_sum(node: Node) -> Run:
    exclusive, backwards = node.integer("exclusive"), node.integer("reverse")

    def cum_sum(x: Tensor, axis: Value) -> Tensor:
        along = int(number(axis))
        flipped = x.flip(along) if backwards else x
        total = torch.cumsum(flipped, along).to(x.dtype)
        total = total - flipped if exclusive else total
        return total.flip(along) if backwards else total

    return cum_sum


@operator("BiasGelu", domain="com.microsoft")
def _bias_gelu(node: Node) -> Run:
    return lambda x, bias: F.gelu(x + bias)


def _window(node: Node, weights: tuple[float, ...]) -> Run:
    """Sum of `weights[k]` cos(2πkn/N), N one less where the window is symmetric."""
    dtype, periodic = node.dtype("output_datatype", ir.DataType.FLOAT), node.integer("periodic", 1)

    def window(size: Value) -> Tensor:
        length = int(number(size))
        angle = 2 * pi * torch.arange(length, dtype=torch.float64) / (length if periodic else length - 1)
        return torch.stack([w * torch.cos(k * angle) for k, w in enumerate(weights)]).sum(0).to(dtype)

    return window


@operator("HannWindow", numbers=(0,))
def _hann(node: Node) -> Run:
    return _window(node, (0.5, -0.5))


@operator("HammingWindow", numbers=(0,))
def _hamming(node: Node) -> Run:
    return _window(node, (25 / 46, -21 / 46))


@operator("BlackmanWindow", numbers=(0,))
def _blackman(node: Node) -> Run:
    return _window(node, (0.42, -0.5, 0.08))
