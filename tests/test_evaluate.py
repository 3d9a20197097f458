"""core.evaluate: measures of motions whose errors are known by construction, and the table they end in."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from core.body import load_body
from core.errors import InputError
from core.evaluate import metrics
from core.evaluate.measure import detector_keypoints, measure_detector, measure_motion, shape_errors
from core.evaluate.report import evaluate, format_table
from core.evaluate.testset import TestClip, build_track
from core.records import CameraMotion
from core.rotation import axis_angle_to_matrix
from core.skeleton import JOINT_NAMES, PARENTS
from tests.evaluate_clips import make_clip, motion_of

N = 12


@pytest.fixture(scope="module")
def body():
    return load_body()


@pytest.fixture(scope="module")
def clip(body) -> TestClip:
    return make_clip(body, n=N)


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


def test_scale_error_against_a_search():
    """The scale that a fine search finds is the one that is used."""
    rng = np.random.default_rng(0)
    truth, predicted = rng.normal(size=(2, 4, 24, 3))
    predicted = 0.8 * truth + 0.2 * predicted
    for p, t in zip(predicted, truth):
        scales = np.linspace(0.5, 2, 150001)
        squares = scales**2 * (p * p).sum() - 2 * scales * (p * t).sum()  # of |s p - t|^2 what depends on s
        expected = np.linalg.norm(scales[squares.argmin()] * p - t, axis=-1).mean() * 1000
        found = metrics.scale_error(torch.from_numpy(p), torch.from_numpy(t))
        assert float(found) == pytest.approx(expected, rel=1e-4)


def test_turn_error_against_scipy():
    """Rotation.align_vectors turns about the origin: the root. A reflection is not undone."""
    rng = np.random.default_rng(2)
    truth, noise = rng.normal(size=(2, 5, 24, 3))
    predicted = (0.9 * truth + 0.3 * noise) @ Rotation.random(5, rng=3).as_matrix()
    predicted[4] = truth[4] * [1.0, 1.0, -1.0]
    for p, t in zip(predicted, truth):
        turned = Rotation.align_vectors(t, p)[0].apply(p)
        expected = np.linalg.norm(turned - t, axis=-1).mean() * 1000
        found = metrics.turn_error(torch.from_numpy(p), torch.from_numpy(t))
        assert expected > 100 and float(found) == pytest.approx(expected, rel=1e-6)


def test_height_and_limb_ratios_from_the_body_s_arrays(body):
    rng = np.random.default_rng(1)
    shapes = rng.normal(size=(2, 16)).astype(np.float32)
    template, directions = (a.double().numpy() for a in (body.v_template, body.shapedirs))
    regressor = body.J_regressor.double().numpy()
    heights, ratios = [], []
    for betas in shapes:
        vertices = template + directions @ betas.astype(np.float64)
        joints = regressor @ vertices
        heights.append(np.ptp(vertices[:, 1]))
        ends = [JOINT_NAMES.index(f"{s}_{p}") for s in ("left", "right") for p in ("knee", "ankle", "elbow", "wrist")]
        ratios.append([np.linalg.norm(joints[j] - joints[PARENTS[j]]) / heights[-1] for j in ends])
    values = shape_errors(*(torch.from_numpy(s) for s in shapes), body)
    assert values["height_mm"] == pytest.approx(abs(heights[0] - heights[1]) * 1000, abs=0.01)
    swapped = shape_errors(*(torch.from_numpy(s) for s in shapes[::-1]), body)
    assert swapped["height_mm"] == pytest.approx(values["height_mm"], abs=0.01) and values["height_mm"] > 5
    expected = np.mean([abs(a / b - 1) for a, b in zip(*ratios)]) * 100
    assert expected > 0.3 and values["limb_ratio_pct"] == pytest.approx(expected, rel=1e-3)


def test_frames_back_to_front_are_counted_against_the_truth(body, clip):
    rotmats = clip.rotmats.clone()
    turned = [2, 3, 4, 8]
    rotmats[turned, 0] = rotmats[turned, 0] @ axis_angle_to_matrix(torch.tensor([0.0, 2.0, 0.0]))
    values = measure_motion(motion_of(clip, rotmats=rotmats.numpy()), clip, body)
    assert values["flipped_pct"] == pytest.approx(100 * 4 / N) and values["longest_flip"] == 3
    rotmats[turned, 0] = clip.rotmats[turned, 0] @ axis_angle_to_matrix(torch.tensor([0.0, 1.2, 0.0]))
    assert measure_motion(motion_of(clip, rotmats=rotmats.numpy()), clip, body)["longest_flip"] == 0


def test_report_weighs_frames_and_counts_failures(body, clip):
    short = replace(clip, name="b", track=replace(clip.track, frames=clip.track.frames[:4]), rotmats=clip.rotmats[:4],
                    trans=clip.trans[:4])  # fmt: skip
    short = replace(short, track=build_track(clip.track.keypoints[:4], clip.track.landmarks3d[:4],
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


def test_report_weighs_the_frames_a_method_gave_and_keeps_the_worst_flip(body, clip):
    """A clip of which a method gives a quarter counts a quarter in its errors, and whole in what it covered."""
    other = replace(clip, name="b")

    def method(c: TestClip) -> CameraMotion:
        if c is clip:
            return motion_of(c)
        n = N // 4
        rotmats = c.rotmats[:n].numpy().copy()
        rotmats[:, 0] = rotmats[:, 0] @ np.diag([-1.0, 1.0, -1.0]).astype(np.float32)
        return motion_of(c, frames=c.track.frames[:n], rotmats=rotmats, trans=c.trans[:n].numpy())

    watched = []
    table = evaluate([clip, other], {"m": method}, body, watch=lambda c, m: watched.append((c.name, list(m))))
    alone = measure_motion(method(other), other, body)
    assert alone["mpjpe"] > 100
    assert table["m"]["mpjpe"] == pytest.approx(alone["mpjpe"] * 0.25 / 1.25, rel=1e-3)
    assert table["m"]["covered"] == pytest.approx((1 + 0.25) / 2)
    assert table["m"]["longest_flip"] == N // 4 and table["m"]["flipped_pct"] == pytest.approx(100 * 0.25 / 1.25)
    assert watched == [("a", ["m"]), ("b", ["m"])]


def test_a_frame_of_low_presence_is_a_gap(clip):
    presence = np.float32([0.9, 0.08, 0.2])
    keypoints, landmarks = clip.track.keypoints[:3].copy(), clip.track.landmarks3d[:3]
    keypoints[0, 5:, 2] = 0.05
    track = build_track(keypoints, landmarks, np.zeros((3, 4)), presence, 3)
    np.testing.assert_allclose(track.confidence, [0.9, 0, 0.2])
    np.testing.assert_allclose(track.boxes[0, :2], keypoints[0, :5, :2].min(0))
    np.testing.assert_allclose(track.times, np.arange(3) / 30)
