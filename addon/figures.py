"""Which figures a command means: those the user has selected, or all of the scene."""

from __future__ import annotations

from collections.abc import Iterator

import bpy

from .scene.lookup import TOKEN
from .scene.person import PERSON
from .scene.stage import VIDEO
from .scene.stature import cameras_beside
from .videos import is_same_video


def scene_figures(scene: bpy.types.Scene) -> list[bpy.types.Object]:
    """Return the figures of a scene: armatures, or meshes that stand alone; in the order of their persons."""
    owners = [obj for obj in scene.objects if PERSON in obj]
    return sorted(owners, key=lambda obj: (obj[PERSON], obj.name))


def chosen_figures(context) -> list[bpy.types.Object]:
    """Return the figures that are selected (themselves or their meshes); all that are to be seen where none is."""
    figures = scene_figures(context.scene)
    selected = set()
    for obj in context.selected_objects:
        while obj is not None and PERSON not in obj:
            obj = obj.parent
        selected.add(obj)
    seen = [obj for obj in figures if obj.visible_get(view_layer=context.view_layer)]
    return [obj for obj in figures if obj in selected] or seen or figures


def has_figure(scene: bpy.types.Scene) -> bool:
    """Return whether the scene has a figure; cheap enough for poll."""
    return any(PERSON in obj for obj in scene.objects)


def camera_or_none(context) -> bpy.types.Object | None:
    """Return the camera that was made with the chosen figures; else, as while a job runs, the scene's own or the
    newest that was made for a video and is to be seen."""
    figures, camera = chosen_figures(context), context.scene.camera
    beside = [obj for figure in figures for obj in cameras_beside(figure)]
    if camera in beside or not beside and camera is not None and TOKEN in camera:
        return camera
    made = [obj for obj in context.scene.objects if obj.type == "CAMERA" and TOKEN in obj]
    seen = [obj for obj in beside or made if obj.visible_get(view_layer=context.view_layer)]
    return seen[-1] if seen else None


def hide_figures(layer: bpy.types.ViewLayer, video: str) -> list[str]:
    """Close the eye of the collections whose figures come from this video, and leave them out of renders; return
    their names.

    Another recovery of the same clip would stand in the same place.
    """
    hidden = []
    for place in _places(layer.layer_collection):
        if is_same_video(place.collection.get(VIDEO, ""), video) and not place.hide_viewport:
            place.hide_viewport = place.collection.hide_render = True
            hidden.append(place.collection.name)
    layer.update()
    return hidden


def show_figures(layer: bpy.types.ViewLayer, names: list[str]) -> None:
    """Open the eye of these collections, and render them again."""
    for place in _places(layer.layer_collection):
        if place.collection.name in names:
            place.hide_viewport = place.collection.hide_render = False


def _places(root: bpy.types.LayerCollection) -> Iterator[bpy.types.LayerCollection]:
    """All collections of a view layer below the scene's own."""
    for place in root.children:
        yield place
        yield from _places(place)


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
