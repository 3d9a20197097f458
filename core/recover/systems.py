"""Methods "pmce", "tcmr", "lmr" and "posture": the related systems over a track (`core.systems`)."""

from __future__ import annotations

from functools import lru_cache, partial

from torch import nn

from core.errors import SetupError
from core.protocol import REFINES_BY_DEFAULT
from core.records import Camera, CameraMotion, Track
from core.recover.network import ignore, never, own_body, recover_with
from core.systems.clip import read_clip
from core.systems.registry import load_system, shipped_path


def recover_by_system(
    name: str,
    track: Track,
    camera: Camera,
    body,
    *,
    device: str = "cpu",
    on_frames=ignore,
    should_stop=never,
    on_progress=ignore,
    net: nn.Module | None = None,
    refine: bool = REFINES_BY_DEFAULT,
    on_rough=ignore,
    known: CameraMotion | None = None,
) -> CameraMotion:
    """Recover one track by a system of that name; see `core.recover.network.recover_with`.

    `net` replaces the shipped network. SetupError where that is missing.
    """
    return recover_with(
        partial(read_clip, (net or _shipped_network(name)).to(device)),
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


@lru_cache
def _shipped_network(name: str) -> nn.Module:
    path = shipped_path(name)
    if not path.exists():
        raise SetupError(f"The network {path} is missing: install Hyper Mocap again, or use another method")
    return load_system(path, own_body())
