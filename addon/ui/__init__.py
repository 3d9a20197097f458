"""Panels and lists of the sidebar's Mocap tab. They only read and draw."""

from __future__ import annotations

import importlib

NAMES = ("thumbnail", "lists", "panels")


def _modules() -> list:
    return [importlib.import_module(f".{name}", __package__) for name in NAMES]


def register() -> None:
    """Register lists, then panels."""
    for module in _modules():
        module.register()


def unregister() -> None:
    """Unregister in reverse."""
    for module in reversed(_modules()):
        module.unregister()
