"""What can only be checked with the model at hand: that every selector means something."""

from compressor.errors import RecipeError
from compressor.graph.model import Model
from compressor.graph.select import unmatched
from compressor.recipe.schema import Recipe
from compressor.recipe.tree import Tree


def check_against_model(recipe: Recipe, model: Model, tree: Tree | None = None) -> None:
    """Refuse selectors that match no layer.

    Args:
        recipe: valid by itself.
        model: the one it names.
        tree: where the recipe's values stand, for messages.

    Raises:
        RecipeError: every such selector, with the nearest names there are.
    """
    layers = [(w.names, w.layer) for w in model.weights()]
    problems = []
    for index, step in enumerate(recipe.passes):
        for field in ("targets", "ignore"):
            for selector, near in unmatched(getattr(step, field), layers).items():
                position = getattr(step, field).index(selector)
                place = f"{tree.place(('passes', index, field, position))}: " if tree else ""
                hint = f"; near are {', '.join(near)}" if near else "; the model has no layers with weights"
                problems.append(f'{place}passes.{index}.{field}: "{selector}" matches no layer of {recipe.model}{hint}')
    if problems:
        raise RecipeError(*problems)
