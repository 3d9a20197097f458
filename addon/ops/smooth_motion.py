"""hyper_mocap.smooth_motion: smooth the chosen figures anew from their result files, beside the raw motion."""

from __future__ import annotations

import bpy
from bpy.props import BoolProperty, FloatProperty

from ..errors import AddonError
from ..figures import chosen_figures
from ..scene.smoothing import STRENGTH, Smoothing, smooth_figure
from .polling import has_idle_figure


def _limb(name: str) -> FloatProperty:
    return FloatProperty(
        name=name,
        description="Share of the smoothing that this part gets; 0 leaves it as it is",
        default=1.0,
        min=0.0,
        soft_max=2.0,
        max=10.0,
    )


class HYPER_MOCAP_OT_smooth_motion(bpy.types.Operator):
    """Smooth the selected figures, or all of them; the motion as recovered stays in an action of its own"""

    bl_idname = "hyper_mocap.smooth_motion"
    bl_label = "Smooth Motion"
    bl_options = {"REGISTER", "UNDO"}

    seconds: FloatProperty(
        name="Strength",
        description="Time over which motion is averaged",
        default=0.2,
        min=0.0,
        soft_max=1.0,
        max=5.0,
        precision=2,
        unit="TIME_ABSOLUTE",
    )
    root: _limb("Root")
    spine: _limb("Spine and Head")
    arms: _limb("Arms")
    legs: _limb("Legs")
    keep_hits: BoolProperty(
        name="Keep Fast Moves", description="Let claps, hits and stamps through as they are", default=True
    )

    @classmethod
    def poll(cls, context) -> bool:
        """Needs a figure and no running job."""
        return has_idle_figure(cls, context)

    def invoke(self, context, event):
        """Ask, starting from the strength the figure was smoothed with last."""
        strengths = [figure[STRENGTH] for figure in chosen_figures(context) if STRENGTH in figure]
        if strengths:
            self.seconds = strengths[0]
        return context.window_manager.invoke_props_dialog(self)

    def execute(self, context):
        """Smooth every chosen figure."""
        smoothing = Smoothing(self.seconds, self.root, self.spine, self.arms, self.legs, self.keep_hits)
        figures = [figure for figure in chosen_figures(context) if figure.type == "ARMATURE"]
        if not figures:
            self.report({"ERROR"}, "Only figures with an armature can be smoothed")
            return {"CANCELLED"}
        frames, problems = 0, []
        for figure in figures:
            try:
                frames += smooth_figure(figure, smoothing)
            except AddonError as error:
                problems.append(str(error))
        if not frames:
            self.report({"ERROR"}, problems[0])
            return {"CANCELLED"}
        for problem in problems:
            self.report({"WARNING"}, problem)
        self.report({"INFO"}, f"Smoothed {frames} frames")
        return {"FINISHED"}


def register() -> None:
    """Register the operator."""
    bpy.utils.register_class(HYPER_MOCAP_OT_smooth_motion)


def unregister() -> None:
    """Unregister the operator."""
    bpy.utils.unregister_class(HYPER_MOCAP_OT_smooth_motion)
