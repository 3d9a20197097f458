"""The camera that sees the figure as the video did, with the video behind it."""

from __future__ import annotations

import math
import os
import re

import bpy
import numpy as np
from mathutils import Matrix

from ..action import KeyWriter
from ..convert import Lens, camera_to_blender, lens_from_focal, make_continuous, quaternion_from_matrix
from .turned import display_turn


def build_camera(collection: bpy.types.Collection, name: str, size_m: float = 0.4) -> bpy.types.Object:
    """A new camera object in the collection."""
    data = bpy.data.cameras.new(name)
    data.display_size = size_m
    data.clip_end = 1000.0
    obj = bpy.data.objects.new(name, data)
    obj.rotation_mode = "QUATERNION"
    collection.objects.link(obj)
    return obj


def show_background(camera: bpy.types.Object, path: str, start_frame: int, size: tuple[int, int]) -> bool:
    """Show a video, a folder of pictures or a numbered pattern behind the camera; False if it cannot be read.

    The clip's first picture stands at scene frame `start_frame`; it advances one picture a scene frame. size: width
    and height of the upright picture; where this Blender shows the clip lying on its side, it is turned.
    """
    first = first_picture(path)
    if not os.path.exists(first):
        return False
    try:
        clip = bpy.data.movieclips.load(first, check_existing=True)
    except RuntimeError:
        return False
    if not all(clip.size):
        return False
    clip.frame_start = start_frame
    data = camera.data
    data.show_background_images = True
    background = data.background_images.new()
    background.source = "MOVIE_CLIP"
    background.clip = clip
    background.clip_user.proxy_render_size = "FULL"
    background.alpha = 1.0
    background.display_depth = "BACK"
    background.frame_method = "FIT"
    turn = display_turn(first)
    if turn in (90, 270) and tuple(clip.size) == size[::-1] != size:
        background.rotation = math.radians(turn)
        background.scale = max(size) / min(size)
    return True


def first_picture(path: str) -> str:
    """Return the file that Blender opens a clip by: a folder's or a pattern's (%04d, ####) first picture."""
    folder, name = os.path.split(path)
    if os.path.isdir(path):
        folder, fits = path, re.compile(".*")
    elif re.search(r"%0?\d*d|#", name) and not os.path.exists(path):
        parts = re.split(r"(%0?\d*d|#+)", name)
        fits = re.compile("".join(r"\d+" if i % 2 else re.escape(part) for i, part in enumerate(parts)))
    else:
        return path
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    endings = bpy.path.extensions_image
    found = [n for n in names if fits.fullmatch(n) and os.path.splitext(n)[1].lower() in endings]
    return os.path.join(folder, found[0]) if found else path


def match_render(scene: bpy.types.Scene, width: int, height: int, lens: Lens | None = None) -> None:
    """Give the scene the picture's size, and the pixel aspect that a lens with fx != fy needs."""
    render = scene.render
    render.resolution_x, render.resolution_y, render.resolution_percentage = width, height, 100
    if lens is not None:
        render.pixel_aspect_x, render.pixel_aspect_y = lens.pixel_aspect_x, lens.pixel_aspect_y


def apply_view(camera: bpy.types.Object, view, matrix: np.ndarray) -> Lens:
    """Set place and lens from one View (matrix [4,4] x_world = matrix @ x_cam). Returns the lens."""
    lens = _apply_lens(camera, view)
    camera.matrix_world = Matrix(camera_to_blender(matrix).tolist())
    return lens


def animate_views(camera: bpy.types.Object, views: list, matrices: np.ndarray, frames: np.ndarray) -> Lens:
    """Key place and focal length: view i holds from scene frame frames[i] (increasing) until the next.

    Neighbouring frames are joined by straight lines; over a longer gap the older view is held until one frame
    before the next. matrices [N, 4, 4].
    """
    lens = _apply_lens(camera, views[0])
    lenses = [lens_from_focal(v.fx, v.fy, v.cx, v.cy, v.width, v.height) for v in views]
    world = camera_to_blender(matrices)
    rows, times = [0], [float(frames[0])]
    for i in range(1, len(frames)):
        if frames[i] - frames[i - 1] > 1.5:
            rows.append(i - 1)
            times.append(float(frames[i]) - 1.0)
        rows.append(i)
        times.append(float(frames[i]))
    times, world = np.array(times), world[rows]
    turns = make_continuous(quaternion_from_matrix(world[:, :3, :3]))
    writer = KeyWriter(camera, f"{camera.name} Action")
    for k in range(3):
        writer.write("location", k, times, world[:, k, 3], group="Place")
    for k in range(4):
        writer.write("rotation_quaternion", k, times, turns[:, k], group="Place")
    focal = np.array([lens.lens_mm for lens in lenses])[rows]
    if np.ptp(focal) > 1e-3:
        KeyWriter(camera.data, f"{camera.name} Lens").write("lens", 0, times, focal, group="Lens")
    camera.update_tag(refresh={"TIME"})
    return lens


def _apply_lens(camera: bpy.types.Object, view) -> Lens:
    lens = lens_from_focal(view.fx, view.fy, view.cx, view.cy, view.width, view.height)
    data = camera.data
    data.sensor_fit = lens.sensor_fit
    data.sensor_width = data.sensor_height = 36.0
    data.lens = lens.lens_mm
    data.shift_x, data.shift_y = lens.shift_x, lens.shift_y
    return lens
