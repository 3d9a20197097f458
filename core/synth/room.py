"""A room with a floor and one wall for the demonstration clip: rays against planes, soft cast shadow. World y up."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from core.synth.cameras import project
from core.synth.raster import rasterise


@dataclass(frozen=True)
class Room:
    wall_z: float = -2.2
    """The wall is the plane z = wall_z; the camera looks along -z."""
    wall_color: tuple[float, float, float] = (0.62, 0.66, 0.68)
    floor_color: tuple[float, float, float] = (0.58, 0.42, 0.28)
    shadow: float = 0.5
    """How dark the cast shadow is."""


def room_image(
    R: Tensor, t: Tensor, intrinsics: Tensor, width: int, height: int, room: Room
) -> tuple[Tensor, Tensor]:
    """Colours [H, W, 3] of the empty room seen by one camera (R [3, 3], t [3], intrinsics [4]) and where it sees the
    floor [H, W] bool. All in float64 arithmetic, so that two machines agree."""
    R, t, k = R.double(), t.double(), intrinsics.double()
    y, x = torch.meshgrid(torch.arange(height).double() + 0.5, torch.arange(width).double() + 0.5, indexing="ij")
    ray = torch.stack([(x - k[2]) / k[0], (y - k[3]) / k[1], torch.ones_like(x)], -1) @ R
    eye = -R.T @ t
    to_floor = torch.where(ray[..., 1] < -1e-6, -eye[1] / ray[..., 1].clamp_max(-1e-6), torch.full_like(x, 1e6))
    to_wall = torch.where(ray[..., 2] < -1e-6, (room.wall_z - eye[2]) / ray[..., 2].clamp_max(-1e-6), 1e6)
    is_floor = to_floor < to_wall
    place = eye + ray * torch.minimum(to_floor, to_wall)[..., None]
    floor, wall = _planks(place, room), _wall(place, room)
    image = torch.where(is_floor[..., None], floor, wall)
    gap = torch.where(is_floor, place[..., 2] - room.wall_z, place[..., 1])
    image = image * (0.72 + 0.28 * (1 - torch.exp(-gap.clamp_min(0) / 0.25)))[..., None]
    vignette = 1 - 0.18 * (((x / width - 0.5) ** 2 + (y / height - 0.5) ** 2) * 2)
    return (image * vignette[..., None]).clamp(0, 1).float(), is_floor


def cast_shadow(
    vertices: Tensor, triangles: Tensor, towards_lamp: Tensor, R: Tensor, t: Tensor, intrinsics: Tensor, size: tuple
) -> Tensor:
    """Soft shadow [B, H, W] 0..1 that bodies [B, V, 3] (world) cast on the floor; towards_lamp [3] unit, y > 0."""
    width, height = size
    drop = vertices[..., 1:2].clamp_min(0) / towards_lamp[1]
    fallen = vertices - drop * towards_lamp
    fallen = torch.cat([fallen[..., :1], torch.full_like(drop, 0.002), fallen[..., 2:]], -1)
    seen = fallen @ R.T + t
    points = torch.cat([project(seen[:, None], intrinsics[None])[:, 0], seen[..., 2:]], -1)
    mask = rasterise(points, triangles, height, width, cull_backfaces=False).mask()[:, None].float()
    near = _blur(mask, max(3, height // 110))
    far = _blur(mask, max(3, height // 36))
    return (0.45 * near + 0.55 * far)[:, 0]


def _blur(image: Tensor, radius: int) -> Tensor:
    """Two box filters in a row, [B, 1, H, W]."""
    size = 2 * radius + 1
    for _ in range(2):
        image = torch.nn.functional.avg_pool2d(image, (size, 1), 1, (radius, 0), count_include_pad=False)
        image = torch.nn.functional.avg_pool2d(image, (1, size), 1, (0, radius), count_include_pad=False)
    return image


def _hash(x: Tensor) -> Tensor:
    """Pseudo-random numbers 0..1 of whole numbers."""
    value = torch.sin(x * 12.9898) * 43758.5453
    return value - value.floor()


def _grain(x: Tensor, y: Tensor) -> Tensor:
    """Smooth noise about -1..1 from a few incommensurate waves."""
    value = torch.sin(5.1 * x + 2.3 * torch.sin(3.7 * y)) + torch.sin(9.7 * y + 1.9 * torch.sin(7.3 * x))
    return (value + 0.6 * torch.sin(23 * x + 17 * y) * torch.sin(19 * y - 11 * x)) / 2.6


def _planks(place: Tensor, room: Room) -> Tensor:
    x, z = place[..., 0], place[..., 2]
    row = (x / 0.16).floor()
    along = z / 1.3 + _hash(row)
    tone = 0.86 + 0.22 * _hash(row * 7 + along.floor() * 13)
    tone = tone * (1 + 0.06 * _grain(x * 9, z * 0.7))
    seam = ((x / 0.16 - row - 0.5).abs() > 0.475) | ((along - along.floor() - 0.5).abs() > 0.495)
    tone = torch.where(seam, tone * 0.62, tone)
    return torch.tensor(room.floor_color, dtype=place.dtype) * tone[..., None]


def _wall(place: Tensor, room: Room) -> Tensor:
    x, y = place[..., 0], place[..., 1]
    tone = 1 + 0.035 * _grain(x * 2.1, y * 2.7) + 0.02 * _grain(x * 31, y * 29)
    color = torch.tensor(room.wall_color, dtype=place.dtype) * tone[..., None]

    def put(where: Tensor, rgb: tuple[float, float, float], shade: Tensor | float = 1.0) -> None:
        nonlocal color
        flat = torch.tensor(rgb, dtype=place.dtype) * (tone * shade)[..., None]
        color = torch.where(where[..., None], flat, color)

    put(y < 0.11, (0.88, 0.88, 0.86))
    for left, bottom, wide, tall, rgb in (
        (-1.55, 1.25, 0.62, 0.85, (0.35, 0.45, 0.36)),
        (0.95, 1.45, 0.8, 0.55, (0.66, 0.5, 0.3)),
        (-2.9, 0.11, 0.95, 2.0, (0.5, 0.37, 0.27)),
        (2.15, 0.11, 0.8, 0.75, (0.3, 0.28, 0.34)),
    ):
        u, v = (x - left) / wide, (y - bottom) / tall
        put((u > 0) & (u < 1) & (v > 0) & (v < 1), (0.24, 0.2, 0.17))
        inner = (u > 0.06) & (u < 0.94) & (v > 0.05) & (v < 0.95)
        put(inner, rgb, 1 + 0.25 * torch.sin(7 * u + 3 * torch.sin(5 * v)))
    return color
