"""Where things are: the extension's package, its own folder, its preferences, engine and logs. Needs bpy.

As an installed extension everything is written under the folder Blender gives it. Run from a source tree, which has
no such folder, Blender's user data folder takes its place, and the tree's own .venv is the engine if it is there.
"""

from __future__ import annotations

from pathlib import Path

import bpy

from .engine_env import environment_python, find_python, package_root, read_requirements

ROOT_PACKAGE = __package__.rpartition(".")[0]
"""Package of the extension: what Blender calls the add-on. Empty in a source tree."""


def is_extension() -> bool:
    """Return whether this code runs as an installed and enabled extension."""
    return bool(ROOT_PACKAGE) and ROOT_PACKAGE in bpy.context.preferences.addons


def preferences_or_none():
    """Return the add-on's preferences, None where it is not enabled as an extension."""
    return bpy.context.preferences.addons[ROOT_PACKAGE].preferences if is_extension() else None


def user_folder(name: str) -> Path:
    """Return a folder of the extension's own for this purpose; it is made if missing."""
    if is_extension() and ROOT_PACKAGE.startswith("bl_ext."):
        return Path(bpy.utils.extension_path_user(ROOT_PACKAGE, path=name, create=True))
    folder = Path(bpy.utils.user_resource("DATAFILES", path="hyper_mocap", create=True)) / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def engine_folder() -> Path:
    """Return the folder of the environment that Build Engine makes."""
    return user_folder("engine") / "venv"


def job_log() -> Path:
    """Return the log of the last job's engine."""
    return user_folder("logs") / "engine.log"


def build_log() -> Path:
    """Return the log of the last build."""
    return user_folder("logs") / "build.log"


def results_folder() -> Path:
    """Return where interactive jobs keep result files: the preferences' cache folder, or one of our own."""
    preferences = preferences_or_none()
    chosen = bpy.path.abspath(preferences.cache_folder) if preferences and preferences.cache_folder else ""
    return Path(chosen) if chosen else user_folder("results")


def find_engine(chosen: str = "") -> str:
    """Return the engine Python: the one given, the preferences', or the built one. EngineMissingError if none."""
    preferences = preferences_or_none()
    if not chosen and preferences:
        chosen = bpy.path.abspath(preferences.engine_python)
    if not chosen and not is_extension() and environment_python(package_root() / ".venv").is_file():
        chosen = str(environment_python(package_root() / ".venv"))
    return find_python(chosen, engine_folder(), read_requirements())
