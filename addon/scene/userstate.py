"""What the user has selected while a job runs: a finished figure takes over only what was left alone."""

from __future__ import annotations

import bpy


class UserState:
    """Selection and playhead of a scene at the start of a job. Keeps names only."""

    def __init__(self, scene: bpy.types.Scene) -> None:
        self._selection = _selection(scene)
        self._frame = scene.frame_current

    def show(self, scene: bpy.types.Scene, figures: list[bpy.types.Object], first_frame: int) -> None:
        """Select the figures, make the first one active, and bring the playhead to the clip if it stands beside it.

        Nothing happens to a selection that has changed since, nor while an object is edited or posed.
        """
        if scene.frame_current == self._frame and not first_frame <= self._frame <= scene.frame_end:
            scene.frame_current = first_frame
        layer = _view_layer(scene)
        active = layer.objects.active  # asking for it brings the layer up to date with what was linked
        figures = [obj for obj in figures if layer.objects.get(obj.name) == obj]
        if not figures or _selection(scene) != self._selection or (active is not None and active.mode != "OBJECT"):
            return
        for obj in list(layer.objects.selected):
            obj.select_set(False, view_layer=layer)
        for obj in figures:
            obj.select_set(True, view_layer=layer)
        layer.objects.active = figures[0]


def _selection(scene: bpy.types.Scene) -> tuple[str, frozenset[str]]:
    """Names of the active and of the selected objects."""
    layer = _view_layer(scene)
    active = layer.objects.active
    return active.name if active is not None else "", frozenset(obj.name for obj in layer.objects.selected)


def _view_layer(scene: bpy.types.Scene) -> bpy.types.ViewLayer:
    """The view layer in which the user sees the scene: that of its window, else the first."""
    windows = bpy.context.window_manager.windows
    return next((w.view_layer for w in windows if w.scene == scene), scene.view_layers[0])
