"""Ours beside ONNX Runtime's own quantizers, on real models.

python -m benchmarks.quantizers [--samples N] [--only NAME]…
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console

from benchmarks.cost import Cost
from benchmarks.table import Judgement, Row, draw
from benchmarks.tasks import TASKS, SentenceSimilarity, Task
from benchmarks.timing import ratios
from benchmarks.tools import Tool, onnxruntimes, ours

_ASSETS = Path(__file__).resolve().parents[2] / "shared" / "assets"
_CANNOT_RUN = 3
_WIDTH = 160
"""Characters: the table is not cut short where the terminal is narrower."""

_TOOLS: dict[str, Tool] = {"compressor": ours, "onnxruntime": onnxruntimes}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; the exit code is 3 where models, data or a library are absent."""
    given = _parse(arguments)
    assets: Path = given.assets.resolve()
    tasks = [TASKS[name] for name in given.only or TASKS]
    complaint = next(_obstacles(tasks, assets), None)
    if complaint is not None:
        Console(stderr=True, soft_wrap=True).print(f"benchmarks: {complaint}", highlight=False, markup=False)
        return _CANNOT_RUN
    counts = {"compressor": given.our_samples or given.samples, "onnxruntime": given.samples}
    rows: list[Row] = []
    with _folder(given.keep) as folder:
        for task in tasks:
            rows += _compare(task, assets, Path(folder), counts, given)
    Console(width=_WIDTH).print(draw(rows), highlight=False)
    if given.json is not None:
        given.json.write_text(json.dumps(_document(rows), indent=2) + "\n")
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quantizers", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--samples", type=_count, default=200, help="calibration samples of both tools (200)")
    parser.add_argument("--our-samples", type=_count, help="calibration samples of ours, where they are to differ")
    parser.add_argument("--only", action="append", choices=TASKS, help="one task; may be repeated")
    parser.add_argument("--seconds", type=float, default=5.0, help="time spent on latency per model, about (5)")
    parser.add_argument("--runs", type=_count, default=2, help="runs of each tool, in turn; the quicker one counts (2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows as JSON")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the quantized models and our recipes there")
    parser.add_argument("--assets", type=Path, default=_ASSETS, metavar="FOLDER", help="models and data")
    return parser.parse_args(arguments)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no number of at least 1")
    return int(text)


def _obstacles(tasks: Sequence[Task], assets: Path) -> Iterator[str]:
    """Why the comparison cannot run."""
    for task in tasks:
        for path in task.missing(assets):
            yield f"{task.name} needs {path}, which does not exist; see benchmarks/README.md, or give --assets"
        if isinstance(task, SentenceSimilarity) and find_spec("tokenizers") is None:
            yield f"{task.name} needs the tokenizers library: pip install -e '.[bench]'"


def _folder(keep: Path | None) -> AbstractContextManager[str]:
    if keep is None:
        return tempfile.TemporaryDirectory()
    keep.mkdir(parents=True, exist_ok=True)
    return nullcontext(str(keep.resolve()))


def _compare(task: Task, assets: Path, folder: Path, counts: dict[str, int], given: argparse.Namespace) -> list[Row]:
    """Run both tools, then judge what they wrote side by side."""
    files = {name: folder / f"{task.name}_{name}.onnx" for name in _TOOLS}
    runs = [
        {name: run(task, assets, files[name], counts[name]) for name, run in _TOOLS.items()} for _ in range(given.runs)
    ]
    costs = {name: min((costs[name] for costs in runs), key=_preference) for name in _TOOLS}
    for name, cost in costs.items():
        if cost.code:
            Console(stderr=True).print(f"{task.name}: {name} failed: {cost.complaint}", highlight=False, markup=False)
    written = {name: files[name] for name, cost in costs.items() if not cost.code}
    judgements = dict(zip(written, _judge(task, assets, list(written.values()), folder, given.seconds), strict=True))
    return [
        Row(
            task.name,
            name,
            task.metric,
            counts[name] if task.method == "static" else None,
            costs[name],
            judgements.get(name),
        )
        for name in _TOOLS
    ]


def _preference(cost: Cost) -> tuple[bool, float]:
    """The least is a run that worked, and of those the quickest."""
    return cost.code != 0, cost.seconds


def _judge(task: Task, assets: Path, results: Sequence[Path], scratch: Path, seconds: float) -> list[Judgement]:
    """Metric, bytes, latency and kernels of every result."""
    from compressor.graph.model import Model
    from compressor.pipeline.measuring import kernels
    from compressor.runtime.ort import Session

    reference = task.model(assets)
    size = Model.read(reference).source_bytes
    timed = ratios(reference, results, task.sample(assets), seconds)
    threads = os.cpu_count() or 1
    before, *after = task.scores(assets, [Session(path, threads) for path in (reference, *results)])
    return [
        Judgement(before, score, size, Model.read(result).source_bytes, ratio, kernels(result, size, scratch))
        for result, score, ratio in zip(results, after, timed, strict=True)
    ]


def _document(rows: Sequence[Row]) -> dict[str, object]:
    from compressor.runtime.environment import environment

    return {"environment": environment(), "rows": [asdict(row) for row in rows]}


if __name__ == "__main__":
    sys.exit(main())
