"""Corrective shape keys: what skinning misses of the streamed vertices, in at most 16 principal components. No bpy.

The residual of a frame is taken back into the rest pose, r = A^-1 (v - skin), with A the blended rotation of each
vertex, so that the armature carries it where it belongs. S sampled frames, V vertices.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np

from .bodydata import BodyData, blend_transforms, skinning_transforms

LIMIT = 16
SAMPLES = 128
"""Frames that the components are computed from, spread evenly; the weights are computed for every frame."""
_BLOCK = 4096
"""Columns of the samples that one piece of work takes."""
_AT_ONCE = 64
"""Frames whose bone transforms one piece of work computes."""
SMALLEST_M = 2e-5
"""Components that move no vertex by more than this root mean square over the frames are left out."""


@dataclass(frozen=True)
class Correctives:
    """deltas [K, V, 3] in the engine's rest frame at value 1; values [N, K] in -1..1; error_m before and after."""

    deltas: np.ndarray
    values: np.ndarray
    rms_before_m: float
    rms_after_m: float


def rest_residual(
    body: BodyData, rest: np.ndarray, vertices: np.ndarray, rotations: np.ndarray, translations: np.ndarray
) -> np.ndarray:
    """Residual [V, 3] of one frame in the rest pose.

    rest [V, 3] the shaped body, vertices [V, 3] world, rotations [24, 3, 3] and translations [24, 3] from
    `skinning_transforms`. Where blended rotations nearly cancel (determinant below 0.2) the transpose stands in for
    the inverse, which keeps the correction bounded.
    """
    blend, shift = blend_transforms(body, rotations, translations)
    residual = vertices.T - _times(np.ascontiguousarray(blend.transpose(1, 2, 0)), rest.T) - shift.T
    x, y, z = np.ascontiguousarray(blend.transpose(2, 1, 0))
    rows = np.stack([_cross(y, z), _cross(z, x), _cross(x, y)])
    determinant = (x * rows[0]).sum(axis=0)
    is_flat = determinant < 0.2
    determinant[is_flat] = 1.0
    rows /= determinant
    rows[:, :, is_flat] = np.stack([x, y, z])[:, :, is_flat]
    return _times(rows, residual).T


def _times(matrices: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Matrices [3, 3, V] times vectors [3, V]."""
    return (matrices * vectors).sum(axis=1)


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cross products of [3, V] and [3, V]."""
    return np.stack([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])


def compute_correctives(
    body: BodyData, betas: np.ndarray, poses: np.ndarray, trans: np.ndarray, read_vertices
) -> Generator[str, None, Correctives]:
    """Yield before each further piece of work, saying what kind it is; return the correctives.

    poses [N, 24, 3], trans [N, 3]; read_vertices(n) returns frame n's world vertices [V, 3].
    """
    count = len(poses)
    joints, rest = body.rest_joints(betas), body.rest_vertices(betas).astype(np.float32)
    rotations, translations = np.empty((count, len(joints), 3, 3)), np.empty((count, len(joints), 3))
    for start in range(0, count, _AT_ONCE):
        yield "transforms"
        some = slice(start, start + _AT_ONCE)
        rotations[some], translations[some] = skinning_transforms(poses[some], trans[some], joints)
    yield "residual"

    def residual(n: int) -> np.ndarray:
        return rest_residual(body, rest, read_vertices(n), rotations[n], translations[n]).reshape(-1)

    chosen = np.unique(np.linspace(0, count - 1, min(count, SAMPLES)).round().astype(int))
    samples = np.empty((len(chosen), rest.size), dtype=np.float32)
    for i, n in enumerate(chosen):
        samples[i] = residual(n)
        yield "residual"
    components = yield from principal_components(samples, len(rest))
    yield "residual"
    weights = np.empty((count, len(components)))
    before = after = 0.0
    for n in range(count):
        r = residual(n)
        weights[n] = components @ r
        before += float(r @ r)
        after += float(r @ r) - float(weights[n] @ weights[n])
        yield "residual"
    yield "deltas"
    scale = np.abs(weights).max(axis=0, initial=0.0)
    scale[scale == 0] = 1.0
    deltas = np.empty((len(components), len(rest), 3), dtype=np.float32)
    for k in range(len(components)):
        deltas[k] = (components[k] * scale[k]).reshape(-1, 3)
    yield "corrective key"
    points = max(count * len(rest), 1)
    return Correctives(
        deltas,
        weights / scale,
        float(np.sqrt(before / points)),
        float(np.sqrt(max(after, 0.0) / points)),
    )


def principal_components(samples: np.ndarray, vertex_count: int) -> Generator[str, None, np.ndarray]:
    """Orthonormal rows [K, 3V], K <= 16, that carry most of samples [S, 3V]: eigenvectors of the S x S Gram matrix.

    Not centred: the zero correction must stay reachable, and a constant residual becomes the first component.
    Yields as `compute_correctives` does.
    """
    blocks = [slice(start, start + _BLOCK) for start in range(0, samples.shape[1], _BLOCK)]
    gram = np.zeros((len(samples), len(samples)))
    for block in blocks:
        yield "gram"
        gram += samples[:, block] @ samples[:, block].T
    yield "eigenvectors"
    energy, vectors = np.linalg.eigh(gram)
    energy, vectors = energy[::-1][:LIMIT], vectors[:, ::-1][:, :LIMIT]
    floor = SMALLEST_M**2 * vertex_count * len(samples)
    keep = energy > max(floor, energy.max(initial=0.0) * 1e-9)
    mix = (vectors[:, keep] / np.sqrt(energy[keep])).T
    components, overlap = np.zeros((len(mix), samples.shape[1])), np.zeros((len(mix), len(mix)))
    for block in blocks:
        yield "components"
        components[:, block] = mix @ samples[:, block]
        overlap += components[:, block] @ components[:, block].T
    # rounding has left them a little oblique: the inverse of Cholesky's triangle makes them orthonormal
    straighten = np.linalg.inv(np.linalg.cholesky(overlap))
    for block in blocks:
        yield "components"
        components[:, block] = straighten @ components[:, block]
    return components
