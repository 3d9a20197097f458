"""The modes that carry vertices: point cache, corrective shape keys, one shape key a frame."""

from __future__ import annotations

import os
import struct

import bpy
import numpy as np
import pytest
import scene_support as support
import scene_world as world

from addon import action
from addon.scene import export
from core import protocol

BETAS = np.array([1.2, -0.8, 0.5, 0.0, -1.0, 0.3, 0.9, -0.4, 0.2, 0.6])


def with_vertices(body, motion, bulge_m=0.0, components=3) -> dict:
    """Add world vertices: the oracle's skin of a rest pose that bulges in `components` fixed directions."""
    rng = np.random.default_rng(5)
    shapes = rng.normal(0, bulge_m, (components, *body["v_template"].shape))
    weights = rng.uniform(-1, 1, (components, len(motion["frames"])))
    vertices = []
    for i in range(len(motion["frames"])):
        bulged = dict(body, v_template=body["v_template"] + np.tensordot(weights[:, i], shapes, 1))
        vertices.append(support.oracle_vertices(bulged, BETAS, motion["poses"][i], motion["trans"][i]))
    return {**motion, "vertices": np.array(vertices, dtype=np.float32)}


def test_point_cache_plays_the_vertices(body, tmp_path):
    scene = world.empty_scene()
    motion = with_vertices(body, support.wild_motion(20), bulge_m=0.02)
    people = protocol.People(people=[{"person": 0, "first": 0, "last": 19}])
    writer = world.start_writer(scene, body, {}, mode="POINT_CACHE", cache_dir=str(tmp_path))
    writer.handle(people)
    writer.handle(world.shape_message(0, BETAS))
    for rows in (slice(12, 20), slice(0, 6), slice(6, 12)):
        writer.handle(support.frames_message(0, motion, rows))
        writer.tick(0.001)
    summary = writer.finish()
    mesh = world.body_object()
    for i in (0, 7, 19):
        assert np.abs(world.vertices_at(mesh, 1 + i) - motion["vertices"][i]).max() < 1e-6
        joints = support.oracle_joints(body, BETAS, motion["poses"][i], motion["trans"][i])
        assert np.abs(world.heads_at(world.person_object(), 1 + i) - joints).max() < 1e-4
    between = (motion["vertices"][7] + motion["vertices"][8]) / 2
    assert np.abs(world.vertices_at(mesh, 8.5) - between).max() < 1e-5
    assert any("save the file" in text for text in summary.warnings)


def test_point_cache_survives_saving_and_moving(body, tmp_path):
    world.empty_scene()
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    bpy.ops.wm.save_as_mainfile(filepath=str(first / "shot.blend"))
    motion = with_vertices(body, support.wild_motion(8), bulge_m=0.02)
    world.write_motion(bpy.context.scene, body, motion, BETAS, mode="POINT_CACHE")
    bpy.ops.wm.save_mainfile()
    assert world.body_object().modifiers["Point Cache"].filepath.startswith("//")
    os.rename(first, second)
    bpy.ops.wm.open_mainfile(filepath=str(second / "shot.blend"))
    for i in (0, 7):
        assert np.abs(world.vertices_at(world.body_object(), 1 + i) - motion["vertices"][i]).max() < 1e-6


def test_point_cache_file_layout(body, tmp_path):
    motion = with_vertices(body, support.wild_motion(5))
    world.write_motion(world.empty_scene(), body, motion, BETAS, mode="POINT_CACHE", cache_dir=str(tmp_path))
    (path,) = tmp_path.glob("*.pc2")
    data = path.read_bytes()
    count = len(body["v_template"])
    assert data[:12] == b"POINTCACHE2\0"
    assert struct.unpack("<iiffi", data[12:32]) == (1, count, 0.0, 1.0, 5)
    assert len(data) == 32 + 5 * count * 12
    np.testing.assert_array_equal(np.frombuffer(data[32:], "<f4").reshape(5, count, 3), motion["vertices"])


