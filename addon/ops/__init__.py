"""Operators, one a file, each named after its bl_idname."""

from __future__ import annotations

import importlib

NAMES = (
    "import_video",
    "set_scene_fps",
    "recover_motion",
    "choose_people",
    "cancel_job",
    "look_through_camera",
    "dismiss",
    "build_engine",
    "cancel_build",
    "check_engine",
    "open_log",
    "open_preferences",
    "import_result",
    "smooth_motion",
    "compare_smoothing",
    "set_height",
    "fit_bones",
    "export_fbx",
)


def _modules() -> list:
    return [importlib.import_module(f".{name}", __package__) for name in NAMES]


def register() -> None:
    """Register every operator."""
    for module in _modules():
        module.register()


def unregister() -> None:
    """Unregister every operator in reverse."""
    for module in reversed(_modules()):
        module.unregister()
