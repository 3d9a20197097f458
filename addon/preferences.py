"""The extension's preferences: the engine's environment, device, own body file, folders."""

from __future__ import annotations

import bpy
from bpy.props import EnumProperty, StringProperty

from .places import ROOT_PACKAGE
from .properties import DEVICES
from .runtime import runtime
from .ui.drawing import PREFERENCES_MARGIN_PX, draw_build, draw_error, room_of


def _engine_changed(_preferences, _context) -> None:
    runtime.forget_engine()


class HYPER_MOCAP_AP_preferences(bpy.types.AddonPreferences):
    """Preferences of Hyper Mocap."""

    bl_idname = ROOT_PACKAGE or "hyper_mocap"

    engine_python: StringProperty(
        name="Engine Python",
        description="Python 3.11 or newer that has the engine's packages; empty: what Build Engine built",
        subtype="FILE_PATH",
        update=_engine_changed,
    )
    device: EnumProperty(
        name="Device", description="What computes unless a scene says otherwise", items=DEVICES[1:], default="auto"
    )
    body_path: StringProperty(
        name="Own Body Model",
        description="Your licensed SMPL file (.npz or .pkl); empty: the free body that comes with the extension",
        subtype="FILE_PATH",
    )
    cache_folder: StringProperty(
        name="Results Folder",
        description="Where result files and what makes a job resumable are kept; empty: the extension's own folder",
        subtype="DIR_PATH",
    )
    torch_index_url: StringProperty(
        name="Package Index for Torch",
        description=(
            "Index that torch is installed from; empty: pip's default, which on Linux brings CUDA along. "
            "An index of CPU builds saves gigabytes where there is no NVIDIA card"
        ),
    )
    wheel_folder: StringProperty(
        name="Folder of Wheels",
        description="Install from the wheels in this folder and download nothing",
        subtype="DIR_PATH",
        update=_engine_changed,
    )

    def draw(self, context) -> None:
        """Draw the engine first: nothing works without it."""
        layout, room = self.layout, room_of(context, PREFERENCES_MARGIN_PX)
        layout.use_property_split = True
        layout.use_property_decorate = False
        problem = runtime.notice or runtime.engine_problem()
        box = layout.box()
        if runtime.build is not None:
            draw_build(box, runtime.build, room)
        elif problem:
            draw_error(box, problem, room)
        elif self.engine_python and self.engine_python != runtime.checked_python:
            box.label(
                text="Not checked yet: Check Engine looks whether this Python has what is needed", icon="QUESTION"
            )
        else:
            box.label(text="The engine is ready", icon="CHECKMARK")
        row = box.row()
        if runtime.is_building:
            row.operator("hyper_mocap.cancel_build", icon="CANCEL")
        else:
            row.operator("hyper_mocap.build_engine", icon="IMPORT")
            row.operator("hyper_mocap.check_engine", icon="VIEWZOOM")
        row.operator("hyper_mocap.open_log", text="Build Log", icon="TEXT").kind = "build"
        column = layout.column()
        column.prop(self, "engine_python")
        column.prop(self, "torch_index_url")
        column.prop(self, "wheel_folder")
        column = layout.column()
        column.prop(self, "device")
        column.prop(self, "body_path")
        column.prop(self, "cache_folder")


def register() -> None:
    """Register the preferences."""
    bpy.utils.register_class(HYPER_MOCAP_AP_preferences)


def unregister() -> None:
    """Unregister the preferences."""
    bpy.utils.unregister_class(HYPER_MOCAP_AP_preferences)
