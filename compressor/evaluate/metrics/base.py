"""What every metric is: outputs and labels folded in batch by batch, one number out."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from compressor.errors import DataError
from compressor.runtime.ort import Array


class Metric(Protocol):
    """A number that sums up how well outputs match labels; classes of the user's own have the same members."""

    @property
    def higher_is_better(self) -> bool:
        """Whether a larger number is a better model; an attribute of the class will do."""
        ...

    def update(self, outputs: Mapping[str, Array], labels: Mapping[str, Array], samples: int) -> None:
        """Fold in one batch.

        Args:
            outputs: of the model, by name; the first axis counts samples.
            labels: name -> array, one entry per sample; a lone array of labels is called "".
            samples: how many count: what fills up a batch of fixed size comes after them in `outputs`.
        """
        ...

    def result(self) -> float:
        """Over everything folded in."""
        ...


def paired(outputs: Mapping[str, Array], labels: Mapping[str, Array], samples: int) -> list[tuple[str, Array, Array]]:
    """Every labelled output with its labels; labels without a name belong to the first output.

    Raises:
        DataError: labels for an output that the model does not have.
    """
    first = next(iter(outputs))
    pairs = []
    for label, wanted in labels.items():
        name = label or first
        if name not in outputs:
            raise DataError(f"labels name {name}, which is no output of the model; it has {', '.join(outputs)}")
        pairs.append((name, outputs[name][:samples], wanted))
    return pairs


def check_numbers(output: str, labels: Array, count: int, wants: str) -> None:
    """Labels must be numbers of classes or tokens, below `count`.

    Raises:
        DataError: they are not.
    """
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"labels of output {output} are {labels.dtype}; {wants}")
    numbers = labels.astype(np.int64)
    outside = numbers[(numbers < 0) | (numbers >= count)]
    if outside.size:
        raise DataError(f"label {outside[0]} of output {output} is no class; there are {count}, numbered from 0")
