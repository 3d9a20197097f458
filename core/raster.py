"""Shaded drawing of meshes into images on the CPU, for previews and contact sheets; numpy and OpenCV only.

Painter's algorithm: faces turned away are dropped, the others filled from far to near. Where faces of nearly the
same depth meet (fingers, folded limbs) the order is by face centre, so single pixels may be wrong; silhouettes are
exact to a pixel. V vertices, F faces with three or four corners (-1 as the fourth marks a triangle). Faces wind
counter-clockwise seen from outside.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from core.records import Camera

SUBPIXEL_BITS = 4
NEAR = 0.05
"""Metres in front of the camera; faces with a corner nearer than this are not drawn."""
FAR_PX = 1 << 14
"""Faces with a corner further than this from the image origin are not drawn (a corner almost beside the lens)."""
BODY_COLOR = (172, 190, 208)
BACKGROUND = (238, 241, 244)


@dataclass(frozen=True)
class View:
    """An orthographic look at a mesh: turned `yaw` degrees about the up axis y, then tipped by `pitch` degrees.

    yaw 0 looks at the front (+z towards the viewer), 90 shows the mesh's left side, 180 the back. `pitch` 90 looks
    from above. `center` (x, y, z) and `height` in metres frame the picture; None frames the whole mesh.
    """

    yaw: float = 0.0
    pitch: float = 0.0
    center: tuple[float, float, float] | None = None
    height: float | None = None


def draw_mesh(
    image_bgr: np.ndarray,
    vertices_cam: np.ndarray,
    faces: np.ndarray,
    camera: Camera,
    *,
    color: tuple[float, float, float] = BODY_COLOR,
    alpha: float = 1.0,
) -> np.ndarray:
    """Draw a mesh over an image, seen by a pinhole camera.

    image_bgr [H, W, 3] uint8 (not changed); vertices_cam [V, 3] metres in the camera frame (x right, y down,
    z forward); faces [F, 3] or [F, 4]; color BGR 0..255; alpha 0..1 opacity of the whole mesh. Returns a new image.
    """
    vertices = np.asarray(vertices_cam, np.float32)
    depth = vertices[:, 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        points = np.stack(
            [
                camera.fx * vertices[:, 0] / depth + camera.cx,
                camera.fy * vertices[:, 1] / depth + camera.cy,
            ],
            -1,
        )
    usable = (depth > NEAR) & (np.abs(points) < FAR_PX).all(-1)
    points = np.where(usable[:, None], points, 0)
    return _paint(image_bgr, points, vertices, depth, usable, np.asarray(faces), color, alpha)


def render_mesh(
    vertices: np.ndarray,
    faces: np.ndarray,
    *,
    size: tuple[int, int] = (512, 512),
    view: View | None = None,
    color: tuple[float, float, float] = BODY_COLOR,
    background: tuple[int, int, int] = BACKGROUND,
) -> np.ndarray:
    """Picture [height, width, 3] uint8 of a mesh in the body's frame (y up, facing +z); size = (width, height) px."""
    view = view or View()
    width, height_px = size
    vertices = np.asarray(vertices, np.float64)
    turned = (vertices - _center(vertices, view)) @ _view_rotation(view).T
    extent = view.height if view.height is not None else _extent(turned, width / height_px)
    scale = height_px / extent
    # to camera axes: x right, y down, z away from the viewer
    eye = np.stack([turned[:, 0], -turned[:, 1], -turned[:, 2]], -1).astype(np.float32)
    points = eye[:, :2] * scale + np.array([width / 2, height_px / 2], np.float32)
    usable = (np.abs(points) < FAR_PX).all(-1)
    image = np.empty((height_px, width, 3), np.uint8)
    image[:] = background
    far = eye + np.array([0, 0, 1e4], np.float32)  # parallel rays for the facing test
    return _paint(image, points, far, eye[:, 2], usable, np.asarray(faces), color, 1.0)


def project(vertices: np.ndarray, *, size: tuple[int, int], view: View, extent_of: np.ndarray) -> np.ndarray:
    """Where points [N, 3] fall in the picture `render_mesh(extent_of, ...)` makes: [N, 2] px."""
    width, height_px = size
    center, rotation = _center(np.asarray(extent_of), view), _view_rotation(view)
    extent = view.height
    if extent is None:
        extent = _extent((np.asarray(extent_of) - center) @ rotation.T, width / height_px)
    turned = (np.asarray(vertices) - center) @ rotation.T
    return turned[:, :2] * np.array([1, -1]) * (height_px / extent) + np.array([width / 2, height_px / 2])


