"""Resampling by a cubic kernel, as few filters that are run at a stride.

Keys 1981, "Cubic convolution interpolation for digital image processing".
"""

from math import floor, gcd

import numpy as np

from compressor.numerics.affine import Doubles

_SLOPE = -0.75
"""Of the kernel at 1, as in torch and OpenCV."""

MOST_FILTERS = 32
"""As many at most, where the sides have a common divisor: two registers of ONNX Runtime's convolutions."""


def filters(made: int, side: int) -> tuple[Doubles, int, int, int]:
    """What makes a side of fewer entries; pixels are squares, and their middles are what is sampled.

    Of every `stride` entries the same number is made, at places that repeat: one filter for each of them.

    Args:
        made: entries there are to be.
        side: entries there are, no fewer.

    Returns:
        Filters, (made of one stride, taps), the stride, and how many entries are read in front of the first and
        behind the last.
    """
    common = gcd(made, side)
    least = made // common
    periods = max((n for n in range(1, common + 1) if common % n == 0 and n * least <= MOST_FILTERS), default=1)
    count, stride = periods * least, periods * (side // common)
    places = [(number + 0.5) * stride / count - 0.5 for number in range(count)]
    first, last = floor(places[0]) - 1, floor(places[-1]) + 2
    found = np.zeros((count, last - first + 1))
    for row, place in zip(found, places, strict=True):
        for tap in range(floor(place) - 1, floor(place) + 3):
            row[tap - first] = _weight(abs(place - tap))
    return found, stride, -first, last - (stride - 1)


def _weight(distance: float) -> float:
    a, x = _SLOPE, distance
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0
