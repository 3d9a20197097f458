"""core.recover.jumps and readings: exchanged sides are found where exchanging back makes a track move on."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from motion_maker import CAMERA, make_track, make_truth

from core.body import load_body
from core.records import Camera, Track, cut_track
from core.recover import hyperbolic, readings
from core.recover.jumps import GROUPS, find_jumps
from core.recover.readings import exchange_groups, settle_readings
from core.skeleton import KEYPOINT_MIRROR, KEYPOINT_NAMES

fitting = import_module("core.recover.fit")
DATA = Path(__file__).with_name("data")
MIRROR = list(KEYPOINT_MIRROR)
ARMS, LEGS = 0, 1


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


def test_a_clean_track_is_handed_on_as_it_is(track):
    settled = settle_readings(track)
    assert settled.track is track
    assert not settled.exchanged.any() and not settled.doubted.any()


@pytest.mark.parametrize("frames", [range(30, 50), range(0, 8), range(80, 90), [20, 21, 40, 60, 61, 62]])
def test_exchanged_frames_are_exchanged_back(track, frames):
    settled = settle_readings(deceive(track, frames))
    for g in (ARMS, LEGS):
        assert np.flatnonzero(settled.exchanged[:, g]).tolist() == list(frames)
    np.testing.assert_array_equal(settled.track.keypoints, track.keypoints)
    np.testing.assert_allclose(settled.track.landmarks3d, track.landmarks3d, atol=1e-6)
    assert np.flatnonzero(settled.doubted).tolist() == list(frames)


def test_of_two_unbroken_tracks_the_one_with_fewer_exchanges_is_taken(track):
    """All but a fifth exchanged: continuity cannot tell, and the fifth is exchanged to go with the rest."""
    wrong = deceive(track, [t for t in range(90) if t not in range(40, 58)])
    settled = settle_readings(wrong)
    for g in (ARMS, LEGS):
        assert np.flatnonzero(settled.exchanged[:, g]).tolist() == list(range(40, 58))


def test_over_a_long_gap_either_reading_may_follow(track):
    """Nobody seen for a second: what comes after counts for itself."""
    wrong = deceive(track, range(60, 90))
    unseen = replace(wrong, confidence=np.where(np.isin(np.arange(90), range(30, 60)), 0, 1).astype(np.float32))
    assert not settle_readings(unseen).exchanged.any()
    jumping = deceive(unseen, [70, 71])
    assert np.flatnonzero(settle_readings(jumping).exchanged.all(1)).tolist() == [70, 71]


def test_the_path_is_the_cheapest_of_all():
    """Against every path of eight frames, each as it is, exchanged or left out."""
    rng = np.random.default_rng(3)
    for _ in range(20):
        ways, pull = rng.random((8, 8, 2)) * 0.2, rng.random((8, 2)) * 0.05
        exchanged, left_out, cost = readings._link(ways, pull, 0.06)

        def price(states: tuple[int, ...], ways: np.ndarray = ways, pull: np.ndarray = pull) -> float:
            kept = [t for t in range(8) if states[t] < 2]
            total = 0.06 * (8 - len(kept)) + sum(pull[t, states[t]] for t in kept)
            steps = zip(kept[:-1], kept[1:])
            return total + sum(ways[b - a - 1, b, int(states[a] != states[b])] for a, b in steps)

        cheapest = min(price(s) for s in product(range(3), repeat=8) if set(s) != {2})
        found = tuple(np.where(left_out, 2, exchanged.astype(int)).tolist())
        assert price(found) == pytest.approx(cheapest) == cost


def test_exchanged_arms_are_exchanged_back_alone(track):
    settled = settle_readings(deceive(track, range(30, 50), GROUPS[ARMS]))
    assert not settled.exchanged[:, LEGS].any()
    assert np.flatnonzero(settled.exchanged[:, ARMS]).tolist() == list(range(30, 50))


def test_frames_on_neither_reading_are_not_seen(track):
    wrong = deceive(track, range(30, 40))
    size = np.ptp(track.keypoints[29, :, :2], axis=0).max()
    wrong.keypoints[29, :, 0] += 0.3 * size
    settled = settle_readings(wrong)
    for g in (ARMS, LEGS):
        assert np.flatnonzero(settled.exchanged[:, g]).tolist() == list(range(30, 40))
    assert np.flatnonzero(settled.doubted).tolist() == list(range(29, 40))
    assert np.flatnonzero((settled.track.keypoints[..., 2] == 0).any(1)).tolist() == [29]


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


def test_of_a_real_man_what_three_other_cameras_say_is_found():
    track, camera, wrong = deceived_man()
    assert 0.2 < wrong.mean() < 0.4
    settled = settle_readings(track)
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


def test_exchange_groups_twice_is_nothing(track):
    exchanged = np.random.default_rng(0).random((len(track), 2)) < 0.5
    twice = exchange_groups(exchange_groups(track, exchanged), exchanged)
    np.testing.assert_array_equal(twice.keypoints, track.keypoints)
    np.testing.assert_allclose(twice.landmarks3d, track.landmarks3d)


def test_cut_track_keeps_frames_and_times_together(track):
    part = cut_track(track, slice(10, 20))
    assert len(part) == 10 and part.frames[0] == 10 and part.times[0] == track.times[10]


def test_the_network_recovers_a_deceived_track_as_the_clean_one(track, monkeypatch):
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
