"""Video files and image sequences as frames with times. One frame in memory at a time; no other stage's concern.

Frames come upright (rotation metadata and EXIF applied), as 8-bit BGR, with the index they have in the file and
their own time, so that variable frame rates keep their timing. Every failure is a VideoError of one line.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from core.errors import VideoError
from core.protocol import IMAGE_SUFFIXES
from core.records import Clip

UNREAD_IMAGES = {".exr": "OpenEXR", ".dpx": "DPX", ".cin": "Cineon", ".hdr": "Radiance HDR"}
"""What compositors write and OpenCV's wheels do not read."""
SEQUENCE_FPS = 24.0
"""Rate of image sequences, which carry none; Blender's default scene rate."""
MIN_SIDE = 32
MAX_PIXELS = 1 << 27
"""About 134 megapixels: 8K is 33, a 16K frame just fits."""
MAX_FPS = 1000.0
AUDIO_MAGICS = (b"ID3", b"fLaC", b"OggS", b"\xff\xfb", b"\xff\xf3", b"\xff\xf1", b"\xff\xf9")

log = logging.getLogger(__name__)


NO_IMAGE = np.zeros((0, 0, 3), np.uint8)
"""Of frames that nobody wants to see."""


@dataclass(frozen=True)
class Frame:
    """One decoded frame."""

    index: int
    """Position in the source, from 0."""
    time: float
    """Seconds from the source's first frame."""
    image: np.ndarray
    """[height, width, 3] uint8 BGR, upright."""


class VideoReader:
    """Iterable over the frames [start, end) of a video file, an image, a folder of images or a numbered pattern.

    `clip` describes the whole source. Iterating decodes from the beginning (seeking by frame number is not exact
    in every container) and may be repeated. Use as a context manager, or call close(), to free the decoder early.
    """

    def __init__(self, path: str | Path, start: int = 0, end: int | None = None, *, fps: float | None = None):
        """fps overrides the rate of image sequences and of files that state none. Raises VideoError."""
        if start < 0 or (end is not None and end <= start):
            raise VideoError(f"Frame range {start} to {end} is empty")
        self._path = Path(path)
        self._images = _list_images_or_none(self._path)
        self._capture: cv2.VideoCapture | None = None
        self.start, self.end = start, end
        if self._images is None:
            self.clip = self._probe_video(fps)
        else:
            first = _read_image(self._images[0])
            _check_size(self._path, first.shape[1], first.shape[0])
            rate = SEQUENCE_FPS if fps is None else fps
            self.clip = Clip(str(path), first.shape[1], first.shape[0], rate, len(self._images))
        if self._images is not None and start >= len(self._images):
            raise VideoError(f"{self._path.name} ends at frame {len(self._images) - 1}, before frame {start}")

    @property
    def expected_frames(self) -> int:
        """How many frames iterating will yield, as far as the container tells; 0 = unknown."""
        count = self.clip.frame_count
        last = count if self.end is None else min(self.end, count) if count else self.end
        return max(0, last - self.start)

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the decoder. A running iteration ends."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None

    def __iter__(self) -> Iterator[Frame]:
        return self.frames_from(self.start)

    def frames_from(self, first: int, is_wanted: Callable[[int], bool] = lambda index: True) -> Iterator[Frame]:
        """The frames of the range from index `first` on; those before are skipped without being turned to images.

        So are those whose index is not wanted: they come with an empty image (0 x 0).
        """
        iterate = self._iterate_video if self._images is None else self._iterate_images
        return iterate(first, is_wanted)

    def _iterate_images(self, first: int, is_wanted: Callable[[int], bool]) -> Iterator[Frame]:
        size = (self.clip.height, self.clip.width)
        for index, path in enumerate(self._images[: self.end]):
            if index < first:
                continue
            if not is_wanted(index):
                yield Frame(index, index / self.clip.fps, NO_IMAGE)
                continue
            image = _read_image(path)
            if image.shape[:2] != size:
                found = f"{image.shape[1]} x {image.shape[0]}"
                raise VideoError(f"{path.name} is {found} px, the sequence began with {size[1]} x {size[0]}")
            yield Frame(index, index / self.clip.fps, image)

    def _iterate_video(self, first: int, is_wanted: Callable[[int], bool]) -> Iterator[Frame]:
        self.close()
        capture = self._capture = _open_capture(self._path)
        size = (self.clip.width, self.clip.height)
        previous, index = -1.0 / self.clip.fps, 0
        try:
            while (self.end is None or index < self.end) and capture.isOpened() and capture.grab():
                time = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
                if not previous < time < previous + 3600:  # missing or broken time stamps
                    time = previous + 1 / self.clip.fps
                if index >= first and not is_wanted(index):
                    yield Frame(index, time, NO_IMAGE)
                elif index >= first:
                    decoded, image = capture.retrieve()
                    if not decoded or image is None:
                        break
                    if (image.shape[1], image.shape[0]) != size:
                        log.warning("frame %d changes size to %d x %d", index, image.shape[1], image.shape[0])
                        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
                    yield Frame(index, time, image)
                previous, index = time, index + 1
        except cv2.error as error:
            raise VideoError(f"{self._path.name} cannot be decoded after frame {index}: {error.err}") from error
        finally:
            capture.release()
        if index <= self.start:
            raise VideoError(f"{self._path.name} ends at frame {index - 1}, before frame {self.start}")

    def _probe_video(self, fps: float | None) -> Clip:
        capture = _open_capture(self._path)
        try:
            width = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH))
            height = int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
            _check_size(self._path, width, height)
            rate, count = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
            rotation = int(capture.get(cv2.CAP_PROP_ORIENTATION_META)) % 360
            decoded, first = capture.read()
            if not decoded or first is None:
                raise VideoError(f"{self._path.name} holds no frame that can be decoded: empty or damaged")
            if not 0 < rate <= MAX_FPS:
                second_ms = capture.get(cv2.CAP_PROP_POS_MSEC) if capture.grab() else 0
                rate = 1000 / second_ms if 1000 / MAX_FPS <= second_ms else fps or SEQUENCE_FPS
        except cv2.error as error:
            raise VideoError(f"{self._path.name} cannot be decoded: {error.err}") from error
        finally:
            capture.release()
        frame_count = int(count) if 0 < count < 1e9 else 0
        return Clip(str(self._path), first.shape[1], first.shape[0], float(rate), frame_count, rotation)


