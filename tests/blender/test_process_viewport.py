"""The viewport that turns to a job's camera: which one, when, and when it is left alone."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import bpy
import process_support as support
import pytest

from addon import viewport
from addon.viewport import FirstLook, View, largest_viewport_or_none, may_turn

FREE = View("PERSP", (0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 18.0), is_of_take=False, is_arranged=False)
CAMERA = replace(FREE, perspective="CAMERA", place=())


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        (FREE, FREE, True),
        (replace(FREE, perspective="ORTHO"), replace(FREE, perspective="ORTHO"), True),
        (FREE, replace(FREE, perspective="ORTHO"), False),
        (FREE, replace(FREE, place=(0.0, 0.0, 0.1, *FREE.place[3:])), False),
        (FREE, replace(FREE, place=(*FREE.place[:-1], 17.0)), False),
        (None, FREE, False),
        (CAMERA, CAMERA, False),
        (FREE, CAMERA, False),
        (replace(CAMERA, is_of_take=True), replace(CAMERA, is_of_take=True), True),
        (replace(CAMERA, is_of_take=True), FREE, False),
        (CAMERA, replace(CAMERA, is_of_take=True), False),
        (replace(FREE, is_arranged=True), replace(FREE, is_arranged=True), False),
    ],
)
def test_only_a_view_that_nobody_has_touched_is_turned(before: View | None, now: View, expected: bool) -> None:
    assert may_turn(before, now) is expected


def test_the_largest_viewport_that_shows_the_scene_is_meant() -> None:
    camera = SimpleNamespace(name="Camera")
    shown, other = SimpleNamespace(objects={"Camera": camera}), SimpleNamespace(objects={"Camera": "another"})

    def window(scene, *sizes: tuple[str, int, int]) -> SimpleNamespace:
        areas = [SimpleNamespace(type=kind, width=width, height=height) for kind, width, height in sizes]
        return SimpleNamespace(scene=scene, screen=SimpleNamespace(areas=areas))

    small = window(shown, ("VIEW_3D", 900, 100), ("DOPESHEET_EDITOR", 4000, 4000))
    large = window(shown, ("VIEW_3D", 200, 200), ("VIEW_3D", 400, 300))
    elsewhere = window(other, ("VIEW_3D", 2000, 2000))
    assert largest_viewport_or_none([small, elsewhere, large], camera) == (large, large.screen.areas[1])
    assert largest_viewport_or_none([elsewhere, window(shown, ("INFO", 9, 9))], camera) is None


@pytest.fixture
def space(addon) -> bpy.types.SpaceView3D:
    """The only 3D viewport, looking around freely."""
    [found] = [area.spaces.active for area in bpy.context.window.screen.areas if area.type == "VIEW_3D"]
    found.region_3d.view_perspective = "PERSP"
    return found


def new_camera(name: str) -> bpy.types.Object:
    camera = bpy.data.objects.new(name, bpy.data.cameras.new(name))
    bpy.context.scene.collection.objects.link(camera)
    return camera


def turn(look: FirstLook, camera: bpy.types.Object) -> bool:
    return look.turn(bpy.context.window_manager.windows, camera)


def test_a_viewport_turns_and_leads_back(space) -> None:
    camera, region = new_camera("New"), space.region_3d
    region.view_distance = 7.0
    before = viewport.view_of(space)
    look = FirstLook(bpy.context.window_manager.windows)
    assert turn(look, camera) and viewport.is_through(space, camera) and bpy.context.scene.camera == camera
    area = next(area for area in bpy.context.window.screen.areas if area.type == "VIEW_3D")
    with bpy.context.temp_override(area=area, region=area.regions[-1]):
        bpy.ops.view3d.view_camera()
    assert viewport.view_of(space) == before
    region.view_distance = 6.0
    assert not turn(look, camera), "moved"
    assert not turn(FirstLook([]), camera), "a viewport that was not there at the start"


def test_a_former_takes_camera_is_left_for_the_new_one_and_no_other(space) -> None:
    new, old = new_camera("New"), new_camera("Old")
    space.use_local_camera, space.camera = True, old
    space.region_3d.view_perspective = "CAMERA"
    assert not turn(FirstLook(bpy.context.window_manager.windows), new) and space.camera == old
    old[viewport.TOKEN] = "of a take"
    assert turn(FirstLook(bpy.context.window_manager.windows), new) and space.camera == new
    assert space.region_3d.view_perspective == "CAMERA"
    space.use_local_camera = False


def start(runtime, monkeypatch, folder, *, use_camera: bool = True) -> None:
    """Start a job as a window would, which background mode does not."""
    support.use_engine(monkeypatch, folder, frames=96, chunk_delay_s=0.05)
    support.import_clip(folder)
    bpy.context.scene.hyper_mocap.use_camera = use_camera
    monkeypatch.setattr("addon.session.Session.run_blocking", lambda self: None)
    monkeypatch.setattr(runtime, "close_job", lambda: None)
    support.recover()
    assert runtime._first_look is None, "in background mode"
    runtime._first_look = FirstLook(bpy.context.window_manager.windows)


def test_the_first_frames_are_seen_through_the_jobs_camera_once(space, runtime, monkeypatch, tmp_path) -> None:
    start(runtime, monkeypatch, tmp_path)
    region = space.region_3d
    while not runtime.session.status.frames:
        assert region.view_perspective == "PERSP", "too early"
        runtime.serve()
    support.serve_until(lambda: region.view_perspective == "CAMERA")
    camera = bpy.context.scene.camera
    assert runtime.is_running and viewport.is_through(space, camera) and camera.name.endswith("Camera")
    region.view_perspective = "PERSP"
    support.serve_until(lambda: not runtime.is_running)
    assert region.view_perspective == "PERSP", "twice"


def test_a_job_without_a_camera_turns_nothing(space, runtime, monkeypatch, tmp_path) -> None:
    start(runtime, monkeypatch, tmp_path, use_camera=False)
    support.serve_until(lambda: not runtime.is_running)
    assert runtime.session.status.frames == 96 and space.region_3d.view_perspective == "PERSP"
