"""Result files: one person's Motion as DIR/<stem>_personN.npz, written atomically and read without pickle.

The file is a plain uncompressed .npz that AMASS tools read (poses, trans, betas, gender, mocap_framerate), with
everything else a Motion holds beside it (FIELDS). Vertices are streamed into it a chunk at a time, so that they
never exist in memory all at once. It appears under its name only when it is complete.
"""

from __future__ import annotations

import contextlib
import errno
import re
import shutil
import uuid
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from core.atomic import AtomicFile
from core.errors import InputError, OutputError
from core.records import Camera, Motion
from core.skeleton import SHAPE_COUNT
from core.version import VERSION

FIELDS: dict[str, tuple[str, tuple[int | str, ...]]] = {
    "frames": ("<i4", ("N",)),
    "times": ("<f8", ("N",)),
    "poses": ("<f4", ("N", 72)),
    "trans": ("<f4", ("N", 3)),
    "betas": ("<f4", (SHAPE_COUNT,)),
    "joints_cam": ("<f4", ("N", 24, 3)),
    "keypoints2d": ("<f4", ("N", 25, 3)),
    "confidence": ("<f4", ("N",)),
    "camera": ("<f8", (6,)),
    "R_world_from_cam": ("<f4", ("N", 3, 3)),
    "t_world_from_cam": ("<f4", ("N", 3)),
    "contacts": ("<f4", ("N", 4)),
}
"""Arrays of a result file: dtype and shape. camera = fx fy cx cy width height in pixels of the upright image."""
TEXTS = ("gender", "method", "version", "body", "job")
"""`job` identifies video, options and version, so that a later run knows what it need not do again."""
NEWER_TEXTS = ("video", "job_quality")
"""Texts that older files lack: `video` is the clip's file name, without its folder, as results may be passed on.
`job_quality` is the option of that name.
"""
NUMBERS = ("mocap_framerate", "job_people", "job_complete")
BYTES_PER_FRAME = sum(
    int(np.dtype(dtype).itemsize * np.prod(shape[1:], dtype=int))
    for dtype, shape in FIELDS.values()
    if shape[0] == "N"
)
"""Size of a frame in a result file without vertices."""
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}


def result_path(out_dir: str | Path, video: str | Path, person: int) -> Path:
    """Return where a person's result belongs."""
    return Path(out_dir) / f"{stem_of(video)}_person{person}.npz"


def stem_of(video: str | Path) -> str:
    """Return the name of a video without suffix; of an image sequence (shot_%04d.png) without its number."""
    stem = Path(video).resolve().stem if Path(video).is_dir() else Path(video).stem
    return re.sub(r"[ ._-]*(%0?[0-9]*d|#+)", "", stem) or "video"


def ensure_writable(out_dir: str | Path, *, expected_bytes: int = 0) -> Path:
    """Make the folder, prove that a file can be written there, and that about `expected_bytes` fit.

    Called before the long work. OutputError says what is wrong and what to do.
    """
    folder = Path(out_dir)
    with explain_output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "not a folder")
        probe = folder / f".hyper_mocap_{uuid.uuid4().hex}.tmp"
        try:
            with probe.open("wb") as file:
                file.write(bytes(4096))
        finally:
            with contextlib.suppress(OSError):
                probe.unlink()
        free = _free_bytes(folder)
    if free < expected_bytes:
        raise OutputError(
            f"Not enough space in {folder}: about {_megabytes(expected_bytes)} are needed, {_megabytes(free)} free"
        )
    return folder


@contextlib.contextmanager
def explain_output_errors(path: Path) -> Iterator[None]:
    """Turn operating system errors while writing under `path` into one-line OutputErrors."""
    try:
        yield
    except OSError as error:
        code = error.errno
        if code in _FULL:
            text = f"No space left on the disk while writing {path}: free some space, or choose another folder"
        elif code in _READ_ONLY:
            text = f"Cannot write to {path}: the folder is read-only for you; choose another folder"
        elif code in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
            text = f"Cannot write to {path}: there is a file where a folder is needed (or the other way round)"
        elif code == errno.ENAMETOOLONG:
            text = f"Cannot write to {path}: the name is too long for this disk"
        else:
            text = f"Cannot write to {path}: {error.strerror or error}"
        raise OutputError(text) from error


