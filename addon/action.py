"""The one module that knows Blender's three action APIs: arrays in, F-curves out.

4.2 and 4.3 keep curves in `action.fcurves`; 4.4 and 4.5 have slots with channelbags beside that old list; 5.0 has
channelbags only. Keys are written with foreach_set: linear, ordered by frame, one key a frame.
"""

from __future__ import annotations

from collections.abc import Callable

import bpy
import numpy as np

HAS_SLOTS = bpy.app.version >= (4, 4, 0)
SAME_FRAME = 1e-3
"""Keys closer than this many frames are the same key."""
_APPEND_LIMIT = 1500
"""From this many existing keys on, a few new ones at the end are set one by one: reading all back costs more."""
_KEYFRAME = bpy.types.Keyframe.bl_rna.properties
_LINEAR = _KEYFRAME["interpolation"].enum_items["LINEAR"].value


def ensure_action(id_block: bpy.types.ID, name: str) -> bpy.types.Action:
    """Return the datablock's action, made and assigned (with a slot where Blender has them) if there is none."""
    data = id_block.animation_data or id_block.animation_data_create()
    if data.action is None:
        data.action = bpy.data.actions.new(name)
    if HAS_SLOTS and data.action_slot is None:
        suitable = list(data.action_suitable_slots)
        data.action_slot = suitable[0] if suitable else data.action.slots.new(id_block.id_type, id_block.name)
    return data.action


def assign_action(id_block: bpy.types.ID, action: bpy.types.Action) -> bpy.types.Action:
    """Let an existing action play on a datablock, with the slot that suits it; returns the action."""
    data = id_block.animation_data or id_block.animation_data_create()
    data.action = action
    return ensure_action(id_block, action.name)


def channels_or_none(id_block: bpy.types.ID, *, ensure: bool = False):
    """Return what holds the datablock's `fcurves` and `groups`: an action (4.2), else a channelbag; None if absent.

    With `ensure`, layer, strip and channelbag are made where they lack.
    """
    data = id_block.animation_data
    if data is None or data.action is None:
        return None
    if not HAS_SLOTS:
        return data.action
    slot = data.action_slot
    if slot is None:
        return None
    for layer in data.action.layers:
        for strip in layer.strips:
            if strip.type == "KEYFRAME":
                return strip.channelbag(slot, ensure=ensure)
    if not ensure:
        return None
    layer = data.action.layers[0] if data.action.layers else data.action.layers.new("Layer")
    return layer.strips.new(type="KEYFRAME").channelbag(slot, ensure=True)


def curves_of(id_block: bpy.types.ID) -> list[bpy.types.FCurve]:
    """Return the datablock's F-curves; empty without an action."""
    channels = channels_or_none(id_block)
    return [] if channels is None else list(channels.fcurves)


def curves_in(action: bpy.types.Action) -> list[bpy.types.FCurve]:
    """Return all F-curves of an action, whatever they move."""
    if not HAS_SLOTS:
        return list(action.fcurves)
    strips = [strip for layer in action.layers for strip in layer.strips if strip.type == "KEYFRAME"]
    return [curve for strip in strips for bag in strip.channelbags for curve in bag.fcurves]


def scale_curve(curve: bpy.types.FCurve, factor: float, *, about: float = 0.0) -> None:
    """Scale a curve's values about a value, with the handles of its keys."""
    _change_values(curve, lambda values: about + factor * (values - about))


def shift_curve(curve: bpy.types.FCurve, by: float) -> None:
    """Add a number to a curve's values, with the handles of its keys."""
    _change_values(curve, lambda values: values + by)


def _change_values(curve: bpy.types.FCurve, change: Callable[[np.ndarray], np.ndarray]) -> None:
    points = curve.keyframe_points
    places = np.empty((len(points), 2), dtype=np.float32)
    for name in ("co", "handle_left", "handle_right"):
        points.foreach_get(name, places.ravel())
        places[:, 1] = change(places[:, 1])
        points.foreach_set(name, places.ravel())
    curve.update()


