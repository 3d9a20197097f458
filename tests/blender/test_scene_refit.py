"""Bones fitted to the shape that the sliders show: linear blend skinning of the new shape, on the floor it stood on.

The oracles are numpy's, of the shipped body's file and of a body of boxes whose pelvis moves with the shape.
"""

from __future__ import annotations

import bpy
import numpy as np
import pytest
import scene_support as support
import scene_world as world
from refit_support import BETAS, BODY_FILE, OTHER, assert_skinned, build, slide

from addon import naming
from addon.scene import armature as rig
from addon.scene import export, refit, smoothing, stature

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def shipped():
    """The shipped body as the oracles take it; its weights have four influences at most."""
    with np.load(BODY_FILE) as file:
        arrays = {
            name: file[name].astype(np.float64) for name in ("v_template", "shapedirs", "J_regressor", "weights")
        }
    strongest = np.argsort(-arrays["weights"], axis=1)[:, :4]
    return {
        "v_template": arrays["v_template"],
        "shapedirs": arrays["shapedirs"],
        "joints": arrays["J_regressor"] @ arrays["v_template"],
        "joint_shapedirs": np.einsum("jv,vcs->jcs", arrays["J_regressor"], arrays["shapedirs"]),
        "weight_joints": strongest,
        "weight_values": np.take_along_axis(arrays["weights"], strongest, axis=1),
    }


def test_the_shipped_body_bends_where_its_bones_are(shipped, tmp_path):
    motion = support.wild_motion(16)
    before = np.array([*BETAS, 0.4, 0.0, -0.3, 0.0, 0.2, 0.0])
    after = before.copy()
    after[naming.SHAPE_KEYS.index("Forearm Length")], after[naming.SHAPE_KEYS.index("Shin Length")] = 3.0, -3.0
    world.empty_scene()
    figure = build(tmp_path, motion, betas=before, file=BODY_FILE)
    axes = rig.rest_axes(figure)
    assert_skinned(shipped, motion, before, before)
    slide(after)
    done = refit.fit_bones(figure)
    assert_skinned(shipped, motion, before, after)
    np.testing.assert_allclose(rig.rest_axes(figure), axes, atol=5e-5)
    figure.data.pose_position = "REST"
    rest, joints = (blender_axes(part) for part in support.oracle_rest(shipped, after))
    assert np.abs(world.vertices_at(world.body_object(), 5) - rest).max() < 1e-5, "undeformed at rest"
    assert np.abs(world.heads_at(figure, 5) - joints).max() < 1e-5
    was = blender_axes(support.oracle_rest(shipped, before)[0])
    assert done.heights_m == pytest.approx((np.ptp(was[:, 2]), np.ptp(rest[:, 2])), rel=1e-5)
    assert done.raised_m == pytest.approx(rest[:, 2].min() * -1 + was[:, 2].min(), abs=1e-4)
    assert done.raised_m < -0.03 and stature.height_of(figure) == pytest.approx(done.heights_m[1])
    elbow, wrist = (figure.data.bones[name] for name in ("elbow.L", "wrist.L"))
    assert (elbow.tail_local - wrist.head_local).length < 0.01, "the bone ends at the wrist"
    assert elbow.length == pytest.approx(np.linalg.norm(joints[20] - joints[18]), rel=1e-3)
    assert refit.fit_bones(figure) is None


def blender_axes(points: np.ndarray) -> np.ndarray:
    """y up, facing +z -> z up, facing -y."""
    return np.stack([points[:, 0], -points[:, 2], points[:, 1]], axis=1)


def test_the_way_back_is_the_way_there(body, tmp_path):
    motion = support.wild_motion(16)
    world.empty_scene()
    figure = build(tmp_path, motion)
    axes, height = rig.rest_axes(figure), stature.height_of(figure)
    ends = np.array([bone.tail_local for bone in figure.data.bones])
    slide(OTHER)
    refit.fit_bones(figure)
    assert_skinned(body, motion, BETAS, OTHER)
    slide(BETAS)
    refit.fit_bones(figure)
    assert_skinned(body, motion, BETAS, BETAS)
    assert stature.height_of(figure) == pytest.approx(height, rel=1e-5)
    np.testing.assert_allclose(rig.rest_axes(figure), axes, atol=5e-5)
    np.testing.assert_allclose([bone.tail_local for bone in figure.data.bones], ends, atol=1e-5)


def test_every_motion_and_every_later_change_knows_the_new_bones(body, tmp_path):
    """Smoothed and raw, height before and after, smoothing anew, another shape."""
    motion = support.wild_motion(16)
    world.empty_scene()
    figure = build(tmp_path, motion)
    still = smoothing.Smoothing(seconds=0.0)
    smoothing.smooth_figure(figure, still)
    stature.scale_figure(figure, 1.1)
    slide(OTHER)
    done = refit.fit_bones(figure)
    assert_skinned(body, motion, BETAS, OTHER, 1.1)
    rests = [support.oracle_rest(body, betas)[0][:, 1] for betas in (BETAS, OTHER)]
    assert done.heights_m == pytest.approx([1.1 * np.ptp(rest) for rest in rests], rel=1e-5)
    smoothing.show_smoothed(figure, False)
    assert_skinned(body, motion, BETAS, OTHER, 1.1)
    stature.scale_figure(figure, 0.9)
    assert_skinned(body, motion, BETAS, OTHER, 0.99)
    smoothing.smooth_figure(figure, still)
    assert_skinned(body, motion, BETAS, OTHER, 0.99)
    slide(OTHER + 0.5)
    refit.fit_bones(figure)
    smoothing.smooth_figure(figure, still)
    assert_skinned(body, motion, BETAS, OTHER + 0.5, 0.99)


