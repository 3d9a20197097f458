"""One job from video to result files: open, perceive, choose, recover, place, write. It only composes.

core.choice says whom to recover, core.outlet sends frames, core.delivery places and writes.

The sink receives protocol messages in the order core.protocol documents; the socket server and the command line are
two sinks. Frames go out while the video is still being read (rough guesses), then while the recovery runs, in a
provisional world (upright camera, feet of the first frames on the floor); when everything is known Revise messages
replace them. A job that is stopped keeps the frames it has: they are placed, revised and written like a whole clip,
and where rough guesses were sent they stand in for what was not recovered, so that everybody who was shown has a
result. What the stages are is in core.stages, so that tests can put doubles in their place.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from core import result, stream
from core.cache import Cache
from core.choice import Choice
from core.delivery import Delivery
from core.errors import Cancelled, NoPersonError
from core.finished import cache_key
from core.memory import peak_memory_mb, release_memory
from core.options import JobOptions
from core.outlet import PER_FRAME, Outlet, Scene
from core.progress import ProgressMeter
from core.protocol import Done, Message
from core.records import Camera, CameraMotion, Clip, Track
from core.stages import Stages

Sink = Callable[[Message], None]


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
        self.should_stop = should_stop
        self.choice = Choice(video, options, sink, choose)
        self.meter = ProgressMeter(sink)
        self.began = time.monotonic()
        self.was_stopped = False
        self.reused = {"perceive": 0, "recover": 0}
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
            self.camera = Camera.from_size(self.clip.width, self.clip.height, options.focal_for(self.clip.width))
            self.scene = Scene(self.camera, self.body, self.stages, self.sink, options)
            self.delivery = Delivery(self.clip, self.video, self.scene, self.meter)
            self.delivery.check_space(self.frame_count, people=1)
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
        self.delivery.check_space(max(map(len, tracks)), people=len(tracks))
        motions = self._recover_chosen(tracks)
        placed = []
        if motions:
            placed = self.delivery.place(motions, self.choice.tracks, self.frame_count, self._is_stopped)
        paths = self.delivery.write(placed, is_complete=not self.was_stopped)
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
        if not self.choice.is_wanted(stretch.person):
            return
        if stretch.person not in [track.person for track in self.shown]:
            self.shown.append(stretch)
            frames = self.frame_count * len(self.shown)
            self.meter.plan(recover=frames, place=frames, write=frames)
            if self.options.live:
                self.sink(stream.people_message(self.shown, {track.person for track in self.shown}))
        if self.options.live:
            self._outlet_for(stretch.person).show(self.stages.guess(stretch, self.camera, self.body), stretch)

    def _recover_chosen(self, tracks: list[Track]) -> list[CameraMotion]:
        """Recover one chosen person after the other, following changes of the choice; longest tracks first."""
        release_memory()
        choice = self.choice
        self.meter.begin("track", len(tracks))
        if not choice.begin(tracks, was_stopped=self.was_stopped, should_stop=self.should_stop):
            self.was_stopped = True
        self.meter.update(len(tracks))
        self.meter.begin("recover", choice.frames_of(choice.chosen))
        motions: dict[int, CameraMotion] = {}
        while not self.was_stopped:
            choice.follow()
            person = choice.next_or_none(motions)
            if person is None:
                break
            done_before = choice.frames_of(set(motions) & choice.chosen)
            motion = self._recover(choice.tracks[person], done_before)
            if motion is not None:
                motions[person] = motion
        if self.was_stopped and self.options.live:
            motions = {person: self._completed(person, motions.get(person)) for person in choice.chosen}
        return [motions[person] for person in sorted(motions) if person in choice.chosen]

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
            is_stopped = self._is_stopped()
            self.choice.follow()
            return is_stopped or track.person not in self.choice.chosen

        def on_progress(done: int, total: int) -> None:
            wanted = self.choice.frames_of(self.choice.chosen)
            self.meter.update(done_before + round(len(track) * done / max(total, 1)), wanted)

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
        if track.person not in self.choice.chosen or motion is None or not len(motion):
            return None
        return motion

    def _completed(self, person: int, motion: CameraMotion | None) -> CameraMotion:
        """Return what a stopped recovery has of a person, carried on by a guess to the end of the track."""
        track, outlet = self.choice.tracks[person], self._outlet_for(person)
        if motion is not None and len(motion) == len(track):
            return motion
        guess = self.stages.guess(track, self.camera, self.body, None if motion is None else motion.betas)
        whole = guess if motion is None else self.stages.carry_on(motion, guess, track.times)
        outlet.show(whole, track)
        return whole

    # Helpers

    def _is_stopped(self) -> bool:
        """Whether the job was asked to stop, now or before."""
        self.was_stopped = self.was_stopped or self.should_stop()
        return self.was_stopped

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

    def _done(self, paths: list[str]) -> Done:
        self.meter.finish()
        seconds = time.monotonic() - self.began
        summary = {
            "video": self.video,
            "method": self.options.method,
            "quality": self.options.quality,
            "device": self.device,
            "frames": self.frame_count,
            "people": sorted(self.choice.chosen),
            "seconds": round(seconds, 3),
            "stage_seconds": self.meter.seconds(),
            "reused_frames": self.reused,
            "can_resume": self.was_stopped and self.cache.is_kept,
            "peak_memory_mb": peak_memory_mb(),
        }
        return Done(self.was_stopped, paths, summary)


def _arrays_of(motion: CameraMotion) -> dict[str, np.ndarray]:
    return {name: getattr(motion, name) for name in (*PER_FRAME, "betas")}
