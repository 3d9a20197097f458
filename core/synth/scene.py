"""Lights and backgrounds of random scenes; batched torch. Colours are display values 0..1, RGB."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

TEXTURE = 320
"""Side of a background texture in px; it is stretched over the whole image."""
BLUR = 9
"""Width in px of a quiet background's blur."""


@dataclass(frozen=True)
class Lights:
    """World frame, y up. Turn the directions into the camera frame with `in_camera`."""

    key: Tensor
    """[B, 3] unit vector towards the key lamp."""
    fill: Tensor
    """[B, 3] towards the fill lamp."""
    values: Tensor
    """[B, 7]: colour of the key lamp (3), of the ambient light (3), how far the key light wraps around edges."""

    def in_camera(self, R: Tensor) -> Tensor:
        """Rows [B, 16] that `figure.shade` reads, for cameras R [B, 3, 3]."""
        key, fill = ((R @ v[..., None]).squeeze(-1) for v in (self.key, self.fill))
        up = R[..., :, 1]
        return torch.cat([key, self.values[:, 0:3], fill, self.values[:, 3:6], up, self.values[:, 6:7]], -1)


def draw_lights(count: int, generator: torch.Generator, device: torch.device | str = "cpu") -> Lights:
    """A key lamp above, a weaker one elsewhere, ambient light; from flat overcast to hard sun."""

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand((count, *shape), generator=generator, device=device) * (high - low) + low

    def direction(low_deg: float, high_deg: float) -> Tensor:
        elevation, azimuth = uniform(math.radians(low_deg), math.radians(high_deg)), uniform(0, 2 * math.pi)
        c = torch.cos(elevation)
        return torch.stack([c * torch.sin(azimuth), torch.sin(elevation), c * torch.cos(azimuth)], -1)

    strength = uniform(0.15, 1.0, 1)
    exposure = uniform(0.75, 1.15, 1)
    tint = 1 + uniform(-0.12, 0.12, 1) * torch.tensor([1.0, 0.1, -1.0], device=device)
    key = strength * exposure * tint * 0.85
    ambient = (1.05 - 0.75 * strength) * exposure * (1 + uniform(-0.08, 0.08, 3))
    return Lights(direction(15, 80), direction(-10, 60), torch.cat([key, ambient, uniform(0.0, 0.6, 1)], -1))


def draw_backgrounds(
    count: int, generator: torch.Generator, device: torch.device | str = "cpu", *, busy: float = 1.0
) -> Tensor:
    """Textures [B, 3, TEXTURE, TEXTURE]: two grounds with a horizon, clouds of noise, boxes and bars as clutter.

    A share `busy` is as wild as that may get, the others are out of focus and pale.
    """
    S = TEXTURE

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand((count, *shape), generator=generator, device=device) * (high - low) + low

    y, x = torch.meshgrid(
        torch.linspace(0, 1, S, device=device), torch.linspace(0, 1, S, device=device), indexing="ij"
    )
    y, x = y[None, None], x[None, None]
    wall, floor = uniform(0.05, 0.95, 3, 1, 1), uniform(0.05, 0.9, 3, 1, 1)
    wall, floor = muted(wall, uniform(0, 1, 1, 1, 1)), muted(floor, uniform(0, 1, 1, 1, 1))
    shading = 1 + uniform(-0.4, 0.4, 1, 1, 1) * (y - 0.5) + uniform(-0.4, 0.4, 1, 1, 1) * (x - 0.5)
    horizon = uniform(0.35, 0.95, 1, 1, 1) + uniform(-0.05, 0.05, 1, 1, 1) * (x - 0.5)
    image = torch.where(y < horizon, wall, floor) * shading
    for cells in (4, 11, 31, 90):
        noise = torch.randn((count, 3, cells, cells), generator=generator, device=device)
        flat = torch.randn((count, 1, cells, cells), generator=generator, device=device)
        wide = torch.nn.functional.interpolate(0.3 * noise + flat, size=(S, S), mode="bicubic", align_corners=False)
        image = image + wide * uniform(0, 0.35, 1, 1, 1) ** 2
    for _ in range(14):
        image = _add_box(image, x, y, count, generator, device)
    waves = torch.sin((x * uniform(-1, 1, 1, 1, 1) + y * uniform(-1, 1, 1, 1, 1)) * uniform(20, 250, 1, 1, 1))
    image = image + waves * uniform(-0.1, 0.06, 1, 1, 1).clamp_min(0)
    image = image.clamp(0, 1)
    if busy < 1:
        soft = torch.nn.functional.avg_pool2d(image, BLUR, 1, BLUR // 2, count_include_pad=False)
        quiet = (soft + image.mean((2, 3), keepdim=True)) / 2
        image = torch.where(uniform(0, 1, 1, 1, 1) < busy, image, quiet)
    return image


def _add_box(image: Tensor, x: Tensor, y: Tensor, count: int, generator: torch.Generator, device) -> Tensor:
    """One turned box, bar or disc per image, plain or striped, some translucent, some absent."""
    r = torch.rand((count, 16, 1, 1), generator=generator, device=device)
    angle = (r[:, 0:1] < 0.3) * (r[:, 1:2] - 0.5) * math.pi
    u = (x - r[:, 2:3]) * torch.cos(angle) + (y - r[:, 3:4]) * torch.sin(angle)
    v = (y - r[:, 3:4]) * torch.cos(angle) - (x - r[:, 2:3]) * torch.sin(angle)
    width, height = 0.01 + 0.22 * r[:, 4:5] ** 2, 0.01 + 0.3 * r[:, 5:6] ** 2
    box = (u.abs() < width) & (v.abs() < height)
    disc = (u / width) ** 2 + (v / height) ** 2 < 1
    inside = torch.where(r[:, 6:7] < 0.25, disc, box) & (r[:, 7:8] < 0.7)
    stripes = (torch.sin(u * (20 + 300 * r[:, 8:9])) > 0) & (r[:, 9:10] < 0.3)
    color = muted(r[:, 10:13], r[:, 14:15]) * (1 - 0.5 * stripes.float())
    opacity = (0.4 + 0.8 * r[:, 13:14]).clamp_max(1) * inside.float()
    return image * (1 - opacity) + color * opacity


def muted(color: Tensor, strength: Tensor) -> Tensor:
    """Colours [B, 3, ...] drawn to their grey; strength [B, 1, ...] 0..1, most results are pale."""
    grey = color.mean(1, keepdim=True)
    return grey + (color - grey) * 0.8 * strength**2


def sample_background(textures: Tensor, pixels: Tensor, size: Tensor) -> Tensor:
    """Colours [B, 3, H, W] of the background at full-image pixels [B, H, W, 2] of images of size [B, 2]."""
    grid = pixels / size[:, None, None] * 2 - 1
    return torch.nn.functional.grid_sample(
        textures, grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )
