"""Random pinhole cameras around a moving person, and projection. World y up; camera x right, y down, z forward.

Focal lengths are 35 mm equivalents on the image diagonal: f_px = f_mm / 43.27 * hypot(width, height), so that
43 mm is the diagonal. Batches: B clips, T frames.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from core.rotation import axis_angle_to_matrix

FULL_FRAME_DIAGONAL_MM = 43.2666


@dataclass(frozen=True)
class CameraConfig:
    focal_mm: tuple[float, float] = (24.0, 85.0)
    """Log-uniform range."""
    sizes: tuple[tuple[int, int, float], ...] = (
        (1920, 1080, 4.0),
        (1080, 1920, 3.0),
        (1280, 720, 2.0),
        (720, 1280, 1.5),
        (640, 480, 1.0),
        (1440, 1080, 1.0),
        (1080, 1080, 0.5),
        (1768, 524, 0.5),
    )
    """Width, height, weight."""
    person_fraction: tuple[float, float] = (0.3, 1.0)
    """Share of the image's height that a standing person of 1.7 m fills (of the width, where that is less)."""
    distance_m: tuple[float, float] = (1.6, 14.0)
    height_m: tuple[float, float] = (0.3, 2.6)
    """Camera height above the floor; most lie near 1.4."""
    roll_deg: float = 2.5
    """Standard deviation."""
    truncated: float = 0.15
    """Share of clips whose person may leave the image."""
    handheld: float = 0.35
    following: float = 0.3
    """Shares of clips whose camera shakes, and whose camera pans after the person; a clip can do both."""
    above: float = 0.0
    """Share of clips seen from far above: the camera looks down by above_deg."""
    above_deg: tuple[float, float] = (28.0, 62.0)


@dataclass(frozen=True)
class Cameras:
    R: Tensor
    """[B, T, 3, 3]: x_cam = R x_world + t."""
    t: Tensor
    """[B, T, 3] metres."""
    intrinsics: Tensor
    """[B, 4] fx fy cx cy px."""
    size: Tensor
    """[B, 2] int64 width, height px."""

    def __getitem__(self, index: Tensor | slice) -> Cameras:
        return Cameras(self.R[index], self.t[index], self.intrinsics[index], self.size[index])

    def to_camera(self, points: Tensor) -> Tensor:
        """World points [B, T, K, 3] -> camera frame."""
        return points @ self.R.transpose(-1, -2) + self.t[:, :, None]

    def up(self) -> Tensor:
        """[B, T, 3] unit vector against gravity in the camera frame."""
        return self.R[..., :, 1]


def project(points_cam: Tensor, intrinsics: Tensor) -> Tensor:
    """Camera points [B, T, K, 3] with intrinsics [B, 4] -> px [B, T, K, 2]; depth is held above 5 cm."""
    depth = points_cam[..., 2:].clamp_min(0.05)
    focal, centre = intrinsics[:, None, None, :2], intrinsics[:, None, None, 2:]
    return points_cam[..., :2] / depth * focal + centre


def focal_px(focal_mm: Tensor, size: Tensor) -> Tensor:
    """35 mm equivalent focal lengths [B] and sizes [B, 2] -> px [B]."""
    return focal_mm / FULL_FRAME_DIAGONAL_MM * size.to(focal_mm.dtype).norm(dim=-1)


def look_at(eye: Tensor, target: Tensor, roll: Tensor) -> Tensor:
    """R [..., 3, 3] (camera from world) of cameras at eye [..., 3] looking at target [..., 3], roll [...] rad."""
    forward = torch.nn.functional.normalize(target - eye, dim=-1)
    up = torch.zeros_like(forward)
    up[..., 1] = 1
    right = torch.nn.functional.normalize(torch.linalg.cross(forward, up), dim=-1)
    down = torch.linalg.cross(forward, right)
    R = torch.stack([right, down, forward], -2)
    c, s, o = torch.cos(roll), torch.sin(roll), torch.zeros_like(roll)
    turn = torch.stack([c, -s, o, s, c, o, o, o, torch.ones_like(o)], -1).reshape(*roll.shape, 3, 3)
    return turn @ R


def smooth_noise(shape: tuple[int, ...], correlation: float, generator: torch.Generator, device) -> Tensor:
    """Unit-variance noise [B, T, ...] along dim 1 by a first-order filter with the given correlation a frame."""
    white = torch.randn(shape, generator=generator, device=device)
    return filter_white(white, torch.full((1,), correlation, device=device)).reshape(shape)


def filter_white(white: Tensor, correlation: Tensor) -> Tensor:
    """First-order autoregression of unit variance along dim 1.

    white [B, T, ...] standard normal; correlation broadcast over the dims after T (any shape that does). Returns
    the same shape: x_0 = e_0, x_t = r x_{t-1} + sqrt(1 - r^2) e_t, computed by repeated doubling of the span.
    """
    r = correlation.expand(white.shape[2:]) if white.dim() > 2 else correlation.reshape(())
    x = white * torch.sqrt(1 - r * r)
    x[:, 0] = white[:, 0]
    span, T = 1, white.shape[1]
    power = r
    while span < T:
        shifted = torch.zeros_like(x)
        shifted[:, span:] = x[:, :-span]
        x = x + power * shifted
        power = power * power
        span *= 2
    return x


