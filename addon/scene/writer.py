"""Writes the engine's messages into the scene: the figure grows on the timeline while the job runs.

How to call it (main thread only)::

    writer = SceneWriter(context.scene, WriterOptions(mode="ARMATURE", method="fit", version="0.1.0"))
    # timer, or a plain loop in background mode:
    writer.handle(message)          # any protocol message, cheap (stores; under 1 ms); irrelevant ones are ignored
    more = writer.tick(0.004)       # writes for at most about that long; True while work waits
    # after Done, Error or the engine's death:
    while writer.tick(0.008): ...   # spread over timer calls when there is a window
    summary = writer.finish()       # completes what is left at once, closes files; call it exactly once
    bpy.ops.ed.undo_push(message="Recover Motion")

Undo: the writer itself never pushes an undo step. A job started by an operator without the UNDO option, and one
`bpy.ops.ed.undo_push` after `finish()`, make the whole figure one step. Undo, deletion and loading another file
while the job runs are safe: datablocks are looked up by session id each time, and what has vanished is not made
again (its frames are counted in `WriterSummary.dropped_frames`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import bpy
import numpy as np

from ..action import KeyWriter
from ..convert import scene_frames_from_times
from ..frame_rate import is_same_rate, scene_rate, set_frame_rate
from ..wire import protocol
from . import camera as cameras
from . import figure
from .bodydata import BodyData, array_from_wire
from .lookup import Handle, mark
from .options import WriterOptions, WriterSummary
from .person import RATE, START_FRAME, PersonState
from .sinks import SINKS, VertexSink
from .views import ViewWriter

VIDEO, METHOD, VERSION, BODY, RESULT = (
    "hyper_mocap_video",
    "hyper_mocap_method",
    "hyper_mocap_version",
    "hyper_mocap_body",
    "hyper_mocap_result",
)
"""Custom properties of the collection and of each figure that say where it comes from."""


class SceneWriter:
    """Consumes protocol messages and builds the figures of one job. See the module's text for the calling order."""

    def __init__(self, scene: bpy.types.Scene, options: WriterOptions | None = None) -> None:
        self.options = options or WriterOptions()
        start = self.options.start_frame
        self._start = scene.frame_start if start is None else start
        self._rate = scene_rate(scene)
        self._scene = mark(scene, "scenes")
        self._collection: Handle | None = None
        self._video: protocol.Video | None = None
        self._body: BodyData | None = None
        self._people: dict[int, PersonState] = {}
        self._early: dict[int, list] = {}
        self._first_frames: dict[int, int] = {}
        self._sinks: dict[int, VertexSink] = {}
        self._views = ViewWriter()
        self._reshaped: set[int] = set()
        self._is_closing = False
        self._closing: Iterator[None] | None = None
        self._bursts: dict[int, KeyWriter] = {}
        self._summary = WriterSummary()
        self._handlers = {
            protocol.Video: self._on_video,
            protocol.Body: self._on_body,
            protocol.People: self._on_people,
            protocol.Shape: self._on_shape,
            protocol.View: self._on_view,
            protocol.Frames: self._on_frames,
            protocol.Revise: self._on_frames,
            protocol.Done: self._on_done,
        }

    @property
    def warnings(self) -> list[str]:
        """Sentences for the user so far, each once."""
        return self._summary.warnings

    def handle(self, message: protocol.Message) -> None:
        """Take one message. Cheap: the work waits for `tick`. BodyDataError if a body cannot be built from."""
        handler = self._handlers.get(type(message))
        if handler is not None:
            handler(message)

    def tick(self, budget_s: float = 0.006) -> bool:
        """Work for about `budget_s` seconds; True while more work waits. Building a figure is one longer piece."""
        deadline = time.perf_counter() + budget_s
        self._bursts = {}
        try:
            while self._step():
                if time.perf_counter() >= deadline:
                    return True
            return False
        finally:
            for person in self._bursts:
                owner = self._people[person].owner_or_none(self._scene.find_or_none())
                if owner is not None:
                    owner.update_tag(refresh={"TIME"})
            self._bursts = {}

    def finish(self) -> WriterSummary:
        """Complete everything, close files and say what was made. No message may follow."""
        self._is_closing = True
        try:
            while self.tick(1.0):
                pass
        finally:
            for sink in self._sinks.values():
                sink.close()
        scene = self._scene.find_or_none()
        for state in self._people.values():
            owner = state.owner_or_none(scene)
            if owner is None or not len(state.store):
                continue
            self._summary.people.append(state.person)
            self._summary.frames += len(state.store)
            if state.armature is not None and owner.animation_data is not None:
                KeyWriter(owner, owner.name).update_long_curves()
            last = self.scene_frames(state.store.times[-1:])[0]
            scene.frame_end = max(scene.frame_end, int(np.ceil(last)))
        collection = self._collection.find_or_none() if self._collection else None
        if collection is not None and not collection.all_objects:
            bpy.data.collections.remove(collection)
            collection = None
        self._summary.collection = collection.name if collection is not None else ""
        camera = self._views.camera_or_none()
        self._summary.camera = camera.name if camera is not None else ""
        for sink in self._sinks.values():
            for text in sink.warnings:
                self._warn(text)
        return self._summary

    def scene_frames(self, times: np.ndarray) -> np.ndarray:
        """Scene frames [N] of times [N] in seconds: start + time * the rate that the scene had at the start."""
        return scene_frames_from_times(times, self._start, self._rate)

    def _warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)

    # Messages

    def _on_video(self, message: protocol.Video) -> None:
        self._video = message
        scene = self._scene.find_or_none()
        if scene is None:
            return
        if self.options.match_fps and message.fps > 0:
            set_frame_rate(scene, message.fps)
            self._rate = scene_rate(scene)
        if message.fps > 0 and not is_same_rate(self._rate, message.fps) and self.options.use_background:
            self._warn(
                f"The scene runs at {self._rate:.5g} frames per second, the video at {message.fps:.5g}: "
                "the figure keeps real time, but the video behind the camera does not"
            )
        if message.fps > 0 and message.frame_count > 0:
            last = self._start + (message.frame_count - 1) / message.fps * self._rate
            scene.frame_end = max(scene.frame_end, int(np.ceil(last - 0.01)))

    def _on_body(self, message: protocol.Body) -> None:
        self._body = BodyData.from_message(message)

    def _on_people(self, message: protocol.People) -> None:
        for entry in message.people:
            if isinstance(entry, dict) and type(entry.get("person")) is int and type(entry.get("first")) is int:
                self._first_frames[entry["person"]] = entry["first"]

    def _on_shape(self, message: protocol.Shape) -> None:
        betas = array_from_wire(message.betas).astype(np.float64)
        state = self._people.get(message.person)
        if state is None:
            state = PersonState(message.person, betas, message.height_m)
            state.first_frame = self._first_frames.get(message.person, 0)
            self._people[message.person] = state
            for early in self._early.pop(message.person, ()):
                self._on_frames(early)
        elif not np.array_equal(betas, state.betas):
            state.betas, state.height_m = betas, message.height_m
            if state.is_built:
                self._reshaped.add(message.person)

    def _on_view(self, message: protocol.View) -> None:
        if self.options.use_camera:
            self._views.put(message)

    def _on_frames(self, message: protocol.Frames) -> None:
        state = self._people.get(message.person)
        if state is None:
            self._early.setdefault(message.person, []).append(message)
            return
        if state.is_gone:
            self._summary.dropped_frames += message.frames.shape[0]
            return
        taken = state.store.put(message)
        if self.options.mode == "ARMATURE" or len(taken) == 0:
            return
        vertices = array_from_wire(message.vertices) if message.vertices.data else None
        if vertices is not None:
            numbers = array_from_wire(message.frames)
            rows = len(numbers) - 1 - np.array([np.flatnonzero(numbers[::-1] == t)[0] for t in taken])
            vertices = vertices[rows]
        elif SINKS[self.options.mode].needs_vertices:
            self._warn("The engine sent no vertices, so there are no corrective shape keys")
            return
        sink = self._sink(state)
        if sink is not None:
            sink.add(taken, vertices)
        if self.options.mode == "SHAPE_KEYS" and len(state.store) > self.options.shape_key_limit:
            self._warn(
                f"More than {self.options.shape_key_limit} shape keys: FBX export becomes very slow; "
                "use a point cache or bone keys for long clips"
            )

    def _on_done(self, message: protocol.Done) -> None:
        self._is_closing = True
        scene = self._scene.find_or_none()
        for path in message.results:
            digits = os.path.splitext(str(path))[0].rpartition("_person")[2]
            state = self._people.get(int(digits)) if digits.isdigit() else None
            owner = state.owner_or_none(scene) if state is not None else None
            if owner is not None:
                owner[RESULT] = str(path)

    # Work, one small step at a time: True if something was done

    def _step(self) -> bool:
        scene = self._scene.find_or_none()
        if scene is None:
            return self._drop_all()
        if self._views.is_due(self._is_closing):
            self._write_views(scene)
            return True
        if self._body is None:
            return False
        for state in self._people.values():
            if self._step_person(scene, state):
                return True
        if any(sink.step() for sink in self._sinks.values()):
            return True
        return self._is_closing and self._step_closing()

    def _drop_all(self) -> bool:
        for state in self._people.values():
            state.is_gone = True
            for channel in state.channels:
                channel.dirty = None
        return False

    def _step_person(self, scene: bpy.types.Scene, state: PersonState) -> bool:
        if state.is_gone:
            return False
        if not state.is_built:
            collection = self._collection_or_none(scene)
            if collection is None:
                state.is_gone = True
                return False
            has_armature = self.options.mode != "SHAPE_KEYS"
            state.build(collection, self._body, self._provenance(), has_armature=has_armature)
            return True
        if state.armature is None or not (
            state.person in self._reshaped or state.store.has_waiting or state.has_dirty
        ):
            return False
        owner = state.owner_or_none(scene)
        if owner is None:
            return False
        if state.person in self._reshaped:
            self._reshaped.discard(state.person)
            figure.set_shape(owner, state.mesh_or_none(), state.betas)
            state.store.wait_all()
            return True
        if state.store.has_waiting:
            return state.convert(owner, self._body.rest_joints(state.betas))
        writer = self._bursts.get(state.person)
        if writer is None:
            writer = self._bursts[state.person] = KeyWriter(owner, owner.name)
        channel = next(c for c in state.channels if c.dirty is not None)
        state.write_channel(writer, channel, self._start, self._rate)
        return True

    def _sink(self, state: PersonState) -> VertexSink | None:
        sink = self._sinks.get(state.person)
        if sink is None and self._body is not None:
            kind = SINKS[self.options.mode]
            sink = kind(state, self._body, self.scene_frames, self.options.cache_dir)
            self._sinks[state.person] = sink
        return sink

    def _step_closing(self) -> bool:
        if self._closing is None:
            self._closing = self._closing_work()
        return next(self._closing, self) is None

    def _closing_work(self) -> Iterator[None]:
        for sink in self._sinks.values():
            yield from sink.closing_steps()
            sink.close()

    def _provenance(self) -> dict:
        values = {
            VIDEO: self._video.path if self._video else "",
            METHOD: self.options.method,
            VERSION: self.options.version,
            BODY: self._body.name,
            START_FRAME: self._start,
            RATE: self._rate,
        }
        return {key: value for key, value in values.items() if value != ""}

    def _base_name(self) -> str:
        path = self._video.path if self._video else ""
        return self.options.name or os.path.splitext(os.path.basename(path))[0] or "Video"

    def _collection_or_none(self, scene: bpy.types.Scene) -> bpy.types.Collection | None:
        """Return the job's collection, made at the first need; None once the user has deleted it."""
        if self._collection is not None:
            collection = self._collection.find_or_none()
            is_linked = collection is not None and any(c == collection for c in scene.collection.children_recursive)
            return collection if is_linked else None
        properties = {k: v for k, v in self._provenance().items()} if self._body else {}
        collection = figure.ensure_collection(scene, f"{self._base_name()} Mocap", properties)
        self._collection = mark(collection, "collections")
        return collection

    def _write_views(self, scene: bpy.types.Scene) -> None:
        if not self._views.is_started:
            collection = self._collection_or_none(scene)
            if collection is not None:
                video = self._video if self.options.use_background else None
                camera = self._views.start(scene, collection, f"{self._base_name()} Camera")
                if video is not None and not cameras.show_background(camera, video.path, int(round(self._start))):
                    self._warn(f"Blender cannot show the video behind the camera: {video.path}")
        size = self._views.write(lambda starts: self.scene_frames(self._times_of(starts)))
        if size is not None and self.options.match_resolution:
            cameras.match_render(scene, *size)

    def _times_of(self, starts: list[int]) -> np.ndarray:
        """Times [N] of source frames: those that came with them, else by the clip's average rate."""
        fps = self._video.fps if self._video and self._video.fps > 0 else self._rate
        times = np.array(starts, dtype=np.float64) / fps
        for state in self._people.values():
            known, place = state.store.frames, np.searchsorted(state.store.frames, starts)
            for i, p in enumerate(place):
                if p < len(known) and known[p] == starts[i]:
                    times[i] = state.store.times[p]
        return times
