"""The related systems by name: their networks, configurations and training objectives, and their files.

Each is imported when it is asked for, so that a recovery by one does not load the others.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import torch
from torch import nn

from core.body import Body
from core.coarse import build_coarse
from core.errors import InputError, SetupError
from core.models.checkpoint import load_strictly, read_file, write_file
from core.models.coarse_body import coarse_body, known_coarse_body
from core.models.config import from_dict, to_dict

WEIGHTS = Path(__file__).resolve().parents[2] / "weights"
COARSE_VERTICES = 431
"""V' of the papers."""


@dataclass(frozen=True)
class Kind:
    """Where the parts of a system are."""

    folder: str
    network: str
    config: str
    objective: str

    def _part(self, module: str, name: str) -> type:
        return getattr(import_module(f"core.systems.{self.folder}.{module}"), name)

    @property
    def network_class(self) -> type:
        return self._part("network", self.network)

    @property
    def config_class(self) -> type:
        return self._part("network", self.config)

    @property
    def objective_class(self) -> type:
        return self._part("objective", self.objective)

    @property
    def settings(self) -> Path:
        """The settings of its shipped training."""
        return Path(__file__).resolve().parent / self.folder / "train.toml"


SYSTEMS = {
    "pmce": Kind("pmce", "Pmce", "PmceConfig", "PmceObjective"),
    "tcmr": Kind("tcmr", "TCMRNet", "TCMRConfig", "TCMRObjective"),
    "lmr": Kind("lmr", "Lmr", "LmrConfig", "LmrObjective"),
    "posture": Kind("posture", "Posture", "PostureConfig", "PostureObjective"),
}


def system_kind(name: str) -> Kind:
    """InputError names the systems there are."""
    if name not in SYSTEMS:
        raise InputError(f"Unknown system {name!r}: use one of {', '.join(SYSTEMS)}")
    return SYSTEMS[name]


def new_system(name: str, config, body: Body) -> nn.Module:
    """An untrained network for a body, which it decimates by itself."""
    return system_kind(name).network_class(config, coarse_body(body, build_coarse(body, COARSE_VERTICES)))


def save_system(path: str | Path, net: nn.Module, *, notes: dict | None = None, half: bool = True) -> None:
    """Write a system's network with its name and configuration; `notes` is JSON-able (metrics)."""
    metadata = {
        "system": net.NAME,
        "config": json.dumps(to_dict(net.config)),
        "notes": json.dumps(notes or {}),
    }
    write_file(path, net.state_dict(), metadata, half=half)


def load_system(path: str | Path, body: Body) -> nn.Module:
    """The network of a file for the body it was trained with, in evaluation mode; SetupError if it does not fit."""
    tensors, metadata = read_file(path)
    name = metadata.get("system")
    if name not in SYSTEMS:
        raise SetupError(f"{path} holds no network of {', '.join(SYSTEMS)}")
    config = from_dict(SYSTEMS[name].config_class, json.loads(metadata["config"]))
    ids, faces = tensors.get("vertex_ids"), tensors.get("coarse_faces")
    if ids is None:  # without a coarse mesh the joints are all that is needed
        ids, faces = torch.zeros(0, dtype=torch.int64), torch.zeros(0, 3, dtype=torch.int32)
    coarse = known_coarse_body(body, ids, faces)
    net = SYSTEMS[name].network_class(config, coarse)
    load_strictly(net, tensors, path)
    return net.eval()


def shipped_path(name: str) -> Path:
    """Where the shipped weights of a system are."""
    return WEIGHTS / f"{name}.safetensors"
