"""The receipt: what a model was made from, how, and with which versions; stored in the model itself."""

import json
import zipfile
from pathlib import Path

from compressor import __version__
from compressor.errors import ModelError
from compressor.graph.model import Model, sha256
from compressor.recipe import Recipe
from compressor.recipe.load import plain
from compressor.report import Json
from compressor.runtime.environment import versions

RECEIPT = "compressor.receipt"
"""Key of the model's metadata under which the receipt is stored, as JSON."""


def stored_receipt(model: Model) -> dict[str, Json] | None:
    """The receipt in a model; None when it carries none.

    Raises:
        ModelError: what is stored there is no receipt.
    """
    text = model.metadata.get(RECEIPT)
    return None if text is None else _parsed(text, model.source)


def receipt_in(path: Path) -> dict[str, Json] | None:
    """The receipt in a file of any format that is written; nothing of torch is loaded.

    Raises:
        ModelError: it cannot be read, or what is stored there is no receipt.
    """
    if not zipfile.is_zipfile(path):
        return stored_receipt(Model.read(path))
    with zipfile.ZipFile(path) as archive:
        name = next((n for n in archive.namelist() if n.endswith(f"extra/{RECEIPT}")), None)
        text = None if name is None else archive.read(name).decode("utf-8", "replace")
    return None if text is None else _parsed(text, path)


def _parsed(text: str, source: Path) -> dict[str, Json]:
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise ModelError(f"{source}: {RECEIPT} in its metadata is damaged: {error}") from error
    if not isinstance(found, dict):
        raise ModelError(f"{source}: {RECEIPT} in its metadata is no receipt")
    return found


def receipt(recipe: Recipe) -> dict[str, Json]:
    """What is stored in the written model: enough to make it again."""
    return {
        "compressor": __version__,
        "recipe": plain(recipe, recipe.output.model.parent),
        "source": {"name": recipe.model.name, "bytes": recipe.model.stat().st_size, "sha256": sha256(recipe.model)},
        "versions": dict(versions()),
    }
