"""What the benchmark makes itself: a wide decoder layer, and text that a language model writes."""

import numpy as np
import onnx
import onnx.parser
from numpy.typing import NDArray
from onnx import numpy_helper

from benchmarks.tasks import SEED, Places
from compressor.runtime.ort import Session

DECODER, DREAMS = "<made>/decoder.onnx", "<made>/dreams.npy"

_WIDTH, _HEADS, _PAST = 2048, 16, 127
_SIZE = _WIDTH // _HEADS
_PROJECTIONS = ("query", "key", "value", "mix", "gate", "up", "down")

_LAYER = f"""<ir_version: 10, opset_import: ["" : 21]>
decoder (float[1,1,{_WIDTH}] hidden, float[1,{_HEADS},{_PAST},{_SIZE}] keys, float[1,{_HEADS},{_PAST},{_SIZE}] values)
=> (float[1,1,{_WIDTH}] next)
<float[{_WIDTH}] ones = {{{", ".join(["1"] * _WIDTH)}}}, int64[4] heads = {{1, 1, {_HEADS}, {_SIZE}}},
 int64[3] flat = {{1, 1, {_WIDTH}}}, float root = {{{_SIZE**0.5}}}>
{{
  read = LayerNormalization (hidden, ones)
  q0 = MatMul (read, query)  q1 = Reshape (q0, heads)  q = Transpose <perm = [0, 2, 1, 3]> (q1)
  k0 = MatMul (read, key)    k1 = Reshape (k0, heads)  k2 = Transpose <perm = [0, 2, 1, 3]> (k1)
  v0 = MatMul (read, value)  v1 = Reshape (v0, heads)  v2 = Transpose <perm = [0, 2, 1, 3]> (v1)
  k3 = Concat <axis = 2> (keys, k2)  k = Transpose <perm = [0, 1, 3, 2]> (k3)
  v = Concat <axis = 2> (values, v2)
  s0 = MatMul (q, k)  s1 = Div (s0, root)  weights = Softmax <axis = -1> (s1)
  a0 = MatMul (weights, v)  a1 = Transpose <perm = [0, 2, 1, 3]> (a0)  a = Reshape (a1, flat)
  mixed = MatMul (a, mix)
  attended = Add (hidden, mixed)
  seen = LayerNormalization (attended, ones)
  g0 = MatMul (seen, gate)  g1 = Sigmoid (g0)  g = Mul (g0, g1)
  u = MatMul (seen, up)
  f0 = Mul (g, u)  f = MatMul (f0, down)
  next = Add (attended, f)
}}"""


def decoder_layer(places: Places) -> None:
    """One layer of a decoder with random weights, for one token after 127 others; seven products of 2048 × 2048."""
    rng = np.random.default_rng(SEED)
    model = onnx.parser.parse_model(_LAYER)
    for name in _PROJECTIONS:
        weight = rng.standard_normal((_WIDTH, _WIDTH), np.float32) / np.float32(_WIDTH**0.5)
        model.graph.initializer.append(numpy_helper.from_array(weight, name))
    onnx.save(model, places.path(DECODER))


def dreams(places: Places) -> None:
    """Text to calibrate on, written by the language model itself: 64 × 101 token ids drawn from what it predicts."""
    session = Session(places.path("<assets>/models/aidreams_llm/aidreams_260k.onnx"))
    np.save(places.path(DREAMS), written(session, samples=64, tokens=101))


def written(session: Session, samples: int, tokens: int) -> NDArray[np.int64]:
    """(samples, tokens), each begun with token 1; the largest of log p + Gumbel noise is a draw from p."""
    rng = np.random.default_rng(SEED)
    ids = np.ones((samples, 1), np.int64)
    while ids.shape[1] < tokens:
        (logits,) = session.run({"input_ids": ids}).values()
        last = logits[:, -1].astype(np.float64)
        ids = np.column_stack([ids, (last + rng.gumbel(size=last.shape)).argmax(axis=1)])
    return ids
