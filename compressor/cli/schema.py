"""`compressor schema`."""


def schema() -> None:
    """Print the JSON Schema of recipes, with which editors complete and check them."""
    from compressor.cli.messages import write_json
    from compressor.recipe import Recipe

    described = Recipe.model_json_schema()
    described["properties"] |= {
        "vars": {"type": "object", "description": "values for ${name}; --set name=value replaces them"},
        "extends": {"type": "string", "description": "another recipe to build on"},
    }
    required = described.pop("required")
    described["anyOf"] = [{"required": ["extends"]}, {"required": required}]
    write_json({"$schema": "https://json-schema.org/draft/2020-12/schema", **described}, "-")
