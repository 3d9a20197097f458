"""The stages a job is made of, behind one object: what core.pipeline composes, and where tests put doubles.

Everything heavy is imported when it is first used. n frames, J = 24 joints, V vertices.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from core.cache import Cache
from core.errors import InputError
from core.options import JobOptions
from core.protocol import REFINES_BY_DEFAULT
from core.records import Camera, CameraMotion, Motion, Track
from core.skeleton import SHAPE_COUNT

LOG = logging.getLogger(__name__)


class Stages:
    """The real stages."""

    _chain: tuple[Any, Any] | None = None
    """The last body and what `guess` needs of it."""

    def choose_device(self, name: str) -> str:
        """Return the torch device for an option. InputError if it is not available."""
        from core.device import choose_device

        return choose_device(name)

    def open_video(self, path: str | Path, start_s: float, end_s: float | None) -> Any:
        """Return a core.video.VideoReader over the frames from start_s to end_s (seconds). VideoError."""
        from core.video import VideoReader

        reader = VideoReader(path)
        if start_s <= 0 and end_s is None:
            return reader
        fps = reader.clip.fps
        reader.close()
        first = round(start_s * fps)
        return VideoReader(path, first, None if end_s is None else max(round(end_s * fps), first + 1))

    def open_frames(self, path: str | Path, first: int, last: int) -> Any:
        """Return a core.video.VideoReader over the frames [first, last). VideoError."""
        from core.video import VideoReader

        return VideoReader(path, first, last)

    def load_body(self, path: str | None, device: str) -> Any:
        """Return the Body. BodyFileError."""
        from core.body import load_body

        return load_body(path, device=device)

    def perceive(
        self,
        reader: Any,
        *,
        device: str,
        max_people: int,
        quality: str = "standard",
        cache: Cache,
        on_progress: Callable[[int, int], None],
        should_stop: Callable[[], bool],
        on_track: Callable[[Track], None] | None = None,
    ) -> list[Track]:
        """Return everybody's track; the work is kept in the cache as it is done. Asked to stop: the tracks so far.

        on_progress is not called for frames that the cache holds (`perceived_frames`). on_track gets stretches of
        tracks while the video is still being read.
        """
        from core.perception import perceive
        from core.perception.quality import networks_for, tracking_for
        from core.perception.snapshot import Checkpoint

        networks = networks_for(quality, device=device)
        if device == "cpu":
            _set_fastest_threads(networks)
        return perceive(
            reader,
            device=device,
            networks=networks,
            max_people=max_people,
            config=tracking_for(quality, max_people=max_people),
            on_progress=on_progress,
            should_stop=should_stop,
            checkpoint=Checkpoint(cache),
            on_track=on_track,
        )

    def perceived_frames(self, cache: Cache) -> int:
        """Return how many frames of the video the cache holds the perception of."""
        from core.perception.snapshot import ROW

        return cache.length(ROW)

    def least_seconds(self) -> float:
        """Return how long somebody must be seen to be found."""
        from core.perception.stitch import MIN_SECONDS

        return MIN_SECONDS

    def guess(self, track: Track, camera: Camera, body: Any, betas: np.ndarray | None = None) -> CameraMotion:
        """Return a rough motion for a stretch of a track at once, in closed form; betas [16]: None = mean shape."""
        import torch

        from core.recover.chain import build_chain, shape_chain
        from core.recover.evidence import read_evidence
        from core.recover.fit import guess_motion

        if self._chain is None or self._chain[0] is not body:
            self._chain = (body, build_chain(body))
        betas = np.zeros(SHAPE_COUNT, np.float32) if betas is None else betas
        shaped = shape_chain(self._chain[1], torch.from_numpy(betas.astype(np.float64)))
        rotmats, trans = guess_motion(read_evidence(track, camera), shaped)
        return CameraMotion(
            person=track.person,
            frames=track.frames,
            rotmats=rotmats.numpy().astype(np.float32),
            trans=trans.numpy().astype(np.float32),
            betas=betas,
            confidence=track.confidence,
        )

    def recoverer(self, method: str, *, refine: bool = REFINES_BY_DEFAULT) -> Callable[..., CameraMotion]:
        """Return the recovery method, its weights read, told whether to refine if it can.

        InputError names the methods there are, SetupError a file of weights that is missing or damaged.
        """
        from core.recover import METHODS
        from core.recover.shipped import read_weights

        if method not in METHODS:
            raise InputError(f"Unknown method {method!r}: use one of {', '.join(sorted(METHODS))}")
        read_weights(method, refine=refine)
        recover = METHODS[method]
        can_refine = "refine" in inspect.signature(recover).parameters
        return partial(recover, refine=refine) if can_refine else recover

    def carry_on(self, done: CameraMotion, whole: CameraMotion, times: np.ndarray) -> CameraMotion:
        """Return the first frames of a motion, carried on by another of all frames, at times [n] s."""
        from core.recover.refine import carry_on

        return carry_on(done, whole, times)

    def resize(self, motion: CameraMotion, body: Any, height_m: float) -> CameraMotion:
        """Return a motion for a person of that height, the picture the same. InputError if no shape has it."""
        from core.stature import resize

        return resize(motion, body, height_m)

    def track_camera(
        self,
        reader: Any,
        camera: Camera,
        tracks: list[Track],
        *,
        on_progress: Callable[[int], None],
        should_stop: Callable[[], bool],
    ) -> dict[int, np.ndarray]:
        """Return how the camera turned, by frame: rotations [3,3] to its first axes; empty if it stood still."""
        from core.panning import track_camera

        return track_camera(reader, camera, tracks, on_progress=on_progress, should_stop=should_stop)

    def place(
        self,
        motions: list[CameraMotion],
        tracks: list[Track],
        camera: Camera,
        body: Any,
        options: JobOptions,
        turns: dict[int, np.ndarray],
    ) -> list[Motion]:
        """Return everybody's motion in one world with a floor at z = 0, smoothed, with contacts and locked feet."""
        from core.world import place

        return place(
            motions,
            tracks,
            camera,
            body,
            smoothing_s=options.smoothing_s,
            by_limb=options.smoothing_by_limb,
            lock_feet=options.lock_feet,
            turns=turns,
        )

    def to_motion(
        self, motion: CameraMotion, track: Track, camera: Camera, body: Any, R: np.ndarray, t: np.ndarray
    ) -> Motion:
        """Return a CameraMotion in the world of R [n,3,3], t [n,3], without contacts."""
        from core.world import to_motion

        return to_motion(motion, track, camera, body, R, t)

    def joints(self, body: Any, motion: CameraMotion) -> np.ndarray:
        """Return joints [n,J,3] in the camera frame."""
        from core.world import pose_body

        return pose_body(motion, body)[0]

    def vertices(self, body: Any, poses: np.ndarray, betas: np.ndarray, trans: np.ndarray) -> np.ndarray:
        """Return vertices [n,V,3] of axis-angle poses [n,72] in the frame the root and trans [n,3] are in."""
        import torch

        from core.rotation import axis_angle_to_matrix

        with torch.no_grad():
            poses, betas, trans = (torch.as_tensor(a, device=body.v_template.device) for a in (poses, betas, trans))
            rotmats = axis_angle_to_matrix(poses.reshape(-1, 24, 3))  # [n, 24, 3, 3]
            return body.skin(rotmats, betas, trans)[0].cpu().numpy()


def _set_fastest_threads(networks: Any) -> None:
    """Let torch use as many threads as make the landmark network fastest."""
    import torch

    from core.perception.blazepose import CROP_SIZE
    from core.threads import fastest_thread_count

    crop = torch.zeros(1, 3, CROP_SIZE, CROP_SIZE, dtype=networks.dtype)
    with torch.inference_mode():
        count = fastest_thread_count(lambda: networks.landmarks(crop), torch.set_num_threads)
    LOG.info("torch uses %d thread(s)", count)
