"""hyper_mocap.cancel_build: stop building; the next build goes on from there."""

from __future__ import annotations

import bpy

from ..runtime import runtime


class HYPER_MOCAP_OT_cancel_build(bpy.types.Operator):
    """Stop building the engine; what is installed stays, and Build Engine goes on from there"""

    bl_idname = "hyper_mocap.cancel_build"
    bl_label = "Cancel Build"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, _context) -> bool:
        """Needs a running build."""
        if not runtime.is_building:
            cls.poll_message_set("Nothing is being built")
            return False
        return True

    def execute(self, _context):
        """End the child process."""
        runtime.build.cancel()
        return {"FINISHED"}


def register() -> None:
    """Register the operator."""
    bpy.utils.register_class(HYPER_MOCAP_OT_cancel_build)


def unregister() -> None:
    """Unregister the operator."""
    bpy.utils.unregister_class(HYPER_MOCAP_OT_cancel_build)
