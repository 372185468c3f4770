"""A small network that learns from a large one, beside the same network that learns from labels alone.

    python -m benchmarks.lenet [--seed N ...] [--epochs N] [--assets FOLDER] [--keep FOLDER]

trains a convolutional network of forty times the multiply-accumulates on the labels of MNIST, and then a LeNet-5 twice
with `compressor run`: with the teacher's outputs and no labels, and with the labels and no teacher; the rest is the
same. The table is Markdown.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from benchmarks import mnist
from benchmarks.architectures import write

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
    parser.add_argument("--assets", type=Path, default=mnist.ASSETS, help="folder with data/")
    parser.add_argument("--keep", type=Path, help="keep models, recipes and reports there")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as made:
        folder = options.keep or Path(made)
        folder.mkdir(parents=True, exist_ok=True)
        images, labels = mnist.load(options.assets, folder)
        print("| seed | LeNet-5 learns from | top-1 | of the teacher | bytes | latency | seconds |")
        print("|--:|---|--:|--:|--:|--:|--:|")
        for seed in options.seed or [0]:
            torch.manual_seed(seed)
            teacher = large()
            mnist.train(teacher, images, labels, seed, _TEACHER_EPOCHS)
            example = {"image": torch.zeros(2, 1, 28, 28)}
            write(teacher, example, "torchscript", folder / "teacher.onnx")
            write(small().eval(), example, "torchscript", folder / "student.onnx")
            for name, settings in _RECIPES.items():
                print(_row(seed, name, _learned(folder, seed, {"epochs": options.epochs, **settings})), flush=True)


def _learned(folder: Path, seed: int, settings: dict[str, float]) -> mnist.Json:
    """The report, with the teacher as the reference."""
    learn = {"type": "distill", "student": "student.onnx", "batch": mnist.BATCH, "augment": {"crop": mnist.SHIFT}}
    recipe = {
        "seed": seed,
        "model": "teacher.onnx",
        "data": {"training": mnist.source("train"), "evaluation": mnist.source("test", metric="top1")},
        "passes": [{**learn, "learning_rate": 0.002, **settings}],
    }
    return mnist.run(folder, recipe)


def _row(seed: int, name: str, report: mnist.Json) -> str:
    accuracy, latency = report["accuracy"], report["latency"]
    size, seconds = report["result"]["file_bytes"], sum(step["seconds"] for step in report["passes"])
    shares = f"{accuracy['result']:.2%} | {accuracy['reference']:.2%}"
    return f"| {seed} | {name} | {shares} | {size:,} | {latency['ratio']:.2f} | {seconds:.0f} |"


if __name__ == "__main__":
    main()
