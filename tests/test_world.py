"""The world of figures seen by cameras whose pose is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from motion_maker import CAMERA, make_track, rodrigues, skin_keypoints
from stick_body import build_stick_body

from core.records import CameraMotion
from core.skeleton import JOINT_NAMES
from core.world import place, place_in_world, rotation_from_up, smooth_camera_motion, to_motion


class StickBody:
    """What world placement asks of core.body.Body, by plain skinning."""

    def __init__(self):
        self._arrays = build_stick_body()

    def __getattr__(self, name):
        return getattr(self.__dict__["_arrays"], name)

    def rest_vertices(self, betas):
        return self._arrays.v_template

    def rest_joints(self, betas):
        return self._arrays.joint_template

    def forward_kinematics(self, rotmats, betas, trans):
        return torch.from_numpy(skin_keypoints(self._arrays, rotmats.numpy(), trans.numpy())[0]), None

    def keypoints(self, rotmats, betas, trans):
        return torch.from_numpy(skin_keypoints(self._arrays, rotmats.numpy(), trans.numpy())[1])


BODY = StickBody()


def walk_in_world(count=90, *, height=0.0, heading=0.4, speed=1.0, origin=(0.0, 5.0)):
    """Local rotations [N, 24, 3, 3] and pelvis [N, 3] of an upright figure that goes on by a jerk and stands, once a
    second; world z up."""
    t = np.arange(count) / 30
    vectors = np.zeros((count, 24, 3))
    gone = np.floor(t) + (1 - np.cos(np.pi * np.clip((t % 1 - 0.5) * 2, 0, 1))) / 2
    bend = 0.3 * np.sin(2 * np.pi * gone) ** 2
    for side in ("left", "right"):
        vectors[:, JOINT_NAMES.index(f"{side}_hip"), 0] = -bend
        vectors[:, JOINT_NAMES.index(f"{side}_knee"), 0] = 2 * bend
    rotmats = rodrigues(vectors)
    up_from_y = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # body y up -> world z up, facing -y
    c, s = np.cos(heading), np.sin(heading)
    rotmats[:, 0] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ up_from_y
    forward = rotmats[0, 0] @ [0, 0, 1]
    pelvis = np.array([*origin, 0.0]) + forward * speed * gone[:, None]
    points = skin_keypoints(BODY._arrays, rotmats, pelvis)[1]
    pelvis[:, 2] += height - points[:, 21:25, 2].min(1)
    return rotmats, pelvis


def film(rotmats, pelvis, *, pitch=0.0, roll=0.0, camera_height=1.4):
    """What a camera above the world's origin looking along +y, pitched down and rolled, makes of it."""
    level = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # world -> level camera: x right, y down, z forward
    tilt = rodrigues(np.array([-pitch, 0.0, 0.0])) @ rodrigues(np.array([0.0, 0.0, roll]))
    R_cam_from_world = tilt @ level
    local = rotmats.copy()
    local[:, 0] = R_cam_from_world @ rotmats[:, 0]
    trans = (pelvis - [0, 0, camera_height]) @ R_cam_from_world.T
    N = len(pelvis)
    motion = CameraMotion(
        person=0,
        frames=np.arange(N, dtype=np.int32),
        rotmats=local.astype(np.float32),
        trans=trans.astype(np.float32),
        betas=np.zeros(16, np.float32),
        confidence=np.ones(N, np.float32),
    )
    from motion_maker import Truth

    joints, points = skin_keypoints(BODY._arrays, local, trans)
    return motion, make_track(Truth(local, trans, joints, points))


def test_rotation_from_up_of_a_level_camera():
    np.testing.assert_allclose(
        rotation_from_up(np.array([0.0, -1, 0])), [[1, 0, 0], [0, 0, 1], [0, -1, 0]], atol=1e-12
    )


