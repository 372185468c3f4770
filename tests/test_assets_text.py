"""Real models of language: their published figures come out."""

from pathlib import Path

import pytest

from compressor.data import AnySource, ArraysSource, MetricName, TextSource
from compressor.evaluate.metrics import labels_for, new_metric
from compressor.graph.model import Model
from compressor.runtime.ort import Session

ASSETS = Path(__file__).resolve().parents[2] / "shared" / "assets"
MINILM, SENTENCES = ASSETS / "models" / "minilm", ASSETS / "data" / "stsb" / "stsb-en-test.csv"
DREAMS, SAMPLES = ASSETS / "models" / "aidreams_llm" / "aidreams_260k.onnx", ASSETS / "data" / "aidreams_samples.npy"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not ASSETS.is_dir(), reason=f"{ASSETS} is not there: these models are not part of the project"),
]


def _score(model: Path, source: AnySource, metric: MetricName) -> float:
    data, session, folded = source.open(Model.read(model), "data", 0), Session(model), new_metric(metric)
    for batch in data.batches():
        folded.update(session.run(batch.feeds), labels_for(metric, batch, "data"), batch.samples)
    return folded.result()


def test_minilm_ranks_pairs_of_sentences_as_published() -> None:
    given = {"path": SENTENCES, "tokenizer": MINILM / "tokenizer.json", "max_length": 128}
    source = TextSource.model_validate({**given, "columns": [0, 1], "labels": 2, "unit": "sentence"})
    assert _score(MINILM / "minilm.onnx", source, "spearman_cosine") == pytest.approx(0.8203, abs=5e-5)


def test_a_language_model_is_as_perplexed_whatever_the_batch() -> None:
    sources = [ArraysSource.model_validate({"path": SAMPLES, "batch": batch}) for batch in (1, 7, 32)]
    found = [_score(DREAMS, source, "perplexity") for source in sources]
    assert 1 < found[0] < 512
    assert found == pytest.approx([found[0]] * 3, rel=1e-5)
