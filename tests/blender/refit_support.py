"""Figures whose sliders are dragged, and what they must look like once their bones are fitted."""

from __future__ import annotations

import os

import bpy
import numpy as np
import scene_support as support
import scene_world as world
from test_scene_result import write_file

from addon import naming
from addon.scene import armature as rig
from addon.scene.bodydata import BodyData
from addon.scene.result import load_results

BODY_FILE = os.path.join(os.path.dirname(__file__), "..", "..", "weights", "body_neutral.npz")
BETAS = np.array([1.2, -0.8, 0.5, 0.0, -1.0, 0.3, 0.9, -0.4, 0.2, 0.6])
OTHER = np.array([-0.5, 1.0, 0.5, 2.0, 0.3, 0.3, -1.1, -0.4, 1.2, -2.6])
"""Another shape of the boxes."""
SOME = (0, 7, 15)


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


def state_of(figure) -> tuple:
    """What must stay: bones, pose, mesh, stored numbers."""
    mesh = figure if figure.type == "MESH" else figure.children[0]
    bones = [] if figure.type == "MESH" else [np.array(bone.matrix_local).tolist() for bone in figure.data.bones]
    stored = {key: value for key, value in figure.items() if key.startswith("hyper_mocap")}
    numbers = {key: list(value) if hasattr(value, "__len__") else value for key, value in stored.items()}
    return bones, numbers, [world.vertices_at(mesh, 1 + i).tolist() for i in SOME]


def lose_joints(figure):
    del figure[rig.TEMPLATE]
