"""Coarse mesh M' -> full mesh M: the body's own lift U, its learned correction, and residuals from the prior f.

PMCE equation 11, M = Up(M') + MLP2(MLP1(f)^T). A dense V x V' layer would hold 5.9 million numbers for the default
body; here Up = U + A B with U's few entries per row learned in place and A B of low rank, both starting at U alone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def sparse_rows(U: Tensor, *, entries: int = 3) -> tuple[Tensor, Tensor]:
    """Largest `entries` of each row of U [V, V'] -> indices [V, entries] int64, weights [V, entries] summing to 1."""
    weights, indices = U.abs().topk(entries, dim=1)
    weights = torch.gather(U, 1, indices)
    return indices, weights / weights.sum(1, keepdim=True)


class Upsample(nn.Module):
    """M' [B, V', 3], f [B, prior_dim] -> M [B, V, 3]."""

    def __init__(
        self,
        indices: Tensor,
        weights: Tensor,
        *,
        coarse_count: int,
        rank: int,
        residual_rank: int,
        prior_dim: int,
    ):
        """indices, weights [V, 3]: the entries of U, see `sparse_rows`."""
        super().__init__()
        full = len(indices)
        self.register_buffer("indices", indices)
        self.weights = nn.Parameter(weights.clone())
        self.A = nn.Parameter(torch.zeros(full, rank))
        self.B = nn.Parameter(torch.randn(rank, coarse_count) / coarse_count**0.5)
        self.mlp1 = nn.Linear(prior_dim, 3 * residual_rank)
        self.mlp2 = nn.Parameter(torch.zeros(full, residual_rank))

    def forward(self, coarse: Tensor, f: Tensor, vertex_ids: Tensor | None = None) -> Tensor:
        """coarse [B, V', 3], f [B, prior_dim] -> [B, V, 3], or only the rows `vertex_ids` [n] -> [B, n, 3]."""
        pick = slice(None) if vertex_ids is None else vertex_ids
        A, mlp2 = self.A[pick], self.mlp2[pick]
        # a dense matrix of the rows asked for: its product is far quicker to differentiate than gathering corners
        lift = A.new_zeros(len(A), coarse.shape[1]).scatter(1, self.indices[pick], self.weights[pick])
        codes = torch.tanh(self.mlp1(f)).unflatten(-1, (3, -1)).transpose(1, 2)  # [B, residual_rank, 3]
        return (lift + A @ self.B) @ coarse + mlp2 @ codes
