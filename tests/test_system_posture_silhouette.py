"""core.systems.posture: the true 2D mesh, and the trimap render loss with its rasteriser."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from core.models.inputs import CROP_XY, INPUT_SIZE, ImageGeometry, encode_inputs
from core.rotation import axis_angle_to_matrix
from core.systems.posture import silhouette
from core.systems.posture.mesh2d import Mesh2D
from core.systems.posture.projection import place

SQUARE = torch.tensor([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
HALVES = torch.tensor([[0, 1, 2], [0, 3, 2]], dtype=torch.int32)
"""One wound one way, one the other."""


def seen_inputs(points: torch.Tensor, *, focal: float = 1000.0, confidence: torch.Tensor | None = None):
    """Network input of points [B, K, 3] seen in perspective, and their crop coordinates [B, K, 2]."""
    pixels = focal * points[..., :2] / points[..., 2:] + torch.tensor([640.0, 360.0])
    confidence = torch.ones_like(pixels[..., :1]) if confidence is None else confidence
    size = torch.ones(len(points), 1)
    geometry = ImageGeometry(1280 * size, 720 * size, focal * size)
    inputs = encode_inputs(torch.cat((pixels, confidence), -1), points, torch.ones(len(points)), geometry)
    return inputs, inputs[..., CROP_XY]


def test_placement_is_weighted_least_squares():
    torch.manual_seed(0)
    inputs, body = torch.randn(4, 25, INPUT_SIZE), torch.randn(4, 25, 3)
    inputs[..., 4] = torch.rand(4, 25)
    inputs[..., 2:4] = 1.3 * body[..., :2] + 0.3 * torch.randn(4, 25, 2)
    inputs[..., 9:12] = 0  # in the middle of the image: nothing turns
    found = place(body, inputs)
    assert found.is_placed.all()
    for i in range(4):
        weight = inputs[i, :, 4].double().numpy()
        weight = np.sqrt(np.where(weight > 0.1, weight, 0))
        rows, right = [], []
        for axis in (0, 1):
            shift = np.zeros((25, 2))
            shift[:, axis] = 1
            design = np.concatenate((body[i, :, axis, None].double().numpy(), shift), 1)
            rows.append(weight[:, None] * design)
            right.append(weight * inputs[i, :, 2 + axis].double().numpy())
        scale, *shift = np.linalg.lstsq(np.concatenate(rows), np.concatenate(right), rcond=None)[0]
        assert float(found.scale[i]) == pytest.approx(scale, abs=1e-4)
        np.testing.assert_allclose(found.shift[i].numpy(), shift, atol=1e-4)


def test_placement_finds_a_person_at_the_edge_of_the_image():
    """Seen 25 degrees off the axis from 6 m; along the optical axis the same would be 3.5 times as far off."""
    torch.manual_seed(0)
    body = torch.randn(3, 25, 3) * torch.tensor([0.25, 0.5, 0.25])
    inputs, crop = seen_inputs(body + torch.tensor([2.8, 0.3, 6.0]))
    error = (place(body, inputs).apply(body) - crop).norm(dim=-1).mean()
    ahead = inputs.clone()
    ahead[..., 9:12] = 0
    assert error < 0.04
    assert (place(body, ahead).apply(body) - crop).norm(dim=-1).mean() > 3 * error


def test_a_person_who_is_hardly_seen_is_not_placed():
    body = torch.randn(3, 25, 3)
    confidence = torch.ones(3, 25, 1)
    confidence[1, 3:] = 0
    confidence[2] = 0
    inputs, _ = seen_inputs(body + torch.tensor([0.0, 0.0, 9.0]), confidence=confidence)
    placement = place(body, inputs)
    assert placement.is_placed.tolist() == [True, False, False]
    assert torch.isfinite(placement.apply(body)).all()
    flipped = place(body * torch.tensor([-1.0, -1.0, 1.0]), inputs)
    assert not flipped.is_placed.any()  # a mirror image is not the person


def test_2d_mesh_is_c_times_points():
    torch.manual_seed(0)
    net = Mesh2D(torch.randn(9, 5), torch.randn(5, 25), feature_size=11, dim=8, depth=1).requires_grad_(False)
    torch.nn.init.normal_(net.head.weight)
    inputs, F = torch.randn(3, 25, INPUT_SIZE), torch.randn(3, 11)
    found = net(inputs, F)
    offsets = net.head(net.encoder(F))
    A, C, xy = net.A.numpy(), net.C.numpy(), inputs[..., 2:4].numpy()
    for b in range(3):
        for axis in (0, 1):
            P = [sum(A[p, k] * xy[b, k, axis] for k in range(25)) + offsets[b, 2 * p + axis].item() for p in range(5)]
            wanted = [sum(C[v, p] * P[p] for p in range(5)) for v in range(9)]
            np.testing.assert_allclose(found[b, :, axis].numpy(), wanted, atol=1e-4)


def brute_distance(triangle: np.ndarray, point: np.ndarray) -> float:
    """Signed distance to a triangle's outline, by dense sampling of it and by barycentric coordinates."""
    t = np.linspace(0, 1, 2001)[:, None]
    outline = np.concatenate([triangle[i] + t * (triangle[(i + 1) % 3] - triangle[i]) for i in range(3)])
    nearest = np.sqrt(((outline - point) ** 2).sum(-1).min())
    edges = np.stack((triangle[1] - triangle[0], triangle[2] - triangle[0]), 1)
    a, b = np.linalg.solve(edges, point - triangle[0])
    return nearest if a > 0 and b > 0 and a + b < 1 else -nearest


