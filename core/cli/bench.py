"""`python -m core bench [VIDEO]`: speed and memory of the engine, measured against bare MediaPipe in the same run."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from core.cli.console import Console

DEMO = Path(__file__).resolve().parents[2] / "tests" / "data" / "demo.mp4"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("video", nargs="?", default=str(DEMO), help="clip to measure on (default: the demo clip)")
    parser.add_argument("--mediapipe-python", metavar="PATH", help="a Python that has mediapipe")
    parser.add_argument("--runs", type=int, default=2, help="runs of each, the best counts (default: 2)")
    parser.add_argument("--threads", type=int, default=0, help="torch threads (default: torch's choice)")
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda or mps (default: cpu)")
    parser.add_argument("--no-memory", action="store_true", help="leave out the long clips that measure memory")
    parser.add_argument("--json", metavar="FILE", help="also write the figures here")


def run(args: argparse.Namespace) -> int:
    """Measure and tell."""
    from core.atomic import AtomicFile
    from core.bench import describe, measure
    from core.result import explain_output_errors

    console: Console = args.console
    report = measure(
        args.video,
        mediapipe_python=args.mediapipe_python,
        runs=max(args.runs, 1),
        threads=args.threads,
        device=args.device,
        with_memory=not args.no_memory,
        note=console.note,
    )
    for line in describe(report):
        console.line(line)
    if args.json:
        path = Path(args.json)
        with explain_output_errors(path), AtomicFile(path) as file:
            file.write(json.dumps(report.as_dict(), indent=2).encode() + b"\n")
    return 0
