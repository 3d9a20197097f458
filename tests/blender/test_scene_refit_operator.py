"""The operator that fits bones to the shape: whom it fits, modes, undo, what it says."""

from __future__ import annotations

import bpy
import pytest
import scene_support as support
import scene_world as world
from refit_support import BETAS, OTHER, assert_skinned, build, lose_joints, slide, standing, state_of

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


# The operator


def test_the_selected_figure_is_fitted_from_its_mesh_and_the_others_stay(addon, body, tmp_path, capsys):
    motion = support.wild_motion(16)
    build(tmp_path, motion, people=3)
    world.body_object(1).select_set(True)
    for person in range(3):
        slide(OTHER, person)
    before = [state_of(world.person_object(person)) for person in range(3)]
    assert bpy.ops.hyper_mocap.fit_bones() == {"FINISHED"}
    assert_skinned(body, motion, BETAS, OTHER, person=1)
    assert [state_of(world.person_object(p)) == before[p] for p in range(3)] == [True, False, True]
    height, new_height = standing(body, BETAS)[1], standing(body, OTHER)[1]
    word = "raised" if new_height > height else "lowered"
    told = capsys.readouterr().out
    assert "Fitted the bones of Person 2: " in told and "m tall instead of" in told
    assert f"pelvis {word} by {1e3 * abs(new_height - height):.0f} mm" in told


def test_all_are_fitted_where_none_is_selected_and_none_twice(addon, body, tmp_path, capsys):
    motion = support.wild_motion(16)
    build(tmp_path, motion, people=2)
    shapes = (OTHER, OTHER - 0.7)
    for person, betas in enumerate(shapes):
        slide(betas, person)
    assert bpy.ops.hyper_mocap.fit_bones() == {"FINISHED"}
    for person, betas in enumerate(shapes):
        assert_skinned(body, motion, BETAS, betas, person=person)
    assert bpy.ops.hyper_mocap.fit_bones() == {"CANCELLED"}
    assert "The bones fit the shape already" in capsys.readouterr().out


def test_pose_mode_stays(addon, body, tmp_path):
    motion = support.wild_motion(16)
    figure = build(tmp_path, motion)
    figure.select_set(True)
    bpy.context.view_layer.objects.active = figure
    bpy.ops.object.mode_set(mode="POSE")
    slide(OTHER)
    assert bpy.ops.hyper_mocap.fit_bones() == {"FINISHED"}
    assert (bpy.context.mode, figure.mode, len(bpy.data.scenes)) == ("POSE", "POSE", 1)
    assert_skinned(body, motion, BETAS, OTHER)
    bpy.ops.object.mode_set(mode="OBJECT")


def test_a_hidden_armature_is_fitted_too(addon, body, tmp_path):
    motion = support.wild_motion(16)
    figure = build(tmp_path, motion)
    figure.hide_viewport = True
    world.body_object().select_set(True)
    slide(OTHER)
    assert bpy.ops.hyper_mocap.fit_bones() == {"FINISHED"}
    assert figure.hide_viewport
    figure.hide_viewport = False
    assert_skinned(body, motion, BETAS, OTHER)


def test_one_undo_gives_bones_and_keys_back(addon, body, tmp_path):
    motion = support.wild_motion(16)
    build(tmp_path, motion)
    slide(OTHER)
    bpy.context.preferences.edit.use_global_undo = True
    before = state_of(world.person_object())
    bpy.ops.ed.undo_push(message="Before")
    bpy.ops.hyper_mocap.fit_bones("EXEC_DEFAULT", True)  # pushes a step as its button does
    assert state_of(world.person_object()) != before
    bpy.ops.ed.undo()
    assert state_of(world.person_object()) == before
    bpy.ops.ed.redo()
    assert_skinned(body, motion, BETAS, OTHER)


def test_who_cannot_be_fitted_is_named_and_the_others_are(addon, body, tmp_path, capsys):
    motion = support.wild_motion(16)
    build(tmp_path, motion, people=2)
    slide(OTHER, 1)
    lose_joints(world.person_object())
    assert bpy.ops.hyper_mocap.fit_bones() == {"FINISHED"}
    assert "Warning: Person 1 does not know its joints" in capsys.readouterr().out
    assert_skinned(body, motion, BETAS, OTHER, person=1)
    world.body_object(0).select_set(True)
    with pytest.raises(RuntimeError, match="Person 1 does not know its joints"):
        bpy.ops.hyper_mocap.fit_bones()


def test_it_is_refused_without_a_figure_and_in_edit_mode(addon, tmp_path):
    fit = bpy.ops.hyper_mocap.fit_bones
    with pytest.raises(RuntimeError, match="There is no figure"):
        fit()
    build(tmp_path, support.wild_motion(4))
    assert fit.poll()
    bpy.context.view_layer.objects.active = world.body_object()
    bpy.ops.object.mode_set(mode="EDIT")
    with pytest.raises(RuntimeError, match="Leave edit mode first"):
        fit()
    bpy.ops.object.mode_set(mode="OBJECT")
