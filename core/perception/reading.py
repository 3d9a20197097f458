"""From the landmark network's raw output to a reading of a person in the full image. Pure functions, batched.

Steps and thresholds are MediaPipe's (pose_landmark_by_roi, tensors_to_pose_landmarks, Apache-2.0): landmarks are
refined by the heat maps, then projected out of the crop. A crop and its mirror image can be read together: each
reading is refined on its own, as heat cells lie half a cell off centre, then the two are averaged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from core.perception.blazepose import CROP_SIZE, LandmarkOutput
from core.perception.certainty import confidence_of
from core.perception.heat import read_heat
from core.perception.roi import Roi, crop_to_image, roi_from_points
from core.skeleton import BLAZEPOSE_INDICES, KEYPOINT_MIRROR, KEYPOINT_NAMES

HIP_CENTRE, SCALE_POINT = 33, 34
"""Indices of the two auxiliary landmarks that place the next crop."""
HEATMAP_RADIUS = 3
HEATMAP_MIN_CONFIDENCE = 0.5
LANDMARK_MIRROR: tuple[int, ...] = (
    0, 4, 5, 6, 1, 2, 3, 8, 7, 10, 9, *(k + 1 if k % 2 else k - 1 for k in range(11, 33)), *range(33, 39),
)  # fmt: skip
"""Which landmark each one is in a mirror image. The last six have no side."""
_ARMS, _LEGS = (
    tuple(n for n, k in enumerate(BLAZEPOSE_INDICES) if any(part in KEYPOINT_NAMES[n] for part in parts))
    for parts in (("shoulder", "elbow", "wrist", "pinky", "index", "thumb"), ("hip", "knee", "ankle", "heel", "toe"))
)
LIMBS: tuple[tuple[int, ...], ...] = tuple(tuple(BLAZEPOSE_INDICES[n] for n in group) for group in (_ARMS, _LEGS))
"""Landmarks of both arms, and of both legs: what a network names left and right as one."""


@dataclass(frozen=True)
class Reading:
    """B people read from B crops."""

    keypoints: Tensor
    """[B, 25, 3] x, y in full image px, confidence 0..1 (core/perception/certainty.py)."""
    world: Tensor
    """[B, 25, 3] metres, hip-centred, image axes (x right, y down, z forward)."""
    presence: Tensor
    """[B] probability that there is a person in the crop."""
    visibility: Tensor
    """[B] mean visibility of the keypoints, 0..1: how much of the person can be seen."""
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
            self.visibility[index],
            self.embedding[index],
            self.roi[index],
            self.next_roi[index],
        )

    def __len__(self) -> int:
        return len(self.presence)


def read_images(
    network: Callable[[Tensor], LandmarkOutput], images: Tensor, *, mirrored_under: float = 0.0
) -> CropReading:
    """What the landmark network reads in images [B, 3, S, S]; where the keypoints' mean confidence is below
    `mirrored_under`, the mean of that and of what it reads in the mirror image (columns reversed)."""
    reading = decode_output(network(images))
    doubted = reading.certainty < mirrored_under
    if doubted.any():
        mirrored = images[doubted].flip(-1).contiguous(memory_format=torch.channels_last)
        mean = average_readings(reading.pick(doubted), mirror_reading(decode_output(network(mirrored))))
        reading = reading.replaced(doubted, mean)
    return reading


class CropReading(NamedTuple):
    """B people in the coordinates of their crops, all L = 39 landmarks."""

    points: Tensor
    """[B, L, 2] crop px."""
    confidence: Tensor
    """[B, L] 0..1."""
    world: Tensor
    """[B, L, 3] metres, crop axes."""
    presence: Tensor
    """[B]."""
    visibility: Tensor
    """[B, 25] of visibility and presence the lesser, 0..1; with heat it tells how sure the network is."""
    heat: Tensor
    """[B, 25, 6] (heat.read_heat)."""
    depth: Tensor
    """[B, 25] crop px from the hips' middle, away from the camera positive."""
    embedding: Tensor
    """[B, 1152]."""

    @property
    def certainty(self) -> Tensor:
        """[B] mean confidence of the 25 keypoints."""
        return self.confidence[:, list(BLAZEPOSE_INDICES)].mean(-1)

    def pick(self, rows: Tensor) -> CropReading:
        """Some of the people."""
        return CropReading(*(part[rows] for part in self))

    def replaced(self, rows: Tensor, by: CropReading) -> CropReading:
        """With the people of a mask [B] as they are in `by`."""
        return CropReading(*(part.index_put((rows,), new.to(part.dtype)) for part, new in zip(self, by)))


