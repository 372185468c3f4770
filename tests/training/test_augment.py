"""Samples varied: each law stated without the code that varies."""

import numpy as np
import pytest

from compressor.errors import PassError
from compressor.graph.model import TensorSpec
from compressor.training.augment import augmented, check
from compressor.training.settings import Augmentation

RNG = np.random.default_rng(3)
IMAGES = RNG.standard_normal((64, 3, 5, 6)).astype(np.float32)


def _varied(feeds: dict[str, np.ndarray], seed: int = 0, **settings: float) -> dict[str, np.ndarray]:
    return augmented(feeds, Augmentation.model_validate(settings), np.random.default_rng(seed))[0]


def test_a_flip_mirrors_half_of_the_images_and_leaves_the_others() -> None:
    made = _varied({"x": IMAGES}, flip=True)["x"]
    same = (made == IMAGES).all((1, 2, 3))
    mirrored = (made == IMAGES[..., ::-1]).all((1, 2, 3))
    assert (same ^ mirrored).all()
    assert 16 < mirrored.sum() < 48


def test_channels_may_come_last() -> None:
    last = np.ascontiguousarray(np.moveaxis(RNG.standard_normal((16, 3, 9, 8)), 1, -1), np.float32)
    made = _varied({"x": last}, flip=True)["x"]
    mirrored = (made == last[:, :, ::-1]).all((1, 2, 3))
    assert ((made == last).all((1, 2, 3)) ^ mirrored).all()
    assert mirrored.any()


def test_a_crop_shifts_by_no_more_than_it_says_and_mirrors_what_comes_in() -> None:
    place = np.arange(6, dtype=np.float32) + 10 * np.arange(5, dtype=np.float32)[:, None]
    made = _varied({"x": np.broadcast_to(place, (64, 1, 5, 6)).copy()}, crop=2)["x"][:, 0]
    rows, columns = (made[:, 2, 3] // 10 - 2), (made[:, 2, 3] % 10 - 3)
    assert set(rows) == set(columns) == {-2.0, -1.0, 0.0, 1.0, 2.0}
    mirrored = np.pad(place, 2, mode="reflect")
    for image, down, right in zip(made, rows.astype(int), columns.astype(int), strict=True):
        np.testing.assert_array_equal(image, mirrored[2 + down : 7 + down, 2 + right : 8 + right])


def test_blending_keeps_the_mean_of_the_batch_and_is_linear() -> None:
    feeds, settings = {"x": IMAGES, "twice": 2 * IMAGES}, Augmentation(mixup=1.0)
    made, mix = augmented(feeds, settings, np.random.default_rng(1))
    assert 0 < mix.share < 1
    np.testing.assert_allclose(made["x"].mean(0), IMAGES.mean(0), atol=1e-6)
    np.testing.assert_allclose(made["twice"], 2 * made["x"], rtol=1e-6)
    np.testing.assert_allclose(made["x"] - mix.share * IMAGES, (1 - mix.share) * IMAGES[mix.partners], atol=1e-6)


def test_noise_has_the_size_that_it_says() -> None:
    made = _varied({"x": IMAGES}, noise=0.1)["x"]
    assert (made - IMAGES).std() == pytest.approx(0.1 * IMAGES.std(), rel=0.05)


def test_numbers_of_tokens_are_left_alone_and_equal_seeds_vary_alike() -> None:
    tokens = RNG.integers(0, 9, (64, 4))
    feeds, settings = {"x": IMAGES, "ids": tokens}, {"flip": True, "crop": 1, "mixup": 0.5, "noise": 0.1}
    first, again, other = (_varied(feeds, seed, **settings) for seed in (0, 0, 1))
    assert first["ids"] is tokens
    np.testing.assert_array_equal(first["x"], again["x"])
    assert not np.array_equal(first["x"], other["x"])


@pytest.mark.parametrize(
    ("spec", "settings", "says"),
    [
        (TensorSpec("x", "float32", ("N", 8)), {"flip": True}, "are for images"),
        (TensorSpec("x", "int64", ("N", 8)), {"noise": 0.1}, "for inputs of floats"),
    ],
)
def test_what_no_input_can_take_is_refused(spec: TensorSpec, settings: dict[str, float], says: str) -> None:
    with pytest.raises(PassError, match=says):
        check(Augmentation.model_validate(settings), (spec,))
