"""Hands put on the body: arms that reach by forward kinematics, elbows that bend one way, shares, gaps."""

from __future__ import annotations

import math

import pytest
import torch

from core.body import load_body
from core.rotation import axis_angle_to_matrix
from core.skeleton import JOINT_NAMES
from core.synth.hands import GESTURES, ON_SKIN, put_hands, reach

ARMS = [JOINT_NAMES.index(f"{s}_{n}") for s in ("left", "right") for n in ("shoulder", "elbow", "wrist")]


@pytest.fixture(scope="module")
def body():
    return load_body()


def people(count: int, frames: int, seed: int = 0, amount: float = 0.25):
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn((count, 1, 24, 3), generator=generator) * amount
    betas = torch.randn((count, 16), generator=generator)
    return axis_angle_to_matrix(vectors).expand(count, frames, 24, 3, 3).contiguous(), betas, generator


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_wrist_reaches_and_the_palm_looks_where_it_should(body, side):
    rotmats, betas, generator = people(40, 2)
    joints, _ = body.forward_kinematics(rotmats, betas[:, None], torch.zeros(40, 2, 3))
    way = torch.nn.functional.normalize(torch.randn((40, 2, 3), generator=generator), dim=-1)
    shoulder = joints[:, :, JOINT_NAMES.index(f"{side}_shoulder")]
    wrist = shoulder + way * (0.25 + 0.15 * torch.rand((40, 2, 1), generator=generator))
    elbow, palm = torch.randn((2, 40, 2, 3), generator=generator)
    which, turns = reach(rotmats, betas, body, wrist, elbow, palm, side)
    moved = rotmats.clone()
    moved[:, :, which] = turns
    assert [JOINT_NAMES[i] for i in which] == [f"{side}_{n}" for n in ("shoulder", "elbow", "wrist")]
    torch.testing.assert_close(turns @ turns.transpose(-1, -2), torch.eye(3).expand_as(turns), atol=1e-4, rtol=0)
    found, globals_ = body.forward_kinematics(moved, betas[:, None], torch.zeros(40, 2, 3))
    s, e, w = (found[:, :, i] for i in which)
    assert (w - wrist).norm(dim=-1).max() < 0.02  # the bones lie a little off the axes at rest
    out = e - shoulder - ((e - shoulder) * way).sum(-1, keepdim=True) * way
    assert ((out * elbow).sum(-1) > 0).all()
    bone = torch.nn.functional.normalize(w - e, dim=-1)
    upper = (globals_[:, :, which[0]].transpose(-1, -2) @ bone[..., None]).squeeze(-1)
    assert upper[..., 1].abs().max() < 0.1 and upper[..., 2].min() > -0.05  # a hinge that bends forwards
    across = palm - (palm * bone).sum(-1, keepdim=True) * bone
    hand = -globals_[:, :, which[2], :, 1]
    cosine = torch.nn.functional.cosine_similarity(hand, across, dim=-1)
    assert (cosine > 0.98).float().mean() > 0.4 and cosine.min() > math.cos(math.radians(85))


def test_hands_lie_outside_the_trunk_near_it(body):
    rotmats, betas, generator = people(200, 3, amount=0.0)
    posed = put_hands(rotmats, betas, body, 0.1, generator, share=1.0)
    changed = (posed - rotmats).abs().amax((1, 3, 4)) > 1e-4
    others = [i for i in range(24) if i not in ARMS]
    assert not changed[:, others].any() and changed[:, ARMS].any(1).float().mean() > 0.95
    joints, _ = body.forward_kinematics(posed[:, 1], betas, torch.zeros(200, 3))
    vertices = body.rest_vertices(betas)
    trunk = (vertices[..., 0].abs() < 0.2) & (vertices[..., 1] < 0.45) & (vertices[..., 1] > -0.1)
    gaps, inside = [], 0
    for i in range(200):
        for joint in (ARMS[2], ARMS[5]):
            if not changed[i, joint]:
                continue
            wrist, skin = joints[i, joint], vertices[i, trunk[i]]
            level = skin[(skin[:, 1] - wrist[1]).abs() < 0.02]
            gaps.append((skin - wrist).norm(dim=-1).min())
            if len(level):
                low, high = level[:, [0, 2]].amin(0), level[:, [0, 2]].amax(0)
                inside += int(((wrist[[0, 2]] > low + 0.03) & (wrist[[0, 2]] < high - 0.03)).all())
    gaps = torch.stack(gaps)
    assert inside / len(gaps) < 0.1
    assert (gaps < ON_SKIN + 0.12).float().mean() > 0.38
    assert len(GESTURES) == 8


def test_a_share_of_people_and_the_same_for_the_same_seed(body):
    rotmats, betas, _ = people(400, 2)
    twice = [put_hands(rotmats, betas, body, 1 / 30, torch.Generator().manual_seed(3), share=0.3) for _ in range(2)]
    torch.testing.assert_close(*twice)
    changed = (twice[0] - rotmats).abs().amax((1, 2, 3, 4)) > 1e-4
    assert 0.2 < changed.float().mean() < 0.36
    torch.testing.assert_close(
        put_hands(rotmats, betas, body, 1 / 30, torch.Generator().manual_seed(3), share=0.0), rotmats
    )


def test_arms_move_into_a_gesture_smoothly(body):
    rotmats, betas, generator = people(100, 60, amount=0.1)
    posed = put_hands(rotmats, betas, body, 1 / 30, generator, share=1.0)[:, :, ARMS]
    step = posed[:, :-1].transpose(-1, -2) @ posed[:, 1:]
    cosine = (step.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2
    assert torch.rad2deg(torch.acos(cosine.clamp(-1, 1))).max() < 45
    total = posed[:, 0].transpose(-1, -2) @ posed[:, -1]
    turned = (total.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2 < math.cos(0.7)
    assert 0.15 < turned.any(1).float().mean() < 0.75  # others hold it all along
