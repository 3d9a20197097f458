"""One job from video to result files: open, perceive, choose, recover, place, write. It only composes.

The sink receives protocol messages in the order core.protocol documents; the socket server and the command line are
two sinks. Frames go out while the video is still being read (rough guesses), then while the recovery runs, in a
provisional world (upright camera, feet of the first frames on the floor); when everything is known Revise messages
replace them. A job that is stopped keeps the frames it has: they
are placed, revised and written like a whole clip, and where rough guesses were sent they stand in for what was not
recovered, so that everybody who was shown has a result. What the stages are is in core.stages, so that tests can
put doubles in their place.
"""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from core import result, stream
from core.cache import Cache
from core.errors import Cancelled, InputError, NoPersonError
from core.finished import cache_key, result_key
from core.memory import peak_memory_mb, release_memory
from core.options import JobOptions
from core.outlet import PER_FRAME, Outlet, Scene, part_of
from core.progress import ProgressMeter
from core.protocol import Done, Message
from core.records import Camera, CameraMotion, Clip, Motion, Track
from core.stages import Stages

LOG = logging.getLogger(__name__)
Sink = Callable[[Message], None]
ASK_INTERVAL_S = 0.05


def run(
    video: str | Path,
    options: JobOptions,
    sink: Sink,
    *,
    should_stop: Callable[[], bool] = lambda: False,
    choose: Callable[[], tuple[int, ...] | None] = lambda: None,
    stages: Stages | None = None,
) -> Done:
    """Recover the motion of the people in a video; return the closing message (which the sink does not get).

    should_stop: polled; True ends the job soon and keeps what is done. choose: returns the latest choice of people,
    None while there is none; a person chosen away is dropped, a person chosen later is recovered as well.
    Raises InputError (VideoError, NoPersonError, ...), OutputError or SetupError.
    """
    return _Job(str(video), options, sink, should_stop, choose, stages or Stages()).run()


