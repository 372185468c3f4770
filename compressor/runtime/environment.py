"""What the figures were measured on."""

import os
import platform
from importlib.metadata import version
from pathlib import Path

from compressor import __version__

_INT8_FLAGS = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")


def environment() -> dict[str, str]:
    """Processor, its int8 instructions, and the versions that matter."""
    return {
        "processor": _processor(),
        "int8_instructions": ", ".join(int8_instructions()) or "none known",
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "compressor": __version__,
        **versions(),
    }


def versions() -> dict[str, str]:
    """Of the libraries that shape the output."""
    return {name: version(name) for name in ("onnxruntime", "onnx", "onnx-ir", "onnxscript", "numpy")}


def int8_instructions() -> tuple[str, ...]:
    """Instructions of this processor that make int8 fast; empty where they cannot be told."""
    flags = set(_cpuinfo("flags").split()) | set(_cpuinfo("Features").split())
    return tuple(flag for flag in _INT8_FLAGS if flag in flags)


def _processor() -> str:
    return _cpuinfo("model name") or platform.processor() or "unknown"


def _cpuinfo(key: str) -> str:
    file = Path("/proc/cpuinfo")
    if not file.exists():
        return ""
    lines = (line.partition(":") for line in file.read_text(errors="replace").splitlines())
    return next((value.strip() for name, _, value in lines if name.strip() == key), "")
