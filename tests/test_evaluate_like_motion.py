"""Jitter beside that of captured motion: figures that spin evenly, whose speed and acceleration are known in closed
form, and a bank made of them.

A point at distance r from the axis of a turn of w rad/s is 2 r sin(w T / 2) from where it was T seconds before, and
its second difference over steps of h seconds is 4 r sin^2(w h / 2) long.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from core.__main__ import main
from core.body import load_body
from core.errors import InputError
from core.evaluate.films import measure_tracks
from core.evaluate.like_motion import CapturedMotion, Windows, compare, cut_windows, resample
from core.records import CameraMotion
from core.skeleton import KEYPOINT_NAMES
from core.synth.motion import MotionBank, write_bank
from core.world import place
from tests.evaluate_clips import LIMBS, make_clip
from tests.motion_maker import CAMERA, rodrigues

BETAS = np.array([0.8, -0.5, *[0.0] * 14], np.float32)


@pytest.fixture(scope="module")
def body():
    return load_body()


@pytest.fixture(scope="module")
def radius(body) -> float:
    """Mean distance, m, of the limb keypoints from the upright axis through the middle of the hips, standing."""
    vertices = body.v_template.double() + body.shapedirs.double() @ torch.from_numpy(BETAS).double()
    points = (body.keypoint_regressor.double() @ vertices).numpy()
    middle = (points[KEYPOINT_NAMES.index("left_hip")] + points[KEYPOINT_NAMES.index("right_hip")]) / 2
    return float(np.mean([np.hypot(*(points[KEYPOINT_NAMES.index(n)] - middle)[[0, 2]]) for n in LIMBS]))


def spin_speed(radius: float, w: float, lag: float) -> float:
    return 2 * radius * np.sin(w * lag / 2) / lag * 1000


def spin_jitter(radius: float, w: float, rate: float) -> float:
    return 4 * radius * np.sin(w / rate / 2) ** 2 * 1000


def make_bank(rates_of_turn: list[float], *, frames: int = 61, subjects: list[str] | None = None) -> MotionBank:
    """A clip of somebody who stands and spins, 30 frames a second, for each w."""
    n, t = len(rates_of_turn), np.arange(frames) / 30
    quats = np.zeros((n, frames, 24, 4), np.float32)
    quats[..., 0] = 1
    half = np.array(rates_of_turn)[:, None] * t / 2
    quats[:, :, 0] = np.stack([np.cos(half), 0 * half, np.sin(half), 0 * half], -1)
    start, names = np.arange(n) * frames, tuple(f"clip{i}" for i in range(n))
    return MotionBank(
        quats=quats.reshape(-1, 24, 4),
        pelvis=np.zeros((n * frames, 3), np.float32),
        clip_start=start.astype(np.int64),
        clip_len=np.full(n, frames, np.int64),
        name=names,
        subject=tuple(subjects or ["cmu_01"] * n),
        description=names,
        split=("test", "train", "validation") * (n // 3) + ("train",) * (n % 3),
        leg_length=0.8,
    )


def make_film(body, w: float, rate: float, *, seconds: float = 3.0, shake: float = 0.0):
    """Track and motion of somebody who spins before a level camera; shake: rad of each frame's error of the turn."""
    n = round(seconds * rate)
    clip = make_clip(body, n=n)
    track = replace(clip.track, times=np.arange(n) / rate)
    angle = w * track.times + shake * np.random.default_rng(0).normal(size=n)
    rotmats = np.tile(np.eye(3), (n, 24, 1, 1))
    rotmats[:, 0] = np.diag([1.0, -1.0, -1.0]) @ rodrigues(np.stack([0 * angle, angle, 0 * angle], -1))
    trans = np.tile(np.array([0.0, 0.0, 4.0], np.float32), (n, 1))
    return track, CameraMotion(0, track.frames, rotmats.astype(np.float32), trans, BETAS, np.ones(n, np.float32))


def measure(captured: CapturedMotion, body, track, motion, *, smoothing_s: float = 0.0) -> dict[str, float]:
    (delivered,) = place([motion], [track], CAMERA, body, smoothing_s=smoothing_s, lock_feet=False)
    return captured.measure(motion, delivered, track)


