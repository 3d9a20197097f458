"""Tuning of the tail: steps over rendered and real crops, averaged weights, validation, checkpoint and resume.

What a step draws follows from the seed and the step's number alone: a training that was stopped and taken up goes
the same way as one that was not, as long as no shards come to the folder of crops (they are taken in as they come).
Rates are relative: each parameter moves by a share of its own root mean square, heads by a tenth of that.
"""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from core.atomic import AtomicFile
from core.errors import InputError
from core.perception.blazepose import BlazePoseLandmarks
from core.train.landmarks.features import CropBank
from core.train.landmarks.footage import FootageBank
from core.train.landmarks.objective import TuneLoss, footage_loss, rendered_loss
from core.train.landmarks.score import Validation, score_tail
from core.train.landmarks.tail import TailOutput, make_trainable, network_digest, run_tail
from core.train.progress import History
from core.train.trainer import MovingAverage, learning_rate

log = logging.getLogger(__name__)

STAGE = "tune"
LEAST_SCALE = 1e-4
"""Of a parameter's root mean square, so that zeros can move."""


@dataclass(frozen=True)
class TuneConfig:
    """It ends when its time or its steps are used up, whichever comes first."""

    budget_s: float = 2500.0
    """Of training; making features is not counted."""
    steps: int = 1_000_000
    rendered: int = 64
    """Rendered crops a step ..."""
    shards: int = 4
    """... from so many shards."""
    real: int = 16
    learning_rate: float = 1.5e-3
    head_rate: float = 0.1
    """Factor of the heads."""
    final_rate: float = 0.02
    warmup_steps: int = 200
    clip_norm: float = 2.0
    ema_decay: float = 0.999
    refresh_every: int = 200
    """Steps from one look for new shards to the next."""
    validate_every_s: float = 120.0
    checkpoint_every_s: float = 60.0
    seed: int = 0
    loss: TuneLoss = field(default_factory=TuneLoss)


