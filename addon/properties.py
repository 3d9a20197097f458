"""What the user sets for a scene, and the people of the running job. Registered on Scene and WindowManager."""

from __future__ import annotations

import bpy
from bpy.props import (
    BoolProperty,
    CollectionProperty,
    EnumProperty,
    FloatProperty,
    IntProperty,
    PointerProperty,
)

from .engine_env import available_methods, default_method
from .wire import protocol

METHODS = available_methods()
PEOPLE = (
    ("all", "Everyone", "Recover every person that is found", 0),
    ("ask", "Let Me Choose", "Find people first, then wait for your choice in the People list", 1),
)
QUALITIES = (
    (
        "draft",
        "Draft",
        "Look at every second frame and fill in the others: finds people in 50 to 80 % of the time",
        0,
    ),
    ("standard", "Standard", "Look at every frame once, and again where it is unsure", 1),
    ("high", "High", "Look at every frame twice, once mirrored: calmer, finds people in 1.5 to 2 times the time", 2),
)
MODES = (
    ("ARMATURE", "Armature", "Bone keys: light, exports to FBX, ready for retargeting", 0),
    ("CORRECTIVES", "Armature and Correctives", "Bone keys and a few shape keys that carry what bones cannot", 1),
    ("SHAPE_KEYS", "Shape Keys", "One shape key per frame: exact, for short clips only", 2),
    ("POINT_CACHE", "Point Cache", "Exact vertices in a cache file, bone keys beside it: for long clips", 3),
)
SMOOTHING_PARTS = ("arms", "legs", "torso", "head", "root")
"""Keys of protocol.SMOOTHING_LIMBS that together are the whole figure."""
DEVICES = (
    ("default", "As in Preferences", "Use the device chosen in the preferences", 0),
    ("auto", "Automatic", "The fastest device that is there", 1),
    ("cpu", "CPU", "Processor", 2),
    ("cuda", "CUDA", "NVIDIA graphics card", 3),
    ("mps", "Metal", "Apple graphics", 4),
)


def _keep_order(settings, _context) -> None:
    """Keep first <= last when either is edited."""
    if settings.frame_last < settings.frame_first:
        settings.frame_last = settings.frame_first


def _share_of_smoothing(name: str) -> FloatProperty:
    return FloatProperty(
        name=name,
        description="Share of Smoothing that this part gets: 0 leaves it as recovered, 2 is calmer",
        default=1.0,
        min=0.0,
        soft_max=4.0,
        max=100.0,
        precision=2,
    )


