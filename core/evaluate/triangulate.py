"""Where a person's keypoints were, from several calibrated views of them: the reference that one view is held to.

A detector exchanges left and right in some views and frames. Which, is decided by what fits together: the other views
and the frame before. C cameras, N frames, K = 25 keypoints.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from core.evaluate.rig import RigCamera
from core.recover.jumps import GROUPS, MIRROR
from core.smooth import smooth_positions

ROBUST_PX = 12.0
"""Distance at which a view's weight has fallen to a quarter."""
CAP_PX = 80.0
EXCHANGED_PX = 2.0
"""Cost of each exchanged view."""
JUMP_PX = 20.0
"""Cost of a metre from the frame before."""
SHIFT_ROUNDS = 30
REWEIGHTED = 6
SMOOTHING_S = 0.03
LEAST_CONFIDENCE = 0.05


@dataclass(frozen=True)
class Reference:
    points: np.ndarray
    """[N, K, 3] m, world."""
    exchanged: np.ndarray
    """[C, N, G] bool: what the detector named the wrong way round (jumps.GROUPS)."""
    shifts: np.ndarray
    """[C, 2] px by which each view was moved, for all views to agree."""
    residual_px: float
    """Median distance of the detector's keypoints from the projected reference."""


def find_reference(keypoints: np.ndarray, cameras: list[RigCamera], times: np.ndarray) -> Reference:
    """keypoints [C, N, K, 3] px and confidence of one person in synchronous views at times [N] s."""
    seen = np.stack([camera.undistort(view[..., :2]) for camera, view in zip(cameras, keypoints)])
    weights = keypoints[..., 2].astype(np.float64) + LEAST_CONFIDENCE
    projections = np.stack([camera.projection for camera in cameras])
    shifts = np.zeros((len(cameras), 2))
    for _ in range(2):  # sides, then shifts, then both again
        moved = seen - shifts[:, None, None]
        exchanged = _choose_sides(moved, weights, projections)
        points, known = exchange(moved, exchanged), exchange(weights[..., None], exchanged)[..., 0]
        for _ in range(SHIFT_ROUNDS):
            world = triangulate(points, known, projections, passes=1)
            off = np.median(points - project(world, projections), axis=(1, 2))
            points, shifts = points - off[:, None, None], shifts + off
    world = triangulate(points, known, projections)
    residual = np.linalg.norm(points - project(world, projections), axis=-1)
    smooth = np.stack([smooth_positions(world[:, k], times, SMOOTHING_S) for k in range(world.shape[1])], 1)
    return Reference(smooth, exchanged, shifts, float(np.median(residual)))


def triangulate(
    points: np.ndarray, weights: np.ndarray, projections: np.ndarray, *, passes: int = REWEIGHTED
) -> np.ndarray:
    """px [C, ..., 2] with weights [C, ...] seen through projections [C, 3, 4] -> world [..., 3].

    Direct linear transform (Hartley and Zisserman, Multiple View Geometry, 12.2), reweighted `passes` times by what
    each view is off, so that one wrong view of several does not count.
    """
    P = projections.reshape(len(projections), *([1] * (points.ndim - 2)), 3, 4)
    rows = points[..., None] * P[..., 2:, :] - P[..., :2, :]  # [C, ..., 2, 4]
    factor = np.ones_like(weights)
    for _ in range(passes):
        A = np.moveaxis(rows * (weights * factor)[..., None, None], 0, -3)
        A = A.reshape(*A.shape[:-3], -1, 4)
        X = np.linalg.svd(A)[2][..., -1, :]
        world = X[..., :3] / X[..., 3:]
        off = np.linalg.norm(points - project(world, projections), axis=-1)
        factor = 1 / (1 + (off / ROBUST_PX) ** 2)
    return world


def project(world: np.ndarray, projections: np.ndarray) -> np.ndarray:
    """world [..., 3] m -> px [C, ..., 2]."""
    homogeneous = np.concatenate([world, np.ones_like(world[..., :1])], -1)
    seen = np.einsum("cij,...j->c...i", projections, homogeneous)
    return seen[..., :2] / seen[..., 2:]


def exchange(values: np.ndarray, exchanged: np.ndarray) -> np.ndarray:
    """values [C, N, K, D] with left and right exchanged in the groups where exchanged [C, N, G]."""
    where = (exchanged[..., None] & GROUPS).any(-2)  # [C, N, K]
    return np.where(where[..., None], values[:, :, MIRROR], values)


def _choose_sides(points: np.ndarray, weights: np.ndarray, projections: np.ndarray) -> np.ndarray:
    """[C, N, G] bool: the exchanges that agree best with each other, and with the frame before."""
    C, N = points.shape[:2]
    chosen = np.zeros((C, N, len(GROUPS)), bool)
    options = np.array(list(itertools.product((False, True), repeat=C)))  # [O, C]
    for g, group in enumerate(GROUPS):
        mine, before = np.flatnonzero(group), None
        for t in range(N):
            both = np.stack([points[:, t][:, mine], points[:, t][:, MIRROR[mine]]])  # [2, C, k, 2]
            sure = np.stack([weights[:, t][:, mine], weights[:, t][:, MIRROR[mine]]])
            index = options.T.astype(int)  # [C, O]
            tried = np.stack([both[index[c], c] for c in range(C)])  # [C, O, k, 2]
            world = triangulate(tried, np.stack([sure[index[c], c] for c in range(C)]), projections, passes=1)
            off = np.linalg.norm(tried - project(world, projections), axis=-1)
            cost = np.minimum(off, CAP_PX).mean((0, 2)) + EXCHANGED_PX * options.sum(1)
            if before is not None:
                cost += JUMP_PX * np.minimum(np.linalg.norm(world - before, axis=-1).mean(1), 1.0)
            best = int(cost.argmin())
            chosen[:, t, g], before = options[best], world[best]
    return chosen
