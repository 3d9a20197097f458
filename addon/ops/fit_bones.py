"""hyper_mocap.fit_bones: put the bones of the chosen figures where the joints of their shape are."""

from __future__ import annotations

import bpy

from ..errors import RefitError
from ..figures import chosen_figures
from ..scene.refit import Refit, fit_bones
from .polling import may_change_figure


class HYPER_MOCAP_OT_fit_bones(bpy.types.Operator):
    """Move the bones of the selected figures, or of all, to the joints of the shape that the body's shape keys show.
    The pelvis rises or sinks with the legs, so that the feet stay on the floor"""

    bl_idname = "hyper_mocap.fit_bones"
    bl_label = "Fit Bones to Shape"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context) -> bool:
        """Needs a figure, no running job, and nothing in edit mode."""
        return may_change_figure(cls, context)

    def execute(self, context):
        """Fit every chosen figure."""
        figures = chosen_figures(context)
        done, problems = [], []
        for figure in figures:
            try:
                refit = fit_bones(figure)
            except RefitError as error:
                problems.append(str(error))
            else:
                done += [_in_words(figure.name, refit)] if refit is not None else []
        if len(problems) == len(figures):
            self.report({"ERROR"}, problems[0])
            return {"CANCELLED"}
        for problem in problems:
            self.report({"WARNING"}, problem)
        if not done:
            self.report({"INFO"}, "The bones fit the shape already")
            return {"CANCELLED"}
        self.report({"INFO"}, f"Fitted the bones of {'; '.join(done)}")
        return {"FINISHED"}


def _in_words(name: str, refit: Refit) -> str:
    """What has changed of one figure."""
    words = [f"joints moved by up to {1e3 * refit.moved_m:.0f} mm"]
    if abs(refit.raised_m) >= 5e-4:
        words.append(f"pelvis {'raised' if refit.raised_m > 0 else 'lowered'} by {1e3 * abs(refit.raised_m):.0f} mm")
    before, after = refit.heights_m
    if abs(after - before) >= 5e-4:
        words.append(f"{after:.3f} m tall instead of {before:.3f}")
    return f"{name}: {', '.join(words)}"


def register() -> None:
    """Register the operator."""
    bpy.utils.register_class(HYPER_MOCAP_OT_fit_bones)


def unregister() -> None:
    """Unregister the operator."""
    bpy.utils.unregister_class(HYPER_MOCAP_OT_fit_bones)