class HYPER_MOCAP_PG_settings(bpy.types.PropertyGroup):
    """Settings of a scene, stored in the file."""

    clip: PointerProperty(
        name="Video", description="The clip whose motion is recovered", type=bpy.types.MovieClip, options={"HIDDEN"}
    )
    video_width: IntProperty(name="Width", description="Width of the clip", subtype="PIXEL", options={"HIDDEN"})
    video_height: IntProperty(name="Height", description="Height of the clip", subtype="PIXEL", options={"HIDDEN"})
    video_fps: FloatProperty(name="Frame Rate", description="Frames per second of the clip", options={"HIDDEN"})
    video_frames: IntProperty(name="Frames", description="Frames of the clip", options={"HIDDEN"})
    frame_first: IntProperty(
        name="First Frame", description="First frame of the clip to recover", default=1, min=1, update=_keep_order
    )
    frame_last: IntProperty(
        name="Last", description="Last frame of the clip to recover", default=1, min=1, update=_keep_order
    )
    method: EnumProperty(
        name="Method", description="How the body is recovered", items=METHODS, default=default_method(METHODS)
    )
    people: EnumProperty(name="People", description="Who is recovered", items=PEOPLE, default="all")
    quality: EnumProperty(
        name="Quality", description="How closely the video is looked at", items=QUALITIES, default="standard"
    )
    refine: BoolProperty(
        name="Refine to Footage",
        description=(
            "After the network, move joints and root until the figure meets the points seen in the video, staying "
            "near the network's pose: hands and feet land where the picture has them. Off is faster and leaves the "
            "network's motion as it is"
        ),
        default=protocol.REFINES_BY_DEFAULT,
    )
    max_people: IntProperty(
        name="Most People", description="Most people to look for; fewer is faster", default=4, min=1, max=32
    )
    device: EnumProperty(name="Device", description="What computes", items=DEVICES, default="default")
    mode: EnumProperty(name="Result", description="How the motion is written", items=MODES, default="ARMATURE")
    smoothing: FloatProperty(
        name="Smoothing",
        description="Time constant of the smoothing: longer is calmer and rounder, 0 leaves every tremor",
        default=protocol.DEFAULT_SMOOTHING_S,
        min=0.0,
        max=protocol.LONGEST_SMOOTHING_S,
        soft_max=1.0,
        precision=2,
        step=1,
        subtype="TIME_ABSOLUTE",
        unit="TIME_ABSOLUTE",
    )
    smoothing_arms: _share_of_smoothing("Arms")
    smoothing_legs: _share_of_smoothing("Legs")
    smoothing_torso: _share_of_smoothing("Torso")
    smoothing_head: _share_of_smoothing("Head")
    smoothing_root: _share_of_smoothing("Root")
    lock_feet: BoolProperty(
        name="Lock Feet",
        description=(
            "Hold planted feet still and keep soles out of the floor by small corrections of root and legs, with the "
            "figure staying where the video has it. Off leaves feet as they were recovered"
        ),
        default=True,
    )
    panning: BoolProperty(
        name="Panning Camera",
        description=(
            "The camera turned on its place while it filmed: follow it by the background, and key the camera. Off "
            "takes the camera to stand still. A camera that walks along is not known"
        ),
        default=False,
    )
    use_focal: BoolProperty(
        name="Known Lens", description="Give the focal length of the camera instead of a usual guess", default=False
    )
    focal_mm: FloatProperty(
        name="Focal Length",
        description="Focal length for a 36 mm wide sensor (35 mm equivalent)",
        default=43.0,
        min=5.0,
        max=500.0,
        unit="CAMERA",
    )
    use_height: BoolProperty(
        name="Known Height",
        description=(
            "Give the standing height of the people in the clip instead of recovering it. For people of several "
            "heights leave it off and use Set Height on each figure afterwards"
        ),
        default=False,
    )
    height: FloatProperty(
        name="Height",
        description="Standing height of the people in the clip",
        default=1.7,
        min=protocol.HEIGHTS_M[0],
        max=protocol.HEIGHTS_M[1],
        precision=2,
        step=1,
        subtype="DISTANCE",
        unit="LENGTH",
    )
    use_camera: BoolProperty(
        name="Camera", description="Make a camera that shows the figure as the video does", default=True
    )
    use_background: BoolProperty(
        name="Background Video", description="Show the video behind the camera", default=True
    )


class HYPER_MOCAP_PG_person(bpy.types.PropertyGroup):
    """One person the engine found; `name` is what the list shows."""

    person: IntProperty(name="Number", description="The engine's number of this person")
    first: IntProperty(name="First Frame", description="First frame in which the person is seen")
    last: IntProperty(name="Last Frame", description="Last frame in which the person is seen")
    confidence: FloatProperty(
        name="Confidence",
        description="How sure the detector is, on average over the frames",
        min=0.0,
        max=1.0,
        subtype="FACTOR",
    )
    use: BoolProperty(name="Recover", description="Recover this person", default=True)


class HYPER_MOCAP_PG_state(bpy.types.PropertyGroup):
    """What the panel shows of the running or last job; not stored in files."""

    people: CollectionProperty(name="People", description="People found in the video", type=HYPER_MOCAP_PG_person)
    active_person: IntProperty(name="Active Person", description="Selected row of the list")


CLASSES = (HYPER_MOCAP_PG_settings, HYPER_MOCAP_PG_person, HYPER_MOCAP_PG_state)


def register() -> None:
    """Register the groups, then the pointers to them."""
    for cls in CLASSES:
        bpy.utils.register_class(cls)
    bpy.types.Scene.hyper_mocap = PointerProperty(type=HYPER_MOCAP_PG_settings)
    bpy.types.WindowManager.hyper_mocap = PointerProperty(type=HYPER_MOCAP_PG_state, options={"SKIP_SAVE"})


def unregister() -> None:
    """Undo `register` in reverse."""
    del bpy.types.WindowManager.hyper_mocap
    del bpy.types.Scene.hyper_mocap
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)
