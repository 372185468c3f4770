"""The file format: what a recipe may say, and how a file becomes one."""

from compressor.recipe.check import check_against_model
from compressor.recipe.load import dump, load
from compressor.recipe.presets import AUTO, PRESETS
from compressor.recipe.schema import Bound, Gates, Recipe

__all__ = ["AUTO", "PRESETS", "Bound", "Gates", "Recipe", "check_against_model", "dump", "load"]
