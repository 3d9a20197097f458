"""hyper_mocap.cancel_job: stop the running job and keep what is done."""

from __future__ import annotations

import bpy

from ..runtime import runtime


class HYPER_MOCAP_OT_cancel_job(bpy.types.Operator):
    """Stop the job; the frames that are done stay on the timeline"""

    bl_idname = "hyper_mocap.cancel_job"
    bl_label = "Cancel"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, _context) -> bool:
        """Needs a running job."""
        if not runtime.is_running:
            cls.poll_message_set("No job is running")
            return False
        return True

    def execute(self, _context):
        """Ask for the end; the timer does the rest."""
        runtime.session.cancel()
        return {"FINISHED"}


def register() -> None:
    """Register the operator."""
    bpy.utils.register_class(HYPER_MOCAP_OT_cancel_job)


def unregister() -> None:
    """Unregister the operator."""
    bpy.utils.unregister_class(HYPER_MOCAP_OT_cancel_job)
