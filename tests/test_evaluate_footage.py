"""Measures without truth: what they say of motions and landmarks whose faults are known by construction."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from core.body import load_body
from core.evaluate.footage import measure_footage, measure_landmarks, person_sizes
from core.evaluate.ground import measure_ground, slide
from core.evaluate.trunk import find_flips, left_axis, longest_run
from core.records import Motion
from core.rotation import axis_angle_to_matrix
from core.skeleton import JOINT_NAMES, KEYPOINT_NAMES
from tests.evaluate_clips import limbs_about_hips, make_clip, motion_of, project

N = 12


@pytest.fixture(scope="module")
def body():
    return load_body()


@pytest.fixture(scope="module")
def clip(body):
    return make_clip(body, n=N, moving=True, seed=3)


def keypoints_of(clip, body) -> np.ndarray:
    return body.keypoints(clip.rotmats, clip.betas, clip.trans).double().numpy()


def second_differences(points: np.ndarray, frames: list[int]) -> float:
    """Mean over the given middle frames and all points, mm/frame^2."""
    steps = [points[i + 1] - 2 * points[i] + points[i - 1] for i in frames]
    return float(np.mean([np.linalg.norm(step, axis=-1) for step in steps]) * 1000)


def test_the_truth_reprojects_and_its_limbs_are_rigid(body, clip):
    values = measure_footage(motion_of(clip), clip.track, clip.camera, body)
    assert values["reprojection_90"] < 1e-4 and values["flipped_pct"] == 0 and values["covered"] == 1
    assert values["limb_variation_pct"] < 1e-3 and values["limb_asymmetry_pct"] < 0.1


def test_reprojection_is_the_median_and_percentile_of_sure_keypoints(body, clip):
    rng = np.random.default_rng(0)
    keypoints = clip.track.keypoints.astype(np.float64)
    offsets = rng.normal(0, 6, (N, 25, 2))
    confidence = np.where(rng.random((N, 25)) < 0.3, 0.4, 0.9)
    offsets[confidence < 0.5] *= 50  # must not count
    seen = np.concatenate([keypoints[..., :2] + offsets, confidence[..., None]], -1).astype(np.float32)
    values = measure_footage(motion_of(clip), replace(clip.track, keypoints=seen), clip.camera, body)
    # all frames lie within a second: one size for all, the 90th percentile of the boxes' larger sides
    sides = [np.ptp(seen[i, confidence[i] > 0.5, :2].astype(float), axis=0).max() for i in range(N)]
    size = np.percentile(sides, 90)
    projected = project(keypoints_of(clip, body), clip.camera)
    off = np.linalg.norm(projected - seen[..., :2], axis=-1)[confidence > 0.5] / size
    assert values["reprojection"] == pytest.approx(np.median(off), rel=1e-3)
    assert values["reprojection_90"] == pytest.approx(np.percentile(off, 90), rel=1e-3)


def test_bending_does_not_make_a_person_smaller_nor_does_an_outlier_make_them_larger(clip):
    n = 90
    keypoints = np.zeros((n, 25, 3), np.float32)
    keypoints[..., 1] = np.linspace(0, 400, 25)
    keypoints[..., 2] = 0.9
    keypoints[30:50, :, 1] *= 0.5
    keypoints[70, 3, :2] = 5000
    keypoints[10:20, :, 2] = 0  # not seen
    track = replace(clip.track, keypoints=keypoints, times=np.arange(n) / 30)
    np.testing.assert_allclose(person_sizes(track), 400, rtol=1e-6)


def test_jitter_is_measured_where_three_frames_are_seen_for_both_rows(body, clip):
    track = replace(clip.track, confidence=np.where(np.arange(N) == 6, 0, clip.track.confidence))
    middles = [i for i in range(1, N - 1) if i not in (5, 6, 7)]
    truth = keypoints_of(clip, body)
    expected = second_differences(limbs_about_hips(truth), middles)
    assert expected > 10
    values = measure_footage(motion_of(clip), track, clip.camera, body)
    assert values["jitter"] == pytest.approx(expected, rel=1e-4)
    joints = body.forward_kinematics(clip.rotmats, clip.betas, clip.trans)[0].double().numpy()
    whole = second_differences(joints - joints[:, :1], list(range(1, N - 1)))
    assert values["jitter_24"] == pytest.approx(whole, rel=1e-4)
    # a person in the picture's middle, so that landmarks stand in the camera's axes
    shift = project(truth, clip.camera)
    low, high = shift.min(1), shift.max(1)
    centred = track.keypoints.copy()
    centred[..., :2] += (np.array([640, 360]) - (low + high) / 2)[:, None].astype(np.float32)
    detector = measure_landmarks(replace(track, keypoints=centred), clip.camera)
    assert detector["jitter"] == pytest.approx(expected, rel=1e-3)
    assert detector["covered"] == pytest.approx((N - 1) / N)


def test_limb_variation_and_asymmetry_of_scaled_landmarks(body, clip):
    """Rest landmarks times g(t): every length varies by std(g) / mean(g). One forearm a tenth longer."""
    points = body.keypoints(torch.eye(3).repeat(24, 1, 1), torch.zeros(10), torch.zeros(3)).numpy()
    growth = 1 + 0.1 * np.sin(np.arange(N)).astype(np.float32)
    longer = points.copy()
    wrist, elbow = KEYPOINT_NAMES.index("left_wrist"), KEYPOINT_NAMES.index("left_elbow")
    longer[wrist] += 0.1 * (points[wrist] - points[elbow])
    track = replace(clip.track, landmarks3d=growth[:, None, None] * longer)
    values = measure_landmarks(track, clip.camera)
    assert values["limb_variation_pct"] == pytest.approx(100 * growth.std() / growth.mean(), rel=1e-3)
    lengths = {
        side: np.linalg.norm(
            points[KEYPOINT_NAMES.index(f"{side}_wrist")] - points[KEYPOINT_NAMES.index(f"{side}_elbow")]
        )
        for side in ("left", "right")
    }
    assert lengths["left"] == pytest.approx(lengths["right"], rel=1e-4)
    assert values["limb_asymmetry_pct"] == pytest.approx(100 * 0.1 / 1.05 / 4, rel=1e-2)  # fmt: skip


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


# Flips


def turning(n: int, fps: float, deg_per_s: float) -> tuple[np.ndarray, np.ndarray]:
    """Axis [n, 3] of somebody who turns evenly about the vertical, and times."""
    times = np.arange(n) / fps
    angle = np.radians(deg_per_s) * times
    return np.stack([np.cos(angle), np.zeros(n), np.sin(angle)], -1), times


@pytest.mark.parametrize("fps", [24, 30, 60])
@pytest.mark.parametrize("run", [1, 4, 25])
def test_exchanged_sides_are_found_while_the_person_turns(fps, run):
    axis, times = turning(120, fps, 200)
    expected = np.zeros(120, bool)
    expected[40 : 40 + run] = expected[90:93] = True
    axis[expected] *= -1
    found = find_flips(axis, times, np.ones(120, bool))
    np.testing.assert_array_equal(found, expected)
    assert longest_run(found) == max(run, 3)


def test_fast_turns_and_turns_in_a_gap_are_no_flips():
    axis, times = turning(90, 30, 650)
    assert not find_flips(axis, times, np.ones(90, bool)).any()
    axis, times = turning(90, 30, 0)
    axis[50:] *= -1
    seen = np.ones(90, bool)
    assert longest_run(find_flips(axis, times, seen)) == 40
    backward = find_flips(axis[::-1], times, seen)  # the longer stretch is right, wherever it lies
    np.testing.assert_array_equal(backward, np.arange(90) < 40)
    seen[42:50] = False
    assert not find_flips(axis, times, seen).any()


def test_the_left_axis_points_left_and_keeps_in_a_somersault(body):
    rest = torch.eye(3).repeat(8, 24, 1, 1)
    angles = torch.linspace(0, 5, 8)
    rest[:, 0] = axis_angle_to_matrix(angles[:, None] * torch.tensor([1.0, 0.0, 0.0]))  # about the left axis
    points = body.keypoints(rest, torch.zeros(10), torch.zeros(8, 3)).numpy()
    np.testing.assert_allclose(left_axis(points), np.tile([1.0, 0.0, 0.0], (8, 1)), atol=1e-3)


def test_a_motion_turned_round_for_three_frames(body, clip):
    still = make_clip(body, n=30)
    rotmats = still.rotmats.clone()
    rotmats[10:13, 0] = rotmats[10:13, 0] @ axis_angle_to_matrix(torch.tensor([0.0, 3.0, 0.0]))
    values = measure_footage(motion_of(still, rotmats=rotmats.numpy()), still.track, still.camera, body)
    assert values["longest_flip"] == 3 and values["flipped_pct"] == pytest.approx(10)
    landmarks = body.keypoints(rotmats, still.betas, still.trans).numpy()
    assert measure_landmarks(replace(still.track, landmarks3d=landmarks), still.camera)["longest_flip"] == 3


# Ground


def test_slide_counts_steps_between_touching_frames_only():
    times = np.array([0.0, 0.1, 0.3, 0.4])
    points = np.zeros((4, 2, 3))
    points[:, 0, 0] = [0.0, 0.01, 0.03, 5.0]
    points[:, 0, 2] = [0.0, 1.0, 2.0, 3.0]  # height is no slide
    touching = np.array([[1, 0], [1, 1], [1, 0], [0, 1]], bool)
    assert slide(points, touching, times) == pytest.approx(100.0)
    assert np.isnan(slide(points, np.zeros((4, 2), bool), times))


def test_feet_under_the_floor(body):
    """Somebody stands in z up, soles 2 cm above the floor, and in one frame of five 3 cm under it."""
    n = 5
    turn = axis_angle_to_matrix(torch.tensor([np.pi / 2, 0.0, 0.0], dtype=torch.float32))  # y up to z up
    poses = np.zeros((n, 72), np.float32)
    poses[:, 0] = np.pi / 2
    vertices = body.v_template.double().numpy()
    root = (body.J_regressor.double().numpy() @ vertices)[0]
    low = ((vertices - root) @ turn.double().numpy().T + root)[:, 2].min()
    trans = np.zeros((n, 3), np.float32)
    trans[:, 2] = 0.02 - low
    trans[3, 2] -= 0.05
    contacts = np.zeros((n, 4), np.float32)
    contacts[:2, 0] = 1
    nothing = np.zeros((n, 1), np.float32)
    motion = Motion(0, np.arange(n), np.arange(n) / 30, poses, trans, np.zeros(16, np.float32), nothing, nothing,
                    nothing, None, nothing, nothing, contacts)  # fmt: skip
    values = measure_ground(motion, body)
    assert values["sunk_mm"] == pytest.approx(30, abs=0.1) and values["sunk_mean_mm"] == pytest.approx(6, abs=0.05)
    assert values["planted_pct"] == pytest.approx(40) and values["foot_slide"] == pytest.approx(0, abs=1e-3)
