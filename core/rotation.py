"""Conversions between rotation matrices, axis-angle vectors, quaternions and the 6D form; pure torch functions.

Every function takes any number of leading dimensions, keeps dtype and device, and has finite values and gradients
everywhere, the identity and half turns included. Angles are radians. Matrices act on column vectors. Quaternions
are (w, x, y, z) with w >= 0. The 6D form is the first two columns of the matrix one after the other (Zhou et al.,
"On the Continuity of Rotation Representations in Neural Networks", CVPR 2019, section 4.1).
"""

from __future__ import annotations

import torch
from torch import Tensor

SMALL_ANGLE = 1e-2
"""Below this angle series are used; their first dropped term is under 1e-16 relative."""


def axis_angle_to_matrix(axis_angle: Tensor) -> Tensor:
    """Rodrigues' formula: axis_angle [..., 3] -> [..., 3, 3]. The vector's norm is the angle and may exceed pi."""
    squared = (axis_angle * axis_angle).sum(-1)
    sine_ratio = _sinc(squared)
    half = _sinc(squared / 4)
    cosine_ratio = half * half / 2  # (1 - cos a) / a^2 without cancellation
    K = _cross_matrix(axis_angle)
    # K @ K = v v^T - |v|^2 I, exact and without a batched product
    outer = axis_angle.unsqueeze(-1) * axis_angle.unsqueeze(-2)
    eye = torch.eye(3, dtype=axis_angle.dtype, device=axis_angle.device)
    diagonal = 1 - cosine_ratio * squared
    return diagonal[..., None, None] * eye + sine_ratio[..., None, None] * K + cosine_ratio[..., None, None] * outer


def matrix_to_axis_angle(matrix: Tensor) -> Tensor:
    """Rotation matrices [..., 3, 3] -> axis-angle [..., 3] with angle in [0, pi]."""
    return quaternion_to_axis_angle(matrix_to_quaternion(matrix))


def quaternion_to_axis_angle(quaternion: Tensor) -> Tensor:
    """Unit quaternions [..., 4] -> axis-angle [..., 3] with angle in [0, pi]; q and -q give the same vector."""
    quaternion = _positive_w(quaternion)
    w, xyz = quaternion[..., :1], quaternion[..., 1:]
    squared = (xyz * xyz).sum(-1, keepdim=True)
    is_small = squared < (SMALL_ANGLE / 2) ** 2
    sine = torch.where(is_small, torch.ones_like(squared), squared).sqrt()
    safe_w = torch.where(is_small, w, torch.ones_like(w))
    x2 = torch.where(is_small, squared, torch.zeros_like(squared)) / (safe_w * safe_w)
    series = 2 / safe_w * (1 - x2 * (1 / 3 - x2 * (1 / 5 - x2 * (1 / 7 - x2 / 9))))  # 2 atan(x) / (x w)
    return xyz * torch.where(is_small, series, 2 * torch.atan2(sine, w) / sine)


def axis_angle_to_quaternion(axis_angle: Tensor) -> Tensor:
    """axis_angle [..., 3] -> unit quaternions [..., 4], w >= 0."""
    squared = (axis_angle * axis_angle).sum(-1, keepdim=True)
    half = _sinc(squared / 4)  # sin(a/2) / (a/2)
    quarter = _sinc(squared / 16)
    w = 1 - quarter * quarter * squared / 8  # cos(a/2) = 1 - 2 sin^2(a/4)
    return _positive_w(torch.cat([w, half / 2 * axis_angle], -1))


def matrix_to_quaternion(matrix: Tensor) -> Tensor:
    """Rotation matrices [..., 3, 3] -> unit quaternions [..., 4], w >= 0.

    The ten products 4 q_i q_j are linear in the matrix; the row of the largest q_i^2, normalised, is q up to sign.
    No square root of a number that can vanish is taken, so gradients stay finite at 0 and pi.
    """
    m = matrix
    m00, m11, m22 = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    wx, wy, wz = m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]
    xy, xz, yz = m[..., 0, 1] + m[..., 1, 0], m[..., 0, 2] + m[..., 2, 0], m[..., 1, 2] + m[..., 2, 1]
    ww, xx = 1 + m00 + m11 + m22, 1 + m00 - m11 - m22
    yy, zz = 1 - m00 + m11 - m22, 1 - m00 - m11 + m22
    rows = torch.stack(
        [
            torch.stack([ww, wx, wy, wz], -1),
            torch.stack([wx, xx, xy, xz], -1),
            torch.stack([wy, xy, yy, yz], -1),
            torch.stack([wz, xz, yz, zz], -1),
        ],
        -2,
    )
    best = torch.stack([ww, xx, yy, zz], -1).argmax(-1)
    row = torch.gather(rows, -2, best[..., None, None].expand(*best.shape, 1, 4)).squeeze(-2)
    return _positive_w(row / row.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(row.dtype).tiny))


def quaternion_to_matrix(quaternion: Tensor) -> Tensor:
    """Quaternions [..., 4] of any positive length (normalised here) -> rotation matrices [..., 3, 3]."""
    w, x, y, z = quaternion.unbind(-1)
    s = 2 / (quaternion * quaternion).sum(-1).clamp_min(torch.finfo(quaternion.dtype).tiny)
    return torch.stack(
        [
            torch.stack([1 - s * (y * y + z * z), s * (x * y - w * z), s * (x * z + w * y)], -1),
            torch.stack([s * (x * y + w * z), 1 - s * (x * x + z * z), s * (y * z - w * x)], -1),
            torch.stack([s * (x * z - w * y), s * (y * z + w * x), 1 - s * (x * x + y * y)], -1),
        ],
        -2,
    )