class _Job:
    """The state of one run."""

    def __init__(self, video, options, sink, should_stop, choose, stages) -> None:
        self.video, self.options, self.sink, self.stages = video, options, sink, stages
        self.should_stop, self.choose = should_stop, choose
        self.meter = ProgressMeter(sink)
        self.began = time.monotonic()
        self.was_stopped = False
        self.reused = {"perceive": 0, "recover": 0}
        self.chosen: set[int] = set()
        self.tracks: dict[int, Track] = {}
        self.outlets: dict[int, Outlet] = {}
        self.shown: list[Track] = []
        """The first stretch of everybody shown so far."""

    def run(self) -> Done:
        """All stages in order."""
        options = self.options
        self.meter.begin("open", 1)
        if options.out_dir is not None:
            result.ensure_writable(options.out_dir)
        self.device = self.stages.choose_device(options.device)
        self.recoverer = self.stages.recoverer(options.method, refine=options.refine)
        with self.stages.open_video(self.video, options.start, options.end) as reader:
            self.clip: Clip = reader.clip
            self.frame_count = reader.expected_frames
            self.sink(stream.video_message(self.clip))
            self.body = self.stages.load_body(options.body, self.device)
            self.sink(stream.body_message(self.body))
            self._check_space(self.frame_count, people=1)
            self.camera = Camera.from_size(self.clip.width, self.clip.height, options.focal_for(self.clip.width))
            self.scene = Scene(self.camera, self.body, self.stages, self.sink, options)
            self.cache = Cache(options.cache_folder(), cache_key(self.video, options), resume=options.resume)
            self.meter.update(1)
            self._plan(self.frame_count)
            tracks = self._perceive(reader)
        if not tracks and self.was_stopped:
            return self._done([])
        if not tracks:
            self.cache.remove()
            raise NoPersonError(f"No person found in {Path(self.video).name}: {self._reason_for_nobody()}")
        self.frame_count = max(int(t.frames[-1]) for t in tracks) - min(int(t.frames[0]) for t in tracks) + 1
        self.tracks = {track.person: track for track in tracks}
        self._check_space(max(map(len, tracks)), people=len(tracks))
        motions = self._recover_chosen()
        placed = self._place(motions) if motions else []
        paths = self._write(placed)
        if not self.was_stopped:
            self.cache.remove()
        return self._done(paths)

    # Stages

    def _perceive(self, reader: Any) -> list[Track]:
        """Return everybody's tracks; frames that an earlier run perceived are there before the first report."""
        self.meter.begin("perceive", self.frame_count)
        is_first = True

        def on_progress(done: int, total: int) -> None:
            nonlocal is_first
            if is_first and done > 1:
                self.reused["perceive"] = done - 1
                self.meter.skip(done - 1)
            is_first = False
            self.meter.update(done, total or None)

        tracks = self.stages.perceive(
            reader,
            device=self.device,
            max_people=self.options.max_people,
            quality=self.options.quality,
            cache=self.cache,
            on_progress=on_progress,
            should_stop=self.should_stop,
            on_track=self._show,
        )
        if is_first:  # an earlier run had seen the video to its end
            self.reused["perceive"] = self.stages.perceived_frames(self.cache)
            self.meter.skip(self.reused["perceive"])
        self.was_stopped = self.should_stop()
        return tracks

    def _show(self, stretch: Track) -> None:
        """Send a rough guess of a stretch of somebody's track, while the video is still being read."""
        person = self.options.person
        if isinstance(person, tuple) and stretch.person not in person:
            return
        if stretch.person not in [track.person for track in self.shown]:
            self.shown.append(stretch)
            frames = self.frame_count * len(self.shown)
            self.meter.plan(recover=frames, place=frames, write=frames)
            if self.options.live:
                self.sink(stream.people_message(self.shown, {track.person for track in self.shown}))
        if self.options.live:
            self._outlet_for(stretch.person).show(self.stages.guess(stretch, self.camera, self.body), stretch)

    def _recover_chosen(self) -> list[CameraMotion]:
        """Recover one chosen person after the other, following changes of the choice; longest tracks first."""
        release_memory()
        self.meter.begin("track", len(self.tracks))
        self.chosen = self._first_choice()
        self.meter.update(len(self.tracks))
        self.meter.begin("recover", self._frames_of(self.chosen))
        motions: dict[int, CameraMotion] = {}
        while not self.was_stopped:
            self._follow_choice()
            waiting = [p for p in self._by_length() if p in self.chosen and p not in motions]
            if not waiting:
                break
            done_before = self._frames_of(set(motions) & self.chosen)
            motion = self._recover(self.tracks[waiting[0]], done_before)
            if motion is not None:
                motions[waiting[0]] = motion
        if self.was_stopped and self.options.live:
            motions = {person: self._completed(person, motions.get(person)) for person in self.chosen}
        return [motions[person] for person in sorted(motions) if person in self.chosen]

    def _recover(self, track: Track, done_before: int) -> CameraMotion | None:
        """Recover one person, streaming; None if the person was chosen away or nothing was done before a stop."""
        row = f"{self.options.method}_{track.person}"
        outlet = self._outlet_for(track.person)
        for _, _, arrays in self.cache.read(row):
            outlet.send(CameraMotion(person=track.person, **arrays), track)
        self.reused["recover"] += outlet.count
        self.cache.truncate(row, outlet.count)
        reused = outlet.motion()
        self.meter.skip(done_before + outlet.count)
        if reused is not None and len(reused) == len(track):
            return reused

        def on_frames(chunk: CameraMotion) -> None:
            start = outlet.count
            new = outlet.send(chunk, track)
            if new is not None:
                self.cache.write(row, start, outlet.count, _arrays_of(new))
            release_memory()

        def stop_or_drop() -> bool:
            self.was_stopped = self.was_stopped or self.should_stop()
            self._follow_choice()
            return self.was_stopped or track.person not in self.chosen

        def on_progress(done: int, total: int) -> None:
            self.meter.update(done_before + round(len(track) * done / max(total, 1)), self._frames_of(self.chosen))

        # A method that can go on from its first frames takes `known`; another starts over, and the outlet drops them.
        # A method that has rough frames before its results takes `on_rough`.
        extras = {"known": reused, "on_rough": lambda chunk: outlet.show(chunk, track)}
        if not self.options.live:
            del extras["on_rough"]
        taken = inspect.signature(self.recoverer).parameters
        try:
            motion = self.recoverer(
                track,
                self.camera,
                self.body,
                device=self.device,
                on_frames=on_frames,
                should_stop=stop_or_drop,
                on_progress=on_progress,
                **{name: value for name, value in extras.items() if name in taken},
            )
        except Cancelled:
            motion = outlet.motion()
        if motion is not None and len(motion) > outlet.count:  # stopped before all of it was refined
            outlet.show(motion, track)
        if track.person not in self.chosen or motion is None or not len(motion):
            return None
        return motion

    def _completed(self, person: int, motion: CameraMotion | None) -> CameraMotion:
        """Return what a stopped recovery has of a person, carried on by a guess to the end of the track."""
        track, outlet = self.tracks[person], self._outlet_for(person)
        if motion is not None and len(motion) == len(track):
            return motion
        guess = self.stages.guess(track, self.camera, self.body, None if motion is None else motion.betas)
        whole = guess if motion is None else self.stages.carry_on(motion, guess, track.times)
        outlet.show(whole, track)
        return whole

    def _place(self, motions: list[CameraMotion]) -> list[Motion]:
        """Put everybody into one world with a floor, smooth, and revise what was sent."""
        frames = sum(map(len, motions))
        self.meter.plan(write=frames)
        looked = self.frame_count if self.options.panning else 0
        self.meter.begin("place", looked + frames)
        motions = [self.scene.sized(motion) for motion in motions]
        tracks = [part_of(self.tracks[motion.person], motion.frames) for motion in motions]
        turns = self._track_camera(tracks) if self.options.panning else {}
        placed = self.stages.place(motions, tracks, self.camera, self.body, self.options, turns)
        placed = [replace(motion, method=self.options.method, gender=self.body.gender) for motion in placed]
        for view in stream.view_messages(self.camera, *_views_of(placed)):
            self.sink(view)
        done = looked
        for motion in placed:
            height = stream.height_of(self.body, motion.betas)
            self.sink(stream.shape_message(motion.person, motion.betas, height))
            for start in range(0, len(motion), stream.CHUNK):
                stop = min(start + stream.CHUNK, len(motion))
                vertices = self._vertices(motion, start, stop) if self.options.vertices else None
                self.sink(stream.frames_message(motion, start, stop, vertices, is_revision=True))
                done += stop - start
                self.meter.update(done)
        return placed

    def _track_camera(self, tracks: list[Track]) -> dict[int, np.ndarray]:
        """Return how the camera turned; when stopped, as far as that is known."""

        def stop() -> bool:
            self.was_stopped = self.was_stopped or self.should_stop()
            return self.was_stopped

        def on_progress(done: int) -> None:
            self.meter.update(min(done, self.frame_count))

        with self.stages.open_video(self.video, self.options.start, self.options.end) as reader:
            return self.stages.track_camera(reader, self.camera, tracks, on_progress=on_progress, should_stop=stop)

    def _write(self, motions: list[Motion]) -> list[str]:
        if self.options.out_dir is None:
            return []
        self.meter.begin("write", sum(map(len, motions)))
        paths, done = [], 0
        for motion in motions:
            path = result.result_path(self.options.out_dir, self.video, motion.person)
            written = result.write_result(
                path,
                motion,
                fps=_rate_of(motion.times, self.clip.fps),
                body_name=self.body.name,
                video=Path(self.video).name,
                job=result_key(self.video, self.options),
                quality=self.options.quality,
                people=len(motions),
                is_complete=not self.was_stopped,
                vertices=self._camera_vertices(motion) if self.options.vertices else None,
                vertex_count=self.body.vertex_count,
            )
            paths.append(str(written))
            done += len(motion)
            self.meter.update(done)
        return paths

    # Choice

    def _first_choice(self) -> set[int]:
        person = self.options.person
        if isinstance(person, tuple) and not self.was_stopped:
            missing = [p for p in person if p not in self.tracks]
            if missing:
                found = ", ".join(map(str, sorted(self.tracks)))
                raise InputError(f"There is no person {missing[0]} in {Path(self.video).name}: found {found}")
        heights = self.options.height_m
        for stranger in sorted(set(heights) - set(self.tracks)) if isinstance(heights, dict) else ():
            LOG.warning("There is no person %d in %s: the given height is not used", stranger, self.video)
        chosen = set(person) & set(self.tracks) if isinstance(person, tuple) else set(self.tracks)
        self.sink(stream.people_message(list(self.tracks.values()), chosen if person != "ask" else set()))
        while person == "ask" and self.choose() is None:
            if self.should_stop():
                self.was_stopped = True
                return chosen if self.options.live else set()
            time.sleep(ASK_INTERVAL_S)
        self.chosen = chosen
        self._follow_choice()
        return self.chosen

    def _follow_choice(self) -> None:
        choice = self.choose()
        if choice is None or set(choice) & set(self.tracks) == self.chosen:
            return
        self.chosen = set(choice) & set(self.tracks)
        self.sink(stream.people_message(list(self.tracks.values()), self.chosen))

    def _by_length(self) -> list[int]:
        return sorted(self.tracks, key=lambda person: (-len(self.tracks[person]), person))

    def _frames_of(self, people: set[int]) -> int:
        return sum(len(self.tracks[person]) for person in people)

    # Helpers

    def _vertices(self, motion: Motion, start: int, stop: int) -> np.ndarray:
        """Return vertices [n,V,3] in the world frame."""
        return self.stages.vertices(self.body, motion.poses[start:stop], motion.betas, motion.trans[start:stop])

    def _camera_vertices(self, motion: Motion) -> Iterator[np.ndarray]:
        """Yield vertices [n,V,3] in the camera frame, chunk by chunk."""
        for start in range(0, len(motion), stream.CHUNK):
            part = slice(start, min(start + stream.CHUNK, len(motion)))
            world = self._vertices(motion, part.start, part.stop)
            offset = world - motion.t_world_from_cam[part, None]
            yield np.einsum("nij,nvi->nvj", motion.R_world_from_cam[part], offset)

    def _outlet_for(self, person: int) -> Outlet:
        if person not in self.outlets:
            self.outlets[person] = Outlet(person, self.scene)
        return self.outlets[person]

    def _plan(self, frames: int) -> None:
        self.meter.plan(perceive=frames, track=1, recover=frames, place=frames, write=frames)

    def _reason_for_nobody(self) -> str:
        seconds = self.stages.least_seconds()
        if self.frame_count / self.clip.fps < seconds:
            return f"its {self.frame_count} frame(s) are too few, people must be seen for {seconds} s"
        return "people need to be about 60 pixels tall or more, and mostly in the picture"

    def _check_space(self, frames: int, people: int) -> None:
        """OutputError before the long work if the results cannot fit on the disk."""
        if self.options.out_dir is None:
            return
        per_frame = result.BYTES_PER_FRAME + (self.body.vertex_count * 12 if self.options.vertices else 0)
        result.ensure_writable(self.options.out_dir, expected_bytes=frames * people * per_frame)

    def _done(self, paths: list[str]) -> Done:
        self.meter.finish()
        seconds = time.monotonic() - self.began
        summary = {
            "video": self.video,
            "method": self.options.method,
            "quality": self.options.quality,
            "device": self.device,
            "frames": self.frame_count,
            "people": sorted(self.chosen),
            "seconds": round(seconds, 3),
            "stage_seconds": self.meter.seconds(),
            "reused_frames": self.reused,
            "can_resume": self.was_stopped and self.cache.is_kept,
            "peak_memory_mb": peak_memory_mb(),
        }
        return Done(self.was_stopped, paths, summary)


def _views_of(placed: list[Motion]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the frames [n] in which anybody is seen, and the camera's R [n,3,3] and t [n,3] in each."""
    frames, first = np.unique(np.concatenate([motion.frames for motion in placed]), return_index=True)
    R = np.concatenate([motion.R_world_from_cam for motion in placed])
    t = np.concatenate([motion.t_world_from_cam for motion in placed])
    return frames, R[first], t[first]


def _rate_of(times: np.ndarray, fallback: float) -> float:
    """Return the average frames per second of these times."""
    if len(times) < 2 or times[-1] <= times[0]:
        return fallback
    return (len(times) - 1) / float(times[-1] - times[0])


def _arrays_of(motion: CameraMotion) -> dict[str, np.ndarray]:
    return {name: getattr(motion, name) for name in (*PER_FRAME, "betas")}
