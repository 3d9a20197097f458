"""Crops of real videos: people with the original network's own reading for truth, and places without people.

Tuned on renders alone, a network forgets real pictures. What it is to keep of them is the original's reading of the
clean, well placed crop averaged with that of its mirror image; it sees the same person in crops moved, resized,
turned, mirrored and recoloured. The reading is carried over to each of those crops.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from core.errors import InputError
from core.perception import perceive
from core.perception.blazepose import CROP_SIZE, BlazePoseLandmarks
from core.perception.networks import Networks
from core.perception.reading import CropReading, mirror_reading, read_images, rotate_world
from core.perception.roi import Roi, crop_numpy, crop_to_image, image_to_crop
from core.records import Track
from core.synth.crops import Displacement, displace
from core.synth.dataset import roi_of
from core.train.landmarks.alter import recolour
from core.train.landmarks.features import CropBank, front_features, to_images, to_input
from core.video import VideoReader


@dataclass(frozen=True)
class FootageConfig:
    variants: int = 3
    """Crops of each person in each frame."""
    min_confidence: float = 0.7
    """Of a track in a frame, to be used at all."""
    min_presence: float = 0.5
    off: Displacement = Displacement()
    recoloured: float = 0.7
    mirrored: float = 0.5
    """Shares of crops."""
    empty_every: int = 4
    """Frames from one whose places without people are taken to the next."""
    empty_per_frame: int = 4
    empty_rendered: int = 2000
    """Places beside the people in rendered crops."""
    seed: int = 0


@dataclass(frozen=True)
class FootageBatch:
    """B real crops and the reading they are to keep."""

    features: Tensor
    """[B, 88, 16, 16] float32, channels last."""
    points: Tensor
    """[B, 39, 2] crop px."""
    world: Tensor
    """[B, 39, 3] metres, the crop's axes."""
    confidence: Tensor
    """[B, 39] 0..1."""


class FootageBank:
    """N real crops; features stay float16 until they are drawn."""

    def __init__(self, features: np.ndarray, points: np.ndarray, world: np.ndarray, confidence: np.ndarray):
        self.features, self.points, self.world, self.confidence = features, points, world, confidence

    def __len__(self) -> int:
        return len(self.features)

    def draw(self, count: int, generator: torch.Generator) -> FootageBatch:
        return self.pick(torch.randint(len(self), (count,), generator=generator).numpy())

    def pick(self, rows: np.ndarray) -> FootageBatch:
        truth = {k: torch.from_numpy(getattr(self, k)[rows]) for k in ("points", "world", "confidence")}
        return FootageBatch(features=to_input(self.features[rows]), **truth)


