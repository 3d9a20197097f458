"""The camera against the pinhole formula: Blender's projection, and pixels of a real render."""

from __future__ import annotations

import bpy
import numpy as np
import pytest
import scene_support as support
import scene_world as world
from bpy_extras.object_utils import world_to_camera_view
from mathutils import Vector

from addon import action
from core import protocol

CAMERAS = {
    "landscape": (900.0, 900.0, 320.0, 180.0, 640, 360),
    "portrait": (700.0, 700.0, 180.0, 320.0, 360, 640),
    "square": (500.0, 500.0, 256.0, 256.0, 512, 512),
    "off centre": (800.0, 800.0, 250.0, 260.0, 640, 360),
    "off centre portrait": (800.0, 800.0, 250.0, 260.0, 360, 640),
    "wide pixels": (900.0, 750.0, 300.0, 200.0, 640, 360),
    "tall pixels": (750.0, 900.0, 300.0, 200.0, 640, 360),
    "wide pixels portrait": (900.0, 750.0, 200.0, 300.0, 360, 640),
    "tall pixels portrait": (750.0, 900.0, 200.0, 300.0, 360, 640),
}


def pose_matrix(seed: int = 0) -> np.ndarray:
    """A camera 4 m in front of the origin, a little turned and rolled: x_world = matrix @ x_cam."""
    rng = np.random.default_rng(seed)
    looking = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]) @ support.oracle_rotation(rng.normal(0, 0.15, 3))
    matrix = np.eye(4)
    matrix[:3, :3] = looking
    matrix[:3, 3] = [0.3, -4.0, 1.1]
    return matrix


def view_message(camera: tuple, matrix: np.ndarray, start: int = 0) -> protocol.View:
    return protocol.View(start, *camera, matrix=support.wire(matrix.astype(np.float32)))


def project(points: np.ndarray, camera: tuple, matrix: np.ndarray) -> np.ndarray:
    """Pixels [N, 2] by the pinhole formula, y down."""
    fx, fy, cx, cy, _, _ = camera
    cam = (points - matrix[:3, 3]) @ matrix[:3, :3]
    return np.stack([fx * cam[:, 0] / cam[:, 2] + cx, fy * cam[:, 1] / cam[:, 2] + cy], axis=1)


def blender_pixels(scene, points: np.ndarray) -> np.ndarray:
    bpy.context.view_layer.update()
    ndc = np.array([world_to_camera_view(scene, scene.camera, Vector(p))[:2] for p in points])
    size = scene.render.resolution_x, scene.render.resolution_y
    return np.stack([ndc[:, 0] * size[0], (1 - ndc[:, 1]) * size[1]], axis=1)


def write_views(views, video=world.VIDEO, **options):
    scene = world.empty_scene()
    writer = world.start_writer(scene, support.synthetic_body(), {}, video=video, **options)
    for view in views:
        writer.handle(view)
    return scene, writer.finish()


@pytest.mark.parametrize("name", CAMERAS)
def test_projection_is_the_pinholes(name):
    camera, matrix = CAMERAS[name], pose_matrix()
    scene, summary = write_views([view_message(camera, matrix)])
    points = np.random.default_rng(1).uniform(-0.8, 0.8, (30, 3)) + [0, 0, 1]
    assert summary.camera == "a walk Camera" and scene.camera.name == summary.camera
    assert (scene.render.resolution_x, scene.render.resolution_y) == camera[4:]
    np.testing.assert_allclose(blender_pixels(scene, points), project(points, camera, matrix), atol=0.02)


