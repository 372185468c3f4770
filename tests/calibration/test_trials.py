"""What narrower groups do is measured on what stands for the pruned model: alone, and together."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest

from compressor.calibration.prospects import Prospect, by_second_order
from compressor.calibration.trials import Trials, losses_around
from compressor.data import ArraysSource
from compressor.graph.channels import Channels
from compressor.graph.model import Model
from compressor.passes import Context, PruneChannels
from compressor.progress import Silent
from compressor.runtime.shapes import observe_shapes
from tests.calibration.surroundings import Around
from tests.models import Floats, floats, graph, load, outputs

X = floats(np.random.default_rng(5), 512, 12)
BODY = """[a] a = MatMul(x, ua) ra = Relu(a) [b] b = MatMul(x, ub) rb = Relu(b) j = Concat<axis=1>(ra, rb)
[c] c = MatMul(x, uc) rc = Relu(c) [both] d = MatMul(j, w) [alone] e = MatMul(rc, v) y = Add(d, e)"""


def _network(ua: Floats, ub: Floats, loud: float = 1.0) -> onnx.ModelProto:
    """Hidden units of a and b that one layer reads, beside those of c that another one does."""
    rng = np.random.default_rng(6)
    arrays = {"ua": ua, "ub": ub, "uc": floats(rng, 12, 8)}
    arrays |= {"w": floats(rng, 16, 5) * np.float32(loud), "v": floats(rng, 8, 5)}
    return graph("float[N,12] x => float[N,5] y", BODY, **arrays)


@dataclass
class Bench:
    """A model, its groups, and what measures them."""

    model: Model
    channels: Channels
    prospects: list[Prospect]
    trials: Trials
    noise: float


def _bench(proto: onnx.ModelProto, folder: Path) -> Bench:
    model = load(proto, folder)
    np.savez(folder / "data.npz", allow_pickle=False, x=X)
    data = ArraysSource.model_validate({"path": folder / "data.npz", "batch": 64}).open(model, "data", 0)
    shapes = observe_shapes(model, {"x": X[:1]}, folder)
    channels = Channels.of(model, shapes)
    groups = [(group, [8, 6, 4, 2, 1]) for group in channels.groups]
    prospects = list(by_second_order(model, shapes, groups, data, Around(data, folder)))
    expected = outputs(model, {"x": X}, folder)["y"]

    def drift(other: Model) -> float:
        return float(np.square(outputs(other, {"x": X}, folder)["y"] - expected).sum() / np.square(expected).sum())

    return Bench(model, channels, prospects, Trials(model, channels, drift), 1e-3)


def _twins(rng: np.random.Generator) -> Floats:
    """Units of which each is there twice."""
    return np.repeat(floats(rng, 12, 4), 2, axis=1)


def _same() -> onnx.ModelProto:
    """The units of b are those of a, so that either can go, but not both."""
    units = floats(np.random.default_rng(7), 12, 8)
    return _network(units, units)


def test_at_full_width_nothing_drifts(tmp_path: Path) -> None:
    bench = _bench(_same(), tmp_path)
    assert bench.trials.drift(bench.prospects, [8, 8, 8]) == 0


def test_what_is_there_twice_can_go_from_both_groups_that_a_layer_reads(tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    bench = _bench(_network(_twins(rng), _twins(rng)), tmp_path)
    assert bench.trials.drift(bench.prospects, [4, 4, 8]) < 2e-3
    assert bench.trials.drift(bench.prospects, [2, 2, 8]) > 0.02


def test_what_can_go_alone_cannot_go_together(tmp_path: Path) -> None:
    bench = _bench(_same(), tmp_path)
    one, other, both = (bench.trials.drift(bench.prospects, widths) for widths in ([1, 8, 8], [8, 1, 8], [1, 1, 8]))
    assert max(one, other) < 1e-3
    assert both > 0.1


def test_a_trial_computes_what_the_cut_model_does(tmp_path: Path) -> None:
    bench = _bench(_same(), tmp_path)
    widths = [4, 2, 6]
    cut = bench.model.copy()
    made_up = [p.readers(width) for p, width in zip(bench.prospects, widths, strict=True)]
    for weight in cut.weights():
        moves = [found[weight.value.name or ""] - weight.matrix() for found in made_up if weight.value.name in found]
        weight.store(sum(moves, start=weight.matrix()))
    gone = [unit for p, width in zip(bench.prospects, widths, strict=True) for unit in p.dropped(width)]
    Channels.of(cut, bench.channels.shapes).drop(gone)
    expected, found = (outputs(model, {"x": X}, tmp_path)["y"] for model in (bench.model, cut))
    drift = float(np.square(found - expected).sum() / np.square(expected).sum())
    assert drift > 0.01
    assert bench.trials.drift(bench.prospects, widths) == pytest.approx(drift, rel=1e-4)


def test_around_a_choice_losses_are_what_the_others_make_of_them(tmp_path: Path) -> None:
    bench = _bench(_same(), tmp_path)
    alone = [p.losses(bench.trials.drift([p], [p.probe])) for p in bench.prospects]
    around = list(losses_around(bench.trials, bench.prospects, alone, [1, 1, 8], Silent()))
    assert all(after[-1] > 20 * before[-1] for before, after in zip(alone[:2], around[:2], strict=True))
    assert all(loss[0] == 0 and (np.diff(loss) >= 0).all() for loss in around)


def test_what_others_make_up_for_does_not_go_with_them(tmp_path: Path) -> None:
    reached = {}
    for rounds in (0, 2):
        proto = _same()
        model = load(proto, tmp_path)
        np.savez(tmp_path / "data.npz", allow_pickle=False, x=X)
        data = ArraysSource.model_validate({"path": tmp_path / "data.npz", "batch": 32}).open(model, "data", 0)
        step = PruneChannels(sparsity=0.25, rounds=rounds, round_to=1)
        exact = outputs(model, {"x": X}, tmp_path)["y"]
        list(step.apply(model, Context(model.copy(), data, 0, tmp_path, Silent(), 1)))
        reached[rounds] = float(np.square(outputs(model, {"x": X}, tmp_path)["y"] - exact).mean())
    assert reached[2] < 0.5 * reached[0]
