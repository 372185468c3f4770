"""Modules of torch, saved as TorchScript: each breaks another way of conversion."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn


class Convolutional(nn.Module):
    """Channels, normalization by statistics, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).flatten(1))


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.layer = kind(3, 4, batch_first=True)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x)[0][:, -1])


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Branch(nn.Module):
    """The data decides."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(x) if bool(x.sum() > 0) else self.down(x)


class Loop(nn.Module):
    """The data says how often."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x: Tensor, n: Tensor) -> Tensor:
        for _ in range(int(n)):
            x = torch.tanh(self.layer(x))
        return x


class Dictionary(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = self.layer(x)
        return {"logits": y, "probabilities": y.softmax(-1)}


class Optional(nn.Module):
    """A tensor that may be left out, and a number that may not."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x: Tensor, power: int, mask: Tensor | None = None) -> Tensor:
        y = self.layer(x) ** power
        if mask is not None:
            y = y * mask
        return y


class Remembering(nn.Module):
    """Its answer depends on what it was asked before."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = torch.zeros(1)

    def forward(self, x: Tensor) -> Tensor:
        self.seen = self.seen + x.sum()
        return x + self.seen


class Endless(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        while bool(x.sum() < 1e30):
            x = x * 1.0
        return x


class Writing(nn.Module):
    """Writes a file when it is loaded."""

    path: str

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
        self.path = str(path)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight

    @torch.jit.export
    def __getstate__(self) -> tuple[bool, Tensor, str]:
        return self.training, self.weight, self.path

    @torch.jit.export
    def __setstate__(self, state: tuple[bool, Tensor, str]) -> None:
        self.training = state[0]
        self.weight = state[1]
        self.path = state[2]
        torch.save(self.weight, self.path)


class Numbers(nn.Module):
    """Sizes, lists, tuples and branches on them, as scripts use them."""

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = x.size(0), x.size(1)
        parts = [x[:, : columns // 2], x[:, columns // 2 :]]
        if len(parts) > 1 and rows != 0:
            parts.append(parts[0] - parts[1] * float(rows))
        total = torch.zeros(rows, columns // 2)
        for number, part in enumerate(parts):
            total = total + part * (number + 1)
        low, high = (total.min(), total.max())
        return torch.cat([total, total.reshape(rows, -1) / (high - low)], dim=1)


def scripted(module: nn.Module, path: Path) -> Path:
    """`path`, where it is saved with its control flow, without inputs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(module.eval()), str(path))
    return path


def traced(module: nn.Module, inputs: Sequence[Tensor], path: Path) -> Path:
    """`path`, where one run of it is saved, together with the sizes of the inputs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(module.eval(), tuple(inputs), strict=False, check_trace=False), str(path))
    return path


def loaded(path: Path) -> torch.jit.ScriptModule:
    """As a user of torch has it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module: torch.jit.ScriptModule = torch.jit.load(str(path))
    return module
