"""A batched triangle rasteriser in plain torch: the same code on the CPU and on a GPU, no graphics driver needed.

Every pixel centre inside the bounding box of a triangle is tested against its three edges; the nearest triangle per
pixel wins through one scatter-minimum over keys that hold the depth's float bits above the triangle's number. Pixel
centres lie at integer + 0.5. A pixel on an edge shared by two triangles may go to either. Triangles with a corner
nearer than NEAR are left out whole. Depth is interpolated perspective-correctly.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

NEAR = 0.05
"""Metres."""
MAX_CANDIDATES = 1 << 25
"""Pixel tests held in memory at once (about 60 bytes each)."""
EMPTY = torch.iinfo(torch.int64).max


@dataclass(frozen=True)
class Fragments:
    """What each covered pixel sees; P covered pixels over a batch of images [B, H, W]."""

    pixel: Tensor
    """[P] int64 flat index into B*H*W, increasing."""
    corners: Tensor
    """[P, 3] int64 flat index into B*V of the triangle's vertices."""
    weights: Tensor
    """[P, 3] perspective-correct barycentric weights, sum 1."""
    depth: Tensor
    """[P] metres."""
    shape: tuple[int, int, int]
    """B, H, W."""

    def interpolate(self, values: Tensor) -> Tensor:
        """Per-vertex values [B, V, C] (or [V, C], the same for all images) -> [P, C]."""
        if values.dim() == 2:
            corners = self.corners % values.shape[0]
            flat = values
        else:
            corners, flat = self.corners, values.reshape(-1, values.shape[-1])
        result = self.weights[:, 0:1] * flat[corners[:, 0]]
        result += self.weights[:, 1:2] * flat[corners[:, 1]]
        result += self.weights[:, 2:3] * flat[corners[:, 2]]
        return result

    def fill(self, values: Tensor, background: float = 0.0) -> Tensor:
        """Scatter pixel values [P, C] into images [B, H, W, C]."""
        B, H, W = self.shape
        image = values.new_full((B * H * W, values.shape[-1]), background)
        image[self.pixel] = values
        return image.view(B, H, W, -1)

    def mask(self) -> Tensor:
        """[B, H, W] bool, covered pixels."""
        B, H, W = self.shape
        covered = torch.zeros(B * H * W, dtype=torch.bool, device=self.pixel.device)
        covered[self.pixel] = True
        return covered.view(B, H, W)

    def image_index(self) -> Tensor:
        """[P] int64, which image of the batch a pixel belongs to."""
        return self.pixel // (self.shape[1] * self.shape[2])


