"""A metric of the user's own: a class in a file beside the recipe, or in an installed module."""

from collections.abc import Mapping
from typing import cast

from compressor.data.base import FunctionName
from compressor.data.python import imported, user_code
from compressor.errors import DataError
from compressor.evaluate.metrics.base import Metric
from compressor.runtime.ort import Array

_MEMBERS = ("higher_is_better", "update", "result")


class OwnMetric:
    """A class of the user's with the members of `Metric`, whose failures are told as the user's.

    Args:
        name: of the class; it is called without arguments.

    Raises:
        DataError: there is no such class, it fails, or it lacks a member.
    """

    def __init__(self, name: FunctionName) -> None:
        self._place = f"metric {name}"
        make = imported(name, self._place)
        with user_code(self._place):
            made = make()
        missing = [member for member in _MEMBERS if getattr(made, member, None) is None]
        if missing:
            raise DataError(f"{self._place}: has no {', '.join(missing)}; a metric needs {', '.join(_MEMBERS)}")
        self._metric = cast(Metric, made)

    @property
    def higher_is_better(self) -> bool:
        """As the class says."""
        return bool(self._metric.higher_is_better)

    def update(self, outputs: Mapping[str, Array], labels: Mapping[str, Array], samples: int) -> None:
        """Fold in one batch."""
        with user_code(self._place):
            self._metric.update(outputs, labels, samples)

    def result(self) -> float:
        """Over everything folded in."""
        with user_code(self._place):
            return float(self._metric.result())
