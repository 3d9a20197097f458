"""The way out for one person's frames before the world is known: put in a provisional one, sent, and collected.

Chunks arrive in the camera frame, in order: at first rough guesses while the video is still being read, and what a
method has before it refines it (`show`), then the recovery's (`send`), which revise what was shown. A recovery that
starts over after an interruption hands out frames that it already sent; they pass silently. A height that a person is
given shows in what is sent, not in what is collected: the recovery does not know of it. n frames of a chunk, J = 24
joints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from core import stream
from core.options import JobOptions
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


class Scene:
    """What all people of a job share on their way out: camera, body, sink, the provisional world."""

    def __init__(
        self, camera: Camera, body: Any, stages: Any, sink: Callable[[Message], None], options: JobOptions
    ) -> None:
        self.camera, self.body, self.stages, self.sink, self.options = camera, body, stages, sink, options
        self.world: World | None = None

    def sized(self, motion: CameraMotion) -> CameraMotion:
        """Return a motion as it is, or for the height that its person is given."""
        height = self.options.height_for(motion.person)
        return motion if height is None else self.stages.resize(motion, self.body, height)


class Outlet:
    """One person's way out."""

    def __init__(self, person: int, scene: Scene) -> None:
        self.person = person
        self._scene = scene
        self._chunks: list[CameraMotion] = []
        self._betas: np.ndarray | None = None
        self._seen: tuple[int, int] | None = None
        """First and last source frame that the sink has."""
        self.count = 0
        """Recovered frames that went out."""

    def show(self, guess: CameraMotion, track: Track) -> None:
        """Send a rough guess of a stretch of a track, less the frames that are recovered already."""
        if self._chunks:
            recovered = int(self._chunks[-1].frames[-1]) + 1
            guess = take(guess, max(recovered - int(guess.frames[0]), 0))
        if len(guess):
            self._send(guess, track)

    def send(self, chunk: CameraMotion, track: Track) -> CameraMotion | None:
        """Send what is new of a recovered chunk; return that part, None if nothing is.

        ValueError if the chunk does not follow on what went out before.
        """
        start = int(chunk.frames[0]) - int(track.frames[0]) if len(chunk) else self.count
        if start > self.count:
            raise ValueError(f"frames {self.count} to {start - 1} of person {self.person} are missing")
        new = take(chunk, self.count - start)
        if not len(new):
            return None
        self._send(new, track)
        self._chunks.append(new)
        self.count += len(new)
        return new

    def motion(self) -> CameraMotion | None:
        """Return everything that was recovered and sent as one CameraMotion, None if nothing was."""
        if not self._chunks:
            return None
        joined = {name: np.concatenate([getattr(c, name) for c in self._chunks]) for name in PER_FRAME}
        return CameraMotion(person=self.person, betas=self._chunks[-1].betas, **joined)

    def _send(self, motion: CameraMotion, track: Track) -> None:
        """Send Shape and View where due, then Frames of at most stream.CHUNK frames, or Revise for those sent."""
        scene = self._scene
        motion = scene.sized(motion)
        if scene.world is None:
            scene.world = upright_world(scene.stages.joints(scene.body, motion))
        if self._betas is None:
            for view in stream.view_messages(scene.camera, motion.frames[:1], *self._world_of(1)):
                scene.sink(view)
        if self._betas is None or np.abs(motion.betas - self._betas).max() > 1e-4:
            self._betas = motion.betas
            scene.sink(stream.shape_message(self.person, motion.betas, stream.height_of(scene.body, motion.betas)))
        first, last = int(motion.frames[0]), int(motion.frames[-1])
        seen = self._seen or (first, first - 1)
        for begin, end, is_revision in _runs(first, last + 1, seen[0], seen[1] + 1):
            part = take(motion, begin - first, end - first)
            placed: Motion = scene.stages.to_motion(
                part, part_of(track, part.frames), scene.camera, scene.body, *self._world_of(len(part))
            )
            vertices = None
            if scene.options.vertices:
                vertices = scene.stages.vertices(scene.body, placed.poses, placed.betas, placed.trans)
            scene.sink(stream.frames_message(placed, 0, len(placed), vertices, is_revision=is_revision))
        self._seen = (min(first, seen[0]), max(last, seen[1]))

    def _world_of(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        world = self._scene.world
        return (
            np.broadcast_to(world.R_world_from_cam, (count, 3, 3)).astype(np.float32),
            np.broadcast_to(world.t_world_from_cam, (count, 3)).astype(np.float32),
        )


def _runs(first: int, stop: int, seen_first: int, seen_stop: int) -> Iterator[tuple[int, int, bool]]:
    """Yield [begin, end) pieces of [first, stop), at most stream.CHUNK long, and whether they were sent before."""
    begin = first
    while begin < stop:
        is_seen = seen_first <= begin < seen_stop
        limit = seen_stop if is_seen else seen_first if begin < seen_first else stop
        end = min(begin + stream.CHUNK, stop, limit)
        yield begin, end, is_seen
        begin = end
