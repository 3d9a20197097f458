"""Altered copies of rendered crops: mirrored, moved, resized, turned, recoloured, blurred, their truth with them.

A copy is a crop of the crop, so the geometry is that of core.perception.roi. What is done to a shard's crops is
drawn from the settings' seed, the shard's name and the number of the copy: it is the same wherever it is done. Two
things are only nearly true of a copy: its world landmarks stay in the axes of a camera that looks at the first crop's
middle, and what lay beyond the first crop is black.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from core.perception.blazepose import CROP_SIZE
from core.perception.reading import rotate_world
from core.perception.roi import Roi, crop_numpy, image_to_crop
from core.skeleton import KEYPOINT_MIRROR
from core.synth.crops import Displacement, displace

VERSION = 1
"""Of what the settings mean: another one makes copies anew."""
OUTSIDE = 2
"""Bit of `hidden`: outside the picture that a crop was cut from."""
_SIDES = list(KEYPOINT_MIRROR)


@dataclass(frozen=True)
class AlterConfig:
    mirrored: float = 0.75
    recoloured: float = 0.8
    blurred: float = 0.2
    """Shares of crops."""
    permuted: float = 0.3
    """Share of the recoloured ones whose channels change places."""
    off: Displacement = Displacement(shift=6 / CROP_SIZE, growth=0.1, turn=0.2, usual=1.0, wide_share=0.0)
    gamma: float = 0.35
    """Its logarithm, at most."""
    gain: tuple[float, float] = (0.75, 1.2)
    """Of each channel by itself ..."""
    cast: float = 0.12
    """... and a deviation of it, at most."""
    blur: tuple[float, float] = (0.5, 1.6)
    """Standard deviation, px."""
    seed: int = 0


@dataclass(frozen=True)
class Alterations:
    """What is done to N crops, in this order."""

    is_mirrored: np.ndarray
    """[N] bool."""
    roi: Roi
    """[N] in the mirrored crop, px of it."""
    gamma: np.ndarray
    """[N]; 1 where colours stay."""
    gain: np.ndarray
    """[N, 3] of red, green, blue; 1 where colours stay."""
    channels: np.ndarray
    """[N, 3] int: which channel becomes red, green, blue."""
    blur: np.ndarray
    """[N] standard deviation px; 0 for none."""

    def __len__(self) -> int:
        return len(self.blur)


def draw_alterations(config: AlterConfig, shard: str, copy: int, count: int) -> Alterations:
    """For copy number `copy` of the `count` crops of the shard of that name (its file's stem)."""
    name = int.from_bytes(hashlib.sha256(shard.encode()).digest()[:8], "little")
    rng = np.random.default_rng([config.seed, name, copy])
    whole = Roi(torch.full((count, 2), CROP_SIZE / 2), torch.full((count,), float(CROP_SIZE)), torch.zeros(count))
    roi = displace(whole, config.off, torch.Generator().manual_seed(int(rng.integers(1 << 62))))
    is_mirrored = rng.random(count) < config.mirrored
    is_recoloured = rng.random(count) < config.recoloured
    is_permuted = is_recoloured & (rng.random(count) < config.permuted)
    is_blurred = rng.random(count) < config.blurred
    gamma = np.exp(rng.uniform(-config.gamma, config.gamma, count))
    gain = rng.uniform(*config.gain, (count, 3)) * (1 + rng.uniform(-config.cast, config.cast, (count, 3)))
    return Alterations(
        is_mirrored=is_mirrored,
        roi=roi,
        gamma=np.where(is_recoloured, gamma, 1.0),
        gain=np.where(is_recoloured[:, None], gain, 1.0),
        channels=np.where(is_permuted[:, None], rng.random((count, 3)).argsort(1), np.arange(3)),
        blur=np.where(is_blurred, rng.uniform(*config.blur, count), 0.0),
    )


def alter_pictures(pictures: np.ndarray, alterations: Alterations) -> np.ndarray:
    """Crops [N, 256, 256, 3] uint8 RGB -> their copies, alike."""
    return np.stack([_alter_picture(picture, alterations, i) for i, picture in enumerate(pictures)])


def _alter_picture(picture: np.ndarray, alterations: Alterations, i: int) -> np.ndarray:
    if alterations.is_mirrored[i]:
        picture = picture[:, ::-1]
    picture = crop_numpy(np.ascontiguousarray(picture), alterations.roi[i])
    picture = recolour(picture, alterations.gamma[i], alterations.gain[i])[..., alterations.channels[i]]
    blur = float(alterations.blur[i])
    return cv2.GaussianBlur(np.ascontiguousarray(picture), (0, 0), blur) if blur else picture


def alter_truth(truth: Mapping[str, np.ndarray], alterations: Alterations) -> dict[str, np.ndarray]:
    """xy, world, aux and hidden of N crops (core.synth.crops) -> those of their copies.

    Keypoints beyond the first crop are outside the picture that the copy was cut from.
    """
    is_outside = ((truth["xy"] < 0) | (truth["xy"] >= CROP_SIZE)).any(-1)
    hidden = truth["hidden"] | np.where(is_outside, OUTSIDE, 0).astype(np.uint8)
    mirrored = {
        "xy": _mirror_points(truth["xy"])[:, _SIDES],
        "world": truth["world"][:, _SIDES] * np.array([-1, 1, 1], np.float32),
        "aux": _mirror_points(truth["aux"]),
        "hidden": hidden[:, _SIDES],
    }
    plain = {**truth, "hidden": hidden}
    chosen = {
        name: torch.from_numpy(np.where(_column(alterations.is_mirrored, value.ndim), value, plain[name]))
        for name, value in mirrored.items()
    }
    altered = {
        "xy": image_to_crop(chosen["xy"], alterations.roi),
        "world": rotate_world(chosen["world"], -alterations.roi.angle),
        "aux": image_to_crop(chosen["aux"], alterations.roi),
        "hidden": chosen["hidden"],
    }
    return {name: value.numpy() for name, value in altered.items()}


def recolour(
    picture: np.ndarray, gamma: float, gain: float | np.ndarray, cast: float | np.ndarray = 1.0
) -> np.ndarray:
    """[H, W, 3] uint8 RGB to the power of gamma, times gain and cast (one number or one for each channel)."""
    levels = (np.arange(256)[:, None] / 255.0) ** gamma * gain * cast * np.ones(3)  # [256, 3]
    table = np.rint(np.clip(levels, 0, 1) * 255).astype(np.uint8)
    return cv2.LUT(np.ascontiguousarray(picture), table[:, None])


def _mirror_points(points: np.ndarray) -> np.ndarray:
    """[..., 2] crop px, in the picture with its columns reversed."""
    return points * np.array([-1, 1], np.float32) + np.array([CROP_SIZE, 0], np.float32)


def _column(values: np.ndarray, dimensions: int) -> np.ndarray:
    return values.reshape(-1, *(1,) * (dimensions - 1))
