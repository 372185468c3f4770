"""How far one array is from another."""

import numpy as np

from compressor.numerics.affine import Doubles, Floats


def relative_error(before: Floats, after: Floats) -> float:
    """‖after - before‖ / ‖before‖, Frobenius; 0 when both are zero, infinity when only `before` is."""
    difference = float(np.linalg.norm((after - before).ravel()))
    size = float(np.linalg.norm(before.ravel()))
    if size == 0:
        return 0.0 if difference == 0 else float("inf")
    return difference / size


def sqnr(signal_power: float, noise_power: float) -> float:
    """10 · log10(signal / noise), dB; infinity when there is no noise."""
    if noise_power == 0:
        return float("inf")
    if signal_power == 0:
        return float("-inf")
    return float(10 * np.log10(signal_power / noise_power))


def cosine(reference: Doubles, other: Doubles) -> Doubles:
    """Cosine of the angle between matching rows; (samples, values) -> (samples,). Two zero rows give 1."""
    dot = np.einsum("ij,ij->i", reference, other)
    norms = np.linalg.norm(reference, axis=1) * np.linalg.norm(other, axis=1)
    both_zero = (np.abs(reference).max(axis=1, initial=0) == 0) & (np.abs(other).max(axis=1, initial=0) == 0)
    safe = np.where(norms == 0, 1.0, norms)
    return np.where(both_zero, 1.0, dot / safe)


def kl_divergence(reference_logits: Doubles, other_logits: Doubles) -> Doubles:
    """KL(softmax(reference) ‖ softmax(other)) in nats; (samples, classes) -> (samples,)."""
    p, q = log_softmax(reference_logits), log_softmax(other_logits)
    divergence: Doubles = np.maximum((np.exp(p) * (p - q)).sum(axis=1), 0.0)
    return divergence


def log_softmax(logits: Doubles) -> Doubles:
    """Logarithm of the softmax over the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    normalized: Doubles = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return normalized
