"""Where a track's keypoints jump as if the detector had exchanged left and right. N frames, K keypoints, G groups."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from core.records import Track
from core.skeleton import KEYPOINT_MIRROR, KEYPOINT_NAMES

_PARTS = (
    ("shoulder", "elbow", "wrist", "pinky", "index", "thumb", "nose", "ear"),
    ("hip", "knee", "ankle", "heel", "toe"),
)
_KINDS = [name.split("_")[-1] for name in KEYPOINT_NAMES]
GROUPS = np.array([[kind in parts for kind in _KINDS] for parts in _PARTS])
"""[G, K] bool: arms with the head, and legs; each is exchanged as one."""
MIRROR = np.array(KEYPOINT_MIRROR)
_WEIGHTS = {"pinky": 0.0, "index": 0.0, "thumb": 0.0, "nose": 0.0, "wrist": 0.5}
SLOW = np.array([_WEIGHTS.get(kind, 1.0) for kind in _KINDS])
"""[K] weights in judging jumps: hands move most."""
AHEAD = 4
"""Frames within which an exchange has to show: blended readings last about three."""


@dataclass(frozen=True)
class JumpOptions:
    way: float = 0.07
    """Mean way of a group's keypoints in 1/30 s, as share of the body's size, from which a jump is suspected."""
    kept: float = 0.8
    """Of the way across a jump, so much at most may be left with the sides exchanged, at one of the next frames."""


def find_jumps(track: Track, options: JumpOptions = JumpOptions()) -> np.ndarray:
    """[N, G] bool: a group's keypoints jump to this frame, and exchanged they would have stayed."""
    N = len(track)
    jumps = np.zeros((N, len(GROUPS)), bool)
    if N < 2:
        return jumps
    xy = np.nan_to_num(track.keypoints[..., :2].astype(np.float64))
    seen, sizes = track.confidence > 0, body_sizes(track)
    steps = np.maximum(np.diff(track.times) * 30, 0.4)
    for g, group in enumerate(GROUPS):
        weight = SLOW * group / (SLOW * group).sum()

        def ways(ahead: int, weight: np.ndarray = weight) -> tuple[np.ndarray, np.ndarray]:
            """Mean ways [N - ahead] from frames to those `ahead` of them, as they are and exchanged."""
            before, after = xy[:-ahead], xy[ahead:]
            both = (np.linalg.norm(after - other, axis=-1) @ weight for other in (before, before[:, MIRROR]))
            return tuple(way / sizes[ahead:] for way in both)

        same, exchanged = ways(1)
        is_far = (same > options.way * np.sqrt(steps)) & (exchanged < 1.25 * same)
        shows = np.zeros(N - 1, bool)
        for ahead in range(1, min(AHEAD, N - 1) + 1):
            same, exchanged = ways(ahead)
            crosses = (exchanged < options.kept * same) & (same > options.way)
            for k in range(ahead):
                shows[k : k + len(crosses)] |= crosses
        jumps[1:, g] = is_far & shows & seen[1:] & seen[:-1]
    return jumps


def body_sizes(track: Track) -> np.ndarray:
    """Size of the body in the picture [N] px: the larger side of the box around the keypoints, nearly its largest
    within half a second of each frame."""
    xy = np.nan_to_num(track.keypoints[..., :2].astype(np.float64))
    side = (xy.max(1) - xy.min(1)).max(-1)
    low = np.searchsorted(track.times, track.times - 0.5)
    high = np.searchsorted(track.times, track.times + 0.5, side="right")
    return np.array([max(np.percentile(side[a:b], 90), 1.0) for a, b in zip(low, high)])
