"""core.video: times, orientation, names, and one clear line for everything that is not a video.

Films are written by OpenCV; their display matrix and time table are then patched as the MP4 format defines them.
"""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from tiny_video import write_avi

from core.errors import VideoError
from core.video import VideoReader

ROTATIONS = {
    90: (0, 1, -1, 0),
    180: (-1, 0, 0, -1),
    270: (0, -1, 1, 0),
}
"""a b c d of the track's display matrix [[a, b], [c, d]] that turns the picture clockwise by the angle."""


def write_film(path: Path, *, size: tuple[int, int] = (96, 64), frames: int = 12, fps: float = 25) -> Path:
    """An MPEG-4 film: top left quarter red, the rest grey and brighter with every frame."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), fps, size)
    assert writer.isOpened()
    for k in range(frames):
        image = np.full((size[1], size[0], 3), 40 + 10 * k, np.uint8)
        image[: size[1] // 2, : size[0] // 2] = (0, 0, 255)
        writer.write(image)
    writer.release()
    return path


def find_box(data: bytes, name: bytes) -> int:
    """Offset of the box's content."""
    at = data.index(name)
    return at + 4


def rotate_film(path: Path, clockwise: int) -> Path:
    """Set the display matrix in the track header (version 0: it follows 40 bytes of other fields)."""
    data = bytearray(path.read_bytes())
    start = find_box(data, b"tkhd") + 40
    a, b, c, d = ROTATIONS[clockwise]
    data[start : start + 36] = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def retime_film(path: Path, durations: list[int]) -> Path:
    """Replace the time table (stts) by one entry a frame, in units of the film's time scale, and fix box sizes.

    The film's moov box stands behind its data, so that nothing else moves.
    """
    data = path.read_bytes()
    assert data.index(b"moov") > data.index(b"mdat")
    old = data.index(b"stts") - 4
    old_size = struct.unpack_from(">I", data, old)[0]
    table = b"".join(struct.pack(">II", 1, duration) for duration in durations)
    box = struct.pack(">I4sII", 16 + len(table), b"stts", 0, len(durations)) + table
    growth = len(box) - old_size
    patched = bytearray(data[:old] + box + data[old + old_size :])
    for parent in (b"moov", b"trak", b"mdia", b"minf", b"stbl"):
        at = data.index(parent) - 4
        struct.pack_into(">I", patched, at, struct.unpack_from(">I", data, at)[0] + growth)
    path.write_bytes(patched)
    return path


def red_corner(image: np.ndarray) -> tuple[str, str]:
    """Where the red quarter is."""
    height, width = image.shape[:2]
    red = (image[..., 2] > 150) & (image[..., 0] < 100)
    row, column = np.argwhere(red).mean(0)
    return ("top" if row < height / 2 else "bottom", "left" if column < width / 2 else "right")


def test_a_plain_film(tmp_path):
    with VideoReader(write_film(tmp_path / "a.mp4")) as reader:
        clip, frames = reader.clip, list(reader)
    assert (clip.width, clip.height, clip.fps, clip.frame_count, clip.rotation) == (96, 64, 25, 12, 0)
    assert [frame.index for frame in frames] == list(range(12))
    np.testing.assert_allclose([frame.time for frame in frames], np.arange(12) / 25, atol=1e-6)
    assert frames[0].image.shape == (64, 96, 3) and red_corner(frames[0].image) == ("top", "left")
    brightness = [float(frame.image[50, 80].mean()) for frame in frames]
    np.testing.assert_allclose(brightness, 40 + 10 * np.arange(12), atol=4)


@pytest.mark.parametrize(
    ("clockwise", "corner"), [(90, ("top", "right")), (180, ("bottom", "right")), (270, ("bottom", "left"))]
)
def test_rotation_metadata_is_applied(tmp_path, clockwise, corner):
    with VideoReader(rotate_film(write_film(tmp_path / "a.mp4"), clockwise)) as reader:
        image = next(iter(reader)).image
    assert reader.clip.rotation == clockwise
    assert image.shape[:2] == ((64, 96) if clockwise == 180 else (96, 64)) == (reader.clip.height, reader.clip.width)
    assert red_corner(image) == corner


