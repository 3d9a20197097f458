"""How well landmarks meet the truth of rendered crops, as millimetres of a person 1.70 m tall.

While the tail is tuned its landmarks are refined by the original's heat maps, which the later refit keeps; at the end
the whole network is scored as it is used.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from core.perception.blazepose import BlazePoseLandmarks
from core.perception.reading import refine_by_heatmaps
from core.skeleton import BLAZEPOSE_INDICES, KEYPOINT_MIRROR
from core.train.landmarks.features import CHUNK, CropBank, CropBatch, to_images
from core.train.landmarks.objective import about_hips
from core.train.landmarks.tail import run_tail

KEPT, MIRROR = list(BLAZEPOSE_INDICES), list(KEYPOINT_MIRROR)
PERSON_MM = 1700.0
"""What the longer side of the box around all keypoints stands for."""


@dataclass(frozen=True)
class Validation:
    """Held-out crops, and what the original network makes of them."""

    truth: CropBatch
    pictures: np.ndarray
    """[N, 256, 256, 3] uint8 RGB."""
    heatmaps: Tensor
    """[N, 25, 64, 64] float16 logits of the original network."""


@torch.inference_mode()
def make_validation(bank: CropBank, network: BlazePoseLandmarks, *, step: int, at_most: int) -> Validation:
    """Of a bank of held-out crops each `step`-th, at most `at_most`; network: the original."""
    pictures = bank.pictures(step, at_most=at_most)
    heat = [
        network(to_images(pictures[k : k + CHUNK])).heatmaps[:, KEPT].half() for k in range(0, len(pictures), CHUNK)
    ]
    return Validation(bank.every(step, at_most=at_most), pictures, torch.cat(heat))


@torch.inference_mode()
def score_tail(network: BlazePoseLandmarks, validation: Validation) -> dict[str, float]:
    """Scores of the tail alone, landmarks refined by the original's heat maps (see `score`), and unrefined: raw."""
    truth = validation.truth
    outputs = [run_tail(network, truth.features[k : k + CHUNK]) for k in range(0, len(truth.xy), CHUNK)]
    points = torch.cat([output.landmarks[:, KEPT, :2] for output in outputs])
    world = torch.cat([output.world[:, KEPT] for output in outputs])
    raw = score(points, world, truth)
    refined = score(refine_by_heatmaps(points, validation.heatmaps.float()), world, truth)
    return {"raw": raw["mean"], "raw_median": raw["median"], **refined}


@torch.inference_mode()
def score_network(network: BlazePoseLandmarks, validation: Validation) -> dict[str, float]:
    """Scores of the whole network from the pictures on, and `present`: the share of crops it sees a person in."""
    points, world, present, pictures = [], [], [], validation.pictures
    for k in range(0, len(pictures), CHUNK):
        output = network(to_images(pictures[k : k + CHUNK]))
        points.append(refine_by_heatmaps(output.landmarks[..., :2], output.heatmaps)[:, KEPT])
        world.append(output.world[:, KEPT])
        present.append(output.presence)
    found = score(torch.cat(points), torch.cat(world), validation.truth)
    return {**found, "present": float((torch.cat(present) > 0.5).float().mean())}


def score(points: Tensor, world: Tensor, truth: CropBatch) -> dict[str, float]:
    """Of points [N, 25, 2] crop px and world landmarks [N, 25, 3] m, in mm of the person:

    mean and median distance of keypoints inside the image, the mean of those in sight (visible), the mean distance
    of world landmarks about the hips (world), and the share of crops that fit better with left and right exchanged
    (swapped).
    """
    size = (truth.xy.amax(1) - truth.xy.amin(1)).amax(-1)  # [N]

    def apart(at: Tensor) -> Tensor:
        return (at - truth.xy).norm(dim=-1) / size[:, None] * PERSON_MM  # [N, 25]

    off = apart(points)
    inside, visible = off[truth.hidden < 2], off[truth.hidden == 0]
    is_swapped = apart(points[:, MIRROR]).mean(1) < off.mean(1)
    return {
        "mean": float(inside.mean()),
        "median": float(inside.median()),
        "visible": float(visible.mean()),
        "world": float((about_hips(world) - truth.world).norm(dim=-1).mean()) * 1000,
        "swapped": float(is_swapped.float().mean()),
    }
