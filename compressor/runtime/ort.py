"""ONNX Runtime on the CPU: a model file in, arrays out."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from compressor.errors import DataError, ModelError

Array = NDArray[np.generic]
Feeds = Mapping[str, Array]

_SILENT = 4
_PREFIX = re.compile(
    r"^\[ONNXRuntimeError\] : \d+ : \w+ : |Load model from \S+ failed:|Fatal error: |\S+\.(cc|h):\d+ [^\[]*\[?"
)


class Session:
    """A model file opened for execution.

    Sessions are opened from a path, never from bytes: ONNX Runtime then maps large weights instead
    of copying them twice.

    Args:
        path: an ONNX file.
        threads: threads inside one operator.
        optimized: where ONNX Runtime writes the graph as it will run it, if given.

    Raises:
        ModelError: ONNX Runtime refuses the model.
    """

    def __init__(self, path: Path, threads: int = 1, optimized: Path | None = None) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _SILENT
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if optimized is not None:
            options.optimized_model_filepath = str(optimized)
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except (RuntimeError, ValueError, NotImplementedError, *_FAILURES) as error:
            raise ModelError(f"{path}: ONNX Runtime cannot load it: {_first_line(error)}") from error
        self.path = path
        self.output_names = tuple(o.name for o in self._session.get_outputs())

    def run(self, feeds: Feeds) -> dict[str, Array]:
        """All outputs by name.

        Raises:
            DataError: the model cannot take these arrays.
        """
        try:
            outputs = self._session.run(None, dict(feeds))
        except (RuntimeError, ValueError, NotImplementedError, *_FAILURES) as error:
            shapes = ", ".join(f"{name} {array.dtype}{list(array.shape)}" for name, array in feeds.items())
            raise DataError(f"{self.path}: cannot run on {shapes}: {_first_line(error)}") from error
        return dict(zip(self.output_names, outputs, strict=True))


def version() -> str:
    """The version of ONNX Runtime."""
    return str(onnxruntime.__version__)


def _runtime_failures() -> tuple[type[Exception], ...]:
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    names = ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NoModel", "NoSuchFile", "NotImplemented")
    return (*(getattr(state, name) for name in names), state.RuntimeException)


_FAILURES = _runtime_failures()


def _first_line(error: BaseException) -> str:
    """What is wrong, without the runtime's own codes and places."""
    text = str(error).strip().splitlines()[0]
    return _PREFIX.sub("", text).strip()
