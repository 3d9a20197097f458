"""People as tracking leaves them to tracks: gaps bridged, chance finds dropped, sorted by how much they matter."""

from __future__ import annotations

import numpy as np

from core.perception.blazepose import EMBEDDING_SIZE
from core.perception.person import Person, Sample
from core.perception.turns import fill_turns
from core.records import Clip, Track
from core.skeleton import KEYPOINT_COUNT

MIN_FRAMES = 8
MIN_SECONDS = 0.25
MIN_QUALITY = 0.4
"""Presence times visibility under which a person's first and last frames are not believed."""
MIN_MEAN_QUALITY = 0.45
"""The same on average, under which somebody is a chance find."""
OUTSIDE_CONFIDENCE = 0.3
"""At most this for points outside the picture: the network guesses them, nothing was seen."""
BOX_CONFIDENCE = 0.3
FILLED_CONFIDENCE = 0.7
"""Share of the lower of its neighbours' confidence that a frame between two looks gets."""


def build_tracks(
    found: list[Person],
    times: np.ndarray,
    first: int,
    clip: Clip,
    *,
    scale: float,
    max_people: int,
    numbers: dict[int, int] | None = None,
    look_every: int = 1,
) -> list[Track]:
    """People found in the frames [first, first + len(times)) -> tracks, most prominent first, numbered from 0.

    times [N]: seconds of every frame, so that bridged frames have theirs. scale: px of the samples per px of the
    clip's frames. numbers: person's id -> number already given (sofar.py); the others get those that are free.
    look_every: frames between looks (TrackingConfig.look_every).
    """
    trimmed = [(person.id, trim_samples(person.samples)) for person in found]
    kept = [(id_, samples) for id_, samples in trimmed if is_person(samples)]
    kept.sort(key=lambda pair: -_prominence(pair[1]))
    given = dict(numbers or {})
    free = (n for n in range(len(kept) + len(given)) if n not in given.values())
    tracks = []
    for id_, samples in kept[:max_people]:
        number = given[id_] if id_ in given else next(free)
        tracks.append(build_track(number, samples, times, first, clip, scale, look_every))
    return tracks


def _quality(sample: Sample) -> float:
    return sample.presence * sample.visibility


def trim_samples(samples: list[Sample]) -> list[Sample]:
    """Samples without the dubious frames at either end, where somebody comes or goes."""
    good = [k for k, sample in enumerate(samples) if _quality(sample) >= MIN_QUALITY]
    return samples[good[0] : good[-1] + 1] if good else []


def is_person(samples: list[Sample]) -> bool:
    """Whether trimmed samples show somebody, rather than a chance find."""
    if len(samples) < MIN_FRAMES or samples[-1].time - samples[0].time < MIN_SECONDS:
        return False
    return float(np.mean([_quality(sample) for sample in samples])) >= MIN_MEAN_QUALITY


def _prominence(samples: list[Sample]) -> float:
    """Frames times height."""
    return float(sum(np.ptp(s.keypoints[:, 1]) for s in samples))


def build_track(
    person: int,
    samples: list[Sample],
    times: np.ndarray,
    first: int,
    clip: Clip,
    scale: float,
    look_every: int = 1,
) -> Track:
    """One person's track over all frames from the first sample to the last; arguments as in `build_tracks`.

    Frames that were not looked at are filled in from both sides, with a lower confidence, and so are fast turns
    (turns.py); where somebody was not seen else when looked at, all frames between are a gap.
    """
    samples = fill_turns(samples, times, first, look_every=look_every)
    seen = np.array([s.frame for s in samples])
    frames = np.arange(seen[0], seen[-1] + 1)
    is_seen = np.zeros(len(frames), bool)
    is_seen[seen - seen[0]] = True

    def bridge(values: np.ndarray) -> np.ndarray:
        """[seen, ...] -> [frames, ...], linear in time over gaps."""
        flat = values.reshape(len(seen), -1).astype(np.float64)
        at, known = times[frames - first], times[seen - first]
        columns = [np.interp(at, known, column) for column in flat.T]
        return np.stack(columns, -1).reshape(len(frames), *values.shape[1:])

    keypoints = bridge(np.stack([s.keypoints for s in samples])).astype(np.float32)
    keypoints[..., :2] /= scale
    outside = ((keypoints[..., :2] < 0) | (keypoints[..., :2] >= (clip.width, clip.height))).any(-1)
    keypoints[..., 2] = np.where(outside, np.minimum(keypoints[..., 2], OUTSIDE_CONFIDENCE), keypoints[..., 2])
    before = np.searchsorted(seen, frames, side="right") - 1
    after = np.minimum(before + 1, len(seen) - 1)
    is_filled = ~is_seen & (seen[after] - seen[before] <= look_every)
    earlier, later = seen[before[is_filled]] - seen[0], seen[after[is_filled]] - seen[0]
    keypoints[is_filled, :, 2] = FILLED_CONFIDENCE * np.minimum(keypoints[earlier, :, 2], keypoints[later, :, 2])
    keypoints[~is_seen & ~is_filled, :, 2] = 0
    features = np.zeros((len(frames), EMBEDDING_SIZE), np.float16)
    features[is_seen] = np.stack([s.embedding for s in samples])
    features[is_filled] = (features[earlier].astype(np.float32) + features[later]) / 2
    confidence = np.zeros(len(frames), np.float32)
    confidence[is_seen] = [s.presence for s in samples]
    confidence[is_filled] = FILLED_CONFIDENCE * np.minimum(confidence[earlier], confidence[later])
    return Track(
        person=person,
        frames=frames.astype(np.int32),
        times=times[frames - first].astype(np.float64),
        keypoints=keypoints,
        landmarks3d=bridge(np.stack([s.world for s in samples])).astype(np.float32),
        features=features,
        confidence=confidence,
        boxes=(bridge(np.stack([box_of(s.keypoints) for s in samples])) / scale).astype(np.float32),
    )


def box_of(keypoints: np.ndarray) -> np.ndarray:
    """[25, 3] -> [4] x0 y0 x1 y1 around the points that are seen (all of them if none is), a tenth larger."""
    assert keypoints.shape == (KEYPOINT_COUNT, 3)
    seen = keypoints[keypoints[:, 2] >= BOX_CONFIDENCE, :2]
    points = seen if len(seen) >= 3 else keypoints[:, :2]
    low, high = points.min(0), points.max(0)
    margin = 0.1 * (high - low)
    return np.concatenate((low - margin, high + margin))
