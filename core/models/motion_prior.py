"""Temporal motion prior: pose motion (TPMI) and image motion (TMF) of a window, joined into the prior f.

Hyperbolic mesh recovery paper, section II-A. B windows, T frames, J joints.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PoseMotion(nn.Module):
    """TPMI: D_i = P_{i+1} - P_i and their mean Dbar, read by a GRU -> E_m, the pose motion information."""

    def __init__(self, joints: int, dim: int):
        super().__init__()
        self.gru = nn.GRU(3 * joints, dim, batch_first=True)

    def forward(self, P3D: Tensor) -> Tensor:
        """P3D [B, T, J, 3] -> E_m [B, T, dim]: a state per difference and, last, the one after Dbar."""
        D = P3D.diff(dim=1)
        Dbar = D.mean(1, keepdim=True)
        # metres per frame are small numbers for a GRU: it gets units of 2 cm per frame
        sequence = 50 * torch.cat((D, Dbar), dim=1).flatten(2)  # [B, T, 3J]
        E_m, _ = self.gru(sequence)
        return E_m


class ImageMotion(nn.Module):
    """TMF: a GRU for the front half of the window and one for the back half, then a learned weight per time step."""

    def __init__(self, dim: int):
        super().__init__()
        self.front = nn.GRU(dim, dim, batch_first=True)
        self.back = nn.GRU(dim, dim, batch_first=True)
        self.attention = nn.Sequential(nn.Linear(dim, dim // 2), nn.Tanh(), nn.Linear(dim // 2, 1))

    def forward(self, F: Tensor) -> Tensor:
        """F [B, T, dim] projected image features -> image motion feature [B, dim]."""
        half = F.shape[1] // 2
        states = torch.cat((self.front(F[:, :half])[0], self.back(F[:, half:])[0]), dim=1)  # [B, T, dim]
        weights = torch.softmax(self.attention(states), dim=1)
        return (weights * states).sum(1)


class MotionPrior(nn.Module):
    """f = TMF(F) + Linear(E_m), either part left out by its switch.

    Without TMF, the mid frame's own projected feature takes the place of the image motion feature.
    """

    def __init__(self, joints: int, dim: int, *, use_tpmi: bool, use_tmf: bool):
        super().__init__()
        self.tpmi = PoseMotion(joints, dim) if use_tpmi else None
        self.tmf = ImageMotion(dim) if use_tmf else None
        self.join = nn.Linear(dim, dim) if use_tpmi else None
        self.norm = nn.LayerNorm(dim)

    def forward(self, P3D: Tensor, F: Tensor, mid: Tensor) -> tuple[Tensor, Tensor | None]:
        """P3D [B, T, J, 3], F [B, T, dim] projected, mid [B, dim] extra summary of t* -> f [B, dim], E_m [B, T, dim].

        E_m is None without TPMI.
        """
        f = self.tmf(F) if self.tmf is not None else F[:, F.shape[1] // 2]
        f = f + mid
        E_m = None
        if self.tpmi is not None:
            E_m = self.tpmi(P3D)
            f = f + self.join(E_m[:, -1])
        return self.norm(f), E_m
