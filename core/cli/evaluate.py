"""`python -m core evaluate`: measure the methods against truth (synthetic clips) or on footage without truth."""

from __future__ import annotations

import argparse
import inspect
import json
import logging
from functools import partial
from pathlib import Path

from core.errors import InputError, OutputError
from core.protocol import QUALITIES

DONE = 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--shards", metavar="DIR", help="rendered clips, through the real detector")
    parser.add_argument("--motion", metavar="NPZ", help="motion bank: sequences with modelled detector noise")
    parser.add_argument(
        "--video", action="extend", metavar="FILE", nargs="*", default=[], help="footage without truth"
    )
    parser.add_argument(
        "--views", metavar="DIR", help="films of one person by calibrated cameras, and their calibration"
    )
    parser.add_argument("--mirror", action="store_true", help="also perceive the footage turned round left to right")
    parser.add_argument("--mocap", metavar="NPZ", help="motion bank: footage's jitter beside that of captured motion")
    parser.add_argument(
        "--quality",
        default="standard",
        choices=QUALITIES,
        help="how footage is perceived (--video, --views)",
    )
    parser.add_argument("--split", default="test", choices=("train", "validation", "test"))
    parser.add_argument("--count", type=int, default=40, metavar="N", help="clips at most (default: %(default)s)")
    parser.add_argument("--methods", default="fit,hyperbolic", help="comma-separated names (default: %(default)s)")
    parser.add_argument(
        "--network",
        action="extend",
        metavar="FILE",
        nargs="*",
        default=[],
        help="network files to measure as methods of their own",
    )
    parser.add_argument("--told-focal", action="store_true", help="tell the methods the true focal length")
    parser.add_argument(
        "--by",
        metavar="NAMES",
        default="",
        help="break errors down by joint,view,focal,occlusion,speed,shape,build,keypoint_error,size; domain sets "
        "rendered clips beside films",
    )
    parser.add_argument("--oracles", action="store_true", help="also measure the methods told parts of the truth")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", metavar="FILE", help="also write the tables as JSON")


