"""Where streamed vertices go in the modes that use them: a point cache, corrective keys, or one shape key a frame.

A sink takes vertices as they come (`add`), works in small steps (`step`), and at the end yields its closing work
(`closing_steps`). It looks up its mesh anew in every step, and stops quietly when it is gone.
"""

from __future__ import annotations

import os
import tempfile
from collections import deque
from collections.abc import Iterator

import bpy
import numpy as np

from ..action import KeyWriter
from ..convert import rest_to_blender
from .bodydata import BodyData, skin
from .correctives import compute_correctives
from .figure import set_points
from .pc2 import PointCacheFile
from .person import PersonState, strictly_increasing

CACHE_MODIFIER = "Point Cache"


class VertexSink:
    """Common part: the queue of frames whose vertices wait. `scene_frames` maps times [N] to scene frames [N]."""

    needs_vertices = False
    """Whether frames without vertices are useless (else they are skinned here)."""

    def __init__(self, state: PersonState, body: BodyData, scene_frames, folder: str) -> None:
        self.state, self.body, self.scene_frames = state, body, scene_frames
        self.folder = folder or tempfile.gettempdir()
        self.warnings: list[str] = []
        self._queue: deque[tuple[int, np.ndarray | None]] = deque()
        self._rest: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None

    def add(self, frames: np.ndarray, vertices: np.ndarray | None) -> None:
        """Queue source frames [n] with their world vertices [n, V, 3], or None to skin them here."""
        for i, frame in enumerate(frames):
            self._queue.append((int(frame), None if vertices is None else vertices[i]))

    @property
    def has_waiting(self) -> bool:
        """Whether `step` has something to do."""
        return bool(self._queue)

    def step(self) -> None:
        """Take one frame from the queue; nothing of a figure that is gone."""
        if self.state.is_gone:
            self._queue.clear()
            return
        frame, vertices = self._queue.popleft()
        row = int(np.searchsorted(self.state.store.frames, frame))
        if row < len(self.state.store) and self.state.store.frames[row] == frame:
            self._take(row, frame, self._skinned(row) if vertices is None else vertices)

    def closing_steps(self) -> Iterator[str]:
        """Do what remains when no more frames will come; yield before each further piece, saying what kind it is."""
        yield from ()

    def close(self) -> None:
        """Release files; safe at any time."""

    def _skinned(self, row: int) -> np.ndarray:
        store, betas = self.state.store, self.state.betas
        if self._rest is None or self._rest[0] is not betas:
            self._rest = betas, self.body.rest_vertices(betas).astype(np.float32), self.body.rest_joints(betas)
        _, rest, joints = self._rest
        return skin(self.body, rest, store.poses[row : row + 1], store.trans[row : row + 1], joints)[0]

    def _take(self, row: int, frame: int, vertices: np.ndarray) -> None:
        raise NotImplementedError


class _FileSink(VertexSink):
    """A sink that first collects all vertices in a file, one sample a source frame from the first one known."""

    suffix = ".pc2"

    def __init__(self, *args) -> None:
        super().__init__(*args)
        self._cache: PointCacheFile | None = None
        self._first: int | None = None

    def _take(self, row: int, frame: int, vertices: np.ndarray) -> None:
        if self._cache is None:
            self._first = frame if self.state.first_frame is None else min(self.state.first_frame, frame)
            self._cache = PointCacheFile(self._new_path(), len(self.body.vertices))
        if frame < self._first:
            self._cache = self._cache.shifted(self._first - frame)
            self._first = frame
        self._cache.write(frame - self._first, vertices)

    def _new_path(self) -> str:
        handle = self.state.mesh
        stem = "".join(c if c.isalnum() or c in " -_" else "_" for c in handle.name).strip() or "figure"
        return os.path.join(self.folder, f"{stem} {handle.token[:8]}{self.suffix}")

    def close(self) -> None:
        if self._cache is not None:
            self._cache.close()


class PointCacheSink(_FileSink):
    """Exact vertices in a PC2 file that a Mesh Cache modifier plays; the armature stays beside it, keyed."""

    def _new_path(self) -> str:
        if bpy.data.filepath:
            stem = os.path.splitext(os.path.basename(bpy.data.filepath))[0]
            self.folder = os.path.join(os.path.dirname(bpy.data.filepath), f"{stem}_mocap_cache")
        return super()._new_path()

    def _take(self, row: int, frame: int, vertices: np.ndarray) -> None:
        super()._take(row, frame, vertices)
        self._cache.flush()
        mesh = self.state.mesh_or_none()
        if mesh is None:
            return
        modifier = mesh.modifiers.get(CACHE_MODIFIER) or self._add_modifier(mesh)
        scene_frame = self.scene_frames(self.state.store.times[row : row + 1])
        path = f'modifiers["{modifier.name}"].eval_frame'
        index = np.array([frame - self._first], dtype=np.float32)
        KeyWriter(mesh, f"{mesh.name} Action").write(path, 0, scene_frame, index, group="Point Cache")

    def _add_modifier(self, mesh: bpy.types.Object) -> bpy.types.Modifier:
        for modifier in mesh.modifiers:
            modifier.show_viewport = modifier.show_render = False
        cache = mesh.modifiers.new(CACHE_MODIFIER, "MESH_CACHE")
        cache.cache_format = "PC2"
        cache.play_mode, cache.time_mode, cache.interpolation = "CUSTOM", "FRAME", "LINEAR"
        cache.deform_mode, cache.forward_axis, cache.up_axis = "OVERWRITE", "POS_Y", "POS_Z"
        cache.filepath = self._blend_path()
        return cache

    def _blend_path(self) -> str:
        path = str(self._cache.path)
        if not bpy.data.filepath:
            return path
        try:
            return bpy.path.relpath(path)
        except ValueError:
            return path

    def closing_steps(self) -> Iterator[str]:
        if self._cache is None:
            return
        for index in self._cache.missing:
            self._cache.fill_gap(index)
            yield "gap"
        self.close()
        mesh = self.state.mesh_or_none()
        modifier = mesh.modifiers.get(CACHE_MODIFIER) if mesh is not None else None
        if modifier is None:
            return
        store = self.state.store
        frames = self.scene_frames(store.times)
        keep = strictly_increasing(frames.astype(np.float32))
        path = f'modifiers["{modifier.name}"].eval_frame'
        samples = (store.frames - self._first).astype(np.float32)
        KeyWriter(mesh, f"{mesh.name} Action").write(path, 0, frames[keep], samples[keep], group="Point Cache")
        modifier.filepath = self._blend_path()
        if not bpy.data.filepath:
            self.warnings.append(f"The point cache is in {self._cache.path.parent}: save the file to keep it with it")


