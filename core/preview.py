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
from core.atomic import AtomicFile
from core.errors import Cancelled, InputError, OutputError
from core.raster import draw_mesh
from core.records import Camera, Motion
from core.result import ensure_writable, explain_output_errors, read_result
from core.stages import Stages

COLORS = ((196, 154, 96), (96, 150, 214), (120, 190, 120), (190, 120, 190), (90, 190, 200), (150, 150, 150))
"""BGR, one per person."""
SHEET_FRAMES = 8
SHEET_COLUMNS = 4
SHEET_CELL_PX = 480
"""Longest side of one picture on a contact sheet, which shows the people, not the whole image."""
SHEET_MARGIN = 0.2
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
    is_sheet = suffix == ".png"
    crops = _close_ups(motions, wanted) if is_sheet else None
    pictures = _pictures(motions, video, wanted, crops, body, stages, should_stop, on_progress)
    if is_sheet:
        _write_sheet(target, list(pictures))
    else:
        _write_film(target, pictures, motions[0].extra["fps"])
    return target


def _pictures(
    motions: list[Motion],
    video: str | Path,
    wanted: np.ndarray,
    crops: dict[int, tuple[int, int, int, int]] | None,
    body: Any,
    stages: Stages,
    should_stop: Callable[[], bool],
    on_progress: Callable[[int, int], None],
) -> Iterator[np.ndarray]:
    """Yield original and drawing, beside or above each other, for each wanted source frame (cropped where asked)."""
    faces = np.asarray(stream.from_array(stream.to_array(body.quads, "<i4")))
    camera = motions[0].camera
    needed, done = set(wanted.tolist()), 0
    with stages.open_frames(video, int(wanted[0]), int(wanted[-1]) + 1) as reader:
        size = (reader.clip.width, reader.clip.height)
        if size != (camera.width, camera.height):
            raise InputError(
                f"{Path(video).name} is {size[0]} x {size[1]} px, the result was made from {camera.width} x "
                f"{camera.height} px: another video"
            )
        for frame in reader:
            if should_stop():
                raise Cancelled("Stopped while drawing the preview")
            if frame.index not in needed:
                continue
            crop = (0, 0, *size) if crops is None else crops[frame.index]
            is_wide = crop[2] - crop[0] > WIDE * (crop[3] - crop[1])
            room = SHEET_CELL_PX if crops else FILM_MAX_PX // (1 if is_wide else 2)
            small = _scaled(_cropped(camera, crop), room)
            image = frame.image[crop[1] : crop[3], crop[0] : crop[2]]
            image = cv2.resize(image, (small.width, small.height), interpolation=cv2.INTER_AREA)
            drawn = image
            for person, vertices in _bodies_at(motions, frame.index, body, stages):
                color = COLORS[person % len(COLORS)]
                drawn = draw_mesh(drawn, vertices, faces, small, color=color, alpha=ALPHA)
            yield np.concatenate([_numbered(image, frame.index), drawn], axis=0 if is_wide else 1)
            done += 1
            on_progress(done, len(wanted))
    if not done:
        raise InputError(f"{Path(video).name} ends before the frames of the result: another video")


def _close_ups(motions: list[Motion], wanted: np.ndarray) -> dict[int, tuple[int, int, int, int]]:
    """Return, per wanted frame, the rectangle x0 y0 x1 y1 (px) around the people; all of one size."""
    camera = motions[0].camera
    boxes = {}
    for frame in wanted.tolist():
        points = [_joints_px(m, frame - int(m.frames[0])) for m in motions]
        points = np.concatenate([p for p in points if p is not None] or [np.zeros((0, 2))])
        if len(points):
            boxes[frame] = np.concatenate([points.min(0), points.max(0)])
    limit = np.array([camera.width, camera.height])
    size = np.max([box[2:] - box[:2] for box in boxes.values()], axis=0)
    size = np.minimum(np.ceil(size + 2 * SHEET_MARGIN * size.max()), limit).astype(int)
    crops, corner = {}, (limit - size) // 2
    for frame in wanted.tolist():
        if frame in boxes:
            middle = (boxes[frame][:2] + boxes[frame][2:]) / 2
            corner = np.clip((middle - size / 2).astype(int), 0, limit - size)
        crops[frame] = (*corner.tolist(), *(corner + size).tolist())
    return crops


def _joints_px(motion: Motion, at: int) -> np.ndarray | None:
    """Return the joints of one frame in pixels [24,2], clipped to the image; None outside the motion."""
    if not 0 <= at < len(motion):
        return None
    camera, joints = motion.camera, motion.joints_cam[at].astype(float)
    x = camera.fx * joints[:, 0] / np.maximum(joints[:, 2], 0.05) + camera.cx
    y = camera.fy * joints[:, 1] / np.maximum(joints[:, 2], 0.05) + camera.cy
    return np.stack([np.clip(x, 0, camera.width), np.clip(y, 0, camera.height)], -1)


def _numbered(image: np.ndarray, number: int) -> np.ndarray:
    image = image.copy()
    for color, thickness in (((0, 0, 0), 4), ((255, 255, 255), 1)):
        cv2.putText(image, str(number), (8, 22), cv2.FONT_HERSHEY_SIMPLEX, 0.6, color, thickness, cv2.LINE_AA)
    return image


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


def _cropped(camera: Camera, crop: tuple[int, int, int, int]) -> Camera:
    x0, y0, x1, y1 = crop
    return Camera(camera.fx, camera.fy, camera.cx - x0, camera.cy - y0, x1 - x0, y1 - y0)


def _scaled(camera: Camera, longest: int) -> Camera:
    """Return the camera of an image reduced to `longest` px at most, with even sides (video codecs ask for them)."""
    scale = min(1.0, longest / max(camera.width, camera.height))
    width, height = (max(2, round(n * scale) // 2 * 2) for n in (camera.width, camera.height))
    x, y = width / camera.width, height / camera.height
    return Camera(camera.fx * x, camera.fy * y, camera.cx * x, camera.cy * y, width, height)


def _write_sheet(target: Path, pictures: list[np.ndarray]) -> None:
    columns = min(SHEET_COLUMNS, len(pictures))
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
