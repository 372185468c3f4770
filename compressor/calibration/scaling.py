"""Activation-aware scaling of the inputs of layers, written into the model."""

from collections.abc import Callable, Iterable

from compressor.calibration.coding import Surroundings
from compressor.calibration.moments import collect_moments
from compressor.errors import PassError
from compressor.graph.chains import Channels, read_together, reading_refusal
from compressor.graph.inputs import LayerInput
from compressor.graph.model import Model
from compressor.graph.weights import Weight
from compressor.numerics.activation_aware import Scaling, search
from compressor.numerics.schemes import Scheme


def scale_inputs(
    model: Model, weights: Iterable[Weight], scheme: Callable[[Weight], Scheme], context: Surroundings
) -> None:
    """Move scale from the inputs of MatMul and Gemm into their weights, where that lowers the error of coding them.

    The division goes where the inputs are made, or into a multiplication in front of the layers. Layers
    whose inputs cannot be rescaled are left as they are. What the model computes does not change.

    Args:
        model: edited in place.
        weights: of products.
        scheme: how each will be coded.
        context: samples, for second moments.

    Raises:
        PassError: there is no calibration data.
    """
    groups = read_together(w for w in weights if reading_refusal(w) is None and not w.in_subgraph)
    if not groups:
        return
    data, scratch = context.calibration, context.scratch
    if data is None:
        raise PassError("rounding activation_aware needs data.calibration; or take another rounding")
    by_tensor = {group.tensor: group for group in groups}
    wanted = [(LayerInput(group.tensor), group.count) for group in groups]
    for key, moments in collect_moments(model.copy(), wanted, data, scratch, context.progress, context.threads):
        group = by_tensor[key.tensor]
        matrices = [weight.matrix() for weight in group.readers]
        _apply(group, search(matrices, [scheme(weight) for weight in group.readers], moments[0]))


def _apply(group: Channels, found: Scaling) -> None:
    if found.strength == 0:
        return
    maker = group.maker()
    divide = group.divide_in_front if isinstance(maker, str) else maker.divide
    divide(found.scale)
    group.multiply(found.scale)
