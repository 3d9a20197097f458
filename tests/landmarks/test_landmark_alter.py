"""Altered copies of crops: dots found where the truth says, world landmarks by projecting, colours by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from core.perception.roi import Roi
from core.skeleton import KEYPOINT_NAMES
from core.synth.crops import Displacement
from core.train.landmarks.alter import (
    Alterations,
    AlterConfig,
    alter_pictures,
    alter_truth,
    draw_alterations,
    recolour,
)

STRONG = AlterConfig(off=Displacement(shift=0.04, growth=0.15, turn=0.5, usual=1.0, wide_share=0.0), blurred=0.5)
POINTS = len(KEYPOINT_NAMES)
DOT_PX, SPREAD_M, DEPTH_M, FOCAL_PX = 3.0, 0.35, 4.0, 500.0


def other_side(k: int) -> int:
    """Index of the keypoint on the other side, by the names alone."""
    side, _, part = KEYPOINT_NAMES[k].partition("_")
    return KEYPOINT_NAMES.index({"left": "right_", "right": "left_"}[side] + part) if part else k


def dot(at: np.ndarray) -> np.ndarray:
    """A white dot [256, 256, 3] uint8 on black, its middle at `at`, px; the first pixel's middle is (0.5, 0.5)."""
    x, y = np.meshgrid(np.arange(256) + 0.5, np.arange(256) + 0.5)
    bright = np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / (2 * DOT_PX**2))
    return np.repeat((bright * 255).round().astype(np.uint8)[..., None], 3, -1)


def middle_of(picture: np.ndarray) -> np.ndarray:
    """Where the brightness has its middle, px."""
    bright = picture.astype(float).sum(-1)
    y, x = np.mgrid[:256, :256] + 0.5
    return np.array([(bright * x).sum(), (bright * y).sum()]) / bright.sum()


