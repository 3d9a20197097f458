"""The rows that messages, errors and the progress of a build are drawn with, measured in the interface's own font."""

from __future__ import annotations

import blf
import bpy

from .texts import wrap

TAB_MARGIN_PX, BOX_MARGIN_PX, PREFERENCES_MARGIN_PX = 80.0, 12.0, 80.0
"""What a line of the sidebar's tab, of a box in it, and of a box in the preferences cannot use, at a scale of 1."""
LEAST_ROOM_PX = 60.0


def room_of(context, margin_px: float) -> float:
    """Return the width in pixels that a line of text has in the region being drawn."""
    return max(LEAST_ROOM_PX, context.region.width - margin_px * context.preferences.system.ui_scale)


def width_of(text: str) -> float:
    """Return the width in pixels of a line of the interface's text."""
    preferences = bpy.context.preferences
    blf.size(0, preferences.ui_styles[0].widget.points * preferences.system.ui_scale)
    return blf.dimensions(0, text)[0]


def draw_error(layout, text: str, room: float) -> None:
    """Draw a message in red, one row a line, the sign on the first."""
    draw_message(layout, text, room, icon="ERROR", is_alert=True)


def draw_message(layout, text: str, room: float, *, icon: str, is_alert: bool = False) -> None:
    """Draw a message over as many rows as it needs in a room of that many pixels."""
    column = layout.column(align=True)
    column.alert = is_alert
    column.scale_y = 0.85
    for i, line in enumerate(wrap(text, room, width_of)):
        column.label(text=line, icon="BLANK1" if i else icon)


def draw_build(layout, build, room: float) -> None:
    """Draw how far a build is, or how it ended."""
    if not build.is_over:
        layout.progress(factor=build.fraction, text=build.step or "Starting")
        layout.label(text=build.line[:90])
    elif build.error:
        draw_error(layout, build.error, room)
    elif build.is_cancelled:
        draw_message(layout, "The build was cancelled; Build Engine goes on where it stopped", room, icon="INFO")
    else:
        layout.label(text="The engine is ready", icon="CHECKMARK")
