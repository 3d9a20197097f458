"""The way out for one person's frames while they are being recovered: collected, put in a provisional world, sent.

Chunks arrive in the camera frame, in order. A recovery that starts over after an interruption hands out frames that
already went out; they pass silently. n frames of a chunk, J = 24 joints.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from core import stream
from core.protocol import Message
from core.records import Camera, CameraMotion, Motion, Track

PER_FRAME = ("frames", "rotmats", "trans", "confidence")
"""Fields of CameraMotion with one row per frame; betas hold for the clip."""


@dataclass
class World:
    """The provisional world all people share: an upright camera above the feet of the first frames seen."""

    R_world_from_cam: np.ndarray
    """[3, 3]."""
    t_world_from_cam: np.ndarray
    """[3] m."""


def upright_world(joints_cam: np.ndarray) -> World:
    """Return the world of a level camera whose floor passes under the lowest of joints_cam [n,24,3] (metres).

    Camera y down becomes world -z, camera z forward becomes world y.
    """
    R = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
    lowest = np.median((joints_cam.reshape(len(joints_cam), -1, 3) @ R.T)[..., 2].min(1))
    return World(R, np.array([0.0, 0.0, -lowest]))


def take(motion: CameraMotion, start: int, stop: int | None = None) -> CameraMotion:
    """Return a stretch of a CameraMotion."""
    values = {f.name: getattr(motion, f.name) for f in fields(CameraMotion)}
    return CameraMotion(**{name: v[start:stop] if name in PER_FRAME else v for name, v in values.items()})


def part_of(track: Track, frames: np.ndarray) -> Track:
    """Return the stretch of a track that covers consecutive source frames `frames`."""
    start = int(frames[0]) - int(track.frames[0])
    part = slice(start, start + len(frames))
    values = {f.name: getattr(track, f.name) for f in fields(Track)}
    return Track(**{name: v if name == "person" else v[part] for name, v in values.items()})


class Outlet:
    """Sends one person's Shape, View and Frames; keeps the frames for `motion`."""

    def __init__(
        self,
        track: Track,
        camera: Camera,
        body: Any,
        stages: Any,
        sink: Callable[[Message], None],
        world: World | None,
        *,
        with_vertices: bool,
    ) -> None:
        self._track, self._camera, self._body, self._stages, self._sink = track, camera, body, stages, sink
        self._with_vertices = with_vertices
        self._chunks: list[CameraMotion] = []
        self._betas: np.ndarray | None = None
        self.world = world
        self.count = 0
        """Frames that went out."""

    def send(self, chunk: CameraMotion) -> CameraMotion | None:
        """Send what is new of a chunk, at most stream.CHUNK frames a message; return that part, None if nothing is.

        ValueError if the chunk does not follow on what went out before.
        """
        start = int(chunk.frames[0]) - int(self._track.frames[0]) if len(chunk.frames) else self.count
        if start > self.count:
            raise ValueError(f"frames {self.count} to {start - 1} of person {self._track.person} are missing")
        new = take(chunk, self.count - start)
        if not len(new.frames):
            return None
        if self.world is None:
            self.world = upright_world(self._stages.joints(self._body, new))
        if not self._chunks:
            matrices = self._world_of(1)
            for view in stream.view_messages(self._camera, self._track.frames[:1], *matrices):
                self._sink(view)
        if self._betas is None or np.abs(new.betas - self._betas).max() > 1e-4:
            self._betas = new.betas
            height = stream.height_of(self._body, new.betas)
            self._sink(stream.shape_message(self._track.person, new.betas, height))
        for begin in range(0, len(new.frames), stream.CHUNK):
            self._send_part(take(new, begin, begin + stream.CHUNK))
        self._chunks.append(new)
        self.count += len(new.frames)
        return new

    def motion(self) -> CameraMotion | None:
        """Return everything that went out as one CameraMotion, None if nothing did."""
        if not self._chunks:
            return None
        joined = {name: np.concatenate([getattr(c, name) for c in self._chunks]) for name in PER_FRAME}
        return CameraMotion(person=self._track.person, betas=self._chunks[-1].betas, **joined)

    def _send_part(self, part: CameraMotion) -> None:
        track = part_of(self._track, part.frames)
        motion: Motion = self._stages.to_motion(
            part, track, self._camera, self._body, *self._world_of(len(part.frames))
        )
        vertices = None
        if self._with_vertices:
            vertices = self._stages.vertices(self._body, motion.poses, motion.betas, motion.trans)
        self._sink(stream.frames_message(motion, 0, len(motion), vertices))

    def _world_of(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        return (
            np.broadcast_to(self.world.R_world_from_cam, (count, 3, 3)).astype(np.float32),
            np.broadcast_to(self.world.t_world_from_cam, (count, 3)).astype(np.float32),
        )
