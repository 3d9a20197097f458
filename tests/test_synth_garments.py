"""Skirts, hair and wide clothes: what they cover, where they hang, what they leave alone."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch
from test_synth_noise import small_bank

from core.body import load_body
from core.rotation import axis_angle_to_matrix
from core.skeleton import JOINT_NAMES
from core.synth.dataset import roi_of, sampler_config
from core.synth.figure import Style, draw_wardrobe, loosen, vertex_normals
from core.synth.garments import LONGEST_TRAIL, NOWHERE, RINGS, SIDES, build_patterns, hang, trail_of
from core.synth.outfits import draw_styles
from core.synth.render import render_crops
from core.synth.sampler import MotionSampler
from core.synth.takes import CONDITIONS, Variety, draw_takes

SKIRT = {"skirt_top": 0.05, "skirt_hem": -0.7, "skirt_flare": 0.05, "skirt_width": 0.6}
HAIR = {"hair_length": 0.45, "hair_width": 0.08, "hair_depth": 0.03}
UP = torch.tensor([[0.0, 1.0, 0.0]])


@pytest.fixture(scope="module")
def body():
    return load_body()


def style(**worn: float) -> Style:
    """One person who wears nothing else."""
    values = {f.name: torch.zeros(1) for f in fields(Style)}
    values["skirt_hem"] += 1
    values |= {name: torch.full((1,), value) for name, value in worn.items()}
    return Style(**values | {"skirt_cloth": torch.ones(1, dtype=torch.int64)})


def posed(body, **turns: tuple[float, float, float]):
    """Vertices, joints and rotations of a body at rest but for some joints' rotation vectors."""
    vectors = torch.zeros((1, 24, 3))
    for name, vector in turns.items():
        vectors[0, JOINT_NAMES.index(name)] = torch.tensor(vector)
    rotmats = axis_angle_to_matrix(vectors)
    return *body.skin(rotmats, torch.zeros((1, 10)), torch.zeros((1, 3))), rotmats


def skirt_of(body, shape: Style, trail: tuple[float, float, float] = (0, 0, 0), **turns) -> torch.Tensor:
    """Rings [RINGS, SIDES + 1, 3] of a skirt."""
    placed, _ = hang(build_patterns(body), *posed(body, **turns), shape, UP, torch.tensor([trail]).float())
    return placed[0, : RINGS * (SIDES + 1)].view(RINGS, SIDES + 1, 3)


def test_a_skirt_goes_around_both_legs_and_the_hips(body):
    rings = skirt_of(body, style(**SKIRT))
    vertices, _, _ = posed(body)
    for ring in rings[1:]:
        near = (vertices[0, :, 1] - ring[:, 1].mean()).abs() < 0.015
        legs = vertices[0, near & (vertices[0, :, 0].abs() < 0.4)]
        corner = ring[:-1, [0, 2]]  # counter-clockwise seen from above, or all the other way round
        edge = corner.roll(-1, 0) - corner
        inner = legs[:, None, [0, 2]] - corner
        side = edge[:, 0] * inner[..., 1] - edge[:, 1] * inner[..., 0]
        assert len(legs) > 10 and ((side > -1e-3).all() or (side < 1e-3).all())
    assert rings[0, :, 1].mean() == pytest.approx(0.05, abs=0.03)
    assert rings[-1, :, 1].mean() == pytest.approx(-0.7, abs=0.04)


def test_a_skirt_rides_up_over_spread_legs_and_trails(body):
    together = skirt_of(body, style(**SKIRT))[-1, :, 1].mean()
    apart = skirt_of(body, style(**SKIRT), left_hip=(0, 0, 0.7), right_hip=(0, 0, -0.7))[-1, :, 1].mean()
    assert apart > together + 0.3  # 0.18 by the legs alone
    behind = skirt_of(body, style(**SKIRT), trail=(0.0, 0.0, -0.1)) - skirt_of(body, style(**SKIRT))
    torch.testing.assert_close(behind[0], torch.zeros_like(behind[0]))
    torch.testing.assert_close(behind[-1].mean(0), torch.tensor([0.0, 0.0, -0.1]))


