"""The loop: step after step towards the teacher, judged on samples it does not learn from, resumable.

Nothing is kept in memory that a checkpoint does not have: the order of the samples and every random choice
follow from the seed and the number of the step, so that a run that was cut off goes on as if it had not been.
"""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compressor.data import Batch
from compressor.errors import PassError
from compressor.progress import Progress
from compressor.runtime.ort import Array, Feeds
from compressor.training.augment import augmented
from compressor.training.objective import Example, Objective
from compressor.training.pool import Pool, Rows
from compressor.training.settings import TrainingSettings
from compressor.training.student import Student
from compressor.training.teacher import Remembered, Teacher, tensors
from compressor.training.world import World

_LOOKS = 20
"""Times that the held-out samples are looked at in the course of a training, about."""

_CHECKPOINT_SECONDS = 20.0
_DEFAULT_EPOCHS = 10.0
_RATES = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
_TRIAL_STEPS = 24
_MASKS = ("attention_mask", "input_mask")
_SGD_FACTOR = 10.0
"""Plain gradients want larger rates than those that Adam has scaled."""


@dataclass(slots=True)
class History:
    """What happened so far.

    Attributes:
        step: steps done.
        seconds: spent on them, in all processes that worked at it one after the other.
        learning_rate: at its peak.
        before: divergence of the held-out samples at the start.
        best: least divergence seen.
        best_step: where.
        last: divergence when it was looked at last.
        worse: looks since the best.
        resumed: step at which this process took over; 0 when it began.
        stopped: why it ended early; "" when it did not.
    """

    step: int = 0
    seconds: float = 0.0
    learning_rate: float = 0.0
    before: float = math.inf
    best: float = math.inf
    best_step: int = 0
    last: float = math.inf
    worse: int = 0
    resumed: int = 0
    stopped: str = ""
    losses: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Lesson:
    """What the student is asked, what the teacher says to it, and what else is known."""

    feeds: dict[str, Tensor]
    teacher: dict[str, Tensor]
    example: Example


def _is_mask(name: str, array: Array) -> bool:
    """Whether an input says which positions of a text are real: 1 where one is, under the names exporters use."""
    called = name.lower().endswith(_MASKS)
    real = array.ndim == 2 and array.dtype.kind in "biu"
    return called and real and bool(array.any(axis=1).all())


