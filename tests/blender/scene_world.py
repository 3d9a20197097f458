"""Fixtures' helpers that need bpy: an empty file, a writer that is driven to its end, evaluated figures."""

from __future__ import annotations

import bpy
import numpy as np
import scene_support as support

from addon.scene.options import WriterOptions
from addon.scene.writer import SceneWriter
from core import protocol

VIDEO = protocol.Video(path="/nowhere/a walk.mp4", width=640, height=360, fps=30.0, frame_count=60)


def empty_scene(fps: int = 30) -> bpy.types.Scene:
    """Reset Blender to an empty file; returns its scene."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    scene.render.fps, scene.render.fps_base = fps, 1.0
    scene.frame_start = 1
    return scene


def shape_message(person: int, betas: np.ndarray) -> protocol.Shape:
    return protocol.Shape(person=person, height_m=1.7, betas=support.wire(np.asarray(betas, dtype=np.float32)))


def start_writer(scene, body: dict, people: dict[int, np.ndarray], video=VIDEO, **options) -> SceneWriter:
    """A writer that has received video, body and the people's shapes."""
    writer = SceneWriter(scene, WriterOptions(method="fit", version="0.0.1", **options))
    writer.handle(video)
    writer.handle(support.body_message(body))
    for person, betas in people.items():
        writer.handle(shape_message(person, betas))
    return writer


def write_motion(scene, body: dict, motion: dict, betas, chunk: int = 16, **options):
    """One person's motion through a writer, chunk by chunk; returns (writer, summary)."""
    writer = start_writer(scene, body, {0: betas}, **options)
    for start in range(0, len(motion["frames"]), chunk):
        writer.handle(support.frames_message(0, motion, slice(start, start + chunk)))
        writer.tick(0.001)
    return writer, writer.finish()


def person_object(person: int = 0) -> bpy.types.Object:
    return bpy.data.objects[f"Person {person + 1}"]


def body_object(person: int = 0) -> bpy.types.Object:
    return bpy.data.objects[f"Person {person + 1} Body"]


def heads_at(armature: bpy.types.Object, frame: float) -> np.ndarray:
    """World positions [24, 3] of the bone heads, in joint order, as the dependency graph evaluates them."""
    from addon.naming import BONE_NAMES

    scene = bpy.context.scene
    scene.frame_set(int(np.floor(frame)), subframe=float(frame - np.floor(frame)))
    evaluated = armature.evaluated_get(bpy.context.evaluated_depsgraph_get())
    return np.array([(evaluated.matrix_world @ evaluated.pose.bones[n].head)[:] for n in BONE_NAMES])


def vertices_at(obj: bpy.types.Object, frame: float) -> np.ndarray:
    """World positions [V, 3] of the evaluated mesh."""
    scene = bpy.context.scene
    scene.frame_set(int(np.floor(frame)), subframe=float(frame - np.floor(frame)))
    evaluated = obj.evaluated_get(bpy.context.evaluated_depsgraph_get())
    mesh = evaluated.to_mesh()
    out = np.empty((len(mesh.vertices), 3), dtype=np.float32)
    mesh.vertices.foreach_get("co", out.ravel())
    world = np.array(evaluated.matrix_world)
    evaluated.to_mesh_clear()
    return out @ world[:3, :3].T + world[:3, 3]