def made_up_truth(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Of `count` crops; everything within 70 px of the middle."""
    rng = np.random.default_rng(seed)
    return {
        "xy": rng.uniform(78, 178, (count, POINTS, 2)).astype(np.float32),
        "world": rng.normal(0, SPREAD_M, (count, POINTS, 3)).astype(np.float32),
        "aux": rng.uniform(78, 178, (count, 2, 2)).astype(np.float32),
        "hidden": rng.integers(0, 4, (count, POINTS)).astype(np.uint8),
    }


def test_dots_are_found_again_where_the_truth_says():
    """A picture for each keypoint and auxiliary point. In a mirrored one the dot is the other side's keypoint."""
    count = POINTS + 2
    one = made_up_truth(1)
    truth = {name: np.repeat(value, count, 0) for name, value in one.items()}
    pictures = np.stack([dot(at) for at in (*one["xy"][0], *one["aux"][0])])
    for copy in (1, 2):
        alterations = draw_alterations(STRONG, "train-s0-0000", copy, count)
        found, altered = alter_pictures(pictures, alterations), alter_truth(truth, alterations)
        assert found.dtype == np.uint8 and found.shape == pictures.shape
        for i in range(count):
            if i < POINTS:
                k = other_side(i) if alterations.is_mirrored[i] else i
                expected = altered["xy"][i, k]
                assert altered["hidden"][i, k] == one["hidden"][0, i]
            else:
                expected = altered["aux"][i, i - POINTS]
            np.testing.assert_allclose(middle_of(found[i]), expected, atol=0.05)
        is_mirrored = alterations.is_mirrored[:POINTS]
        assert 0 < is_mirrored.sum() < POINTS
    assert {name: value.dtype for name, value in altered.items()} == {n: v.dtype for n, v in one.items()}


def test_world_landmarks_are_projected_to_the_altered_keypoints():
    """Turned and mirrored about the crop's middle, a person straight ahead of the camera projects as before."""

    def project(world: np.ndarray, focal_px: np.ndarray) -> np.ndarray:
        return world[..., :2] / (world[..., 2:] + DEPTH_M) * focal_px + 128

    count = 12
    truth = made_up_truth(count)
    truth["xy"] = project(truth["world"], np.full((count, 1, 1), FOCAL_PX)).astype(np.float32)
    alterations = draw_alterations(replace(STRONG, off=replace(STRONG.off, shift=0.0)), "train", 1, count)
    altered = alter_truth(truth, alterations)
    grown = (256 / alterations.roi.size.numpy())[:, None, None]
    np.testing.assert_allclose(altered["xy"], project(altered["world"], FOCAL_PX * grown), atol=0.02)
    sides = [other_side(k) for k in range(POINTS)]
    for i in range(count):
        kept = truth["world"][i, sides] if alterations.is_mirrored[i] else truth["world"][i]
        np.testing.assert_allclose(altered["world"][i, :, 2], kept[:, 2], atol=1e-6)
        np.testing.assert_allclose(
            np.linalg.norm(altered["world"][i], axis=-1), np.linalg.norm(kept, axis=-1), atol=1e-5
        )


def test_what_lay_beyond_the_crop_is_outside_the_picture():
    truth = made_up_truth(2)
    truth["hidden"][:] = 1
    left = KEYPOINT_NAMES.index("left_wrist")
    truth["xy"][:, left] = [[256.5, 100], [100, -0.5]]
    altered = alter_truth(truth, replace(as_they_are(2), is_mirrored=np.array([True, False])))
    expected = np.ones((2, POINTS), np.uint8)
    expected[0, other_side(left)] = expected[1, left] = 3
    np.testing.assert_array_equal(altered["hidden"], expected)
    assert (truth["hidden"] == 1).all()


def as_they_are(count: int) -> Alterations:
    """Nothing is done to `count` crops."""
    return Alterations(
        is_mirrored=np.zeros(count, bool),
        roi=Roi(torch.full((count, 2), 128.0), torch.full((count,), 256.0), torch.zeros(count)),
        gamma=np.ones(count),
        gain=np.ones((count, 3)),
        channels=np.tile(np.arange(3), (count, 1)),
        blur=np.zeros(count),
    )


def test_colours_and_blur_by_hand():
    pictures = np.zeros((3, 256, 256, 3), np.uint8)
    pictures[0] = 100, 150, 80
    pictures[1:] = dot(np.array([120.0, 130.0]))
    same = alter_pictures(pictures, as_they_are(3))
    np.testing.assert_array_equal(same, pictures)
    changed = replace(
        as_they_are(3),
        gamma=np.array([2.0, 1, 1]),
        gain=np.array([[1.0, 0.5, 2.0], [1, 1, 1], [1, 1, 1]]),
        channels=np.array([[2, 0, 1], [0, 1, 2], [0, 1, 2]]),
        blur=np.array([0.0, 0.0, 1.5]),
    )
    found = alter_pictures(pictures, changed)
    np.testing.assert_array_equal(found[0, 50, 60], [50, 39, 44])  # 2 * 80^2 / 255, 100^2 / 255, 150^2 / 510
    x = np.arange(256) + 0.5
    widths = []
    for picture in found[1:]:
        column = picture.astype(float).sum((0, 2))
        widths.append((column * (x - 120) ** 2).sum() / column.sum())
    assert widths[1] - widths[0] == pytest.approx(1.5**2, abs=0.15)
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    gain, cast = 1.1, np.array([0.9, 1.0, 1.1])
    by_hand = np.rint(np.clip((noise / 255.0) ** 0.8 * gain * cast, 0, 1) * 255)
    np.testing.assert_array_equal(recolour(noise[..., ::-1], 0.8, gain, cast[::-1])[..., ::-1], by_hand)


def test_what_is_drawn_follows_from_seed_shard_and_copy():
    def flat(*arguments) -> np.ndarray:
        drawn = draw_alterations(*arguments, 50)
        columns = [drawn.is_mirrored, drawn.roi.center, drawn.roi.size, drawn.roi.angle, drawn.gamma, drawn.gain]
        return np.concatenate(
            [np.asarray(c, float).reshape(50, -1) for c in (*columns, drawn.channels, drawn.blur)], 1
        )

    first = flat(AlterConfig(), "train-s0-0000", 1)
    np.testing.assert_array_equal(flat(AlterConfig(), "train-s0-0000", 1), first)
    others = (AlterConfig(seed=1), "train-s0-0000", 1), (AlterConfig(), "train-s0-0001", 1)
    for other in (*others, (AlterConfig(), "train-s0-0000", 2)):
        assert (flat(*other)[:, 1:5] != first[:, 1:5]).all()


def test_as_much_is_altered_as_asked():
    count = 40_000
    drawn = draw_alterations(AlterConfig(), "train", 1, count)
    assert len(drawn) == count and drawn.is_mirrored.mean() == pytest.approx(0.75, abs=0.01)
    assert drawn.roi.angle.std() == pytest.approx(0.2, rel=0.02)
    assert (drawn.roi.size / 256).log().std() == pytest.approx(0.1, rel=0.02)
    assert (drawn.roi.center - 128).std() == pytest.approx(6, rel=0.02)
    is_recoloured, is_permuted = drawn.gamma != 1, (drawn.channels != np.arange(3)).any(1)
    assert is_recoloured.mean() == pytest.approx(0.8, abs=0.01)
    assert (drawn.gain[~is_recoloured] == 1).all() and not (is_permuted & ~is_recoloured).any()
    assert is_permuted[is_recoloured].mean() == pytest.approx(0.3 * 5 / 6, abs=0.01)  # one order in six is the old
    np.testing.assert_allclose([np.log(drawn.gamma).min(), np.log(drawn.gamma).max()], [-0.35, 0.35], atol=0.01)
    assert 0.75 * 0.88 < drawn.gain[is_recoloured].min() < 0.68 and 1.31 < drawn.gain.max() < 1.2 * 1.12
    blurred = drawn.blur[drawn.blur > 0]
    assert len(blurred) / count == pytest.approx(0.2, abs=0.01) and 0.5 <= blurred.min() < blurred.max() <= 1.6