def test_a_wave_has_the_acceleration_and_speed_that_the_formula_says():
    """A sin(w t + p): second differences are 4 A sin^2(w h / 2) |sin(w t + p)| long, steps over T seconds
    2 A sin(w T / 2) |cos(w t + p)| with t in their middle."""
    w, t = 13.0, np.arange(121) / 30
    points = np.zeros((121, 2, 3))
    points[:, 0, 1] = points[:, 1, 2] = 0.1 * np.sin(w * t + 0.3)
    found = cut_windows(points, 30.0)
    starts = [0, 13, 26, 39, 52, 65, 78, 91]  # of 30 frames, 15 apart at most: six steps would be over 15
    bends = [np.abs(np.sin(w * t[s + 1 : s + 29] + 0.3)).mean() for s in starts]
    steps = [np.abs(np.cos(w * (t[s : s + 27] + 0.05) + 0.3)).mean() for s in starts]
    np.testing.assert_allclose(found.jitter, 4 * 100 * np.sin(w / 60) ** 2 * np.array(bends), rtol=1e-9)
    np.testing.assert_allclose(found.speed, 2 * 100 * np.sin(w * 0.05) / 0.1 * np.array(steps), rtol=1e-9)
    assert len(cut_windows(points[:29], 30.0)) == 0 and len(cut_windows(points[:30], 30.0)) == 1


@pytest.mark.parametrize("rate", [24.0, 25.0, 20.0])
def test_reading_between_samples_adds_no_acceleration(rate):
    t, at = np.arange(200) / 30, np.arange(0.1, 6.4, 1 / rate)
    wave = np.stack([np.sin(2 * np.pi * 3 * t), t**2, 1 + t**5 / 1000], -1)
    exact = np.stack([np.sin(2 * np.pi * 3 * at), at**2, 1 + at**5 / 1000], -1)
    found = resample(wave, t, at)
    np.testing.assert_allclose(found[:, 0], exact[:, 0], atol=1e-3)
    np.testing.assert_allclose(found[:, 1:], exact[:, 1:], atol=1e-9)  # polynomials of the degree: exactly
    line = np.interp(at, t, wave[:, 0])
    size = np.abs(np.diff(exact[:, 0], 2)).mean()
    assert np.abs(np.diff(found[:, 0] - exact[:, 0], 2)).mean() < 0.004 * size
    assert np.abs(np.diff(line - exact[:, 0], 2)).mean() > 0.05 * size
    with pytest.raises(ValueError, match="5 samples"):
        resample(wave[:5], t[:5], at)


def test_uneven_times_are_read_at_their_own_places():
    t = np.cumsum(np.random.default_rng(0).uniform(0.01, 0.04, 80))
    at = np.linspace(t[3], t[-4], 50)
    np.testing.assert_allclose(resample(np.cos(4 * t)[:, None], t, at)[:, 0], np.cos(4 * at), atol=1e-4)


@pytest.mark.parametrize("rate", [24.0, 30.0, 30000 / 1001, 50.0, 60.0])
def test_a_spin_has_the_jitter_of_the_same_spin_in_the_bank(body, radius, rate):
    """At whichever rate it was filmed: that of the bank, or the film's where that is lower."""
    captured = CapturedMotion(make_bank([2.0] * 12), body)
    values = measure(captured, body, *make_film(body, 2.0, rate))
    common = min(30.0, rate)
    lag = round(0.1 * common) / common
    expected = spin_jitter(radius, 2.0, common)
    assert values["like_pct"] == 100
    assert values["speed"] == pytest.approx(spin_speed(radius, 2.0, lag), rel=2e-3)
    for column in ("jitter_recovered", "jitter_delivered", "jitter_mocap", "jitter_mocap_90"):
        assert values[column] == pytest.approx(expected, rel=5e-3), column


def test_windows_are_matched_by_their_speed(body, radius):
    """Half the film at 1.5 rad/s, half at 4: the means of what captured spins of those have; others are not asked."""
    bank = make_bank([1.5] * 12 + [4.0] * 12 + [2.4] * 30 + [0.5] * 30)
    track, slow = make_film(body, 1.5, 30.0, seconds=8.0)
    _, fast = make_film(body, 4.0, 30.0, seconds=8.0)
    half = len(track) // 2
    turned = np.concatenate([slow.rotmats[:half], fast.rotmats[half:]])
    confidence = np.where(np.abs(np.arange(len(track)) - half) < 3, 0, 1).astype(np.float32)  # not seen as it changes
    track = replace(track, confidence=confidence)
    values = measure(CapturedMotion(bank, body), body, track, replace(slow, rotmats=turned))
    expected = (spin_jitter(radius, 1.5, 30) + spin_jitter(radius, 4.0, 30)) / 2
    assert values["like_pct"] == 100
    assert values["jitter_mocap"] == pytest.approx(expected, rel=2e-3)
    assert values["jitter_delivered"] == pytest.approx(expected, rel=2e-3)
    alone = measure(
        CapturedMotion(make_bank([1.5] * 12 + [3.0] * 12), body), body, track, replace(slow, rotmats=turned)
    )
    assert alone["like_pct"] == 50
    for column in ("jitter_recovered", "jitter_delivered", "jitter_mocap"):
        assert alone[column] == pytest.approx(spin_jitter(radius, 1.5, 30), rel=2e-3), column


