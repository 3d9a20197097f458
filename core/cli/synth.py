"""`python -m core synth`: motion bank, rendered training clips and crops, demo clip, noise model, sample sheets."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import torch

from core.body import load_body
from core.errors import InputError
from core.synth.splits import SPLITS

DONE = 0
BANK = Path("data/motion_24.npz")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "what",
        nargs="?",
        default="clips",
        choices=tuple(COMMANDS),
        help="; ".join(f"{n}: {h}" for n, (_, h) in COMMANDS.items()),
    )
    parser.add_argument("--shards", metavar="DIR", help="rendered clips (noise)")
    parser.add_argument("--mocap", metavar="NPZ", nargs="+", help="source motion files (bank, collect)")
    parser.add_argument("--fbx", metavar="DIR", nargs="+", help="folders with takes NN_MM.fbx of CMU (collect)")
    parser.add_argument("--rates", metavar="CSV", help="rates of the captures (collect; default: 120 a second)")
    parser.add_argument("--frames", type=int, default=150_000, help="at least this many (clips, crops)")
    parser.add_argument("--clip-frames", type=int, default=96, help="length of a clip (clips)")
    parser.add_argument("--spacing", type=int, default=1, help="thirtieths of a second from frame to frame (clips)")
    parser.add_argument("--batch", type=int, help="clips in lockstep, one file (clips; default 256, 8 on the CPU)")
    parser.add_argument("--split", choices=SPLITS, default="train", help="whose motion (clips, crops)")
    parser.add_argument(
        "--conditions", choices=("everyday", "hard"), default="everyday", help="of the footage (clips, sheet)"
    )
    parser.add_argument("--seed", type=int, default=0, help="another seed, other clips (clips, crops)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (clips, crops)")
    parser.add_argument("--supersample", type=int, help="rays along a pixel's side (clips, crops; default 2, 1)")
    parser.add_argument("--workers", type=int, help="processes (clips, crops; default: one a core, 1 on a GPU)")
    parser.add_argument("--embedding", type=int, help="keep so many projections of the image embedding (clips)")
    parser.add_argument(
        "--networks", metavar="FILE", help="perception networks to read with (clips; default: shipped)"
    )
    parser.add_argument(
        "--out", metavar="DIR", help="folder to write to (noise: default beside the model; collect: a file)"
    )
    parser.add_argument("--bank", default=str(BANK), metavar="NPZ", help=f"the motion bank (default: {BANK})")


def run(args: argparse.Namespace) -> int:
    """Run one of the commands."""
    return COMMANDS[args.what][0](args)


def _bank(args: argparse.Namespace) -> int:
    from core.synth.bank import build_bank
    from core.synth.motion import write_bank

    if not args.mocap:
        raise InputError("bank needs --mocap NPZ")
    if args.out:
        raise InputError(f"bank writes one file, named by --bank (now {args.bank}): leave --out away")
    bank, repeats = build_bank(args.mocap, load_body())
    path = Path(args.bank)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bank(path, bank)
    for split in ("train", "validation", "test"):
        clips = bank.clips(split)
        minutes = sum(int(bank.clip_len[i]) for i in clips) / 30 / 60
        args.console.line(f"{split:<11} {len(clips):4d} clips {minutes:6.1f} minutes")
    args.console.line(f"left out as repeats of held-out takes: {', '.join(repeats) or 'none'}")
    args.console.line(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB)")
    return DONE


def _collect(args: argparse.Namespace) -> int:
    from core.result import explain_output_errors
    from core.synth.collect import collect, write_collection
    from core.synth.trials import read_trials

    if not (args.fbx and args.mocap and args.out):
        raise InputError("collect needs --fbx DIR, --mocap NPZ and --out FILE.npz")
    path = Path(args.out)
    if path.suffix != ".npz" or path.is_dir():
        raise InputError(f"collect writes one file, named by --out: {path} does not end in .npz")
    if path.resolve() in [Path(name).resolve() for name in args.mocap]:
        raise InputError(f"--out is a file that --mocap reads: {path}")
    collection = collect(
        args.fbx,
        args.mocap,
        trials=read_trials(args.rates) if args.rates else None,
        on_progress=_rate_bar(args, "Reading takes", "takes"),
    )
    takes = {clip.take.name for clip in collection.clips}
    args.console.line(f"{len(collection.clips)} clips of {len(takes)} takes, {collection.minutes:.1f} minutes")
    for reason, names in sorted(collection.left_out.items()):
        args.console.line(f"left out {len(names):4d} {reason}")
    with explain_output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_collection(path, collection)
    args.console.line(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB)")
    return DONE


def _demo(args: argparse.Namespace) -> int:
    from core.synth.demo import write_demo
    from core.synth.motion import read_bank

    if not args.out:
        raise InputError("demo needs --out DIR")
    film, truth = write_demo(args.out, read_bank(args.bank), load_body())
    args.console.line(f"wrote {film} ({film.stat().st_size / 1e3:.0f} kB) and {truth.name}")
    return DONE


def _clips(args: argparse.Namespace) -> int:
    from core.device import choose_device
    from core.perception.checkpoint import load_networks
    from core.synth.dataset import DatasetConfig, make_dataset
    from core.synth.motion import read_bank
    from core.synth.workers import make_dataset_in_parallel

    if not args.out:
        raise InputError("clips need --out DIR")
    device = torch.device(choose_device(args.device))
    is_gpu = device.type == "cuda"
    config = DatasetConfig(
        split=args.split,
        conditions=args.conditions,
        frames=args.frames,
        clip_frames=args.clip_frames,
        spacing=args.spacing,
        batch=args.batch or (256 if is_gpu else 8),
        seed=args.seed,
        supersample=args.supersample or 2,
        embedding_size=args.embedding,
    )
    started, show = time.monotonic(), _rate_bar(args, "Rendering clips", "frames")
    workers = _workers(args, device, config.shards)
    _, detector = load_networks(args.networks)  # before any process starts, so that a damaged file is told of once
    if workers > 1:
        make_dataset_in_parallel(
            args.out, args.bank, config=config, workers=workers, networks=args.networks, on_progress=show
        )
    else:
        detector = detector.to(device=device, dtype=torch.float16 if is_gpu else torch.float32)
        detector = detector.to(memory_format=torch.channels_last)
        bank, body = read_bank(args.bank), load_body(device=device)
        make_dataset(args.out, bank, body, detector, config=config, device=device, on_progress=show)
    seconds = time.monotonic() - started
    args.console.line(f"{config.shards} files in {args.out} after {seconds:.0f} s")
    return DONE


def _crops(args: argparse.Namespace) -> int:
    from core.device import choose_device
    from core.synth.crops import CropConfig, make_crops
    from core.synth.motion import read_bank
    from core.synth.workers import make_crops_in_parallel

    if not args.out:
        raise InputError("crops need --out DIR")
    device = torch.device(choose_device(args.device))
    config = CropConfig(split=args.split, count=args.frames, seed=args.seed, supersample=args.supersample or 1)
    started, show = time.monotonic(), _rate_bar(args, "Rendering crops", "crops")
    workers = _workers(args, device, config.shards)
    if workers > 1:
        make_crops_in_parallel(args.out, args.bank, config=config, workers=workers, on_progress=show)
    else:
        bank, body = read_bank(args.bank), load_body(device=device)
        make_crops(args.out, bank, body, config=config, device=device, on_progress=show)
    args.console.line(f"{config.shards} files in {args.out} after {time.monotonic() - started:.0f} s")
    return DONE


def _workers(args: argparse.Namespace, device: torch.device, shards: int) -> int:
    return min(args.workers or (os.cpu_count() or 1 if device.type == "cpu" else 1), shards)


def _rate_bar(args: argparse.Namespace, title: str, unit: str) -> Callable[[int, int], None]:
    started = time.monotonic()

    def show(done: int, total: int) -> None:
        rate = done / max(time.monotonic() - started, 1e-9)
        args.console.bar(title, done / total, f"{done} of {total} {unit}, {rate:.0f} a second")

    return show


def _noise(args: argparse.Namespace) -> int:
    from core.synth.detector_errors import measure
    from core.synth.format import read_shards
    from core.synth.noise import PARAMETERS_FILE, NoiseParameters
    from core.synth.noisefit import fit, summarise
    from core.synth.sheet import error_histograms

    if not args.shards:
        raise InputError("noise needs --shards DIR, a folder of rendered clips")
    body, clips = load_body(), []
    for shard in read_shards(args.shards, split=args.split):
        clips += [clip for clip in measure(shard, body) if clip.spacing == 1]
    if not clips:
        raise InputError(f"{args.shards} holds no clips of the split {args.split}")
    out = Path(args.out) if args.out else PARAMETERS_FILE.parent
    out.mkdir(parents=True, exist_ok=True)
    fit(clips, NoiseParameters.load()).save(out / PARAMETERS_FILE.name)
    lines = summarise(clips)
    for line in lines:
        args.console.line(line)
    if args.out:
        (out / "errors.txt").write_text("\n".join(lines) + "\n")
        cv2.imwrite(str(out / "errors.png"), error_histograms(clips))
    args.console.line(f"wrote {out / PARAMETERS_FILE.name}")
    return DONE


def _sheet(args: argparse.Namespace) -> int:
    from core.device import choose_device
    from core.perception.checkpoint import load_networks
    from core.synth.dataset import sampler_config
    from core.synth.motion import read_bank
    from core.synth.sampler import MotionSampler
    from core.synth.sheet import sample_sheet
    from core.synth.takes import CONDITIONS

    if not args.out:
        raise InputError("sheet needs --out DIR")
    device = choose_device(args.device)
    config = sampler_config(args.split, args.clip_frames)
    motions = MotionSampler(
        read_bank(args.bank), load_body(device=device), split=args.split, config=config, device=device
    )
    detector = load_networks()[1].to(device)
    every = max(1, args.clip_frames // 3)
    picture = sample_sheet(
        motions,
        detector,
        count=args.batch or 6,
        frames=args.clip_frames,
        every=every,
        seed=args.seed,
        conditions=CONDITIONS[args.conditions],
    )
    path = Path(args.out) / f"sheet-{args.split}-{args.seed}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), picture)
    args.console.line(f"wrote {path}")
    return DONE


COMMANDS = {
    "clips": (_clips, "render training clips and run the detector over them"),
    "crops": (_crops, "render single crops with their truth, to tune the landmark network on"),
    "noise": (_noise, "fit the noise model to rendered clips"),
    "sheet": (_sheet, "draw a sample sheet of rendered frames"),
    "bank": (_bank, "retarget a mocap file to the body's joints"),
    "collect": (_collect, "make a motion file of CMU takes in FBX files, for bank"),
    "demo": (_demo, "render the demonstration clip and its ground truth"),
}
