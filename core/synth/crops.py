"""Rendered crops with the truth beside them, to tune the landmark network on: single pictures, not clips.

A take is rendered at moments a third of a second apart, each in a crop of its own that is off the true one as a
tracker's is. One batch of takes becomes one shard, drawn from a seed of its own: rendering can be stopped and taken
up, and several processes share it. What a network makes of the crops is no part of a shard.

A shard is one uncompressed .npz of N crops:

    jpeg    uint8 [bytes]      the crops, 256 x 256, one JPEG after the other
    offset  int64 [N + 1]      where each begins, and the end of the last
    xy      float32 [N, 25, 2] keypoints, crop px
    world   float32 [N, 25, 3] keypoints relative to the hips' middle, metres, in the crop's axes
    aux     float32 [N, 2, 2]  hip centre and scale point (landmarks 33 and 34), crop px
    hidden  uint8 [N, 25]      bits: 1 behind an occluder or the body itself, 2 outside the image
    roi     float32 [N, 4]     the crop: centre x px, centre y px, side px, angle rad

The crop's axes are those of a camera that looks at the crop's middle, turned by the crop's angle (x right, y down,
z forward): a network that sees nothing but the crop can know no others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from core.body import Body
from core.errors import InputError
from core.models.inputs import ImageGeometry, view_rotation
from core.perception.reading import rotate_world
from core.perception.roi import ROI_SCALE, Roi, image_to_crop
from core.skeleton import KEYPOINT_NAMES
from core.synth.dataset import make_shards, outside_image, roi_of, sampler_config, shard_seed
from core.synth.format import save_arrays
from core.synth.motion import MotionBank
from core.synth.render import render_crops
from core.synth.sampler import MotionSampler
from core.synth.takes import CONDITIONS, Takes, draw_takes

VERSION = 1
FIELDS: dict[str, tuple[str, tuple[int, ...]]] = {
    "xy": ("float32", (25, 2)),
    "world": ("float32", (25, 3)),
    "aux": ("float32", (2, 2)),
    "hidden": ("uint8", (25,)),
    "roi": ("float32", (4,)),
}
"""name -> (dtype, shape of one crop), beside jpeg and offset."""
JPEG_QUALITY = 93
TURNED_OVER = 0.3
"""Share of training takes in which the person turns over; a third of such a take shows it."""
HIPS = [KEYPOINT_NAMES.index("left_hip"), KEYPOINT_NAMES.index("right_hip")]


@dataclass(frozen=True)
class Displacement:
    """Deviations of a crop from the true one."""

    shift: float = 0.05
    """Of its middle, as a share of its side."""
    growth: float = 0.1
    """Of the logarithm of its side."""
    turn: float = 0.15
    """Radians."""
    usual: float = 0.8
    """Factor on all three ..."""
    wide: float = 1.8
    """... and that of the share `wide_share` of crops."""
    wide_share: float = 0.3


@dataclass(frozen=True)
class CropConfig:
    split: str = "train"
    count: int = 100_000
    """At least this many crops are made, in whole shards."""
    batch: int = 128
    """Takes of one shard."""
    moments: int = 8
    """Crops of each take."""
    spacing: int = 10
    """Thirtieths of a second from moment to moment."""
    hard_every: int = 5
    """Each so-manieth shard is filmed under hard conditions, the others under everyday ones (`takes.CONDITIONS`)."""
    off: Displacement = Displacement()
    seed: int = 0
    chunk: int = 64
    """Crops rendered at once; less needs less memory."""
    supersample: int = 1

    @property
    def per_shard(self) -> int:
        return self.batch * self.moments

    @property
    def shards(self) -> int:
        return -(-self.count // self.per_shard)


def make_crops(
    folder: str | Path,
    bank: MotionBank,
    body: Body,
    *,
    config: CropConfig | None = None,
    device: torch.device | str = "cpu",
    worker: int = 0,
    workers: int = 1,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Write the shards that are not there yet; return the paths of all. Progress counts crops.

    Of several `workers`, each makes every so-manieth shard.
    """
    config = config or CropConfig()
    motion = sampler_config(config.split, config.moments, config.spacing)
    if motion.turned_over:
        motion = replace(motion, turned_over=TURNED_OVER)
    motions = MotionSampler(bank, body, split=config.split, config=motion, device=device)

    def make(path: Path, number: int, _: Callable[[int], None]) -> None:
        write_crops(path, make_crop_shard(motions, config, number))

    return make_shards(folder, config, make, worker=worker, workers=workers, on_progress=on_progress)