def _view_rotation(view: View) -> np.ndarray:
    yaw, pitch = np.deg2rad(view.yaw), np.deg2rad(view.pitch)
    # turning the mesh by -yaw about y brings its left side (+x) to the viewer (+z)
    turn = np.array([[np.cos(yaw), 0, -np.sin(yaw)], [0, 1, 0], [np.sin(yaw), 0, np.cos(yaw)]])
    tip = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
    return tip @ turn


def _center(vertices: np.ndarray, view: View) -> np.ndarray:
    if view.center is not None:
        return np.asarray(view.center, np.float64)
    return (vertices.min(0) + vertices.max(0)) / 2


def _extent(turned: np.ndarray, aspect: float) -> float:
    """Height in metres that shows everything with a small margin."""
    half = np.abs(turned[:, :2]).max(0)
    return float(max(half[1], half[0] / aspect) * 2 * 1.06)


def _paint(image, points, positions, depth, usable, faces, color, alpha):
    """Fill the faces. points [V, 2] px, positions [V, 3] camera frame for normals, depth [V] for the order."""
    if faces.shape[1] == 3:
        faces = np.concatenate([faces, np.full((len(faces), 1), -1, faces.dtype)], 1)
    is_triangle = faces[:, 3] < 0
    corners = np.where(is_triangle[:, None] & (np.arange(4) == 3), faces[:, 2:3], faces)
    keep = usable[corners].all(1)
    height, width = image.shape[:2]
    corners = corners[keep]
    low, high = points[corners].min(1), points[corners].max(1)
    keep = (high[:, 0] >= 0) & (high[:, 1] >= 0) & (low[:, 0] < width) & (low[:, 1] < height)
    corners = corners[keep]
    p = points[corners]  # [F, 4, 2]
    # signed area by the diagonals: image y points down, so outward faces are negative
    d0, d1 = p[:, 2] - p[:, 0], p[:, 3] - p[:, 1]
    degenerate = corners[:, 3] == corners[:, 2]
    d1 = np.where(degenerate[:, None], p[:, 1] - p[:, 0], d1)
    area = d0[:, 0] * d1[:, 1] - d0[:, 1] * d1[:, 0]
    area = np.where(degenerate, -area, area)
    front = area < 0
    corners, p = corners[front], p[front]
    if len(corners) == 0:
        return image.copy()
    shade = _face_shade(positions, corners)
    order = np.argsort(-depth[corners].mean(1), kind="stable")
    colors = np.clip(shade[:, None] * np.asarray(color, np.float32), 0, 255)
    polygons = np.round(p * (1 << SUBPIXEL_BITS) - (1 << (SUBPIXEL_BITS - 1))).astype(np.int32)
    left, top = np.floor(np.maximum(p.min((0, 1)), 0)).astype(int)
    right = min(int(np.ceil(p[..., 0].max())) + 2, width)
    bottom = min(int(np.ceil(p[..., 1].max())) + 2, height)
    polygons -= np.array([left, top], np.int32) << SUBPIXEL_BITS
    result = image.copy()
    region = result[top:bottom, left:right]
    layer = region if alpha >= 1 else region.copy()
    layer = np.ascontiguousarray(layer)
    polygons, colors = polygons[order], colors[order].tolist()
    fill = cv2.fillConvexPoly
    for polygon, shade_color in zip(polygons, colors):
        fill(layer, polygon, shade_color, cv2.LINE_8, SUBPIXEL_BITS)
    result[top:bottom, left:right] = layer if alpha >= 1 else cv2.addWeighted(layer, alpha, region, 1 - alpha, 0)
    return result


def _face_shade(positions: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Brightness [F] of faces lit from the viewer's upper left, softened by averaging corner normals."""
    p = positions[corners]
    normal = np.cross(p[:, 2] - p[:, 0], p[:, 3] - p[:, 1])
    flat = corners[:, 3] == corners[:, 2]
    if flat.any():
        normal[flat] = np.cross(p[flat, 1] - p[flat, 0], p[flat, 2] - p[flat, 0])
    summed = np.zeros((len(positions), 3), np.float32)
    for axis in range(3):
        summed[:, axis] = np.bincount(corners.ravel(), np.repeat(normal[:, axis], 4), minlength=len(positions))
    normal = summed[corners].sum(1)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    key = normal @ np.array([-0.35, -0.55, -0.76], np.float32)  # towards upper left and the viewer
    fill = normal @ np.array([0.7, 0.1, -0.7], np.float32)
    return 0.34 + 0.62 * np.maximum(key, 0) + 0.16 * np.maximum(fill, 0)
