"""`compressor passes [TYPE]`."""

from typing import Annotated

import typer

from compressor.cli.options import JsonOption, OverwriteOption


def passes(
    type_: Annotated[str | None, typer.Argument(metavar="[TYPE]", help="One pass, with its fields.")] = None,
    json: JsonOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """List the passes, or the fields of one."""
    from compressor.cli.messages import claim_json, write_json
    from compressor.cli.terminal import stdout
    from compressor.errors import UsageError
    from compressor.passes import PASSES
    from compressor.render.overview import draw_fields, draw_passes

    claim_json(json, (), overwrite)
    known = {str(p.model_fields["type"].default): p for p in PASSES}
    if type_ is not None and type_ not in known:
        raise UsageError(f"{type_}: is no pass; there are {', '.join(known)}")
    if json is not None:
        shown = [known[type_]] if type_ else list(known.values())
        write_json([p.model_json_schema() for p in shown], json)
    if json == "-":
        return
    if type_ is None:
        draw_passes(PASSES, stdout())
    else:
        draw_fields(known[type_], stdout())