def test_shaking_shows_and_smoothing_takes_from_it(body, radius):
    captured = CapturedMotion(make_bank([2.0] * 12), body)
    track, motion = make_film(body, 2.0, 30.0, seconds=6.0, shake=0.02)
    values = measure(captured, body, track, motion, smoothing_s=0.06)
    calm, noise = spin_jitter(radius, 2.0, 30), radius * np.sqrt(6) * 0.02 * 1000 * np.sqrt(2 / np.pi)
    assert values["jitter_recovered"] == pytest.approx(np.hypot(calm, noise), rel=0.1)  # across the calm one
    assert values["jitter_delivered"] < 0.5 * values["jitter_recovered"]
    assert values["jitter_mocap"] == pytest.approx(calm, rel=5e-3) and values["jitter_rank"] == 100


def test_median_percentile_and_rank_of_like_windows():
    """101 windows as fast, with jitter 0 to 100; calmer ones that are faster or slower are not counted."""
    mocap = Windows(np.array([200.0] * 101 + [231.0] * 50 + [169.0] * 50), np.array([*range(101), *[0] * 100], float))
    delivered = Windows(np.array([200.0, 200.0]), np.array([20.5, 40.5]))
    recovered = Windows(np.array([999.0, 999.0]), np.array([50.0, 70.0]))
    assert compare(recovered, delivered, mocap) == {
        "like_pct": 100,
        "speed": 200,
        "jitter_recovered": 60,
        "jitter_delivered": 30.5,
        "jitter_mocap": 50,
        "jitter_mocap_90": 90,
        "jitter_rank": pytest.approx(100 * 31 / 101),
    }
    nobody = compare(recovered, delivered, Windows(np.full(29, 200.0), np.ones(29)))
    assert nobody["like_pct"] == 0 and np.isnan(nobody["jitter_mocap"])


def test_hand_keyed_clips_are_not_counted(body):
    bank = make_bank([2.0] * 6, subjects=["cmu_01"] * 2 + ["cc0_quaternius"] * 4)
    assert CapturedMotion(bank, body).clips == [0, 1]
    with pytest.raises(InputError, match="no captured clip"):
        CapturedMotion(replace(bank, subject=("cc0_quaternius",) * 6), body)


def test_nothing_is_said_of_less_than_a_second(body):
    track, motion = make_film(body, 2.0, 30.0)
    seen = (np.arange(len(track)) % 20 > 0).astype(np.float32)
    captured = CapturedMotion(make_bank([2.0] * 12), body)
    assert measure(captured, body, replace(track, confidence=seen), motion) == {}


def test_the_tables_have_the_columns_where_a_bank_is_given(body):
    """Delivered is what a job delivers unless told otherwise: smoothed by 0.03 s, soles out of the floor."""
    track, motion = make_film(body, 5.0, 30.0, shake=0.02)
    captured = CapturedMotion(make_bank([5.0] * 12), body)
    table = measure_tracks([track], [], CAMERA, {"spin": lambda *_: motion}, body, mocap=captured)[0]
    (delivered,) = place([motion], [track], CAMERA, body, smoothing_s=0.03)
    expected = captured.measure(motion, delivered, track)
    assert expected["like_pct"] == 100 and "like_pct" not in table["detector"]
    assert {column: table["spin"][column] for column in expected} == pytest.approx(expected)
    assert expected["jitter_delivered"] < 0.9 * expected["jitter_recovered"]
    assert "like_pct" not in measure_tracks([track], [], CAMERA, {"spin": lambda *_: motion}, body)[0]["spin"]


def test_a_bank_without_footage_is_refused(tmp_path, capsys):
    write_bank(tmp_path / "bank.npz", make_bank([2.0] * 3))
    assert main(["evaluate", "--motion", "x.npz", "--mocap", str(tmp_path / "bank.npz")]) != 0
    assert "give --video" in capsys.readouterr().err
