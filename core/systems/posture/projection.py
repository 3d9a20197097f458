"""The true 2D mesh: the true mesh laid over the detected keypoints of its crop.

A batch knows no translation of the root, so that the mesh cannot be projected as the camera saw it. It is seen by
weak perspective along the ray through the crop's middle, and scale and shift are those that bring the true keypoints
nearest to the detected ones, weighted by confidence, in closed form. B frames, K keypoints, n vertices. Crop units:
the square around the detected keypoints is -1..1.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from core.models.inputs import CONFIDENCE, CROP_RAY, CROP_XY, ImageGeometry, view_rotation

LEAST_SEEN = 4
"""Keypoints that must be seen for a frame to be placed."""
LEAST_CONFIDENCE = 0.1
LEAST_SCALE, MOST_SCALE = 0.3, 15.0
"""Crop units per metre; whoever fills the crop has about 1.1. Beyond, the keypoints are not this person's."""


class Placement(NamedTuple):
    """How the body of each frame lies in its crop: crop_xy = scale * (view x)_xy + shift."""

    view: Tensor
    """[B, 3, 3] from camera axes to those of a camera that looks at the crop's middle."""
    scale: Tensor
    """[B] crop units per metre."""
    shift: Tensor
    """[B, 2]."""
    is_placed: Tensor
    """[B] whether enough keypoints are seen to say so."""

    def apply(self, points: Tensor) -> Tensor:
        """points [B, n, 3] in camera axes, metres -> [B, n, 2] in crop units."""
        seen = points @ self.view.mT
        return self.scale[:, None, None] * seen[..., :2] + self.shift[:, None]


def crop_view(inputs: Tensor) -> Tensor:
    """Rotation [B, 3, 3] from camera axes to those of a camera that looks at the crop's middle; inputs [B, K, C]."""
    plane = inputs[:, 0, CROP_RAY][:, :2]  # (centre - middle) / focal
    nothing, one = torch.zeros_like(plane[:, :1]), torch.ones_like(plane[:, :1])
    return view_rotation(plane, ImageGeometry(nothing, nothing, one)).mT


def place(keypoints3d: Tensor, inputs: Tensor) -> Placement:
    """Least squares of confidence * |scale * (view x)_xy + shift - crop_xy|^2.

    keypoints3d [B, K, 3] true keypoints, camera axes; inputs [B, K, INPUT_SIZE] of the frames.
    """
    view = crop_view(inputs)
    x = (keypoints3d @ view.mT)[..., :2]
    u, confidence = inputs[..., CROP_XY], inputs[..., CONFIDENCE]
    confidence = confidence * (confidence > LEAST_CONFIDENCE)
    w = confidence / confidence.sum(1, keepdim=True).clamp_min(1e-6)  # [B, K, 1]
    x_mean, u_mean = (w * x).sum(1), (w * u).sum(1)
    x_off, u_off = x - x_mean[:, None], u - u_mean[:, None]
    scale = (w * x_off * u_off).sum((1, 2)) / (w * x_off * x_off).sum((1, 2)).clamp_min(1e-6)
    is_placed = ((confidence[..., 0] > 0).sum(1) >= LEAST_SEEN) & (scale > LEAST_SCALE) & (scale < MOST_SCALE)
    return Placement(view, scale, u_mean - scale[:, None] * x_mean, is_placed)
