"""`blender --command hyper_mocap recover|build|check ...`: the extension without a window.

recover VIDEO... --out FOLDER [options]   see recover --help
build                                     build the engine (with --online-mode before --command)
check                                     say whether the engine can run
"""

from __future__ import annotations

import bpy

COMMAND = "hyper_mocap"
_handle = None


def run_command(arguments: list[str]) -> int:
    """Run a subcommand; return the exit code."""
    name, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    if name == "recover":
        from .batch_run import main

        return main(rest, f"blender --command {COMMAND} recover")
    operators = {"build": "build_engine", "check": "check_engine"}
    if name not in operators or rest:
        print(__doc__.strip())
        return 0 if name in {"-h", "--help"} else 2
    try:
        getattr(bpy.ops.hyper_mocap, operators[name])()
    except RuntimeError:  # an operator's ERROR report, which Blender has already printed
        return 1
    return 0


def register() -> None:
    """Offer the command."""
    global _handle
    _handle = bpy.utils.register_cli_command(COMMAND, run_command)


def unregister() -> None:
    """Take the command back."""
    global _handle
    bpy.utils.unregister_cli_command(_handle)
    _handle = None
