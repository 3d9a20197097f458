"""Operators in a Blender without a window: registration, clips, jobs in every outcome, and what must not happen."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import bpy
import numpy as np
import process_support as support
import pytest

from tests.fake_engine import heard, skin, walk

HANDLERS = [name for name in dir(bpy.app.handlers) if isinstance(getattr(bpy.app.handlers, name), list)]


def snapshot() -> tuple:
    """Everything that registering may touch."""
    return (
        set(dir(bpy.types)),
        set(dir(bpy.ops.hyper_mocap)),
        {name: list(getattr(bpy.app.handlers, name)) for name in HANDLERS},
        set(bpy.types.Scene.bl_rna.properties.keys()),
        set(bpy.types.WindowManager.bl_rna.properties.keys()),
    )


@pytest.fixture
def addon():
    """An emptied Blender with the add-on registered, and left as it was found."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    before = snapshot()
    module = importlib.import_module("addon")
    module.register()
    importlib.import_module("addon.runtime").runtime.forget_engine()
    yield module
    module.unregister()
    assert snapshot() == before


@pytest.fixture
def runtime(addon):
    return importlib.import_module("addon.runtime").runtime


def recover() -> None:
    assert bpy.ops.hyper_mocap.recover_motion() == {"FINISHED"}


def start_slow_job(runtime, monkeypatch, tmp_path: Path, **behaviour):
    """Start a job as a window would: the operator returns and the timer serves."""
    support.use_engine(monkeypatch, tmp_path, **{"frames": 1600, "chunk_delay_s": 0.05} | behaviour)
    support.import_clip(tmp_path)
    monkeypatch.setattr("addon.session.Session.run_blocking", lambda self: None)
    bpy.ops.hyper_mocap.recover_motion()
    support.serve_until(lambda: runtime.session.status.frames >= 64)
    return runtime.session


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_register_twice_leaves_nothing() -> None:
    bpy.ops.wm.read_factory_settings(use_empty=True)
    before = snapshot()
    module = importlib.import_module("addon")
    for _ in range(2):
        module.register()
        assert snapshot() != before and hasattr(bpy.types, "HYPER_MOCAP_OT_recover_motion")
        module.unregister()
        assert snapshot() == before


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


def test_import_video_tells_the_clip(addon, tmp_path: Path) -> None:
    scene = bpy.context.scene
    scene.frame_start = 11
    path = support.import_clip(tmp_path, width=128, height=96, frames=49, rate=48)
    settings = scene.hyper_mocap
    assert Path(settings.video) == path
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
    assert bpy.context.scene.hyper_mocap.video == "" and not bpy.data.movieclips


def test_scene_takes_the_clips_rate(addon, tmp_path: Path) -> None:
    assert not bpy.ops.hyper_mocap.set_scene_fps.poll()
    support.import_clip(tmp_path, frames=61, rate=30000, scale=1001)
    assert bpy.ops.hyper_mocap.set_scene_fps() == {"FINISHED"}
    render = bpy.context.scene.render
    assert (render.fps, round(render.fps_base, 6)) == (30, 1.001)
    assert bpy.context.scene.frame_end == 61
    assert not bpy.ops.hyper_mocap.set_scene_fps.poll()


def test_a_job_writes_keys_that_pose_the_body(addon, runtime, monkeypatch, tmp_path: Path) -> None:
    folder = support.use_engine(monkeypatch, tmp_path, frames=70, people=2)
    path = support.import_clip(tmp_path, frames=70)
    bpy.ops.hyper_mocap.set_scene_fps()
    settings = bpy.context.scene.hyper_mocap
    settings.frame_first, settings.frame_last = 4, 60
    settings.use_focal, settings.focal_mm = True, 35.0
    recover()
    for person in (0, 1):
        for frame in (0, 33, 69):
            expected = skin(*walk(np.array([frame]), 30.0, person))[0]
            np.testing.assert_allclose(support.posed_vertices(person, 1 + frame), expected, atol=2e-5)
    job = heard(folder)["job"]
    assert job["video"] == str(path)
    assert job["options"]["start"] == pytest.approx(0.1) and job["options"]["end"] == pytest.approx(2.0)
    assert job["options"]["focal_mm"] == 35.0 and job["options"]["person"] == "all"
    assert not runtime.is_running and runtime.session.status.error == ""


