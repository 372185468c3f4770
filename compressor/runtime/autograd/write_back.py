"""From a trained network back into the model that it was made of."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from compressor.graph.edit import set_array
from compressor.graph.model import Model
from compressor.graph.reading import initializers
from compressor.graph.trainable import integer_biases, retie, untie
from compressor.numerics.floating import flush_subnormals
from compressor.runtime.autograd.network import Network
from compressor.runtime.autograd.values import to_numpy


def write_back(network: Network, model: Model) -> tuple[str, ...]:
    """Put the arrays of a network into the initializers of the same names: see `store_arrays`.

    Args:
        network: made of this model.
        model: with the same graph as when the network was made; edited in place.
    """
    return store_arrays(model, learned_arrays(network, model))


def learned_arrays(network: Network, model: Model) -> dict[str, NDArray[Any]]:
    """Everything that training changes, in the types that the model has it in."""
    dtypes = {value.name: value.dtype for value in initializers(model.ir)}
    found = {**network.trained, **network.statistics}
    return {name: np.array(to_numpy(tensor, dtypes.get(name))) for name, tensor in found.items()}


def store_arrays(model: Model, arrays: Mapping[str, NDArray[Any]]) -> tuple[str, ...]:
    """Put arrays into the initializers of the same names; nodes, order and metadata stay.

    Vectors that were merged and have grown apart become initializers of their own; those that are still equal
    stay one. The int32 bias of an integer layer is quantized anew when the scales that it depends on have
    changed: kernels take the product of the two for granted. Subnormal entries become zero.

    Args:
        model: edited in place.
        arrays: under the names that a network of this model has for them.

    Returns:
        The names of the arrays that changed.

    Raises:
        ValueError: an array is not in the model, or has another shape there.
    """
    untied = untie(model.ir)
    biases = integer_biases(model.ir)
    values = {value.name: value for value in initializers(model.ir)}
    changed = []
    for name, array in arrays.items():
        value = values.get(name)
        if value is None or value.const_value is None or tuple(value.const_value.shape.numpy()) != array.shape:
            raise ValueError(f"{name}: is not an array of {list(array.shape)} in this model")
        if _store(value, value.const_value, array):
            changed.append(name)
    for bias in biases:
        bias.renew()
    retie(model.ir, untied)
    return tuple(changed)


def _store(value: ir.Value, old: ir.TensorProtocol, array: NDArray[Any]) -> bool:
    """Whether the array is another one than before; only then is it replaced."""
    if array.dtype == np.float32:
        array = flush_subnormals(array)
    if np.array_equal(array, old.numpy(), equal_nan=True):
        return False
    set_array(value, array)
    return True
