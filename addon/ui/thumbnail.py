"""The picture of the chosen clip. Kept outside the .blend file, loaded by Blender's own thumbnail code."""

from __future__ import annotations

import bpy.utils.previews

_collection = None


def thumbnail_icon(path: str) -> int:
    """Return the icon of a video's thumbnail, 0 if there is none. Only the last one is kept."""
    if _collection is None or not path:
        return 0
    if path not in _collection:
        _collection.clear()
        _collection.load(path, path, "MOVIE")
    return _collection[path].icon_id


def register() -> None:
    """Make the collection."""
    global _collection
    _collection = bpy.utils.previews.new()


def unregister() -> None:
    """Give the pictures back."""
    global _collection
    bpy.utils.previews.remove(_collection)
    _collection = None
