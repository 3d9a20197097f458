"""Writes the engine's messages into the scene: the figure grows on the timeline while the job runs.

How to call it (main thread only)::

    writer = SceneWriter(context.scene, WriterOptions(mode="ARMATURE", method="fit", version="0.1.0"))
    # timer, or a plain loop in background mode:
    writer.handle(message)          # any protocol message, cheap (stores; under 1 ms); irrelevant ones are ignored
    more = writer.tick(0.004)       # works for at most about that long; True while work waits
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

import bpy
import numpy as np

from ..action import KeyWriter
from ..wire import protocol
from . import figure
from .bodydata import BodyData, array_from_wire
from .closing import Closing
from .options import WriterOptions, WriterSummary
from .person import HEIGHT, PersonState
from .schedule import CostBook, Piece
from .sinks import SINKS, VertexSink
from .stage import Stage

RESULT = "hyper_mocap_result"
"""Custom property of a figure: path of the result file with its raw motion."""


class SceneWriter:
    """Consumes protocol messages and builds the figures of one job. See the module's text for the calling order."""

    def __init__(self, scene: bpy.types.Scene, options: WriterOptions | None = None) -> None:
        self.options = options or WriterOptions()
        self._stage = Stage(scene, self.options)
        self._body: BodyData | None = None
        self._people: dict[int, PersonState] = {}
        self._early: list[protocol.Frames] = []
        self._first_frames: dict[int, int] = {}
        self._chosen: set[int] = set()
        self._results: dict[int, str] = {}
        self._sinks: dict[int, VertexSink] = {}
        self._reshaped: set[int] = set()
        self._is_closing = False
        self._closing: Closing | None = None
        self._costs = CostBook()
        self._bursts: dict[int, KeyWriter] = {}
        self._dropped = 0
        self._handlers = {
            protocol.Video: self._stage.set_video,
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
        return self._stage.warnings

    def camera_or_none(self) -> bpy.types.Object | None:
        """Return the job's camera once it is made; None where it is not wanted, or was deleted."""
        return self._stage.views.camera_or_none()

    def handle(self, message: protocol.Message) -> None:
        """Take one message. Cheap: the work waits for `tick`. BodyDataError if a body cannot be built from."""
        handler = self._handlers.get(type(message))
        if handler is not None:
            handler(message)

    def tick(self, budget_s: float = 0.006) -> bool:
        """Work for `budget_s` seconds, longer only where a single piece does; True while more waits."""
        now = time.perf_counter()
        deadline = now + budget_s
        self._bursts = {}
        is_first = True
        try:
            while (piece := self._next_piece()) is not None:
                if not is_first and not self._costs.fits(piece.kind, deadline - now):
                    return True
                started, is_first = now, False
                piece.work()
                now = time.perf_counter()
                self._costs.note(piece.kind, now - started)
            return False
        finally:
            scene = self._stage.scene_or_none()
            for person in self._bursts:
                owner = self._people[person].owner_or_none(scene)
                if owner is not None:
                    owner.update_tag(refresh={"TIME"})
            self._bursts = {}

    def restore(self) -> None:
        """After undo or redo while the job runs: what they took is built again from the frames that have arrived.

        Without armature and with vertex files figures are not built twice: `warn` says how to get them back.
        """
        scene = self._stage.restore()
        if scene is None:
            return
        for state in self._people.values():
            was_built = state.is_built
            state.restore(scene)
            if was_built and not state.is_built and state.person in self._sinks:
                state.is_gone = True
                self.warn("An undo took the figure away while the job ran: Import Result brings it back")

    def finish(self) -> WriterSummary:
        """Complete everything, close files and say what was made. No message may follow."""
        self._is_closing = True
        try:
            while self.tick(1.0):
                pass
        finally:
            for sink in self._sinks.values():
                sink.close()
        summary = WriterSummary(dropped_frames=self._dropped)
        for state in self._people.values():
            owner = state.owner_or_none(self._stage.scene_or_none())
            if owner is None or not len(state.store):
                continue
            summary.people.append(state.person)
            summary.frames += len(state.store)
            owner[HEIGHT] = state.height_m  # that of the last shape: the figure was built with the first
            if state.person in self._results:
                owner[RESULT] = self._results[state.person]
            self._stage.extend_range(float(state.store.times[-1]))
        summary.collection, summary.camera = self._stage.close()
        self._stage.show([self._people[p].owner_or_none(self._stage.scene_or_none()) for p in self._wanted(summary)])
        for sink in self._sinks.values():
            for text in sink.warnings:
                self.warn(text)
        summary.warnings = list(self.warnings)
        return summary

    def _wanted(self, summary: WriterSummary) -> list[int]:
        """The people whose figures stay: those who were not chosen away."""
        return [person for person in summary.people if not self._chosen or person in self._chosen]

    def use_body(self, body: BodyData) -> None:
        """Give the body directly, instead of a Body message."""
        self._body = body
        early, self._early = self._early, []
        for message in early:
            self._on_frames(message)

    def set_result(self, person: int, path: str) -> None:
        """Say in which file a person's motion is; `finish` notes it at the figure."""
        self._results[person] = path

    def warn(self, text: str) -> None:
        """Add a sentence for the user, once."""
        self._stage.warn(text)

    # Messages

    def _on_body(self, message: protocol.Body) -> None:
        self.use_body(BodyData.from_message(message))

    def _on_people(self, message: protocol.People) -> None:
        people = [entry for entry in message.people if isinstance(entry, dict)]
        self._chosen = {entry.get("person") for entry in people if entry.get("chosen")}
        for entry in people:
            if type(entry.get("person")) is int and type(entry.get("first")) is int:
                self._first_frames[entry["person"]] = entry["first"]

    def _on_shape(self, message: protocol.Shape) -> None:
        betas = array_from_wire(message.betas).astype(np.float64)
        state = self._people.get(message.person)
        if state is None:
            first = self._first_frames.get(message.person)
            self._people[message.person] = PersonState(message.person, betas, message.height_m, first)
            early, self._early = self._early, []
            for waiting in early:
                self._on_frames(waiting)
        elif not np.array_equal(betas, state.betas):
            state.betas, state.height_m = betas, message.height_m
            if state.is_built or state.building is not None:
                self._reshaped.add(message.person)

    def _on_view(self, message: protocol.View) -> None:
        if self.options.use_camera:
            self._stage.views.put(message)

    def _on_frames(self, message: protocol.Frames) -> None:
        state = self._people.get(message.person)
        if state is None or self._body is None:
            self._early.append(message)
            return
        if state.is_gone:
            self._dropped += message.frames.shape[0]
            return
        taken = state.store.put(message)
        if self.options.mode != "ARMATURE" and len(taken):
            self._take_vertices(state, message, taken)

    def _take_vertices(self, state: PersonState, message: protocol.Frames, taken: np.ndarray) -> None:
        """Hand the vertices of the frames that were taken to the person's sink."""
        kind = SINKS[self.options.mode]
        vertices = None
        if message.vertices.data:
            numbers = array_from_wire(message.frames)
            rows = len(numbers) - 1 - np.array([np.flatnonzero(numbers[::-1] == t)[0] for t in taken])
            vertices = array_from_wire(message.vertices)[rows]
        elif kind.needs_vertices:
            self.warn("The engine sent no vertices, so there are no corrective shape keys")
            return
        if state.person not in self._sinks:
            folder = self.options.cache_dir
            self._sinks[state.person] = kind(state, self._body, self._stage.scene_frames, folder)
        self._sinks[state.person].add(taken, vertices)
        if self.options.mode == "SHAPE_KEYS" and len(state.store) > self.options.shape_key_limit:
            self.warn(
                f"More than {self.options.shape_key_limit} shape keys: FBX export becomes very slow; "
                "use a point cache or bone keys for long clips"
            )

    def _on_done(self, message: protocol.Done) -> None:
        self._is_closing = True
        for path in message.results:
            digits = os.path.splitext(str(path))[0].rpartition("_person")[2]
            if digits.isdigit():
                self.set_result(int(digits), str(path))

    # Work, in small pieces

    def _next_piece(self) -> Piece | None:
        """What to do next, in the order of urgency; None if nothing waits."""
        scene = self._stage.scene_or_none()
        if scene is None:
            for state in self._people.values():
                state.give_up()
            return None
        if self._stage.views.is_due(self._is_closing):
            return Piece("camera", lambda: self._stage.write_views(list(self._people.values())))
        if self._body is None:
            return None
        for state in self._people.values():
            piece = self._piece_of_person(scene, state)
            if piece is not None:
                return piece
        for sink in self._sinks.values():
            if sink.has_waiting:
                return Piece("vertices", sink.step)
        if not self._is_closing:
            return None
        if self._closing is None:
            self._closing = Closing(self._people, self._sinks, self._stage)
        return self._closing.piece_or_none()

    def _piece_of_person(self, scene: bpy.types.Scene, state: PersonState) -> Piece | None:
        if state.is_gone:
            return None
        if not state.is_built:
            return self._building_piece(state)
        is_reshaped = state.person in self._reshaped
        if state.armature is None or not (is_reshaped or state.store.has_waiting or state.has_dirty):
            return None
        owner = state.owner_or_none(scene)
        if owner is None:
            return None
        if is_reshaped:
            return Piece("reshape", lambda: self._reshape(state, owner))
        if state.store.has_waiting:
            return Piece("convert", lambda: state.convert(owner, self._body.rest_joints(state.betas)))
        return Piece("keys", lambda: self._write_channel(state, owner))

    def _building_piece(self, state: PersonState) -> Piece | None:
        collection = self._stage.collection_or_none()
        if collection is None:
            state.give_up()
            return None
        properties = self._stage.provenance(self._body.name)
        has_armature = self.options.mode != "SHAPE_KEYS"
        kind = state.building.next_piece if state.building is not None else "mesh"
        known = {"has_armature": has_armature, "label": self._stage.label}
        return Piece(kind, lambda: state.build(collection, self._body, properties, **known))

    def _reshape(self, state: PersonState, owner: bpy.types.Object) -> None:
        self._reshaped.discard(state.person)
        figure.set_shape(owner, state.mesh_or_none(), state.betas)
        state.store.wait_all()

    def _write_channel(self, state: PersonState, owner: bpy.types.Object) -> None:
        writer = self._bursts.get(state.person)
        if writer is None:
            writer = self._bursts[state.person] = KeyWriter(owner, owner.name)
        channel = next(c for c in state.channels if c.dirty is not None)
        state.write_channel(writer, channel, self._stage.start_frame, self._stage.rate)
