"""Fixtures of the process tests: the add-on registered in an emptied Blender, and everything as it was afterwards."""

from __future__ import annotations

import importlib

import bpy
import pytest
from process_support import snapshot


@pytest.fixture
def addon():
    """An emptied Blender with the add-on registered, and left as it was found."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    before = snapshot()
    module = importlib.import_module("addon")
    module.register()
    importlib.import_module("addon.runtime").runtime.forget_engine()
    yield module
    module.unregister()
    assert snapshot() == before


@pytest.fixture
def runtime(addon):
    return importlib.import_module("addon.runtime").runtime