@pytest.mark.parametrize("name", ["off centre", "off centre portrait", "wide pixels", "tall pixels portrait"])
def test_rendered_markers_lie_on_the_projected_pixels(name, tmp_path):
    camera, matrix = CAMERAS[name], pose_matrix(3)
    scene, _ = write_views([view_message(camera, matrix)])
    material = bpy.data.materials.new("Glow")
    if material.node_tree is None:
        material.use_nodes = True
    shader = material.node_tree.nodes["Principled BSDF"]
    shader.inputs["Emission Color"].default_value = (1, 1, 1, 1)
    shader.inputs["Emission Strength"].default_value = 20.0
    scene.render.engine, scene.cycles.samples, scene.cycles.use_denoising = "CYCLES", 4, False
    scene.render.image_settings.file_format = "PNG"
    fx, fy, cx, cy, width, height = camera
    for number, expected in enumerate(([0.3 * width, 0.2 * height], [0.8 * width, 0.7 * height])):
        ray = np.array([(expected[0] - cx) / fx, (expected[1] - cy) / fy, 1.0])
        point = matrix[:3, :3] @ (4.0 * ray) + matrix[:3, 3]
        bpy.ops.mesh.primitive_uv_sphere_add(radius=0.03, location=point)
        marker = bpy.context.object
        marker.data.materials.append(material)
        scene.render.filepath = str(tmp_path / f"{number}.png")
        bpy.ops.render.render(write_still=True)
        image = bpy.data.images.load(scene.render.filepath)
        assert tuple(image.size) == (width, height)
        light = np.array(image.pixels[:]).reshape(height, width, 4)[::-1, :, :3].sum(axis=2)
        rows, columns = np.nonzero(light > 0.5 * light.max())
        found = np.array([columns.mean() + 0.5, rows.mean() + 0.5])
        assert np.abs(found - expected).max() < 1.0, (found, expected)
        bpy.data.objects.remove(marker)


def test_joints_overlay_the_person_in_the_picture():
    body, betas = support.synthetic_body(), np.zeros(10)
    camera, matrix, motion = CAMERAS["landscape"], pose_matrix(), support.wild_motion(6)
    motion["trans"] = motion["trans"] * 0.1
    scene = world.empty_scene()
    writer = world.start_writer(scene, body, {0: betas})
    writer.handle(view_message(camera, matrix))
    writer.handle(support.frames_message(0, motion, slice(0, 6)))
    writer.finish()
    for i in (0, 5):
        joints = support.oracle_joints(body, betas, motion["poses"][i], motion["trans"][i])
        pixels = blender_pixels(scene, world.heads_at(world.person_object(), 1 + i))
        np.testing.assert_allclose(pixels, project(joints, camera, matrix), atol=0.1)


def test_moving_camera_with_holes_and_zoom():
    cameras = [(900.0 + 10 * i, 900.0 + 10 * i, 320.0, 180.0, 640, 360) for i in range(4)]
    starts = [0, 1, 2, 10]
    matrices = [pose_matrix(i) for i in range(4)]
    views = [view_message(c, m, s) for c, m, s in zip(cameras, matrices, starts)]
    scene, _ = write_views([views[2], views[0], views[3], views[1]])
    points = np.random.default_rng(1).uniform(-0.5, 0.5, (10, 3)) + [0, 0, 1]
    for frame, which in ((1, 0), (2, 1), (3, 2), (7, 2), (11, 3), (20, 3)):
        scene.frame_set(frame)
        np.testing.assert_allclose(
            blender_pixels(scene, points), project(points, cameras[which], matrices[which]), atol=0.05
        )


def test_many_views_arrive_while_ticking():
    scene = world.empty_scene()
    writer = world.start_writer(scene, support.synthetic_body(), {})
    for i in range(300):
        matrix = pose_matrix()
        matrix[0, 3] = 0.01 * i
        writer.handle(view_message(CAMERAS["landscape"], matrix, i))
        writer.tick(0.001)
    camera = bpy.data.objects[writer.finish().camera]
    frames, values = action.read_keys(camera, "location", 0)
    np.testing.assert_allclose(frames, np.arange(1, 301))
    np.testing.assert_allclose(values, 0.01 * np.arange(300), atol=1e-5)


