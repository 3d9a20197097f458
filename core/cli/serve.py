"""`python -m core serve --port N`: the engine as Blender's child process. The token comes by the environment."""

from __future__ import annotations

import argparse
import logging
import os
import sys

from core.errors import SetupError
from core.protocol import TOKEN_VARIABLE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--port", type=int, required=True, help="where Blender listens on 127.0.0.1")


def run(args: argparse.Namespace) -> int:
    """Serve until Blender is done; the exit code is the server's."""
    from core.server import serve

    if not args.token:
        raise SetupError(f"No token in {TOKEN_VARIABLE}: `serve` is started by the add-on, not by hand")
    if not 0 < args.port < 65536:
        raise SetupError(f"--port {args.port} is no port number")
    logging.getLogger("core").setLevel(logging.INFO)
    code = serve(args.port, args.token)
    # Everything is written and sent. Taking down the interpreter with torch in it would last another second.
    logging.shutdown()
    sys.stderr.flush()
    os._exit(code)
