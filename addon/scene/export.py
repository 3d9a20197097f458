"""Writes figures to FBX, GLB and .blend with the settings that keep mocap whole: every frame, no simplification.

FBX: only the figure's armature and mesh, no leaf bones, metres in the file's unit, the person's shape baked into the
mesh (game engines clip the sliders' range), corrective and per-frame shape keys kept with their animation.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import bpy
import numpy as np

from .. import naming
from ..action import curves_of
from ..errors import ExportError
from .sinks import CACHE_MODIFIER

AXES: dict[str, tuple[str, str]] = {"STANDARD": ("Y", "X"), "UNREAL": ("X", "Y"), "MAYA": ("X", "Y")}
"""Primary and secondary bone axis in the FBX file, by target: Blender's own (also Unity, Godot), or along X."""


def figures_of(collection: bpy.types.Collection) -> list[bpy.types.Object]:
    """Return the armatures and meshes of a collection, what `export_fbx` takes."""
    return [o for o in collection.all_objects if o.type in {"ARMATURE", "MESH"}]


def export_fbx(
    objects: list[bpy.types.Object], path: str, *, target: str = "STANDARD", bake_shape: bool = True
) -> None:
    """Write armatures and meshes with their motion. ExportError if there is nothing, or it cannot be written."""
    primary, secondary = AXES[target]
    with _prepared(objects, path, bake_shape):
        _call(
            path,
            bpy.ops.export_scene.fbx,
            filepath=path,
            use_selection=True,
            object_types={"ARMATURE", "MESH"},
            apply_unit_scale=True,
            apply_scale_options="FBX_SCALE_ALL",
            axis_forward="-Z",
            axis_up="Y",
            use_mesh_modifiers=False,
            add_leaf_bones=False,
            primary_bone_axis=primary,
            secondary_bone_axis=secondary,
            use_armature_deform_only=False,
            bake_anim=True,
            bake_anim_use_all_bones=True,
            bake_anim_use_nla_strips=False,
            bake_anim_use_all_actions=False,
            bake_anim_force_startend_keying=True,
            bake_anim_step=1.0,
            bake_anim_simplify_factor=0.0,
            path_mode="AUTO",
        )


def export_glb(objects: list[bpy.types.Object], path: str, *, bake_shape: bool = True) -> None:
    """Write a binary glTF with every frame sampled. ExportError as for `export_fbx`."""
    with _prepared(objects, path, bake_shape):
        _call(
            path,
            bpy.ops.export_scene.gltf,
            filepath=path,
            export_format="GLB",
            use_selection=True,
            use_active_scene=True,
            export_apply=False,
            export_animations=True,
            export_animation_mode="ACTIVE_ACTIONS",
            export_force_sampling=True,
            export_frame_range=True,
            export_optimize_animation_size=False,
            export_anim_slide_to_zero=True,
            export_skins=True,
            export_morph=True,
            export_morph_normal=False,
            export_cameras=False,
            export_lights=False,
        )


def save_blend_copy(path: str) -> None:
    """Save the whole file under another name without leaving the open one. ExportError if it cannot be written."""
    _check_folder(path)
    _call(path, bpy.ops.wm.save_as_mainfile, filepath=path, copy=True, check_existing=False)


def key_range(objects: list[bpy.types.Object]) -> tuple[int, int] | None:
    """First and last whole frame that hold all keys of the objects and their shape keys; None without keys."""
    low, high = np.inf, -np.inf
    for obj in objects:
        keys = obj.data.shape_keys if obj.type == "MESH" else None
        for block in (obj, keys):
            for curve in curves_of(block) if block is not None else ():
                if len(curve.keyframe_points):
                    low = min(low, curve.keyframe_points[0].co[0])
                    high = max(high, curve.keyframe_points[-1].co[0])
    return None if low > high else (int(np.floor(low + 1e-3)), int(np.ceil(high - 1e-3)))


