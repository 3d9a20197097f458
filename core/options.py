"""What a job can be told: JobOptions, checked where it is made. No torch here, so the command line starts fast."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from pathlib import Path

from core.device import DEVICES
from core.errors import InputError
from core.protocol import (
    DEFAULT_METHOD,
    DEFAULT_SMOOTHING_S,
    HEIGHTS_M,
    LONGEST_SMOOTHING_S,
    QUALITIES,
    REFINES_BY_DEFAULT,
    SMOOTHING_LIMBS,
)

MAX_PEOPLE = 32
FULL_FRAME_WIDTH_MM = 36.0
SMOOTHING = f"seconds from 0 to {LONGEST_SMOOTHING_S:g}"


@dataclass(frozen=True)
class JobOptions:
    """Options of one job. InputError on construction if one is wrong."""

    method: str = DEFAULT_METHOD
    """A key of core.recover.METHODS."""
    quality: str = "standard"
    """"draft" looks at every second frame and fills in the others; "high" reads everybody twice, once mirrored."""
    refine: bool = REFINES_BY_DEFAULT
    """Move a network's motion so that it meets the keypoints in the picture (methods in core.protocol's
    REFINABLE_METHODS). No effect on method "fit", which does nothing else."""
    person: str | tuple[int, ...] = "all"
    """"all", "ask" (wait for a choice after the people are known), or ids of people."""
    device: str = "auto"
    start: float = 0.0
    """Seconds into the video."""
    end: float | None = None
    """Seconds into the video, exclusive; None = to the end."""
    vertices: bool = False
    """Also stream and store every vertex of every frame."""
    out_dir: str | None = None
    """Folder of the result files; None = none are written."""
    cache_dir: str | None = None
    """Folder for what makes a job resumable; None = .hyper_mocap_cache in out_dir."""
    resume: bool = False
    """Go on from what an earlier, interrupted run of the same job left in the cache."""
    focal_px: float | None = None
    """Focal length in pixels of the upright image; None = records.USUAL_FOCAL times the image diagonal."""
    focal_mm: float | None = None
    """Focal length in millimetres for a 36 mm wide sensor (35 mm equivalent); exclusive with focal_px."""
    height_m: float | dict[int, float] | None = None
    """Standing height in metres: of everybody, or by person (keys may be words of digits, as JSON has them); None =
    recovered. The body gets exactly this height and keeps its proportions; the picture still fits."""
    live: bool = True
    """Send rough frames while the video is still being read. Changes no result."""
    smoothing_s: float = DEFAULT_SMOOTHING_S
    """Time constant of the smoothing in seconds; 0 = none."""
    smoothing_by_limb: dict[str, float] = field(default_factory=dict)
    """Seconds for those who get a smoothing of their own, by a key of core.protocol's SMOOTHING_LIMBS; a side goes
    before both ("left_arm" before "arms"). Holds limbs of core.smooth once made."""
    lock_feet: bool = True
    """Hold planted feet still and soles out of the floor."""
    panning: bool = False
    """The camera turns on its place while it films: follow it by the background. Otherwise it is taken to stand."""
    body: str | None = None
    """Path of a body model file; None = the shipped body."""
    max_people: int = 4

    def __post_init__(self) -> None:
        _check(isinstance(self.method, str) and self.method != "", "method", self.method, "the name of a method")
        _check(self.quality in QUALITIES, "quality", self.quality, f"one of {', '.join(QUALITIES)}")
        object.__setattr__(self, "person", _people(self.person))
        is_device = isinstance(self.device, str) and self.device.split(":")[0] in DEVICES
        _check(is_device, "device", self.device, f"one of {', '.join(DEVICES)}")
        _check(_is_number(self.start) and self.start >= 0, "start", self.start, "seconds, 0 or more")
        if self.end is not None:
            _check(_is_number(self.end) and self.end > self.start, "end", self.end, f"seconds after {self.start}")
        for name in ("refine", "lock_feet", "panning", "vertices", "resume", "live"):
            _check(isinstance(getattr(self, name), bool), name, getattr(self, name), "true or false")
        for name in ("out_dir", "cache_dir", "body"):
            value = getattr(self, name)
            _check(value is None or (isinstance(value, str) and value != ""), name, value, "a path")
        for name in ("focal_px", "focal_mm"):
            value = getattr(self, name)
            _check(value is None or (_is_number(value) and value > 0), name, value, "a length above 0")
        if self.focal_px is not None and self.focal_mm is not None:
            raise InputError("Give the focal length in pixels or in millimetres, not both")
        object.__setattr__(self, "height_m", _heights(self.height_m))
        _check(_is_smoothing(self.smoothing_s), "smoothing_s", self.smoothing_s, SMOOTHING)
        object.__setattr__(self, "smoothing_by_limb", _smoothing_by_limb(self.smoothing_by_limb))
        is_count = type(self.max_people) is int and 1 <= self.max_people <= MAX_PEOPLE
        _check(is_count, "max_people", self.max_people, f"a whole number from 1 to {MAX_PEOPLE}")

    @classmethod
    def from_dict(cls, values: dict) -> JobOptions:
        """Return the options that a Job message carries. InputError names an unknown or wrong option."""
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise InputError(f"Unknown option {unknown[0]!r}: this engine knows {', '.join(sorted(known))}")
        return cls(**values)

    def focal_for(self, width: int) -> float | None:
        """Return the focal length in pixels for an image of that width, None where the default applies."""
        if self.focal_mm is not None:
            return self.focal_mm / FULL_FRAME_WIDTH_MM * width
        return self.focal_px

    def height_for(self, person: int) -> float | None:
        """Return the height in metres that a person is given, None where it is recovered."""
        return self.height_m.get(person) if isinstance(self.height_m, dict) else self.height_m

    def cache_folder(self) -> Path | None:
        """Return where this job's cache belongs, None where it has no place."""
        if self.cache_dir is not None:
            return Path(self.cache_dir)
        return Path(self.out_dir) / ".hyper_mocap_cache" if self.out_dir is not None else None


