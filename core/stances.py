"""Where planted feet belong: stretches of contact become stances, each with one place on a level of support.

Nearly everything stands on the floor at z = 0. Who stands higher, on a roof or on stairs, stands on a level of their
own: the height their own stances agree on. Lower than the floor is only who stands there for long: else it is an
error of the pose. Nothing is said of feet in the air. N frames, 4 columns of
contacts.CONTACT_NAMES; world frame, z up, metres; numpy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from core.contacts import OTHER_END

PAIRS = ((0, 1), (2, 3))
"""Columns of heel and toe of each foot."""


@dataclass(frozen=True)
class StanceOptions:
    depth_share: float = 0.5
    """Part of a way along the view (the world's y) that counts: one camera sees least there."""
    largest_drift: float = 0.3
    """m between the ends of a stance beyond which it is not believed."""
    floor_reach: float = 0.2
    """m of the floor within which a stance stands on it."""
    level_band: float = 0.15
    """m within which stances off the floor share a level."""
    pit_share: float = 0.3
    """Part of the time somebody stands that a level below the floor needs."""
    rejoin_s: float = 0.2
    """Seconds that a point may seem lifted and come back to the same place."""
    rejoin: float = 0.05
    """m that count as the same place; twice that is as far as it may go meanwhile."""


@dataclass(frozen=True)
class Places:
    """Where planted points belong, frame by frame."""

    points: np.ndarray
    """[N, 4, 3] m, world frame, of the contact keypoints; their own positions where nothing is planted."""
    planted: np.ndarray
    """[N, 4] bool."""
    levels: np.ndarray
    """[N, 4] m: height of what carries a planted point; 0 elsewhere."""
    along: np.ndarray
    """[N, 2, 2] world x, y from heel to toe of each foot that is planted with both, unit length; 0 elsewhere."""


@dataclass
class _Stance:
    column: int
    start: int
    stop: int
    place: np.ndarray
    """[3] m; z is the height of the sole."""
    level: float = 0.0


def find_places(
    points: np.ndarray,
    contacts: np.ndarray,
    times: np.ndarray,
    heights: np.ndarray,
    lengths: np.ndarray | None = None,
    options: StanceOptions = StanceOptions(),
) -> Places:
    """points [N, 4, 3] of the contact keypoints, contacts [N, 4], heights [4] of sole_heights.

    lengths [2]: distance from heel to toe of each foot flat on the floor; None leaves the two places as they are.
    """
    stances = _find_stances(points, contacts, heights, options)
    stances = _rejoin(stances, points, heights, times, options)
    _find_levels(stances, times, options)
    if lengths is not None:
        _lay_flat(stances, lengths)
    targets, planted, levels = points.astype(np.float64), np.zeros(contacts.shape, bool), np.zeros(contacts.shape)
    for s in stances:
        span = slice(s.start, s.stop)
        targets[span, s.column] = [*s.place[:2], s.level + heights[s.column]]
        planted[span, s.column] = True
        levels[span, s.column] = s.level
    along = targets[:, [toe for _, toe in PAIRS], :2] - targets[:, [heel for heel, _ in PAIRS], :2]  # [N, 2, 2]
    both = np.stack([planted[:, list(pair)].all(1) for pair in PAIRS], 1)[..., None]
    along = np.where(both, along / np.maximum(np.linalg.norm(along, axis=-1, keepdims=True), 1e-9), 0)
    return Places(targets, planted, levels, along)


def _find_stances(points, contacts, heights, options: StanceOptions) -> list[_Stance]:
    stances = []
    for column in range(contacts.shape[1]):
        touching = np.concatenate([[0], contacts[:, column] > 0.5, [0]]).astype(np.int8)
        starts, stops = np.flatnonzero(np.diff(touching) == 1), np.flatnonzero(np.diff(touching) == -1)
        for start, stop in zip(starts, stops):
            stretch = points[start:stop, column]
            if _distances(stretch[-1], stretch[0], options) <= options.largest_drift:
                place = np.median(stretch, axis=0) - [0, 0, heights[column]]
                stances.append(_Stance(column, int(start), int(stop), place))
    return stances


def _distances(a: np.ndarray, b: np.ndarray, options: StanceOptions) -> np.ndarray:
    return np.linalg.norm((a - b) * (1, options.depth_share, 1), axis=-1)


def _rejoin(stances: list[_Stance], points, heights, times: np.ndarray, options: StanceOptions) -> list[_Stance]:
    """One stance of two where the point seemed lifted for a moment but hardly went anywhere, or nowhere from the
    other end of its foot, which stayed: then the whole foot was read to slide, and only one end of it too fast."""
    joined: list[_Stance] = []
    for after in stances:
        before = joined[-1] if joined else after
        if (
            before.column == after.column
            and before is not after
            and times[after.start] - times[before.stop - 1] <= options.rejoin_s
            and (
                _is_back(before, after, points, heights, options) or _is_held(before, after, stances, points, options)
            )
        ):
            share = (after.stop - after.start) / (after.stop - after.start + before.stop - before.start)
            before.place = (1 - share) * before.place + share * after.place
            before.stop = after.stop
        else:
            joined.append(after)
    return joined


def _is_back(before: _Stance, after: _Stance, points, heights, options: StanceOptions) -> bool:
    gap = points[before.stop : after.start, after.column] - [0, 0, heights[after.column]]
    return (
        _distances(after.place, before.place, options) <= options.rejoin
        and (_distances(gap, before.place, options) <= 2 * options.rejoin).all()
    )


def _is_held(before: _Stance, after: _Stance, stances: list[_Stance], points, options: StanceOptions) -> bool:
    """Whether the foot neither turned nor tilted between two stances of one end, while its other end stood."""
    other = OTHER_END[before.column]
    if not any(s.column == other and s.start < before.stop and after.start < s.stop for s in stances):
        return False
    foot = points[before.stop - 1 : after.start + 1, before.column] - points[before.stop - 1 : after.start + 1, other]
    return bool((np.linalg.norm(foot - foot[0], axis=-1) <= options.rejoin).all())


def _find_levels(stances: list[_Stance], times: np.ndarray, options: StanceOptions) -> None:
    """The floor for stances near it; for the others the level of the longest-standing group they fall into."""
    free = [s for s in stances if abs(s.place[2]) > options.floor_reach]
    total = sum(times[s.stop - 1] - times[s.start] for s in stances)
    while free:
        heights = np.array([s.place[2] for s in free])
        stood = np.array([times[s.stop - 1] - times[s.start] + 1e-6 for s in free])
        inside = (heights >= heights[:, None]) & (heights <= heights[:, None] + options.level_band)  # [low, stance]
        group = inside[(inside * stood).sum(1).argmax()]
        order = np.argsort(heights[group])
        passed = np.cumsum(stood[group][order])
        level = heights[group][order][np.searchsorted(passed, passed[-1] / 2)]
        is_real = level > 0 or passed[-1] >= options.pit_share * total
        for s, is_in in zip(free, group):
            s.level = float(level) if is_in and is_real else s.level
        free = [s for s, is_in in zip(free, group) if not is_in]


def _lay_flat(stances: list[_Stance], lengths: np.ndarray) -> None:
    """Heels as far from the toes planted with them as the foot is long, so that one place does not pull the other."""
    for foot, (heel, toe) in enumerate(PAIRS):
        for h in (s for s in stances if s.column == heel):
            for t in (s for s in stances if s.column == toe and s.start < h.stop and h.start < s.stop):
                along = h.place[:2] - t.place[:2]
                distance = np.linalg.norm(along)
                if h.level == t.level and distance > 0.3 * lengths[foot]:
                    h.place[:2] = t.place[:2] + along * (lengths[foot] / distance)
