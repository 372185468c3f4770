"""Weights as products of thin factors, with the least error in what the layer makes.

With H = E[xxᵀ] over the inputs x of a layer and any S with SSᵀ = H, the mean square error of its output is

    E‖(W - Ŵ) x‖² = ‖(W - Ŵ) S‖²,

so that the best Ŵ of rank r is the truncated singular value decomposition of W S, times S⁻¹, and what is lost is
Σ σ² over the values left out (Wang et al. 2025, "SVD-LLM"; plain SVD is S = I). The singular values are split evenly,
√Σ on both sides, so that both factors quantize alike.

Convolutions have three more forms. A kernel of kh × kw is split into kh × 1 and 1 × kw with r channels in between
(Jaderberg et al. 2014), which is the same decomposition of another matrix; or into 1 × 1, kh × kw on fewer channels,
and 1 × 1 (Kim et al. 2016, Tucker-2), found by higher-order orthogonal iteration; or into 1 × 1, kh × kw channel by
channel, and 1 × 1 (Lebedev et al. 2015, CP), by alternating least squares.
"""

from dataclasses import dataclass

import numpy as np

from compressor.numerics.affine import Doubles, Floats

_DAMPING = 1e-4
"""Share of the mean of H's diagonal that is added to it: directions that were never seen count for something."""

_ITERATIONS = 8
_SWEEPS = 40
_RIDGE = 1e-6
"""Share of the mean of a Gram matrix's diagonal that is added to it."""


@dataclass(frozen=True, slots=True, eq=False)
class Spectrum:
    """The best factors of every rank.

    Attributes:
        left: (groups, outputs, ranks), orthonormal columns.
        values: (groups, ranks), descending: root mean square of what each direction adds to the output.
        right: (groups, ranks, inputs); W is left · values · right.
    """

    left: Doubles
    values: Doubles
    right: Doubles

    @property
    def full(self) -> int:
        """The rank that loses nothing."""
        return int(self.values.shape[1])

    def errors(self) -> Doubles:
        """Share of the output's power that is lost at rank 0, 1, … full: (full + 1,), from 1 to 0."""
        power = np.square(self.values).sum(axis=0)
        left = np.concatenate([np.cumsum(power[::-1])[::-1], [0.0]])
        total = float(power.sum())
        return left / total if total > 0 else np.zeros(self.full + 1)

    def factors(self, rank: int) -> tuple[Floats, Floats]:
        """First (groups, rank, inputs), then (groups, outputs, rank): W ≈ second · first."""
        root = np.sqrt(self.values[:, :rank])
        first, second = root[..., None] * self.right[:, :rank], self.left[:, :, :rank] * root[:, None]
        return first.astype(np.float32), second.astype(np.float32)


def spectrum(weights: Floats, moments: Doubles | None = None) -> Spectrum:
    """Of a layer.

    Args:
        weights: (groups, outputs, inputs).
        moments: H, (groups, inputs, inputs); all inputs alike and independent when None.
    """
    real = weights.astype(np.float64)
    if moments is None:
        return Spectrum(*np.linalg.svd(real, full_matrices=False))
    root = whitening(moments)
    left, values, right = np.linalg.svd(real @ root, full_matrices=False)
    return Spectrum(left, values, np.linalg.solve(root.swapaxes(1, 2), right.swapaxes(1, 2)).swapaxes(1, 2))


def correction(missing: Floats, rank: int, moments: Doubles | None = None) -> tuple[Floats, Floats]:
    """What makes up best for an error of a weight: first (rank, inputs), then (outputs, rank).

    Zhang et al. 2024, "LQER": low-rank quantization error reconstruction.

    Args:
        missing: W - Ŵ, (outputs, inputs).
        rank: of the product.
        moments: H, (1, inputs, inputs), or larger where inputs were added to fill up blocks; all alike when None.
    """
    width = missing.shape[1]
    found = spectrum(missing[None], None if moments is None else moments[:, :width, :width])
    first, second = found.factors(min(rank, found.full))
    return first[0], second[0]


def whitening(moments: Doubles) -> Doubles:
    """S, lower, with SSᵀ = H, made well conditioned: (groups, inputs, inputs)."""
    for damping in (_DAMPING, 10 * _DAMPING, 100 * _DAMPING):
        try:
            return _root(damped(moments, damping))
        except np.linalg.LinAlgError:  # what was summed in float32 may miss positive by more than the damping
            continue
    return _root(damped(moments, 1.0))


def _root(moments: Doubles) -> Doubles:
    found: Doubles = np.linalg.cholesky(moments).astype(np.float64)
    return found


def damped(moments: Doubles, damping: float = _DAMPING) -> Doubles:
    """H with a share of its mean on the diagonal, so that no direction counts for nothing: (groups, inputs, inputs)."""
    mean = np.einsum("gii->g", moments) / moments.shape[1]
    added = np.where(mean > 0, damping * mean, 1.0)
    found: Doubles = moments + added[:, None, None] * np.eye(moments.shape[1])
    return found


def split_kernel(weights: Floats) -> Floats:
    """A kernel as the matrix whose factors are one along the height and one along the width.

    Args:
        weights: (outputs, channels, kh, kw).

    Returns:
        (outputs · kw, channels · kh).
    """
    outputs, channels, height, width = weights.shape
    return np.ascontiguousarray(weights.transpose(0, 3, 1, 2)).reshape(outputs * width, channels * height)