def write_result(
    path: str | Path,
    motion: Motion,
    *,
    fps: float,
    body_name: str = "",
    video: str = "",
    job: str = "",
    quality: str = "",
    people: int = 1,
    is_complete: bool = True,
    vertices: Iterable[np.ndarray] | None = None,
    vertex_count: int = 0,
) -> Path:
    """Write one person's result file and return its path. OutputError if it cannot be written.

    fps: average rate of the frames in the file. video: the clip's file name. job: key of the job, which wrote
    `people` files; quality: its option of that name; is_complete: it was not stopped. vertices: chunks [n,V,3] in
    metres, camera frame, that together cover all N frames (V = vertex_count); without it, `motion.vertices_cam` is
    written where present.
    """
    path = Path(path)
    if vertices is None and motion.vertices_cam is not None:
        vertices, vertex_count = [motion.vertices_cam], motion.vertices_cam.shape[1]
    arrays = _arrays_of(motion)
    arrays["mocap_framerate"] = np.float64(fps)
    texts = {"gender": motion.gender, "method": motion.method, "version": VERSION, "body": body_name}
    arrays["job_people"], arrays["job_complete"] = np.int32(people), np.bool_(is_complete)
    texts["job"], texts["job_quality"], texts["video"] = job, quality, video
    arrays.update({name: np.array(text) for name, text in texts.items()})
    with explain_output_errors(path), AtomicFile(path) as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)
            if vertices is not None:
                _write_vertices(archive, vertices, len(motion), vertex_count)
    return path


def read_result(path: str | Path, *, with_vertices: bool = True) -> Motion:
    """Read a result file back. InputError if the file is not one. `extra` holds fps, version, body, job and video."""
    try:
        with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as archive:
            missing = [name for name in (*FIELDS, *TEXTS, *NUMBERS) if name not in archive]
            if missing:
                raise InputError(f"{path} is not a Hyper Mocap result: it lacks {', '.join(missing)}")
            data = {name: archive[name] for name in archive.files if name != "vertices_cam"}
            vertices = archive["vertices_cam"] if with_vertices and "vertices_cam" in archive else None
    except FileNotFoundError:
        raise InputError(f"No such result file: {path}") from None
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, AttributeError) as error:
        raise InputError(f"{path} is not a readable result file (.npz): {error}") from error
    count = len(data["frames"])
    for name, (dtype, shape) in FIELDS.items():
        expected = tuple(count if n == "N" else n for n in shape)
        if data[name].shape != expected or data[name].dtype != np.dtype(dtype):
            raise InputError(f"{path}: {name} is {data[name].dtype}{data[name].shape}, expected {dtype}{expected}")
    fx, fy, cx, cy, width, height = data["camera"]
    stem = Path(path).stem
    number = stem.rsplit("_person", 1)[-1]
    return Motion(
        person=int(number) if number.isdigit() else 0,
        camera=Camera(float(fx), float(fy), float(cx), float(cy), int(width), int(height)),
        method=str(data["method"]),
        gender=str(data["gender"]),
        vertices_cam=vertices,
        extra={
            "fps": float(data["mocap_framerate"]),
            "version": str(data["version"]),
            "body": str(data["body"]),
            "job": str(data["job"]),
            **{name: str(data.get(name, "")) for name in NEWER_TEXTS},
            "job_people": int(data["job_people"]),
            "is_complete": bool(data["job_complete"]),
        },
        **{name: data[name] for name in FIELDS if name != "camera"},
    )


def _arrays_of(motion: Motion) -> dict[str, np.ndarray]:
    camera = motion.camera
    values = {name: getattr(motion, name) for name in FIELDS if name != "camera"}
    values["camera"] = [camera.fx, camera.fy, camera.cx, camera.cy, camera.width, camera.height]
    arrays = {}
    for name, (dtype, shape) in FIELDS.items():
        array = np.ascontiguousarray(values[name], dtype=dtype)
        expected = tuple(len(motion) if n == "N" else n for n in shape)
        if array.shape != expected:
            raise ValueError(f"{name} has shape {array.shape}, expected {expected}")
        if not np.isfinite(array).all():
            raise ValueError(f"{name} holds values that are not finite")
        arrays[name] = array
    return arrays


def _write_vertices(archive: zipfile.ZipFile, chunks: Iterable[np.ndarray], count: int, vertex_count: int) -> None:
    """Write vertices_cam.npy [count, vertex_count, 3] float32 into the open archive, chunk by chunk."""
    header = {"descr": "<f4", "fortran_order": False, "shape": (count, vertex_count, 3)}
    written = 0
    with archive.open("vertices_cam.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array_header_1_0(member, header)
        for chunk in chunks:
            chunk = np.ascontiguousarray(chunk, dtype="<f4")
            if chunk.shape[1:] != (vertex_count, 3):
                raise ValueError(f"vertices have shape {chunk.shape}, expected [n, {vertex_count}, 3]")
            member.write(chunk.tobytes())
            written += len(chunk)
    if written != count:
        raise ValueError(f"vertices cover {written} of {count} frames")


def _free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def _megabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(1, round(count / 1e6))} MB"
