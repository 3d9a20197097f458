"""hyper_mocap.import_video: choose a clip, remember its size, rate and length, and fit the frame range to it."""

from __future__ import annotations

from pathlib import Path

import bpy
from bpy.props import BoolProperty, StringProperty
from bpy_extras.io_utils import ImportHelper

from ..frame_rate import set_frame_rate, timeline_end
from ..videos import portable
from ..wire import protocol


class HYPER_MOCAP_OT_import_video(bpy.types.Operator, ImportHelper):
    """Choose the clip whose motion is recovered"""

    bl_idname = "hyper_mocap.import_video"
    bl_label = "Import Video"
    bl_options = {"REGISTER", "UNDO"}

    filename_ext = ""
    filter_glob: StringProperty(
        default=";".join(f"*{s};*{s.upper()}" for s in protocol.VIDEO_SUFFIXES), options={"HIDDEN"}
    )
    use_frame_range: BoolProperty(
        name="Set Frame Range", description="Let the scene end where the clip ends", default=True
    )
    use_frame_rate: BoolProperty(
        name="Set Frame Rate", description="Give the scene the clip's frame rate", default=False
    )

    @classmethod
    def poll(cls, context) -> bool:
        """Needs a scene."""
        return context.scene is not None

    def invoke(self, context, event):
        """Ask for the file; where nothing is animated yet, propose the clip's frame rate for the scene."""
        self.use_frame_rate = not bpy.data.actions
        return ImportHelper.invoke(self, context, event)

    def execute(self, context):
        """Load the clip and store what it says."""
        path = Path(bpy.path.abspath(self.filepath))
        if not path.is_file():
            self.report({"ERROR"}, f"There is no file {path}")
            return {"CANCELLED"}
        known = set(bpy.data.movieclips.keys())
        try:
            clip = bpy.data.movieclips.load(str(path), check_existing=True)
        except RuntimeError as error:
            self.report({"ERROR"}, f"{path.name} cannot be opened: {error}")
            return {"CANCELLED"}
        width, height = clip.size
        if width < 1 or height < 1 or clip.frame_duration < 1 or clip.fps <= 0:
            if clip.name not in known:
                bpy.data.movieclips.remove(clip)
            self.report({"ERROR"}, f"Blender cannot read {path.name}: convert it to MP4 (H.264) and try again")
            return {"CANCELLED"}
        scene, settings = context.scene, context.scene.hyper_mocap
        clip.filepath = portable(str(path))
        settings.clip = clip
        settings.video_width, settings.video_height = width, height
        settings.video_fps, settings.video_frames = clip.fps, clip.frame_duration
        settings.frame_first, settings.frame_last = 1, clip.frame_duration
        if self.use_frame_rate:
            set_frame_rate(scene, clip.fps)
        if self.use_frame_range:
            scene.frame_end = timeline_end(scene, clip.fps, clip.frame_duration)
        self.report({"INFO"}, f"Imported {path.name}: {clip.frame_duration} frames at {clip.fps:.4g} fps")
        return {"FINISHED"}


def register() -> None:
    """Register the operator."""
    bpy.utils.register_class(HYPER_MOCAP_OT_import_video)


def unregister() -> None:
    """Unregister the operator."""
    bpy.utils.unregister_class(HYPER_MOCAP_OT_import_video)
