"""A whole training: body, data, stage "lift", stage "mesh", network files. Resumable at any point.

The output folder holds one checkpoint per stage, `lifter.safetensors`, `hyperbolic.safetensors`, `history.jsonl`,
`history.png` and `config.json`. Calling again with the same folder goes on where it ended.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import replace
from pathlib import Path

import torch

from core.body import Body, load_body
from core.coarse import build_coarse
from core.errors import InputError
from core.models.checkpoint import read_network, save_network
from core.models.coarse_body import coarse_body, known_coarse_body
from core.models.config import HyperbolicConfig, to_dict
from core.models.hyperbolic import HyperbolicNet
from core.models.inputs import LANDMARK_XYZ
from core.train.batch import Batch
from core.train.config import for_device
from core.train.data import TrainingData, TrainOptions
from core.train.objective import MeshObjective, StageLoss, Truth
from core.train.progress import History, draw_history
from core.train.rendering import Renderer
from core.train.trainer import StageTrainer
from core.train.validation import lifter_metrics, mesh_metrics

log = logging.getLogger(__name__)

MESH_VALIDATION_SEQUENCES = 24
MESH_VALIDATION_FRAMES = 16
SKIP_RIDGE = 1e-3
"""Square metres per frame."""


def train(options: TrainOptions) -> dict[str, float]:
    """Run what is left of both stages; returns the last validation metrics."""
    began = time.perf_counter()
    options = replace(options, config=for_device(options.config, options.device))
    config, out = options.config, options.out
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.json").write_text(json.dumps(to_dict(config), indent=1), encoding="utf-8")
    history = History(out / "history.jsonl")
    renderer = _start_renderer(options)
    try:
        _run_stages(options, history, began)
    finally:
        if renderer is not None:
            renderer.stop()
    draw_history(history, out / "history.png")
    rows = [r for r in history.rows if r["kind"] == "validation"]
    return rows[-1] if rows else {}


def _start_renderer(options: TrainOptions) -> Renderer | None:
    if options.render_s <= 0:
        return None
    if options.shards is None or options.motion is None:
        raise InputError("Rendering beside the training needs a motion bank and a folder for the clips")
    return Renderer(options.shards, options.motion, device=options.device, seconds=options.render_s)


def _run_stages(options: TrainOptions, history: History, began: float) -> None:
    config, device = options.config, options.device
    torch.manual_seed(config.seed)
    body = load_body(options.body_path)
    net = _build_network(config.network, body, options.start_from).to(device)
    body = body.to(device)
    objective = MeshObjective(
        body,
        net,
        config.loss,
        hyperbolic_weight=config.network.hyperbolic_mesh_weight,
        use_bfloat16=config.use_bfloat16,
    )
    data = TrainingData(options, body)
    if options.start_from is None:
        start_landmark_skip(net.lifter, body, data.sample_generated(config.lift.window))
    log.info("ready after %.0f s: %s", time.perf_counter() - began, data.describe())

    def remaining() -> float:
        return options.stop_after_s - (time.perf_counter() - began)

    stages = [("lift", config.lift), ("mesh", config.mesh)]
    if options.skip_lift:
        stages = stages[1:]
    for name, stage in stages:
        trainer = _stage_trainer(name, stage, net, body, objective, data, history, options)
        is_done = remaining() > 0 and trainer.run(stop_after_s=remaining())
        with trainer.averaged():
            _write(net, name, options, history)
        if not is_done:
            break
        trainer.adopt_average()


@torch.no_grad()
def start_landmark_skip(lifter, body, batch: Batch | None) -> None:
    """Start the lifter from the detector's own landmarks: the linear map to the joints that fits best."""
    if lifter.landmark_skip is None or batch is None:
        return
    landmarks = batch.inputs()[..., LANDMARK_XYZ].flatten(2)[batch.has_landmarks > 0].double()  # [n, K*3]
    joints = Truth(body, batch).joints.flatten(2)[batch.has_landmarks > 0].double()
    eye = torch.eye(landmarks.shape[1], dtype=torch.float64, device=landmarks.device)
    ridge = SKIP_RIDGE * len(landmarks) * eye
    fitted = torch.linalg.solve(landmarks.T @ landmarks + ridge, landmarks.T @ joints)
    lifter.landmark_skip.weight.copy_(fitted.T)


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

    loss = StageLoss(net, body, config, stage, objective if is_mesh else None)
    return StageTrainer(
        name,
        net,
        config,
        stage,
        trained=net if is_mesh else net.lifter,
        loss=loss,
        draw=data.draw(stage, with_features=is_mesh),
        validate=validate,
        history=history,
        folder=options.out,
        device=options.device,
    )


def _compile_blocks(net: HyperbolicNet) -> None:
    for block in (*net.lifter.spatial, *net.lifter.temporal, net.hpo, net.hmo):
        if block is not None:
            block.compile(dynamic=False)


def _build_network(config: HyperbolicConfig, body: Body, start_from: Path | None) -> HyperbolicNet:
    """A new network, or one that goes on from a file, on the coarse mesh of that file where it has one."""
    tensors, _, info = read_network(start_from) if start_from is not None else ({}, None, {"stage": "lift"})
    is_whole = info["stage"] != "lift"
    if is_whole:
        coarse = known_coarse_body(body, tensors["vertex_ids"], tensors["coarse_faces"])
    else:
        coarse = coarse_body(body, build_coarse(body, config.coarse_vertices))
    net = HyperbolicNet(config, coarse)
    if start_from is not None:
        result = net.load_state_dict(tensors, strict=is_whole)
        log.info("started from %s (%s); %d tensors are new", start_from, info["stage"], len(result.missing_keys))
    return net


def _write(net: HyperbolicNet, stage: str, options: TrainOptions, history: History) -> None:
    rows = [r for r in history.rows if r["stage"] == stage and r["kind"] == "validation"]
    name = "lifter.safetensors" if stage == "lift" else "hyperbolic.safetensors"
    notes = {"validation_mm": rows[-1] if rows else {}, "training": to_dict(options.config)}
    save_network(options.out / name, net.state_dict(), options.config.network, stage=stage, notes=notes)
    log.info("wrote %s", options.out / name)