class Tuner:
    """Trains a copy of `original` from the folder's checkpoint on, if there is one."""

    def __init__(
        self,
        original: BlazePoseLandmarks,
        crops: CropBank,
        footage: FootageBank | None,
        validation: Validation | None,
        config: TuneConfig,
        history: History,
        folder: str | Path,
    ):
        self.crops, self.footage, self.validation = crops, footage, validation
        self.config, self.history, self.folder = config, history, Path(folder)
        self.start = network_digest(original)
        self.network = make_trainable(copy.deepcopy(original).to(memory_format=torch.channels_last))
        named = [(name, p) for name, p in self.network.named_parameters() if p.requires_grad]
        self.parameters = [p for _, p in named]
        groups = [{"params": [p], "scale": self._scale(name, p)} for name, p in named]
        self.optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=0.0, betas=(0.9, 0.99))
        self.average = MovingAverage(self.parameters, config.ema_decay)
        self.step, self.seconds = 0, 0.0
        self._resume()

    def _scale(self, name: str, parameter: Tensor) -> float:
        size = float(parameter.detach().square().mean().sqrt().clamp_min(LEAST_SCALE))
        return size * (self.config.head_rate if "_head." in name else 1.0)

    @property
    def checkpoint_path(self) -> Path:
        return self.folder / f"{STAGE}.checkpoint.pt"

    @property
    def progress(self) -> float:
        """Share of the budget that is used, 0..1."""
        return max(self.seconds / max(self.config.budget_s, 1e-9), self.step / max(self.config.steps, 1))

    def run(
        self,
        *,
        stop_after_s: float = math.inf,
        should_stop: Callable[[], bool] = lambda: False,
        on_progress: Callable[[float, str], None] | None = None,
    ) -> bool:
        """Train until the budget is used, for `stop_after_s`, or until should_stop(); whether the budget is used.

        on_progress(share of the budget, what was last measured).
        """
        began = time.perf_counter()
        last_saved = last_validated = self.seconds
        sums: dict[str, Tensor] = {}
        counted, said = 0, ""
        if self.step == 0:
            said = self._validate()
        while self.progress < 1:
            if self.step % self.config.refresh_every == 0:
                self.crops.refresh()
            previous = time.perf_counter()
            for name, value in self._train_step().items():
                sums[name] = sums.get(name, 0) + value
            counted += 1
            self.seconds += time.perf_counter() - previous
            if self.seconds - last_validated >= self.config.validate_every_s or self.progress >= 1:
                self._report_loss(sums, counted)
                said = self._validate()
                sums, counted, last_validated = {}, 0, self.seconds
            if self.seconds - last_saved >= self.config.checkpoint_every_s:
                self._save()
                last_saved = self.seconds
            if on_progress is not None:
                on_progress(min(self.progress, 1.0), f"step {self.step}, {len(self.crops)} crops{said}")
            if should_stop() or time.perf_counter() - began > stop_after_s:
                break
        self._save()
        return self.progress >= 1

    def loss_of(self, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of what step number `step` draws, and its parts."""
        config, generator = self.config, torch.Generator().manual_seed(self.config.seed * 1_000_003 + step)
        batch = self.crops.draw(config.rendered, generator, shards=config.shards)
        real = self.footage.draw(config.real, generator) if self.footage is not None else None
        features = batch.features if real is None else torch.cat((batch.features, real.features))
        output = run_tail(self.network, features.contiguous(memory_format=torch.channels_last))
        first = len(batch.xy)
        loss, parts = rendered_loss(TailOutput(*(value[:first] for value in output)), batch, config.loss)
        if real is not None:
            parts["footage"] = footage_loss(TailOutput(*(value[first:] for value in output)), real, config.loss)
            loss = loss + config.loss.footage * parts["footage"]
        return loss, parts

    def _train_step(self) -> dict[str, Tensor]:
        rate = learning_rate(self.config, self.step, self.progress)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        loss, parts = self.loss_of(self.step)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.config.clip_norm)
        if norm.isfinite():
            self.optimizer.step()
        else:
            log.warning("step %d left out, its gradient is not finite", self.step)
        self.average.update()
        self.step += 1
        return {"total": loss.detach(), **{k: v.detach() for k, v in parts.items()}, "gradient": norm.detach()}

    @contextmanager
    def averaged(self):
        """Within it the network holds the averaged weights."""
        self.average.swap()
        try:
            yield self.network
        finally:
            self.average.swap()

    def _report_loss(self, sums: dict[str, Tensor], counted: int) -> None:
        means = {name: float(value) / counted for name, value in sums.items()}
        means["rate"] = learning_rate(self.config, self.step, self.progress)
        self.history.add(STAGE, "loss", self.step, self.seconds, means)

    def _validate(self) -> str:
        if self.validation is None:
            return ""
        with self.averaged():
            found = score_tail(self.network, self.validation)
        self.history.add(STAGE, "validation", self.step, self.seconds, found)
        return f", off by {found['mean']:.1f} mm (world {found['world']:.1f})"

    def _save(self) -> None:
        state = {
            "start": self.start,
            "parameters": [p.detach() for p in self.parameters],
            "average": self.average.averages,
            "average_count": self.average.count,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
        }
        with AtomicFile(self.checkpoint_path) as out:
            torch.save(state, out)

    @torch.no_grad()
    def _resume(self) -> None:
        if not self.checkpoint_path.exists():
            return
        state = torch.load(self.checkpoint_path, weights_only=True)
        if state["start"] != self.start:
            raise InputError(
                f"{self.checkpoint_path} began from another network: remove it, or choose another folder"
            )
        for mine, saved in ((self.parameters, state["parameters"]), (self.average.averages, state["average"])):
            for parameter, value in zip(mine, saved, strict=True):
                parameter.copy_(value)
        self.average.count = state["average_count"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds = state["step"], state["seconds"]