def sample_cameras(pelvis: Tensor, generator: torch.Generator, config: CameraConfig | None = None) -> Cameras:
    """Draw one camera per clip for people whose pelvis moves along [B, T, 3] (world, y up, floor at 0)."""
    config = config or CameraConfig()
    B, T, _ = pelvis.shape
    device = pelvis.device

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(shape or (B,), generator=generator, device=device) * (high - low) + low

    weights = torch.tensor([s[2] for s in config.sizes], device=device)
    choice = torch.multinomial(weights, B, replacement=True, generator=generator)
    size = torch.tensor([s[:2] for s in config.sizes], device=device)[choice]
    focal = focal_px(torch.exp(uniform(math.log(config.focal_mm[0]), math.log(config.focal_mm[1]))), size)
    width, height = size[:, 0].float(), size[:, 1].float()

    follows = uniform(0, 1) < config.following
    centre = pelvis.mean(1)
    spread = (pelvis - centre[:, None]).norm(dim=-1).amax(1)
    extent = 1.7 + torch.where(follows, 0.4 * spread, torch.zeros_like(spread))
    fraction = uniform(*config.person_fraction)
    distance = focal * extent / (fraction * torch.minimum(height, 1.5 * width))
    is_truncated = uniform(0, 1) < config.truncated
    needed = focal * (1.2 + 2 * spread) / (0.95 * torch.minimum(width, height)) + spread
    held = ~follows & ~is_truncated
    distance = torch.where(held, torch.maximum(distance, needed), distance)
    distance = distance.clamp(*config.distance_m).maximum(spread + 0.9)

    tall = 1.4 + 0.45 * torch.randn(B, generator=generator, device=device)
    tall = torch.where(uniform(0, 1) < 0.3, uniform(*config.height_m), tall).clamp(*config.height_m)
    azimuth = uniform(0, 2 * math.pi)
    sideways = torch.stack([torch.sin(azimuth), torch.zeros_like(azimuth), torch.cos(azimuth)], -1)
    across = torch.stack([sideways[:, 2], torch.zeros_like(azimuth), -sideways[:, 0]], -1)
    flat_centre = centre * torch.tensor([1.0, 0.0, 1.0], device=device)
    eye = flat_centre + sideways * distance[:, None]
    eye[:, 1] = tall
    if config.above > 0:
        is_above = uniform(0, 1) < config.above
        steep = torch.deg2rad(uniform(*config.above_deg))
        over = flat_centre + sideways * (distance * torch.cos(steep))[:, None]
        over[:, 1] = centre[:, 1] + distance * torch.sin(steep)
        eye = torch.where(is_above[:, None], over, eye)
    # aim so that the person lies off the middle by a share of the free room
    view = torch.stack([width, height], -1) / focal[:, None] * distance[:, None]
    person = torch.stack([torch.full_like(distance, 0.8), torch.full_like(distance, 1.8)], -1)
    free = ((view - person) / 2).clamp_min(0)
    free = torch.where(is_truncated[:, None], free + 0.35 * person, free * 0.8)
    off = uniform(-1, 1, B, 2) * free
    off[:, 0] = off[:, 0] * torch.where(held, (1 - 2 * spread / view[:, 0]).clamp(0, 1), torch.ones_like(spread))
    middle = centre[:, 1].clamp(0.3, 1.6) - 0.05
    aim = flat_centre + across * off[:, :1]
    aim[:, 1] = middle + off[:, 1]

    lag = _moving_average(pelvis - centre[:, None], max(1, T // 3))
    path = aim[:, None] + torch.where(follows[:, None, None], lag, torch.zeros_like(lag))
    shakes = (uniform(0, 1) < config.handheld)[:, None, None]
    roll = (torch.randn(B, generator=generator, device=device) * math.radians(config.roll_deg))[:, None].expand(B, T)
    R = look_at(eye[:, None].expand(B, T, 3), path, roll)
    amount = uniform(0.002, 0.012)[:, None, None]
    shake = (
        smooth_noise((B, T, 3), 0.95, generator, device) * 0.8 + smooth_noise((B, T, 3), 0.6, generator, device) * 0.2
    )
    shake = torch.where(shakes, shake * amount, torch.zeros_like(shake))
    R = axis_angle_to_matrix(shake) @ R
    drift = smooth_noise((B, T, 3), 0.97, generator, device) * 0.03
    position = eye[:, None] + torch.where(shakes, drift, torch.zeros_like(drift))
    t = -(R @ position[..., None]).squeeze(-1)
    intrinsics = torch.stack([focal, focal, width / 2, height / 2], -1)
    return Cameras(R, t, intrinsics, size)


def _moving_average(x: Tensor, window: int) -> Tensor:
    """Mean over a centred window along dim 1, edges held; x [B, T, C]."""
    padded = torch.nn.functional.pad(x.transpose(1, 2), (window // 2, (window - 1) // 2), mode="replicate")
    return torch.nn.functional.avg_pool1d(padded, window, stride=1).transpose(1, 2)