def decode_output(output: LandmarkOutput) -> CropReading:
    """Landmarks refined by the heat maps, the kept ones' confidence by `certainty`; in the crops' coordinates."""
    keep = torch.tensor(BLAZEPOSE_INDICES, device=output.landmarks.device)
    seen = output.landmarks[..., 3:].float().sigmoid().amin(-1)  # [B, L]
    kept = output.landmarks[:, keep, :3].float()
    heat = read_heat(kept[..., :2] / CROP_SIZE, output.heatmaps[:, keep])
    visibility = seen[:, keep]
    return CropReading(
        points=refine_by_heatmaps(output.landmarks[..., :2], output.heatmaps),
        confidence=seen.index_copy(1, keep, confidence_of(visibility, heat)),
        world=output.world,
        presence=output.presence,
        visibility=visibility,
        heat=heat,
        depth=kept[..., 2],
        embedding=output.embedding,
    )


def mirror_reading(reading: CropReading) -> CropReading:
    """What was read from a mirror image, for the crop itself: x turned round, left and right exchanged."""
    turn = reading.points.new_tensor([-1.0, 1.0, 1.0])
    sides, kept = list(LANDMARK_MIRROR), list(KEYPOINT_MIRROR)
    return reading._replace(
        points=(reading.points * turn[:2] + turn.new_tensor([CROP_SIZE, 0.0]))[:, sides],
        confidence=reading.confidence[:, sides],
        world=(reading.world * turn)[:, sides],
        visibility=reading.visibility[:, kept],
        heat=reading.heat[:, kept],
        depth=reading.depth[:, kept],
    )


def average_readings(first: CropReading, second: CropReading) -> CropReading:
    """The mean of two readings of the same crops; its embedding is the first's.

    Where they name the sides of the arms or legs differently, the mean would be between the limbs: there the surer
    reading of them counts alone.
    """
    weight = first.confidence.new_full(first.confidence.shape, 0.5)  # [B, L] of the first
    exchanged = second.points[:, list(LANDMARK_MIRROR)]
    for limb in LIMBS:
        ids = list(limb)
        apart = (first.points - second.points)[:, ids].norm(dim=-1).sum(-1)
        apart_exchanged = (first.points - exchanged)[:, ids].norm(dim=-1).sum(-1)
        surer = torch.sign(first.confidence[:, ids].sum(-1) - second.confidence[:, ids].sum(-1)) / 2 + 0.5
        weight[:, ids] = torch.where(apart_exchanged < apart, surer, 0.5)[:, None]
    wide = weight[..., None]
    return CropReading(
        points=wide * first.points + (1 - wide) * second.points,
        confidence=weight * first.confidence + (1 - weight) * second.confidence,
        world=wide * first.world + (1 - wide) * second.world,
        presence=(first.presence + second.presence) / 2,
        visibility=(first.visibility + second.visibility) / 2,
        heat=(first.heat + second.heat) / 2,
        depth=(first.depth + second.depth) / 2,
        embedding=first.embedding,
    )


def place_reading(reading: CropReading, roi: Roi) -> Reading:
    """What was read from crops taken at roi [B], in the full image."""
    image_points = crop_to_image(reading.points, roi)
    keep = torch.tensor(BLAZEPOSE_INDICES, device=image_points.device)
    return Reading(
        keypoints=torch.cat((image_points[:, keep], reading.confidence[:, keep, None]), -1),
        world=rotate_world(reading.world[:, keep], roi.angle),
        presence=reading.presence,
        visibility=reading.visibility.mean(-1),
        embedding=reading.embedding,
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
