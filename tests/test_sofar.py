"""core.perception.sofar: stretches cover what the final tracks hold, once and in order; numbers are kept."""

from __future__ import annotations

import numpy as np
import torch

from core.perception.person import Person, Sample
from core.perception.roi import Roi
from core.perception.sofar import LEAST, SoFar
from core.perception.stitch import build_tracks
from core.records import Clip

CLIP = Clip("x.mp4", 640, 480, 25.0, 400)
FIRST = 5


def sample(frame: int, quality: float = 0.9) -> Sample:
    keypoints = np.full((25, 3), quality, np.float32)
    keypoints[:, 0], keypoints[:, 1] = 100 + frame, np.linspace(50, 250, 25)
    return Sample(
        frame=frame,
        time=frame / 25,
        keypoints=keypoints,
        world=np.full((25, 3), frame, np.float32),
        embedding=np.full(1152, 0.5, np.float16),
        presence=1.0,
        visibility=quality,
        center=np.array([100.0, 150.0]),
        size=300.0,
        angle=0.0,
    )


def person(id_: int) -> Person:
    return Person(id_, Roi(torch.zeros(2), torch.tensor(1.0), torch.tensor(0.0)))


def play(present: dict[int, dict[int, float]], frames: int, max_people: int = 4):
    """Feed people frame by frame. present: id -> {frame: quality}. Return (stretches, final tracks, numbers)."""
    people, times, numbers, stretches = [], [], {}, []
    so_far = SoFar(CLIP, FIRST, scale=0.5, max_people=max_people, numbers=numbers)
    for frame in range(FIRST, FIRST + frames):
        times.append(frame / 25)
        for id_, seen in present.items():
            if frame in seen:
                if id_ not in [p.id for p in people]:
                    people.append(person(id_))
                next(p for p in people if p.id == id_).samples.append(sample(frame, seen[frame]))
        so_far.number(people, len(times))
        stretches += [(len(times), t) for t in so_far.take(people, times)]
    tracks = build_tracks(people, np.array(times), FIRST, CLIP, scale=0.5, max_people=max_people, numbers=numbers)
    return stretches, tracks, numbers


def test_stretches_are_the_beginning_of_the_track():
    gap = {frame: 0.9 for frame in range(FIRST, 160) if not 60 <= frame < 70}
    stretches, tracks, _ = play({0: gap}, 150)
    assert len(stretches) >= 3
    for name in ("frames", "times", "keypoints", "landmarks3d", "features", "confidence", "boxes"):
        joined = np.concatenate([getattr(t, name) for _, t in stretches])
        np.testing.assert_array_equal(joined, getattr(tracks[0], name)[: len(joined)], err_msg=name)
    assert stretches[0][1].frames[0] == FIRST and len(stretches[0][1]) >= LEAST
    assert all(t.frames[-1] < FIRST + count - 12 for count, t in stretches), "twelve frames are held back"
    assert all(count % 8 == 0 for count, _ in stretches)


def test_the_dubious_beginning_and_end_are_not_shown():
    seen = {f: 0.2 if f < 40 or f >= 120 else 0.9 for f in range(FIRST, 200)}
    stretches, tracks, _ = play({0: seen}, 195)
    shown = np.concatenate([t.frames for _, t in stretches])
    assert shown[0] == tracks[0].frames[0] == 40
    assert shown[-1] <= tracks[0].frames[-1] == 119


def test_a_chance_find_is_neither_shown_nor_numbered():
    stretches, tracks, numbers = play({0: {f: 0.3 for f in range(FIRST, 90)}, 1: {f: 0.9 for f in range(30, 90)}}, 85)
    assert numbers == {1: 0}
    assert {t.person for _, t in stretches} == {0} and [t.person for t in tracks] == [0]


def test_numbers_outlive_prominence():
    """Person 7 comes later but stays longer: most prominent, yet number 1."""
    stretches, tracks, numbers = play(
        {3: {f: 0.9 for f in range(FIRST, 60)}, 7: {f: 0.9 for f in range(20, 200)}}, 195
    )
    assert numbers == {3: 0, 7: 1}
    assert [t.person for t in tracks] == [1, 0]
    assert [t.frames[0] for _, t in stretches if t.person == 1][0] == 20


def test_no_more_numbers_than_people_wanted_and_the_rest_get_free_ones():
    present = {i: {f: 0.9 for f in range(FIRST + 10 * i, 120)} for i in range(3)}
    _, tracks, numbers = play(present, 115, max_people=2)
    assert numbers == {0: 0, 1: 1} and [t.person for t in tracks] == [0, 1]
    people = [person(0), person(1)]
    people[0].samples = [sample(f) for f in range(FIRST, 50)]
    people[1].samples = [sample(f) for f in range(FIRST, 90)]
    times = np.arange(FIRST, 100) / 25
    tracks = build_tracks(people, times, FIRST, CLIP, scale=1.0, max_people=4, numbers={0: 1})
    assert [(t.person, len(t)) for t in tracks] == [(0, 85), (1, 45)]
