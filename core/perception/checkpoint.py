"""The perception networks' weight file: writing it once, reading it everywhere. Safetensors, float16.

Names are the modules' parameter names behind "landmarks." or "detector.". A weight that is mostly zeros is stored
as "<name>.values" (its non-zero numbers in order) and "<name>.mask" (one bit per number, numpy's packbits).
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import nn

from core.errors import SetupError
from core.perception.blazepose import BlazePoseDetector, BlazePoseLandmarks

DEFAULT_PATH = Path(__file__).resolve().parents[2] / "weights" / "blazepose.safetensors"
ABOUT = "about"
FORMAT = "hyper-mocap blazepose 1"
SOURCE = "BlazePose, Google, Apache-2.0; see weights/README.md"
TUNED = "; the landmark network's later layers were tuned on rendered people (core/train/README.md)"
"""Added to the source where that is so."""


def write_networks(path: str | Path, arrays: dict[str, np.ndarray], sparse: set[str]) -> None:
    """Write float16 arrays by parameter name; those named in `sparse` are stored without their zeros."""
    stored: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        if name in sparse:
            flat = array.reshape(-1)
            stored[name + ".mask"] = np.packbits(flat != 0)
            stored[name + ".values"] = flat[flat != 0]
        else:
            stored[name] = np.ascontiguousarray(array)
    _write(path, stored, SOURCE)


def write_tuned_networks(path: str | Path, tuned: dict[str, np.ndarray], *, start: str | Path | None = None) -> None:
    """Write the file `start` (None = the shipped one) again with some of the landmark network's parameters replaced.

    tuned: float16 by parameter name. All else, the detector too, stays as it is stored. Raises ValueError for
    parameters that the network lacks or that have another shape or type, SetupError as load_networks does.
    """
    stored, source = _read(DEFAULT_PATH if start is None else Path(start))
    shapes = {name: tuple(parameter.shape) for name, parameter in BlazePoseLandmarks().named_parameters()}
    for name, array in tuned.items():
        if shapes.get(name) != array.shape or array.dtype != np.float16:
            raise ValueError(f"{name}: {array.dtype} {array.shape}, the network has {shapes.get(name)} in float16")
        key = "landmarks." + name
        stored.pop(key + ".mask", None)
        stored.pop(key + ".values", None)
        stored[key] = np.ascontiguousarray(array)
    _write(path, stored, source.removesuffix(TUNED) + TUNED)


def _write(path: str | Path, stored: dict[str, np.ndarray], source: str) -> None:
    # One key: the library writes several in random order, and the file is to be the same every time.
    about = {"format": FORMAT, "sha256": digest(stored), "source": source}
    Path(path).write_bytes(save(stored, {ABOUT: json.dumps(about, sort_keys=True)}))


def digest(arrays: dict[str, np.ndarray]) -> str:
    """SHA-256 over the sorted names and bytes."""
    total = hashlib.sha256()
    for name in sorted(arrays):
        total.update(name.encode())
        total.update(np.ascontiguousarray(arrays[name]).tobytes())
    return total.hexdigest()


def load_networks(path: str | Path | None = None) -> tuple[BlazePoseDetector, BlazePoseLandmarks]:
    """Both networks in float32 on the CPU, in evaluation mode. None = the file shipped with the engine.

    Raises SetupError if the file is missing, damaged or not this format.
    """
    path = DEFAULT_PATH if path is None else Path(path)
    stored, _ = _read(path)
    detector, landmarks = BlazePoseDetector(), BlazePoseLandmarks()
    _fill(detector, "detector.", stored, path)
    _fill(landmarks, "landmarks.", stored, path)
    return detector, landmarks


def _read(path: Path) -> tuple[dict[str, np.ndarray], str]:
    """The arrays of a file as they are stored, after checking them, and what it says of its source."""
    if not path.is_file():
        raise SetupError(f"Perception weights are missing: {path}. {_remedy(path)}")
    try:
        with safe_open(path, framework="numpy") as file:
            about = json.loads((file.metadata() or {}).get(ABOUT, "{}"))
            stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, ValueError) as error:
        raise SetupError(f"Perception weights are damaged: {path} ({error}). {_remedy(path)}") from error
    if about.get("format") != FORMAT:
        raise SetupError(f"{path} is not a file of perception weights ({FORMAT!r} expected)")
    if about.get("sha256") != digest(stored):
        raise SetupError(f"Perception weights are damaged: {path} (checksum differs). {_remedy(path)}")
    return stored, about.get("source", SOURCE)


def _remedy(path: Path) -> str:
    return "Reinstall the extension" if path == DEFAULT_PATH else "Choose another file, or make it again"


def _fill(network: nn.Module, prefix: str, stored: dict[str, np.ndarray], path: Path) -> None:
    state = {}
    for name, parameter in network.named_parameters():
        key = prefix + name
        if key in stored:
            array = stored[key]
        elif key + ".mask" in stored:
            mask = np.unpackbits(stored[key + ".mask"], count=parameter.numel()).astype(bool)
            flat = np.zeros(parameter.numel(), np.float16)
            flat[mask] = stored[key + ".values"]
            array = flat.reshape(parameter.shape)
        else:
            raise SetupError(f"Perception weights lack {key}: {path}. {_remedy(path)}")
        state[name] = torch.from_numpy(array.astype(np.float32))
    network.load_state_dict(state, strict=True)
    network.eval().requires_grad_(False)
