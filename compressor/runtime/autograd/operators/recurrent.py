"""LSTM, GRU and RNN: by torch's own kernels where their attributes allow, step by step where they do not.

Gates come in another order here than there: ONNX stacks i o f c and z r h, torch i f c o and r z h.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from compressor.runtime.autograd.node import Node, Run
from compressor.runtime.autograd.registry import operator

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_IN_TORCH = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
_USUAL = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}

_ACTIVATIONS: dict[str, Callable[[float | None, float | None], Callable[[Tensor], Tensor]]] = {
    "affine": lambda a, b: lambda x: (1.0 if a is None else a) * x + (0.0 if b is None else b),
    "elu": lambda a, b: lambda x: torch.nn.functional.elu(x, 1.0 if a is None else a),
    "hardsigmoid": lambda a, b: lambda x: torch.clamp((0.2 if a is None else a) * x + (0.5 if b is None else b), 0, 1),
    "leakyrelu": lambda a, b: lambda x: torch.nn.functional.leaky_relu(x, 0.01 if a is None else a),
    "relu": lambda a, b: torch.relu,
    "scaledtanh": lambda a, b: lambda x: (1.0 if a is None else a) * torch.tanh((1.0 if b is None else b) * x),
    "sigmoid": lambda a, b: torch.sigmoid,
    "softplus": lambda a, b: torch.nn.functional.softplus,
    "softsign": lambda a, b: torch.nn.functional.softsign,
    "tanh": lambda a, b: torch.tanh,
    "thresholdedrelu": lambda a, b: lambda x: torch.nn.functional.threshold(x, 1.0 if a is None else a, 0.0),
}


@dataclass(frozen=True, slots=True)
class _Layer:
    """What the attributes of a recurrent layer say."""

    kind: str
    hidden: int
    directions: int
    backwards: bool
    batch_first: bool
    clip: float | None
    coupled: bool
    inner_reset: bool
    activations: list[Callable[[Tensor], Tensor]]
    usual: bool

    @property
    def by_kernel(self) -> bool:
        """Whether torch has a kernel for this."""
        plain = self.usual and self.clip is None and not self.coupled
        return plain and (self.kind != "GRU" or self.inner_reset)


def _layer(node: Node) -> _Layer:
    kind, direction = node.ir.op_type, node.string("direction", "forward")
    directions = 2 if direction == "bidirectional" else 1
    usual = _USUAL[kind] * directions
    names = node.strings("activations") or usual
    alphas, betas = iter(node.floats("activation_alpha") or []), iter(node.floats("activation_beta") or [])
    unknown = [name for name in names if name.lower() not in _ACTIVATIONS]
    if unknown:
        raise node.unsupported(f"with the activation {unknown[0]} cannot be executed by torch here")
    made = [_ACTIVATIONS[n.lower()](*_constants(n.lower(), alphas, betas)) for n in names]
    return _Layer(
        kind,
        node.integer("hidden_size"),
        directions,
        direction == "reverse",
        bool(node.integer("layout")),
        node.real("clip", 0.0) or None,
        bool(node.integer("input_forget")),
        bool(node.integer("linear_before_reset")),
        made,
        [name.lower() for name in names] == [name.lower() for name in usual],
    )


def _constants(name: str, alphas: Any, betas: Any) -> tuple[float | None, float | None]:
    """Only some activations take constants from the lists."""
    takes_alpha = name in ("affine", "elu", "hardsigmoid", "leakyrelu", "scaledtanh", "thresholdedrelu")
    takes_beta = name in ("affine", "hardsigmoid", "scaledtanh")
    return next(alphas, None) if takes_alpha else None, next(betas, None) if takes_beta else None


@operator("LSTM", "GRU", "RNN")
def _recurrent(node: Node) -> Run:
    layer = _layer(node)
    lstm = layer.kind == "LSTM"

    def run(
        x: Tensor, w: Tensor, r: Tensor, b: Any = None, lengths: Any = None, h: Any = None, c: Any = None, p: Any = None
    ) -> tuple[Tensor, ...]:
        if layer.batch_first:
            x = x.transpose(0, 1)
            h, c = (None if v is None else v.transpose(0, 1) for v in (h, c))
        empty = x.new_zeros(layer.directions, x.shape[1], layer.hidden)
        state = (empty if h is None else h, empty if c is None else c)
        if layer.by_kernel and lengths is None and p is None:
            outputs, last = _by_kernel(layer, x, w, r, b, state)
        else:
            outputs, last = _by_steps(layer, x, w, r, b, lengths, state, p)
        if layer.batch_first:
            outputs, last = outputs.permute(2, 0, 1, 3), tuple(v.transpose(0, 1) for v in last)
        return (outputs, *last) if lstm else (outputs, last[0])

    return run


def _reordered(matrix: Tensor, kind: str) -> Tensor:
    """Rows of one direction in the order of torch's gates."""
    parts = matrix.chunk(_GATES[kind])
    return torch.cat([parts[i] for i in _IN_TORCH[kind]]) if len(parts) > 1 else matrix


