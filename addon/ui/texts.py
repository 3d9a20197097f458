"""Words of the panels: durations, wrapped messages, and the rows that errors and progress are drawn with."""

from __future__ import annotations

import textwrap

CHARACTER_PX = 5.9
"""Mean width of a character of Blender's interface font at a scale of 1."""
MARGIN_PX = 58.0


def format_duration(seconds: float) -> str:
    """Return a duration as a person would say it: "8 s", "2 min 05 s", "1 h 02 min"."""
    seconds = max(0, round(seconds))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


def format_eta(seconds: float) -> str:
    """Return the time left in words; an empty string where it is unknown."""
    return "" if seconds < 0 else "almost done" if seconds < 1 else f"{format_duration(seconds)} left"


def columns_of(region_width: float, ui_scale: float) -> int:
    """Return how many characters fit into one line of a region."""
    return max(16, int((region_width / ui_scale - MARGIN_PX) / CHARACTER_PX))


def wrap(text: str, columns: int) -> list[str]:
    """Break a message into lines; long paths are broken too."""
    return textwrap.wrap(text, columns) or [""]


def draw_error(layout, text: str, columns: int) -> None:
    """Draw a message in red, one row a line, the sign on the first."""
    draw_message(layout, text, columns, icon="ERROR", is_alert=True)


def draw_message(layout, text: str, columns: int, *, icon: str, is_alert: bool = False) -> None:
    """Draw a message over as many rows as it needs."""
    column = layout.column(align=True)
    column.alert = is_alert
    column.scale_y = 0.85
    for i, line in enumerate(wrap(text, columns)):
        column.label(text=line, icon="BLANK1" if i else icon)


def draw_build(layout, build) -> None:
    """Draw how far a build is, or how it ended."""
    if not build.is_over:
        layout.progress(factor=build.fraction, text=build.step or "Starting")
        layout.label(text=build.line[:90])
    elif build.error:
        draw_error(layout, build.error, 110)
    elif build.is_cancelled:
        layout.label(text="The build was cancelled; Build Engine goes on where it stopped", icon="INFO")
    else:
        layout.label(text="The engine is ready", icon="CHECKMARK")
