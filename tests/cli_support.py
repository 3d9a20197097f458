"""Calling the command line in this process."""

from __future__ import annotations

from pathlib import Path

from core import __main__ as command

ROOT = Path(__file__).resolve().parents[1]


def call(*argv: object) -> int:
    return command.main([str(word) for word in argv])
