"""What happens to a figure that is only half built: it is whole in the end, or leaves nothing behind."""

from __future__ import annotations

import bpy
import numpy as np
import pytest
import scene_support as support
import scene_world as world

BETAS = np.linspace(-1, 1, 10)
STAGES = ("uv", "armature", "weights", "shape key", "link")


@pytest.fixture(params=STAGES)
def half_built(request, body):
    """(writer, motion): the piece named by the parameter comes next."""
    writer = world.start_writer(world.empty_scene(), body, {0: BETAS})
    motion = support.wild_motion(10)
    writer.handle(support.frames_message(0, motion, slice(0, 10)))
    while writer._next_piece().kind != request.param:
        writer.tick(0.0)
    assert not bpy.context.scene.objects
    return writer, motion


def assert_one_whole_figure(body, motion, betas=BETAS) -> None:
    counts = [len(blocks) for blocks in (bpy.data.objects, bpy.data.meshes, bpy.data.armatures, bpy.data.materials)]
    assert counts == [2, 1, 1, 1]
    assert len(world.body_object().vertex_groups) == 24 and len(world.body_object().data.shape_keys.key_blocks) == 11
    for i in (0, 9):
        expected = support.oracle_vertices(body, betas, motion["poses"][i], motion["trans"][i])
        assert np.abs(world.vertices_at(world.body_object(), 1 + i) - expected).max() < 1e-4


def test_it_appears_when_it_is_whole(half_built, body):
    writer, motion = half_built
    writer.finish()
    assert_one_whole_figure(body, motion)


def test_undo_begins_again(half_built, body):
    writer, motion = half_built
    writer.restore()
    writer.finish()
    assert_one_whole_figure(body, motion)


def test_a_part_that_was_purged_is_made_again(half_built, body):
    writer, motion = half_built
    bpy.data.objects.remove(bpy.data.objects["Person 1 Body"])
    bpy.data.orphans_purge(do_recursive=True)
    writer.finish()
    assert_one_whole_figure(body, motion)


def test_another_shape_meanwhile(half_built, body):
    writer, motion = half_built
    writer.handle(world.shape_message(0, -BETAS))
    writer.finish()
    assert_one_whole_figure(body, motion, -BETAS)


def test_deleting_the_collection_leaves_nothing(half_built):
    writer, _ = half_built
    bpy.data.collections.remove(bpy.data.collections["a walk Mocap"])
    assert writer.finish().people == []
    assert not bpy.data.objects and not bpy.data.meshes and not bpy.data.armatures and not bpy.data.materials


def test_loading_another_file_leaves_nothing(half_built):
    writer, _ = half_built
    world.empty_scene()
    assert writer.finish().people == []
    assert not bpy.data.objects and not bpy.data.meshes


def test_removing_the_job_s_scene_leaves_nothing(half_built):
    writer, _ = half_built
    job_scene = bpy.context.scene
    bpy.data.scenes.new("Mine")
    bpy.data.scenes.remove(job_scene)
    assert writer.finish().people == []
    assert not bpy.data.objects and not bpy.data.meshes and not bpy.data.armatures
