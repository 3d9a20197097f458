"""How a camera turned while it filmed: rotations from the background, for a camera that pans on its tripod.

Corners of the background (people's boxes left out) are followed from frame to frame; as long as enough of those of a
key frame are seen, a frame's rotation comes from the rays of that key frame at once, so that errors add up only from
one key frame to the next. A camera that hardly turned is taken to stand still. A camera that also moves from its
place is not modelled: what is near it then turns otherwise than what is far. N frames, M corners.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from core.records import Camera, Track
from core.rotation import matrix_to_axis_angle, nearest_rotation
from core.video import Frame

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class PanningOptions:
    width: int = 480
    """px to which frames are reduced."""
    corners: int = 300
    fewest: int = 40
    """Corners without which a frame is taken as turned like the one before; below twice as many a new key frame is
    taken."""
    spread: float = 0.5
    """Share of the picture's width that corners may have moved before a new key frame is taken."""
    round_trip: float = 0.7
    """px by which a corner followed there and back may miss."""
    inlier: float = 1.5
    """px that a corner of the still background may be off."""
    tries: int = 80
    margin: float = 0.15
    """Share of a person's box that is left out around it."""
    still_deg: float = 0.4
    """A camera that never turned farther stands still."""


def track_camera(
    frames: Iterable[Frame],
    camera: Camera,
    tracks: list[Track],
    *,
    options: PanningOptions = PanningOptions(),
    on_progress: Callable[[int], None] = lambda done: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[int, np.ndarray]:
    """Rotation [3, 3] from the camera's axes at each frame (key: its index in the source) to those at the first.

    Empty where the camera stood still. Stopped early, the later frames are missing.
    """
    boxes = [{int(f): box for f, box in zip(track.frames, track.boxes)} for track in tracks]
    follower = _Follower(camera, options)
    turns: dict[int, np.ndarray] = {}
    for frame in frames:
        if should_stop():
            break
        turns[frame.index] = follower.next(frame.image, [b[frame.index] for b in boxes if frame.index in b])
        on_progress(len(turns))
    stacked = torch.from_numpy(np.stack([np.eye(3), *turns.values()]))
    largest = float(matrix_to_axis_angle(stacked).norm(dim=-1).max())
    LOG.info("the camera turned by %.1f degrees at most", math.degrees(largest))
    return turns if largest > math.radians(options.still_deg) else {}


class _Follower:
    """Frame by frame: corners of the last key frame, and where they are now."""

    def __init__(self, camera: Camera, options: PanningOptions):
        self.options = options
        self.scale = min(1.0, options.width / camera.width)
        self.focal = np.array([camera.fx, camera.fy])
        self.centre = np.array([camera.cx, camera.cy])
        self.random = np.random.default_rng(0)
        self.image: np.ndarray | None = None
        self.turn = self.key_turn = np.eye(3)
        self.start = self.now = np.zeros((0, 2), np.float32)  # [M, 2] px of the reduced picture

    def next(self, picture: np.ndarray, boxes: list[np.ndarray]) -> np.ndarray:
        image = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
        if self.scale < 1:
            image = cv2.resize(image, None, fx=self.scale, fy=self.scale, interpolation=cv2.INTER_AREA)
        background = self._background(image.shape, boxes)
        if self.image is not None:
            self._follow(image, background)
            found = self._rotation() if len(self.now) >= self.options.fewest else None
            if found is not None:
                R, is_inlier = found
                self.turn = self.key_turn @ R
                self.start, self.now = self.start[is_inlier], self.now[is_inlier]
        moved = np.abs(self.now - self.start).max() if len(self.now) else np.inf
        if len(self.now) < 2 * self.options.fewest or moved > self.options.spread * image.shape[1]:
            corners = cv2.goodFeaturesToTrack(image, self.options.corners, 0.01, 7, mask=background)
            self.start = self.now = np.zeros((0, 2), np.float32) if corners is None else corners[:, 0]
            self.key_turn = self.turn
        self.image = image
        return self.turn

    def _background(self, shape: tuple[int, ...], boxes: list[np.ndarray]) -> np.ndarray:
        mask = np.full(shape, 255, np.uint8)
        for x0, y0, x1, y1 in np.asarray(boxes, np.float64).reshape(-1, 4) * self.scale:
            dx, dy = self.options.margin * (x1 - x0), self.options.margin * (y1 - y0)
            low = np.maximum(np.floor([y0 - dy, x0 - dx]).astype(int), 0)
            high = np.maximum(np.ceil([y1 + dy, x1 + dx]).astype(int), 0)
            mask[low[0] : high[0], low[1] : high[1]] = 0
        return mask

    def _follow(self, image: np.ndarray, background: np.ndarray) -> None:
        """Where the corners are in the next picture; those that are lost or behind people are given up."""
        if not len(self.now):
            return
        before = self.now.reshape(-1, 1, 2)
        after, seen, _ = cv2.calcOpticalFlowPyrLK(self.image, image, before, None)
        back, seen_back, _ = cv2.calcOpticalFlowPyrLK(image, self.image, after, None)
        kept = (seen[:, 0] > 0) & (seen_back[:, 0] > 0)
        kept &= np.linalg.norm(back - before, axis=-1)[:, 0] < self.options.round_trip
        column, row = np.nan_to_num(after[:, 0]).round().astype(int).T
        inside = (column >= 0) & (row >= 0) & (column < image.shape[1]) & (row < image.shape[0])
        kept &= inside & (background[np.where(inside, row, 0), np.where(inside, column, 0)] > 0)
        self.start, self.now = self.start[kept], after[kept, 0]

    def _rays(self, points: np.ndarray) -> np.ndarray:
        """Unit vectors [M, 3] of points [M, 2] of the reduced picture."""
        plane = ((points + 0.5) / self.scale - 0.5 - self.centre) / self.focal
        rays = np.concatenate([plane, np.ones((len(plane), 1))], 1)
        return rays / np.linalg.norm(rays, axis=1, keepdims=True)

    def _rotation(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Rotation [3, 3] from this frame's axes to the key frame's and which corners agree; None if too few do."""
        there, here = self._rays(self.start), self._rays(self.now)
        limit = self.options.inlier / self.scale / self.focal.mean()
        pairs = self.random.integers(len(here), size=(self.options.tries, 3))
        guesses = _align(here[pairs], there[pairs])
        off = np.linalg.norm(np.einsum("nab,mb->nma", guesses, here) - there, axis=-1)
        is_inlier = off[(off < limit).sum(1).argmax()] < limit
        for _ in range(2):
            if is_inlier.sum() < self.options.fewest // 2:
                return None
            R = _align(here[None, is_inlier], there[None, is_inlier])[0]
            is_inlier = np.linalg.norm(here @ R.T - there, axis=-1) < limit
        return R, is_inlier


def _align(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Rotations [n, 3, 3] that take vectors a [n, M, 3] to b best."""
    return nearest_rotation(torch.from_numpy(np.einsum("nmi,nmj->nij", b, a))).numpy()


def rotations_at(turns: dict[int, np.ndarray], frames: np.ndarray) -> np.ndarray:
    """Rotations [n, 3, 3] of frames [n]; a frame that is missing turns as the nearest one does."""
    known = np.array(sorted(turns))
    nearest = known[np.abs(known[None] - np.asarray(frames)[:, None]).argmin(1)]
    return np.stack([turns[int(f)] for f in nearest])
