"""Settle left and right by continuity: of the two readings of every frame, the ones that make a track that moves on.

A detector that takes a front for a back exchanges the sides of all limbs, or of the arms or legs alone, for single
frames or for dozens. Where it changes its mind the keypoints jump, and for some frames lie between the two readings.
A path through the frames, each as it is, exchanged, or left out as a blend, is the shortest by dynamic programming:
it pays for the way of the keypoints from frame to frame, little for every exchanged frame, so that of two unbroken
tracks the one with fewer exchanges wins, and for every frame left out. Arms and legs pay for going apart.
N frames, K keypoints, G groups of keypoints (jumps.py), R readings of a group: 0 as it is, 1 exchanged.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from core.records import Track
from core.recover.jumps import GROUPS, MIRROR, SLOW, body_sizes, find_jumps

_CHANGE = np.array([[0, 1], [1, 0]])
"""[R before, R now] -> whether the reading changes."""


@dataclass(frozen=True)
class ReadingOptions:
    """Ways are shares of the body's size in the picture."""

    reach: int = 8
    """Frames back that a frame may be linked to; those between are blends."""
    still: float = 0.03
    """Way in 1/30 s that costs nothing (it grows with the root of the time)."""
    farthest: float = 0.6
    """No way costs more."""
    longest_s: float = 0.5
    """Over longer gaps either reading may follow either."""
    exchanged: float = 0.008
    """Cost of a frame's exchange ..."""
    apart: float = 0.005
    """... and of a group's not being exchanged with the other, or being exchanged without it."""
    blend: float = 0.06
    """Cost of a frame left out."""


@dataclass(frozen=True)
class Settled:
    track: Track
    """With sides exchanged back, depth turned inside out there, and blends of both readings not seen."""
    exchanged: np.ndarray
    """[N, G] bool."""
    doubted: np.ndarray
    """[N] bool: the detector's 3D landmarks were another reading's."""


def settle_readings(track: Track, options: ReadingOptions = ReadingOptions()) -> Settled:
    """Exchange sides where the track then moves on; one without jumps is handed back as it is."""
    exchanged = np.zeros((len(track), len(GROUPS)), bool)
    if not find_jumps(track).any():
        return Settled(track, exchanged, exchanged.any(1))
    blends = exchanged.copy()
    seen = np.flatnonzero(track.confidence > 0)
    exchanged[seen], blends[seen] = _link_groups(track, seen, options)
    if not (exchanged.any() or blends.any()):
        return Settled(track, exchanged, exchanged.any(1))
    return Settled(exchange_groups(track, exchanged, blends), exchanged, (exchanged | blends).any(1))


def exchange_groups(track: Track, exchanged: np.ndarray, unseen: np.ndarray | None = None) -> Track:
    """A track with the sides of groups exchanged where exchanged [N, G], and not seen where unseen [N, G]."""
    keypoints, landmarks = track.keypoints.copy(), track.landmarks3d.copy()
    for g, group in enumerate(GROUPS):
        where = np.ix_(exchanged[:, g], group)
        keypoints[where] = track.keypoints[:, MIRROR][where]
        landmarks[where] = track.landmarks3d[:, MIRROR][where] * np.float32([1, 1, -1])
        if unseen is not None:
            keypoints[(*np.ix_(unseen[:, g], group), 2)] = 0
    return replace(track, keypoints=keypoints, landmarks3d=landmarks)


def _link_groups(track: Track, seen: np.ndarray, options: ReadingOptions) -> tuple[np.ndarray, np.ndarray]:
    """Exchanged and left out [n, G] of the frames `seen` [n]: each group in turn given the others, begun with either,
    and of the two ends the cheaper."""
    ways = [_ways(track, seen, group, options) for group in GROUPS]
    best = None
    for order in ((0, 1, 0), (1, 0, 1)):
        paths: dict[int, tuple[np.ndarray, np.ndarray, float]] = {}
        for g in order:
            pull = np.zeros((len(seen), 2))
            pull[:, 1] = options.exchanged
            for other, (is_exchanged, is_blend, _) in paths.items():
                if other != g:
                    pull[~is_blend, (~is_exchanged[~is_blend]).astype(int)] += options.apart
            paths[g] = _link(ways[g], pull, options.blend)
        cost = paths[order[1]][2] + paths[order[0]][2]
        if best is None or cost < best[0]:
            best = cost, paths
    paths = best[1]
    return tuple(np.stack([paths[g][k] for g in range(len(GROUPS))], 1) for k in (0, 1))


def _ways(track: Track, seen: np.ndarray, group: np.ndarray, options: ReadingOptions) -> np.ndarray:
    """[reach, n, 2] cost of going to a frame from the one 1, 2, ... before it in the same or in the other reading."""
    xy = np.nan_to_num(track.keypoints[seen, :, :2].astype(np.float64))
    sizes, times = body_sizes(track)[seen], track.times[seen]
    weight = SLOW * group / (SLOW * group).sum()
    ways = np.full((options.reach, len(seen), 2), np.inf)
    for ahead in range(1, min(options.reach, len(seen) - 1) + 1):
        gap = times[ahead:] - times[:-ahead]
        free = options.still * np.sqrt(np.maximum(gap * 30, 0.4))
        for changed, before in enumerate((xy, xy[:, MIRROR])):
            way = np.linalg.norm(xy[ahead:] - before[:-ahead], axis=-1) @ weight / sizes[ahead:]
            way = np.where(gap > options.longest_s, options.farthest, way - free)
            ways[ahead - 1, ahead:, changed] = way.clip(0, options.farthest)
    return ways


def _link(ways: np.ndarray, pull: np.ndarray, blend: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Exchanged [n], left out [n] and the cost of the cheapest path, for ways [reach, n, 2] and pull [n, R]."""
    reach, n = ways.shape[:2]
    skipped = blend * np.arange(reach)[:, None, None]
    cost, source = np.full((n, 2), np.inf), np.full((n, 2), -1)
    for t in range(n):
        if t < reach:
            cost[t] = blend * t  # begun here
        if t:
            back = min(reach, t)
            past = cost[t - back : t][::-1]  # [back, R], the nearest first
            links = (past[:, :, None] + ways[:back, t][:, _CHANGE] + skipped[:back]).reshape(-1, 2)
            nearest = links.argmin(0)
            linked = links[nearest, [0, 1]]
            source[t] = np.where(linked <= cost[t], nearest, -1)
            cost[t] = np.minimum(linked, cost[t])
        cost[t] += pull[t]
    ends = cost[max(0, n - reach) :] + blend * np.arange(min(n, reach))[::-1, None]  # frames after the end left out
    t, reading = np.unravel_index(ends.argmin(), ends.shape)
    total, t = float(ends[t, reading]), int(t) + max(0, n - reach)
    exchanged, left_out = np.zeros(n, bool), np.ones(n, bool)
    while True:
        exchanged[t], left_out[t] = reading == 1, False
        step = source[t, reading]
        if step < 0:
            return exchanged, left_out, total
        t, reading = t - step // 2 - 1, step % 2
