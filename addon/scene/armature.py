"""The 24-bone armature: bones at the joints of one shape, pointing at their children, mirrored rolls.

Bones are made in edit mode inside a throw-away scene, so the user's mode, selection and active object stay as they
are even while a job streams.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import bpy
import numpy as np
from mathutils import Vector

from .. import naming
from ..convert import rest_to_blender

TEMPLATE = "hyper_mocap_joint_template"
SHAPEDIRS = "hyper_mocap_joint_shapedirs"
BETAS = "hyper_mocap_betas"
_CHILD = {
    "pelvis": "spine1", "spine1": "spine2", "spine2": "spine3", "spine3": "neck", "neck": "head",
    "hip": "knee", "knee": "ankle", "ankle": "foot",
    "collar": "shoulder", "shoulder": "elbow", "elbow": "wrist", "wrist": "hand",
}  # fmt: skip
"""Which joint each bone's tail lies on; the rest end freely."""
_HEAD_LENGTH, _HAND_LENGTH, _TOE_LENGTH = 0.19, 0.09, 0.08
_COLLECTIONS = {"L": ("Left", "THEME04"), "R": ("Right", "THEME01"), "C": ("Centre", "THEME09")}
_UP, _BACK = Vector((0.0, 0.0, 1.0)), Vector((0.0, 1.0, 0.0))


def build_armature(name: str, joints_rest: np.ndarray) -> bpy.types.Object:
    """Return a new armature object (in no collection) with bones at joints_rest [24, 3] (engine's rest frame)."""
    armature = bpy.data.armatures.new(name)
    armature.display_type = "OCTAHEDRAL"
    obj = bpy.data.objects.new(name, armature)
    obj.show_in_front = True
    with _edit_bones(obj) as bones:
        for joint, parent in zip(naming.BONE_NAMES, naming.PARENTS):
            bone = bones.new(joint)
            bone.tail = (0.0, 0.0, 0.1)
            bone.parent = None if parent < 0 else bones[naming.BONE_NAMES[parent]]
        _place_bones(bones, joints_rest)
    _sort_bones(armature)
    return obj


def place_bones(obj: bpy.types.Object, joints_rest: np.ndarray) -> None:
    """Move the rest bones to other joints [24, 3] (another shape). Keys must be written anew afterwards."""
    with _edit_bones(obj) as bones:
        _place_bones(bones, joints_rest)


def scale_bones(obj: bpy.types.Object, factor: float) -> None:
    """Make the rest bones larger by a factor about the object's origin; their directions and rolls stay."""
    with _edit_bones(obj) as bones:
        ends = {bone.name: (factor * bone.head, factor * bone.tail) for bone in bones}
        for name, (head, tail) in ends.items():  # read all before: moving one moves those connected with it
            bones[name].head, bones[name].tail = head, tail


def move_bones(obj: bpy.types.Object, joints_rest: np.ndarray) -> None:
    """Move the rest bones to other joints [24, 3]; their directions and rolls stay, so that keyed rotations keep
    their meaning.

    A bone ends where its direction passes its child's joint; free ends keep their length. Bones that are not ours go
    along with the one they hang on. KeyError, and nothing changed, if one of ours was deleted.
    """
    heads = dict(zip(naming.BONE_NAMES, map(Vector, rest_to_blender(np.asarray(joints_rest, dtype=np.float64)))))
    with _edit_bones(obj) as bones:
        ours = [bones[name] for name in naming.BONE_NAMES]
        places = {}
        for bone in bones:
            head, tail, near = bone.head.copy(), bone.tail.copy(), bone
            while near is not None and near.name not in heads:
                near = near.parent
            step = heads[near.name] - near.head if near is not None else Vector()
            places[bone.name] = head + step, tail + step
        for bone, joint in zip(ours, naming.JOINT_NAMES):
            child, along = _child_of(joint), (bone.tail - bone.head).normalized()
            if child is not None:
                length = (heads[naming.bone_name(child)] - heads[bone.name]).dot(along)
                places[bone.name] = heads[bone.name], heads[bone.name] + max(length, 0.1 * bone.length) * along
        for bone in bones:
            bone.use_connect = False  # else the parent would turn towards it
        for bone in bones:
            back = bone.z_axis.copy()
            bone.head, bone.tail = places[bone.name]
            bone.align_roll(back)


def rest_axes(obj: bpy.types.Object) -> np.ndarray:
    """Rest axes of the bones in armature space, [24, 3, 3] with columns x y z. KeyError if one was deleted."""
    bones = obj.data.bones
    return np.array([np.array(bones[name].matrix_local)[:3, :3] for name in naming.BONE_NAMES])


