"""Test doubles of the engine's stages: numpy alone, closed-form values, and misbehaviour on request.

`python tests/engine_doubles.py PORT JSON` serves one connection with the real server and pipeline over these stages.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from core.errors import Cancelled, InputError
from core.outlet import PER_FRAME, part_of, take
from core.records import Camera, CameraMotion, Clip, Motion, Track
from core.stages import Stages
from core.stature import resize

VERTICES = 6
TILT = np.array([[0.0, 1, 0], [0, 0, 1], [1, 0, 0]])
"""The final world of the doubles: a rotation that no provisional guess equals."""


def root_at(frames: np.ndarray, person: int) -> np.ndarray:
    """Camera-frame trans [n,3] of the doubles at source frames, in closed form."""
    return np.stack([0.01 * frames + person, 0 * frames, 5 + 0.02 * frames], -1).astype(np.float32)


def angle_at(frames: np.ndarray) -> np.ndarray:
    """Rotation about x of every joint [n], radians."""
    return (0.3 * np.sin(0.1 * frames)).astype(np.float32)


def rotations_about_x(angles: np.ndarray) -> np.ndarray:
    """[...] -> [..., 3, 3]."""
    c, s, zero, one = np.cos(angles), np.sin(angles), np.zeros_like(angles), np.ones_like(angles)
    return np.stack([one, zero, zero, zero, c, -s, zero, s, c], -1).reshape(*angles.shape, 3, 3)


@dataclass
class FakeStages(Stages):
    """Stages that invent people. Counters tell what was done."""

    frames: int = 100
    people: int = 1
    first: int = 0
    window: int = 20
    """Frames the recovery hands out at a time."""
    stretch: int = 0
    """Frames after which perception shows what it has; 0 = never."""
    delay_s: float = 0.0
    """Per perceived frame and per recovered window."""
    busy_s: float = 0.0
    """The first recovered window takes this long without looking at should_stop."""
    fail: str = ""
    """Raised as RuntimeError by the recovery."""
    perceived: list = field(default_factory=list)
    recovered: list = field(default_factory=list)

    def choose_device(self, name):
        if name == "mps":
            raise InputError("Device 'mps' is not available here")
        return "cpu"

    def open_video(self, path, start_s, end_s):
        return FakeReader(str(path), self.frames)

    def load_body(self, path, device):
        joints = np.stack([np.zeros(24), np.linspace(-1.0, 0.7, 24), np.zeros(24)], -1)
        weights = np.zeros((VERTICES, 24))
        weights[np.arange(VERTICES), np.arange(VERTICES)] = 0.6
        weights[np.arange(VERTICES), np.arange(VERTICES) + 5] = 0.4
        weights[5] = 0
        weights[5, [9, 2, 20, 4, 7]] = 0.5, 0.2, 0.15, 0.1, 0.05
        template = np.stack([np.zeros(VERTICES), np.linspace(-1.0, 0.8, VERTICES), np.zeros(VERTICES)], -1)
        shapedirs = np.zeros((VERTICES, 3, 16))
        shapedirs[..., 0] = 0.1 * template
        return SimpleNamespace(
            name="double",
            gender="neutral",
            v_template=template,
            vertex_count=VERTICES,
            quads=np.array([[0, 1, 2, 3], [2, 3, 4, -1]]),
            weights=weights,
            joint_template=joints,
            shapedirs=shapedirs,
            joint_shapedirs=np.zeros((24, 3, 16)),
            uv=None,
        )

    def resize(self, motion, body, height_m):
        return resize(motion, body, height_m)

    def perceive(
        self, reader, *, device, max_people, cache, on_progress, should_stop, quality="standard", on_track=None
    ):
        for frame in range(self.frames):
            if should_stop():
                seen = [self.track(person) for person in range(min(self.people, max_people))]
                return [part_of(t, t.frames[t.frames < frame]) for t in seen if t.frames[0] < frame]
            time.sleep(self.delay_s)
            self.perceived.append(frame)
            on_progress(frame + 1, self.frames)
            if on_track and self.stretch and (frame + 1) % self.stretch == 0:
                for person in range(min(self.people, max_people)):
                    self._show(person, frame + 1 - self.stretch, frame + 1, on_track)
        return [self.track(person) for person in range(min(self.people, max_people))]

    def _show(self, person, start, stop, on_track):
        track = self.track(person)
        frames = track.frames[(track.frames >= start) & (track.frames < stop)]
        if len(frames):
            on_track(part_of(track, frames))

    def least_seconds(self):
        return 0.25

    def guess(self, track, camera, body, betas=None):
        """Everybody upright 1 m to the right of where the recovery will find them."""
        return CameraMotion(
            person=track.person,
            frames=track.frames,
            rotmats=np.tile(np.eye(3, dtype=np.float32), (len(track), 24, 1, 1)),
            trans=root_at(track.frames, track.person) + np.array([1, 0, 0], np.float32),
            betas=np.zeros(16, np.float32) if betas is None else betas,
            confidence=track.confidence,
        )

    def carry_on(self, done, whole, times):
        rest = take(whole, len(done))
        joined = {n: np.concatenate([getattr(done, n), getattr(rest, n)]) for n in PER_FRAME}
        return CameraMotion(person=done.person, betas=whole.betas, **joined)

    def track(self, person: int) -> Track:
        """Person p is present from `first` on, for 10 frames fewer than person p - 1."""
        count = self.frames - self.first - 10 * person
        frames = np.arange(self.first, self.first + count, dtype=np.int32)
        keypoints = np.ones((count, 25, 3), np.float32)
        keypoints[..., 0] = frames[:, None]
        return Track(
            person=person,
            frames=frames,
            times=frames / 25.0,
            keypoints=keypoints,
            landmarks3d=np.zeros((count, 25, 3), np.float32),
            features=np.zeros((count, 4), np.float16),
            confidence=np.full(count, 0.5, np.float32),
            boxes=np.tile(np.array([0, 10, 50, 210], np.float32), (count, 1)),
        )

    def recoverer(self, method, *, refine):
        self.refine = refine
        if method not in ("fit", "hyperbolic"):
            raise InputError(f"Unknown method {method!r}: use one of fit, hyperbolic")
        return self._recover

    def _recover(self, track, camera, body, *, device, on_frames, should_stop, on_progress):
        if self.fail:
            raise RuntimeError(self.fail)
        time.sleep(self.busy_s)
        chunks = []
        for start in range(0, len(track), self.window):
            if should_stop():
                raise Cancelled("stopped")
            time.sleep(self.delay_s)
            frames = track.frames[start : start + self.window]
            self.recovered.append((track.person, int(frames[0])))
            chunk = CameraMotion(
                person=track.person,
                frames=frames,
                rotmats=np.repeat(rotations_about_x(angle_at(frames))[:, None], 24, 1).astype(np.float32),
                trans=root_at(frames, track.person),
                betas=np.full(16, 0.1 * track.person, np.float32),
                confidence=np.full(len(frames), 0.7, np.float32),
            )
            chunks.append(chunk)
            on_frames(chunk)
            on_progress(start + len(frames), len(track))
        joined = {n: np.concatenate([getattr(c, n) for c in chunks]) for n in ("frames", "rotmats", "trans")}
        return CameraMotion(
            person=track.person, betas=chunks[0].betas, confidence=np.full(len(track), 0.7, np.float32), **joined
        )

    def track_camera(self, reader, camera, tracks, *, on_progress, should_stop):
        turns = {}
        for index in range(reader.expected_frames):
            if should_stop():
                break
            turns[index] = np.eye(3)
            on_progress(len(turns))
        return turns

    def place(self, motions, tracks, camera, body, options, turns):
        self.turns = turns
        placed = []
        for motion, track in zip(motions, tracks):
            np.testing.assert_array_equal(motion.frames, track.frames)
            count = len(motion.frames)
            R = np.broadcast_to(TILT, (count, 3, 3)).astype(np.float32)
            placed.append(self.to_motion(motion, track, camera, body, R, np.full((count, 3), 1.0, np.float32)))
        return placed

    def to_motion(self, motion, track, camera, body, R, t):
        count = len(motion.frames)
        poses = np.zeros((count, 24, 3), np.float32)
        poses[..., 0] = np.arctan2(motion.rotmats[..., 2, 1], motion.rotmats[..., 1, 1])
        return Motion(
            person=motion.person,
            frames=motion.frames,
            times=track.times,
            poses=poses.reshape(count, 72),
            trans=np.einsum("nij,nj->ni", R, motion.trans) + t,
            betas=motion.betas,
            joints_cam=self.joints(body, motion),
            keypoints2d=track.keypoints,
            confidence=motion.confidence,
            camera=camera,
            R_world_from_cam=R,
            t_world_from_cam=t,
            contacts=np.zeros((count, 4), np.float32),
        )

    def joints(self, body, motion):
        return (body.joint_template + motion.trans[:, None]).astype(np.float32)

    def vertices(self, body, poses, betas, trans):
        return (np.asarray(body.v_template) + trans[:, None]).astype(np.float32)


class FakeReader:
    """A video that exists in name only."""

    def __init__(self, path: str, frames: int) -> None:
        self.clip = Clip(path, 640, 480, 25.0, frames)
        self.expected_frames = frames

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


CAMERA = Camera.from_size(640, 480)


def main() -> None:
    """Serve one connection with the doubles."""
    import functools
    import logging

    from core import pipeline, protocol, server

    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    settings = json.loads(sys.argv[2])
    server.STALL_S = settings.pop("stall_s", server.STALL_S)
    server.MAX_QUEUED_BYTES = settings.pop("max_queued_bytes", server.MAX_QUEUED_BYTES)
    run = functools.partial(pipeline.run, stages=FakeStages(**settings))
    token = os.environ.pop(protocol.TOKEN_VARIABLE)
    sys.exit(server.serve(int(sys.argv[1]), token, run))


if __name__ == "__main__":
    main()
