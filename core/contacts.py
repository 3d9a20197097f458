"""When feet touch the floor: probabilities for left heel, left toe, right heel, right toe.

A point touches where it is slow and near the lowest level the feet reach around that time; the level is local, so
that who stands on a roof or a stair stands too; where the floor is known, near it is low as well, whatever a badly
seen other foot does. Thresholds are in metres and seconds. Labels have hysteresis: a touch
begins when it is likely and ends when it is unlikely, and lasts for a while; probabilities are moved to the label's
side of one half. N frames; numpy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from core.skeleton import KEYPOINT_NAMES

CONTACT_NAMES = ("left_heel", "left_toe", "right_heel", "right_toe")
OTHER_END = [1, 0, 3, 2]
"""The other column of the same foot."""
CONTACT_KEYPOINTS = tuple(KEYPOINT_NAMES.index(name) for name in CONTACT_NAMES)


@dataclass(frozen=True)
class ContactOptions:
    speed: float = 0.45
    """m/s at which a touch is as likely as not."""
    speed_softness: float = 0.12
    depth_share: float = 0.5
    """Part of the speed along the view (the world's y) that counts: one camera sees least there."""
    height: float = 0.09
    """m above the local level at which a touch is as likely as not."""
    height_softness: float = 0.02
    raised: float = 0.045
    """m that heel or toe may be higher than the other one of a foot, against how they stand, to be as likely as not
    down as well."""
    raised_softness: float = 0.01
    level_s: float = 0.4
    """Seconds to both sides over which the local level is the lowest point of the feet."""
    begin: float = 0.6
    end: float = 0.35
    least_s: float = 0.08
    """Seconds a touch or a lift lasts at least."""


def label_contacts(
    points: np.ndarray,
    times: np.ndarray,
    options: ContactOptions = ContactOptions(),
    *,
    on_floor: np.ndarray | None = None,
) -> np.ndarray:
    """points [N, 4, 3] m of CONTACT_NAMES in the world (z up), times [N] s -> probabilities [N, 4] float32.

    on_floor [4] m: their heights on a floor that is known; only then heel and toe are told apart.
    """
    points, times = np.asarray(points, np.float64), np.asarray(times, np.float64)
    if len(points) == 0:
        return np.zeros((0, 4), np.float32)
    speed = point_speeds(points * (1, options.depth_share, 1), times)
    lowest = points[..., 2].min(1)
    first = np.searchsorted(times, times - options.level_s)
    last = np.searchsorted(times, times + options.level_s, side="right")
    level = np.array([lowest[a:b].min() for a, b in zip(first, last)])
    height = points[..., 2] - level[:, None]
    if on_floor is not None:
        above = points[..., 2] - on_floor
        height = np.minimum(height, above)
    likely = _falling(speed, options.speed, options.speed_softness)
    likely = likely * _falling(height, options.height, options.height_softness)
    if on_floor is not None:
        likely = likely * _falling(above - above[:, OTHER_END], options.raised, options.raised_softness)
    labels = np.stack([_hysteresis(likely[:, i], times, options) for i in range(4)], 1)
    return np.where(labels, np.maximum(likely, 0.51), np.minimum(likely, 0.49)).astype(np.float32)


def point_speeds(points: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Speed [N, P] m/s of points [N, P, 3] by central differences; 0 for a single frame."""
    if len(points) < 2:
        return np.zeros(points.shape[:2])
    return np.linalg.norm(np.gradient(points, times, axis=0), axis=-1)


def _falling(value: np.ndarray, middle: float, softness: float) -> np.ndarray:
    return 1 / (1 + np.exp(np.clip((value - middle) / softness, -40, 40)))


def _hysteresis(likely: np.ndarray, times: np.ndarray, options: ContactOptions) -> np.ndarray:
    """[N] bool."""
    labels = np.zeros(len(likely), bool)
    touching = likely[0] >= 0.5
    for t, p in enumerate(likely):
        touching = p >= options.end if touching else p >= options.begin
        labels[t] = touching
    for value in (False, True):  # first close short lifts, then drop short touches
        labels = _drop_short(labels, value, times, options.least_s)
    return labels


def _drop_short(labels: np.ndarray, value: bool, times: np.ndarray, least_s: float) -> np.ndarray:
    """Turn runs of `value` shorter than least_s over, save at the ends, where they may go on unseen."""
    labels = labels.copy()
    edges = np.flatnonzero(np.diff(labels.astype(np.int8))) + 1
    bounds = [0, *edges.tolist(), len(labels)]
    for start, stop in zip(bounds, bounds[1:]):
        is_inner = start > 0 and stop < len(labels)
        if is_inner and labels[start] == value and times[stop] - times[start] < least_s:
            labels[start:stop] = not value
    return labels
