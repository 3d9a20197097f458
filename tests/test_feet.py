"""Locked feet stand still, soles stay out of the floor, and the figure stays in the picture."""

from dataclasses import replace

import numpy as np
import pytest
from motion_maker import CAMERA, rodrigues, skin_keypoints
from test_world import BODY, film, walk_in_world

from core.contacts import CONTACT_KEYPOINTS, label_contacts
from core.feet import PlantOptions, plant_feet
from core.skeleton import JOINT_NAMES
from core.stances import find_places
from core.world import pose_body, rotation_from_up

R = rotation_from_up(np.array([0.0, -1.0, 0.0]))
T = np.array([0.0, 0.0, 1.4])
FEET = list(CONTACT_KEYPOINTS)
STANDING = np.array([0.02, 0.0, 0.02, 0.0])
"""Heels and toes of the stick body at rest, above its lowest point: 0.06 + 0.02 under the ankle, against 0.06."""
LENGTHS = np.full(2, 0.25)
DEFAULT = PlantOptions()


@pytest.fixture(scope="module")
def sliding():
    """A figure that should stand between its jerks but drifts and bobs, and the picture of it."""
    motion, track = film(*walk_in_world(120))
    wobble = np.stack([0.03 * np.sin(3 * track.times), 0.012 * np.sin(5 * track.times), 0 * track.times], 1)
    return replace(motion, trans=(motion.trans + wobble).astype(np.float32)), track


def world_feet(motion):
    """[N, 4, 3], by plain skinning."""
    return skin_keypoints(BODY._arrays, motion.rotmats, motion.trans)[1][:, FEET] @ R.T + T


def planted(motion, track, options=DEFAULT):
    feet = world_feet(motion)
    contacts = label_contacts(feet, track.times, on_floor=STANDING)
    places = find_places(feet, contacts, track.times, STANDING, LENGTHS)
    return plant_feet(motion, track, CAMERA, BODY, places, R, T, options), places.planted


def slide(motion, touching, times):
    """Mean m/s along the floor from one touching frame to the next."""
    both = touching[1:] & touching[:-1]
    return (np.linalg.norm(np.diff(world_feet(motion)[..., :2], axis=0), axis=-1) / np.diff(times)[:, None])[
        both
    ].mean()


def picture_errors(motion, track):
    """[N, 25] px."""
    points = skin_keypoints(BODY._arrays, motion.rotmats, motion.trans)[1]
    xy = points[..., :2] / points[..., 2:] * (CAMERA.fx, CAMERA.fy) + (CAMERA.cx, CAMERA.cy)
    return np.linalg.norm(xy - track.keypoints[..., :2], axis=-1)


def test_sliding_goes(sliding):
    motion, track = sliding
    fixed, touching = planted(motion, track)
    assert touching.mean() > 0.3
    assert slide(motion, touching, track.times) > 0.05
    assert slide(fixed, touching, track.times) < 0.004


def test_the_body_hardly_moves_and_comes_nearer_to_the_picture(sliding):
    motion, track = sliding
    fixed, _ = planted(motion, track)
    before, after = pose_body(motion, BODY)[0], pose_body(fixed, BODY)[0]
    assert np.linalg.norm(after - before, axis=-1).max() < 0.07
    arms = list(range(12, 24))
    np.testing.assert_array_equal(fixed.rotmats[:, arms], motion.rotmats[:, arms])
    bend = [np.linalg.norm(np.diff(j, 2, axis=0), axis=-1).mean() for j in (before, after)]
    assert bend[1] < 1.1 * bend[0]
    assert picture_errors(fixed, track).mean() < 0.7 * picture_errors(motion, track).mean()


def test_what_is_seen_elsewhere_is_not_believed(sliding):
    """The right leg's points lie where nobody is: they must not pull the figure there."""
    motion, track = sliding
    keypoints = track.keypoints.copy()
    keypoints[:, [18, 20, 22, 24], 0] += 150
    astray, _ = planted(motion, replace(track, keypoints=keypoints))
    fixed, _ = planted(motion, track)
    assert np.linalg.norm(pose_body(astray, BODY)[0] - pose_body(fixed, BODY)[0], axis=-1).max() < 0.03


def test_contacts_near_the_floor_are_moved_to_it(sliding):
    motion, track = sliding
    raised = replace(motion, trans=motion.trans + np.array([0, -0.05, 0], np.float32))
    fixed, touching = planted(raised, track)
    heights = [world_feet(m)[..., 2] - STANDING for m in (raised, fixed)]
    assert abs(np.median(heights[0][touching])) > 0.04
    assert abs(np.median(heights[1][touching])) < 0.01


