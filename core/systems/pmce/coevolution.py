"""The co-evolution block of PMCE (section 3.3, equations 6 to 10): pose and mesh refine each other, guided by f.

Either of them is a set of points: joints of P [B, J, 3], coarse vertices of M' [B, V', 3]. The two halves of a block
mirror each other. B windows, n points of the one, m of the other, D token size. Camera axes, metres.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from core.layers import HMLP, HAdaLN, HAttention

POSITION_SCALE = 0.1
"""Spread of the position embeddings at the start, beside coordinates of some 0.3."""


class Half(nn.Module):
    """The pose's or the mesh's half: points -> tokens, and tokens through equations 8, 9 and 10 -> new points.

    The layers of `core.layers` are the ordinary ones where the curvature is None; AdaLN is equation 6, alpha and
    beta linear in f (equation 7), alpha around 1.
    """

    def __init__(self, *, points: int, dim: int, heads: int, mlp_ratio: float, image_dim: int):
        super().__init__()
        self.embed = nn.Linear(3, dim)
        self.position = nn.Parameter(torch.randn(points, dim) * POSITION_SCALE)
        self.norm1, self.norm2, self.norm3, self.norm4 = (HAdaLN(dim, image_dim) for _ in range(4))
        self.cross_attention = HAttention(dim, heads, "tangent")
        self.mlp1 = HMLP(dim, mlp_ratio)
        self.self_attention = HAttention(dim, heads, "tangent")
        self.mlp2 = HMLP(dim, mlp_ratio)
        self.regress = nn.Linear(dim, 3)
        nn.init.normal_(self.regress.weight, std=1e-3)
        nn.init.zeros_(self.regress.bias)

    def tokens(self, points: Tensor, f: Tensor) -> tuple[Tensor, Tensor]:
        """points [B, n, 3], f [B, image_dim] -> X [B, n, D] and AdaLN(X, f), which is query here and key there."""
        X = self.embed(points) + self.position
        return X, self.norm1(X, f)

    def forward(self, X: Tensor, normed: Tensor, other: Tensor, f: Tensor) -> Tensor:
        """X, normed [B, n, D] of this half, other [B, m, D] normed tokens of the other -> X_out [B, n, D]."""
        X = self.cross_attention(normed, other, None) + X  # equation 8
        X = self.mlp1(self.norm2(X, f), None) + X  # equation 9
        normed = self.norm3(X, f)
        X = self.self_attention(normed, normed, None) + X  # equation 10
        return self.mlp2(self.norm4(X, f), None) + X

    def move(self, points: Tensor, X: Tensor) -> Tensor:
        """points [B, n, 3] moved by what X [B, n, D] says, in float32."""
        with torch.autocast(points.device.type, enabled=False):
            return points + self.regress(X.float())


class CoevolutionBlock(nn.Module):
    """P, M', f -> P and M' refined.

    Coordinates, not tokens, go from block to block (as in the published code; the text leaves it open): every block
    says how far it moves each point, so that a new network is its start pose and start mesh.
    """

    def __init__(
        self, *, joints: int, coarse_count: int, dim: int, heads: tuple[int, int], mlp_ratio: float, image_dim: int
    ):
        """heads: of the pose's attention and of the mesh's."""
        super().__init__()
        sizes = {"dim": dim, "mlp_ratio": mlp_ratio, "image_dim": image_dim}
        self.pose = Half(points=joints, heads=heads[0], **sizes)
        self.mesh = Half(points=coarse_count, heads=heads[1], **sizes)

    def forward(self, P: Tensor, coarse: Tensor, f: Tensor) -> tuple[Tensor, Tensor]:
        """P [B, J, 3], coarse M' [B, V', 3], f [B, image_dim] -> the same two, refined."""
        X_P, normed_P = self.pose.tokens(P, f)
        X_M, normed_M = self.mesh.tokens(coarse, f)
        P = self.pose.move(P, self.pose(X_P, normed_P, normed_M, f))
        coarse = self.mesh.move(coarse, self.mesh(X_M, normed_M, normed_P, f))
        return P, coarse
