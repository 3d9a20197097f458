"""Command line of the batch run: options, and the videos that patterns and folders stand for. No bpy."""

from __future__ import annotations

import argparse
import glob
import math
import os
from dataclasses import dataclass, field
from pathlib import Path

from .engine_env import METHODS
from .scene.options import MODES, VERTEX_MODES
from .wire import protocol

FORMATS = ("fbx", "glb", "blend", "npz")
VIDEO_SUFFIXES = protocol.VIDEO_SUFFIXES
IMAGE_SUFFIXES = protocol.IMAGE_SUFFIXES


@dataclass(frozen=True)
class BatchOptions:
    """What to do with every clip."""

    out: Path
    formats: tuple[str, ...] = ("fbx", "npz")
    mode: str = "ARMATURE"
    jobs: int = 1
    method: str = protocol.DEFAULT_METHOD
    quality: str = "standard"
    refine: bool = protocol.REFINES_BY_DEFAULT
    device: str = "auto"
    person: str | tuple[int, ...] = "all"
    max_people: int = 4
    smoothing_s: float = protocol.DEFAULT_SMOOTHING_S
    smoothing_by_limb: dict[str, float] = field(default_factory=dict)
    """Seconds of those who differ, by a key of protocol.SMOOTHING_LIMBS."""
    lock_feet: bool = True
    panning: bool = False
    focal_mm: float | None = None
    height_m: float | dict[int, float] | None = None
    """Standing height: of everybody, or by person."""
    start: float = 0.0
    end: float | None = None
    body: str | None = None
    resume: bool = False
    report: Path = Path("report.json")
    engine_python: str = ""

    def engine_options(self, folder: Path) -> dict:
        """Return the engine's options for a clip whose results go to `folder`."""
        options = {
            "method": self.method,
            "quality": self.quality,
            "refine": self.refine,
            "device": self.device,
            "person": self.person if isinstance(self.person, str) else list(self.person),
            "max_people": self.max_people,
            "smoothing_s": self.smoothing_s,
            "lock_feet": self.lock_feet,
            "panning": self.panning,
            "vertices": self.mode in VERTEX_MODES,
            "start": self.start,
            "resume": self.resume,
            "cache_dir": str(folder / CACHE_NAME),
        }
        optional = {"end": self.end, "focal_mm": self.focal_mm, "body": self.body}
        heights = self.height_m
        optional["height_m"] = {str(p): h for p, h in heights.items()} if isinstance(heights, dict) else heights
        optional["smoothing_by_limb"] = self.smoothing_by_limb or None
        optional["out_dir"] = str(folder) if "npz" in self.formats else None
        return options | {name: value for name, value in optional.items() if value is not None}


CACHE_NAME = ".hyper_mocap_cache"
"""Folder inside the output folder for what makes a run resumable."""


