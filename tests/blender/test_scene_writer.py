"""The writer against float64 forward kinematics and skinning: bone heads and vertices as Blender evaluates them."""

from __future__ import annotations

import bpy
import numpy as np
import pytest
import scene_support as support
import scene_world as world

from addon import action, naming
from core import protocol

TOLERANCE_M = 1e-4
BETAS = np.array([1.2, -0.8, 0.5, 0.0, -1.0, 0.3, 0.9, -0.4, 0.2, 0.6])


@pytest.fixture
def scene():
    return world.empty_scene()


def assert_figure(body, motion, betas, person=0, frames=None, rate=30.0) -> None:
    """Heads and skinned vertices equal the oracle at every (chosen) frame."""
    armature, mesh = world.person_object(person), world.body_object(person)
    for i in range(len(motion["frames"])) if frames is None else frames:
        at = 1 + float(motion["times"][i]) * rate
        pose, trans = motion["poses"][i], motion["trans"][i]
        joints = support.oracle_joints(body, betas, pose, trans)
        assert np.abs(world.heads_at(armature, at) - joints).max() < TOLERANCE_M, f"frame {i}"
        vertices = support.oracle_vertices(body, betas, pose, trans)
        assert np.abs(world.vertices_at(mesh, at) - vertices).max() < TOLERANCE_M, f"frame {i}"


def test_heads_and_vertices_follow_the_motion(scene, body):
    motion = support.wild_motion(60)
    _, summary = world.write_motion(scene, body, motion, BETAS)
    assert_figure(body, motion, BETAS)
    assert (summary.people, summary.frames, summary.dropped_frames) == ([0], 60, 0)
    assert summary.collection == "a walk Mocap"


def test_chunks_in_any_order_and_revised_frames(scene, body):
    motion, rough = support.wild_motion(60), support.wild_motion(60, seed=9)
    writer = world.start_writer(scene, body, {0: BETAS})
    for start in (32, 0, 48, 16):
        writer.handle(support.frames_message(0, rough if start == 16 else motion, slice(start, start + 16)))
        while writer.tick(0.001):
            pass
    writer.handle(support.frames_message(0, motion, slice(10, 40), revise=True))
    writer.finish()
    assert_figure(body, motion, BETAS)
    frames, _ = action.read_keys(world.person_object(), 'pose.bones["knee.L"].rotation_quaternion', 0)
    assert frames.tolist() == list(range(1, 61))


def test_quaternion_signs_never_flip(scene, body):
    motion = support.wild_motion(60)
    writer = world.start_writer(scene, body, {0: BETAS})
    for start in (40, 20, 0):
        writer.handle(support.frames_message(0, motion, slice(start, start + 20)))
        while writer.tick(0.001):
            pass
    writer.finish()
    for name in naming.BONE_NAMES:
        path = f'pose.bones["{name}"].rotation_quaternion'
        q = np.stack([action.read_keys(world.person_object(), path, k)[1] for k in range(4)], axis=1)
        assert (np.sum(q[1:] * q[:-1], axis=1) > 0).all(), name


def test_several_people_interleaved(scene, body):
    motions = {p: support.wild_motion(24, seed=p) for p in (0, 3)}
    shapes = {0: BETAS, 3: -BETAS}
    writer = world.start_writer(scene, body, shapes)
    for start in range(0, 24, 8):
        for person, motion in motions.items():
            writer.handle(support.frames_message(person, motion, slice(start, start + 8)))
        writer.tick(0.0)
    summary = writer.finish()
    assert summary.people == [0, 3]
    for person in motions:
        assert_figure(body, motions[person], shapes[person], person, frames=(0, 11, 23))
    colours = {tuple(world.body_object(p).data.materials[0].diffuse_color) for p in motions}
    assert len(colours) == 2


def test_times_keep_real_time_at_another_rate(body):
    scene = world.empty_scene(fps=24)
    motion = support.wild_motion(40)
    _, summary = world.write_motion(scene, body, motion, BETAS)
    frames, _ = action.read_keys(world.person_object(), 'pose.bones["pelvis"].location', 0)
    np.testing.assert_allclose(frames, 1 + motion["times"] * 24, atol=1e-4)
    assert any("24 frames per second" in text for text in summary.warnings)
    assert_figure(body, motion, BETAS, frames=(0, 13, 39), rate=24.0)


