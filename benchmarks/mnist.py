"""MNIST for the benchmarks that train networks themselves: the images, a training loop, and `compressor run`."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional

ROOT = Path(__file__).resolve().parents[1]
ASSETS = ROOT.parent / "shared" / "assets"
BATCH = 128
SHIFT = 2
"""Pixels by which images are moved while networks learn."""

Json = dict[str, Any]


def load(assets: Path, folder: Path) -> tuple[Tensor, Tensor]:
    """The images and labels to learn from; all are written in the form that recipes name."""
    stored = np.load(assets / "data" / "mnist.npz")
    for part in ("train", "test"):
        np.savez(folder / f"{part}.npz", image=stored[f"x_{part}"][:, None], label=stored[f"y_{part}"].astype(np.int64))
    images = torch.from_numpy(stored["x_train"][:, None]).float() / 255
    return images, torch.from_numpy(stored["y_train"]).long()


def train(network: nn.Module, images: Tensor, labels: Tensor, seed: int, epochs: int, rate: float = 3e-3) -> None:
    """On labels, with one cycle of the learning rate."""
    steps = epochs * (len(images) // BATCH)
    optimizer = torch.optim.AdamW(network.parameters(), rate, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    network.train()
    for _, (x, y) in zip(range(steps), _batches(images, labels, seed), strict=False):
        optimizer.zero_grad(set_to_none=True)
        functional.cross_entropy(network(x), y).backward()
        optimizer.step()
        schedule.step()
    network.eval()


def _batches(images: Tensor, labels: Tensor, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Without end, each batch moved by a few pixels."""
    drawn = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(len(images), generator=drawn)
        for rows in order.split(BATCH)[: len(images) // BATCH]:
            down, right = (int(n) for n in torch.randint(-SHIFT, SHIFT + 1, (2,), generator=drawn))
            yield torch.roll(images[rows], (down, right), (2, 3)), labels[rows]


def source(part: str, **fields: object) -> Json:
    """Images and labels for a recipe."""
    return {"source": "arrays", "path": f"{part}.npz", "scale": 1 / 255, "labels": "label", **fields}


def run(folder: Path, recipe: Json) -> Json:
    """The report of `compressor run`."""
    whole = {
        "version": 1,
        **recipe,
        "verify": {"cosine": -1},
        "output": {"model": "result.onnx", "report": ["report.json"]},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(whole, sort_keys=False))
    command = [sys.executable, "-m", "compressor", "run", str(folder / "recipe.yaml"), "--overwrite", "--quiet"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
    found: Json = json.loads((folder / "report.json").read_text())
    return found
