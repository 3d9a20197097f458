"""The perception stage: a video in, tracks of people out. Streaming; a few frames are in memory at a time.

A thread decodes, reduces and letterboxes ahead while the networks run.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from core.perception.anchors import Letterbox
from core.perception.networks import Networks, detector_regions, view_region
from core.perception.snapshot import Checkpoint
from core.perception.sofar import SoFar
from core.perception.stitch import build_tracks
from core.perception.track import Tracker, TrackingConfig
from core.records import Track
from core.video import VideoReader

MAX_SIDE = 2048
"""Longer frames are reduced before perception; coordinates stay those of the full frame."""
QUEUE_FRAMES = 6


@dataclass(frozen=True)
class _Prepared:
    index: int
    time: float
    image: np.ndarray
    """Reduced if the frame is longer than MAX_SIDE; empty if it is not looked at."""
    views: list[tuple[np.ndarray, Letterbox]]
    """For the detector, or empty if this frame is not due."""


def perceive(
    reader: VideoReader,
    *,
    device: torch.device | str = "cpu",
    max_people: int = 4,
    on_progress: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    config: TrackingConfig | None = None,
    networks: Networks | None = None,
    checkpoint: Checkpoint | None = None,
    on_track: Callable[[Track], None] | None = None,
) -> list[Track]:
    """Find and follow people through `reader`'s frames -> tracks, most prominent first; empty if nobody is there.

    on_progress(frames done, frames expected; 0 = unknown). Once should_stop() is true, the tracks so far are
    returned. on_track gets stretches of tracks meanwhile (sofar.py). Frames that the checkpoint holds are not
    perceived again. Raises VideoError if the video breaks, SetupError if the weights are missing or damaged.
    """
    networks = networks or Networks(device=device)
    config = config or TrackingConfig(max_people=max_people)
    tracker = Tracker(networks, config)
    times: list[float] = checkpoint.restore(tracker) if checkpoint is not None else []
    so_far = SoFar(
        reader.clip,
        reader.start,
        scale=working_scale(reader),
        max_people=max_people,
        numbers=tracker.numbers,
        look_every=config.look_every,
    )
    is_stopped = False
    if checkpoint is None or not checkpoint.is_complete:
        with closing(_prepare_ahead(reader, config, reader.start + len(times))) as frames:
            for frame in frames:
                if frame.image.size:
                    tracker.step(frame.index, frame.time, frame.image, frame.views)
                times.append(frame.time)
                so_far.number(tracker.people, len(times))
                if on_track is not None:
                    for stretch in so_far.take(tracker.people, times):
                        on_track(stretch)
                if checkpoint is not None:
                    checkpoint.keep(tracker, times)
                if on_progress is not None:
                    on_progress(len(times), reader.expected_frames and max(reader.expected_frames, len(times)))
                is_stopped = should_stop is not None and should_stop()
                if is_stopped:
                    break
    if checkpoint is not None:
        checkpoint.keep_all(tracker, times, is_complete=not is_stopped)
    return build_tracks(
        tracker.people,
        np.array(times),
        reader.start,
        reader.clip,
        scale=working_scale(reader),
        max_people=max_people,
        numbers=tracker.numbers,
        look_every=config.look_every,
    )


def working_scale(reader: VideoReader) -> float:
    """Pixels of the frame perception works on per pixel of the full frame, at most 1."""
    return min(1.0, MAX_SIDE / max(reader.clip.width, reader.clip.height))


def regions_due(k: int, image: np.ndarray, detect_every: int) -> list[tuple[int, int, int, int]]:
    """What the detector is to look at in the k-th frame: at first everything, then one region at a time."""
    regions = detector_regions(image.shape[1], image.shape[0])
    if k == 0:
        return regions
    return [regions[k // detect_every % len(regions)]] if k % detect_every == 0 else []


def _prepare_ahead(reader: VideoReader, config: TrackingConfig, first: int) -> Iterator[_Prepared]:
    """Frames from `first` on, reduced and letterboxed by a thread that keeps a few ahead. Its errors appear here."""
    ready: queue.Queue[_Prepared | Exception | None] = queue.Queue(QUEUE_FRAMES)
    is_over = threading.Event()
    scale = working_scale(reader)
    last = reader.start + reader.expected_frames - 1

    def is_looked_at(index: int) -> bool:
        return (index - reader.start) % config.look_every == 0 or index == last

    def put(item: _Prepared | Exception | None) -> bool:
        while not is_over.is_set():
            try:
                ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def decode() -> None:
        try:
            for frame in reader.frames_from(first, is_looked_at):
                image = frame.image
                if not image.size:
                    if not put(_Prepared(frame.index, frame.time, image, [])):
                        return
                    continue
                if scale < 1:
                    image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
                due = regions_due(frame.index - reader.start, image, config.detect_every)
                views = [view_region(image, region) for region in due]
                if not put(_Prepared(frame.index, frame.time, image, views)):
                    return
            put(None)
        except Exception as error:  # handed to the consumer, which raises it
            put(error)

    thread = threading.Thread(target=decode, name="decode", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        is_over.set()
        thread.join()
        reader.close()
