"""Errors by joint, and by what a frame was like: view, pitch, focal length, occlusion, speed, stature, build, how
well the detector saw, size in the picture.

Frames are put into bins by their truth (truth.py), whichever clip they are of; a bin's number is the mean over its
frames. README.md lists the columns. N frames of a clip, F frames in all, J = 24 joints.
"""

from __future__ import annotations

import numpy as np
import torch

from core.errors import InputError
from core.evaluate.measure import LIMB_KEYPOINTS, about_hips, detector_keypoints
from core.evaluate.metrics import MM, mean_point_error, procrustes_error, root_aligned
from core.evaluate.testset import TestClip
from core.evaluate.truth import frame_conditions, true_keypoints
from core.records import CameraMotion
from core.skeleton import JOINT_COUNT, JOINT_NAMES, KEYPOINT_NAMES

BINS: dict[str, tuple[tuple[float, ...], str, float]] = {
    "view": ((45, 135), "", 1),
    "pitch": ((-10, 10, 25), "deg", 1),
    "focal": ((28, 40, 60, 100), "mm", 1),
    "occlusion": ((0.05, 0.15, 0.3, 0.5), "%", 100),
    "speed": ((0.1, 0.25, 0.5, 1.0), "m/s", 1),
    "shape": ((1.55, 1.65, 1.75, 1.85), "m", 1),
    "build": ((0.5, 0.7, 0.9), "", 1),
    "keypoint_error": ((0.01, 0.02, 0.04, 0.08), "%", 100),
    "size": ((100, 200, 400, 800), "px", 1),
}
"""Condition -> (edges between the bins, unit, what to show an edge times)."""
NAMED_BINS = {"view": ("front", "side", "back")}
UNKNOWN = "unknown"
DOMAIN = "domain"
"""No bins of frames: rendered clips beside films (domain.py)."""
CHOICES = ("joint", *(name for name in BINS if name != "pitch"), DOMAIN)
"""What can be asked for; "view" gives the pitch too."""
_DETECTOR = "detector"


def choose_breakdowns(text: str) -> tuple[str, ...]:
    """Comma-separated names of CHOICES. InputError where one is not."""
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    for name in names:
        if name not in CHOICES:
            raise InputError(f"Unknown breakdown {name!r}: use {', '.join(CHOICES)}")
    return names


def bin_labels(name: str) -> tuple[str, ...]:
    """What the bins of a condition are called, in order."""
    if name in NAMED_BINS:
        return NAMED_BINS[name]
    edges, unit, factor = BINS[name]
    shown = [f"{edge * factor:g}" for edge in edges]
    unit = f" {unit}" if unit else ""
    inner = [f"{a} to {b}{unit}" for a, b in zip(shown, shown[1:])]
    return (f"under {shown[0]}{unit}", *inner, f"{shown[-1]}{unit} and over")