def picture_folder(tmp_path, count: int = 6):
    """An image sequence whose pictures have a grey level of their own; returns the first picture's path."""
    world.empty_scene()
    image = bpy.data.images.new("p", 64, 36)
    image.file_format = "PNG"
    for i in range(count):
        image.pixels[:] = [i / 10, i / 10, i / 10, 1.0] * (64 * 36)
        image.filepath_raw = str(tmp_path / f"shot_{i:04d}.png")
        image.save()
    return str(tmp_path / "shot_0000.png")


@pytest.mark.parametrize("as_folder", [False, True])
def test_video_stands_behind_the_figure_in_step(tmp_path, as_folder):
    path = picture_folder(tmp_path)
    video = protocol.Video(str(tmp_path) if as_folder else path, 64, 36, 30.0, 6)
    scene, summary = write_views(
        [view_message((90.0, 90.0, 32.0, 18.0, 64, 36), pose_matrix())], video=video, start_frame=11, name="shot"
    )
    assert summary.warnings == []
    data = scene.camera.data
    (background,) = data.background_images
    assert data.show_background_images and background.source == "MOVIE_CLIP"
    assert (background.alpha, background.display_depth, background.frame_method) == (1.0, "BACK", "FIT")
    clip = background.clip
    assert tuple(clip.size) == (64, 36) and clip.frame_duration == 6
    assert clip.frame_start == 11, "picture 0 of the clip belongs to time 0, scene frame 11"


@pytest.mark.parametrize("pattern", ["shot_%04d.png", "shot_####.png"])
def test_numbered_pattern_behind_the_figure(tmp_path, pattern):
    picture_folder(tmp_path)
    (tmp_path / "another.png").write_bytes((tmp_path / "shot_0000.png").read_bytes())
    video = protocol.Video(str(tmp_path / pattern), 64, 36, 30.0, 6)
    scene, summary = write_views([view_message((90.0, 90.0, 32.0, 18.0, 64, 36), pose_matrix())], video=video)
    assert summary.warnings == []
    clip = scene.camera.data.background_images[0].clip
    assert clip.filepath.endswith("shot_0000.png") and clip.frame_duration == 6


@pytest.mark.parametrize("turn", [0, 90, 270])
def test_clip_that_lies_on_its_side_is_turned(tmp_path, monkeypatch, turn):
    monkeypatch.setattr("addon.scene.camera.display_turn", lambda path: turn)
    video = protocol.Video(picture_folder(tmp_path), 36, 64, 30.0, 6)
    scene, _ = write_views([view_message((90.0, 90.0, 18.0, 32.0, 36, 64), pose_matrix())], video=video)
    background = scene.camera.data.background_images[0]
    assert np.degrees(background.rotation) == pytest.approx(turn)
    assert background.scale == pytest.approx(64 / 36 if turn else 1.0)


def test_missing_video_is_told_and_does_no_harm():
    scene, summary = write_views([view_message(CAMERAS["landscape"], pose_matrix())])
    assert any("cannot show the video" in text for text in summary.warnings)
    assert scene.camera is not None


def test_deleted_camera_stays_deleted():
    scene = world.empty_scene()
    writer = world.start_writer(scene, support.synthetic_body(), {})
    writer.handle(view_message(CAMERAS["landscape"], pose_matrix(), 0))
    writer.tick(0.1)
    bpy.data.objects.remove(scene.camera)
    writer.handle(view_message(CAMERAS["landscape"], pose_matrix(), 1))
    assert writer.finish().camera == "" and not bpy.data.objects


def test_fps_and_no_camera_options():
    video = protocol.Video("/nowhere/a.mp4", 640, 360, 30000 / 1001, 300)
    scene, summary = write_views(
        [view_message(CAMERAS["landscape"], pose_matrix())], video=video, use_camera=False, match_fps=True
    )
    assert summary.camera == "" and scene.camera is None and summary.warnings == []
    assert scene.render.fps / scene.render.fps_base == pytest.approx(30000 / 1001, rel=1e-6)
    assert scene.frame_end == 300
