"""All passes: the settings of one are its entry in a recipe, and this list is the registration."""

from typing import Annotated

from pydantic import Field

from compressor.passes.base import Context, Pass
from compressor.passes.cast import Cast
from compressor.passes.compact import Compact
from compressor.passes.correct_bias import CorrectBias
from compressor.passes.distill import Distill
from compressor.passes.equalize import Equalize
from compressor.passes.factorize import Factorize
from compressor.passes.prune_blocks import PruneBlocks
from compressor.passes.prune_channels import PruneChannels
from compressor.passes.prune_magnitude import PruneMagnitude
from compressor.passes.prune_second_order import PruneSecondOrder
from compressor.passes.quantize_dynamic import QuantizeDynamic
from compressor.passes.quantize_static import QuantizeStatic
from compressor.passes.quantize_weights import QuantizeWeights
from compressor.passes.reduce_resolution import ReduceResolution
from compressor.passes.simplify import Simplify
from compressor.passes.smooth import Smooth

AnyPass = Annotated[
    Simplify
    | Equalize
    | Smooth
    | ReduceResolution
    | PruneBlocks
    | PruneChannels
    | PruneMagnitude
    | PruneSecondOrder
    | Factorize
    | Distill
    | QuantizeDynamic
    | QuantizeStatic
    | QuantizeWeights
    | CorrectBias
    | Cast
    | Compact,
    Field(discriminator="type"),
]

PASSES: tuple[type[Pass], ...] = (
    Simplify,
    Equalize,
    Smooth,
    ReduceResolution,
    PruneBlocks,
    PruneChannels,
    PruneMagnitude,
    PruneSecondOrder,
    Factorize,
    Distill,
    QuantizeDynamic,
    QuantizeStatic,
    QuantizeWeights,
    CorrectBias,
    Cast,
    Compact,
)

__all__ = [
    "PASSES",
    "AnyPass",
    "Cast",
    "Compact",
    "Context",
    "CorrectBias",
    "Distill",
    "Equalize",
    "Factorize",
    "Pass",
    "PruneBlocks",
    "PruneChannels",
    "PruneMagnitude",
    "PruneSecondOrder",
    "QuantizeDynamic",
    "QuantizeStatic",
    "QuantizeWeights",
    "Simplify",
    "Smooth",
]
