"""Fixtures: the add-on registered in an emptied Blender, and everything as it was afterwards; a body of boxes."""

from __future__ import annotations

import importlib
import os
import sys

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy: its threads spoil times where cores are shared

import bpy  # noqa: E402
import pytest  # noqa: E402
import scene_support  # noqa: E402
from process_support import snapshot  # noqa: E402


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


@pytest.fixture(scope="module")
def body():
    return scene_support.synthetic_body()


_status = pytest.ExitCode.INTERNAL_ERROR


def pytest_sessionfinish(exitstatus: int) -> None:
    global _status
    _status = exitstatus


@pytest.hookimpl(trylast=True)
def pytest_unconfigure() -> None:
    """Leave with pytest's own verdict: freeing itself, the bpy 4.2 wheel crashes where a timer or glTF was used."""
    if not bpy.app.binary_path:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(int(_status))
