"""Train the four sample models and write each as ONNX, with its data next to it as npz.

    python sample_models/make.py [--only NAME ...] [--output DIR] [--seed N]

    digits_cnn          convolutional digit classifier, batch normalisation left unfolded
    digits_transformer  transformer digit classifier over pixel rows
    condition_score     sensor MLP: health of three components and their minimum
    sensor_lstm         LSTM fault classifier for vibration windows

Every NAME.npz holds `calibration` (training samples without labels), `evaluation` (held-out samples) and the
labels of the evaluation samples: `labels` with class ids, or one array per output for condition_score. The
metrics in the table are measured with onnxruntime on the written files. One seed gives one result on one
machine; another CPU may round differently in the last digits.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import datasets
import networks
import training
from datasets import Dataset, Labels
from export import check_file, check_outputs, export_onnx, run_onnx
from simulate import COMPONENTS
from training import Schedule

CALIBRATION_SAMPLES = 256
THREADS = 2


@dataclass(frozen=True)
class SampleModel:
    """What to train, on which data, and the metric the exported file must reach."""

    name: str
    load: Callable[[np.random.Generator], Dataset]
    build: Callable[[Dataset], nn.Module]
    schedule: Schedule
    required_value: float
    input_name: str
    output_names: tuple[str, ...] = ("logits",)
    loss: training.Loss = training.class_loss
    measure: Callable[[Labels, Labels], dict[str, float]] = training.class_metrics
    required_metric: str = "accuracy"


@dataclass(frozen=True)
class Report:
    """One row of the table: sizes in bytes, metrics measured on the written files."""

    name: str
    parameters: int
    model_bytes: int
    data_bytes: int
    metrics: dict[str, float]
    preprocessing: datasets.Preprocessing
    seconds: float


def build_condition_score(data: Dataset) -> nn.Module:
    """Return the sensor MLP with the channel statistics of the training split built in."""
    inputs = torch.from_numpy(data.train_inputs)
    return networks.ConditionScore(inputs.mean(dim=0), inputs.std(dim=0))


def sample_models() -> tuple[SampleModel, ...]:
    """Return the four models in the order of the table."""
    return (
        SampleModel(
            name="digits_cnn",
            load=datasets.digit_images,
            build=lambda _: networks.DigitsCnn(),
            schedule=Schedule(epochs=20, batch_size=32, peak_learning_rate=4e-3),
            required_value=0.98,
            input_name="image",
        ),
        SampleModel(
            name="digits_transformer",
            load=datasets.digit_rows,
            build=lambda _: networks.DigitsTransformer(),
            schedule=Schedule(epochs=80, batch_size=32, peak_learning_rate=2e-3),
            required_value=0.96,
            input_name="tokens",
        ),
        SampleModel(
            name="condition_score",
            load=datasets.machine_condition,
            build=build_condition_score,
            schedule=Schedule(epochs=40, batch_size=64, peak_learning_rate=3e-3),
            required_value=0.9,
            input_name="sensors",
            output_names=(*COMPONENTS, "condition_score"),
            loss=training.health_loss,
            measure=training.health_metrics,
            required_metric="R2 condition_score",
        ),
        SampleModel(
            name="sensor_lstm",
            load=datasets.vibration_windows,
            build=lambda _: networks.SensorLstm(),
            schedule=Schedule(epochs=20, batch_size=64, peak_learning_rate=5e-3),
            required_value=0.95,
            input_name="window",
        ),
    )


def make(model: SampleModel, directory: Path, seed: int) -> Report:
    """Train one model, write NAME.onnx and NAME.npz, check both files and report on them."""
    started = time.perf_counter()
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    data = model.load(rng)
    network = model.build(data)
    training.fit(network, data, model.loss, model.schedule)

    model_path, data_path = directory / f"{model.name}.onnx", directory / f"{model.name}.npz"
    inputs = data.preprocessing.apply(data.evaluation_inputs)
    export_onnx(network, model_path, inputs[:2], model.input_name, model.output_names)
    check_file(model_path)
    check_outputs(model_path, network, inputs)
    write_data(data_path, data, rng)
    return Report(
        name=model.name,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        model_bytes=model_path.stat().st_size,
        data_bytes=data_path.stat().st_size,
        metrics=measure_files(model, data.preprocessing, model_path, data_path),
        preprocessing=data.preprocessing,
        seconds=time.perf_counter() - started,
    )


def write_data(path: Path, data: Dataset, rng: np.random.Generator) -> None:
    """Write the calibration samples, the evaluation samples and the evaluation labels to one npz file."""
    arrays: dict[str, Any] = {
        "calibration": data.calibration(rng, CALIBRATION_SAMPLES),
        "evaluation": data.evaluation_inputs,
        **data.evaluation_labels,
    }
    np.savez_compressed(path, **arrays)


def measure_files(
    model: SampleModel, preprocessing: datasets.Preprocessing, model_path: Path, data_path: Path
) -> dict[str, float]:
    """Return the metrics of the written files; raise SystemExit if the required one is too low."""
    with np.load(data_path) as arrays:
        stored = dict(arrays)
    inputs = preprocessing.apply(stored.pop("evaluation"))
    del stored["calibration"]
    metrics = model.measure(run_onnx(model_path, inputs), stored)
    if metrics[model.required_metric] < model.required_value:
        raise SystemExit(f"{model.name}: {metrics}, {model.required_metric} below {model.required_value}")
    return metrics


def print_table(reports: Sequence[Report]) -> None:
    """Print one line a model, then the preprocessing of models whose stored data is not the network input."""
    print(f"{'model':<20}{'parameters':>11}{'onnx bytes':>12}{'npz bytes':>11}{'seconds':>9}  metric")
    for row in reports:
        metrics = ", ".join(f"{name} {value:.4f}" for name, value in row.metrics.items())
        sizes = f"{row.parameters:>11,}{row.model_bytes:>12,}{row.data_bytes:>11,}{row.seconds:>9.1f}"
        print(f"{row.name:<20}{sizes}  {metrics}")
    print(f"total bytes {sum(row.model_bytes + row.data_bytes for row in reports):,}")
    for row in reports:
        if row.preprocessing != datasets.Preprocessing():
            print(f"{row.name}: input = (stored * scale - mean) / std with {row.preprocessing}")


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the command line as `only`, `output` and `seed`."""
    parser = argparse.ArgumentParser(description="Train the sample models and write them as ONNX and npz.")
    names = [model.name for model in sample_models()]
    parser.add_argument("--only", choices=names, action="append", help="make this model; may be repeated")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, help="where to write the files")
    parser.add_argument("--seed", type=int, default=0, help="seed of data, initialisation and shuffling")
    return parser.parse_args(arguments)


def main() -> None:
    """Make the chosen models and print the table."""
    options = parse_arguments()
    torch.set_num_threads(THREADS)
    torch.use_deterministic_algorithms(True)
    options.output.mkdir(parents=True, exist_ok=True)
    chosen = [model for model in sample_models() if not options.only or model.name in options.only]
    print_table([make(model, options.output, options.seed) for model in chosen])


if __name__ == "__main__":
    main()
