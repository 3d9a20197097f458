"""core.perception.turns: somersaults with holes are turned through; bows, standing still and misreadings are not."""

from __future__ import annotations

import numpy as np
import pytest

from core.perception.blazepose import EMBEDDING_SIZE
from core.perception.person import Sample
from core.perception.turns import CONFIDENCE, LONGEST_S, fill_turns

FPS = 30
TIMES = np.arange(200) / FPS
SHAPE = np.random.default_rng(3).uniform(-80, 80, (25, 3))
"""Keypoints about the hips of an upright body, px, and its depth."""


def spin(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def body_at(angle: float, center: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints [25, 2] px and world landmarks [25, 3] of the body turned by `angle`."""
    places = SHAPE[:, :2] @ spin(angle).T
    return places + center, np.concatenate((places, SHAPE[:, 2:]), 1) / 100


def sample(frame: int, angle: float, *, certainty: float = 0.8, first: int = 0) -> Sample:
    center = np.array([300.0 + 4 * frame, 200.0 - 2 * frame])
    places, world = body_at(angle, center)
    keypoints = np.concatenate((places, np.full((25, 1), certainty)), 1).astype(np.float32)
    embedding = np.full(EMBEDDING_SIZE, frame, np.float16)
    wrapped = (angle + np.pi) % (2 * np.pi) - np.pi
    return Sample(
        frame, TIMES[frame - first], keypoints, world.astype(np.float32), embedding, 0.9, 0.9, center, 300.0, wrapped
    )


def turning(rate: float, frames: list[int], **unsure: float) -> list[Sample]:
    """Samples of somebody who turns by `rate` radians a frame."""
    return [sample(k, rate * k, **unsure) for k in frames]


@pytest.mark.parametrize("rate", [0.3, -0.3, 0.45])
def test_a_somersault_with_a_hole_is_turned_through(rate):
    """Over 2.7 or 4 radians, the way the body turns before and after, even where the other way is shorter."""
    hole = range(21, 29)
    samples = fill_turns(turning(rate, [*range(15, 21), *range(29, 35)]), TIMES, 0)
    assert [s.frame for s in samples] == list(range(15, 35))
    for s in samples:
        places, world = body_at(rate * s.frame, s.center)
        np.testing.assert_allclose(s.keypoints[:, :2], places, atol=0.05)
        np.testing.assert_allclose(s.world, world, atol=1e-3)
        np.testing.assert_allclose(s.center, [300 + 4 * s.frame, 200 - 2 * s.frame])
        assert abs(np.angle(np.exp(1j * (s.angle - rate * s.frame)))) < 1e-6 and -np.pi <= s.angle <= np.pi
        assert (s.keypoints[:, 2] == np.float32(CONFIDENCE if s.frame in hole else 0.8)).all()
        assert (s.presence == CONFIDENCE) == (s.frame in hole)
        np.testing.assert_allclose(s.embedding, s.frame, rtol=2e-3)
        assert s.time == TIMES[s.frame]


def test_garbage_in_a_somersault_is_replaced():
    samples = turning(0.3, list(range(15, 35)))
    for k in (7, 8, 9):
        samples[k] = sample(samples[k].frame, 0.0, certainty=0.15)
    filled = fill_turns(samples, TIMES, 0)
    for s in filled[7:10]:
        np.testing.assert_allclose(s.keypoints[:, :2], body_at(0.3 * s.frame, s.center)[0], atol=0.05)


def test_only_what_is_near_tells_how_fast_they_turn():
    """Who stands, then turns at 6 rad a second over half a second unseen in part, then stands for long."""

    def angle(k: int) -> float:
        return 0.2 * min(max(k - 26, 0), 14)

    frames = [*range(0, 30, 3), *range(36, 90, 3)]
    filled = fill_turns([sample(k, angle(k)) for k in frames], TIMES, 0, look_every=3)
    assert [s.frame for s in filled] == [*range(0, 27, 3), *range(27, 37), *range(39, 90, 3)]
    shares = [(angle(36) - angle(27)) * (k - 27) / 9 + angle(27) for k in range(28, 36)]
    np.testing.assert_allclose([s.angle for s in filled[10:18]], shares, atol=1e-6)


def test_times_are_those_of_the_frames():
    shifted = [sample(k, 0.3 * k, first=10) for k in (*range(15, 21), *range(25, 31))]
    filled = fill_turns(shifted, TIMES, 10)
    assert [s.time for s in filled] == [TIMES[s.frame - 10] for s in filled]


@pytest.mark.parametrize(
    ("samples", "why"),
    [
        (turning(0.0, [*range(15, 21), *range(26, 34)]), "who stands is not turned"),
        (turning(0.05, [*range(15, 21), *range(26, 34)]), "nor who leans"),
        (turning(0.3, [*range(5, 11), *range(11 + int(LONGEST_S * FPS), 40)]), "a long gap stays one"),
        (turning(0.0, list(range(15, 21))) + [sample(k, 3.0) for k in range(25, 32)], "upside down by mistake"),
        (turning(0.3, list(range(15, 21))) + [sample(k, 0.3 * k) for k in range(21, 30)], "nothing is missing"),
        ([sample(10, 0.0), sample(14, 2.0)], "nothing tells the way"),
        ([], "nobody"),
    ],
)
def test_left_alone(samples, why):
    filled = fill_turns(samples, TIMES, 0)
    assert len(filled) == len(samples) and all(a is b for a, b in zip(filled, samples)), why


def test_frames_between_two_looks_are_not_gaps():
    samples = turning(0.3, list(range(10, 40, 2)))
    assert fill_turns(samples, TIMES, 0, look_every=2) == samples
    assert len(fill_turns(samples, TIMES, 0)) == 29
