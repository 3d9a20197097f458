"""Backgrounds in perspective: a rolled and a zoomed camera see the same place, things stand behind; the shadow."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from test_synth_noise import small_bank

from core.body import load_body
from core.perception.roi import Roi
from core.skeleton import KEYPOINT_NAMES
from core.synth.cameras import CameraConfig, Cameras, look_at
from core.synth.dataset import sampler_config
from core.synth.handheld import roll_cameras
from core.synth.places import _behind, _View, draw_places
from core.synth.render import render_crops
from core.synth.sampler import MotionSampler
from core.synth.scene import TEXTURE
from core.synth.takes import CONDITIONS, Variety, draw_takes


def cameras(count: int = 3, focal: float = 700.0) -> tuple[Cameras, torch.Tensor]:
    eye = torch.tensor([0.5, 1.6, 5.0]).expand(count, 2, 3)
    R = look_at(eye, torch.tensor([0.0, 0.9, 0.0]).expand(count, 2, 3), torch.zeros(count, 2))
    t = -(R @ eye[..., None]).squeeze(-1)
    size = torch.full((count, 2), 800)
    pelvis = torch.tensor([0.0, 0.9, 0.0]).expand(count, 2, 3)
    return Cameras(R, t, torch.tensor([[focal, focal, 400, 400]]).expand(count, 4), size), pelvis


def place(of: Cameras, pelvis: torch.Tensor) -> torch.Tensor:
    return draw_places(of, pelvis, torch.Generator().manual_seed(5))


def test_a_rolled_camera_sees_the_place_rolled():
    level, pelvis = cameras()
    seen = place(level, pelvis)
    assert seen.shape == (3, 3, TEXTURE, TEXTURE) and seen.min() >= 0 and seen.max() <= 1
    assert seen.std((2, 3)).mean() > 0.05
    rolled = place(roll_cameras(level, torch.full((3, 2), math.pi / 2)), pelvis)
    difference = (rolled - seen.rot90(-1, (2, 3))).abs()  # clockwise
    assert difference.mean() < 0.01 < (rolled - seen).abs().mean()


def test_a_longer_lens_sees_the_middle_larger():
    wide, pelvis = cameras()
    near, _ = cameras(focal=1400.0)
    quarter = TEXTURE // 4
    middle = place(wide, pelvis)[:, :, quarter:-quarter, quarter:-quarter]
    small = torch.nn.functional.avg_pool2d(place(near, pelvis), 2)
    assert (middle - small).abs().mean() < 0.03 < (place(wide, pelvis) - place(near, pelvis)).abs().mean()


def test_things_stand_behind_the_person():
    person = torch.tensor([0.0, 0.9, 0.0]) + torch.rand(400, 5, 3, generator=torch.Generator().manual_seed(0))
    eye = torch.tensor([[[3.0, 1.5, 4.0]]]).expand(400, 1, 3)
    view = _View(eye, eye, person, torch.zeros(400, 1, 2, 2), torch.Generator().manual_seed(1))
    size = torch.tensor([[[0.5, 1.0, 0.3]]])
    at = _behind(view, size, 4.0)
    nearest = (at - eye[..., [0, 2]]).norm(dim=-1)[:, 0] - math.hypot(0.5, 0.3)
    assert (nearest > (person - eye)[..., [0, 2]].norm(dim=-1).amax(1)).all()


@pytest.fixture(scope="module")
def takes():
    motions = MotionSampler(small_bank(), load_body(), config=sampler_config("train", 2))
    still = CameraConfig(handheld=0.0, following=0.0, truncated=0.0, height_m=(1.6, 2.6))
    plain = replace(CONDITIONS["everyday"], occluded=0.0, accompanied=0.0, poor=0.0, variety=Variety())
    drawn = draw_takes(motions, 3, 2, torch.Generator().manual_seed(4), cameras=still, conditions=plain)
    lens = replace(
        drawn.lens,
        **{name: torch.zeros(3) for name in ("noise", "jpeg", "shutter")},
        **{name: torch.ones(3) for name in ("sharpness", "gamma", "gain")},
        cast=torch.ones(3, 3),
    )
    return motions.body, replace(drawn, backgrounds=torch.ones_like(drawn.backgrounds), lens=lens)


def test_the_floor_is_dark_beside_standing_feet_and_nowhere_else(takes):
    body, drawn = takes
    heel = drawn.keypoints[:, 0, KEYPOINT_NAMES.index("left_heel")]
    up = drawn.cameras.up()[:, 0]
    k = drawn.cameras.intrinsics
    R, t = drawn.cameras.R[:, 0], drawn.cameras.t[:, 0]
    world = torch.einsum("bji,bj->bi", R, heel - t)
    on_floor = torch.einsum("bij,bj->bi", R, world * torch.tensor([1.0, 0.0, 1.0])) + t
    beside = on_floor + 0.15 * torch.nn.functional.normalize(torch.linalg.cross(up, on_floor), dim=-1)
    dark = []
    for shadow in (None, torch.ones(3)):
        tones = []
        for point in (beside, beside + 10 * (beside - on_floor)):
            px = point[:, :2] / point[:, 2:] * k[:, :2] + k[:, 2:]
            roi = Roi(px, torch.full((3,), 30.0), torch.zeros(3))
            crops, _ = render_crops(
                replace(drawn, shadow=shadow), 0, roi, body, torch.Generator().manual_seed(0), supersample=1
            )
            tones.append(crops[:, :, 100:156, 100:156].amax((1, 2, 3)))
        dark.append(tones)
    (plain_near, _), (near, far) = dark
    assert (
        (plain_near > 0.99).all() and ((far > 0.97) | (far == 0)).all() and far.max() > 0.97
    )  # 0: outside the image
    assert (near < 0.97).any() and (near <= plain_near).all()


def test_training_takes_have_places_in_their_share():
    motions = MotionSampler(small_bank(), load_body(), config=sampler_config("train", 2))
    takes = [
        draw_takes(
            motions, 8, 2, torch.Generator().manual_seed(1), conditions=replace(CONDITIONS["everyday"], variety=v)
        )
        for v in (Variety(places=0.5), Variety(rolling=1e-9))
    ]
    changed = (takes[0].backgrounds - takes[1].backgrounds).abs().amax((1, 2, 3)) > 1e-3
    assert 1 <= changed.sum() <= 7 and torch.equal(changed, takes[0].shadow > 0)
    torch.testing.assert_close(takes[0].points, takes[1].points)
