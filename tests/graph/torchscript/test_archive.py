"""What an archive is known by, what its code is refused for, and which pickles are read."""

import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from compressor.errors import ModelError
from compressor.graph.torchscript.archive import is_torchscript, scan, traced_inputs
from tests.graph.torchscript import modules
from tests.models import graph, write


def _archive(path: Path, code: str, **records: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/code/__torch__.py", code)
        for name, data in records.items():
            archive.writestr(f"m/{name.replace('__', '.')}", data)
    return path


def test_torchscript_is_told_by_content_whatever_it_is_called(tmp_path: Path) -> None:
    script = modules.scripted(modules.Dictionary(), tmp_path / "model.pt")
    shutil.copy(script, tmp_path / "model.onnx")
    onnx_file = write(graph("float[2] x => float[2] y", "y = Relu(x)"), tmp_path / "other.pt")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "weights.pt")
    assert is_torchscript(script)
    assert is_torchscript(tmp_path / "model.onnx")
    assert not is_torchscript(onnx_file)
    assert not is_torchscript(tmp_path / "weights.pt")
    assert not is_torchscript(tmp_path / "none.pt")
    assert not is_torchscript(tmp_path)


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ('torch.save(x, "f")', "save"),
        ('torch . save (x, "f")', "save"),
        ('x = torch.\\\n  save(x, "f")', "save"),
        ('ops.aten.save(x, "f")', "save"),
        ('x.save("f")', "save"),
        ('y = torch.from_file("f", None, 3)', "from_file"),
        ("y = ops.c10d.send(x, 1)", "c10d"),
        ("y = ops._c10d_functional.all_reduce(x)", "_c10d_functional"),
        ('y = ops.prim.rpc_sync("w", f, (x,))', "rpc_sync"),
        ("def f(self, g : __torch__.torch.classes.dist_rpc.WorkerInfo) -> int:\n    return 1", "dist_rpc"),
    ],
)
def test_code_that_reaches_for_files_or_the_network_is_found_with_its_line(
    line: str, word: str, tmp_path: Path
) -> None:
    path = _archive(tmp_path / "m.pt", f"class M(Module):\n  def forward(self, x: Tensor) -> Tensor:\n    {line}\n")
    (found,) = scan(path).forbidden
    assert found.startswith(f"{word} (__torch__.py, line ")


def test_libraries_that_torch_does_not_have_are_named_once(tmp_path: Path) -> None:
    code = "y = ops.torchvision.nms(a, b, 0.5)\nz = ops.torchvision.nms(a, b, 0.5)\n"
    assert scan(_archive(tmp_path / "m.pt", code)).foreign == ("torchvision (__torch__.py, line 1)",)


def test_harmless_code_has_no_findings(tmp_path: Path) -> None:
    code = 'class M(Module):\n  save_ : int\n  def forward(self, x):\n    "torch.save(x)"\n    return torch.relu(x)\n'
    found = scan(_archive(tmp_path / "m.pt", code))
    assert (found.forbidden, found.foreign, found.state, found.packed) == ((), (), (), False)


def test_code_that_runs_when_loaded_is_a_finding(tmp_path: Path) -> None:
    path = modules.scripted(modules.Writing(tmp_path / "written"), tmp_path / "m.pt")
    found = scan(path)
    assert found.state[0].startswith("__setstate__ (")
    assert found.forbidden[0].startswith("save (")


def test_code_that_cannot_be_read_is_not_trusted(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read as code"):
        scan(_archive(tmp_path / "m.pt", "x = ((\n"))


def test_a_damaged_archive_is_one_line(tmp_path: Path) -> None:
    path = modules.scripted(modules.Dictionary(), tmp_path / "m.pt")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ModelError, match="damaged archive"):
        scan(path)


def test_traced_inputs_have_the_types_and_sizes_that_tracing_saw(tmp_path: Path) -> None:
    class Three(torch.nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
            return a.sum() + b.sum() + c.sum()

    given = (torch.zeros(2, 3), torch.zeros(4, dtype=torch.int64), torch.zeros(3, 2).t())
    found = traced_inputs(modules.traced(Three(), given, tmp_path / "m.pt"))
    assert found is not None
    assert [(a.dtype.name, a.shape) for a in found] == [("float32", (2, 3)), ("int64", (4,)), ("float32", (2, 3))]


def test_a_script_stores_no_inputs(tmp_path: Path) -> None:
    assert traced_inputs(modules.scripted(modules.Dictionary(), tmp_path / "m.pt")) is None


class _Running:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_a_pickle_that_runs_code_is_refused_before_it_does(tmp_path: Path) -> None:
    evil = pickle.dumps({"forward": [_Running(tmp_path / "made")]})
    path = _archive(tmp_path / "m.pt", "", traced_inputs__pkl=evil)
    with pytest.raises(ModelError, match="mkdir is not allowed"):
        traced_inputs(path)
    assert not (tmp_path / "made").exists()


def test_a_stored_tensor_that_lies_outside_of_its_storage_is_refused(tmp_path: Path) -> None:
    path = modules.traced(modules.Dictionary(), [torch.zeros(2, 3)], tmp_path / "m.pt")
    changed = tmp_path / "changed.pt"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(changed, "w") as new:
        for entry in old.infolist():
            data = old.read(entry)
            if entry.filename.endswith("traced_inputs.pkl"):
                sizes = pickle.dumps((2, 3), 2)[2:-3]
                assert data.count(b"K\x02K\x03\x86") or data.count(b"(K\x02K\x03t"), sizes
                data = data.replace(b"(K\x02K\x03t", b"(K\x09K\x03t").replace(b"K\x02K\x03\x86", b"K\x09K\x03\x86")
            new.writestr(entry.filename, data)
    with pytest.raises(ModelError, match="outside of its storage"):
        traced_inputs(changed)


def test_stored_values_are_used_where_there_are_any(tmp_path: Path) -> None:
    path = modules.traced(modules.Dictionary(), [torch.zeros(2, 3)], tmp_path / "m.pt")
    changed = tmp_path / "changed.pt"
    values = np.arange(6, dtype=np.float32)
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(changed, "w") as new:
        for entry in old.infolist():
            stored = entry.filename.endswith("traced_inputs/0")
            new.writestr(entry.filename, values.tobytes() if stored else old.read(entry))
    found = traced_inputs(changed)
    assert found is not None
    assert np.array_equal(found[0], values.reshape(2, 3))