def test_fbx_has_the_new_shape(body, tmp_path):
    motion = support.wild_motion(16)
    world.empty_scene()
    figure = build(tmp_path, motion)
    slide(OTHER)
    refit.fit_bones(figure)
    path = str(tmp_path / "shaped.fbx")
    export.export_fbx([figure, world.body_object()], path)
    world.empty_scene()
    bpy.ops.import_scene.fbx(filepath=path, anim_offset=0.0)
    assert_skinned(body, motion, BETAS, OTHER, tolerance=1e-3)


def test_bones_of_the_users_own_go_along_and_connected_ones_do_not_turn(body, tmp_path):
    motion = support.wild_motion(16)
    world.empty_scene()
    figure = build(tmp_path, motion)
    bpy.context.view_layer.objects.active = figure
    bpy.ops.object.mode_set(mode="EDIT")
    bones = figure.data.edit_bones
    sword = bones.new("sword")
    sword.head, sword.tail, sword.parent = bones["wrist.L"].head, (1.2, 0, 1.7), bones["wrist.L"]
    loose = bones.new("loose")
    loose.head, loose.tail = (1, 1, 0), (1, 1, 1)
    for name in ("knee.L", "ankle.L", "elbow.R"):
        bones[name].use_connect = True
    bpy.ops.object.mode_set(mode="OBJECT")
    figure.data.use_mirror_x = True
    before = {bone.name: np.array(bone.matrix_local) for bone in figure.data.bones}
    slide(OTHER)
    refit.fit_bones(figure)
    assert_skinned(body, motion, BETAS, OTHER)
    after = {bone.name: np.array(bone.matrix_local) for bone in figure.data.bones}
    for name, matrix in before.items():
        np.testing.assert_allclose(after[name][:3, :3], matrix[:3, :3], atol=5e-5, err_msg=name)
    step = after["wrist.L"][:3, 3] - before["wrist.L"][:3, 3]
    np.testing.assert_allclose(after["sword"][:3, 3] - before["sword"][:3, 3], step, atol=1e-6)
    np.testing.assert_allclose(after["loose"], before["loose"], atol=1e-6)
    assert np.linalg.norm(step) > 0.01 and figure.data.use_mirror_x


def test_a_motion_in_a_strip_goes_along_and_an_additive_one_does_not(body, tmp_path):
    motion = support.wild_motion(16)
    world.empty_scene()
    figure = build(tmp_path, motion)
    data = figure.animation_data
    base = data.action
    added = base.copy()
    data.action = None
    strip = data.nla_tracks.new().strips.new("Motion", 1, base)
    over = data.nla_tracks.new().strips.new("More", 1, added)
    over.blend_type, over.mute = "ADD", True
    if hasattr(base, "slots"):
        strip.action_slot, over.action_slot = base.slots[0], added.slots[0]
    kept = keyed_places(added)
    slide(OTHER)
    refit.fit_bones(figure)
    assert_skinned(body, motion, BETAS, OTHER)
    np.testing.assert_array_equal(keyed_places(added), kept)


def keyed_places(action: bpy.types.Action) -> np.ndarray:
    """The root's location keys."""
    from addon.action import curves_in

    curves = [curve for curve in curves_in(action) if curve.data_path == 'pose.bones["pelvis"].location']
    return np.array([[point.co[1] for point in curve.keyframe_points] for curve in curves])


def test_a_muted_slider_counts_as_nothing(body, tmp_path):
    motion = support.wild_motion(16)
    world.empty_scene()
    figure = build(tmp_path, motion)
    world.body_object().data.shape_keys.key_blocks["Shape 1"].mute = True
    refit.fit_bones(figure)
    assert_skinned(body, motion, BETAS, np.array([0.0, *BETAS[1:]]))


def test_a_copy_leaves_the_actions_of_the_first_alone(body, tmp_path):
    motion = support.wild_motion(16)
    world.empty_scene()
    figure = build(tmp_path, motion)
    smoothing.smooth_figure(figure, smoothing.Smoothing(seconds=0.0))
    for obj in (figure, world.body_object()):
        obj.select_set(True)
    bpy.ops.object.duplicate()
    copy = bpy.data.objects["Person 1.001"]
    copy.children[0].data.shape_keys.key_blocks["Shape 1"].value = -4.0
    refit.fit_bones(copy)
    assert np.abs(world.heads_at(copy, 5) - world.heads_at(figure, 5)).max() > 0.05
    assert_skinned(body, motion, BETAS, BETAS)
