"""Laws of what stays with what."""

import numpy as np
import pytest

from compressor.graph.channels.tags import Tags


def _alive(tags: Tags, labels: np.ndarray, gone: set[int]) -> list[bool]:  # type: ignore[type-arg]
    return list(tags.alive(labels, gone).tolist())


def test_what_is_tied_goes_together() -> None:
    tags = Tags()
    a, b, c = (tags.fresh(3) for _ in range(3))
    tags.unify(a, b)
    tags.unify(c[::-1], b)
    gone = set(tags.atoms(int(a[0])))
    assert [_alive(tags, labels, gone) for labels in (a, b, c)] == [[False, True, True]] * 2 + [[True, True, False]]


def test_an_axis_that_is_split_becomes_the_product_of_its_parts() -> None:
    tags = Tags()
    whole = tags.fresh(6)
    rows, columns = tags.regroup([6], [whole], [2, 3])
    assert rows is not None
    assert columns is not None
    assert _alive(tags, whole, set(tags.atoms(int(rows[1])))) == [True] * 3 + [False] * 3
    assert _alive(tags, whole, set(tags.atoms(int(columns[2])))) == [True, True, False] * 2


def test_axes_that_are_joined_come_apart_as_they_were() -> None:
    tags = Tags()
    a, b = tags.fresh(2), tags.fresh(3)
    (joined,) = tags.regroup([2, 3], [a, b], [6])
    back = tags.regroup([6], [joined], [2, 3])
    assert [np.array_equal(tags.find(x), tags.find(y)) for x, y in zip((a, b), back, strict=True) if y is not None] == [
        True,
        True,
    ]


def test_joined_in_another_order_it_is_still_the_same_parts() -> None:
    tags = Tags()
    whole = tags.fresh(6)
    a, b = tags.regroup([6], [whole], [2, 3])
    (dealt,) = tags.regroup([3, 2], [b, a], [6])
    assert a is not None
    assert dealt is not None
    gone = set(tags.atoms(int(a[0])))
    assert _alive(tags, whole, gone) == [False] * 3 + [True] * 3
    assert _alive(tags, dealt, gone) == [False, True] * 3


def test_positions_beside_channels_repeat_them() -> None:
    tags = Tags()
    channels = tags.fresh(2)
    (flat,) = tags.regroup([2, 4], [channels, None], [8])
    assert flat is not None
    assert tags.find(flat).tolist() == channels.repeat(4).tolist()
    back = tags.regroup([8], [flat], [2, 2, 2])
    assert back[0] is not None
    assert tags.find(back[0]).tolist() == channels.tolist()
    assert back[1] is back[2] is None


def test_what_was_tied_before_it_was_split_is_split_too() -> None:
    tags = Tags()
    first, second = tags.fresh(6), tags.fresh(6)
    tags.regroup([6], [first], [2, 3])
    rows, _ = tags.regroup([6], [second], [2, 3])
    tags.unify(first, second)
    assert rows is not None
    assert _alive(tags, first, set(tags.atoms(int(rows[0])))) == [False] * 3 + [True] * 3


def test_a_frozen_product_freezes_its_parts() -> None:
    tags = Tags()
    whole = tags.fresh(6)
    rows, columns = tags.regroup([6], [whole], [2, 3])
    tags.freeze(whole[:1], "kept")
    tags.settle()
    assert rows is not None
    assert columns is not None
    assert [tags.why_frozen(int(t)) for t in (rows[0], rows[1], columns[0], columns[1])] == ["kept", None, "kept", None]


def test_what_does_not_come_apart_is_tied_along_the_shorter_axis() -> None:
    tags = Tags()
    labels = tags.fresh(4)
    crossed = labels[[0, 1, 2, 1, 0, 3]]
    short, long = tags.regroup([6], [crossed], [2, 3])
    assert short is None
    assert long is not None
    for gone in ({0}, {1}, {2}, {0, 1}):
        atoms = {atom for label in gone for atom in tags.atoms(int(labels[label]))}
        assert _alive(tags, crossed, atoms) == _alive(tags, long, atoms) * 2
        assert not all(_alive(tags, long, atoms))


def test_halves_of_which_one_is_a_product_are_tied_entry_by_entry() -> None:
    tags = Tags()
    dealt, plain = tags.fresh(6), tags.fresh(6)
    tags.regroup([6], [dealt], [3, 2])
    _, both = tags.regroup([12], [np.concatenate([dealt, plain])], [2, 6])
    assert both is not None
    atom = tags.atoms(int(dealt[0]))[0]
    assert _alive(tags, dealt, {atom}) == _alive(tags, plain, {atom}) == _alive(tags, both, {atom})
    assert _alive(tags, dealt, {atom}).count(False) == 2


def test_ties_that_contradict_themselves_only_tie_more() -> None:
    tags = Tags()
    whole = tags.fresh(4)
    rows, _ = tags.regroup([4], [whole], [2, 2])
    assert rows is not None
    tags.unify(whole[:2], rows)
    for atom in tags.atoms(int(whole[0])):
        assert not tags.alive(whole[:1], {atom})[0]


@pytest.mark.parametrize("seed", range(5))
def test_families_are_what_was_tied_directly_or_not(seed: int) -> None:
    rng, tags = np.random.default_rng(seed), Tags()
    axes = [tags.fresh(4) for _ in range(6)]
    pairs = [rng.choice(6, 2, replace=False) for _ in range(3)]
    reached = list(range(6))
    for a, b in pairs:
        tags.unify(axes[a], axes[b])
        low, high = sorted((reached[a], reached[b]))
        reached = [low if r == high else r for r in reached]
    for a in range(6):
        for b in range(6):
            same = tags.family(tags.atoms(int(axes[a][0]))[0]) == tags.family(tags.atoms(int(axes[b][3]))[0])
            assert same == (reached[a] == reached[b])
