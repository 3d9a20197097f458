"""hyper_mocap.set_scene_fps: give the scene the clip's frame rate, so that a frame of one is a frame of the other."""

from __future__ import annotations

import bpy

from ..figures import has_figure
from ..frame_rate import is_same_rate, scene_rate, set_frame_rate, timeline_end


class HYPER_MOCAP_OT_set_scene_fps(bpy.types.Operator):
    """Give the scene the clip's frame rate, so that every frame of the clip gets its own key"""

    bl_idname = "hyper_mocap.set_scene_fps"
    bl_label = "Match Frame Rate"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context) -> bool:
        """Needs a clip whose rate differs."""
        settings = context.scene.hyper_mocap
        if settings.video_fps <= 0:
            cls.poll_message_set("Import a video first")
            return False
        if is_same_rate(scene_rate(context.scene), settings.video_fps):
            cls.poll_message_set("The scene already has the clip's frame rate")
            return False
        return True

    def execute(self, context):
        """Set rate and end of the scene."""
        scene, settings = context.scene, context.scene.hyper_mocap
        set_frame_rate(scene, settings.video_fps)
        scene.frame_end = timeline_end(scene, settings.video_fps, settings.video_frames)
        news = f"The scene runs at {scene_rate(scene):.4g} fps"
        if has_figure(scene):
            self.report({"WARNING"}, f"{news}; figures keep the keys they have: import their results again")
        else:
            self.report({"INFO"}, news)
        return {"FINISHED"}


def register() -> None:
    """Register the operator."""
    bpy.utils.register_class(HYPER_MOCAP_OT_set_scene_fps)


def unregister() -> None:
    """Unregister the operator."""
    bpy.utils.unregister_class(HYPER_MOCAP_OT_set_scene_fps)
