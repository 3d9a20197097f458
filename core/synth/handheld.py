"""Cameras that roll about their optical axis: a hand that sways, a slow turn, a slanted phone. B clips, T frames."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from core.synth.cameras import Cameras

SWAY_HZ = (0.2, 2.0)
SWAY_DEG = (0.7, 4.0)
WAVES = 3
SLOW_SHARE, SLOW_DEG, SLOW_S = 0.35, (5.0, 20.0), (6.0, 20.0)
"""Of the rolling cameras: how many also turn slowly, how far, and how long to and fro takes."""
SLANT_DEG = (12.0, 3.0)
"""Deviation of the constant slant of upright images, and of others; 2 of them at most."""


def draw_roll(size: Tensor, frames: int, frame_s: float, generator: torch.Generator, *, share: float) -> Tensor:
    """Angles [B, T] in radians by which a share of cameras with images of size [B, 2] px turn, 0 for the others."""
    B, device = len(size), size.device

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand((B, *shape), generator=generator, device=device) * (high - low) + low

    time = torch.arange(frames, device=device) * frame_s
    hertz = torch.exp(uniform(math.log(SWAY_HZ[0]), math.log(SWAY_HZ[1]), WAVES, 1))
    waves = torch.sin(2 * math.pi * (hertz * time + uniform(0, 1, WAVES, 1)))
    weight = uniform(0.2, 1, WAVES, 1) / hertz.sqrt()
    sway = (waves * weight / weight.sum(1, keepdim=True)).sum(1) * uniform(*SWAY_DEG, 1)
    slow = torch.sin(2 * math.pi * (time / uniform(*SLOW_S, 1) + uniform(0, 1, 1))) * uniform(*SLOW_DEG, 1)
    slow = torch.where(uniform(0, 1, 1) < SLOW_SHARE, slow, 0.0)
    upright, other = SLANT_DEG
    deviation = torch.where(size[:, 1] > size[:, 0], upright, other)
    slant = deviation * torch.randn(B, generator=generator, device=device).clamp(-2, 2)
    degrees = sway + slow + slant[:, None]
    return torch.where(uniform(0, 1, 1) < share, torch.deg2rad(degrees), 0.0)


def roll_cameras(cameras: Cameras, angle: Tensor) -> Cameras:
    """The cameras turned about their optical axes by angle [B, T] radians; what they see turns clockwise with it."""
    c, s, o = torch.cos(angle), torch.sin(angle), torch.zeros_like(angle)
    turn = torch.stack([c, -s, o, s, c, o, o, o, o + 1], -1).reshape(*angle.shape, 3, 3)
    return replace(cameras, R=turn @ cameras.R, t=(turn @ cameras.t[..., None]).squeeze(-1))