def test_point_cache_fills_gaps_and_skins_without_vertices(body, tmp_path):
    scene = world.empty_scene()
    motion = support.wild_motion(12)
    writer = world.start_writer(scene, body, {0: BETAS}, mode="POINT_CACHE", cache_dir=str(tmp_path))
    rows = [0, 1, 2, 3, 8, 9, 10, 11]
    writer.handle(support.frames_message(0, motion, rows))
    writer.finish()
    mesh = world.body_object()
    expected = {i: support.oracle_vertices(body, BETAS, motion["poses"][i], motion["trans"][i]) for i in rows}
    for i in rows:
        assert np.abs(world.vertices_at(mesh, 1 + i) - expected[i]).max() < 1e-4
    assert np.abs(world.vertices_at(mesh, 1 + 5) - (0.6 * expected[3] + 0.4 * expected[8])).max() < 1e-4


def test_point_cache_takes_frames_before_the_announced_first(body, tmp_path):
    motion = with_vertices(body, support.wild_motion(9))
    writer = world.start_writer(world.empty_scene(), body, {}, mode="POINT_CACHE", cache_dir=str(tmp_path))
    writer.handle(protocol.People(people=[{"person": 0, "first": 6, "last": 8}]))
    writer.handle(world.shape_message(0, BETAS))
    writer.handle(support.frames_message(0, motion, slice(6, 9)))
    writer.tick(1.0)
    writer.handle(support.frames_message(0, motion, slice(2, 6)))
    writer.finish()
    for i in (2, 5, 6, 8):
        assert np.abs(world.vertices_at(world.body_object(), 1 + i) - motion["vertices"][i]).max() < 1e-6


def test_point_cache_figure_exports_its_bones(body, tmp_path):
    motion = with_vertices(body, support.wild_motion(6), bulge_m=0.02)
    world.write_motion(world.empty_scene(), body, motion, BETAS, mode="POINT_CACHE", cache_dir=str(tmp_path))
    path = str(tmp_path / "a.fbx")
    export.export_fbx(export.figures_of(bpy.data.collections["a walk Mocap"]), path)
    assert world.body_object().modifiers["Point Cache"].show_viewport
    assert not world.body_object().modifiers["Armature"].show_viewport
    world.empty_scene()
    bpy.ops.import_scene.fbx(filepath=path, anim_offset=0.0)
    (mesh,) = [o for o in bpy.data.objects if o.type == "MESH"]
    for i in (0, 5):
        expected = support.oracle_vertices(body, BETAS, motion["poses"][i], motion["trans"][i])
        assert np.abs(world.vertices_at(mesh, 1 + i) - expected).max() < 1e-3


def test_correctives_recover_what_skinning_misses(body, tmp_path):
    motion = with_vertices(body, support.wild_motion(40), bulge_m=0.02, components=3)
    _, summary = world.write_motion(
        world.empty_scene(), body, motion, BETAS, mode="CORRECTIVES", cache_dir=str(tmp_path)
    )
    assert summary.warnings == []
    mesh = world.body_object()
    names = [k.name for k in mesh.data.shape_keys.key_blocks]
    assert names[11:] == ["Corrective 1", "Corrective 2", "Corrective 3"]
    for i in (0, 13, 39):
        assert np.abs(world.vertices_at(mesh, 1 + i) - motion["vertices"][i]).max() < 5e-4
    before, after = mesh["hyper_mocap_corrective_rms_mm"]
    assert before > 10 and after < 0.2
    assert list(tmp_path.iterdir()) == []


def test_correctives_stay_within_sixteen(body, tmp_path):
    motion = with_vertices(body, support.wild_motion(40), bulge_m=0.01, components=25)
    world.write_motion(world.empty_scene(), body, motion, BETAS, mode="CORRECTIVES", cache_dir=str(tmp_path))
    mesh = world.body_object()
    assert sum(k.name.startswith("Corrective") for k in mesh.data.shape_keys.key_blocks) == 16
    before, after = mesh["hyper_mocap_corrective_rms_mm"]
    assert after < 0.6 * before


def test_exact_vertices_need_no_correctives(body, tmp_path):
    motion = with_vertices(body, support.wild_motion(10))
    world.write_motion(world.empty_scene(), body, motion, BETAS, mode="CORRECTIVES", cache_dir=str(tmp_path))
    assert len(world.body_object().data.shape_keys.key_blocks) == 11


