"""core.perception.stitch: gaps, ends, chance finds, order and scale, on samples made by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from core.perception.blazepose import EMBEDDING_SIZE
from core.perception.person import Person, Sample
from core.perception.roi import Roi
from core.perception.stitch import BOX_CONFIDENCE, box_of, build_tracks
from core.perception.turns import CONFIDENCE
from core.records import Clip

CLIP = Clip("x.mp4", 640, 480, 25, 40)
TIMES = np.concatenate((np.arange(20) / 25, 0.8 + np.arange(20) / 10))
"""The second half is slower."""


def make_sample(frame: int, x: float = 100.0, *, height: float = 200.0, confidence: float = 0.9) -> Sample:
    keypoints = np.full((25, 3), confidence, np.float32)
    keypoints[:, 0] = x + np.arange(25)
    keypoints[:, 1] = 100 + np.linspace(0, height, 25)
    world = np.full((25, 3), x / 100, np.float32)
    embedding = np.full(EMBEDDING_SIZE, frame, np.float16)
    return Sample(frame, TIMES[frame], keypoints, world, embedding, 0.8, confidence, np.array([x, 200.0]), 300.0, 0.0)


def make_person(samples: list[Sample], person_id: int = 0) -> Person:
    return Person(person_id, Roi(torch.zeros(2), torch.ones(()), torch.zeros(())), samples)


def build(*people: Person, scale: float = 1.0, max_people: int = 4):
    return build_tracks(list(people), TIMES, 0, CLIP, scale=scale, max_people=max_people)


def test_gaps_are_bridged_in_time_with_confidence_zero():
    """Seen until frame 17 at x = 100 and from frame 22 at x = 200: between them, linear in seconds."""
    samples = [make_sample(k) for k in range(5, 18)] + [make_sample(k, 200) for k in range(22, 34)]
    (track,) = build(make_person(samples))
    assert track.frames.tolist() == list(range(5, 34)) and track.frames.dtype == np.int32
    np.testing.assert_array_equal(track.times, TIMES[5:34])
    gap = slice(13, 17)
    share = (TIMES[18:22] - TIMES[17]) / (TIMES[22] - TIMES[17])
    np.testing.assert_allclose(track.keypoints[gap, 0, 0], 100 + 100 * share, rtol=1e-6)
    np.testing.assert_allclose(track.landmarks3d[gap, 0, 0], 1 + share, rtol=1e-6)
    assert (track.keypoints[gap, :, 2] == 0).all() and (track.confidence[gap] == 0).all()
    assert (track.features[gap] == 0).all() and (track.features[12] == 17).all() and (track.features[17] == 22).all()
    assert (track.confidence[:13] == np.float32(0.8)).all() and (track.keypoints[:13, :, 2] == np.float32(0.9)).all()


def test_a_hole_in_a_fast_turn_is_no_gap():
    """Turning by 7.5 radians a second; 4 of 25 frames a second are missing."""
    turning = [replace(make_sample(k), angle=0.3 * k - 2.0) for k in (*range(10), *range(14, 20))]
    (track,) = build(make_person(turning))
    assert track.frames.tolist() == list(range(20))
    hole, rest = slice(10, 14), [*range(10), *range(14, 20)]
    assert (track.confidence[hole] == np.float32(CONFIDENCE)).all() and (track.confidence[rest] > CONFIDENCE).all()
    assert (track.keypoints[hole, :, 2] == np.float32(CONFIDENCE)).all() and (track.features[hole] > 0).all()
    upright = [replace(sample, angle=0.0) for sample in turning]
    (track,) = build(make_person(upright))
    assert (track.confidence[hole] == 0).all()


def test_coordinates_return_to_the_full_frame():
    (track,) = build(make_person([make_sample(k) for k in range(20)]), scale=0.5)
    np.testing.assert_allclose(track.keypoints[0, 0, :2], [200, 200])
    np.testing.assert_allclose(track.boxes[0], 2 * box_of(make_sample(0).keypoints))


def test_points_outside_the_picture_are_not_seen():
    (track,) = build(make_person([make_sample(k, 630) for k in range(20)]))
    assert (track.keypoints[:, :10, 2] == np.float32(0.9)).all() and (track.keypoints[:, 10:, 2] <= 0.3).all()


def test_chance_finds_are_dropped():
    few = make_person([make_sample(k) for k in range(22, 28)])  # more than half a second, though
    brief = make_person([make_sample(k) for k in range(5)], 1)
    dubious = make_person([make_sample(k, confidence=0.52) for k in range(20)], 2)
    assert build(few, brief, dubious) == []


def test_dubious_ends_are_cut_but_not_dubious_middles():
    weak = {3, 4, 12, 13, 27}
    samples = [make_sample(k, confidence=0.3 if k in weak else 0.9) for k in range(3, 28)]
    (track,) = build(make_person(samples))
    assert (track.frames[0], track.frames[-1], len(track)) == (5, 26, 22)


def test_the_most_prominent_comes_first_and_few_are_kept():
    long_small = make_person([make_sample(k, height=50) for k in range(40)], 3)
    short_large = make_person([make_sample(k, height=300) for k in range(20)], 5)
    middle = make_person([make_sample(k, height=100) for k in range(25)], 8)
    tracks = build(long_small, short_large, middle)
    assert [len(t) for t in tracks] == [20, 25, 40] and [t.person for t in tracks] == [0, 1, 2]
    assert [len(t) for t in build(long_small, short_large, middle, max_people=1)] == [20]


def test_box_surrounds_what_is_seen():
    keypoints = make_sample(0).keypoints.copy()
    keypoints[20:, 2] = BOX_CONFIDENCE / 2
    low, high = keypoints[:20, :2].min(0), keypoints[:20, :2].max(0)
    margin = 0.1 * (high - low)
    np.testing.assert_allclose(box_of(keypoints), np.concatenate((low - margin, high + margin)), rtol=1e-6)
    keypoints[:, 2] = 0
    assert np.isfinite(box_of(keypoints)).all()
