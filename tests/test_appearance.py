"""core.perception.appearance: colours tell people apart and ignore what is not seen."""

from __future__ import annotations

import numpy as np

from core.perception.appearance import PATCH_COUNT, appearance_distance, blend_appearance, describe_appearance
from core.skeleton import KEYPOINT_NAMES

POINTS = np.full((25, 2), 128.0)
for name, x, y in (
    ("shoulder", 30, 80),
    ("hip", 25, 130),
    ("knee", 25, 180),
    ("ankle", 25, 230),
):
    POINTS[KEYPOINT_NAMES.index(f"left_{name}")] = 128 + x, y
    POINTS[KEYPOINT_NAMES.index(f"right_{name}")] = 128 - x, y
SEEN = np.ones(25)


def dressed(shirt: tuple[int, int, int], trousers: tuple[int, int, int]) -> np.ndarray:
    crop = np.full((256, 256, 3), 128, np.uint8)
    crop[64:136], crop[136:] = shirt, trousers
    return crop


def test_a_red_shirt_is_red():
    """CIE Lab of sRGB red (D65): 53.2, 80.1, 67.2."""
    colours = describe_appearance(dressed((0, 0, 255), (255, 255, 255)), POINTS, SEEN)
    np.testing.assert_allclose(colours[2], [53.2, 80.1, 67.2], atol=0.5)
    np.testing.assert_allclose(colours[7], [100, 0, 0], atol=0.5)


def test_other_clothes_are_far_and_shade_is_near():
    a = describe_appearance(dressed((40, 40, 200), (90, 60, 30)), POINTS, SEEN)
    shaded = describe_appearance(dressed((34, 34, 175), (78, 52, 26)), POINTS, SEEN)
    b = describe_appearance(dressed((200, 160, 40), (40, 160, 160)), POINTS, SEEN)
    assert appearance_distance(a, a) == 0
    assert appearance_distance(a, shaded) < 10 < 40 < appearance_distance(a, b)


def test_what_is_hidden_does_not_count():
    confidence = SEEN.copy()
    for side in ("left", "right"):
        confidence[KEYPOINT_NAMES.index(f"{side}_knee")] = 0.1
    a = describe_appearance(dressed((0, 0, 255), (255, 255, 255)), POINTS, confidence)
    assert np.isnan(a[5:]).all() and not np.isnan(a[:5]).any()
    other = describe_appearance(dressed((0, 0, 255), (0, 0, 0)), POINTS, SEEN)
    assert appearance_distance(a, other) < 1
    outside = describe_appearance(dressed((0, 0, 255), (0, 0, 0)), POINTS + 500, SEEN)
    assert np.isnan(outside).all() and np.isnan(appearance_distance(a, outside))


def test_blending_keeps_what_is_known():
    old = np.full((PATCH_COUNT, 3), np.nan, np.float32)
    new = old.copy()
    old[0], new[0], new[1] = 10, 20, 30
    blended = blend_appearance(old, new, 0.25)
    assert blended[0].tolist() == [12.5] * 3 and blended[1].tolist() == [30] * 3 and np.isnan(blended[2:]).all()