class Breakdown:
    """Collects errors frame by frame: hand `add` to `evaluate`, then ask for `tables`."""

    def __init__(self, body, by: tuple[str, ...]) -> None:
        self.body, self.by = body, by
        self._lengths: list[int] = []
        self._conditions: list[dict[str, np.ndarray]] = []
        self._errors: dict[str, dict[int, dict[str, np.ndarray]]] = {_DETECTOR: {}}
        """Method -> clip -> "joints" [N, J], "mpjpe" [N], "pa" [N], "limbs" [N], "limbs pa" [N], mm."""

    def add(self, clip: TestClip, motions: dict[str, CameraMotion]) -> None:
        """One clip and what the methods made of it; frames that a method left out do not count for it."""
        index = len(self._lengths)
        self._lengths.append(len(clip.track))
        self._conditions.append(frame_conditions(clip, self.body))
        self._errors[_DETECTOR][index] = detector_frame_errors(clip, self.body)
        for name, motion in motions.items():
            self._errors.setdefault(name, {})[index] = motion_frame_errors(motion, clip, self.body)

    def tables(self) -> dict[str, dict[str, dict[str, float]]]:
        """Title -> bin (or joint) -> column -> number."""
        tables = {}
        for name in self.by:
            if name == DOMAIN:
                continue
            if name == "joint":
                tables["by joint"] = self._joint_table()
                continue
            for condition in (name, "pitch") if name == "view" else (name,):
                tables[f"by {condition.replace('_', ' ')}"] = self._binned_table(condition)
        return tables

    def _binned_table(self, condition: str) -> dict[str, dict[str, float]]:
        values = np.concatenate([c[condition] for c in self._conditions] or [np.zeros(0)])
        labels = bin_labels(condition)
        place = np.where(np.isnan(values), len(labels), np.searchsorted(BINS[condition][0], values, side="right"))
        columns = {
            f"{name} {what}".removesuffix(" mpjpe"): self._gather(name, what)
            for name in self._errors
            for what in (("limbs", "limbs pa") if name == _DETECTOR else ("mpjpe", "pa", "limbs"))
        }
        table = {}
        for k, label in enumerate((*labels, UNKNOWN)):
            if (place == k).any():
                table[label] = {"frames": int((place == k).sum())}
                table[label] |= {name: _mean(errors[place == k]) for name, errors in columns.items()}
        return table

    def _joint_table(self) -> dict[str, dict[str, float]]:
        table = {}
        errors = {name: self._gather(name, "joints") for name in self._errors}
        for j, joint in enumerate(JOINT_NAMES):
            table[joint] = {name: _mean(values[:, j]) for name, values in errors.items()}
        return table

    def _gather(self, name: str, what: str) -> np.ndarray:
        """[F] or [F, J] over all clips, nan where the method gave nothing."""
        parts = []
        for index, length in enumerate(self._lengths):
            part = np.full((length, JOINT_COUNT) if what == "joints" else length, np.nan)
            found = self._errors[name].get(index)
            if found is not None:
                part[: len(found[what])] = found[what]
            parts.append(part)
        return np.concatenate(parts or [np.zeros((0, JOINT_COUNT) if what == "joints" else 0)])


def motion_frame_errors(motion: CameraMotion, clip: TestClip, body) -> dict[str, np.ndarray]:
    """Errors of each frame, mm; see `Breakdown`."""
    n = len(motion.frames)
    rotmats, betas, trans = (torch.from_numpy(a) for a in (motion.rotmats, motion.betas, motion.trans))
    with torch.no_grad():
        joints, _ = body.forward_kinematics(rotmats, betas, trans)
        true_joints, _ = body.forward_kinematics(clip.rotmats[:n], clip.betas, clip.trans[:n])
        keypoints = body.keypoints(rotmats, betas, trans)
    joints, true_joints = root_aligned(joints), root_aligned(true_joints)
    return {
        "joints": ((joints - true_joints).norm(dim=-1) * MM).numpy(),
        "mpjpe": mean_point_error(joints, true_joints).numpy(),
        "pa": procrustes_error(joints, true_joints).numpy(),
        **_limb_errors(keypoints, torch.from_numpy(true_keypoints(clip, body)[:n]).float()),
    }


def detector_frame_errors(clip: TestClip, body) -> dict[str, np.ndarray]:
    """The same of the detector's world landmarks; nan in frames where nobody was seen. Its "joints" are the limb
    keypoints of the same name, about the middle of the hips."""
    keypoints, truth = (
        detector_keypoints(clip.track, clip.camera),
        torch.from_numpy(true_keypoints(clip, body)).float(),
    )
    errors = _limb_errors(keypoints, truth)
    each = ((about_hips(keypoints) - about_hips(truth)).norm(dim=-1) * MM).numpy()
    joints = np.full((len(each), JOINT_COUNT), np.nan)
    for k, keypoint in enumerate(LIMB_KEYPOINTS):
        joints[:, JOINT_NAMES.index(KEYPOINT_NAMES[keypoint])] = each[:, k]
    unseen = clip.track.confidence == 0
    for values in (errors["limbs"], errors["limbs pa"], joints):
        values[unseen] = np.nan
    return errors | {"joints": joints}


def _limb_errors(keypoints: torch.Tensor, truth: torch.Tensor) -> dict[str, np.ndarray]:
    p, t = about_hips(keypoints), about_hips(truth)
    return {"limbs": mean_point_error(p, t).numpy(), "limbs pa": procrustes_error(p, t).numpy()}


def _mean(values: np.ndarray) -> float:
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else float("nan")