def run(args: argparse.Namespace) -> int:
    logging.getLogger("core.evaluate").setLevel(logging.INFO if args.verbose else logging.WARNING)
    _check(args)
    from core.body import load_body
    from core.device import choose_device
    from core.evaluate import domain
    from core.evaluate.breakdown import DOMAIN
    from core.evaluate.domain import Domains

    device, body = choose_device(args.device), load_body()
    recoverers = {name: partial(recover, device=device) for name, recover in _recoverers(args, body).items()}
    tables: dict[str, dict[str, dict[str, float]]] = {}
    domains = Domains() if DOMAIN in args.by else None
    for title, clips in _clip_sets(args, body).items():
        for name, table, corner in _measure_clips(args, clips, recoverers, body, domains):
            tables[f"{title}{name}"] = table
            _show(args.console, f"{title}{name}", table, None, corner)
    mocap = _captured_motion(args, body)
    for video in args.video:
        from core.evaluate import films

        methods = {
            name: lambda track, camera, r=recover: r(track, camera, body) for name, recover in recoverers.items()
        }
        found = films.evaluate_film(
            video,
            methods,
            body,
            device=device,
            quality=args.quality,
            use_mirror=args.mirror,
            mocap=mocap,
            on_progress=partial(_show_perceived, args.console, Path(video).name),
        )
        if not found:
            args.console.error(f"No person found in {video}")
        for title, table in found.items():
            tables[title] = table
            _show(args.console, title, table, films.COLUMNS, "method")
            if domains is not None:
                domains.add_film(table)
    if args.views:
        tables |= _measure_views(args, recoverers, body, device)
    if domains is not None:
        tables["by domain"] = domains.table()
        _show(args.console, "by domain", tables["by domain"], domain.COLUMNS, "method, domain")
    if args.json:
        try:
            Path(args.json).write_text(json.dumps(tables, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{args.json} cannot be written: {error.strerror or error}") from error
    return DONE


def _captured_motion(args: argparse.Namespace, body):
    """What jitter of footage is compared with, or None."""
    if not args.mocap:
        return None
    from core.evaluate.like_motion import CapturedMotion
    from core.synth.motion import read_bank

    return CapturedMotion(read_bank(args.mocap), body)


def _show_perceived(console, name: str, done: int, total: int) -> None:
    console.bar("people", done / max(total, 1), name)


def _check(args: argparse.Namespace) -> None:
    from core.evaluate.breakdown import DOMAIN, choose_breakdowns

    args.by = choose_breakdowns(args.by)
    if not (args.shards or args.motion or args.video or args.views):
        raise InputError("Nothing to evaluate: give --shards, --motion, --video or --views")
    if not (args.shards or args.motion) and (set(args.by) - {DOMAIN} or args.oracles):
        raise InputError("--by and --oracles need truth: give --shards or --motion")
    if args.mocap and not args.video:
        raise InputError("--mocap is compared with footage: give --video")
    if args.count < 1:
        raise InputError(f"--count {args.count}: at least one clip is needed")


def _clip_sets(args: argparse.Namespace, body) -> dict:
    """Title -> test clips."""
    from core.evaluate.testset import generated_clips, rendered_clips

    common, sets = {"split": args.split, "told_focal": args.told_focal}, {}
    if args.shards:
        if not any(Path(args.shards).glob(f"{args.split}-*.npz")):
            raise InputError(f"{args.shards} holds no clips of the {args.split} split ({args.split}-*.npz)")
        sets[f"rendered, {args.split}"] = rendered_clips(args.shards, limit=args.count, **common)
    if args.motion:
        sets[f"modelled noise, {args.split}"] = generated_clips(args.motion, body, count=args.count, **common)
    return sets


def _measure_clips(args: argparse.Namespace, clips, recoverers: dict, body, domains):
    """Yield (name to add to the title, table, what its rows are)."""
    from core.evaluate.breakdown import Breakdown
    from core.evaluate.oracles import with_oracles
    from core.evaluate.report import evaluate

    methods = {name: lambda clip, r=recover: r(clip.track, clip.camera, body) for name, recover in recoverers.items()}
    breakdown = Breakdown(body, args.by)
    done = 0

    def watch(clip, motions) -> None:
        nonlocal done
        done += 1
        args.console.bar("clips", done / args.count, clip.name)
        own = {name: motion for name, motion in motions.items() if name in methods}
        if args.by:
            breakdown.add(clip, own)
        if domains is not None:
            domains.add_clip(clip, own, body)

    table = evaluate(clips, with_oracles(methods, body) if args.oracles else methods, body, watch=watch)
    for name, row in table.items():
        if name not in methods:
            row.pop("fps", None)
    yield "", table, "method"
    for name, table in breakdown.tables().items():
        yield f", {name}", table, name.removeprefix("by ")


def _measure_views(args: argparse.Namespace, recoverers: dict, body, device: str) -> dict:
    """Tables by view; shown as they are made."""
    from core.evaluate import views

    methods = {name: lambda track, camera, r=recover: r(track, camera, body) for name, recover in recoverers.items()}
    watch = partial(_show_perceived, args.console, args.views)
    found, reference = views.evaluate_views(
        args.views, methods, body, device=device, quality=args.quality, on_progress=watch
    )
    args.console.line(f"\nviews agree to {reference.residual_px:.1f} px (median)")
    for name, table in found.items():
        _show(args.console, f"{args.views}, {name}", table, views.COLUMNS, "method")
    return {f"{args.views}, {name}": table for name, table in found.items()}


def _show(console, title: str, table: dict, columns: tuple[str, ...] | None, corner: str) -> None:
    from core.evaluate.report import COLUMNS, format_table

    columns = COLUMNS if columns is None and corner == "method" else columns
    console.line(f"\n{title}\n\n{format_table(table, columns, corner=corner)}")


def _recoverers(args: argparse.Namespace, body) -> dict:
    """Name -> method; one that can be refined comes twice."""
    from core.recover import METHODS

    unknown = [name for name in args.methods.split(",") if name and name not in METHODS]
    if unknown:
        raise InputError(f"Unknown method {unknown[0]!r}: use {', '.join(sorted(METHODS))}")
    chosen = {name: METHODS[name] for name in args.methods.split(",") if name}
    for path in args.network:
        chosen[_free_name(path, chosen)] = _recoverer_of(path, body)
    result = {}
    for name, recover in chosen.items():
        if "refine" in inspect.signature(recover).parameters:
            result |= {name: partial(recover, refine=False), f"{name} refined": partial(recover, refine=True)}
        else:
            result[name] = recover
    return result


def _recoverer_of(path: str, body):
    """The method of a network file."""
    from core.models.checkpoint import load_network, read_file
    from core.recover import METHODS
    from core.systems.registry import load_system

    name = read_file(path)[1].get("system")
    if name is None:
        return partial(METHODS["hyperbolic"], net=load_network(path, body))
    return partial(METHODS[name], net=load_system(path, body))


def _free_name(path: str, taken: dict) -> str:
    """The file's stem; with its folder where that is a method's name already."""
    stem = Path(path).stem
    return stem if stem not in taken else str(path)