def test_correctives_without_vertices_warn(body):
    _, summary = world.write_motion(world.empty_scene(), body, support.wild_motion(6), BETAS, mode="CORRECTIVES")
    assert any("no vertices" in text for text in summary.warnings)


@pytest.mark.parametrize("kind", ["fbx", "glb"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_corrective_keys_keep_their_motion(body, tmp_path, kind):
    motion = with_vertices(body, support.wild_motion(20), bulge_m=0.02, components=2)
    world.write_motion(world.empty_scene(), body, motion, BETAS, mode="CORRECTIVES", cache_dir=str(tmp_path))
    path = str(tmp_path / f"a.{kind}")
    figures = export.figures_of(bpy.data.collections["a walk Mocap"])
    (export.export_fbx if kind == "fbx" else export.export_glb)(figures, path)
    mesh = world.body_object()
    assert len(action.curves_of(mesh.data.shape_keys)) == 2
    world.empty_scene()
    if kind == "fbx":
        bpy.ops.import_scene.fbx(filepath=path, anim_offset=0.0)
    else:
        bpy.ops.import_scene.gltf(filepath=path, merge_vertices=False)
    (mesh,) = [o for o in bpy.data.objects if o.type == "MESH" and o.data.shape_keys]
    for key in mesh.data.shape_keys.key_blocks:
        key.slider_min = -1.0  # Blender's glTF importer sets 0, whatever the file's values are
    for i in (0, 9, 19):
        found = world.vertices_at(mesh, (1 if kind == "fbx" else 0) + i)
        distance = np.linalg.norm(motion["vertices"][i][:, None] - found, axis=-1).min(axis=1)
        assert distance.max() < 1e-3


def test_shape_key_per_frame_plays_and_exports(body, tmp_path):
    motion = with_vertices(body, support.wild_motion(12), bulge_m=0.02)
    writer = world.start_writer(world.empty_scene(), body, {0: BETAS}, mode="SHAPE_KEYS", shape_key_limit=10)
    for rows in (slice(8, 12), slice(0, 3), slice(3, 8)):
        writer.handle(support.frames_message(0, motion, rows))
        writer.tick(0.001)
    summary = writer.finish()
    assert any("More than 10 shape keys" in text for text in summary.warnings)
    mesh = world.person_object()
    assert mesh.type == "MESH" and not [o for o in bpy.data.objects if o.type == "ARMATURE"]
    for i in range(12):
        assert np.abs(world.vertices_at(mesh, 1 + i) - motion["vertices"][i]).max() < 1e-5
    between = (motion["vertices"][4] + motion["vertices"][5]) / 2
    assert np.abs(world.vertices_at(mesh, 5.5) - between).max() < 1e-5
    assert {len(c.keyframe_points) for c in action.curves_of(mesh.data.shape_keys)} == {2, 3}
    path = str(tmp_path / "keys.fbx")
    export.export_fbx([mesh], path)
    world.empty_scene()
    bpy.ops.import_scene.fbx(filepath=path, anim_offset=0.0)
    (mesh,) = [o for o in bpy.data.objects if o.type == "MESH"]
    for i in (0, 6, 11):
        assert np.abs(world.vertices_at(mesh, 1 + i) - motion["vertices"][i]).max() < 1e-3


def test_revised_vertices_replace(body, tmp_path):
    rough = with_vertices(body, support.wild_motion(8, seed=4))
    motion = with_vertices(body, support.wild_motion(8))
    for mode, name in (("SHAPE_KEYS", "Person 1"), ("POINT_CACHE", "Person 1 Body")):
        scene = world.empty_scene()
        writer = world.start_writer(scene, body, {0: BETAS}, mode=mode, cache_dir=str(tmp_path))
        writer.handle(support.frames_message(0, rough, slice(0, 8)))
        writer.tick(1.0)
        writer.handle(support.frames_message(0, motion, slice(0, 8), revise=True))
        writer.finish()
        assert np.abs(world.vertices_at(bpy.data.objects[name], 4) - motion["vertices"][3]).max() < 1e-5
