"""Fits the bones of a finished figure to the shape that its sliders show: elbows then bend where the mesh has them.

The rest joints of the shape follow from what the armature stores. Bones keep their rest directions and rolls, so the
keyed rotations mean what they meant, and the posed mesh is linear blend skinning of the new shape with them.

The feet stay on the floor: the pelvis rises or sinks by the change of the height, at rest, from the soles to the
pelvis. That is one constant offset for all frames, added to the location keys of the root bone in every action of the
figure. So feet stay exactly where legs are straight, nearly where they are bent, and planted feet may stand farther
apart or closer together than before. Where the pelvis is seen from above stays.

Shape: betas [S], the values of the shape keys naming.SHAPE_KEYS. Metres, in the size that the figure has now.
"""

from __future__ import annotations

from dataclasses import dataclass

import bpy
import numpy as np

from .. import naming
from ..action import HAS_SLOTS, curves_in, curves_of, shift_curve
from ..convert import rest_to_blender
from ..errors import RefitError
from . import armature as rig
from .lookup import TOKEN
from .person import HEIGHT, SHIFT
from .sinks import CACHE_MODIFIER
from .smoothing import motions_of

SAME = 1e-5
"""Sliders closer than this to what the bones were fitted to are where they were."""
HEAD_LIMIT = 0.01
"""Rest bones farther than this share of the figure's height from the stored joints were moved by somebody."""


@dataclass(frozen=True)
class Refit:
    """What fitting changed, in metres of the world."""

    moved_m: float
    """How far the joint that moved most at rest has moved."""
    raised_m: float
    """How much higher the pelvis is; negative where it sank."""
    heights_m: tuple[float, float]
    """Stature before and after; zeros where it is not known."""


def fit_bones(figure: bpy.types.Object) -> Refit | None:
    """Fit a figure's bones to the shape that its sliders show now; None, and nothing changed, where they fit already.

    RefitError, and nothing changed, where bones cannot be fitted; the text says why.
    """
    mesh = _mesh_to_fit(figure)
    before = np.array(figure[rig.BETAS])
    after = shown_betas(mesh, before)
    if np.array_equal(before, after):
        return None
    joints, new_joints = rig.stored_joints(figure, before), rig.stored_joints(figure, after)
    heights, new_heights = _rest_heights(mesh, before), _rest_heights(mesh, after)
    _check_rest(figure, joints, float(np.ptp(heights)))
    actions = _own_motions(figure)
    raised = (new_joints[0, 1] - new_heights.min()) - (joints[0, 1] - heights.min())
    growth = float(np.ptp(new_heights) / np.ptp(heights))
    rig.move_bones(figure, new_joints)
    _shift_root(figure, actions, joints[0] - new_joints[0], raised)
    figure[rig.BETAS] = [float(x) for x in after]
    height = float(figure.get(HEIGHT, 0.0))
    figure[HEIGHT] = height * growth
    figure.update_tag(refresh={"OBJECT", "DATA", "TIME"})
    size = abs(figure.matrix_world.to_scale().z)
    moved = float(np.linalg.norm(new_joints - joints, axis=1).max())
    return Refit(size * moved, size * float(raised), (size * height, size * height * growth))


def shown_betas(mesh: bpy.types.Object, stored: np.ndarray) -> np.ndarray:
    """Betas [S] that a body's sliders show; `stored` [S] where they still show that, or where there is no slider."""
    betas = stored.copy()
    for k, name in enumerate(naming.SHAPE_KEYS[: len(stored)]):
        key = mesh.data.shape_keys.key_blocks.get(name)
        value = betas[k] if key is None else 0.0 if key.mute else key.value
        if abs(value - betas[k]) > SAME:
            betas[k] = value
    return betas


