"""hyper_mocap.build_engine: make the engine's own Python environment, or bring it up to date."""

from __future__ import annotations

import sys

import bpy

from ..engine_build import BuildOptions, EngineBuild
from ..engine_env import read_requirements
from ..places import build_log, engine_folder, preferences_or_none
from ..runtime import runtime

OFFLINE = (
    "Blender may not go online: switch on Preferences > System > Network > Allow Online Access, "
    "or name a Folder of Wheels in the preferences of Hyper Mocap"
)


class HYPER_MOCAP_OT_build_engine(bpy.types.Operator):
    """Download the engine's packages (about 1 GB) into an environment of its own; Blender's Python stays as it is"""

    bl_idname = "hyper_mocap.build_engine"
    bl_label = "Build Engine"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, _context) -> bool:
        """Needs nothing else running."""
        if runtime.is_building:
            cls.poll_message_set("The engine is being built")
            return False
        if runtime.is_running:
            cls.poll_message_set("A job is running: wait for it or cancel it")
            return False
        return True

    def execute(self, _context):
        """Start the build; the timer shows how far it is. In background mode wait for its end."""
        preferences = preferences_or_none()
        wheels = bpy.path.abspath(preferences.wheel_folder) if preferences else ""
        if not wheels and not bpy.app.online_access:
            runtime.note(OFFLINE)
            self.report({"ERROR"}, OFFLINE)
            return {"CANCELLED"}
        build = EngineBuild(
            engine_folder(),
            read_requirements(),
            base_python=sys.executable,
            options=BuildOptions(preferences.torch_index_url if preferences else "", wheels),
            log=build_log(),
        )
        build.start()
        runtime.follow_build(build)
        if bpy.app.background:
            build.join()
            runtime.forget_engine()
            if build.error:
                self.report({"ERROR"}, build.error)
                return {"CANCELLED"}
            self.report({"INFO"}, "The engine is ready")
        return {"FINISHED"}


def register() -> None:
    """Register the operator."""
    bpy.utils.register_class(HYPER_MOCAP_OT_build_engine)


def unregister() -> None:
    """Unregister the operator."""
    bpy.utils.unregister_class(HYPER_MOCAP_OT_build_engine)
