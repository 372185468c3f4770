"""`compressor run RECIPE`."""

from typing import Annotated

import typer

from compressor.cli.options import JsonOption, OverwriteOption, QuietOption, RecipeArgument, SetOption, VerboseOption


def run(
    recipe: RecipeArgument,
    set_: SetOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything and print the resolved recipe.")] = False,
    json: JsonOption = None,
    overwrite: OverwriteOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Compress a model as a recipe says, and report."""
    from compressor import pipeline
    from compressor.cli.finish import finish, show_recipe
    from compressor.cli.messages import claim_json
    from compressor.cli.terminal import progress
    from compressor.graph.opening import opened
    from compressor.pipeline.publish import refuse_overwriting
    from compressor.recipe import check_against_model, load
    from compressor.runtime.launched import launched

    loaded, tree = load(recipe, tuple(set_ or ()))
    if launched().follows:
        with progress(quiet=True) as bars:
            pipeline.follow(loaded, bars, tree)
        return
    claim_json(
        json, (recipe, loaded.model, loaded.output.model, *loaded.output.report, *loaded.data.paths()), overwrite
    )
    if dry_run:
        with opened(loaded.source) as given:
            check_against_model(loaded, given.read(), tree)
        refuse_overwriting((loaded.output.model, *loaded.output.report), (loaded.model, recipe), overwrite)
        show_recipe(loaded)
        return
    with progress(quiet) as bars:
        outcome = pipeline.run(loaded, bars, overwrite, tree)
    finish(outcome.report, json, quiet, verbose)
