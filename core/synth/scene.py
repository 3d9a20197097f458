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
        _add_box(image, generator)
    waves = torch.sin((x * uniform(-1, 1, 1, 1, 1) + y * uniform(-1, 1, 1, 1, 1)) * uniform(20, 250, 1, 1, 1))
    image = image + waves * uniform(-0.1, 0.06, 1, 1, 1).clamp_min(0)
    image = image.clamp(0, 1)
    if busy < 1:
        soft = image
        for size, edge in (((BLUR, 1), (BLUR // 2, 0)), ((1, BLUR), (0, BLUR // 2))):
            soft = torch.nn.functional.avg_pool2d(soft, size, 1, edge, count_include_pad=False)
        quiet = (soft + image.mean((2, 3), keepdim=True)) / 2
        image = torch.where(uniform(0, 1, 1, 1, 1) < busy, image, quiet)
    return image


def _add_box(image: Tensor, generator: torch.Generator) -> None:
    """Draw one turned box, bar or disc into each image [B, 3, S, S], some striped, translucent or absent."""
    count, _, S, _ = image.shape
    at = torch.linspace(0, 1, S, device=image.device)
    drawn = torch.rand((count, 16), generator=generator, device=image.device)
    for picture, numbers, r in zip(image, drawn.tolist(), drawn):
        if numbers[7] >= 0.7:
            continue
        angle = (numbers[0] < 0.3) * (numbers[1] - 0.5) * math.pi
        width, height = 0.01 + 0.22 * numbers[4] ** 2, 0.01 + 0.3 * numbers[5] ** 2
        reach = math.hypot(width, height)
        columns, rows = (slice(*_span(centre - reach, centre + reach, S)) for centre in numbers[2:4])
        dx, dy = at[columns][None] - numbers[2], at[rows][:, None] - numbers[3]
        u = dx * math.cos(angle) + dy * math.sin(angle)
        v = dy * math.cos(angle) - dx * math.sin(angle)
        is_disc = numbers[6] < 0.25
        inside = (u / width) ** 2 + (v / height) ** 2 < 1 if is_disc else (u.abs() < width) & (v.abs() < height)
        stripes = (torch.sin(u * (20 + 300 * numbers[8])) > 0) * float(numbers[9] < 0.3)
        color = muted(r[None, 10:13, None, None], r[None, 14:15, None, None])[0] * (1 - 0.5 * stripes)
        opacity = min(0.4 + 0.8 * numbers[13], 1.0) * inside
        part = picture[:, rows, columns]
        part += (color - part) * opacity


def _span(low: float, high: float, size: int) -> tuple[int, int]:
    """First and end sample of `size` over 0..1 that lie from low to high."""
    return max(0, math.floor(low * (size - 1))), min(size, math.ceil(high * (size - 1)) + 1)


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
