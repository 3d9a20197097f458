"""Where a scene's video is. Its path is that of Blender's movie clip, so that it is kept as Blender keeps paths:

relative to the saved .blend where the preferences say so, and remapped by Save As.
"""

from __future__ import annotations

import os

import bpy

from .scene.camera import first_picture


def video_path(settings) -> str:
    """Return the absolute path of a scene's video, "" for none; if it is gone, the one beside the .blend."""
    if settings.clip is None:
        return ""
    path = bpy.path.abspath(settings.clip.filepath)
    beside = os.path.join(os.path.dirname(bpy.data.filepath), os.path.basename(path))
    return beside if bpy.data.filepath and not os.path.exists(path) and os.path.exists(beside) else path


def portable(path: str) -> str:
    """Return a path as Blender would store it: relative if the file is saved and the preferences want that."""
    if not path or not bpy.data.filepath or not bpy.context.preferences.filepaths.use_relative_paths:
        return path
    try:
        return bpy.path.relpath(path)
    except ValueError:  # on another drive
        return path


def is_same_video(stored: str, video: str) -> bool:
    """Whether a stored path means this video: itself, or, where it is gone, one of the same name."""
    path = bpy.path.abspath(stored)
    if os.path.normpath(path) == os.path.normpath(video):
        return True
    is_gone = not os.path.exists(first_picture(path))
    return bool(stored) and is_gone and os.path.basename(path) == os.path.basename(video)
