"""`python -m core recover VIDEO... -o DIR`: video files to result files, with a bar, a report and honest exit codes.

Ctrl-C stops cleanly: what is done is written, `--resume` goes on from there. A second Ctrl-C stops at once.
"""

from __future__ import annotations

import argparse
import json
import logging
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from core.atomic import AtomicFile
from core.cli.console import Console, duration
from core.cli.videos import find_videos
from core.errors import HyperMocapError, InputError
from core.finished import finished_results
from core.options import JobOptions
from core.protocol import (
    DEFAULT_METHOD,
    QUALITIES,
    REFINES_BY_DEFAULT,
    SMOOTHING_LIMBS,
    Done,
    Message,
    Progress,
    read_heights,
    read_pairs,
    read_people,
)
from core.result import ensure_writable, explain_output_errors, stem_of
from core.version import VERSION

LOG = logging.getLogger(__name__)
DONE, FAILED, USAGE, STOPPED = 0, 1, 2, 130
REFINE_WORD = "--refine" if REFINES_BY_DEFAULT else "--no-refine"
UNITS = {"perceive", "recover", "place", "write"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "videos", nargs="+", metavar="VIDEO", help="video file, folder of videos or of images, shot_%%04d.png"
    )
    parser.add_argument("-o", "--out", required=True, metavar="DIR", help="folder of the result files")
    parser.add_argument(
        "--method",
        default=DEFAULT_METHOD,
        help=f"recovery method: hyperbolic, fit, or one to compare with: pmce, tcmr, lmr, posture "
        f"(default: {DEFAULT_METHOD})",
    )
    parser.add_argument(
        "--quality", default="standard", choices=QUALITIES, help="draft is faster, high is calmer (default: standard)"
    )
    parser.add_argument(
        "--refine",
        action=argparse.BooleanOptionalAction,
        default=REFINES_BY_DEFAULT,
        help=f"move a network's motion onto the footage; method fit always does (default: {REFINE_WORD})",
    )
    parser.add_argument("--person", default="all", metavar="all|N[,N]", help="whom to recover (default: all)")
    parser.add_argument("--max-people", type=int, default=4, help="how many people to look for (default: 4)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default: auto)")
    parser.add_argument("--start", type=float, default=0.0, metavar="S", help="begin at this second")
    parser.add_argument("--end", type=float, metavar="S", help="end before this second")
    parser.add_argument("--vertices", action="store_true", help="store every vertex of every frame (large)")
    focal = parser.add_mutually_exclusive_group()
    focal.add_argument("--focal-mm", type=float, metavar="MM", help="focal length, 35 mm equivalent")
    focal.add_argument("--focal-px", type=float, metavar="PX", help="focal length in pixels")
    parser.add_argument("--smoothing", type=float, metavar="S", help="smoothing in seconds, 0 = none")
    parser.add_argument(
        "--smoothing-by-limb",
        metavar="LIMB:S[,LIMB:S]",
        help=f"other seconds for some of {', '.join(SMOOTHING_LIMBS)}",
    )
    parser.add_argument(
        "--lock-feet",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="hold planted feet still and soles out of the floor (default: --lock-feet)",
    )
    parser.add_argument("--panning", action="store_true", help="the camera turns on its place: follow the background")
    parser.add_argument(
        "--height", metavar="M|N:M[,N:M]", help="known standing height in metres, of everybody or by person (0:1.72)"
    )
    parser.add_argument("--body", metavar="FILE", help="body model of your own (SMPL .npz or .pkl)")
    parser.add_argument("--resume", action="store_true", help="go on after an interruption; skip finished videos")
    parser.add_argument("--preview", metavar="FILE", help="also draw the result: a .png or .mp4; or just png or mp4")
    parser.add_argument("--json", metavar="REPORT", help="write what happened to this file")
    parser.add_argument("--quiet", action="store_true", help="no progress")


def run(args: argparse.Namespace) -> int:
    """Recover all videos, one after the other."""
    console: Console = args.console
    console.is_quiet = args.quiet
    try:
        options = _options(args)
        args.videos = find_videos(args.videos)
        _check_names(args)
    except InputError as error:
        console.error(str(error))
        return USAGE
    report = _Report(args.json)
    with _interruptions() as stop:
        for number, video in enumerate(args.videos):
            title = Path(video).name
            if len(args.videos) > 1:
                title = f"[{number + 1}/{len(args.videos)}] {title}"
            report.add(_recover_one(video, options, args, title, stop))
            if stop.is_set():
                break
    return report.exit_code


def _recover_one(
    video: str, options: JobOptions, args: argparse.Namespace, title: str, stop: threading.Event
) -> dict:
    """Recover one video and return its entry in the report; every expected failure is one line."""
    from core import pipeline

    console: Console = args.console
    entry = {"video": video, "status": "failed", "error": None, "results": [], "summary": {}}
    try:
        finished = finished_results(video, options) if options.resume else []
        if finished:
            console.note(f"{title}: already done, {len(finished)} result(s)")
            return {**entry, "status": "skipped", "results": finished}
        done = pipeline.run(video, options, _Bar(console, title), should_stop=stop.is_set)
        entry.update(results=done.results, summary=done.summary)
        entry["status"] = "stopped" if done.cancelled else "done"
        _tell(console, title, done)
        if args.preview and done.results:
            entry["preview"] = _draw(video, done.results, args, stop)
    except HyperMocapError as error:
        console.error(str(error) if str(error).startswith(title) else f"{title}: {error}")
        entry.update(error=str(error), code=error.code)
    except MemoryError:
        entry.update(error="Out of memory: close other programs, or take a shorter range with --start and --end")
        console.error(f"{title}: {entry['error']}")
    except Exception as error:  # one clip must not end a night's work
        LOG.info("%s", title, exc_info=True)
        entry.update(error=f"unexpected {type(error).__name__}: {error}")
        console.error(f"{title}: {entry['error']} (--verbose shows where)")
    return entry


