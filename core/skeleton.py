"""Names and topology of the 24 SMPL joints and the 25 keypoints, and of what a shape is made. Pure data, standard
library only."""

from __future__ import annotations

from core import protocol

JOINT_NAMES, PARENTS = protocol.JOINT_NAMES, protocol.PARENTS
JOINT_COUNT = len(JOINT_NAMES)

KEYPOINT_NAMES: tuple[str, ...] = (
    "nose",
    "left_ear",
    "right_ear",
    "left_shoulder",
    "right_shoulder",
    "left_elbow",
    "right_elbow",
    "left_wrist",
    "right_wrist",
    "left_pinky",
    "right_pinky",
    "left_index",
    "right_index",
    "left_thumb",
    "right_thumb",
    "left_hip",
    "right_hip",
    "left_knee",
    "right_knee",
    "left_ankle",
    "right_ankle",
    "left_heel",
    "right_heel",
    "left_toe",
    "right_toe",
)
KEYPOINT_COUNT = len(KEYPOINT_NAMES)
BLAZEPOSE_INDICES: tuple[int, ...] = (0, 7, 8, *range(11, 33))
"""Which of BlazePose's 33 landmarks each keypoint is."""


def mirrored_name(name: str) -> str:
    """Return the name of the other side: left_x <-> right_x; names without a side are unchanged."""
    if name.startswith("left_"):
        return "right_" + name[5:]
    if name.startswith("right_"):
        return "left_" + name[6:]
    return name


JOINT_MIRROR: tuple[int, ...] = tuple(JOINT_NAMES.index(mirrored_name(n)) for n in JOINT_NAMES)
KEYPOINT_MIRROR: tuple[int, ...] = tuple(KEYPOINT_NAMES.index(mirrored_name(n)) for n in KEYPOINT_NAMES)

PRINCIPAL_COUNT = 10
LENGTHS = ("upper arm", "forearm", "thigh", "shin", "trunk", "shoulders")
SHAPE_COUNT = PRINCIPAL_COUNT + len(LENGTHS)
"""Coefficients of any body's shape: principal components, then what lengthens a part, which official bodies lack."""
