"""Settle left and right by what the lifter makes of either reading.

A detector that takes a front for a back exchanges the sides of all limbs, or of the arms or legs alone, for single
frames or for dozens. Where it changes its mind the keypoints jump, and for some frames lie between the two readings.
Those jumps cut a track into runs that are right or exchanged as a whole. Which of them to exchange back is tried out
with the lifter, on keypoints alone: the right reading gives a body that lies on its keypoints and moves smoothly, the
wrong one has to lean or leap. N frames, K keypoints, G groups of keypoints (jumps.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from core.models.clip import lift_clip, track_inputs
from core.models.inputs import HAS_LANDMARK, LANDMARK_XYZ
from core.models.lifter import Lifter
from core.records import Camera, Track, cut_track
from core.recover.evidence import read_keypoints
from core.recover.initial import guess_translation
from core.recover.jumps import GROUPS, MIRROR, find_blends, find_jumps
from core.skeleton import JOINT_NAMES, KEYPOINT_NAMES

_TRIED = [
    f"{side}_{name}" for side in ("left", "right") for name in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
]
TRIED_KEYPOINTS = [KEYPOINT_NAMES.index(name) for name in _TRIED]
TRIED_JOINTS = [JOINT_NAMES.index(name) for name in _TRIED]


@dataclass(frozen=True)
class ReadingOptions:
    reach_s: float = 0.8
    """Before and after a run, to judge it in its surroundings."""
    longest_s: float = 6.0
    """Longer runs are not exchanged."""
    blend_s: float = 0.2
    """Blends this near an exchanged run are settled frame by frame."""
    cap: float = 0.25
    """m: most that a keypoint may cost."""
    floor: float = 0.015
    """m: what a frame costs at least, were everything right."""
    exchanged: float = 0.015
    """m: cost of an exchanged frame."""
    share: float = 0.35
    """An exchange must save this share of what the frames of its run cost ..."""
    least: float = 0.2
    """... and this much in all, m times frames at 30 a second. Of runs between jumps on rendered validation clips, 60
    in 100 of those exchanged on purpose pass both, and none of 449 that were right."""
    apart: float = 0.08
    between: float = 0.75
    """A frame is a blend, and not believed, where the farther reading is `apart` m from the motion or more and the
    nearer one not nearer than this share of that."""
    muddled: float = 0.5
    """Share of blended frames in a run's surroundings above which nothing can be told."""
    pieces: int = 3
    """At most so many pieces between blends are tried as one run."""


@dataclass(frozen=True)
class Settled:
    track: Track
    """With sides exchanged back, depth turned inside out there, and blends of both readings not seen."""
    exchanged: np.ndarray
    """[N, G] bool."""
    doubted: np.ndarray
    """[N] bool: the detector's 3D landmarks were another reading's."""


def settle_readings(
    lifter: Lifter,
    track: Track,
    camera: Camera,
    *,
    device: str = "cpu",
    options: ReadingOptions = ReadingOptions(),
    should_stop: Callable[[], bool] = lambda: False,
) -> Settled:
    """Exchange sides where the lifter then explains the track much better; asked to stop, leave the rest as it is.

    A track without jumps costs nothing.
    """
    exchanged = np.zeros((len(track), len(GROUPS)), bool)
    blends = find_blends(find_jumps(track), track.times)
    judge = _Judge(lifter, track, camera, device, options)
    for first, last in _stretches(blends.any(1), track.times, options.longest_s):
        if should_stop():
            break
        exchanged = judge.improve(exchanged, blends, first, last, should_stop)
    if not exchanged.any():
        return Settled(track, exchanged, exchanged.any(1))
    near = np.convolve(exchanged.any(1), np.ones(2 * judge.frames(options.blend_s) + 1), mode="same") > 0
    return judge.settle(exchanged, blends & near[:, None])


