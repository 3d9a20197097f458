"""Smoothing of analytic signals: what must stay stays, what must go goes."""

import numpy as np
import pytest

from core.protocol import SMOOTHING_LIMBS
from core.skeleton import JOINT_NAMES
from core.smooth import LIMBS, WIDTH, smooth_positions, smooth_rotations, strengths_by_joint

TIMES = np.arange(120) / 30
UNEVEN = np.cumsum(np.random.default_rng(3).uniform(0.01, 0.06, 120))
ALL = strengths_by_joint(0.1)


def about(axis, angles):
    """Quaternions [N, 24, 4] that turn every joint about one axis."""
    axis = np.array(axis) / np.linalg.norm(axis)
    half = np.asarray(angles)[:, None] / 2
    q = np.concatenate([np.cos(half), np.sin(half) * axis], -1)
    return np.repeat(q[:, None], 24, 1)


def angles_between(a, b):
    return 2 * np.arccos(np.clip(np.abs((a * b).sum(-1)), 0, 1))


def test_names_of_jobs_are_those_of_limbs():
    assert {name: (name,) for name in LIMBS} == {n: limbs for n, limbs in SMOOTHING_LIMBS.items() if n in LIMBS}
    both = {name: set(limbs) for name, limbs in SMOOTHING_LIMBS.items() if name not in LIMBS}
    assert both == {"arms": {"left_arm", "right_arm"}, "legs": {"left_leg", "right_leg"}}


def test_strength_zero_changes_nothing():
    q = about([1, 2, 3], np.random.default_rng(0).normal(0, 0.3, 120))
    np.testing.assert_allclose(angles_between(smooth_rotations(q, TIMES, np.zeros(24)), q), 0, atol=1e-7)
    x = np.random.default_rng(0).normal(size=(120, 3))
    np.testing.assert_array_equal(smooth_positions(x, TIMES, 0.0), x)


@pytest.mark.parametrize("times", [TIMES, UNEVEN])
def test_steady_motion_is_untouched_to_the_very_ends(times):
    q = about([0, 1, 1], 2.5 * times)  # turns past pi
    np.testing.assert_allclose(angles_between(smooth_rotations(q, times, ALL), q), 0, atol=1e-6)
    x = np.stack([3 * times, -times, 0 * times + 2], 1)
    np.testing.assert_allclose(smooth_positions(x, times, 0.2), x, atol=1e-9)


def test_noise_goes_and_more_with_strength():
    generator = np.random.default_rng(1)
    clean = 0.2 * np.sin(2 * np.pi * 0.1 * TIMES)
    noisy = about([1, 0, 0], clean + generator.normal(0, 0.01, 120))
    left = []
    for strength in (0.03, 0.1, 0.2):
        smoothed = smooth_rotations(noisy, TIMES, strengths_by_joint(strength))
        left.append(angles_between(smoothed, about([1, 0, 0], clean))[:, 3].std())
    assert left[0] > left[1] > left[2]
    assert left[2] < 0.4 * 0.01


def test_no_delay():
    clean = np.sin(2 * np.pi * 0.5 * TIMES)
    x = np.stack([clean, clean, clean], 1)
    smoothed = smooth_positions(x, TIMES, 0.1, tolerance=10.0)[:, 0]
    shifts = range(-3, 4)
    scores = [np.dot(smoothed[10:-10], clean[10 + s : len(clean) - 10 + s]) for s in shifts]
    assert list(shifts)[int(np.argmax(scores))] == 0


def test_a_hit_keeps_its_height():
    """A punch of 0.1 s in a still motion: plain smoothing of 0.15 s would halve it, adaptive smoothing must not."""
    hit = 1.0 * np.exp(-0.5 * ((TIMES - 2) / 0.05) ** 2)
    q = about([0, 0, 1], hit)
    kept = smooth_rotations(q, TIMES, strengths_by_joint(0.15))
    flattened = smooth_rotations(q, TIMES, strengths_by_joint(0.15), tolerance=100.0)
    peak = int(np.argmax(hit))

    def height(q):
        return 2 * np.arctan2(q[peak, 0, 3], q[peak, 0, 0])

    assert height(kept) > 0.9 > 0.6 > height(flattened)


def test_smoothing_depends_on_seconds_not_frames():
    def wave(t):
        return 0.05 * np.sin(2 * np.pi * 2.5 * t)

    heights = []
    for rate in (30, 120):
        t = np.arange(0, 4, 1 / rate)
        x = np.repeat(wave(t)[:, None], 3, 1)
        heights.append(np.abs(smooth_positions(x, t, 0.08, tolerance=10.0)[rate:-rate, 0]).max())
    assert heights[0] == pytest.approx(heights[1], rel=0.03)
    # what fitting parabolas with weights g over |z| <= 3 passes of cos(a z): the integral of its kernel times it
    z = np.linspace(-3, 3, 20001)
    g = np.exp(-(z**2) / 2)
    m0, m2, m4 = (np.trapezoid(g * z**k, z) for k in (0, 2, 4))
    kernel = g * (m4 - m2 * z**2) / (m0 * m4 - m2**2)
    passed = np.trapezoid(kernel * np.cos(2 * np.pi * 2.5 * 0.08 * WIDTH * z), z)
    assert heights[1] == pytest.approx(0.05 * passed, rel=0.03)