def _people(value: object) -> str | tuple[int, ...]:
    if type(value) is int:
        value = (value,)
    if isinstance(value, str) and value in ("all", "ask"):
        return value
    is_ids = isinstance(value, (list, tuple)) and len(value) > 0 and all(type(n) is int and n >= 0 for n in value)
    _check(is_ids, "person", value, '"all", "ask" or ids of people (0, 1, ...)')
    return tuple(dict.fromkeys(value))


def _heights(value: object) -> float | dict[int, float] | None:
    if value is None:
        return None
    least, largest = HEIGHTS_M
    expected = f"metres from {least:g} to {largest:g}, for everybody or by person"
    by_person = value if isinstance(value, dict) else {0: value}
    are_heights = all(_is_number(h) and least <= h <= largest for h in by_person.values())
    are_people = all(str(p).isdecimal() and type(p) in (int, str) for p in by_person)
    _check(len(by_person) > 0 and are_heights and are_people, "height_m", value, expected)
    return {int(p): float(h) for p, h in by_person.items()} if isinstance(value, dict) else float(value)


def _is_smoothing(value: object) -> bool:
    return _is_number(value) and 0 <= value <= LONGEST_SMOOTHING_S


def _smoothing_by_limb(value: object) -> dict[str, float]:
    """The smoothing of each limb that has one, sides apart."""
    is_known = isinstance(value, dict) and all(name in SMOOTHING_LIMBS for name in value)
    expected = f"{SMOOTHING} for any of {', '.join(SMOOTHING_LIMBS)}"
    _check(is_known and all(map(_is_smoothing, value.values())), "smoothing_by_limb", value, expected)
    pairs_first = sorted(value, key=lambda name: -len(SMOOTHING_LIMBS[name]))
    found = {limb: float(value[name]) for name in pairs_first for limb in SMOOTHING_LIMBS[name]}
    return {limb: found[limb] for limb in SMOOTHING_LIMBS if limb in found}


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _check(is_right: bool, name: str, value: object, expected: str) -> None:
    if not is_right:
        raise InputError(f"Option {name} = {str(value)[:60]!r} is not usable: expected {expected}")