def test_soles_come_out_of_the_floor_and_the_air_is_left_alone(sliding):
    """In the air for a second with the right foot 20 cm too low; nothing is planted."""
    motion, track = sliding
    part = slice(0, 30)
    motion = replace(
        motion, **{n: getattr(motion, n)[part].copy() for n in ("frames", "rotmats", "trans", "confidence")}
    )
    track = replace(track, **{n: getattr(track, n)[part] for n in ("frames", "times", "keypoints", "confidence")})
    motion.trans[:, 1] += 0.1 - 0.5 * np.sin(np.pi * track.times)
    low = [world_feet(m)[..., 2].min(1) for m in [motion]][0]
    none = find_places(world_feet(motion), np.zeros((30, 4)), track.times, STANDING)
    unseen = replace(track, keypoints=np.zeros_like(track.keypoints))
    fixed = plant_feet(motion, unseen, CAMERA, BODY, none, R, T)
    after = world_feet(fixed)[..., 2].min(1)
    assert low.min() < -0.08 and low.max() > 0.3
    assert after.min() > -0.015
    high = np.abs(track.times - 0.5) < 0.2
    assert np.linalg.norm(pose_body(fixed, BODY)[0][high] - pose_body(motion, BODY)[0][high], axis=-1).max() < 0.02


def test_one_foot_far_under_the_floor_is_lifted_by_bending_the_leg(sliding):
    motion, track = sliding
    rotmats = motion.rotmats.copy()
    frames = np.arange(len(rotmats))
    sit = 0.5 * np.exp(-0.5 * ((frames - 60) / 8) ** 2)[:, None]
    for side, bend in (("left", 1.0), ("right", 0.2)):  # kneels down, and the right leg does not bend enough
        rotmats[:, JOINT_NAMES.index(f"{side}_hip")] = rodrigues(-1.6 * bend * sit * [1, 0, 0])
        rotmats[:, JOINT_NAMES.index(f"{side}_knee")] = rodrigues(3.2 * bend * sit * [1, 0, 0])
    kneeling = replace(motion, rotmats=rotmats.astype(np.float32))
    depth = world_feet(kneeling)[..., 2]
    drop = depth[:, :2].min(1) - depth[0].min()
    kneeling = replace(kneeling, trans=(kneeling.trans + drop[:, None] * [0, 1, 0]).astype(np.float32))
    assert world_feet(kneeling)[..., 2].min() < -0.15
    unseen = replace(track, keypoints=np.zeros_like(track.keypoints))
    none = find_places(world_feet(kneeling), np.zeros((len(frames), 4)), track.times, STANDING)
    fixed = plant_feet(kneeling, unseen, CAMERA, BODY, none, R, T)
    assert world_feet(fixed)[..., 2].min() > -0.02
    bend = np.diff(fixed.rotmats[:, JOINT_NAMES.index("right_knee"), 2, 1], 2)
    assert np.abs(bend).max() < 0.06  # of the sine of the bend: the knee does not pop


def test_knees_do_not_bend_backward(sliding):
    """Feet that belong a foot's length behind nearly straight legs pull knees backward, unless that is forbidden."""
    motion, track = sliding
    feet = world_feet(motion)
    contacts = np.ones((len(feet), 4)) * (np.abs(track.times - 2.2) < 0.15)[:, None]
    places = find_places(feet, contacts, track.times, STANDING)
    forward = R @ motion.rotmats[0, 0] @ [0, 0, 1]
    places = replace(places, points=places.points + 0.25 * forward)
    least = []
    for options in (PlantOptions(knee=1e6), DEFAULT):
        fixed = plant_feet(motion, track, CAMERA, BODY, places, R, T, options)
        knees = fixed.rotmats[:, [JOINT_NAMES.index(f"{side}_knee") for side in ("left", "right")]]
        least.append(np.arctan2(knees[..., 2, 1], knees[..., 1, 1]).min())
    assert least[0] < -0.1 and least[1] > -0.03


def test_windows_do_not_show(sliding):
    motion, track = sliding
    whole, _ = planted(motion, track, PlantOptions(window_frames=200))
    pieces, _ = planted(motion, track, PlantOptions(window_frames=30))
    np.testing.assert_allclose(pieces.trans, whole.trans, atol=5e-4)


def test_one_transform_a_frame_is_as_good_as_one(sliding):
    motion, track = sliding
    places = find_places(
        world_feet(motion), np.ones((120, 4)) * (np.arange(120) % 40 < 20)[:, None], track.times, STANDING
    )
    one = plant_feet(motion, track, CAMERA, BODY, places, R, T)
    many = plant_feet(motion, track, CAMERA, BODY, places, np.repeat(R[None], 120, 0), np.repeat(T[None], 120, 0))
    np.testing.assert_array_equal(one.trans, many.trans)


def test_feet_read_too_near_and_too_far_in_turn_do_not_make_the_body_swing():
    """4 cm off along the view, the other way at every stance: legs give way, the body stays on its path."""
    motion, track = film(*walk_in_world(150))
    feet = world_feet(motion)
    contacts = np.ones((150, 4)) * (np.arange(150) % 30 < 15)[:, None]
    places = find_places(feet, contacts, track.times, STANDING)
    sign = np.where(np.arange(150) // 30 % 2, 1, -1)[:, None]
    places.points[..., 1] += 0.04 * sign * places.planted
    fixed = plant_feet(motion, track, CAMERA, BODY, places, R, T)
    error = (fixed.trans - motion.trans)[30:120]
    held = places.planted[30:120]
    assert np.abs((world_feet(fixed) - places.points)[30:120][held]).max() < 0.01
    assert error[:, 2].std() < 0.005
