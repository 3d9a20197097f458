"""hyper_mocap.open_log: show what the engine or the build wrote, in the system's text viewer."""

from __future__ import annotations

import bpy
from bpy.props import EnumProperty

from ..places import build_log, job_log


class HYPER_MOCAP_OT_open_log(bpy.types.Operator):
    """Open what the engine wrote about the last job, or pip about the last build"""

    bl_idname = "hyper_mocap.open_log"
    bl_label = "Open Log"
    bl_options = {"REGISTER"}

    kind: EnumProperty(
        name="Log",
        description="Which log",
        items=(("job", "Job", "The last job's engine", 0), ("build", "Build", "The last build", 1)),
    )

    def execute(self, _context):
        """Open the file."""
        path = build_log() if self.kind == "build" else job_log()
        if not path.is_file():
            self.report({"WARNING"}, "There is no log yet")
            return {"CANCELLED"}
        bpy.ops.wm.path_open(filepath=str(path))
        return {"FINISHED"}


def register() -> None:
    """Register the operator."""
    bpy.utils.register_class(HYPER_MOCAP_OT_open_log)


def unregister() -> None:
    """Unregister the operator."""
    bpy.utils.unregister_class(HYPER_MOCAP_OT_open_log)
