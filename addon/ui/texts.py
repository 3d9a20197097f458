"""Words of the panels: durations, amounts, messages broken into lines. No bpy."""

from __future__ import annotations

from collections.abc import Callable


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


def format_frames(frames: int, people: int) -> str:
    """Return an amount of motion in words: "121 frames", "418 frames of 2 people"."""
    text = f"{frames} {'frame' if frames == 1 else 'frames'}"
    return f"{text} of {people} people" if people > 1 else text


def wrap(text: str, room: float, measure: Callable[[str], float] = len) -> list[str]:
    """Break a message into lines that `measure` finds no wider than `room`; long paths are broken too."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".lstrip()
        if measure(longer) <= room:
            lines[-1] = longer
            continue
        if lines[-1]:
            lines.append("")
        while len(word) > 1 and measure(word) > room:
            fitting = next((n for n in range(len(word) - 1, 1, -1) if measure(word[:n]) <= room), 1)
            lines[-1:] = [word[:fitting], ""]
            word = word[fitting:]
        lines[-1] = word
    return lines
