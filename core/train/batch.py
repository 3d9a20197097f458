"""A batch of sequences on one device: what a detector gives and what is true, whatever the source.

S sequences of T frames, K = 25 keypoints, J = 24 joints, F feature size. Camera frame, metres, pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from core.models.inputs import ImageGeometry, encode_inputs


@dataclass(frozen=True)
class Batch:
    keypoints: Tensor
    """[S, T, K, 3] x px, y px, confidence 0..1."""
    landmarks3d: Tensor
    """[S, T, K, 3] the detector's world landmarks."""
    has_landmarks: Tensor
    """[S, T] 1 where landmarks3d is there."""
    features: Tensor
    """[S, T, F] image features, zeros where there are none."""
    size: Tensor
    """[S, 2] image width and height px."""
    focal_px: Tensor
    """[S] focal length that the network is told, which need not be the true one."""
    frames: Tensor
    """[S, T] frame times in units of 1/30 s."""
    rotmats: Tensor
    """[S, T, J, 3, 3] true local rotations, the root's in the camera frame."""
    betas: Tensor
    """[S, 16] true shape."""

    def inputs(self) -> Tensor:
        """Network input [S, T, K, INPUT_SIZE]."""
        geometry = ImageGeometry(self.size[:, None, :1], self.size[:, None, 1:], self.focal_px[:, None, None])
        return encode_inputs(self.keypoints, self.landmarks3d, self.has_landmarks, geometry)

    def pick(self, rows: Tensor | slice) -> Batch:
        """Some sequences, by index or slice."""
        return Batch(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def thin(self, first: int, step: int, count: int) -> Batch:
        """Every `step`-th frame of all sequences, `count` of them from frame `first` on."""
        frames = slice(first, first + step * (count - 1) + 1, step)
        of_clips = ("size", "focal_px", "betas")
        kept = {f.name: getattr(self, f.name) for f in fields(self)}
        return Batch(**{name: v if name in of_clips else v[:, frames] for name, v in kept.items()})

    def split(self, count: int) -> list[Batch]:
        """Pieces of `count` sequences, the last one maybe shorter."""
        return [self.pick(slice(i, i + count)) for i in range(0, len(self.betas), count)]

    @property
    def frame_count(self) -> int:
        return self.frames.shape[0] * self.frames.shape[1]


def merge(batches: list[Batch]) -> Batch:
    """Join batches of equal window and feature size along S."""
    if len(batches) == 1:
        return batches[0]
    return Batch(**{f.name: torch.cat([getattr(b, f.name) for b in batches]) for f in fields(Batch)})
