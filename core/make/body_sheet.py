"""Contact sheet of a body for looking at: `python -m core.make.body_sheet OUT.png [--body FILE]`.

Rows: the rest pose from four sides; the first shape components and the lengths at -3, -2, 2 and 3 deviations; strong
poses from two sides; close views of hands, feet, shoulders and hips in those poses.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch

from core.body import Body, load_body
from core.make.sheet_poses import POSES
from core.raster import View, render_mesh
from core.rotation import axis_angle_to_matrix
from core.skeleton import JOINT_COUNT, JOINT_NAMES, LENGTHS, PRINCIPAL_COUNT, SHAPE_COUNT

CELL = (420, 520)
CLOSE_UPS: tuple[tuple[str, str, str, float, float, float], ...] = (
    # pose, name of the joint in the middle, title, yaw, pitch, height in metres
    ("rest", "left_hand", "hand from above", 0, 90, 0.32),
    ("rest", "left_hand", "palm", 0, -90, 0.32),
    ("rest", "left_foot", "feet from the right", -90, 15, 0.38),
    ("rest", "left_foot", "feet from the left", 90, 15, 0.38),
    ("arms up", "left_shoulder", "shoulder, arms up", 20, 0, 0.7),
    ("arms down", "left_shoulder", "shoulder, arms down", 0, 0, 0.7),
    ("arms down", "left_shoulder", "the same from behind", 180, 0, 0.7),
    ("arms crossed", "left_shoulder", "shoulder, arm across", -20, 10, 0.7),
    ("deep squat", "left_hip", "hip, squat, outer side", 90, 0, 0.8),
    ("deep squat", "pelvis", "crotch, squat", 0, -20, 0.8),
    ("kick", "left_hip", "hip, kick", 60, 0, 0.8),
    ("kick", "pelvis", "buttocks, kick", 150, -20, 0.8),
    ("elbows bent", "left_elbow", "elbow 140 degrees", 0, 70, 0.5),
    ("elbows bent", "left_elbow", "elbow, front", 0, 0, 0.5),
    ("wrists", "left_wrist", "wrist bent", 0, 0, 0.4),
    ("wrists", "right_wrist", "wrist twisted", 0, 45, 0.4),
    ("deep squat", "left_knee", "knee 130 degrees", 90, 0, 0.6),
    ("tiptoe", "left_foot", "toes", 90, 0, 0.4),
    ("twisted", "spine2", "waist twisted", 20, 0, 0.8),
    ("head turned", "neck", "neck", 0, 0, 0.5),
)


def pose_matrices(name: str) -> torch.Tensor:
    """Local rotations [24, 3, 3] of one of sheet_poses.POSES."""
    vectors = torch.zeros(JOINT_COUNT, 3)
    for joint, turns in POSES[name].items():
        vectors[JOINT_NAMES.index(joint)] = torch.deg2rad(torch.tensor(turns, dtype=torch.float32))
    return axis_angle_to_matrix(vectors)


def draw_sheet(body: Body) -> np.ndarray:
    """The sheet as a BGR image."""
    faces = body.quads.numpy()
    zero = torch.zeros(SHAPE_COUNT)
    columns = 4

    def cell(vertices, view: View, title: str) -> np.ndarray:
        image = render_mesh(vertices, faces, size=CELL, view=view)
        cv2.putText(image, title, (8, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (60, 60, 60), 1, cv2.LINE_AA)
        return image

    cells = []
    rest = body.rest_vertices(zero).numpy()
    for yaw, pitch, title in ((0, 0, "front"), (90, 0, "side"), (180, 0, "back"), (0, 90, "above")):
        cells.append(cell(rest, View(yaw, pitch, center=_middle(rest), height=2.3), title))
    for component in (*range(4), *range(PRINCIPAL_COUNT, SHAPE_COUNT)):
        for sigma in (-3, -2, 2, 3):
            betas = zero.clone()
            betas[component] = sigma
            shaped = body.rest_vertices(betas).numpy()
            part = LENGTHS[component - PRINCIPAL_COUNT] if component >= PRINCIPAL_COUNT else f"shape {component + 1}"
            title = f"{part}: {sigma:+d} sigma, {np.ptp(shaped[:, 1]):.2f} m"
            cells.append(cell(shaped, View(15, 0, center=_middle(shaped), height=2.3), title))
    for name in POSES:
        if name == "rest":
            continue
        posed, _ = body.skin(pose_matrices(name), zero, torch.zeros(3))
        posed = posed.numpy()
        for yaw in (20, 110):
            cells.append(cell(posed, View(yaw, 5, center=_middle(posed), height=2.3), f"{name}, {yaw} degrees"))
    for name, joint, title, yaw, pitch, height in CLOSE_UPS:
        posed, joints = body.skin(pose_matrices(name), zero, torch.zeros(3))
        center = tuple(float(x) for x in joints[JOINT_NAMES.index(joint)])
        cells.append(cell(posed.numpy(), View(yaw, pitch, center=center, height=height), title))
    while len(cells) % columns:
        cells.append(np.full_like(cells[0], 255))
    return np.vstack([np.hstack(cells[i : i + columns]) for i in range(0, len(cells), columns)])


def _middle(vertices: np.ndarray) -> tuple[float, float, float]:
    low, high = vertices.min(0), vertices.max(0)
    return tuple(float(x) for x in (low + high) / 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--body", type=Path, default=None)
    arguments = parser.parse_args()
    cv2.imwrite(str(arguments.out), draw_sheet(load_body(arguments.body)))


if __name__ == "__main__":
    main()
