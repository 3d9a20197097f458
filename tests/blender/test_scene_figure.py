"""The figure as an artist finds it: mesh, UVs, weights, shape keys, mirrored bones, colours."""

from __future__ import annotations

import os

import bpy
import numpy as np
import pytest
import scene_support as support
import scene_world as world

from addon import naming
from addon.scene.bodydata import BodyData

BETAS = np.array([1.2, -0.8, 0.5, 0.0, -1.0, 0.3, 0.9, -0.4, 0.2, 6.5])
BODY_FILE = os.path.join(os.path.dirname(__file__), "..", "..", "weights", "body_neutral.npz")


@pytest.fixture
def figure(body):
    """(armature, mesh object) of one person who has only a shape so far."""
    writer = world.start_writer(world.empty_scene(), body, {0: BETAS})
    writer.finish()
    return world.person_object(), world.body_object()


def blender_axes(points: np.ndarray) -> np.ndarray:
    """y up, facing +z -> z up, facing -y."""
    return np.stack([points[:, 0], -points[:, 2], points[:, 1]], axis=1)


def test_mesh_is_the_template_with_its_faces(figure, body):
    mesh = figure[1].data
    points = np.array([v.co[:] for v in mesh.vertices])
    np.testing.assert_allclose(points, blender_axes(body["v_template"]), atol=1e-6)
    faces = [tuple(p.vertices) for p in mesh.polygons]
    assert faces == [tuple(int(i) for i in f if i >= 0) for f in body["faces"]]
    assert all(p.use_smooth for p in mesh.polygons)
    is_corner = body["faces"].ravel() >= 0
    uv = np.array([u.vector[:] for u in mesh.uv_layers[0].uv])
    np.testing.assert_allclose(uv, body["uv"][is_corner], atol=1e-6)


def test_weights(figure, body):
    mesh = figure[1]
    assert [g.name for g in mesh.vertex_groups] == list(naming.BONE_NAMES)
    found = np.zeros((len(mesh.data.vertices), 24))
    for vertex in mesh.data.vertices:
        for entry in vertex.groups:
            found[vertex.index, entry.group] = entry.weight
    expected = np.zeros_like(found)
    np.add.at(expected, (np.arange(len(found))[:, None], body["weight_joints"]), body["weight_values"])
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_shape_keys_carry_the_shape_even_beyond_the_slider(figure, body):
    mesh = figure[1]
    keys = mesh.data.shape_keys.key_blocks
    assert [k.name for k in keys] == ["Basis", *(f"Shape {i}" for i in range(1, 11))]
    np.testing.assert_allclose([k.value for k in keys][1:], BETAS, atol=1e-6)
    assert (keys[1].slider_min, keys[1].slider_max) == (-5.0, 5.0)
    assert keys[10].slider_max == 6.5
    rest = support.oracle_rest(body, BETAS)[0]
    assert np.abs(world.vertices_at(mesh, 1) - blender_axes(rest)).max() < 1e-4


def test_bones_sit_on_the_shapes_joints_and_point_to_their_children(figure, body):
    bones = figure[0].data.bones
    joints = blender_axes(support.oracle_rest(body, BETAS)[1])
    for j, name in enumerate(naming.BONE_NAMES):
        np.testing.assert_allclose(bones[name].head_local, joints[j], atol=1e-5)
        parent = naming.PARENTS[j]
        assert (bones[name].parent.name if bones[name].parent else None) == (
            naming.BONE_NAMES[parent] if parent >= 0 else None
        )
        assert bones[name].length > 0.01
    for parent, child in (("hip.L", "knee.L"), ("knee.R", "ankle.R"), ("elbow.L", "wrist.L"), ("neck", "head")):
        np.testing.assert_allclose(bones[parent].tail_local, bones[child].head_local, atol=1e-5)
    assert len(bones) == 24


def test_bones_are_mirror_images(body):
    """Blender's own convention: the mirrored bone has the mirrored y and z axis."""
    world.start_writer(world.empty_scene(), body, {0: np.zeros(10)}).finish()
    bones = world.person_object().data.bones
    for name in naming.BONE_NAMES:
        if naming.side_of(name) == "L":
            left = np.array(bones[name].matrix_local)[:3, :3]
            right = np.array(bones[name[:-1] + "R"].matrix_local)[:3, :3]
            np.testing.assert_allclose(right, np.diag([-1, 1, 1]) @ left @ np.diag([-1, 1, 1]), atol=1e-5)


def test_joints_bend_about_sensible_axes(figure):
    """Knees bend about the bone's x (to the left), spine z looks forward, arms' z up."""
    axes = {b.name: np.array(b.matrix_local)[:3, :3] for b in figure[0].data.bones}
    for name in ("hip.L", "hip.R", "knee.L", "knee.R"):
        assert axes[name][0, 0] > 0.9, name
    for name in ("pelvis", "spine1", "spine2", "spine3", "neck", "head"):
        assert axes[name][1, 2] < -0.7, name
    for name in ("shoulder.L", "shoulder.R", "elbow.L", "elbow.R", "wrist.L", "wrist.R"):
        assert axes[name][2, 2] > 0.9, name