def test_variable_frame_rate_keeps_its_times(tmp_path):
    path = write_film(tmp_path / "a.mp4", frames=6)
    data = path.read_bytes()
    scale = struct.unpack_from(">I", data, find_box(data, b"mdhd") + 12)[0]
    milliseconds = [20, 100, 20, 20, 60, 40]
    retime_film(path, [scale * ms // 1000 for ms in milliseconds])
    times = [frame.time for frame in VideoReader(path)]
    np.testing.assert_allclose(times, np.cumsum([0, *milliseconds[:-1]]) / 1000, atol=1.5 / scale)


def test_range(tmp_path):
    reader = VideoReader(write_film(tmp_path / "a.mp4"), start=3, end=7)
    assert reader.expected_frames == 4 and reader.clip.frame_count == 12
    assert [(f.index, round(f.time, 3)) for f in reader] == [(3, 0.12), (4, 0.16), (5, 0.2), (6, 0.24)]
    assert [f.index for f in reader.frames_from(5)] == [5, 6]


@pytest.mark.parametrize("is_film", [True, False])
def test_frames_that_are_not_wanted_keep_their_times(tmp_path, is_film):
    if not is_film:
        write_images(tmp_path / "shot", [f"{k}.png" for k in range(12)])
    reader = VideoReader(write_film(tmp_path / "a.mp4") if is_film else tmp_path / "shot", start=2)
    frames = list(reader.frames_from(4, lambda index: index % 3 == 0))
    every = [frame for frame in reader if frame.index >= 4]
    assert [(f.index, f.time) for f in frames] == [(f.index, f.time) for f in every]
    assert [f.index for f in frames if f.image.size] == [6, 9]
    np.testing.assert_array_equal(frames[2].image, every[2].image)


def test_reading_twice_gives_the_same(tmp_path):
    reader = VideoReader(write_film(tmp_path / "a.mp4"))
    once, again = [f.image.sum() for f in reader], [f.image.sum() for f in reader]
    assert once == again and len(once) == 12


@pytest.mark.parametrize("name", ["späť 動画 film.mp4", "a%04d b.mp4", "concat:x.mp4", "#hash##.mp4"])
def test_names(tmp_path, name):
    folder = tmp_path / "ünï cödé"
    folder.mkdir()
    plain = write_film(tmp_path / "plain.mp4", frames=3)
    assert len(list(VideoReader(plain.rename(folder / name)))) == 3


@pytest.mark.parametrize("size", [(98, 66), (97, 65), (33, 201)])
def test_odd_sizes(tmp_path, size):
    folder = tmp_path / "frames"
    folder.mkdir()
    cv2.imwrite(str(folder / "1.png"), np.zeros((size[1], size[0], 3), np.uint8))
    assert next(iter(VideoReader(folder))).image.shape == (size[1], size[0], 3)
    if size[0] % 2 == 0:
        assert next(iter(VideoReader(write_film(tmp_path / "a.mp4", size=size)))).image.shape == (size[1], size[0], 3)


def write_images(folder: Path, names: list[str]) -> None:
    folder.mkdir(exist_ok=True)
    for k, name in enumerate(names):
        cv2.imwrite(str(folder / name), np.full((40, 60, 3), 10 * k, np.uint8))


def test_image_folders_are_read_in_natural_order(tmp_path):
    names = ["shot1.png", "shot2.png", "shot10.png", "shot11.png"]
    write_images(tmp_path / "shot", names)
    (tmp_path / "shot" / "notes.txt").write_text("not an image")
    frames = list(VideoReader(tmp_path / "shot", start=1))
    assert [(f.index, int(f.image[0, 0, 0])) for f in frames] == [(1, 10), (2, 20), (3, 30)]
    assert frames[0].time == pytest.approx(1 / 24)
    assert VideoReader(tmp_path / "shot", fps=50).clip.fps == 50


@pytest.mark.parametrize("pattern", ["s_%04d.png", "s_####.png", "s_%d.png"])
def test_numbered_patterns(tmp_path, pattern):
    write_images(tmp_path, ["s_0007.png", "s_0008.png", "t_0009.png"])
    assert [int(f.image[0, 0, 0]) for f in VideoReader(tmp_path / pattern)] == [0, 10]


def test_images_of_several_sizes_are_refused(tmp_path):
    write_images(tmp_path, ["1.png", "2.png"])
    cv2.imwrite(str(tmp_path / "3.png"), np.zeros((50, 60, 3), np.uint8))
    with pytest.raises(VideoError, match="3.png is 60 x 50 px, the sequence began with 60 x 40"):
        list(VideoReader(tmp_path))


def test_images_of_compositors_are_refused_with_what_to_do(tmp_path):
    for name in ("s_0001.exr", "s_0002.exr"):
        (tmp_path / name).write_bytes(b"v/1\x01" + bytes(60))
    for path in (tmp_path, tmp_path / "s_0001.exr", tmp_path / "s_####.exr"):
        with pytest.raises(VideoError, match="s_0001.exr is OpenEXR, which is not read: write the frames as PNG"):
            VideoReader(path)


def test_a_truncated_film_is_read_as_far_as_it_goes(tmp_path):
    path = write_avi(tmp_path / "a.avi", frames=10)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 55 // 100])
    frames = list(VideoReader(path))
    assert 4 <= len(frames) <= 6 and frames[3].image.shape == (48, 64, 3)


def make_text(path: Path) -> None:
    path.write_text("This is no film.\n" * 20, encoding="utf-8")


def make_sound(path: Path) -> None:
    samples = bytes(8000)
    head = struct.pack("<4sI4s4sIHHIIHH", b"RIFF", 36 + len(samples), b"WAVE", b"fmt ", 16, 1, 1, 8000, 8000, 1, 8)
    path.write_bytes(head + b"data" + struct.pack("<I", len(samples)) + samples)


def make_headless_mp4(path: Path) -> None:
    """Cut off while recording: the index at the end is missing."""
    write_film(path)
    path.write_bytes(path.read_bytes()[:1500])


def make_sound_only_mp4(path: Path) -> None:
    """A film whose one track says that it is sound, in a format nobody knows."""
    write_film(path)
    path.write_bytes(path.read_bytes().replace(b"vide", b"soun").replace(b"mp4v\0", b"xxxx\0"))


def make_empty_film(path: Path) -> None:
    """Every header is there, the first frame is not."""
    write_avi(path, frames=1)
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"00db")])


