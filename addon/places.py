"""Where things are: the extension's package, its own folder, its preferences, engine and logs. Needs bpy.

As an installed extension everything is written under the folder Blender gives it. Run from a source tree, the engine
and the preferences of an extension that is enabled in this Blender are used as well; else the tree's own .venv if it
is there, and Blender's user data folder in place of the extension's.
"""

from __future__ import annotations

from pathlib import Path

import bpy

from .engine_env import environment_python, find_python, package_root, read_requirements

ROOT_PACKAGE = __package__.rpartition(".")[0]
"""Package of the extension: what Blender calls the add-on. Empty in a source tree."""
EXTENSION_ID = "hyper_mocap"


def enabled_package() -> str:
    """Return the add-on's name in Blender's preferences: ours, or that of the installed extension; empty if none."""
    addons = bpy.context.preferences.addons
    if ROOT_PACKAGE in addons:
        return ROOT_PACKAGE
    return next(
        (name for name in addons.keys() if name.startswith("bl_ext.") and name.endswith(f".{EXTENSION_ID}")), ""
    )


def preferences_or_none():
    """Return the add-on's preferences, None where it is not enabled as an extension."""
    name = enabled_package()
    return bpy.context.preferences.addons[name].preferences if name else None


def user_folder(name: str) -> Path:
    """Return a folder of the extension's own for this purpose; it is made if missing."""
    package = enabled_package()
    if package.startswith("bl_ext."):
        return Path(bpy.utils.extension_path_user(package, path=name, create=True))
    folder = Path(bpy.utils.user_resource("DATAFILES", path=EXTENSION_ID, create=True)) / name
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
    own = environment_python(package_root() / ".venv")
    if not chosen and not enabled_package() and own.is_file():
        chosen = str(own)
    return find_python(chosen, engine_folder(), read_requirements())
