"""Runs inside a real Blender that has the extension installed: one function a test, named on the command line.

    blender -b --python-exit-code 1 --python inside.py -- NAME ARGUMENTS...

Plain asserts: a failure is Blender's exit code 1. Nothing here is imported by pytest.
"""

from __future__ import annotations

import sys
from pathlib import Path

import addon_utils
import bpy

NAME = "bl_ext.user_default.hyper_mocap"
HANDLERS = [name for name in dir(bpy.app.handlers) if isinstance(getattr(bpy.app.handlers, name), list)]


def snapshot() -> tuple:
    """Everything that enabling may touch."""
    return (
        sorted(dir(bpy.types)),
        sorted(dir(bpy.ops.hyper_mocap)),
        {name: len(getattr(bpy.app.handlers, name)) for name in HANDLERS},
        sorted(bpy.types.Scene.bl_rna.properties.keys()),
        sorted(bpy.types.WindowManager.bl_rna.properties.keys()),
    )


def enabled() -> None:
    """The installer enabled it, and Blender has nothing to say against its manners."""
    assert NAME in bpy.context.preferences.addons, list(bpy.context.preferences.addons.keys())
    assert bpy.ops.hyper_mocap.recover_motion.get_rna_type().name == "Recover Motion"
    assert not addon_utils._extensions_warnings_get().get(NAME)
    assert not any(name in sys.modules for name in ("addon", "core"))


def comes_and_goes() -> None:
    """Disabling leaves nothing; enabling again works."""
    with_it = snapshot()
    addon_utils.disable(NAME)
    without = snapshot()
    assert "HYPER_MOCAP_OT_recover_motion" in with_it[0] and "HYPER_MOCAP_OT_recover_motion" not in without[0]
    assert not without[1] and "hyper_mocap" not in without[3] + without[4]
    assert addon_utils.enable(NAME) is not None
    assert snapshot() == with_it
    addon_utils.disable(NAME)
    assert snapshot() == without


def runs_a_job(python: str, clip: str, out: str) -> None:
    """Import, recover, smooth, export: by the operators that the buttons call."""
    scene = bpy.context.scene
    preferences = bpy.context.preferences.addons[NAME].preferences
    assert not bpy.ops.hyper_mocap.recover_motion.poll()
    preferences.engine_python = python
    preferences.cache_folder = out
    assert bpy.ops.hyper_mocap.import_video(filepath=clip) == {"FINISHED"}
    bpy.ops.hyper_mocap.set_scene_fps()
    assert bpy.ops.hyper_mocap.recover_motion() == {"FINISHED"}
    figure = bpy.data.objects["Person 1"]
    bones = len(figure.pose.bones)
    assert bones == 24, bones
    assert scene.camera is not None
    frames = figure.animation_data.action.frame_range
    assert frames[1] - frames[0] > 5, tuple(frames)
    assert bpy.ops.hyper_mocap.smooth_motion(seconds=0.1) == {"FINISHED"}
    target = Path(out) / "figure.fbx"
    assert bpy.ops.hyper_mocap.export_fbx(filepath=str(target)) == {"FINISHED"}
    assert target.stat().st_size > 10_000
    addon_utils.disable(NAME)


def disabled_in_the_middle(python: str, clip: str) -> None:
    """Disabling the extension while a job runs ends the engine and leaves no timer."""
    import importlib
    import os
    import time

    preferences = bpy.context.preferences.addons[NAME].preferences
    preferences.engine_python = python
    bpy.ops.hyper_mocap.import_video(filepath=clip)
    runtime = importlib.import_module(f"{NAME}.addon.runtime").runtime
    session_class = importlib.import_module(f"{NAME}.addon.session").Session
    session_class.run_blocking = lambda self: None
    bpy.ops.hyper_mocap.recover_motion()
    session, deadline = runtime.session, time.monotonic() + 20
    while session.status.frames < 32:
        assert time.monotonic() < deadline and not session.is_over, session.status
        runtime.serve()
        time.sleep(0.01)
    pid = session.client.pid
    addon_utils.disable(NAME)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return
    raise AssertionError(f"the engine {pid} lives on")


def main() -> None:
    words = sys.argv[sys.argv.index("--") + 1 :]
    globals()[words[0]](*words[1:])
    print("inside: ok")


main()
