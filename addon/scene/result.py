"""Result files (.npz) without an engine: reads them, and builds their figures through the scene writer.

N frames. The file is what the engine writes: one person's motion in SMPL's terms, world z up, with its camera.
"""

from __future__ import annotations

import os
import re
import zipfile
from dataclasses import dataclass

import bpy
import numpy as np

from ..errors import ResultFileError
from ..wire import protocol
from .bodydata import BodyData
from .camera import first_picture
from .options import VERTEX_MODES, WriterOptions, WriterSummary
from .writer import SceneWriter

_SHAPES = {
    "frames": ("N",),
    "times": ("N",),
    "poses": ("N", 72),
    "trans": ("N", 3),
    "betas": ("S",),
    "confidence": ("N",),
    "contacts": ("N", 4),
    "camera": (6,),
    "R_world_from_cam": ("N", 3, 3),
    "t_world_from_cam": ("N", 3),
}
_CHUNK = 64


@dataclass(frozen=True)
class Result:
    """What a figure needs of a result file; the arrays are named as in the file."""

    path: str
    person: int
    arrays: dict[str, np.ndarray]
    method: str
    version: str
    body: str
    video: str
    """File name of the clip, or empty."""
    fps: float

    def __len__(self) -> int:
        return len(self.arrays["frames"])


def read_result(path: str) -> Result:
    """Read a result file. ResultFileError if it is missing or is not one. Vertices are not read here."""
    path = bpy.path.abspath(path)
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [name for name in _SHAPES if name not in archive]
            if missing:
                raise ResultFileError(f"{path} is not a Hyper Mocap result: it lacks {', '.join(missing)}")
            arrays = {name: archive[name] for name in _SHAPES}
            texts = {n: str(archive[n]) if n in archive else "" for n in ("method", "version", "body", "video")}
            fps = float(archive["mocap_framerate"]) if "mocap_framerate" in archive else 0.0
    except FileNotFoundError:
        raise ResultFileError(f"The result file {path} is gone: recover the motion again, or put it back") from None
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise ResultFileError(f"{path} is not a readable result file (.npz): {error}") from error
    count = len(arrays["frames"])
    for name, shape in _SHAPES.items():
        own = {"N": count, "S": arrays[name].size}
        expected = tuple(own.get(n, n) for n in shape)
        if arrays[name].shape != expected or not np.isfinite(arrays[name]).all():
            raise ResultFileError(f"{path}: {name} is damaged (shape {arrays[name].shape}, expected {expected})")
    if count == 0:
        raise ResultFileError(f"{path} holds no frames")
    digits = os.path.splitext(path)[0].rpartition("_person")[2]
    return Result(path, int(digits) if digits.isdigit() else 0, arrays, **texts, fps=fps)


def load_results(
    scene: bpy.types.Scene, paths: list[str], body: BodyData, options: WriterOptions | None = None, video: str = ""
) -> WriterSummary:
    """Build the figures of one clip's result files in a collection of their own.

    video: the clip they come from, for the camera's background; empty: the one that the files name, if
    `find_video` finds it. Raises ResultFileError before anything is built.
    """
    results = [read_result(path) for path in paths]
    if not results:
        raise ResultFileError("No result file was chosen")
    first = results[0]
    video = video or find_video(first)
    given = options or WriterOptions()
    stem = os.path.splitext(os.path.basename(video or first.path))[0]
    name = stem if video else re.sub(r"_person\d+$", "", stem)
    values = {n: getattr(given, n) for n in WriterOptions.__dataclass_fields__}
    values |= {"name": given.name or name}
    values |= {"method": given.method or first.method, "version": given.version or first.version}
    values |= {"use_background": given.use_background and bool(video)}
    writer = SceneWriter(scene, WriterOptions(**values))
    writer.use_body(body)
    width, height = (int(x) for x in first.arrays["camera"][4:])
    frame_count = max(int(r.arrays["frames"][-1]) + 1 for r in results)
    writer.handle(protocol.Video(video, width, height, first.fps, frame_count))
    for view in _views(first):
        writer.handle(view)
    for number, result in enumerate(results):
        person = result.person if len({r.person for r in results}) == len(results) else number
        if result.body and body.name and result.body not in (body.name, "default"):
            writer.warn(f"{os.path.basename(result.path)} was made for the body {result.body!r}, not {body.name!r}")
        betas = body.fit_betas(result.arrays["betas"])
        height_m = float(np.ptp(body.rest_vertices(betas)[:, 1]))
        writer.handle(protocol.Shape(person, height_m, _wire(betas, "<f4")))
        for message in _frames(result, person, values["mode"]):
            writer.handle(message)
            writer.tick(0.05)
        writer.set_result(person, result.path)
    return writer.finish()


def find_video(result: Result) -> str:
    """Return the clip that a result file names: beside it, in the folder above, or beside the .blend; else ""."""
    name = os.path.basename(result.video)
    folder = os.path.dirname(os.path.abspath(result.path))
    folders = [folder, os.path.dirname(folder)]
    folders += [os.path.dirname(bpy.data.filepath)] if bpy.data.filepath else []
    paths = [os.path.join(place, name) for place in folders] if name else []
    return next((path for path in paths if os.path.exists(first_picture(path))), "")


def _wire(array: np.ndarray, dtype: str) -> protocol.Array:
    array = np.ascontiguousarray(array, dtype=dtype)
    return protocol.Array(dtype, array.shape, array.tobytes())


def _views(result: Result) -> list[protocol.View]:
    """One View if the camera stands still, else one a frame."""
    a = result.arrays
    matrices = np.tile(np.eye(4), (len(result), 1, 1))
    matrices[:, :3, :3], matrices[:, :3, 3] = a["R_world_from_cam"], a["t_world_from_cam"]
    fx, fy, cx, cy, width, height = (float(x) for x in a["camera"])
    is_static = np.ptp(matrices, axis=0).max() < 1e-5
    rows = [0] if is_static else range(len(result))
    return [
        protocol.View(
            0 if is_static else int(a["frames"][i]),
            fx,
            fy,
            cx,
            cy,
            int(width),
            int(height),
            _wire(matrices[i], "<f4"),
        )
        for i in rows
    ]


def _frames(result: Result, person: int, mode: str):
    """Yield the motion as Frames, with world vertices where the mode wants them and the file has them."""
    a = result.arrays
    vertices = _read_vertices(result.path) if mode in VERTEX_MODES else None
    for start in range(0, len(result), _CHUNK):
        rows = slice(start, start + _CHUNK)
        extra = {}
        if vertices is not None:
            world = np.einsum("nab,nvb->nva", a["R_world_from_cam"][rows], vertices[rows])
            extra["vertices"] = _wire(world + a["t_world_from_cam"][rows, None], "<f4")
        yield protocol.Frames(
            person=person,
            frames=_wire(a["frames"][rows], "<i4"),
            times=_wire(a["times"][rows], "<f8"),
            **{n: _wire(a[n][rows], "<f4") for n in ("poses", "trans", "confidence", "contacts")},
            **extra,
        )


def _read_vertices(path: str) -> np.ndarray | None:
    """Camera-frame vertices [N, V, 3] of a file, or None."""
    with np.load(path, allow_pickle=False) as archive:
        return archive["vertices_cam"] if "vertices_cam" in archive else None
