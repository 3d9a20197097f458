"""Films without truth: perception once, every method on every person, and the table of what can be said.

With `use_mirror` the film is also perceived with its frames turned round, and every method recovers that as well.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from core.evaluate import like_motion
from core.evaluate.footage import measure_footage, measure_landmarks, motion_keypoints
from core.evaluate.ground import measure_ground
from core.evaluate.measure import detector_keypoints
from core.evaluate.mirror import MirroredReader, mirror_track, mirrored_distance, pair_tracks
from core.options import JobOptions
from core.records import Camera, CameraMotion, Track
from core.video import VideoReader
from core.world import place

Recover = Callable[[Track, Camera], CameraMotion]
Table = dict[str, dict[str, float]]
COLUMNS = ("reprojection", "reprojection_90", "jitter", "jitter_24", *like_motion.COLUMNS, "limb_variation_pct",
           "limb_asymmetry_pct", "mirror_mm", "film_mirror_mm", "flipped_pct", "longest_flip", "bent_back",
           "foot_slide", "planted_pct", "sunk_mm", "sunk_mean_mm", "covered", "fps")  # fmt: skip


def evaluate_film(
    path: str | Path,
    methods: dict[str, Recover],
    body,
    *,
    device: str = "cpu",
    quality: str = "standard",
    use_mirror: bool = False,
    mocap: like_motion.CapturedMotion | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Table]:
    """Tables by person, rows "detector" and the methods. VideoError where the film cannot be read. mocap: captured
    motion to compare jitter with; quality: of perception."""
    from core.perception import perceive
    from core.perception.quality import networks_for, tracking_for

    networks, config = networks_for(quality, device=device), tracking_for(quality)
    with VideoReader(path) as reader:
        camera = Camera.from_size(reader.clip.width, reader.clip.height)
        tracks = perceive(reader, networks=networks, config=config, on_progress=on_progress)
    others: list[Track] = []
    if use_mirror:
        with MirroredReader(path) as reader:
            others = perceive(reader, networks=networks, config=config, on_progress=on_progress)
    return {
        f"{Path(path).name}, person {person}": table
        for person, table in measure_tracks(tracks, others, camera, methods, body, mocap=mocap).items()
    }


def measure_tracks(
    tracks: list[Track],
    mirrored: list[Track],
    camera: Camera,
    methods: dict[str, Recover],
    body,
    *,
    mocap: like_motion.CapturedMotion | None = None,
) -> dict[int, Table]:
    """Person -> table. mirrored: what perception gave for the mirrored film, or none."""
    pairs = pair_tracks(tracks, [mirror_track(track, camera.width) for track in mirrored])
    tables: dict[int, Table] = {track.person: {"detector": measure_landmarks(track, camera)} for track in tracks}
    for k, other in pairs.items():
        landmarks = (detector_keypoints(t, camera).numpy() for t in (tracks[k], mirrored[other]))
        seen = (tracks[k].confidence > 0, mirrored[other].confidence > 0)
        frames = (tracks[k].frames, mirrored[other].frames)
        distance = mirrored_distance(*(zip(frames, landmarks, seen)))
        tables[tracks[k].person]["detector"]["film_mirror_mm"] = distance
    for name, recover in methods.items():
        motions, rates = _recover_all(recover, tracks, camera)
        for k, (track, motion) in enumerate(zip(tracks, motions)):
            turned = recover(mirror_track(track, camera.width), camera)
            values = measure_footage(motion, track, camera, body) | {"fps": rates[k]}
            values["mirror_mm"] = _motion_distance(motion, turned, body)
            if k in pairs:
                film = recover(mirrored[pairs[k]], camera)
                values["film_mirror_mm"] = _motion_distance(motion, film, body)
            tables[track.person][name] = values
        placed = place(motions, tracks, camera, body, smoothing_s=JobOptions().smoothing_s)
        for track, motion, final in zip(tracks, motions, placed):
            tables[track.person][name] |= measure_ground(final, body)
            if mocap is not None:
                tables[track.person][name] |= mocap.measure(motion, final, track)
    return tables


def _recover_all(recover: Recover, tracks: list[Track], camera: Camera) -> tuple[list[CameraMotion], list[float]]:
    """Everybody's motion, and frames per second of recovering each."""
    motions, rates = [], []
    for track in tracks:
        began = time.perf_counter()
        motions.append(recover(track, camera))
        rates.append(len(track) / (time.perf_counter() - began))
    return motions, rates


def _motion_distance(motion: CameraMotion, mirrored: CameraMotion, body) -> float:
    sides = []
    for m in (motion, mirrored):
        sides.append((m.frames, motion_keypoints(m, body).numpy(), np.ones(len(m), bool)))
    return mirrored_distance(*sides)
