"""Regions of interest and crops: pure functions, batched over any leading dimensions, on any device.

A Roi is a square in the full image turned by an angle, so that the person stands upright in the crop. The rule is
MediaPipe's (pose_detection_to_roi and pose_landmarks_to_roi, Apache-2.0): two points, the hip centre and a point
on the circle around the body; the square is centred on the first, 1.25 times the circle's diameter wide, and
turned so that the second point lies straight above.

Pixel coordinates are continuous: (0, 0) is the image's top left corner, the first pixel's centre is (0.5, 0.5).
Angles are radians, clockwise on screen (y points down). To follow many clips in lockstep on a GPU: crop_images,
BlazePoseLandmarks, reading.place_reading, and its `next_roi` for the next frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from core.perception.blazepose import CROP_SIZE

ROI_SCALE = 1.25


@dataclass(frozen=True)
class Roi:
    """center [..., 2] px, size [...] px (side of the square), angle [...] rad."""

    center: Tensor
    size: Tensor
    angle: Tensor

    def __getitem__(self, index: object) -> Roi:
        return Roi(self.center[index], self.size[index], self.angle[index])

    def __len__(self) -> int:
        return len(self.size)

    def to(self, device: torch.device | str) -> Roi:
        return Roi(self.center.to(device), self.size.to(device), self.angle.to(device))


def stack_rois(rois: list[Roi]) -> Roi:
    """Rois of equal shape -> one with a new leading dimension."""
    return Roi(
        torch.stack([roi.center for roi in rois]),
        torch.stack([roi.size for roi in rois]),
        torch.stack([roi.angle for roi in rois]),
    )


def roi_from_points(center: Tensor, scale_point: Tensor, *, scale: float = ROI_SCALE) -> Roi:
    """Hip centre [..., 2] and scale point [..., 2] in px -> Roi. Angle in [-pi, pi)."""
    offset = scale_point - center
    size = 2 * scale * offset.norm(dim=-1)
    # Upright means that the offset points to -y: angle = pi/2 - atan2(-dy, dx), wrapped.
    angle = torch.pi / 2 - torch.atan2(-offset[..., 1], offset[..., 0])
    return Roi(center, size, wrap_angle(angle))


def wrap_angle(angle: Tensor) -> Tensor:
    """Radians -> [-pi, pi)."""
    return torch.remainder(angle + torch.pi, 2 * torch.pi) - torch.pi


def crop_axes(roi: Roi) -> Tensor:
    """[..., 2, 2]: image px per crop side, columns are the crop's x and y axes in the image."""
    cos, sin = torch.cos(roi.angle), torch.sin(roi.angle)
    rows = torch.stack((torch.stack((cos, -sin), -1), torch.stack((sin, cos), -1)), -2)
    return rows * roi.size[..., None, None]


def crop_to_image(points: Tensor, roi: Roi, *, crop_size: int = CROP_SIZE) -> Tensor:
    """Points [..., P, 2] in crop px -> full image px, for a roi of leading dimensions [...]."""
    return (points / crop_size - 0.5) @ crop_axes(roi).mT + roi.center[..., None, :]


def image_to_crop(points: Tensor, roi: Roi, *, crop_size: int = CROP_SIZE) -> Tensor:
    """Inverse of crop_to_image."""
    axes = crop_axes(roi)
    inverse = axes.mT / (roi.size**2)[..., None, None]
    return ((points - roi.center[..., None, :]) @ inverse.mT + 0.5) * crop_size


def crop_affine(roi: Roi, *, crop_size: int = CROP_SIZE) -> Tensor:
    """[..., 2, 3] from crop pixel indices to image pixel indices (centres at whole numbers), as cv2 wants them."""
    linear = crop_axes(roi) / crop_size
    corner = roi.center - (linear * (crop_size / 2)).sum(-1)
    shift = corner + linear.sum(-1) * 0.5 - 0.5
    return torch.cat((linear, shift[..., None]), -1)


def crop_images(images: Tensor, roi: Roi, *, crop_size: int = CROP_SIZE) -> Tensor:
    """images [B, 3, H, W] float, roi [B] -> crops [B, 3, S, S], bilinear, black outside; differentiable, any device.

    Like MediaPipe, one sample for each crop pixel: reduce images first whose regions are many times larger.
    """
    B, _, height, width = images.shape
    axes = crop_axes(roi).to(images)  # [B, 2, 2] px per crop side
    scale = axes.new_tensor([2 / width, 2 / height])
    theta = torch.cat((axes / 2, (roi.center.to(images))[..., None]), -1) * scale[:, None]  # [B, 2, 3]
    theta = theta - torch.tensor([[0.0, 0.0, 1.0]], dtype=theta.dtype, device=theta.device)
    grid = functional.affine_grid(theta, [B, 3, crop_size, crop_size], align_corners=False)
    return functional.grid_sample(images, grid.to(images.dtype), align_corners=False)


def crop_numpy(image: np.ndarray, roi: Roi, *, crop_size: int = CROP_SIZE) -> np.ndarray:
    """image [H, W, 3] uint8, one roi -> [S, S, 3] uint8, bilinear, black outside. The CPU's path, by OpenCV."""
    affine = crop_affine(roi, crop_size=crop_size).numpy().astype(np.float64)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, affine, (crop_size, crop_size), flags=flags, borderMode=cv2.BORDER_CONSTANT)
