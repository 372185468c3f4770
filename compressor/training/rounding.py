"""Rounding that is learned, for passes that know nothing of torch."""

from collections.abc import Iterable
from dataclasses import replace

from compressor.calibration.coding import Fulfilled, Surroundings
from compressor.errors import UsageError
from compressor.graph.model import Model
from compressor.training.settings import RoundingSettings


def learn_rounding(
    model: Model,
    rounded: Model,
    found: Iterable[Fulfilled],
    settings: RoundingSettings,
    seed: int,
    context: Surroundings,
) -> tuple[list[Fulfilled], str]:
    """The same codes, and better ones where the scheme asks for it and samples that were not learned from agree.

    A weight that stays as it was says so: its scheme is then second_order.

    Args:
        model: before it was rounded; it is not changed.
        rounded: a copy of it with the quantizers of activations that it is going to have; it is edited.
        found: the codes that every weight has been given.
        settings: how long, and how fast.
        seed: of every random choice.
        context: the samples.

    Returns:
        The codes, and a sentence about them.

    Raises:
        CompressorError: see `reconstruction.reconstruct`.
        UsageError: there is no torch.
    """
    try:
        from compressor.training.reconstruction import reconstruct  # imports torch
    except ModuleNotFoundError as error:
        raise UsageError("rounding learned needs torch: pip install 'compressor[torch]'") from error
    given = [replace(one, moments=None) for one in found]
    better = reconstruct(model, rounded, given, settings, seed, context)
    wanted = sum(one.order.scheme.rounding == "learned" for one in given)
    rest = "" if len(better) == wanted else "; in the others second_order errs less on samples that were held out"
    codes = [better.get(one.order.weight.value.name or "", _unlearned(one)) for one in given]
    return codes, f"rounding was learned in {len(better)} of {wanted} layers{rest}"


def _unlearned(one: Fulfilled) -> Fulfilled:
    if one.order.scheme.rounding != "learned":
        return one
    return replace(one, order=replace(one.order, scheme=replace(one.order.scheme, rounding="second_order")))