def _mesh_to_fit(figure: bpy.types.Object) -> bpy.types.Object:
    """The body whose sliders count. RefitError where bones cannot follow them."""
    name = figure.name
    if figure.type != "ARMATURE":
        raise RefitError(f"{name} has no bones to fit: its vertices are given frame by frame")
    if rig.TEMPLATE not in figure:
        raise RefitError(f"{name} does not know its joints: recover or import its motion again")
    if figure.data.users > 1:
        raise RefitError(f"{name} shares its bones with another object: make its data single-user first")
    meshes = [obj for obj in figure.children_recursive if obj.type == "MESH" and TOKEN in obj]
    if any(obj.modifiers.get(CACHE_MODIFIER) is not None for obj in meshes):
        raise RefitError(f"{name} plays a point cache, which holds the recovered shape: its sliders do nothing")
    meshes = [obj for obj in meshes if obj.data.shape_keys is not None]
    if not meshes:
        raise RefitError(f"{name} has no body with shape keys to fit its bones to")
    if any(key.name.startswith("Corrective ") for key in meshes[0].data.shape_keys.key_blocks):
        raise RefitError(f"{name} has corrective shape keys, which are right for the recovered shape only")
    return meshes[0]


def _rest_heights(mesh: bpy.types.Object, betas: np.ndarray) -> np.ndarray:
    """Heights z [V] of a body's rest vertices at a shape [S]."""
    keys = mesh.data.shape_keys
    basis, moved = np.empty((2, 3 * len(mesh.data.vertices)), dtype=np.float32)
    keys.reference_key.points.foreach_get("co", basis)
    heights = basis[2::3].astype(np.float64)
    for name, value in zip(naming.SHAPE_KEYS, betas):
        key = keys.key_blocks.get(name)
        if key is not None:
            key.points.foreach_get("co", moved)
            heights += value * (moved[2::3] - basis[2::3])
    return heights


def _check_rest(figure: bpy.types.Object, joints: np.ndarray, height_m: float) -> None:
    """RefitError unless the rest bones start at the joints [24, 3] that they were fitted to last."""
    bones = figure.data.bones
    missing = [name for name in naming.BONE_NAMES if name not in bones]
    if missing:
        raise RefitError(f"{figure.name} lacks the bone {missing[0]}: it was deleted or renamed")
    heads = np.array([bones[name].head_local for name in naming.BONE_NAMES])
    if np.abs(heads - rest_to_blender(joints)).max() > HEAD_LIMIT * height_m:
        raise RefitError(f"{figure.name} has another rest pose than it was made with: undo that, or import it again")


def _own_motions(figure: bpy.types.Object) -> list[bpy.types.Action]:
    """The actions that say where the figure's root is: neither additive ones, nor those that another object plays.

    A copy of a figure names the actions of the one it was copied from. RefitError where the action that plays moves
    another object too.
    """
    data = figure.animation_data
    action = data.action if data is not None else None
    others = [obj for obj in bpy.data.objects if obj != figure and obj.animation_data is not None]
    for other in others if action is not None else ():
        theirs = other.animation_data
        if theirs.action == action and (not HAS_SLOTS or theirs.action_slot == data.action_slot):
            raise RefitError(f"{figure.name} shares its action with {other.name}: make it single-user first")
    taken = {other.animation_data.action for other in others}
    found = [one for one in motions_of(figure) if one == action or one not in taken]
    if data is None:
        return found
    strips = [strip for track in data.nla_tracks for strip in track.strips if strip.action is not None]
    added = {strip.action for strip in strips if strip.blend_type != "REPLACE"}
    added |= {action} if data.action_blend_type != "REPLACE" else set()
    return [one for one in {*found, *(strip.action for strip in strips)} if one not in added]


def _shift_root(
    figure: bpy.types.Object, actions: list[bpy.types.Action], root_step: np.ndarray, raised: float
) -> None:
    """Hold the pelvis where it is and raise it, in keys and in what is added to the places of the result file.

    root_step [3]: rest pelvis before less after, in the engine's rest frame.
    """
    root = naming.BONE_NAMES[0]
    up = np.array([0.0, 0.0, raised])
    figure[SHIFT] = [float(x) for x in np.array(figure.get(SHIFT, (0.0, 0.0, 0.0))) + root_step + up]
    step = (rest_to_blender(root_step) + up) @ rig.rest_axes(figure)[0]
    path = f'pose.bones["{root}"].location'
    playing = figure.animation_data.action if figure.animation_data is not None else None
    for action in actions:
        for curve in curves_of(figure) if action == playing else curves_in(action):
            if curve.data_path == path:
                shift_curve(curve, float(step[curve.array_index]))
    bone = figure.pose.bones[root]
    bone.location = [float(x + s) for x, s in zip(bone.location, step)]
