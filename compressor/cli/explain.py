"""`compressor explain MODEL`."""

from compressor.cli.options import JsonOption, ModelArgument, OverwriteOption


def explain(model: ModelArgument, json: JsonOption = None, overwrite: OverwriteOption = False) -> None:
    """Show the receipt in a compressed model: what it was made from, how, and with which versions."""
    import yaml

    from compressor.cli.messages import claim_json, write_json
    from compressor.cli.terminal import stdout
    from compressor.errors import ModelError
    from compressor.pipeline.receipt import receipt_in

    claim_json(json, (model,), overwrite)
    receipt = receipt_in(model)
    if receipt is None:
        raise ModelError(f"{model}: carries no receipt; it was not written by compressor")
    if json is not None:
        write_json(receipt, json)
    if json != "-":
        stdout().print(yaml.safe_dump(receipt, sort_keys=False, allow_unicode=True), end="", markup=False)
