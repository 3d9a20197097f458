"""`python -m core evaluate`: measure the methods against truth (synthetic clips) or on footage without truth."""

from __future__ import annotations

import argparse
import json
import logging
from functools import partial
from pathlib import Path

from core.errors import InputError

DONE = 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--shards", metavar="DIR", help="rendered clips, through the real detector")
    parser.add_argument("--motion", metavar="NPZ", help="motion bank: sequences with modelled detector noise")
    parser.add_argument("--video", metavar="FILE", nargs="*", default=[], help="footage without truth")
    parser.add_argument("--split", default="test", choices=("train", "validation", "test"))
    parser.add_argument("--count", type=int, default=40, metavar="N", help="clips at most")
    parser.add_argument("--methods", default="fit,hyperbolic", help="comma-separated names (default: %(default)s)")
    parser.add_argument(
        "--network", metavar="FILE", nargs="*", default=[], help="network files to measure as methods of their own"
    )
    parser.add_argument("--told-focal", action="store_true", help="tell the methods the true focal length")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", metavar="FILE", help="also write the table as JSON")


def run(args: argparse.Namespace) -> int:
    logging.getLogger("core.evaluate").setLevel(logging.INFO if args.verbose else logging.WARNING)
    from core.body import load_body
    from core.device import choose_device
    from core.evaluate.report import evaluate, format_table
    from core.evaluate.testset import generated_clips, rendered_clips

    device, body = choose_device(args.device), load_body()
    recoverers = _recoverers(args)
    tables = {}
    common = {"split": args.split, "told_focal": args.told_focal}

    def on_clip(recover, clip):
        return recover(clip.track, clip.camera, body, device=device)

    methods = {name: partial(on_clip, recover) for name, recover in recoverers.items()}
    if args.shards:
        clips = rendered_clips(args.shards, limit=args.count, **common)
        tables[f"rendered, {args.split}"] = evaluate(clips, methods, body)
    if args.motion:
        clips = generated_clips(args.motion, body, count=args.count, **common)
        tables[f"modelled noise, {args.split}"] = evaluate(clips, methods, body)
    for video in args.video:
        tables.update(_footage(video, recoverers, body, device))
    if not tables:
        raise InputError("Nothing to evaluate: give --shards, --motion or --video")
    for title, table in tables.items():
        columns = tuple(dict.fromkeys(key for row in table.values() for key in row))
        args.console.line(f"\n{title}\n\n{format_table(table, columns)}")
    if args.json:
        Path(args.json).write_text(json.dumps(tables, indent=1) + "\n", encoding="utf-8")
    return DONE


def _recoverers(args: argparse.Namespace) -> dict:
    from core.recover import METHODS

    unknown = [name for name in args.methods.split(",") if name and name not in METHODS]
    if unknown:
        raise InputError(f"Unknown method {unknown[0]!r}: use {', '.join(sorted(METHODS))}")
    chosen = {name: METHODS[name] for name in args.methods.split(",") if name}
    for path in args.network:
        from core.body import load_body
        from core.models.checkpoint import load_network
        from core.recover.hyperbolic import recover_by_network

        chosen[Path(path).stem] = partial(recover_by_network, net=load_network(path, load_body()))
    return chosen


def _footage(video: str, recoverers: dict, body, device: str) -> dict[str, dict[str, dict[str, float]]]:
    from core.evaluate.measure import measure_footage
    from core.perception import perceive
    from core.records import Camera
    from core.video import VideoReader

    with VideoReader(video) as reader:
        camera = Camera.from_size(reader.clip.width, reader.clip.height)
        tracks = perceive(reader, device=device)
    return {
        f"{Path(video).name}, person {track.person}": {
            name: measure_footage(recover(track, camera, body, device=device), track, camera, body)
            for name, recover in recoverers.items()
        }
        for track in tracks
    }
