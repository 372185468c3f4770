"""Channels that linear layers alone make and read, mixed so that the last of them are missed least."""

from collections.abc import Mapping, Sequence

from compressor.calibration.coding import Surroundings
from compressor.calibration.moments import collect_moments
from compressor.data import Dataset
from compressor.graph.channels.streams import Stream
from compressor.graph.model import Model
from compressor.numerics.affine import Doubles
from compressor.numerics.bases import least_missed_last
from compressor.numerics.sparsity import kept_of


class Mixed:
    """Groups of a model with their channels mixed; the outputs are what they were, but for rounding.

    Args:
        model: whose constants are rewritten.
        streams: by name of the group.
        data: samples to learn from.
        context: where to execute the model.

    Raises:
        PassError: an activation is not finite.
        DataError: the data does not fit.
    """

    def __init__(self, model: Model, streams: Mapping[str, Stream], data: Dataset, context: Surroundings) -> None:
        streams = {name: stream for name, stream in streams.items() if not _is_pruned(stream)}
        needs = {source: stream.width for stream in streams.values() for _, source in stream.read}
        moments = dict(
            collect_moments(model, list(needs.items()), data, context.scratch, context.progress, context.threads)
        )
        self._bases: dict[str, tuple[Stream, tuple[Doubles, Doubles]]] = {}
        for name, stream in streams.items():
            readers = [along.matrix() for along, _ in stream.read]
            basis = least_missed_last(readers, [moments[source][0] for _, source in stream.read])
            if basis is not None:
                self._bases[name] = stream, basis
        self._before = {
            along.value: along.value.const_value
            for stream, _ in self._bases.values()
            for along in (*stream.made, *(along for along, _ in stream.read))
        }
        self._mix(tuple(self._bases))

    def keep(self, names: Sequence[str]) -> tuple[str, ...]:
        """Let no other groups be mixed than these, and all other weights be what they were; returns those that are."""
        for value, tensor in self._before.items():
            value.const_value = tensor
        return self._mix(names)

    def _mix(self, names: Sequence[str]) -> tuple[str, ...]:
        mixed = tuple(name for name in names if name in self._bases)
        for name in mixed:
            stream, basis = self._bases[name]
            stream.mix(*basis)
        return mixed


def _is_pruned(stream: Stream) -> bool:
    """Whether single weights are zero, and are to stay so."""
    matrices = [along.matrix() for along in (*stream.made, *(along for along, _ in stream.read))]
    return any(len(matrix) > 1 and kept_of(matrix) is not None for matrix in matrices)
