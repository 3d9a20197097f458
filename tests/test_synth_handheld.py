"""Cameras that roll: how far and how fast, what turns with them, and what stays."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from test_synth_cameras import walk
from test_synth_noise import small_bank

from core.body import load_body
from core.synth.cameras import project, sample_cameras
from core.synth.dataset import sampler_config
from core.synth.handheld import draw_roll, roll_cameras
from core.synth.sampler import MotionSampler
from core.synth.takes import CONDITIONS, Variety, draw_takes

UPRIGHT, WIDE = torch.tensor([[1080, 1920]]), torch.tensor([[1920, 1080]])


def test_points_turn_about_the_middle_of_the_image():
    pelvis = walk(4, 6)
    cameras = sample_cameras(pelvis, torch.Generator().manual_seed(0))
    angle = torch.linspace(-0.3, 0.4, 24).view(4, 6)
    rolled = roll_cameras(cameras, angle)
    points = pelvis[:, :, None] + torch.tensor([[0.0, 0.0, 0.0], [0.3, 0.5, -0.2]])
    before, after = (project(c.to_camera(points), cameras.intrinsics).double().numpy() for c in (cameras, rolled))
    middle = cameras.size.numpy()[:, None, None] / 2
    turned = (before - middle) @ np.array([1, 1j]) * np.exp(1j * angle.double().numpy())[..., None]
    np.testing.assert_allclose((after - middle) @ np.array([1, 1j]), turned, atol=0.05)
    up = np.einsum("btij,j->bti", rolled.R.numpy(), [0, 1, 0])
    np.testing.assert_allclose(rolled.up().numpy(), up, atol=1e-6)
    depths = [c.to_camera(points)[..., 2] for c in (cameras, rolled)]
    torch.testing.assert_close(*depths)


def test_a_hand_sways_slowly_and_by_degrees():
    seconds, count = 4, 3000
    angle = torch.rad2deg(
        draw_roll(WIDE.expand(count, 2), 30 * seconds, 1 / 30, torch.Generator().manual_seed(0), share=1.0)
    )
    assert 15 < angle.abs().max() < 20 + 4 + 2 * 3.0
    spectrum = np.abs(np.fft.rfft((angle - angle.mean(1, keepdim=True)).numpy() * np.hanning(30 * seconds))) ** 2
    hertz = np.fft.rfftfreq(30 * seconds, 1 / 30)
    assert spectrum[:, hertz > 2.8].sum() < 1e-3 * spectrum.sum()
    assert spectrum[:, (hertz > 0.4) & (hertz < 2.2)].sum() > 0.01 * spectrum.sum()
    sparse = draw_roll(WIDE.expand(count, 2), 3 * seconds, 10 / 30, torch.Generator().manual_seed(0), share=1.0)
    torch.testing.assert_close(torch.rad2deg(sparse), angle[:, ::10], atol=1e-3, rtol=1e-3)


def test_upright_images_are_held_aslant_more_than_others_and_only_a_share_at_all():
    for size, deviation in ((UPRIGHT, 12.0), (WIDE, 3.0)):
        angle = draw_roll(size.expand(4000, 2), 900, 1 / 30, torch.Generator().manual_seed(1), share=0.5)
        moved = angle.abs().amax(1) > 0
        assert 0.45 < moved.float().mean() < 0.55
        held = torch.rad2deg(angle[moved].mean(1)).abs().median()  # a normal's median is 0.67 deviations
        assert abs(held - 0.67 * deviation) < 0.3 * deviation


def test_training_takes_roll_and_say_so():
    body = load_body()
    motions = MotionSampler(small_bank(), body, config=sampler_config("train", 8, 10))
    takes = [
        draw_takes(
            motions, 12, 8, torch.Generator().manual_seed(2), conditions=replace(CONDITIONS["everyday"], variety=v)
        )
        for v in (Variety(rolling=1.0), Variety(rolling=1e-9))
    ]
    ups = [t.cameras.up() for t in takes]
    lean = torch.atan2(ups[0][..., 0], -ups[0][..., 1]) - torch.atan2(ups[1][..., 0], -ups[1][..., 1])
    assert (lean.amax(1) - lean.amin(1)).min() > math.radians(0.3)
    for rolled in takes:
        seen = project(rolled.keypoints, rolled.cameras.intrinsics)
        torch.testing.assert_close(seen, rolled.points)
    depths = [t.keypoints[..., 2] for t in takes]
    torch.testing.assert_close(*depths, atol=1e-4, rtol=0)
