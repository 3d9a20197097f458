"""A whole training: body, data, stage "lift", stage "mesh", network files. Resumable at any point.

The output folder holds one checkpoint per stage, `lifter.safetensors`, `hyperbolic.safetensors`, `history.jsonl`,
`history.png` and `config.json`. Calling again with the same folder goes on where it ended.
"""

from __future__ import annotations

import json
import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from core.body import Body, load_body
from core.coarse import build_coarse
from core.errors import InputError
from core.models.checkpoint import read_network, save_network
from core.models.coarse_body import coarse_body
from core.models.config import to_dict
from core.models.hyperbolic import HyperbolicNet
from core.synth.format import read_shards
from core.synth.motion import read_bank
from core.train.batch import Batch
from core.train.config import StageConfig, TrainConfig
from core.train.objective import MeshObjective
from core.train.progress import History, draw_history
from core.train.shards import ShardBank
from core.train.sources import GeneratedSource, mixed
from core.train.trainer import StageTrainer
from core.train.validation import lifter_metrics, mesh_metrics

log = logging.getLogger(__name__)

MESH_VALIDATION_SEQUENCES = 24
MESH_VALIDATION_FRAMES = 16


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
    stop_after_s: float = math.inf
    """Leave (with a checkpoint) after this long, to be called again later."""
    body_path: str | None = None
    skip_lift: bool = False
    """Do not train the lifter by itself; it still trains along in stage "mesh"."""


def train(options: TrainOptions) -> dict[str, float]:
    """Run what is left of both stages; returns the last validation metrics."""
    began = time.perf_counter()
    config, out, device = options.config, options.out, options.device
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.json").write_text(json.dumps(to_dict(config), indent=1), encoding="utf-8")
    torch.manual_seed(config.seed)
    if device.startswith("cuda"):
        torch.backends.cuda.matmul.allow_tf32 = True
    body = load_body(options.body_path)
    coarse = build_coarse(body)
    net = HyperbolicNet(config.network, coarse_body(body, coarse)).to(device)
    body = body.to(device)
    if options.start_from is not None:
        _start_from(net, options.start_from)
    objective = MeshObjective(
        body,
        coarse,
        config.loss,
        hyperbolic_weight=config.network.hyperbolic_mesh_weight,
        device=device,
        use_bfloat16=config.use_bfloat16,
    )
    history = History(out / "history.jsonl")
    data = _Data(options, body)
    log.info("ready after %.0f s: %s", time.perf_counter() - began, data.describe())

    def remaining() -> float:
        return options.stop_after_s - (time.perf_counter() - began)

    stages = [("lift", config.lift), ("mesh", config.mesh)]
    if options.skip_lift:
        stages = stages[1:]
    for name, stage in stages:
        trainer = _stage_trainer(name, stage, net, body, objective, data, history, options)
        if remaining() <= 0 or not trainer.run(stop_after_s=remaining()):
            break
        _write(net, name, options, history)
    draw_history(history, out / "history.png")
    rows = [r for r in history.rows if r["kind"] == "validation"]
    return rows[-1] if rows else {}


def _stage_trainer(name, stage, net, body, objective, data, history, options) -> StageTrainer:
    config, is_mesh = options.config, name == "mesh"
    if config.use_compile:
        _compile_blocks(net)

    def validate() -> dict[str, float]:
        metrics: dict[str, float] = {}
        for label, batch in data.validation(stage.window).items():
            found = lifter_metrics(net, body, batch)
            if is_mesh:
                few = batch.pick(slice(MESH_VALIDATION_SEQUENCES))
                found |= mesh_metrics(net, objective, body, few, frames=MESH_VALIDATION_FRAMES)
            metrics |= {f"{label}_{key}": value for key, value in found.items()}
        return metrics

    return StageTrainer(
        name,
        net,
        body,
        config,
        stage,
        draw=data.draw(stage, with_features=is_mesh),
        validate=validate,
        mesh_objective=objective if is_mesh else None,
        history=history,
        folder=options.out,
        device=options.device,
    )


def _compile_blocks(net: HyperbolicNet) -> None:
    for block in (*net.lifter.spatial, *net.lifter.temporal, net.hpo, net.hmo):
        if block is not None:
            block.compile(dynamic=False)


def _start_from(net: HyperbolicNet, path: Path) -> None:
    tensors, _, info = read_network(path)
    result = net.load_state_dict(tensors, strict=info["stage"] != "lift")
    log.info("started from %s (%s); %d tensors are new", path, info["stage"], len(result.missing_keys))


def _write(net: HyperbolicNet, stage: str, options: TrainOptions, history: History) -> None:
    rows = [r for r in history.rows if r["stage"] == stage and r["kind"] == "validation"]
    name = "lifter.safetensors" if stage == "lift" else "hyperbolic.safetensors"
    notes = {"validation_mm": rows[-1] if rows else {}, "training": to_dict(options.config)}
    save_network(options.out / name, net.state_dict(), options.config.network, stage=stage, notes=notes)
    log.info("wrote %s", options.out / name)


class _Data:
    """The sources of a training and its fixed validation batches."""

    def __init__(self, options: TrainOptions, body: Body):
        config, device = options.config, options.device
        self.config, self.device = config, device
        self.rendered = self.rendered_validation = None
        if options.shards is not None:
            self.rendered = ShardBank(read_shards(options.shards, split="train"), device=device)
            held_back = list(read_shards(options.shards, split="validation"))
            self.rendered_validation = ShardBank(held_back, device=device) if held_back else None
            if self.rendered.feature_dim != config.network.feature_dim:
                raise InputError(
                    f"{options.shards} has features of {self.rendered.feature_dim} numbers, the network expects "
                    f"{config.network.feature_dim}: set network.feature_dim"
                )
        self.generated = self.generated_validation = None
        if options.motion is not None:
            bank = read_bank(options.motion)
            common = {"feature_dim": config.network.feature_dim, "device": device}
            self.generated = GeneratedSource(bank, body, split="train", seed=config.seed, **common)
            self.generated_validation = GeneratedSource(bank, body, split="validation", seed=1000, **common)
        self._fixed: dict[int, dict[str, Batch]] = {}

    def describe(self) -> str:
        rendered = "none" if self.rendered is None else f"{self.rendered.frame_count} frames"
        return f"rendered {rendered}, generated {'on' if self.generated else 'off'}, device {self.device}"

    def draw(self, stage: StageConfig, *, with_features: bool):
        return mixed(
            self.generated,
            self.rendered,
            counts=(stage.generated, stage.rendered),
            window=stage.window,
            draw_ahead=stage.draw_ahead,
            with_features=with_features,
            landmark_dropout=self.config.landmark_dropout,
            feature_dropout=self.config.feature_dropout,
            seed=self.config.seed,
            device=self.device,
        )

    def validation(self, window: int) -> dict[str, Batch]:
        """Label -> fixed batch: "gen" modelled noise, "ren" rendered clips through the detector."""
        if window not in self._fixed:
            count, found = self.config.validation_sequences, {}
            if self.generated_validation is not None:
                found["gen"] = self.generated_validation.sample(count, window)
            if self.rendered_validation is not None:
                generator = torch.Generator(self.device).manual_seed(7)
                found["ren"] = self.rendered_validation.sample(count, window, generator)
            self._fixed[window] = found
        return self._fixed[window]
