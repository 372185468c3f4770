"""The training loop, its losses, and the metrics that are reported for the exported models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from datasets import Array, Dataset, Labels
from simulate import COMPONENTS

LABEL_SMOOTHING = 0.05

TensorLabels = dict[str, Tensor]
Loss = Callable[[Any, TensorLabels], Tensor]


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train; the learning rate follows one warm-up and cosine decay."""

    epochs: int
    batch_size: int
    peak_learning_rate: float
    weight_decay: float = 0.01


def class_loss(logits: Tensor, labels: TensorLabels) -> Tensor:
    """Cross-entropy of logits [batch, classes] against the class ids `labels`, with label smoothing."""
    return nn.functional.cross_entropy(logits, labels["labels"], label_smoothing=LABEL_SMOOTHING)


def health_loss(outputs: tuple[Tensor, ...], labels: TensorLabels) -> Tensor:
    """Mean squared error of the component healths; the score is their minimum and follows from them."""
    pairs = zip(COMPONENTS, outputs[:-1], strict=True)
    return torch.stack([nn.functional.mse_loss(value, labels[name]) for name, value in pairs]).mean()


def fit(network: nn.Module, data: Dataset, loss: Loss, schedule: Schedule) -> None:
    """Train `network` in place on the training split and leave it in evaluation mode.

    Weight initialisation, shuffling and dropout all draw from torch's global generator, which the caller
    seeds; the number of epochs is fixed, so the held-out split plays no part in training.
    """
    inputs = torch.from_numpy(data.preprocessing.apply(data.train_inputs))
    labels = {name: torch.from_numpy(values) for name, values in data.train_labels.items()}
    optimiser = torch.optim.AdamW(
        network.parameters(),
        schedule.peak_learning_rate,
        weight_decay=schedule.weight_decay,
    )
    steps = schedule.epochs * -(-len(inputs) // schedule.batch_size)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, schedule.peak_learning_rate, total_steps=steps)
    network.train()
    for _ in range(schedule.epochs):
        for rows in torch.split(torch.randperm(len(inputs)), schedule.batch_size):
            optimiser.zero_grad()
            batch_labels = {name: values[rows] for name, values in labels.items()}
            loss(network(inputs[rows]), batch_labels).backward()  # type: ignore[no-untyped-call, unused-ignore]
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            rate.step()
    network.eval()


def class_metrics(outputs: Labels, labels: Labels) -> dict[str, float]:
    """Return the share of samples whose largest logit is the labelled class."""
    predicted = outputs["logits"].argmax(axis=1)
    return {"accuracy": float((predicted == labels["labels"]).mean())}


def health_metrics(outputs: Labels, labels: Labels) -> dict[str, float]:
    """Return R2 of every output and the mean absolute error of the condition score."""
    metrics = {f"R2 {name}": r_squared(outputs[name], labels[name]) for name in labels}
    error = np.abs(outputs["condition_score"] - labels["condition_score"])
    return metrics | {"MAE condition_score": float(error.mean())}


def r_squared(predicted: Array, actual: Array) -> float:
    """Return 1 - residual sum of squares / total sum of squares."""
    residual = np.square(predicted - actual).sum()
    return float(1.0 - residual / np.square(actual - actual.mean()).sum())
