"""Low-bit codes as bytes: no bit of them is spent on anything but codes.

Codes are counted from the lowest, c - low, and packed in the order of the flattened array, the first
code in the lowest bits:

    binary    8 to a byte
    2 bits    4 to a byte
    3 bits    the lower two bits 4 to a byte, and the third 8 to a byte
    ternary   5 to a byte, as digits of base 3: 3⁵ = 243

The last byte is filled up with zeros. `graph/packing.py` writes the way back as an ONNX function.
"""

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]


def pack_bits(values: Bytes, bits: int) -> Bytes:
    """Unsigned values of 1, 2 or 4 bits, of any shape, as bytes; (⌈values · bits / 8⌉,)."""
    places = 8 // bits
    digits = _filled(values, places) << (bits * np.arange(places, dtype=np.uint8))
    packed: Bytes = np.bitwise_or.reduce(digits, axis=1)
    return packed


def pack_ternary(values: Bytes) -> Bytes:
    """Values 0, 1, 2, of any shape, five to a byte; (⌈values / 5⌉,)."""
    digits = _filled(values, 5) * (3 ** np.arange(5)).astype(np.uint8)
    packed: Bytes = digits.sum(axis=1, dtype=np.uint8)
    return packed


def unpack_bits(packed: Bytes, bits: int, count: int) -> Bytes:
    """The first `count` values of `pack_bits`; (count,)."""
    places = 8 // bits
    digits = packed[:, None] >> (bits * np.arange(places, dtype=np.uint8))
    values: Bytes = (digits & (2**bits - 1)).reshape(-1)[:count]
    return values


def unpack_ternary(packed: Bytes, count: int) -> Bytes:
    """The first `count` values of `pack_ternary`; (count,)."""
    digits = packed[:, None] // (3 ** np.arange(5)).astype(np.uint8) % 3
    values: Bytes = digits.reshape(-1)[:count]
    return values


def _filled(values: Bytes, places: int) -> Bytes:
    """(bytes, places), zeros behind the end."""
    flat = values.reshape(-1)
    return np.pad(flat, (0, -flat.size % places)).reshape(-1, places)
