"""Training settings, read from small TOML files; every field has a default that suits one large GPU."""

from __future__ import annotations

import logging
import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from core.device import has_fast_bfloat16
from core.errors import InputError
from core.models.config import HyperbolicConfig, from_dict
from core.train.augment import Variation

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StageConfig:
    """One stage: it ends when its time or its steps are used up, whichever comes first."""

    budget_s: float = 600.0
    steps: int = 1_000_000
    generated: int = 256
    """Keypoint-only sequences made up per step."""
    rendered: int = 0
    """Sequences per step from rendered clips with the detector's own output (none where no shards are given)."""
    draw_ahead: int = 8
    """Batches of generated sequences made at once: the generator's many small kernels cost the same for all."""
    window: int = 64
    """Frames per sequence drawn."""
    kept: int = 0
    """Of those, so many are trained on: mostly every second or third one, as neighbours say nearly the same; else
    neighbours. 0 = all."""
    meshes_per_sequence: int = 4
    """Mid frames per sequence whose mesh is trained (stage 2)."""
    mesh_vertices: int = 5000
    """Full-mesh vertices per step for the loss, those that the joint regressor reads among them; 0 = all."""
    learning_rate: float = 6e-4
    final_rate: float = 0.02
    """Fraction of the learning rate left at the end of the cosine."""
    warmup_steps: int = 300
    lifter_rate: float = 1.0
    """Factor on the learning rate of the lifter; 0 holds it fixed in stage "mesh"."""
    weight_decay: float = 0.02
    clip_norm: float = 1.0
    ema_decay: float = 0.999


@dataclass(frozen=True)
class LossConfig:
    """Weights; the mesh terms are the paper's, the lifter's other terms were chosen for this project."""

    joint: float = 1.0
    kinematic_joint: float = 1.0
    """Joints of the lifter's rotations and shape, by forward kinematics."""
    rotation: float = 0.5
    shape: float = 0.01
    velocity: float = 1.0
    mesh: float = 1.0
    mesh_joint: float = 1.0
    normal: float = 0.1
    edge: float = 20.0
    lifter_in_mesh_stage: float = 1.0


@dataclass(frozen=True)
class CommonConfig:
    """What every training is told, whatever the network."""

    variation: Variation = field(default_factory=Variation)
    """Of rendered sequences."""
    seed: int = 1
    use_bfloat16: bool = True
    """Autocast, where the device is fast at it; the manifold and all positions stay in float32."""
    landmark_dropout: float = 0.25
    """Chance that a sequence goes without the detector's 3D landmarks."""
    feature_dropout: float = 0.25
    """Chance that a rendered sequence goes without image features."""
    validate_every_s: float = 60.0
    checkpoint_every_s: float = 60.0
    validation_sequences: int = 128


Config = TypeVar("Config", bound=CommonConfig)


def for_device(config: Config, device: str) -> Config:
    """The settings without bfloat16 where the device only emulates it."""
    if not config.use_bfloat16 or has_fast_bfloat16(device):
        return config
    log.info("%s has no fast bfloat16: training in float32", device)
    return replace(config, use_bfloat16=False)


@dataclass(frozen=True)
class TrainConfig(CommonConfig):
    network: HyperbolicConfig = field(default_factory=HyperbolicConfig)
    lift: StageConfig = field(default_factory=StageConfig)
    mesh: StageConfig = field(
        default_factory=lambda: StageConfig(
            generated=48, rendered=48, window=48, learning_rate=5e-4, lifter_rate=0.2, clip_norm=10.0
        )
    )
    loss: LossConfig = field(default_factory=LossConfig)
    use_compile: bool = False
    """torch.compile the lifter's blocks and the mesh blocks."""


def read_config(path: str | Path | None, changes: tuple[str, ...] = ()) -> TrainConfig:
    """Read a TOML file whose tables mirror `TrainConfig` (None: the defaults), then apply changes.

    Each change is a line of TOML with a dotted key, such as `network.curvature="euclidean"`. InputError names the
    file or change and the unknown setting.
    """
    return settings_from(TrainConfig, read_settings(path, changes), changes[-1] if changes else path)


def read_settings(path: str | Path | None, changes: tuple[str, ...] = ()) -> dict:
    """The tables of a TOML file (None: none) with changes applied; InputError as in `read_config`."""
    source = path or "settings"
    try:
        values = tomllib.loads(Path(path).read_text(encoding="utf-8")) if path else {}
        for change in changes:
            source = change
            _merge(values, tomllib.loads(change))
    except (OSError, ValueError) as error:  # TOMLDecodeError is a ValueError
        raise InputError(f"{source}: {error}") from error
    return values


def settings_from(kind: type, values: dict, source: object):
    """Build config class `kind` from tables; InputError names the source and the unknown setting."""
    try:
        return from_dict(kind, values)
    except (ValueError, TypeError) as error:
        raise InputError(f"{source or 'settings'}: {error}") from error


def _merge(values: dict, changes: dict) -> None:
    for key, value in changes.items():
        if isinstance(value, dict):
            _merge(values.setdefault(key, {}), value)
        else:
            values[key] = value
