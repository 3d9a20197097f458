"""Builds one person's figure: body mesh with quads, UVs, shape keys and weights, on an armature, in a collection."""

from __future__ import annotations

import bpy
import numpy as np

from .. import naming
from ..convert import rest_to_blender
from . import armature as rig
from .bodydata import SHAPE_COUNT, BodyData

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


def build_body_mesh(name: str, body: BodyData) -> bpy.types.Mesh:
    """Return a new mesh: template in Blender's rest frame, quads, UVs, smooth shading. No weights, no shape keys."""
    mesh = bpy.data.meshes.new(name)
    corners = np.where(body.faces[:, 3] < 0, 3, 4).astype(np.int32)
    is_corner = np.ones(body.faces.shape, dtype=bool)
    is_corner[:, 3] = corners == 4
    loops = body.faces[is_corner].astype(np.int32)
    starts = (np.cumsum(corners) - corners).astype(np.int32)
    mesh.vertices.add(len(body.vertices))
    mesh.loops.add(len(loops))
    mesh.polygons.add(len(corners))
    mesh.vertices.foreach_set("co", rest_to_blender(body.vertices).astype(np.float32).ravel())
    mesh.loops.foreach_set("vertex_index", loops)
    mesh.polygons.foreach_set("loop_start", starts)
    if len(body.uv):
        uv = body.uv.reshape(-1, 4, 2)[is_corner]
        mesh.uv_layers.new(name="UVMap").uv.foreach_set("vector", np.ascontiguousarray(uv, dtype=np.float32).ravel())
    mesh.update(calc_edges=True)
    mesh.validate()
    mesh.shade_smooth()
    return mesh


def add_weights(obj: bpy.types.Object, body: BodyData) -> None:
    """Vertex groups named as the bones, in joint order."""
    for joint, name in enumerate(naming.BONE_NAMES):
        group = obj.vertex_groups.new(name=name)
        vertices, column = np.nonzero((body.weight_joints == joint) & (body.weight_values > 0))
        weights = body.weight_values[vertices, column]
        order = np.argsort(weights, kind="stable")
        vertices, weights = vertices[order], weights[order]
        cuts = np.flatnonzero(np.diff(weights)) + 1
        for part, weight in zip(
            np.split(vertices, cuts), weights[np.concatenate([[0], cuts])] if len(weights) else ()
        ):
            group.add(part.tolist(), float(weight), "REPLACE")


def add_shape_keys(obj: bpy.types.Object, body: BodyData, betas: np.ndarray) -> None:
    """Basis and "Shape 1" .. "Shape 10", each one unit of a shape component, at the person's values."""
    obj.shape_key_add(name="Basis", from_mix=False)
    for k in range(SHAPE_COUNT):
        key = obj.shape_key_add(name=f"Shape {k + 1}", from_mix=False)
        moved = rest_to_blender(body.vertices + body.shapedirs[:, :, k])
        key.data.foreach_set("co", moved.astype(np.float32).ravel())
        _set_slider(key, float(betas[k]))


def _set_slider(key: bpy.types.ShapeKey, value: float) -> None:
    """Set a value and a range that holds it: Blender would clip it, and the bones would no longer fit."""
    limit = max(SHAPE_RANGE, abs(value))
    key.slider_min, key.slider_max = -limit, limit
    key.value = value


def shape_values(obj: bpy.types.Object) -> np.ndarray:
    """Values [10] of the shape keys of a body mesh; zero where one is missing."""
    keys = obj.data.shape_keys
    values = np.zeros(SHAPE_COUNT)
    for k in range(SHAPE_COUNT):
        key = keys.key_blocks.get(f"Shape {k + 1}") if keys else None
        values[k] = 0.0 if key is None else key.value
    return values


def build_figure(
    collection: bpy.types.Collection, body: BodyData, betas: np.ndarray, person: int, *, has_armature: bool = True
) -> tuple[bpy.types.Object | None, bpy.types.Object]:
    """Build (armature object, mesh object) for one person and link them into the collection.

    Without armature the mesh has the person's shape baked in: its vertices will be given frame by frame.
    """
    title = f"Person {person + 1}"
    mesh = build_body_mesh(f"{title} Body", body)
    mesh.materials.append(build_material(title, person))
    obj = bpy.data.objects.new(f"{title} Body" if has_armature else title, mesh)
    obj.color = (*COLOURS[person % len(COLOURS)], 1.0)
    if not has_armature:
        collection.objects.link(obj)
        shaped = rest_to_blender(body.rest_vertices(betas))
        mesh.vertices.foreach_set("co", shaped.astype(np.float32).ravel())
        mesh.update()
        return None, obj
    joints = body.rest_joints(betas)
    armature = rig.build_armature(title, joints)
    rig.store_joints(armature, body.joints, body.joint_shapedirs, betas)
    collection.objects.link(armature)
    collection.objects.link(obj)
    obj.parent = armature
    add_weights(obj, body)
    add_shape_keys(obj, body, betas)
    modifier = obj.modifiers.new("Armature", "ARMATURE")
    modifier.object = armature
    modifier.use_deform_preserve_volume = False
    return armature, obj


def set_shape(armature: bpy.types.Object, obj: bpy.types.Object | None, betas: np.ndarray) -> None:
    """Give a figure another shape: slider values, rest joints, stored betas. Bone keys must be written anew."""
    rig.place_bones(armature, rig.stored_joints(armature, betas))
    armature[rig.BETAS] = [float(x) for x in betas]
    keys = obj.data.shape_keys if obj is not None else None
    for k in range(SHAPE_COUNT if keys else 0):
        key = keys.key_blocks.get(f"Shape {k + 1}")
        if key is not None:
            _set_slider(key, float(betas[k]))


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
