"""Calibrated cameras around a scene, read from the files that calibration tools write.

Anipose and Pose2Sim: a .toml with one table a camera (name, size, matrix, distortions, rotation as a rotation vector
and translation from world to camera, metres). Qualisys: a .qca.txt of XML whose intrinsics count 64ths of a pixel and
whose cameras look along -z, with the place of each camera in mm.
"""

from __future__ import annotations

import tomllib
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from core.errors import InputError

QUALISYS_UNIT = 64


@dataclass(frozen=True)
class RigCamera:
    """x_camera = R @ x_world + t; camera axes x right, y down, z forward, metres."""

    name: str
    matrix: np.ndarray
    """[3, 3] px."""
    distortion: np.ndarray
    """[4] k1 k2 p1 p2, OpenCV's."""
    R: np.ndarray
    """[3, 3]."""
    t: np.ndarray
    """[3] m."""

    @property
    def projection(self) -> np.ndarray:
        """[3, 4] from world to undistorted px."""
        return self.matrix @ np.hstack([self.R, self.t[:, None]])

    def undistort(self, points: np.ndarray) -> np.ndarray:
        """px [..., 2] -> where a lens without distortion would have shown them."""
        flat = np.ascontiguousarray(points, np.float64).reshape(-1, 1, 2)
        return cv2.undistortPoints(flat, self.matrix, self.distortion, P=self.matrix).reshape(points.shape)


def read_rig(path: str | Path) -> list[RigCamera]:
    """Cameras of a calibration file in order of name. Raises InputError naming the file."""
    path = Path(path)
    try:
        cameras = _read_toml(path) if path.suffix == ".toml" else _read_qualisys(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ElementTree.ParseError) as error:
        raise InputError(f"{path} is not a calibration as Anipose, Pose2Sim or Qualisys write it: {error}") from error
    if len(cameras) < 2:
        raise InputError(f"{path} holds {len(cameras)} cameras: two or more are needed")
    return sorted(cameras, key=lambda camera: camera.name)


def _read_toml(path: Path) -> list[RigCamera]:
    cameras = []
    for table in tomllib.loads(path.read_text(encoding="utf-8")).values():
        if isinstance(table, dict) and "matrix" in table:
            rotation = cv2.Rodrigues(np.array(table["rotation"], np.float64))[0]
            lens, place = np.array(table["distortions"], np.float64)[:4], np.array(table["translation"], np.float64)
            cameras.append(RigCamera(table["name"], np.array(table["matrix"], np.float64), lens, rotation, place))
    return cameras


def _read_qualisys(path: Path) -> list[RigCamera]:
    cameras = []
    for node in ElementTree.parse(path).getroot().find("cameras"):
        lens, place = node.find("intrinsic").attrib, node.find("transform").attrib
        corner = node.find("fov_video").attrib

        def pixels(name: str, lens: dict = lens) -> float:
            return float(lens[name]) / QUALISYS_UNIT

        matrix = np.array(
            [
                [pixels("focalLengthU"), 0, pixels("centerPointU") - float(corner["left"])],
                [0, pixels("focalLengthV"), pixels("centerPointV") - float(corner["top"])],
                [0, 0, 1],
            ]
        )
        names = ("radialDistortion1", "radialDistortion2", "tangentalDistortion1", "tangentalDistortion2")
        R = np.array([[float(place[f"r{i}{j}"]) for j in (1, 2, 3)] for i in (1, 2, 3)])
        at = np.array([float(place[axis]) for axis in "xyz"]) / 1000
        turn = np.diag([1.0, -1.0, -1.0]) @ R  # from axes that look along -z
        distortion = np.array([float(lens[name]) for name in names])
        cameras.append(RigCamera(node.attrib["serial"], matrix, distortion, turn, -turn @ at))
    return cameras