class CorrectiveSink(_FileSink):
    """Bone keys plus at most 16 corrective shape keys; the vertices wait in a temporary file until the end."""

    needs_vertices = True
    suffix = ".tmp.pc2"

    def closing_steps(self) -> Iterator[str]:
        store = self.state.store
        if self._cache is None or self._cache.sample_count == 0:
            return
        gaps = set(self._cache.missing)
        rows = [r for r, f in enumerate(store.frames) if f - self._first < self._cache.sample_count]
        rows = [r for r in rows if int(store.frames[r]) - self._first not in gaps]
        found = yield from compute_correctives(
            self.body,
            self.state.betas,
            store.poses[rows],
            store.trans[rows],
            lambda n: self._cache.read(int(store.frames[rows[n]]) - self._first),
        )
        self.close()
        frames = self.scene_frames(store.times[rows])
        keep = strictly_increasing(frames.astype(np.float32))
        for k, delta in enumerate(found.deltas):
            mesh = self._keyed_mesh_or_none()
            if mesh is None:
                return
            self._add_key(mesh, f"Corrective {k + 1}", delta, frames[keep], found.values[keep, k])
            yield "corrective key"
        mesh = self._keyed_mesh_or_none()
        if mesh is not None:
            mesh["hyper_mocap_corrective_rms_mm"] = [1e3 * found.rms_before_m, 1e3 * found.rms_after_m]

    def _keyed_mesh_or_none(self) -> bpy.types.Object | None:
        mesh = self.state.mesh_or_none()
        return mesh if mesh is not None and mesh.data.shape_keys is not None else None

    def _add_key(
        self, mesh: bpy.types.Object, name: str, delta: np.ndarray, frames: np.ndarray, values: np.ndarray
    ) -> None:
        """One shape key that moves the template by delta [V, 3], with its values [N] at frames [N]."""
        key = mesh.data.shape_keys.key_blocks.get(name) or mesh.shape_key_add(name=name, from_mix=False)
        set_points(key.points, rest_to_blender(self.body.vertices + delta))
        key.slider_min, key.slider_max = -1.0, 1.0
        writer = KeyWriter(mesh.data.shape_keys, f"{mesh.name} Correctives")
        writer.write(f'key_blocks["{name}"].value', 0, frames, values, group="Correctives")

    def close(self) -> None:
        super().close()
        if self._cache is not None:
            self._cache.path.unlink(missing_ok=True)


class ShapeKeySink(VertexSink):
    """One relative shape key a frame with the frame's vertices, its value running 0, 1, 0 over its neighbours.

    Relative keys, because the FBX exporter leaves out absolute ones.
    """

    def __init__(self, *args) -> None:
        super().__init__(*args)
        self._keyed: list[int] = []

    def _take(self, row: int, frame: int, vertices: np.ndarray) -> None:
        mesh = self.state.mesh_or_none()
        if mesh is None:
            return
        if mesh.data.shape_keys is None:
            mesh.shape_key_add(name="Basis", from_mix=False)
        name = f"Frame {frame:05d}"
        key = mesh.data.shape_keys.key_blocks.get(name)
        if key is None:
            key = mesh.shape_key_add(name=name, from_mix=False)
            self._keyed = sorted({*self._keyed, frame})
            place = self._keyed.index(frame)
            self._write_ramps(mesh, range(max(place - 1, 0), min(place + 2, len(self._keyed))))
        set_points(key.points, vertices)

    def _write_ramps(self, mesh: bpy.types.Object, places: range) -> None:
        store = self.state.store
        writer = KeyWriter(mesh.data.shape_keys, f"{mesh.name} Frames")
        for place in places:
            around = self._keyed[max(place - 1, 0) : place + 2]
            rows = np.searchsorted(store.frames, around)
            frames = self.scene_frames(store.times[rows])
            values = np.array([1.0 if f == self._keyed[place] else 0.0 for f in around])
            path = f'key_blocks["Frame {self._keyed[place]:05d}"].value'
            writer.write(path, 0, frames, values, group="Frames", replace=True)


SINKS: dict[str, type[VertexSink]] = {
    "CORRECTIVES": CorrectiveSink,
    "SHAPE_KEYS": ShapeKeySink,
    "POINT_CACHE": PointCacheSink,
}
