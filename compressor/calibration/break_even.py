"""Matrix products that are too small to be faster in int8 when their input is ranged at run time.

Finding the range of the input and rounding it takes about a microsecond, however small the product. It is
won back from weights · √rows = 2¹⁵ on: from 32,768 weights with one row, 8,192 with 16, 4,096 with 64 (measured
with AVX512-VNNI for 1 to 64 rows, square and oblong weights).
"""

from collections.abc import Iterable
from math import sqrt

from compressor.calibration.coding import Surroundings
from compressor.data import RandomSource
from compressor.errors import CompressorError
from compressor.graph.model import Model
from compressor.graph.weights import Weight
from compressor.runtime.macs import count_macs
from compressor.runtime.ort import Feeds

LEAST = 1 << 15
"""Weights times the square root of rows."""


def slower_products(model: Model, products: Iterable[Weight], context: Surroundings) -> dict[str, str]:
    """Why products are not faster in int8: array name -> reason, for those that are not.

    The rows of one sample count: of the calibration data, or else of random inputs.

    Args:
        model: whose weights these are; it is not changed.
        products: only MatMul and Gemm.
        context: has the data.
    """
    small = [weight for weight in products if weight.size < LEAST]
    rows = _rows(model, small, context) if small else {}
    return {
        name: f"{weight.size} weights times {rows[name]} row{'s' * (rows[name] > 1)} are too few to gain speed in int8"
        for weight in small
        if weight.size * sqrt(rows[name := weight.value.name or ""]) < LEAST
    }


def _rows(model: Model, products: list[Weight], context: Surroundings) -> dict[str, int]:
    """The most that meet each weight; 1 where that cannot be counted."""
    try:
        macs = count_macs(model, _one_sample(model, context), context.scratch)
    except CompressorError:
        macs = {}
    found = ((w, max(macs.get(use.node.name or "", 0) // w.size for use in w.uses)) for w in products)
    return {weight.value.name or "": max(count, 1) for weight, count in found}


def _one_sample(model: Model, context: Surroundings) -> Feeds:
    data = context.calibration or RandomSource(samples=1).open(model, "random input", 0)
    return data.split(1)[0].first().feeds
