"""The end of a job: recovered motions are put into one world, what was sent is revised, result files are written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from core import result, stream
from core.finished import result_key
from core.outlet import Scene, part_of
from core.progress import ProgressMeter
from core.records import CameraMotion, Clip, Motion, Track


class Delivery:
    """What the people of one job become, once they are recovered. n frames, V vertices."""

    def __init__(self, clip: Clip, video: str, scene: Scene, meter: ProgressMeter) -> None:
        self._clip, self._video, self._scene, self._meter = clip, video, scene, meter
        self._options, self._stages = scene.options, scene.stages

    def check_space(self, frames: int, people: int) -> None:
        """OutputError before the long work if the results cannot fit on the disk."""
        if self._options.out_dir is None:
            return
        per_frame = result.BYTES_PER_FRAME
        if self._options.vertices:
            per_frame += self._scene.body.vertex_count * 12
        result.ensure_writable(self._options.out_dir, expected_bytes=frames * people * per_frame)

    def place(
        self, motions: list[CameraMotion], tracks: dict[int, Track], frame_count: int, should_stop: Callable[[], bool]
    ) -> list[Motion]:
        """Put everybody into one world with a floor, smooth, and revise what was sent.

        frame_count: how many frames the tracks span, which a panning camera is followed through.
        """
        options, scene = self._options, self._scene
        frames = sum(map(len, motions))
        self._meter.plan(write=frames)
        looked = frame_count if options.panning else 0
        self._meter.begin("place", looked + frames)
        motions = [scene.sized(motion) for motion in motions]
        parts = [part_of(tracks[motion.person], motion.frames) for motion in motions]
        turns = self._track_camera(parts, frame_count, should_stop) if options.panning else {}
        placed = self._stages.place(motions, parts, scene.camera, scene.body, options, turns)
        placed = [replace(motion, method=options.method, gender=scene.body.gender) for motion in placed]
        for view in stream.view_messages(scene.camera, *_views_of(placed)):
            scene.sink(view)
        done = looked
        for motion in placed:
            height = stream.height_of(scene.body, motion.betas)
            scene.sink(stream.shape_message(motion.person, motion.betas, height))
            for start in range(0, len(motion), stream.CHUNK):
                stop = min(start + stream.CHUNK, len(motion))
                vertices = self._vertices(motion, start, stop) if options.vertices else None
                scene.sink(stream.frames_message(motion, start, stop, vertices, is_revision=True))
                done += stop - start
                self._meter.update(done)
        return placed

    def write(self, motions: list[Motion], *, is_complete: bool) -> list[str]:
        """Write everybody's result file; return the paths, none if the options name no folder. OutputError."""
        options, body = self._options, self._scene.body
        if options.out_dir is None:
            return []
        self._meter.begin("write", sum(map(len, motions)))
        paths, done = [], 0
        for motion in motions:
            path = result.result_path(options.out_dir, self._video, motion.person)
            written = result.write_result(
                path,
                motion,
                fps=_rate_of(motion.times, self._clip.fps),
                body_name=body.name,
                video=Path(self._video).name,
                job=result_key(self._video, options),
                quality=options.quality,
                people=len(motions),
                is_complete=is_complete,
                vertices=self._camera_vertices(motion) if options.vertices else None,
                vertex_count=body.vertex_count,
            )
            paths.append(str(written))
            done += len(motion)
            self._meter.update(done)
        return paths

    def _track_camera(
        self, tracks: list[Track], frame_count: int, should_stop: Callable[[], bool]
    ) -> dict[int, np.ndarray]:
        """Return how the camera turned; when stopped, as far as that is known."""

        def on_progress(done: int) -> None:
            self._meter.update(min(done, frame_count))

        with self._stages.open_video(self._video, self._options.start, self._options.end) as reader:
            return self._stages.track_camera(
                reader, self._scene.camera, tracks, on_progress=on_progress, should_stop=should_stop
            )

    def _vertices(self, motion: Motion, start: int, stop: int) -> np.ndarray:
        """Return vertices [n,V,3] in the world frame."""
        poses, trans = motion.poses[start:stop], motion.trans[start:stop]
        return self._stages.vertices(self._scene.body, poses, motion.betas, trans)

    def _camera_vertices(self, motion: Motion) -> Iterator[np.ndarray]:
        """Yield vertices [n,V,3] in the camera frame, chunk by chunk."""
        for start in range(0, len(motion), stream.CHUNK):
            part = slice(start, min(start + stream.CHUNK, len(motion)))
            world = self._vertices(motion, part.start, part.stop)
            offset = world - motion.t_world_from_cam[part, None]
            yield np.einsum("nij,nvi->nvj", motion.R_world_from_cam[part], offset)


def _views_of(placed: list[Motion]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the frames [n] in which anybody is seen, and the camera's R [n,3,3] and t [n,3] in each."""
    frames, first = np.unique(np.concatenate([motion.frames for motion in placed]), return_index=True)
    R = np.concatenate([motion.R_world_from_cam for motion in placed])
    t = np.concatenate([motion.t_world_from_cam for motion in placed])
    return frames, R[first], t[first]


def _rate_of(times: np.ndarray, fallback: float) -> float:
    """Return the average frames per second of these times."""
    if len(times) < 2 or times[-1] <= times[0]:
        return fallback
    return (len(times) - 1) / float(times[-1] - times[0])
