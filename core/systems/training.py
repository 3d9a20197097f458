"""Training of a related system: its stages one after the other, with the default network's data and trainer.

Settings are TOML with `system = "NAME"`, a table [network] that mirrors the system's configuration and a table
[stages.NAME] for each stage of its objective. The output folder holds a checkpoint per stage, `NAME.safetensors`,
`history.jsonl` and `history.png`; calling again with the same folder goes on where it ended.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from core.body import Body, load_body
from core.errors import InputError
from core.evaluate.metrics import acceleration_error, mean_point_error, procrustes_error
from core.models.config import from_dict, to_dict
from core.systems.contract import Objective
from core.systems.registry import load_system, new_system, save_system, system_kind
from core.train.batch import Batch
from core.train.config import CommonConfig, StageConfig, for_device, settings_from
from core.train.data import TrainingData, TrainOptions
from core.train.objective import Truth
from core.train.progress import History, draw_history
from core.train.trainer import StageTrainer

log = logging.getLogger(__name__)

VALIDATION_FRAMES = 16
VALIDATION_SEQUENCES = 32
VERTEX_STRIDE = 7


@dataclass(frozen=True)
class SystemConfig(CommonConfig):
    system: str = ""
    network: object = None
    """Of the system's own configuration class."""
    stages: dict[str, StageConfig] = field(default_factory=dict)
    use_bfloat16: bool = False
    """These networks are small: on a CPU it brings them nothing."""


def system_config(values: dict, source: object) -> SystemConfig:
    """Build the settings from TOML tables; InputError names the source and what is unknown or missing."""
    kind = system_kind(values.get("system", ""))
    try:
        network = from_dict(kind.config_class, values.get("network", {}))
        stages = {name: from_dict(StageConfig, table) for name, table in values.get("stages", {}).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{source}: {error}") from error
    wanted = kind.objective_class.STAGES
    if set(stages) != set(wanted):
        raise InputError(f"{source}: {values['system']} is trained in the stages {', '.join(wanted)}")
    return settings_from(SystemConfig, values | {"network": network, "stages": stages}, source)


def train_system(options: TrainOptions) -> dict[str, float]:
    """Run what is left of all stages; returns the last validation metrics. InputError without data."""
    began = time.perf_counter()
    options = replace(options, config=for_device(options.config, options.device))
    config, out, device = options.config, options.out, options.device
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.json").write_text(json.dumps(to_dict(config), indent=1), encoding="utf-8")
    history = History(out / "history.jsonl")
    torch.manual_seed(config.seed)
    body = load_body(options.body_path)
    if options.start_from is None:
        net = new_system(config.system, config.network, body)
    else:
        net = load_system(options.start_from, body)
    net, body = net.to(device), body.to(device)
    objective = system_kind(config.system).objective_class(net, body)
    data = TrainingData(options, body)
    parameters = sum(p.numel() for p in net.parameters())
    log.info("%s, %.2f million parameters; %s", config.system, parameters / 1e6, data.describe())
    for name in objective.STAGES:
        remaining = options.stop_after_s - (time.perf_counter() - began)
        trainer = _stage_trainer(name, net, objective, body, data, history, options)
        is_done = remaining > 0 and trainer.run(stop_after_s=remaining)
        with trainer.averaged():
            _write(net.requires_grad_(False), name, options, history)
        if not is_done:
            break
        trainer.adopt_average()
    draw_history(history, out / "history.png")
    rows = [row for row in history.rows if row["kind"] == "validation"]
    return rows[-1] if rows else {}


def _stage_trainer(
    name: str, net: nn.Module, objective: Objective, body: Body, data: TrainingData, history: History, options
) -> StageTrainer:
    config: SystemConfig = options.config
    stage = config.stages[name]
    net.requires_grad_(False)
    for module in objective.trained(name):
        module.requires_grad_(True)
    kind = torch.device(options.device).type

    def loss(batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.autocast(kind, torch.bfloat16, enabled=config.use_bfloat16):
            return objective(batch, name)

    def validate() -> dict[str, float]:
        found: dict[str, float] = {}
        for label, batch in data.validation(2 * VALIDATION_FRAMES).items():
            few = batch.pick(slice(VALIDATION_SEQUENCES))
            found |= {f"{label}_{key}": value for key, value in system_metrics(net, body, few).items()}
        return found

    return StageTrainer(
        name,
        net,
        config,
        stage,
        trained=net,
        loss=loss,
        draw=data.draw(stage, with_features=True),
        validate=validate,
        history=history,
        folder=options.out,
        device=options.device,
    )


@torch.inference_mode()
def system_metrics(net: nn.Module, body: Body, batch: Batch, *, frames: int = VALIDATION_FRAMES) -> dict[str, float]:
    """MPJPE, PA-MPJPE and Accel of the joints, and MPVPE, on the middle `frames` of every sequence. Millimetres."""
    truth, inputs = Truth(body, batch), batch.inputs()
    s, t = batch.frames.shape
    device = batch.frames.device
    ids = torch.arange(0, body.vertex_count, VERTEX_STRIDE, device=device)
    mids = torch.arange((t - frames) // 2, (t - frames) // 2 + frames, device=device)
    joints, vertex_error = [], []
    for i in range(s):
        sequences = torch.full_like(mids, i)
        found = net.recover(inputs, batch.features, sequences, mids, ids)
        joints.append(found.joints - found.joints[:, :1])
        vertices = found.vertices
        if vertices is None:
            vertices = _skin(body, found.rotmats, found.betas, ids)
        vertex_error.append(mean_point_error(vertices, truth.vertices(sequences, mids, ids)))
    predicted, wanted = torch.stack(joints), truth.joints[:, mids]
    return {
        "mpjpe": float(mean_point_error(predicted, wanted).mean()),
        "pa": float(procrustes_error(predicted, wanted).mean()),
        "accel": float(acceleration_error(predicted, wanted).mean()),
        "mpvpe": float(torch.stack(vertex_error).mean()),
    }


def _skin(body: Body, rotmats: Tensor, betas: Tensor, ids: Tensor) -> Tensor:
    vertices, joints = body.skin(rotmats, betas, torch.zeros_like(betas[..., :3]), vertex_ids=ids)
    return vertices - joints[:, :1]


def _write(net: nn.Module, stage: str, options: TrainOptions, history: History) -> None:
    rows = [r for r in history.rows if r["stage"] == stage and r["kind"] == "validation"]
    notes = {"validation_mm": rows[-1] if rows else {}, "training": to_dict(options.config)}
    path = Path(options.out) / f"{net.NAME}.safetensors"
    save_system(path, net, notes=notes)
    log.info("wrote %s", path)
