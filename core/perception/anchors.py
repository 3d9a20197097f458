"""Decoding of the person detector: anchors, boxes, weighted non-maximum suppression, letterboxing.

The layout of the 2,254 anchors and all thresholds are MediaPipe's (pose_detection_cpu graph, Apache-2.0). A
detection is a face box and four points: hip centre, full-body scale point, shoulder centre, upper-body scale point.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from core.perception.blazepose import ANCHOR_COUNT, DETECTOR_SIZE

ANCHORS_PER_CELL = ((8, 2), (16, 2), (32, 6))
"""(stride, anchors in each cell) by head, in output order."""
MIN_SCORE = 0.5
MIN_OVERLAP = 0.3
SCORE_CLIP = 100.0


@dataclass(frozen=True)
class Detection:
    """One person as the detector sees them."""

    score: float
    box: np.ndarray
    """[4] x0 y0 x1 y1 px of the face."""
    points: np.ndarray
    """[4, 2] px: hip centre, full-body scale point, shoulder centre, upper-body scale point."""


@dataclass(frozen=True)
class Letterbox:
    """How an image region was fitted into the detector's square: image px = detector px / scale + origin."""

    scale: float
    origin: tuple[float, float]


def anchor_centers() -> np.ndarray:
    """[2254, 2] x, y in detector px, in the order of the network's outputs."""
    centers = []
    for stride, count in ANCHORS_PER_CELL:
        steps = (np.arange(DETECTOR_SIZE // stride) + 0.5) * stride
        x, y = np.meshgrid(steps, steps)
        centers.append(np.repeat(np.stack((x, y), -1).reshape(-1, 2), count, axis=0))
    all_centers = np.concatenate(centers)
    assert len(all_centers) == ANCHOR_COUNT
    return all_centers


ANCHOR_CENTERS = anchor_centers()


def letterbox(image: np.ndarray) -> tuple[np.ndarray, Letterbox]:
    """image [H, W, 3] uint8 -> ([224, 224, 3] uint8 with black bars, where it went). Keeps the aspect ratio."""
    height, width = image.shape[:2]
    scale = DETECTOR_SIZE / max(height, width)
    fitted = (max(1, round(width * scale)), max(1, round(height * scale)))
    left, top = (DETECTOR_SIZE - fitted[0]) // 2, (DETECTOR_SIZE - fitted[1]) // 2
    square = np.zeros((DETECTOR_SIZE, DETECTOR_SIZE, 3), np.uint8)
    if scale < 0.5:  # four samples for each pixel: nearly as smooth as averaging all, and ten times as fast
        image = cv2.resize(image, (2 * fitted[0], 2 * fitted[1]), interpolation=cv2.INTER_LINEAR)
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    square[top : top + fitted[1], left : left + fitted[0]] = cv2.resize(image, fitted, interpolation=interpolation)
    return square, Letterbox(scale, (-left / scale, -top / scale))


def decode_detections(scores: np.ndarray, boxes: np.ndarray, placed: Letterbox) -> list[Detection]:
    """One image's score logits [2254] and boxes [2254, 12] -> candidate detections in image px, best first."""
    probabilities = 1 / (1 + np.exp(-np.clip(scores.astype(np.float64), -SCORE_CLIP, SCORE_CLIP)))
    found = np.flatnonzero(probabilities >= MIN_SCORE)
    found = found[np.argsort(-probabilities[found], kind="stable")]
    detections = []
    for index in found:
        values = boxes[index].astype(np.float64).reshape(6, 2)  # centre, size, four points
        centre, size, points = values[0], values[1], values[2:]
        corners = np.stack((centre - size / 2, centre + size / 2))
        placed_points = (np.concatenate((corners, points)) + ANCHOR_CENTERS[index]) / placed.scale + placed.origin
        detections.append(Detection(float(probabilities[index]), placed_points[:2].reshape(4), placed_points[2:]))
    return detections


def suppress_overlaps(detections: list[Detection], *, min_overlap: float = MIN_OVERLAP) -> list[Detection]:
    """Weighted non-maximum suppression: each group of overlapping boxes becomes its score-weighted mean.

    Best first; the group keeps its best score, as MediaPipe's WEIGHTED algorithm does.
    """
    rest = sorted(detections, key=lambda detection: -detection.score)
    merged = []
    while rest:
        overlaps = box_overlaps(rest[0].box, np.stack([detection.box for detection in rest]))
        is_near = overlaps > min_overlap
        is_near[0] = True
        group = [detection for detection, near in zip(rest, is_near) if near]
        rest = [detection for detection, near in zip(rest, is_near) if not near]
        weights = np.array([detection.score for detection in group])
        weights /= weights.sum()
        box = weights @ np.stack([detection.box for detection in group])
        points = np.tensordot(weights, np.stack([detection.points for detection in group]), 1)
        merged.append(Detection(group[0].score, box, points))
    return merged


def box_overlaps(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Intersection over union of a box [4] x0 y0 x1 y1 with each of boxes [N, 4]; 0 where both are empty."""
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    common = np.prod(np.clip(high - low, 0, None), axis=-1)
    union = np.prod(box[2:] - box[:2]) + np.prod(boxes[:, 2:] - boxes[:, :2], axis=-1) - common
    return np.where(union > 0, common / np.where(union > 0, union, 1), 0.0)
