"""hyper_mocap.set_height: give a figure its true height; it stays on the floor and, where it can, on the picture."""

from __future__ import annotations

import bpy
from bpy.props import BoolProperty, FloatProperty

from ..figures import chosen_figures
from ..scene.stature import cameras_beside, figures_beside, height_of, scale_figure, scale_way
from ..wire import protocol
from .polling import may_change_figure


def figure_or_none(context) -> bpy.types.Object | None:
    """Return the one figure that is meant: the active one among those chosen, or the only one."""
    figures = chosen_figures(context)
    active = context.active_object
    while active is not None and active not in figures:
        active = active.parent
    return active if active is not None else figures[0] if len(figures) == 1 else None


class HYPER_MOCAP_OT_set_height(bpy.types.Operator):
    """Give the selected figure its true height; it keeps its proportions and stays on the floor"""

    bl_idname = "hyper_mocap.set_height"
    bl_label = "Set Height"
    bl_options = {"REGISTER", "UNDO"}

    height: FloatProperty(
        name="Height",
        description="The person's standing height",
        default=1.7,
        min=protocol.HEIGHTS_M[0],
        max=protocol.HEIGHTS_M[1],
        precision=3,
        step=1,
        subtype="DISTANCE",
        unit="LENGTH",
    )
    use_clip: BoolProperty(
        name="Whole Clip",
        description=(
            "Scale the other people of the clip and the camera by the same factor, so that all stay on the picture. "
            "With one person the camera always goes along"
        ),
        default=False,
    )

    @classmethod
    def poll(cls, context) -> bool:
        """Needs a figure, no running job, and nothing in edit mode."""
        return may_change_figure(cls, context)

    def invoke(self, context, event):
        """Ask, starting from the height it has."""
        figure = figure_or_none(context)
        if figure is None or height_of(figure) <= 0:
            return self.execute(context)  # which says why it cannot be
        self.height = height_of(figure)
        return context.window_manager.invoke_props_dialog(self, title=f"Height of {figure.name}")

    def execute(self, context):
        """Scale the figure, and what goes along."""
        figure = figure_or_none(context)
        if figure is None:
            self.report({"ERROR"}, "Select the figure whose height it is")
            return {"CANCELLED"}
        before = height_of(figure)
        if before <= 0:
            self.report({"ERROR"}, f"{figure.name} has no height: recover or import its motion again")
            return {"CANCELLED"}
        factor = self.height / before
        beside = figures_beside(figure)
        scaled = beside if self.use_clip else [figure]
        centre = figure.matrix_world.translation.copy()
        for one in scaled:
            scale_figure(one, factor)
        if len(scaled) == len(beside):
            stay = [camera.name for camera in cameras_beside(figure) if not scale_way(camera, factor, centre)]
            if stay:
                self.report({"WARNING"}, f"{stay[0]} stays where it is: it has a parent or constraints")
        who = figure.name if len(scaled) == 1 else f"{len(scaled)} figures"
        self.report({"INFO"}, f"Scaled {who} by {factor:.3f}: {figure.name} is {self.height:.3f} m tall")
        return {"FINISHED"}


def register() -> None:
    """Register the operator."""
    bpy.utils.register_class(HYPER_MOCAP_OT_set_height)


def unregister() -> None:
    """Unregister the operator."""
    bpy.utils.unregister_class(HYPER_MOCAP_OT_set_height)
