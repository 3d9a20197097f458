"""The network that is shipped, and its lifter alone."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from core.models.checkpoint import load_lifter
from core.models.lifter import Lifter

WEIGHTS = Path(__file__).resolve().parents[2] / "weights" / "hyperbolic.safetensors"


@lru_cache(maxsize=1)
def shipped_lifter(path: Path) -> Lifter:
    """The lifter of `path`, kept in memory; SetupError where the file is missing or not intact."""
    return load_lifter(path)
