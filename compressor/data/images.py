"""Samples in image files, decoded and preprocessed one batch at a time."""

import csv
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from compressor.data.base import Array, Batch, Dataset, RecipePath, Settings, Source, batch_size, fit, shuffled
from compressor.data.preprocess import Numbers, Scales
from compressor.errors import DataError
from compressor.graph.model import Model, TensorSpec

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff", ".gif")


@dataclass(frozen=True, slots=True)
class ImageFile:
    """One sample: where it is and, if known, its class."""

    path: Path
    label: int | None


class Picture(Settings):
    """From a file to pixels in [0, 1] and on to what the model was trained on."""

    resize: int | tuple[int, int] | None = Field(
        default=None, description="length of the short side, or [height, width]"
    )
    crop: int | tuple[int, int] | None = Field(default=None, description="centre crop to a square, or [height, width]")
    scale: float = Field(default=1 / 255, description="multiplies pixels 0 … 255")
    mean: Numbers = Field(default=(), description="subtracted after scaling; one, or one per channel")
    std: Scales = Field(default=(), description="divides after that; one, or one per channel")
    channels: Literal["rgb", "bgr", "gray"] = Field(default="rgb", description="order of colours")
    layout: Literal["nchw", "nhwc"] = Field(default="nchw", description="order of axes the model wants")

    def read(self, path: Path) -> NDArray[np.float32]:
        """(channels, height, width), or with the channels last, as `layout` says.

        Raises:
            DataError: not an image.
        """
        from PIL import Image, UnidentifiedImageError

        try:
            with Image.open(path) as opened:
                image = opened.convert("L" if self.channels == "gray" else "RGB")
        except (OSError, UnidentifiedImageError, ValueError) as error:
            raise DataError(f"{path}: is not an image that can be read: {error}") from error
        if self.resize is not None:
            image = image.resize(_resized(image.size, self.resize), Image.Resampling.BILINEAR)
        if self.crop is not None:
            image = image.crop(_centre(image.size, self.crop, path))
        pixels = np.atleast_3d(np.asarray(image, np.float32))
        pixels = pixels[:, :, ::-1] if self.channels == "bgr" else pixels
        for field, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (0, 1, pixels.shape[2]):
                raise DataError(f"{path}: {field} has {len(values)} entries, the image {pixels.shape[2]} channels")
        mean, std = np.asarray(self.mean or 0, np.float32), np.asarray(self.std or 1, np.float32)
        normalized = ((pixels * np.float32(self.scale) - mean) / std).astype(np.float32)
        return normalized if self.layout == "nhwc" else normalized.transpose(2, 0, 1)


class ImagesSource(Source, Picture):
    """A folder of images, or a csv list of them.

    Without `list`, sub-folders are classes, numbered in the order of their names. A list has lines
    `file,label` (label optional, with or without a header), files relative to `path` or to the list.
    """

    source: Literal["images"] = "images"
    path: RecipePath = Field(description="folder of images")
    list: RecipePath | None = Field(default=None, description="csv of file,label; files relative to path or to it")
    labels: bool = Field(default=False, description="take labels from the list, or from the sub-folders")

    def paths(self) -> tuple[Path, ...]:
        """The folder, and the list if there is one."""
        return (self.path,) if self.list is None else (self.path, self.list)

    def identity(self, specs: tuple[TensorSpec, ...]) -> object:
        """The folder and the list."""
        return self.path.resolve(), self.list and self.list.resolve()

    def open(self, model: Model, place: str, seed: int) -> Dataset:
        """The files, in the order of their names or of the list; they are decoded when they are read."""
        specs = model.inputs()
        if len(specs) != 1:
            raise DataError(
                f"{place}: images feed one input, but the model has {', '.join(s.name for s in specs)}; "
                "use source: arrays or python"
            )
        files = _in_folder(self.path, place) if self.list is None else _in_list(self.path, self.list, place)
        if not files:
            raise DataError(f"{place}: no images in {self.list or self.path}; {', '.join(SUFFIXES)} are known")
        if self.labels and any(f.label is None for f in files):
            raise DataError(f"{place}: labels are wanted, but {files[0].path} has none; give list: with file,label")
        picked = [files[i] for i in shuffled(len(files), self.samples, seed)]
        batch = batch_size(self.batch, specs, place)
        return ImagesDataset((self.list or self.path).name, specs[0], batch, picked, self, self.labels)