def test_rotation_from_up_keeps_the_view_along_y():
    up = np.array([0.1, -0.9, 0.3])
    R = rotation_from_up(up)
    np.testing.assert_allclose(R @ R.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(R) == pytest.approx(1)
    np.testing.assert_allclose(R @ (up / np.linalg.norm(up)), [0, 0, 1], atol=1e-12)
    forward = R @ [0, 0, 1]
    assert forward[0] == pytest.approx(0, abs=1e-12) and forward[1] > 0.9


@pytest.mark.parametrize("pitch, roll", [(0.0, 0.0), (0.2, 0.0), (0.1, -0.08)])
def test_tilt_and_floor_are_found(pitch, roll):
    motion, track = film(*walk_in_world(), pitch=pitch, roll=roll)
    R, t = place_in_world([motion], [track], CAMERA, BODY)
    true_up = rodrigues(np.array([-pitch, 0.0, 0.0])) @ rodrigues(np.array([0.0, 0.0, roll])) @ [0, -1, 0]
    assert np.degrees(np.arccos(np.clip(R[2] @ true_up, -1, 1))) < 3.5
    assert t[2] == pytest.approx(1.4, abs=0.15)
    assert t[0] == t[1] == 0


def test_walking_away_shows_the_slope_of_the_view():
    """With depth to compare, the floor outweighs the posture."""
    rotmats, pelvis = walk_in_world(150, heading=np.pi, speed=1.2, origin=(0.0, 3.0))
    motion, track = film(rotmats, pelvis, pitch=0.25)
    # the detector made the figure lean by 15 degrees, as if the camera were level, but its feet's path is right
    pelvis_cam = motion.trans.copy()
    lean = rodrigues(np.array([0.25, 0.0, 0.0]))
    leaning = motion.rotmats.copy()
    leaning[:, 0] = lean @ motion.rotmats[:, 0]
    feet = [skin_keypoints(BODY._arrays, r, pelvis_cam)[1][:, 21:25].mean(1) for r in (motion.rotmats, leaning)]
    motion = replace(motion, rotmats=leaning, trans=(pelvis_cam + feet[0] - feet[1]).astype(np.float32))
    R, _ = place_in_world([motion], [track], CAMERA, BODY)
    assert abs(np.arcsin(R[2, 2]) - 0.25) < 0.04


def test_feet_stand_on_the_floor_of_the_lower_person():
    low = film(*walk_in_world(origin=(-1.0, 6.0)))
    high = film(*walk_in_world(height=2.0, origin=(1.0, 6.0), speed=0.3))
    motions = place([replace(low[0], person=0), replace(high[0], person=1)], [low[1], high[1]], CAMERA, BODY)
    lowest = []
    for motion in motions:
        points = (
            np.einsum("nab,nkb->nka", motion.R_world_from_cam, motion.joints_cam) + motion.t_world_from_cam[:, None]
        )
        lowest.append(np.median(points[..., 2].min(1)))
    assert lowest[0] == pytest.approx(0.02, abs=0.05)  # the toe joint is 2 cm above the sole
    assert lowest[1] == pytest.approx(2.02, abs=0.1)
    assert all((m.contacts > 0.5).any() for m in motions)


def test_to_motion_moves_joints_rigidly():
    motion, track = film(*walk_in_world(20), pitch=0.15, roll=0.1)
    R, t = rotation_from_up(np.array([0.2, -0.9, 0.1])), np.array([0.3, -0.2, 1.1])
    record = to_motion(motion, track, CAMERA, BODY, R, t)
    rotmats = rodrigues(record.poses.reshape(-1, 24, 3).astype(float))
    joints, _ = skin_keypoints(BODY._arrays, rotmats, record.trans.astype(float))
    np.testing.assert_allclose(joints, record.joints_cam @ R.T + t, atol=1e-5)
    assert record.poses.dtype == record.trans.dtype == np.float32
    assert record.R_world_from_cam.shape == (20, 3, 3) and record.t_world_from_cam.shape == (20, 3)
    np.testing.assert_array_equal(record.times, track.times)


def test_to_motion_takes_one_transform_a_frame():
    motion, track = film(*walk_in_world(4))
    R = rodrigues(np.random.default_rng(0).normal(size=(4, 3)))
    t = np.random.default_rng(1).normal(size=(4, 3))
    record = to_motion(motion, track, CAMERA, BODY, R, t)
    rotmats = rodrigues(record.poses.reshape(-1, 24, 3).astype(float))
    joints, _ = skin_keypoints(BODY._arrays, rotmats, record.trans.astype(float))
    np.testing.assert_allclose(joints, np.einsum("nab,nkb->nka", R, record.joints_cam) + t[:, None], atol=1e-5)


def test_smoothing_takes_jitter_off_and_zero_leaves_the_motion():
    motion, track = film(*walk_in_world(60))
    assert smooth_camera_motion(motion, track.times, 0.0) is motion
    noisy = replace(
        motion, trans=motion.trans + np.random.default_rng(0).normal(0, 0.003, motion.trans.shape).astype(np.float32)
    )
    smoothed = smooth_camera_motion(noisy, track.times, 0.1)
    jitter = [np.abs(np.diff(m.trans, 2, axis=0)).mean() for m in (noisy, smoothed)]
    assert jitter[1] < 0.5 * jitter[0]
    assert np.abs(smoothed.trans - motion.trans).mean() < 0.006


@pytest.mark.parametrize("limb", ["left_arm", "right_leg", "torso"])
def test_a_limb_given_no_smoothing_keeps_its_rotations_and_the_others_do_not(limb):
    joints = {
        "left_arm": ["left_collar", "left_shoulder", "left_elbow", "left_wrist", "left_hand"],
        "right_leg": ["right_hip", "right_knee", "right_ankle", "right_foot"],
        "torso": ["spine1", "spine2", "spine3"],
    }[limb]
    motion, track = film(*walk_in_world(60))
    tremor = rodrigues(np.random.default_rng(0).normal(0, 0.01, (60, 24, 3)))
    shaky = replace(motion, rotmats=(motion.rotmats @ tremor).astype(np.float32))
    raw, placed = (
        place([shaky], [track], CAMERA, BODY, smoothing_s=s, by_limb={limb: 0.0}, lock_feet=False)[0].poses
        for s in (0.0, 0.1)
    )
    moved = np.abs(placed - raw).reshape(60, 24, 3).max((0, 2))
    for j, name in enumerate(JOINT_NAMES[1:], 1):  # the root's are in a world that all frames make
        assert moved[j] == 0 if name in joints else moved[j] > 1e-3, name


def test_smoothing_of_the_root_is_that_of_the_path():
    motion, track = film(*walk_in_world(60))
    noise = np.random.default_rng(0).normal(0, 0.003, motion.trans.shape)
    shaky = replace(motion, trans=(motion.trans + noise).astype(np.float32))
    kept = smooth_camera_motion(shaky, track.times, 0.1, {"root": 0.0})
    np.testing.assert_array_equal(kept.trans, shaky.trans)
    np.testing.assert_array_equal(kept.rotmats[:, 0], shaky.rotmats[:, 0])
    only = smooth_camera_motion(shaky, track.times, 0.0, {"root": 0.1})
    assert np.abs(np.diff(only.trans, 2, axis=0)).mean() < 0.5 * np.abs(np.diff(shaky.trans, 2, axis=0)).mean()
    np.testing.assert_array_equal(only.rotmats[:, 1:], shaky.rotmats[:, 1:])


def test_without_people_the_camera_is_level():
    R, t = place_in_world([], [], CAMERA, BODY)
    np.testing.assert_allclose(R[2], [0, -1, 0])
    assert t[2] == 1.5


def test_who_never_touches_the_floor_still_gets_one():
    rotmats, pelvis = walk_in_world(20)
    motion, track = film(rotmats, pelvis + np.linspace(0, 20, 20)[:, None])
    track.keypoints[..., 2] = 0
    R, t = place_in_world([motion], [track], CAMERA, BODY)
    points = BODY.keypoints(torch.from_numpy(motion.rotmats), None, torch.from_numpy(motion.trans)).numpy()
    assert (points[:, 21:25] @ R.T + t)[..., 2].min() == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("lock_feet", [True, False])
def test_feet_are_held_where_contacts_say_so_only_if_asked(lock_feet):
    motion, track = film(*walk_in_world(120))
    drift = 0.03 * np.sin(3 * track.times)[:, None] * [1, 0, 0]
    drifting = replace(motion, trans=(motion.trans + drift).astype(np.float32))
    [placed] = place([drifting], [track], CAMERA, BODY, lock_feet=lock_feet)
    rotmats = rodrigues(placed.poses.reshape(-1, 24, 3).astype(float))
    feet = skin_keypoints(BODY._arrays, rotmats, placed.trans.astype(float))[1][:, [21, 23, 22, 24]]
    touching = placed.contacts > 0.5
    both = touching[1:] & touching[:-1]
    speed = (np.linalg.norm(np.diff(feet[..., :2], axis=0), axis=-1) * 30)[both]
    assert both.mean() > 0.3
    assert speed.mean() < 0.005 if lock_feet else speed.mean() > 0.04


def test_contacts_are_of_what_is_held():
    """A shudder of a standing figure, 4.5 cm for two frames, is too fast to touch: the feet are held through it."""
    motion, track = film(*walk_in_world(90))
    shudder = np.zeros((90, 3))
    shudder[[37, 38], 0] = 0.045
    shaken = replace(motion, trans=(motion.trans + shudder).astype(np.float32))
    free, held = (place([shaken], [track], CAMERA, BODY, lock_feet=lock)[0].contacts for lock in (False, True))
    assert (free[30:35] > 0.5).all() and (free[36:40] < 0.5).all() and (free[41:44] > 0.5).all()
    assert (held[30:44] > 0.5).all()
