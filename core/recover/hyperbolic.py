"""Method "hyperbolic": the hyperbolic mesh network over a track (`core.recover.network` has the steps)."""

from __future__ import annotations

from functools import partial

from core.models.clip import recover_clip
from core.recover.network import recover_with
from core.recover.shipped import shipped_network

recover_by_network = partial(recover_with, recover_clip, partial(shipped_network, "hyperbolic"))
"""Recover one track: `core.recover.network.recover_with` by this network."""
