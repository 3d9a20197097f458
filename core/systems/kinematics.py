"""Joints of the body from rotations and shape, within a network: what TCMR and LMR regress is judged by them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from core.models.hyperbolic import CoarseBody


class Kinematics(nn.Module):
    """Local rotations [B, J, 3, 3] and shape [B, S] -> joints [B, J, 3] relative to the pelvis. Nothing to learn."""

    def __init__(self, body: CoarseBody):
        super().__init__()
        self.parents = body.parents
        self.register_buffer("joints", body.joints.clone(), persistent=False)
        self.register_buffer("shapedirs", body.joint_shapedirs.clone(), persistent=False)

    def forward(self, rotmats: Tensor, betas: Tensor) -> Tensor:
        rest = self.joints + torch.einsum("jdk,bk->bjd", self.shapedirs, betas)
        turned, places = [rotmats[:, 0]], [torch.zeros_like(rest[:, 0])]
        for j, parent in enumerate(self.parents[1:], 1):
            bone = rest[:, j] - rest[:, parent]
            turned.append(turned[parent] @ rotmats[:, j])
            places.append(places[parent] + (turned[parent] @ bone[..., None])[..., 0])
        return torch.stack(places, 1)
