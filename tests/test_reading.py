"""core.perception.reading: heat maps against a literal loop, projection of landmarks and world axes."""

from __future__ import annotations

import math

import numpy as np
import torch

from core.perception.blazepose import LandmarkOutput
from core.perception.certainty import confidence_of
from core.perception.heat import read_heat
from core.perception.reading import (
    LANDMARK_MIRROR,
    CropReading,
    Reading,
    average_readings,
    decode_output,
    mirror_reading,
    place_reading,
    read_images,
    refine_by_heatmaps,
    rotate_world,
)
from core.perception.roi import Roi, crop_to_image
from core.skeleton import BLAZEPOSE_INDICES, KEYPOINT_MIRROR


def refine_literally(points: np.ndarray, heatmaps: np.ndarray) -> np.ndarray:
    """MediaPipe's refine_landmarks_from_heatmap_calculator with kernel 7 and threshold 0.5, one point at a time."""
    refined = points.copy()
    P, height, width = heatmaps.shape
    for p in range(P):
        column, row = int(np.floor(points[p, 0] / 256 * width)), int(np.floor(points[p, 1] / 256 * height))
        if not (0 <= column < width and 0 <= row < height):
            continue
        total = best = sum_column = sum_row = 0.0
        for r in range(max(0, row - 3), min(height, row + 4)):
            for c in range(max(0, column - 3), min(width, column + 4)):
                heat = 1 / (1 + math.exp(-float(heatmaps[p, r, c])))
                total, best = total + heat, max(best, heat)
                sum_column, sum_row = sum_column + heat * c, sum_row + heat * r
        if best >= 0.5:
            refined[p] = sum_column / total / width * 256, sum_row / total / height * 256
    return refined


def test_refinement_equals_the_literal_loop():
    rng = np.random.default_rng(0)
    points = rng.uniform(-20, 276, (3, 39, 2))
    points[0, :4] = [[0, 0], [255.99, 255.99], [2, 250], [256, 10]]
    heatmaps = rng.normal(-3, 2, (3, 39, 64, 64))
    heatmaps[1] -= 20  # nowhere warm enough
    ours = refine_by_heatmaps(torch.from_numpy(points), torch.from_numpy(heatmaps)).numpy()
    theirs = np.stack([refine_literally(points[b], heatmaps[b]) for b in range(3)])
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    assert (ours[1] == points[1]).all() and (ours[0] != points[0]).any()


def test_world_axes_turn_with_the_crop():
    """Crop turned clockwise by 90 degrees: what the crop calls right is down in the image; depth stays."""
    world = torch.tensor([[[1.0, 0, 0], [0, 1, 0], [0, 0, 1]]])
    turned = rotate_world(world, torch.tensor([math.pi / 2]))
    np.testing.assert_allclose(turned[0], [[0, 1, 0], [-1, 0, 0], [0, 0, 1]], atol=1e-6)


def read_output(output: LandmarkOutput, roi: Roi) -> Reading:
    return place_reading(decode_output(output), roi)


def read_both(output: LandmarkOutput, mirrored: LandmarkOutput, roi: Roi) -> Reading:
    """By a network that gives these two answers."""
    answers = iter((output, mirrored))
    images = torch.zeros(len(output.presence), 3, 8, 8)
    return place_reading(read_images(lambda _: next(answers), images, mirrored_under=math.inf), roi)


def make_output(B: int) -> LandmarkOutput:
    generator = torch.Generator().manual_seed(1)
    return LandmarkOutput(
        landmarks=torch.rand(B, 39, 5, generator=generator) * 200,
        presence=torch.rand(B, generator=generator),
        heatmaps=torch.full((B, 39, 64, 64), -20.0),
        world=torch.rand(B, 39, 3, generator=generator),
        embedding=torch.rand(B, 1152, generator=generator),
    )


