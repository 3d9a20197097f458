"""The engine's own Python environment: where it is, whether it is usable, and why not in one line. No bpy.

Nothing here touches Blender's Python. A choice of the user comes first, then the environment that Build Engine made
in the extension's own folder. Looking (`find_python`) only looks at files; asking (`probe`) starts the Python for a
fraction of a second and is done in the client's thread or once per change for the panel, never while drawing.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .engine_process import clean_environment
from .errors import EngineMissingError
from .wire import protocol

PYTHON_MINIMUM = (3, 11)
PROBE_SECONDS = 60.0
IMPORT_NAMES = {"opencv-python-headless": "cv2"}
"""Import names of requirements, where they differ from the package's name."""
PROBE = (
    "import sys, json, importlib.util as u; "
    "print(json.dumps({'version': list(sys.version_info[:3]), "
    "'missing': [n for n in sys.argv[1:] if u.find_spec(n) is None]}))"
)
MENDING = "press Build Engine in the preferences of Hyper Mocap"


@dataclass(frozen=True)
class Probe:
    """What a Python said about itself."""

    version: tuple[int, ...]
    missing: tuple[str, ...]
    """Packages of the requirements that it cannot import."""


def package_root() -> Path:
    """Return the folder that holds the packages addon and core."""
    return Path(__file__).resolve().parent.parent


def read_requirements(root: Path | None = None) -> list[str]:
    """Return the engine's requirements, one pip specifier each."""
    lines = ((root or package_root()) / "core" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


METHODS = {
    "fit": ("Fit", "Fit joint angles to the detected points; steady, and needs no trained network", ""),
    "hyperbolic": (
        "Hyperbolic Mesh",
        "Mesh network that refines the body in hyperbolic space, then joint angles from its meshes",
        "hyperbolic.safetensors",
    ),
    "pmce": (
        "PMCE",
        "To compare with: joints and mesh that refine each other (You et al. 2023)",
        "pmce.safetensors",
    ),
    "tcmr": (
        "TCMR",
        "To compare with: joint angles from the frames before and after (Choi et al. 2021)",
        "tcmr.safetensors",
    ),
    "lmr": (
        "LMR",
        "To compare with: joint angles, each part of the body by a recurrent network of its own (Li et al. 2020)",
        "lmr.safetensors",
    ),
    "posture": (
        "PostureHMR",
        "To compare with: a mesh that moves from the T-pose in ten steps (Song et al. 2024)",
        "posture.safetensors",
    ),
}
"""The engine's recovery methods: name -> label, description, file in weights/ that it needs."""


def available_methods(root: Path | None = None) -> list[tuple[str, str, str, int]]:
    """Return the methods whose weights are in the package, as items of an enum property; numbers never change."""
    weights = (root or package_root()) / "weights"
    return [
        (name, label, description, number)
        for number, (name, (label, description, file)) in enumerate(METHODS.items())
        if not file or (weights / file).is_file()
    ]


def default_method(methods: list[tuple[str, str, str, int]]) -> str:
    """Return the name of the usual method among these items, or of the first where it is missing."""
    names = [item[0] for item in methods]
    return protocol.DEFAULT_METHOD if protocol.DEFAULT_METHOD in names else names[0]


def package_name(requirement: str) -> str:
    """Return the name in a pip specifier: "torch==2.13.0" -> "torch"."""
    return re.split(r"[<>=!~;\[ ]", requirement, maxsplit=1)[0]


def environment_python(folder: Path) -> Path:
    """Return the path of the Python of an environment, whether or not it exists."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def stamp_path(folder: Path) -> Path:
    """Return the file that lists the requirements a finished build installed."""
    return folder / "hyper_mocap_packages.txt"


def is_built(folder: Path, requirements: list[str]) -> bool:
    """Return whether a build of exactly these requirements was finished in this folder."""
    stamp = stamp_path(folder)
    return (
        environment_python(folder).is_file()
        and stamp.is_file()
        and stamp.read_text(encoding="utf-8").split("\n") == requirements
    )


def find_python(chosen: str, folder: Path, requirements: list[str]) -> str:
    """Return the Python to use: the user's choice, else the built one. EngineMissingError says what to do."""
    if chosen:
        if not Path(chosen).is_file():
            raise EngineMissingError(
                f"Engine Python {chosen} does not exist: correct it in the preferences, or {MENDING}"
            )
        return chosen
    if is_built(folder, requirements):
        return str(environment_python(folder))
    if stamp_path(folder).is_file():
        raise EngineMissingError(f"The engine was built for another version: {MENDING} to update it")
    if environment_python(folder).is_file():
        raise EngineMissingError(f"The engine is only half built: {MENDING} to go on where it stopped")
    raise EngineMissingError(f"The engine is not built yet: {MENDING}")


def probe(python: str, requirements: list[str]) -> Probe:
    """Ask a Python for its version and for what it cannot import. EngineMissingError if it does not answer."""
    names = {IMPORT_NAMES.get(package_name(r), package_name(r)): package_name(r) for r in requirements}
    flags = {"creationflags": subprocess.CREATE_NO_WINDOW} if os.name == "nt" else {}
    try:
        answer = subprocess.run(
            [python, "-c", PROBE, *names],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PROBE_SECONDS,
            env=clean_environment(),
            encoding="utf-8",
            errors="replace",
            **flags,
        )
        found = json.loads(answer.stdout)
        return Probe(tuple(found["version"]), tuple(names[n] for n in found["missing"]))
    except OSError as error:
        reason = error.strerror or str(error)
    except subprocess.TimeoutExpired:
        reason = f"no answer within {PROBE_SECONDS:.0f} s"
    except (ValueError, KeyError, TypeError):
        lines = [line for line in answer.stderr.splitlines() if line.strip()]
        reason = lines[-1].strip() if lines else f"exit code {answer.returncode}"
    raise EngineMissingError(f"Engine Python {python} cannot be used ({reason}): choose another, or {MENDING}")


def check_python(python: str, requirements: list[str]) -> Probe:
    """Return what a Python says about itself if the engine can run in it. EngineMissingError says why it cannot."""
    found = probe(python, requirements)
    if found.version[:2] < PYTHON_MINIMUM:
        version, wanted = ".".join(map(str, found.version)), ".".join(map(str, PYTHON_MINIMUM))
        raise EngineMissingError(
            f"Engine Python {python} is version {version}, {wanted} or newer is needed: choose another, or {MENDING}"
        )
    if found.missing:
        raise EngineMissingError(f"Engine Python {python} lacks {', '.join(found.missing)}: {MENDING}")
    return found
