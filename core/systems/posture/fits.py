"""What is fitted to the body when the network is built: rows of coefficients that give points from other points.

Joints from coarse vertices, coarse vertices from a few of them (the start of the paper's coefficient matrix C), and
those few from the keypoints. Rows sum to 1, so that they hold in any axes and under any weak perspective. n example
postures, P sources, Q targets, J joints, K keypoints, V' coarse vertices.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from core.models.hyperbolic import CoarseBody, skin_by_joints
from core.rotation import axis_angle_to_matrix
from core.skeleton import JOINT_NAMES, KEYPOINT_NAMES

EXAMPLES = 256
SPREAD = 0.35
"""Radians: standard deviation of each number of a joint's axis-angle vector in the examples."""
SEED = 20240617
LOCALITY = 3e-3
"""Weight of the squared coefficients times the squared distance at rest, beside the squared error per example."""

STAND_INS = {
    "nose": "head",
    "ear": "head",
    "pinky": "hand",
    "index": "hand",
    "thumb": "hand",
    "heel": "ankle",
    "toe": "foot",
}
"""Joints that stand for keypoints of another name, whose true places on the body a CoarseBody does not tell."""


def skin(body: CoarseBody, rotmats: Tensor, betas: Tensor) -> tuple[Tensor, Tensor]:
    """Vertices [B, V', 3] and joints [B, J, 3] of local rotations [B, J, 3, 3] and shape [B, S], pelvis at 0."""
    count = betas.shape[1]
    rest_joints = body.joints + torch.einsum("jdk,bk->bjd", body.joint_shapedirs[..., :count], betas)
    rest = body.template + torch.einsum("vdk,bk->bvd", body.shapedirs[..., :count], betas)
    return skin_by_joints(rest, rest_joints, rotmats, body.parents, body.weights)


def example_postures(body: CoarseBody) -> tuple[Tensor, Tensor]:
    """Vertices [n, V', 3] and joints [n, J, 3] of the same random postures and shapes every time; the first rests."""
    generator = torch.Generator().manual_seed(SEED)
    turns = SPREAD * torch.randn(EXAMPLES, len(body.parents), 3, generator=generator)
    betas = torch.randn(EXAMPLES, body.shapedirs.shape[-1], generator=generator)
    turns[0], betas[0] = 0, 0
    return skin(body, axis_angle_to_matrix(turns), betas)


def keypoint_stand_ins(joints: Tensor) -> Tensor:
    """joints [n, J, 3] -> the K points that stand for the keypoints [n, K, 3]."""
    return joints[:, [JOINT_NAMES.index(_stand_in(name)) for name in KEYPOINT_NAMES]]


def _stand_in(keypoint: str) -> str:
    side, _, part = keypoint.rpartition("_")
    part = STAND_INS.get(part, part)
    return part if part in JOINT_NAMES else f"{side}_{part}"


def coefficients(sources: Tensor, targets: Tensor) -> Tensor:
    """Rows [Q, P] that sum to 1 and take sources [n, P, 3] to targets [n, Q, 3] by least squares; the first example
    is the one at rest.

    Sources far away at rest are held back (LOCALITY), as chance would let them in: the examples are few.
    """
    n, P, _ = sources.shape
    S = sources.double().transpose(1, 2).reshape(-1, P)  # [3n, P]
    Y = targets.double().transpose(1, 2).reshape(len(S), -1)  # [3n, Q]
    held = LOCALITY * torch.cdist(targets[0].double(), sources[0].double()).square().clamp_min(1e-6)  # [Q, P]
    normal = S.T @ S / n
    # a Lagrange multiplier for the sum
    system = torch.zeros(Y.shape[1], P + 1, P + 1, dtype=torch.float64)
    system[:, :P, :P] = normal + torch.diag_embed(held)
    system[:, P, :P] = system[:, :P, P] = 1
    right = torch.cat(((S.T @ Y / n).T, torch.ones(Y.shape[1], 1, dtype=torch.float64)), dim=1)
    # numpy's: torch 2.13's batched solve refused these systems in a process that had done much else ("Pivots given
    # to lu_solve must all be greater or equal to 1")
    solved = np.linalg.solve(system.numpy(), right.numpy()[..., None])[..., 0]
    return torch.from_numpy(solved)[:, :P].float()
