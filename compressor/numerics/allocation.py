"""How many bits each weight gets: the least loss within a budget.

With one candidate chosen for every weight, loss and size add up over the weights, so that the choice

    min Σ loss   subject to   Σ size ≤ budget

falls apart, for a price λ of a byte, into one choice per weight: min loss + λ · size (Everett 1963,
"Generalized Lagrange multiplier method"). The price is found by bisection; it is the slope at which all
weights trade bytes for loss (Shoham & Gersho 1988, "Efficient bit allocation for an arbitrary set of
quantizers").
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]

_ROUNDS = 60


@dataclass(frozen=True, slots=True)
class Candidates:
    """What one weight may become.

    Attributes:
        losses: of each candidate, >= 0.
        sizes: of each candidate, bytes.
    """

    losses: Doubles
    sizes: Doubles

    def cheapest(self, price: float) -> int:
        """The candidate with the least loss + price · size, the smaller one on a tie."""
        costs = self.losses + price * self.sizes
        tied = np.flatnonzero(costs <= costs.min() * (1 + 1e-12))
        return int(tied[np.argmin(self.sizes[tied])])


def at_price(weights: Sequence[Candidates], price: float) -> list[int]:
    """The best candidate of every weight when a byte costs `price`."""
    return [weight.cheapest(price) for weight in weights]


def _size_of(weights: Sequence[Candidates], choice: Sequence[int]) -> float:
    """Bytes of all weights."""
    return float(sum(weight.sizes[index] for weight, index in zip(weights, choice, strict=True)))


def within(weights: Sequence[Candidates], budget: float) -> list[int] | None:
    """The choice of least loss that fits the budget, but for what is left over below one step of a weight.

    None when even the smallest candidates do not fit.
    """
    low, high = 0.0, _highest_price(weights)
    smallest = [int(np.argmin(weight.sizes)) for weight in weights]
    if _size_of(weights, smallest) > budget:
        return None
    if _size_of(weights, at_price(weights, low)) <= budget:
        return at_price(weights, low)
    chosen = smallest
    for _ in range(_ROUNDS):
        price = (low + high) / 2
        choice = at_price(weights, price)
        if _size_of(weights, choice) <= budget:
            chosen, high = choice, price
        else:
            low = price
    return _filled_up(weights, chosen, budget)


def smallest_within_loss(weights: Sequence[Candidates], limit: float) -> list[int]:
    """The choice of fewest bytes whose losses add up to no more than `limit`; of least loss, where none does."""
    low, high = 0.0, _highest_price(weights)
    chosen = at_price(weights, low)
    for _ in range(_ROUNDS):
        price = (low + high) / 2
        choice = at_price(weights, price)
        if _loss_of(weights, choice) <= limit:
            chosen, low = choice, price
        else:
            high = price
    return chosen


def _loss_of(weights: Sequence[Candidates], choice: Sequence[int]) -> float:
    return float(sum(weight.losses[index] for weight, index in zip(weights, choice, strict=True)))


def _highest_price(weights: Sequence[Candidates]) -> float:
    """A price at which every weight takes its smallest candidate."""
    steepest = 0.0
    for weight in weights:
        smallest = int(np.argmin(weight.sizes))
        more = weight.sizes - weight.sizes[smallest]
        gains = np.divide(weight.losses[smallest] - weight.losses, more, out=np.zeros_like(more), where=more > 0)
        steepest = max(steepest, float(gains.max()))
    return 2 * steepest + 1e-30


def _filled_up(weights: Sequence[Candidates], choice: list[int], budget: float) -> list[int]:
    """Spend what is left over on the steps that win most per byte, as long as one fits."""
    choice = list(choice)
    while True:
        left = budget - _size_of(weights, choice)
        best, gain = None, 0.0
        for index, weight in enumerate(weights):
            more = weight.sizes - weight.sizes[choice[index]]
            won = weight.losses[choice[index]] - weight.losses
            rates = np.where((more > 0) & (more <= left) & (won > 0), won / np.where(more > 0, more, 1), 0)
            if rates.max() > gain:
                best, gain = (index, int(np.argmax(rates))), float(rates.max())
        if best is None:
            return choice
        choice[best[0]] = best[1]