def held_out(pool: Pool) -> int:
    """Samples that are not learned from, but judged by."""
    return min(max(len(pool) // 10, 1), 512)


class Trainer:
    """One training.

    Args:
        student: learns.
        teacher: is followed.
        objective: the distance between the two.
        pool: the samples.
        settings: of the training.
        seed: of every random choice.
        world: the processes that share the work.
        device: of the student.
    """

    def __init__(
        self,
        student: Student,
        teacher: Teacher,
        objective: Objective,
        pool: Pool,
        settings: TrainingSettings,
        seed: int,
        world: World,
        device: torch.device,
    ) -> None:
        self._student, self._teacher, self._objective = student, teacher, objective
        self._pool, self._settings, self._seed, self._world, self._device = pool, settings, seed, world, device
        self._learn, self._judge = pool.split(held_out(pool), seed)
        self._remembered = Remembered(teacher, pool, settings.cache_bytes, world.rank)
        modules = [student.network, *objective.projections()]
        self._modules = modules
        self.history = History()

    def run(self, checkpoint: Path, progress: Progress) -> History:
        """Train to the end; the student has the state that is to be kept then.

        Args:
            checkpoint: file that is written from time to time, and continued from when it is there.
            progress: told about every step.

        Raises:
            PassError: the loss was not finite before anything was learned.
        """
        optimizer = self._optimizer(self._settings.learning_rate or 1.0)
        best = self._restored(checkpoint, optimizer)
        if best is None:
            self.history.before = self.history.best = self.history.last = self.divergence()
            best = self._state()
            self.history.learning_rate = self._settings.learning_rate or self._found_rate(progress)
        steps, looks = self._length(), self._look_every()
        started, saved = time.monotonic() - self.history.seconds, time.monotonic()
        left = None if self._settings.minutes is not None else steps - self.history.step
        ahead = iter(()) if self.history.stopped else self._steps(self.history.step, steps)
        for parts in progress.track(ahead, "distill", left):
            done = self._done(steps, time.monotonic() - started)
            if done >= 1 or not self._advance(parts, optimizer, done):
                break
            self.history.seconds = time.monotonic() - started
            if self.history.step % looks == 0 or self.history.step == steps:
                best = self._look(best, progress)
                if self._settings.patience is not None and self.history.worse >= self._settings.patience:
                    self.history.stopped = f"no gain in {self.history.worse} looks at held-out samples"
                    break
            if self._world.rank == 0 and time.monotonic() - saved > _CHECKPOINT_SECONDS:
                self._save(checkpoint, optimizer, best)
                saved = time.monotonic()
        self._settle(best, progress)
        if self._world.rank == 0:
            self._save(checkpoint, optimizer, best)
        return self.history

    def divergence(self) -> float:
        """Mean over the held-out samples; see `Objective.divergence`."""
        total = count = 0.0
        with torch.no_grad():
            pieces = list(self._pool.pieces(self._judge, self._settings.batch))
            for rows in pieces[self._world.rank :: self._world.size]:
                lesson = self._lesson(rows, np.random.default_rng([self._seed, 2, *rows.places[:1]]))
                student = self._student.outputs(lesson.feeds)
                total += float(self._objective.divergence(student, lesson.teacher, lesson.example).sum())
                count += lesson.example.samples
        total, count = self._world.total((total, count))
        return total / max(count, 1)

    def doubts(self) -> Iterator[str]:
        """What the labels of the held-out samples say against the teacher."""
        right = np.zeros(3)
        for rows in self._pool.pieces(self._judge, self._settings.batch):
            batch = self._pool.batch(rows)
            if not batch.labels:
                return
            example = self._example(batch)
            with torch.no_grad():
                student = self._student.outputs(tensors(batch.feeds, self._device))
            teacher = tensors(self._remembered.outputs(rows), self._device)
            right += [*(self._objective.correct(made, example) for made in (student, teacher)), example.known()]
        if right[1] < right[0]:
            yield (
                f"distill: the teacher is right on {right[1] / right[2]:.1%} of {right[2]:.0f} held-out labels, the "
                f"student before it learns from it on {right[0] / right[2]:.1%}"
            )

    def _advance(self, parts: Sequence[Rows], optimizer: torch.optim.Optimizer, done: float) -> bool:
        """One step more; False, and nothing has changed, where its loss is not finite."""
        loss = self._step(parts, optimizer, self.history.learning_rate * self._factor(done))
        if not math.isfinite(loss):
            self.history.stopped = f"the loss was not finite at step {self.history.step}"
            return False
        self.history.step += 1
        self.history.losses = [*self.history.losses[-49:], loss]
        return True

    def _step(self, parts: Sequence[Rows], optimizer: torch.optim.Optimizer, rate: float) -> float:
        """One step of the optimizer; the mean loss of its samples, not finite when nothing was changed."""
        samples = sum(self._pool.samples(part) for part in parts)
        optimizer.zero_grad(set_to_none=True)
        self._student.learn(True)
        total = 0.0
        for part in self._pool.share(parts, self._world.rank, self._world.size):
            loss = self._loss(part, np.random.default_rng([self._seed, 1, self.history.step, part.places[0]]))
            (loss / samples).backward()
            total += float(loss.detach())
        self._student.learn(False)
        free = self._free()
        self._world.add_gradients(free)
        norm = torch.nn.utils.clip_grad_norm_(free, self._settings.clip)
        total = self._world.total((total,))[0] / samples
        if not math.isfinite(total) or not bool(torch.isfinite(norm)):
            return math.nan
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get("factor", 1.0)
        optimizer.step()
        return total

    def _loss(self, rows: Rows, rng: np.random.Generator) -> Tensor:
        """Summed over some samples, with gradients."""
        lesson = self._lesson(rows, rng)
        return self._objective.loss(self._student.outputs(lesson.feeds), lesson.teacher, lesson.example).sum()

    def _lesson(self, rows: Rows, rng: np.random.Generator) -> _Lesson:
        """Samples, varied if they are to be, and what the teacher says to them."""
        batch = self._pool.batch(rows)
        example = self._example(batch)
        if not self._settings.augment or not self._pool.varies(rows.bucket):
            return self._posed(batch.feeds, self._remembered.outputs(rows), example)
        varied, mix = augmented(batch.feeds, self._settings.augment, rng)
        blended = replace(example, share=mix.share, partners=torch.from_numpy(mix.partners))
        return self._posed(varied, self._teacher.outputs(varied), blended)

    def _posed(self, feeds: Feeds, teacher: Feeds, example: Example) -> _Lesson:
        said = tensors(teacher, self._device)
        real = {name: t.float() if t.is_floating_point() else t for name, t in said.items()}
        return _Lesson(tensors(feeds, self._device), real, example)

    def _example(self, batch: Batch) -> Example:
        masks = {name: array for name, array in batch.feeds.items() if _is_mask(name, array)}
        return Example(batch.samples, tensors(batch.labels, self._device), tensors(masks, self._device))

    def _free(self) -> list[Tensor]:
        return [p for module in self._modules for p in module.parameters() if p.requires_grad]

    def _optimizer(self, rate: float) -> torch.optim.Optimizer:
        groups: list[dict[str, Any]] = [g for g in self._student.groups(self._settings.weight_decay) if g["params"]]
        extra = [p for module in self._objective.projections() for p in module.parameters()]
        groups += [{"params": extra, "weight_decay": 0.0}] if extra else []
        if not groups:
            raise PassError("nothing of the model learns: targets, ignore and only leave no array")
        if self._settings.optimizer == "sgd":
            return torch.optim.SGD(groups, rate, momentum=0.9, nesterov=True)
        return torch.optim.AdamW(groups, rate)

    def _steps(self, first: int, steps: int) -> Iterator[list[Rows]]:
        """The parts of every step from `first` on; epoch after epoch without an end of its own."""
        number, epoch = 0, 0
        while number < steps:
            for parts in self._pool.steps(self._learn, self._settings.batch, self._seed, epoch):
                if number >= first:
                    yield parts
                number += 1
                if number >= steps:
                    return
            epoch += 1

    def _epoch_steps(self) -> int:
        return max(len(self._pool.steps(self._learn, self._settings.batch, self._seed, 0)), 1)

    def _length(self) -> int:
        """Steps in all; with a limit of time, more than there is time for."""
        if self._settings.steps is not None:
            return self._settings.steps
        if self._settings.minutes is not None:
            return 1 << 31
        return max(math.ceil((self._settings.epochs or _DEFAULT_EPOCHS) * self._epoch_steps()), 1)

    def _look_every(self) -> int:
        return max(min(self._length() // _LOOKS, self._epoch_steps()), 1)

    def _done(self, steps: int, seconds: float) -> float:
        """Share of the training that is over, the same in all processes."""
        if self._settings.minutes is None:
            return self.history.step / steps
        return self._world.agreed(seconds / (60 * self._settings.minutes))

    def _factor(self, done: float) -> float:
        """The learning rate as a share of its peak."""
        warmup = self._settings.warmup
        if done < warmup:
            return min(max(done, 1e-3) / warmup, 1)
        left = 1 - (done - warmup) / (1 - warmup)
        match self._settings.schedule:
            case "cosine":
                return 0.5 * (1 - math.cos(math.pi * left))
            case "linear":
                return left
        return 1.0

    def _look(self, best: dict[str, Tensor], progress: Progress) -> dict[str, Tensor]:
        """Judge the state; the better one of it and the best so far."""
        history = self.history
        history.last = self.divergence()
        mean = sum(history.losses) / max(len(history.losses), 1)
        progress.say(f"distill: loss {mean:.4g}, held out {history.last:.4g} (was {history.before:.4g})")
        if history.last < history.best:
            history.best, history.best_step, history.worse = history.last, history.step, 0
            return self._state()
        history.worse += 1
        return best

    def _settle(self, best: dict[str, Tensor], progress: Progress) -> None:
        """Leave the student in the state that is kept."""
        history = self.history
        if history.stopped.startswith("the loss"):
            if not history.best_step:
                rate = history.learning_rate * 0.1
                raise PassError(f"{history.stopped}; give a smaller learning_rate, such as {rate:.1g}")
            self._load(best)
        elif self._settings.keep == "best":
            best = self._look(best, progress)
            self._load(best)
        else:
            history.best, history.best_step = self.divergence(), history.step

    def _found_rate(self, progress: Progress) -> float:
        """The rate that gains most in a few steps on the held-out samples, and is not followed by ruin."""
        start, found = self._state(), {}
        factor = _SGD_FACTOR if self._settings.optimizer == "sgd" else 1.0
        for rate in progress.track(_RATES, "learning rate", len(_RATES)):
            self._load(start)
            optimizer = self._optimizer(rate * factor)
            for number, parts in enumerate(self._steps(0, _TRIAL_STEPS)):
                if not math.isfinite(self._step(parts, optimizer, rate * factor * min((number + 1) / 8, 1))):
                    break
            found[rate * factor] = self.divergence()
        self._load(start)
        finite = {rate: value for rate, value in found.items() if math.isfinite(value)}
        if not finite:
            raise PassError("no learning rate that was tried left the loss finite; give learning_rate")
        return min(finite, key=lambda rate: finite[rate])

    def _state(self) -> dict[str, Tensor]:
        """A copy of everything that is learned."""
        held = [n for n, p in self._student.network.named_parameters() if not p.requires_grad]
        found = {f"{i} {n}": t for i, m in enumerate(self._modules) for n, t in m.state_dict().items()}
        return {name: t.detach().clone() for name, t in found.items() if name.removeprefix("0 ") not in held}

    def _load(self, state: dict[str, Tensor]) -> None:
        for number, module in enumerate(self._modules):
            prefix = f"{number} "
            own = {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}
            module.load_state_dict(own, strict=False)

    def _save(self, file: Path, optimizer: torch.optim.Optimizer, best: dict[str, Tensor]) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(".unfinished")
        stored = {
            "history": asdict(self.history),
            "state": self._state(),
            "best": best,
            "optimizer": optimizer.state_dict(),
        }
        torch.save(stored, unfinished)
        unfinished.replace(file)

    def _restored(self, file: Path, optimizer: torch.optim.Optimizer) -> dict[str, Tensor] | None:
        """Go on where a checkpoint was written; its best state, or None when there is none."""
        if not file.is_file():
            return None
        stored = torch.load(file, map_location=self._device, weights_only=True)
        self.history = History(**stored["history"])
        self.history.resumed = self.history.step
        self._load(stored["state"])
        optimizer.load_state_dict(stored["optimizer"])
        best: dict[str, Tensor] = stored["best"]
        return best
