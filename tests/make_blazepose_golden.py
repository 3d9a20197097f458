"""Make tests/data/blazepose_golden.npz: crops of real frames, and what the TFLite interpreter says of them.

The shipped landmark network has Google's architecture and weights tuned from Google's (weights/README.md): before it
is asked, the interpreter's model gets the shipped weights in place of its own.

    PYTHONPATH=. python tests/make_blazepose_golden.py MODELS VIDEO

Needs ai-edge-litert beside the engine's packages. MODELS: a folder with MediaPipe 0.10.21's pose_detection.tflite and
pose_landmark_full.tflite below it. VIDEO: two_people_sports2d_demo.mp4 of Sports2D (BSD-3-Clause, David Pagnon).
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from ai_edge_litert.interpreter import Interpreter

from core.make.perception import landmark_names
from core.make.tflite import read_convolutions
from core.perception.anchors import letterbox
from core.perception.checkpoint import load_networks
from core.perception.roi import Roi, crop_numpy
from core.video import VideoReader

OUT = Path(__file__).parent / "data" / "blazepose_golden.npz"
EMBEDDING_TENSOR = 335
"""Index of the 2 x 2 x 288 tensor before the heads in pose_landmark_full.tflite."""
CROPS = ((60, 640.0, 260.0, 534.0, 0.0), (110, 1040.0, 680.0, 600.0, 0.1), (182, 930.0, 380.0, 450.0, -0.6))
"""(frame, centre x, centre y, side, angle): a man from the front, a woman from the side, a somersault."""


def with_shipped_weights(model: bytes) -> bytes:
    """The TFLite file of the landmark network with the shipped weights in place of its own."""
    patched = bytearray(model)
    state = load_networks()[1].state_dict()
    for convolution, name in zip(read_convolutions(patched), landmark_names(), strict=True):
        if name is None:
            continue
        axes = (1, 2, 3, 0) if convolution.is_depthwise else (0, 2, 3, 1)
        convolution.weight[...] = state[name + ".weight"].numpy().transpose(axes)  # a view into the bytes
        convolution.bias[...] = state[name + ".bias"].numpy()
    return bytes(patched)


def run_interpreter(model: bytes, image: np.ndarray, tensors: tuple[int, ...] = ()) -> dict[str, np.ndarray]:
    """image [1, S, S, 3] float32 -> outputs by name, inner tensors by number."""
    interpreter = Interpreter(model_content=model, num_threads=1, experimental_preserve_all_tensors=bool(tensors))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
    interpreter.invoke()
    found = {detail["name"]: interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()}
    return found | {str(index): interpreter.get_tensor(index) for index in tensors}


def decode_rgb(png: np.ndarray) -> np.ndarray:
    """PNG bytes -> [1, S, S, 3] float32 RGB in 0..1."""
    return cv2.imdecode(png, cv2.IMREAD_COLOR)[None, ..., ::-1].astype(np.float32) / 255


def main() -> None:
    models, video = Path(sys.argv[1]), Path(sys.argv[2])
    landmark_model = with_shipped_weights(next(models.rglob("pose_landmark_full.tflite")).read_bytes())
    detection_model = next(models.rglob("pose_detection.tflite")).read_bytes()
    frames = {frame.index: frame.image for frame in VideoReader(video) if frame.index in {crop[0] for crop in CROPS}}
    kept: dict[str, np.ndarray] = {}
    for k, (index, x, y, side, angle) in enumerate(CROPS):
        roi = Roi(torch.tensor([x, y]), torch.tensor(side), torch.tensor(angle))
        png = cv2.imencode(".png", crop_numpy(frames[index], roi))[1]
        found = run_interpreter(landmark_model, decode_rgb(png), (EMBEDDING_TENSOR,))
        kept |= {f"crop{k}_png": png, f"crop{k}_landmarks": found["Identity"], f"crop{k}_world": found["Identity_4"]}
        kept |= {f"crop{k}_presence": found["Identity_1"], f"crop{k}_embedding": found[str(EMBEDDING_TENSOR)]}
        # Every second row and column as float16: precise to 5e-4, and small.
        kept[f"crop{k}_heatmaps"] = found["Identity_3"][:, ::2, ::2].astype(np.float16)
    square, _ = letterbox(frames[CROPS[0][0]])
    png = cv2.imencode(".png", square)[1]
    found = run_interpreter(detection_model, decode_rgb(png) * 2 - 1)
    kept |= {
        "frame_png": png,
        "frame_scores": found["Identity_1"],
        "frame_boxes": found["Identity"].astype(np.float16),
    }
    np.savez_compressed(OUT, **kept)


if __name__ == "__main__":
    main()
