"""Bad videos and bad folders through the real engine: one clear line, an exit code, no traceback, nothing written."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import wave
from pathlib import Path

import cv2
import numpy as np
import pytest

from core import __main__ as command
from core import pipeline
from tests.engine_doubles import FakeStages

ROOT = Path(__file__).resolve().parents[1]


def write_film(path: Path, frames: int, size: tuple[int, int] = (320, 240), fourcc: str = "MJPG") -> Path:
    """Noise and gradients: decodable, nobody in it."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*fourcc), 25, size)
    ramp = np.linspace(0, 255, size[0], dtype=np.uint8)
    for i in range(frames):
        writer.write(np.ascontiguousarray(np.broadcast_to(np.roll(ramp, i)[None, :, None], (size[1], size[0], 3))))
    writer.release()
    return path


def recover(capfd, video: Path, out: Path, *words: str) -> tuple[int, str]:
    """Run the command in this process (loading torch once); return exit code and what it said on stderr."""
    capfd.readouterr()
    code = command.main(["recover", str(video), "-o", str(out), "--quiet", *words])
    return code, capfd.readouterr().err


def assert_one_clear_line(code: int, err: str, video: Path, out: Path, *words: str) -> None:
    lines = [line for line in err.splitlines() if not line.startswith("[")]  # decoders write "[h264 @ ...]" lines
    assert code == 1
    assert len(lines) == 1 and "Traceback" not in err, err
    assert video.name in lines[0]
    for word in words:
        assert word in lines[0], lines[0]
    assert not out.exists() or not [p for p in out.iterdir() if p.name != ".hyper_mocap_cache"]


def audio_only_mp4() -> bytes:
    """The boxes of an MP4 whose only track is sound: ftyp, mdat, moov with one 'soun' track."""

    def box(kind: bytes, *parts: bytes) -> bytes:
        body = b"".join(parts)
        return struct.pack(">I4s", 8 + len(body), kind) + body

    full = b"\0\0\0\0"
    matrix = struct.pack(">9I", 65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)
    mvhd = box(b"mvhd", full, struct.pack(">4I", 0, 0, 8000, 8), struct.pack(">IH10x", 65536, 256), matrix)
    mvhd = mvhd[:4] + mvhd[4:]
    tkhd = box(b"tkhd", b"\0\0\0\7", struct.pack(">5I8xHHHH", 0, 0, 1, 0, 8, 0, 0, 256, 0), matrix, bytes(8))
    mdhd = box(b"mdhd", full, struct.pack(">4IHH", 0, 0, 8000, 8, 0x55C4, 0))
    hdlr = box(b"hdlr", full, bytes(4), b"soun", bytes(12), b"s\0")
    entry = box(b"sowt", bytes(6), struct.pack(">H8xHHHHI", 1, 1, 16, 0, 0, 8000 << 16))
    stbl = box(
        b"stbl",
        box(b"stsd", full, struct.pack(">I", 1), entry),
        box(b"stts", full, struct.pack(">3I", 1, 8, 1)),
        box(b"stsc", full, struct.pack(">4I", 1, 1, 8, 1)),
        box(b"stsz", full, struct.pack(">2I", 2, 8)),
        box(b"stco", full, struct.pack(">2I", 1, 32)),
    )
    dref = box(b"dref", full, struct.pack(">I", 1), box(b"url ", b"\0\0\0\1"))
    minf = box(b"minf", box(b"smhd", full, bytes(4)), box(b"dinf", dref), stbl)
    moov = box(b"moov", mvhd, box(b"trak", tkhd, box(b"mdia", mdhd, hdlr, minf)))
    return box(b"ftyp", b"isom", bytes(4), b"isom") + box(b"mdat", bytes(16)) + moov


def test_missing_file(tmp_path, capfd):
    video = tmp_path / "none.mp4"
    assert_one_clear_line(*recover(capfd, video, tmp_path / "out"), video, tmp_path / "out", "not found")


def test_text_file_called_mp4(tmp_path, capfd):
    video = tmp_path / "notes.mp4"
    video.write_text("This is no film.\n" * 50)
    assert_one_clear_line(*recover(capfd, video, tmp_path / "out"), video, tmp_path / "out", "text file")


def test_empty_file(tmp_path, capfd):
    video = tmp_path / "empty.mp4"
    video.write_bytes(b"")
    assert_one_clear_line(*recover(capfd, video, tmp_path / "out"), video, tmp_path / "out", "empty")


def test_truncated_video(tmp_path, capfd):
    """An MP4 keeps its index at the end: cut off while recording, it cannot be read."""
    video = write_film(tmp_path / "cut.mp4", 30, fourcc="mp4v")
    video.write_bytes(video.read_bytes()[:-2000])
    assert_one_clear_line(*recover(capfd, video, tmp_path / "out"), video, tmp_path / "out", "damaged")


def test_zero_frames(tmp_path, capfd):
    video = write_film(tmp_path / "zero.avi", 0)
    if not video.exists() or not video.stat().st_size:
        video.write_bytes(write_film(tmp_path / "one.avi", 1).read_bytes()[:2000])
    assert_one_clear_line(*recover(capfd, video, tmp_path / "out"), video, tmp_path / "out")


