"""Network files: safetensors with the config, the joint and keypoint names and a checksum in the header.

A file holds a whole `HyperbolicNet`, or only its lifter. Loading is strict and reads no code.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from core.atomic import AtomicFile
from core.body import Body
from core.errors import SetupError
from core.models.coarse_body import known_coarse_body
from core.models.config import HyperbolicConfig, from_dict, to_dict
from core.models.hyperbolic import HyperbolicNet
from core.skeleton import JOINT_NAMES, KEYPOINT_NAMES

FORMAT = "hyper-mocap-network-2"
"""1 had no faces of the coarse mesh."""
REMEDY = "install Hyper Mocap again, or write the file again if it is your own"


def _digest(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].reshape(-1).contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def write_file(path: str | Path, tensors: dict[str, Tensor], metadata: dict[str, str], *, half: bool = True) -> None:
    """Write the tensors of a network, in float16 if `half`; the file appears whole or not at all."""
    kept = {k: v.detach().cpu() for k, v in tensors.items()}
    kept = {k: (v.half() if half and v.is_floating_point() else v).contiguous() for k, v in kept.items()}
    metadata = metadata | {
        "format": FORMAT,
        "joints": ",".join(JOINT_NAMES),
        "keypoints": ",".join(KEYPOINT_NAMES),
        "sha256": _digest(kept),
    }
    with AtomicFile(path) as file:
        file.write(save(kept, metadata=metadata))


def read_file(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors, numbers as float32, and metadata of a network file; SetupError where it is not intact."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (OSError, SafetensorError) as error:
        raise SetupError(f"{path} is not a readable network file: {error}; {REMEDY}") from error
    if metadata.get("format") != FORMAT:
        raise SetupError(f"{path} is not a network of this version (expected {FORMAT}); {REMEDY}")
    if metadata["joints"] != ",".join(JOINT_NAMES) or metadata["keypoints"] != ",".join(KEYPOINT_NAMES):
        raise SetupError(f"{path} was trained for other joints or keypoints")
    if metadata["sha256"] != _digest(tensors):
        raise SetupError(f"{path} is damaged: its checksum does not match; {REMEDY}")
    return {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}, metadata


def save_network(
    path: str | Path,
    tensors: dict[str, Tensor],
    config: HyperbolicConfig,
    *,
    stage: str,
    notes: dict | None = None,
    half: bool = True,
) -> None:
    """Write a state dict of `HyperbolicNet`; stage "lift" keeps the lifter alone. `notes` is JSON-able (metrics)."""
    kept = {k: v for k, v in tensors.items() if stage != "lift" or k.startswith("lifter.")}
    metadata = {"stage": stage, "config": json.dumps(to_dict(config)), "notes": json.dumps(notes or {})}
    write_file(path, kept, metadata, half=half)


def read_network(path: str | Path) -> tuple[dict[str, Tensor], HyperbolicConfig, dict]:
    """Tensors as float32, config and metadata ("stage", "notes") of a file; SetupError where it is not intact."""
    tensors, metadata = read_file(path)
    if "stage" not in metadata:
        raise SetupError(f"{path} holds a network of the system {metadata.get('system')!r}, not the hyperbolic one")
    config = from_dict(HyperbolicConfig, json.loads(metadata["config"]))
    return tensors, config, {"stage": metadata["stage"], "notes": json.loads(metadata["notes"])}


def load_network(path: str | Path, body: Body) -> HyperbolicNet:
    """The whole network of a file for the body it was trained with, in evaluation mode."""
    tensors, config, info = read_network(path)
    if info["stage"] == "lift":
        raise SetupError(f"{path} holds a lifter only; a mesh network is needed")
    if len(tensors["upsample.indices"]) != body.vertex_count:
        raise SetupError(
            f"{path} was trained with a body of {len(tensors['upsample.indices'])} vertices, this one has "
            f"{body.vertex_count}"
        )
    net = HyperbolicNet(config, known_coarse_body(body, tensors["vertex_ids"], tensors["coarse_faces"]))
    load_strictly(net, tensors, path)
    return net.eval()


def load_strictly(module: torch.nn.Module, tensors: dict[str, Tensor], path: str | Path) -> None:
    """Load a state dict with nothing missing or left over; SetupError says what does not fit."""
    try:
        module.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        reason = str(error).replace("\n", " ")[:300]
        raise SetupError(f"{path} does not fit this network or body: {reason}") from error
