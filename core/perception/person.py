"""One person as tracking knows them: what was seen of them, how they moved, what they look like."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

import numpy as np
import torch

from core.perception.appearance import PATCH_COUNT, blend_appearance, describe_appearance
from core.perception.reading import Reading
from core.perception.roi import Roi, image_to_crop, wrap_angle
from core.skeleton import KEYPOINT_COUNT, KEYPOINT_NAMES

BODY = tuple(
    KEYPOINT_NAMES.index(f"{side}_{part}") for part in ("shoulder", "hip", "knee") for side in ("left", "right")
)
MOTION_FRAMES = 5
"""Frames from which speed is taken."""
REST_FRAMES = 3.0
"""In how many frames' way the hips come to rest in a somersault, where they go round."""
SIZE_FRAMES = 15
SURE = 0.3
"""Certainty from which a sample says where somebody was and how they turned; below, it may be anything."""
APPEARANCE_EVERY = 5
APPEARANCE_RATE = 0.3
QUALITY_FRAMES = 20


@dataclass(frozen=True)
class Look:
    """One person read from one crop."""

    reading: Reading
    """Of one crop: no leading dimension."""
    crop: np.ndarray
    """[256, 256, 3] uint8 BGR."""

    @property
    def presence(self) -> float:
        return float(self.reading.presence)

    @property
    def quality(self) -> float:
        """Presence times visibility, 0..1."""
        return float(self.reading.presence * self.reading.visibility)

    @property
    def certainty(self) -> float:
        """Mean keypoint confidence, 0..1."""
        return float(self.reading.keypoints[:, 2].mean())

    def describe(self) -> np.ndarray:
        """[P, 3] colours, see appearance.py."""
        points = image_to_crop(self.reading.keypoints[:, :2], self.reading.roi).numpy()
        return describe_appearance(self.crop, points, self.reading.keypoints[:, 2].numpy())


@dataclass(frozen=True)
class Sample:
    """One person in one frame. Coordinates in px of the image that tracking works on."""

    frame: int
    time: float
    keypoints: np.ndarray
    """[25, 3] float32."""
    world: np.ndarray
    """[25, 3] float32."""
    embedding: np.ndarray
    """[1152] float16."""
    presence: float
    visibility: float
    center: np.ndarray
    """[2], with size and angle the crop that the landmarks ask for."""
    size: float
    angle: float

    @property
    def certainty(self) -> float:
        """Mean keypoint confidence, 0..1."""
        return float(self.keypoints[:, 2].mean())

    @staticmethod
    def from_reading(frame: int, time: float, reading: Reading) -> Sample:
        return Sample(
            frame,
            time,
            reading.keypoints.numpy().astype(np.float32),
            reading.world.numpy().astype(np.float32),
            reading.embedding.numpy().astype(np.float16),
            float(reading.presence),
            float(reading.visibility),
            reading.next_roi.center.numpy().astype(np.float64),
            float(reading.next_roi.size),
            float(reading.next_roi.angle),
        )


@dataclass
class Person:
    """Samples are in frame order and may have gaps."""

    id: int
    roi: Roi
    """Where the next crop is to be taken."""
    samples: list[Sample] = field(default_factory=list)
    appearance: np.ndarray = field(default_factory=lambda: np.full((PATCH_COUNT, 3), np.nan, np.float32))
    is_lost: bool = False
    asked: int = 0
    """How often the detector was asked since the person was lost."""
    qualities: deque[float] = field(default_factory=lambda: deque(maxlen=QUALITY_FRAMES))
    """Of the latest frames that needed no search."""
    followed_time: float = 0.0
    """When the last of them was, in seconds."""
    shadows: dict[int, int] = field(default_factory=dict)
    """For how many frames in a row another person's reading has been the same body, by that person's id."""

    @property
    def last(self) -> Sample:
        return self.samples[-1]

    def add(self, frame: int, time: float, look: Look) -> None:
        """Append what was seen in a new frame."""
        self.samples.append(Sample.from_reading(frame, time, look.reading))
        self.roi, self.is_lost, self.asked = look.reading.next_roi, False, 0

    def remember_looks(self, look: Look) -> None:
        """Learn the person's colours; not to be called while somebody else is in the way."""
        if self.last.frame % APPEARANCE_EVERY == 0 or np.isnan(self.appearance).any():
            self.appearance = blend_appearance(self.appearance, look.describe(), APPEARANCE_RATE)

    def lose(self) -> None:
        self.is_lost, self.asked = True, 0
        self.shadows.clear()

    def sample_or_none(self, frame: int) -> Sample | None:
        """What was seen in a recent frame."""
        for sample in reversed(self.samples):
            if sample.frame <= frame:
                return sample if sample.frame == frame else None
        return None

    def latest_sure(self) -> list[Sample]:
        """Those of the latest samples that are sure; all of them where none is."""
        latest = self.samples[-SIZE_FRAMES:]
        return [s for s in latest if s.certainty >= SURE] or latest

    def expected_roi(self, frame: int, *, coming_to_rest: bool = False) -> Roi:
        """Where the person should be in a later frame, turning on as in the last few sure ones, and moving on as well
        or coming to rest."""
        known = self.latest_sure()
        last = known[-1]
        recent = [s for s in known if last.frame - s.frame <= MOTION_FRAMES]
        span, ahead = max(1, last.frame - recent[0].frame), frame - last.frame
        way = REST_FRAMES * (1 - math.exp(-ahead / REST_FRAMES)) if coming_to_rest else ahead
        center = last.center + (last.center - recent[0].center) * (way / span)
        turned = np.diff(np.unwrap([s.angle for s in recent])).sum()
        angle = torch.tensor(last.angle + turned * (ahead / span), dtype=torch.float32)
        size = float(np.median([s.size for s in known]))
        return Roi(torch.from_numpy(center.astype(np.float32)), torch.tensor(size), wrap_angle(angle))

    def continuity(self, count: int) -> float:
        """How well the last `count` samples continue the motion before them; higher is better."""
        before, now = self.samples[:-count], self.last
        if not before:
            return -np.inf
        start = before[max(0, len(before) - 1 - MOTION_FRAMES)]
        speed = (before[-1].center - start.center) / max(1, before[-1].frame - start.frame)
        expected = before[-1].center + speed * (now.frame - before[-1].frame)
        return -float(np.linalg.norm(now.center - expected)) / now.size + 1e-3 * min(len(before), 30)


def body_distance(a: np.ndarray, b: np.ndarray, size: float) -> float:
    """Median distance of shoulders, hips and knees of two readings [25, 3], as a fraction of `size` px."""
    assert a.shape == b.shape == (KEYPOINT_COUNT, 3)
    return float(np.median(np.linalg.norm(a[BODY, :2] - b[BODY, :2], axis=-1))) / size