def _tell(console: Console, title: str, done: Done) -> None:
    for path in done.results:
        console.line(path)
    summary = done.summary
    if done.cancelled:
        kept = f"{len(done.results)} partial result(s) written; " if done.results else "nothing to write yet; "
        how = "--resume goes on from here" if summary.get("can_resume") else "it cannot be resumed"
        console.error(f"{title}: stopped: {kept}{how}")
        return
    rate = summary["frames"] / max(summary["seconds"], 1e-9)
    people = len(done.results)
    console.note(
        f"{title}: {people} {'person' if people == 1 else 'people'}, {summary['frames']} frames in "
        f"{duration(summary['seconds'])} ({rate:.1f} frames/s on {summary['device']}, "
        f"{summary['peak_memory_mb']:.0f} MB)"
    )


def _draw(video: str, results: list[str], args: argparse.Namespace, stop: threading.Event) -> str:
    from core.preview import draw_preview

    target = Path(args.preview)
    if args.preview in ("png", "mp4"):
        target = Path(args.out) / f"{stem_of(video)}_preview.{args.preview}"
    draw_preview(results, video, target, body_path=args.body, should_stop=stop.is_set)
    args.console.line(str(target))
    return str(target)


class _Bar:
    """A sink that shows Progress as a bar."""

    def __init__(self, console: Console, title: str) -> None:
        self._console, self._title = console, title
        self._first: dict[str, tuple[float, int]] = {}

    def __call__(self, message: Message) -> None:
        if not isinstance(message, Progress):
            return
        now = time.monotonic()
        since, done = self._first.setdefault(message.stage, (now, message.done))
        rate = f"  {(message.done - done) / (now - since):.1f}/s" if now - since > 0.5 else ""
        count = f"{message.stage} {message.done}/{message.total}" if message.stage in UNITS else message.stage
        self._console.bar(self._title, message.fraction, f"{count}{rate}  ETA {duration(message.eta_s)}")


class _Report:
    """What became of each video; the file is rewritten after each, so that it survives a crash."""

    def __init__(self, path: str | None) -> None:
        self._path = None if path is None else Path(path)
        self._entries: list[dict] = []
        if self._path is not None:
            ensure_writable(self._path.parent)

    def add(self, entry: dict) -> None:
        self._entries.append(entry)
        if self._path is None:
            return
        text = json.dumps({"version": VERSION, "exit_code": self.exit_code, "videos": self._entries}, indent=2)
        with explain_output_errors(self._path), AtomicFile(self._path) as file:
            file.write(text.encode() + b"\n")

    @property
    def exit_code(self) -> int:
        states = {entry["status"] for entry in self._entries}
        return STOPPED if "stopped" in states else FAILED if "failed" in states else DONE


def _options(args: argparse.Namespace) -> JobOptions:
    if args.person == "ask":
        raise InputError("--person ask works in Blender only: use all, or numbers such as 0 or 0,2")
    try:
        person = read_people(args.person)
    except ValueError:
        raise InputError(f"--person {args.person}: use all, or numbers such as 0 or 0,2") from None
    values = {"smoothing_s": args.smoothing} if args.smoothing is not None else {}
    return JobOptions(
        method=args.method,
        refine=args.refine,
        quality=args.quality,
        person=person,
        device=args.device,
        start=args.start,
        end=args.end,
        vertices=args.vertices,
        live=False,
        out_dir=args.out,
        resume=args.resume,
        focal_px=args.focal_px,
        focal_mm=args.focal_mm,
        height_m=None if args.height is None else _heights(args.height),
        smoothing_by_limb={} if args.smoothing_by_limb is None else _limbs(args.smoothing_by_limb),
        lock_feet=args.lock_feet,
        panning=args.panning,
        body=args.body,
        max_people=args.max_people,
        **values,
    )


def _heights(text: str) -> float | dict[int, float]:
    """Metres for everybody, or by person. InputError."""
    try:
        return read_heights(text)
    except ValueError:
        raise InputError(f"--height {text}: use metres such as 1.72, or by person 0:1.72,1:1.6") from None


def _limbs(text: str) -> dict[str, float]:
    """Seconds by limb. InputError; whether there are such limbs is not looked at."""
    try:
        return read_pairs(text)
    except ValueError:
        limbs = ", ".join(SMOOTHING_LIMBS)
        raise InputError(f"--smoothing-by-limb {text}: use arms:0,torso:0.06; limbs are {limbs}") from None


def _check_names(args: argparse.Namespace) -> None:
    stems = [stem_of(video) for video in args.videos]
    twice = next((stem for stem in stems if stems.count(stem) > 1), None)
    if twice is not None:
        raise InputError(f"Two videos are called {twice}: their results would overwrite each other; use two folders")
    if args.preview in (None, "png", "mp4"):
        return
    if Path(args.preview).suffix.lower() not in (".png", ".mp4"):
        raise InputError(f"--preview {args.preview}: the name must end in .png or .mp4")
    if len(args.videos) > 1:
        raise InputError("--preview FILE takes one video; for several use --preview png or --preview mp4")


@contextmanager
def _interruptions() -> Iterator[threading.Event]:
    """Yield an event that the first Ctrl-C (or SIGTERM) sets; the second interrupts at once."""
    stop = threading.Event()

    def on_signal(number: int, frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
