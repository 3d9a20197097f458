"""The 25 keypoints on the default body: few vertices each, where BlazePose places them in pictures.

Anatomical places (joint centres from anny's bones; nose tip, tragus, heel and toe tip from the surface) are moved by
the detector's habits, measured on renders of this body (keypoint_bias). A joint's vertices are also chosen so that
its keypoint stays put while the joint bends. V vertices, S shapes (mean first), K = 25; metres, T-pose, y up.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls
from scipy.spatial import cKDTree

from core.skeleton import JOINT_NAMES, KEYPOINT_MIRROR, KEYPOINT_NAMES, PARENTS

FOLLOWED_SHAPES = 4
"""The mean and this many minus one components are met exactly; more would need more vertices."""
REACHES = (120, 300, 700, 1500)
"""Nearest vertices a keypoint may use: the first number that surrounds it."""
TOLERANCE = 1e-3
JOINT_POINTS = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
KNUCKLES = {"pinky": "finger5-1.L", "index": "finger2-1.L", "thumb": "finger1-3.L"}
TRAGUS_FROM_EYE = (0.043, -0.018, -0.073)
"""Offset from the left eye's centre to the tragus on the mean adult, metres."""
DETECTOR_HABITS = {
    "nose": (0.0, 12.0, -18.0),
    "ear": (-20.0, 6.0, 18.0),
    "elbow": (0.0, 5.0, 12.0),
    "pinky": (-11.0, -5.0, 28.0),
    "index": (-20.0, -7.0, -12.0),
    "thumb": (-16.0, 30.0, -42.0),
    "hip": (2.0, 19.0, 15.0),
    "ankle": (0.0, 30.0, 8.0),
    "heel": (-6.0, 29.0, 11.0),
    "toe": (19.0, 12.0, -28.0),
}
"""Millimetres from the anatomical place of a left keypoint to where the detector sees it, in rest axes of the bone it
moves with. Clicked hips lie above the joint, ankles above the ankle, hand points nearer the middle of the hand."""


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
    joint_of = {name: i for i, name in enumerate(JOINT_NAMES)}
    on_head = weights[:, joint_of["head"]] > 0.9
    on_foot = weights[:, [joint_of["left_ankle"], joint_of["left_foot"]]].sum(1) > 0.9
    for row, name in enumerate(KEYPOINT_NAMES):
        stem = name.removeprefix("left_")
        if name.startswith("right_"):
            continue
        habit = np.array(DETECTOR_HABITS.get(stem, (0.0, 0.0, 0.0))) / 1000
        joint = joint_of.get(name)
        if stem in JOINT_POINTS:
            places = joint_shapes[:, joint].copy()
        elif stem in KNUCKLES:
            places = bone_shapes[:, bones.index(KNUCKLES[stem])].copy()
        elif stem == "ear":
            tragus = bone_shapes[0, bones.index("eye.L")] + TRAGUS_FROM_EYE
            places = _surface_point(shapes, np.flatnonzero(on_head & (mean[:, 0] > 0.02)), tragus)
        elif stem == "nose":
            head = np.flatnonzero(on_head)
            tip = mean[head[np.argmax(mean[head, 2])]] * [0, 1, 1]
            places = _surface_point(shapes, head, tip) * [0, 1, 1]
        else:
            foot = np.flatnonzero(on_foot)
            direction = {"heel": (0.0, -0.6, -0.8), "toe": (-0.35, 0.0, 1.0)}[stem]
            places = _surface_point(shapes, foot, mean[foot[np.argmax(mean[foot] @ direction)]])
        places[0] += habit
        hinge = None
        if stem in JOINT_POINTS:
            hinge = weights[:, _carried_by(joint)].sum(1), joint_shapes[0, joint]
        regressor[row] = _few_vertices(shapes, places, hinge)
    for row, opposite in enumerate(KEYPOINT_MIRROR):
        if KEYPOINT_NAMES[row].startswith("right_"):
            regressor[row] = regressor[opposite][mirror]
        elif row == opposite:
            regressor[row] = (regressor[row] + regressor[row][mirror]) / 2
    return regressor


def _few_vertices(shapes: np.ndarray, places: np.ndarray, hinge: tuple[np.ndarray, np.ndarray] | None) -> np.ndarray:
    """Weights [V] meeting places [S, 3].

    hinge (weights [V] of the skin the joint carries, centre [3]) of the joint the point belongs to: that skin is
    then balanced about the centre, sum r_v w_v (v - centre) = 0, so that turning the joint leaves the point in place.
    """
    best, least = None, np.inf
    for reach in REACHES:
        weights = _few_within(shapes, places, hinge, reach)
        miss = np.abs(weights @ shapes[0] - places[0]).max()
        if hinge is not None:
            miss = max(miss, np.abs((weights * hinge[0]) @ (shapes[0] - hinge[1])).max())
        if miss < least:
            best, least = weights, miss
        if least < TOLERANCE:
            break
    return best


def _few_within(shapes: np.ndarray, places: np.ndarray, hinge, reach: int) -> np.ndarray:
    mean = shapes[0]
    _, chosen = cKDTree(mean).query(places[0], k=reach)
    local = shapes[:FOLLOWED_SHAPES, chosen].copy()
    goals = places[:FOLLOWED_SHAPES].copy()
    local[0] -= places[0]
    goals[0] = 0
    equations = [local.transpose(0, 2, 1).reshape(-1, len(chosen)), np.ones((1, len(chosen)))]
    if hinge is not None:
        own_weights, centre = hinge
        equations.append((own_weights[chosen, None] * (mean[chosen] - centre)).T)
    A = np.concatenate(equations)
    b = np.concatenate([goals.reshape(-1), [1.0], np.zeros(len(A) - goals.size - 1)])
    solution, _ = nnls(A, b, maxiter=50 * len(chosen))
    weights = np.zeros(len(mean))
    weights[chosen] = solution / solution.sum()
    return weights


def _carried_by(joint: int) -> list[int]:
    """The joint and all below it."""
    found = [joint]
    for child in range(joint + 1, len(PARENTS)):
        if PARENTS[child] in found:
            found.append(child)
    return found


def _surface_point(shapes: np.ndarray, candidates: np.ndarray, place: np.ndarray, count: int = 4) -> np.ndarray:
    """How the skin near a place moves with the shape: mean of the `count` nearest candidates [S, 3]."""
    _, nearest = cKDTree(shapes[0][candidates]).query(place, k=count)
    return shapes[:, candidates[nearest]].mean(1)
