"""Which figures a command means: those the user has selected, or all of the scene."""

from __future__ import annotations

import bpy

from .scene.person import PERSON


def scene_figures(scene: bpy.types.Scene) -> list[bpy.types.Object]:
    """Return the figures of a scene: armatures, or meshes that stand alone; in the order of their persons."""
    owners = [obj for obj in scene.objects if PERSON in obj]
    return sorted(owners, key=lambda obj: (obj[PERSON], obj.name))


def chosen_figures(context) -> list[bpy.types.Object]:
    """Return the figures that are selected (themselves or their meshes); all of the scene where none is."""
    figures = scene_figures(context.scene)
    selected = set()
    for obj in context.selected_objects:
        while obj is not None and PERSON not in obj:
            obj = obj.parent
        selected.add(obj)
    return [obj for obj in figures if obj in selected] or figures


def has_figure(scene: bpy.types.Scene) -> bool:
    """Return whether the scene has a figure; cheap enough for poll."""
    return any(PERSON in obj for obj in scene.objects)


def parts_of(figure: bpy.types.Object) -> list[bpy.types.Object]:
    """Return a figure's objects: itself and what hangs on it."""
    return [figure, *figure.children_recursive]


def remove_collection(name: str) -> None:
    """Remove a collection of figures with all its objects; nothing happens if it is gone already."""
    collection = bpy.data.collections.get(name)
    if collection is None:
        return
    blocks = [obj.data for obj in collection.all_objects if obj.data is not None]
    for obj in list(collection.all_objects):
        bpy.data.objects.remove(obj)
    bpy.data.batch_remove([block for block in blocks if not block.users])
    bpy.data.collections.remove(collection)


def remove_unchosen(collection: str, people: list[dict]) -> int:
    """Remove a job's figures of people who were chosen away while it ran; return how many.

    people: the entries of protocol.People. Nothing is removed where nobody was chosen at all.
    """
    chosen = {entry["person"] for entry in people if entry.get("chosen")}
    found = bpy.data.collections.get(collection)
    if not chosen or found is None:
        return 0
    figures = [obj for obj in found.all_objects if PERSON in obj and obj[PERSON] not in chosen]
    for part in {part for figure in figures for part in parts_of(figure)}:
        bpy.data.objects.remove(part)
    return len(figures)
