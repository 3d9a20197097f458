"""How far each joint turns. Ranges are in components of the rotation vector along three axes of the joint.

The axes are the body's at rest (T-pose, y up, facing +z, left at +x), save the elbow's, whose hinge is tilted: with
the palms down the elbow's crease faces forward and up. Knees and elbows are hinges with a little slack. Degrees; the
left side is listed, the right side is its mirror image: with x reflected, a rotation vector (x, y, z) becomes
(x, -y, -z).

Sources of the ranges: Boone & Azen, "Normal range of motion of joints in male subjects", J. Bone Joint Surg. 61-A,
1979 (hip, knee, ankle, shoulder, elbow, forearm, wrist); Youdas et al., "Normal range of motion of the cervical
spine", Phys. Ther. 72, 1992 (neck and head share it); White & Panjabi, "Clinical Biomechanics of the Spine", 1990
(lumbar and thoracic ranges, shared by three joints); Ludewig et al., "Motion of the shoulder complex", J. Bone Joint
Surg. 91-A, 2009 (clavicle). Rotation vectors are not the clinicians' angles, so ball joints were widened to cover
99.8 % of the motion capture the prior is made from.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from core.recover.chain import POSE_JOINTS
from core.skeleton import JOINT_NAMES

ELBOW_TILT = math.radians(25)
"""Angle of the left elbow's hinge from -y towards +z."""

RANGES: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    # about x (left)          about y (up)     about z (forward)
    "spine1": ((-30.0, 55.0), (-20.0, 20.0), (-25.0, 25.0)),
    "spine2": ((-25.0, 30.0), (-20.0, 20.0), (-20.0, 20.0)),
    "spine3": ((-25.0, 25.0), (-20.0, 20.0), (-20.0, 20.0)),
    "neck": ((-40.0, 40.0), (-45.0, 45.0), (-30.0, 30.0)),
    "head": ((-45.0, 45.0), (-45.0, 45.0), (-30.0, 30.0)),
    "left_hip": ((-125.0, 35.0), (-50.0, 50.0), (-35.0, 65.0)),
    "left_knee": ((-2.0, 150.0), (-6.0, 6.0), (-6.0, 6.0)),
    "left_ankle": ((-45.0, 60.0), (-35.0, 35.0), (-25.0, 25.0)),
    "left_collar": ((-15.0, 15.0), (-25.0, 25.0), (-12.0, 35.0)),
    "left_shoulder": ((-95.0, 95.0), (-130.0, 55.0), (-105.0, 75.0)),
    # along the hinge: flexion +    across it                along the forearm: half of its twist
    "left_elbow": ((-3.0, 150.0), (-32.0, 32.0), (-60.0, 60.0)),
    "left_wrist": ((-60.0, 60.0), (-60.0, 60.0), (-75.0, 75.0)),
}


def _axes(name: str) -> Tensor:
    """Rows: the joint's three axes, left side."""
    if name == "left_elbow":
        c, s = math.cos(ELBOW_TILT), math.sin(ELBOW_TILT)
        return torch.tensor([[0, -c, s], [0, s, c], [1, 0, 0]], dtype=torch.float64)
    return torch.eye(3, dtype=torch.float64)


def _build_tables() -> tuple[Tensor, Tensor, Tensor]:
    """Axes [M-1, 3, 3] (rows), lower and upper [M-1, 3] rad for POSE_JOINTS."""
    axes, lower, upper = [], [], []
    for joint in POSE_JOINTS:
        name = JOINT_NAMES[joint]
        left = name.replace("right_", "left_")
        rows, bounds = _axes(left), torch.tensor(RANGES[left], dtype=torch.float64)
        if name.startswith("right_"):  # the mirrored vector has the components the left one had
            rows = rows * torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64)
        axes.append(rows)
        lower.append(torch.deg2rad(bounds[:, 0]))
        upper.append(torch.deg2rad(bounds[:, 1]))
    return torch.stack(axes), torch.stack(lower), torch.stack(upper)


AXES, LOWER, UPPER = _build_tables()


def excess_over_limits(vectors: Tensor) -> Tensor:
    """Rotation vectors [N, M-1, 3] of POSE_JOINTS -> how far each axis is out of range, rad, signed, 0 inside.

    Components are along the rows of AXES.
    """
    along = torch.einsum("jab,njb->nja", AXES, vectors)
    return (along - UPPER).clamp_min(0) + (along - LOWER).clamp_max(0)
