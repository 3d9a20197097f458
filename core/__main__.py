"""The engine's command line: `python -m core COMMAND`. The one module that reads arguments and environment.

A command is a module with `add_arguments(parser)` and `run(args) -> exit code`, named in COMMANDS and imported only
when it is called. args.console is where it writes; args.token is set for `serve`. Exit codes: 0 done, 1 something
failed, 2 wrong use, 130 stopped by the user.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import logging
import os
import sys

from core.cli.console import Console
from core.errors import HyperMocapError
from core.protocol import TOKEN_VARIABLE
from core.version import VERSION

COMMANDS: dict[str, tuple[str, str]] = {
    "recover": ("core.cli.recover", "recover the motion of the people in videos"),
    "preview": ("core.cli.preview", "draw a result over its video: picture or film"),
    "info": ("core.cli.info", "what the engine reads from a video"),
    "doctor": ("core.cli.doctor", "what is installed, what is missing, how to mend it"),
    "bench": ("core.cli.bench", "measure speed and memory"),
    "serve": ("core.cli.serve", "work for Blender over a socket (started by the add-on)"),
    "synth": ("core.cli.synth", "make synthetic training data"),
    "train": ("core.cli.train", "train a network"),
    "tune-landmarks": ("core.cli.tune_landmarks", "tune the landmark network on rendered crops"),
    "evaluate": ("core.cli.evaluate", "measure the methods against ground truth"),
}
QUIET_DECODERS = {"OPENCV_FFMPEG_LOGLEVEL": "-8", "OPENCV_LOG_LEVEL": "ERROR"}
"""Set before OpenCV is loaded: what decoders think of a damaged file is no message for a user."""
DONE, FAILED, USAGE, STOPPED = 0, 1, 2, 130


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code. Expected failures are one line on stderr."""
    argv = sys.argv[1:] if argv is None else argv
    console = Console(sys.stdout, sys.stderr)
    token = os.environ.pop(TOKEN_VARIABLE, None)
    if not argv or argv[0] in ("-h", "--help", "--version") or not _is_known(argv[0]):
        return _explain(argv, console)
    name = argv[0]
    module = importlib.import_module(COMMANDS[name][0])
    parser = argparse.ArgumentParser(prog=f"python -m core {name}", description=COMMANDS[name][1])
    parser.add_argument("--verbose", action="store_true", help="log what the engine does to stderr")
    module.add_arguments(parser)
    try:
        args = parser.parse_args(argv[1:])
    except SystemExit as stop:
        return USAGE if stop.code else DONE
    args.console, args.token = console, token
    # Before torch is loaded: threads that spin while they wait are ruinous on a machine that does other work too.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if not args.verbose:
        for name, level in QUIET_DECODERS.items():
            os.environ.setdefault(name, level)
    handler = console.log_handler()
    logger = logging.getLogger("core")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO if args.verbose else logging.WARNING)
    try:
        return module.run(args)
    except HyperMocapError as error:
        console.error(str(error))
        return FAILED
    except KeyboardInterrupt:
        console.error("Stopped")
        return STOPPED
    except BrokenPipeError:
        return FAILED
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def _explain(argv: list[str], console: Console) -> int:
    if argv == ["--version"]:
        console.line(VERSION)
        return DONE
    shown = {name: text for name, (module, text) in COMMANDS.items() if _is_there(module)}
    width = max(map(len, shown))
    console.line("usage: python -m core COMMAND [-h] ...\n")
    for name, text in shown.items():
        console.line(f"  {name:<{width}}  {text}")
    if argv and argv[0] not in ("-h", "--help"):
        console.error(f"Unknown command {argv[0]!r}")
        return USAGE
    return DONE if argv else USAGE


def _is_known(name: str) -> bool:
    return name in COMMANDS and _is_there(COMMANDS[name][0])


def _is_there(module: str) -> bool:
    """Whether a command is part of this installation: what is only for development may be left out."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


if __name__ == "__main__":
    sys.exit(main())
