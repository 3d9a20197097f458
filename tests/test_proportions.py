"""Keypoints of people of other proportions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from core.body import load_body
from core.skeleton import KEYPOINT_NAMES
from core.synth.noise import NoiseModel
from core.synth.proportions import LIMB_DEVIATION, SEGMENTS, draw_factors, stretch
from core.synth.sampler import KeypointSampler, SamplerConfig

SIDES = ("left_", "right_")


def index(name: str) -> int:
    return KEYPOINT_NAMES.index(name)


@pytest.fixture(scope="module")
def points() -> torch.Tensor:
    """[5, 3, 25, 3]: nothing is at rest, nothing symmetrical."""
    return torch.randn(5, 3, 25, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def bones(points: torch.Tensor) -> dict[tuple[str, str], np.ndarray]:
    """Vector [..., 3] from the beginning to each end of every segment."""
    return {
        (side + start, side + end): (points[..., index(side + end), :] - points[..., index(side + start), :]).numpy()
        for start, ends in SEGMENTS.values()
        for end in ends
        for side in SIDES
    }


def test_segments_change_their_length_but_not_their_direction(points) -> None:
    factors = draw_factors(5, torch.Generator().manual_seed(1), share=1.0)
    before, after = bones(points), bones(stretch(points, factors))
    of_end = {(side + end): (name, k) for name, (_, ends) in SEGMENTS.items() for end in ends
              for k, side in enumerate(SIDES)}  # fmt: skip
    for (start, end), bone in before.items():
        name, side = of_end[end]
        wanted = bone * factors[name][:, side].numpy()[:, None, None]
        np.testing.assert_allclose(after[start, end], wanted, rtol=1e-6, err_msg=f"{start} {end}")


def test_the_trunk_grows_about_the_hips_middle_and_the_head_goes_with_it(points) -> None:
    one = {name: torch.ones(5) for name in ("trunk", "neck", "shoulders", "hips")}
    one |= {name: torch.ones(5, 2) for name in SEGMENTS}
    torch.testing.assert_close(stretch(points, one), points)
    grown = stretch(points, one | {"trunk": torch.full((5,), 1.2), "hips": torch.full((5,), 0.5)})
    pair = lambda p, name: (p[..., index("left_" + name), :] + p[..., index("right_" + name), :]) / 2  # noqa: E731
    hips, chest = pair(points, "hip"), pair(points, "shoulder")
    torch.testing.assert_close(pair(grown, "hip"), hips)
    torch.testing.assert_close(pair(grown, "shoulder"), hips + 1.2 * (chest - hips))
    moved = 0.2 * (chest - hips)
    for name in ("nose", "left_shoulder", "right_wrist"):
        torch.testing.assert_close(grown[..., index(name), :], points[..., index(name), :] + moved)
    wide = points[..., index("left_hip"), :] - hips
    torch.testing.assert_close(grown[..., index("left_toe"), :], points[..., index("left_toe"), :] - 0.5 * wide)


def test_factors_are_spread_as_said_and_the_rest_keep_their_proportions() -> None:
    factors = draw_factors(4000, torch.Generator().manual_seed(2), share=0.25)
    logs = factors["forearm"].log()
    kept = (logs == 0).all(1)
    assert kept.float().mean() == pytest.approx(0.75, abs=0.03)
    assert logs[~kept].mean(1).std() == pytest.approx(LIMB_DEVIATION, rel=0.1)
    assert (logs[:, 0] - logs[:, 1])[~kept].abs().mean() < 0.3 * LIMB_DEVIATION
    assert (factors["trunk"][kept] == 1).all() and (factors["trunk"][~kept] != 1).all()


def test_sequences_are_seen_with_other_proportions_and_keep_their_truth() -> None:
    from test_synth_noise import small_bank

    body = load_body()
    still = {"mixed": 0.0, "wobbled": 0.0, "frames": 6}

    def lengths(share: float) -> tuple[torch.Tensor, torch.Tensor]:
        sampler = KeypointSampler(small_bank(), body, NoiseModel(), config=SamplerConfig(stretched=share, **still))
        batch = sampler.batch(200)
        pair = [index("left_hip"), index("left_knee")]
        seen = (batch.keypoints[:, :, pair[0], :2] - batch.keypoints[:, :, pair[1], :2]).norm(dim=-1)
        true = (batch.true_points[:, :, pair[0]] - batch.true_points[:, :, pair[1]]).norm(dim=-1)
        return (seen / true).log().mean(1), (batch.joints[:, 0, 1] - batch.joints[:, 0, 4]).norm(dim=-1)

    (plain, bones_plain), (other, bones_other) = lengths(0.0), lengths(1.0)
    middle = lambda x: float(x.quantile(0.84) - x.quantile(0.16)) / 2  # noqa: E731
    assert middle(other) > middle(plain) + 0.02
    torch.testing.assert_close(bones_other, bones_plain)
