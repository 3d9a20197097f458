"""The 25 keypoints on official SMPL bodies (6,890 vertices), whose files bring no keypoint regressor.

Surface points are single vertices of SMPL's well-known topology; joint centres are the joint regressor's own rows,
the hips moved outwards to where they show in pictures; knuckles lie between the hand joint and a finger tip.
V = 6890, K = 25.
"""

from __future__ import annotations

import numpy as np

from core.skeleton import JOINT_NAMES, KEYPOINT_NAMES

SMPL_VERTEX_COUNT = 6890
# Vertex ids of SMPL's topology as in smplx/vertex_ids.py (vchoutas/smplx), there "smplh".
SURFACE_VERTICES = {
    "nose": 332,
    "right_ear": 4071,
    "left_ear": 583,
    "left_heel": 3387,
    "right_heel": 6787,
    "left_toe": 3216,
    "right_toe": 6617,
}
FINGER_TIPS = {
    "left_thumb": 2746,
    "left_index": 2319,
    "left_pinky": 2673,
    "right_thumb": 6191,
    "right_index": 5782,
    "right_pinky": 6133,
}
# Share of the finger tip; the rest is the hand joint (pinky and index knuckle) or the wrist (thumb).
TIP_SHARES = {"pinky": 0.28, "index": 0.25, "thumb": 0.72}
HIP_OUTWARD = 0.15
"""The hip keypoint lies this part of the distance between the hip joints further out."""


def smpl_keypoint_regressor(J_regressor: np.ndarray) -> np.ndarray:
    """Regressor [25, 6890], rows sum to 1, from SMPL's J_regressor [24, 6890]."""
    joints = J_regressor / J_regressor.sum(1, keepdims=True)
    joint = {name: joints[i] for i, name in enumerate(JOINT_NAMES)}
    rows = []
    for name in KEYPOINT_NAMES:
        side, _, stem = name.rpartition("_")
        row = np.zeros(joints.shape[1])
        if name in SURFACE_VERTICES:
            row[SURFACE_VERTICES[name]] = 1.0
        elif name in FINGER_TIPS:
            share = TIP_SHARES[stem]
            row = (1 - share) * joint[f"{side}_{'wrist' if stem == 'thumb' else 'hand'}"]
            row[FINGER_TIPS[name]] += share
        elif stem == "hip":
            other = joint["right_hip" if side == "left" else "left_hip"]
            row = (1 + HIP_OUTWARD) * joint[name] - HIP_OUTWARD * other
        else:
            row = joint[name].copy()
        rows.append(row)
    return np.stack(rows)