def test_mirror_tool_exchanges_sides(body):
    motion = support.wild_motion(3)
    world.write_motion(world.empty_scene(), body, motion, np.zeros(10))
    armature = world.person_object()
    bpy.context.scene.frame_set(2)
    left = armature.pose.bones["knee.L"].rotation_quaternion.copy()
    bpy.context.view_layer.objects.active = armature
    bpy.ops.object.mode_set(mode="POSE")
    bpy.ops.pose.select_all(action="SELECT")
    bpy.ops.pose.copy()
    bpy.ops.pose.paste(flipped=True)
    right = armature.pose.bones["knee.R"].rotation_quaternion
    np.testing.assert_allclose(right, [left.w, left.x, -left.y, -left.z], atol=1e-5)


def test_bone_collections_and_colours(figure):
    armature = figure[0].data
    members = {c.name: {b.name for b in c.bones} for c in armature.collections}
    assert set(members) == {"Left", "Right", "Centre"}
    assert len(members["Left"]) == len(members["Right"]) == 9 and len(members["Centre"]) == 6
    assert all(n.endswith(".L") for n in members["Left"])
    palettes = {b.color.palette for b in armature.bones}
    assert len(palettes) == 3 and "DEFAULT" not in palettes


def test_people_have_their_own_colours(body):
    world.start_writer(world.empty_scene(), body, {p: np.zeros(10) for p in range(8)}).finish()
    materials = [world.body_object(p).data.materials[0] for p in range(8)]
    colours = [tuple(m.diffuse_color)[:3] for m in materials]
    assert len(set(colours)) == 8
    for material, colour in zip(materials, colours):
        shader = next(n for n in material.node_tree.nodes if n.type == "BSDF_PRINCIPLED")
        np.testing.assert_allclose(shader.inputs["Base Color"].default_value[:3], colour, atol=1e-6)


def test_second_run_beside_the_first(body):
    scene = world.empty_scene()
    motion = support.wild_motion(4)
    for _ in range(2):
        world.write_motion(scene, body, motion, np.zeros(10))
    assert len([o for o in scene.objects if o.type == "ARMATURE"]) == 2
    names = sorted(c.name for c in scene.collection.children)
    assert names == ["a walk Mocap", "a walk Mocap take 2"]


@pytest.mark.skipif(not os.path.exists(BODY_FILE), reason="the default body was not built")
def test_default_body():
    data = BodyData.from_file(BODY_FILE)
    assert data.vertices.shape == (13718, 3) and data.faces.shape == (13710, 4) and len(data.uv) == 4 * 13710
    message = dict(
        v_template=data.vertices,
        faces=data.faces,
        weight_joints=data.weight_joints,
        weight_values=data.weight_values,
        joints=data.joints,
        shapedirs=data.shapedirs,
        joint_shapedirs=data.joint_shapedirs,
        uv=data.uv,
    )
    betas = np.array([1.0, -1.0, 0.5, *[0] * 7, 0.5, 2.0, -1.0, 0, 0, 1.0])
    motion = support.wild_motion(4)
    world.write_motion(world.empty_scene(), message, motion, betas)
    for i in (0, 3):
        expected = support.oracle_vertices(message, betas, motion["poses"][i], motion["trans"][i])
        assert np.abs(world.vertices_at(world.body_object(), 1 + i) - expected).max() < 1e-4
    assert 1.4 < np.ptp(data.rest_vertices(betas)[:, 1]) < 2.2
    keys = world.body_object().data.shape_keys.key_blocks
    assert [k.name for k in keys][10:] == [
        "Shape 10",
        "Upper Arm Length",
        "Forearm Length",
        "Thigh Length",
        "Shin Length",
        "Trunk Length",
        "Shoulder Width",
    ]
    forearm = np.array([v.co for v in keys["Forearm Length"].data]) - np.array([v.co for v in keys["Basis"].data])
    wrist = np.abs(forearm).max(0)
    assert 0.006 < wrist[0] < 0.012 and wrist[1:].max() < 1e-3  # 4 % of 25 cm, along the arms of the T-pose


def test_direction_that_a_body_lacks_is_no_shape_key():
    body = support.synthetic_body()
    shapedirs = np.concatenate([body["shapedirs"], np.zeros((*body["shapedirs"].shape[:2], 6), np.float32)], 2)
    joint_shapedirs = np.concatenate([body["joint_shapedirs"], np.zeros((24, 3, 6), np.float32)], 2)
    body = body | {"shapedirs": shapedirs, "joint_shapedirs": joint_shapedirs}
    world.write_motion(world.empty_scene(), body, support.wild_motion(2), np.ones(16))
    keys = world.body_object().data.shape_keys.key_blocks
    assert [k.name for k in keys] == ["Basis", *(f"Shape {i}" for i in range(1, 11))]
