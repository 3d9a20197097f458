"""Jobs that do not go as planned: crashes, errors, cancel, undo, deletion, another file, the add-on switched off."""

from __future__ import annotations

from pathlib import Path

import bpy
import numpy as np
import process_support as support
import pytest

from tests.fake_motion import skin, walk


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
    session = support.start_slow_job(runtime, monkeypatch, tmp_path)
    assert bpy.ops.hyper_mocap.cancel_job() == {"FINISHED"}
    assert support.serve_until(lambda: session.is_over) < 1.0
    assert session.summary.frames >= 64
    assert not bpy.ops.hyper_mocap.cancel_job.poll()
    assert runtime.serve() is None  # the timer ends itself


def test_a_second_job_waits_for_the_first(addon, runtime, monkeypatch, tmp_path: Path) -> None:
    support.start_slow_job(runtime, monkeypatch, tmp_path)
    assert not bpy.ops.hyper_mocap.recover_motion.poll()
    assert not bpy.ops.hyper_mocap.export_fbx.poll()


def test_loading_a_file_ends_the_job(addon, runtime, monkeypatch, tmp_path: Path) -> None:
    session = support.start_slow_job(runtime, monkeypatch, tmp_path)
    pid = session.client.pid
    bpy.ops.wm.read_homefile(use_empty=True)
    assert runtime.session is None and support.is_gone(pid)
    assert not bpy.data.armatures
    assert runtime.serve() is None


def test_deleting_the_figure_meanwhile_does_no_harm(addon, runtime, monkeypatch, tmp_path: Path) -> None:
    session = support.start_slow_job(runtime, monkeypatch, tmp_path, frames=320)
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
    session = support.start_slow_job(runtime, monkeypatch, tmp_path, frames=320, people=2)
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
    session = support.start_slow_job(runtime, monkeypatch, tmp_path)
    pid = session.client.pid
    addon.unregister()
    assert support.is_gone(pid) and not session.client.is_alive()
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


def test_what_was_said_of_the_engine_goes_when_it_changes(addon, runtime, monkeypatch, tmp_path: Path) -> None:
    """Otherwise the panel complains on beside an engine that works."""
    from addon.preferences import _engine_changed

    if bpy.app.online_access:
        pytest.skip("this Blender may go online")
    for mend in (lambda: _engine_changed(None, None), bpy.ops.hyper_mocap.check_engine):
        with pytest.raises(RuntimeError):
            bpy.ops.hyper_mocap.build_engine()
        assert "may not go online" in runtime.notice
        support.use_engine(monkeypatch, tmp_path)
        mend()
        assert runtime.notice == "" and runtime.engine_problem() == ""
    support.use_engine(monkeypatch, tmp_path, probe_missing=("torch",))
    with pytest.raises(RuntimeError):
        bpy.ops.hyper_mocap.check_engine()
    assert "lacks torch" in runtime.notice