class KeyWriter:
    """Writes many channels of one datablock in a row. Short-lived: do not keep it while other code may run."""

    def __init__(self, id_block: bpy.types.ID, action_name: str) -> None:
        self._id = id_block
        self.action = ensure_action(id_block, action_name)
        self._channels = channels_or_none(id_block, ensure=True)
        self._curves = {(c.data_path, c.array_index): c for c in self._channels.fcurves}

    def write(
        self,
        path: str,
        index: int,
        frames: np.ndarray,
        values: np.ndarray,
        *,
        group: str = "",
        replace: bool = False,
    ) -> None:
        """Add keys at `frames` [n], increasing, with `values` [n]; keys that are already there take the new value.

        With `replace`, all other keys of the curve go.
        """
        frames = np.ascontiguousarray(frames, dtype=np.float32)
        values = np.ascontiguousarray(values, dtype=np.float32)
        if len(frames) == 0:
            return
        if frames.shape != values.shape or not (np.diff(frames) > 0).all():
            raise ValueError(f"{path}[{index}]: frames must increase, one value each")
        curve = self._curves.get((path, index))
        if curve is None:
            curve = self._curves[path, index] = self._new_curve(path, index, group)
        points, count = curve.keyframe_points, len(curve.keyframe_points)
        is_append = not replace and count > 0 and points[count - 1].co[0] < frames[0] - SAME_FRAME
        if is_append and count >= _APPEND_LIMIT and len(frames) * 10 < count:
            _append_keys(points, frames, values)
        else:
            old = np.empty((0 if replace else count, 2), dtype=np.float32)
            if len(old):
                points.foreach_get("co", old.ravel())
            _replace_keys(points, _merged(old, frames, values))
        if len(points) < _APPEND_LIMIT:
            curve.update()

    def update_long_curves(self, chosen: slice = slice(None)) -> None:
        """Set the handles of long curves, which `write` leaves out: linear keys ignore them, so once is enough.

        chosen: which of the datablock's curves, to spread the work.
        """
        for curve in self._channels.fcurves[chosen]:
            if len(curve.keyframe_points) >= _APPEND_LIMIT:
                curve.update()

    def _new_curve(self, path: str, index: int, group: str) -> bpy.types.FCurve:
        channels = self._channels
        if not HAS_SLOTS:
            return channels.fcurves.new(path, index=index, action_group=group)
        curve = channels.fcurves.new(path, index=index)
        if group:
            curve.group = channels.groups.get(group) or channels.groups.new(group)
        return curve


def write_keys(
    id_block: bpy.types.ID,
    path: str,
    frames: np.ndarray,
    values: np.ndarray,
    *,
    group: str = "",
    action_name: str = "",
) -> None:
    """Write `values` [N, C] (or [N]) of one property at `frames` [N]: C curves with array index 0..C-1.

    Merges with the keys that exist: the same frame takes the new value, other keys stay.
    """
    columns = np.asarray(values).reshape(len(frames), -1)
    writer = KeyWriter(id_block, action_name or f"{id_block.name} Action")
    for index in range(columns.shape[1]):
        writer.write(path, index, frames, columns[:, index], group=group)
    writer.update_long_curves()
    id_block.update_tag(refresh={"TIME"})


def read_keys(id_block: bpy.types.ID, path: str, index: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return (frames [N], values [N]) of one channel; both empty if it is not animated."""
    for curve in curves_of(id_block):
        if curve.data_path == path and curve.array_index == index:
            co = np.empty((len(curve.keyframe_points), 2), dtype=np.float32)
            curve.keyframe_points.foreach_get("co", co.ravel())
            return co[:, 0], co[:, 1]
    return np.empty(0, dtype=np.float32), np.empty(0, dtype=np.float32)


def remove_curves(id_block: bpy.types.ID, path: str) -> None:
    """Remove the curves of a property, whatever their index."""
    channels = channels_or_none(id_block)
    for curve in [c for c in curves_of(id_block) if c.data_path == path]:
        channels.fcurves.remove(curve)


def _merged(old: np.ndarray, frames: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Keys [N, 2] from the old ones [M, 2] and the new ones, new over old, ordered."""
    new = np.stack([frames, values], axis=1)
    if len(old) == 0:
        return new
    place = np.clip(np.searchsorted(frames, old[:, 0]), 1, len(frames)) if len(frames) > 1 else np.ones(len(old), int)
    left = np.abs(old[:, 0] - frames[place - 1])
    right = np.abs(old[:, 0] - frames[np.minimum(place, len(frames) - 1)])
    kept = old[np.minimum(left, right) > SAME_FRAME]
    both = np.concatenate([kept, new])
    return both[np.argsort(both[:, 0], kind="stable")]


def _replace_keys(points, keys: np.ndarray) -> None:
    surplus = len(points) - len(keys)
    if surplus > 0:
        points.clear()
    if len(points) < len(keys):
        points.add(len(keys) - len(points))
    points.foreach_set("co", np.ascontiguousarray(keys).ravel())
    points.foreach_set("interpolation", np.full(len(keys), _LINEAR, dtype=np.int32))


def _append_keys(points, frames: np.ndarray, values: np.ndarray) -> None:
    start = len(points)
    points.add(len(frames))
    for offset, (frame, value) in enumerate(zip(frames.tolist(), values.tolist())):
        point = points[start + offset]
        point.co = (frame, value)
        point.interpolation = "LINEAR"
