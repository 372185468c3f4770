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

    def share(self, file: Path) -> None:
        """Let every process have the file of the first one, or none where that has none."""

    def close(self) -> None:
        """Leave."""


class Gang(World):
    """Processes that talk by gloo.

    Args:
        meeting: a file that does not exist yet, on a file system that all of them see, by which they find each other;
            by the address in the environment when None.
        rank: number of this process.
        size: how many there are.
    """

    def __init__(self, meeting: Path | None, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        method = "env://" if meeting is None else f"file://{meeting.absolute()}"
        distributed.init_process_group("gloo", init_method=method, rank=rank, world_size=size)

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

    def share(self, file: Path) -> None:
        """See `World.share`."""
        held = file.read_bytes() if self.rank == 0 and file.exists() else b""
        size = int(self.agreed(len(held)))
        if size:
            content = torch.frombuffer(bytearray(held or bytes(size)), dtype=torch.uint8)
            distributed.broadcast(content, 0)
            shared = content.numpy().tobytes()
            if self.rank and not (file.exists() and file.read_bytes() == shared):
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(shared)
        elif self.rank:
            file.unlink(missing_ok=True)

    def close(self) -> None:
        """See `World.close`."""
        distributed.destroy_process_group()