def test_signed_distance_is_that_to_the_outline():
    rng = np.random.default_rng(0)
    corners, points = rng.normal(size=(6, 3, 2)) * 3, rng.normal(size=(6, 10, 2)) * 3
    points[:, :3] = (rng.dirichlet(np.ones(3), (6, 3))[..., None] * corners[:, None]).sum(2)  # inside
    found = silhouette.signed_distance(torch.tensor(corners), torch.tensor(points)).numpy()
    wanted = [[brute_distance(c, p) for p in row] for c, row in zip(corners, points)]
    np.testing.assert_allclose(found, wanted, atol=2e-3)
    assert (found[:, :3] > 0).all()


def test_a_flat_triangle_has_a_finite_gradient():
    corners = torch.tensor([[[0.0, 0], [1, 0], [2, 0]], [[1.0, 1], [1, 1], [1, 1]]], requires_grad=True)
    points = torch.tensor([[[0.5, 0.0], [3.0, 2.0]], [[1.0, 1.0], [0.0, 1.0]]])
    silhouette.signed_distance(corners, points).sum().backward()
    assert torch.isfinite(corners.grad).all()


@pytest.mark.parametrize("spread", [0.15, 0.5, 1.5])
def test_mask_is_the_soft_rasterisers(spread, monkeypatch):
    """Every triangle against every pixel, without windows; triangles within the picture, and larger than it."""
    monkeypatch.setattr(silhouette, "WINDOWS", (4, 6))
    torch.manual_seed(0)
    mesh = spread * torch.randn(2, 7, 2)
    faces = torch.tensor([[0, 1, 2], [1, 3, 2], [4, 5, 6], [0, 6, 3]])
    found = silhouette.render(mesh, faces, resolution=9, extent=1.0, softness_px=0.3)
    centres = [-1 + (i + 0.5) / 4.5 for i in range(9)]
    for b in range(2):
        for row in range(9):
            for column in range(9):
                empty = 1.0
                for face in faces:
                    triangle = mesh[b, face].double().numpy()
                    distance = brute_distance(triangle, np.array([centres[column], centres[row]])) * 4.5  # in pixels
                    empty *= 1 - 1 / (1 + np.exp(-distance / 0.3))
                assert float(found[b, row, column]) == pytest.approx(1 - empty, abs=0.012)


