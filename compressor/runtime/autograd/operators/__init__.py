"""The operators, one module per family."""

from importlib import import_module

FAMILIES = (
    "attention",
    "control",
    "convolution",
    "elementwise",
    "hosts",
    "moving",
    "normalization",
    "pooling",
    "products",
    "quantization",
    "recurrent",
    "reductions",
    "resizing",
    "sequences",
    "signal",
)
"""Modules that register operators when they are imported."""


def register() -> None:
    """Fill the table of operators."""
    for family in FAMILIES:
        import_module(f"{__name__}.{family}")
