"""The View messages of a job, and the camera that is placed or animated by them."""

from __future__ import annotations

from collections.abc import Callable

import bpy
import numpy as np

from ..convert import Lens
from . import camera as cameras
from .bodydata import array_from_wire
from .lookup import Handle, mark


class ViewWriter:
    """Collects views and writes them: one stands, several are keyed. The camera is never made twice."""

    def __init__(self) -> None:
        self._views: dict[int, tuple] = {}
        self._camera: Handle | None = None
        self._written = 0
        self._is_changed = False
        self.is_started = False

    def put(self, message) -> None:
        """Keep a protocol.View; a later one for the same frame replaces it."""
        self._views[message.start] = (message, array_from_wire(message.matrix).astype(np.float64))
        self._is_changed = True

    def is_due(self, is_closing: bool) -> bool:
        """Whether to write now: the first at once, later ones gathered, so that the cost stays linear."""
        if not self._is_changed:
            return False
        return is_closing or self._written < 2 or len(self._views) >= 1.2 * self._written + 8

    def start(self, scene: bpy.types.Scene, collection: bpy.types.Collection, name: str) -> bpy.types.Object:
        """Make the camera, and the scene's active one."""
        camera = cameras.build_camera(collection, name)
        self._camera = mark(camera, "objects")
        self.is_started = True
        scene.camera = camera
        return camera

    def camera_or_none(self) -> bpy.types.Object | None:
        """Return the camera, or None if there is none or it was deleted."""
        return self._camera.find_or_none() if self._camera is not None else None

    def restore(self) -> None:
        """After undo or redo: write all views anew, with a new camera if the old one went with the undo."""
        self.is_started = self.is_started and self.camera_or_none() is not None
        self._is_changed, self._written = bool(self._views), 0

    def write(self, scene_frames: Callable[[list[int]], np.ndarray]) -> tuple[int, int, Lens] | None:
        """Write all views; scene_frames maps source frames to scene frames.

        Returns (width, height, lens) of the picture, or None if there is no camera (any more).
        """
        self._is_changed, self._written = False, len(self._views)
        camera = self.camera_or_none()
        if camera is None:
            return None
        starts = sorted(self._views)
        views, matrices = zip(*(self._views[s] for s in starts))
        if len(starts) == 1:
            lens = cameras.apply_view(camera, views[0], matrices[0])
        else:
            lens = cameras.animate_views(camera, list(views), np.stack(matrices), scene_frames(starts))
        return views[0].width, views[0].height, lens
