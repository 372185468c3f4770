"""The equations of Einsum."""

from collections import Counter
from dataclasses import dataclass

import onnx_ir as ir


@dataclass(frozen=True, slots=True)
class Equation:
    """One letter per axis; axes with the same letter are multiplied entry by entry.

    Attributes:
        terms: the letters of every factor.
        result: those that are left; over the others is summed.
    """

    terms: tuple[str, ...]
    result: str

    @property
    def repeats(self) -> bool:
        """Whether a diagonal is taken: a letter is in one factor twice, or in the result."""
        return any(len(set(term)) != len(term) for term in (*self.terms, self.result))


def equation_of(node: ir.Node) -> Equation | None:
    """What an Einsum computes; None where dots stand for any number of axes."""
    left, arrow, right = node.attributes["equation"].as_string().replace(" ", "").partition("->")
    if "." in left:
        return None
    counts = Counter(left.replace(",", ""))
    alone = "".join(sorted(letter for letter, count in counts.items() if count == 1))
    return Equation(tuple(left.split(",")), right if arrow else alone)
