"""core.preview: the body appears where it belongs, in its person's colour; sheets and films can be opened."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from core import preview, result
from core.errors import Cancelled, InputError, OutputError
from core.records import Camera, Motion
from core.stages import Stages
from tests.engine_doubles import FakeStages

WIDTH, HEIGHT, FRAMES = 320, 240, 24
CUBE = np.array([(x, y, z) for x in (-0.2, 0.2) for y in (-0.2, 0.2) for z in (-0.2, 0.2)])
SIDES = np.array([(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)])


class CubeStages(FakeStages):
    """The body is a cube of 0.4 m at trans; frames come from the real reader."""

    def load_body(self, path, device):
        body = super().load_body(path, device)
        body.v_template, body.quads = CUBE, SIDES
        return body

    def open_frames(self, path, first, last):
        return Stages.open_frames(self, path, first, last)


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    """A grey film whose brightness is the frame number."""
    path = tmp_path_factory.mktemp("video") / "grey.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (WIDTH, HEIGHT))
    for i in range(FRAMES):
        writer.write(np.full((HEIGHT, WIDTH, 3), 100 + i, np.uint8))
    writer.release()
    return path


def write_motion(folder: Path, person: int, x: float, frames: range, depth: float = 4.0) -> Path:
    """A cube at camera (x, 0, depth), stored in a turned world so that the way back is exercised."""
    count = len(frames)
    camera = Camera(400.0, 400.0, WIDTH / 2, HEIGHT / 2, WIDTH, HEIGHT)
    R = np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])
    t = np.array([3.0, -2.0, 1.0])
    place = np.array([x, 0.0, depth])
    motion = Motion(
        person=person,
        frames=np.array(frames, np.int32),
        times=np.array(frames) / 25,
        poses=np.zeros((count, 72), np.float32),
        trans=np.tile(R @ place + t, (count, 1)),
        betas=np.zeros(16, np.float32),
        joints_cam=np.tile(place, (count, 24, 1)).astype(np.float32) + np.linspace(-0.2, 0.2, 24)[None, :, None],
        keypoints2d=np.zeros((count, 25, 3), np.float32),
        confidence=np.ones(count, np.float32),
        camera=camera,
        R_world_from_cam=np.tile(R, (count, 1, 1)),
        t_world_from_cam=np.tile(t, (count, 1)),
        contacts=np.zeros((count, 4), np.float32),
    )
    return result.write_result(folder / f"grey_person{person}.npz", motion, fps=25.0, body_name="double")


def frames_of(path: Path) -> list[np.ndarray]:
    capture, found = cv2.VideoCapture(str(path)), []
    while (read := capture.read())[0]:
        found.append(read[1])
    capture.release()
    return found


def is_like(pixel: np.ndarray, color: tuple[int, int, int]) -> bool:
    """Whether a BGR pixel has the colour's hue: channels in proportion."""
    a, b = np.asarray(pixel, float), np.asarray(color, float)
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) > 0.99


def test_film_shows_original_and_bodies_in_their_colours(video, tmp_path):
    paths = [write_motion(tmp_path, 0, -0.8, range(4, 20)), write_motion(tmp_path, 1, 0.8, range(8, 20))]
    target = preview.draw_preview(paths, video, tmp_path / "film.mp4", stages=CubeStages())
    film = frames_of(target)
    assert len(film) == 16
    assert film[0].shape == (2 * HEIGHT, WIDTH, 3), "wider than tall: one above the other"
    # camera x = -0.8 m at 4 m and 400 px: 80 px left of the middle
    left, right = (HEIGHT + 120, 80), (HEIGHT + 120, 240)
    grey = (1, 1, 1)
    assert is_like(film[0][left], preview.COLORS[0]) and is_like(film[0][right], grey)
    assert is_like(film[10][left], preview.COLORS[0]) and is_like(film[10][right], preview.COLORS[1])
    assert is_like(film[10][120, 80], grey) and abs(int(film[10][120, 80, 0]) - 114) <= 6
    assert not list(tmp_path.glob(".*")), "no temporary file is left"


def test_the_nearer_person_is_in_front(video, tmp_path):
    paths = [write_motion(tmp_path, 0, 0.0, range(4, 6), depth=3.0), write_motion(tmp_path, 1, 0.0, range(4, 6))]
    film = frames_of(preview.draw_preview(paths, video, tmp_path / "film.mp4", stages=CubeStages()))
    assert is_like(film[0][HEIGHT + 120, 160], preview.COLORS[0])


def test_sheet_holds_eight_frames_close_up(video, tmp_path):
    paths = [write_motion(tmp_path, 0, -0.8, range(4, 20))]
    sheet = cv2.imread(str(preview.draw_preview(paths, video, tmp_path / "sheet.png", stages=CubeStages())))
    rows, columns = 2, preview.SHEET_COLUMNS
    height, width = (sheet.shape[0] - 6) // rows, (sheet.shape[1] - 6 * (columns - 1)) // columns
    greys = []
    for row in range(rows):
        for column in range(columns):
            cell = sheet[row * (height + 6) :, column * (width + 6) :][:height, :width]
            drawn = cell[:, width // 2 :]
            assert is_like(drawn[height // 2, width // 4], preview.COLORS[0])
            greys.append(int(cell[height - 3, 3, 0]) - 100)
    assert greys == sorted(greys) and greys[0] >= 4 and greys[-1] < 20 and len(set(greys)) == 8
    assert width < WIDTH, "cropped to the person"


def test_one_frame_gives_one_picture(video, tmp_path):
    path = write_motion(tmp_path, 0, 0.0, range(7, 8))
    sheet = cv2.imread(str(preview.draw_preview([path], video, tmp_path / "one.png", stages=CubeStages())))
    assert sheet.shape[1] > sheet.shape[0]


def test_wrong_input_is_refused(video, tmp_path):
    path = write_motion(tmp_path, 0, 0.0, range(4, 8))
    with pytest.raises(InputError, match=r"a .png or an .mp4 file, not x.gif"):
        preview.draw_preview([path], video, tmp_path / "x.gif", stages=CubeStages())
    small = tmp_path / "small.avi"
    writer = cv2.VideoWriter(str(small), cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 64))
    for _ in range(12):
        writer.write(np.zeros((64, 64, 3), np.uint8))
    writer.release()
    with pytest.raises(InputError, match="64 x 64 px, the result was made from 320 x 240 px"):
        preview.draw_preview([path], small, tmp_path / "x.png", stages=CubeStages())
    stages = CubeStages()
    body = stages.load_body(None, "cpu")
    body.name = "other"
    stages.load_body = lambda path, device: body
    with pytest.raises(InputError, match="made with the body 'double', not 'other'"):
        preview.draw_preview([path], video, tmp_path / "x.png", stages=stages)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        preview.draw_preview([path], video, tmp_path / "file" / "x.png", stages=CubeStages())


def test_stopping_leaves_no_file(video, tmp_path):
    path = write_motion(tmp_path, 0, 0.0, range(4, 20))
    calls = iter([False] * 5 + [True] * 50)
    with pytest.raises(Cancelled):
        preview.draw_preview(
            [path], video, tmp_path / "film.mp4", stages=CubeStages(), should_stop=lambda: next(calls)
        )
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
