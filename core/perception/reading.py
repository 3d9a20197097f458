"""From the landmark network's raw output to a reading of a person in the full image. Pure functions, batched.

Steps and thresholds are MediaPipe's (pose_landmark_by_roi, tensors_to_pose_landmarks, Apache-2.0): landmarks are
refined by the heat maps, then projected out of the crop.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from core.perception.blazepose import CROP_SIZE, LandmarkOutput
from core.perception.roi import Roi, crop_to_image, roi_from_points
from core.skeleton import BLAZEPOSE_INDICES

HIP_CENTRE, SCALE_POINT = 33, 34
"""Indices of the two auxiliary landmarks that place the next crop."""
HEATMAP_RADIUS = 3
HEATMAP_MIN_CONFIDENCE = 0.5


@dataclass(frozen=True)
class Reading:
    """B people read from B crops."""

    keypoints: Tensor
    """[B, 25, 3] x, y in full image px, confidence 0..1."""
    world: Tensor
    """[B, 25, 3] metres, hip-centred, image axes (x right, y down, z forward)."""
    presence: Tensor
    """[B] probability that there is a person in the crop."""
    embedding: Tensor
    """[B, 1152]."""
    roi: Roi
    """[B] where the crops were taken."""
    next_roi: Roi
    """[B] where the landmarks say the person is: the crop for the next frame."""

    def __getitem__(self, index: object) -> Reading:
        return Reading(
            self.keypoints[index],
            self.world[index],
            self.presence[index],
            self.embedding[index],
            self.roi[index],
            self.next_roi[index],
        )

    def __len__(self) -> int:
        return len(self.presence)


def read_output(output: LandmarkOutput, roi: Roi) -> Reading:
    """Network output for B crops, and the Roi [B] they were taken at -> Reading."""
    logits = output.landmarks[..., 3:]  # [B, 39, 2] visibility, presence
    points = refine_by_heatmaps(output.landmarks[..., :2], output.heatmaps)
    image_points = crop_to_image(points, roi)
    keep = torch.tensor(BLAZEPOSE_INDICES, device=points.device)
    confidence = logits[:, keep].sigmoid().amin(-1, keepdim=True)
    return Reading(
        keypoints=torch.cat((image_points[:, keep], confidence), -1),
        world=rotate_world(output.world[:, keep], roi.angle),
        presence=output.presence,
        embedding=output.embedding,
        roi=roi,
        next_roi=roi_from_points(image_points[:, HIP_CENTRE], image_points[:, SCALE_POINT]),
    )


def refine_by_heatmaps(points: Tensor, heatmaps: Tensor) -> Tensor:
    """Move points [B, P, 2] (crop px) to the centre of mass of the heat around them, where there is heat.

    heatmaps [B, P, h, w] logits. MediaPipe's refine_landmarks_from_heatmap with a 7 x 7 window: the mean of column
    and row numbers weighted by the sigmoid, if its maximum reaches 0.5; points outside the map stay.
    """
    B, P, height, width = heatmaps.shape
    scale = points.new_tensor([width, height]) / CROP_SIZE
    cell = (points * scale).floor().long()  # [B, P, 2] column, row
    inside = ((points >= 0) & (cell < cell.new_tensor([width, height]))).all(-1)
    reach = torch.arange(-HEATMAP_RADIUS, HEATMAP_RADIUS + 1, device=points.device)
    columns = cell[..., :1] + reach  # [B, P, 7]
    rows = cell[..., 1:] + reach
    known = ((rows >= 0) & (rows < height))[..., :, None] & ((columns >= 0) & (columns < width))[..., None, :]
    index = (
        rows.clamp(0, height - 1)[..., :, None] * width + columns.clamp(0, width - 1)[..., None, :]
    )  # [B, P, 7, 7]
    heat = heatmaps.flatten(2).gather(2, index.flatten(2)).reshape(index.shape).float().sigmoid() * known
    total = heat.sum((-2, -1)).clamp_min(1e-9)
    column = (heat.sum(-2) * columns).sum(-1) / total
    row = (heat.sum(-1) * rows).sum(-1) / total
    refined = torch.stack((column, row), -1) / scale
    use = inside & (heat.amax((-2, -1)) >= HEATMAP_MIN_CONFIDENCE)
    return torch.where(use[..., None], refined.to(points.dtype), points)


def rotate_world(world: Tensor, angle: Tensor) -> Tensor:
    """World landmarks [B, P, 3] from the crop's axes to the image's, for crops turned by angle [B]."""
    cos, sin = torch.cos(angle)[:, None], torch.sin(angle)[:, None]
    x, y, z = world.unbind(-1)
    return torch.stack((cos * x - sin * y, sin * x + cos * y, z), -1)
