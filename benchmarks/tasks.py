"""What is compressed and how the result is judged: one task per real model.

A task describes its data in the words of a recipe. Ours reads the entry as part of a recipe, the rivals
get what the same entry yields in `Task.calibration_batches`: both see the same arrays in the same order.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from compressor.runtime.ort import Feeds, Session

if TYPE_CHECKING:
    from compressor.data import Dataset

Entry = dict[str, object]
"""A part of a recipe, before it is read."""

SEED = 0
"""Of the choice of calibration samples; the default of a recipe."""

GLIMPSE = 16
"""Samples on which our own run judges its result."""

_IMAGENET: Entry = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


@dataclass(frozen=True)
class Task(ABC):
    """A model, its data and its metric.

    Attributes:
        name: for the command line and the table.
        file: the model, relative to the folder of assets.
        method: ranges fixed from data, or found at run time; of both tools.
        metric: what `scores` returns, in words.
        sources: files and folders of data, relative to the folder of assets.
    """

    name: str
    file: str
    method: Literal["static", "dynamic"]
    metric: str
    sources: tuple[str, ...]

    def model(self, assets: Path) -> Path:
        """The reference."""
        return assets / self.file

    def missing(self, assets: Path) -> Iterator[Path]:
        """Files that are needed and not there."""
        for name in (self.file, *self.sources):
            if not (assets / name).exists():
                yield assets / name

    @abstractmethod
    def calibration(self, assets: Path, samples: int) -> Entry | None:
        """The recipe's `data.calibration`; None where no data is needed."""

    @abstractmethod
    def glimpse(self, assets: Path, scratch: Path) -> Entry:
        """The recipe's `data.evaluation`: a handful of samples, enough for our run to judge its result."""

    @abstractmethod
    def scores(self, assets: Path, sessions: Sequence[Session]) -> list[float]:
        """The metric of every model, all on the same batches of the whole evaluation data."""

    @abstractmethod
    def sample(self, assets: Path) -> Feeds:
        """One sample, for latency."""

    def calibration_batches(self, assets: Path, samples: int) -> Iterator[Feeds]:
        """What `data.calibration` yields in a recipe."""
        entry = self.calibration(assets, samples)
        if entry is not None:
            yield from (batch.feeds for batch in self._open(assets, entry).batches())

    def _open(self, assets: Path, entry: Entry) -> "Dataset":
        from pydantic import TypeAdapter

        from compressor.data import AnySource
        from compressor.graph.model import Model

        source: AnySource = TypeAdapter(AnySource).validate_python(entry)
        return source.open(Model.read(self.model(assets)), f"benchmarks: {self.name}", SEED)


@dataclass(frozen=True)
class Classification(Task):
    """Share of samples whose largest output is the labelled class.

    Attributes:
        shared: fields of a recipe's source that both sets of samples have; `path` and `list` are
            relative to the folder of assets.
        learning: fields of the samples that ranges are found on.
        judging: fields of the samples that the metric is counted on, with labels.
    """

    shared: Mapping[str, object]
    learning: Mapping[str, object]
    judging: Mapping[str, object]

    def calibration(self, assets: Path, samples: int) -> Entry:
        return self._entry(assets, {**self.learning, "samples": samples})

    def glimpse(self, assets: Path, scratch: Path) -> Entry:
        return self._entry(assets, {**self.judging, "samples": GLIMPSE})

    def scores(self, assets: Path, sessions: Sequence[Session]) -> list[float]:
        from compressor.evaluate import METRICS

        metrics = [METRICS["top1"]() for _ in sessions]
        for batch in self._open(assets, self._entry(assets, self.judging)).batches():
            for metric, session in zip(metrics, sessions, strict=True):
                metric.update(session.run(batch.feeds), batch.labels, batch.samples)
        return [metric.result() for metric in metrics]

    def sample(self, assets: Path) -> Feeds:
        return self._open(assets, self._entry(assets, {**self.judging, "samples": 1})).first().feeds

    def _entry(self, assets: Path, fields: Mapping[str, object]) -> Entry:
        merged = deepcopy({**self.shared, **fields})
        return {k: str(assets / str(v)) if k in ("path", "list") else v for k, v in merged.items()}


@dataclass(frozen=True)
class SentenceSimilarity(Task):
    """Spearman's rank correlation of cosine similarities with people's scores; needs no calibration.

    Attributes:
        tokenizer: relative to the folder of assets.
        pairs: lines `sentence,sentence,score`, relative to the folder of assets.
    """

    tokenizer: str
    pairs: str

    def calibration(self, assets: Path, samples: int) -> Entry | None:
        return None

    def glimpse(self, assets: Path, scratch: Path) -> Entry:
        import numpy as np

        from benchmarks.sentences import padded

        file = scratch / "sentences.npz"
        np.savez(file, allow_pickle=False, **padded(self._tokens(assets)[:GLIMPSE]))
        return {"source": "arrays", "path": str(file)}

    def scores(self, assets: Path, sessions: Sequence[Session]) -> list[float]:
        from benchmarks.sentences import embeddings, read_pairs, similarities, spearman

        _, wanted = read_pairs(assets / self.pairs)
        tokens = self._tokens(assets)
        return [spearman(similarities(embeddings(session, tokens)), wanted) for session in sessions]

    def sample(self, assets: Path) -> Feeds:
        from benchmarks.sentences import padded

        tokens = sorted(self._tokens(assets), key=len)
        return padded([tokens[len(tokens) // 2]])

    def _tokens(self, assets: Path) -> list[list[int]]:
        from benchmarks.sentences import read_pairs, tokenize

        return tokenize(assets / self.tokenizer, read_pairs(assets / self.pairs)[0])


def _cifar(name: str) -> Classification:
    arrays = "data/cifar10.npz"
    return Classification(
        name,
        f"models/{name}_cifar10.onnx",
        "static",
        "top-1",
        (arrays,),
        shared={"source": "arrays", "path": arrays, "scale": 1 / 255, "layout": "nhwc_to_nchw", **_IMAGENET},
        learning={"inputs": {"input": "train_images"}},
        judging={"inputs": {"input": "test_images"}, "labels": "test_labels"},
    )


_MOBILENET = Classification(
    "mobilenetv2",
    "models/mobilenetv2_imagenet.onnx",
    "static",
    "top-1",
    ("data/imagenet1000", "data/imagenet1000_odd.csv", "data/imagenet1000_even.csv"),
    shared={"source": "images", "path": "data/imagenet1000", "resize": 256, "crop": 224, **_IMAGENET},
    learning={"list": "data/imagenet1000_odd.csv"},
    judging={"list": "data/imagenet1000_even.csv", "labels": True},
)

_MINILM = SentenceSimilarity(
    "minilm",
    "models/minilm/minilm.onnx",
    "dynamic",
    "Spearman",
    ("models/minilm/tokenizer.json", "data/stsb/stsb-en-test.csv"),
    tokenizer="models/minilm/tokenizer.json",
    pairs="data/stsb/stsb-en-test.csv",
)

TASKS: dict[str, Task] = {task.name: task for task in (_MOBILENET, _cifar("resnet20"), _cifar("resnet56"), _MINILM)}
