"""Motion that nobody recorded: joints that sway, people who turn over. B clips of T frames at 30 a second."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from core.rotation import axis_angle_to_matrix
from core.synth.cameras import smooth_noise

TURN_S = (0.5, 1.3)
CARTWHEEL = 0.3
"""How long turning over takes, and in what share of the cases it is sideways."""


def sway(B: int, T: int, generator: torch.Generator, *, share: float, largest_deg: float) -> Tensor:
    """Small slow rotations [B, T, 24, 3, 3] of all joints but the root and the hands, in a share of the clips.

    A clip has its own largest angle about each axis, between 0 and largest_deg.
    """
    device = generator.device
    amount = math.radians(largest_deg) * torch.rand(B, generator=generator, device=device)
    happens = torch.rand(B, generator=generator, device=device) < share
    amount = torch.where(happens, amount, torch.zeros_like(amount))
    noise = smooth_noise((B, T, 24, 3), 0.97, generator, device)
    moves = torch.ones(24, device=device)
    moves[[0, 22, 23]] = 0
    return axis_angle_to_matrix(noise * amount[:, None, None, None] * moves[:, None])


def turn_over(B: int, T: int, generator: torch.Generator, *, share: float) -> Tensor:
    """Rotations [B, T, 3, 3] of the pelvis in its own axes, in a share of the clips: once round within TURN_S, about
    the line through the hips or, in a share CARTWHEEL, about the one to the front. Clips may show a part of it."""
    device = generator.device
    r = torch.rand((B, 5), generator=generator, device=device)
    shortest, longest = (seconds * 30 for seconds in TURN_S)
    lasts = shortest + (longest - shortest) * r[:, 0]
    begins = r[:, 1] * (T + lasts) - lasts
    done = ((torch.arange(T, device=device) - begins[:, None]) / lasts[:, None]).clamp(0, 1)
    angle = 2 * math.pi * done**2 * (3 - 2 * done) * torch.where(r[:, 2] < 0.5, 1.0, -1.0)[:, None]
    angle = angle * (r[:, 3] < share)[:, None]
    is_cartwheel, zero = (r[:, 4] < CARTWHEEL)[:, None], torch.zeros_like(angle)
    return axis_angle_to_matrix(
        torch.stack([torch.where(is_cartwheel, zero, angle), zero, torch.where(is_cartwheel, angle, zero)], -1)
    )
