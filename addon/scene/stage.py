"""Where a job writes: its scene, collection and camera, and how its times become scene frames."""

from __future__ import annotations

import itertools
import os
import re

import bpy
import numpy as np

from ..convert import scene_frames_from_times
from ..frame_rate import is_same_rate, scene_rate, set_frame_rate
from ..videos import portable
from . import camera as cameras
from . import figure
from .lookup import Handle, mark, remark
from .options import WriterOptions
from .person import RATE, START_FRAME, PersonState
from .userstate import UserState
from .views import ViewWriter

VIDEO, METHOD, VERSION, BODY = (
    "hyper_mocap_video",
    "hyper_mocap_method",
    "hyper_mocap_version",
    "hyper_mocap_body",
)
"""Custom properties of the collection and of each figure that say where it comes from."""


class Stage:
    """Finds its datablocks anew at every call; what the user deleted is not made again."""

    def __init__(self, scene: bpy.types.Scene, options: WriterOptions) -> None:
        self.options = options
        self.start_frame = scene.frame_start if options.start_frame is None else options.start_frame
        self.rate = scene_rate(scene)
        self.video = None
        """The protocol.Video of the job, once it came."""
        self.views = ViewWriter()
        self.warnings: list[str] = []
        self._scene = mark(scene, "scenes")
        self._user = UserState(scene)
        self._collection: Handle | None = None
        self._take = self.label = ""
        """What figures' names end with, to tell recoveries apart: "", " take 2", " CLIP", " CLIP take 2"."""

    def warn(self, text: str) -> None:
        """Keep a sentence for the user, once."""
        if text not in self.warnings:
            self.warnings.append(text)

    def scene_or_none(self) -> bpy.types.Scene | None:
        """Return the scene, or None when another file was loaded."""
        return self._scene.find_or_none()

    def scene_frames(self, times: np.ndarray) -> np.ndarray:
        """Scene frames [N] of times [N] in seconds: start + time * the rate that the scene had at the start."""
        return scene_frames_from_times(times, self.start_frame, self.rate)

    def set_video(self, message) -> None:
        """Fit rate and frame range of the scene to a protocol.Video."""
        self.video = message
        scene = self.scene_or_none()
        if scene is None or message.fps <= 0:
            return
        if self.options.match_fps:
            set_frame_rate(scene, message.fps)
            self.rate = scene_rate(scene)
        if self.options.use_background and not is_same_rate(self.rate, message.fps):
            self.warn(
                f"The scene runs at {self.rate:.5g} frames per second, the video at {message.fps:.5g}: "
                "the figure keeps real time, but the video behind the camera does not"
            )
        if self.options.match_range:
            scene.frame_start = scene.frame_end = round(self.start_frame)
            scene.frame_current = scene.frame_start
        self.extend_range((message.frame_count - 1) / message.fps)

    def extend_range(self, time: float) -> None:
        """Let the scene last until `time` at least."""
        scene = self.scene_or_none()
        if scene is not None and time > 0:
            scene.frame_end = max(scene.frame_end, int(np.ceil(self.scene_frames(np.array([time]))[0] - 0.01)))

    def provenance(self, body: str = "") -> dict:
        """Custom properties for a figure or the collection."""
        values = {
            VIDEO: portable(self.video.path) if self.video else "",
            METHOD: self.options.method,
            VERSION: self.options.version,
            BODY: body,
            START_FRAME: self.start_frame,
            RATE: self.rate,
        }
        return {key: value for key, value in values.items() if value != ""}

    def collection_or_none(self) -> bpy.types.Collection | None:
        """Return the job's collection, made at the first need; None once the user has deleted it."""
        scene = self.scene_or_none()
        if scene is None:
            return None
        if self._collection is not None:
            collection = self._collection.find_or_none()
            is_linked = collection is not None and any(c == collection for c in scene.collection.children_recursive)
            return collection if is_linked else None
        collection = figure.ensure_collection(scene, f"{self._base_name()} Mocap{self._number()}", self.provenance())
        self._collection = mark(collection, "collections")
        return collection

    def write_views(self, people: list[PersonState]) -> None:
        """Make the camera at the first View; place or animate it."""
        if not self.views.is_started:
            collection = self.collection_or_none()
            if collection is not None:
                camera = self.views.start(self.scene_or_none(), collection, f"{self._base_name()} Camera{self._take}")
                self._show_video(camera)
        picture = self.views.write(lambda starts: self.scene_frames(self._times_of(starts, people)))
        scene = self.scene_or_none()
        if picture is not None and scene is not None and self.options.match_resolution:
            cameras.match_render(scene, *picture)

    def restore(self) -> bpy.types.Scene | None:
        """After undo or redo: find the scene again, and let collection and camera be made anew if they went too."""
        if not remark(self._scene):
            return None
        if self._collection is not None and self._collection.find_or_none() is None:
            self._collection = None
        self.views.restore()
        return self.scene_or_none()

    def show(self, figures: list[bpy.types.Object]) -> None:
        """Leave the figures selected and the playhead on the clip, where the user has not touched them meanwhile."""
        scene = self.scene_or_none()
        if scene is not None:
            self._user.show(scene, figures, round(self.start_frame))

    def close(self) -> tuple[str, str]:
        """Remove the collection if nothing came into it; returns the names of collection and camera, or ""."""
        collection = self._collection.find_or_none() if self._collection else None
        if collection is not None and not collection.all_objects:
            bpy.data.collections.remove(collection)
            collection = None
        camera = self.views.camera_or_none()
        return collection.name if collection is not None else "", camera.name if camera is not None else ""

    def _show_video(self, camera: bpy.types.Object) -> None:
        if self.options.use_background and self.video is not None and self.video.path:
            size = self.video.width, self.video.height
            if not cameras.show_background(camera, self.video.path, int(round(self.start_frame)), size):
                self.warn(f"Blender cannot show the video behind the camera: {self.video.path}")
                return
            clip = camera.data.background_images[-1].clip
            clip.filepath = portable(bpy.path.abspath(clip.filepath))

    def _number(self) -> str:
        """Find the first take of this clip whose names are free, set `label`, and return "" or " take N"."""
        base, figures = self._base_name(), re.compile(r"Person \d+(.*?)( Body)?")
        taken = {found[1] for obj in bpy.data.objects if (found := figures.fullmatch(obj.name))}
        for number in itertools.count(1):
            self._take = f" take {number}" if number > 1 else ""
            labels = [label for label in (self._take, f" {base}{self._take}") if label not in taken]
            if f"{base} Mocap{self._take}" not in bpy.data.collections and labels:
                self.label = labels[0]
                return self._take

    def _base_name(self) -> str:
        path = self.video.path if self.video else ""
        return self.options.name or os.path.splitext(os.path.basename(path))[0] or "Video"

    def _times_of(self, starts: list[int], people: list[PersonState]) -> np.ndarray:
        """Times [N] of source frames: those that came with them, else by the clip's average rate."""
        fps = self.video.fps if self.video and self.video.fps > 0 else self.rate
        times = np.array(starts, dtype=np.float64) / fps
        for state in people:
            known = state.store.frames
            place = np.minimum(np.searchsorted(known, starts), max(len(known) - 1, 0))
            is_known = known[place] == starts if len(known) else np.zeros(len(starts), dtype=bool)
            times[is_known] = state.store.times[place[is_known]]
        return times
