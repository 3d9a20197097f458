"""Bring a take to 30 frames a second and cut it where joints jump, as capture systems make them jump.

T frames at the source's rate, N frames at 30 a second, J joints.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from core.rotation import matrix_to_quaternion, quaternion_to_matrix
from core.synth.mocap import SourceSkeleton

FPS = 30
"""Of motion files."""
LARGEST_STEP = 0.6
"""Metres that a joint may move from frame to frame; beyond, it jumps."""
LARGEST_ROOT_STEP = 0.5
FRAMES_BY_A_CUT = 2
"""Left away on each side of a jump."""
SHORTEST = FPS
"""Frames of a take without jumps."""
SHORTEST_CUT = 3 * FPS // 2
"""Frames of a piece of a take with jumps."""
SMALLEST_MOVE = 0.01
"""Metres; a piece in which no joint moves farther is no motion."""
FLOOR_QUANTILE = 0.02
"""Of the lowest joint or bone tip over time."""


@dataclass(frozen=True)
class Piece:
    """A stretch of a take without jumps, 30 frames a second."""

    start: int
    """Frame of the whole take, at 30 a second, that it begins with."""
    quats: Tensor
    """[N, J, 4] float64 local rotations w x y z, w >= 0."""
    root_pos: Tensor
    """[N, 3] float64 world position of joint 0, metres, y up."""
    floor: float
    """Height of the floor, metres."""


def resample(rotmats: Tensor, root_pos: Tensor, fps: float) -> tuple[Tensor, Tensor]:
    """Rotations [T, J, 3, 3] and places [T, 3], `fps` a second -> quats [N, J, 4], w >= 0, and places [N, 3] at 30.

    Catmull-Rom splines through the places, and through the quaternions, which are normalised afterwards.
    """
    quats = matrix_to_quaternion(rotmats)
    flips = torch.where((quats[1:] * quats[:-1]).sum(-1, keepdim=True) < 0, -1.0, 1.0)
    quats = torch.cat([quats[:1], quats[1:] * flips.cumprod(0)])  # neighbours on the same side of the sphere
    count = int((len(quats) - 1) / fps * FPS + 1e-6) + 1
    at = torch.arange(count, dtype=torch.float64) * (fps / FPS)
    quats = _catmull_rom(quats, at)
    quats = quats / quats.norm(dim=-1, keepdim=True)
    return torch.where(quats[..., :1] < 0, -quats, quats), _catmull_rom(root_pos, at)


def cut_at_jumps(quats: Tensor, root_pos: Tensor, skeleton: SourceSkeleton) -> list[Piece]:
    """The pieces of a take [N, J, 4], [N, 3] between its jumps, less those that are too short or do not move."""
    joints, R_world = skeleton.forward_kinematics(quaternion_to_matrix(quats), root_pos)
    tips = joints + (R_world @ skeleton.end_offsets[..., None])[..., 0]
    lowest = torch.cat([joints, tips], 1)[..., 1].amin(1)
    step = (joints[1:] - joints[:-1]).norm(dim=-1)  # [N - 1, J]
    jumps = ((step > LARGEST_STEP).any(1) | (step[:, 0] > LARGEST_ROOT_STEP)).nonzero()[:, 0].tolist()
    shortest = SHORTEST_CUT if jumps else SHORTEST
    pieces = []
    for after, before in zip([None, *jumps], [*jumps, None]):
        start = 0 if after is None else after + 1 + FRAMES_BY_A_CUT
        end = len(quats) if before is None else before + 1 - FRAMES_BY_A_CUT
        if end - start < shortest:
            continue
        places = joints[start:end]
        # not `<`: numbers that are not finite are no motion either
        if not (places.amax(0) - places.amin(0)).max() >= SMALLEST_MOVE or not places.isfinite().all():
            continue
        floor = float(lowest[start:end].quantile(FLOOR_QUANTILE))
        pieces.append(Piece(start, quats[start:end], root_pos[start:end], floor))
    return pieces


def _catmull_rom(values: Tensor, at: Tensor) -> Tensor:
    """Values [T, ...] at fractional frames [N], none beyond the ends -> [N, ...]; steady motion stays steady."""
    if len(values) < 2:
        return values[at.long()]
    # one more value on each side, straight on
    padded = torch.cat([2 * values[:1] - values[1:2], values, 2 * values[-1:] - values[-2:-1]])
    i = at.long().clamp_max(len(values) - 2)
    f = (at - i).view(-1, *[1] * (values.dim() - 1))
    a, b, c, d = (padded[i + k] for k in range(4))  # the frames i - 1 to i + 2
    return b + f / 2 * (c - a + f * (2 * a - 5 * b + 4 * c - d + f * (3 * (b - c) + d - a)))
