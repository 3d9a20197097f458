"""Which job a cache or a result belongs to, and whether an earlier run finished it."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from core import result
from core.cache import fingerprint, job_key
from core.errors import InputError, VideoError
from core.options import JobOptions
from core.protocol import REFINABLE_METHODS

SHAPES_THE_WORK = ("method", "refine", "quality", "start", "end", "focal_px", "focal_mm", "max_people", "body")
"""Options that change what a cache holds."""
CHANGES_NO_RESULT = ("out_dir", "cache_dir", "resume", "device", "live")


def cache_key(video: str | Path, options: JobOptions) -> str:
    """Return the key of a video and the options that shape the work before people are placed. VideoError."""
    return _key(video, **{name: getattr(options, name) for name in SHAPES_THE_WORK})


def finished_results(video: str | Path, options: JobOptions) -> list[str]:
    """Return the result files of this very job if an earlier run completed it, else an empty list. VideoError."""
    if options.out_dir is None or not Path(options.out_dir).is_dir():
        return []
    found = []
    pattern = re.escape(result.stem_of(video)) + r"_person\d+\.npz"
    paths = [path for path in sorted(Path(options.out_dir).iterdir()) if re.fullmatch(pattern, path.name)]
    key = result_key(video, options) if paths else ""
    for path in paths:
        try:
            about = result.read_result(path, with_vertices=False).extra
        except InputError:
            continue
        if about["job"] == key and about["is_complete"]:
            found.append((str(path), about["job_people"]))
    return [path for path, _ in found] if found and len(found) == found[0][1] else []


def result_key(video: str | Path, options: JobOptions) -> str:
    """Return the key of a video and all options that shape its results. VideoError if it cannot be read."""
    names = (f.name for f in fields(options) if f.name not in CHANGES_NO_RESULT)
    return _key(video, **{name: getattr(options, name) for name in names})


def _key(video: str | Path, **options: object) -> str:
    options["refine"] = options["refine"] and options["method"] in REFINABLE_METHODS
    body = options.get("body")
    if body is not None and Path(body).is_file():
        options["body"] = fingerprint(body)
    try:
        return job_key(video, **options)
    except OSError as error:
        raise VideoError(f"{video} cannot be read: {error.strerror or error}") from error
