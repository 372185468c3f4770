"""Ready-made lists of passes for `compressor compress`."""

from collections.abc import Mapping

from compressor.passes import Compact, Pass, QuantizeDynamic, QuantizeStatic, QuantizeWeights, Simplify

PRESETS: Mapping[str, tuple[Pass, ...]] = {
    "int8": (Simplify(), QuantizeStatic()),
    "int8-dynamic": (Simplify(), QuantizeDynamic()),
    "int4": (Simplify(), QuantizeWeights(), Compact()),
}
"""Name -> passes. `auto` is not one of them."""

AUTO = ("int8", "int8-dynamic")
"""The presets that `auto` runs, to keep the fastest. Those that give accuracy for size are not judged by speed."""
