"""How good a model is: against the reference (fidelity) and against labels (accuracy)."""

from compressor.evaluate.compare import compare_outputs, evaluate
from compressor.evaluate.metrics import METRICS

__all__ = ["METRICS", "compare_outputs", "evaluate"]
