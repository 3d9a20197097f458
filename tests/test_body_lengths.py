"""The shipped body's lengths: those of its mean against measured people, and what each length coefficient moves."""

import numpy as np
import pytest
import torch

from core.body import Body, load_body
from core.make.proportions import DEVIATIONS, lengthen
from core.skeleton import JOINT_NAMES, LENGTHS, PRINCIPAL_COUNT, SHAPE_COUNT

BONES = {
    "upper arm": ("left_shoulder", "left_elbow"),
    "forearm": ("left_elbow", "left_wrist"),
    "thigh": ("left_hip", "left_knee"),
    "shin": ("left_knee", "left_ankle"),
    "trunk": ("pelvis", "neck"),
    "shoulders": ("left_shoulder", "right_shoulder"),
}
DE_LEVA_MM = {
    "upper arm": (281.7, 275.1),
    "forearm": (268.9, 264.3),
    "thigh": (422.2, 368.5),
    "shin": (434.0, 432.3),
}
"""de Leva 1996, table 4: longitudinal lengths of men and women between joint centres, statures 1741 and 1735."""


@pytest.fixture(scope="module")
def body() -> Body:
    return load_body()


def length(body: Body, part: str, betas: torch.Tensor) -> float:
    joints = body.rest_joints(betas)
    start, end = (joints[JOINT_NAMES.index(name)] for name in BONES[part])
    return float((end - start).norm())


@pytest.mark.parametrize("part", DE_LEVA_MM)
def test_mean_is_as_long_as_measured_people(body, part):
    zero = torch.zeros(SHAPE_COUNT)
    men, women = DE_LEVA_MM[part]
    measured = (men / 1741 + women / 1735) / 2
    assert length(body, part, zero) / float(body.height(zero)) == pytest.approx(measured, rel=0.045)


def test_span_exceeds_the_stature_as_peoples_does(body):
    span = float(np.ptp(body.v_template[:, 0].numpy()))
    assert 1.0 < span / float(body.height(torch.zeros(1))) < 1.045


@pytest.mark.parametrize("part", LENGTHS)
def test_a_coefficient_lengthens_its_part_and_hardly_another(body, part):
    zero = torch.zeros(SHAPE_COUNT)
    step = zero.clone()
    step[PRINCIPAL_COUNT + LENGTHS.index(part)] = 1
    for name in BONES:
        grown = length(body, name, step) / length(body, name, zero) - 1
        if name == part:  # joints follow the skin around them; half the width lies between the collarbones' ends
            expected = DEVIATIONS[part] * (0.5 if part == "shoulders" else 0.9)
            assert grown == pytest.approx(expected, rel=0.1)
        else:
            assert abs(grown) < 0.01


def test_lengths_keep_the_pelvis_and_are_symmetric(body):
    directions = body.joint_shapedirs[..., PRINCIPAL_COUNT:]
    assert directions[0].abs().max() < 1e-6
    left, right = (directions[JOINT_NAMES.index(f"{side}_wrist")] for side in ("left", "right"))
    torch.testing.assert_close(left, right * torch.tensor([-1.0, 1.0, 1.0])[:, None], atol=1e-5, rtol=0)


def test_skin_along_a_bone_moves_in_proportion():
    """A forearm of points along x, rigidly the elbow's: the far end moves by the whole length, the middle by half."""
    joints = np.random.default_rng(0).normal(size=(24, 3))
    elbow, wrist, hand = (JOINT_NAMES.index(f"left_{name}") for name in ("elbow", "wrist", "hand"))
    joints[elbow], joints[wrist], joints[hand] = (0.4, 0, 0), (0.65, 0, 0), (0.75, 0, 0)
    points = np.array([[0.4, 0.1, 0], [0.525, 0.1, 0], [0.65, 0.1, 0], [0.8, 0, 0]])
    weights = np.zeros((4, 24))
    weights[:3, elbow], weights[3, hand] = 1, 1
    moved = lengthen(points, joints, weights, "forearm")
    np.testing.assert_allclose(moved, [[0, 0, 0], [0.125, 0, 0], [0.25, 0, 0], [0.25, 0, 0]], atol=1e-12)
