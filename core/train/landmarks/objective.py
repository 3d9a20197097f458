"""What the tuned landmarks are held to: the truth of rendered crops, the pseudo truth of real ones.

Distances, not squares, so that a limb taken for the other one does not drown the rest; rendered ones grow slower the
larger they are, so that where left and right cannot be told apart one of them is said, not the middle. The
original network gives 39 landmarks, of which the rendered truth knows 25 and the two that place the next crop; only
real crops hold the rest.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from core.perception.blazepose import CROP_SIZE
from core.perception.reading import HIP_CENTRE, SCALE_POINT
from core.skeleton import BLAZEPOSE_INDICES
from core.synth.crops import HIPS
from core.train.landmarks.features import CropBatch
from core.train.landmarks.footage import FootageBatch
from core.train.landmarks.tail import TailOutput

KEPT = list(BLAZEPOSE_INDICES)
USED_POINTS, BODY_POINTS = 35, 33
"""Landmarks that anything reads, and those of them that have world landmarks with a meaning."""
VISIBILITY = 3
"""Column of the visibility's logit."""


@dataclass(frozen=True)
class TuneLoss:
    """Weights of the terms; places count as shares of the crop's side, world landmarks in metres."""

    place: float = 10.0
    world: float = 1.5
    crop_points: float = 2.0
    """The two landmarks that place the next crop."""
    visibility: float = 0.05
    footage: float = 0.25
    """All terms of real crops."""
    hidden: float = 0.6
    outside: float = 0.2
    """Weights of keypoints behind something and outside the image, against 1 of those in sight."""
    soft_place: float = 1e-5
    soft_world: float = 1e-4
    """Added to squared distances: below their roots (3e-3 of the side, 1 cm) distances count as squares."""
    far_place: float = 0.03
    far_world: float = 0.12
    """Where distances begin to count less."""


def rendered_loss(output: TailOutput, batch: CropBatch, weights: TuneLoss) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of B rendered crops, and its parts (unweighted)."""
    hidden = batch.hidden  # [B, 25]
    share = torch.where(hidden >= 2, weights.outside, torch.where(hidden == 1, weights.hidden, 1.0))
    kept = output.landmarks[:, KEPT]
    place = _distance((kept[..., :2] - batch.xy) / CROP_SIZE, weights.soft_place)
    world = _distance(about_hips(output.world[:, KEPT]) - batch.world, weights.soft_world)
    place, world = (
        (share * flatten_far(d, far)).mean() for d, far in ((place, weights.far_place), (world, weights.far_world))
    )
    points = output.landmarks[:, [HIP_CENTRE, SCALE_POINT], :2]
    crop_points = ((points - batch.aux) / CROP_SIZE).norm(dim=-1).mean()
    visibility = functional.binary_cross_entropy_with_logits(kept[..., VISIBILITY], (hidden == 0).float())
    parts = {"place": place, "world": world, "crop_points": crop_points, "visibility": visibility}
    return sum(getattr(weights, name) * value for name, value in parts.items()), parts


def footage_loss(output: TailOutput, batch: FootageBatch, weights: TuneLoss) -> Tensor:
    """Loss of B real crops: landmarks weigh as much as the original network was sure of them."""
    place = _distance((output.landmarks[..., :2] - batch.points) / CROP_SIZE, weights.soft_place)
    world = _distance(output.world - batch.world, weights.soft_world)
    place, world = (batch.confidence * place)[:, :USED_POINTS], (batch.confidence * world)[:, :BODY_POINTS]
    return weights.place * place.mean() + weights.world * world.mean()


def flatten_far(distance: Tensor, far: float) -> Tensor:
    """Distances whose slope falls from 1.75 at 0 to 1 at `far` and towards 0.25 far beyond."""
    return 0.25 * distance + 1.5 * far * torch.log1p(distance / far)


def about_hips(world: Tensor) -> Tensor:
    """World landmarks [B, 25, 3] relative to the middle of the hips, as the truth of crops is."""
    return world - world[:, HIPS].mean(1, keepdim=True)


def _distance(offset: Tensor, soft: float) -> Tensor:
    return (offset.square().sum(-1) + soft).sqrt()
