"""`python -m core synth`: the motion bank, rendered training clips, the demo clip, the noise model, sample sheets."""

from __future__ import annotations

import argparse
from pathlib import Path

from core.body import load_body

DONE = 0
BANK = Path("data/motion_24.npz")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("what", choices=("bank",), help="bank: retarget a mocap file to the body's joints")
    parser.add_argument("--mocap", metavar="NPZ", help="source motion file (bank)")
    parser.add_argument("--bank", default=str(BANK), metavar="NPZ", help=f"the motion bank (default: {BANK})")


def run(args: argparse.Namespace) -> int:
    """Run one of the commands."""
    return {"bank": _bank}[args.what](args)


def _bank(args: argparse.Namespace) -> int:
    from core.synth.bank import build_bank
    from core.synth.motion import write_bank

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
