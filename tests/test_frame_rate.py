"""Frame rates and the words of the panels: plain functions, tested without Blender."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from addon.frame_rate import is_same_rate, scene_rate, set_frame_rate, split_rate, timeline_end
from addon.ui.texts import format_duration, format_eta, format_frames, wrap


@pytest.mark.parametrize(
    "fps, whole, base",
    [
        (30.0, 30, 1.0),
        (25.0, 25, 1.0),
        (30000 / 1001, 30, 1.001),
        (24000 / 1001, 24, 1.001),
        (60000 / 1001, 60, 1.001),
        (29.97003, 30, 1.001),
        (12.5, 12, 0.96),
        (0.4, 1, 2.5),
        (239.76, 240, 1.001),
    ],
)
def test_rates_as_blender_keeps_them(fps: float, whole: int, base: float) -> None:
    assert split_rate(fps) == (whole, pytest.approx(base, abs=1e-9))
    scene = SimpleNamespace(render=SimpleNamespace(fps=24, fps_base=1.0))
    set_frame_rate(scene, fps)
    assert scene_rate(scene) == pytest.approx(fps, rel=1e-4)


def test_near_rates_are_told_apart() -> None:
    assert not is_same_rate(30.0, 30000 / 1001)
    assert is_same_rate(29.97, 30000 / 1001)


def test_the_clip_ends_where_its_last_frame_is() -> None:
    scene = SimpleNamespace(render=SimpleNamespace(fps=24, fps_base=1.0), frame_start=101)
    assert timeline_end(scene, 48.0, 97) == 101 + 48
    assert timeline_end(scene, 24.0, 1) == 101


@pytest.mark.parametrize(
    "seconds, words",
    [(0.2, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (125, "2 min 05 s"), (3720, "1 h 02 min"), (-3, "0 s")],
)
def test_durations(seconds: float, words: str) -> None:
    assert format_duration(seconds) == words


def test_time_left() -> None:
    assert format_eta(-1.0) == "" and format_eta(0.4) == "almost done" and format_eta(70) == "1 min 10 s left"


def test_messages_are_wrapped_and_never_lost() -> None:
    text = "The engine stopped: /a/very/long/path/without/any/space/in/it/at/all.log says more"
    lines = wrap(text, 24)
    assert all(len(line) <= 24 for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert wrap("", 10) == [""]
    assert wrap("one two three", 7) == ["one two", "three"]


def test_lines_are_as_wide_as_they_are_drawn() -> None:
    """Capitals and > are wide: as many letters as fit on the average are cut off."""

    def width(text: str) -> float:
        return sum(2.0 if letter.isupper() or letter == ">" else 0.5 for letter in text)

    lines = wrap("switch on Preferences > System > Network > Allow Online Access", 12, width)
    assert lines == ["switch on Preferences", "> System >", "Network > Allow", "Online Access"]
    assert wrap("wwwwwwww/WWWW", 4, width) == ["wwwwwwww", "/W", "WW", "W"]
    assert wrap("WW", 1, width) == ["W", "W"], "a letter at least, however narrow"


def test_amounts_of_motion() -> None:
    assert [format_frames(*pair) for pair in ((1, 1), (121, 1), (418, 2))] == [
        "1 frame",
        "121 frames",
        "418 frames of 2 people",
    ]
