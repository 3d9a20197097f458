"""Writes a small uncompressed AVI without any codec, so that tests know every fact about it."""

from __future__ import annotations

import struct
from pathlib import Path


def write_avi(
    path: Path, *, width: int = 64, height: int = 48, frames: int = 10, rate: int = 30, scale: int = 1
) -> Path:
    """Write grey frames that grow brighter, `rate / scale` of them a second, top row first; width a multiple of 4."""
    assert width % 4 == 0
    pictures = [bytes([8 * i % 256]) * (3 * width * height) for i in range(frames)]
    size = len(pictures[0])
    main = struct.pack("<14I", 1_000_000 * scale // rate, 0, 0, 0x10, frames, 0, 1, size, width, height, 0, 0, 0, 0)
    stream = struct.pack(
        "<4s4sIHHIIIIIIIIhhhh", b"vids", b"DIB ", 0, 0, 0, 0, scale, rate, 0, frames, size, 0, 0, 0, 0, width, height
    )
    picture = struct.pack("<IiiHHIIiiII", 40, width, -height, 1, 24, 0, size, 0, 0, 0, 0)
    header = _list(
        b"hdrl", _chunk(b"avih", main) + _list(b"strl", _chunk(b"strh", stream) + _chunk(b"strf", picture))
    )
    movie, index, offset = b"", b"", 4
    for data in pictures:
        movie += _chunk(b"00db", data)
        index += struct.pack("<4sIII", b"00db", 0x10, offset, size)
        offset += 8 + size + size % 2
    body = header + _list(b"movi", movie) + _chunk(b"idx1", index)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"RIFF" + struct.pack("<I", 4 + len(body)) + b"AVI " + body)
    return path


def _chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def _list(name: bytes, data: bytes) -> bytes:
    return _chunk(b"LIST", name + data)
