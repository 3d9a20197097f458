"""What the process tests share: a scene with a clip, a stand-in engine, and the served timer."""

from __future__ import annotations

import os
import time
from pathlib import Path

import bpy
import numpy as np

from tests.fake_engine import fake_python
from tests.tiny_video import write_avi

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


def use_engine(monkeypatch, folder: Path, **behaviour) -> Path:
    """Let the operators find a stand-in engine; return its folder."""
    python = fake_python(folder / "engine", **behaviour)
    for module in ("runtime", "ops.recover_motion", "ops.check_engine"):
        monkeypatch.setattr(f"addon.{module}.find_engine", lambda: python)
    monkeypatch.setattr("addon.ops.recover_motion.results_folder", lambda: folder / "results")
    monkeypatch.setattr("addon.ops.recover_motion.job_log", lambda: folder / "engine.log")
    return folder / "engine"


def import_clip(folder: Path, **facts) -> Path:
    """Write a clip and import it with the operator."""
    path = write_avi(folder / "cl\u00efp \u6b65.avi", **facts)
    assert bpy.ops.hyper_mocap.import_video(filepath=str(path)) == {"FINISHED"}
    return path


def serve_until(condition, seconds: float = 15.0) -> float:
    """Serve the runtime as its timer would; return the seconds until the condition held."""
    from addon.runtime import runtime

    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, f"waited {seconds} s"
        runtime.serve()
        time.sleep(0.005)
    return time.monotonic() - started


def posed_vertices(person: int, frame: int) -> np.ndarray:
    """World vertices [V, 3] of a person's body at a scene frame, as the dependency graph evaluates them."""
    bpy.context.scene.frame_set(frame)
    obj = bpy.data.objects[f"Person {person + 1} Body"].evaluated_get(bpy.context.evaluated_depsgraph_get())
    local = np.empty(3 * len(obj.data.vertices), np.float32)
    obj.data.vertices.foreach_get("co", local)
    matrix = np.array(obj.matrix_world)
    return local.reshape(-1, 3) @ matrix[:3, :3].T + matrix[:3, 3]


def recover() -> None:
    assert bpy.ops.hyper_mocap.recover_motion() == {"FINISHED"}


def start_slow_job(runtime, monkeypatch, tmp_path: Path, **behaviour):
    """Start a job as a window would: the operator returns and the timer serves."""
    use_engine(monkeypatch, tmp_path, **{"frames": 1600, "chunk_delay_s": 0.05} | behaviour)
    import_clip(tmp_path)
    monkeypatch.setattr("addon.session.Session.run_blocking", lambda self: None)
    bpy.ops.hyper_mocap.recover_motion()
    serve_until(lambda: runtime.session.status.frames >= 64)
    return runtime.session


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False
