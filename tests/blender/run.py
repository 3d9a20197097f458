"""Runs the Blender tests inside a real Blender and keeps pytest's exit status.

    blender -b --factory-startup --python-exit-code 1 --python tests/blender/run.py -- [--packages DIR] [PYTEST ARGS]

DIR holds pytest for Blender's Python (`python -m pip install --target DIR pytest`), where Blender's own lacks it.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def main(arguments: list[str]) -> int:
    """Run pytest on tests/blender, or on what the arguments name; returns its exit status."""
    if arguments[:1] == ["--packages"]:
        sys.path.append(arguments[1])
        arguments = arguments[2:]
    sys.path.insert(0, str(ROOT))
    try:
        import pytest
    except ModuleNotFoundError:
        print("pytest is not visible to Blender's Python: pass --packages DIR", file=sys.stderr)
        return 2
    if not any(Path(a.split("::")[0]).exists() for a in arguments):
        arguments = [*arguments, str(ROOT / "tests" / "blender")]
    return int(pytest.main(["--rootdir", str(ROOT), "-c", str(ROOT / "pyproject.toml"), *arguments]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else []))
