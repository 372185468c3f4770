"""The bridge to torch: what it executes, how well it agrees with ONNX Runtime, what a training step costs.

    python -m benchmarks.bridge [--only nodes|agreement|steps] [--assets FOLDER]

prints three tables in Markdown: node tests of the `onnx` package that pass; the largest difference from ONNX
Runtime for every float model; processor time of a training step beside that of the native torch module, both
in turn in one process on one thread.
"""

import argparse
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.architectures import MobileNet, ResNet
from compressor.data import RandomSource
from compressor.graph.model import Model
from compressor.runtime.autograd import Network
from compressor.runtime.autograd.values import from_numpy, to_numpy
from compressor.runtime.ort import Session

ROOT = Path(__file__).resolve().parents[1]
_WARM_UP, _ROUNDS = 3, 15
_SAMPLES = 2


class Transformer(nn.Module):
    """Four encoder layers over embedded tokens, written out so that every exporter takes it."""

    def __init__(self, width: int = 128, heads: int = 4, layers: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.words = nn.Embedding(1000, width)
        self.layers = nn.ModuleList(self._layer(width) for _ in range(layers))
        self.head = nn.Linear(width, 10)

    @staticmethod
    def _layer(width: int) -> nn.ModuleDict:
        square = {name: nn.Linear(width, width) for name in ("query", "key", "value", "out")}
        norms = {name: nn.LayerNorm(width) for name in ("first", "second")}
        return nn.ModuleDict(
            {**square, **norms, "up": nn.Linear(width, 4 * width), "down": nn.Linear(4 * width, width)}
        )

    def forward(self, ids: Tensor) -> Tensor:
        """(batch, length) to (batch, classes)."""
        x = self.words(ids)
        for layer in self.layers:
            batch, length, width = x.shape
            query, key, value = (
                layer[name](x).view(batch, length, self.heads, -1).transpose(1, 2) for name in ("query", "key", "value")
            )
            scores = torch.softmax(query @ key.transpose(-1, -2) * (width // self.heads) ** -0.5, -1)
            mixed = (scores @ value).transpose(1, 2).reshape(batch, length, width)
            x = layer["first"](x + layer["out"](mixed))
            x = layer["second"](x + layer["down"](nn.functional.gelu(layer["up"](x))))
        return self.head(x.mean(1))


class Recurrent(nn.Module):
    """Two layers in both directions, and a head."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.layers = kind(32, 64, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, length, 32) to (batch, classes)."""
        return self.head(self.layers(x)[0].mean(1))


def _cases() -> Iterator[tuple[str, nn.Module, Tensor]]:
    torch.manual_seed(0)
    images = torch.randn(8, 3, 64, 64)
    plan = [(1, 16, 1), (6, 24, 2), (6, 24, 1), (6, 32, 2), (6, 32, 1), (6, 64, 2)]
    yield "ResNet", ResNet([2, 2, 2], [16, 32, 64], False, classes=10), images
    yield "MobileNet", MobileNet(plan, 16, 128, False, 10), images
    yield "transformer", Transformer(), torch.randint(0, 1000, (8, 64))
    yield "LSTM", Recurrent(nn.LSTM), torch.randn(8, 50, 32)
    yield "GRU", Recurrent(nn.GRU), torch.randn(8, 50, 32)


def agreement(path: Path) -> tuple[float, int] | None:
    """Largest difference from ONNX Runtime beside the largest value of an output, and parameters that are trained.

    None for a model whose outputs are drawn at random.
    """
    model = Model.load(path)
    network, session, worst = Network(model), Session(path), 0.0
    for batch in RandomSource(samples=_SAMPLES).open(model, "random input", 0).batches():
        wanted, again = session.run(batch.feeds), session.run(batch.feeds)
        with torch.no_grad():
            found = network.run({name: from_numpy(array) for name, array in batch.feeds.items()})
        for name, array in wanted.items():
            if not np.array_equal(array, again[name]):
                return None
            got = to_numpy(found[name])
            if (got.shape, got.dtype) != (array.shape, array.dtype):
                return float("inf"), 0
            difference = np.abs(got.astype(np.float64) - array.astype(np.float64)).max(initial=0.0)
            worst = max(worst, float(difference / max(np.abs(array.astype(np.float64)).max(initial=0.0), 1e-12)))
    return worst, sum(parameter.numel() for parameter in network.trained.values())


def float_models(assets: Path) -> list[Path]:
    """The sample models, and those of the assets that can be used."""
    others = (path for path in sorted((assets / "models").rglob("*.onnx")) if path.parent.name != "refuse")
    return [*sorted((ROOT / "sample_models").glob("*.onnx")), *others]


def _exported(module: nn.Module, example: Tensor, dynamo: bool, path: Path) -> Network:
    if dynamo:
        torch.onnx.export(module, (example,), path, dynamo=True, opset_version=20, verbose=False, external_data=False)
    else:
        torch.onnx.export(module, (example,), path, dynamo=False, opset_version=17)
    return Network(Model.load(path))


def _step(call: Callable[[Tensor], Tensor], optimizer: torch.optim.Optimizer, x: Tensor) -> float:
    """Processor seconds of one step."""
    before = time.process_time()
    optimizer.zero_grad()
    call(x).square().mean().backward()
    optimizer.step()
    return time.process_time() - before


def step_ratio(module: nn.Module, x: Tensor, dynamo: bool) -> tuple[float, float, float]:
    """Medians of a training step: native ms, ours ms, and the ratio of both, round by round."""
    with tempfile.TemporaryDirectory() as folder:
        network = _exported(module.eval(), x, dynamo, Path(folder) / "model.onnx")
    native = torch.optim.SGD(module.requires_grad_(True).parameters(), 1e-4)
    ours = torch.optim.SGD(network.trained.values(), 1e-4)
    times = np.array(
        [(_step(module, native, x), _step(lambda x: network(x)[0], ours, x)) for _ in range(_WARM_UP + _ROUNDS)]
    )[_WARM_UP:]
    median = np.median(times, 0) * 1e3
    return float(median[0]), float(median[1]), float(np.median(times[:, 1] / times[:, 0]))


def _nodes() -> None:
    from tests.runtime.autograd.node_suite import failure, standard_tests

    every = [failure(test) is None for test in standard_tests()]
    print(f"Node tests of onnx up to opset 23: {sum(every)} of {len(every)} pass.\n")


def _agreement(assets: Path) -> None:
    print("| model | largest difference | trained |\n|---|---|---|")
    for path in float_models(assets):
        found = agreement(path)
        shown = "drawn at random | |" if found is None else f"{found[0]:.1e} | {found[1]:,} |"
        print(f"| {path.name} | {shown}", flush=True)
    print()


def _steps() -> None:
    torch.set_num_threads(1)
    print("| network | exporter | native, ms | ours, ms | ratio |\n|---|---|---|---|---|")
    for name, module, x in _cases():
        for dynamo in (False, True):
            native, ours, ratio = step_ratio(module, x, dynamo)
            exporter = "torch.export" if dynamo else "TorchScript"
            print(f"| {name} | {exporter} | {native:.1f} | {ours:.1f} | {ratio:.2f} |", flush=True)


def main(arguments: Sequence[str]) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bridge", description=__doc__)
    parser.add_argument("--only", choices=("nodes", "agreement", "steps"))
    parser.add_argument("--assets", type=Path, default=ROOT.parent / "shared" / "assets")
    given = parser.parse_args(arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if given.only in (None, "nodes"):
            _nodes()
        if given.only in (None, "agreement"):
            _agreement(given.assets)
        if given.only in (None, "steps"):
            _steps()


if __name__ == "__main__":
    main(sys.argv[1:])