def make_parser(program: str) -> argparse.ArgumentParser:
    """Return the parser of the options."""
    parser = argparse.ArgumentParser(
        prog=program,
        description="Recover the motion of people in videos. The exit code is 0 only if every clip succeeded.",
    )
    add = parser.add_argument
    add("videos", nargs="+", metavar="VIDEO", help="video, folder of videos, or pattern such as 'clips/*.mp4'")
    add("--out", required=True, metavar="FOLDER", help="where results go; made if missing")
    add("--formats", default="fbx,npz", metavar="LIST", help=f"any of {','.join(FORMATS)} (default fbx,npz)")
    add("--mode", default="armature", choices=[m.lower() for m in MODES], help="how motion is written")
    add("--jobs", type=int, default=1, metavar="N", help="clips at the same time, each in its own Blender")
    meaning = f"how the body is recovered (default {protocol.DEFAULT_METHOD})"
    add("--method", default=protocol.DEFAULT_METHOD, choices=sorted(METHODS), help=meaning)
    meaning = "draft is faster, high is calmer (default standard)"
    add("--quality", default="standard", choices=protocol.QUALITIES, help=meaning)
    refining = argparse.BooleanOptionalAction
    word = "--refine" if protocol.REFINES_BY_DEFAULT else "--no-refine"
    meaning = f"move a network's motion onto the footage; method fit always does (default {word})"
    add("--refine", action=refining, default=protocol.REFINES_BY_DEFAULT, help=meaning)
    add("--device", default="auto", help="auto, cpu, cuda or mps")
    add("--person", default="all", metavar="WHO", help='"all", or numbers of people such as 0,2')
    add("--max-people", type=int, default=4, metavar="N", help="most people to look for (default 4)")
    usual = protocol.DEFAULT_SMOOTHING_S
    meaning = f"smoothing in seconds (default {usual:g}, 0 is none)"
    add("--smoothing", type=float, default=usual, metavar="S", help=meaning)
    meaning = f"other seconds for some of {', '.join(protocol.SMOOTHING_LIMBS)}"
    add("--smoothing-by-limb", type=_limbs, default={}, metavar="LIMB:S", help=f"{meaning}: arms:0,torso:0.06")
    meaning = "hold planted feet still and soles out of the floor (default --lock-feet)"
    add("--lock-feet", action=argparse.BooleanOptionalAction, default=True, help=meaning)
    add("--panning", action="store_true", help="the camera turns on its place: follow the background")
    add("--focal-mm", type=float, metavar="MM", help="focal length for a 36 mm wide sensor, if known")
    add("--height", type=_heights, metavar="M", help="known height in metres, 1.72; or by person, 0:1.72,1:1.6")
    add("--start", type=float, default=0.0, metavar="S", help="seconds into each clip to start at")
    add("--end", type=float, metavar="S", help="seconds into each clip to end before")
    add("--body", metavar="FILE", help="your licensed SMPL file instead of the free body")
    add("--resume", action="store_true", help="skip what is done, go on with what was interrupted")
    add("--report", metavar="FILE", help="JSON report, written after every clip (default OUT/report.json)")
    add("--engine-python", default="", metavar="PATH", help="Python that has the engine's packages")
    return parser


def _heights(text: str) -> float | dict[int, float]:
    """Metres for everybody, or by person. ArgumentTypeError (argparse makes it a usage line) where they are not."""
    least, largest = protocol.HEIGHTS_M
    try:
        heights = protocol.read_heights(text)
        by_person = heights if isinstance(heights, dict) else {0: heights}
        is_right = all(person >= 0 and least <= height <= largest for person, height in by_person.items())
    except ValueError:
        is_right = False
    if not is_right:
        expected = f"metres from {least:g} to {largest:g}, such as 1.72, or by person 0:1.72,1:1.6"
        raise argparse.ArgumentTypeError(f"{text}: expected {expected}")
    return heights


def _limbs(text: str) -> dict[str, float]:
    """Seconds by limb. ArgumentTypeError (argparse makes it a usage line) where they are not."""
    known, longest = protocol.SMOOTHING_LIMBS, protocol.LONGEST_SMOOTHING_S
    try:
        by_limb = protocol.read_pairs(text)
        is_right = all(limb in known and 0 <= seconds <= longest for limb, seconds in by_limb.items())
    except ValueError:
        is_right = False
    if not is_right:
        expected = f"seconds from 0 to {longest:g} for any of {', '.join(known)}"
        raise argparse.ArgumentTypeError(f"{text}: expected {expected}")
    return by_limb


