"""The model that learns: what of it learns, how that is constrained, and the way back into the graph."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from compressor.graph.model import Model
from compressor.graph.observe import VALUE, with_more_outputs
from compressor.graph.select import Selectors
from compressor.graph.trainable import Layer, layers_of
from compressor.runtime.autograd import Network, write_back
from compressor.training.settings import TrainingSettings

_PRUNED = 0.01
"""Share of zeros from which on a matrix was pruned rather than trained to have some."""


@dataclass(frozen=True, slots=True)
class Learning:
    """An array that learns.

    Attributes:
        name: of the array.
        layer: the first that reads it.
        decays: whether weight decay is for it: matrices, not what scales and shifts.
    """

    name: str
    layer: Layer
    decays: bool


class Student:
    """A model in torch, with the arrays that learn set free and all others held.

    Args:
        model: it is not changed until `store`.
        features: names of tensors inside that are wanted too.
        selectors: of the layers that learn.
        settings: what of them learns.
        device: that runs it.

    Attributes:
        device: that runs it.
        network: the module.
        learning: what learns, in the order of the graph.
    """

    def __init__(
        self,
        model: Model,
        features: Sequence[str],
        selectors: Selectors,
        settings: TrainingSettings,
        device: torch.device,
    ) -> None:
        self.device = device
        self.network = Network(with_more_outputs(model, features))
        self.learning = self._set_free(model, selectors, settings)
        self.network.to(device)
        self._trains = settings.batch_norm == "train"
        self._run: nn.Module = torch.compile(self.network) if settings.compile else self.network  # type: ignore[assignment]

    def outputs(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Outputs, and features under their own names."""
        made = self._run(*[feeds[name] for name in self.network.input_names])
        names = (name.removeprefix(VALUE) for name in self.network.output_names)
        return dict(zip(names, made, strict=True))

    def learn(self, active: bool) -> None:
        """Let statistics follow the batches, if they are to, or not."""
        self.network.train(active and self._trains)

    def groups(self, weight_decay: float) -> list[dict[str, object]]:
        """Parameters as an optimizer takes them."""
        free = [p for p in self.network.parameters() if p.requires_grad]
        decaying = {id(p) for p in self._decaying()}
        return [
            {"params": [p for p in free if id(p) in decaying], "weight_decay": weight_decay},
            {"params": [p for p in free if id(p) not in decaying], "weight_decay": 0.0},
        ]

    def store(self, model: Model) -> tuple[str, ...]:
        """Put what was learned into the model that the student was made of; the arrays that changed."""
        return write_back(self.network, model)

    def _decaying(self) -> list[Tensor]:
        names = {learning.name for learning in self.learning if learning.decays}
        return [p for name, place in self.network.places.items() if name in names for p in _parameters(place)]

    def _set_free(self, model: Model, selectors: Selectors, settings: TrainingSettings) -> tuple[Learning, ...]:
        found = []
        for name, layers in layers_of(model).items():
            place = self.network.places.get(name)
            if place is None:
                continue
            tensor, layer = place.tensor, layers[0]
            matrix = sum(size > 1 for size in tensor.shape) > 1
            if not any(selectors.match(layer.names, layer.type) for layer in layers):
                continue
            if matrix and settings.only == "scales":
                if layer.output_axis is None:
                    continue
                tensor.requires_grad_(False)
                parametrize.register_parametrization(place.owner, place.name, _Scaled(tensor, layer.output_axis))
            elif matrix and settings.keep_zeros and _is_pruned(tensor):
                parametrize.register_parametrization(place.owner, place.name, _Masked(tensor))
            found.append(Learning(name, layer, matrix and settings.only == "all"))
        free = {learning.name for learning in found}
        for name, place in self.network.places.items():
            if name not in free:
                place.tensor.requires_grad_(False)
        return tuple(found)


class _Masked(nn.Module):
    """Entries that are zero stay zero."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("kept", weight.detach() != 0)

    def forward(self, weight: Tensor) -> Tensor:
        kept: Tensor = self.kept  # type: ignore[assignment]
        return weight * kept


class _Scaled(nn.Module):
    """Every output channel times a factor that is learned, as a share above or below 1."""

    def __init__(self, weight: Tensor, axis: int) -> None:
        super().__init__()
        shape = [1] * weight.dim()
        shape[axis] = weight.shape[axis]
        self.gain = nn.Parameter(torch.zeros(shape))

    def forward(self, weight: Tensor) -> Tensor:
        return weight * (1 + self.gain)


def _is_pruned(weight: Tensor) -> bool:
    zeros = int((weight == 0).sum())
    return _PRUNED * weight.numel() <= zeros < weight.numel()


def _parameters(place: object) -> list[Tensor]:
    owner, name = place.owner, place.name  # type: ignore[attr-defined]
    if parametrize.is_parametrized(owner, name):
        return list(owner.parametrizations[name].parameters())
    return [getattr(owner, name)]