@contextlib.contextmanager
def _prepared(objects: list[bpy.types.Object], path: str, bake_shape: bool) -> Iterator[None]:
    """A throw-away scene with only the figures, selected, over their key range; everything is put back after it.

    It bears the file's name, because the exporters name the take after the scene.
    """
    objects = [o for o in objects if o.type in {"ARMATURE", "MESH"}]
    objects += [p for p in {o.parent for o in objects} if p is not None and p not in objects]
    if not objects:
        raise ExportError("Nothing to export: choose a figure (an armature or its body mesh)")
    _check_folder(path)
    source = bpy.context.scene
    scene = bpy.data.scenes.new(os.path.splitext(os.path.basename(path))[0][:40] or "Motion")
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: bpy.data.scenes.remove(scene))
        scene.render.fps, scene.render.fps_base = source.render.fps, source.render.fps_base
        scene.unit_settings.scale_length = source.unit_settings.scale_length
        scene.frame_start, scene.frame_end = key_range(objects) or (source.frame_start, source.frame_end)
        for obj in objects:
            if obj.type == "MESH" and bake_shape:
                obj = stack.enter_context(_shape_baked(obj))
            stack.enter_context(_modifiers_for_export(obj))
            scene.collection.objects.link(obj)
        layer = scene.view_layers[0]
        for obj in scene.objects:
            obj.select_set(True, view_layer=layer)
        layer.objects.active = scene.objects[0]
        selected = list(scene.objects)
        with bpy.context.temp_override(
            scene=scene,
            view_layer=layer,
            active_object=selected[0],
            object=selected[0],
            selected_objects=selected,
            selected_editable_objects=selected,
        ):
            scene.frame_set(scene.frame_start)
            yield


@contextlib.contextmanager
def _shape_baked(obj: bpy.types.Object) -> Iterator[bpy.types.Object]:
    """A stand-in of the same name whose shape's keys are baked into the mesh; other shape keys stay, with keys."""
    keys = obj.data.shape_keys
    blocks = [keys.key_blocks.get(name) for name in naming.SHAPE_KEYS] if keys else []
    blocks = [b for b in blocks if b is not None]
    if not blocks:
        yield obj
        return
    count = len(obj.data.vertices) * 3
    basis, moved = np.empty(count, dtype=np.float32), np.empty(count, dtype=np.float32)
    keys.reference_key.data.foreach_get("co", basis)
    offset = np.zeros(count, dtype=np.float32)
    for block in blocks:
        if not block.mute:
            block.data.foreach_get("co", moved)
            offset += block.value * (moved - basis)
    names = [b.name for b in blocks]
    title, mesh_title = obj.name, obj.data.name
    stand_in = obj.copy()
    stand_in.data = obj.data.copy()
    obj.name, obj.data.name = f"{title} (figure)", f"{mesh_title} (figure)"
    stand_in.name, stand_in.data.name = title, mesh_title
    try:
        for name in names:
            stand_in.shape_key_remove(stand_in.data.shape_keys.key_blocks[name])
        for block in stand_in.data.shape_keys.key_blocks:
            block.data.foreach_get("co", moved)
            block.data.foreach_set("co", moved + offset)
        stand_in.data.vertices.foreach_set("co", basis + offset)
        if len(stand_in.data.shape_keys.key_blocks) == 1:
            stand_in.shape_key_clear()
        yield stand_in
    finally:
        mesh = stand_in.data
        bpy.data.objects.remove(stand_in)
        bpy.data.meshes.remove(mesh)
        # shape keys outlive their mesh, and then Blender complains when it saves the file
        bpy.data.batch_remove([key for key in bpy.data.shape_keys if key.user is None])
        obj.name, obj.data.name = title, mesh_title


@contextlib.contextmanager
def _modifiers_for_export(obj: bpy.types.Object) -> Iterator[None]:
    """Let the armature deform and the point cache rest: files for other programs carry bones, not caches."""
    before = [(m.name, m.show_viewport, m.show_render) for m in obj.modifiers]
    if obj.modifiers.get(CACHE_MODIFIER) is not None:
        for modifier in obj.modifiers:
            modifier.show_viewport = modifier.show_render = modifier.type == "ARMATURE"
    try:
        yield
    finally:
        for name, viewport, render in before:
            if obj.name in bpy.data.objects and name in obj.modifiers:
                obj.modifiers[name].show_viewport, obj.modifiers[name].show_render = viewport, render


def _check_folder(path: str) -> None:
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise ExportError(f"There is no folder {folder}: make it first, or choose another")
    if not os.access(folder, os.W_OK):
        raise ExportError(f"The folder {folder} cannot be written to: choose another")


def _call(path: str, operator, **settings) -> None:
    """Call an operator with those settings that this Blender's version of it knows."""
    try:
        known = operator.get_rna_type().properties.keys()
    except KeyError:
        raise ExportError(
            "This Blender lacks the exporter: enable its FBX or glTF add-on in the preferences"
        ) from None
    try:
        result = operator(**{k: v for k, v in settings.items() if k in known})
    except RuntimeError as error:
        raise ExportError(f"{path} was not written: {str(error).strip().splitlines()[-1]}") from error
    if "FINISHED" not in result or not os.path.exists(path):
        raise ExportError(f"{path} was not written")
