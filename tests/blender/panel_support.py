"""What panels draw and operators ask, without a window."""

from __future__ import annotations

import importlib
from types import SimpleNamespace

import bpy


class Layout:
    """Notes what is drawn; every part of it is itself."""

    def __init__(self) -> None:
        self.drawn = []

    def prop(self, _owner, name: str, **_options) -> None:
        self.drawn.append(name)

    def panel(self, *_arguments, **_options):
        return self, None

    def __getattr__(self, _name: str):
        return lambda *_arguments, **_options: self


def context_with(**others) -> SimpleNamespace:
    """What operators read of the context, and stand-ins for what only a window has."""
    names = ("scene", "view_layer", "selected_objects", "active_object")
    return SimpleNamespace(**{name: getattr(bpy.context, name) for name in names}, **others)


def asked(operator: str, **before) -> tuple[set, SimpleNamespace]:
    """Invoke an operator's class by hand: what it returned, and itself with what it was told and asked."""
    module = importlib.import_module(f"addon.ops.{operator}")
    [cls] = [value for name, value in vars(module).items() if name.endswith(f"_OT_{operator}")]
    it = SimpleNamespace(**before, title="", reports=[], execute=lambda _context: {"CANCELLED"})
    manager = SimpleNamespace(invoke_props_dialog=lambda it, title="": (setattr(it, "title", title), {"ASKED"})[1])
    return cls.invoke(it, context_with(window_manager=manager), None), it
