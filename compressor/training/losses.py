"""How far a student's outputs are from a teacher's, with gradients.

Every loss is one number per sample, so that samples can be weighed, left out where a text is filled up, and
shared out over processes; only `relational` looks at the samples of a batch together.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from compressor.training.settings import LossName

_TINY = 1e-12


def kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T² · KL(softmax(t / T) ‖ softmax(s / T)) over the last axis, nats (Hinton et al. 2015); shape without it."""
    wanted = functional.log_softmax(teacher / temperature, -1)
    found = functional.log_softmax(student / temperature, -1)
    return functional.kl_div(found, wanted, reduction="none", log_target=True).sum(-1) * temperature**2


def mse(student: Tensor, teacher: Tensor, power: float) -> Tensor:
    """Mean squared error of every row, (rows, values) -> (rows,), beside the power of the teacher's entries."""
    return (student - teacher).square().mean(-1) / max(power, _TINY)


def cosine(student: Tensor, teacher: Tensor) -> Tensor:
    """1 - cosine of every row, (rows, values) -> (rows,)."""
    return 1 - functional.cosine_similarity(student, teacher, dim=-1, eps=_TINY)


def cross_entropy(student: Tensor, labels: Tensor) -> Tensor:
    """Of class scores, (rows, classes), and class numbers, (rows,); 0 where the number is negative."""
    known = labels >= 0
    return functional.cross_entropy(student, labels.clamp(min=0), reduction="none") * known


def relational(student: Tensor, teacher: Tensor) -> Tensor:
    """Distances and angles between rows, (rows, values) -> (rows,), equal to one number each.

    Park et al. 2019, "Relational Knowledge Distillation": the Huber loss of all distances, each beside their mean,
    plus twice that of the cosines of all angles. 0 for a single row.
    """
    rows = len(student)
    if rows < 2:
        return (student - student).sum(-1)
    distance = functional.smooth_l1_loss(_distances(student), _distances(teacher))
    angle = functional.smooth_l1_loss(_angles(student), _angles(teacher))
    return (distance + 2 * angle).expand(rows)


def _distances(rows: Tensor) -> Tensor:
    found = (rows[:, None] - rows[None]).square().sum(-1).clamp(min=_TINY).sqrt()
    apart = ~torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    return found / found[apart].mean()


def _angles(rows: Tensor) -> Tensor:
    sides = functional.normalize(rows[:, None] - rows[None], dim=-1)
    return torch.einsum("ijd,ikd->ijk", sides, sides)


RowLoss = Callable[[Tensor, Tensor], Tensor]
"""(student, teacher), both rows of values -> (rows,)."""


def row_loss(name: LossName, temperature: float, power: float) -> RowLoss:
    """The distance of that name.

    Args:
        name: of the loss.
        temperature: of kl.
        power: mean square of the teacher's entries, for mse.
    """
    match name:
        case "kl":
            return lambda student, teacher: kl(student, teacher, temperature)
        case "mse":
            return lambda student, teacher: mse(student, teacher, power)
        case "cosine":
            return cosine
    return relational
