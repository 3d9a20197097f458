"""core.cli.console: the bar on a terminal and elsewhere, durations."""

from __future__ import annotations

import sys

import pytest

from core.cli.console import Console, duration


class Terminal:
    """A stream that claims to be a terminal."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        return None

    def isatty(self) -> bool:
        return True


def test_bar_is_redrawn_in_place_and_removed(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    out, err = Terminal(), Terminal()
    console = Console(out, err)
    console.bar("walk.mp4", 0.25, "recover 10/40  ETA 0:03")
    console.bar("walk.mp4", 0.5, "x")
    assert "\n" not in err.text and err.text.count("\r") == 2
    assert "[######------------------]  25%" in err.text and "[############------------]  50%" in err.text
    console.line("done")
    assert err.text.endswith("\r") and out.text == "done\n"


def test_bar_without_terminal_is_a_line_now_and_then(capsys, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("core.cli.console.time.monotonic", lambda: now[0])
    console = Console(sys.stdout, sys.stderr)
    for i in range(50):
        now[0] += 0.5
        console.bar("walk.mp4", i / 50, "recover")
    assert capsys.readouterr().err == "walk.mp4   38%  recover\nwalk.mp4   78%  recover\n"


@pytest.mark.parametrize(
    ("seconds", "text"), [(-1, "?"), (0.4, "0:00"), (65.2, "1:05"), (3661, "1:01:01"), (59.7, "1:00")]
)
def test_duration(seconds, text):
    assert duration(seconds) == text
