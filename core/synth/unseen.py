"""Motion that nobody recorded: joints that sway, people who turn over, most of them tucked. B clips of T frames."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from core.rotation import axis_angle_to_matrix, matrix_to_quaternion, quaternion_to_matrix, slerp
from core.skeleton import JOINT_NAMES
from core.synth.cameras import smooth_noise

TURN_S = (0.5, 1.3)
CARTWHEEL = 0.3
"""How long turning over takes, and in what share of the cases it is sideways."""
TUCKED = 0.75
"""Share of those who turn about the line through their hips that tuck."""
TUCK: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    "hip": ((-140, -80), (-5, 10), (-5, 20)),
    "knee": ((60, 145), (0, 0), (0, 0)),
    "ankle": ((-10, 40), (0, 0), (0, 0)),
    "spine1": ((0, 25), (0, 0), (0, 0)),
    "spine2": ((5, 25), (0, 0), (0, 0)),
    "spine3": ((0, 20), (0, 0), (0, 0)),
    "neck": ((0, 35), (0, 0), (0, 0)),
    "head": ((-10, 25), (0, 0), (0, 0)),
    "shoulder": ((-20, 20), (-95, -30), (-75, -15)),
    "elbow": ((0, 0), (-100, -5), (0, 0)),
}
"""Joint, left and right alike -> ranges of its rotation vector about x, y, z in degrees, as of the left side."""


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


class Turn(NamedTuple):
    rotation: Tensor
    """[B, T, 3, 3] of the pelvis, in its own axes."""
    done: Tensor
    """[B, T] from 0 before to 1 after; 0 for people who stay upright."""
    is_cartwheel: Tensor
    """[B] bool."""


def turn_over(B: int, T: int, generator: torch.Generator, *, share: float, frame_s: float = 1 / 30) -> Turn:
    """A share of the people turns over once round within TURN_S, about the line through the hips or, in a share
    CARTWHEEL, about the one to the front. Clips may show a part of it. frame_s: seconds from frame to frame."""
    device = generator.device
    r = torch.rand((B, 5), generator=generator, device=device)
    shortest, longest = (seconds / frame_s for seconds in TURN_S)
    lasts = shortest + (longest - shortest) * r[:, 0]
    begins = r[:, 1] * (T + lasts) - lasts
    done = ((torch.arange(T, device=device) - begins[:, None]) / lasts[:, None]).clamp(0, 1)
    done = done * (r[:, 3] < share)[:, None]
    angle = 2 * math.pi * done**2 * (3 - 2 * done) * torch.where(r[:, 2] < 0.5, 1.0, -1.0)[:, None]
    is_cartwheel = r[:, 4] < CARTWHEEL
    sideways, zero = is_cartwheel[:, None], torch.zeros_like(angle)
    rotation = axis_angle_to_matrix(
        torch.stack([torch.where(sideways, zero, angle), zero, torch.where(sideways, angle, zero)], -1)
    )
    return Turn(rotation, done, is_cartwheel)


def tuck(rotmats: Tensor, turn: Turn, generator: torch.Generator) -> Tensor:
    """The motions [B, T, 24, 3, 3] of people who turn over with knees to the chest, in a share TUCKED of them; both
    sides do about the same, and how far each goes is drawn."""
    B, device = len(rotmats), generator.device
    r = torch.rand((B, 2), generator=generator, device=device)
    extent = torch.where((r[:, 0] < TUCKED) & ~turn.is_cartwheel, 0.7 + 0.3 * r[:, 1], torch.zeros_like(r[:, 1]))
    level = extent[:, None] * (math.pi * turn.done).sin().clamp_min(0) ** 0.5  # [B, T]
    pose = torch.zeros((B, 24, 3), device=device)
    for name, ranges in TUCK.items():
        low, high = torch.tensor(ranges, device=device).T.deg2rad()
        drawn = torch.rand((B, 3), generator=generator, device=device)
        for side, sign in (("left", 1.0), ("right", -1.0)) if f"left_{name}" in JOINT_NAMES else (("", 1.0),):
            own = (drawn + 0.1 * torch.randn((B, 3), generator=generator, device=device)).clamp(0, 1)
            joint = JOINT_NAMES.index(f"{side}_{name}" if side else name)
            pose[:, joint] = (low + (high - low) * own) * torch.tensor([1.0, sign, sign], device=device)
    moved = torch.nonzero(pose.abs().amax((0, 2)) > 0).squeeze(1)
    start = matrix_to_quaternion(rotmats[:, :, moved])
    end = matrix_to_quaternion(axis_angle_to_matrix(pose[:, moved]))[:, None].expand_as(start)
    tucked = quaternion_to_matrix(slerp(start, end, level[:, :, None]))
    return rotmats.index_copy(2, moved, tucked)
