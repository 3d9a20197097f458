"""What remains when no more messages will come: the handles of long curves, and the closing work of the sinks."""

from __future__ import annotations

from collections.abc import Iterator

from ..action import KeyWriter
from .person import PersonState
from .schedule import Piece
from .sinks import VertexSink
from .stage import Stage

CURVES_AT_ONCE = 8


class Closing:
    """The closing work of a job, piece by piece."""

    def __init__(self, people: dict[int, PersonState], sinks: dict[int, VertexSink], stage: Stage) -> None:
        self._people, self._sinks, self._stage = people, sinks, stage
        self._pieces = self._run()
        self._kind = next(self._pieces, "")

    def piece_or_none(self) -> Piece | None:
        """Return the next piece, or None when all is done."""
        return Piece(self._kind, self._go_on) if self._kind else None

    def _go_on(self) -> None:
        self._kind = next(self._pieces, "")

    def _run(self) -> Iterator[str]:
        """Yield the kind of the piece that follows."""
        for state in self._people.values():
            for start in range(0, len(state.channels), CURVES_AT_ONCE):
                yield "handles"
                owner = state.owner_or_none(self._stage.scene_or_none())
                if owner is not None and owner.animation_data and owner.animation_data.action:
                    KeyWriter(owner, owner.name).update_long_curves(slice(start, start + CURVES_AT_ONCE))
        for sink in self._sinks.values():
            yield "closing"
            yield from sink.closing_steps()
            sink.close()
