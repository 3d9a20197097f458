"""Which piece of work still fits into a tick: each kind's cost is estimated from the times it took before. No bpy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

FIRST_GUESS_S = 0.002
"""What a kind of work is taken to cost before it was ever done."""
_MEMORY = 0.6
"""How much of an estimate the next measurement leaves: one that the machine delayed is soon forgotten."""


@dataclass(frozen=True)
class Piece:
    """One small piece of work and the kind it belongs to."""

    kind: str
    work: Callable[[], object]


class CostBook:
    """Estimated seconds of each kind of work."""

    def __init__(self) -> None:
        self._costs: dict[str, float] = {}

    def fits(self, kind: str, left_s: float) -> bool:
        """Whether a piece of this kind is likely to end within `left_s` seconds."""
        return left_s > 0 and self._costs.get(kind, FIRST_GUESS_S) <= left_s

    def note(self, kind: str, seconds: float) -> None:
        """Remember how long a piece took."""
        before = self._costs.get(kind)
        self._costs[kind] = seconds if before is None else _MEMORY * before + (1 - _MEMORY) * seconds
