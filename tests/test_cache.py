"""core.cache: rows of chunks, what a damaged or foreign cache does, and keys."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest

from core.cache import Cache, fingerprint, job_key


def rows(cache: Cache, row: str) -> list[tuple[int, int, list]]:
    return [(start, stop, arrays["a"].tolist()) for start, stop, arrays in cache.read(row)]


def fill(root, key="k", *, count=4) -> Cache:
    cache = Cache(root, key, resume=False)
    for i in range(count):
        cache.write("fit_0", 10 * i, 10 * i + 10, {"a": np.full(3, i)})
    return cache


def test_chunks_come_back_in_order(tmp_path):
    fill(tmp_path).write("fit_01", 0, 5, {"a": np.zeros(1)})
    again = Cache(tmp_path, "k", resume=True)
    assert rows(again, "fit_0") == [(10 * i, 10 * i + 10, [i] * 3) for i in range(4)]
    assert rows(again, "perceive") == []


def test_length_ends_at_the_first_gap(tmp_path):
    cache = fill(tmp_path)
    assert (cache.length("fit_0"), cache.length("fit_1")) == (40, 0)
    (tmp_path / "k" / "fit_0-00000020-00000030.npz").unlink()
    assert cache.length("fit_0") == 20


def test_without_resume_the_old_is_gone(tmp_path):
    fill(tmp_path)
    assert rows(Cache(tmp_path, "k", resume=False), "fit_0") == []


def test_another_key_sees_nothing(tmp_path):
    fill(tmp_path)
    assert rows(Cache(tmp_path, "other", resume=True), "fit_0") == []


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "missing", "text"])
def test_damage_ends_the_row_there(tmp_path, caplog, damage):
    fill(tmp_path)
    path = tmp_path / "k" / "fit_0-00000020-00000030.npz"
    data = path.read_bytes()
    match damage:
        case "cut":
            path.write_bytes(data[: len(data) // 2])
        case "flip":
            path.write_bytes(flip(data))
        case "empty":
            path.write_bytes(b"")
        case "missing":
            path.unlink()
        case "text":
            path.write_text("not a zip")
    again = Cache(tmp_path, "k", resume=True)
    assert [r[:2] for r in rows(again, "fit_0")] == [(0, 10), (10, 20)]
    assert ("does not follow" if damage == "missing" else "damaged") in caplog.text
    again.truncate("fit_0", 20)
    again.write("fit_0", 20, 30, {"a": np.full(3, 9)})
    assert [r[2][0] for r in rows(again, "fit_0")] == [0, 1, 9]


def flip(data: bytes) -> bytes:
    """Change one byte of the stored numbers: the zip's checksum notices."""
    at = data.index(b"\x93NUMPY") + 128
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


def test_left_over_temporary_files_do_not_disturb(tmp_path):
    fill(tmp_path)
    (tmp_path / "k" / ".fit_0-00000040-00000050.npz.ab.tmp").write_bytes(b"half")
    assert len(rows(Cache(tmp_path, "k", resume=True), "fit_0")) == 4


def test_remove_leaves_nothing_but_other_jobs(tmp_path):
    root = tmp_path / "root"
    fill(root, "a").remove()
    assert not root.exists()
    fill(root, "a")
    fill(root, "b").remove()
    assert [p.name for p in root.iterdir()] == ["a"]


def test_forgotten_caches_go_after_two_weeks(tmp_path):
    old, recent, foreign = "0" * 24, "1" * 24, "my own folder"
    for name in (old, recent, foreign):
        (tmp_path / name).mkdir()
    days = 24 * 3600
    for name, age in ((old, 15), (recent, 13), (foreign, 100)):
        os.utime(tmp_path / name, (time.time() - age * days,) * 2)
    Cache(tmp_path, "2" * 24, resume=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == [recent, "2" * 24, foreign]


def test_a_cache_that_cannot_be_written_is_given_up(tmp_path, caplog):
    (tmp_path / "file").write_text("x")
    cache = Cache(tmp_path / "file", "k", resume=True)
    cache.write("fit_0", 0, 10, {"a": np.zeros(1)})
    assert not cache.is_kept and "cannot be resumed" in caplog.text
    assert rows(cache, "fit_0") == []


def test_no_root_keeps_nothing():
    cache = Cache(None, "k", resume=True)
    cache.write("fit_0", 0, 10, {"a": np.zeros(1)})
    cache.remove()
    assert not cache.is_kept and rows(cache, "fit_0") == []


def test_key_follows_content_options_and_version(tmp_path, monkeypatch):
    video = tmp_path / "v.mp4"
    data = bytearray(os.urandom(5 << 20))
    video.write_bytes(data)
    os.utime(video, (1, 1))
    key = job_key(video, method="fit")
    assert key == job_key(video, method="fit") and key != job_key(video, method="hyperbolic")
    for at in (10, len(data) // 2 + 5, len(data) - 1):
        changed = bytearray(data)
        changed[at] ^= 1
        video.write_bytes(changed)
        os.utime(video, (1, 1))
        assert job_key(video, method="fit") != key, at
    video.write_bytes(data)
    os.utime(video, (1, 1))
    assert job_key(video, method="fit") == key
    monkeypatch.setattr("core.cache.VERSION", "9")
    assert job_key(video, method="fit") != key


def test_fingerprint_of_an_image_sequence(tmp_path):
    for i in range(3):
        (tmp_path / f"shot_{i:04d}.png").write_bytes(bytes([i]))
    before = fingerprint(tmp_path)
    assert before == fingerprint(tmp_path / "shot_%04d.png")
    (tmp_path / "shot_0003.png").write_bytes(b"3")
    assert fingerprint(tmp_path) != before
