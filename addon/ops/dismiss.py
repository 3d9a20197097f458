"""hyper_mocap.dismiss: take the outcome of the last job out of the panel."""

from __future__ import annotations

import bpy

from ..runtime import runtime


class HYPER_MOCAP_OT_dismiss(bpy.types.Operator):
    """Hide this message"""

    bl_idname = "hyper_mocap.dismiss"
    bl_label = "Dismiss"
    bl_options = {"INTERNAL"}

    def execute(self, context):
        """Forget what is over."""
        runtime.dismiss()
        if not runtime.is_running:
            context.window_manager.hyper_mocap.people.clear()
        return {"FINISHED"}


def register() -> None:
    """Register the operator."""
    bpy.utils.register_class(HYPER_MOCAP_OT_dismiss)


def unregister() -> None:
    """Unregister the operator."""
    bpy.utils.unregister_class(HYPER_MOCAP_OT_dismiss)