def collect_people(
    videos: Sequence[str | Path],
    network: BlazePoseLandmarks,
    networks: Networks,
    config: FootageConfig,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> FootageBank:
    """Crops of everybody in the videos. network reads them, networks finds people. on_progress counts videos.

    Raises InputError if nobody is there.
    """
    rows: list[tuple[np.ndarray, ...]] = []
    for number, path in enumerate(videos):
        rng = np.random.default_rng([config.seed, number])
        with VideoReader(path) as reader:
            wanted = _sightings(perceive(reader, networks=networks), config.min_confidence)
        with VideoReader(path) as reader:
            for frame in reader.frames_from(reader.start, lambda index, wanted=wanted: index in wanted):
                for keypoints in wanted.get(frame.index, ()):
                    rows += _crops_of(frame.image, keypoints, network, config, rng)
        if on_progress is not None:
            on_progress(number + 1, len(videos))
    if not rows:
        raise InputError("Nobody was found in the footage")
    crops, points, world, confidence = (np.stack(column) for column in zip(*rows))
    return FootageBank(front_features(network, crops), points, world, confidence)


def _sightings(tracks: Iterable[Track], min_confidence: float) -> dict[int, list[np.ndarray]]:
    """Frame index -> keypoints [25, 2] px of each person surely seen in it."""
    found: dict[int, list[np.ndarray]] = {}
    for track in tracks:
        for index, confidence, keypoints in zip(track.frames.tolist(), track.confidence, track.keypoints):
            if confidence > min_confidence:
                found.setdefault(index, []).append(keypoints[:, :2])
    return found


def _crops_of(
    image: np.ndarray, keypoints: np.ndarray, network: BlazePoseLandmarks, config: FootageConfig, rng
) -> list[tuple[np.ndarray, ...]]:
    """Of one person in a BGR frame: (crop RGB, points, world, confidence) by variant; none if nobody is read."""
    base = roi_of(torch.from_numpy(keypoints).float()[None])
    reading = read_twice(network, _crop(image, base))
    if float(reading.presence) < config.min_presence:
        return []
    rows = []
    generator = torch.Generator().manual_seed(int(rng.integers(1 << 62)))
    for _ in range(config.variants):
        roi = displace(base, config.off, generator)
        crop, carried = _crop(image, roi), carry(reading, base, roi)
        if rng.random() < config.recoloured:
            crop = _recolour(crop, rng)
        if rng.random() < config.mirrored:
            crop, carried = crop[:, ::-1], mirror_reading(carried)
        truth = (carried.points, carried.world, carried.confidence)
        rows.append((np.ascontiguousarray(crop), *(value[0].numpy() for value in truth)))
    return rows


@torch.inference_mode()
def read_twice(network: BlazePoseLandmarks, crop: np.ndarray) -> CropReading:
    """What the network reads from a crop [256, 256, 3] uint8 RGB and its mirror image together, of one person."""
    return read_images(network, to_images(np.ascontiguousarray(crop[None])), mirrored_under=math.inf)


def carry(reading: CropReading, base: Roi, roi: Roi) -> CropReading:
    """A reading of the crop at `base` in the coordinates and axes of the crop at `roi`."""
    return reading._replace(
        points=image_to_crop(crop_to_image(reading.points, base), roi),
        world=rotate_world(reading.world, base.angle - roi.angle),
    )


def _crop(image: np.ndarray, roi: Roi) -> np.ndarray:
    """[256, 256, 3] uint8 RGB of a BGR frame."""
    return crop_numpy(image, roi[0])[..., ::-1]


def _recolour(crop: np.ndarray, rng) -> np.ndarray:
    """Another gamma, brightness and white balance."""
    return recolour(crop, np.exp(rng.uniform(-0.3, 0.3)), rng.uniform(0.7, 1.2), 1 + rng.uniform(-0.1, 0.1, 3))


def collect_empty(
    videos: Sequence[str | Path], crops: CropBank, network: BlazePoseLandmarks, config: FootageConfig
) -> np.ndarray:
    """Features [n, 16, 16, 88] float16 of places that mostly hold nobody, rendered and filmed."""
    rng = np.random.default_rng([config.seed, len(videos)])
    pictures = crops.pictures(1, at_most=config.empty_rendered)
    keypoints = crops.every(1, at_most=config.empty_rendered).xy.numpy()
    places = [_emptiest(picture, xy, rng) for picture, xy in zip(pictures, keypoints)]
    for path in videos:
        with VideoReader(path) as reader:
            for frame in reader.frames_from(reader.start, lambda index: index % config.empty_every == 0):
                if frame.image.size:
                    places += [_anywhere(frame.image, rng) for _ in range(config.empty_per_frame)]
    return front_features(network, np.stack(places))


def _emptiest(picture: np.ndarray, xy: np.ndarray, rng, *, tries: int = 6) -> np.ndarray:
    """Of some squares in a crop the one with the fewest keypoints, enlarged to a crop."""
    side = int(rng.uniform(50, 190))
    corners = rng.integers(-30, CROP_SIZE - side + 30, (tries, 2))
    held = [((xy > corner) & (xy < corner + side)).all(1).sum() for corner in corners]
    corner = corners[int(np.argmin(held))]
    return crop_numpy(picture, _square(corner + side / 2, side, 0.0))


def _anywhere(image: np.ndarray, rng) -> np.ndarray:
    """A turned square of a BGR frame, small against the frame, as an RGB crop."""
    height, width = image.shape[:2]
    side = rng.uniform(0.15, 0.6) * min(height, width)
    center = rng.uniform(-side / 3, [width - side / 2, height - side / 2]) + side / 2
    return crop_numpy(image, _square(center, side, 0.4 * rng.normal()))[..., ::-1]


def _square(center: np.ndarray, side: float, angle: float) -> Roi:
    return Roi(torch.from_numpy(center).float(), torch.tensor(float(side)), torch.tensor(float(angle)))
