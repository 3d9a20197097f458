"""What the methods read from weights/: each file once, then kept. A job asks for it before it looks at its video."""

from __future__ import annotations

from functools import lru_cache

from torch import nn

from core.errors import SetupError
from core.models.checkpoint import load_network
from core.recover.network import own_body
from core.recover.prior import load_prior
from core.systems.registry import load_system, shipped_path


def read_weights(method: str, *, refine: bool) -> None:
    """Read what a method needs, so that it finds it ready. SetupError names the first file that is of no use."""
    if method != "fit":
        shipped_network(method)
    if method == "fit" or refine:
        load_prior()


@lru_cache
def shipped_network(method: str) -> nn.Module:
    """The network of a method, "hyperbolic" or a key of SYSTEMS; SetupError names a file that is of no use."""
    path = shipped_path(method)
    if not path.exists():
        other = "method fit" if method == "hyperbolic" else "another method"
        raise SetupError(f"The network {path} is missing: install Hyper Mocap again, or use {other}")
    load = load_network if method == "hyperbolic" else load_system
    return load(path, own_body())