def test_sound_only(tmp_path, capfd):
    video = tmp_path / "song.mp4"
    with wave.open(str(tmp_path / "song.wav"), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(16000))
    video.write_bytes((tmp_path / "song.wav").read_bytes())
    assert_one_clear_line(*recover(capfd, video, tmp_path / "out"), video, tmp_path / "out", "sound")
    video.write_bytes(audio_only_mp4())
    assert_one_clear_line(*recover(capfd, video, tmp_path / "out"), video, tmp_path / "out", "no video")


def test_nobody_in_it(tmp_path, capfd):
    video = write_film(tmp_path / "empty_street.avi", 20)
    code, err = recover(capfd, video, tmp_path / "out")
    assert_one_clear_line(code, err, video, tmp_path / "out", "No person found in empty_street.avi")
    assert not list((tmp_path / "out").iterdir()), "neither an empty result nor a cache is left"


def test_one_frame_with_nobody(tmp_path, capfd):
    video = write_film(tmp_path / "single.avi", 1)
    words = ("No person found", "its 1 frame(s) are too few")
    assert_one_clear_line(*recover(capfd, video, tmp_path / "out"), video, tmp_path / "out", *words)


def test_8k_frames(tmp_path, capfd):
    video = write_film(tmp_path / "huge.avi", 1, size=(7680, 4320))
    assert_one_clear_line(*recover(capfd, video, tmp_path / "out"), video, tmp_path / "out", "No person found")


@pytest.mark.parametrize("suffix", [".png", ".avi"])
def test_one_pixel(tmp_path, capfd, suffix):
    video = tmp_path / f"dot{suffix}"
    if suffix == ".png":
        cv2.imwrite(str(video), np.zeros((1, 1, 3), np.uint8))
    else:
        write_film(video, 3, size=(1, 1))
    assert_one_clear_line(*recover(capfd, video, tmp_path / "out"), video, tmp_path / "out")


def test_start_after_the_end(tmp_path, capfd):
    video = write_film(tmp_path / "short.avi", 10)
    code, err = recover(capfd, video, tmp_path / "out", "--start", "60")
    assert_one_clear_line(code, err, video, tmp_path / "out", "ends at frame 9")


def test_wrong_body_file(tmp_path, capfd):
    video = write_film(tmp_path / "film.avi", 3)
    (tmp_path / "body.npz").write_bytes(b"no body")
    code, err = recover(capfd, video, tmp_path / "out", "--body", str(tmp_path / "body.npz"))
    assert code == 1 and "body.npz" in err and "Traceback" not in err and len(err.splitlines()) == 1


def test_results_folder_is_a_file(tmp_path, capfd):
    video = write_film(tmp_path / "film.avi", 3)
    (tmp_path / "file").write_text("x")
    code, err = recover(capfd, video, tmp_path / "file")
    assert code == 1 and "there is a file where a folder is needed" in err and len(err.splitlines()) == 1


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root to mount")
def test_read_only_and_full_folders(tmp_path, capfd, monkeypatch):
    """A disk mounted read-only, then one too small for the result; doubles do the recovery."""
    monkeypatch.setattr(pipeline, "Stages", lambda: FakeStages(frames=2000))
    video = tmp_path / "film.mp4"
    video.write_bytes(b"not read by the doubles")
    disk = tmp_path / "disk"
    disk.mkdir()
    for options, words in (("ro", "read-only for you"), ("size=256k", "Not enough space")):
        if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)]).returncode:
            pytest.skip("mounting is not allowed here")
        try:
            code, err = recover(capfd, video, disk)
            assert code == 1 and words in err and len(err.splitlines()) == 1, err
            assert list(disk.iterdir()) == []
        finally:
            subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root to mount")
def test_disk_that_fills_up_while_working(tmp_path, capfd, monkeypatch):
    """Space vanishes after the check: the cache is given up, then the result says so; no half file stays."""
    disk = tmp_path / "disk"
    disk.mkdir()

    class Filling(FakeStages):
        def place(self, *arguments):
            with (disk / "filler").open("wb", buffering=0) as file:
                while file.write(bytes(4096)) == 4096 and _free(disk):
                    pass
            return super().place(*arguments)

    monkeypatch.setattr(pipeline, "Stages", lambda: Filling(frames=300))
    video = tmp_path / "film.mp4"
    video.write_bytes(b"not read by the doubles")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        code, err = recover(capfd, video, disk)
        assert code == 1 and "No space left on the disk while writing" in err and "Traceback" not in err
        assert not list(disk.glob("*.npz")) and not list(disk.glob(".*.tmp"))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def _free(disk: Path) -> int:
    status = os.statvfs(disk)
    return status.f_bavail


def test_real_processes_exit_with_one_line(tmp_path):
    """Nothing but the line: neither a bar nor what decoders think of a damaged file."""
    text = tmp_path / "notes.mp4"
    text.write_text("This is no film.\n" * 50)
    cut = write_film(tmp_path / "cut.mp4", 30, fourcc="mp4v")
    cut.write_bytes(cut.read_bytes()[:-2000])
    process = subprocess.run(
        [sys.executable, "-m", "core", "recover", str(text), str(cut), "-o", str(tmp_path / "out")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert process.returncode == 1 and process.stdout == ""
    lines = process.stderr.splitlines()
    assert len(lines) == 2, process.stderr
    assert lines[0] == "[1/2] notes.mp4: notes.mp4 is a text file, not a video"
    assert lines[1].startswith("[2/2] cut.mp4: cut.mp4 holds no video stream that can be decoded")
