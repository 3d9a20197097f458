"""Shared marks and seeds: every test starts from the same random state and one torch thread per core."""

from __future__ import annotations

import importlib.util
import random

import pytest

collect_ignore = ["blender", "real_blender"] if importlib.util.find_spec("bpy") is None else []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what the machine cannot run, and slow tests unless they are asked for by `-m slow`."""
    wanted = config.getoption("-m") or ""
    for item in items:
        if "slow" in item.keywords and "slow" not in wanted:
            item.add_marker(pytest.mark.skip(reason="slow: run with -m slow"))


@pytest.fixture(autouse=True)
def _seed() -> None:
    random.seed(0)
    if importlib.util.find_spec("numpy"):
        import numpy

        numpy.random.seed(0)
    if importlib.util.find_spec("torch"):
        import torch

        torch.manual_seed(0)
