"""`python -m core doctor`: what is installed, what is missing, the command that mends it. Exit code 1 if anything."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from core.errors import HyperMocapError
from core.version import VERSION
from core.weights import inspect_weights

REQUIREMENTS = Path(__file__).resolve().parent.parent / "requirements.txt"
MIN_PYTHON = (3, 11)


@dataclass(frozen=True)
class Finding:
    """One thing looked at."""

    subject: str
    state: str
    is_fine: bool = True
    remedy: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--json", action="store_true", help="write JSON")


def run(args: argparse.Namespace) -> int:
    """Look at everything and tell."""
    findings = list(examine())
    if args.json:
        report = {"version": VERSION, "is_fine": all(f.is_fine for f in findings)}
        args.console.line(json.dumps({**report, "findings": [asdict(f) for f in findings]}, indent=2))
    else:
        width = max(len(f.subject) for f in findings)
        for finding in findings:
            mark = "ok " if finding.is_fine else "BAD"
            args.console.line(f"{mark} {finding.subject:<{width}}  {finding.state}")
        for remedy in dict.fromkeys(f.remedy for f in findings if not f.is_fine and f.remedy):
            args.console.line(f"To mend: {remedy}")
    return 0 if all(f.is_fine for f in findings) else 1


def examine() -> Iterator[Finding]:
    """Yield what was found, cheap things first; nothing found broken stops the rest."""
    yield Finding("engine", VERSION)
    text = platform.python_version()
    is_new = sys.version_info[:2] >= MIN_PYTHON
    yield Finding("Python", text if is_new else f"{text}: 3.11 or newer is needed", is_new, "install Python 3.11")
    packages = list(_packages())
    yield from packages
    for file in inspect_weights():
        state = f"{file.size / 1e6:.1f} MB, sha256 {file.digest[:12]}" if file.size else "missing"
        if file.size and not file.listed:
            state += " (not listed in weights/README.md)"
        problem = "" if not file.problem or not file.size else f": {file.problem}"
        yield Finding(f"weights/{file.name}", state + problem, not file.problem, file.remedy)
    if all(p.is_fine for p in packages):
        yield _attempt("device", _device)
        yield _attempt("video", _decode_a_video)
        yield _attempt("body", _load_the_body)
        yield _attempt("perception", _load_the_networks)


def _packages() -> Iterator[Finding]:
    remedy = f'"{sys.executable}" -m pip install -r "{REQUIREMENTS}"'
    for line in REQUIREMENTS.read_text(encoding="utf-8").splitlines():
        match = re.match(r"^\s*([A-Za-z0-9_.-]+)\s*(.*)$", line)
        if not match or line.lstrip().startswith("#"):
            continue
        name, wanted = match[1], match[2].strip()
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding(name, f"missing, wanted {wanted or 'any version'}", False, remedy)
            continue
        is_right = satisfies(version, wanted)
        yield Finding(name, version if is_right else f"{version}, wanted {wanted}", is_right, remedy)


def satisfies(version: str, wanted: str) -> bool:
    """Return whether a version fits a comma-separated list of ==, >=, <=, < and > conditions on numbers."""
    have = _numbers(version)
    for condition in filter(None, (c.strip() for c in wanted.split(","))):
        match = re.match(r"^(==|>=|<=|<|>)\s*(.+)$", condition)
        if match is None:
            continue
        want = _numbers(match[2])
        length = max(len(have), len(want))
        a, b = (n + (0,) * (length - len(n)) for n in (have, want))
        if not {"==": a == b, ">=": a >= b, "<=": a <= b, "<": a < b, ">": a > b}[match[1]]:
            return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", version.split("+")[0].split("rc")[0]))


def _attempt(subject: str, look: Callable[[], str]) -> Finding:
    """Return what `look` says, or its failure as a finding: a doctor does not fall ill."""
    try:
        return Finding(subject, look())
    except HyperMocapError as error:
        return Finding(subject, str(error), False)
    except Exception as error:
        return Finding(subject, f"{type(error).__name__}: {' '.join(str(error).split())}", False)


def _device() -> str:
    from core.device import choose_device, describe_device

    return describe_device(choose_device("auto"))


def _decode_a_video() -> str:
    import cv2
    import numpy as np

    from core.video import VideoReader

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "probe.avi"
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 64))
        for level in (0, 255):
            writer.write(np.full((64, 64, 3), level, np.uint8))
        writer.release()
        with VideoReader(path) as reader:
            levels = [round(float(frame.image.mean())) for frame in reader]
    if len(levels) != 2 or levels[0] > 5 or levels[1] < 250:
        raise RuntimeError(f"a two-frame film came back as {levels}")
    return f"OpenCV {cv2.__version__} writes and reads films"


def _load_the_body() -> str:
    from core.body import load_body

    body = load_body()
    return f"{body.name}, {body.vertex_count} vertices"


def _load_the_networks() -> str:
    from core.perception.networks import Networks

    Networks(device="cpu")
    return "networks load and match their checksum"
