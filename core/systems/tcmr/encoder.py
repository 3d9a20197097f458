"""Temporal encoding of TCMR: what all frames, the past and the future say of the mid frame t*, and how it is joined.

B windows, T frames, t* = T // 2 counted from 0, D static feature size, H state size, C common size.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from core.systems.contract import take_windows


class Temporal(NamedTuple):
    """Temporal features of t*, all of the common size."""

    past: Tensor
    """g'_past [B, C]."""
    future: Tensor
    """g'_future [B, C]."""
    integrated: Tensor
    """g'_int [B, C]."""
    attention: Tensor
    """[B, 3] of (all, past, future), sum 1."""


class TemporalEncoder(nn.Module):
    """G_all, G_past and G_future (sections 3.1 and 3.2), then ReLU and a layer each to the common size.

    Nothing leads around the GRUs: there is no residual connection from the static feature of t*. G_all's two
    directions run only as far as t*, where they are read.
    """

    def __init__(self, static_dim: int, hidden: int, common: int):
        super().__init__()
        self.all_forward = nn.GRU(static_dim, hidden, batch_first=True)
        self.all_backward = nn.GRU(static_dim, hidden, batch_first=True)
        self.past = nn.GRU(static_dim, hidden, batch_first=True)
        self.future = nn.GRU(static_dim, hidden, batch_first=True)
        self.all_to_common = nn.Linear(2 * hidden, common)
        self.past_to_common = nn.Linear(hidden, common)
        self.future_to_common = nn.Linear(hidden, common)

    def forward(self, static: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Windows of static features [B, T, D] -> g'_all, g'_past, g'_future, [B, C] each."""
        mid = static.shape[1] // 2
        backwards = static.flip(1)  # t* is its frame T - 1 - mid
        after = static.shape[1] - 1 - mid
        g_all = torch.cat(
            (
                last_state(self.all_forward, static[:, : mid + 1]),
                last_state(self.all_backward, backwards[:, : after + 1]),
            ),
            dim=-1,
        )
        g_past = last_state(self.past, static[:, :mid])
        g_future = last_state(self.future, backwards[:, :after])
        return (
            self.all_to_common(functional.relu(g_all)),
            self.past_to_common(functional.relu(g_past)),
            self.future_to_common(functional.relu(g_future)),
        )


def last_state(gru: nn.GRU, sequence: Tensor) -> Tensor:
    """State after the last frame, from zeros on: [B, n, D] -> [B, H]."""
    return gru(sequence)[1][0]


class Integration(nn.Module):
    """Section 3.3: a shared layer on each feature, layers on all of them, softmax -> three attention values."""

    def __init__(self, common: int, squeezed: int):
        super().__init__()
        self.squeeze = nn.Linear(common, squeezed)
        self.inner = nn.Linear(3 * squeezed, squeezed)
        self.outer = nn.Linear(squeezed, squeezed)
        self.score = nn.Linear(squeezed, 3)
        nn.init.normal_(self.score.weight, std=0.01)  # first, all three count alike
        nn.init.zeros_(self.score.bias)

    def forward(self, g_all: Tensor, g_past: Tensor, g_future: Tensor) -> tuple[Tensor, Tensor]:
        """[B, C] each -> g'_int [B, C] and the attention [B, 3]."""
        stacked = torch.stack((g_all, g_past, g_future), dim=1)  # [B, 3, C]
        x = self.squeeze(stacked).flatten(1)
        x = torch.tanh(self.outer(torch.tanh(self.inner(x))))
        attention = torch.softmax(self.score(x).float(), dim=-1)
        return (attention[..., None] * stacked).sum(1), attention


def encode_windows(
    encoder: TemporalEncoder, integration: Integration, static: Tensor, sequences: Tensor, mids: Tensor, window: int
) -> Temporal:
    """Temporal features of the frames (sequences [B], mids [B]) from static features [S, N, D] that windows share.

    Where a window is cut off by the clip's end, its edge frame stands in for those that are missing: at the first
    frame, the "past" is that frame itself.
    """
    g_all, g_past, g_future = encoder(take_windows(static, sequences, mids, window))
    integrated, attention = integration(g_all, g_past, g_future)
    return Temporal(g_past, g_future, integrated, attention)
