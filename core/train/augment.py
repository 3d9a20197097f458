"""Variation of rendered sequences, of which there are few: mirror images, a little more noise, limbs left out."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from core.skeleton import JOINT_MIRROR, KEYPOINT_MIRROR, KEYPOINT_NAMES
from core.train.batch import Batch

LIMBS = tuple(
    tuple(KEYPOINT_NAMES.index(f"{side}_{part}") for part in parts)
    for side in ("left", "right")
    for parts in (("elbow", "wrist", "pinky", "index", "thumb"), ("knee", "ankle", "heel", "toe"))
)


@dataclass(frozen=True)
class Variation:
    mirrored: float = 0.5
    """Share of sequences shown in a mirror; only where they carry no image features, which cannot be mirrored."""
    keypoint_noise: float = 0.006
    """Deviation of a constant of the sequence and of a part that changes by frame, as shares of the crop's size."""
    landmark_noise: float = 0.012
    """Metres, likewise."""
    size_noise: float = 0.04
    """Deviation of a factor on the 3D landmarks."""
    limb_gap: float = 0.15
    """Chance that a limb is not seen for a spell."""


def mirror(batch: Batch) -> Batch:
    """The same people seen in a mirror: x of the image and of the camera reversed, left and right exchanged."""
    flip = torch.tensor([-1.0, 1.0, 1.0], device=batch.betas.device)
    sides, joints = list(KEYPOINT_MIRROR), list(JOINT_MIRROR)
    keypoints = batch.keypoints[:, :, sides]
    x = batch.size[:, None, None, :1] - keypoints[..., :1]
    return replace(
        batch,
        keypoints=torch.cat((x, keypoints[..., 1:]), -1),
        landmarks3d=batch.landmarks3d[:, :, sides] * flip,
        rotmats=batch.rotmats[:, :, joints] * flip[:, None] * flip,
    )


def vary(batch: Batch, variation: Variation, generator: torch.Generator) -> Batch:
    """Return the batch with each sequence varied at random."""
    s, t, k, _ = batch.keypoints.shape
    device = batch.keypoints.device

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, device=device, generator=generator)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, device=device, generator=generator)

    has_features = batch.features.abs().sum((1, 2)) > 0 if batch.features.shape[-1] else torch.zeros(s, device=device)
    is_mirrored = (uniform(s) < variation.mirrored) & ~has_features.bool()
    other = mirror(batch)

    def choose(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(is_mirrored.view(-1, *([1] * (a.dim() - 1))), a, b)

    keypoints = choose(other.keypoints, batch.keypoints)
    landmarks = choose(other.landmarks3d, batch.landmarks3d)
    xy, confidence = keypoints[..., :2], keypoints[..., 2:]
    size = (xy.amax(2) - xy.amin(2)).amax(-1)[..., None, None]  # [S, T, 1, 1] px
    noise = normal(s, 1, k, 2) + normal(s, t, k, 2)
    xy = xy + noise * size * variation.keypoint_noise
    noise = normal(s, 1, k, 3) + normal(s, t, k, 3)
    scale = 1 + variation.size_noise * normal(s, 1, 1, 1)
    landmarks = landmarks * scale + noise * variation.landmark_noise
    confidence = confidence * (1 - _limb_gaps(uniform(s, 3, len(LIMBS)), t, k, variation.limb_gap))
    return replace(
        batch,
        keypoints=torch.cat((xy, confidence), -1),
        landmarks3d=landmarks,
        rotmats=choose(other.rotmats, batch.rotmats),
    )


def _limb_gaps(drawn: Tensor, frames: int, keypoints: int, chance: float) -> Tensor:
    """[S, T, K, 1] 1 where a limb's points are left out; drawn [S, 3, limbs] uniform numbers."""
    happens, begin, length = drawn.unbind(1)
    first = (begin * frames)[:, None]
    frame = torch.arange(frames, device=drawn.device)[None, :, None]
    hidden = (happens < chance)[:, None] & (frame >= first) & (frame < first + 1 + length[:, None] * frames / 2)
    member = torch.zeros(len(LIMBS), keypoints, device=drawn.device)
    for limb, points in enumerate(LIMBS):
        member[limb, list(points)] = 1
    return (hidden.float() @ member)[..., None]
