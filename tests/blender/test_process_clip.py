"""Import Video: what a clip tells the scene, where its file is found again."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import bpy
import process_support as support
import pytest
from panel_support import context_with

from addon.videos import portable, video_path


def test_import_video_tells_the_clip(addon, tmp_path: Path) -> None:
    scene = bpy.context.scene
    scene.frame_start = 11
    path = support.import_clip(tmp_path, width=128, height=96, frames=49, rate=48)
    settings = scene.hyper_mocap
    assert Path(video_path(settings)) == path
    assert (settings.video_width, settings.video_height, settings.video_frames) == (128, 96, 49)
    assert settings.video_fps == pytest.approx(48.0)
    assert (settings.frame_first, settings.frame_last) == (1, 49)
    assert scene.frame_end == 11 + 24  # one second, at the scene's 24


def test_import_video_refuses_what_is_none(addon, tmp_path: Path) -> None:
    text = tmp_path / "notes.mp4"
    text.write_text("no video")
    with pytest.raises(RuntimeError, match="cannot read notes.mp4"):
        bpy.ops.hyper_mocap.import_video(filepath=str(text))
    with pytest.raises(RuntimeError, match="There is no file"):
        bpy.ops.hyper_mocap.import_video(filepath=str(tmp_path / "nothing.mp4"))
    assert bpy.context.scene.hyper_mocap.clip is None and not bpy.data.movieclips


@pytest.mark.parametrize("saved_first", [True, False])
def test_the_video_is_found_when_it_moves_with_the_file(addon, tmp_path: Path, saved_first: bool) -> None:
    from addon.figures import hide_figures

    (tmp_path / "a" / "clips").mkdir(parents=True)
    blend, preferences = tmp_path / "a" / "shot.blend", bpy.context.preferences.filepaths
    assert preferences.use_relative_paths, "Blender's default"
    if saved_first:
        bpy.ops.wm.save_as_mainfile(filepath=str(blend))
    path = support.import_clip(tmp_path / "a" / "clips")
    if saved_first:
        assert bpy.context.scene.hyper_mocap.clip.filepath == f"//clips/{path.name}"
        made = bpy.data.collections.new("Made")
        made["hyper_mocap_video"] = portable(str(path))
        bpy.context.scene.collection.children.link(made)
    bpy.ops.wm.save_as_mainfile(filepath=str(blend), relative_remap=True)
    (tmp_path / "a").rename(tmp_path / "b")
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "b" / "shot.blend"))
    settings = bpy.context.scene.hyper_mocap
    moved = tmp_path / "b" / "clips" / path.name
    assert Path(video_path(settings)) == moved
    assert hide_figures(bpy.context.view_layer, str(moved)) == (["Made"] if saved_first else [])
    settings.clip.filepath = str(path)
    assert Path(video_path(settings)) == path, "gone, and not beside the file"
    moved.rename(tmp_path / "b" / path.name)
    assert Path(video_path(settings)) == tmp_path / "b" / path.name


def test_absolute_paths_stay_where_they_are_preferred(addon, tmp_path: Path) -> None:
    bpy.context.preferences.filepaths.use_relative_paths = False
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "shot.blend"))
    path = support.import_clip(tmp_path)
    assert bpy.context.scene.hyper_mocap.clip.filepath == str(path)
    bpy.context.preferences.filepaths.use_relative_paths = True


def test_scene_takes_the_clips_rate(addon, tmp_path: Path) -> None:
    assert not bpy.ops.hyper_mocap.set_scene_fps.poll()
    support.import_clip(tmp_path, frames=61, rate=30000, scale=1001)
    assert bpy.ops.hyper_mocap.set_scene_fps() == {"FINISHED"}
    render = bpy.context.scene.render
    assert (render.fps, round(render.fps_base, 6)) == (30, 1.001)
    assert bpy.context.scene.frame_end == 61
    assert not bpy.ops.hyper_mocap.set_scene_fps.poll()


def test_an_empty_file_is_offered_the_clips_frame_rate(addon) -> None:
    from addon.ops.import_video import HYPER_MOCAP_OT_import_video as Import

    for is_animated in (False, True):
        if is_animated:
            bpy.data.actions.new("Walk")
        it = SimpleNamespace(use_frame_rate=is_animated)
        manager = SimpleNamespace(fileselect_add=lambda _operator: None)
        assert Import.invoke(it, context_with(window_manager=manager), None) == {"RUNNING_MODAL"}
        assert it.use_frame_rate is not is_animated
