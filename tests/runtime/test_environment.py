"""What a processor can do is read from where its system tells it; where that cannot be told, nothing is claimed."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from compressor.runtime import environment
from compressor.runtime.environment import int8_instructions, saturates, usable_cores

PROCESSORS = {
    "Cascade Lake": ("flags : fpu sse4_1 avx avx2 avx512f avx512_vnni", ("avx512_vnni",), False),
    "Alder Lake": ("flags\t\t: avx2 avx_vnni", ("avx_vnni",), False),
    "Sapphire Rapids": ("flags : avx2 avx_vnni avx512_vnni amx_int8", ("avx512_vnni", "avx_vnni", "amx_int8"), False),
    "Haswell": ("flags : fpu sse4_1 avx avx2", (), True),
    "Skylake-X": ("flags : avx2 avx512f avx512bw", (), True),
    "Graviton": ("Features : fp asimd asimddp i8mm", ("asimddp", "i8mm"), False),
    "unknown": ("vendor : somebody", (), False),
}


@pytest.mark.parametrize("name", PROCESSORS)
def test_linux_tells_it_in_a_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, instructions, lossy = PROCESSORS[name]
    (tmp_path / "cpuinfo").write_text(f"processor : 0\nmodel name : {name}\n{text}\n")
    monkeypatch.setattr(environment, "_CPUINFO", tmp_path / "cpuinfo")
    assert int8_instructions() == instructions
    assert saturates() == lossy
    described = environment.environment()
    assert described["processor"] == name
    told = ", ".join(instructions) or ("none, sums saturate" if lossy else "none known")
    assert described["int8_instructions"] == told


MACS = {
    "M1": ("hw.optional.arm.FEAT_DotProd: 1\nhw.optional.arm.FEAT_I8MM: 0", ("asimddp",), False),
    "M2": ("hw.optional.arm.FEAT_DotProd: 1\nhw.optional.arm.FEAT_I8MM: 1", ("asimddp", "i8mm"), False),
    "Intel": ("hw.optional.avx2_0: 1\nmachdep.cpu.leaf7_features: AVX2 AVX512F", (), True),
    "Intel with VNNI": ("hw.optional.avx2_0: 1\nmachdep.cpu.leaf7_features: AVX512VNNI", ("avx512_vnni",), False),
}


@pytest.mark.parametrize("name", MACS)
def test_a_mac_tells_it_through_sysctl(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text, instructions, lossy = MACS[name]
    done = subprocess.CompletedProcess(["sysctl", "-a"], 0, text, "")
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    assert int8_instructions() == instructions
    assert saturates() == lossy


def test_a_system_that_tells_nothing_claims_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_CPUINFO", tmp_path / "missing")
    assert int8_instructions() == ()
    assert not saturates()
    assert environment.environment()["processor"]


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("max 100000", 3), ("200000 100000", 2), ("150000 100000", 2), ("20000 100000", 1), ("800000 100000", 3)],
)
def test_cores_are_those_that_scheduler_and_container_leave(
    quota: str, cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpu.max").write_text(f"{quota}\n")
    monkeypatch.setattr(environment, "_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2, 5}, raising=False)
    assert usable_cores() == cores


def test_elsewhere_all_cores_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_QUOTA", tmp_path / "missing")
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cores() == 1
