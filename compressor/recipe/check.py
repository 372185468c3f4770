"""What can only be checked with the model at hand: that every selector means something."""

from collections.abc import Iterator

from compressor.data import Settings
from compressor.errors import RecipeError
from compressor.graph.model import Model
from compressor.graph.select import unmatched
from compressor.recipe.schema import Recipe
from compressor.recipe.tree import Path_, Tree


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
        for path, selectors in _selections(step, ("passes", index)):
            for selector, near in unmatched(selectors, layers).items():
                place = f"{tree.place((*path, selectors.index(selector)))}: " if tree else ""
                hint = f"; near are {', '.join(near)}" if near else "; the model has no layers with weights"
                name = ".".join(map(str, path))
                problems.append(f'{place}{name}: "{selector}" matches no layer of {recipe.model}{hint}')
    if problems:
        raise RecipeError(*problems)


def _selections(settings: Settings, path: Path_) -> Iterator[tuple[Path_, tuple[str, ...]]]:
    """Every list of selectors in the settings of a pass, those of its overrides too, with where it stands."""
    for name, value in settings:
        if name in ("targets", "ignore"):
            yield (*path, name), value
        for index, entry in enumerate(value if isinstance(value, tuple) else ()):
            if isinstance(entry, Settings):
                yield from _selections(entry, (*path, name, index))
