"""core.panning: a textured world seen by a camera whose rotations are known; figures stand in the world as ever."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from motion_maker import CAMERA, Truth, make_track, skin_keypoints
from scipy.spatial.transform import Rotation
from test_world import BODY, walk_in_world
from test_world import film as film_motion

from core.panning import rotations_at, track_camera
from core.rigid import turn_motion
from core.video import Frame
from core.world import place

WIDTH, HEIGHT, FOCAL = 640, 360, 700.0
LENS = replace(CAMERA, fx=FOCAL, fy=FOCAL, cx=WIDTH / 2 - 0.5, cy=HEIGHT / 2 - 0.5, width=WIDTH, height=HEIGHT)
K = np.array([[FOCAL, 0, LENS.cx], [0, FOCAL, LENS.cy], [0, 0, 1]])


def panorama(seed: int = 0) -> np.ndarray:
    """A wall of noise, wide enough for all views: what a camera like LENS with a larger picture sees."""
    rng = np.random.default_rng(seed)
    layers = [
        cv2.resize(rng.random((n, 3 * n)), (3 * WIDTH, 3 * HEIGHT), interpolation=cv2.INTER_CUBIC)
        for n in (9, 40, 90)
    ]
    image = np.clip(sum(layers) / 3, 0, 1) * 255
    return np.repeat(image.astype(np.uint8)[..., None], 3, axis=2)


def film(turns: np.ndarray, boxes: np.ndarray | None = None) -> list[Frame]:
    """Frames of a camera with axes x_first = turns[i] x_i; something moves on its own in the boxes."""
    wall, frames = panorama(), []
    shift = np.array([[1, 0, WIDTH], [0, 1, HEIGHT], [0, 0, 1.0]])
    for i, R in enumerate(turns):
        picture_from_wall = K @ R.T @ np.linalg.inv(K) @ np.linalg.inv(shift)
        image = cv2.warpPerspective(wall, picture_from_wall, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR)
        if boxes is not None:
            x0, y0, x1, y1 = boxes[i].astype(int)
            image[y0:y1, x0:x1] = panorama(1)[: y1 - y0, 5 * i : 5 * i + x1 - x0]
        frames.append(Frame(i + 7, i / 30, image))
    return frames


def pan(count: int, degrees: float) -> np.ndarray:
    """A pan to the right and back up, with a little tilt and roll."""
    share = np.linspace(0, 1, count)
    angles = np.stack([degrees / 6 * np.sin(3 * share), degrees * share, degrees / 12 * share], 1)
    return Rotation.from_euler("xyz", angles, degrees=True).as_matrix()


def off_by(turns: dict[int, np.ndarray], truth: np.ndarray) -> float:
    found = np.stack([turns[i + 7] for i in range(len(truth))])
    return float(np.degrees(Rotation.from_matrix(found.transpose(0, 2, 1) @ truth).magnitude()).max())


def test_a_pan_is_followed_past_what_moves_in_the_picture():
    truth = pan(40, 35.0)
    x = np.linspace(120, 420, 40)
    boxes = np.stack([x, np.full(40, 60), x + 110, np.full(40, 330)], 1)
    _, track = film_motion(*walk_in_world(40))
    track = replace(track, frames=np.arange(7, 47, dtype=np.int32), boxes=boxes.astype(np.float32))
    turns = track_camera(film(truth, boxes), LENS, [track])
    assert off_by(turns, truth) < 0.35  # of 35 degrees
    seen = []
    track_camera(film(truth[:5]), LENS, [], on_progress=seen.append)
    assert seen == [1, 2, 3, 4, 5]


def test_a_camera_that_stands_is_said_to_stand():
    rng = np.random.default_rng(0)
    trembling = Rotation.from_rotvec(rng.normal(0, 0.0005, (20, 3))).as_matrix()
    assert track_camera(film(trembling), LENS, []) == {}
    blank = [Frame(i, i / 30, np.full((HEIGHT, WIDTH, 3), 90, np.uint8)) for i in range(4)]
    assert track_camera(blank, LENS, []) == {}


def test_stopping_keeps_what_is_known():
    asked = iter([False] * 12 + [True] * 99)
    turns = track_camera(film(pan(30, 25.0)), LENS, [], should_stop=lambda: next(asked))
    assert sorted(turns) == list(range(7, 19))
    R = rotations_at(turns, np.array([7, 18, 25]))
    np.testing.assert_array_equal(R[1], R[2])


@pytest.mark.parametrize("lock_feet", [False, True])
def test_the_figure_stands_in_the_world_as_before_a_still_camera(lock_feet):
    motion, track = film_motion(*walk_in_world(60))
    [still] = place([motion], [track], CAMERA, BODY, lock_feet=lock_feet)
    truth = pan(60, 20.0)
    turns = {int(f): R for f, R in zip(motion.frames, truth)}
    seen = turn_motion(motion, truth.transpose(0, 2, 1), BODY)
    assert np.abs(seen.trans - motion.trans).max() > 0.5
    local, trans = seen.rotmats.astype(float), seen.trans.astype(float)
    turned = make_track(Truth(local, trans, *skin_keypoints(BODY._arrays, local, trans)))
    [placed] = place([seen], [turned], CAMERA, BODY, lock_feet=lock_feet, turns=turns)
    near = 0.01 if lock_feet else 1e-4
    np.testing.assert_allclose(placed.trans, still.trans, atol=near)
    np.testing.assert_allclose(placed.R_world_from_cam, still.R_world_from_cam @ truth, atol=1e-4)
    joints, expected = (
        np.einsum("nab,njb->nja", m.R_world_from_cam, m.joints_cam) + m.t_world_from_cam[:, None]
        for m in (placed, still)
    )
    np.testing.assert_allclose(joints, expected, atol=2 * near)
    assert (placed.contacts > 0.5).mean() == pytest.approx((still.contacts > 0.5).mean(), abs=0.03)
