"""The 25 keypoints on official SMPL bodies (6,890 vertices), whose files bring no keypoint regressor.

Each keypoint is a weighted mean of joints (rows of the joint regressor) and vertices of SMPL's known topology, with
the shares that put it where the shipped body has it: where BlazePose sees it (core.make.keypoints). V = 6890.
"""

from __future__ import annotations

import numpy as np

from core.skeleton import JOINT_NAMES, KEYPOINT_NAMES, mirrored_name

SMPL_VERTEX_COUNT = 6890
LANDMARK_VERTICES = {
    "nose": 332,
    "left_ear": 583,
    "right_ear": 4071,
    "left_heel": 3387,
    "right_heel": 6787,
    "left_big_toe": 3216,
    "right_big_toe": 6617,
    "left_thumb_tip": 2746,
    "right_thumb_tip": 6191,
    "left_index_tip": 2319,
    "right_index_tip": 5782,
    "left_pinky_tip": 2673,
    "right_pinky_tip": 6133,
}
"""Vertex ids of SMPL's topology, as in smplx/vertex_ids.py (vchoutas/smplx) under "smplh"."""
HIP_OUTWARD = 0.15
"""SMPL's hip joints lie nearer together than the shipped body's: moved apart by this share of their distance."""
SHARES: dict[str, dict[str, float]] = {
    "nose": {"nose": 0.845, "left_ear": 0.0775, "right_ear": 0.0775},
    "left_ear": {"left_ear": 0.785, "right_ear": 0.06, "nose": 0.155},
    "left_shoulder": {"left_shoulder": 1.0},
    "left_elbow": {"left_elbow": 1.0},
    "left_wrist": {"left_wrist": 1.0},
    "left_pinky": {"left_wrist": 0.33, "left_hand": 0.47, "left_pinky_tip": 0.2},
    "left_index": {"left_wrist": 0.33, "left_hand": 0.5, "left_index_tip": 0.17},
    "left_thumb": {"left_wrist": 0.45, "left_hand": 0.3, "left_thumb_tip": 0.25},
    "left_hip": {"left_hip": 0.97, "right_hip": -0.07, "spine1": 0.1},
    "left_knee": {"left_knee": 1.0},
    "left_ankle": {"left_ankle": 0.93, "left_knee": 0.07},
    "left_heel": {"left_heel": 0.58, "left_ankle": 0.42},
    "left_toe": {"left_big_toe": 0.48, "left_foot": 0.52},
}
"""Keypoint -> share of each landmark or joint (a landmark's name goes first); right sides mirror the left."""


def smpl_keypoint_regressor(J_regressor: np.ndarray) -> np.ndarray:
    """Regressor [25, 6890], rows sum to 1, from SMPL's J_regressor [24, 6890]."""
    return keypoint_rows(J_regressor, LANDMARK_VERTICES, hip_outward=HIP_OUTWARD)


def keypoint_rows(J_regressor: np.ndarray, vertices: dict[str, int], *, hip_outward: float = 0.0) -> np.ndarray:
    """Regressor [25, V] for a body with J_regressor [24, V] whose landmarks are the given vertices."""
    joints = J_regressor / J_regressor.sum(1, keepdims=True)
    rows = np.zeros((len(KEYPOINT_NAMES), joints.shape[1]))
    for row, name in zip(rows, KEYPOINT_NAMES):
        is_right = name.startswith("right_")
        for part, share in SHARES[mirrored_name(name) if is_right else name].items():
            part = mirrored_name(part) if is_right else part
            if part in vertices:
                row[vertices[part]] += share
            else:
                row += share * joints[JOINT_NAMES.index(part)]
        if name.endswith("_hip"):
            own, other = JOINT_NAMES.index(name), JOINT_NAMES.index(mirrored_name(name))
            row += hip_outward * (joints[own] - joints[other])
    return rows
