"""Frames in which somebody turned too fast to be read: the body turns on from the last sure reading to the next.

Nobody reads a tucked and blurred body in every frame of a somersault. With a hole in it, or garbage, a lifter takes
it for a bow; with the keypoints turned on, faintly, it turns the figure over. Angles are those of the crops that
landmarks ask for, in the picture's plane, radians.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise, takewhile

import numpy as np

from core.perception.person import Sample
from core.perception.second_look import LOST

LONGEST_S = 0.5
"""Between two sure samples."""
LEAST_TURN = 0.5
"""Radians; who turns less from one to the next has not turned over."""
SWING_S = 0.25
"""How far from them others count for how fast somebody turns before and after."""
LEAST_SWING = 0.3
"""How fast that is, at least, as share of the rate between: else one reading is upside down."""
CONFIDENCE = 0.2
"""Of a frame filled in and its keypoints."""


def fill_turns(samples: list[Sample], times: np.ndarray, first: int, *, look_every: int = 1) -> list[Sample]:
    """Samples in frame order, with those in the middle of a turn that are missing or unsure filled in.

    times [N]: seconds of the frames [first, first + N). look_every: frames that lie between two looks anyway.
    """
    sure = [s for s in samples if s.certainty >= LOST]
    filled: dict[int, Sample] = {s.frame: s for s in samples}
    for k, (a, b) in enumerate(pairwise(sure)):
        if b.frame - a.frame <= look_every or b.time - a.time > LONGEST_S:
            continue
        turn = _turn_between(_near(sure, range(k, -1, -1))[::-1], _near(sure, range(k + 1, len(sure))))
        if turn is not None:
            filled |= {s.frame: s for s in _turned(a, b, turn, times[a.frame + 1 - first : b.frame - first])}
    return [filled[frame] for frame in sorted(filled)]


def _turn_between(before: list[Sample], after: list[Sample]) -> float | None:
    """Radians from the last of `before` to the first of `after`, the way they turn there; None where they do not."""
    a, b = before[-1], after[0]
    gap = b.time - a.time
    rate = (_rate(before) + _rate(after)) / 2
    least = _wrap(b.angle - a.angle)
    turn = min((least + full for full in (-2 * np.pi, 0.0, 2 * np.pi)), key=lambda way: abs(way - rate * gap))
    is_swung = rate * turn > 0 and abs(rate) * gap >= LEAST_SWING * abs(turn)
    return turn if abs(turn) >= LEAST_TURN and is_swung else None


def _near(samples: list[Sample], way: range) -> list[Sample]:
    """The samples along `way` that are near in time to where it begins."""
    begin = samples[way.start].time
    return list(takewhile(lambda s: abs(s.time - begin) <= SWING_S, (samples[i] for i in way)))


def _rate(samples: list[Sample]) -> float:
    """Radians a second, 0 for a single sample."""
    took = samples[-1].time - samples[0].time
    return float(np.diff(np.unwrap([s.angle for s in samples])).sum() / took) if took > 0 else 0.0


def _turned(a: Sample, b: Sample, turn: float, times: np.ndarray) -> Iterator[Sample]:
    """The frames between two samples: their bodies blended upright, turned and moved in equal steps of time."""
    upright = [_turn(s.keypoints[:, :2] - s.center, -s.angle) for s in (a, b)]
    worlds = [_turn(s.world, -s.angle) for s in (a, b)]
    for k, time in enumerate(times):
        share = (time - a.time) / (b.time - a.time)
        angle = a.angle + share * turn
        center = a.center + share * (b.center - a.center)
        places = _turn(upright[0] + share * (upright[1] - upright[0]), angle) + center
        embedding = a.embedding.astype(np.float32) * (1 - share) + b.embedding.astype(np.float32) * share
        yield Sample(
            a.frame + 1 + k,
            float(time),
            np.concatenate((places, np.full((len(places), 1), CONFIDENCE)), -1).astype(np.float32),
            _turn(worlds[0] + share * (worlds[1] - worlds[0]), angle).astype(np.float32),
            embedding.astype(np.float16),
            CONFIDENCE,
            min(a.visibility, b.visibility),
            center,
            a.size + share * (b.size - a.size),
            _wrap(angle),
        )


def _wrap(angle: float) -> float:
    """The same angle in [-pi, pi)."""
    return float((angle + np.pi) % (2 * np.pi) - np.pi)


def _turn(points: np.ndarray, angle: float) -> np.ndarray:
    """Points [P, 2 or 3] turned in the picture's plane."""
    c, s = np.cos(angle), np.sin(angle)
    turned = points.astype(np.float64)
    turned[:, :2] = turned[:, :2] @ np.array([[c, s], [-s, c]])
    return turned
