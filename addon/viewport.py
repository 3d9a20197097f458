"""Which viewport looks through a job's camera: the first frames of a job are seen over their footage.

Views that somebody has arranged are left alone: one that was moved while the job ran, that looks through a camera of
the user's own, that shows a few objects alone (local view) or four sides at once. Between the start of a job and its
first frames spaces are known by their numbers, as areas and windows may close meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import bpy

from .scene.lookup import TOKEN


@dataclass(frozen=True)
class View:
    """What a viewport shows, as far as it tells whether somebody has touched it."""

    perspective: str
    """PERSP, ORTHO or CAMERA."""
    place: tuple[float, ...]
    """Location [3], rotation [4] and distance; empty in a camera's view, where they follow the camera."""
    is_of_take: bool
    """Whether it looks through the camera of a recovery."""
    is_arranged: bool
    """Whether it is a local view, or one of four."""


def view_of(space: bpy.types.SpaceView3D) -> View:
    """Return what a 3D viewport shows now."""
    region, camera = space.region_3d, space.camera
    is_camera = region.view_perspective == "CAMERA"
    place = () if is_camera else (*region.view_location, *region.view_rotation, region.view_distance)
    return View(
        perspective=region.view_perspective,
        place=place,
        is_of_take=is_camera and camera is not None and TOKEN in camera,
        is_arranged=space.local_view is not None or len(space.region_quadviews) > 0,
    )


def may_turn(before: View | None, now: View) -> bool:
    """Return whether a viewport may be turned to a job's camera. before: at the start of the job, None if unknown."""
    return before == now and not now.is_arranged and (now.perspective != "CAMERA" or now.is_of_take)


def is_through(space: bpy.types.SpaceView3D, camera: bpy.types.Object) -> bool:
    """Return whether this viewport looks through the camera."""
    return space.region_3d.view_perspective == "CAMERA" and space.camera == camera


def look_through(window: bpy.types.Window, area: bpy.types.Area, camera: bpy.types.Object) -> None:
    """Let a viewport look through the camera, which becomes the scene's."""
    space = area.spaces.active
    window.scene.camera = camera
    if space.use_local_camera:
        space.camera = camera
    if space.region_3d.view_perspective != "CAMERA":
        region = next(region for region in area.regions if region.type == "WINDOW")
        with bpy.context.temp_override(window=window, area=area, region=region):
            bpy.ops.view3d.view_camera()  # keeps the view before, to which View Camera (Numpad 0) leads back


def largest_viewport_or_none(
    windows: Iterable[bpy.types.Window], camera: bpy.types.Object
) -> tuple[bpy.types.Window, bpy.types.Area] | None:
    """Return window and area of the largest 3D viewport that shows the camera's scene, None if there is none."""
    seen = [
        (window, area)
        for window in windows
        if window.scene.objects.get(camera.name) == camera
        for area in _viewports(window)
    ]
    return max(seen, key=lambda pair: pair[1].width * pair[1].height, default=None)


class FirstLook:
    """The viewports as they were at the start of a job; the largest is turned once its camera is there."""

    def __init__(self, windows: Iterable[bpy.types.Window]) -> None:
        spaces = [area.spaces.active for window in windows for area in _viewports(window)]
        self._views = {space.as_pointer(): view_of(space) for space in spaces}

    def turn(self, windows: Iterable[bpy.types.Window], camera: bpy.types.Object) -> bool:
        """Turn the largest viewport that shows the camera's scene; False if there is none, or it was touched."""
        found = largest_viewport_or_none(windows, camera)
        if found is None:
            return False
        space = found[1].spaces.active
        if not may_turn(self._views.get(space.as_pointer()), view_of(space)):
            return False
        look_through(*found, camera)
        return True


def _viewports(window: bpy.types.Window) -> list[bpy.types.Area]:
    return [area for area in window.screen.areas if area.type == "VIEW_3D"]
