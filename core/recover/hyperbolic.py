"""Method "hyperbolic": the hyperbolic mesh network over a track (`core.recover.network` has the steps)."""

from __future__ import annotations

from functools import lru_cache, partial
from pathlib import Path

from core.errors import SetupError
from core.models.checkpoint import load_network
from core.models.clip import recover_clip
from core.models.hyperbolic import HyperbolicNet
from core.recover.network import own_body, recover_with

WEIGHTS = Path(__file__).resolve().parents[2] / "weights" / "hyperbolic.safetensors"


@lru_cache(maxsize=1)
def _shipped_network() -> HyperbolicNet:
    if not WEIGHTS.exists():
        raise SetupError(f"The network {WEIGHTS} is missing: install Hyper Mocap again, or use method fit")
    return load_network(WEIGHTS, own_body())


recover_by_network = partial(recover_with, recover_clip, _shipped_network)
"""Recover one track: `core.recover.network.recover_with` by this network."""
