"""`python -m core info VIDEO`: what the engine reads from a video, without recovering anything."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from core.cli.console import duration


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("video", help="video file, folder of images, or shot_%%04d.png")
    parser.add_argument("--json", action="store_true", help="write JSON")


def run(args: argparse.Namespace) -> int:
    """Show the clip."""
    from core.records import Camera
    from core.video import VideoReader

    with VideoReader(args.video) as reader:
        clip = reader.clip
    if args.json:
        args.console.line(json.dumps(asdict(clip), indent=2))
        return 0
    camera = Camera.from_size(clip.width, clip.height)
    rotated = f", turned by {clip.rotation} degrees" if clip.rotation else ""
    count = f"{clip.frame_count} frames, {duration(clip.frame_count / clip.fps)}" if clip.frame_count else "unknown"
    args.console.line(f"{clip.path}")
    args.console.line(f"  size    {clip.width} x {clip.height} px{rotated}")
    args.console.line(f"  rate    {clip.fps:.3f} frames/s on average")
    args.console.line(f"  length  {count}")
    args.console.line(f"  focal   {camera.fx:.0f} px assumed ({36 * camera.fx / clip.width:.0f} mm equivalent)")
    return 0
