"""Gives a finished figure another height: bones, mesh and keys become larger by one factor, proportions stay.

The object itself keeps a scale of 1, as retargeting and game engines like it; only a mesh that plays a point cache is
scaled as an object, since its file holds the size. All is scaled about the figure's origin: that is the point of the
floor under the camera, so the figure stays on the floor, and with a camera scaled along it also stays on the picture.
"""

from __future__ import annotations

import bpy
import numpy as np

from ..action import curves_in, curves_of, scale_curve
from . import armature as rig
from .lookup import TOKEN
from .person import HEIGHT, PERSON, SCALE, SHIFT
from .sinks import CACHE_MODIFIER
from .smoothing import motions_of


def height_of(figure: bpy.types.Object) -> float:
    """Return a figure's standing height in metres, as it stands in the world; 0 where it is not known."""
    return float(figure.get(HEIGHT, 0.0)) * abs(figure.matrix_world.to_scale().z)


def figures_beside(figure: bpy.types.Object) -> list[bpy.types.Object]:
    """Return the figures of the same clip: those of its collections, itself among them."""
    found = {obj: None for collection in figure.users_collection for obj in collection.all_objects if PERSON in obj}
    return list(found) or [figure]


def cameras_beside(figure: bpy.types.Object) -> list[bpy.types.Object]:
    """Return the cameras that were made with a figure."""
    objects = {obj: None for collection in figure.users_collection for obj in collection.all_objects}
    return [obj for obj in objects if obj.type == "CAMERA" and TOKEN in obj]


def scale_figure(figure: bpy.types.Object, factor: float) -> None:
    """Make a figure larger by a factor about its origin, with everything its bones and its mesh are keyed with."""
    meshes = [figure]
    if figure.type == "ARMATURE":
        meshes = [obj for obj in figure.children_recursive if obj.type == "MESH" and TOKEN in obj]
        _scale_bones(figure, factor)
    for obj in meshes:
        if obj.modifiers.get(CACHE_MODIFIER) is not None:
            obj.scale *= factor
        else:
            _scale_mesh(obj.data, factor)
    figure[HEIGHT] = float(figure.get(HEIGHT, 0.0)) * factor
    figure[SCALE] = float(figure.get(SCALE, 1.0)) * factor
    figure.update_tag(refresh={"TIME"})


def scale_way(camera: bpy.types.Object, factor: float, centre) -> bool:
    """Scale a camera's place, and its way if it has keys, about a point [3] of the world.

    False, and nothing changed, where something else says where it is: a parent or constraints.
    """
    if camera.parent is not None or camera.constraints:
        return False
    for curve in curves_of(camera):
        if curve.data_path == "location":
            scale_curve(curve, factor, about=centre[curve.array_index])
    for k in range(3):
        camera.location[k] = centre[k] + factor * (camera.location[k] - centre[k])
    camera.update_tag(refresh={"TIME"})
    return True


def _scale_bones(armature: bpy.types.Object, factor: float) -> None:
    """Rest bones, what they were fitted to, and the bones' locations in all of the figure's motions."""
    rig.scale_bones(armature, factor)
    for name in (rig.TEMPLATE, rig.SHAPEDIRS):
        if name in armature:
            armature[name] = [factor * x for x in armature[name]]
    if SHIFT in armature:
        armature[SHIFT] = [factor * x for x in armature[SHIFT]]
    for action in motions_of(armature):
        for curve in curves_in(action):
            if curve.data_path.startswith("pose.bones[") and curve.data_path.endswith(".location"):
                scale_curve(curve, factor)
    for bone in armature.pose.bones:
        bone.location *= factor


def _scale_mesh(mesh: bpy.types.Mesh, factor: float) -> None:
    """Vertices and all shape keys."""
    keys = mesh.shape_keys.key_blocks if mesh.shape_keys else ()
    for points in (mesh.vertices, *(key.data for key in keys)):
        places = np.empty(3 * len(points), dtype=np.float32)
        points.foreach_get("co", places)
        points.foreach_set("co", np.float32(factor) * places)
    mesh.update()
