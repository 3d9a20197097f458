"""`python -m core tune-landmarks`: tune the landmark network's later layers on rendered crops and real footage."""

from __future__ import annotations

import argparse
import logging
import math
from dataclasses import replace
from pathlib import Path

from core.errors import InputError

DONE = 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--crops", required=True, metavar="DIR", help="rendered crops, written by `synth crops`")
    parser.add_argument(
        "--footage",
        required=True,
        nargs="+",
        metavar="VIDEO",
        help="real people, as the network is to keep reading them",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for networks, history and checkpoint")
    parser.add_argument("--hyperbolic", metavar="FILE", help="mesh network to adapt to the tuned network's features")
    parser.add_argument("--start-from", metavar="FILE", help="networks to tune (default: the shipped ones)")
    parser.add_argument(
        "--copies",
        type=int,
        default=1,
        metavar="N",
        help="altered copies of each training crop: mirrored, turned, recoloured (default 1)",
    )
    parser.add_argument(
        "--budget-s", type=float, help="seconds of training (default 2500, or as many as --steps take)"
    )
    parser.add_argument("--steps", type=int, help="steps of training, at most")
    parser.add_argument(
        "--stop-after-s", type=float, default=math.inf, help="leave the training with a checkpoint after this long"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the crops drawn in each step")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default 1: more gain little)")


def run(args: argparse.Namespace) -> int:
    """Tune, refit, write; lines with the scores of both networks."""
    logging.getLogger("core.train").setLevel(logging.INFO)
    import cv2
    import torch

    from core.train.landmarks.run import TuneOptions, tune_landmarks
    from core.train.landmarks.tune import TuneConfig

    if args.copies < 0:
        raise InputError("--copies is a number of copies, 0 or more")
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    tune = replace(TuneConfig(), seed=args.seed)
    if args.steps is not None:
        tune = replace(tune, steps=args.steps, budget_s=math.inf)
    if args.budget_s is not None:
        tune = replace(tune, budget_s=args.budget_s)
    options = TuneOptions(
        crops=Path(args.crops),
        footage=tuple(map(Path, args.footage)),
        out=Path(args.out),
        start_from=Path(args.start_from) if args.start_from else None,
        hyperbolic=Path(args.hyperbolic) if args.hyperbolic else None,
        copies=args.copies,
        stop_after_s=args.stop_after_s,
        tune=tune,
    )
    scores = tune_landmarks(options, args.console.bar)
    if not scores:
        args.console.line(f"Stopped with a checkpoint in {args.out}: the same command goes on from there")
        return DONE
    for name, found in scores.items():
        args.console.line(f"{name:<9} " + "  ".join(f"{key} {value:.4g}" for key, value in found.items()))
    args.console.line(f"wrote {options.out / 'blazepose.safetensors'}")
    return DONE
