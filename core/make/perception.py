"""Convert BlazePose from MediaPipe's TFLite files to weights/blazepose.safetensors. Run once, by build.py.

    python -m core.make.perception --out weights/blazepose.safetensors [--source SOURCE]

SOURCE is a mediapipe wheel, a folder that holds the .tflite files anywhere below it, or nothing: then the
installed package mediapipe is searched (it is not imported). Numbers are copied bit for bit (the files hold
float16); only the axes' order and the names change. The segmentation branch is left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from core.make.tflite import Convolution, read_convolutions
from core.perception.blazepose import (
    DETECTOR_BACKBONE,
    LANDMARK_BACKBONE,
    BlazePoseDetector,
    BlazePoseLandmarks,
    Bottleneck,
)
from core.perception.checkpoint import write_networks

LANDMARK_FILE = "pose_landmark_full.tflite"
DETECTOR_FILE = "pose_detection.tflite"
SEGMENTATION_AT_128 = 2
SEGMENTATION_DECODER = 11
"""Convolutions of the segmentation branch, in graph order, that are not kept."""

log = logging.getLogger(__name__)


def landmark_names() -> list[str | None]:
    """Module name of each convolution of the landmark graph in its order; None = not kept."""
    laterals = {f"at{size}": [f"lateral{size}.spatial", f"lateral{size}.mix"] for size in (64, 32, 16)}
    laterals["at128"] = [None] * SEGMENTATION_AT_128
    names = list(_backbone_names(LANDMARK_BACKBONE, laterals))
    names += ["lateral8.spatial", "lateral8.mix"]
    names += [None] * SEGMENTATION_DECODER
    names += ["heatmap_head", "neck.spatial", "neck.mix"]
    names += [f"regressor.{k}.{part}" for k in range(11) for part in ("spatial", "mix")]
    return names + ["landmark_head", "world_head", "presence_head"]


def detector_names() -> list[str | None]:
    """Module name of each convolution of the detector graph in its order."""
    laterals = {f"at{size}": [f"lateral{size}.spatial", f"lateral{size}.mix"] for size in (28, 14)}
    names = list(_backbone_names(DETECTOR_BACKBONE, laterals))
    for size in (14, 28):
        names.append(f"top_down{size}")
        names += [f"refine{size}.{k}.{part}" for k in range(2) for part in ("spatial", "mix")]
    for stride in (8, 16, 32):
        names += [f"head{stride}.{part}" for part in ("score_spatial", "score", "box_spatial", "box")]
    return names


def _backbone_names(blocks: tuple[Bottleneck, ...], laterals: dict[str, list[str | None]]) -> Iterator[str | None]:
    """The graphs list a skip's own convolutions right after the expansion of the block that starts there."""
    yield from ("backbone.stem", "backbone.stem_spatial", "backbone.stem_project")
    for k, block in enumerate(blocks):
        yield f"backbone.blocks.{k}.expand"
        yield from laterals.get(block.skip, ())
        yield f"backbone.blocks.{k}.spatial"
        yield f"backbone.blocks.{k}.project"
    yield from ("backbone.expand", "backbone.spatial")


def name_convolutions(
    convolutions: list[Convolution], names: list[str | None], shapes: dict[str, tuple[int, ...]]
) -> tuple[dict[str, np.ndarray], set[str]]:
    """Pair graph and module order -> (float16 arrays by parameter name, names stored sparse). Shapes must agree."""
    if len(convolutions) != len(names):
        raise ValueError(f"the graph has {len(convolutions)} convolutions, expected {len(names)}: another version?")
    arrays, sparse = {}, set()
    for convolution, name in zip(convolutions, names):
        if name is None:
            continue
        axes = (3, 0, 1, 2) if convolution.is_depthwise else (0, 3, 1, 2)  # -> [out, in / groups, height, width]
        arrays[name + ".weight"] = convolution.weight.transpose(axes)
        arrays[name + ".bias"] = convolution.bias
        if convolution.is_sparse:
            sparse.add(name + ".weight")
    for name, array in arrays.items():
        if shapes.get(name) != array.shape or array.dtype != np.float16:
            raise ValueError(f"{name}: {array.dtype} {array.shape} in the graph, {shapes.get(name)} in the module")
    if missing := shapes.keys() - arrays.keys():
        raise ValueError(f"the graph lacks {', '.join(sorted(missing))}")
    return arrays, sparse


def read_source(source: Path | None, name: str) -> bytes:
    """The bytes of one .tflite file in a wheel, in a folder, or in the installed mediapipe."""
    if source is None:
        spec = importlib.util.find_spec("mediapipe")
        if spec is None or spec.origin is None:
            raise FileNotFoundError("mediapipe is not installed here: give its wheel or folder with --source")
        source = Path(spec.origin).parent
    if source.is_file():
        with zipfile.ZipFile(source) as wheel:
            members = [member for member in wheel.namelist() if Path(member).name == name]
            if members:
                return wheel.read(members[0])
    found = sorted(source.rglob(name)) if source.is_dir() else []
    if not found:
        raise FileNotFoundError(f"{name} is not in {source}")
    return found[0].read_bytes()


def convert(source: Path | None, out: Path) -> None:
    """Read both graphs from `source`, write `out`."""
    arrays, sparse = {}, set()
    for prefix, file, names, network in (
        ("landmarks.", LANDMARK_FILE, landmark_names(), BlazePoseLandmarks()),
        ("detector.", DETECTOR_FILE, detector_names(), BlazePoseDetector()),
    ):
        shapes = {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}
        named, thin = name_convolutions(read_convolutions(read_source(source, file)), names, shapes)
        arrays |= {prefix + name: array for name, array in named.items()}
        sparse |= {prefix + name for name in thin}
    out.parent.mkdir(parents=True, exist_ok=True)
    write_networks(out, arrays, sparse)
    log.info("wrote %s: %d arrays, %.1f MB", out, len(arrays), out.stat().st_size / 1e6)


def main() -> None:
    parser = argparse.ArgumentParser(description="Convert BlazePose from TFLite to safetensors")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--source", type=Path, help="mediapipe wheel or folder (default: the installed package)")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    convert(options.source, options.out)


if __name__ == "__main__":
    main()
