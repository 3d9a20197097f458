"""Operators in a Blender without a window: registration, jobs, people, results."""

from __future__ import annotations

import importlib
from pathlib import Path

import bpy
import numpy as np
import process_support as support
import pytest

from tests.fake_engine import heard
from tests.fake_motion import skin, walk


def test_register_twice_leaves_nothing() -> None:
    bpy.ops.wm.read_factory_settings(use_empty=True)
    before = support.snapshot()
    module = importlib.import_module("addon")
    for _ in range(2):
        module.register()
        assert support.snapshot() != before and hasattr(bpy.types, "HYPER_MOCAP_OT_recover_motion")
        module.unregister()
        assert support.snapshot() == before


def test_every_operator_and_property_is_described(addon) -> None:
    bases = (bpy.types.Operator, bpy.types.PropertyGroup, bpy.types.AddonPreferences)
    classes = [c for base in bases for c in base.__subclasses__() if c.__module__.startswith("addon.")]
    assert len(classes) > 15
    for cls in classes:
        if issubclass(cls, bpy.types.Operator):
            texts = [getattr(bpy.ops.hyper_mocap, cls.bl_idname.split(".")[1]).get_rna_type().description]
        else:
            texts = []
        own = [p for p in cls.bl_rna.properties if p.identifier in cls.__annotations__ and not p.is_hidden]
        texts += [p.description for p in own]
        assert all(text and not text.endswith(".") for text in texts), (cls.__name__, texts)


def test_a_tick_takes_a_share_of_what_blender_takes(addon, monkeypatch) -> None:
    """6 ms where the timer is served on time; a fifth of what goes beyond its interval of 0.1 s, at most 0.1 s."""
    runtime, budgets = addon.runtime.Runtime(), []
    for waited, budget in ((0.02, 0.006), (0.1, 0.006), (0.3, 0.04), (5.0, 0.1)):
        runtime._served_at = 100.0
        monkeypatch.setattr(addon.runtime.time, "monotonic", lambda now=100.0 + waited: now)
        budgets.append((runtime._budget_s(), budget))
    runtime._served_at = 0.0
    assert runtime._budget_s() == 0.006, "the first of a job"
    assert all(got == pytest.approx(expected) for got, expected in budgets)


def test_a_job_writes_keys_that_pose_the_body(addon, runtime, monkeypatch, tmp_path: Path) -> None:
    folder = support.use_engine(monkeypatch, tmp_path, frames=70, people=2)
    path = support.import_clip(tmp_path, frames=70)
    bpy.ops.hyper_mocap.set_scene_fps()
    settings = bpy.context.scene.hyper_mocap
    settings.frame_first, settings.frame_last = 4, 60
    settings.use_focal, settings.focal_mm = True, 35.0
    settings.height = 0.2
    assert settings.height == 0.5, "what the engine takes at least"
    assert "height_m" not in importlib.import_module("addon.ops.recover_motion").collect_job_options(settings, None)
    settings.use_height = True
    settings.height = 1.72
    support.recover()
    for person in (0, 1):
        for frame in (0, 33, 69):
            expected = skin(*walk(np.array([frame]), 30.0, person))[0]
            np.testing.assert_allclose(support.posed_vertices(person, 1 + frame), expected, atol=2e-5)
    job = heard(folder)["job"]
    assert job["video"] == str(path)
    assert job["options"]["start"] == pytest.approx(0.1) and job["options"]["end"] == pytest.approx(2.0)
    assert job["options"]["focal_mm"] == 35.0 and job["options"]["person"] == "all"
    assert job["options"]["height_m"] == pytest.approx(1.72)
    assert not runtime.is_running and runtime.session.status.error == ""


def test_people_are_listed_and_chosen(addon, runtime, monkeypatch, tmp_path: Path) -> None:
    support.start_slow_job(runtime, monkeypatch, tmp_path, people=3)
    rows = bpy.context.window_manager.hyper_mocap.people
    assert [row.name for row in rows] == ["Person 1", "Person 2", "Person 3"]
    assert rows[1].confidence == pytest.approx(0.73)
    rows[1].use = False
    bpy.ops.hyper_mocap.choose_people()
    support.serve_until(lambda: "chosen" in heard(tmp_path / "engine"))
    assert heard(tmp_path / "engine")["chosen"] == [0, 2]