@torch.compiler.disable  # type: ignore[untyped-decorator]  # torch.compile breaks on its own LSTM in training
def _by_kernel(
    layer: _Layer, x: Tensor, w: Tensor, r: Tensor, b: Tensor | None, state: tuple[Tensor, Tensor]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    weights = []
    for d in range(layer.directions):
        biases = [] if b is None else list(b[d].chunk(2))
        weights += [_reordered(m, layer.kind) for m in (w[d], r[d], *biases)]
    x = x.flip(0) if layer.backwards else x
    options = (b is not None, 1, 0.0, False, layer.directions == 2, False)
    if layer.kind == "LSTM":
        made, *last = torch.lstm(x, list(state), weights, *options)
    elif layer.kind == "GRU":
        made, *last = torch.gru(x, state[0], weights, *options)
    else:
        made, *last = torch.rnn_tanh(x, state[0], weights, *options)
    made = made.flip(0) if layer.backwards else made
    outputs = made.reshape(made.shape[0], made.shape[1], layer.directions, layer.hidden).transpose(1, 2)
    return outputs, tuple(last)


def _by_steps(
    layer: _Layer, x: Tensor, w: Tensor, r: Tensor, b: Any, lengths: Any, state: tuple[Tensor, Tensor], p: Any
) -> tuple[Tensor, tuple[Tensor, ...]]:
    outputs, ends = [], []
    for d in range(layer.directions):
        of_input, of_state = (None, None) if b is None else b[d].chunk(2)
        count = len(_USUAL[layer.kind])
        activations = layer.activations[d * count : (d + 1) * count]
        cell = _Cell(layer, w[d], r[d], of_input, of_state, None if p is None else p[d], activations)
        backwards = layer.backwards or d == 1
        made, last = _walk(cell, x, (state[0][d], state[1][d]), lengths, backwards)
        outputs.append(made)
        ends.append(last)
    return torch.stack(outputs, 1), tuple(torch.stack(parts) for parts in zip(*ends, strict=True))


@dataclass(frozen=True, slots=True)
class _Cell:
    """One direction of a layer."""

    layer: _Layer
    w: Tensor
    r: Tensor
    wb: Tensor | None
    rb: Tensor | None
    p: Tensor | None
    activations: list[Callable[[Tensor], Tensor]]

    def __call__(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        if self.layer.kind == "LSTM":
            return self._lstm(x, h, c)
        return (self._gru(x, h) if self.layer.kind == "GRU" else self._rnn(x, h)), c

    def _clipped(self, x: Tensor) -> Tensor:
        return x if self.layer.clip is None else x.clamp(-self.layer.clip, self.layer.clip)

    def _rnn(self, x: Tensor, h: Tensor) -> Tensor:
        return self.activations[0](self._clipped(_linear(x, self.w, self.wb) + _linear(h, self.r, self.rb)))

    def _gru(self, x: Tensor, h: Tensor) -> Tensor:
        f, g = self.activations[:2]
        wz, wr, wh = _linear(x, self.w, self.wb).chunk(3, -1)
        rz, rr, rh = self.r.chunk(3)
        bz, br, bh = (None,) * 3 if self.rb is None else self.rb.chunk(3)
        z = f(self._clipped(wz + _linear(h, rz, bz)))
        reset = f(self._clipped(wr + _linear(h, rr, br)))
        inner = reset * _linear(h, rh, bh) if self.layer.inner_reset else _linear(reset * h, rh, bh)
        return (1 - z) * g(self._clipped(wh + inner)) + z * h

    def _lstm(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        f, g, out = self.activations[:3]
        i, o, forget, cell = (_linear(x, self.w, self.wb) + _linear(h, self.r, self.rb)).chunk(4, -1)
        pi, po, pf = (0.0,) * 3 if self.p is None else self.p.chunk(3)
        i = f(self._clipped(i + pi * c))
        forget = 1 - i if self.layer.coupled else f(self._clipped(forget + pf * c))
        new = forget * c + i * g(self._clipped(cell))
        return f(self._clipped(o + po * new)) * out(new), new


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.nn.functional.linear(x, weight, bias)


def _walk(
    cell: _Cell, x: Tensor, state: tuple[Tensor, Tensor], lengths: Tensor | None, backwards: bool
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """All steps of one direction; a sample that has ended keeps its state and gives zeros."""
    (h, c), outputs = state, []
    for step in reversed(range(x.shape[0])) if backwards else range(x.shape[0]):
        new_h, new_c = cell(x[step], h, c)
        made = new_h
        if lengths is not None:
            going = (lengths > step).unsqueeze(-1)
            made = torch.where(going, new_h, torch.zeros_like(new_h))
            new_h, new_c = torch.where(going, new_h, h), torch.where(going, new_c, c)
        h, c = new_h, new_c
        outputs.append(made)
    ordered = outputs[::-1] if backwards else outputs
    return torch.stack(ordered), (h, c)
