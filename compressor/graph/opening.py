"""A model as the user names it, whatever it is stored as: the way in for every command."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from compressor.errors import UsageError
from compressor.graph.model import Model
from compressor.graph.torchscript import convert, examples, is_torchscript


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A trained model: a file, and what a file of TorchScript does not say itself.

    Attributes:
        path: ONNX or TorchScript; told by the content.
        trust: whether TorchScript, which is code, may be loaded.
        inputs: of TorchScript, see `torchscript.inputs.parse`.
    """

    path: Path
    trust: bool = False
    inputs: tuple[str, ...] = ()

    def shapes(self) -> list[tuple[int | str | None, ...] | None]:
        """Of its inputs, as far as they are known without loading it.

        Raises:
            ModelError: it cannot be read, or does not say.
        """
        if is_torchscript(self.path):
            return [array.shape for array in examples(self.path, self.inputs)]
        return [spec.shape for spec in Model.read(self.path).inputs()]


@dataclass(frozen=True, slots=True)
class OpenedModel:
    """A model in a form that ONNX Runtime runs.

    Attributes:
        source: what was opened.
        file: the ONNX file: that of the user, or a converted one.
        notes: what became of it on the way.
    """

    source: ModelSource
    file: Path
    notes: tuple[str, ...]

    def read(self) -> Model:
        """As it stands; see `Model.read`."""
        return self._named(Model.read(self.file))

    def load(self) -> Model:
        """Ready for passes; see `Model.load`."""
        return self._named(Model.load(self.file))

    def _named(self, model: Model) -> Model:
        if self.file == self.source.path:
            return model
        return Model(model.ir, self.source.path, self.source.path.stat().st_size)


@contextmanager
def opened(source: ModelSource) -> Iterator[OpenedModel]:
    """The model, converted if need be; what was converted is gone afterwards.

    Raises:
        ModelError: see `torchscript.convert`; an ONNX file is not looked into.
        UsageError: inputs are given for a model that names them itself.
    """
    if not is_torchscript(source.path):
        if source.inputs and source.path.is_file():
            raise UsageError(
                f"{source.path}: says itself what its inputs are; leave out --input (in a recipe, inputs:)"
            )
        yield OpenedModel(source, source.path, ())
        return
    with TemporaryDirectory(prefix="compressor-") as folder:
        made = convert(source.path, Path(folder), source.trust, source.inputs)
        sizes = f"; open: {', '.join(made.open)}" if made.open else "; all sizes are fixed"
        how = f"{source.path.name} was converted to ONNX by {made.route}, equal within {made.difference:.0e}{sizes}"
        yield OpenedModel(source, made.file, (how, *made.notes))
