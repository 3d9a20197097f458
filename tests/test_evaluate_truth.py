"""What frames were like: conditions of clips that are built to have them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from core.body import load_body
from core.evaluate.truth import frame_conditions
from core.records import Camera
from core.rotation import axis_angle_to_matrix
from tests.evaluate_clips import make_clip

N = 12


@pytest.fixture(scope="module")
def body():
    return load_body()


@pytest.fixture(scope="module")
def clip(body):
    return make_clip(body, n=N)


def facing(clip, yaw_deg: float, lean_deg: float = 0.0):
    """The person on the optical axis, turned about the vertical from facing the camera, and tipped over."""
    base = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    lean = axis_angle_to_matrix(torch.tensor([0.0, 0.0, np.radians(lean_deg)], dtype=torch.float32))
    yaw = axis_angle_to_matrix(torch.tensor([0.0, np.radians(yaw_deg), 0.0], dtype=torch.float32))
    rotmats = clip.rotmats.clone()
    rotmats[:, 0] = base @ lean @ yaw
    return replace(clip, rotmats=rotmats)


@pytest.mark.parametrize("yaw,expected", [(0, 0), (30, 30), (-30, 30), (100, 100), (180, 180)])
def test_view_is_the_angle_from_the_person_s_front(body, clip, yaw, expected):
    rest = body.joint_template[0] + torch.einsum("dk,k->d", body.joint_shapedirs[0], clip.betas)
    trans = torch.tensor([0.0, 0.0, 4.0]).repeat(N, 1) - rest  # the pelvis on the optical axis
    for lean in (0, 90):
        turned = replace(facing(clip, yaw, lean), trans=trans)
        np.testing.assert_allclose(frame_conditions(turned, body)["view"], expected, atol=0.05)


def test_camera_conditions(body, clip):
    """A 50 mm lens is 50/43.27 diagonals; a camera whose up tips away from it looks down."""
    lens = Camera.from_size(3600, 2400, 5000.0)
    up = np.tile([0.0, -np.cos(0.3), -np.sin(0.3)], (N, 1)).astype(np.float32)
    hidden = np.zeros((N, 25), bool)
    hidden[3, :10] = True
    values = frame_conditions(replace(clip, true_camera=lens, up=up, hidden=hidden), body)
    np.testing.assert_allclose(values["focal"], 50, rtol=1e-3)
    np.testing.assert_allclose(values["pitch"], np.degrees(0.3), rtol=1e-5)
    assert values["occlusion"][3] == pytest.approx(0.4) and values["occlusion"].sum() == pytest.approx(0.4)
    unknown = frame_conditions(clip, body)
    assert np.isnan(unknown["pitch"]).all() and np.isnan(unknown["occlusion"]).all()


def test_size_height_and_keypoint_error(body, clip):
    vertices = body.v_template.double().numpy() + body.shapedirs.double().numpy() @ clip.betas.double().numpy()
    height = np.ptp(vertices[:, 1])
    root = (body.J_regressor.double().numpy() @ vertices)[0] + clip.trans[0].double().numpy()
    size = clip.camera.fy * height / root[2]
    keypoints = clip.track.keypoints.copy()
    keypoints[:, :5, 0] += 0.1 * size
    confidence = clip.track.confidence.copy()
    confidence[5] = 0
    track = replace(clip.track, keypoints=keypoints, confidence=confidence)
    values = frame_conditions(replace(clip, track=track), body)
    np.testing.assert_allclose(values["shape"], height, rtol=1e-5)
    np.testing.assert_allclose(values["size"], size, rtol=1e-4)
    assert np.isnan(values["keypoint_error"][5])
    np.testing.assert_allclose(np.delete(values["keypoint_error"], 5), 0.1 * 5 / 25, rtol=1e-3)


def test_speed_of_a_body_that_spins(body, clip):
    """Spinning by w about the pelvis moves every joint at w times its distance from the axis."""
    w = 1.5
    angles = w * torch.arange(N) / 30
    rotmats = clip.rotmats.clone()
    rotmats[:, 0] = axis_angle_to_matrix(angles[:, None] * torch.tensor([0.0, 1.0, 0.0]))
    trans = clip.trans + torch.arange(N)[:, None] * 0.1  # moving along is no speed of joints about the pelvis
    joints, _ = body.forward_kinematics(rotmats[:1], clip.betas, clip.trans[:1])
    about = (joints[0] - joints[0, 0]).double().numpy()
    expected = w * np.hypot(about[:, 0], about[:, 2]).mean()
    values = frame_conditions(replace(clip, rotmats=rotmats, trans=trans), body)["speed"]
    np.testing.assert_allclose(values, expected, rtol=5e-3)
