"""The models and the ways to compress them."""

from benchmarks import making
from benchmarks.tasks import Entry, Rival, Task, Variant

_IMAGENET: Entry = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}

_SIMPLIFY: Entry = {"type": "simplify"}
_SMOOTH: Entry = {"type": "smooth"}
_EQUALIZE: Entry = {"type": "equalize"}
_CORRECT: Entry = {"type": "correct_bias"}
_COMPACT: Entry = {"type": "compact"}
_CAST: Entry = {"type": "cast"}
"""What is left in float, such as embeddings' scales and biases, in 16 bits of the file."""

_NO_VERDICT: Entry = {"verify": {"cosine": -1}}
"""Even a result that no longer resembles the reference is shown."""


def _static(**fields: object) -> Entry:
    return {"type": "quantize_static", **fields}


def _weights(**fields: object) -> Entry:
    return {"type": "quantize_weights", **fields}


_SPARSE_RIVAL = "sets no weights to zero"
_NARROW_RIVAL = "makes nothing narrower"


def _narrow(name: str, **fields: object) -> Variant:
    """Whole channels, neurons and heads away."""
    passes = _SIMPLIFY, {"type": "prune_channels", **fields}, _COMPACT
    return Variant(f"prune-{name}", passes, _NARROW_RIVAL, slow=True)


def _small(**fields: object) -> Variant:
    """Smaller images inside."""
    passes = _SIMPLIFY, {"type": "reduce_resolution", **fields}, _COMPACT
    return Variant("resolution", passes, "resizes no image")


def _zeros(name: str, kind: str, **fields: object) -> Variant:
    """Single weights to zero."""
    return Variant(f"prune-{name}", (_SIMPLIFY, {"type": kind, **fields}, _COMPACT), _SPARSE_RIVAL, slow=True)


def _blocks(count: int) -> Variant:
    """Whole parts away."""
    passes = _SIMPLIFY, {"type": "prune_blocks", "blocks": count}, _COMPACT
    return Variant(f"prune-{count}-blocks", passes, _NARROW_RIVAL, slow=True)


_BLENDED: Entry = {"augment": {"flip": True, "crop": 4, "mixup": 1.0}}
"""Images that the teacher has been trained on teach little unless they are blended: it is certain of them."""

_STEADY: Entry = {
    **_BLENDED,
    "optimizer": "sgd",
    "learning_rate": 0.002,
    "temperature": 1,
    "features": "auto",
    "feature_weight": 10,
}
"""Deep nets with folded normalization do not bear the steps of adamw that shallow ones do. What blocks make says more
about few images than classes do."""

_UNTRAINED_RIVAL = "trains nothing"


def _learned(name: str, *steps: Entry, **fields: object) -> Variant:
    """Steps that cost much, and what is learned back after them."""
    passes = _SIMPLIFY, *steps, {"type": "distill", **fields}, _COMPACT
    return Variant(f"distill-{name}", passes, _UNTRAINED_RIVAL, recipe=_NO_VERDICT, slow=True)


_LEARNED: Entry = {"weights": {"rounding": "learned"}}


def _observed(observer: str, rival: Rival | None = None, slow: bool = False) -> Variant:
    passes = _SIMPLIFY, _static(activations={"observer": observer}), _COMPACT
    return Variant(f"observer-{observer}", passes, rival, slow=slow)


_IMAGES: Entry = {"source": "images", "path": "<assets>/data/imagenet1000", "resize": 256, "crop": 224, **_IMAGENET}

_MOBILENET = Task(
    "mobilenetv2",
    "<assets>/models/mobilenetv2_imagenet.onnx",
    {**_IMAGES, "list": "<assets>/data/imagenet1000_even.csv", "labels": True, "metric": "top1"},
    (
        Variant("w8a8", (_SIMPLIFY, _static(), _COMPACT), Rival("static")),
        Variant("w8a8-corrected", (_SIMPLIFY, _EQUALIZE, _static(), _CORRECT, _COMPACT)),
        _observed("min_max"),
        _observed("percentile"),
        _observed("entropy", Rival("static", {"calibrate_method": "Entropy"}, samples=32)),
        _observed("mse"),
        _narrow("macs-0.77", macs=0.77),
        _small(macs=0.77),
    ),
    calibration={**_IMAGES, "list": "<assets>/data/imagenet1000_odd.csv", "samples": 500},
)


