"""What became of every clip: records, the report, and what --resume may skip. No bpy."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

from .batch_options import CACHE_NAME, BatchOptions
from .wire import protocol

OK = frozenset({"done", "skipped"})


@dataclass
class Record:
    """One clip of the report."""

    video: str
    status: str = "waiting"
    """waiting, done, skipped, failed or cancelled."""
    people: int = 0
    frames: int = 0
    """Person-frames on the timeline."""
    seconds: float = 0.0
    outputs: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    error: str = ""

    @property
    def line(self) -> str:
        """One line for the terminal."""
        name = Path(self.video).name
        if self.status in OK:
            people = f"{self.people} {'person' if self.people == 1 else 'people'}"
            return f"{self.status:<9} {name}: {people}, {self.frames} frames, {self.seconds:.1f} s"
        return f"{self.status:<9} {self.error if self.error.startswith(name) else f'{name}: {self.error}'}"


def write_report(path: Path, records: list[Record], *, seconds: float) -> None:
    """Write the report; a reader never sees half of it."""
    counts = {
        status: sum(r.status == status for r in records) for status in ("done", "skipped", "failed", "cancelled")
    }
    report = {"clips": len(records), **counts, "seconds": round(seconds, 2), "records": [asdict(r) for r in records]}
    write_atomically(path, json.dumps(report, indent=2, ensure_ascii=False) + "\n")


def read_report(path: Path) -> list[Record]:
    """Return the records of a report."""
    return [Record(**record) for record in json.loads(path.read_text(encoding="utf-8"))["records"]]


def write_atomically(path: Path, text: str) -> None:
    """Write a text file beside its place and move it there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def fingerprint(video: Path, options: BatchOptions) -> str:
    """Return what a finished clip must agree with to be skipped: file, size, time, and every option that matters."""
    facts = video.stat()
    body = Path(options.body).stat() if options.body and Path(options.body).exists() else None
    relevant = {
        "video": [str(video), facts.st_size, facts.st_mtime_ns],
        "body": [options.body, body.st_size, body.st_mtime_ns] if body else options.body,
        "refines": options.refine and options.method in protocol.REFINABLE_METHODS,
        "options": {
            name: value
            for name, value in asdict(options).items()
            if name not in ("refine", "out", "jobs", "resume", "report", "engine_python", "device", "body")
        },
    }
    return hashlib.sha256(json.dumps(relevant, sort_keys=True, default=str).encode()).hexdigest()


def remember(video: Path, folder: Path, options: BatchOptions, record: Record) -> None:
    """Keep a finished clip's record for --resume."""
    kept = {"fingerprint": fingerprint(video, options), "record": asdict(record)}
    write_atomically(_memory(video, folder), json.dumps(kept, ensure_ascii=False))


def recall(video: Path, folder: Path, options: BatchOptions) -> Record | None:
    """Return the record of a finished clip if file and options are the same and all its outputs exist, else None."""
    try:
        kept = json.loads(_memory(video, folder).read_text(encoding="utf-8"))
        record = Record(**kept["record"])
        is_same = kept["fingerprint"] == fingerprint(video, options)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not is_same or not all(Path(path).is_file() for path in record.outputs):
        return None
    record.status = "skipped"
    return record


def _memory(video: Path, folder: Path) -> Path:
    return folder / CACHE_NAME / f"{video.name}.done.json"