def test_a_square_fills_its_pixels():
    mask = silhouette.render(SQUARE[None], HALVES, resolution=8, extent=1.0, softness_px=0.05)
    wanted = torch.zeros(8, 8)
    wanted[2:6, 2:6] = 1
    torch.testing.assert_close(mask[0].round(), wanted)
    moved = silhouette.render(
        SQUARE[None] + torch.tensor([0.25, 0.0]), HALVES, resolution=8, extent=1.0, softness_px=0.05
    )
    torch.testing.assert_close(moved[0].round(), wanted.roll(1, dims=1))  # x to the right
    nowhere = silhouette.render(SQUARE[None] + 9, HALVES, resolution=8, extent=1.0, softness_px=0.05)
    assert (nowhere == 0).all()


def test_edge_band_by_hand():
    rng = np.random.default_rng(0)
    mask = (rng.random((2, 9, 9)) > 0.8).astype(float)
    found = silhouette.edge_band(torch.tensor(mask), 1).numpy()
    for b in range(2):
        for y in range(9):
            for x in range(9):
                near = mask[b, max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
                assert found[b, y, x] == float(near.min() == 0 and near.max() == 1)


def test_trimap_loss_is_equation_6():
    P = torch.tensor([[[1.0, 1, 0], [1, 1, 0], [0, 0, 0]]])
    G = torch.tensor([[[0.0, 1, 1], [0, 1, 1], [0, 0, 0]]])
    band = torch.tensor([[[1.0, 1, 0], [1, 0, 0], [1, 1, 1]]])
    # all: 2 of 6 pixels; within the band: 1 of 3
    assert float(silhouette.trimap_loss(P, G, band)) == pytest.approx(2 - 2 / 6 - 1 / 3)
    assert float(silhouette.trimap_loss(G, G, band)) == pytest.approx(0)
    half = torch.full((1, 1, 1), 0.5)
    assert float(silhouette.trimap_loss(half, torch.ones(1, 1, 1), torch.ones(1, 1, 1))) == pytest.approx(1)


def test_render_loss_draws_a_mesh_over_the_truth():
    shift = torch.tensor([0.3, -0.2], requires_grad=True)
    optimizer = torch.optim.Adam([shift], lr=0.02)
    losses = []
    for _ in range(40):
        loss = silhouette.render_loss(SQUARE[None] + shift, SQUARE[None], HALVES, resolution=24).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert shift.abs().max() < 0.03
    assert losses[-1] < 0.5 * losses[0]


def test_render_loss_gradient_is_the_finite_difference():
    torch.manual_seed(0)
    mesh = (SQUARE[None] + 0.1 * torch.randn(1, 4, 2)).requires_grad_()
    direction = torch.randn(1, 4, 2)

    def loss(points: torch.Tensor) -> torch.Tensor:
        return silhouette.render_loss(points, SQUARE[None], HALVES, resolution=24, softness_px=1.0).sum()

    (gradient,) = torch.autograd.grad(loss(mesh), mesh)
    step = 1e-3
    with torch.no_grad():
        difference = (loss(mesh + step * direction) - loss(mesh - step * direction)) / (2 * step)
    assert float((gradient * direction).sum()) == pytest.approx(float(difference), rel=0.02)


def test_posed_people_far_off_leave_the_loss_finite():
    mesh = (SQUARE[None].repeat(2, 1, 1) + torch.tensor([[[50.0, 0.0]], [[0.0, 0.0]]])).requires_grad_()
    loss = silhouette.render_loss(mesh, SQUARE[None].repeat(2, 1, 1), HALVES, resolution=16)
    loss.sum().backward()
    assert torch.isfinite(loss).all() and torch.isfinite(mesh.grad).all()
    assert loss[0].item() == pytest.approx(2)
    nowhere = silhouette.render_loss(SQUARE[None], SQUARE[None] + 9, HALVES, resolution=16)
    assert nowhere.item() == pytest.approx(2)
    turned = axis_angle_to_matrix(torch.tensor([0.0, 0.0, 0.3]))[:2, :2]
    assert torch.isfinite(silhouette.render_loss(SQUARE[None] @ turned * 40, SQUARE[None], HALVES)).all()
