"""`python -m core train [CONFIG]`: train the networks from a motion bank and rendered clips.

Settings with a line `system = "NAME"` train one of the related systems (core.systems) instead.
"""

from __future__ import annotations

import argparse
import logging
import math
from dataclasses import replace
from pathlib import Path

from core.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", nargs="?", help="TOML file of settings (default: the built-in settings)")
    parser.add_argument(
        "--set",
        action="extend",
        nargs="*",
        default=[],
        metavar="KEY=VALUE",
        help="change settings, as lines of TOML with dotted keys",
    )
    parser.add_argument("--out", required=True, help="folder for checkpoints, networks, history and plot")
    parser.add_argument("--motion", help="motion bank written by `synth bank`")
    parser.add_argument("--shards", help="folder of rendered clips written by `synth clips`")
    parser.add_argument("--start-from", help="network file to start from")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--lift-budget-s", type=float, help="seconds for stage lift")
    parser.add_argument("--mesh-budget-s", type=float, help="seconds for stage mesh")
    parser.add_argument(
        "--render-s", type=float, default=0.0, help="render clips into --shards beside the training for this long"
    )
    parser.add_argument(
        "--stop-after-s", type=float, default=math.inf, help="leave with a checkpoint after this long"
    )
    parser.add_argument("--skip-lift", action="store_true", help="train the lifter only along with the mesh network")
    parser.add_argument("--compile", action="store_true", help="compile the networks' blocks with torch.compile")
    parser.add_argument(
        "--ablations", type=int, nargs="+", metavar="SEED", help="train the mesh network's variants, once per seed"
    )
    parser.add_argument("--body", help="body model file (default: the shipped body)")


def run(args: argparse.Namespace) -> int:
    logging.getLogger("core.train").setLevel(logging.INFO)
    from core.device import choose_device
    from core.train.config import TrainConfig
    from core.train.data import TrainOptions

    config = _config(args)
    if args.motion is None and args.shards is None:
        raise InputError("Nothing to train on: give --motion, --shards or both")
    options = TrainOptions(
        config=config,
        out=Path(args.out),
        motion=Path(args.motion) if args.motion else None,
        shards=Path(args.shards) if args.shards else None,
        start_from=Path(args.start_from) if args.start_from else None,
        device=choose_device(args.device),
        stop_after_s=args.stop_after_s,
        body_path=args.body,
        skip_lift=args.skip_lift,
        render_s=args.render_s,
    )
    if args.ablations:
        from core.train.ablations import format_ablations, run_ablations

        table = run_ablations(options, seeds=tuple(args.ablations), on_done=args.console.line)
        args.console.line(format_ablations(table))
        return 0
    if isinstance(config, TrainConfig):
        from core.train.run import train
    else:
        from core.systems.training import train_system as train
    metrics = train(options)
    for name, value in metrics.items():
        args.console.line(f"{name} {value}")
    return 0


def _config(args: argparse.Namespace):
    """The settings of the default network or of a related system; InputError for options that are not for it."""
    from core.train.config import read_config, read_settings

    changes = tuple(args.set)
    values = read_settings(args.config, changes)
    if "system" in values:
        from core.systems.training import system_config

        of_default = ("lift_budget_s", "mesh_budget_s", "ablations", "skip_lift", "compile")
        for name in of_default:
            if getattr(args, name):
                option = name.replace("_", "-")
                raise InputError(
                    f"--{option} is for the default network: a system's budgets are stages.NAME.budget_s"
                )
        return system_config(values, changes[-1] if changes else args.config)
    config = read_config(args.config, changes)
    if args.lift_budget_s is not None:
        config = replace(config, lift=replace(config.lift, budget_s=args.lift_budget_s))
    if args.mesh_budget_s is not None:
        config = replace(config, mesh=replace(config.mesh, budget_s=args.mesh_budget_s))
    return replace(config, use_compile=True) if args.compile else config
