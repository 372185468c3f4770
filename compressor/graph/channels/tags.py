"""Which entries of which axes must go together: equivalence classes of tags, some of them products of others.

Every entry of an axis carries a tag, and two entries with one tag stay or go together. Where an axis of
n · m entries is split into two axes, entry (x, y) of it turns out to be the product of the tags of x and y:
it stays only as long as both of these do. The tags that are no products are the atoms; any set of
atoms that are not frozen may be dropped.
"""

from collections.abc import Collection, Iterable, Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]
"""Tags of the entries of an axis, in order."""

Mask = NDArray[np.bool_]


class Tags:
    """All tags of a model.

    Families are the sets of atoms that were found to compete for a place on the same axis.
    """

    def __init__(self) -> None:
        self._parent: Labels = np.empty(0, np.int64)
        self._family: Labels = np.empty(0, np.int64)
        self._parts: dict[int, tuple[int, ...]] = {}
        self._products: dict[tuple[int, ...], int] = {}
        self._frozen: dict[int, str] = {}

    @property
    def count(self) -> int:
        """How many tags there are."""
        return len(self._parent)

    def fresh(self, count: int) -> Labels:
        """Tags that nothing is tied to, of a new family."""
        first = len(self._parent)
        new = np.arange(first, first + count)
        self._parent = np.concatenate([self._parent, new])
        self._family = np.concatenate([self._family, np.full(count, first)])
        return new

    def find(self, labels: Labels) -> Labels:
        """The tags that stand for the classes of these."""
        roots = self._parent[labels]
        while not np.array_equal(above := self._parent[roots], roots):
            roots = above
        return roots

    def unify(self, a: Labels, b: Labels) -> None:
        """Tie entry by entry."""
        left, right = self.find(a), self.find(b)
        while (differ := left != right).any():
            low, high = np.minimum(left, right)[differ], np.maximum(left, right)[differ]
            np.minimum.at(self._parent, high, low)
            self._merge_families(low, high)
            for tag in np.unique(high).tolist():
                self._hand_over(tag, int(self.find(self._parent[tag : tag + 1])[0]))
            left, right = self.find(a), self.find(b)

    def freeze(self, labels: Labels, reason: str) -> None:
        """Let none of these ever go; the first reason counts."""
        for tag in np.unique(self.find(labels)).tolist():
            self._frozen.setdefault(tag, reason or "fixed")

    def collapse(self, labels: Labels) -> None:
        """Tie all of these to one another."""
        if len(labels):
            self.unify(labels, np.broadcast_to(labels[:1], labels.shape))

    def regroup(
        self, sizes: Sequence[int], labels: Sequence[Labels | None], into: Sequence[int]
    ) -> list[Labels | None]:
        """Labels of the axes that a reshape makes of axes.

        Args:
            sizes: of the axes before, the last one fastest.
            labels: of each of them; None where nothing can be dropped.
            into: sizes of the axes after; the same product.
        """
        columns: list[list[Labels]] = [[] for _ in into]
        for axis, found in enumerate(labels):
            if found is not None:
                aligned = found.reshape([-1 if a == axis else 1 for a in range(len(sizes))])
                spread = np.broadcast_to(aligned, sizes).reshape(tuple(into))
                for place, part in self._apart(spread):
                    columns[place].append(part)
        return [self._product(found) if found else None for found in columns]

    def settle(self) -> None:
        """Let what is frozen freeze its parts: to be called when everything is tied."""
        for tag in list(self._frozen):
            for atom in self._atoms_of(tag):
                self._frozen.setdefault(atom, self._frozen[tag])

    def atoms(self, label: int) -> tuple[int, ...]:
        """What the entry of this tag needs to stay, each once."""
        root = int(self.find(np.array([label]))[0])
        return tuple(dict.fromkeys(self._atoms_of(root)))

    def why_frozen(self, atom: int) -> str | None:
        """The reason why an atom must stay; None when it may go."""
        return self._frozen.get(atom)

    def family(self, atom: int) -> int:
        """What competes with this atom."""
        return int(self._root_of_family(np.array([atom]))[0])

    def alive(self, labels: Labels, dropped: Collection[int]) -> Mask:
        """Which entries stay when these atoms go."""
        gone = np.zeros(len(self._parent), np.bool_)
        gone[list(dropped)] = True
        return np.asarray(~gone[self.table(labels)].any(axis=-1), np.bool_)

    def table(self, labels: Labels) -> Labels:
        """The atoms that each entry needs to stay, (entries, most atoms of one), some twice."""
        roots, places = np.unique(self.find(labels), return_inverse=True)
        needs = [tuple(self._atoms_of(root)) for root in roots.tolist()]
        most = max(map(len, needs), default=1)
        rows = np.array([(*atoms, *atoms[:1] * (most - len(atoms))) for atoms in needs], np.int64)
        return rows.reshape(-1, most)[places.reshape(labels.shape)]

    def _merge_families(self, low: Labels, high: Labels) -> None:
        pairs = np.unique(np.stack([self._root_of_family(low), self._root_of_family(high)]), axis=1)
        for a, b in pairs.T.tolist():
            roots = self._root_of_family(np.array([a, b]))
            self._family[roots.max()] = roots.min()

    def _root_of_family(self, tags: Labels) -> Labels:
        roots = self._family[tags]
        while not np.array_equal(above := self._family[roots], roots):
            roots = above
        return roots

    def _hand_over(self, tag: int, root: int) -> None:
        """What was known of a tag is known of the one that stands for it now."""
        if tag == root:
            return
        reason, parts = self._frozen.pop(tag, None), self._parts.pop(tag, None)
        if reason is not None:
            self._frozen.setdefault(root, reason)
        if parts is not None:
            self._define(root, parts)
        if self._needs(root, root):
            self._dissolve(root)

    def _define(self, tag: int, parts: tuple[int, ...]) -> None:
        """Let a tag be the product of others; if it is one already, of the same."""
        known = self._parts.get(tag)
        if known is None:
            self._parts[tag] = parts
        elif len(known) == len(parts):
            self.unify(np.array(known), np.array(parts))
        else:
            self._parts[tag] = (*known, *parts)
            self._dissolve(tag)

    def _needs(self, tag: int, other: int) -> bool:
        """Whether `other` is among what the parts of a product come down to."""
        roots = [self._root(part) for part in self._parts.get(tag, ())]
        return any(root == other or self._needs(root, other) for root in roots)

    def _dissolve(self, tag: int) -> None:
        """Let a product be no more than all of its parts tied together."""
        self.collapse(np.array([tag, *self._parts.pop(tag)]))

    def _root(self, tag: int) -> int:
        return int(self.find(np.array([tag]))[0])

    def _atoms_of(self, root: int) -> Iterable[int]:
        parts = self._parts.get(root)
        if parts is None:
            return (root,)
        return tuple(atom for part in parts for atom in self._atoms_of(self._root(part)))

    def _product(self, columns: Sequence[Labels]) -> Labels:
        """Tags that stay as long as those of all columns do."""
        if len(columns) == 1:
            return columns[0]
        rows = np.stack([self.find(column) for column in columns], axis=1)
        distinct, places = np.unique(rows, axis=0, return_inverse=True)
        wanted = [tuple(row) for row in distinct.tolist()]
        missing = [row for row in wanted if row not in self._products]
        for row, tag in zip(missing, self.fresh(len(missing)).tolist(), strict=True):
            self._products[row] = tag
            self._parts[tag] = row
        return np.array([self._products[row] for row in wanted])[places.reshape(-1)]

    def _apart(self, spread: Labels) -> list[tuple[int, Labels]]:
        """Tags spread over several axes as tags along each of them: (axis, labels) of those that matter.

        Args:
            spread: tags of every combination of entries.
        """
        roots = self.find(spread)
        along = [axis for axis in range(roots.ndim) if (roots != roots.take([0], axis)).any()]
        if not along:
            return []
        flat = roots[tuple(slice(None) if axis in along else 0 for axis in range(roots.ndim))]
        if len(along) == 1:
            return [(along[0], flat)]
        picked = [np.unique(_slices(flat, a), axis=0, return_index=True, return_inverse=True) for a in range(flat.ndim)]
        small = flat[np.ix_(*(index for _, index, _ in picked))]
        found = self._separated(small)
        return [(along[a], labels[picked[a][2].reshape(-1)]) for a, labels in found]

    def _separated(self, small: Labels) -> list[tuple[int, Labels]]:
        """The same where no two slices along an axis are alike: products part by part, atoms by becoming products.

        Anything else is tied along all axes but the longest.
        """
        parts = [self._parts.get(tag) for tag in small.reshape(-1).tolist()]
        known = [part for part in parts if part is not None]
        if len(known) == len(parts) and len({len(part) for part in known}) == 1:
            columns = np.array(known).T
            return [found for column in columns for found in self._apart(column.reshape(small.shape))]
        if not known and len(np.unique(small)) == small.size:
            return list(enumerate(self._factors(small)))
        longest = int(np.argmax(small.shape))
        rows = _slices(np.moveaxis(small, longest, 0), 0).T
        for row in rows[1:]:
            self.unify(rows[0], row)
        return [(longest, np.ascontiguousarray(rows[0]))]

    def _factors(self, small: Labels) -> list[Labels]:
        """New tags along each axis, of which these atoms, all different, become the products."""
        factors = [self.fresh(n) for n in small.shape]
        grid = np.stack(np.meshgrid(*factors, indexing="ij"), axis=-1).reshape(prod(small.shape), -1)
        for tag, parts in zip(small.reshape(-1).tolist(), grid.tolist(), strict=True):
            self._parts[tag] = tuple(parts)
        return factors


def _slices(array: Labels, axis: int) -> Labels:
    """(entries of an axis, all others)."""
    return np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)
