"""Rendered crops for tuning: shards of truth, and beside each what the frozen front makes of its crops.

`X.npz` gets `X.KEY.features.npy` [N, 16, 16, 88] float16, whose KEY names the front's weights and the pictures, so
that features of another network or of other pictures are never taken for these. Each altered copy of its crops
(alter.py) gets such a file too, whose KEY names the settings as well; their truth is computed anew each time.
"""

from __future__ import annotations

import hashlib
import json
import logging
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from core.atomic import AtomicFile
from core.errors import InputError
from core.perception.blazepose import BlazePoseLandmarks
from core.synth.crops import crop_paths, decode_crops, read_crops
from core.train.landmarks.alter import VERSION, AlterConfig, alter_pictures, alter_truth, draw_alterations
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


@dataclass(frozen=True)
class _Shard:
    """N crops of one shard, or of one altered copy of it."""

    features: np.ndarray
    """[N, 16, 16, 88] float16, on the disk."""
    truth: dict[str, np.ndarray]


class CropBank:
    """The shards of one split in a folder, and of training shards altered copies, which nothing but `draw` gives.

    Features stay on the disk and are read as they are drawn.
    """

    def __init__(
        self,
        folder: str | Path,
        split: str,
        network: BlazePoseLandmarks,
        *,
        copies: int = 0,
        alter: AlterConfig | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ):
        """network: whose front the features are of. copies: of each shard's crops, altered as `alter` says.

        on_progress counts shards. Raises InputError if there is none, ValueError for copies of held-out crops.
        """
        if copies < 0 or (copies and split != "train"):
            raise ValueError(f"{copies} altered copies of the split {split}: only training crops are altered")
        self.folder, self.split, self.network = Path(folder), split, network
        self.copies, self.alter = copies, alter or AlterConfig()
        self._front = front_digest(network)
        self.paths: list[Path] = []
        self._plain: list[_Shard] = []
        self._drawn: list[_Shard] = []
        self.refresh(on_progress)
        if not self.paths:
            raise InputError(
                f"{folder} holds no crops of the split {split}: python -m core synth crops --out {folder}"
            )

    def __len__(self) -> int:
        """Crops, without altered copies."""
        return sum(len(shard.features) for shard in self._plain)

    def refresh(self, on_progress: Callable[[int, int], None] | None = None) -> None:
        """Take in shards that have appeared, after making their features."""
        new = [path for path in crop_paths(self.folder, self.split) if path not in self.paths]
        for done, path in enumerate(new):
            shards = self._read(path)
            self.paths.append(path)
            self._plain.append(shards[0])
            self._drawn += shards
            if on_progress is not None:
                on_progress(done + 1, len(new))

    def _read(self, path: Path) -> list[_Shard]:
        """One shard and its copies, after making what features are not on the disk."""
        keys = self._keys(path)
        files = [path.with_name(f"{path.stem}.{key}.features.npy") for key in keys]
        truth = read_crops(path, with_pictures=False)
        truth = {name: truth[name] for name in TRUTH}
        count = len(truth["xy"])
        pictures, shards = None, []
        for copy, file in enumerate(files):
            alterations = draw_alterations(self.alter, path.stem, copy, count) if copy else None
            if not file.exists():
                if pictures is None:
                    pictures = decode_crops(read_crops(path), np.arange(count))
                _save(file, front_features(self.network, alter_pictures(pictures, alterations) if copy else pictures))
            features = np.load(file, mmap_mode="r")
            if len(features) != count:
                raise InputError(f"{path} and its features disagree: remove {path.stem}.*.features.npy")
            shards.append(_Shard(features, alter_truth(truth, alterations) if copy else truth))
        return shards

    def _keys(self, path: Path) -> list[str]:
        """What tells the features of a shard's crops, and of each copy of them, from others."""
        try:
            with zipfile.ZipFile(path) as archive:
                check = archive.getinfo("jpeg.npy").CRC
        except (OSError, KeyError, zipfile.BadZipFile) as error:
            raise InputError(f"{path} is not a shard of crops: {error}") from error
        made_of = [f"{self._front} {check}"]
        settings = json.dumps(asdict(self.alter))
        made_of += [f"{made_of[0]} {VERSION} {settings} {copy}" for copy in range(1, self.copies + 1)]
        return [hashlib.sha256(text.encode()).hexdigest()[:12] for text in made_of]

    def draw(self, count: int, generator: torch.Generator, *, shards: int = 4) -> CropBatch:
        """`count` crops, in equal parts from `shards` shards and altered copies of shards drawn at random."""
        picks = []
        for _ in range(shards):
            shard = self._drawn[int(torch.randint(len(self._drawn), (1,), generator=generator))]
            rows = torch.randint(len(shard.features), (count // shards,), generator=generator).sort()[0]
            picks.append((shard, rows.numpy()))
        return _batch(picks)

    def every(self, step: int, *, at_most: int | None = None) -> CropBatch:
        """Each `step`-th crop of every shard; of those evenly spread ones, where there are more than `at_most`."""
        return _batch([(self._plain[n], rows) for n, rows in self._places(step, at_most)])

    def stored(self, step: int, *, at_most: int | None = None) -> np.ndarray:
        """The features [n, 16, 16, 88] float16 of the crops that `every` gives."""
        return np.concatenate([self._plain[n].features[rows] for n, rows in self._places(step, at_most)])

    def pictures(self, step: int, *, at_most: int | None = None) -> np.ndarray:
        """The pictures [n, 256, 256, 3] uint8 RGB of the crops that `every` gives."""
        places = self._places(step, at_most)
        return np.concatenate([decode_crops(read_crops(self.paths[n]), rows) for n, rows in places])

    def _places(self, step: int, at_most: int | None) -> list[tuple[int, np.ndarray]]:
        """(shard, rows) in order."""
        rows = [np.arange(0, len(part.features), step) for part in self._plain]
        shard = np.repeat(np.arange(len(rows)), [len(r) for r in rows])
        row = np.concatenate(rows)
        if at_most is not None and len(row) > at_most:
            spread = np.linspace(0, len(row) - 1, at_most).round().astype(int)
            shard, row = shard[spread], row[spread]
        return [(n, row[shard == n]) for n in np.unique(shard).tolist()]


def _batch(picks: list[tuple[_Shard, np.ndarray]]) -> CropBatch:
    features = np.concatenate([shard.features[rows] for shard, rows in picks])
    truth = {name: np.concatenate([shard.truth[name][rows] for shard, rows in picks]) for name in TRUTH}
    return CropBatch(features=to_input(features), **{name: torch.from_numpy(v) for name, v in truth.items()})


def _save(path: Path, features: np.ndarray) -> None:
    with AtomicFile(path) as out:
        np.save(out, features)
    log.info("wrote %s", path.name)


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
