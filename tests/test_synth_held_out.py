"""Takes of test and validation subjects stay the very ones that figures were measured on, whatever training sees.

EXPECTED was written by `summary` on the generator as it was before training got any variety of its own (bb0a229).
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from test_synth_noise import small_bank

from core.body import load_body
from core.synth.dataset import DatasetConfig, roi_of, sampler_config, shard_seed
from core.synth.render import render_crops
from core.synth.sampler import MotionSampler
from core.synth.takes import CONDITIONS, draw_takes

EXPECTED: dict[tuple[str, str], tuple[float, ...]] = {
    ("validation", "everyday"): (
        816.946,
        1276.63,
        2.81526,
        -2.9961,
        5.77132,
        2.43693,
        14.3486,
        18.1009,
        10.0983,
        5.39599,
        2.49858,
        182.297,
        0.60662,
        2.30981,
        2.20594,
        6,
    ),
    ("validation", "hard"): (
        816.946,
        1276.63,
        2.81526,
        -2.9961,
        5.77132,
        2.43693,
        14.3486,
        18.1009,
        10.0983,
        5.39608,
        3.01323,
        195.672,
        0.795894,
        2.25083,
        2.43517,
        12,
    ),
    ("test", "everyday"): (
        715.834,
        1116.08,
        5.13848,
        -3.16777,
        0.686162,
        1.44314,
        13.8257,
        17.5074,
        10.2852,
        4.23597,
        3.37471,
        155.214,
        0.457251,
        3.74238,
        2.13225,
        6,
    ),
    ("test", "hard"): (
        711.822,
        1116.08,
        5.13848,
        -3.10045,
        0.686162,
        1.44314,
        13.8257,
        17.5074,
        10.2852,
        4.236,
        3.39847,
        134.337,
        0.776327,
        3.14287,
        1.91136,
        6,
    ),
}


@pytest.fixture(scope="module")
def body():
    return load_body()


def draw(body, split: str, conditions: str, count: int = 3):
    bank = replace(small_bank(), split=("train", "validation", "test"))
    motions = MotionSampler(bank, body, split=split, config=sampler_config(split, 3))
    generator = torch.Generator().manual_seed(shard_seed(DatasetConfig(split=split), 7))
    return draw_takes(motions, count, 3, generator, conditions=CONDITIONS[conditions]), generator


def summary(takes, generator, body) -> list[float]:
    """One number or two of everything that is drawn, and of a picture of the first take."""
    eye = -(takes.cameras.R.transpose(-1, -2) @ takes.cameras.t[..., None])
    clothes = takes.person.wardrobe
    lens = takes.lens
    values = [
        takes.points[:, -1].mean(),
        takes.points[0, 1, 11, 0],
        eye[:, 0].std(),
        takes.cameras.up()[:, -1].sum(),
        takes.person.betas.sum(),
        clothes.cut.clamp(-1, 1).sum(),
        clothes.looseness.sum() * 100,
        clothes.cloth.abs().mean(),
        takes.lights.values.sum(),
        takes.backgrounds.mean() * 10,
        (lens.gain + lens.jpeg + lens.noise + lens.shutter).sum(),
        takes.occluders.abs().mean(),
        torch.rand((), generator=generator),
    ]
    roi = roi_of(takes.points[:, 1])
    picture, hidden = render_crops(takes, 1, roi, body, generator, supersample=1)
    return [float(v) for v in (*values, picture.mean() * 10, picture.std() * 10, hidden.sum())]


@pytest.mark.parametrize("split", ["validation", "test"])
@pytest.mark.parametrize("conditions", ["everyday", "hard"])
def test_held_out_takes_are_drawn_as_ever(body, split, conditions):
    found = summary(*draw(body, split, conditions), body)
    assert found == pytest.approx(EXPECTED[split, conditions], rel=2e-4)
