"""What each part of the mesh network is worth: variants trained on the same lifter with equal budgets, then measured.

Every variant and seed is a training of stage "mesh" of its own in `out/<variant>-<seed>`; those that are finished are
not trained again. Measured are the network's meshes (not the motion fitted to them) on rendered clips it never saw.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from core.body import load_body
from core.errors import InputError
from core.models.checkpoint import load_network
from core.synth.format import read_shards
from core.train.data import TrainOptions
from core.train.objective import MeshObjective
from core.train.run import train
from core.train.shards import ShardBank
from core.train.validation import mesh_metrics

log = logging.getLogger(__name__)

VARIANTS: dict[str, dict] = {
    "full": {},
    "without TMF": {"use_tmf": False},
    "without HPO": {"use_hpo": False},
    "without HMO": {"use_hmo": False},
    "without TPMI and HMO": {"use_tpmi": False, "use_hmo": False},
    "without L_hymesh": {"hyperbolic_mesh_weight": 0.0},
    "Euclidean": {"curvature": "euclidean"},
    "Euclidean, without L_hymesh": {"curvature": "euclidean", "hyperbolic_mesh_weight": 0.0},
}
"""Changes of the network's configuration. HMO's tokens are TPMI's, so that without TPMI there is no HMO."""
CHOICES: dict[str, dict] = {
    "curvature fixed at its start": {"curvature": "fixed"},
    "curvature fixed at 1": {"curvature": "fixed", "curvature_init": 1.0},
    "self attention by distance": {"self_attention": "distance"},
    "cross attention in the tangent space": {"cross_attention": "tangent"},
    "fusion by the mean": {"fusion": "mean"},
    "skinned start": {"mesh_start": "skinned"},
}
"""What the method leaves open, each against "full"."""
CLIP_FRAMES = 96
MEASURED_FRAMES = 48
METRICS = ("mpjpe", "pa", "mpvpe", "accel")


def run_ablations(
    options: TrainOptions, *, seeds: tuple[int, ...], split: str = "test", on_done: Callable[[str], None]
) -> dict[str, dict[str, list[float]]]:
    """Train and measure all variants; returns variant -> metric -> a value per seed (mm, mm/frame^2).

    Choices are trained with the first seed only. `options.start_from` names the network file whose lifter all share;
    it is held fixed.
    """
    if options.start_from is None or options.shards is None:
        raise InputError("Ablations need --start-from (a network with a trained lifter) and --shards")
    table: dict[str, dict[str, list[float]]] = {}
    runs = [(seed, name) for seed in seeds for name in VARIANTS] + [(seeds[0], name) for name in CHOICES]
    for seed, name in runs:  # all variants once before any is done twice
        folder = options.out / f"{name.replace(' ', '_').replace(',', '').replace('/', '_')}-{seed}"
        done = folder / f"{split}.json"
        if not done.exists():
            config = options.config
            config = replace(
                config,
                seed=seed,
                network=replace(config.network, **(VARIANTS | CHOICES)[name]),
                mesh=replace(config.mesh, lifter_rate=0.0),
            )
            train(replace(options, config=config, out=folder, skip_lift=True))
            found = measure(folder / "hyperbolic.safetensors", options.shards, split, options.device)
            done.write_text(json.dumps(found) + "\n", encoding="utf-8")
        found = json.loads(done.read_text(encoding="utf-8"))
        on_done(f"{name}, seed {seed}: " + " ".join(f"{key} {value:.1f}" for key, value in found.items()))
        for key in METRICS:
            table.setdefault(name, {}).setdefault(key, []).append(found[key])
    return table


def measure(network: Path, shards: Path, split: str, device: str) -> dict[str, float]:
    """Errors of a network's meshes on the middle frames of every rendered clip of a split."""
    body = load_body()
    net = load_network(network, body).to(device).eval()
    body = body.to(device)
    objective = MeshObjective(body, net, None, hyperbolic_weight=0.0, use_bfloat16=False)
    bank = ShardBank(read_shards(shards, split=split), device=device)
    if not len(bank):
        raise InputError(f"{shards} holds no clips of the split {split}")
    clips = torch.arange(len(bank), device=device)
    batch = bank.windows(clips, torch.zeros_like(clips), CLIP_FRAMES)
    found = mesh_metrics(net, objective, body, batch, frames=MEASURED_FRAMES)
    return {key.removeprefix("mesh_"): value for key, value in found.items()}


def format_ablations(table: dict[str, dict[str, list[float]]]) -> str:
    """Markdown: the mean over seeds and, where there are several, half their range."""
    rows = ["| variant | " + " | ".join(METRICS) + " |", "| --- " * (len(METRICS) + 1) + "|"]
    for name, values in table.items():
        cells = []
        for key in METRICS:
            found = np.array(values[key])
            spread = f" ± {np.ptp(found) / 2:.1f}" if len(found) > 1 else ""
            cells.append(f"{found.mean():.1f}{spread}")
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(rows)
