"""The display turn of films against boxes written from the standard."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from addon.scene.turned import display_turn

MATRICES = {0: (1, 0, 0, 1), 90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}


def box(kind: bytes, data: bytes, *, large: bool = False) -> bytes:
    if large:
        return struct.pack(">I4sQ", 1, kind, len(data) + 16) + data
    return struct.pack(">I4s", len(data) + 8, kind) + data


def track_header(turn: int, size: tuple[int, int], version: int = 0) -> bytes:
    """tkhd: version, times, id, duration, layer, group, volume, matrix, width, height (16.16 fixed point)."""
    times = struct.pack(">QQIIQ", 1, 2, 3, 0, 4) if version else struct.pack(">IIIII", 1, 2, 3, 0, 4)
    a, b, c, d = (round(x * 65536) for x in MATRICES[turn])
    matrix = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    flags = struct.pack(">I", version << 24 | 7)
    rest = struct.pack(">8xhhHxx", 0, 0, 0)
    return box(b"tkhd", flags + times + rest + matrix + struct.pack(">II", size[0] << 16, size[1] << 16))


def film(*tracks: bytes, large: bool = False) -> bytes:
    moov = box(b"mvhd", bytes(100)) + b"".join(box(b"trak", t + box(b"mdia", bytes(50))) for t in tracks)
    return box(b"ftyp", b"isom") + box(b"mdat", bytes(1000), large=large) + box(b"moov", moov)


@pytest.mark.parametrize("turn", MATRICES)
@pytest.mark.parametrize("version", [0, 1])
def test_turn_of_the_picture_track(tmp_path: Path, turn: int, version: int) -> None:
    path = tmp_path / "ü.mov"
    sound = track_header(90, (0, 0), version)
    path.write_bytes(film(sound, track_header(turn, (1920, 1080), version), large=version == 1))
    assert display_turn(str(path)) == turn


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"RIFF1234AVI ",
        bytes(5000),
        b"\xff" * 5000,
        film(track_header(90, (9, 9)))[:-90],
        struct.pack(">I4s", 1, b"moov"),
        film(box(b"tkhd", b"")),
    ],
)
def test_other_files_are_not_turned(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(data)
    assert display_turn(str(path)) == 0
    assert display_turn(str(tmp_path / "none.mp4")) == 0
