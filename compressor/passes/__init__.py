"""All passes: the settings of one are its entry in a recipe, and this list is the registration."""

from typing import Annotated

from pydantic import Field

from compressor.passes.base import Context, Pass
from compressor.passes.prune_magnitude import PruneMagnitude
from compressor.passes.quantize_dynamic import QuantizeDynamic
from compressor.passes.quantize_static import QuantizeStatic
from compressor.passes.simplify import Simplify

AnyPass = Annotated[Simplify | PruneMagnitude | QuantizeDynamic | QuantizeStatic, Field(discriminator="type")]

PASSES: tuple[type[Pass], ...] = (Simplify, PruneMagnitude, QuantizeDynamic, QuantizeStatic)

__all__ = [
    "PASSES",
    "AnyPass",
    "Context",
    "Pass",
    "PruneMagnitude",
    "QuantizeDynamic",
    "QuantizeStatic",
    "Simplify",
]
