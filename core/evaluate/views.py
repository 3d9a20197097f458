"""Methods on real films of one person that several calibrated cameras saw: each view alone against all together.

What a method makes of one film is compared with the person's keypoints triangulated from all films, in that film's
camera axes. The reference is the detector's own 2D keypoints seen from several sides: it shares their idea of where a
hip is, but not their depth, nor the sides that they exchange in one view.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from core.errors import InputError
from core.evaluate.footage import motion_keypoints
from core.evaluate.measure import LIMB_KEYPOINTS, detector_keypoints, keypoint_errors
from core.evaluate.rig import RigCamera, read_rig
from core.evaluate.triangulate import Reference, find_reference
from core.records import Camera, CameraMotion, Track, cut_track
from core.video import VideoReader

Recover = Callable[[Track, Camera], CameraMotion]
Table = dict[str, dict[str, float]]
FILMS = (".mp4", ".mov", ".avi", ".mkv")
CALIBRATIONS = ("*.toml", "*.qca.txt", "calibration/*.toml", "calibration/*.qca.txt")
COLUMNS = ("keypoint_mm", "keypoint_pa_mm", "keypoint_accel", "flipped_pct", "longest_flip", "image_mm", "covered")


def evaluate_views(
    folder: str | Path,
    methods: dict[str, Recover],
    body,
    *,
    device: str = "cpu",
    quality: str = "standard",
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[dict[str, Table], Reference]:
    """Tables by view, and "mean"; rows "detector", the methods, and the methods told the true focal length.

    folder: films of one person, frame by frame at the same times, whose order of name is the cameras', and a
    calibration. Raises InputError where films and cameras do not match or a view shows nobody.
    """
    from core.perception import perceive
    from core.perception.quality import networks_for, tracking_for

    networks, config = networks_for(quality, device=device), tracking_for(quality, max_people=1)
    films, rig = find_films(Path(folder))
    tracks, sizes = [], []
    for path in films:
        with VideoReader(path) as reader:
            found = perceive(reader, networks=networks, config=config, max_people=1, on_progress=on_progress)
            sizes.append((reader.clip.width, reader.clip.height))
        if not found:
            raise InputError(f"No person found in {path}")
        tracks.append(max(found, key=len))
    tracks = _common_frames(tracks)
    reference = find_reference(np.stack([track.keypoints for track in tracks]), rig, tracks[0].times)
    tables: dict[str, Table] = {}
    for c, (track, camera, size) in enumerate(zip(tracks, rig, sizes)):
        truth = reference.points @ camera.R.T + camera.t
        tables[films[c].stem] = _measure_view(track, truth, camera, reference.shifts[c], size, methods, body)
    rows = next(iter(tables.values()))
    tables["mean"] = {
        row: {name: float(np.mean([table[row][name] for table in tables.values()])) for name in rows[row]}
        for row in rows
    }
    return tables, reference


def find_films(folder: Path) -> tuple[list[Path], list[RigCamera]]:
    """Films of a folder, or of its folder `videos`, and the calibration beside them. Raises InputError."""
    places = [folder, folder / "videos"]
    films = sorted(path for place in places if place.is_dir() for path in place.iterdir() if path.suffix in FILMS)
    calibrations = [path for pattern in CALIBRATIONS for path in sorted(folder.glob(pattern))]
    for path in calibrations:
        try:
            rig = read_rig(path)
        except InputError:
            continue  # another file of the folder, such as settings
        if len(rig) != len(films):
            raise InputError(f"{folder} holds {len(films)} films, but {path.name} {len(rig)} cameras")
        return films, rig
    raise InputError(f"{folder} holds no calibration: a .toml of Anipose or Pose2Sim, or a .qca.txt of Qualisys")


def _measure_view(
    track: Track,
    truth: np.ndarray,
    camera: RigCamera,
    shift: np.ndarray,
    size: tuple[int, int],
    methods: dict[str, Recover],
    body,
) -> Table:
    expected = torch.from_numpy(truth.astype(np.float32))
    plain = Camera.from_size(*size)
    table = {"detector": keypoint_errors(detector_keypoints(track, plain), expected)}
    table["detector"] |= {"image_mm": _image_error(track, truth, camera, shift), "covered": 1.0}
    for told, seen_by in (("", plain), (", true focal", Camera.from_size(*size, float(camera.matrix[0, 0])))):
        for name, recover in methods.items():
            motion = recover(track, seen_by)
            n = len(motion.frames)
            values = keypoint_errors(motion_keypoints(motion, body), expected[:n])
            table[name + told] = values | {"covered": n / len(track)}
    return table


def _image_error(track: Track, truth: np.ndarray, camera: RigCamera, shift: np.ndarray) -> float:
    """mm, mean distance of the detector's limb keypoints from the truth in the picture, at the person's depth."""
    limbs = list(LIMB_KEYPOINTS)
    seen = camera.undistort(track.keypoints[:, limbs, :2]) - shift
    points = truth[:, limbs]
    focal = np.array([camera.matrix[0, 0], camera.matrix[1, 1]])
    expected = points[..., :2] / points[..., 2:] * focal + camera.matrix[:2, 2]
    return float((np.linalg.norm(seen - expected, axis=-1) * points[..., 2] / focal.mean()).mean() * 1000)


def _common_frames(tracks: list[Track]) -> list[Track]:
    """The frames in which every view has the person."""
    first = max(int(track.frames[0]) for track in tracks)
    last = min(int(track.frames[-1]) for track in tracks)
    if last - first < 2:
        raise InputError("The views do not show a person at the same time")
    return [cut_track(t, slice(first - int(t.frames[0]), last + 1 - int(t.frames[0]))) for t in tracks]