def test_points_land_where_the_crop_was():
    output = make_output(2)
    roi = Roi(torch.tensor([[300.0, 200.0], [50.0, 60.0]]), torch.tensor([512.0, 128.0]), torch.tensor([0.0, 1.0]))
    reading = read_output(output, roi)
    kept = output.landmarks[:, list(BLAZEPOSE_INDICES), :2]
    np.testing.assert_allclose(reading.keypoints[0, :, :2], kept[0] * 2 + torch.tensor([44.0, -56.0]), atol=1e-3)
    hips, above = crop_to_image(output.landmarks[:, 33:35, :2], roi).unbind(1)
    np.testing.assert_allclose(reading.next_roi.center, hips, atol=1e-3)
    np.testing.assert_allclose(reading.next_roi.size, 2.5 * (above - hips).norm(dim=-1), rtol=1e-5)


def test_confidence_follows_from_the_smaller_of_visibility_and_presence_and_the_heat():
    output = make_output(1)
    output.landmarks[0, :, 3], output.landmarks[0, :, 4] = 0.0, 50.0
    output.landmarks[0, 0, 3:] = torch.tensor([50.0, math.log(0.25 / 0.75)])
    output.heatmaps[0, :, 30:33, 30:33] = 3.0
    reading, kept = decode_output(output), list(BLAZEPOSE_INDICES)
    seen, heat = reading.visibility, reading.heat
    np.testing.assert_allclose(seen[0], [0.25] + [0.5] * 24, atol=1e-6)
    expected = read_heat(output.landmarks[:, kept, :2] / 256, output.heatmaps[:, kept])
    np.testing.assert_allclose(heat, expected, atol=1e-6)
    roi = Roi(torch.zeros(1, 2), torch.ones(1), torch.zeros(1))
    confidence = read_output(output, roi).keypoints[0, :, 2]
    np.testing.assert_allclose(confidence, confidence_of(seen, heat)[0], atol=1e-6)


LEFT_RIGHT = ((1, 4), (2, 5), (3, 6), (7, 8), (9, 10), *((k, k + 1) for k in range(11, 33, 2)))
"""BlazePose's landmarks: eyes, ears, mouth, then shoulders to toes."""


def mirror_output(output: LandmarkOutput) -> LandmarkOutput:
    """What a network without faults answers to the mirror image, written out a landmark at a time."""
    landmarks, world, heatmaps = output.landmarks.clone(), output.world.clone(), output.heatmaps.clone()
    for left, right in (*LEFT_RIGHT, *((r, l) for l, r in LEFT_RIGHT), *((k, k) for k in (0, *range(33, 39)))):
        landmarks[:, left] = output.landmarks[:, right]
        landmarks[:, left, 0] = 256 - output.landmarks[:, right, 0]
        world[:, left] = output.world[:, right] * torch.tensor([-1.0, 1.0, 1.0])
        heatmaps[:, left] = output.heatmaps[:, right].flip(-1)
    return output._replace(landmarks=landmarks, world=world, heatmaps=heatmaps)


def test_the_two_readings_of_a_faultless_network_are_one():
    output = make_output(2)
    output.heatmaps[:, torch.arange(39), torch.arange(39), 50] = -1.0  # a hottest cell, too faint to move points
    roi = Roi(torch.tensor([[300.0, 200.0], [50.0, 60.0]]), torch.tensor([512.0, 128.0]), torch.tensor([0.3, -1.0]))
    both, plain = read_both(output, mirror_output(output), roi), read_output(output, roi)
    for name in ("keypoints", "world", "presence", "visibility", "embedding"):
        np.testing.assert_allclose(getattr(both, name), getattr(plain, name), rtol=1e-5, atol=2e-4, err_msg=name)
    np.testing.assert_allclose(both.next_roi.center, plain.next_roi.center, atol=2e-4)


