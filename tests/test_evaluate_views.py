"""core.evaluate.rig, triangulate and views: cameras made up here, and read by OpenCV's own functions."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from motion_maker import make_truth
from scipy.spatial.transform import Rotation

from core.body import load_body
from core.errors import InputError
from core.evaluate import views
from core.evaluate.rig import RigCamera, read_rig
from core.evaluate.triangulate import exchange, find_reference, project, triangulate
from core.records import CameraMotion
from core.skeleton import KEYPOINT_MIRROR

MIRROR = list(KEYPOINT_MIRROR)


def look_at(name: str, at: np.ndarray, target: np.ndarray, lens=(0, 0, 0, 0)) -> RigCamera:
    """A camera at `at` whose middle shows `target`, world y down."""
    z = (target - at) / np.linalg.norm(target - at)
    x = np.cross([0, 1.0, 0], z)
    x /= np.linalg.norm(x)
    R = np.stack([x, np.cross(z, x), z])
    matrix = np.array([[1100.0, 0, 640], [0, 1110.0, 360], [0, 0, 1]])
    return RigCamera(name, matrix, np.array(lens, np.float64), R, -R @ at)


@pytest.fixture(scope="module")
def rig() -> list[RigCamera]:
    target = np.array([0.0, 0.2, 4.0])
    angles, lens = (0.2, 1.4, 2.9, 4.4), (-0.1, 0.05, 1e-3, -5e-4)
    return [
        look_at(f"cam{i}", target + 5 * np.array([np.sin(a), -0.3, -np.cos(a)]), target, lens)
        for i, a in enumerate(angles)
    ]


@pytest.fixture(scope="module")
def truth():
    return make_truth(load_body(), 40)


def seen_by(rig: list[RigCamera], world: np.ndarray) -> np.ndarray:
    """[C, N, K, 3] px and confidence, projected by OpenCV."""
    seen = []
    for camera in rig:
        px = cv2.projectPoints(world.reshape(-1, 3), camera.R, camera.t, camera.matrix, camera.distortion)[0]
        seen.append(px.reshape(*world.shape[:-1], 2))
    return np.concatenate([np.stack(seen), np.ones((len(rig), *world.shape[:-1], 1))], -1)


def test_toml_and_qualisys_files_give_the_same_cameras(tmp_path, rig):
    lines, nodes = [], []
    for camera in rig:
        vector = Rotation.from_matrix(camera.R).as_rotvec()
        lines.append(
            f'[{camera.name}]\nname = "{camera.name}"\nsize = [1280.0, 720.0]\nmatrix = {camera.matrix.tolist()}\n'
            f"distortions = {camera.distortion.tolist()}\nrotation = {vector.tolist()}\n"
            f"translation = {camera.t.tolist()}\nfisheye = false\n"
        )
        at = -camera.R.T @ camera.t * 1000
        turn = (np.diag([1, -1, -1]) @ camera.R).ravel()
        place = " ".join(f'r{i // 3 + 1}{i % 3 + 1}="{v}"' for i, v in enumerate(turn))
        place += " " + " ".join(f'{axis}="{v}"' for axis, v in zip("xyz", at))
        k1, k2, p1, p2 = camera.distortion
        (fx, _, cx), (_, fy, cy), _ = camera.matrix * 64
        nodes.append(
            f'<camera serial="{camera.name}"><fov_video left="0" top="0" right="1279" bottom="719"/>'
            f'<transform {place}/><intrinsic focalLengthU="{fx}" focalLengthV="{fy}" centerPointU="{cx}" '
            f'centerPointV="{cy}" radialDistortion1="{k1}" radialDistortion2="{k2}" tangentalDistortion1="{p1}" '
            f'tangentalDistortion2="{p2}"/></camera>'
        )
    (tmp_path / "calib.toml").write_text("".join(lines) + "[metadata]\nerror = 0.1\n")
    (tmp_path / "calib.qca.txt").write_text(f"<calibration><cameras>{''.join(nodes)}</cameras></calibration>")
    for name in ("calib.toml", "calib.qca.txt"):
        cameras = read_rig(tmp_path / name)
        assert [camera.name for camera in cameras] == [camera.name for camera in rig]
        for found, expected in zip(cameras, rig):
            np.testing.assert_allclose(found.projection, expected.projection, rtol=1e-9, atol=1e-9)
            np.testing.assert_allclose(found.distortion, expected.distortion)


@pytest.mark.parametrize("text", ["", "[cam]\nname = 3\n", "<a></a>", "not = [toml"])
def test_other_files_are_named_in_one_line(tmp_path, text):
    for name in ("settings.toml", "calib.qca.txt"):
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match=name):
            read_rig(tmp_path / name)


def test_points_are_where_opencv_triangulates_them(rig, truth):
    seen = seen_by(rig[:2], truth.keypoints[:1])
    flat = np.stack([camera.undistort(view[..., :2]) for camera, view in zip(rig, seen)])
    noisy = flat + np.random.default_rng(0).normal(0, 1, flat.shape)
    projections = np.stack([camera.projection for camera in rig[:2]])
    ours = triangulate(noisy, np.ones(noisy.shape[:-1]), projections, passes=1)
    theirs = cv2.triangulatePoints(*projections, *(view[0].T for view in noisy))
    np.testing.assert_allclose(ours[0], (theirs[:3] / theirs[3]).T, atol=1e-6)


def test_one_wrong_view_of_four_does_not_count(rig, truth):
    projections = np.stack([camera.projection for camera in rig])
    seen = project(truth.keypoints, projections)
    seen[2] += [150, -90]
    found = triangulate(seen, np.ones(seen.shape[:-1]), projections)
    assert np.linalg.norm(found - truth.keypoints, axis=-1).max() < 0.01


def test_reference_finds_the_motion_the_exchanged_sides_and_the_shifts(rig, truth):
    """Noise of 2 px at 5 m is 9 mm; views agree on all but the mean of their shifts."""
    seen = seen_by(rig, truth.keypoints)
    seen[..., :2] += np.random.default_rng(1).normal(0, 2, seen[..., :2].shape)
    seen[1, 10:25] = seen[1, 10:25][:, MIRROR]
    seen[3, :, :, :2] += [9, -6]
    reference = find_reference(seen, rig, np.arange(40) / 30)
    expected = np.zeros_like(reference.exchanged)
    expected[1, 10:25] = True
    assert (reference.exchanged == expected).mean() > 0.99
    limbs = truth.keypoints - truth.keypoints[:, 15:17].mean(1, keepdims=True)
    found = reference.points - reference.points[:, 15:17].mean(1, keepdims=True)
    assert np.linalg.norm(found - limbs, axis=-1).mean() < 0.012
    assert reference.residual_px < 2.6
    assert np.linalg.norm(reference.shifts[3] - reference.shifts[:3].mean(0)) > 5


def test_exchange_is_its_own_inverse():
    rng = np.random.default_rng(2)
    values, exchanged = rng.normal(size=(2, 5, 25, 3)), rng.random((2, 5, 2)) < 0.5
    np.testing.assert_array_equal(exchange(exchange(values, exchanged), exchanged), values)
    everything = np.ones_like(exchanged)
    np.testing.assert_array_equal(exchange(values, everything), values[:, :, MIRROR])


def test_a_method_that_knows_the_motion_is_off_by_nothing(rig, truth, monkeypatch, tmp_path):
    """Whole path with made-up perception: the true motion in each camera's axes scores 0, half its size does not."""
    body = load_body()
    seen = seen_by(rig, truth.keypoints)
    tracks = []
    for view in seen:
        from motion_maker import make_track

        track = make_track(truth)
        track.keypoints = view.astype(np.float32)
        tracks.append(track)
    given = iter([[track] for track in tracks])
    monkeypatch.setattr("core.perception.perceive", lambda *_, **__: next(given))

    class Reader:
        clip = type("Clip", (), {"width": 1280, "height": 720})

        def __init__(self, path):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(views, "VideoReader", Reader)
    monkeypatch.setattr(views, "find_films", lambda folder: ([tmp_path / f"{c.name}.mp4" for c in rig], rig))
    asked = iter([camera for camera in rig for _ in range(2)])

    def know(track, camera):
        view = next(asked)
        rotmats, trans = truth.rotmats.copy(), truth.trans.copy()
        pelvis = body.rest_joints(torch.zeros(10))[0].numpy()
        trans = (trans + pelvis) @ view.R.T + view.t - pelvis
        rotmats[:, 0] = view.R @ rotmats[:, 0]
        kinds = {"rotmats": rotmats, "trans": trans, "betas": np.zeros(16), "confidence": np.ones(len(trans))}
        kinds = {name: value.astype(np.float32) for name, value in kinds.items()}
        return CameraMotion(person=0, frames=track.frames, **kinds)

    tables, _ = views.evaluate_views(tmp_path, {"knows": know}, body)
    assert set(tables) == {"cam0", "cam1", "cam2", "cam3", "mean"}
    for table in tables.values():
        assert table["knows"]["keypoint_mm"] < 3 and table["knows"]["covered"] == 1
        assert table["knows, true focal"]["keypoint_mm"] < 3
        assert table["detector"]["keypoint_mm"] > 20  # landmarks in another camera's axes
        assert table["detector"]["image_mm"] < 3


def test_a_folder_without_calibration_says_what_is_wanted(tmp_path):
    (tmp_path / "cam1.mp4").write_bytes(b"")
    (tmp_path / "Config.toml").write_text("[project]\nframe_rate = 60\n")
    with pytest.raises(InputError, match="holds no calibration"):
        views.find_films(tmp_path)
