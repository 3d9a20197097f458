"""The block that hyperbolic pose optimisation (HPO) and hyperbolic motion optimisation (HMO) share.

Paper, section II-C, equations 11 and 12. Mesh tokens X_M query the context tokens (the joints X_P in HPO, the pose
motion X_E in HMO) in the ball and then each other, guided by the prior f. Points are carried as tangent vectors
(see core.layers); "(+)" is `hyperbolic_add`. B meshes, V' coarse vertices, m context tokens, D token size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from core.layers import HMLP, HAdaLN, HAttention, hyperbolic_add
from core.manifold import Curvature
from core.models.config import HyperbolicConfig


class MeshBlock(nn.Module):
    """X_M, X_context, f -> mesh offsets: HPO with joint tokens, HMO with motion tokens."""

    def __init__(self, config: HyperbolicConfig, *, context_size: int, context_count: int, coarse_count: int):
        super().__init__()
        d = config.dim
        self.embed_mesh = nn.Linear(3, d)
        self.embed_context = nn.Linear(context_size, d)
        self.position_mesh = nn.Parameter(torch.randn(coarse_count, d) * 0.1)
        self.position_context = nn.Parameter(torch.randn(context_count, d) * 0.1)
        self.norm_mesh = HAdaLN(d, config.prior_dim)
        self.norm_context = HAdaLN(d, config.prior_dim)
        self.norm1, self.norm2, self.norm3 = (HAdaLN(d, config.prior_dim) for _ in range(3))
        self.hca = HAttention(d, config.heads, config.cross_attention)
        self.mlp1 = HMLP(d, config.mlp_ratio)
        self.hsa = HAttention(d, config.heads, config.self_attention)
        self.mlp2 = HMLP(d, config.mlp_ratio)

    def forward(self, M_0: Tensor, context: Tensor, f: Tensor, c: Curvature | None) -> Tensor:
        """M_0 [B, V', 3] metres, context [B, m, context_size], f [B, prior_dim] -> X4 [B, V', D] = logmap0 of it."""
        X_M = self.embed_mesh(M_0) + self.position_mesh
        X_C = self.embed_context(context) + self.position_context
        X_1 = hyperbolic_add(self.hca(self.norm_mesh(X_M, f), self.norm_context(X_C, f), c), X_M, c)
        X_2 = hyperbolic_add(self.mlp1(self.norm1(X_1, f), c), X_1, c)
        normed = self.norm2(X_2, f)
        X_3 = hyperbolic_add(self.hsa(normed, normed, c), X_2, c)
        return hyperbolic_add(self.mlp2(self.norm3(X_3, f), c), X_3, c)
