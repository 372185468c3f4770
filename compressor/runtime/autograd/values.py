"""What flows along the edges of a graph that torch executes: tensors, and numbers that stay in Python.

Shapes are computed in Python integers (`Host`): they never meet a kernel, they can be traced and exported as
symbols, and operators that need numbers get them without a detour through tensors.
"""

from collections.abc import Callable, Iterable, Sequence
from math import prod
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray

Scalar: TypeAlias = Any
"""A Python number; while a graph is traced or exported, what stands for one."""

Value: TypeAlias = Any
"""A tensor, a `Host`, a list of them (a sequence), or None (an input left out, an empty optional)."""

DTYPES: dict[ir.DataType, torch.dtype] = {
    ir.DataType.FLOAT: torch.float32,
    ir.DataType.DOUBLE: torch.float64,
    ir.DataType.FLOAT16: torch.float16,
    ir.DataType.BFLOAT16: torch.bfloat16,
    ir.DataType.INT8: torch.int8,
    ir.DataType.INT16: torch.int16,
    ir.DataType.INT32: torch.int32,
    ir.DataType.INT64: torch.int64,
    ir.DataType.UINT8: torch.uint8,
    ir.DataType.UINT16: torch.uint16,
    ir.DataType.UINT32: torch.uint32,
    ir.DataType.UINT64: torch.uint64,
    ir.DataType.BOOL: torch.bool,
    ir.DataType.COMPLEX64: torch.complex64,
    ir.DataType.COMPLEX128: torch.complex128,
    ir.DataType.FLOAT8E4M3FN: torch.float8_e4m3fn,
    ir.DataType.FLOAT8E4M3FNUZ: torch.float8_e4m3fnuz,
    ir.DataType.FLOAT8E5M2: torch.float8_e5m2,
    ir.DataType.FLOAT8E5M2FNUZ: torch.float8_e5m2fnuz,
    # torch has no kernels for these: they travel in the next wider type that holds them exactly
    ir.DataType.INT4: torch.int8,
    ir.DataType.UINT4: torch.uint8,
    ir.DataType.INT2: torch.int8,
    ir.DataType.UINT2: torch.uint8,
    ir.DataType.FLOAT4E2M1: torch.float32,
}
"""The torch type that carries each ONNX type."""

NARROW = {
    ir.DataType.INT4: ml_dtypes.int4,
    ir.DataType.UINT4: ml_dtypes.uint4,
    ir.DataType.INT2: ml_dtypes.int2,
    ir.DataType.UINT2: ml_dtypes.uint2,
    ir.DataType.FLOAT4E2M1: ml_dtypes.float4_e2m1fn,
    ir.DataType.FLOAT8E4M3FN: ml_dtypes.float8_e4m3fn,
    ir.DataType.FLOAT8E4M3FNUZ: ml_dtypes.float8_e4m3fnuz,
    ir.DataType.FLOAT8E5M2: ml_dtypes.float8_e5m2,
    ir.DataType.FLOAT8E5M2FNUZ: ml_dtypes.float8_e5m2fnuz,
    ir.DataType.BFLOAT16: ml_dtypes.bfloat16,
}
"""NumPy's type for those that NumPy itself does not know."""

_BITS = {torch.bfloat16: np.int16, **{DTYPES[t]: np.uint8 for t in NARROW if t.name.startswith("FLOAT8")}}
_FROM_NAME = {np.dtype(t): carrier for t, carrier in ((n, DTYPES[d]) for d, n in NARROW.items())}
_SMALL = 64
"""Constants of up to this many entries are numbers: shapes, axes, scalars."""

_WIDE = (torch.uint16, torch.uint32, torch.uint64)


