"""A model executed piece by piece: what was computed for one stage is not computed again for the next."""

import shutil
from collections.abc import Collection, Iterator
from math import ceil
from pathlib import Path
from tempfile import mkdtemp

import numpy as np

from compressor.data import Dataset
from compressor.graph.model import Model
from compressor.graph.observe import VALUE, frontier, with_tensors
from compressor.runtime.ort import Array, Session

_MOST_BYTES = 2 << 30
"""Of tensors kept on disk; a model whose tensors are larger starts further in front."""

_EVERY = 4
"""Stages between two places to start from: writing tensors down costs about as much as computing a few layers."""


class Staged:
    """Runs a model over all samples, stage by stage, from the tensors that are settled already.

    The layers behind these may change between two stages.

    Args:
        data: samples.
        folder: for what is kept; whoever made it removes it.
        threads: inside one operator.
    """

    def __init__(self, data: Dataset, folder: Path, threads: int) -> None:
        self._data, self._folder, self._threads = data, folder, threads
        self._settled: tuple[str, ...] = ()
        self._files: list[Path] = []
        self._stage = 0

    def run(self, model: Model, names: Collection[str], settled: Collection[str]) -> Iterator[dict[str, Array]]:
        """The named tensors of every batch, by name.

        Args:
            model: the same graph at every stage, with other weights behind what is settled.
            names: of tensors.
            settled: tensors that do not change any more; some later stage starts behind them, if that is cheap.
        """
        self._stage += 1
        moves = self._stage % _EVERY == 0
        kept = frontier(model, settled) if moves else ()
        wanted = tuple(dict.fromkeys((*names, *kept)))
        session: Session | None = None
        folder = Path(mkdtemp(dir=self._folder))
        files: list[Path] = []
        batches = ceil(len(self._data) / self._data.batch)
        for number, feeds in enumerate(self._feeds()):
            if session is None:
                given = {name: array.dtype for name, array in feeds.items()} if self._files else None
                file = folder / "stage.onnx"
                with_tensors(model, wanted, given).save(file)
                session = Session(file, self._threads)
            outputs = session.run(feeds)
            found = {name: outputs[VALUE + name] for name in wanted}
            if moves and len(files) == number and sum(found[name].nbytes for name in kept) * batches <= _MOST_BYTES:
                files.append(folder / str(number))
                files[-1].mkdir()
                for place, name in enumerate(kept):
                    np.save(files[-1] / f"{place}.npy", found[name])
            yield {name: found[name] for name in names}
        if session is not None:
            session.close()
        if len(files) == batches:
            self._move_to(kept, files)
        else:
            shutil.rmtree(folder)

    def _feeds(self) -> Iterator[dict[str, Array]]:
        if not self._files:
            for batch in self._data.batches():
                yield dict(batch.feeds)
        for file in self._files:
            arrays = [np.load(file / f"{place}.npy", mmap_mode="r") for place in range(len(self._settled))]
            yield dict(zip(self._settled, arrays, strict=True))

    def _move_to(self, names: tuple[str, ...], files: list[Path]) -> None:
        for file in self._files:
            shutil.rmtree(file)
        self._settled, self._files = names, files
