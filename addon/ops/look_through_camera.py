"""hyper_mocap.look_through_camera: see the figure over its video in this viewport, and go back to looking around."""

from __future__ import annotations

import bpy

from ..figures import camera_or_none
from ..viewport import is_through, look_through


class HYPER_MOCAP_OT_look_through_camera(bpy.types.Operator):
    """See the figure over its video; press again to look around freely"""

    bl_idname = "hyper_mocap.look_through_camera"
    bl_label = "Look Through Camera"
    bl_options = {"REGISTER"}  # no undo step: it may be pressed while a job writes

    @classmethod
    def poll(cls, context) -> bool:
        """Needs a viewport and a camera that was made with a figure."""
        if context.area is None or context.area.type != "VIEW_3D":
            cls.poll_message_set("Only in the 3D viewport")
            return False
        if camera_or_none(context) is None:
            cls.poll_message_set("There is no camera of a video: recover a motion with Camera ticked")
            return False
        return True

    def execute(self, context):
        """Turn this viewport to the camera, or away from it."""
        space, camera = context.space_data, camera_or_none(context)
        if is_through(space, camera):
            space.region_3d.view_perspective = "PERSP"
        else:
            look_through(context.window, context.area, camera)
        return {"FINISHED"}


def register() -> None:
    """Register the operator."""
    bpy.utils.register_class(HYPER_MOCAP_OT_look_through_camera)


def unregister() -> None:
    """Unregister the operator."""
    bpy.utils.unregister_class(HYPER_MOCAP_OT_look_through_camera)
