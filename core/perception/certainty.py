"""Confidence of a keypoint from all that the landmark network says of it: how far off it is likely to be.

Visibility and presence alone hardly tell a good place from a bad one; the heat maps do (heat.py). The expected
distance from the truth is log-linear in their numbers and logarithms, with coefficients for each keypoint fitted on
rendered clips (core/make/certainty.py). Confidence is inversely proportional to it: 0.5 is off by twice as much as 1.
B people, K = 25 keypoints, F features.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from core.errors import InputError
from core.perception.heat import HEAT_FIELDS
from core.skeleton import KEYPOINT_COUNT

PARAMETERS_FILE = Path(__file__).with_name("certainty.json")
SURE = 0.013
"""Expected error, as a share of the crop's side, that counts as confidence 1."""
_TINY_SEEN, _TINY_DOUBT, _TINY_HEAT = 0.01, 0.001, 0.005
FEATURE_COUNT = 4 + 2 * len(HEAT_FIELDS)


def features(visibility: Tensor, heat: Tensor) -> Tensor:
    """visibility [..., K] 0..1 (of visibility and presence the lesser), heat [..., K, 6] -> [..., K, F]."""
    v = visibility.float()[..., None]
    heat = heat.float()
    logs = ((v + _TINY_SEEN).log(), (1 - v + _TINY_DOUBT).log())
    return torch.cat((torch.ones_like(v), v, *logs, heat, (heat + _TINY_HEAT).log()), -1)


def expected_error(visibility: Tensor, heat: Tensor, coefficients: Tensor) -> Tensor:
    """Mean distance from the truth [..., K], shares of the crop's side; coefficients [K, F]."""
    return (features(visibility, heat) * coefficients).sum(-1).clamp(-7, 0).exp()


def confidence_of(visibility: Tensor, heat: Tensor) -> Tensor:
    """Confidence [..., K] 0..1 of keypoints with visibility [..., K] and heat [..., K, 6] (`read_heat`)."""
    coefficients = load_coefficients().to(heat.device)
    return (SURE / expected_error(visibility, heat, coefficients)).clamp_max(1.0)


@cache
def load_coefficients(path: Path = PARAMETERS_FILE) -> Tensor:
    """[K, F] float32; InputError where the file is not one of these."""
    try:
        values = torch.tensor(json.loads(path.read_text())["coefficients"], dtype=torch.float32)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} holds no coefficients of keypoints' confidence: {error}") from error
    if values.shape != (KEYPOINT_COUNT, FEATURE_COUNT):
        raise InputError(f"{path}: coefficients {tuple(values.shape)}, expected {(KEYPOINT_COUNT, FEATURE_COUNT)}")
    return values
