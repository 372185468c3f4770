"""A small network that learns from a large one, beside the same network that learns from labels alone.

    python -m benchmarks.lenet [--seed N ...] [--epochs N] [--assets FOLDER] [--keep FOLDER]

trains a convolutional network of eight times the multiply-accumulates on the labels of MNIST, and then a LeNet-5 twice
with `compressor run`: with the teacher's outputs and no labels, and with the labels and no teacher; the rest is the
same. The table is Markdown.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.architectures import write

ROOT = Path(__file__).resolve().parents[1]
_BATCH = 128
_SHIFT = 2
"""Pixels by which images are moved while networks learn, all of them."""

Json = dict[str, Any]

_TEACHER_EPOCHS = 6
_RECIPES = {"teacher's outputs, no labels": {"temperature": 4.0}, "labels, no teacher": {"alpha": 0.0}}


def large() -> nn.Sequential:
    """Four convolutions of 3 × 3 and two products; 18.3 million multiply-accumulates."""
    convolutions: list[nn.Module] = []
    for inputs, outputs, last in ((1, 32, False), (32, 32, True), (32, 64, False), (64, 64, True)):
        convolutions += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
        convolutions += [nn.MaxPool2d(2)] if last else []
    head = [nn.Flatten(), nn.Dropout(0.3), nn.Linear(64 * 7 * 7, 128), nn.ReLU(), nn.Dropout(0.3), nn.Linear(128, 10)]
    return nn.Sequential(*convolutions, *head)


def small() -> nn.Sequential:
    """LeCun et al. 1998, "Gradient-Based Learning Applied to Document Recognition", with rectifiers."""
    first = [nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)]
    second = [nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
    head = [nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)]
    return nn.Sequential(*first, *second, *head)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, action="append", help="of networks and samples; 0; may be repeated")
    parser.add_argument("--epochs", type=float, default=12.0, help="of the small network; %(default)s")
    parser.add_argument("--assets", type=Path, default=ROOT.parent / "shared" / "assets", help="folder with data/")
    parser.add_argument("--keep", type=Path, help="keep models, recipes and reports there")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as made:
        folder = options.keep or Path(made)
        folder.mkdir(parents=True, exist_ok=True)
        images, labels = _data(options.assets, folder)
        print("| seed | LeNet-5 learns from | top-1 | of the teacher | bytes | latency | seconds |")
        print("|--:|---|--:|--:|--:|--:|--:|")
        for seed in options.seed or [0]:
            torch.manual_seed(seed)
            teacher = large()
            _train(teacher, images, labels, seed)
            example = {"image": torch.zeros(2, 1, 28, 28)}
            write(teacher.eval(), example, "torchscript", folder / "teacher.onnx")
            write(small().eval(), example, "torchscript", folder / "student.onnx")
            for name, settings in _RECIPES.items():
                print(_row(seed, name, _run(folder, seed, {"epochs": options.epochs, **settings})), flush=True)


def _data(assets: Path, folder: Path) -> tuple[Tensor, Tensor]:
    """The images and labels to learn from; all are written in the form that recipes name."""
    stored = np.load(assets / "data" / "mnist.npz")
    for part in ("train", "test"):
        np.savez(folder / f"{part}.npz", image=stored[f"x_{part}"][:, None], label=stored[f"y_{part}"].astype(np.int64))
    images = torch.from_numpy(stored["x_train"][:, None]).float() / 255
    return images, torch.from_numpy(stored["y_train"]).long()


def _train(network: nn.Module, images: Tensor, labels: Tensor, seed: int) -> None:
    steps = _TEACHER_EPOCHS * (len(images) // _BATCH)
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    network.train()
    for _, (x, y) in zip(range(steps), _batches(images, labels, seed), strict=False):
        optimizer.zero_grad(set_to_none=True)
        functional.cross_entropy(network(x), y).backward()
        optimizer.step()
        schedule.step()


def _batches(images: Tensor, labels: Tensor, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Without end, each batch moved by a few pixels."""
    drawn = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(len(images), generator=drawn)
        for rows in order.split(_BATCH)[: len(images) // _BATCH]:
            down, right = (int(n) for n in torch.randint(-_SHIFT, _SHIFT + 1, (2,), generator=drawn))
            yield torch.roll(images[rows], (down, right), (2, 3)), labels[rows]


def _run(folder: Path, seed: int, settings: dict[str, float]) -> Json:
    """The report of `compressor run`, with the teacher as the reference."""
    arrays = {"source": "arrays", "scale": 1 / 255, "labels": "label"}
    learn = {"type": "distill", "student": "student.onnx", "batch": _BATCH, "augment": {"crop": _SHIFT}}
    recipe = {
        "version": 1,
        "seed": seed,
        "model": "teacher.onnx",
        "data": {
            "training": {**arrays, "path": "train.npz"},
            "evaluation": {**arrays, "path": "test.npz", "metric": "top1"},
        },
        "passes": [{**learn, "learning_rate": 0.002, **settings}],
        "verify": {"cosine": -1},
        "output": {"model": "result.onnx", "report": ["report.json"]},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    command = [sys.executable, "-m", "compressor", "run", str(folder / "recipe.yaml"), "--overwrite", "--quiet"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
    found: Json = json.loads((folder / "report.json").read_text())
    return found


def _row(seed: int, name: str, report: Json) -> str:
    accuracy, latency = report["accuracy"], report["latency"]
    size, seconds = report["result"]["file_bytes"], sum(step["seconds"] for step in report["passes"])
    shares = f"{accuracy['result']:.2%} | {accuracy['reference']:.2%}"
    return f"| {seed} | {name} | {shares} | {size:,} | {latency['ratio']:.2f} | {seconds:.0f} |"


if __name__ == "__main__":
    main()
