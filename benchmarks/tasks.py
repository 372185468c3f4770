"""What is compressed and how the result is judged: a task per model, a variant per way to compress it.

A task describes its data in the words of a recipe, and a variant its passes. Ours reads both as a recipe, the
rivals get what the same entries yield (`benchmarks/feed.py`): all see the same arrays in the same order.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from compressor.runtime.ort import Feeds

if TYPE_CHECKING:
    from compressor.data import AnySource, Dataset

Entry = dict[str, object]
"""A part of a recipe, before it is read."""

SEED = 0
"""Of every choice at random; the default of a recipe."""

_METRICS = {"top1": "top-1", "spearman_cosine": "Spearman", "perplexity": "perplexity"}


@dataclass(frozen=True, slots=True)
class Places:
    """Folders that entries name.

    Attributes:
        assets: models and data, "<assets>" in an entry.
        made: what the benchmark makes itself, "<made>" in an entry.
    """

    assets: Path
    made: Path

    def path(self, text: str) -> Path:
        """A path with the folders put in."""
        return Path(text.replace("<assets>", str(self.assets)).replace("<made>", str(self.made)))

    def entry(self, entry: Mapping[str, object]) -> Entry:
        """An entry with the folders put in; nothing of it is shared with the one given."""
        return {name: self._value(value) for name, value in entry.items()}

    def _value(self, value: object) -> object:
        match value:
            case str() if value.startswith(("<assets>", "<made>")):
                return str(self.path(value))
            case dict():
                return self.entry(value)
            case list():
                return [self._value(one) for one in value]
        return value


@dataclass(frozen=True, slots=True)
class Rival:
    """A call of onnxruntime's own.

    Attributes:
        method: which; see `benchmarks/rivals.py`.
        settings: of the call.
        samples: for calibration; as many as ours, when None.
    """

    method: Literal["static", "dynamic", "blocks"]
    settings: Entry = field(default_factory=dict)
    samples: int | None = None


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to compress the model of a task.

    Attributes:
        name: for the command line and the table.
        passes: of ours.
        rival: what onnxruntime has for it; in words, why it has nothing; None where the question is not asked.
        recipe: other sections of our recipe.
        slow: left out unless it is named.
    """

    name: str
    passes: tuple[Entry, ...]
    rival: Rival | str | None = None
    recipe: Entry = field(default_factory=dict)
    slow: bool = False


@dataclass(frozen=True, slots=True)
class Task:
    """A model, its data, and the ways to compress it.

    Attributes:
        name: for the command line and the table.
        model: the reference, below "<assets>" or "<made>".
        evaluation: the source that results are judged on; with a metric, or else by cosine with the reference.
        variants: ways to compress it.
        calibration: the source that ranges and roundings are found on, for as many samples as it says.
        training: the source that passes which train learn from.
        timed: the sample that latency is measured on is the one of median length among so many.
        make: writes what is below "<made>".
    """

    name: str
    model: str
    evaluation: Entry
    variants: tuple[Variant, ...]
    calibration: Entry | None = None
    training: Entry | None = None
    timed: int = 1
    make: Callable[[Places], None] | None = None

    @property
    def metric(self) -> str:
        """What is judged by, in words."""
        return _METRICS[str(self.evaluation["metric"])] if "metric" in self.evaluation else "cosine"

    def missing(self, places: Places) -> Iterator[Path]:
        """Files and folders of models and data that are needed and not there."""
        for text in (self.model, *_strings([self.calibration, self.training, self.evaluation])):
            path = places.path(text)
            if text.startswith("<assets>") and not path.exists():
                yield path


def read_source(entry: Entry) -> "AnySource":
    """A source of a recipe."""
    from pydantic import TypeAdapter

    from compressor.data import AnySource

    source: AnySource = TypeAdapter(AnySource).validate_python(entry)
    return source


def open_data(entry: Entry, model: Path) -> "Dataset":
    """What a source of a recipe yields for a model."""
    from compressor.graph.model import Model

    return read_source(entry).open(Model.read(model), "benchmarks", SEED)


def typical_sample(task: Task, places: Places) -> Feeds:
    """The sample of median length among the first that a random draw of the evaluation data yields."""
    entry = places.entry({**task.evaluation, "samples": task.timed, "batch": 1})
    found = [batch.feeds for batch in open_data(entry, places.path(task.model)).batches()]
    return sorted(found, key=_entries)[len(found) // 2]


def _entries(feeds: Feeds) -> int:
    return sum(array.size for array in feeds.values())


def _strings(value: object) -> Sequence[str]:
    match value:
        case str():
            return [value]
        case dict():
            return _strings(list(value.values()))
        case list():
            return [text for one in value for text in _strings(one)]
    return []
