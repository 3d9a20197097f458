"""core.perception.anchors: the anchor layout, decoding, suppression and letterboxing against literal versions."""

from __future__ import annotations

import numpy as np
import pytest

from core.perception.anchors import (
    ANCHOR_CENTERS,
    Detection,
    Letterbox,
    box_overlaps,
    decode_detections,
    letterbox,
    suppress_overlaps,
)
from core.perception.networks import detector_regions, view_region


def anchors_literally() -> list[tuple[float, float]]:
    """MediaPipe's SsdAnchorsCalculator for pose detection: layers of one stride share a feature map."""
    strides = [8, 16, 32, 32, 32]
    centers, layer = [], 0
    while layer < len(strides):
        count, last = 0, layer
        while last < len(strides) and strides[last] == strides[layer]:
            count += 2  # aspect ratio 1, and the interpolated scale
            last += 1
        cells = -(-224 // strides[layer])
        for y in range(cells):
            for x in range(cells):
                centers += [((x + 0.5) / cells * 224, (y + 0.5) / cells * 224)] * count
        layer = last
    return centers


def test_anchor_layout():
    np.testing.assert_allclose(ANCHOR_CENTERS, anchors_literally())


def test_decoding_by_hand():
    scores, boxes = np.full(2254, -10.0), np.zeros((2254, 12))
    scores[[5, 2000]] = 0.0, 3.0
    boxes[5] = [1, 2, 20, 10, 3, 4, 0, -30, 0, 0, 0, 0]
    found = decode_detections(scores, boxes, Letterbox(0.5, (-8.0, 4.0)))
    assert [d.score for d in found] == pytest.approx([1 / (1 + np.exp(-3)), 0.5])
    x, y = ANCHOR_CENTERS[5]
    np.testing.assert_allclose(found[1].box, np.array([x - 9, y - 3, x + 11, y + 7]) * 2 + [-8, 4, -8, 4])
    np.testing.assert_allclose(
        found[1].points[:2], [[(x + 3) * 2 - 8, (y + 4) * 2 + 4], [x * 2 - 8, (y - 30) * 2 + 4]]
    )


def make_detection(score: float, x: float, y: float, side: float = 10.0) -> Detection:
    return Detection(score, np.array([x, y, x + side, y + side]), np.full((4, 2), x))


def test_suppression_averages_overlapping_boxes():
    near, same, far = make_detection(0.9, 0, 0), make_detection(0.6, 2, 0), make_detection(0.7, 50, 0)
    merged = suppress_overlaps([same, far, near])
    assert [d.score for d in merged] == [0.9, 0.7]
    np.testing.assert_allclose(merged[0].box, (0.9 * near.box + 0.6 * same.box) / 1.5)
    np.testing.assert_allclose(merged[0].points, (0.9 * near.points + 0.6 * same.points) / 1.5)
    np.testing.assert_allclose(merged[1].box, far.box)


def test_suppression_survives_an_empty_box():
    flat = [Detection(0.8, np.array([5.0, 5, 5, 5]), np.zeros((4, 2))) for _ in range(2)]
    assert len(suppress_overlaps(flat)) == 2


def test_overlap_by_hand():
    boxes = np.array([[2.0, 2, 6, 6], [4, 0, 8, 4], [0, 0, 4, 4], [1, 1, 1, 1]])
    np.testing.assert_allclose(box_overlaps(np.array([0.0, 0, 4, 4]), boxes), [4 / 28, 0, 1, 0])
    assert box_overlaps(np.ones(4), np.ones((1, 4))).tolist() == [0]


@pytest.mark.parametrize("shape", [(120, 400), (400, 120), (90, 90), (1080, 60)])
def test_a_spot_is_found_where_it_is(shape):
    """Every view of a frame with one bright spot leads back to the spot's place."""
    image = np.zeros((*shape, 3), np.uint8)
    height, width = shape
    x, y = width * 3 // 4, height * 3 // 4
    reach = max(2, max(shape) // 80)
    image[max(0, y - reach) : y + reach, max(0, x - reach) : x + reach] = 255
    expected = np.argwhere(image[..., 0] > 0).mean(0)[::-1] + 0.5
    regions = detector_regions(width, height)
    assert regions[0] == (0, 0, width, height)
    hits = 0
    for region in regions:
        square, placed = view_region(image, region)
        assert square.shape == (224, 224, 3)
        if x + reach > region[0] + region[2] or x - reach < region[0]:
            continue
        if y + reach > region[1] + region[3] or y - reach < region[1]:
            continue
        hits += 1
        weights = square[..., 0].astype(float)
        rows, columns = np.mgrid[:224, :224] + 0.5
        middle = np.array([(weights * columns).sum(), (weights * rows).sum()]) / weights.sum()
        np.testing.assert_allclose(middle / placed.scale + placed.origin, expected, atol=0.6 / placed.scale)
    assert hits >= 1


def test_regions_cover_the_frame():
    for width, height in ((1768, 524), (1080, 1920), (1280, 720), (640, 480)):
        covered = np.zeros((height, width), bool)
        for x, y, w, h in detector_regions(width, height)[1:] or [(0, 0, width, height)]:
            assert x >= 0 and y >= 0 and x + w <= width and y + h <= height
            covered[y : y + h, x : x + w] = True
        assert covered.all()


def test_letterbox_keeps_the_aspect():
    square, placed = letterbox(np.full((100, 50, 3), 255, np.uint8))
    columns = np.flatnonzero(square[112, :, 0])
    assert (columns[0], columns[-1]) == (56, 167) and placed.scale == pytest.approx(2.24)
