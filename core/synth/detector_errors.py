"""The detector's errors on rendered clips: where it put each point, and which sides it exchanged.

A limb is taken as exchanged where the other side's truth explains it far better.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from core.body import Body
from core.rotation import quaternion_to_matrix
from core.skeleton import KEYPOINT_COUNT, KEYPOINT_MIRROR
from core.synth.cameras import project
from core.synth.format import clips_of
from core.synth.noise import LEFT_HIP, LIMB_OF_KEYPOINT, RIGHT_HIP, body_axes, crop_side, view_turn

EXCHANGE_RATIO = 0.55
"""Sides count as exchanged where the mean distance to the other side's truth is below this share of the own."""
EXCHANGE_MIN = 0.05
"""... and the two truths lie this far apart on average, as a share of the crop's side."""
MIRROR = torch.tensor(KEYPOINT_MIRROR)
LIMBS = torch.tensor(LIMB_OF_KEYPOINT)


@dataclass(frozen=True)
class Errors:
    """Of one clip of T frames, lengths as shares of the crop's side; K = 25."""

    error: Tensor
    """[T, K, 2], exchanged points compared with the truth of the other side."""
    raw: Tensor
    """[T, K] distance to the own truth."""
    axes: Tensor
    """[T, 3, 3] body axes."""
    whole: Tensor
    """[T] bool, everything exchanged."""
    pairs: Tensor
    """[T, 2] bool, arms and legs exchanged alone."""
    present: Tensor
    """[T] bool."""
    hidden: Tensor
    outside: Tensor
    confidence: Tensor
    """[T, K]."""
    side: Tensor
    """[T] px."""
    metres: Tensor
    """[T] metres per crop side at the person's depth."""
    landmarks3d: Tensor
    truth3d: Tensor
    """[T, K, 3] metres, hip-centred, as seen through the crop; truth on the detector's sides."""
    spacing: int
    """Thirtieths of a second from frame to frame."""
    standard: float
    """Factor that brings this person to average size."""


def measure(shard: dict[str, np.ndarray], body: Body) -> list[Errors]:
    """The detector's errors on the clips of one shard."""
    return [_measure_clip(clip, body) for clip in clips_of(shard)]


def _measure_clip(clip: dict[str, np.ndarray], body: Body) -> Errors:
    rotmats = quaternion_to_matrix(torch.from_numpy(clip["quats"]).float())
    betas = torch.from_numpy(clip["betas"])
    keypoints = body.keypoints(rotmats, betas.expand(len(rotmats), -1), torch.from_numpy(clip["trans"]))
    points = project(keypoints[None], torch.from_numpy(clip["camera"])[None])[0]
    side = crop_side(points).clamp_min(1.0)
    found = torch.from_numpy(clip["keypoints"])
    scale = side[:, None, None]
    own, other = (found[..., :2] - points) / scale, (found[..., :2] - points[:, MIRROR]) / scale
    apart = (points - points[:, MIRROR]).norm(dim=-1) / side[:, None]

    def exchanged(which: Tensor) -> Tensor:
        a, b = own[:, which].norm(dim=-1).mean(1), other[:, which].norm(dim=-1).mean(1)
        return (b < EXCHANGE_RATIO * a) & (apart[:, which].mean(1) > EXCHANGE_MIN)

    paired = MIRROR != torch.arange(KEYPOINT_COUNT)
    arms, legs = (LIMBS == 1) | (LIMBS == 2), (LIMBS == 3) | (LIMBS == 4)
    is_arm, is_leg, is_trunk = exchanged(arms), exchanged(legs), exchanged(paired & (LIMBS == 0))
    whole = exchanged(paired) & (is_arm.int() + is_leg.int() + is_trunk.int() >= 2)
    pairs = torch.stack([is_arm & ~whole, is_leg & ~whole], -1)
    swapped = whole[:, None] | (pairs[:, :1] & arms) | (pairs[:, 1:] & legs)
    hips = (keypoints[:, LEFT_HIP] + keypoints[:, RIGHT_HIP]) / 2
    truth3d = (keypoints - hips[:, None]) @ view_turn(hips).transpose(-1, -2)
    truth3d = torch.where(swapped[..., None], truth3d[:, MIRROR], truth3d)
    X = torch.from_numpy(clip["landmarks3d"]).float()
    middle = (X[:, LEFT_HIP] + X[:, RIGHT_HIP]) / 2
    hidden = torch.from_numpy(clip["hidden"])
    rest, mean = body.rest_joints(betas), body.joint_template
    legs_of = [float((j[1] - j[4]).norm() + (j[4] - j[7]).norm()) for j in (mean, rest)]
    return Errors(
        error=torch.where(swapped[..., None], other, own),
        raw=own.norm(dim=-1),
        axes=body_axes(keypoints),
        whole=whole,
        pairs=pairs,
        present=torch.from_numpy(clip["presence"]).float() > 0.5,
        hidden=(hidden & 1) > 0,
        outside=(hidden & 2) > 0,
        confidence=found[..., 2],
        side=side,
        metres=side / float(clip["camera"][0]) * hips[:, 2],
        landmarks3d=X - middle[:, None],
        truth3d=truth3d,
        spacing=int(clip["spacing"]),
        standard=legs_of[0] / legs_of[1],
    )
