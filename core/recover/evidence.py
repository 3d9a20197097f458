"""What a track says, in the form the fitting terms want. N frames, K keypoints, P pairs; float64 torch."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from core.records import Camera, Track
from core.recover.terms import FEET, PAIRS
from core.skeleton import KEYPOINT_NAMES

DOUBTED_CONFIDENCE = 0.1
"""A keypoint's confidence at and below which it is not used."""
LEAST_POINTS = 6
"""Keypoints a frame needs to count as seen."""
STILL_SPEED = 0.3
"""m/s in the picture's plane at which a foot is a quarter as likely to stand as one at rest."""
LANDMARK_BELIEF = (0.4, 0.5)
"""Belief in the direction between two 3D landmarks inside the picture, and what their confidence adds: which way a
limb points is often right where its place is not, and whether somebody is seen from the front hangs on it."""
OUTSIDE_MARGIN = 0.05
"""Share of the picture's smaller side beyond its edge at which a keypoint is no longer believed."""


@dataclass(frozen=True)
class Evidence:
    times: Tensor
    """[N] s."""
    rays: Tensor
    """[N, K, 2]: (u - c) / f."""
    confidence: Tensor
    """[N, K] 0..1, weight of the image term."""
    points: Tensor
    """[N, K, 3] m: the detector's landmarks, turned from the crop's view to camera axes."""
    directions: Tensor
    """[N, P, 3] unit vectors between pairs of them."""
    pair_confidence: Tensor
    """[N, P]."""
    usable: Tensor
    """[N] bool: enough of the person is seen."""
    upright: Tensor
    """[N, 3] unit vector, about where up is in camera axes."""
    depth: Tensor
    """[N] m: rough distance, that turns the picture's errors into metres. It stays as it is while a motion is solved:
    errors measured at a distance that is solved for would be made small by coming near."""
    planted: Tensor
    """[N, 4] 0..1: how still each of FEET is in the picture from this frame to the next (last frame: 0)."""

    def __len__(self) -> int:
        return len(self.times)

    def __getitem__(self, index) -> Evidence:
        """The same for a slice or index of frames."""
        return Evidence(*(getattr(self, f.name)[index] for f in fields(self)))


def read_evidence(track: Track, camera: Camera) -> Evidence:
    """Turn a track into evidence.

    The detector looks at a crop as if its own camera pointed at the person, so its landmarks are turned by the angle
    between the optical axis and the ray to the hips; but only about the vertical: it also takes people to stand
    upright in the crop, whatever the camera's pitch (measured on renderings: its error in a trunk's angle is about
    the pitch). The camera is taken as level for the same reason.
    """
    keypoints, rays = read_keypoints(track, camera)
    inside = _inside(keypoints, camera) * (torch.from_numpy(np.nan_to_num(track.confidence)) > 0)[:, None]
    confidence = read_belief(keypoints, track) * inside
    landmarks = torch.from_numpy(np.nan_to_num(track.landmarks3d.astype(np.float64)))
    hips = [KEYPOINT_NAMES.index("left_hip"), KEYPOINT_NAMES.index("right_hip")]
    points = torch.einsum("nab,nkb->nka", _turn_to_ray(rays[:, hips, 0].mean(1)), landmarks)
    usable = ((inside > 0.2).sum(1) >= LEAST_POINTS) & (landmarks.abs().amax((1, 2)) > 0.05)
    times = torch.from_numpy(track.times.astype(np.float64))
    upright = torch.tensor([0.0, -1.0, 0.0], dtype=torch.float64).expand(len(rays), 3)
    least, more = LANDMARK_BELIEF
    belief = of_pairs(inside) * (least + more * of_pairs(confidence))
    return assemble_evidence(times, rays, confidence, points, belief, usable, upright)


def of_pairs(weights: Tensor) -> Tensor:
    """Of keypoints' weights [N, K], the lesser of each pair [N, P]."""
    first, second = (list(side) for side in zip(*PAIRS))
    return torch.minimum(weights[:, first], weights[:, second])


