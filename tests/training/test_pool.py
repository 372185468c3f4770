"""The pool: every sample once per pass, in an order that the seed alone decides."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from compressor.data import Batch, Dataset
from compressor.training.pool import Pool, Rows


class Given(Dataset):
    """Batches as they are."""

    def __init__(self, batches: Sequence[Batch]) -> None:
        super().__init__("given", (), 4)
        self._batches = batches

    def __len__(self) -> int:
        return sum(batch.samples for batch in self._batches)

    def batches(self) -> Iterator[Batch]:
        """All of them."""
        return iter(self._batches)

    def split(self, first: int) -> tuple[Dataset, Dataset]:
        """Not wanted."""
        raise NotImplementedError


def _ragged(folder: Path) -> Pool:
    """Ten samples of length 3 and seven of length 5, numbered by their entries and labels."""
    sizes = [(0, 4, 3), (4, 4, 3), (8, 2, 3), (10, 4, 5), (14, 3, 5)]
    numbers = [np.arange(first, first + count) for first, count, _ in sizes]
    batches = [
        Batch({"x": np.repeat(n[:, None], length, 1)}, {"": n}, len(n))
        for n, (_, _, length) in zip(numbers, sizes, strict=True)
    ]
    return Pool.fill(batches, "given", folder / "pool")


def _seen(pool: Pool, steps: Sequence[Sequence[Rows]]) -> list[int]:
    return [int(number) for parts in steps for rows in parts for number in pool.batch(rows).feeds["x"][:, 0]]


def test_every_sample_is_drawn_once_and_keeps_its_label(tmp_path: Path) -> None:
    pool = _ragged(tmp_path)
    learn, judge = pool.split(3, 0)
    steps = pool.steps(learn, 4, 0, 0)
    held_out = _seen(pool, [list(pool.pieces(judge, 4))])
    assert sorted([*_seen(pool, steps), *held_out]) == list(range(17))
    for parts in steps:
        for rows in parts:
            batch = pool.batch(rows)
            assert np.array_equal(batch.feeds["x"][:, 0], batch.labels[""])


def test_the_order_follows_from_the_seed_and_the_pass(tmp_path: Path) -> None:
    pool = _ragged(tmp_path)
    learn, _ = pool.split(1, 0)
    again = Pool(pool.folder)
    assert _seen(pool, pool.steps(learn, 4, 7, 2)) == _seen(again, again.steps(learn, 4, 7, 2))
    assert _seen(pool, pool.steps(learn, 4, 7, 2)) != _seen(pool, pool.steps(learn, 4, 7, 3))


def test_processes_share_a_step_without_overlap(tmp_path: Path) -> None:
    pool = _ragged(tmp_path)
    learn, _ = pool.split(1, 0)
    for parts in pool.steps(learn, 5, 0, 0):
        shares = [pool.share(parts, rank, 3) for rank in range(3)]
        assert sorted(_seen(pool, shares)) == sorted(_seen(pool, [parts]))


def test_batches_that_do_not_count_samples_first_stay_whole(tmp_path: Path) -> None:
    state = np.zeros((2, 4, 3), np.float32)
    batches = [Batch({"x": np.full((4, 2), i), "state": state + i}, {}, 4) for i in range(3)]
    pool = Pool.fill(batches, "given", tmp_path / "pool")
    learn, _ = pool.split(1, 0)
    for parts in pool.steps(learn, 8, 0, 0):
        assert [pool.batch(rows).feeds["state"].shape for rows in parts] == [(2, 4, 3)] * len(parts)
