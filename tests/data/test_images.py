"""Image files become feeds: what Pillow and NumPy make of them directly."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from PIL import Image

from compressor.data import Dataset, ImagesSource
from compressor.errors import DataError
from tests.models import Array, graph, load

RNG = np.random.default_rng(4)
OPEN = graph("float[N,C,H,W] x => float[N,C,H,W] y", "y = Relu(x)")
FIXED = graph("float[4,3,6,6] x => float[4,3,6,6] y", "y = Relu(x)")


def _picture(path: Path, height: int = 6, width: int = 6) -> NDArray[np.uint8]:
    """Random pixels, (height, width, 3), now also in a lossless file."""
    path.parent.mkdir(exist_ok=True, parents=True)
    pixels = RNG.integers(0, 256, (height, width, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def _open(folder: Path, proto: onnx.ModelProto = OPEN, seed: int = 0, **settings: object) -> Dataset:
    model = load(proto, folder.parent, "pictures.onnx")
    return ImagesSource.model_validate({"path": folder, **settings}).open(model, "data.here", seed)


def _only(data: Dataset) -> Array:
    (batch,) = data.batches()
    return batch.feeds["x"][0]


def test_pixels_go_from_0_to_1_with_the_channels_first(tmp_path: Path) -> None:
    pixels = _picture(tmp_path / "set" / "a.png", 5, 7)
    np.testing.assert_allclose(_only(_open(tmp_path / "set")), pixels.transpose(2, 0, 1) / 255, rtol=1e-6)


def test_channels_last_reversed_or_gray(tmp_path: Path) -> None:
    pixels = _picture(tmp_path / "set" / "a.png", 5, 7)
    folder = tmp_path / "set"
    np.testing.assert_array_equal(_only(_open(folder, layout="nhwc", scale=1)), pixels)
    np.testing.assert_array_equal(_only(_open(folder, channels="bgr", scale=1)), pixels[:, :, ::-1].transpose(2, 0, 1))
    gray = np.asarray(Image.fromarray(pixels).convert("L"))
    np.testing.assert_array_equal(_only(_open(folder, channels="gray", scale=1)), gray[None])


def test_mean_and_std_are_those_of_the_channels_after_scaling(tmp_path: Path) -> None:
    pixels = _picture(tmp_path / "set" / "a.png")
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    expected = ((pixels / 255 - mean) / std).transpose(2, 0, 1)
    np.testing.assert_allclose(_only(_open(tmp_path / "set", mean=mean, std=std)), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(20, 10), (10, 20), (13, 31), (8, 8)])
def test_resize_sets_the_short_side_and_keeps_the_proportion(height: int, width: int, tmp_path: Path) -> None:
    _picture(tmp_path / "set" / "a.png", height, width)
    _, h, w = _only(_open(tmp_path / "set", resize=8)).shape
    assert min(h, w) == 8
    assert abs(max(h, w) - 8 * max(height, width) / min(height, width)) <= 1


def test_resizing_to_both_sides_is_bilinear(tmp_path: Path) -> None:
    pixels = _picture(tmp_path / "set" / "a.png", 20, 10)
    expected = np.asarray(Image.fromarray(pixels).resize((7, 9), Image.Resampling.BILINEAR))
    found = _only(_open(tmp_path / "set", resize=[9, 7], scale=1, layout="nhwc"))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("crop", "size"), [(4, (4, 4)), ([2, 6], (2, 6))])
def test_a_crop_is_taken_from_the_centre(crop: object, size: tuple[int, int], tmp_path: Path) -> None:
    pixels = _picture(tmp_path / "set" / "a.png", 8, 10)
    top, left = (8 - size[0]) // 2, (10 - size[1]) // 2
    found = _only(_open(tmp_path / "set", crop=crop, scale=1, layout="nhwc"))
    np.testing.assert_array_equal(found, pixels[top : top + size[0], left : left + size[1]])


def test_sub_folders_are_classes_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("cat/2.png", "ant/1.png", "cat/deep/3.png", "dog/4.JPG"):
        _picture(tmp_path / "set" / name)
    (tmp_path / "set" / "cat" / "notes.txt").write_text("no image")
    batches = list(_open(tmp_path / "set", labels=True, batch=2).batches())
    assert np.concatenate([batch.labels[""] for batch in batches]).tolist() == [0, 1, 1, 2]


@pytest.mark.parametrize("header", ["", "file,label\n"])
@pytest.mark.parametrize("beside", [True, False])
def test_a_list_gives_files_and_labels_in_its_order(header: str, beside: bool, tmp_path: Path) -> None:
    pixels = [_picture(tmp_path / "set" / f"{name}.png") for name in "ab"]
    prefix = "set/" if beside else ""
    (tmp_path / "list.csv").write_text(f"{header}{prefix}b.png, 7\n\n{prefix}a.png,-1\n")
    (batch,) = _open(tmp_path / "set", list=tmp_path / "list.csv", labels=True, scale=1, layout="nhwc").batches()
    assert batch.labels[""].tolist() == [7, -1]
    np.testing.assert_array_equal(batch.feeds["x"], np.stack(pixels[::-1]))


def test_without_labels_a_list_needs_none(tmp_path: Path) -> None:
    _picture(tmp_path / "set" / "a.png")
    (tmp_path / "list.csv").write_text("a.png\n")
    (batch,) = _open(tmp_path / "set", list=tmp_path / "list.csv").batches()
    assert not batch.labels


def test_a_model_of_fixed_batch_gets_full_batches_and_is_told_what_counts(tmp_path: Path) -> None:
    for index in range(6):
        _picture(tmp_path / "set" / f"{index}.png")
    batches = list(_open(tmp_path / "set", FIXED).batches())
    assert [(batch.samples, len(batch.feeds["x"])) for batch in batches] == [(4, 4), (2, 4)]


def test_a_split_holds_every_picture_exactly_once(tmp_path: Path) -> None:
    for index in range(7):
        _picture(tmp_path / "set" / f"{index}.png")
    data = _open(tmp_path / "set", samples=7, seed=3)
    parts = data.split(3)
    assert [len(part) for part in parts] == [3, 4]
    rows = [batch.feeds["x"][i].tobytes() for part in parts for batch in part.batches() for i in range(batch.samples)]
    every = {row.tobytes() for batch in _open(tmp_path / "set").batches() for row in batch.feeds["x"]}
    assert len(rows) == len(every) == 7
    assert set(rows) == every


def _nothing(folder: Path) -> None:
    folder.mkdir()


def _text(folder: Path) -> None:
    folder.mkdir()
    (folder / "a.png").write_text("no image")


def _cut_short(folder: Path) -> None:
    _picture(folder / "a.png", 40, 40)
    (folder / "a.png").write_bytes((folder / "a.png").read_bytes()[:2000])


def _sizes(folder: Path) -> None:
    _picture(folder / "a.png", 8, 8)
    _picture(folder / "b.png", 8, 9)


def _one(folder: Path) -> None:
    _picture(folder / "a.png", 8, 8)


def _list(text: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        _one(folder)
        (folder / "list.csv").write_text(text)

    return make


def _no_folder(folder: Path) -> None:
    folder.write_text("a file")


LIST = {"list": "{folder}/list.csv"}


@pytest.mark.parametrize(
    ("make", "settings", "reason"),
    [
        (_nothing, {}, "no images in"),
        (_text, {}, "a.png: is not an image that can be read"),
        (_cut_short, {}, "a.png: is not an image that can be read"),
        (_sizes, {"batch": 2}, "images of one batch differ in size"),
        (_one, {"crop": 9}, "a.png: is 8×8, smaller than the crop 9×9; give resize"),
        (_one, {"labels": True}, "a.png has none; give list"),
        (_list("a.png\n"), {"labels": True, **LIST}, "a.png has none"),
        (_list("a.png,1\nb.png,2\n"), LIST, "list.csv, line 2: b.png does not exist, neither in"),
        (_list("a.png,one\n"), LIST, 'list.csv, line 1: label "one" is not an integer'),
        (_list(""), LIST, "no images in"),
        (_one, {"mean": [0.5, 0.5]}, "."),
        (_no_folder, {}, "."),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(
    make: Callable[[Path], None], settings: dict[str, object], reason: str, tmp_path: Path
) -> None:
    folder = tmp_path / "set"
    make(folder)
    filled = {k: v.format(folder=folder) if isinstance(v, str) else v for k, v in settings.items()}
    with pytest.raises(DataError, match=reason) as refused:
        list(_open(folder, **filled).batches())
    assert "\n" not in str(refused.value)


def test_images_do_not_fit_another_shape_or_two_inputs(tmp_path: Path) -> None:
    _picture(tmp_path / "set" / "a.png", 8, 8)
    with pytest.raises(
        DataError, match=r"a.png: has shape \[4, 3, 8, 8\], but the model's input is x: float32\[4, 3, 6, 6\]"
    ):
        list(_open(tmp_path / "set", FIXED).batches())
    two = graph("float[N,3,8,8] x, float[N,3,8,8] z => float[N,3,8,8] y", "y = Add(x, z)")
    with pytest.raises(DataError, match="images feed one input, but the model has x, z"):
        _open(tmp_path / "set", two)
