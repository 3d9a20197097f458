"""A whole tuning: features, footage, training, refitting, network files. Resumable at any point.

The output folder holds `blazepose.safetensors`, where asked for `hyperbolic.safetensors`, `history.jsonl`,
`history.png`, `scores.json`, the training's checkpoint and what was read from the footage. Calling again with the
same folder goes on where it ended.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch

from core.atomic import AtomicFile
from core.errors import InputError
from core.perception.blazepose import BlazePoseLandmarks
from core.perception.checkpoint import load_networks, write_tuned_networks
from core.perception.networks import Networks
from core.train.landmarks.alter import AlterConfig
from core.train.landmarks.features import CropBank
from core.train.landmarks.footage import FootageBank, FootageConfig, collect_empty, collect_people
from core.train.landmarks.refit import RefitConfig, refit, write_folded
from core.train.landmarks.score import make_validation, score_network
from core.train.landmarks.tail import network_digest, tuned_state
from core.train.landmarks.tune import TuneConfig, Tuner
from core.train.progress import History, draw_history
from core.weights import digest_of

Tell = Callable[[str, float, str], None]
"""Title, share done, text."""


@dataclass(frozen=True)
class TuneOptions:
    crops: Path
    """Folder of rendered crops, splits train and validation."""
    footage: tuple[Path, ...]
    """Videos of real people."""
    out: Path
    start_from: Path | None = None
    """Networks to tune (None: the shipped ones)."""
    hyperbolic: Path | None = None
    """Mesh network to adapt to the tuned embedding."""
    copies: int = 1
    """Altered copies of each rendered training crop, drawn as often as the crop itself ..."""
    alter: AlterConfig = field(default_factory=AlterConfig)
    """... and how they are altered."""
    stop_after_s: float = math.inf
    tune: TuneConfig = field(default_factory=TuneConfig)
    films: FootageConfig = field(default_factory=FootageConfig)
    refit: RefitConfig = field(default_factory=RefitConfig)
    validation_step: int = 2
    validation_crops: int = 1024
    """Of each so-manieth held-out crop at most so many are scored."""


def tune_landmarks(options: TuneOptions, on_progress: Tell = lambda *_: None) -> dict[str, dict[str, float]]:
    """Run what is left; returns scores of the original and the tuned network, and the refit's report.

    Empty if it was stopped before the budget was used. Raises InputError for crops or footage that cannot be used.
    """
    if not options.footage:
        raise InputError("No footage: without real pictures the tuned network forgets them")
    options.out.mkdir(parents=True, exist_ok=True)
    original = load_networks(options.start_from)[1].to(memory_format=torch.channels_last)

    def count(title: str) -> Callable[[int, int], None]:
        return lambda done, total: on_progress(title, done / total, f"{done} of {total}")

    crops = CropBank(
        options.crops,
        "train",
        original,
        copies=options.copies,
        alter=options.alter,
        on_progress=count("Features of crops"),
    )
    held_out = CropBank(options.crops, "validation", original, on_progress=count("Features of held-out crops"))
    people, empty = _footage(options, original, crops, count("Reading footage"))
    validation = make_validation(held_out, original, step=options.validation_step, at_most=options.validation_crops)
    history = History(options.out / "history.jsonl")
    tuner = Tuner(original, crops, people, validation, options.tune, history, options.out)
    is_done = tuner.run(
        stop_after_s=options.stop_after_s, on_progress=lambda share, text: on_progress("Tuning", share, text)
    )
    draw_history(history, options.out / "history.png")
    if not is_done:
        return {}
    with tuner.averaged() as averaged:
        tuned = round_parameters(averaged)
    fitted = refit(
        original,
        tuned,
        crops.stored(1, at_most=options.refit.crops),
        people.features,
        empty,
        options.refit,
        on_progress=lambda share, text: on_progress("Refitting", share, text),
    )
    _write(options, fitted.network)
    if options.hyperbolic is not None:
        write_folded(options.out / "hyperbolic.safetensors", options.hyperbolic, fitted.embedding_map)
    written = load_networks(options.out / "blazepose.safetensors")[1].to(memory_format=torch.channels_last)
    scores = {
        "original": score_network(original, validation),
        "tuned": score_network(written, validation),
        "refit": fitted.report,
    }
    (options.out / "scores.json").write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")
    return scores


def round_parameters(network: BlazePoseLandmarks) -> BlazePoseLandmarks:
    """A copy whose numbers are those that float16 holds, as its file will; without gradients."""
    copied = BlazePoseLandmarks()
    copied.load_state_dict({name: value.half().float() for name, value in network.state_dict().items()})
    return copied.to(memory_format=torch.channels_last).eval().requires_grad_(False)


def _write(options: TuneOptions, network: BlazePoseLandmarks) -> None:
    tuned = {name: value.half().contiguous().numpy() for name, value in tuned_state(network).items()}
    write_tuned_networks(options.out / "blazepose.safetensors", tuned, start=options.start_from)


def _footage(
    options: TuneOptions, original: BlazePoseLandmarks, crops: CropBank, on_progress: Callable[[int, int], None]
) -> tuple[FootageBank, np.ndarray]:
    """Real crops, and features of places without people: from the folder, if they were made of the same before."""
    path = options.out / "footage.npz"
    made_of = [network_digest(original), asdict(options.films), *map(_identity, options.footage)]
    key = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()
    if path.is_file():
        with np.load(path) as archive:
            if str(archive["key"]) == key:
                known = {name: archive[name] for name in ("features", "points", "world", "confidence", "empty")}
                return FootageBank(*list(known.values())[:4]), known["empty"]
    people = collect_people(
        options.footage, original, Networks(options.start_from), options.films, on_progress=on_progress
    )
    empty = collect_empty(options.footage, crops, original, options.films)
    with AtomicFile(path) as out:
        np.savez(out, key=np.array(key), **vars(people), empty=empty)
    return people, empty


def _identity(path: Path) -> str:
    """What tells one video from another."""
    if path.is_file():
        return digest_of(path)
    return json.dumps(sorted((p.name, p.stat().st_size) for p in path.iterdir())) if path.is_dir() else str(path)