def rotation_6d_to_matrix(rotation_6d: Tensor) -> Tensor:
    """6D form [..., 6] -> rotation matrices [..., 3, 3] by Gram-Schmidt.

    A vanishing first vector is read as the x axis, a second one parallel to the first as any vector across it, so
    that the result is always a rotation.
    """
    first, second = rotation_6d[..., :3], rotation_6d[..., 3:]
    x = _normalise_or(first, first.new_tensor([1.0, 0.0, 0.0]).expand_as(first))
    across = second - (x * second).sum(-1, keepdim=True) * x
    # the basis vector least aligned with x, made orthogonal to it, stands in where `second` is parallel
    spare = torch.nn.functional.one_hot(x.detach().abs().argmin(-1), 3).to(x.dtype)
    spare = spare - (x * spare).sum(-1, keepdim=True) * x
    y = _normalise_or(across, spare / spare.norm(dim=-1, keepdim=True), relative_to=second)
    return torch.stack([x, y, torch.linalg.cross(x, y)], -1)


def matrix_to_rotation_6d(matrix: Tensor) -> Tensor:
    """Rotation matrices [..., 3, 3] -> first and second column [..., 6]."""
    return torch.cat([matrix[..., :, 0], matrix[..., :, 1]], -1)


def nearest_rotation(products: Tensor) -> Tensor:
    """Rotation R maximising trace(R^T products) [..., 3, 3] (Kabsch): the nearest one in the chordal metric.

    For products = sum over points of target source^T, R takes the source's points to the target's.
    """
    U, _, Vh = torch.linalg.svd(products)
    sign = torch.where(torch.linalg.det(U @ Vh) < 0, -1.0, 1.0)
    U = torch.cat((U[..., :2], U[..., 2:] * sign[..., None, None]), dim=-1)
    return U @ Vh


def slerp(start: Tensor, end: Tensor, fraction: Tensor | float) -> Tensor:
    """Shortest great-circle interpolation between unit quaternions start and end [..., 4].

    fraction: number or tensor [...] broadcast over the leading dimensions; 0 gives start, 1 gives end (up to sign).
    Returns unit quaternions [..., 4] with w >= 0.
    """
    dot = (start * end).sum(-1, keepdim=True)
    end = torch.where(dot < 0, -end, end)
    difference, total = start - end, start + end
    half_squared = (difference * difference).sum(-1, keepdim=True)  # (2 sin(a/2))^2
    is_small = half_squared < SMALL_ANGLE**2
    safe = torch.where(is_small, torch.ones_like(half_squared), half_squared)
    angle = 2 * torch.atan2(safe.sqrt(), total.norm(dim=-1, keepdim=True))
    # a^2 from (2 sin(a/2))^2 = h by the series of 4 asin^2(sqrt(h)/2)
    series = half_squared * (1 + half_squared / 12)
    squared = torch.where(is_small, series, angle * angle)
    fraction = torch.as_tensor(fraction, dtype=start.dtype, device=start.device).unsqueeze(-1)
    whole = _sinc(squared)
    rest = 1 - fraction
    weight_start = rest * _sinc(rest * rest * squared) / whole
    weight_end = fraction * _sinc(fraction * fraction * squared) / whole
    mixed = weight_start * start + weight_end * end
    return _positive_w(mixed / mixed.norm(dim=-1, keepdim=True))


def _sinc(squared: Tensor) -> Tensor:
    """sin(a) / a as a smooth function of squared = a^2."""
    is_small = squared < SMALL_ANGLE**2
    angle = torch.where(is_small, torch.ones_like(squared), squared).sqrt()
    s = torch.where(is_small, squared, torch.zeros_like(squared))
    return torch.where(is_small, 1 - s / 6 * (1 - s / 20 * (1 - s / 42)), torch.sin(angle) / angle)


def _cross_matrix(v: Tensor) -> Tensor:
    """[..., 3] -> [..., 3, 3] with _cross_matrix(v) @ u = v x u."""
    x, y, z = v.unbind(-1)
    o = torch.zeros_like(x)
    rows = [torch.stack([o, -z, y], -1), torch.stack([z, o, -x], -1), torch.stack([-y, x, o], -1)]
    return torch.stack(rows, -2)


def _positive_w(quaternion: Tensor) -> Tensor:
    """Flip q to -q where w < 0: the same rotation."""
    return torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)


def _normalise_or(v: Tensor, substitute: Tensor, *, relative_to: Tensor | None = None) -> Tensor:
    """v / |v|, or substitute where v is zero (or rounding noise against `relative_to`); v [..., 3]."""
    squared = (v * v).sum(-1, keepdim=True)
    info = torch.finfo(v.dtype)
    floor = torch.full_like(squared, info.tiny)
    if relative_to is not None:
        floor = floor.maximum((8 * info.eps) ** 2 * (relative_to * relative_to).sum(-1, keepdim=True).detach())
    is_usable = squared > floor
    length = torch.where(is_usable, squared, torch.ones_like(squared)).sqrt()
    return torch.where(is_usable, v / length, substitute)