class Host:
    """Numbers that stay in Python: the elements of a small tensor, in order.

    Attributes:
        items: its elements, row by row.
        shape: its dimensions; () is a scalar.
        dtype: of the tensor that it stands for.
    """

    __slots__ = ("_tensor", "dtype", "items", "shape")

    def __init__(self, items: Sequence[Scalar], shape: tuple[int, ...], dtype: torch.dtype) -> None:
        self.items = tuple(items)
        self.shape = shape
        self.dtype = dtype
        self._tensor: torch.Tensor | None = None

    @property
    def known(self) -> bool:
        """Whether all are plain numbers, not symbols."""
        return all(isinstance(item, (int, float)) for item in self.items)

    def tensor(self) -> torch.Tensor:
        """The same as a tensor on torch's default device; made once when all numbers are plain."""
        if torch.compiler.is_compiling():
            return self._made()
        if self._tensor is None or self._tensor.device.type != torch.get_default_device().type:
            made = self._made()
            self._tensor = made if self.known else None
            return made
        return self._tensor

    def _made(self) -> torch.Tensor:
        if not self.known:
            parts = [torch.as_tensor(item).to(self.dtype) for item in self.items]
            return torch.stack(parts).reshape(self.shape) if parts else torch.zeros(self.shape, dtype=self.dtype)
        return torch.tensor(self.items, dtype=self.dtype).reshape(self.shape)


def as_tensor(value: Value) -> Value:
    """A `Host` as a tensor; everything else as it is."""
    return value.tensor() if isinstance(value, Host) else value


def numbers(value: Value) -> list[Scalar]:
    """The elements of a tensor or `Host` as a flat list of numbers; [] for an input left out."""
    if value is None:
        return []
    if isinstance(value, Host):
        return list(value.items)
    found: list[Scalar] = value.flatten().tolist()
    return found


def number(value: Value) -> Scalar:
    """The one element of a tensor or `Host`."""
    return numbers(value)[0]


def from_numpy(array: NDArray[Any]) -> torch.Tensor:
    """A tensor of its own with these elements, in the type that carries theirs."""
    carrier = _FROM_NAME.get(array.dtype)
    if carrier is None:
        return torch.from_numpy(np.array(array))
    if carrier in _BITS:
        return torch.from_numpy(array.view(_BITS[carrier]).copy()).view(carrier)
    return torch.from_numpy(array.astype(np.float32 if carrier == torch.float32 else np.int16)).to(carrier)


def numbers_or_tensor(tensor: ir.TensorProtocol) -> Value:
    """A constant: numbers when it is small, a tensor otherwise; text stays an array of NumPy."""
    array = tensor.numpy()
    if tensor.dtype not in DTYPES:
        return array
    made = from_numpy(array)
    if made.numel() > _SMALL or made.dtype.itemsize == 1 or made.dtype.is_complex:
        return made
    return Host(made.flatten().tolist(), tuple(array.shape), made.dtype)


def to_numpy(value: Value, dtype: ir.DataType | None = None) -> NDArray[Any]:
    """The elements as NumPy stores them.

    Args:
        value: a tensor or `Host`.
        dtype: the ONNX type they are of, where its carrier does not tell.
    """
    tensor = as_tensor(value).detach().cpu().contiguous()
    narrow = NARROW.get(dtype) if dtype is not None else None
    if tensor.dtype in _BITS:
        found = next(n for d, n in NARROW.items() if DTYPES[d] == tensor.dtype)
        return np.asarray(tensor.view(torch.int16 if tensor.dtype == torch.bfloat16 else torch.uint8).numpy()).view(
            found
        )
    array: NDArray[Any] = tensor.numpy()
    return array if narrow is None else array.astype(narrow)


def widened(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` for unsigned integers too, which torch can store but not compute with: through int64 and back."""

    def compute(*tensors: Any, **options: Any) -> Any:
        dtype = next((t.dtype for t in tensors if isinstance(t, torch.Tensor) and t.dtype in _WIDE), None)
        if dtype is None:
            return function(*tensors, **options)
        wide = [t.to(torch.int64) if isinstance(t, torch.Tensor) and t.dtype in _WIDE else t for t in tensors]
        result = function(*wide, **options)
        return result.to(dtype) if result.dtype == torch.int64 else result

    return compute


def size_of(shape: Iterable[Scalar]) -> Scalar:
    """The number of elements of a tensor of this shape."""
    return prod(shape)
