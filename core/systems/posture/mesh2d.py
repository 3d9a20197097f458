"""The 2D mesh M_0 of a frame: points read from the frame, and a coefficient matrix C from points to coarse vertices.

Paper, section 3.1: HRNet's heat maps give 81 points P and M_0 = C P has 431. Here the detector has read the image
already. The same 81 points start as a linear combination A of its 25 keypoints in crop units, which a small residual
network on all that it says of the frame (keypoints, confidences, 3D landmarks, image embedding) corrects; keypoints
that are not seen are 0 in A's sum, and the network, which is told so, makes up for them. B frames, K keypoints.
"""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from core.models.inputs import CROP_XY


class ResidualBlock(nn.Module):
    """x + narrow(gelu(widen(norm(x)))). [..., D] -> [..., D]."""

    def __init__(self, dim: int, mlp_ratio: float = 2.0):
        super().__init__()
        hidden = int(dim * mlp_ratio)
        self.norm = nn.LayerNorm(dim)
        self.widen, self.narrow = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.narrow(functional.gelu(self.widen(self.norm(x)), approximate="tanh"))


class FrameEncoder(nn.Module):
    """Image feature F [B, n_in] of a frame -> a pooled feature [B, dim]."""

    def __init__(self, n_in: int, dim: int, depth: int):
        super().__init__()
        self.embed = nn.Linear(n_in, dim)
        self.blocks = nn.ModuleList(ResidualBlock(dim) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)

    def forward(self, F: Tensor) -> Tensor:
        x = functional.gelu(self.embed(F), approximate="tanh")
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class Mesh2D(nn.Module):
    """inputs [B, K, INPUT_SIZE] and F [B, n_in] of frames -> M_0 [B, V', 2] in crop units."""

    def __init__(self, C: Tensor, A: Tensor, *, feature_size: int, dim: int, depth: int):
        """C [V', P] and A [P, K] to start from."""
        super().__init__()
        self.C, self.A = nn.Parameter(C.clone()), nn.Parameter(A.clone())
        self.encoder = FrameEncoder(feature_size, dim, depth)
        self.head = nn.Linear(dim, 2 * len(A))
        nn.init.normal_(self.head.weight, std=1e-3)
        nn.init.zeros_(self.head.bias)

    def forward(self, inputs: Tensor, F: Tensor) -> Tensor:
        x = self.encoder(F)
        with torch.autocast(F.device.type, enabled=False):
            P = self.A @ inputs[..., CROP_XY].float() + self.head(x.float()).unflatten(-1, (-1, 2))
            return self.C @ P
