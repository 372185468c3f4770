"""An ONNX graph as a torch module: its arrays are the parameters, its nodes the forward pass."""

import re
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass

import onnx_ir as ir
from torch import Tensor, nn

from compressor.errors import ModelError
from compressor.graph.model import Model
from compressor.graph.trainable import roles, untie
from compressor.runtime.autograd import operators
from compressor.runtime.autograd.node import Mode, UnsupportedError
from compressor.runtime.autograd.program import Program
from compressor.runtime.autograd.values import Value, as_tensor, from_numpy, numbers_or_tensor

_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor hangs. It is looked up there, so that whatever replaces it is seen: a device, an export.

    Attributes:
        owner: the module that has it.
        name: of the parameter or buffer.
    """

    owner: nn.Module
    name: str

    @property
    def tensor(self) -> Tensor:
        """What hangs there now."""
        found: Tensor = getattr(self.owner, self.name)
        return found


class Network(nn.Module):
    """A model that torch can run, differentiate and train.

    Parameters are the arrays that layers learn (`graph.trainable`); they keep the names they have in the
    file. Vectors that an exporter merged because they were equal are parameters of their own; a matrix that
    several layers share stays one. Shapes are computed in Python integers. Quantizers are straight-through
    estimators. Packed codes are read only.

    Args:
        model: it is not changed; the network has arrays of its own.
        scales: whether the scales of quantizers are parameters too.

    Attributes:
        input_names: what `forward` takes, in order.
        output_names: what it returns, in order.
        places: array that is learned -> where it hangs; `graph.trainable.untie` says what an untied one is called.

    Raises:
        ModelError: every operator that cannot be executed, in one line.
    """

    def __init__(self, model: Model, scales: bool = False) -> None:
        super().__init__()
        operators.register()
        copy = model.copy().ir
        untie(copy)
        found = roles(copy)
        self._mode = Mode()
        self._program = _program(copy, self._mode, str(model.source))
        self.input_names = tuple(value.name or "" for value in self._program.inputs)
        self.output_names = tuple(value.name or "" for value in copy.graph.outputs)
        self.places: dict[str, Place] = {}
        self._statistics: dict[str, Place] = {}
        learned = {*found.learned, *(found.scales if scales else ())}
        self._given = [
            self._hold(value, value in learned, value in found.statistics) for value in self._program.externals
        ]
        self.eval()

    @property
    def trained(self) -> dict[str, Tensor]:
        """Array -> parameter; what a parametrization makes of it, where one was registered at its place."""
        return {name: place.tensor for name, place in self.places.items()}

    @property
    def statistics(self) -> dict[str, Tensor]:
        """Array -> mean or variance that follows the batches in training."""
        return {name: place.tensor for name, place in self._statistics.items()}

    def train(self, mode: bool = True) -> "Network":
        """Switch normalization by batches and dropout on or off."""
        self._mode.training = mode
        super().train(mode)
        return self

    def let_pass(self, share: float) -> None:
        """Let quantizers leave a share of the entries as they are, each time others, where gradients are asked for.

        Wei et al. 2022, "QDrop": what is learned behind them then serves for more than these samples.
        """
        self._mode.unrounded = share

    def forward(self, *inputs: Value) -> tuple[Value, ...]:
        """All outputs in the order of the model.

        Args:
            inputs: tensors (lists of them for sequences) in the order of `input_names`, on the device of the
                parameters.
        """
        device = next((x.device for x in inputs if isinstance(x, Tensor) and x.device.type != "cpu"), None)
        with nullcontext() if device is None else device:
            externals = [given.tensor if isinstance(given, Place) else given for given in self._given]
            return tuple(as_tensor(value) for value in self._program.run(inputs, externals))

    def run(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """All outputs by name, for inputs by name."""
        outputs = self(*[feeds[name] for name in self.input_names])
        return dict(zip(self.output_names, outputs, strict=True))

    def _hold(self, value: ir.Value, learned: bool, statistic: bool) -> Value:
        """What the program is given for an array: where it hangs in the tree of modules, or its numbers."""
        name, tensor = value.name or "", value.const_value
        if tensor is None:
            raise ModelError(f"{name}: is read from nowhere")
        if learned:
            place = self.places[name] = self._place(name, nn.Parameter(from_numpy(tensor.numpy())))
            return place
        if statistic:
            held = self._statistics[name] = self._place(name, from_numpy(tensor.numpy()))
            return held
        constant = numbers_or_tensor(tensor)
        return self._place(name, constant) if isinstance(constant, Tensor) else constant

    def _place(self, name: str, tensor: Tensor) -> "Place":
        """Hang a tensor in the tree of modules that its dotted name spells."""
        parts = [re.sub(r"\W", "_", part) or "_" for part in name.split(".")]
        owner: nn.Module = self
        for part in parts[:-1]:
            child = getattr(owner, part, None)
            if child is None:
                owner.add_module(part, child := nn.Module())
            if not isinstance(child, nn.Module):
                return self._place(name.replace(".", "_"), tensor)
            owner = child
        last = parts[-1]
        while hasattr(owner, last):
            last += "_"
        if isinstance(tensor, nn.Parameter):
            owner.register_parameter(last, tensor)
        else:
            owner.register_buffer(last, tensor)
        return Place(owner, last)


def _program(model: ir.Model, mode: Mode, place: str) -> Program:
    if model.functions:
        from onnx_ir.passes import common

        common.InlinePass()(model)
    try:
        return Program(model.graph, model.graph.opset_imports.get("", 1), mode)
    except UnsupportedError as error:
        lines = str(error).split("\n")
        more = f"; and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
        raise ModelError(f"{place}: cannot be trained: {'; '.join(lines[:_SHOWN])}{more}") from error
