"""Planted feet stop sliding, and nothing else moves much."""

from dataclasses import replace

import numpy as np
import pytest
from test_world import BODY, film, walk_in_world

from core.contacts import CONTACT_KEYPOINTS, label_contacts, point_speeds
from core.feet import PlantOptions, find_places, plant_feet, sole_heights
from core.world import pose_body, rotation_from_up

R = rotation_from_up(np.array([0.0, -1.0, 0.0]))
T = np.array([0.0, 0.0, 1.4])
FEET = list(CONTACT_KEYPOINTS)
DEFAULT = PlantOptions()


@pytest.fixture(scope="module")
def sliding():
    """A figure that should stand between its jerks but drifts and bobs."""
    motion, track = film(*walk_in_world(120))
    wobble = np.stack([0.03 * np.sin(3 * track.times), 0.012 * np.sin(5 * track.times), 0 * track.times], 1)
    return replace(motion, trans=(motion.trans + wobble).astype(np.float32)), track.times


def planted(motion, times, options=DEFAULT):
    feet = pose_body(motion, BODY)[1][:, FEET] @ R.T + T
    contacts = label_contacts(feet, times)
    places = find_places(feet, contacts, times, sole_heights(BODY, motion.betas), R, T, options)
    return plant_feet(motion, times, BODY, places, options), contacts > 0.5


def speeds(motion, times):
    return point_speeds(pose_body(motion, BODY)[1][:, FEET], times)


def test_sole_heights_of_the_stick_body():
    # heels lie level with the toes, which are the lowest points: 0.06 + 0.02 under the ankle, against 0.06
    np.testing.assert_allclose(sole_heights(BODY, np.zeros(10)), [0.02, 0.0, 0.02, 0.0], atol=1e-9)


def test_sliding_goes(sliding):
    motion, times = sliding
    fixed, touching = planted(motion, times)
    assert touching.mean() > 0.3
    inner = touching & np.roll(touching, 2, 0) & np.roll(touching, -2, 0)  # ramps take hold at the ends
    assert speeds(motion, times)[inner].mean() > 0.05
    assert speeds(fixed, times)[inner].mean() < 0.3 * speeds(motion, times)[inner].mean()


def test_the_rest_of_the_body_hardly_moves(sliding):
    motion, times = sliding
    fixed, _ = planted(motion, times)
    before, after = pose_body(motion, BODY)[0], pose_body(fixed, BODY)[0]
    assert np.linalg.norm(after - before, axis=-1).max() < 0.07
    arms = list(range(12, 24))
    np.testing.assert_array_equal(fixed.rotmats[:, arms], motion.rotmats[:, arms])
    bend = [np.linalg.norm(np.diff(j, 2, axis=0), axis=-1).mean() for j in (before, after)]
    assert bend[1] < 1.1 * bend[0]


def test_contacts_near_the_floor_are_moved_to_it(sliding):
    motion, times = sliding
    raised = replace(motion, trans=motion.trans + np.array([0, -0.05, 0], np.float32))
    fixed, touching = planted(raised, times)
    heights = [(pose_body(m, BODY)[1][:, FEET] @ R.T + T)[..., 2] - [0.02, 0, 0.02, 0] for m in (raised, fixed)]
    assert abs(np.median(heights[0][touching])) > 0.04
    assert abs(np.median(heights[1][touching])) < 0.03


def test_windows_do_not_show(sliding):
    motion, times = sliding
    whole, _ = planted(motion, times, PlantOptions(window_frames=200))
    pieces, _ = planted(motion, times, PlantOptions(window_frames=30))
    np.testing.assert_allclose(pieces.trans, whole.trans, atol=5e-4)


def test_without_contacts_nothing_happens(sliding):
    motion, times = sliding
    feet = pose_body(motion, BODY)[1][:, FEET]
    none = find_places(feet, np.zeros((len(times), 4)), times, np.zeros(4), R, T)
    assert plant_feet(motion, times, BODY, none) is motion


def test_a_contact_that_drifts_far_is_not_believed():
    times = np.arange(60) / 30
    feet = np.zeros((60, 4, 3))
    feet[:, :2, 0] = np.linspace(0, 0.6, 60)[:, None]
    places = find_places(feet, np.ones((60, 4)), times, np.zeros(4), R, T)
    assert not places.weights[:, :2].any() and (places.weights[:, 2:] == 1).all()
