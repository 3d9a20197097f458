"""core.perception.roi: the crop rule on hand-made cases, and that crops show what the coordinates say."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.perception.roi import (
    Roi,
    crop_images,
    crop_numpy,
    crop_to_image,
    image_to_crop,
    roi_from_points,
    stack_rois,
    wrap_angle,
)


def make_roi(x: float, y: float, size: float, angle: float) -> Roi:
    return Roi(torch.tensor([x, y]), torch.tensor(size), torch.tensor(angle))


@pytest.mark.parametrize(
    ("offset", "angle"),
    [
        ((0, -40), 0.0),
        ((40, 0), math.pi / 2),
        ((0, 40), -math.pi),
        ((-40, 0), -math.pi / 2),
        ((40, -40), math.pi / 4),
    ],
)
def test_scale_point_ends_up_above_the_centre(offset, angle):
    center = torch.tensor([100.0, 200.0])
    point = center + torch.tensor(offset, dtype=torch.float32)
    roi = roi_from_points(center, point)
    assert float(roi.size) == pytest.approx(2.5 * math.hypot(*offset))
    assert float(wrap_angle(roi.angle - angle)) == pytest.approx(0, abs=1e-6)
    # In the crop the point lies straight above the centre, at 1 / 1.25 of the way to the border.
    assert image_to_crop(point[None], roi)[0].tolist() == pytest.approx([128, 128 - 128 / 1.25], abs=1e-3)


def test_known_crop_point():
    """A crop turned by 90 degrees clockwise: its x axis points down in the image, its y axis to the left."""
    roi = make_roi(100, 50, 512, math.pi / 2)
    points = crop_to_image(torch.tensor([[128.0, 128.0], [129.0, 128.0], [128.0, 129.0]]), roi)
    np.testing.assert_allclose(points, [[100, 50], [100, 52], [98, 50]], atol=1e-4)


numbers = st.floats(-500, 500, width=32)


@given(numbers, numbers, st.floats(20, 2000, width=32), st.floats(-3.125, 3.125, width=32), numbers, numbers)
def test_projection_and_back(x, y, size, angle, u, v):
    roi = make_roi(x, y, size, angle)
    points = torch.tensor([[u, v]])
    back = image_to_crop(crop_to_image(points, roi), roi)
    tolerance = 1e-3 * (1 + 1000 / size) + 1e-5 * (abs(u) + abs(v))
    np.testing.assert_allclose(back, points, atol=tolerance)


def coordinate_image(height: int, width: int) -> np.ndarray:
    """[H, W, 3] float32 whose channels 0 and 1 are the x and y of the pixel centre, channel 2 is one."""
    y, x = np.mgrid[:height, :width].astype(np.float32) + 0.5
    return np.stack((x, y, np.ones_like(x)), -1)


@pytest.mark.parametrize("angle", [0.0, 0.7, -2.0, 3.1])
@pytest.mark.parametrize("size", [60.0, 256.0, 330.0])
def test_crops_show_what_the_coordinates_say(size, angle):
    """A picture of its own coordinates: every crop pixel holds the place that crop_to_image gives its centre."""
    picture = coordinate_image(400, 500)
    roi = make_roi(231.3, 187.6, size, angle)
    v, u = np.mgrid[:256, :256].astype(np.float32) + 0.5
    places = crop_to_image(torch.from_numpy(np.stack((u, v), -1).reshape(-1, 2)), roi).numpy().reshape(256, 256, 2)
    inside = ((places > 1) & (places < (499, 399))).all(-1)
    assert inside.mean() > 0.5
    rolled = np.roll(picture, 1, -1)  # any channel order will do
    by_cv2 = np.roll(crop_numpy(rolled, roi), -1, -1)
    by_torch = crop_images(torch.from_numpy(picture).permute(2, 0, 1)[None], stack_rois([roi]))[0].permute(1, 2, 0)
    for crop, tolerance in ((by_cv2, 0.07), (by_torch.numpy(), 0.01)):  # cv2 rounds places to 1/32 px
        np.testing.assert_allclose(crop[inside][:, :2], places[inside], atol=tolerance)


def test_outside_is_black():
    picture = np.full((50, 50, 3), 200, np.uint8)
    crop = crop_numpy(picture, make_roi(0, 25, 100, 0))
    assert (crop[:, :100] == 0).all() and (crop[70:180, 140:250] == 200).all()


def test_crops_of_many_images_equal_one_by_one():
    generator = torch.Generator().manual_seed(3)
    images = torch.rand(3, 3, 90, 120, generator=generator)
    rois = [make_roi(60, 40, 80, 0.3), make_roi(20, 70, 130, -1), make_roi(100, 10, 40, 2)]
    together = crop_images(images, stack_rois(rois))
    for k, roi in enumerate(rois):
        torch.testing.assert_close(together[k : k + 1], crop_images(images[k : k + 1], stack_rois([roi])))


def test_gradients_flow_through_a_crop():
    roi = Roi(torch.tensor([[60.0, 40.0]], requires_grad=True), torch.tensor([80.0]), torch.tensor([0.3]))
    crop_images(torch.rand(1, 3, 90, 120), roi).sum().backward()
    assert torch.isfinite(roi.center.grad).all() and roi.center.grad.abs().sum() > 0
