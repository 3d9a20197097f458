"""What stands where a job's figures will, put out of sight while they are made, and shown again if none come."""

from __future__ import annotations

from dataclasses import dataclass

import bpy

from .default_cube import hide_default_cube, show_default_cube
from .figures import hide_figures, show_figures


@dataclass(frozen=True)
class Hidden:
    """What was put out of sight; kept by names, as Undo may replace the rest."""

    collections: tuple[str, ...] = ()
    """Earlier figures of the same video."""
    has_cube: bool = False
    """Whether the default cube is among it."""

    @property
    def told(self) -> list[str]:
        """How it is named to the user."""
        return [*self.collections, *(["the default cube, where the figure will stand"] if self.has_cube else [])]

    def show(self, layer: bpy.types.ViewLayer) -> None:
        """Show it again."""
        show_figures(layer, list(self.collections))
        if self.has_cube:
            show_default_cube(layer)


def hide_in_the_way(layer: bpy.types.ViewLayer, video: str) -> Hidden:
    """Put out of sight, and leave out of renders, the figures of this video and an untouched default cube."""
    return Hidden(tuple(hide_figures(layer, video)), hide_default_cube(layer))