def joined_kernels(first: Floats, second: Floats, height: int, width: int) -> tuple[Floats, Floats]:
    """Factors of `split_kernel` as kernels: (rank, channels, kh, 1) and (outputs, rank, 1, kw)."""
    rank = len(first)
    along = second.reshape(-1, width, rank).transpose(0, 2, 1)[:, :, None]
    return first.reshape(rank, -1, height, 1), np.ascontiguousarray(along)


@dataclass(frozen=True, slots=True, eq=False)
class Tucker:
    """A kernel as 1 × 1, kh × kw, and 1 × 1.

    Attributes:
        first: (r1, channels).
        core: (r2, r1, kh, kw).
        last: (outputs, r2).
        error: share of the power of the weights, beside the channels' second moments, that is lost.
    """

    first: Floats
    core: Floats
    last: Floats
    error: float

    def kernel(self) -> Floats:
        """(outputs, channels, kh, kw)."""
        made: Floats = np.einsum("or,rshw,sc->ochw", self.last, self.core, self.first, optimize=True)
        return made


def tucker(weights: Floats, ranks: tuple[int, int], moments: Doubles | None = None) -> Tucker:
    """By higher-order orthogonal iteration (De Lathauwer et al. 2000) on the axes of channels.

    Args:
        weights: (outputs, channels, kh, kw).
        ranks: of the channels that go in and of those that come out.
        moments: of the channels at one place, (channels, channels); all alike when None.
    """
    inner, outer = ranks
    root = np.eye(weights.shape[1]) if moments is None else whitening(moments[None])[0]
    white = np.einsum("ochw,cj->ojhw", weights.astype(np.float64), root, optimize=True)
    into = _leading(white.transpose(1, 0, 2, 3), inner)
    for _ in range(_ITERATIONS):
        out = _leading(np.einsum("ojhw,jb->obhw", white, into, optimize=True), outer)
        into = _leading(np.einsum("ojhw,oa->jahw", white, out, optimize=True), inner)
    core = np.einsum("ojhw,oa,jb->abhw", white, out, into, optimize=True)
    total = float(np.square(white).sum())
    error = max(1 - float(np.square(core).sum()) / total, 0.0) if total > 0 else 0.0
    first = np.linalg.solve(root.T, into).T
    return Tucker(first.astype(np.float32), core.astype(np.float32), out.astype(np.float32), error)


@dataclass(frozen=True, slots=True, eq=False)
class Canonical:
    """A kernel as 1 × 1, kh × kw channel by channel, and 1 × 1.

    Attributes:
        first: (rank, channels).
        middle: (rank, places of the kernel).
        last: (outputs, rank).
    """

    first: Floats
    middle: Floats
    last: Floats

    def kernel(self) -> Floats:
        """(outputs, channels, places)."""
        made: Floats = np.einsum("or,rp,rc->ocp", self.last, self.middle, self.first, optimize=True)
        return made


def canonical(weights: Floats, rank: int, moments: Doubles | None = None) -> Canonical:
    """By alternating least squares (Lebedev et al. 2015), a little damped so that terms do not cancel each other.

    Args:
        weights: (outputs, channels, places of the kernel).
        rank: channels in between.
        moments: of the channels at one place, (channels, channels); all alike when None.
    """
    root = np.eye(weights.shape[1]) if moments is None else whitening(moments[None])[0]
    white = np.einsum("ocp,cj->ojp", weights.astype(np.float64), root, optimize=True)
    rng = np.random.default_rng(0)
    factors = [_started(np.moveaxis(white, axis, 0), rank, rng) for axis in range(3)]
    for _ in range(_SWEEPS):
        for axis in range(3):
            one, other = (factors[i] for i in range(3) if i != axis)
            gram = (one.T @ one) * (other.T @ other)
            gram += _RIDGE * np.trace(gram) / rank * np.eye(rank)
            flat = np.moveaxis(white, axis, 0).reshape(white.shape[axis], -1)
            spread = (one[:, None] * other[None]).reshape(-1, rank)
            factors[axis] = np.linalg.solve(gram, (flat @ spread).T).T
    sizes = [np.maximum(np.linalg.norm(factor, axis=0), 1e-30) for factor in factors]
    even = np.cbrt(sizes[0] * sizes[1] * sizes[2])
    last, inner, middle = (factor / size * even for factor, size in zip(factors, sizes, strict=True))
    first = np.linalg.solve(root.T, inner).T
    return Canonical(first.astype(np.float32), middle.T.astype(np.float32), last.astype(np.float32))


def _started(tensor: Doubles, rank: int, rng: np.random.Generator) -> Doubles:
    """The leading directions of an axis, and noise where there are no more."""
    found = _leading(tensor, min(rank, len(tensor)))
    noise = rng.standard_normal((len(tensor), rank - found.shape[1])) / len(tensor) ** 0.5
    return np.concatenate([found, noise], axis=1)


def _leading(tensor: Doubles, rank: int) -> Doubles:
    """The directions of the first axis that carry most, (size, rank), orthonormal."""
    flat = tensor.reshape(len(tensor), -1)
    directions: Doubles = np.linalg.eigh(flat @ flat.T)[1][:, ::-1][:, :rank]
    return directions
