"""hyper_mocap.open_preferences: show the extension's preferences."""

from __future__ import annotations

import bpy

from ..places import enabled_package


class HYPER_MOCAP_OT_open_preferences(bpy.types.Operator):
    """Open the preferences of Hyper Mocap"""

    bl_idname = "hyper_mocap.open_preferences"
    bl_label = "Preferences"
    bl_options = {"INTERNAL"}

    @classmethod
    def poll(cls, _context) -> bool:
        """Needs an installed extension."""
        return bool(enabled_package())

    def execute(self, _context):
        """Open the window."""
        bpy.ops.preferences.addon_show(module=enabled_package())
        return {"FINISHED"}


def register() -> None:
    """Register the operator."""
    bpy.utils.register_class(HYPER_MOCAP_OT_open_preferences)


def unregister() -> None:
    """Unregister the operator."""
    bpy.utils.unregister_class(HYPER_MOCAP_OT_open_preferences)
