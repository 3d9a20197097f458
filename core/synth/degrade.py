"""What cameras and codecs do to an image: resolution, blur, motion blur, exposure, cast, noise, JPEG blocks.

Batched torch on crops [B, 3, S, S] of display values 0..1. A `Lens` holds the numbers of each clip.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

LEVELS = (256, 208, 160, 128, 96, 64, 44)
"""Sizes in px that a crop can really have; the next at or above the wanted one is used."""
TAPS = 7
TO_YCC = ((0.299, 0.587, 0.114), (-0.169, -0.331, 0.5), (0.5, -0.419, -0.081))


@dataclass(frozen=True)
class Lens:
    """[B] each, and cast [B, 3]."""

    sharpness: Tensor
    """Share of the image's own resolution that survives focus and scaling, 0.35..1."""
    shutter: Tensor
    """Share of a frame that the shutter is open."""
    gamma: Tensor
    gain: Tensor
    cast: Tensor
    noise: Tensor
    jpeg: Tensor
    """Quantisation step of the block transform, 0 = none."""


def draw_lenses(
    count: int, generator: torch.Generator, device: torch.device | str = "cpu", *, poor: float = 1.0
) -> Lens:
    """From clean to poor; all but a share `poor` have no more than a trace of softness, noise and blocks."""

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand((count, *shape), generator=generator, device=device) * (high - low) + low

    def sometimes(share: float, low: float, high: float) -> Tensor:
        value = torch.exp(uniform(math.log(low), math.log(high)))
        return torch.where(uniform(0, 1) < share, value, torch.zeros_like(value))

    soft = torch.where(uniform(0, 1) < 0.35, uniform(0.35, 0.9), torch.ones(count, device=device))
    is_clean = uniform(0, 1) >= poor if poor < 1 else torch.zeros(count, dtype=torch.bool, device=device)
    keep = torch.where(is_clean, 0.25, 1.0)
    return Lens(
        sharpness=torch.where(is_clean, soft.clamp_min(0.8), soft),
        shutter=torch.where(uniform(0, 1) < 0.5, uniform(0.1, 0.6), torch.zeros(count, device=device))
        * (0.5 + 0.5 * keep),
        gamma=torch.exp(uniform(-0.35, 0.35)),
        gain=uniform(0.7, 1.2),
        cast=1 + uniform(-0.1, 0.1, 3),
        noise=sometimes(0.6, 0.004, 0.05) * keep,
        jpeg=sometimes(0.6, 0.01, 0.12) * keep,
    )


def dim_lenses(lens: Lens, generator: torch.Generator, *, share: float, frame_s: float = 1 / 30) -> Lens:
    """A share of lenses [B] in low light: dark, noisy, smeared over the better part of 1/30 s, tinted."""
    r = torch.rand((len(lens.gain), 6), generator=generator, device=lens.gain.device)
    is_dim = r[:, 0] < share
    warmth = (r[:, 4:5] - 0.4) * torch.tensor([0.5, 0.05, -0.5], device=r.device)

    def where(dim: Tensor, plain: Tensor) -> Tensor:
        return torch.where(is_dim.view(-1, *([1] * (plain.dim() - 1))), dim, plain)

    return replace(
        lens,
        gain=where(0.18 + 0.37 * r[:, 1], lens.gain),
        noise=where(0.008 + 0.05 * r[:, 2] ** 2, lens.noise),
        shutter=where((0.3 + 0.6 * r[:, 3]) / (30 * frame_s), lens.shutter),
        cast=where(lens.cast * (1 + warmth), lens.cast),
    )


def degrade(crops: Tensor, lens: Lens, side: Tensor, motion: Tensor, generator: torch.Generator) -> Tensor:
    """Degrade crops [B, 3, S, S] taken from squares of side [B] px of the real image; motion [B, 2] is how far the
    person moves in a frame, in crop px. Returns values 0..1 in steps of 1/255."""
    x = _smear(crops, motion * lens.shutter[:, None])
    x = _limit_resolution(x, side * lens.sharpness)
    x = x.clamp(1e-4, 1) ** lens.gamma[:, None, None, None] * (lens.gain[:, None] * lens.cast)[..., None, None]
    grain = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    x = x + grain * lens.noise[:, None, None, None]
    x = _block_quantise(x, lens.jpeg)
    return (x.clamp(0, 1) * 255).round() / 255


def _smear(x: Tensor, motion: Tensor) -> Tensor:
    """Average along motion [B, 2] px."""
    length = motion.norm(dim=-1)
    moving = torch.nonzero(length > 1.5).squeeze(1)
    if len(moving) == 0:
        return x
    S = x.shape[-1]
    step = (motion[moving] / length[moving, None] * length[moving, None].clamp_max(24)) * (2 / S)
    eye = torch.eye(2, 3, device=x.device, dtype=x.dtype).expand(len(moving), 2, 3)
    total = torch.zeros_like(x[moving])
    for tap in torch.linspace(-0.5, 0.5, TAPS).tolist():
        theta = eye.clone()
        theta[:, :, 2] = step * tap
        grid = functional.affine_grid(theta, list(total.shape), align_corners=False)
        total += functional.grid_sample(x[moving], grid, padding_mode="border", align_corners=False)
    result = x.clone()
    result[moving] = total / TAPS
    return result


def _limit_resolution(x: Tensor, side: Tensor) -> Tensor:
    """Bring crops down to about side [B] px and back up."""
    S = x.shape[-1]
    levels = torch.tensor(LEVELS[::-1], device=x.device, dtype=side.dtype)
    index = torch.searchsorted(levels, side.clamp(LEVELS[-1], LEVELS[0]))
    result = x.clone()
    for i, level in enumerate(LEVELS[::-1]):
        chosen = torch.nonzero(index == i).squeeze(1)
        if level >= S or len(chosen) == 0:
            continue
        small = functional.interpolate(x[chosen], size=(level, level), mode="bilinear", antialias=True)
        result[chosen] = functional.interpolate(small, size=(S, S), mode="bilinear", align_corners=False)
    return result


def _block_quantise(x: Tensor, step: Tensor) -> Tensor:
    """Round the 8 x 8 cosine coefficients, as JPEG and video codecs do; coarser for high frequencies and colour."""
    chosen = torch.nonzero(step > 0).squeeze(1)
    if len(chosen) == 0:
        return x
    k = torch.arange(8, device=x.device, dtype=x.dtype)
    basis = torch.cos((2 * k[None] + 1) * k[:, None] * torch.pi / 16) / 2
    basis[0] /= math.sqrt(2)
    to_ycc = torch.tensor(TO_YCC, device=x.device, dtype=x.dtype)
    to_rgb = torch.linalg.inv(torch.tensor(TO_YCC)).to(x)
    part = torch.einsum("ij,bjhw->bihw", to_ycc, x[chosen])
    B, C, H, W = part.shape
    blocks = part.reshape(B, C, H // 8, 8, W // 8, 8).permute(0, 1, 2, 4, 3, 5)
    coefficients = basis @ blocks @ basis.T
    weight = (1 + 0.7 * (k[:, None] + k[None])) * torch.tensor([1.0, 2.0, 2.0], device=x.device)[
        :, None, None, None, None
    ]
    quantum = weight.to(x.dtype) * step[chosen][:, None, None, None, None, None]
    rounded = (coefficients / quantum).round() * quantum
    restored = (basis.T @ rounded @ basis).permute(0, 1, 2, 4, 3, 5).reshape(B, C, H, W)
    result = x.clone()
    result[chosen] = torch.einsum("ij,bjhw->bihw", to_rgb, restored)
    return result
