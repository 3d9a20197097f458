"""What the landmark network's heat maps say of its landmarks: how sure a place is, beside visibility and presence.

A landmark is regressed; the heat map of the same point is a second opinion from the same picture. Where the map is
faint, broad, or hot elsewhere, the landmark is off by more. B crops, P points, maps of h x w cells.
"""

from __future__ import annotations

import torch
from torch import Tensor

HEAT_FIELDS = ("peak", "here", "elsewhere", "spread", "apart", "aside")
"""`read_heat`'s numbers, in order."""
NEIGHBOURHOOD = 5
"""Cells: what is hot farther from the peak is another place."""


def read_heat(points: Tensor, heatmaps: Tensor) -> Tensor:
    """points [B, P, 2] as shares of the crop's side, heatmaps [B, P, h, w] logits -> [B, P, 6] (HEAT_FIELDS).

    peak: the map's largest probability; here: its probability at the point; elsewhere: the largest one far from the
    peak; spread: root mean square distance of the heat from its middle; apart: distance of the point from the peak,
    aside: from the middle. Lengths are shares of the crop's side, heat is weighted by its square.
    """
    height, width = heatmaps.shape[-2:]
    size = heatmaps.new_tensor([width, height], dtype=torch.float32)
    heat = heatmaps.float().flatten(2).sigmoid()  # [B, P, h w]
    points = points.float()
    peak, hottest = heat.max(-1)
    row, column = hottest // width, hottest % width
    summit = (torch.stack((column, row), -1) + 0.5) / size  # [B, P, 2]

    weight = (heat / peak[..., None].clamp_min(1e-12)).square()
    moments = weight @ _moments(height, width, heat)  # [B, P, 4]: mass, x, y, x^2 + y^2
    mass = moments[..., :1].clamp_min(1e-6)
    middle, second = moments[..., 1:3] / mass, moments[..., 3] / mass[..., 0]
    spread = (second - middle.square().sum(-1)).clamp_min(0).sqrt()

    at = torch.minimum((points * size).floor().clamp_min(0), size - 1).long()
    here = heat.gather(-1, at[..., 1:] * width + at[..., :1]).squeeze(-1)
    down, right = _disc(NEIGHBOURHOOD, heat.device)
    near = (row[..., None] + down).clamp(0, height - 1) * width + (column[..., None] + right).clamp(0, width - 1)
    elsewhere = heat.scatter(-1, near, 0.0).amax(-1)
    apart, aside = (points - summit).norm(dim=-1), (points - middle).norm(dim=-1)
    return torch.stack((peak, here, elsewhere, spread, apart, aside), -1)


def _moments(height: int, width: int, like: Tensor) -> Tensor:
    """[h w, 4]: 1, x, y, x^2 + y^2 of each cell's centre as shares of the map's sides."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    x, y = (x.flatten().to(like) + 0.5) / width, (y.flatten().to(like) + 0.5) / height
    return torch.stack((torch.ones_like(x), x, y, x.square() + y.square()), -1)


def _disc(radius: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows and columns from the middle of a disc to each of its cells."""
    reach = torch.arange(-radius, radius + 1, device=device)
    down, right = torch.meshgrid(reach, reach, indexing="ij")
    inside = down.square() + right.square() <= radius**2
    return down[inside], right[inside]
