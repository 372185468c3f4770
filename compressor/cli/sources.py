"""From a word on the command line to a source of samples."""

from pathlib import Path

from compressor.cli.messages import note
from compressor.data.rows import SUFFIXES
from compressor.errors import DataError, UsageError
from compressor.graph.opening import ModelSource
from compressor.graph.torchscript import parse
from compressor.recipe.tree import Plain

_ARRAYS = (".npz", ".npy", ".safetensors")
_TOKENIZER = "tokenizer.json"


def source_of(model: Path, trust: bool, inputs: list[str] | None) -> ModelSource:
    """The model that the options name.

    Raises:
        UsageError: an input that cannot be read, or a recipe in place of a model.
    """
    if model.suffix in (".yaml", ".yml"):
        raise UsageError(f"{model}: is a recipe, not a model; compressor run {model}")
    try:
        for text in inputs or ():
            parse(text)
    except ValueError as error:
        raise UsageError(f"--input {error}") from error
    return ModelSource(model, trust, tuple(inputs or ()))


def source(text: str, model: ModelSource) -> dict[str, Plain]:
    """The recipe entry that `text` stands for.

    Args:
        text: a file, a folder, module:function, or "random".
        model: whose input size images are brought to, and whose tokenizer reads text.

    Raises:
        UsageError: none of these.
        DataError: it does not exist.
    """
    if text == "random":
        return {"source": "random"}
    path = Path(text).expanduser()
    if path.suffix in _ARRAYS:
        return {"source": "arrays", "path": text}
    if path.is_dir():
        note("images are fed as pixels / 255; if the model wants more, --set data.calibration.mean=[…] and std=[…]")
        return {"source": "images", "path": text, **_image_size(model)}
    if ":" in text and not path.exists():
        return {"source": "python", "function": text}
    if not path.exists():
        raise DataError(f"--data {text}: does not exist")
    if path.suffix in SUFFIXES:
        return {"source": "text", "path": text, "tokenizer": _tokenizer(path, model.path)}
    raise UsageError(
        f"--data {text}: is no {', '.join((*_ARRAYS, *SUFFIXES))} file, folder of images, module:function or random"
    )


def _tokenizer(data: Path, model: Path) -> str:
    """The tokenizer.json beside the model, or else beside the text.

    Raises:
        UsageError: there is none.
    """
    found = next(
        (folder / _TOKENIZER for folder in (model.parent, data.parent) if (folder / _TOKENIZER).is_file()), None
    )
    if found is None:
        raise UsageError(
            f"--data {data}: text takes the model's {_TOKENIZER}, which is neither beside {model} nor beside the text; "
            "put it there, or name it in a recipe as source: text, tokenizer: …"
        )
    return str(found)


def _image_size(model: ModelSource) -> dict[str, Plain]:
    """Size and layout of the model's input, where they are fixed: the short side is fitted, the rest cropped."""
    shapes = model.shapes()
    shape = shapes[0] if len(shapes) == 1 else None
    if shape is None or len(shape) != 4:
        return {}
    last = shape[3] in (1, 3)
    sides, channels = (shape[1:3], shape[3]) if last else (shape[2:4], shape[1])
    entry: dict[str, Plain] = {"layout": "nhwc"} if last else {}
    if channels == 1:
        entry["channels"] = "gray"
    fixed = [side for side in sides if isinstance(side, int)]
    if len(fixed) == 2:
        entry |= {"resize": max(fixed), "crop": [*fixed]}
    return entry
