"""A task small enough for a test: a tiny network on random samples, labelled by the network itself."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.tasks import Entry, Places, Rival, Task, Variant
from tests.models import cnn, run, write

SIMPLIFY: Entry = {"type": "simplify"}
STATIC: Entry = {"type": "quantize_static"}


def places(folder: Path) -> Places:
    """Folders for models and data, and for what is made."""
    for name in ("assets", "made"):
        (folder / name).mkdir(exist_ok=True)
    return Places(folder / "assets", folder / "made")


def classes(folder: Path, samples: int = 40) -> Task:
    """A network that is right on all of its data, so that top-1 of the reference is 1."""
    assets = places(folder).assets
    rng = np.random.default_rng(0)
    model = write(cnn(rng), assets / "model.onnx")
    images = rng.standard_normal((samples, 3, 8, 8)).astype(np.float32)
    np.savez(assets / "data.npz", x=images, labels=run(model, {"x": images})["y"].argmax(axis=1))
    source: Entry = {"source": "arrays", "path": "<assets>/data.npz", "inputs": {"x": "x"}}
    return Task(
        "tiny",
        "<assets>/model.onnx",
        {**source, "labels": "labels", "metric": "top1"},
        (Variant("w8a8", (SIMPLIFY, STATIC), Rival("static")),),
        calibration={**source, "samples": 32},
    )


def with_variants(task: Task, *variants: Variant) -> Task:
    """The same task with other variants."""
    return replace(task, variants=variants)
