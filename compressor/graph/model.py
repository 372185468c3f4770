"""A trained network: read once, edited in place, written once."""

import hashlib
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from errno import EEXIST
from pathlib import Path

import numpy as np
import onnx_ir as ir

from compressor.errors import ModelError, OutputError
from compressor.graph import reading
from compressor.graph.learned import learned
from compressor.graph.select import Selectors
from compressor.graph.weights import Weight, find_weights

EXTERNAL_DATA_BYTES = 1_500_000_000
"""Above this the arrays go into a file beside the model: protobuf ends at 2 GiB."""

_EXTERNAL_ARRAY_BYTES = 1024


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, type and shape of a model input or output.

    Attributes:
        name: as in the file.
        dtype: NumPy's name of it, for example "float32".
        shape: an int is fixed, a string names a dynamic dimension, None is an unnamed one;
            the whole is None when even the number of dimensions is unknown.
    """

    name: str
    dtype: str
    shape: tuple[int | str | None, ...] | None

    def __str__(self) -> str:
        if self.shape is None:
            return f"{self.name}: {self.dtype}"
        return f"{self.name}: {self.dtype}[{', '.join('?' if d is None else str(d) for d in self.shape)}]"


class Model:
    """A trained network and where it came from.

    `ir` is edited in place by passes; arrays in it are never written to, only replaced, so that
    `copy` shares them and the reference costs next to nothing.

    Attributes:
        ir: the graph.
        source: the file it was read from.
        source_bytes: size of that file, external data included.
    """

    def __init__(self, graph_ir: ir.Model, source: Path, source_bytes: int) -> None:
        self.ir = graph_ir
        self.source = source
        self.source_bytes = source_bytes

    @classmethod
    def read(cls, path: Path) -> "Model":
        """The file as it stands: for looking at, not for editing.

        Raises:
            ModelError: missing, empty, not ONNX, or with external data that cannot be used.
        """
        graph_ir = reading.read(path)
        return cls(graph_ir, path, reading.stored_bytes(graph_ir, path))

    @classmethod
    def load(cls, path: Path) -> "Model":
        """The file made ready for passes; its behaviour is unchanged.

        Local functions are inlined, but for those that unpack codes; constants become initializers,
        initializers stop being inputs, and the opset is raised to the working one. Weights in
        external data stay memory-mapped.

        Raises:
            ModelError: as `read`, or an opset that cannot be raised.
        """
        model = cls.read(path)
        reading.prepare(model.ir, path)
        return model

    def copy(self) -> "Model":
        """The same model with a graph of its own; the arrays are shared."""
        return Model(self.ir.clone(), self.source, self.source_bytes)

    @property
    def opset(self) -> int:
        """The version of the standard operators in use."""
        return int(self.ir.graph.opset_imports.get("", 0))

    @property
    def producer(self) -> str:
        """What wrote the file, as it says."""
        return " ".join(filter(None, (self.ir.producer_name, self.ir.producer_version)))

    def inputs(self) -> tuple[TensorSpec, ...]:
        """What must be fed; initializers that old files list as inputs are left out."""
        return tuple(_spec(v) for v in self.ir.graph.inputs if not v.is_initializer())

    def outputs(self) -> tuple[TensorSpec, ...]:
        """What comes out."""
        return tuple(_spec(v) for v in self.ir.graph.outputs)

    def weights(self, selectors: Selectors | None = None) -> Iterator[Weight]:
        """Every weight once, in graph order; those of the selected layers only, when given."""
        found = find_weights(self.ir)
        return (w for w in found if selectors is None or selectors.match(w.names, w.layer))

    def node_counts(self) -> Counter[str]:
        """Nodes by operator type, subgraphs included."""
        return Counter(node.op_type for graph in self.ir.graphs() for node in graph)

    def parameters(self) -> int:
        """Entries of all arrays that are learned, in float, or in codes that stand for it, packed or not."""
        return sum(array.entries for array in learned(self.ir))

    def zeros(self) -> int:
        """Entries of the learned arrays that are exactly zero; it is not looked for in packed codes."""
        return sum(array.zeros for array in learned(self.ir))

    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(v.const_value.nbytes for v in reading.initializers(self.ir) if v.const_value is not None)

    @property
    def metadata(self) -> Mapping[str, str]:
        """The key-value pairs of the file."""
        return self.ir.metadata_props

    def set_metadata(self, key: str, value: str) -> None:
        """Write one of the key-value pairs."""
        self.ir.metadata_props[key] = value

    def save(self, path: Path) -> int:
        """Write the file, or leave what was there untouched.

        The new file is complete on disk before it takes the name. Arrays go to `<name>.data` beside
        it when there are more than 1.5 GB of them.

        Returns:
            Bytes written, external data included.

        Raises:
            OutputError: no such folder, no permission, no space.
        """
        with _beside(path) as folder:
            written = folder / path.name
            if self.nbytes() > EXTERNAL_DATA_BYTES:
                ir.save(
                    self.ir, written, external_data=data_path(path).name, size_threshold_bytes=_EXTERNAL_ARRAY_BYTES
                )
            else:
                written.write_bytes(self._proto_bytes())
            for file in folder.iterdir():
                _flush(file)
            size = sum(file.stat().st_size for file in folder.iterdir())
            move(written, path)
        return size

    def _proto_bytes(self) -> bytes:
        inlined = ir.external_data.load_to_model(self.ir.clone())
        _forget_inferred(inlined)
        data: bytes = ir.to_proto(inlined).SerializeToString()
        return data


def _forget_inferred(model: ir.Model) -> None:
    """Drop the types and shapes that whoever reads the file can infer: all but those of foreign operators."""
    own = {"", *(domain for domain, _, _ in model.functions)}
    for graph in model.graphs():
        for node in (n for n in graph if n.domain in own):
            for value in node.outputs:
                if not value.is_graph_output():
                    value.type = value.shape = None
        for value in graph.initializers.values():
            if not value.is_graph_input() and not value.is_graph_output():
                value.type = value.shape = None


def data_path(path: Path) -> Path:
    """Where the arrays of a large model lie."""
    return path.with_name(f"{path.name}.data")


def move(file: Path, path: Path) -> None:
    """Give a finished model file, and its arrays if they lie beside it, the name `path` on the same file system.

    Either both files are replaced or, when that fails, neither. The arrays of the model that is replaced
    go with it; a file of that name that is not its own is never touched.

    Raises:
        OSError: no permission, or a file that belongs to something else is in the way of the arrays.
    """
    old, new, kept = data_path(path), data_path(file), file.with_name(".replaced")
    if old.exists() and _reads(path, old):
        old.replace(kept)
    elif old.exists() and new.exists():
        raise FileExistsError(EEXIST, f"{old.name} is there already and is not its own")
    moved = new.exists()
    try:
        if moved:
            new.replace(old)
        file.replace(path)
    except OSError:
        if moved and not new.exists():
            old.replace(new)
        if kept.exists():
            kept.replace(old)
        raise
    kept.unlink(missing_ok=True)


def external_files(model: Model) -> tuple[Path, ...]:
    """The files beside a model that hold arrays of it."""
    return tuple(sorted(reading.external_files(model.ir)))


def _reads(path: Path, data: Path) -> bool:
    """Whether the model at `path` keeps arrays in `data`."""
    try:
        return path.exists() and data.resolve() in {f.resolve() for f in external_files(Model.read(path))}
    except ModelError:
        return False


def sha256(path: Path) -> str:
    """Hash of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _spec(value: ir.Value) -> TensorSpec:
    if not isinstance(value.type, ir.TensorType):
        raise ModelError(f"{value.name}: is of type {value.type}; only tensors can be inputs and outputs")
    shape = None
    if value.shape is not None:
        shape = tuple(d if isinstance(d, int) else d.value for d in value.shape)
    dtype = value.type.dtype
    name = "str" if dtype == ir.DataType.STRING else np.dtype(dtype.numpy()).name
    return TensorSpec(value.name or "", name, shape)


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A scratch folder on the file system of `path`, gone afterwards whatever happens."""
    folder = None
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        yield folder
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _flush(file: Path) -> None:
    with file.open("rb+") as opened:
        os.fsync(opened.fileno())