def _resnet(name: str) -> Task:
    """A ResNet for CIFAR-10."""
    arrays: Entry = {
        "source": "arrays",
        "path": "<assets>/data/cifar10.npz",
        "scale": 1 / 255,
        "layout": "nhwc_to_nchw",
        **_IMAGENET,
    }
    return Task(
        name,
        f"<assets>/models/{name}_cifar10.onnx",
        {**arrays, "inputs": {"input": "test_images"}, "labels": "test_labels", "metric": "top1"},
        (
            Variant("w8a8", (_SIMPLIFY, _static(), _COMPACT), Rival("static")),
            Variant("w4a8", (_SIMPLIFY, _static(scheme="w4a8"), _CORRECT, _COMPACT), "no 4-bit Conv"),
            Variant("w3a8", (_SIMPLIFY, _static(scheme="w3a8"), _COMPACT), "no 3-bit Conv"),
            Variant("2.6-bits", (_SIMPLIFY, _static(budget={"bits_per_weight": 2.6}), _COMPACT)),
            Variant("w2a8", (_SIMPLIFY, _static(scheme="w2a8"), _COMPACT), "no 2-bit Conv"),
            Variant(
                "w2a8-learned", (_SIMPLIFY, _static(scheme="w2a8", **_LEARNED), _COMPACT), "no 2-bit Conv", slow=True
            ),
            Variant("ternary", (_SIMPLIFY, _static(scheme="ternary"), _CORRECT, _COMPACT), recipe=_NO_VERDICT),
            Variant("binary", (_SIMPLIFY, _static(scheme="binary"), _CORRECT, _COMPACT), recipe=_NO_VERDICT),
            _narrow("macs-0.69", macs=0.69),
            _narrow("macs-0.59", macs=0.59),
            _narrow("latency-0.74", latency=0.74),
            _blocks(4),
            _small(macs=0.78),
            _zeros("second-order", "prune_second_order", sparsity=0.5),
            _zeros("2-of-4", "prune_second_order", pattern="2:4"),
            _zeros("magnitude", "prune_magnitude", sparsity=0.5),
            _learned("macs-0.67", {"type": "prune_channels", "macs": 0.667}, epochs=24, **_STEADY),
            _learned(
                "time-0.6",
                {"type": "prune_blocks", "blocks": 7},
                {"type": "prune_channels", "latency": 0.8},
                epochs=36,
                **_STEADY,
            ),
            *(
                _learned(scheme, _static(scheme=scheme, **_LEARNED), minutes=4.5, learning_rate=0.0003, **_BLENDED)
                for scheme in ("w2a8", "ternary")
            ),
        ),
        calibration={**arrays, "inputs": {"input": "train_images"}, "samples": 500},
        training={**arrays, "inputs": {"input": "train_images"}},
    )


_SENTENCES: Entry = {
    "source": "text",
    "tokenizer": "<assets>/models/minilm/tokenizer.json",
    "columns": [0, 1],
    "labels": 2,
    "unit": "sentence",
    "max_length": 128,
}

_BLOCKS_OF_32 = Rival("blocks", {"bits": 4, "block_size": 32})

_MINILM = Task(
    "minilm",
    "<assets>/models/minilm/minilm.onnx",
    {**_SENTENCES, "path": "<assets>/data/stsb/stsb-en-test.csv", "batch": 1, "metric": "spearman_cosine"},
    (
        Variant("8-bit", (_SIMPLIFY, _SMOOTH, {"type": "quantize_dynamic"}, _CAST, _COMPACT), Rival("dynamic")),
        Variant("4-bit", (_SIMPLIFY, _SMOOTH, _weights(), _COMPACT), _BLOCKS_OF_32),
        Variant("10-MB", (_SIMPLIFY, _SMOOTH, _weights(budget={"bytes": 9_700_000}), _COMPACT)),
        _narrow("macs-0.6", macs=0.6),
        _blocks(2),
        _learned("latency-0.5", {"type": "prune_channels", "latency": 0.5}, epochs=4, learning_rate=0.0003),
    ),
    calibration={**_SENTENCES, "path": "<assets>/data/stsb/stsb-en-train.csv", "samples": 512},
    training={**_SENTENCES, "path": "<assets>/data/stsb/stsb-en-train.csv"},
    timed=101,
)


def _written(compute: str, bits: int, block: int, rival: Rival | None = None) -> Variant:
    """A language model whose weights are in so many bits."""
    passes = _SIMPLIFY, _weights(bits=bits, block=block, compute=compute), _COMPACT
    return Variant(f"{bits}-bit-{compute}", passes, rival)


_AIDREAMS = Task(
    "aidreams",
    "<assets>/models/aidreams_llm/aidreams_260k.onnx",
    {"source": "arrays", "path": "<assets>/data/aidreams_samples.npy", "metric": "perplexity"},
    tuple(
        _written(compute, bits, 32, Rival("blocks", {"bits": bits, "block_size": 32}) if compute == "float" else None)
        for compute in ("float", "int8")
        for bits in (8, 4, 2)
    ),
    calibration={"source": "arrays", "path": making.DREAMS, "samples": 64},
    make=making.dreams,
)

_DECODER = Task(
    "decoder",
    making.DECODER,
    {"source": "random", "samples": 16},
    (
        Variant(
            "4-bit",
            (_SIMPLIFY, _weights(bits=4, block=128, compute="float"), _COMPACT),
            Rival("blocks", {"bits": 4, "block_size": 128}),
        ),
    ),
    make=making.decoder_layer,
)

TASKS: dict[str, Task] = {
    task.name: task for task in (_MOBILENET, _resnet("resnet20"), _resnet("resnet56"), _MINILM, _AIDREAMS, _DECODER)
}
