"""Rotations turned to joints: exact on a posed body, and each bone along its joints where they disagree."""

from __future__ import annotations

import numpy as np
import torch

from core.body import load_body
from core.models.orient import global_rotations, turn_to_joints
from core.rotation import axis_angle_to_matrix
from core.skeleton import JOINT_NAMES, PARENTS


def posed(count: int = 4):
    body = load_body().double()
    g = torch.Generator().manual_seed(1)
    rotmats = axis_angle_to_matrix(torch.randn((count, 24, 3), generator=g, dtype=torch.float64) * 0.5)
    betas = torch.randn((count, 16), generator=g, dtype=torch.float64)
    joints, world = body.forward_kinematics(rotmats, betas, torch.zeros(3, dtype=torch.float64))
    return body, rotmats, betas, joints - joints[:, :1], world


def test_true_joints_and_rotations_stay() -> None:
    body, rotmats, betas, joints, world = posed()
    torch.testing.assert_close(global_rotations(rotmats, PARENTS), world)
    turned = turn_to_joints(rotmats, joints, body.rest_joints(betas), PARENTS)
    torch.testing.assert_close(turned, rotmats, atol=1e-6, rtol=0)


def test_single_bones_point_along_the_joints_and_keep_their_twist() -> None:
    body, rotmats, betas, joints, _ = posed()
    noisy = axis_angle_to_matrix(torch.full((4, 24, 3), 0.2, dtype=torch.float64)) @ rotmats
    turned = turn_to_joints(noisy, joints, body.rest_joints(betas), PARENTS, head_weight=1e-6)
    found = body.forward_kinematics(turned, betas, torch.zeros(3, dtype=torch.float64))[0]
    for name in ("elbow", "wrist", "knee", "ankle"):  # their parents have one child
        j = JOINT_NAMES.index(f"left_{name}")
        seen, wanted = ((p[:, j] - p[:, PARENTS[j]]).numpy() for p in (found, joints))
        np.testing.assert_allclose(seen, wanted, atol=1e-4)
    head = JOINT_NAMES.index("head")
    torch.testing.assert_close(turned[:, head], noisy[:, head])  # a joint without children keeps what it had


def test_the_result_is_a_rotation_even_for_mirrored_joints() -> None:
    body, rotmats, betas, joints, _ = posed()
    turned = turn_to_joints(rotmats, joints * torch.tensor([-1.0, 1, 1]).double(), body.rest_joints(betas), PARENTS)
    torch.testing.assert_close(torch.linalg.det(turned), torch.ones(4, 24, dtype=torch.float64))
    eye = torch.eye(3, dtype=torch.float64).expand(4, 24, 3, 3)
    torch.testing.assert_close(turned @ turned.transpose(-1, -2), eye, atol=1e-9, rtol=0)