def test_heat_is_taken_in_before_the_mean():
    """A heat cell stands for its left edge. Each reading has its own such error, and they cancel."""
    output = make_output(1)
    output.landmarks[0, :, 0], output.landmarks[0, :, 1] = 130.0, 130.0
    output.heatmaps[0, :, 32, 32] = 20.0  # the cell from 128 to 132
    roi = Roi(torch.tensor([[128.0, 128.0]]), torch.tensor([256.0]), torch.tensor([0.0]))
    np.testing.assert_allclose(read_output(output, roi).keypoints[0, :, :2], 128, atol=1e-3)
    both = read_both(output, mirror_output(output), roi).keypoints[0]
    np.testing.assert_allclose(both[:, :2], [[130, 128]] * 25, atol=1e-3)


def reading_of(points: torch.Tensor, confidence: float) -> CropReading:
    known = torch.full((1, 39), confidence)
    return CropReading(
        points=points[None],
        confidence=known,
        world=torch.zeros(1, 39, 3),
        presence=torch.ones(1),
        visibility=known[:, :25],
        heat=torch.zeros(1, 25, 6),
        depth=torch.zeros(1, 25),
        embedding=torch.zeros(1, 1152),
    )


def test_limbs_whose_sides_are_exchanged_are_not_averaged_into_the_middle():
    points = torch.rand(39, 2, generator=torch.Generator().manual_seed(3)) * 256
    legs, arms = list(range(23, 33)), list(range(11, 23))
    other = points.clone()
    other[legs] = points[list(LANDMARK_MIRROR)][legs]
    other[arms] += 4.0
    mean = average_readings(reading_of(points, 0.9), reading_of(other, 0.6)).points[0]
    np.testing.assert_allclose(mean[legs], points[legs])
    np.testing.assert_allclose(mean[arms], points[arms] + 2.0, atol=1e-4)
    mean = average_readings(reading_of(points, 0.5), reading_of(other, 0.6)).points[0]
    np.testing.assert_allclose(mean[legs], other[legs])


def test_mirroring_twice_is_nothing_and_agrees_with_the_keypoints():
    reading = reading_of(torch.rand(39, 2, generator=torch.Generator().manual_seed(4)) * 256, 0.5)
    np.testing.assert_allclose(mirror_reading(mirror_reading(reading)).points, reading.points, atol=1e-4)
    assert [BLAZEPOSE_INDICES.index(LANDMARK_MIRROR[k]) for k in BLAZEPOSE_INDICES] == list(KEYPOINT_MIRROR)


def test_images_are_read_again_in_a_mirror_where_that_is_asked_for():
    """Two people, the second one faint: only their image is turned round, and every field is the mean of both."""
    plain, other = make_output(2), make_output(3)
    column, row = (plain.landmarks[0, :, :2] / 4).long().T
    plain.heatmaps[0, torch.arange(39), row, column] = 5.0
    plain.landmarks[0, :, 3:], plain.landmarks[1, :, 3:] = 9.0, -2.0
    asked = []

    def network(images: torch.Tensor) -> LandmarkOutput:
        asked.append(images)
        return plain if len(asked) == 1 else LandmarkOutput(*(part[2:] for part in other))

    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(5))
    alone = decode_output(plain)
    assert alone.certainty[0] > alone.certainty[1]
    reading = read_images(network, images, mirrored_under=float(alone.certainty.mean()))
    torch.testing.assert_close(asked[1], images[1:].flip(-1))
    mirrored = mirror_reading(decode_output(LandmarkOutput(*(part[2:] for part in other))))
    for name in CropReading._fields:
        first, second = getattr(alone, name), getattr(mirrored, name)
        torch.testing.assert_close(getattr(reading, name)[0], first[0])
        if name in ("presence", "visibility", "heat", "depth"):
            torch.testing.assert_close(getattr(reading, name)[1], (first[1] + second[0]) / 2)
    torch.testing.assert_close(reading.embedding, alone.embedding)
    asked.clear()
    read_images(network, images)
    assert len(asked) == 1
