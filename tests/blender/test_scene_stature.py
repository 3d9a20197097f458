"""Figures of another height: everything is the recovered figure times one factor, on the floor and on the picture."""

from __future__ import annotations

import bpy
import numpy as np
import pytest
import scene_support as support
import scene_world as world
from bpy_extras.object_utils import world_to_camera_view
from mathutils import Vector
from test_scene_result import write_file
from test_scene_vertices import with_vertices

from addon.scene import export, smoothing, stature
from addon.scene.bodydata import BodyData
from addon.scene.result import load_results
from core import protocol

BETAS = np.array([1.2, -0.8, 0.5, 0.0, -1.0, 0.3, 0.9, -0.4, 0.2, 0.6])
HEIGHT = 1.7
"""What the shape messages of these tests say."""
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def assert_scaled(body, motion, factor: float, rows=(0, 7, 15), tolerance: float = 1e-4) -> None:
    """Bone heads are the oracle's joints times the factor: the figure's origin is the world's."""
    for i in rows:
        joints = support.oracle_joints(body, BETAS, motion["poses"][i], motion["trans"][i])
        assert np.abs(world.heads_at(world.person_object(), 1 + i) - factor * joints).max() < tolerance


@pytest.mark.parametrize("mode", ["ARMATURE", "CORRECTIVES", "SHAPE_KEYS", "POINT_CACHE"])
def test_a_figure_of_any_kind_is_scaled(body, tmp_path, mode):
    motion = with_vertices(body, support.wild_motion(16), bulge_m=0.02)
    world.write_motion(world.empty_scene(), body, motion, BETAS, mode=mode, cache_dir=str(tmp_path))
    figure = world.person_object()
    mesh = figure if mode == "SHAPE_KEYS" else world.body_object()
    before = [world.vertices_at(mesh, 1 + i) for i in (0, 7, 15)]
    stature.scale_figure(figure, 0.9)
    stature.scale_figure(figure, 1.2)
    for i, vertices in zip((0, 7, 15), before):
        assert np.abs(world.vertices_at(mesh, 1 + i) - 1.08 * vertices).max() < 1e-4
    assert stature.height_of(figure) == pytest.approx(1.08 * HEIGHT)
    np.testing.assert_allclose(figure.scale, 1)
    if mode != "SHAPE_KEYS":
        assert_scaled(body, motion, 1.08)


def test_smoothing_afterwards_keeps_the_height(body, tmp_path):
    motion = support.wild_motion(16)
    data = BodyData.from_message(support.body_message(body))
    load_results(world.empty_scene(), [write_file(tmp_path / "clip_person0.npz", motion)], data)
    figure = world.person_object()
    smoothing.smooth_figure(figure, smoothing.Smoothing(seconds=0.0))
    stature.scale_figure(figure, 1.1)
    assert_scaled(body, motion, 1.1)
    smoothing.show_smoothed(figure, False)
    assert_scaled(body, motion, 1.1)
    smoothing.smooth_figure(figure, smoothing.Smoothing(seconds=0.0))
    assert_scaled(body, motion, 1.1)
    rest = data.rest_vertices(BETAS)
    assert stature.height_of(figure) == pytest.approx(1.1 * np.ptp(rest[:, 1]), rel=1e-5)


@pytest.mark.parametrize("mode", ["ARMATURE", "POINT_CACHE"])
def test_fbx_has_the_size(body, tmp_path, mode):
    motion = with_vertices(body, support.wild_motion(16))
    world.write_motion(world.empty_scene(), body, motion, BETAS, mode=mode, cache_dir=str(tmp_path))
    stature.scale_figure(world.person_object(), 1.25)
    path = str(tmp_path / "tall.fbx")
    export.export_fbx(export.figures_of(bpy.data.collections["a walk Mocap"]), path)
    world.empty_scene()
    bpy.ops.import_scene.fbx(filepath=path, anim_offset=0.0)
    assert_scaled(body, motion, 1.25, tolerance=1e-3)
    np.testing.assert_allclose(world.person_object().scale, 1, atol=1e-5)
    for i in (0, 15):
        vertices = support.oracle_vertices(body, BETAS, motion["poses"][i], motion["trans"][i])
        assert np.abs(world.vertices_at(world.body_object(), 1 + i) - 1.25 * vertices).max() < 1e-3


def test_the_height_is_that_of_the_last_shape(body):
    writer = world.start_writer(world.empty_scene(), body, {0: np.zeros(10)})
    writer.handle(support.frames_message(0, support.wild_motion(4), slice(0, 4)))
    writer.tick(1.0)
    revised = support.wire(BETAS.astype(np.float32))
    writer.handle(protocol.Shape(person=0, height_m=1.81, betas=revised))
    writer.finish()
    assert stature.height_of(world.person_object()) == pytest.approx(1.81)


def test_a_figure_that_was_moved_grows_where_it_stands(body):
    motion = support.wild_motion(16)
    world.write_motion(world.empty_scene(), body, motion, BETAS)
    figure = world.person_object()
    figure.location, figure.scale = (3, 4, 0.5), (2, 2, 2)
    bpy.context.view_layer.update()
    assert stature.height_of(figure) == pytest.approx(2 * HEIGHT)
    stature.scale_figure(figure, 0.5)
    joints = support.oracle_joints(body, BETAS, motion["poses"][7], motion["trans"][7])
    assert np.abs(world.heads_at(figure, 8) - (joints + [3, 4, 0.5])).max() < 1e-4


# The operator


