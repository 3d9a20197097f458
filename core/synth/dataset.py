"""Rendered clips through the real detector, in lockstep: frame t of all clips is rendered and read before t + 1.

As in tracking, the crop of a frame comes from the landmarks of the frame before; the first one, and the one after the
person was lost, comes from the truth with some error, in place of the person detector. One batch of clips becomes one
shard (format.py), drawn from a seed of its own, so a run can be stopped and taken up, and two machines can share it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from core.body import Body
from core.perception.blazepose import CROP_SIZE, BlazePoseLandmarks
from core.perception.config import TrackingConfig
from core.perception.reading import place_reading, read_images
from core.perception.roi import Roi, roi_from_points
from core.rotation import matrix_to_quaternion
from core.skeleton import KEYPOINT_NAMES
from core.synth.format import read_shard, write_shard
from core.synth.motion import MotionBank
from core.synth.render import render_crops
from core.synth.sampler import MotionSampler, SamplerConfig
from core.synth.takes import CONDITIONS, Takes, draw_takes

logger = logging.getLogger(__name__)

MIN_PRESENCE = 0.5
LOST_SHIFT = 0.6
"""A crop whose centre is off the person by more than this share of its side has lost them."""
RESTART_ERROR = (0.04, 0.1, 0.15)
"""Deviations of a crop taken from the truth: place and log size as shares of the side, angle in radians."""
NEW_POSES = {"in_parts": 0.35, "wobbled": 0.4, "wobble_deg": 12.0, "handed": 0.25, "turned_over": 0.1}
"""Limbs of several clips on one body, sway, hands put on the body, somersaults: the motion bank is small."""


@dataclass(frozen=True)
class DatasetConfig:
    split: str = "train"
    conditions: str = "everyday"
    """A key of `core.synth.takes.CONDITIONS`."""
    frames: int = 150_000
    """At least this many are made, in whole batches."""
    clip_frames: int = 96
    spacing: int = 1
    """Thirtieths of a second from frame to frame: fewer frames show more motion, people and cameras."""
    batch: int = 256
    """Clips in lockstep, one shard."""
    seed: int = 0
    chunk: int = 64
    """Clips rendered at once; less needs less memory."""
    supersample: int = 2
    """Rays along a pixel's side: 1 is twice as fast, and moves the detector's points by 1 px of 256 (median)."""
    embedding_size: int | None = None
    """None keeps the detector's 1152 numbers; a smaller number keeps that many random projections of them."""

    @property
    def per_shard(self) -> int:
        """Frames."""
        return self.clip_frames * self.batch

    @property
    def shards(self) -> int:
        return -(-self.frames // self.per_shard)


def sampler_config(split: str, frames: int, spacing: int = 1) -> SamplerConfig:
    """Training motion is varied by every means; held-out motion is shown as it was recorded."""
    if split == "train":
        slowest, fastest = SamplerConfig().speed
        speed = (slowest * spacing, fastest * spacing)
        return SamplerConfig(frames=frames, speed=speed, frame_s=spacing / 30, **NEW_POSES)
    plain = {"mirrored": 0.0, "mixed": 0.0, "wobbled": 0.0, "tilt_deg": 0.0}
    return SamplerConfig(frames=frames, speed=(float(spacing),) * 2, beta_deviation=1.0, **plain)


def make_dataset(
    folder: str | Path,
    bank: MotionBank,
    body: Body,
    detector: BlazePoseLandmarks,
    *,
    config: DatasetConfig | None = None,
    device: torch.device | str = "cpu",
    worker: int = 0,
    workers: int = 1,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Write the shards that are not there yet; return the paths of all. Progress counts frames.

    Of several `workers`, each makes every so-manieth shard.
    """
    config = config or DatasetConfig()
    motion = sampler_config(config.split, config.clip_frames, config.spacing)
    motions = MotionSampler(bank, body, split=config.split, config=motion, device=device)

    def make(path: Path, number: int, on_frames: Callable[[int], None]) -> None:
        write_shard(path, make_shard(motions, bank, detector, config, number, on_frames=on_frames))

    return make_shards(folder, config, make, worker=worker, workers=workers, on_progress=on_progress)


def make_shards(
    folder: str | Path,
    config,
    make: Callable[[Path, int, Callable[[int], None]], None],
    *,
    worker: int,
    workers: int,
    on_progress: Callable[[int, int], None] | None,
) -> list[Path]:
    """Have the shards of `config` made that are not in the folder: make(path, number, tell what is done of it).

    Returns the paths of every `workers`-th shard from `worker` on. Progress counts `config.per_shard` for each.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    numbers = range(worker, config.shards, workers)
    total = len(numbers) * config.per_shard
    paths = []
    for place, number in enumerate(numbers):
        path = folder / f"{config.split}-s{config.seed}-{number:04d}.npz"
        paths.append(path)
        before = place * config.per_shard

        def tell(done: int, before: int = before) -> None:
            if on_progress:
                on_progress(before + done, total)

        if not path.exists():
            started = time.perf_counter()
            make(path, number, tell)
            logger.info("%s: %.0f frames a second", path.name, config.per_shard / (time.perf_counter() - started))
        tell(config.per_shard)
    return paths


@torch.inference_mode()
def make_shard(
    motions: MotionSampler,
    bank: MotionBank,
    detector: BlazePoseLandmarks,
    config: DatasetConfig,
    number: int,
    *,
    on_frames: Callable[[int], None] | None = None,
) -> dict[str, np.ndarray]:
    """Draw, render and read one batch of clips; returns the arrays of its shard."""
    device = motions.device
    seed = shard_seed(config, number)
    generator = torch.Generator(device).manual_seed(seed)
    conditions = CONDITIONS[config.conditions]
    takes = draw_takes(motions, config.batch, config.clip_frames, generator, conditions=conditions)
    projection = _projection(config.embedding_size, device)
    frames: dict[str, list[Tensor]] = {}
    roi, restarted = first_roi(takes, 0, generator), torch.ones(config.batch, dtype=torch.bool, device=device)
    for t in range(config.clip_frames):
        crops, hidden = render_crops(
            takes, t, roi, motions.body, generator, chunk=config.chunk, supersample=config.supersample
        )
        row, next_roi, lost = read_crops(detector, crops, roi, takes, t, projection)
        row["hidden"] = hidden.to(torch.uint8) + 2 * outside_image(takes, t).to(torch.uint8)
        row["restarted"] = restarted
        for name, value in row.items():
            frames.setdefault(name, []).append(value)
        fresh = first_roi(takes, min(t + 1, config.clip_frames - 1), generator)
        roi = Roi(
            torch.where(lost[:, None], fresh.center, next_roi.center),
            torch.where(lost, fresh.size, next_roi.size),
            torch.where(lost, fresh.angle, next_roi.angle),
        )
        restarted = lost
        if on_frames:
            on_frames((t + 1) * config.batch)
    stacked = {name: torch.stack(values, 1) for name, values in frames.items()}
    return _arrays(takes, stacked, bank, config, seed)


def shard_seed(config, number: int) -> int:
    """Seed of one shard of a configuration with `split` and `seed`; splits and runs do not share any."""
    split = {"train": 0, "validation": 1, "test": 2}[config.split]
    return (config.seed * 4 + split) * 1_000_003 + number


def read_crops(
    detector: BlazePoseLandmarks, crops: Tensor, roi: Roi, takes: Takes, frame: int, projection: Tensor | None
) -> tuple[dict[str, Tensor], Roi, Tensor]:
    """Run the detector on crops [B, 3, 256, 256]; returns the shard's fields, the next crop and who is lost [B]."""
    weight = next(detector.parameters())
    images = crops.to(weight.dtype).contiguous(memory_format=torch.channels_last)
    seen = read_images(detector, images, mirrored_under=TrackingConfig.mirrored_under)
    reading = place_reading(seen, roi)
    embedding = reading.embedding.float()
    if projection is not None:
        embedding = embedding @ projection
    row = {
        "keypoints": torch.cat((reading.keypoints[..., :2].float(), seen.visibility[..., None]), -1),
        "heat": seen.heat,
        "depth": seen.depth * (roi.size / CROP_SIZE)[:, None],
        "landmarks3d": reading.world.float(),
        "embedding": embedding.half(),
        "presence": reading.presence.float(),
        "roi": torch.cat([roi.center, roi.size[:, None], roi.angle[:, None]], -1),
    }
    truth = roi_of(takes.points[:, frame])
    shift = (reading.next_roi.center - truth.center).norm(dim=-1) / truth.size
    growth = (reading.next_roi.size / truth.size).log().abs()
    lost = (reading.presence < MIN_PRESENCE) | ~(shift < LOST_SHIFT) | ~(growth < 1.1)
    return row, reading.next_roi, lost


def roi_of(points: Tensor) -> Roi:
    """The crop that true keypoints [B, 25, 2] ask for: hips in the middle, shoulders upwards, everybody inside."""
    index = KEYPOINT_NAMES.index
    hips = (points[:, index("left_hip")] + points[:, index("right_hip")]) / 2
    shoulders = (points[:, index("left_shoulder")] + points[:, index("right_shoulder")]) / 2
    reach = (points - hips[:, None]).norm(dim=-1).amax(-1).clamp_min(4.0)
    up = torch.nn.functional.normalize(shoulders - hips, dim=-1)
    return roi_from_points(hips, hips + up * reach[:, None])


def first_roi(takes: Takes, frame: int, generator: torch.Generator) -> Roi:
    """A crop as the person detector would give it: the true one with some error."""
    roi = roi_of(takes.points[:, frame])
    e = torch.randn((len(takes), 4), generator=generator, device=roi.size.device)
    place, size, angle = RESTART_ERROR
    return Roi(
        roi.center + e[:, :2] * place * roi.size[:, None],
        roi.size * (e[:, 2] * size).exp(),
        roi.angle + e[:, 3] * angle,
    )


def outside_image(takes: Takes, frame: int) -> Tensor:
    """[B, 25] bool: the keypoint lies outside the image."""
    points, size = takes.points[:, frame], takes.cameras.size[:, None]
    return ((points < 0) | (points >= size)).any(-1)


def _projection(size: int | None, device: torch.device) -> Tensor | None:
    """A fixed random projection [1152, size] that keeps lengths on average."""
    if size is None:
        return None
    matrix = torch.randn((1152, size), generator=torch.Generator().manual_seed(1152))
    return (matrix / size**0.5).to(device)


def _arrays(
    takes: Takes, frames: dict[str, Tensor], bank: MotionBank, config: DatasetConfig, seed: int
) -> dict[str, np.ndarray]:
    """Everything as the shard stores it: frames of all clips one after the other."""
    B, T = takes.points.shape[:2]
    kinds = {"presence": torch.float16, "heat": torch.float16, "depth": torch.float16, "landmarks3d": torch.float16}
    arrays = {n: v.to(kinds.get(n, v.dtype)).flatten(0, 1).cpu().numpy() for n, v in frames.items()}
    quats = matrix_to_quaternion(takes.person.rotmats)
    arrays["quats"] = quats.flatten(0, 1).half().cpu().numpy()
    arrays["trans"] = takes.person.trans.flatten(0, 1).float().cpu().numpy()
    arrays["up"] = takes.cameras.up().flatten(0, 1).half().cpu().numpy()
    m = takes.motions
    clips, others = m.clip.tolist(), m.other_clip.tolist()
    names = [bank.name[c] + (f"+{bank.name[o]}" if o >= 0 else "") for c, o in zip(clips, others)]
    arrays |= {
        "clip_start": (np.arange(B) * T).astype(np.int32),
        "clip_len": np.full(B, T, np.int32),
        "subject": np.array([bank.subject[c] for c in clips]),
        "motion": np.array(names),
        "motion_start": m.start.float().cpu().numpy(),
        "speed": m.speed.float().cpu().numpy(),
        "spacing": np.full(B, config.spacing, np.int32),
        "is_mirrored": m.is_mirrored.cpu().numpy(),
        "split": np.array([config.split] * B),
        "betas": m.betas.float().cpu().numpy(),
        "camera": takes.cameras.intrinsics.float().cpu().numpy(),
        "size": takes.cameras.size.to(torch.int32).cpu().numpy(),
        "seed": np.full(B, seed, np.int64),
    }
    return arrays


def frame_count(folder: str | Path, split: str) -> int:
    """Frames of a split that a folder holds."""
    return sum(len(read_shard(path)["quats"]) for path in sorted(Path(folder).glob(f"{split}-*.npz")))
