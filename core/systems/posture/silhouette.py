"""The trimap render loss (equation 6) of 2D meshes, by a soft rasteriser of triangles in plain torch.

As in the Soft Rasterizer (Liu et al. 2019), a triangle covers a pixel by D = sigmoid(d / softness), d the signed
distance from the pixel to its outline, and the mask is 1 - prod(1 - D). Each triangle is judged only within a square
of pixels around it, of the least of a few widths that is enough: dozens of numbers in place of thousands.
B meshes, n vertices, F' triangles, R x R pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import Tensor

REACH = 6.0
"""Times the softness: D beyond is below 0.0025 and left out."""
WINDOWS = (6, 8, 10, 14, 20, 32)
"""Widths in pixels; larger triangles are judged on the whole picture."""


def render(mesh: Tensor, faces: Tensor, *, resolution: int, extent: float, softness_px: float) -> Tensor:
    """Soft masks [B, R, R] (rows are y) of meshes [B, n, 2] with triangles faces [F', 3], wound either way.

    The picture is the square -extent..extent; what lies outside is not seen.
    """
    B, scale, margin = len(mesh), resolution / (2 * extent), REACH * softness_px
    corners = ((mesh.float() + extent) * scale)[:, faces.long()].flatten(0, 1)  # [B * F', 3, 2] in pixels
    owner = torch.arange(B, device=mesh.device).repeat_interleave(len(faces))
    low, high = corners.detach().amin(1), corners.detach().amax(1)
    is_seen = ((high > -margin) & (low < resolution + margin)).all(-1)
    need = (high - low).amax(-1) + 2 * margin + 2
    total = corners.new_zeros(B * resolution**2)
    done = ~is_seen
    for width in (*(w for w in WINDOWS if w < resolution), resolution):
        fits = ~done & ((need <= width) | (width == resolution))
        done = done | fits
        rows = fits.nonzero()[:, 0]
        first = ((low[rows] + high[rows]) / 2 - width / 2).round().clamp(0, resolution - width)  # [n, 2]
        offsets = torch.arange(width, device=mesh.device)
        x, y = first[:, :1] + offsets, first[:, 1:] + offsets  # [n, W] each
        grid = torch.stack(torch.broadcast_tensors(x[:, None], y[:, :, None]), dim=-1).flatten(1, 2)  # [n, W * W, 2]
        distance = signed_distance(corners[rows], grid + 0.5)
        pixel = (owner[rows, None] * resolution + grid[..., 1].long()) * resolution + grid[..., 0].long()
        # log(1 - D) = -softplus(d / softness)
        total = total.index_add(0, pixel.flatten(), functional.softplus(distance / softness_px).flatten())
    return (1 - torch.exp(-total)).view(B, resolution, resolution)


def signed_distance(corners: Tensor, points: Tensor) -> Tensor:
    """Distance from points [..., m, 2] to the outline of triangles [..., 3, 2], positive inside -> [..., m]."""
    nearest, sides = None, []
    for i in range(3):
        start, along = corners[..., None, i, :], (corners[..., (i + 1) % 3, :] - corners[..., i, :])[..., None, :]
        off = points - start
        share = (off * along).sum(-1) / (along * along).sum(-1).clamp_min(1e-8)
        gap = off - share.clamp(0, 1)[..., None] * along
        squared = (gap * gap).sum(-1)
        nearest = squared if nearest is None else nearest.minimum(squared)
        sides.append(along[..., 0] * off[..., 1] - along[..., 1] * off[..., 0])
    inside = ((sides[0] > 0) == (sides[1] > 0)) & ((sides[1] > 0) == (sides[2] > 0))
    distance = (nearest + 1e-8).sqrt()
    return torch.where(inside, distance, -distance)


def edge_band(mask: Tensor, width: int) -> Tensor:
    """Trimap region of masks [B, R, R] of 0 and 1: pixels with both kinds within `width` pixels of them."""

    def grown(m: Tensor) -> Tensor:
        return functional.max_pool2d(m[:, None], 2 * width + 1, stride=1, padding=width)[:, 0]

    return grown(mask) * grown(1 - mask)


def trimap_loss(predicted: Tensor, truth: Tensor, band: Tensor) -> Tensor:
    """L_tri [B] = 2 - IoU of the masks - IoU within the band (equation 6). All [B, R, R], predicted soft."""
    both = predicted * truth
    either = predicted + truth - both
    whole = both.sum((1, 2)) / either.sum((1, 2)).clamp_min(1e-6)
    edge = (both * band).sum((1, 2)) / (either * band).sum((1, 2)).clamp_min(1e-6)
    return 2 - whole - edge


def render_loss(
    predicted: Tensor,
    truth: Tensor,
    faces: Tensor,
    *,
    resolution: int = 48,
    extent: float = 1.3,
    softness_px: float = 0.3,
    band_px: int = 2,
) -> Tensor:
    """L_tri [B] between 2D meshes [B, n, 2] in crop units. The true mask is the true mesh, rendered alike and cut at
    one half; band_px: l of the paper."""
    settings = {"resolution": resolution, "extent": extent, "softness_px": softness_px}
    with torch.no_grad():
        wanted = (render(truth, faces, **settings) > 0.5).float()
        band = edge_band(wanted, band_px)
    return trimap_loss(render(predicted, faces, **settings), wanted, band)
