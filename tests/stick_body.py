"""A tiny body for tests: a skeleton of plausible bone lengths and one rigid vertex per keypoint and joint."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from core.skeleton import JOINT_NAMES, KEYPOINT_NAMES, PARENTS

LEFT_OFFSETS = {  # metres from the parent joint, left side and middle; y up, facing +z, left is +x
    "pelvis": (0.0, 0.0, 0.0),
    "left_hip": (0.09, -0.08, 0.0),
    "spine1": (0.0, 0.11, -0.02),
    "left_knee": (0.02, -0.42, 0.0),
    "spine2": (0.0, 0.13, 0.0),
    "left_ankle": (0.0, -0.41, -0.02),
    "spine3": (0.0, 0.06, 0.02),
    "left_foot": (0.02, -0.06, 0.12),
    "neck": (0.0, 0.21, -0.03),
    "left_collar": (0.07, 0.12, -0.02),
    "head": (0.0, 0.09, 0.05),
    "left_shoulder": (0.11, 0.03, 0.0),
    "left_elbow": (0.27, -0.01, -0.02),
    "left_wrist": (0.26, 0.0, 0.0),
    "left_hand": (0.09, 0.0, 0.0),
}
LEFT_KEYPOINTS = {  # joint it moves with, metres from that joint
    "nose": ("head", (0.0, 0.03, 0.11)),
    "left_ear": ("head", (0.075, 0.04, 0.0)),
    "left_shoulder": ("left_shoulder", (0.0, 0.0, 0.0)),
    "left_elbow": ("left_elbow", (0.0, 0.0, 0.0)),
    "left_wrist": ("left_wrist", (0.0, 0.0, 0.0)),
    "left_pinky": ("left_wrist", (0.09, 0.0, -0.04)),
    "left_index": ("left_wrist", (0.1, 0.0, 0.03)),
    "left_thumb": ("left_wrist", (0.06, -0.01, 0.06)),
    "left_hip": ("left_hip", (0.0, 0.0, 0.0)),
    "left_knee": ("left_knee", (0.0, 0.0, 0.0)),
    "left_ankle": ("left_ankle", (0.0, 0.0, 0.0)),
    "left_heel": ("left_ankle", (0.0, -0.06, -0.05)),
    "left_toe": ("left_foot", (0.0, -0.02, 0.08)),
}


def _both_sides(names, table) -> list:
    rows = []
    for name in names:
        if name in table:
            rows.append(table[name])
            continue
        entry = table[name.replace("right_", "left_")]
        if isinstance(entry[0], str):
            joint, (x, y, z) = entry
            rows.append((joint.replace("left_", "right_"), (-x, y, z)))
        else:
            rows.append((-entry[0], entry[1], entry[2]))
    return rows


def build_stick_body() -> SimpleNamespace:
    """The attributes fitting reads of core.body.Body. Shape 1 is overall size, 2 leg length, the rest zero."""
    offsets = torch.tensor(_both_sides(JOINT_NAMES, LEFT_OFFSETS), dtype=torch.float64)
    by_shape = torch.zeros(24, 3, 16, dtype=torch.float64)
    by_shape[..., 0] = 0.05 * offsets
    for name in ("left_knee", "right_knee", "left_ankle", "right_ankle"):
        by_shape[JOINT_NAMES.index(name), :, 1] = 0.06 * offsets[JOINT_NAMES.index(name)]
    joints, joints_by_shape = offsets.clone(), by_shape.clone()
    for j in range(1, 24):
        joints[j] += joints[PARENTS[j]]
        joints_by_shape[j] += joints_by_shape[PARENTS[j]]
    keypoints = _both_sides(KEYPOINT_NAMES, LEFT_KEYPOINTS)
    owner = [JOINT_NAMES.index(joint) for joint, _ in keypoints]
    local = torch.tensor([offset for _, offset in keypoints], dtype=torch.float64)
    template = torch.cat([joints, joints[owner] + local])
    shapedirs = torch.cat([joints_by_shape, joints_by_shape[owner]])
    shapedirs[24:, :, 0] += 0.05 * local
    weights = torch.zeros(49, 24, dtype=torch.float64)
    weights[range(49), [*range(24), *owner]] = 1
    regressor = torch.zeros(25, 49, dtype=torch.float64)
    regressor[range(25), range(24, 49)] = 1
    return SimpleNamespace(
        name="stick",
        v_template=template,
        shapedirs=shapedirs,
        weights=weights,
        keypoint_regressor=regressor,
        joint_template=joints,
        joint_shapedirs=joints_by_shape,
    )
