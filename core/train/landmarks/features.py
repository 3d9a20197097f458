"""Rendered crops for tuning: shards of truth, and beside each what the frozen front makes of its crops.

`X.npz` gets `X.KEY.features.npy` [N, 16, 16, 88] float16, whose KEY names the front's weights and the pictures, so
that features of another network or of other pictures are never taken for these.
"""

from __future__ import annotations

import hashlib
import logging
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from core.errors import InputError
from core.perception.blazepose import BlazePoseLandmarks
from core.synth.crops import FIELDS, crop_paths, decode_crops, read_crops
from core.train.landmarks.tail import front_digest, run_front

CHUNK = 32
TRUTH = ("xy", "world", "aux", "hidden")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CropBatch:
    """B rendered crops: features and truth (see core.synth.crops)."""

    features: Tensor
    """[B, 88, 16, 16] float32, channels last."""
    xy: Tensor
    """[B, 25, 2] crop px."""
    world: Tensor
    """[B, 25, 3] metres."""
    aux: Tensor
    """[B, 2, 2] crop px."""
    hidden: Tensor
    """[B, 25] uint8."""


class CropBank:
    """The shards of one split in a folder. Features stay on the disk and are read as they are drawn."""

    def __init__(
        self,
        folder: str | Path,
        split: str,
        network: BlazePoseLandmarks,
        *,
        on_progress: Callable[[int, int], None] | None = None,
    ):
        """network: whose front the features are of. on_progress counts shards. Raises InputError if there is none."""
        self.folder, self.split, self.network = Path(folder), split, network
        self._front = front_digest(network)
        self.paths: list[Path] = []
        self.features: list[np.ndarray] = []
        self.truth: list[dict[str, np.ndarray]] = []
        self.refresh(on_progress)
        if not self.paths:
            raise InputError(
                f"{folder} holds no crops of the split {split}: python -m core synth crops --out {folder}"
            )

    def __len__(self) -> int:
        """Crops."""
        return sum(len(truth["xy"]) for truth in self.truth)

    def refresh(self, on_progress: Callable[[int, int], None] | None = None) -> None:
        """Take in shards that have appeared, after making their features."""
        new = [path for path in crop_paths(self.folder, self.split) if path not in self.paths]
        for done, path in enumerate(new):
            features = self._features(path)
            truth = read_crops(path, with_pictures=False)
            if len(features) != len(truth["xy"]):
                raise InputError(f"{path} and its features disagree: remove {path.stem}.*.features.npy")
            self.paths.append(path)
            self.features.append(features)
            self.truth.append({name: truth[name] for name in FIELDS})
            if on_progress is not None:
                on_progress(done + 1, len(new))

    def _features(self, path: Path) -> np.ndarray:
        """[N, 16, 16, 88] float16 of one shard, mapped from the disk."""
        cached = path.with_name(f"{path.stem}.{self._key(path)}.features.npy")
        if not cached.exists():
            shard = read_crops(path)
            found = front_features(self.network, decode_crops(shard, np.arange(len(shard["xy"]))))
            partial = cached.with_name(cached.name + ".part")
            with partial.open("wb") as out:
                np.save(out, found)
            partial.replace(cached)
            log.info("wrote %s", cached.name)
        return np.load(cached, mmap_mode="r")

    def _key(self, path: Path) -> str:
        try:
            with zipfile.ZipFile(path) as archive:
                check = archive.getinfo("jpeg.npy").CRC
        except (OSError, KeyError, zipfile.BadZipFile) as error:
            raise InputError(f"{path} is not a shard of crops: {error}") from error
        return hashlib.sha256(f"{self._front} {check}".encode()).hexdigest()[:12]

    def draw(self, count: int, generator: torch.Generator, *, shards: int = 4) -> CropBatch:
        """`count` crops, in equal parts from `shards` shards drawn at random."""
        picks = []
        for _ in range(shards):
            number = int(torch.randint(len(self.paths), (1,), generator=generator))
            size = len(self.truth[number]["xy"])
            rows = torch.randint(size, (count // shards,), generator=generator).sort()[0]
            picks.append((number, rows.numpy()))
        return self._batch(picks)

    def every(self, step: int, *, at_most: int | None = None) -> CropBatch:
        """Each `step`-th crop of every shard; of those evenly spread ones, where there are more than `at_most`."""
        return self._batch(self._places(step, at_most))

    def stored(self, step: int, *, at_most: int | None = None) -> np.ndarray:
        """The features [n, 16, 16, 88] float16 of the crops that `every` gives."""
        return np.concatenate([self.features[n][rows] for n, rows in self._places(step, at_most)])

    def pictures(self, step: int, *, at_most: int | None = None) -> np.ndarray:
        """The pictures [n, 256, 256, 3] uint8 RGB of the crops that `every` gives."""
        places = self._places(step, at_most)
        return np.concatenate([decode_crops(read_crops(self.paths[n]), rows) for n, rows in places])

    def _places(self, step: int, at_most: int | None) -> list[tuple[int, np.ndarray]]:
        """(shard, rows) in order."""
        rows = [np.arange(0, len(truth["xy"]), step) for truth in self.truth]
        shard = np.repeat(np.arange(len(rows)), [len(r) for r in rows])
        row = np.concatenate(rows)
        if at_most is not None and len(row) > at_most:
            spread = np.linspace(0, len(row) - 1, at_most).round().astype(int)
            shard, row = shard[spread], row[spread]
        return [(n, row[shard == n]) for n in np.unique(shard).tolist()]

    def _batch(self, picks: list[tuple[int, np.ndarray]]) -> CropBatch:
        features = np.concatenate([self.features[n][rows] for n, rows in picks])
        truth = {k: np.concatenate([self.truth[n][k][rows] for n, rows in picks]) for k in TRUTH}
        return CropBatch(features=to_input(features), **{k: torch.from_numpy(v) for k, v in truth.items()})


def to_input(features: np.ndarray) -> Tensor:
    """Stored features [B, 16, 16, 88] float16 -> [B, 88, 16, 16] float32, channels last."""
    return torch.from_numpy(features).float().permute(0, 3, 1, 2)


def to_images(crops: np.ndarray) -> Tensor:
    """Crops [B, 256, 256, 3] uint8 RGB -> [B, 3, 256, 256] float32 in [0, 1], channels last."""
    return torch.from_numpy(crops).permute(0, 3, 1, 2).float().div(255).contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def front_features(network: BlazePoseLandmarks, crops: np.ndarray) -> np.ndarray:
    """Crops [N, 256, 256, 3] uint8 RGB -> features [N, 16, 16, 88] float16."""
    found = [run_front(network, to_images(crops[k : k + CHUNK])) for k in range(0, len(crops), CHUNK)]
    return np.concatenate([x.permute(0, 2, 3, 1).half().numpy() for x in found])
