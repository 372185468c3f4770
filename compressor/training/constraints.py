"""What a parameter has to be, as modules that torch puts between a parameter and those who read it."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compressor.numerics.levels import Levels
from compressor.runtime.autograd.operators.quantization import round_through

_OVERHANG = 0.1
"""How far the sigmoid goes beyond 0 and 1 before it is clipped."""

_LEVELS_TO_TELL = 7
"""Levels above zero from which on zeros that were pruned stand out."""

_LEAST_SHARE = 0.01
"""At 0 and 1 themselves the clipped sigmoid has no slope."""


class Masked(nn.Module):
    """Entries that are zero stay zero.

    Args:
        weight: whose zeros these are.
    """

    kept: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("kept", weight.detach() != 0)

    def forward(self, weight: Tensor) -> Tensor:
        """Of the same shape."""
        return weight * self.kept


class Scaled(nn.Module):
    """Every output channel times a factor that is learned, as a share above or below 1.

    Args:
        weight: of any shape.
        axis: of its output channels.
    """

    def __init__(self, weight: Tensor, axis: int) -> None:
        super().__init__()
        shape = [1] * weight.dim()
        shape[axis] = weight.shape[axis]
        self.gain = nn.Parameter(torch.zeros(shape))

    def forward(self, weight: Tensor) -> Tensor:
        """Of the same shape."""
        return weight * (1 + self.gain)


class Positive(nn.Module):
    """A scale of which the logarithm is learned, so that steps are shares of it and none makes it negative.

    Args:
        scale: at first, and exactly that for as long as nothing was learned.
    """

    initial: Tensor

    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("initial", scale.detach().clone())

    def forward(self, growth: Tensor) -> Tensor:
        """Of the same shape."""
        return self.initial * torch.exp(growth)

    def right_inverse(self, scale: Tensor) -> Tensor:
        """What is learned for a scale."""
        return torch.log(scale / self.initial)


class Halved(nn.Module):
    """A float16 array that is learned in float32, whose steps float16 would not notice."""

    def forward(self, array: Tensor) -> Tensor:
        """Of the same shape."""
        return array.half()


class Stepped(nn.Module):
    """A bias rounded to the steps in which integer kernels add it: the scale of the input times that of the weight.

    Args:
        scales: the two as they are now; asked anew each time, for they are learned themselves.
    """

    def __init__(self, scales: Sequence[Callable[[], Tensor]]) -> None:
        super().__init__()
        self._scales = tuple(scales)

    def forward(self, bias: Tensor) -> Tensor:
        """Of the same shape."""
        with torch.no_grad():
            step = torch.ones((), device=bias.device)
            for scale in self._scales:
                step = step * scale().reshape(-1)
            step = step.broadcast_to(bias.shape)
        return torch.where(step > 0, round_through(bias / step.clamp(min=1e-30)) * step, bias)


class FakeQuantized(nn.Module):
    """A weight rounded to the levels that its codes can stand for, with a learned step size.

    The gradient passes where nothing is clipped, and reaches the scale as in Esser et al. 2020, "Learned Step
    Size Quantization".

    Args:
        levels: of the codes.
        scale: of one level times one multiplier, as it is stored.
        steps: the shape in which that is spread over the weight.
        multipliers: of every entry, () for 1.
    """

    multipliers: Tensor
    initial: Tensor

    def __init__(
        self, levels: Levels, scale: NDArray[np.float32], steps: tuple[int, ...], multipliers: NDArray[np.float32]
    ) -> None:
        super().__init__()
        self._odd, self._steps = levels.odd, steps
        low, high = (2 * c + 1 if levels.odd else c for c in (levels.low, levels.high))
        self._low, self._high = float(low), float(high)
        self.register_buffer("initial", torch.from_numpy(np.array(scale)))
        self.register_buffer("multipliers", torch.from_numpy(np.array(multipliers)))
        self.growth = nn.Parameter(torch.zeros_like(self.initial))

    @property
    def scale(self) -> Tensor:
        """As it is stored."""
        return self.initial * torch.exp(self.growth)

    def is_pruned(self, weight: Tensor) -> bool:
        """Whether more of a weight is zero than rounding to these levels makes zero.

        In what was never pruned the two levels beside zero hold about twice as many as zero itself. Below four bits
        zero is one level of a few, and nothing can be said.
        """
        if self._odd or self._high < _LEVELS_TO_TELL:
            return False
        codes = _in_steps(weight, self._step()).detach().round().abs()
        zeros, beside = int((codes == 0).sum()), int((codes == 1).sum())
        return 2 * beside < zeros < weight.numel()

    def forward(self, weight: Tensor) -> Tensor:
        """Of the same shape."""
        step = self._step()
        clipped = _in_steps(weight, step).clamp(self._low, self._high)
        rounded = 2 * round_through((clipped - 1) / 2) + 1 if self._odd else round_through(clipped)
        return rounded.clamp(self._low, self._high) * step

    def _step(self) -> Tensor:
        return self.scale.reshape(self._steps) * self.multipliers


class Relaxed(nn.Module):
    """A weight between two levels: low + h · gap, where h = clip(1.2 σ(v) - 0.1, 0, 1) and v is learned.

    Nagel et al. 2020, "Up or Down? Adaptive Rounding for Post-Training Quantization".

    Args:
        low: the lower level of every weight, in the shape of the weight.
        gap: from there to the upper level.
        share: h at first.
    """

    low: Tensor
    gap: Tensor
    share: Tensor

    def __init__(self, low: Tensor, gap: Tensor, share: Tensor) -> None:
        super().__init__()
        for name, tensor in (("low", low), ("gap", gap), ("share", share)):
            self.register_buffer(name, tensor)

    def forward(self, v: Tensor) -> Tensor:
        """The weight, of the same shape."""
        return (self.low + self.gap * stretched(v)).to(v.dtype)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """What is learned at first."""
        inner = self.share.clamp(_LEAST_SHARE, 1 - _LEAST_SHARE)
        return torch.logit((inner + _OVERHANG) / (1 + 2 * _OVERHANG)).to(weight.dtype)


def _in_steps(weight: Tensor, step: Tensor) -> Tensor:
    return torch.where(step > 0, weight / step.clamp(min=1e-30), 0.0)


def stretched(v: Tensor) -> Tensor:
    """The rectified sigmoid, which reaches 0 and 1."""
    return ((1 + 2 * _OVERHANG) * torch.sigmoid(v) - _OVERHANG).clamp(0, 1)
