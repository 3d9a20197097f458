"""Is a recovered motion as calm as captured motion that moves as fast? Jitter beside that of a motion bank.

Fast motion accelerates more than slow motion, so jitter says little alone. Here every second of a film is compared
with all seconds of captured motion whose limb keypoints move as fast about the hips: the bank's rotations on the
person's own body, the same twelve keypoints, the same measure. Windows are matched by mean speed; the peak speed
besides explains hardly more of the jitter (its residual spread falls from 0.36 to 0.35 in log units), and a sudden
error of the method would raise it and so excuse itself. Speed is taken over SPEED_S, which jitter adds little to.

Both sides come at one rate, the film's or the bank's, whichever is lower: a second difference over longer frames is
larger. At the bank's rate (within SAME_RATE) nothing is resampled. Otherwise the faster one is read off polynomials
of fifth degree through its samples, without low pass, as the bank itself was thinned out from faster capture.
Read so at 25 a second, a bank's waves of up to 6 Hz keep their acceleration within one per cent; those of 10 Hz lose
12, of 14 Hz 40 per cent, so what is resampled counts less where it is noise. A line between samples would make kinks.

N frames, P points, W windows. Speeds in mm/s; jitter in mm/frame^2 of the common rate. README.md lists the columns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from core.errors import InputError
from core.evaluate.footage import motion_keypoints
from core.evaluate.measure import about_hips
from core.evaluate.metrics import MM
from core.records import CameraMotion, Motion, Track
from core.rotation import axis_angle_to_matrix, quaternion_to_matrix
from core.synth.motion import FPS, MotionBank

WINDOW_S = 1.0
SPEED_S = 0.1
"""Time between the two places that a speed is taken from."""
LIKE_SHARE, LIKE_MM_S = 0.15, 10.0
"""How far speeds of like windows are apart at most: this share, or this much where that is more."""
LEAST = 30
"""Like windows without which nothing is said of a window."""
SAME_RATE = 0.01
UNEVEN = 0.1
"""Share of a frame's length that frames may differ by and still be taken as even."""
HAND_KEYED = frozenset({"cc0_quaternius"})
"""Subjects of banks whose motion an animator made: as calm as they liked, not as people are."""
NODES = 6
COLUMNS = ("like_pct", "speed", "jitter_recovered", "jitter_delivered", "jitter_mocap", "jitter_mocap_90",
           "jitter_rank")  # fmt: skip


@dataclass(frozen=True)
class Windows:
    speed: np.ndarray
    """[W] mm/s, mean over points and time."""
    jitter: np.ndarray
    """[W] mm/frame^2, mean norm of second differences."""

    def __len__(self) -> int:
        return len(self.speed)


def join_windows(parts: list[Windows]) -> Windows:
    empty = np.zeros(0)
    return Windows(
        np.concatenate([empty, *(p.speed for p in parts)]), np.concatenate([empty, *(p.jitter for p in parts)])
    )


def cut_windows(points: np.ndarray, rate: float) -> Windows:
    """Windows of WINDOW_S of points [N, P, 3] m at `rate` frames a second, half overlapping, spread evenly from the
    first frame to the last; none where N is too short for one."""
    size, lag = max(3, round(WINDOW_S * rate)), max(1, round(SPEED_S * rate))
    slack = len(points) - size
    if slack < 0:
        return join_windows([])
    points = points.astype(np.float64)
    second = np.linalg.norm(points[2:] - 2 * points[1:-1] + points[:-2], axis=-1).mean(1)
    speed = np.linalg.norm(points[lag:] - points[:-lag], axis=-1).mean(1) * (rate / lag)
    starts = np.linspace(0, slack, math.ceil(slack / (size / 2)) + 1).round().astype(int)
    return Windows(
        np.array([speed[s : s + size - lag].mean() for s in starts]) * MM,
        np.array([second[s : s + size - 2].mean() for s in starts]) * MM,
    )


