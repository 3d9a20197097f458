"""core.evaluate: measures of motions whose errors are known by construction, and the table they end in."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from core.body import load_body
from core.errors import InputError
from core.evaluate.measure import (
    detector_keypoints,
    measure_detector,
    measure_footage,
    measure_motion,
)
from core.evaluate.report import evaluate, format_table
from core.evaluate.testset import TestClip, _track
from core.records import Camera, CameraMotion
from core.rotation import axis_angle_to_matrix
from core.skeleton import JOINT_NAMES

N = 12


@pytest.fixture(scope="module")
def body():
    return load_body()


@pytest.fixture(scope="module")
def clip(body) -> TestClip:
    torch.manual_seed(0)
    camera = Camera.from_size(1280, 720)
    rotmats = axis_angle_to_matrix(0.2 * torch.randn(1, 24, 3)).repeat(N, 1, 1, 1)
    rotmats[:, 0] = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    betas, trans = torch.randn(10), torch.tensor([0.1, 0.2, 4.0]).repeat(N, 1)
    points = body.keypoints(rotmats, betas, trans)
    px = points[..., :2] / points[..., 2:] * camera.fx + torch.tensor([camera.cx, camera.cy])
    keypoints = torch.cat((px, torch.ones(N, 25, 1)), -1).numpy()
    hips = points[:, 15:17].mean(1, keepdim=True)
    track = _track(keypoints, (points - hips).numpy(), np.zeros((N, 4)), np.ones(N), N)
    return TestClip("a", track, camera, rotmats, betas, trans)


def motion_of(clip: TestClip, **changes) -> CameraMotion:
    motion = CameraMotion(
        person=0,
        frames=clip.track.frames,
        rotmats=clip.rotmats.numpy(),
        trans=clip.trans.numpy(),
        betas=clip.betas.numpy(),
        confidence=clip.track.confidence,
    )
    return replace(motion, **changes)


def test_the_truth_has_no_error(body, clip):
    values = measure_motion(motion_of(clip), clip, body)
    assert values.pop("covered") == 1
    assert all(abs(v) < 0.05 for v in values.values()), values


def test_a_shift_is_an_error_of_place_alone(body, clip):
    moved = motion_of(clip, trans=clip.trans.numpy() * np.float32(1.1))
    values = measure_motion(moved, clip, body)
    assert values["mpjpe"] < 0.05 and values["sideways_mm"] < 10 and values["depth_wobble"] < 1e-4
    wobble = clip.trans.numpy() * (1 + 0.05 * (-1.0) ** np.arange(N))[:, None].astype(np.float32)
    assert measure_motion(motion_of(clip, trans=wobble), clip, body)["depth_wobble"] == pytest.approx(0.05, rel=0.2)


def test_a_bent_elbow_moves_the_hand_by_its_chord(body, clip):
    elbow, angle = JOINT_NAMES.index("left_elbow"), 0.5
    rotmats = clip.rotmats.clone()
    rest = body.rest_joints(clip.betas)
    bone = rest[JOINT_NAMES.index("left_wrist")] - rest[elbow]
    axis = torch.nn.functional.normalize(torch.linalg.cross(bone, torch.tensor([0.0, 1.0, 0.0])), dim=-1)
    rotmats[:, elbow] = rotmats[:, elbow] @ axis_angle_to_matrix(axis * angle)
    values = measure_motion(motion_of(clip, rotmats=rotmats.numpy()), clip, body)
    hand = rest[JOINT_NAMES.index("left_hand")] - rest[elbow]
    flat_hand = (hand - (hand @ axis) * axis).norm()
    expected = float((bone.norm() + flat_hand) * 2 * np.sin(angle / 2)) * 1000 / 24
    assert values["mpjpe"] == pytest.approx(expected, rel=1e-2)
    assert values["angle_deg"] == pytest.approx(np.degrees(angle) / 24, rel=1e-2)
    assert values["accel"] < 0.01


def test_frames_left_out_are_not_covered(body, clip):
    part = motion_of(
        clip, frames=clip.track.frames[:3], rotmats=clip.rotmats[:3].numpy(), trans=clip.trans[:3].numpy()
    )
    assert measure_motion(part, clip, body)["covered"] == pytest.approx(3 / N)


def test_the_detector_s_landmarks_are_turned_to_the_camera(body, clip):
    """A body seen at the image's edge: landmarks as a camera that looks at it would give them."""
    from core.models.inputs import ImageGeometry, crop_of, view_rotation

    size = (torch.full((1, 1), float(v)) for v in (1280, 720, clip.camera.fx))
    view = view_rotation(crop_of(torch.from_numpy(clip.track.keypoints))[0].squeeze(-2), ImageGeometry(*size))
    assert float((view - torch.eye(3)).abs().max()) > 0.01
    seen = (torch.from_numpy(clip.track.landmarks3d) @ view).numpy()
    turned = replace(clip, track=replace(clip.track, landmarks3d=seen))
    torch.testing.assert_close(
        detector_keypoints(turned.track, clip.camera), torch.from_numpy(clip.track.landmarks3d), atol=1e-5, rtol=0
    )
    values = measure_detector(turned, body)
    assert values["keypoint_mm"] < 0.1 and values["covered"] == 1


