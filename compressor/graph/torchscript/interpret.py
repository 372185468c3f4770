"""A TorchScript graph run by Python, node by node, so that torch.export sees its operators, names and sizes.

torch.export cannot look into a ScriptModule: run as a whole, its sizes are fixed and its names are lost.
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, sqrt
from typing import Any

import torch
from torch import Tensor, nn

from compressor.graph.torchscript.errors import UnusableError
from compressor.graph.torchscript.packed import PACKED, Packed, unpacked

Values = dict[Any, Any]

_MOST_TRIPS = 10_000


class Interpreter(nn.Module):
    """A ScriptModule whose parameters and buffers keep their names, and whose graph Python walks through.

    Weights in the packed form of quantized kernels are floats again, and values are not rounded to codes.

    Args:
        module: in evaluation.

    Raises:
        UnusableError: while it runs: a node that cannot be executed here.
    """

    def __init__(self, module: torch.jit.ScriptModule) -> None:
        super().__init__()
        self._graph = module.inlined_graph
        learned = {name: nn.Parameter(p.detach(), p.dtype.is_floating_point) for name, p in module.named_parameters()}
        self._held = {name: self._hang(name, tensor) for name, tensor in (*learned.items(), *module.named_buffers())}
        self._fixed: Values = {next(iter(self._graph.inputs())).debugName(): _Part(module, "")}
        self._resolve(self._graph)

    def forward(self, *arguments: Any) -> Any:
        """What the module returns."""
        values = {name: value.get() if isinstance(value, _Held) else value for name, value in self._fixed.items()}
        _, *inputs = self._graph.inputs()
        values.update({i.debugName(): argument for i, argument in zip(inputs, arguments, strict=True)})
        self._run(self._graph, values)
        results = [values[output.debugName()] for output in self._graph.outputs()]
        return results[0] if len(results) == 1 else tuple(results)

    def _resolve(self, block: Any) -> None:
        """Look up what does not depend on the inputs, before torch.export replaces all tensors by symbols."""
        for node in block.nodes():
            if node.kind() == "prim::Constant":
                value = node.output().toIValue() if node.hasAttribute("value") else None
                name = node.output().debugName()
                self._fixed[name] = self._known(value, f"constant_{len(self._fixed)}")
            elif node.kind() == "prim::GetAttr" and node.input().debugName() in self._fixed:
                owner = self._fixed[node.input().debugName()]
                path = f"{owner.path}.{node.s('name')}" if owner.path else node.s("name")
                found = getattr(owner.module, node.s("name"))
                self._fixed[node.output().debugName()] = self._held.get(path) or self._known(found, path)
            for inner in node.blocks():
                self._resolve(inner)

    def _known(self, value: Any, path: str) -> Any:
        match value:
            case torch.jit.ScriptModule():
                return _Part(value, path)
            case Tensor() if not value.dim() and not value.is_quantized:
                return value.item()
            case torch.ScriptObject():
                weight, bias, settings = unpacked(value)
                stem = path.removesuffix("._packed_params")
                held = [
                    self._hang(f"{stem}.{name}", t) for name, t in (("weight", weight), ("bias", bias)) if t is not None
                ]
                return Packed(held[0].get, held[1].get if bias is not None else lambda: None, settings)
        return value

    def _hang(self, name: str, tensor: Tensor) -> "_Held":
        *folders, last = name.split(".")
        owner: nn.Module = self
        for folder in folders:
            if folder not in owner._modules:
                owner.add_module(folder, nn.Module())
            owner = owner.get_submodule(folder)
        if isinstance(tensor, nn.Parameter):
            owner.register_parameter(last, tensor)
        else:
            owner.register_buffer(last, tensor)
        return _Held(owner, last)

    def _run(self, block: Any, values: Values) -> None:
        for node in block.nodes():
            outputs = [output.debugName() for output in node.outputs()]
            results = self._execute(node, values)
            if len(outputs) == 1:
                values[outputs[0]] = results
            else:
                values.update(zip(outputs, results or (), strict=True))

    def _execute(self, node: Any, values: Values) -> Any:
        """The result of a node; a sequence of them where it has none or several."""
        kind = node.kind()
        match kind:
            case "prim::Constant" | "prim::GetAttr":
                return values[node.output().debugName()]
            case "prim::If":
                blocks = list(node.blocks())
                chosen = blocks[0] if _truth(values[node.input().debugName()]) else blocks[1]
                self._run(chosen, values)
                return _one_or_all([values[o.debugName()] for o in chosen.outputs()])
            case "prim::Loop":
                return self._loop(node, values)
        arguments = [values[value.debugName()] for value in node.inputs()]
        if kind in _STRUCTURES:
            return _STRUCTURES[kind](arguments, node)
        if kind in PACKED:
            return PACKED[kind](*arguments)
        return _call(node, kind, arguments)

    def _loop(self, node: Any, values: Values) -> Any:
        trips, condition, *carried = [values[value.debugName()] for value in node.inputs()]
        (body,) = node.blocks()
        names = [value.debugName() for value in body.inputs()]
        for trip in range(min(int(trips), _MOST_TRIPS)):
            if not _truth(condition):
                break
            values.update(zip(names, [trip, *carried], strict=True))
            self._run(body, values)
            condition, *carried = [values[value.debugName()] for value in body.outputs()]
        return _one_or_all(carried)


@dataclass(frozen=True, slots=True)
class _Part:
    """A module inside the module, and its dotted name."""

    module: Any
    path: str


@dataclass(frozen=True, slots=True)
class _Held:
    """Where a tensor hangs: torch.export puts a symbol in its place."""

    owner: nn.Module
    name: str

    def get(self) -> Tensor:
        found: Tensor = getattr(self.owner, self.name)
        return found


def _call(node: Any, kind: str, arguments: list[Any]) -> Any:
    library, _, name = kind.partition("::")
    scalar = _SCALARS.get(name)
    if scalar is not None and not any(isinstance(a, Tensor) and a.dim() for a in arguments) and _plain(arguments):
        return scalar(*[a.item() if isinstance(a, Tensor) else a for a in arguments])
    if name in _ALWAYS:
        return _ALWAYS[name](*arguments)
    schema = node.schema()
    overload = schema.split("(")[0].partition("::")[2].partition(".")[2] or "default"
    try:
        found = getattr(getattr(getattr(torch.ops, library), name), overload)
    except AttributeError as error:
        raise UnusableError(f"{kind} has no counterpart among the operators that are exported") from error
    wanted = found._schema.arguments
    given = [
        torch.scalar_tensor(a, dtype=_dtype(a)) if _is_number(a) and isinstance(w.type, torch.TensorType) else a
        for a, w in zip(arguments, wanted, strict=False)
    ]
    positional = [a for a, w in zip(given, wanted, strict=False) if not w.kwarg_only]
    named = {w.name: a for a, w in zip(given, wanted, strict=False) if w.kwarg_only}
    return found(*positional, **named)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, torch.SymInt, torch.SymFloat)) and not isinstance(value, bool)


def _dtype(number: Any) -> torch.dtype:
    return torch.int64 if isinstance(number, (int, torch.SymInt)) else torch.get_default_dtype()


def _plain(arguments: Sequence[Any]) -> bool:
    """Whether nothing needs a tensor: numbers, text, lists; a tensor of one number beside a number."""
    return not all(isinstance(a, Tensor) or a is None or isinstance(a, (bool, str)) for a in arguments) or not any(
        isinstance(a, Tensor) for a in arguments
    )


def _truth(value: Any) -> bool:
    return bool(value)


def _number(value: Any) -> Any:
    return value.item() if isinstance(value, Tensor) else value


def _divided(one: Any, other: Any, rounding_mode: str | None = None) -> Any:
    return one / other if rounding_mode is None else one // other


def _one_or_all(results: list[Any]) -> Any:
    return results[0] if len(results) == 1 else results


def _appended(items: list[Any], item: Any) -> list[Any]:
    items.append(item)
    return items


def _sizes(x: Tensor, axis: int | None = None) -> Any:
    return list(x.size()) if axis is None else x.size(axis)


def _raised(arguments: Sequence[Any], _: Any) -> Any:
    raise UnusableError(f"it refuses the example inputs: {arguments[0]}")


_STRUCTURES: Mapping[str, Callable[[list[Any], Any], Any]] = {
    "prim::ListConstruct": lambda a, _: list(a),
    "prim::TupleConstruct": lambda a, _: tuple(a),
    "prim::DictConstruct": lambda a, _: dict(zip(a[::2], a[1::2], strict=True)),
    "prim::ListUnpack": lambda a, _: _one_or_all(list(a[0])),
    "prim::TupleUnpack": lambda a, _: _one_or_all(list(a[0])),
    "prim::TupleIndex": lambda a, _: a[0][a[1]],
    "prim::NumToTensor": lambda a, _: a[0],
    "prim::Uninitialized": lambda *_: None,
    "prim::unchecked_cast": lambda a, _: a[0],
    "prim::RaiseException": _raised,
    "prim::Print": lambda *_: (),
    "prim::device": lambda a, _: a[0].device,
    "prim::dtype": lambda a, _: a[0].dtype,
    "prim::is_cuda": lambda a, _: a[0].is_cuda,
    "prim::is_nested": lambda *_: False,
    "prim::min": lambda a, _: min(*a) if len(a) > 1 else min(a[0]),
    "prim::max": lambda a, _: max(*a) if len(a) > 1 else max(a[0]),
    "aten::append": lambda a, _: _appended(*a),
    "aten::warn": lambda *_: (),
}

_SCALARS: Mapping[str, Callable[..., Any]] = {
    "Bool": bool,
    "Float": lambda x: float(x) if isinstance(x, (int, bool)) else x,
    "Int": lambda x: torch.sym_int(x) if _is_number(x) else int(x),
    "IntImplicit": _number,
    "FloatImplicit": _number,
    "ScalarImplicit": _number,
    "__and__": operator.and_,
    "__contains__": lambda items, item: item in items,
    "__derive_index": lambda index, start, step: start + index * step,
    "__getitem__": operator.getitem,
    "__is__": lambda one, other: one is other,
    "__isnot__": lambda one, other: one is not other,
    "__not__": operator.not_,
    "__or__": operator.or_,
    "__range_length": lambda low, high, step: len(range(low, high, step)),
    "abs": abs,
    "add": lambda one, other, alpha=1: one + other if alpha == 1 else one + alpha * other,
    "ceil": ceil,
    "div": _divided,
    "eq": operator.eq,
    "floor": floor,
    "floor_divide": operator.floordiv,
    "floordiv": operator.floordiv,
    "format": lambda text, *values: text.format(*values),
    "ge": operator.ge,
    "gt": operator.gt,
    "le": operator.le,
    "len": len,
    "list": list,
    "lt": operator.lt,
    "max": max,
    "min": min,
    "mul": operator.mul,
    "ne": operator.ne,
    "neg": operator.neg,
    "pow": operator.pow,
    "remainder": operator.mod,
    "sqrt": sqrt,
    "sub": lambda one, other, alpha=1: one - other if alpha == 1 else one - alpha * other,
}
"""What TorchScript computes with plain numbers, also under names that tensors share."""

_ALWAYS: Mapping[str, Callable[..., Any]] = {
    "Bool": bool,
    "Float": lambda x: x.item(),
    "Int": lambda x: x.item(),
    "IntImplicit": _number,
    "FloatImplicit": _number,
    "ScalarImplicit": _number,
    "__getitem__": operator.getitem,
    "__is__": lambda one, other: one is other,
    "__isnot__": lambda one, other: one is not other,
    "dim": lambda x: x.dim(),
    "is_autocast_cpu_enabled": lambda *_: False,
    "is_autocast_enabled": lambda *_: False,
    "is_grad_enabled": lambda *_: True,
    "is_floating_point": lambda x: x.is_floating_point(),
    "len": len,
    "size": _sizes,
}
"""Of tensors: what is asked about them, not computed with them."""