class ImagesDataset(Dataset):
    """Image files, read anew each time."""

    def __init__(
        self, name: str, spec: TensorSpec, batch: int, files: list[ImageFile], picture: Picture, labelled: bool
    ) -> None:
        super().__init__(name, (spec,), batch)
        self._files, self._picture, self._labelled = files, picture, labelled

    def __len__(self) -> int:
        return len(self._files)

    def batches(self) -> Iterator[Batch]:
        """Decoded images, one batch ahead; a fixed batch that is not full is filled up by repeating files."""
        starts = range(0, len(self._files), self.batch)
        with ThreadPoolExecutor(1) as decoder:
            waiting: deque[Future[Batch]] = deque()
            for start in starts:
                waiting.append(decoder.submit(self._read, start))
                if len(waiting) > 1:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _read(self, start: int) -> Batch:
        """The batch that begins with this file."""
        spec, files = self.specs[0], self._files[start : start + self.batch]
        fixed = spec.shape is not None and isinstance(spec.shape[0], int)
        fed = [files[i % len(files)] for i in range(self.batch)] if fixed else files
        feed = fit(self._stack(fed), spec, str(files[0].path))
        labels: dict[str, Array] = {"": np.array([f.label for f in files])} if self._labelled else {}
        return Batch({spec.name: feed}, labels, len(files))

    def _stack(self, files: list[ImageFile]) -> NDArray[np.float32]:
        pictures = [self._picture.read(f.path) for f in files]
        shapes = {p.shape for p in pictures}
        if len(shapes) > 1:
            raise DataError(
                f"{files[0].path}: images of one batch differ in size {sorted(shapes)}; give resize and crop"
            )
        return np.stack(pictures)

    def split(self, first: int) -> tuple[Dataset, Dataset]:
        """By files."""
        return self._with(self._files[:first]), self._with(self._files[first:])

    def _with(self, files: list[ImageFile]) -> "ImagesDataset":
        return ImagesDataset(self.name, self.specs[0], self.batch, files, self._picture, self._labelled)


def _in_folder(folder: Path, place: str) -> list[ImageFile]:
    if not folder.is_dir():
        raise DataError(f"{place}: {folder}: is not a folder; give the folder of the images, and list: for a csv")
    classes = sorted(d.name for d in folder.iterdir() if d.is_dir())
    files = sorted(f for f in folder.rglob("*") if f.suffix.lower() in SUFFIXES)
    return [ImageFile(f, _class_of(f, folder, classes)) for f in files]


def _class_of(file: Path, folder: Path, classes: list[str]) -> int | None:
    top = file.relative_to(folder).parts[0]
    return classes.index(top) if top in classes else None


def _in_list(folder: Path, listing: Path, place: str) -> list[ImageFile]:
    try:
        rows = list(csv.reader(listing.read_text(encoding="utf-8").splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{place}: {listing}: cannot be read as text: {error}") from error
    header = bool(rows and rows[0]) and Path(rows[0][0]).suffix.lower() not in SUFFIXES
    numbered = enumerate(rows[header:], start=1 + header)
    return [_listed(row, folder, listing, f"{place}: {listing}, line {number}") for number, row in numbered if row]


def _listed(row: list[str], folder: Path, listing: Path, place: str) -> ImageFile:
    path = next((p for p in (folder / row[0], listing.parent / row[0]) if p.is_file()), None)
    if path is None:
        raise DataError(f"{place}: {row[0]} does not exist, neither in {folder} nor beside the list")
    label = row[1].strip() if len(row) > 1 else ""
    if label and not label.lstrip("-").isdecimal():
        raise DataError(f'{place}: label "{label}" is not an integer')
    return ImageFile(path, int(label) if label else None)


def _resized(size: tuple[int, int], wanted: int | tuple[int, int]) -> tuple[int, int]:
    """(width, height), as Pillow wants it."""
    if isinstance(wanted, tuple):
        return wanted[1], wanted[0]
    width, height = size
    ratio = wanted / min(width, height)
    return max(wanted, round(width * ratio)), max(wanted, round(height * ratio))


def _centre(size: tuple[int, int], wanted: int | tuple[int, int], path: Path) -> tuple[int, int, int, int]:
    height, width = (wanted, wanted) if isinstance(wanted, int) else wanted
    if width > size[0] or height > size[1]:
        raise DataError(f"{path}: is {size[0]}×{size[1]}, smaller than the crop {width}×{height}; give resize")
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return left, top, left + width, top + height
