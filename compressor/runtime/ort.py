"""ONNX Runtime on the CPU: a model file in, arrays out."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compressor.errors import CompressorError, DataError, ModelError

Array = NDArray[np.generic]
Feeds = Mapping[str, Array]

_SILENT = 4
_PREFIX = re.compile(
    r"^\[ONNXRuntimeError\] : \d+ : \w+ : |Load model from \S+ failed:|Fatal error: |\S+\.(?:cc|h):\d+ (?:[^\[]*\[)?"
)
_STATES = ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NoModel", "NoSuchFile", "NotImplemented")


class Session:
    """A model file opened for execution.

    Sessions are opened from a path, never from bytes: ONNX Runtime then maps large weights instead
    of copying them twice.

    Args:
        path: an ONNX file.
        threads: threads inside one operator.
        optimized: where ONNX Runtime writes the graph as it will run it, if given.

    Attributes:
        path: the file.
        output_names: in order.
        declared: name of an output -> its shape as the model says it, with numbers where it is fixed.

    Raises:
        ModelError: ONNX Runtime refuses the model.
    """

    def __init__(self, path: Path, threads: int = 1, optimized: Path | None = None) -> None:
        import onnxruntime  # slow to import

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _SILENT
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if optimized is not None:
            options.optimized_model_filepath = str(optimized)
        with _failing_as(ModelError, f"{path}: ONNX Runtime cannot load it"):
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.path = path
        self.output_names = tuple(o.name for o in session.get_outputs())
        self.declared = {o.name: tuple(o.shape) for o in session.get_outputs()}
        self._session: onnxruntime.InferenceSession | None = session

    def run(self, feeds: Feeds) -> dict[str, Array]:
        """All outputs by name.

        Raises:
            DataError: the model cannot take these arrays.
        """
        shapes = ", ".join(f"{name} {array.dtype}{list(array.shape)}" for name, array in feeds.items())
        if self._session is None:
            raise ValueError(f"{self.path}: the session is closed")
        with _failing_as(DataError, f"{self.path}: cannot run on {shapes}"):
            outputs = self._session.run(None, dict(feeds))
        return dict(zip(self.output_names, outputs, strict=True))

    def close(self) -> None:
        """Give the memory back; the session cannot run any more."""
        self._session = None


def reason_of(error: CompressorError) -> str:
    """What ONNX Runtime says, without the place where it happened; the whole line of any other error."""
    return str(error) if error.__cause__ is None else _said(error.__cause__)


@contextmanager
def _failing_as(kind: type[CompressorError], place: str) -> Iterator[None]:
    """Turn what ONNX Runtime raises into one line."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    failures: tuple[type[Exception], ...] = (RuntimeError, ValueError, *(getattr(state, name) for name in _STATES))
    try:
        yield
    except failures as error:
        raise kind(f"{place}: {_said(error)}") from error


def _said(error: BaseException) -> str:
    return _PREFIX.sub("", str(error).strip().splitlines()[0]).strip()
