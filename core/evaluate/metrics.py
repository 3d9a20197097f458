"""Error metrics of the papers, in millimetres: MPJPE, PA-MPJPE (and with scale or rotation alone), MPVPE, Accel;
rotation angles in degrees.

Inputs are metres; every function keeps the leading axes it is not said to reduce, so that callers weigh frames as
they like. N frames, J joints or vertices.
"""

from __future__ import annotations

import torch
from torch import Tensor

MM = 1000.0


def root_aligned(points: Tensor, root: Tensor | None = None) -> Tensor:
    """Points [..., J, 3] less a root [..., 3]; by default point 0."""
    return points - (points[..., :1, :] if root is None else root[..., None, :])


def mean_point_error(predicted: Tensor, truth: Tensor) -> Tensor:
    """MPJPE or MPVPE of aligned points: [..., J, 3] twice -> [...] mm."""
    return (predicted - truth).norm(dim=-1).mean(-1) * MM


def procrustes_align(predicted: Tensor, truth: Tensor) -> Tensor:
    """Similarity transform of `predicted` [..., J, 3] that fits `truth` best (rotation without reflection)."""
    mean_p, mean_t = predicted.mean(-2, keepdim=True), truth.mean(-2, keepdim=True)
    p, t = predicted - mean_p, truth - mean_t
    R, S, D = _best_rotation(p, t)
    scale = (S * D).sum(-1) / p.square().sum((-1, -2)).clamp_min(torch.finfo(p.dtype).tiny)
    return scale[..., None, None] * (p @ R) + mean_t


def _best_rotation(p: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """R [..., 3, 3] without reflection with p R nearest t [..., J, 3], the singular values of p^T t, their signs."""
    U, S, Vh = torch.linalg.svd(p.transpose(-1, -2) @ t)  # p^T t = U S Vh, R = (U D Vh)^T
    sign = torch.sign(torch.linalg.det(U @ Vh))
    D = torch.ones_like(S)
    D[..., -1] = torch.where(sign == 0, 1.0, sign)
    return (U * D[..., None, :]) @ Vh, S, D  # rows: p R


def turn_error(predicted: Tensor, truth: Tensor) -> Tensor:
    """MPJPE after the best rotation about the root per frame. Aligned [..., J, 3] twice -> [...] mm."""
    return mean_point_error(predicted @ _best_rotation(predicted, truth)[0], truth)


def procrustes_error(predicted: Tensor, truth: Tensor) -> Tensor:
    """PA-MPJPE: error after a similarity fit per frame. [..., J, 3] twice -> [...] mm."""
    return mean_point_error(procrustes_align(predicted, truth), truth)


def scale_error(predicted: Tensor, truth: Tensor) -> Tensor:
    """MPJPE after the best scaling about the root per frame, least squares. Aligned [..., J, 3] twice -> [...] mm."""
    scale = (predicted * truth).sum((-1, -2)) / predicted.square().sum((-1, -2)).clamp_min(1e-12)
    return mean_point_error(scale[..., None, None] * predicted, truth)


def acceleration_error(predicted: Tensor, truth: Tensor) -> Tensor:
    """Accel: mean norm of the difference of second finite differences. [..., N, J, 3] -> [..., N - 2] mm/frame^2."""
    difference = predicted - truth
    second = difference[..., 2:, :, :] - 2 * difference[..., 1:-1, :, :] + difference[..., :-2, :, :]
    return second.norm(dim=-1).mean(-1) * MM


def acceleration(points: Tensor) -> Tensor:
    """Mean norm of second differences, for footage without truth. [..., N, J, 3] -> [..., N - 2] mm/frame^2."""
    return acceleration_error(points, torch.zeros_like(points))


def rotation_angle(predicted: Tensor, truth: Tensor) -> Tensor:
    """Geodesic angle between rotation matrices [..., 3, 3] -> [...] degrees."""
    relative = predicted.transpose(-1, -2) @ truth
    trace = relative.diagonal(dim1=-2, dim2=-1).sum(-1)
    skew = relative - relative.transpose(-1, -2)
    sine = 0.5 * torch.stack((skew[..., 2, 1], skew[..., 0, 2], skew[..., 1, 0]), -1).norm(dim=-1)
    return torch.rad2deg(torch.atan2(sine, 0.5 * (trace - 1)))
