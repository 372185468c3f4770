"""Samples varied at random, on the way into teacher and student alike."""

from collections.abc import Mapping

import numpy as np

from compressor.errors import PassError
from compressor.graph.model import TensorSpec
from compressor.runtime.ort import Array
from compressor.training.settings import Augmentation

_MOST_CHANNELS = 4


def check(settings: Augmentation, specs: tuple[TensorSpec, ...]) -> None:
    """Refuse what none of the inputs can take.

    Raises:
        PassError: there is no image to flip or shift, or no float input at all.
    """
    shapes = [spec.shape or () for spec in specs if spec.dtype.startswith("float")]
    if settings.of_images and not any(len(shape) == 4 for shape in shapes):
        raise PassError(
            "augment.flip and augment.crop are for images, (samples, channels, height, width); leave them out"
        )
    if settings and not shapes:
        raise PassError("augment is for inputs of floats, and this model has none; leave it out")


def augmented(
    feeds: Mapping[str, Array], settings: Augmentation, rng: np.random.Generator
) -> tuple[dict[str, Array], "Mix"]:
    """The same samples, varied; and how they were blended.

    Args:
        feeds: one entry per sample along the first axis of every input.
        settings: what is done.
        rng: source of every choice.
    """
    samples = len(next(iter(feeds.values())))
    flipped = rng.random(samples) < 0.5
    shifts = rng.integers(-settings.crop, settings.crop + 1, (samples, 2)) if settings.crop else None
    mix = Mix.drawn(samples, settings.mixup, rng)
    made: dict[str, Array] = {}
    for name, array in feeds.items():
        if not np.issubdtype(array.dtype, np.floating):
            made[name] = array
            continue
        changed = array
        if array.ndim == 4:
            last = _channels_last(array.shape)
            changed = np.moveaxis(array, -1, 1) if last else array
            if settings.flip:
                changed = np.where(flipped[:, None, None, None], changed[..., ::-1], changed)
            if shifts is not None:
                changed = _shifted(changed, shifts, settings.crop)
            changed = np.moveaxis(changed, 1, -1) if last else changed
        if settings.noise:
            changed = changed + settings.noise * changed.std() * rng.standard_normal(changed.shape, np.float32)
        made[name] = np.ascontiguousarray(mix.of(changed), array.dtype)
    return made, mix


def _channels_last(shape: tuple[int, ...]) -> bool:
    """Whether images are (samples, height, width, channels): told by a last axis of a few entries."""
    return shape[-1] <= _MOST_CHANNELS < shape[1]


class Mix:
    """How samples are blended: each keeps a share of itself and takes the rest of another one.

    Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization".

    Args:
        share: that is kept.
        partners: number of the other sample, (samples,).
    """

    def __init__(self, share: float, partners: Array) -> None:
        self.share, self.partners = share, partners

    @classmethod
    def drawn(cls, samples: int, strength: float, rng: np.random.Generator) -> "Mix":
        """A share from Beta(strength, strength), 1 for a strength of 0, and partners at random."""
        partners = rng.permutation(samples)
        return cls(float(rng.beta(strength, strength)) if strength else 1.0, partners)

    def of(self, array: Array) -> Array:
        """The entries, blended along the first axis."""
        if self.share == 1:
            return array
        own = array.astype(np.float32)
        mixed: Array = self.share * own + (1 - self.share) * own[self.partners]
        return mixed


def _shifted(images: Array, shifts: Array, most: int) -> Array:
    """Every image moved by its own shift; what comes in is its own edge, mirrored."""
    height, width = images.shape[2:]
    most = min(most, height - 1, width - 1)
    padded = np.pad(images, ((0, 0), (0, 0), (most, most), (most, most)), mode="reflect")
    found = np.empty_like(images)
    for number, (down, right) in enumerate(np.clip(shifts, -most, most)):
        top, left = most + down, most + right
        found[number] = padded[number, :, top : top + height, left : left + width]
    return found
