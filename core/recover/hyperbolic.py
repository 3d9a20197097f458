"""Method "hyperbolic": the hyperbolic mesh network over a track (`core.recover.network` has the steps)."""

from __future__ import annotations

from functools import lru_cache, partial
from pathlib import Path

from core.errors import SetupError
from core.models.checkpoint import load_network
from core.models.clip import recover_clip
from core.models.hyperbolic import HyperbolicNet
from core.protocol import REFINES_BY_DEFAULT
from core.records import Camera, CameraMotion, Track
from core.recover.network import ignore, never, own_body, recover_with

WEIGHTS = Path(__file__).resolve().parents[2] / "weights" / "hyperbolic.safetensors"


def recover_by_network(
    track: Track,
    camera: Camera,
    body,
    *,
    device: str = "cpu",
    on_frames=ignore,
    should_stop=never,
    on_progress=ignore,
    net: HyperbolicNet | None = None,
    refine: bool = REFINES_BY_DEFAULT,
    on_rough=ignore,
    known: CameraMotion | None = None,
) -> CameraMotion:
    """Recover one track; see `core.recover.network.recover_with`. `net` replaces the shipped network."""
    return recover_with(
        partial(recover_clip, (net or _shipped_network()).to(device)),
        track,
        camera,
        body,
        device=device,
        on_frames=on_frames,
        should_stop=should_stop,
        on_progress=on_progress,
        refine=refine,
        on_rough=on_rough,
        known=known,
    )


@lru_cache(maxsize=1)
def _shipped_network() -> HyperbolicNet:
    if not WEIGHTS.exists():
        raise SetupError(f"The network {WEIGHTS} is missing: install Hyper Mocap again, or use method fit")
    return load_network(WEIGHTS, own_body())
