"""What the figures were measured on."""

import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from compressor import __version__

_CPUINFO = Path("/proc/cpuinfo")
_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_VNNI = ("avx512_vnni", "avx_vnni")
_INT8_FLAGS = (*_VNNI, "amx_int8", "asimddp", "i8mm")
_MAC_FLAGS = {
    "avx2": "hw.optional.avx2_0: 1",
    "avx512_vnni": "AVX512VNNI",
    "asimddp": "hw.optional.arm.FEAT_DotProd: 1",
    "i8mm": "hw.optional.arm.FEAT_I8MM: 1",
}
"""Flags as Linux calls them, and what sysctl prints where they are there."""

SATURATION = (
    "this processor has no VNNI: it adds pairs of 8-bit products in 16 bits, where large ones saturate and accuracy "
    "is lost; reduce_range: true keeps weights so small that they do not"
)


def environment() -> dict[str, str]:
    """Processor, its int8 instructions, and the versions that matter."""
    return {
        "processor": _processor(),
        "int8_instructions": ", ".join(int8_instructions()) or ("none, sums saturate" if saturates() else "none known"),
        "cores": str(usable_cores()),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "compressor": __version__,
        **versions(),
    }


def usable_cores() -> int:
    """Cores that this process may keep busy: fewer than there are, where a scheduler or a container says so."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    try:
        quota, period = _QUOTA.read_text().split()  # of the time of one core; "max" where there is no limit
        return max(min(cores, round(int(quota) / int(period))), 1)
    except (OSError, ValueError):
        return cores


def versions() -> dict[str, str]:
    """Of the libraries that shape the output."""
    return {name: version(name) for name in ("onnxruntime", "onnx", "onnx-ir", "onnxscript", "numpy")}


def int8_instructions() -> tuple[str, ...]:
    """Instructions of this processor that make int8 fast; empty where they cannot be told."""
    flags = _flags()
    return tuple(flag for flag in _INT8_FLAGS if flag in flags)


def saturates() -> bool:
    """Whether int8 kernels lose large sums here: on x86 without VNNI. False where that cannot be told."""
    flags = _flags()
    return "avx2" in flags and not flags.intersection(_VNNI)


def _flags() -> frozenset[str]:
    """What the processor can do, in the words of Linux."""
    if platform.system() == "Darwin":
        done = subprocess.run(["sysctl", "-a"], capture_output=True, text=True, check=False)
        return frozenset(flag for flag, line in _MAC_FLAGS.items() if line in done.stdout)
    return frozenset(f"{_cpuinfo('flags')} {_cpuinfo('Features')}".split())


def _processor() -> str:
    return _cpuinfo("model name") or platform.processor() or "unknown"


def _cpuinfo(key: str) -> str:
    if not _CPUINFO.exists():
        return ""
    lines = (line.partition(":") for line in _CPUINFO.read_text(errors="replace").splitlines())
    return next((value.strip() for name, _, value in lines if name.strip() == key), "")
