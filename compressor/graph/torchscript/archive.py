"""What is in a TorchScript archive, found out without loading it: neither code is run nor pickles are trusted."""

import io
import pickle
import tokenize
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from compressor.errors import ModelError
from compressor.graph.torchscript.inputs import draw

_Kind = Literal["forbidden", "foreign", "state"]

_OWN_LIBRARIES = (
    "aten",
    "mkldnn",
    "mkldnn_prepacked",
    "prepacked",
    "prim",
    "profiler",
    "quantized",
    "_quantized",
    "sparse",
)
_NETWORK = ("c10d", "_c10d", "dist", "rpc", "symm_mem")
_FILES = ("save", "from_file")
_CALLS = ("rpc_async", "rpc_sync", "rpc_remote")
_STATE = ("__setstate__",)
_LARGEST_CODE = 64_000_000

_STORAGES = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}


@dataclass(frozen=True, slots=True)
class Findings:
    """What the code of an archive would do, as far as its text tells.

    Attributes:
        forbidden: operations on files, the network or processes, each with its file and line.
        foreign: libraries of operators that torch itself does not have.
        state: classes that run code of their own when they are loaded.
        packed: whether weights are in the packed form of torch's quantized kernels.
    """

    forbidden: tuple[str, ...]
    foreign: tuple[str, ...]
    state: tuple[str, ...]
    packed: bool


def is_torchscript(path: Path) -> bool:
    """Whether a file is TorchScript; told by its content."""
    try:
        if not zipfile.is_zipfile(path):
            return False
        with zipfile.ZipFile(path) as archive:
            return any("/code/" in name and name.endswith(".py") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def scan(path: Path) -> Findings:
    """Read the code of an archive.

    Raises:
        ModelError: it is damaged, or cannot be read as code.
    """
    found: dict[_Kind, list[str]] = {"forbidden": [], "foreign": [], "state": []}
    packed = False
    for name, text in _code(path):
        try:
            tokens = [t for t in tokenize.generate_tokens(io.StringIO(text).readline) if t.string.strip()]
        except (tokenize.TokenError, SyntaxError) as error:
            raise ModelError(f"{path}: {name}: cannot be read as code, so it is not loaded") from error
        words = [token.string for token in tokens]
        packed |= "quantized" in words
        for index, token in enumerate(tokens):
            for kind, what in _suspicions(words[max(index - 3, 0) : index], token.string, words[index + 1 : index + 3]):
                found[kind].append(f"{what} ({name}, line {token.start[0]})")
    return Findings(_once(found["forbidden"]), _once(found["foreign"]), _once(found["state"]), packed)


def _suspicions(before: Sequence[str], word: str, after: Sequence[str]) -> Iterator[tuple[_Kind, str]]:
    """What a word of code gives away between its neighbours."""
    if word in (*_FILES, *_CALLS) and before[-1:] == ["."] and after[:1] == ["("]:
        yield "forbidden", word
    named = word == "ops" or (word == "classes" and before[-2:] == ["torch", "."])
    if named and len(after) > 1 and after[0] == "." and after[1] not in _OWN_LIBRARIES:
        yield ("forbidden" if after[1].startswith(_NETWORK) else "foreign"), after[1]
    if word in _STATE and before[-1:] == ["def"]:
        yield "state", word


def traced_inputs(path: Path) -> list[NDArray[Any]] | None:
    """The inputs that tracing stored in the archive, in order; None where there are none, or not plain tensors.

    Raises:
        ModelError: the archive is damaged, or names what no stored input needs.
    """
    with _opened(path) as archive:
        record = next((n for n in archive.namelist() if n.endswith("/traced_inputs.pkl")), None)
        if record is None:
            return None
        try:
            stored = _Unpickler(archive, record).load()
        except (pickle.UnpicklingError, ValueError, KeyError, IndexError, TypeError, EOFError) as error:
            raise ModelError(
                f"{path}: its stored example inputs cannot be read: {error}; give them with --input"
            ) from error
    found = stored.get("forward") if isinstance(stored, dict) else None
    if not isinstance(found, (list, tuple)) or not found or not all(isinstance(x, np.ndarray) for x in found):
        return None
    return list(found)


class _Unpickler(pickle.Unpickler):
    """Rebuilds arrays, lists and dictionaries; anything else in a pickle is refused by name."""

    def __init__(self, archive: zipfile.ZipFile, record: str) -> None:
        super().__init__(io.BytesIO(archive.read(record)))
        self._archive = archive
        self._folder = record.removesuffix(".pkl")

    def find_class(self, module: str, name: str) -> Any:
        """The few names that stored tensors need."""
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        allowed = {
            ("torch._utils", "_rebuild_tensor_v2"): _rebuilt,
            ("torch.jit._pickle", "restore_type_tag"): lambda value, _: value,
            ("collections", "OrderedDict"): OrderedDict,
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed there")
        return allowed[module, name]

    def persistent_load(self, pid: Any) -> NDArray[Any]:
        """The elements of a storage; made up where torch kept type and shape alone."""
        _, dtype, key, _, count = pid
        data = self._archive.read(f"{self._folder}/{int(key)}")
        return np.frombuffer(data, dtype, int(count)) if data else draw(dtype, (int(count),))


def _rebuilt(
    storage: NDArray[Any], offset: int, shape: Sequence[int], strides: Sequence[int], *_: object
) -> NDArray[Any]:
    """A tensor over a storage; strides count elements. Places outside of the storage are refused."""
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if offset < 0 or min(strides, default=0) < 0 or (0 not in shape and last >= len(storage)):
        raise ValueError("a tensor lies outside of its storage")
    steps = [stride * storage.itemsize for stride in strides]
    return np.ascontiguousarray(np.lib.stride_tricks.as_strided(storage[offset:], shape, steps))


def _code(path: Path) -> Iterator[tuple[str, str]]:
    with _opened(path) as archive:
        for entry in archive.infolist():
            _, inside, name = entry.filename.partition("/code/")
            if inside and name.endswith(".py"):
                if entry.file_size > _LARGEST_CODE:
                    raise ModelError(f"{path}: {name}: {entry.file_size} bytes of code are too much to look through")
                yield name, archive.read(entry).decode("utf-8", "replace")


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise ModelError(f"{path}: is a damaged archive: {error}; download or save it again") from error


def _once(found: list[str]) -> tuple[str, ...]:
    """Of findings of one kind the first place each."""
    first: dict[str, str] = {}
    for entry in found:
        first.setdefault(entry.split(" (")[0], entry)
    return tuple(first.values())
