"""How a model's outputs answer to its weights, to first order, without labels and without a loss.

With random signs v for every entry of the outputs, of every sample anew, the gradient of vᵀy summed over a batch is a
draw g whose products (Δw · g)², in the mean over draws, are the squares of what the outputs change by when the weights
change by Δw: the mixed terms of samples and outputs vanish (Hutchinson 1990). At the reference the gradient of every
loss that compares with it is zero; this one is not.
"""

from collections.abc import Collection, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from compressor.calibration.coding import Surroundings
from compressor.data import Batch, Dataset
from compressor.graph.model import Model
from compressor.numerics.affine import Floats
from compressor.runtime.autograd import Network
from compressor.training.teacher import tensors

_SAMPLES = 8
"""Per draw: few, so that a calibration set gives many draws."""

_TINY = 1e-12


def draws(
    model: Model, arrays: Collection[str], data: Dataset, seed: int, context: Surroundings
) -> Iterator[dict[str, Floats]]:
    """Gradients of some arrays, draw by draw, as shares of the root mean square of the outputs.

    They are scaled so that the mean over all draws of (Δw · g)² is the change of the outputs' power per sample.

    Args:
        model: of operators that torch can execute; it is not changed.
        arrays: names of initializers.
        data: samples.
        seed: of the signs.
        context: how many threads there are, and whom to tell.

    Raises:
        DataError: the samples do not fit the model.
        ModelError: torch cannot execute it.
    """
    torch.set_num_threads(context.threads)
    network = Network(model)
    network.requires_grad_(False)
    places = {name: place for name, place in network.places.items() if name in arrays}
    for place in places.values():
        place.tensor.requires_grad_(True)
    signs = torch.Generator().manual_seed(seed)
    batches = -(-len(data) // data.batch)
    for batch in context.progress.track(data.batches(), "gradients", batches):
        for part in _parts(batch):
            network.zero_grad(set_to_none=True)
            outputs = network.run(tensors(part.feeds, torch.device("cpu")))
            projected = [_projected(y, signs) for y in outputs.values() if y.is_floating_point() and y.requires_grad]
            if not projected:
                continue
            torch.stack(projected).sum().backward()
            scale = (part.samples * len(projected)) ** -0.5
            grown = {name: place.tensor.grad for name, place in places.items()}
            yield {name: (g * scale).float().numpy() for name, g in grown.items() if g is not None}


def _projected(output: Tensor, signs: torch.Generator) -> Tensor:
    """vᵀy, where y is a share of its root mean square per sample."""
    drawn = torch.randint(0, 2, output.shape, generator=signs, dtype=torch.int8) * 2 - 1
    power = output.detach().float().square().sum() / max(len(output) if output.dim() else 1, 1)
    return (drawn * output).sum() / power.clamp(min=_TINY).sqrt()


def _parts(batch: Batch) -> Iterator[Batch]:
    """A few samples at a time, where samples can be told apart."""
    if not all(array.ndim and len(array) == batch.samples for array in batch.feeds.values()):
        yield replace(batch, labels={})
        return
    for start in range(0, batch.samples, _SAMPLES):
        feeds = {name: np.ascontiguousarray(array[start : start + _SAMPLES]) for name, array in batch.feeds.items()}
        yield Batch(feeds, {}, min(_SAMPLES, batch.samples - start))
