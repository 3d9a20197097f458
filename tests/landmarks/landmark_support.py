"""What the tests of the landmark tuning share: the network, a frame of the demo clip, crops, made-up truth."""

from __future__ import annotations

import copy
import json
from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open

from core.perception.checkpoint import load_networks
from core.synth.crops import Displacement, encode, write_crops
from core.train.landmarks.features import CropBank
from core.train.landmarks.footage import FootageBank, FootageConfig, _crops_of
from core.train.landmarks.tail import TUNED
from core.video import VideoReader

DATA = Path(__file__).parents[1] / "data"


@cache
def the_original():
    """The shipped landmark network. Not to be changed."""
    return load_networks()[1].to(memory_format=torch.channels_last)


@cache
def the_frame() -> tuple[np.ndarray, np.ndarray]:
    """A frame of the demo clip, BGR, and its person's keypoints [25, 2] px."""
    with VideoReader(DATA / "demo.mp4") as reader:
        picture = next(iter(reader)).image
    with np.load(DATA / "demo_truth.npz") as truth:
        return picture, truth["keypoints"][0]


@cache
def the_pictures() -> np.ndarray:
    """Six crops [256, 256, 3] uint8 RGB of the demo's person."""
    config = FootageConfig(variants=6, off=Displacement())
    return np.stack([row[0] for row in _crops_of(*the_frame(), the_original(), config, np.random.default_rng(0))])


def write_folder(folder: Path) -> Path:
    """Two training shards of three crops each and a validation shard of two."""
    pictures = the_pictures()
    write_shard(folder / "train-s0-0000.npz", pictures[:3], 0)
    write_shard(folder / "train-s0-0001.npz", pictures[3:], 1)
    write_shard(folder / "validation-s0-0000.npz", pictures[:2], 2)
    return folder


def write_shard(path: Path, pictures: np.ndarray, seed: int = 0) -> None:
    """A shard of these pictures with made-up truth."""
    rng, N = np.random.default_rng(seed), len(pictures)
    coded = [encode(picture) for picture in pictures]
    write_crops(
        path,
        {
            "jpeg": np.concatenate(coded),
            "offset": np.cumsum([0, *map(len, coded)]),
            "xy": rng.uniform(40, 216, (N, 25, 2)).astype(np.float32),
            "world": rng.normal(0, 0.4, (N, 25, 3)).astype(np.float32),
            "aux": rng.uniform(40, 216, (N, 2, 2)).astype(np.float32),
            "hidden": rng.integers(0, 3, (N, 25)).astype(np.uint8),
            "roi": np.ones((N, 4), np.float32),
        },
    )


def made_up_footage(bank: CropBank) -> FootageBank:
    rng, N = np.random.default_rng(4), len(bank)
    points, world = rng.uniform(40, 216, (N, 39, 2)), rng.normal(0, 0.4, (N, 39, 3))
    truth = (points.astype(np.float32), world.astype(np.float32), rng.random((N, 39)).astype(np.float32))
    return FootageBank(bank.stored(1), *truth)


def shaken(network, amount: float = 0.02):
    """A copy whose tail is another one, a little."""
    network = copy.deepcopy(network)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in network.named_parameters():
        if name.startswith(TUNED):
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data += amount * parameter.square().mean().sqrt() * noise
    return network


def stored_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict]:
    with safe_open(path, framework="numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["about"])  # noqa: SIM118