def test_what_arrived_before_a_crash_is_kept(addon, runtime, monkeypatch, tmp_path: Path) -> None:
    support.use_engine(monkeypatch, tmp_path, frames=96, exit_at=64)
    support.import_clip(tmp_path)
    bpy.context.scene.render.fps = 30
    with pytest.raises(RuntimeError, match="exit code 3.*the weights are broken"):
        bpy.ops.hyper_mocap.recover_motion()
    expected = skin(*walk(np.array([63]), 30.0, 0))[0]
    np.testing.assert_allclose(support.posed_vertices(0, 64), expected, atol=2e-5)
    assert runtime.session.summary.frames == 64


def test_an_engine_error_is_the_operators_error(addon, monkeypatch, tmp_path: Path) -> None:
    support.use_engine(monkeypatch, tmp_path, error_at=0, error_text="Nobody was found: choose another clip")
    support.import_clip(tmp_path)
    with pytest.raises(RuntimeError, match="Nobody was found: choose another clip"):
        bpy.ops.hyper_mocap.recover_motion()
    assert not bpy.data.armatures and not bpy.data.objects and not bpy.data.collections


def test_without_engine_or_video_the_button_says_why(addon, runtime, monkeypatch, tmp_path: Path) -> None:
    assert not bpy.ops.hyper_mocap.recover_motion.poll()
    support.import_clip(tmp_path)
    support.use_engine(monkeypatch, tmp_path)
    assert bpy.ops.hyper_mocap.recover_motion.poll()

    from addon.engine_env import find_python

    monkeypatch.setattr("addon.runtime.find_engine", lambda: find_python("", tmp_path / "none", ["torch"]))
    runtime.forget_engine()
    assert not bpy.ops.hyper_mocap.recover_motion.poll()
    assert runtime.engine_problem().startswith("The engine is not built yet")


def test_a_missing_video_is_an_error(addon, monkeypatch, tmp_path: Path) -> None:
    support.use_engine(monkeypatch, tmp_path)
    support.import_clip(tmp_path).unlink()
    with pytest.raises(RuntimeError, match="is gone: import it again"):
        bpy.ops.hyper_mocap.recover_motion()


def test_cancel_keeps_frames_and_is_quick(addon, runtime, monkeypatch, tmp_path: Path) -> None:
    session = start_slow_job(runtime, monkeypatch, tmp_path)
    assert bpy.ops.hyper_mocap.cancel_job() == {"FINISHED"}
    assert support.serve_until(lambda: session.is_over) < 1.0
    assert session.summary.frames >= 64
    assert not bpy.ops.hyper_mocap.cancel_job.poll()
    assert runtime.serve() is None  # the timer ends itself


def test_a_second_job_waits_for_the_first(addon, runtime, monkeypatch, tmp_path: Path) -> None:
    start_slow_job(runtime, monkeypatch, tmp_path)
    assert not bpy.ops.hyper_mocap.recover_motion.poll()
    assert not bpy.ops.hyper_mocap.export_fbx.poll()


def test_people_are_listed_and_chosen(addon, runtime, monkeypatch, tmp_path: Path) -> None:
    start_slow_job(runtime, monkeypatch, tmp_path, people=3)
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
    recover()
    names = {obj.name for obj in bpy.data.objects if obj.type in {"ARMATURE", "MESH"}}
    assert names == {"Person 1", "Person 1 Body", "Person 3", "Person 3 Body"}


def test_loading_a_file_ends_the_job(addon, runtime, monkeypatch, tmp_path: Path) -> None:
    session = start_slow_job(runtime, monkeypatch, tmp_path)
    pid = session.client.pid
    bpy.ops.wm.read_homefile(use_empty=True)
    assert runtime.session is None and is_gone(pid)
    assert not bpy.data.armatures
    assert runtime.serve() is None


def test_deleting_the_figure_meanwhile_does_no_harm(addon, runtime, monkeypatch, tmp_path: Path) -> None:
    session = start_slow_job(runtime, monkeypatch, tmp_path, frames=320)
    for obj in list(bpy.data.objects):
        bpy.data.objects.remove(obj)
    support.serve_until(lambda: session.is_over)
    assert session.status.error == "" and session.summary.dropped_frames > 0
    assert not bpy.data.objects


