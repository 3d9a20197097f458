"""Bones fitted to the shape: figures that carry vertices or were changed by hand are refused and left as they are."""

from __future__ import annotations

import bpy
import pytest
import scene_support as support
import scene_world as world
from refit_support import BETAS, OTHER, build, lose_joints, slide, state_of
from test_scene_vertices import with_vertices

from addon.errors import RefitError
from addon.scene import refit

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.mark.parametrize(
    "mode, why",
    [("CORRECTIVES", "corrective shape keys"), ("SHAPE_KEYS", "no bones"), ("POINT_CACHE", "point cache")],
)
def test_figures_that_carry_vertices_are_left_alone(body, tmp_path, mode, why):
    motion = with_vertices(body, support.wild_motion(16), bulge_m=0.02)
    world.write_motion(world.empty_scene(), body, motion, BETAS, mode=mode, cache_dir=str(tmp_path))
    figure = world.person_object()
    if mode != "SHAPE_KEYS":
        slide(OTHER)
    before = state_of(figure)
    with pytest.raises(RefitError, match=f"Person 1 .*{why}"):
        refit.fit_bones(figure)
    assert state_of(figure) == before


def take_bone(figure):
    bpy.context.view_layer.objects.active = figure
    bpy.ops.object.mode_set(mode="EDIT")
    figure.data.edit_bones.remove(figure.data.edit_bones["hand.L"])
    bpy.ops.object.mode_set(mode="OBJECT")


def apply_scale(figure):
    figure.select_set(True)
    bpy.context.view_layer.objects.active = figure
    figure.scale = (2, 2, 2)
    bpy.ops.object.transform_apply(location=False, rotation=False)


def lend_action(figure):
    other = bpy.data.objects.new("Clone", figure.data.copy())
    other.animation_data_create().action = figure.animation_data.action
    if hasattr(other.animation_data, "action_slot"):
        other.animation_data.action_slot = figure.animation_data.action_slot


def lose_keys(figure):
    world.body_object().shape_key_clear()


def lend_bones(figure):
    bpy.data.objects.new("Clone", figure.data)


@pytest.mark.parametrize(
    "harm, why",
    [
        (take_bone, "lacks the bone hand.L"),
        (apply_scale, "another rest pose"),
        (lend_action, "shares its action with Clone"),
        (lend_bones, "shares its bones"),
        (lose_keys, "no body with shape keys"),
        (lose_joints, "does not know its joints"),
    ],
)
def test_what_was_changed_by_hand_is_refused(tmp_path, harm, why):
    world.empty_scene()
    figure = build(tmp_path, support.wild_motion(16))
    slide(OTHER)
    harm(figure)
    before = state_of(figure)
    with pytest.raises(RefitError, match=why):
        refit.fit_bones(figure)
    assert state_of(figure) == before
