"""Which videos the words of a command line stand for: a folder is every video in it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from core.errors import InputError
from core.protocol import IMAGE_SUFFIXES, VIDEO_SUFFIXES


def find_videos(words: Iterable[str]) -> list[str]:
    """Return the videos that files, folders and numbered patterns stand for, each once.

    A folder is its videos by name, or, where it holds images and no video, one clip made of them. InputError where it
    holds neither. What is no folder is taken as it is.
    """
    videos: dict[str, None] = {}
    for word in words:
        videos.update(dict.fromkeys(_videos_in(Path(word)) if Path(word).is_dir() else [word]))
    return list(videos)


def _videos_in(folder: Path) -> list[str]:
    try:
        files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    except OSError as error:
        raise InputError(f"The folder {folder} cannot be read: {error.strerror or error}") from error
    found = [str(path) for path in files if path.suffix.lower() in VIDEO_SUFFIXES]
    if found:
        return found
    if any(path.suffix.lower() in IMAGE_SUFFIXES for path in files):
        return [str(folder)]
    raise InputError(f"The folder {folder} holds no videos and no images: name video files, or a folder of them")
