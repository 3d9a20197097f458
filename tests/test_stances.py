"""Stances of feet whose places are known."""

import numpy as np
import pytest

from core.stances import find_places

TIMES = np.arange(90) / 30
STANDING = np.array([0.04, 0.03, 0.04, 0.03])


def still(height=0.0):
    """Feet [90, 4, 3] that stand 0.3 m apart, 0.2 m long along y, at a height, with their contacts."""
    points = np.zeros((90, 4, 3))
    points[:, :, 0] = [0.0, 0.0, 0.3, 0.3]
    points[:, 1::2, 1] = -0.2
    points[:, :, 2] = STANDING + height
    return points, np.ones((90, 4))


def test_places_are_in_the_middle_and_on_the_floor():
    points, contacts = still(0.05)
    points[:, 0, 0] += np.linspace(-0.1, 0.1, 90)
    contacts[:, 3] = 0
    places = find_places(points, contacts, TIMES, STANDING)
    np.testing.assert_allclose(places.points[:, 0], np.repeat([[0, 0, 0.04]], 90, 0), atol=1e-12)
    assert places.planted[:, :3].all() and not places.planted[:, 3].any()
    np.testing.assert_array_equal(places.points[:, 3], points[:, 3])


def test_a_contact_that_drifts_far_is_not_believed_and_twice_as_far_along_the_view():
    for axis, way, is_believed in ((0, 0.6, False), (0, 0.25, True), (1, 0.5, True), (1, 0.7, False)):
        points, contacts = still()
        points[:, :2, axis] += np.linspace(0, way, 90)[:, None]
        planted = find_places(points, contacts, TIMES, STANDING).planted
        assert planted[:, :2].all() == is_believed and planted[:, 2:].all(), (axis, way)


@pytest.mark.parametrize("gap, way, frames", [((30, 34), 0.02, 90), ((30, 34), 0.2, 86), ((30, 50), 0.02, 70)])
def test_a_moment_in_the_air_that_leads_nowhere_is_none(gap, way, frames):
    points, contacts = still()
    contacts[slice(*gap), 0] = 0
    points[gap[1] :, 0, 0] += way
    places = find_places(points, contacts, TIMES, STANDING)
    assert places.planted[:, 0].sum() == frames
    jump = np.abs(places.points[0, 0, 0] - places.points[-1, 0, 0])
    assert jump == pytest.approx(0 if frames == 90 else way, abs=1e-9)


def slid():
    """The left foot is read to slide by 0.4 m along the view within 5 frames, the toe alone too fast to touch."""
    points, contacts = still()
    points[:, :2, 1] += np.interp(np.arange(90), [40, 45], [0, 0.4])[:, None]
    contacts[41:44, 1] = 0
    return points, contacts


def test_an_end_that_stays_where_its_foot_is_keeps_its_place_as_the_other_end_does():
    places = find_places(*slid(), TIMES, STANDING, np.array([0.2, 0.2]))
    assert places.planted.all()
    assert (places.points[:, :2] == places.points[0, :2]).all()


@pytest.mark.parametrize("what", ["turned", "tilted", "both ends", "long"])
def test_an_end_that_leaves_its_foot_or_has_none_to_stay_by_has_two_places(what):
    points, contacts = slid()
    if what == "turned":  # a quarter turn on the heel
        points[41:, 1, :2] = points[41:, 0, :2] + [0.2, 0]
    elif what == "tilted":
        points[41:44, 1, 2] += 0.08
    elif what == "both ends":
        contacts[41:44, 0] = 0
    else:
        contacts[41:50, 1] = 0
    places = find_places(points, contacts, TIMES, STANDING)
    assert not places.planted[42, 1] and np.abs(places.points[0, 1] - places.points[-1, 1]).max() > 0.15


def test_a_lifted_foot_is_lifted_however_short():
    points, contacts = still()
    contacts[30:34, 0] = 0
    points[30:34, 0, 2] += 0.15
    assert not find_places(points, contacts, TIMES, STANDING).planted[30:34, 0].any()


def test_a_roof_is_one_level_and_the_floor_after_it_another():
    points, contacts = still()
    points[:50, :, 2] += 1.8
    points[:10, :2, 2] += 0.05  # stances there differ a little: the longest-standing height holds
    points[50:, :, 2] += 0.1
    contacts[10] = contacts[49:51] = 0
    levels = find_places(points, contacts, TIMES, STANDING).levels
    assert set(levels[contacts > 0.5]) == {0.0, levels[20, 0]} and levels[20, 0] == pytest.approx(1.8, abs=1e-9)
    assert (levels[51:] == 0).all() and (levels[11:49] == levels[20, 0]).all() and levels[5, 0] == levels[20, 0]


@pytest.mark.parametrize("frames, level", [(6, 0.0), (60, -0.4)])
def test_below_the_floor_stands_only_who_does_so_for_long(frames, level):
    points, contacts = still()
    points[20 : 20 + frames, :2, 2] -= 0.4
    contacts[[19, 20 + frames], :2] = 0
    levels = find_places(points, contacts, TIMES, STANDING).levels
    assert levels[22, 0] == pytest.approx(level)
    assert (levels[:, 2:] == 0).all()


def test_heel_and_toe_of_a_flat_foot_are_as_far_apart_as_the_foot_is_long():
    points, contacts = still()
    points[:, 1, 1] += 0.03  # a foot 0.17 m long
    places = find_places(points, contacts, TIMES, STANDING, np.array([0.21, 0.21]))
    np.testing.assert_allclose(places.points[5, 1], points[5, 1], atol=1e-12)  # the toe stays
    np.testing.assert_allclose(places.points[5, 0], [0, -0.17 + 0.21, 0.04], atol=1e-12)
    np.testing.assert_allclose(places.along[5], [[0, -1], [0, -1]], atol=1e-12)


def test_along_is_of_feet_planted_with_both_ends():
    points, contacts = still()
    contacts[40:, 0] = 0
    along = find_places(points, contacts, TIMES, STANDING).along
    assert (np.linalg.norm(along[:40, 0], axis=-1) == 1).all() and not along[40:, 0].any()
