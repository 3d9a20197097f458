"""How a phone's film is turned for display: the matrix in the track header of MP4 and MOV files. No bpy.

Blender turns such films itself from 4.5 on; 4.2 shows them as they lie in the file.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

_CONTAINERS = (b"moov", b"trak")
_TURNS = {(0, 1, -1, 0): 90, (-1, 0, 0, -1): 180, (0, -1, 1, 0): 270}
"""Rotation part a, b, c, d of the matrix -> degrees clockwise."""
_MAX_BOXES = 10_000


def display_turn(path: str) -> int:
    """Return the clockwise turn (0, 90, 180, 270) of the first track that has a size; 0 for any other file."""
    try:
        with open(path, "rb") as file:
            file.seek(0, 2)
            end = file.tell()
            return _turn_within(file, 0, end, [_MAX_BOXES]) or 0
    except (OSError, struct.error):
        return 0


def _turn_within(file: BinaryIO, start: int, end: int, left: list[int]) -> int | None:
    """Turn of the first picture track among the boxes (ISO 14496-12, 4.2) from start to end; None without one."""
    while start + 8 <= end and left[0] > 0:
        left[0] -= 1
        file.seek(start)
        size, kind = struct.unpack(">I4s", file.read(8))
        head = 8
        if size == 1:
            (size,), head = struct.unpack(">Q", file.read(8)), 16
        elif size == 0:
            size = end - start
        if size < head:
            return None
        if kind in _CONTAINERS:
            turn = _turn_within(file, start + head, min(start + size, end), left)
            if turn is not None:
                return turn
        elif kind == b"tkhd":
            return _turn_of_track(file.read(min(size - head, 104)))
        start += size
    return None


def _turn_of_track(data: bytes) -> int | None:
    """Turn in a track header (ISO 14496-12, 8.3.2): 9 fixed-point numbers, then width and height."""
    at = 52 if data[:1] == b"\1" else 40
    if len(data) < at + 44:
        return None
    a, b, _, c, d, _, _, _, _, width, height = struct.unpack(">9i2I", data[at : at + 44])
    if not width or not height:
        return None
    return _TURNS.get(tuple(round(x / 65536) for x in (a, b, c, d)), 0)
