"""Contacts of feet that move as feet do."""

import numpy as np
import pytest

from core.contacts import ContactOptions, label_contacts, point_speeds


def walk(rate=30.0, seconds=4.0, noise=0.0):
    """Heels and toes of a walk in 1 s cycles, each foot planted for 60 %: points [N, 4, 3], planted [N, 2], times."""
    times = np.arange(0, seconds, 1 / rate)
    points, planted = np.zeros((len(times), 4, 3)), np.zeros((len(times), 2), bool)
    for foot in range(2):
        phase = (times + 0.5 * foot) % 1.0
        step = np.floor(times + 0.5 * foot)
        swing = np.clip((phase - 0.6) / 0.4, 0, 1)
        x = 1.2 * (step + (1 - np.cos(np.pi * swing)) / 2)
        height = 0.25 * np.sin(np.pi * swing)
        planted[:, foot] = phase < 0.6
        for part, offset in enumerate((0.0, 0.2)):
            points[:, 2 * foot + part] = np.stack([x + offset, 0 * x, height + 0.02], 1)
    return points + np.random.default_rng(0).normal(0, noise, points.shape), planted, times


@pytest.mark.parametrize("rate, noise", [(30.0, 0.0), (30.0, 0.002), (60.0, 0.0), (120.0, 0.0)])
def test_a_walk(rate, noise):
    points, planted, times = walk(rate, noise=noise)
    labels = label_contacts(points, times) > 0.5
    for column in range(4):
        truth = planted[:, column // 2]
        assert (labels[:, column] == truth).mean() > 0.85
        assert np.abs(np.diff(labels[:, column].astype(int))).sum() <= np.abs(np.diff(truth.astype(int))).sum() + 1


def test_standing_on_a_roof_is_standing():
    points = np.zeros((30, 4, 3)) + [0, 0, 2.5]
    assert (label_contacts(points, np.arange(30) / 30) > 0.9).all()


def test_a_raised_still_foot_does_not_touch():
    points = np.zeros((30, 4, 3))
    points[:, 2:, 2] = 0.4
    labels = label_contacts(points, np.arange(30) / 30) > 0.5
    assert labels[:, :2].all() and not labels[:, 2:].any()


def test_nothing_touches_in_flight():
    times = np.arange(0, 0.8, 1 / 30)
    points = np.zeros((len(times), 4, 3)) + [[0, 0, 0], [0.2, 0, 0], [0, 0.3, 0], [0.2, 0.3, 0]]
    points[..., 2] += (3.9 * times - 4.9 * times**2)[:, None]  # a jump of 0.78 m
    labels = label_contacts(points, times) > 0.5
    assert not labels[3:-3].any()


def test_probabilities_agree_with_the_labels_and_one_flicker_is_closed():
    points, _, times = walk()
    points[5, 0, 0] += 0.03  # one wrong frame in the stance
    probability = label_contacts(points, times)
    assert probability.dtype == np.float32 and probability.shape == (len(times), 4)
    assert ((probability > 0.5) | (probability < 0.5)).all()
    assert (probability[1:15, 0] > 0.5).all()


def test_a_single_frame_and_none():
    assert (label_contacts(np.zeros((1, 4, 3)), np.zeros(1)) > 0.5).all()
    assert label_contacts(np.zeros((0, 4, 3)), np.zeros(0)).shape == (0, 4)


def test_speeds_of_uneven_times():
    times = np.array([0.0, 0.1, 0.3, 0.35, 0.6])
    points = np.zeros((5, 2, 3))
    points[:, 1, 1] = -2.0 * times
    np.testing.assert_allclose(point_speeds(points, times), np.array([0.0, 2.0]) * np.ones((5, 2)), atol=1e-12)


def test_options_change_the_verdict():
    points = np.zeros((30, 4, 3))
    points[..., 0] = (0.6 * np.arange(30) / 30)[:, None]
    times = np.arange(30) / 30
    assert not (label_contacts(points, times) > 0.5).any()
    assert (label_contacts(points, times, ContactOptions(speed=1.0)) > 0.5).all()


STANDING = np.array([0.04, 0.03, 0.04, 0.03])


def feet_at(heights):
    """[30, 4, 3] still, at heights [4] above how they stand."""
    points = np.zeros((30, 4, 3)) + [[0, 0, 0], [0.2, 0, 0], [0, 0.3, 0], [0.2, 0.3, 0]]
    points[..., 2] += STANDING + heights
    return points


def test_a_foot_on_the_known_floor_touches_whatever_the_other_does():
    points = feet_at([-0.3, -0.3, 0.0, 0.0])  # the left foot is seen under the floor
    times = np.arange(30) / 30
    assert not (label_contacts(points, times)[:, 2:] > 0.5).any()
    assert (label_contacts(points, times, on_floor=STANDING)[:, 2:] > 0.5).all()


@pytest.mark.parametrize("heights, touching", [((0.07, 0.0), [0, 1]), ((0.0, 0.07), [1, 0]), ((0.02, 0.0), [1, 1])])
def test_a_foot_on_its_toes_touches_with_them_alone(heights, touching):
    points = feet_at([*heights, 0.0, 0.0])
    labels = label_contacts(points, np.arange(30) / 30, on_floor=STANDING) > 0.5
    assert (labels == [*touching, 1, 1]).all()


def test_depth_that_swims_is_no_step():
    points = np.zeros((30, 4, 3))
    points[:, :2, 1] = (0.6 * np.arange(30) / 30)[:, None]  # away from the camera
    points[:, 2:, 0] = (0.6 * np.arange(30) / 30)[:, None]  # across the picture
    labels = label_contacts(points, np.arange(30) / 30) > 0.5
    assert labels[:, :2].all() and not labels[:, 2:].any()
