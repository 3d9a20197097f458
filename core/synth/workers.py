"""Rendering of clips and crops on every CPU core: one process a core, each making its share of the shards."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path

from core.errors import HyperMocapError
from core.synth.crops import CropConfig
from core.synth.dataset import DatasetConfig

POLL_S = 0.3


def make_dataset_in_parallel(
    folder: str | Path,
    bank_path: str | Path,
    *,
    config: DatasetConfig,
    workers: int,
    networks: str | Path | None = None,
    on_progress: Callable[[int, int], None],
) -> None:
    """What `make_dataset` does on the CPU, in `workers` processes; the files are the same as one process makes.

    networks: file of the perception networks that read the frames (None: the shipped ones).
    Raises HyperMocapError where a process fails; whole files stay, and the next call makes the others.
    """
    total = config.shards * config.per_shard
    arguments = (str(folder), str(bank_path), config, networks)
    _share(_make_clips, arguments, workers, total, on_progress, "clips")


def make_crops_in_parallel(
    folder: str | Path,
    bank_path: str | Path,
    *,
    config: CropConfig,
    workers: int,
    on_progress: Callable[[int, int], None],
) -> None:
    """What `make_crops` does on the CPU, in `workers` processes; errors as above."""
    total = config.shards * config.per_shard
    _share(_make_crops, (str(folder), str(bank_path), config), workers, total, on_progress, "crops")


def _share(
    work: Callable, arguments: tuple, workers: int, total: int, on_progress: Callable[[int, int], None], what: str
) -> None:
    """Run work(*arguments, worker, workers, counts of what is done) in `workers` processes."""
    context = multiprocessing.get_context("spawn")
    done = context.Array("q", workers)
    processes = [
        context.Process(target=work, args=(*arguments, i, workers, done), daemon=True) for i in range(workers)
    ]
    for process in processes:
        process.start()
    try:
        while any(process.is_alive() for process in processes):
            for process in processes:
                process.join(POLL_S / workers)
                if process.exitcode:
                    raise HyperMocapError(f"A process that rendered {what} ended with exit code {process.exitcode}")
            on_progress(sum(done), total)
    finally:
        for process in processes:
            process.terminate()
            process.join()
    if any(process.exitcode for process in processes):
        raise HyperMocapError(f"A process that rendered {what} failed")


def _make_clips(
    folder: str,
    bank_path: str,
    config: DatasetConfig,
    networks: str | Path | None,
    worker: int,
    workers: int,
    done,
) -> None:
    import torch

    from core.body import load_body
    from core.perception.checkpoint import load_networks
    from core.synth.dataset import make_dataset
    from core.synth.motion import read_bank

    torch.set_num_threads(1)  # one process a core is faster than many threads
    _, detector = load_networks(networks)

    make_dataset(
        folder,
        read_bank(bank_path),
        load_body(),
        detector.to(memory_format=torch.channels_last),
        config=config,
        worker=worker,
        workers=workers,
        on_progress=_teller(done, worker),
    )


def _make_crops(folder: str, bank_path: str, config: CropConfig, worker: int, workers: int, done) -> None:
    import cv2
    import torch

    from core.body import load_body
    from core.synth.crops import make_crops
    from core.synth.motion import read_bank

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    make_crops(
        folder,
        read_bank(bank_path),
        load_body(),
        config=config,
        worker=worker,
        workers=workers,
        on_progress=_teller(done, worker),
    )


def _teller(done, worker: int) -> Callable[[int, int], None]:
    """Counts what this process has done; ends it when the one that asked is gone."""

    def tell(count: int, _: int) -> None:
        done[worker] = count
        if not multiprocessing.parent_process().is_alive():
            raise SystemExit("the process that asked for this work is gone")

    return tell