@pytest.mark.parametrize("bend", [0.0, 1.5])
def test_hair_hangs_down_from_the_head_outside_the_trunk(body, bend):
    vertices, joints, rotmats = posed(body, spine1=(bend, 0, 0))
    placed, _ = hang(build_patterns(body), vertices, joints, rotmats, style(**HAIR), UP, torch.zeros((1, 3)))
    hair = placed[0, RINGS * (SIDES + 1) :]
    head = joints[0, JOINT_NAMES.index("head")]
    assert head[1] - hair[-13:, 1].mean() > 0.25  # the tips
    if bend == 0:
        assert hair[-13:, 2].mean() < joints[0, JOINT_NAMES.index("spine3"), 2] - 0.08
    assert (placed[0, : RINGS * (SIDES + 1)] == NOWHERE).all()  # no skirt


def test_hems_lag_behind_the_motion_by_a_bounded_way():
    time = torch.arange(12) / 30
    slow, fast = (torch.stack([v * time, 0.9 + 0 * time, 0 * time], -1) for v in (1.0, 30.0))
    trail = trail_of(torch.stack([slow, fast]), 1 / 30)
    assert (trail[:, :, 0] < 0).all() and trail[..., 1:].abs().max() < 1e-4
    assert trail[0, :, 0].abs().max() < 0.035 < trail[1, :, 0].abs().max() < LONGEST_TRAIL
    every_tenth = trail_of(slow[None, ::10], 10 / 30)
    torch.testing.assert_close(every_tenth[0, 1], trail[0, 10])
    assert (trail_of(slow[None, :1], 1 / 30) == 0).all()  # one frame tells no speed


def test_wide_legs_widen_towards_the_ankles_only(body):
    vertices, _, _ = posed(body)
    normals = vertex_normals(vertices, body.triangles)
    plain = draw_wardrobe(1, torch.Generator().manual_seed(0))
    cut = plain.cut.clone()
    cut[:, 4], cut[:, 5], cut[:, 0] = -0.86, -0.88, -0.1  # trousers to the ankles
    wide = replace(plain, cut=cut, style=style(leg_flare=0.08, leg_power=1.0))
    moved = (loosen(vertices, normals, vertices[0], wide, UP) - vertices).norm(dim=-1)[0]
    y, is_leg = vertices[0, :, 1], vertices[0, :, 0].abs() < 0.3
    means = [moved[is_leg & ((y - level).abs() < 0.03)].mean() for level in (-0.3, -0.5, -0.75)]
    assert means[0] + 0.01 < means[1] and means[1] + 0.01 < means[2] < 0.15


def test_loose_things_change_the_picture_and_nothing_else(body):
    motions = MotionSampler(small_bank(), body, config=sampler_config("train", 2))
    pictures = []
    for variety in (Variety(skirts=1.0), Variety(skirts=1.0), Variety(hair=1e-9)):
        conditions = replace(CONDITIONS["everyday"], variety=variety)
        takes = draw_takes(motions, 2, 2, torch.Generator().manual_seed(3), conditions=conditions)
        noise = torch.Generator().manual_seed(0)
        crops, _ = render_crops(takes, 1, roi_of(takes.points[:, 1]), body, noise, supersample=1)
        pictures.append((takes, crops))
    torch.testing.assert_close(pictures[0][1], pictures[1][1])
    assert (pictures[0][1] - pictures[2][1]).abs().amax((1, 2, 3)).min() > 0.1
    for name in ("points", "backgrounds", "occluders"):
        torch.testing.assert_close(getattr(pictures[0][0], name), getattr(pictures[2][0], name))


def test_shares_are_kept():
    wardrobe = draw_wardrobe(600, torch.Generator().manual_seed(0))
    drawn = draw_styles(wardrobe, torch.Generator().manual_seed(1), skirts=0.3, wide=0.2, hoods=0.1, hair=0.4).style
    assert (drawn.skirt_hem < drawn.skirt_top).float().mean() == pytest.approx(0.3, abs=0.06)
    assert (drawn.hood > 0).float().mean() == pytest.approx(0.1, abs=0.04)
    assert (drawn.hair_length > 0).float().mean() == pytest.approx(0.36, abs=0.06)  # not under a hood
