"""The mirrored film must give the mirrored motion: mirrored readers and tracks, and how far two motions differ.

In a mirror image x runs the other way and left and right are exchanged. N frames, K = 25 keypoints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from core.evaluate.measure import HIPS, LIMB_KEYPOINTS
from core.records import Track
from core.skeleton import KEYPOINT_MIRROR
from core.video import Frame, VideoReader

Points = tuple[np.ndarray, np.ndarray, np.ndarray]
"""frames [N], keypoints [N, K, 3] m in camera axes, seen [N] bool."""
TURN = np.array([-1.0, 1.0, 1.0], np.float32)


class MirroredReader(VideoReader):
    """A reader whose frames are turned round left to right."""

    def frames_from(self, first: int, is_wanted: Callable[[int], bool] = lambda index: True) -> Iterator[Frame]:
        for frame in super().frames_from(first, is_wanted):
            yield Frame(frame.index, frame.time, np.ascontiguousarray(frame.image[:, ::-1]))


def mirror_track(track: Track, width: int) -> Track:
    """The track a perfectly symmetric detector has of the mirrored film, `width` px wide. The image features stay:
    nothing says how to mirror them."""
    sides = list(KEYPOINT_MIRROR)
    keypoints = track.keypoints[:, sides] * TURN
    keypoints[..., 0] += width
    boxes = track.boxes[:, [2, 1, 0, 3]].copy()
    boxes[:, [0, 2]] = width - boxes[:, [0, 2]]
    return replace(track, keypoints=keypoints, landmarks3d=track.landmarks3d[:, sides] * TURN, boxes=boxes)


def mirrored_distance(points: Points, mirrored: Points) -> float:
    """Mean distance, mm, of limb keypoints about the middle of the hips between a motion and the motion of the
    mirrored film turned back, over the frames both saw; nan where there are none."""
    common, a, b = np.intersect1d(points[0], mirrored[0], return_indices=True)
    both = points[2][a] & mirrored[2][b]
    if not len(common) or not both.any():
        return float("nan")
    first = _about_hips(points[1][a[both]])
    second = _about_hips(mirrored[1][b[both]][:, list(KEYPOINT_MIRROR)] * TURN)
    return float(np.linalg.norm(first - second, axis=-1).mean() * 1000)


def _about_hips(keypoints: np.ndarray) -> np.ndarray:
    keypoints = keypoints.astype(np.float64)
    return keypoints[:, list(LIMB_KEYPOINTS)] - keypoints[:, HIPS].mean(1, keepdims=True)


def pair_tracks(tracks: list[Track], others: list[Track]) -> dict[int, int]:
    """Which of `others` shows the person of each track: index -> index, by how much and how long boxes overlap."""
    score = np.array([[_overlap(track, other) for other in others] for track in tracks])
    pairs: dict[int, int] = {}
    while score.size and score.max() > 0:
        k, other = (int(v) for v in np.unravel_index(score.argmax(), score.shape))
        pairs[k] = other
        score[k], score[:, other] = 0, 0
    return pairs


def _overlap(track: Track, other: Track) -> float:
    """Sum over common frames of the boxes' intersection over union."""
    _, a, b = np.intersect1d(track.frames, other.frames, return_indices=True)
    p, q = track.boxes[a].astype(np.float64), other.boxes[b].astype(np.float64)

    def area(box: np.ndarray) -> np.ndarray:
        return np.clip(box[:, 2:] - box[:, :2], 0, None).prod(-1)

    inner = area(np.concatenate([np.maximum(p[:, :2], q[:, :2]), np.minimum(p[:, 2:], q[:, 2:])], -1))
    return float((inner / np.maximum(area(p) + area(q) - inner, 1e-9)).sum())