def read_keypoints(track: Track, camera: Camera) -> tuple[Tensor, Tensor]:
    """A track's keypoints [N, K, 3] (px, px, confidence; 0 for what is no number), and the rays (u - c) / f to them
    [N, K, 2]."""
    keypoints = torch.from_numpy(np.nan_to_num(track.keypoints.astype(np.float64)))
    centre = torch.tensor([camera.cx, camera.cy], dtype=torch.float64)
    focal = torch.tensor([camera.fx, camera.fy], dtype=torch.float64)
    return keypoints, (keypoints[..., :2] - centre) / focal


def read_belief(keypoints: Tensor, track: Track) -> Tensor:
    """Weights [N, K] 0..1 of keypoints [N, K, 3] by their confidence: 0 where that is low or nobody was seen."""
    seen = torch.from_numpy(np.nan_to_num(track.confidence) > 0)
    return ((keypoints[..., 2] - DOUBTED_CONFIDENCE) / (1 - DOUBTED_CONFIDENCE)).clamp(0, 1) * seen[:, None]


def _turn_to_ray(across: Tensor) -> Tensor:
    """Rotations [N, 3, 3] about the vertical that take the optical axis to rays of slope `across` [N]."""
    angle = torch.atan(across)
    c, s, o = torch.cos(angle), torch.sin(angle), torch.zeros_like(angle)
    return torch.stack([c, o, s, o, o + 1, o, -s, o, c], -1).unflatten(-1, (3, 3))


def _inside(keypoints: Tensor, camera: Camera) -> Tensor:
    """[N, K] 1 for keypoints in the picture, falling to 0 for those the detector made up beyond its edge."""
    size = torch.tensor([camera.width, camera.height], dtype=torch.float64)
    outside = torch.maximum(-keypoints[..., :2], keypoints[..., :2] - size).amax(-1)
    return (1 - outside / (OUTSIDE_MARGIN * size.min())).clamp(0, 1)


def assemble_evidence(
    times: Tensor,
    rays: Tensor,
    confidence: Tensor,
    points: Tensor,
    pair_confidence: Tensor,
    usable: Tensor,
    upright: Tensor,
) -> Evidence:
    """Evidence from rays [N, K, 2], confidence [N, K], points [N, K, 3] m, pair_confidence [N, P] and usable [N];
    directions are derived."""
    first, second = (list(side) for side in zip(*PAIRS))
    difference = points[:, second] - points[:, first]
    length = difference.norm(dim=-1, keepdim=True)
    pair_confidence = pair_confidence * (length[..., 0] > 1e-3)
    return Evidence(
        times,
        rays,
        confidence,
        points,
        difference / length.clamp_min(1e-3),
        pair_confidence * usable[:, None],
        usable,
        upright,
        torch.ones_like(times),
        _stillness(times, rays, confidence * usable[:, None], points),
    )


def _stillness(times: Tensor, rays: Tensor, confidence: Tensor, points: Tensor) -> Tensor:
    """[N, 4] of FEET: Geman-McClure weight of the speed in the picture from one frame before to two after, times the
    least confidence on the way. Pixels become metres by the size of the trunk and legs, in the picture and in 3D."""
    N, feet = len(times), list(FEET)
    still = torch.zeros(N, len(feet), dtype=torch.float64)
    if N < 2:
        return still
    sure = confidence[:, :, None]
    total = sure.sum(1).clamp_min(1e-6)

    def spread(values: Tensor) -> Tensor:
        centre = (sure * values).sum(1) / total
        return ((sure * (values - centre[:, None]) ** 2).sum((1, 2)) / total[:, 0]).sqrt()

    scale = spread(points[..., :2]) / spread(rays).clamp_min(1e-6)  # [N] m per unit of ray
    index = torch.arange(N - 1)
    first, last = (index - 1).clamp_min(0), (index + 2).clamp_max(N - 1)
    moved = (rays[last][:, feet] - rays[first][:, feet]).norm(dim=-1) * scale[index, None]
    speed = moved / (times[last] - times[first]).clamp_min(1e-6)[:, None]
    weight = (STILL_SPEED**2 / (STILL_SPEED**2 + speed.square())) ** 2
    least = torch.minimum(confidence[first][:, feet], confidence[last][:, feet])
    still[:-1] = weight * torch.minimum(least, confidence[index][:, feet])
    return still
