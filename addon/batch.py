"""Recover the motion of many clips without a window.

    blender -b --python addon/batch.py -- VIDEO... --out FOLDER [options]
    python addon/batch.py -- VIDEO... --out FOLDER [options]          where the bpy wheel is installed

This file only finds the package it lies in, under the name hyper_mocap, and hands over to batch_run, which documents
the options (`--help`). The installed extension has the same as `blender --command hyper_mocap recover`.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import os
import sys
from pathlib import Path

PACKAGE = "hyper_mocap"


def load_package() -> None:
    """Make the folder above importable as a package of that name, without touching sys.path."""
    spec = importlib.machinery.ModuleSpec(PACKAGE, None, is_package=True)
    spec.submodule_search_locations = [str(Path(__file__).resolve().parent.parent)]
    sys.modules[PACKAGE] = importlib.util.module_from_spec(spec)


def main() -> None:
    """Run the batch with what follows `--` on the command line, and leave with its exit code."""
    load_package()
    arguments = sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else sys.argv[1:]
    code = importlib.import_module(f"{PACKAGE}.addon.batch_run").main(arguments)
    if not importlib.import_module("bpy").app.binary_path:
        leave_wheel(code)
    sys.exit(code)


def leave_wheel(code: int) -> None:
    """End the process at once: freeing itself, the bpy 4.2 wheel crashes wherever a timer or glTF was used."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
