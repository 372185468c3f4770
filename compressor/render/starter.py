"""A recipe to start from, for one model."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from compressor.data.base import KnownMetric
from compressor.data.tokens import FEATURES, IDS
from compressor.graph.model import Model
from compressor.graph.opening import ModelSource

_TEXT = """\
# compressor run {name}.yaml          (every field: compressor schema; a pass's fields: compressor passes TYPE)
version: 1
model: {model}
{inputs}

data:
  calibration:                 # samples that passes may learn from
{calibration}
  # evaluation:                # samples to judge by; without it a part of the calibration is held out
  #   source: arrays
  #   path: test.npz
  #   labels: labels           # accuracy is reported when there are labels
  #   metric: top1             # {metrics}

passes:                        # in the order they run
  - type: simplify
{passes}

# gates:                       # exit code 1 when one does not hold
#   compression_ratio: {{min: 3.5}}
#   latency_ratio: {{max: 0.7}}
#   agreement: {{min: 0.98}}

output:
  model: out/{name}.onnx
  report: [out/{name}.json, out/{name}.md]
"""

_IMAGES = """\
    source: images
    path: images               # a folder; preprocessing is part of the recipe
    samples: 256
    resize: {side}
    crop: [{height}, {width}]
    mean: [0.485, 0.456, 0.406]
    std: [0.229, 0.224, 0.225]"""

_TEXTS = """\
    source: text
    path: texts.txt            # a text per line; or a .csv, .tsv or .jsonl and its columns: [text]
    tokenizer: {tokenizer}
    samples: 256
    # max_length: 128          # tokens per text, if neither the model nor the tokenizer says so
    # unit: window             # for a language model: windows of max_length tokens; metric: perplexity"""

_RANDOM = """\
    source: random             # replace it: ranges found on random inputs say little about real ones
    # source: arrays
    # path: samples.npz        # arrays named like the inputs; else inputs: {{{input}: name}}"""

_STATIC = """\
  - type: quantize_static      # int8 weights and activations: the fast form for convolutions
    # scheme: w4a8             # weights in 4 bits: half the bytes at the same speed; or 3, 2, ternary, binary
    # ignore: [{example}]
  # - type: correct_bias       # behind it, below 8 bits"""

_DYNAMIC = """\
  - type: quantize_dynamic     # int8 weights, activations ranged at run time: for MatMul, Gemm and LSTM
    # ignore: [{example}]
  # - type: quantize_weights   # instead: weights in 4 bits, half the bytes at the same speed
  #   bits: 4"""


def starter(model: Model, source: ModelSource, folder: Path) -> str:
    """Recipe text for `model`, as it was opened from `source`, with paths relative to `folder`."""
    weights = list(model.weights())
    convolutional = any(w.layer == "Conv" for w in weights)
    specs = model.inputs()
    return _TEXT.format(
        name=model.source.stem,
        model=Path(os.path.relpath(model.source.resolve(), folder)).as_posix(),
        inputs="\n".join([*_said(source), *(f"# input  {spec}" for spec in specs)]),
        metrics=" | ".join(get_args(KnownMetric)),
        calibration=_calibration(model, folder),
        passes=(_STATIC if convolutional else _DYNAMIC).format(example=weights[-1].name if weights else "Gemm"),
    )


def _said(source: ModelSource) -> Iterator[str]:
    """What the recipe says of a TorchScript model."""
    if source.trust:
        yield "trust: true                    # it is TorchScript: code that runs when it is loaded"
    if source.inputs:
        yield f"inputs: {json.dumps(source.inputs)}"


def _calibration(model: Model, folder: Path) -> str:
    specs = model.inputs()
    names = {spec.name for spec in specs}
    if IDS in names and names <= set(FEATURES):
        tokenizer = os.path.relpath(model.source.resolve().with_name("tokenizer.json"), folder)
        return _TEXTS.format(tokenizer=Path(tokenizer).as_posix())
    shape = (specs[0].shape if specs else None) or ()
    picture = len(specs) == 1 and len(shape) == 4 and shape[1] == 3
    if picture and isinstance(shape[2], int) and isinstance(shape[3], int):
        return _IMAGES.format(side=max(shape[2], shape[3]) * 8 // 7, height=shape[2], width=shape[3])
    return _RANDOM.format(input=specs[0].name if specs else "input")