def parse_options(arguments: list[str], program: str) -> tuple[list[str], BatchOptions]:
    """Return the patterns and the options. Exits with code 2 and a usage line where they are wrong."""
    parser = make_parser(program)
    given = parser.parse_args(arguments)
    formats = tuple(dict.fromkeys(name.strip().lower() for name in given.formats.split(",") if name.strip()))
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats:
        parser.error(f"--formats: {', '.join(unknown) or 'none given'}; choose from {', '.join(FORMATS)}")
    if given.jobs < 1:
        parser.error("--jobs: at least 1")
    if not 0 <= given.smoothing <= protocol.LONGEST_SMOOTHING_S:
        parser.error(f"--smoothing: seconds from 0 to {protocol.LONGEST_SMOOTHING_S:g}")
    if given.max_people < 1:
        parser.error("--max-people: at least 1")
    if given.focal_mm is not None and not 0 < given.focal_mm < math.inf:
        parser.error("--focal-mm: a length above 0")
    if not 0 <= given.start < math.inf:
        parser.error("--start: seconds, 0 or more")
    if given.end is not None and not given.start < given.end:
        parser.error("--end: must lie after --start")
    try:
        person = protocol.read_people(given.person)
    except ValueError:
        parser.error('--person: "all", or numbers of people such as 0,2')
    return given.videos, BatchOptions(
        out=Path(given.out).expanduser().resolve(),
        formats=formats,
        mode=given.mode.upper(),
        jobs=given.jobs,
        method=given.method,
        quality=given.quality,
        refine=given.refine,
        device=given.device,
        person=person,
        max_people=given.max_people,
        smoothing_s=given.smoothing,
        smoothing_by_limb=given.smoothing_by_limb,
        lock_feet=given.lock_feet,
        panning=given.panning,
        focal_mm=given.focal_mm,
        height_m=given.height,
        start=given.start,
        end=given.end,
        body=str(Path(given.body).expanduser().resolve()) if given.body else None,
        resume=given.resume,
        report=Path(given.report or Path(given.out) / "report.json").expanduser().resolve(),
        engine_python=os.path.abspath(os.path.expanduser(given.engine_python)) if given.engine_python else "",
    )


def option_arguments(options: BatchOptions) -> list[str]:
    """Return the command line that `parse_options` turns into these options again, for a child with one job."""
    person = options.person if isinstance(options.person, str) else ",".join(map(str, options.person))
    heights = options.height_m
    if isinstance(heights, dict):
        heights = ",".join(f"{person}:{height}" for person, height in heights.items())
    limbs = ",".join(f"{limb}:{seconds}" for limb, seconds in options.smoothing_by_limb.items())
    words = {
        "--out": options.out,
        "--formats": ",".join(options.formats),
        "--mode": options.mode.lower(),
        "--method": options.method,
        "--quality": options.quality,
        "--device": options.device,
        "--person": person,
        "--max-people": options.max_people,
        "--smoothing": options.smoothing_s,
        "--smoothing-by-limb": limbs or None,
        "--focal-mm": options.focal_mm,
        "--height": heights,
        "--start": options.start,
        "--end": options.end,
        "--body": options.body,
        "--report": options.report,
        "--engine-python": options.engine_python or None,
    }
    pairs = [word for name, value in words.items() if value is not None for word in (name, str(value))]
    switches = [f"--{'' if options.refine else 'no-'}refine", f"--{'' if options.lock_feet else 'no-'}lock-feet"]
    set_ones = [word for word, is_set in (("--panning", options.panning), ("--resume", options.resume)) if is_set]
    return [*pairs, *switches, *set_ones]


def find_videos(patterns: list[str]) -> tuple[list[Path], list[str]]:
    """Return the videos that files, folders and patterns stand for, sorted within each, and what matched nothing."""
    videos: dict[Path, None] = {}
    missing = []
    for pattern in patterns:
        path = Path(pattern).expanduser()
        if path.is_dir():
            inside = sorted(path.iterdir())
            found = [p for p in inside if p.suffix.lower() in VIDEO_SUFFIXES]
            if not found and any(p.suffix.lower() in IMAGE_SUFFIXES for p in inside):
                found = [path]
        elif path.exists():
            found = [path]
        else:
            found = sorted(Path(p) for p in glob.glob(str(path), recursive=True) if not Path(p).is_dir())
        if not found:
            missing.append(pattern)
        videos.update(dict.fromkeys(p.resolve() for p in found))
    return list(videos), missing


def explain_missing(pattern: str) -> str:
    """Return why `find_videos` found nothing for this pattern, in words."""
    path = Path(pattern).expanduser()
    if path.is_dir():
        return "the folder holds no videos"
    return "no file fits this pattern" if glob.has_magic(str(path)) else "there is no such file"


def output_folders(videos: list[Path], out: Path) -> list[Path]:
    """Return each clip's output folder: `out`, or one of its own for the second and later clips of the same name."""
    seen: dict[str, int] = {}
    folders = []
    for video in videos:
        key = video.stem.casefold()
        seen[key] = seen.get(key, 0) + 1
        folders.append(out if seen[key] == 1 else out / f"{video.stem}_{seen[key]}")
    return folders
