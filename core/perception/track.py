"""Following several people from frame to frame: each has their own crop, the detector finds who is new.

A person is read from the crop that the previous frame's landmarks ask for. Where that fails, and every few frames,
the detector proposes people; proposals that are nobody's become new people, or people lost a moment ago, judged by
place, size and colours. Two crops that settle on one body are told apart by the same measure: the worse one is
lost. Keypoints are never smoothed here. What this leaves, one Tracklet per uninterrupted stretch, `stitch.py`
turns into tracks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from core.perception.anchors import Detection, suppress_overlaps
from core.perception.appearance import PATCH_COUNT, appearance_distance, blend_appearance, describe_appearance
from core.perception.networks import Networks
from core.perception.reading import Reading
from core.perception.roi import Roi, crop_numpy, image_to_crop, roi_from_points, stack_rois, wrap_angle
from core.skeleton import KEYPOINT_COUNT, KEYPOINT_NAMES

BODY = tuple(
    KEYPOINT_NAMES.index(f"{side}_{part}") for part in ("shoulder", "hip", "knee") for side in ("left", "right")
)


@dataclass(frozen=True)
class TrackingConfig:
    """Distances are fractions of a crop's side, which is about 1.5 times the body's height."""

    max_people: int = 4
    detect_every: int = 6
    """Frames between searches for new people."""
    min_presence: float = 0.5
    max_shift: float = 0.3
    """A crop that would move further in one frame is not believed."""
    max_growth: float = 1.5
    same_body: float = 0.06
    """Readings whose bodies lie closer than this show one person."""
    same_frames: int = 2
    """Frames two people may coincide before one is taken to be lost."""
    near: float = 0.35
    """A detection this close to a person's crop is that person's own."""
    search_seconds: float = 0.25
    """How long crops around the expected place, turned several ways, are tried for a person nothing is seen of..."""
    search_seconds_at_most: float = 1.0
    """... and for one that only such tries have found lately..."""
    search_quality: float = 0.6
    """... whose presence times confidence was this good before, on average of `search_frames` frames..."""
    search_frames: int = 20
    search_inside: float = 0.75
    """... and of whose body this part is expected inside the picture."""
    search_turns: tuple[float, ...] = (0.0, 0.6, -0.6, 1.2, -1.2, torch.pi)
    """Radians added to the expected angle: a body in a somersault turns faster than crops can follow."""
    min_search_confidence: float = 0.5
    """Mean keypoint confidence that such a try must reach."""
    max_search_turn: float = 0.8
    """A try whose landmarks ask for a crop turned further than this contradicts itself."""
    lost_seconds: float = 1.5
    """How long a lost person is looked for."""
    reach_per_second: float = 1.0
    """How fast a lost person may have moved on, added to `near`."""
    other_colours: float = 22.0
    """Appearance distance above which two readings are different people."""
    colour_rate: float = 0.1


@dataclass
class Sample:
    """One person in one frame."""

    frame: int
    time: float
    keypoints: np.ndarray
    world: np.ndarray
    embedding: np.ndarray
    presence: float
    center: np.ndarray
    size: float
    angle: float


@dataclass
class Tracklet:
    """An uninterrupted stretch of one person."""

    person: int
    samples: list[Sample] = field(default_factory=list)
    appearance: np.ndarray = field(default_factory=lambda: np.full((PATCH_COUNT, 3), np.nan, np.float32))


@dataclass
class _Person:
    id: int
    tracklet: Tracklet
    roi: Roi
    is_lost: bool = False
    tries: int = 0
    """Frames since the person was lost in which the detector was asked."""
    plain: deque[float] = field(default_factory=deque)
    """Presence times confidence of the latest frames that no search was needed for."""
    plain_time: float = 0.0
    """When the last of them was."""
    shadows: dict[int, int] = field(default_factory=dict)
    """Frames in a row that this person coincided with another, by id."""

    @property
    def last(self) -> Sample:
        return self.tracklet.samples[-1]


class Tracker:
    """Feed frames in order with `step`; `tracklets` holds what was found so far."""

    def __init__(self, networks: Networks, config: TrackingConfig | None = None):
        self.networks = networks
        self.config = config or TrackingConfig()
        self.tracklets: list[Tracklet] = []
        self._people: list[_Person] = []
        self._next_id = 0

    def wants_detections(self) -> bool:
        """True if the coming frame would be searched whatever its number: somebody was lost just now."""
        return any(p.is_lost and p.tries < 3 for p in self._people)

    def step(
        self,
        index: int,
        time: float,
        image: np.ndarray,
        detections: list[Detection] | None,
        detect: Callable[[], list[Detection]],
    ) -> None:
        """One frame. image: [H, W, 3] uint8 BGR. detections: found in it already, or None if it was not searched;
        then `detect` is called when a person is lost. Coordinates are those of `image`."""
        active = [p for p in self._people if not p.is_lost]
        readings = self._read(image, [p.roi for p in active])
        for k, person in enumerate(active):
            reading = readings[k]
            if self._is_believable(person, reading):
                self._append(person, index, time, image, reading)
                person.plain.append(float(reading.presence * reading.keypoints[:, 2].mean()))
                person.plain_time = time
            else:
                person.is_lost, person.tries = True, 0
        self._search(index, time, image)
        self._separate()
        self._forget(time)
        if detections is None and self.wants_detections():
            detections = detect()
        if detections is not None:
            for person in self._people:
                person.tries += person.is_lost
            self._admit(index, time, image, detections)

    def _read(self, image: np.ndarray, rois: list[Roi]) -> list[Reading]:
        if not rois:
            return []
        crops = np.stack([crop_numpy(image, roi) for roi in rois])
        batch = self.networks.read(crops, stack_rois(rois))
        self._crops = crops
        return [batch[k] for k in range(len(rois))]

    def _is_believable(self, person: _Person, reading: Reading) -> bool:
        if float(reading.presence) < self.config.min_presence:
            return False
        size, next_size = float(reading.roi.size), float(reading.next_roi.size)
        shift = float((reading.next_roi.center - reading.roi.center).norm()) / size
        growth = max(next_size / size, size / max(next_size, 1e-6))
        return shift <= self.config.max_shift and growth <= self.config.max_growth

    def _search(self, index: int, time: float, image: np.ndarray) -> None:
        """Try turned crops where people lost a moment ago are expected, all in one batch."""
        config, height, width = self.config, image.shape[0], image.shape[1]
        tries: list[tuple[_Person, float]] = []
        rois: list[Roi] = []
        for person in self._people:
            if not person.is_lost or time - person.last.time > config.search_seconds:
                continue
            if time - person.plain_time > config.search_seconds_at_most:
                continue
            expected = _extrapolate(person.tracklet.samples, index)
            if not self._is_worth_searching(person, expected, width, height):
                continue
            for turn in config.search_turns:
                tries.append((person, turn))
                rois.append(Roi(expected.center, expected.size, wrap_angle(expected.angle + turn)))
        readings = self._read(image, rois)
        best: dict[int, tuple[float, _Person, Reading]] = {}
        for (person, turn), reading in zip(tries, readings):
            confidence = float(reading.keypoints[:, 2].mean())
            turned = abs(float(wrap_angle(reading.next_roi.angle - reading.roi.angle)))
            if not self._is_believable(person, reading) or confidence < config.min_search_confidence:
                continue
            if turned > config.max_search_turn or self._is_taken(reading):
                continue
            difference = appearance_distance(person.tracklet.appearance, self._describe(image, reading))
            if difference > config.other_colours:
                continue
            score = float(reading.presence) * confidence - 0.1 * abs(turn)
            if person.id not in best or score > best[person.id][0]:
                best[person.id] = (score, person, reading)
        for _, person, reading in best.values():
            self._append(person, index, time, image, reading)

    def _is_worth_searching(self, person: _Person, expected: Roi, width: int, height: int) -> bool:
        config, plain = self.config, person.plain
        if len(plain) < config.search_frames or np.mean(plain) < config.search_quality:
            return False
        shift = expected.center.numpy() - person.last.center
        box = np.concatenate(
            (person.last.keypoints[:, :2].min(0) + shift, person.last.keypoints[:, :2].max(0) + shift)
        )
        inside = np.minimum(box[2:], (width, height)) - np.maximum(box[:2], 0)
        return bool(np.prod(np.clip(inside, 0, None)) >= config.search_inside * np.prod(box[2:] - box[:2]))

    def _is_taken(self, reading: Reading) -> bool:
        """True if the reading shows a person who is followed already."""
        keypoints, size = reading.keypoints.numpy(), float(reading.next_roi.size)
        others = [p.last.keypoints for p in self._people if not p.is_lost]
        return any(body_distance(keypoints, other, size) <= 2 * self.config.same_body for other in others)

    def _append(self, person: _Person, index: int, time: float, image: np.ndarray, reading: Reading) -> None:
        keypoints = reading.keypoints.numpy()
        colours = self._describe(image, reading)
        rate = self.config.colour_rate if not person.shadows else 0.0
        tracklet = person.tracklet
        if tracklet.samples and tracklet.samples[-1].frame != index - 1:  # back after a gap
            tracklet = Tracklet(person.id, appearance=person.tracklet.appearance)
            self.tracklets.append(tracklet)
            person.tracklet = tracklet
        tracklet.samples.append(
            Sample(
                index,
                time,
                keypoints.astype(np.float32),
                reading.world.numpy().astype(np.float32),
                reading.embedding.numpy().astype(np.float16),
                float(reading.presence),
                reading.next_roi.center.numpy().astype(np.float64),
                float(reading.next_roi.size),
                float(reading.next_roi.angle),
            )
        )
        tracklet.appearance = blend_appearance(tracklet.appearance, colours, rate)
        person.roi, person.is_lost = reading.next_roi, False

    def _describe(self, image: np.ndarray, reading: Reading) -> np.ndarray:
        crop = crop_numpy(image, reading.roi, crop_size=128)
        points = image_to_crop(reading.keypoints[:, :2], reading.roi, crop_size=128).numpy()
        return describe_appearance(crop, points, reading.keypoints[:, 2].numpy())

    def _separate(self) -> None:
        """Where two people's readings have become one body, keep the better match and lose the other."""
        active = [p for p in self._people if not p.is_lost]
        for k, first in enumerate(active):
            for second in active[k + 1 :]:
                if first.is_lost or second.is_lost:
                    continue
                if (
                    body_distance(first.last.keypoints, second.last.keypoints, first.last.size)
                    > self.config.same_body
                ):
                    first.shadows.pop(second.id, None)
                    second.shadows.pop(first.id, None)
                    continue
                together = first.shadows[second.id] = second.shadows[first.id] = first.shadows.get(second.id, 0) + 1
                if together >= self.config.same_frames:
                    self._lose_one(first, second, together)

    def _lose_one(self, first: _Person, second: _Person, together: int) -> None:
        loser = min((first, second), key=lambda p: _continuity(p, together))
        other = second if loser is first else first
        del loser.tracklet.samples[-together:]
        loser.shadows.clear()
        other.shadows.pop(loser.id, None)
        loser.is_lost, loser.tries = True, 0
        if not loser.tracklet.samples:
            self._people.remove(loser)

    def _forget(self, time: float) -> None:
        self._people = [p for p in self._people if not p.is_lost or time - p.last.time <= self.config.lost_seconds]

    def _admit(self, index: int, time: float, image: np.ndarray, detections: list[Detection]) -> None:
        """Turn detections that are nobody's into people: those lost a moment ago, or new ones."""
        fresh = [roi_from_detection(d) for d in suppress_overlaps(detections)]
        active = [p for p in self._people if not p.is_lost]
        fresh = [roi for roi in fresh if not any(self._is_own(person, roi) for person in active)]
        fresh = fresh[: 2 * self.config.max_people]
        first_readings = [r for r in self._read(image, fresh) if float(r.presence) >= self.config.min_presence]
        # The detector's crop is rough: read again where the landmarks say.
        readings = self._read(image, [r.next_roi for r in first_readings])
        readings = [r for r in readings if float(r.presence) >= self.config.min_presence]
        readings.sort(key=lambda r: -float(r.presence) * float(r.next_roi.size))
        for reading in readings:
            if self._is_taken(reading):
                continue
            person = self._recognise_or_none(time, image, reading)
            if person is None:
                if len([p for p in self._people if not p.is_lost]) >= self.config.max_people:
                    continue
                person = self._create(reading)
            person.shadows.clear()
            self._append(person, index, time, image, reading)

    def _is_own(self, person: _Person, roi: Roi) -> bool:
        distance = float((person.roi.center - roi.center).norm())
        return distance <= self.config.near * 0.5 * float(person.roi.size)

    def _create(self, reading: Reading) -> _Person:
        tracklet = Tracklet(self._next_id)
        person = _Person(self._next_id, tracklet, reading.next_roi, plain=deque(maxlen=self.config.search_frames))
        self._next_id += 1
        self._people.append(person)
        self.tracklets.append(tracklet)
        return person

    def _recognise_or_none(self, time: float, image: np.ndarray, reading: Reading) -> _Person | None:
        """The lost person that a reading most likely is."""
        colours = self._describe(image, reading)
        center, size = reading.next_roi.center.numpy(), float(reading.next_roi.size)
        best, best_cost = None, 1.0
        for person in self._people:
            if not person.is_lost:
                continue
            gap = time - person.last.time
            reach = self.config.near + self.config.reach_per_second * gap
            distance = float(np.linalg.norm(center - person.last.center)) / max(size, person.last.size)
            ratio = max(size / person.last.size, person.last.size / size)
            difference = appearance_distance(person.tracklet.appearance, colours)
            strange = 0.5 if np.isnan(difference) else difference / self.config.other_colours
            cost = 0.5 * distance / reach + 0.5 * strange
            if distance <= reach and ratio <= self.config.max_growth + gap and strange <= 1 and cost < best_cost:
                best, best_cost = person, cost
        return best


