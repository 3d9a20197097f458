"""The files under weights/: which there must be, and whether they are the ones README.md lists."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "weights"
NEEDED = {
    "body_neutral.npz": "python build.py body",
    "blazepose.safetensors": "python build.py perception",
    "pose_prior.npz": "",
}
"""Files the engine cannot do without, and the command that makes them again where the source is at hand."""
REINSTALL = "install Hyper Mocap again"
_LISTED = re.compile(r"`(?P<name>[\w.-]+)`.*?\b(?P<digest>[0-9a-f]{64})\b")


@dataclass(frozen=True)
class WeightFile:
    """One file and how it compares with the list."""

    name: str
    size: int
    """Bytes; 0 = missing."""
    digest: str
    """SHA-256 of the content, empty if missing."""
    listed: str
    """What README.md says it should be, empty if it is not listed."""
    remedy: str
    """What brings the file back."""

    @property
    def problem(self) -> str:
        """What is wrong, empty if nothing is."""
        if not self.size:
            return "missing"
        if self.listed and self.listed != self.digest:
            return "not the file that weights/README.md lists"
        return ""


def inspect_weights(folder: Path = FOLDER) -> list[WeightFile]:
    """Return every needed or listed file, needed ones first."""
    listed = listed_digests(folder)
    has_source = (folder.parent / "build.py").is_file()
    found = []
    for name in (*NEEDED, *(n for n in sorted(listed) if n not in NEEDED)):
        path = folder / name
        size = path.stat().st_size if path.is_file() else 0
        digest = digest_of(path) if size else ""
        remedy = (NEEDED.get(name) if has_source else None) or REINSTALL
        found.append(WeightFile(name, size, digest, listed.get(name, ""), remedy))
    return found


def listed_digests(folder: Path = FOLDER) -> dict[str, str]:
    """Return file name -> SHA-256 from README.md: a name in backticks and the digest, in one line."""
    readme = folder / "README.md"
    if not readme.is_file():
        return {}
    matches = (_LISTED.search(line) for line in readme.read_text(encoding="utf-8").splitlines())
    return {match["name"]: match["digest"] for match in matches if match}


def digest_of(path: Path) -> str:
    """Return a file's SHA-256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