def test_undo_in_the_middle_does_not_lose_the_job(addon, runtime, monkeypatch, tmp_path: Path) -> None:
    """The undo step before the job has neither figure nor keys; afterwards all of them are there, from the first."""
    bpy.context.preferences.edit.use_global_undo = True
    support.import_clip(tmp_path)
    bpy.context.scene.render.fps = 30
    for message in ("Import", "Something"):
        bpy.ops.ed.undo_push(message=message)
    session = start_slow_job(runtime, monkeypatch, tmp_path, frames=320, people=2)
    bpy.ops.ed.undo()
    assert "Person 1" not in bpy.data.objects
    support.serve_until(lambda: session.status.frames >= 400)
    bpy.ops.ed.undo_push(message="Something else")
    support.serve_until(lambda: session.status.frames >= 500)
    bpy.ops.ed.undo_push(message="More")
    bpy.ops.ed.undo()  # the figure stays, but has lost the keys since
    support.serve_until(lambda: session.is_over)
    assert session.status.error == "" and session.summary.dropped_frames == 0
    assert session.summary.frames == 640
    assert [o.name for o in bpy.data.objects if o.type == "CAMERA"] == [session.summary.camera]
    for person, frame in ((0, 0), (0, 150), (1, 319)):
        expected = skin(*walk(np.array([frame]), 30.0, person))[0]
        np.testing.assert_allclose(support.posed_vertices(person, 1 + frame), expected, atol=5e-5)


def test_disabling_in_the_middle_kills_the_engine(runtime, addon, monkeypatch, tmp_path: Path) -> None:
    session = start_slow_job(runtime, monkeypatch, tmp_path)
    pid = session.client.pid
    addon.unregister()
    assert is_gone(pid) and not session.client.is_alive()
    addon.register()


def test_check_engine_reports(addon, monkeypatch, tmp_path: Path) -> None:
    support.use_engine(monkeypatch, tmp_path)
    assert bpy.ops.hyper_mocap.check_engine() == {"FINISHED"}
    support.use_engine(monkeypatch, tmp_path, probe_missing=("torch",))
    with pytest.raises(RuntimeError, match="lacks torch: press Build Engine"):
        bpy.ops.hyper_mocap.check_engine()


def test_build_engine_honours_offline(addon, runtime, monkeypatch) -> None:
    if bpy.app.online_access:
        pytest.skip("this Blender may go online")
    with pytest.raises(RuntimeError, match="may not go online.*Allow Online Access"):
        bpy.ops.hyper_mocap.build_engine()
    assert runtime.build is None


def test_export_writes_a_file(addon, monkeypatch, tmp_path: Path) -> None:
    assert not bpy.ops.hyper_mocap.export_fbx.poll()
    support.use_engine(monkeypatch, tmp_path, frames=32)
    support.import_clip(tmp_path)
    recover()
    out = tmp_path / "out.fbx"
    assert bpy.ops.hyper_mocap.export_fbx(filepath=str(out)) == {"FINISHED"}
    assert out.read_bytes().startswith(b"Kaydara FBX Binary")
    with pytest.raises(RuntimeError, match="There is no folder"):
        bpy.ops.hyper_mocap.export_fbx(filepath=str(tmp_path / "nowhere" / "out.fbx"))


def test_smoothing_keeps_the_raw_motion_beside_it(addon, monkeypatch, tmp_path: Path) -> None:
    assert not bpy.ops.hyper_mocap.smooth_motion.poll() and not bpy.ops.hyper_mocap.compare_smoothing.poll()
    support.use_engine(monkeypatch, tmp_path, frames=64)
    support.import_clip(tmp_path, frames=64)
    bpy.ops.hyper_mocap.set_scene_fps()
    recover()
    raw = support.posed_vertices(0, 20)
    assert bpy.ops.hyper_mocap.smooth_motion(seconds=0.5, keep_hits=False) == {"FINISHED"}
    smooth = support.posed_vertices(0, 20)
    assert np.abs(smooth - raw).max() > 0.01
    assert bpy.ops.hyper_mocap.compare_smoothing() == {"FINISHED"}
    np.testing.assert_allclose(support.posed_vertices(0, 20), raw, atol=1e-6)
    bpy.ops.hyper_mocap.compare_smoothing()
    np.testing.assert_allclose(support.posed_vertices(0, 20), smooth, atol=1e-6)
    for path in (tmp_path / "results").glob("*.npz"):
        path.unlink()
    with pytest.raises(RuntimeError, match="is gone"):
        bpy.ops.hyper_mocap.smooth_motion()


def test_results_come_back_without_an_engine(addon, monkeypatch, tmp_path: Path) -> None:
    """The shipped body replaces the boxes, so joints are compared: the pelvis' path is that of the walk."""
    support.use_engine(monkeypatch, tmp_path, frames=40, people=2)
    support.import_clip(tmp_path, frames=40)
    bpy.ops.hyper_mocap.set_scene_fps()
    recover()
    paths = sorted((tmp_path / "results").glob("*.npz"))
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
