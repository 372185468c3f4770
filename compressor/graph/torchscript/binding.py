"""A TorchScript module as a function from named arrays to named arrays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compressor.graph.torchscript.errors import UnusableError
from compressor.graph.torchscript.inputs import GivenNumber

Arrays = dict[str, NDArray[Any]]


class Adapter(nn.Module):
    """Tensors in, a flat tuple of tensors out, whatever the module takes and returns.

    Args:
        module: what is called.
        arguments: one entry for each of its arguments: a number, or the place of the tensor among the inputs.
    """

    def __init__(self, module: nn.Module, arguments: Sequence[GivenNumber | int]) -> None:
        super().__init__()
        self.module = module
        self._arguments = tuple(arguments)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """All tensors of the result, in order."""
        result = self.module(*[tensors[a] if isinstance(a, int) else a.value for a in self._arguments])
        return tuple(tensor for _, tensor in flat(result))


@dataclass(frozen=True)
class Bound:
    """A module, and how it is called.

    Attributes:
        module: as loaded, or what stands for it.
        arguments: for each of its arguments a number, or the place of a tensor among the inputs.
        inputs: what the tensors are called.
        outputs: what the results are called.
        plain: whether it takes nothing but these tensors, and returns one tensor or a tuple of them.
    """

    module: nn.Module
    arguments: tuple[GivenNumber | int, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    plain: bool

    @property
    def script(self) -> torch.jit.ScriptModule:
        """The module, as long as nothing else stands for it."""
        if not isinstance(self.module, torch.jit.ScriptModule):
            raise TypeError(f"{type(self.module).__name__} is no TorchScript")
        return self.module

    @property
    def adapter(self) -> Adapter:
        """The module with tensors in and tensors out."""
        return Adapter(self.module, self.arguments)

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Arrays:
        """What the module itself computes."""
        with torch.no_grad():
            results = self.adapter(*self.tensors(feeds))
        return {name: result.numpy() for name, result in zip(self.outputs, results, strict=True)}

    def tensors(self, feeds: Mapping[str, NDArray[Any]]) -> tuple[Tensor, ...]:
        """The inputs in order."""
        return tuple(torch.from_numpy(np.array(feeds[name])) for name in self.inputs)


def bind(
    module: torch.jit.ScriptModule, feeds: Arrays | list[NDArray[Any]], numbers: Sequence[GivenNumber]
) -> tuple[Bound, Arrays]:
    """Match inputs with the arguments of `forward`: by name where the names are its own, else in order.

    Args:
        module: in evaluation.
        feeds: arrays by the names that the user gave, or in the order in which tracing stored them.
        numbers: what arguments that are no tensors are given.

    Returns:
        The module bound, and the arrays by name.

    Raises:
        UnusableError: arguments are left over, or take what is neither a tensor nor a number.
    """
    arguments = module._c._get_method("forward").schema.arguments[1:]
    given = {number.name: number for number in numbers}
    wanted = [argument for argument in arguments if argument.name not in given]
    unknown = set(given) - {argument.name for argument in arguments}
    if unknown:
        raise UnusableError(f"{', '.join(sorted(unknown))}: forward has no such argument; it has {_listed(arguments)}")
    if isinstance(feeds, list):
        feeds = {argument.name: array for argument, array in zip(wanted, feeds, strict=False)}
        wanted = wanted[: len(feeds)]
    by_name = set(feeds) <= {argument.name for argument in arguments}
    order = list(feeds) if not by_name else [a.name for a in wanted if a.name in feeds]
    taken = _taken(arguments, given, order, by_name)
    tensors = Bound(module, taken, tuple(order), (), False).tensors(feeds)
    with torch.no_grad():
        result = module(*[tensors[a] if isinstance(a, int) else a.value for a in taken])
    outputs = tuple(name for name, _ in flat(result))
    plain = _is_plain(result) and all(isinstance(a, int) for a in taken)
    return Bound(module, taken, tuple(order), outputs, plain), feeds


def _taken(
    arguments: Sequence[Any], given: Mapping[str, GivenNumber], order: Sequence[str], by_name: bool
) -> tuple[GivenNumber | int, ...]:
    """For every argument its number, or the place of its tensor in the order."""
    taken: list[GivenNumber | int] = []
    used = 0
    for argument in arguments:
        if argument.name in given:
            taken.append(given[argument.name])
        elif used < len(order) and (not by_name or argument.name == order[used]):
            _refuse_number(argument)
            taken.append(used)
            used += 1
        else:
            taken.append(_left_out(argument, arguments))
    if used < len(order):
        raise UnusableError(f"{len(order)} inputs are given, but forward takes {_listed(arguments)}")
    return tuple(taken)


def _is_plain(result: Any) -> bool:
    """Whether it is one tensor or a tuple of them."""
    return isinstance(result, Tensor) or (isinstance(result, tuple) and all(isinstance(r, Tensor) for r in result))


def _refuse_number(argument: Any) -> None:
    if not isinstance(argument.type, (torch.TensorType, torch.OptionalType)):
        raise UnusableError(
            f"argument {argument.name} is {argument.type}, not a tensor; give a number with "
            f"--input {argument.name}=VALUE"
        )


def _left_out(argument: Any, arguments: Sequence[Any]) -> GivenNumber:
    """What an argument is that nobody gives."""
    if argument.has_default_value():
        return GivenNumber(argument.name, argument.default_value)
    if isinstance(argument.type, torch.OptionalType):
        return GivenNumber(argument.name, None)
    raise UnusableError(f"argument {argument.name} ({argument.type}) is not given; it takes {_listed(arguments)}")


def flat(result: Any, name: str = "output") -> list[tuple[str, Tensor]]:
    """The tensors of a result with names: keys of dictionaries, fields of named tuples, else numbers.

    Raises:
        UnusableError: there is something else in it.
    """
    match result:
        case Tensor():
            return [(name, result)]
        case dict():
            parts = [(str(key), value) for key, value in result.items()]
        case list() | tuple():
            keys = getattr(result, "_fields", None) or [f"{name}_{index}" for index in range(len(result))]
            parts = list(zip(keys, result, strict=True))
        case None:
            parts = []
        case _:
            raise UnusableError(f"{name} is {type(result).__name__}, not a tensor; return tensors only")
    return [pair for key, value in parts for pair in flat(value, key)]


def _listed(arguments: Sequence[Any]) -> str:
    return ", ".join(f"{a.name}: {a.type}" for a in arguments) or "nothing"
