"""Fourier transforms, and random numbers."""

from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from compressor.runtime.autograd.node import Node, Run
from compressor.runtime.autograd.registry import operator
from compressor.runtime.autograd.values import Value, from_numpy, number


def _complex(x: Tensor) -> Tensor:
    """The last axis holds real and imaginary parts, or the real part alone."""
    return torch.view_as_complex(x.contiguous()) if x.shape[-1] == 2 else x.squeeze(-1)


@operator("DFT", numbers=(1, 2))
def _dft(node: Node) -> Run:
    """The axis is an attribute before opset 20."""
    inverse, half, fixed = (
        node.integer("inverse"),
        node.integer("onesided"),
        node.integer("axis", -2 if node.opset >= 20 else 1),
    )

    def transform(x: Tensor, length: Value = None, axis: Value = None) -> Tensor:
        along = (int(number(axis)) if axis is not None else fixed) % x.dim()
        values, size = _complex(x), int(number(length)) if length is not None else None
        if inverse and half:
            real: Tensor = torch.fft.irfft(values, size, along)
            return real.unsqueeze(-1)
        if half:
            return torch.view_as_real(torch.fft.rfft(values.real if values.is_complex() else values, size, along))
        made = torch.fft.ifft(values, size, along) if inverse else torch.fft.fft(values, size, along)
        return torch.view_as_real(made)

    return transform


@operator("STFT", numbers=(1, 3))
def _stft(node: Node) -> Run:
    half = bool(node.integer("onesided", 1))

    def transform(x: Tensor, step: Value, window: Tensor | None = None, length: Value = None) -> Tensor:
        size = int(number(length)) if length is not None else int(window.shape[0]) if window is not None else x.shape[1]
        frames = _complex(x).unfold(1, size, int(number(step)))
        frames = frames if window is None else frames * window
        return torch.view_as_real(torch.fft.rfft(frames, dim=-1) if half else torch.fft.fft(frames, dim=-1))

    return transform


@operator("MelWeightMatrix", numbers=(0, 1, 2, 3, 4))
def _mel(node: Node) -> Run:
    """Triangles, evenly spaced in mels."""
    dtype = node.dtype("output_datatype", ir.DataType.FLOAT)

    def matrix(bins: Value, length: Value, rate: Value, low: Value, high: Value) -> Tensor:
        count, size, sampling = int(number(bins)), int(number(length)), int(number(rate))
        ends = [2595 * np.log10(1 + float(number(f)) / 700) for f in (low, high)]
        mels = np.arange(count + 2) * ((ends[1] - ends[0]) / (count + 2)) + ends[0]
        places = np.floor((size + 1) * 700 * (10 ** (mels / 2595) - 1) / sampling).astype(int)
        made = np.zeros((size // 2 + 1, count))
        for index in range(count):
            left, centre, right = places[index : index + 3]
            made[left : centre + 1, index] = _slope(np.arange(left, centre + 1) - left, centre - left)
            made[centre:right, index] = _slope(right - np.arange(centre, right), right - centre)
        return from_numpy(made).to(dtype)

    return matrix


def _slope(steps: Any, length: int) -> Any:
    return steps / length if length else np.ones_like(steps)


def _generator(node: Node) -> torch.Generator | None:
    """A generator of its own where the graph gives a seed, torch's otherwise."""
    if not node.has("seed"):
        return None
    return torch.Generator().manual_seed(int(node.real("seed", 0.0)))


@operator("RandomUniform", "RandomNormal")
def _random(node: Node) -> Run:
    shape, dtype, generator = node.ints("shape") or [], node.dtype("dtype", ir.DataType.FLOAT), _generator(node)
    draw = _drawn(node)
    return lambda: draw(shape, dtype, generator)


@operator("RandomUniformLike", "RandomNormalLike", numbers=(0,))
def _random_like(node: Node) -> Run:
    dtype, generator, draw = node.dtype("dtype"), _generator(node), _drawn(node)
    return lambda x: draw(x.shape, dtype or x.dtype, generator)


def _drawn(node: Node) -> Run:
    low, high = node.real("low", 0.0), node.real("high", 1.0)
    mean, scale = node.real("mean", 0.0), node.real("scale", 1.0)
    if node.ir.op_type.startswith("RandomUniform"):
        return lambda shape, dtype, generator: (torch.rand(tuple(shape), generator=generator) * (high - low) + low).to(
            dtype
        )
    return lambda shape, dtype, generator: (torch.randn(tuple(shape), generator=generator) * scale + mean).to(dtype)


@operator("Bernoulli")
def _bernoulli(node: Node) -> Run:
    dtype, generator = node.dtype("dtype"), _generator(node)
    return lambda p: (torch.rand(p.shape, generator=generator) < p).to(dtype or p.dtype)


@operator("Multinomial")
def _multinomial(node: Node) -> Run:
    count, generator = node.integer("sample_size", 1), _generator(node)
    dtype = node.dtype("dtype", ir.DataType.INT32)
    return lambda scores: torch.multinomial(torch.softmax(scores, -1), count, True, generator=generator).to(dtype)