def test_even_acceleration_is_untouched_to_the_very_ends():
    x = np.stack([3 * UNEVEN**2, 1 - UNEVEN**2 / 2 + UNEVEN, 0 * UNEVEN], 1)
    np.testing.assert_allclose(smooth_positions(x, UNEVEN, 0.1, tolerance=10.0), x, atol=1e-8)


def test_agrees_with_least_squares_one_frame_at_a_time():
    """Parabolas by numpy's own solver, with the widths that hold where nothing bends sharply."""
    x = np.cumsum(np.random.default_rng(5).normal(0, 0.01, (120, 3)), 0)
    smoothed = smooth_positions(x, TIMES, 0.1, tolerance=1e3)
    for frame in (0, 3, 60, 119):
        dt = TIMES - TIMES[frame]
        near = np.abs(dt) <= 3 * 0.1 * WIDTH
        root = np.exp(-0.25 * (dt[near] / (0.1 * WIDTH)) ** 2)[:, None]
        fitted = np.linalg.lstsq(root * np.vander(dt[near], 3), root * x[near], rcond=None)[0]
        np.testing.assert_allclose(smoothed[frame], fitted[-1], atol=1e-9)


def test_strong_smoothing_beside_hits_adds_no_tremor():
    """Three hits in a calm motion: between them what wavers faster than 6 Hz must not grow with the strength."""
    generator = np.random.default_rng(4)
    hits = sum(0.8 * np.exp(-0.5 * ((TIMES - at) / 0.06) ** 2) for at in (0.8, 1.9, 3.0))
    noise = generator.normal(0, 0.004, 120)
    wavering = []
    for strength in (0.0, 0.03, 0.1, 0.2):
        q = smooth_rotations(about([1, 0, 0], hits + noise), TIMES, strengths_by_joint(strength))
        angle = 2 * np.arctan2(q[:, 0, 1], q[:, 0, 0]) - hits
        calm = hits < 1e-3
        wavering.append(np.abs(np.diff(angle, 3)[calm[1:-2]]).mean())
    assert max(wavering[1:]) < 0.6 * wavering[0]


@pytest.mark.parametrize("strength", [0.06, 0.1, 0.2])
def test_strong_smoothing_of_a_gait_adds_no_tremor(strength):
    """A hip that goes up and down and from side to side with the steps, of uneven height: nothing above 4 Hz."""
    steps = 0.04 * np.sin(4 * np.pi * TIMES) * (1 + 0.5 * np.sin(1.7 * TIMES))
    clean = np.stack([1.2 * TIMES, 0.03 * np.sin(2 * np.pi * TIMES), steps], 1)
    noise = np.random.default_rng(6).normal(0, 0.001, clean.shape)
    left = smooth_positions(clean + noise, TIMES, strength) - clean
    wavering = [np.abs(np.diff(x, 3, axis=0)).mean() for x in (noise, left)]
    assert wavering[1] < 0.15 * wavering[0]


def test_limbs_have_their_own_strength():
    noisy = about([1, 0, 0], np.random.default_rng(2).normal(0, 0.02, 120))
    strengths = strengths_by_joint(0.0, {"left_arm": 0.2})
    moved = angles_between(smooth_rotations(noisy, TIMES, strengths), noisy).max(0)
    for joint, name in enumerate(JOINT_NAMES):
        assert (moved[joint] > 1e-3) == (name in LIMBS["left_arm"])


def test_limbs_cover_every_joint_once():
    assert sorted(name for names in LIMBS.values() for name in names) == sorted(JOINT_NAMES)


@pytest.mark.parametrize("by_limb, message", [({"tail": 0.1}, "unknown limb"), ({"head": -1.0}, "seconds")])
def test_wrong_strengths_are_refused(by_limb, message):
    with pytest.raises(ValueError, match=message):
        strengths_by_joint(0.1, by_limb)


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_frames_are_left_as_they_are(count):
    q = about([1, 0, 0], np.arange(count))
    np.testing.assert_allclose(angles_between(smooth_rotations(q, TIMES[:count], ALL), q), 0, atol=1e-7)


def test_sign_of_quaternions_does_not_matter():
    q = about([1, 2, 0], np.sin(TIMES) + np.random.default_rng(0).normal(0, 0.02, 120))
    flipped = q * np.where(np.arange(120) % 2, -1, 1)[:, None, None]
    a, b = smooth_rotations(q, TIMES, ALL), smooth_rotations(flipped, TIMES, ALL)
    np.testing.assert_allclose(a, b, atol=1e-12)
    assert (a[..., 0] >= 0).all()
