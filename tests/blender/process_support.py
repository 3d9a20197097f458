"""What the process tests share: a scene with a clip, a stand-in engine, and the served timer."""

from __future__ import annotations

import time
from pathlib import Path

import bpy
import numpy as np

from tests.fake_engine import fake_python
from tests.tiny_video import write_avi


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
