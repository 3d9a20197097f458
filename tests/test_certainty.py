"""Confidence from visibility and heat: its scale, its fit, and whether it tells good places from bad ones."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from core.errors import InputError
from core.make.certainty import fit, score
from core.perception.certainty import (
    FEATURE_COUNT,
    SURE,
    confidence_of,
    expected_error,
    features,
    load_coefficients,
)
from core.skeleton import KEYPOINT_COUNT, KEYPOINT_MIRROR


def signs(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.rand(count, KEYPOINT_COUNT, generator=generator),
        torch.rand(count, KEYPOINT_COUNT, 6, generator=generator) * 0.5,
    )


def test_expected_error_is_log_linear():
    seen, heat = signs(3)
    coefficients = torch.zeros(KEYPOINT_COUNT, FEATURE_COUNT)
    coefficients[:, 0] = -3.0
    np.testing.assert_allclose(expected_error(seen, heat, coefficients), math.exp(-3), rtol=1e-6)
    coefficients[4, 0], coefficients[4, 1] = -2.0, -1.5  # visibility itself
    expected = np.exp(-2 - 1.5 * seen[:, 4].numpy())
    np.testing.assert_allclose(expected_error(seen, heat, coefficients)[:, 4], expected, rtol=1e-5)


def test_confidence_halves_where_the_error_doubles():
    seen, heat = signs(50)
    error = expected_error(seen, heat, load_coefficients())
    confidence = confidence_of(seen, heat)
    below = error > SURE
    assert below.any() and (~below).any()
    np.testing.assert_allclose(confidence[below] * error[below], SURE, rtol=1e-5)
    assert (confidence[~below] == 1).all() and (confidence > 0).all()


def test_left_and_right_are_alike():
    coefficients = load_coefficients()
    assert torch.equal(coefficients, coefficients[list(KEYPOINT_MIRROR)])


def test_the_fit_finds_what_made_the_errors():
    """Exponential errors of a known mean, one that depends on visibility and on two numbers of the heat."""
    seen, heat = signs(4000)
    true = torch.zeros(KEYPOINT_COUNT, FEATURE_COUNT)
    true[:, 0], true[:, 1], true[:, 7], true[:, 10] = -4.0, -1.0, 3.0, 0.4
    mean = expected_error(seen, heat, true)
    generator = torch.Generator().manual_seed(1)
    error = -mean * torch.rand(mean.shape, generator=generator).clamp_min(1e-9).log()
    fitted = fit(seen, heat, error).float()
    found = expected_error(*signs(500, seed=2), fitted)
    expected = expected_error(*signs(500, seed=2), true)
    # errors count 0.002 more than they are
    np.testing.assert_allclose((found / (expected + 0.002)).log().abs().mean(), 0, atol=0.04)
    better, worse = score(seen, heat, error, fitted)[0], score(seen, heat, error, true * 0.9)[0]
    assert better < worse


def test_features_are_what_the_file_says():
    seen, heat = signs(2)
    x = features(seen, heat)
    assert x.shape == (2, KEYPOINT_COUNT, FEATURE_COUNT)
    np.testing.assert_allclose(x[..., 2], (seen + 0.01).log(), rtol=1e-5)
    np.testing.assert_allclose(x[..., -1], (heat[..., 5] + 0.005).log(), rtol=1e-5)


@pytest.mark.parametrize("text", ["", "{}", json.dumps({"coefficients": [[1.0]]}), json.dumps({"coefficients": "a"})])
def test_another_file_is_refused(tmp_path, text):
    path = tmp_path / "certainty.json"
    path.write_text(text)
    with pytest.raises(InputError, match="certainty.json"):
        load_coefficients(path)
