"""The train and held-out split of every sample model, in the layout that is written to disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.datasets import load_digits  # type: ignore[import-untyped, unused-ignore]
from sklearn.model_selection import train_test_split  # type: ignore[import-untyped, unused-ignore]

import simulate

Array = npt.NDArray[Any]
Labels = dict[str, Array]

IMAGE_SIZE = 16
DIGIT_LEVELS = 16  # load_digits holds grey levels 0..16


@dataclass(frozen=True)
class Preprocessing:
    """How a stored array becomes a network input: (stored * scale - mean) / std, in float32."""

    scale: float = 1.0
    mean: float = 0.0
    std: float = 1.0

    def apply(self, stored: Array) -> npt.NDArray[np.float32]:
        """Return the float32 network input for an array as stored in the npz file."""
        scaled = stored.astype(np.float32) * np.float32(self.scale)
        return (scaled - np.float32(self.mean)) / np.float32(self.std)


@dataclass(frozen=True)
class Dataset:
    """Stored inputs and named label arrays of a training split and a held-out evaluation split."""

    train_inputs: Array
    train_labels: Labels
    evaluation_inputs: Array
    evaluation_labels: Labels
    preprocessing: Preprocessing = Preprocessing()

    def calibration(self, rng: np.random.Generator, count: int) -> Array:
        """Return `count` unlabelled training samples, drawn without replacement."""
        return self.train_inputs[rng.choice(len(self.train_inputs), count, replace=False)]


def split_digits(rng: np.random.Generator) -> tuple[Array, Array, Array, Array]:
    """Return train images, test images [n, 8, 8] in 0..16, train ids and test ids, in stratified halves.

    Half is held out because the set is small: 899 evaluation samples resolve accuracy to about 0.1 %.
    """
    digits = load_digits()
    train_images, test_images, train_ids, test_ids = train_test_split(
        digits.images,
        digits.target.astype(np.int64),
        test_size=0.5,
        stratify=digits.target,
        random_state=int(rng.integers(2**31)),
    )
    return train_images, test_images, train_ids, test_ids


def enlarge(images: Array) -> npt.NDArray[np.uint8]:
    """Upsample digits [n, 8, 8] with levels 0..16 to uint8 images [n, 1, 16, 16] with levels 0..255."""
    tensor = torch.from_numpy(images).unsqueeze(1)
    size = (IMAGE_SIZE, IMAGE_SIZE)
    enlarged = torch.nn.functional.interpolate(tensor, size=size, mode="bilinear", align_corners=False)
    return np.round(enlarged.numpy() * (255 / DIGIT_LEVELS)).astype(np.uint8)


def digit_images(rng: np.random.Generator) -> Dataset:
    """Return the digits as uint8 [n, 1, 16, 16]; mean and std of raw / 255 come from the training split.

    Both are rounded to four decimals, so that the numbers printed are exactly the numbers used.
    """
    train_images, test_images, train_ids, test_ids = split_digits(rng)
    train_inputs = enlarge(train_images)
    unit = train_inputs / 255.0
    preprocessing = Preprocessing(1 / 255, round(float(unit.mean()), 4), round(float(unit.std()), 4))
    return Dataset(
        train_inputs,
        {"labels": train_ids},
        enlarge(test_images),
        {"labels": test_ids},
        preprocessing,
    )


def digit_rows(rng: np.random.Generator) -> Dataset:
    """Return the digits as float32 [n, 8, 8] in 0..1: eight tokens, each one row of eight pixels."""
    train_images, test_images, train_ids, test_ids = split_digits(rng)
    train_inputs, evaluation_inputs = (
        (images / DIGIT_LEVELS).astype(np.float32) for images in (train_images, test_images)
    )
    return Dataset(train_inputs, {"labels": train_ids}, evaluation_inputs, {"labels": test_ids})


def machine_condition(rng: np.random.Generator) -> Dataset:
    """Return simulated machine readings [n, 12] with labels [n, 1]: three healths and their minimum."""

    def draw(count: int) -> tuple[Array, Labels]:
        readings, health = simulate.simulate_machine(rng, count)
        columns = np.concatenate([health, health.min(axis=1, keepdims=True)], axis=1).astype(np.float32)
        names = (*simulate.COMPONENTS, "condition_score")
        labels = {name: columns[:, [index]] for index, name in enumerate(names)}
        return readings.astype(np.float32), labels

    return Dataset(*draw(8000), *draw(512))


def vibration_windows(rng: np.random.Generator) -> Dataset:
    """Return simulated vibration windows [n, 32, 4] in g with class ids from simulate.FAULTS."""

    def draw(count: int) -> tuple[Array, Labels]:
        windows, labels = simulate.simulate_windows(rng, count)
        return windows.astype(np.float32), {"labels": labels}

    return Dataset(*draw(6000), *draw(512))
