"""core.result: the file's fields, atomic writing, and one-line errors for folders that cannot be written."""

from __future__ import annotations

import errno
import os
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest

from core import result
from core.errors import InputError, OutputError
from core.records import Camera, Motion


def make_motion(count: int = 7, *, vertices: int = 0, seed: int = 0) -> Motion:
    """Random but valid motion."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    return Motion(
        person=3,
        frames=np.arange(10, 10 + count, dtype=np.int32),
        times=np.arange(count) / 29.97,
        poses=draw(count, 72),
        trans=draw(count, 3),
        betas=draw(16),
        joints_cam=draw(count, 24, 3),
        keypoints2d=draw(count, 25, 3),
        confidence=rng.uniform(size=count).astype(np.float32),
        camera=Camera(900.0, 901.0, 320.0, 240.0, 640, 480),
        R_world_from_cam=draw(count, 3, 3),
        t_world_from_cam=draw(count, 3),
        contacts=rng.uniform(size=(count, 4)).astype(np.float32),
        vertices_cam=draw(count, vertices, 3) if vertices else None,
    )


def write(path: Path, motion: Motion, **options) -> Path:
    return result.write_result(path, motion, fps=29.97, body_name="anny", **options)


def test_file_holds_every_field_without_pickle(tmp_path):
    motion = make_motion(vertices=5)
    path = write(result.result_path(tmp_path, "some/där clip.mp4", 3), motion)
    assert path.name == "där clip_person3.npz"
    with np.load(path, allow_pickle=False) as data:
        assert sorted(data.files) == sorted(
            "frames times poses trans betas gender mocap_framerate joints_cam vertices_cam keypoints2d confidence "
            "camera method version body video job job_quality job_people job_complete R_world_from_cam "
            "t_world_from_cam contacts".split()
        )
        assert data["poses"].shape == (7, 72) and data["poses"].dtype == np.float32
        assert data["camera"].tolist() == [900.0, 901.0, 320.0, 240.0, 640.0, 480.0]
        assert float(data["mocap_framerate"]) == 29.97
        assert str(data["gender"]) == "neutral" and str(data["method"]) == "fit"
        np.testing.assert_array_equal(data["vertices_cam"], motion.vertices_cam)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None


def test_reading_gives_back_what_was_written(tmp_path):
    motion = make_motion()
    again = result.read_result(write(tmp_path / "clip_person3.npz", motion))
    for name in result.FIELDS:
        np.testing.assert_array_equal(getattr(again, name), getattr(motion, name), err_msg=name)
    assert (again.person, again.method, again.gender) == (3, "fit", "neutral")
    assert again.vertices_cam is None and again.extra["fps"] == 29.97 and again.extra["body"] == "anny"


def test_the_video_is_named_and_older_files_without_it_are_read(tmp_path):
    path = write(tmp_path / "a_person0.npz", make_motion(), video="d\u00e4r.mp4", quality="high")
    assert result.read_result(path).extra["video"] == "d\u00e4r.mp4"
    assert result.read_result(path).extra["job_quality"] == "high"
    with np.load(path) as data:
        arrays = {name: data[name] for name in data.files if name not in ("video", "job_quality")}
    np.savez(tmp_path / "old_person0.npz", **arrays)
    assert result.read_result(tmp_path / "old_person0.npz").extra["video"] == ""
    assert result.read_result(tmp_path / "old_person0.npz").extra["job_quality"] == ""


def test_amass_tools_read_it(tmp_path):
    """AMASS readers take poses[:, :66] as root + 21 body joints, trans, betas, gender and mocap_framerate."""
    path = write(tmp_path / "a_person0.npz", make_motion())
    amass = dict(np.load(path))
    assert amass["poses"][:, :66].shape == (7, 66) and amass["trans"].shape == (7, 3) and amass["betas"].size == 16
    assert amass["gender"].item() == "neutral" and amass["mocap_framerate"].item() == 29.97


def test_vertices_stream_in_chunks(tmp_path):
    motion = make_motion(11)
    whole = np.random.default_rng(1).normal(size=(11, 6, 3)).astype(np.float32)
    path = write(tmp_path / "a_person0.npz", motion, vertices=(whole[i : i + 4] for i in (0, 4, 8)), vertex_count=6)
    np.testing.assert_array_equal(result.read_result(path).vertices_cam, whole)
    assert result.read_result(path, with_vertices=False).vertices_cam is None


@pytest.mark.parametrize("chunks", [[np.zeros((3, 6, 3))], [np.zeros((7, 5, 3))]])
def test_vertices_that_do_not_fit_leave_no_file(tmp_path, chunks):
    with pytest.raises(ValueError, match="vertices"):
        write(tmp_path / "a_person0.npz", make_motion(7), vertices=chunks, vertex_count=6)
    assert list(tmp_path.iterdir()) == []


def test_wrong_shape_and_nan_are_refused(tmp_path):
    motion = make_motion()
    motion.trans = motion.trans[:, :2]
    with pytest.raises(ValueError, match="trans has shape"):
        write(tmp_path / "a.npz", motion)
    motion = make_motion()
    motion.poses[3, 5] = np.nan
    with pytest.raises(ValueError, match="poses holds values that are not finite"):
        write(tmp_path / "a.npz", motion)
    assert list(tmp_path.iterdir()) == []


def test_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = write(tmp_path / "a_person0.npz", make_motion(seed=1))
    before = path.read_bytes()

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array", full)
    with pytest.raises(OutputError, match="No space left on the disk while writing .*a_person0.npz") as info:
        write(path, make_motion(seed=2))
    assert "\n" not in str(info.value)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["a_person0.npz"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root to mount a small disk")
def test_full_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        result.ensure_writable(disk)
        with pytest.raises(OutputError, match="No space left on the disk"):
            write(disk / "a_person0.npz", make_motion(200, vertices=100))
        assert list(disk.iterdir()) == []
        with pytest.raises(OutputError, match="Not enough space in .*5.0 GB are needed, 1 MB free"):
            result.ensure_writable(disk, expected_bytes=5 * 10**9)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.EPERM])
def test_read_only_folder(tmp_path, monkeypatch, code):
    def refuse(self, *args, **kwargs):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(OutputError, match="read-only for you; choose another folder"):
        result.ensure_writable(tmp_path)


def test_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("x")
    for target in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OutputError, match="a file where a folder is needed"):
            result.ensure_writable(target)
    (tmp_path / "a_person0.npz").mkdir()
    with pytest.raises(OutputError):
        write(tmp_path / "a_person0.npz", make_motion())


def test_ensure_writable_makes_the_folder_and_leaves_it_empty(tmp_path):
    folder = result.ensure_writable(tmp_path / "new" / "ünder")
    assert folder.is_dir() and list(folder.iterdir()) == []


def test_files_that_are_no_result(tmp_path):
    with pytest.raises(InputError, match="No such result file"):
        result.read_result(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(InputError, match="not a readable result file"):
        result.read_result(tmp_path / "text.npz")
    np.savez(tmp_path / "other.npz", a=1)
    with pytest.raises(InputError, match="it lacks frames, times"):
        result.read_result(tmp_path / "other.npz")
    path = write(tmp_path / "cut_person0.npz", make_motion())
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(InputError, match="not a readable result file"):
        result.read_result(path)


def test_result_with_a_wrong_shape_is_refused(tmp_path):
    path = write(tmp_path / "a_person0.npz", make_motion())
    data = dict(np.load(path))
    data["poses"] = data["poses"][:, :66]
    np.savez(path, **data)
    with pytest.raises(InputError, match=r"poses is float32\(7, 66\), expected <f4\(7, 72\)"):
        result.read_result(path)