CASES = {
    "text.mp4": (make_text, "text.mp4 is a text file, not a video"),
    "empty.mp4": (lambda path: path.write_bytes(b""), r"empty.mp4 is empty \(0 bytes\)"),
    "noise.mp4": (
        lambda path: path.write_bytes(np.random.default_rng(0).bytes(5000)),
        "noise.mp4 is not a video that can be decoded",
    ),
    "sound.wav": (make_sound, "sound.wav is a sound file"),
    "cut.mp4": (make_headless_mp4, "cut.mp4 holds no video stream that can be decoded: .*cut off while recording"),
    "sound.mp4": (make_sound_only_mp4, "sound.mp4 holds no video stream that can be decoded"),
    "none.avi": (make_empty_film, "none.avi holds no frame that can be decoded"),
    "dot.png": (
        lambda path: cv2.imwrite(str(path), np.zeros((1, 1, 3), np.uint8)),
        "dot.png is 1 x 1 px, too small to show a person",
    ),
    "tiny.mp4": (lambda path: write_film(path, size=(16, 16)), "tiny.mp4 is 16 x 16 px, too small"),
    "fake.png": (make_text, "fake.png is not an image that can be decoded"),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_no_video_is_explained(tmp_path, name):
    make, message = CASES[name]
    make(tmp_path / name)
    with pytest.raises(VideoError, match=message) as caught:
        list(VideoReader(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_places_that_hold_nothing(tmp_path):
    with pytest.raises(VideoError, match="Video not found"):
        VideoReader(tmp_path / "none.mp4")
    with pytest.raises(VideoError, match="holds no images"):
        VideoReader(tmp_path)
    with pytest.raises(VideoError, match="No file matches"):
        VideoReader(tmp_path / "s_%04d.png")


def test_ranges_that_hold_nothing(tmp_path):
    path = write_film(tmp_path / "a.mp4")
    with pytest.raises(VideoError, match="Frame range 5 to 5 is empty"):
        VideoReader(path, start=5, end=5)
    with pytest.raises(VideoError, match="ends at frame 11, before frame 50"):
        list(VideoReader(path, start=50))
    write_images(tmp_path / "shot", ["1.png"])
    with pytest.raises(VideoError, match="ends at frame 0, before frame 1"):
        VideoReader(tmp_path / "shot", start=1)


def test_absurdly_large_frames_are_refused(tmp_path):
    path = write_avi(tmp_path / "a.avi", frames=1)
    data = path.read_bytes()
    # The picture header's width and height, 4 bytes into the stream format.
    at = data.index(b"strf") + 8 + 4
    path.write_bytes(data[:at] + struct.pack("<ii", 14000, -10000) + data[at + 8 :])
    with pytest.raises(VideoError, match="14000 x 10000 px; frames over 134 megapixels are too large"):
        VideoReader(path)
