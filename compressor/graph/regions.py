"""Where integers flow: which tensors of a graph are to be quantized so that ONNX Runtime fuses.

An integer region grows backwards from the layers that shall run in int8. Its rules are what ONNX
Runtime's x86 kernels do, measured:

- A convolution runs in int8 only when its output is quantized too; a matrix product may leave float.
- Relu and Clip from 0 behind a layer are swallowed by its output's grid, and need no grid of their own.
- Some operators have an integer kernel (Add, Mul, Concat, pooling …): they join when their output is
  wanted in integers and one of their inputs is there already.
- Some only move data (Reshape, Transpose, MaxPool …): what goes in and what comes out share a grid.
- Everything else (HardSwish, LayerNormalization, …) is a float island.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from compressor.graph.edit import constant
from compressor.graph.weights import Use, uses_of

_SWALLOWED = ("Relu", "Clip")
_JOINING: dict[str, tuple[int, ...] | None] = {
    "Add": None,
    "Mul": None,
    "Concat": None,
    "AveragePool": (0,),
    "GlobalAveragePool": (0,),
    "LeakyRelu": (0,),
    "Sigmoid": (0,),
    "Relu": (0,),
    "Clip": (0,),
}
"""Operators with an integer kernel and the inputs that carry activations; None: all of them."""

_MOVING = (
    "MaxPool",
    "Reshape",
    "Transpose",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
    "Slice",
    "Gather",
    "DepthToSpace",
    "Split",
    "Resize",
)
"""Operators whose first input and first output are the same values in another place."""


_FARTHEST = 6
"""How many operators back an integer may come from through others that are not integer yet."""


@dataclass(eq=False)
class Region:
    """The tensors to be quantized.

    Attributes:
        layers: the nodes that shall run in int8.
        tensors: what gets a grid, in the order found.
        integer: nodes that read and write integers.
        same_grid: tensor -> the tensor whose grid it shares.
    """

    layers: list[ir.Node]
    tensors: dict[ir.Value, None] = field(default_factory=dict)
    integer: set[ir.Node] = field(default_factory=set)
    same_grid: dict[ir.Value, ir.Value] = field(default_factory=dict)

    def owner(self, value: ir.Value) -> ir.Value:
        """The tensor whose grid `value` uses."""
        while value in self.same_grid:
            value = self.same_grid[value]
        return value

    def is_integer(self, value: ir.Value) -> bool:
        """Whether the value comes out of an integer kernel, so that no float form of it exists."""
        producer = before_activation(value).producer()
        return producer is not None and producer in self.integer

    def groups(self) -> Mapping[ir.Node, frozenset[ir.Node]]:
        """Every integer node with all that integers reach from it, back and forth, itself among them."""
        groups = {node: frozenset([node]) for node in self.integer}
        for value in self.tensors:
            producer = before_activation(value).producer()
            for use in self.readers(value):
                if producer in groups and use.node in groups:
                    both = groups[producer] | groups[use.node]
                    groups.update(dict.fromkeys(both, both))
        return groups

    def readers(self, value: ir.Value) -> list[Use]:
        """The uses that are to read the quantized form of `value`."""
        if self.is_integer(value):
            return uses_of(value)
        return [use for use in uses_of(value) if use.node in self.integer]


def grow(layers: list[ir.Node]) -> Region:
    """The region around the layers that shall run in int8."""
    region = Region(layers)
    for node in layers:
        region.integer.add(node)
        _want(region, node.inputs[0])
        if node.op_type == "Conv":
            _want(region, after_activation(node.outputs[0]))
    before = -1
    while before != len(region.tensors) + len(region.integer):
        before = len(region.tensors) + len(region.integer)
        for value in list(region.tensors):
            _extend(region, value)
    return region


def after_activation(value: ir.Value) -> ir.Value:
    """What a Relu or Clip makes of `value`, when that is its only reader and it does no more than clamp."""
    uses = uses_of(value)
    if len(uses) != 1 or value.is_graph_output() or uses[0].node.graph is not value.graph or not _swallows(uses[0]):
        return value
    return uses[0].node.outputs[0]


def before_activation(value: ir.Value) -> ir.Value:
    """The value of which `value` is the swallowed Relu or Clip; itself, if none."""
    producer = value.producer()
    if producer is None or producer.op_type not in _SWALLOWED or producer.inputs[0] is None:
        return value
    source = producer.inputs[0]
    return source if after_activation(source) is value and source.producer() is not None else value


def _swallows(use: Use) -> bool:
    """Relu, and Clip from 0 up: their lower end is on every grid exactly, so ONNX Runtime can drop them."""
    node = use.node
    if node.op_type == "Clip" and use.idx == 0 and not node.domain:
        bounds = [constant(v) for v in node.inputs[1:]]
        return bool(bounds) and bounds[0] is not None and bounds[0].item() == 0 and bounds[-1] is not None
    return node.op_type == "Relu" and not node.domain


def _want(region: Region, value: ir.Value | None) -> None:
    if value is not None:
        region.tensors.setdefault(value)


def _extend(region: Region, value: ir.Value) -> None:
    """Let the producer of a wanted tensor join the region, if it can."""
    source = before_activation(value)
    node = source.producer()
    if node is None or node in region.integer or node.domain:
        return
    if node.op_type in _MOVING and _moves(node):
        _move(region, node, source)
    elif node.op_type in _JOINING:
        inputs = list(_activations(node))
        if inputs and any(v in region.tensors or _made_of_integers(region, v) for v in inputs):
            region.integer.add(node)
            for tensor in inputs:
                _want(region, tensor)


def _move(region: Region, node: ir.Node, output: ir.Value) -> None:
    """Quantize before the move rather than behind it, where the source is in integers anyway."""
    source = node.inputs[0]
    if source is None or not (source in region.tensors or _made_of_integers(region, source)):
        return
    region.integer.add(node)
    _want(region, source)
    for moved in (o for o in node.outputs if o is output or o.uses()):
        _want(region, moved)
        if region.owner(moved) is not region.owner(source):
            region.same_grid[region.owner(moved)] = region.owner(source)


def _moves(node: ir.Node) -> bool:
    """A Gather from a constant, MaxPool with indices, and Resize that interpolates are no mere moves."""
    source = node.inputs[0]
    if source is None or source.is_initializer():
        return False
    if node.op_type == "Resize":
        mode = node.attributes.get("mode")
        return mode is None or mode.as_string() == "nearest"
    return node.op_type != "MaxPool" or len(node.outputs) == 1


def _activations(node: ir.Node) -> Iterator[ir.Value]:
    """The tensors that would be quantized; none when one of them is a constant or missing."""
    picked = _JOINING[node.op_type]
    values = list(node.inputs) if picked is None else [node.inputs[i] for i in picked]
    if all(v is not None and not v.is_initializer() and v.dtype in (None, ir.DataType.FLOAT) for v in values):
        yield from (v for v in values if v is not None)


def _made_of_integers(region: Region, value: ir.Value, depth: int = 0) -> bool:
    """Whether quantizing `value` lets its producer run in integers, so that it costs nothing."""
    node = before_activation(value).producer()
    if node is None or depth > _FARTHEST:
        return False
    if node in region.integer:
        return True
    if node.op_type not in (*_JOINING, *_MOVING):
        return False
    sources = [node.inputs[0]] if node.op_type in _MOVING else list(_activations(node))
    return any(v is not None and (v in region.tensors or _made_of_integers(region, v, depth + 1)) for v in sources)
