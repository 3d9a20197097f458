"""hyper_mocap.choose_people: tell the running job whom to recover."""

from __future__ import annotations

import bpy

from ..runtime import runtime


class HYPER_MOCAP_OT_choose_people(bpy.types.Operator):
    """Recover the ticked people only"""

    bl_idname = "hyper_mocap.choose_people"
    bl_label = "Recover Ticked People"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, context) -> bool:
        """Needs a running job with somebody ticked."""
        if not runtime.is_running:
            cls.poll_message_set("No job is running")
            return False
        if not any(row.use for row in context.window_manager.hyper_mocap.people):
            cls.poll_message_set("Tick at least one person")
            return False
        return True

    def execute(self, context):
        """Send the choice."""
        people = [row.person for row in context.window_manager.hyper_mocap.people if row.use]
        runtime.session.choose(people)
        self.report({"INFO"}, f"Recovering {len(people)} of {len(context.window_manager.hyper_mocap.people)} people")
        return {"FINISHED"}


def register() -> None:
    """Register the operator."""
    bpy.utils.register_class(HYPER_MOCAP_OT_choose_people)


def unregister() -> None:
    """Unregister the operator."""
    bpy.utils.unregister_class(HYPER_MOCAP_OT_choose_people)
