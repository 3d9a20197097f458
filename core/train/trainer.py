"""One stage of training: steps, moving average of the weights, rate schedule, validation, checkpoint and resume."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from core.atomic import AtomicFile
from core.train.batch import Batch
from core.train.config import StageConfig, TrainConfig
from core.train.progress import History

log = logging.getLogger(__name__)


class MovingAverage:
    """Exponential moving average of parameters; its horizon grows with the steps taken, up to 1/(1 - decay)."""

    def __init__(self, parameters: list[Tensor], decay: float):
        self.parameters, self.decay, self.count = parameters, decay, 0
        self.averages = [p.detach().clone() for p in parameters]

    @torch.no_grad()
    def update(self) -> None:
        self.count += 1
        decay = min(self.decay, (1 + self.count) / (10 + self.count))
        torch._foreach_lerp_(self.averages, self.parameters, 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange parameters and averages (call twice to restore)."""
        for parameter, average in zip(self.parameters, self.averages):
            kept = parameter.detach().clone()
            parameter.copy_(average)
            average.copy_(kept)


def learning_rate(stage: StageConfig, step: int, progress: float) -> float:
    """Warm-up by steps, then a cosine of `progress` 0..1 through the budget down to `final_rate`."""
    warm = min(1.0, (step + 1) / max(stage.warmup_steps, 1))
    cosine = 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    return stage.learning_rate * warm * (stage.final_rate + (1 - stage.final_rate) * cosine)


def parameter_groups(module: torch.nn.Module, stage: StageConfig) -> list[dict]:
    """Optimizer groups of all that learns: the lifter's rate apart, weight decay on matrices only."""
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        factor = stage.lifter_rate if name.startswith("lifter.") else 1.0
        decay = stage.weight_decay if parameter.dim() > 1 else 0.0
        groups.setdefault((factor, decay), []).append(parameter)
    return [{"params": p, "weight_decay": decay, "factor": factor} for (factor, decay), p in groups.items()]


class StageTrainer:
    """Runs one stage to the end of its budget, from its checkpoint if there is one."""

    def __init__(
        self,
        name: str,
        net: torch.nn.Module,
        config: TrainConfig,
        stage: StageConfig,
        *,
        trained: torch.nn.Module,
        loss: Callable[[Batch], tuple[Tensor, dict[str, Tensor]]],
        draw: Callable[[], Batch],
        validate: Callable[[], dict[str, float]],
        history: History,
        folder: Path,
        device: str,
    ):
        """net: what checkpoints hold. trained: the part of it whose parameters learn, as far as they want gradients.
        loss: from a batch to one number and its parts (unweighted)."""
        self.name, self.net, self.config, self.stage = name, net, config, stage
        self.loss, self.draw, self.validate = loss, draw, validate
        self.history, self.folder, self.device = history, folder, device
        groups = parameter_groups(trained, stage)
        self.parameters = [p for p in trained.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            groups, lr=stage.learning_rate, betas=(0.9, 0.98), fused=device.startswith("cuda")
        )
        self.average = MovingAverage(self.parameters, stage.ema_decay)
        self.step, self.seconds, self.frames = 0, 0.0, 0

    @property
    def checkpoint_path(self) -> Path:
        return self.folder / f"{self.name}.checkpoint.pt"

    @property
    def progress(self) -> float:
        """Share of the budget that is used, 0..1."""
        if min(self.stage.budget_s, self.stage.steps) <= 0:
            return 1.0
        return max(self.seconds / self.stage.budget_s, self.step / self.stage.steps)

    def run(self, *, stop_after_s: float = math.inf) -> bool:
        """Train until the budget is used or `stop_after_s` from now; returns whether the stage is finished."""
        self._resume()
        began = previous = time.perf_counter()
        last_saved, last_validated = self.seconds, self.seconds
        is_first = self.step == 0
        sums: dict[str, Tensor] = {}
        counted = 0
        while self.progress < 1:
            parts = self._train_step()
            for part, value in parts.items():
                sums[part] = sums.get(part, 0) + value
            counted += 1
            if counted % 20 == 0 or self.device == "cpu":
                self._synchronise()
            now = time.perf_counter()
            self.seconds += now - previous
            previous = now
            is_due = self.seconds - last_validated >= self.config.validate_every_s
            if is_due or (is_first and self.step in (1, 50)) or self.progress >= 1:
                self._report(sums, counted)
                sums, counted, last_validated = {}, 0, self.seconds
            if self.seconds - last_saved >= self.config.checkpoint_every_s:
                self._save()
                last_saved = self.seconds
            if time.perf_counter() - began > stop_after_s:
                break
        self._save()
        return self.progress >= 1

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within it the network holds the averaged weights."""
        self.average.swap()
        try:
            yield
        finally:
            self.average.swap()

    def adopt_average(self) -> None:
        """Leave the averaged weights in the network, for the next stage."""
        self.average.swap()

    def _train_step(self) -> dict[str, Tensor]:
        self.net.train()
        rate = learning_rate(self.stage, self.step, self.progress)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        batch = self.draw()
        is_cuda = self.device.startswith("cuda")
        loss, parts = self.loss(batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.stage.clip_norm)
        if is_cuda:  # a step that is not finite is left out on the device, without waiting for it
            self.optimizer.found_inf = (~norm.isfinite()).float()
            self.optimizer.step()
        elif norm.isfinite():
            self.optimizer.step()
        else:
            log.warning("%s: step %d left out, its gradient is not finite", self.name, self.step)
        self.average.update()
        self.step += 1
        self.frames += batch.frame_count
        parts = {name: value.detach() for name, value in parts.items()}
        return {"total": loss.detach(), **parts, "gradient": norm.detach()}

    def _report(self, sums: dict[str, Tensor], counted: int) -> None:
        self._synchronise()
        means = {name: float(value) / counted for name, value in sums.items()}
        means["rate"] = learning_rate(self.stage, self.step, self.progress)
        means["frames_per_s"] = self.frames / max(self.seconds, 1e-9)
        self.history.add(self.name, "loss", self.step, self.seconds, means)
        self.net.eval()
        with self.averaged():
            self.history.add(self.name, "validation", self.step, self.seconds, self.validate())

    def _synchronise(self) -> None:
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()

    def _save(self) -> None:
        state = {
            "net": {k: v for k, v in self.net.state_dict().items()},
            "average": self.average.averages,
            "average_count": self.average.count,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "frames": self.frames,
        }
        with AtomicFile(self.checkpoint_path) as out:
            torch.save(state, out)

    def _resume(self) -> None:
        if not self.checkpoint_path.exists():
            return
        state = torch.load(self.checkpoint_path, map_location=self.device, weights_only=True)
        self.net.load_state_dict(state["net"])
        with torch.no_grad():
            for average, saved in zip(self.average.averages, state["average"]):
                average.copy_(saved)
        self.average.count = state["average_count"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds, self.frames = state["step"], state["seconds"], state["frames"]
        log.info("%s: resumed at step %d, %.0f s used", self.name, self.step, self.seconds)
