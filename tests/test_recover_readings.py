"""core.recover.jumps and readings: exchanged sides are found where the lifter explains them, and only there."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from motion_maker import CAMERA, make_track, make_truth

from core.body import load_body
from core.models.checkpoint import load_network
from core.models.config import LifterConfig
from core.models.lifter import Lifted
from core.records import Camera, Track, cut_track
from core.recover import hyperbolic, readings
from core.recover.jumps import GROUPS, find_blends, find_jumps
from core.recover.readings import ReadingOptions, exchange_groups, settle_readings
from core.skeleton import KEYPOINT_MIRROR, KEYPOINT_NAMES

fitting = import_module("core.recover.fit")
DATA = Path(__file__).with_name("data")
MIRROR = list(KEYPOINT_MIRROR)
ARMS, LEGS = 0, 1


@pytest.fixture(scope="module")
def lifter():
    return load_network(hyperbolic.WEIGHTS, load_body()).lifter.eval()


@pytest.fixture(scope="module")
def track():
    return make_track(make_truth(load_body(), 90, yaw=0.3), noise_px=3.0, noise_m=0.02)


def deceive(track: Track, frames, group=slice(None)) -> Track:
    """What a detector reports that takes the front for the back in these frames."""
    keypoints, landmarks = track.keypoints.copy(), track.landmarks3d.copy()
    columns = np.arange(len(KEYPOINT_NAMES))[group]
    for t in frames:
        keypoints[t, columns] = track.keypoints[t][MIRROR][columns]
        landmarks[t, columns] = (track.landmarks3d[t][MIRROR] * np.float32([1, 1, -1]))[columns]
    return replace(track, keypoints=keypoints, landmarks3d=landmarks)


def test_every_keypoint_is_in_one_group_with_its_mirror_image():
    assert (GROUPS.sum(0) == 1).all()
    assert (GROUPS == GROUPS[:, MIRROR]).all()


def test_steady_motion_has_no_jumps(track):
    assert not find_jumps(track).any()


def test_jumps_are_at_both_ends_of_exchanged_frames(track):
    jumps = find_jumps(deceive(track, range(30, 50)))
    for g in (ARMS, LEGS):
        assert np.flatnonzero(jumps[:, g]).tolist() == [30, 50]


def test_legs_alone_jump_alone(track):
    jumps = find_jumps(deceive(track, range(30, 50), GROUPS[LEGS]))
    assert not jumps[:, ARMS].any()
    assert np.flatnonzero(jumps[:, LEGS]).tolist() == [30, 50]


def test_jumps_close_together_are_one_blend():
    jumps = np.zeros((40, 2), bool)
    jumps[[5, 8, 30], 0] = True
    blends = find_blends(jumps, np.arange(40) / 30)
    assert np.flatnonzero(blends[:, 0]).tolist() == [5, 6, 7, 8, 30]
    assert not blends[:, 1].any()


def test_a_clean_track_is_handed_on_as_it_is_without_lifting(track):
    settled = settle_readings(None, track, CAMERA)
    assert settled.track is track
    assert not settled.exchanged.any() and not settled.doubted.any()


@pytest.mark.parametrize("frames", [range(30, 50), range(0, 25), range(70, 90)])
def test_exchanged_frames_are_exchanged_back(lifter, track, frames):
    settled = settle_readings(lifter, deceive(track, frames), CAMERA)
    for g in (ARMS, LEGS):
        assert np.flatnonzero(settled.exchanged[:, g]).tolist() == list(frames)
    np.testing.assert_array_equal(settled.track.keypoints, track.keypoints)
    np.testing.assert_allclose(settled.track.landmarks3d, track.landmarks3d, atol=1e-6)
    assert np.flatnonzero(settled.doubted).tolist() == list(frames)


def test_exchanged_arms_are_exchanged_back_alone(lifter, track):
    settled = settle_readings(lifter, deceive(track, range(30, 50), GROUPS[ARMS]), CAMERA)
    assert not settled.exchanged[:, LEGS].any()
    assert np.flatnonzero(settled.exchanged[:, ARMS]).tolist() == list(range(30, 50))


def test_what_follows_the_last_jump_is_not_tried_in_part(track):
    """Only from jump to jump, or to an end of the track, can sides be exchanged; the rest is not lifted."""
    lengths = []

    class Lifter:
        config = LifterConfig(window=90)

        def __call__(self, inputs, frames):
            lengths.append(inputs.shape[1])
            return Lifted(torch.zeros(*inputs.shape[:2], 24, 3), None, None, torch.zeros(*inputs.shape[:2], 1))

    options = ReadingOptions(longest_s=1.0, reach_s=0.5)
    settled = settle_readings(Lifter(), deceive(track, range(0, 20)), CAMERA, options=options)
    assert not settled.exchanged.any()
    assert set(lengths) == {20 + 15}


def test_blends_of_both_readings_are_not_seen(lifter, track):
    wrong = deceive(track, range(30, 50))
    for t in (29, 50):
        wrong.keypoints[t, :, :2] = (track.keypoints[t, :, :2] + track.keypoints[t][MIRROR][:, :2]) / 2
    settled = settle_readings(lifter, wrong, CAMERA)
    assert set(range(30, 50)) <= set(np.flatnonzero(settled.exchanged[:, ARMS]).tolist()) <= set(range(29, 51))
    for t in (29, 50):  # the shoulders are where the neck is: far from either reading
        assert settled.doubted[t]
        assert (settled.track.keypoints[t, GROUPS[ARMS], 2] == 0).all()
    assert (settled.track.keypoints[[10, 40, 80], :, 2] == 1).all()


def test_asked_to_stop_it_leaves_the_sides(lifter, track):
    wrong = deceive(track, range(30, 50))
    assert settle_readings(lifter, wrong, CAMERA, should_stop=lambda: True).track is wrong


def deceived_man() -> tuple[Track, Camera, np.ndarray]:
    """A real man's track, and the frames [N, 2] that the detector named the wrong way round, by triangulation."""
    with np.load(DATA / "exchanged_sides.npz") as stored:
        data = dict(stored)
    N = len(data["times"])
    track = Track(
        person=0,
        frames=np.arange(N, dtype=np.int32),
        times=data["times"],
        keypoints=np.concatenate([data["keypoints"], data["confidence"][..., None]], -1).astype(np.float32),
        landmarks3d=data["landmarks3d"].astype(np.float32),
        features=np.zeros((N, 1), np.float16),
        confidence=np.ones(N, np.float32),
        boxes=np.zeros((N, 4), np.float32),
    )
    return track, Camera.from_size(*data["size"].tolist()), data["exchanged"]


