"""Results drawn over their video, beside the original: a contact sheet (.png) or a film (.mp4).

Only what is needed to see at a glance whether a recovery is right. Works at a reduced size; one frame of the video is
in memory at a time. V vertices.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from core import stream
from core.errors import Cancelled, InputError, OutputError
from core.raster import draw_mesh
from core.records import Camera, Motion
from core.result import AtomicFile, ensure_writable, explain_output_errors, read_result
from core.stages import Stages

COLORS = ((196, 154, 96), (96, 150, 214), (120, 190, 120), (190, 120, 190), (90, 190, 200), (150, 150, 150))
"""BGR, one per person."""
SHEET_FRAMES = 8
SHEET_COLUMNS = 2
SHEET_CELL_PX = 1200
"""Widest pair of original and drawing on a contact sheet."""
FILM_MAX_PX = 1920
ALPHA = 0.9
WIDE = 1.25
"""Images wider than this times their height are put one above the other."""


def draw_preview(
    results: Sequence[str | Path],
    video: str | Path,
    target: str | Path,
    *,
    body_path: str | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    stages: Stages | None = None,
) -> Path:
    """Draw result files of one video into target (.png or .mp4) and return its path.

    InputError for a result that is none or belongs to another body or video; OutputError; Cancelled.
    """
    target, stages = Path(target), stages or Stages()
    suffix = target.suffix.lower()
    if suffix not in (".png", ".mp4"):
        raise InputError(f"A preview is a .png or an .mp4 file, not {target.name}")
    motions = [read_result(path, with_vertices=False) for path in results]
    if not motions:
        raise InputError("A preview needs at least one result file")
    body = stages.load_body(body_path, "cpu")
    for path, motion in zip(results, motions):
        if motion.extra["body"] != body.name:
            raise InputError(
                f"{Path(path).name} was made with the body {motion.extra['body']!r}, not {body.name!r}: give its "
                "file with --body"
            )
    ensure_writable(target.parent)
    first = min(int(m.frames[0]) for m in motions)
    last = max(int(m.frames[-1]) for m in motions)
    wanted = np.arange(first, last + 1)
    if suffix == ".png":
        wanted = np.unique(np.linspace(first, last, SHEET_FRAMES + 2)[1:-1].round().astype(int))
    pictures = _pictures(motions, video, wanted, body, stages, should_stop, on_progress, suffix == ".png")
    if suffix == ".png":
        _write_sheet(target, list(pictures))
    else:
        _write_film(target, pictures, motions[0].extra["fps"])
    return target


def _pictures(
    motions: list[Motion],
    video: str | Path,
    wanted: np.ndarray,
    body: Any,
    stages: Stages,
    should_stop: Callable[[], bool],
    on_progress: Callable[[int, int], None],
    is_sheet: bool,
) -> Iterator[np.ndarray]:
    """Yield original and drawing side by side (or one above the other) for each wanted source frame."""
    faces = np.asarray(stream.from_array(stream.to_array(body.quads, "<i4")))
    camera = motions[0].camera
    with stages.open_frames(video, int(wanted[0]), int(wanted[-1]) + 1) as reader:
        size = (reader.clip.width, reader.clip.height)
        if size != (camera.width, camera.height):
            raise InputError(
                f"{Path(video).name} is {size[0]} x {size[1]} px, the result was made from {camera.width} x "
                f"{camera.height} px: another video"
            )
        is_wide = size[0] > WIDE * size[1]
        room = SHEET_CELL_PX if is_sheet else FILM_MAX_PX
        scale = min(1.0, (room if is_wide else room / 2) / size[0])
        small = _scaled(camera, scale)
        needed = set(wanted.tolist())
        done = 0
        for frame in reader:
            if should_stop():
                raise Cancelled("Stopped while drawing the preview")
            if frame.index not in needed:
                continue
            image = cv2.resize(frame.image, (small.width, small.height), interpolation=cv2.INTER_AREA)
            drawn = image
            for person, vertices in _bodies_at(motions, frame.index, body, stages):
                color = COLORS[person % len(COLORS)]
                drawn = draw_mesh(drawn, vertices, faces, small, color=color, alpha=ALPHA)
            image = image.copy()
            cv2.putText(image, str(frame.index), (8, 22), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (0, 0, 0), 4, cv2.LINE_AA)
            cv2.putText(image, str(frame.index), (8, 22), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255,) * 3, 1, cv2.LINE_AA)
            yield np.concatenate([image, drawn], axis=0 if is_wide else 1)
            done += 1
            on_progress(done, len(wanted))
    if not done:
        raise InputError(f"{Path(video).name} ends before the frames of the result: another video")


def _bodies_at(motions: list[Motion], frame: int, body: Any, stages: Stages) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (person, vertices [V,3] in the camera frame) of everybody in that frame, the farthest first."""
    found = []
    for motion in motions:
        at = frame - int(motion.frames[0])
        if not 0 <= at < len(motion):
            continue
        part = slice(at, at + 1)
        world = stages.vertices(body, motion.poses[part], motion.betas, motion.trans[part])[0]
        vertices = (world - motion.t_world_from_cam[at]) @ motion.R_world_from_cam[at]  # = R^T (x - t), by rows
        found.append((motion.person, vertices))
    found.sort(key=lambda pair: -float(pair[1][:, 2].mean()))
    yield from found


def _scaled(camera: Camera, scale: float) -> Camera:
    """Return the camera of an image reduced by scale, with even sides (video codecs ask for them)."""
    width, height = (max(2, round(n * scale) // 2 * 2) for n in (camera.width, camera.height))
    x, y = width / camera.width, height / camera.height
    return Camera(camera.fx * x, camera.fy * y, camera.cx * x, camera.cy * y, width, height)


def _write_sheet(target: Path, pictures: list[np.ndarray]) -> None:
    columns = SHEET_COLUMNS if len(pictures) > 1 else 1
    height, width = pictures[0].shape[:2]
    rows = -(-len(pictures) // columns)
    gap = 6
    shape = (rows * (height + gap) - gap, columns * (width + gap) - gap, 3)
    sheet = np.full(shape, 255, np.uint8)
    for i, picture in enumerate(pictures):
        y, x = (i // columns) * (height + gap), (i % columns) * (width + gap)
        sheet[y : y + height, x : x + width] = picture
    encoded = cv2.imencode(".png", sheet)[1]
    with explain_output_errors(target), AtomicFile(target) as file:
        file.write(encoded.tobytes())


def _write_film(target: Path, pictures: Iterator[np.ndarray], fps: float) -> None:
    temporary = target.with_name(f".{target.stem[:60]}.{uuid.uuid4().hex[:8]}.tmp.mp4")
    writer = None
    try:
        for picture in pictures:
            if writer is None:
                size = (picture.shape[1], picture.shape[0])
                writer = cv2.VideoWriter(str(temporary), cv2.VideoWriter.fourcc(*"mp4v"), fps, size)
                if not writer.isOpened():
                    raise OutputError(f"Cannot write {target}: this OpenCV has no MPEG-4 encoder; use a .png")
            writer.write(picture)
        writer.release()
        with explain_output_errors(target):
            temporary.replace(target)
    finally:
        if writer is not None:
            writer.release()
        with explain_output_errors(target):
            temporary.unlink(missing_ok=True)
