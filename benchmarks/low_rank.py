"""What thin factors save where there is low rank, and what is made of where there is none.

    python -m benchmarks.low_rank [--only NAME ...] [--assets FOLDER] [--keep FOLDER]

trains two wide networks on MNIST, one of convolutions and one of products, and runs `factorize` on them, alone and
followed by `distill` and `quantize_static`. The table is Markdown.
"""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks import mnist
from benchmarks.architectures import write

_EPOCHS = 3
_LEARN = {"type": "distill", "epochs": 2, "batch": mnist.BATCH, "augment": {"crop": mnist.SHIFT}}
_RECIPES: dict[str, list[mnist.Json]] = {
    "factorize, plain": [{"type": "factorize", "macs": 0.3, "whiten": False}],
    "factorize": [{"type": "factorize", "macs": 0.3}],
    "factorize, distill, quantize_static": [{"type": "factorize", "macs": 0.3}, _LEARN, {"type": "quantize_static"}],
}


class FeedForward(nn.Module):
    """The feed-forward halves of a transformer without its attention: three residual blocks of 512, 2048, 512."""

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Linear(784, 512)
        self.norms = nn.ModuleList(nn.LayerNorm(512) for _ in range(3))
        self.up = nn.ModuleList(nn.Linear(512, 2048) for _ in range(3))
        self.down = nn.ModuleList(nn.Linear(2048, 512) for _ in range(3))
        self.head = nn.Linear(512, 10)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 1, 28, 28) to (batch, 10)."""
        x = self.into(x.flatten(1))
        for norm, up, down in zip(self.norms, self.up, self.down, strict=True):
            x = x + down(nn.functional.gelu(up(norm(x))))
        return self.head(x)


def vgg() -> nn.Module:
    """Six convolutions of 3 × 3, in pairs of 32, 64 and 128 channels, and two products."""
    parts: list[nn.Module] = []
    for inputs, outputs in ((1, 32), (32, 64), (64, 128)):
        for channels in (inputs, outputs):
            parts += [nn.Conv2d(channels, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
        parts.append(nn.MaxPool2d(2))
    return nn.Sequential(*parts, nn.Flatten(), nn.Linear(128 * 9, 256), nn.ReLU(), nn.Linear(256, 10))


_NETWORKS: dict[str, Callable[[], nn.Module]] = {"vgg": vgg, "feed-forward": FeedForward}


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=_NETWORKS, action="append", help="one network; may be repeated")
    parser.add_argument("--assets", type=Path, default=mnist.ASSETS, help="folder with data/")
    parser.add_argument("--keep", type=Path, help="keep models, recipes and reports there")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as made:
        folder = options.keep or Path(made)
        folder.mkdir(parents=True, exist_ok=True)
        images, labels = mnist.load(options.assets, folder)
        print("| network | passes | top-1 before | after | MACs | bytes | latency | seconds |")
        print("|---|---|--:|--:|--:|--:|--:|--:|")
        for name in options.only or _NETWORKS:
            torch.manual_seed(0)
            network = _NETWORKS[name]()
            mnist.train(network, images, labels, 0, _EPOCHS, 1e-3)
            write(network, {"image": torch.zeros(2, 1, 28, 28)}, "torchscript", folder / f"{name}.onnx")
            for told, passes in _RECIPES.items():
                print(_row(name, told, _compressed(folder, name, passes)), flush=True)


def _compressed(folder: Path, name: str, passes: list[mnist.Json]) -> mnist.Json:
    data = {
        "calibration": mnist.source("train", samples=1024),
        "training": mnist.source("train"),
        "evaluation": mnist.source("test", metric="top1"),
    }
    steps = [{"type": "simplify"}, *passes, {"type": "compact"}]
    return mnist.run(folder, {"model": f"{name}.onnx", "data": data, "passes": steps})


def _row(name: str, told: str, report: mnist.Json) -> str:
    accuracy, before, after = report["accuracy"], report["reference"], report["result"]
    macs = f"{after['macs'] / before['macs']:.2f}" if after["macs"] else "–"
    seconds = sum(step["seconds"] for step in report["passes"])
    return (
        f"| {name} | {told} | {accuracy['reference']:.2%} | {accuracy['result']:.2%} | {macs} | "
        f"{after['file_bytes'] / before['file_bytes']:.2f} | {report['latency']['ratio']:.2f} | {seconds:.0f} |"
    )


if __name__ == "__main__":
    main()
