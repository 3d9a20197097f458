"""Methods "pmce", "tcmr", "lmr" and "posture": the related systems over a track (`core.systems`)."""

from __future__ import annotations

from functools import lru_cache, partial

from torch import nn

from core.errors import SetupError
from core.recover.network import own_body, recover_with
from core.systems.clip import read_clip
from core.systems.registry import SYSTEMS, load_system, shipped_path


@lru_cache
def _shipped_network(name: str) -> nn.Module:
    path = shipped_path(name)
    if not path.exists():
        raise SetupError(f"The network {path} is missing: install Hyper Mocap again, or use another method")
    return load_system(path, own_body())


SYSTEM_METHODS = {name: partial(recover_with, read_clip, partial(_shipped_network, name)) for name in SYSTEMS}
"""Name -> recovery of one track: `core.recover.network.recover_with` by that system."""
