"""Several processes that train one model together, or one alone."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor, distributed


class World:
    """This process among those that share every batch.

    Attributes:
        rank: number of this process.
        size: how many there are.
    """

    rank = 0
    size = 1

    def total(self, values: Sequence[float]) -> list[float]:
        """Sums over all processes."""
        return list(values)

    def agreed(self, value: float) -> float:
        """What the first process says."""
        return value

    def add_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Let every process have the sum of all gradients."""

    def close(self) -> None:
        """Leave."""


class Gang(World):
    """Processes that find each other by a file, and talk by gloo.

    Args:
        meeting: a file that does not exist yet, on a file system that all of them see.
        rank: number of this process.
        size: how many there are.
    """

    def __init__(self, meeting: Path, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        distributed.init_process_group("gloo", init_method=f"file://{meeting.absolute()}", rank=rank, world_size=size)

    def total(self, values: Sequence[float]) -> list[float]:
        """See `World.total`."""
        sums = torch.tensor(values, dtype=torch.float64)
        distributed.all_reduce(sums)
        return [float(value) for value in sums]

    def agreed(self, value: float) -> float:
        """See `World.agreed`."""
        said = torch.tensor([value], dtype=torch.float64)
        distributed.broadcast(said, 0)
        return float(said[0])

    def add_gradients(self, parameters: Iterable[Tensor]) -> None:
        """One message for all of them."""
        held = [p for p in parameters if p.requires_grad]
        for p in held:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        grads = [p.grad for p in held if p.grad is not None]
        flat = torch.cat([grad.reshape(-1) for grad in grads])
        distributed.all_reduce(flat)
        for grad, part in zip(grads, flat.split([grad.numel() for grad in grads]), strict=True):
            grad.copy_(part.view_as(grad))

    def close(self) -> None:
        """See `World.close`."""
        distributed.destroy_process_group()
