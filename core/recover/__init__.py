"""Recovery methods: from a track to a person's motion in the camera frame.

`METHODS` names them. A method is called as

    recover(track, camera, body, *, device, on_frames, should_stop, on_progress) -> CameraMotion

on_frames(CameraMotion) gets consecutive chunks as they are finished, should_stop() -> bool is asked at least twice a
second, on_progress(frames done, frames in all). A stopped method returns the frames it has finished. A method that
can go on after an interruption also takes `known`, the CameraMotion of the first frames an earlier call handed on.
One that can refine its motion to the picture takes `refine` (bool), and `on_rough`, which gets chunks of what is
refined later.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from core.records import Camera, CameraMotion, Track
from core.recover.fit import fit as recover_by_fit
from core.recover.hyperbolic import recover_by_network
from core.recover.systems import SYSTEM_METHODS


class Recoverer(Protocol):
    def __call__(
        self,
        track: Track,
        camera: Camera,
        body,
        *,
        device: str,
        on_frames: Callable[[CameraMotion], None],
        should_stop: Callable[[], bool],
        on_progress: Callable[[int, int], None],
    ) -> CameraMotion: ...


METHODS: dict[str, Recoverer] = {"fit": recover_by_fit, "hyperbolic": recover_by_network, **SYSTEM_METHODS}
