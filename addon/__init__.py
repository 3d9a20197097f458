"""Blender's side of Hyper Mocap: operators, panels and the client of the engine process.

Importing this package imports nothing else: modules that need bpy are imported by `register`, so that the ones that
do not (client, job, engine_env) can be used and tested in any Python.
"""

from __future__ import annotations

import importlib

MODULES: tuple[str, ...] = ("properties", "preferences", "ops", "ui", "cli", "runtime")
"""Modules with register() and unregister(), in the order of registration."""


def register() -> None:
    """Register everything, in order. Errors surface."""
    for name in MODULES:
        importlib.import_module(f".{name}", __package__).register()


def unregister() -> None:
    """Unregister everything in the reverse order."""
    for name in reversed(MODULES):
        importlib.import_module(f".{name}", __package__).unregister()
