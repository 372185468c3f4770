"""`compressor explain MODEL`."""

from compressor.cli.options import JsonOption, ModelArgument


def explain(model: ModelArgument, json: JsonOption = None) -> None:
    """Show the receipt in a compressed model: what it was made from, how, and with which versions."""
    import json as codec

    import yaml

    from compressor.cli.messages import write_json
    from compressor.cli.terminal import stdout
    from compressor.errors import ModelError
    from compressor.graph.model import Model
    from compressor.pipeline.run import RECEIPT

    stored = Model.read(model).metadata.get(RECEIPT)
    if stored is None:
        raise ModelError(f"{model}: carries no receipt; it was not written by compressor")
    receipt = codec.loads(stored)
    if json is not None:
        write_json(receipt, json)
    if json != "-":
        stdout().print(yaml.safe_dump(receipt, sort_keys=False, allow_unicode=True), end="", markup=False)