def _open_capture(path: Path) -> cv2.VideoCapture:
    """A decoder that turns frames upright. Raises VideoError that says what the file is instead of a video."""
    # An absolute path, so that a name like "concat:x" is never read as a protocol.
    capture = cv2.VideoCapture(str(path.resolve()), cv2.CAP_FFMPEG)
    if not capture.isOpened():
        raise VideoError(_describe_unreadable(path))
    capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
    return capture


def _describe_unreadable(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(4096)
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE" or head.startswith(AUDIO_MAGICS):
        return f"{path.name} is a sound file: it holds no video"
    if head[4:8] == b"ftyp":
        return (
            f"{path.name} holds no video stream that can be decoded: sound only, cut off while recording, or damaged"
        )
    return f"{path.name} is not a video that can be decoded: damaged, or a format this engine does not know"


def _list_images_or_none(path: Path) -> list[Path] | None:
    """The images a path stands for in order, or None if it is to be opened as a video. Raises VideoError."""
    try:
        if path.is_dir():
            return _sequence(path, [p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES], "images")
        if not path.exists():
            pattern = _pattern_or_none(path.name)
            if pattern is not None and path.parent.is_dir():
                return _sequence(path, [p for p in path.parent.iterdir() if pattern.fullmatch(p.name)], "match")
            raise VideoError(f"Video not found: {path}")
        if path.suffix.lower() in IMAGE_SUFFIXES:
            return [path]
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError as error:
        raise VideoError(f"{path} cannot be read: {error.strerror or error}") from error
    if not head:
        raise VideoError(f"{path.name} is empty (0 bytes)")
    if _is_text(head):
        raise VideoError(f"{path.name} is a text file, not a video")
    return None


def _sequence(path: Path, images: list[Path], what: str) -> list[Path]:
    if not images:
        raise VideoError(f"{path} holds no images" if what == "images" else f"No file matches {path}")
    # Natural order: frame2 before frame10.
    return sorted(images, key=lambda p: [int(t) if t.isdigit() else t for t in re.split(r"([0-9]+)", p.name)])


def _pattern_or_none(name: str) -> re.Pattern[str] | None:
    """shot_%04d.png or shot_####.png as a regular expression."""
    parts = re.split(r"(%0?[0-9]*d|#+)", name)
    if len(parts) != 3:
        return None
    return re.compile(re.escape(parts[0]) + "[0-9]+" + re.escape(parts[2]))


def _is_text(head: bytes) -> bool:
    if b"\0" in head:
        return False
    try:
        head[:-3].decode("utf-8")  # the last character may be cut
    except UnicodeDecodeError:
        return False
    return True


def _read_image(path: Path) -> np.ndarray:
    """[height, width, 3] uint8 BGR. Decoded from bytes, as OpenCV opens only ASCII paths on Windows."""
    kind = UNREAD_IMAGES.get(path.suffix.lower())
    if kind is not None:
        raise VideoError(f"{path.name} is {kind}, which is not read: write the frames as PNG or JPEG, or as a video")
    try:
        image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    except OSError as error:
        raise VideoError(f"{path} cannot be read: {error.strerror or error}") from error
    except cv2.error as error:
        raise VideoError(f"{path.name} is not an image that can be decoded: {error.err}") from error
    if image is None:
        raise VideoError(f"{path.name} is not an image that can be decoded")
    return image


def _check_size(path: Path, width: int, height: int) -> None:
    if width <= 0 or height <= 0:
        raise VideoError(f"{path.name} holds no video stream that can be decoded")
    if min(width, height) < MIN_SIDE:
        raise VideoError(f"{path.name} is {width} x {height} px, too small to show a person")
    if width * height > MAX_PIXELS:
        raise VideoError(
            f"{path.name} is {width} x {height} px; frames over {MAX_PIXELS // 10**6} megapixels are too large"
        )
