"""hyper_mocap.export_fbx: write the selected figures, or all of them, with every frame and no leaf bones."""

from __future__ import annotations

from pathlib import Path

import bpy
from bpy.props import EnumProperty, StringProperty
from bpy_extras.io_utils import ExportHelper

from ..errors import AddonError
from ..figures import chosen_figures, parts_of
from ..scene.export import export_fbx
from ..videos import video_path
from .polling import has_idle_figure

TARGETS = (
    ("STANDARD", "Blender, Unity, Godot", "Bones point along Y", 0),
    ("UNREAL", "Unreal Engine", "Bones point along X", 1),
    ("MAYA", "Maya", "Bones point along X", 2),
)


class HYPER_MOCAP_OT_export_fbx(bpy.types.Operator, ExportHelper):
    """Write the selected figures, or all of them, with every frame of their motion"""

    bl_idname = "hyper_mocap.export_fbx"
    bl_label = "Export FBX"
    bl_options = {"REGISTER"}

    filename_ext = ".fbx"
    filter_glob: StringProperty(default="*.fbx", options={"HIDDEN"})
    target: EnumProperty(name="For", description="Program that will read the file", items=TARGETS, default="STANDARD")

    @classmethod
    def poll(cls, context) -> bool:
        """Needs a figure and no running job."""
        return has_idle_figure(cls, context)

    def invoke(self, context, event):
        """Propose a name."""
        if not self.filepath:
            video = video_path(context.scene.hyper_mocap)
            self.filepath = f"{Path(video).stem if video else 'motion'}.fbx"
        return super().invoke(context, event)

    def execute(self, context):
        """Write the file."""
        figures = chosen_figures(context)
        path = bpy.path.abspath(self.filepath)
        try:
            export_fbx([obj for figure in figures for obj in parts_of(figure)], path, target=self.target)
        except AddonError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        self.report({"INFO"}, f"Exported {len(figures)} {'figure' if len(figures) == 1 else 'figures'} to {path}")
        return {"FINISHED"}


def register() -> None:
    """Register the operator."""
    bpy.utils.register_class(HYPER_MOCAP_OT_export_fbx)


def unregister() -> None:
    """Unregister the operator."""
    bpy.utils.unregister_class(HYPER_MOCAP_OT_export_fbx)
