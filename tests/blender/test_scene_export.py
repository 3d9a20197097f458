"""Files for other programs, read back into an empty scene: joints within a millimetre and a frame of the source."""

from __future__ import annotations

import bpy
import numpy as np
import pytest
import scene_support as support
import scene_world as world

from addon.errors import ExportError
from addon.scene import export

BETAS = np.array([1.2, -0.8, 0.5, 0.0, -1.0, 0.3, 0.9, -0.4, 0.2, 0.6])
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
"""Blender's own importers and exporters warn, some of them about themselves."""


@pytest.fixture
def written(body):
    """A scene with one figure and a camera; returns (motion, objects)."""
    scene = world.empty_scene()
    motion = support.wild_motion(30)
    world.write_motion(scene, body, motion, BETAS)
    return motion, export.figures_of(bpy.data.collections["a walk Mocap"])


def imported_armature() -> bpy.types.Object:
    (armature,) = [o for o in bpy.data.objects if o.type == "ARMATURE"]
    return armature


def assert_joints(body, motion, first_frame: int) -> None:
    armature = imported_armature()
    for i in range(len(motion["frames"])):
        joints = support.oracle_joints(body, BETAS, motion["poses"][i], motion["trans"][i])
        assert np.abs(world.heads_at(armature, first_frame + i) - joints).max() < 1e-3, f"frame {i}"


@pytest.mark.parametrize("target", sorted(export.AXES))
def test_fbx_round_trip(body, written, tmp_path, target):
    motion, objects = written
    path = str(tmp_path / "walk é.fbx")
    before = {(o.name, o.data.name) for o in objects}
    export.export_fbx(objects, path, target=target)
    assert {(o.name, o.data.name) for o in objects} == before
    assert [s.name for s in bpy.data.scenes] == ["Scene"]
    world.empty_scene()
    bpy.ops.import_scene.fbx(filepath=path, anim_offset=0.0)
    assert bpy.context.scene.render.fps == 30
    assert_joints(body, motion, 1)
    (mesh,) = [o for o in bpy.data.objects if o.type == "MESH"]
    for i in (0, 17, 29):
        vertices = support.oracle_vertices(body, BETAS, motion["poses"][i], motion["trans"][i])
        assert np.abs(world.vertices_at(mesh, 1 + i) - vertices).max() < 1e-3, f"frame {i}"
    np.testing.assert_allclose(imported_armature().scale, 1, atol=1e-5)


def test_glb_round_trip(body, written, tmp_path):
    motion, objects = written
    path = str(tmp_path / "walk.glb")
    export.export_glb(objects, path)
    world.empty_scene()
    bpy.ops.import_scene.gltf(filepath=path)
    assert_joints(body, motion, 0)


def test_export_leaves_the_figure_untouched(body, written, tmp_path):
    motion, objects = written
    export.export_fbx(objects, str(tmp_path / "a.fbx"))
    joints = support.oracle_joints(body, BETAS, motion["poses"][12], motion["trans"][12])
    assert np.abs(world.heads_at(world.person_object(), 13) - joints).max() < 1e-4
    vertices = support.oracle_vertices(body, BETAS, motion["poses"][12], motion["trans"][12])
    assert np.abs(world.vertices_at(world.body_object(), 13) - vertices).max() < 1e-4
    keys = world.body_object().data.shape_keys.key_blocks
    assert [k.name for k in keys] == ["Basis", *(f"Shape {k}" for k in range(1, 11))]


def test_blend_copy_holds_the_figure(body, written, tmp_path):
    motion, _ = written
    path = str(tmp_path / "copy.blend")
    export.save_blend_copy(path)
    assert bpy.data.filepath == ""
    bpy.ops.wm.open_mainfile(filepath=path)
    assert_joints(body, motion, 1)


def test_nothing_to_export(tmp_path):
    world.empty_scene()
    with pytest.raises(ExportError, match="Nothing to export"):
        export.export_fbx([], str(tmp_path / "a.fbx"))


def test_missing_folder_is_named(written, tmp_path):
    with pytest.raises(ExportError, match="no folder"):
        export.export_fbx(written[1], str(tmp_path / "gone" / "a.fbx"))
    assert [s.name for s in bpy.data.scenes] == ["Scene"]
