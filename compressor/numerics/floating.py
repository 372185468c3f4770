"""Care for the float format itself."""

import numpy as np

from compressor.numerics.affine import Floats


def flush_subnormals(array: Floats) -> Floats:
    """`array` with subnormal entries set to zero: processors compute with them up to 185 times slower."""
    small = np.abs(array) < np.finfo(array.dtype).tiny
    if not (small & (array != 0)).any():
        return array
    return np.where(small, array.dtype.type(0), array)
