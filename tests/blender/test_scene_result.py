"""Result files built into figures without an engine, and smoothed again without loss."""

from __future__ import annotations

import os

import bpy
import numpy as np
import pytest
import scene_support as support
import scene_world as world

from addon import naming
from addon.errors import ResultFileError
from addon.scene import smoothing
from addon.scene.bodydata import BodyData
from addon.scene.options import WriterOptions
from addon.scene.result import load_results, read_result
from tests.tiny_video import write_avi

BETAS = np.array([1.2, -0.8, 0.5, 0.0, -1.0, 0.3, 0.9, -0.4, 0.2, 0.6])
CAMERA = np.array([500.0, 500.0, 320.0, 180.0, 640.0, 360.0])


@pytest.fixture(scope="module")
def data(body):
    return BodyData.from_message(support.body_message(body))


def write_file(path, motion, **changes) -> str:
    """A result file as the engine lays it out."""
    count = len(motion["frames"])
    arrays = {
        **{k: motion[k] for k in ("frames", "times", "poses", "trans", "confidence", "contacts")},
        "betas": BETAS.astype(np.float32),
        "camera": CAMERA,
        "R_world_from_cam": np.tile(np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], dtype=np.float32), (count, 1, 1)),
        "t_world_from_cam": np.tile(np.array([0, -5, 1.5], dtype=np.float32), (count, 1)),
        "gender": np.array("neutral"),
        "method": np.array("fit"),
        "version": np.array("0.1.0"),
        "body": np.array("boxes"),
        "mocap_framerate": np.float64(30.0),
    } | changes
    np.savez(path, **{k: v for k, v in arrays.items() if v is not None})
    return str(path)


def test_file_becomes_the_same_figure_as_a_stream(body, data, tmp_path):
    motion = support.wild_motion(70)
    path = write_file(tmp_path / "clip_person2.npz", motion)
    scene = world.empty_scene()
    summary = load_results(scene, [path], data)
    assert summary.people == [2] and summary.frames == 70 and summary.warnings == []
    assert summary.collection == "clip Mocap"
    for i in (0, 33, 69):
        joints = support.oracle_joints(body, BETAS, motion["poses"][i], motion["trans"][i])
        assert np.abs(world.heads_at(world.person_object(2), 1 + i) - joints).max() < 1e-4
    assert world.person_object(2)["hyper_mocap_result"] == path
    camera = bpy.data.objects[summary.camera]
    np.testing.assert_allclose(camera.matrix_world.translation, [0, -5, 1.5], atol=1e-6)


def test_vertices_of_a_file_go_to_the_cache(body, data, tmp_path):
    motion = support.wild_motion(6)
    vertices = np.random.default_rng(0).normal(size=(6, *body["v_template"].shape)).astype(np.float32)
    path = write_file(tmp_path / "clip_person0.npz", motion, vertices_cam=vertices)
    options = WriterOptions(mode="POINT_CACHE", cache_dir=str(tmp_path))
    load_results(world.empty_scene(), [path], data, options)
    x, y, z = np.moveaxis(vertices, -1, 0)
    expected = np.stack([x, z - 5, 1.5 - y], axis=-1)
    assert np.abs(world.vertices_at(world.body_object(), 4) - expected[3]).max() < 1e-5


@pytest.mark.parametrize("place", ["beside", "above", "blend", "elsewhere", "unknown"])
def test_the_video_named_in_the_file_comes_back(data, tmp_path, place):
    scene = world.empty_scene()
    results, project = tmp_path / "out" / "results", tmp_path / "project"
    for folder in (results, project):
        folder.mkdir(parents=True)
    folders = {"beside": results, "above": tmp_path / "out", "blend": project}
    clip = write_avi(folders.get(place, tmp_path) / "clip.avi", frames=6)
    bpy.ops.wm.save_as_mainfile(filepath=str(project / "shot.blend"))
    video = None if place == "unknown" else np.array("clip.avi")
    path = write_file(results / "clip_person0.npz", support.wild_motion(6), video=video)
    summary = load_results(scene, [path], data)
    images = bpy.data.objects[summary.camera].data.background_images
    assert summary.collection == "clip Mocap" and summary.warnings == []
    if place in folders:
        assert [os.path.normpath(bpy.path.abspath(image.clip.filepath)) for image in images] == [str(clip)]
        assert os.path.normpath(bpy.path.abspath(world.person_object()["hyper_mocap_video"])) == str(clip)
    else:
        assert not images and "hyper_mocap_video" not in world.person_object()


def test_moving_camera_is_keyed(data, tmp_path):
    motion = support.wild_motion(10)
    place = np.stack([np.arange(10), np.full(10, -5.0), np.full(10, 1.5)], axis=1).astype(np.float32)
    path = write_file(tmp_path / "clip_person0.npz", motion, t_world_from_cam=place)
    scene = world.empty_scene()
    camera = bpy.data.objects[load_results(scene, [path], data).camera]
    for i in (0, 4, 9):
        scene.frame_set(1 + i)
        np.testing.assert_allclose(camera.matrix_world.translation, place[i], atol=1e-5)


