"""Whether a launcher such as torchrun has started this process, and as which of several."""

import os
from dataclasses import dataclass

_WANTED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True, slots=True)
class Launched:
    """What a launcher says by environment variables.

    Attributes:
        rank: number of this process.
        size: how many there are, on all machines.
        local_size: how many of them are on this machine.
    """

    rank: int = 0
    size: int = 1
    local_size: int = 1

    @property
    def follows(self) -> bool:
        """Whether another process writes the result."""
        return self.rank > 0


def launched() -> Launched:
    """As the environment says; a single process where it says nothing."""
    found = [os.environ.get(name, "") for name in (*_WANTED, "LOCAL_WORLD_SIZE")]
    rank, size, *_, local = found
    if not all(found[: len(_WANTED)]) or not rank.isdecimal() or not size.isdecimal():
        return Launched()
    return Launched(int(rank), int(size), int(local) if local.isdecimal() else 1)