def test_footage_measures_of_the_truth_and_of_a_flip(body, clip):
    good = measure_footage(motion_of(clip), clip.track, clip.camera, body)
    assert good["reprojection"] < 1e-4 and good["flips"] == 0 and good["jitter"] < 0.01
    assert good["limb_asymmetry"] < 1e-3
    rotmats = clip.rotmats.clone()
    rotmats[5:, 0] = rotmats[5:, 0] @ axis_angle_to_matrix(torch.tensor([0.0, 3.1, 0.0]))
    flipped = measure_footage(motion_of(clip, rotmats=rotmats.numpy()), clip.track, clip.camera, body)
    assert flipped["flips"] == 1 and flipped["reprojection"] > 0.05 and flipped["jitter"] > 10


@pytest.mark.parametrize("joint,axis,is_wrong", [
    ("left_knee", (-0.5, 0, 0), True), ("right_knee", (0.5, 0, 0), False),
    ("left_elbow", (0, 0.5, 0), True), ("left_elbow", (0, -0.5, 0), False), ("right_elbow", (0, -0.5, 0), True),
])  # fmt: skip
def test_limbs_bent_back_are_counted(body, clip, joint, axis, is_wrong):
    """Signs are checked on the body: a knee bends well if its ankle goes back (-z), an elbow if its hand comes
    forward (+z)."""
    rotmats = torch.eye(3).repeat(N, 24, 1, 1)
    rotmats[:, JOINT_NAMES.index(joint)] = axis_angle_to_matrix(torch.tensor(axis))
    joints, _ = body.forward_kinematics(rotmats, torch.zeros(10), torch.zeros(3))
    end = joint.replace("knee", "ankle").replace("elbow", "wrist")
    moved = joints[0, JOINT_NAMES.index(end), 2] - body.joint_template[JOINT_NAMES.index(end), 2]
    assert (float(moved) > 0) == (is_wrong if "knee" in joint else not is_wrong)
    values = measure_footage(motion_of(clip, rotmats=rotmats.numpy()), clip.track, clip.camera, body)
    assert values["bent_back"] == (N if is_wrong else 0)


def test_report_weighs_frames_and_counts_failures(body, clip):
    short = replace(clip, name="b", track=replace(clip.track, frames=clip.track.frames[:4]), rotmats=clip.rotmats[:4],
                    trans=clip.trans[:4])  # fmt: skip
    short = replace(short, track=_track(clip.track.keypoints[:4], clip.track.landmarks3d[:4],
                                        np.zeros((4, 4)), np.ones(4), 4))  # fmt: skip

    def fails_on_short(c: TestClip) -> CameraMotion:
        if c.name == "b":
            raise InputError("too short")
        return motion_of(c)

    table = evaluate([clip, short], {"truth": motion_of, "picky": fails_on_short}, body)
    assert set(table) == {"detector", "truth", "picky"}
    assert table["picky"]["failed"] == 1 and table["truth"]["failed"] == 0
    assert table["truth"]["mpjpe"] < 0.05
    text = format_table({"a": {"mpjpe": 81.24, "covered": 1.0}, "b": {"covered": 0.5}})
    assert text.splitlines()[2] == "| a | 81.2 | 1 |" and text.splitlines()[3] == "| b | - | 0.5 |"