def test_a_person_chosen_away_leaves_no_figure(addon, monkeypatch, tmp_path: Path) -> None:
    support.use_engine(monkeypatch, tmp_path, people=3, unchosen=(1,))
    support.import_clip(tmp_path)
    support.recover()
    names = {obj.name for obj in bpy.data.objects if obj.type in {"ARMATURE", "MESH"}}
    assert names == {"Person 1", "Person 1 Body", "Person 3", "Person 3 Body"}


def test_export_writes_a_file(addon, monkeypatch, tmp_path: Path) -> None:
    assert not bpy.ops.hyper_mocap.export_fbx.poll()
    support.use_engine(monkeypatch, tmp_path, frames=32)
    support.import_clip(tmp_path)
    support.recover()
    out = tmp_path / "out.fbx"
    assert bpy.ops.hyper_mocap.export_fbx(filepath=str(out)) == {"FINISHED"}
    assert out.read_bytes().startswith(b"Kaydara FBX Binary")
    assert all(key.user for key in bpy.data.shape_keys)
    assert bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "after.blend")) == {"FINISHED"}
    with pytest.raises(RuntimeError, match="There is no folder"):
        bpy.ops.hyper_mocap.export_fbx(filepath=str(tmp_path / "nowhere" / "out.fbx"))


def test_smoothing_keeps_the_raw_motion_beside_it(addon, monkeypatch, tmp_path: Path) -> None:
    assert not bpy.ops.hyper_mocap.smooth_motion.poll() and not bpy.ops.hyper_mocap.compare_smoothing.poll()
    support.use_engine(monkeypatch, tmp_path, frames=64)
    support.import_clip(tmp_path, frames=64)
    bpy.ops.hyper_mocap.set_scene_fps()
    support.recover()
    raw = support.posed_vertices(0, 20)
    assert bpy.ops.hyper_mocap.smooth_motion(seconds=0.5, keep_hits=False) == {"FINISHED"}
    smooth = support.posed_vertices(0, 20)
    assert np.abs(smooth - raw).max() > 0.01
    assert bpy.ops.hyper_mocap.compare_smoothing() == {"FINISHED"}
    np.testing.assert_allclose(support.posed_vertices(0, 20), raw, atol=1e-6)
    bpy.ops.hyper_mocap.compare_smoothing()
    np.testing.assert_allclose(support.posed_vertices(0, 20), smooth, atol=1e-6)
    for path in (tmp_path / "results").rglob("*.npz"):
        path.unlink()
    with pytest.raises(RuntimeError, match="is gone"):
        bpy.ops.hyper_mocap.smooth_motion()


def test_results_come_back_without_an_engine(addon, monkeypatch, tmp_path: Path) -> None:
    """The shipped body replaces the boxes, so joints are compared: the pelvis' path is that of the walk."""
    support.use_engine(monkeypatch, tmp_path, frames=40, people=2)
    support.import_clip(tmp_path, frames=40)
    bpy.ops.hyper_mocap.set_scene_fps()
    support.recover()
    paths = sorted((tmp_path / "results").rglob("*.npz"))
    bpy.ops.wm.read_homefile(use_empty=True)
    bpy.context.scene.render.fps = 30
    names = [{"name": path.name} for path in paths]
    done = bpy.ops.hyper_mocap.import_result(filepath=str(paths[0]), directory=str(paths[0].parent), files=names)
    assert done == {"FINISHED"}
    for person in (0, 1):
        pelvis = []
        for frame in (1, 40):
            bpy.context.scene.frame_set(frame)
            rig = bpy.data.objects[f"Person {person + 1}"]
            pelvis.append(rig.matrix_world @ rig.pose.bones["pelvis"].head)
        trans = walk(np.array([0, 39]), 30.0, person)[1]
        np.testing.assert_allclose(np.array(pelvis[1] - pelvis[0]), trans[1] - trans[0], atol=1e-4)
    notes = tmp_path / "notes.npz"
    notes.write_text("none")
    with pytest.raises(RuntimeError, match="not a readable result"):
        bpy.ops.hyper_mocap.import_result(filepath=str(notes))