@torch.inference_mode()
def make_crop_shard(motions: MotionSampler, config: CropConfig, number: int) -> dict[str, np.ndarray]:
    """Draw and render one batch of takes; returns the arrays of its shard, moment after moment."""
    generator = torch.Generator(motions.device).manual_seed(shard_seed(config, number))
    conditions = CONDITIONS["everyday" if number % config.hard_every else "hard"]
    takes = draw_takes(motions, config.batch, config.moments, generator, conditions=conditions)
    rows: dict[str, list[Tensor]] = {name: [] for name in FIELDS}
    coded: list[np.ndarray] = []
    for t in range(config.moments):
        roi = displace(roi_of(takes.points[:, t]), config.off, generator)
        crops, hidden = render_crops(
            takes, t, roi, motions.body, generator, chunk=config.chunk, supersample=config.supersample
        )
        coded += [encode(crop) for crop in (crops.permute(0, 2, 3, 1) * 255).round().byte().cpu().numpy()]
        row = truth_in_crops(takes, t, roi)
        row["hidden"] = hidden.byte() + 2 * outside_image(takes, t).byte()
        for name, value in row.items():
            rows[name].append(value)
    arrays = {name: torch.cat(values).cpu().numpy() for name, values in rows.items()}
    offset = np.cumsum([0, *(len(code) for code in coded)])
    return {"jpeg": np.concatenate(coded), "offset": offset.astype(np.int64), **arrays}


def displace(roi: Roi, off: Displacement, generator: torch.Generator) -> Roi:
    """Crops [B] moved, resized and turned as a tracker's are off."""
    B, device = len(roi), roi.size.device
    e = torch.randn((B, 4), generator=generator, device=device)
    is_wide = torch.rand(B, generator=generator, device=device) < off.wide_share
    far = torch.where(is_wide, off.wide, off.usual)
    center = roi.center + e[:, :2] * (off.shift * far * roi.size)[:, None]
    size = roi.size * (e[:, 2] * off.growth * far).exp()
    return Roi(center, size, roi.angle + e[:, 3] * off.turn * far)


def truth_in_crops(takes: Takes, frame: int, roi: Roi) -> dict[str, Tensor]:
    """The fields of crops taken at roi [B] from one frame of the takes that follow from the truth alone."""
    keypoints, points = takes.keypoints[:, frame], takes.points[:, frame]
    size, focal = takes.cameras.size.float(), takes.cameras.intrinsics[:, :1]
    view = view_rotation(roi.center, ImageGeometry(size[:, :1], size[:, 1:], focal))
    world = (keypoints - keypoints[:, HIPS].mean(1, keepdim=True)) @ view
    true = roi_of(points)
    upright = torch.stack([torch.sin(true.angle), -torch.cos(true.angle)], -1)
    scale_point = true.center + upright * (true.size / (2 * ROI_SCALE))[:, None]
    return {
        "xy": image_to_crop(points, roi),
        "world": rotate_world(world, -roi.angle),
        "aux": image_to_crop(torch.stack([true.center, scale_point], 1), roi),
        "roi": torch.cat([roi.center, roi.size[:, None], roi.angle[:, None]], -1),
    }


def encode(crop: np.ndarray) -> np.ndarray:
    """[H, W, 3] uint8 RGB -> the bytes of a JPEG."""
    return cv2.imencode(".jpg", crop[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].reshape(-1)


def decode_crops(shard: dict[str, np.ndarray], rows: np.ndarray) -> np.ndarray:
    """Crops [len(rows), 256, 256, 3] uint8 RGB of a shard."""
    jpeg, offset = shard["jpeg"], shard["offset"]
    images = [cv2.imdecode(jpeg[offset[i] : offset[i + 1]], cv2.IMREAD_COLOR) for i in rows]
    return np.ascontiguousarray(np.stack(images)[..., ::-1])


def write_crops(path: str | Path, arrays: dict[str, np.ndarray]) -> None:
    """Write one shard; the file appears whole or not at all."""
    _check(arrays, str(path))
    save_arrays(path, VERSION, arrays)


def read_crops(path: str | Path, *, with_pictures: bool = True) -> dict[str, np.ndarray]:
    """Read one shard, or its truth alone; raises InputError naming the file where it is not one."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            wanted = [n for n in archive.files if with_pictures or n in FIELDS or n == "version"]
            arrays = {name: archive[name] for name in wanted}
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not a shard of crops: {error}") from error
    if arrays.pop("version", None) != VERSION:
        raise InputError(f"{path} is not a shard of crops of this version; make it again: python -m core synth crops")
    if with_pictures:
        _check(arrays, str(path))
    return arrays


def crop_paths(folder: str | Path, split: str) -> list[Path]:
    """The shards of a split in a folder, in order of name."""
    return sorted(Path(folder).glob(f"{split}-*.npz"))


def _check(arrays: dict[str, np.ndarray], where: str) -> None:
    if missing := {"jpeg", "offset", *FIELDS} ^ arrays.keys():
        raise InputError(f"{where}: fields missing or unknown: {', '.join(sorted(missing))}")
    count = len(arrays["offset"]) - 1
    for name, (kind, shape) in FIELDS.items():
        if arrays[name].dtype != kind or arrays[name].shape != (count, *shape):
            raise InputError(f"{where}: {name} is {arrays[name].dtype} {arrays[name].shape}")
    if arrays["offset"][-1] != len(arrays["jpeg"]):
        raise InputError(f"{where}: the pictures are cut off")