def store_joints(obj: bpy.types.Object, template: np.ndarray, shapedirs: np.ndarray, betas: np.ndarray) -> None:
    """Keep what is needed to fit the rest joints to a shape (template [24,3], shapedirs [24,3,S], betas [S])."""
    obj[TEMPLATE] = [float(x) for x in np.asarray(template).ravel()]
    obj[SHAPEDIRS] = [float(x) for x in np.asarray(shapedirs).ravel()]
    obj[BETAS] = [float(x) for x in betas]


def stored_joints(obj: bpy.types.Object, betas: np.ndarray | None = None) -> np.ndarray:
    """Rest joints [24, 3] (engine's rest frame) of the given shape, or of the shape stored with the figure.

    KeyError if the object is no figure of ours.
    """
    template = np.array(obj[TEMPLATE]).reshape(naming.JOINT_COUNT, 3)
    shapedirs = np.array(obj[SHAPEDIRS]).reshape(naming.JOINT_COUNT, 3, -1)
    return template + shapedirs @ (np.array(obj[BETAS]) if betas is None else np.asarray(betas, dtype=np.float64))


@contextlib.contextmanager
def _edit_bones(obj: bpy.types.Object) -> Iterator:
    """Yield the edit bones of an object; it is in edit mode only within a scene that exists meanwhile.

    An object in pose mode is in it afterwards; a hidden one is shown meanwhile, as Blender edits no others. Mirrored
    editing rests: every bone is given its own place.
    """
    scene = bpy.data.scenes.new("Hyper Mocap Edit")
    mode = "POSE" if obj.mode == "POSE" else "OBJECT"
    is_mirrored, obj.data.use_mirror_x = obj.data.use_mirror_x, False
    is_hidden = obj.hide_viewport
    if is_hidden:  # only then: setting it lets Blender go through the whole scene
        obj.hide_viewport = False
    try:
        scene.collection.objects.link(obj)
        layer = scene.view_layers[0]
        layer.objects.active = obj
        with bpy.context.temp_override(scene=scene, view_layer=layer, active_object=obj, object=obj):
            bpy.ops.object.mode_set(mode="EDIT")
            try:
                yield obj.data.edit_bones
            finally:
                bpy.ops.object.mode_set(mode=mode)
    finally:
        obj.data.use_mirror_x = is_mirrored
        if is_hidden:
            obj.hide_viewport = True
        bpy.data.scenes.remove(scene)


def _child_of(joint: str) -> str | None:
    """The joint that a joint's bone points at: left_knee -> left_ankle; None where it ends freely."""
    prefix, _, stem = joint.rpartition("_")
    child = _CHILD.get(stem)
    return None if child is None else f"{prefix}_{child}" if prefix else child


def _place_bones(bones, joints_rest: np.ndarray) -> None:
    heads = rest_to_blender(np.asarray(joints_rest, dtype=np.float64))
    index = {name: i for i, name in enumerate(naming.JOINT_NAMES)}
    for j, joint in enumerate(naming.JOINT_NAMES):
        stem, child = joint.rpartition("_")[2], _child_of(joint)
        if child is not None:
            tail = heads[index[child]]
        elif stem == "head":
            tail = heads[j] + [0.0, 0.0, _HEAD_LENGTH]
        elif stem == "foot":
            tail = heads[j] + [0.0, -_TOE_LENGTH, 0.0]
        else:
            arm = heads[j] - heads[naming.PARENTS[j]]
            tail = heads[j] + arm / max(np.linalg.norm(arm), 1e-6) * _HAND_LENGTH
        if np.linalg.norm(tail - heads[j]) < 1e-3:
            tail = heads[j] + [0.0, 0.0, 0.05]
        bone = bones[naming.BONE_NAMES[j]]
        bone.head, bone.tail = heads[j], tail
        upright = stem in ("hip", "knee") or naming.side_of(joint) == "C"
        bone.align_roll((_BACK if stem in ("hip", "knee") else -_BACK) if upright else _UP)


def _sort_bones(armature: bpy.types.Armature) -> None:
    """Bone collections and colours by side."""
    collections = {side: armature.collections.new(name) for side, (name, _) in _COLLECTIONS.items()}
    for bone in armature.bones:
        side = naming.side_of(bone.name)
        collections[side].assign(bone)
        bone.color.palette = _COLLECTIONS[side][1]
