"""A motion to stay near while another is solved for: its rotations, the directions of its bones, its place.

What a network gets wrong shows mostly in the picture's plane, where the keypoints know better, and along the chain of
joints; how far its bones point towards the camera is the best there is. So directions are held tightly in depth, and
rotations loosely: they hold what no keypoint tells, such as twist. N frames, J joints, P pairs; float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from core.recover.chain import ACTIVE, Shaped, pose_chain
from core.recover.terms import PAIRS, Equations
from core.skeleton import JOINT_NAMES

BLOCK = 256
"""Frames posed at a time."""
SPREAD = {
    "pelvis": 0.35, "spine1": 0.3, "spine2": 0.1, "spine3": 0.1, "neck": 0.35, "head": 0.4, "collar": 0.08,
    "hip": 0.35, "knee": 0.25, "ankle": 0.35, "shoulder": 0.5, "elbow": 0.5, "wrist": 0.6,
}  # fmt: skip
"""rad by which a lifter's local rotations are off, about the median on rendered validation clips."""


@dataclass(frozen=True)
class Anchor:
    """A motion to stay near: the result of a network."""

    rotmats: Tensor
    """[N, J, 3, 3] local."""
    trans: Tensor
    """[N, 3] m."""
    strength: float
    """Multiplies the energy of the rotations, whose standard deviations are SPREAD."""
    place: float = 1.0
    """m: only where nothing is seen does it matter."""

    def __getitem__(self, index: slice) -> Anchor:
        """The same for a stretch of frames."""
        return Anchor(self.rotmats[index], self.trans[index], self.strength, self.place)


def add_anchor(equations: Equations, rotmats: Tensor, trans: Tensor, anchor: Anchor) -> None:
    """Add the pull of rotmats [N, J, 3, 3] and trans [N, 3] m towards the anchor's."""
    spread = rotmats.new_tensor([SPREAD[JOINT_NAMES[j].split("_")[-1]] for j in ACTIVE])
    add_rotations(equations, rotmats, anchor.rotmats, anchor.strength / spread**2)
    add_place(equations, trans, anchor.trans, anchor.place**-2)


def add_rotations(equations: Equations, rotmats: Tensor, target: Tensor, strength: Tensor) -> None:
    """strength [M] / 2 times the squared angle of each active joint from target [N, J, 3, 3], as matrices."""
    index = list(ACTIVE)
    M = rotmats[:, index].transpose(-1, -2) @ target[:, index]
    trace = M.diagonal(dim1=-2, dim2=-1).sum(-1)
    equations.cost += (strength * (3 - trace)).sum(1) / 2
    slope = torch.stack([M[..., 1, 2] - M[..., 2, 1], M[..., 2, 0] - M[..., 0, 2], M[..., 0, 1] - M[..., 1, 0]], -1)
    part = 3 * len(index)
    equations.gradient[:, :part] += (strength[:, None] * slope).flatten(1) / 2
    ranks = torch.arange(part)
    equations.diagonal[:, ranks, ranks] += strength.repeat_interleave(3)


def add_place(equations: Equations, trans: Tensor, target: Tensor, strength: float) -> None:
    """strength / 2 times the squared distance of trans [N, 3] m from target [N, 3]."""
    offset = trans - target
    equations.cost += strength * offset.square().sum(1) / 2
    equations.gradient[:, -3:] += strength * offset
    equations.diagonal.diagonal(dim1=1, dim2=2)[:, -3:] += strength


def keypoints_of(shaped: Shaped, rotmats: Tensor, trans: Tensor) -> Tensor:
    """Keypoints [N, K, 3] m of a motion: rotmats [N, J, 3, 3] local, trans [N, 3] m."""
    blocks = zip(rotmats.split(BLOCK), trans.split(BLOCK))  # posing takes far more memory than its result
    return torch.cat([pose_chain(shaped, *block).points for block in blocks])


def bone_directions(points: Tensor) -> Tensor:
    """Unit vectors [N, P, 3] between pairs of a motion's keypoints [N, K, 3], for the direction term."""
    first, second = (list(side) for side in zip(*PAIRS))
    difference = points[:, second] - points[:, first]
    return difference / difference.norm(dim=-1, keepdim=True).clamp_min(1e-3)
