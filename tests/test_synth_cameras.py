"""Random cameras: projection against OpenCV, conventions, what they see, the filtered noise they shake with."""

import cv2
import numpy as np
import pytest
import torch

from core.synth.cameras import CameraConfig, filter_white, focal_px, look_at, project, sample_cameras


def walk(B=40, T=24):
    generator = torch.Generator().manual_seed(0)
    start = torch.rand((B, 1, 3), generator=generator) * 2 - 1
    path = start + torch.linspace(0, 1.2, T)[None, :, None] * torch.tensor([1.0, 0.0, 0.4])
    path[..., 1] = 0.95
    return path


def test_projection_is_opencvs():
    pelvis = walk(6, 5)
    cameras = sample_cameras(pelvis, torch.Generator().manual_seed(1))
    rng = np.random.default_rng(0)
    points = pelvis[:, :, None] + torch.tensor(rng.normal(0, 0.4, (6, 5, 7, 3)), dtype=torch.float32)
    found = project(cameras.to_camera(points), cameras.intrinsics).numpy()
    for b in range(6):
        fx, fy, cx, cy = cameras.intrinsics[b].double().numpy()
        K = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
        for t in range(5):
            rvec = cv2.Rodrigues(cameras.R[b, t].double().numpy())[0]
            expected = cv2.projectPoints(
                points[b, t].double().numpy(), rvec, cameras.t[b, t].double().numpy(), K, None
            )[0][:, 0]
            assert np.abs(found[b, t] - expected).max() < 0.05


def test_focal_length_of_43_mm_is_the_diagonal():
    size = torch.tensor([[1920, 1080], [640, 480]])
    found = focal_px(torch.full((2,), 43.2666), size)
    assert found.tolist() == pytest.approx([np.hypot(1920, 1080), 800.0], rel=1e-6)


def test_camera_looks_at_its_target_with_gravity_down():
    R = look_at(torch.tensor([0.0, 1.0, 3.0]), torch.tensor([0.0, 1.0, 0.0]), torch.zeros(()))
    torch.testing.assert_close(R, torch.diag(torch.tensor([1.0, -1.0, -1.0])))
    tilted = look_at(torch.tensor([2.0, 2.0, 1.0]), torch.tensor([0.0, 0.5, -1.0]), torch.tensor(0.3))
    torch.testing.assert_close(tilted @ tilted.T, torch.eye(3), atol=1e-6, rtol=0)
    assert torch.det(tilted) > 0


def test_people_are_in_front_of_the_camera_and_mostly_inside_the_image():
    pelvis = walk(200)
    cameras = sample_cameras(pelvis, torch.Generator().manual_seed(2))
    head, feet = pelvis + torch.tensor([0.0, 0.7, 0.0]), pelvis - torch.tensor([0.0, 0.9, 0.0])
    points = cameras.to_camera(torch.stack([head, pelvis, feet], 2))
    assert points[..., 2].min() > 0.5
    px = project(points, cameras.intrinsics)
    inside = ((px >= 0) & (px <= cameras.size[:, None, None])).all(-1).float()
    assert inside[:, :, 1].mean() > 0.95 and inside.mean() > 0.88
    assert (px[..., 0, 1] < px[..., 2, 1]).float().mean() > 0.99  # heads above feet
    size = (px[..., 2, :] - px[..., 0, :]).norm(dim=-1) / cameras.size[:, None, 1]
    assert 0.05 < size.min() and size.max() < 3
    up = cameras.up()
    assert (up[..., 1] < -0.7).float().mean() > 0.97  # y points down in the image


def test_configuration_is_respected():
    config = CameraConfig(
        focal_mm=(50.0, 50.001), sizes=((640, 480, 1.0),), handheld=0.0, following=0.0, roll_deg=0.0
    )
    cameras = sample_cameras(walk(10), torch.Generator().manual_seed(3), config)
    assert cameras.size.tolist() == [[640, 480]] * 10
    assert cameras.intrinsics[:, 0].tolist() == pytest.approx([50 / 43.2666 * 800] * 10, rel=1e-4)
    assert torch.equal(cameras.R[:, 0], cameras.R[:, -1]) and torch.equal(cameras.t[:, 0], cameras.t[:, -1])
    moving = sample_cameras(walk(10), torch.Generator().manual_seed(3), CameraConfig(handheld=1.0))
    assert not torch.equal(moving.R[:, 0], moving.R[:, -1])


def test_a_share_of_the_cameras_looks_down_from_above():
    pelvis = walk(2000, 2)
    down = {}
    for above in (0.0, 0.3):
        cameras = sample_cameras(pelvis, torch.Generator().manual_seed(5), CameraConfig(above=above, truncated=0.0))
        down[above] = np.degrees(np.arcsin(-cameras.R[:, 0, 2, 1].double().numpy()))
        px = project(cameras.to_camera(pelvis[:, :, None]), cameras.intrinsics)
        inside = ((px > 0) & (px < cameras.size[:, None, None])).all(-1).float().mean()
        assert inside > 0.97
    steep = {share: ((angles > 25) & (angles < 75)).mean() for share, angles in down.items()}
    assert steep[0.3] - steep[0.0] == pytest.approx(0.29, abs=0.04)


@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.95])
def test_filtered_noise_is_the_recursion(correlation):
    white = torch.randn((3, 37, 2), generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    found = filter_white(white, torch.tensor([correlation], dtype=torch.float64))
    expected = np.empty((3, 37, 2))
    expected[:, 0] = white[:, 0]
    for t in range(1, 37):
        expected[:, t] = correlation * expected[:, t - 1] + np.sqrt(1 - correlation**2) * white[:, t].numpy()
    assert np.abs(found.numpy() - expected).max() < 1e-12
