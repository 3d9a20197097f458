"""The closed-form first guess on exact landmarks, and gaps."""

import numpy as np
import torch
from motion_maker import CAMERA, make_track, make_truth, rodrigues
from stick_body import build_stick_body

from core.recover.chain import build_chain, pose_chain, shape_chain
from core.recover.evidence import read_evidence
from core.recover.initial import fill_gaps, guess_rotations, guess_translation, smallest_rotation


def test_guess_is_near_the_truth():
    body = build_stick_body()
    truth = make_truth(body, 40, yaw=1.0)
    shaped = shape_chain(build_chain(body), torch.zeros(16, dtype=torch.float64))
    points = torch.from_numpy(truth.keypoints)
    points = points - points[:, 15:17].mean(1, keepdim=True)
    guessed = pose_chain(shaped, guess_rotations(points, shaped), torch.zeros(40, 3, dtype=torch.float64)).points
    guessed = guessed - guessed[:, 15:17].mean(1, keepdim=True)
    error = (guessed - points).norm(dim=-1)
    assert float(error[:, :21].mean()) < 0.04  # feet are only swung
    assert float(error.mean()) < 0.05


def test_translation_is_exact_for_exact_points():
    truth = make_truth(build_stick_body(), 10)
    evidence = read_evidence(make_track(truth), CAMERA)
    points = torch.from_numpy(truth.keypoints - truth.trans[:, None])
    trans = guess_translation(points, evidence.rays, evidence.confidence)
    np.testing.assert_allclose(trans, truth.trans, atol=1e-4)  # keypoints are float32


def test_unseen_keypoints_do_not_move_the_translation():
    truth = make_truth(build_stick_body(), 4)
    track = make_track(truth)
    track.keypoints[:, 17:, :2] += 300
    track.keypoints[:, 17:, 2] = 0
    evidence = read_evidence(track, CAMERA)
    points = torch.from_numpy(truth.keypoints - truth.trans[:, None])
    np.testing.assert_allclose(guess_translation(points, evidence.rays, evidence.confidence), truth.trans, atol=0.01)


def test_a_gap_in_a_somersault_is_turned_through():
    times = torch.arange(30, dtype=torch.float64) / 30
    angle = 8.0 * times  # 4 rad over the gap: more than half a turn
    vectors = torch.zeros(30, 24, 3, dtype=torch.float64)
    vectors[:, 0, 0] = angle
    vectors[:, 5, 1] = 0.5 * times
    rotmats = torch.from_numpy(rodrigues(vectors.numpy()))
    trans = torch.stack([times, times * 2, times + 3], 1)
    usable = (times < 7.5 / 30) | (times > 22.5 / 30)
    garbage = torch.where(usable[:, None, None, None], rotmats, torch.eye(3, dtype=torch.float64))
    filled, moved = fill_gaps(garbage, torch.where(usable[:, None], trans, torch.zeros(3)), times, usable)
    np.testing.assert_allclose(filled, rotmats, atol=1e-9)
    np.testing.assert_allclose(moved, trans, atol=1e-9)


def test_ends_without_evidence_hold_the_nearest_frame():
    times = torch.arange(5, dtype=torch.float64)
    rotmats = torch.eye(3, dtype=torch.float64).expand(5, 24, 3, 3)
    trans = times[:, None].expand(5, 3)
    usable = torch.tensor([False, True, True, False, False])
    _, moved = fill_gaps(rotmats, trans, times, usable)
    np.testing.assert_allclose(moved[:, 0], [1, 1, 2, 2, 2])


def test_smallest_rotation_of_opposite_directions_is_a_rotation():
    a = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]], dtype=torch.float64)
    R = smallest_rotation(a, -a)
    np.testing.assert_allclose((R @ a[..., None])[..., 0], -a, atol=1e-12)
    np.testing.assert_allclose(torch.linalg.det(R), 1, atol=1e-12)
