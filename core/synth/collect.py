"""Collect CMU takes (NN_MM.fbx: subject, trial) from folders into clips of a motion file's layout, group `cmu_daz`.

The library played every fifth captured frame as 24 a second, whatever the rate of the capture; the rates undo that.
A take starts with a T-pose, which is dropped. Left out, with a reason: takes of held-out subjects, takes that a given
motion file has already, copies of one of those or of each other under another number, and what cannot be used.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from core.atomic import AtomicFile
from core.errors import InputError
from core.synth.copies import SeenClips, SeenTakes
from core.synth.daz_fbx import DazTake, read_daz_fbx
from core.synth.mocap import SourceSkeleton, read_mocap
from core.synth.pieces import FPS, Piece, cut_at_jumps, resample
from core.synth.trials import GROUP, USUAL_RATE, Take, Trials, find_takes

logger = logging.getLogger(__name__)

REST_POSE = "T-pose, legs nearly vertical, facing +Z, +Y up"
UNEVEN_S = 1e-3
FEWEST_KEYS = 12
"""After the T-pose: half a second."""

HELD_OUT = "of held-out subjects"
SECOND_FILE = "second file of a trial"
ALREADY_THERE = "already in the motion file"
COPY = "copies under another number"
UNEVEN = "uneven key times"
TOO_SHORT = "too short or still"
UNREADABLE = "unreadable"


@dataclass(frozen=True)
class CollectedClip:
    name: str
    take: Take
    fps: float
    """Rate of the keys once they play as fast as the person moved."""
    piece: Piece


@dataclass
class Collection:
    skeleton: SourceSkeleton
    skeleton_subject: str
    clips: list[CollectedClip] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """Names of takes by reason."""

    @property
    def minutes(self) -> float:
        return sum(len(clip.piece.quats) for clip in self.clips) / FPS / 60

    def leave_out(self, reason: str, name: str, detail: str = "") -> None:
        self.left_out[reason].append(name)
        logger.info("%s left out: %s%s", name, reason, f" ({detail})" if detail else "")


@dataclass
class _Known:
    """What a motion file has: skeleton, trials, clips on that skeleton."""

    skeleton: SourceSkeleton
    subject: str
    trials: set[str]
    clips: SeenClips


def collect(
    folders: Iterable[str | Path],
    mocap: Iterable[str | Path],
    *,
    trials: Trials | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Collection:
    """Clips of all takes below some folders, less what has to be left out.

    mocap: motion files; the first with the group gives the skeleton, and what is in any of them is not taken again.
    """
    known = _read_known(mocap)
    collection = Collection(known.skeleton, known.subject)
    takes, others = find_takes(folders, trials or {})
    for path in others:
        collection.leave_out(SECOND_FILE, path.stem, str(path))
    # First what is not to be taken, so that its copies are known; of two others, the one whose rate is listed.
    takes.sort(key=lambda t: (not t.is_held_out, t.name not in known.trials, not t.is_listed, t.number))
    seen = SeenTakes()
    for done, take in enumerate(takes):
        _collect_take(take, known, seen, collection)
        if on_progress:
            on_progress(done + 1, len(takes))
    collection.clips.sort(key=lambda clip: (clip.take.number, clip.piece.start))
    return collection


def write_collection(path: str | Path, collection: Collection) -> None:
    """Write a motion file that `mocap.read_mocap` reads."""
    clips, skeleton = collection.clips, collection.skeleton
    if not clips:
        raise InputError(f"no clips to write to {path}: everything was left out")
    lengths = np.array([len(clip.piece.quats) for clip in clips], np.int32)
    arrays = {
        "joint_names": np.array(skeleton.joint_names),
        "parents": np.array(skeleton.parents, np.int32),
        "rest_offsets": skeleton.rest_offsets[None].numpy().astype(np.float32),
        "end_offsets": skeleton.end_offsets[None].numpy().astype(np.float32),
        "skel_subject": np.array([collection.skeleton_subject]),
        "rest_pose": np.array(REST_POSE),
        "quat": np.concatenate([clip.piece.quats.numpy().astype(np.float16) for clip in clips]),
        "root_pos": np.concatenate([clip.piece.root_pos.numpy().astype(np.float32) for clip in clips]),
        "clip_start": (np.cumsum(lengths) - lengths).astype(np.int32),
        "clip_len": lengths,
        "clip_name": np.array([clip.name for clip in clips]),
        "clip_subject": np.array([clip.take.subject for clip in clips]),
        "clip_desc": np.array([clip.take.description for clip in clips]),
        "clip_source": np.array([clip.take.source for clip in clips]),
        "clip_skel": np.zeros(len(clips), np.int32),
        "clip_orig_fps": np.array([clip.fps for clip in clips], np.float32),
        "clip_floor_y": np.array([clip.piece.floor for clip in clips], np.float32),
    }
    with AtomicFile(path) as out:
        grouped = {f"{GROUP}/{name}": values for name, values in arrays.items()}
        np.savez_compressed(out, groups=np.array([GROUP]), fps=np.float32(FPS), **grouped)


def _read_known(mocap: Iterable[str | Path]) -> _Known:
    skeleton, subject, names, clips = None, "", set(), SeenClips()
    for path in mocap:
        for clip in read_mocap(path):
            names.add(clip.name.partition("#")[0])
            if clip.group == GROUP:
                if skeleton is None:
                    skeleton, subject = clip.skeleton, clip.subject
                clips.add(clip.name, clip.rotmats)
    if skeleton is None:
        raise InputError(f"no motion file has clips of the group {GROUP}, whose skeleton is needed")
    return _Known(skeleton, subject, names, clips)


def _collect_take(take: Take, known: _Known, seen: SeenTakes, collection: Collection) -> None:
    """Add the clips of one take, or the reason why there are none."""
    reason = HELD_OUT if take.is_held_out else ALREADY_THERE if take.name in known.trials else ""
    try:
        read = _without_t_pose(read_daz_fbx(_read_text(take.path), known.skeleton, source=str(take.path)))
    except InputError as error:
        collection.leave_out(reason or UNREADABLE, take.name, str(error))
        return
    if len(read.times) < FEWEST_KEYS:
        collection.leave_out(reason or TOO_SHORT, take.name, f"{len(read.times)} keys")
        return
    original = seen.original_or_none(read.rotmats)
    if original is None:
        seen.add(take.name, read.rotmats)
    if reason:
        collection.leave_out(reason, take.name)
        return
    if original is not None:
        collection.leave_out(COPY, take.name, f"as {original}")
        return
    intervals = read.times.diff()
    if float(intervals.max() - intervals.min()) > UNEVEN_S:
        collection.leave_out(UNEVEN, take.name, f"{float(intervals.min()):.4f} to {float(intervals.max()):.4f} s")
        return
    fps = round(float(1 / intervals.median()), 3) * take.rate / USUAL_RATE
    pieces = cut_at_jumps(*resample(read.rotmats, read.root_pos, fps), known.skeleton)
    original = next((name for name in (known.clips.original_or_none(p.quats) for p in pieces) if name), None)
    if original is not None:
        collection.leave_out(COPY, take.name, f"as {original} of the motion file")
    elif not pieces:
        collection.leave_out(TOO_SHORT, take.name)
    for piece in pieces if original is None else ():
        is_whole = len(pieces) == 1 and piece.start == 0
        name = take.name if is_whole else f"{take.name}#{piece.start}"
        collection.clips.append(CollectedClip(name, take, fps, piece))


def _without_t_pose(take: DazTake) -> DazTake:
    return DazTake(take.times[1:], take.rotmats[1:], take.root_pos[1:])


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error}") from error
