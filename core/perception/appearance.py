"""What a person looks like, as a few colours: enough to tell two people apart after they crossed.

The network's own embedding describes the pose rather than the person, so identity is judged by the colours of the
clothes: means at points along the torso, thighs and upper arms, in CIE Lab.
"""

from __future__ import annotations

import cv2
import numpy as np

from core.skeleton import KEYPOINT_NAMES

_PATCHES = (
    ("left_shoulder", "right_hip", 0.25),
    ("right_shoulder", "left_hip", 0.25),
    ("left_shoulder", "right_hip", 0.5),
    ("left_shoulder", "left_hip", 0.7),
    ("right_shoulder", "right_hip", 0.7),
    ("left_hip", "left_knee", 0.35),
    ("right_hip", "right_knee", 0.35),
    ("left_hip", "left_knee", 0.75),
    ("right_hip", "right_knee", 0.75),
    ("left_knee", "left_ankle", 0.4),
    ("right_knee", "right_ankle", 0.4),
)
"""(from, to, fraction of the way) of the places whose colour is taken."""
_FROM = np.array([KEYPOINT_NAMES.index(name) for name, _, _ in _PATCHES])
_TO = np.array([KEYPOINT_NAMES.index(name) for _, name, _ in _PATCHES])
_FRACTION = np.array([[fraction] for _, _, fraction in _PATCHES])
PATCH_COUNT = len(_PATCHES)
MIN_CONFIDENCE = 0.3
_CELL = 16
"""Crop pixels averaged to one colour, on each side."""


def describe_appearance(crop: np.ndarray, points: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """crop [S, S, 3] uint8 BGR, keypoints [25, 2] in crop px, confidence [25] -> [P, 3] Lab; NaN where not seen."""
    cells = crop.shape[0] // _CELL
    small = cv2.resize(crop, (cells, cells), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    lab = cv2.cvtColor(small, cv2.COLOR_BGR2LAB)
    places = points[_FROM] * (1 - _FRACTION) + points[_TO] * _FRACTION
    column, row = np.floor(places / _CELL).astype(int).T
    seen = (np.minimum(confidence[_FROM], confidence[_TO]) >= MIN_CONFIDENCE) & (column >= 0) & (column < cells)
    seen &= (row >= 0) & (row < cells)
    colours = lab[np.clip(row, 0, cells - 1), np.clip(column, 0, cells - 1)]
    return np.where(seen[:, None], colours, np.nan).astype(np.float32)


def blend_appearance(old: np.ndarray, new: np.ndarray, rate: float) -> np.ndarray:
    """Running mean that ignores what is not seen."""
    blended = old + rate * (new - old)
    return np.where(np.isnan(new), old, np.where(np.isnan(old), new, blended))


def appearance_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Median colour difference (CIE76, about 2 is just visible, 50 is red against blue) over what both show.

    Infinity-free: with fewer than 3 common places the answer is NaN, meaning that colours cannot tell.
    """
    difference = np.linalg.norm(a - b, axis=-1)
    known = difference[~np.isnan(difference)]
    return float(np.median(known)) if len(known) >= 3 else float("nan")
