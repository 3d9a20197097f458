"""Where the body is: translation against the 2D keypoints, with depth steadied over time."""

from __future__ import annotations

import torch
from torch import Tensor

from core.recover.banded import solve_banded

RAY_SIGMA = 0.006
"""Error of a keypoint as a share of its distance: 6 mm at 1 m, about 8 px at a focal length of 1300 px."""
ACCELERATION_SIGMA = 5.0
"""m/s^2 of acceleration in depth that is ordinary."""
LEAST_DEPTH, LARGEST_DEPTH = 0.4, 100.0


def place_root(points: Tensor, rays: Tensor, confidence: Tensor, times: Tensor) -> Tensor:
    """Translation [N, 3] m that makes points [N, K, 3] project on rays [N, K, 2], weighted by confidence [N, K].

    (p_x + t_x) - r_x (p_z + t_z) = 0 and likewise y are linear in t. Depths are solved together, least squares with a
    penalty on acceleration; sideways then follows from each frame's own rays. times [N] s. float64.
    """
    weight = confidence.clamp_min(1e-6)
    total = weight.sum(1, keepdim=True)
    depth = None
    for _ in range(3):
        mean_ray = (weight[..., None] * rays).sum(1) / total
        rhs = rays * points[..., 2:] - points[..., :2]  # t_xy - r t_z = rhs
        mean_rhs = (weight[..., None] * rhs).sum(1) / total
        centred_ray, centred_rhs = rays - mean_ray[:, None], rhs - mean_rhs[:, None]
        slope = (weight[..., None] * centred_ray * centred_rhs).sum((1, 2))
        information = (weight[..., None] * centred_ray.square()).sum((1, 2)).clamp_min(1e-12)
        depth = _steady((-slope / information).clamp(LEAST_DEPTH, LARGEST_DEPTH), information, times)
        # keypoints far off the rest of the body count less
        t = torch.cat((mean_rhs + mean_ray * depth[:, None], depth[:, None]), 1)
        placed = points + t[:, None]
        off = (placed[..., :2] / placed[..., 2:].clamp_min(0.1) - rays).norm(dim=-1)
        scale = 3 * RAY_SIGMA
        weight = confidence.clamp_min(1e-6) / (1 + (off / scale).square())
        total = weight.sum(1, keepdim=True)
    return t


def _steady(depth: Tensor, information: Tensor, times: Tensor) -> Tensor:
    """Depth [N] smoothed: sum information (z - depth)^2 / (sigma depth)^2 + acceleration^2 / sigma_a^2."""
    count = len(depth)
    if count < 3:
        return depth
    data = information / (RAY_SIGMA * depth.clamp_min(LEAST_DEPTH)).square()
    data = data.clamp_min(1e-6)
    step = torch.diff(times).clamp_min(1e-4)
    # second difference on uneven times: a z[i] + b z[i+1] + c z[i+2]
    h0, h1 = step[:-1], step[1:]
    a, c = 2 / (h0 * (h0 + h1)), 2 / (h1 * (h0 + h1))
    b = -(a + c)
    # the penalty is an integral over time, so that it does not depend on the frame rate
    weight = (h0 + h1) / 2 / ACCELERATION_SIGMA**2 * 30
    diagonal, next1, next2 = data.clone(), torch.zeros_like(depth), torch.zeros_like(depth)
    diagonal[:-2] += weight * a * a
    diagonal[1:-1] += weight * b * b
    diagonal[2:] += weight * c * c
    next1[:-2] += weight * a * b
    next1[1:-1] += weight * b * c
    next2[:-2] += weight * a * c
    blocks = (x[:, None, None] for x in (diagonal, next1, next2))
    return solve_banded(*blocks, (data * depth)[:, None])[:, 0].clamp(LEAST_DEPTH, LARGEST_DEPTH)
