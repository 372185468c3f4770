"""The model that learns: what of it learns, how that is constrained, and the way back into the graph."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parametrize

from compressor.errors import PassError
from compressor.graph.latent import Freed, Latent, LatentBias, is_quantized, settle
from compressor.graph.model import Model
from compressor.graph.normalizing import Normalized, fold
from compressor.graph.observe import VALUE, with_more_outputs
from compressor.graph.select import Selectors
from compressor.graph.trainable import Layer, layers_behind_scales, layers_of
from compressor.numerics.divergence import relative_error
from compressor.numerics.sparsity import kept_of
from compressor.runtime.autograd import Network, learned_arrays, store_arrays
from compressor.runtime.autograd.network import Place
from compressor.training.constraints import FakeQuantized, Halved, Masked, Positive, Scaled, Stepped
from compressor.training.settings import TrainingSettings

_NOT_SELECTED = "not among what learns: see targets and ignore"


@dataclass(frozen=True, slots=True)
class Learning:
    """An array that a layer has learned.

    Attributes:
        name: of the array.
        layer: the first that reads it.
        matrix: whether weight decay is for it: not for what scales and shifts.
        refusal: why it does not learn now; "" when it does.
    """

    name: str
    layer: Layer
    matrix: bool
    refusal: str = ""


class Student:
    """A model in torch, with the arrays that learn set free and all others held.

    Args:
        freed: the model, with floats in place of codes.
        normalized: normalizations that were put into it to learn better.
        features: names of tensors inside that are wanted too.
        selectors: of the layers that learn.
        settings: what of them learns.
        device: that runs it.

    Attributes:
        device: that runs it.
        network: the module.
        arrays: everything that layers have learned, in the order of the graph.

    Raises:
        PassError: the settings ask for a precision that the quantizers of the model do not bear.
    """

    def __init__(
        self,
        freed: Freed,
        normalized: Sequence[Normalized],
        features: Sequence[str],
        selectors: Selectors,
        settings: TrainingSettings,
        device: torch.device,
    ) -> None:
        self.device = device
        self._freed, self._normalized = freed, tuple(normalized)
        self._coded = {weight.name: weight for weight in freed.weights}
        quantized = is_quantized(freed.model)
        self.network = Network(with_more_outputs(freed.model, features), scales=quantized)
        self.arrays = self._set_free(selectors, settings)
        for bias in freed.biases:
            self._step(bias)
        self._before = learned_arrays(self.network, freed.model)
        self.network.to(device)
        self._trains = settings.batch_norm != "fixed"
        if quantized and settings.precision == "bfloat16":
            raise PassError("precision bfloat16 is coarser than the steps of this model's quantizers; leave it out")
        wanted = settings.precision == "bfloat16" or (settings.precision == "auto" and _multiplies_bfloat16(device))
        self._reduced = wanted and not quantized
        self._run: nn.Module = torch.compile(self.network) if settings.compile else self.network  # type: ignore[assignment]

    def outputs(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Outputs, and features under their own names; in lower precision while it learns, if that is quicker."""
        given = [_channels_last(feeds[name]) for name in self.network.input_names]
        with torch.autocast(self.device.type, torch.bfloat16, self._reduced and torch.is_grad_enabled()):
            made = self._run(*given)
        names = (name.removeprefix(VALUE) for name in self.network.output_names)
        return {name: t.float() if t.is_floating_point() else t for name, t in zip(names, made, strict=True)}

    def learn(self, active: bool) -> None:
        """Let statistics follow the batches, if they are to, or not."""
        self.network.train(active and self._trains)

    def groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Parameters as an optimizer takes them."""
        free = [p for p in self.network.parameters() if p.requires_grad]
        names = {entry.name for entry in self.arrays if entry.matrix and not entry.refusal}
        places = [place for name, place in self.network.places.items() if name in names]
        decaying = {id(_original(place)) for place in places}
        return [
            {"params": [p for p in free if id(p) in decaying], "weight_decay": weight_decay},
            {"params": [p for p in free if id(p) not in decaying], "weight_decay": 0.0},
        ]

    def store(self, model: Model) -> dict[str, float]:
        """Put what was learned into the model that the student was made of.

        Returns:
            Name of an array -> norm of what changed in it beside the norm of what was there; 0 for what did not.
        """
        arrays = learned_arrays(self.network, self._freed.model)
        for weight in self._freed.weights:
            place = self.network.places.get(weight.name)
            scale = None if place is None else _scale_of(place)
            if scale is not None:
                arrays[weight.scale] = scale
        for normalized in self._normalized:
            fold(normalized, arrays)
        names = set(self._freed.names)
        store_arrays(model, {name: array for name, array in arrays.items() if name not in names})
        settle(model, self._freed, {**self._constants(), **arrays})
        kept = [entry.name for entry in self.arrays if entry.name in arrays]
        return {name: relative_error(self._before[name], arrays[name]) for name in kept}

    def _constants(self) -> dict[str, NDArray[Any]]:
        """Arrays in place of codes that nobody called learned."""
        values = self._freed.model.ir.graph.initializers
        names = (name for name in self._freed.names if name in values)
        found = ((name, values[name].const_value) for name in names)
        return {name: tensor.numpy() for name, tensor in found if tensor is not None}

    def _set_free(self, selectors: Selectors, settings: TrainingSettings) -> tuple[Learning, ...]:
        found, places = [], self.network.places
        for name, layers in layers_of(self._freed.model).items():
            if name in places:
                matrix = _is_matrix(places[name].tensor)
                selected = _any_selected(layers, selectors)
                refusal = self._constrain(name, layers[0], settings) if selected else _NOT_SELECTED
                found.append(Learning(name, layers[0], matrix and settings.only == "all", refusal))
        known = {entry.name for entry in found}
        held = {entry.name for entry in found if entry.refusal}
        held |= {
            n for n, readers in layers_behind_scales(self._freed.model).items() if not _any_selected(readers, selectors)
        }
        for name, place in places.items():
            if name in held:
                _original(place).requires_grad_(False)
            elif name not in known:
                parametrize.register_parametrization(place.owner, place.name, Positive(place.tensor))
        return tuple(found)

    def _constrain(self, name: str, layer: Layer, settings: TrainingSettings) -> str:
        """Let an array learn, as what it has to be; why it cannot, or ""."""
        place, refusal = self.network.places[name], ""
        narrow = place.tensor.dtype == torch.float16
        if narrow:
            setattr(place.owner, place.name, nn.Parameter(place.tensor.detach().float()))
        if name in self._coded:
            self._code(place, self._coded[name], settings)
        elif _is_matrix(place.tensor) and settings.only == "scales":
            refusal = _scale(place, layer)
        elif _is_matrix(place.tensor) and settings.keep_zeros and _is_pruned(place.tensor):
            parametrize.register_parametrization(place.owner, place.name, Masked(place.tensor))
        if narrow:
            parametrize.register_parametrization(place.owner, place.name, Halved(), unsafe=True)
        return refusal

    def _step(self, bias: LatentBias) -> None:
        """Round a bias as it is going to be stored."""
        place = self.network.places.get(bias.name)
        if place is not None:
            scales = [self._scale_now(name, array) for name, array in zip(bias.parts, bias.scales, strict=True)]
            parametrize.register_parametrization(place.owner, place.name, Stepped(scales))

    def _scale_now(self, name: str, array: NDArray[np.float32]) -> Callable[[], Tensor]:
        """What a scale is at any time: that of an activation or weight that is learned, or what it was."""
        weight = next((w for w in self._freed.weights if w.scale == name), None)
        place = self.network.places.get(name if weight is None else weight.name)
        if weight is not None and place is not None:
            coded = _coded(place)
            if coded is not None:
                return lambda: coded.scale
        if weight is None and place is not None:
            return lambda: place.tensor
        held = torch.from_numpy(np.array(array))
        return lambda: held.to(self.device)

    def _code(self, place: Place, weight: Latent, settings: TrainingSettings) -> None:
        if settings.only == "scales":
            place.tensor.requires_grad_(False)
        coded = FakeQuantized(weight.levels, weight.scales, weight.steps, weight.multipliers)
        if settings.keep_zeros and coded.is_pruned(place.tensor):
            parametrize.register_parametrization(place.owner, place.name, Masked(place.tensor))
        parametrize.register_parametrization(place.owner, place.name, coded)


def _multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for it."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()  # no public name before 2.13


def _channels_last(x: Tensor) -> Tensor:
    """Images in the order in which convolutions are quickest."""
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


def _scale(place: Place, layer: Layer) -> str:
    """Let the output channels of a weight be scaled instead of the weight; why that cannot be, or ""."""
    if layer.output_axis is None:
        return "has no axis of output channels that could be scaled"
    place.tensor.requires_grad_(False)
    parametrize.register_parametrization(place.owner, place.name, Scaled(place.tensor, layer.output_axis))
    return ""


def _is_matrix(tensor: Tensor) -> bool:
    """Whether it is more than what scales or shifts."""
    return sum(size > 1 for size in tensor.shape) > 1


def _is_pruned(weight: Tensor) -> bool:
    return kept_of(weight.detach().cpu().numpy()) is not None


def _any_selected(layers: Sequence[Layer], selectors: Selectors) -> bool:
    return not layers or any(selectors.match(layer.names, layer.type) for layer in layers)


def _original(place: Place) -> Tensor:
    """The parameter behind what hangs there."""
    if parametrize.is_parametrized(place.owner, place.name):
        found: Tensor = place.owner.parametrizations[place.name].original  # type: ignore[union-attr, index]
        return found
    return place.tensor


def _scale_of(place: Place) -> NDArray[np.float32] | None:
    """The learned scale of a weight in codes; None where it is held."""
    coded = _coded(place)
    return None if coded is None else coded.scale.detach().cpu().numpy()


def _coded(place: Place) -> FakeQuantized | None:
    """What rounds a weight to its codes; None where it is held."""
    if not parametrize.is_parametrized(place.owner, place.name):
        return None
    constraints = list(place.owner.parametrizations[place.name])  # type: ignore[index]
    return next((c for c in constraints if isinstance(c, FakeQuantized)), None)
