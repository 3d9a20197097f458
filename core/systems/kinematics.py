"""Joints of the body from rotations and shape, within a network: what TCMR and LMR regress is judged by them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from core.models.hyperbolic import CoarseBody, turn_joints


class Kinematics(nn.Module):
    """Local rotations [B, J, 3, 3] and shape [B, S] -> joints [B, J, 3] relative to the pelvis. Nothing to learn."""

    def __init__(self, body: CoarseBody):
        super().__init__()
        self.parents = body.parents
        self.register_buffer("joints", body.joints.clone(), persistent=False)
        self.register_buffer("shapedirs", body.joint_shapedirs.clone(), persistent=False)

    def forward(self, rotmats: Tensor, betas: Tensor) -> Tensor:
        rest = self.joints + torch.einsum("jdk,bk->bjd", self.shapedirs, betas)
        return turn_joints(rotmats, rest, self.parents)[1]
