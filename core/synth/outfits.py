"""Who wears what of the loose things: skirts, coats, wide legs and sleeves, hoods, hanging hair."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from core.synth.figure import (
    BARE,
    HAIR_LENGTH,
    HAIRLINE,
    HEM,
    LEG,
    SHIRT,
    SHOE,
    SOCK,
    TROUSERS,
    WAIST,
    Style,
    Wardrobe,
)


def draw_styles(
    wardrobe: Wardrobe, generator: torch.Generator, *, skirts: float, wide: float, hoods: float, hair: float
) -> Wardrobe:
    """Dress shares of the people of a wardrobe [B] in skirts or coats, wide legs and sleeves, hoods, hanging hair."""
    count, device = len(wardrobe.cut), wardrobe.cut.device

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(count, generator=generator, device=device) * (high - low) + low

    def share(part: float) -> Tensor:
        return uniform(0, 1) < part

    zero = torch.zeros(count, device=device)
    has_skirt, is_coat, is_dress = share(skirts), share(0.4), share(0.5)
    is_short = share(0.4)
    hem = torch.where(is_short, uniform(-0.5, -0.3), uniform(-0.84, -0.5))
    hem = torch.where(is_coat, uniform(-0.75, -0.28), hem)
    top = torch.where(is_coat | is_dress, 0.07, wardrobe.cut[:, WAIST] - 0.03)
    is_open = is_coat & share(0.7)
    flare = torch.where(
        is_coat, uniform(0.03, 0.12), torch.where(share(0.35), uniform(0.0, 0.05), uniform(0.05, 0.3))
    )
    length = (top - hem).clamp_min(0.2)
    flare = flare * length
    has_wide, has_sleeves = share(wide), share(0.5 * wide)
    has_hood = share(hoods)
    has_hair, is_tail = share(hair) & ~has_hood, share(0.3)
    style = Style(
        leg_flare=torch.where(has_wide & ~(has_skirt & ~is_coat), uniform(0.03, 0.09), zero),
        leg_power=torch.where(share(0.5), uniform(0.8, 1.2), uniform(2.5, 4.0)),
        sleeve_flare=torch.where(has_sleeves, uniform(0.02, 0.08), zero),
        hood=torch.where(has_hood, uniform(0.012, 0.04), zero),
        skirt_top=torch.where(has_skirt, top, zero),
        skirt_hem=torch.where(has_skirt, hem, zero + 1),
        skirt_flare=flare,
        skirt_gap=torch.where(is_open, uniform(0.15, 1.1), zero),
        skirt_cloth=torch.where(is_coat | is_dress, SHIRT, TROUSERS),
        skirt_width=0.35 + 4 * flare + 0.25 * uniform(0, 1),
        hair_length=torch.where(has_hair, torch.where(is_tail, uniform(0.15, 0.4), uniform(0.2, 0.6)), zero),
        hair_width=torch.where(is_tail, uniform(0.02, 0.04), uniform(0.06, 0.105)),
        hair_depth=torch.where(is_tail, uniform(0.02, 0.04), uniform(0.025, 0.06)),
        folds=uniform(3, 12).round(),
        phase=uniform(0, 2 * math.pi),
    )
    return replace(wardrobe, cut=_cut_to_fit(wardrobe.cut, style, has_skirt, has_skirt & ~is_coat), style=style)


def _cut_to_fit(cut: Tensor, style: Style, has_skirt: Tensor, is_closed: Tensor) -> Tensor:
    """What is under a skirt has its colour, so that skin which touches the cloth does not show through."""
    cut = cut.clone()
    above = style.skirt_hem + 0.12
    bare = is_closed & (style.phase < 4)  # others wear leggings
    from_shirt = has_skirt & (style.skirt_cloth == SHIRT)
    cut[:, HEM] = torch.where(from_shirt, above.clamp_max(-0.1), cut[:, HEM])
    cut[:, LEG] = torch.where(bare, above.clamp_max(-0.2), torch.where(is_closed, -0.84, cut[:, LEG]))
    cut[:, BARE] = torch.where(has_skirt | (style.hood > 0), 0.0, cut[:, BARE])
    wide = style.leg_flare > 0
    cut[:, HEM] = torch.where(wide & ~has_skirt, cut[:, HEM].clamp_min(-0.12), cut[:, HEM])
    cut[:, LEG] = torch.where(wide, -0.86, cut[:, LEG])
    cut[:, SHOE] = torch.where(wide, cut[:, SHOE].clamp_max(-0.87), cut[:, SHOE])
    cut[:, SOCK] = torch.where(wide | bare, cut[:, SOCK].clamp_max(-0.8), cut[:, SOCK])
    has_hair = style.hair_length > 0
    cut[:, HAIRLINE] = torch.where(has_hair, cut[:, HAIRLINE].clamp_max(0.69), cut[:, HAIRLINE])
    cut[:, HAIR_LENGTH] = torch.where(has_hair & (style.hair_width > 0.05), 0.5, cut[:, HAIR_LENGTH])
    return cut