def roi_from_detection(detection: Detection) -> Roi:
    """The crop a detection asks for, by its hip centre and full-body scale point."""
    points = torch.from_numpy(detection.points.astype(np.float32))
    return roi_from_points(points[0], points[1])


def body_distance(a: np.ndarray, b: np.ndarray, size: float) -> float:
    """Median distance of shoulders, hips and knees of two readings [25, 3], as a fraction of `size` px."""
    assert a.shape == (KEYPOINT_COUNT, 3)
    return float(np.median(np.linalg.norm(a[BODY, :2] - b[BODY, :2], axis=-1))) / size


def _extrapolate(samples: list[Sample], index: int) -> Roi:
    """Where a person last seen in samples[-1] is expected in frame `index`, from their motion over 5 frames."""
    recent = [s for s in samples[-6:] if samples[-1].frame - s.frame <= 5]
    steps = max(1, recent[-1].frame - recent[0].frame)
    ahead = (index - recent[-1].frame) / steps
    turns = np.diff(np.unwrap([s.angle for s in recent])).sum()
    center = recent[-1].center + (recent[-1].center - recent[0].center) * ahead
    size = float(np.median([s.size for s in samples[-15:]]))
    angle = torch.tensor(recent[-1].angle + turns * ahead, dtype=torch.float32)
    return Roi(torch.from_numpy(center.astype(np.float32)), torch.tensor(size), wrap_angle(angle))


def _continuity(person: _Person, together: int) -> float:
    """How well the last `together` samples continue what came before; higher is better."""
    samples = person.tracklet.samples
    if len(samples) <= together:
        return -np.inf
    before, now = samples[: len(samples) - together], samples[-1]
    speed = (before[-1].center - before[max(0, len(before) - 6)].center) / max(1, min(5, len(before) - 1))
    expected = before[-1].center + speed * together
    return -float(np.linalg.norm(now.center - expected)) / now.size + 1e-3 * min(len(before), 30)
