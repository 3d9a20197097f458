"""Exchanged sides are found and undone; clean tracks are left alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from motion_maker import CAMERA, make_track, make_truth
from stick_body import build_stick_body

from core.recover.evidence import read_evidence
from core.recover.sides import exchange_sides, settle_sides
from core.recover.terms import PAIRS
from core.skeleton import KEYPOINT_MIRROR, KEYPOINT_NAMES

MIRROR = list(KEYPOINT_MIRROR)


def deceive(track, frames):
    """What a detector reports that takes the front for the back in these frames."""
    keypoints, landmarks = track.keypoints.copy(), track.landmarks3d.copy()
    keypoints[frames] = keypoints[frames][:, MIRROR]
    landmarks[frames] = landmarks[frames][:, MIRROR] * np.array([1, 1, -1], np.float32)
    return replace(track, keypoints=keypoints, landmarks3d=landmarks)


@pytest.fixture(scope="module")
def scene():
    truth = make_truth(build_stick_body(), 90, yaw=0.4)
    return make_track(truth, noise_px=3.0, noise_m=0.02), torch.from_numpy(truth.trans)


def settle(track, trans):
    evidence, exchanged = settle_sides(read_evidence(track, CAMERA), trans)
    return evidence, exchanged.nonzero().squeeze(1).tolist()


def test_a_clean_track_is_left_alone(scene):
    assert settle(*scene)[1] == []


@pytest.mark.parametrize("frames", [[40], [10, 11, 12], list(range(30, 60)), [5, *range(70, 90)]])
def test_exchanged_frames_are_found(scene, frames):
    track, trans = scene
    evidence, found = settle(deceive(track, frames), trans)
    assert found == frames
    np.testing.assert_allclose(evidence.rays, read_evidence(track, CAMERA).rays)


def test_blended_frames_between_the_readings_do_not_hide_the_change(scene):
    track, trans = scene
    frames = list(range(40, 62))
    wrong = deceive(track, frames)
    for t in (40, 61):  # half and half
        wrong.keypoints[t] = (track.keypoints[t] + track.keypoints[t][MIRROR]) / 2
        wrong.landmarks3d[t] = (track.landmarks3d[t] + deceive(track, [t]).landmarks3d[t]) / 2
    _, found = settle(wrong, trans)
    assert set(found) - {40, 61} == set(frames) - {40, 61}


def test_frames_that_are_not_seen_do_not_break_the_chain(scene):
    track, trans = scene
    frames = list(range(40, 60))
    wrong = deceive(track, frames)
    wrong.confidence[36:40] = 0
    _, found = settle(wrong, trans)
    assert found == frames


def test_exchanging_twice_changes_nothing(scene):
    evidence = read_evidence(scene[0], CAMERA)
    all_frames = torch.ones(90, dtype=torch.bool)
    twice = exchange_sides(exchange_sides(evidence, all_frames), all_frames)
    np.testing.assert_allclose(twice.rays, evidence.rays)
    np.testing.assert_allclose(twice.points, evidence.points)


def test_exchanged_limbs_take_their_belief_along(scene):
    """Landmarks of unsure keypoints keep the belief that `read_evidence` gave them, on their new side."""
    track = replace(scene[0], keypoints=scene[0].keypoints.copy())
    elbow, knee = KEYPOINT_NAMES.index("left_elbow"), KEYPOINT_NAMES.index("right_knee")
    track.keypoints[:, [elbow, knee], 2] = 0.12
    evidence = read_evidence(track, CAMERA)
    one = torch.zeros(90, dtype=torch.bool)
    one[40] = True
    changed = exchange_sides(evidence, one, belief=0.5).pair_confidence
    np.testing.assert_array_equal(changed[~one], evidence.pair_confidence[~one])
    left = PAIRS.index((KEYPOINT_NAMES.index("left_shoulder"), elbow))
    right = PAIRS.index((KEYPOINT_NAMES.index("right_shoulder"), KEYPOINT_NAMES.index("right_elbow")))
    assert 0.4 < evidence.pair_confidence[40, left] < evidence.pair_confidence[40, right]
    np.testing.assert_allclose(changed[40, right], evidence.pair_confidence[40, left] / 2)
    np.testing.assert_allclose(changed[40, left], evidence.pair_confidence[40, right] / 2)


def test_who_walks_away_is_not_taken_to_walk_backwards():
    """A detector that flickers evenly between front and back: the way of going decides."""
    truth = make_truth(build_stick_body(), 60, yaw=np.pi)  # back view
    truth.keypoints[..., 2] += np.linspace(0, 3, 60)[:, None]
    truth.trans[:, 2] += np.linspace(0, 3, 60)
    frames = [t for t in range(60) if (t // 7) % 2]
    _, found = settle(deceive(make_track(truth, noise_px=3.0), frames), torch.from_numpy(truth.trans))
    assert found == frames
    everything_but = [t for t in range(60) if t not in frames]
    _, found = settle(deceive(make_track(truth, noise_px=3.0), everything_but), torch.from_numpy(truth.trans))
    assert found == everything_but
