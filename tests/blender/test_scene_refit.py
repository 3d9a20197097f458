"""Bones fitted to the shape that the sliders show: linear blend skinning of the new shape, on the floor it stood on.

The oracles are numpy's, of the shipped body's file and of a body of boxes whose pelvis moves with the shape.
"""

from __future__ import annotations

import os

import bpy
import numpy as np
import pytest
import scene_support as support
import scene_world as world
from test_scene_result import write_file
from test_scene_vertices import with_vertices

from addon import naming
from addon.errors import RefitError
from addon.scene import armature as rig
from addon.scene import export, refit, smoothing, stature
from addon.scene.bodydata import BodyData
from addon.scene.result import load_results

BODY_FILE = os.path.join(os.path.dirname(__file__), "..", "..", "weights", "body_neutral.npz")
BETAS = np.array([1.2, -0.8, 0.5, 0.0, -1.0, 0.3, 0.9, -0.4, 0.2, 0.6])
OTHER = np.array([-0.5, 1.0, 0.5, 2.0, 0.3, 0.3, -1.1, -0.4, 1.2, -2.6])
"""Another shape of the boxes."""
SOME = (0, 7, 15)
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def body():
    return support.synthetic_body()


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


def slide(betas: np.ndarray, person: int = 0) -> None:
    """Drag the sliders."""
    keys = world.body_object(person).data.shape_keys.key_blocks
    for name, value in zip(naming.SHAPE_KEYS, betas):
        if name in keys:
            keys[name].value = value


def standing(body, betas) -> tuple[np.ndarray, float]:
    """(rest pelvis [3], its height over the soles) of a shape."""
    vertices, joints = support.oracle_rest(body, betas)
    return joints[0], joints[0, 1] - vertices[:, 1].min()


def moved(body, before, after, trans) -> np.ndarray:
    """Places [3] with which the oracle's pelvis stays above the same point, as much higher as the legs are longer."""
    (pelvis, height), (new_pelvis, new_height) = standing(body, before), standing(body, after)
    return np.asarray(trans, dtype=np.float64) + pelvis - new_pelvis + [0, 0, new_height - height]


def assert_skinned(body, motion, before, after, factor=1.0, rows=SOME, person=0, tolerance=1e-4) -> None:
    """Mesh and bones are the oracle's of shape `after`, times a factor, having stood with shape `before`."""
    for i in rows:
        pose, trans = motion["poses"][i], moved(body, before, after, motion["trans"][i])
        vertices = support.oracle_vertices(body, after, pose, trans)
        joints = support.oracle_joints(body, after, pose, trans)
        assert np.abs(world.vertices_at(world.body_object(person), 1 + i) - factor * vertices).max() < tolerance
        assert np.abs(world.heads_at(world.person_object(person), 1 + i) - factor * joints).max() < tolerance


def build(tmp_path, motion, people=1, betas=BETAS, file=None) -> bpy.types.Object:
    """Figures from result files in an empty scene, nothing selected; returns the first."""
    data = BodyData.from_file(file) if file else BodyData.from_message(support.body_message(support.synthetic_body()))
    paths = [write_file(tmp_path / f"clip_person{p}.npz", motion, betas=betas) for p in range(people)]
    bpy.context.scene.render.fps = 30
    load_results(bpy.context.scene, paths, data)
    for obj in bpy.context.view_layer.objects:
        obj.select_set(False)
    bpy.context.view_layer.objects.active = None
    return world.person_object()


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


def state_of(figure) -> tuple:
    """What must stay: bones, pose, mesh, stored numbers."""
    mesh = figure if figure.type == "MESH" else figure.children[0]
    bones = [] if figure.type == "MESH" else [np.array(bone.matrix_local).tolist() for bone in figure.data.bones]
    stored = {key: value for key, value in figure.items() if key.startswith("hyper_mocap")}
    numbers = {key: list(value) if hasattr(value, "__len__") else value for key, value in stored.items()}
    return bones, numbers, [world.vertices_at(mesh, 1 + i).tolist() for i in SOME]


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


def lose_joints(figure):
    del figure[rig.TEMPLATE]


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
