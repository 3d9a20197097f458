"""What hangs on the tuned tail and is fitted anew, the tail held: heat maps, presence, the image embedding.

Heat maps: `lateral8` learns to make of the tuned features what the original's makes of the original ones, so that
the maps stay the original's. Presence: ridge regression of the original's logit on the tuned embedding, on rendered
and real people and on places without any. Embedding: the linear map from the tuned embedding back to the original's,
which goes into the first layer that reads it.

That layer reads layer-normalised embeddings (core/models/hyperbolic.py), so the map is fitted between those; a map
between plain ones could not be folded, as normalising is not linear. It has no constant: frames without an embedding
are zeros there, and stay zeros.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from core.errors import InputError
from core.models.checkpoint import read_network, save_network
from core.perception.blazepose import EMBEDDING_SIZE, BlazePoseLandmarks
from core.train.landmarks.features import to_input
from core.train.landmarks.tail import QuickConvolution, run_deep, run_tail

CHUNK = 64
HELD_OUT = 5
"""Each so-manieth crop is not fitted to, and says how good the fit is."""
NOTE = "for perception weights whose landmark network was tuned"


@dataclass(frozen=True)
class RefitConfig:
    crops: int = 10_000
    """Rendered crops at most."""
    ridge: float = 1e-3
    """Of the mean square of the embedding's numbers."""
    real_weight: float = 4.0
    """Weight of a real crop in the embedding's map, against 1 of a rendered one."""
    empty_weight: float = 3.0
    """Weight of a place without people in the presence's fit."""
    largest_logit: float = 8.0
    """Presences surer than that count as that sure."""
    lateral_steps: int = 1500
    lateral_rendered: int = 40
    lateral_real: int = 24
    """Crops a step."""
    lateral_rate: float = 3e-3
    final_rate: float = 0.02
    seed: int = 0


@dataclass(frozen=True)
class Refit:
    network: BlazePoseLandmarks
    """The tuned network with lateral8 and presence_head fitted."""
    embedding_map: Tensor
    """A [1152, 1152]: layer_norm(tuned embedding) @ A is near layer_norm(original embedding)."""
    report: dict[str, float]
    """How well it went on crops that were not fitted to: shares of variance, shares of presences that agree."""


def refit(
    original: BlazePoseLandmarks,
    tuned: BlazePoseLandmarks,
    rendered: np.ndarray,
    real: np.ndarray,
    empty: np.ndarray,
    config: RefitConfig,
    *,
    on_progress: Callable[[float, str], None] | None = None,
) -> Refit:
    """Fit all three to a tuned network, which is copied. Features [n, 16, 16, 88] float16 of each kind of crop."""
    network = copy.deepcopy(tuned).requires_grad_(False)
    (old_rendered, new_rendered), (old_real, new_real), (old_empty, new_empty) = (
        (embed(original, features), embed(network, features)) for features in (rendered, real, empty)
    )
    weights = torch.cat([torch.ones(len(rendered)), torch.full((len(real),), config.real_weight)])
    old, new = torch.cat([old_rendered, old_real]), torch.cat([new_rendered, new_real])
    fitted = _fitted(len(old))
    A = fit_linear(normalised(new[fitted]), normalised(old[fitted]), weights[fitted], config.ridge).float()
    report = {"embedding": explained(normalised(new[~fitted]) @ A, normalised(old[~fitted]))}
    report["embedding_unmapped"] = explained(normalised(new[~fitted]), normalised(old[~fitted]))

    weights = torch.cat([torch.ones(len(old)), torch.full((len(empty),), config.empty_weight)])
    old, new = torch.cat([old, old_empty]), torch.cat([new, new_empty])
    fitted = _fitted(len(old))
    logits = presence_logits(original, old)
    limit = config.largest_logit
    fit_presence(network, new[fitted], logits[fitted].clamp(-limit, limit), weights[fitted], config.ridge)
    agrees = (presence_logits(network, new) > 0) == (logits > 0)
    is_person = torch.arange(len(old)) < len(old) - len(empty)
    report["presence_people"] = float(agrees[~fitted & is_person].float().mean())
    report["presence_empty"] = float(agrees[~fitted & ~is_person].float().mean())

    heat = fit_lateral(original, network, rendered, real, config, on_progress=on_progress)
    report["heat_untouched"], report["heat"] = heat
    return Refit(network, A, report)


def _fitted(count: int) -> Tensor:
    return torch.arange(count) % HELD_OUT != 0


@torch.no_grad()
def embed(network: BlazePoseLandmarks, features: np.ndarray) -> Tensor:
    """Features [n, 16, 16, 88] float16 -> embeddings [n, 1152]."""
    chunks = range(0, len(features), CHUNK)
    return torch.cat([run_tail(network, to_input(features[k : k + CHUNK])).embedding for k in chunks])


def normalised(embedding: Tensor) -> Tensor:
    """[..., 1152] as the mesh network takes it in."""
    return functional.layer_norm(embedding, embedding.shape[-1:])


def fit_linear(x: Tensor, y: Tensor, weights: Tensor, ridge: float) -> Tensor:
    """A [P, Q] with x @ A near y by weighted ridge regression; x [n, P], y [n, Q], weights [n]. float64."""
    x, y, weights = x.double(), y.double(), weights.double()
    gram = x.T @ (weights[:, None] * x)
    eye = torch.eye(x.shape[1], dtype=torch.float64)
    return torch.linalg.solve(gram + ridge * gram.diagonal().mean() * eye, x.T @ (weights[:, None] * y))


