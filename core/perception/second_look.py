"""Look again where a reading is unsure: from a smaller and a larger crop, and turned ones; the surest counts.

The landmark network sees raised arms, crouches and handstands badly in one crop and well in a slightly other one, and
its confidence (certainty.py) tells which: on film, whole bodies read wrongly for a dozen frames come out right.
"""

from __future__ import annotations

from core.perception.roi import Roi, wrap_angle

UNSURE = 0.5
"""Mean confidence of the keypoints under which a reading is doubted ..."""
LOST = 0.25
"""... and under which it is worth nothing, and the person may be turned any way."""
GAIN = 0.15
"""By how much another reading must be surer."""
OTHER_CROPS = ((0.0, 0.8), (0.0, 1.25), (0.5, 1.0), (-0.5, 1.0))
"""Radians added to the crop's angle, and the factor on its side."""


def other_crops(roi: Roi) -> list[Roi]:
    """The crop `roi`, altered in each way of OTHER_CROPS."""
    return [Roi(roi.center, roi.size * factor, wrap_angle(roi.angle + turn)) for turn, factor in OTHER_CROPS]


def surest(first: float, others: list[float]) -> int | None:
    """Mean confidence of the first reading and of those of other crops, 0 where one is not believed -> which of the
    others counts in its place, None where the first one does."""
    best = max(range(len(others)), key=others.__getitem__)
    return best if first < UNSURE and others[best] > first + GAIN else None