def test_another_recovery_of_a_clip_hides_the_earlier_one(addon, runtime, monkeypatch, tmp_path: Path) -> None:
    from addon.figures import chosen_figures

    def seen() -> set[str]:
        figures = [obj for obj in bpy.context.view_layer.objects if obj.type == "ARMATURE"]
        rendered = {obj.name for obj in figures if not any(place.hide_render for place in obj.users_collection)}
        assert rendered == {obj.name for obj in figures if obj.visible_get()}, "renders show what the viewport shows"
        return rendered

    support.use_engine(monkeypatch, tmp_path, frames=8)
    path = support.import_clip(tmp_path, frames=8)
    bpy.ops.hyper_mocap.set_scene_fps()
    support.recover()
    assert seen() == {"Person 1"}
    support.recover()
    assert seen() == {"Person 1 take 2"}, "two in one place"
    assert bpy.context.view_layer.objects.active == bpy.data.objects["Person 1 take 2"]
    assert bpy.data.objects["Person 1"].animation_data.action.frame_range[1] == 8, "it is only out of sight"
    bpy.ops.object.select_all(action="DESELECT")
    assert [obj.name for obj in chosen_figures(bpy.context)] == ["Person 1 take 2"]
    support.use_engine(monkeypatch, tmp_path / "bad", error_at=0)
    with pytest.raises(RuntimeError):
        bpy.ops.hyper_mocap.recover_motion()
    assert seen() == {"Person 1 take 2"}, "nothing came that could take its place"
    support.use_engine(monkeypatch, tmp_path / "other", frames=8)
    path.rename(tmp_path / "other.avi")
    bpy.ops.hyper_mocap.import_video(filepath=str(tmp_path / "other.avi"))
    support.recover()
    assert seen() == {"Person 1 take 2", "Person 1 other"}, "another clip"
    for name in ("Person 1 take 2", "Person 1 other"):
        figure = bpy.data.objects[name]
        body = figure.children[0]
        assert (figure.data.name, figure.animation_data.action.name) == (name, name)
        assert (body.name, body.data.name) == (f"{name} Body", f"{name} Body")
    places = sorted(c.name for c in bpy.data.collections)
    assert places == sorted([f"{path.stem} Mocap", f"{path.stem} Mocap take 2", "other Mocap"])
    cameras = sorted(obj.name for obj in bpy.data.objects if obj.type == "CAMERA")
    assert cameras == sorted([f"{path.stem} Camera", f"{path.stem} Camera take 2", "other Camera"])


def test_every_job_has_result_files_of_its_own(addon, monkeypatch, tmp_path: Path) -> None:
    """A figure is smoothed from its file: that of a later job must not have taken its place."""
    folder = support.use_engine(monkeypatch, tmp_path, frames=8)
    path = support.import_clip(tmp_path, frames=8)
    support.recover()
    support.recover()
    files = [Path(bpy.data.objects[name]["hyper_mocap_result"]) for name in ("Person 1", "Person 1 take 2")]
    assert all(file.is_file() for file in files)
    assert [file.parent for file in files] == [tmp_path / "results" / name for name in (path.stem, f"{path.stem} 2")]
    options = heard(folder)["job"]["options"]
    assert options["resume"] is True and options["cache_dir"] == str(tmp_path / "results" / ".hyper_mocap_cache")


def test_the_viewport_looks_through_the_figures_camera_and_back(addon, monkeypatch, tmp_path: Path) -> None:
    window = bpy.context.window
    area = next(area for area in window.screen.areas if area.type == "VIEW_3D")
    look = bpy.ops.hyper_mocap.look_through_camera

    def press() -> str:
        with bpy.context.temp_override(window=window, area=area):
            assert look() == {"FINISHED"}
        return area.spaces.active.region_3d.view_perspective

    scene = bpy.context.scene
    scene.camera = own = bpy.data.objects.new("Own", bpy.data.cameras.new("Own"))
    scene.collection.objects.link(own)
    with bpy.context.temp_override(window=window, area=area), pytest.raises(RuntimeError, match="There is no camera"):
        look()
    assert not look.poll(), "not in a viewport"
    support.use_engine(monkeypatch, tmp_path, frames=8)
    support.import_clip(tmp_path, frames=8)
    support.recover()
    first = scene.camera
    scene.camera = own
    assert press() == "CAMERA" and scene.camera == first != own
    assert press() == "PERSP"
    support.recover()
    second = scene.camera
    assert press() == "CAMERA" and scene.camera == second != first
    bpy.data.collections[first.users_collection[0].name].hide_viewport = False
    bpy.ops.object.select_all(action="DESELECT")
    scene.camera = own
    assert press() == "CAMERA" and scene.camera == second, "the one that is to be seen"