def build_clip(tmp_path, people: int, moves: bool = False) -> bpy.types.Object:
    """Result files of some people built into a scene; returns the camera."""
    motion = support.wild_motion(16)
    data = BodyData.from_message(support.body_message(support.synthetic_body()))
    place = np.tile(np.array([0.2, -5, 1.5], dtype=np.float32), (16, 1))
    place[:, 0] += 0.1 * moves * np.arange(16)
    paths = [
        write_file(tmp_path / f"clip_person{p}.npz", motion, t_world_from_cam=place.astype(np.float32))
        for p in range(people)
    ]
    summary = load_results(bpy.context.scene, paths, data)
    for obj in bpy.context.view_layer.objects:
        obj.select_set(False)
    bpy.context.view_layer.objects.active = None
    return bpy.data.objects[summary.camera]


def seen(camera, person: int, frame: int) -> np.ndarray:
    """Where the picture shows the bone heads [24, 2]."""
    heads = world.heads_at(world.person_object(person), frame)
    scene = bpy.context.scene
    return np.array([world_to_camera_view(scene, camera, Vector(head))[:2] for head in heads])


@pytest.mark.parametrize("moves", [False, True])
def test_one_person_stays_on_the_picture_and_on_the_floor(addon, tmp_path, moves):
    camera = build_clip(tmp_path, people=1, moves=moves)
    figure = world.person_object()
    before = [(seen(camera, 0, f), world.heads_at(figure, f)) for f in (1, 12)]
    height = 1.3 * stature.height_of(figure)
    assert bpy.ops.hyper_mocap.set_height(height=height) == {"FINISHED"}
    assert stature.height_of(figure) == pytest.approx(height, rel=1e-6)
    for frame, (picture, heads) in zip((1, 12), before):
        np.testing.assert_allclose(seen(camera, 0, frame), picture, atol=1e-4)
        np.testing.assert_allclose(world.heads_at(figure, frame), 1.3 * heads, atol=1e-4)
    assert camera.matrix_world.translation.z == pytest.approx(1.3 * 1.5, rel=1e-5)


def test_one_of_several_changes_alone(addon, tmp_path):
    camera = build_clip(tmp_path, people=2)
    with pytest.raises(RuntimeError, match="Select the figure"):
        bpy.ops.hyper_mocap.set_height(height=1.5)
    bpy.context.view_layer.objects.active = world.body_object(1)
    world.body_object(1).select_set(True)
    was = [world.heads_at(world.person_object(p), 5) for p in (0, 1)]
    factor = 1.5 / stature.height_of(world.person_object(1))
    bpy.ops.hyper_mocap.set_height(height=1.5)
    np.testing.assert_allclose(world.heads_at(world.person_object(0), 5), was[0], atol=1e-6)
    np.testing.assert_allclose(world.heads_at(world.person_object(1), 5), factor * was[1], atol=1e-4)
    assert camera.matrix_world.translation.z == pytest.approx(1.5)


def test_a_whole_clip_changes_together(addon, tmp_path):
    camera = build_clip(tmp_path, people=2)
    bpy.context.view_layer.objects.active = world.person_object(1)
    world.person_object(1).select_set(True)
    before = [seen(camera, p, 5) for p in (0, 1)]
    factor = 1.5 / stature.height_of(world.person_object(1))
    bpy.ops.hyper_mocap.set_height(height=1.5, use_clip=True)
    assert stature.height_of(world.person_object(0)) == pytest.approx(1.5)
    for person in (0, 1):
        np.testing.assert_allclose(seen(camera, person, 5), before[person], atol=1e-4)
    assert camera.matrix_world.translation.z == pytest.approx(1.5 * factor, rel=1e-5)


def test_a_camera_with_a_parent_stays_and_is_named(addon, tmp_path, capsys):
    camera = build_clip(tmp_path, people=1)
    camera.parent = bpy.data.objects.new("Rig", None)
    bpy.ops.hyper_mocap.set_height(height=1.5)
    assert camera.location.z == pytest.approx(1.5) and f"{camera.name} stays" in capsys.readouterr().out


def test_one_undo_gives_the_height_back(addon, tmp_path):
    camera = build_clip(tmp_path, people=1)
    bpy.context.preferences.edit.use_global_undo = True
    before, height = world.heads_at(world.person_object(), 9), stature.height_of(world.person_object())
    name = camera.name
    bpy.ops.ed.undo_push(message="Before")
    bpy.ops.hyper_mocap.set_height(height=2.0)
    bpy.ops.ed.undo_push(message="Set Height")
    assert stature.height_of(world.person_object()) == pytest.approx(2.0)
    bpy.ops.ed.undo()
    np.testing.assert_allclose(world.heads_at(world.person_object(), 9), before, atol=1e-6)
    assert stature.height_of(world.person_object()) == pytest.approx(height)
    assert bpy.data.objects[name].location.z == pytest.approx(1.5)
    bpy.ops.ed.redo()
    np.testing.assert_allclose(world.heads_at(world.person_object(), 9), 2.0 / height * before, atol=1e-4)


def test_it_is_refused_without_a_figure_and_in_edit_mode(addon, tmp_path):
    assert not bpy.ops.hyper_mocap.set_height.poll()
    build_clip(tmp_path, people=1)
    assert bpy.ops.hyper_mocap.set_height.poll()
    bpy.context.view_layer.objects.active = world.body_object()
    bpy.ops.object.mode_set(mode="EDIT")
    assert not bpy.ops.hyper_mocap.set_height.poll()
    bpy.ops.object.mode_set(mode="OBJECT")
