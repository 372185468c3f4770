"""Patches against loops over every position, and padding against ONNX Runtime's."""

from itertools import product

import numpy as np
import pytest

from compressor.numerics.unfold import patches, same_padding
from tests.models import floats, graph, run

Ints = tuple[int, ...]
Ends = tuple[tuple[int, int], ...]

CASES: dict[str, tuple[Ints, Ints, Ints, Ints, Ends]] = {
    "plain": ((5, 6), (3, 2), (1, 1), (1, 1), ((0, 0), (0, 0))),
    "padded": ((5, 6), (3, 3), (1, 1), (1, 1), ((1, 1), (2, 0))),
    "strided": ((7, 8), (3, 2), (2, 3), (1, 1), ((1, 0), (0, 1))),
    "dilated": ((9, 8), (3, 2), (1, 1), (2, 3), ((0, 2), (1, 1))),
    "everything": ((11, 9), (2, 3), (3, 2), (2, 2), ((1, 2), (3, 0))),
    "one position": ((3, 3), (3, 3), (2, 2), (1, 1), ((0, 0), (0, 0))),
    "line": ((13,), (4,), (2,), (3,), ((2, 1),)),
    "volume": ((4, 5, 6), (2, 3, 2), (1, 2, 2), (2, 1, 1), ((0, 1), (1, 0), (1, 1))),
}
"""Axes, kernel, strides, dilations, pads."""


@pytest.mark.parametrize("case", CASES)
def test_a_patch_is_what_the_kernel_lies_over(case: str, rng: np.random.Generator) -> None:
    axes, kernel, strides, dilations, pads = CASES[case]
    x = floats(rng, 2, 3, *axes)
    found = patches(x, kernel, strides, dilations, pads)
    places = [
        (size + low + high - dilation * (k - 1) - 1) // stride + 1
        for size, k, stride, dilation, (low, high) in zip(axes, kernel, strides, dilations, pads, strict=True)
    ]
    assert found.shape == (2, *places, 3, *kernel)
    for sample, channel in product(range(2), range(3)):
        for place in product(*map(range, places)):
            for offset in product(*map(range, kernel)):
                at = [
                    p * s + o * d - low
                    for p, s, o, d, (low, _) in zip(place, strides, offset, dilations, pads, strict=True)
                ]
                inside = all(0 <= a < size for a, size in zip(at, axes, strict=True))
                expected = x[(sample, channel, *at)] if inside else 0
                assert found[(sample, *place, channel, *offset)] == expected


@pytest.mark.parametrize("upper", [True, False], ids=["upper", "lower"])
@pytest.mark.parametrize("size", [5, 6, 7])
@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(1, 1, 1), (2, 1, 1), (3, 2, 1), (4, 3, 1), (1, 3, 1)])
def test_same_padding_is_that_of_onnx_runtime(size: int, kernel: int, stride: int, dilation: int, upper: bool) -> None:
    x, w = np.arange(1, size + 1, dtype=np.float32).reshape(1, 1, size), np.ones((1, 1, kernel), np.float32)
    name = "SAME_UPPER" if upper else "SAME_LOWER"
    body = f'y = Conv<auto_pad="{name}", strides=[{stride}]>(x, w)'
    expected = run(graph(f"float[1,1,{size}] x => float[1,1,n] y", body, w=w), {"x": x})["y"]
    pads = (same_padding(size, kernel, stride, dilation, upper),)
    found = patches(x, (kernel,), (stride,), (dilation,), pads).sum(axis=(2, 3))
    assert np.array_equal(found, expected[0])


@pytest.mark.parametrize("dilation", [1, 2, 3])
def test_same_padding_of_a_dilated_kernel_leaves_every_position(dilation: int) -> None:
    for size, upper in product(range(4, 9), (True, False)):
        low, high = same_padding(size, 3, 1, dilation, upper)
        assert low + high == 2 * dilation
        assert size + low + high - 2 * dilation == size
