"""What a shard of rendered training clips holds, and how to read and write it.

A shard is one uncompressed .npz of C clips, their frames one after the other along N; `clip_start` and `clip_len` cut
them. Camera frame: x right, y down, z forward, metres; pixels of the full upright image. Truth is stored as
parameters: joints, keypoints and vertices follow from `core.body` (`body.forward_kinematics`, `body.keypoints`,
`body.skin`) with `betas` and `trans` in SMPL's convention, vertices = LBS + trans.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from core.atomic import AtomicFile
from core.errors import InputError
from core.perception.certainty import confidence_of
from core.skeleton import SHAPE_COUNT

VERSION = 4
"""1 had no `spacing`, 2 people of other lengths, 3 no `heat`."""

FRAME_FIELDS: dict[str, tuple[str, tuple[int | str, ...], str]] = {
    "quats": ("float16", (24, 4), "local rotations w x y z, w >= 0, the root's in the camera frame; renormalise"),
    "trans": ("float32", (3,), "SMPL translation in the camera frame"),
    "up": ("float16", (3,), "unit vector against gravity in the camera frame"),
    "keypoints": ("float32", (25, 3), "detector: x px, y px, visibility 0..1"),
    "heat": ("float16", (25, 6), "detector: what its heat maps say of the keypoints (core.perception.heat)"),
    "depth": ("float16", (25,), "detector: landmark z in px of the full image, hip centre 0, away from camera +"),
    "landmarks3d": ("float16", (25, 3), "detector: world landmarks, metres, hip-centred, camera axes"),
    "embedding": ("float16", (-1,), "image embedding; 1152 numbers, or fewer after a projection"),
    "presence": ("float16", (), "detector: a person is in the crop, 0..1"),
    "roi": ("float32", (4,), "crop the detector saw: centre x px, centre y px, side px, angle rad"),
    "restarted": ("bool", (), "the crop came from the truth (first frame, or after the track was lost)"),
    "hidden": ("uint8", (25,), "bits: 1 behind an occluder or the body itself, 2 outside the image"),
}
"""name -> (dtype, shape of one frame, meaning)."""

CLIP_FIELDS: dict[str, tuple[str, tuple[int, ...], str]] = {
    "clip_start": ("int32", (), "first frame of the clip along N"),
    "clip_len": ("int32", (), "frames in the clip"),
    "subject": ("str", (), "mocap subject"),
    "motion": ("str", (), "mocap clip, `+name` added where the upper body comes from another clip"),
    "motion_start": ("float32", (), "first source frame"),
    "speed": ("float32", (), "source frames per frame"),
    "spacing": ("int32", (), "thirtieths of a second from frame to frame"),
    "is_mirrored": ("bool", (), "left and right exchanged"),
    "split": ("str", (), "train, validation or test"),
    "betas": ("float32", (SHAPE_COUNT,), "body shape"),
    "camera": ("float32", (4,), "fx fy cx cy px"),
    "size": ("int32", (2,), "image width, height px"),
    "seed": ("int64", (), "what the clip was made from"),
}
"""name -> (dtype, shape of one clip, meaning)."""


def write_shard(path: str | Path, arrays: dict[str, np.ndarray]) -> None:
    """Check names, types and lengths and write; the file appears whole or not at all."""
    _check(arrays, str(path))
    save_arrays(path, VERSION, arrays)


def save_arrays(path: str | Path, version: int, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays and `version` as one .npz that appears whole or not at all."""
    with AtomicFile(path) as out:
        np.savez(out, version=np.int32(version), **arrays)


def read_shard(path: str | Path, *, as_stored: bool = False) -> dict[str, np.ndarray]:
    """Read one shard; raises InputError naming the file where it is not one.

    The third of a keypoint's numbers is its confidence as the detector's reading gives it today, which follows from
    the visibility and heat on file; as_stored leaves the visibility there.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not a shard of training clips: {error}") from error
    version = arrays.pop("version", None)
    if version != VERSION:
        raise InputError(f"{path} was written by another version of the generator; make it again")
    _check(arrays, str(path))
    return arrays if as_stored else with_confidence(arrays)


def with_confidence(shard: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A shard as stored -> the same with confidence in place of the keypoints' visibility."""
    keypoints = torch.from_numpy(shard["keypoints"]).clone()
    keypoints[..., 2] = confidence_of(keypoints[..., 2], torch.from_numpy(shard["heat"]))
    return shard | {"keypoints": keypoints.numpy()}


def read_shards(
    folder: str | Path, *, split: str | None = None, as_stored: bool = False
) -> Iterator[dict[str, np.ndarray]]:
    """Yield the shards of a folder in order of name; `split` keeps only files named for it. See `read_shard`."""
    for path in sorted(Path(folder).glob(f"{split or '*'}-*.npz")):
        yield read_shard(path, as_stored=as_stored)


def join_shards(shards: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """One shard of the clips of several."""
    joined = {name: np.concatenate([shard[name] for shard in shards]) for name in shards[0]}
    lengths = [len(shard["quats"]) for shard in shards]
    before = np.cumsum([0, *lengths[:-1]]).repeat([len(shard["clip_start"]) for shard in shards])
    joined["clip_start"] = (joined["clip_start"] + before).astype(np.int32)
    return joined


def clips_of(shard: dict[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
    """Yield each clip of a shard as a dict of its frame arrays [T, ...] and its clip values."""
    for i in range(len(shard["clip_start"])):
        start, length = int(shard["clip_start"][i]), int(shard["clip_len"][i])
        clip = {name: shard[name][start : start + length] for name in FRAME_FIELDS}
        clip.update({name: shard[name][i] for name in CLIP_FIELDS})
        yield clip


def _check(arrays: dict[str, np.ndarray], what: str) -> None:
    missing = (FRAME_FIELDS.keys() | CLIP_FIELDS.keys()) ^ arrays.keys()
    if missing:
        raise InputError(f"{what}: fields missing or unknown: {', '.join(sorted(missing))}")
    lengths = {"N": int(np.sum(arrays["clip_len"])), "C": len(arrays["clip_len"])}
    for fields, count in ((FRAME_FIELDS, lengths["N"]), (CLIP_FIELDS, lengths["C"])):
        for name, (dtype, shape, _) in fields.items():
            array = arrays[name]
            is_right_type = array.dtype.kind == "U" if dtype == "str" else array.dtype == dtype
            expected = (count, *shape)
            is_right_shape = len(array.shape) == len(expected) and all(
                e in (-1, n) for e, n in zip(expected, array.shape)
            )
            if not (is_right_type and is_right_shape):
                raise InputError(f"{what}: {name} is {array.dtype} {array.shape}, expected {dtype} {expected}")