def test_unusable_files_are_named_before_anything_is_built(data, tmp_path):
    scene = world.empty_scene()
    good = write_file(tmp_path / "a_person0.npz", support.wild_motion(4))
    lacking = write_file(tmp_path / "b_person0.npz", support.wild_motion(4), trans=None)
    damaged = write_file(tmp_path / "c_person0.npz", support.wild_motion(4), poses=np.zeros((3, 72)))
    (tmp_path / "d.npz").write_bytes(b"nonsense")
    for path, text in (
        (str(tmp_path / "gone.npz"), "is gone"),
        (lacking, "lacks trans"),
        (damaged, "poses is damaged"),
        (str(tmp_path / "d.npz"), "not a readable"),
    ):
        with pytest.raises(ResultFileError, match=text):
            load_results(scene, [good, path], data)
    assert not bpy.data.objects and not bpy.data.collections


def test_another_body_is_mentioned(data, tmp_path):
    path = write_file(tmp_path / "a_person0.npz", support.wild_motion(4), body=np.array("smpl female"))
    summary = load_results(world.empty_scene(), [path], data)
    assert any("smpl female" in text for text in summary.warnings)


def shaking(count=90, sigma=0.06):
    """A still pose with tremor, and one fast punch of the left elbow."""
    rng = np.random.default_rng(0)
    motion = support.wild_motion(count)
    poses = np.tile(motion["poses"][:1], (count, 1))
    poses[:, 3:] = rng.normal(0, sigma, (count, 69))
    motion["trans"] = rng.normal(0, 0.01, (count, 3)).astype(np.float32)
    motion["poses"] = poses.astype(np.float32)
    return motion


def jitter(armature, frames, joints) -> float:
    """Mean second difference of bone heads in metres, over the frames."""
    heads = np.array([world.heads_at(armature, f) for f in frames])[:, joints]
    return float(np.linalg.norm(np.diff(heads, 2, axis=0), axis=-1).mean())


def test_smoothing_is_undone_by_a_switch(body, data, tmp_path):
    motion = shaking()
    path = write_file(tmp_path / "clip_person0.npz", motion)
    load_results(world.empty_scene(), [path], data)
    armature, frames = world.person_object(), range(1, 60)
    hands = [naming.JOINT_NAMES.index(n) for n in ("left_hand", "right_hand")]
    feet = [naming.JOINT_NAMES.index(n) for n in ("left_foot", "right_foot")]
    before = jitter(armature, frames, hands), jitter(armature, frames, feet)
    assert smoothing.smooth_figure(armature, smoothing.Smoothing(seconds=0.5)) == 90
    assert smoothing.is_smoothed(armature)
    assert jitter(armature, frames, hands) < 0.1 * before[0]
    assert smoothing.show_smoothed(armature, False) and not smoothing.is_smoothed(armature)
    joints = support.oracle_joints(body, BETAS, motion["poses"][20], motion["trans"][20])
    assert np.abs(world.heads_at(armature, 21) - joints).max() < 1e-4
    assert smoothing.show_smoothed(armature, True)
    only_arms = smoothing.Smoothing(seconds=0.5, root=0.0, spine=0.0, legs=0.0)
    smoothing.smooth_figure(armature, only_arms)
    assert jitter(armature, frames, feet) == pytest.approx(before[1], rel=1e-3)
    assert len([a for a in bpy.data.actions if a.name.startswith("Person 1")]) == 2


