"""`python -m core preview RESULT.npz [RESULT.npz ...] VIDEO OUT`: draw results over their video."""

from __future__ import annotations

import argparse

from core.cli.console import Console
from core.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("paths", nargs="+", metavar="RESULT VIDEO OUT", help="result file(s), the video, and OUT")
    parser.add_argument("--body", metavar="FILE", help="the body the results were made with, if not the shipped one")
    parser.add_argument("--quiet", action="store_true", help="no progress")


def run(args: argparse.Namespace) -> int:
    """Draw."""
    from core.preview import draw_preview

    console: Console = args.console
    console.is_quiet = args.quiet
    if len(args.paths) < 3:
        raise InputError("preview needs a result file, the video it came from, and the file to write (.png or .mp4)")
    *results, video, target = args.paths
    path = draw_preview(
        results,
        video,
        target,
        body_path=args.body,
        on_progress=lambda done, total: console.bar("preview", done / total, f"{done}/{total}"),
    )
    console.line(str(path))
    return 0
