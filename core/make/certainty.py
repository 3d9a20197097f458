"""Fit core/perception/certainty.json: how far off a keypoint is, from what the landmark network says of it.

    python -m core.make.certainty SHARDS [OUTPUT]

SHARDS is a folder of rendered clips of training subjects (core/synth/dataset.py), which hold the network's visibility
and heat-map numbers beside the truth. The expected error minimises the negative log-likelihood of an exponential
distribution, mean of log s + e / s, whose best s is the mean error of alike readings; a third of the clips is kept
aside to measure it. Left and right share their coefficients.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import torch
from torch import Tensor

from core.body import Body, load_body
from core.perception.certainty import PARAMETERS_FILE, expected_error, features
from core.skeleton import KEYPOINT_MIRROR, KEYPOINT_NAMES
from core.synth.detector_errors import measure
from core.synth.format import clips_of, read_shards

log = logging.getLogger(__name__)

LARGEST = 0.25
"""Share of the crop's side beyond which errors are all alike."""
FLOOR = 0.002
RIDGE = 1e-4
ROUNDS = 60
KEPT_ASIDE = 3
"""Every third clip."""


def collect(folder: str | Path, body: Body) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Visibility [N, K], heat [N, K, 6], error [N, K] (shares of the crop's side) and clip number [N]."""
    seen, heat, error, number = [], [], [], []
    for shard in read_shards(folder, split="train", as_stored=True):
        for errors, clip in zip(measure(shard, body), clips_of(shard)):
            is_there = errors.present
            seen.append(torch.from_numpy(clip["keypoints"][..., 2]).float()[is_there])
            heat.append(torch.from_numpy(clip["heat"]).float()[is_there])
            error.append(errors.raw[is_there].clamp_max(LARGEST))
            number.append(torch.full((int(is_there.sum()),), len(number)))
    return torch.cat(seen), torch.cat(heat), torch.cat(error), torch.cat(number)


def fit(seen: Tensor, heat: Tensor, error: Tensor) -> Tensor:
    """Coefficients [K, F], float64."""
    X, e = features(seen, heat).double(), error.double() + FLOOR
    kinds = sorted({min(k, m) for k, m in enumerate(KEYPOINT_MIRROR)})
    coefficients = torch.zeros(len(KEYPOINT_MIRROR), X.shape[-1], dtype=torch.float64)
    for kind in kinds:
        sides = sorted({kind, KEYPOINT_MIRROR[kind]})
        both, off = X[:, sides].flatten(0, 1), e[:, sides].flatten()
        coefficients[sides] = _fit_one(both, off)
    return coefficients


def _fit_one(X: Tensor, error: Tensor) -> Tensor:
    """Coefficients [F] of log s = X w by damped Newton steps; features X [n, F], the first of them ones."""
    middle, scale = X.mean(0), X.std(0).clamp_min(1e-6)
    middle[0], scale[0] = 0, 1
    Z = (X - middle) / scale
    w = torch.zeros(X.shape[1], dtype=X.dtype)
    w[0] = error.mean().log()
    ridge = torch.full_like(w, RIDGE)
    ridge[0] = 0

    def loss(w: Tensor) -> float:
        s = Z @ w
        return float((s + error * (-s).exp()).mean() + (ridge * w.square()).sum())

    best = loss(w)
    for _ in range(ROUNDS):
        ratio = error * (-(Z @ w)).exp()  # e / s
        gradient = Z.mT @ (1 - ratio) / len(Z) + 2 * ridge * w
        curvature = (Z.mT * ratio) @ Z / len(Z) + torch.diag(2 * ridge + 1e-9)
        step = torch.linalg.solve(curvature, gradient)
        size = 1.0
        while loss(w - size * step) > best and size > 1e-4:
            size /= 2
        w, before = w - size * step, best
        best = min(best, loss(w))
        if before - best < 1e-10:
            break
    w = w / scale
    w[0] -= (middle * w).sum()
    return w


def score(seen: Tensor, heat: Tensor, error: Tensor, coefficients: Tensor) -> tuple[float, float]:
    """Mean log s + e / s, and the correlation of log s with log e, over all readings."""
    s = expected_error(seen, heat, coefficients.float()).double()
    e = error.double() + FLOOR
    both = torch.stack((s.log().flatten(), e.log().flatten()))
    return float((s.log() + e / s).mean()), float(torch.corrcoef(both)[0, 1])


def build(folder: str | Path, output: str | Path = PARAMETERS_FILE) -> None:
    """Fit, say how well it does on clips kept aside, and write."""
    seen, heat, error, number = collect(folder, load_body())
    aside = number % KEPT_ASIDE == 0
    fitted = fit(seen[~aside], heat[~aside], error[~aside])
    plain = fit(seen[~aside], torch.zeros_like(heat)[~aside], error[~aside])
    for name, w, h in (("visibility alone", plain, torch.zeros_like(heat)), ("with heat", fitted, heat)):
        log.info("%s: log likelihood %.4f, correlation %.3f", name, *score(seen[aside], h[aside], error[aside], w))
    coefficients = fit(seen, heat, error)
    note = f"expected error of a keypoint, log-linear; fitted to {len(seen)} frames of {int(number.max()) + 1} clips"
    values = {"about": note, "keypoints": list(KEYPOINT_NAMES), "coefficients": _rounded(coefficients)}
    Path(output).write_text(json.dumps(values, indent=1) + "\n")


def _rounded(values: Tensor) -> list[list[float]]:
    return [[float(f"{v:.6g}") for v in row] for row in values.tolist()]


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    build(*sys.argv[1:3])
