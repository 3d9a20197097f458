"""The two networks on a device, fed with 8-bit images: placement, precision and batching live here."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from core.perception.anchors import Detection, Letterbox, decode_detections, letterbox
from core.perception.blazepose import pack_weights
from core.perception.checkpoint import load_networks
from core.perception.reading import Reading, place_reading, read_images
from core.perception.roi import Roi

MIN_VIEW_ASPECT = 1.25
"""Frames longer than this are searched in square pieces too: people are then larger for the detector."""
MAX_PIECES = 5


class Networks:
    """BlazePose's detector and landmark network, float32 on the CPU, float16 on a GPU."""

    def __init__(
        self, path: str | Path | None = None, *, device: torch.device | str = "cpu", reads_mirrored: bool = False
    ):
        """reads_mirrored: read every crop and its mirror image, for the mean of both; takes nearly twice as long."""
        self.reads_mirrored = reads_mirrored
        self.device = torch.device(device)
        self.dtype = torch.float16 if self.device.type == "cuda" else torch.float32
        detector, landmarks = load_networks(path)
        placement = {"device": self.device, "memory_format": torch.channels_last}
        self.detector = detector.to(dtype=self.dtype, **placement)
        self.landmarks = landmarks.reduce_precision(self.dtype).to(**placement)
        if self.device.type == "cpu":
            pack_weights(self.detector)
            pack_weights(self.landmarks)

    def detect(self, views: list[tuple[np.ndarray, Letterbox]]) -> list[list[Detection]]:
        """Letterboxed BGR squares (anchors.letterbox) -> candidates of each, before suppression."""
        if not views:
            return []
        with torch.inference_mode():
            scores, boxes = self.detector(self._to_input(np.stack([square for square, _ in views])))
        numbers = zip(scores.cpu().numpy(), boxes.cpu().numpy(), views)
        return [decode_detections(score, box, placed) for score, box, (_, placed) in numbers]

    def detect_all(self, views: list[tuple[np.ndarray, Letterbox]]) -> list[Detection]:
        """The candidates of all views of one frame (detector_views), before suppression."""
        return [detection for found in self.detect(views) for detection in found]

    def read(self, crops: np.ndarray, roi: Roi, *, mirrored_under: float = 0.0) -> Reading:
        """crops [B, 256, 256, 3] uint8 BGR taken at roi [B] -> Reading on the CPU, float32.

        mirrored_under: mean confidence of the keypoints under which a crop's mirror image is read as well.
        """
        under = math.inf if self.reads_mirrored else mirrored_under
        with torch.inference_mode():
            reading = read_images(self.landmarks, self._to_input(crops), mirrored_under=under)
            return _to_cpu(place_reading(reading, roi.to(self.device)))

    def _to_input(self, images: np.ndarray) -> Tensor:
        """[B, S, S, 3] uint8 BGR -> [B, 3, S, S] RGB in [0, 1], channels last."""
        rgb = torch.from_numpy(np.ascontiguousarray(images[..., ::-1])).to(self.device, non_blocking=True)
        return rgb.permute(0, 3, 1, 2).to(self.dtype).div_(255)


def _to_cpu(reading: Reading) -> Reading:
    tensors = (reading.keypoints, reading.world, reading.presence, reading.visibility, reading.embedding)
    return Reading(*(t.float().cpu() for t in tensors), reading.roi.to("cpu"), reading.next_roi.to("cpu"))


def detector_regions(width: int, height: int) -> list[tuple[int, int, int, int]]:
    """(x, y, width, height) of what the detector looks at: the frame, and overlapping squares along a long one.

    Very long frames are cut into MAX_PIECES oblong pieces instead.
    """
    side, length = min(height, width), max(height, width)
    regions = [(0, 0, width, height)]
    if length / side >= MIN_VIEW_ASPECT:
        count = min(math.ceil(length / side), MAX_PIECES)
        piece = max(side, math.ceil(length / count))
        for start in np.linspace(0, length - piece, count).round().astype(int).tolist():
            regions.append((start, 0, piece, side) if width > height else (0, start, side, piece))
    return regions


def view_region(image: np.ndarray, region: tuple[int, int, int, int]) -> tuple[np.ndarray, Letterbox]:
    """One region of an image [H, W, 3], letterboxed for the detector; coordinates lead back to the whole image."""
    x, y, width, height = region
    square, placed = letterbox(image[y : y + height, x : x + width])
    return square, Letterbox(placed.scale, (placed.origin[0] + x, placed.origin[1] + y))
