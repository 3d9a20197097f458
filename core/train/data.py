"""The data of a training: what it is told to use, its sources on the device, its fixed validation batches.

Rendered clips may still be in the making while a training runs: the folder is looked at now and then, and new shards
are taken in.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from core.body import Body
from core.errors import InputError
from core.synth.format import join_shards, read_shard
from core.synth.motion import read_bank
from core.synth.replay import RecordedErrors
from core.train.batch import Batch
from core.train.config import StageConfig, TrainConfig
from core.train.shards import ShardBank
from core.train.sources import GeneratedSource, mixed

log = logging.getLogger(__name__)

LOOK_EVERY_S = 20.0


@dataclass(frozen=True)
class TrainOptions:
    config: TrainConfig
    out: Path
    motion: Path | None = None
    """Motion bank (`core.synth.motion`)."""
    shards: Path | None = None
    """Folder of rendered clips (`core.synth.format`)."""
    start_from: Path | None = None
    """Network file whose weights the training starts from."""
    device: str = "cpu"
    render_s: float = 0.0
    """Render clips into `shards` in a process of its own for this long, while the training runs."""
    stop_after_s: float = math.inf
    """Leave (with a checkpoint) after this long, to be called again later."""
    body_path: str | None = None
    skip_lift: bool = False
    """Do not train the lifter by itself; it still trains along in stage "mesh"."""


class TrainingData:
    """Draws training batches and keeps the validation ones."""

    def __init__(self, options: TrainOptions, body: Body):
        self.config, self.device, self.folder = options.config, options.device, options.shards
        self.banks: dict[str, ShardBank] = {}
        self._loaded: set[Path] = set()
        self._looked = -math.inf
        self.generated = self.generated_validation = None
        self.recorded: RecordedErrors | None = None
        feature_dim = self.config.network.feature_dim
        if options.motion is not None:
            bank = read_bank(options.motion)
            common = {"feature_dim": feature_dim, "device": self.device}
            self.recorded = RecordedErrors(body, device=self.device)
            self.generated = GeneratedSource(
                bank, body, split="train", seed=self.config.seed, recorded=self.recorded, **common
            )
            self.generated_validation = GeneratedSource(bank, body, split="validation", seed=1000, **common)
        self.look_for_shards()
        if self.generated is None and "train" not in self.banks:
            raise InputError(f"Nothing to train on: no motion bank and no train-*.npz in {self.folder}")
        self._fixed: dict[tuple[str, int], Batch] = {}

    def describe(self) -> str:
        rendered = ", ".join(f"{name} {bank.frame_count} frames" for name, bank in self.banks.items())
        return f"rendered {rendered or 'none'}; generated {'on' if self.generated else 'off'}; {self.device}"

    def look_for_shards(self) -> bool:
        """Load shards that have appeared since the last look; returns whether there were any."""
        now = time.monotonic()
        if self.folder is None or now - self._looked < LOOK_EVERY_S:
            return False
        self._looked, is_new = now, False
        for split in ("train", "validation"):
            if split == "validation" and split in self.banks:
                continue  # the measured clips stay the same ones
            paths = [path for path in sorted(self.folder.glob(f"{split}-*.npz")) if path not in self._loaded]
            if paths:
                self._add(split, paths)
                is_new = True
        if is_new:
            log.info("%s", self.describe())
        return is_new

    def _add(self, split: str, paths: list[Path]) -> None:
        shards = []
        for path in paths:
            shards.append(read_shard(path))
            size, wanted = shards[-1]["embedding"].shape[1], self.config.network.feature_dim
            if size != wanted:
                raise InputError(f"{path} has features of {size} numbers, the network expects {wanted}")
        shard = join_shards(shards)
        self.banks.setdefault(split, ShardBank(device=self.device)).add(shard)
        if split == "train" and self.recorded is not None:
            self.recorded.add(shard)
        self._loaded.update(paths)

    def sample_generated(self, window: int, sequences: int = 256) -> Batch | None:
        """Sequences with modelled noise; None without a motion bank."""
        return None if self.generated is None else self.generated.sample(sequences, window, with_features=False)

    def draw(self, stage: StageConfig, *, with_features: bool) -> Callable[[], Batch]:
        """A function that draws a batch for one step of a stage."""
        current = self._mixture(stage, with_features)

        def draw() -> Batch:
            nonlocal current
            if self.look_for_shards():
                current = self._mixture(stage, with_features)
            return current()

        return draw

    def _mixture(self, stage: StageConfig, with_features: bool) -> Callable[[], Batch]:
        return mixed(
            self.generated,
            self.banks.get("train"),
            counts=(stage.generated, stage.rendered),
            window=stage.window,
            kept=stage.kept,
            draw_ahead=stage.draw_ahead,
            with_features=with_features,
            landmark_dropout=self.config.landmark_dropout,
            feature_dropout=self.config.feature_dropout,
            variation=self.config.variation,
            seed=self.config.seed + len(self._loaded),
            device=self.device,
        )

    def validation(self, window: int) -> dict[str, Batch]:
        """Label -> fixed batch: "gen" modelled noise, "ren" rendered clips through the detector."""
        count = self.config.validation_sequences
        if self.generated_validation is not None and ("gen", window) not in self._fixed:
            self._fixed["gen", window] = self.generated_validation.sample(count, window)
        if "validation" in self.banks and ("ren", window) not in self._fixed:
            generator = torch.Generator(self.device).manual_seed(7)
            self._fixed["ren", window] = self.banks["validation"].sample(count, window, generator)
        return {label: batch for (label, length), batch in self._fixed.items() if length == window}