@pytest.mark.parametrize("count", [40, 300])
def test_zero_strength_is_the_raw_motion(body, data, tmp_path, count):
    motion = support.wild_motion(count)
    path = write_file(tmp_path / "clip_person0.npz", motion)
    load_results(world.empty_scene(), [path], data)
    smoothing.smooth_figure(world.person_object(), smoothing.Smoothing(seconds=0.0))
    for i in (0, count // 2, count - 1):
        joints = support.oracle_joints(body, BETAS, motion["poses"][i], motion["trans"][i])
        assert np.abs(world.heads_at(world.person_object(), 1 + i) - joints).max() < 1e-4


def test_smoothing_says_when_the_file_is_gone(data, tmp_path):
    path = write_file(tmp_path / "clip_person0.npz", support.wild_motion(8))
    load_results(world.empty_scene(), [path], data)
    (tmp_path / "clip_person0.npz").unlink()
    with pytest.raises(ResultFileError, match="is gone"):
        smoothing.smooth_figure(world.person_object(), smoothing.Smoothing())
    with pytest.raises(ResultFileError, match="no result file"):
        smoothing.smooth_figure(world.body_object(), smoothing.Smoothing())


def test_gaussian_mean_against_a_dense_sum():
    rng = np.random.default_rng(1)
    times, values = np.cumsum(rng.uniform(0.02, 0.06, 80)), rng.normal(size=(80, 2))
    sigma = 0.3 / np.sqrt(12)
    weights = np.exp(-0.5 * ((times[:, None] - times) / sigma) ** 2)
    expected = weights @ values / weights.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(smoothing.gaussian_mean(values, times, 0.3), expected, atol=3e-3)


def test_parabolas_agree_with_least_squares_at_uneven_times():
    generator = np.random.default_rng(3)
    times = np.cumsum(generator.uniform(0.01, 0.06, 80))
    values = np.cumsum(generator.normal(0, 0.02, (80, 2, 3)), 0)
    found = smoothing.local_parabola(values, times, 0.3)
    sigma = smoothing.PARABOLA_WIDTH * 0.3 / np.sqrt(12)
    for frame in (0, 1, 40, 79):
        dt = times - times[frame]
        root = np.exp(-0.25 * (dt / sigma) ** 2)[:, None]
        fitted = np.linalg.lstsq(root * np.vander(dt, 3), root * values.reshape(80, 6), rcond=None)[0][-1]
        np.testing.assert_allclose(found[frame].ravel(), fitted, atol=2e-3)  # it looks no farther than 3.5 sigma


def test_a_clap_keeps_more_of_its_height_than_by_a_mean_at_the_same_calm():
    times = np.arange(150) / 30
    clap = np.exp(-0.5 * ((times - 2.5) / 0.08) ** 2)
    tremor = np.random.default_rng(1).normal(0, 0.01, 150)
    calm = (times < 1.5) | (times > 3.5)
    left, height = {}, {}
    for smooth in (smoothing.gaussian_mean, smoothing.local_parabola):
        result = smooth((clap + tremor)[:, None], times, 0.2)[:, 0]
        left[smooth], height[smooth] = np.diff(result[calm], 2).std(), result[70:80].max()
    assert left[smoothing.local_parabola] < 1.3 * left[smoothing.gaussian_mean]
    assert height[smoothing.local_parabola] > 0.88 > 0.84 > height[smoothing.gaussian_mean]


def test_same_seconds_smooth_alike_at_any_frame_rate():
    noise_free = lambda t: np.sin(2 * np.pi * 1.5 * t)[:, None]  # noqa: E731
    slow, fast = np.arange(0, 4, 1 / 25), np.arange(0, 4, 1 / 100)
    a = smoothing.gaussian_mean(noise_free(slow), slow, 0.3)[25:75]
    b = smoothing.gaussian_mean(noise_free(fast), fast, 0.3)[100:300:4]
    np.testing.assert_allclose(a, b, atol=5e-3)
    gain = np.exp(-0.5 * (2 * np.pi * 1.5 * 0.3 / np.sqrt(12)) ** 2)
    np.testing.assert_allclose(np.ptp(b) / 2, gain, rtol=0.02)


def test_hits_are_kept_and_tremor_is_not():
    times = np.arange(120) / 30
    rng = np.random.default_rng(2)
    angle = 1.5 * np.exp(-0.5 * ((times - 2.0) / 0.06) ** 2)
    tremor = rng.normal(0, 0.03, 120)
    q = np.stack([np.cos((angle + tremor) / 2), np.sin((angle + tremor) / 2), 0 * times, 0 * times], axis=1)
    found = 2 * np.arctan2(*smoothing.smooth_rotations(q, times, 0.4, 0.2)[:, 1::-1].T)
    plain = 2 * np.arctan2(*smoothing.smooth_rotations(q, times, 0.4)[:, 1::-1].T)
    assert found[60] > 1.1 and plain[60] < 0.9
    quiet = np.r_[5:40, 80:115]
    assert found[quiet].std() < 0.45 * tremor[quiet].std()


def test_rotations_that_pass_half_a_turn_smooth_without_a_jump():
    times = np.arange(100) / 30
    angle = np.linspace(0, 6 * np.pi, 100)
    q = np.stack([np.cos(angle / 2), 0 * angle, 0 * angle, np.sin(angle / 2)], axis=1)
    q *= np.where(q[:, :1] < 0, -1, 1)
    smooth = smoothing.smooth_rotations(q, times, 0.2)
    assert np.abs(np.sum(smooth * q, axis=1))[5:-5].min() > 0.9999


def test_read_result_reads_what_the_engine_declares(tmp_path):
    motion = support.wild_motion(5)
    result = read_result(write_file(tmp_path / "my clip_person7.npz", motion))
    assert (result.person, result.method, result.version, result.body, result.fps) == (7, "fit", "0.1.0", "boxes", 30)
    np.testing.assert_array_equal(result.arrays["poses"], motion["poses"])


@pytest.mark.parametrize("count", [4, 16])
def test_shape_of_a_body_with_fewer_or_more_coefficients(body, data, tmp_path, count):
    """What both have is used; the rest is zero."""
    motion = support.wild_motion(4)
    given = np.linspace(-1, 1, count)
    load_results(world.empty_scene(), [write_file(tmp_path / "clip_person0.npz", motion, betas=given)], data)
    expected = np.r_[given, np.zeros(10)][:10]
    joints = support.oracle_joints(body, expected, motion["poses"][2], motion["trans"][2])
    assert np.abs(world.heads_at(world.person_object(0), 3) - joints).max() < 1e-4
