"""Parts of one person's figure: body mesh with quads, UVs, shape keys, weights, material. build.py composes them."""

from __future__ import annotations

import bpy
import numpy as np

from .. import naming
from ..convert import rest_to_blender
from . import armature as rig
from .bodydata import BodyData

SHAPE_RANGE = 5.0
COLOURS = (
    (0.10, 0.36, 0.62), (0.80, 0.35, 0.05), (0.05, 0.45, 0.32), (0.62, 0.22, 0.42),
    (0.75, 0.55, 0.06), (0.24, 0.62, 0.82), (0.42, 0.33, 0.68), (0.52, 0.16, 0.12),
)  # fmt: skip
"""Linear RGB, told apart by colour-blind eyes too; people beyond the eighth begin again."""


def ensure_collection(scene: bpy.types.Scene, name: str, properties: dict) -> bpy.types.Collection:
    """Make a new collection in the scene with custom properties saying where its content comes from."""
    collection = bpy.data.collections.new(name)
    scene.collection.children.link(collection)
    for key, value in properties.items():
        collection[key] = value
    return collection


def new_mesh(name: str, body: BodyData) -> bpy.types.Mesh:
    """Return a new mesh: template in Blender's rest frame, quads and triangles. Nothing else; edges are missing."""
    mesh = bpy.data.meshes.new(name)
    is_corner = _corners(body)
    sizes = is_corner.sum(axis=1).astype(np.int32)
    loops = body.faces[is_corner].astype(np.int32)
    mesh.vertices.add(len(body.vertices))
    mesh.loops.add(len(loops))
    mesh.polygons.add(len(sizes))
    set_points(mesh.vertices, rest_to_blender(body.vertices))
    mesh.attributes[".corner_vert"].data.foreach_set("value", loops)
    mesh.polygons.foreach_set("loop_start", (np.cumsum(sizes) - sizes).astype(np.int32))
    return mesh


def set_points(points, coordinates: np.ndarray) -> None:
    """Write positions [V, 3] into the vertices of a mesh or the points of a shape key."""
    points.foreach_set("co", np.ascontiguousarray(coordinates, dtype=np.float32).ravel())


def add_uv(mesh: bpy.types.Mesh, body: BodyData) -> None:
    """The body's UV map, if it has one."""
    if len(body.uv):
        uv = body.uv.reshape(-1, 4, 2)[_corners(body)]
        mesh.uv_layers.new(name="UVMap").uv.foreach_set("vector", np.ascontiguousarray(uv, dtype=np.float32).ravel())


def _corners(body: BodyData) -> np.ndarray:
    """Which of faces [F, 4] are corners: all but the fourth of triangles."""
    is_corner = np.ones(body.faces.shape, dtype=bool)
    is_corner[:, 3] = body.faces[:, 3] >= 0
    return is_corner


def add_weights(obj: bpy.types.Object, body: BodyData, joint: int) -> None:
    """The vertex group of one bone; called in joint order. Vertices of the same weight are added together."""
    add = obj.vertex_groups.new(name=naming.BONE_NAMES[joint]).add
    vertices, column = np.nonzero((body.weight_joints == joint) & (body.weight_values > 0))
    weights = body.weight_values[vertices, column]
    is_whole = weights == 1
    if is_whole.any():
        add(vertices[is_whole].tolist(), 1.0, "REPLACE")
    for vertex, weight in zip(vertices[~is_whole].tolist(), weights[~is_whole].tolist()):
        add((vertex,), weight, "REPLACE")


def add_basis(obj: bpy.types.Object) -> None:
    """The key that the others start from."""
    obj.shape_key_add(name="Basis", from_mix=False)


def add_shape_key(obj: bpy.types.Object, body: BodyData, betas: np.ndarray, k: int) -> None:
    """One unit of coefficient k of the shape, at the person's value; nothing where the body lacks the direction."""
    if not body.shapedirs[:, :, k].any():
        return
    key = obj.shape_key_add(name=naming.SHAPE_KEYS[k], from_mix=False)
    set_points(key.points, rest_to_blender(body.vertices + body.shapedirs[:, :, k]))
    _set_slider(key, float(betas[k]))


def _set_slider(key: bpy.types.ShapeKey, value: float) -> None:
    """Set a value and a range that holds it: Blender would clip it, and the bones would no longer fit."""
    limit = max(SHAPE_RANGE, abs(value))
    key.slider_min, key.slider_max = -limit, limit
    key.value = value


def set_shape(armature: bpy.types.Object, obj: bpy.types.Object | None, betas: np.ndarray) -> None:
    """Give a figure another shape: slider values, rest joints, stored betas. Bone keys must be written anew."""
    rig.place_bones(armature, rig.stored_joints(armature, betas))
    armature[rig.BETAS] = [float(x) for x in betas]
    keys = obj.data.shape_keys if obj is not None else None
    for name, value in zip(naming.SHAPE_KEYS, betas):
        key = keys.key_blocks.get(name) if keys else None
        if key is not None:
            _set_slider(key, float(value))


def build_material(title: str, person: int) -> bpy.types.Material:
    """A soft clay material in the person's colour, the same in the solid viewport."""
    colour = COLOURS[person % len(COLOURS)]
    material = bpy.data.materials.new(title)
    material.diffuse_color = (*colour, 1.0)
    material.roughness = 0.6
    if material.node_tree is None:
        material.use_nodes = True
    shader = next((n for n in material.node_tree.nodes if n.type == "BSDF_PRINCIPLED"), None)
    if shader is not None:
        shader.inputs["Base Color"].default_value = (*colour, 1.0)
        shader.inputs["Roughness"].default_value = 0.6
        shader.inputs["Sheen Weight"].default_value = 0.15
    return material
