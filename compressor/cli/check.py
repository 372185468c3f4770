"""`compressor check RECIPE`."""

from compressor.cli.options import QuietOption, RecipeArgument, SetOption


def check(recipe: RecipeArgument, set_: SetOption = None, quiet: QuietOption = False) -> None:
    """Check a recipe without running it: every field, path and selector, all problems at once."""
    from compressor.cli.messages import note
    from compressor.graph.opening import opened
    from compressor.recipe import check_against_model, load

    loaded, tree = load(recipe, tuple(set_ or ()))
    with opened(loaded.source) as given:
        check_against_model(loaded, given.read(), tree)
    note(f"{recipe}: {' → '.join(step.type for step in loaded.passes)}: ok", quiet)
