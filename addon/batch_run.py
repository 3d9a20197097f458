"""The batch run inside Blender: one clip after the other, or several Blenders at once. See batch_options for options.

A bad clip is reported and the run goes on. Ctrl-C ends the clip in work, keeps the report, and leaves.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import bpy

from .batch_children import run_children
from .batch_options import (
    CACHE_NAME,
    BatchOptions,
    explain_missing,
    find_videos,
    output_folders,
    parse_options,
)
from .batch_report import OK, Record, recall, remember, write_report
from .errors import AddonError
from .figures import parts_of, remove_unchosen, scene_figures
from .job import State
from .launch import launch
from .places import find_engine
from .scene.export import export_fbx, export_glb
from .scene.options import WriterOptions
from .scene.person import PERSON
from .session import Session

PROGRESS_SECONDS = 5.0
EXPORTERS = {"fbx": export_fbx, "glb": export_glb}


def main(arguments: list[str], program: str = "batch.py") -> int:
    """Run the command line; return the exit code: 0 only if every clip succeeded, 2 for a wrong command line."""
    try:
        patterns, options = parse_options(arguments, program)
    except SystemExit as leaving:  # argparse has already said why
        return int(leaving.code or 0)
    videos, missing = find_videos(patterns)
    records = [Record(pattern, "failed", error=explain_missing(pattern)) for pattern in missing]
    for record in records:
        say(record.line)
    started, python = time.monotonic(), ""
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        python = find_engine(options.engine_python)
    except (AddonError, OSError) as error:
        say(f"failed    {error}")
        records += [Record(str(video), "failed", error=str(error)) for video in videos]
        videos = []
    folders = output_folders(videos, options.out)
    waiting = [Record(str(video)) for video in videos]
    records += waiting

    def report() -> str:
        """Write the report; return why it could not be written, or nothing."""
        try:
            write_report(options.report, records, seconds=time.monotonic() - started)
        except OSError as error:
            return f"the report cannot be written: {error}; choose another place with --report"
        return ""

    def show(i: int, text: str) -> None:
        say(f"[{i + 1}/{len(videos)}] {text}")
        report()

    with interruptible():
        if options.jobs > 1 and len(videos) > 1:
            run_children(videos, folders, options, python, waiting, show)
        else:
            _run_here(videos, folders, options, python, waiting, show)
    for record in waiting:
        if record.status == "waiting":
            record.status, record.error = "cancelled", "not started"
    problem = report()
    if problem:
        say(f"failed    {problem}")
    succeeded = sum(record.status in OK for record in records)
    say(f"{succeeded} of {len(records)} clips succeeded in {time.monotonic() - started:.0f} s")
    return 0 if records and succeeded == len(records) and not problem else 1


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C raise KeyboardInterrupt, which Blender keeps from Python in background mode."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before if before is not None else signal.SIG_DFL)


def say(text: str) -> None:
    """Write a line to the terminal."""
    print(text, file=sys.stdout, flush=True)


def _run_here(videos, folders, options: BatchOptions, python: str, records: list[Record], show) -> None:
    for i, (video, folder) in enumerate(zip(videos, folders)):
        done = recall(video, folder, options) if options.resume else None
        if done is None:
            done = recover_clip(video, folder, options, python, lambda text, i=i: show(i, text))
        vars(records[i]).update(vars(done))
        show(i, done.line)
        if done.status == "cancelled":
            return


def recover_clip(video: Path, folder: Path, options: BatchOptions, python: str, show) -> Record:
    """Recover one clip in an empty scene and write what is asked for. Expected failures end in the record."""
    record, started = Record(str(video)), time.monotonic()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        session = _recover(video, folder, options, python, show)
        status = session.status
        record.people, record.frames = len(getattr(session.summary, "people", ())), status.frames
        record.warnings = list(getattr(session.summary, "warnings", ()))
        if session.job.state is State.DONE:
            gone = remove_unchosen(getattr(session.summary, "collection", ""), status.people)
            record.people -= gone
            record.outputs = _write_outputs(video, folder, options, session)
            record.status = "done"
        elif session.job.state is State.CANCELLED:
            record.status, record.error = "cancelled", "cancelled"
        else:
            record.status, record.error = "failed", status.error
    except (AddonError, OSError, RuntimeError) as error:  # RuntimeError: what Blender's exporters raise
        record.status, record.error = "failed", str(error).strip()
    record.seconds = round(time.monotonic() - started, 2)
    if record.status == "done":
        remember(video, folder, options, record)
    return record


def _recover(video: Path, folder: Path, options: BatchOptions, python: str, show) -> Session:
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    scene = bpy.context.scene
    scene.frame_start = 1
    cache = folder / CACHE_NAME
    cache.mkdir(exist_ok=True)
    session = launch(
        scene,
        str(video),
        python=python,
        job_options=options.engine_options(folder),
        writer_options=WriterOptions(
            mode=options.mode,
            method=options.method,
            match_fps=True,
            match_range=True,
            cache_dir=str(folder),
            start_frame=1,
        ),
        log=cache / f"{video.name}.log",
    )
    shown = time.monotonic()

    def show_progress(session: Session) -> None:
        nonlocal shown
        if time.monotonic() - shown > PROGRESS_SECONDS:
            shown = time.monotonic()
            status = session.status
            show(f"{100 * status.fraction:3.0f} %  {video.name}: {status.stage_label.lower()}")

    session.run_blocking(show_progress)
    return session


def _write_outputs(video: Path, folder: Path, options: BatchOptions, session: Session) -> list[str]:
    """Write one FBX or GLB a person and one .blend a clip; return the paths, the engine's result files first."""
    outputs = list(session.status.results) if "npz" in options.formats else []
    if "blend" in options.formats:
        path = folder / f"{video.stem}.blend"
        bpy.ops.wm.save_as_mainfile(filepath=str(path), compress=True, check_existing=False)
        outputs.append(str(path))
    for name, export in EXPORTERS.items():
        for owner in scene_figures(bpy.context.scene) if name in options.formats else ():
            path = folder / f"{video.stem}_person{owner[PERSON]}.{name}"
            export(parts_of(owner), str(path))
            outputs.append(str(path))
    return outputs