def test_variable_frame_rate(scene, body):
    motion = support.wild_motion(20)
    motion["times"] = np.cumsum(np.r_[0.0, np.tile([0.02, 0.05], 10)[:19]])
    world.write_motion(scene, body, motion, BETAS)
    assert_figure(body, motion, BETAS, frames=(1, 10, 19))


def test_a_second_shape_refits_bones_and_keys(scene, body):
    motion = support.wild_motion(12)
    writer = world.start_writer(scene, body, {0: np.zeros(10)})
    writer.handle(support.frames_message(0, motion, slice(0, 12)))
    while writer.tick(0.01):
        pass
    writer.handle(world.shape_message(0, BETAS))
    writer.finish()
    assert_figure(body, motion, BETAS)


def test_frames_before_body_and_shape_wait(scene, body):
    motion = support.wild_motion(12)
    writer = world.start_writer(scene, body, {})
    writer.handle(support.frames_message(0, motion, slice(0, 12)))
    writer.tick(0.1)
    writer.handle(world.shape_message(0, BETAS))
    writer.finish()
    assert_figure(body, motion, BETAS, frames=(0, 11))


def test_frames_with_bad_numbers_are_left_out(scene, body):
    motion = support.wild_motion(12)
    motion["poses"][5, 7] = np.nan
    motion["trans"][8, 0] = np.inf
    world.write_motion(scene, body, motion, BETAS)
    frames, values = action.read_keys(world.person_object(), 'pose.bones["pelvis"].location', 0)
    assert frames.tolist() == [f for f in range(1, 13) if f not in (6, 9)]
    assert np.isfinite(values).all()


@pytest.mark.parametrize(("before", "after"), [(20, 60), (500, 500)])
def test_the_scene_lasts_as_long_as_the_clip(scene, body, before, after):
    scene.frame_end = before
    world.write_motion(scene, body, support.wild_motion(60), BETAS)
    assert scene.frame_end == after


def test_contacts_and_confidence_are_curves(scene, body):
    motion = support.wild_motion(12)
    world.write_motion(scene, body, motion, BETAS)
    armature = world.person_object()
    np.testing.assert_allclose(action.read_keys(armature, '["confidence"]')[1], motion["confidence"], atol=1e-6)
    for k, name in enumerate(naming.CONTACT_NAMES):
        np.testing.assert_allclose(action.read_keys(armature, f'["{name}"]')[1], motion["contacts"][:, k], atol=1e-6)


def test_current_frame_is_evaluated_without_frame_change(scene, body):
    motion = support.wild_motion(12)
    writer = world.start_writer(scene, body, {0: BETAS})
    while writer.tick(0.01):
        pass
    scene.frame_set(6)
    writer.handle(support.frames_message(0, motion, slice(0, 12)))
    while writer.tick(0.01):
        pass
    armature = world.person_object().evaluated_get(bpy.context.evaluated_depsgraph_get())
    heads = np.array([armature.pose.bones[n].head[:] for n in naming.BONE_NAMES])
    joints = support.oracle_joints(body, BETAS, motion["poses"][5], motion["trans"][5])
    assert np.abs(heads - joints).max() < TOLERANCE_M


def test_provenance_and_result_path(scene, body):
    motion = support.wild_motion(8)
    writer = world.start_writer(scene, body, {0: BETAS})
    writer.handle(support.frames_message(0, motion, slice(0, 8)))
    writer.tick(1.0)
    writer.handle(protocol.Done(cancelled=False, results=["/out/a walk_person0.npz"], summary={}))
    writer.finish()
    armature = world.person_object()
    assert armature["hyper_mocap_video"] == world.VIDEO.path
    assert armature["hyper_mocap_method"] == "fit"
    assert armature["hyper_mocap_version"] == "0.0.1"
    assert armature["hyper_mocap_result"] == "/out/a walk_person0.npz"
    assert bpy.data.collections["a walk Mocap"]["hyper_mocap_video"] == world.VIDEO.path