def exchange_groups(track: Track, exchanged: np.ndarray, unseen: np.ndarray | None = None) -> Track:
    """A track with the sides of groups exchanged where exchanged [N, G], and not seen where unseen [N, G]."""
    keypoints, landmarks = track.keypoints.copy(), track.landmarks3d.copy()
    for g, group in enumerate(GROUPS):
        where = np.ix_(exchanged[:, g], group)
        keypoints[where] = track.keypoints[:, MIRROR][where]
        landmarks[where] = track.landmarks3d[:, MIRROR][where] * np.float32([1, 1, -1])
        if unseen is not None:
            keypoints[(*np.ix_(unseen[:, g], group), 2)] = 0
    return replace(track, keypoints=keypoints, landmarks3d=landmarks)


def _stretches(blended: np.ndarray, times: np.ndarray, longest_s: float) -> list[tuple[int, int]]:
    """First and last blended frames of stretches whose jumps lie within `longest_s` of each other."""
    stretches: list[tuple[int, int]] = []
    for t in np.flatnonzero(blended).tolist():
        if stretches and times[t] - times[stretches[-1][1]] <= longest_s:
            stretches[-1] = (stretches[-1][0], t)
        else:
            stretches.append((t, t))
    return stretches


class _Judge:
    """What the lifter makes of a track with some sides exchanged."""

    def __init__(self, lifter: Lifter, track: Track, camera: Camera, device: str, options: ReadingOptions):
        self.lifter, self.track, self.camera, self.device, self.options = lifter, track, camera, device, options
        self.fps = 1 / max(float(np.median(np.diff(track.times))), 1e-3) if len(track) > 1 else 30.0

    def frames(self, seconds: float) -> int:
        return round(seconds * self.fps)

    def improve(
        self, exchanged: np.ndarray, blends: np.ndarray, first: int, last: int, should_stop: Callable[[], bool]
    ) -> np.ndarray:
        """Exchange the run that saves most, again and again, among those about the jumps in `first` to `last`."""
        reach, longest = self.frames(self.options.reach_s), self.frames(self.options.longest_s)
        runs = self._runs(blends, max(0, first - longest), min(len(self.track), last + longest + 1))
        spans = [slice(max(0, run.start - reach), min(len(self.track), run.stop + reach)) for run, _ in runs]
        now: dict[tuple[int, int], np.ndarray] = {}  # cost of spans as they are
        savings: dict[int, float] = {}  # by run, in m; those that are not worth it are 0
        for _ in runs:
            for i, (run, span) in enumerate(zip(runs, spans)):
                if should_stop():
                    return exchanged
                if i in savings:
                    continue
                key = span.start, span.stop
                if key not in now:
                    now[key] = self._cost(exchanged[span], blends[span], span)
                savings[i] = self._saving(exchanged, blends, run, span, now[key])
            best = max(savings, key=savings.__getitem__)
            if savings[best] == 0:
                break
            run, groups = runs[best]
            exchanged = exchanged.copy()
            exchanged[run, groups] ^= True
            for i, span in enumerate(spans):
                if span.start < run.stop and run.start < span.stop:
                    savings.pop(i)
                    now.pop((span.start, span.stop), None)
        return exchanged

    def _saving(
        self,
        exchanged: np.ndarray,
        blends: np.ndarray,
        run: tuple[slice, list[int]],
        span: slice,
        now: np.ndarray,
    ) -> float:
        """What exchanging a run's groups saves in its span, m; 0 where that is too little. now [n]: cost there."""
        frames, groups = run
        of_run = now[frames.start - span.start : frames.stop - span.start].sum()
        least = max(self.options.least * self.fps / 30, self.options.share * of_run)
        most = np.maximum(now - self.options.floor, 0).sum()
        if most <= least or blends[span].any(1).mean() > self.options.muddled:
            return 0.0
        changed = exchanged.copy()
        changed[frames, groups] ^= True
        saved = float((now - self._cost(changed[span], blends[span], span)).sum())
        return saved if saved > least else 0.0

    def _runs(self, blends: np.ndarray, begin: int, end: int) -> list[tuple[slice, list[int]]]:
        """Runs in `begin` to `end` from the end of one blend, or the track's start, to the start of another, or the
        track's end, and the groups to exchange in them: both between blends of both, else the group that is blended.
        """
        both, longest = list(range(blends.shape[1])), self.frames(self.options.longest_s)
        marks_of_both = blends.all(1) if blends[begin:end].all(1).any() else blends.any(1)
        runs = []
        for groups, marks in [(both, marks_of_both), *(([g], blends[:, g]) for g in both)]:
            edges = np.flatnonzero(np.diff(np.concatenate([[0], marks[begin:end].astype(np.int8), [0]]))) + begin
            starts = [*[begin] * (begin == 0), *edges[1::2].tolist()]
            stops = [*edges[0::2].tolist(), *[end] * (end == len(self.track))]
            for start in starts:
                ends = [stop for stop in stops if start < stop][: self.options.pieces]
                runs += [(slice(start, stop), groups) for stop in ends if stop - start <= longest]
        return runs

    def _cost(self, reading: np.ndarray, blends: np.ndarray, span: slice) -> np.ndarray:
        """Cost [n] m of each frame of `span` in a reading [n, G] of it: how far the lifted joints are from their
        keypoints, and how far they swerve (second difference in 1/30 s)."""
        track = exchange_groups(cut_track(self.track, span), reading, blends)
        joints = self._lift(track)
        rays, sure = self._rays(track)
        off = _distances(_place(joints, rays, sure), rays).clamp_max(self.options.cap)
        cost = (off * sure).sum(1) / sure.sum(1).clamp_min(1.0)
        cost += self.options.exchanged * torch.from_numpy(reading.mean(1))
        if len(track) > 2:
            swerve = (joints[2:] - 2 * joints[1:-1] + joints[:-2]).norm(dim=-1).mean(-1)
            cost[1:-1] += swerve * (self.fps / 30) ** 2
        return cost.numpy()

    @torch.inference_mode()
    def _lift(self, track: Track) -> Tensor:
        """Joints [n, J, 3] of a track, from keypoints alone."""
        base_fps = self.lifter.config.base_fps
        inputs, frames, _ = track_inputs(track, self.camera, base_fps=base_fps, device=self.device)
        inputs[..., LANDMARK_XYZ], inputs[..., HAS_LANDMARK] = 0, 0
        return lift_clip(self.lifter, inputs, frames, both_ways=False).joints[0].double().cpu()

    def _rays(self, track: Track) -> tuple[Tensor, Tensor]:
        """Rays [n, 12, 2] of the tried keypoints and how sure they are [n, 12]."""
        keypoints, rays = read_keypoints(track, self.camera)
        sure = keypoints[..., 2] * torch.from_numpy(track.confidence > 0)[:, None]
        return rays[:, TRIED_KEYPOINTS], sure[:, TRIED_KEYPOINTS]

    def settle(self, exchanged: np.ndarray, blends: np.ndarray) -> Settled:
        """The track as decided; blended frames take the reading nearer the motion, or none where it lies between."""
        decided = exchange_groups(self.track, exchanged, blends)
        placed = _place(self._lift(decided), *self._rays(decided))
        readings = [np.full_like(exchanged, flip) for flip in (False, True)]
        offs = [_distances(placed, self._rays(exchange_groups(self.track, r))[0]).numpy() for r in readings]
        result, unseen = exchanged.copy(), np.zeros_like(blends)
        for g, group in enumerate(GROUPS):
            mine = [i for i, k in enumerate(TRIED_KEYPOINTS) if group[k]]
            as_is, other = (off[:, mine].mean(1) for off in offs)
            result[:, g] = np.where(blends[:, g], other < as_is, exchanged[:, g])
            low, high = np.minimum(as_is, other), np.maximum(as_is, other)
            unseen[:, g] = blends[:, g] & (high > self.options.apart) & (low > self.options.between * high)
        return Settled(exchange_groups(self.track, result, unseen), result, result.any(1) | unseen.any(1))


def _place(joints: Tensor, rays: Tensor, sure: Tensor) -> Tensor:
    """The tried joints [n, 12, 3] of joints [n, J, 3], moved to where they lie best on rays [n, 12, 2]."""
    points = joints[:, TRIED_JOINTS]
    return points + guess_translation(points, rays, sure)[:, None]


def _distances(placed: Tensor, rays: Tensor) -> Tensor:
    """Distances [n, 12] m of placed joints from their rays, in the picture's plane."""
    return (placed[..., :2] - rays * placed[..., 2:]).norm(dim=-1)
