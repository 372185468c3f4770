"""Ours beside ONNX Runtime's own quantizers, on real models.

python -m benchmarks.quantizers [--only MODEL]… [--variant NAME]… [--samples N]
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from fnmatch import fnmatch
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console

from benchmarks.catalogue import TASKS
from benchmarks.comparing import Effort, compare, say
from benchmarks.table import Row, draw
from benchmarks.tasks import SEED, Places, Task

_ASSETS = Path(__file__).resolve().parents[2] / "shared" / "assets"
_CANNOT_RUN = 3
_WIDTH = 200
"""Characters: the table is not cut short where the terminal is narrower."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; the exit code is 3 where models, data or a library are absent."""
    given = _parse(arguments)
    samples = {"compressor": given.our_samples or given.samples, "onnxruntime": given.samples}
    effort = Effort(samples, given.seconds, given.runs, given.seed)
    tasks = [narrowed(task, given.variant or ()) for name, task in TASKS.items() if name in (given.only or TASKS)]
    wanted = [task for task in tasks if task.variants]
    with _folder(given.keep) as folder:
        places = Places(given.assets.resolve(), Path(folder))
        complaint = next(_obstacles(wanted, places), None)
        if complaint is not None:
            say(f"benchmarks: {complaint}")
            return _CANNOT_RUN
        rows = [row for task in wanted for row in compare(task, places, effort)]
    Console(width=_WIDTH).print(draw(rows), highlight=False)
    if given.json is not None:
        given.json.write_text(json.dumps(_document(rows), indent=2) + "\n")
    return 0


def narrowed(task: Task, names: Sequence[str]) -> Task:
    """The task with the variants that the names, or globs, select; without names, with all but the slow ones."""
    kept = (v for v in task.variants if (any(fnmatch(v.name, name) for name in names) if names else not v.slow))
    return replace(task, variants=tuple(kept))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quantizers",
        description=(__doc__ or "").split("\n")[0],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=_listing(),
    )
    parser.add_argument("--only", action="append", choices=TASKS, help="one model; may be repeated")
    parser.add_argument("--variant", action="append", metavar="NAME", help="one variant, or a glob; may be repeated")
    parser.add_argument("--samples", type=_count, help="calibration samples of both tools, instead of the model's own")
    parser.add_argument("--our-samples", type=_count, help="calibration samples of ours, where they are to differ")
    parser.add_argument("--seed", type=int, default=SEED, help=f"of every choice at random, ours ({SEED})")
    parser.add_argument("--seconds", type=float, default=2.0, help="time spent on latency per result, about (2)")
    parser.add_argument("--runs", type=_count, default=1, help="runs of each tool, in turn; the quickest counts (1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows as JSON")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the quantized models and our recipes there")
    parser.add_argument("--assets", type=Path, default=_ASSETS, metavar="FOLDER", help="models and data")
    return parser.parse_args(arguments)


def _listing() -> str:
    """Every variant; those in brackets run only when they are named."""
    lines = ["variants (those in brackets only when named):"]
    for task in TASKS.values():
        names = ", ".join(f"[{variant.name}]" if variant.slow else variant.name for variant in task.variants)
        lines.append(f"  {task.name}: {names}")
    return "\n".join(lines)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no number of at least 1")
    return int(text)


def _obstacles(tasks: Sequence[Task], places: Places) -> Iterator[str]:
    """Why the comparison cannot run."""
    if not tasks:
        yield "there is no such variant; --help lists them"
    for task in tasks:
        for path in task.missing(places):
            yield f"{task.name} needs {path}, which does not exist; see benchmarks/README.md, or give --assets"
        if task.evaluation["source"] == "text" and find_spec("tokenizers") is None:
            yield f"{task.name} needs the tokenizers library: pip install -e '.[bench]'"


def _folder(keep: Path | None) -> AbstractContextManager[str]:
    if keep is None:
        return tempfile.TemporaryDirectory()
    keep.mkdir(parents=True, exist_ok=True)
    return nullcontext(str(keep.resolve()))


def _document(rows: Sequence[Row]) -> dict[str, object]:
    from compressor.runtime.environment import environment

    return {"environment": environment(), "rows": [asdict(row) for row in rows]}


if __name__ == "__main__":
    sys.exit(main())