def rasterise(
    points: Tensor, triangles: Tensor, height: int, width: int, *, cull_backfaces: bool = True
) -> Fragments:
    """Find the nearest triangle of every pixel.

    points [B, V, 3]: x px, y px in the raster, depth in metres; triangles [T, 3] int64, counter-clockwise seen from
    outside with x right, y down, z forward; culling drops those turned away.
    """
    B, V, _ = points.shape
    device = points.device
    keys = torch.full((B * height * width,), EMPTY, dtype=torch.int64, device=device)
    flat = points.reshape(B * V, 3)
    image, face, x0, y0, w, h = _visible(points, triangles, height, width, cull_backfaces)
    counts = w * h
    ends = torch.cumsum(counts, 0)
    total = int(ends[-1]) if len(ends) else 0
    start_face, base = 0, 0
    while base < total:
        limit = torch.tensor(base + MAX_CANDIDATES, device=device, dtype=ends.dtype)
        stop_face = max(int(torch.searchsorted(ends, limit, right=True)), start_face + 1)
        part = slice(start_face, stop_face)
        corner = triangles[face[part]] + (image[part] * V)[:, None]
        _scatter(
            keys, flat, corner, image[part], face[part], x0[part], y0[part], w[part], counts[part], height, width
        )
        base, start_face = int(ends[stop_face - 1]), stop_face
    pixel = torch.nonzero(keys != EMPTY).squeeze(1)
    corners = triangles[keys[pixel] & 0xFFFFFFFF] + ((pixel // (height * width)) * V)[:, None]
    x = (pixel % width).to(points.dtype) + 0.5
    y = (pixel // width % height).to(points.dtype) + 0.5
    weights, depth, _ = _weights(flat, corners, x, y)
    return Fragments(pixel, corners, weights, depth, (B, height, width))


def _visible(points: Tensor, triangles: Tensor, height: int, width: int, cull: bool) -> tuple[Tensor, ...]:
    """Return image, face, first column, first row, columns, rows of every triangle that may cover a pixel centre."""
    a, b, c = (points[:, triangles[:, i]] for i in range(3))
    low = torch.minimum(torch.minimum(a, b), c)
    high = torch.maximum(torch.maximum(a, b), c)
    twice_area = (b[..., 0] - a[..., 0]) * (c[..., 1] - a[..., 1]) - (b[..., 1] - a[..., 1]) * (c[..., 0] - a[..., 0])
    keep = (low[..., 2] > NEAR) & torch.isfinite(high).all(-1)
    # counter-clockwise from outside with y down has a negative determinant
    keep &= (twice_area < 0) if cull else (twice_area != 0)
    first = torch.ceil(low[..., :2] - 0.5).clamp_min(0)
    last = torch.floor(high[..., :2] - 0.5)
    last = torch.minimum(last, torch.tensor([width - 1.0, height - 1.0], device=points.device, dtype=points.dtype))
    keep &= (last >= first).all(-1)
    image, face = torch.nonzero(keep, as_tuple=True)
    first = first[image, face].long()
    extent = last[image, face].long() - first + 1
    return image, face, first[:, 0], first[:, 1], extent[:, 0], extent[:, 1]


def _scatter(
    keys: Tensor,
    flat: Tensor,
    corners: Tensor,
    image: Tensor,
    face: Tensor,
    x0: Tensor,
    y0: Tensor,
    w: Tensor,
    counts: Tensor,
    height: int,
    width: int,
) -> None:
    """Test all pixels of the triangles' bounding boxes and keep the nearest in `keys`."""
    number = torch.repeat_interleave(torch.arange(len(counts), device=flat.device), counts)
    begin = torch.cumsum(counts, 0) - counts
    offset = torch.arange(len(number), device=flat.device) - begin[number]
    columns = w[number]
    row = torch.div(offset, columns, rounding_mode="floor")
    px = x0[number] + (offset - row * columns)
    py = y0[number] + row
    weights, depth, inside = _weights(flat, corners[number], px.to(flat.dtype) + 0.5, py.to(flat.dtype) + 0.5)
    chosen = torch.nonzero(inside).squeeze(1)
    number, depth = number[chosen], depth[chosen]
    target = (image[number] * height + py[chosen]) * width + px[chosen]
    key = (depth.contiguous().view(torch.int32).long() << 32) | face[number]
    keys.scatter_reduce_(0, target, key, reduce="amin", include_self=True)


def _weights(flat: Tensor, corners: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Perspective-correct weights [P, 3], depth [P] and whether the point (x, y) [P] is inside its triangle."""
    a, b, c = (flat[corners[:, i]] for i in range(3))
    ax, ay = a[:, 0] - x, a[:, 1] - y
    bx, by = b[:, 0] - x, b[:, 1] - y
    cx, cy = c[:, 0] - x, c[:, 1] - y
    wa, wb, wc = bx * cy - by * cx, cx * ay - cy * ax, ax * by - ay * bx
    inside = ((wa <= 0) & (wb <= 0) & (wc <= 0)) | ((wa >= 0) & (wb >= 0) & (wc >= 0))
    w = torch.stack([wa / a[:, 2], wb / b[:, 2], wc / c[:, 2]], 1)
    area = wa + wb + wc
    total = w.sum(1)
    safe = torch.where(total == 0, torch.ones_like(total), total)
    inside &= area != 0
    return w / safe[:, None], area / safe, inside
