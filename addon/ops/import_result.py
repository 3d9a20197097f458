"""hyper_mocap.import_result: build figures from result files, without an engine."""

from __future__ import annotations

from pathlib import Path

import bpy
from bpy.props import BoolProperty, CollectionProperty, EnumProperty, StringProperty
from bpy_extras.io_utils import ImportHelper

from ..default_cube import hide_default_cube
from ..engine_env import package_root
from ..errors import AddonError
from ..places import preferences_or_none
from ..properties import MODES
from ..runtime import runtime
from ..scene.bodydata import BodyData
from ..scene.options import WriterOptions
from ..scene.result import load_results


def body_path() -> str:
    """Return the body that figures are built from: the user's own if it is an .npz, else the one we ship."""
    preferences = preferences_or_none()
    chosen = bpy.path.abspath(preferences.body_path) if preferences and preferences.body_path else ""
    if chosen.lower().endswith(".npz"):
        return chosen
    return str(package_root() / "weights" / "body_neutral.npz")


class HYPER_MOCAP_OT_import_result(bpy.types.Operator, ImportHelper):
    """Build figures from result files (.npz) of an earlier job, of the batch run or of the engine's command line"""

    bl_idname = "hyper_mocap.import_result"
    bl_label = "Import Result"
    bl_options = {"REGISTER", "UNDO"}

    filename_ext = ".npz"
    filter_glob: StringProperty(default="*.npz", options={"HIDDEN"})
    files: CollectionProperty(type=bpy.types.OperatorFileListElement, options={"HIDDEN", "SKIP_SAVE"})
    directory: StringProperty(subtype="DIR_PATH", options={"HIDDEN", "SKIP_SAVE"})
    mode: EnumProperty(name="Result", description="How the motion is written", items=MODES, default="ARMATURE")
    use_camera: BoolProperty(name="Camera", description="Make the camera of the video", default=True)

    @classmethod
    def poll(cls, context) -> bool:
        """Needs a scene and no running job."""
        if runtime.is_running:
            cls.poll_message_set("A job is running: wait for it or cancel it")
            return False
        return context.scene is not None

    def execute(self, context):
        """Build the figures."""
        paths = [str(Path(self.directory) / f.name) for f in self.files if f.name] or [self.filepath]
        options = WriterOptions(mode=self.mode, use_camera=self.use_camera)
        try:
            body = BodyData.from_file(body_path())
            summary = load_results(context.scene, sorted(paths), body, options)
        except (AddonError, OSError) as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        for warning in summary.warnings:
            self.report({"WARNING"}, warning)
        count = len(summary.people)
        told = f"Imported {count} {'figure' if count == 1 else 'figures'}, {summary.frames} frames"
        if hide_default_cube(context.view_layer):
            told += ". Hidden and kept: the default cube, where the figure stands"
        self.report({"INFO"}, told)
        return {"FINISHED"}


def register() -> None:
    """Register the operator."""
    bpy.utils.register_class(HYPER_MOCAP_OT_import_result)


def unregister() -> None:
    """Unregister the operator."""
    bpy.utils.unregister_class(HYPER_MOCAP_OT_import_result)
