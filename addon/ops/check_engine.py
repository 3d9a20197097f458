"""hyper_mocap.check_engine: ask the engine Python whether it has what the engine needs."""

from __future__ import annotations

import bpy

from ..engine_env import check_python, read_requirements
from ..errors import AddonError
from ..places import find_engine, preferences_or_none
from ..runtime import runtime


class HYPER_MOCAP_OT_check_engine(bpy.types.Operator):
    """Start the engine's Python for a moment and look whether it has everything the engine needs"""

    bl_idname = "hyper_mocap.check_engine"
    bl_label = "Check Engine"
    bl_options = {"REGISTER"}

    def execute(self, _context):
        """Report version, or what is missing."""
        runtime.forget_engine()
        try:
            python = find_engine()
            found = check_python(python, read_requirements())
        except AddonError as error:
            runtime.note(str(error))
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        preferences = preferences_or_none()
        runtime.checked_python = preferences.engine_python if preferences else ""
        self.report({"INFO"}, f"The engine is ready: Python {'.'.join(map(str, found.version))} at {python}")
        return {"FINISHED"}


def register() -> None:
    """Register the operator."""
    bpy.utils.register_class(HYPER_MOCAP_OT_check_engine)


def unregister() -> None:
    """Unregister the operator."""
    bpy.utils.unregister_class(HYPER_MOCAP_OT_check_engine)