def explained(found: Tensor, truth: Tensor) -> float:
    """Share of the variance of truth [n, P] that found explains; 1 = all, 0 = no better than the mean."""
    return 1 - float((found - truth).square().sum() / (truth - truth.mean(0)).square().sum())


def presence_logits(network: BlazePoseLandmarks, embedding: Tensor) -> Tensor:
    """Embeddings [n, 1152] -> logits [n]."""
    head = network.presence_head
    return embedding @ head.weight.permute(0, 2, 3, 1).reshape(EMBEDDING_SIZE) + head.bias


@torch.no_grad()
def fit_presence(
    network: BlazePoseLandmarks, embedding: Tensor, logits: Tensor, weights: Tensor, ridge: float
) -> None:
    """Set presence_head so that embeddings [n, 1152] give logits [n]."""
    x = torch.cat([embedding, torch.ones(len(embedding), 1)], 1)
    found = fit_linear(x, logits[:, None], weights, ridge)[:, 0].float()
    head = network.presence_head
    size = head.weight.shape  # [1, 288, 2, 2]
    head.weight.copy_(found[:-1].reshape(1, *size[2:], size[1]).permute(0, 3, 1, 2))
    head.bias.copy_(found[-1:])


def fit_lateral(
    original: BlazePoseLandmarks,
    network: BlazePoseLandmarks,
    rendered: np.ndarray,
    real: np.ndarray,
    config: RefitConfig,
    *,
    on_progress: Callable[[float, str], None] | None = None,
) -> tuple[float, float]:
    """`distil_lateral`, unless the branch came out worse: agreement with the original's before and after.

    A tail that hardly moved needs no other branch, and a few steps at a high rate would spoil it.
    """
    kept = {name: value.clone() for name, value in network.lateral8.state_dict().items()}
    before = lateral_agreement(original, network, rendered, real)
    distil_lateral(original, network, rendered, real, config, on_progress=on_progress)
    after = lateral_agreement(original, network, rendered, real)
    if after < before:
        network.lateral8.load_state_dict(kept)
        return before, before
    return before, after


def distil_lateral(
    original: BlazePoseLandmarks,
    network: BlazePoseLandmarks,
    rendered: np.ndarray,
    real: np.ndarray,
    config: RefitConfig,
    *,
    on_progress: Callable[[float, str], None] | None = None,
) -> None:
    """Train network.lateral8 to give on the tuned features what the original's gives on the original ones."""
    lateral = copy.deepcopy(network.lateral8).requires_grad_(True)
    lateral.mix = QuickConvolution.of(lateral.mix)
    rates = [config.lateral_rate * float(p.detach().square().mean().sqrt()) for p in lateral.parameters()]
    optimizer = torch.optim.Adam([{"params": [p], "lr": r} for p, r in zip(lateral.parameters(), rates)])
    generator = torch.Generator().manual_seed(config.seed)
    for step in range(config.lateral_steps):
        cosine = 0.5 * (1 + math.cos(math.pi * step / config.lateral_steps))
        for group, rate in zip(optimizer.param_groups, rates):
            group["lr"] = rate * (config.final_rate + (1 - config.final_rate) * cosine)
        picks = (
            pool[torch.randint(len(pool), (count,), generator=generator).numpy()]
            for pool, count in ((rendered, config.lateral_rendered), (real, config.lateral_real))
        )
        features = to_input(np.concatenate(list(picks)))
        with torch.no_grad():
            target, deep = original.lateral8(run_deep(original, features)), run_deep(network, features)
        loss = (lateral(deep) - target).square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if on_progress is not None:
            on_progress((step + 1) / config.lateral_steps, f"heat maps off by {float(loss.detach()):.4g}")
    network.lateral8.load_state_dict(lateral.state_dict())


@torch.no_grad()
def lateral_agreement(
    original: BlazePoseLandmarks,
    network: BlazePoseLandmarks,
    rendered: np.ndarray,
    real: np.ndarray,
    count: int = 256,
) -> float:
    """Share of the variance of the original's lateral8 that the network's explains, on some crops of both kinds."""
    picked = [pool[:: max(1, len(pool) * 2 // count)] for pool in (rendered, real)]
    features = to_input(np.concatenate(picked))
    target, found = (net.lateral8(run_deep(net, features)).flatten(1) for net in (original, network))
    return explained(found, target)


def fold_embedding_map(tensors: dict[str, Tensor], embedding_map: Tensor) -> dict[str, Tensor]:
    """State of a mesh network whose project_features reads what `embedding_map` [1152, 1152] maps (Refit)."""
    weight = tensors["project_features.weight"]  # [prior_dim, 1152]
    folded = (weight.double() @ embedding_map.double().T).to(weight.dtype)
    return {**tensors, "project_features.weight": folded}


def write_folded(path: str | Path, source: str | Path, embedding_map: Tensor) -> None:
    """Write the mesh network file `source` for the tuned embedding. Raises InputError if it reads none."""
    tensors, config, info = read_network(source)
    weight = tensors.get("project_features.weight")
    if weight is None or weight.shape[1] != len(embedding_map):
        raise InputError(f"{source} does not read the landmark network's embedding of {len(embedding_map)} numbers")
    notes = {**info["notes"], "embedding": NOTE}
    save_network(path, fold_embedding_map(tensors, embedding_map), config, stage=info["stage"], notes=notes)