def resample(points: np.ndarray, times: np.ndarray, at: np.ndarray) -> np.ndarray:
    """points [N, ...] at increasing times [N] s -> [M, ...] at times `at` [M]: on the polynomial through the NODES
    samples around each (Lagrange). ValueError with fewer samples."""
    if len(times) < NODES:
        raise ValueError(f"{len(times)} samples are too few: {NODES} are needed")
    first = np.clip(np.searchsorted(times, at, side="right") - NODES // 2, 0, len(times) - NODES)
    index = first[:, None] + np.arange(NODES)  # [M, NODES]
    nodes = times[index]
    weights = np.ones(index.shape)
    for k in range(NODES):
        for j in set(range(NODES)) - {k}:
            weights[:, k] *= (at - nodes[:, j]) / (nodes[:, k] - nodes[:, j])
    return np.einsum("mk,mk...->m...", weights, points.astype(np.float64)[index])


def common_rate(times: np.ndarray) -> float:
    """Frames a second at which frames of these times [N] s and a bank's are compared; needs two frames."""
    rate = 1 / float(np.median(np.diff(times)))
    return FPS if rate > FPS * (1 - SAME_RATE) else rate


def at_rate(points: np.ndarray, times: np.ndarray, rate: float) -> np.ndarray:
    """points [N, P, 3] of times [N] s, evenly at `rate`: as they are where they come so, else resampled where three
    samples lie to both sides."""
    if len(times) < NODES:
        return points
    steps = np.diff(times) * rate
    if abs(np.median(steps) - 1) <= SAME_RATE + 1e-9 and np.abs(steps - 1).max() <= UNEVEN:
        return points
    return resample(points, times, np.arange(times[2], times[-3] + 1e-9, 1 / rate))


class CapturedMotion:
    """The captured clips of a bank, of every split: nothing is learnt from them here, and more are more alike.

    InputError where the bank holds none.
    """

    def __init__(self, bank: MotionBank, body) -> None:
        self.bank, self.body = bank, body
        self.clips = [i for i, subject in enumerate(bank.subject) if subject not in HAND_KEYED]
        if not self.clips:
            raise InputError("The motion bank holds no captured clip to compare jitter with")

    def windows(self, betas: np.ndarray, rate: float) -> Windows:
        """All windows at `rate` of the clips on a body with betas [S]."""
        shape, parts = torch.from_numpy(betas), []
        for clip in self.clips:
            quats = torch.from_numpy(self.bank.quats[self.bank.frames(clip)])
            with torch.no_grad():
                rotmats = quaternion_to_matrix(quats)
                points = about_hips(self.body.keypoints(rotmats, shape, torch.zeros(3))).numpy()
            parts.append(cut_windows(at_rate(points, np.arange(len(quats)) / FPS, rate), rate))
        return join_windows(parts)

    def measure(self, recovered: CameraMotion, delivered: Motion, track: Track) -> dict[str, float]:
        """COLUMNS of one person's motion as the method gave it and as `core.world.place` delivered it. Nothing
        (empty) where the person is not seen for a second on end."""
        n = len(recovered.frames)
        seen, times = track.confidence[:n] > 0, track.times[:n]
        if n < 3:
            return {}
        rate = common_rate(times)
        rotmats = axis_angle_to_matrix(torch.from_numpy(delivered.poses).unflatten(-1, (24, 3)))
        betas, trans = torch.from_numpy(delivered.betas), torch.from_numpy(delivered.trans)
        with torch.no_grad():
            after = about_hips(self.body.keypoints(rotmats, betas, trans)).numpy()
            before = about_hips(motion_keypoints(recovered, self.body)).numpy()
        sides = []
        for points in (before, after):
            pieces = [at_rate(points[s], times[s], rate) for s in seen_stretches(seen)]
            sides.append(join_windows([cut_windows(piece, rate) for piece in pieces]))
        if not len(sides[1]):
            return {}
        return compare(*sides, self.windows(delivered.betas, rate))


def seen_stretches(seen: np.ndarray) -> list[slice]:
    """The runs of True in [N] bool."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], seen, [False]]).astype(int)))
    return [slice(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2])]


def compare(recovered: Windows, delivered: Windows, mocap: Windows) -> dict[str, float]:
    """COLUMNS of the same windows before and after delivery, beside the captured windows as fast as delivered."""
    rows = []
    for before, after, speed in zip(recovered.jitter, delivered.jitter, delivered.speed):
        like = mocap.jitter[np.abs(mocap.speed - speed) <= max(LIKE_SHARE * speed, LIKE_MM_S)]
        if len(like) >= LEAST:
            rank = float((like < after).mean() * 100)
            rows.append((speed, before, after, np.median(like), np.percentile(like, 90), rank))
    values = {"like_pct": 100 * len(rows) / len(delivered)}
    means = np.mean(rows, axis=0) if rows else np.full(len(COLUMNS) - 1, np.nan)
    return values | dict(zip(COLUMNS[1:], map(float, means)))