def test_of_a_real_man_what_three_other_cameras_say_is_found(lifter):
    track, camera, wrong = deceived_man()
    assert 0.2 < wrong.mean() < 0.4
    settled = settle_readings(lifter, track, camera)
    assert (settled.exchanged == wrong).mean() > 0.95


def test_the_fit_sees_the_sides_settled():
    """Hips of a frame that was named the wrong way round."""
    track, camera, wrong = deceived_man()
    seen = []

    def read(track: Track, camera: Camera):
        seen.append(track)
        raise InterruptedError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting, "read_evidence", read)
        with pytest.raises(InterruptedError):
            fitting.fit(track, camera, load_body())
    sides = [KEYPOINT_NAMES.index(f"{side}_hip") for side in ("left", "right")]
    middle = np.flatnonzero(wrong.all(1))[len(np.flatnonzero(wrong.all(1))) // 2]
    np.testing.assert_array_equal(seen[0].keypoints[middle, sides], track.keypoints[middle, sides[::-1]])


@pytest.mark.parametrize("content", [None, b"no network"])
def test_without_a_lifter_the_fit_goes_on_with_the_sides_as_they_are(tmp_path, content):
    track, camera, _ = deceived_man()
    weights = tmp_path / "net.safetensors"
    if content is not None:
        weights.write_bytes(content)
    assert fitting.settle_by_lifter(track, camera, weights=weights) is track


def test_exchange_groups_twice_is_nothing(track):
    exchanged = np.random.default_rng(0).random((len(track), 2)) < 0.5
    twice = exchange_groups(exchange_groups(track, exchanged), exchanged)
    np.testing.assert_array_equal(twice.keypoints, track.keypoints)
    np.testing.assert_allclose(twice.landmarks3d, track.landmarks3d)


def test_cut_track_keeps_frames_and_times_together(track):
    part = cut_track(track, slice(10, 20))
    assert len(part) == 10 and part.frames[0] == 10 and part.times[0] == track.times[10]


def test_the_network_recovers_a_deceived_track_as_the_clean_one(lifter, track, monkeypatch):
    """Joints about the pelvis; without settling they are off by far more."""
    body = load_body()

    def joints_of(seen: Track) -> np.ndarray:
        motion = hyperbolic.recover_by_network(seen, CAMERA, body, refine=False)
        rotmats, betas, trans = (torch.from_numpy(a) for a in (motion.rotmats, motion.betas, motion.trans))
        joints = body.forward_kinematics(rotmats, betas, trans)[0]
        return (joints - joints[:, :1]).numpy()

    def off(seen: Track) -> float:
        return float(np.linalg.norm(joints_of(seen) - clean, axis=-1)[30:50].mean())

    track = replace(track, features=np.zeros((len(track), 1152), np.float16))
    clean, wrong = joints_of(track), deceive(track, range(30, 50))
    settled = off(wrong)
    monkeypatch.setattr(readings, "find_jumps", lambda track: np.zeros((len(track), 2), bool))
    assert settled < 0.04
    assert off(wrong) > 3 * settled
