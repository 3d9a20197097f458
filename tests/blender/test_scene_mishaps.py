"""What users do while a job streams: delete, undo, load, edit, rename. Nothing may break, nothing may come back."""

from __future__ import annotations

import bpy
import numpy as np
import pytest
import scene_support as support
import scene_world as world

BETAS = np.linspace(-1, 1, 10)


@pytest.fixture
def running(body):
    """A writer in the middle of two people's motion."""
    scene = world.empty_scene()
    writer = world.start_writer(scene, body, {0: BETAS, 1: BETAS})
    motion = support.wild_motion(40)
    for person in (0, 1):
        writer.handle(support.frames_message(person, motion, slice(0, 20)))
    while writer.tick(0.01):
        pass
    return writer, motion


def finish(writer, motion):
    for person in (0, 1):
        writer.handle(support.frames_message(person, motion, slice(20, 40)))
        writer.tick(0.001)
    for person in (0, 1):
        writer.handle(support.frames_message(person, motion, slice(10, 30), revise=True))
    return writer.finish()


def key_count(person: int) -> int:
    from addon import action

    return len(action.read_keys(world.person_object(person), 'pose.bones["pelvis"].location')[0])


def test_deleted_figure_is_not_made_again(running):
    writer, motion = running
    bpy.data.objects.remove(world.person_object(0))
    summary = finish(writer, motion)
    assert "Person 1" not in bpy.data.objects
    assert summary.people == [1] and key_count(1) == 40
    assert summary.dropped_frames > 0


def test_unlinked_figure_is_left_alone(running):
    writer, motion = running
    armature = world.person_object(0)
    for collection in list(armature.users_collection):
        collection.objects.unlink(armature)
    assert finish(writer, motion).people == [1]
    assert key_count(0) == 20


def test_deleted_collection(running):
    writer, motion = running
    collection = bpy.data.collections["a walk Mocap"]
    for obj in list(collection.all_objects):
        bpy.data.objects.remove(obj)
    bpy.data.collections.remove(collection)
    summary = finish(writer, motion)
    assert summary.collection == "" and summary.people == []
    assert not bpy.data.objects


def test_deleted_action_is_written_on_in_a_new_one(running):
    writer, motion = running
    bpy.data.actions.remove(world.person_object(0).animation_data.action)
    summary = finish(writer, motion)
    assert summary.people == [0, 1]
    assert key_count(1) == 40


def test_deleted_bone_ends_that_person_only(running):
    writer, motion = running
    armature = world.person_object(0)
    bpy.context.view_layer.objects.active = armature
    bpy.ops.object.mode_set(mode="EDIT")
    armature.data.edit_bones.remove(armature.data.edit_bones["knee.L"])
    bpy.ops.object.mode_set(mode="OBJECT")
    assert finish(writer, motion).people == [1]


def test_renamed_figure_is_found(running, body):
    writer, motion = running
    world.person_object(0).name = "Hero"
    assert finish(writer, motion).people == [0, 1]
    joints = support.oracle_joints(body, BETAS, motion["poses"][35], motion["trans"][35])
    assert np.abs(world.heads_at(bpy.data.objects["Hero"], 36) - joints).max() < 1e-4


def test_loading_another_file_ends_writing(running):
    writer, motion = running
    world.empty_scene()
    decoy = bpy.data.objects.new("Person 1", None)
    bpy.context.scene.collection.objects.link(decoy)
    summary = finish(writer, motion)
    assert summary.people == [] and summary.collection == ""
    assert [o.name for o in bpy.data.objects] == ["Person 1"]
    assert decoy.animation_data is None


def test_loading_another_file_before_anything_is_built(body):
    writer = world.start_writer(world.empty_scene(), body, {0: BETAS})
    world.empty_scene()
    writer.handle(support.frames_message(0, support.wild_motion(8), slice(0, 8)))
    summary = writer.finish()
    assert not bpy.data.objects and summary.people == []


def test_the_users_edit_mode_stays(body):
    scene = world.empty_scene()
    mesh = bpy.data.meshes.new("Mine")
    mesh.from_pydata([(0, 0, 0), (1, 0, 0), (0, 1, 0)], [], [(0, 1, 2)])
    mine = bpy.data.objects.new("Mine", mesh)
    scene.collection.objects.link(mine)
    bpy.context.view_layer.objects.active = mine
    mine.select_set(True)
    bpy.ops.object.mode_set(mode="EDIT")
    motion = support.wild_motion(8)
    writer = world.start_writer(scene, body, {0: BETAS})
    writer.handle(support.frames_message(0, motion, slice(0, 8)))
    writer.finish()
    assert mine.mode == "EDIT" and bpy.context.view_layer.objects.active == mine
    assert [s.name for s in bpy.data.scenes] == [scene.name]
    bpy.ops.object.mode_set(mode="OBJECT")
    joints = support.oracle_joints(body, BETAS, motion["poses"][7], motion["trans"][7])
    assert np.abs(world.heads_at(world.person_object(), 8) - joints).max() < 1e-4


def test_one_undo_step_takes_the_whole_figure(body):
    scene = world.empty_scene()
    bpy.context.preferences.edit.use_global_undo = True
    bpy.ops.ed.undo_push(message="Before")
    motion = support.wild_motion(16)
    world.write_motion(scene, body, motion, BETAS)
    bpy.ops.ed.undo_push(message="Recover Motion")
    assert "Person 1" in bpy.data.objects
    bpy.ops.ed.undo()
    assert "Person 1" not in bpy.data.objects
    assert not bpy.data.collections and not bpy.context.scene.objects
    bpy.ops.ed.redo()
    joints = support.oracle_joints(body, BETAS, motion["poses"][9], motion["trans"][9])
    assert np.abs(world.heads_at(world.person_object(), 10) - joints).max() < 1e-4


def test_undo_while_streaming_is_no_crash(body):
    scene = world.empty_scene()
    bpy.ops.ed.undo_push(message="Before")
    motion = support.wild_motion(40)
    writer = world.start_writer(scene, body, {0: BETAS, 1: BETAS})
    for person in (0, 1):
        writer.handle(support.frames_message(person, motion, slice(0, 20)))
    writer.tick(1.0)
    bpy.ops.ed.undo_push(message="Something else")
    bpy.ops.ed.undo()
    summary = finish(writer, motion)
    assert summary.people == [] and "Person 1" not in bpy.data.objects
