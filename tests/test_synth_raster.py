"""The torch rasteriser against a ray traced sphere and box, and its order of overlapping triangles."""

import numpy as np
import pytest
import torch

from core.synth.raster import rasterise

FOCAL, SIZE = 300.0, 160


def sphere(rings=60, segments=120):
    """Unit sphere: vertices, triangles counter-clockwise from outside."""
    polar = torch.linspace(0.0, np.pi, rings)
    around = torch.arange(segments) * (2 * np.pi / segments)
    p, a = torch.meshgrid(polar, around, indexing="ij")
    points = torch.stack([p.sin() * a.cos(), p.cos(), p.sin() * a.sin()], -1).reshape(-1, 3)
    i, j = torch.meshgrid(torch.arange(rings - 1), torch.arange(segments), indexing="ij")
    k = (j + 1) % segments
    corners = torch.stack([i * segments + j, i * segments + k, (i + 1) * segments + k, (i + 1) * segments + j], -1)
    quads = corners.reshape(-1, 4)
    triangles = torch.cat([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    a, b, c = points[triangles].unbind(1)
    normal = torch.linalg.cross(b - a, c - a)
    inward = (normal * (a + b + c)).sum(-1) < 0
    triangles[inward] = triangles[inward].flip(1)
    return points, triangles[normal.norm(dim=-1) > 1e-9]


def to_px(points):
    return torch.stack(
        [
            FOCAL * points[:, 0] / points[:, 2] + SIZE / 2,
            FOCAL * points[:, 1] / points[:, 2] + SIZE / 2,
            points[:, 2],
        ],
        -1,
    )


def rays():
    y, x = np.mgrid[0:SIZE, 0:SIZE] + 0.5
    return np.stack([(x - SIZE / 2) / FOCAL, (y - SIZE / 2) / FOCAL, np.ones_like(x)], -1)


def test_sphere_has_the_silhouette_and_depth_of_a_ray_traced_one():
    points, triangles = sphere()
    radius, centre = 0.4, np.array([0.15, -0.1, 2.0])
    placed = to_px(points * radius + torch.tensor(centre, dtype=torch.float32))
    fragments = rasterise(placed[None], triangles, SIZE, SIZE)

    d = rays()
    a, b, c = (d * d).sum(-1), (d @ centre), centre @ centre - radius**2
    discriminant = b * b - a * c
    hit = discriminant > 0
    depth = (b - np.sqrt(np.maximum(discriminant, 0))) / a
    mask = fragments.mask()[0].numpy()
    assert (mask != hit).sum() <= 0.01 * hit.sum()
    found = fragments.fill(fragments.depth[:, None])[0, ..., 0].numpy()
    inner = hit & mask & (discriminant > 0.01)
    assert np.abs(found - depth)[inner].max() < 2e-3


def test_weights_are_perspective_correct():
    corners = torch.tensor([[-0.5, -0.5, 1.0], [0.5, -0.5, 3.0], [-0.5, 0.5, 2.0]])
    triangles = torch.tensor([[0, 2, 1]])
    fragments = rasterise(to_px(corners)[None], triangles, SIZE, SIZE)
    position = fragments.interpolate(corners)
    assert len(position) > 500
    ray = torch.from_numpy(rays().reshape(-1, 3)[fragments.pixel]).float()
    torch.testing.assert_close(position, ray * position[:, 2:], atol=1e-4, rtol=0)
    torch.testing.assert_close(position[:, 2], fragments.depth, atol=1e-5, rtol=0)
    torch.testing.assert_close(fragments.weights.sum(1), torch.ones(len(position)))


def test_the_nearer_of_two_triangles_wins_and_images_stay_apart():
    near = torch.tensor([[0.0, 0.0, 1.0], [90.0, 0.0, 1.0], [0.0, 90.0, 1.0]])
    far = torch.tensor([[0.0, 0.0, 2.0], [140.0, 0.0, 2.0], [0.0, 140.0, 2.0]])
    triangles = torch.tensor([[0, 2, 1], [3, 5, 4]])
    batch = torch.stack([torch.cat([near, far]), torch.cat([far, near])])
    fragments = rasterise(batch, triangles, SIZE, SIZE)
    depth = fragments.fill(fragments.depth[:, None])[..., 0]
    for image in depth:
        assert image[10, 10] == pytest.approx(1.0) and image[10, 100] == pytest.approx(2.0)
    assert fragments.image_index().unique().tolist() == [0, 1]


def test_a_box_covers_exactly_its_projection_and_back_faces_are_culled():
    corner = torch.tensor([[x, y, z] for z in (2.0, 3.0) for y in (-0.3, 0.3) for x in (-0.4, 0.4)])
    front = torch.tensor([[0, 2, 1], [1, 2, 3]])  # towards the camera, counter-clockwise seen with y down
    back = torch.tensor([[4, 5, 6], [5, 7, 6]])
    mask = rasterise(to_px(corner)[None], torch.cat([front, back]), SIZE, SIZE).mask()[0].numpy()
    expected = np.zeros((SIZE, SIZE), bool)
    half_w, half_h = FOCAL * 0.4 / 2, FOCAL * 0.3 / 2
    y, x = np.mgrid[0:SIZE, 0:SIZE] + 0.5
    expected[(np.abs(x - SIZE / 2) < half_w) & (np.abs(y - SIZE / 2) < half_h)] = True
    assert (mask == expected).all()
    assert not rasterise(to_px(corner)[None], back, SIZE, SIZE).mask().any()
    assert rasterise(to_px(corner)[None], back, SIZE, SIZE, cull_backfaces=False).mask().any()


def test_work_is_cut_into_pieces_without_changing_the_result(monkeypatch):
    points, triangles = sphere(30, 60)
    placed = to_px(points * 0.4 + torch.tensor([0.0, 0.0, 2.0]))[None].expand(3, -1, -1)
    whole = rasterise(placed, triangles, SIZE, SIZE)
    monkeypatch.setattr("core.synth.raster.MAX_CANDIDATES", 1000)
    pieces = rasterise(placed, triangles, SIZE, SIZE)
    assert torch.equal(whole.pixel, pieces.pixel) and torch.equal(whole.corners, pieces.corners)


def test_triangles_behind_or_beside_the_camera_are_left_out():
    behind = torch.tensor([[[10.0, 10.0, -1.0], [60.0, 10.0, 1.0], [10.0, 60.0, 1.0]]])
    assert not rasterise(behind, torch.tensor([[0, 2, 1]]), SIZE, SIZE).mask().any()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_draws_what_the_cpu_draws():
    points, triangles = sphere()
    placed = to_px(points * 0.4 + torch.tensor([0.0, 0.0, 2.0]))[None].expand(5, -1, -1)
    here = rasterise(placed, triangles, SIZE, SIZE)
    there = rasterise(placed.cuda(), triangles.cuda(), SIZE, SIZE)
    assert (here.mask() != there.mask().cpu()).float().mean() < 1e-4
    depth = [f.fill(f.depth[:, None], 9.0).cpu() for f in (here, there)]
    assert ((depth[0] - depth[1]).abs() > 1e-4).float().mean() < 1e-4
