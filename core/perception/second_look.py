"""Look again where a reading is unsure: from a smaller and a larger crop, and turned ones; the surest counts.

The landmark network sees raised arms, crouches and handstands badly in one crop and well in a slightly other one, and
its confidence (certainty.py) tells which: on film, whole bodies read wrongly for a dozen frames come out right.
"""

from __future__ import annotations

import torch
from torch import Tensor

from core.perception.roi import Roi, wrap_angle

UNSURE = 0.5
"""Mean confidence of the keypoints under which a reading is doubted."""
GAIN = 0.15
"""By how much another reading must be surer."""
OTHER_CROPS = ((0.0, 0.8), (0.0, 1.25), (0.5, 1.0), (-0.5, 1.0))
"""Radians added to the crop's angle, and the factor on its side."""


def other_crops(roi: Roi) -> list[Roi]:
    """The crops [B] at roi [B] (or a single one), altered in each way of OTHER_CROPS."""
    return [Roi(roi.center, roi.size * factor, wrap_angle(roi.angle + turn)) for turn, factor in OTHER_CROPS]


def surest(first: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Mean confidences of the first readings [B] and of those of other crops [C, B], 0 where one is not believed ->
    which of the others counts [B], and whether it does [B]."""
    best, which = others.max(0)
    return which, (first < UNSURE) & (best > first + GAIN)


def is_near(crop: Roi, asked: Roi, *, max_shift: float, max_growth: float) -> Tensor:
    """[B] bool: the crop that landmarks ask for is not impossibly far from theirs, or larger."""
    shift = (asked.center - crop.center).norm(dim=-1) / crop.size
    growth = torch.log(asked.size / crop.size).abs()
    return (shift <= max_shift) & (growth <= torch.log(torch.tensor(max_growth)))
