"""hyper_mocap.compare_smoothing: switch the chosen figures between smoothed motion and motion as recovered."""

from __future__ import annotations

import bpy

from ..figures import chosen_figures
from ..scene.smoothing import SMOOTH_ACTION, is_smoothed, show_smoothed


class HYPER_MOCAP_OT_compare_smoothing(bpy.types.Operator):
    """Switch between the smoothed motion and the motion as it was recovered"""

    bl_idname = "hyper_mocap.compare_smoothing"
    bl_label = "Before / After"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context) -> bool:
        """Needs a figure that has been smoothed."""
        if not any(SMOOTH_ACTION in figure for figure in chosen_figures(context)):
            cls.poll_message_set("Smooth a motion first")
            return False
        return True

    def execute(self, context):
        """Show the other motion on all of them."""
        figures = [figure for figure in chosen_figures(context) if SMOOTH_ACTION in figure]
        is_wanted = not is_smoothed(figures[0])
        if not sum(show_smoothed(figure, is_wanted) for figure in figures):
            self.report({"ERROR"}, "The other motion's action was deleted: smooth again")
            return {"CANCELLED"}
        self.report({"INFO"}, "Smoothed motion" if is_wanted else "Motion as recovered")
        return {"FINISHED"}


def register() -> None:
    """Register the operator."""
    bpy.utils.register_class(HYPER_MOCAP_OT_compare_smoothing)


def unregister() -> None:
    """Unregister the operator."""
    bpy.utils.unregister_class(HYPER_MOCAP_OT_compare_smoothing)
