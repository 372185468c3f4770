"""Ready-made lists of passes for `compressor compress`."""

from collections.abc import Mapping

from compressor.passes import Pass, QuantizeDynamic, QuantizeStatic, Simplify

PRESETS: Mapping[str, tuple[Pass, ...]] = {
    "int8": (Simplify(), QuantizeStatic()),
    "int8-dynamic": (Simplify(), QuantizeDynamic()),
}
"""Name -> passes. `auto` is not one of them: it runs these and keeps the fastest."""
