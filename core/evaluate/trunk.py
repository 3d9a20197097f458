"""Which way the trunk faces, and when it is back to front.

The left-right axis of shoulders and hips tells: exchanging left and right, or front and back, reverses it, while
somersaults and bows leave it. With truth a frame is flipped where the axis is over 90 degrees off. Without truth a
flip shows as a reversal that nobody's trunk can do: over 90 degrees from the mean direction of the last MEMORY_S,
which takes a turn of about 770 degrees a second. In 396 clips of motion capture (76 minutes, dance, karate and
gymnastics among it) one clip has such a turn, a pirouette.
N frames, K = 25 keypoints; numpy.
"""

from __future__ import annotations

import numpy as np

from core.skeleton import KEYPOINT_NAMES

MEMORY_S = 0.2
_LEFT = [KEYPOINT_NAMES.index(name) for name in ("left_shoulder", "left_hip")]
_RIGHT = [KEYPOINT_NAMES.index(name) for name in ("right_shoulder", "right_hip")]


def left_axis(keypoints: np.ndarray) -> np.ndarray:
    """Unit vectors [N, 3] to the person's left, from keypoints [N, K, 3] m."""
    axis = (keypoints[:, _LEFT] - keypoints[:, _RIGHT]).astype(np.float64).sum(1)
    return axis / np.maximum(np.linalg.norm(axis, axis=-1, keepdims=True), 1e-9)


def find_flips(axis: np.ndarray, times: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Frames [N] bool in which the trunk is back to front, from axis [N, 3], times [N] s and seen [N] bool.

    Impossible reversals cut the clip into stretches of either sense; the sense with fewer frames is the flipped one.
    Frames not seen are left out (False), and a gap longer than MEMORY_S may hold any turn.
    """
    index = np.flatnonzero(seen)
    sign = np.ones(len(index))
    for i in range(1, len(index)):
        age = times[index[i]] - times[index[:i]]
        recent = np.flatnonzero(age <= MEMORY_S + 1e-6)
        if len(recent):
            expected = (sign[recent, None] * axis[index[recent]]).sum(0)
            sign[i] = 1.0 if expected @ axis[index[i]] >= 0 else -1.0
        else:
            sign[i] = sign[i - 1]
    flipped = np.zeros(len(axis), bool)
    flipped[index] = sign < 0 if (sign < 0).sum() <= (sign > 0).sum() else sign > 0
    return flipped


def true_flips(axis: np.ndarray, true_axis: np.ndarray) -> np.ndarray:
    """Frames [N] bool whose axis [N, 3] is over 90 degrees off the truth."""
    return (axis * true_axis).sum(-1) < 0


def longest_run(mask: np.ndarray) -> int:
    """Length of the longest run of True in [N] bool."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    return int((edges[1::2] - edges[::2]).max(initial=0))
