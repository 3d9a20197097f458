"""Methods "pmce", "tcmr", "lmr" and "posture": the related systems over a track (`core.systems`)."""

from __future__ import annotations

from functools import partial

from core.recover.network import recover_with
from core.recover.shipped import shipped_network
from core.systems.clip import read_clip
from core.systems.registry import SYSTEMS

SYSTEM_METHODS = {name: partial(recover_with, read_clip, partial(shipped_network, name)) for name in SYSTEMS}
"""Name -> recovery of one track: `core.recover.network.recover_with` by that system."""
