"""What a recipe may say about training: shared by every pass that learns."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from compressor.data import Settings

LossName = Literal["kl", "mse", "cosine", "relational"]


class FeaturePair(Settings):
    """Two tensors inside of the models that are to become alike."""

    student: Annotated[str, Field(min_length=1)] = Field(description="name of a tensor of the model that learns")
    teacher: Annotated[str, Field(min_length=1)] = Field(description="name of the tensor of the teacher it follows")


class Augmentation(Settings):
    """How samples are varied, so that the same ones teach more: images are (samples, channels, height, width), or have
    up to four channels in the end."""

    flip: bool = Field(default=False, description="every other image mirrored left to right")
    crop: Annotated[int, Field(ge=0, le=512)] = Field(default=0, description="shifted by up to so many pixels")
    mixup: Annotated[float, Field(ge=0, le=10)] = Field(
        default=0.0,
        description="blended with another sample, by a share drawn from Beta(mixup, mixup); any float input",
    )
    noise: Annotated[float, Field(ge=0, le=10)] = Field(
        default=0.0, description="noise added, as a share of the input's standard deviation; any float input"
    )

    @property
    def of_images(self) -> bool:
        """Whether it moves pixels."""
        return self.flip or self.crop > 0

    def __bool__(self) -> bool:
        return self.of_images or self.mixup > 0 or self.noise > 0


class TrainingSettings(Settings):
    """How a model learns from a teacher's outputs."""

    loss: LossName | dict[str, LossName] | None = Field(
        default=None,
        description="distance from the teacher's outputs, for all or by output: kl, of class scores; mse, beside the "
        "power of the teacher's; cosine, of rows; relational, of distances and angles between samples. When left out, "
        "kl for class scores and mse for everything else",
    )
    temperature: Annotated[float, Field(gt=0, le=100)] = Field(
        default=2.0, description="of kl: scores are divided by it, and the loss multiplied by its square"
    )
    alpha: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None,
        description="share of the teacher in the loss; the rest is cross entropy with the labels of the training data. "
        "1, the teacher alone, when left out",
    )
    features: Literal["auto"] | tuple[FeaturePair, ...] = Field(
        default=(),
        description="tensors inside that are to become alike too: pairs of names, or auto for what has the same name "
        "in both. Where widths differ a projection is learned, and dropped afterwards",
    )
    feature_weight: Annotated[float, Field(gt=0)] = Field(default=1.0, description="of the features beside the outputs")
    only: Literal["all", "scales"] = Field(
        default="all",
        description="what learns: all weights, or only what scales and shifts them: minutes, and hardly any data, but "
        "less is regained",
    )
    epochs: Annotated[float, Field(gt=0, le=100_000)] | None = Field(
        default=None, description="times that every sample is seen; 10 when neither steps nor minutes is given"
    )
    steps: Annotated[int, Field(ge=1)] | None = Field(default=None, description="instead: batches to learn from")
    minutes: Annotated[float, Field(gt=0)] | None = Field(default=None, description="instead: time to learn")
    batch: Annotated[int, Field(ge=1, le=65536)] = Field(default=64, description="samples per step")
    optimizer: Literal["adamw", "sgd"] = Field(default="adamw", description="sgd has a momentum of 0.9")
    learning_rate: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="at its peak; when left out, the best of a few that are tried first"
    )
    schedule: Literal["cosine", "linear", "constant"] = Field(
        default="cosine", description="how the learning rate falls to zero after the warm-up, or that it does not"
    )
    warmup: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.05, description="share of the steps during which the learning rate rises to its peak"
    )
    weight_decay: Annotated[float, Field(ge=0)] = Field(default=0.0, description="of matrices, not of vectors")
    clip: Annotated[float, Field(gt=0)] = Field(default=5.0, description="largest norm of the gradient")
    batch_norm: Literal["fixed", "train", "restore"] = Field(
        default="fixed",
        description="restore: convolutions are normalized by batches while they learn, also where that was folded into "
        "them, and it is folded again afterwards; train: only where BatchNormalization is in the graph; fixed: its "
        "statistics stay",
    )
    keep_zeros: bool = Field(default=True, description="pruned weights, which are exactly zero, stay zero")
    augment: Augmentation = Field(default=Augmentation(), description="how samples are varied")
    keep: Literal["best", "last"] = Field(
        default="best", description="the state with the least loss on held-out samples, or the one at the end"
    )
    patience: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="looks at held-out samples without gain after which it stops; never, when left out"
    )
    cache_bytes: Annotated[int, Field(ge=0)] = Field(
        default=2 << 30, description="outputs of the teacher kept on disk, at most, where samples are not varied"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="cuda where torch finds one, or said so")
    workers: Annotated[int, Field(ge=1, le=256)] = Field(
        default=1,
        description="processes that share every batch; the result is the same up to rounding, where nothing is "
        "augmented",
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="of products and convolutions while learning: bfloat16 takes half the time where the processor "
        "multiplies it, which auto finds out. Weights are float32 either way, and so is what they are judged by",
    )
    compile: bool = Field(default=False, description="let torch.compile make kernels, where there is a C++ compiler")

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if sum(given is not None for given in (self.epochs, self.steps, self.minutes)) > 1:
            raise ValueError("give one of epochs, steps and minutes")
        return self


class RoundingSettings(Settings):
    """How long rounding is learned, and how fast."""

    steps: Annotated[int, Field(ge=1)] = Field(default=1000, description="of every stretch of layers")
    batch: Annotated[int, Field(ge=1, le=65536)] = Field(default=32, description="samples per step")
    learning_rate: Annotated[float, Field(gt=0)] = Field(default=0.1, description="of Adam")
    decide: Annotated[float, Field(gt=0)] = Field(
        default=3.0,
        description="weight of what drives every weight to one of its two levels, beside the error; it grows a "
        "hundredfold",
    )
    warmup: Annotated[float, Field(ge=0, lt=1)] = Field(default=0.2, description="share of the steps without that")
    drop: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0,
        description="share of the activations that are not rounded while it learns, each time others (QDrop): for "
        "activations of few bits",
    )
