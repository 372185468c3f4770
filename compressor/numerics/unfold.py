"""Convolution as a matrix product: every output position as the row of inputs it is computed from."""

from collections.abc import Sequence

import numpy as np

from compressor.numerics.affine import Floats


def same_padding(size: int, kernel: int, stride: int, dilation: int, upper: bool) -> tuple[int, int]:
    """Zeros before and after an axis so that there are ⌈size / stride⌉ positions; the odd one behind if `upper`."""
    reach = dilation * (kernel - 1) + 1
    total = max((-(-size // stride) - 1) * stride + reach - size, 0)
    less, more = total // 2, total - total // 2
    return (less, more) if upper else (more, less)


def patches(
    x: Floats, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], pads: Sequence[tuple[int, int]]
) -> Floats:
    """What each output position of a convolution sees; a view of the padded input.

    Args:
        x: (samples, channels, *axes).
        kernel: positions of the kernel along each axis.
        strides: between output positions.
        dilations: between kernel positions.
        pads: zeros before and after each axis.

    Returns:
        (samples, *output positions, channels, *kernel).
    """
    count = len(kernel)
    padded = np.pad(x, ((0, 0), (0, 0), *pads))
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]
    axes = tuple(range(2, 2 + count))
    windows = np.lib.stride_tricks.sliding_window_view(padded, reach, axes)
    steps = (slice(None), slice(None), *(slice(None, None, s) for s in strides))
    within = tuple(slice(None, None, d) for d in dilations)
    view: Floats = np.moveaxis(windows[steps + within], 1, 1 + count)
    return view
